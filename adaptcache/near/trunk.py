"""One connection for many tiers: a `Trunk` is what listens, each `Branch` holds the entries below some prefixes, with room and
options of its own.

A branch may come when the trunk is listened to already. Its prefixes are then told to every server with the next question, and
its tickets begin when all of them have said that they will tell (`Trunk.covers`). Until a server has, it proves nothing, for
nobody: so what a branch holds is covered by whoever takes over a slot, too.

This file knows no connection and no protocol, like `tier`.
"""
from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from time import monotonic
from weakref import ref

from adaptcache.near.options import NearCache
from adaptcache.near.tier import NearStats, Ticket, Tier


class Trunk(Tier):
    """Holds nothing itself.

    route   the place of a key, as branches name theirs; None: it concerns all of them
    """

    def __init__(self, options: NearCache, prefixes: Sequence[bytes], route: Callable[[bytes], bytes | None],
                 clock: Callable[[], float] = monotonic) -> None:
        self._route = route
        self._joining = threading.RLock()
        self._branches: _Branches = {}      # replaced, never changed: who listens reads it without a lock
        super().__init__(replace(options, maxsize=0), prefixes, clock)

    def branch(self, options: NearCache, prefixes: Sequence[bytes], place: bytes) -> Branch:
        """A new branch. No prefix may begin another one of the trunk's, or equal it unless the branches share it."""
        with self._joining:
            while True:
                before = self.prefixes
                after = before + tuple(prefix for prefix in prefixes if prefix not in before)
                if self.prefixes is before:         # else a finalizer came between, and made a branch too
                    self.prefixes = after
                    break
            made = Branch(self, options, prefixes, 1 + max(map(after.index, prefixes)))
            self._replace(lambda branches: {**branches, place: (*branches.get(place, ()), ref(made))})
        return made

    def leave(self, branch: Branch) -> None:
        """Of the branch's own: it is not told of anything any more. Its prefixes stay, others may have them."""
        with self._joining:
            self._replace(lambda branches: {at: kept for at, those in branches.items() if (kept := tuple(each for each in those if each() is not branch))})

    def _replace(self, change: Callable[[_Branches], _Branches]) -> None:
        while True:
            before = self._branches
            living = {at: kept for at, those in before.items() if (kept := tuple(each for each in those if each() is not None))}
            after = change(living)
            if self._branches is before:
                self._branches = after
                return

    def _all(self) -> list[Branch]:
        return [branch for branches in self._branches.values() for each in branches if (branch := each()) is not None]

    def reset(self) -> None:
        self._joining = threading.RLock()
        super().reset()
        for branch in self._all():
            branch.reset()

    def clear(self) -> None:
        super().clear()
        for branch in self._all():
            branch.clear()

    def invalidate(self, keys: Sequence[bytes]) -> None:
        route, branches = self._route, self._branches
        sorted_: dict[bytes, list[bytes]] = {}
        for key in keys:
            place = route(key)
            for at in branches if place is None else (place,):
                sorted_.setdefault(at, []).append(key)
        for at, some in sorted_.items():
            for each in branches.get(at, ()):
                branch = each()
                if branch is not None:
                    branch.invalidate(some)
        self.invalidations += len(keys)


_Branches = dict[bytes, "tuple[ref[Branch], ...]"]


class Branch(Tier):
    """A tier under a trunk's leases."""

    def __init__(self, trunk: Trunk, options: NearCache, prefixes: Sequence[bytes], depth: int) -> None:
        self._trunk = trunk
        self._depth: float = depth      # so many of the trunk's prefixes are needed
        super().__init__(options, prefixes, trunk.clock)

    def reset(self) -> None:
        super().reset()
        trunk = self._trunk
        self.lease_of = lambda key: trunk.lease_of(key)     # looked up each time: it changes when somebody begins to listen
        self.leases = lambda: trunk.leases()
        self.covers = lambda: trunk.covers()

    def begin(self, key: bytes) -> Ticket | None:
        # Before anything else: what is read from now on is told of by everybody who has said so.
        return super().begin(key) if self._covered() or not isinstance(key, bytes) else None

    def leave(self) -> None:
        """Hold nothing any more, and take nothing."""
        self._depth = math.inf
        self._trunk.leave(self)
        self.clear()

    def _covered(self) -> bool:
        return self.covers() >= self._depth

    @property
    def ready(self) -> bool:
        return self._covered() and super().ready

    def stats(self) -> NearStats:
        trunk, covered = self._trunk, self._covered()
        stats = super().stats()
        return replace(stats, ready=stats.ready and covered, nodes=stats.nodes if covered else 0, flushes=trunk.flushes, connects=trunk.connects,
                       losses=trunk.losses, error=trunk.error)
