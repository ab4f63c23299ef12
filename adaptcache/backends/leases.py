"""The lease of a key: joining whoever loads it, storing under the lease, giving it back. How scripts are sent.

JOIN reads again, or takes the lease, or hears how long another holds it. Who does not get it waits in the inbox, no longer than that lease
lasts, and joins again.
"""
from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from typing import Any

from adaptcache.backends import header
from adaptcache.backends.names import Name
from adaptcache.backends.reading import Reader
from adaptcache.backends.scripts import JOIN, STORE, Script
from adaptcache.backends.space import CHUNK, Space
from adaptcache.backends.steps import Batch, Call, Command, Listen, Plan, Ticket, Trouble, Wait
from adaptcache.backends.versions import versions_of
from adaptcache.flights import MISSING

JITTER = 0.05           # seconds, so that those who waited for a dead owner do not come at once


class Leases:
    """The plans on the leases of one space."""

    def __init__(self, space: Space, reader: Reader) -> None:
        self._space = space
        self._reader = reader
        self._generations = space.generations
        self._counted = space.counted

    def acquire(self, key: Any, name: Name, token: bytes, seen: bytes) -> Plan[tuple[Any, bytes | None, bool]]:
        """(value, ..) if there is one now; (MISSING, generation, whether we had waited) with the lease; (MISSING, None, True)
        after waiting for as long as is allowed."""
        ticket: Ticket | None = None
        limit = time.monotonic() + 2 * self._space.lease
        lease = b"%d" % math.ceil(self._space.lease * 1000)
        try:
            while True:
                channel = b"" if ticket is None else ticket.channel
                data, generation, mine, ms = yield from self.script(JOIN, name, token, lease, channel, header.token(), seen)
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

    def script(self, script: Script, name: Name, *arguments: bytes) -> Plan[Any]:
        answers = yield from self.scripts(script, [(name, arguments)])
        if isinstance(answers[0], Trouble):
            raise answers[0]
        return answers[0]

    def scripts(self, script: Script, calls: Sequence[tuple[Name, tuple[bytes, ...]]]) -> Plan[list[Any]]:
        """A script on the keys of each name. Each may be sent twice: a token that is there already is ours, one that is gone
        stays gone."""
        def command(how: str, what: bytes, call: tuple[Name, tuple[bytes, ...]]) -> Command:
            name, arguments = call
            return (how, what, 4, name.value, name.generation, name.lease, name.waiters, *arguments)

        if not calls:
            return []
        answers: list[Any] = []
        for first in range(0, len(calls), CHUNK):
            part = calls[first:first + CHUNK]
            got: list[Any]
            if len(part) == 1:
                try:
                    got = [(yield Call(command("EVALSHA", script.digest, part[0]), again=script is not STORE))]
                except Trouble as trouble:
                    got = [trouble]
            else:
                got = yield Batch([command("EVALSHA", script.digest, call) for call in part], again=script is not STORE)
            unknown = [at for at, answer in enumerate(got) if isinstance(answer, Trouble) and _unknown_script(answer)]
            if unknown:
                more = yield Batch([command("EVAL", script.text, part[at]) for at in unknown], again=False)
                for at, answer in zip(unknown, more, strict=True):
                    got[at] = answer
            answers += got
        return answers


def _unknown_script(trouble: Trouble) -> bool:
    return type(trouble.error).__name__ == "NoScriptError"
