"""The whole workload: the streams together in order of time, with keys, costs, sizes and versions.

It has two faces with the same requests: `trace()` gives columns to a simulator, iteration gives
requests with their arguments to a program that serves them.
"""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..trace import Trace
from . import streams
from .catalogue import (
    CALLERS,
    FUNCTIONS,
    GRANULARITIES,
    HORIZONS,
    POINTS_PER_DAY,
    WEEK,
    Floats,
    Ints,
    draw_habits,
)
from .parameters import PipelineParameters
from .streams import DAY_SECONDS, ITEMS, LATEST, Asked, Regime

BYTES_PER_POINT = 48.0
MOST_POINTS = 2_000
MOST_TENANTS = 1_000


class Request(NamedTuple):
    """One call of the service."""

    time: float
    function: str
    arguments: dict[str, Any]  # they and the function are the key
    features: dict[str, float | int | str]  # what the service knows besides; not part of the key
    key: int  # the key's number in the trace
    version: int  # of the value at its source at this moment
    changed: float  # when the source last changed; nothing newer is in the value


@dataclass(frozen=True)
class Workload:
    """Requests in order of time. Made by `workload()`."""

    name: str
    parameters: PipelineParameters
    asked: Asked
    key: NDArray[np.uint32]
    version: NDArray[np.uint32]
    changed: Floats
    cost: Floats
    size: Floats

    def __len__(self) -> int:
        return len(self.key)

    @cached_property
    def columns(self) -> dict[str, NDArray[Any]]:
        """What an application knows at the moment of a request: category ids and numbers."""
        asked = self.asked
        today = asked.time // DAY_SECONDS
        return {
            "tenant": asked.tenant.astype(np.uint16),
            "caller": asked.caller.astype(np.uint16),
            "granularity": asked.granularity.astype(np.uint16),
            "horizon_days": HORIZONS[asked.horizon].astype(np.float32),
            "age_days": np.where(asked.as_of == LATEST, 0, today - asked.as_of).astype(np.float32),
            "hour": (asked.time % DAY_SECONDS / 3_600.0).astype(np.float32),
            "weekday": (today % 7).astype(np.uint16),
        }

    def trace(self) -> Trace:
        """The same requests for the simulator; its time starts at the first request."""
        _, first, function = np.unique(self.asked.function, return_index=True, return_inverse=True)
        return Trace(
            name=self.name,
            key=self.key,
            n_keys=int(self.key.max()) + 1,
            time=self.asked.time - self.asked.time[0],
            size=self.size,
            version=self.version,
            namespace=np.argsort(np.argsort(first))[function].astype(np.uint32),
            features=self.columns,
            cost=self.cost,
        )

    def __iter__(self) -> Iterator[Request]:
        asked = self.asked
        features = {name: column.tolist() for name, column in self.columns.items()}
        rows = zip(
            asked.time.tolist(), asked.function.tolist(), asked.tenant.tolist(), asked.granularity.tolist(),
            HORIZONS[asked.horizon].tolist(), asked.item.tolist(), asked.as_of.tolist(),
            self.key.tolist(), self.version.tolist(), self.changed.tolist(), features["caller"], features["age_days"],
            features["hour"], features["weekday"], strict=True,
        )
        for time, function, tenant, grain, horizon, item, as_of, *rest in rows:
            key, version, changed, caller, age, hour, weekday = rest
            arguments = {
                "tenant": tenant,
                "granularity": GRANULARITIES[grain],
                "horizon_days": horizon,
                "item": item,
                "as_of": None if as_of == LATEST else as_of,
            }
            known: dict[str, float | int | str] = {
                "tenant": str(tenant),
                "caller": CALLERS[caller],
                "granularity": GRANULARITIES[grain],
                "horizon_days": float(horizon),
                "age_days": age,
                "hour": hour,
                "weekday": str(weekday),
            }
            yield Request(time, FUNCTIONS[function].name, arguments, known, key, version, changed)


def workload(parameters: PipelineParameters | None = None, *, seed: int = 0, name: str = "synthetic:pipeline") -> Workload:
    """The workload of these parameters; the same seed gives the same requests."""
    p = parameters or PipelineParameters()
    rng = np.random.default_rng(seed)
    before, after = draw_habits(p, rng)
    regimes = [Regime(0.0, p.shift, before)]
    if p.shift < p.seconds:
        regimes.append(Regime(p.shift, p.seconds, after))

    shares = {
        streams.once: p.once, streams.explored: p.explored, streams.scans: p.scan,
        streams.crowds: p.crowd, streams.lookups: p.lookup,
    }
    counts = {stream: round(share * p.requests) for stream, share in shares.items()}
    counts[streams.dashboards] = max(0, p.requests - sum(counts.values()))
    asked = streams.joined([stream(p, regimes, rng, count) for stream, count in counts.items()])
    # Shares that are rounded up and leave dashboards nothing may be one or two requests too many.
    asked = asked[np.argsort(asked.time, kind="stable")[:p.requests]]

    key, first = _keys(asked)
    version, changed = _versions(asked)
    return Workload(
        name=name, parameters=p, asked=asked, key=key, version=version, changed=changed,
        cost=_costs(p, rng, asked), size=_sizes(p, rng, asked[first])[key],
    )


def _keys(asked: Asked) -> tuple[NDArray[np.uint32], Ints]:
    """Dense key numbers by first appearance, and the row of each key's first appearance."""
    # One number per key: functions of 15, tenants of 1000, 20 charts, 2^14 days and 2^29 items fit in 63 bits.
    what = asked.function
    for column, values in (
        (asked.tenant, MOST_TENANTS), (asked.granularity, len(GRANULARITIES)), (asked.horizon, len(HORIZONS)),
        (asked.as_of - LATEST, 1 << 14), (asked.item, ITEMS),
    ):
        what = what * values + column
    _, first, number = np.unique(what, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty(len(order), np.uint32)
    rank[order] = np.arange(len(order), dtype=np.uint32)
    return rank[number], first[order]


def _versions(asked: Asked) -> tuple[NDArray[np.uint32], Floats]:
    """How often the source of each key has changed by now, and when it last did.

    Sources are refreshed on a schedule, each function with its own. Data that ends on a past day is
    closed: a last load at that day's end, and its version stands still from then on.
    """
    refresh = np.array([f.refresh for f in FUNCTIONS])[asked.function]
    phase = asked.function * 97.0 % refresh  # schedules do not all run on the hour
    closes = np.where(
        asked.as_of == LATEST, np.inf, (asked.as_of + np.where(asked.granularity == WEEK, 7, 1)) * DAY_SECONDS
    )
    closed = asked.time >= closes
    loads = (np.minimum(asked.time, closes.clip(min=0)) + phase) // refresh
    return (loads + closed).astype(np.uint32), np.where(closed, closes, loads * refresh - phase)


def _costs(p: PipelineParameters, rng: np.random.Generator, asked: Asked) -> Floats:
    """Seconds of a miss: by function and horizon, with the scatter of a busy database; mean as asked."""
    base = np.array([f.seconds for f in FUNCTIONS])[asked.function]
    cost = base * (0.3 + 0.7 * (HORIZONS[asked.horizon] / 30.0) ** 0.8)
    cost *= rng.lognormal(0.0, 0.2, len(cost))
    return np.asarray(cost * (p.cost / cost.mean()))


def _sizes(p: PipelineParameters, rng: np.random.Generator, keys: Asked) -> Floats:
    """Bytes of a key's value: by the points that it holds; median as asked."""
    points = (HORIZONS[keys.horizon] * POINTS_PER_DAY[keys.granularity]).clip(1, MOST_POINTS)
    size = (200.0 + BYTES_PER_POINT * points) * rng.lognormal(0.0, 0.3, len(points))
    return np.asarray(np.ceil(size * (p.size / np.median(size))))
