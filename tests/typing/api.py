"""Typed use of the decorator, for mypy --strict; it is checked, never run."""
from collections.abc import Coroutine, Hashable
from typing import Any, assert_type

from adaptcache import Cache, Fixed, Recording, RedisBackend, cache, lru_cache, record
from adaptcache.backends.tiered import TieredCache
from adaptcache.compat import cachetools as compat
from adaptcache.compat.cachetools import LRUCache, TTLCache
from adaptcache.compat.cachetools.func import lru_cache as func_lru_cache
from adaptcache.decorators import Cached, cached
from adaptcache.flights import MISSING, Flights, Missing
from adaptcache.keys import methodkey


@cached
def bare(number: int, *, scale: float = 1.0) -> str:
    return str(number * scale)


@cached(maxsize=None, typed=True, ttl=2.5, namespace=lambda number: number % 2)
def configured(number: int) -> list[int]:
    return [number]


@cached(16)
async def coroutine(name: str) -> bytes:
    return name.encode()


class Service:
    @cached(maxsize=10, key=methodkey)
    def method(self, number: int, flag: bool = False) -> str:
        return str(number)

    @cached
    async def amethod(self, number: int) -> str:
        return str(number)

    @staticmethod
    @cached
    def static(number: int) -> str:
        return str(number)

    @staticmethod
    @cached
    def nothing() -> str:
        return ""

    @classmethod
    @cached
    def of(cls, number: int) -> str:
        return str(number)


@lru_cache
def as_functools(number: int) -> str:
    return str(number)


@lru_cache(maxsize=None, typed=True)
def as_functools_configured(number: int) -> list[int]:
    return [number]


@cache
def unbounded(number: int) -> bytes:
    return bytes(number)


assert_type(as_functools(1), str)
assert_type(as_functools_configured(1), list[int])
assert_type(unbounded(1), bytes)
assert_type(unbounded.cache_info().maxsize, int | None)
assert_type(as_functools.cache_clear(), None)

assert_type(bare(1, scale=2.0), str)
assert_type(configured(1), list[int])
assert_type(bare.cache_info().hits, int)
assert_type(bare.cache_clear(), None)
assert_type(bare.cache_parameters(), dict[str, Any])
assert_type(bare.cache_key(1, scale=2.0), Hashable)
assert_type(bare.invalidate(1), bool)
assert_type(bare.__wrapped__(1), str)
assert_type(bare.__name__, str)

service = Service()
assert_type(service.method(1, flag=True), str)
assert_type(Service.method(service, 1), str)
assert_type(service.method.cache_info().misses, int)
assert_type(Service.method.invalidate(service, 1), bool)
assert_type(service.static(1), str)
assert_type(Service.static(1), str)
assert_type(Service.nothing(), str)
assert_type(service.of(1), str)
assert_type(Service.of(1), str)


async def tasks() -> None:
    pending: Coroutine[Any, Any, bytes] = coroutine("name")
    assert_type(await pending, bytes)
    assert_type(await coroutine("name"), bytes)
    assert_type(await service.amethod(1), str)
    assert_type(await Flights().aload("key", lambda: coroutine("name"), print), bytes)


def peek() -> int | Missing:
    return MISSING


assert_type(Flights().load("key", lambda: 1, print, peek), int)

kept: Cached[[int], list[int]] = configured

# Wrong calls are found: `warn_unused_ignores` makes each of these lines a promise.
bare("1")  # type: ignore[arg-type]
bare(1, 2)  # type: ignore[call-arg]
bare.invalidate("1")  # type: ignore[arg-type]
service.method()  # type: ignore[call-overload]
service.method("1")  # type: ignore[call-overload]
cached(policy=1)  # type: ignore[call-overload]


recent: LRUCache[str, int] = LRUCache(maxsize=2)
timed: TTLCache[str, list[int]] = TTLCache(maxsize=2, ttl=5.0)
assert_type(recent["a"], int)
assert_type(timed.expire(), list[tuple[str, list[int]]])


class Listening(LRUCache[str, int]):
    def popitem(self) -> tuple[str, int]:
        return super().popitem()


@compat.cached(recent, info=True)
def looked_up(name: str) -> int:
    return len(name)


assert_type(looked_up("a"), int)
assert_type(looked_up.cache_info().hits, int)


@func_lru_cache(maxsize=4)
def remembered(number: int) -> str:
    return str(number)


assert_type(remembered(1), str)

with record("calls.act", configured, sample=0.5) as recording:
    assert_type(recording, Recording)
assert_type(recording.sample, float)
assert_type(Cache[str, int](10).record("cache.act", max_bytes=1 << 20), Recording)
assert_type(Cache[str, int](10).recording, Recording | None)
record("cache.act")  # type: ignore[call-arg]


class Named(Cache[str, int]):
    def __init__(self, name: str) -> None:
        super().__init__(10, expiry=Fixed(60), policy="lru")
        self.name = name


assert_type(Named("a").get_or_load("b", len), int)
assert_type(Cache[str, int](10, expiry=60.0), Cache[str, int])
plain: Cache[str, int] = Cache(10)
Cache(10, polcy="lru")  # type: ignore[call-overload]
Cache(10, space="users")  # type: ignore[call-overload]

backend = RedisBackend("redis://localhost")
shared = Cache[str, int](10, backend=backend, space="users", expiry=60.0)
assert_type(shared, TieredCache[str, int])
shared.set("a", 1, ttl=5.0, tags=("user:1",))
assert_type(shared.get_or_load("a", len), int)
assert_type(shared.get_or_load_many(["a"], lambda keys: {key: len(key) for key in keys}), dict[str, int])
assert_type(shared.get_many(["a"]), dict[str, int])
shared.invalidate_tag("user:1")


async def shared_tasks() -> None:
    await shared.aset("a", 1)
    assert_type(await shared.aget_many(["a"]), dict[str, int])


@cached(16, backend=backend, tags=lambda name: (name,))
def on_a_server(name: str) -> int:
    return len(name)


assert_type(on_a_server("a"), int)
