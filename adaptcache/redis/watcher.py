"""A watcher: what is made of the commands of the clients of one server.

`listener` leaves notes of them, and one daemon for all watchers of the process (`patrol`) has us look at a few at a time. When notes
come faster than its share of a core allows, fewer keys are followed, one in two, in four and so on by their hash.

Clients of one pool have one watcher, and so have clients with pools of their own to one address, so that a client made for
one request costs next to nothing.

This file does not know what a note means (`follow`), nor how a command is sent.
"""
from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from itertools import islice
from math import inf
from time import monotonic, thread_time
from typing import TYPE_CHECKING, Any
from weakref import ref

import redis

from adaptcache.ledger import Release
from adaptcache.redis.address import Address
from adaptcache.redis.books import Report
from adaptcache.redis.commands import BLIND
from adaptcache.redis.follow import Follower
from adaptcache.redis.joining import Joined, Sample, Shared, Told, join
from adaptcache.redis.listener import Listener
from adaptcache.redis.options import Adapt, Scope, check_mode
from adaptcache.redis.patrol import PATROL
from adaptcache.release import Releaser

if TYPE_CHECKING:
    from adaptcache.fleet import Fleet

_log = logging.getLogger("adaptcache")

SHARE = {"off": 500, "observe": 500, "release": 100}    # seconds slept per second worked; what is not followed is not released
CROWD = 1024            # notes waiting from which fewer keys are followed
SPARSEST = 10           # one key in 1024 at least
LEISURE = 5.0           # seconds without a crowd until more keys are followed
ANSWERS = 1024          # answers that wait to be kept near, at most
VARIANTS = 16           # answers kept near of one key, at most
FLUSH = 10.0            # seconds that `flush` takes, at most
ASK = 64                # keys whose expiry is asked for at a time
ASK_EVERY = 0.25        # seconds between two such times


class Watcher(Listener):
    """Sees commands and their answers; `adapt` says what for."""

    def __init__(self, address: Address, adapt: Adapt, encode: Callable[[Any], bytes]) -> None:
        self._sample_of = Sample() if adapt.fleet is None else Shared(adapt.fleet)
        super().__init__(Scope(adapt.keys), encode, self._sample_of.number)
        self.address = address
        self.adapt = adapt
        self._mode = "off"
        self._fresh()
        if adapt.mode == "release" and not address.writes:
            self.mode = "observe"
            self.trouble = "nothing can be released here: a replica, or a server that is not known"
        else:
            self.mode = adapt.mode
        PATROL.watchers.add(self)

    def _fresh(self) -> None:
        self._follower = Follower(self.scope, self.encode, self._ledger, max_keys=self.adapt.max_keys, sample=self._sample_of)
        self._follower.real = self._mode == "release"
        self._open(self._follower.books.outside)
        self.trouble = ""
        self._lock = threading.RLock()
        self._began = monotonic()
        self._crowded = self._looked = self._began
        self._left = 0              # notes that were left waiting
        self._each = 5e-6           # seconds that a note takes
        self._asked = 0.0
        self._pause = 0.0
        self._own: Any = None
        self._released: deque[tuple[float, list[Release]]] = deque()
        self._kept: deque[bytes] = deque()
        self._releaser: Any = None
        self._unlinked = 0
        self._near_client: Any = None
        self._answers: deque[tuple[bytes, Any, Any, Any]] = deque()     # that wait for their key's expiry
        fleet: Fleet | None = getattr(self, "fleet", None)
        self.fleet: Fleet | None = None
        if fleet is not None:
            fleet.abandon()         # of the process that this one was forked from

    def keep(self, key: bytes, ticket: Any, name: Any, answer: Any) -> None:
        """Keep an answer near: now, if its key's expiry is known, or when it is."""
        entry = self._follower.entries.get(key)
        if entry is not None:
            self._put_near(key, ticket, name, answer, entry.ends)
        elif len(self._answers) < ANSWERS:
            self._answers.append((key, ticket, name, answer))

    def _put_near(self, key: bytes, ticket: Any, name: Any, answer: Any, ends: float) -> None:
        near = self.near
        if near is not None:
            # Whatever else is held of the key has not been invalidated either, if this is accepted.
            others = near.get(key) or {}
            near.put(ticket, {**(others if len(others) < VARIANTS else {}), name: answer}, ttl=None if ends == inf else max(0.0, ends - ticket.began))

    def _failed(self) -> None:
        """A watcher that raises is taken away, and the application goes on."""
        _log.exception("adaptcache.redis: watching %s raised and is off", self.address.label)
        self.watching = False
        self.trouble = "watching raised an exception and is off; see the log"

    # -- what people ask

    @property
    def mode(self) -> str:
        return self._mode

    @mode.setter
    def mode(self, mode: str) -> None:
        check_mode(mode)
        if mode == "release" and not self.address.writes:
            raise ValueError("mode: 'release' is not accepted for a replica or an unknown server; the accepted values are 'off' and 'observe'")
        with self._lock:
            if mode == self._mode:
                return
            self._stop()
            self._mode = mode
            self._follower.real = mode == "release"
            self.trouble = ""
            self.watching = mode != "off"
            if self.watching and self.waiting:
                PATROL.wake()       # a command that was on its way meanwhile: the next one will not be the first that is held

    def _stop(self) -> None:
        """Forget what is known of keys: nobody sees what becomes of them meanwhile."""
        self.watching = False
        self.held.take()
        self.queue.clear()
        fleet, self.fleet, self._follower.on_sample = self.fleet, None, None
        if fleet is not None:
            fleet.close()           # first: that keys are forgotten here is nothing to tell
        self._follower.clear(monotonic())
        self._follower.close()
        self._released, self._kept = deque(), deque()       # whoever still releases for what is forgotten has the old ones
        if self._releaser is not None:
            self._unlinked += self._releaser.stats().released
            self._releaser.close()
            self._releaser = self._follower.on_miss = None
        near, self.near = self.near, None
        if near is not None:
            near.close()
            self._near_client.close()
            self._near_client = None
        self._answers.clear()
        self._hang_up()

    def flush(self) -> None:
        """Look at every command seen so far, now, in this thread, and ask what is to be asked."""
        with self._lock:
            end = monotonic() + FLUSH       # others may leave notes all the time
            while self.work(inf, asks=True) and monotonic() < end:
                pass
            ledger = self._follower.ledger
            if ledger is not None and self.adapt.expiry.learner == "manual":
                ledger.step()
                self._heard()

    def close(self) -> None:
        self.mode = "off"

    def report(self) -> Report:
        with self._lock:
            self._sift()
            self._look(inf)
            self._heard()
            now = monotonic()
            follower = self._follower
            follower.totals(now)
            lines = follower.books.lines()
            ledger = follower.ledger
            stats = ledger.stats() if ledger is not None else None
            done = self._releaser.stats() if self._releaser is not None else None
            trouble = self.trouble
            if done is not None and not trouble:
                trouble = done.refusal or (f"{done.failed:,} keys could not be unlinked and stay until their own expiry" if done.failed else "")
            trouble = trouble or self._apart()
            return Report(
                self._mode, self.address.label, now - self._began, self._counted, self.dropped, len(follower.entries) << follower.shift,
                1 << follower.shift, *follower.books.asked(),
                sum(one.held for one in lines.values()), sum(one.released for one in lines.values()),
                sum(one.saved for one in lines.values()), sum(one.extra_misses for one in lines.values()),
                self._unlinked + (done.released if done else 0),
                stats.protected if stats else 0, stats.premature if stats else 0, stats.premature_budget if stats else 1.0,
                stats.in_flight if stats else 0, lines, trouble)

    def _apart(self) -> str:
        """What keeps this watcher from learning with its fleet, or ""."""
        name, fleet = self.adapt.fleet, self.fleet
        if name is None or not self.watching:
            return ""
        if not self.address.writes:
            return f"the fleet {name} cannot be joined here: a replica, or a server that is not known"
        said = None if fleet is None else fleet.stats()
        if said is not None and said.differs:
            return f"the fleet {name} learns under other rules, so this process learns by itself"
        return f"the fleet {name}: the server does not answer" if said is not None and said.failed else ""

    @property
    def share(self) -> float:
        """Seconds that the daemon sleeps per second of work here."""
        return SHARE[self._mode]

    def forked(self) -> None:
        """In the child of a fork: no thread, no connection, no notes, nothing known."""
        self._fresh()

    # -- in the background

    def work(self, seconds: float, asks: bool = False) -> bool:
        """Look at notes for about so long; whether there was anything to do."""
        with self._lock:
            follower = self._follower
            now = monotonic()
            self._sift()
            waiting = len(self.queue)
            self._pace(waiting, now)
            self._heard()
            began, looked = thread_time(), monotonic()
            self._look(seconds)
            self._left = len(self.queue)
            if waiting > self._left and follower.ledger is not None:
                each = (thread_time() - began) / (waiting - self._left)
                # What loads the learner, or stands in line behind it, says nothing of a note.
                self._each += 0.1 * (min(each, 1e-4) - self._each) if monotonic() - looked < 0.1 else 0.0
            try:
                follower.settle(now)
                self.mask = follower.mask       # it may have found that there are too many keys
                if self.watching:
                    if self.adapt.near is not None and self.near is None:
                        self._come_near(now)
                    if self.adapt.fleet is not None and self.fleet is None and follower.ledger is not None:
                        self._join(self.adapt.fleet, now)
                    if (follower.wanted or self._answers) and (asks or now - self._asked > ASK_EVERY):
                        waiting += self._ask(now, forced=asks)
            except Exception:
                self._failed()
            return waiting > 0

    def _pace(self, waiting: int, now: float) -> None:
        """Follow fewer keys when notes come faster than they can be looked at, and more when there is leisure."""
        shift = self._follower.shift
        came = max(0, waiting - self._left) / max(now - self._looked, 1e-3)
        self._looked = now
        possible = 1 / (self.share * self._each)
        if waiting > CROWD and came > possible and now - self._crowded > 0.1 and shift < SPARSEST:
            self._sample(shift + 1, now)
        elif waiting < CROWD // 4 and shift and now - self._crowded > LEISURE and 2 * len(self._follower.entries) <= self.adapt.max_keys:
            self._sample(shift - 1, now)

    def _look(self, seconds: float) -> None:
        queue, follower = self.queue, self._follower
        began = thread_time()
        try:
            while queue and thread_time() - began <= seconds:
                for _ in range(min(16, len(queue))):
                    verb, matter, at = queue.popleft()
                    if verb == BLIND:
                        self._blind()
                        return
                    follower.note(verb, matter, at)
        except Exception:
            self._failed()

    def _sample(self, shift: int, now: float) -> None:
        self._crowded = now
        self._follower.sample(shift)
        self.mask = self._follower.mask

    def _blind(self) -> None:
        """A client changed its database under us."""
        self._stop()
        self._mode = "off"
        self.trouble = "a client selected another database (SELECT or RESET), so its keys can no longer be told apart"

    def _ask(self, now: float, forced: bool) -> bool:
        """Ask the server for the expiry of some keys, which leaves their age alone."""
        if now < self._pause and not forced:
            return False
        self._asked = now
        follower = self._follower
        answers = [self._answers.popleft() for _ in range(min(len(self._answers), ASK))]
        keys = list({**dict.fromkeys(islice(follower.wanted, ASK)), **dict.fromkeys(one[0] for one in answers)})
        try:
            with self._connection().pipeline(transaction=False) as pipe:
                for key in keys:
                    pipe.pttl(key)
                said = pipe.execute(raise_on_error=False)
        except (redis.RedisError, OSError) as error:
            # The application's own commands will tell; we try again later, with what is then wanted.
            self.trouble = f"cannot ask {self.address.label} for expiries: {error!r:.200}"
            self._pause = now + 5.0
            follower.wanted.clear()
            self._hang_up()
            return False
        if self.trouble.startswith("cannot ask"):
            self.trouble = ""               # it answers again
        at = monotonic()
        left = {key: one if isinstance(one, int) else None for key, one in zip(keys, said, strict=True)}
        for key, answer in left.items():
            if key in follower.wanted:
                follower.lives(key, -2 if answer is None else answer, at)
        for key, ticket, name, reply in answers:
            milliseconds = left[key]
            if milliseconds is not None and milliseconds >= 0:
                self._put_near(key, ticket, name, reply, now + milliseconds / 1000)
            elif milliseconds == -1 or (milliseconds == -2 and reply is None):
                self._put_near(key, ticket, name, reply, inf)
        return True

    def _come_near(self, now: float) -> None:
        if now < self._pause:
            return
        from adaptcache.near import Near

        try:
            self._near_client = self.address.connect()
        except (redis.RedisError, OSError) as error:
            self._pause = now + 5.0
            self.trouble = f"cannot ask {self.address.label} for invalidations: {error!r:.200}"
            return
        self.near = Near(self._near_client, self.adapt.near)

    def _join(self, name: str, now: float) -> None:
        if now < self._pause or not self.address.writes:
            return
        me = ref(self)          # who holds the fleet does not hold this watcher

        def near() -> dict[str, Any] | None:
            watcher = me()
            tier = None if watcher is None else watcher.near
            return None if tier is None else asdict(tier.stats())

        def asked() -> tuple[int, int]:
            watcher = me()
            return (0, 0) if watcher is None else watcher._follower.books.asked()

        try:
            self.fleet = join(self.address, name, self._follower.ledger, near=near, asked=asked)
        except (redis.RedisError, OSError) as error:
            self._pause = now + 5.0
            self.trouble = f"cannot ask {self.address.label} for the fleet {name}: {error!r:.200}"
            return
        if self.trouble.startswith("cannot ask"):
            self.trouble = ""
        self._follower.on_sample = self.fleet.sampled
        self.fleet.sampled(self._follower.shift)

    def _connection(self) -> Any:
        if self._own is None:
            self._own = self.address.connect()
        return self._own

    def rest(self) -> None:
        """Nobody has said anything for a while: let go of our own connection."""
        with self._lock:
            if self._releaser is None:
                self._hang_up()

    def _hang_up(self) -> None:
        own, self._own = self._own, None
        if own is not None:
            own.close()

    # -- the learned side

    def _ledger(self) -> Any:
        """The learned side. It holds queues, not this watcher, so that both go when their clients do."""
        released, kept = self._released, self._kept
        releaser = None
        if self._mode == "release":
            # Keys that were never given an expiry may go where the user named them.
            releaser = Releaser(self._connection(), expiring=all(_taken_out(one) for one in self.adapt.keys or ()))

        def release(some: list[Release]) -> None:
            released.append((monotonic(), some))
            if releaser is not None:
                releaser.release(some)

        said: dict[str, Any] = {"on_touch": releaser.touch if releaser is not None else None, "maxsize": self.adapt.max_keys, "on_release": release,
                                "break_even_ttl": 2.0 if self.adapt.expiry.memory_price is None else None}
        if isinstance(self._sample_of, Shared):
            joined = Joined(self.adapt.expiry, salt=self._sample_of.salt, **said)
            joined.sample = self._sample_of
            ledger: Told = joined
        else:
            ledger = Told(self.adapt.expiry, **said)
        ledger.stayed = kept
        if releaser is not None:
            releaser.attach(ledger)
            self._releaser = releaser
            self._follower.on_miss = releaser.missed
        return ledger

    def _heard(self) -> None:
        follower = self._follower
        while self._released:
            at, releases = self._released.popleft()
            follower.released([one.key for one in releases], at)
        while self._kept:
            follower.kept([self._kept.popleft()], monotonic())


def _taken_out(pattern: str | bytes) -> bool:
    return pattern[:1] in ("!", b"!")
