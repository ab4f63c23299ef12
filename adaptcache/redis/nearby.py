"""Answers from this process: single-key reads of a watched client, kept coherent by the server.

A key's entry in the near tier is a dict of answers: each is the very object that redis-py made of the server's answer, under the
command, its options and the client's way of reading. Objects that can be changed are copied out, so nobody can spoil an answer.

An answer is only kept once its key's expiry is known: for keys that are followed at once, else when the watcher has asked
for it, in the background and over its own connection. So nothing is answered past an expiry, and no command is added to the
application's.

This file sends nothing. It does not know how a command is sent, nor how the tier is kept coherent.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import DataError

from adaptcache.redis.commands import BLIND, FLUSHED, PLANS, Args, plan_of

if TYPE_CHECKING:
    from adaptcache.near import Near, Ticket
    from adaptcache.redis.watcher import Watcher

# Commands whose answer depends on nothing but one key, and on nothing random.
_READS = """
BITCOUNT BITPOS GEODIST GEOHASH GEOPOS GET GETBIT GETRANGE HEXISTS HGET HGETALL HKEYS HLEN HMGET HSTRLEN HVALS LINDEX LLEN LRANGE
SCARD SISMEMBER SMEMBERS SMISMEMBER STRLEN ZCARD ZCOUNT ZLEXCOUNT ZMSCORE ZRANGE ZRANGEBYLEX ZRANGEBYSCORE ZRANK ZREVRANGE
ZREVRANGEBYLEX ZREVRANGEBYSCORE ZREVRANK ZSCORE
"""
READS: Final = frozenset(_READS.split())
PLAIN: Final = frozenset({bytes, str, int, float, bool, type(None)})


class Unkept(Exception):
    """An answer of a kind that is not kept."""


def copied(answer: Any) -> Any:
    """The answer, so that whoever changes it changes his own. Unkept for what is not made of plain containers."""
    kind = type(answer)
    if kind in PLAIN:
        return answer
    if kind is list:
        return [copied(one) for one in answer]
    if kind is tuple:
        return tuple(copied(one) for one in answer)
    if kind is set:
        return set(answer)
    if kind is dict:
        return {key: copied(one) for key, one in answer.items()}
    raise Unkept


class Read:
    """A read that was looked up: answered, or on its way to the server."""

    __slots__ = ("answer", "found", "keys", "many", "name", "tickets")

    def __init__(self, keys: list[bytes], name: Any, many: bool) -> None:
        self.keys = keys
        self.name = name            # of the answer among those of a key
        self.many = many
        self.tickets: list[Ticket | None] = []
        self.found = False
        self.answer: Any = None


class Nearby:
    """What one client may answer by itself. `options`: its connections' arguments, which decide what it makes of an answer."""

    __slots__ = ("_shape", "_watcher")

    def __init__(self, watcher: Watcher, options: Mapping[str, Any]) -> None:
        self._watcher = watcher
        self._shape = tuple(options.get(name) for name in ("decode_responses", "encoding", "encoding_errors", "protocol", "legacy_responses"))

    def look(self, args: Args, options: Mapping[str, Any]) -> Read | None:
        """The read that this command is; None if it is none that can be answered here."""
        near = self._watcher.near
        if near is None or not args:
            return None
        try:
            command = args[0]
            many = command == "MGET"
            if not many and command not in READS:
                return None
            name: Any = ("GET", self._shape) if many else (command, *args[2:], self._shape)
            if options and (said := [item for item in options.items() if item[0] != "keys"]):
                name = (name, *sorted(said))
            hash(name)
            encode = self._watcher.encode
            read = Read([encode(key) for key in (args[1:] if many else args[1:2])], name, many)
        except (TypeError, DataError):
            return None         # what redis-py refuses, or cannot be compared
        answers = []
        for key in read.keys:
            held = near.get(key)
            if held is None or name not in held:
                break
            answers.append(held[name])
        else:
            read.answer = copied(answers if many else answers[0])
            read.found = True
            self._watcher.near_hit(read.keys)
            return read
        read.tickets = [near.begin(key) for key in read.keys]
        return read

    def keep(self, read: Read, reply: Any) -> None:
        """The server's answer to a read that was not answered here."""
        replies = reply if read.many else [reply]
        if type(replies) is not list or len(replies) != len(read.keys):
            return
        for key, ticket, one in zip(read.keys, read.tickets, replies, strict=True):
            if ticket is not None:
                try:
                    self._watcher.keep(key, ticket, read.name, copied(one))
                except Unkept:
                    return


def forget(near: Near, encode: Callable[[Any], bytes], commands: Iterable[Args]) -> None:
    """After these commands were acknowledged, or may have been done: one's own writes are seen at once."""
    for args in commands:
        if not args:
            continue
        plan = PLANS.get(args[0])
        if plan is None:
            plan, args = plan_of(args)
        if plan.verb in (FLUSHED, BLIND):
            near.clear()
        elif plan.writes:
            for key in plan.keys(args):
                near.forget(encode(key))
