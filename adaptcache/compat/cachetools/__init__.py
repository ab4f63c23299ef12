"""cachetools' classes on our core: `from adaptcache.compat.cachetools import LRUCache, cached`.

The semantics are those of cachetools 8, and its own tests pass here; docs/cachetools.md says what differs. What lives
here is names, signatures and copying; what the caches do is `_core.Classic`, and the decorators and keys are cachetools' own.
This file must not know how anything is kept.
"""
from __future__ import annotations

import copy
import copyreg
import random
import time
from collections import namedtuple
from collections.abc import MutableMapping
from reprlib import recursive_repr
from types import GenericAlias

import cachetools
from cachetools import cached, cachedmethod

from adaptcache import _core
from adaptcache.compat.cachetools import keys

__all__ = (
    "Cache", "CacheInfo", "FIFOCache", "LFUCache", "LRUCache", "RRCache", "TLRUCache", "TTLCache", "cached", "cachedmethod", "func",
    "keys",
)


CacheInfo = cachetools.CacheInfo if hasattr(cachetools, "CacheInfo") else namedtuple("CacheInfo", "hits misses maxsize currsize")

_maxsize = _core.Classic.maxsize.__get__    # whatever a subclass calls its own


class Cache(_core.Classic, MutableMapping):
    """A mapping that holds at most `maxsize`, or what `getsizeof` of its values sums up to; the first one in leaves first.

    maxsize     zero or more, math.inf: unbounded. ValueError("value too large") for what cannot fit, and nothing changes
    getsizeof   size of a value, zero or more; a subclass may define it instead

    A base for caches of your own: evictions call `popitem`, `[]` calls `__missing__`, `get` calls `__contains__` and
    `__getitem__`, and so on, where a subclass overrides these.
    """

    __class_getitem__ = classmethod(GenericAlias)

    getsizeof = staticmethod(_core.one)

    def __init__(self, maxsize, getsizeof=None):
        self._begin(maxsize, getsizeof, generic=True)

    def _begin(self, maxsize, getsizeof, **manner):
        _core.Classic.__init__(self, maxsize, getsizeof, **manner)
        if getsizeof is not None:
            self.getsizeof = getsizeof

    @recursive_repr()
    def __repr__(self):
        currsize = self.currsize        # first: it lets go of what has expired
        return f"{type(self).__name__}({dict(self._pairs_held())!r}, maxsize={_maxsize(self)!r}, currsize={currsize!r})"

    # Copies. The core's state goes its own way, so that subclasses may define `__getstate__` and `__setstate__`
    # for their attributes, as they do for cachetools.

    def __copy__(self):
        new = type(self).__new__(type(self))
        state = self._state()
        state["options"]["clock"] = copy.copy(state["options"]["clock"])
        new._revive(state)
        new.__dict__.update(self.__dict__)
        return new

    def __deepcopy__(self, memo):
        memo[id(self)] = new = type(self).__new__(type(self))
        _become(new, copy.deepcopy((self._state(), self.__getstate__()), memo))
        return new

    def __reduce_ex__(self, protocol):
        return copyreg.__newobj__, (type(self),), (self._state(), self.__getstate__()), None, None, _become

    def __getstate__(self):
        return self.__dict__

    def __setstate__(self, state):
        self.__dict__.update(state)


def _become(cache, states):
    core, own = states
    cache._revive(core)
    cache.__setstate__(own)
    cache.expire()


class FIFOCache(Cache):
    """The first in leaves first; storing a key again puts it last."""

    def __init__(self, maxsize, getsizeof=None):
        self._begin(maxsize, getsizeof, rewrites=True)


class LFUCache(Cache):
    """The one used least often leaves first, and of those the one that has been used so often for longest."""

    def __init__(self, maxsize, getsizeof=None):
        self._begin(maxsize, getsizeof, policy="lfu")


class LRUCache(Cache):
    """The one not used for longest leaves first."""

    def __init__(self, maxsize, getsizeof=None):
        self._begin(maxsize, getsizeof, policy="lru")


class RRCache(Cache):
    """The one that `choice` takes from a list of the keys leaves first."""

    def __init__(self, maxsize, choice=random.choice, getsizeof=None):
        self._begin(maxsize, getsizeof, choice=choice, choice_by_number=choice is random.choice)

    @property
    def choice(self):
        """The function that was given."""
        return self._choice


class TTLCache(Cache):
    """As LRUCache, and nothing is served `ttl` after it was stored, or later.

    `timer` gives the time, in anything that a `ttl` can be added to and that can be compared.
    """

    def __init__(self, maxsize, ttl, timer=time.monotonic, getsizeof=None):
        self._begin(maxsize, getsizeof, policy="lru", clock=_core.Clock(timer), ttl=ttl)

    @property
    def ttl(self):
        """The time to live that was given."""
        return self._ttl


class TLRUCache(Cache):
    """As LRUCache, and nothing is served at `ttu(key, value, now)`, asked for when it is stored, or later.

    What would be over at once is not stored, and what was held under its key is not held any more.
    """

    def __init__(self, maxsize, ttu, timer=time.monotonic, getsizeof=None):
        self._begin(maxsize, getsizeof, policy="lru", clock=_core.Clock(timer), ttu=ttu)

    @property
    def ttu(self):
        """The function that was given."""
        return self._ttu


# cachetools loads its wrappers when they are first wanted, by a name that may be ours by then: load them now.
cached({})(len)
cachedmethod(id)(len)

# To whoever asks, these are cachetools' own: its decorators do, for `cache_info`.
for _ours in (Cache, FIFOCache, LFUCache, LRUCache, RRCache, TLRUCache, TTLCache):
    getattr(cachetools, _ours.__name__).register(_ours)

from adaptcache.compat.cachetools import func  # noqa: E402  (it needs what is above)
