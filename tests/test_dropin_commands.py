"""What a command does to which keys, and which keys a pattern names: held against what real servers do and say."""
from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import Server

from adaptcache import Learned
from adaptcache import redis as ours
from adaptcache.redis import Adapt
from adaptcache.redis.commands import MISS, NOTHING, PLANS, SINGLE, STRANGER, Options, plan_of, size
from adaptcache.redis.options import Scope, _regex


@pytest.mark.parametrize("spelling", ["get", "Get", b"GET", b"get", "  get ", bytearray(b"gEt"), memoryview(b"get")])
def test_a_command_is_known_however_it_is_spelled(spelling: Any) -> None:
    plan, args = plan_of((spelling, "k"))
    assert plan is PLANS["GET"] and args[1] == "k"


def test_arguments_in_the_name_are_found() -> None:
    assert plan_of(("SET k v EX", 10))[1] == ("SET", "k", "v", "EX", 10)
    assert plan_of(("config get", "x"))[0] is NOTHING
    assert plan_of(("OBJECT ENCODING", "x"))[0] is NOTHING
    assert plan_of(("FT.SEARCH", "x"))[0] is STRANGER
    assert plan_of(("", "x"))[0] is STRANGER and plan_of((None, "x"))[0] is STRANGER


def test_what_may_write_and_is_not_known_names_whatever_may_be_a_key() -> None:
    plan, args = plan_of(("NEW.WRITE", "k", b"l", 7, "x" * 2000))
    assert plan.writes and plan.keys(args) == ("k", b"l") == plan.pack(args, b"OK")


@pytest.mark.parametrize(("words", "expected"), [
    (("EX", 10), (10_000, False)), ((b"px", b"10"), (10, False)), (("EXAT", "100"), (100_000, True)), (("NX", "PXAT", 5, "GET"), (5, True)),
    (("KEEPTTL",), (None, False)), (("IFEQ", "EX", "EX", 3), (3000, False)), ((), (None, False)),
])
def test_options_are_read_as_the_server_reads_them(words: Any, expected: tuple[float | None, bool]) -> None:
    options = Options(words)
    assert (options.milliseconds, options.absolute) == expected


@pytest.mark.parametrize(("value", "expected"), [("abc", 3), (b"abc", 3), (12345, 5), (1.5, 3), (memoryview(b"abcd"), 4), (object(), 0)])
def test_a_size_is_that_of_what_is_sent(value: Any, expected: int) -> None:
    assert size(value) == expected


def test_every_command_of_the_server_that_writes_is_taken_to_write(server: Server) -> None:
    """By the server's own table of flags: what is `write` there is not a read, and not nothing, here."""
    with server.client() as client:
        table = client.execute_command("COMMAND")
    for name, told in table.items():
        plan = plan_of((name,))[0]
        flags = {one.decode() if isinstance(one, bytes) else str(one) for one in told["flags"]}
        if "write" in flags:
            assert plan.writes, name
        elif plan is not STRANGER:
            assert not plan.writes or name.upper() in ("SWAPDB",), name
        if name.upper() in SINGLE:
            assert told["first_key_pos"] == told["last_key_pos"] == 1, name


def test_answers_are_hits_and_misses_as_they_are(server: Server) -> None:
    with server.client() as client:
        client.set("s", "abc")
        client.hset("h", "f", "v")
        client.rpush("l", 1)
        client.sadd("set", 1)
        for args, expected in [
            (("GET", "s"), 3), (("GET", "none"), MISS), (("HGETALL", "h"), 0), (("HGETALL", "none"), MISS), (("SMEMBERS", "set"), 0),
            (("SMEMBERS", "none"), MISS), (("LLEN", "none"), MISS), (("STRLEN", "s"), 0), (("LRANGE", "l", 0, -1), 0),
            (("LRANGE", "l", 5, 9), None), (("HGET", "h", "none"), None), (("HGET", "h", "f"), 0),
        ]:
            noted = PLANS[args[0]].pack(args, client.execute_command(*args))
            assert (None if noted is None else noted[1]) == expected, args


ALPHABET = st.sampled_from([*"ab*?[]^-\\:!", "[ab]", "[^a]", "[a-c]", "\\*"])


@pytest.fixture(scope="module")
def names(_valkey: Server) -> Iterator[redis.Redis]:
    with _valkey.client(db=9) as client:
        yield client
        client.flushdb()


@settings(deadline=None)
@given(parts=st.lists(ALPHABET, max_size=6), key=st.text(alphabet="abc*?[]^-\\:", min_size=1, max_size=5))
def test_a_pattern_names_what_it_names_for_the_command_keys(names: redis.Redis, parts: list[str], key: str) -> None:
    pattern = "".join(parts)
    names.flushdb()
    names.set(key, 1)
    assert bool(re.fullmatch(_regex(pattern.encode()), key.encode(), re.DOTALL)) == bool(names.keys(pattern)), (pattern, key)


def test_the_last_pattern_that_matches_decides() -> None:
    scope = Scope(["!*", "page:*", b"!page:secret"])
    assert scope.of(b"page:1") == (True, "page:*")
    assert scope.of(b"page:secret") == (False, "page:secret")
    assert scope.of(b"other") == (False, "*")
    assert Scope(None).of(b"user:1:x") == (None, "user:*") and Scope(()).of(b"plain") == (None, "*")


def some_commands(rnd: random.Random) -> list[tuple[Any, ...]]:
    """Drawn evenly, so that no command and no option is left out for long; hypothesis prefers the simple."""
    key = lambda: rnd.choice("abc")                 # noqa: E731
    seconds = lambda: rnd.randint(50, 99)           # noqa: E731
    kinds = [
        lambda: ("SET", key(), "v"),
        lambda: ("SET", key(), "v", "EX", seconds()),
        lambda: ("SET", key(), "v", rnd.choice(["XX", "KEEPTTL", "GET", "NX"])),
        lambda: ("SET", key(), "v", "PX", 1000 * seconds(), rnd.choice(["XX", "GET", "NX"])),
        lambda: ("SET", key(), "v", rnd.choice(["EXAT", "exat"]), int(time.time()) + seconds()),
        lambda: ("SETEX", key(), seconds(), "v"),
        lambda: ("PSETEX", key(), 1000 * seconds(), "v"),
        lambda: (rnd.choice(["GETSET", "SETNX"]), key(), "w"),
        lambda: ("EXPIRE", key(), rnd.choice([0, 60, 90]), *rnd.choice([(), ("NX",), ("XX",), ("GT",), ("LT",)])),
        lambda: ("PEXPIRE", key(), rnd.choice([0, 60_000, 90_000]), *rnd.choice([(), ("NX",), ("XX",), ("GT",), ("LT",)])),
        lambda: ("EXPIREAT", key(), int(time.time()) + seconds()),
        lambda: ("PEXPIREAT", key(), 1000 * (int(time.time()) + seconds())),
        lambda: (rnd.choice(["PERSIST", "GETDEL", "GET", "DEL", "UNLINK", "GETEX", "INCR", "HGETALL", "EXISTS"]), key()),
        lambda: ("GETEX", key(), *rnd.choice([("EX", seconds()), ("PX", 1000 * seconds()), ("PERSIST",)])),
        lambda: (rnd.choice(["RENAME", "RENAMENX", "COPY"]), key(), key()),
        lambda: ("COPY", key(), key(), "REPLACE"),
        lambda: ("HSET", key(), "f", "v"),
        lambda: ("MSET", key(), "v", key(), "v"),
        lambda: ("APPEND", key(), "x"),
        lambda: ("EVAL", "return redis.call('SET', KEYS[1], 'x', 'EX', 70)", 1, key()),
        lambda: ("FLUSHDB",) if rnd.random() < 0.2 else ("TTL", key()),
    ]
    return [rnd.choice(kinds)() for _ in range(rnd.randint(1, 12))]


@settings(deadline=None)
@given(seed=st.integers(0, 1 << 32), piped=st.sampled_from(["", "pipeline", "transaction"]))
def test_what_is_taken_for_a_keys_expiry_is_the_servers(watched: ours.Redis, seed: int, piped: str) -> None:
    """After any commands: each key that is followed is there, and ends when the server says."""
    commands = some_commands(random.Random(seed))
    watched.flushdb()
    for key, seconds in (("a", 77), ("b", 88)):
        watched.set(key, "v", ex=seconds)
    if piped:
        with watched.pipeline(transaction=piped == "transaction") as pipe, suppress(redis.ResponseError):
            for args in commands:
                pipe.execute_command(*args)
            pipe.execute(raise_on_error=False)
    else:
        for args in commands:
            with suppress(redis.ResponseError):
                watched.execute_command(*args)
    watched.adapt.flush()
    now = time.monotonic()
    follower = watched._watcher._follower
    for key, entry in follower.entries.items():
        left = watched.execute_command("PTTL", key)
        assert left > 0, (key, left)
        assert entry.ends - now == pytest.approx(left / 1000, abs=2.0)
    assert watched.adapt.report().trouble == "" and watched.adapt.mode == "observe"


@pytest.fixture(scope="module")
def watched(_valkey: Server) -> Iterator[ours.Redis]:
    with ours.Redis(port=_valkey.port, db=8, adapt=Adapt(expiry=Learned(learner="manual", seed=1))) as client:
        yield client
        client.flushdb()
        client.adapt.close()
