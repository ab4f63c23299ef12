"""A client of `adaptcache.redis` is redis-py's client, and what it tells of its keys is true. On real servers."""
from __future__ import annotations

import asyncio
import copy
import gc
import inspect
import os
import pickle
import random
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
import redis
import redis.asyncio
import redis.sentinel
from servers import Cluster, Sentinels, Server, until

import adaptcache.redis.asyncio as ours_async
from adaptcache import Learned
from adaptcache import redis as ours
from adaptcache.redis import Adapt, listener, patrol
from adaptcache.redis import watcher as watching

MODES = ("off", "observe", "release")
MANUAL = Learned(learner="manual", seed=1)


def followed(client: Any) -> dict[bytes, Any]:
    """The keys in scope, after everything seen so far was looked at."""
    client.adapt.flush()
    return client._watcher._follower.entries


def left(client: Any, key: bytes) -> float:
    return followed(client)[key].ends - time.monotonic()


@pytest.fixture(autouse=True)
def nobody_joins_a_watcher_of_the_test_before() -> Iterator[None]:
    """The daemon holds watchers for some seconds, and who comes to the same address joins them."""
    yield
    for watcher in list(patrol.PATROL.watchers):
        watcher.mode = "off"  # type: ignore[attr-defined]


@pytest.fixture
def client(server: Server) -> Iterator[ours.Redis]:
    with ours.Redis(port=server.port, adapt=Adapt(expiry=MANUAL)) as client:
        yield client
        client.adapt.close()


# -- it is redis-py

CALLS: list[Callable[[Any], Any]] = [
    lambda r: r.set("k", "v", ex=100),
    lambda r: r.set("k", "w", px=100_000, xx=True, get=True),
    lambda r: r.set("k", "x", nx=True),
    lambda r: r.get("k"),
    lambda r: r.get("none"),
    lambda r: r.execute_command("get", b"k"),
    lambda r: r.execute_command("GET k"),
    lambda r: r.execute_command(b"GET", "k"),
    lambda r: r.execute_command("SETEX", "k2", 50, 1.5),
    lambda r: r.mset({"a": 1, "b": b"2"}),
    lambda r: r.mget("a", "b", "none"),
    lambda r: r.hset("h", mapping={"f": 1, "g": 2}),
    lambda r: r.hgetall("h"),
    lambda r: r.hget("h", "none"),
    lambda r: r.rpush("l", 1, 2, 3),
    lambda r: r.lrange("l", 0, -1),
    lambda r: r.zadd("z", {"one": 1.5}),
    lambda r: r.zrange("z", 0, -1, withscores=True),
    lambda r: r.sadd("s", "m"),
    lambda r: r.smembers("s"),
    lambda r: r.expire("h", 30),
    lambda r: r.ttl("h"),
    lambda r: r.ttl("none"),
    lambda r: r.persist("h"),
    lambda r: r.incr("n"),
    lambda r: r.getex("k", ex=20),
    lambda r: r.getdel("k2"),
    lambda r: r.rename("a", "c"),
    lambda r: r.copy("c", "d"),
    lambda r: r.delete("b", "none"),
    lambda r: r.eval("return {KEYS[1], ARGV[1]}", 1, "c", 7),
    lambda r: r.register_script("return redis.call('GET', KEYS[1])")(keys=["c"]),
    lambda r: r.object("encoding", "c"),
    lambda r: sorted(r.scan_iter()),
    lambda r: r.type("z"),
    lambda r: r.execute_command("NOSUCH", "c"),
    lambda r: r.incr("h"),
    lambda r: r.set("k", None),
    lambda r: r.lock("lock", timeout=5).acquire(),
]


def outcome(call: Callable[[Any], Any], client: Any) -> tuple[str, Any]:
    try:
        return "gave", call(client)
    except Exception as error:
        return type(error).__name__, str(error)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("options", [{}, {"decode_responses": True}, {"protocol": 2}, {"protocol": 3}], ids=str)
def test_every_answer_and_error_is_redis_pys(server: Server, options: dict[str, Any], mode: str) -> None:
    with redis.Redis(port=server.port, **options) as theirs:
        expected = [outcome(call, theirs) for call in CALLS]
        theirs.flushall()
    with ours.Redis(port=server.port, adapt=mode, **options) as client:
        got = [outcome(call, client) for call in CALLS]
        assert client.adapt.mode == mode
        client.adapt.close()
    assert got == expected


def commands_sent(server: Server, make: Callable[[], Any], calls: Callable[[Any], Any]) -> list[str]:
    """What the server was asked over the connection that asked for "marker"."""
    with server.client(socket_timeout=10) as onlooker, onlooker.monitor() as monitor, make() as client:
        calls(client)
        client.get("marker")
        if hasattr(client, "adapt"):
            client.adapt.flush()
        with server.client() as last:
            last.echo("the end")
        said: dict[tuple[str, str], list[str]] = {}
        while True:
            one = monitor.next_command()
            if "the end" in one["command"]:
                break
            said.setdefault((one["client_address"], one["client_port"]), []).append(one["command"])
    return next(commands for commands in said.values() if "GET marker" in commands)


def everything(client: Any) -> None:
    for call in CALLS:
        outcome(call, client)
    with client.pipeline() as pipe:
        pipe.set("p", 1, ex=10).get("p").execute()
    with client.pipeline(transaction=False) as pipe:
        pipe.set("p", 1, ex=10).get("p").hgetall("h")
        pipe.execute(raise_on_error=False)
    client.transaction(lambda pipe: pipe.get("c"), "c", value_from_callable=True)
    for _ in range(3):
        client.get("read only")


@pytest.mark.parametrize("mode", ["off", "observe"])
def test_the_server_is_sent_the_very_same_commands(server: Server, mode: str) -> None:
    def fresh(make: Callable[[], Any]) -> list[str]:
        with server.client() as before:
            before.flushall()
            before.script_flush()
            before.set("read only", "v", ex=100)
        sent = commands_sent(server, make, everything)
        return [one if "lock" not in one else one[:10] for one in sent]     # a lock's token is random

    theirs = fresh(lambda: redis.Redis(port=server.port))
    assert len(theirs) > len(CALLS)
    assert fresh(lambda: ours.Redis(port=server.port, adapt=Adapt(mode, expiry=MANUAL))) == theirs


@pytest.mark.parametrize("mode", ["off", "observe"])
def test_the_server_is_sent_the_very_same_commands_by_asyncio_clients(server: Server, mode: str) -> None:
    class Driven:
        """An asyncio client, from code that is not."""

        def __init__(self, make: Callable[[], Any]) -> None:
            self.runner = asyncio.Runner()
            self.client = self.runner.run(self._made(make))

        @staticmethod
        async def _made(make: Callable[[], Any]) -> Any:
            return make()

        def run(self, calls: Callable[[Any], Any]) -> Any:
            return self.runner.run(calls(self.client))

        def get(self, key: str) -> Any:
            return self.runner.run(self.client.get(key))

        def __enter__(self) -> Driven:
            return self

        def __exit__(self, *exc: object) -> None:
            if hasattr(self.client, "adapt"):
                self.client.adapt.flush()
                self.client.adapt.close()
            self.runner.run(self.client.aclose())
            self.runner.close()

    async def calls(client: Any) -> None:
        await client.set("k", "v", ex=100)
        await client.get("read only")
        await client.mget("k", "none")
        await client.hset("h", mapping={"f": 1})
        await client.expire("h", 30)
        async with client.pipeline() as pipe:
            await pipe.set("p", 1, ex=10).get("p").execute()
        async with client.pipeline(transaction=False) as pipe:
            await pipe.set("p", 1, ex=10).get("p").execute()
        async with client.pipeline() as pipe:
            await pipe.watch("k")
            await pipe.get("k")
            pipe.multi()
            await pipe.set("k", 2).execute()
        with pytest.raises(redis.ResponseError):
            await client.lpush("h", 1)

    def fresh(make: Callable[[], Any]) -> list[str]:
        with server.client() as before:
            before.flushall()
            before.set("read only", "v", ex=100)
        return commands_sent(server, lambda: Driven(make), lambda driven: driven.run(calls))

    theirs = fresh(lambda: redis.asyncio.Redis(port=server.port))
    assert len(theirs) > 12
    assert fresh(lambda: ours_async.Redis(port=server.port, adapt=Adapt(mode, expiry=MANUAL))) == theirs


def test_the_constructors_are_redis_pys_with_one_keyword_more(server: Server) -> None:
    for mine, theirs in ((ours.Redis, redis.Redis), (ours.RedisCluster, redis.RedisCluster),
                         (ours_async.Redis, redis.asyncio.Redis), (ours_async.RedisCluster, redis.asyncio.RedisCluster)):
        assert issubclass(mine, theirs)
        given = inspect.signature(mine).parameters
        assert [name for name in given if name != "adapt"] == list(inspect.signature(theirs).parameters)
        for name in ("pipeline", "from_url"):
            assert list(inspect.signature(getattr(mine, name)).parameters) == list(inspect.signature(getattr(theirs, name)).parameters)


def test_every_way_to_make_a_client_makes_ours(server: Server) -> None:
    told = Adapt("observe", keys=["page:*"], expiry=MANUAL)
    with ours.Redis.from_url(server.url, adapt=told) as client:
        assert client.set("a", 1) and client._watcher.adapt is told
        with client.client() as single:
            assert type(single) is ours.Redis and single._watcher is client._watcher and single.get("a") == b"1"
        client.adapt.close()
    with closing(redis.ConnectionPool.from_url(server.url)) as pool:
        first = ours.Redis(connection_pool=pool, adapt=told)
        assert ours.Redis(connection_pool=pool)._watcher is first._watcher
        with pytest.raises(ValueError, match="adapt"):
            ours.Redis(connection_pool=pool, adapt="off")
        first.adapt.close()
    with ours.Redis.from_pool(redis.ConnectionPool.from_url(server.url, adapt="off")) as client:
        assert client.adapt.mode == "off" and client.ping()
    with ours.Redis(host="127.0.0.1", port=server.port, single_connection_client=True, adapt="off") as client:
        assert client.ping() and isinstance(client.pipeline(), redis.client.Pipeline)


def test_copies_and_pickles_do_what_they_do_in_redis_py(server: Server) -> None:
    with redis.Redis(port=server.port) as theirs, ours.Redis(port=server.port, adapt="off") as client:
        for way in (copy.deepcopy, pickle.dumps):
            with pytest.raises(Exception) as before:
                way(theirs)
            with pytest.raises(before.type):
                way(client)
        assert copy.copy(client).connection_pool is client.connection_pool


def test_a_pool_that_does_not_say_where_it_leads_is_watched_all_the_same(server: Server) -> None:
    class Pool:
        def __init__(self, pool: redis.ConnectionPool) -> None:
            self.pool = pool
            self.connection_kwargs = Kwargs()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.pool, name)

    class Kwargs:
        def get(self, name: str, default: Any = None) -> Any:
            return default

    with closing(redis.ConnectionPool.from_url(server.url)) as pool:
        client = ours.Redis(connection_pool=Pool(pool), adapt=Adapt(expiry=MANUAL))     # type: ignore[arg-type]
        client.set("a", 1, ex=50)
        client.get("b")
        assert set(followed(client)) == {b"a"}
        client.adapt.close()


@pytest.mark.parametrize("wrong", [
    {"adapt": 3}, {"adapt": "on"}, {"adapt": "release ", },
])
def test_a_wrong_adapt_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=r"adapt|mode"):
        ours.Redis(**wrong)


@pytest.mark.parametrize("wrong", [
    {"keys": "page:*"}, {"keys": [3]}, {"expiry": 3}, {"max_keys": 0}, {"max_keys": True}, {"mode": "On"},
])
def test_a_wrong_option_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=next(iter(wrong))):
        Adapt(**wrong)


def test_a_refused_mode_changes_nothing(client: ours.Redis) -> None:
    with pytest.raises(ValueError, match="mode"):
        client.adapt.mode = "on"
    assert client.adapt.mode == "observe"


# -- what is in scope, and until when

def test_keys_written_with_an_expiry_are_in_scope_until_it_ends(client: ours.Redis) -> None:
    client.set("ex", "v", ex=100)
    client.set("px", "v", px=50_000)
    client.set("exat", "v", exat=int(time.time()) + 200)
    client.set("pxat", "v", pxat=int(time.time() * 1000) + 300_000)
    client.execute_command("SETEX", "setex", 40, "v")
    client.execute_command("PSETEX", "psetex", 30_000, "v")
    client.execute_command("set plain v ex", 20)
    client.execute_command("SeT", b"bytes", "v", b"ex", b"25")
    client.hset("hash", mapping={"f": "vvvv"})
    client.expire("hash", 60)
    for key in ("expire", "pexpire", "expireat", "pexpireat"):
        client.set(key, "v")
    client.expire("expire", 70)
    client.pexpire("pexpire", 71_000)
    client.expireat("expireat", int(time.time()) + 72)
    client.pexpireat("pexpireat", int(time.time() * 1000) + 73_000)
    expected = {b"expire": 70, b"pexpire": 71, b"expireat": 72, b"pexpireat": 73, b"ex": 100, b"px": 50, b"exat": 200, b"pxat": 300, b"setex": 40, b"psetex": 30, b"plain": 20, b"bytes": 25, b"hash": 60}
    assert set(followed(client)) == set(expected)
    for key, seconds in expected.items():
        assert left(client, key) == pytest.approx(client.pttl(key) / 1000, abs=1.0)
        assert left(client, key) <= seconds + 0.01
    assert followed(client)[b"hash"].size == 5


def test_what_was_not_given_an_expiry_is_nobodys_to_expire(client: ours.Redis) -> None:
    client.set("plain", 1)
    client.mset({"a": 1, "b": 2})
    client.hset("h", "f", 1)
    client.get("plain")
    client.set("was", 1, ex=50)
    client.set("was", 2)
    client.set("persisted", 1, ex=50)
    client.persist("persisted")
    client.set("swapped", 1, ex=50)
    client.execute_command("GETSET", "swapped", 2)
    client.set("kept", 1, ex=50)
    client.set("kept", 2, keepttl=True)
    client.set("kept by getex", 1, ex=50)
    client.getex("kept by getex")
    client.set("by getex", 1, ex=50)
    client.getex("by getex", persist=True)
    assert set(followed(client)) == {b"kept", b"kept by getex"}
    assert left(client, b"kept") == pytest.approx(client.pttl("kept") / 1000, abs=1)


def test_locks_and_counters_are_not_in_scope(client: ours.Redis) -> None:
    lock = client.lock("lock", timeout=20)
    assert lock.acquire()
    client.set("token", 1, nx=True, ex=20)
    client.incr("limit")
    client.expire("limit", 20)
    client.set("count", 0, ex=20)
    client.incr("count")
    client.hset("object", "f", 1)
    client.expire("object", 20)
    client.hset("object", "g", 1)       # grown after it was complete
    client.get("limit")
    client.get("count")
    assert not followed(client)
    lock.release()
    client.set("count", 5, ex=20)       # whole again
    assert set(followed(client)) == {b"count"}


def test_what_leaves_leaves(client: ours.Redis, server: Server) -> None:
    def again(*keys: str) -> None:
        for key in keys:
            client.set(key, "v", ex=50)
        assert set(followed(client)) >= {key.encode() for key in keys}

    again("a", "b", "c", "d")
    client.delete("a")
    client.unlink("b", "none")
    client.getdel("c")
    client.expire("d", 0)
    assert not followed(client)
    again("a", "b", "c")
    client.rename("a", "z")
    client.copy("b", "y")
    client.eval("redis.call('SET', KEYS[1], 1)", 1, "c")
    assert set(followed(client)) == {b"z", b"b", b"y"}
    outcome(lambda r: r.execute_command("NOSUCH.WRITE", "z"), client)
    assert set(followed(client)) == {b"b", b"y"}
    client.bitop("NOT", "y", "b")
    assert not followed(client)
    again("a")
    client.flushdb()
    assert not followed(client)
    again("a")
    with server.client() as other:
        other.delete("a")
    assert client.get("a") is None
    assert not followed(client)


def test_keys_that_only_others_write_are_asked_about_in_the_background(client: ours.Redis, server: Server) -> None:
    with server.client() as other:
        other.set("theirs", "vvv", ex=80)
        other.set("for ever", "v")
    assert client.get("theirs") == b"vvv" and client.get("for ever") == b"v" and client.get("none") is None
    assert set(followed(client)) == {b"theirs"}
    assert left(client, b"theirs") == pytest.approx(client.pttl("theirs") / 1000, abs=1) and followed(client)[b"theirs"].size == 3


def test_without_a_call_the_daemon_does_the_same(client: ours.Redis, server: Server) -> None:
    with server.client() as other:
        other.set("theirs", "vvv", ex=80)
    client.set("ours", 1, ex=30)
    client.get("theirs")
    entries = client._watcher._follower.entries
    until(lambda: set(entries) == {b"theirs", b"ours"}, "the daemon has looked at both")


def test_users_name_keys_and_take_keys_out(server: Server) -> None:
    told = Adapt(keys=["page:*", "!session:*", "!page:secret:*"], expiry=MANUAL)
    with ours.Redis(port=server.port, adapt=told) as client:
        client.set("page:1", 1)
        client.set("page:secret:1", 1, ex=50)
        client.set("session:1", 1, ex=50)
        client.set("other:1", 1, ex=50)
        client.set("other:2", 1)
        client.set("page:lock", 1, nx=True)
        assert set(followed(client)) == {b"page:1", b"other:1", b"page:lock"}
        client.get("page:1")
        names = client.adapt.report().namespaces
        assert names["page:*"].hits == 1 and "other:*" in names
        client.adapt.close()


def test_pipelines_and_transactions_are_seen_when_they_are_done(client: ours.Redis, server: Server) -> None:
    with client.pipeline() as pipe:
        pipe.set("a", "v", ex=50).get("a").incr("n").get("none")
        assert not followed(client)
        assert pipe.execute() == [True, b"v", 1, None]
    assert set(followed(client)) == {b"a"}
    with client.pipeline(transaction=False) as pipe:
        pipe.set("b", "v", ex=50)
        pipe.set("c", "v", ex=50)
        pipe.lpush("c", 1)
        said = pipe.execute(raise_on_error=False)
        assert said[:2] == [True, True] and isinstance(said[2], redis.ResponseError)
    assert set(followed(client)) == {b"a", b"b"}        # of c nobody can be sure
    with client.pipeline() as pipe, server.client() as other:
        pipe.watch("a")
        assert pipe.get("a") == b"v"
        pipe.multi()
        pipe.set("a", "w")
        other.set("a", "x", ex=60)
        with pytest.raises(redis.WatchError):
            pipe.execute()
    assert b"a" not in followed(client)         # nobody knows any more
    with client.pipeline() as pipe:
        pipe.set("never", 1, ex=5)
        pipe.reset()
    client.transaction(lambda pipe: pipe.multi() or pipe.set("t", 1, ex=9), "w")
    assert b"t" in followed(client) and b"never" not in followed(client)


def test_a_command_that_failed_leaves_nothing_taken_for_granted(client: ours.Redis, server: Server) -> None:
    client.set("a", "v", ex=50)
    assert set(followed(client)) == {b"a"}
    with pytest.raises(redis.ResponseError):
        client.lpush("a", 1)
    assert not followed(client)


def test_hits_misses_and_loads_are_counted(client: ours.Redis) -> None:
    assert client.get("page:1") is None
    time.sleep(0.05)
    client.set("page:1", "x" * 100, ex=50)
    for _ in range(3):
        client.get("page:1")
    client.mget("page:1", "page:2")
    report = client.adapt.report()
    assert (report.hits, report.misses, report.commands, report.dropped) == (4, 2, 6, 0)
    assert report.namespaces["page:*"].hits == 4 and report.keys == 1
    entry = followed(client)[b"page:1"]
    assert entry.size == 100
    ledger = client._watcher._follower.ledger
    kept = ledger.cache.get(ledger.number(b"page:1"))
    assert 0.04 <= kept.cost < 5.0 and kept.namespace == "page:*"
    assert "4 hits" in str(report) and client.adapt.stats().protected >= 0


# -- modes

def test_the_switch_works_at_any_time(server: Server) -> None:
    with ours.Redis(port=server.port, adapt=Adapt("off", expiry=MANUAL)) as client:
        client.set("a", 1, ex=50)
        assert not followed(client) and client.adapt.report().commands == 0
        client.adapt.mode = "observe"
        client.set("b", 1, ex=50)
        assert set(followed(client)) == {b"b"}
        client.adapt.mode = "off"
        assert not followed(client) and client.get("b") == b"1"
        assert client.adapt.report().commands == 1
        client.adapt.close()
        assert client.set("c", 1)


def test_no_thread_is_started_while_off(server: Server) -> None:
    code = f"""
import threading
from adaptcache.redis import Redis
with Redis(port={server.port}, adapt="off") as client:
    client.set("a", 1, ex=50)
    with client.pipeline() as pipe:
        pipe.get("a").execute()
    assert threading.active_count() == 1
    client.adapt.mode = "observe"
    client.get("a")
    assert threading.active_count() == 2
"""
    subprocess.run([sys.executable, "-P", "-W", "error", "-c", code], check=True)


def test_observe_counts_what_it_would_have_saved_and_what_that_would_have_cost(server: Server) -> None:
    with ours.Redis(port=server.port, adapt=Adapt(expiry=MANUAL)) as client:
        for at in range(4):
            client.set(f"a:{at}", "x" * 10, ex=100)
        entries = followed(client)
        follower, now = client._watcher._follower, time.monotonic()
        for entry in entries.values():
            entry.born = now - 50
        follower.released([b"a:0", b"a:1", b"a:2"], now - 40)
        client.get("a:0")                       # an extra miss, 40 s after its release
        client.set("a:1", "y" * 10, ex=100)     # written again without being asked for: saved, and no miss
        client.adapt.flush()
        report = client.adapt.report()
        assert (report.released, report.extra_misses, report.unlinked) == (3, 1, 0)
        assert report.saved == pytest.approx(3 * 40 * 10, rel=0.1)
        assert report.held == pytest.approx(4 * 50 * 10, rel=0.1)
        assert report.saved_share == pytest.approx(0.6, abs=0.1)
        assert all(client.get(f"a:{at}") for at in range(4))
        assert "would have saved" in str(report)
        client.adapt.close()


@pytest.mark.slow
def test_release_unlinks_what_nobody_asks_for_and_keeps_what_is_asked_for(server: Server) -> None:
    told = Adapt("release", expiry=Learned(memory_price=0.5, miss_cost=1.0, premature=1.0, seed=1), keys=["!keep:*"])
    with ours.Redis(port=server.port, adapt=told) as client, server.client() as other:
        for at in range(50):
            client.set(f"idle:{at}", "x", ex=3600)
            client.set(f"keep:{at}", "x", ex=3600)
        client.set("plain", 1)
        other.set("theirs", 1, ex=3600)
        until(lambda: not client.exists(*(f"idle:{at}" for at in range(50))), "the idle keys are unlinked", 40.0)
        assert client.exists("plain", "theirs", *(f"keep:{at}" for at in range(50))) == 52
        until(lambda: client.adapt.report().unlinked == 50, "the releaser has heard of it")
        report = client.adapt.report()
        assert report.mode == "release" and "saved" in str(report)
        client.adapt.mode = "off"
        client.set("more", "x", ex=3600)
        time.sleep(6.0)
        assert client.exists("more") == 1


# -- many clients

def test_clients_of_one_address_share_a_watcher_and_those_made_for_a_request_leave_nothing(server: Server, monkeypatch: Any) -> None:
    monkeypatch.setattr(patrol, "LINGER", 0.3)
    told = Adapt(expiry=MANUAL)
    watchers = set()
    before = threading.active_count()
    for at in range(50):
        with ours.Redis(port=server.port, adapt=told) as client:
            client.set(f"a:{at}", 1, ex=50)
            watchers.add(id(client._watcher))
    assert len(watchers) == 1
    assert len(followed(client)) == 50
    assert threading.active_count() <= before + 3
    gone = weakref.ref(client._watcher)
    client.adapt.close()
    del client

    def collected() -> bool:
        gc.collect()
        return gone() is None

    until(collected, "the watcher goes with the last of its clients")


def test_threads_on_one_client(client: ours.Redis, monkeypatch: Any) -> None:
    monkeypatch.setattr(watching, "CROWD", 1 << 20)     # follow every key, however slow this machine is

    def work(me: int) -> None:
        for at in range(200):
            client.set(f"k:{me}:{at}", "v", ex=100)
            client.get(f"k:{me}:{at}")

    threads = [threading.Thread(target=work, args=(me,)) for me in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(followed(client)) == 800 and client.adapt.report().hits == 800


def test_a_forked_child_starts_anew(client: ours.Redis) -> None:
    client.set("a", 1, ex=50)
    assert followed(client)
    child = os.fork()
    if child == 0:
        try:
            fresh = not client._watcher._follower.entries and client.adapt.mode == "observe"
            client.set("b", 1, ex=50)
            os._exit(0 if fresh and set(followed(client)) == {b"b"} else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert set(followed(client)) == {b"a"}


def test_more_notes_than_can_be_looked_at_are_sampled_and_dropped_and_it_says_so(client: ours.Redis, monkeypatch: Any) -> None:
    watcher = client._watcher
    monkeypatch.setattr(listener, "LIMIT", 500)
    with watcher._lock:         # so the daemon is held up
        for at in range(700):
            client.set(f"k:{at}", 1, ex=100)
        assert len(watcher.queue) == 500
        report = client.adapt.report()
        assert report.dropped == 200 and "too low" in str(report)
    assert len(followed(client)) == 500


def test_a_sample_stands_for_all(client: ours.Redis) -> None:
    watcher = client._watcher
    watcher._sample(3, time.monotonic() + 60)
    for at in range(4000):
        watcher.saw(("SET", f"k:{at}", "x" * 10, "EX", 100), True, time.monotonic())
        watcher.saw(("GET", b"k:%d" % at), b"x" * 10, time.monotonic())
    assert 300 < len(followed(client)) < 800
    report = client.adapt.report()
    assert report.sampled == 8 and report.commands == 8000
    assert 2400 < report.keys < 6400 and report.hits == 4000
    assert "one in 8 followed" in str(report)


ASKED: list[tuple[Callable[[Any], Any], int, int]] = [      # and how often that finds something, or nothing
    (lambda r: r.get("hot:key"), 1, 0),
    (lambda r: r.get("hot:key"), 1, 0),
    (lambda r: r.get("empty"), 1, 0),
    (lambda r: r.get("hot:ß"), 1, 0),
    (lambda r: r.get("none:1"), 0, 1),
    (lambda r: r.get(b"none:2"), 0, 1),
    (lambda r: r.mget("hot:key", "none:1", "none:2"), 1, 2),
    (lambda r: r.hgetall("h:0"), 1, 0),
    (lambda r: r.hgetall("h:1"), 0, 1),
    (lambda r: r.hget("h:0", "a"), 1, 0),
    (lambda r: r.hget("h:0", "none"), 0, 0),        # which says nothing of the key
    (lambda r: r.strlen("hot:key"), 1, 0),
    (lambda r: r.getex("hot:key", ex=50), 1, 0),
    (lambda r: r.set("empty", "", ex=100), 0, 0),
    (lambda r: r.set("empty", "", nx=True), 0, 0),
    (lambda r: r.ping(), 0, 0),
]


@pytest.mark.parametrize("how", ["one by one", "pipelines", "pipelines with errors"])
def test_hits_and_misses_are_exact_while_keys_are_sampled(client: ours.Redis, how: str, monkeypatch: Any) -> None:
    """Whichever keys are in the sample, those that are asked for all the time above all."""
    monkeypatch.setattr(watching, "CROWD", 1 << 20)
    client.rpush("list", 1)
    client.hset("h:0", "a", 1)
    for key in ("hot:key", "hot:ß", "empty"):
        client.set(key, "" if key == "empty" else "v", ex=100)
    client.adapt.flush()
    dice = random.Random(3)
    hits = misses = 0
    for shift in (1, 2, 5):
        client._watcher._sample(shift, time.monotonic() + 600)
        for _ in range(20 if how == "one by one" else 60):
            asked = dice.choices(ASKED, k=50)
            hits += sum(found for _, found, _ in asked)
            misses += sum(lacking for _, _, lacking in asked)
            if how == "one by one":
                for one, _, _ in asked:
                    one(client)
                continue
            with client.pipeline(transaction=False) as pipe:
                for one, _, _ in asked:
                    one(pipe)
                if how == "pipelines with errors":
                    pipe.get("list").hgetall("hot:key")
                pipe.execute(raise_on_error=how == "pipelines")
        client.adapt.flush()
        report = client.adapt.report()
        assert (report.sampled, report.dropped, report.hits, report.misses) == (1 << shift, 0, hits, misses)
    # To which namespaces they belong is an estimate.
    lines = report.namespaces
    for name, share in (("hot:*", 6 / 9), ("h:*", 2 / 9), ("*", 1 / 9)):
        assert abs(lines[name].hits / hits - share) < 0.2, name
    assert abs(lines["none:*"].misses / misses - 4 / 5) < 0.2
    assert abs(sum(one.hits for one in lines.values()) - hits) < len(lines) and abs(sum(one.misses for one in lines.values()) - misses) < len(lines)


def test_a_command_that_comes_while_the_daemon_goes_is_looked_at(monkeypatch: Any) -> None:
    """Only the first command that is held asks for the daemon, so that one must not be overlooked."""
    monkeypatch.setattr(patrol, "LINGER", 0.05)
    guard = patrol.Patrol()
    worked = threading.Event()

    class Watched:
        watching, share = True, 0.0
        held = 0
        rested = False
        comes = threading.Event()

        @property
        def waiting(self) -> bool:
            held = bool(self.held)
            if self.comes.is_set() and not held:        # right after the daemon has looked
                self.comes.clear()
                self.held = 1
                if not guard.awake:
                    guard.wake()
            return held

        def work(self, seconds: float) -> bool:
            had, self.held = self.held, 0
            if had:
                worked.set()
            return bool(had)

        def rest(self) -> None:
            if not self.rested:     # it is looked at again when the daemon goes, or when somebody asks for it
                self.rested = True
                self.comes.set()

    one = Watched()
    guard.watchers.add(one)
    one.held = 1
    guard.wake()
    assert worked.wait(10)
    worked.clear()
    assert worked.wait(10) and not one.comes.is_set()
    until(lambda: not guard.awake, "the daemon goes")


def test_commands_are_held_for_a_moment_without_what_may_change_or_is_large(client: ours.Redis, monkeypatch: Any) -> None:
    watcher = client._watcher
    with watcher._lock:         # so the daemon is held up
        client.set("a", "v", ex=50)
        client.get("a")
        assert [one[0][0] for one in watcher.held] == ["SET", "GET"] and not watcher.queue
        client.rpush("list", 1, 2)
        found = client.lrange("list", 0, -1)
        assert not watcher.held and len(watcher.queue) == 4     # in their order, with the answer as it was
        found.clear()
        client.set("large", "x" * 5000, ex=50)
        assert not watcher.held
        client.get("large")
        assert not watcher.held
        with memoryview(b"seen") as view:
            client.set("view", view, ex=50)
        assert not watcher.held
        client.get("none")
        with client.pipeline() as pipe:
            pipe.set("none", 1, ex=50).execute()
        assert not watcher.held and [one[0] for one in watcher.queue][-2:] == [1, 3]     # READ, WROTE
        client.get("a")
        with pytest.raises(redis.ResponseError):
            client.incr("list")
        assert not watcher.held and watcher.queue[-1][0] == 11      # UNKNOWN
        for _ in range(200):
            client.get("a")
        assert len(watcher.held) < listener.HELD
        report = client.adapt.report()
        assert (report.hits, report.misses, report.commands) == (204, 1, 211)       # a list that was read, too
        client.get("a")
        watcher.near = watching                     # near answers must be forgotten at once
        monkeypatch.setattr(listener, "forget", lambda *said: None)
        client.get("a")
        assert not watcher.held
        watcher.near = None
    client.get("a")
    client.adapt.mode = "off"
    assert not watcher.held


def test_reads_without_room_for_a_note_are_counted(client: ours.Redis, monkeypatch: Any) -> None:
    monkeypatch.setattr(listener, "LIMIT", 0)
    client.get("none")
    with client.pipeline() as pipe:
        pipe.set("a", 1, ex=50).get("a").get("none").execute()
    report = client.adapt.report()
    assert (report.hits, report.misses, report.dropped) == (1, 2, 4)


def test_a_pipeline_of_somebody_elses_making_is_his(client: ours.Redis, monkeypatch: Any) -> None:
    class Theirs(redis.client.Pipeline):
        pass

    assert type(client.pipeline()) is ours.Pipeline
    plain = redis.Redis.pipeline
    made = []
    with monkeypatch.context() as patch:
        patch.setattr(redis.Redis, "pipeline", lambda self, *given: made.append(given) or plain(self, *given))
        assert type(client.pipeline(False)) is ours.Pipeline and made == [(False, None)]      # a tracer sees it
    with monkeypatch.context() as patch:
        patch.setattr(redis.client, "Pipeline", Theirs)
        assert type(client.pipeline()) is Theirs

    class Mine(ours.Redis):
        pass

    with Mine(connection_pool=client.connection_pool) as mine:
        assert type(mine.pipeline()) is ours.Pipeline and mine.pipeline()._watcher is client._watcher


def test_no_more_keys_are_followed_than_stated(server: Server) -> None:
    with ours.Redis(port=server.port, adapt=Adapt(expiry=MANUAL, max_keys=100)) as client:
        for at in range(500):
            client.set(f"k:{at}", 1, ex=100)
        assert len(followed(client)) <= 100
        assert client.adapt.report().sampled >= 4
        client.adapt.close()


def test_a_server_that_is_gone_harms_nobody(valkey_server: Callable[..., Server]) -> None:
    server = valkey_server()
    with server.client() as other:
        other.set("a", 1, ex=50)
    with ours.Redis(port=server.port, adapt=Adapt(expiry=MANUAL), retry=None, socket_timeout=1) as client:
        client.get("a")
        server.kill()
        client.adapt.flush()
        assert "cannot ask" in client.adapt.report().trouble
        with pytest.raises(redis.ConnectionError):
            client.get("a")
        server.start()
        client.set("a", 1, ex=50)
        assert set(followed(client)) == {b"a"}
        client.adapt.close()


def test_another_database_switches_watching_off(server: Server) -> None:
    with ours.Redis(port=server.port, single_connection_client=True, adapt=Adapt(expiry=MANUAL)) as client:
        client.set("a", 1, ex=50)
        client.execute_command("SELECT", 1)
        client.adapt.flush()
        assert client.adapt.mode == "off" and "SELECT" in client.adapt.report().trouble
        client.set("a", 2, ex=50)
        assert not followed(client)


# -- asyncio, sentinel, cluster

def test_asyncio_clients_see_the_same(server: Server) -> None:
    async def use() -> None:
        async with ours_async.Redis.from_url(server.url, adapt=Adapt(expiry=MANUAL)) as client:
            assert isinstance(client, redis.asyncio.Redis)
            assert await client.set("a", "v", ex=50) and await client.get("a") == b"v"
            async with client.pipeline() as pipe:
                assert await pipe.set("b", "v", ex=50).get("b").execute() == [True, b"v"]
            async with client.pipeline() as pipe:
                await pipe.watch("a")
                assert await pipe.get("a") == b"v"
                pipe.multi()
                assert await pipe.set("c", "v", ex=50).execute() == [True]
            with pytest.raises(redis.ResponseError):
                await client.lpush("b", 1)
            await asyncio.to_thread(client.adapt.flush)
            assert set(client._watcher._follower.entries) == {b"a", b"c"}
            assert client.adapt.report().hits == 3
            pending = asyncio.create_task(client.blpop("empty", 30))
            await asyncio.sleep(0.1)
            pending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await pending
            client.adapt.close()
            assert await client.get("a") == b"v"

    asyncio.run(use())


def test_a_master_of_sentinels(sentinels: Sentinels) -> None:
    sentinel = sentinels.sentinel()
    client = sentinel.master_for(Sentinels.NAME, redis_class=ours.Redis, adapt=Adapt(expiry=MANUAL))
    plain = sentinel.master_for(Sentinels.NAME)
    with client, plain:
        client.set("a", 1, ex=50)
        plain.set("b", 1, ex=50)
        client.get("b")
        assert set(followed(client)) == {b"a", b"b"}
        client.adapt.close()
    with sentinel.slave_for(Sentinels.NAME, redis_class=ours.Redis, adapt="release") as replica:
        assert replica.adapt.mode == "observe" and "replica" in replica.adapt.report().trouble
        with pytest.raises(ValueError, match="replica"):
            replica.adapt.mode = "release"
    for one in sentinel.sentinels:
        one.close()


def test_a_cluster_client(cluster: Cluster) -> None:
    told = Adapt(expiry=MANUAL)
    with ours.RedisCluster.from_url(cluster.url, adapt=told) as client, cluster.client() as other:
        assert isinstance(client, redis.RedisCluster)
        for at in range(10):
            client.set(f"a:{at}", "v", ex=50)
            other.set(f"b:{at}", "v", ex=50)
            assert client.get(f"b:{at}") == b"v"
        with client.pipeline() as pipe:
            for at in range(10):
                pipe.set(f"p:{at}", "v", ex=50)
            assert pipe.execute() == [True] * 10
        assert len(followed(client)) == 30
        client.mget_nonatomic("a:1", "a:2", "none")
        client.delete("a:1")
        assert len(followed(client)) == 29
        client.adapt.close()


def test_an_asyncio_cluster_client(cluster: Cluster) -> None:
    async def use() -> None:
        async with ours_async.RedisCluster.from_url(cluster.url, adapt=Adapt(expiry=MANUAL)) as client:
            for at in range(5):
                await client.set(f"a:{at}", "v", ex=50)
            async with client.pipeline() as pipe:
                for at in range(5):
                    pipe.set(f"p:{at}", "v", ex=50)
                assert await pipe.execute() == [True] * 5
            await asyncio.to_thread(client.adapt.flush)
            assert len(client._watcher._follower.entries) == 10
            client.adapt.close()

    asyncio.run(use())
