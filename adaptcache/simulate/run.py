"""Runs a trace against eviction policies and expiry rules, and says what each result means.

The loops are not here: policies are replayed by the compiled core (`PolicyReplay`), learned expiry by
`learned.replay`, which drives the live cache's own decisions, and the other rules are exact sums
(`oracle`). This file turns words such as "1%", "0.1x" and "static:60" into what those take, and their
answers into `EvictionResult` and `ExpiryResult`. It prints nothing.
"""
from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np

from adaptcache import _core
from adaptcache.errors import TraceError
from adaptcache.simulate import rivals
from adaptcache.simulate.oracle import Oracle, Outcome, next_use
from adaptcache.simulate.readers import read
from adaptcache.simulate.trace import GET, Trace

if TYPE_CHECKING:
    from adaptcache.learn.trainer import Trainer

OFFLINE: Final = ("belady", "belady-bypass")  # they know the future: the best that must admit, and the best that may refuse
POLICIES: Final = (*_core.POLICIES, *OFFLINE)
SALTED: Final = frozenset({"wtinylfu", "adaptive"})  # policies that draw by chance: the seed is their salt
EXPIRIES: Final = ("static:SECONDS", "static-best", "break-even", "clairvoyant", "learned")
CHUNK: Final = 1 << 16  # rows between two steps of the progress bar

DEFAULT_EXPIRIES: Final = ("static-best", "break-even", "clairvoyant", "learned")
DEFAULT_SIZE: Final = "1%"


class Progress(Protocol):
    """Called now and then with what is being run and how many of its rows are done."""

    def __call__(self, task: str, done: int, total: int) -> None: ...


@dataclass(frozen=True)
class EvictionResult:
    """One policy at one capacity. Every request counts, the first included; there is no warm-up."""

    trace: str
    policy: str
    capacity: int  # entries
    requests: int
    hits: int
    hit_ratio: float
    byte_hit_ratio: float  # every object counts 1 byte where the trace has no sizes
    seconds: float  # the replay alone
    cost_ratio: float | None = None  # cost of the misses as a share of what missing every request costs; None without costs
    gap_closed: float | None = None  # (hits - LRU's) / (Belady's - LRU's), where those two ran beside it and differ
    ways: Mapping[str, float] | None = None  # of a policy that follows now one way, now another: the share of the rows for each
    timeline: Mapping[str, tuple[float, ...]] | None = None  # hit_ratio, and `way:` and each way, in so many equal parts of the trace
    seed: int | None = None  # where there are results of several seeds


@dataclass(frozen=True)
class ExpiryResult:
    """One expiry rule at one price of memory, without a capacity limit; `oracle` defines the costs."""

    trace: str
    expiry: str
    memory_price: float  # cost per unit of size per second
    requests: int  # gets
    misses: int
    miss_cost: float
    hold_cost: float
    total_cost: float
    clairvoyant_cost: float  # the least possible total_cost
    best_static_cost: float  # total_cost of static-best
    protected: int  # re-requests within a quarter of break-even after the last access
    lost: int  # those of them whose copy the rule had removed
    bound: float  # premature * protected + 1: what learned promises not to exceed
    in_flight: int  # early removals whose window was open when the trace ended
    stale_hits: int
    gap_closed: float | None  # (best_static - total) / (best_static - clairvoyant); None where those are equal
    ttl: float | None  # seconds, where the rule is one TTL
    seconds: float
    weights: Mapping[str, float] | None = None  # learned: share of each expert at the end
    worst_margin: float | None = None  # learned: least of bound - lost - in_flight over the run
    freshness: Mapping[str, float] | None = None  # learned with a budget of stale reads; see `_learned`
    timeline: Mapping[str, tuple[float, ...]] | None = None  # learned: hit_ratio in, and weights after, equal parts of the trace
    seed: int | None = None  # where there are results of several seeds


Result = EvictionResult | ExpiryResult


@dataclass(frozen=True)
class Price:
    """A memory price: absolute, or relative to the trace's own median object and gap."""

    value: float
    relative: bool

    def on(self, oracle: Oracle) -> float:
        return oracle.price(self.value) if self.relative else self.value


def simulate(
    trace: Trace | str | os.PathLike[str],
    policies: str | Iterable[str] = (),
    sizes: str | int | Iterable[str | int] = (),
    expiries: str | Iterable[str] = (),
    memory_prices: str | float | Iterable[str | float] = ("1x",),
    miss_cost: float = 1.0,
    premature: float = 0.01,
    limit: int | None = None,
    seed: int = 0,
    ops: bool = False,
    progress: Progress | None = None,
    trace_format: str | None = None,
    stale: float | None = None,
    log: str | os.PathLike[str] | None = None,
    timeline: int = 0,
) -> list[Result]:
    """Every policy at every size, then every expiry rule at every memory price, on one trace.

    trace          a Trace, a file in any format that `read` knows, or `synthetic:NAME`
    policies       names from POLICIES, or from rivals.RIVALS: other libraries' caches, where they are installed
    sizes          entries, or a percentage of the unique keys ("1%", at least 10 entries); default "1%"
    expiries       "static:SECONDS", "static-best", "break-even", "clairvoyant", "learned"
    memory_prices  cost per unit of size per second, or "Nx": N times the price at which holding the
                   median object for the median gap costs one miss
    miss_cost      cost of a miss where the trace has no column cost
    premature      share of protected re-requests that learned may lose
    stale          share of the reads that learned may answer with a stale value; None: values do not go stale
    log            a file for the decisions of learned and what came of them (docs/explain.md); one memory price then
    ops            False: in eviction every row is a get that inserts on a miss. True: sets insert or
                   overwrite, deletes remove, and only gets count. Expiry always honours the operations.
    timeline       how many equal parts of the trace `timeline` of each result tells of; 0: none

    ValueError for an argument out of range, TraceError for a trace that cannot be read or has no times.
    """
    chosen_policies = [parse_policy(name) for name in _words(policies)]
    chosen_sizes = [parse_size(size) for size in _words(sizes)] or [parse_size(DEFAULT_SIZE)]
    chosen_expiries = [parse_expiry(name) for name in _words(expiries)]
    prices = [parse_price(price) for price in _words(memory_prices)]
    check(chosen_policies, _words(sizes), chosen_expiries, _words(memory_prices), miss_cost, premature, stale, limit, timeline)
    if log is not None and (chosen_expiries.count("learned") != 1 or len(prices) != 1):
        raise ValueError("log: goes with the expiry learned, once, and one memory price")
    if not isinstance(trace, Trace):
        trace = read(trace, trace_format, limit, seed=seed)
    elif limit is not None:
        trace = trace.head(limit)
    tell = progress if progress is not None else _silent
    results: list[Result] = []
    if chosen_policies:
        results += _evict(trace, chosen_policies, [size(trace.n_keys) for size in chosen_sizes], ops, tell, timeline, seed)
    if chosen_expiries:
        results += _expire(trace, chosen_expiries, prices, miss_cost, premature, stale, seed, tell, log, timeline)
    return results


def check(policies: Iterable[str], sizes: Iterable[str | int], expiries: Iterable[str], memory_prices: Iterable[str | float],
          miss_cost: float, premature: float, stale: float | None, limit: int | None, timeline: int) -> None:
    """ValueError where `simulate` would refuse an argument, whatever the trace."""
    for words, parse in ((policies, parse_policy), (sizes, parse_size), (expiries, parse_expiry), (memory_prices, parse_price)):
        for word in words:
            parse(word)  # type: ignore[arg-type]
    if not list(policies) and not list(expiries):
        raise ValueError("nothing to simulate: name at least one policy or one expiry")
    if not (math.isfinite(miss_cost) and miss_cost > 0):
        raise ValueError(f"miss_cost is {miss_cost}; it must be a finite number above 0")
    if not 0 <= premature <= 1:
        raise ValueError(f"premature is {premature}; it must be from 0 to 1")
    if stale is not None and not 0 < stale < 1:
        raise ValueError(f"stale is {stale}; it must be above 0 and below 1")
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}; it must be at least 1")
    if timeline < 0:
        raise ValueError(f"timeline is {timeline}; it must be 0 or more")


# Eviction

def _evict(trace: Trace, policies: list[str], sizes: list[int], ops: bool, tell: Progress, timeline: int,
           seed: int) -> Iterator[EvictionResult]:
    op = trace.op if ops else None
    following = next_use(trace.key, op) if set(policies) & set(OFFLINE) else None
    if op is not None and not (op == GET).any():
        raise TraceError(f"{trace.name}: no row is a get, so no policy can hit; without --ops every row counts as a get")
    stops = _stops(len(trace), timeline)
    for capacity in sizes:
        results = []
        for policy in policies:
            task = f"{trace.name} {policy} {capacity:,}"
            begun = time.perf_counter()
            replay = _replay(policy, capacity, trace.n_keys, seed)
            parts, ways = Parts(), Ways()
            start = 0
            for stop in stops:
                replay.run(trace.key, trace.size, op, following if policy in OFFLINE else None, start, stop, trace.cost)
                parts.at(int(replay.hits), int(replay.requests))
                ways.at(replay.ways)
                tell(task, stop, len(trace))
                start = stop
            if isinstance(replay, rivals.RivalReplay):
                replay.close()
            requests, hits = int(replay.requests), int(replay.hits)
            ratio = hits / requests
            asked = float(replay.bytes_requested)
            if trace.size is None:
                byte_ratio = ratio
            else:
                byte_ratio = float(replay.bytes_hit) / asked if asked > 0 else 0.0
            spent = float(replay.cost_requested)
            results.append(EvictionResult(
                trace.name, policy, capacity, requests, hits, ratio, byte_ratio, time.perf_counter() - begun,
                cost_ratio=float(replay.cost_missed) / spent if spent > 0 else None,
                ways=ways.whole(), timeline={"hit_ratio": parts.ratios()} | ways.shares() if timeline else None,
            ))
        yield from closing(results)


def _replay(policy: str, capacity: int, n_keys: int, seed: int) -> _core.PolicyReplay | rivals.RivalReplay:
    if is_rival(policy):
        return rivals.RivalReplay(policy, capacity, seed)
    # Seeds are small numbers, and salts that differ in a few bits only collide alike.
    return _core.PolicyReplay(policy, float(capacity), n_keys, seed * 0x9E3779B97F4A7C15 % 2**64)


def closing(results: list[EvictionResult]) -> Iterator[EvictionResult]:
    """These results of one trace at one capacity, with the share of the gap between LRU and Belady that each closes."""
    hits = {result.policy: result.hits for result in results}
    for result in results:
        room = hits.get("belady", 0) - hits.get("lru", 0) if {"belady", "lru"} <= hits.keys() else 0
        yield replace(result, gap_closed=(result.hits - hits["lru"]) / room) if room > 0 else result


class Parts:
    """The hit ratio of each part of a trace, from running totals at their ends."""

    def __init__(self) -> None:
        self._totals = [(0, 0)]

    def at(self, hits: int, requests: int) -> None:
        self._totals.append((hits, requests))

    def ratios(self) -> tuple[float, ...]:
        """A part without a request has the ratio of the part before it, the first 0."""
        out: list[float] = []
        for (hits, requests), (more, asked) in pairwise(self._totals):
            out.append((more - hits) / (asked - requests) if asked > requests else out[-1] if out else 0.0)
        return tuple(out)


class Ways:
    """Which of its ways a policy followed in each part of a trace, from running totals at their ends."""

    def __init__(self) -> None:
        self._totals: list[Mapping[str, int]] = []

    def at(self, spent: Mapping[str, int] | None) -> None:
        if spent is not None:
            self._totals.append(spent)

    def whole(self) -> Mapping[str, float] | None:
        """way -> its share of all rows; None of a policy that has but one."""
        return _shares({}, self._totals[-1]) if self._totals else None

    def shares(self) -> dict[str, tuple[float, ...]]:
        """`way:NAME` -> its share of each part."""
        parts = [_shares(*ends) for ends in pairwise([{}, *self._totals])]
        return {f"way:{name}": tuple(part[name] for part in parts) for name in (parts[0] if parts else ())}


def _shares(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, float]:
    spent = {name: total - before.get(name, 0) for name, total in after.items()}
    return {name: part / max(1, sum(spent.values())) for name, part in spent.items()}


def _stops(rows: int, timeline: int) -> list[int]:
    """Where to stop between two looks: the ends of the parts, or where the progress bar moves."""
    if timeline:
        return sorted({rows * part // timeline for part in range(1, timeline + 1)} - {0})
    return [min(start + CHUNK, rows) for start in range(0, rows, CHUNK)]


# Expiry

def _expire(trace: Trace, expiries: list[str], prices: list[Price], miss_cost: float, premature: float, stale: float | None,
            seed: int, tell: Progress, log: str | os.PathLike[str] | None, timeline: int) -> Iterator[ExpiryResult]:
    oracle = Oracle(trace, miss_cost)
    for price in (price.on(oracle) for price in prices):
        clairvoyant, best = oracle.clairvoyant(price), oracle.static_best(price)
        for expiry in expiries:
            task = f"{trace.name} {expiry} {price:.3g}"
            tell(task, 0, len(trace))
            begun = time.perf_counter()
            weights: Mapping[str, float] | None = None
            margin = None
            freshness: Mapping[str, float] | None = None
            told: Mapping[str, tuple[float, ...]] | None = None
            if expiry == "learned":
                outcome, weights, margin, freshness, told = _learned(trace, price, miss_cost, premature, stale, seed,
                                                                     _under(tell, task), log, timeline)
            elif expiry == "clairvoyant":
                outcome = oracle.clairvoyant(price)
            elif expiry == "static-best":
                outcome = oracle.static_best(price)
            elif expiry == "break-even":
                outcome = oracle.break_even(price)
            else:
                outcome = oracle.static(float(expiry.removeprefix("static:")), price)
            seconds = time.perf_counter() - begun
            tell(task, len(trace), len(trace))
            room = best.total_cost - clairvoyant.total_cost
            yield ExpiryResult(
                trace=trace.name, expiry=expiry, memory_price=price, requests=outcome.requests, misses=outcome.misses,
                miss_cost=outcome.miss_cost, hold_cost=outcome.hold_cost, total_cost=outcome.total_cost,
                clairvoyant_cost=clairvoyant.total_cost, best_static_cost=best.total_cost,
                protected=outcome.protected, lost=outcome.lost, bound=premature * outcome.protected + 1,
                in_flight=outcome.in_flight, stale_hits=outcome.stale_hits,
                gap_closed=(best.total_cost - outcome.total_cost) / room if room > 0 else None,
                ttl=outcome.ttl, seconds=seconds, weights=weights, worst_margin=margin, freshness=freshness,
                timeline=told,
            )


Timeline = Mapping[str, tuple[float, ...]] | None


def _learned(
    trace: Trace, price: float, miss_cost: float, premature: float, stale: float | None, seed: int,
    progress: Callable[[int, int], None], log: str | os.PathLike[str] | None, timeline: int,
) -> tuple[Outcome, Mapping[str, float], float, Mapping[str, float] | None, Timeline]:
    """What it cost, the experts' shares, the worst margin, what became of a budget of stale reads, and the timeline.

    Reloads in the background cost what a miss costs and are in `miss_cost`. The clairvoyants' refreshes are those of
    `freshness.py`, where memory is free: a rule that also lets go for want of reuse reloads less often for freshness.
    """
    # Imported here: nothing else needs the learner.
    from adaptcache.learn import experts
    from adaptcache.simulate import freshness, learned

    parts = Parts()
    shares: list[Mapping[str, float]] = []
    ends = iter(_stops(len(trace), timeline) if timeline else [])
    due = next(ends, len(trace) + 1)

    def watch(rows: int, run: _core.ExpiryReplay, trainer: Trainer) -> None:
        nonlocal due
        while due <= rows:
            parts.at(int(run.requests - run.misses), int(run.requests))
            shares.append(experts.shares(trainer.brain, trainer.names))
            due = next(ends, len(trace) + 1)

    got = learned.replay(trace, price, miss_cost=miss_cost, premature=premature, seed=seed, stale=stale, progress=progress,
                         log=log, watch=watch if timeline else None)
    outcome = Outcome(
        requests=int(got["requests"]), misses=int(got["misses"]), miss_cost=float(got["miss_cost"] + got.get("refresh_cost", 0)),
        hold_cost=float(got["hold_cost"]), protected=int(got["protected"]), lost=int(got["lost"]),
        in_flight=int(got["in_flight"]), stale_hits=int(got["stale_hits"]),
    )
    spent: Mapping[str, float] | None = None
    if stale is not None:
        known = freshness.knowing(trace, stale)
        spent = {
            "budget": stale, "stale_rate": outcome.stale_hits / outcome.requests, "refreshes": int(got["refreshes"]),
            "audits": int(got["freshness"]["audits"]), "clairvoyant": known.clairvoyant, "best_fixed": known.best_fixed,
            "informed": known.informed, "always": known.always,
        }
    told = {"hit_ratio": parts.ratios()} | {
        f"weight:{name}": tuple(float(share.get(name, 0)) for share in shares) for name in (shares[-1] if shares else ())
    }
    return (outcome, {str(name): float(share) for name, share in got["weights"].items()}, float(got["worst_margin"]), spent,
            told if timeline else None)


def _under(tell: Progress, task: str) -> Callable[[int, int], None]:
    return lambda done, total: tell(task, done, total)


def _silent(task: str, done: int, total: int) -> None:
    pass


# Words

def parse_policy(text: str) -> str:
    if text not in POLICIES and not is_rival(text):
        raise ValueError(f"unknown policy {text!r}; known are {', '.join((*POLICIES, *rivals.RIVALS))}")
    return text


def is_rival(policy: str) -> bool:
    """Another library's cache rather than a policy of ours."""
    return policy in rivals.RIVALS


def by_chance(policy: str) -> bool:
    """Does the seed decide anything on a recorded trace?"""
    return policy in SALTED or policy in rivals.BY_CHANCE


def parse_size(text: str | int) -> Callable[[int], int]:
    """A capacity in entries, as a function of the number of unique keys."""
    wrong = ValueError(f"size {text!r} is neither a number of entries (1 or more) nor a percentage of the unique "
                       "keys (above 0%, at most 100%)")
    if isinstance(text, str) and text.strip().endswith("%"):
        share = _number(text.strip()[:-1])
        if share is None or not 0 < share <= 100:
            raise wrong
        return lambda unique: max(10, round(share / 100 * unique))
    entries = _number(text)
    if entries is None or not 1 <= entries < 2**32 or entries != int(entries):
        raise wrong
    return lambda unique: int(entries)


def parse_price(text: str | float) -> Price:
    relative = isinstance(text, str) and text.strip().lower().endswith("x")
    value = _number(text.strip()[:-1] if relative and isinstance(text, str) else text)
    if value is None or not 0 < value < math.inf:
        raise ValueError(f"memory price {text!r} is neither a cost per unit of size per second (a number above 0) "
                         "nor a multiple such as 0.1x")
    return Price(value, relative)


def parse_expiry(text: str) -> str:
    if text in EXPIRIES and text != "static:SECONDS":
        return text
    if text.startswith("static:"):
        ttl = _number(text.removeprefix("static:"))
        if ttl is None or ttl < 0:
            raise ValueError(f"expiry {text!r}: SECONDS must be a number, 0 or more (inf: for ever)")
        return text
    raise ValueError(f"unknown expiry {text!r}; known are {', '.join(EXPIRIES)}")


def _number(text: str | float) -> float | None:
    if isinstance(text, str) and not re.fullmatch(r"\s*[+-]?(\d[\d.]*|\.\d+|inf)(e[+-]?\d+)?\s*", text, re.IGNORECASE):
        return None  # float() would take 1_000 and nan
    try:
        value = float(text)
    except (ValueError, OverflowError):
        return None
    return None if np.isnan(value) else value


def _words(value: Any) -> list[Any]:
    """"lru,sieve", ["lru", "sieve"], 100 and [100] alike as lists."""
    if isinstance(value, str):
        return [word.strip() for word in value.split(",")]
    return list(value) if isinstance(value, Iterable) else [value]
