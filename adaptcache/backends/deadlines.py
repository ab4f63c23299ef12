"""When a value on the server is to go: what is written with it, and how a read extends that.

A read may only push a deadline further away (`PEXPIRE ... GT`), so racing workers never shorten each other's; nothing is
ever pushed past a value's ceiling (`hard`). A learned deadline is extended when less than half of the hold is left as far as
this process knows, so a hot key does not cost a write a read. `hard` and `birth` are Unix seconds, since all processes must
mean the same by them; what only this process remembers is on the monotonic clock. This file talks to no server.
"""
from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from adaptcache.expiry import Expiry, Fixed, Idle, Learned, PerEntry
from adaptcache.mapping import Cache

if TYPE_CHECKING:
    from adaptcache.ledger import Ledger

KNOWN = 65_536                      # keys whose deadline this process remembers
UNSEEN = 0.25                       # of an idle time: for so long, hits in a process may not be told to the server
LONG = 10 * 365 * 86_400.0          # seconds that stand for "no reason to expire" where a deadline must be pushed


class Deadlines:
    """The expiry of one cache on the server."""

    def __init__(self, spec: Expiry | None, books: Ledger | None, missed: Callable[[bytes], object] | None = None, *,
                 near: bool = False) -> None:
        self._spec = spec
        self._books = books
        self._near = near           # are there copies in processes? To the server, a deadline that is pushed is a key that changed
        self._missed = missed       # who looks whether a key that is not there was released too early
        self._ceiling = spec.ceiling if isinstance(spec, Learned) else None
        self._floor = spec.floor if isinstance(spec, Learned) else 0.0
        # Name -> the deadline on the server as far as is known here, and from when on a read pushes it further; monotonic.
        self._known: Cache[bytes, tuple[float, float]] = Cache(KNOWN, policy="sieve")
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
        left, here = math.inf if hard is None else hard - now, time.monotonic()
        if isinstance(self._spec, Idle):
            left = min(left, self._spec.ttl)
            self._known[name] = here + left, here + self._spec.ttl * UNSEEN
        elif self._books is not None and left > 0:
            self._books.put(name, size=size, cost=cost, ttl=None if hard is None else left, namespace=namespace,
                            features=features)
            left = min(left, max(self._books.hold(name), self._floor))
        if self._books is not None:
            self._known[name] = here + left, here + left / 2
        return left

    def read(self, name: bytes, hard: float | None, *, birth: float, size: float, cost: float) -> int | None:
        """Note a hit; milliseconds by which to push the deadline, or None."""
        if not self._extends:
            return None
        now = time.monotonic()
        left = math.inf if hard is None else hard - time.time()
        if isinstance(self._spec, Idle):
            if left <= 0 or (self._near and now < self._known.get(name, (0.0, 0.0))[1]):
                return None
            if self._near:
                self._known[name] = now + self._spec.ttl, now + self._spec.ttl * UNSEEN
            return _ms(min(self._spec.ttl, left))
        books = self._books
        assert books is not None
        if not books.got(name, True) and left > 0:
            # Written by another process: it is followed from now on.
            books.put(name, size=size, cost=cost or None, ttl=None if hard is None else left,
                      nominal=None if hard is None else max(hard - birth, left))
        return self._push(name, now, left)

    def read_near(self, name: bytes) -> bool:
        """Note hits in this process's own part, which the server did not see. False: it was let go of, and only a read that the
        server sees keeps it there."""
        return self._books is None or self._books.got(name, True, near=True)

    def near_until(self, name: bytes) -> float:
        """Until when, on the monotonic clock, hits in this process may go unseen by the server."""
        return self._known.get(name, (0.0, 0.0))[1] if self._extends else math.inf

    def _push(self, name: bytes, now: float, left: float) -> int | None:
        # What nobody here has read or written before may go at any moment.
        until, due = self._known.get(name, (0.0, 0.0))
        if now < due or until >= now + left or left <= 0:
            return None
        assert self._books is not None
        hold = min(max(self._books.hold(name), self._floor), left, LONG)
        self._known[name] = now + hold, now + hold / 2
        return _ms(hold)

    def missed(self, name: bytes) -> None:
        if self._extends:
            self._known.pop(name, None)
        if self._books is not None:
            self._books.got(name, False)
            if self._missed is not None:
                self._missed(name)

    def gone(self, name: bytes) -> None:
        if self._books is not None:
            self._books.gone(name)
            self._known.pop(name, None)


def _ms(seconds: float) -> int:
    return max(1, math.ceil(seconds * 1000))


def milliseconds(left: float) -> bytes:
    """PX of a write; empty where none is wanted."""
    return b"" if left == math.inf or left > LONG else b"%d" % _ms(left)
