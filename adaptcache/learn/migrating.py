"""Documents of earlier formats, made into one of today's; the parts that they lack are empty.

Format 2 knew neither the stack nor how values change, and of a key no decayed counts. Format 3 held rates of change as Gamma
distributions.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from adaptcache.learn.packing import ARRAYS, DTYPES, LAYOUT, Array, pack, require, unpack

_WIDTH = LAYOUT["bins"][2]
KEY_2 = np.dtype([
    ("hash", "i8"), ("idle", "f8"), ("age", "f8"), ("size", "f4"), ("cost", "f4"), ("namespace", "u4"), ("gap1", "u1"),
    ("gap2", "u1"), ("count", "u1"), ("base", "u1"), *((name, "f4", (_WIDTH,)) for name in ("p", "q", "n"))])
_NEW_KINDS, _NEW_PARTS = ("side", "prior", "risk", "change"), ("stack", "changes")


def _layout_2() -> dict[str, Any]:
    """What a file of format 2 says of its bytes, where they mean what today's do."""
    kinds = {name: kind for name, kind in LAYOUT["kinds"].items() if name not in _NEW_KINDS}
    kinds["key"] = {
        "names": list(KEY_2.names or ()), "itemsize": KEY_2.itemsize,
        "formats": ["i8", "f8", "f8", "f4", "f4", "u4", "u1", "u1", "u1", "u1", *[f"({_WIDTH},)f4"] * 3],
        "offsets": [KEY_2.fields[name][1] for name in KEY_2.names or ()] if KEY_2.fields else [],
    }
    arrays = {name: array for name, array in LAYOUT["arrays"].items() if name != "sides"}
    kept = {name: part for name, part in LAYOUT.items() if name not in _NEW_PARTS}
    return {**kept, "version": 1, "kinds": kinds, "arrays": arrays}


LAYOUT_2 = _layout_2()


def from_2(document: Any) -> dict[str, Any]:
    """Today's document of what one of format 2 says; ValueError where that was written by another engine or machine.

    What it says is not looked at but where it is changed; `knowledge.read` does that.
    """
    for name, mine in LAYOUT_2.items():
        require(document["layout"].get(name) == mine,
                f"written by another version or on another kind of machine ({name} differs); learn anew")
    old = unpack(document["keys"], "key", None, KEY_2)
    keys = np.zeros(len(old), DTYPES["key"])
    for name in KEY_2.names or ():
        keys[name] = old[name]
    kind, n = ARRAYS["sides"]
    return {
        **document, "layout": LAYOUT, "keys": pack(keys),
        "arrays": {**document["arrays"], "sides": pack(np.zeros(n, DTYPES[kind]))},
        "namespaces": [[label, cells, hedges, labels, code, None] for label, cells, hedges, labels, code in document["namespaces"]],
        "stack": None, "fresh": None,
    }


# -- format 3: rates of change were Gamma distributions

_CLASSES = LAYOUT["changes"][2]
_RATES = 4.0 ** (np.arange(LAYOUT["changes"][1]) - 16)
PRIOR_3 = np.dtype([(name, "f8") for name in ("log_a", "log_b", "g_a", "g_b", "n")])
CHANGE_3 = np.dtype([("hash", "i8"), *((name, "f8") for name in ("a", "b", "told", "reads", "seconds")), ("namespace", "u4")])
_TRUST = 20.0       # keys that a prior of format 3 is taken for: it was of another shape


def _described(dtype: np.dtype[Any]) -> dict[str, Any]:
    names = list(dtype.names or ())
    fields: Mapping[str, Any] = dtype.fields or {}
    return {"names": names, "formats": [fields[name][0].str.lstrip("<>|=") for name in names],
            "offsets": [fields[name][1] for name in names], "itemsize": dtype.itemsize}


LAYOUT_3 = {**LAYOUT, "kinds": {**LAYOUT["kinds"], "prior": _described(PRIOR_3), "change": _described(CHANGE_3)},
            "changes": LAYOUT["changes"][:1]}


def from_3(document: Any) -> dict[str, Any]:
    """Today's document of what one of format 3 says; ValueError where that was written by another engine or machine.

    A Gamma distribution of rates becomes chances of today's classes of rates. Nothing was known of keys that
    change with every load, nor of changes that come together. What audits had found is left out: reloads tell now.
    """
    for name, mine in LAYOUT_3.items():
        require(document["layout"].get(name) == mine,
                f"written by another version or on another kind of machine ({name} differs); learn anew")
    fresh = document["fresh"]
    if fresh is not None:
        keys = unpack(fresh["keys"], "change", None, CHANGE_3)
        fresh = {**fresh, "numbers": {**fresh["numbers"], "found": 0.0, "feared": 0.0},
                 "priors": _priors(fresh["priors"], 2), "keys": pack(_changes(keys))}
    return {
        **document, "layout": LAYOUT, "fresh": fresh,
        "namespaces": [[*row[:5], None if row[5] is None else _priors(row[5], 1)] for row in document["namespaces"]],
    }


def _priors(packed: Any, n: int) -> str:
    old = unpack(packed, "prior", n, PRIOR_3)
    require(bool((np.isfinite(old["log_a"]) & (abs(old["log_a"]) <= 4) & np.isfinite(old["log_b"]) & (abs(old["log_b"]) <= 25)
                  & (old["n"] >= 0)).all()), "priors: numbers out of range")
    new = np.zeros(n, DTYPES["prior"])
    # The density of a rate's logarithm, at each class.
    log_share = np.exp(old["log_a"])[:, None] * np.log(_RATES) - np.exp(old["log_b"])[:, None] * _RATES
    share = np.exp(log_share - log_share.max(axis=1, keepdims=True)) + 1e-4
    new["share"][:, :-1] = share
    new["share"][:, -1] = 1e-2
    new["share"] /= new["share"].sum(axis=1, keepdims=True)
    new["n"] = np.minimum(old["n"], _TRUST)
    return pack(new)


def _changes(old: Array) -> Array:
    require(bool((np.isfinite(old["a"]) & np.isfinite(old["b"])).all()), "changes: numbers out of range")
    new = np.zeros(len(old), DTYPES["change"])
    for name in ("hash", "told", "reads", "seconds", "namespace"):
        new[name] = old[name]
    evidence = old["a"][:, None] * np.log(_RATES) - old["b"][:, None] * _RATES
    evidence = np.concatenate([evidence, evidence[:, -1:]], axis=1)
    new["evidence"] = np.maximum(evidence - evidence.max(axis=1, keepdims=True), -80)
    return new
