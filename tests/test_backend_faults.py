"""Servers that are killed, stopped, full, read-only or failing over: no wrong value, no exception, no stampede, and recovery."""
import asyncio
import gc
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
from backend_doors import DOORS, world
from servers import paused, until

from adaptcache import Cache, Fixed, PerEntry, RedisBackend, cached
from adaptcache.backends import Breaker
from adaptcache.backends.breaker import CLOSED, HALF_OPEN, OPEN, Circuit
from adaptcache.backends.debts import Debts
from adaptcache.backends.names import Names
from adaptcache.backends.steps import Trouble

QUICK = {"timeout": 0.3, "breaker": Breaker(failures=3, cooldown=0.1, longest=0.3)}


@pytest.fixture(params=DOORS)
def door(request):
    return request.param


def recovered(cache):
    """A write arrives and is read: the server is back in use."""
    cache.set("recovered", 1)
    return cache.get("recovered") == 1


# -- the breaker by itself


def test_the_breaker_opens_probes_and_closes():
    told = []
    circuit = Circuit(Breaker(failures=2, cooldown=0.05, longest=0.1), lambda kind, key, error: told.append(kind))
    error = OSError()
    assert circuit.allow()
    circuit.failed(error)
    circuit.succeeded()
    circuit.failed(error)
    assert circuit.state == CLOSED and circuit.allow()
    circuit.failed(error)
    assert circuit.state == OPEN and not circuit.allow() and circuit.refused == 1
    until(circuit.allow, "a probe may go")
    assert circuit.state == HALF_OPEN and not circuit.allow()       # one at a time
    circuit.failed(error)
    assert circuit.state == OPEN
    until(circuit.allow, "a probe may go")
    circuit.succeeded()
    assert circuit.state == CLOSED and circuit.allow() and circuit.opened == 2
    assert told == ["breaker-open", "breaker-half-open", "breaker-open", "breaker-half-open", "breaker-closed"]


def test_a_probe_that_is_never_heard_of_again_does_not_keep_it_shut():
    circuit = Circuit(Breaker(failures=1, cooldown=0.05, longest=0.05), lambda *_: None)
    circuit.failed(OSError())
    until(circuit.allow, "a probe may go")
    until(circuit.allow, "another one may go")


@pytest.mark.parametrize("wrong", [{"failures": 0}, {"cooldown": 0}, {"longest": -1}])
def test_breaker_options_are_checked(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Breaker(**wrong)


# -- a server that is not there


def test_a_killed_server_is_a_miss_and_comes_back_empty(valkey_server, door):
    server = valkey_server()
    with world(server.url, door, **QUICK) as made:
        backend = made.backend()
        cache = made.cache(backend=backend)
        cache.set("k", 1)
        server.kill()
        assert cache.get("k") is None
        loads = []
        for _ in range(20):
            assert cache.get_or_load("k", lambda key: loads.append(key) or 2) == 2
            assert cache.get("k") == 2          # what was just loaded, for a while
        assert loads == ["k"]
        assert backend.stats().breaker != "closed" and backend.stats().refused > 20
        server.start()
        until(lambda: recovered(cache), "the server is in use again")
        assert cache.get("k") is None           # the server is asked again, and has nothing
        assert backend.stats().breaker == "closed"
        assert {"read-failed", "breaker-open", "breaker-half-open", "breaker-closed"} <= set(made.kinds())


def test_a_server_that_was_never_there(door):
    with world("redis://127.0.0.1:1", door, **QUICK) as made:
        cache = made.cache()
        assert cache.get("k") is None
        assert cache.get_many("ab") == {}
        cache.set("k", 1)
        cache.set_many({"a": 1})
        cache.set_many({}, tags=["t"])
        assert cache.delete("k") is None
        assert cache.delete_many("ab") == 0
        assert cache.pop("k", 3) == 3
        cache.clear()
        assert cache.invalidate_tag("t") is False
        assert cache.get_or_load("k", str) == "k"
        assert cache.get_or_load_many("ab", lambda keys: {key: 1 for key in keys}) == {"a": 1, "b": 1}
        with pytest.raises(LookupError):
            cache.get_or_load("no", lambda key: {}[key])
        undelivered = made.backends[0].stats().undelivered
        assert undelivered == 5                 # k, a and b; the tag; the space
        made.close()
        made.backends.clear()
        made.runner = None
        assert made.kinds().count("forgotten") == undelivered


def test_a_cluster_that_was_never_there(door):
    with world("redis+cluster://127.0.0.1:1", door, **QUICK) as made:
        cache = made.cache()
        assert cache.get("k") is None
        assert cache.get_or_load("k", str) == "k"
        assert cache.get_many("ab") == {}


def test_a_cluster_that_came_late_is_asked_like_any_other(own_cluster):
    cluster = own_cluster(1, 0)
    server = cluster.servers[0]
    server.kill()
    with RedisBackend(cluster.url.replace("redis://", "redis+cluster://").removesuffix("/0"), timeout=0.3,
                      breaker=Breaker(failures=2, cooldown=0.5)) as backend:
        cache = Cache(0, backend=backend)
        until(lambda: cache.get("k") is None and backend.stats().breaker == "open", "the breaker opens")
        server.start()
        until(lambda: recovered(cache), "the cluster is in use")
        assert backend.stats().breaker == "closed"
        assert [cache.get("recovered") for _ in range(50)] == [1] * 50


def test_a_stopped_server_costs_its_timeout_a_few_times_and_then_nothing(valkey_server, door):
    server = valkey_server()
    with world(server.url, door, timeout=0.2, breaker=Breaker(failures=3, cooldown=30, longest=30)) as made:
        cache = made.cache()
        cache.set("k", 1)
        with paused(server):
            began = time.monotonic()
            for at in range(200):
                assert cache.get_or_load(at, lambda key: -key) == -at
            assert time.monotonic() - began < 10        # 200 time-outs would be 40 s
        assert made.backends[0].stats().refused > 150


def test_a_paused_server_is_in_use_again_after_the_pause(valkey_server, door):
    server = valkey_server()
    with world(server.url, door, **QUICK) as made:
        cache = made.cache()
        cache.set("k", 1)
        with server.client() as client:
            client.execute_command("CLIENT", "PAUSE", 1000, "ALL")
        loads = []
        assert cache.get_or_load("k", lambda key: loads.append(key) or 1) == 1
        until(lambda: recovered(cache), "the server is in use again")
        assert cache.get("k") == 1 and len(loads) <= 1


def test_a_connection_that_went_dead_without_a_word(valkey, wire, door):
    link = wire(valkey.port)
    with world(f"redis://127.0.0.1:{link.port}", door, **QUICK) as made:
        cache = made.cache()
        cache.set("k", 1)
        assert cache.get("k") == 1
        link.cut()
        assert cache.get("k") is None
        assert cache.get_or_load("k", lambda key: 1) == 1
        link.drop()
        link.mend()
        until(lambda: recovered(cache), "the server is in use again")
        assert cache.get("k") == 1


def test_a_restarted_server_costs_no_failed_read(valkey_server, door):
    server = valkey_server()
    with world(server.url, door) as made:
        cache = made.cache()
        cache.set("k", 1)
        server.kill()
        server.start()
        assert cache.get("k") is None
        cache.set("k", 2)
        assert cache.get("k") == 2
        assert made.kinds() == [] or set(made.kinds()) == {"read-failed"}


@pytest.mark.parametrize("what", ["delete", "set"])
def test_only_what_may_be_done_twice_is_sent_again(valkey_server, what, door):
    """The connection is cut while the server holds the command back."""
    server = valkey_server()
    with world(server.url, door, timeout=10) as made, server.client() as client:
        backend = made.backend()
        cache = made.cache(backend=backend)
        cache.set("k", 1)
        client.execute_command("CLIENT", "PAUSE", 10_000, "WRITE")
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(cache.delete, "k") if what == "delete" else pool.submit(cache.set, "k", 2)
            until(lambda: int(client.info("clients")["blocked_clients"]) == 1, "the command is held back")
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            if what == "delete":
                until(lambda: int(client.info("clients")["blocked_clients"]) == 1, "it was sent again")
            client.execute_command("CLIENT", "UNPAUSE")
            said = future.result(20)
        if what == "delete":
            assert said is True and backend.stats().retries == 1 and made.events == []
        else:
            assert backend.stats().retries == 0 and made.kinds()[0] == "write-failed"
            until(lambda: backend.stats().undelivered == 0, "the old value is gone")
        assert cache.get("k") is None


def test_a_cancelled_read_leaves_no_answer_behind(valkey_server):
    async def main():
        server = valkey_server()
        async with RedisBackend(server.url, timeout=10) as backend:
            cache = Cache(0, backend=backend)
            await cache.aset_many({"a": "a", "b": "b"})
            with paused(server):
                tasks = [asyncio.ensure_future(cache.aget("a")) for _ in range(3)]
                await asyncio.sleep(0.1)
                for task in tasks:
                    task.cancel()
                assert await asyncio.gather(*tasks, return_exceptions=True)
            for _ in range(10):
                assert await cache.aget("b") == "b"
                assert await cache.aget_many("ab") == {"a": "a", "b": "b"}
            assert backend.stats().breaker == "closed"

    asyncio.run(main())


# -- invalidations that cannot be delivered


OWED = {
    "delete": lambda cache: cache.delete("k"),
    "set": lambda cache: cache.set("k", 2),
    "set_many": lambda cache: cache.set_many({"k": 2}),
    "set with a tag": lambda cache: cache.set("k", 2, tags=("new",)),
    "delete_many": lambda cache: cache.delete_many(["k"]),
    "clear": lambda cache: cache.clear(),
    "tag": lambda cache: cache.invalidate_tag("t"),
}


@pytest.mark.parametrize("how", OWED)
def test_an_invalidation_that_was_not_heard_is_delivered_later_and_until_then_not_served(valkey, wire, how, door):
    link = wire(valkey.port)
    with world(f"redis://127.0.0.1:{link.port}", door, timeout=0.2, breaker=Breaker(failures=float("inf"))) as made:
        cache = made.cache()
        cache.set("k", 1, tags=("t",))
        cache.set("other", 1)
        assert cache.get("k") == 1
        link.cut()
        OWED[how](cache)
        owed = cache.cache.backend.stats().undelivered
        assert owed == 1
        link.drop()
        debts = cache.cache.backend.debts
        link.mend()
        if len(debts):      # the thread may have been quick
            assert cache.get("k") is None or not len(debts)
        until(lambda: not len(debts), "the server has heard")
        assert cache.get("k") in (None, 2)
        assert made.kinds().count("undelivered") == made.kinds().count("delivered") == 1
        with RedisBackend(valkey.url) as another:
            assert Cache(0, backend=another).get("k") in (None, 2)
        assert cache.get("other") == (None if how == "clear" else 1)


def test_what_is_owed_is_not_served_from_the_server(valkey, door):
    """The debt is made by hand: the server is well and still holds the value."""
    with world(valkey.url, door) as made:
        cache = made.cache()
        space, owing, debts = cache.cache._space, cache.cache._remover, cache.cache.backend.debts
        cache.set("k", 1, tags=("t",))
        cache.set("j", 1)
        debts._closed = True        # nobody delivers
        debts.owe_key("k", space.name("k"), owing, None)
        assert cache.get("k") is None and cache.get("j") == 1 and cache.get_many("kj") == {"j": 1}
        assert cache.get_or_load("k", lambda key: "fresh") == "fresh"
        cache.set("k", 3, tags=("t",))
        assert cache.get("k") == 3 and len(debts) == 0      # a newer value there is as good
        debts.owe_tag("t", owing, None)
        assert cache.get("k") is None and cache.get("j") == 1 and cache.get_many("kj") == {"j": 1}
        debts.tags.clear()
        debts.owe_space(owing, None)
        assert cache.get("j") is None and cache.get_many("kj") == {}
        debts.spaces.clear()
        assert cache.get("j") == 1


class Owing:
    """A space that does something else while it tells the server."""

    def __init__(self, names):
        self.names = names
        self.told = []
        self.meanwhile = []

    def _tell(self, what):
        self.told.append(what)
        if self.meanwhile:
            self.meanwhile.pop()()

    def deliver_keys(self, names):
        self._tell([name.value for name in names])

    def deliver_clear(self):
        self._tell("clear")

    def deliver_tag(self, tag):
        self._tell(tag)


def test_what_is_owed_anew_while_the_server_is_told_stays_owed():
    """The server heard of the first, and may have been read and written since."""
    told = []
    debts = Debts(lambda kind, key, error: told.append(kind), Trouble)
    debts._closed = True        # nobody else delivers
    space = Owing(Names("p", "s", cluster=False))
    name = space.names.of(b"k")
    for owe in (lambda: debts.owe_key("k", name, space, None), lambda: debts.owe_tag("t", space, None), lambda: debts.owe_space(space, None)):
        space.told.clear()
        space.meanwhile.append(owe)
        owe()
        while len(debts):
            assert debts._try()
        assert len(space.told) == 2 and space.told[0] == space.told[1]
    assert told.count("undelivered") == 6 and told.count("delivered") == debts.delivered == 3

    # A clear covers the keys that were owed before it, and no others.
    space.told.clear()
    other = space.names.of(b"j")
    debts.owe_key("k", name, space, None)
    debts.owe_space(space, None)
    space.meanwhile.append(lambda: debts.owe_key("j", other, space, None))
    assert debts._try() and space.told == ["clear", [other.value]] and debts.delivered == 6

    # A write pays what was owed when it was sent.
    debts.owe_key("k", name, space, None)
    owed = debts.of([name, other])
    debts.owe_key("k", name, space, None)
    debts.paid(owed, name)
    debts.paid(owed, other)
    assert len(debts) == 1
    debts.paid(debts.of([name]), name)
    assert len(debts) == 0


def test_too_many_debts_become_one(valkey, monkeypatch):
    from adaptcache.backends import debts

    monkeypatch.setattr(debts, "MOST", 3)
    with RedisBackend("redis://127.0.0.1:1", **QUICK) as backend:
        cache = Cache(0, backend=backend)
        for key in range(10):
            cache.delete(key)
        assert backend.stats().undelivered == 4


# -- a server that refuses


def test_a_full_server_is_read_and_no_load_is_repeated(valkey_server, door):
    server = valkey_server(maxmemory="8mb", maxmemory_policy="noeviction")
    with world(server.url, door) as made:
        cache = made.cache()
        cache.set("k", 1)
        cache.set("old", "old")
        with server.client() as client:
            client.config_set("maxmemory", "1mb")
        loads = []
        for _ in range(10):
            assert cache.get("k") == 1
            assert cache.get_or_load("new", lambda key: loads.append(key) or 5) == 5
        assert loads == ["new"]
        cache.set("old", "new")
        assert cache.get("old") is None         # not the old one
        assert cache.get_or_load_many(["new", "k"], lambda keys: 1 / 0) == {"new": 5, "k": 1}
        assert made.backends[0].stats().breaker == "closed"
        with server.client() as client:
            client.config_set("maxmemory", "80mb")
        assert recovered(cache)
        cache.set("old", "new")
        assert cache.get("old") == "new" and made.backends[0].stats().undelivered == 0


def test_a_batch_that_a_full_server_does_not_take_is_told_and_not_loaded_again(valkey_server, door):
    server = valkey_server(maxmemory="8mb", maxmemory_policy="noeviction")
    with world(server.url, door) as made:
        cache, loads = made.cache(), []

        def loader(keys):
            loads.append(keys)
            with server.client() as client:
                client.config_set("maxmemory", "1mb")
            return dict.fromkeys(keys, 5)

        for _ in range(3):
            assert cache.get_or_load_many("ab", loader) == {"a": 5, "b": 5}
        assert loads == [["a", "b"]] and [(event.kind, event.key) for event in made.events] == [("write-failed", "a"), ("write-failed", "b")]


def test_a_read_only_replica_serves_reads_and_loses_writes(valkey_server, door):
    primary = valkey_server(repl_diskless_sync_delay=0)
    with world(primary.url, door) as writing:
        writing.cache().set("k", 1)
        replica = valkey_server(replicaof=f"127.0.0.1 {primary.port}")
        with replica.client() as client:
            until(lambda: client.info("replication")["master_link_status"] == "up", "the replica follows")
        with world(replica.url, door) as made:
            cache = made.cache()
            assert cache.get("k") == 1
            loads = []
            for _ in range(5):
                assert cache.get_or_load("new", lambda key: loads.append(key) or 5) == 5
            assert loads == ["new"]
            cache.set("k", 2)
            assert cache.get("k") is None               # owed, and so not served
            assert cache.delete("j") is None
            with replica.client() as client:
                client.execute_command("REPLICAOF", "NO", "ONE")
            until(lambda: made.backends[0].stats().undelivered == 0, "it is a primary now, and has heard")
            assert cache.get("k") is None
            assert recovered(cache)


def test_a_server_that_wants_a_password_is_a_miss(valkey_server, door):
    server = valkey_server(requirepass="secret")
    with world(server.url, door, **QUICK) as made:
        cache = made.cache()
        assert cache.get("k") is None and cache.get_or_load("k", str) == "k"
    with world(server.url.replace("redis://", "redis://:secret@"), door, **QUICK) as made:
        assert recovered(made.cache())


def test_scripts_that_the_server_forgot_are_sent_again(valkey, door):
    with world(valkey.url, door) as made:
        cache = made.cache()
        assert cache.get_or_load("k", str) == "k"
        with valkey.client() as client:
            client.script_flush()
        assert cache.get_or_load("j", str) == "j" and cache.get("j") == "j"
        with valkey.client() as client:
            client.script_flush()
        assert cache.get_or_load_many("abc", lambda keys: {key: key for key in keys}) == {key: key for key in "abc"}
        assert made.events == []


# -- failover


@pytest.mark.slow
def test_a_sentinel_failover(sentinels, door):
    with world(sentinels.sentinel().master_for("mymaster"), door, timeout=0.5) as made:
        cache = made.cache()
        cache.set("k", 1)
        old = sentinels.primary()
        time.sleep(0.3)
        old.kill()
        loads = []
        assert cache.get_or_load("j", lambda key: loads.append(key) or 1) == 1
        until(lambda: recovered(cache), "the new primary is in use", 40)
        assert cache.get("k") in (1, None)
        assert len(loads) == 1


@pytest.mark.slow
def test_a_cluster_failover(own_cluster, door):
    cluster = own_cluster(3, 1)
    with world(cluster.url.replace("redis://", "redis+cluster://").removesuffix("/0"), door, timeout=0.5) as made:
        cache = made.cache()
        values = {at: at for at in range(60)}
        cache.set_many(values)
        time.sleep(0.3)
        cluster.servers[0].kill()
        loads = []
        for at in range(60):
            assert cache.get_or_load(at, lambda key: loads.append(key) or key) == at
        assert len(loads) == len(set(loads))

        def all_back():
            cache.set_many(values)
            return cache.get_many(values) == values

        until(all_back, "all slots are served again", 40)
        until(lambda: made.backends[0].stats().undelivered == 0, "everything is delivered", 40)
        until(all_back, "all slots are served again", 40)


@pytest.mark.slow
def test_a_slot_that_moves(own_cluster, door):
    from redis.crc import key_slot

    cluster = own_cluster(3, 0)
    with world(cluster.url.replace("redis://", "redis+cluster://").removesuffix("/0"), door) as made:
        cache = made.cache()
        cache.set_many({at: at for at in range(300)})
        slot = key_slot(cache.cache._space.name(7).value)
        target = next(server for server in cluster.servers if server.port != cluster.owner(slot).port)
        cluster.migrate(slot, target)
        assert cache.get_many(range(300)) == {at: at for at in range(300)}
        cache.set(7, "new")
        assert cache.get(7) == "new" and cache.get_or_load("seven", str) == "seven"


# -- no stampede


def test_a_long_outage_is_a_load_for_each_time_that_a_result_is_kept(valkey_server, door):
    server = valkey_server()
    with world(server.url, door, outage=0.5, **QUICK) as made:
        caches, loads = [made.cache() for _ in range(2)], []
        server.kill()
        began = time.monotonic()
        while time.monotonic() - began < 1.2:
            for at, cache in enumerate(caches):
                assert cache.get_or_load("k", lambda key, at=at: loads.append(at) or "value") == "value"
            time.sleep(0.01)
        assert all(2 <= loads.count(at) <= 1 + (time.monotonic() - began) / 0.5 for at in range(2))
        server.start()
        until(lambda: all(recovered(cache) for cache in caches), "the server is in use again")
        time.sleep(0.5)
        loads.clear()
        for cache in caches * 3:
            cache.get_or_load("k", lambda key: loads.append(0) or "value")
        assert loads == [0]         # one more in all, because the server has lost everything


def test_what_was_loaded_by_one_that_was_cut_off_does_not_come_back_after_a_delete(valkey, wire, door):
    """The server has nothing by which the one that was cut off could tell that its value is older than the `delete`."""
    link = wire(valkey.port)
    with world(f"redis://127.0.0.1:{link.port}", door, outage=1.0, **QUICK) as made, RedisBackend(valkey.url) as backend:
        cache, other = made.cache(), Cache(0, backend=backend)
        link.cut()
        assert cache.get_or_load("k", lambda key: "old") == "old"
        other.delete("k")
        link.mend()
        link.drop()
        until(lambda: recovered(cache), "the server is in use again")
        end = time.monotonic() + 20
        while cache.get_or_load("k", lambda key: "new") == "old":       # for as long as `outage` says
            assert other.get("k") is None and time.monotonic() < end
            time.sleep(0.02)
        assert other.get("k") == "new"


def test_what_is_kept_in_an_outage_is_not_kept_past_its_own_deadline(door):
    with world("redis://127.0.0.1:1", door, outage=60.0, **QUICK) as made:
        loads = []
        for expiry, count in ((Fixed(0.2), 2), (PerEntry(lambda key, value, now: now - 1), 3), (None, 1)):
            cache = made.cache(expiry=expiry)
            loads.clear()
            for pause in (0, 0.3, 0):
                time.sleep(pause)
                assert cache.get_or_load("k", lambda key: loads.append(1) or 5) == 5
            assert len(loads) == count


def test_an_outage_under_load_is_one_load_a_key_and_process(valkey_server):
    """Threads of two "processes" hammer ten keys while the server dies and comes back empty."""
    server = valkey_server()
    loads = {}
    lock = threading.Lock()
    stop = threading.Event()
    down = threading.Event()
    options = {"outage": 30.0, **QUICK, "timeout": 5.0}      # a live server is never slow, on a busy machine neither
    with RedisBackend(server.url, **options) as one, RedisBackend(server.url, **options) as other:
        caches = [Cache(0, backend=one), Cache(0, backend=other)]

        def work(which):
            def loader(key):
                with lock:
                    at = (which, key, down.is_set())
                    loads[at] = loads.get(at, 0) + 1
                time.sleep(0.005)
                return f"value of {key}"

            at = 0
            while not stop.is_set():
                at += 1
                assert caches[which].get_or_load(at % 10, loader) == f"value of {at % 10}"
                time.sleep(0.0005)
            return at

        with ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(work, at % 2) for at in range(4)]
            time.sleep(0.4)
            server.kill()
            time.sleep(0.1)         # what was sent before has failed by now
            down.set()
            time.sleep(0.8)
            down.clear()
            server.start()
            until(lambda: recovered(caches[0]) and recovered(caches[1]), "the server is in use again")
            time.sleep(0.3)
            stop.set()
            assert all(future.result(20) > 20 for future in futures)
        assert all(count == 1 for (_, _, while_down), count in loads.items() if while_down)
        # once before, or in the first moment after; once more by somebody, because the server lost all
        for key in range(10):
            assert sum(count for (_, each, _), count in loads.items() if each == key) <= 2 + 2


def test_a_decorated_function_goes_on_without_its_server(valkey_server):
    server = valkey_server()
    with RedisBackend(server.url, **QUICK) as backend:
        calls = []

        @cached(backend=backend)
        def double(x):
            calls.append(x)
            return 2 * x

        assert double(1) == 2
        server.kill()
        assert [double(1) for _ in range(10)] == [2] * 10 and len(calls) == 2
        assert double.invalidate(1) is False
        assert double(1) == 2 and len(calls) == 3
        server.start()
        until(lambda: backend.stats().undelivered == 0, "the invalidation is delivered")


def test_tasks_go_on_without_their_server(valkey_server):
    async def main():
        server = valkey_server()
        async with RedisBackend(server.url, **QUICK) as backend:
            cache = Cache(0, backend=backend)
            loads = []

            async def loader(key):
                loads.append(key)
                await asyncio.sleep(0.01)
                return key

            server.kill()
            for _ in range(3):
                assert await asyncio.gather(*[cache.aget_or_load(at % 10, loader) for at in range(300)]) == [at % 10 for at in range(300)]
            assert sorted(loads) == list(range(10))

    asyncio.run(main())


@pytest.fixture(params=["valkey", pytest.param("cluster", marks=pytest.mark.slow)])
def where(request):
    server = request.getfixturevalue(request.param)
    return server.url if request.param == "valkey" else server.url.replace("redis://", "redis+cluster://").removesuffix("/0")


def test_one_after_another_needs_no_more_connections_with_time(where, door):
    """redis-py 8 gives a hundred; others as many as are asked for."""
    with world(where, door, near=False) as made:
        backend = made.backend()
        cache = made.cache(backend=backend)
        for number in range(120):
            cache.set(number, number)
            assert cache.get_or_load(("loaded", number), lambda key: 1) == 1
        assert made.kinds() == []
        if door == "async" and where.startswith("redis://"):
            assert len(backend.client().client_list()) <= 6


def test_as_many_connections_as_are_in_use_at_a_time(where, door):
    """More than a hundred, which is redis-py 8's default."""
    count = 130
    with RedisBackend(where, near=False, timeout=15.0, connections=count) as backend, ThreadPoolExecutor(count) as pool:
        cache = Cache(0, backend=backend)
        assert cache.get(0) is None
        client = backend.client()
        for node in client.get_primaries() if where.startswith("redis+cluster") else [None]:
            client.execute_command("CLIENT", "PAUSE", 700, **({} if node is None else {"target_nodes": node}))

        async def many():
            async with backend:
                return await asyncio.gather(*[cache.aget(0, number) for number in range(count)])

        got = asyncio.run(many()) if door == "async" else [*pool.map(lambda number: cache.get(0, number), range(count))]
        assert got == [*range(count)] and backend.stats().events == {}


def test_loops_that_ended_without_a_word_are_forgotten(valkey):
    with warnings.catch_warnings(), RedisBackend(valkey.url, near=False) as backend:
        warnings.simplefilter("ignore")         # that is what such loops leave behind
        cache = Cache(0, backend=backend)
        cache.set("k", 1)
        for _ in range(5):
            assert asyncio.run(cache.aget("k")) == 1
        assert len(backend._drivers) == 1
        backend._drivers.clear()
        gc.collect()


@pytest.mark.slow
def test_a_stopped_node_of_a_cluster_leaves_the_others_in_use(own_cluster, door):
    cluster = own_cluster(3, 0)
    with world(cluster.url.replace("redis://", "redis+cluster://").removesuffix("/0"), door, timeout=0.3,
               breaker=Breaker(failures=2, cooldown=5.0, longest=5.0)) as made:
        for server in cluster.servers:
            with server.client() as client:
                client.config_set("cluster-require-full-coverage", "no")
        backend = made.backend()
        cache = made.cache(backend=backend)
        values = {at: at for at in range(300)}
        cache.set_many(values)
        assert cache.get_many(values) == values
        with paused(cluster.servers[1]):
            there = cache.get_many(values)
            assert 100 < len(there) < 300 and all(values[key] == value for key, value in there.items())
            for _ in range(5):
                cache.get_many(values)
            began = time.monotonic()
            for _ in range(50):
                assert len(cache.get_many(values)) == len(there)
            for key in values:
                assert cache.get(key) == (key if key in there else None)
            assert time.monotonic() - began < 15        # a time-out each would be 30 s
            assert backend.stats().breaker == "open"
            cache.set_many({key: -key for key in values})
            assert cache.get_many(values) == {key: -key for key in there}
        until(lambda: recovered(cache) and backend.stats().undelivered == 0, "everything is delivered")
        until(lambda: backend.stats().breaker == "closed", "all nodes are in use")
        assert cache.get_many(values) == {key: -key for key in there}
