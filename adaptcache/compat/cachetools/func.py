"""`cachetools.func` on our core: decorators with the attributes of `functools.lru_cache`, one for each policy.

A result is computed by one thread at a time for each key; others who ask wait for it.
"""
from __future__ import annotations

import random
import time
from collections.abc import Callable, MutableMapping
from math import inf
from threading import Condition
from typing import Any

from adaptcache.compat.cachetools import FIFOCache, LFUCache, LRUCache, RRCache, TTLCache, cached
from adaptcache.compat.cachetools.keys import hashkey, typedkey

__all__ = ("fifo_cache", "lfu_cache", "lru_cache", "rr_cache", "ttl_cache")

Make = Callable[[Any], MutableMapping[Any, Any]]


class _Endless(TTLCache):
    """Without a bound, which `cache_info` calls None."""

    @property
    def maxsize(self) -> Any:
        return None


def _decorated(maxsize: Any, typed: bool, make: Make, boundless: Make = lambda _: {}) -> Any:
    """The decorator for these arguments, or, used bare, the decorated function."""
    if callable(maxsize):
        return _decorated(128, typed, make)(maxsize)

    def decorate(function: Callable[..., Any]) -> Any:
        wrapper: Any = cached(
            (boundless if maxsize is None else make)(maxsize), key=typedkey if typed else hashkey, condition=Condition(), info=True,
        )(function)
        wrapper.cache_parameters = lambda: {"maxsize": maxsize, "typed": typed}
        return wrapper

    return decorate


def fifo_cache(maxsize: Any = 128, typed: bool = False) -> Any:
    """Keep up to `maxsize` results, None: all; the oldest one makes room."""
    return _decorated(maxsize, typed, FIFOCache)


def lfu_cache(maxsize: Any = 128, typed: bool = False) -> Any:
    """Keep up to `maxsize` results, None: all; the one asked for least often makes room."""
    return _decorated(maxsize, typed, LFUCache)


def lru_cache(maxsize: Any = 128, typed: bool = False) -> Any:
    """Keep up to `maxsize` results, None: all; the one not asked for for longest makes room."""
    return _decorated(maxsize, typed, LRUCache)


def rr_cache(maxsize: Any = 128, choice: Callable[[Any], Any] = random.choice, typed: bool = False) -> Any:
    """Keep up to `maxsize` results, None: all; the one that `choice` takes from a list of the keys makes room."""
    return _decorated(maxsize, typed, lambda size: RRCache(size, choice))


def ttl_cache(maxsize: Any = 128, ttl: Any = 600, timer: Callable[[], Any] = time.monotonic, typed: bool = False) -> Any:
    """Keep up to `maxsize` results, None: all, each for `ttl`; the one not asked for for longest makes room."""
    return _decorated(maxsize, typed, lambda size: TTLCache(size, ttl, timer), lambda _: _Endless(inf, ttl, timer))
