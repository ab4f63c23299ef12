"""What a watched client costs beside redis-py's own, command by command: `python bench/dropin.py [--rounds N]`.

Clients of redis-py and of ours, each with a connection of its own to one Valkey, take turns of five commands, or of a pipeline, in an order
that changes with each round. What is printed are ratios of the medians, so that a neighbour who takes the processor for a while makes no
difference; redis-py's second client shows how far that can be trusted. `bench/test_dropin.py` times whole rounds instead, with all that the
daemon and the learner take of the interpreter in them.
"""
from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import redis
import redis.asyncio as theirs_async

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from servers import Server

import adaptcache.redis.asyncio as ours_async
from adaptcache import redis as ours

KEYS = [f"page:{at}" for at in range(1000)]
BLOCK = 5
VALUE = "x" * 100


def get(client: Any, at: int) -> None:
    client.get(KEYS[at % 1000])


def set_(client: Any, at: int) -> None:
    client.set(KEYS[at % 1000], VALUE, ex=600)


def pipeline(client: Any, at: int) -> None:
    first = at % 10 * 100
    with client.pipeline(transaction=False) as pipe:
        for key in KEYS[first:first + 50]:
            pipe.get(key)
        for key in KEYS[first + 50:first + 100]:
            pipe.set(key, VALUE, ex=600)
        pipe.execute()


def times(clients: dict[str, Any], work: Callable[[Any, int], None], rounds: int, block: int) -> dict[str, list[float]]:
    names = list(clients)
    out: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            client, each = clients[name], out[name]
            for at in range(turn * block, (turn + 1) * block):
                began = perf_counter()
                work(client, at)
                each.append(perf_counter() - began)
    return out


def shown(name: str, got: dict[str, float]) -> None:
    first = got["redis-py"]
    print(f"{name:20} {first * 1e6:7,.0f} µs   " + "   ".join(f"{client} {each / first:.3f}" for client, each in got.items()), flush=True)


def asyncio_get(server: Server, rounds: int) -> None:
    """Clients of asyncio, in turns of one loop."""
    with asyncio.Runner() as runner:
        async def made() -> dict[str, Any]:
            return {"redis-py": theirs_async.Redis(port=server.port), "redis-py again": theirs_async.Redis(port=server.port),
                    "off": ours_async.Redis(port=server.port, adapt="off"), "observe": ours_async.Redis(port=server.port)}

        clients = runner.run(made())

        async def turns(rounds: int) -> dict[str, list[float]]:
            names = list(clients)
            out: dict[str, list[float]] = {name: [] for name in names}
            for turn in range(rounds):
                shift = turn % len(names)
                for name in names[shift:] + names[:shift]:
                    client, each = clients[name], out[name]
                    for at in range(turn * BLOCK, (turn + 1) * BLOCK):
                        began = perf_counter()
                        await client.get(KEYS[at % 1000])
                        each.append(perf_counter() - began)
            return out

        runner.run(turns(rounds // 4))
        shown("asyncio get", {client: median(each) for client, each in runner.run(turns(rounds)).items()})
        clients["observe"].adapt.close()
        for client in clients.values():
            runner.run(client.aclose())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=2000)
    rounds = parser.parse_args().rounds
    with Server() as server, redis.Redis(port=server.port) as theirs, redis.Redis(port=server.port) as again, \
            ours.Redis(port=server.port, adapt="off") as off, ours.Redis(port=server.port) as observe:
        clients = {"redis-py": theirs, "redis-py again": again, "off": off, "observe": observe}
        for name, work, block in (("get", get, BLOCK), ("set with an expiry", set_, BLOCK), ("pipeline of 100", pipeline, 1)):
            times(clients, work, rounds // 4, block)
            shown(name, {client: median(each) for client, each in times(clients, work, rounds, block).items()})
        print(f"one key in {observe.adapt.report().sampled} followed")
        observe.adapt.close()
        asyncio_get(server, rounds)


if __name__ == "__main__":
    main()
