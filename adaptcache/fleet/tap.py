"""The tap: what a worker was asked about a sample of the keys, on its way to the fleet's stream.

A request compares one number with a threshold; only those of sampled keys leave a note. Keys are sampled by their
salted number, the same in every worker, and halving the sample keeps half of the keys whole. What comes too fast
is not queued: the sample is halved first, and what does not fit then is counted as dropped. Nothing here waits,
or knows a server.
"""
from __future__ import annotations

from collections import deque
from collections.abc import Hashable

from adaptcache.fleet.batches import MOST, UNKNOWN, Event, Features
from adaptcache.fleet.names import NUMBERS
from adaptcache.ledger import GOT, PUT

EACH = 16           # hits of one key between two batches that are told one by one
MOST_LEVEL = 40     # halvings
CALM = 20           # rounds with few events before the sample is doubled again


class Tap:
    """Notes of events, at most `room` between two batches. A listener of a ledger."""

    def __init__(self, *, room: int = MOST) -> None:
        self._room = min(room, MOST)
        self._notes: deque[Event] = deque()
        self._often: dict[int, int] = {}
        self._stopped = False
        self._calm = 0
        self.need = 0           # halvings that this worker's load asks for
        self.fleet = 0          # halvings that the fleet asks for
        self.own = 0            # halvings that were made before anything comes here: of other keys the ledger does not hear
        self.kept = NUMBERS     # numbers up to this one are in the sample
        self.dropped = 0        # events that did not fit
        self.folded = 0         # hits of keys that are asked for all the time
        self.cost = 0.0         # of sampled misses, scaled to all of them

    @property
    def level(self) -> int:
        """How often the sample is halved now."""
        return max(self.need, self.fleet, self.own)

    # -- on the request's path

    def __call__(self, kind: int, number: int, at: float, size: float, cost: float | None, ttl: float | None, namespace: Hashable,
                 features: Features | None) -> None:
        """As a ledger tells its listener."""
        if number > self.kept:
            return
        if kind == PUT:
            if cost is not None:
                self.cost += cost * (1 << self.level)
            self._note(Event(number, at, PUT, size, UNKNOWN if cost is None else cost, UNKNOWN if ttl is None else ttl, namespace, features))
        elif kind == GOT:
            often = self._often.get(number, 0)
            self._often[number] = often + 1
            if often < EACH:
                self._note(Event(number, at, GOT))
            else:
                self.folded += 1
        else:
            self._note(Event(number, at, kind))

    def _note(self, event: Event) -> None:
        if len(self._notes) >= self._room:
            self.dropped += 1
            self._halve()
            return
        self._notes.append(event)

    def _halve(self) -> None:
        """Too much for one batch: half of the keys from here on, and of what waits."""
        self.need = min(MOST_LEVEL, self.level + 1)
        self._set()
        kept, before = self.kept, len(self._notes)
        for _ in range(before):
            try:
                event = self._notes.popleft()
            except IndexError:      # another thread takes them out
                break
            if event.number <= kept:
                self._notes.append(event)
            else:
                self.dropped += 1

    def _set(self) -> None:
        if not self._stopped:
            self.kept = NUMBERS >> self.level

    # -- for the thread that sends

    def take(self) -> list[Event]:
        """What was noted since the last call."""
        self._often = {}
        out = []
        for _ in range(len(self._notes)):
            try:
                out.append(self._notes.popleft())
            except IndexError:
                break
        return out

    def pace(self, events: int, allowed: float) -> None:
        """This round there were `events`, and `allowed` are wanted at the most: halve the sample, or double it after a while."""
        if events > allowed:
            self.need = min(MOST_LEVEL, self.level + 1)
            self._calm = 0
        elif events * 3 < allowed and self.need:
            self._calm += 1
            if self._calm >= CALM:
                self.need -= 1
                self._calm = 0
        else:
            self._calm = 0
        self._set()

    def follow(self, level: int) -> None:
        """The fleet's sample is halved so often."""
        self.fleet = max(0, min(MOST_LEVEL, level))
        self._set()

    def sampled(self, own: int) -> None:
        """Nobody tells of keys beyond this many halvings any more."""
        if own != self.own:
            self.own = max(0, min(MOST_LEVEL, own))
            self._set()

    def stop(self) -> None:
        """Note nothing more; whoever calls finds out by one comparison."""
        self._stopped = True
        self.kept = -1
        self._notes.clear()
