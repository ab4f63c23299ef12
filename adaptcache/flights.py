"""One load per key at a time, over all threads, tasks and event loops.

The first caller of a key leads: it loads, stores, and only then do those who asked meanwhile wake.
A second caller sees

- the leader's value, or the very exception that the leader's loader (or `store`) raised; after an
  exception nothing is stored and the next call loads again;
- its own turn to load, when the leader was interrupted rather than failed: KeyboardInterrupt,
  SystemExit, a cancelled load, a fork, an event loop that was closed or stopped under it. Such an
  exception is the leader's alone;
- `RecursiveLoadError` instead of a wait that could never end: its own load, directly or through
  other keys, threads, caches and loops, is what it would wait for. A task or thread that inherits
  the context of a load counts as part of that load.

A second caller that is cancelled leaves alone. So does the first: an async load runs in a task of
its own, and is let finish (and store its value) even when every caller was cancelled.

This file does not know what a cache is: it calls `recheck` and `store` and never looks inside.
It runs user code (a key's `__hash__` and `__eq__`, loaders, both hooks) only while it holds no lock.
"""
from __future__ import annotations

import asyncio
import math
import os
import threading
from collections.abc import Awaitable, Callable, Hashable
from contextvars import Context, ContextVar, copy_context
from enum import Enum
from functools import partial
from threading import get_ident
from time import perf_counter
from types import TracebackType
from typing import Any, Final, TypeVar
from weakref import ReferenceType, WeakSet, ref

from adaptcache.errors import RecursiveLoadError

__all__ = ("MISSING", "Flights", "Missing", "detached")

T = TypeVar("T")


class Missing(Enum):
    MISSING = "missing"


MISSING: Final = Missing.MISSING

# How often a waiter looks whether the foreign event loop that leads its load still runs. Landing
# wakes waiters at once; this is only for a loop that was stopped or closed without a word.
PATROL_SECONDS = 0.25

Place = int | asyncio.AbstractEventLoop  # where a flight runs: a thread's ident, or an event loop
Recheck = Callable[[], "T | Missing"]


class Flight:
    """One load in the air. Landed with neither value nor error, it leaves its waiters to load themselves.

    A flight holds an error, the error its traceback, the traceback the frames it passed: no such
    frame may hold the flight when it is left, or all of them live until the garbage collector comes.
    """

    __slots__ = (
        "__weakref__",
        "awaits",     # flights that code inside this load leads or waits for
        "error",
        "hash",
        "key",
        "landed",
        "place",
        "stores",     # False once forgotten: the value is handed out, not stored
        "task",       # the event loop keeps only weak references to its tasks
        "traceback",
        "value",
        "wakes",      # one callable per waiter, in the order of their coming
    )

    def __init__(self, key: Hashable, hash_: int, place: Place) -> None:
        self.key = key
        self.hash = hash_
        self.place = place
        self.task: asyncio.Task[None] | None = None
        self.value: Any = MISSING
        self.error: Exception | None = None
        self.traceback: TracebackType | None = None
        self.landed = False
        self.stores = True
        self.wakes: dict[Callable[[], object], None] = {}
        self.awaits: list[Flight] = []

    def fail(self, error: Exception) -> None:
        self.error = error
        self.traceback = error.__traceback__

    def result(self) -> Any:
        """The value, MISSING if there is none, or raise the error."""
        if self.error is None:
            return self.value
        try:
            # From the loader's own traceback: otherwise each waiter's frames would pile up on it.
            raise self.error.with_traceback(self.traceback)
        finally:
            del self

    def is_grounded(self) -> bool:
        """Led by an event loop that no longer runs. A loop that is merely paused costs a second load."""
        return not isinstance(self.place, int) and (self.place.is_closed() or not self.place.is_running())


# One lock and one graph of waits for all flights of the process, for a deadlock can span caches. It
# guards every table and the two structures below, for a few operations on ints at a time.
_lock = threading.RLock()
_blocked: dict[Place, Flight] = {}  # a thread that waits, and the loop that it thereby stops
_everyone: WeakSet[Flights] = WeakSet()

# The flight that the running code is part of. Weak, since a task that a loader starts keeps this
# context, and must not keep the loaded value.
_current: ContextVar[ReferenceType[Flight] | None] = ContextVar("adaptcache_flight", default=None)


class Loads:
    """How many loads there were, how many failed, and the seconds that the rest took."""

    __slots__ = ("done", "failed", "seconds")

    def __init__(self) -> None:
        self.done = 0
        self.failed = 0
        self.seconds = 0.0

    def land(self, seconds: float) -> None:
        self.done += 1
        self.seconds += seconds


class Flights:
    """The loads of one cache that are in the air, timed by the cache's own timer if it has one."""

    def __init__(self, timer: Callable[[], float] | None = None) -> None:
        self._timer = timer
        # By hash, not by key: a dict of user keys would run their `__eq__` inside its operations,
        # which then are neither atomic nor free of exceptions; and landing could fail.
        self._table: dict[int, tuple[Flight, ...]] = {}
        self.loads = Loads()
        _everyone.add(self)

    def __len__(self) -> int:
        return sum(map(len, list(self._table.values())))

    def __bool__(self) -> bool:
        return bool(self._table)

    def __reduce__(self) -> tuple[type[Flights], tuple[Callable[[], float] | None]]:
        return Flights, (self._timer,)  # a copy has nothing in the air

    def load(
        self,
        key: Hashable,
        loader: Callable[..., T],
        store: Callable[[T, float], object],
        recheck: Recheck[T] | None = None,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] = {},  # noqa: B006 - read only
    ) -> T:
        """`loader(*args, **kwargs)`, or what the load of `key` that is under way comes to.

        `store(value, seconds)` is called once, by the leader. `recheck()` is asked once by a caller
        that became leader: a flight may have landed between its miss and its joining here.
        """
        if _lock._is_owned():  # type: ignore[attr-defined]
            # A finalizer or signal handler that interrupted this very thread in one of the few
            # operations below. To wait here would be for ever; so it loads for itself.
            start = (self._timer or perf_counter)()
            value = loader(*args, **kwargs)
            seconds = _lasted(start, (self._timer or perf_counter)())
            self.loads.land(seconds)
            store(value, seconds)
            return value
        caller = None
        while True:
            flight, leads = self._join(key, get_ident())
            try:
                if not leads:
                    self._wait(flight)
                    value = flight.result()
                    if value is MISSING:
                        continue
                    return value
                # The leader's part stands here and not in a method, and calls the loader with its
                # arguments and not a partial of it: a recursive function pays for every frame
                # between itself and itself, and since CPython 3.12 dearly for those in C.
                caller = _caller()
                if caller is not None:
                    caller.awaits.append(flight)
                token = _current.set(ref(flight))
                try:
                    found = MISSING if recheck is None else recheck()
                    if found is MISSING:
                        start = (self._timer or perf_counter)()
                        try:
                            value = loader(*args, **kwargs)
                        except BaseException:
                            self.loads.failed += 1
                            raise
                        seconds = _lasted(start, (self._timer or perf_counter)())
                        self.loads.land(seconds)
                        if flight.stores:
                            store(value, seconds)
                    else:
                        value = found
                    flight.value = value
                    return value
                except Exception as error:
                    flight.fail(error)
                    raise
                finally:
                    _current.reset(token)
                    if caller is not None:
                        caller.awaits.remove(flight)
            finally:
                if leads:
                    self._land(flight)
                caller = None
                del flight

    async def aload(
        self,
        key: Hashable,
        loader: Callable[[], Awaitable[T]],
        store: Callable[[T, float], object],
        recheck: Recheck[T] | None = None,
    ) -> T:
        """`load` for tasks: awaits `loader()`; `store` and `recheck` are plain functions here too."""
        loop = asyncio.get_running_loop()
        caller = None
        while True:
            flight, leads = self._join(key, loop)
            task = None
            try:
                landed = loop.create_future()
                wake = partial(_wake, loop, landed)
                caller = _enrol(flight, wake, (get_ident(),), blocks=False)
                try:
                    if leads:
                        task = self._launch(flight, loop, loader, store, recheck)
                    await self._landing(flight, loop, landed)
                finally:
                    _withdraw(flight, wake, caller)
                value = flight.result()
                if value is not MISSING:
                    return value  # type: ignore[no-any-return]
                if task is not None and task.done():
                    task.result()  # raises what interrupted it
            finally:
                if leads and task is None:
                    self._land(flight)  # it never took off
                caller = None
                del flight, task

    def forget(self, key: Hashable) -> None:
        """Let the next caller of `key` load anew. A load in the air still serves those who wait for
        it, but no longer stores, unless it has begun to."""
        digest = hash(key)
        for flight in self._table.get(digest, ()):
            if flight.key is key or flight.key == key:
                with _lock:
                    flight.stores = False
                    self._remove(flight)

    def forget_all(self) -> None:
        with _lock:
            table, self._table = self._table, {}
            for bucket in table.values():
                for flight in bucket:
                    flight.stores = False

    def _join(self, key: Hashable, place: Place) -> tuple[Flight, bool]:
        """The flight of `key`, and whether the caller leads it."""
        digest = hash(key)
        mine: Flight | None = None
        compared: tuple[Flight, ...] = ()
        while True:
            bucket = self._table.get(digest, ())
            for flight in bucket:
                if flight not in compared and (flight.key is key or flight.key == key):
                    return flight, False
            compared = bucket
            mine = mine or Flight(key, digest, place)
            with _lock:
                # Buckets are never changed, only replaced: the same one means that no flight came
                # or went while `==` ran.
                if self._table.get(digest, ()) is bucket:
                    self._table[digest] = (*bucket, mine)
                    return mine, True

    def _land(self, flight: Flight) -> None:
        if flight.landed:
            return
        with _lock:
            wakes, flight.wakes = flight.wakes, {}
            task, flight.task = flight.task, None  # let go when the lock is no longer held
            flight.landed = True
            flight.stores = False
            self._remove(flight)
        for wake in wakes:
            wake()
        del task

    def _remove(self, flight: Flight) -> None:
        rest = tuple(other for other in self._table.get(flight.hash, ()) if other is not flight)
        if rest:
            self._table[flight.hash] = rest
        else:
            self._table.pop(flight.hash, None)

    def _wait(self, flight: Flight) -> None:
        """Block this thread until `flight` has landed."""
        gate = threading.Lock()
        gate.acquire()
        loop = _running_loop()
        places: tuple[Place, ...] = (get_ident(),) if loop is None else (get_ident(), loop)
        caller = None
        try:
            if flight.is_grounded():
                self._land(flight)
            caller = _enrol(flight, gate.release, places, blocks=True)
            try:
                while not gate.acquire(timeout=-1 if isinstance(flight.place, int) else PATROL_SECONDS):
                    if flight.is_grounded():
                        self._land(flight)
            finally:
                _withdraw(flight, gate.release, caller, places)
        finally:
            del flight, caller

    async def _landing(
        self, flight: Flight, loop: asyncio.AbstractEventLoop, landed: asyncio.Future[None]
    ) -> None:
        """Wait in `loop` until `flight` has landed."""
        if flight.place is loop or isinstance(flight.place, int):
            await landed
            return
        while not landed.done():
            if flight.is_grounded():
                self._land(flight)
            await asyncio.wait((landed,), timeout=PATROL_SECONDS)

    def _launch(
        self,
        flight: Flight,
        loop: asyncio.AbstractEventLoop,
        loader: Callable[[], Awaitable[T]],
        store: Callable[[T, float], object],
        recheck: Recheck[T] | None,
    ) -> asyncio.Task[None]:
        work = self._fly(flight, loader, store, recheck)
        try:
            task = loop.create_task(work)
        except BaseException:
            work.close()
            raise
        if not flight.landed:  # an eager task may be through already
            flight.task = task
            # A task that is cancelled before its first step never enters `_fly`.
            task.add_done_callback(lambda _: self._land(flight))
        return task

    async def _fly(
        self,
        flight: Flight,
        loader: Callable[[], Awaitable[T]],
        store: Callable[[T, float], object],
        recheck: Recheck[T] | None,
    ) -> None:
        """The leader's part of an async load, in a task of its own."""
        _current.set(ref(flight))
        try:
            value = MISSING if recheck is None else recheck()
            if value is MISSING:
                start = (self._timer or perf_counter)()
                try:
                    value = await loader()
                except BaseException:
                    self.loads.failed += 1
                    raise
                seconds = _lasted(start, (self._timer or perf_counter)())
                self.loads.land(seconds)
                if flight.stores:
                    store(value, seconds)
            flight.value = value
        except Exception as error:
            flight.fail(error)
            if not flight.wakes:
                raise  # all callers were cancelled: asyncio logs what nobody retrieves
        finally:
            self._land(flight)
            del flight


def _lasted(start: float, end: float) -> float:
    """Seconds between two readings of a clock that may jump back, stand still or say NaN."""
    seconds = end - start
    return seconds if 0 < seconds < math.inf else 0.0


def _caller() -> Flight | None:
    """The flight that the calling code is part of."""
    current = _current.get()
    flight = None if current is None else current()
    return None if flight is None or flight.landed else flight


def _enrol(
    flight: Flight, wake: Callable[[], object], places: tuple[Place, ...], *, blocks: bool
) -> Flight | None:
    """Have `wake` called when `flight` lands, and enter the wait in the graph, or refuse it."""
    caller = _caller()
    with _lock:
        landed = flight.landed
        refused = not landed and _waits_for(flight, caller, places)
        if not landed and not refused:
            flight.wakes[wake] = None
            if caller is not None:
                caller.awaits.append(flight)
            if blocks:
                _blocked.update(dict.fromkeys(places, flight))
    if refused:
        error = RecursiveLoadError(flight.key)
        del flight, caller
        try:
            raise error
        finally:
            del error
    if landed:
        wake()
        return None
    return caller


def _withdraw(
    flight: Flight, wake: Callable[[], object], caller: Flight | None, places: tuple[Place, ...] = ()
) -> None:
    with _lock:
        flight.wakes.pop(wake, None)
        if caller is not None:
            caller.awaits.remove(flight)
        for place in places:
            _blocked.pop(place, None)


def _waits_for(flight: Flight, caller: Flight | None, places: tuple[Place, ...]) -> bool:
    """Does `flight` wait, through any number of others, for the caller, or for a place that it holds up?"""
    seen: set[Flight] = set()
    ahead = [flight]
    while ahead:
        flight = ahead.pop()
        if flight is caller or flight.place in places:
            return True
        if flight not in seen:
            seen.add(flight)
            ahead.extend(flight.awaits)
            blocker = _blocked.get(flight.place)
            if blocker is not None:
                ahead.append(blocker)
    return False


def _wake(loop: asyncio.AbstractEventLoop, landed: asyncio.Future[None]) -> None:
    try:
        loop.call_soon_threadsafe(_set, landed)
    except RuntimeError:
        pass  # that loop is closed, and the waiter gone with it


def _set(landed: asyncio.Future[None]) -> None:
    if not landed.done():
        landed.set_result(None)


def detached() -> Context:
    """The caller's context, but part of no load: for a load that is begun here and that nobody here waits for."""
    context = copy_context()
    context.run(_current.set, None)
    return context


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _after_fork() -> None:
    """In the child only the forking thread goes on; the loads that it leads itself are kept."""
    global _lock
    _lock = threading.RLock()  # another thread may have held it
    _blocked.clear()
    here = get_ident()
    for flights in list(_everyone):
        buckets, flights._table = flights._table, {}
        for digest, bucket in buckets.items():
            for flight in bucket:
                flight.wakes = {}
                flight.landed = flight.place != here
            kept = tuple(flight for flight in bucket if not flight.landed)
            if kept:
                flights._table[digest] = kept


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
