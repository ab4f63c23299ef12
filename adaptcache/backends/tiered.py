"""`TieredCache`: what `Cache(maxsize, backend=...)` gives. A mapping whose entries lie on a server that other processes share.

It is a dict with losses: what is there is what was last set, by whichever process; and an entry may be gone at any moment. Trouble
with the server is a miss and an event, never an exception. What a server cannot tell is refused with a TypeError: the number
of entries, iteration, the policy's victim. The flows are in `reading`, `writing`, `removing`, `loading` and `batches`; here each
is given its two doors, one for threads and one for tasks (`a...`), and the mapping's manners.
"""
from __future__ import annotations

import asyncio
import math
import os
import threading
import time
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NoReturn, TypeVar, cast

from adaptcache import expiry as expiries
from adaptcache.backends import names
from adaptcache.backends.backend import RedisBackend
from adaptcache.backends.batches import BatchLoader
from adaptcache.backends.deadlines import Deadlines
from adaptcache.backends.header import LONGEST_TAG, TAGS
from adaptcache.backends.keys import encode
from adaptcache.backends.leases import Leases
from adaptcache.backends.loading import Loader
from adaptcache.backends.names import Names
from adaptcache.backends.reading import Generation, Held, Reader
from adaptcache.backends.removing import Remover
from adaptcache.backends.space import Space, Wanted
from adaptcache.backends.steps import Plan
from adaptcache.backends.traffic import TROUBLES
from adaptcache.backends.writing import Writer
from adaptcache.decisionlog import DecisionLog
from adaptcache.expiry import Learned
from adaptcache.flights import MISSING
from adaptcache.ledger import Ledger
from adaptcache.mapping import Cache, Features, _vet
from adaptcache.near import NearCache
from adaptcache.near.face import Part
from adaptcache.release import Releaser
from adaptcache.sizes import sizeof
from adaptcache.stats import Stats

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
T = TypeVar("T")

SHELF = 1024        # results kept while the server cannot take them, at the least
_RAISE: Any = object()


class TieredCache(Cache[K, V]):
    """A cache on a server (see `Cache` for the arguments that are not here).

    maxsize     of the part in this process, which holds copies of what this process reads and is told of every change; 0:
                none, every read goes to the server. The server's own `maxmemory` bounds the rest
    backend     a RedisBackend
    space       the name of this cache on the server: caches of one name, in whatever process, are one cache
    expiry      of entries on the server. Times are Unix seconds there (PerEntry); the learner weighs entries in bytes on the server
    """

    def __init__(
        self, maxsize: float | None, getsizeof: Callable[[Any], float] | None = None, *, backend: RedisBackend,
        policy: str = "adaptive", expiry: Any = None, timer: Any = None, on_removal: Any = None, space: str = "cache",
    ) -> None:
        if not isinstance(backend, RedisBackend):
            raise TypeError(f"backend: expected an adaptcache.RedisBackend, got {type(backend).__name__}")
        if timer is not None:
            raise TypeError("timer: a cache on a server goes by the server's clock; leave it out")
        if on_removal is not None:
            raise TypeError("on_removal: a cache on a server is not told of removals; leave it out")
        spec = expiries.parse(expiry)
        if isinstance(spec, Learned) and (spec.stale is not None or spec.fail_safe is not None):
            raise ValueError("expiry: Learned(stale=...) and Learned(fail_safe=...) are for caches in one process; leave them out")
        names.check("space", space)
        super().__init__(maxsize, getsizeof, policy=policy)     # checks them too; it holds nothing itself
        self._spec = spec
        self.backend = backend
        self.ledger: Ledger | None = None
        self.releaser: Releaser | None = None
        if isinstance(spec, Learned):
            # Of the same salt in every process, so that what one has learned of a key serves the others too.
            self.releaser = Releaser(backend.lazy_client(), name=f"{backend.prefix}:{space}", expiring=False)
            self.ledger = Ledger(spec, salt=backend.prefix.encode()[:64], on_release=self.releaser.release, on_touch=self.releaser.touch)
            self.releaser.attach(self.ledger)
        near = self.maxsize > 0 and backend.near is not False
        shelf = SHELF if maxsize is None or math.isinf(maxsize) else max(SHELF, int(maxsize))
        self._space = Space(
            Names(backend.prefix, space, backend.place.cluster), backend.serializer,
            Deadlines(spec, self.ledger, None if self.releaser is None else self.releaser.missed, near=near), backend.debts, backend.events,
            outage=backend.outage, cluster=backend.place.cluster, shelf=shelf,
        )
        self._pair = self._space.names.pair
        self._run = run = backend.driver.run
        self._reader = Reader(self._space)
        self._remover = Remover(self._space, self._reader, run)
        self._writer = Writer(self._space, self._remover)
        leases = Leases(self._space, self._reader, backend.keeper)
        self._loader = Loader(self._space, self._writer, leases)
        self._batches = BatchLoader(self._space, self._reader, self._writer, leases, self._loader)
        self._lock = threading.RLock()
        self._near: Part | None = None
        self._nears: dict[asyncio.AbstractEventLoop, Part] = {}
        self._options: NearCache | None = None
        self._next_try = 0.0
        if near:
            given = backend.near
            self._options = NearCache(self.maxsize, getsizeof=partial(_weigh, getsizeof), policy=policy,
                                      **({} if given is None else {"heartbeat": given.heartbeat, "window": given.window}))
        backend.caches.add(self)

    # -- the part in this process

    def _part(self) -> Part | None:
        """For threads; it begins to listen with the first read."""
        near = self._near
        if near is None and self._options is not None and time.monotonic() >= self._next_try:
            with self._lock:
                if self._near is None:
                    try:
                        self._near = self.backend.parts.for_threads(self._options, self._space.names)
                    except TROUBLES:
                        # A Cluster's client asks for the nodes when it is made.
                        self._next_try = time.monotonic() + 1.0
                        return None
                    self._space.nears.append(self._near)
                near = self._near
        return near

    async def _apart(self) -> Part | None:
        """For the tasks of the running loop."""
        if self._options is None:
            return None
        loop = asyncio.get_running_loop()
        near = self._nears.get(loop)
        if near is None:
            for closed in [each for each in self._nears if each.is_closed()]:
                self._space.nears.remove(self._nears.pop(closed))
            made = await self.backend.parts.for_tasks(self._options, self._space.names)
            near = self._nears.setdefault(loop, made)
            if near is made:
                self._space.nears.append(made)
            else:
                made.close()        # another task was faster
        return near

    def _held(self, key: Any, default: Any) -> Any:
        """What the part in this process has, without a socket."""
        loop = asyncio._get_running_loop()
        near = self._near if loop is None else self._nears.get(loop, self._near)
        if near is None:
            return default
        value = self._reader.held(key, self._pair(encode(key)), near)
        return default if value is MISSING else value

    async def _arun(self, plan: Plan[T]) -> T:
        return await self.backend.async_driver().run(plan)

    @property
    def space(self) -> str:
        return self._space.names.space

    # -- one key

    def get(self, key: Any, default: Any = None) -> Any:
        code, near = encode(key), self._near or self._part()
        value = MISSING if near is None else self._reader.held(key, self._pair(code), near)
        if value is MISSING:
            value = self._run(self._reader.ask(key, self._space.names.of(code), near)).value
        return default if value is MISSING else value

    async def aget(self, key: Any, default: Any = None) -> Any:
        """`get` for tasks; likewise every method whose name begins with an a."""
        code, near = encode(key), await self._apart()
        value = MISSING if near is None else self._reader.held(key, self._pair(code), near)
        if value is MISSING:
            value = (await self._arun(self._reader.ask(key, self._space.names.of(code), near))).value
        return default if value is MISSING else value

    def _decorated(self, *options: Any) -> Any:
        from adaptcache.backends.decorated import TieredStore

        return TieredStore(self, *options)

    def __getitem__(self, key: Any) -> Any:
        value = self.get(key, MISSING)
        return self.__missing__(key) if value is MISSING else value

    def __missing__(self, key: Any) -> Any:
        raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        # Whether the bytes can be read must be known, so they are; it counts as no request.
        return self._run(self._reader.look(key, self._space.name(key))).hit

    async def acontains(self, key: Any) -> bool:
        return (await self._arun(self._reader.look(key, self._space.name(key)))).hit

    def __setitem__(self, key: Any, value: Any) -> None:
        self._set(key, value, Wanted())

    def set(
        self, key: Any, value: Any, *, ttl: float | None = None, cost: float | None = None, size: float | None = None,
        namespace: Hashable = None, features: Features | None = None, tags: Iterable[str] = (),
    ) -> None:
        """Store a value. `ttl` is a ceiling; `tags` are names by which many entries are invalidated at once.

        TypeError for a value that the serializer refuses, before anything has changed. If the server cannot be told, the
        entry is lost: the old value is not served by this process, and the server is told to drop it as soon as it can be.
        """
        self._set(key, value, _wanted(ttl, cost, size, namespace, features, tags))

    def _set(self, key: Any, value: Any, wanted: Wanted) -> None:
        name = self._space.name(key)
        self._flights.forget(key)
        self._run(self._writer.set(key, name, value, wanted))

    async def aset(
        self, key: Any, value: Any, *, ttl: float | None = None, cost: float | None = None, size: float | None = None,
        namespace: Hashable = None, features: Features | None = None, tags: Iterable[str] = (),
    ) -> None:
        wanted, name = _wanted(ttl, cost, size, namespace, features, tags), self._space.name(key)
        self._flights.forget(key)
        await self._arun(self._writer.set(key, name, value, wanted))

    def __delitem__(self, key: Any) -> None:
        if self.delete(key) is False:
            raise KeyError(key)

    def delete(self, key: Any) -> bool | None:
        """Remove a key, and keep whoever loads it now from storing; was there one? None: the server will be told later."""
        name = self._space.name(key)
        self._flights.forget(key)
        return self._run(self._remover.delete(key, name))

    async def adelete(self, key: Any) -> bool | None:
        name = self._space.name(key)
        self._flights.forget(key)
        return await self._arun(self._remover.delete(key, name))

    def pop(self, key: Any, default: Any = _RAISE) -> Any:
        """Remove a key and return its value. Two processes that pop at once may both get it."""
        name = self._space.name(key)
        self._flights.forget(key)
        return _popped(key, self._run(self._remover.pop(key, name)), default)

    async def apop(self, key: Any, default: Any = _RAISE) -> Any:
        name = self._space.name(key)
        self._flights.forget(key)
        return _popped(key, await self._arun(self._remover.pop(key, name)), default)

    # -- many keys

    def get_many(self, keys: Iterable[K]) -> dict[K, V]:
        """The values of those that are there, in one round trip."""
        return self._run(self._reader.get_many(self._named(keys), self._part()))

    async def aget_many(self, keys: Iterable[K]) -> dict[K, V]:
        return await self._arun(self._reader.get_many(self._named(keys), await self._apart()))

    def set_many(self, values: Mapping[Any, Any], *, ttl: float | None = None, tags: Iterable[str] = ()) -> None:
        """Store many values. TypeError if one cannot be serialized, before anything has changed."""
        self._run(self._setting(values, _wanted(ttl, None, None, None, None, tags)))

    async def aset_many(self, values: Mapping[Any, Any], *, ttl: float | None = None, tags: Iterable[str] = ()) -> None:
        await self._arun(self._setting(values, _wanted(ttl, None, None, None, None, tags)))

    def _setting(self, values: Mapping[Any, Any], wanted: Wanted) -> Plan[None]:
        entries = [(key, name, *self._writer.payload(key, name, value, wanted))
                   for (key, value), (_, name) in zip(values.items(), self._named(values), strict=True)]
        for key in values:
            self._flights.forget(key)
        return self._writer.set_many(entries, wanted.tags)

    def delete_many(self, keys: Iterable[Any]) -> int:
        """Remove many keys; how many there were, as far as the server could be asked."""
        return self._run(self._remover.delete_many(self._forgotten(keys))).count(True)

    async def adelete_many(self, keys: Iterable[Any]) -> int:
        return (await self._arun(self._remover.delete_many(self._forgotten(keys)))).count(True)

    def _named(self, keys: Iterable[Any]) -> list[tuple[Any, names.Name]]:
        return [(key, self._space.name(key)) for key in dict.fromkeys(keys)]

    def _forgotten(self, keys: Iterable[Any]) -> list[tuple[Any, names.Name]]:
        named = self._named(keys)
        for key, _ in named:
            self._flights.forget(key)
        return named

    # -- loading

    def get_or_load(
        self, key: Any, loader: Callable[[Any], V], *, ttl: float | None = None, cost: float | None = None,
        size: float | None = None, namespace: Hashable = None, features: Features | None = None, tags: Iterable[str] = (),
    ) -> V:
        """The value of `key`, from `loader(key)` if it is not there: one load a key at a time over all processes.

        An exception of the loader reaches the callers of this process, and nothing is stored; other processes then try themselves,
        one after another. A load that takes longer than the backend's `renew` does not keep others from loading, nor is it
        stored once another has begun. Without the server every process loads for itself.
        """
        _vet(loader, ttl, cost, size)
        return cast(V, self._load(key, partial(loader, key), _wanted(ttl, cost, size, namespace, features, tags)))

    async def aget_or_load(
        self, key: Any, loader: Callable[[Any], Awaitable[V]], *, ttl: float | None = None, cost: float | None = None,
        size: float | None = None, namespace: Hashable = None, features: Features | None = None, tags: Iterable[str] = (),
    ) -> V:
        _vet(loader, ttl, cost, size)
        return cast(V, await self._aload(key, partial(loader, key), _wanted(ttl, cost, size, namespace, features, tags)))

    def _load(self, key: Any, loader: Callable[[], Any], wanted: Wanted) -> Any:
        code, near = encode(key), self._part()
        if near is not None:
            value = self._reader.held(key, self._pair(code), near)
            if value is not MISSING:
                return value
        name = self._space.names.of(code)
        look = self._run(self._reader.ask(key, name, near))
        if look.value is not MISSING:
            return look.value
        return self._flights.load(key, lambda: self._run(self._loader.load(key, name, loader, wanted, look)), _stored)

    async def _aload(self, key: Any, loader: Callable[[], Awaitable[Any]], wanted: Wanted) -> Any:
        code, near = encode(key), await self._apart()
        if near is not None:
            value = self._reader.held(key, self._pair(code), near)
            if value is not MISSING:
                return value
        name = self._space.names.of(code)
        look = await self._arun(self._reader.ask(key, name, near))
        if look.value is not MISSING:
            return look.value
        return await self._flights.aload(key, lambda: self._arun(self._loader.load(key, name, loader, wanted, look)), _stored)

    def get_or_load_many(
        self, keys: Iterable[K], loader: Callable[[list[K]], Mapping[K, V]], *, ttl: float | None = None,
        tags: Iterable[str] = (),
    ) -> dict[K, V]:
        """The values of many keys. `loader(missing)` is called once with the list of those that nobody has, and that no other process
        is loading, and gives a mapping; keys that it leaves out are left out. Those that others load are waited for."""
        _vet(loader, ttl, None, None)
        return self._run(self._batches.load(self._named(keys), loader, _wanted(ttl, None, None, None, None, tags)))

    async def aget_or_load_many(
        self, keys: Iterable[K], loader: Callable[[list[K]], Awaitable[Mapping[K, V]]], *, ttl: float | None = None,
        tags: Iterable[str] = (),
    ) -> dict[K, V]:
        _vet(loader, ttl, None, None)
        return await self._arun(self._batches.load(self._named(keys), loader, _wanted(ttl, None, None, None, None, tags)))

    # -- many at once, in constant time

    def clear(self) -> None:
        """Empty this cache for every process: its generation on the server is replaced. The memory comes back as keys reach their
        deadlines or are written anew."""
        self._flights.forget_all()
        self._run(self._remover.clear())

    async def aclear(self) -> None:
        self._flights.forget_all()
        await self._arun(self._remover.clear())

    def invalidate_tag(self, tag: str) -> bool:
        """Invalidate everything stored with this tag, in every cache of the backend's prefix; False: the server will be told later."""
        (tag,) = checked_tags((tag,))
        self._flights.forget_all()
        return self._run(self._remover.invalidate_tag(tag))

    async def ainvalidate_tag(self, tag: str) -> bool:
        (tag,) = checked_tags((tag,))
        self._flights.forget_all()
        return await self._arun(self._remover.invalidate_tag(tag))

    # -- what only the server could say

    def __bool__(self) -> bool:
        return True

    def _untold(self, what: str) -> NoReturn:
        raise TypeError(f"{what}: a cache on a server does not know its entries; ask for keys by name")

    def __len__(self) -> int:
        self._untold("len()")

    def __iter__(self) -> Any:
        self._untold("iteration")

    def keys(self) -> Any:
        self._untold("keys()")

    def values(self) -> Any:
        self._untold("values()")

    def items(self) -> Any:
        self._untold("items()")

    def popitem(self) -> Any:
        self._untold("popitem()")

    def expire(self, time: float | None = None) -> Any:
        self._untold("expire()")

    def expires_in(self, key: Any) -> Any:
        self._untold("expires_in()")

    def resize(self, maxsize: float | None) -> NoReturn:
        raise TypeError("resize(): the part in this process keeps its size; make another cache with the same backend and space")

    def record(self, path: Any, **options: Any) -> NoReturn:
        raise TypeError("record(): a cache on a server is not recorded; record the caches in front of it")

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.backend!r}, space={self.space!r}, maxsize={self.maxsize!r})"

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError("a cache on a server is not copied or pickled; make another one with the same backend and space")

    __copy__ = __deepcopy__ = None  # type: ignore[assignment]

    # -- looking at it

    def stats(self) -> Stats:
        """The counters of this process. What concerns the learner is of the keys that this process knows of on the server."""
        counted = self._space.counted
        books = None if self.ledger is None else self.ledger.stats()
        own: dict[str, Any] = {name: getattr(counted, name) for name in ("hits", "misses", "loads", "load_failures", "load_seconds", "inserts")}
        own.update(evictions=0, currsize=self.currsize, maxsize=self.maxsize)
        if books is None:
            return Stats(expirations=0, premature=0, protected=0, premature_budget=1.0, in_flight=0, stale_served=0, **own)
        return replace(books, **own)

    def explain(self, key: Any) -> Any:
        """Why this key's deadline on the server is what it is; KeyError when this process does not follow it."""
        cache = self._learned("explain")
        assert self.ledger is not None
        return cache.explain(self.ledger.number(self._space.name(key).value))

    def learn(self) -> int:
        """One step of learning by hand, for `learner="manual"`."""
        return 0 if self.ledger is None else self.ledger.step()

    def save(self, path: str | os.PathLike[str], *, entries: bool = False) -> None:
        """Write what was learned to a file. There are no entries to write. ValueError when this cache does not learn."""
        if entries:
            self._untold("entries")
        self._learned("save").save(path)

    def merge_state(self, paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> None:
        """Add what was learned and saved before, or elsewhere."""
        self._learned("merge_state").merge_state(paths)

    def log_decisions(self, path: str | os.PathLike[str], **options: Any) -> DecisionLog:
        """As for any cache that learns; keys are salted hashes."""
        return self._learned("log_decisions").log_decisions(path, **options)

    def _learned(self, what: str) -> Cache[Any, Any]:
        if self.ledger is None:
            raise ValueError(f"{what}: this cache does not learn; its expiry is not Learned")
        return self.ledger.cache

    @property
    def currsize(self) -> float:
        """Of the parts in this process."""
        return sum(near.stats().currsize for near in (self._near, *self._nears.values()) if near is not None)

    def close(self) -> None:
        """Let go of what belongs to this cache alone; the backend stays open. Backends do this to their caches when they are closed."""
        near, self._near, self._options = self._near, None, None
        if near is not None:
            near.close()
        if self.ledger is not None and self.releaser is not None:
            self.ledger.close()
            self.releaser.close()

    async def aclose(self) -> None:
        """`close`, and what belongs to the running loop."""
        near = self._nears.pop(asyncio.get_running_loop(), None)
        if near is not None:
            near.close()
        self.close()


def _weigh(getsizeof: Callable[..., float] | None, held: Any) -> float:
    """The size of an entry of the part in this process. Generations are few, and weigh nothing; a tag's version counts as an entry."""
    if type(held) is Generation:
        return 0.0
    if type(held) is not Held:
        return 1.0 if getsizeof is None else float(sizeof(held))
    if getsizeof is None:
        return 1.0
    return float(getsizeof(held.key, held.value)) if getattr(getsizeof, "with_key", False) is True else getsizeof(held.value)


def _stored(value: object, seconds: float) -> None:
    """The plan has stored it."""


def _popped(key: Any, value: Any, default: Any) -> Any:
    if value is not MISSING:
        return value
    if default is _RAISE:
        raise KeyError(key)
    return default


def _wanted(ttl: Any, cost: Any, size: Any, namespace: Any, features: Any, tags: Iterable[str]) -> Wanted:
    _vet(_stored, ttl, cost, size)
    return Wanted(ttl, cost, size, namespace, features, checked_tags(tags))


def checked_tags(tags: Iterable[str]) -> tuple[str, ...]:
    if tags == ():
        return ()
    if isinstance(tags, (str, bytes)):
        raise TypeError(f"tags: expected a sequence of strings, got one {type(tags).__name__}")
    given = tuple(dict.fromkeys(tags))
    for tag in given:
        if not isinstance(tag, str):
            raise TypeError(f"tags: expected strings, got {type(tag).__name__}")
        if not 0 < len(tag.encode()) <= LONGEST_TAG:
            raise ValueError(f"tags: {tag!r:.80} is not accepted; the accepted range is 1 to {LONGEST_TAG} bytes of UTF-8")
    if len(given) > TAGS:
        raise ValueError(f"tags: {len(given)} given; the accepted range is 0 to {TAGS}")
    return given
