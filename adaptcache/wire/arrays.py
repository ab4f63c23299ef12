"""numpy arrays and scalars as bytes: numbers, booleans, times and fixed strings, never objects.

The dtype is one of a list, the size is worked out before anything is made and must be that of the bytes that are there, and contents
that numpy itself could not have written (a boolean of 2, a character beyond Unicode) are refused: they would break whoever reads
them later. This file knows msgspec's Ext and no envelope.
"""
from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from msgspec.msgpack import Decoder, Encoder, Ext

from adaptcache.wire.refusal import Refused

_NUMBERS: Final = frozenset({"|b1", "|i1", "|u1", *(
    order + code for order in "<>" for code in ("i2", "i4", "i8", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"))})
_OTHERS: Final = re.compile(r"[<>][mM]8(\[([1-9]\d{0,8})?(Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?|\|S[1-9]\d{0,8}|[<>]U[1-9]\d{0,8}")
_DIMENSIONS: Final = 32
_PREFIX: Final = struct.Struct(">H")

_encode: Final = Encoder().encode
_decode: Final = Decoder(tuple[str, list[int], bool]).decode


def ways(array_code: int, scalar_code: int, str_code: int, bytes_code: int) -> dict[type, Callable[[Any, int], Any]]:
    """How each of numpy's types is written."""

    def array(value: Any, left: int) -> Any:
        return Ext(array_code, _array(value))

    def scalar(value: Any, left: int) -> Any:
        return Ext(scalar_code, _array(np.asarray(value)))

    scalars: list[type] = [np.dtype(code).type for code in "?bBhHiIlLqQefdFDMm"]
    # Texts by themselves are no arrays: numpy would take noughts at their end for filling.
    return {np.ndarray: array, **dict.fromkeys(scalars, scalar),
            np.str_: lambda value, left: Ext(str_code, value.encode("utf-8", "surrogatepass")),
            np.bytes_: lambda value, left: Ext(bytes_code, bytes(value))}


def _array(value: Any) -> bytes:
    name = value.dtype.str
    if not _allowed(name):
        raise TypeError(f"value: a numpy array of dtype {value.dtype} cannot be written; booleans, integers, floats up to 64 bits, "
                        f"complex numbers of those, datetimes, timedeltas and fixed strings can")
    if value.ndim > _DIMENSIONS:
        raise TypeError(f"value: a numpy array of {value.ndim} dimensions cannot be written; the accepted range is 0 to {_DIMENSIONS}")
    fortran = bool(value.flags.fnc)
    head = _encode((name, value.shape, fortran))
    return b"".join((_PREFIX.pack(len(head)), head, value.tobytes("F" if fortran else "C")))


def _allowed(name: str) -> bool:
    return name in _NUMBERS or _OTHERS.fullmatch(name) is not None


def read_array(data: bytes) -> Any:
    """An array of its own memory, writable. Refused or ValueError where the parts do not fit."""
    (length,) = _PREFIX.unpack_from(data)
    head = data[_PREFIX.size:_PREFIX.size + length]
    name, shape, fortran = _decode(head)
    if not _allowed(name) or len(shape) > _DIMENSIONS or any(side < 0 for side in shape):
        raise Refused("value")
    begin = _PREFIX.size + length
    dtype = np.dtype(name)
    if math.prod(shape) * dtype.itemsize != len(data) - begin:
        raise Refused("value")
    if len(data) == begin:
        return np.empty(shape, dtype, order="F" if fortran else "C")
    array = np.frombuffer(data, dtype, offset=begin)
    if dtype.kind == "b" and array.view(np.uint8).max() > 1:
        raise Refused("value")
    if dtype.kind == "U" and array.view(dtype.str[0] + "u4").max() > 0x10FFFF:
        raise Refused("value")
    return array.reshape(shape, order="F" if fortran else "C").copy("K")


def read_scalar(data: bytes) -> Any:
    array = read_array(data)
    if array.shape != ():
        raise Refused("value")
    return array[()]


def read_str(data: bytes) -> Any:
    return np.str_(data.decode("utf-8", "surrogatepass"))


def read_bytes(data: bytes) -> Any:
    return np.bytes_(data)
