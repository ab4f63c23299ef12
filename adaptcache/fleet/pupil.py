"""A pupil: a cache without values that learns from what a whole fleet was asked.

Each event is replayed on a cache of its own, whose time is that of the events, as the request, write or removal that it was. The
pupil lets nothing go (its floor is for ever), so it never misses what the fleet had. What the fleet missed it must miss too: it asks
under another key of the same hash, for the learner knows keys by their hash, and nothing but the request is learned. Keys that
nobody uses any more are pushed out by capacity, which says nothing of them. Its books mean nothing, and are not handed on: the promise is every
worker's own. Knows neither server nor stream.
"""
from __future__ import annotations

import math
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
from adaptcache.removal import Cause

MOST_KEYS = 20_000      # whose histories travel with a model: the latest ones
HELD = 1 << 16          # keys held at once
SOON = 30.0             # seconds within which a value comes after the request that found none
SEEN = 0.01             # and within which one tells of a value that one has just found
TRAIN = 256             # events between two steps of training


class _Key:
    """Stands for a key of the fleet, as long as its value is there; equal to no other."""

    __slots__ = ("asked", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.asked = -math.inf      # when it was last found

    def __hash__(self) -> int:
        return self.number


class Pupil:
    """Learns under the rules of `spec`; `tell` it events in the order of their time.

    even    a key's break-even time is its own expiry times this (`Ledger(break_even_ttl=...)`); 0: it follows from cost and size
    """

    def __init__(self, spec: Learned, *, even: float = 0.0) -> None:
        self.spec = replace(spec, learner="manual", floor=math.inf, ceiling=None, stale=None, digest=None, fail_safe=None)
        self.events = 0
        self._now = self._base = -math.inf      # nothing was asked yet
        self._held: dict[int, _Key] = {}
        self._gone: OrderedDict[int, float] = OrderedDict()     # when; not told yet, for what comes next says what it was
        self._even = even
        self._since = 0
        self._open()

    def _open(self) -> None:
        self._base = self._now
        self._held = {}
        self.cache: Cache[_Key, None] = Cache(None, expiry=self.spec, timer=self._time, policy="lru", on_removal=self._left)

    def _left(self, key: _Key, value: None, cause: Cause, at: float) -> None:
        if self._held.get(key.number) is key:
            del self._held[key.number]

    def _time(self) -> float:
        # From the beginning: of the seconds since 1970 a float has no nanoseconds to give.
        return 0.0 if self._base == -math.inf else self._now - self._base

    def tell(self, events: Iterable[Event]) -> int:
        """Learn from them; how many those were. An event that is late counts as one of now."""
        cache, held, gone, told = self.cache, self._held, self._gone, 0
        for number, at, what, size, cost, ttl, namespace, features in events:
            if self._base == -math.inf:
                self._base = at
            self._now = max(at, self._now)
            told += 1
            if gone:
                left = gone.pop(number, None)
                if left is not None:
                    if what == PUT:
                        self._missed(number)    # found gone by whoever asked, and loaded at once
                    elif what != GONE:
                        self._removed(number)
                while gone and next(iter(gone.values())) < self._now - SOON:
                    self._removed(gone.popitem(last=False)[0])
            if what == GOT:
                key = held.get(number)
                if key is None:
                    cache.get(_Key(number))
                else:
                    cache.get(key)
                    key.asked = at
            elif what == MISSED:
                self._missed(number)
            elif what == GONE:
                gone[number] = self._now
            else:
                paid = None if cost == UNKNOWN else cost
                heavy = 1.0 if size == UNKNOWN else size
                if self._even:      # all misses count alike, as in the ledger
                    paid, heavy = None, self.spec.miss_cost / (ttl * self._even) if ttl > 0 else 0.0
                key = held.get(number)
                if key is not None and at - key.asked < SEEN:
                    continue        # a worker that begins to follow a key says what it found; nothing was written
                key = key or _Key(number)
                cache.set(key, None, size=heavy, cost=paid, namespace=namespace, features=features)
                held[number] = key
                if len(cache) > HELD:
                    self._shrink()
            self._since += 1
            if self._since >= TRAIN:
                self._since = 0
                cache.learn()
        self.events += told
        return told

    def _missed(self, number: int) -> None:
        self._held.pop(number, None)
        self.cache.get(_Key(number))

    def _removed(self, number: int) -> None:
        self.cache.pop(self._held.get(number) or _Key(number), None)

    def _shrink(self) -> None:
        """Push out an eighth of what is held, those that were used longest ago."""
        self.cache.resize(self.cache.currsize * 0.875)
        self.cache.resize(None)
        if len(self.cache) > HELD:      # of no size at all
            self.install(self.knows())

    def pass_time(self, now: float) -> None:
        """Nothing was asked until `now`."""
        if self._base > -math.inf:
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
