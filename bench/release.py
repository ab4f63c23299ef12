"""What letting go earlier than the application's own expiry saves a server, and what it costs: `make bench-release`.

A fleet of workers asks for the requests of the pipeline workload (docs/pipeline.md), each for those that a balancer happens to
give it; on a miss it stores the value with the application's fixed expiry. One server holds what the fleet stores. Every worker
has a ledger of its own, and lets go of a key where the server says that nobody else has asked for it since, as `release` does.
Time is the workload's own, so nothing here waits; the server is a dict. Beside it: the same without any letting go, and
with a shorter fixed expiry that holds just as little memory.

Printed: memory held on average, misses, cost of the misses, and the fleet's books of the promise, counted here from outside.
"""
from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from adaptcache import Learned
from adaptcache.ledger import Ledger, Release
from adaptcache.simulate.pipeline import PipelineParameters, workload
from adaptcache.simulate.pipeline.workload import Request


@dataclass
class Server:
    """Keys with the end of their expiry, their size, and when anybody last asked for them."""

    held: dict[bytes, tuple[float, float]] = field(default_factory=dict)
    asked: dict[bytes, float] = field(default_factory=dict)
    since: dict[bytes, float] = field(default_factory=dict)
    memory: float = 0.0         # byte-seconds

    def has(self, key: bytes, now: float) -> bool:
        entry = self.held.get(key)
        if entry is not None and entry[0] <= now:
            self.drop(key, entry[0])
            entry = None
        return entry is not None

    def drop(self, key: bytes, at: float) -> None:
        _, size = self.held.pop(key)
        self.memory += size * (at - self.since.pop(key))

    def store(self, key: bytes, size: float, now: float, ttl: float) -> None:
        self.held[key] = now + ttl, size
        self.since[key] = now


@dataclass
class Outcome:
    memory: float
    misses: int
    cost: float
    requests: int
    seconds: float
    early: int = 0          # released within the protected window
    lost: int = 0           # asked for again within the window after anybody's last request, having been released
    protected: int = 0      # requests within the window after anybody's last one
    books: float = 0.0      # sum of what the workers' own books call premature and in flight, less what they may


def fixed(requests: list[tuple[Request, float, float]], ttl: float) -> Outcome:
    server, misses, cost, now = Server(), 0, 0.0, 0.0
    for request, size, price in requests:
        now = request.time
        key = b"%d" % request.key
        if not server.has(key, now):
            misses += 1
            cost += price
            server.store(key, size, now, ttl)
    for key, (end, _) in list(server.held.items()):
        server.drop(key, min(end, now))
    seconds = now - requests[0][0].time
    return Outcome(server.memory / seconds, misses, cost, len(requests), seconds)


def fleet(requests: list[tuple[Request, float, float]], ttl: float, workers: int, alpha: float, seed: int, features: bool,
          blind: bool, factor: float) -> Outcome:
    rnd, clock, server = random.Random(seed), [requests[0][0].time], Server()
    out: list[list[Release]] = [[] for _ in range(workers)]

    def taker(at: int) -> Callable[[list[Release]], None]:
        return out[at].extend

    ledgers = [Ledger(Learned(learner="manual", seed=seed, premature=alpha), timer=lambda: clock[0], break_even_ttl=factor,
                      on_release=taker(at)) for at in range(workers)]
    result = Outcome(0.0, 0, 0.0, len(requests), requests[-1][0].time - requests[0][0].time)
    window, released, owner = ttl * factor / 4, set[bytes](), dict[bytes, int]()
    stepped = clock[0]
    for request, size, price in requests:
        clock[0] = now = request.time
        if now - stepped >= ttl / 500:
            stepped = now
            for at, ledger in enumerate(ledgers):
                ledger.step()
                for one in out[at]:
                    _let_go(one, at, ledger, server, now, window, released, owner, result)
                out[at].clear()
        key = b"%d" % request.key
        ledger = ledgers[rnd.randrange(workers)]
        again = key in server.asked and now - server.asked[key] <= window
        hit = server.has(key, now)
        known = ledger.got(key, hit)
        result.protected += again
        if not hit:
            if again and key in released:
                result.lost += 1
                at = owner[key]
                if ledgers[at] is not ledger:
                    ledgers[at].lost(ledger.number(key))
            result.misses += 1
            result.cost += price
            server.store(key, size, now, ttl)
            released.discard(key)
        if not hit or not known:
            left = server.held[key][0] - now
            ledger.put(key, size=size, ttl=left, nominal=ttl, namespace=None if blind else request.function,
                       features=request.features if features else None)
        server.asked[key] = now
    for key, (end, _) in list(server.held.items()):
        server.drop(key, min(end, clock[0]))
    result.memory = server.memory / result.seconds
    for ledger in ledgers:
        books = ledger.stats()
        result.books += books.premature + books.in_flight - books.premature_budget
    return result


def _let_go(one: Release, at: int, ledger: Ledger, server: Server, now: float, window: float, released: set[bytes],
            owner: dict[bytes, int], result: Outcome) -> None:
    if not server.has(one.key, now):
        return
    if one.wait > 0 or server.asked[one.key] > one.last:
        ledger.kept(one)
        return
    early = now - server.asked[one.key] < window
    server.drop(one.key, now)
    released.add(one.key)
    owner[one.key] = at
    result.early += early


def alike(requests: list[tuple[Request, float, float]], ttl: float, memory: float) -> tuple[float, Outcome]:
    """The fixed expiry that holds so much memory."""
    low, high = 0.0, ttl
    for _ in range(20):
        middle = (low + high) / 2
        if fixed(requests, middle).memory > memory:
            high = middle
        else:
            low = middle
    return low, fixed(requests, low)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--requests", type=int, default=60_000)
    parser.add_argument("--ttl", type=float, nargs="+", default=[900.0, 3600.0, 14400.0], help="the application's expiry, seconds")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--premature", type=float, default=0.01)
    parser.add_argument("--factor", type=float, default=2.0, help="break-even time as a multiple of the expiry")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--features", action="store_true", help="tell the learner what the application knows of a request")
    parser.add_argument("--blind", action="store_true", help="tell it no namespace either")
    options = parser.parse_args()
    made = workload(PipelineParameters(requests=options.requests), seed=options.seed)
    requests = list(zip(made, made.size.tolist(), made.cost.tolist(), strict=True))
    print(f"{options.workers} workers, {len(requests):,} requests in {(requests[-1][0].time - requests[0][0].time) / 86400:.1f} days, "
          f"premature={options.premature:g}, seed {options.seed}")
    print(f"{'expiry':>8} {'memory':>9} {'misses':>9} {'miss cost':>9} {'early':>7} {'lost':>6} {'allowed':>8} {'same memory, fixed':>22}")
    for ttl in options.ttl:
        before = fixed(requests, ttl)
        after = fleet(requests, ttl, options.workers, options.premature, options.seed, options.features, options.blind, options.factor)
        short, rival = alike(requests, ttl, after.memory)
        allowed = options.premature * after.protected + options.workers
        print(f"{ttl:>7.0f}s {after.memory / before.memory - 1:>+9.1%} {after.misses / before.misses - 1:>+9.1%} "
              f"{after.cost / before.cost - 1:>+9.1%} {after.early:>7} {after.lost:>6} {allowed:>8.0f} "
              f"{short:>11.0f}s {rival.misses / before.misses - 1:>+9.1%}", flush=True)


if __name__ == "__main__":
    main()
