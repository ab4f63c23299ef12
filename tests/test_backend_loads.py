"""One load a key over all processes, and what becomes of a load whose owner dies, fails, or is overtaken."""
import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from backend_doors import DOORS, world
from servers import until

from adaptcache import Cache, RedisBackend
from adaptcache.backends.space import Wanted

WORKER = Path(__file__).with_name("backend_worker.py")


@pytest.fixture(params=["valkey", pytest.param("cluster", marks=pytest.mark.slow)])
def where(request):
    server = request.getfixturevalue(request.param)
    return server.url if request.param == "valkey" else server.url.replace("redis://", "redis+cluster://").removesuffix("/0")


class Workers:
    """Processes of `backend_worker`, begun together."""

    def __init__(self, url, count, **options):
        self.processes = [subprocess.Popen([sys.executable, "-W", "error", str(WORKER), json.dumps({"url": url, **options})], text=True,
                                           stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": ":".join(sys.path)})
                          for _ in range(count)]
        for process in self.processes:
            assert json.loads(process.stdout.readline()) == "ready"

    def go(self):
        for process in self.processes:
            process.stdin.write("\n")
            process.stdin.flush()

    def results(self):
        out = []
        for process in self.processes:
            text, _ = process.communicate(timeout=60)
            assert process.returncode == 0
            out.append([json.loads(line) for line in text.splitlines()])
        return out

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()


@pytest.mark.parametrize("kind", ["_valkey", pytest.param("_debian", marks=pytest.mark.slow)])
def test_processes_load_each_key_once(request, kind):
    server = request.getfixturevalue(kind)
    if server is None:
        pytest.skip("redis-server is not installed (apt-get install redis-server)")
    with server.client() as client:
        client.flushall()
    keys = [f"k{at}" for at in range(15)]
    with Workers(server.url, 3, work="load", keys=keys, seconds=0.02) as workers:
        workers.go()
        assert workers.results() == [[f"{key}:1" for key in keys]] * 3


def test_another_takes_over_when_the_owner_is_killed(valkey):
    lease = 1.0
    with Workers(valkey.url, 1, work="die", keys=["k"], lease=lease) as workers, RedisBackend(valkey.url, lease=lease) as backend:
        workers.go()
        assert json.loads(workers.processes[0].stdout.readline()) == "loading"
        began = time.monotonic()
        os.kill(workers.processes[0].pid, signal.SIGKILL)
        cache = Cache(0, backend=backend)
        assert cache.get_or_load("k", lambda key: "mine") == "mine"
        assert time.monotonic() - began < lease + 2
        assert cache.get("k") == "mine"
        assert backend.stats().events["took-over"] == 1


@pytest.mark.parametrize("door", DOORS)
def test_who_waits_is_woken_and_does_not_ask_again_and_again(where, door):
    with world(where, door, lease=30.0) as made:
        owner, backend = Cache(0, backend=made.backend()), made.backend()
        waiter = made.cache(backend=backend)
        begun, done = threading.Event(), threading.Event()

        def slow(key):
            begun.set()
            assert done.wait(20)
            return "slow"

        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(owner.get_or_load, "k", slow)
            assert begun.wait(20)
            second = pool.submit(waiter.get_or_load, "k", lambda key: "never")
            until(lambda: waiter.cache._space.counted.waits == 1, "the second process waits")
            time.sleep(0.5)
            began = time.monotonic()
            done.set()
            assert first.result(20) == second.result(20) == "slow"
            assert time.monotonic() - began < 5        # the lease would have been 30
        assert backend.stats().trips <= 7       # ask, JOIN, JOIN with the inbox, again when it was open, again when woken; scripts once anew
        assert waiter.cache.stats().loads == 0


def test_a_word_that_was_said_before_anybody_listened_is_not_waited_for(valkey, monkeypatch):
    with RedisBackend(valkey.url, lease=30.0) as first, RedisBackend(valkey.url, lease=30.0) as second:
        owner, waiter = Cache(0, backend=first), Cache(0, backend=second)
        begun, done, listen = threading.Event(), threading.Event(), threading.Event()
        subscribe = second.inbox._subscribe

        def late(channel):
            assert listen.wait(20)
            return subscribe(channel)

        monkeypatch.setattr(second.inbox, "_subscribe", late)

        def slow(key):
            begun.set()
            assert done.wait(20)
            return "slow"

        with ThreadPoolExecutor(2) as pool:
            one = pool.submit(owner.get_or_load, "k", slow)
            assert begun.wait(20)
            other = pool.submit(waiter.get_or_load, "k", lambda key: "never")
            until(lambda: waiter._space.counted.waits == 1, "the second process waits")
            with valkey.client() as client:
                until(lambda: client.exists(waiter._space.name("k").waiters), "it has left its name")
            began = time.monotonic()
            done.set()
            assert one.result(20) == "slow"
            listen.set()
            assert other.result(20) == "slow" and time.monotonic() - began < 10


@pytest.mark.parametrize("door", DOORS)
def test_many_wait_for_many_keys_in_one_process(valkey, door):
    count = 60 if door == "sync" else 400
    with world(valkey.url, door, lease=30.0, timeout=10.0) as made:
        owner, backend = Cache(0, backend=made.backend()), made.backend()
        waiter = Cache(0, backend=backend)
        begun, done = threading.Event(), threading.Event()

        def slow(keys):
            begun.set()
            assert done.wait(20)
            return {key: -key for key in keys}

        async def never(key):
            raise AssertionError

        def release():
            until(lambda: waiter._space.counted.waits == count, "all wait")
            done.set()

        async def wait():
            return await asyncio.gather(*[waiter.aget_or_load(key, never) for key in range(count)])

        with ThreadPoolExecutor(count + 2) as pool:
            first = pool.submit(owner.get_or_load_many, range(count), slow)
            assert begun.wait(20)
            pool.submit(release)
            if door == "async":
                got = made.runner.run(wait())
            else:
                got = list(pool.map(lambda key: waiter.get_or_load(key, lambda key: 1 / 0), range(count)))
            assert got == [-key for key in range(count)] and first.result(20) == {key: -key for key in range(count)}


@pytest.mark.parametrize("door", DOORS)
def test_after_a_failed_load_the_others_try_one_after_another(valkey, door):
    with world(valkey.url, door) as made:
        caches = [made.cache() for _ in range(3)] if door == "sync" else [Cache(0, backend=made.backend()) for _ in range(3)]
        running, most, calls = [], [], []

        def bad(key):
            running.append(1)
            most.append(len(running))
            time.sleep(0.1)
            running.pop()
            calls.append(1)
            raise LookupError(f"try {len(calls)}")

        async def abad(key):
            return await asyncio.get_running_loop().run_in_executor(None, bad, key)

        if door == "sync":
            with ThreadPoolExecutor(3) as pool:
                errors = [each.exception(20) for each in [pool.submit(cache.get_or_load, "k", bad) for cache in caches]]
        else:
            async def main():
                return await asyncio.gather(*[cache.aget_or_load("k", abad) for cache in caches], return_exceptions=True)

            errors = made.runner.run(main())
        assert all(type(error) is LookupError for error in errors) and len({str(error) for error in errors}) == 3
        assert max(most) == 1 and len(calls) == 3
        assert made.cache().get("k") is None


OVERTAKE = {
    "delete": lambda cache: cache.delete("k"),
    "set": lambda cache: cache.set("k", "set"),
    "clear": lambda cache: cache.clear(),
    "tag": lambda cache: cache.invalidate_tag("t"),
    "delete_many": lambda cache: cache.delete_many(["k"]),
    "set_many": lambda cache: cache.set_many({"k": "set"}),
    "pop": lambda cache: cache.pop("k", None),
}


@pytest.mark.parametrize("how", OVERTAKE)
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
def test_what_was_invalidated_while_it_was_loaded_is_not_kept(where, how, door, many):
    with world(where, door) as made:
        cache, other = made.cache(), Cache(0, backend=made.backend())
        loads = []

        def loader(key):
            loads.append(key)
            if len(loads) == 1:
                OVERTAKE[how](other)
            return f"load {len(loads)}"

        if many:
            got = cache.get_or_load_many(["k"], lambda keys: {key: loader(key) for key in keys}, tags=("t",))["k"]
        else:
            got = cache.get_or_load("k", loader, tags=("t",))
        after = other.get("k")
        if how == "tag":
            assert got == "load 1" and after is None        # stored, but nobody finds it
        elif how.startswith("set"):
            assert got == after == "set" and len(loads) == 1
        else:
            assert got == after == "load 2" and len(loads) == 2


def test_an_owner_whose_lease_ran_out_overwrites_nothing(where):
    with RedisBackend(where, lease=0.2, renew=0) as slow_backend, RedisBackend(where, lease=0.2) as backend:
        slow, quick = Cache(0, backend=slow_backend), Cache(0, backend=backend)

        def late(key):
            time.sleep(0.4)
            assert quick.get_or_load(key, lambda key: "new") == "new"
            return "old"

        assert slow.get_or_load("k", late) == "old"
        assert slow.get("k") == quick.get("k") == "new"
        assert slow_backend.stats().events["lease-lost"] == 1


def test_who_has_waited_long_enough_loads_without_storing(valkey):
    with RedisBackend(valkey.url, lease=0.3, renew=0) as backend, valkey.client() as client:
        cache = Cache(0, backend=backend)
        client.set(cache._space.name("k").lease, b"somebody", px=60_000)
        began = time.monotonic()
        assert cache.get_or_load("k", lambda key: "mine") == "mine"
        assert 0.5 < time.monotonic() - began < 5
        assert cache.get("k") is None
        assert backend.stats().events["impatient"] == 1


def test_a_batch_of_loads_waits_for_what_others_load(where):
    with RedisBackend(where) as first, RedisBackend(where) as second:
        one, two = Cache(0, backend=first), Cache(0, backend=second)
        one.set(0, "there")
        begun, done = threading.Event(), threading.Event()
        asked = []

        def slow(keys):
            begun.set()
            assert done.wait(20)
            return {key: f"one {key}" for key in keys if key != 3}

        def quick(keys):
            asked.append(keys)
            done.set()
            return {key: f"two {key}" for key in keys}

        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(one.get_or_load_many, [0, 1, 2, 3], slow)
            assert begun.wait(20)
            assert two.get_or_load_many([2, 3, 4, 5, 0], quick) == {0: "there", 2: "one 2", 3: "two 3", 4: "two 4", 5: "two 5"}
            assert future.result(20) == {0: "there", 1: "one 1", 2: "one 2"}
        assert asked == [[4, 5], [3]]
        assert two.get_many(range(6)) == {0: "there", 1: "one 1", 2: "one 2", 3: "two 3", 4: "two 4", 5: "two 5"}


def test_a_load_that_nobody_waits_for_any_more_is_stored(valkey):
    async def main():
        async with RedisBackend(valkey.url) as backend:
            cache = Cache(0, backend=backend)
            go = asyncio.Event()

            async def loader(key):
                await go.wait()
                return 1

            task = asyncio.ensure_future(cache.aget_or_load("k", loader))
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            go.set()
            for _ in range(200):
                if await cache.aget("k") == 1:
                    return
                await asyncio.sleep(0.01)
            raise AssertionError

    asyncio.run(main())


def test_an_unserializable_result_raises_and_releases_the_lease(valkey):
    with RedisBackend(valkey.url, lease=30.0) as backend:
        cache = Cache(0, backend=backend)
        with pytest.raises(TypeError):
            cache.get_or_load("k", lambda key: threading.Lock())
        with pytest.raises(TypeError, match="mapping"):
            cache.get_or_load_many(["k"], lambda keys: 5)
        began = time.monotonic()
        assert cache.get_or_load("k", lambda key: 5) == 5
        assert time.monotonic() - began < 10


@pytest.mark.parametrize("how", ["cleared", "being cleared"])
def test_a_write_while_another_thread_clears_is_there_or_gone_and_raises_nothing(where, how):
    """The other thread comes between the moment when the write is made and the one when it is sent."""
    with RedisBackend(where) as backend:
        cache = Cache(0, backend=backend)
        cache.set("k", 1)
        plan = cache._writer.set("k", cache._space.name("k"), 2, Wanted())
        step = plan.send(None)
        if how == "cleared":
            cache.clear()
        else:
            cache._space.generations.clear()
        with pytest.raises(StopIteration):
            while True:
                step = plan.send(backend.driver._do(step))
        assert cache.get("k") == 2


@pytest.mark.parametrize("lock", ["keeper", "inbox", "events", "debts", "breaker", "backend"])
def test_a_finalizer_that_uses_the_cache_waits_for_no_lock_of_its_own_thread(valkey, lock):
    """The collector may come in the middle of anything, and end abandoned loads and waiters, or run the user's finalizers."""
    backend = RedisBackend(valkey.url, lease=0.3, near=False)
    cache = Cache(0, backend=backend)
    part = {"breaker": backend._traffic.circuit(""), "backend": backend}.get(lock) or getattr(backend, lock)

    def finalizer():
        with part._lock:
            assert cache.get_or_load("k", str) == "k"
            backend._traffic.circuit("").failed(OSError())
            cache.delete("k")
            backend.debts.owe_key("k", cache._space.name("k"), cache._remover, None)
            backend.inbox.sit(b"k", print).close()

    thread = threading.Thread(target=finalizer, daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()        # if it is, it waits for ever, and so would `close`
    until(lambda: not len(backend.debts), "delivered")
    backend.close()


def test_a_recursive_load_is_told_apart_from_a_wait(valkey):
    from adaptcache import RecursiveLoadError

    with RedisBackend(valkey.url) as backend:
        cache = Cache(0, backend=backend)
        with pytest.raises(RecursiveLoadError):
            cache.get_or_load("k", lambda key: cache.get_or_load(key, str))
        assert cache.get_or_load("k", lambda key: cache.get_or_load("j", str)) == "j"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_connections_of_its_own(valkey):
    with RedisBackend(valkey.url) as backend:
        cache = Cache(0, backend=backend)
        cache["k"] = 1
        pid = os.fork()
        if pid == 0:
            try:
                ok = cache["k"] == 1 and cache.get_or_load("j", str) == "j"
                cache["child"] = 2
                backend.close()
                os._exit(0 if ok else 1)
            except BaseException:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert cache["child"] == 2 and cache["k"] == 1
