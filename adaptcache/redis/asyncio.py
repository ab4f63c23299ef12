"""redis-py's asyncio clients that are watched: `Redis`, `RedisCluster` and their pipelines.

The watcher is the same as that of the sync clients, and thinks in a thread of its own: an event loop is never blocked.
"""
from __future__ import annotations

import inspect
from time import monotonic
from typing import Any

import redis.asyncio
import redis.asyncio.client
import redis.asyncio.cluster

from adaptcache.redis import attaching
from adaptcache.redis.handle import Handle
from adaptcache.redis.nearby import Nearby
from adaptcache.redis.options import Adapt
from adaptcache.redis.watcher import Watcher

__all__ = ["ClusterPipeline", "Pipeline", "Redis", "RedisCluster"]


class Redis(redis.asyncio.Redis):
    """`redis.asyncio.Redis`, watched. All of its arguments, and `adapt=Adapt(...)` or a mode; see docs/dropin.md."""

    _watcher: Watcher | None = None
    _nearby: Nearby | None = None

    def __init__(self, *args: Any, adapt: Adapt | str | None = None, **kwargs: Any) -> None:
        told = attaching.carried(args, kwargs, adapt)
        super().__init__(*args, **kwargs)
        self._watcher = attaching.to_pool(self.connection_pool, told)
        self._nearby = attaching.nearby(self, self._watcher)

    @property
    def adapt(self) -> Handle:
        """What the watcher of this client's pool saw, and its switch."""
        assert self._watcher is not None
        return Handle(self._watcher)

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        watcher = self._watcher
        if watcher is None or not watcher.watching:
            return await super().execute_command(*args, **options)
        nearby = self._nearby
        read = None if nearby is None else nearby.look(args, options)
        if read is not None and read.found:
            return read.answer
        at = monotonic()
        try:
            reply = await super().execute_command(*args, **options)
        except BaseException:
            watcher.failed((args,), at)
            raise
        if said := watcher.held.keep(args, reply, at):
            watcher.heed(said)
        if nearby is not None and read is not None:
            nearby.keep(read, reply)
        return reply

    def set_response_callback(self, command: Any, callback: Any) -> None:
        super().set_response_callback(command, callback)
        self._nearby = None         # its answers are its own

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> redis.asyncio.client.Pipeline:
        if type(self) is not Redis or redis.asyncio.Redis.pipeline is not _pipeline or redis.asyncio.client.Pipeline is not _Pipeline:
            theirs = super().pipeline(transaction, shard_hint)
            if type(theirs) is not _Pipeline:
                return theirs           # of somebody else's making
        # Made anew: assigning to its __class__ would take its attributes out of the interpreter's fast paths, at each command.
        pipe = Pipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)
        pipe._watcher = self._watcher
        return pipe


class Pipeline(redis.asyncio.client.Pipeline):
    """A pipeline of a watched client."""

    _watcher: Watcher | None = None

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        watcher, stack = self._watcher, self.command_stack
        if watcher is None or not watcher.watching or not stack:
            return await super().execute(raise_on_error)
        at = monotonic()
        try:
            replies = await super().execute(raise_on_error)
        except BaseException:
            watcher.failed(map(attaching.of_stack, stack), at)
            raise
        watcher.saw_all(stack, attaching.of_stack, replies, at, not raise_on_error)
        return replies

    async def immediate_execute_command(self, *args: Any, **options: Any) -> Any:
        watcher = self._watcher
        if watcher is None or not watcher.watching:
            return await super().immediate_execute_command(*args, **options)
        at = monotonic()
        try:
            reply = await super().immediate_execute_command(*args, **options)
        except BaseException:
            watcher.failed((args,), at)
            raise
        watcher.saw(args, reply, at)
        return reply


class RedisCluster(redis.asyncio.RedisCluster):
    """`redis.asyncio.RedisCluster`, watched. All of its arguments, and `adapt=Adapt(...)` or a mode; see docs/dropin.md."""

    _watcher: Watcher | None = None
    _nearby: Nearby | None = None

    def __init__(self, *args: Any, adapt: Adapt | str | None = None, **kwargs: Any) -> None:
        told = Adapt.parse(adapt)
        super().__init__(*args, **kwargs)
        self._watcher = attaching.to_cluster(self, told)
        self._nearby = attaching.nearby(self, self._watcher)

    @property
    def adapt(self) -> Handle:
        """What the watcher of this client saw, and its switch."""
        assert self._watcher is not None
        return Handle(self._watcher)

    async def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        watcher = self._watcher
        if watcher is None or not watcher.watching:
            return await super().execute_command(*args, **kwargs)
        nearby = self._nearby
        read = None if nearby is None else nearby.look(args, kwargs)
        if read is not None and read.found:
            return read.answer
        at = monotonic()
        try:
            reply = await super().execute_command(*args, **kwargs)
        except BaseException:
            watcher.failed((args,), at)
            raise
        if said := watcher.held.keep(args, reply, at):
            watcher.heed(said)
        if nearby is not None and read is not None:
            nearby.keep(read, reply)
        return reply

    def set_response_callback(self, command: Any, callback: Any) -> None:
        super().set_response_callback(command, callback)
        self._nearby = None         # its answers are its own

    def pipeline(self, transaction: Any = None, shard_hint: Any = None) -> redis.asyncio.cluster.ClusterPipeline:
        pipe = super().pipeline(transaction, shard_hint)
        if type(pipe) is redis.asyncio.cluster.ClusterPipeline:
            pipe.__class__ = ClusterPipeline    # type: ignore[type-abstract]
            pipe._watcher = self._watcher       # type: ignore[attr-defined]
        return pipe


class ClusterPipeline(redis.asyncio.cluster.ClusterPipeline):
    """A pipeline of a watched cluster client."""

    _watcher: Watcher | None = None

    def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        reply = super().execute_command(*args, **kwargs)
        watcher = self._watcher
        if reply is self or watcher is None or not watcher.watching or not inspect.isawaitable(reply):
            return reply
        return _seen(watcher, args, reply)      # between WATCH and MULTI commands are not held back

    async def execute(self, raise_on_error: bool = True, allow_redirections: bool = True) -> list[Any]:
        watcher, queue = self._watcher, attaching.queue_of(self)
        if watcher is None or not watcher.watching or not queue:
            return await super().execute(raise_on_error, allow_redirections)
        at = monotonic()
        try:
            replies = await super().execute(raise_on_error, allow_redirections)
        except BaseException:
            watcher.failed(map(attaching.of_queue, queue), at)
            raise
        watcher.saw_all(queue, attaching.of_queue, replies, at, not raise_on_error)
        return replies


async def _seen(watcher: Watcher, args: Any, waiting: Any) -> Any:
    at = monotonic()
    reply = await waiting
    watcher.saw(args, reply, at)
    return reply


_Pipeline = redis.asyncio.client.Pipeline
_pipeline = attaching.original(redis.asyncio.Redis.pipeline, redis.asyncio.client)
attaching.keyword(Redis.__init__, redis.asyncio.Redis.__init__)
attaching.keyword(RedisCluster.__init__, redis.asyncio.RedisCluster.__init__)
