"""The daemon that goes round the watchers of a process.

It takes a few notes at a time, and sleeps a watcher's `share` times as long as it worked: it never takes more than that share of a core,
and never holds the interpreter for long. Nobody but clients and, for some seconds, this daemon hold a watcher: it goes with them.
"""
from __future__ import annotations

import os
import threading
from time import monotonic, sleep, thread_time
from typing import Protocol
from weakref import WeakSet

SLICE = 0.0003          # seconds of work at a time, about
LONGEST = 0.5           # seconds slept at once: the first key's learner is loaded in a second or two
LINGER = 5.0            # seconds for which the daemon holds a watcher without notes


class Watched(Protocol):
    """What the daemon knows of a watcher."""

    watching: bool

    @property
    def waiting(self) -> bool:
        """Whether there are commands or notes to look at."""

    @property
    def share(self) -> float:
        """Seconds slept per second worked."""

    def work(self, seconds: float) -> bool:
        """Look at notes for about so long; whether there was anything to do."""

    def rest(self) -> None:
        """Nobody has said anything for a while."""

    def forked(self) -> None:
        """This is the child of a fork."""

    def __hash__(self) -> int: ...


class Patrol:
    """Goes round the watchers that have notes, and away when none has had any for a while."""

    def __init__(self) -> None:
        self.watchers: WeakSet[Watched] = WeakSet()
        self._fresh()

    def _fresh(self) -> None:
        self.awake = False
        self._lock = threading.RLock()      # a finalizer may run a command of its own

    def wake(self) -> None:
        with self._lock:
            if not self.awake:
                self.awake = True
                threading.Thread(target=self._run, name="adaptcache-redis", daemon=True).start()

    def _run(self) -> None:
        seen: dict[Watched, float] = {}     # these live until they have been quiet for a while
        rest = 0.01
        while True:
            worked = due = 0.0
            now = monotonic()
            for watcher in list(self.watchers):
                if watcher.waiting or watcher in seen:
                    spent = thread_time()
                    did = watcher.watching and watcher.work(SLICE)
                    spent = thread_time() - spent
                    worked += spent
                    due += spent * watcher.share
                    if did:
                        seen[watcher] = now
                    elif now - seen.setdefault(watcher, now) > LINGER:
                        watcher.rest()
                        del seen[watcher]
            watcher = None  # type: ignore[assignment]
            if not seen:
                with self._lock:
                    self.awake = False      # before the last look: who comes after it sees this
                    if not any(one.waiting and one.watching for one in list(self.watchers)):
                        return
                    self.awake = True
            rest = min(0.05, rest * 1.5) if worked < 0.0001 else 0.002
            sleep(min(max(rest, due), LONGEST))

    def forked(self) -> None:
        """The child starts anew: no thread, no connection, no notes, nothing known."""
        self._fresh()
        for watcher in list(self.watchers):
            watcher.forked()


PATROL = Patrol()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=PATROL.forked)
