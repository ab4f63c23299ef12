"""A river regressor that a user hands in is evaluated in the core, and says there what it says in Python."""
from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
from river import compose, linear_model, neighbors, optim, preprocessing, tree

from adaptcache import Cache, Learned, _core
from adaptcache.learn import compiled, trainer
from adaptcache.learn.predictor import NAMES, named

APP = ["rows", "share"]
PLACES = {name: int(at) for name, at in named(range(len(NAMES)), APP).items()}


def linear(**options: Any) -> Any:
    return linear_model.LinearRegression(optim.SGD(0.001), intercept_lr=0.01, **options)


def forest(leaf: str, **options: Any) -> Any:
    return tree.HoeffdingTreeRegressor(grace_period=50, delta=0.05, tau=0.3, leaf_prediction=leaf, **options)


COMPILED = {
    "linear": lambda: linear(),
    "quantile": lambda: linear(loss=optim.losses.Quantile(0.9)),
    "poisson": lambda: preprocessing.StandardScaler() | linear(loss=optim.losses.Poisson()),
    "passive-aggressive": lambda: preprocessing.StandardScaler() | linear_model.PARegressor(C=0.01),
    "standardised": lambda: preprocessing.StandardScaler() | linear(),
    "centred": lambda: preprocessing.StandardScaler(with_std=False) | linear(),
    "min and max": lambda: preprocessing.MinMaxScaler() | linear(),
    "max abs": lambda: preprocessing.MaxAbsScaler() | linear(),
    "two scalers": lambda: preprocessing.MinMaxScaler() | preprocessing.StandardScaler() | linear(),
    "selected": lambda: compose.Select("rows", "gap1") | preprocessing.StandardScaler() | linear(),
    "discarded": lambda: compose.Discard("rows", "gap1") | preprocessing.StandardScaler() | linear(),
    "target standardised": lambda: preprocessing.StandardScaler() | preprocessing.TargetStandardScaler(linear()),
    "target min and max": lambda: preprocessing.TargetMinMaxScaler(preprocessing.StandardScaler() | linear()),
    "tree of means": lambda: forest("mean"),
    "tree of models": lambda: preprocessing.StandardScaler() | forest("model", leaf_model=linear()),
    "adaptive tree": lambda: preprocessing.MinMaxScaler() | forest("adaptive", leaf_model=linear()),
    "scaled target of a tree": lambda: preprocessing.TargetStandardScaler(forest("mean")),
}


class Renamed(linear_model.LinearRegression):
    def predict_one(self, x: dict[str, float]) -> float:
        return 1.0


ASKED = {
    "a subclass": lambda: Renamed(),
    "neighbours": lambda: neighbors.KNNRegressor(),
    "an adaptive window of trees": lambda: tree.HoeffdingAdaptiveTreeRegressor(seed=1),
    "a norm": lambda: preprocessing.Normalizer() | linear(),
    "a function": lambda: compose.FuncTransformer(dict) | linear(),
    "a rolling scaler": lambda: preprocessing.StandardScaler(window_size=10) | linear(),
    "a missing column": lambda: compose.Select("nobody says") | linear(),
    "a tree over a norm": lambda: preprocessing.Normalizer() | forest("mean"),
    "a scaled target of it": lambda: preprocessing.TargetStandardScaler(neighbors.KNNRegressor()),
    "a scaled count": lambda: preprocessing.TargetStandardScaler(linear(loss=optim.losses.Poisson())),
    "a tree of counts": lambda: forest("model", leaf_model=linear(loss=optim.losses.Poisson())),
}


def brain() -> _core.Brain:
    return _core.Brain(mask=1 << _core.SLOT_USER, price=1.0, alpha=0.01, window=None, miss_cost=1.0, seed=1, capacity=64, now=0.0)


def access(dice: random.Random) -> Any:
    x = np.array([dice.uniform(-3, 3) for _ in NAMES], np.float32)
    x[PLACES["seen_before"]] = dice.random() < 0.5
    x[PLACES["day_cos"]] = 1.0      # never varies
    return x


def taught(model: Any, rows: int, seed: int = 1) -> Any:
    dice = random.Random(seed)
    for _ in range(rows):
        x = access(dice)
        steps = 3 * (x[PLACES["rows"]] > 0.5) + 2 * (x[PLACES["gap1"]] > 0) + 0.3 * x[PLACES["log_size"]]
        model.learn_one(named(x.tolist(), APP), max(0.0, float(4 + steps + dice.gauss(0, 0.2))))
    return model


def spoken(rule: compiled.Rule, x: Any) -> float | None:
    core = brain()
    core.publish_rule(0, rule.feature, rule.threshold, rule.left, rule.right, rule.rows, rule.exponential)
    return core.rule_seconds(0, x)


@pytest.mark.parametrize("rows", [1, 30, 1500])
@pytest.mark.parametrize("name", COMPILED)
def test_rule_says_what_the_model_says(name: str, rows: int) -> None:
    model = taught(COMPILED[name](), rows)
    rule = compiled.rule(model, PLACES)
    assert rule is not None
    dice = random.Random(2)
    said = []
    for _ in range(200):
        x = access(dice)
        said.append(model.predict_one(named(x.tolist(), APP)))
        assert spoken(rule, x) == pytest.approx(said[-1], rel=1e-4, abs=1e-5)
    assert rows < 1000 or len(set(said)) > 1
    if "tree" in name and rows > 1000:
        assert len(rule.feature) > 2


@pytest.mark.parametrize("name", [name for name in COMPILED if "min" not in name])
def test_rule_of_an_untaught_model_says_what_it_says(name: str) -> None:
    model, x = COMPILED[name](), access(random.Random(3))
    rule = compiled.rule(model, PLACES)
    assert rule is not None and spoken(rule, x) == pytest.approx(model.predict_one(named(x.tolist(), APP)))


def test_model_that_has_seen_no_range_says_nothing() -> None:
    model = preprocessing.MinMaxScaler() | linear()
    model["LinearRegression"].learn_one({"rows": 1.0}, 2.0)
    x = access(random.Random(3))
    rule = compiled.rule(model, PLACES)
    assert math.isnan(model.predict_one(named(x.tolist(), APP)))
    assert rule is not None and math.isnan(spoken(rule, x) or 0.0)


@pytest.mark.parametrize("name", ASKED)
def test_what_is_not_known_is_not_compiled(name: str) -> None:
    model = ASKED[name]()
    if name not in ("a missing column", "a rolling scaler"):     # river itself raises on these
        taught(model, 200)
    assert compiled.rule(model, PLACES) is None


def test_tree_beyond_bounds_is_asked_and_compiled_again_when_it_has_shrunk(monkeypatch: pytest.MonkeyPatch) -> None:
    core, model = brain(), forest("mean")
    monkeypatch.setattr(trainer, "RECOMPILE", 1)
    core.place("rows"), core.place("share")
    learner = trainer.Trainer(core, river=False, models=[model])
    x = access(random.Random(4))
    assert not learner.asks and core.rule_seconds(0, x) == 0.0
    taught(model, 1500)
    learner.guests[0].fresh = 10_000
    monkeypatch.setattr(compiled, "NODES", 2)
    learner._compile()
    assert learner.asks and core.rule_seconds(0, x) is None
    monkeypatch.setattr(compiled, "NODES", 4096)
    learner.guests[0].fresh = 10_000
    learner._compile()
    assert not learner.asks and core.rule_seconds(0, x) == pytest.approx(model.predict_one(named(x.tolist(), APP)))


def test_tree_that_is_too_deep_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    model = taught(forest("mean"), 1500)
    assert compiled.rule(model, PLACES) is not None
    monkeypatch.setattr(compiled, "DEPTH", 0)
    assert compiled.rule(model, PLACES) is None


def test_variance_that_rounding_made_negative_means_hold() -> None:
    model = taught(preprocessing.StandardScaler() | linear(), 30)
    model["StandardScaler"].vars["rows"] = -1e-20
    rule = compiled.rule(model, PLACES)
    assert rule is not None and math.isnan(spoken(rule, access(random.Random(3))) or 0.0)


class Hidden:
    """The same model, so that nobody knows its type."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def learn(self, x: dict[str, float], y: float) -> None:
        self.model.learn_one(x, y)

    def predict(self, x: dict[str, float]) -> float:
        return float(self.model.predict_one(x))


def diary(model: Any, asked: bool) -> list[tuple[Any, float]]:
    """When entries leave, with the model followed alone."""
    class Clock:
        now = 0.0

        def __call__(self) -> float:
            return self.now

    clock, out = Clock(), []
    cache: Cache[Any, Any] = Cache(
        None,
        timer=clock, on_removal=lambda key, value, cause, at: out.append((key, at)),
        expiry=Learned(memory_price=0.5, premature=1.0, predictors=(model,), learner="manual", seed=1))
    cache.brain.only = _core.SLOT_USER
    dice = random.Random(5)
    assert cache._trainer.asks == asked
    for i in range(2000):
        clock.now += dice.expovariate(20)
        key = dice.randrange(30) if dice.random() < 0.7 else 1000 + i
        if cache.get(key) is None:
            cache.set(key, i, features={"rows": key % 7, "plan": f"p{key % 3}"})
        cache.learn()
    cache._check()
    return out


@pytest.mark.parametrize("name", ["linear", "standardised", "tree of means"])
def test_entries_leave_when_they_would_have_if_the_model_had_been_asked(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "RIPE", 1)
    inside, asked = diary(COMPILED[name](), False), diary(Hidden(COMPILED[name]()), True)
    assert len(inside) > 100
    # What is asked answers after the access, not within it: an entry may be looked at one edge later.
    alike = len(set(inside) & set(asked)) / max(len(inside), len(asked))
    assert alike > 0.9


@pytest.mark.parametrize("broken", [
    {"feature": [99]}, {"feature": [0]}, {"left": [5]}, {"rows": np.zeros((1, 3))}, {"rows": np.zeros((0, _core.FEATURE_COUNT + 1))},
    {"feature": [0, -1, -1], "left": [1, 0, 0], "right": [0, 0, 0]}, {"threshold": []},
])
def test_unsound_rules_are_refused(broken: dict[str, Any]) -> None:
    whole: dict[str, Any] = {"feature": [-1], "threshold": [0.0], "left": [0], "right": [0],
                             "rows": np.zeros((1, _core.FEATURE_COUNT + 1))}
    core = brain()

    def publish(**given: Any) -> None:
        core.publish_rule(0, np.array(given["feature"], np.int32), np.zeros(len(given["feature"])) if "threshold" not in broken
                          else np.array(given["threshold"], float), np.array(given["left"], np.uint32),
                          np.array(given["right"], np.uint32), np.array(given["rows"], float), False)

    publish(**whole)
    with pytest.raises(ValueError, match="publish_rule"):
        publish(**whole | broken)
    with pytest.raises(ValueError, match="publish_rule"):
        core.publish_rule(9, np.array([-1], np.int32), np.zeros(1), np.zeros(1, np.uint32), np.zeros(1, np.uint32), whole["rows"], False)
    assert core.rule_seconds(0, np.zeros(_core.FEATURE_COUNT, np.float32)) == 0.0
