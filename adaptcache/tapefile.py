"""What a recording looks like on disk: framed, checksummed blocks of columns; and its way back to the rows of a trace.

    file    MAGIC, version (u16), 0 (u16), frames
    frame   kind (u8), 0 (3 bytes), stored bytes (u32), raw bytes (u32), crc32 of what is stored (u32), crc32 of these
            16 bytes (u32); then what is stored: the raw bytes as a zlib stream
    kinds   H header (JSON, first), E events, N names of namespaces (JSON), Z end (JSON, last)
    events  see `pack`

All numbers are little-endian. Each block stands for itself, with a table of its own of the keys in it, so a file that was
cut off (a crash, a full disk) is read up to its last whole block. Damage anywhere else is a TraceError that names the
offset. This file knows neither caches nor policies: `recording` writes with it, the harness reads with it.
"""
from __future__ import annotations

import json
import logging
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from adaptcache import _core
from adaptcache.errors import TraceError

_log = logging.getLogger("adaptcache")

Column = NDArray[Any]

MAGIC: Final = b"\x89ACT\r\n\x1a\n"
VERSION: Final = 1
HEAD: Final = struct.Struct("<8sHH")
FRAME: Final = struct.Struct("<BxxxIII")
CHECK: Final = struct.Struct("<I")
BLOCK: Final = struct.Struct("<IIqBBBx")
MOST_RAW: Final = 1 << 28           # bytes of a block; more is damage that the checksums missed, or a trap

HEADER, EVENTS, NAMES, END = ord("H"), ord("E"), ord("N"), ord("Z")

# As they lie in the core's ring (`_ext/tape.pxd`).
NOTE: Final = np.dtype([("key", "<u8"), ("now", "<i8"), ("size", "<f8"), ("ttl", "<f8"), ("cost", "<f4"), ("ns", "<u2"),
                        ("what", "u1"), ("level", "u1")])
HIT, MISS, SET, LOADED, DELETE, CLEAR = range(6)
SIZES, TTLS, COSTS, SPACES = 1, 2, 4, 8


# Writing

def head() -> bytes:
    """The first bytes of a file."""
    return HEAD.pack(MAGIC, VERSION, 0)


def frame(kind: int, raw: bytes) -> bytes:
    """A block with what is needed to read it, and to see that it is whole."""
    stored = zlib.compress(raw, 1)
    start = FRAME.pack(kind, len(stored), len(raw), zlib.crc32(stored))
    return start + CHECK.pack(zlib.crc32(start)) + stored


def document(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, separators=(",", ":"), allow_nan=False).encode()


def pack(notes: bytes, halved: int) -> bytes:
    """Notes of the core as columns: how many, how many keys, first time (ns), bytes of a step in time, which columns, how often
    the sample has been halved; keys (u64) and how many halvings each survives (u8); then of each event its key's place
    (u16 or u32), what it was (u8), the time since the one before (u8 to u64), and, where they say anything: size (f64; below 0:
    not known), ttl (f64), cost (f32; below 0: not known), namespace (u16)."""
    n = np.frombuffer(notes, NOTE)
    keys, level, place = _core.tape_keys(notes)
    step = np.diff(n["now"], prepend=n["now"][:1])
    width = next(size for size in (1, 2, 4, 8) if int(step.max(initial=0)) < 1 << (8 * size - 1))
    usual = np.where((n["what"] == MISS) | (n["what"] >= DELETE), -1.0, 1.0)
    told = {SIZES: bool((n["size"] != usual).any()), TTLS: bool(n["ttl"].any()), COSTS: bool((n["cost"] >= 0).any()),
            SPACES: bool(n["ns"].any())}
    m = len(level)
    parts = [BLOCK.pack(len(n), m, int(n["now"][0]), width, sum(bit for bit, there in told.items() if there), halved),
             keys, level, np.frombuffer(place, "<u4").astype("<u2").tobytes() if m <= 1 << 16 else place,
             n["what"].tobytes(), step.astype(f"<u{width}").tobytes()]
    parts += [n[name].tobytes() for bit, name in ((SIZES, "size"), (TTLS, "ttl"), (COSTS, "cost"), (SPACES, "ns")) if told[bit]]
    return b"".join(parts)


# Reading

class Events(NamedTuple):
    """Events as they happened, in the order in which they did."""

    key: Column         # uint64, keyed hash; 0 of CLEAR
    now: Column         # int64, ns of the cache's clock
    what: Column        # uint8: HIT, MISS, SET, LOADED, DELETE or CLEAR
    level: Column       # uint8, halvings of the sample that the key survives
    size: Column        # float64, below 0: not known
    ttl: Column         # float64, seconds; 0: none
    cost: Column        # float32, below 0: not known
    namespace: Column   # uint16, 0: not known


@dataclass(frozen=True, eq=False)
class Recorded:
    """A recording: what it says of itself, and its events, of the keys that were sampled to its end.

    about       the header: policy, maxsize, expiry, sample, opened (Unix time), clock (the cache's, at that moment)
    end         what was written when it ended, None if it was cut off: events, dropped, halved, reason, and hits and misses of
                the whole cache meanwhile (null: not known)
    names       number of a namespace -> its name, where names were asked for
    sample      share of the keys that is in here
    cut         offset of a last block that is not whole, and is left out; None if there is none
    """

    about: Mapping[str, Any]
    end: Mapping[str, Any] | None
    sample: float
    cut: int | None
    events: Events
    names: Mapping[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.events.key)


def is_recording(first: bytes) -> bool:
    """Do these first bytes of a file begin a recording, of any version?"""
    return first.startswith(MAGIC)


def frames(path: str | os.PathLike[str], content: BinaryIO | None = None) -> Iterator[tuple[int, int, bytes]]:
    """(offset, kind, raw bytes) of each whole block. A last one that is not whole is (offset, 0, b"").

    content: of the file, where it has been opened (and decompressed) already; it stays open. TraceError for a file that is damaged
    or is no recording.
    """
    with Path(path).open("rb") if content is None else nullcontext(content) as file:
        first = file.read(HEAD.size)
        if not is_recording(first):
            raise TraceError(f"{path}: offset 0: is no recording; one begins with {MAGIC!r}")
        if len(first) < HEAD.size:
            raise TraceError(f"{path}: offset {len(first)}: is cut short before its version")
        _, version, rest = HEAD.unpack(first)
        if version != VERSION or rest != 0:
            raise TraceError(f"{path}: offset {len(MAGIC)}: is of version {version}.{rest}; this adaptcache reads {VERSION}.0")
        at = HEAD.size
        while start := file.read(FRAME.size + CHECK.size):
            if len(start) < FRAME.size + CHECK.size:
                yield at, 0, b""
                return
            if CHECK.unpack_from(start, FRAME.size)[0] != zlib.crc32(start[:FRAME.size]):
                if not any(start) and not any(file.read()):
                    yield at, 0, b""        # a file that had been made longer, and was not written to before a crash
                    return
                raise TraceError(f"{path}: offset {at}: the start of this block is damaged (its checksum differs)")
            kind, stored, raw, check = FRAME.unpack_from(start)
            data = file.read(stored)
            if len(data) < stored:
                yield at, 0, b""
                return
            if zlib.crc32(data) != check:
                raise TraceError(f"{path}: offset {at}: this block of {stored} bytes is damaged (its checksum differs)")
            yield at, kind, _inflated(path, at, data, raw)
            at += len(start) + stored


def _inflated(path: str | os.PathLike[str], at: int, data: bytes, raw: int) -> bytes:
    if raw > MOST_RAW:
        raise TraceError(f"{path}: offset {at}: this block says that it holds {raw} bytes; at most {MOST_RAW} are accepted")
    unpacking = zlib.decompressobj()
    try:
        out = unpacking.decompress(data, raw + 1)
    except zlib.error as error:
        raise TraceError(f"{path}: offset {at}: this block cannot be unpacked ({error})") from error
    if len(out) != raw or not unpacking.eof:
        raise TraceError(f"{path}: offset {at}: this block does not hold the {raw} bytes that it names")
    return out


def unpack(raw: bytes) -> tuple[Events, int]:
    """What `pack` made, and how often the sample had been halved by then. ValueError when it is something else."""
    if len(raw) < BLOCK.size:
        raise ValueError("too short")
    n, m, now, width, flags, halved = BLOCK.unpack_from(raw)
    at = BLOCK.size

    def column(dtype: str, count: int) -> Column:
        nonlocal at
        values = np.frombuffer(raw, dtype, count, at)       # ValueError beyond the end
        at += values.nbytes
        return values

    if n == 0 or m == 0 or width not in (1, 2, 4, 8) or flags >= 16:
        raise ValueError("an impossible number")
    keys, level = column("<u8", m), column("u1", m)
    place, what = column("<u2" if m <= 1 << 16 else "<u4", n), column("u1", n)
    step = column(f"<u{width}", n)
    usual = np.where((what == MISS) | (what >= DELETE), -1.0, 1.0)
    size = column("<f8", n) if flags & SIZES else usual
    ttl = column("<f8", n) if flags & TTLS else np.zeros(n)
    cost = column("<f4", n) if flags & COSTS else np.full(n, -1, "<f4")
    space = column("<u2", n) if flags & SPACES else np.zeros(n, "<u2")
    if at != len(raw) or int(place.max()) >= m or int(what.max()) > CLEAR:
        raise ValueError("columns that do not fit together")
    return Events(keys[place], now + np.cumsum(step, dtype=np.int64), what, level[place], size, ttl, cost, space), halved


def read(path: str | os.PathLike[str], content: BinaryIO | None = None) -> Recorded:
    """All of a recording. TraceError for a file that is damaged (with the offset) or is no recording.

    One that was cut off is read up to there, which the logger "adaptcache" is told. content: as of `frames`.
    """
    about: Mapping[str, Any] | None = None
    end: Mapping[str, Any] | None = None
    names: dict[int, str] = {}
    blocks: list[Events] = [_nothing()]
    halved = 0
    cut: int | None = None
    for at, kind, raw in frames(path, content):
        try:
            if kind == 0:
                cut = at
            elif end is not None:
                raise ValueError("something comes after the end")
            elif (kind == HEADER) != (about is None):
                raise ValueError("the header comes first, and once")
            elif kind == HEADER:
                about = _fields(raw)
            elif kind == EVENTS:
                block, so_often = unpack(raw)
                blocks.append(block)
                halved = max(halved, so_often)
            elif kind == NAMES:
                names.update({int(number): str(name) for number, name in _fields(raw).items()})
            elif kind == END:
                end = _fields(raw)
            else:
                raise ValueError(f"unknown kind {kind}")
        except ValueError as error:
            raise TraceError(f"{path}: offset {at}: this block does not hold what it should ({error})") from error
    if about is None:
        raise TraceError(f"{path}: offset {HEAD.size}: is cut short before its header")
    if end is not None:
        halved = max(halved, int(end.get("halved", 0)))
    kept = [block.level >= halved for block in blocks]
    events = Events(*(np.concatenate([column[mask] for column, mask in zip(columns, kept, strict=True)])
                      for columns in zip(*blocks, strict=True)))
    if cut is not None:
        _log.warning("%s: the last block, at offset %d, is cut short; the %d events before it are read", path, cut, len(events.key))
    return Recorded(about, end, float(about.get("sample", 1.0)) * 2.0 ** -halved, cut, events, names)


def _fields(raw: bytes) -> dict[str, Any]:
    found = json.loads(raw)
    if not isinstance(found, dict):
        raise ValueError("no JSON object")
    return found


def _nothing() -> Events:
    return Events(*(np.empty(0, kind) for kind in ("<u8", "<i8", "u1", "u1", "<f8", "<f8", "<f4", "<u2")))


# Rows

def rows(path: str | os.PathLike[str]) -> dict[str, Column]:
    """A recording as columns of a trace (`simulate.trace` says what they mean); `key` holds uint64 hashes.

    A miss and the set that filled it are one get, in the place and at the time of the set, when the value came in: the
    order in which a cache that loads on a miss stores things. A set that no miss of its key came right before is a write. A
    `clear` is a delete of every key that may be held. What one event does not tell (size, cost and namespace of a hit or a miss) is what was
    last told of its key, or first after it, or else the median. Columns that say nothing are left out. TraceError as of `read`.
    """
    return folded(read(path).events)


def folded(events: Events) -> dict[str, Column]:
    """`rows` of these events."""
    e = _cleared(events)
    if len(e.key) == 0:
        return {"key": e.key, "time": e.now / 1e9}
    by_key = np.argsort(e.key, kind="stable")
    key, what = e.key[by_key], e.what[by_key]
    stored = (what == SET) | (what == LOADED)
    fills = np.zeros(len(key), bool)
    fills[1:] = stored[1:] & (what[:-1] == MISS) & (key[1:] == key[:-1])
    filled = np.append(fills[1:], False)
    fresh = np.append(True, key[1:] != key[:-1])
    out = {"time": e.now[by_key] / 1e9, "key": key}
    sizes = _spread(e.size[by_key], e.size[by_key] >= 0, fresh)
    if sizes is not None and (sizes != 1).any():
        out["size"] = sizes
    op = np.where(what == DELETE, 2, np.where(stored & ~fills, 1, 0)).astype(np.uint8)
    if op.any():
        out["op"] = op
    if e.ttl.any():
        out["ttl"] = e.ttl[by_key]
    costs = _spread(e.cost[by_key].astype(np.float64), e.cost[by_key] >= 0, fresh)
    if costs is not None:
        out["cost"] = costs
    if e.namespace.any():
        spaces = _spread(e.namespace[by_key].astype(np.float64), e.namespace[by_key] > 0, fresh, missing=0.0)
        assert spaces is not None
        out["namespace"] = spaces.astype(np.uint32)
    back = np.argsort(by_key[~filled], kind="stable")
    return {name: np.ascontiguousarray(column[~filled][back]) for name, column in out.items()}


def _cleared(e: Events) -> Events:
    """The same with a delete of each key that may be held in place of each clear."""
    clears = np.flatnonzero(e.what == CLEAR)
    if len(clears) == 0:
        return e
    pieces: list[list[Column]] = []
    start = 0
    for at in [*clears.tolist(), len(e.key)]:
        pieces.append([column[start:at] for column in e])
        if at < len(e.key):
            # From the last event of each key on: held, unless that was its deletion.
            last = len(e.key[start:at]) - 1 - np.unique(e.key[start:at][::-1], return_index=True)[1]
            held = start + np.sort(last[e.what[start:at][last] != DELETE])
            n = len(held)
            pieces.append([e.key[held], np.full(n, e.now[at]), np.full(n, DELETE, np.uint8), e.level[held], np.full(n, -1.0),
                           np.zeros(n), np.full(n, -1, np.float32), np.zeros(n, np.uint16)])
        start = at + 1
    return Events(*(np.concatenate(columns) for columns in zip(*pieces, strict=True)))


def _spread(values: Column, known: Column, fresh: Column, missing: float | None = None) -> Column | None:
    """Values sorted by key, with what is not known from the row before of the same key, else the next one that tells, else the
    median of all, or `missing`. fresh: where a key begins. None where nothing is known at all."""
    if not known.any():
        return None
    n = len(values)
    key = np.cumsum(fresh)
    at = np.arange(n)
    before = np.maximum.accumulate(np.where(known, at, -1))
    after = np.minimum.accumulate(np.where(known, at, n)[::-1])[::-1]
    good_before = (before >= 0) & (key[before] == key)
    good_after = (after < n) & (key[np.minimum(after, n - 1)] == key)
    other = float(np.median(values[known])) if missing is None else missing
    out = np.where(good_before, values[before], np.where(good_after, values[np.minimum(after, n - 1)], other))
    return np.asarray(out)
