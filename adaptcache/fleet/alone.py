"""A learner in a process of its own: `adaptcache learner redis://…`.

It takes the fleet's rules from the configuration that workers leave on the server, stands for election beside workers that do, and
waits through whatever the server does. It knows no ledger.
"""
from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from adaptcache.fleet.configuration import Configuration
from adaptcache.fleet.learner import Learner, Seen
from adaptcache.fleet.names import Names
from adaptcache.fleet.server import RAISE, Server, Trouble
from adaptcache.fleet.worker import LIVES, SILENT

LOOK = 2.0          # seconds between two looks at the configuration, and two snapshots
SHARE = 0.5         # of a core


class Alone:
    """The process's state: one learner, or none while nobody has said what to learn."""

    def __init__(self, client: Any, name: str, *, tell: Callable[..., None], publish: float = 10.0, lock_time: float = 5.0,
                 share: float = SHARE) -> None:
        self._names = Names(name)
        self._server = Server(client)
        self._tell, self._publish, self._lock_time, self._share = tell, publish, lock_time, share
        self._seen = Seen()
        self._learner: Learner | None = None
        self._rules: Configuration | None = None
        self._looked = float("-inf")
        self._connected: bool | None = None
        self.id = f"{socket.gethostname()[:40]}-{os.getpid()}-{secrets.token_hex(2)}"
        self._started = time.time()

    def step(self) -> float:
        """A round, which never raises what a server can cause; seconds until the next."""
        try:
            pause = self._round()
        except Trouble as error:
            if self._connected is not False:
                self._connected = False
                self._tell("cut_off", reason=str(error) or type(error).__name__)
            return 0.5
        if self._connected is False:
            self._tell("back")
        self._connected = True
        return pause

    def _round(self) -> float:
        now = time.monotonic()
        if now - self._looked >= LOOK:
            self._look()
            self._looked = now
        return LOOK / 4 if self._learner is None else self._learner.step()

    def _look(self) -> None:
        said = self._server.client.get(self._names.configuration)
        rules = None if said is None else Configuration.loads(said)
        if rules is not None and rules != self._rules:
            if self._learner is not None:
                self._learner.close()
            self._rules, self._learner = rules, None
            if rules.models:
                # They are objects of the workers'; a learner without them would be another one.
                self._tell("configuration_differs", fleet=str(rules), here="a learner of its own has no predictors of the user's")
            else:
                self._tell("configured", rules=str(rules))
                self._learner = Learner(self._server, self._names, rules, rules.spec(), tell=self._tell, seen=self._seen,
                                        lock_time=self._lock_time, publish=self._publish, share=self._share)
        with self._server.client.pipeline(transaction=False) as pipe:
            pipe.zadd(self._names.workers, {self.id: time.time()})
            pipe.zremrangebyscore(self._names.workers, "-inf", time.time() - SILENT)
            pipe.set(self._names.worker(self.id), json.dumps(self.snapshot()), px=round(LIVES * 1000))
            pipe.execute()
        if self._seen.order[0]:
            self._server.run(RAISE, (self._names.fence,), self._seen.order[0])

    def snapshot(self) -> dict[str, Any]:
        return {"id": self.id, "role": "learner", "mark": self._names.mark, "pid": os.getpid(), "started": self._started, "at": time.time(),
                "learner": None if self._learner is None else self._learner.about()}

    def close(self) -> None:
        try:
            if self._learner is not None:
                self._learner.close()
            with self._server.client.pipeline(transaction=False) as pipe:
                pipe.delete(self._names.worker(self.id))
                pipe.zrem(self._names.workers, self.id)
                pipe.execute()
        except Trouble:
            pass        # the lock runs out by itself
        self._server.close()


def main(url: str, name: str, *, publish: float = 10.0, lock_time: float = 5.0, quiet: bool = False) -> None:
    """Learn until SIGTERM or SIGINT, and say in lines what happens."""
    stop = threading.Event()

    def tell(what: str, **details: Any) -> None:
        if not quiet:
            said = ", ".join(f"{key} {value}" for key, value in details.items())
            print(f"{time.strftime('%H:%M:%S')} {what}{': ' if said else ''}{said}", flush=True)

    def asked(number: int, frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, asked) for number in (signal.SIGTERM, signal.SIGINT)}
    alone = Alone(url, name, tell=tell, publish=publish, lock_time=lock_time)
    print(f"adaptcache: learning for the fleet {name!r}; ^C ends it", file=sys.stderr, flush=True)
    try:
        while not stop.is_set():
            stop.wait(alone.step())
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        alone.close()
