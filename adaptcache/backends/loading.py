"""Loading a key that was not found, once over all processes.

A load: read; if that misses, join (`leases`); then either load and store under the lease, or have what another process
loaded. Where the server cannot be asked, the load is done here, and its result kept for a short while (the shelf of `space`).
"""
from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from adaptcache.backends import header
from adaptcache.backends.deadlines import milliseconds
from adaptcache.backends.leases import Leases
from adaptcache.backends.names import Name
from adaptcache.backends.reading import Look
from adaptcache.backends.scripts import RELEASE, STORE, send_one
from adaptcache.backends.space import Space, Wanted
from adaptcache.backends.steps import Plan, Run, Trouble
from adaptcache.backends.versions import make_versions
from adaptcache.backends.writing import Writer
from adaptcache.flights import MISSING

LOADS = 3       # of one caller, when what it loaded was invalidated meanwhile


class Loader:
    """The plans that load one key of a space."""

    def __init__(self, space: Space, writer: Writer, leases: Leases) -> None:
        self._space = space
        self._writer = writer
        self._leases = leases
        self._keeper = leases.keeper
        self._events = space.events
        self._tags = space.tags
        self._counted = space.counted

    def load(self, key: Any, name: Name, loader: Callable[[], Any], wanted: Wanted, look: Look) -> Plan[Any]:
        """The value of a key that `ask` did not find, loaded here only if no other process is at it."""
        if not look.well:
            return (yield from self._alone(key, name, loader, wanted))
        kept = self._space.sheltered(name)
        if kept is not MISSING:
            return kept         # read, but what was loaded could not be written
        value: Any = MISSING
        for _ in range(LOADS):
            value, final = yield from self.load_once(key, name, loader, wanted, look.seen)
            if final:
                break
        return value

    def load_once(self, key: Any, name: Name, loader: Callable[[], Any], wanted: Wanted, seen: bytes) -> Plan[tuple[Any, bool]]:
        """A value, and whether it may be returned: False if it was invalidated while it was loaded."""
        token = os.urandom(16)
        epoch = self._space.epoch
        try:
            versions = yield from make_versions(self._space, wanted.tags)
            found, generation, waited = yield from self._leases.acquire(key, name, token, seen)
        except Trouble as trouble:
            self._space.failed("write-failed", key, trouble)
            return (yield from self._alone(key, name, loader, wanted)), True
        if found is not MISSING:
            return found, True
        if generation is None:
            self._events.tell("impatient", key)
            return (yield from self.run(loader))[0], True
        if waited:
            self._events.tell("took-over", key)
        hold = self._keeper.hold(key, token, [(name, generation)])
        try:
            value, seconds = yield from self.run(loader)
            data, left = self._writer.payload(key, name, value, wanted, seconds)
        except GeneratorExit:
            raise
        except BaseException:
            yield from self._release(key, name, token)
            raise
        finally:
            self._keeper.let_go(hold)
        if left <= 0:
            yield from self._release(key, name, token)      # past its own deadline already
            return value, True
        try:
            stored = yield from send_one(STORE, name, token, generation, header.pack(generation, versions) + data, milliseconds(left))
        except Trouble as trouble:
            self._space.failed("write-failed", key, trouble)
            self._space.shelter(key, name, value, wanted.ttl, epoch)
            return value, True
        if stored == 1:
            self._counted.inserts += 1
            if versions:
                self._tags[name.value] = wanted.tags
            return value, True
        self._events.tell("lease-lost", key)
        return value, stored == -1 or not hold.was_taken(name)

    def _release(self, key: Any, name: Name, token: bytes) -> Plan[None]:
        """Give the lease back: others need not wait until it ends."""
        try:
            yield from send_one(RELEASE, name, token)
        except Trouble as trouble:
            self._space.failed("write-failed", key, trouble)

    def run(self, loader: Callable[[], Any]) -> Plan[tuple[Any, float]]:
        start = time.perf_counter()
        try:
            value = yield Run(loader)
        except BaseException:
            self._counted.load_failures += 1
            raise
        seconds = time.perf_counter() - start
        self._counted.loads += 1
        self._counted.load_seconds += seconds
        return value, seconds

    def _alone(self, key: Any, name: Name, loader: Callable[[], Any], wanted: Wanted) -> Plan[Any]:
        """Without the server: what was loaded lately, or a load whose result is kept for a short while."""
        kept = self._space.sheltered(name)
        if kept is not MISSING:
            return kept
        epoch = self._space.epoch
        self._counted.alone += 1
        value, _ = yield from self.run(loader)
        self._space.shelter(key, name, value, wanted.ttl, epoch)
        return value
