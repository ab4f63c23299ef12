"""What a watched client costs beside redis-py's own, on the same server: single commands and pipelines, sync and asyncio.

Both clients talk to one Valkey on the loopback, in turn, round by round; the daemon that looks at what was seen runs meanwhile. `bench/dropin.py` has
them take turns command by command.
"""
from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from servers import Server, until

import adaptcache.redis.asyncio as ours_async
from adaptcache import redis as ours
from adaptcache.near import NearCache

KEYS = [f"page:{at}" for at in range(1000)]
AIMS = {"redis-py": 1.03}
MODES = ("off", "observe")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture(params=MODES)
def pair(request: pytest.FixtureRequest, server: Server) -> Iterator[tuple[str, Any, Any]]:
    with redis.Redis(port=server.port) as theirs, ours.Redis(port=server.port, adapt=request.param) as mine:
        for key in KEYS:
            mine.set(key, "x" * 100, ex=600)
        mine.adapt.flush()
        yield request.param, mine, theirs
        print(mine.adapt.report())
        mine.adapt.close()


def _turns(count: int) -> Iterator[list[str]]:
    """So many keys at a time, for ever."""
    while True:
        for at in range(0, len(KEYS), count):
            yield KEYS[at:at + count]


def _gets(client: Any, count: int = 100) -> Callable[[], None]:
    turns = _turns(count)

    def run() -> None:
        for key in next(turns):
            client.get(key)
    return run


def _sets(client: Any) -> Callable[[], None]:
    turns = _turns(100)

    def run() -> None:
        for key in next(turns):
            client.set(key, "x" * 100, ex=600)
    return run


def _pipelines(client: Any) -> Callable[[], None]:
    turns = _turns(100)

    def run() -> None:
        for _ in range(5):
            keys = next(turns)
            with client.pipeline(transaction=False) as pipe:
                for key in keys[:50]:
                    pipe.get(key)
                for key in keys[50:]:
                    pipe.set(key, "x" * 100, ex=600)
                pipe.execute()
    return run


def test_get(contest: Any, pair: tuple[str, Any, Any]) -> None:
    mode, mine, theirs = pair
    contest("drop-in", f"get, {mode}", _gets(mine), {"redis-py": _gets(theirs)}, 100, rounds=301, aims=AIMS)


def test_set(contest: Any, pair: tuple[str, Any, Any]) -> None:
    mode, mine, theirs = pair
    contest("drop-in", f"set with an expiry, {mode}", _sets(mine), {"redis-py": _sets(theirs)}, 100, rounds=301, aims=AIMS)


def test_pipeline_of_100(contest: Any, pair: tuple[str, Any, Any]) -> None:
    mode, mine, theirs = pair
    contest("drop-in", f"pipeline of 100, {mode}", _pipelines(mine), {"redis-py": _pipelines(theirs)}, 5, rounds=301, aims=AIMS)


def test_get_answered_near(contest: Any, server: Server) -> None:
    adapt = ours.Adapt(near=NearCache(10_000))
    with redis.Redis(port=server.port) as theirs, ours.Redis(port=server.port, adapt=adapt) as mine:
        for key in KEYS[:200]:
            mine.set(key, "x" * 100, ex=600)
        near = until(lambda: mine.adapt.flush() or mine._watcher.near, "near")
        until(lambda: near.ready, "a listening connection")
        _gets(mine, 200)()
        mine.adapt.flush()

        def same(client: Any) -> Callable[[], None]:
            return lambda: [client.get(key) for key in KEYS[:200]] and None

        contest("drop-in", "get, answered near", same(mine), {"redis-py": same(theirs)}, 200, rounds=51)
        assert near.stats().hits > 51 * 190
        mine.adapt.close()


@pytest.mark.parametrize("mode", MODES)
def test_asyncio_get(contest: Any, server: Server, mode: str) -> None:
    with asyncio.Runner() as runner:
        async def make() -> tuple[Any, Any]:
            return ours_async.Redis(port=server.port, adapt=mode), redis.asyncio.Redis(port=server.port)

        mine, theirs = runner.run(make())

        async def gets(client: Any) -> None:
            for key in KEYS[:100]:
                await client.get(key)

        contest("drop-in", f"asyncio get, {mode}", lambda: runner.run(gets(mine)), {"redis-py": lambda: runner.run(gets(theirs))}, 100,
                rounds=201, aims=AIMS)
        mine.adapt.close()
        runner.run(mine.aclose())
        runner.run(theirs.aclose())


def test_a_client_for_each_request(contest: Any, server: Server) -> None:
    pools = [redis.ConnectionPool(port=server.port) for _ in range(2)]

    def requests(kind: Any, pool: Any) -> None:
        for key in KEYS[:100]:
            with kind(connection_pool=pool) as client:
                client.get(key)

    contest("drop-in", "a client made for each get", lambda: requests(ours.Redis, pools[0]), {"redis-py": lambda: requests(redis.Redis, pools[1])},
            100, rounds=51)
    ours.Redis(connection_pool=pools[0]).adapt.close()
    for pool in pools:
        pool.close()
