"""One cache's place on a server, as this process knows it: its names, and what reading, writing, removing and loading share.

Nothing here asks the server. What this process changes is told here first (`changed`), so that neither the part in this process nor
the shelf serves anything older.
"""
from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from adaptcache.backends.deadlines import Deadlines
from adaptcache.backends.debts import Debts
from adaptcache.backends.events import Events
from adaptcache.backends.keys import encode
from adaptcache.backends.names import Name, Names
from adaptcache.backends.steps import Trouble
from adaptcache.flights import MISSING
from adaptcache.mapping import Cache

HINTS = 65_536          # keys whose tags this process remembers


class Codec(Protocol):
    """Values as bytes and back (adaptcache.wire)."""

    def dumps(self, value: Any, *, birth: float, soft: float | None = ..., hard: float | None = ..., cost: float = ...,
              digest: int | None = ..., context: bytes = ...) -> bytes: ...
    def loads(self, data: bytes, *, context: bytes = ...) -> Any: ...


class Wanted:
    """What the caller said about a value: the keywords of `set`."""

    __slots__ = ("cost", "features", "namespace", "size", "tags", "ttl")

    def __init__(self, ttl: float | None = None, cost: float | Callable[[], float] | None = None, size: float | None = None, namespace: Any = None,
                 features: Any = None, tags: tuple[str, ...] = ()) -> None:
        self.ttl = ttl
        self.cost = cost
        self.size = size
        self.namespace = namespace
        self.features = features
        self.tags = tags


class Near(Protocol):
    """The part in this process (adaptcache.near), kept coherent by the server."""

    get: Callable[..., Any]
    both: Callable[[bytes, bytes], tuple[Any, Any] | None]

    def begin(self, key: bytes) -> Any: ...
    def put(self, ticket: Any, value: Any, *, ttl: float | None = ...) -> bool: ...
    def forget(self, key: bytes) -> None: ...
    def clear(self) -> None: ...


class Counted:
    """What one cache counts of its keys."""

    __slots__ = ("alone", "hits", "inserts", "load_failures", "load_seconds", "loads", "misses", "sheltered", "waits")

    def __init__(self) -> None:
        self.hits = self.misses = self.inserts = self.loads = self.load_failures = 0
        self.load_seconds = 0.0
        self.waits = 0          # for another process's load
        self.alone = 0          # loads without the server
        self.sheltered = 0      # answers from the shelf


class Space:
    """One cache's keys on the server."""

    def __init__(self, names: Names, codec: Codec, deadlines: Deadlines, debts: Debts, events: Events, *, outage: float,
                 cluster: bool, shelf: int) -> None:
        self.names = names
        self.codec = codec
        self.deadlines = deadlines
        self.debts = debts
        self.events = events
        self.cluster = cluster
        self.counted = Counted()
        self.generations: dict[bytes, bytes] = {}       # as this process read or wrote them last
        self.tags: Cache[bytes, tuple[str, ...]] = Cache(HINTS, policy="sieve")     # of keys, as this process saw them last
        self.nears: list[Near] = []     # the parts in this process: one for threads, one for each event loop
        self.epoch = 0                  # of invalidations by this process: what was loaded before one is not sheltered after it
        # Results of loads that the server could not take.
        self._shelf: Cache[bytes, Any] = Cache(shelf, policy="lru", expiry=outage)

    def name(self, key: Any) -> Name:
        return self.names.of(encode(key))

    def owes(self, name: Name) -> bool:
        """Is there something that the server has not heard of this key, so that it must not be asked for it?"""
        return bool(self.debts) and self.debts.blocks(name, self.names.space)

    def changed(self, names: Sequence[Name] | None) -> None:
        """This process writes or invalidates: nothing older may be served from here. Before, and again after, the server knows."""
        self.epoch += 1
        if names is None:
            self._shelf.clear()
            for near in self.nears:
                near.clear()
            return
        for name in names:
            self._shelf.pop(name.value, None)
            for near in self.nears:
                near.forget(name.value)

    def shelter(self, key: Any, name: Name, value: Any, ttl: float | None, epoch: int) -> None:
        """Keep what was loaded since `epoch` and the server could not take, no longer than it would have been served from there."""
        now = time.time()
        hard = self.deadlines.hard(key, value, ttl, now)
        if epoch == self.epoch and (hard is None or hard > now):
            self._shelf.set(name.value, value, ttl=None if hard is None else hard - now)

    def sheltered(self, name: Name) -> Any:
        """What was loaded lately and the server could not take, or MISSING."""
        kept = self._shelf.get(name.value, MISSING)
        if kept is not MISSING:
            self.counted.sheltered += 1
        return kept

    def failed(self, kind: str, key: Any, trouble: Trouble) -> None:
        self.events.tell(kind, key, trouble.error)

    def count(self, hit: bool) -> None:
        if hit:
            self.counted.hits += 1
        else:
            self.counted.misses += 1
