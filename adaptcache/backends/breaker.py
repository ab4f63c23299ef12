"""A circuit breaker: after failures in a row nobody asks the server for a while, then one does, and all or none follow.

Closed: all may ask. Open: nobody, for a time that doubles with each failed probe and is jittered, so that workers do not
come back together. Half-open: one probe is under way. The breaker does not know what is asked, nor what a failure is.
"""
from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from adaptcache import checks

CLOSED, OPEN, HALF_OPEN = "closed", "open", "half-open"


@dataclass(frozen=True)
class Breaker:
    """When to stop asking a server that fails.

    failures    in a row until nobody asks; math.inf: always ask
    cooldown    seconds until one asks again, the first time; doubled with each probe that fails
    longest     seconds between probes at the most
    """

    failures: float = 5
    cooldown: float = 0.5
    longest: float = 15.0

    def __post_init__(self) -> None:
        checks.number("failures", self.failures, "a number, 1 or more, or math.inf", 1.0, float("inf"))
        checks.seconds("cooldown", self.cooldown, zero=False)
        checks.seconds("longest", self.longest, zero=False)


class Circuit:
    """The breaker of one backend."""

    def __init__(self, options: Breaker, tell: Callable[[str, object, BaseException | None], None]) -> None:
        self._options = options
        self._tell = tell
        self._lock = threading.RLock()
        self._failures = 0
        self._trips = 0             # probes that failed in a row, and the failure that opened
        self._until = 0.0
        self.state = CLOSED
        self.opened = 0             # how often it has opened
        self.refused = 0            # commands that were not sent

    def allow(self) -> bool:
        """May this command be sent? Who is told yes must say how it went."""
        if self.state == CLOSED:
            return True
        with self._lock:
            if self.state == CLOSED:
                return True
            now = monotonic()
            if now < self._until:
                self.refused += 1
                return False
            # A probe that is never heard of again must not keep it shut: the next one may go after a while.
            self._until = now + self._options.cooldown
            was, self.state = self.state, HALF_OPEN
        if was != HALF_OPEN:
            self._tell("breaker-half-open", None, None)
        return True

    def succeeded(self) -> None:
        if self._failures == 0 and self.state == CLOSED:
            return
        with self._lock:
            was, self.state = self.state, CLOSED
            self._failures = self._trips = 0
        if was != CLOSED:
            self._tell("breaker-closed", None, None)

    def failed(self, error: BaseException) -> None:
        with self._lock:
            self._failures += 1
            if self.state == CLOSED and self._failures < self._options.failures:
                return
            if self.state == OPEN:
                return      # it was sent before the breaker opened
            self.state = OPEN
            self.opened += 1
            rest = min(self._options.longest, self._options.cooldown * 2.0 ** min(self._trips, 30))
            self._trips += 1
            self._until = monotonic() + rest * random.uniform(0.5, 1.0)
        self._tell("breaker-open", None, error)

    def forked(self) -> None:
        self._lock = threading.RLock()
