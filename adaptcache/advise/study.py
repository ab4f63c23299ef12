"""Measures a trace and decides what it deserves. The rules by which it decides are the constants below.

Sizes and policies are judged by hit ratio under a limit of entries, expiry by cost where memory has a price: the two
questions of docs/harness.md. What takes too long is sampled by key, and the answer then says how far it may be off.
"""
from __future__ import annotations

import math
import os
from itertools import pairwise
from typing import Final

import numpy as np

from adaptcache import _core
from adaptcache.advise.advice import Advice, Expiry, Point, Policy, Size
from adaptcache.expiry import PREDICTORS
from adaptcache.simulate import learned, readers, sampling
from adaptcache.simulate.curves import FEW, UNSCALED, Curve, curve_of, lead
from adaptcache.simulate.oracle import Oracle
from adaptcache.simulate.run import parse_price, parse_size, simulate
from adaptcache.simulate.sampling import Sample, places
from adaptcache.simulate.trace import DTYPES, GET, Column, Trace, dense

EXACT_ROWS: Final = 3_000_000  # more are judged by a sample of the keys, and so many are in memory at a time
LEARNED_ROWS: Final = 25_000  # of each of SAMPLES replays of the learned expiry, where one of all rows takes too long
SAMPLES: Final = 3
HOT: Final = LEARNED_ROWS // 5  # requests beyond which a key is left out of those samples
MODEL_ROWS: Final = 20_000  # up to so many, river's models take part in the learned expiry

WORTH: Final = 0.01  # hit ratio that a doubling of the memory has to bring
LEAD: Final = 0.005  # hit ratio by which a policy has to lead a plainer one
ADAPTIVE_LAG: Final = 0.01  # hit ratio that a policy which follows shifts may lie behind one that was right on this trace
PLAIN: Final[tuple[str, ...]] = ("lru", "sieve", "s3fifo", "slru", "arc", "wtinylfu", "lirs", "gdsf", "lfu", "fifo")  # from the plainest
CHEAPER: Final = 0.02  # share by which a fixed TTL, known in hindsight, has to be cheaper than learning
FEW_REPEATS: Final = 1_000  # repeated requests below which a hit ratio says little
BOUND: Final = "belady-bypass"
DEFAULT_PRICE: Final = "0.1x"


def advise(trace: Trace | str | os.PathLike[str], *, size: str | int | None = None, ttl: float | None = None,
           memory_price: str | float | None = None, miss_cost: float = 1.0, seed: int = 0,
           trace_format: str | None = None) -> Advice:
    """Which size, policy and expiry a workload deserves, and by which numbers.

    trace         a Trace, or a file that `read` knows, of any length: a trace, an access log, a recording
    size          what the cache has now: entries, or a percentage of the unique keys
    ttl           seconds that entries live now, from when they are stored
    memory_price  cost per unit of size per second, or "Nx" as for `simulate`; None: "0.1x" for the expiry, and sizes are
                  judged by what a doubling brings
    miss_cost     cost of a miss where the trace has no column cost

    ValueError for an argument out of range, TraceError for a trace that cannot be read.
    """
    if ttl is not None and not (math.isfinite(ttl) and ttl > 0):
        raise ValueError(f"ttl is {ttl}; it must be a finite number of seconds above 0")
    if not (math.isfinite(miss_cost) and miss_cost > 0):
        raise ValueError(f"miss_cost is {miss_cost}; it must be a finite number above 0")
    price = parse_price(DEFAULT_PRICE if memory_price is None else memory_price)
    chosen = None if size is None else parse_size(size)
    sample = sampling.of(trace, EXACT_ROWS, seed) if isinstance(trace, Trace) else \
        readers.sample(trace, trace_format, EXACT_ROWS, seed=seed)
    trace = sample.trace
    current = None if chosen is None else chosen(sample.keys)
    span = None if trace.time is None else float(trace.time[-1] - trace.time[0])
    oracle = Oracle(trace, miss_cost) if span and trace.n_keys < len(trace) else None
    if price.relative and oracle is not None and oracle.median_size * oracle.median_gap == 0:
        oracle = None       # every repetition comes in the same moment: there is nothing to keep for

    entry_rent = None       # of one entry over the whole trace, in misses
    if memory_price is not None and oracle is not None:
        sizes = np.zeros(trace.n_keys)
        sizes[trace.key] = oracle.size
        entry_rent = float(sizes.mean()) * price.on(oracle) * oracle.span / float(oracle.cost.mean())
    judged = _Judged(sample)
    sizing, policy = _sizing(judged, current, entry_rent)
    expiry = None if oracle is None else _expiring(sample, oracle, price.on(oracle), ttl, miss_cost, seed)
    return Advice(
        trace=trace.name, requests=sample.requests, keys=sample.keys, span=span, first_requests=sample.keys / sample.looked_at,
        sample=judged.sample, sampled=len(trace), hot=sample.hot, looked_at=sample.looked_at, warnings=tuple(_warnings(trace, span, sizing, expiry, judged)), size=sizing, policy=policy,
        expiry=expiry,
    )


class _Judged:
    """Hit ratios of a trace at any size, each measured once, from all keys or from a sample of them."""

    def __init__(self, sample: Sample) -> None:
        self.drawn = sample
        self.trace = sample.trace
        self.keys, self.rows = sample.keys, sample.looked_at
        self.sample = None if sample.rate == 1 and not sample.hot else sample.rate
        self.least = 1 if self.sample is None else math.ceil(FEW / self.sample)
        self.policies = [name for name in PLAIN if name in _core.POLICIES and (self.sample is None or name not in UNSCALED)]
        if "adaptive" in _core.POLICIES:
            self.policies.insert(0, "adaptive")
        self._curves: dict[tuple[str, int], Curve] = {}

    def point(self, policy: str, capacity: int) -> Curve:
        """A curve of one point."""
        if (policy, capacity) not in self._curves:
            self._curves[policy, capacity] = curve_of(self.drawn, policy, [capacity])
        return self._curves[policy, capacity]

    def ratio(self, policy: str, capacity: int) -> float:
        return 1 - self.point(policy, capacity).miss_ratios[0]

    def low(self, policy: str, capacity: int) -> float:
        return 1 - self.point(policy, capacity).high[0]

    def high(self, policy: str, capacity: int) -> float:
        return 1 - self.point(policy, capacity).low[0]


# Size and policy

def _sizing(judged: _Judged, current: int | None, entry_rent: float | None) -> tuple[Size, Policy | None]:
    trace = judged.trace
    if trace.n_keys == len(trace):
        return Size(current, None, "no key is asked for twice, so a cache of no size would hit", None, None, None, ()), None
    ladder = _ladder(judged, current)
    lru = {point: 1 - ratio for point, ratio in zip(ladder, curve_of(judged.drawn, "lru", ladder).miss_ratios, strict=True)}
    base = current if current is not None and current >= judged.least else _best_size(judged.rows, lru, entry_rent)[0]
    name = _policy(judged, base).recommended
    ratios = {point: judged.ratio(name, point) for point in ladder}
    recommended, reason = _best_size(judged.rows, ratios, entry_rent)
    policy = _policy(judged, base if current is not None else recommended)
    if policy.recommended != name:
        name = policy.recommended
        ratios = {point: judged.ratio(name, point) for point in ladder}
        recommended, reason = _best_size(judged.rows, ratios, entry_rent)
    here = policy.capacity
    half, double = max(1, here // 2), 2 * here
    points = tuple(Point(point, ratios[point], judged.low(name, point), judged.high(name, point), lru[point],
                         judged.ratio(BOUND, point)) for point in ladder)
    return Size(
        current=current, recommended=recommended, reason=reason,
        half=judged.ratio(name, half) if half >= judged.least else None, here=judged.ratio(name, here),
        double=judged.ratio(name, double), curve=points,
    ), policy


def _ladder(judged: _Judged, current: int | None) -> list[int]:
    """Sizes, each twice the one before, through the current one: from a few entries, or what a sample can tell, to all."""
    keys = judged.keys
    start = current if current is not None else max(1, keys // 100)
    while start // 2 >= max(4, judged.least, keys // 2000):
        start //= 2
    while start < judged.least:
        start *= 2
    if current is not None:      # so that the current size itself is on the ladder
        steps = round(math.log2(max(1.0, current / start)))
        sizes = [max(1, round(current / 2 ** (steps - step))) for step in range(steps)]
        start = current if current >= judged.least else start
    else:
        sizes = []
    while start < keys:
        sizes.append(start)
        start *= 2
    return sorted({*sizes, keys} | ({current} if current is not None and current >= judged.least else set()))


def _best_size(rows: int, ratios: dict[int, float], entry_rent: float | None) -> tuple[int, str]:
    sizes = list(ratios)
    if entry_rent is not None:
        cost = {size: (1 - ratios[size]) * rows + size * entry_rent for size in sizes}
        best = min(sizes, key=lambda size: (cost[size], size))
        return best, (f"misses and memory together cost {cost[best]:,.0f} misses there, the least of the sizes below "
                      f"({cost[sizes[0]]:,.0f} at {sizes[0]:,} entries, {cost[sizes[-1]]:,.0f} at {sizes[-1]:,})")
    best = sizes[0]
    gain = None
    for less, more in pairwise(sizes):
        # The last step of the ladder need not double: what it brings is judged by what a whole doubling would.
        step = (ratios[more] - ratios[less]) / math.log2(more / less)
        if step >= WORTH:
            best, gain = more, ratios[more] - ratios[less]
    if gain is None:
        return best, f"no doubling of the memory brings {100 * WORTH:.0f} point, so the smallest size looked at will do"
    return best, (f"the last doubling of the memory that brings {100 * WORTH:.0f} point or more leads there "
                  f"(+{100 * gain:.1f} points)")


def _policy(judged: _Judged, capacity: int) -> Policy:
    ratios = {name: judged.ratio(name, capacity) for name in judged.policies}
    best = max(ratios, key=lambda name: ratios[name])
    # By how much the best leads each, and how far that is off where keys were sampled.
    leads = {name: lead(judged.point(best, capacity), judged.point(name, capacity)) for name in ratios}
    if "adaptive" in ratios and leads["adaptive"][0] <= max(ADAPTIVE_LAG, leads["adaptive"][1]):
        chosen = "adaptive"
        behind = ratios[best] - ratios[chosen]
        reason = "it is the best here" if behind <= 0 else (
            f"it is {100 * behind:.1f} points behind {best}, which was right for this trace, and follows the workload when it shifts")
    else:
        chosen = next(name for name in judged.policies if name != "adaptive" and leads[name][0] <= max(LEAD, leads[name][1]))
        if chosen == best:
            next_best = max((name for name in ratios if name != best), key=lambda name: ratios[name])
            ahead, error = leads[next_best]
            reason = (f"it leads {next_best}, the next, by {100 * ahead:.1f} points" if ahead > max(LEAD, error) else
                      f"nothing leads it, and of those within {100 * max(LEAD, error):.1f} points it is the plainest")
        else:
            reason = (f"{best} is best, by {100 * (ratios[best] - ratios[chosen]):.1f} points, and a lead of less than "
                      f"{100 * max(LEAD, leads[chosen][1]):.1f} says nothing")
    halves: dict[str, tuple[float, float]] = {}
    if judged.sample is None:
        for result in simulate(judged.trace, list(dict.fromkeys((chosen, best, "lru"))), [capacity], timeline=2):
            if result.timeline is not None and hasattr(result, "policy"):
                first, second = result.timeline["hit_ratio"][0], result.timeline["hit_ratio"][-1]
                halves[result.policy] = (first, second)
    return Policy(
        capacity=capacity, recommended=chosen, reason=reason, best=best, hit_ratios=ratios,
        low={name: judged.low(name, capacity) for name in ratios}, high={name: judged.high(name, capacity) for name in ratios},
        best_possible=judged.ratio(BOUND, capacity), halves=halves,
    )


# Expiry

def _expiring(drawn: Sample, oracle: Oracle, price: float, ttl: float | None, miss_cost: float, seed: int) -> Expiry | None:
    trace = drawn.trace
    pieces = [trace]
    hot = drawn.hot
    sampled = len(trace) > SAMPLES * LEARNED_ROWS
    if sampled:
        # A key with thousands of requests would be most of the sample that it is drawn into, and under any rule that
        # holds it for its short gaps it costs next to nothing.
        counts = np.bincount(trace.key, minlength=trace.n_keys)
        ordinary = counts <= HOT
        hot += int((~ordinary).sum())
        place = np.where(ordinary, places(np.arange(trace.n_keys), seed), 1.0)[trace.key]
        share = min(LEARNED_ROWS / max(1, int(counts[ordinary].sum())), 1 / SAMPLES)
        pieces = [_part(trace, rows) for sample in range(SAMPLES)
                  if (rows := (place >= sample * share) & (place < (sample + 1) * share)).any()]
    models = not sampled and len(trace) <= MODEL_ROWS
    if not pieces:
        return None
    # What is best in hindsight is found on all that was kept of the trace, and costs are compared on the same rows.
    best_ttl = oracle.static_best(price).ttl
    assert best_ttl is not None
    each = []
    for piece in pieces:
        seen = oracle if piece is trace else Oracle(piece, miss_cost)
        got = learned.replay(piece, price, miss_cost=miss_cost, seed=seed, predictors=PREDICTORS if models else ("table",))
        costs = {
            "none": seen.static(math.inf, price).total_cost, "static-best": seen.static(best_ttl, price).total_cost,
            "break-even": seen.break_even(price).total_cost, "learned": float(got["total_cost"]),
            "clairvoyant": seen.clairvoyant(price).total_cost,
        }
        if ttl is not None:
            costs["fixed"] = from_the_store(piece, seen, ttl, price)
        each.append(costs)
    costs = {name: sum(piece[name] for piece in each) for name in each[0]}
    times = [piece["fixed"] / piece["learned"] for piece in each] if ttl is not None else []
    break_even = oracle.break_even_ttl(price)
    recommended, reason = _best_expiry(costs, best_ttl)
    return Expiry(
        recommended=recommended, reason=reason, memory_price=price, break_even=float(np.median(break_even)), costs=costs,
        best_ttl=best_ttl, ttl=ttl, ttl_against_learned=costs["fixed"] / costs["learned"] if times else None,
        low=min(times, default=None), high=max(times, default=None), requests=sum(len(piece) for piece in pieces),
        samples=len(pieces) if sampled else 0, hot=hot, models=models,
    )


def _best_expiry(costs: dict[str, float], best_ttl: float) -> tuple[str, str]:
    best, learning, none = costs["static-best"], costs["learned"], costs["none"]
    if none <= min(best, learning):
        return "none", "keeping everything costs least: at this price of memory nothing is worth letting go"
    if best < (1 - CHEAPER) * learning:
        if best_ttl == 0:
            return "nothing", "at this price of memory hardly an entry earns its place: a cache of nothing costs least"
        return "fixed", (f"one TTL of {best_ttl:.3g} s from the last request, found in hindsight, costs {1 - best / learning:.0%} less "
                         "than learning did on this trace")
    if learning < best:
        return "learned", f"it costs {1 - learning / best:.0%} less than the best single TTL, which is known in hindsight only"
    return "learned", f"it costs {learning / best - 1:.1%} more than the best single TTL, which is known in hindsight only"


def from_the_store(trace: Trace, oracle: Oracle, ttl: float, price: float) -> float:
    """Total cost of a TTL that a hit does not prolong, as of `Fixed(ttl)` and of Redis's EX."""
    assert trace.time is not None
    run = _core.ExpiryReplay(1, trace.n_keys, price=price, now=float(trace.time[0]), ttl=ttl)
    run.run(trace.key, trace.time, np.ascontiguousarray(oracle.size), np.ascontiguousarray(oracle.cost, np.float64), trace.op,
            None, None, None, None, 0, len(trace))
    run.finish(float(trace.time[-1]))
    return float(run.miss_cost + run.hold_cost)


def _part(trace: Trace, rows: Column) -> Trace:
    """These rows as a trace of their own."""
    cut = {name: getattr(trace, name)[rows] for name in DTYPES if name != "key" and getattr(trace, name) is not None}
    key = dense(trace.key[rows])
    return Trace(name=trace.name, key=key, n_keys=int(key.max()) + 1 if len(key) else 0,
                 features={name: values[rows] for name, values in trace.features.items()}, **cut)


# What to be wary of

def _warnings(trace: Trace, span: float | None, size: Size, expiry: Expiry | None, judged: _Judged) -> list[str]:
    out = []
    repeats = judged.rows - judged.keys
    if repeats < FEW_REPEATS:
        out.append(f"The trace is too short: {repeats:,} of its requests repeat a key, and below {FEW_REPEATS:,} all of this is "
                   "a guess.")
    if size.recommended is not None and 10 * size.recommended > judged.rows:
        out.append(f"The trace is too short for {size.recommended:,} entries: with {judged.rows:,} requests such a cache is still "
                   "filling for most of it, so a longer trace may ask for more.")
    if size.current is not None and size.current < judged.least:
        out.append(f"{size.current:,} entries are too few for a sample of {judged.sample:.2%} of the keys, which can tell from "
                   f"{judged.least:,} upward; policies are judged there.")
    if trace.left_out:
        out.append("Left out of the file as no traffic of a cache: "
                   + ", ".join(f"{number:,} {name}" for name, number in sorted(trace.left_out.items(), key=lambda item: -item[1])) + ".")
    if trace.op is not None and (changes := int((trace.op != GET).sum())):
        out.append(f"{changes / len(trace):.1%} of the rows are sets or deletes; for size and policy every row counts as a get.")
    if span is None:
        out.append("The trace has no times, so nothing is said of expiry.")
    elif expiry is None:
        out.append("No key is asked for again after some time, so nothing is said of expiry.")
    elif span < 4 * expiry.break_even:
        out.append(f"The trace spans {span:.4g} s and an entry has to wait {expiry.break_even:.4g} s until its rent has cost a "
                   "miss: it is too short for expiry, and learning is judged while it is still learning.")
    if expiry is not None and trace.version is None:
        out.append("The trace does not say when values change. Where they do, keep a TTL as a ceiling: Learned(ceiling=…).")
    return out
