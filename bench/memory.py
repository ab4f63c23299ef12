"""Bytes an entry takes beyond its key and value: one million int keys, ours and peers, each in a process of its own.

    make bench-memory                       or: python bench/memory.py --entries 1000000

By malloc's own books (glibc's mallinfo2), which count what Rust, C and Cython take alike, and CPython for blocks above
512 bytes; small objects that a cache makes for each entry are counted by `sys.getallocatedblocks`, at 64 bytes. A learned
cache is measured twice: as it is, with its learner at work, and its entries alone, for its tables are of a fixed size.

Prints markdown.
"""
from __future__ import annotations

import argparse
import ctypes
import gc
import platform
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from adaptcache import Cache, Learned, __version__, policies
from adaptcache.learn.worker import WORKER


class Books(ctypes.Structure):
    """glibc's `struct mallinfo2`."""

    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]


def allocated() -> int:
    libc = ctypes.CDLL(None)
    libc.mallinfo2.restype = Books
    gc.collect()
    books = libc.mallinfo2()
    return int(books.uordblks + books.hblkhd)


def entries_alone(entries: int) -> Any:
    """A learned cache whose learner is not at work."""
    cache: Cache[int, int] = Cache(entries, policy="lru", expiry=Learned(seed=1))
    WORKER.discard(cache)
    return cache


def makers(entries: int) -> dict[str, Callable[[], Any]]:
    import cachebox
    import cachetools

    ours: dict[str, Callable[[], Any]] = {
        policy: (lambda policy=policy: Cache(entries, policy=policy)) for policy in policies()}
    return {"dict": dict, **ours, "lru, Learned": lambda: Cache(entries, policy="lru", expiry=Learned(seed=1)),
            "lru, Learned, entries alone": lambda: entries_alone(entries), "cachebox LRUCache": lambda: cachebox.LRUCache(entries),
            "cachebox VTTLCache": lambda: cachebox.VTTLCache(entries), "cachetools LRUCache": lambda: cachetools.LRUCache(entries)}


def one(name: str, entries: int) -> float:
    keys = list(range(entries))
    make = makers(entries)[name]
    make()              # what the first of its kind imports is nobody's entry
    tables = 0
    if name.endswith("alone"):
        before = allocated()
        empty = make()
        tables = allocated() - before
        del empty
    before, blocks = allocated(), sys.getallocatedblocks()
    held = make()
    for key in keys:
        held[key] = key
    assert len(held) == entries
    small = max(0, sys.getallocatedblocks() - blocks)
    return (allocated() - before - tables + 64 * small) / entries


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--only", help="one of them, in this process")
    args = parser.parse_args()
    if args.only:
        print(one(args.only, args.entries))
        return
    print(f"adaptcache {__version__}, CPython {platform.python_version()}, {args.entries:,} entries\n")
    taken: dict[str, float] = {}
    for name in makers(args.entries):
        out = subprocess.run([sys.executable, "-P", __file__, "--entries", str(args.entries), "--only", name],
                             check=True, capture_output=True, text=True).stdout
        taken[name] = float(out)
    print("| | bytes an entry | / cachebox LRUCache |\n|---|---:|---:|")
    for name, size in taken.items():
        print(f"| {name} | {size:.1f} | {size / taken['cachebox LRUCache']:.2f} |")


if __name__ == "__main__":
    main()
