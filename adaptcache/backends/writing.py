"""Writing: values with their deadlines and the versions of their tags.

A write takes the lease away first: who is loading meanwhile may not overwrite it. The generation is read in the same trip, after
the value was written; if another process cleared the space before, the value is written once more. A value that the server
did not take leaves its predecessor there, which must go.
"""
from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from adaptcache.backends import header
from adaptcache.backends.deadlines import milliseconds
from adaptcache.backends.names import Name
from adaptcache.backends.removing import Remover
from adaptcache.backends.space import Space, Wanted
from adaptcache.backends.steps import CHUNK, Batch, Command, Plan, Trouble
from adaptcache.backends.versions import know_generations, make_versions

TRIES = 3       # of one write, when others clear the space meanwhile


class Writer:
    """The plans that write into one space."""

    def __init__(self, space: Space, remover: Remover) -> None:
        self._space = space
        self._remover = remover
        self._codec = space.codec
        self._deadlines = space.deadlines
        self._debts = space.debts
        self._generations = space.generations
        self._tags = space.tags
        self._counted = space.counted

    def payload(self, key: Any, name: Name, value: Any, wanted: Wanted, seconds: float | None = None) -> tuple[bytes, float]:
        """The serializer's bytes and the seconds until the deadline; raises for what cannot be serialized."""
        now = time.time()
        hard = self._deadlines.hard(key, value, wanted.ttl, now)
        cost = seconds if wanted.cost is None else wanted.cost() if callable(wanted.cost) else wanted.cost
        data = self._codec.dumps(value, birth=now, hard=None if hard is None else max(hard, now), cost=cost or 0.0, context=name.value)
        if hard is not None and hard <= now:
            return data, 0.0
        left = self._deadlines.written(name.value, hard, now, size=float(len(name.value) + len(data)), cost=cost,
                                      namespace=wanted.namespace, features=wanted.features)
        return data, left

    def set(self, key: Any, name: Name, value: Any, wanted: Wanted) -> Plan[None]:
        """Write a value."""
        data, left = self.payload(key, name, value, wanted)
        yield from self.set_many([(key, name, data, left)], wanted.tags)

    def set_many(self, entries: Sequence[tuple[Any, Name, bytes, float]], tags: tuple[str, ...]) -> Plan[None]:
        """Write values that were serialized."""
        if not entries:
            return
        names = [name for _, name, _, _ in entries]
        self._space.changed(names)
        try:
            versions = yield from make_versions(self._space, tags)
            for first in range(0, len(entries), CHUNK):
                yield from self._write(entries[first:first + CHUNK], versions)
        except Trouble as trouble:
            self._space.failed("write-failed", entries[0][0], trouble)
            for key, name, _, _ in entries:
                self._remover.owe(key, name, trouble)
        finally:
            self._space.changed(names)

    def _write(self, entries: Sequence[tuple[Any, Name, bytes, float]], versions: Sequence[tuple[str, bytes]]) -> Plan[None]:
        waiting = list(entries)
        for _ in range(TRIES):
            known = yield from know_generations(self._space, {name.generation for _, name, _, _ in waiting})
            commands: list[Command] = []
            for _, name, data, left in waiting:
                commands.append(("UNLINK", name.lease))
                if left <= 0:
                    commands.append(("UNLINK", name.value))
                else:
                    whole = header.pack(known[name.generation], versions) + data
                    ms = milliseconds(left)
                    commands.append(("SET", name.value, whole, b"PX", ms) if ms else ("SET", name.value, whole))
            places = list(dict.fromkeys(name.generation for _, name, _, _ in waiting))
            commands += [("GET", place) for place in places]
            owed = self._debts.of(name for _, name, _, _ in waiting)
            answers = yield Batch(commands, again=False)
            now = dict(zip(places, answers[2 * len(waiting):], strict=True))
            again, failed = [], []
            for at, entry in enumerate(waiting):
                key, name, _, left = entry
                trouble = next((each for each in answers[2 * at:2 * at + 2] if isinstance(each, Trouble)), None)
                generation = now[name.generation]
                if trouble is not None:
                    self._space.failed("write-failed", key, trouble)
                    failed.append((entry, trouble))
                elif isinstance(generation, Trouble):
                    failed.append((entry, generation))
                else:
                    self._debts.paid(owed, name)
                    self._tags.pop(name.value, None)
                    if versions:
                        self._tags[name.value] = tuple(tag for tag, _ in versions)
                    if left > 0 and generation != known[name.generation]:
                        again.append(entry)
            for place, generation in now.items():
                if generation is None:
                    self._generations.pop(place, None)
                elif not isinstance(generation, Trouble):
                    self._generations[place] = generation
            # What was refused (no memory, read only) has left the old value there, which must go.
            for (key, name, _, _), trouble in failed:
                yield from self._remover.remove(key, name, trouble)
            self._counted.inserts += len(waiting) - len(again) - len(failed)
            waiting = again
            if not waiting:
                break
