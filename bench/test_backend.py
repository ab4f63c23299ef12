"""A cache on a server beside a plain GET of redis-py, on the same server: `pytest bench/test_backend.py`.

One operation a test. `redis-py get` is `Redis.get` of bytes of the same length with redis-py's defaults, `mget of 2` what a read of
ours asks for; a shared `Cache` also makes the key's name, checks the generation and decodes the value. `held here` is a hit in
the part of the cache that lies in this process.
"""
import asyncio
import time

import pytest
from redis import asyncio as aio
from servers import Server

from adaptcache import Cache, Learned, RedisBackend, cached

VALUE = {"name": "somebody", "visits": 12, "tags": ["a", "b"]}


@pytest.fixture(scope="module")
def server():
    with Server() as one:
        yield one


@pytest.fixture
def client(server):
    with server.client() as client:
        yield client


@pytest.fixture
def backend(server):
    with RedisBackend(server.url) as backend:
        yield backend


@pytest.fixture
def data(backend):
    return backend.serializer.dumps(VALUE, birth=time.time())


def test_redis_py_get(benchmark, client, data):
    client.set("k", data)
    benchmark(client.get, "k")


def test_redis_py_mget_of_2(benchmark, client, data):
    client.mset({"k": data, "g": b"x" * 8})
    benchmark(client.mget, "g", "k")


def test_redis_py_set(benchmark, client, data):
    benchmark(client.set, "k", data)


def test_get(benchmark, backend):
    cache = Cache(0, backend=backend)
    cache["k"] = VALUE
    assert benchmark(cache.get, "k") == VALUE


def test_get_learned(benchmark, backend):
    cache = Cache(0, backend=backend, expiry=Learned(memory_price=1e-6, predictors=("table",)))
    cache["k"] = VALUE
    assert benchmark(cache.get, "k") == VALUE


def test_get_tagged(benchmark, backend):
    cache = Cache(0, backend=backend)
    cache.set("k", VALUE, tags=("a",))
    assert benchmark(cache.get, "k") == VALUE


def test_set(benchmark, backend):
    cache = Cache(0, backend=backend)
    benchmark(cache.set, "k", VALUE)


def test_get_many_100(benchmark, backend):
    cache = Cache(0, backend=backend)
    cache.set_many(dict.fromkeys(range(100), VALUE))
    assert len(benchmark(cache.get_many, range(100))) == 100


def test_load_of_a_new_key(benchmark, backend):
    cache = Cache(0, backend=backend, space="loads")
    numbers = iter(range(1 << 40))
    benchmark(lambda: cache.get_or_load(next(numbers), lambda key: VALUE))


def _held(cache, key):
    trips = -1
    while cache.backend.stats().trips != trips:
        trips = cache.backend.stats().trips
        cache.get(key)
        time.sleep(0.01)


def test_get_held_here(benchmark, backend):
    cache = Cache(100, backend=backend)
    cache["k"] = VALUE
    _held(cache, "k")
    assert benchmark(cache.get, "k") == VALUE


def test_decorated_held_here(benchmark, backend):
    @cached(backend=backend)
    def load(key):
        return VALUE

    load("k")
    _held(load.cache, ("k",))
    assert benchmark(load, "k") == VALUE


def test_breaker_open(benchmark):
    with RedisBackend("redis://127.0.0.1:1") as backend:
        cache = Cache(0, backend=backend)
        for _ in range(10):
            cache.get("k")
        benchmark(cache.get, "k")


@pytest.mark.parametrize("what", ["redis_py_get", "get"])
def test_in_a_loop(benchmark, server, data, what):
    """A hundred gets one after another, of asyncio."""
    with asyncio.Runner() as runner:
        async def begin():
            if what == "get":
                backend = RedisBackend(server.url)
                cache = Cache(0, backend=backend)
                await cache.aset("k", VALUE)
                return cache.aget, backend
            client = aio.Redis(port=server.port)
            await client.set("k", data)
            return client.get, client

        async def hundred(get):
            for _ in range(100):
                await get("k")

        get, owner = runner.run(begin())
        benchmark(lambda: runner.run(hundred(get)))
        runner.run(owner.aclose())
