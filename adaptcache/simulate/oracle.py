"""Exact costs of expiry rules that need no model, computed on whole columns.

The cost model. A miss of a request costs C: the trace's `cost` of that row, or `miss_cost`. Memory costs
`price` per unit of size per second while a copy is held; there is no capacity limit. Time is cut at each
key's accesses: every row opens an interval that lasts until the key's next row, or until the end of the
trace. A rule gives each interval a lifetime, counted from the access that opened it.

- The rent of an interval is size * price * min(lifetime, its length). A key has one size: its largest.
- A get is a hit iff the interval before it outlived it: gap <= lifetime. A lifetime of 0 caches nothing,
  not even for a gap of 0.
- A set puts a fresh copy for free, so nothing is gained by having held the old one. Nothing is held
  after a delete.
- Break-even is C / (size * price), where holding has cost as much as the miss it saves; C is that of
  the access which opened the interval. The clairvoyant holds iff gap * size * price < C of the next
  row: no rule can cost less, since intervals do not touch each other.

A re-request is *protected* when it comes within a quarter of the break-even time after the key's last
access; it is *lost* when the rule had removed the copy by then. A removal whose window is still open
when the trace ends is *in flight*.

This file knows no policy with a capacity; Belady's only question to it is `next_use`.
"""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from adaptcache.errors import TraceError
from adaptcache.simulate.trace import DELETE, GET, Column, Trace

NEVER: Final = np.iinfo(np.int64).max  # next_use of a key that is not used again
GRID: Final = 36  # finite TTLs above 0 that static_best tries


@dataclass(frozen=True)
class Outcome:
    """What one rule cost on one trace; the fields of `ExpiryResult` under the same names."""

    requests: int
    misses: int
    miss_cost: float
    hold_cost: float
    protected: int
    lost: int
    in_flight: int
    stale_hits: int
    ttl: float | None = None  # the one TTL of a static rule

    @property
    def total_cost(self) -> float:
        return self.miss_cost + self.hold_cost


class Oracle:
    """The intervals of one trace, and what each rule would have cost on them."""

    def __init__(self, trace: Trace, miss_cost: float = 1.0) -> None:
        if trace.time is None:
            raise TraceError(f"{trace.name}: has no times; expiry needs a column time (seconds)")
        rows = len(trace)
        op = np.zeros(rows, np.uint8) if trace.op is None else trace.op
        self.is_get: Column = op == GET
        self.order: Column = np.argsort(trace.key, kind="stable")  # by key, then by time
        self.version = trace.version
        self.span = float(trace.time[-1] - trace.time[0])

        following = next_use(trace.key)
        self.next: Column = np.where(following == NEVER, -1, following)
        held = op != DELETE
        followed = self.next >= 0
        until = np.where(followed, trace.time[self.next], trace.time[-1])
        self.gap: Column = np.where(followed, until - trace.time, np.inf)  # to the key's next row
        self.last: Column = held & ~followed  # holds something that nobody asks for again
        self.length: Column = np.where(held, until - trace.time, 0.0)  # seconds that rent can run
        self.rewarded: Column = held & followed & self.is_get[self.next]  # holding on saves a miss

        per_key = np.ones(trace.n_keys) if trace.size is None else _largest(trace.key, trace.size, trace.n_keys)
        self.size: Column = per_key[trace.key]
        self.median_size = float(np.median(per_key))
        gaps = self.gap[followed]
        gaps = gaps[gaps > 0]
        self.median_gap = float(np.median(gaps)) if len(gaps) else 0.0
        self.cost: Column = np.full(rows, float(miss_cost)) if trace.cost is None else trace.cost
        self._name = trace.name

    # Prices and TTLs

    def price(self, times: float) -> float:
        """`times` x the price at which holding the median object for the median gap costs one miss."""
        rent = self.median_size * self.median_gap
        if rent == 0:
            raise TraceError(f"{self._name}: no relative memory price, since the median object has size "
                             f"{self.median_size:g} and the median gap is {self.median_gap:g} s; "
                             "give the price as a number")
        costs = self.cost[self.is_get & (self.cost > 0)]
        return times * (float(np.median(costs)) if len(costs) else 1.0) / rent

    def break_even_ttl(self, price: float) -> Column:
        """Seconds for which holding after each row costs as much as a miss of that row."""
        with np.errstate(divide="ignore", invalid="ignore"):
            ttl = self.cost / (self.size * price)
        return np.where(self.size * price > 0, ttl, np.inf)

    def grid(self) -> Iterator[float]:
        """0, a geometric series up to the span of the trace, and infinity: the TTLs of static_best.

        The series starts at a millionth of the span, but between 1/4096 and 1/1024 of the median gap,
        and never below a millisecond.
        """
        yield 0.0
        if self.span > 0:
            low = max(min(self.span * 1e-6, self.median_gap / 1024), self.median_gap / 4096, 1e-3)
            if low < self.span:
                yield from np.geomspace(low, self.span, GRID).tolist()
            else:
                yield self.span
        yield np.inf

    # Rules

    def static(self, ttl: float, price: float) -> Outcome:
        """One TTL for all, counted anew from every access."""
        return self._outcome(self._outlives(ttl), np.full(len(self.gap), ttl), price, ttl)

    def static_best(self, price: float) -> Outcome:
        """The static TTL of the grid that costs least, in hindsight; the shortest of equals."""
        # A hit saves its own miss, so a total needs neither the chains of copies nor the windows.
        best, least = 0.0, np.inf
        saving = np.where(self.rewarded, self.cost[self.next], 0.0)
        rent = self.size * price
        misses_of_nothing = float(self.cost[self.is_get].sum())
        for ttl in self.grid():
            saved = float(saving[self._outlives(ttl)].sum())
            total = misses_of_nothing - saved + float(np.dot(rent, np.minimum(self.length, ttl)))
            if total < least:
                best, least = ttl, total
        return self.static(best, price)

    def break_even(self, price: float) -> Outcome:
        """Hold until the rent equals the miss: at most twice the clairvoyant's cost on any trace whose
        misses all cost the same."""
        ttl = self.break_even_ttl(price)
        return self._outcome(self._outlives(ttl), ttl, price)

    def clairvoyant(self, price: float) -> Outcome:
        """Hold until the next access, or not at all: the least possible cost."""
        gap = np.where(self.rewarded, self.gap, 0.0)
        keep = self.rewarded & (gap * self.size * price < self.cost[self.next])
        return self._outcome(keep, np.where(keep, gap, 0.0), price)

    def _outlives(self, ttl: float | Column) -> Column:
        """Which intervals end in a hit when each row is held for `ttl`?"""
        return self.rewarded & (self.gap <= ttl) & (np.asarray(ttl) > 0)

    def _outcome(self, hit: Column, ttl: Column, price: float, single: float | None = None) -> Outcome:
        hits = np.zeros(len(hit), bool)  # on the row that hits; `hit` is on the row that holds
        hits[self.next[hit]] = True
        missed = self.is_get & ~hits
        window = self.break_even_ttl(price) / 4
        protected = self.rewarded & (self.gap <= window)
        removed = self.last & ((ttl < self.length) | (ttl == 0)) & (ttl < window)
        return Outcome(
            requests=int(self.is_get.sum()),
            misses=int(missed.sum()),
            miss_cost=float(self.cost[missed].sum()),
            hold_cost=float(np.dot(self.size * price, np.minimum(self.length, ttl))),
            protected=int(protected.sum()),
            lost=int((protected & ~hit).sum()),
            in_flight=int((removed & (self.length <= window)).sum()),
            stale_hits=self._stale(hits),
            ttl=single,
        )

    def _stale(self, hits: Column) -> int:
        """Hits on a copy whose version is not the source's; a copy is as old as the last miss or set."""
        if self.version is None:
            return 0
        hit, version = hits[self.order], self.version[self.order]
        rows = np.arange(len(hit))
        copied = np.maximum.accumulate(np.where(hit, 0, rows))
        return int((hit & (version != version[copied])).sum())


def next_use(key: Column, op: Column | None = None) -> Column:
    """The row of the next request for the same key (int64), NEVER where there is none.

    With `op` only a get is a use: what a set overwrites or a delete removes need not have been kept.
    """
    order = np.argsort(key, kind="stable")
    again = np.flatnonzero(np.diff(key[order]) == 0)
    following = np.full(len(key), NEVER, np.int64)
    following[order[again]] = order[again + 1]
    if op is not None:
        used = following != NEVER
        used[used] = op[following[used]] == GET
        following[~used] = NEVER
    return following


def _largest(key: Column, size: Column, n_keys: int) -> Column:
    largest = np.zeros(n_keys)
    np.maximum.at(largest, key, size)
    return largest
