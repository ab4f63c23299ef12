"""What learning costs a process: time on a hit, memory of entries and of keys, and the share of a core.

    make bench-overhead                     or: python bench/overhead.py --only hit,share

hit       A hit of a cache under `expiry=Learned()` and of one without an expiry, in turns, in one run, while the learner's thread
          works; `Fixed` beside them, which reads the clock too. Medians of blocks; each block asks for every key once.
entry     Bytes that an entry takes beyond the same entry of a cache without an expiry, by malloc's own books. A few keys only are
          followed, so that trackers (bounded by `max_keys`) do not count; the learner's tables, which no entry adds to, are
          measured on an empty cache and taken off.
key       Bytes of the core for keys that are remembered after their entries left, by what it has allocated.
share     CPU time of the learner's thread over wall time, at accesses paced to so many a second, by Zipf's law; the
          first seconds, in which it finds out how many keys it can follow, are shown apart.

Prints markdown.
"""
from __future__ import annotations

import argparse
import ctypes
import gc
import platform
import threading
import time
from statistics import median

import numpy as np

from adaptcache import Cache, Fixed, Learned, __version__

HOT = 1000
BLOCKS = 400
ENTRIES = (100_000, 1_000_000)
RATE = 100_000
KEYS = 200_000
WARM, MEASURED = 15.0, 20.0


class Books(ctypes.Structure):
    """glibc's `struct mallinfo2`."""

    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]


def allocated() -> int:
    """Bytes that malloc has given out."""
    libc = ctypes.CDLL(None)
    libc.mallinfo2.restype = Books
    gc.collect()
    books = libc.mallinfo2()
    return int(books.uordblks + books.hblkhd)


def hit() -> None:
    caches = {
        "no expiry": Cache(None), "fixed": Cache(None, expiry=Fixed(3600)),
        "learned": Cache(None, expiry=Learned(memory_price=1e-3)),
    }
    keys = [f"key {i}" for i in range(HOT)]
    for cache in caches.values():
        for key in keys:
            cache[key] = 1
    times: dict[str, list[float]] = {name: [] for name in caches}
    began = time.perf_counter()
    while time.perf_counter() - began < 3:      # until the learner has found its pace
        for key in keys:
            caches["learned"].get(key)
    for _ in range(BLOCKS):
        for name, cache in caches.items():
            get = cache.get
            began = time.perf_counter()
            for key in keys:
                get(key)
            times[name].append((time.perf_counter() - began) / HOT * 1e9)
    assert all(len(cache) == HOT for cache in caches.values())
    print("\n| a hit, loop included | ns, median | ns, least |\n|---|---:|---:|")
    for name, taken in times.items():
        print(f"| {name} | {median(taken):.1f} | {min(taken):.1f} |")
    more = [a - b for a, b in zip(times["learned"], times["no expiry"], strict=True)]
    brain = caches["learned"].brain
    assert brain is not None
    print(f"\nLearning on over off, block by block: {median(more):.1f} ns (median); {brain.tracked} of {HOT} keys were followed at the end.")


def entry() -> None:
    print("\n| entries | without an expiry | learned beyond it | its tables, whatever is held |\n|---:|---:|---:|---:|")
    spec = Learned(memory_price=1e-9, learner="manual", predictors=("table",), max_keys=64)
    for entries in ENTRIES:
        keys, taken = list(range(entries)), []
        before = allocated()
        empty = Cache(None, expiry=spec, timer=lambda: 1.0)
        tables = allocated() - before
        del empty
        for expiry in (None, spec):
            before = allocated()
            cache = Cache(None, expiry=expiry, timer=lambda: 1.0)
            for key in keys:
                cache[key] = None
            taken.append(allocated() - before)
            assert len(cache) >= entries - 1        # the bank's first credit is one removal
            del cache
        print(f"| {entries:,} | {taken[0] / entries:.1f} B | {(taken[1] - taken[0] - tables) / entries:.1f} B | {tables / 1e6:.1f} MB |")


def key() -> None:
    print("\n| remembered keys | bytes each |\n|---:|---:|")
    for number in (10_000, *ENTRIES):
        now = [0.0]
        cache = Cache(None, timer=lambda now=now: now[0], expiry=Learned(
            memory_price=1.0, learner="manual", predictors=("table",), max_keys=max(number, 1 << 17)))
        for _ in range(3):
            for at in range(number):
                cache.get_or_load(at, lambda _: None, cost=1.0)
            now[0] += 0.3
        now[0] += 10
        cache.expire()
        assert cache.brain is not None and cache.brain.remembered == number and len(cache) == 0
        print(f"| {number:,} | {cache.brain.footprint()[1] / number:.2f} |")
        del cache


def learner() -> threading.Thread:
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "adaptcache-learner"]
    return thread


def share(rate: int, price: float) -> None:
    dice = np.random.default_rng(1)
    weights = 1 / np.arange(1, KEYS + 1) ** 0.9
    asked = dice.choice(KEYS, size=1 << 20, p=weights / weights.sum()).tolist()
    cache = Cache(None, expiry=Learned(memory_price=price))
    get, set_, missing = cache.get, cache.set, object()
    thread, at, wanted, misses = learner(), 0, 0, 0
    assert thread.ident is not None
    clock = time.pthread_getcpuclockid(thread.ident)
    print(f"\n| {rate:,} accesses a second, break-even {1 / price:g} s | wall, s | accesses | misses | held | learner's CPU, s | share of a core | keys followed | remembered |"
          "\n|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for phase, seconds in (("settling", WARM), ("settled", MEASURED)):
        began, used, first, missed = time.perf_counter(), time.clock_gettime(clock), wanted, misses
        while (gone := time.perf_counter() - began) < seconds:
            due = first + int(gone * rate)
            while wanted < due:
                key = asked[at]
                at = (at + 1) & (len(asked) - 1)
                wanted += 1
                if get(key, missing) is missing:
                    misses += 1
                    set_(key, None, cost=1.0)
            time.sleep(0.001)
        gone, used = time.perf_counter() - began, time.clock_gettime(clock) - used
        assert cache.brain is not None
        print(f"| {phase} | {gone:.1f} | {wanted - first:,} | {misses - missed:,} | {len(cache):,} | {used:.3f} | {used / gone:.2%} | "
              f"{cache.brain.tracked:,} | {cache.brain.remembered:,} |", flush=True)
        assert (wanted - first) / gone > 0.95 * rate, "the machine is too busy to keep this pace"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="hit,entry,key,share", help="default: %(default)s")
    parser.add_argument("--rate", type=int, default=RATE, help="accesses a second (default: %(default)s)")
    given = parser.parse_args()
    print(f"adaptcache {__version__}, Python {platform.python_version()}, {platform.machine()}.")
    only = given.only.split(",")
    if "hit" in only:
        hit()
    if "entry" in only:
        entry()
    if "key" in only:
        key()
    if "share" in only:
        for price in (0.02, 0.2):       # entries break even after 50 seconds, and after 5
            share(given.rate, price)


if __name__ == "__main__":
    main()
