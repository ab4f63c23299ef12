"""Joining whoever loads a key: what it loaded, or the lease.

JOIN reads again, or takes the lease, or hears how long another holds it. Who does not get it waits in the inbox, no longer than that lease
lasts as far as it knows, and joins again: the lease of a living owner was renewed by then (`keeper`).
"""
from __future__ import annotations

import math
import random
import time
from typing import Any

from adaptcache.backends import header
from adaptcache.backends.keeper import Keeper
from adaptcache.backends.names import Name
from adaptcache.backends.reading import Reader
from adaptcache.backends.scripts import JOIN, send_one
from adaptcache.backends.space import Space
from adaptcache.backends.steps import Listen, Plan, Ticket, Wait
from adaptcache.backends.versions import versions_of
from adaptcache.flights import MISSING

JITTER = 0.05           # seconds, so that those who waited for a dead owner do not come at once


class Leases:
    """The plans on the leases of one space."""

    def __init__(self, space: Space, reader: Reader, keeper: Keeper) -> None:
        self.keeper = keeper
        self.milliseconds = b"%d" % math.ceil(keeper.lease * 1000)
        self._patience = keeper.longest + keeper.lease
        self._space = space
        self._reader = reader
        self._generations = space.generations
        self._counted = space.counted

    def acquire(self, key: Any, name: Name, token: bytes, seen: bytes) -> Plan[tuple[Any, bytes | None, bool]]:
        """(value, ..) if there is one now; (MISSING, generation, whether we had waited) with the lease; (MISSING, None, True)
        after waiting for as long as is allowed."""
        ticket: Ticket | None = None
        limit = time.monotonic() + self._patience
        try:
            while True:
                channel = b"" if ticket is None else ticket.channel
                data, generation, mine, ms = yield from send_one(JOIN, name, token, self.milliseconds, channel, header.token(), seen)
                self._generations[name.generation] = generation
                if mine:
                    return MISSING, generation, ticket is not None
                if data is not None:
                    look, more = self._reader.judge(key, name, generation, data, {})
                    if more:
                        look, _ = self._reader.judge(key, name, generation, data, (yield from versions_of(self._space, more)))
                    if look.hit:
                        return look.value, generation, True
                    seen = look.seen
                    continue
                left = limit - time.monotonic()
                if left <= 0:
                    return MISSING, None, True
                if ticket is None:
                    ticket = yield Listen(name.value)
                    self._counted.waits += 1
                    continue
                yield Wait(ticket, min(left, ms / 1000 + random.uniform(0.0, JITTER)))
        finally:
            if ticket is not None:
                ticket.close()
