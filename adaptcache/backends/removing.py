"""Removing keys and invalidating spaces and tags; and what `debts` does with those that the server has not heard of.

The lease goes first: an owner must not store between the two. A space is cleared by a new generation, a tag is invalidated by a
new version: values that carry the old ones are no longer there. What could not be said is owed.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from adaptcache.backends import header
from adaptcache.backends.names import Name
from adaptcache.backends.reading import Reader
from adaptcache.backends.space import Space
from adaptcache.backends.steps import CHUNK, Batch, Call, Command, Plan, Trouble
from adaptcache.backends.versions import TAG_MS


class Remover:
    """The plans that remove from one space. `run` is a synchronous driver's, for what is delivered later."""

    def __init__(self, space: Space, reader: Reader, run: Callable[[Plan[Any]], Any]) -> None:
        self.names = space.names
        self._space = space
        self._reader = reader
        self._run = run
        self._deadlines = space.deadlines
        self._debts = space.debts
        self._generations = space.generations

    def delete(self, key: Any, name: Name) -> Plan[bool | None]:
        """Remove a key; was there one? None: the server could not be told yet, and will be."""
        return (yield from self.delete_many([(key, name)]))[0]

    def delete_many(self, keys: Sequence[tuple[Any, Name]]) -> Plan[list[bool | None]]:
        names = [name for _, name in keys]
        self._space.changed(names)
        results: list[bool | None] = []
        try:
            for first in range(0, len(keys), CHUNK):
                part = keys[first:first + CHUNK]
                commands: list[Command] = []
                for _, name in part:
                    # The lease first: an owner must not store between the two.
                    commands += (("UNLINK", name.lease), ("GET", name.generation), ("GETRANGE", name.value, b"2", b"9"),
                                 ("UNLINK", name.value))
                owed = self._debts.of(name for _, name in part)
                answers = yield Batch(commands)
                for at, (key, name) in enumerate(part):
                    answer = answers[4 * at:4 * at + 4]
                    bad = next((each for each in answer if isinstance(each, Trouble)), None)
                    if bad is not None:
                        self._space.failed("write-failed", key, bad)
                        self.owe(key, name, bad)
                        results.append(None)
                    else:
                        self._debts.paid(owed, name)
                        self._deadlines.gone(name.value)
                        results.append(answer[3] == 1 and answer[1] is not None and answer[1] == answer[2])
        finally:
            self._space.changed(names)
        return results

    def pop(self, key: Any, name: Name) -> Plan[Any]:
        """Remove a key and return its value, or MISSING."""
        look = yield from self._reader.look(key, name)
        yield from self.delete(key, name)
        return look.value

    def owe(self, key: Any, name: Name, why: Trouble) -> None:
        self._debts.owe_key(key, name, self, why.error)

    def remove(self, key: Any, name: Name, why: Trouble) -> Plan[None]:
        """Remove what a write that failed, for `why`, has left there."""
        try:
            yield Call(("UNLINK", name.lease, name.value))
        except Trouble as trouble:
            self.owe(key, name, trouble if trouble.error is not None else why)
        else:
            self._deadlines.gone(name.value)

    def clear(self) -> Plan[bool]:
        """Give every bucket a new generation; True when the server has them."""
        self._space.changed(None)
        try:
            yield from self.clear_now()
        except Trouble as trouble:
            self._space.failed("write-failed", None, trouble)
            self._debts.owe_space(self, trouble.error)
            return False
        finally:
            self._space.changed(None)
        return True

    def clear_now(self) -> Plan[None]:
        fresh = {place: header.token() for place in self.names.generations}
        self._generations.clear()
        for answer in (yield Batch([("SET", place, generation) for place, generation in fresh.items()])):
            if isinstance(answer, Trouble):
                raise answer
        self._generations.update(fresh)

    def invalidate_tag(self, tag: str) -> Plan[bool]:
        """Give a tag a new version; True when the server has it."""
        self._space.changed(None)
        try:
            yield from self.invalidate_tag_now(tag)
        except Trouble as trouble:
            self._space.failed("write-failed", tag, trouble)
            self._debts.owe_tag(tag, self, trouble.error)
            return False
        finally:
            self._space.changed(None)
        return True

    def invalidate_tag_now(self, tag: str) -> Plan[None]:
        yield Call(("SET", self.names.tag(tag), header.token(), b"PX", TAG_MS))

    def remove_now(self, names: Sequence[Name]) -> Plan[None]:
        for answer in (yield Batch([("UNLINK", name.lease, name.value) for name in names])):
            if isinstance(answer, Trouble):
                raise answer

    # What `debts` calls, in its thread.

    def deliver_keys(self, names: list[Name]) -> None:
        self._run(self.remove_now(names))

    def deliver_clear(self) -> None:
        self._run(self.clear_now())

    def deliver_tag(self, tag: str) -> None:
        self._run(self.invalidate_tag_now(tag))
