"""What several seeds say together: the mean, and where it would lie with more of them.

Student's t interval: mean ± t · s / √n, with s the seeds' standard deviation and t the quantile of Student's
distribution with n - 1 degrees of freedom. It takes the seeds as independent draws and their mean as normal; it says
how much is due to the seed, not how another trace would do.
"""
from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Final

from adaptcache.simulate.run import EvictionResult, Result

LEVEL: Final = 0.95
MEASURES: Final = {
    True: ("hit_ratio", "byte_hit_ratio", "cost_ratio", "gap_closed"),
    False: ("total_cost", "miss_cost", "hold_cost", "gap_closed", "misses", "lost", "stale_hits"),
}


@dataclass(frozen=True)
class Interval:
    """A mean over `n` seeds and the bounds that hold it at `level`. One seed says nothing of chance: its bounds are infinite."""

    mean: float
    low: float
    high: float
    n: int
    level: float = LEVEL

    @property
    def half(self) -> float:
        """Half of its width."""
        return (self.high - self.low) / 2

    def __format__(self, spec: str) -> str:
        """mean ± half-width; the mean alone where one seed was all there was."""
        mean = format(self.mean, spec)
        return mean if self.n < 2 else f"{mean} ± {format(self.half, spec)}"


@dataclass(frozen=True)
class Summary:
    """One cell over its seeds. `measures`: field of the result -> Interval, where every seed has a number there."""

    results: Sequence[Result]
    measures: Mapping[str, Interval]


def interval(values: Iterable[float], level: float = LEVEL) -> Interval:
    """Student's t interval of the mean. ValueError without a value, or for a level outside (0, 1)."""
    values = [float(value) for value in values]
    if not values:
        raise ValueError("interval: needs at least one value")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; it must be above 0 and below 1")
    mean = fmean(values)
    if len(values) == 1:
        return Interval(mean, -math.inf, math.inf, 1, level)
    half = quantile((1 + level) / 2, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half, len(values), level)


def over_seeds(results: Iterable[Result], level: float = LEVEL) -> list[Summary]:
    """Results that differ in their seed only, taken together. They stand side by side, as `run` lists them: the size and
    the price of one cell may differ from seed to seed, where they are relative to a synthetic trace."""
    groups: list[list[Result]] = []
    for result in results:
        if groups and result.seed is not None and _name(groups[-1][0]) == _name(result) \
                and all(other.seed not in (None, result.seed) for other in groups[-1]):
            groups[-1].append(result)
        else:
            groups.append([result])
    return [Summary(group, dict(_measures(group, level))) for group in groups]


def _name(result: Result) -> tuple[type[Result], str]:
    return type(result), result.policy if isinstance(result, EvictionResult) else result.expiry


def _measures(group: Sequence[Result], level: float) -> Iterator[tuple[str, Interval]]:
    for name in MEASURES[isinstance(group[0], EvictionResult)]:
        values = [getattr(result, name) for result in group]
        if None not in values:
            yield name, interval(values, level)


def quantile(p: float, freedom: int) -> float:
    """Of Student's t distribution, by bisection of its distribution function; p from 0.5 on."""
    low, high = 0.0, 1.0
    while cumulative(high, freedom) < p:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        low, high = (middle, high) if cumulative(middle, freedom) < p else (low, middle)
    return high


def cumulative(t: float, freedom: int) -> float:
    """P(T ≤ t) for t ≥ 0: the finite sums in θ = atan(t / √freedom) (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4)."""
    theta = math.atan(t / math.sqrt(freedom))
    sine, square = math.sin(theta), math.cos(theta) ** 2
    if freedom % 2:
        term, total = math.cos(theta), 0.0
        for k in range(1, (freedom - 1) // 2 + 1):
            total += term
            term *= square * 2 * k / (2 * k + 1)
        both = (theta + sine * total) * 2 / math.pi
    else:
        term, total = 1.0, 0.0
        for k in range(1, freedom // 2 + 1):
            total += term
            term *= square * (2 * k - 1) / (2 * k)
        both = sine * total
    return (1 + both) / 2
