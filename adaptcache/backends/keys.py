"""A Python key as bytes: equal keys give equal bytes, in every process, and different keys different ones.

"Equal" is Python's: 1, 1.0, True and Decimal(1) are one key; 1, "1" and b"1" are three. What has no such bytes is
refused with a TypeError, never guessed: `repr` may hold an address, `hash` differs from run to run, and pickle's bytes
depend on which parts happen to be one object. Text keys stay legible, for people who look at the server.
"""
from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from hashlib import blake2b
from typing import Any
from uuid import UUID

from adaptcache.keys import MARK

DIGITS = 10_000     # of a Decimal, before or after its point
LONGEST = 128       # bytes; what is longer is known by its hash
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TICK = timedelta(microseconds=1)


def encode(key: Any) -> bytes:
    """The bytes that stand for `key`; TypeError when it is not hashable or has none."""
    if type(key) is str:
        code = b"s" + key.encode("utf-8", "surrogatepass")
    else:
        hash(key)
        code = _of(key)
    if len(code) > LONGEST:
        return b"#" + blake2b(code, digest_size=32).hexdigest().encode()
    return code


def _of(key: Any) -> bytes:
    kind = type(key)        # most keys are of these
    if kind is str:
        return b"s" + key.encode("utf-8", "surrogatepass")  # type: ignore[no-any-return]
    if kind is int:
        return _integer(key)
    if kind is tuple:
        return b"t" + b"".join(map(_part, key))
    # A subclass that compares like its base is the same key, whatever its other methods say: so the base's are asked.
    if isinstance(key, str) and type(key).__eq__ is str.__eq__:
        return b"s" + str.encode(key, "utf-8", "surrogatepass")
    if isinstance(key, int) and type(key).__eq__ is int.__eq__:    # bool and IntEnum too
        return _integer(int.__int__(key))
    if isinstance(key, bytes) and type(key).__eq__ is bytes.__eq__:
        return b"b" + bytes.__getitem__(key, slice(None))
    if isinstance(key, tuple) and type(key).__eq__ is tuple.__eq__:
        return b"t" + b"".join(map(_part, tuple.__iter__(key)))
    if key is None:
        return b"n"
    if type(key) in (float, Decimal, Fraction):
        return _number(key)
    if MARK is not None and key is MARK:
        return b"m"      # cachetools' mark between positional and named arguments
    if isinstance(key, Enum) and type(key).__eq__ is Enum.__eq__:
        return b"e" + _part(type(key)) + str.encode(key.name)
    if isinstance(key, type):
        return b"q" + f"{key.__module__}.{key.__qualname__}".encode()
    if type(key) is UUID:
        return b"u" + key.bytes
    if type(key) is frozenset:
        return b"f" + b"".join(sorted(map(_part, key)))
    if type(key) is datetime:
        if key.tzinfo is None or key.utcoffset() is None:
            return b"l" + key.replace(fold=0, tzinfo=None).isoformat().encode()
        return b"a%d" % ((key - _EPOCH) // _TICK)
    if type(key) is date:
        return b"d" + key.isoformat().encode()
    if type(key) is timedelta:
        return b"p%d" % (key // _TICK)
    raise TypeError(
        f"key: {type(key).__module__}.{type(key).__qualname__} has no bytes that are the same in every process; use str, bytes, "
        "numbers, None, enums, dates, UUIDs, classes, or tuples and frozensets of these (for methods: key=adaptcache.methodkey)"
    )


def _part(key: Any) -> bytes:
    code = _of(key)
    return b"%d:" % len(code) + code


def _number(key: float | Decimal | Fraction) -> bytes:
    """The exact value, as Python compares numbers of different types."""
    if isinstance(key, Fraction):
        over, under = key.numerator, key.denominator
    elif key != key:
        raise TypeError("key: NaN is not equal to itself, so it could never be found again")
    elif key == math.inf or key == -math.inf:      # not math.isinf: as floats, large decimals are infinite
        return b"i+" if key > 0 else b"i-"
    elif type(key) is Decimal and key and abs(key.adjusted()) > DIGITS:
        # Equal to an integer, or a fraction, of that many digits; a few characters must not cost that much memory.
        raise TypeError(f"key: a Decimal of more than {DIGITS} digits before or after its point has no bytes here; use its text")
    else:
        over, under = key.as_integer_ratio()
    return _integer(over) if under == 1 else b"i%x/%x" % (over, under)


def _integer(value: int) -> bytes:
    # Decimal digits of a large integer are slow, and limited by the interpreter.
    return b"i%d" % value if value.bit_length() < 1000 else b"i#%x" % value
