"""Origins whose values change by a law that is known: traces with versions, for tuning and testing learned freshness.

`origin("shocks", seed=1)`, or `origin:shocks` on the command line of `bench/freshness.py`. Reads come at random moments, one a
second on average; keys are as popular as Zipf has it, and belong to twenty namespaces. Only the law of change differs:

    poisson     each key at a rate of its own; the rates spread over four orders of magnitude
    periodic    each key at a fixed interval of its own
    bursts      each key is at rest for most of the time, and changes fast now and then
    shocks      most keys of a namespace at once (a deployment, an import), beside slow changes of their own
    flickering  one key in ten is asked for in bursts, and has another value at most reads; the others rest
    always      one key in five has another value at each read (a time stamp in the answer); the others change slowly
    drift       as poisson, but all rates are thirty times as high in the second half
    still       nothing ever changes
"""
from __future__ import annotations

from collections.abc import Callable

import numpy as np

from adaptcache.simulate.trace import Column, Trace, dense

PREFIX = "origin:"
NAMESPACES = 20


def laws() -> tuple[str, ...]:
    """The laws there are."""
    return tuple(_LAWS)


def origin(law: str, *, seed: int = 0, reads: int = 60_000, keys: int = 2_000) -> Trace:
    """A trace of `reads` gets of about `keys` keys under a law. The same arguments give the same trace."""
    law = law.removeprefix(PREFIX)
    if law not in _LAWS:
        raise ValueError(f"unknown law of change {law!r}; there is: {', '.join(_LAWS)}")
    if min(reads, keys) < 1:
        raise ValueError(f"reads={reads}, keys={keys}: accepted is 1 or more of both")
    random = np.random.default_rng([seed, *law.encode()])
    time = np.cumsum(random.exponential(1.0, reads))
    popularity = 1 / np.arange(1.0, keys + 1) ** 0.9
    key = random.permutation(keys)[random.choice(keys, reads, p=popularity / popularity.sum())]
    if law == "flickering":
        key = _in_bursts(random, key, time)
    version = np.zeros(reads, np.uint32)
    order = np.argsort(key, kind="stable")
    starts = np.flatnonzero(np.diff(key[order], prepend=-1))
    changes = _LAWS[law](random, keys, float(time[-1]))
    for rows in np.split(order, starts[1:]):
        version[rows] = changes(int(key[rows[0]]), time[rows])
    ids = dense(key)
    return Trace(f"{PREFIX}{law}" + (f"?seed={seed}" if seed else ""), ids, int(ids.max()) + 1, time=time, version=version,
                 namespace=(key % NAMESPACES).astype(np.uint32))


# The versions of a key, by its number, at the times of its reads.
Changes = Callable[[int, Column], Column]


def _flickers(key: Column | int) -> Column:
    flickers: Column = np.asarray(key) % 10 == 7
    return flickers


def _in_bursts(random: np.random.Generator, key: Column, time: Column) -> Column:
    """The same reads, but that those of flickering keys come in twenty stretches of a five hundredth of the time each."""
    calm = np.unique(key[~_flickers(key)])
    begins = np.sort(random.uniform(0, time[-1], 20))
    during = np.searchsorted(begins, time, "right") - 1
    busy = (during >= 0) & (time < begins[during] + time[-1] / 500)
    key = np.where(_flickers(key), random.choice(calm, len(key)), key)
    mixed: Column = np.where(busy & (random.random(len(key)) < 0.7), 7 + 10 * random.integers(0, 5, len(key)), key)
    return mixed


def _count(moments: Column, time: Column) -> Column:
    return np.searchsorted(moments, time, "right")


def _rates(random: np.random.Generator, keys: int, span: float) -> Column:
    """Changes a second; the median key changes five times."""
    return np.exp(random.normal(0, 2, keys)) * 5 / span


def _moments(random: np.random.Generator, rate: float, start: float, stop: float) -> Column:
    return np.sort(random.uniform(start, stop, min(random.poisson(rate * (stop - start)), 1_000_000)))


def _poisson(random: np.random.Generator, keys: int, span: float) -> Changes:
    rates = _rates(random, keys, span)
    return lambda key, time: _count(_moments(random, rates[key], 0, span), time)


def _periodic(random: np.random.Generator, keys: int, span: float) -> Changes:
    period, phase = 1 / _rates(random, keys, span), random.random(keys)
    return lambda key, time: np.floor(time / period[key] + phase[key])


def _bursts(random: np.random.Generator, keys: int, span: float) -> Changes:
    def changes(key: int, time: Column) -> Column:
        begins = random.uniform(0, span, random.poisson(2))
        return _count(np.sort(np.concatenate([_moments(random, 2000 / span, at, at + span / 100) for at in begins] or [np.empty(0)])), time)
    return changes


def _shocks(random: np.random.Generator, keys: int, span: float) -> Changes:
    shocks = [_moments(random, 8 / span, 0, span) for _ in range(NAMESPACES)]

    def changes(key: int, time: Column) -> Column:
        common = shocks[key % NAMESPACES]
        own = _moments(random, 0.5 / span, 0, span)
        return _count(np.sort(np.concatenate([common[random.random(len(common)) < 0.8], own])), time)
    return changes


def _flickering(random: np.random.Generator, keys: int, span: float) -> Changes:
    return lambda key, time: np.cumsum(random.random(len(time)) < 0.8) if _flickers(key) else np.zeros(len(time))


def _always(random: np.random.Generator, keys: int, span: float) -> Changes:
    return lambda key, time: np.arange(len(time)) if key % 5 == 0 else _count(_moments(random, 1 / span, 0, span), time)


def _drift(random: np.random.Generator, keys: int, span: float) -> Changes:
    rates = _rates(random, keys, span) / 5
    return lambda key, time: _count(np.concatenate(
        [_moments(random, rates[key], 0, span / 2), _moments(random, 30 * rates[key], span / 2, span)]), time)


def _still(random: np.random.Generator, keys: int, span: float) -> Changes:
    return lambda key, time: np.zeros(len(time))


_LAWS: dict[str, Callable[[np.random.Generator, int, float], Changes]] = {
    "poisson": _poisson, "periodic": _periodic, "bursts": _bursts, "shocks": _shocks, "flickering": _flickering,
    "always": _always, "drift": _drift, "still": _still,
}
