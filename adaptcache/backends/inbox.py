"""Waiting for another process without asking again and again: one subscription a process, on a connection of its own.

Who waits leaves the name of this process's channel beside the lease; who ends a load publishes the key's name to the
channels it finds there. One thread listens for all waiters, threads and tasks alike. A message may be lost with the
connection: then, and whenever the subscription begins anew, all are woken and look again, and each waits only as long as the
lease that it saw lasts. This file knows neither leases nor values.
"""
from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from typing import Any

IDLE = 30.0         # seconds without a waiter after which the connection is given back
PAUSE = 0.2         # seconds between two attempts to subscribe


class Seat:
    """One waiter's place: `wake` is called, in the listener's thread, when its name is."""

    __slots__ = ("_inbox", "channel", "name", "wake")

    def __init__(self, inbox: Inbox, name: bytes, wake: Callable[[], object]) -> None:
        self._inbox = inbox
        self.channel = inbox.channel
        self.name = name
        self.wake = wake

    def close(self) -> None:
        self._inbox.leave(self)


class Inbox:
    """The waiters of one backend in this process. `subscribe(channel)` gives a redis-py PubSub that has subscribed."""

    def __init__(self, prefix: str, subscribe: Callable[[bytes], Any], troubles: tuple[type[BaseException], ...]) -> None:
        self._prefix = prefix
        self._subscribe = subscribe
        self._troubles = troubles
        self.forked()

    def forked(self) -> None:
        """In a new process: a name of its own, and nobody waits yet."""
        self.channel = f"{self._prefix}::inbox:{os.urandom(12).hex()}".encode()
        self._lock = threading.RLock()      # a waiter that is collected leaves, in whatever thread
        self._seats: dict[bytes, list[Seat]] = {}
        self._thread: threading.Thread | None = None
        self._arrived = threading.Event()
        self._closed = False

    def sit(self, name: bytes, wake: Callable[[], object]) -> Seat:
        seat = Seat(self, name, wake)
        with self._lock:
            self._seats.setdefault(name, []).append(seat)
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._listen, name="adaptcache-inbox", daemon=True)
                self._thread.start()
            self._arrived.set()
        return seat

    def leave(self, seat: Seat) -> None:
        with self._lock:
            seats = self._seats.get(seat.name, [])
            if seat in seats:
                seats.remove(seat)
            if not seats:
                self._seats.pop(seat.name, None)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            thread = self._thread
            self._arrived.set()
        self._call_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join(5.0)

    def _call(self, name: bytes) -> None:
        with self._lock:
            seats = list(self._seats.get(name, ()))
        for seat in seats:
            seat.wake()

    def _call_all(self) -> None:
        with self._lock:
            seats = [seat for each in list(self._seats.values()) for seat in each]
        for seat in seats:
            seat.wake()

    def _listen(self) -> None:
        while self._goes_on():
            try:
                pubsub = self._subscribe(self.channel)
            except self._troubles:
                self._rest()
                continue
            try:
                while self._goes_on():
                    message = pubsub.get_message(timeout=1.0)
                    if message is None:
                        continue
                    if message["type"] == "message":
                        self._call(message["data"])
                    else:
                        self._call_all()        # what was published before this has not been heard
            except self._troubles:
                self._call_all()
                self._rest()
            finally:
                pubsub.close()

    def _rest(self) -> None:
        threading.Event().wait(PAUSE * random.uniform(0.5, 1.5))

    def _goes_on(self) -> bool:
        """False ends the thread: closed, or nobody has waited for long."""
        with self._lock:
            if self._closed:
                return False
            if self._seats:
                return True
            self._arrived.clear()
        if self._arrived.wait(IDLE):
            return not self._closed
        with self._lock:
            if self._seats:
                return True
            self._thread = None
            return False
