"""The part of a shared cache that lies in this process: no socket for a hit, and nothing old after the server's word."""
import asyncio
import gc
import math
import time
import weakref

import pytest
from backend_doors import DOORS, Door, world
from servers import until

import adaptcache
from adaptcache import Cache, Idle, RedisBackend, _core, cached, release
from adaptcache.near import NearCache


@pytest.fixture(params=DOORS)
def door(request):
    return request.param


@pytest.fixture(params=["valkey", pytest.param("cluster", marks=pytest.mark.slow)])
def where(request):
    server = request.getfixturevalue(request.param)
    return server.url if request.param == "valkey" else server.url.replace("redis://", "redis+cluster://").removesuffix("/0")


class Near:
    """A cache with a part in this process that has begun to listen, and how many trips a call took."""

    def __init__(self, made, maxsize=100, backend=None, **options):
        self.backend = backend or made.backend()
        self.made = made
        self.cache = made.cache(maxsize, backend=self.backend, **options)
        self.cache.get("none")
        until(lambda: self._pass() or self.part().ready, "the server is listened to")

    def _pass(self):
        if self.made.runner is not None:
            self.made.runner.run(asyncio.sleep(0.005))

    def part(self):
        inner = self.cache.cache
        return inner._near if self.made.runner is None else next(iter(inner._nears.values()))

    def trips(self, act):
        before = self.backend.stats().trips
        act()
        return self.backend.stats().trips - before

    def held(self, key, value):
        """Read until it is answered from here."""
        def here():
            self._pass()
            return self.trips(lambda: self.cache.get(key)) == 0

        until(here, f"{key} is held here")
        assert self.cache.get(key) == value

    def becomes(self, key, value):
        def now():
            self._pass()
            return self.cache.get(key) == value

        until(now, f"{key} becomes {value}")


def test_a_hit_here_takes_no_trip_and_ones_own_write_is_read_at_once(where, door):
    with world(where, door) as made:
        near = Near(made)
        near.cache.set("k", 1)
        near.held("k", 1)
        near.cache.set("k", 2)
        assert near.cache.get("k") == 2
        near.held("k", 2)
        assert near.trips(lambda: near.cache.get_or_load("k", lambda key: 1 / 0)) == 0
        assert near.trips(lambda: near.cache.get_many(["k"])) == 0
        near.cache.delete("k")
        assert near.cache.get("k") is None
        assert near.cache.cache.currsize <= 1


CHANGES = {
    "set": (lambda cache: cache.set("k", 2), 2),
    "delete": (lambda cache: cache.delete("k"), None),
    "clear": (lambda cache: cache.clear(), None),
    "tag": (lambda cache: cache.invalidate_tag("t"), None),
    "load": (lambda cache: cache.delete("k") and cache.get_or_load("k", lambda key: 3), 3),
}


@pytest.mark.parametrize("how", CHANGES)
def test_what_another_process_changes_is_not_held_any_longer(where, door, how):
    with world(where, door) as made:
        near = Near(made)
        other = Cache(0, backend=made.backend())
        other.set("k", 1, tags=("t", "u"))
        other.set("stays", 1)
        near.cache.get_many(["k", "stays"])
        near.held("k", 1)
        change, after = CHANGES[how]
        change(other)
        near.becomes("k", after)
        near.becomes("stays", None if how == "clear" else 1)


def test_a_tag_that_this_process_invalidates_is_gone_at_once(where, door):
    with world(where, door) as made:
        near = Near(made)
        near.cache.set("k", 1, tags=("t",))
        near.held("k", 1)
        near.cache.invalidate_tag("t")
        assert near.cache.get("k") is None


def test_a_ceiling_holds_here_too(valkey, door):
    with world(valkey.url, door) as made:
        near = Near(made)
        near.cache.set("k", 1, ttl=0.4)
        end = time.time() + 0.4
        near.held("k", 1) if time.time() < end - 0.3 else None
        until(lambda: time.time() >= end, "the ceiling is reached")
        assert near.cache.get("k") is None


def test_no_part_without_room_or_wish(valkey, door):
    with world(valkey.url, door) as made:
        for cache in (made.cache(0), made.cache(100, backend=made.backend(near=False))):
            cache.set("k", 1)
            assert cache.get("k") == 1
            assert cache.cache._near is None and not cache.cache._nears and cache.cache.currsize == 0


def test_the_room_is_kept(valkey, door):
    with world(valkey.url, door) as made:
        near = Near(made, 10)
        near.cache.set_many({at: at for at in range(100)})
        for at in range(100):
            assert near.cache.get(at) == at
        assert near.cache.cache.currsize <= 10
        bytes_ = Near(made, 1000, getsizeof=len, space="weighed")
        bytes_.cache.set("k", "x" * 400)
        bytes_.held("k", "x" * 400)
        assert bytes_.cache.cache.currsize == 400
        with_key = Near(made, 10_000, getsizeof=adaptcache.sizeof, space="sized")
        with_key.cache.set("k", "x" * 400)
        with_key.held("k", "x" * 400)
        assert 400 < with_key.cache.cache.currsize < 1000


def test_one_entry_is_enough_room_for_one(valkey, door):
    with world(valkey.url, door) as made:
        near = Near(made, 1)
        near.cache.set("k", 1)
        near.held("k", 1)


def in_use(near, seconds):
    """A key with an idle time of 1.2 s is asked for all the time, and is always there."""
    last = time.monotonic()
    end = last + seconds
    while (now := time.monotonic()) < end:
        value, stood_still = near.cache.get("k"), now - last > 0.3
        if value is None and stood_still:
            near.cache.set("k", 1)      # it was not asked for all the time: the machine is busy
        else:
            assert value == 1
        last = now
        time.sleep(0.02)


def test_hits_here_keep_an_idle_entry_on_the_server(valkey, door):
    with world(valkey.url, door) as made:
        near = Near(made, expiry=Idle(1.2))
        near.cache.set("k", 1)
        in_use(near, 2.5)
        assert near.part().stats().hits > 20


def test_the_learner_hears_of_hits_here(valkey, door):
    with world(valkey.url, door) as made:
        near = Near(made, expiry=adaptcache.Learned(memory_price=1e-4, floor=3600.0, predictors=("table",), learner="manual"))
        near.cache.set("k", 1, cost=1.0)
        near.held("k", 1)

        def heard():
            before = near.cache.cache.ledger.stats().hits
            return near.trips(lambda: near.cache.get("k")) == 0 and near.cache.cache.ledger.stats().hits > before

        until(heard, "the learner has heard of a hit that took no trip")


def test_a_wall_clock_that_jumps_back_does_not_keep_hits_here_from_the_server(valkey, door, monkeypatch):
    with world(valkey.url, door) as made:
        near = Near(made, expiry=Idle(1.2))
        near.cache.set("k", 1)
        near.held("k", 1)
        now = time.time
        monkeypatch.setattr(time, "time", lambda: now() - 3600.0)
        in_use(near, 2.0)


@pytest.mark.parametrize("how", ["get_or_load", "decorated"])
def test_what_the_ledger_let_go_of_and_is_in_use_here_stays_on_the_server(valkey, monkeypatch, how):
    monkeypatch.setattr(release, "REST", 1.5)
    learned = adaptcache.Learned(memory_price=1e-4, floor=3600.0, predictors=("table",), learner="manual")
    with RedisBackend(valkey.url) as backend:
        loads = []

        @cached(backend=backend, expiry=learned, cost=1.0)
        def load(key):
            loads.append(key)
            return key

        cache = load.cache
        key, read = (load.cache_key("k"), lambda: load("k")) if how == "decorated" else \
            ("k", lambda: cache.get_or_load("k", lambda key: loads.append(key) or key))

        def held():
            before = backend.stats().trips
            assert read() == "k"
            return backend.stats().trips == before

        until(held, "the value is held here")
        name = cache._space.name(key).value
        kept = cache.ledger.cache.pop(cache.ledger.number(name))
        now = _core.monotonic()
        cache.releaser.release([release.Release(name, kept.last, now - kept.last, kept.window, math.inf, kept.size, kept.cost)])
        until(lambda: read() == "k" and sum((cache.releaser.stats().kept, cache.releaser.stats().released)), "the release is due")
        assert cache.releaser.stats().kept == 1 and cache.ledger.number(name) in cache.ledger.cache
        assert held() and loads == ["k"]


def test_a_lost_server_is_not_answered_for_beyond_the_window(valkey_server, door):
    server = valkey_server()
    with world(server.url, door, timeout=0.3, near=NearCache(None, heartbeat=0.1, window=0.4)) as made:
        near = Near(made)
        near.cache.set("k", 1)
        near.held("k", 1)
        server.pause()
        try:
            time.sleep(0.5)
            assert near.cache.get("k") is None
        finally:
            server.resume()
        near.becomes("k", 1)
        server.kill()
        near.becomes("k", None)
        server.start()
        near.becomes("k", None)
        near.cache.set("k", 3)
        near.held("k", 3)


def test_what_is_owed_is_not_served_from_here(valkey, door):
    with world(valkey.url, door) as made:
        near = Near(made)
        near.cache.set("k", 1, tags=("t",))
        near.held("k", 1)
        space, owing, debts = near.cache.cache._space, near.cache.cache._remover, near.backend.debts
        debts._closed = True
        debts.owe_tag("other", owing, None)
        debts.tags["t"] = debts.tags.pop("other")
        assert near.cache.get("k") is None
        debts.tags.clear()
        near.held("k", 1)
        debts.owe_key("k", space.name("k"), owing, None)
        assert near.cache.get("k") is None
        debts.keys.clear()


def test_a_decorated_hit_takes_no_trip(valkey):
    with RedisBackend(valkey.url) as backend:
        @cached(backend=backend)
        def double(x):
            return 2 * x

        def held():
            before = backend.stats().trips
            assert double(4) == 8
            return backend.stats().trips == before

        until(held, "the result is held here")
        info = double.cache_info()
        assert info.hits >= 1 and info.currsize == 1 and info.maxsize == 128


def test_a_decorated_coroutine_s_hit_takes_no_trip(valkey):
    async def main():
        async with RedisBackend(valkey.url) as backend:
            @cached(backend=backend)
            async def double(x):
                return 2 * x

            for _ in range(1000):
                before = backend.stats().trips
                assert await double(4) == 8
                if backend.stats().trips == before:
                    return
                await asyncio.sleep(0.01)
            raise AssertionError("never held")

    asyncio.run(main())


def test_a_dropped_cache_is_collected(valkey):
    import gc
    import weakref

    with RedisBackend(valkey.url) as backend:
        cache = Cache(10, backend=backend, expiry=adaptcache.Learned(predictors=("table",)))
        cache["k"] = 1
        assert cache["k"] == 1
        gone = weakref.ref(cache)
        cache.close()
        del cache
        gc.collect()
        assert gone() is None


def test_both_doors_at_once(valkey):
    with world(valkey.url, "async") as made:
        near = Near(made)
        sync = Door(near.cache.cache)
        sync.set("k", 1)
        near.held("k", 1)
        sync.set("k", 2)
        assert near.cache.get("k") == 2
        near.cache.set("k", 3)
        assert sync.get("k") == 3


def listeners(client):
    """Connections that are told of what anybody writes."""
    return sum("B" in each["flags"] for each in client.client_list())


def test_all_caches_of_a_backend_are_kept_coherent_by_one_connection(valkey, door):
    with world(valkey.url, door) as made, valkey.client() as client:
        backend, other = made.backend(), made.backend(near=False)
        assert listeners(client) == 0
        # Spaces whose names begin one another's come in the worse order, and two caches share one.
        spaces = ["users:of:a", "users:of", "users", "users", "orders::late"]
        nears = [Near(made, backend=backend, space=space) for space in spaces]
        for near, space in zip(nears, spaces, strict=True):
            near.cache.set("k", space, tags=("all",))
            near.held("k", space)
        assert listeners(client) == 1
        made.cache(0, backend=other, space="users").set("k", "new")
        for near, space in zip(nears, spaces, strict=True):
            near.becomes("k", "new" if space == "users" else space)
        for near in nears:
            near.held("k", near.cache.get("k"))
        made.cache(0, backend=other, space="orders::late").clear()
        nears[-1].becomes("k", None)
        assert nears[0].trips(lambda: nears[0].cache.get("k")) == 0        # the others keep what they have
        made.cache(0, backend=other).invalidate_tag("all")
        for near in nears[:2]:
            near.becomes("k", None)
        assert nears[2].cache.get("k") == nears[3].cache.get("k") == "new"      # written without a tag
        nears[0].cache.cache.close()
        assert listeners(client) == 1


def test_a_cache_that_comes_late_takes_nothing_from_the_others(where, door):
    with world(where, door) as made:
        backend = made.backend()
        first = Near(made, backend=backend, space="first")
        first.cache.set("k", 1)
        first.held("k", 1)
        second = Near(made, backend=backend, space="second")
        second.cache.set("k", 2)
        second.held("k", 2)
        assert first.trips(lambda: first.cache.get("k")) == 0
        assert first.part().stats().losses == 0


def test_tasks_that_come_at_once_share_a_part(valkey):
    async def main():
        async with RedisBackend(valkey.url) as backend:
            caches = [Cache(100, backend=backend, space=space) for space in ("one", "one", "two")]
            await asyncio.gather(*(cache.aget(key) for cache in caches for key in range(20)))
            for cache in caches:
                assert len(cache._nears) == len(cache._space.nears) == 1
            assert len(backend.parts._tasks) == 1

    asyncio.run(main())


def test_a_dropped_backend_ends_its_listener(valkey):
    with valkey.client() as client:
        backend = RedisBackend(valkey.url)
        cache = Cache(100, backend=backend)
        cache.set("k", 1)
        cache.get("k")
        until(lambda: listeners(client) == 1, "it listens")
        gone = weakref.ref(cache._near)
        del backend, cache
        gc.collect()
        assert gone() is None
        until(lambda: listeners(client) == 0, "it listens no more")
