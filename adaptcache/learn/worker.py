"""The learner's thread: one daemon a process, which steps every cache that asked for it.

It never keeps the interpreter alive, holds caches by weak reference only, ends when the last of them is
gone, and starts anew in a forked child. It takes at most a fiftieth of one core: EVENTS of it for what requests tell and for
verdicts, TRAINING for models. Either is an allowance that grows with time; what is beyond it waits for the next
round, and when waiting is not enough, or a ring runs over, a cache follows fewer keys, chosen by hash, whose histories stay whole.
"""
from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from typing import Protocol, runtime_checkable

_log = logging.getLogger("adaptcache")

PAUSE = 0.1        # seconds between two rounds
TRAINING = 0.0075   # share of one core for training models
EVENTS = 0.0075     # share of one core for reading events and for verdicts, all caches together
SAVED = 0.02        # seconds of either that may be saved up
PACE = 1.0          # seconds after which it is looked at whether that was enough
PIECES = 256        # pieces of one cache's events in a round at the most


class Learns(Protocol):
    """What the worker steps: a cache. True when there is more to do at once."""

    def _work(self) -> bool: ...
    def _train(self) -> None: ...
    def _pace(self, slower: bool) -> None: ...
    def _forked(self) -> None: ...


@runtime_checkable
class Reports(Protocol):
    """What a cache may offer besides: a bounded piece of writing to its log of decisions."""

    def _report(self) -> None: ...


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
        allowance = 0.0         # seconds of training that may be spent now
        reading = SAVED         # seconds of reading events that may be spent now
        behind = False          # since `paced`, was that too little?
        last = paced = time.monotonic()
        while True:
            self._wake.wait(PAUSE)
            with self._lock:
                if self._closed or not self._caches:
                    self._thread = None
                    return
                self._wake.clear()
            now = time.monotonic()
            allowance = min(allowance + TRAINING * (now - last), SAVED)
            reading = min(reading + EVENTS * (now - last), SAVED)
            last = now
            due = now - paced >= PACE
            slower = behind
            if due:
                paced, behind = now, False
            for reference in list(self._caches.values()):
                cache = reference()
                if cache is None:
                    continue
                began = time.thread_time()
                try:
                    more = reading <= 0
                    for _ in range(PIECES if reading > 0 else 0):
                        more = cache._work()
                        spent = time.thread_time() - began
                        if not more or spent >= reading:
                            break
                    read = time.thread_time()
                    reading -= read - began
                    behind = behind or (more and reading <= 0)
                    if due:
                        cache._pace(slower)
                    if allowance > 0:
                        cache._train()
                        allowance -= time.thread_time() - read
                    if isinstance(cache, Reports):
                        cache._report()
                except Exception:
                    # A user's timer or callback may raise at any time; learning goes on without this round.
                    _log.exception("a learning step raised; the cache goes on with what it knows")
                del cache       # no reference may outlive the round

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
        for reference in list(self._caches.values()):
            cache = reference()
            if cache is not None:
                cache._forked()
        if self._caches:
            self._start()


WORKER = Worker()
atexit.register(WORKER.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=WORKER._after_fork)
