"""Threads that hammer one cache, beside one thread that does all of the work.

Under the interpreter lock two threads can be no faster than one; below one, switching costs more than it must, since
somebody holds a lock while waiting for another. Both sides start and join their threads.
"""
from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import cachebox
import numpy as np
import pytest

from adaptcache import Cache, Fixed, Learned

SIZE = 10_000
REQUESTS = 200_000
# A dict shows what the interpreter lock itself costs: its owners trade places, and with them what lies in each processor's cache.
FLOORS: dict[str, Callable[[], Any]] = {"dict": dict, "cachebox LRU": lambda: cachebox.LRUCache(SIZE)}
OURS: dict[str, dict[str, Any]] = {
    "lru": {"policy": "lru"}, "default": {}, "Fixed": {"expiry": Fixed(3600.0)}, "Learned": {"expiry": Learned(seed=1)}}


def share(cache: Any, keys: list[str], threads: int) -> None:
    """Get, or store on a miss, so many keys in so many threads."""

    def work(part: list[str]) -> None:
        get = cache.get
        for key in part:
            if get(key) is None:
                cache[key] = key

    # Each has a row of neighbours: two that took every other key would fetch the memory of all of them twice.
    size = len(keys) // threads
    workers = [threading.Thread(target=work, args=(keys[n * size:(n + 1) * size],)) for n in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


@pytest.mark.parametrize("threads", [2, 4])
@pytest.mark.parametrize("name", [*OURS, *FLOORS])
def test_threads_share_one_cache(contest: Callable[..., Any], name: str, threads: int) -> None:
    """Zipf requests, one in five a miss that evicts: time of so many threads / one thread; 1.05 is 0.95 of its throughput."""
    cache = FLOORS[name]() if name in FLOORS else Cache(SIZE, **OURS[name])
    ranks = np.random.default_rng(1).zipf(1.1, REQUESTS) % (10 * SIZE)
    keys = [f"user:{rank}" for rank in ranks.tolist()]
    share(cache, keys, 1)
    contest("threads on one cache", f"{name}, {threads} threads", lambda: share(cache, keys, threads),
            {"one thread": lambda: share(cache, keys, 1)}, REQUESTS, rounds=31,
            aims={} if name in FLOORS or threads > 2 else {"one thread": 1 / 0.95})
