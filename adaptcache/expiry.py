"""What people say about expiry: `Fixed`, `Idle`, `PerEntry`, `Learned`. Plain values, validated here.

The rules themselves run in the core; this file knows neither entries nor models.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from adaptcache import checks


@dataclass(frozen=True)
class Fixed:
    """Every entry is served for `ttl` seconds from when it was stored, whatever is asked for."""

    ttl: float

    def __post_init__(self) -> None:
        checks.seconds("ttl", self.ttl)


@dataclass(frozen=True)
class Idle:
    """Every entry is served until nobody has asked for it for `ttl` seconds."""

    ttl: float

    def __post_init__(self) -> None:
        checks.seconds("ttl", self.ttl)


@dataclass(frozen=True)
class PerEntry:
    """`fn(key, value, now)` gives each entry's deadline, in seconds of the cache's timer (cachetools' ttu)."""

    fn: Callable[[Any, Any, float], float]

    def __post_init__(self) -> None:
        if not callable(self.fn):
            raise TypeError(f"fn: expected a callable (key, value, now) -> deadline, got {type(self.fn).__name__}")


PREDICTORS = ("table", "river")
ALPHA = 0.01            # of whoever is not named
BANKS = 64              # namespaces with a bank of their own, at most


@dataclass(frozen=True, kw_only=True)
class Learned:
    """Let each entry go once no horizon is worth its rent, as learned online, under a promise.

    floor, ceiling      hard bounds in seconds: never let go on grounds of reuse before `floor` after it was
                        stored, never served from `ceiling` on
    memory_price        cost per unit of size and second; None: nothing while there is room, and the
                        price at which what was evicted would just have broken even when full
    miss_cost           cost of a miss where neither a cost nor a load time is known; default 1
    premature           alpha of the promise: the share of re-requests within the window that may be lost to
                        early removal (docs/promise.md). 1 switches the guard off, 0 allows one loss in all.
                        A mapping gives namespaces a share, and a bank, of their own, None all others: each keeps
                        the promise by itself, and together they lose at most alpha N + their number
    window              protected seconds after each access; None: a quarter of each entry's break-even time
    guarantee           "absolute": at every moment, whatever comes; "expected": by predicted losses, cheaper
    stale               p: at most this share of the reads may be answered with a value that has changed at its
                        origin; how long each value stays valid is then learned (docs/freshness.md). None:
                        values do not go stale before `ttl` and `ceiling`. Entries stored with a `ttl` keep to it
    digest              with `stale`: what stands for a value when it is asked whether it changed, a callable
                        giving a version, an ETag or any plain value; None for unknown. The default digests
                        plain data and anything that can be pickled, by its contents
    fail_safe           seconds for which the last good value of a key that expired is served when its load fails,
                        never past `ttl` and `ceiling`; None: the exception reaches every waiter
    predictors          "table", "river", river estimators, or objects with learn(x, y) and predict(x)
    learner             "thread": a daemon learns; "manual": every operation does its share, and
                        `cache.learn()` trains the models; deterministic with `seed`
    seed                of every random choice, the eviction policy's included; None draws one
    """

    floor: float = 0.0
    ceiling: float | None = None
    memory_price: float | None = None
    miss_cost: float = 1.0
    premature: float | Mapping[Any, float] = 0.01
    window: float | None = None
    guarantee: str = "absolute"
    stale: float | None = None
    digest: Callable[[Any], Any] | None = None
    fail_safe: float | None = None
    predictors: Sequence[Any] = PREDICTORS
    learner: str = "thread"
    seed: int | None = None
    max_keys: int = field(default=1 << 17)

    def __post_init__(self) -> None:
        floor = checks.seconds("floor", self.floor)
        ceiling = checks.seconds("ceiling", self.ceiling, none=True)
        if ceiling is not None and floor is not None and floor > ceiling:
            raise ValueError(f"floor: {self.floor!r} is above ceiling {self.ceiling!r}; the accepted range is up to the ceiling")
        if self.memory_price is not None:
            checks.number("memory_price", self.memory_price, "a finite number, zero or more, or None", 0.0, 1e300)
        if self.miss_cost is None:
            object.__setattr__(self, "miss_cost", 1.0)
        checks.number("miss_cost", self.miss_cost, "a finite number, zero or more", 0.0, 1e300)
        if isinstance(self.premature, Mapping):
            for label, share in self.premature.items():
                checks.number(f"premature[{label!r:.60}]", share, "0 to 1", 0.0, 1.0)
            if len(shares(self)) > 1 + BANKS:
                raise ValueError(f"premature: {len(shares(self)) - 1} namespaces given; the accepted range is 0 to {BANKS} besides None")
        else:
            checks.number("premature", self.premature, "0 to 1", 0.0, 1.0)
        checks.seconds("window", self.window, none=True)
        if self.guarantee not in ("absolute", "expected"):
            raise ValueError(f"guarantee: {self.guarantee!r} is not accepted; the accepted values are 'absolute' and 'expected'")
        if self.stale is not None:
            checks.number("stale", self.stale, "a share above 0 and below 1, or None", 0.0, 0.999, open_low=True)
        if self.digest is not None and not callable(self.digest):
            raise TypeError(f"digest: expected a callable of the value or None, got {type(self.digest).__name__}")
        if self.digest is not None and self.stale is None:
            raise ValueError("digest: is for learned validity; give stale= too")
        checks.seconds("fail_safe", self.fail_safe, none=True)
        if self.learner not in ("thread", "manual"):
            raise ValueError(f"learner: {self.learner!r} is not accepted; the accepted values are 'thread' and 'manual'")
        if self.seed is not None and not isinstance(self.seed, int):
            raise TypeError(f"seed: expected an int or None, got {type(self.seed).__name__}")
        if isinstance(self.predictors, str) or not isinstance(self.predictors, Sequence):
            raise TypeError("predictors: expected a sequence of names, river estimators or objects with learn and predict")
        if not isinstance(self.max_keys, int) or not 1 <= self.max_keys < 1 << 31:
            raise ValueError(f"max_keys: {self.max_keys!r} is not accepted; the accepted range is 1 to 2**31 - 1")
        object.__setattr__(self, "predictors", tuple(self.predictors))
        for given in self.predictors:
            if isinstance(given, str):
                if given not in PREDICTORS:
                    raise ValueError(f"predictors: unknown predictor {given!r}; known are {', '.join(PREDICTORS)}")
            elif not is_model(given):
                raise TypeError(f"predictors: {type(given).__name__} has neither learn(x, y) and predict(x) nor river's "
                                "learn_one and predict_one")
        if len(models(self)) > 4:
            raise ValueError(f"predictors: {len(models(self))} models given; the accepted range is 0 to 4 besides the names")


def shares(spec: Learned) -> dict[Any, float]:
    """Namespace -> its alpha; None is everybody else's, and always there."""
    given = spec.premature
    if not isinstance(given, Mapping):
        return {None: float(given)}
    return {None: ALPHA, **{label: float(share) for label, share in given.items()}}


def is_model(given: Any) -> bool:
    return all(callable(getattr(given, name, None)) for name in ("learn", "predict")) or \
        all(callable(getattr(given, name, None)) for name in ("learn_one", "predict_one"))


def models(spec: Learned) -> list[Any]:
    """The predictors that are objects of the user's."""
    return [given for given in spec.predictors if not isinstance(given, str)]


Expiry = Fixed | Idle | PerEntry | Learned


def parse(expiry: Any) -> Expiry | None:
    """The argument `expiry` of a cache: a number means `Fixed`."""
    if expiry is None or isinstance(expiry, (Fixed, Idle, PerEntry, Learned)):
        return expiry
    if isinstance(expiry, (int, float)) and not isinstance(expiry, bool):
        if math.isnan(expiry) or expiry < 0:
            raise ValueError(f"expiry: {expiry!r} is not accepted; the accepted range is seconds, zero or more")
        return Fixed(expiry)
    raise TypeError(f"expiry: expected None, seconds, Fixed, Idle, PerEntry or Learned, got {type(expiry).__name__}")


def price(*, gb_hour: float, cpu_hour: float) -> float:
    """`memory_price` in seconds of load time per byte and second, from two figures of an invoice.

    gb_hour: what a gigabyte (2**30 bytes) costs an hour. cpu_hour: what an hour of loading costs, in the
    same currency. With it, `getsizeof` must give bytes and costs are load times in seconds.
    """
    memory = checks.number("gb_hour", gb_hour, "a finite number, zero or more", 0.0, 1e300)
    cpu = checks.number("cpu_hour", cpu_hour, "a finite number above zero", 0.0, 1e300, open_low=True)
    # currency per byte-second over currency per second of load
    return (memory / 2**30 / 3600) / (cpu / 3600)
