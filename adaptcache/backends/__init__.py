"""Caches on servers that many processes share: `RedisBackend`, and `Cache(backend=...)` and `cached(backend=...)` on it.

A read: `tiered` (what people hold) makes a plan (`reading`), a generator that yields steps (`steps`) that a driver (`drivers`) runs over
a road (`roads`, `async_roads`) to a server (`clients`). Other plans: `writing`, `removing`, `loading` (one key, under its
lease: `leases`, which `keeper` renews) and `batches` (many keys); they share a `space`, and `versions`. Beside the road: `keys` and `names` (a Python key as bytes, and
where it lies), `header` (what stands before each value), `scripts` (what must be atomic on the server), `deadlines`
(the expiry written there), `breaker`, `debts` (invalidations that could not be delivered), `inbox` (who is woken),
`events`, `traffic` (counts and breakers). Only `clients`, `traffic` and the roads know redis-py; importing this imports it, and
`import adaptcache` does not import this.
"""
from adaptcache.backends.backend import BackendStats, RedisBackend
from adaptcache.backends.breaker import Breaker
from adaptcache.backends.events import Event

__all__ = ("BackendStats", "Breaker", "Event", "RedisBackend")
