"""Operations of `Cache` itself, beside dict (the floor), cachetools, cachebox and moka-py.

Each policy without expiry, and the default policy with each expiry. Caches hold 10,000 entries. The peer
of a cache with an expiry is the peer's TTL cache.
"""
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import cycle
from typing import Any

import cachebox
import cachetools
import moka_py
import numpy as np
import pytest

from adaptcache import Cache, Fixed, Idle, Learned, policies

SIZE = 10_000
BATCH = 1_000
TTL = 3600.0

OURS: dict[str, dict[str, Any]] = {policy: {"policy": policy} for policy in policies()}
OURS |= {"Fixed": {"expiry": Fixed(TTL), "policy": "sieve"}, "Idle": {"expiry": Idle(TTL), "policy": "sieve"},
         "Learned": {"expiry": Learned(seed=1), "policy": "sieve"}, "Learned, adaptive": {"expiry": Learned(seed=1)}}


@pytest.fixture(params=OURS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def rivals(name: str) -> dict[str, Any]:
    if "expiry" in OURS[name]:
        return {"cachetools TTL": cachetools.TTLCache(SIZE, TTL), "cachebox TTL": cachebox.TTLCache(SIZE, TTL)}
    return {"cachetools LRU": cachetools.LRUCache(SIZE), "cachebox LRU": cachebox.LRUCache(SIZE)}


AIMS: dict[tuple[str, str], dict[str, float]] = {
    ("get", "lru"): {"cachebox LRU": 1.0}, ("get", "Learned"): {"cachebox VTTL": 1.0}, ("set", "lru"): {"cachebox LRU": 1.1},
    ("set", "wtinylfu"): {"moka-py": 0.5}, ("zipf", "lru"): {"cachebox LRU": 1.1},
}


def keys_of(count: int) -> list[str]:
    """Keys as they come from a wire: equal to those that are held, but other objects."""
    return [f"user:{number}" for number in range(count)]


@pytest.mark.parametrize("wanted", [SIZE, 100], ids=["all keys", "100 hot keys"])
def test_get_hit(contest: Callable[..., Any], name: str, wanted: int) -> None:
    """`cache.get(key)` of a key that is held: all in turn (memory decides), or a few (the code decides)."""
    ours = Cache(SIZE, **OURS[name])
    others = {"dict": {}, **rivals(name)}
    for cache in (ours, *others.values()):
        for key in keys_of(SIZE):
            cache[key] = key
    if "expiry" in OURS[name]:
        others["cachebox VTTL"] = cachebox.VTTLCache(SIZE)
        for key in keys_of(SIZE):
            others["cachebox VTTL"].insert(key, key, TTL)
    order = np.random.default_rng(1).permutation(keys_of(SIZE))[:wanted].tolist()
    set(order)                      # a str keeps its hash; whoever comes first must not pay for all
    asked = cycle(order)

    def hits(get: Callable[[str], Any]) -> Callable[[list[str]], None]:
        def run(keys: list[str]) -> None:
            for key in keys:
                get(key)
        return run

    contest(f"get hit, {wanted:,} keys", name, hits(ours.get), {peer: hits(cache.get) for peer, cache in others.items()}, BATCH,
            prepare=lambda: [next(asked) for _ in range(BATCH)], aims=AIMS.get(("get", name)))
    assert ours.stats().misses == 0


def test_set_with_eviction(contest: Callable[..., Any], name: str) -> None:
    """`cache[key] = value` of a new key in a full cache. OrderedDict: with popitem(last=False), a FIFO."""
    ours = Cache(SIZE, **OURS[name])
    fifo: OrderedDict[str, str] = OrderedDict()
    others = rivals(name)
    for cache in (ours, fifo, *others.values()):
        for key in keys_of(SIZE):
            cache[key] = key
    # A key comes again only after three caches full of others.
    others_keys = [f"other:{number}" for number in range(4 * SIZE)]
    set(others_keys)
    fresh = cycle(others_keys)

    def sets(cache: Any) -> Callable[[list[str]], None]:
        def run(keys: list[str]) -> None:
            for key in keys:
                cache[key] = key
        return run

    def floor(keys: list[str]) -> None:
        for key in keys:
            fifo[key] = key
            fifo.popitem(last=False)

    peers = {"OrderedDict": floor, **{peer: sets(cache) for peer, cache in others.items()}}
    if name == "wtinylfu":
        moka = moka_py.Moka(SIZE)

        def admitted(keys: list[str]) -> None:
            for key in keys:
                moka.set(key, key)

        peers["moka-py"] = admitted
    contest("set with eviction", name, sets(ours), peers, BATCH, prepare=lambda: [next(fresh) for _ in range(BATCH)],
            aims=AIMS.get(("set", name)))
    assert len(ours) <= SIZE
    # Learned lets go early of what nobody asks for, so that some places are free.
    assert ours.stats().evictions >= (1 if name.startswith("Learned") else 50 * BATCH)


def zipf(seed: int = 1) -> Iterator[list[int]]:
    """Requests for 100,000 keys, request frequencies falling with rank to the power -0.86, by the thousand."""
    rank = np.arange(1, 100_001) ** -0.86
    rng = np.random.default_rng(seed)
    while True:
        draws = rng.choice(len(rank), 100_000, p=rank / rank.sum())
        for at in range(0, len(draws), BATCH):
            # New int objects each time, as real requests bring.
            yield draws[at : at + BATCH].tolist()


def test_zipf_get_or_set(contest: Callable[..., Any], name: str) -> None:
    """`get`, and on a miss `cache[key] = value`: misses and evictions at each one's own hit ratio."""
    ours = Cache(SIZE, **OURS[name])
    others = rivals(name)
    asked: dict[str, int] = {}
    missed: dict[str, int] = {}

    def requests(label: str, cache: Any) -> Callable[[list[int]], None]:
        asked[label] = missed[label] = 0

        def run(keys: list[int]) -> None:
            get = cache.get
            misses = 0
            for key in keys:
                if get(key) is None:
                    cache[key] = key
                    misses += 1
            asked[label] += len(keys)
            missed[label] += misses
        return run

    runs = {label: requests(label, cache) for label, cache in {"": ours, **others}.items()}
    loaded = lru_cache(SIZE)(lambda key: key)

    def functools_run(keys: list[int]) -> None:
        for key in keys:
            loaded(key)

    stream = zipf()
    for _ in range(100):
        keys = next(stream)
        for run in runs.values():
            run(keys)
        functools_run(keys)
    for label in runs:
        asked[label] = missed[label] = 0
    before = loaded.cache_info()
    first = runs.pop("")
    row = contest("Zipf get-or-set (hit ratio)", name, first, {"functools": functools_run, **runs}, BATCH,
                  prepare=lambda: next(stream), aims=AIMS.get(("zipf", name)))
    row.notes = {label: f"{1 - missed[label] / asked[label]:.3f}" for label in asked}
    hits, misses = (after - earlier for after, earlier in zip(loaded.cache_info()[:2], before[:2], strict=True))
    row.notes["functools"] = f"{hits / (hits + misses):.3f}"
    assert missed[""] > 0
