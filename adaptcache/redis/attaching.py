"""How a client comes to its watcher, for sync and asyncio clients alike.

`adapt` is a keyword of the clients. Where redis-py makes a client by way of a pool (`from_url`, `Sentinel.master_for`), what is
said to it travels as one of the pool's connection arguments, and is taken out here before the pool makes a connection.
"""
from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter, itemgetter
from types import FunctionType, ModuleType
from typing import Any

from adaptcache.redis import address as addresses
from adaptcache.redis.address import Address
from adaptcache.redis.commands import Args
from adaptcache.redis.nearby import Nearby
from adaptcache.redis.options import DEFAULT, Adapt
from adaptcache.redis.patrol import PATROL
from adaptcache.redis.watcher import Watcher

ADAPT = "adapt"
_registry = threading.RLock()


def carried(arguments: Iterable[Any], options: Mapping[str, Any], adapt: Adapt | str | None) -> Adapt | None:
    """What the constructor of a client was told of `adapt`, directly or by its pool."""
    for pool in (options.get("connection_pool"), *arguments):
        given = getattr(pool, "connection_kwargs", None)
        if isinstance(given, dict) and ADAPT in given:
            by_pool = given.pop(ADAPT)
            adapt = by_pool if adapt is None else adapt
    return Adapt.parse(adapt)


def to_pool(pool: Any, adapt: Adapt | None) -> Watcher:
    return watcher_of(pool, addresses.of_pool, adapt, pool.get_encoder)


def to_cluster(client: Any, adapt: Adapt | None) -> Watcher:
    return watcher_of(client, lambda its: addresses.of_cluster(its.nodes_manager), adapt, client.get_encoder)


def nearby(client: Any, watcher: Watcher) -> Nearby | None:
    """What the client may answer by itself; nothing, if one connection of its own may be within a transaction."""
    if watcher.adapt.near is None or getattr(client, "_single_connection_client", getattr(client, "single_connection_client", False)):
        return None
    return Nearby(watcher, client.get_connection_kwargs())


def keyword(init: Callable[..., Any], parent: Callable[..., Any]) -> None:
    """Let the signature of `init` be that of redis-py's constructor with `adapt`."""
    given = inspect.signature(parent)
    parameters = list(given.parameters.values())
    at = len(parameters) - (parameters[-1].kind is inspect.Parameter.VAR_KEYWORD)
    parameters.insert(at, inspect.Parameter(ADAPT, inspect.Parameter.KEYWORD_ONLY, default=None, annotation="Adapt | str | None"))
    init.__signature__ = given.replace(parameters=parameters)   # type: ignore[attr-defined]


def original(method: Any, module: ModuleType) -> Any:
    """A method of redis-py's, unless somebody (a tracer, say) has put another in its place: then None."""
    return method if isinstance(method, FunctionType) and method.__globals__ is vars(module) else None


# The commands that a pipeline holds: redis-py keeps them as tuples in a pipeline, as objects in a cluster's.
of_stack: Callable[[Any], Args] = itemgetter(0)
of_queue: Callable[[Any], Args] = attrgetter("args")


def queue_of(pipeline: Any) -> list[Any]:
    """What a cluster's pipeline holds, in any version of redis-py."""
    holder = getattr(pipeline, "_execution_strategy", pipeline)
    for name in ("_command_queue", "_command_stack", "command_stack"):
        held = getattr(holder, name, None)
        if held is not None:
            return list(held)
    return []


def watcher_of(place: Any, address: Callable[[Any], Address], adapt: Adapt | None, encoder: Callable[[], Any]) -> Watcher:
    """The watcher of a pool or of a cluster's client; made by its first client.

    It hangs on the pool itself, so that it goes with it. Without `adapt` a client joins what is there.
    """
    with _registry:
        there: Watcher | None = getattr(place, "_adaptcache_watcher", None)
        if there is not None:
            if adapt is not None and adapt != there.adapt:
                raise ValueError(f"adapt: the connection pool's clients are watched with {there.adapt!r} already; "
                                 "give the same, or none, or a pool of its own")
            return there
        where = address(place)
        wanted = adapt or DEFAULT
        for watcher in list(PATROL.watchers):
            if isinstance(watcher, Watcher) and watcher.address == where and watcher.adapt == wanted and watcher.mode == wanted.mode:
                there = watcher
                break
        else:
            there = Watcher(where, wanted, _encoding(encoder()))
        place._adaptcache_watcher = there
        return there


def _encoding(encoder: Any) -> Callable[[Any], bytes]:
    """Keys as the server knows them."""

    def encode(key: Any) -> bytes:
        return key if type(key) is bytes else bytes(encoder.encode(key))

    return encode


def _after_fork() -> None:
    global _registry
    _registry = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
