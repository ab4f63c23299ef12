"""The learner's thread: one daemon a process, which steps every cache that asked for it.

It never keeps the interpreter alive, holds caches by weak reference only, ends when the last of them is
gone, starts anew in a forked child, and spends at most about a fiftieth of one core.
"""
from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from typing import Protocol

_log = logging.getLogger("adaptcache")

PAUSE = 0.05        # seconds between two rounds at the least
SHARE = 0.02        # of one core at the most
LONGEST = 2.0       # seconds between two rounds at the most


class Learns(Protocol):
    """What the worker steps: a cache. True when there is more to do at once."""

    def _work(self) -> bool: ...


class Worker:
    """The thread and the caches it serves."""

    def __init__(self) -> None:
        # By identity: a cache is a mapping, so it has no hash.
        self._caches: dict[int, weakref.ref[Learns]] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False

    def add(self, cache: Learns) -> None:
        """Serve a cache until it is collected; the thread starts with the first."""
        with self._lock:
            number = id(cache)
            self._caches[number] = weakref.ref(cache, lambda _: self._caches.pop(number, None))
            self._start()

    def discard(self, cache: Learns) -> None:
        """Serve it no more."""
        self._caches.pop(id(cache), None)
        self._wake.set()

    @property
    def alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _start(self) -> None:
        if self._closed or self.alive:
            return
        self._wake.clear()
        self._thread = threading.Thread(target=self._run, name="adaptcache-learner", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        pause = PAUSE
        while True:
            self._wake.wait(pause)
            with self._lock:
                if self._closed or not self._caches:
                    self._thread = None
                    return
                self._wake.clear()
            began = time.thread_time()
            for reference in list(self._caches.values()):
                cache = reference()
                if cache is None:
                    continue
                try:
                    for _ in range(64):
                        if not cache._work():
                            break
                except Exception:
                    # A user's timer or callback may raise at any time; learning goes on without this round.
                    _log.exception("a learning step raised; the cache goes on with what it knows")
                del cache       # no reference may outlive the round
            spent = time.thread_time() - began
            pause = min(LONGEST, max(PAUSE, spent / SHARE))

    def close(self) -> None:
        """Stop for good: the interpreter is going down."""
        with self._lock:
            self._closed = True
            thread = self._thread
        self._wake.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(1.0)

    def _after_fork(self) -> None:
        # The child has no thread, and the locks may have been held by one that is not there.
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._thread = None
        if self._caches:
            self._start()


WORKER = Worker()
atexit.register(WORKER.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=WORKER._after_fork)
