"""Does a cache get slower as it grows? Time of an operation over that of a dict of the same size, at 10^3, 10^5 and 10^7 entries.

    make bench-scale                        or: python bench/scale.py --sizes 1000,100000 --policies lru,sieve

hit     `cache.get(key)` of keys that are held, at random, against `dict.get`
set     `cache[key] = value` of a key that is not held, into a full cache, against a dict that stores one and drops one

A dict gets slower as well, since what is asked for lies ever further from the processor; so the ratio is what should not
grow. Keys are ints, far apart. Ours and the dict take turns in rounds of one thousand operations; medians of the rounds. The largest
size takes 3 GB.

Prints markdown.
"""
from __future__ import annotations

import argparse
import gc
import platform
import time
from collections.abc import Callable, Iterator
from itertools import count, islice
from statistics import median
from typing import Any

import numpy as np

from adaptcache import Cache, __version__

BATCH = 1000
ROUNDS = 301


Work = Callable[[list[int], list[int]], None]


def scattered(number: int) -> int:
    """A dict lays consecutive ints side by side, which no real keys are."""
    return (number * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFF


def hits(held: Any) -> Work:
    get = held.get

    def run(keys: list[int], _: list[int]) -> None:
        for key in keys:
            get(key)
    return run


def sets(cache: Any) -> Work:
    def run(keys: list[int], _: list[int]) -> None:
        for key in keys:
            cache[key] = key
    return run


def swaps(held: dict[int, int]) -> Work:
    """Of a dict: one in, the oldest out."""
    def run(keys: list[int], oldest: list[int]) -> None:
        for key, old in zip(keys, oldest, strict=True):
            held[key] = key
            del held[old]
    return run


def turns(calls: dict[str, Work], batches: Callable[[], tuple[list[int], list[int]]]) -> dict[str, float]:
    """Nanoseconds an operation, by name, and the ratio of each to the dict's."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for at in range(ROUNDS + 20):
        keys, oldest = batches()
        for name in names[at % len(names):] + names[:at % len(names)]:
            began = time.perf_counter()
            calls[name](keys, oldest)
            if at >= 20:
                times[name].append((time.perf_counter() - began) / BATCH * 1e9)
    return {name: median(one / floor for one, floor in zip(taken, times["dict"], strict=True))
            for name, taken in times.items() if name != "dict"} | {"dict": median(times["dict"])}


def _swap(first: int, fresh: Iterator[int], size: int) -> tuple[list[int], list[int]]:
    numbers = [first, *islice(fresh, BATCH - 1)]
    return list(map(scattered, numbers)), [scattered(number - size) for number in numbers]


def measured(size: int, policies: list[str]) -> dict[str, tuple[float, float]]:
    """Ratios of a hit and of a set, by policy; under "dict" its own nanoseconds."""
    rng = np.random.default_rng(1)
    keys = list(map(scattered, range(size)))
    plain = dict(zip(keys, keys, strict=True))
    found: dict[str, tuple[float, float]] = {}
    for policy in policies:
        cache: Cache[int, int] = Cache(size, policy=policy)
        for key in keys:
            cache[key] = key
        gc.collect()
        gc.freeze()                         # tens of millions of references: the collector is not what is measured
        hit = turns({"ours": hits(cache), "dict": hits(plain)},
                    lambda: ([keys[at] for at in rng.integers(0, size, BATCH).tolist()], []))
        swapped, fresh = dict(plain), count(size)
        stored = turns({"ours": sets(cache), "dict": swaps(swapped)}, lambda fresh=fresh: _swap(next(fresh), fresh, size))
        assert len(cache) == size
        found[policy] = hit["ours"], stored["ours"]
        found["dict"] = hit["dict"], stored["dict"]
        del cache, swapped
        gc.unfreeze()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", default="1000,100000,10000000")
    parser.add_argument("--policies", default="lru,sieve,wtinylfu")
    args = parser.parse_args()
    sizes = [int(size) for size in args.sizes.split(",")]
    policies = args.policies.split(",")
    print(f"adaptcache {__version__}, CPython {platform.python_version()}, {platform.machine()}")
    tables = {size: measured(size, policies) for size in sizes}
    print("\n| operation | policy | " + " | ".join(f"{size:,}" for size in sizes) + " |\n|---|---|" + "---:|" * len(sizes))
    for at, operation in enumerate(("hit", "set with eviction")):
        for policy in policies:
            print(f"| {operation} | {policy} | " + " | ".join(f"{tables[size][policy][at]:.2f}" for size in sizes) + " |")
        print(f"| {operation} | dict, ns | " + " | ".join(f"{tables[size]['dict'][at]:.0f}" for size in sizes) + " |")


if __name__ == "__main__":
    main()
