"""Invalidations that the server has not heard of yet, and the thread that goes on telling it.

What is owed is not served by this process from the server: a key, a tag or a whole space. A debt is told of when it is made
(event, log, stats), tried again with growing, jittered pauses until the server has confirmed it, and told of again then. It
is never dropped: `close` tries once more and says loudly what it had to leave. Beyond MOST keys a space is owed instead.
Delivering twice is harmless: at worst a newer value is lost.
"""
from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any, Protocol

from adaptcache.backends.names import Name

MOST = 50_000           # keys of one space; beyond that the space is cleared
FIRST, LONGEST = 0.1, 5.0
BATCH = 500


class Owing(Protocol):
    """A space that can be told what to tell the server."""

    names: Any

    def deliver_keys(self, names: list[Name]) -> None: ...
    def deliver_clear(self) -> None: ...
    def deliver_tag(self, tag: str) -> None: ...


class Debts:
    """What one backend owes. `tell(kind, key, error)` hears of it."""

    def __init__(self, tell: Callable[[str, Any, BaseException | None], None], troubles: type[BaseException]) -> None:
        self._tell = tell
        self._troubles = troubles
        self.keys: dict[bytes, tuple[Any, Name, Owing]] = {}
        self.tags: dict[str, Owing] = {}
        self.spaces: dict[str, Owing] = {}
        self.delivered = 0
        self.forked()

    def forked(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._closed = False

    def __len__(self) -> int:
        return len(self.keys) + len(self.tags) + len(self.spaces)

    # -- making and asking

    def blocks(self, name: Name, space: str) -> bool:
        """Must this key not be served from the server?"""
        if self._thread is None:
            with self._lock:
                self._begin()       # in a forked child
        return name.value in self.keys or space in self.spaces

    def owe_key(self, key: Any, name: Name, space: Owing, error: BaseException | None) -> None:
        if len(self.keys) >= MOST:
            self.owe_space(space, error)
        else:
            self._owe(self.keys, name.value, (key, name, space), key, error)

    def owe_tag(self, tag: str, space: Owing, error: BaseException | None) -> None:
        self._owe(self.tags, tag, space, tag, error)

    def owe_space(self, space: Owing, error: BaseException | None) -> None:
        self._owe(self.spaces, space.names.space, space, None, error)

    def _owe(self, books: dict[Any, Any], at: Any, what: Any, key: Any, error: BaseException | None) -> None:
        with self._lock:
            books[at] = what
            self._begin()
        self._tell("undelivered", key, error)

    def paid(self, name: Name) -> None:
        """A newer value has reached the server: nothing is owed of this key any more."""
        if self.keys:
            self.keys.pop(name.value, None)

    # -- delivering

    def _begin(self) -> None:
        if self._thread is None and not self._closed:
            self._thread = threading.Thread(target=self._work, name="adaptcache-invalidate", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        pause = FIRST
        while True:
            self._wake.wait(pause * random.uniform(0.5, 1.0))
            with self._lock:
                if self._closed or not len(self):
                    self._thread = None
                    return
            pause = FIRST if self._try() else min(LONGEST, 2 * pause)

    def _try(self) -> bool:
        """Tell the server what is owed; False when it could not be told all."""
        try:
            for named, space in list(self.spaces.items()):
                space.deliver_clear()
                self._settle(self.spaces, named, space, None)
                for value, (_, _, whose) in list(self.keys.items()):
                    if whose is space:
                        self.keys.pop(value, None)
            for tag, space in list(self.tags.items()):
                space.deliver_tag(tag)
                self._settle(self.tags, tag, space, tag)
            while self.keys:
                some = list(self.keys.items())[:BATCH]
                space = some[0][1][2]
                mine = [(at, what) for at, what in some if what[2] is space]
                space.deliver_keys([what[1] for _, what in mine])
                for at, what in mine:
                    self._settle(self.keys, at, what, what[0])
        except self._troubles:
            return False
        return True

    def _settle(self, books: dict[Any, Any], at: Any, what: Any, key: Any) -> None:
        with self._lock:
            if books.get(at) is not what:
                return      # owed anew meanwhile, or paid
            del books[at]
            self.delivered += 1
        self._tell("delivered", key, None)

    def close(self) -> None:
        """Try once more, and say what is left."""
        with self._lock:
            self._closed = True
            thread = self._thread
            self._wake.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(10.0)
        if len(self) and not self._try():
            for key, _, _ in list(self.keys.values()):
                self._tell("forgotten", key, None)
            for tag in list(self.tags):
                self._tell("forgotten", tag, None)
            for _ in list(self.spaces):
                self._tell("forgotten", None, None)
