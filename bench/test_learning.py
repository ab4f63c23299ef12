"""What learning costs, apart from requests: the core per label, and the trainer's step with river.

The traffic is the synthetic pipeline workload. The peer of the core is the same replay with a
fixed TTL, which learns nothing; the peer of the trainer is river itself, called on the same labels.
"""
from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import pytest
from river import linear_model, optim, tree

from adaptcache import _core
from adaptcache.learn import experts
from adaptcache.learn.trainer import BATCH, DENSE, THIN, Trainer
from adaptcache.simulate import Trace, read

FIXED, LEARNED = 1, 4
ROWS = 100      # a round shorter than a time slice, so that a busy machine does not count as learning


class Traffic:
    """A trace that never ends: after its last row time goes on, with the same keys."""

    def __init__(self, trace: Trace) -> None:
        assert trace.time is not None
        self.key, self.time = trace.key, trace.time
        self.size = np.ones(len(trace)) if trace.size is None else trace.size.astype(np.float64)
        self.cost = np.ones(len(trace))
        self.price = 1.0 / (float(np.median(self.size)) * float(np.ptp(self.time)) / 20)
        self.n_keys = trace.n_keys
        self.at = 0

    def next(self, rows: int = ROWS) -> tuple[int, int]:
        if self.at + rows > len(self.key):
            self.at = 0
            self.time = self.time + float(np.ptp(self.time)) + 1.0
        start, self.at = self.at, self.at + rows
        return start, self.at

    def replay(self, kind: int, brain: _core.Brain | None = None) -> _core.ExpiryReplay:
        return _core.ExpiryReplay(kind, self.n_keys, price=self.price, now=float(self.time[0]), ttl=60.0, brain=brain)

    def run(self, replay: _core.ExpiryReplay, rows: tuple[int, int]) -> None:
        replay.run(self.key, self.time, self.size, self.cost, None, None, None, None, None, *rows)


@pytest.fixture(scope="module")
def trace() -> Trace:
    return read("synthetic:pipeline", limit=100_000, seed=1)


def brain_of(traffic: Traffic, river: bool) -> _core.Brain:
    return _core.Brain(
        mask=experts.mask(True, river, 0), price=traffic.price, alpha=0.01, window=None, miss_cost=1.0, seed=1,
        capacity=1 << 20, now=float(traffic.time[0]),
    )


def test_core_request(contest: Callable[..., Any], trace: Trace) -> None:
    """A request with all that the core learns from it and decides."""
    traffic = Traffic(trace)
    brain = brain_of(traffic, river=False)
    ours, fixed = traffic.replay(LEARNED, brain), traffic.replay(FIXED)
    for _ in range(200):
        rows = traffic.next()
        traffic.run(ours, rows)
        traffic.run(fixed, rows)
    labels, requests = brain.labels, ours.requests
    row = contest("learning: core, per request", "core", lambda rows: traffic.run(ours, rows),
                  {"fixed TTL": lambda rows: traffic.run(fixed, rows)}, ROWS, prepare=traffic.next, rounds=301)
    done = (brain.labels - labels) / (ours.requests - requests)
    assert done > 0
    if row.ours:
        row.notes[""] = f"{done:.2f} labels a request, {done * ROWS / median(row.ours):,.0f} labels/s"


def test_trainer_step(contest: Callable[..., Any], trace: Trace) -> None:
    """One step of the trainer: its labels through river's models, and now and then a frozen model for the core.

    The peer learns the same rows with one logistic regression and one Hoeffding tree of river, and nothing else.
    """
    traffic = Traffic(trace)
    brain = brain_of(traffic, river=True)
    replay, trainer = traffic.replay(LEARNED, brain), Trainer(brain, river=True)
    line = linear_model.LogisticRegression(optim.AdaGrad(0.1), l2=1e-5)
    leaves = tree.HoeffdingTreeRegressor(grace_period=200, max_depth=6, delta=0.05, tau=0.3, leaf_prediction="mean",
                                         splitter=tree.splitter.QOSplitter())
    x = np.random.default_rng(1).normal(size=(BATCH, _core.FEATURE_COUNT))
    rows = [dict(enumerate(row.tolist())) for row in x]

    def labels() -> None:
        # After its first thousands the trainer takes one label in eight.
        for _ in range(THIN + 1):
            traffic.run(replay, traffic.next(BATCH))

    def ours(_: None) -> None:
        trainer.step()

    def river(_: None) -> None:
        for row in rows:
            line.learn_one(row, row[0] > 0)
            leaves.learn_one(row, row[1])

    while trainer.learned < DENSE:
        labels()
        trainer.step()
    learned = trainer.learned
    rounds = 21
    row = contest("learning: trainer, per label", "trainer", ours, {"river": river}, BATCH, prepare=labels, rounds=rounds)
    assert trainer.learned > learned
    if row.ours:
        row.notes[""] = f"{BATCH / median(row.ours):,.0f} labels/s"
        assert trainer.learned - learned >= rounds * BATCH  # every step was a full one
