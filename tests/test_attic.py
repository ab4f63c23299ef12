"""The attic: what is remembered of keys that nobody has asked for in a while, and what that costs."""
from __future__ import annotations

import importlib
import random
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptcache import Cache, Learned

_learntest: Any = importlib.import_module("adaptcache._learntest")

WINDOW, SECOND = _learntest.WINDOW, 10**9
COARSE = 1 << 16        # ns: what the attic can tell apart
HAZARDS, BEGAN, REACHED, SHARE = range(4)
LEVELS = {HAZARDS: (0, 1), BEGAN: (0, 40), REACHED: (0, 40), SHARE: (0, 1)}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


# -- the structure -------------------------------------------------------------------------

OPERATIONS = st.lists(st.tuples(st.sampled_from(("put", "put", "put", "get", "drop")), st.integers(-200, 200)), max_size=400)


@settings(max_examples=60, deadline=None)
@given(operations=OPERATIONS)
def test_a_key_is_found_from_when_it_was_put_until_it_was_dropped(operations: Any) -> None:
    attic, model = _learntest.Attic(1000), {}
    for at, (what, number) in enumerate(operations):
        key = number << 40 if number % 2 else number        # hashes of Python ints pile up in their low, or high, bits
        if what == "put" and key not in model:
            assert attic.put(key, at << 16, last=at << 16, count=1 + at % 200, gap1=at % 109)
            model[key] = (1 + at % 200, at % 109)
        elif what == "drop":
            assert attic.drop(key) == (model.pop(key, None) is not None)
        else:
            known = attic.get(key, 400 << 16)
            assert model.get(key) == (None if known is None else (known["count"], known["gap1"]))
        assert len(attic) == len(model) and attic.sound()


def test_a_remembered_key_costs_at_most_40_bytes_however_many_there_are() -> None:
    attic = _learntest.Attic(1 << 20)
    for key in range(300_000):
        attic.put(key, 0, last=0, key=[(0.5, 0.0, 9)] * WINDOW)
        if key + 1 in (20_000, 33_000, 70_000, 131_073, 300_000):
            assert attic.bytes() <= 40.0 * len(attic) + 25_000     # one chunk of memoirs and one of buckets are begun
    assert attic.bytes() / len(attic) < 40 and attic.sound()
    assert all(attic.get(key, 1) for key in range(0, 300_000, 997))


def test_memory_of_dropped_keys_is_used_again() -> None:
    attic = _learntest.Attic(1 << 20)
    for key in range(10_000):
        attic.put(key, 0, last=0)
    before = attic.bytes()
    for key in range(10_000):
        attic.drop(key)
        attic.put(-key - 2, 0, last=0)
    assert attic.bytes() == before and len(attic) == 10_000 and attic.sound()


def test_the_number_of_keys_is_bounded_and_the_idlest_for_their_count_make_room() -> None:
    attic = _learntest.Attic(500)
    for at in range(5000):
        attic.put(at, at * SECOND, last=at * SECOND, count=50 if at % 10 == 0 else 2, cost=1e9)
        assert len(attic) <= 500
    now = 5000 * SECOND
    kept = [at for at in range(5000) if attic.get(at, now)]
    assert len(kept) == 500 and attic.sound()
    often, seldom = [at for at in kept if at % 10 == 0], [at for at in kept if at % 10]
    assert mean(seldom) > 4300 and len(often) > 150 and mean(often) < mean(seldom) - 300


def test_a_key_is_forgotten_after_64_break_even_times_and_its_memory_is_swept() -> None:
    attic = _learntest.Attic(10_000)
    for key in range(100):
        attic.put(key, 0, last=0, cost=2.0)            # breaks even after two seconds
    assert attic.get(3, 127 * SECOND) is not None and attic.get(3, 129 * SECOND) is None
    for key in range(100, 152):                         # each looks at two others
        attic.put(key, 129 * SECOND, last=129 * SECOND)
    assert len(attic) <= 52 and attic.sound()


# -- packing -------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", LEVELS)
@settings(max_examples=50, deadline=None)
@given(part=st.floats(0, 1))
def test_rounding_is_right_on_average(kind: int, part: float) -> None:
    low, high = LEVELS[kind]
    x = low + part * (high - low)
    said = [_learntest.dithered(x, kind, (i + 0.5) / 1000) for i in range(1000)]
    assert mean(said) == pytest.approx(x, abs=0.02 * high)
    assert len(set(said)) <= 2
    for value in set(said):
        assert {_learntest.dithered(value, kind, (i + 0.5) / 10) for i in range(10)} == {value}     # levels stay what they are


CELLS = st.lists(st.tuples(st.integers(0, 21), st.booleans()), min_size=1, max_size=60)


def lived(waits: list[tuple[int, bool]]) -> list[tuple[float, float, int]]:
    """The cells of a key whose waits ended in these bins, by a request or a write; 21: by neither."""
    p, q, n = [0.0] * WINDOW, [0.0] * WINDOW, [0] * WINDOW
    for end, write in waits:
        for bin_ in range(min(end + 1, 21)):
            n[bin_] = min(n[bin_] + 1, 40)
            p[bin_] += ((bin_ == end and not write) - p[bin_]) / n[bin_]
            q[bin_] += ((bin_ == end and write) - q[bin_]) / n[bin_]
    return list(zip(p, q, n, strict=True))


@settings(max_examples=150, deadline=None)
@given(waits=CELLS, last=st.integers(0, 1 << 50), idle=st.integers(0, 1 << 40), size=st.floats(1e-3, 1e12), cost=st.floats(1e-6, 1e6),
       numbers=st.tuples(*[st.integers(0, 100)] * 2, st.integers(2, 255), st.integers(0, 4095)), age=st.integers(0, 1 << 20))
def test_what_was_packed_once_is_packed_again_without_loss(waits: Any, last: int, idle: int, size: float, cost: float, numbers: Any,
                                                           age: int) -> None:
    attic = _learntest.Attic(10)
    gap1, gap2, count, ns = numbers
    born = (last >> 24) - min(age, last >> 24)
    attic.put(1, last + idle, last=last, born=born, gap1=gap1, gap2=gap2, count=count, ns=ns, size=size, cost=cost, decayed=(2.6, 9.9),
              key=lived(waits), base=17)
    once = attic.get(1, last + idle, 0.0)
    assert last - COARSE < once["last"] <= last and once["base"] == 17
    assert (once["gap1"], once["gap2"], once["count"], once["ns"]) == (gap1, gap2, count, ns)
    assert once["size"] == pytest.approx(size, rel=0.004) and once["cost"] == pytest.approx(cost, rel=0.004)
    assert once["decayed"] == pytest.approx((2.6, 9.9), rel=0.05)
    seconds = (last >> 24) - born
    assert ((once["last"] >> 24) - once["born"]) % (1 << 32) == pytest.approx(seconds % (1 << 32), rel=0.05, abs=6)
    attic.drop(1)
    attic.put(1, last + idle + 77, **once)
    again = attic.get(1, last + idle + 77, 0.0)
    for name in ("last", "size", "cost", "decayed", "gap1", "gap2", "count", "ns", "base"):
        assert again[name] == once[name], name
    if all(n in (0, 1) for _, _, n in lived(waits)):
        assert again["key"] == once["key"] == lived(waits) or waits[0][0] < 8


@pytest.mark.parametrize("end", range(8, 21))
@pytest.mark.parametrize("write", [False, True])
def test_one_wait_is_remembered_as_it_was(end: int, write: bool) -> None:
    attic = _learntest.Attic(10)
    attic.put(1, 0, last=0, count=2, key=lived([(end, write)]))
    assert attic.get(1, 0)["key"] == lived([(end, write)])


def test_hazards_are_right_on_average_and_so_is_what_is_known_of_them() -> None:
    """A key with a habit, packed and unpacked: over many of them no bin is off."""
    dice = random.Random(2)
    attic, sums = _learntest.Attic(1 << 20), [[0.0, 0.0] for _ in range(WINDOW)]
    rounds = 400
    for number in range(rounds):
        cells = lived([(min(21, int(dice.gauss(15, 3))), dice.random() < 0.2) for _ in range(12)])
        attic.put(number, 0, last=0, count=13, key=cells)
        for bin_, ((p, q, n), (p2, q2, n2)) in enumerate(zip(cells, attic.get(number, 0)["key"], strict=True)):
            if bin_ >= 8:
                sums[bin_][0] += (p + q) * n - (p2 + q2) * n2
                sums[bin_][1] += n - n2
    for off, missing in sums[8:21]:
        assert abs(off / rounds) < 0.12 and abs(missing / rounds) < 0.4


def test_early_bins_share_their_chance() -> None:
    attic = _learntest.Attic(10)
    cells = lived([(2, False)] * 5 + [(21, False)] * 5)
    attic.put(1, 0, last=0, count=11, key=cells)
    stay = 1.0
    for p, q, _ in attic.get(1, 0)["key"][:4]:
        stay *= 1 - p - q
    assert stay == pytest.approx(0.5, abs=0.01)


# -- in a cache ----------------------------------------------------------------------------

SPEC = Learned(memory_price=0.1, learner="manual", seed=1, premature=1.0, predictors=("table",))    # breaks even after 10 seconds


def cache(clock: Clock, **given: Any) -> Cache:
    return Cache(None, expiry=SPEC, timer=clock, **given)


def ask(held: Cache, clock: Clock, key: Any, at: float) -> None:
    clock.now = at
    held.get_or_load(key, lambda _: 1, cost=1.0)


def test_a_key_whose_wait_ran_out_is_remembered_and_comes_back_with_its_history() -> None:
    clock = Clock()
    held = cache(clock)
    for at in (0, 2, 4, 6):
        ask(held, clock, 7, at)
    clock.now = 40
    held.expire()
    assert (held.brain.tracked, held.brain.remembered) == (0, 1) and len(held) == 0
    labels = held.brain.labels
    ask(held, clock, 7, 300)
    assert (held.brain.tracked, held.brain.remembered) == (1, 0)
    assert held.brain.labels == labels          # the time in the attic was no wait
    features = held.explain(7).features
    assert 2 ** features["log_count"] - 1 == pytest.approx(5)
    held._check()


def test_nothing_is_known_of_a_key_after_64_break_even_times() -> None:
    clock = Clock()
    held = cache(clock)
    for at in (0, 2, 4):
        ask(held, clock, 7, at)
    ask(held, clock, 8, 650)                    # 64 times ten seconds, and a little
    ask(held, clock, 7, 651)
    assert 2 ** held.explain(7).features["log_count"] - 1 == pytest.approx(1)
    held._check()


def test_the_cost_of_a_remembered_key_is_known() -> None:
    clock = Clock()
    held = cache(clock)
    clock.now = 0
    held.set(7, 1, cost=4.0)
    clock.now = 200
    held.expire()
    assert held.brain.remembered == 1 and 7 not in held
    held.set(7, 1)
    assert held.explain(7).cost == 4.0


def test_remembered_keys_are_saved_and_come_back(tmp_path: Path) -> None:
    clock = Clock()
    held = cache(clock)
    for key in range(20):
        for at in range(3 + key % 4):
            ask(held, clock, key, 100 * key + (1 + key % 3) * at)
    clock.now = 2000
    held.expire()
    ask(held, clock, 99, clock.now)
    held.save(tmp_path / "state")
    known = held._knowledge()
    assert known is not None
    forgotten = [key for key in range(20) if clock.now - (100 * key + (1 + key % 3) * (2 + key % 4)) > 640]
    assert 10 < len(forgotten) < 16
    assert sorted(known.keys["hash"].tolist()) == [key for key in range(20) if key not in forgotten]
    again = Cache.load(tmp_path / "state", None, expiry=SPEC, timer=clock)
    there = again._knowledge()
    assert there is not None and again.brain.remembered == len(known.keys) and again.brain.tracked == 0
    for name in known.keys.dtype.names or ():
        assert (there.keys[name] == known.keys[name]).all(), name
    again._check()


def test_what_a_cache_knows_already_is_not_overwritten_by_what_is_older(tmp_path: Path) -> None:
    clock = Clock()
    held = cache(clock)
    for at in (0, 2, 4):
        ask(held, clock, 7, at)
    clock.now = 100
    held.expire()
    held.save(tmp_path / "state")
    for at in (110, 112, 114):
        ask(held, clock, 7, at)
    clock.now = 200
    held.expire()
    before = held._knowledge()
    held.merge_state(tmp_path / "state")
    after = held._knowledge()
    assert before is not None and after is not None and len(after.keys) == 1
    assert after.keys["idle"][0] == before.keys["idle"][0] and after.keys["count"][0] == before.keys["count"][0] == 6
    held._check()


def test_who_is_not_followed_any_more_is_not_remembered_either() -> None:
    """Full: half of the keys are let go of, the remembered ones too, since their histories would have holes."""
    clock = Clock()
    held = Cache(None, expiry=Learned(memory_price=0.1, learner="manual", seed=1, max_keys=100, predictors=("table",)), timer=clock)
    for key in range(90):
        ask(held, clock, key, 0)
    clock.now = 40
    held.expire()
    assert held.brain.remembered == 90
    for key in range(1000, 1101):
        ask(held, clock, key, 41)
    assert 20 < held.brain.remembered < 70 and held.brain.tracked < 101
    held._check()


def test_at_most_four_keys_are_remembered_for_each_that_may_be_followed() -> None:
    clock = Clock()
    held = Cache(None, expiry=Learned(memory_price=1e-3, learner="manual", seed=1, max_keys=50, predictors=("table",)), timer=clock)
    for key in range(1000):
        clock.now = key * 200.0         # a thousand seconds to break even: some fourteen are followed at a time
        held.get_or_load(key, lambda _: 1, cost=1.0)
    clock.now += 5000
    held.expire()
    assert held.brain.remembered == 200
    held._check()


def test_followed_keys_take_no_more_room_than_may_be_followed() -> None:
    held = Cache(None, expiry=Learned(memory_price=1e-6, learner="manual", seed=1, max_keys=5_000, predictors=("table",)), timer=Clock())
    for key in range(20_000):
        held.set(key, 1)
    assert held.brain is not None and held.brain.tracked <= 5_000
    assert held.brain.footprint()[0] < 5_001 * 800
    held._check()
