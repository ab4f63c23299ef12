"""Columns of Arrow to ours; Parquet and Arrow files share this. Nothing here opens a file.

Keys and namespaces are strings, bytes or integers (also dictionary-encoded), times are numbers of seconds or
timestamps, operations are as in a csv. A `feat_NAME` of integers, booleans or strings is a category, one of
floats a number. No column may have nulls but `ttl`, where that says none.
"""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np

from adaptcache.errors import TraceError
from adaptcache.simulate.columns import column_names
from adaptcache.simulate.extras import needs
from adaptcache.simulate.formats.block import OPS, Block, Faults, Groups, rows_from
from adaptcache.simulate.formats.fields import AFTER, BEFORE, Fields, each_different
from adaptcache.simulate.formats.source import Source
from adaptcache.simulate.trace import Column

ROWS: Final = 1 << 17  # of a batch

SECOND: Final = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def import_pyarrow() -> Any:
    with needs("reading Parquet and Arrow", "traces"):
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    return pyarrow


@contextmanager
def told(source: Source, what: str) -> Iterator[Any]:
    """pyarrow, and whatever it refuses as a TraceError."""
    pyarrow = import_pyarrow()
    try:
        yield pyarrow
    except TraceError:
        raise
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError, OverflowError) as error:
        first = str(error).strip().partition("\n")[0]
        raise TraceError(f"{source}: is no {what}, or it is damaged or cut short ({first or type(error).__name__})") from error


class Columns:
    """The columns of a file's batches, from its schema on."""

    def __init__(self, source: Source, pyarrow: Any, schema: Any) -> None:
        self.source = source
        self.pa = pyarrow
        self.origins = column_names(str(source), schema.names)
        if "key" not in self.origins:
            raise TraceError(f"{source}: no column named key (found: {', '.join(schema.names) or 'nothing'})")
        self.groups: dict[str, Groups] = {}
        self.first = 0

    def block(self, batch: Any) -> Block:
        first = self.first
        self.first += batch.num_rows
        self.faults = Faults(batch.num_rows)
        columns = {name: self._column(name, batch.column(batch.schema.get_field_index(origin)))
                   for name, origin in self.origins.items()}
        return self.faults.block(self.source, columns, rows_from(first))

    def _column(self, name: str, values: Any) -> Column:
        pa, types = self.pa, self.pa.types
        if types.is_dictionary(values.type):
            values = values.dictionary_decode()
        kind = values.type
        if values.null_count:
            if name != "ttl":
                missing: Column = np.asarray(values.is_null().to_numpy(zero_copy_only=False))
                self.faults.among(missing, lambda row: f", column {name}: is missing; write -1 or another number of your own for "
                                                       "'unknown'" if name.startswith("feat_") else f", column {name}: is missing")
            values = self._filled(name, values)
        is_text = types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind)
        if is_text:
            return self._text(name, _fields(pa, values))
        if types.is_integer(kind) or types.is_boolean(kind) or types.is_floating(kind):
            numbers = np.asarray(values.to_numpy(zero_copy_only=False))
        elif types.is_timestamp(kind) and name == "time":
            numbers = np.asarray(values.cast(pa.int64()).to_numpy(zero_copy_only=False)) / SECOND[kind.unit]
        elif types.is_decimal(kind):
            numbers = np.asarray(values.cast(pa.float64()).to_numpy(zero_copy_only=False))
        else:
            raise TraceError(f"{self.source}: column {name}: holds {kind} values; {_wanted(name)} are wanted")
        if name == "namespace" and numbers.dtype.kind in "iu":
            return self._ids(name, numbers)
        return numbers.astype(np.float32) if numbers.dtype == np.float16 else numbers

    def _text(self, name: str, fields: Fields) -> Column:
        if name == "key":
            return fields.hashes()
        if name == "namespace" or name.startswith("feat_"):
            return self._ids(name, fields.hashes())
        if name == "op":
            ops = each_different(fields, lambda text: OPS.get(text.strip().lower(), 255)).astype(np.uint8)
            self.faults.among(ops == 255, lambda row: f", column op: {fields.text(row)!r} is not 0, 1, 2 or get, set, delete")
            return ops
        raise TraceError(f"{self.source}: column {name}: holds text; numbers are wanted")

    def _ids(self, name: str, labels: Column) -> Column:
        return self.groups.setdefault(name, Groups()).ids(labels)

    def _filled(self, name: str, values: Any) -> Any:
        """Zeros for nulls: what a ttl's null means, and in other columns what stands behind the fault."""
        kind, types = values.type, self.pa.types
        if types.is_null(kind):
            return self.pa.array([0] * len(values))
        if types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_decimal(kind):
            return values.fill_null(self.pa.scalar(0).cast(kind))
        return values  # what a null of another type stands on is never looked at


def _fields(pyarrow: Any, values: Any) -> Fields:
    """Strings and bytes of Arrow stand behind one another in one buffer, each with an offset."""
    large = values.cast(pyarrow.large_binary())
    _, offsets, data = large.buffers()
    ends = np.frombuffer(offsets, np.int64)[large.offset:large.offset + len(large) + 1]
    low, high = (int(ends[0]), int(ends[-1])) if len(ends) else (0, 0)
    padded = np.zeros(BEFORE + high - low + AFTER, np.uint8)
    if high > low:
        padded[BEFORE:BEFORE + high - low] = np.frombuffer(data, np.uint8)[low:high]
    places = ends - low + BEFORE
    return Fields(padded, places[:-1], places[1:])


def _wanted(name: str) -> str:
    if name == "key":
        return "integers or strings"
    return "numbers or timestamps" if name == "time" else "numbers"


