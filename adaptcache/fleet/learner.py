"""The learner: reads what all workers were asked, trains a pupil on it, publishes what the pupil knows.

`step` does a bounded piece of that and says how long to wait for the next; whoever calls it, a thread of a worker or a
process of its own, need know no more. Until it is elected it only stands for election. What it knows it has from the
published model and from the stream since, so a learner that takes over goes on where the last one left, and one that is lost
loses what came after its last publication until the next one has read that again.
"""
from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from adaptcache.errors import StateError
from adaptcache.expiry import Learned
from adaptcache.fleet import models
from adaptcache.fleet.batches import Batch, Event, unpack
from adaptcache.fleet.configuration import Configuration
from adaptcache.fleet.election import Office
from adaptcache.fleet.models import About
from adaptcache.fleet.names import NUMBERS, Names
from adaptcache.fleet.pupil import Pupil, differing
from adaptcache.fleet.server import Server, ServerTime

START = "0-0"
ROOM = 50_000           # events that wait for their turn, at the most
READ = 16               # batches of one reading
SLICE = 0.02            # seconds of learning in a step
FIRST = 200             # waits learned from before the first model is published
ALIVE = 30.0            # seconds after which a sender that is silent has no say in the sample
LAST = 1.0              # seconds of learning at the end
LATE = 20.0             # seconds of never being abreast of the stream that are too many

Tell = Callable[..., None]      # (what, **details): see fleet.worker.EVENTS


@dataclass
class Seen:
    """What a process knows of the fleet's models: the highest (fence, version) of one that was whole."""

    order: tuple[int, int] = (0, 0)

    def note(self, about: About) -> None:
        self.order = max(self.order, about.order)


class Learner:
    """One candidate for the office, and what it learns while it holds it.

    rules       of the fleet: which salt, and how a value's size is meant
    spec        under whose rules to learn: price, window, predictors
    publish     seconds between two models; at least `rest` times what making one takes
    hold        seconds that a batch waits for those of other workers, so that events come in order
    share       of one core, at the most
    """

    def __init__(self, server: Server, names: Names, rules: Configuration, spec: Learned, *, tell: Tell, seen: Seen | None = None, lock_time: float = 5.0,
                 publish: float = 10.0, hold: float = 1.0, share: float = 0.1) -> None:
        self._server, self._names, self._rules, self._spec, self._tell = server, names, rules, spec, tell
        self._seen = Seen() if seen is None else seen
        self._lock_time, self._publish, self._hold, self._share = lock_time, publish, hold, share
        self.office = Office(server, names, lock_time)
        self.time = ServerTime(time.monotonic)
        self.pupil: Pupil | None = None
        self.version = 0
        self.skipped = 0        # batches that were none, or other fleets'
        self.trimmed = 0        # batches that were gone before they were read
        self.published = 0
        self.level = 0
        self.rest = 100.0
        self._next_stand = self._renewed = self._looked = 0.0
        self._forget()

    def _forget(self) -> None:
        self.pupil = None
        self._position, self._index = START, 0
        self._batches: deque[tuple[str, int, float]] = deque()      # (id, index after it, latest event), read but not learned
        self._waiting: list[tuple[float, int, Event]] = []          # a heap
        self._arrived: deque[tuple[float, float]] = deque()         # (when it was read, latest event)
        self._serial = 0
        self._ripe = float("-inf")      # events up to here may be learned from
        self._upto = float("-inf")      # and up to here were
        self._again: tuple[str, float] = (START, 0.0)               # up to this batch, events up to this time are known already
        self._senders: dict[int, tuple[int, int, float]] = {}
        self._extra = 0
        self._abreast = time.monotonic()        # when all that was ripe had been learned
        self._raised = self._told_level = 0.0
        self._made = 0.0
        self._took = 0.0                # seconds that the last publication took
        self._events = 0                # learned from when last published

    # -- a step

    def step(self) -> float:
        """A bounded piece of work; seconds until the next one. Raises what redis-py raises."""
        now = time.monotonic()
        if not self.office.held:
            if self.pupil is not None:
                return self._lost()
            if now < self._next_stand:
                return self._next_stand - now
            self._next_stand = now + self._lock_time / 3
            if not self.office.stand(self._seen.order[0]):
                return self._lock_time / 3
            self._renewed = now
            self._begin()
        elif not self.keep():
            return self._lost()
        began = time.thread_time()
        if now - self._looked >= 5.0 or not self.time.known:
            self._look(now)
        read = self._read(now) if len(self._waiting) < ROOM else 0
        more = self._learn(now)
        if not more:
            self._abreast = now
        self._pace(now)
        if now - self._made >= max(self._publish, self.rest * self._took) and not self._issue():
            return self._lost()
        spent = time.thread_time() - began
        rest = spent / self._share - spent
        # Never so long that the office is lost over it.
        return min(1.0, self._lock_time / 6, rest if more or read else max(rest, 0.25))

    def keep(self) -> bool:
        """Renew the office if it is held and time to; False when it is lost. Another thread may do so while `step` runs."""
        now = time.monotonic()
        if self.office.held and now - self._renewed >= self._lock_time / 3:
            self._renewed = now
            return self.office.renew()
        return self.office.held

    def close(self) -> None:
        """Publish what can be learned within a second, and let the next one in. Raises what redis-py raises."""
        if self.office.held:
            if self.pupil is not None:
                self._ripe, end = float("inf"), time.monotonic() + LAST
                while self._learn(time.monotonic()) and time.monotonic() < end:
                    pass
                self._issue()
            self.office.leave()
        self._forget()

    def _lost(self) -> float:
        self._tell("learner_lost", name=self._names.name)
        self._forget()
        self._next_stand = time.monotonic() + self._lock_time / 3
        return self._lock_time / 3

    # -- the office

    def _begin(self) -> None:
        """Elected: go on from the published model, if it is whole and of our configuration."""
        self._forget()
        self.pupil = Pupil(self._spec, even=self._rules.even)
        body = self._server.client.hget(self._names.model, "body")
        if body is not None:
            try:
                known, about = models.loads(body)
                if known.config != self.pupil.configuration:
                    raise StateError(differing(known.config, self.pupil.configuration))
                if about.rules != self._rules.rules:
                    raise StateError("learned under another salt, miss cost or break-even time")
                self.pupil.install(known)
                self._seen.note(about)
                self.version, self._position, self._index = about.version, about.position, about.index
                self._again, self._upto = (about.read, about.upto), about.upto
                self.pupil.events = self._events = about.events
            except StateError as error:
                self._tell("model_refused", reason=str(error))
        self._made = time.monotonic()
        self._tell("learner_elected", name=self._names.name, fence=self.office.fence)

    def _issue(self) -> bool:
        """Publish, if there is anything new; False when the office is lost."""
        assert self.pupil is not None
        if self.pupil.events == self._events or (not self.published and not self.version and self.pupil.waits < FIRST):
            return True
        began = time.perf_counter()
        while self._batches and (not self._waiting or self._batches[0][2] < self._waiting[0][0]):
            self._position, self._index, _ = self._batches.popleft()
        about = About(self.office.fence, self.version + 1, self.time.now(), self.pupil.events, self._position, self._index,
                      self._at()[0], max(self._upto, 0.0), self._rules.rules)
        body = models.dumps(self.pupil.knows(), about)
        if not self.office.publish({"fence": about.fence, "version": about.version, "made": f"{about.made:.3f}", "body": body}):
            return False
        self.version = about.version
        self._seen.note(about)
        self._events = about.events
        self.published += 1
        self._made = time.monotonic()
        self._took = time.perf_counter() - began
        self._tell("model_published", fence=about.fence, version=about.version, bytes=len(body), events=about.events)
        return True

    # -- the stream

    def _look(self, now: float) -> None:
        self.time.look(self._server, self._names.stream)
        self._looked = now

    def _read(self, now: float) -> int:
        """Batches from the stream into the queue; how many there were."""
        at = self._at()
        position = at[0]
        with self._server.client.pipeline(transaction=False) as pipe:
            pipe.xinfo_stream(self._names.stream)
            pipe.xread({self._names.stream: position}, count=READ)
            info, got = pipe.execute(raise_on_error=False)
        if isinstance(info, Exception):
            if "no such key" in str(info):
                return 0
            raise info
        if isinstance(got, Exception):
            raise got
        index = self._place(info, *at)
        entries = _entries(got) if self._at()[0] == position else []      # else it was read from the wrong place
        for number, (name, fields) in enumerate(entries, 1):
            batch = unpack(fields.get(b"b"), salt=self._rules.salt)
            latest = float("-inf")
            if isinstance(batch, Batch):
                latest = self._queue(batch, name.decode(), now)
            else:
                self.skipped += 1
                self._tell("batch_skipped", reason=batch.reason)
            self._batches.append((name.decode(), index + number, latest))
        return len(entries)

    def _at(self) -> tuple[str, int]:
        return self._batches[-1][:2] if self._batches else (self._position, self._index)

    def _place(self, info: Any, position: str, index: int) -> int:
        """How many batches came before the next one that is read; what was lost is told."""
        added, length = int(info["entries-added"]), int(info["length"])
        first = added - length      # so many are gone from the front
        last = info["last-generated-id"]
        if added < index or _order(last.decode() if isinstance(last, bytes) else str(last)) < _order(position):
            # The server has lost its memory: this is another stream.
            self._restart(first)
            self._tell("stream_began_anew", name=self._names.name)
            return first
        if first > index:
            lost = first - index
            if index or position != START:
                self.trimmed += lost
                self._tell("stream_trimmed", batches=lost)
                assert self.pupil is not None
                self.pupil.miss_some()
            return first
        return index

    def _restart(self, index: int) -> None:
        self._position, self._index, self._again = START, index, (START, 0.0)
        self._batches.clear()

    def _queue(self, batch: Batch, name: str, now: float) -> float:
        self._senders[batch.sender] = (batch.level, batch.need, now)
        latest = batch.events[-1].at if batch.events else float("-inf")
        known = self._again[1] if _order(name) <= _order(self._again[0]) else float("-inf")
        for event in batch.events:
            if event.at <= known:
                continue
            self._serial += 1
            heapq.heappush(self._waiting, (event.at, self._serial, event))
        if batch.events:
            self._arrived.append((now, latest))
        return latest

    def _learn(self, now: float) -> bool:
        """Teach the pupil what has its turn; True when there is more of it."""
        assert self.pupil is not None
        while self._arrived and now - self._arrived[0][0] >= self._hold:
            self._ripe = max(self._ripe, self._arrived.popleft()[1])
        # A sample is what all senders have in common: of other keys some requests are not told.
        whole = NUMBERS >> max([level for level, _, _ in self._senders.values()], default=0)
        end = time.thread_time() + SLICE
        waiting = self._waiting
        while waiting and waiting[0][0] <= self._ripe:
            piece: list[Event] = []
            while waiting and waiting[0][0] <= self._ripe and len(piece) < 64:
                event = heapq.heappop(waiting)[2]
                if event.number <= whole:
                    piece.append(event)
                self._upto = max(self._upto, event.at)
            self.pupil.tell(piece)
            if time.thread_time() >= end:
                return bool(waiting and waiting[0][0] <= self._ripe)
        if self.time.known and 0 <= self.time.now() - self._ripe < ALIVE:
            self.pupil.pass_time(self._ripe)
        return False

    def _pace(self, now: float) -> None:
        """Say which sample of the keys the fleet is to tell of."""
        for sender, (_, _, heard) in list(self._senders.items()):
            if now - heard > ALIVE:
                del self._senders[sender]
        late = len(self._waiting) >= ROOM // 2 or now - self._abreast > LATE
        if late and now - self._raised > LATE:
            self._extra, self._raised = self._extra + 1, now
        elif self._extra and not late and now - self._raised > 3 * LATE:
            self._extra, self._raised = self._extra - 1, now
        level = max([need for _, need, _ in self._senders.values()], default=0) + self._extra
        if level != self.level or now - self._told_level > 20:
            self._server.client.set(self._names.level, level, px=60_000)
            self.level, self._told_level = level, now

    def forked(self) -> None:
        """In a forked child: the office is its parent's."""
        self.office = Office(self._server, self._names, self._lock_time)
        self._next_stand = 0.0
        self._forget()

    # -- for people

    def about(self) -> dict[str, Any] | None:
        """What a snapshot tells of it; None while somebody else learns."""
        pupil = self.pupil
        if not self.office.held or pupil is None:
            return None
        return {"fence": self.office.fence, "version": self.version, "events": pupil.events, "waits": pupil.waits,
                "waiting": len(self._waiting), "skipped": self.skipped, "trimmed": self.trimmed, "published": self.published}


def _order(name: str) -> tuple[int, int]:
    ms, _, serial = name.partition("-")
    return int(ms), int(serial or 0)


def _entries(got: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """Of one stream, whatever shape the protocol gives the answer."""
    if not got:
        return []
    if isinstance(got, dict):
        entries = next(iter(got.values()))
        # RESP3 wraps them once more.
        entries = entries[0] if entries and isinstance(entries[0], list) else entries
    else:
        entries = got[0][1]
    return [(name, fields) for name, fields in entries if fields]
