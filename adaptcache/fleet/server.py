"""The fleet's way to its server: a plain client of its own, a few scripts that check before they write, the server's time.

Whatever client an application has, the fleet talks through redis-py's own class, so that a drop-in client does not
take the fleet's keys for the application's. One attempt a command and short time-outs: nobody waits for
the answer, and the next round comes soon. Only here does the fleet know redis-py.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import redis
import redis.backoff
import redis.cluster
import redis.retry

Trouble = (redis.RedisError, OSError)   # what a server that is gone, full or slow raises
TIMEOUT = 3.0

# A lock is "fence token". A fence is higher than all that this server and this candidate have seen: a server that came back
# empty counts from there, and not from one.
ACQUIRE = """
if redis.call('GET', KEYS[1]) then return 0 end
local fence = tonumber(redis.call('GET', KEYS[2]) or '0') or 0
if not (fence >= 0 and fence < 1e15) then fence = 0 end
fence = math.max(fence, tonumber(ARGV[2])) + 1
local said = string.format('%d', fence)
redis.call('SET', KEYS[2], said)
redis.call('SET', KEYS[1], said .. ' ' .. ARGV[1], 'PX', ARGV[3])
return fence
"""
# ARGV: lock, fence, milliseconds
RENEW = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if (tonumber(redis.call('GET', KEYS[2]) or '0') or 0) > tonumber(ARGV[2]) then
    redis.call('DEL', KEYS[1])
    return 0
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""
RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""
# Publishing and the check of the fence are one step: a learner that was paused in between finds out here.
# ARGV: lock, fence, seconds, then field, value, ...
PUBLISH = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
local mine = tonumber(ARGV[2])
if (tonumber(redis.call('GET', KEYS[2]) or '0') or 0) > mine then return 0 end
redis.call('DEL', KEYS[3])
redis.call('HSET', KEYS[3], unpack(ARGV, 4))
redis.call('EXPIRE', KEYS[3], ARGV[3])
return 1
"""
# The highest fence that anybody has seen is not forgotten with the server's memory.
RAISE = """
local now = tonumber(redis.call('GET', KEYS[1]) or '0') or 0
if now < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], ARGV[1]) end
return 0
"""

# Of the node that has the stream: in a cluster each has its own clock.
TIME = """
local now = redis.call('TIME')
return now[1] * 1000000 + now[2]
"""

_POOL = ("host", "port", "db", "username", "password", "path", "ssl_keyfile", "ssl_certfile", "ssl_cert_reqs", "ssl_ca_certs", "ssl_ca_path",
         "ssl_ca_data", "ssl_password", "ssl_check_hostname", "ssl_min_version", "ssl_ciphers", "credential_provider", "protocol")


def client_of(given: Any) -> Any:
    """A plain synchronous client of the server that `given` (a URL, or a client of redis-py) talks to, or what `given` makes.

    TypeError for anything else.
    """
    if callable(given):
        return given()
    own: dict[str, Any] = {"socket_timeout": TIMEOUT, "socket_connect_timeout": TIMEOUT, "decode_responses": False}
    if isinstance(given, str):
        return redis.Redis.from_url(given, **own, retry=redis.retry.Retry(redis.backoff.NoBackoff(), 0))
    if isinstance(given, redis.cluster.RedisCluster):
        cluster: Any = given        # whose methods have no types
        node: Any = redis.cluster.ClusterNode
        kept = {name: value for name, value in cluster.get_connection_kwargs().items() if name in _POOL[3:]}
        nodes = [node(known.host, known.port) for known in cluster.get_nodes()]
        return redis.cluster.RedisCluster(startup_nodes=nodes, **kept, **own)
    pool = getattr(given, "connection_pool", None)
    if pool is None:
        raise TypeError(f"client: expected a URL or a client of redis-py, got {type(given).__name__}")
    if type(pool).__module__ == "redis.asyncio.sentinel":
        raise TypeError("client: a Sentinel's of redis.asyncio cannot be used from a thread; give the fleet one of redis.Sentinel")
    if type(pool) in (redis.ConnectionPool, redis.BlockingConnectionPool) or type(pool).__module__.startswith("redis.asyncio"):
        kwargs: dict[str, Any] = pool.connection_kwargs
        kept = {name: kwargs[name] for name in _POOL if name in kwargs}
        make: Any = redis.ConnectionPool
        kinds = {base.__name__ for base in pool.connection_class.__mro__}
        cls: Any = (redis.UnixDomainSocketConnection if "path" in kept else
                    redis.SSLConnection if "SSLConnection" in kinds else redis.Connection)
        return redis.Redis(connection_pool=make(
            connection_class=cls, **kept, **own, retry=redis.retry.Retry(redis.backoff.NoBackoff(), 0)))
    # A Sentinel's pool knows how to find its master: it is shared.
    if pool.connection_kwargs.get("decode_responses"):
        raise TypeError("client: decode_responses=True through a Sentinel cannot carry models; give the fleet a client without it")
    return redis.Redis(connection_pool=pool)


class Server:
    """A client and the scripts."""

    def __init__(self, given: Any) -> None:
        self.client = client_of(given)
        self._scripts: dict[str, Any] = {}

    def run(self, script: str, keys: Sequence[str], *arguments: Any) -> int:
        known = self._scripts.get(script)
        if known is None:
            known = self._scripts[script] = self.client.register_script(script)
        return int(known(keys=list(keys), args=list(arguments)))

    def close(self) -> None:
        self.client.close()


class ServerTime:
    """The server's time, from a local clock and now and then a look at the server's.

    Of the last looks the one whose answer came soonest is believed: it errs by no more than half of that time.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._looks: list[tuple[float, float]] = []     # (seconds it took, server's time less ours)

    def look(self, server: Server, key: str) -> None:
        """Ask the server that has this key."""
        began = self._clock()
        micros = server.run(TIME, (key,))
        self.heard(began, self._clock(), micros / 1e6)

    def heard(self, began: float, ended: float, said: float) -> None:
        """The server said what time it was between these moments of the local clock."""
        self._looks = [*self._looks[-19:], (ended - began, said - (began + ended) / 2)]

    @property
    def known(self) -> bool:
        return bool(self._looks)

    @property
    def ahead(self) -> float:
        """Add it to the local clock."""
        return min(self._looks)[1] if self._looks else 0.0

    def now(self) -> float:
        return self._clock() + self.ahead
