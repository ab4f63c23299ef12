"""Invalidations that the server has not heard of yet, and the thread that goes on telling it.

What is owed is not served by this process from the server: a key, a tag or a whole space. A debt is told of when it is made
(event, log, stats), tried again with growing, jittered pauses until the server has confirmed it, and told of again then. It
is never dropped: `close` tries once more and says loudly what it had to leave. Beyond MOST keys a space is owed instead.
Delivering twice is harmless: at worst a newer value is lost.
"""
from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Mapping
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


class _Debt:
    """One thing that is owed: an object of its own each time, so that what is owed anew while it is delivered is told apart."""

    __slots__ = ("key", "name", "space")

    def __init__(self, key: Any, space: Owing, name: Name | None = None) -> None:
        self.key = key      # as the events have it: a key, a tag, or None for a space
        self.space = space
        self.name = name


class Debts:
    """What one backend owes. `tell(kind, key, error)` hears of it."""

    def __init__(self, tell: Callable[[str, Any, BaseException | None], None], troubles: type[BaseException]) -> None:
        self._tell = tell
        self._troubles = troubles
        self.keys: dict[bytes, _Debt] = {}
        self.tags: dict[str, _Debt] = {}
        self.spaces: dict[str, _Debt] = {}
        self.delivered = 0
        self.forked()

    def forked(self) -> None:
        self._lock = threading.RLock()
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
            self._owe(self.keys, name.value, _Debt(key, space, name), error)

    def owe_tag(self, tag: str, space: Owing, error: BaseException | None) -> None:
        self._owe(self.tags, tag, _Debt(tag, space), error)

    def owe_space(self, space: Owing, error: BaseException | None) -> None:
        self._owe(self.spaces, space.names.space, _Debt(None, space), error)

    def _owe(self, books: dict[Any, _Debt], at: Any, debt: _Debt, error: BaseException | None) -> None:
        with self._lock:
            books[at] = debt
            self._begin()
        self._tell("undelivered", debt.key, error)

    def of(self, names: Iterable[Name]) -> dict[bytes, _Debt]:
        """What is owed of these keys at this moment: what `paid` may strike out once the server has heard of them."""
        keys = self.keys
        return {name.value: debt for name in names if (debt := keys.get(name.value)) is not None} if keys else {}

    def paid(self, owed: Mapping[bytes, _Debt], name: Name) -> None:
        """A newer value, or a removal, has reached the server: what was owed of this key before is not owed any more."""
        debt = owed.get(name.value)
        if debt is not None:
            with self._lock:
                if self.keys.get(name.value) is debt:
                    del self.keys[name.value]

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
            for named, debt in list(self.spaces.items()):
                # Of this space, and owed before the server is told: a clear is as good. What is owed from now on is not covered.
                covered = [(at, each) for at, each in list(self.keys.items()) if each.space.names.space == named]
                debt.space.deliver_clear()
                self._settle(self.spaces, [(named, debt)])
                self._settle(self.keys, covered)
            for tag, debt in list(self.tags.items()):
                debt.space.deliver_tag(tag)
                self._settle(self.tags, [(tag, debt)])
            while self.keys:
                some = list(self.keys.items())[:BATCH]
                space = some[0][1].space
                mine = [(at, debt) for at, debt in some if debt.space is space]
                space.deliver_keys([debt.name for _, debt in mine if debt.name is not None])
                self._settle(self.keys, mine)
        except self._troubles:
            return False
        return True

    def _settle(self, books: dict[Any, _Debt], told: Iterable[tuple[Any, _Debt]]) -> None:
        for at, debt in told:
            with self._lock:
                if books.get(at) is not debt:
                    continue        # owed anew meanwhile, or paid
                del books[at]
                self.delivered += 1
            self._tell("delivered", debt.key, None)

    def close(self) -> None:
        """Try once more, and say what is left."""
        with self._lock:
            self._closed = True
            thread = self._thread
            self._wake.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(10.0)
        if len(self) and not self._try():
            for books in (self.keys, self.tags, self.spaces):
                for debt in list(books.values()):
                    self._tell("forgotten", debt.key, None)
