"""Calls of a decorated function, beside functools.lru_cache (the floor), cachetools, cachebox and async-lru.

A hit with each kind of arguments, each policy and expiry; our `lru_cache` beside functools'; awaited hits; a stream
of calls that also misses and evicts.
"""
from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import cachebox
import cachetools.func
import pytest
from async_lru import alru_cache

import adaptcache
from adaptcache import Fixed, Learned, cached, policies

CALLS = 1_000
TTL = 3600.0

OURS: dict[str, dict[str, Any]] = {policy: {"policy": policy} for policy in policies()}
OURS |= {"Fixed": {"expiry": Fixed(TTL), "policy": "sieve"}, "Learned": {"expiry": Learned(seed=1), "policy": "sieve"},
         "Learned, adaptive": {"expiry": Learned(seed=1)}}


def answer(question: Any = None, other: Any = None) -> Any:
    return question


def peers(size: int) -> dict[str, Callable[[Any], Any]]:
    return {
        "functools": lru_cache(size),
        "cachetools": cachetools.func.lru_cache(size),
        "cachebox": cachebox.cached(cachebox.LRUCache(size)),
    }


def ttl_peers(size: int) -> dict[str, Callable[[Any], Any]]:
    return {
        "functools": lru_cache(size),
        "cachetools": cachetools.func.ttl_cache(size, TTL),
        "cachebox": cachebox.cached(cachebox.TTLCache(size, TTL)),
    }


def one(function: Callable[..., Any]) -> Callable[[], None]:
    def run() -> None:
        for _ in CALLED:
            function(1)
    return run


def string(function: Callable[..., Any]) -> Callable[[], None]:
    def run() -> None:
        for _ in CALLED:
            function("question")
    return run


def other_objects(function: Callable[..., Any]) -> Callable[[], None]:
    """A hundred keys, of other objects than those of the first calls."""
    for number in range(100):
        function(10**6 + number)
    questions = [10**6 + number % 100 for number in range(CALLS)]

    def run() -> None:
        for question in questions:
            function(question)
    return run


def none(function: Callable[..., Any]) -> Callable[[], None]:
    def run() -> None:
        for _ in CALLED:
            function()
    return run


def two(function: Callable[..., Any]) -> Callable[[], None]:
    def run() -> None:
        for _ in CALLED:
            function("a", 2)
    return run


def keyword(function: Callable[..., Any]) -> Callable[[], None]:
    def run() -> None:
        for _ in CALLED:
            function(1, other=2)
    return run


def keyword_alone(function: Callable[..., Any]) -> Callable[[], None]:
    def run() -> None:
        for _ in CALLED:
            function(question=1)
    return run


def two_keywords(function: Callable[..., Any]) -> Callable[[], None]:
    def run() -> None:
        for _ in CALLED:
            function(question=1, other=2)
    return run


def method(function: Callable[..., Any]) -> Callable[[], None]:
    service = type("Service", (), {"method": function})()

    def run() -> None:
        for _ in CALLED:
            service.method(1)
    return run


CALLS_OF = {
    "one argument": one, "a string": string, "100 keys, other objects": other_objects, "no argument": none, "two arguments": two,
    "one and a keyword": keyword, "a keyword": keyword_alone, "two keywords": two_keywords, "method": method,
}


CALLED = [None] * CALLS


@pytest.mark.parametrize("name", OURS)
def test_decorated_hit(contest: Callable[..., Any], name: str) -> None:
    """The same call with one argument, answered from the cache."""
    others = ttl_peers(128) if "expiry" in OURS[name] else peers(128)
    ours = cached(maxsize=128, **OURS[name])(answer)
    contest("decorated hit", name, one(ours), {peer: one(decorate(answer)) for peer, decorate in others.items()}, CALLS,
            aims={"functools": {"Learned": 1.2, "sieve": 0.9}[name]} if name in {"Learned", "sieve"} else {})
    assert ours.cache_info().misses == 1


@pytest.mark.parametrize("name", [name for name in CALLS_OF if name != "one argument"])
def test_decorated_hit_arguments(contest: Callable[..., Any], name: str) -> None:
    """Called with other arguments than one small int."""
    ours, call = cached(policy="sieve")(answer), CALLS_OF[name]
    # (cachebox's decorator is no descriptor.)
    others = {peer: decorate for peer, decorate in peers(128).items() if peer != "cachebox" or name != "method"}
    contest("decorated hit", name, call(ours), {peer: call(decorate(answer)) for peer, decorate in others.items()}, CALLS,
            aims={"functools": 1.1} if name in {"two arguments", "one and a keyword", "a keyword"} else {})
    assert ours.cache_info().misses in {1, 100}


@pytest.mark.parametrize("name", ["two arguments", "one and a keyword", "100 keys, other objects"])
def test_decorated_hit_arguments_learned(contest: Callable[..., Any], name: str) -> None:
    call = CALLS_OF[name]
    ours = cached(expiry=Learned(seed=1), policy="sieve")(answer)
    contest("decorated hit, Learned", name, call(ours),
            {peer: call(decorate(answer)) for peer, decorate in ttl_peers(128).items()}, CALLS)


@pytest.mark.parametrize("name", CALLS_OF)
def test_lru_cache_hit(contest: Callable[..., Any], name: str) -> None:
    """Our `lru_cache` in place of functools'."""
    ours, call = adaptcache.lru_cache(128)(answer), CALLS_OF[name]
    contest("lru_cache hit", name, call(ours), {"functools": call(lru_cache(128)(answer))}, CALLS)
    assert ours.cache_info().misses in {1, 100}


@pytest.mark.parametrize("maxsize", [1_000, 0])
def test_lru_cache_miss(contest: Callable[..., Any], maxsize: int) -> None:
    number = iter(range(10**9))

    def calls(function: Callable[..., Any]) -> Callable[[list[int]], None]:
        def run(fresh: list[int]) -> None:
            for question in fresh:
                function(question)
        return run

    ours = adaptcache.lru_cache(maxsize)(answer)
    contest("lru_cache miss", f"maxsize {maxsize}", calls(ours), {"functools": calls(lru_cache(maxsize)(answer))}, CALLS,
            prepare=lambda: [next(number) for _ in range(CALLS)])
    assert ours.cache_info().hits == 0


@pytest.mark.parametrize("name", ["sieve", "Fixed", "Learned"])
def test_awaited_hit(contest: Callable[..., Any], name: str) -> None:
    """A cached coroutine function, awaited in a running loop."""
    async def answer(question: Any) -> Any:
        return question

    def awaits(function: Callable[..., Any]) -> Callable[[], None]:
        async def calls() -> None:
            for _ in CALLED:
                await function(1)
        return lambda: loop.run_until_complete(calls())

    ours = cached(maxsize=128, **OURS[name])(answer)
    theirs = alru_cache(128, ttl=None if name == "sieve" else TTL)(answer)
    loop = asyncio.new_event_loop()
    try:
        contest("awaited hit", name, awaits(ours), {"async-lru": awaits(theirs)}, CALLS, aims={} if name == "Fixed" else {"async-lru": 1.0})
        loop.run_until_complete(theirs.cache_close())
    finally:
        loop.close()
    assert ours.cache_info().misses == 1


@pytest.mark.parametrize("name", OURS)
def test_decorated_miss(contest: Callable[..., Any], name: str) -> None:
    """Calls with arguments never seen before in a full cache: the load, its guard against stampedes, an eviction."""
    others = ttl_peers(1_000) if "expiry" in OURS[name] else peers(1_000)
    number = iter(range(10**9))

    def calls(function: Callable[..., Any]) -> Callable[[list[int]], None]:
        def run(fresh: list[int]) -> None:
            for question in fresh:
                function(question)
        return run

    ours = cached(maxsize=1_000, **OURS[name])(answer)
    contest("decorated miss", name, calls(ours), {peer: calls(decorate(answer)) for peer, decorate in others.items()}, 200,
            prepare=lambda: [next(number) for _ in range(200)])
    assert ours.cache_info().hits == 0
