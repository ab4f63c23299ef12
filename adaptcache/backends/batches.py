"""Loading many keys with one call of the loader: those that nobody has and nobody loads; the others are waited for, one by one."""
from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from adaptcache.backends import header
from adaptcache.backends.deadlines import milliseconds
from adaptcache.backends.keeper import Hold
from adaptcache.backends.leases import Leases
from adaptcache.backends.loading import LOADS, Loader
from adaptcache.backends.names import Name
from adaptcache.backends.reading import Look, Reader
from adaptcache.backends.scripts import JOIN, RELEASE, STORE, send
from adaptcache.backends.space import Space, Wanted
from adaptcache.backends.steps import Plan, Trouble
from adaptcache.backends.versions import make_versions
from adaptcache.backends.writing import Writer
from adaptcache.flights import MISSING


class BatchLoader:
    """The plan that loads many keys of a space."""

    def __init__(self, space: Space, reader: Reader, writer: Writer, leases: Leases, loader: Loader) -> None:
        self._space = space
        self._reader = reader
        self._writer = writer
        self._leases = leases
        self._loader = loader
        self._keeper = leases.keeper
        self._events = space.events
        self._tags = space.tags
        self._generations = space.generations
        self._counted = space.counted

    def load(self, keys: Sequence[tuple[Any, Name]], loader: Callable[[list[Any]], Any], wanted: Wanted) -> Plan[dict[Any, Any]]:
        """The values of many keys; `loader(list of keys)` is asked once for those that nobody has or loads, and gives a mapping."""
        values, asked, alone = yield from self._ask(keys)
        if not asked and not alone:
            return values
        token = os.urandom(16)
        epoch = self._space.epoch
        versions: list[tuple[str, bytes]] = []
        try:
            versions = yield from make_versions(self._space, wanted.tags)
        except Trouble as trouble:
            for key, name, _ in asked:
                self._space.failed("write-failed", key, trouble)
                alone.append((key, name))
            asked = []
        mine, others = yield from self._join(asked, alone, token)
        wanting = [key for key, *_ in (*mine, *alone)]
        loaded: Mapping[Any, Any] = {}
        if wanting:
            hold = self._keeper.hold(None, token, [(name, generation) for _, name, generation in mine])
            stores: list[tuple[Any, Name, tuple[bytes, ...]]] = []
            try:
                loaded, seconds = yield from self._loader.run(lambda: loader(wanting))
                if not isinstance(loaded, Mapping):
                    raise TypeError(f"loader: expected a mapping of keys to values, got {type(loaded).__name__}")
                for key, name, generation in mine:
                    if key in loaded:
                        data, left = self._writer.payload(key, name, loaded[key], wanted, seconds / len(wanting))
                        if left > 0:
                            stores.append((key, name, (token, generation, header.pack(generation, versions) + data, milliseconds(left))))
            except GeneratorExit:
                raise
            except BaseException:
                yield from self._release([(key, name) for key, name, _ in mine], token)
                raise
            finally:
                self._keeper.let_go(hold)
            lost, late = yield from self._store(stores, hold, wanted.tags)
            held = {name.value for _, name, _ in stores}
            yield from self._release([(key, name) for key, name, _ in mine if name.value not in held], token)
            others += late
            for key, name in (*alone, *lost):
                if key in loaded:
                    self._space.shelter(key, name, loaded[key], wanted.ttl, epoch)
        values.update((key, loaded[key]) for key in wanting if key in loaded)
        for key, name in others:
            value = yield from self._load_one_of_many(key, name, loader, wanted)
            if value is not MISSING:
                values[key] = value
        return values

    def _ask(self, keys: Sequence[tuple[Any, Name]]) -> Plan[tuple[dict[Any, Any], list[tuple[Any, Name, Look]], list[tuple[Any, Name]]]]:
        """What is there; what the server does not have; and what it could not be asked for."""
        values: dict[Any, Any] = {}
        asked: list[tuple[Any, Name, Look]] = []
        alone: list[tuple[Any, Name]] = []
        for (key, name), look in zip(keys, (yield from self._reader.look_many(keys)), strict=True):
            self._space.count(look.hit)
            kept = look.value if look.hit else self._space.sheltered(name)
            if kept is not MISSING:
                values[key] = kept
            elif look.well:
                asked.append((key, name, look))
            else:
                alone.append((key, name))
        return values, asked, alone

    def _join(self, asked: Sequence[tuple[Any, Name, Look]], alone: list[tuple[Any, Name]], token: bytes,
              ) -> Plan[tuple[list[tuple[Any, Name, bytes]], list[tuple[Any, Name]]]]:
        """Those whose leases are ours now, with their generations; and those that somebody else has or loads. Where the server could not be
        asked, they are added to `alone`."""
        mine: list[tuple[Any, Name, bytes]] = []
        others: list[tuple[Any, Name]] = []
        calls = [(name, (token, self._leases.milliseconds, b"", header.token(), look.seen)) for _, name, look in asked]
        for (key, name, _), answer in zip(asked, (yield from send(JOIN, calls)), strict=True):
            if isinstance(answer, Trouble):
                self._space.failed("write-failed", key, answer)
                alone.append((key, name))
            elif answer[2]:
                self._generations[name.generation] = answer[1]
                mine.append((key, name, answer[1]))
            else:
                others.append((key, name))
        return mine, others

    def _store(self, stores: Sequence[tuple[Any, Name, tuple[bytes, ...]]], hold: Hold, tags: tuple[str, ...],
               ) -> Plan[tuple[list[tuple[Any, Name]], list[tuple[Any, Name]]]]:
        """Store what was loaded; those that the server could not take, and those that were invalidated meanwhile."""
        lost: list[tuple[Any, Name]] = []
        late: list[tuple[Any, Name]] = []
        answers = yield from send(STORE, [(name, arguments) for _, name, arguments in stores])
        for (key, name, _), answer in zip(stores, answers, strict=True):
            if isinstance(answer, Trouble):
                self._space.failed("write-failed", key, answer)
                lost.append((key, name))
            elif answer == 1:
                self._counted.inserts += 1
                if tags:
                    self._tags[name.value] = tags
            else:
                self._events.tell("lease-lost", key)
                if answer == 0 and hold.was_taken(name):
                    late.append((key, name))
        return lost, late

    def _release(self, keys: Sequence[tuple[Any, Name]], token: bytes) -> Plan[None]:
        """Give leases back: others need not wait until they end."""
        answers = yield from send(RELEASE, [(name, (token,)) for _, name in keys])
        for (key, _), answer in zip(keys, answers, strict=True):
            if isinstance(answer, Trouble):
                self._space.failed("write-failed", key, answer)

    def _load_one_of_many(self, key: Any, name: Name, loader: Callable[[list[Any]], Any], wanted: Wanted) -> Plan[Any]:
        """A key that somebody else was loading: mostly it is there by now."""
        value: Any = MISSING
        single = _Single(key, loader)
        for _ in range(LOADS):
            try:
                value, final = yield from self._loader.load_once(key, name, single, wanted, b"")
            except _NotThere:
                return MISSING
            if final:
                break
        return value


class _NotThere(Exception):
    """The loader of many does not know this key."""


class _Single:
    """A loader of many, asked for one key; for threads and, where it gives an awaitable, for tasks."""

    def __init__(self, key: Any, loader: Callable[[list[Any]], Any]) -> None:
        self._key = key
        self._loader = loader

    def __call__(self) -> Any:
        loaded = self._loader([self._key])
        return self._later(loaded) if hasattr(loaded, "__await__") else self._one(loaded)

    async def _later(self, loaded: Any) -> Any:
        return self._one(await loaded)

    def _one(self, loaded: Mapping[Any, Any]) -> Any:
        if self._key not in loaded:
            raise _NotThere
        return loaded[self._key]
