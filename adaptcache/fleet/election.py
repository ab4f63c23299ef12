"""Who learns for the fleet: a lock that runs out, with a number that only grows.

The lock keeps two learners from working at once nearly always; the fence keeps them from harm always (Kleppmann, "How
to do distributed locking", 2016): a learner that was paused past its lock publishes nothing, for the script that publishes looks
at lock and fence in the same step.
"""
from __future__ import annotations

import secrets
from typing import Any

from adaptcache.fleet.names import Names
from adaptcache.fleet.server import ACQUIRE, PUBLISH, RELEASE, RENEW, Server

KEPT = 30 * 86_400      # seconds that a model outlives the last publication


class Office:
    """The learner's office: held by one candidate at a time.

    lock_time   seconds after which a holder that does not renew has lost it
    """

    def __init__(self, server: Server, names: Names, lock_time: float) -> None:
        self._server, self._names = server, names
        self._ms = max(1, round(lock_time * 1000))
        self._token = secrets.token_hex(8)
        self.fence = 0      # 0: not held

    @property
    def held(self) -> bool:
        """As far as we know: the server may know better."""
        return self.fence > 0

    @property
    def _lock(self) -> str:
        return f"{self.fence} {self._token}"

    def stand(self, seen: int) -> bool:
        """Take it if it is free. seen: the highest fence that this process knows of."""
        self.fence = self._server.run(ACQUIRE, (self._names.lock, self._names.fence), self._token, seen, self._ms)
        return self.held

    def renew(self) -> bool:
        """Keep it; False when it is lost."""
        if not self.held or not self._server.run(RENEW, (self._names.lock, self._names.fence), self._lock, self.fence, self._ms):
            self.fence = 0
        return self.held

    def publish(self, fields: dict[str, Any]) -> bool:
        """Write the model if the office is still ours; False, and nothing is written, when it is lost."""
        flat = [part for pair in fields.items() for part in pair]
        keys = (self._names.lock, self._names.fence, self._names.model)
        if not self.held or not self._server.run(PUBLISH, keys, self._lock, self.fence, KEPT, *flat):
            self.fence = 0
        return self.held

    def leave(self) -> None:
        """Let the next one in at once."""
        if self.held:
            lock, self.fence = self._lock, 0
            self._server.run(RELEASE, (self._names.lock,), lock)
