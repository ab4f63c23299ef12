"""Loads that take longer than a lease: who lives keeps it, who was killed, stopped or cut off loses it, and nobody has it for ever."""
import asyncio
import gc
import json
import os
import signal
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
from backend_doors import DOORS, world
from servers import paused, until
from test_backend_loads import Workers

from adaptcache import Cache, RedisBackend, cached
from adaptcache.backends import Breaker, keeper
from adaptcache.backends.names import Names

LEASE = 0.6
LONG = 4 * LEASE        # what a load here takes; with PATIENCE more, another would have taken over long ago
PATIENCE = 20.0


@pytest.fixture(params=["valkey", pytest.param("cluster", marks=pytest.mark.slow)])
def where(request):
    server = request.getfixturevalue(request.param)
    return server.url if request.param == "valkey" else server.url.replace("redis://", "redis+cluster://").removesuffix("/0")


class Slow:
    """A loader that says that it has begun, and goes on when it is told to."""

    def __init__(self, value="slow"):
        self.value = value
        self.calls = []
        self.begun = threading.Event()
        self.done = threading.Event()

    def __call__(self, key):
        self.calls.append(key)
        self.begun.set()
        assert self.done.wait(PATIENCE)
        return self.value

    def many(self, keys):
        self(keys)
        return {key: f"{self.value} {key}" for key in keys}

    async def later(self, key):
        return await asyncio.get_running_loop().run_in_executor(None, self, key)

    def end(self, seconds=LONG):
        assert self.begun.wait(PATIENCE)
        time.sleep(seconds)
        self.done.set()


def lease_at(where):
    """With tasks, the first renewal makes a client for threads, which asks a cluster for its nodes; that takes its time on a busy machine."""
    return 3 * LEASE if "cluster" in where else LEASE


def held(cache, key="k"):
    """Who has the lease of a key."""
    client = cache.backend.client()
    return client.get(cache._space.name(key).lease)


def never(key):
    raise AssertionError("loaded beside the owner")


@pytest.mark.parametrize("door", DOORS)
def test_a_load_that_takes_several_leases_is_done_once_and_stored(where, door):
    with world(where, door, lease=lease_at(where)) as made, RedisBackend(where, lease=lease_at(where)) as other, ThreadPoolExecutor(3) as pool:
        cache, waiter, slow = made.cache(), Cache(0, backend=other), Slow()
        pool.submit(slow.end)
        waits = pool.submit(lambda: slow.begun.wait(PATIENCE) and waiter.get_or_load("k", never))
        assert cache.get_or_load("k", slow.later if door == "async" else slow) == "slow"
        assert waits.result(PATIENCE) == "slow" and slow.calls == ["k"]
        assert waiter.get("k") == "slow" and held(waiter) is None
        assert made.kinds() == [] and other.stats().events == {}
        # It looks at the lease when what it knew of it has passed, not all the time: 2/3 of a lease or more lie between two looks.
        assert other.stats().trips <= 4 + LONG / LEASE * 3 / 2 + 3
        assert not made.backends[0].keeper._holds


@pytest.mark.parametrize("kind", ["_valkey", pytest.param("_debian", marks=pytest.mark.slow)])
def test_processes_do_a_long_load_once(request, kind):
    server = request.getfixturevalue(kind)
    if server is None:
        pytest.skip("redis-server is not installed (apt-get install redis-server)")
    with server.client() as client:
        client.flushall()
    with Workers(server.url, 2, work="load", keys=["k"], seconds=LONG, lease=LEASE) as workers:
        workers.go()
        assert workers.results() == [["k:1"]] * 2


@pytest.mark.parametrize("door", ["sync", pytest.param("async", marks=pytest.mark.slow)])
def test_a_decorated_function_and_a_batch_keep_their_leases(where, door):
    with world(where, door, lease=lease_at(where)) as made, RedisBackend(where, lease=lease_at(where)) as other, ThreadPoolExecutor(3) as pool:
        backend = made.backend()
        cache, waiter, slow = made.cache(backend=backend), Cache(0, backend=other), Slow()

        async def many(keys):
            return await asyncio.get_running_loop().run_in_executor(None, slow.many, keys)

        pool.submit(slow.end)
        waits = pool.submit(lambda: slow.begun.wait(PATIENCE) and waiter.get_or_load("b", never))
        expected = {key: f"slow {key}" for key in "abc"}
        assert cache.get_or_load_many("abc", many if door == "async" else slow.many) == expected
        assert waits.result(PATIENCE) == "slow b" and waiter.get_many("abc") == expected and slow.calls == [["a", "b", "c"]]

        again = Slow()
        if door == "async":
            @cached(backend=backend)
            async def function(x):
                return await again.later(x)
        else:
            @cached(backend=backend)
            def function(x):
                return again(x)
        pool.submit(again.end)
        assert (made.runner.run(function(1)) if door == "async" else function(1)) == "slow"
        assert made.kinds() == []
        function.cache.close()


@pytest.mark.parametrize("how", ["stopped", pytest.param("killed", marks=pytest.mark.slow)])
def test_an_owner_that_is_gone_is_taken_over_though_it_had_renewed(valkey, how):
    with Workers(valkey.url, 1, work="die", keys=["k"], lease=LEASE) as workers, RedisBackend(valkey.url, lease=LEASE) as backend:
        cache, process = Cache(0, backend=backend), workers.processes[0]
        workers.go()
        assert json.loads(process.stdout.readline()) == "loading"
        time.sleep(LONG)
        assert held(cache) is not None
        os.kill(process.pid, signal.SIGKILL if how == "killed" else signal.SIGSTOP)
        began = time.monotonic()
        assert cache.get_or_load("k", lambda key: "mine") == "mine"
        assert time.monotonic() - began < LEASE + 2
        assert cache.get("k") == "mine" and backend.stats().events == {"took-over": 1}
        if how == "stopped":
            os.kill(process.pid, signal.SIGCONT)        # it goes on, and takes nothing back
            time.sleep(LEASE)
            assert held(cache) is None and cache.get("k") == "mine"


def test_an_owner_that_is_cut_off_is_taken_over_and_takes_nothing_back(valkey, wire):
    link = wire(valkey.port)
    options = {"lease": LEASE, "timeout": 0.2, "breaker": Breaker(failures=100)}
    with RedisBackend(f"redis://127.0.0.1:{link.port}", **options) as backend, RedisBackend(valkey.url, lease=LEASE) as another:
        cache, other, slow = Cache(0, backend=backend), Cache(0, backend=another), Slow()
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(cache.get_or_load, "k", slow)
            assert slow.begun.wait(PATIENCE)
            time.sleep(2 * LEASE)
            assert held(other) is not None
            link.cut()
            assert other.get_or_load("k", lambda key: "mine") == "mine"
            link.mend()
            time.sleep(LEASE)
            slow.done.set()
            assert first.result(PATIENCE) == "slow"
        assert other.get("k") == cache.get("k") == "mine" and another.stats().events == {"took-over": 1}
        assert backend.stats().events["not-renewed"] >= 1 and backend.stats().events["lease-lost"] == 1


OVERTAKE = {
    "set": lambda cache: cache.set("k", "set"),
    "delete": lambda cache: cache.delete("k"),
    "clear": lambda cache: cache.clear(),
}


@pytest.mark.parametrize("how", OVERTAKE)
@pytest.mark.parametrize("many", [pytest.param(False, id="one"), pytest.param(True, id="many", marks=pytest.mark.slow)])
def test_what_took_a_renewed_lease_away_is_not_overwritten(where, how, many):
    lease = lease_at(where)
    with RedisBackend(where, lease=lease) as backend, RedisBackend(where, lease=lease) as another:
        cache, other, loads = Cache(0, backend=backend), Cache(0, backend=another), []

        def loader(key):
            loads.append(key)
            if len(loads) == 1:
                time.sleep(2 * lease)
                assert held(other) is not None
                OVERTAKE[how](other)
                # A cleared space has the lease still; nobody need wait for a load that will not count.
                until(lambda: held(other) is None, "the lease is given back")
                time.sleep(2 * lease)
                assert held(other) is None
            return f"load {len(loads)}"

        if many:
            got = cache.get_or_load_many(["k"], lambda keys: {key: loader(key) for key in keys})["k"]
        else:
            got = cache.get_or_load("k", loader)
        assert got == other.get("k") == ("set" if how == "set" else "load 2")
        assert len(loads) == (1 if how == "set" else 2)
        assert backend.stats().events == {"lease-lost": 1}


def test_a_load_that_hangs_holds_others_off_for_a_while_only(valkey):
    with RedisBackend(valkey.url, lease=LEASE, renew=3 * LEASE) as backend, RedisBackend(valkey.url, lease=LEASE, renew=3 * LEASE) as another:
        cache, other, hangs = Cache(0, backend=backend), Cache(0, backend=another), Slow()
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(cache.get_or_load, "k", hangs)
            assert hangs.begun.wait(PATIENCE)
            began = time.monotonic()
            assert other.get_or_load("k", lambda key: "quick") == "quick"
            assert 2 * LEASE < time.monotonic() - began < 3 * LEASE + 3
            assert another.stats().events == {"took-over": 1}
            until(lambda: backend.stats().events.get("not-renewed") == 1, "it is said that it takes too long")
            hangs.done.set()
            assert first.result(PATIENCE) == "slow"
        assert other.get("k") == "quick" and backend.stats().events == {"not-renewed": 1, "lease-lost": 1}


def test_renewal_can_be_switched_off_and_options_are_checked(valkey):
    with RedisBackend(valkey.url, lease=LEASE, renew=0) as backend:
        cache, slow = Cache(0, backend=backend), Slow()
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(cache.get_or_load, "k", slow)
            assert slow.begun.wait(PATIENCE)
            until(lambda: held(cache) is None, "the lease ends")
            assert backend.keeper._thread is None
            slow.done.set()
            assert first.result(PATIENCE) == "slow"
    with pytest.raises(ValueError, match="renew"):
        RedisBackend(valkey.url, renew=-1)


def test_a_short_load_costs_no_command(valkey):
    with RedisBackend(valkey.url, lease=LEASE) as backend:
        cache = Cache(0, backend=backend)
        cache.get_or_load("first", str)         # the scripts are known now
        before = backend.stats().commands
        for number in range(10):
            assert cache.get_or_load(number, str) == str(number)
        time.sleep(LEASE)
        assert backend.stats().commands - before == 30      # MGET, JOIN and STORE each


def test_the_thread_wakes_when_something_is_due(valkey):
    with RedisBackend(valkey.url, lease=LEASE) as backend:
        cache, slow, steps = Cache(0, backend=backend), Slow(), []
        cache.get_or_load("first", str)
        until(lambda: backend.keeper._idle, "it has nothing to do")
        step = backend.keeper.step
        backend.keeper.step = lambda: steps.append(1) or step()
        before = backend.stats().commands
        with ThreadPoolExecutor(1) as pool:
            pool.submit(slow.end)
            assert cache.get_or_load("k", slow) == "slow"
        renewals = backend.stats().commands - before - 3
        assert 1 <= renewals <= 3 * LONG / LEASE + 3        # each third of a lease, also when this machine was slow
        assert len(steps) <= 3 * renewals + 3


def test_the_leases_of_many_loads_are_renewed_together(valkey):
    count = 40

    async def load(cache, number):
        async def loader(key):
            await asyncio.sleep(3 * LEASE)
            return key

        await asyncio.sleep(number * LEASE / count)
        return await cache.aget_or_load(number, loader)

    async def main():
        async with RedisBackend(valkey.url, lease=LEASE) as backend:
            cache = Cache(0, backend=backend)
            run, batches = backend.keeper._run, []
            backend.keeper._run = lambda plan: batches.append(1) or run(plan)
            began = time.monotonic()
            assert await asyncio.gather(*[load(cache, number) for number in range(count)]) == [*range(count)]
            assert backend.stats().events == {} and backend.stats().commands >= (3 + 3) * count
            assert len(batches) <= 12 * (time.monotonic() - began) / LEASE

    asyncio.run(main())


def test_trouble_while_renewing_is_an_event(valkey_server):
    server = valkey_server()
    with RedisBackend(server.url, lease=LEASE, timeout=0.2, breaker=Breaker(failures=100)) as backend:
        cache, slow = Cache(0, backend=backend), Slow()
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(cache.get_or_load, "k", slow)
            assert slow.begun.wait(PATIENCE)
            with paused(server):
                until(lambda: backend.stats().events.get("not-renewed", 0) >= 2, "it was tried twice")
            slow.done.set()
            assert first.result(PATIENCE) == "slow"
        again = Slow()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(again.end)
            assert cache.get_or_load("j", again) == "slow" and cache.get("j") == "slow"      # the thread is well


def test_whatever_is_raised_while_renewing_is_told_and_tried_again():
    told = []

    def run(plan):
        raise RuntimeError("closed under its feet")

    kept = keeper.Keeper(0.1, 10.0, run, lambda *what: told.append(what))
    kept.hold("k", b"token", [(Names("p", "s", cluster=False).of(b"k"), b"generation")])
    until(lambda: len(told) >= 2, "tried twice")
    assert {(kind, key, str(error)) for kind, key, error in told} == {("not-renewed", "k", "closed under its feet")}
    kept.close()


def test_the_lease_of_a_cancelled_task_is_given_back(valkey):
    async def main(cache):
        begun = asyncio.Event()

        async def loader(key):
            begun.set()
            await asyncio.sleep(60)

        task = asyncio.ensure_future(cache.aget_or_load("k", loader))
        await begun.wait()
        await asyncio.sleep(2 * LEASE)
        assert held(cache) is not None
        loads = asyncio.all_tasks() - {asyncio.current_task()}
        for load in loads:
            load.cancel()       # the load's own task too: as when a loop is shut down
        await asyncio.wait(loads)
        assert task.cancelled()

    with asyncio.Runner() as runner, valkey.client() as client:
        backend = RedisBackend(valkey.url, lease=LEASE, near=False)
        cache = Cache(0, backend=backend)
        runner.run(main(cache))
        assert client.get(cache._space.name("k").lease) is None and not backend.keeper._holds
        runner.run(backend.aclose())


def test_the_lease_of_a_loop_that_does_not_run_ends(valkey):
    with RedisBackend(valkey.url, lease=LEASE, near=False) as backend:
        cache, loop = Cache(0, backend=backend), asyncio.new_event_loop()
        begun, done = asyncio.Event(), asyncio.Event()

        async def loader(key):
            begun.set()
            await done.wait()
            return "late"

        task = loop.create_task(cache.aget_or_load("k", loader))
        loop.run_until_complete(begun.wait())
        loop.run_until_complete(asyncio.sleep(2 * LEASE))
        assert held(cache) is not None
        until(lambda: held(cache) is None, "the lease ends")
        assert backend.stats().events == {"not-renewed": 1}
        done.set()
        assert loop.run_until_complete(task) == "late"
        loop.run_until_complete(backend.aclose())
        loop.close()


def test_close_while_something_is_loaded_lets_the_lease_end(valkey):
    with RedisBackend(valkey.url, lease=LEASE) as other, ThreadPoolExecutor(1) as pool:
        backend = RedisBackend(valkey.url, lease=LEASE)
        cache, another, slow = Cache(0, backend=backend), Cache(0, backend=other), Slow()
        first = pool.submit(cache.get_or_load, "k", slow)
        assert slow.begun.wait(PATIENCE)
        time.sleep(LEASE)
        thread = backend.keeper._thread
        backend.close()
        assert not thread.is_alive()
        assert another.get_or_load("k", lambda key: "mine") == "mine"
        slow.done.set()
        assert isinstance(first.exception(PATIENCE), RuntimeError)      # that backend is closed
        assert another.get("k") == "mine"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_keeps_leases_of_its_own(valkey):
    with RedisBackend(valkey.url, lease=LEASE) as backend:
        cache, slow = Cache(0, backend=backend), Slow()
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(cache.get_or_load, "parent", slow)
            assert slow.begun.wait(PATIENCE)
            pid = os.fork()
            if pid == 0:
                try:
                    quiet = not backend.keeper._holds and backend.keeper._thread is None
                    value = cache.get_or_load("child", lambda key: time.sleep(LONG) or "child")
                    lost = backend.stats().events.get("lease-lost", 0)
                    os._exit(0 if quiet and value == cache.get("child") == "child" and not lost else 1)
                except BaseException:
                    os._exit(2)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            assert held(cache, "parent") is not None
            slow.done.set()
            assert first.result(PATIENCE) == "slow"
        assert cache.get("parent") == "slow" and cache.get("child") == "child"


@pytest.mark.slow
def test_the_thread_ends_when_nothing_is_loaded_and_begins_again(valkey, monkeypatch):
    monkeypatch.setattr(keeper, "IDLE", 0.2)
    with RedisBackend(valkey.url, lease=LEASE) as backend:
        cache = Cache(0, backend=backend)
        for round_ in range(2):
            assert cache.get_or_load(("short", round_), repr)
            thread = backend.keeper._thread
            assert thread.is_alive()
            slow = Slow()
            with ThreadPoolExecutor(1) as pool:
                pool.submit(slow.end)
                assert cache.get_or_load(("long", round_), slow) == cache.get(("long", round_)) == "slow"
            until(lambda: backend.keeper._thread is None, "it ends")
            thread.join(PATIENCE)
            assert not thread.is_alive()


def test_the_thread_keeps_no_backend_alive(valkey, monkeypatch):
    monkeypatch.setattr(keeper, "IDLE", 0.2)
    backend = RedisBackend(valkey.url, lease=LEASE, near=False)
    cache = Cache(0, backend=backend)
    assert cache.get_or_load("k", str) == "k"
    thread, gone = backend.keeper._thread, weakref.ref(backend)
    backend._driver.let_go()
    backend.client().connection_pool.disconnect()
    del backend, cache
    until(lambda: gc.collect() is not None and gone() is None, "the backend is collected")
    thread.join(PATIENCE)
    assert not thread.is_alive()
