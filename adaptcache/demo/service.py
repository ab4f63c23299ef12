"""The service of the demo: the same requests to several caches in front of one database.

Time is the workload's: some days of it pass in one minute. A request takes no time of it, so the
caches are compared at the same moments and a fast machine sees the same hits as a slow one, but for
what the learning cache makes of measured query times.
"""
from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, cast

import adaptcache

from ..simulate.pipeline import Request
from .database import Database
from .ledger import OVERHEAD, Foresight, Held, Ledger


class WorkClock:
    """Seconds of the workload; set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Query:
    """One request's query: run when the first cache misses, its result and time shared by the others.

    Charging every cache that misses the same measured seconds compares like with like, and saves
    the demo from running one query once per cache.
    """

    def __init__(self, database: Database, request: Request) -> None:
        self._database = database
        self._request = request
        self._done: tuple[bytes, float] | None = None

    def result(self) -> tuple[bytes, float]:
        """The answer and the seconds that it took."""
        if self._done is None:
            start = perf_counter()
            body = self._database.answer(self._request)
            self._done = body, perf_counter() - start
        return self._done

    @property
    def measured(self) -> tuple[float, int] | None:
        """(seconds, size) if the query was run."""
        return None if self._done is None else (self._done[1], len(self._done[0]) + OVERHEAD)


class Contestant:
    """The query function under `cached` with one expiry, and its account."""

    def __init__(self, name: str, expiry: Any, price: float, clock: WorkClock) -> None:
        self.name = name
        self.ledger = Ledger(price)
        self._clock = clock
        self._asked: tuple[Request, Query]
        self._loaded: Held | None = None

        # What the service knows of a call beyond its arguments: the learner is told of it.
        def features(*call: object) -> Mapping[str, float | int | str]:
            return self._asked[0].features

        def cost(*call: object) -> float:
            return self._asked[1].result()[1]

        @adaptcache.cached(
            maxsize=None, getsizeof=lambda value: value.size, policy="sieve", expiry=expiry, timer=clock,
            on_removal=self._removed, namespace=lambda function, *arguments: function, features=features, cost=cost,
        )
        def answer(function: str, *arguments: object) -> Held:
            request, query = self._asked
            self._loaded = held = Held(query.result()[0], request.version, clock.now)
            return held

        self._answer = answer
        self.cache = cast("adaptcache.Cache[Hashable, Held]", answer.cache)

    def _removed(self, key: Hashable, value: Held, cause: object, at: float) -> None:
        self.ledger.removed(value, at)

    def ask(self, request: Request, query: Query) -> None:
        """Answers a request, out of the cache or by the query."""
        call = (request.function, *request.arguments.values())
        self._asked = request, query
        self._loaded = None
        value = self._answer(*call)
        if self._loaded is None:
            self.ledger.hit(value, request.version, self._clock.now)
            return
        self.ledger.loaded(value, query.result()[1])
        if self._answer.cache_key(*call) not in self.cache:
            # Not worth keeping for a moment; a cache need not call that a removal.
            self.ledger.removed(value, self._clock.now)


@dataclass
class Sample:
    """How everything stood at one moment."""

    time: float
    requests: int
    hits: list[int]
    costs: list[float]  # by contestant
    foresight: float
    lost: int
    in_flight: int
    bound: float
    weights: dict[str, float]


@dataclass
class Race:
    """The contestants, and how they fared so far. The first is the one that learns."""

    database: Database
    contestants: list[Contestant]
    clock: WorkClock
    price: float
    foresight: Foresight = field(init=False)
    requests: int = 0
    queries: int = 0
    samples: list[Sample] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.foresight = Foresight(self.price)

    def run(self, requests: list[Request], *, seconds: float, samples: int = 240,
            timer: Callable[[], float] = perf_counter) -> Iterator[Sample]:
        """Drives the requests until they or `seconds` of real time are over; yields at even steps of the way."""
        end = timer() + seconds
        step = max(1, len(requests) // samples)
        for request in requests:
            self.clock.now = request.time
            query = Query(self.database, request)
            for contestant in self.contestants:
                contestant.ask(request, query)
            self.foresight.asked(request.key, request.time, query.measured)
            self.requests += 1
            self.queries += query.measured is not None
            if self.requests % step == 0 or self.requests == len(requests):
                yield self._sample()
                if timer() > end:
                    break

    def _sample(self) -> Sample:
        now = self.clock.now
        self.contestants[0].cache.learn()
        for contestant in self.contestants:
            contestant.cache.expire()  # so that nothing overdue pays rent
        stats = self.contestants[0].cache.stats()
        self.samples.append(Sample(
            time=now,
            requests=self.requests,
            hits=[c.ledger.hits for c in self.contestants],
            costs=[c.ledger.cost(now) for c in self.contestants],
            foresight=self.foresight.cost,
            lost=stats.premature,
            in_flight=stats.in_flight,
            bound=stats.premature_budget,
            weights=dict(stats.weights),
        ))
        return self.samples[-1]


def typical_price(database: Database, requests: list[Request], hold: float, sample: int = 300) -> float:
    """The price of memory at which holding a typical answer for `hold` seconds costs what computing it does.

    Measured on requests spread over the workload. A price in proportion to this machine's query times
    keeps the comparison the same on fast and slow machines.
    """
    worth = []
    for request in requests[:: max(1, len(requests) // sample)]:
        seconds, size = _measured(database, request)
        worth.append(seconds / size)
    return sorted(worth)[len(worth) // 2] / hold


def _measured(database: Database, request: Request) -> tuple[float, int]:
    query = Query(database, request)
    seconds = query.result()[1]
    return seconds, len(query.result()[0]) + OVERHEAD


def contestants(price: float, clock: WorkClock, *, fixed: dict[str, float], oldest: float, premature: float,
                seed: int) -> list[Contestant]:
    """The cache that learns, then one per fixed time to live. No answer of any gets older than `oldest`."""
    learned = adaptcache.Learned(
        memory_price=price, ceiling=oldest, premature=premature, learner="manual", seed=seed
    )
    return [
        Contestant("learned", learned, price, clock),
        *(Contestant(f"fixed, {name}", adaptcache.Fixed(ttl), price, clock) for name, ttl in fixed.items()),
    ]
