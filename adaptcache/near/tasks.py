"""`AsyncNear`: the near tier of a redis.asyncio client, and the tasks that listen for it.

The tasks know the tier and the client's pool, never the `AsyncNear`, so that one which is dropped ends them. What is said on a
connection is in `watch`.
"""
from __future__ import annotations

import asyncio
import logging
import os
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from redis.asyncio.retry import Retry

from adaptcache.near.face import OPEN, Face
from adaptcache.near.options import NearCache
from adaptcache.near.source import LEAST_PATIENCE, TROUBLE, Dialler, lost, muster, source_of
from adaptcache.near.tier import Tier
from adaptcache.near.watch import Dial, Hang, Keeper, Lost, Pause, Receive, Send, watch

_log = logging.getLogger("adaptcache")

CHUNK = 1 << 16

class AsyncNear(Face):
    """An in-process tier of a redis.asyncio client's values, kept coherent by the server's invalidations (docs/near.md).

    The arguments are those of `Near`, with a client of redis.asyncio. `await start()` begins to listen in the running loop, `await
    aclose()` ends it; `async with` does both. All other calls are plain ones, for that loop. A loop that stands still for longer than
    the window serves nothing afterwards until the server has answered again.
    """

    def __init__(self, client: Any, options: NearCache, prefixes: Sequence[bytes] = (), *,
                 route: Callable[[bytes], bytes | None] | None = None) -> None:
        super().__init__(options, prefixes, route)
        self._source = source_of(client)
        self._crew: Crew | None = None
        OPEN.add(self)

    async def start(self) -> None:
        """Begin to listen in the running loop; again in the same loop: nothing. `ready` turns True once the server has answered."""
        loop = asyncio.get_running_loop()
        if self._crew is not None:
            if self._crew.loop is loop and self._crew.alive:
                return
            self._release()
        crew = self._crew = Crew(self._tier, loop)
        self._finalizer = weakref.finalize(self, crew.stop)
        self._finalizer.atexit = False
        muster(crew, self._tier, self._source)

    async def aclose(self) -> None:
        """Listen no more, and serve nothing. Again: nothing."""
        crew = self._crew
        self._release()
        if crew is not None and crew.loop is asyncio.get_running_loop():
            await crew.join()
        self._tier.clear()

    async def __aenter__(self) -> AsyncNear:
        await self.start()
        return self

    async def __aexit__(self, *what: object) -> None:
        await self.aclose()

    def _release(self) -> None:
        crew, self._crew = self._crew, None
        if crew is not None:
            self._finalizer.detach()
            crew.stop()

    def _forked(self) -> None:
        crew, self._crew = self._crew, None
        if crew is not None:
            self._finalizer.detach()
            crew.abandon()
        self._tier.reset()


class Crew:
    """The tasks that listen for one tier, in one loop."""

    def __init__(self, tier: Tier, loop: asyncio.AbstractEventLoop) -> None:
        self.tier = tier
        self.loop = loop
        self._stopped = False
        self._tasks: dict[asyncio.Task[None], Listener] = {}

    @property
    def alive(self) -> bool:
        return any(not task.done() for task in self._tasks)

    def listen(self, keeper: Keeper, dial: Dialler) -> None:
        if not self._stopped:
            listener = Listener(self.tier, keeper, dial)
            task = self.loop.create_task(listener.run(), name="adaptcache-near")
            self._tasks = {each: its for each, its in self._tasks.items() if not each.done()} | {task: listener}

    def stop(self) -> None:
        """From any thread: a finalizer runs where it likes."""
        self._stopped = True
        for lease in self.tier.leases():
            lease.until = float("-inf")
        for task in self._tasks:
            with suppress(RuntimeError):        # the loop is closed, and its tasks with it
                self.loop.call_soon_threadsafe(task.cancel)

    async def join(self) -> None:
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def abandon(self) -> None:
        """In the child of a fork: let go of the connections without a word to the server."""
        for listener in self._tasks.values():
            listener.abandon()


class Listener:
    """One task and its connection: does what a watch wants done."""

    def __init__(self, tier: Tier, keeper: Keeper, dial: Dialler) -> None:
        self._patience = max(tier.options.window, LEAST_PATIENCE)
        self._watch = watch(keeper, tier)
        self._dial = dial
        self._connection: Any = None

    async def run(self) -> None:
        flow = self._watch
        try:
            command = next(flow)
            while True:
                try:
                    answer = await self._do(command)
                except TROUBLE as error:
                    command = flow.throw(lost(error))
                else:
                    command = flow.send(answer)
        except StopIteration:
            pass                                # nobody wants it to listen any more
        except Exception:
            _log.exception("near caching has stopped: the task that listens failed")
        finally:
            flow.close()
            await self._hang()

    async def _do(self, command: object) -> object:
        match command:
            case Receive(within):
                try:
                    async with asyncio.timeout(within):
                        data = await self._connection._reader.read(CHUNK)
                except TimeoutError:
                    return None
                if not data:
                    raise Lost("the server closed the connection")
                return data
            case Send(data):
                self._connection._writer.write(data)
                async with asyncio.timeout(self._patience):
                    await self._connection._writer.drain()
            case Dial():
                self._connection, place = self._dial(Retry, self._patience)
                await self._connection.connect()
                return place()
            case Hang():
                await self._hang()
            case Pause(seconds):
                await asyncio.sleep(seconds)
        return None

    async def _hang(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect()

    def abandon(self) -> None:
        writer = None if self._connection is None else self._connection._writer
        if writer is not None:
            # The transport still holds the number and would close it again; so it stays, and names nothing.
            nothing = os.open(os.devnull, os.O_RDWR)
            os.dup2(nothing, writer.get_extra_info("socket").fileno())
            os.close(nothing)
