"""Where a client's commands go, and a plain client of our own to the same place.

A watcher asks and unlinks over connections of its own, never over the application's. Whatever the application's client
is (sync or asyncio, a pool, a sentinel's pool, a cluster), ours is a sync client of redis-py's own classes with short
time-outs and no retries: nobody waits for it, and what it does not get it does without.

This file does not know what is watched.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import redis
import redis.client
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

TIMEOUT = 1.0           # seconds, of our own connections

# What of the application's connections ours must share to reach the same data.
_SHARED = ("host", "port", "path", "db", "username", "password", "credential_provider", "socket_keepalive", "socket_keepalive_options",
           "socket_type")


@dataclass(frozen=True)
class Address:
    """A server, a sentinel's service or a cluster. `identity` is equal for clients that speak of the same keys."""

    label: str
    identity: tuple[Any, ...]
    writes: bool                            # False: a replica
    connect: Callable[[], Any] = field(compare=False)       # a new client of ours; its owner closes it


def of_pool(pool: Any) -> Address:
    """The address of a connection pool, sync or asyncio."""
    given = getattr(pool, "connection_kwargs", None)
    if not isinstance(given, Mapping):
        return _nowhere(pool)
    encoding = (given.get("encoding", "utf-8"), given.get("encoding_errors", "strict"))
    manager = getattr(pool, "sentinel_manager", None)
    if manager is not None:
        if not all(hasattr(one, "connection_pool") for one in manager.sentinels):
            return _nowhere(pool)
        nodes = tuple((one.connection_pool.connection_kwargs.get("host"), one.connection_pool.connection_kwargs.get("port"))
                      for one in manager.sentinels)
        name, primary = pool.service_name, bool(pool.is_master)
        own = dict(manager.sentinel_kwargs)
        options = _options(given)
        return Address(f"{name} ({', '.join(f'{host}:{port}' for host, port in nodes)})",
                       ("sentinel", name, primary, frozenset(nodes), given.get("db", 0), *encoding), primary,
                       lambda: _by_sentinel(name, primary, nodes, own, options))
    kind = _connection_class(pool.connection_class, given)
    options = _options(given)
    if "path" in options:
        where = str(options["path"])
    else:
        where = f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
    db = options.get("db", 0) or 0
    user = options.get("username")
    return Address(f"{where}/{db}", ("server", where, db, user, kind, *encoding), True, lambda: _single(kind, options))


def of_cluster(manager: Any) -> Address:
    """The address of a cluster client, by its nodes manager."""
    nodes, given = getattr(manager, "startup_nodes", None), getattr(manager, "connection_kwargs", None)
    if not isinstance(nodes, (Mapping, list, tuple)) or not isinstance(given, Mapping):
        return _nowhere(manager)
    starts = tuple((one.host, int(one.port)) for one in (nodes.values() if isinstance(nodes, Mapping) else nodes))
    encoding = (given.get("encoding", "utf-8"), given.get("encoding_errors", "strict"))
    options = _options(given)
    for name in ("host", "port", "db", "path"):
        options.pop(name, None)
    tls = given.get("ssl") is True or "SSL" in getattr(given.get("connection_class"), "__name__", "")
    return Address(f"cluster at {', '.join(f'{host}:{port}' for host, port in starts[:3])}",
                   ("cluster", frozenset(starts), *encoding), True, lambda: _cluster(starts, tls, options))


def _nowhere(place: Any) -> Address:
    """A pool of the user's own making, which does not say where it leads: what passes is seen, and nothing is asked."""

    def connect() -> Any:
        raise redis.ConnectionError("the client's connection pool does not tell where it leads")

    return Address(f"an unknown server ({type(place).__name__})", ("unknown", id(place)), False, connect)


def _options(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name in _SHARED or (name.startswith("ssl_") and "ocsp" not in name)}


def _connection_class(kind: Any, given: Mapping[str, Any]) -> type[Any]:
    """The sync class whose connections reach what those of `kind` reach."""
    if "path" in given:
        return redis.UnixDomainSocketConnection
    if "SSL" in getattr(kind, "__name__", "") or any(name.startswith("ssl_") for name in given):
        return redis.SSLConnection
    return redis.Connection


class _Pipeline(redis.client.Pipeline):
    """See `_Client`."""

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        self.connection = self.connection_pool.get_connection()
        try:
            return list(self._execute_pipeline(self.connection, self.command_stack, raise_on_error))
        except (redis.ConnectionError, redis.TimeoutError):
            self.connection.disconnect()
            raise
        finally:
            self.reset()


class _Client(redis.Redis):
    """A client that is in none of redis-py's own metrics, which are the application's."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        connection = self.connection_pool.get_connection()
        try:
            connection.send_command(*args)
            return self.parse_response(connection, args[0], **options)
        except (redis.ConnectionError, redis.TimeoutError):
            connection.disconnect()     # an answer that comes late must not be taken for another's
            raise
        finally:
            self.connection_pool.release(connection)

    def pipeline(self, transaction: Any = True, shard_hint: Any = None) -> Any:
        return _Pipeline(self.connection_pool, self.response_callbacks, False, None)


def _quick() -> dict[str, Any]:
    return {"socket_timeout": TIMEOUT, "socket_connect_timeout": TIMEOUT, "protocol": 2}


def _none() -> Retry:
    return Retry(NoBackoff(), 0)


def _single(kind: type[Any], options: Mapping[str, Any]) -> Any:
    pool = redis.ConnectionPool(connection_class=kind, retry=_none(), max_connections=4, **{**options, **_quick()})
    return _Client.from_pool(pool)


def _by_sentinel(name: str, primary: bool, nodes: tuple[tuple[Any, Any], ...], own: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    sentinel = Sentinel(list(nodes), sentinel_kwargs={**_options(own), **_quick()})
    rest = {key: value for key, value in options.items() if key not in ("host", "port")}
    pool = SentinelConnectionPool(name, sentinel, is_master=primary, retry=_none(), max_connections=4, **{**rest, **_quick()})
    return _Client.from_pool(pool)


def _cluster(starts: tuple[tuple[str, int], ...], tls: bool, options: Mapping[str, Any]) -> Any:
    nodes = [redis.cluster.ClusterNode(host, port) for host, port in starts]
    return redis.RedisCluster(startup_nodes=nodes, ssl=tls, retry=Retry(NoBackoff(), 1), **{**options, **_quick()})
