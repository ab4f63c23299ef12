"""A soak: very many random operations on one cache, whose memory must stay flat and whose structures must stay sound.

    python bench/soak.py [--operations N] [--policy P]... [--kind plain|expiring|learned]... [--size N] [--seed N]

Weights are random and change on overwrite; entries are deleted, popped, evicted, expired, resized away and cleared. The
cache is checked at intervals. After a warm-up in which it was once as large as it will ever be, and again at the end,
it is cleared and the memory is measured: resident set, and blocks that Python's allocator has given out. What differs by more than
the tolerance is a leak, and the exit code 1.

A loop of Python drives it, so whatever can be is drawn beforehand: operations, keys and weights come in lists from numpy; weighers and
clocks are written in C. Each reading of the clock is a second, so runs repeat.
"""
from __future__ import annotations

import argparse
import gc
import itertools
import os
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

import adaptcache
from adaptcache import Cache, Fixed, Learned

CHUNK = 1 << 16
KINDS: dict[str, Callable[[], dict[str, Any]]] = {
    "plain": dict,
    "expiring": lambda: {"expiry": Fixed(200_000), "timer": itertools.count().__next__},
    "learned": lambda: {"expiry": Learned(learner="manual", seed=1, memory_price=1e-7, miss_cost=1.0),
                        "timer": itertools.count().__next__},
}


@dataclass(frozen=True)
class Memory:
    """Resident bytes and blocks of Python's allocator, of a process whose cache was just cleared."""

    resident: int
    blocks: int

    @staticmethod
    def now() -> Memory:
        gc.collect()
        with open("/proc/self/statm") as statm:
            pages = int(statm.read().split()[1])
        return Memory(pages * resource.getpagesize(), sys.getallocatedblocks())

    def flat(self, later: Memory) -> bool:
        return later.resident <= self.resident * 1.05 + (4 << 20) and later.blocks <= self.blocks + 2000


def drawn(draw: np.random.Generator, size: int) -> tuple[list[int], list[int], list[int]]:
    """Operations, keys and weights of one chunk. Keys have a popular part and a long tail."""
    codes = draw.integers(0, 1000, CHUNK)
    keys = np.where(draw.random(CHUNK) < 0.7, draw.exponential(size / 20, CHUNK), draw.random(CHUNK) * size).astype(np.int64)
    weights = draw.integers(0, 16, CHUNK)
    return codes.tolist(), keys.tolist(), weights.tolist()


def chunk(cache: Cache[int, int], size: int, codes: list[int], keys: list[int], weights: list[int]) -> None:
    """One operation a row: nine in ten are requests that store on a miss."""
    get, put, pop = cache.get, cache.__setitem__, cache.pop
    for code, key, weight in zip(codes, keys, weights, strict=True):
        if code < 900:
            if get(key) is None:
                put(key, weight)
        elif code < 940:
            put(key, weight)            # of another weight, if it is held
        elif code < 970:
            pop(key, None)
        elif code < 975:
            cache.set(key, weight, ttl=weight * 1000.0) if cache.timer is not None else cache.setdefault(key, weight)
        elif code < 985:
            key in cache                # noqa: B015
        elif code < 998:
            if len(cache):
                cache.popitem()
        elif code < 999:
            cache.expire()
        elif weight == 0:
            cache.resize(size * (1 + key % 8) // 4)
        elif weight == 1 and key % 97 == 0:
            cache.clear()


def soak(policy: str, kind: str, operations: int, size: int, seed: int, checks: int = 50) -> bool:
    """Run, print a row, and say whether all is well. A damaged structure raises."""
    cache: Cache[int, int] = Cache(size, getsizeof=abs, policy=policy, **KINDS[kind]())
    draw = np.random.default_rng(seed)
    began = perf_counter()

    cache.resize(size * 2)              # the largest bound that `chunk` sets
    for key in range(size * 4):
        cache[key] = key % 16
    for _ in range(4):
        chunk(cache, size, *drawn(draw, size))
    cache.clear()
    before = Memory.now()

    chunks = max(1, operations // CHUNK)
    every = max(1, chunks // checks)
    for n in range(1, chunks + 1):
        chunk(cache, size, *drawn(draw, size))
        if n % every == 0 or n == chunks:
            cache._check()
    stats = cache.stats()
    cache.clear()
    after = Memory.now()
    flat = before.flat(after)
    print(f"{policy:10} {kind:9} {chunks * CHUNK:12,} ops {perf_counter() - began:8.1f} s  hits {stats.hits / (stats.hits + stats.misses):6.3f}"
          f"  evicted {stats.evictions:,} expired {stats.expirations:,}"
          f"  resident {before.resident >> 10:,} -> {after.resident >> 10:,} KiB  blocks {before.blocks:,} -> {after.blocks:,}"
          f"  {'flat' if flat else 'GROWS'}", flush=True)
    return flat


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--operations", type=int, default=100_000_000)
    parser.add_argument("--policy", action="append", choices=adaptcache.policies())
    parser.add_argument("--kind", action="append", choices=KINDS, help="plain and expiring; a learner by hand is far slower")
    parser.add_argument("--size", type=int, default=20_000, help="bound of the cache; it is resized between a quarter and twice that")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    print(f"Python {sys.version.split()[0]}, {os.uname().machine}, adaptcache {adaptcache.__version__}")
    rows = [soak(policy, kind, options.operations, options.size, options.seed)
            for policy in options.policy or adaptcache.policies() for kind in options.kind or ("plain", "expiring")]
    sys.exit(0 if all(rows) else 1)


if __name__ == "__main__":
    main()
