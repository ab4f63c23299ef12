"""What learning together is worth: workers that each see a part of the requests, alone and with the fleet's models.

    make bench-fleet            or: python bench/fleet.py --traces synthetic:pipeline --workers 8

A fleet shares one server. Each request goes to a worker drawn at random, or (`--sticky`) to the one that has its key; that one's ledger hears of it, and of no other. What a ledger
would let go of is let go of where the server says that nobody has asked since (docs/release.md). Time is the trace's own; the server is a
dict. *Alone*: every ledger learns from its own requests. *Fleet*: besides, a pupil is told what all were asked, and
its model is installed in every ledger after every `--every` requests, through the bytes that would lie on the server. *One*: a single
worker serves all requests, so it knows all that there is to know.

Cost: of misses, and rent for what the server holds, at `--price` times the price of docs/harness.md (`0.1x` there is 0.1 here); beside it, of never
letting go. Printed as markdown, with what the promise says: requests lost within their windows, and what may be lost.
The traces are `NAME.npz` in the folder that ADAPTCACHE_TRACES names, or `synthetic:pipeline`.
"""
from __future__ import annotations

import argparse
import os
import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from adaptcache import Learned
from adaptcache.fleet import models
from adaptcache.fleet.batches import Batch, pack, unpack
from adaptcache.fleet.models import About
from adaptcache.fleet.pupil import Pupil
from adaptcache.fleet.tap import Tap
from adaptcache.ledger import Ledger, Release
from adaptcache.simulate.oracle import Oracle
from adaptcache.simulate.readers import read
from adaptcache.simulate.synthetic import generate
from adaptcache.simulate.trace import Trace

TRACES = {"synthetic:pipeline": 20_000, "cran_downloads": 20_000, "dns_wrccdc_a": 20_000, "git_reads_pig": 20_000}
PRICE = 0.3
PROCESSES = 2
STEP = 128      # requests between two steps of all ledgers


@dataclass
class Server:
    """Keys with their size, when they came and when anybody last asked for them."""

    held: dict[bytes, tuple[float, float]] = field(default_factory=dict)
    asked: dict[bytes, float] = field(default_factory=dict)
    memory: float = 0.0     # size times seconds

    def drop(self, key: bytes, at: float) -> None:
        since, size = self.held.pop(key)
        self.memory += size * (at - since)


def load(name: str, rows: int) -> Trace:
    if name.startswith("synthetic:"):
        return generate(name.partition(":")[2], seed=3, requests=rows)
    default = Path(__file__).resolve().parent.parent / ".." / "shared" / "traces"
    return read(Path(os.environ.get("ADAPTCACHE_TRACES") or default) / f"{name}.npz", None, rows)


def run(name: str, rows: int, workers: int, together: bool, alpha: float, every: int, sticky: bool, join: int, scale: float, seed: int) -> tuple[float, int, int, float]:
    """(cost, misses, lost + in flight, allowed)."""
    trace = load(name, rows)
    assert trace.time is not None
    price = Oracle(trace).price(scale)
    now, dice = float(trace.time[0]), random.Random(seed)
    clock = [now]
    spec = Learned(memory_price=price, premature=alpha, learner="manual", seed=seed)
    out: list[list[Release]] = [[] for _ in range(workers)]
    taps = [Tap(room=8192) for _ in range(workers)]
    pupil = Pupil(spec)

    def started(at: int, listening: bool) -> Ledger:
        ledger = Ledger(spec, timer=lambda: clock[0], salt=b"bench", on_release=out[at].extend)
        ledger.listener = taps[at] if listening else None
        return ledger

    ledgers = [started(at, together or join > 0) for at in range(workers)]
    server, misses, cost, half, end = Server(), 0, 0.0, len(trace) // 2, len(trace)
    if join:
        end = min(end, half + join)
    for at in range(end):
        clock[0] = now = float(trace.time[at])
        if join and at == half:
            teach(pupil, taps, [])
            ledgers = [started(number, together) for number in range(workers)]
            for tap in taps:
                tap.take()
            if together:
                teach(pupil, taps, ledgers)
            misses, cost, server.memory = 0, 0.0, 0.0
            server.held = {key: (now, size) for key, (_, size) in server.held.items()}
        key = b"%d" % trace.key[at]
        ledger = ledgers[mixed(int(trace.key[at])) % workers if sticky else dice.randrange(workers)]
        hit = key in server.held
        known = ledger.got(key, hit)
        size, price_of = 1.0 if trace.size is None else float(trace.size[at]), 1.0 if trace.cost is None else float(trace.cost[at])
        if not hit:
            misses += 1
            cost += price_of
            server.held[key] = now, size
        if not hit or not known:
            ledger.put(key, size=size, cost=price_of, namespace=None if trace.namespace is None else int(trace.namespace[at]))
        server.asked[key] = now
        if at % STEP == STEP - 1:
            for ledger, releases in zip(ledgers, out, strict=True):
                ledger.step()
                for one in releases:
                    if one.key in server.held:
                        if one.wait > 0 or server.asked[one.key] > one.last:
                            ledger.kept(one)
                        else:
                            # When it was decided, not when this loop got to it.
                            server.drop(one.key, min(now, one.last + one.age))
                releases.clear()
        if (together or (join and at < half)) and at % every == every - 1:
            teach(pupil, taps, ledgers if not join or at >= half else [])
    for key in list(server.held):
        server.drop(key, now)
    books = [ledger.stats() for ledger in ledgers]
    return (cost + price * server.memory, misses, sum(each.premature + each.in_flight for each in books),
            sum(each.premature_budget for each in books))


def mixed(number: int) -> int:
    return (number * 0x9E3779B97F4A7C15 & (1 << 64) - 1) >> 40


def teach(pupil: Pupil, taps: list[Tap], ledgers: list[Ledger]) -> None:
    """As over a server: packed events one way, a packed model the other."""
    events = []
    for at, tap in enumerate(taps):
        batch = unpack(pack(tap.take(), sender=at, salt=1), salt=1)
        assert isinstance(batch, Batch) and not tap.dropped
        events += batch.events
    pupil.tell(sorted(events, key=lambda event: event.at))
    body = models.dumps(pupil.knows(), About(1, 1, 0.0, pupil.events, "0-0", 0, "0-0", 0.0, ""))
    for ledger in ledgers:
        known, _ = models.loads(body)
        assert ledger.cache._trainer is not None
        known.install(ledger.cache, ledger.cache._trainer)


def holding(name: str, rows: int, scale: float) -> float:
    """What it costs to let nothing go before the end."""
    trace = load(name, rows)
    assert trace.time is not None
    price = Oracle(trace).price(scale)
    keys, first = np.unique(trace.key, return_index=True)
    sizes = np.ones(len(keys)) if trace.size is None else trace.size[first]
    costs = np.ones(len(keys)) if trace.cost is None else trace.cost[first]
    return float(costs.sum() + price * (sizes * (trace.time[-1] - trace.time[first])).sum())


def words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--traces", type=words, default=list(TRACES), help="names, comma separated (default: all)")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--alpha", type=float, default=0.01)
    parser.add_argument("--every", type=int, default=1000, help="requests between two models")
    parser.add_argument("--rows", type=int, default=0, help="of each trace (default: as many as this file says)")
    parser.add_argument("--sticky", action="store_true", help="all requests of a key go to one worker, as with consistent hashing")
    parser.add_argument("--join", type=int, default=0, metavar="N",
                        help="all workers are replaced by new ones in the middle of the trace; count the N requests after that")
    parser.add_argument("--price", type=float, default=PRICE, help="times the price of docs/harness.md (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print(f"| trace, {given.workers} workers, alpha {given.alpha:.0%} | held for ever | alone | fleet | fleet / alone | one sees all | lost + open, alone | fleet |\n"
          "|---|---:|---:|---:|---:|---:|---|---|", flush=True)
    with ProcessPoolExecutor(PROCESSES) as pool:
        jobs = {}
        for name in given.traces:
            rows = given.rows or TRACES.get(name, 20_000)
            jobs[name] = [pool.submit(run, name, rows, workers, together, given.alpha, given.every, given.sticky, given.join, given.price, given.seed)
                          for workers, together in ((given.workers, False), (given.workers, True), (1, False))]
            jobs[name].append(pool.submit(holding, name, rows, given.price))  # type: ignore[arg-type]
        for name, parts in jobs.items():
            alone, fleet, one, base = (part.result() for part in parts)
            print(f"| {name} | {base:,.0f} | {alone[0]:,.1f} | {fleet[0]:,.1f} | {fleet[0] / alone[0]:.3f} | {one[0]:,.1f} "
                  + ("| guard open | |" if given.alpha >= 1 else f"| {alone[2]} <= {alone[3]:.1f} | {fleet[2]} <= {fleet[3]:.1f} |"), flush=True)


if __name__ == "__main__":
    main()
