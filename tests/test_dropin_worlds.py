"""What a report says letting go saves and costs is the difference between two whole runs, whichever of them is the server's."""
from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptcache.redis import commands as c
from adaptcache.redis.follow import Follower
from adaptcache.redis.options import Adapt

TTL = 10.0
SIZE = 100


class World:
    """A server with one expiry, and what was asked of it."""

    def __init__(self) -> None:
        self.ends: dict[bytes, float] = {}
        self.since: dict[bytes, float] = {}
        self.misses = 0
        self.held = 0.0

    def drop(self, key: bytes, at: float) -> None:
        self.held += SIZE * (at - self.since.pop(key))
        del self.ends[key]

    def has(self, key: bytes, at: float) -> bool:
        if key in self.ends and self.ends[key] <= at:
            self.drop(key, self.ends[key])
        return key in self.ends

    def get(self, key: bytes, at: float) -> bool:
        if self.has(key, at):
            return True
        self.misses += 1
        self.ends[key], self.since[key] = at + TTL, at
        return False

    def set(self, key: bytes, at: float) -> None:
        if self.has(key, at):
            self.drop(key, at)
        self.ends[key], self.since[key] = at + TTL, at

    def close(self, at: float) -> None:
        for key in list(self.ends):
            self.drop(key, min(at, self.ends[key]))


class Silent:
    """A learned side that the test speaks for."""

    def put(self, key: bytes, **said: Any) -> None: ...
    def got(self, key: bytes, hit: bool, *, near: bool = False) -> bool:
        return True
    def gone(self, key: bytes) -> None: ...


def follower(real: bool) -> Follower:
    from adaptcache.redis.options import Scope

    made = Follower(Scope(Adapt().keys), lambda key: key, Silent, max_keys=1000, ask=False)
    made.real = real
    return made


@pytest.mark.parametrize("real", [False, True], ids=["observe", "release"])
@settings(deadline=None)
@given(seed=st.integers(0, 1 << 30), keys=st.integers(1, 6), eager=st.floats(0.0, 0.6), writes=st.floats(0.0, 0.2))
def test_the_difference_between_two_runs(real: bool, seed: int, keys: int, eager: float, writes: float) -> None:
    rnd, at = random.Random(seed), 1000.0
    without, with_ = World(), World()
    here, there = (with_, without) if real else (without, with_)
    books = follower(real)
    for _ in range(200):
        at += rnd.expovariate(1.0)
        key = b"page:%d" % rnd.randrange(keys)
        if rnd.random() < eager and with_.has(key, at):
            with_.drop(key, at)
            books.released([key], at)
            at += 0.01
        there_hit: Callable[[bytes, float], object] = there.get
        if rnd.random() < writes:
            without.set(key, at)
            with_.set(key, at)
            books.note(c.SETEX, (key, SIZE, int(TTL), 1000), at)
            continue
        hit = here.get(key, at)
        there_hit(key, at)
        books.note(c.READ, (key, SIZE if hit else c.MISS), at)
        if not hit:
            books.note(c.SETEX, (key, SIZE, int(TTL), 1000), at)
    books.totals(at)
    without.close(at)
    with_.close(at)
    line = books.books.lines()["page:*"]
    assert line.extra_misses == with_.misses - without.misses
    assert line.held == pytest.approx(without.held)
    assert line.saved == pytest.approx(without.held - with_.held, abs=1e-6 * without.held + 1e-6)
