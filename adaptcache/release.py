"""Lets go of keys on a server, earlier than their own expiry, and keeps the promise across processes.

A ledger says what it would not hold any longer, but it knows only what its own process asked for. The server knows when
anybody did: `OBJECT IDLETIME`. So a key is unlinked by a script that looks first, and a key that somebody else has asked for
meanwhile stays. Where the key's protected window is still open the script leaves a mark in its place, for as long as the window
lasts. Whoever misses the key finds the mark, and tells the process that had let go of it, whose bank pays.

The server's idle times are whole seconds, so nothing is released before REST seconds of idleness, and without a mark only what is
past its window whatever the server's clock hides. Where the server keeps no idle times (an LFU policy of
`maxmemory`) nothing is released at all, and `refusal` says so.

This file knows the server's side of it; what to let go of is the ledger's business. Everything runs in a thread of its own, with
the client that it was given; an error of the server's is counted, logged now and then, and what could not be done is left to the
keys' own expiry.
"""
from __future__ import annotations

import heapq
import logging
import math
import os
import secrets
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from itertools import count
from typing import Any, Final
from weakref import WeakSet, ref

from redis.exceptions import NoScriptError, RedisError

from adaptcache import _core
from adaptcache.ledger import Ledger, Release, Touched

__all__ = ("Released", "Releaser", "mark")

_log = logging.getLogger("adaptcache")

ROUND: Final = 0.25         # seconds between rounds
# The server takes an idle time from two readings of a clock of whole seconds that may lag by a tenth: it is at most BLUR less, and at
# most a second more, than the true one. So of two requests of a key that are UNSEEN apart the later one is seen for certain.
BLUR: Final = 1.1
UNSEEN: Final = 3.1
REST: Final = 4.5           # seconds of idleness before anything is released: what was asked for within the last second stays
POLL: Final = 1.0           # seconds between looks for losses that others have noticed
LINGER: Final = 60.0        # seconds that a mark outlives its window, for those who look late
MOST: Final = 1000          # commands sent together
QUEUE: Final = 100_000      # misses and touches that wait, at most
QUIET: Final = 60.0         # seconds between two lines of the log on the same trouble

# KEYS: the key, its mark. ARGV: least idle seconds; milliseconds of the window that are left, 0 for none; linger in
# milliseconds; owner; number; 1 when only keys with an expiry may go.
# Returns idle seconds if it was touched meanwhile, or -1 not there, -2 released, -3 no idle times, -4 has no expiry.
SCRIPT: Final = """
local idle = redis.pcall('OBJECT', 'IDLETIME', KEYS[1])
if not idle then return -1 end
if type(idle) ~= 'number' then return -3 end
if idle < tonumber(ARGV[1]) then return idle end
if ARGV[6] == '1' and redis.call('PTTL', KEYS[1]) < 0 then return -4 end
local left = tonumber(ARGV[2])
if left > 0 then
  local time = redis.call('TIME')
  local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  redis.call('SET', KEYS[2], string.format('%.0f %s %s', now + left, ARGV[4], ARGV[5]), 'PX', string.format('%.0f', left + tonumber(ARGV[3])))
end
redis.call('UNLINK', KEYS[1])
return -2
"""


@dataclass(frozen=True, slots=True)
class Released:
    """What came of releases, so far.

    released    keys that were unlinked; `early` of them within their protected window; `bytes` their sizes together
    kept        keys that somebody had asked for meanwhile, or that have no expiry any more
    gone        keys that were not there any more
    failed      keys that could not be asked about: they stay until their own expiry
    noticed     losses of others' releases that this process noticed, and told them
    told        losses of its own releases that others told it
    waiting     keys that are to be released soon
    refusal     why nothing can be released on this server; "" while it can
    """

    released: int
    early: int
    bytes: float
    kept: int
    gone: int
    failed: int
    noticed: int
    told: int
    waiting: int
    refusal: str


def mark(name: bytes, key: bytes) -> bytes | None:
    """The name of the mark of a key, in the same slot of a cluster; None for the few keys for which there is no such name."""
    start = key.find(b"{")
    end = key.find(b"}", start + 1) if start >= 0 else -1
    if end > start + 1:
        tag = key[start + 1:end]
    elif b"}" in key or not key:
        return None
    else:
        tag = key
    return name + b":gone:{" + tag + b"}:" + blake2b(key, digest_size=8).hexdigest().encode()


class Releaser:
    """Unlinks what a ledger releases, and carries losses between processes.

    client      a redis-py client, standalone or cluster; used from a thread of this object's own, and left open by `close`
    name        what keys of its own on the server begin with
    expiring    only keys that still have an expiry on the server may go

    Give its `release` and `touch` to the ledger as `on_release` and `on_touch`, the ledger to `attach`, and tell it of each
    miss (`missed`).
    """

    def __init__(self, client: Any, *, name: str = "adaptcache", expiring: bool = True) -> None:
        self.worker = secrets.token_hex(8)
        self._client = client
        self._name = name.encode()
        self._expiring = expiring
        self._cluster = hasattr(client, "nodes_manager")
        self._ledger: ref[Ledger] | None = None
        self._sha: str | None = None
        self._counts = dict.fromkeys(("released", "early", "kept", "gone", "failed", "noticed", "told"), 0)
        self._bytes = 0.0
        self._refusal = ""
        self._quiet_until = -math.inf
        self._serial = count()
        self._closed = False
        self._after_fork()
        _ALL.add(self)

    def _after_fork(self) -> None:
        self._lock = threading.RLock()      # finalizers may use the cache, in whatever thread
        self._heap: list[tuple[float, int, Release]] = []
        self._missed: deque[tuple[bytes, float]] = deque(maxlen=QUEUE)
        self._touches: deque[bytes] = deque(maxlen=QUEUE)
        self._polled = -math.inf
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def _in_child(self) -> None:
        self.worker = secrets.token_hex(8)
        self._after_fork()

    def attach(self, ledger: Ledger) -> None:
        """Whose bank pays for losses that others notice."""
        self._ledger = ref(ledger)
        ledger.asked = True

    # -- what is to be done

    def release(self, releases: Iterable[Release]) -> None:
        """Let go of these soon. Not before they have been idle for REST seconds, nor between a window's end and UNSEEN after it."""
        now = _core.monotonic()
        with self._lock:
            for one in releases:
                idle = one.age
                wait = max(one.wait, REST - idle)
                if one.window_left <= one.wait:
                    # Past its window by what this process knows; an unseen request may have opened another one since.
                    wait = max(wait, UNSEEN + one.window_left)
                heapq.heappush(self._heap, (now + wait, next(self._serial), one))
        self._begin()

    def touch(self, touched: Touched) -> None:
        """Tell the server that these are in use."""
        self._touches.extend(touched.keys)
        self._begin()

    def missed(self, key: bytes) -> None:
        """The server did not have a key. Was it released early, by anybody?"""
        self._missed.append((key, _core.monotonic()))
        self._begin()

    def stats(self) -> Released:
        counts = dict(self._counts)
        with self._lock:
            waiting = len(self._heap)
        return Released(bytes=self._bytes, waiting=waiting, refusal=self._refusal, **counts)

    def close(self) -> None:
        """Stop; what was to be released stays until its own expiry."""
        self._closed = True
        self._wake.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(5.0)

    # -- doing it

    def _begin(self) -> None:
        if self._thread is None and not self._closed:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(target=_run, args=(ref(self), self._wake), name="adaptcache-release", daemon=True)
                    self._thread.start()

    def round(self) -> None:
        """Do what is due, in the calling thread."""
        now = _core.monotonic()
        due: list[Release] = []
        with self._lock:
            while self._heap and self._heap[0][0] <= now and len(due) < MOST:
                due.append(heapq.heappop(self._heap)[2])
        try:
            if due:
                self._release(due, now)
            if self._touches:
                self._touch()
            if self._missed:
                self._notice()
            ledger = None if self._ledger is None else self._ledger()
            if ledger is not None and self._counts["early"] and now - self._polled >= POLL:
                self._polled = now
                self._hear(ledger)
        except RedisError as error:
            self._complain(error)

    def _release(self, due: list[Release], now: float) -> None:
        ledger = None if self._ledger is None else self._ledger()
        calls = []
        for one in due:
            idle = now - one.last
            left = one.window_left - (idle - one.age)
            name = mark(self._name, one.key)
            if name is None:
                if left > 0 and self._cluster:
                    # No mark can lie beside it, so it stays until its window is over.
                    with self._lock:
                        heapq.heappush(self._heap, (now + left + UNSEEN, next(self._serial), one))
                    continue
                name = self._name + b":gone:" + blake2b(one.key, digest_size=8).hexdigest().encode()
            if ledger is not None and not ledger.leave(one):
                # The server's clock may be too coarse to tell, and the bank would not hear of the loss.
                self._counts["kept"] += 1
                continue
            # A request that was not seen opened a window that ends later.
            window = max(0, math.ceil((left + UNSEEN) * 1000)) if one.window_left > 0 else 0
            number = 0 if ledger is None else ledger.number(one.key)
            calls.append((one, ("2", one.key, name, max(0, math.floor(idle - BLUR)), window,
                                int(LINGER * 1000), self.worker, number, int(self._expiring))))
        for (one, _), said in zip(calls, self._scripts([arguments for _, arguments in calls]), strict=True):
            if isinstance(said, Exception):
                self._counts["failed"] += 1
                self._complain(said)
            elif said == -2:
                self._counts["released"] += 1
                self._counts["early"] += one.window_left > 0
                self._bytes += one.size
            elif said == -1:
                self._counts["gone"] += 1
            else:
                if said == -3:
                    self._refuse("the server keeps no idle times (maxmemory-policy is an LFU one)")
                self._counts["kept"] += 1
                if ledger is not None and said != -4:
                    ledger.kept(one)

    def _scripts(self, calls: list[tuple[Any, ...]]) -> list[Any]:
        if self._sha is None:
            self._sha = self._client.script_load(SCRIPT)
            if isinstance(self._sha, bytes):
                self._sha = self._sha.decode()
        said = self._send([("EVALSHA", self._sha, *arguments) for arguments in calls])
        lost = [at for at, one in enumerate(said) if isinstance(one, NoScriptError)]
        if lost:        # the server was restarted, or another node answers
            again = self._send([("EVAL", SCRIPT, *calls[at]) for at in lost])
            for at, one in zip(lost, again, strict=True):
                said[at] = one
        return said

    def _send(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        if not commands:
            return []
        if self._cluster:
            return [self._one(command) for command in commands]
        with self._client.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            return list(pipe.execute(raise_on_error=False))

    def _one(self, command: tuple[Any, ...]) -> Any:
        try:
            return self._client.execute_command(*command)
        except RedisError as error:
            return error

    def _touch(self) -> None:
        keys = {self._touches.popleft() for _ in range(min(len(self._touches), MOST))}
        self._send([("TOUCH", key) for key in keys])

    def _notice(self) -> None:
        """Marks in the place of keys that were missed: whose losses are they?"""
        asked = [self._missed.popleft() for _ in range(min(len(self._missed), MOST))]
        named = [(name, at) for key, at in asked if (name := self._mark_of(key)) is not None]
        now = _core.monotonic()
        said = self._send([command for name, _ in named for command in (("GET", name), ("PTTL", name))])
        for at, (name, missed) in enumerate(named):
            payload, left = said[2 * at], said[2 * at + 1]
            if isinstance(payload, Exception) or payload is None or not isinstance(left, int):
                continue
            window_left = left / 1000 - LINGER + (now - missed)
            found = self._one(("UNLINK", name))
            if found != 1 or window_left <= 0:
                continue        # somebody else noticed it first, or it was asked for after its window
            text = payload.decode() if isinstance(payload, bytes) else str(payload)
            _, worker, number = text.split(" ")
            if worker == self.worker:
                continue        # the ledger that missed it is the one that had let go of it
            self._counts["noticed"] += 1
            self._send([("RPUSH", self._losses(worker), number), ("EXPIRE", self._losses(worker), 86400)])

    def _mark_of(self, key: bytes) -> bytes | None:
        name = mark(self._name, key)
        if name is None and not self._cluster:
            name = self._name + b":gone:" + blake2b(key, digest_size=8).hexdigest().encode()
        return name

    def _losses(self, worker: str) -> bytes:
        return self._name + b":lost:" + worker.encode()

    def _hear(self, ledger: Ledger) -> None:
        said = self._one(("LPOP", self._losses(self.worker), MOST))
        if isinstance(said, Exception):
            raise said
        for number in said or ():
            self._counts["told"] += 1
            ledger.lost(int(number))

    # -- trouble

    def _refuse(self, reason: str) -> None:
        if not self._refusal:
            self._refusal = reason
            _log.warning("nothing is released early: %s", reason)

    def _complain(self, error: Exception) -> None:
        now = _core.monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + QUIET
            _log.warning("keys could not be released, and stay until their own expiry (%s: %.200s)", type(error).__name__, error)


def _run(releaser: ref[Releaser], wake: threading.Event) -> None:
    while True:
        wake.wait(ROUND)
        me = releaser()
        if me is None or me._closed or me._wake is not wake:
            return
        try:
            me.round()
        except Exception:
            _log.exception("releasing keys raised; it goes on")
        del me


_ALL: WeakSet[Releaser] = WeakSet()


def _forked() -> None:
    for releaser in list(_ALL):
        releaser._in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
