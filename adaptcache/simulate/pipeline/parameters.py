"""Everything about the pipeline workload that can be adjusted, with the range each value may take.

This file knows nothing of how requests are made. A value outside its range is refused with the
parameter's name and the accepted range; `docs/pipeline.md` lists the same parameters for readers.
"""
from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any


def _number(default: float, low: float, high: float, meaning: str) -> Any:
    """A field with its range; an int default makes a whole-number parameter."""
    return field(default=default, metadata={"low": low, "high": high, "meaning": meaning})


@dataclass(frozen=True, kw_only=True)
class PipelineParameters:
    """Adjusts `synthetic:pipeline`. The shares are parts of all requests; dashboards get what is left."""

    requests: int = _number(200_000, 1_000, 50_000_000, "how many requests the workload has, exactly")
    days: int = _number(4, 1, 366, "simulated days, from a Monday 00:00 UTC")
    tenants: int = _number(12, 2, 1_000, "customers of the service; each has its pace and its working hours")
    contrast: float = _number(3.0, 1.0, 20.0, "pace of the slowest tenant over that of the median one; 1 = all alike")
    unlike: float = _number(0.2, 0.0, 1.0, "share of boards, questions and scanned items with habits of their own, not their siblings'")

    panels: int = _number(4, 1, 6, "panels of a dashboard: keys asked for together")
    period: float = _number(300.0, 1.0, 86_400.0, "seconds between two polls of an hourly dashboard, median tenant")
    jitter: float = _number(0.05, 0.0, 0.5, "how far a poll strays from its beat, as a part of the period")
    sittings: float = _number(3.0, 0.1, 100.0, "how often a working day a dashboard is opened, on average")
    sitting_minutes: float = _number(45.0, 1.0, 600.0, "how long it then stays open, on average")
    work_hours: float = _number(9.0, 1.0, 24.0, "length of a tenant's working day")

    once: float = _number(0.15, 0.0, 0.9, "share of ad-hoc queries that nobody asks again")
    explored: float = _number(0.08, 0.0, 0.9, "share of ad-hoc queries asked several times within minutes")
    scan: float = _number(0.15, 0.0, 0.9, "share of nightly scans")
    crowd: float = _number(0.05, 0.0, 0.9, "share of flash crowds")
    lookup: float = _number(0.12, 0.0, 0.9, "share of single-customer look-ups by applications")

    crowds: int = _number(4, 1, 1_000, "flash crowds over the whole time")
    crowd_minutes: float = _number(20.0, 1.0, 1_440.0, "how long a flash crowd takes to fall to a third")
    entities: int = _number(20_000, 1, 10_000_000, "customers that can be looked up")
    skew: float = _number(0.9, 0.0, 3.0, "Zipf exponent of their popularity")

    shift_at: float = _number(0.5, 0.0, 1.0, "when habits swap, as a part of the time; 0 or 1 = never")
    cold: float = _number(0.34, 0.0, 0.5, "share of dashboard functions that go cold at the shift (as many wake)")

    cost: float = _number(0.05, 1e-6, 3_600.0, "mean seconds that a miss takes")
    size: float = _number(4_096.0, 1.0, 1e9, "median size of a key, bytes")

    def __post_init__(self) -> None:
        for f in fields(self):
            whole = isinstance(f.default, int)
            value = _as_number(f.name, getattr(self, f.name), whole)
            low, high = f.metadata["low"], f.metadata["high"]
            if not low <= value <= high:
                raise ValueError(f"{f.name}={value!r} is out of range: accepted is {low:g} to {high:g}")
            object.__setattr__(self, f.name, value)
        taken = self.once + self.explored + self.scan + self.crowd + self.lookup
        if taken > 1 + 1e-9:
            raise ValueError(
                f"once + explored + scan + crowd + lookup = {taken:g} is out of range: accepted is 0 to 1"
            )

    @property
    def seconds(self) -> float:
        """Length of the workload."""
        return self.days * 86_400.0

    @property
    def shift(self) -> float:
        """When habits swap, in seconds; the end where they never do."""
        return self.shift_at * self.seconds if 0 < self.shift_at < 1 else self.seconds

    def changed(self) -> dict[str, int | float]:
        """The parameters that differ from their defaults."""
        return {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}


def _as_number(name: str, value: object, whole: bool) -> int | float:
    """Text (from a workload's name) or number → number; anything else is refused by name."""
    kind = "a whole number" if whole else "a number"
    try:
        if isinstance(value, bool):
            raise TypeError
        number = float(value)  # type: ignore[arg-type]
        if not math.isfinite(number) or (whole and number != int(number)):
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(f"{name}={value!r} is not {kind}") from None
    return int(number) if whole else number
