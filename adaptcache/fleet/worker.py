"""`Fleet`: one worker's part in a fleet that learns together.

A background thread tells the stream what the worker's ledger was asked, installs models that the elected learner
publishes, shows a snapshot of this worker, and stands for election where `learn=True`. The request's path sees none of
it but one comparison a request. Whatever fails here, the worker goes on with what it knows: its ledger always learns from its own
requests.
"""
from __future__ import annotations

import json
import logging
import os
import random
import secrets
import socket
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from adaptcache import _core, checks
from adaptcache.errors import StateError
from adaptcache.fleet import models
from adaptcache.fleet.batches import pack
from adaptcache.fleet.configuration import Configuration
from adaptcache.fleet.learner import Learner, Seen
from adaptcache.fleet.models import About
from adaptcache.fleet.names import Names
from adaptcache.fleet.pupil import differing
from adaptcache.fleet.server import RAISE, Server, ServerTime, Trouble
from adaptcache.fleet.tap import Tap
from adaptcache.ledger import Ledger

_log = logging.getLogger("adaptcache")

EVENTS = (
    "cut_off",              # reason: the server does not answer; the worker learns by itself
    "back",                 # it answers again
    "model_installed",      # fence, version, events
    "model_refused",        # reason; nothing was changed
    "configuration_differs",    # fleet, here: the fleet learns under other rules, and its models are no good here
    "learner_elected", "learner_lost", "model_published", "stream_trimmed", "stream_began_anew", "batch_skipped",   # of the learner
)
MAXLEN = 1000           # batches in the stream, about
FULL = 4                # workers that may tell at their full rate; more share what these would tell
SLOWEST = 2.0           # seconds between two batches of a worker in a large fleet
LIVES = 6.0             # seconds that a snapshot outlives its worker
SILENT = 60.0           # seconds after which a worker is taken off the list


@dataclass(frozen=True)
class FleetStats:
    """This worker's part at one moment.

    connected       the last round reached the server
    failed          the last round did not (neither before the first one)
    workers         how many there are, this one included, as last seen
    sent, dropped   events that are in the stream, and that could not be delivered or did not fit
    folded          hits of keys that are asked for all the time, which were told of in part
    level           how often the sample of keys is halved
    fence, version, made, model_events   of the model in use; zeros: none was installed yet
    installed, refused                   how many models were
    learning        the fence of this worker's learner; 0: somebody else learns
    differs         the fleet learns under other rules: this worker learns by itself
    """

    connected: bool
    workers: int
    sent: int
    dropped: int
    folded: int
    level: int
    fence: int
    version: int
    made: float
    model_events: int
    installed: int
    refused: int
    learning: int
    differs: bool = False
    failed: bool = False


class Fleet:
    """Joins the ledger of a worker to a fleet.

    client      a URL, or a client of redis-py of any kind; the fleet makes a plain one of its own from it. Or a callable that makes
                one, without decode_responses, which is the fleet's then
    name        of the fleet: letters, digits, '_', '.', ':' and '-'
    ledger      the worker's `Ledger`. All workers of a fleet give theirs the same salt
    learn       stand for election: one worker of the fleet, or a process `adaptcache learner`, learns for all
    near        callable giving the near cache's state as a mapping, for the snapshot
    asked       callable giving (hits, misses) of this worker for the snapshot; None: those that the ledger was told of
    rate        events a second that this worker tells of at the most; above it fewer keys are told of
    interval    seconds between two rounds
    publish     seconds between two models, if this worker is the one that learns
    lock_time   seconds after which a learner that is gone is replaced
    on_event    called as (what, details) from the background thread: see `EVENTS`. One that raises is not called again

    A context manager that starts and closes. ValueError and TypeError name the argument.
    """

    def __init__(self, client: Any, name: str, ledger: Ledger, *, learn: bool = True, near: Callable[[], Mapping[str, Any] | None] | None = None,
                 asked: Callable[[], tuple[int, int]] | None = None,
                 rate: float = 1000.0, interval: float = 0.25, publish: float = 10.0, lock_time: float = 5.0,
                 on_event: Callable[[str, Mapping[str, Any]], object] | None = None) -> None:
        self._names = Names(name)
        if not isinstance(ledger, Ledger):
            raise TypeError(f"ledger: expected an adaptcache.ledger.Ledger, got {type(ledger).__name__}")
        if ledger.listener is not None:
            raise ValueError("ledger: somebody listens to it already; a ledger is of one fleet")
        for argument, value, low in (("rate", rate, 1.0), ("interval", interval, 0.01), ("publish", publish, 0.1), ("lock_time", lock_time, 0.1)):
            checks.number(argument, value, f"a finite number from {low}", low, 1e9)
        for argument, call in (("near", near), ("asked", asked), ("on_event", on_event)):
            if call is not None and not callable(call):
                raise TypeError(f"{argument}: expected a callable or None, got {type(call).__name__}")
        cache, spec = ledger.cache, ledger.expiry
        self._ledger, self._cache, self._spec, self._near, self._on_event = ledger, cache, spec, near, on_event
        self._asked = asked
        self._rate, self._interval = float(rate), float(interval)
        self._server = Server(client)
        self._clock: Callable[[], float] = cache.timer or _core.monotonic
        self._time = ServerTime(self._clock)
        self._own_time = cache.timer is not None
        self._seen = Seen()
        self._configuration = Configuration.of(ledger)
        self._tap = Tap()
        self._learner: Learner | None = None
        if learn:
            self._learner = Learner(self._server, self._names, self._configuration, spec, tell=self._tell, seen=self._seen,
                                    lock_time=lock_time, publish=publish)
        self._identify()
        self._connected: bool | None = None
        self._workers = 1
        self._sent = self._lost = self._installed = self._refused = 0
        self._model: About | None = None
        self._turned_down: tuple[Any, ...] = ()     # the model that was refused last
        self._differs = False
        self._rent, self._rented = 0.0, time.monotonic()
        self._round = self._shown = time.monotonic()
        self._next_try = 0.0
        self._failures = 0
        self._wake = threading.Event()
        self._threads: list[threading.Thread] = []
        self._closed = False
        ledger.listener = self._tap
        self._finalizer = weakref.finalize(self, _abandon, self._tap, self._server, self._wake)
        self._finalizer.atexit = False
        _FLEETS.add(self)

    def _identify(self) -> None:
        self._pid = os.getpid()
        self._sender = secrets.randbits(63)
        self.id = f"{socket.gethostname()[:40]}-{self._pid}-{self._sender & 0xFFFF:04x}"
        self._started = time.time()

    # -- life

    def start(self) -> Fleet:
        """Begin the background thread, and the learner's where this worker stands for election."""
        if self._closed:
            raise ValueError("start: this Fleet was closed; make a new one")
        if not any(thread.is_alive() for thread in self._threads):
            self._wake.clear()
            self._threads = [threading.Thread(target=_rounds, args=(weakref.ref(self), self._wake, Fleet._pause), name="adaptcache-fleet", daemon=True)]
            if self._learner is not None:
                self._threads.append(threading.Thread(target=_rounds, args=(weakref.ref(self), self._wake, Fleet._study),
                                                      name="adaptcache-fleet-learner", daemon=True))
            for thread in self._threads:
                thread.start()
        return self

    def close(self) -> None:
        """Tell what was noted, let another worker learn, and stop. Again: nothing."""
        if self._closed:
            return
        self._closed = True
        self._wake.set()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(10.0)
        if self._ledger.listener is self._tap:
            self._ledger.listener = None
        try:
            self.step()
            if self._learner is not None:
                self._learner.close()
            with self._server.client.pipeline(transaction=False) as pipe:
                pipe.delete(self._names.worker(self.id))
                pipe.zrem(self._names.workers, self.id)
                pipe.execute()
        except Trouble as error:
            _log.info("the fleet %s was left without saying so: %r", self._names.name, error)
        self._finalizer()
        _FLEETS.discard(self)

    def __enter__(self) -> Fleet:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- a round

    def _pause(self) -> float:
        """One round for the thread, which never raises what a server can cause; seconds until the next."""
        if time.monotonic() < self._next_try:
            self._lost += len(self._tap.take())     # nothing waits for a server that is gone
            return self._interval
        try:
            self.step()
        except Trouble as error:
            self._failures += 1
            self._next_try = time.monotonic() + min(5.0, self._interval * 2 ** min(self._failures, 10)) * random.uniform(0.5, 1.0)
            if self._connected is not False:
                self._connected = False
                self._tell("cut_off", reason=str(error) or type(error).__name__)
        return max(self._interval, min(SLOWEST, self._workers / 32))

    def _study(self) -> float:
        """A step of the learner, for its thread."""
        assert self._learner is not None
        if self._connected is False or self._differs:
            return self._interval
        try:
            return self._learner.step()
        except Trouble:
            return self._interval       # the other thread tells of it

    def step(self) -> None:
        """One round by hand: tell, look for a model, show a snapshot if it is time. Raises what redis-py raises."""
        now = time.monotonic()
        events = self._tap.take()
        self._tap.pace(len(events), self._rate * min(1.0, FULL / self._workers) * max(now - self._round, self._interval))
        self._round = now
        show = now - self._shown >= 2.0 or self._connected is not True
        names = self._names
        try:
            if show and not self._own_time:
                self._time.look(self._server, names.stream)
            with self._server.client.pipeline(transaction=False) as pipe:
                if events:
                    body = pack([event._replace(at=event.at + self._time.ahead) for event in events], sender=self._sender, level=self._tap.level,
                                need=max(self._tap.need, self._tap.own), salt=self._configuration.salt)
                    pipe.xadd(names.stream, {"b": body}, maxlen=MAXLEN, approximate=True)
                    pipe.expire(names.stream, 86_400)
                pipe.hmget(names.model, "fence", "version")
                pipe.get(names.level)
                if show:
                    self._show(pipe, now)
                answers = pipe.execute(raise_on_error=False)
        except Trouble:
            self._lost += len(events)
            raise
        added = None
        if events:
            added, _, *answers = answers
            if isinstance(added, Exception):
                self._lost += len(events)
            else:
                self._sent += len(events)
        model, level, *shown = answers
        for answer in (model, level):
            if isinstance(answer, Exception):
                raise answer
        self._tap.follow(_whole(level))
        if show:
            self._shown = now
            self._heard(shown)
        if self._connected is not True:
            if self._connected is False:
                self._tell("back")
            self._connected, self._failures = True, 0
        if isinstance(added, Exception):
            raise added     # a full or read-only server: the rest of the round was good, but it must be said
        if self._learner is not None:
            self._learner.keep()        # a long step of the learner's must not cost it the office
        self._look(tuple(model))

    # -- models

    def _look(self, told: tuple[Any, ...]) -> None:
        """Install the model that the server has, if it is newer and good."""
        if None in told or told == self._turned_down:
            return
        order = (_whole(told[0]), _whole(told[1]))
        if self._model is not None and order == self._model.order:
            return
        body = self._server.client.hget(self._names.model, "body")
        try:
            known, about = models.loads(body)
            if about.order != order:
                raise StateError(f"model: it is {about.order}, and the server says that it is {order}")
            if about.order < self._seen.order:
                raise StateError(f"model: {about.order} is older than {self._seen.order}, which was seen before (fence, version)")
            if known.config != self._cache._configuration():
                raise StateError(f"model: {differing(known.config, self._cache._configuration())}")
            if about.rules != self._configuration.rules:
                raise StateError("model: learned under another salt, miss cost or break-even time")
        except StateError as error:
            self._refused += 1
            self._turned_down = told
            self._tell("model_refused", reason=str(error))
            return
        assert self._cache._trainer is not None
        known.install(self._cache, self._cache._trainer)
        self._seen.note(about)
        self._model, self._turned_down = about, ()
        self._installed += 1
        self._tell("model_installed", fence=about.fence, version=about.version, events=about.events)

    # -- the snapshot

    def _show(self, pipe: Any, now: float) -> None:
        names = self._names
        self._rent += self._cache.currsize * (self._spec.memory_price or 0.0) * (now - self._rented)
        self._rented = now
        pipe.zadd(names.workers, {self.id: time.time() + 0.0})
        pipe.zremrangebyscore(names.workers, "-inf", time.time() - SILENT)
        pipe.zcard(names.workers)
        pipe.set(names.worker(self.id), json.dumps(self.snapshot()), px=round(LIVES * 1000))
        pipe.set(names.configuration, self._configuration.dumps(), nx=True, px=round(SILENT * 1000))
        pipe.get(names.configuration)

    def _heard(self, shown: list[Any]) -> None:
        _, _, count, _, _, configuration = shown
        if isinstance(count, int):
            self._workers = max(1, count)
        if isinstance(configuration, bytes):
            fleets = Configuration.loads(configuration)
            differs = fleets != self._configuration
            if differs and not self._differs:
                self._tell("configuration_differs", fleet=str(fleets), here=str(self._configuration))
            self._differs = differs
            if not differs:
                self._server.client.pexpire(self._names.configuration, round(SILENT * 1000))
        if self._seen.order[0]:
            self._server.run(RAISE, (self._names.fence,), self._seen.order[0])

    def snapshot(self) -> dict[str, Any]:
        """This worker at this moment, as plain values: what `adaptcache top` shows."""
        stats, mine = self._ledger.stats(), self.stats()
        near = None
        if self._near is not None:
            try:
                told = self._near()
                near = None if told is None else {str(name): value for name, value in told.items() if isinstance(value, (int, float, str, bool, type(None)))}
            except Exception as error:      # the user's code
                near = {"error": repr(error)[:200]}
        hits, misses = (stats.hits, stats.misses) if self._asked is None else self._asked()
        return {
            "id": self.id, "role": "worker", "mark": self._names.mark, "pid": self._pid, "started": self._started, "at": time.time(),
            "hits": hits, "misses": misses, "entries": len(self._cache), "size": _finite(stats.currsize),
            "miss_cost": self._tap.cost, "rent": self._rent, "premature": stats.premature, "in_flight": stats.in_flight,
            "protected": stats.protected, "budget": _finite(stats.premature_budget), "expirations": stats.expirations,
            "fallback": stats.fallback_reason, "weights": {name: round(share, 4) for name, share in stats.weights.items() if share >= 0.005},
            "near": near, "fence": mine.fence, "version": mine.version, "made": mine.made, "installed": mine.installed, "refused": mine.refused,
            "sent": mine.sent, "dropped": mine.dropped, "level": mine.level,
            "learner": None if self._learner is None else self._learner.about(),
        }

    def stats(self) -> FleetStats:
        """This worker's part in the fleet at this moment."""
        model = self._model
        return FleetStats(
            connected=self._connected is True, workers=self._workers, sent=self._sent, dropped=self._lost + self._tap.dropped,
            folded=self._tap.folded, level=self._tap.level, fence=0 if model is None else model.fence,
            version=0 if model is None else model.version, made=0.0 if model is None else model.made,
            model_events=0 if model is None else model.events, installed=self._installed, refused=self._refused,
            learning=0 if self._learner is None else self._learner.office.fence,
            differs=self._differs, failed=self._connected is False)

    def sampled(self, level: int) -> None:
        """The ledger hears only of keys whose number is in the sample that was halved so often."""
        self._tap.sampled(level)

    def abandon(self) -> None:
        """End here without a word to the server: in a forked child, which is no worker any more."""
        self._closed = True
        _FLEETS.discard(self)
        self._finalizer.detach()        # what the parent's threads hold, locks too, is not to be touched
        self._tap.stop()
        if any(thread.is_alive() for thread in self._threads):
            self._wake.set()            # they began in this process

    def _tell(self, what: str, **details: Any) -> None:
        _log.info("fleet %s: %s %s", self._names.name, what, details)
        call = self._on_event
        if call is None:
            return
        try:
            call(what, details)
        except Exception:
            self._on_event = None
            _log.exception("on_event of the fleet %s raised, and is not called again", self._names.name)

    def _forked(self) -> None:
        """In a forked child: a worker of its own, whose threads start anew."""
        running, self._threads = bool(self._threads), []
        self._identify()
        self._wake = threading.Event()
        self._finalizer.detach()
        self._tap.take()
        self._finalizer = weakref.finalize(self, _abandon, self._tap, self._server, self._wake)
        self._finalizer.atexit = False
        if self._learner is not None:
            self._learner.forked()
        if running and not self._closed:
            self.start()


def _rounds(reference: weakref.ref[Fleet], wake: threading.Event, work: Callable[[Fleet], float]) -> None:
    """Work until the fleet is closed or nobody has it any more."""
    while not wake.is_set():
        fleet = reference()
        if fleet is None:
            return
        try:
            pause = work(fleet)
        except Exception:
            _log.exception("a round of the fleet raised; it goes on")
            pause = 1.0
        del fleet           # no reference may outlive the round
        wake.wait(pause)


def _abandon(tap: Tap, server: Server, wake: threading.Event) -> None:
    tap.stop()
    wake.set()
    server.close()


def _whole(said: Any) -> int:
    try:
        return int(said or 0)
    except ValueError:
        return -1


def _finite(x: float) -> float | None:
    return x if x < float("inf") else None


_FLEETS: weakref.WeakSet[Fleet] = weakref.WeakSet()


def _after_fork() -> None:
    for fleet in list(_FLEETS):
        fleet._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
