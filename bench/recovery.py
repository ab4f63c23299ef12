"""How soon a learned expiry is back at its best after the workload has changed.

    make bench-recovery                     or: python bench/recovery.py --traces synth_shift --prices 1x

Around each change of regime, time is cut into steps of one median break-even time b. In each step the learned
expiry's cost (misses and rent) is set against that of the static TTL which is best for the new regime, in hindsight,
and which pays for its whole past too. The mean over all changes is printed by step: *before* is the last 3 b of the
old regime against its own best TTL, *b1* the first step after the change, and so on; *after 3 b* is everything from
3 b after the change to the next one. The aim: at most 1.1 there. Each is given with the alarm and without.

`synth_shift` (a recorded file in the folder that ADAPTCACHE_TRACES names) changes every 50,000 requests, the
synthetic pipeline half way through. Prints markdown.
"""
from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from adaptcache import _core
from adaptcache.learn.trainer import Trainer
from adaptcache.simulate import learned
from adaptcache.simulate.oracle import Oracle
from adaptcache.simulate.pipeline import PipelineParameters
from adaptcache.simulate.readers import read
from adaptcache.simulate.synthetic import generate
from adaptcache.simulate.trace import DTYPES, Trace, dense

PHASE = 50_000          # requests of one phase of synth_shift
STEPS = 8               # steps after a change that are shown one by one
PROCESSES = 2
IDLE = 2                # the core's number of a TTL that counts anew from every access


@dataclass(frozen=True)
class Job:
    trace: str
    price: str
    premature: float
    alarm: bool
    seed: int = 0


def load(name: str) -> tuple[Trace, list[int]]:
    """A trace, and the rows at which its regimes begin, the end included."""
    if name.startswith("pipeline"):
        seed = int(name.partition(":")[2] or 1)
        trace = generate("pipeline", seed=seed, requests=60_000)
        assert trace.time is not None
        at = int(np.searchsorted(trace.time, PipelineParameters(requests=60_000).shift))
        return trace, [0, at, len(trace)]
    default = Path(__file__).resolve().parent.parent / ".." / "shared" / "traces"
    trace = read(Path(os.environ.get("ADAPTCACHE_TRACES") or default) / f"{name}.npz")
    return trace, [*range(0, len(trace), PHASE), len(trace)]


def part(trace: Trace, start: int, stop: int) -> Trace:
    cut = {name: getattr(trace, name)[start:stop] for name in DTYPES if getattr(trace, name) is not None}
    cut["key"] = dense(cut["key"])
    return replace(trace, n_keys=int(cut["key"].max()) + 1,
                   features={name: values[start:stop] for name, values in trace.features.items()}, **cut)


class Ledger:
    """What had been paid when, from what a replay says between its pieces."""

    def __init__(self, trace: Trace) -> None:
        self.trace, self.times, self.paid = trace, [float(trace.time[0])], [0.0]

    def __call__(self, rows: int, run: _core.ExpiryReplay, _trainer: Trainer | None = None) -> None:
        now = float(self.trace.time[rows - 1])
        run.finish(now)
        self.times.append(now)
        self.paid.append(run.miss_cost + run.hold_cost)

    def between(self, start: float, stop: float) -> float:
        low, high = np.interp([start, stop], self.times, self.paid)
        return float(high - low)


def piece(trace: Trace) -> int:
    """Rows between two readings: far fewer than come in a break-even time."""
    return 32 if len(trace) <= 100_000 else 256


def static(trace: Trace, oracle: Oracle, ttl: float, price: float) -> Ledger:
    ledger = Ledger(trace)
    run = _core.ExpiryReplay(IDLE, trace.n_keys, price=price, now=float(trace.time[0]), ttl=ttl)
    for start in range(0, len(trace), piece(trace)):
        stop = min(start + piece(trace), len(trace))
        run.run(trace.key, trace.time, oracle.size, oracle.cost, trace.op, trace.version, None, None, None, start, stop)
        ledger(stop, run)
    return ledger


def quiet(ledger: Ledger) -> Callable[[int, _core.ExpiryReplay, Trainer], None]:
    """Between two pieces, forget that anything looked like drift: the learner without its alarm."""
    def watch(rows: int, run: _core.ExpiryReplay, trainer: Trainer) -> None:
        trainer.deaf = True
        ledger(rows, run, trainer)
    return watch


def measure(job: Job) -> tuple[Job, list[float], int, int]:
    """Ratios (before, each step, after 3 b) averaged over the changes; how many changes; alarms."""
    trace, marks = load(job.trace)
    oracle = Oracle(trace)
    price = oracle.price(float(job.price.removesuffix("x")))
    ours = Ledger(trace)
    out = learned.replay(trace, price, premature=job.premature, seed=job.seed, piece=piece(trace),
                         watch=ours if job.alarm else quiet(ours))
    ttls = [Oracle(part(trace, start, stop)).static_best(price).ttl for start, stop in pairwise(marks)]
    theirs = {ttl: static(trace, oracle, ttl, price) for ttl in set(ttls)}
    width = float(np.median(oracle.break_even_ttl(price)))
    ratios: list[list[float]] = []
    for number in range(1, len(marks) - 1):
        change = float(trace.time[marks[number]])
        end = float(trace.time[marks[number + 1] - 1])
        spans = [(change - 3 * width, change, number - 1)]
        spans += [(change + k * width, change + (k + 1) * width, number) for k in range(STEPS)]
        spans += [(change + 3 * width, end, number)]
        ratios.append([
            ours.between(start, stop) / theirs[ttls[which]].between(start, stop)
            if stop <= end and start < stop and theirs[ttls[which]].between(start, stop) > 0 else np.nan
            for start, stop, which in spans])
    return job, np.nanmean(np.array(ratios), axis=0).tolist(), len(ratios), out["alarms"]


def table(rows: list[tuple[Job, list[float], int, int]]) -> Iterator[str]:
    head = ["trace", "price", "alpha", "alarm", "alarms", "changes", "before", *(f"b{k + 1}" for k in range(STEPS)), "after 3 b"]
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for job, ratios, changes, alarms in rows:
        cells = [job.trace, job.price, f"{job.premature:g}", "yes" if job.alarm else "no", str(alarms), str(changes),
                 *("" if np.isnan(ratio) else f"{ratio:.3f}" for ratio in ratios)]
        yield "| " + " | ".join(cells) + " |"


def main() -> None:
    words = lambda text: [word.strip() for word in text.split(",") if word.strip()]     # noqa: E731
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--traces", type=words, default=["synth_shift", "pipeline:1", "pipeline:2", "pipeline:3"])
    parser.add_argument("--prices", type=words, default=["1x", "0.3x"])
    parser.add_argument("--premature", type=words, default=["0.01", "1"], help="alphas; 1 is without the guard")
    given = parser.parse_args()
    jobs = [Job(trace, price, float(alpha), alarm) for trace in given.traces for price in given.prices
            for alpha in given.premature for alarm in (True, False)]
    with ProcessPoolExecutor(PROCESSES) as pool:
        print("\n".join(table(list(pool.map(measure, jobs)))))


if __name__ == "__main__":
    main()
