"""River's part in the mixture (the only importer of river): a stack, logistic hazards and a tree.

`Stack` learns how much to believe each of the core's contexts (`_ext/stack.pxd` makes the terms and evaluates).

`Hazards` is one logistic regression per group of four time bins: given that nothing came before, does
a request come within this group? `Leaves` is a Hoeffding tree on the same features, whose leaves the
core fills with hazard cells; only its splits are river's. Both freeze into flat arrays for the core.

Facts of river 0.24 to 0.26 that this file leans on: estimators are not thread-safe, so one learner
calls them; Hoeffding trees need delta near 0.05 and tau near 0.3 to grow at all on streams of this size;
`leaf_prediction="mean"` keeps a learn near 20 microseconds.
"""
from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from river import drift, linear_model, optim, tree

from adaptcache import _core
from adaptcache.learn.terms import BUCKET, CONSTANT, SPACE, STAGE, WEIGHTS

Floats = NDArray[np.float32]
DAY = [17, 18]          # sine and cosine of the time of day


class Scope:
    """The running range, mean and spread of the features that were trained on."""

    def __init__(self) -> None:
        self.n = 0
        self.mean = np.zeros(_core.FEATURE_COUNT)
        self.m2 = np.zeros(_core.FEATURE_COUNT)
        self.low = np.full(_core.FEATURE_COUNT, np.inf)
        self.high = np.full(_core.FEATURE_COUNT, -np.inf)

    def learn(self, x: Floats) -> None:
        """Rows of features (Chan, Golub and LeVeque's pairwise update)."""
        rows = len(x)
        if rows == 0:
            return
        mean = x.mean(axis=0, dtype=np.float64)
        delta = mean - self.mean
        total = self.n + rows
        self.m2 += ((x - mean) ** 2).sum(axis=0) + delta**2 * (self.n * rows / total)
        self.mean += delta * (rows / total)
        self.n = total
        np.minimum(self.low, x.min(axis=0), out=self.low)
        np.maximum(self.high, x.max(axis=0), out=self.high)

    def scaled(self, x: Floats) -> list[dict[int, float]]:
        """Rows as river wants them: standardised, without the features that never varied."""
        varied = np.flatnonzero((self.m2 > 0) & self.told())
        z = (x[:, varied] - self.mean[varied]) / self.spread()[varied]
        numbers = varied.tolist()
        return [dict(zip(numbers, row, strict=True)) for row in z.tolist()]

    def spread(self) -> NDArray[np.float64]:
        """Standard deviations, 1 where a feature never varied."""
        spread = np.sqrt(self.m2 / max(self.n, 1))
        return np.where(spread > 1e-9, spread, 1.0)

    def told(self) -> NDArray[np.bool_]:
        """Which features may speak: the time of day only once most of a day was seen. Before, it is a trend."""
        told = np.ones(_core.FEATURE_COUNT, bool)
        told[DAY] = (self.high - self.low)[DAY].min() > 1.5 if self.n else False
        return told

    def bounds(self) -> tuple[Floats, Floats]:
        """The range, a tenth of it wider on both sides: outside, a model has nothing to say."""
        margin = np.maximum(0.1 * (self.high - self.low), 1e-3)
        low, high = self.low - margin, self.high + margin
        low[DAY], high[DAY] = -1.1, 1.1     # a clock cannot leave its face
        return low.astype(np.float32), high.astype(np.float32)


    def state(self) -> dict[str, Any]:
        """Plain numbers; an empty range is written as nought."""
        low, high = (self.low, self.high) if self.n else (self.mean, self.mean)
        return {"n": self.n, "mean": self.mean.tolist(), "m2": self.m2.tolist(), "low": low.tolist(), "high": high.tolist()}

    def restore(self, state: dict[str, Any]) -> None:
        if state["n"]:
            self.n = int(state["n"])
            self.mean, self.m2, self.low, self.high = (np.array(state[name]) for name in ("mean", "m2", "low", "high"))


class Hazards:
    """Stacked logistic hazards on standardised features."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.models: dict[int, Any] = {}
        self.trained: dict[int, int] = {}

    def learn(self, z: dict[int, float], first: int, last: int, requested: bool) -> None:
        """A wait passed the bins `first` .. `last - 1`, and ended in `last` by a request or by something else."""
        for group in range(first >> 2, (last >> 2) + 1):
            here = group == last >> 2
            if here and not requested:
                break               # it did not survive the group, nor did a request end it
            model = self.models.get(group)
            if model is None:
                model = self.models[group] = self._new()
                self.trained[group] = 0
            model.learn_one(z, here)
            self.trained[group] += 1

    def state(self) -> dict[str, list[Any]]:
        """Group -> labels, intercept, weights and AdaGrad's sums of squares, as plain numbers: nothing to unpickle."""
        return {
            str(group): [self.trained[group], float(model.intercept),
                         [float(model.weights.get(d, 0.0)) for d in range(_core.FEATURE_COUNT)],
                         [float(model.optimizer.g2.get(d, 0.0)) for d in range(_core.FEATURE_COUNT)]]
            for group, model in self.models.items()
        }

    def restore(self, state: dict[str, list[Any]]) -> None:
        self.models, self.trained = {}, {}
        for group, (trained, intercept, weights, squares) in state.items():
            model = self._new()
            model.intercept = intercept
            for d, (weight, square) in enumerate(zip(weights, squares, strict=True)):
                if square > 0:
                    model._weights[d] = weight
                    model.optimizer.g2[d] = square
            self.models[int(group)], self.trained[int(group)] = model, int(trained)

    @staticmethod
    def _new() -> Any:
        return linear_model.LogisticRegression(optim.AdaGrad(0.1), l2=1e-5)

    def freeze(self) -> tuple[Floats, Floats]:
        """Weights (groups, features) and biases on raw features: the scaling is folded in."""
        weight = np.zeros((_core.GROUP_COUNT, _core.FEATURE_COUNT))
        bias = np.full(_core.GROUP_COUNT, -3.0)     # a group without labels: 5 % an octave pair
        mean, spread = self.scope.mean, self.scope.spread()
        for group, model in self.models.items():
            if self.trained[group] < 20:
                continue
            row = np.zeros(_core.FEATURE_COUNT)
            for d, w in model.weights.items():
                row[d] = w
            row = np.clip(np.nan_to_num(row, posinf=0.0, neginf=0.0), -50, 50) / spread
            weight[group] = row
            bias[group] = float(np.clip(np.nan_to_num(model.intercept - float(row @ mean)), -1e6, 1e6))
        return weight.astype(np.float32), bias.astype(np.float32)


class Stack:
    """How much to believe each context: a logistic regression on the log-odds of all of them.

    One model; every term is there three times: for all, for its count bucket and for its stage of the wait, so that what
    is common is learned from everything. It starts as the hazard chain: 1 on the chain's own terms, 0 on the rest.
    """

    def __init__(self) -> None:
        self.model = linear_model.LogisticRegression(optim.AdaGrad(0.02, eps=1.0), l2=0.0, intercept_lr=0.0)
        for term in range(_core.CHAIN_TERM_COUNT):
            self.model._weights[term] = 1.0
        self.seen = np.zeros((1 + _core.BUCKET_COUNT + _core.STAGE_COUNT, SPACE))     # examples behind each weight

    def learn(self, terms: Floats, info: NDArray[np.uint8]) -> None:
        """Rows of terms, with the count bucket, the stage and whether the request came."""
        there = np.ones((len(terms), SPACE))
        there[:, :CONSTANT] = terms != 0
        self.seen[0] += there.sum(axis=0)
        np.add.at(self.seen, 1 + info[:, 0].astype(np.intp), there)
        np.add.at(self.seen, 1 + _core.BUCKET_COUNT + info[:, 1].astype(np.intp), there)
        for row, (bucket, stage, came) in zip(terms.tolist(), info.tolist(), strict=True):
            x = {CONSTANT: 1.0}
            of_bucket, of_stage = BUCKET + bucket * SPACE, STAGE + stage * SPACE
            for term, value in enumerate(row):
                if value:
                    x[term] = x[of_bucket + term] = x[of_stage + term] = value
            x[of_bucket + CONSTANT] = x[of_stage + CONSTANT] = 1.0
            self.model.learn_one(x, came)

    def freeze(self) -> tuple[Floats, Floats]:
        """Weights (BUCKET_COUNT, STAGE_COUNT, TERM_COUNT) and biases, held within what can be meant."""
        known = np.zeros(WEIGHTS)
        for at, w in self.model.weights.items():
            known[at] = w
        known = np.clip(np.nan_to_num(known), -5, 5)
        of_bucket = known[BUCKET:STAGE].reshape(_core.BUCKET_COUNT, 1, SPACE)
        of_stage = known[STAGE:].reshape(1, _core.STAGE_COUNT, SPACE)
        whole = (known[:SPACE] + of_bucket + of_stage).astype(np.float32)
        return np.ascontiguousarray(whole[:, :, :CONSTANT]), np.ascontiguousarray(whole[:, :, CONSTANT])

    def state(self) -> dict[str, list[float]]:
        """Of each weight, in the order of terms for all, by bucket and by stage: itself, AdaGrad's sum, examples behind it."""
        weights, squares = self.model.weights, self.model.optimizer.g2
        return {"weights": [float(weights.get(at, 0.0)) for at in range(WEIGHTS)],
                "squares": [float(squares.get(at, 0.0)) for at in range(WEIGHTS)], "seen": self.seen.reshape(-1).tolist()}

    def restore(self, state: dict[str, list[float]]) -> None:
        for at, (weight, square) in enumerate(zip(state["weights"], state["squares"], strict=True)):
            if weight or square:
                self.model._weights[at] = weight
            if square:
                self.model.optimizer.g2[at] = square
        self.seen = np.array(state["seen"]).reshape(self.seen.shape)


class Leaves:
    """A Hoeffding tree of which only the splits are used, and the numbers of its leaves."""

    def __init__(self) -> None:
        self.tree = self._new()
        self._numbers: dict[int, tuple[Any, int]] = {}     # id(node) -> (node, leaf number); the node is kept
        self._next = 1
        self.n_leaves = 1

    @staticmethod
    def _new() -> Any:
        return tree.HoeffdingTreeRegressor(
            grace_period=200, max_depth=6, delta=0.05, tau=0.3, leaf_prediction="mean",
            splitter=tree.splitter.QOSplitter(),
        )

    @property
    def size(self) -> int:
        """Leaves of the tree as it is now, published or not."""
        return int(self.tree.n_leaves or 0)

    def learn(self, z: dict[int, float], waited: float) -> None:
        self.tree.learn_one(z, waited)

    def freeze(self, scope: Scope, brain: _core.Brain) -> tuple[NDArray[np.int32], Floats, NDArray[np.uint32], NDArray[np.uint32]] | None:
        """Arrays for `publish_tree`, or None while there is no split. New leaves inherit their parent's cell."""
        root = self.tree._root
        if root is None or not hasattr(root, "children"):
            return None
        mean, spread = scope.mean, scope.spread()
        feature: list[int] = []
        threshold: list[float] = []
        left: list[int] = []
        right: list[int] = []
        leaves = 0

        def visit(node: Any, above: int) -> int:
            nonlocal leaves
            number = self._number(node, above, brain)
            at = len(feature)
            for column in (feature, threshold, left, right):
                column.append(0)
            if not hasattr(node, "children"):
                leaves += 1
                feature[at], left[at] = -1, number
                return at
            d = int(node.feature)
            feature[at] = d
            threshold[at] = float(node.threshold * spread[d] + mean[d])
            left[at] = visit(node.children[0], number)
            right[at] = visit(node.children[1], number)
            return at

        visit(root, 0)
        self.n_leaves = leaves
        return (np.array(feature, np.int32), np.array(threshold, np.float32),
                np.array(left, np.uint32), np.array(right, np.uint32))

    def _number(self, node: Any, above: int, brain: _core.Brain) -> int:
        known = self._numbers.get(id(node))
        if known is not None:
            return known[1]
        number = min(self._next, _core.LEAF_COUNT - 1)
        if self._next < _core.LEAF_COUNT - 1:
            self._next += 1
            brain.inherit_leaf(above, number)
        self._numbers[id(node)] = (node, number)
        return number


def adwin() -> Any:
    """Bifet and Gavalda's ADWIN (SDM 2007): 0.2 microseconds an update."""
    return drift.ADWIN(delta=0.002)  # type: ignore[no-untyped-call]


def log_wait(breakeven: float, seen: float) -> float:
    """What the tree learns: log2 of the wait over break-even, within -10 .. 1."""
    return min(1.0, max(-10.0, math.log2(max(seen, 1e-9) / max(breakeven, 1e-9))))
