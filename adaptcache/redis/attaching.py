"""How a client comes to its watcher, for sync and asyncio clients alike.

`adapt` is a keyword of the clients. Where redis-py makes a client by way of a pool (`from_url`, `Sentinel.master_for`), what is
said to it travels as one of the pool's connection arguments, and is taken out here before the pool makes a connection.
"""
from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter, itemgetter
from types import FunctionType, ModuleType
from typing import Any

from adaptcache.redis import address
from adaptcache.redis.commands import Args
from adaptcache.redis.nearby import Nearby
from adaptcache.redis.options import Adapt
from adaptcache.redis.watcher import Watcher, watcher_of

ADAPT = "adapt"


def carried(arguments: Iterable[Any], options: Mapping[str, Any], adapt: Adapt | str | None) -> Adapt | None:
    """What the constructor of a client was told of `adapt`, directly or by its pool."""
    for pool in (options.get("connection_pool"), *arguments):
        given = getattr(pool, "connection_kwargs", None)
        if isinstance(given, dict) and ADAPT in given:
            by_pool = given.pop(ADAPT)
            adapt = by_pool if adapt is None else adapt
    return Adapt.parse(adapt)


def to_pool(pool: Any, adapt: Adapt | None) -> Watcher:
    return watcher_of(pool, address.of_pool, adapt, pool.get_encoder)


def to_cluster(client: Any, adapt: Adapt | None) -> Watcher:
    return watcher_of(client, lambda its: address.of_cluster(its.nodes_manager), adapt, client.get_encoder)


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
