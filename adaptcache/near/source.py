"""Connections of one's own, made as a redis-py client makes its own: TLS, user, database, Unix sockets, Sentinel.

Only this file and the two drivers know redis-py. The client's connection class is used with the client's arguments to connect and to
say HELLO; what is read and written afterwards is not its business, so neither are its parser, its retries and its decoding.
A source keeps the client's pool, never the client.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from redis.backoff import NoBackoff

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
