"""What `Near` and `AsyncNear` have in common: the calls that never wait. Who listens is theirs.

`get` and `both` are attributes, bound to the tier: a hit is one Python function.
"""
from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from adaptcache.near.options import NearCache
from adaptcache.near.tier import NearStats, Ticket, Tier
from adaptcache.near.trunk import Branch, Trunk
from adaptcache.near.watch import simplest


class Face:
    """The calls on a tier."""

    get: Callable[..., Any]
    """`get(key, default=None)`: the value of a key (bytes), or `default`. Touches no socket and waits for nobody."""

    both: Callable[[bytes, bytes], tuple[Any, Any] | None]
    """`both(key, other)`: the values of two keys at one moment, or None if not both are there."""

    def __init__(self, options: NearCache, prefixes: Sequence[bytes], route: Callable[[bytes], bytes | None] | None = None) -> None:
        if not isinstance(options, NearCache):
            raise TypeError(f"options: expected a NearCache, got {type(options).__name__}")
        if isinstance(prefixes, (bytes, str)) or not all(isinstance(prefix, bytes) for prefix in prefixes):
            raise TypeError("prefixes: expected a sequence of bytes, each the beginning of keys")
        kept = simplest(prefixes)
        self._show(options, Tier(options, kept) if route is None else Trunk(options, kept, route))

    def _show(self, options: NearCache, tier: Tier) -> None:
        self._tier = tier
        self.get = tier.get
        self.both = tier.both
        self.options = options

    def begin(self, key: bytes) -> Ticket | None:
        """A ticket for a read of `key` that is sent after this returns; None while nothing may be stored.

        The ticket need not be handed back. TypeError for a key that is not bytes.
        """
        return self._tier.begin(key)

    def put(self, ticket: Ticket | None, value: Any, *, ttl: float | None = None) -> bool:
        """Store what the read came to. False, and nothing is stored, if an invalidation came between, nobody listens, or it does not fit.

        ttl     seconds that the server would keep the value, as it said with the read; counted from `begin`. None: until it says
                so. A server names an expired key when it deletes it, which may be later than its deadline
        """
        return self._tier.put(ticket, value, ttl=ttl)

    def forget(self, key: bytes) -> None:
        """Drop a key and what reads on their way bring of it: after a write of one's own was acknowledged, to read it at once."""
        self._tier.forget(key)

    def clear(self) -> None:
        """Drop everything, and what reads on their way bring."""
        self._tier.clear()

    @property
    def ready(self) -> bool:
        """Is a server listened to, so that values are served and stored? Of a cluster: at least one."""
        return self._tier.ready

    def stats(self) -> NearStats:
        """The counters."""
        return self._tier.stats()

    def __repr__(self) -> str:
        stats = self.stats()
        state = "ready" if stats.ready else f"not ready: {stats.error or 'not connected yet'}"
        return f"<{type(self).__name__} {stats.currsize:g} of {stats.maxsize:g}, {state}>"

    def part(self, options: NearCache, prefixes: Sequence[bytes], place: bytes) -> Part:
        """A tier of its own, below some prefixes, that the connections of this one keep coherent. `place`: what `route` gives for its keys.

        Its `heartbeat` and `window` are this one's. ValueError where this one was made without `route`.
        """
        if not isinstance(self._tier, Trunk):
            raise ValueError("part: this near cache was made without route=, and holds entries itself")
        return Part(self, self._tier.branch(options, prefixes, place))

    def _wake(self) -> None:
        """Listen, if that was to begin with the first use."""

    def _forked(self) -> None:
        """In the child of a fork: empty, and nobody listens. The connections are the parent's."""
        raise NotImplementedError


class Part(Face):
    """One of several tiers that share connections (`Near.part`). It keeps these listening for as long as it is held."""

    def __init__(self, whole: Face, tier: Branch) -> None:
        self._whole = whole
        self._show(tier.options, tier)

    def begin(self, key: bytes) -> Ticket | None:
        self._whole._wake()
        return self._tier.begin(key)

    def close(self) -> None:
        """Serve nothing any more; the connections stay, for the others."""
        assert isinstance(self._tier, Branch)
        self._tier.leave()


OPEN: weakref.WeakSet[Face] = weakref.WeakSet()


def _after_fork() -> None:
    for each in list(OPEN):
        each._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
