"""adaptcache: a cache that learns the expiry of every key online, and proves that it did not expire it too early."""
from typing import TYPE_CHECKING

from adaptcache.decisionlog import DecisionLog
from adaptcache.decorators import cached
from adaptcache.errors import AdaptcacheError, LogError, RecursiveLoadError, StateError, TraceError
from adaptcache.expiry import Fixed, Idle, Learned, PerEntry, price
from adaptcache.explain import Explanation
from adaptcache.keys import hashkey, methodkey, typedkey
from adaptcache.lru import cache, lru_cache
from adaptcache.mapping import Cache, policies
from adaptcache.recording import Recording, record
from adaptcache.removal import Cause
from adaptcache.sizes import sizeof
from adaptcache.state import merge
from adaptcache.stats import Stats

if TYPE_CHECKING:
    from adaptcache.backends.backend import RedisBackend as RedisBackend

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    # Needs redis-py, which this import must not ask for.
    if name == "RedisBackend":
        from adaptcache.backends.backend import RedisBackend

        return RedisBackend
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "AdaptcacheError", "Cache", "Cause", "DecisionLog", "Explanation", "Fixed", "Idle", "Learned", "LogError", "PerEntry",
    "Recording", "RecursiveLoadError", "StateError", "Stats", "TraceError", "cache", "cached", "hashkey", "lru_cache", "merge", "methodkey", "policies", "price", "record",
    "sizeof", "typedkey",
]
