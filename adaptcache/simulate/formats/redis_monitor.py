r"""What `redis-cli MONITOR` prints (Redis, Valkey): a line for each command that a server executes,

    1339518083.107412 [0 127.0.0.1:60866] "set" "user:7" "Ann" "EX" "60"

seconds and microseconds, the database, the client's address (or `lua`, or `unix:path`), and the command's
words, quoted, with \\ \" \n \r \t \a \b and \xHH for what does not print. A first line `OK`, and the `+` of the
protocol, are passed over.

Rows: each key of a command that reads, writes or deletes values under keys (COMMANDS; MGET, MSET, DEL and
others have several), with the database as part of the key. Other commands are left out and counted
(`skipped`). TTL: of EX, PX, EXAT, PXAT, and of SETEX and PSETEX. Size: of a written value, its bytes; of a read,
a delete, APPEND, INCR and the like, of the value last written under the key, else the mean of all that were
written so far, or 1 if none was. Namespace: the key's leading segments, parted by `:`, at most two, up to the
first that has a digit and never the last. The lines' order is the order of execution; a clock that was set
back by less than a minute stands still for us.
"""
from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterator
from typing import Final

import numpy as np

from adaptcache.errors import TraceError
from adaptcache.simulate.formats import lines
from adaptcache.simulate.formats.block import Block, Groups
from adaptcache.simulate.formats.fields import Fields
from adaptcache.simulate.formats.source import Source
from adaptcache.simulate.trace import DELETE, GET, SET

NAME: Final = "redis-monitor"
ALIASES: Final = ("monitor", "valkey-monitor", "redis-cli-monitor")
SUFFIXES: Final = (".monitor",)
DISORDERLY: Final = False

LINE: Final = re.compile(r'^\+?(\d+\.\d+) \[(\d+) ([^\n]*?)\] ("[^"\\\n]*(?:\\.[^"\\\n]*)*"(?: "[^"\\\n]*(?:\\.[^"\\\n]*)*")*)\r?$', re.MULTILINE)
WORD: Final = re.compile(r'"([^"\\]*(?:\\.[^"\\]*)*)"')
ESCAPE: Final = re.compile(rb'\\(x[0-9a-fA-F]{2}|.)', re.DOTALL)
ESCAPES: Final = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"a": b"\a", b"b": b"\b"}
RIGHT: Final = 'a line of MONITOR is wanted: 1339518083.107412 [0 127.0.0.1:60866] "get" "key"'

BACK: Final = 60.0  # seconds by which a clock may be set back

# Whether all words are keys, or the first alone.
GETS: Final = {
    **dict.fromkeys(("get", "getrange", "substr", "getex", "hget", "hmget", "hgetall", "hvals"), False), "mget": True,
}
DELETES: Final = ("del", "unlink")
# Which words are the value.
SETS: Final = {
    **dict.fromkeys(("set", "setnx", "getset"), slice(2, 3)), **dict.fromkeys(("setex", "psetex"), slice(3, 4)),
    **dict.fromkeys(("hset", "hmset", "hsetnx"), slice(2, None)),
}
UPDATES: Final = ("append", "setrange", "incr", "decr", "incrby", "decrby", "incrbyfloat")  # of a value that stays as long
PAIRS: Final = ("mset", "msetnx")
BOTH: Final = "getdel"  # a read, then a delete
COMMANDS: Final = (*GETS, *SETS, *UPDATES, *PAIRS, *DELETES, BOTH)


def recognises(source: Source) -> bool:
    found = [line for line in source.lines[:2] if line not in ("OK", "+OK")] if source.is_text else []
    return bool(found) and LINE.match(found[0]) is not None


def blocks(source: Source) -> Iterator[Block]:
    reader = _Reader(source)
    good = False
    for text in lines.texts(source):
        block = reader.block(text)
        good |= len(block) > 0
        yield block
    if not good:
        named = ", ".join(f"{name} {number:,}" for name, number in reader.skipped.most_common(5))
        raise TraceError(f"{source}: has no command that reads, writes or deletes a value; a trace needs at least one"
                         + (f" (skipped: {named})" if named else ""))


class _Reader:
    """Lines to rows, and what is remembered from line to line."""

    SIZES: Final = 1 << 18  # keys whose last value's size is remembered

    def __init__(self, source: Source) -> None:
        self.source = source
        self.skipped: Counter[str] = Counter()
        self.namespaces = Groups()
        self.now = float("-inf")
        self.sizes: dict[bytes, int] = {}
        self.written, self.bytes = 0, 0

    def block(self, text: lines.Text) -> Block:
        content = text.content.decode("utf-8", "surrogateescape")
        found, error = LINE.findall(content), None
        number_of: list[int] | None = None
        if len(found) != content.count("\n") + (not content.endswith("\n")):
            found, number_of, error = self._one_by_one(content, text.line)
        self.keys: list[bytes] = []
        self.labels: list[bytes] = []
        self.times, self.ttls, self.rows = array("d"), array("d"), array("q")
        self.row_sizes, self.ops = array("d"), array("B")
        for row, (stamp, database, _, words) in enumerate(found):
            time = float(stamp)
            if time < self.now:
                if time < self.now - BACK:
                    line = text.line + row if number_of is None else number_of[row]
                    error = TraceError(f"{self.source}: line {line}, column time: goes back from {self.now} to {time}, by more "
                                       f"than {BACK:.0f} s; lines must be in the order in which they were printed")
                    break
                time = self.now
            self.now = time
            self.row = row
            self._command(time, database, WORD.findall(words))
        rows = self.rows
        columns = {
            "key": Fields.of(self.keys).hashes(), "time": np.array(self.times), "size": np.array(self.row_sizes),
            "op": np.array(self.ops), "ttl": np.array(self.ttls),
            "namespace": self.namespaces.ids(Fields.of(self.labels).hashes()),
        }
        return Block(columns, lambda row: f"line {text.line + rows[row] if number_of is None else number_of[rows[row]]}", error)

    def _one_by_one(self, content: str, first: int) -> tuple[list[tuple[str, ...]], list[int], TraceError | None]:
        """The lines of a block some of which are blank or `OK`, up to one that is wrong; their numbers; what is wrong."""
        found: list[tuple[str, ...]] = []
        numbers: list[int] = []
        for number, line in enumerate(content.split("\n"), start=first):
            match = LINE.match(line)
            if match is not None:
                found.append(match.groups(""))
                numbers.append(number)
            elif line.strip() not in ("", "OK", "+OK"):
                short = ascii(line if len(line) <= 80 else line[:77] + "...")
                return found, numbers, TraceError(f"{self.source}: line {number}: not a line of MONITOR: {short}; {RIGHT}")
        return found, numbers, None

    def _command(self, time: float, database: str, words: list[str]) -> None:
        name = words[0].lower()
        if len(words) > 1:
            if name in GETS:
                for word in words[1:] if GETS[name] else words[1:2]:
                    self._add(time, GET, _key(database, word))
                return
            if name in DELETES:
                for word in words[1:]:
                    self._add(time, DELETE, _key(database, word))
                return
            if name == BOTH:
                self._add(time, GET, _key(database, words[1]))
                self._add(time, DELETE, _key(database, words[1]))
                return
            if name in SETS:
                size = sum(len(_bytes(word)) for word in words[SETS[name]])
                self._add(time, SET, _key(database, words[1]), size, _ttl(name, words, time))
                return
            if name in UPDATES:
                self._add(time, SET, _key(database, words[1]))
                return
            if name in PAIRS:
                for word, value in zip(words[1::2], words[2::2], strict=False):
                    self._add(time, SET, _key(database, word), len(_bytes(value)))
                return
        self.skipped[name] += 1

    def _add(self, time: float, op: int, key: bytes, size: int | None = None, ttl: float = 0.0) -> None:
        if size is None:
            size = self.sizes.get(key)
        else:
            self.written += 1
            self.bytes += size
            if len(self.sizes) >= self.SIZES and key not in self.sizes:
                del self.sizes[next(iter(self.sizes))]
            self.sizes[key] = size
        self.keys.append(key)
        self.labels.append(_namespace(key))
        self.times.append(time)
        self.ops.append(op)
        self.ttls.append(ttl)
        self.rows.append(self.row)
        self.row_sizes.append(size if size is not None else self.bytes / self.written if self.written else 1.0)


def _ttl(name: str, words: list[str], now: float) -> float:
    """Seconds of validity that a write says, 0 for none. Words that the server would have refused say none."""
    if name in ("setex", "psetex"):
        option, value = ("ex" if name == "setex" else "px"), words[2]
    elif name == "set":
        options = [word.lower() for word in words[3:]]
        option = next((word for word in options[:-1] if word in ("ex", "px", "exat", "pxat")), "")
        value = options[options.index(option) + 1] if option else ""
    else:
        return 0.0
    if not value.isascii() or not value.isdigit() or len(value) > 15:
        return 0.0
    seconds = int(value) / (1000 if option[0] == "p" else 1)
    return max(seconds - now, 0.0) if option.endswith("at") else seconds


def _key(database: str, word: str) -> bytes:
    return database.encode() + b":" + _bytes(word)


def _namespace(key: bytes) -> bytes:
    kept: list[bytes] = []
    for segment in key.split(b":", 3)[1:-1]:
        if not segment or not DIGITS.isdisjoint(segment):
            break
        kept.append(segment)
    return b":".join(kept)


DIGITS: Final = frozenset(b"0123456789")


def _bytes(word: str) -> bytes:
    """The bytes that a quoted word stands for."""
    raw = word.encode("utf-8", "surrogateescape")
    return ESCAPE.sub(_unescaped, raw) if b"\\" in raw else raw


def _unescaped(found: re.Match[bytes]) -> bytes:
    what = found[1]
    if len(what) == 3:
        return bytes([int(what[1:], 16)])
    return ESCAPES.get(what, what)
