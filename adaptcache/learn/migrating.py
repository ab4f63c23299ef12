"""Documents of earlier formats, made into one of today's; the parts that they lack are empty.

Format 2 knew neither the stack nor how values change, and of a key no decayed counts.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from adaptcache.learn.packing import ARRAYS, DTYPES, LAYOUT, pack, require, unpack

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
