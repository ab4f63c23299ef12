"""The tier: values under leases, in a Cache. What may be stored, and what may be served.

**Lease.** An entry is stored together with the lease of the server that it came from, and is served while the clock
is before `lease.until`. Whoever listens to that server moves `until` on; ending a lease (`until` = -inf) takes back every
entry under it at once, however many there are. A lease that has ended never begins again: there is a new one.

**Tickets.** A reader takes a ticket before it asks the server and hands it back with the value. Keys are spread over
stripes, each with a counter that moves at every invalidation of a key of the stripe (versioned stripes, as in
Dice, Shalev and Shavit's TL2, DISC 2006). A value is stored only if the counter has not moved since, so a value that was invalidated
while it was on its way is not stored. Nothing is kept of a ticket: one that never comes back costs nothing. The price is a value not
stored when another key of the same stripe was invalidated meanwhile.

This file knows no protocol, no connection and no thread but the lock around stores and invalidations.
"""
from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, NamedTuple

from adaptcache import checks
from adaptcache.mapping import Cache
from adaptcache.near.options import NearCache

STRIPES = 1 << 14
# The Cache's own clock is coarse, and lags by at most one tick of the kernel's.
TICK = 0.01
BATCH = 256                 # invalidations under one hold of the lock
OVER = -math.inf


class Lease:
    """The right to serve what came from one server, until a time of `Tier.clock`."""

    __slots__ = ("until",)

    def __init__(self, until: float = OVER) -> None:
        self.until = until


class Ticket(NamedTuple):
    """One read on its way."""

    key: bytes
    lease: Lease
    stripes: list[int]
    stripe: int
    version: int
    began: float


@dataclass(frozen=True)
class NearStats:
    """Counters of a near tier at one moment.

    ready           values are served: a server has answered within the window (cluster: at least one of them)
    hits, misses    of `get`; a miss is also a get while the tier may not serve
    stores, refused values stored, and not: invalidated while they were on their way, no lease, too large, or past their ttl
    invalidations   keys named by servers, held or not
    flushes         messages of servers that everything is invalid
    connects, losses    tracking connections that began to serve, and those that ended
    evictions       entries pushed out by capacity
    currsize, maxsize   in the unit of `maxsize`; of a cluster, entries of a node that was lost count until they are met
    nodes           servers that are listened to
    error           why the last connection was lost or could not be had, or ""
    """

    ready: bool
    hits: int
    misses: int
    stores: int
    refused: int
    invalidations: int
    flushes: int
    connects: int
    losses: int
    evictions: int
    currsize: float
    maxsize: float
    nodes: int
    error: str

    @property
    def hit_ratio(self) -> float:
        """hits / gets, or 0 before the first."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else 0.0


class Tier:
    """Entries, their leases, and the counters. Safe to use from several threads."""

    def __init__(self, options: NearCache, prefixes: Sequence[bytes] = (), clock: Callable[[], float] = monotonic) -> None:
        self.options = options
        self.prefixes = tuple(prefixes)
        self.clock = clock
        self.reset()

    def reset(self) -> None:
        """Empty, with new locks and counters: for a new tier, and for the child of a fork."""
        self._lock = threading.RLock()      # what is dropped under it may have a finalizer that comes back here
        self.lease_of: Callable[[bytes], Lease] = _nobody
        self.leases: Callable[[], Iterable[Lease]] = tuple
        self.covers: Callable[[], int] = _nothing       # so many of `prefixes`, from the first on, do all servers tell of that hold a lease
        self.stores = self.refused = self.unserved = self.invalidations = self.flushes = self.connects = self.losses = 0
        self.error = ""
        self._before = [0, 0, 0]        # hits, misses, evictions of the Caches that were emptied
        self._renew()

    def _renew(self) -> None:
        self._stripes = [0] * STRIPES
        self._cache: Cache[bytes, tuple[Lease, Any]] = Cache(self.options.maxsize, policy=self.options.policy)
        self._find = self._cache.get

    # -- for readers

    def get(self, key: bytes, default: Any = None) -> Any:
        """The value of a key, or `default`. Touches no socket and waits for nobody."""
        held = self._find(key)
        if held is not None:
            # The clock is read after the look-up: what is served was the entry at a moment of the lease.
            if self.clock() < held[0].until:
                return held[1]
            self._unserved(key, held)
        return default

    def both(self, key: bytes, other: bytes) -> tuple[Any, Any] | None:
        """The values of two keys at one moment, or None if not both are there: what `get` does, and one look at the clock."""
        find = self._find
        first = find(key)
        if first is None:
            return None
        second = find(other)
        if second is None:
            return None
        now = self.clock()
        if now < first[0].until and now < second[0].until:
            return first[1], second[1]
        for place, held in ((key, first), (other, second)):
            if now >= held[0].until:
                self._unserved(place, held)
        return None

    def begin(self, key: bytes) -> Ticket | None:
        """A ticket for a read that is sent from now on; None while nothing may be stored. It need not be handed back."""
        if not isinstance(key, bytes):
            raise TypeError(f"key: expected bytes, as the server names it, got {type(key).__name__}")
        lease = self.lease_of(key)
        now = self.clock()
        if not now < lease.until or (self.prefixes and not key.startswith(self.prefixes)):
            return None
        stripe = hash(key) & STRIPES - 1
        stripes = self._stripes
        return Ticket(key, lease, stripes, stripe, stripes[stripe], now)

    def put(self, ticket: Ticket | None, value: Any, *, ttl: float | None = None) -> bool:
        """Store what the read came to; False if it may not be: an invalidation came between, there is no lease, or no room.

        `ttl`: seconds that the server gives the value from the read on; it counts from `begin`, so the tier never outlives it.
        """
        ttl = checks.seconds("ttl", ttl, none=True)
        if ticket is None:
            self.refused += 1
            return False
        if ttl is not None:
            ttl -= self.clock() - ticket.began + TICK
        size = self.options.weigh(ticket.key, value)
        with self._lock:
            # A lease may end at any moment, without the lock: then the entry is never served.
            if (ticket.stripes is not self._stripes or ticket.stripes[ticket.stripe] != ticket.version
                    or not self.clock() < ticket.lease.until or (ttl is not None and ttl <= 0.0)):
                self.refused += 1
                return False
            try:
                self._cache.set(ticket.key, (ticket.lease, value), ttl=ttl, size=size)
            except ValueError as error:
                if str(error) != "value too large":
                    raise
                self._cache.pop(ticket.key, None)
                self.refused += 1
                return False
            self.stores += 1
            return True

    def forget(self, key: bytes) -> None:
        """Drop a key, and what reads on their way bring of it: for one's own write, once it was acknowledged."""
        with self._lock:
            self._stripes[hash(key) & STRIPES - 1] += 1
            self._cache.pop(key, None)

    def clear(self) -> None:
        """Drop everything, and what reads on their way bring."""
        with self._lock:
            cache = self._cache
            for at, count in enumerate(_counts(cache)):
                self._before[at] += count
            self._renew()
        # Out of the lock: the last reference to what was held goes here.
        del cache

    def _unserved(self, key: bytes, held: tuple[Lease, Any]) -> None:
        self.unserved += 1
        if held[0].until == OVER:
            # What another thread may have stored meanwhile goes too: a cache may forget.
            with self._lock:
                self._cache.pop(key, None)

    # -- for those who listen to servers

    def invalidate(self, keys: Sequence[bytes]) -> None:
        """Keys that a server has named. When this returns, no value of theirs from before is ever served again."""
        for start in range(0, len(keys), BATCH):
            with self._lock:
                stripes, pop = self._stripes, self._cache.pop
                for key in keys[start:start + BATCH]:
                    stripes[hash(key) & STRIPES - 1] += 1
                    pop(key, None)
        self.invalidations += len(keys)

    # -- for people

    @property
    def ready(self) -> bool:
        """May values be served? Of a cluster: those of at least one node."""
        now = self.clock()
        return any(now < lease.until for lease in self.leases())

    def stats(self) -> NearStats:
        with self._lock:
            cache = self._cache
            hits, misses, evictions = (before + now for before, now in zip(self._before, _counts(cache), strict=True))
            now = self.clock()
            held = [now < lease.until for lease in self.leases()]
            return NearStats(
                ready=any(held), hits=hits - self.unserved, misses=misses + self.unserved, stores=self.stores, refused=self.refused,
                invalidations=self.invalidations, flushes=self.flushes, connects=self.connects, losses=self.losses,
                evictions=evictions, currsize=cache.currsize, maxsize=cache.maxsize, nodes=sum(held), error=self.error,
            )


def _counts(cache: Cache[Any, Any]) -> tuple[int, int, int]:
    stats = cache.stats()
    return stats.hits, stats.misses, stats.evictions


_NOBODYS = Lease()


def _nothing() -> int:
    return 0


def _nobody(key: bytes) -> Lease:
    return _NOBODYS
