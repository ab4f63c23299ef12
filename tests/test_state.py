"""Learned state outlives a process, and nothing but a whole file of this version is ever believed."""
import pickle
import random

import pytest

from adaptcache import Cache, Fixed, Learned, StateError

SPEC = Learned(memory_price=0.01, learner="manual", seed=3)


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def trained(clock):
    cache = Cache(None, expiry=SPEC, timer=clock)
    rng = random.Random(5)
    for _ in range(6_000):
        clock.now += rng.expovariate(1.0)
        key = rng.randrange(20) if rng.random() < 0.6 else rng.random()
        cache.get_or_load(key, lambda _: 0, cost=1.0)
    return cache


def run_on(cache, clock):
    """What the next thousand requests cost in misses, and how long entries were held."""
    rng = random.Random(6)
    before = cache.stats()
    held = 0
    for _ in range(1_000):
        clock.now += rng.expovariate(1.0)
        key = rng.randrange(20) if rng.random() < 0.6 else rng.random()
        cache.get_or_load(key, lambda _: 0, cost=1.0)
        held += len(cache)
    return cache.stats().misses - before.misses + 0.01 * held


def test_a_restart_does_not_start_cold(tmp_path):
    clock = Clock()
    cache = trained(clock)
    cache.save(tmp_path / "state")
    again = Cache.load(tmp_path / "state", None, expiry=SPEC, timer=clock)
    assert again._knowledge().document() == cache._knowledge().document()
    cold_clock, warm_clock = Clock(), Clock()
    cold = run_on(Cache(None, expiry=SPEC, timer=cold_clock), cold_clock)
    warm = run_on(Cache.load(tmp_path / "state", None, expiry=SPEC, timer=warm_clock), warm_clock)
    assert warm < cold


def test_entries_come_back_for_the_time_they_had_left(tmp_path):
    clock = Clock()
    cache = Cache(9, expiry=Fixed(10), timer=clock)
    cache["a"] = [1]
    clock.now = 4
    cache["b"] = None
    cache.save(tmp_path / "state", entries=True)
    later = Clock()
    again = Cache.load(tmp_path / "state", 9, entries=True, expiry=Fixed(10), timer=later)
    assert dict(again.items()) == {"a": [1], "b": None}
    assert again.expires_in("a") == pytest.approx(6)
    later.now = 6
    assert list(again) == ["b"]


@pytest.mark.parametrize("damage", [
    lambda data: data[:-1],
    lambda data: data[:40],
    lambda data: b"",
    lambda data: data.replace(b"state 2", b"state 3", 1),
    lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:],
    lambda data: b"PK" + data,
], ids=["cut", "cut short", "empty", "other version", "bit flip", "foreign"])
def test_a_damaged_or_foreign_file_is_refused(tmp_path, damage):
    path = tmp_path / "state"
    Cache(3, expiry=SPEC, timer=Clock()).save(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(StateError, match="state"):
        Cache.load(path, 3, expiry=SPEC, timer=Clock())


def test_a_state_of_other_predictors_is_refused(tmp_path):
    Cache(3, expiry=SPEC, timer=Clock()).save(tmp_path / "state")
    other = Learned(memory_price=0.01, learner="manual", predictors=("table",))
    with pytest.raises(StateError, match="predictors"):
        Cache.load(tmp_path / "state", 3, expiry=other, timer=Clock())


def test_entries_that_were_not_saved_are_missed_aloud(tmp_path):
    Cache(3).save(tmp_path / "state")
    with pytest.raises(StateError, match="without entries"):
        Cache.load(tmp_path / "state", 3, entries=True)


def test_a_failed_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "state"
    Cache(3).save(path)
    before = path.read_bytes()
    cache = Cache(3)
    cache["x"] = lambda: 0      # cannot be pickled
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        cache.save(path, entries=True)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
