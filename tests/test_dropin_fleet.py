"""Clients of `adaptcache.redis` that name a fleet learn together. On real servers; run as a script, it is one such process."""
from __future__ import annotations

import gc
import io
import itertools
import json
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from rich.console import Console
from servers import Cluster, Sentinels, Server, until

import adaptcache.redis.asyncio as ours_async
from adaptcache import Learned
from adaptcache import redis as ours
from adaptcache.fleet import top
from adaptcache.fleet.names import Names
from adaptcache.fleet.tap import Tap
from adaptcache.ledger import Ledger
from adaptcache.near import NearCache
from adaptcache.redis import Adapt, joining

NAME = "shop"
MANUAL = Learned(learner="manual", seed=1)
QUICK = {"publish": 0.2, "lock_time": 1.0, "interval": 0.05}
KEYS = [b"page:%d" % at for at in range(3000)]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "OPTIONS", dict(QUICK))


def told(mode: str = "observe", **options: Any) -> Adapt:
    return Adapt(mode, **{"fleet": NAME, "expiry": MANUAL, **options})


def ask(client: Any, count: int, turn: int = 0) -> None:
    """Requests of a cache that loads what it does not have."""
    for at in range(count):
        key = f"page:{(at * 7 + turn) % 120}"
        if client.get(key) is None:
            client.set(key, "x" * 50, ex=60)


def joined(client: Any) -> Any:
    """Its part of the fleet, once it is one."""

    def part() -> Any:
        client.adapt.flush()
        stats = client.adapt.fleet()
        return stats is not None and stats.connected and stats

    return until(part, "a part of the fleet that has reached the server")


def teach(*clients: Any) -> list[Any]:
    """Use them until each has installed a model; their stats then."""

    turns = itertools.count()

    def installed() -> Any:
        for client in clients:
            ask(client, 40, 40 * next(turns))
        time.sleep(0.1)         # so few that nobody takes a sample
        parts = [joined(client) for client in clients]
        return all(part.version for part in parts) and parts

    return until(installed, "a model in each", 60.0)


def workers(url: str) -> list[dict[str, Any]]:
    fleets = top.Fleets(url, NAME)
    try:
        return fleets.look()["workers"]
    finally:
        fleets.close()


@contextmanager
def using(*clients: Any) -> Iterator[Any]:
    try:
        yield clients[0] if len(clients) == 1 else clients
    finally:
        for client in clients:
            client.adapt.close()
            client.close()


def threads() -> int:
    return sum(thread.name.startswith("adaptcache-fleet") for thread in threading.enumerate())


@pytest.fixture
def pair(valkey: Server) -> Iterator[tuple[Any, Any]]:
    """Two clients with watchers of their own, as if of two processes."""
    with using(ours.Redis(port=valkey.port, adapt=told()), ours.Redis(port=valkey.port, adapt=told(max_keys=1000))) as clients:
        yield clients


def test_what_one_learns_the_other_installs(pair: tuple[Any, Any], valkey: Server) -> None:
    parts = teach(*pair)
    assert sum(part.learning > 0 for part in parts) == 1 and not any(part.refused or part.differs for part in parts)
    until(lambda: all(client.adapt.fleet().workers == 2 for client in pair), "each knows of the other")
    assert all(part.sent and not part.dropped for part in parts)
    assert "trouble" not in str(pair[0].adapt.report())
    # Those whose ledger has other numbers of keys, or another break-even time, are no company of theirs.
    first = pair[0]._watcher._follower.ledger
    assert first.break_even_ttl == 2.0 and first.number(b"a") == pair[1]._watcher._follower.ledger.number(b"a") != Ledger(MANUAL).number(b"a")
    with using(ours.Redis(port=valkey.port, adapt=told(expiry=Learned(learner="manual", memory_price=1e-6)))) as stranger:
        ask(stranger, 40)
        until(lambda: joined(stranger).differs, "a difference that is told")
        assert joined(stranger).installed == 0 and "other rules" in stranger.adapt.report().trouble


def test_top_shows_hits_promise_weights_and_near(valkey: Server) -> None:
    near = NearCache(1000)
    with using(ours.Redis(port=valkey.port, adapt=told(near=near)), ours.Redis(port=valkey.port, adapt=told("release"))) as (one, other):
        teach(one, other)
        until(lambda: one._watcher.near.ready, "a near cache that serves")
        asked = sorted((said.hits, said.misses) for said in (one.adapt.report(), other.adapt.report()))

        def shown() -> Any:
            seen = workers(valkey.url)
            return sorted((each["hits"], each["misses"]) for each in seen) == asked and any(each["near"] and each["near"]["ready"] for each in seen) and seen

        seen = until(shown, "both in top")
        assert sum(each["near"] is not None for each in seen) == 1 and all(each["weights"] and each["version"] for each in seen)
        page = io.StringIO()
        assert top.main(valkey.url, NAME, once=True, console=Console(file=page, width=200)) == 0
        for word in ("2 workers", "promise", "weights", "on, "):
            assert word in page.getvalue(), word


@pytest.mark.parametrize("mode", ["observe", "release"])
def test_another_mode_ends_its_part_and_begins_another(valkey: Server, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with using(ours.Redis(port=valkey.port, adapt=told(mode))) as client:
        ask(client, 40)
        before = joined(client)
        assert before.workers == 1 and threads() == 2 and len(workers(valkey.url)) == 1
        heard: list[Any] = []
        monkeypatch.setattr(Tap, "__call__", lambda tap, *said: heard.append(said))
        client.adapt.mode = "off"
        assert client.adapt.fleet() is None and threads() == 0 and not workers(valkey.url)
        assert not heard            # that it forgets its keys is nothing to tell the fleet
        ask(client, 40)
        client.adapt.flush()
        assert client.adapt.fleet() is None
        client.adapt.mode = "release" if mode == "observe" else "observe"
        ask(client, 40)
        assert joined(client).workers == 1 and len(workers(valkey.url)) == 1
        client.adapt.close()
        assert threads() == 0 and not workers(valkey.url)


def test_a_client_that_is_dropped_leaves_no_thread(valkey: Server) -> None:
    client = ours.Redis(port=valkey.port, adapt=told())
    ask(client, 40)
    joined(client)
    gone, part = weakref.ref(client._watcher), weakref.ref(client._watcher.fleet)
    client.close()
    del client

    def collected() -> bool:
        gc.collect()
        return gone() is None and part() is None and threads() == 0

    until(collected, "the watcher, its part and its threads go with the client", 30.0)


def test_a_forked_child_is_a_worker_of_its_own(valkey: Server) -> None:
    with using(ours.Redis(port=valkey.port, adapt=told())) as client:
        ask(client, 40)
        joined(client)
        time.sleep(0.2)
        child = os.fork()
        if child == 0:
            try:
                fresh = client._watcher.fleet is None
                until(lambda: threads() == 0, "the parent's part ends here, whether or not it was told of the fork first")
                ask(client, 40)
                joined(client)
                until(lambda: joined(client).workers == 2 and threads() == 2 and len(workers(valkey.url)) == 2, "two workers")
                os._exit(0 if fresh else 1)
            finally:
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        assert joined(client).connected


def test_without_a_fleet_observe_leaves_nothing_on_the_server(valkey: Server) -> None:
    with using(ours.Redis(port=valkey.port, adapt=told(fleet=None))) as client, valkey.client() as plain:
        ask(client, 40)
        client.adapt.flush()
        assert client.adapt.fleet() is None and threads() == 0
        assert not [key for key in plain.keys("*") if not key.startswith(b"page:")]
    with using(ours.Redis(port=valkey.port, adapt=told())) as client, valkey.client() as plain:
        ask(client, 40)
        joined(client)
        assert plain.exists(Names(NAME).configuration)
        assert all(key.startswith((b"page:", b"adaptcache:fleet:{shop}:")) for key in plain.keys("*"))


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"protocol": 3, "decode_responses": True, "db": 3}, {"username": "default", "password": "secret", "protocol": 2}],
                         ids=["RESP3, text, a database", "a password"])
def test_it_goes_where_the_client_goes(valkey_server: Callable[..., Server], options: dict[str, Any]) -> None:
    server = valkey_server(**({"requirepass": "secret"} if "password" in options else {}))
    with using(ours.Redis(port=server.port, adapt=told(), **options),
               ours.Redis(port=server.port, adapt=told("release", max_keys=1000), **options)) as (one, other):
        teach(one, other)
        with server.client(**{**options, "protocol": 2, "decode_responses": False}) as plain:
            assert plain.exists(Names(NAME).model) and plain.zcard(Names(NAME).workers) == 2


@pytest.mark.slow
def test_by_way_of_sentinels_and_with_asyncio(sentinels: Sentinels) -> None:
    import asyncio

    sentinel = sentinels.sentinel()
    with using(sentinel.master_for(Sentinels.NAME, redis_class=ours.Redis, adapt=told())) as client:
        teach(client)

        async def use() -> None:
            from redis.asyncio.sentinel import Sentinel

            others = Sentinel([("127.0.0.1", each.port) for each in sentinels.sentinels], socket_timeout=1)
            other = others.master_for(Sentinels.NAME, redis_class=ours_async.Redis, adapt=told(max_keys=1000))
            await other.set("page:1", "x", ex=60)
            await asyncio.to_thread(lambda: until(lambda: joined(other).version, "a model"))
            await asyncio.to_thread(other.adapt.close)
            await other.aclose()
            for each in others.sentinels:
                await each.aclose()

        asyncio.run(use())
    with using(sentinel.slave_for(Sentinels.NAME, redis_class=ours.Redis, adapt=told(keys=["page:*"]))) as replica:
        replica.get("page:1")
        replica.adapt.flush()
        assert replica.adapt.fleet() is None and "fleet" in replica.adapt.report().trouble
    for one in sentinel.sentinels:
        one.close()


@pytest.mark.slow
def test_a_cluster(cluster: Cluster) -> None:
    with using(ours.RedisCluster.from_url(cluster.url, adapt=told())) as client:
        teach(client)


def test_a_server_that_is_gone_is_said_and_found_again(valkey_server: Callable[..., Server]) -> None:
    server = valkey_server()
    with using(ours.Redis(port=server.port, adapt=told(), socket_timeout=1)) as client:
        ask(client, 40)
        joined(client)
        server.kill()
        until(lambda: "does not answer" in client.adapt.report().trouble, "trouble that is told")
        server.start()
        until(lambda: client.adapt.fleet().connected, "a part that is back")
        assert not client.adapt.report().trouble


def test_the_sample_of_keys_is_the_fleets(pair: tuple[Any, Any]) -> None:
    """What one worker leaves out all leave out, so that a key's history is whole."""
    one, other = (client._watcher for client in pair)
    for client in pair:
        ask(client, 40)
        joined(client)
    numbers = [watcher._follower.ledger.number for watcher in (one, other)]
    assert [numbers[0](key) for key in KEYS] == [numbers[1](key) for key in KEYS] and len(set(map(numbers[0], KEYS))) == len(KEYS)
    for shift in (1, 3):
        one._sample(shift, time.monotonic() + 60)
        tap = one.fleet._tap
        assert tap.level == shift
        followed = {key for key in KEYS if not one._follower._outside(key)}
        assert followed == {key for key in KEYS if numbers[0](key) <= tap.kept}
        assert followed == {key for key in KEYS if not one.number(key.decode()) & one.mask}
        assert 0.8 < len(followed) * 2**shift / len(KEYS) < 1.2
    # A key that is left out is not told as removed.
    sent = []
    ledger = one._follower.ledger
    tap = ledger.listener
    ledger.listener = lambda kind, number, *rest: sent.append(number <= tap.kept)
    one._follower.settle(time.monotonic())
    ledger.listener = tap
    assert not any(sent) and sent
    # The other keeps to that sample as soon as it has heard of it.
    until(lambda: [ask(pair[0], 40), time.sleep(0.1)] and other.fleet._tap.level >= 3, "the fleet's sample", 30.0)


def test_its_name_is_checked() -> None:
    with pytest.raises(ValueError, match=r"fleet: 'a b' is not accepted; the accepted range"):
        Adapt(fleet="a b")
    with pytest.raises(TypeError, match="fleet: expected a str"):
        Adapt(fleet=3)     # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Adapt("observe", "shop")   # type: ignore[misc]


# -- processes

@pytest.mark.slow
def test_two_processes_learn_together(valkey: Server) -> None:
    running = [subprocess.Popen([sys.executable, __file__, str(valkey.port), mode], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "random"}) for mode in ("observe", "release")]
    try:
        until(lambda: len(both := workers(valkey.url)) == 2 and all(each["installed"] for each in both), "both in top, with a model", 50.0)
        seen = workers(valkey.url)
        assert {each["pid"] for each in seen} == {process.pid for process in running}
        assert all(0.3 < each["hits"] / (each["hits"] + each["misses"]) < 1.0 and not each["refused"] for each in seen)
    finally:
        said = [json.loads(process.communicate("\n", timeout=30)[0]) for process in running]
    assert all(process.returncode == 0 for process in running)
    assert not workers(valkey.url) and all(each["installed"] and not each["differs"] for each in said)


def main(port: str, mode: str) -> None:
    import random
    import select
    from dataclasses import asdict

    joining.OPTIONS = dict(QUICK)
    dice = random.Random(os.getpid())
    with ours.Redis(port=int(port), adapt=Adapt(mode, fleet=NAME)) as client:
        while not select.select([sys.stdin], [], [], 0.01)[0]:
            key = f"page:{dice.randrange(40)}"
            if client.get(key) is None:
                client.set(key, "x" * 50, ex=2)
        part = client.adapt.fleet()
        client.adapt.close()
    print(json.dumps(asdict(part)))


if __name__ == "__main__":
    main(*sys.argv[1:])
