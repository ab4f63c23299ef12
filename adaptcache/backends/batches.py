"""Loading many keys with one call of the loader: those that nobody has and nobody loads; the others are waited for, one by one."""
from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from adaptcache.backends import header
from adaptcache.backends.deadlines import milliseconds
from adaptcache.backends.leases import Leases
from adaptcache.backends.loading import LOADS, Loader
from adaptcache.backends.names import Name
from adaptcache.backends.reading import Look, Reader
from adaptcache.backends.scripts import JOIN, RELEASE, STORE
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
        self._generations = space.generations
        self._counted = space.counted

    def load(self, keys: Sequence[tuple[Any, Name]], loader: Callable[[list[Any]], Any], wanted: Wanted) -> Plan[dict[Any, Any]]:
        """The values of many keys; `loader(list of keys)` is asked once for those that nobody has or loads, and gives a mapping."""
        looks = yield from self._reader.look_many(keys)
        values: dict[Any, Any] = {}
        missing: list[tuple[Any, Name, Look]] = []
        for (key, name), look in zip(keys, looks, strict=True):
            self._space.count(look.hit)
            if look.hit:
                values[key] = look.value
                continue
            kept = self._space.sheltered(name)
            if kept is not MISSING:
                values[key] = kept
            else:
                missing.append((key, name, look))
        if not missing:
            return values
        token = os.urandom(16)
        epoch = self._space.epoch
        alone = [(key, name) for key, name, look in missing if not look.well]
        asked = [(key, name, look) for key, name, look in missing if look.well]
        versions: list[tuple[str, bytes]] = []
        mine: list[tuple[Any, Name, bytes]] = []
        others: list[tuple[Any, Name]] = []
        try:
            versions = yield from make_versions(self._space, wanted.tags)
            lease = b"%d" % math.ceil(self._space.lease * 1000)
            answers = yield from self._leases.scripts(JOIN, [(name, (token, lease, b"", header.token(), look.seen)) for _, name, look in asked])
        except Trouble as trouble:
            answers = [trouble] * len(asked)
        for (key, name, _), answer in zip(asked, answers, strict=True):
            if isinstance(answer, Trouble):
                self._space.failed("write-failed", key, answer)
                alone.append((key, name))
            elif answer[2]:
                self._generations[name.generation] = answer[1]
                mine.append((key, name, answer[1]))
            else:
                others.append((key, name))
        began = time.monotonic()
        wanting = [key for key, *_ in (*mine, *alone)]
        loaded: Mapping[Any, Any] = {}
        stores: list[tuple[Name, tuple[bytes, ...]]] = []
        if wanting:
            try:
                loaded, seconds = yield from self._loader.run(lambda: loader(wanting))
                if not isinstance(loaded, Mapping):
                    raise TypeError(f"loader: expected a mapping of keys to values, got {type(loaded).__name__}")
                for key, name, generation in mine:
                    if key in loaded:
                        data, left = self._writer.payload(key, name, loaded[key], wanted, seconds / len(wanting))
                        if left > 0:
                            stores.append((name, (token, generation, header.pack(generation, versions) + data, milliseconds(left))))
            except GeneratorExit:
                raise
            except BaseException:
                try:
                    yield from self._leases.scripts(RELEASE, [(name, (token,)) for _, name, _ in mine])
                except Trouble as trouble:
                    self._space.failed("write-failed", None, trouble)
                raise
        held = {name.value for name, _ in stores}
        rest = [(name, (token,)) for _, name, _ in mine if name.value not in held]
        lost: set[bytes] = {name.value for _, name in alone}
        try:
            answers = yield from self._leases.scripts(STORE, stores)
            yield from self._leases.scripts(RELEASE, rest)
        except Trouble as trouble:
            self._space.failed("write-failed", None, trouble)
            answers = [trouble] * len(stores)
        late: list[tuple[Any, Name]] = []
        by_value = {name.value: key for key, name, _ in mine}
        for (name, _), answer in zip(stores, answers, strict=True):
            if isinstance(answer, Trouble):
                lost.add(name.value)
            elif answer == 1:
                self._counted.inserts += 1
            elif answer == 0 and time.monotonic() - began < self._space.lease:
                late.append((by_value[name.value], name))      # invalidated while it was loaded
        for key, name in ([(key, name) for key, name, _ in mine] + alone):
            if key in loaded:
                values[key] = loaded[key]
                if name.value in lost:
                    self._space.shelter(name, loaded[key], wanted.ttl, epoch)
        for key, name in (*others, *late):
            value = yield from self._load_one_of_many(key, name, loader, wanted)
            if value is not MISSING:
                values[key] = value
        return values

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
