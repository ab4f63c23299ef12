"""What the application holds of the watcher of a client."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adaptcache.redis.books import Report
from adaptcache.redis.watcher import Watcher

if TYPE_CHECKING:
    from adaptcache.fleet import FleetStats


class Handle:
    """`client.adapt`: what a client's watcher saw, and the switch. Clients of one pool share it."""

    __slots__ = ("_watcher",)

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    @property
    def mode(self) -> str:
        """"off", "observe" or "release"; may be set at any time, also from another thread. What was known of keys is forgotten then."""
        return self._watcher.mode

    @mode.setter
    def mode(self, mode: str) -> None:
        self._watcher.mode = mode

    def report(self) -> Report:
        """What was seen, saved and lost so far; `str()` of it is for people."""
        return self._watcher.report()

    def stats(self) -> Any:
        """The learned side's own counters (`adaptcache.Stats`), or None before the first key in scope."""
        ledger = self._watcher._follower.ledger
        return None if ledger is None else ledger.stats()

    def fleet(self) -> FleetStats | None:
        """This process's part in the fleet that `Adapt(fleet=...)` names; None before the first key in scope, and without one."""
        fleet = self._watcher.fleet
        return None if fleet is None else fleet.stats()

    def flush(self) -> None:
        """Take account of every command answered so far before returning. May ask the server, so not for an event loop."""
        self._watcher.flush()

    def close(self) -> None:
        """Stop watching, for all clients of the pool, and close the watcher's own connection; the clients go on without it."""
        self._watcher.close()

    def __repr__(self) -> str:
        return f"<adapt {self.mode} of {self._watcher.address.label}>"
