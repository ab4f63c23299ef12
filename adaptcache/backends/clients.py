"""Where the server is, and clients of our own for it: one for threads, one for each event loop.

The user's client, or a URL, says where and as whom; the connections are ours. A cache needs short time-outs and no
silent retries (redis-py 8 waits up to five seconds ten times over), an application mostly the opposite; and one plan
serves threads and tasks only where both kinds of client can be had. What is taken over: addresses, user, password,
credential provider, database, TLS, client name. What is not: time-outs, retries, decoding, protocol, client-side caches.
"""
from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit, urlunsplit

import redis
import redis.asyncio as aio
import redis.asyncio.sentinel as async_sentinels
import redis.cluster as clusters
import redis.connection as connections
import redis.sentinel as sentinels
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

# redis-py annotates these in part only, and differently from version to version.
_Cluster: Any = redis.RedisCluster
_AsyncCluster: Any = aio.RedisCluster
_Node: Any = clusters.ClusterNode
_AsyncNode: Any = aio.cluster.ClusterNode
_Sentinel: Any = sentinels.Sentinel
_AsyncSentinel: Any = async_sentinels.Sentinel
_SentinelPool: Any = sentinels.SentinelConnectionPool
_AsyncSentinelPool: Any = async_sentinels.SentinelConnectionPool
_parse: Any = connections.parse_url

_SHARED = ("username", "password", "credential_provider", "client_name")
_TLS = ("ssl_keyfile", "ssl_certfile", "ssl_cert_reqs", "ssl_ca_certs", "ssl_ca_data", "ssl_check_hostname", "ssl_min_version",
        "ssl_ciphers")
# How many connections there are is up to the threads, and for tasks to `connections`; a pool's own limit differs from version to version.
_MOST = 2**31 - 1
_CLUSTER_ATTEMPTS = 2       # a moved slot or a failed-over node is found by asking the others


class Place:
    """Where a server is: "server", "sentinel" or "cluster", with what is needed to reach it."""

    def __init__(self, kind: str, options: dict[str, Any], *, nodes: list[tuple[str, int]] | None = None, service: str = "",
                 sentinel_options: dict[str, Any] | None = None, tls: bool = False) -> None:
        self.kind = kind
        self.options = options
        self.nodes = nodes or []
        self.service = service
        self.sentinel_options = sentinel_options or {}
        self.tls = tls

    @property
    def cluster(self) -> bool:
        return self.kind == "cluster"

    def client(self, timeout: float) -> Any:
        """A client for threads."""
        options = {**self.options, "socket_timeout": timeout, "socket_connect_timeout": timeout, "max_connections": _MOST}
        if self.kind == "cluster":
            return _Cluster(startup_nodes=[_Node(*node) for node in self.nodes], **options, **self._tls_switch(),
                                      retry=Retry(NoBackoff(), _CLUSTER_ATTEMPTS), require_full_coverage=False)
        options["retry"] = Retry(NoBackoff(), 0)
        if self.kind == "sentinel":
            limits = {"socket_timeout": timeout, "socket_connect_timeout": timeout, "retry": Retry(NoBackoff(), 0)}
            sentinel = _Sentinel(self.nodes, sentinel_kwargs={**self.sentinel_options, **limits})
            return redis.Redis.from_pool(_SentinelPool(self.service, sentinel, ssl=self.tls, **options))
        kind = redis.SSLConnection if self.tls else redis.UnixDomainSocketConnection if "path" in options else redis.Connection
        return redis.Redis.from_pool(redis.ConnectionPool(connection_class=kind, **options))

    def async_client(self, timeout: float) -> Any:
        """A client for the tasks of one event loop."""
        options = {**self.options, "socket_timeout": timeout, "socket_connect_timeout": timeout, "max_connections": _MOST}
        if self.kind == "cluster":
            return _AsyncCluster(startup_nodes=[_AsyncNode(*node) for node in self.nodes], **options,
                                    **self._tls_switch(), retry=AsyncRetry(NoBackoff(), _CLUSTER_ATTEMPTS),
                                    require_full_coverage=False)
        options["retry"] = AsyncRetry(NoBackoff(), 0)
        if self.kind == "sentinel":
            limits = {"socket_timeout": timeout, "socket_connect_timeout": timeout, "retry": AsyncRetry(NoBackoff(), 0)}
            sentinel = _AsyncSentinel(self.nodes, sentinel_kwargs={**self.sentinel_options, **limits})
            return aio.Redis.from_pool(_AsyncSentinelPool(self.service, sentinel, ssl=self.tls, **options))
        kind = aio.SSLConnection if self.tls else aio.UnixDomainSocketConnection if "path" in options else aio.Connection
        return aio.Redis.from_pool(aio.ConnectionPool(connection_class=kind, **options))

    def _tls_switch(self) -> dict[str, bool]:
        return {"ssl": True} if self.tls else {}

    def __repr__(self) -> str:
        where = self.service or self.options.get("path") or f"{self.options.get('host')}:{self.options.get('port')}"
        return f"{self.kind} {where if not self.nodes else ', '.join(f'{host}:{port}' for host, port in self.nodes)}"


def close(client: Any) -> None:
    """Close a client that was made here, and those that it asks where its server is."""
    for each in (client, *_sentinels_of(client)):
        each.close()


async def aclose(client: Any) -> None:
    """`close`, for one of asyncio."""
    for each in (client, *_sentinels_of(client)):
        await each.aclose()
    if isinstance(client, _AsyncCluster):
        # It takes itself for closed since a node of it last failed, whatever was connected again afterwards.
        await client.nodes_manager.aclose()
        await client.nodes_manager.aclose("startup_nodes")


def _sentinels_of(client: Any) -> tuple[Any, ...]:
    manager = getattr(getattr(client, "connection_pool", None), "sentinel_manager", None)
    return tuple(getattr(manager, "sentinels", ()))


def place_of(client_or_url: Any) -> Place:
    """Where a client, or a URL, leads. TypeError and ValueError name the argument."""
    if isinstance(client_or_url, str):
        return _of_url(client_or_url)
    if isinstance(client_or_url, (redis.RedisCluster, aio.RedisCluster)):
        return _of_cluster(client_or_url)
    pool = getattr(client_or_url, "connection_pool", None)
    if not isinstance(client_or_url, (redis.Redis, aio.Redis)) or pool is None:
        raise TypeError("client_or_url: expected a redis.Redis, redis.RedisCluster, one of redis.asyncio, or a URL, got "
                        f"{type(client_or_url).__name__}")
    tls = issubclass(pool.connection_class, (redis.SSLConnection, aio.SSLConnection))
    if isinstance(pool, (_SentinelPool, _AsyncSentinelPool)):
        sentinels = [each.connection_pool.connection_kwargs for each in pool.sentinel_manager.sentinels]
        return Place("sentinel", _options(pool.connection_kwargs, tls), service=pool.service_name, tls=tls,
                     nodes=[(each["host"], int(each["port"])) for each in sentinels],
                     sentinel_options=_sentinel_options(sentinels[0]) if sentinels else {})
    return Place("server", _options(pool.connection_kwargs, tls, address=True), tls=tls)


def _of_url(url: str) -> Place:
    scheme = urlsplit(url).scheme
    if scheme == "redis+sentinel":
        return _of_sentinel_url(url)
    if scheme in ("redis+cluster", "rediss+cluster"):
        parsed = dict(_parse(url.replace("+cluster", "", 1)))
        return Place("cluster", _options(parsed, True), tls=scheme == "rediss+cluster",
                     nodes=[(parsed.get("host", "localhost"), int(parsed.get("port", 6379)))])
    if scheme not in ("redis", "rediss", "unix"):
        raise ValueError(f"client_or_url: {url!r} is not accepted; the accepted schemes are redis, rediss, unix, redis+cluster, "
                         "rediss+cluster and redis+sentinel")
    parsed = dict(_parse(url))
    tls = parsed.pop("connection_class", None) is redis.SSLConnection
    if "path" not in parsed:
        parsed.setdefault("host", "localhost")
        parsed.setdefault("port", 6379)
    return Place("server", _options(parsed, tls, address=True), tls=tls)


def _of_sentinel_url(url: str) -> Place:
    """redis+sentinel://[user:password@]host:port[,host:port...]/SERVICE[/DB]; user and password are the master's."""
    parts = urlsplit(url)
    people, _, hosts = parts.netloc.rpartition("@")
    service, _, db = parts.path.strip("/").partition("/")
    nodes = []
    for each in hosts.split(","):
        host, _, port = each.rpartition(":")
        if not host or not port.isdigit():
            raise ValueError(f"client_or_url: {each!r} is not accepted; the accepted form is "
                             "redis+sentinel://HOST:PORT[,HOST:PORT...]/SERVICE[/DB]")
        nodes.append((host.strip("[]"), int(port)))
    if not service or parse_qs(parts.query):
        raise ValueError("client_or_url: a redis+sentinel URL names the service in its path and has no query; give a client for more")
    options = _options(dict(_parse(urlunsplit(("redis", f"{people}@localhost" if people else "localhost", "", "", "")))), False)
    return Place("sentinel", {**options, "db": int(db or 0)}, nodes=nodes, service=service)


def _of_cluster(client: Any) -> Place:
    if isinstance(client, redis.RedisCluster):
        given = client.nodes_manager.connection_kwargs
        tls = bool(given.get("ssl"))
        nodes = [(node.host, int(node.port)) for node in client.nodes_manager.startup_nodes.values()]
    else:
        given = client.connection_kwargs
        tls = issubclass(given["connection_class"], aio.SSLConnection)
        nodes = [(node.host, int(node.port)) for node in client.nodes_manager.startup_nodes.values()]
    return Place("cluster", _options(given, tls), nodes=nodes, tls=tls)


def _options(given: dict[str, Any], tls: bool, *, address: bool = False) -> dict[str, Any]:
    wanted = (*_SHARED, *(_TLS if tls else ()))
    options = {name: given[name] for name in wanted if given.get(name) is not None}
    if address:
        names = ("path", "db") if "path" in given else ("host", "port", "db")
        options.update({name: given[name] for name in names if given.get(name) is not None})
    elif given.get("db"):
        options["db"] = given["db"]
    return options


def _sentinel_options(given: dict[str, Any]) -> dict[str, Any]:
    return {name: given[name] for name in ("username", "password") if given.get(name) is not None}
