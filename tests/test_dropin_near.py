"""What a watched client answers by itself is what the server would say. On real servers."""
from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from servers import Cluster, Server, until

import adaptcache.redis.asyncio as ours_async
from adaptcache import Learned
from adaptcache import redis as ours
from adaptcache.near import NearCache
from adaptcache.redis import Adapt

TOLD = Adapt(expiry=Learned(learner="manual", seed=1), near=NearCache(1000))


def asked(server: Server) -> int:
    """Commands that the server was sent, but for heartbeats and our own questions."""
    with server.client() as client:
        stats = client.info("commandstats")
    return sum(one["calls"] for name, one in stats.items() if name in ("cmdstat_get", "cmdstat_mget", "cmdstat_hgetall", "cmdstat_lrange", "cmdstat_zrange"))


def warm(client: Any, *reads: Any) -> None:
    """Read until the answers are kept."""
    near = until(lambda: client.adapt.flush() or client._watcher.near, "near")
    until(lambda: near.ready, "a listening connection")
    for read in reads:
        read()
    client.adapt.flush()


@pytest.fixture
def client(server: Server) -> Iterator[ours.Redis]:
    with ours.Redis(port=server.port, adapt=TOLD) as client:
        client.ping()
        client.set("first", 1)
        yield client
        client.adapt.close()


READS = [
    lambda r: r.get("s"), lambda r: r.get("none"), lambda r: r.mget("s", "none", "s2"), lambda r: r.hgetall("h"), lambda r: r.hget("h", "f"),
    lambda r: r.hget("h", "none"), lambda r: r.hmget("h", "f", "g"), lambda r: r.smembers("set"), lambda r: r.lrange("l", 0, -1), lambda r: r.lrange("l", 1, 1),
    lambda r: r.zrange("z", 0, -1), lambda r: r.zrange("z", 0, -1, withscores=True), lambda r: r.zrange("z", 0, -1, withscores=True, score_cast_func=int),
    lambda r: r.zscore("z", "a"), lambda r: r.sismember("set", 1), lambda r: r.hlen("h"), lambda r: r.get(b"s"),
]


@pytest.mark.parametrize("options", [{}, {"decode_responses": True}, {"protocol": 2}, {"protocol": 3}], ids=str)
def test_near_answers_are_redis_pys_in_shape_and_kind(server: Server, options: dict[str, Any]) -> None:
    with server.client() as other:
        other.set("s", "abc", ex=100)
        other.set("s2", "def")
        other.hset("h", mapping={"f": 1, "g": 2})
        other.sadd("set", 1, 2)
        other.rpush("l", 1, 2, 3)
        other.zadd("z", {"a": 1, "b": 2})
    with redis.Redis(port=server.port, **options) as theirs, ours.Redis(port=server.port, adapt=TOLD, **options) as client:
        expected = [read(theirs) for read in READS]
        client.set("start", 1)
        warm(client)
        for _ in range(4):
            assert [read(client) for read in READS] == expected
            client.adapt.flush()
        before = asked(server)
        for read, should in zip(READS, expected, strict=True):
            answer = read(client)
            assert answer == should and type(answer) is type(should)
        assert asked(server) == before
        client.adapt.close()


def test_nobody_spoils_an_answer(client: ours.Redis, server: Server) -> None:
    client.hset("h", "f", 1)
    client.rpush("l", 1)
    warm(client, lambda: client.hgetall("h"), lambda: client.lrange("l", 0, -1))
    before = asked(server)
    client.hgetall("h")[b"f"] = "spoiled"
    client.lrange("l", 0, -1).append("spoiled")
    assert client.hgetall("h") == {b"f": b"1"} and client.lrange("l", 0, -1) == [b"1"]
    assert asked(server) == before


def test_ones_own_writes_are_seen_at_once_however_they_are_made(client: ours.Redis) -> None:
    warm(client)
    writes = [
        lambda at: client.set("k", at), lambda at: client.execute_command("set k", at), lambda at: client.mset({"k": at}),
        lambda at: client.pipeline().set("k", at).execute(), lambda at: client.pipeline(transaction=False).set("k", at).execute(),
        lambda at: client.eval("redis.call('SET', KEYS[1], ARGV[1])", 1, "k", at), lambda at: client.execute_command(b"SET", b"k", at),
        lambda at: client.transaction(lambda pipe: pipe.multi() or pipe.set("k", at), "k"),
        lambda at: client.flushdb() and client.set("k", at),
    ]
    for at in range(3 * len(writes)):
        writes[at % len(writes)](at)
        assert client.get("k") == b"%d" % at, at
        client.adapt.flush()
        assert client.get("k") == b"%d" % at, at
    client.delete("k")
    assert client.get("k") is None


def test_others_writes_are_seen_within_the_window(client: ours.Redis, server: Server) -> None:
    client.set("k", 0)
    warm(client, lambda: client.get("k"))
    with server.client() as other:
        for at in range(20):
            other.set("k", at)
            until(lambda at=at: client.get("k") == b"%d" % at, "the write is seen", TOLD.near.window)
            client.adapt.flush()


def test_nothing_is_answered_past_its_expiry(client: ours.Redis, server: Server) -> None:
    with server.client() as other:
        other.config_set("hz", 1)
        try:
            other.execute_command("DEBUG", "SET-ACTIVE-EXPIRE", 0)
        except redis.ResponseError:
            pass            # then the server itself may say so in time, and the test shows less
        other.set("theirs", 1, px=1500)
        client.set("ours", 1, px=1500)
        end = time.monotonic() + 1.5
        warm(client, lambda: client.get("theirs"), lambda: client.get("ours"))
        before = asked(server)
        assert client.get("theirs") == client.get("ours") == b"1"
        assert asked(server) == before or time.monotonic() > end
        time.sleep(max(0.0, end - time.monotonic() + 0.05))
        assert client.get("theirs") is None and client.get("ours") is None
        other.config_set("hz", 10)


def test_pipelines_transactions_and_single_connections_ask_the_server(client: ours.Redis, server: Server) -> None:
    client.set("k", 1)
    warm(client, lambda: client.get("k"))
    before = asked(server)
    client.get("k")
    assert asked(server) == before
    client.pipeline().get("k").execute()
    with client.pipeline() as pipe:
        pipe.watch("k")
        pipe.get("k")
    with client.client() as single:
        single.get("k")
    assert asked(server) == before + 3


def test_a_client_with_callbacks_of_its_own_and_the_mode_off_ask_the_server(client: ours.Redis, server: Server) -> None:
    client.set("k", 1)
    warm(client, lambda: client.get("k"))
    with ours.Redis(connection_pool=client.connection_pool) as other:
        other.set_response_callback("GET", lambda said: said and int(said))
        assert other.get("k") == 1 and client.get("k") == b"1"
    client.adapt.mode = "off"
    before = asked(server)
    assert client.get("k") == b"1" and asked(server) == before + 1


def test_near_answers_count_as_hits(client: ours.Redis) -> None:
    client.set("a:1", "v", ex=100)
    warm(client, lambda: client.get("a:1"))
    for _ in range(10):
        client.get("a:1")
    assert client.adapt.report().namespaces["a:*"].hits == 11


def test_asyncio_clients_are_answered_too(server: Server) -> None:
    async def use() -> None:
        async with ours_async.Redis(port=server.port, adapt=TOLD) as client:
            await client.set("k", "v", ex=100)
            near = await asyncio.to_thread(warm, client) or client._watcher.near
            await client.get("k")
            before = asked(server)
            for _ in range(5):
                assert await client.get("k") == b"v"
            assert asked(server) == before and near.stats().hits >= 5
            await client.set("k", "w", ex=100)
            assert await client.get("k") == b"w"
            await asyncio.to_thread(client.adapt.close)

    asyncio.run(use())


def test_a_cluster_is_answered_too(cluster: Cluster) -> None:
    with ours.RedisCluster.from_url(cluster.url, adapt=TOLD) as client, cluster.client() as other:
        for at in range(20):
            client.set(f"k:{at}", at, ex=100)
        warm(client)
        near = client._watcher.near
        until(lambda: near.stats().nodes == 3, "all nodes listen")
        for _ in range(2):
            assert [client.get(f"k:{at}") for at in range(20)] == [b"%d" % at for at in range(20)]
        assert near.stats().hits >= 20
        other.set("k:3", "new")
        until(lambda: client.get("k:3") == b"new", "the write is seen", TOLD.near.window)
        client.adapt.close()
