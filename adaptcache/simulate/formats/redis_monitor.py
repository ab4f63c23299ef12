r"""What `redis-cli MONITOR` prints (Redis, Valkey): a line for each command that a server executes,

    1339518083.107412 [0 127.0.0.1:60866] "set" "user:7" "Ann" "EX" "60"

seconds and microseconds, the database, the client's address (or `lua`, or `unix:path`), and the command's
words, quoted, with \\ \" \n \r \t \a \b and \xHH for what does not print. A first line `OK`, and the `+` of the
protocol, are passed over.

Rows: each key of a command that reads, writes or deletes values under keys (COMMANDS; MGET, MSET, DEL and
others have several), with the database as part of the key. Other commands are left out and counted in
`Source.left_out`. TTL: of EX, PX, EXAT, PXAT, and of SETEX and PSETEX. Size: of a written value, its bytes; of a read,
a delete, APPEND, INCR and the like, of the value last written under the key, else the mean of all that were
written so far, or 1 if none was. Namespace: the key's leading segments, parted by `:`, at most two, up to the
first that has a digit and never the last. The lines' order is the order of execution; a clock that was set
back by less than a minute stands still for us.
"""
from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from typing import Any, Final, NamedTuple

import numpy as np

from adaptcache.errors import TraceError
from adaptcache.simulate.formats import lines
from adaptcache.simulate.formats.block import Block, Groups
from adaptcache.simulate.formats.fields import Fields, each_different
from adaptcache.simulate.formats.source import Source
from adaptcache.simulate.trace import DELETE, GET, SET, Column, numbered

NAME: Final = "redis-monitor"
ALIASES: Final = ("monitor", "valkey-monitor", "redis-cli-monitor")
SUFFIXES: Final = (".monitor",)
DISORDERLY: Final = False

LINE: Final = re.compile(rb'\+?(\d+\.\d+) \[(\d+) (?:.*?)\] ("[^"\\]*(?:\\.[^"\\]*)*"(?: "[^"\\]*(?:\\.[^"\\]*)*")*)$')
WORD: Final = re.compile(rb'"([^"\\]*(?:\\.[^"\\]*)*)"')
ESCAPE: Final = re.compile(rb'\\(x[0-9a-fA-F]{2}|.)', re.DOTALL)
ESCAPES: Final = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"a": b"\a", b"b": b"\b"}
RIGHT: Final = 'a line of MONITOR is wanted: 1339518083.107412 [0 127.0.0.1:60866] "get" "key"'

BACK: Final = 60.0  # seconds by which a clock may be set back

GETS: Final = ("get", "getrange", "substr", "getex", "hget", "hmget", "hgetall", "hvals")
MGET: Final = "mget"  # every word is a key
DELETES: Final = ("del", "unlink")
# Which words are the value.
SETS: Final = {
    **dict.fromkeys(("set", "setnx", "getset"), slice(2, 3)), **dict.fromkeys(("setex", "psetex"), slice(3, 4)),
    **dict.fromkeys(("hset", "hmset", "hsetnx"), slice(2, None)),
}
UPDATES: Final = ("append", "setrange", "incr", "decr", "incrby", "decrby", "incrbyfloat")  # of a value that stays as long
PAIRS: Final = ("mset", "msetnx")
BOTH: Final = "getdel"  # a read, then a delete
COMMANDS: Final = (*GETS, MGET, *SETS, *UPDATES, *PAIRS, *DELETES, BOTH)


def recognises(source: Source) -> bool:
    found = [line for line in source.lines[:2] if line not in ("OK", "+OK")] if source.is_text else []
    return bool(found) and LINE.match(found[0].encode("utf-8", "surrogateescape")) is not None


def blocks(source: Source) -> Generator[Block, None, None]:
    reader = _Reader(source)
    good = False
    for text in lines.texts(source):
        block = reader.block(text)
        good |= len(block) > 0
        yield block
    if not good:
        most = sorted(source.left_out.items(), key=lambda item: (-item[1], item[0]))[:5]
        named = ", ".join(f"{name} {number:,}" for name, number in most)
        raise TraceError(f"{source}: has no command that reads, writes or deletes a value; a trace needs at least one"
                         + (f" (left out: {named})" if named else ""))


class _Row(NamedTuple):
    """What one command does to one key."""

    word: bytes
    op: int
    size: float = np.nan  # of what is written; nan where nothing is
    ttl: float = 0.0


class _Reader:
    """Lines to rows, and what is remembered from line to line.

    Lines without an escape and with the words of the plainest commands are worked out all at once, by the
    places of their quotes; others by LINE.
    """

    SIZES: Final = 1 << 18  # keys whose last value's size is remembered
    NAMES: Final = 1000  # commands that are left out and counted by name

    def __init__(self, source: Source) -> None:
        self.source = source
        self.namespaces = Groups()
        self.now = -np.inf
        self.sizes: dict[int, float] = {}
        self.written, self.bytes = 0, 0.0

    def block(self, text: lines.Text) -> Block:
        table = lines.split(text, lines.NEWLINE, 1).table
        whole, numbers = table.fields[0], table.lines
        plain = _Plain(whole)
        times, databases = plain.times, plain.databases
        others: list[tuple[int, _Row]] = []
        error = None
        for row in np.flatnonzero(plain.odd).tolist():
            line = whole.data[whole.start[row]:whole.end[row]].tobytes()
            found = LINE.match(line)
            if found is not None:
                times[row], databases[row] = float(found[1]), min(int(found[2]), 1 << 31)
                words = [_unquoted(word) for word in WORD.findall(found[3])]
                others += [(row, effect) for effect in self._effects(words, times[row])]
            elif line.strip() in (b"", b"OK", b"+OK"):
                times[row] = times[row - 1] if row else self.now
            else:
                short = ascii(whole.text(row) if len(line) <= 80 else whole.text(row)[:77] + "...")
                error = TraceError(f"{self.source}: line {numbers[row]}: not a line of MONITOR: {short}; {RIGHT}")
                times = times[:row]
                break
        before = np.maximum.accumulate(np.append(self.now, times))
        back = np.flatnonzero(times < before[:-1] - BACK)
        if len(back):
            at = int(back[0])
            error = TraceError(f"{self.source}: line {numbers[at]}, column time: goes back from {before[at]} to {times[at]}, by "
                               f"more than {BACK:.0f} s; lines must be in the order in which they were printed")
            before = before[:at + 1]
        self.now = before[-1]
        return lines.ending(self._block(plain, others, before[1:], numbers), error)

    def _block(self, plain: _Plain, others: list[tuple[int, _Row]], times: Column, numbers: Column) -> Block:
        """The rows of the lines that have a time, in order."""
        good = len(times)
        usual = np.flatnonzero(plain.kept[:good])
        other = np.array([row for row, _ in others if row < good], np.int64)
        effects = [effect for _, effect in others[:len(other)]]
        line = np.concatenate((usual, other))
        order = np.argsort(line, kind="stable")
        line = line[order]

        def both(first: Column, second: list[Any], dtype: Any) -> Column:
            return np.concatenate((first[usual], np.array(second, dtype)))[order]

        words = plain.keys[usual], Fields.of([effect.word for effect in effects])
        key = np.concatenate([fields.hashes() for fields in words])[order]
        # Keys of the first database, the usual one, are what they are alone.
        key += plain.databases[line].astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        op = both(plain.ops, [effect.op for effect in effects], np.uint8)
        size = both(plain.sizes, [effect.size for effect in effects], np.float64)
        for name, number in zip(plain.names, np.bincount(plain.name_of[:good], plain.skipped[:good]), strict=False):
            if number:
                self._skip(name, int(number))
        return Block({
            "key": key, "time": times[line], "size": self._sizes(key, size), "op": op,
            "ttl": both(plain.ttls, [effect.ttl for effect in effects], np.float64),
            "namespace": self.namespaces.ids(np.concatenate([_namespaces(fields).hashes() for fields in words])[order]),
        }, lambda row: f"line {numbers[line[row]]}")

    def _sizes(self, keys: Column, sizes: Column) -> Column:
        """Sizes where they are known, else the last one of the key, else the mean of all."""
        known = self.sizes
        filled: list[float] = []
        for key, size in zip(keys.tolist(), sizes.tolist(), strict=True):
            if size == size:
                self.written += 1
                self.bytes += size
                if len(known) >= self.SIZES and key not in known:
                    del known[next(iter(known))]
                known[key] = size
                filled.append(size)
            else:
                filled.append(known[key] if key in known else self.bytes / self.written if self.written else 1.0)
        return np.array(filled, np.float64)

    def _skip(self, name: str, number: int) -> None:
        """Counts commands that are no rows, by name unless there are too many."""
        left_out = self.source.left_out
        left_out[name if name in left_out or len(left_out) < self.NAMES else "others"] += number

    def _effects(self, words: list[bytes], time: float) -> Iterator[_Row]:
        name = words[0].decode("utf-8", "replace").lower()
        if len(words) < 2 or name not in COMMANDS or (name in SETS and not words[SETS[name]]):
            self._skip(name, 1)
        elif name == MGET:
            yield from (_Row(word, GET) for word in words[1:])
        elif name in GETS:
            yield _Row(words[1], GET)
        elif name in DELETES:
            yield from (_Row(word, DELETE) for word in words[1:])
        elif name == BOTH:
            yield from (_Row(words[1], GET), _Row(words[1], DELETE))
        elif name in PAIRS:
            yield from (_Row(word, SET, len(value)) for word, value in zip(words[1::2], words[2::2], strict=False))
        elif name in UPDATES:
            yield _Row(words[1], SET)
        else:
            yield _Row(words[1], SET, sum(map(len, words[SETS[name]])), _ttl(name, words, time))


class _Plain:
    """The lines of a block that need no unquoting, as columns; `odd` are the others."""

    def __init__(self, whole: Fields) -> None:
        data, start, end = whole.data, whole.start, whole.end
        last = len(data) - 1
        quotes, spaces, escapes = (np.append(np.flatnonzero(data == mark), len(data)) for mark in b'" \\')
        quote = np.searchsorted(quotes, start)
        number = np.searchsorted(quotes, end) - quote
        places = [quotes[np.minimum(quote + ahead, len(quotes) - 1)] for ahead in range(10)]
        space, following = (spaces[np.minimum(np.searchsorted(spaces, start) + ahead, len(spaces) - 1)] for ahead in range(2))
        stamp = Fields(data, start + (data[start] == ord("+")), np.minimum(space, end))
        database = Fields(data, np.minimum(space + 2, last), np.minimum(following, last))
        command = Fields(data, np.minimum(places[0] + 1, last), np.minimum(places[1], last))
        self.times, no_time = stamp.numbers()
        self.databases, no_database = database.digits()
        odd = no_time | no_database | (escapes[np.searchsorted(escapes, start)] < end) | (number < 2) | (following >= places[0])
        odd |= (data[np.minimum(space + 1, last)] != ord("[")) | (data[places[0].clip(1, last) - 1] != lines.SPACE)
        odd |= (data[places[0].clip(2, last) - 2] != ord("]")) | (data[end - 1] != ord('"')) | (data[stamp.start] < ord("0"))
        odd |= self.databases > 1 << 31
        command.end = np.where(odd, command.start, command.end)
        self.name_of, first = numbered(command.hashes())
        self.names = [command.text(row).lower() for row in first.tolist()]
        is_skipped, is_get, is_delete, is_update, is_set, is_set_ttl = (
            np.array([name in group for name in self.names], bool)[self.name_of]
            for group in ({*self.names} - {*COMMANDS}, (*GETS, MGET), DELETES, UPDATES, ("set", "setnx", "getset"), ("set",)))
        parted = [places[at] == places[at - 1] + 2 for at in (2, 4, 6, 8)]
        two = (number == 4) & parted[0]
        three = (number == 6) & parted[0] & parted[1]
        five = (number == 10) & parted[0] & parted[1] & parted[2] & parted[3]
        option = Fields(data, places[6] + 1, places[7])[five_rows] if len(five_rows := np.flatnonzero(five & is_set_ttl)) else None
        self.skipped = is_skipped & ~odd
        self.ttls = np.zeros(len(whole))
        writes = three & is_set
        if option is not None:
            self._options(five_rows, option, Fields(data, places[8] + 1, places[9])[five_rows], writes)
        self.kept = ~odd & ((two & (is_get | is_delete | is_update)) | writes)
        self.odd = odd | ~(self.kept | self.skipped)
        self.keys = Fields(data, np.minimum(places[2] + 1, last), np.minimum(places[3], last))
        self.ops = np.where(writes | is_update, SET, np.where(is_delete, DELETE, GET)).astype(np.uint8)
        self.sizes = np.where(writes, places[5] - places[4] - 1.0, np.nan)

    def _options(self, rows: Column, option: Fields, value: Fields, writes: Column) -> None:
        """Notes writes with an option and a number that says when the value expires."""
        unit = each_different(option, lambda text: ["ex", "px", "exat", "pxat"].index(text.lower()) if text.lower() in TTLS else -1)
        number, bad = value.digits()
        seconds = number / np.where(unit % 2 == 1, 1000.0, 1.0)
        seconds = np.where(unit >= 2, np.maximum(seconds - self.times[rows], 0.0), seconds)
        good = (unit >= 0) & ~bad & (value.end - value.start <= 15)
        self.ttls[rows[good]] = seconds[good]
        writes[rows[good]] = True


def _ttl(name: str, words: list[bytes], now: float) -> float:
    """Seconds of validity that a write says, 0 for none. Words that the server would have refused say none."""
    if name in ("setex", "psetex"):
        option, value = ("ex" if name == "setex" else "px"), words[2]
    elif name == "set":
        options = [word.decode("ascii", "replace").lower() for word in words[3:]]
        option = next((word for word in options[:-1] if word in TTLS), "")
        value = words[4 + options.index(option)] if option else b""
    else:
        return 0.0
    if not value.isdigit() or len(value) > 15:
        return 0.0
    seconds = int(value) / (1000 if option[0] == "p" else 1)
    return max(seconds - now, 0.0) if option.endswith("at") else seconds


TTLS: Final = ("ex", "px", "exat", "pxat")


def _namespaces(keys: Fields) -> Fields:
    """The leading segments of each key, at most two, up to the first that has a digit and never the last."""
    data, start = keys.data, keys.start
    colons = np.append(np.flatnonzero(data == ord(":")), [len(data)] * 2)
    digits = np.append(0, np.cumsum((data >= ord("0")) & (data <= ord("9"))))
    at = np.searchsorted(colons[:-1], start)
    first, second = colons[at], colons[at + 1]
    first_good = (first < keys.end) & (first > start)
    first_good &= digits[np.where(first_good, first, start)] == digits[start]
    second_good = first_good & (second < keys.end) & (second > first + 1)
    second_good &= digits[np.where(second_good, second, start)] == digits[start]
    return Fields(data, start, np.where(second_good, second, np.where(first_good, first, start)))


def _unquoted(word: bytes) -> bytes:
    """The bytes that a quoted word stands for."""
    return ESCAPE.sub(_unescaped, word) if b"\\" in word else word


def _unescaped(found: re.Match[bytes]) -> bytes:
    what = found[1]
    if len(what) == 3:
        return bytes([int(what[1:], 16)])
    return ESCAPES.get(what, what)
