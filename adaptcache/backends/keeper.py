"""Who loads keeps its lease: the thread that renews the leases of loads that take long.

A lease is short, so that another takes over soon when its owner dies. While an owner lives, its lease is pushed each third of its
length, if it is still its own and the space was not cleared meanwhile: what a `set`, a `delete` or a `clear` took away stays taken away. A process
that was killed, stopped or cut off renews nothing, nor is anything renewed for an event loop that does not run. A load is renewed until `longest` seconds after it began: one
that hangs does not hold others off for ever.

The thread begins with a process's first load and sleeps until the first third of a lease is over; a load that is done by then has cost
it nothing, and the server no command. It ends when nothing has been loaded for a while, and with its keeper.
"""
from __future__ import annotations

import asyncio
import math
import threading
import weakref
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any

from adaptcache.backends.names import Name
from adaptcache.backends.scripts import RENEW, send
from adaptcache.backends.steps import Plan, Trouble

IDLE = 10.0         # seconds without a load after which the thread ends
TIMES = 10          # leases until a load is renewed no more, by default


class Hold:
    """The leases of one load: one token on one key or many."""

    __slots__ = ("_due", "_end", "_generations", "_loop", "_names", "_taken", "_token", "_until", "key")

    def __init__(self, key: Any, token: bytes, names: Iterable[tuple[Name, bytes]], lease: float, longest: float) -> None:
        now = monotonic()
        self.key = key                  # as the events have it
        self._token = token
        self._names = {name.value: (name, generation) for name, generation in names}      # those that are renewed
        self._until = dict.fromkeys(self._names, now + lease)       # so long nobody else can have it, unless it was taken away
        self._taken: set[bytes] = set()
        self._due = now + lease / 3
        self._end = now + longest
        self._loop = asyncio._get_running_loop()

    def was_taken(self, name: Name) -> bool:
        """The server says that the lease is no longer ours. Was it taken away, by an invalidation, rather than left to run out?"""
        return name.value in self._taken or monotonic() < self._until[name.value]


class Keeper:
    """Keeps the leases of one backend. `run` is a synchronous driver's; `tell(kind, key, error)` hears of what could not be renewed."""

    def __init__(self, lease: float, longest: float, run: Callable[[Plan[Any]], Any],
                 tell: Callable[[str, Any, BaseException | None], None]) -> None:
        self.lease = lease
        self.longest = max(lease, longest)
        self._run = run
        self._tell = tell
        self._closed = False
        self.forked()

    def forked(self) -> None:
        """In a child: the loads are the parent's, who keeps them."""
        self._lock = threading.RLock()      # a load that is collected is let go of, in whatever thread
        self._wake = threading.Event()
        self._holds: dict[Hold, None] = {}
        self._thread: threading.Thread | None = None
        self._idle = False

    def hold(self, key: Any, token: bytes, names: Iterable[tuple[Name, bytes]]) -> Hold:
        """Keep these leases, each taken in a generation, until they are let go of."""
        hold = Hold(key, token, names, self.lease, self.longest)
        if self.longest > self.lease and hold._names:
            with self._lock:
                if not self._closed:
                    self._holds[hold] = None
                    if self._idle:
                        self._idle = False
                        self._wake.set()
                    if self._thread is None:
                        self._thread = threading.Thread(target=_work, args=(weakref.ref(self), self._wake), name="adaptcache-leases", daemon=True)
                        self._thread.start()
        return hold

    def let_go(self, hold: Hold) -> None:
        with self._lock:
            self._holds.pop(hold, None)

    def close(self) -> None:
        """What is held ends by itself."""
        with self._lock:
            self._closed = True
            self._holds.clear()
            thread = self._thread
            self._wake.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(10.0)

    def step(self) -> float | None:
        """Renew what is due; seconds until the next step, None to end the thread."""
        now = monotonic()
        with self._lock:
            self._wake.clear()
            due = [hold for hold in list(self._holds) if hold._due <= now]
        if due:
            self._renew(due, now)
        with self._lock:
            dues = [] if self._closed else [hold._due for hold in list(self._holds)]
            if dues:
                # Not at once for each of many loads: what is due meanwhile goes with it, in one trip.
                return max(self.lease / 12, min(dues) - monotonic())
            if self._closed or self._idle:
                self._thread = None
                return None
            self._idle = True
            return IDLE

    def _renew(self, holds: list[Hold], now: float) -> None:
        going = []
        for hold in holds:
            if hold._end - now <= 0 or not (hold._loop is None or hold._loop.is_running()):
                self._tell("not-renewed", hold.key, None)
                self.let_go(hold)
            else:
                going.append(hold)
        calls, whose = [], []
        for hold in going:
            ms = b"%d" % math.ceil(1000 * min(self.lease, hold._end - now))
            for name, generation in list(hold._names.values()):
                calls.append((name, (hold._token, ms, generation)))
                whose.append((hold, name.value))
        sent = monotonic()
        try:
            answers = self._run(send(RENEW, calls))
        except Exception as error:      # told, and tried again: this thread is nobody's to raise in
            answers = [Trouble(error)] * len(calls)
        failed: dict[Hold, Trouble] = {}
        for (hold, at), answer in zip(whose, answers, strict=True):
            if isinstance(answer, Trouble):
                failed[hold] = answer
            elif answer == 1:
                hold._until[at] = max(hold._until[at], sent + min(self.lease, hold._end - now))
            else:
                if answer == 0 and monotonic() < hold._until[at]:
                    hold._taken.add(at)
                hold._names.pop(at)
        for hold in going:
            hold._due = sent + self.lease / (3 if hold not in failed else 6)
            if hold in failed:
                self._tell("not-renewed", hold.key, failed[hold].error)
            if not hold._names:
                self.let_go(hold)


def _work(keeper: weakref.ref[Keeper], wake: threading.Event) -> None:
    """The thread; it does not keep the keeper, nor the backend behind it, alive."""
    while (mine := keeper()) is not None:
        seconds = mine.step()
        del mine
        if seconds is None:
            return
        wake.wait(seconds)
