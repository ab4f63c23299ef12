"""The stack: the log-odds of contexts, weighed by river's regression, in plain Python beside the core."""
from __future__ import annotations

import importlib
import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptcache import _core
from adaptcache.learn import experts, river_models

_learntest: Any = importlib.import_module("adaptcache._learntest")

B, S, T, CHAIN = _core.BUCKET_COUNT, _core.STAGE_COUNT, _core.TERM_COUNT, _core.CHAIN_TERM_COUNT
PROBABILITY = st.floats(0, 1, width=32)
CELL = st.tuples(PROBABILITY, st.just(0.0), st.integers(0, 3000))
BASE = 40


def shrunk(p: float, n: float, parent: float) -> float:
    return (n * p + 4 * parent) / (n + 4)


def log_odds(p: float) -> float:
    p = min(max(p, 5e-4), 0.9995)
    return math.log(p / (1 - p))


def reference(everyone: Any, namespace: Any, habit: Any, habit2: Any, key: Any, sides: Any) -> list[float]:
    """The terms of one bin: each context's log-odds less its parent's."""
    terms = [0.0] * T
    p = shrunk(everyone[0], everyone[2], 0.05)
    terms[0] = log_odds(p)
    if namespace is not None:
        above, p = p, shrunk(namespace[0], namespace[2], p)
        terms[1] = log_odds(p) - log_odds(above)
    for i, side in enumerate(sides):
        if side is not None and side[1] > 0:
            terms[CHAIN + i] = log_odds(shrunk(*side, p)) - log_odds(p)
    for i, cell in ((2, habit), (3, habit2)):
        above, p = p, shrunk(cell[0], cell[2], p)
        terms[i] = log_odds(p) - log_odds(above)
    if key is not None and key[2]:
        n = key[2]
        terms[4 + (n > 2) + (n > 6) + (n > 15)] = log_odds(shrunk(key[0], n, p)) - log_odds(p)
    return terms


@settings(max_examples=200, deadline=None)
@given(everyone=CELL, habit=CELL, habit2=CELL, namespace=st.one_of(st.none(), CELL), bins=st.integers(0, 23),
       key=st.one_of(st.none(), st.tuples(PROBABILITY, st.just(0.0), st.integers(0, 40))), bucket=st.integers(0, B - 1),
       sides=st.lists(st.one_of(st.none(), st.tuples(PROBABILITY, st.integers(0, 500))), max_size=T - CHAIN), seed=st.integers(0, 99))
def test_terms_and_their_mixture_equal_the_reference(everyone: Any, habit: Any, habit2: Any, namespace: Any, bins: int, key: Any,
                                                     bucket: int, sides: Any, seed: int) -> None:
    draw = np.random.default_rng(seed)
    weight, bias = draw.normal(0.5, 0.5, (B, S, T)), draw.normal(0, 0.5, (B, S))
    k = BASE + bins
    terms, mixed = _learntest.stack(
        at(everyone, k), at(habit, k), at(habit2, k), k=k, base=BASE, bucket=bucket, sides=sides, weight=weight, bias=bias,
        namespace=None if namespace is None else at(namespace, k),
        key=None if key is None else [(0.0, 0.0, 0)] * bins + [key] + [(0.0, 0.0, 0)] * (_learntest.WINDOW - bins - 1))
    wanted = reference(everyone, namespace, habit, habit2, key, sides)
    # The core's logarithm is a polynomial, and a key's hazard has 16 bits.
    assert terms == pytest.approx(wanted, abs=0.04)
    z = bias[bucket][bins // 4] + sum(w * t for w, t in zip(weight[bucket][bins // 4], terms, strict=True))
    assert mixed == pytest.approx(1 / (1 + math.exp(-min(max(z, -12), 12))), rel=1e-5)


def at(cell: Any, k: int) -> Any:
    return [(0.0, 0.0, 0)] * k + [cell] + [(0.0, 0.0, 0)] * (_learntest.NB - k - 1)


@settings(max_examples=50, deadline=None)
@given(everyone=CELL, habit=CELL, habit2=CELL, bucket=st.integers(0, B - 1), side=st.tuples(PROBABILITY, st.integers(1, 500)))
def test_untaught_stack_is_the_hazard_chain(everyone: Any, habit: Any, habit2: Any, bucket: int, side: Any) -> None:
    """Side contexts count for nothing until something was learned."""
    _, mixed = _learntest.stack(at(everyone, BASE), at(habit, BASE), at(habit2, BASE), k=BASE, base=BASE, bucket=bucket, sides=[side])
    chain = shrunk(habit2[0], habit2[2], shrunk(habit[0], habit[2], shrunk(everyone[0], everyone[2], 0.05)))
    assert mixed == pytest.approx(min(max(chain, 5e-4), 0.9995), rel=1e-3)


def test_side_cell_is_the_mean_of_what_it_saw_and_forgets_after_500() -> None:
    p, n = _learntest.side([1, 0, 0, 1, 2])
    assert (p, n) == (pytest.approx(0.4), 5)
    p, n = _learntest.side([0] * 5000 + [1] * 1500)
    assert n == 500 and p == pytest.approx(1 - (1 - 1 / 500) ** 1500, abs=1e-3)


def test_frozen_stack_equals_rivers_own_probabilities() -> None:
    stack, terms, info = taught()
    weight, bias = stack.freeze()
    assert np.abs(weight - untaught()).max() > 0.05     # something was learned
    for row, (bucket, stage, _) in zip(terms[-300:].tolist(), info[-300:].tolist(), strict=True):
        x: dict[int, float] = {river_models.CONSTANT: 1.0}
        for start in (0, river_models.BUCKET + bucket * river_models.SPACE, river_models.STAGE + stage * river_models.SPACE):
            x |= {start + i: t for i, t in enumerate(row) if t} | {start + river_models.CONSTANT: 1.0}
        ours = 1 / (1 + math.exp(-(bias[bucket, stage] + float(np.dot(weight[bucket, stage], row)))))
        assert ours == pytest.approx(stack.model.predict_proba_one(x)[True], rel=1e-4)


def test_stack_learns_whom_to_believe() -> None:
    """Term 2 lies, side term 3 tells the truth: the weights must say so."""
    stack, _, _ = taught()
    weight, _ = stack.freeze()
    assert weight[:, :, 2].max() < 0.6 and weight[:, :, CHAIN + 3].min() > 0.3


def untaught() -> Any:
    return river_models.Stack().freeze()[0]


def taught() -> tuple[river_models.Stack, Any, Any]:
    dice, stack = random.Random(3), river_models.Stack()
    terms, info = np.zeros((6000, T), np.float32), np.zeros((6000, 3), np.uint8)
    for i in range(6000):
        truth = dice.random() < 0.3
        terms[i, 0] = -0.85
        terms[i, 2] = dice.gauss(0, 1)
        terms[i, CHAIN + 3] = 1.5 if truth == (dice.random() < 0.9) else -1.5
        info[i] = dice.randrange(B), dice.randrange(S), truth
    stack.learn(terms, info)
    return stack, terms, info


def brain() -> _core.Brain:
    return _core.Brain(mask=experts.mask(True, True, 0), price=1.0, alpha=0.01, window=None, miss_cost=1.0, seed=1, capacity=1000,
                       now=0.0)


def arrays() -> dict[str, Any]:
    return {"weight": np.zeros((B, S, T), np.float32), "bias": np.zeros((B, S), np.float32)}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["weight", "bias"])
def test_weights_that_are_not_finite_are_refused(where: str, value: float) -> None:
    given = arrays()
    given[where].flat[-1] = value
    with pytest.raises(ValueError, match="not finite"):
        brain().publish_stack(**given)
    brain().publish_stack(**arrays())


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("where", ["weight", "bias"])
def test_weights_of_the_wrong_shape_are_refused(where: str, axis: int) -> None:
    given = arrays()
    given[where] = np.ascontiguousarray(np.delete(given[where], -1, axis))
    with pytest.raises(ValueError, match="shape"):
        brain().publish_stack(**given)


def test_context_of_few_labels_leans_on_the_one_above_and_then_on_itself() -> None:
    prior, losses = [0.25] * 4, [0.0, 50.0, 50.0, 50.0]
    own = [[4.0, 0.0, 4.0, 4.0]]
    alone = _learntest.hedge(own * 400, prior, 0.999, 1e-3)
    leaning = _learntest.hedge(own * 400, prior, 0.999, 1e-3, above=losses)
    assert alone[0][1] > leaning[0][1] and leaning[0][0] > 0.5
    assert leaning[-1][1] > 0.9
