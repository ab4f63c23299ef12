"""Drop-in for redis-py: its clients, watched, so that people see what letting keys go earlier would save, and may do it.

    from adaptcache.redis import Redis          # instead of: from redis import Redis

`adaptcache.redis.asyncio` has the asyncio clients. What a client sees is in `client.adapt`; see docs/dropin.md. This
package needs the extra `adaptcache[redis]`.
"""
from adaptcache.redis.books import Namespace, Report
from adaptcache.redis.clients import ClusterPipeline, Pipeline, Redis, RedisCluster
from adaptcache.redis.handle import Handle
from adaptcache.redis.options import Adapt

__all__ = ["Adapt", "ClusterPipeline", "Handle", "Namespace", "Pipeline", "Redis", "RedisCluster", "Report"]
