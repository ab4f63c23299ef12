"""Plain data, and objects of registered types, as MessagePack that is safe to read from anyone.

What MessagePack knows (None, bool, 64-bit int, float, str, bytes, list, dict) is written natively by msgspec; every other type is
an extension whose payload is a document of its own. So the many values that consist of native types alone are looked over at the
speed of C (`issuperset(map(type, ...))`) and written in one call. Types count exactly: an OrderedDict is no dict, for it would come back as another
thing than it was.

Reading makes only the types named here and those in the registry. Extensions nest on a ladder of decoders that has an end, since
each level costs stack; msgspec bounds its own nesting by the interpreter's recursion limit, and allocates for what is there, not
for what a length field says.

This file knows no envelope. Errors of reading are exceptions of any kind; who calls turns them into a refusal.
"""
from __future__ import annotations

import re
import struct
import zoneinfo
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from itertools import chain
from typing import Any, Final
from uuid import UUID

from msgspec.msgpack import Decoder, Encoder, Ext

from adaptcache.wire import arrays, schema
from adaptcache.wire.refusal import Refused
from adaptcache.wire.registry import Registry

DEPTH: Final = 100      # of containers within containers

# Extension codes of version 1. A number, once given out, keeps its meaning for ever.
(INT, TUPLE, SET, FROZENSET, DICT, DATETIME, DATE, TIME, TIMEDELTA, TIMEZONE, ZONE, DECIMAL, UUID_, COMPLEX, BYTEARRAY, TEXT,
 ARRAY, SCALAR) = range(1, 19)
OBJECT: Final = 32

NATIVE: Final = frozenset({type(None), bool, int, float, str, bytes})

Way = Callable[[Any, int], Any]

_encode: Final = Encoder().encode

_DATETIME: Final = struct.Struct(">HBBBBBIB")
_DATE: Final = struct.Struct(">HBB")
_TIME: Final = struct.Struct(">BBBIB")
_TIMEDELTA: Final = struct.Struct(">iII")
_COMPLEX: Final = struct.Struct(">dd")
_UTC: Final = b"\xc0"       # in place of a timezone: the usual one
_ZONE_NAME: Final = re.compile(r"[A-Za-z0-9_+-]{1,40}(/[A-Za-z0-9_+-]{1,40}){0,3}")


class Plain:
    """Values to bytes and back, for one registry. Safe to use from several threads."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._top = Rung(registry, DEPTH + 4)       # a little more than is written: a leaf may be an extension too
        self._ways: dict[type, Way] = {
            list: self._list, dict: self._dict,
            tuple: lambda value, left: Ext(TUPLE, _document(self._list(value, left))),
            set: lambda value, left: Ext(SET, _document(self._list(list(value), left))),
            frozenset: lambda value, left: Ext(FROZENSET, _document(self._list(list(value), left))),
            datetime: self._datetime, time: self._time, **_LEAVES, **arrays.ways(ARRAY, SCALAR),
        }

    def dumps(self, value: Any) -> bytes:
        """TypeError names a type that nobody registered; ValueError: nested too deeply, or a value that holds itself."""
        if type(value) in NATIVE:
            return _document(value)
        return _document(self._walk(value, DEPTH))

    def loads(self, body: bytes | memoryview) -> Any:
        return self._top.any(body)

    # -- taking apart: what msgspec writes as it is, or an Ext in its place

    def _walk(self, value: Any, left: int) -> Any:
        cls = type(value)
        if cls in NATIVE:
            return value
        way = self._ways.get(cls)
        return way(value, left) if way is not None else self._object(value, left)

    def _list(self, value: Collection[Any], left: int) -> Any:
        return value if NATIVE.issuperset(map(type, value)) else self._each(value, left)

    def _each(self, values: Iterable[Any], left: int) -> list[Any]:
        if left <= 0:
            raise ValueError(f"value: nested more than {DEPTH} deep, or it holds itself")
        left -= 1
        ways = self._ways
        out = []
        for value in values:
            cls = type(value)
            if cls not in NATIVE:
                way = ways.get(cls)
                value = way(value, left) if way is not None else self._object(value, left)
            out.append(value)
        return out

    def _dict(self, value: dict[Any, Any], left: int) -> Any:
        if not NATIVE.issuperset(map(type, value)):
            return Ext(DICT, _document(self._each(chain.from_iterable(value.items()), left)))
        if NATIVE.issuperset(map(type, value.values())):
            return value
        return dict(zip(value, self._each(value.values(), left), strict=True))

    def _object(self, value: Any, left: int) -> Any:
        cls = type(value)
        kind = self._registry.of_type(cls)
        if kind is None:
            name = schema.full_name(cls)
            how = (f"pass types=({cls.__qualname__},) to the Serializer, or decorate the class with @adaptcache.wire.registered"
                   if schema.kind(cls) else f"give the Serializer types=(Handler({cls.__qualname__}, name, encode, decode),)")
            raise TypeError(f"value: objects of {name} cannot be written, since nobody registered the type; {how}")
        return Ext(OBJECT, kind.mark + _document(self._each(kind.apart(value), left)))

    def _datetime(self, value: datetime, left: int) -> Any:
        return Ext(DATETIME, _DATETIME.pack(
            value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond, value.fold,
        ) + self._zone(value.tzinfo, left))

    def _time(self, value: time, left: int) -> Any:
        return Ext(TIME, _TIME.pack(value.hour, value.minute, value.second, value.microsecond, value.fold)
                   + self._zone(value.tzinfo, left))

    def _zone(self, zone: tzinfo | None, left: int) -> bytes:
        if zone is None:
            return b""
        return _UTC if zone is UTC else _document(self._walk(zone, left))


def _document(tree: Any) -> bytes:
    try:
        return _encode(tree)
    except (OverflowError, UnicodeEncodeError):
        return _encode(_careful(tree))      # an int beyond 64 bits, or half a surrogate pair: rare, and nobody else pays


def _careful(tree: Any) -> Any:
    cls = type(tree)
    if cls is int and not -1 << 63 <= tree < 1 << 64:
        return Ext(INT, tree.to_bytes(tree.bit_length() // 8 + 1, "little", signed=True))
    if cls is str and not tree.isascii():
        try:
            tree.encode()
        except UnicodeEncodeError:
            return Ext(TEXT, tree.encode("utf-8", "surrogatepass"))
    if cls is list or cls is tuple:         # a tuple that came here is one whose Ext is about to be made
        return [_careful(one) for one in tree]
    if cls is dict:
        flat = [_careful(one) for one in chain.from_iterable(tree.items())]
        if any(type(key) is Ext for key in flat[::2]):
            return Ext(DICT, _encode(flat))
        return dict(zip(flat[::2], flat[1::2], strict=True))
    return tree


def _timezone(value: timezone, left: int) -> Any:
    offset = value.utcoffset(None)
    named = value != timezone(offset) or value.tzname(None) != timezone(offset).tzname(None)
    return Ext(TIMEZONE, _timedelta_bytes(offset) + (value.tzname(None).encode("utf-8", "surrogatepass") if named else b""))


def _zone_info(value: zoneinfo.ZoneInfo, left: int) -> Any:
    if value.key is None or not _ZONE_NAME.fullmatch(value.key):
        raise TypeError(f"value: a ZoneInfo with the key {value.key!r} cannot be written; make it with ZoneInfo(key)")
    return Ext(ZONE, value.key.encode())


def _timedelta_bytes(value: timedelta) -> bytes:
    return _TIMEDELTA.pack(value.days, value.seconds, value.microseconds)


_LEAVES: Final[dict[type, Way]] = {
    date: lambda value, left: Ext(DATE, _DATE.pack(value.year, value.month, value.day)),
    timedelta: lambda value, left: Ext(TIMEDELTA, _timedelta_bytes(value)),
    timezone: _timezone,
    zoneinfo.ZoneInfo: _zone_info,
    Decimal: lambda value, left: Ext(DECIMAL, str(value).encode()),
    UUID: lambda value, left: Ext(UUID_, value.bytes),
    complex: lambda value, left: Ext(COMPLEX, _COMPLEX.pack(value.real, value.imag)),
    bytearray: lambda value, left: Ext(BYTEARRAY, bytes(value)),
}


# -- putting together


class Rung:
    """Decoders for one level of extensions; the payloads of this level's are read by the rung below."""

    __slots__ = ("_below", "_left", "any", "list", "registry")

    def __init__(self, registry: Registry, left: int) -> None:
        self.registry = registry
        self._left = left
        self._below: Rung | None = None
        self.any: Callable[[bytes | memoryview], Any] = Decoder(ext_hook=self._extension).decode
        self.list: Callable[[bytes | memoryview], list[Any]] = Decoder(list[Any], ext_hook=self._extension).decode

    @property
    def below(self) -> Rung:
        if self._below is None:
            if not self._left:
                raise Refused("value")
            self._below = Rung(self.registry, self._left - 1)
        return self._below

    def _extension(self, code: int, data: memoryview) -> Any:
        reader = _READERS.get(code)
        if reader is None:
            raise Refused("version")        # a later release writes a type that this one has not heard of
        return reader(self, data)


def _read_object(rung: Rung, data: memoryview) -> Any:
    kind = rung.registry.of_mark(data[:schema.MARK].tobytes())
    return kind.together(rung.below.list(data[schema.MARK:]))


def _read_dict(rung: Rung, data: memoryview) -> Any:
    flat = rung.below.list(data)
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _read_datetime(rung: Rung, data: memoryview) -> Any:
    year, month, day, hour, minute, second, micro, fold = _DATETIME.unpack_from(data)
    zone = _read_zone(rung, data[_DATETIME.size:])
    return datetime(year, month, day, hour, minute, second, micro, zone, fold=fold)


def _read_time(rung: Rung, data: memoryview) -> Any:
    hour, minute, second, micro, fold = _TIME.unpack_from(data)
    return time(hour, minute, second, micro, _read_zone(rung, data[_TIME.size:]), fold=fold)


def _read_zone(rung: Rung, data: memoryview) -> Any:
    if not data:
        return None
    return UTC if data.tobytes() == _UTC else rung.below.any(data)


def _read_timezone(rung: Rung, data: memoryview) -> Any:
    offset = timedelta(*_TIMEDELTA.unpack_from(data))
    name = data[_TIMEDELTA.size:].tobytes().decode("utf-8", "surrogatepass")
    return timezone(offset, name) if name else timezone(offset)


def _read_zone_info(rung: Rung, data: memoryview) -> Any:
    key = data.tobytes().decode("ascii")
    if not _ZONE_NAME.fullmatch(key):       # a name of the database, never a path to elsewhere
        raise Refused("value")
    return zoneinfo.ZoneInfo(key)


_READERS: Final[dict[int, Callable[[Rung, memoryview], Any]]] = {
    INT: lambda rung, data: int.from_bytes(data, "little", signed=True),
    TUPLE: lambda rung, data: tuple(rung.below.list(data)),
    SET: lambda rung, data: set(rung.below.list(data)),
    FROZENSET: lambda rung, data: frozenset(rung.below.list(data)),
    DICT: _read_dict,
    DATETIME: _read_datetime,
    DATE: lambda rung, data: date(*_DATE.unpack(data)),
    TIME: _read_time,
    TIMEDELTA: lambda rung, data: timedelta(*_TIMEDELTA.unpack(data)),
    TIMEZONE: _read_timezone,
    ZONE: _read_zone_info,
    DECIMAL: lambda rung, data: Decimal(data.tobytes().decode("ascii")),
    UUID_: lambda rung, data: UUID(bytes=data.tobytes()),
    COMPLEX: lambda rung, data: complex(*_COMPLEX.unpack(data)),
    BYTEARRAY: lambda rung, data: bytearray(data),
    TEXT: lambda rung, data: data.tobytes().decode("utf-8", "surrogatepass"),
    ARRAY: lambda rung, data: arrays.read_array(data),
    SCALAR: lambda rung, data: arrays.read_scalar(data),
    OBJECT: _read_object,
}
