"""`sizeof`: how many bytes an entry holds, key and value and all that only they refer to.

A weigher for `Cache(max_bytes, getsizeof=adaptcache.sizeof)`. It asks Python, object by object; it knows no type of
its own but arrays, whose memory Python does not see.
"""
from __future__ import annotations

import gc
import sys
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    ModuleType,
)
from typing import Any

import numpy as np

# Of which there is one for everybody: held whether this entry is or not.
_SHARED = (type, ModuleType, FunctionType, BuiltinFunctionType, CodeType, GetSetDescriptorType, MemberDescriptorType,
           type(None), bool, type(...), type(NotImplemented))


def sizeof(*objects: Any) -> int:
    """Bytes of these objects and of everything that can be reached from them, each counted once.

    As a weigher it is asked for the key and the value together, so that the bound of the cache is one of memory:
    `Cache(64 << 20, getsizeof=adaptcache.sizeof)` holds entries of at most 64 MiB. What the cache itself takes for an entry
    is not in it (docs/performance.md has that).

    Counted are `sys.getsizeof` of each object, found by `gc.get_referents`; numpy arrays with the memory behind a view and
    the objects in them. Not counted are what everybody shares (classes, modules, functions, None, bools), and memory that
    an extension type keeps without saying so in `__sizeof__`. What two entries share is counted with both. The time it
    takes grows with the number of objects; it is asked when an entry is stored, and later changes are not seen.
    """
    seen: set[int] = set()
    todo = list(objects)
    total = 0
    while todo:
        it = todo.pop()
        if id(it) in seen or isinstance(it, _SHARED):
            continue
        seen.add(id(it))
        total += sys.getsizeof(it)
        if isinstance(it, np.ndarray):
            if it.base is not None:
                todo.append(it.base)
            if it.dtype.hasobject:
                todo.extend(it.flat)
        else:
            todo.extend(gc.get_referents(it))
            if isinstance(it, dict):
                todo.extend(dict.keys(it))      # the collector, which asks for cycles, does not look at keys that are str
    return total


sizeof.with_key = True  # type: ignore[attr-defined]
