"""Copies and pickles of a cache: what travels, and how it becomes a cache again.

A state is a dict of plain values, options and entries. It holds everything but locks, threads, loads in the air, counters, logs and
the guard's books, which are made anew (docs/state.md says why of the last). This file does not know how a cache is built from
it: that is `Cache._revive`.
"""
from __future__ import annotations

import copyreg
import pickle
import threading
from copy import copy, deepcopy
from dataclasses import replace
from typing import Any

from adaptcache import expiry as expiries
from adaptcache.expiry import Learned

_ARGUMENTS = ("getsizeof", "timer", "on_removal", "expiry")

_asked = threading.local()      # caches whose arguments are being tried out at this moment


def reduced(cache: Any, protocol: Any) -> Any:
    """What `__reduce_ex__` returns."""
    trying = _asked.__dict__.setdefault("ids", set())
    if id(cache) in trying:
        return dict, ()         # an argument that refers to its cache; this pickle is thrown away
    state = cache._portrait(lasting=True)
    trying.add(id(cache))
    try:
        for name in _ARGUMENTS:
            _try(name, state[name], protocol)
    finally:
        trying.discard(id(cache))
    return copyreg.__newobj__, (type(cache),), (state, cache.__getstate__()), None, None, become  # type: ignore[attr-defined]


def _try(name: str, given: Any, protocol: Any) -> None:
    """A pickle that fails says which argument it was; the pickler itself would name a function and no more."""
    try:
        pickle.dumps(given, protocol)
    except Exception as error:      # a pickle may raise anything
        raise TypeError(f"{name}: {given!r:.200} cannot be pickled, and so neither can the cache: {error}") from error


def _blank(cls: Any) -> Any:
    return cls.__new__(cls)


def become(cache: Any, states: tuple[dict[str, Any], Any]) -> None:
    """Make a cache that was only allocated one of this state."""
    state, own = states
    cache._revive(state)
    cache.__setstate__(own)


def copied(cache: Any) -> Any:
    """A cache of its own with the same keys, values and attributes."""
    new = _blank(type(cache))
    state = cache._portrait(lasting=False)
    spec = state["expiry"]
    if isinstance(spec, Learned) and expiries.models(spec):
        state["expiry"] = replace(spec, predictors=deepcopy(spec.predictors))     # two learners cannot train one model
    become(new, (state, copy(cache.__getstate__())))
    return new


def deepcopied(cache: Any, memo: dict[int, Any]) -> Any:
    """A cache of its own with copies of the keys, values, arguments and attributes."""
    memo[id(cache)] = new = _blank(type(cache))
    become(new, deepcopy((cache._portrait(lasting=False), cache.__getstate__()), memo))
    return new
