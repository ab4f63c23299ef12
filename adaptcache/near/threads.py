"""`Near`: the near tier of a redis-py client, and the threads that listen for it.

The threads are daemons; they know the tier and the client's pool, never the `Near`, so that one which is dropped ends them. This file
knows sockets; what is said on them is in `watch`.
"""
from __future__ import annotations

import atexit
import logging
import socket
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from redis.retry import Retry

from adaptcache.near.face import OPEN, Face
from adaptcache.near.options import NearCache
from adaptcache.near.source import LEAST_PATIENCE, TROUBLE, Dialler, lost, muster, source_of
from adaptcache.near.tier import Ticket, Tier
from adaptcache.near.watch import Dial, Hang, Keeper, Lost, Pause, Receive, Send, watch

_log = logging.getLogger("adaptcache")

CHUNK = 1 << 16
LEAVE = 2.0         # seconds that closing waits for a thread

class Near(Face):
    """An in-process tier of a redis-py client's values, kept coherent by the server's invalidations (docs/near.md).

    client      redis.Redis (of a Sentinel too) or redis.RedisCluster; its arguments make connections of our own
    options     a `NearCache`
    prefixes    of the keys that the tier is for; () is every key
    route       for a near cache of several parts (`part`): a function from a key to the place of its part, or to None for all of them

    A read: `get`; on a miss `ticket = begin(key)`, then the read from the server, then `put(ticket, value)`. Any thread may do so.
    TypeError and ValueError name the argument. Trouble with the server is never raised: then nothing is served, `ready` is False
    and `stats().error` says why.
    """

    def __init__(self, client: Any, options: NearCache, prefixes: Sequence[bytes] = (), *,
                 route: Callable[[bytes], bytes | None] | None = None) -> None:
        super().__init__(options, prefixes, route)
        self._source = source_of(client)
        self._closed = False
        self._starting = threading.RLock()
        self._crew: Crew | None = None
        self._start()
        OPEN.add(self)

    def begin(self, key: bytes) -> Ticket | None:
        self._wake()
        return self._tier.begin(key)

    def _wake(self) -> None:
        if self._crew is None and not self._closed:
            self._start()           # the child of a fork begins when it is used

    def close(self) -> None:
        """Listen no more, and serve nothing. Again: nothing."""
        self._closed = True
        OPEN.discard(self)
        with self._starting:
            crew, self._crew = self._crew, None
        if crew is not None:
            self._finalizer.detach()
            crew.stop()
            crew.join()
            self._tier.clear()

    def __enter__(self) -> Near:
        return self

    def __exit__(self, *what: object) -> None:
        self.close()

    def _start(self) -> None:
        with self._starting:
            if self._crew is None and not self._closed:
                crew = Crew(self._tier)
                finalizer = weakref.finalize(self, crew.stop)
                finalizer.atexit = False
                if self._crew is not None:
                    finalizer.detach()      # memory was collected, and a finalizer has asked us meanwhile
                    return
                self._crew, self._finalizer = crew, finalizer
                muster(crew, self._tier, self._source)

    def _forked(self) -> None:
        self._starting = threading.RLock()
        crew, self._crew = self._crew, None
        if crew is not None:
            self._finalizer.detach()
            crew.abandon()
        self._tier.reset()


class Crew:
    """The threads that listen for one tier."""

    def __init__(self, tier: Tier) -> None:
        self.tier = tier
        self._lock = threading.RLock()      # the finalizer that stops us may run in the middle of `listen`
        self._stopped = False
        self._listeners: list[Listener] = []

    def listen(self, keeper: Keeper, dial: Dialler) -> None:
        with self._lock:
            listener = Listener(self.tier, keeper, dial)
            listeners = [each for each in self._listeners if each.thread.is_alive()] + [listener]
            if self._stopped:
                return
            self._listeners = listeners
            listener.thread.start()

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            for each in self._listeners:
                each.stop()

    def join(self) -> None:
        end = self.tier.clock() + LEAVE
        for each in self._listeners:
            if each.thread is not threading.current_thread():
                each.thread.join(max(0.0, end - self.tier.clock()))

    def abandon(self) -> None:
        """In the child of a fork: let go of the connections without a word to the server."""
        for each in self._listeners:
            if each.socket is not None:
                each.socket.close()


class Listener:
    """One thread and its connection: does what a watch wants done."""

    def __init__(self, tier: Tier, keeper: Keeper, dial: Dialler) -> None:
        self._patience = max(tier.options.window, LEAST_PATIENCE)
        self._watch = watch(keeper, tier)
        self._dial = dial
        self._stopped = threading.Event()
        self._connection: Any = None
        self.socket: socket.socket | None = None
        self.thread = threading.Thread(target=self._run, name="adaptcache-near", daemon=True)

    def stop(self) -> None:
        self._stopped.set()
        sock = self.socket
        if sock is not None:
            with suppress(OSError):         # it may be closed already
                sock.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        flow = self._watch
        try:
            command = next(flow)
            while not self._stopped.is_set():
                try:
                    answer = self._do(command)
                except TROUBLE as error:
                    command = flow.throw(lost(error))
                else:
                    command = flow.send(answer)
        except StopIteration:
            pass                            # nobody wants it to listen any more
        except Exception:
            _log.exception("near caching has stopped: the thread that listens failed")
        finally:
            flow.close()
            self._hang()

    def _do(self, command: object) -> object:
        match command:
            case Receive(within):
                assert self.socket is not None
                self.socket.settimeout(within)
                try:
                    data = self.socket.recv(CHUNK)
                except TimeoutError:
                    return None
                if not data:
                    raise Lost("the server closed the connection")
                return data
            case Send(data):
                assert self.socket is not None
                self.socket.settimeout(self._patience)
                self.socket.sendall(data)
            case Dial():
                self._connection, place = self._dial(Retry, self._patience)
                self._connection.connect()
                self.socket = self._connection._sock
                return place()
            case Hang():
                self._hang()
            case Pause(seconds):
                self._stopped.wait(seconds)
        return None

    def _hang(self) -> None:
        self.socket = None
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()


@atexit.register
def _leave() -> None:
    for each in list(OPEN):
        if isinstance(each, Near):
            each.close()
