"""A trace: what a cache was asked, row by row, as columns of equal length.

This file knows neither file formats nor policies. It says what each column means and refuses a trace
whose columns do not mean it, naming the row and the column.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from adaptcache.errors import TraceError

Column = NDArray[Any]

GET: Final = 0
SET: Final = 1
DELETE: Final = 2

# What each column is stored as, and what it has to be.
DTYPES: Final[dict[str, type[np.generic]]] = {
    "key": np.uint32, "time": np.float64, "size": np.float64, "op": np.uint8, "ttl": np.float64,
    "version": np.uint32, "namespace": np.uint32, "cost": np.float64,
}


class Problem(NamedTuple):
    """The first thing wrong with a set of columns; `row` is None where a whole column is wrong."""

    row: int | None
    column: str
    says: str


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of a trace that is streamed. Columns are as in a Trace, but for the key.

    first   number of the first of these rows in the trace
    key     uint64: a hash of the key, the same in every chunk, file format, process and machine; equal keys have
            equal hashes, and different integers always different ones
    """

    first: int
    key: Column
    time: Column | None = None
    size: Column | None = None
    op: Column | None = None
    ttl: Column | None = None
    version: Column | None = None
    namespace: Column | None = None
    features: Mapping[str, Column] = field(default_factory=dict)
    cost: Column | None = None

    def __len__(self) -> int:
        return len(self.key)


@dataclass(frozen=True, eq=False)
class Trace:
    """N requests in the order in which they were made. Every column is one-dimensional, of length N and
    C-contiguous; a column that is None was not recorded.

    name        what reports call the trace
    key         uint32  dense ids: the first key is 0, each new key is the next number
    n_keys              how many different keys there are
    time        float64 seconds since any fixed moment, finite, never falling
    size        float64 size of the value (bytes), finite, not negative
    op          uint8   0 get, 1 set, 2 delete; None: every row is a get
    ttl         float64 seconds of validity that the application gave with the row, 0 for none
    version     uint32  version of the key's value at its source at that moment; a copy that was fetched
                        under another version of the same key is stale
    namespace   uint32  the group whose keys behave alike (table, route, tenant)
    features    name -> column. An integer column holds category ids, a float32 column holds numbers
    cost        float64 cost of a miss of this very request, finite, not negative
    left_out    what the file held besides these rows -> how often (commands that are no cache traffic, say)

    Columns of another type that hold the same values (lists, int64 keys) are converted.
    """

    name: str
    key: Column
    n_keys: int
    time: Column | None = None
    size: Column | None = None
    op: Column | None = None
    ttl: Column | None = None
    version: Column | None = None
    namespace: Column | None = None
    features: Mapping[str, Column] = field(default_factory=dict)
    cost: Column | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        columns: dict[str, Column] = {}
        for name in DTYPES:
            values = getattr(self, name)
            if values is not None:
                columns[name] = np.asarray(values)
        columns |= {f"feat_{name}": np.asarray(values) for name, values in self.features.items()}
        found = problem(columns)
        if found is None and not is_dense(columns["key"]):
            found = Problem(None, "key", "the ids are not dense by first appearance; "
                                         "adaptcache.simulate.trace.dense(key) makes them so")
        if found is None and self.n_keys != int(columns["key"].max()) + 1:
            found = Problem(None, "key", f"n_keys is {self.n_keys}, the column has "
                                         f"{int(columns['key'].max()) + 1} different keys")
        if found is not None:
            where = "" if found.row is None else f"row {found.row}, "
            raise TraceError(f"{self.name}: {where}column {found.column}: {found.says}")
        for name, dtype in DTYPES.items():
            if name in columns:
                object.__setattr__(self, name, np.ascontiguousarray(columns[name], dtype=dtype))
        object.__setattr__(self, "features", {
            name: feature(columns[f"feat_{name}"]) for name in self.features
        })

    def __len__(self) -> int:
        return len(self.key)

    def head(self, rows: int) -> Trace:
        """The first `rows` requests as a trace of their own."""
        if rows >= len(self):
            return self
        cut = {name: getattr(self, name)[:rows] for name in DTYPES if getattr(self, name) is not None}
        features = {name: values[:rows] for name, values in self.features.items()}
        return replace(self, n_keys=int(cut["key"].max()) + 1, features=features, **cut)


def of_columns(name: str, columns: Mapping[str, Column], left_out: Mapping[str, int]) -> Trace:
    """A trace of columns as readers have them: keys and namespaces any integers, features as `feat_NAME`."""
    rest: dict[str, Any] = dict(columns)
    key = dense(rest.pop("key"))
    features = {column.removeprefix("feat_"): feature(rest.pop(column)) for column in list(rest) if column.startswith("feat_")}
    if "namespace" in rest and not is_dense(rest["namespace"]):
        rest["namespace"] = dense(rest["namespace"])
    return Trace(name=name, key=key, n_keys=int(key.max()) + 1, features=features, left_out=dict(left_out), **rest)


def dense(values: ArrayLike) -> Column:
    """Ids by first appearance (uint32) for any column of numbers or strings."""
    values = np.asarray(values)
    if values.dtype.kind in "iu" and is_dense(values):
        return np.ascontiguousarray(values, dtype=np.uint32)
    return numbered(values)[0]


def numbered(values: Column) -> tuple[Column, Column]:
    """Ids by first appearance (uint32), and the row in which each id appears first."""
    rows = len(values)
    if values.dtype.kind not in "iu" or rows == 0:
        _, inverse = np.unique(values, return_inverse=True)
        return _by_first(np.argsort(inverse, kind="stable"), np.cumsum(np.bincount(inverse))[:-1], rows)
    # Sorting words is far faster than sorting rows by them, so each word holds what is random of a value in
    # its upper bits and the row in the lower.
    bits = np.uint64(max(rows - 1, 1).bit_length())
    words = mix(values) >> bits << bits
    words |= np.arange(rows, dtype=np.uint64)
    words.sort()
    order = (words & ((np.uint64(1) << bits) - np.uint64(1))).astype(np.int64)
    words >>= bits
    held = values[order]
    other = held[1:] != held[:-1]
    alike = words[1:] == words[:-1]
    if (other & alike).any():  # different values that are the same in the upper bits
        group = np.concatenate(([0], np.cumsum(~alike)))
        mixed = np.isin(group, group[1:][other & alike])
        order[mixed] = order[mixed][np.lexsort((order[mixed], held[mixed], group[mixed]))]
        held = values[order]
        other = held[1:] != held[:-1]
    return _by_first(order, np.flatnonzero(other) + 1, rows)


def _by_first(order: Column, starts: Column, rows: int) -> tuple[Column, Column]:
    """Rows grouped by value, each group from its earliest row on; `starts` are where the second and later groups begin."""
    starts = np.concatenate(([0], starts)).astype(np.int64) if rows else np.zeros(0, np.int64)
    first = order[starts]
    is_first = np.zeros(rows, np.uint32)
    is_first[first] = 1
    ids = np.empty(rows, np.uint32)
    ids[order] = np.repeat(np.cumsum(is_first, dtype=np.uint32)[first] - np.uint32(1), np.diff(starts, append=rows))
    return ids, np.flatnonzero(is_first)


def mix(values: Column) -> Column:
    """Integers as uint64 that look random; different ones stay different (the end of splitmix64)."""
    mixed = (values.astype(np.int64) if values.dtype.kind == "i" else values).astype(np.uint64)
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def is_dense(ids: Column) -> bool:
    """Is every id at most one more than all before it, starting from 0?"""
    if len(ids) == 0:
        return True
    if ids[0] != 0 or ids.min() < 0 or ids.max() >= len(ids):
        return False  # also what would not fit the type below
    seen = np.maximum.accumulate(ids).astype(np.int64)
    return bool(np.all(np.diff(seen) <= 1))


def feature(values: Column) -> Column:
    """A feature column as it is kept: integers are categories, everything else a float32 number."""
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    return np.ascontiguousarray(values, dtype=None if values.dtype.kind in "iu" else np.float32)


def problem(columns: Mapping[str, Column]) -> Problem | None:
    """The first thing wrong with these columns (of any numeric type), or None."""
    found = mismatch(columns)
    if found is not None:
        return found
    wrong = (_values(name, values) for name, values in columns.items())
    return next((found for found in wrong if found is not None), None)


def mismatch(columns: Mapping[str, Column]) -> Problem | None:
    """The first thing wrong with the types and shapes of these columns; their values are not looked at."""
    if "key" not in columns:
        return Problem(None, "key", f"missing; every trace needs it (found: {', '.join(columns) or 'nothing'})")
    rows = columns["key"].size
    if rows == 0:
        return Problem(None, "key", "empty; a trace needs at least one request")
    for name, values in columns.items():
        wrong = _kind(name, values, rows)
        if wrong is not None:
            return wrong
    return None


def _kind(name: str, values: Column, rows: int) -> Problem | None:
    integral = DTYPES.get(name, np.float64) is not np.float64
    allowed = "iu" if integral else "iufb"
    if values.dtype.kind not in allowed:
        wanted = "integers" if integral else "numbers"
        return Problem(None, name, f"holds {values.dtype} values; {wanted} are wanted")
    if values.ndim != 1:
        return Problem(None, name, f"has the shape {values.shape}; one dimension is wanted")
    if len(values) != rows:
        return Problem(None, name, f"has {len(values):,} rows, key has {rows:,}; they must be equal")
    return None


def _values(name: str, values: Column) -> Problem | None:
    if values.dtype.kind == "f":
        wrong = _first(~np.isfinite(values))
        if wrong is not None:
            cure = "; write -1 or another number of your own for 'unknown'" if name.startswith("feat_") else ""
            return Problem(wrong, name, f"{values[wrong]} is not a finite number{cure}")
        if name.startswith("feat_"):
            wrong = _first(np.abs(values) > np.finfo(np.float32).max)
            if wrong is not None:
                return Problem(wrong, name, f"{values[wrong]} does not fit a float32")
    if name == "time":
        fell = _first(values[1:] < values[:-1])
        if fell is not None:
            return Problem(fell + 1, name, f"time goes back from {values[fell]} to {values[fell + 1]}; "
                                           "rows must be in order of time")
    elif name == "op":
        wrong = _first((values < GET) | (values > DELETE))
        if wrong is not None:
            return Problem(wrong, name, f"{values[wrong]} is no operation; 0 get, 1 set, 2 delete")
    elif name in DTYPES:
        wrong = _first(values < 0)
        if wrong is not None:
            return Problem(wrong, name, f"{values[wrong]} is negative; it must be 0 or more")
        if DTYPES[name] is np.uint32:
            wrong = _first(values > np.iinfo(np.uint32).max)
            if wrong is not None:
                return Problem(wrong, name, f"{values[wrong]} is too large; at most {np.iinfo(np.uint32).max}")
    return None


def _first(mask: Column) -> int | None:
    """The first true row."""
    return int(mask.argmax()) if mask.any() else None
