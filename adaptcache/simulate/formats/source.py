"""A file that is read as a trace: what compresses it, its first bytes, and its bytes in order.

Compression is recognised by content: gzip, xz and zstd. This file knows no trace format. `told` turns every
way in which the operating system or a decompressor refuses a file into a TraceError.
"""
from __future__ import annotations

import gzip
import io
import lzma
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from adaptcache.errors import TraceError
from adaptcache.simulate.extras import needs

HEAD: Final = 1 << 16  # bytes that decide about the format

MAGIC: Final = {b"\x1f\x8b": "gzip", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
SUFFIXES: Final = (".gz", ".xz", ".zst", ".zstd")


class Source:
    """One file. `limit` says how many rows anybody will look at (None: all), and `words` names features that
    are known to hold words, so that a reader need not find out. Its reader counts in `left_out` what the file
    holds besides the trace's rows.
    """

    def __init__(self, path: Path, limit: int | None = None, words: frozenset[str] = frozenset()) -> None:
        if path.exists() and not path.is_file():
            raise TraceError(f"{path}: is a {'directory' if path.is_dir() else 'device or pipe'}; "
                             "a trace is one regular file")
        self.path = path
        self.limit = limit
        self.words = words
        self.left_out: Counter[str] = Counter()
        with path.open("rb") as file:
            first = file.read(8)
        self.compression = next((name for magic, name in MAGIC.items() if first.startswith(magic)), None)
        if self.compression is None and _is_skippable(first):
            self.compression = "zstd"

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """The file's name without what says that it is compressed."""
        name = self.path.name
        for suffix in SUFFIXES:
            name = name.removesuffix(suffix)
        return name

    @property
    def size(self) -> int | None:
        """Bytes of the content, where that is known before it is read."""
        return None if self.compression else self.path.stat().st_size

    @cached_property
    def head(self) -> bytes:
        """The first bytes of the content."""
        with self.open() as file:
            return file.read(HEAD)

    @cached_property
    def is_text(self) -> bool:
        return b"\0" not in self.head

    @cached_property
    def lines(self) -> list[str]:
        """The first lines that are whole and not blank, of a text."""
        text = self.head.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
        lines = text.split("\n")
        if len(self.head) == HEAD and len(lines) > 1:
            lines.pop()  # cut somewhere in its middle
        return [line.strip("\r ") for line in lines if line.strip()]

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The content, decompressed, from its beginning."""
        with self.path.open("rb") as raw:
            if self.compression == "gzip":
                with gzip.GzipFile(fileobj=raw) as file, _damage(self, raw):
                    yield cast(BinaryIO, file)
            elif self.compression == "xz":
                with lzma.LZMAFile(raw) as file, _damage(self, raw):
                    yield cast(BinaryIO, file)
            elif self.compression == "zstd":
                with io.BufferedReader(_Zstd(raw), 1 << 17) as file, _damage(self, raw):
                    yield cast(BinaryIO, file)
            else:
                yield raw

    def must_be_plain(self, what: str) -> None:
        """Refuses a compressed file of a format whose reader has to jump to and fro in it."""
        if self.compression:
            raise TraceError(f"{self}: is {what} inside {self.compression}, which cannot be read from its end; decompress it first")


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Every way in which the operating system refuses a file, as a TraceError."""
    try:
        yield
    except FileNotFoundError as error:
        raise TraceError(f"{path}: no such file") from error
    except OSError as error:
        raise TraceError(f"{path}: cannot be read ({error.strerror or error})") from error


@contextmanager
def _damage(source: Source, raw: BinaryIO) -> Iterator[None]:
    try:
        yield
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, _ZstdDamage) as error:
        raise TraceError(f"{source}: near byte {raw.tell():,} the compressed data ({source.compression}) is damaged "
                         f"or cut short ({error})") from error


def _is_skippable(first: bytes) -> bool:
    """A zstd file may begin with a frame that decompressors skip; its magic number is one of sixteen."""
    return len(first) == 8 and first[1:4] == b"\x2a\x4d\x18" and first[0] >> 4 == 5


class _ZstdDamage(Exception):
    """A zstd file is damaged or cut short."""


class _Zstd(io.RawIOBase):
    """The content of a zstd file of any number of frames.

    The package's own stream reader takes the end of the file for the end of the data; a decompressor per frame
    knows whether its frame was whole.
    """

    TAKE: Final = 1 << 14  # bytes of the file at a time; the content of so many has to fit in memory

    def __init__(self, raw: BinaryIO) -> None:
        with needs("reading zstd", "traces"):
            import zstandard
        self._zstd: Any = zstandard
        self._raw = raw
        self._frame: Any = None
        self._compressed = b""
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            if not self._fill():
                return 0
        taken = min(len(buffer), len(self._ready))
        buffer[:taken] = self._ready[:taken]
        self._ready = self._ready[taken:]
        return taken

    def _fill(self) -> bool:
        """Decompresses a little more; False at the end of the file."""
        if not self._compressed:
            self._compressed = self._raw.read(self.TAKE)
            if not self._compressed:
                if self._frame is not None:
                    raise _ZstdDamage("the last frame has no end")
                return False
        if self._frame is None:
            self._frame = self._zstd.ZstdDecompressor().decompressobj()
        try:
            self._ready = memoryview(self._frame.decompress(self._compressed))
        except self._zstd.ZstdError as error:
            raise _ZstdDamage(str(error)) from error
        self._compressed = b""
        if self._frame.eof:
            self._compressed = self._frame.unused_data
            self._frame = None
        return True
