"""What a cache counts, as one frozen value."""
from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Bank:
    """The books of one bank of the promise: premature + in_flight <= premature_budget, at every moment."""

    protected: int
    premature: int
    in_flight: int
    premature_budget: float


@dataclass(frozen=True)
class Stats:
    """A cache's counters at one moment.

    hits, misses        requests answered and not
    loads, load_failures, load_seconds   of get_or_load and decorated functions
    inserts, evictions, expirations      values stored, pushed out by capacity, let go by the expiry
    premature           early removals that were asked for again within their window: the losses
    protected           requests within the window after their key's last access: N of the promise
    premature_budget    alpha * N + 1; with several banks the sum of theirs
    in_flight           early removals whose window is still open
    stale_served        values served that are known to have been stale, or may have been and no longer had a right to be
                        served: reads whose own background reload found the value changed, and last good values served
                        while a load failed (`fail_safe`). Of the other reads nobody asked the origin: their stale
                        share is what `Learned(stale=...)` bounds
    refreshes           reloads that learned validity asked for, in the background or by a request after its end
    refresh_failures    reloads in the background that failed
    currsize, maxsize   in the unit of `maxsize`
    weights             expert -> its share in the mixture; empty unless the expiry is learned
    drift_alarms        how often the learner threw away what it knew about who predicts best
    fallback            the guard has no credit, or a drift alarm is recent: entries are held to their window's end
    fallback_reason     "no credit", "drift", both with a comma between them, or ""
    alarms              drift alarms by what raised them: "cost" (the mixture against the best static TTL), "guard"
                        (the share of protected requests that was lost)
    calm                labels learned since the last drift alarm, or since the beginning
    banks               the promise's books by namespace, those with an alpha of their own; None: everybody else's
    out_of_scope        accesses that river's published models had nothing to say on: outside what they were trained
                        on, so the tables' cells spoke alone
    """

    hits: int
    misses: int
    loads: int
    load_failures: int
    load_seconds: float
    inserts: int
    evictions: int
    expirations: int
    premature: int
    protected: int
    premature_budget: float
    in_flight: int
    stale_served: int
    currsize: float
    maxsize: float
    weights: Mapping[str, float] = field(default_factory=dict)
    drift_alarms: int = 0
    fallback: bool = False
    refreshes: int = 0
    refresh_failures: int = 0
    fallback_reason: str = ""
    alarms: Mapping[str, int] = field(default_factory=dict)
    calm: int = 0
    out_of_scope: int = 0
    banks: Mapping[Hashable, Bank] = field(default_factory=dict)

    @property
    def hit_ratio(self) -> float:
        """hits / requests, or 0 before the first."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else 0.0
