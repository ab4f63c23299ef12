"""Recordings: what is asked is what is written, nobody can read a key out of it, and a replay hits as often as the cache did.

What should be written is said by an observer that knows the cache as a mapping, and the format only as docs say it.
"""
from __future__ import annotations

import contextlib
import copy
import gc
import gzip
import json
import logging
import os
import pickle
import random
import struct
import subprocess
import sys
import threading
import zlib
from collections import Counter, defaultdict
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import adaptcache
from adaptcache import Cache, Fixed, Idle, Learned, TraceError, _core, cached, lru_cache, recording, tapefile
from adaptcache.cli import adaptcache as command
from adaptcache.compat.cachetools import LRUCache, RRCache, TTLCache
from adaptcache.recording import record
from adaptcache.simulate import Trace, readers, simulate
from adaptcache.simulate.trace import dense
from adaptcache.tapefile import CLEAR, DELETE, HIT, LOADED, MISS, SET, read, rows

SALT = "pepper"
# Replays know keys by other hashes: exact for policies whose choices do not depend on them.
EXACT = [name for name in adaptcache.policies() if name not in ("wtinylfu", "adaptive")]       # what those remember hangs on the hashes


class Clock:
    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def zipf(n: int = 4000, keys: int = 500, seed: int = 1) -> list[int]:
    rng = random.Random(seed)
    return [int(rng.paretovariate(0.7)) % keys for _ in range(n)]


def hashed(keys: Any) -> dict[int, Any]:
    """Hash in the file -> key, for a recording with SALT."""
    secret = blake2b(SALT.encode(), digest_size=24, person=b"recording").digest()
    return {_core.sip64(secret, hash(key) & 2**64 - 1): key for key in keys}


def told(path: Path, names: dict[int, Any]) -> list[tuple[Any, ...]]:
    """(what, key) of each event."""
    e = read(path).events
    return [(int(what), names.get(int(key))) for what, key in zip(e.what, e.key, strict=True)]


# -- what is written ----------------------------------------------------------------------------------------

OPERATIONS = st.lists(st.tuples(
    st.sampled_from(["get", "[]", "[]=", "set", "del", "pop", "popitem", "load", "clear", "tick", "setdefault"]),
    st.integers(0, 7), st.floats(0.5, 4).map(lambda x: round(x, 2)), st.sampled_from([None, 3.0, 0.0])), max_size=60)

KINDS = {"plain": dict, "Fixed": lambda: {"expiry": Fixed(5)}, "Idle": lambda: {"expiry": Idle(5)},
         "Learned": lambda: {"expiry": Learned(learner="manual", seed=1, memory_price=0.01)}}


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=OPERATIONS)
def test_every_operation_is_written_as_it_was(kind: str, operations: list[Any], tmp_path: Path) -> None:
    clock = Clock()
    cache: Cache[str, Any] = Cache(12, policy="lru", timer=clock, **KINDS[kind]())
    expected: list[tuple[Any, ...]] = []        # what, key, time, size, ttl, cost

    def note(what: int, key: str | None, size: float = -1, ttl: float = 0, cost: float = -1) -> None:
        expected.append((what, key, clock.now, size, ttl, cost))

    def lasts(ttl: float | None) -> float:
        fixed = 5 if kind == "Fixed" else 0
        return fixed if ttl is None else min(ttl, fixed) if fixed else ttl

    def asked(key: str, stores: int | None = None) -> None:
        if key in cache:
            note(HIT, key, float(cache._explain(key)["size"]))
        else:
            note(MISS, key)
            if stores is not None:
                note(stores, key, 1, lasts(None))

    path = tmp_path / "file"
    with cache.record(path, salt=SALT) as recorder:
        for name, number, size, ttl in operations:
            key = f"key {number}"
            if name == "tick":
                clock.now += size
            elif name == "get":
                asked(key)
                cache.get(key)
            elif name == "[]":
                asked(key)
                with contextlib.suppress(KeyError):
                    cache[key]
            elif name == "[]=":
                cache[key] = size
                note(SET, key, 1, lasts(None))
            elif name == "set":
                cache.set(key, size, size=size, ttl=ttl, cost=size)
                if ttl == 0:
                    note(DELETE, key)       # over when it comes: it ends what was there
                else:
                    note(SET, key, size, lasts(ttl), size)
            elif name == "load":
                asked(key, LOADED)
                cache.get_or_load(key, lambda key: key)
            elif name == "setdefault":
                asked(key, SET)
                cache.setdefault(key, 1)
            elif name == "popitem":
                if len(cache):
                    note(DELETE, cache.popitem()[0])
            elif name == "clear":
                cache.clear()
                note(CLEAR, None)
            elif key in cache:
                note(DELETE, key)
                cache.pop(key) if name == "pop" else cache.__delitem__(key)
            else:
                cache.pop(key, None)        # of nothing: nothing happened
        cache._check()
    assert recorder.events == len(expected) and recorder.reason == "closed" and recorder.error is None
    names = hashed(f"key {number}" for number in range(8))
    e = read(path).events
    got = [(int(what), names.get(int(key)), now / 1e9, size, ttl, cost)
           for key, now, what, _, size, ttl, cost, _ in zip(*e, strict=True)]
    assert [row[:2] for row in got] == [row[:2] for row in expected]
    assert np.allclose([row[2:] for row in got], [row[2:] for row in expected], rtol=1e-6)


def test_namespaces_are_numbers_and_have_names_only_where_asked_for(tmp_path: Path) -> None:
    for names in (False, True):
        cache: Cache[Any, Any] = Cache(None)
        path = tmp_path / f"{names}"
        with cache.record(path, names=names):
            cache.set(1, 1, namespace="table secret")
            cache.set(2, 1, namespace=("tenant", 2))
            cache.set(3, 1, namespace="table secret")
            cache.get(1)
        got = read(path)
        assert got.events.namespace.tolist() == [1, 2, 1, 0]
        assert got.names == ({1: "'table secret'", 2: "('tenant', 2)"} if names else {})
        assert (b"table secret" in unpacked(path)) is names
        assert readers.read(path).namespace.tolist() == [0, 1, 0, 0]


def test_a_label_that_cannot_be_written_down_ends_nothing(tmp_path: Path) -> None:
    class Label:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    cache: Cache[Any, Any] = Cache(None)
    with cache.record(tmp_path / "file", names=True) as recorder:
        cache.set(1, 1, namespace=Label())
    assert recorder.error is None and read(tmp_path / "file").names == {1: "<Label 1>"}


def test_it_says_what_was_recorded_and_how_it_went(tmp_path: Path) -> None:
    cache: Cache[Any, Any] = Cache(50, policy="arc", expiry=Fixed(30), timer=Clock(7.5))
    cache.get(1)
    with cache.record(tmp_path / "file", sample=0.5) as recorder:
        for key in [1, 2, 3, 1]:
            cache.get_or_load(key, str)
    got = read(tmp_path / "file")
    assert (got.about["policy"], got.about["maxsize"], got.about["sample"], got.about["clock"]) == ("arc", 50, 0.5, 7.5)
    assert got.about["expiry"] == {"kind": "Fixed", "ttl": 30.0}
    assert got.end is not None and (got.end["hits"], got.end["misses"], got.end["reason"]) == (1, 3, "closed")
    assert got.sample == 0.5 and got.cut is None and recorder.size == (tmp_path / "file").stat().st_size


# -- replays ------------------------------------------------------------------------------------------------

def by_get(cache: Any, key: int) -> None:
    if cache.get(key) is None:
        cache[key] = key + 1


def by_item(cache: Any, key: int) -> None:
    try:
        cache[key]
    except KeyError:
        cache[key] = key


def by_load(cache: Any, key: int) -> None:
    cache.get_or_load(key, str)


# The simulator knows no costs for eviction, which loads tell GDSF.
@pytest.mark.parametrize(("policy", "use"), [(policy, use) for policy in adaptcache.policies() for use in (by_get, by_item, by_load)
                                             if (policy, use) != ("gdsf", by_load)])
def test_a_replay_hits_as_often_as_the_cache_did(policy: str, use: Any, tmp_path: Path) -> None:
    cache: Cache[Any, Any] = Cache(40, policy=policy)
    with cache.record(tmp_path / "file", thread=False):
        for key in zipf():
            use(cache, key)
    result = simulate(tmp_path / "file", [policy], [40])[0]
    assert result.requests == 4000
    assert result.hits == pytest.approx(cache.stats().hits, abs=0 if policy in EXACT else 40)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(keys=st.lists(st.tuples(st.sampled_from(["load", "write", "delete"]), st.integers(0, 12)), min_size=1, max_size=80),
       policy=st.sampled_from(EXACT))
def test_writes_and_deletes_are_replayed_too(keys: list[Any], policy: str, tmp_path: Path) -> None:
    cache: Cache[Any, Any] = Cache(4, policy=policy)
    with cache.record(tmp_path / "file", thread=False):
        for what, key in keys:
            if what == "load":
                by_get(cache, key)
            elif what == "write":
                cache[key] = key
            else:
                cache.pop(key, None)
    if "load" in [what for what, _ in keys]:
        assert simulate(tmp_path / "file", [policy], [4], ops=True)[0].hits == cache.stats().hits


def test_calls_within_calls_are_replayed_in_the_order_in_which_results_came(tmp_path: Path) -> None:
    @cached(maxsize=7, policy="lru")
    def ways(n: int) -> int:
        return 1 if n < 2 else ways(n - 1) + ways(n - 2) + ways(n // 2)

    with record(tmp_path / "file", ways):
        for n in [16, 12, 15, 8, 16]:
            ways(n)
    info = ways.cache_info()
    result = simulate(tmp_path / "file", ["lru"], [7])[0]
    assert (result.hits, result.requests) == (info.hits, info.hits + info.misses) and info.hits > 50


class Service:
    @cached(maxsize=20, policy="sieve")
    def method(self, n: int, *, deep: bool = False) -> int:
        return n

    @lru_cache(maxsize=20)
    def plain(self, n: int, deep: bool = False) -> int:
        return n


def test_every_kind_of_decorated_function_can_be_recorded(tmp_path: Path) -> None:
    service = Service()
    for name, function, policy in [("a", service.method, "sieve"), ("b", Service.method, "sieve"), ("c", service.plain, "lru")]:
        info = function.cache_info()
        recorder = record(tmp_path / name, function)
        for key in zipf(2000, 90):
            service.plain(key) if policy == "lru" else service.method(key, deep=key % 2 == 0)
        recorder.close()
        done = function.cache_info()
        got = read(tmp_path / name)
        assert got.end is not None
        assert (got.end["hits"], got.end["misses"]) == (done.hits - info.hits, done.misses - info.misses)
        if info.misses == 0:        # it was empty
            assert simulate(tmp_path / name, [policy], [20])[0].hits == done.hits
        assert Counter(np.minimum(got.events.what, MISS).tolist())[HIT] == done.hits - info.hits


def test_a_typed_lru_cache_and_coroutines_can_be_recorded(tmp_path: Path) -> None:
    import asyncio

    @lru_cache(maxsize=None, typed=True)
    def double(n: float) -> float:
        return 2 * n

    @cached(maxsize=9, policy="lru")
    async def answer(n: int) -> int:
        return n

    with record(tmp_path / "typed", double), record(tmp_path / "async", answer):
        for n in [1, 1.0, 1, 2]:
            double(n)
        for n in [1, 2, 1]:
            asyncio.run(answer(n))
    assert told(tmp_path / "typed", {}) == [(what, None) for what in [MISS, SET, MISS, SET, HIT, MISS, SET]]
    assert [what for what, _ in told(tmp_path / "async", {})] == [MISS, LOADED, MISS, LOADED, HIT]


@pytest.mark.parametrize("make", [lambda: LRUCache(30), lambda: RRCache(30, choice=min), lambda: TTLCache(30, 1000)])
def test_caches_with_cachetools_manners_can_be_recorded(make: Any, tmp_path: Path) -> None:
    cache = make()
    hits = 0
    with record(tmp_path / "file", cache):
        for key in zipf(2000, 90):
            if cache.get(key) is None:
                cache[key] = key + 1
            else:
                hits += 1
        del cache[next(iter(cache))]
        cache.pop(next(iter(cache)))
    what = read(tmp_path / "file").events.what
    assert Counter(what.tolist()) == {HIT: hits, MISS: 2000 - hits, SET: 2000 - hits, DELETE: 2}    # an eviction is no delete
    assert np.all(np.diff(read(tmp_path / "file").events.now) >= 0)
    if type(cache) is LRUCache:
        assert simulate(tmp_path / "file", ["lru"], [30], ops=True)[0].hits == hits
    cache._check()


def test_what_a_recording_began_with_in_the_cache_is_not_known_to_it(tmp_path: Path) -> None:
    cache: Cache[Any, Any] = Cache(10, policy="lru")
    cache[1] = 1
    with cache.record(tmp_path / "file"):
        cache.get(1)
    result = simulate(tmp_path / "file", ["lru"], [10])[0]
    assert (cache.stats().hits, result.hits, result.requests) == (1, 0, 1)


def test_learning_can_be_simulated_on_a_recording(tmp_path: Path) -> None:
    clock = Clock()
    cache: Cache[Any, Any] = Cache(None, timer=clock)
    with cache.record(tmp_path / "file"):
        for key in zipf(1500, 100):
            clock.now += 1
            if cache.get(key) is None:
                cache.set(key, key, cost=0.5 + key % 3, size=1 + key % 7, namespace=key % 4)
    trace = readers.read(tmp_path / "file")
    assert len(trace) == 1500 and trace.time[0] == 101 and trace.op is None
    assert {(round(float(c), 6), int(s)) for c, s in zip(trace.cost, trace.size, strict=True)} <= {
        (0.5 + key % 3, 1 + key % 7) for key in range(100)}
    assert len(set(trace.namespace.tolist())) == 4
    result = simulate(trace, expiries=["learned", "static-best"], memory_prices=["0.1x"])[0]
    assert result.requests == 1500


@pytest.mark.parametrize("policy", EXACT)
def test_a_reload_in_the_background_is_a_store_and_no_request(policy: str, tmp_path: Path) -> None:
    """A replay of it has the cache's hits, once it is told of the values that went because their validity was over."""
    clock, over, loaded = Clock(), [], set()

    def gone(key: int, value: Any, cause: adaptcache.Cause, at: float) -> None:
        if cause is adaptcache.Cause.EXPIRED:       # before what is asked at this moment, or what it brought is over at once
            over.append((clock.now, 2 if key in loaded else 0, key, 2))

    def load(key: int) -> str:
        loaded.add(key)
        return str(key)

    cache: Cache[int, str] = Cache(8, policy=policy, timer=clock, on_removal=gone, expiry=Learned(
        stale=0.5, memory_price=0, learner="manual", seed=1, predictors=("table",)))
    reloads = []
    rng = random.Random(1)
    with cache.record(tmp_path / "file", salt=SALT, thread=False):
        for n in range(1500):
            clock.now += 1
            key = rng.randrange(5) if n % 2 else 1000 + n if n % 4 else 50 + rng.randrange(12)
            loaded.clear()
            cache.get_or_load(key, load)
            stored = cache.stats().inserts
            cache.refresh()
            reloads += [clock.now] * (cache.stats().inserts - stored)
    assert len(reloads) > 50 and over
    names = hashed(range(3000))
    got = rows(tmp_path / "file")
    events = [(time, 1, names[int(key)], int(op)) for time, key, op in zip(got["time"], got["key"], got["op"], strict=True)]
    assert [time for time, _, _, op in events if op == 1] == reloads
    assert sum(op == 0 for _, _, _, op in events) == 1500
    events = sorted([*events, *over], key=lambda event: event[:2])
    key = dense([key for _, _, key, _ in events])
    trace = Trace("file", key, int(key.max()) + 1, op=np.array([op for *_, op in events]))
    (result,) = simulate(trace, policy, [8], ops=True)
    assert (result.requests, result.hits) == (1500, cache.stats().hits)


# -- from events to rows ------------------------------------------------------------------------------------

def events(*given: tuple[Any, ...]) -> tapefile.Events:
    """From (key, seconds, what, and fields by name)."""
    notes = np.zeros(len(given), tapefile.NOTE)
    notes["size"], notes["cost"], notes["level"] = -1, -1, 60
    for note, (key, seconds, what, *more) in zip(notes, given, strict=True):
        note["key"], note["now"], note["what"] = key, seconds * 1e9, what
        for name, value in (more[0] if more else {}).items():
            note[name] = value
    return tapefile.unpack(tapefile.pack(notes.tobytes(), 0))[0]


def listed(e: tapefile.Events) -> dict[str, list[float]]:
    return {name: column.tolist() for name, column in tapefile.folded(e).items()}


def test_a_miss_and_the_set_that_filled_it_are_one_get() -> None:
    got = listed(events((1, 1, MISS), (2, 2, MISS), (1, 3, LOADED, {"size": 4, "cost": 0.5}), (2, 4, SET, {"size": 3}),
                        (1, 5, HIT, {"size": 4}), (1, 6, SET, {"size": 5}), (3, 7, SET, {"size": 1, "ttl": 60}), (4, 8, MISS)))
    assert got == {"time": [3, 4, 5, 6, 7, 8], "key": [1, 2, 1, 1, 3, 4], "op": [0, 0, 0, 1, 1, 0], "size": [4, 3, 4, 5, 1, 4],
                   "ttl": [0, 0, 0, 0, 60, 0], "cost": [0.5] * 6}


def test_a_set_fills_no_miss_of_another_key() -> None:
    assert listed(events((1, 1, MISS), (2, 2, SET), (3, 3, LOADED)))["op"] == [0, 1, 1]
    assert listed(events((1, 1, MISS), (1, 2, DELETE), (1, 3, SET)))["op"] == [0, 2, 1]


def test_what_says_nothing_is_left_out() -> None:
    assert listed(events((7, 1, MISS), (7, 2, SET, {"size": 1}), (7, 3, HIT, {"size": 1}))) == {"time": [2, 3], "key": [7, 7]}
    assert listed(events((7, 1, CLEAR)))["key"] == []


def test_what_is_not_told_is_taken_from_the_same_key() -> None:
    got = listed(events((1, 1, HIT), (1, 2, HIT, {"size": 2}), (2, 2, HIT), (1, 3, DELETE), (3, 4, HIT, {"size": 8}),
                        (1, 5, MISS), (2, 6, SET, {"size": 3, "ns": 9}), (2, 7, HIT), (4, 8, HIT)))
    assert got["size"] == [2, 2, 3, 2, 8, 2, 3, 3, 3]
    assert got["namespace"] == [0, 0, 9, 0, 0, 0, 9, 9, 0]


def test_a_clear_deletes_what_may_be_held() -> None:
    got = listed(events((1, 1, SET), (2, 1, SET), (3, 1, HIT), (2, 2, DELETE), (0, 3, CLEAR), (0, 4, CLEAR), (1, 5, SET), (0, 6, CLEAR),
                        (3, 7, HIT)))
    assert got["key"] == [1, 2, 3, 2, 1, 3, 1, 1, 3]
    assert got["op"] == [1, 1, 0, 2, 2, 2, 1, 2, 0]
    assert got["time"] == [1, 1, 1, 2, 3, 3, 5, 6, 7]


# -- nobody can read a key out of it ------------------------------------------------------------------------

def unpacked(path: Path) -> bytes:
    return path.read_bytes() + b"".join(raw for _, _, raw in tapefile.frames(path))


def test_neither_keys_nor_values_are_in_the_file(tmp_path: Path) -> None:
    secrets = [f"secret-{number:06d}" for number in range(200)]
    cache: Cache[Any, Any] = Cache(None)
    with cache.record(tmp_path / "file"):
        for key in secrets:
            cache.set(key, key[::-1], namespace=key.upper())
            cache.get(key)
        for number in range(10**12, 10**12 + 50):       # whose hash is the number itself
            cache[number] = number
    data = unpacked(tmp_path / "file")
    for key in secrets:
        for word in (key, key[::-1], key.upper()):
            assert word.encode() not in data
        assert struct.pack("<q", hash(key)) not in data
    for number in range(10**12, 10**12 + 50):
        assert struct.pack("<q", number) not in data and str(number).encode() not in data


def test_hashes_differ_between_recordings_unless_a_salt_is_given(tmp_path: Path) -> None:
    cache: Cache[Any, Any] = Cache(None)
    keys: dict[Any, set[int]] = {}
    for number, salt in enumerate([None, None, SALT, SALT, SALT.encode(), "b", 7]):
        with cache.record(tmp_path / f"{number}", salt=salt):
            cache.get("key")
        keys.setdefault((salt, number) if salt is None else salt, set()).update(read(tmp_path / f"{number}").events.key.tolist())
    assert len(keys[SALT]) == 1 and keys[SALT] == keys[SALT.encode()]
    assert len(set().union(*keys.values())) == 5
    assert SALT.encode() not in unpacked(tmp_path / "2")


def siphash(key: bytes, word: int) -> int:
    """SipHash-2-4 of eight bytes, from the figures of the paper."""
    mask = 2**64 - 1

    def rotated(x: int, b: int) -> int:
        return (x << b | x >> 64 - b) & mask

    k0, k1 = struct.unpack("<2Q", key[:16])
    a, b, c, d = k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573

    def rounds(n: int) -> None:
        nonlocal a, b, c, d
        for _ in range(n):
            a, c = (a + b) & mask, (c + d) & mask
            b, d = rotated(b, 13) ^ a, rotated(d, 16) ^ c
            a = rotated(a, 32)
            c, a = (c + b) & mask, (a + d) & mask
            b, d = rotated(b, 17) ^ c, rotated(d, 21) ^ a
            c = rotated(c, 32)

    for m in (word, 8 << 56):
        d ^= m
        rounds(2)
        a ^= m
    c ^= 0xFF
    rounds(4)
    return a ^ b ^ c ^ d


@given(st.binary(min_size=24, max_size=24), st.integers(0, 2**64 - 1))
def test_the_hash_is_siphash(key: bytes, word: int) -> None:
    assert _core.sip64(key, word) == siphash(key, word)


def test_the_hash_agrees_with_the_published_vector() -> None:
    assert _core.sip64(bytes(range(16)), int.from_bytes(bytes(range(8)), "little")) == 0x93F5F5799A932462


# -- samples ------------------------------------------------------------------------------------------------

def test_a_sample_is_of_whole_keys(tmp_path: Path) -> None:
    whole, part = tmp_path / "whole", tmp_path / "part"
    for path, sample in ((whole, 1.0), (part, 0.25)):
        cache: Cache[Any, Any] = Cache(200, policy="sieve")       # whose victims no draw decides
        with cache.record(path, sample=sample, salt=SALT):
            for key in zipf(20_000, 4000):
                by_get(cache, key)
    everything, some = read(whole).events, read(part).events
    kept = np.isin(everything.key, some.key)
    assert [column[kept].tolist() for column in (everything.key, everything.what)] == [some.key.tolist(), some.what.tolist()]
    share = len(np.unique(some.key)) / len(np.unique(everything.key))
    assert abs(share - 0.25) < 0.05         # of 2,000 keys: five standard deviations
    assert read(part).sample == 0.25
    for e, near in ((everything, 0.06), (some, 0.12)):      # half of the keys outlive a halving
        survive = e.level[np.unique(e.key, return_index=True)[1]] >= 1
        assert abs(survive.mean() - 0.5) < near


@settings(max_examples=60, deadline=None)
@given(keys=st.lists(st.integers(0, 60), max_size=400), takes=st.sets(st.integers(0, 400)), sample=st.sampled_from([1.0, 0.5]))
def test_a_full_ring_lets_go_of_whole_keys(keys: list[int], takes: set[int], sample: float) -> None:
    cache: Cache[Any, Any] = Cache(None)
    secret = bytes(range(24))
    tape, everything = _core.Taper(sample, secret, 16, None), _core.Taper(sample, secret, 4096, None)
    noted: dict[str, list[bytes]] = {"part": [], "whole": []}
    for name, each in (("part", tape), ("whole", everything)):
        for key in range(61):
            cache.pop(key, None)
        cache._tape_start(each)
        for at, key in enumerate(keys):
            by_get(cache, key)
            if at in takes:
                noted[name].append(each.take(9))
        noted[name].append(each.take(4096))
        cache._tape_stop(each)
    part, whole = (np.frombuffer(b"".join(noted[name]), tapefile.NOTE) for name in ("part", "whole"))
    assert everything.halved == everything.dropped == 0
    kept, all_of_them = part[part["level"] >= tape.halved], whole[whole["level"] >= tape.halved]
    assert kept[["key", "what"]].tolist() == all_of_them[["key", "what"]].tolist()
    assert (tape.dropped == 0) == (tape.halved == 0) and len(part) + tape.dropped <= len(whole)


def test_a_reader_leaves_out_what_was_written_of_keys_that_were_let_go_of_later(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(recording, "RING", 64)
    monkeypatch.setattr(recording, "LEAST_RING", 64)
    cache: Cache[Any, Any] = Cache(None)
    recorder = cache.record(tmp_path / "file", salt=SALT)
    monkeypatch.setattr(recorder, "look", lambda: None)     # the thread does not come
    for key in range(20):
        cache.get(key)
    recorder.flush()
    assert recorder.sample == 1 and recorder.events == 20
    for key in [*range(100), *range(20)]:
        cache.get(key)
    recorder.close()
    got = read(tmp_path / "file")
    assert recorder.dropped > 0 and got.sample == recorder.sample < 1
    seen = Counter(hashed(range(100))[int(key)] for key in got.events.key)
    assert 0 < len(seen) < 64
    assert all(n == (3 if key < 20 else 1) for key, n in seen.items())


def test_an_operation_gives_way_to_a_writer_that_lags(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(recording, "RING", 64)
    monkeypatch.setattr(recording, "LEAST_RING", 64)
    cache: Cache[Any, Any] = Cache(None)
    recorder = cache.record(tmp_path / "file")
    monkeypatch.setattr(recorder, "look", lambda: None)
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            recorder.flush()        # in place of the thread

    monkeypatch.setattr(recording.time, "sleep", sleep)
    for key in range(100):
        cache.get(key)
    recorder.close()
    assert slept == [0.001] * 3 and recorder.dropped == 0 and recorder.events == 100


def test_without_a_thread_nothing_is_dropped_and_nobody_else_writes(tmp_path: Path) -> None:
    cache: Cache[Any, Any] = Cache(100, expiry=Learned(learner="manual", seed=1, memory_price=1e-3), timer=Clock())
    before = set(threading.enumerate())
    with cache.record(tmp_path / "file") as recorder:
        for key in zipf(60_000, 400):
            cache.get(key)
        assert recorder.events >= 49_152 and set(threading.enumerate()) <= before
    assert recorder.events == 60_000 and recorder.dropped == 0


# -- bounds and trouble -------------------------------------------------------------------------------------

@pytest.mark.parametrize("thread", [True, False])
def test_a_full_recording_ends_by_itself(thread: bool, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(recording, "RING", 1 << 14)
    cache: Cache[Any, Any] = Cache(None)
    recorder = cache.record(tmp_path / "file", max_bytes=1 << 14, thread=thread)
    for key in range(6000):
        cache.get(key)
        if key % 500 == 0:
            recorder.flush()
    assert not recorder.running and recorder.reason == "full" and cache.recording is None
    assert (tmp_path / "file").stat().st_size <= 1 << 14
    got = read(tmp_path / "file")
    assert got.end is not None and got.end["reason"] == "full" and got.end["events"] == len(got) == recorder.events > 500
    assert got.events.key.tolist() == list(dict.fromkeys(got.events.key.tolist()))
    recorder.close()
    waiting = recorder._tape.waiting
    cache.get("more")
    assert recorder.reason == "full" and recorder._tape.waiting == waiting


def test_a_full_disk_ends_the_recording_and_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache: Cache[Any, Any] = Cache(100)
    recorder = cache.record(tmp_path / "file")
    assert recorder._file is not None
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, recorder._file.fileno())
    os.close(full)
    caplog.set_level(logging.ERROR, "adaptcache")
    for key in zipf():
        by_get(cache, key)
    recorder.flush()
    assert isinstance(recorder.error, OSError) and recorder.error.errno == 28 and not recorder.running
    assert len([entry for entry in caplog.records if "recording" in entry.message]) == 1
    recorder.close()
    waiting = recorder._tape.waiting
    by_get(cache, 1)
    cache._check()
    assert recorder._tape.waiting == waiting
    with cache.record(tmp_path / "again"):
        cache.get(1)
    assert len(read(tmp_path / "again")) == 1


def test_a_write_that_fails_half_way_leaves_whole_blocks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache: Cache[Any, Any] = Cache(None)
    recorder = cache.record(tmp_path / "file")
    cache.get(1)
    recorder.flush()
    file = recorder._file
    assert file is not None

    class Failing:
        def __init__(self) -> None:
            self.calls = 0

        def write(self, data: memoryview) -> int:
            self.calls += 1
            if self.calls > 1:
                raise OSError(28, "full")
            return file.write(data[:5])

        def __getattr__(self, name: str) -> Any:
            return getattr(file, name)

    recorder._file = Failing()      # type: ignore[assignment]
    cache.get(2)
    recorder.flush()
    assert recorder.error is not None and not recorder.running
    got = read(tmp_path / "file")
    assert len(got) == 1 and got.cut is None and got.end is None


def test_what_it_cannot_be_made_with_is_refused_and_nothing_is_touched(tmp_path: Path) -> None:
    cache: Cache[Any, Any] = Cache(10)
    foreign = tmp_path / "foreign"
    foreign.write_text("mine")
    for path, options, error, word in [
        (tmp_path, {}, ValueError, "path"), (foreign, {}, ValueError, "path"), (tmp_path / "no" / "file", {}, OSError, "no"),
        (tmp_path / "x", {"sample": 0}, ValueError, "sample"), (tmp_path / "x", {"sample": 1.5}, ValueError, "sample"),
        (tmp_path / "x", {"sample": "all"}, TypeError, "sample"), (tmp_path / "x", {"max_bytes": 100}, ValueError, "max_bytes"),
        (tmp_path / "x", {"salt": 1.5}, TypeError, "salt"),
    ]:
        with pytest.raises(error, match=word):
            cache.record(path, **options)       # type: ignore[arg-type]
    for wrong in ({}, len, print, object(), None, functools_cached):
        with pytest.raises(TypeError, match="cache: expected"):
            record(tmp_path / "x", wrong)
    with pytest.raises(TypeError, match=r"it is record\(path, cache\)"):
        record(cache, tmp_path / "x")       # type: ignore[arg-type]
    assert foreign.read_text() == "mine" and sorted(p.name for p in tmp_path.iterdir()) == ["foreign"]
    assert cache.recording is None and not recording._RUNNING


def functools_cached() -> None:
    """A function that nobody decorated."""


def test_the_recording_before_is_kept_and_the_one_that_runs_is_closed(tmp_path: Path) -> None:
    cache: Cache[Any, Any] = Cache(10)
    first = cache.record(tmp_path / "file")
    cache.get(1)
    second = cache.record(tmp_path / "file")
    assert first.reason == "closed" and cache.recording is second and second.running
    cache.get(1)
    cache.get(2)
    second.close()
    second.close()
    assert cache.recording is None and second.reason == "closed"
    assert (len(read(tmp_path / "file.1")), len(read(tmp_path / "file"))) == (1, 2)
    cache.get(3)
    assert second.events == 2 and second._tape.waiting == 0      # it is not even noted
    assert "2 events of 1 of the keys, closed" in repr(second)


def test_an_exception_in_the_block_closes_it_and_goes_on(tmp_path: Path) -> None:
    cache: Cache[Any, Any] = Cache(10)
    with pytest.raises(ZeroDivisionError), cache.record(tmp_path / "file") as recorder:
        cache.get(1)
        cache.get_or_load(2, lambda key: 1 / 0)
    assert recorder.reason == "closed" and told(tmp_path / "file", {}) == [(MISS, None), (MISS, None)]


# -- caches that are copied, dropped, forked, shared --------------------------------------------------------

def test_a_copy_of_a_recorded_cache_is_not_recorded(tmp_path: Path) -> None:
    cache: Cache[Any, Any] = Cache(10, policy="lru")
    with cache.record(tmp_path / "file") as recorder:
        cache[1] = 1
        for new in (copy.copy(cache), copy.deepcopy(cache), pickle.loads(pickle.dumps(cache))):
            assert new == cache and new.recording is None and cache.recording is recorder
            new[2] = 2
            new.get(1)
            new._check()
        with pytest.raises(TypeError):
            pickle.dumps(recorder)
    assert [what for what, _ in told(tmp_path / "file", {})] == [SET]


@pytest.mark.parametrize("thread", [True, False])
@pytest.mark.parametrize("cycle", [True, False])
def test_a_cache_that_goes_ends_its_recording_with_all_that_was_asked(thread: bool, cycle: bool, tmp_path: Path) -> None:
    cache: Cache[Any, Any] = Cache(10)
    recorder = cache.record(tmp_path / "file", thread=thread)
    cache[1] = 1
    cache.get(1)
    if cycle:
        cache["me"] = cache
    del cache
    gc.collect()
    recorder.look()         # as the thread does
    with recorder._lock:    # which may be doing so itself
        pass
    assert not recorder.running and recorder.reason == "the cache is gone" and recorder not in recording._RUNNING
    got = read(tmp_path / "file")
    assert got.end is not None and got.end["hits"] is None and len(got) == 2 + cycle


def test_a_recording_does_not_keep_its_cache(tmp_path: Path) -> None:
    import weakref

    cache: Cache[Any, Any] = Cache(10)
    cache.record(tmp_path / "file")
    gone = weakref.ref(cache)
    del cache
    assert gone() is None
    for each in list(recording._RUNNING):
        each.look()


@pytest.mark.parametrize("thread", [True, False])
def test_threads_write_one_recording(thread: bool, tmp_path: Path) -> None:
    cache: Cache[Any, Any] = Cache(60, policy="lru")
    keys = {name: [(name, key) for key in zipf(4000, 100, seed=name)] for name in range(4)}

    def work(name: int) -> None:
        for key in keys[name]:
            if key[1] % 2:
                by_pair(cache, key)
            else:
                cache.get_or_load(key, str)

    with cache.record(tmp_path / "file", salt=SALT, thread=thread) as recorder:
        workers = [threading.Thread(target=work, args=(name,)) for name in keys]
        for worker in workers:
            worker.start()
        for _ in range(20):
            recorder.flush()
        for worker in workers:
            worker.join()
    cache._check()
    assert recorder.dropped == 0
    e = read(tmp_path / "file").events
    names = hashed({key for each in keys.values() for key in each})
    asked: dict[int, list[Any]] = defaultdict(list)
    for key, what in zip(e.key.tolist(), e.what.tolist(), strict=True):
        if what in (HIT, MISS):
            asked[names[key][0]].append(names[key])
    assert asked == keys        # each thread's requests, in its order
    stats = cache.stats()
    assert Counter(e.what.tolist())[HIT] == stats.hits and Counter(e.what.tolist())[MISS] == stats.misses


def by_pair(cache: Any, key: Any) -> None:
    if cache.get(key) is None:
        cache[key] = key


FORKED = """
import os, sys
from adaptcache import Cache
from adaptcache.recording import read

cache = Cache(None)
recorder = cache.record(sys.argv[1])
cache.get("a")
child = os.fork()
if not child:
    cache.get("child")
    recorder.close()
    with cache.record(sys.argv[1] + ".child"):
        cache.get("child")
    os._exit(0 if recorder.reason == "forked" and recorder.events == 0 and len(read(sys.argv[1] + ".child")) == 1 else 1)
status = os.waitpid(child, 0)[1]
cache.get("b")
"""


def test_a_forked_child_leaves_the_file_to_its_parent(tmp_path: Path) -> None:
    script = FORKED + "recorder.close()\nsys.exit(status or recorder.events != 2)"
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "file")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(read(tmp_path / "file")) == 2


def test_what_was_asked_is_written_when_the_process_ends(tmp_path: Path) -> None:
    script = FORKED[:FORKED.index("child =")]
    done = subprocess.run([sys.executable, "-W", "error", "-c", script, str(tmp_path / "file")], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    got = read(tmp_path / "file")
    assert len(got) == 1 and got.end is not None


def test_a_process_that_is_killed_leaves_what_was_written(tmp_path: Path) -> None:
    script = FORKED[:FORKED.index("child =")] + "recorder.flush()\ncache.get('b')\nos.kill(os.getpid(), 9)"
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "file")], capture_output=True, text=True)
    assert done.returncode == -9
    got = read(tmp_path / "file")
    assert len(got) == 1 and got.end is None and got.cut is None


def test_recordings_may_begin_and_end_within_an_operation(tmp_path: Path) -> None:
    class Key:
        def __init__(self, act: Any) -> None:
            self.act = act

        def __hash__(self) -> int:
            return 1

        def __eq__(self, other: object) -> bool:
            self.act()
            return False

    cache: Cache[Any, Any] = Cache(10, policy="lru")
    cache[Key(lambda: cache.record(tmp_path / "file"))] = 1
    cache.get(1)            # `==` begins one, when this request was on the short way
    recorder = cache.recording
    assert recorder is not None
    cache.clear()
    cache[Key(recorder.close)] = 1
    cache.get(1)
    assert recorder.reason == "closed" and cache.recording is None
    cache._check()
    assert [what for what, _ in told(tmp_path / "file", {})][-2:] == [CLEAR, SET]


def test_a_callback_may_close_it(tmp_path: Path) -> None:
    cache: Cache[Any, Any] = Cache(1, on_removal=lambda *removed: cache.recording and cache.recording.close())
    recorder = cache.record(tmp_path / "file")
    cache[1] = 1
    cache[2] = 2
    cache[3] = 3
    assert recorder.reason == "closed" and recorder.events == 2
    assert list(cache) == [3]


# -- damage -------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def whole(tmp_path_factory: Any) -> bytes:
    """A recording of several blocks."""
    path = tmp_path_factory.mktemp("damage") / "file"
    cache: Cache[Any, Any] = Cache(5)
    with cache.record(path, names=True) as recorder:
        for part in range(3):
            for key in zipf(20, 9, seed=part):
                if cache.get(key) is None:
                    cache.set(key, key, size=0.5, cost=2, ttl=60, namespace=part)
            recorder.flush()
    return path.read_bytes()


def test_every_damaged_byte_is_noticed(whole: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1:])
        with pytest.raises(TraceError, match=r"file: offset \d+: "):
            read(path)


def test_a_file_that_was_cut_off_is_read_up_to_there(whole: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "file"
    path.write_bytes(whole)
    everything = read(path).events
    begin = [at for at, _, _ in tapefile.frames(path)] + [len(whole)]
    seen = set()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        caplog.clear()
        if length < begin[1]:
            with pytest.raises(TraceError, match=r"offset \d+: "):
                read(path)
            continue
        got = read(path)
        n = len(got)
        seen.add(n)
        assert [column.tolist() for column in got.events] == [column[:n].tolist() for column in everything]
        assert got.cut == (None if length in begin else max(at for at in begin if at < length))
        assert got.end is None and (got.cut is None) == (caplog.text == "")
        if length in begin:
            path.write_bytes(whole[:length] + bytes(100))       # the file had been made longer, and the power went
            assert len(read(path)) == n
    assert seen >= {0, len(everything.key)} and len(seen) == 4


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_raises_anything_but_trace_error(whole: bytes, data: Any, tmp_path: Path) -> None:
    path = tmp_path / "file"
    at = data.draw(st.integers(0, len(whole)))
    until = data.draw(st.integers(at, min(len(whole), at + 40)))
    path.write_bytes(whole[:at] + data.draw(st.binary(max_size=60)) + whole[until:])
    try:
        read(path)
    except TraceError as error:
        assert str(path) in str(error)


@pytest.mark.parametrize(("blocks", "says"), [
    ([(ord("E"), b"x")], "this block does not hold what it should"),
    ([(ord("H"), b"{}"), (ord("H"), b"{}")], "once"),
    ([(ord("H"), b"[]")], "no JSON object"),
    ([(ord("H"), b"{}"), (ord("Q"), b"{}")], "unknown kind"),
    ([(ord("H"), b"{}"), (ord("Z"), b"{}"), (ord("N"), b"{}")], "after the end"),
    ([(ord("H"), b"{}"), (ord("E"), struct.pack("<IIqBBBx", 2**31, 1, 0, 1, 0, 0))], "does not hold"),
    ([(ord("H"), b"{}"), (ord("E"), struct.pack("<IIqBBBx", 1, 1, 0, 3, 0, 0) + bytes(30))], "impossible"),
    ([(ord("H"), b"{}"), (ord("E"), struct.pack("<IIqBBBx", 1, 1, 0, 1, 0, 0) + bytes(9) + b"\1\0" + bytes(2))], "fit together"),
])
def test_whole_blocks_of_nonsense_are_refused(blocks: Any, says: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(tapefile.head() + b"".join(tapefile.frame(kind, raw) for kind, raw in blocks))
    with pytest.raises(TraceError, match=rf"offset \d+: .*{says}"):
        read(path)


def test_a_block_that_unpacks_to_more_than_it_says_is_refused(tmp_path: Path) -> None:
    stored = zlib.compress(bytes(10_000_000))
    for raw in (100, 2**31):
        start = tapefile.FRAME.pack(ord("H"), len(stored), raw, zlib.crc32(stored))
        (tmp_path / "file").write_bytes(tapefile.head() + start + tapefile.CHECK.pack(zlib.crc32(start)) + stored)
        with pytest.raises(TraceError, match=r"offset 12: "):
            read(tmp_path / "file")


def test_a_file_written_from_the_description_alone_is_read_compressed_too(tmp_path: Path) -> None:
    """Two keys: a miss of one, its load, a hit; then a write of the other, 3 s in, of size 7 and for 60 s."""
    keys = struct.pack("<2Q", 11, 2**63 + 5) + bytes([1, 0])
    columns = struct.pack("<4H", 0, 0, 0, 1) + bytes([1, 3, 0, 2]) + struct.pack("<4I", 0, 10**9, 10**9, 10**9)
    sizes, ttls = struct.pack("<4d", -1, 2, 2, 7), struct.pack("<4d", 0, 0, 0, 60)
    told = struct.pack("<IIqBBBx", 4, 2, 5 * 10**9, 4, 1 + 2, 0) + keys + columns + sizes + ttls
    data = b"\x89ACT\r\n\x1a\n" + struct.pack("<HH", 1, 0)
    for kind, raw in ((b"H", b'{"sample": 1}'), (b"E", told), (b"Z", b'{"events": 4}')):
        stored = zlib.compress(raw, 9)
        start = kind + bytes(3) + struct.pack("<III", len(stored), len(raw), zlib.crc32(stored))
        data += start + struct.pack("<I", zlib.crc32(start)) + stored
    (tmp_path / "plain").write_bytes(data)
    (tmp_path / "packed.gz").write_bytes(gzip.compress(data))
    for name in ("plain", "packed.gz"):
        trace = readers.read(tmp_path / name)
        assert trace.key.tolist() == [0, 0, 1] and trace.op.tolist() == [0, 0, 1] and trace.time.tolist() == [6, 7, 8]
        assert trace.size.tolist() == [2, 2, 7] and trace.ttl.tolist() == [0, 0, 60]
    (tmp_path / "packed.gz").write_bytes(gzip.compress(data)[:-20])
    with pytest.raises(TraceError, match="damaged or cut short"):
        readers.read(tmp_path / "packed.gz")


def test_another_version_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(tapefile.HEAD.pack(tapefile.MAGIC, 2, 0))
    with pytest.raises(TraceError, match=r"version 2\.0; this adaptcache reads 1\.0"):
        read(tmp_path / "file")


# -- on the command line ------------------------------------------------------------------------------------

def test_simulate_takes_a_recording(tmp_path: Path) -> None:
    path = tmp_path / "shop.act"
    cache: Cache[Any, Any] = Cache(40, policy="lru")
    with cache.record(path):
        for key in zipf():
            by_get(cache, key)
    for more in ([], ["--format", "recording"]):
        done = CliRunner().invoke(command, ["simulate", str(path), "--policy", "lru", "--size", "40", "--json", *more])
        assert done.exit_code == 0, done.output
        line = json.loads(done.output)
        assert (line["trace"], line["hits"], line["requests"]) == ("shop", cache.stats().hits, 4000)
    path.write_bytes(path.read_bytes()[:300] + b"x" + path.read_bytes()[301:])
    done = CliRunner().invoke(command, ["simulate", str(path), "--policy", "lru"])
    assert done.exit_code == 1 and "offset" in done.output and "Traceback" not in done.output


def test_a_recording_of_nothing_is_no_trace(tmp_path: Path) -> None:
    cache: Cache[Any, Any] = Cache(40)
    cache.record(tmp_path / "file").close()
    assert len(rows(tmp_path / "file")["key"]) == 0
    with pytest.raises(TraceError, match="holds no operation"):
        readers.read(tmp_path / "file")


def test_limit_keeps_the_first_rows(tmp_path: Path) -> None:
    cache: Cache[Any, Any] = Cache(40)
    with cache.record(tmp_path / "file"):
        for key in [1, 2, 1, 3]:
            by_get(cache, key)
    assert readers.read(tmp_path / "file", limit=3).key.tolist() == [0, 1, 0]
