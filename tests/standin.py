"""A plain stand-in for `adaptcache.cache`, until the real one is there. Delete it then.

It keeps what the decorator uses: `get` counts, `in` does not, `set` takes what a learner wants.
"""
import time
from collections.abc import MutableMapping
from types import SimpleNamespace

from adaptcache.flights import Flights


class Cache(MutableMapping):
    def __init__(self, maxsize, getsizeof=None, *, policy="sieve", expiry=None, timer=None, on_removal=None):
        if policy not in ("sieve", "lru"):
            raise ValueError(f"unknown policy {policy!r}")
        self.maxsize = maxsize
        self.getsizeof = getsizeof or (lambda value: 1)
        self.timer = timer or time.monotonic
        self.hits = self.misses = 0
        self._entries = {}
        self._flights = Flights()

    def _live(self, key):
        entry = self._entries.get(key)
        return entry is not None and self.timer() < entry[1]

    def __contains__(self, key):
        return self._live(key)

    def __getitem__(self, key):
        if not self._live(key):
            raise KeyError(key)
        return self._entries[key][0]

    def get(self, key, default=None):
        if self._live(key):
            self.hits += 1
            return self._entries[key][0]
        self.misses += 1
        return default

    def set(self, key, value, *, ttl=None, cost=None, size=None, namespace=None, features=None):
        size = self.getsizeof(value)
        if self.maxsize is not None:
            if size > self.maxsize:
                raise ValueError("value too large")
            while self._entries and self.currsize + size > self.maxsize:
                del self._entries[next(iter(self._entries))]
        self._entries[key] = (value, self.timer() + (float("inf") if ttl is None else ttl))

    def __setitem__(self, key, value):
        self.set(key, value)

    def __delitem__(self, key):
        del self._entries[key]

    def __iter__(self):
        return iter(list(self._entries))

    def __len__(self):
        return len(self._entries)

    def clear(self):
        self._entries.clear()

    @property
    def currsize(self):
        return sum(self.getsizeof(value) for value, _ in self._entries.values())

    def stats(self):
        return SimpleNamespace(
            hits=self.hits, misses=self.misses, maxsize=self.maxsize, currsize=self.currsize
        )
