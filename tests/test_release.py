"""Keys are let go of on a real server when nobody there has asked for them, and losses reach the bank that pays for them."""
from __future__ import annotations

import gc
import logging
import math
import os
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from redis.crc import key_slot
from servers import Cluster, Server, until

from adaptcache import Learned, _core, release
from adaptcache.ledger import Ledger, Release, Touched
from adaptcache.release import REST, Releaser, mark


def idle(key: bytes, *, age: float = 0.0, window_left: float = -10.0, size: float = 1.0) -> Release:
    """A release of a key that was last used `age` seconds ago."""
    return Release(key, _core.monotonic() - age, age, window_left, math.inf, size, None)


@contextmanager
def releaser(client: Any, **options: Any) -> Iterator[Releaser]:
    made = Releaser(client, **options)
    try:
        yield made
    finally:
        made.close()


def ledger_of(releaser: Releaser, **options: Any) -> Ledger:
    ledger = Ledger(Learned(memory_price=1e-9, seed=1, **options), on_release=releaser.release, on_touch=releaser.touch)
    releaser.attach(ledger)
    return ledger


def test_only_what_nobody_asked_for_and_what_expires_is_let_go_of(server: Server) -> None:
    with server.client() as client, releaser(client) as letting:
        ledger = ledger_of(letting)
        for name in ("idle", "read", "written", "touched"):
            client.set(name, "x" * 10, ex=100)
        client.set("for ever", "x")
        keys = [b"idle", b"read", b"written", b"touched", b"for ever", b"never there"]
        began = time.monotonic()
        letting.release([idle(key, size=10) for key in keys])
        while time.monotonic() < began + REST:       # others ask meanwhile
            client.get("read")
            client.set("written", "y", ex=100)
            letting.touch(Touched((b"touched",)))
            time.sleep(0.2)
        until(lambda: letting.stats().waiting == 0 and client.exists("idle") == 0, "the idle key is let go of")
        until(lambda: letting.stats().kept == 4, "the others stay")
        assert client.exists("read", "written", "touched", "for ever") == 4
        told = letting.stats()
        assert (told.released, told.early, told.bytes, told.gone, told.failed, told.refusal) == (1, 0, 10, 1, 0, "")
        assert ledger.got(b"read", True)        # it is followed again, since somebody wants it
        assert sorted(client.keys()) == [b"for ever", b"read", b"touched", b"written"]      # no marks: no window was open


def test_an_early_release_leaves_a_mark_and_the_loss_is_told_to_the_process_that_let_go(server: Server) -> None:
    with server.client() as client, releaser(client) as mine, releaser(client) as other:
        ledger = ledger_of(mine, window=3600.0, premature=1.0)
        ledger_of(other)
        lost: list[int] = []
        ledger.lost = lambda number: lost.append(number) or True  # type: ignore[method-assign, func-returns-value]
        client.set("a", "x", ex=1000)
        client.set("own", "x", ex=1000)
        mine.release([idle(b"a", age=REST, window_left=3600.0)])
        # Written now, so it has been idle for no time by the server's clock, whatever this process thinks.
        until(lambda: mine.stats().kept == 1, "a key that was just written stays")
        time.sleep(REST)
        ledger.clear()
        mine.release([idle(key, age=REST, window_left=3600.0) for key in (b"a", b"own")])
        until(lambda: client.exists("a", "own") == 0, "the keys are let go of")
        until(lambda: mine.stats().early == 2, "the releaser has heard of it")
        name = mark(b"adaptcache", b"a")
        assert name is not None and 3500_000 < client.pttl(name) < 3700_000
        assert client.get("a") is None
        other.missed(b"b")
        other.missed(b"a")
        other.missed(b"a")
        until(lambda: lost == [ledger.number(b"a")], "the loss is told once")
        until(lambda: other.stats().noticed == 1 and mine.stats().told == 1, "both have counted it")
        assert client.exists(name) == 0
        mine.missed(b"own")     # its own loss is in its own books already
        until(lambda: client.exists(mark(b"adaptcache", b"own") or b"") == 0, "the mark is taken away")
        time.sleep(1.5)         # it looks for what others told it once a second
        assert mine.stats().noticed == 0 and mine.stats().told == 1


@pytest.mark.slow
def test_what_is_in_use_again_in_this_process_stays_however_coarse_the_servers_clock(
        valkey: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "REST", 0.3)       # so short that the script would take anything
    with valkey.client() as client, releaser(client, expiring=False) as letting:
        ledger = ledger_of(letting)
        client.mset({"again": "x", "idle": "x"})
        ledger.put(b"again")
        letting.release([idle(key, window_left=3600.0) for key in (b"again", b"idle")])
        until(lambda: letting.stats().waiting == 0 and client.exists("idle") == 0, "the idle key is let go of")
        until(lambda: letting.stats().kept == 1, "the other one stays")
        assert client.exists("again")


def test_a_miss_after_the_window_is_no_loss(valkey: Server) -> None:
    with valkey.client() as client, releaser(client) as mine, releaser(client) as other:
        ledger_of(mine)
        client.set("a", "x", ex=1000)
        time.sleep(REST)
        mine.release([idle(b"a", age=REST, window_left=0.2)])
        until(lambda: client.exists("a") == 0, "the key is let go of")
        time.sleep(4.0)      # the window, and what the server's clock blurs of it
        other.missed(b"a")
        until(lambda: not other._missed, "it has looked")
        until(lambda: client.exists(mark(b"adaptcache", b"a") or b"") == 0, "the mark is taken away")
        assert other.stats().noticed == 0


def test_without_idle_times_nothing_is_released_and_it_says_why(valkey_server: Callable[..., Server],
                                                                caplog: pytest.LogCaptureFixture) -> None:
    server = valkey_server(maxmemory="50mb", maxmemory_policy="allkeys-lfu")
    with server.client() as client, releaser(client) as letting:
        ledger_of(letting)
        client.set("a", "x", ex=100)
        letting.release([idle(b"a", age=100.0)])
        until(lambda: letting.stats().kept == 1, "it is kept")
        assert "LFU" in letting.stats().refusal and "LFU" in caplog.text
        assert client.exists("a")


@pytest.mark.slow
def test_a_server_that_dies_and_comes_back_without_the_script(valkey_server: Callable[..., Server],
                                                              caplog: pytest.LogCaptureFixture) -> None:
    server = valkey_server()
    with server.client(retry=None) as client, releaser(client) as letting:
        ledger_of(letting)
        client.set("a", "x", ex=100)
        time.sleep(REST)
        letting.release([idle(b"a", age=REST)])
        until(lambda: letting.stats().released == 1, "a is let go of")
        server.kill()
        letting.missed(b"a")
        letting.release([idle(b"b", age=REST)])
        until(lambda: "could not be released" in caplog.text, "the trouble is logged")
        server.start()
        client.set("c", "x", ex=100)
        time.sleep(REST)
        letting.release([idle(b"c", age=REST)])
        until(lambda: client.exists("c") == 0, "it goes on without a restart")
    assert not [record for record in caplog.records if record.levelno > logging.WARNING]


def test_in_a_cluster_marks_lie_beside_their_keys(cluster: Cluster) -> None:
    keys = [b"a", b"b", b"c", b"x{tag}y", b"odd}", b"{}empty"]
    with cluster.client() as client, releaser(client) as mine, releaser(client) as other:
        ledger = ledger_of(mine)
        told: list[int] = []
        ledger.lost = lambda number: told.append(number) or True  # type: ignore[method-assign, func-returns-value]
        for key in keys:
            client.set(key, "x", ex=1000)
        time.sleep(REST)
        mine.release([idle(key, age=REST, window_left=1000.0) for key in keys])
        until(lambda: mine.stats().released == 4, "four are let go of")
        assert [client.exists(key) for key in keys] == [0, 0, 0, 0, 1, 1]      # beside these no mark can lie
        for key in keys:
            other.missed(key)
        until(lambda: len(told) == 4, "four losses are told")
        assert sorted(told) == sorted(ledger.number(key) for key in keys[:4])
        assert mine.stats().waiting == 2        # until their windows are over


@pytest.mark.parametrize("key", [b"a", b"a{b}c", b"{b", b"a{}b", b"}", b"", b"{{b}}", b"a{b}{c}"])
def test_a_mark_is_in_the_slot_of_its_key(key: bytes) -> None:
    name = mark(b"adaptcache", key)
    assert name is None or key_slot(name) == key_slot(key)
    assert (name is None) == (key in (b"a{}b", b"}", b""))


def test_a_whole_way_from_a_learned_ledger_to_the_server(valkey: Server) -> None:
    """Entries that are worth four seconds' rent go; one that is asked for stays."""
    with valkey.client() as client, releaser(client) as letting:
        ledger = Ledger(Learned(memory_price=0.25, seed=1, premature=0.0), on_release=letting.release)
        letting.attach(ledger)
        for at in range(30):
            client.set(f"k{at}", "x", ex=600)
            ledger.put(b"k%d" % at, cost=1.0, ttl=600.0)
        def only_one_is_left() -> bool:
            assert client.get("k7") == b"x"
            ledger.got(b"k7", True)
            time.sleep(0.2)
            return letting.stats().released == 29
        until(only_one_is_left, "all but one are let go of")
        assert [key for key in client.scan_iter() if key.startswith(b"k")] == [b"k7"]


def test_a_dropped_releaser_ends_its_thread(valkey: Server) -> None:
    with valkey.client() as client:
        letting = Releaser(client)
        letting.missed(b"a")
        thread, dropped = letting._thread, weakref.ref(letting)
        assert thread is not None
        del letting
        until(lambda: (gc.collect(), dropped())[1] is None, "it is collected")
        until(lambda: not thread.is_alive(), "its thread ends")


@pytest.mark.slow
def test_a_forked_child_releases_for_itself(valkey: Server) -> None:
    with valkey.client() as client, releaser(client) as letting:
        letting.missed(b"a")
        client.set("a", "x", ex=100)
        time.sleep(REST)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                assert letting._thread is None
                letting.release([idle(b"a", age=REST)])
                until(lambda: letting.stats().released == 1, "the child lets go of it")
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert client.exists("a") == 0
        assert letting.stats().released == 0
