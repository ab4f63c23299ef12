"""Many processes that read hot keys through near tiers while one writes: what each was served, and when. For test_near.

A module of its own, so that a worker imports no more than it needs.
"""
import multiprocessing
import time

import redis
from servers import until

from adaptcache.near import Near, NearCache


def work(port, number, reads, window, pause, together, results):
    """Read hot keys; of each value say when it was served and which version it was."""
    client = redis.Redis(port=port)
    near = Near(client, NearCache(1000, heartbeat=window / 20, window=window))
    until(lambda: near.ready, "ready")
    keys = [b"hot:%d" % at for at in range(10)]
    newest = [0] * len(keys)
    together.wait(60)
    wrong = 0
    log = []
    for at in range(reads):
        if not at % 100:
            time.sleep(pause)
        which = at % len(keys)
        key = keys[which]
        value = near.get(key)
        when = time.monotonic()
        if value is None:
            ticket = near.begin(key)
            value = client.get(key)
            near.put(ticket, value)
        version = int(value)
        if version != newest[which]:
            log.append((when, which, version))
            wrong += version < newest[which]        # a process never goes back: what it has read was true, and what replaced it is told
            newest[which] = version
        elif at % 64 == 0:
            log.append((when, which, version))
    stats = near.stats()
    near.close()
    client.close()
    results.send((number, log, wrong, stats.hits, stats.misses))


def fleet(port, workers, reads, window, pause):
    """Workers that read while one process writes; every version served, and when each was acknowledged."""
    context = multiprocessing.get_context("spawn")
    writer = redis.Redis(port=port)
    for at in range(10):
        writer.set(f"hot:{at}", 0)
    together = context.Barrier(workers + 1)
    ends, processes = [], []
    for number in range(workers):
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(port, number, reads, window, pause, together, there), daemon=True)
        process.start()
        there.close()
        ends.append(here)
        processes.append(process)
    acknowledged = [[(0.0, 0)] for _ in range(10)]
    version = 0
    together.wait(60)
    results = []
    waiting = list(ends)
    while waiting:
        version += 1
        which = version % 10
        writer.set(f"hot:{which}", version)
        acknowledged[which].append((time.monotonic(), version))
        time.sleep(0.001)
        for end in list(waiting):
            if end.poll():
                results.append(end.recv())
                waiting.remove(end)
                end.close()
    for process in processes:
        process.join(20)
    writer.close()
    return acknowledged, results


def staleness(acknowledged, results):
    """By how many seconds the most outdated value was too old: served after the acknowledgement of what replaced it."""
    worst = 0.0
    for _, log, _, _, _ in results:
        for when, which, version in log:
            replaced = next((at for at, newer in acknowledged[which] if newer > version), None)
            if replaced is not None:
                worst = max(worst, when - replaced)
    return worst
