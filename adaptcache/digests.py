"""Eight bytes that stand for a value: equal values give equal ones, whoever made them, in every process.

`digest` walks plain data, and anything that pickles, by its contents. Not pickle's bytes: they depend on which parts of
a value happen to be one object. Not `hash`: it differs from run to run, and lists have none. Not `repr`: it may hold an
address. A dict and a set are the same in any order. A value that holds itself, is too large to walk, or cannot be taken apart
has no digest: None, "unknown", which is never an error. This file knows no cache.
"""
from __future__ import annotations

import copyreg
import struct
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from itertools import chain
from typing import Any

PARTS = 20_000      # of one value; beyond it a digest costs more than what it saves
DEPTH = 50


class _Unknown(Exception):
    """This value has no digest."""


def digest(value: Any) -> int | None:
    """A 64-bit digest of `value`, or None where there is none.

    An exception that the value's own code raises (in `__reduce_ex__` or a property) comes through.
    """
    try:
        return int.from_bytes(_Walk().of(value, 0), "little")
    except (_Unknown, RecursionError):
        return None


def by(function: Callable[[Any], Any]) -> Callable[[Any], int | None]:
    """The digest of what a user's `function` says of a value; its None is unknown."""

    def of(value: Any) -> int | None:
        said = function(value)
        return None if said is None else digest(said)

    return of


class _Walk:
    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = PARTS

    def of(self, value: Any, depth: int) -> bytes:
        self.left -= 1
        if self.left < 0 or depth > DEPTH:
            raise _Unknown
        kind = type(value)
        if kind is str:
            return _sum(b"s", value.encode("utf-8", "surrogatepass"))
        if kind is bytes or kind is bytearray or kind is memoryview:
            return _sum(b"b", value if kind is not memoryview else value.tobytes())
        if value is None or value is Ellipsis or value is NotImplemented:
            return _sum(b"n", str(value).encode())
        if kind is bool or kind is int:
            return _sum(b"i", int(value).to_bytes(value.bit_length() // 8 + 1, "little", signed=True))
        if kind is float:
            return _sum(b"f", struct.pack("<d", value))
        if kind is complex:
            return _sum(b"c", struct.pack("<dd", value.real, value.imag))
        if kind is list or kind is tuple:
            return self._all(b"l" if kind is list else b"t", (self.of(part, depth + 1) for part in value))
        if kind is dict:
            return self._all(b"d", sorted(self.of(key, depth + 1) + self.of(part, depth + 1) for key, part in value.items()))
        if kind is set or kind is frozenset:
            return self._all(b"e", sorted(self.of(part, depth + 1) for part in value))
        if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__") and "<" not in value.__qualname__
                                       and not hasattr(value, "__self__")):
            return _sum(b"q", f"{value.__module__}.{value.__qualname__}".encode())
        return self._apart(value, kind, depth)

    def _apart(self, value: Any, kind: type, depth: int) -> bytes:
        """What pickle would take it apart into."""
        reduce = copyreg.dispatch_table.get(kind)
        try:
            parts = reduce(value) if reduce is not None else value.__reduce_ex__(4)
        except TypeError as error:
            if reduce is None and "pickle" in str(error):
                raise _Unknown from None
            raise
        if isinstance(parts, str):
            return _sum(b"g", f"{kind.__module__}.{parts}".encode())
        made, arguments, *rest = parts
        state, items, pairs = [*rest, None, None, None][:3]
        return self._all(b"o", chain(
            (self.of(made, depth + 1), self.of(arguments, depth + 1), self.of(state, depth + 1)),
            self._each(items, depth), self._each(pairs, depth),
        ))

    def _each(self, parts: Iterable[Any] | None, depth: int) -> Iterator[bytes]:
        return iter(()) if parts is None else (self.of(part, depth + 1) for part in parts)

    def _all(self, tag: bytes, digests: Iterable[bytes]) -> bytes:
        total = blake2b(tag, digest_size=8)
        for one in digests:
            total.update(one)
        return total.digest()


def _sum(tag: bytes, data: bytes | bytearray) -> bytes:
    total = blake2b(tag, digest_size=8)
    total.update(data)
    return total.digest()
