"""Threads for work that nobody waits for: a few daemons a process, started on demand, gone when idle.

They never keep the interpreter alive, and a forked child starts anew without what was queued. This file
does not know what the work is; whoever queues it must hold only weakly what is to be collected meanwhile.
"""
from __future__ import annotations

import atexit
import logging
import os
import queue
import threading
from collections.abc import Callable

_log = logging.getLogger("adaptcache")

THREADS = 4         # a loader that hangs must not hold up all others
IDLE = 5.0          # seconds after which a thread without work ends


class Pool:
    """At most THREADS daemons that do what is submitted, oldest first."""

    def __init__(self) -> None:
        self._closed = False
        self._after_fork()

    def submit(self, work: Callable[[], object]) -> bool:
        """Do `work()` soon, in another thread; False when the interpreter is going down, and then never."""
        with self._lock:
            if self._closed:
                return False
            self._queue.put(work)
            self._pending += 1
            if self._threads < min(THREADS, self._pending):
                thread = threading.Thread(target=self._run, args=(self._queue,), name="adaptcache-refresh", daemon=True)
                self._threads += 1
                try:
                    thread.start()
                except RuntimeError:
                    # The system has no thread to give. What is queued waits for those that there are.
                    self._threads -= 1
            return True

    @property
    def threads(self) -> int:
        return self._threads

    def _run(self, mine: queue.SimpleQueue[Callable[[], object]]) -> None:
        while True:
            try:
                work = mine.get(timeout=IDLE)
            except queue.Empty:
                with self._lock:
                    if mine.empty():
                        self._threads -= 1
                        return
                continue
            try:
                work()
            except BaseException:
                # Even SystemExit is the work's own: nobody is there to receive it.
                _log.exception("work in the background raised")
            del work
            with self._lock:
                self._pending -= 1

    def close(self) -> None:
        with self._lock:
            self._closed = True

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._threads = 0
        self._pending = 0


POOL = Pool()
atexit.register(POOL.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=POOL._after_fork)
