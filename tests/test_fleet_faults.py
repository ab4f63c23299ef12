"""Faults of a fleet that only processes can have: killed, stopped and resumed learners, a server that comes back empty."""
from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from fleets import Process
from servers import Server, mortal
from servers import until as within

from adaptcache.fleet import models
from adaptcache.fleet.models import About
from adaptcache.fleet.names import Names

NAME = "faults"
NAMES = Names(NAME)
LOCK = 2.0          # seconds that a lock of these processes lasts
MARGIN = 15.0        # on a machine that does other things at the same time


def until(true: Callable[[], Any], what: str, patience: float = 60.0) -> Any:
    try:
        return within(true, what, patience)
    except AssertionError as error:
        said = "; ".join(f"{each.pid} {each.events[-6:]}" for each in Process.running)
        raise AssertionError(f"{error}: {said}") from None


def published(server: Server) -> About | None:
    with server.client() as client:
        body = client.hget(NAMES.model, "body")
    return None if body is None else models.loads(body)[1]


def learner_of(workers: list[Process]) -> Process:
    """Who learns now; it has published and everybody has installed."""
    until(lambda: all(each.heard("model_installed") for each in workers), "all have a model")
    return next(each for each in workers if each.heard("learner_elected") and not each.heard("learner_lost"))


@pytest.mark.slow
def test_a_killed_learner_is_replaced_in_about_the_locks_time(valkey_server: Callable[..., Server]) -> None:
    server = valkey_server()
    with Process(server.url, NAME, 1) as one, Process(server.url, NAME, 2) as two:
        first = learner_of([one, two])
        other = two if first is one else one
        before = published(server)
        assert before is not None and before.fence == 1
        os.kill(first.pid, signal.SIGKILL)
        began = time.monotonic()
        until(lambda: other.heard("learner_elected"), "the other one takes over", LOCK * 4 / 3 + MARGIN)
        assert time.monotonic() - began >= LOCK / 2 - 0.5, "the lock was still held"
        assert other.heard("learner_elected")["fence"] >= 2
        until(lambda: (published(server) or before).fence >= 2, "it publishes")
        after = published(server)
        assert after is not None and after.events > before.events, "it went on from the model that was there"


@pytest.mark.slow
def test_a_learner_that_was_stopped_and_comes_back_publishes_nothing(valkey_server: Callable[..., Server]) -> None:
    server = valkey_server()
    with Process(server.url, NAME, 1) as one, Process(server.url, NAME, 2) as two:
        first = learner_of([one, two])
        other = two if first is one else one
        os.kill(first.pid, signal.SIGSTOP)
        until(lambda: (published(server) or About(0, 0, 0, 0, "0-0", 0, "0-0", 0, "")).fence >= 2, "the other one has taken over and published")
        version = published(server)
        heard = len(first.events)
        os.kill(first.pid, signal.SIGCONT)
        until(lambda: first.heard("learner_lost"), "it finds out")
        until(lambda: first.heard("model_installed", heard), "and learns from the other one")
        assert first.heard("model_published", heard) is None
        last = published(server)
        assert last is not None and version is not None and last.fence >= version.fence
        assert other.heard("model_refused") is None


@pytest.mark.slow
def test_a_server_that_comes_back_empty_is_filled_again_and_fences_go_on(valkey_server: Callable[..., Server]) -> None:
    server = valkey_server()
    with Process(server.url, NAME, 1) as one, Process(server.url, NAME, 2) as two:
        learner_of([one, two])
        before = published(server)
        assert before is not None
        server.kill()
        for each in (one, two):
            until(lambda each=each: each.heard("cut_off"), "it notices")
        heard = [len(each.events) for each in (one, two)]
        server.start()
        for each, since in zip((one, two), heard, strict=True):
            until(lambda each=each, since=since: each.heard("back", since), "it is back")
            until(lambda each=each, since=since: each.heard("model_installed", since), "it has a model again")
        after = published(server)
        assert after is not None and after.fence > before.fence, "no worker would take a model of a fence that it has seen"
        assert one.process.poll() is None and two.process.poll() is None


@pytest.mark.slow
def test_a_model_that_is_damaged_on_the_server_is_replaced_by_the_next_one(valkey_server: Callable[..., Server]) -> None:
    server = valkey_server()
    with Process(server.url, NAME, 1, publish=3.0) as one, Process(server.url, NAME, 2, publish=3.0) as two:
        learner_of([one, two])
        with server.client() as client:
            client.hset(NAMES.model, mapping={"body": b"adaptcache fleet model 1\n" + b"0" * 200, "version": 999})
        heard = [len(each.events) for each in (one, two)]
        for each, since in zip((one, two), heard, strict=True):
            until(lambda each=each: each.heard("model_refused"), "it is refused")
            until(lambda each=each, since=since: each.heard("model_installed", since), "and the next one is not")


@pytest.mark.slow
def test_a_learner_of_its_own_takes_part_in_the_election_and_top_shows_it(valkey_server: Callable[..., Server]) -> None:
    server = valkey_server()
    command = [sys.executable, "-P", "-m", "adaptcache"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with Process(server.url, NAME, 1, learn=0) as one:
        alone = subprocess.Popen(mortal(*command, "learner", server.url, "--name", NAME, "--publish", "0.5", "--lock-time", "1"), env=env, text=True,
                                 stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        try:
            until(lambda: one.heard("model_installed"), "it learns for the worker")

            def look() -> dict:
                said = subprocess.run([*command, "top", server.url, "--name", NAME, "--once", "--json"], env=env, capture_output=True, check=True)
                return json.loads(said.stdout)

            seen = until(lambda: (lambda seen: seen if seen["workers"] and seen["workers"][0]["version"] and seen["learner"] else None)(look()),
                         "top shows worker and learner")
            assert seen["learner"]["role"] == "learner" and seen["learner"]["fence"] == seen["lock"]["fence"] == seen["fence"] >= 1
            assert seen["model"]["bytes"] > 1000 and seen["stream"] > 0 and seen["total"]["premature"] + seen["total"]["in_flight"] <= seen["total"]["budget"]

            def page() -> str:
                return subprocess.run([*command, "top", server.url, "--name", NAME, "--once"], env=env, capture_output=True, check=True, text=True).stdout

            until(lambda: all(word in page() for word in ("a process of its own", "promise", "weights", "batches")), "the page shows it all")
            alone.send_signal(signal.SIGTERM)
            assert alone.wait(20) == 0
            assert alone.stdout is not None and "learner_elected: " in alone.stdout.read()
            with server.client() as client:
                assert not client.exists(NAMES.lock), "it leaves the office at once"
        finally:
            alone.kill()
            alone.wait()
            assert alone.stdout is not None
            alone.stdout.close()


def test_top_says_that_the_server_is_down(valkey_server: Callable[..., Server]) -> None:
    server = valkey_server()
    server.kill()
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    said = subprocess.run([sys.executable, "-P", "-m", "adaptcache", "top", server.url, "--once"], env=env, capture_output=True, text=True)
    assert said.returncode == 1 and "does not answer" in said.stderr and "Traceback" not in said.stderr
    for arguments, error in ((["top", "localhost"], "not a URL"), (["learner", server.url, "--name", "a b"], "letters, digits")):
        said = subprocess.run([sys.executable, "-P", "-m", "adaptcache", *arguments], env=env, capture_output=True, text=True)
        assert said.returncode == 2 and error in said.stderr
