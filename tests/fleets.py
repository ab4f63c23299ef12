"""What the fleet's tests share: a workload in event time, ledgers that live in it, and workers in processes of their own.

Run as a script it is one worker, for faults that only a process can have: `fleets.py URL NAME SEED [option=value ...]`. It
serves the workload in real time until its input ends, and prints each of the fleet's events as a line of JSON.
"""
from __future__ import annotations

import json
import os
import random
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adaptcache import Learned
from adaptcache.ledger import Ledger

HERE = Path(__file__).resolve()
SPEC = Learned(memory_price=0.02, premature=1.0, learner="manual", seed=3)
SALT = b"a fleet's salt"


class Clock:
    """Seconds, set by hand."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def requests(count: int, seed: int = 1, rate: float = 20.0) -> Iterator[tuple[float, bytes]]:
    """(time, key): some keys are asked for every few seconds, others once or twice and never again."""
    dice, now = random.Random(seed), 0.0
    for at in range(count):
        now += dice.expovariate(rate)
        yield now, b"often %d" % dice.randrange(60) if dice.random() < 0.5 else b"seldom %d" % (at // 3 if dice.random() < 0.3 else at)


class Shared:
    """The server as a test's ledgers see it: which keys are there until when."""

    def __init__(self, ttl: float = 100.0) -> None:
        self.ttl = ttl
        self.until: dict[bytes, float] = {}

    def ask(self, ledger: Ledger, key: bytes, now: float) -> bool:
        hit = self.until.get(key, 0.0) > now
        ledger.got(key, hit)
        if not hit:
            ledger.put(key, size=1.0, cost=0.2, ttl=self.ttl, namespace="some" if key < b"p" else "others")
            self.until[key] = now + self.ttl
        return hit


class Process:
    """A worker of this file in a process of its own."""

    running: list[Process] = []     # noqa: RUF012

    def __init__(self, url: str, name: str, seed: int, **options: Any) -> None:
        told = [f"{option}={value}" for option, value in options.items()]
        self.events: list[tuple[str, dict[str, Any]]] = []
        self._rest = b""
        self.running.append(self)
        self.process = subprocess.Popen([sys.executable, str(HERE), url, name, str(seed), *told], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "random"})

    @property
    def pid(self) -> int:
        return self.process.pid

    def heard(self, what: str, since: int = 0) -> dict[str, Any] | None:
        """The latest event of this name, if there was one after the first `since` events."""
        self._read()
        return next(({**details, "what": said} for said, details in reversed(self.events[since:]) if said == what), None)

    def _read(self) -> None:
        assert self.process.stdout is not None
        fd = self.process.stdout.fileno()
        while select.select([fd], [], [], 0)[0]:
            data = os.read(fd, 65536)
            if not data:
                return
            *lines, self._rest = (self._rest + data).split(b"\n")
            self.events += [tuple(json.loads(line)) for line in lines]

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.running.remove(self)
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            self.process.wait(60)
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def main(url: str, name: str, seed: str, *told: str) -> None:
    from adaptcache.fleet import Fleet

    options: dict[str, Any] = {"publish": 0.5, "lock_time": 2.0, "interval": 0.1, "learn": 1}
    options.update((option, float(value)) for option, _, value in (each.partition("=") for each in told))
    options["learn"] = bool(options["learn"])

    def tell(what: str, details: Any) -> None:
        print(json.dumps([what, dict(details)]), flush=True)

    ledger = Ledger(Learned(memory_price=0.5, premature=1.0, seed=int(seed)), salt=SALT)
    shared, dice = Shared(ttl=5.0), random.Random(int(seed))
    with Fleet(url, name, ledger, on_event=tell, **options):
        tell("started", {})
        while not select.select([sys.stdin], [], [], 0.005)[0]:
            shared.ask(ledger, b"often %d" % dice.randrange(30) if dice.random() < 0.5 else b"seldom %d" % dice.randrange(1 << 30), time.monotonic())
    ledger.close()
    tell("ended", {})


if __name__ == "__main__":
    main(*sys.argv[1:])
