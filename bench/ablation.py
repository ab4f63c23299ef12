"""What each part of the mixture is worth: its cost with the part off, against the whole.

    make bench-ablation                     or: python bench/ablation.py --traces cran_downloads --prices 0.1

Guard open, seed 0. A cell is the cost with that part left out over the cost of the whole: above 1 the part earns its place.
The parts: river's stack, river's linear hazards and tree (each with and without the key's own cell), all of river, the hazard
tables, everything but fixed TTLs and break-even multiples, and the weighted majority (then experts are drawn by weight). The
traces are `NAME.npz` in the folder that ADAPTCACHE_TRACES names, or `synthetic:pipeline` (100,000 rows). Prints markdown.
"""
from __future__ import annotations

import argparse
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import mean

from adaptcache import _core
from adaptcache.learn import experts
from adaptcache.simulate import learned
from adaptcache.simulate.oracle import Oracle
from adaptcache.simulate.readers import read

TRACES = ("cloudphysics_io,mooncake_conversation,cran_downloads,mathoverflow_users,synth_shift,synth_kv_ttl,dns_wrccdc_a,"
          "git_reads_pig")
PROCESSES = 2
HAZARD = _core.SLOT_HAZARD
STACK = {HAZARD + experts.HAZARDS.index("river:stack")}
PARTS: dict[str, set[int]] = {
    "whole": set(),
    "stack": STACK,
    "line and tree": set(experts.RIVER) - STACK,
    "river": set(experts.RIVER),
    "tables": set(experts.TABLE),
    "all hazards": set(experts.TABLE) | set(experts.RIVER),
    "majority": {_core.SLOT_MAJORITY},
}


def run(path: str, times: float, part: str) -> tuple[float, float]:
    """(cost, G)."""
    trace = read(path, limit=100_000 if path.startswith("synthetic:") else None)
    oracle = Oracle(trace)
    price = oracle.price(times)
    cost = learned.replay(trace, price, premature=1.0, without=PARTS[part])["total_cost"]
    static, least = oracle.static_best(price).total_cost, oracle.clairvoyant(price).total_cost
    return cost, (static - cost) / (static - least)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--traces", default=TRACES, help="names, comma separated (default: all)")
    parser.add_argument("--parts", default=",".join(PARTS), help="default: all")
    parser.add_argument("--prices", default="0.1,0.01", help="times the relative price (default: %(default)s)")
    given = parser.parse_args()
    parts = ["whole", *(part for part in PARTS if part != "whole" and part in given.parts.split(","))]
    folder = Path(os.environ.get("ADAPTCACHE_TRACES") or Path(__file__).resolve().parent.parent / ".." / "shared" / "traces")
    print("| trace | price | G of the whole | " + " | ".join(f"without {part}" for part in parts[1:]) + " |")
    print("|---|---:|---:|" + "---:|" * (len(parts) - 1))
    ratios: dict[str, list[float]] = {part: [] for part in parts}
    with ProcessPoolExecutor(PROCESSES) as pool:
        rows = [(name, times, {part: pool.submit(run, name if name.startswith("synthetic:") else str(folder / f"{name}.npz"), times, part)
                               for part in parts})
                for name in given.traces.split(",") for times in map(float, given.prices.split(","))]
        for name, times, jobs in rows:
            whole, gap = jobs["whole"].result()
            for part in parts:
                ratios[part].append(jobs[part].result()[0] / whole)
            cells = " | ".join(f"{ratios[part][-1]:.3f}" for part in parts[1:])
            print(f"| {name} | {times:g}x | {gap:.3f} | {cells} |", flush=True)
    print("| **mean** | | | " + " | ".join(f"{mean(ratios[part]):.3f}" for part in parts[1:]) + " |")


if __name__ == "__main__":
    main()
