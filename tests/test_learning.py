"""The learner learns: the right expert wins, models are what they were trained to be, and people can see why."""
from __future__ import annotations

import logging
import math
import os
import random
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import linear_model

from adaptcache import Cache, Cause, Learned, _core, _learntest
from adaptcache.learn import experts, river_models
from adaptcache.learn.predictor import NAMES, Guest, Predictor
from adaptcache.learn.trainer import Trainer
from adaptcache.simulate import learned
from adaptcache.simulate.oracle import Oracle
from adaptcache.simulate.synthetic import generate
from adaptcache.simulate.trace import Trace, dense

F = _core.FEATURE_COUNT


def made(rows: list[tuple[float, int]]) -> Trace:
    """A trace of (time, key) rows in any order."""
    rows = sorted(rows)
    key = dense(np.array([key for _, key in rows]))
    return Trace("made", key, int(key.max()) + 1, time=np.array([time for time, _ in rows]))


def cost(trace: Trace, price: float, **options: Any) -> float:
    return float(learned.replay(trace, price, **options)["total_cost"])


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def manual(clock: Clock, *, maxsize: float | None = None, on_removal: Any = None, **options: Any) -> Cache[Any, Any]:
    options = {"memory_price": 1.0, "premature": 1.0, "seed": 1, "predictors": ("table",)} | options
    return Cache(maxsize, timer=clock, on_removal=on_removal, expiry=Learned(learner="manual", **options))


# -- the same again ----------------------------------------------------------------------------------------

def diary(seed: int, predictors: tuple[Any, ...] = ("table", "river"), maxsize: int | None = 8,
          premature: float = 0.05) -> list[tuple[int, str, float]]:
    """Every removal of a busy hour, with its moment."""
    clock, out = Clock(), []
    cache = manual(clock, seed=seed, predictors=predictors, premature=premature, maxsize=maxsize, memory_price=0.2,
                   on_removal=lambda key, value, cause, at: out.append((key, cause.value, at)))
    dice = random.Random(3)
    for i in range(1500):
        clock.now += dice.expovariate(20)
        key = dice.randrange(30) if dice.random() < 0.7 else 1000 + i
        if cache.get(key) is None:
            cache.set(key, i, cost=dice.choice([1, 2]), namespace=f"table {key % 3}", features={"kind": f"k{key % 5}", "n": key % 7})
        if i % 50 == 0:
            cache.learn()
    cache._check()
    return out


def test_manual_learner_is_deterministic_with_a_seed() -> None:
    first = diary(7)
    assert len({cause for _, cause, _ in first}) == 2
    assert diary(7) == first
    # Under a guard and a capacity the draw decides little; with neither, another seed must tell.
    assert diary(7, maxsize=None, premature=1.0) != diary(8, maxsize=None, premature=1.0)


def test_manual_learner_is_the_same_in_every_process() -> None:
    """Neither the salt of str hashes nor addresses get into what is learned."""
    script = ("import importlib.util as u, hashlib\n"
              f"spec = u.spec_from_file_location('t', {str(Path(__file__))!r})\n"
              "t = u.module_from_spec(spec); spec.loader.exec_module(t)\n"
              "print(hashlib.sha256(repr(t.diary(7)).encode()).hexdigest())")
    path = os.pathsep.join(part for part in sys.path if part)
    runs = [subprocess.Popen([sys.executable, "-c", script], env=os.environ | {"PYTHONHASHSEED": salt, "PYTHONPATH": path},
                             stdout=subprocess.PIPE, text=True) for salt in ("1", "4711")]
    digests = [run.communicate()[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert digests[0] == digests[1] and len(digests[0]) == 65


# -- who wins ----------------------------------------------------------------------------------------------

def periodic() -> Trace:
    """Five keys of period 1 s beside as many requests for keys that never come again."""
    dice = random.Random(1)
    rows = [(i + key / 5 + dice.gauss(0, 0.02), key) for key in range(5) for i in range(600)]
    return made(rows + [(dice.uniform(0, 600), 1000 + i) for i in range(3000)])


def habits() -> Trace:
    """Bursts of period 1 s, bursts of period 20 s, and keys that never come again: no one TTL suits them."""
    dice = random.Random(2)
    rows = []
    for key in range(900):
        time, period = dice.uniform(0, 5000), 1.0 if key % 2 else 20.0
        for _ in range(6):
            rows.append((time, key))
            time += period * dice.uniform(0.8, 1.2)
    return made(rows + [(dice.uniform(0, 5000), 1000 + i) for i in range(3600)])


def swapped() -> Trace:
    """First a short gap is followed by nothing and a long one by a request; from the middle on the other way round."""
    dice = random.Random(4)
    rows: list[tuple[float, int]] = []
    key = 0
    while len(rows) < 60_000:
        key += 1
        time, short, before = key * 0.5, key % 2 == 0, len(rows) < 30_000
        for gap in (0.5 if short else 6.0, 5.0):
            rows.append((time, key))
            time += gap * dice.uniform(0.9, 1.1)
        if short != before:
            rows.append((time, key))
    return made(rows)


@pytest.mark.parametrize("predictors", [("table",), ("table", "river"), ("river",), ()])
def test_weights_sum_to_one(predictors: tuple[str, ...]) -> None:
    out = learned.replay(habits(), 0.01, predictors=predictors)
    assert sum(out["weights"].values()) == pytest.approx(1, abs=1e-12)
    assert min(out["weights"].values()) >= 0
    assert {"static", "break-even"} <= set(out["weights"])
    assert any(name.startswith("table") for name in out["weights"]) == ("table" in predictors)
    assert any(name.startswith("river") for name in out["weights"]) == ("river" in predictors)


def test_periodic_keys_are_told_from_keys_that_never_come_again() -> None:
    trace, price = periodic(), 0.01
    oracle = Oracle(trace)
    ours = cost(trace, price, premature=1.0, predictors=("table",))
    assert ours < 0.6 * oracle.break_even(price).total_cost
    assert ours < 1.02 * oracle.static_best(price).total_cost
    assert ours < 1.05 * oracle.clairvoyant(price).total_cost
    kept = learned.replay(trace, price, premature=0.01, predictors=("table",))
    assert kept["total_cost"] < 0.7 * oracle.break_even(price).total_cost
    assert kept["worst_margin"] >= 0


def test_table_beats_every_static_ttl_when_habits_differ() -> None:
    trace, price = habits(), 0.01
    oracle = Oracle(trace)
    out = learned.replay(trace, price, premature=1.0, predictors=("table",))
    assert out["total_cost"] < 0.92 * oracle.static_best(price).total_cost
    assert out["total_cost"] < 0.65 * oracle.break_even(price).total_cost
    table = sum(share for name, share in out["weights"].items() if name.startswith("table"))
    assert table > 0.5 and out["weights"]["static"] < 0.05
    kept = cost(trace, price, premature=0.01, predictors=("table",))
    assert kept < oracle.static_best(price).total_cost


def test_experts_that_are_always_wrong_lose_their_weight() -> None:
    """Keys that come back at once: whoever lets go at nought loses every time."""
    dice = random.Random(1)
    trace = made([(i * 0.01, dice.randrange(20)) for i in range(8000)])
    price = 0.01
    out = learned.replay(trace, price, premature=1.0)
    assert out["total_cost"] < 1.1 * Oracle(trace).clairvoyant(price).total_cost + 20


@pytest.mark.parametrize("premature", [1.0, 0.01])
def test_learned_costs_less_than_break_even_on_the_pipeline_with_river(premature: float) -> None:
    trace = generate("pipeline", seed=1, requests=10_000)
    oracle = Oracle(trace)
    price = oracle.price(0.3)
    out = learned.replay(trace, price, premature=premature)
    assert out["total_cost"] < oracle.break_even(price).total_cost
    assert sum(share for name, share in out["weights"].items() if name.startswith("river")) > 1e-4


def kinds() -> Trace:
    """Two kinds of keys of one request each until they come back or not; the kind is all there is to know."""
    dice = random.Random(9)
    rows = []
    for key in range(8000):
        time, good = key * 0.05, dice.random() < 0.5
        rows.append((time, key, good))
        if good:
            rows.append((time + dice.uniform(3, 5), key, good))
    rows.sort()
    key = dense(np.array([row[1] for row in rows]))
    kind = np.array([row[2] for row in rows]).astype(np.uint16)
    return Trace("kinds", key, int(key.max()) + 1, time=np.array([row[0] for row in rows]), features={"kind": kind})


def test_river_sees_what_only_a_feature_tells() -> None:
    trace = kinds()
    price = 0.05
    out = learned.replay(trace, price, premature=1.0)
    assert sum(share for name, share in out["weights"].items() if name.startswith("river")) > 0.5
    assert out["total_cost"] < 1.01 * cost(trace, price, premature=1.0, predictors=("table",))


def test_stack_sees_what_only_a_feature_tells() -> None:
    """Followed alone: it is fed, published and asked; without the feature it knows no more than the table."""
    trace, price, stack = kinds(), 0.05, _core.SLOT_HAZARD + experts.HAZARDS.index("river:stack")
    table = cost(trace, price, premature=1.0, only=_core.SLOT_HAZARD + experts.HAZARDS.index("table:key"))
    assert cost(trace, price, premature=1.0, only=stack) < 0.9 * table
    assert cost(replace(trace, features={}), price, premature=1.0, only=stack) > 0.97 * table


def test_drift_raises_an_alarm_and_the_learner_recovers() -> None:
    trace, price = swapped(), 0.1
    out = learned.replay(trace, price, premature=1.0, predictors=("table",))
    assert out["alarms"] >= 1
    quiet = learned.replay(trace.head(30_000), price, premature=1.0, predictors=("table",))
    assert quiet["alarms"] == 0
    before = quiet["total_cost"] - cost(trace.head(15_000), price, premature=1.0, predictors=("table",))
    after = out["total_cost"] - cost(trace.head(45_000), price, premature=1.0, predictors=("table",))
    assert after < 1.1 * before


def test_steady_stream_raises_no_alarm() -> None:
    out = learned.replay(generate("pipeline", seed=2, requests=15_000), 1e-6, predictors=("table",))
    assert out["alarms"] == 0


# -- the arithmetic of holding -----------------------------------------------------------------------------

PROBABILITY = st.floats(0, 0.6)
CELLS = st.lists(st.tuples(PROBABILITY, st.floats(0, 0.4), st.integers(0, 500)), min_size=12, max_size=12)


def chances(cells: Any, parent: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """A cell's hazards, shrunk towards its parent's by four pseudo-counts."""
    return [((n * p + 4 * pp) / (n + 4), (n * q + 4 * qq) / (n + 4))
            for (p, q, n), (pp, qq) in zip(cells, parent, strict=True)]


def best_horizon(hazards: list[tuple[float, float]], edges: list[float], start: float, breakeven: float) -> float:
    """The most that any horizon is worth, tried one by one: misses saved less rent, in misses."""
    best = 0.0
    for horizon in range(1, len(hazards) + 1):
        worth, alive, begin = 0.0, 1.0, start
        for (p, q), end in zip(hazards[:horizon], edges[1:], strict=False):
            leave = min(1.0, p + q)
            worth += alive * (p - (end - begin) / breakeven * (1 - leave / 2))
            alive *= 1 - leave
            begin = end
        best = max(best, worth)
    return best


@settings(max_examples=150, deadline=None)
@given(everyone=CELLS, habit=CELLS, habit2=CELLS, namespace=st.one_of(st.none(), CELLS), leaf=st.one_of(st.none(), CELLS),
       key=st.one_of(st.none(), CELLS), line=st.one_of(st.none(), st.lists(PROBABILITY, min_size=12, max_size=12)),
       stacked=st.one_of(st.none(), st.lists(PROBABILITY, min_size=12, max_size=12)), first=st.integers(0, 11), into=st.floats(0, 0.9), octaves=st.floats(-3, 8))
def test_value_of_holding_equals_the_best_of_all_horizons(everyone: Any, habit: Any, habit2: Any, namespace: Any, leaf: Any,
                                                          key: Any, line: Any, stacked: Any, first: int, into: float,
                                                          octaves: float) -> None:
    base = 40
    pad = [(0.0, 0.0, 0)]

    def whole(cells: Any) -> Any:
        return None if cells is None else pad * base + cells + pad * (_learntest.NB - base - 12)

    edges = [_learntest.edge(base + i) for i in range(first, 13)]
    start = edges[0] + into * (edges[1] - edges[0])
    breakeven = edges[-1] / 2**octaves
    if key is not None:
        key = [(round(p * 65535) / 65535, round(q * 65535) / 65535, min(n, 40)) for p, q, n in key]
    values, back, ratio = _learntest.outlook(
        whole(everyone), whole(habit), whole(habit2), whole(namespace), whole(leaf),
        None if key is None else key + pad * (_learntest.WINDOW - 12),
        None if line is None else line + [0.0] * (_learntest.WINDOW - 12),
        base, base + first, base + 12, start, breakeven, 0,
        None if stacked is None else stacked + [0.0] * (_learntest.WINDOW - 12))
    table = [chances(everyone, [(0.05, 0.0)] * 12)]
    table.append(table[0] if namespace is None else chances(namespace, table[0]))
    table.append(chances(habit, table[1]))
    table.append(chances(habit2, table[2]))

    def with_key(parent: list[tuple[float, float]]) -> list[tuple[float, float]]:
        if key is None:
            return parent
        return [own if cell[2] else above for cell, own, above in zip(key, chances(key, parent), parent, strict=True)]

    table.append(with_key(table[3]))
    linear = table[3] if line is None else [(p, q) for p, (_, q) in zip(line, table[3], strict=True)]
    tree = table[1] if leaf is None else chances(leaf, table[1])
    mixed = table[4] if stacked is None else [(p, q) for p, (_, q) in zip(stacked, table[4], strict=True)]
    for value, hazards in zip(values, [*table, linear, tree, with_key(linear), with_key(tree), mixed], strict=True):
        assert value == pytest.approx(best_horizon(hazards[first:], edges, start, breakeven), rel=1e-4, abs=1e-4)
    assert back == 0 and ratio == 0     # no window, no risk


@settings(max_examples=100, deadline=None)
@given(everyone=CELLS, bins=st.integers(1, 12))
def test_risk_is_the_chance_of_a_request_before_the_window_ends(everyone: Any, bins: int) -> None:
    base, none = 40, [(0.0, 0.0, 0)]
    cells = none * base + everyone + none * (_learntest.NB - base - 12)
    flat = none * _learntest.NB
    _, back, ratio = _learntest.outlook(cells, flat, flat, None, None, None, None, base, base, base + 12,
                                       float(_learntest.edge(base)), 1e9, _learntest.edge(base + bins))
    alive, wanted, paid, least = 1.0, 0.0, 0.0, math.inf
    for i, (p, q) in enumerate(chances(everyone, [(0.05, 0.0)] * 12)[:bins]):
        p += 1e-6       # the floor under the mean of the links' logarithms
        leave = min(1.0, p + q)
        width = (_learntest.edge(base + i + 1) - _learntest.edge(base + i)) / 1e9
        wanted += alive * p
        paid += alive * width * (1 - leave / 2)
        alive *= 1 - leave
        least = min(least, paid / (wanted + 1e-6))
    assert back == pytest.approx(wanted, rel=1e-5, abs=1e-6)
    assert ratio == pytest.approx(least, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("late", [0, 1, 10**6, 10**12])
def test_wait_that_is_longer_than_the_last_bin_pays_no_negative_rent(late: int) -> None:
    """Where capacity raises the price, an entry's age may lie beyond all bins that are worth looking at."""
    flat, top = [(0.5, 0.0, 1000)] * _learntest.NB, 52
    start = float(_learntest.edge(top) + late)
    values, back, ratio = _learntest.outlook(flat, flat, flat, None, None, None, None, 40, top - 1, top, start, 1e6, 2**62)
    assert ratio >= 0 and 0 <= back <= 1
    assert all(0 <= value <= 1 for value in values)


@settings(max_examples=100, deadline=None)
@given(everyone=PROBABILITY, habit=PROBABILITY, habit2=PROBABILITY, key=PROBABILITY)
def test_a_link_that_knows_better_is_believed_as_far_as_the_others_agree(everyone: float, habit: float, habit2: float,
                                                                        key: float) -> None:
    base, own = 40, round(key * 65535) / 65535
    rows = [[(p, 0.0, 1000)] * _learntest.NB for p in (everyone, habit, habit2)]
    _, back, _ = _learntest.outlook(*rows, None, None, [(own, 0.0, 40)] * _learntest.WINDOW, None, base, base, base + 12,
                                    float(_learntest.edge(base)), 1e9, _learntest.edge(base + 1))
    links = [0.05]
    for p, n in ((everyone, 1000), (habit, 1000), (habit2, 1000), (own, 40)):
        links.append((n * p + 4 * links[-1]) / (n + 4))
    _, all_, by_habit, by_habit2, by_key = links
    # No namespace, no river: the namespace's link and the tree's repeat the first one's, the line's the
    # finest habit's, and the stack's the key's.
    tree_key = (40 * own + 4 * all_) / 44
    ten = [all_, all_, by_habit, by_habit2, by_key, by_habit2, all_, by_key, tree_key, by_key]
    mean = math.exp(sum(math.log(p + 1e-6) for p in ten) / 10)
    assert back == pytest.approx(max(mean, by_key), rel=1e-3, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(ratios=st.lists(st.one_of(st.just(-1.0), st.floats(0, 1e6)), max_size=400), alpha=st.sampled_from([0.0, 0.01, 0.1, 0.5]))
def test_ladder_asks_the_least_that_would_have_lost_no_more_than_the_budget(ratios: list[float], alpha: float) -> None:
    # Protected requests that found their entry, so all credit but what was earned lies idle.
    rungs = _learntest.ladder(alpha, ratios)
    on, weights = [], []
    for i, ratio in enumerate(ratios):
        weights = [weight * (1 - 1 / 20001) for weight in weights] + [1.0]
        on.append(-1 if ratio < 0 else 0 if ratio == 0 else min(255, max(0, math.floor(8 * (math.log2(ratio) + 8)))))
        n = i + 1
        share = alpha and alpha + (alpha * n + 1) / (n + 1 + 1 / alpha)
        room = share * sum(weights)

        rung = rungs[i]
        lost = [sum(weight for weight, k in zip(weights, on, strict=True) if k >= asked) for asked in (rung, rung - 1)]
        assert lost[0] <= room + 1e-9
        assert rung == 0 or lost[1] > room - 1e-9


# -- the mixture's draw ------------------------------------------------------------------------------------

def test_every_wait_draws_anew_also_after_its_key_was_forgotten() -> None:
    """The mixture's regret bound rests on draws that are independent from wait to wait."""
    apart = [20_000_000_000 * i for i in range(400)]
    forgotten = _learntest.draws(5, 77, apart)
    assert {serial for _, serial in forgotten} == {1}, "the key was followed all the time"
    followed = _learntest.draws(5, 77, [10_000_000 * i for i in range(200)] + [1_990_000_000] * 200)
    assert [serial for _, serial in followed] == list(range(1, 401))
    for drawn in (forgotten, followed):
        salts = [salt for salt, _ in drawn]
        assert len(set(salts)) == len(salts)
        low = [salt / 2 ** 64 < 0.5 for salt in salts]
        assert 160 < sum(low) < 240
        assert 160 < sum(one != two for one, two in pairwise(low)) < 240
    assert _learntest.draws(5, 77, apart) == forgotten
    for other in (_learntest.draws(6, 77, apart), _learntest.draws(5, 78, apart)):
        assert not {salt for salt, _ in other} & {salt for salt, _ in forgotten}


# -- the mixture's arithmetic ------------------------------------------------------------------------------

def test_hedge_finds_the_best_expert_and_finds_the_next_one_after_a_change() -> None:
    prior = [0.25] * 4
    dice = random.Random(1)
    rounds = [[dice.random() + (0 if e == 1 else 2) for e in range(4)] for _ in range(300)]
    rounds += [[dice.random() + (0 if e == 3 else 2) for e in range(4)] for _ in range(600)]
    weights = _learntest.hedge(rounds, prior, 0.99, 1e-3)
    assert all(sum(row) == pytest.approx(1) for row in weights)
    assert weights[299][1] > 0.9 and weights[-1][3] > 0.9


def test_hedge_leaves_everybody_a_share() -> None:
    weights = _learntest.hedge([[0, 5, 5, 5]] * 500, [0.25] * 4, 0.999, 1e-3)[-1]
    assert min(weights) > 1e-4


# -- frozen models are river's own -------------------------------------------------------------------------

def taught(n: int = 1500, seed: int = 1) -> tuple[river_models.Scope, river_models.Hazards, river_models.Leaves, Any]:
    draw = np.random.default_rng(seed)
    scope = river_models.Scope()
    hazards, leaves = river_models.Hazards(scope), river_models.Leaves()
    scales = draw.uniform(0.1, 20, F)
    x = (draw.normal(size=(n, F)) * scales + draw.uniform(-5, 5, F)).astype(np.float32)
    x[:, 7] = 3.0               # a feature that never varies
    for row in x:
        scope.learn(row)
    for row in x:
        z = dict(enumerate(((row - scope.mean) / scope.spread()).tolist()))
        soon = z[0] + z[3] > 0
        hazards.learn(z, 24, 30 if soon else 47, bool(soon))
        leaves.learn(z, -3.0 if z[2] > 0.3 else (0.5 if z[5] > 0 else 1.0))
    return scope, hazards, leaves, x


def test_frozen_hazards_equal_rivers_own_probabilities() -> None:
    scope, hazards, _, x = taught()
    weight, bias = hazards.freeze()
    groups = [group for group, n in hazards.trained.items() if n >= 20]
    assert len(groups) >= 3
    for row in x[:200]:
        z = dict(enumerate(((row - scope.mean) / scope.spread()).tolist()))
        for group in groups:
            model: linear_model.LogisticRegression = hazards.models[group]
            wanted = model.predict_proba_one(z)[True]
            four = _learntest.line_hazards(weight, bias, np.ascontiguousarray(row), 4 * group, 4)
            assert four == pytest.approx([four[0]] * 4)         # spread evenly
            assert 1 - (1 - four[0]) ** 4 == pytest.approx(wanted, rel=2e-4, abs=2e-6)


def test_group_without_labels_has_a_small_hazard() -> None:
    _, hazards, _, x = taught(60)
    weight, bias = hazards.freeze()
    untrained = next(group for group in range(_core.GROUP_COUNT) if group not in hazards.models)
    four = _learntest.line_hazards(weight, bias, np.ascontiguousarray(x[0]), 4 * untrained, 4)
    assert 0 < sum(four) < 0.06


def test_frozen_tree_routes_as_river_does() -> None:
    scope, _, leaves, x = taught()
    frozen = leaves.freeze(scope, brain())
    assert frozen is not None and leaves.n_leaves >= 3
    reached = set()
    for row in x:
        z = dict(enumerate(((row - scope.mean) / scope.spread()).tolist()))
        node = leaves.tree._root.traverse(z)
        leaf = _learntest.tree_leaf(*frozen, np.ascontiguousarray(row))
        assert leaf == leaves._numbers[id(node)][1]
        reached.add(leaf)
    assert len(reached) == leaves.n_leaves


def test_leaf_keeps_its_number_while_the_tree_grows() -> None:
    scope, _, leaves, x = taught()
    master = brain()
    first = leaves.freeze(scope, master)
    known = dict(leaves._numbers)
    for row in x:
        z = dict(enumerate(((row - scope.mean) / scope.spread()).tolist()))
        leaves.learn(z, 1.0 if z[9] > 0 else -2.0)
    second = leaves.freeze(scope, master)
    assert first is not None and second is not None
    assert all(leaves._numbers[name] == number for name, number in known.items())
    numbers = second[2][second[0] < 0].tolist()
    assert len(set(numbers)) == len(numbers)


def test_features_outside_what_was_trained_on_are_out_of_scope() -> None:
    scope, _, _, x = taught()
    low, high = scope.bounds()
    inside = np.ascontiguousarray(x[0])
    inside[17:19] = 0.5         # a clock's sine and cosine
    assert _learntest.in_scope(inside, low, high)
    for d in range(F):
        for wrong in (high[d] * 2 + 100, low[d] * 2 - 100, math.nan, math.inf):
            outside = inside.copy()
            outside[d] = wrong
            assert not _learntest.in_scope(outside, low, high)


def test_out_of_scope_access_falls_back_to_the_table() -> None:
    """A model in force that says "never" counts for what it was trained on and for nothing else."""
    held = {}
    for inside in (True, False):
        clock = Clock()
        cache = manual(clock, predictors=("table", "river"), memory_price=0.01)
        cache.brain.only = _core.SLOT_HAZARD + 5        # river:line
        for i in range(400):                            # the table learns: comes back after 1 s
            clock.now += 0.1
            if cache.get(i % 10) is None:
                cache.set(i % 10, 0)
        low = np.full(F, -1e9 if inside else 1e8, np.float32)
        cache.brain.publish_line(np.zeros((_core.GROUP_COUNT, F), np.float32), np.full(_core.GROUP_COUNT, -30, np.float32),
                                 low, np.full(F, 1e9, np.float32))
        clock.now += 0.1
        cache.get(0)
        cache.get(1)
        clock.now += 0.5
        held[inside] = 1 in cache
    assert held == {True: False, False: True}


# -- what may be published ---------------------------------------------------------------------------------

def brain(**options: Any) -> _core.Brain:
    given: dict[str, Any] = {"mask": experts.mask(True, True, 1), "price": 1.0, "alpha": 0.01, "window": None, "miss_cost": 1.0,
                             "seed": 1, "capacity": 1000, "now": 0.0}
    return _core.Brain(**given | options)


def line(**wrong: Any) -> dict[str, Any]:
    return {"weight": np.zeros((_core.GROUP_COUNT, F), np.float32), "bias": np.zeros(_core.GROUP_COUNT, np.float32),
            "low": np.zeros(F, np.float32), "high": np.ones(F, np.float32)} | wrong


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["weight", "bias"])
def test_hazards_that_are_not_finite_are_refused(where: str, value: float) -> None:
    arrays = line()
    arrays[where].flat[-1] = value
    with pytest.raises(ValueError, match="not finite"):
        brain().publish_line(**arrays)
    brain().publish_line(**line())


@pytest.mark.parametrize("name", ["weight", "bias", "low", "high"])
def test_hazards_of_the_wrong_shape_are_refused(name: str) -> None:
    arrays = line()
    arrays[name] = np.ascontiguousarray(arrays[name][:-1])
    with pytest.raises(ValueError, match="shape"):
        brain().publish_line(**arrays)


def tree(feature: list[int], left: list[int], right: list[int], threshold: list[float] | None = None) -> tuple[Any, ...]:
    return (np.array(feature, np.int32), np.array(threshold or [0.0] * len(feature), np.float32), np.array(left, np.uint32),
            np.array(right, np.uint32), np.zeros(F, np.float32), np.ones(F, np.float32))


@pytest.mark.parametrize("unsound", [
    ([], [], []), ([0], [0], [0]), ([0, -1], [1, 0], [0, 0]), ([0, -1], [1, 0], [2, 0]), ([F, -1, -1], [1, 0, 1], [2, 0, 0]),
    ([0, 1, -1], [1, 0, 0], [2, 2, 0]), ([-1], [_core.LEAF_COUNT], [0]), ([0, -1], [2**32 - 1, 0], [1, 0]),
], ids=["empty", "itself", "back to the root", "beyond the end", "unknown feature", "a loop", "unknown leaf", "far beyond"])
def test_unsound_tree_is_refused(unsound: Any) -> None:
    with pytest.raises(ValueError, match="publish_tree"):
        brain().publish_tree(*tree(*unsound))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_tree_with_a_threshold_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="publish_tree"):
        brain().publish_tree(*tree([0, -1, -1], [1, 0, 1], [2, 0, 0], [value, 0.0, 0.0]))


def test_sound_tree_is_taken() -> None:
    brain().publish_tree(*tree([0, -1, -1], [1, 0, 1], [2, 0, 0]))


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(st.tuples(st.integers(-2, F), st.integers(0, 140), st.integers(0, 140)), max_size=9),
       values=st.lists(st.floats(width=32), min_size=9, max_size=9))
def test_any_tree_is_taken_or_refused_and_the_cache_goes_on(rows: Any, values: list[float]) -> None:
    clock = Clock()
    cache = manual(clock, predictors=("table", "river"))
    arrays = list(tree([r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows], values[:len(rows)]))
    arrays[4], arrays[5] = np.full(F, -1e9, np.float32), np.full(F, 1e9, np.float32)
    try:
        cache.brain.publish_tree(*arrays)
    except ValueError:
        pass
    for i in range(30):
        clock.now += 0.1
        cache.set(i % 5, i)
    cache._check()


def test_leaf_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="inherit_leaf"):
        brain().inherit_leaf(0, _core.LEAF_COUNT)


# -- guests ------------------------------------------------------------------------------------------------

class Fixed:
    def __init__(self, answer: float) -> None:
        self.answer, self.seen, self.labels = answer, [], []

    def learn(self, x: dict[str, float], y: float) -> None:
        self.labels.append((x, y))

    def predict(self, x: dict[str, float]) -> float:
        self.seen.append(x)
        return self.answer


def busy(cache: Cache[Any, Any], clock: Clock, rounds: int = 300, **known: Any) -> None:
    for i in range(rounds):
        clock.now += 0.03
        key = i % 5 if i % 2 else 100 + i
        if cache.get(key) is None:
            cache.set(key, i, **known)
        cache.learn()


def test_model_of_the_users_decides_when_it_is_followed() -> None:
    left = {}
    for answer in (0.0, 100.0):
        clock, gone = Clock(), []
        cache = manual(clock, predictors=(Fixed(answer),), on_removal=lambda key, *rest, gone=gone: gone.append(key))
        cache.brain.only = _core.SLOT_USER
        busy(cache, clock, 100)
        left[answer] = len(gone)
    assert left[0.0] > 40 and left[100.0] <= 40


def test_answer_about_a_key_that_was_forgotten_meanwhile_is_not_taken_for_another_key() -> None:
    """A model that re-enters the cache: its tracker is another key's by the time it answers."""
    class Reenters(Fixed):
        def predict(self, x: dict[str, float]) -> float:
            if clock.now > 1:
                return 100.0
            clock.now += 60                 # the first key is long forgotten
            cache.set(2, "second")
            return 0.0

    clock = Clock()
    cache = manual(clock, predictors=(Reenters(0.0),))
    cache.brain.only = _core.SLOT_USER
    cache.set(1, "first")
    cache.learn()
    assert cache.brain.tracked == 1
    clock.now += 0.05
    assert cache.get(2) == "second"


def test_model_that_is_right_gains_weight_and_one_that_is_wrong_loses_it() -> None:
    class Knows(Fixed):
        def predict(self, x: dict[str, float]) -> float:
            return 0.3 if x["seen_before"] else 0.0

    class Opposite(Fixed):
        def predict(self, x: dict[str, float]) -> float:
            return 0.0 if x["seen_before"] else 100.0

    clock = Clock()
    cache = manual(clock, predictors=(Knows(0), Opposite(0)), memory_price=0.5)
    busy(cache, clock, 3000)
    weights = cache.stats().weights
    assert sum(weights.values()) == pytest.approx(1)
    assert weights["Knows"] > 10 * weights["Opposite"]


def test_rivers_own_estimator_can_be_handed_in() -> None:
    clock = Clock()
    cache = manual(clock, predictors=(linear_model.LinearRegression(),))
    busy(cache, clock)
    assert "LinearRegression" in cache.stats().weights


def test_model_that_raises_is_logged_once_and_holds(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Fixed):
        def learn(self, x: dict[str, float], y: float) -> None:
            raise OSError("disk")

        def predict(self, x: dict[str, float]) -> float:
            raise KeyError("x")

    clock, gone = Clock(), []
    cache = manual(clock, predictors=(Broken(0),), memory_price=0.5, on_removal=lambda *told: gone.append(told))
    cache.brain.only = _core.SLOT_USER
    busy(cache, clock, 40)
    said = [record for record in caplog.records if record.name == "adaptcache"]
    assert len(said) == 1 and "Broken" in said[0].getMessage() and said[0].exc_info
    assert not gone


def test_model_needs_two_verbs_and_says_so() -> None:
    with pytest.raises(TypeError, match="predict"):
        Learned(predictors=(object(),))
    assert isinstance(Fixed(0), Predictor)


@pytest.mark.parametrize("answer", [math.nan, math.inf, -1.0, "soon", None, 1j])
def test_guest_answers_nan_for_what_is_no_time(answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "adaptcache")
    assert math.isnan(Guest(Fixed(answer)).seconds({}))


def test_features_of_the_users_reach_the_model() -> None:
    clock, model = Clock(), Fixed(1.0)
    cache = manual(clock, predictors=(model,))
    cache.set("a", 1, features={"rows": 12, "share": 0.25, "plan": "gold"}, cost=4)
    cache.learn()
    x = model.seen[-1]
    assert tuple(x) == ("rows", "share", "plan", *NAMES[8:])
    assert (x["rows"], x["share"]) == (12, 0.25)
    assert x["log_breakeven"] == pytest.approx(math.log2(4e9), abs=1e-3)
    assert 0 <= x["plan"] <= 1


def test_category_stands_for_how_often_its_keys_come_back() -> None:
    clock, model = Clock(), Fixed(1.0)
    cache = manual(clock, predictors=(model,))
    for i in range(200):
        clock.now += 0.05
        cache.set(f"once {i}", 1, features={"kind": "once"}, namespace="n")
        if cache.get("often") is None:
            cache.set("often", 1, features={"kind": "often"}, namespace="n")
        cache.learn()
    clock.now += 10
    cache.set("new", 1, features={"kind": "once"})
    cache.learn()
    once = model.seen[-1]["kind"]
    cache.set("new 2", 1, features={"kind": "often"})
    cache.learn()
    assert once < 0.2 < 0.6 < model.seen[-1]["kind"]


def test_labels_that_a_model_learns_from_are_the_waits() -> None:
    clock, model = Clock(), Fixed(1.0)
    cache = manual(clock, predictors=(model,), memory_price=0.01)
    cache.set("a", 1)
    for _ in range(5):
        clock.now += 2.0
        cache.get("a")
        cache.learn()
    assert [y for _, y in model.labels] == pytest.approx([2.0] * 5, rel=1e-5)


def test_trainer_without_river_or_models_has_nothing_to_do() -> None:
    assert not Trainer(brain(), river=False).busy


# -- the price of memory -----------------------------------------------------------------------------------

def test_nothing_expires_while_there_is_room_and_memory_has_no_price() -> None:
    clock, told = Clock(), []
    cache = manual(clock, memory_price=None, maxsize=1000, on_removal=lambda *what: told.append(what))
    for i in range(500):
        clock.now += 1.0
        cache[i] = i
    clock.now += 1e6
    assert len(cache) == 500 and not told
    assert cache.brain.price == 0


def test_entry_stays_when_memory_becomes_free() -> None:
    """Its timer was set at the old price."""
    clock = Clock()
    cache = manual(clock, memory_price=1.0)
    cache[1] = 1
    assert cache.brain is not None
    cache.brain.price = 0.0
    assert cache.get(1) == 1
    clock.now += 1e6
    assert 1 in cache


def test_memory_has_a_price_once_the_cache_is_full() -> None:
    clock, told = Clock(), []
    cache = manual(clock, memory_price=None, maxsize=50, on_removal=lambda key, value, cause, at: told.append(cause))
    for i in range(4000):
        clock.now += 0.1
        key = i % 20 if i % 2 else 1000 + i
        if cache.get(key) is None:
            cache[key] = i
    assert cache.brain.price > 0
    assert Cause.EVICTED in told and Cause.EXPIRED in told
    cache._check()


def test_price_goes_when_there_is_room_again() -> None:
    clock = Clock()
    cache = manual(clock, memory_price=None, maxsize=50)
    for i in range(500):
        clock.now += 0.1
        cache[i] = i
    assert cache.brain.price > 0
    cache.resize(10_000)
    clock.now += 3600
    cache[1] = 1
    assert cache.brain.price == 0


# -- explain, stats, expires_in ----------------------------------------------------------------------------

def test_explanation_gives_the_numbers_that_decide() -> None:
    clock = Clock()
    cache = manual(clock, memory_price=0.25, floor=3.0, ceiling=100.0)
    cache.set("a", 1, cost=8, size=4, features={"rows": 3})
    clock.now = 1.5
    why = cache.explain("a")
    assert why.expiry == "learned"
    assert (why.idle, why.expires_in, why.cost) == (1.5, 98.5, 8)
    assert why.breakeven == pytest.approx(8.0) and why.window == pytest.approx(2.0)
    assert why.features["rows"] == 3
    assert 0 <= why.comes_back <= 1
    assert sum(share for share, _ in why.verdicts.values()) == pytest.approx(1, abs=1e-6)
    assert all(0 <= held <= 1 for _, held in why.verdicts.values())
    assert "break-even" in str(why) and "8 s" in str(why)
    with pytest.raises(KeyError):
        cache.explain("b")


@pytest.mark.parametrize(("premature", "floor"), [(1.0, 0.0), (0.0, 0.0), (1.0, 0.4)])
def test_core_does_what_the_explanation_says(premature: float, floor: float) -> None:
    """Whoever is still held is explained by a verdict to hold, by the guard or by the floor."""
    clock = Clock()
    cache = manual(clock, predictors=(Fixed(0.02),), premature=premature, floor=floor)
    cache.brain.only = _core.SLOT_USER
    for key in range(4):
        cache[key] = key
    cache.learn()
    bounds = set()
    for _ in range(400):
        clock.now += 0.005
        for key in list(cache):
            if key not in cache:
                continue
            why = cache.explain(key)
            bounds.add(why.bound)
            assert why.hold or why.bound in ("guard", "floor")
            if why.bound == "guard":
                assert why.idle <= why.window + 0.005 and "guard" in str(why)
            if why.bound == "floor":
                assert why.idle < floor + 0.005 and "floor" in str(why)
    assert len(cache) == 0
    assert ("guard" in bounds) == (premature == 0.0) and ("floor" in bounds) == (floor > 0)


@pytest.mark.parametrize(("expiry", "says"), [(None, "Nothing expires"), (5.0, "fixed"), ])
def test_explanation_of_other_rules_reads_as_a_sentence(expiry: Any, says: str) -> None:
    cache = Cache(10, expiry=expiry, timer=Clock())
    cache["a"] = 1
    assert says in str(cache.explain("a"))


def test_free_memory_is_explained_as_free() -> None:
    cache = manual(Clock(), memory_price=0.0)
    cache["a"] = 1
    why = cache.explain("a")
    assert why.breakeven == 0 and "costs nothing" in str(why)


STATS = ["hits", "misses", "loads", "load_failures", "load_seconds", "inserts", "evictions", "expirations", "premature",
         "protected", "premature_budget", "in_flight", "stale_served", "currsize", "maxsize", "weights", "drift_alarms", "fallback"]


def test_stats_has_the_fields_that_are_promised_and_is_frozen() -> None:
    clock = Clock()
    cache = manual(clock, maxsize=3, premature=0.5)
    for key in "abcda":
        cache.get_or_load(key, str.upper)
        clock.now += 0.01
    stats = cache.stats()
    for name in STATS:
        getattr(stats, name)
    assert (stats.loads, stats.load_failures, stats.stale_served, stats.maxsize) == (5, 0, 0, 3)
    assert stats.hits + stats.misses == 5 and stats.inserts == 5
    assert stats.currsize == len(cache) == stats.inserts - stats.evictions - stats.expirations
    assert stats.premature_budget == 0.5 * stats.protected + 1
    with pytest.raises(AttributeError):
        stats.hits = 0  # type: ignore[misc]


def test_fallback_says_that_there_is_no_credit() -> None:
    clock = Clock()
    cache = manual(clock, predictors=(Fixed(0.0),), premature=0.0)
    cache.brain.only = _core.SLOT_USER
    assert not cache.stats().fallback
    cache["a"] = 1
    cache.learn()
    clock.now += 0.05
    assert cache.get("a") is None
    assert cache.stats().premature == 1 and cache.stats().fallback


def test_expires_in_is_the_ceiling() -> None:
    clock = Clock()
    cache = manual(clock, ceiling=50.0)
    cache["a"] = 1
    cache.set("b", 1, ttl=5.0)
    clock.now = 0.001
    assert cache.expires_in("a") == pytest.approx(49.999) and cache.expires_in("b") == pytest.approx(4.999)
    free = manual(clock)
    free["a"] = 1
    assert free.expires_in("a") == math.inf
    with pytest.raises(KeyError):
        free.expires_in("b")


@pytest.mark.parametrize("policy", _core.POLICIES)
def test_what_leaves_repeats_with_the_seed_whatever_the_policy(policy: str) -> None:
    def left() -> list[Any]:
        gone: list[Any] = []
        cache: Cache[int, int] = Cache(20, policy=policy, timer=lambda: 0.0, on_removal=lambda key, *_: gone.append(key),
                                       expiry=Learned(learner="manual", seed=7))
        draw = random.Random(1)
        for _ in range(3000):
            key = int(draw.paretovariate(0.7)) % 97
            if cache.get(key) is None:
                cache[key] = key
        return gone

    assert left() == left()
