"""npz: numpy's archive (zip) of arrays, one a column, under our own names and of one length.

`key` holds any integers or strings; an integer `feat_NAME` is a category, a float one a number. Every member
is read block by block side by side, so an archive of any size takes little memory. Nothing is ever
unpickled.
"""
from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from typing import IO, Any, Final

import numpy as np

from adaptcache.errors import TraceError
from adaptcache.simulate.columns import column_names
from adaptcache.simulate.formats.block import Block, Groups, rows_from
from adaptcache.simulate.formats.fields import Fields
from adaptcache.simulate.formats.source import Source
from adaptcache.simulate.trace import Column, mismatch

NAME: Final = "npz"
ALIASES: Final = ()
SUFFIXES: Final = (".npz",)
DISORDERLY: Final = False

ROWS: Final = 1 << 18  # of a block
DAMAGE: Final = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, ValueError, KeyError, EOFError, NotImplementedError,
                 RuntimeError)
ONE_BY_ONE: Final = 1 << 12  # bytes of an item from which rows are read one by one


def recognises(source: Source) -> bool:
    return source.head.startswith((b"PK\x03\x04", b"PK\x05\x06")) or source.name.endswith(".npz")


def blocks(source: Source) -> Generator[Block, None, None]:
    source.must_be_plain("an npz archive")
    if source.head.startswith(b"\x93NUMPY"):
        raise TraceError(f"{source}: holds one bare array; an .npz with a column key is wanted")
    try:
        with ExitStack() as stack:
            archive = stack.enter_context(zipfile.ZipFile(source.path))
            yield from _blocks(source, archive, stack)
    except DAMAGE as error:
        if isinstance(error, TraceError):
            raise
        raise TraceError(f"{source}: is no npz archive, or it is damaged or cut short ({error})") from error


def _blocks(source: Source, archive: zipfile.ZipFile, stack: ExitStack) -> Iterator[Block]:
    files = {name.removesuffix(".npy"): name for name in archive.namelist()}
    members = {name: _Member(source, origin, stack.enter_context(archive.open(files[origin])))
               for name, origin in column_names(str(source), files).items()}
    found = mismatch({name: _stand_in(name, member) for name, member in members.items()})
    if found is not None:
        raise TraceError(f"{source}: column {found.column}: {found.says}")
    namespaces = Groups()
    rows = members["key"].shape[0]
    largest = max(member.dtype.itemsize for member in members.values())
    step = ROWS if largest <= ONE_BY_ONE else 1
    for first in range(0, rows, step):
        columns = {name: member.rows(min(step, rows - first)) for name, member in members.items()}
        if columns["key"].dtype.kind not in "iu":
            columns["key"] = _hashes(columns["key"])
        if "namespace" in columns:
            columns["namespace"] = namespaces.ids(columns["namespace"])
        yield Block(columns, rows_from(first))
    for member in members.values():
        member.close()


class _Member:
    """One array of the archive, read from its beginning."""

    def __init__(self, source: Source, name: str, file: IO[bytes]) -> None:
        self.file = file
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise TraceError(f"{source}: column {name}: is an array of format {version}; numbers of format (1, 0) are wanted")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        self.shape, _, self.dtype = read(file)
        if self.dtype.hasobject:
            raise TraceError(f"{source}: column {name}: holds Python objects, which are never unpickled; numbers are wanted")

    def rows(self, number: int) -> Column:
        wanted = number * self.dtype.itemsize
        content = self.file.read(wanted)
        if len(content) < wanted:
            raise EOFError(f"an array ends {wanted - len(content)} bytes too early")
        return np.frombuffer(content, self.dtype, number)

    def close(self) -> None:
        """Reads to the end, where the checksum of the array is compared."""
        if self.file.read(1):
            raise ValueError("an array is longer than it says")


def _stand_in(name: str, member: _Member) -> Column:
    """An array of the member's type and shape that takes no memory; strings, which are good as keys, as numbers."""
    kind = np.uint32 if name == "key" and member.dtype.kind in "US" else member.dtype
    return np.broadcast_to(np.zeros((), kind), member.shape)


def _hashes(keys: Column) -> Column:
    """Strings as hashes. numpy pads them with NULs to one length, which are no part of them."""
    texts: list[Any] = keys.tolist()
    return Fields.of([text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass") for text in texts]).hashes()
