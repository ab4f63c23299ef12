"""Plain data, and objects of registered types, as MessagePack that is safe to read from anyone.

What is common to MessagePack and Python (None, bool, 64-bit int, float, str, list, dict with str keys) is written natively by msgspec; every
other type is an extension whose payload is, where it has parts, a document of its own. So the many values that consist of native types
alone are looked over at the speed of C (`issuperset(map(type, ...))`) and written in one call. Types count exactly: an
OrderedDict is no dict, for it would come back as another thing than it was.

Reading makes only the types named here and those in the registry. A document is decoded against a type that allows what is native and no
more: keys that are str (their hashes are salted, so that nobody can choose a thousand that collide), and RUN containers within one
another, beyond which an extension begins a new document. So however deep hostile bytes nest, C code does not recurse with them; the
interpreter's own limit would not do, since on CPython 3.13 it lets C nest deeper than the stack of a small thread is. msgspec allocates for what is there,
not for what a length field says.

This file knows no envelope. Errors of reading are exceptions of any kind; who calls turns them into a refusal.
"""
from __future__ import annotations

import re
import struct
import zoneinfo
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from itertools import chain
from typing import Any, Final, cast
from uuid import UUID

from msgspec.msgpack import Decoder, Encoder, Ext

from adaptcache.wire import arrays, schema
from adaptcache.wire.refusal import Refused
from adaptcache.wire.registry import Registry

DEPTH: Final = 100      # of containers within containers
RUN: Final = 6          # of native ones within one document; the decoder's type grows as 2 ** RUN

# Extension codes of version 1. A number, once given out, keeps its meaning for ever.
(NEST, TUPLE, SET, FROZENSET, DICT, INT, TEXT, BYTES, BYTEARRAY, COMPLEX, DATETIME, DATE, TIME, TIMEDELTA, TIMEZONE, ZONE, DECIMAL, UUID_,
 ARRAY, SCALAR, NUMPY_STR, NUMPY_BYTES) = range(1, 23)
OBJECT: Final = 32

NATIVE: Final = frozenset({type(None), bool, int, float, str})
_STR: Final = frozenset({str})

Way = Callable[[Any, int], Any]

_MANY, _ALIKE = 1000, 100       # so many keys with so many equal hashes are no accident


def _document_type() -> Any:
    leaf: Any = None | bool | int | float | str | Ext
    tree = leaf
    for _ in range(RUN):
        tree = leaf | list[tree] | dict[str, tree]      # type: ignore[valid-type]
    return tree


_encode: Final = Encoder().encode
_decode: Final[Callable[[bytes], Any]] = Decoder(_document_type()).decode

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
        self._reading = Reading(registry)
        self._ways: dict[type, Way] = {
            list: self._list, dict: self._dict,
            tuple: lambda value, left: Ext(TUPLE, _document(self._parts(value, left))),
            set: lambda value, left: Ext(SET, _document(self._parts(list(value), left))),
            frozenset: lambda value, left: Ext(FROZENSET, _document(self._parts(list(value), left))),
            datetime: self._datetime, time: self._time, **_LEAVES, **arrays.ways(ARRAY, SCALAR, NUMPY_STR, NUMPY_BYTES),
        }
        for cls in registry.own():
            if cls in NATIVE or cls in self._ways:
                raise ValueError(f"types: {schema.full_name(cls)} is written without a Handler, and takes none")

    def dumps(self, value: Any) -> bytes:
        """TypeError names a type that nobody registered; ValueError: nested too deeply, or a value that holds itself."""
        return _document(self._walk(value, DEPTH))

    def loads(self, body: bytes) -> Any:
        return self._reading.whole(body, DEPTH + 2)      # a little more than is written: leaves have parts too

    # -- taking apart: what msgspec writes as it is, or an Ext in its place

    def _walk(self, value: Any, left: int) -> Any:
        cls = type(value)
        if cls in NATIVE:
            return value
        way = self._ways.get(cls)
        return way(value, left) if way is not None else self._object(value, left)

    def _list(self, value: list[Any], left: int) -> Any:
        parts = self._parts(value, left)
        return parts if left % RUN else Ext(NEST, _document(parts))

    def _parts(self, value: Collection[Any], left: int) -> Any:
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
        if not _STR.issuperset(map(type, value)):
            return Ext(DICT, _document(self._each(chain.from_iterable(value.items()), left)))
        tree = value
        if not NATIVE.issuperset(map(type, value.values())):
            tree = dict(zip(value, self._each(value.values(), left), strict=True))
        return tree if left % RUN else Ext(NEST, _document(tree))

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
    bytes: lambda value, left: Ext(BYTES, value),
    bytearray: lambda value, left: Ext(BYTEARRAY, bytes(value)),
}


# -- putting together


class Reading:
    """Makes values of documents. `left` is how many containers may still come within one another."""

    __slots__ = ("registry",)

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    def whole(self, body: bytes, left: int) -> Any:
        tree = _decode(body)
        return self._settled(tree, left) if _may_hold_extensions(body) else tree

    def parts(self, body: bytes, left: int) -> list[Any]:
        """What is in a document that is a list."""
        tree = _decode(body)
        if type(tree) is not list:
            raise Refused("value")
        if _may_hold_extensions(body):
            self._settle(tree, left)
        return tree

    def _settled(self, tree: Any, left: int) -> Any:
        """A tree with values in the place of extensions."""
        if type(tree) is Ext:
            return self._extension(tree, left)
        if type(tree) is list or type(tree) is dict:
            self._settle(tree, left)
        return tree

    def _settle(self, tree: list[Any] | dict[str, Any], left: int) -> None:
        if NATIVE.issuperset(map(type, tree if type(tree) is list else tree.values())):     # type: ignore[union-attr]
            return
        if left <= 0:
            raise Refused("value")
        left -= 1
        places: Any = tree.items() if type(tree) is dict else enumerate(tree)
        for place, one in places:       # a value takes another's place; keys and size stay
            cls = type(one)
            if cls is Ext:
                tree[place] = self._extension(one, left)
            elif cls is list or cls is dict:
                self._settle(one, left)

    def _extension(self, one: Ext, left: int) -> Any:
        reader = _READERS.get(one.code)
        if reader is None:
            raise Refused("version")        # a later release writes a type that this one has not heard of
        return reader(self, cast(bytes, one.data), left)

    def read_nested(self, data: bytes, left: int) -> Any:
        """A list or dict that begins a document of its own only because natives may not nest deeper."""
        tree = _decode(data)
        if type(tree) is not list and type(tree) is not dict:
            raise Refused("value")
        self._settle(tree, left)
        return tree

    def read_object(self, data: bytes, left: int) -> Any:
        kind = self.registry.of_mark(data[:schema.MARK])
        return kind.together(self.parts(data[schema.MARK:], left))

    def read_dict(self, data: bytes, left: int) -> Any:
        flat = self.parts(data, left)
        return dict(zip(_hashable(flat[::2]), flat[1::2], strict=True))

    def read_datetime(self, data: bytes, left: int) -> Any:
        year, month, day, hour, minute, second, micro, fold = _DATETIME.unpack_from(data)
        return datetime(year, month, day, hour, minute, second, micro, self._zone(data[_DATETIME.size:], left), fold=fold)

    def read_time(self, data: bytes, left: int) -> Any:
        hour, minute, second, micro, fold = _TIME.unpack_from(data)
        return time(hour, minute, second, micro, self._zone(data[_TIME.size:], left), fold=fold)

    def _zone(self, data: bytes, left: int) -> Any:
        if not data:
            return None
        if left <= 0:
            raise Refused("value")
        return UTC if data == _UTC else self.whole(data, left - 1)


def _may_hold_extensions(body: bytes) -> bool:
    """Whether a byte is there that begins one: eight searches in C are less than a look at each part."""
    return (0xC7 in body or 0xD4 in body or 0xD5 in body or 0xD6 in body or 0xD7 in body or 0xD8 in body or 0xC8 in body
            or 0xC9 in body)        # ints: with bytes of one it takes ten times as long


def _hashable(keys: list[Any]) -> list[Any]:
    """Keys for a dict or set. Hashes of numbers are known to all: so many that collide would keep the reader busy for hours."""
    if len(keys) > _MANY and max(Counter(map(hash, keys)).values()) > _ALIKE:
        raise Refused("value")
    return keys


def _timezone_of(data: bytes) -> Any:
    offset = timedelta(*_TIMEDELTA.unpack_from(data))
    name = data[_TIMEDELTA.size:].decode("utf-8", "surrogatepass")
    return timezone(offset, name) if name else timezone(offset)


def _zone_info_of(data: bytes) -> Any:
    key = data.decode("ascii")
    if not _ZONE_NAME.fullmatch(key):       # a name of the database, never a path to elsewhere
        raise Refused("value")
    return zoneinfo.ZoneInfo(key)


_READERS: Final[dict[int, Callable[[Reading, bytes, int], Any]]] = {
    NEST: Reading.read_nested,
    TUPLE: lambda reading, data, left: tuple(reading.parts(data, left)),
    SET: lambda reading, data, left: set(_hashable(reading.parts(data, left))),
    FROZENSET: lambda reading, data, left: frozenset(_hashable(reading.parts(data, left))),
    DICT: Reading.read_dict,
    INT: lambda reading, data, left: int.from_bytes(data, "little", signed=True),
    TEXT: lambda reading, data, left: data.decode("utf-8", "surrogatepass"),
    BYTES: lambda reading, data, left: data,
    BYTEARRAY: lambda reading, data, left: bytearray(data),
    COMPLEX: lambda reading, data, left: complex(*_COMPLEX.unpack(data)),
    DATETIME: Reading.read_datetime,
    DATE: lambda reading, data, left: date(*_DATE.unpack(data)),
    TIME: Reading.read_time,
    TIMEDELTA: lambda reading, data, left: timedelta(*_TIMEDELTA.unpack(data)),
    TIMEZONE: lambda reading, data, left: _timezone_of(data),
    ZONE: lambda reading, data, left: _zone_info_of(data),
    DECIMAL: lambda reading, data, left: Decimal(data.decode("ascii")),
    UUID_: lambda reading, data, left: UUID(bytes=data),
    ARRAY: lambda reading, data, left: arrays.read_array(data),
    SCALAR: lambda reading, data, left: arrays.read_scalar(data),
    NUMPY_STR: lambda reading, data, left: arrays.read_str(data),
    NUMPY_BYTES: lambda reading, data, left: arrays.read_bytes(data),
    OBJECT: Reading.read_object,
}
