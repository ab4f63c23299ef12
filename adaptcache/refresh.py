"""Reloads behind the requests' back, and answers while loads fail.

The core says *that* a value should be reloaded (`fresh.pxd`); who called knows *how*. What lives here is the way between:
in a thread of the pool for a plain loader, in a task of the running loop for a coroutine, and with `learner="manual"`
in a list that the user works off. Every reload is a flight like any other, so a request that finds nothing meanwhile
joins it. Its value is stored only if nothing was stored or deleted under the key since it began.

A load that fails is tried again after 1, 2, 4 ... seconds, a minute at the most. Meanwhile, with `fail_safe`, requests
get the last good value, which the core keeps for that time and never past the entry's ceiling.

This file knows neither deadlines nor change rates.
"""
from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from functools import partial
from typing import Any, Protocol
from weakref import ref

from adaptcache import digests
from adaptcache.background import POOL
from adaptcache.errors import RecursiveLoadError
from adaptcache.flights import MISSING, Flights, detached

_log = logging.getLogger("adaptcache")

FIRST = 1.0         # seconds until a load that failed once is tried again
LONGEST = 60.0
QUIET = 60.0        # seconds between two log lines about failures
REMEMBERED = 1024   # keys whose loads failed

Store = Callable[[Any, float], object]


class Refreshed(Protocol):
    """What is needed of a cache."""

    def _last_good(self, key: Any) -> Any: ...
    def _refresh_failed(self, key: Any) -> None: ...


class Refresher:
    """The reloads of one cache."""

    def __init__(self, cache: Refreshed, flights: Flights, clock: Callable[[], float], *, manual: bool,
                 fail_safe: bool, missing: object) -> None:
        self._cache = ref(cache)
        self._flights = flights
        self._clock = clock
        self._manual = manual
        self._fail_safe = fail_safe
        self._missing = missing
        self._resting: dict[Hashable, tuple[int, float]] = {}   # key -> failures in a row, time of the next attempt
        self._due: list[tuple[Hashable, Callable[[], Any], Store]] = []
        self._adue: list[tuple[Hashable, Callable[[], Awaitable[Any]], Store]] = []
        self._tasks: set[asyncio.Task[None]] = set()            # a loop keeps only weak references
        self._quiet_until = -float("inf")
        self._unsaid = 0
        self.failures = 0       # of reloads behind the requests' back

    # -- loads that somebody waits for

    def load(self, key: Hashable, loader: Callable[..., Any], store: Store, recheck: Callable[[], Any] | None = None,
             args: tuple[Any, ...] = (), kwargs: dict[str, Any] = {}) -> Any:  # noqa: B006 - read only
        """`Flights.load`, or the last good value of a key whose load fails."""
        if not self._fail_safe:
            return self._flights.load(key, loader, store, recheck, args, kwargs)
        kept = self._instead_of_trying(key)
        if kept is not MISSING:
            return kept
        try:
            value = self._flights.load(key, loader, store, recheck, args, kwargs)
        except RecursiveLoadError:
            raise
        except Exception as error:
            return self._instead_of_failing(key, error)
        self._resting.pop(key, None)
        return value

    async def aload(self, key: Hashable, loader: Callable[[], Awaitable[Any]], store: Store,
                    recheck: Callable[[], Any] | None = None) -> Any:
        """`load` for tasks."""
        if not self._fail_safe:
            return await self._flights.aload(key, loader, store, recheck)
        kept = self._instead_of_trying(key)
        if kept is not MISSING:
            return kept
        try:
            value = await self._flights.aload(key, loader, store, recheck)
        except RecursiveLoadError:
            raise
        except Exception as error:
            return self._instead_of_failing(key, error)
        self._resting.pop(key, None)
        return value

    def _last_good(self, key: Hashable) -> Any:
        cache = self._cache()
        value = self._missing if cache is None else cache._last_good(key)
        return MISSING if value is self._missing else value

    def _instead_of_trying(self, key: Hashable) -> Any:
        """The last good value, while a load that failed rests."""
        resting = self._resting.get(key)
        return MISSING if resting is None or self._clock() >= resting[1] else self._last_good(key)

    def _instead_of_failing(self, key: Hashable, error: Exception) -> Any:
        """The last good value of a key whose load has just failed; the failure itself goes on where there is none."""
        kept = self._last_good(key)
        if kept is MISSING:
            raise
        self._rest(key, error)
        return kept

    # -- reloads that nobody waits for

    def start(self, key: Hashable, loader: Callable[[], Any], store: Store) -> None:
        """Have `loader()` called, and `store(value, seconds)` with what it gives. Never raises what they raise."""
        if self._rests(key):
            return
        if self._manual:
            self._due.append((key, loader, store))
            return
        me, context = ref(self), detached()

        def work() -> None:
            refresher = me()
            if refresher is not None:
                context.run(refresher._run, key, loader, store)

        if not POOL.submit(work):
            self._give_up(key)

    def astart(self, key: Hashable, loader: Callable[[], Awaitable[Any]], store: Store) -> None:
        """`start` in the running event loop."""
        if self._rests(key):
            return
        if self._manual:
            self._adue.append((key, loader, store))
            return
        work = self._arun(key, loader, store)
        try:
            task = asyncio.get_running_loop().create_task(work, context=detached())
        except BaseException:
            work.close()
            self._give_up(key)
            raise
        self._tasks.add(task)
        task.add_done_callback(partial(self._ended, key))

    def run_due(self) -> int:
        """Do what `start` has put off, oldest first; how many reloads that were."""
        due, self._due = self._due, []
        for at, work in enumerate(due):
            try:
                self._run(*work)
            except BaseException:
                self._due[:0] = due[at + 1:]
                raise
        return len(due)

    async def arun_due(self) -> int:
        """The same for what `astart` has put off."""
        due, self._adue = self._adue, []
        for at, work in enumerate(due):
            try:
                await self._arun(*work)
            except BaseException:
                self._adue[:0] = due[at + 1:]
                raise
        return len(due)

    def _run(self, key: Hashable, loader: Callable[[], Any], store: Store) -> None:
        try:
            self._flights.load(key, loader, store)
        except Exception as error:
            self._failed(key, error)
        else:
            self._resting.pop(key, None)
        finally:
            self._give_up(key)      # means nothing once the value is stored

    async def _arun(self, key: Hashable, loader: Callable[[], Awaitable[Any]], store: Store) -> None:
        try:
            await self._flights.aload(key, loader, store)
        except Exception as error:
            self._failed(key, error)
        else:
            self._resting.pop(key, None)
        finally:
            self._give_up(key)

    def _ended(self, key: Hashable, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            self._give_up(key)      # it may never have begun

    def _give_up(self, key: Hashable) -> None:
        cache = self._cache()
        if cache is not None:
            cache._refresh_failed(key)

    # -- failures

    def _rests(self, key: Hashable) -> bool:
        resting = self._resting.get(key)
        if resting is None or self._clock() >= resting[1]:
            return False
        self._give_up(key)
        return True

    def _failed(self, key: Hashable, error: Exception) -> None:
        self.failures += 1
        self._rest(key, error)

    def _rest(self, key: Hashable, error: Exception) -> None:
        """Note a failure: when to try again, and a line in the log now and then."""
        now = self._clock()
        times, until = self._resting.get(key, (0, -float("inf")))
        if now < until:
            return      # one attempt failed, and many waited for it
        excess = len(self._resting) + 1 - REMEMBERED
        if excess > 0:
            for oldest in list(self._resting)[:excess]:     # a copy: another thread may be here too
                self._resting.pop(oldest, None)
        self._resting[key] = times + 1, now + min(LONGEST, FIRST * 2.0 ** min(times, 30))
        if now < self._quiet_until:
            self._unsaid += 1
            return
        self._quiet_until = now + QUIET
        unsaid, self._unsaid = self._unsaid, 0
        _log.warning("a reload of key %.200r failed (%s: %.200s); %d more failures since the last such line",
                     key, type(error).__name__, error, unsaid)


class Digest:
    """The digest of a value or None, whatever the user's code does; its exceptions are logged now and then."""

    def __init__(self, function: Callable[[Any], Any] | None, clock: Callable[[], float]) -> None:
        self._of = digests.digest if function is None else digests.by(function)
        self._clock = clock
        self._quiet_until = -float("inf")

    def __call__(self, value: Any) -> int | None:
        try:
            return self._of(value)
        except Exception:
            now = self._clock()
            if now >= self._quiet_until:
                self._quiet_until = now + QUIET
                _log.exception("the digest of a %s raised; whether such values change is not known", type(value).__name__)
            return None
