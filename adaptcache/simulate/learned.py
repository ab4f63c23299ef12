"""Learned expiry over a trace: the live cache's own decisions, driven by the compiled loop.

Between two pieces of the trace the trainer does what the live cache's worker would do.
"""
from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from adaptcache import _core
from adaptcache.decisionlog import DecisionLog
from adaptcache.errors import TraceError
from adaptcache.expiry import PREDICTORS
from adaptcache.learn import experts
from adaptcache.learn.trainer import Trainer
from adaptcache.simulate.oracle import Oracle
from adaptcache.simulate.trace import Trace

PIECE = 256     # rows between two learning steps: as often as a busy service's worker would step
LEARNED = 4     # the core's number of a learned expiry
LOGGED = 50_000         # decisions that a log of a trace holds, about: on longer ones a sample of the keys
LOG_BYTES = 1 << 28


def replay(
    trace: Trace,
    price: float,
    *,
    miss_cost: float = 1.0,
    premature: float = 0.01,
    window: float | None = None,
    seed: int = 0,
    guarantee: str = "absolute",
    predictors: Sequence[Any] = PREDICTORS,
    only: int = -1,
    without: Collection[int] = (),
    stale: float | None = None,
    progress: Callable[[int, int], None] | None = None,
    log: str | os.PathLike[str] | None = None,
    watch: Callable[[int, _core.ExpiryReplay, Trainer], None] | None = None,
    piece: int = PIECE,
) -> dict[str, Any]:
    """What a learned expiry costs on `trace` at `price` (per unit of size and second), without a capacity limit.

    Returns requests, misses, miss_cost, hold_cost, total_cost, protected, lost, bound, in_flight,
    stale_hits, weights (expert -> share at the end), worst_margin (least of bound - lost - in_flight over the
    whole run) and alarms. `only` follows one expert of the core alone, and
    `without` leaves experts out, for ablations. `log`: a file for what was
    decided about each key, or about a sample of the keys of a long trace (see `decisionlog`).
    `watch(rows so far, replay, trainer)` is called between two pieces of `piece` rows.

    stale: a budget p of stale reads, on a trace with versions (docs/freshness.md). Then a value's validity is learned,
    and there are besides: refreshes (reloads that freshness asked for, in the background or by a get that came after
    the end of a validity; the first load of a key and reloads after a removal on other grounds are none),
    refresh_cost (of those in the background, which are no misses; part of total_cost) and freshness (what the learner
    believes of its own staleness). A reload takes no time here: it brings the version of the read that asked for it.
    """
    if stale is not None and trace.version is None:
        raise TraceError(f"{trace.name}: has no versions; stale={stale} needs a column version")
    oracle = Oracle(trace, miss_cost)
    assert trace.time is not None
    rows = len(trace)
    size = np.ascontiguousarray(oracle.size, np.float64)
    cost = np.full(rows, miss_cost) if trace.cost is None else trace.cost
    namespace = None
    if trace.namespace is not None:
        # 0 is "none" in the core, and what does not fit is "none" too.
        numbers = trace.namespace.astype(np.int64) + 1
        namespace = np.where(numbers < 4096, numbers, 0).astype(np.uint16)
    number, code = features(trace)
    models = [given for given in predictors if not isinstance(given, str)]
    brain = _core.Brain(
        mask=experts.mask("table" in predictors, "river" in predictors, len(models), without), price=price, alpha=premature,
        window=window, miss_cost=miss_cost, seed=seed, capacity=1 << 30, now=float(trace.time[0]),
    )
    brain.only = only
    for name in list(trace.features)[: _core.APP_FEATURES]:
        brain.place(name)
    trainer = Trainer(brain, river="river" in predictors, models=models)
    run = _core.ExpiryReplay(LEARNED, trace.n_keys, price=price, now=float(trace.time[0]), brain=brain, alpha=premature,
                             expected=guarantee == "expected", stale=stale, seed=seed & (1 << 64) - 1)
    decisions = None
    if log is not None:
        about = {"trace": trace.name, "memory_price": price, "premature": premature, "window": window, "guarantee": guarantee}
        source = _Replayed(run)
        decisions = DecisionLog(source, log, sample=min(1.0, LOGGED / rows), max_bytes=LOG_BYTES, salt=seed, about=about,
                                users=trainer.names, app=brain.feature_names)
    # A model that is asked from outside must have answered before the next request.
    if trainer.asks:
        piece = 1
    for start in range(0, rows, piece):
        stop = min(start + piece, rows)
        run.run(trace.key, trace.time, size, cost, trace.op, trace.version, namespace, number, code, start, stop)
        books = run.counts()
        if premature < 1:
            trainer.step(books["protected"], books["lost"] - premature * books["protected"])
        else:
            trainer.step()          # no guard, so no error of its
        if decisions is not None:
            decisions.drain()
        if watch is not None:
            watch(stop, run, trainer)
        if progress is not None and (stop == rows or start % (1 << 14) == 0):
            progress(stop, rows)
    run.finish(float(trace.time[-1]))
    counts = run.counts()
    if decisions is not None:
        decisions.close()
        if decisions.error is not None:
            raise decisions.error
    freshness = {} if stale is None else {
        "refreshes": run.refreshes, "refresh_cost": run.refresh_cost, "freshness": run.freshness(),
    }
    return freshness | {
        "requests": run.requests, "misses": run.misses, "miss_cost": run.miss_cost, "hold_cost": run.hold_cost,
        "total_cost": run.miss_cost + run.hold_cost + run.refresh_cost, "protected": counts["protected"], "lost": counts["lost"],
        "bound": counts["bound"], "in_flight": counts["in_flight"], "stale_hits": run.stale_hits,
        "weights": experts.shares(brain, trainer.names), "worst_margin": -counts["worst"], "alarms": sum(trainer.alarms.values()), "alarms_by_cause": dict(trainer.alarms), "out_of_scope": brain.outside,
    }


class _Replayed:
    """A replay as a decision log sees it: no operation of it ever writes, the loop above does."""

    def __init__(self, run: _core.ExpiryReplay) -> None:
        self._run = run
        self._log_start, self._log_rows = run._log_start, run._log_rows
        self._log_stop, self._log_state = run._log_stop, run._log_state

    def _log_about(self) -> dict[str, Any]:
        run, counts = self._run, self._run.counts()
        return {"hits": run.requests - run.misses, "misses": run.misses, "premature": counts["lost"],
                "protected": counts["protected"], "premature_budget": counts["bound"], "in_flight": counts["in_flight"],
                "refused": counts["refused"], "used": (counts["lost"] + counts["in_flight"]) / counts["bound"]}

    def _labels(self) -> Mapping[int, Any]:
        # A trace keeps numbers of its namespaces only; the core counts them from 1.
        return {number: number - 1 for number in range(1, 4096)}


def features(trace: Trace) -> tuple[Any, Any]:
    """The trace's side information as two arrays (rows, features): numbers, and codes of categories (0 = a number)."""
    names = list(trace.features)[: _core.APP_FEATURES]
    if not names:
        return None, None
    number = np.zeros((len(trace), len(names)), np.float32)
    code = np.zeros((len(trace), len(names)), np.uint16)
    for at, name in enumerate(names):
        column = trace.features[name]
        if np.issubdtype(column.dtype, np.integer):
            # The same spread over the code space as the live cache gives to words.
            mixed = (column.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
            code[:, at] = (1 + (mixed >> np.uint64(32)) % np.uint64(1023)).astype(np.uint16)
        else:
            number[:, at] = column
    return number, code
