"""A cache on a server by either door, so that each promise is tested for threads and for tasks by the same lines."""
import asyncio
import gc
import inspect
from contextlib import contextmanager

from adaptcache import Cache, RedisBackend

DOORS = ("sync", "async")


class Door:
    """`door.get(...)` is `cache.get(...)`, or `await cache.aget(...)` in a loop of its own; loaders are made fit."""

    def __init__(self, cache, runner=None):
        self.cache = cache
        self.runner = runner

    def __getattr__(self, name):
        method = getattr(self.cache, name if self.runner is None else f"a{name}")

        def call(*args, **kwargs):
            if self.runner is None:
                return method(*args, **kwargs)
            return self.runner.run(_awaited(method, [_fit(arg) for arg in args], kwargs))

        return call


async def _awaited(method, args, kwargs):
    return await method(*args, **kwargs)


def _fit(arg):
    if not callable(arg) or inspect.iscoroutinefunction(arg):
        return arg

    async def loader(*args):
        return arg(*args)

    return loader


class World:
    """Caches of several "processes" (backends of their own) on one server, by one door."""

    def __init__(self, where, door, **options):
        self.where = where
        self.door = door
        self.options = {"lease": 5.0, **options}
        self.backends = []
        self.events = []
        self.runner = asyncio.Runner() if door == "async" else None

    def backend(self, **options):
        options = {"on_event": self.events.append, **self.options, **options}
        backend = RedisBackend(self.where, **options)
        self.backends.append(backend)
        return backend

    def cache(self, maxsize=0, *, backend=None, **options):
        return Door(Cache(maxsize, backend=backend or self.backend(), **options), self.runner)

    def kinds(self):
        return [event.kind for event in self.events]

    def close(self):
        for backend in self.backends:
            if self.runner is None:
                backend.close()
            else:
                self.runner.run(backend.aclose())
        if self.runner is not None:
            self.runner.close()
            if any(backend.place.cluster for backend in self.backends):
                gc.collect()        # a connection that was forgotten says so here, not in another test


@contextmanager
def world(where, door, **options):
    made = World(where, door, **options)
    try:
        yield made
    finally:
        made.close()
