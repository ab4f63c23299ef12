"""The envelope's first bytes: what they mean, and every check that they are whole. docs/wire.md has them in a table.

    magic 2 | version 1 | flags 1 | crc 4 | length 4 | codec 1 | extras 2 | birth 8 | [soft 8] [hard 8] [cost 8] [digest 8] [schema 8]
    | extras | [signature 32] | body

Fields in brackets are there if their flag is. `extras` are fields that version 1 may gain: tag 1, length 2, bytes; a reader
skips tags that it does not know, or refuses the whole where the tag is 128 or above. A later version has a reader of its own
in `READERS`, and those before it stay.

This file knows no codec: what the body is, and whether the signature is good, is for others to say.
"""
from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable
from typing import Final

import msgspec

from adaptcache.wire.refusal import Refused

MAGIC: Final = b"\xc1\xac"      # C1 begins neither MessagePack nor UTF-8, nor pickles, JSON, gzip or zstd
VERSION: Final = 1

SOFT, HARD, COST, DIGEST, SCHEMA, ZSTD, SIGNED = (1 << bit for bit in range(7))
_FIELDS: Final = SOFT | HARD | COST | DIGEST | SCHEMA

CODEC_NAME: Final = 1           # a tag: the name of a codec of the user's
MUST_UNDERSTAND: Final = 128    # tags from here on

SIGNATURE: Final = 32           # bytes
_INF: Final = math.inf


def _layout(flags: int) -> struct.Struct:
    fields = "".join(code for bit, code in ((SOFT, "d"), (HARD, "d"), (COST, "d"), (DIGEST, "Q"), (SCHEMA, "8s")) if flags & bit)
    return struct.Struct("<IBHd" + fields)


def _places(flags: int) -> tuple[int, ...]:
    """Where each optional field is among what was unpacked, or from the end of it what it is if it is not there (`_ABSENT`)."""
    at = 4
    places = []
    for bit, absent in ((SOFT, -3), (HARD, -3), (COST, -2), (DIGEST, -3), (SCHEMA, -1)):
        places.append(at if flags & bit else absent)
        at += flags & bit > 0
    return tuple(places)


_ABSENT: Final = (None, 0.0, b"")
_CRC: Final = struct.Struct("<I")
_LAYOUTS: Final = tuple(map(_layout, range(_FIELDS + 1)))
_PLACES: Final = tuple(map(_places, range(_FIELDS + 1)))
_TAG: Final = struct.Struct("<BH")
_STARTS: Final = tuple(MAGIC + bytes((VERSION, flags)) for flags in range(128))
_SEEDS: Final = tuple(map(zlib.crc32, _STARTS))
_SMALLEST: Final = 8 + _LAYOUTS[0].size


class Header(msgspec.Struct, frozen=True):
    """What the first bytes say; the body begins at `body`. `signed` is the span of bytes a signature covers, before the body."""

    version: int
    flags: int
    codec: int
    name: str           # of the codec, if it is the user's
    birth: float
    soft: float | None
    hard: float | None
    cost: float
    digest: int | None
    schema: bytes       # b"" if the value's type has none
    signature: bytes    # b"" if not signed
    covered: bytes      # what a signature speaks of, besides the body
    body: int


def write(
    body: bytes, codec: int, name: str, birth: float, soft: float | None, hard: float | None, cost: float, digest: int | None,
    schema: bytes, flags: int, sign: Callable[[bytes, bytes], bytes] | None,
) -> bytes:
    """The whole envelope. `sign(covered, body)` gives its signature; the caller has checked the numbers."""
    fields: list[float | int | bytes] = []
    if soft is not None:
        flags |= SOFT
        fields.append(soft)
    if hard is not None:
        flags |= HARD
        fields.append(hard)
    if cost:
        flags |= COST
        fields.append(cost)
    if digest is not None:
        flags |= DIGEST
        fields.append(digest)
    if schema:
        flags |= SCHEMA
        fields.append(schema)
    extras = b""
    if name:
        encoded = name.encode()
        extras = _TAG.pack(CODEC_NAME, len(encoded)) + encoded
    layout = _LAYOUTS[flags & _FIELDS]
    length = 8 + layout.size + len(extras) + len(body)
    if sign is not None:
        flags |= SIGNED
        length += SIGNATURE
    rest = layout.pack(length, codec, len(extras), birth, *fields) + extras
    if sign is not None:
        rest += sign(_STARTS[flags] + rest, body)
    return b"".join((_STARTS[flags], _CRC.pack(zlib.crc32(body, zlib.crc32(rest, _SEEDS[flags]))), rest, body))


def read(data: bytes, limit: int) -> Header:
    """The header of any version, or Refused."""
    if data[:2] != MAGIC:
        raise Refused("truncated" if MAGIC.startswith(data[:2]) else "foreign")
    if len(data) < 3:
        raise Refused("truncated")
    reader = READERS.get(data[2])
    if reader is None:
        raise Refused("version")
    if len(data) > limit:
        raise Refused("too large")
    return reader(data)


def _read_1(data: bytes) -> Header:
    if len(data) < _SMALLEST:
        raise Refused("truncated")
    flags = data[3]
    if flags > 127:
        raise Refused("version")
    layout = _LAYOUTS[flags & _FIELDS]
    at = 8 + layout.size
    if len(data) < at:
        raise Refused("truncated")
    fields = layout.unpack_from(data, 8) + _ABSENT
    length, codec, extras, birth = fields[:4]
    if length != len(data):
        raise Refused("truncated" if length > len(data) else "damaged")
    if zlib.crc32(data[8:], _SEEDS[flags]) != _CRC.unpack_from(data, 4)[0]:
        raise Refused("damaged")
    at_soft, at_hard, at_cost, at_digest, at_schema = _PLACES[flags & _FIELDS]
    soft, hard, cost = fields[at_soft], fields[at_hard], fields[at_cost]
    if not sound(birth, soft, hard, cost):
        raise Refused("damaged")

    name = ""
    body = at + extras
    if extras:
        name = _read_extras(data[at:body], extras)
    covered = signature = b""
    if flags & SIGNED:
        covered = data[:4] + data[8:body]
        signature = data[body:body + SIGNATURE]
        body += SIGNATURE
    if body > len(data):
        raise Refused("damaged")
    return Header(1, flags, codec, name, birth, soft, hard, cost, fields[at_digest], fields[at_schema], signature, covered, body)


def _read_extras(data: bytes, length: int) -> str:
    """The codec's name. What else there is was added by a later release and does not matter to this one, unless it says so."""
    if len(data) != length:
        raise Refused("damaged")
    name = ""
    at = 0
    while at < length:
        if at + _TAG.size > length:
            raise Refused("damaged")
        tag, size = _TAG.unpack_from(data, at)
        at += _TAG.size
        if at + size > length:
            raise Refused("damaged")
        if tag == CODEC_NAME:
            try:
                name = data[at:at + size].decode()
            except UnicodeDecodeError:
                raise Refused("damaged") from None
        elif tag >= MUST_UNDERSTAND:
            raise Refused("version")
        at += size
    return name


def sound(birth: float, soft: float | None, hard: float | None, cost: float) -> bool:
    """A finite birth; deadlines that are moments, math.inf (never) or None; a finite cost that is not negative. No NaN."""
    return (-_INF < birth < _INF and (soft is None or -_INF < soft <= _INF) and (hard is None or -_INF < hard <= _INF)
            and 0.0 <= cost < _INF)


READERS: Final[dict[int, Callable[[bytes], Header]]] = {1: _read_1}
