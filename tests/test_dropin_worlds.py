"""What a report says letting go saves and costs is the difference between two whole runs, whichever of them is the server's."""
from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptcache.redis import commands as c
from adaptcache.redis.follow import Follower
from adaptcache.redis.options import Scope

TTL = 10.0
SIZE = 100


class World:
    """A server with one expiry, and what was asked of it."""

    def __init__(self) -> None:
        self.ends: dict[bytes, float] = {}
        self.since: dict[bytes, float] = {}
        self.expired: set[bytes] = set()        # of those that are not there: gone by themselves
        self.misses = 0
        self.held = 0.0

    def drop(self, key: bytes, at: float) -> None:
        self.held += SIZE * (at - self.since.pop(key))
        del self.ends[key]
        self.expired.discard(key)

    def has(self, key: bytes, at: float) -> bool:
        if key in self.ends and self.ends[key] <= at:
            self.drop(key, self.ends[key])
            self.expired.add(key)
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

    def expire(self, key: bytes, at: float, ttl: float) -> bool:
        if self.has(key, at):
            self.ends[key] = at + ttl
            return True
        return False

    def delete(self, key: bytes, at: float) -> None:
        if self.has(key, at):
            self.drop(key, at)

    def copy(self, source: bytes, target: bytes, at: float, replace: bool) -> bool:
        if not self.has(source, at) or (self.has(target, at) and not replace):
            return False
        self.delete(target, at)
        self.ends[target], self.since[target] = self.ends[source], at
        return True

    def close(self, at: float) -> None:
        for key in list(self.ends):
            self.drop(key, min(at, self.ends[key]))


class Silent:
    """A learned side that the test speaks for: which keys it follows, until it is told otherwise."""

    def __init__(self) -> None:
        self.keys: set[bytes] = set()

    def put(self, key: bytes, **said: Any) -> None:
        self.keys.add(key)

    def got(self, key: bytes, hit: bool, *, near: bool = False) -> bool:
        followed = key in self.keys
        if not hit:
            self.keys.discard(key)
        return followed

    def gone(self, key: bytes) -> None:
        self.keys.discard(key)


def follower(real: bool) -> Follower:
    made = Follower(Scope(["page:*"]), lambda key: key, Silent, max_keys=1000, ask=False)
    made.real = real
    return made


@pytest.mark.parametrize("real", [False, True], ids=["observe", "release"])
@settings(deadline=None)
@given(seed=st.integers(0, 1 << 30), keys=st.integers(1, 6), eager=st.floats(0.0, 0.6), writes=st.floats(0.0, 0.6),
       kinds=st.lists(st.sampled_from(["set", "expire", "persist", "getex", "delete", "flush", "rename", "copy"]), min_size=1, max_size=4))
def test_the_difference_between_two_runs(real: bool, seed: int, keys: int, eager: float, writes: float, kinds: list[str]) -> None:
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
            if books.ledger is not None:
                books.ledger.keys.discard(key)
            at += 0.01
        act = rnd.random()
        other = b"page:%d" % rnd.randrange(keys)
        if act < writes:
            kind = rnd.choice(kinds)
            if kind == "set":
                without.set(key, at)
                with_.set(key, at)
                books.note(c.SETEX, (key, SIZE, int(TTL), 1000), at)
            elif kind in ("expire", "persist", "getex"):
                ttl = math.inf if kind == "persist" else TTL
                if kind == "getex" and not (here.has(key, at) and there.has(key, at)):
                    continue        # a miss is followed by a load, as below
                done = here.expire(key, at, ttl)
                there.expire(key, at, ttl)
                if kind == "getex":
                    books.note(c.GETEX, (key, SIZE, ("EX", TTL)), at)
                else:
                    command = ("EXPIRE", key, TTL) if kind == "expire" else ("PERSIST", key)
                    books.note(c.PLANS[command[0]].verb, c.PLANS[command[0]].pack(command, int(done)), at)
            elif kind == "delete":
                without.delete(key, at)
                with_.delete(key, at)
                books.note(c.GONE, (key,), at)
            elif kind == "flush":
                for world in (without, with_):
                    for one in list(world.ends):
                        world.delete(one, at)
                books.note(c.FLUSHED, (), at)
            elif kind == "rename" and key != other and here.copy(key, other, at, True):
                here.delete(key, at)
                if there.copy(key, other, at, True):
                    there.delete(key, at)
                books.note(c.RENAMED, (key, other), at)
            elif kind == "copy" and key != other:
                replace = rnd.random() < 0.5
                if here.copy(key, other, at, replace):
                    there.copy(key, other, at, replace)
                    books.note(c.COPIED, (key, other, ("REPLACE",) if replace else ()), at)
            continue
        hit = here.get(key, at)
        there.get(key, at)
        books.note(c.READ, (key, SIZE if hit else c.MISS), at)
        if not hit:
            books.note(c.SETEX, (key, SIZE, int(TTL), 1000), at)
    books.totals(at)
    if books.ledger is None:
        return          # nothing was ever there
    # The learned side follows what is there where keys are let go, and what expired there by itself.
    alive = {key for key in list(with_.ends) if with_.has(key, at)}
    assert alive <= books.ledger.keys <= alive | with_.expired
    without.close(at)
    with_.close(at)
    line = books.books.lines()["page:*"]
    assert line.extra_misses == with_.misses - without.misses
    assert line.held == pytest.approx(without.held)
    assert line.saved == pytest.approx(without.held - with_.held, abs=1e-6 * without.held + 1e-6)
