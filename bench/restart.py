"""What saved state is worth: a restart in the middle of a workload, against a cold start.

    make bench-restart                      or: python bench/restart.py --traces dns_wrccdc_a

A live cache without a capacity limit serves the first half of a trace and saves what it learned; nothing held is taken over.
Then the first requests of the second half are served by a cache that starts cold, and by caches that load the file.

*Reuse* (guard open, and at alpha = 1 %; price 0.3x): misses and rent of the first 500, 1,500 and 4,000 requests, over those of the
cold start, with table predictors (`tables`), and with river: as format 2 saved it, without the stack (`river - stack`), and
all of it (`river`). *Freshness* (memory free, budget 1 %): loads in the second half's first `--rows` requests, stale reads as a
share of the gets over the budget, cold, loaded, `beliefs of all` (loaded without namespaces and keys), and of the cache that went on, its entries held.

The traces are `NAME.npz` in the folder that ADAPTCACHE_TRACES names, or `synthetic:pipeline`. Prints markdown.
"""
from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from adaptcache import Cache, Learned, state
from adaptcache.learn.knowledge import Knowledge
from adaptcache.learn.packing import DTYPES
from adaptcache.simulate.oracle import Oracle
from adaptcache.simulate.readers import read
from adaptcache.simulate.synthetic import generate
from adaptcache.simulate.trace import DELETE, GET, SET, Trace

REUSE = {"synthetic:pipeline": 12_000, "cran_downloads": 0, "dns_wrccdc_a": 0, "git_reads_pig": 60_000, "synth_shift": 90_000}
FRESH = {"synth_kv_ttl": 0, "dns_wrccdc_a": 0, "git_reads_pig": 0}
STEPS = (500, 1500, 4000)
BUDGET = 0.01
PROCESSES = 2


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def load(name: str, rows: int) -> Trace:
    if name.startswith("synthetic:"):
        return generate(name.partition(":")[2], seed=3, requests=rows)
    default = Path(__file__).resolve().parent.parent / ".." / "shared" / "traces"
    return read(Path(os.environ.get("ADAPTCACHE_TRACES") or default) / f"{name}.npz", None, rows or None)


def told(trace: Trace, at: int) -> dict[str, float | str]:
    return {name: str(column[at]) if np.issubdtype(column.dtype, np.integer) else float(column[at])
            for name, column in list(trace.features.items())[:8]}


def serve(cache: Cache[Any, Any], clock: Clock, trace: Trace, rows: Iterable[int], price: float, bills: list[Any]) -> list[float]:
    """Misses and rent so far after each of STEPS rows. `bills` takes the callbacks of the cache's removals."""
    assert trace.time is not None
    since: dict[int, tuple[float, float]] = {}
    spent, totals = [0.0], []

    def gone(key: int, _value: Any, _cause: Any, at: float) -> None:
        start, size = since.pop(key)
        spent[0] += (at - start) * size * price

    bills.append(gone)
    for n, at in enumerate(rows, 1):
        clock.now = float(trace.time[at])
        key, size = int(trace.key[at]), 1.0 if trace.size is None else float(trace.size[at])
        namespace = None if trace.namespace is None else int(trace.namespace[at])
        said = told(trace, at)
        if cache._get_with(key, None, size, 1.0, namespace, said) is None:
            spent[0] += 1
            cache.set(key, 1, size=size, cost=1.0, namespace=namespace, features=said)
            since[key] = (clock.now, size)
        if n % 256 == 0:
            cache.learn()
        if n in STEPS:
            cache.expire()
            totals.append(spent[0] + sum((clock.now - start) * size * price for start, size in since.values()))
    return totals


def reuse(name: str, rows: int, premature: float) -> tuple[str, float, dict[str, list[float]]]:
    trace = load(name, rows)
    price, half = Oracle(trace).price(0.3), len(trace) // 2
    out = {}
    for called, predictors in (("tables", ("table",)), ("river", ("table", "river"))):
        spec = Learned(memory_price=price, learner="manual", seed=1, predictors=predictors, premature=premature)
        whole = learned(trace, half, spec, price)
        parts: dict[str, Knowledge | None] = {"cold": None, called: whole}
        if called == "river":
            parts["river - stack"] = replace(whole, stack=None, arrays={**whole.arrays, "sides": np.zeros_like(whole.arrays["sides"])})
        costs = {}
        for part, known in parts.items():
            bills: list[Any] = []
            cache, clock = restarted(trace, half, spec, known, lambda *event, bills=bills: bills[-1](*event))
            costs[part] = serve(cache, clock, trace, range(half, min(half + STEPS[-1], len(trace))), price, bills)
        for part in parts:
            if part != "cold":
                out[part] = [warm / cold for warm, cold in zip(costs[part], costs["cold"], strict=True)]
    return name, premature, out


def learned(trace: Trace, half: int, spec: Learned, price: float) -> Knowledge:
    assert trace.time is not None
    clock, bills = Clock(), []
    clock.now = float(trace.time[0])
    cache: Cache[Any, Any] = Cache(None, expiry=spec, timer=clock, on_removal=lambda *event: bills[-1](*event))
    serve(cache, clock, trace, range(half), price, bills)
    return taken(cache)


def taken(cache: Cache[Any, Any]) -> Knowledge:
    """What comes back of it from a file."""
    with tempfile.TemporaryDirectory() as folder:
        cache.save(Path(folder) / "state")
        known, _ = state.read(Path(folder) / "state")
    assert known is not None
    return known


def restarted(trace: Trace, half: int, spec: Learned, known: Knowledge | None,
              on_removal: Callable[..., object] | None = None) -> tuple[Cache[Any, Any], Clock]:
    assert trace.time is not None
    clock = Clock()
    clock.now = float(trace.time[half])
    if known is None:
        return Cache(None, expiry=spec, timer=clock, on_removal=on_removal), clock
    with tempfile.TemporaryDirectory() as folder:
        state.write(Path(folder) / "state", known, None)
        return Cache.load(Path(folder) / "state", None, expiry=spec, timer=clock, on_removal=on_removal), clock


def watch(cache: Cache[Any, Any], clock: Clock, trace: Trace, rows: Iterable[int]) -> tuple[int, float]:
    """(loads, stale reads over the budget); a load takes no time."""
    assert trace.time is not None and trace.version is not None
    loads = stale = gets = 0
    for at in rows:
        clock.now = float(trace.time[at])
        key, version, op = int(trace.key[at]), int(trace.version[at]), GET if trace.op is None else int(trace.op[at])
        namespace = None if trace.namespace is None else int(trace.namespace[at])
        if op == DELETE:
            cache.pop(key, None)
        elif op == SET:
            cache.set(key, version + 1, namespace=namespace)
        else:
            def load(_key: int, version: int = version) -> int:
                nonlocal loads
                loads += 1
                return version + 1
            value = cache.get_or_load(key, load, namespace=namespace)
            cache.refresh()
            gets += 1
            stale += value != version + 1
    return loads, stale / max(1, gets) / BUDGET


def freshness(name: str, rows: int, first: int) -> tuple[str, dict[str, tuple[int, float]]]:
    trace = load(name, rows)
    assert trace.time is not None
    half = len(trace) // 2
    spec = Learned(memory_price=0, stale=BUDGET, learner="manual", seed=1, predictors=("table",))
    clock = Clock()
    clock.now = float(trace.time[0])
    cache: Cache[Any, Any] = Cache(None, expiry=spec, timer=clock)
    watch(cache, clock, trace, range(half))
    whole = taken(cache)
    assert whole.fresh is not None
    nobody = replace(whole, fresh=replace(whole.fresh, keys=np.empty(0, DTYPES["change"])),
                     namespaces={label: replace(known, prior=None) for label, known in whole.namespaces.items()})
    out = {}
    rows_ = range(half, min(half + first, len(trace)))
    for part, known in (("cold", None), ("beliefs of all", nobody), ("loaded", whole)):
        again, now = restarted(trace, half, spec, known)
        out[part] = watch(again, now, trace, rows_)
    out["went on"] = watch(cache, clock, trace, rows_)
    return name, out


def words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--traces", type=words, help="names, comma separated (default: all)")
    parser.add_argument("--rows", type=words, default=["2000", "20000"], help="of freshness (default: 2000,20000)")
    given = parser.parse_args()
    wanted = given.traces or [*REUSE, *FRESH]
    with ProcessPoolExecutor(PROCESSES) as pool:
        costs = [pool.submit(reuse, name, rows, premature) for name, rows in REUSE.items() if name in wanted for premature in (1.0, 0.01)]
        loads = [(int(first), pool.submit(freshness, name, rows, int(first))) for name, rows in FRESH.items() if name in wanted
                 for first in given.rows]
        if costs:
            steps = " / ".join(f"{step:,}" for step in STEPS)
            print(f"| after {steps} requests | alpha | tables | river - stack | river |\n|---|---:|---|---|---|")
        for job in costs:
            name, premature, parts = job.result()
            cells = " | ".join(" / ".join(f"{x:.3f}" for x in parts[part]) for part in ("tables", "river - stack", "river"))
            print(f"| {name} | {'open' if premature == 1 else f'{premature:.0%}'} | {cells} |", flush=True)
        if loads:
            print("\n| trace | requests | loads cold | beliefs of all | loaded | went on | stale over budget, cold | beliefs of all | loaded "
                  "| went on |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
        for first, one in loads:
            name, parts_ = one.result()
            print(f"| {name} | {first:,} | " + " | ".join(f"{n:,}" for n, _ in parts_.values()) + " | "
                  + " | ".join(f"{rate:.2f}" for _, rate in parts_.values()) + " |", flush=True)


if __name__ == "__main__":
    main()
