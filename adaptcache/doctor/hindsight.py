"""What a fixed TTL would have cost on the waits that were logged, and how sure that is.

Two rules a TTL: `Idle`, which counts from the last access, and `Fixed`, which counts from when the value was stored.
A wait that ended by nobody coming costs a TTL its whole length in rent, also beyond the horizon, so that what was not
seen never speaks for a change. What capacity or the ceiling took away, a TTL would have lost then too.

A TTL chosen in hindsight flatters itself, so it is chosen on one half of the keys and judged on the other, both
ways, and the interval is a bootstrap over keys: requests of one key are not independent, keys are taken to be.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from adaptcache.doctor.read import Bools, Floats, Log

RESAMPLES: Final = 4000
SEED: Final = 20240229


@dataclass(frozen=True)
class Rule:
    """`Idle(ttl)` or `Fixed(ttl)`, and what it would have cost, key by key."""

    name: str
    ttl: float
    cost: Floats

    def __str__(self) -> str:
        return f"{self.name}({self.ttl:g})"


@dataclass(frozen=True)
class Interval:
    """A share with the ends of its confidence interval."""

    value: float
    low: float
    high: float


def bootstrap(part: Floats, whole: Floats, level: float = 0.95) -> Interval:
    """The ratio of two sums over keys, its interval by resampling keys."""
    total = float(whole.sum())
    if total <= 0:
        return Interval(0.0, 0.0, 0.0)
    rng = np.random.default_rng(SEED)
    n = len(part)
    shares = np.empty(RESAMPLES)
    for start in range(0, RESAMPLES, 50):
        drawn = rng.integers(0, n, (min(50, RESAMPLES - start), n))
        below = whole[drawn].sum(axis=1)
        shares[start:start + len(drawn)] = np.divide(part[drawn].sum(axis=1), below, out=np.zeros(len(drawn)), where=below > 0)
    low, high = np.quantile(shares, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(part.sum()) / total, float(low), float(high))


def by_key(log: Log, rows: NDArray[np.int64], values: Floats) -> Floats:
    """Sums of `values` (one a row) over the keys of the rows, in the order of the keys' numbers."""
    _, at = np.unique(log.key[rows], return_inverse=True)
    return np.bincount(at, weights=values).astype(np.float64)


def ttls(log: Log, rows: NDArray[np.int64]) -> list[float]:
    """TTLs to try: 0, and two to the octave around the break-even times."""
    # At the price that counts, not at the one in force when the wait began.
    priced = rows[np.isfinite(log.breakeven[rows]) & (log.rate[rows] > 0)]
    breakeven = log.cost[priced] / log.rate[priced]
    if not len(breakeven):
        return [0.0]
    middle = float(np.median(breakeven))
    return [0.0] + [float(f"{middle * 2 ** (k / 2):.2g}") for k in range(-12, 7)]


def rules(log: Log, rows: NDArray[np.int64]) -> list[Rule]:
    """Every rule on the waits `rows`, which are in the order of time."""
    tried = np.array(ttls(log, rows))
    idle, fixed = _idle(log, rows, tried), _fixed(log, rows, tried)
    out = []
    for at, ttl in enumerate(tried.tolist()):
        out.append(Rule("Idle", ttl, by_key(log, rows, idle[:, at])))
        out.append(Rule("Fixed", ttl, by_key(log, rows, fixed[:, at])))
    return out


def best(given: list[Rule], some: Bools | None = None) -> Rule:
    return min(given, key=lambda rule: float(rule.cost.sum() if some is None else rule.cost[some].sum()))


def against(paid: Floats, given: list[Rule], level: float) -> Interval:
    """What the best rule would have saved of what was paid: chosen and judged on different keys."""
    half = np.random.default_rng(SEED + 1).permutation(len(paid)) % 2 == 0
    saved = np.empty(len(paid))
    for judged in (half, ~half):
        saved[judged] = (paid - best(given, ~judged).cost)[judged]
    return bootstrap(saved, paid, level)


def losses(log: Log, rows: NDArray[np.int64], rule: Rule) -> float:
    """The share of protected requests that the rule would have lost: what the promise bounds for learning."""
    ttl = np.array([rule.ttl])
    kept = _kept(log, rows, ttl)[:, 0] if rule.name == "Fixed" else np.full(len(rows), rule.ttl)
    window = log.window[rows]
    protected = log.asked[rows] & (log.seen[rows] <= np.where(np.isnan(window), np.inf, window))
    return float((log.seen[rows] > kept)[protected].mean()) if protected.any() else 0.0


def _limit(log: Log, rows: NDArray[np.int64]) -> Floats:
    """The age at which capacity or the ceiling would have ended any rule."""
    ended = np.isin(log.bound[rows], ("capacity", "ceiling")) & ~np.isnan(log.gone[rows])
    return np.where(ended, log.gone[rows], np.inf)


def _cost(log: Log, rows: NDArray[np.int64], kept: Floats) -> Floats:
    """What each wait costs when its value is kept for `kept` seconds (rows, rules) at the most."""
    seen, asked = log.seen[rows][:, None], log.asked[rows][:, None]
    kept = np.minimum(kept, _limit(log, rows)[:, None])
    unknown = (log.outcome[rows] == "never")[:, None]
    held = np.where(unknown, kept, np.minimum(kept, seen))
    return np.asarray(log.rate[rows][:, None] * held + np.where(asked & (seen > kept), log.cost[rows][:, None], 0.0))


def _idle(log: Log, rows: NDArray[np.int64], tried: Floats) -> Floats:
    return _cost(log, rows, np.broadcast_to(tried, (len(rows), len(tried))))


def _fixed(log: Log, rows: NDArray[np.int64], tried: Floats) -> Floats:
    return _cost(log, rows, _kept(log, rows, tried))


def _kept(log: Log, rows: NDArray[np.int64], tried: Floats) -> Floats:
    """How long each value would have lasted from each access, with TTLs that count from the store."""
    kept = np.empty((len(rows), len(tried)))
    limit = _limit(log, rows)
    key, time, seen, asked = log.key[rows], log.time[rows], log.seen[rows], log.asked[rows]
    ends: dict[int, Floats] = {}        # key -> when its value would end, where the next request hits it
    for at in range(len(rows)):
        left = tried
        held = ends.pop(int(key[at]), None)
        if held is not None:
            left = held - time[at]
            # Over by now, or lost on the way: this access stored it anew.
            left = np.where(left > 0, left, tried)
        kept[at] = left
        if asked[at]:
            lasts = np.minimum(left, limit[at])
            ends[int(key[at])] = np.where(lasts >= seen[at], time[at] + left, -np.inf)
    return kept
