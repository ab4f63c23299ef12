"""Connections of one's own, made as a redis-py client makes its own: TLS, user, database, Unix sockets, Sentinel.

Only this file and the two drivers know redis-py. The client's connection class is used with the client's arguments to connect and to
say HELLO; what is read and written afterwards is not its business, so neither are its parser, its retries and its decoding.
A source keeps the client's pool (a cluster's
client not even that), never the client.
"""
from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from adaptcache.near.tier import Tier
from adaptcache.near.topology import Node, Place, Topology
from adaptcache.near.watch import Keeper, Lost, Single

LEAST_PATIENCE = 1.0        # seconds for each step of connecting; the window does not rest on it

# Makes a connection that is not connected yet, and what tells where it led once it is.
Dialler = Callable[[Any, float], tuple[Any, Callable[[], object]]]

# Of the client's arguments: what belongs to its own way of reading, and handlers that would act on its connections.
_DROPPED = (
    "cache", "cache_config", "health_check_interval", "legacy_responses", "maint_notifications_config", "maint_notifications_pool_handler",
    "oss_cluster_maint_notifications_handler", "parser_class", "retry", "retry_on_error", "retry_on_timeout", "response_callbacks",
)


def arguments(given: Mapping[str, Any], retry: Any, patience: float, **changed: Any) -> dict[str, Any]:
    """Arguments for a tracking connection, from those of the client's pool. `patience`: seconds for each step of connecting."""
    kept = {name: value for name, value in given.items() if name not in _DROPPED}
    for name in ("socket_timeout", "socket_connect_timeout"):
        own = kept.get(name)
        kept[name] = patience if own is None else min(own, patience)
    return {**kept, "protocol": 3, "decode_responses": False, "retry": retry(NoBackoff(), 0), **changed}


# What connecting, reading and writing raise.
TROUBLE = (OSError, RedisError, Lost)


def lost(error: Exception) -> Lost:
    """Trouble, as a watch is told of it."""
    return error if isinstance(error, Lost) else Lost(error, refused=isinstance(error, ResponseError))


class Crew(Protocol):
    """Who listens, with threads or tasks."""

    def listen(self, keeper: Keeper, dial: Dialler) -> None: ...


class PoolSource:
    """The server of a client's pool; with Sentinel, the primary that the pool knows."""

    def __init__(self, client: Any) -> None:
        pool = client.connection_pool
        if not getattr(pool, "is_master", True):
            raise ValueError("client: reads from the replicas of a Sentinel cannot be kept coherent, since each may lag; pass master_for(...)")
        self._pool = pool
        self._follows = hasattr(pool, "master_address")

    def dial(self, retry: Any, patience: float) -> tuple[Any, Callable[[], object]]:
        """A connection that is not connected yet, and what tells where it led once it is."""
        at = self.where()
        connection = self._pool.connection_class(**arguments(self._pool.connection_kwargs, retry, patience))
        if self._follows:
            # By the time that it is connected the pool may have heard of yet another primary.
            return connection, lambda: (connection.host, connection.port)
        return connection, lambda: at

    def where(self) -> object:
        """The address that the client's connections go to; another one when a Sentinel or the server has named it."""
        if self._follows:
            return self._pool.master_address
        given = self._pool.connection_kwargs
        return given.get("host"), given.get("port"), given.get("path")


class ClusterSource:
    """The nodes of a cluster client. It is not kept: who has dropped it wants nothing any more."""

    def __init__(self, client: Any) -> None:
        if getattr(client, "read_from_replicas", False) or getattr(client, "load_balancing_strategy", None):
            raise ValueError("client: reads from the replicas of a cluster cannot be kept coherent, since each may lag; "
                             "pass a client without read_from_replicas and load_balancing_strategy")
        self._client = weakref.ref(client)

    def _nodes(self) -> list[Any]:
        client = self._client()
        if client is None:
            return []
        # Before the client has asked any server, all that it knows is where to begin.
        return list(client.get_primaries()) or list(client.nodes_manager.startup_nodes.values())

    def known(self) -> list[tuple[str, int]]:
        return [(node.host, int(node.port)) for node in self._nodes()]

    def address(self, place: Place, asked: tuple[str, int]) -> tuple[str, int]:
        """Where to find a node that another one, asked there, has named."""
        known = self.known()
        if (place.hostname, place.port) in known:
            return place.hostname, place.port
        client = self._client()
        found = place.ip or asked[0], place.port
        remapped = found if client is None else client.nodes_manager.remap_host_port(*found)
        return str(remapped[0]), int(remapped[1])

    def dial(self, address: tuple[str, int], retry: Any, patience: float) -> tuple[Any, Callable[[], object]]:
        """A connection to a node, that is not connected yet, and where it leads."""
        client = self._client()
        nodes = self._nodes()
        if client is None or not nodes:
            raise Lost("the client is gone")
        node = nodes[0]
        if hasattr(node, "connection_kwargs"):          # of asyncio
            kind, given = node.connection_class, node.connection_kwargs
        else:
            pool = client.get_redis_connection(node).connection_pool
            kind, given = pool.connection_class, pool.connection_kwargs
        host, port = address
        # The client's own way to say hello is to ask for replicas, and it would keep the client.
        connection = kind(**arguments(given, retry, patience, host=host, port=port, redis_connect_func=None))
        return connection, lambda: address


def source_of(client: Any) -> PoolSource | ClusterSource:
    """Where a client's servers are found. TypeError for what is no client of redis-py's."""
    if hasattr(client, "nodes_manager"):
        return ClusterSource(client)
    if hasattr(client, "connection_pool"):
        return PoolSource(client)
    raise TypeError(f"client: expected a client of redis-py, standalone or cluster, got {type(client).__name__}")


def muster(crew: Crew, tier: Tier, source: PoolSource | ClusterSource) -> None:
    """Let a crew listen to the server, or to every primary of the cluster."""
    if isinstance(source, ClusterSource):
        def recruit(node: Node) -> None:
            crew.listen(node, partial(source.dial, node.address))

        Topology(tier, source, recruit).start()
    else:
        crew.listen(Single(tier, source.where), source.dial)
