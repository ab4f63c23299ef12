"""What is said on one tracking connection, and what it proves. Written once; drivers with threads or tasks run it.

**The lease.** A server sends invalidations and answers on one connection in the order in which they came about, and an invalidation
leaves no later than the acknowledgement of the write that caused it. So the answer to a question sent at time s proves that every
write acknowledged before s has been heard of here, and values may be served until s + window. Nothing rests on a
connection's being found dead: with a half-open connection, a stopped server, a stopped process or a stalled thread the time
simply runs out. The clock stands still while the machine is suspended; a watch that finds that it was, starts anew.

**The question** is HELLO and PING. HELLO says that RESP3 is spoken, and whether the server is still a primary. But HELLO is answered by
a server that is busy with a script, too, and such a server sends acknowledgements of writes from just before the script
while it still sits on their invalidations; PING it refuses. So only PONG is a proof; a server that says BUSY or LOADING is
listened to, and its lease runs out. Of a cluster's node CLUSTER NODES is asked with it (see `topology`).

A watch is a generator of commands (`Dial`, `Send`, `Receive`, `Pause`, `Hang`). Drivers answer `Receive` with bytes, or None
when the time is over, `Dial` with where it led, and throw `Lost` for a connection that failed. This file knows no
socket and no redis-py.
"""
from __future__ import annotations

import logging
import random
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from adaptcache.near.resp import Failure, Garbled, Push, Reader, pack
from adaptcache.near.tier import OVER, Lease, Tier

_log = logging.getLogger("adaptcache")

FIRST_PAUSE, LONGEST_PAUSE, REFUSED_PAUSE = 0.05, 5.0, 30.0
SHORTEST_WAIT = 0.001
NAP = 1.0           # seconds of suspension that are let pass


def asleep() -> float:
    """Seconds that this machine has been suspended for since it started; never more than that, at times a little less."""
    return 0.0 if _BOOTTIME is None else time.clock_gettime(_BOOTTIME) - time.monotonic()


_BOOTTIME: int | None = getattr(time, "CLOCK_BOOTTIME", None)


class Lost(Exception):
    """The connection is of no use any more. `refused`: the server is there, and will not have us."""

    def __init__(self, reason: object, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused


@dataclass(frozen=True, slots=True)
class Dial:
    """Connect. The answer is where to, for `Keeper.where`."""


@dataclass(frozen=True, slots=True)
class Send:
    data: bytes


@dataclass(frozen=True, slots=True)
class Receive:
    """Wait for bytes, `within` seconds. What has come already is taken even when that time is over."""

    within: float


@dataclass(frozen=True, slots=True)
class Pause:
    seconds: float


@dataclass(frozen=True, slots=True)
class Hang:
    """Close the connection."""


Command = Dial | Send | Receive | Pause | Hang
Watch = Generator[Command, Any, None]


class Keeper(Protocol):
    """Who keeps the lease of the server that a watch listens to."""

    more: bytes                 # what is asked with every HELLO and PING
    answers: int                # how many replies that gives
    covers: int                 # so many of the tier's prefixes has the server said to tell of

    def wanted(self) -> bool: ...                               # is there a reason to listen at all?
    def where(self) -> object: ...                              # where the application reads, now; None: not known to move
    def proved(self, sent: float, replies: Sequence[Any]) -> None: ...   # answered; Lost if the replies say so
    def flushed(self) -> None: ...
    def lost(self, error: Lost) -> None: ...


class Single:
    """Keeps the lease of the one server that there is."""

    more = b""
    answers = 0
    covers = 0

    def __init__(self, tier: Tier, where: Callable[[], object]) -> None:
        self._tier = tier
        self.where = where
        self.lease = Lease()
        tier.lease_of = lambda key: self.lease
        tier.leases = lambda: (self.lease,)
        tier.covers = lambda: self.covers

    def wanted(self) -> bool:
        return True

    def proved(self, sent: float, replies: Sequence[Any]) -> None:
        tier = self._tier
        until = sent + tier.options.window
        if not tier.clock() < self.lease.until:
            # The first answer, or one after the time ran out: what is from before is not taken up again.
            self._end()
            tier.connects += 1
            self.lease = Lease(until)
        self.lease.until = max(self.lease.until, until)

    def flushed(self) -> None:
        until = self.lease.until
        self._end()
        self.lease = Lease(until)

    def lost(self, error: Lost) -> None:
        self.covers = 0
        if self.lease.until != OVER:
            self._tier.losses += 1
            self._end()

    def _end(self) -> None:
        if self.lease.until != OVER:
            self.lease.until = OVER         # first: from here on nothing is served
            self._tier.clear()


def watch(keeper: Keeper, tier: Tier, asleep: Callable[[], float] = asleep) -> Watch:
    """Listen for as long as that is wanted: connect, follow, and after a loss again, after a pause with jitter."""
    failures = 0
    refused = False         # that has been said
    try:
        while keeper.wanted():
            began = tier.clock()
            try:
                place = yield Dial()
                yield from follow(keeper, tier, place, asleep)
            except Lost as error:
                tier.error = str(error)
                keeper.lost(error)
                if error.refused and not refused:
                    refused = True
                    _log.warning("near caching is off: %s", error)
                lasted = tier.clock() - began > 2 * tier.options.window
                failures = 1 if lasted else failures + 1
                longest = REFUSED_PAUSE if error.refused else LONGEST_PAUSE
                yield Hang()
                yield Pause(random.uniform(0.5, 1.0) * min(longest, FIRST_PAUSE * 2.0 ** min(failures - 1, 16)))
    finally:
        keeper.lost(Lost("closed"))


def follow(keeper: Keeper, tier: Tier, place: object, asleep: Callable[[], float]) -> Watch:
    """Follow one connection until it is lost."""
    heartbeat, window = tier.options.heartbeat, tier.options.window
    reader = Reader()
    question = pack(b"HELLO") + pack(b"PING") + keeper.more
    # The questions that are not answered yet: when each was sent, whether tracking was asked for with it, and how many prefixes with it and before.
    awaited: deque[tuple[float, bool, int]] = deque()
    replies: list[Any] = []                 # what has come of the answer to the first of them
    role: object = None
    asked = -1                              # prefixes that the server was told; -1: not even that it is to tell
    keeper.covers = 0
    due = tier.clock()
    slept = asleep()
    while True:
        if asleep() > slept + NAP:
            raise Lost("the machine was suspended")
        slept = max(slept, asleep())
        now = tier.clock()
        if now >= due:
            # The time is taken before the question is on its way, never after. Prefixes may have been added since the last one.
            prefixes = tier.prefixes
            tracks = asked < len(prefixes)
            data = track(prefixes[max(asked, 0):]) if tracks else b""
            asked = len(prefixes)
            awaited.append((now, tracks, asked))
            due = now + heartbeat
            yield Send(data + question)
        overdue = bool(awaited) and now >= awaited[0][0] + window
        until = min(due, awaited[0][0] + window) if awaited else due
        got = yield Receive(max(until - now, SHORTEST_WAIT))
        if got is None:
            if overdue:
                # Decided by what the time was before the last look: a process that was stopped finds its answers first.
                raise Lost(f"no answer within {window:g} s")
            continue
        reader.feed(got)
        try:
            for message in reader:
                if isinstance(message, Push):
                    told(message, keeper, tier)
                    continue
                if not awaited:
                    raise Lost("an answer without a question")
                sent, tracks, prefixed = awaited[0]
                replies.append(message)
                if tracks and len(replies) == 1:
                    accept(message, b"OK", "CLIENT TRACKING")
                    keeper.covers = prefixed
                if len(replies) < tracks + 2 + keeper.answers:
                    continue
                awaited.popleft()
                hello, ping, *more = replies[tracks:]
                replies = []
                role = same_server(hello, role)
                if place != keeper.where():
                    raise Lost(f"the application reads from {keeper.where()} now")
                # With a prefix still to be told the server proves nothing: whoever waits for that prefix may be under any lease.
                if proves(ping) and prefixed == len(tier.prefixes):
                    keeper.proved(sent, more)
        except Garbled as error:
            raise Lost(f"not RESP3: {error}") from None


def track(prefixes: Sequence[bytes]) -> bytes:
    words = [word for prefix in prefixes for word in (b"PREFIX", prefix)]
    return pack(b"CLIENT", b"TRACKING", b"ON", b"BCAST", *words)


def told(push: Push, keeper: Keeper, tier: Tier) -> None:
    """A push: keys that are invalid, or all of them."""
    if not push or push[0] != b"invalidate":
        return              # of features that are nobody's business here
    keys = push[1] if len(push) > 1 else None
    if keys is None:
        tier.flushes += 1
        keeper.flushed()
    else:
        tier.invalidate(keys)


def accept(reply: object, wanted: bytes, command: str) -> None:
    if reply != wanted:
        raise Lost(f"{command} was refused: {reply!r}", refused=True)


def same_server(hello: object, role: object) -> object:
    """The role in an answer to HELLO; Lost if it is not what it was, or without RESP3."""
    if isinstance(hello, Failure):
        raise Lost(f"HELLO was refused: {hello}", refused=True)
    if not isinstance(hello, dict) or hello.get(b"proto") != 3:
        raise Lost("the server, or a proxy before it, does not speak RESP3", refused=True)
    now = hello.get(b"role")
    if role is not None and now != role:
        raise Lost(f"the server's role was {role!r} and is {now!r}")
    return now


def proves(ping: object) -> bool:
    """Is it PONG? False for a server that has no time for it now; Lost for one that will not say it."""
    if isinstance(ping, Failure) and ping.startswith(("BUSY", "LOADING", "MASTERDOWN")):
        return False
    accept(ping, b"PONG", "PING")
    return True


def simplest(prefixes: Sequence[bytes]) -> tuple[bytes, ...]:
    """Prefixes without those that another covers, as servers want them; () stands for every key."""
    if b"" in prefixes:
        return ()
    kept: list[bytes] = []
    for prefix in sorted(set(prefixes)):
        if not kept or not prefix.startswith(kept[-1]):
            kept.append(prefix)
    return tuple(kept)
