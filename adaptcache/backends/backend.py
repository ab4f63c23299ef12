"""`RedisBackend`: a server, how to speak to it, and what is known of its health. Caches are made on it.

It owns connections of its own (see `clients`), the breaker, the inbox, the debts and the events; many caches share one
backend, each in a space of its own. It does not know what a cache is.
"""
from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from adaptcache import checks
from adaptcache.backends import clients, names
from adaptcache.backends.async_roads import AsyncClusterRoad, AsyncRoad
from adaptcache.backends.breaker import Breaker
from adaptcache.backends.debts import Debts
from adaptcache.backends.drivers import AsyncDriver, Driver
from adaptcache.backends.events import Event, Events
from adaptcache.backends.inbox import Inbox
from adaptcache.backends.keeper import TIMES, Keeper
from adaptcache.backends.parts import Parts
from adaptcache.backends.roads import ClusterRoad, Road
from adaptcache.backends.space import Codec
from adaptcache.backends.steps import Trouble
from adaptcache.backends.traffic import TROUBLES, Traffic

__all__ = ("BackendStats", "RedisBackend")


@dataclass(frozen=True)
class BackendStats:
    """What a backend counts, of all its caches in this process.

    commands, trips     sent, and in how many round trips
    errors, retries     of commands; of those, how often one was sent again
    breaker             "closed", "open" or "half-open"; in a cluster that of the node that is worst off
    opened, refused     how often it opened, and how many trips it spared
    undelivered         invalidations that the server has not heard of yet: keys, tags and spaces
    delivered           those that it heard of late
    events              kind -> how often (`Event`)
    """

    commands: int
    trips: int
    errors: int
    retries: int
    breaker: str
    opened: int
    refused: int
    undelivered: int
    delivered: int
    events: Mapping[str, int] = field(default_factory=dict)


class RedisBackend:
    """A Redis (7 or later) or Valkey (8 or later) server, Sentinel or Cluster, for `Cache(backend=...)` and `cached(backend=...)`.

    client_or_url   redis.Redis, redis.RedisCluster, one that a Sentinel made, one of redis.asyncio, or a URL: redis://,
                    rediss://, unix://, redis+cluster://, rediss+cluster://, redis+sentinel://HOST:PORT,.../SERVICE. It
                    says where and as whom; the connections are the backend's own, for threads and for every event loop
    prefix          begins every key on the server; without braces and colons
    serializer      adaptcache.wire.Serializer, or an object with its `dumps` and `loads`; None: the default one
    near            adaptcache.near.NearCache: options of the in-process part; None: its defaults; False: no in-process part
    timeout         seconds for a command, and for a connection to be made
    breaker         when to stop asking a server that fails
    lease           seconds until another process takes over the load of one that died. Who lives renews its lease while it loads
    renew           seconds for which a load is renewed: one that takes longer does not keep others from loading, and they wait
                    no longer than that and one lease; None: ten leases; 0: never, and loads longer than `lease` overlap
    outage          seconds for which the result of a load that the server could not take is answered by this process
    connections     at a time, of one event loop
    on_event        called with each `Event`, in whatever thread; if it raises it is logged and hears no more

    `close()`, or `await aclose()` in each event loop that used it, lets go of connections and threads. A backend may be used after a fork:
    the child begins with connections of its own. Used after `close`, it raises RuntimeError.
    """

    def __init__(
        self, client_or_url: Any, *, prefix: str = "adaptcache", serializer: Codec | None = None, near: Any = None,
        timeout: float = 1.0, breaker: Breaker | None = None, lease: float = 10.0, renew: float | None = None,
        outage: float = 5.0, connections: int = 64, on_event: Callable[[Event], object] | None = None,
    ) -> None:
        self.prefix = names.check("prefix", prefix)
        self.timeout = float(checks.seconds("timeout", timeout, zero=False) or 0)
        self.lease = checks.number("lease", lease, "seconds, 0.05 or more, and finite", 0.05, 1e6)
        self.renew = TIMES * self.lease if renew is None else checks.number("renew", renew, "seconds, zero or more, and finite", 0.0, 1e6)
        self.outage = checks.number("outage", outage, "seconds, zero or more, and finite", 0.0, 1e6)
        self.connections = int(checks.number("connections", connections, "a number, 1 or more", 1, 1e6))
        if on_event is not None and not callable(on_event):
            raise TypeError(f"on_event: expected a callable or None, got {type(on_event).__name__}")
        if breaker is not None and not isinstance(breaker, Breaker):
            raise TypeError(f"breaker: expected adaptcache.backends.Breaker or None, got {type(breaker).__name__}")
        if serializer is None:
            from adaptcache.wire import Serializer

            serializer = Serializer()
        for verb in ("dumps", "loads"):
            if not callable(getattr(serializer, verb, None)):
                raise TypeError(f"serializer: expected dumps and loads, got {type(serializer).__name__} without {verb}")
        self.serializer = serializer
        self.near = near
        self.parts = Parts(self.client, self.async_client)
        self.place = clients.place_of(client_or_url)
        self.events = Events(on_event)
        self._traffic = Traffic(breaker or Breaker(), self.events.tell)
        self.debts = Debts(self.events.tell, Trouble)
        self.inbox = Inbox(prefix, self._subscribe, TROUBLES)
        self._lock = threading.RLock()
        self._client: Any = None
        self._drivers: dict[asyncio.AbstractEventLoop, tuple[AsyncDriver, Any]] = {}
        self._driver = Driver((ClusterRoad if self.place.cluster else Road)(self.client, self._traffic), self.inbox)
        self.keeper = Keeper(self.lease, self.renew, self._driver.run, self.events.tell)
        self._closed = self._ended = False
        self.caches: weakref.WeakSet[Any] = weakref.WeakSet()
        _everyone.add(self)

    def __repr__(self) -> str:
        return f"RedisBackend({self.place!r}, prefix={self.prefix!r})"

    # -- ways to the server

    def client(self) -> Any:
        """The redis-py client for threads, made when first asked for."""
        client = self._client
        if client is None:
            with self._lock:
                if self._ended:
                    raise RuntimeError(f"{self!r} is closed")
                if self._client is None:
                    self._client = self.place.client(self.timeout)
                client = self._client
        return client

    def lazy_client(self) -> Any:
        """What stands for `client()` and connects when it is first used: a Cluster's client asks for the nodes when it is made."""
        return _Lazy(self)

    def async_client(self) -> Any:
        """The redis.asyncio client of the running loop."""
        return self._in_loop()[1]

    @property
    def driver(self) -> Driver:
        return self._driver

    def async_driver(self) -> AsyncDriver:
        """The driver of the running loop."""
        return self._in_loop()[0]

    def _in_loop(self) -> tuple[AsyncDriver, Any]:
        loop = asyncio.get_running_loop()
        pair = self._drivers.get(loop)
        if pair is None:
            if self._ended:
                raise RuntimeError(f"{self!r} is closed")
            for closed in [each for each in list(self._drivers) if each.is_closed()]:
                self._drivers.pop(closed, None)     # it ended without `aclose`; nothing of it can be used or closed any more
            client = self.place.async_client(self.timeout)
            road = (AsyncClusterRoad if self.place.cluster else AsyncRoad)(client, self._traffic, asyncio.Semaphore(self.connections))
            pair = AsyncDriver(road, self.inbox), client
            self._drivers[loop] = pair
        return pair

    def _subscribe(self, channel: bytes) -> Any:
        pubsub = self.client().pubsub()
        try:
            pubsub.subscribe(channel)
        except BaseException:
            pubsub.close()
            raise
        return pubsub

    # -- looking and ending

    def stats(self) -> BackendStats:
        """The counters at this moment."""
        traffic = self._traffic
        return BackendStats(
            commands=traffic.commands, trips=traffic.trips, errors=traffic.errors, retries=traffic.retries, breaker=traffic.state,
            opened=traffic.opened, refused=traffic.refused, undelivered=len(self.debts), delivered=self.debts.delivered,
            events=dict(self.events.counts),
        )

    def close(self) -> None:
        """Tell the server what is still owed, then let go of threads and connections. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        for cache in list(self.caches):
            cache.close()
        self.parts.close()
        self.debts.close()
        self.keeper.close()
        self.inbox.close()
        with self._lock:
            self._ended = True
            client, self._client = self._client, None
        self._driver.let_go()
        if client is not None:
            clients.close(client)

    async def aclose(self) -> None:
        """`close`, and the connections of the running loop."""
        loop = asyncio.get_running_loop()
        for cache in list(self.caches):
            await cache.aclose()
        await self.parts.aclose()
        pair = self._drivers.pop(loop, None)
        if pair is not None:
            await clients.aclose(pair[1])
        await loop.run_in_executor(None, self.close)

    def __enter__(self) -> RedisBackend:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> RedisBackend:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _forked(self) -> None:
        """In a child: sockets and threads are the parent's."""
        self._lock = threading.RLock()
        self._client = None
        self._drivers = {}
        self.parts.forked()
        self.inbox.forked()
        self.debts.forked()
        self.keeper.forked()
        self.events.forked()
        self._traffic.forked()
        self._driver.forked()
        for cache in list(self.caches):
            cache._lock = threading.RLock()


class _Lazy:
    def __init__(self, backend: RedisBackend) -> None:
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        if name == "nodes_manager" and not self._backend.place.cluster:
            raise AttributeError(name)
        return None if name == "nodes_manager" else getattr(self._backend.client(), name)


_everyone: weakref.WeakSet[RedisBackend] = weakref.WeakSet()


def _after_fork() -> None:
    for backend in list(_everyone):
        backend._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
