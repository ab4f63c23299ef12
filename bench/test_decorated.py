"""Calls of a decorated function, beside functools.lru_cache (the floor), cachetools and cachebox.

A hit with each kind of arguments, each policy and expiry; a stream of calls that also misses and evicts.
"""
from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import cachebox
import cachetools.func
import pytest

from adaptcache import Fixed, Learned, cached, policies

CALLS = 1_000
TTL = 3600.0

OURS: dict[str, dict[str, Any]] = {policy: {"policy": policy} for policy in policies()}
OURS |= {"Fixed": {"expiry": Fixed(TTL)}, "Learned": {"expiry": Learned(seed=1)}}


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


CALLED = [None] * CALLS


@pytest.mark.parametrize("name", OURS)
def test_decorated_hit(contest: Callable[..., Any], name: str) -> None:
    """The same call with one argument, answered from the cache."""
    others = ttl_peers(128) if "expiry" in OURS[name] else peers(128)
    ours = cached(maxsize=128, **OURS[name])(answer)
    contest("decorated hit", name, one(ours), {peer: one(decorate(answer)) for peer, decorate in others.items()}, CALLS)
    assert ours.cache_info().misses == 1


@pytest.mark.parametrize("call", [two, keyword], ids=["two arguments", "one and a keyword"])
def test_decorated_hit_arguments(contest: Callable[..., Any], call: Callable[..., Any], request: pytest.FixtureRequest) -> None:
    """The default policy, called with more than one argument."""
    ours = cached(answer)
    name = request.node.callspec.id
    contest("decorated hit", name, call(ours), {peer: call(decorate(answer)) for peer, decorate in peers(128).items()}, CALLS)
    assert ours.cache_info().misses == 1


def test_decorated_hit_method(contest: Callable[..., Any]) -> None:
    """A method, called on its instance."""

    def called(decorate: Callable[[Any], Any]) -> Callable[[], None]:
        service = type("Service", (), {"method": decorate(lambda self, question: question)})()

        def run() -> None:
            for _ in CALLED:
                service.method(1)
        return run

    others = {peer: decorate for peer, decorate in peers(128).items() if peer != "cachebox"}
    contest("decorated hit", "method", called(cached), {peer: called(decorate) for peer, decorate in others.items()}, CALLS)


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
