"""Files to traces: npz, csv, access logs of nginx and Apache, and the synthetic workloads by name.

`read` decides by content (and by suffix where content cannot tell); each format has one function here or
in a module of its own (`accesslog`). Whatever is wrong with a file becomes a TraceError that names the
file, the line (or row) and the column, and says what would be right.
"""
from __future__ import annotations

import csv
import gzip
import io
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TextIO

import numpy as np

from adaptcache import tapefile
from adaptcache.errors import TraceError
from adaptcache.simulate import accesslog
from adaptcache.simulate.columns import Ids, column_names
from adaptcache.simulate.trace import Column, Trace, dense, feature, is_dense, problem

FORMATS: Final = ("npz", "csv", "access-log", "synthetic", "recording")
ALIASES: Final = {"log": "access-log", "nginx": "access-log", "apache": "access-log", "tsv": "csv"}

Where = Callable[[int], str]


def read(source: str | os.PathLike[str], format: str | None = None, limit: int | None = None, *,
         seed: int = 0) -> Trace:
    """The trace in `source`: a path, or `synthetic:NAME` (the only one that `seed` changes).

    `format` is one of FORMATS and overrides what the content says. `limit` keeps the first rows only.
    """
    if format is not None:
        format = ALIASES.get(format, format)
        if format not in FORMATS:
            raise ValueError(f"unknown trace format {format!r}; known are {', '.join(FORMATS)}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}; it must be at least 1")
    text = os.fspath(source)
    if format == "synthetic" or (format is None and text.startswith("synthetic:")):
        return _synthetic(text.removeprefix("synthetic:"), limit, seed)
    path = Path(text)
    with _told(path):
        if path.exists() and not path.is_file():
            raise TraceError(f"{path}: is a {'directory' if path.is_dir() else 'device or pipe'}; "
                             "a trace is one regular file")
        format = format or _sniff(path)
        if format == "npz":
            return _npz(path, limit)
        if format == "recording":
            return _recording(path, limit)
        with _text(path) as lines:
            if format == "csv":
                return _csv(path, lines, limit)
            return accesslog.parse(lines, name=_stem(path), file=str(path), limit=limit)


def _synthetic(name: str, limit: int | None, seed: int) -> Trace:
    # Imported here: the workloads pull in far more than a reader of files needs.
    from adaptcache.simulate.synthetic import generate

    try:
        trace = generate(name, seed=seed)
    except TraceError:
        raise
    except ValueError as error:
        raise TraceError(f"synthetic:{name}: {error}") from error
    return trace if limit is None else trace.head(limit)


# Opening

@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Every way in which the operating system or a decompressor refuses a file, as a TraceError."""
    try:
        yield
    except FileNotFoundError as error:
        raise TraceError(f"{path}: no such file") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise TraceError(f"{path}: the compressed data is damaged or cut short ({error})") from error
    except OSError as error:
        raise TraceError(f"{path}: cannot be read ({error.strerror or error})") from error


def _sniff(path: Path) -> str:
    head = _head(path)
    if not head:
        raise TraceError(f"{path}: is empty; a trace needs at least one request")
    if head.startswith(b"PK\x03\x04") or path.suffix == ".npz":
        return "npz"
    if tapefile.is_recording(head):
        return "recording"
    if b"\0" in head:
        raise TraceError(f"{path}: is neither text nor npz; readable are {', '.join(FORMATS[:3])} "
                         "(csv and logs may be gzipped)")
    first = next((line for line in head.decode("utf-8", "replace").splitlines() if line.strip()), "")
    return "access-log" if accesslog.is_line(first) else "csv"


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    with gzip.open(path) if zipped else path.open("rb") as file:
        return file.read(1 << 16)


@contextmanager
def _text(path: Path) -> Iterator[TextIO]:
    """The lines of a text file, gunzipped if need be. Bytes that are not UTF-8 survive in keys."""
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    with gzip.open(path) if zipped else path.open("rb") as raw:
        yield io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="")


def _stem(path: Path) -> str:
    name = path.name.removesuffix(".gz")
    for suffix in (".npz", ".csv", ".tsv", ".act"):
        name = name.removesuffix(suffix)
    return name


def _build(path: Path, columns: dict[str, Column], where: Where) -> Trace:
    """The trace of these columns; `where` turns a row into words (a line, mostly)."""
    found = problem(columns | _any_key(columns))
    if found is not None:
        at = "" if found.row is None else f"{where(found.row)}, "
        raise TraceError(f"{path}: {at}column {found.column}: {found.says}")
    key = dense(columns.pop("key"))
    features = {name.removeprefix("feat_"): feature(values) for name, values in columns.items()
                if name.startswith("feat_")}
    rest: dict[str, Any] = {name: values for name, values in columns.items() if not name.startswith("feat_")}
    if "namespace" in rest and not is_dense(rest["namespace"]):
        rest["namespace"] = dense(rest["namespace"])
    return Trace(name=_stem(path), key=key, n_keys=int(key.max()) + 1, features=features, **rest)


def _any_key(columns: dict[str, Column]) -> dict[str, Column]:
    """Keys stand in the checks as zeros: any string and any integer (a hash, say) is a good key."""
    key = columns.get("key")
    return {} if key is None or key.dtype.kind not in "USiu" else {"key": np.zeros(key.shape, np.uint32)}


# Our own recordings

def _recording(path: Path, limit: int | None) -> Trace:
    columns = tapefile.rows(path)
    if len(columns["key"]) == 0:
        raise TraceError(f"{path}: holds no operation; a trace needs at least one request")
    return _build(path, {name: values[:limit] for name, values in columns.items()}, lambda row: f"row {row}")


# npz

def _npz(path: Path, limit: int | None) -> Trace:
    columns: dict[str, Column] = {}
    try:
        # np.load would leave a file that it opened itself and could not read open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if not hasattr(archive, "files"):
                raise TraceError(f"{path}: holds one bare array; an .npz with a column key is wanted")
            for name, origin in column_names(str(path), archive.files).items():
                columns[name] = _array(path, archive, origin)
    except (zipfile.BadZipFile, ValueError, KeyError, NotImplementedError) as error:
        if isinstance(error, TraceError):
            raise
        raise TraceError(f"{path}: is no npz archive, or it is damaged or cut short ({error})") from error
    if limit is not None and len({values.shape[:1] for values in columns.values()} - {()}) == 1:
        columns = {name: values[:limit] if values.ndim else values for name, values in columns.items()}
    return _build(path, columns, lambda row: f"row {row}")


def _array(path: Path, archive: Any, name: str) -> Column:
    try:
        values = archive[name]
    except ValueError as error:
        if "pickle" not in str(error).lower():
            raise
        raise TraceError(f"{path}: column {name}: holds Python objects, which are never unpickled; "
                         "numbers are wanted") from error
    return np.asarray(values)


# csv

def _csv(path: Path, lines: TextIO, limit: int | None) -> Trace:
    first = lines.readline()
    while first and not first.strip():
        first = lines.readline()
    if not first:
        raise TraceError(f"{path}: is empty; a trace needs at least one request")
    delimiter = max(",;\t", key=first.count)
    lines.seek(0)
    table = _Table(path, csv.reader(lines, delimiter=delimiter), limit)
    return _build(path, table.columns(), table.where)


class _Table:
    """A csv as columns, taken in blocks so that a long file costs little beside its arrays."""

    BLOCK: Final = 1 << 16
    OPS: Final = {
        **dict.fromkeys(("0", "get", "gets", "read", "r"), 0),
        **dict.fromkeys(("1", "set", "put", "write", "w", "add", "replace", "cas", "append", "prepend",
                         "incr", "decr", "update"), 1),
        **dict.fromkeys(("2", "delete", "del", "remove"), 2),
    }

    def __init__(self, path: Path, rows: Any, limit: int | None) -> None:
        self.path = path
        self.rows = rows
        self.limit = limit
        self.lines: list[Column] = []  # of each block: the line on which each row ends
        self.blocks: dict[str, list[Column]] = {}
        self.ids: dict[str, Ids] = {}

    def where(self, row: int) -> str:
        return f"line {np.concatenate(self.lines)[row]}"

    def columns(self) -> dict[str, Column]:
        header, pending = self._header()
        origins = {name: header.index(origin) for name, origin in column_names(str(self.path), header).items()}
        if "key" not in origins:
            raise TraceError(f"{self.path}: line 1: no column named key (found: {', '.join(header)}); a header "
                             "names the columns, or rows are time,key or time,key,size without a header")
        for block in self._take(len(header), pending):
            by_column = list(zip(*block, strict=True))
            for name, index in origins.items():
                self.blocks.setdefault(name, []).append(self._convert(name, by_column[index]))
        if not self.blocks:
            raise TraceError(f"{self.path}: has a header and no rows; a trace needs at least one request")
        return {name: self._joined(name, blocks) for name, blocks in self.blocks.items()}

    def _header(self) -> tuple[list[str], list[str] | None]:
        """The column names, and the first row when the file has no header."""
        first = next((row for row in self._safely() if row), None)
        if first is None:
            raise TraceError(f"{self.path}: is empty; a trace needs at least one request")
        names = [field.strip().lower() for field in first]
        if "key" not in names and len(names) in (2, 3) and _is_number(names[0]):
            return ["time", "key", "size"][:len(names)], first
        return names, None

    def _safely(self) -> Iterator[list[str]]:
        while True:
            try:
                row = next(self.rows)
            except StopIteration:
                return
            except csv.Error as error:
                raise TraceError(f"{self.path}: line {self.rows.line_num}: {error}") from error
            yield row

    def _take(self, width: int, pending: list[str] | None) -> Iterator[list[list[str]]]:
        block: list[list[str]] = [pending] if pending else []
        lines: list[int] = [self.rows.line_num] if pending else []
        left = self.limit if self.limit is not None else np.inf
        for row in self._safely():
            if len(block) >= left:
                break
            if len(row) == width:
                block.append(row)
                lines.append(self.rows.line_num)
            elif row:
                raise TraceError(f"{self.path}: line {self.rows.line_num}: has {len(row)} fields; the first line "
                                 f"has {width}, and every line must have as many")
            if len(block) == self.BLOCK:
                self.lines.append(np.array(lines))
                yield block
                left -= len(block)
                block, lines = [], []
        if block:
            self.lines.append(np.array(lines))
            yield block

    def _convert(self, name: str, fields: tuple[str, ...]) -> Column:
        if name in ("key", "namespace"):
            ids = self.ids.setdefault(name, Ids())
            return np.fromiter(map(ids.__getitem__, fields), np.uint32, len(fields))
        if name == "op":
            ops = (self.OPS.get(field.strip().lower(), 255) for field in fields)
            values = np.fromiter(ops, np.uint8, len(fields))
            if values.max() == 255:
                self._refuse(name, fields, int((values == 255).argmax()), "0, 1, 2 or get, set, delete")
            return values
        if name.startswith("feat_"):
            return np.array(fields, dtype=np.str_)  # numbers or words? Known when all is read.
        if name == "ttl":
            fields = tuple(field or "0" for field in fields)
        try:
            return np.array(fields, dtype=np.float64)
        except ValueError:
            bad = next(row for row, field in enumerate(fields) if not _is_number(field))
            self._refuse(name, fields, bad, "a number")
            raise

    def _refuse(self, name: str, fields: tuple[str, ...], bad: int, right: str) -> None:
        raise TraceError(f"{self.path}: line {self.lines[-1][bad]}, column {name}: {fields[bad]!r} is not {right}")

    def _joined(self, name: str, blocks: list[Column]) -> Column:
        values = np.concatenate(blocks)
        blocks.clear()
        if name.startswith("feat_"):
            return self._feature(name, values)
        if name == "version":
            broken = ~np.isfinite(values) | (values != np.floor(values)) | (np.abs(values) > 2**53)
            if broken.any():
                row = int(broken.argmax())
                raise TraceError(f"{self.path}: {self.where(row)}, column version: {values[row]} is not a whole number")
            return values.astype(np.int64)
        return values

    def _feature(self, name: str, fields: Column) -> Column:
        """Numbers if all are numbers; else words, which become categories."""
        try:
            return fields.astype(np.float64)
        except ValueError:
            empty = fields == ""
            if empty.any() and all(map(_is_number, fields[~empty])):
                raise TraceError(f"{self.path}: {self.where(int(empty.argmax()))}, column {name}: is empty and the others "
                                 "are numbers; write -1 or another number of your own for 'unknown'") from None
            return dense(fields)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
