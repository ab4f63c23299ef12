"""How few refreshes a budget of stale reads takes, for those who know more than a cache can.

A *refresh* is a reload of a key that is held, or was let go because it might be stale; the first load of a key, and one
after a delete, is none. A *stale read* is a get that is served a copy of another version than the source's. Values that
sets bring are fresh and free. Memory costs nothing. The budget is p of all gets.

`clairvoyant` knows when each value changes. The gets of one key between two changes of what is known of it (a change at
the source, a set, a delete) form a run; where a run begins with a copy that is not the source's, it is decided on as a
whole: refresh at its first get, and none of it is stale, or never, and all n of it are. To refresh later in a run costs the
same and leaves stale reads before it; to refresh earlier brings the wrong version. What is decided on one run changes no
other: a skipped run leaves an old copy, but the next run needs a refresh or not whatever the copy is, since versions do
not come back. So the fewest refreshes are all runs less the most runs whose lengths sum to p * gets at most, and
these are the shortest ones. This is exact, and nobody can do it without hearing of each change.

`best_fixed` gives each key the one validity that is best for it in hindsight: for a price theta of a stale read, each key
takes the validity (of GRID, from 0 to infinity) with the least refreshes + theta * stale; sum - theta * budget is at most
what any choice from the grid within the budget needs (Lagrangian duality), and its maximum over theta is the bound given.

`informed` knows each key's mean rate of change and of reads over the whole trace, but not when changes happen, and follows
the rule that is optimal for Poisson changes and reads (fresh.pxd), at the price theta that spends the budget, found in
hindsight. It is no bound: a learner can notice that changes come in bursts.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from adaptcache import _core
from adaptcache.errors import TraceError
from adaptcache.simulate.trace import DELETE, GET, Column, Trace

GRID: Final = 48


@dataclass(frozen=True)
class Refreshes:
    """The fewest refreshes of three kinds of knowledge, at one budget."""

    budget: int  # stale reads allowed
    always: int  # refreshes of who never serves a copy twice: gets of keys that are held
    clairvoyant: int
    best_fixed: float  # a lower bound, hence not whole
    informed: int
    informed_stale: int


def knowing(trace: Trace, stale: float) -> Refreshes:
    """All three for one trace. TraceError where it has no times or no versions."""
    if trace.time is None or trace.version is None:
        raise TraceError(f"{trace.name}: freshness needs the columns time and version")
    rows = ByKey(trace)
    budget = int(np.floor(stale * rows.gets * (1 + 1e-12)))
    reloads, served = rows.informed(budget)
    return Refreshes(budget, rows.always(), clairvoyant(rows.runs(), budget), rows.best_fixed(budget), reloads, served)


def clairvoyant(runs: Column, budget: int) -> int:
    """Fewest refreshes for runs of these lengths, when at most `budget` reads may be stale."""
    spent = np.cumsum(np.sort(runs))
    return len(runs) - int(np.searchsorted(spent, budget, side="right"))


class ByKey:
    """The rows of a trace, key by key in order of time."""

    def __init__(self, trace: Trace) -> None:
        assert trace.time is not None and trace.version is not None
        self.trace = trace
        self.op: Column = np.zeros(len(trace), np.uint8) if trace.op is None else trace.op
        self.gets = int((self.op == GET).sum())
        order = np.argsort(trace.key, kind="stable")
        self.key = trace.key[order]
        self.time: Column = np.ascontiguousarray(trace.time[order])
        self.version: Column = np.ascontiguousarray(trace.version[order])
        self.kind: Column = np.ascontiguousarray(self.op[order])
        starts = np.flatnonzero(np.diff(self.key, prepend=-1) != 0)
        self.first: Column = np.zeros(len(order), bool)
        self.first[starts] = True
        self.spans = list(zip(starts.tolist(), [*starts[1:].tolist(), len(order)], strict=True))

    def _loads(self) -> Column:
        """Gets that find nothing held whatever is done: the first of a key, and the first after a delete."""
        before = np.r_[np.uint8(DELETE), self.kind[:-1]]
        loads: Column = (self.kind == GET) & (self.first | (before == DELETE))
        return loads

    def always(self) -> int:
        return self.gets - int(self._loads().sum())

    def runs(self) -> Column:
        """The lengths of the runs that begin with a copy of another version than the source's."""
        get = self.kind == GET
        known = self._loads() | ~get                    # after this row the source's version is held, or nothing
        changed = np.r_[False, self.version[1:] != self.version[:-1]] & ~self.first
        opens = known | changed                         # a row that begins a run, or a free copy
        number = np.cumsum(opens) - 1
        length = np.bincount(number, weights=get)
        runs: Column = length[~known[opens]].astype(np.int64)
        return runs

    def best_fixed(self, budget: int) -> float:
        curves = [self._curve(start, stop) for start, stop in self.spans if stop - start > 1]
        if not curves:
            return 0.0
        reloads, stale = np.moveaxis(np.array(curves, float), 2, 0)
        low, high, best = 1e-6, 1e6, 0.0
        for _ in range(60):
            theta = float(np.sqrt(low * high))
            choice = (reloads + theta * stale).argmin(1)[:, None]
            spent = float(np.take_along_axis(stale, choice, 1).sum())
            needed = float(np.take_along_axis(reloads, choice, 1).sum())
            best = max(best, needed + theta * (spent - budget))
            low, high = (theta, high) if spent > budget else (low, theta)
        return best

    def _curve(self, start: int, stop: int) -> list[tuple[int, int]]:
        time = self.time[start:stop]
        span = float(time[-1] - time[0])
        ttl = np.r_[0.0, np.geomspace(max(span * 1e-6, 1e-3), span * 1.01 + 2e-3, GRID - 2), np.inf]
        return _core.fixed_validity(time, self.kind[start:stop], self.version[start:stop], ttl)

    def informed(self, budget: int) -> tuple[int, int]:
        trace, n = self.trace, self.trace.n_keys
        assert trace.time is not None and trace.version is not None
        starts, stops = (np.array(ends) for ends in zip(*self.spans, strict=True))
        changes = self.version[stops - 1].astype(float) - self.version[starts]
        seconds = self.time[stops - 1] - self.time[starts]
        # Half a change in as many seconds as one takes on average: a key seen for a moment is like the others.
        usual = max(changes.sum(), 1) / max(seconds.sum(), 1e-9)
        rate = (changes + 0.5) / (seconds + 0.5 / usual)
        gets = np.bincount(trace.key, weights=self.op == GET, minlength=n)
        per_change = np.maximum(gets - 1, 0.5) / np.maximum(seconds, 1e-9) / rate
        low, high = 1e-3, 1e9
        best = (self.always(), 0)
        for _ in range(50):
            theta = float(np.sqrt(low * high))
            reloads, stale = _core.informed_validity(trace.key, trace.time, self.op, trace.version, rate, per_change, theta)
            if stale > budget:
                low = theta
            else:
                high, best = theta, (reloads, stale)
        return best
