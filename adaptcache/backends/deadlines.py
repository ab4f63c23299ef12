"""When a value on the server is to go: what is written with it, and how a read extends that.

A read may only push a deadline further away (`PEXPIRE ... GT`), so racing workers never shorten each other's; nothing is
ever pushed past a value's ceiling (`hard`). A learned deadline is extended when less than half of the hold is left as far as
this process knows, so a hot key does not cost a write a read. Times are Unix seconds. This file talks to no server.
"""
from __future__ import annotations

import math
import time
from typing import Any, Protocol

from adaptcache.expiry import Expiry, Fixed, Idle, Learned, PerEntry
from adaptcache.mapping import Cache

KNOWN = 65_536                      # keys whose deadline this process remembers
LONG = 10 * 365 * 86_400.0          # seconds that stand for "no reason to expire" where a deadline must be pushed


class Books(Protocol):
    """A ledger (adaptcache.ledger)."""

    def put(self, key: bytes, *, size: float = ..., cost: float | None = ..., ttl: float | None = ..., namespace: Any = ...,
            features: Any = ...) -> None: ...
    def got(self, key: bytes, hit: bool) -> bool: ...
    def gone(self, key: bytes) -> None: ...
    def hold(self, key: bytes) -> float: ...
    def stats(self) -> Any: ...
    def close(self) -> None: ...


class Deadlines:
    """The expiry of one cache on the server."""

    def __init__(self, spec: Expiry | None, books: Books | None) -> None:
        self._spec = spec
        self._books = books
        self._ceiling = spec.ceiling if isinstance(spec, Learned) else None
        self._floor = spec.floor if isinstance(spec, Learned) else 0.0
        self._until: Cache[bytes, float] = Cache(KNOWN, policy="sieve")
        self._extends = isinstance(spec, (Idle, Learned))

    def hard(self, key: Any, value: Any, ttl: float | None, now: float) -> float | None:
        """The time past which a value written now is never served."""
        limits = [] if ttl is None or math.isinf(ttl) else [now + ttl]
        if isinstance(self._spec, Fixed):
            limits.append(now + self._spec.ttl)
        elif isinstance(self._spec, PerEntry):
            limits.append(float(self._spec.fn(key, value, now)))
        elif self._ceiling is not None:
            limits.append(now + self._ceiling)
        at = min(limits, default=math.inf)
        if math.isnan(at):
            raise ValueError(f"expiry: PerEntry gave {at!r} for key {key!r:.200}; the accepted range is Unix seconds")
        return None if math.isinf(at) and at > 0 else at

    def written(self, name: bytes, hard: float | None, now: float, *, size: float, cost: float | None, namespace: Any,
                features: Any) -> float:
        """Note a write; seconds until the deadline that goes with it, math.inf for none."""
        left = math.inf if hard is None else hard - now
        if isinstance(self._spec, Idle):
            left = min(left, self._spec.ttl)
        elif self._books is not None:
            self._books.put(name, size=size, cost=cost, ttl=None if hard is None else max(hard - now, 0.0), namespace=namespace,
                            features=features)
            left = min(left, max(self._books.hold(name), self._floor))
        if self._extends and left < math.inf:
            self._until[name] = now + left
        return left

    def read(self, name: bytes, hard: float | None) -> int | None:
        """Note a hit; milliseconds by which to push the deadline, or None."""
        if not self._extends:
            return None
        now = time.time()
        left = math.inf if hard is None else hard - now
        if isinstance(self._spec, Idle):
            until = now + min(self._spec.ttl, left)
            return _ms(until - now) if until > now else None
        assert self._books is not None
        self._books.got(name, True)
        hold = min(self._books.hold(name), left, LONG)
        # What nobody here has read or written before may go at any moment.
        known = self._until.get(name, 0.0)
        if hold <= 0 or known - now > hold / 2 or known >= now + left:
            return None
        self._until[name] = now + hold
        return _ms(hold)

    def missed(self, name: bytes) -> None:
        if self._books is not None:
            self._books.got(name, False)
            self._until.pop(name, None)

    def gone(self, name: bytes) -> None:
        if self._books is not None:
            self._books.gone(name)
            self._until.pop(name, None)

    @property
    def touches(self) -> bool:
        """Does a read of a value in process memory matter for how long it stays on the server?"""
        return self._extends


def _ms(seconds: float) -> int:
    return max(1, math.ceil(seconds * 1000))


def milliseconds(left: float) -> bytes:
    """PX of a write; empty where none is wanted."""
    return b"" if left == math.inf or left > LONG else b"%d" % _ms(left)
