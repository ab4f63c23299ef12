"""Results of a decorated function in a `TieredCache`: what `decorators` needs of a store, on a server.

A call asks the part in this process first, without a socket; all else is the cache's `_load` and `_aload`, which
ask the server, load once over all processes, and store.
"""
from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from functools import _CacheInfo, partial
from typing import TYPE_CHECKING, Any

from adaptcache.backends.space import Wanted
from adaptcache.flights import MISSING

if TYPE_CHECKING:
    from adaptcache.backends.tiered import TieredCache


class TieredStore:
    """One function's results."""

    refresher = None

    def __init__(self, cache: TieredCache[Any, Any], ttl: float | None, namespace: Any, features: Callable[..., Any], cost: Any,
                 tags: Any) -> None:
        self.cache = cache
        self.get = cache._held
        self.flights = _Loads(cache, self._wanted)
        self._ttl = ttl
        self._namespace = namespace
        self._features = features
        self._cost = cost
        self._tags = tags
        self._counted = (0, 0)

    def _wanted(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Wanted:
        from adaptcache.backends.tiered import checked_tags

        return Wanted(
            self._ttl, partial(self._cost, *args, **kwargs) if callable(self._cost) else self._cost, None,
            self._namespace(*args, **kwargs) if callable(self._namespace) else self._namespace,
            self._features(*args, **kwargs), checked_tags(self._tags(*args, **kwargs) if callable(self._tags) else self._tags),
        )

    def compiled(self) -> None:
        """What is held here is not in the core's store."""

    def ask(self, key: Hashable) -> tuple[Any, bool]:
        return self.get(key, MISSING), False

    def recheck(self, key: Hashable) -> Any:
        return MISSING      # the load looks by itself

    def put(self, *_: Any) -> None:
        """The load stores by itself."""

    renew = put

    def remove(self, key: Hashable) -> bool:
        return self.cache.delete(key) is True

    async def aremove(self, key: Hashable) -> bool:
        return await self.cache.adelete(key) is True

    def clear(self) -> None:
        self.cache.clear()
        self._uncount()

    async def aclear(self) -> None:
        await self.cache.aclear()
        self._uncount()

    def _uncount(self) -> None:
        stats = self.cache.stats()
        self._counted = stats.hits, stats.misses

    def info(self) -> _CacheInfo:
        """Of this process; `currsize` too."""
        stats = self.cache.stats()
        hits, misses = self._counted
        return _CacheInfo(stats.hits - hits, stats.misses - misses, self.maxsize(), int(stats.currsize))

    def maxsize(self) -> Any:
        return None if self.cache.maxsize == float("inf") else self.cache.maxsize


class _Loads:
    """`Flights` as `decorators` calls them, over all processes."""

    def __init__(self, cache: TieredCache[Any, Any], wanted: Callable[[tuple[Any, ...], dict[str, Any]], Wanted]) -> None:
        self._cache = cache
        self._wanted = wanted
        self.forget = cache._flights.forget
        self.forget_all = cache._flights.forget_all

    def load(self, key: Hashable, function: Callable[..., Any], put: Any, recheck: Any, args: tuple[Any, ...],
             kwargs: dict[str, Any]) -> Any:
        return self._cache._load(key, partial(function, *args, **kwargs), self._wanted(args, kwargs))

    async def aload(self, key: Hashable, loader: partial[Awaitable[Any]], put: Any, recheck: Any) -> Any:
        return await self._cache._aload(key, loader, self._wanted(loader.args, loader.keywords))
