"""The parts in this process: one near cache for the threads of a backend and one for each event loop, whose connections keep the
part of every cache coherent. However many caches there are, there is one tracking connection to a node.
"""
from __future__ import annotations

import asyncio
import threading
from typing import Any

from adaptcache.backends.names import Names, route
from adaptcache.near import AsyncNear, Near, NearCache
from adaptcache.near.face import Part


class Parts:
    """Of one backend. `client` and `async_client` give its clients."""

    def __init__(self, client: Any, async_client: Any) -> None:
        self._client = client
        self._async_client = async_client
        self._lock = threading.RLock()
        self._threads: Near | None = None
        self._tasks: dict[asyncio.AbstractEventLoop, AsyncNear] = {}

    def forked(self) -> None:
        self._lock = threading.RLock()

    def for_threads(self, options: NearCache, names: Names) -> Part:
        """A new part. It begins to listen with the first. Raises what making a cluster's client raises."""
        with self._lock:
            if self._threads is None:
                self._threads = Near(self._client(), options, names.beginnings, route=route)
            return self._threads.part(options, names.beginnings, names.root)

    async def for_tasks(self, options: NearCache, names: Names) -> Part:
        """A new part, of the running loop."""
        loop = asyncio.get_running_loop()
        whole = self._tasks.get(loop)
        if whole is None:
            for closed in [each for each in list(self._tasks) if each.is_closed()]:
                self._tasks.pop(closed, None)
            whole = self._tasks[loop] = AsyncNear(self._async_client(), options, names.beginnings, route=route)
            await whole.start()
        return whole.part(options, names.beginnings, names.root)

    def close(self) -> None:
        with self._lock:
            whole, self._threads = self._threads, None
        if whole is not None:
            whole.close()

    async def aclose(self) -> None:
        """What belongs to the running loop."""
        whole = self._tasks.pop(asyncio.get_running_loop(), None)
        if whole is not None:
            await whole.aclose()
