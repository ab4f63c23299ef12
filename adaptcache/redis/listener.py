"""What runs beside each command of the application, in its threads: the command and its answer are held, and that is all.

Between two calls of the kernel's every further line of code is read from memory anew, and costs ten times what it costs in a loop. HELD
of them are looked at together, in a loop, and leave notes without the values on a bounded queue (`sift`). Where keys are sampled, one in
two, in four and so on by their hash, reads of the others are counted here and leave no note; what finds the queue full is counted and
dropped.

This file knows neither what a note means nor who takes it off the queue.
"""
from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from time import monotonic
from typing import Any

from adaptcache._core import Held, outside
from adaptcache.redis.books import Outside
from adaptcache.redis.commands import NEAR, PART, PLANS, SINGLE, UNKNOWN, VALUE, Args, plan_of
from adaptcache.redis.nearby import forget
from adaptcache.redis.options import Scope
from adaptcache.redis.patrol import PATROL

HELD = 64               # commands kept until they are looked at, at most
LARGE = 1 << 12         # bytes of a value that is not kept
LIMIT = 1 << 14         # notes that wait, at most
DRAWN = 64              # reads without a note, of which one stands for all when it comes to namespaces


class Listener:
    """Leaves notes of commands on its `queue`."""

    def __init__(self, scope: Scope, encode: Callable[[Any], bytes], number: Callable[[Any], int]) -> None:
        self.scope = scope
        self.encode = encode
        self.number = number            # of a key, by which it is in a sample or not
        self.watching = False
        self._open(Outside())

    def _open(self, outside: Outside) -> None:
        """Nothing was heard yet; reads that leave no note are counted in `outside`."""
        self.queue: deque[tuple[int, Any, float]] = deque()
        self.held = Held(HELD, LARGE)   # commands, answers and when they were sent
        self.mask = 0                   # keys whose number has one of these bits leave no note
        self.dropped = 0
        self.near = None                # the tier in this process that must hear of writes
        self._counted = 0
        self._outside = outside
        self._sifting = threading.RLock()

    @property
    def near(self) -> Any:
        return self._near

    @near.setter
    def near(self, near: Any) -> None:
        self._near = near
        self.held.at_once = near is not None    # one's own writes are seen at once

    @property
    def waiting(self) -> bool:
        return bool(self.held or self.queue)

    def saw(self, args: Args, reply: Any, at: float) -> None:
        """A command that was answered. It was sent at `at`, on the monotonic clock."""
        if said := self.held.keep(args, reply, at):
            self.heed(said)

    def heed(self, said: int) -> None:
        """What `held.keep` asks for. A client calls both by itself, which is half of what `saw` costs."""
        try:
            if said > 1:
                self.sift()
            if not PATROL.awake:
                PATROL.wake()
        except Exception:
            self._failed()

    def sift(self) -> None:
        """Leave notes of the commands that are held."""
        with self._sifting:         # in the order in which they came
            ones = self.held.take()
            self._counted += len(ones)
            if self.near is not None:
                forget(self.near, self.encode, map(_command, ones))
            if self.mask:
                ones = [one for one, _ in self._within(ones, _command, [one[1] for one in ones])]
            for one in ones:
                self._note(*one)

    def _note(self, args: Args, reply: Any, at: float) -> None:
        plan = PLANS.get(args[0])
        if plan is None:
            plan, args = plan_of(args)
        if plan.verb == 0:
            return
        if len(self.queue) < LIMIT:
            self.queue.append((plan.verb, plan.pack(args, reply), at))
        else:
            self.dropped += 1
            if plan.kind:
                self._unnoted(plan.kind, args[1], reply)

    def _unnoted(self, kind: int, key: Any, reply: Any) -> None:
        """A read that leaves no note is counted all the same."""
        outside = self._outside
        if reply is not None and (kind == VALUE or reply):
            hit = True
            outside.hits += 1       # by threads that meet, one may be lost now and then
        elif kind == PART:
            return
        else:
            hit = False
            outside.misses += 1
        if not outside.draw(DRAWN):
            outside.note(self.scope.of(self.encode(key))[1], hit, DRAWN)

    def saw_all(self, held: Sequence[Any], command: Callable[[Any], Args], replies: Sequence[Any], at: float, errors: bool) -> None:
        """What a pipeline or transaction held, of which `command` gives the command; with `errors` an answer may be an exception."""
        try:
            self.sift()
            self._counted += len(replies)
            if self.near is not None:
                forget(self.near, self.encode, map(command, held))
            pairs: Iterable[tuple[Args, Any]] = zip(map(command, held), replies, strict=False)
            if self.mask and not (errors and any(isinstance(reply, Exception) for reply in replies)):
                pairs = [(command(one), reply) for one, reply in self._within(held, command, replies)]
            put, planned = self.queue.append, PLANS.get
            room = LIMIT - len(self.queue)
            for args, reply in pairs:
                plan = planned(args[0])
                if plan is None:
                    plan, args = plan_of(args)
                verb = plan.verb
                if verb == 0:
                    continue
                if room <= 0:
                    self.dropped += 1
                    if plan.kind and not isinstance(reply, Exception):
                        self._unnoted(plan.kind, args[1], reply)
                    continue
                room -= 1
                if not isinstance(reply, Exception):
                    put((verb, plan.pack(args, reply), at))
                elif plan.writes:
                    put((UNKNOWN, plan.keys(args), at))
            if not PATROL.awake:
                PATROL.wake()
        except Exception:
            self._failed()

    def _within(self, held: Sequence[Any], command: Callable[[Any], Args], replies: Sequence[Any]) -> list[tuple[Any, Any]]:
        """Those of `held`, with their answers, that are not about one key outside of the sample; reads among the others are counted."""
        among = max(len(replies), DRAWN)
        within, hits, misses, hit, miss = outside(held, command, replies, self.mask, self.number, SINGLE, self._outside.draw(among))
        self._outside.hits += hits
        self._outside.misses += misses
        for key, found in ((hit, True), (miss, False)):
            if key is not None:
                self._outside.note(self.scope.of(self.encode(key))[1], found, among)
        return within

    def failed(self, commands: Iterable[Args], at: float) -> None:
        """Commands of which nobody knows whether they were done."""
        try:
            self.sift()
            if self.near is not None:
                commands = list(commands)
                forget(self.near, self.encode, commands)
            for args in commands:
                if not args:
                    continue
                plan = PLANS.get(args[0])
                if plan is None:
                    plan, args = plan_of(args)
                self._counted += 1
                if plan.writes and len(self.queue) < LIMIT:
                    self.queue.append((UNKNOWN, plan.keys(args), at))
            if not PATROL.awake:
                PATROL.wake()
        except Exception:
            self._failed()

    def near_hit(self, keys: list[bytes]) -> None:
        """These were answered in this process."""
        self._sift()
        self._counted += 1
        if len(self.queue) < LIMIT:
            self.queue.append((NEAR, keys, monotonic()))
            if not PATROL.awake:
                PATROL.wake()

    def _sift(self) -> None:
        try:
            self.sift()
        except Exception:
            self._failed()

    def _failed(self) -> None:
        """Called in the handler of an exception of our own: the application must not hear of it."""
        raise NotImplementedError


_command: Callable[[Any], Args] = itemgetter(0)
