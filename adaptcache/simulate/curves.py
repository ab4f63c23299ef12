"""Miss-ratio curves: how often a policy misses, over its size.

Exact or by sampling. LRU is exact at every size in one pass, from stack distances (`_core.StackDistances`);
every other policy is replayed once a size.

With `sample=R` only a share R of the keys is looked at, chosen by a hash so that whole histories of those are kept:
SHARDS (Waldspurger, Park, Garthwaite and Ahmad, FAST'15) for LRU, whose stack distances are R times as deep among the
sampled keys, and miniature simulation (Waldspurger, Saemundsson, Ahmad and Park, ATC'17) for the others, in a cache of
R times the size. Misses are divided by the number of requests that R promises and not by the number that the sample
has (SHARDS-adj): what a few hot keys that came into the sample, or did not, add are hits nearly all.

The error is that of the sample, and made from it. The sampled keys fall by the same hash into GROUPS disjoint groups,
each of which is a sample of its own at R / GROUPS; from how far the groups' answers lie apart follows how far their
joint answer lies from the truth: standard error = deviation of the groups / sqrt(GROUPS), times sqrt(1 - R) since keys
are drawn without replacement, and `low` and `high` are T standard errors away, Student's 95 % with GROUPS - 1 degrees
of freedom. To that is added how far the mean of the groups lies from the whole sample's answer: a policy that behaves
otherwise in a miniature cache shows it between R and R / GROUPS. Below FEW entries of the miniature cache that is no
longer told, so a curve starts where so many fit. A policy in UNSCALED behaves otherwise at any size, and is refused.
With fewer than about a thousand sampled keys, or a few that make most of the misses, the interval is somewhat too
narrow (docs/harness.md has the shares of exact values that it covered).

Every row is a get that inserts on a miss; each object counts 1.
"""
from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np

from adaptcache import _core
from adaptcache.simulate.oracle import next_use
from adaptcache.simulate.readers import read
from adaptcache.simulate.run import OFFLINE, parse_policy, parse_size
from adaptcache.simulate.sampling import Sample, places
from adaptcache.simulate.trace import Column, Trace

GROUPS: Final = 8
T: Final = 2.365  # Student's 97.5 % quantile with 7 degrees of freedom
FEW: Final = 32  # entries of a miniature cache, of all groups together
UNSCALED: Final = ("lfu",)  # its newcomers share what the frequent leave, a handful of entries however large the cache
POINTS: Final = 24  # of a curve whose sizes nobody named


@dataclass(frozen=True)
class Curve:
    """Miss ratios of one policy over sizes, rising in size."""

    trace: str
    policy: str
    capacities: tuple[int, ...]  # entries
    miss_ratios: tuple[float, ...]
    low: tuple[float, ...]  # the exact miss ratio lies between these, at each size in 95 of 100 cases;
    high: tuple[float, ...]  # both are the miss ratio itself where the curve is exact
    requests: int  # of the whole trace
    sample: float | None  # share of the keys; None: exact
    sampled: int  # requests that were looked at
    groups: tuple[tuple[float, ...], ...] = ()  # of a sample: the miss ratios of each of its disjoint groups of keys

    def at(self, capacity: float) -> float:
        """The miss ratio at any size, on a straight line over log size between two points of the curve.

        Beyond both ends it is that of the end.
        """
        return float(np.interp(math.log(capacity), np.log(self.capacities), self.miss_ratios))


def lead(ahead: Curve, behind: Curve, place: int = 0) -> tuple[float, float]:
    """By how much the one policy misses less than the other at their size number `place`, and half of its 95 % interval.

    Sampled curves of one seed look at the same keys, and what these have in common falls out of the difference: two
    policies are told apart by far smaller leads than the intervals of both would let one think. 0 for exact curves.
    ValueError for curves of different sizes, rates or samples.
    """
    if (ahead.capacities, ahead.sample, ahead.sampled) != (behind.capacities, behind.sample, behind.sampled):
        raise ValueError(f"the curves of {ahead.policy} and {behind.policy} do not look at the same sizes and the same sample")
    difference = behind.miss_ratios[place] - ahead.miss_ratios[place]
    if ahead.sample is None:
        return difference, 0.0
    apart = np.array([group[place] for group in behind.groups]) - np.array([group[place] for group in ahead.groups])
    return difference, float(_error(np.array(difference), apart, ahead.sample))


def _error(whole: Column, groups: Column, rate: float) -> Column:
    """Half of the 95 % interval around the whole sample's answer, from the groups' (axis 0)."""
    standard = groups.std(axis=0, ddof=1) / math.sqrt(GROUPS) * math.sqrt(1 - rate)
    return np.asarray(T * standard + np.abs(whole - groups.mean(axis=0)))


Hits = Callable[[float], float]


def curve(trace: Trace | str | os.PathLike[str], policy: str = "lru", sizes: str | int | Iterable[str | int] | None = None,
          sample: float | None = None, seed: int = 0) -> Curve:
    """The miss-ratio curve of `policy` on `trace` (a Trace, a file, or `synthetic:NAME`).

    sizes   entries, or percentages of the unique keys as for `simulate`; None: POINTS sizes in geometric steps up to
            the number of unique keys. With a sample, sizes of which fewer than FEW entries are sampled are refused,
            or not chosen.
    sample  share of the keys to look at, above 0 and below 1; None: all, exactly
    seed    of the hash that samples

    ValueError for an argument out of range, TraceError for a trace that cannot be read.
    """
    parse_policy(policy)
    if sample is not None and not 0 < sample < 1:
        raise ValueError(f"sample is {sample}; it must be a share above 0 and below 1, or None for all keys")
    if sample is not None and policy in UNSCALED:
        raise ValueError(f"{policy} cannot be sampled: a miniature of it is another policy; sample=None is exact")
    if not isinstance(trace, Trace):
        trace = read(trace, seed=seed)
    capacities = _capacities(trace.n_keys, sizes, sample)
    if sample is None:
        return _exact(trace, policy, capacities)
    place = places(np.arange(trace.n_keys), seed)
    return _sampled(trace, place, sample, len(trace), trace.n_keys, policy, capacities)


def curve_of(sample: Sample, policy: str, sizes: str | int | Iterable[str | int] | None = None) -> Curve:
    """The curve of the trace that `sample` was drawn from, exact where it was kept whole; else as `curve` with that sample."""
    parse_policy(policy)
    if sample.rate == 1 and not sample.hot:
        return _exact(sample.trace, policy, _capacities(sample.keys, sizes, None))
    if policy in UNSCALED:
        raise ValueError(f"{policy} cannot be sampled: a miniature of it is another policy")
    capacities = _capacities(sample.keys, sizes, sample.rate)
    return _sampled(sample.trace, sample.place, sample.rate, sample.looked_at, sample.keys, policy, capacities)


def _capacities(n_keys: int, sizes: str | int | Iterable[str | int] | None, sample: float | None) -> tuple[int, ...]:
    least = 1 if sample is None else math.ceil(FEW / sample)
    if least > n_keys:
        raise ValueError(f"sample is {sample}; of {n_keys:,} keys it takes too few: at least {FEW / n_keys:.3g} "
                         "is needed, or None for all keys")
    if sizes is None:
        return tuple(np.unique(np.geomspace(least, n_keys, POINTS).round().astype(int)).tolist())
    words = [sizes] if isinstance(sizes, str | int) else list(sizes)
    got = sorted({parse_size(word)(n_keys) for word in words})
    if not got:
        raise ValueError("sizes: name at least one")
    if got[0] < least:
        raise ValueError(f"size {got[0]}: too small for a sample of {sample}, which can tell from {least:,} entries upward; "
                         f"sample at least {min(1.0, FEW / got[0]):.3g} of the keys, or all")
    return tuple(got)


def _hits(key: Column, n_keys: int, policy: str) -> Hits:
    """The hits of a cache of so many entries on all rows; between whole numbers on a straight line."""
    if policy == "lru":
        stack = _core.StackDistances(n_keys)
        stack.run(key, 0, len(key))
        by_size = stack.hits()
        return lambda size: float(np.interp(size, np.arange(len(by_size)), by_size))
    following = next_use(key) if policy in OFFLINE else None

    @cache
    def whole(size: int) -> int:
        if size == 0:
            return 0
        replay = _core.PolicyReplay(policy, float(size), n_keys)
        replay.run(key, None, None, following, 0, len(key))
        return int(replay.hits)

    def hits(size: float) -> float:
        floor = math.floor(size)
        part = size - floor
        return whole(floor) * (1 - part) + (whole(floor + 1) * part if part else 0)

    return hits


def _exact(trace: Trace, policy: str, capacities: tuple[int, ...]) -> Curve:
    hits = _hits(trace.key, trace.n_keys, policy)
    exact = tuple(1 - hits(capacity) / len(trace) for capacity in capacities)
    return Curve(trace.name, policy, capacities, exact, exact, exact, len(trace), None, len(trace))


def _sampled(trace: Trace, place: Column, rate: float, rows: int, keys: int, policy: str, capacities: tuple[int, ...]) -> Curve:
    """place: of each key of `trace`, which may lack keys from `rate` on; rows, keys: of all that the sample stands for."""

    def answers(low: float, high: float) -> tuple[Column, int]:
        """Misses per request at each capacity, from the keys whose place is from low to high."""
        share = high - low
        chosen = (place >= low) & (place < high)
        key = (np.cumsum(chosen, dtype=np.uint32) - np.uint32(1))[trace.key[chosen[trace.key]]]
        hits = _hits(key, max(1, int(chosen.sum())), policy)
        # A request hits if few enough *other* keys came between; a share of those is sampled, and the key itself is.
        return np.array([(len(key) - hits((capacity - 1) * share + 1)) / (rows * share) for capacity in capacities]), len(key)

    whole, looked_at = answers(0.0, rate)
    groups = np.array([answers(rate * group / GROUPS, rate * (group + 1) / GROUPS)[0] for group in range(GROUPS)])
    error = _error(whole, groups, rate)
    # The first request of every key misses, whatever the policy.
    certain = keys / rows
    ratios, low, high = (tuple(np.clip(values, certain, 1.0).tolist()) for values in (whole, whole - error, whole + error))
    return Curve(trace.name, policy, capacities, ratios, low, high, rows, rate, looked_at, tuple(map(tuple, groups.tolist())))
