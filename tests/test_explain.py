"""`explain`: the features that decide, the distribution that is expected, and the application's own names."""
from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from adaptcache import Cache, Learned, _core
from adaptcache.explain import accesses
from adaptcache.learn.predictor import NAMES, named


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Model:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.asked: list[dict[str, float]] = []
        self.learned: list[dict[str, float]] = []

    def learn(self, x: dict[str, float], y: float) -> None:
        self.learned.append(x)

    def predict(self, x: dict[str, float]) -> float:
        self.asked.append(x)
        return 1.0


def manual(clock: Clock, **options: Any) -> Cache[Any, Any]:
    return Cache(None, timer=clock, expiry=Learned(**{
        "memory_price": 0.25, "predictors": ("table",), "learner": "manual", "seed": 1, "premature": 1.0, **options}))


def periodic(cache: Cache[Any, Any], clock: Clock, period: float, times: int = 60, keys: int = 8) -> None:
    """Keys that come back after `period` seconds, always."""
    for _ in range(times):
        clock.now += period
        for key in range(keys):
            if cache.get(key) is None:
                cache.set(key, 1, cost=8, size=4, namespace="beat")
        cache.learn()


def test_distribution_is_one_and_rises_with_time() -> None:
    clock = Clock()
    cache = manual(clock)
    periodic(cache, clock, 0.7)
    clock.now += 0.1
    why = cache.explain(3)
    seconds = [at for at, _ in why.distribution]
    chances = [chance for _, chance in why.distribution]
    assert seconds == sorted(set(seconds)) and chances == sorted(chances)
    assert why.idle is not None and seconds[0] > why.idle, "what is past is out of the question"
    assert why.breakeven is not None and why.breakeven < seconds[-1] < 4 * why.breakeven
    assert all(0 <= chance <= 1 + 1e-9 for chance in chances)
    assert why.expects in why.verdicts


def test_distribution_knows_a_period() -> None:
    clock = Clock()
    cache = manual(clock)
    periodic(cache, clock, 0.7)
    by = dict(cache.explain(3).distribution)
    before = max(chance for at, chance in by.items() if at <= 0.7)
    after = min(chance for at, chance in by.items() if at > 0.7)
    assert before < 0.15 and after > 0.9


def test_distribution_of_what_never_comes_back_stays_low() -> None:
    clock = Clock()
    cache = manual(clock, premature=0.0)
    for key in range(600):
        clock.now += 0.5
        cache.set(key, 1, cost=8, size=4)
        cache.learn()
    newest = max(cache)         # one may be gone: with premature=0 one loss is allowed in all
    assert newest >= 590 and cache.explain(newest).distribution[-1][1] < 0.05


def test_distribution_agrees_with_the_chance_within_the_window() -> None:
    """`comes_back` is what the key's own table expects by the end of the window."""
    clock = Clock()
    cache = manual(clock)
    periodic(cache, clock, 0.7)
    why = cache.explain(3)
    assert why.comes_back is not None and why.window is not None
    assert why.expects == "table:key"
    points = [(0.0, 0.0), *why.distribution]
    for (low, less), (high, more) in pairwise(points):
        if low < why.window <= high:
            part = (why.window - low) / (high - low)
            assert why.comes_back == pytest.approx(less + part * (more - less), abs=1e-5)
            break
    else:
        raise AssertionError("the window is not in the distribution")


def test_all_features_of_the_model_are_there_under_the_users_names() -> None:
    clock = Clock()
    cache = manual(clock)
    clock.now = 6 * 3600.0
    cache.set("a", 1, cost=8, size=4, namespace="n", features={"tenant": "blue", "rows": 12})
    clock.now += 0.5
    cache.get("a")
    features = cache.explain("a").features
    assert list(features) == ["tenant", "rows", *NAMES[8:]]
    assert features["rows"] == 12 and 0 <= features["tenant"] <= 1
    assert features["log_size"] == 64 + 2 and features["log_cost"] == 64 + 3
    assert features["log_count"] == pytest.approx(math.log2(3)) and features["seen_before"] == 1
    assert features["log_breakeven"] == pytest.approx(math.log2(8e9), abs=1e-5)
    assert features["day_sin"] == pytest.approx(1.0, abs=1e-4)
    assert features["gap1"] > 0 and features["gap2"] == 0 and features["missed"] == 0


def test_an_unfollowed_key_is_explained_from_its_record() -> None:
    clock = Clock()
    cache = manual(clock, max_keys=1)
    for key in "abcd":
        cache.set(key, 1, cost=8, size=4)
    assert cache.brain is not None and cache.brain.tracked <= 1
    clock.now = 0.5
    for key in "abcd":
        why = cache.explain(key)
        assert why.features["log_size"] == 66 and why.features["log_cost"] == 67
        assert why.distribution and why.idle == 0.5


def test_models_see_the_users_names() -> None:
    clock, model = Clock(), Model()
    cache = manual(clock, predictors=(model,))
    for i in range(40):
        clock.now += 0.1
        cache.set(i % 4, 1, cost=8, features={"tenant": "t", "rows": i})
        cache.get(i % 4)
        cache.learn()
    assert model.asked and model.learned
    for x in model.asked[-20:] + model.learned[-20:]:
        assert list(x) == ["tenant", "rows", *NAMES[8:]]
    assert model.asked[-1]["rows"] == 39


def test_models_without_features_see_ours_alone() -> None:
    clock, model = Clock(), Model()
    cache = manual(clock, predictors=(model,))
    cache["a"] = 1
    cache.learn()
    assert list(model.asked[-1]) == list(NAMES[8:])


def test_a_name_that_is_ours_too_stays_the_users() -> None:
    clock, model = Clock(), Model()
    cache = manual(clock, predictors=(model,))
    cache.set("a", 1, cost=8, features={"gap1": 77.0, "missed_": 5.0, "missed": 6.0})
    cache.learn()
    x = model.asked[-1]
    assert (x["gap1"], x["gap1_"], x["missed"], x["missed_"], x["missed__"]) == (77, 0, 6, 5, 0)
    assert dict(cache.explain("a").features) == x
    assert len(named(range(len(NAMES)), ["namespace"] * 1)) == 1 + len(NAMES) - 8


def test_a_request_begins_anew_and_no_old_bound_is_named() -> None:
    clock = Clock()
    cache = manual(clock, premature=0.0)
    assert cache.brain is not None
    cache.brain.only = _core.SLOT_STATIC
    for key in "abc":
        cache.set(key, 1, cost=8, size=4)
    clock.now = 1.0
    assert cache.explain("c").bound == "guard"
    cache.brain.only = _core.SLOT_MULTIPLE
    cache.get("c")
    assert cache.explain("c").bound == "mixture"


def test_ceiling_is_named_in_the_sentence() -> None:
    cache = manual(Clock(), ceiling=50.0)
    cache.set("a", 1, cost=8, size=4)
    assert "ceiling" in str(cache.explain("a")) and "50 s" in str(cache.explain("a"))


@pytest.mark.parametrize("times", [1, 7, 15])
def test_accesses_are_exact_to_fifteen(times: int) -> None:
    cache = manual(Clock(), premature=0.0, floor=1.0)
    cache["a"] = 1
    for _ in range(times - 1):
        cache.get("a")
    assert cache.explain("a").accesses == times


def test_accesses_are_about_right_beyond() -> None:
    clock = Clock()
    cache = manual(clock)
    cache["a"] = 1
    for i in range(5000):
        clock.now += 0.001 + (i * 7919 % 1000) * 1e-6
        cache.get("a")
    seen = cache.explain("a").accesses
    assert seen is not None and 2500 < seen < 10_000
    assert [accesses(c) for c in (0, 15, 16, 31, 32)] == [0, 15, 17, 47, 51]


def test_a_loaded_state_brings_its_feature_columns(tmp_path: Path) -> None:
    """A new cache has the columns of the state, under the same names; one that met others first keeps its own."""
    clock = Clock()
    cache = manual(clock)
    for i in range(200):
        clock.now += 0.1
        cache.set(i % 4, 1, cost=8, features={"tenant": "t", "rows": 5.0})
        cache.get(i % 4)
        cache.learn()
    cache.save(tmp_path / "state")
    spec = Learned(memory_price=0.25, predictors=("table",), learner="manual", seed=1, premature=1.0)
    again = Cache.load(tmp_path / "state", None, timer=clock, expiry=spec)
    again.set("a", 1, cost=8, features={"rows": 9.0, "new": 3.0})
    features = again.explain("a").features
    assert list(features) == ["tenant", "rows", "new", *NAMES[8:]] and (features["rows"], features["new"]) == (9, 3)
    other = manual(clock)
    other.set("a", 1, cost=8, features={"rows": 9.0})
    other.merge_state(tmp_path / "state")
    other.set("a", 1, cost=8, features={"tenant": "t", "rows": 7.0})
    features = other.explain("a").features
    assert list(features) == ["rows", "tenant", *NAMES[8:]] and features["rows"] == 7
    assert features["tenant"] > 0.5, "what the word stands for was learned in another column"


def test_the_guard_explained_is_the_bank_of_the_namespace() -> None:
    clock = Clock()
    cache = manual(clock, premature={"mine": 0.5, None: 0.0}, floor=1.0)
    for namespace in ("mine", "other"):
        cache.set(namespace, 1, cost=8, size=4, namespace=namespace)
    for _ in range(5):
        cache.get("mine")
    assert cache.explain("mine").guard == {"credit": 0.5 * 5 + 1, "in_flight": 0, "premature": 0, "protected": 5}
    assert cache.explain("other").guard == {"credit": 1, "in_flight": 0, "premature": 0, "protected": 0}


class Twin:
    """Keys of one hash."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __hash__(self) -> int:
        return 5

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Twin) and self.number == other.number


@pytest.mark.parametrize("free", [{"cost": 0.0}, {"size": 0}])
def test_a_key_of_the_same_hash_that_costs_nothing_to_hold_is_not_taken_for_another(free: dict[str, float]) -> None:
    clock = Clock()
    cache = manual(clock)
    for round_ in range(3):
        clock.now = 10.0 * round_ + 1
        cache.set(Twin(1), 1, cost=8, size=4)
        cache.set(Twin(2), 2, **{"cost": 8, "size": 4, **free})
        cache.learn()
    why = cache.explain(Twin(1))
    assert why.breakeven == 8
    assert why.distribution and all(0 <= chance <= 1 for _, chance in why.distribution)
    assert cache.explain(Twin(2)).distribution == ()
