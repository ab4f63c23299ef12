"""A process that uses a cache on a server: `python backend_worker.py JSON`. It prints one JSON line a result.

work "load": get_or_load each key; a load counts itself on the server, sleeps, and gives "key:number of that load".
work "die": get_or_load one key whose loader says "loading" and then sleeps for ever.
"""
import json
import sys
import time

import redis

from adaptcache import Cache, RedisBackend


def main(url, work, keys, seconds=0.05, lease=5.0, rounds=1):
    database = redis.Redis.from_url(url)
    with RedisBackend(url, lease=lease) as backend:
        cache = Cache(0, backend=backend)

        def loader(key):
            number = database.incr(f"loads:{key}")
            if work == "die":
                print(json.dumps("loading"), flush=True)
                time.sleep(600)
            time.sleep(seconds)
            return f"{key}:{number}"

        print(json.dumps("ready"), flush=True)
        sys.stdin.readline()
        for _ in range(rounds):
            for key in keys:
                print(json.dumps(cache.get_or_load(key, loader)), flush=True)
    database.close()


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
