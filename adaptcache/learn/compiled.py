"""A user's river regressor as flat arrays that the core evaluates inline.

What is known by its exact type is compiled: linear regressions, Hoeffding trees of numeric splits, pipelines of scalers
and selectors before them, scaled targets around them. Anything else (another type, a subclass that may have changed a
method, a tree that has grown too large) is None, and is asked off the hot path instead. This file knows neither entries
nor when a model is compiled; `learn/trainer.py` says when.

All of these are one form: numeric splits that lead to a leaf, and in each leaf a weighted sum of the features. Scalers
are affine, so they are folded into thresholds and weights.
"""
from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from river import compose, linear_model, optim, preprocessing, tree
from river.tree.nodes.branch import NumericBinaryBranch
from river.tree.nodes.htr_nodes import LeafAdaptive, LeafMean, LeafModel

from adaptcache import _core

NODES = 4096        # of one tree, at most
DEPTH = 100
# Feature -> (its place in x, scale, shift): what the model at this point of a pipeline sees of it is scale * x + shift.
Lens = dict[Any, tuple[int, float, float]]
PLAIN_LOSSES = (optim.losses.Squared, optim.losses.Absolute, optim.losses.Cauchy, optim.losses.EpsilonInsensitiveHinge,
                optim.losses.Huber, optim.losses.Quantile)


@dataclass
class Rule:
    """Node i tests x[feature[i]] <= threshold[i]; feature < 0 is a leaf, whose row of weights is left[i].

    rows: (leaves, FEATURE_COUNT + 1), the last column being what is added. Seconds are the sum, or e to it.
    """

    feature: NDArray[np.int32]
    threshold: NDArray[np.float64]
    left: NDArray[np.uint32]
    right: NDArray[np.uint32]
    rows: NDArray[np.float64]
    exponential: bool = False


def rule(model: Any, places: Mapping[str, int]) -> Rule | None:
    """What `model.predict_one` says, as it is now, of features that have these places in x; None if it cannot be compiled."""
    return _regressor(model, {name: (at, 1.0, 0.0) for name, at in places.items()})


def _regressor(model: Any, lens: Lens) -> Rule | None:
    kind = type(model)
    if kind is compose.Pipeline:
        *steps, last = model.steps.values()
        for step in steps:
            seen = _transformed(step, lens)
            if seen is None:
                return None
            lens = seen
        return _regressor(last, lens)
    if kind in (preprocessing.TargetStandardScaler, preprocessing.TargetMinMaxScaler):
        return _unscaled(model, _regressor(model.regressor, lens))
    if kind is tree.HoeffdingTreeRegressor:
        return _tree(model, lens)
    row = _row(model, lens)
    return None if row is None else Rule(
        np.array([-1], np.int32), np.zeros(1), np.zeros(1, np.uint32), np.zeros(1, np.uint32), row[None],
        isinstance(getattr(model, "loss", None), optim.losses.Poisson))


def _row(model: Any, lens: Lens) -> NDArray[np.float64] | None:
    """The weights of a linear model on raw features."""
    if type(model) is linear_model.LinearRegression:
        if type(model.loss) not in (*PLAIN_LOSSES, optim.losses.Poisson):
            return None
    elif type(model) is not linear_model.PARegressor:
        return None
    row = np.zeros(_core.FEATURE_COUNT + 1)
    row[-1] = model.intercept
    for name, weight in model.weights.items():
        if name in lens:
            at, scale, shift = lens[name]
            row[at] += weight * scale
            row[-1] += weight * shift
    return row


def _transformed(step: Any, lens: Lens) -> Lens | None:
    """What comes after one step of a pipeline."""
    kind = type(step)
    if kind is compose.Select:
        return {name: lens[name] for name in step.keys if name in lens} if all(name in lens for name in step.keys) else None
    if kind is compose.Discard:
        return {name: seen for name, seen in lens.items() if name not in step.keys}
    if kind is preprocessing.StandardScaler and step.window_size is None:
        return {name: _through(seen, step.means.get(name, 0.0), _root(step.vars.get(name, 0.0)) if step.with_std else 1.0)
                for name, seen in lens.items()}
    if kind is preprocessing.MinMaxScaler:
        out = {}
        for name, seen in lens.items():
            low, high = (step.min[name].get(), step.max[name].get()) if name in step.min else (math.inf, -math.inf)
            if high < low:      # nothing was seen: river says NaN, and NaN means hold
                low, high = math.nan, math.nan
            out[name] = _through(seen, low, high - low)
        return out
    if kind is preprocessing.MaxAbsScaler:
        return {name: _through(seen, 0.0, step.abs_max[name].get() if name in step.abs_max else 0.0) for name, seen in lens.items()}
    return None


def _root(variance: float) -> float:
    """NaN where rounding made a variance negative, of which river makes a complex number: neither is a time."""
    return math.sqrt(variance) if variance >= 0 else math.nan


def _through(seen: tuple[int, float, float], middle: float, spread: float) -> tuple[int, float, float]:
    """(x - middle) / spread; river says nought where there is no spread."""
    at, scale, shift = seen
    return (at, scale / spread, (shift - middle) / spread) if spread else (at, 0.0, 0.0)


def _unscaled(model: Any, inner: Rule | None) -> Rule | None:
    """The seconds of a model whose target was scaled."""
    if inner is None or inner.exponential:
        return None
    if type(model) is preprocessing.TargetStandardScaler:
        spread, middle = _root(model.var.get()), model.var.mean.get()
    elif model.min.get() == math.inf:
        return inner
    else:
        spread, middle = model.max.get() - model.min.get(), model.min.get()
    inner.rows *= spread
    inner.rows[:, -1] += middle
    return inner


def _tree(model: Any, lens: Lens) -> Rule | None:
    feature: list[int] = []
    threshold: list[float] = []
    left: list[int] = []
    right: list[int] = []
    rows: list[NDArray[np.float64]] = []

    def visit(node: Any, depth: int) -> int | None:
        """The number of the node; children come after their parent. None: not a tree that can be compiled."""
        at = len(feature)
        if at >= NODES or depth > DEPTH:
            return None
        for column in (feature, threshold, left, right):
            column.append(0)
        if type(node) is NumericBinaryBranch:
            if node.feature not in lens:
                return None
            place, scale, shift = lens[node.feature]
            if not scale >= 0:
                return None
            feature[at] = place
            # Without a scale the feature is the same for all, and everything goes one way.
            threshold[at] = (node.threshold - shift) / scale if scale else math.copysign(1e300, node.threshold - shift)
            for branch, child in zip((left, right), node.children, strict=True):
                number = visit(child, depth + 1)
                if number is None:
                    return None
                branch[at] = number
            return at
        row = _leaf(node, lens)
        if row is None:
            return None
        feature[at], left[at] = -1, len(rows)
        rows.append(row)
        return at

    if model._root is None:
        rows.append(np.zeros(_core.FEATURE_COUNT + 1))
        feature, threshold, left, right = [-1], [0.0], [0], [0]
    elif visit(model._root, 0) is None:
        return None
    return Rule(np.array(feature, np.int32), np.array(threshold, np.float64), np.array(left, np.uint32), np.array(right, np.uint32),
                np.array(rows))


def _leaf(node: Any, lens: Lens) -> NDArray[np.float64] | None:
    kind = type(node)
    if kind is LeafModel or (kind is LeafAdaptive and node._fmse_mean >= node._fmse_model):
        # Its own learner is given the tree's features as they come, so the same lens serves.
        poisson = isinstance(getattr(node._leaf_model, "loss", None), optim.losses.Poisson)
        return None if poisson else _row(node._leaf_model, lens)
    if kind is LeafMean or kind is LeafAdaptive:
        row = np.zeros(_core.FEATURE_COUNT + 1)
        row[-1] = node.stats.mean.get()
        return row
    return None
