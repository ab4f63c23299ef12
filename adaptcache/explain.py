"""Why an entry's deadline is what it is, as a value that reads as a sentence or two."""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from adaptcache.learn import experts
from adaptcache.learn.predictor import named

KINDS = ("none", "fixed", "idle", "per entry", "learned")
BOUNDS = ("nothing", "ceiling", "floor", "mixture", "guard", "idle time", "freshness")


@dataclass(frozen=True)
class Explanation:
    """What decided about an entry.

    expiry          the rule: none, fixed, idle, per entry or learned
    bound           what decided last: nothing, ceiling, floor, mixture, guard, idle time or freshness
    idle            seconds since the last access
    expires_in      seconds until it is served no more at the latest
    accesses        how often it was asked for, about
    breakeven       seconds after which holding it has cost a miss; 0 = holding costs nothing
    window          protected seconds after an access
    comes_back      predicted probability of a request within the window; None unless learned
    hold            the mixture's verdict now; None unless learned
    verdicts        expert -> (share of the weight, share of it that holds)
    distribution    (idle seconds, probability that the next request has come by then), one pair a bin of time from now
                    on, as the strongest of the hazard experts expects; a request before now is out of the question
    expects         the name of that expert
    features        everything that the models see of the last access, by name: the application's features under its own
                    names (a word stands for the share of its keys that were asked for again soon) and ours
                    (docs/explain.md)
    guard           of the bank that answers for its namespace: credit, in_flight, premature (lost) and protected
    """

    expiry: str
    bound: str
    idle: float | None = None
    expires_in: float = math.inf
    accesses: int | None = None
    cost: float | None = None
    breakeven: float | None = None
    window: float | None = None
    comes_back: float | None = None
    hold: bool | None = None
    verdicts: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    distribution: Sequence[tuple[float, float]] = ()
    expects: str | None = None
    features: Mapping[str, float] = field(default_factory=dict)
    guard: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        if self.expiry == "none":
            return "Nothing expires this entry; only capacity can push it out."
        left = "for ever" if self.expires_in == math.inf else f"for at most {_time(self.expires_in)}"
        if self.expiry != "learned":
            return f"Its {self.expiry} expiry lets it be served {left}; it has been idle for {_time(self.idle or 0)}."
        if not self.breakeven:
            return f"Holding it costs nothing now, so it stays {left}; idle for {_time(self.idle or 0)}."
        side = "hold it" if self.hold else "let it go"
        heard = [item for item in self.verdicts.items() if item[1][0] >= 0.01]
        strongest = sorted(heard, key=lambda item: -item[1][0])[:2]
        named = " and ".join(f"{name} ({share:.0%} of the weight) would {'hold' if holds > 0.5 else 'let go'}"
                             for name, (share, holds) in strongest)
        text = (f"Idle for {_time(self.idle or 0)} of a break-even time of {_time(self.breakeven)}; a request before its "
                f"protected window of {_time(self.window or 0)} ends is expected with {self.comes_back or 0:.0%}. "
                f"The mixture would {side}: {named}.")
        if self.expires_in < math.inf:
            text += f" Its ceiling ends it in {_time(self.expires_in)}."
        if self.bound == "guard":
            text += " The guard holds it, since letting it go early would risk more than the promise has credit for."
        elif self.bound == "floor":
            text += " Its floor holds it."
        return text


def _time(seconds: float) -> str:
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def accesses(count: int) -> int:
    """About how many accesses the core's counter stands for: exact to 15, then 16 steps to each doubling of the step."""
    return min(count, 15) + sum(1 << min((step - 15) // 16 + 1, 24) for step in range(15, count))


def explanation(raw: Mapping[str, Any], users: list[str], app: list[str]) -> Explanation:
    """From what the core says of an entry."""
    kind = KINDS[raw["kind"]]
    if kind == "none":
        return Explanation(kind, "nothing")
    return Explanation(
        expiry=kind, bound=BOUNDS[raw["bound"]], idle=raw["idle"], expires_in=raw["expires_in"], accesses=accesses(raw["accesses"]),
        cost=raw.get("cost"), breakeven=raw.get("breakeven"), window=raw.get("window"), comes_back=raw.get("back"),
        hold=raw.get("hold"), verdicts=experts.verdicts(raw.get("verdicts", ()), users),
        distribution=tuple(raw.get("distribution", ())),
        expects=experts.name(raw["strongest"], users) if "strongest" in raw else None,
        features=named(raw["features"], app) if "features" in raw else {}, guard=raw.get("guard", {}),
    )
