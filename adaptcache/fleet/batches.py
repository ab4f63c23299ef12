"""Events as they travel: a batch of one worker as bytes and back. Foreign and damaged bytes are told, never believed.

A batch is a head, columns (which deflate well), two small tables for labels and features, and a CRC over all of it.
The head names the format, the salt of the keys' numbers (other numbers mean other keys) and how often the sender had
halved the sample. Times are the server's, so that batches of several machines can be put in order. This file knows
neither server nor cache, and of the ledger only what it calls its events.
"""
from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from adaptcache.fleet.names import NUMBERS
from adaptcache.learn.knowledge import labelled, plain, unlabelled
from adaptcache.ledger import GONE

MAGIC = b"acfe"
VERSION = 1
UNKNOWN = -1.0
MOST = 8192                 # events of a batch
MOST_BYTES = 1 << 22        # of a batch, unpacked
LATEST = 1e11               # seconds: of later events no model may tell (`models`)
LABEL_BYTES = 200           # of a label, as JSON; a longer one is left out
FEATURES = 8                # that the core uses

_HEAD = struct.Struct("<4sBBBxIQdII")   # magic, version, level, need, salt, sender, base, events, bytes unpacked
_CRC = struct.Struct("<I")
_COLUMNS = np.dtype([("number", "<u8"), ("after", "<u4"), ("what", "u1"), ("size", "<f4"), ("cost", "<f4"), ("ttl", "<f4"),
                     ("label", "<u2"), ("features", "<u2")])
_TICK = 1e-6

Features = Mapping[str, "float | int | str"]


class Event(NamedTuple):
    """Something that one worker was asked, about one key. Size, cost and ttl: UNKNOWN where nothing was said."""

    number: int
    at: float
    what: int
    size: float = UNKNOWN
    cost: float = UNKNOWN
    ttl: float = UNKNOWN
    namespace: Hashable = None
    features: Features | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Events of one sender, in the order of their time.

    level   how often it had halved the sample; need: how often its own load asked for
    """

    sender: int
    level: int
    need: int
    events: list[Event]


@dataclass(frozen=True, slots=True)
class Spoiled:
    """What was no batch, and why."""

    reason: str

    def __bool__(self) -> bool:
        return False


def pack(events: Sequence[Event], *, sender: int, level: int = 0, need: int = 0, salt: int) -> bytes:
    """At most MOST events as bytes. Times within 71 minutes of the first."""
    events = sorted(events, key=lambda event: event.at)[:MOST]
    base = events[0].at if events else 0.0
    labels, told = _Table(), _Table()
    rows = np.zeros(len(events), _COLUMNS)
    for at, event in enumerate(events):
        rows[at] = (event.number, min((event.at - base) / _TICK, 4294967295.0), event.what, _single(event.size), _single(event.cost),
                    _single(event.ttl), labels.place(_label(event.namespace)), told.place(_features(event.features)))
    body = b"".join(np.ascontiguousarray(rows[name]).tobytes() for name in _COLUMNS.names or ())
    body += json.dumps([labels.rows, told.rows], separators=(",", ":"), allow_nan=False).encode()
    head = _HEAD.pack(MAGIC, VERSION, level, need, salt, sender, base, len(events), len(body))
    data = head + zlib.compress(body, 1)
    return data + _CRC.pack(zlib.crc32(data))


def unpack(data: Any, *, salt: int) -> Batch | Spoiled:
    """The batch, or why it is none for us. Never raises, whatever the bytes are."""
    if not isinstance(data, bytes) or len(data) < _HEAD.size + _CRC.size or data[:4] != MAGIC:
        return Spoiled("foreign")
    if data[4] != VERSION:
        return Spoiled(f"format {data[4]}")
    if zlib.crc32(data[:-_CRC.size]) != _CRC.unpack(data[-_CRC.size:])[0]:
        return Spoiled("damaged")
    _, _, level, need, theirs, sender, base, count, size = _HEAD.unpack_from(data)
    if theirs != salt:
        return Spoiled("another salt")
    try:
        return Batch(sender, level, need, _events(data[_HEAD.size:-_CRC.size], base, count, size))
    except (ValueError, TypeError, KeyError, IndexError, RecursionError, zlib.error) as error:
        return Spoiled(f"damaged: {error}")


def _events(packed: bytes, base: float, count: int, size: int) -> list[Event]:
    if count > MOST or size > MOST_BYTES or not abs(base) <= LATEST:
        raise ValueError("larger than any batch")
    inflate = zlib.decompressobj()
    body = inflate.decompress(packed, size + 1)
    if not inflate.eof or len(body) != size or size < count * _COLUMNS.itemsize:
        raise ValueError("shorter or longer than it says")
    columns: dict[str, list[Any]] = {}
    at = 0
    for name in _COLUMNS.names or ():
        kind = _COLUMNS[name]
        columns[name] = np.frombuffer(body, kind, count, at).tolist()
        at += count * kind.itemsize
    labels, told = json.loads(body[at:])
    named = [None, *(unlabelled(label) for label in labels)]
    known = [None, *(_told(features) for features in told)]
    out = []
    for number, after, what, length, cost, ttl, label, features in zip(*columns.values(), strict=True):
        if not (number <= NUMBERS and what <= GONE and all(x == UNKNOWN or (math.isfinite(x) and x >= 0) for x in (length, cost, ttl))):
            raise ValueError("numbers out of range")
        out.append(Event(number, base + after * _TICK, what, length, cost, ttl, named[label], known[features]))
    return out


class _Table:
    """Values that many rows share, by number; 0 is none."""

    def __init__(self) -> None:
        self.rows: list[Any] = []
        self._places: dict[str, int] = {}

    def place(self, value: Any) -> int:
        if value is None:
            return 0
        said = json.dumps(value, sort_keys=True)
        at = self._places.get(said)
        if at is None:
            if len(said) > LABEL_BYTES * FEATURES or len(self.rows) >= MOST:
                return 0
            self.rows.append(value)
            at = self._places[said] = len(self.rows)
        return at


def _single(x: float) -> float:
    return min(x, 3e38) if x >= 0 else UNKNOWN


def _label(label: Hashable) -> Any:
    try:
        if label is None or not plain(label):
            return None         # an object's label has no meaning in another process
        said = labelled(label)
        return said if len(json.dumps(said)) <= LABEL_BYTES else None
    except (ValueError, RecursionError):
        return None             # a number of more digits than Python writes, tuples in tuples without end


def _features(features: Features | None) -> dict[str, Any] | None:
    if not features:
        return None
    out: dict[str, Any] = {}
    for name, value in list(features.items())[:FEATURES]:
        if isinstance(value, str):
            out[name[:LABEL_BYTES]] = value[:LABEL_BYTES]
        elif math.isfinite(value):
            out[name[:LABEL_BYTES]] = float(value)
    return out


def _told(given: Any) -> dict[str, float | str]:
    if not isinstance(given, dict) or len(given) > FEATURES or not all(
            isinstance(name, str) and (isinstance(value, str) or (isinstance(value, (int, float)) and math.isfinite(value)))
            for name, value in given.items()):
        raise ValueError("features: not what this version writes")
    return given
