"""What broken models cost: the mixture with nothing but fixed TTLs, break-even and one hostile model to choose from.

    make bench-robustness                   or: python bench/robustness.py --traces synth_kv_ttl --rows 200000

After the first 100,000 labels the cost of the rest of the trace (guard open) is set against the lesser of break-even's and of
the best static TTL's for the rest, in hindsight. The aim: at most 1.02. The models: *never* lets everything go at once,
*inverted* holds long what comes back late and drops what comes back soon, *shuffled* says another key's true wait, *random*
draws, *NaN* answers NaN (which means hold). A recorded trace is `NAME.npz` in the folder that ADAPTCACHE_TRACES names. Prints
markdown.
"""
from __future__ import annotations

import argparse
import math
import os
import random
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from adaptcache.simulate import learned
from adaptcache.simulate.oracle import Oracle
from adaptcache.simulate.readers import read

LABELS = 100_000
PROCESSES = 2


class Never:
    def learn(self, x: dict[str, float], y: float) -> None:
        pass

    def predict(self, x: dict[str, float]) -> float:
        return 0.0


class Inverted(Never):
    """Remembers the mean log wait by the latest gap, and answers its mirror image."""

    def __init__(self) -> None:
        self.known: dict[float, tuple[float, int]] = {}
        self.mean, self.n = 0.0, 0

    def learn(self, x: dict[str, float], y: float) -> None:
        log = math.log(max(y, 1e-9))
        mean, n = self.known.get(x["gap1"], (0.0, 0))
        self.known[x["gap1"]] = (mean + (log - mean) / (n + 1), n + 1)
        self.n += 1
        self.mean += (log - self.mean) / self.n

    def predict(self, x: dict[str, float]) -> float:
        mean, _ = self.known.get(x["gap1"], (self.mean, 0))
        return math.exp(min(2 * self.mean - mean, 40.0))


class Shuffled(Never):
    def __init__(self) -> None:
        self.dice, self.waits = random.Random(1), [1.0]

    def learn(self, x: dict[str, float], y: float) -> None:
        if len(self.waits) < 1000:
            self.waits.append(y)
        else:
            self.waits[self.dice.randrange(1000)] = y

    def predict(self, x: dict[str, float]) -> float:
        return self.dice.choice(self.waits)


class Random(Never):
    def __init__(self) -> None:
        self.dice = random.Random(2)

    def predict(self, x: dict[str, float]) -> float:
        return 10.0 ** self.dice.uniform(-3, 6)


class NotANumber(Never):
    def predict(self, x: dict[str, float]) -> float:
        return math.nan


MODELS = {"never": Never, "inverted": Inverted, "shuffled": Shuffled, "random": Random, "NaN": NotANumber}


def run(path: str, rows: int, times: float, model: str) -> tuple[str, int, float, float]:
    """(trace, rows of the rest, ratio to the lesser of the two rules, weight of the model)."""
    trace = read(path, limit=rows)
    price = Oracle(trace).price(times)
    split: list[tuple[int, float]] = []

    def watch(done: int, replay: Any, trainer: Any) -> None:
        if not split and trainer.brain.labels >= LABELS:
            split.append((done, replay.miss_cost + replay.hold_cost))

    got = learned.replay(trace, price, premature=1.0, predictors=(MODELS[model](),), watch=watch)
    if not split:
        raise SystemExit(f"{path}: fewer than {LABELS:,} labels in {rows:,} rows")
    at, before = split[0]
    whole, head = Oracle(trace), Oracle(trace.head(at))
    # The price is the whole's, and so are the TTLs: the rest is the whole less its beginning.
    static = min(whole.static(ttl, price).total_cost - head.static(ttl, price).total_cost for ttl in whole.grid())
    rival = min(static, whole.break_even(price).total_cost - head.break_even(price).total_cost)
    weight = sum(share for name, share in got["weights"].items() if name not in ("static", "break-even"))
    return trace.name, len(trace) - at, (got["total_cost"] - before) / rival, weight


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--traces", default="synth_kv_ttl,synth_shift", help="names, comma separated (default: %(default)s)")
    parser.add_argument("--models", default=",".join(MODELS), help="default: %(default)s")
    parser.add_argument("--rows", type=int, default=300_000, help="rows of each trace (default: %(default)s)")
    parser.add_argument("--price", type=float, default=0.1, help="times the relative price (default: %(default)s)")
    given = parser.parse_args()
    folder = Path(os.environ.get("ADAPTCACHE_TRACES") or Path(__file__).resolve().parent.parent / ".." / "shared" / "traces")
    print("| trace | model | rows after | cost / min(best static, break-even) | weight of the model |\n|---|---|---:|---:|---:|")
    with ProcessPoolExecutor(PROCESSES) as pool:
        jobs = [(model, pool.submit(run, str(folder / f"{name}.npz"), given.rows, given.price, model))
                for name in given.traces.split(",") for model in given.models.split(",")]
        for model, job in jobs:
            name, rows, ratio, weight = job.result()
            print(f"| {name} | {model} | {rows:,} | {ratio:.3f} | {weight:.3f} |", flush=True)


if __name__ == "__main__":
    main()
