"""What a command does to which keys: one table, by name.

A `Plan` turns a command and its answer into a short note of what happened, without the values: it runs beside every command
of the application, so it copies as little as it can. What a note means for anybody is not known here (`follow` knows), and
neither is who sent it.

A command that is not in the table is taken to write whatever it names: its arguments are noted as keys that nobody can
speak for. So are commands whose keys are hard to find among their arguments (scripts, BITOP, SORT ... STORE): that is
always safe, since a key that is not followed is let alone.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

Args = tuple[Any, ...]

# Verbs of notes, and what each one's matter is.
READ = 1            # (key, size or 0 when not known or MISS)
READS = 2           # [(key, size or MISS)]
WROTE = 3           # (key, size, options, not done)
WROTES = 4          # ([(key, size)], options, conditional)
SETEX = 5           # (key, size, time, unit of it in milliseconds)
EXPIRE = 6          # (key, time, unit of it in milliseconds, since 1970?, done?)
PERSIST = 7         # (key, done?)
GONE = 8            # keys
BUILT = 9           # (key, size): grown, and perhaps made
COUNTED = 10        # keys whose contents now come from what they were before, which nobody could load again
UNKNOWN = 11        # keys that may have been written by who knows whom
RENAMED = 12        # (from, to)
COPIED = 13         # (from, to, options)
FLUSHED = 14        # None
GETSET = 15         # (key, size read or MISS, size written)
GETDEL = 16         # (key, size read or MISS)
GETEX = 17          # (key, size read or MISS, options)
BLIND = 18          # None: from now on this connection's keys are of another database
NEAR = 19           # keys answered in this process

# What the answer of a command about one key says of it: found, or not. WRITE: nothing.
WRITE = 0
VALUE = 1           # None: not there
WHOLE = 2           # nothing in it: not there
PART = 3            # nothing in it says nothing

MISS = -1
LONGEST_KEY = 1024  # of the arguments of unknown commands that are looked up as keys

Pack = Callable[[Args, Any], Any]


class Plan:
    """What is noted of one command."""

    __slots__ = ("keys", "kind", "pack", "single", "verb", "writes")

    def __init__(self, verb: int, pack: Pack, *, keys: Callable[[Args], Args] | None = None, single: bool = True) -> None:
        self.verb = verb                # 0: nothing
        self.pack = pack
        self.single = single            # about one key, args[1]
        self.kind = _KINDS.get(pack, WRITE)
        self.keys = keys or _first
        self.writes = verb not in (0, READ, READS, BLIND)


def size(value: Any) -> int:
    """Bytes of a value as it is sent."""
    kind = type(value)
    if kind is bytes or kind is str:
        return len(value)
    if kind is int or kind is float:
        return len(repr(value))
    try:
        return memoryview(value).nbytes
    except (TypeError, ValueError):     # a view that was released meanwhile
        return 0


def _nothing(args: Args, reply: Any) -> None:
    return None


def _first(args: Args) -> Args:
    return args[1:2]


def _all(args: Args) -> Args:
    return args[1:]


def _alternate(args: Args) -> Args:
    return args[1::2]


def _none(args: Args) -> Args:
    return ()


def short(args: Args) -> Args:
    """The arguments that may be keys."""
    return tuple(one for one in args[1:] if isinstance(one, (str, bytes)) and len(one) <= LONGEST_KEY)


def _value(args: Args, reply: Any) -> Any:
    """A string, or None where there is no key."""
    if reply is None:
        return args[1], MISS
    kind = type(reply)
    return args[1], len(reply) if kind is bytes or kind is str else 0


def _whole(args: Args, reply: Any) -> Any:
    """All of a collection: nothing in it means that there is none."""
    return args[1], 0 if reply else MISS


def _part(args: Args, reply: Any) -> Any:
    """Some of a collection: nothing found says nothing."""
    return (args[1], 0) if reply else None


def _values(args: Args, reply: Any) -> Any:
    # A response callback of the user's may have made anything of the answer.
    return [_value((None, key), one) for key, one in zip(args[1:], reply, strict=False)] if isinstance(reply, list) else None


def _set(args: Args, reply: Any) -> Any:
    return args[1], size(args[2]), args[3:], reply is None


def _mset(args: Args, reply: Any) -> Any:
    return [(key, size(value)) for key, value in zip(args[1::2], args[2::2], strict=False)], (), False


def _msetnx(args: Args, reply: Any) -> Any:
    return ([(key, size(value)) for key, value in zip(args[1::2], args[2::2], strict=False)], (), True) if reply else None


def _msetex(args: Args, reply: Any) -> Any:
    end = 2 + 2 * int(args[1])
    pairs = [(key, size(value)) for key, value in zip(args[2:end:2], args[3:end:2], strict=False)]
    return (pairs, args[end:], False) if reply else None


def _setex(unit: int) -> Pack:
    return lambda args, reply: (args[1], size(args[3]), args[2], unit)


def _setnx(args: Args, reply: Any) -> Any:
    return (args[1], size(args[2]), ("NX",), False) if reply else None


def _expire(unit: int, absolute: bool) -> Pack:
    # Refused without a condition: the key is not there.
    return lambda args, reply: (args[1], args[2], unit, absolute, bool(reply)) if reply or len(args) == 3 else None


def _persist(args: Args, reply: Any) -> Any:
    return args[1], bool(reply)


def _keys(args: Args, reply: Any) -> Any:
    return args[1:]


def _key(args: Args, reply: Any) -> Any:
    return args[1:2]


def _grown(args: Args, reply: Any) -> Any:
    return args[1], sum(map(size, args[2:])) if len(args) < 64 else 0


def _pair(args: Args, reply: Any) -> Any:
    return args[1], args[2]


def _copied(args: Args, reply: Any) -> Any:
    return (args[1], args[2], args[3:]) if reply else None


def _getset(args: Args, reply: Any) -> Any:
    return (*_value(args, reply), size(args[2]))


def _getex(args: Args, reply: Any) -> Any:
    return (*_value(args, reply), args[2:])


def _two(args: Args) -> Args:
    return args[1:3]


_KINDS: dict[Pack, int] = {_value: VALUE, _getset: VALUE, _getex: VALUE, _whole: WHOLE, _part: PART}

NOTHING = Plan(0, _nothing, keys=_none)
STRANGER = Plan(UNKNOWN, lambda args, reply: short(args), keys=short, single=False)

_FOR_NOBODY = """
ACL ASKING AUTH BGREWRITEAOF BGSAVE CLIENT CLUSTER COMMAND COMMANDLOG CONFIG DBSIZE DISCARD DUMP ECHO EXEC EXISTS EXPIRETIME FAILOVER
FUNCTION HELLO INFO KEYS LASTSAVE LATENCY LOLWUT MEMORY MODULE MONITOR MULTI OBJECT PEXPIRETIME PING PSUBSCRIBE PSYNC PTTL PUBLISH
PUBSUB PUNSUBSCRIBE QUIT RANDOMKEY READONLY READWRITE REPLCONF REPLICAOF ROLE SAVE SCAN SCRIPT SENTINEL SHUTDOWN SLAVEOF SLOWLOG
SPUBLISH SSUBSCRIBE SUBSCRIBE SUNSUBSCRIBE SYNC TIME TOUCH TTL TYPE UNSUBSCRIBE UNWATCH WAIT WAITAOF WATCH HTTL HPTTL HEXPIRETIME
HPEXPIRETIME XINFO XPENDING XLEN XRANGE XREVRANGE XREAD
"""
_WHOLE = "HGETALL HKEYS HVALS HLEN SMEMBERS SCARD LLEN ZCARD STRLEN"
_PART = """
BITCOUNT BITFIELD_RO BITPOS GEODIST GEOHASH GEOPOS GEORADIUSBYMEMBER_RO GEORADIUS_RO GEOSEARCH GETBIT GETRANGE HEXISTS HGET HMGET
HRANDFIELD HSCAN HSTRLEN LINDEX LPOS LRANGE SISMEMBER SMISMEMBER SORT_RO SRANDMEMBER SSCAN SUBSTR ZCOUNT ZLEXCOUNT ZMSCORE
ZRANDMEMBER ZRANGE ZRANGEBYLEX ZRANGEBYSCORE ZRANK ZREVRANGE ZREVRANGEBYLEX ZREVRANGEBYSCORE ZREVRANK ZSCAN ZSCORE
"""
_GROWN = "HSET HMSET SADD ZADD LPUSH RPUSH GEOADD PFADD"
_COUNTED = """
APPEND BITFIELD DECR DECRBY HDEL HINCRBY HINCRBYFLOAT HSETNX INCR INCRBY INCRBYFLOAT LINSERT LPOP LPUSHX LREM LSET LTRIM RPOP RPUSHX
SETBIT SETRANGE SPOP SREM XACK XADD XDEL XTRIM ZINCRBY ZPOPMAX ZPOPMIN ZREM ZREMRANGEBYLEX ZREMRANGEBYRANK ZREMRANGEBYSCORE
HGETDEL HGETEX HSETEX HEXPIRE HPEXPIRE HEXPIREAT HPEXPIREAT HPERSIST
"""

PLANS: dict[Any, Plan] = {
    **dict.fromkeys(_FOR_NOBODY.split(), NOTHING),
    **dict.fromkeys(_WHOLE.split(), Plan(READ, _whole)),
    **dict.fromkeys(_PART.split(), Plan(READ, _part)),
    **dict.fromkeys(_GROWN.split(), Plan(BUILT, _grown)),
    **dict.fromkeys(_COUNTED.split(), Plan(COUNTED, _key)),
    "GET": Plan(READ, _value),
    "MGET": Plan(READS, _values, keys=_all, single=False),
    "SET": Plan(WROTE, _set),
    "SETNX": Plan(WROTE, _setnx),
    "MSET": Plan(WROTES, _mset, keys=_alternate, single=False),
    "MSETNX": Plan(WROTES, _msetnx, keys=_alternate, single=False),
    "MSETEX": Plan(WROTES, _msetex, keys=short, single=False),
    "SETEX": Plan(SETEX, _setex(1000)),
    "PSETEX": Plan(SETEX, _setex(1)),
    "GETSET": Plan(GETSET, _getset),
    "GETDEL": Plan(GETDEL, _value),
    "GETEX": Plan(GETEX, _getex),
    "EXPIRE": Plan(EXPIRE, _expire(1000, False)),
    "PEXPIRE": Plan(EXPIRE, _expire(1, False)),
    "EXPIREAT": Plan(EXPIRE, _expire(1000, True)),
    "PEXPIREAT": Plan(EXPIRE, _expire(1, True)),
    "PERSIST": Plan(PERSIST, _persist),
    "DEL": Plan(GONE, _keys, keys=_all, single=False),
    "UNLINK": Plan(GONE, _keys, keys=_all, single=False),
    "RENAME": Plan(RENAMED, _pair, keys=_two, single=False),
    "RENAMENX": Plan(RENAMED, lambda args, reply: _pair(args, reply) if reply else None, keys=_two, single=False),
    "COPY": Plan(COPIED, _copied, keys=_two, single=False),
    "FLUSHDB": Plan(FLUSHED, lambda args, reply: (), keys=_none, single=False),
    "FLUSHALL": Plan(FLUSHED, lambda args, reply: (), keys=_none, single=False),
    "SWAPDB": Plan(FLUSHED, lambda args, reply: (), keys=_none, single=False),
    "SELECT": Plan(BLIND, lambda args, reply: (), keys=_none, single=False),
    "RESET": Plan(BLIND, lambda args, reply: (), keys=_none, single=False),
}
SINGLE = {name: plan.kind for name, plan in PLANS.items() if plan.single and plan.verb}     # about one key, and that is args[1]
_SPELLINGS = 1024   # unusual spellings remembered, at most
_spelled: dict[Any, Plan] = {}


def plan_of(args: Args) -> tuple[Plan, Args]:
    """The plan of a command that PLANS does not know by its first argument as it is, and its arguments as the server sees them.

    Names come in any case, as bytes, and with the subcommand or the first arguments in the same string.
    """
    name = args[0]
    if isinstance(name, str):
        text = name
    elif isinstance(name, (bytes, bytearray, memoryview)):
        text = bytes(name).decode("latin-1")
    else:
        return STRANGER, args
    known = _spelled.get(text)
    if known is not None:
        return known, args
    words = text.split()
    if not words:
        return STRANGER, args
    plan = PLANS.get(words[0].upper(), STRANGER)
    if len(words) > 1:
        return plan, (*words, *args[1:])
    if len(_spelled) < _SPELLINGS:
        _spelled[text] = plan
    return plan, args


class Options:
    """The options of SET, GETEX and MSETEX, as far as they matter here."""

    __slots__ = ("absolute", "get", "keep", "milliseconds", "only_new", "persist")

    def __init__(self, words: Args) -> None:
        self.milliseconds: float | None = None
        self.absolute = self.keep = self.only_new = self.persist = self.get = False
        at = 0
        while at < len(words):
            word = words[at]
            at += 1
            name = word.decode("latin-1").upper() if isinstance(word, bytes) else str(word).upper()
            if name in _UNITS and at < len(words):
                unit, self.absolute = _UNITS[name]
                self.milliseconds = number(words[at]) * unit
                at += 1
            elif name == "KEEPTTL":
                self.keep = True
            elif name == "NX":
                self.only_new = True
            elif name == "GET":
                self.get = True
            elif name == "PERSIST":
                self.persist = True
            elif name in ("IFEQ", "IFNE", "IFDEQ", "IFDNE"):
                at += 1


_UNITS = {"EX": (1000, False), "PX": (1, False), "EXAT": (1000, True), "PXAT": (1, True)}


def number(given: Any) -> float:
    """A number as redis-py takes it for an argument: also as str or bytes."""
    return float(given)
