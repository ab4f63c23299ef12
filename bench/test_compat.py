"""`adaptcache.compat.cachetools` beside cachetools itself: the same class, the same operations. Caches hold 10,000 entries."""
from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from typing import Any

import cachetools
import numpy as np
import pytest

from adaptcache.compat import cachetools as ours

SIZE = 10_000
BATCH = 1_000

MADE: dict[str, Callable[[Any], Any]] = {
    "FIFOCache": lambda library: library.FIFOCache(SIZE),
    "LFUCache": lambda library: library.LFUCache(SIZE),
    "LRUCache": lambda library: library.LRUCache(SIZE),
    "RRCache": lambda library: library.RRCache(SIZE),
    "TTLCache": lambda library: library.TTLCache(SIZE, 3600),
    "LRUCache, popitem overridden": lambda library: listening(library)(SIZE),
}


def listening(library: Any) -> Any:
    class Listening(library.LRUCache):  # type: ignore[misc]
        def popitem(self) -> Any:
            return super().popitem()

    return Listening


def filled(library: Any, name: str) -> Any:
    cache = MADE[name](library)
    for number in range(SIZE):
        cache[f"user:{number}"] = number
    return cache


@pytest.mark.parametrize("name", MADE)
def test_get_hit(contest: Callable[..., Any], name: str) -> None:
    """`cache.get(key)` of a key that is held."""
    order = np.random.default_rng(1).permutation([f"user:{number}" for number in range(SIZE)]).tolist()
    asked = cycle(order)

    def hits(cache: Any) -> Callable[[list[str]], None]:
        get = cache.get

        def run(keys: list[str]) -> None:
            for key in keys:
                get(key)
        return run

    contest("compat: get hit", name, hits(filled(ours, name)), {"cachetools": hits(filled(cachetools, name))}, BATCH,
            prepare=lambda: [next(asked) for _ in range(BATCH)])


@pytest.mark.parametrize("name", MADE)
def test_set_with_eviction(contest: Callable[..., Any], name: str) -> None:
    """`cache[key] = value` of a new key in a full cache."""
    fresh = cycle([f"other:{number}" for number in range(4 * SIZE)])

    def sets(cache: Any) -> Callable[[list[str]], None]:
        def run(keys: list[str]) -> None:
            for key in keys:
                cache[key] = key
        return run

    mine = filled(ours, name)
    contest("compat: set with eviction", name, sets(mine), {"cachetools": sets(filled(cachetools, name))}, BATCH,
            prepare=lambda: [next(fresh) for _ in range(BATCH)])
    assert len(mine) == SIZE
