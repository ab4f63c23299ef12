"""What came out, as numbers and as sentences for someone who has never heard of any of this.

Terminal and page print the same `Results`; nothing here knows how they look.
"""
from __future__ import annotations

from dataclasses import dataclass

from .service import Contestant, Race, Sample


@dataclass(frozen=True)
class Row:
    """One cache at the end."""

    name: str
    requests: int
    hit_ratio: float
    query_seconds: float
    rent: float
    stale: int

    @property
    def cost(self) -> float:
        """Seconds of queries and rent together."""
        return self.query_seconds + self.rent


@dataclass(frozen=True)
class Promise:
    """The learning cache's promise, and what became of it."""

    premature: float  # α
    protected: int
    lost: int
    in_flight: int
    bound: float
    kept: bool  # at every moment that was sampled


@dataclass(frozen=True)
class Results:
    """The whole run. The first row is the cache that learns; the others have a fixed time to live."""

    rows: tuple[Row, ...]
    foresight: float
    promise: Promise
    weights: dict[str, float]
    samples: tuple[Sample, ...]
    requests: int
    planned: int
    queries: int
    seconds: float  # of real time
    days: float  # of workload time
    shift: float | None  # when habits swapped, in workload seconds; None if the run did not get there
    price: float
    hold: float  # the break-even time of a typical answer
    seed: int

    @property
    def learned(self) -> Row:
        """The cache that learns."""
        return self.rows[0]

    @property
    def best_fixed(self) -> Row:
        """The cheapest of the others, picked in hindsight."""
        return min(self.rows[1:], key=lambda row: row.cost)

    @property
    def saved(self) -> float:
        """Part of the best fixed cache's cost that the learning cache saved; negative if it cost more."""
        return 1 - self.learned.cost / self.best_fixed.cost

    @property
    def gap_closed(self) -> float:
        """How far the learning cache went from the best fixed one towards perfect foresight."""
        room = self.best_fixed.cost - self.foresight
        return (self.best_fixed.cost - self.learned.cost) / room if room > 0 else 0.0


def collect(race: Race, *, planned: int, seconds: float, shift: float, hold: float, premature: float,
            seed: int) -> Results:
    """The results of a race that has been run."""
    now = race.clock.now
    stats = race.contestants[0].cache.stats()
    return Results(
        rows=tuple(_row(contestant, race.requests, now) for contestant in race.contestants),
        foresight=race.foresight.cost,
        promise=Promise(
            premature=premature,
            protected=stats.protected,
            lost=stats.premature,
            in_flight=stats.in_flight,
            bound=stats.premature_budget,
            kept=all(s.lost + s.in_flight <= s.bound + 1e-9 for s in race.samples),
        ),
        weights=dict(sorted(stats.weights.items(), key=lambda item: -item[1])),
        samples=tuple(race.samples),
        requests=race.requests,
        planned=planned,
        queries=race.queries,
        seconds=seconds,
        days=now / 86_400,
        shift=shift if shift < now else None,
        price=race.price,
        hold=hold,
        seed=seed,
    )


def _row(contestant: Contestant, requests: int, now: float) -> Row:
    ledger = contestant.ledger
    return Row(
        name=contestant.name,
        requests=requests,
        hit_ratio=ledger.hits / requests,
        query_seconds=ledger.query_seconds,
        rent=ledger.rent(now),
        stale=ledger.stale,
    )


def summary(r: Results) -> list[str]:
    """The run in plain sentences, whichever way it went."""
    learned, best = r.learned, r.best_fixed
    if r.saved >= 0:
        verdict = (f"The cache that learns paid {learned.cost:.1f} s: {r.saved:.0%} less than the best of the fixed ones "
                   f"({best.name}, {best.cost:.1f} s), which nobody knew beforehand to be the best.")
    else:
        verdict = (f"This time learning lost: it paid {learned.cost:.1f} s, {-r.saved:.0%} more than the best of the fixed ones "
                   f"({best.name}, {best.cost:.1f} s). Nobody knew beforehand which of them would be the best.")
    worst = max(r.rows[1:], key=lambda row: row.cost)
    p = r.promise
    sentences = [
        f"{r.requests:,} requests of a data service, {r.days:.1f} days of its life, went to {len(r.rows)} caches at once. "
        f"Each answer not in a cache was a real database query; {r.queries:,} were run.",
        "Every cache pays for the queries that it did not save, and rent for the memory that it holds. "
        f"Rent is set so that a typical answer is worth holding for {r.hold / 60:.0f} minutes of the service's time. "
        "No cache may serve an answer that is more than an hour old.",
        verdict,
        f"A wrong guess would have been dearer: {worst.name} paid {worst.cost:.1f} s. "
        f"A cache that knew the future would have paid {r.foresight:.1f} s"
        + (f"; learning went {r.gap_closed:.0%} of the way there from the best fixed one." if r.gap_closed > 0 else "."),
        f"The promise: of {p.protected:,} repeated requests that came soon, at most {p.premature:.0%} (and one) may find that "
        f"the entry was dropped too early. {p.lost:,} did, {p.in_flight:,} are still open, {p.bound:.1f} were allowed. "
        + ("It was kept at every moment we looked." if p.kept else "IT WAS BROKEN: please report this with the seed."),
    ]
    if r.shift is not None:
        sentences.append("Half way, everybody's habits changed at once; the plots show what that cost and how long it took to learn anew.")
    if r.requests < r.planned:
        sentences.append(f"Time was up after {r.requests:,} of {r.planned:,} requests: this machine is slower, or busier, than the demo was "
                         "made for, so the numbers cover only the first part of the workload.")
    return sentences
