"""The shape of an advice: recommendations beside the evidence they rest on. Nothing is computed here.

Hit ratios are shares of all requests, 0 to 1; where keys were sampled, `low` and `high` enclose the exact value in 95
of 100 cases (`simulate.curves`), and both are the ratio itself where every key was looked at.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Point:
    """One size on the curve of the recommended policy."""

    capacity: int  # entries
    hit_ratio: float
    low: float
    high: float
    lru: float  # the dullest rival's
    best_possible: float  # of a cache that knows the future and may refuse a newcomer


@dataclass(frozen=True)
class Size:
    """How many entries."""

    current: int | None  # what the user said there are
    recommended: int | None  # None: no key is asked for twice
    reason: str
    half: float | None  # hit ratio at half of, at, and at twice the current size, or else the recommended one
    here: float | None
    double: float | None
    curve: tuple[Point, ...]


@dataclass(frozen=True)
class Policy:
    """Who leaves when the cache is full, judged at one capacity."""

    capacity: int
    recommended: str
    reason: str
    best: str  # with the highest hit ratio; the recommended one is not it where the lead says nothing
    hit_ratios: Mapping[str, float]
    low: Mapping[str, float]
    high: Mapping[str, float]
    best_possible: float
    halves: Mapping[str, tuple[float, float]]  # hit ratio in both halves of the trace; empty where keys were sampled


@dataclass(frozen=True)
class Expiry:
    """How long to keep an entry that nobody asks for, where memory has a price and nothing else limits it.

    Costs are of the rows that were looked at: misses plus rent of the memory.
    """

    recommended: str  # "learned", "none" (no expiry), "fixed", "nothing" (no cache)
    reason: str
    memory_price: float  # cost per unit of size per second
    break_even: float  # seconds for which holding the median entry costs one miss
    costs: Mapping[str, float]  # none, static-best, break-even, learned, clairvoyant, and fixed where a TTL was given
    best_ttl: float  # seconds; of static-best, found in hindsight, counted from the last request
    ttl: float | None  # the current one, counted from the store
    ttl_against_learned: float | None  # its cost as a multiple of learned's
    low: float | None  # of that multiple, the least and the largest in disjoint samples of the keys
    high: float | None
    requests: int  # looked at
    samples: int  # of the keys, disjoint; 0: every key was looked at
    hot: int  # keys that were left out of those for having too many requests
    models: bool  # did learned have river's models, or only its tables


@dataclass(frozen=True)
class Advice:
    """Everything that can be said of one trace."""

    trace: str
    requests: int  # of the whole trace
    keys: int  # estimated where they were sampled
    span: float | None  # seconds; None without times
    first_requests: float  # share of the requests that are the first for their key, which no cache can hit
    sample: float | None  # share of the keys that all of this was judged by; None: all
    sampled: int  # requests of those
    hot: int  # keys that are not among them for having too many requests
    looked_at: int  # of the first so many requests; fewer than `requests` where these are for too few keys to draw from
    warnings: tuple[str, ...]
    size: Size
    policy: Policy | None  # None: no key is asked for twice
    expiry: Expiry | None  # None: the trace has no times, or no gap to learn from
