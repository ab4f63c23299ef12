"""A pupil: a cache that holds nothing and learns from what a whole fleet was asked.

Each event is replayed on a cache of its own, whose time is that of the events. Its entries are over as soon as they
are stored, so every request is to it what it was to the fleet: one access of one key, after which a value may come in.
Its books mean nothing, and are not handed on: the promise is every worker's own. Knows neither server nor stream.
"""
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from adaptcache.expiry import Learned
from adaptcache.fleet.batches import UNKNOWN, Event
from adaptcache.learn import knowledge
from adaptcache.learn.knowledge import Knowledge
from adaptcache.ledger import GONE, GOT, MISSED, PUT
from adaptcache.mapping import Cache

MOST_KEYS = 20_000      # whose histories travel with a model: the latest ones
REMEMBERED = 1 << 16    # keys whose size and cost are known, for hits
_OVER = 1e-6            # seconds that a pupil's entry lasts
_STEP = 2e-6            # seconds between two events at the least, so that it is over at the next one
SOON = 30.0             # seconds within which a value comes after the request that found none
TRAIN = 256             # events between two steps of training


class Pupil:
    """Learns under the rules of `spec`; `tell` it events in the order of their time.

    even    a key's own expiry is taken for its break-even time (`Ledger(break_even_ttl=True)`)
    """

    def __init__(self, spec: Learned, *, even: bool = False, now: float = 0.0) -> None:
        self.spec = replace(spec, learner="manual", stale=None, digest=None, fail_safe=None)
        self.events = 0
        self._now = self._base = now
        self._known: OrderedDict[int, tuple[float, float | None, Any, Any]] = OrderedDict()
        self._gone: OrderedDict[int, float] = OrderedDict()     # when; not told yet, for what comes next says what it was
        self._even = even
        self._since = 0
        self._open()

    def _open(self) -> None:
        self._base = self._now
        self.cache: Cache[int, None] = Cache(None, expiry=self.spec, timer=self._time, policy="fifo")

    def _time(self) -> float:
        # From the beginning: of the seconds since 1970 a float has no nanoseconds to give.
        return self._now - self._base

    def tell(self, events: Iterable[Event]) -> int:
        """Learn from them; how many those were. An event that is late counts as one of now."""
        cache, known, gone, told = self.cache, self._known, self._gone, 0
        for number, at, what, size, cost, ttl, namespace, features in events:
            self._now = max(at, self._now + _STEP)
            told += 1
            if gone:
                left = gone.pop(number, None)
                if left is not None:
                    if what == PUT:
                        cache.get(number)       # found gone by whoever asked, and loaded at once: a miss
                    elif what != GONE:
                        cache.pop(number, None)
                while gone and next(iter(gone.values())) < self._now - SOON:
                    cache.pop(gone.popitem(last=False)[0], None)
            if what == GOT:
                cache.get(number)
                about = known.get(number)
                if about is not None:
                    known.move_to_end(number)
                    # The value was there, so the miss that the pupil saw was none: it has come in by now.
                    self._set(number, *about)
            elif what == MISSED:
                cache.get(number)
            elif what == GONE:
                gone[number] = self._now
            else:
                paid = None if cost == UNKNOWN else cost
                heavy = 1.0 if size == UNKNOWN else size
                if self._even:
                    heavy = (self.spec.miss_cost if paid is None else paid) / ttl if ttl > 0 else 0.0
                about = known[number] = (heavy, paid, namespace, features)
                known.move_to_end(number)
                if len(known) > REMEMBERED:
                    known.popitem(last=False)
                self._set(number, *about)
            self._since += 1
            if self._since >= TRAIN:
                self._since = 0
                cache.learn()
        self.events += told
        return told

    def _set(self, number: int, size: float, cost: float | None, namespace: Any, features: Any) -> None:
        self.cache.set(number, None, ttl=_OVER, size=size, cost=cost, namespace=namespace, features=features)

    def pass_time(self, now: float) -> None:
        """Nothing was asked until `now`."""
        self._now = max(self._now, now)
        self.cache.learn()

    @property
    def waits(self) -> float:
        """How many waits were learned from, in all its life."""
        return float(self.cache.brain.numbers()["waits"]) if self.cache.brain is not None else 0.0

    @property
    def configuration(self) -> dict[str, Any]:
        """What its models depend on; equal to that of caches that may use them."""
        return self.cache._configuration()

    def knows(self) -> Knowledge:
        """All that was learned, and the histories of the latest keys."""
        assert self.cache._trainer is not None
        # One number stands for all: numbers hash alike in every process.
        known = knowledge.gather(self.cache, self.cache._trainer, self.configuration, (0,))
        if len(known.keys) > MOST_KEYS:
            latest = np.argpartition(known.keys["idle"], MOST_KEYS)[:MOST_KEYS]
            known = replace(known, keys=known.keys[np.sort(latest)])
        return known

    def install(self, known: Knowledge) -> None:
        """Go on from there, with no wait open; ValueError when it was learned under other rules."""
        if known.config != self.configuration:
            raise ValueError(differing(known.config, self.configuration))
        self._open()
        assert self.cache._trainer is not None
        known.install(self.cache, self.cache._trainer)

    def miss_some(self) -> None:
        """Events were lost: what waits now would look as if nobody had asked. Go on with no wait open."""
        self.install(self.knows())


def differing(theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    """In words, where two configurations differ."""
    parts = [f"{name} {theirs.get(name)!r:.80}, here {ours[name]!r:.80}" for name in ours if theirs.get(name) != ours[name]]
    return "learned under another configuration: " + "; ".join(parts)
