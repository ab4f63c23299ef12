"""Other libraries' caches, asked through their own Python API: what a user would get by installing them instead.

Each is named LIBRARY or LIBRARY:POLICY. A miss of a get stores the key with a small value, as `PolicyReplay` does, and
nothing expires. What they hold is a matter of theirs: moka works off its insertions in batches, by number and by the clock,
so a small one holds more than its bound for a while. theine and moka draw by chance or by the clock, where no seed of ours
reaches: a number of seeds is a number of repetitions there.

This file knows neither traces nor results; it imports a library when it is asked for.
"""
from __future__ import annotations

import random
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from adaptcache.errors import TraceError
from adaptcache.simulate.extras import MissingExtra


class Rival(NamedTuple):
    """One cache at work. `ask`: a get that inserts on a miss, and whether it was a hit."""

    ask: Callable[[int], bool]
    put: Callable[[int], object] | None = None      # None: it cannot be told to
    drop: Callable[[int], object] | None = None
    close: Callable[[], object] | None = None


class RivalReplay:
    """As `_core.PolicyReplay`, row by row in Python. MissingExtra where the library is not installed."""

    ways: Final = None  # what it decides by, it does not tell

    def __init__(self, policy: str, capacity: int, seed: int = 0) -> None:
        self.policy = policy
        self.requests = self.hits = 0
        self.bytes_requested = self.bytes_hit = self.cost_requested = self.cost_missed = 0.0
        library, make = RIVALS[policy]
        try:
            module = import_module(library)
        except ModuleNotFoundError as error:
            package = PACKAGES.get(library, library)
            raise MissingExtra(f"the policy {policy} runs the package {package}, which is not installed; "
                               f"pip install {package} brings it", name=error.name) from error
        self._rival = make(module, capacity, seed)

    def run(self, key: NDArray[Any], size: NDArray[Any] | None, op: NDArray[Any] | None, next_use: NDArray[Any] | None,
            start: int, stop: int, cost: NDArray[Any] | None = None) -> None:
        """The next rows, start to stop - 1."""
        rows = slice(start, stop)
        keys = key[rows].tolist()
        if op is None:
            hit = np.fromiter(map(self._rival.ask, keys), np.bool_, len(keys))
            get = np.ones(len(keys), np.bool_)
        else:
            hit = np.fromiter(map(self._do, keys, op[rows].tolist()), np.bool_, len(keys))
            get = op[rows] == 0
        self.requests += int(get.sum())
        self.hits += int(hit.sum())
        sizes = np.ones(len(keys)) if size is None else size[rows]
        self.bytes_requested += float(sizes[get].sum())
        self.bytes_hit += float(sizes[hit].sum())
        if cost is not None:
            self.cost_requested += float(cost[rows][get].sum())
            self.cost_missed += float(cost[rows][get & ~hit].sum())

    def close(self) -> None:
        """It is not asked again. Some hold a thread until they are told."""
        if self._rival.close is not None:
            self._rival.close()

    def _do(self, key: int, op: int) -> bool:
        if op == 0:
            return self._rival.ask(key)
        verb = self._rival.put if op == 1 else self._rival.drop
        if verb is None:
            raise TraceError(f"the policy {self.policy} has no way to {'store' if op == 1 else 'delete'} one key; "
                             "without --ops every row counts as a get")
        verb(key)
        return False


def _mapping(cache: Any) -> Rival:
    """A cache that is a dict with losses: cachetools, cachebox."""
    get, put, drop = cache.get, cache.__setitem__, cache.pop

    def ask(key: int) -> bool:
        if get(key) is not None:
            return True
        put(key, True)
        return False

    return Rival(ask, lambda key: put(key, True), lambda key: drop(key, None))


def _random(module: Any, capacity: int, seed: int) -> Rival:
    return _mapping(module.RRCache(capacity, choice=random.Random(seed).choice))


def _theine(module: Any, capacity: int, seed: int) -> Rival:
    cache = module.Cache(capacity)

    def ask(key: int) -> bool:
        if cache.get(key)[1]:
            return True
        cache.set(key, True)
        return False

    return Rival(ask, lambda key: cache.set(key, True), cache.delete, cache.close)


def _moka(policy: str) -> Callable[[Any, int, int], Rival]:
    def make(module: Any, capacity: int, seed: int) -> Rival:
        cache = module.Moka(capacity, policy=policy)

        def ask(key: int) -> bool:
            if cache.get(key) is not None:
                return True
            cache.set(key, True)
            return False

        return Rival(ask, lambda key: cache.set(key, True), cache.remove)

    return make


def _functools(module: Any, capacity: int, seed: int) -> Rival:
    missed = False

    def miss(key: int) -> None:
        nonlocal missed
        missed = True

    load = module.lru_cache(maxsize=capacity)(miss)

    def ask(key: int) -> bool:
        nonlocal missed
        missed = False
        load(key)
        return not missed

    return Rival(ask)


def _of(name: str) -> Callable[[Any, int, int], Rival]:
    return lambda module, capacity, seed: _mapping(getattr(module, name)(capacity))


# name -> the module, and how a cache of it is made
RIVALS: Final[dict[str, tuple[str, Callable[[Any, int, int], Rival]]]] = {
    "cachetools:lru": ("cachetools", _of("LRUCache")), "cachetools:lfu": ("cachetools", _of("LFUCache")),
    "cachetools:fifo": ("cachetools", _of("FIFOCache")), "cachetools:rr": ("cachetools", _random),
    "cachebox:lru": ("cachebox", _of("LRUCache")), "cachebox:lfu": ("cachebox", _of("LFUCache")),
    "cachebox:fifo": ("cachebox", _of("FIFOCache")),
    "theine": ("theine", _theine), "moka": ("moka_py", _moka("tiny_lfu")), "moka:lru": ("moka_py", _moka("lru")),
    "functools": ("functools", _functools),
}
PACKAGES: Final = {"moka_py": "moka-py"}    # where a module is not named as its package is
BY_CHANCE: Final = frozenset({"cachetools:rr", "theine", "moka", "moka:lru"})
