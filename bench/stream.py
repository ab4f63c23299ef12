"""A stream longer than memory, replayed in bounded memory: how fast, and how flat.

    python bench/stream.py [--requests N] [--policy P]... [--capacity N] [--keys N] [--alpha A] [--once SHARE] [--seed N]

Requests are drawn in chunks, by Zipf's law over `--keys` keys; a share of them, `--once`, is for keys that never come
again, so the number of different keys grows with the stream while what is held does not. Every policy replays the same
chunk before the next one is drawn. A line a tenth of the way: the hit ratio, and the peak of resident memory. What the
peak grows by after the first tenth must stay below five percent and 4 MiB, or the exit code is 1.

Requests are told per second of processor time of the replay alone; drawing them is counted apart.
"""
from __future__ import annotations

import argparse
import os
import resource
import sys
from time import thread_time

import numpy as np
from numpy.typing import NDArray

import adaptcache
from adaptcache import _core

CHUNK = 1 << 20


class Source:
    """Key hashes without end: the same seed, the same stream, whatever the length of its chunks."""

    def __init__(self, keys: int, alpha: float, once: float, seed: int) -> None:
        self.draw = np.random.default_rng(seed)
        self.keys, self.alpha, self.once = keys, alpha, once
        self.new = keys         # the next number of a key that comes once

    def chunk(self, rows: int) -> NDArray[np.uint64]:
        """Ranks by the inverse of the continuous law's distribution, some replaced by newcomers, and all of them mixed."""
        u = self.draw.random(rows)
        rest = 1 - self.alpha
        if abs(rest) < 1e-9:
            rank = np.exp(u * np.log(self.keys))
        else:
            rank = (1 + u * (self.keys**rest - 1)) ** (1 / rest)
        key = rank.astype(np.uint64)
        if self.once:
            fresh = np.flatnonzero(self.draw.random(rows) < self.once)
            key[fresh] = np.arange(self.new, self.new + len(fresh), dtype=np.uint64)
            self.new += len(fresh)
        return mixed(key)


def mixed(key: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Numbers as hashes, one to one (the finalizer of splitmix64)."""
    h = key * np.uint64(0x9E3779B97F4A7C15)
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


def peak() -> int:
    """The most resident memory that this process ever had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1_000_000_000)
    parser.add_argument("--policy", action="append", choices=adaptcache.policies(), help="default: sieve; may be given more than once")
    parser.add_argument("--capacity", type=int, default=1_000_000, help="entries (default: %(default)s)")
    parser.add_argument("--keys", type=int, default=100_000_000, help="that come again (default: %(default)s)")
    parser.add_argument("--alpha", type=float, default=0.9, help="Zipf's exponent (default: %(default)s)")
    parser.add_argument("--once", type=float, default=0.1, help="share of requests for keys that never come again")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    chosen = options.policy or ["sieve"]
    print(f"Python {sys.version.split()[0]}, {os.uname().machine}, adaptcache {adaptcache.__version__}: {options.requests:,} requests, "
          f"{options.capacity:,} entries, seed {options.seed}", flush=True)
    source = Source(options.keys, options.alpha, options.once, options.seed)
    replays = {policy: _core.StreamReplay(policy, options.capacity) for policy in chosen}
    seconds = dict.fromkeys(chosen, 0.0)
    drawing, done, settled, tenths = 0.0, 0, 0, 0
    while done < options.requests:
        begun = thread_time()
        hashes = source.chunk(min(CHUNK, options.requests - done))
        drawing += thread_time() - begun
        for policy, replay in replays.items():
            begun = thread_time()
            replay.run(hashes)
            seconds[policy] += thread_time() - begun
        done += len(hashes)
        if done * 10 // options.requests > tenths:
            tenths = done * 10 // options.requests
            settled = settled or peak()
            ratios = "  ".join(f"{policy} {replay.hits / replay.requests:.4f}" for policy, replay in replays.items())
            print(f"{done:15,} requests, {source.new - options.keys:13,} keys that came once   peak {peak() / 2**20:8,.1f} MiB   {ratios}", flush=True)
    for policy in chosen:
        replays[policy]._check()
        print(f"{policy:10} {options.requests / seconds[policy] / 1e6:6.1f} million requests a second, hit ratio {replays[policy].hits / options.requests:.6f}")
    flat = peak() <= settled * 1.05 + (4 << 20)
    print(f"drawn at {options.requests / drawing / 1e6:.1f} million a second; peak of memory {settled / 2**20:,.1f} -> {peak() / 2**20:,.1f} MiB "
          f"{'flat' if flat else 'GROWS'}")
    sys.exit(0 if flat else 1)


if __name__ == "__main__":
    main()
