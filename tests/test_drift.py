"""Drift is noticed, answered and got over, and what is out of a model's scope is told; stats show all of it."""
from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from adaptcache import Cache, Learned, _learntest
from adaptcache.learn.river_models import DAY, Scope


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def cache_of(clock: Clock, **options: Any) -> Cache[Any, Any]:
    given = {"memory_price": 0.05, "learner": "manual", "seed": 1, "predictors": ("table",)} | options
    return Cache(None, expiry=Learned(**given), timer=clock)


def habits(rows: int, turned: bool, start: float = 0.0, first: int = 0) -> list[tuple[float, int]]:
    """A short gap is followed by nothing and a long one by a request; `turned`: the other way round."""
    dice, out, key = random.Random(4), [], first
    while len(out) < rows:
        key += 1
        time, short = start + (key - first) * 0.5, key % 2 == 0
        for gap in (0.5 if short else 6.0, 5.0):
            out.append((time, key))
            time += gap * dice.uniform(0.9, 1.1)
        if short == turned:
            out.append((time, key))
    return sorted(out)


def run(cache: Cache[Any, Any], clock: Clock, rows: list[tuple[float, int]]) -> list[Any]:
    """Stats after every 250 requests."""
    seen = []
    for at, (now, key) in enumerate(rows):
        clock.now = now
        cache.get_or_load(key, lambda _: 0, cost=1.0)
        if at % 50 == 0:
            cache.learn()
        if at % 250 == 249:
            seen.append(cache.stats())
    return seen


def test_alarm_then_fallback_then_recovery() -> None:
    """Habits turn round: an alarm, a fallback that says why, and its end with no further alarm."""
    clock = Clock()
    cache = cache_of(clock, premature=1.0, memory_price=0.1)
    before = run(cache, clock, habits(15_000, False))
    assert not any(stats.drift_alarms or stats.fallback for stats in before)
    assert before[-1].calm > 2000
    after = run(cache, clock, habits(15_000, True, clock.now, 1 << 20))
    first = next((at for at, stats in enumerate(after) if stats.drift_alarms), None)
    assert first is not None, "no alarm"
    assert first < 12                                   # within 3,000 requests
    assert after[first].fallback and after[first].fallback_reason == "drift" and after[first].alarms["cost"] == 1
    assert after[first].calm < before[-1].calm
    sane = next(at for at, stats in enumerate(after) if at > first and not stats.fallback)
    assert sane - first < 12
    assert not any(stats.fallback for stats in after[sane:])
    assert after[-1].drift_alarms == 1 and after[-1].fallback_reason == "" and after[-1].calm >= 30 * 32


def test_the_guard_s_error_raises_an_alarm_of_its_own() -> None:
    """Losses that come more often than they did are drift, whatever the costs say."""
    cache = cache_of(Clock())
    trainer = cache._trainer
    assert trainer is not None
    protected, over = 0, 0.0
    for _ in range(100):
        protected += 64
        over += -0.01 * 64
        trainer.step(protected, over)
    assert trainer.alarms == {"cost": 0, "guard": 0}
    for _ in range(100):
        protected += 64
        over += 0.2 * 64
        trainer.step(protected, over)
    assert trainer.alarms["guard"] >= 1 and trainer.alarms["cost"] == 0
    stats = cache.stats()
    assert stats.fallback and "drift" in stats.fallback_reason and stats.drift_alarms == trainer.alarms["guard"]


def test_fewer_losses_raise_no_alarm() -> None:
    trainer = cache_of(Clock())._trainer
    assert trainer is not None
    protected, over = 0, 0.0
    for share in [0.2] * 100 + [-0.01] * 100:
        protected += 64
        over += share * 64
        trainer.step(protected, over)
    assert trainer.alarms == {"cost": 0, "guard": 0}


def test_an_alarm_makes_cells_listen_and_gives_static_experts_their_share() -> None:
    clock = Clock()
    cache = cache_of(clock, predictors=("table", "river"))
    run(cache, clock, habits(8000, False))
    before = cache._knowledge()
    cache.brain.alarm()
    after = cache._knowledge()
    assert before is not None and after is not None
    for name, most in (("everyone", 200), ("habit", 100), ("habit2", 100), ("leaves", 100)):
        assert after.arrays[name]["n"].max() <= most
    assert before.arrays["everyone"]["n"].max() > 200
    np.testing.assert_allclose(after.arrays["everywhere"]["loss"], 0.25 * before.arrays["everywhere"]["loss"])


# -- scope -------------------------------------------------------------------------------------------------

def test_age_and_count_are_held_at_the_edge_and_nothing_else_is() -> None:
    low, high = np.full(20, -1, np.float32), np.full(20, 1, np.float32)
    for d in range(20):
        for value in (5.0, -5.0):
            x = np.zeros(20, np.float32)
            x[d] = value
            seen = _learntest.within_reach(x, low, high)
            if d in (12, 15):
                assert seen is not None and seen[d] == np.sign(value) and not np.delete(seen, d).any()
            else:
                assert seen is None
    x = np.zeros(20, np.float32)
    x[12] = np.nan
    assert _learntest.within_reach(x, low, high) is None


def test_the_time_of_day_speaks_once_most_of_a_day_was_seen() -> None:
    scope = Scope()

    def hours(start: float, stop: float) -> np.ndarray[Any, Any]:
        x = np.random.default_rng(0).normal(size=(100, 20)).astype(np.float32)
        turn = np.linspace(start, stop, 100) / 24 * 2 * np.pi
        x[:, 17], x[:, 18] = np.sin(turn), np.cos(turn)
        return x

    morning = hours(0, 6)
    scope.learn(morning)
    assert not set(DAY) & set(scope.scaled(morning)[0])
    low, high = scope.bounds()
    noon = hours(12, 13)[0]
    noon[:17], noon[19] = morning[0][:17], morning[0][19]
    assert _learntest.in_scope(noon, low, high)     # and so a later hour is no stranger
    scope.learn(hours(6, 24))
    assert set(DAY) <= set(scope.scaled(morning)[0])


def test_what_is_out_of_scope_is_counted_and_getting_older_is_not() -> None:
    clock = Clock()
    cache = cache_of(clock, predictors=("table", "river"))

    def ask(size: float, requests: int) -> int:
        dice, before = random.Random(2), cache.stats().out_of_scope
        for at in range(requests):
            clock.now += 0.5
            cache.get_or_load(dice.randrange(300), lambda _: 0, cost=1.0, size=dice.choice([1, 2, 3]) * size)
            if at % 50 == 0:
                cache.learn()
        return cache.stats().out_of_scope - before

    assert cache.stats().out_of_scope == 0
    ask(1, 4000)
    for _ in range(3):
        assert ask(1, 1500) < 60            # older, more often asked for, later in the day: no strangers
    assert ask(1000, 300) > 100             # of a size that nobody ever saw


# -- capacity ----------------------------------------------------------------------------------------------

BY_AGE = ["lru", "sieve"]           # and by what entries promise: "adaptive"


def pressed(price: float | None, floor: float = 0.0, policy: str = "adaptive", maxsize: int = 20) -> tuple[Cache[Any, Any], Clock]:
    clock = Clock()
    expiry = Learned(memory_price=price, learner="manual", seed=1, predictors=("table",), floor=floor)
    return Cache(maxsize, timer=clock, expiry=expiry, policy=policy), clock


def fill(cache: Cache[Any, Any], clock: Clock, requests: int, keys: int, cost: float = 1.0, size: int = 1, pause: float = 1.0) -> None:
    dice = random.Random(3)
    for _ in range(requests):
        clock.now += pause
        cache.get_or_load(dice.randrange(keys), lambda _: 0, cost=cost, size=size)


@pytest.mark.parametrize("policy", [*BY_AGE, "adaptive"])
@pytest.mark.parametrize("stated", [None, 1e-4])
def test_the_shadow_price_rises_under_pressure_and_falls_when_there_is_room(stated: float | None, policy: str) -> None:
    cache, clock = pressed(stated, policy=policy)
    floor = stated or 0.0
    fill(cache, clock, 10, 1000)
    assert cache.memory_price == pytest.approx(floor)
    fill(cache, clock, 2000, 1000)
    # Something of cost 1 went after about 20 seconds; and who knows that all keys are alike, knows that a hit takes 1000.
    assert cache.memory_price > (0.002 if policy in BY_AGE else 0.0005)
    cache.resize(200)
    fill(cache, clock, 4000, 60)
    assert cache.memory_price == pytest.approx(floor)


@pytest.mark.parametrize("policy", [*BY_AGE, "adaptive"])
def test_a_stated_price_above_the_shadow_price_stands(policy: str) -> None:
    cache, clock = pressed(0.5, floor=1000.0, policy=policy)    # held whatever the price says, so that capacity has to push
    fill(cache, clock, 2000, 1000)
    assert cache.stats().evictions > 1000
    assert cache.memory_price == pytest.approx(0.5)


@pytest.mark.parametrize(("keys", "cost", "size", "pause"), [(1000, 1.0, 1, 1.0), (200, 1.0, 1, 1.0), (200, 7.0, 3, 0.25)])
def test_the_shadow_price_of_adaptive_is_what_one_more_unit_of_room_would_save(keys: int, cost: float, size: int, pause: float) -> None:
    """All keys are alike: each entry has one hit in as many requests as there are keys, whoever leaves and how soon."""
    cache, clock = pressed(None, floor=1e6, maxsize=40 * size)
    fill(cache, clock, 6000, keys, cost, size, pause)
    assert cache.stats().evictions > 3000
    assert cache.memory_price == pytest.approx(cost / (size * keys * pause), rel=0.6)


def test_newcomers_that_adaptive_does_not_let_in_do_not_make_memory_dear() -> None:
    cache, clock = pressed(None)
    for at in range(6000):
        clock.now += 1.0
        cache.get_or_load(at if at % 2 else -1 - at // 2 % 15, lambda _: 0, cost=1.0)     # a scan, beside keys that come every 30 requests
    assert cache.stats().hits > 2500
    assert cache.memory_price < 1 / 30, "dearer than what is worth holding"


def test_where_the_least_promises_nothing_pressure_gives_memory_no_price() -> None:
    cache, clock = pressed(None)
    for key in range(20):
        cache.set(key, 0, cost=1.0)
    for _ in range(700):                # longer than adaptive looks ahead: 32 times the size
        clock.now += 1.0
        cache.get(19)
    cache.set("one more", 0, cost=1.0)
    assert cache.stats().evictions == 1 and cache.memory_price == 0


def test_a_weight_next_to_nothing_gives_no_price_without_end() -> None:
    cache, clock = pressed(None)
    for key in range(200):
        cache.set(key, 0, cost=1.0, size=5e-324)
    for key in range(1000, 1100):       # heavy newcomers, which leave before those
        clock.now += 1.0
        cache.set(key, 0, cost=1.0, size=15)
    assert cache.stats().evictions > 90 and cache.memory_price < 1e9


def test_pauses_are_part_of_the_pace() -> None:
    """The least promises so many hits per request; what that is in seconds, the requests of late tell, pauses and all."""
    prices = []
    for pause in (0.0, 9.0):
        cache, clock = pressed(None, floor=1e6)
        dice = random.Random(5)
        for at in range(4000):
            clock.now += 1.0 if at % 10 else 1.0 + pause
            cache.get_or_load(dice.randrange(300), lambda _: 0, cost=1.0)
        prices.append(cache.memory_price)
    assert prices[0] / prices[1] == pytest.approx(1.9, rel=0.15)


def test_pressure_does_not_shorten_the_window_that_was_promised() -> None:
    cache, clock = pressed(1e-3, policy="lru")
    fill(cache, clock, 2000, 1000)
    assert cache.memory_price > 0.01
    cache.set("k", 0, cost=1.0)
    why = cache.explain("k")
    assert why.window == pytest.approx(0.25 / 1e-3) and why.breakeven == pytest.approx(1 / cache.memory_price)
