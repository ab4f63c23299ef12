"""What happened on the way to the server: events for the user's observer, counts, and now and then a line in the log."""
from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_log = logging.getLogger("adaptcache")

QUIET = 60.0        # seconds between two log lines of one kind

# Kinds whose every first occurrence in QUIET seconds is worth a line in the log.
LOUD = {"undelivered": logging.ERROR, "forgotten": logging.CRITICAL, "breaker-open": logging.WARNING, "refused": logging.WARNING,
        "unreadable": logging.WARNING, "write-failed": logging.WARNING, "read-failed": logging.WARNING}


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened.

    kind    "read-failed", "write-failed"   the server could not be asked, or would not
            "unreadable"                    bytes that no value of ours could be made of: a miss
            "undelivered", "delivered"      an invalidation that the server has not heard of yet; now it has
            "forgotten"                     one that was given up at `close()`: others may see what was to go
            "breaker-open", "breaker-half-open", "breaker-closed"
            "took-over"                     a load whose owner's lease ran out, or who gave up, is done here
            "lease-lost"                    a load's value was not stored: its lease ran out, or it was invalidated
            "not-renewed"                   the lease of a load: the server could not be told; without an error, it takes too long, or
                                            its event loop does not run
            "impatient"                     waited for another's load as long as allowed, and loaded here
    key     the user's key, a tag, or None
    error   what the client raised, or None
    at      Unix seconds
    """

    kind: str
    key: Any
    error: BaseException | None
    at: float


class Events:
    """Counts all, tells the observer, and logs what is loud. Never raises what the observer raises: that one is let go."""

    def __init__(self, observer: Callable[[Event], object] | None) -> None:
        self._observer = observer
        self.counts: Counter[str] = Counter()
        self._lock = threading.RLock()
        self._quiet: dict[str, float] = {}
        self._unsaid: Counter[str] = Counter()

    def tell(self, kind: str, key: Any = None, error: BaseException | None = None) -> None:
        now = time.time()
        level = LOUD.get(kind)
        with self._lock:
            self.counts[kind] += 1
            says = level is not None and not 0 <= now - self._quiet.get(kind, -QUIET) < QUIET
            if says:
                self._quiet[kind] = now
                unsaid = self._unsaid.pop(kind, 0)
            elif level is not None:
                self._unsaid[kind] += 1
        if says and level is not None:
            _log.log(level, "%s: key %.200r (%s: %.200s); %d more since the last such line", kind, key,
                     type(error).__name__, error, unsaid)
        observer = self._observer
        if observer is None:
            return
        try:
            observer(Event(kind, key, error, now))
        except Exception:
            self._observer = None
            _log.exception("on_event raised and hears no more")

    def forked(self) -> None:
        self._lock = threading.RLock()
