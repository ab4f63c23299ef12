"""A process of the coherence test: `python backend_readers.py JSON`.

The shared file holds, for each key, the latest version whose write was acknowledged: the writer stores a version at the "origin" (a plain key), invalidates
or writes the cache, and only then notes it. A reader notes what was acknowledged before each read, and counts as stale what is older than what was
acknowledged `window` seconds before the read began.
"""
import json
import mmap
import struct
import sys
import time
from collections import deque

import redis

from adaptcache import Cache, RedisBackend


def noted(shared, keys):
    return struct.unpack_from(f"<{keys}q", shared, 0)


def main(url, role, path, keys, seconds, window, maxsize, seed):
    origin = redis.Redis.from_url(url)
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as shared, RedisBackend(url, lease=5.0) as backend:
        cache = Cache(maxsize, backend=backend)
        end = time.monotonic() + seconds
        if role == "write":
            out = write(cache, origin, shared, keys, end)
        else:
            out = read(cache, origin, shared, keys, end, window, seed)
        out["events"] = backend.stats().events
        print(json.dumps(out))
    origin.close()


def write(cache, origin, shared, keys, end):
    version = 0
    while time.monotonic() < end:
        key = version % keys
        version += 1
        origin.set(f"origin:{key}", version)
        if version % 3 == 0:
            cache.set(key, version)
        elif version % 3 == 1 or not cache.delete_many([key]):
            cache.delete(key)
        struct.pack_into("<q", shared, 8 * key, version)
        time.sleep(0.002)
    return {"writes": version}


def read(cache, origin, shared, keys, end, window, seed):
    def loader(key):
        counted[1] += 1
        return int(origin.get(f"origin:{key}") or 0)

    counted = [0, 0, 0]         # reads, loads, stale
    oldest = 0.0
    history = [deque([(time.monotonic(), 0)]) for _ in range(keys)]
    at = seed
    while time.monotonic() < end:
        at += 1
        key = at % keys
        now = time.monotonic()
        past = history[key]
        latest = noted(shared, keys)[key]
        if latest != past[-1][1]:
            past.append((now, latest))
        value = cache.get_or_load(key, loader)
        counted[0] += 1
        # When was it noticed first that something newer had been acknowledged?
        newer = next((when for when, version in past if version > value), None)
        if newer is not None:
            oldest = max(oldest, now - newer)
            counted[2] += now - newer >= window
        while len(past) > 1 and past[1][0] < now - 10:
            past.popleft()
    return {"reads": counted[0], "loads": counted[1], "stale": counted[2], "oldest": oldest, "hits": cache.stats().hits}


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
