"""What a recording costs: the operations of a cache that is recorded, beside the same cache that is not.

At a sample of a hundredth and of all keys, written by a thread and by the operations themselves; and two caches of which none is
recorded, of which one was before, for what it costs when it is off. The thread's time is in ours where it holds the
interpreter lock, and where the machine has no other core for it.
"""
from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adaptcache import Cache, Fixed, Learned, cached, record

SIZE = 10_000
BATCH = 5_000
KINDS: dict[str, dict[str, Any]] = {"lru": {"policy": "lru"}, "Fixed": {"expiry": Fixed(3600.0)}, "Learned": {"expiry": Learned(seed=1)}}
HOW: dict[str, dict[str, Any]] = {
    "off, was on": {}, "1% of the keys": {"sample": 0.01}, "all keys": {"sample": 1.0}, "all keys, no thread": {"sample": 1.0, "thread": False}}


def recorded(cache: Any, how: str, path: Path) -> Any:
    recording = record(path / "recording", cache, max_bytes=1 << 32, **HOW[how])
    if how == "off, was on":
        recording.close()
    return recording


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("kind", KINDS)
def test_get_hit(contest: Callable[..., Any], kind: str, how: str, tmp_path: Path) -> None:
    """`cache.get(key)` of keys that are held."""
    ours, other = (Cache(SIZE, **KINDS[kind]) for _ in range(2))
    keys = [f"user:{number}" for number in range(1000)]
    for cache in (ours, other):
        for key in keys:
            cache[key] = key
    order = np.random.default_rng(1).permutation(np.array(keys * (BATCH // 1000), dtype=object)).tolist()

    def hits(get: Callable[[str], Any]) -> Callable[[], None]:
        def run() -> None:
            for key in order:
                get(key)
        return run

    with recorded(ours, how, tmp_path) as recording:
        contest("recorded: get hit", f"{kind}, {how}", hits(ours.get), {"not recorded": hits(other.get)}, BATCH)
    assert recording.error is None and recording.dropped == 0


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("kind", KINDS)
def test_zipf(contest: Callable[..., Any], kind: str, how: str, tmp_path: Path) -> None:
    """Get, or store on a miss, of Zipf-distributed keys; one in five is a miss that evicts."""
    ours, other = (Cache(SIZE, **KINDS[kind]) for _ in range(2))
    ranks = np.random.default_rng(1).zipf(1.1, 40 * BATCH) % (10 * SIZE)
    asked = cycle([f"user:{rank}" for rank in ranks.tolist()])

    def loads(cache: Any) -> Callable[[list[str]], None]:
        def run(keys: list[str]) -> None:
            get = cache.get
            for key in keys:
                if get(key) is None:
                    cache[key] = key
        return run

    with recorded(ours, how, tmp_path) as recording:
        contest("recorded: get or store", f"{kind}, {how}", loads(ours), {"not recorded": loads(other)}, BATCH,
                prepare=lambda: [next(asked) for _ in range(BATCH)])
    assert recording.error is None


@pytest.mark.parametrize("how", HOW)
def test_decorated_hit(contest: Callable[..., Any], how: str, tmp_path: Path) -> None:
    """`f(n)` whose result is held."""
    ours, other = (cached(maxsize=SIZE)(lambda n: n) for _ in range(2))
    for n in range(1000):
        ours(n), other(n)

    def calls(function: Callable[[int], int]) -> Callable[[], None]:
        def run() -> None:
            for n in NUMBERS:
                function(n)
        return run

    with recorded(ours, how, tmp_path):
        contest("recorded: decorated hit", how, calls(ours), {"not recorded": calls(other)}, BATCH)


NUMBERS = [n % 1000 for n in range(BATCH)]
