"""Arrays of the core as text and back, and what numbers each kind of them may hold.

Here is the one list of kinds on the Python side: their layout comes from the core (`_ext/state.pxi`), `CHECKS` says which
numbers the core could have written, `clipped` how much of a count it remembers, and `merging.MERGE` how two become one.
"""
from __future__ import annotations

import base64
import json
import sys
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptcache import _core

Array = NDArray[Any]

DTYPES: dict[str, np.dtype[Any]] = {name: np.dtype(described) for name, described in _core.KINDS.items()}
LAYOUT: dict[str, Any] = json.loads(json.dumps({**_core.layout(), "byteorder": sys.byteorder}))
ARRAYS: dict[str, tuple[str, int]] = {name: (kind, n) for name, (kind, n) in LAYOUT["arrays"].items()}
BINS: int = LAYOUT["bins"][0]
COUNTS: int = LAYOUT["contexts"][0]
STATICS = _core.SLOT_MULTIPLE
LARGEST = 1 << 28       # bytes of one array, unpacked
MOST = 1e15             # of anything that is counted


def as_bytes(array: Array) -> bytes:
    """As the core lays it out, with nothing but noughts between the fields."""
    out = np.zeros(array.shape, array.dtype)
    for name in array.dtype.names or ():
        out[name] = array[name]
    return out.tobytes()


def pack(array: Array) -> str:
    return base64.b64encode(zlib.compress(as_bytes(array), 6)).decode()


def unpack(text: Any, kind: str, n: int | None, dtype: np.dtype[Any] | None = None) -> Array:
    """`n` elements of a kind, or any number of them; never more than LARGEST bytes, whatever the text says.

    dtype: the layout of the kind, where it is not today's.
    """
    require(isinstance(text, str), f"{kind}: not packed")
    dtype = DTYPES[kind] if dtype is None else dtype
    size = dtype.itemsize
    most = LARGEST if n is None else n * size
    inflate = zlib.decompressobj()
    try:
        data = inflate.decompress(base64.b64decode(text, validate=True), most + 1)
    except zlib.error as error:
        raise ValueError(f"{kind}: {error}") from None
    require(inflate.eof and len(data) <= most and len(data) % size == 0 and n in (None, len(data) // size),
             f"{kind}: {len(data)} bytes do not fit")
    return np.frombuffer(data, dtype).copy()


def require(good: bool, what: str) -> None:
    if not good:
        raise ValueError(what)


def a_number(value: Any, low: float, high: float, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise ValueError(f"{name}: {value!r:.60} is not a number from {low:g} to {high:g}")
    return float(value)


def floats(value: Any, n: int, low: float, high: float, name: str) -> list[float]:
    require(isinstance(value, list) and len(value) == n, f"{name}: not {n} numbers")
    return [a_number(x, low, high, name) for x in value]


def checked(kind: str, array: Array, name: str) -> Array:
    """The array, if every number in it is one that the core could have written."""
    with np.errstate(invalid="ignore"):
        good = bool(CHECKS[kind](array))
    require(good, f"{name}: numbers out of range")
    return array


def _within(values: Array, low: float, high: float) -> bool:
    return bool(((values >= low) & (values <= high)).all())       # NaN is not


def _good_cells(c: Array) -> bool:
    return _within(c["p"], 0, 1) and _within(c["q"], 0, 1) and _within(c["p"] + c["q"], 0, 1.001) and _within(c["n"], 0, MOST)


def _good_hedges(h: Array) -> bool:
    return (_within(h["loss"], -MOST, MOST) and _within(h["round"], 0, MOST) and _within(h["lead"], -MOST, MOST)
            and all(_within(h[name], 0, MOST) for name in ("gap", "lead_gap", "labels", "pending"))
            and _within(h["weight"], 0, 1) and all(abs(total - 1) < 1e-6 or total == 0 for total in h["weight"].sum(axis=1)))


def _good_keys(k: Array) -> bool:
    return (_good_cells(k) and all(_within(k[name], 0, 1e9) for name in ("idle", "age")) and _within(k["size"], 0, 3e38)
            and _within(k["cost"], 0, 3e38) and _within(k["gap1"], 0, BINS) and _within(k["gap2"], 0, BINS)
            and _within(k["count"], 1, 255) and _within(k["base"], 0, BINS - 1) and _within(k["decayed"], 0, 3e38))


def _good_nodes(t: Array) -> bool:
    at = np.arange(len(t))
    inner = t["feature"] >= 0
    branch = t[inner]
    return (0 < len(t) < 1 << 16 and _within(branch["feature"], 0, _core.FEATURE_COUNT - 1)
            and bool(np.isfinite(branch["threshold"]).all())
            and all(bool((branch[side] > at[inner]).all()) and _within(branch[side], 0, len(t) - 1) for side in ("left", "right"))
            and _within(t["left"][~inner], 0, _core.LEAF_COUNT - 1))


def _good_priors(p: Array) -> bool:
    return (_within(p["share"], 0, 1) and all(abs(total - 1) < 1e-6 or not n for total, n in zip(p["share"].sum(axis=1), p["n"], strict=True))
            and all(_within(p[name], 0, MOST) for name in ("n", "shaken", "moved", "unmoved")))


def _good_changes(c: Array) -> bool:
    return (_within(c["evidence"], -1e6, 0)
            and all(_within(c[name], 0, MOST) for name in ("told", "reads", "seconds")))


# One entry a kind of array; `clipped` below and `merging.MERGE` are the other places that know kinds.
CHECKS: dict[str, Callable[[Array], bool]] = {
    "cell": _good_cells, "hedge": _good_hedges, "key": _good_keys, "node": _good_nodes,
    "code": lambda c: _within(c["mean"], 0, 1) and _within(c["n"], 0, MOST),
    "side": lambda c: _within(c["p"], 0, 1) and _within(c["n"], 0, MOST),
    "prior": _good_priors, "change": _good_changes,
    "risk": lambda r: _within(r["found"], 0, MOST) and _within(r["feared"], 0, MOST),
}


def clipped(kind: str, array: Array, memory: dict[str, float]) -> Array:
    """A copy whose counts are at most what the core remembers of this kind."""
    out = array.copy()
    if kind in ("cell", "code", "key", "side"):
        np.minimum(out["n"], memory[kind], out=out["n"])
    elif kind == "hedge":
        part = np.minimum(1, memory["hedge"] / np.maximum(out["labels"], 1e-300))
        out["loss"] *= part[:, None]
        for name in ("gap", "lead", "lead_gap", "labels"):
            out[name] *= part
        out["weight"][part < 1] = 0         # to be worked out from the losses
    elif kind == "risk":
        part = np.minimum(1, memory["risk"] / np.maximum(np.maximum(out["found"], out["feared"]), 1e-300))
        out["found"] *= part
        out["feared"] *= part
    elif kind == "prior":
        np.minimum(out["n"], memory["prior"], out=out["n"])
        part = np.minimum(1, memory["shaken"] / np.maximum(out["shaken"], 1e-300))
        for name in ("shaken", "moved", "unmoved"):
            out[name] *= part
    elif kind == "change":
        for count, names in (("told", ("evidence", "told")), ("reads", ("seconds", "reads"))):
            part = np.minimum(1, memory[count] / np.maximum(out[count], 1e-300))
            for name in names:
                out[name] *= part[:, None] if name == "evidence" else part
        np.maximum(out["evidence"], -80, out=out["evidence"])
    return out
