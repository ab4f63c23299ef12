"""Hit ratios of every policy on the recorded traces, beside the best of thirty policies that others measured.

    make bench-policies                     or: python bench/policies.py --sizes 0.1%,1%,10% --sizes 0.3%,3%,30%

For each trace and size (20 entries or more): points of hit ratio that a policy is short of the best one, negative where it beats
it. At the sizes of the reference table the best is that of its policies; at other sizes, of ours. `ADAPTCACHE_TRACES`
names the folder of traces, beside which `reference/` lies. Prints markdown.
"""
from __future__ import annotations

import argparse
import csv
import os
import statistics
import time
from collections import defaultdict
from pathlib import Path

from adaptcache import __version__, _core, policies
from adaptcache.simulate import read
from adaptcache.simulate.trace import Trace

TRACES = Path(os.environ.get("ADAPTCACHE_TRACES", "../shared/traces"))
LEAST = 20                      # entries: below that, one entry is a twentieth
Cell = tuple[str, float]


def reference() -> dict[Cell, float]:
    """The best hit ratio by trace and share of the keys."""
    folder = TRACES.parent / "reference"
    with (folder / "policy_shortfall.csv").open() as file:
        listed = {row["policy"] for row in csv.DictReader(file)}
    best: dict[Cell, float] = defaultdict(float)
    with (folder / "hitratios.csv").open() as file:
        for row in csv.DictReader(file):
            if row["policy"] in listed and row["hit_ratio"]:
                cell = row["trace"], float(row["size_frac"])
                best[cell] = max(best[cell], float(row["hit_ratio"]))
    return best


def hit_ratio(trace: Trace, policy: str, capacity: int, salts: range) -> tuple[float, float]:
    """Mean over the salts, and seconds of one replay."""
    began, hits = time.process_time(), 0
    for salt in salts:
        replay = _core.PolicyReplay(policy, capacity, trace.n_keys, salt)
        replay.run(trace.key, None, None, None, 0, len(trace))
        hits += replay.hits
    return hits / len(salts) / len(trace), (time.process_time() - began) / len(salts)


def grid(shares: list[float], chosen: list[str], salts: range, best: dict[Cell, float]) -> None:
    cells: list[tuple[str, int, float, dict[str, float]]] = []
    spent: dict[str, float] = defaultdict(float)
    requests = 0
    for path in sorted(TRACES.glob("*.npz")):
        trace = read(path)
        for share in shares:
            capacity = max(10, round(share * trace.n_keys))
            if capacity < LEAST:
                continue
            ratios = {}
            for policy in chosen:
                ratios[policy], seconds = hit_ratio(trace, policy, capacity, salts)
                spent[policy] += seconds
            cells.append((trace.name, capacity, best.get((path.stem, share)) or max(ratios.values()), ratios))
            requests += len(trace)
    print("| trace | entries | best | " + " | ".join(chosen) + " |\n|---|---:|---:|" + "---:|" * len(chosen))
    for name, capacity, top, ratios in cells:
        print(f"| {name} | {capacity:,} | {top:.4f} | " + " | ".join(f"{100 * (top - ratios[policy]):.2f}" for policy in chosen) + " |")
    for what, of in (("mean", statistics.fmean), ("worst", max)):
        print(f"| **{what}** | | | " + " | ".join(
            f"{of([100 * (top - ratios[policy]) for _, _, top, ratios in cells]):.3f}" for policy in chosen) + " |")
    if "lru" in chosen:
        print("| **below LRU, worst** | | | " + " | ".join(
            f"{max(100 * (ratios['lru'] - ratios[policy]) for *_, ratios in cells):.2f}" for policy in chosen) + " |")
    print("| **ns a request** | | | " + " | ".join(f"{spent[policy] / requests * 1e9:.0f}" for policy in chosen) + " |\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", action="append", help="percentages of the keys; may be given again for a table of its own")
    parser.add_argument("--policies", default=",".join(policies()))
    parser.add_argument("--salts", type=int, default=1, help="policies that draw by chance: mean over so many")
    options = parser.parse_args()
    if not TRACES.is_dir():
        parser.error(f"no recorded traces in {TRACES}; ADAPTCACHE_TRACES names another folder")
    print(f"adaptcache {__version__}; points short of the best\n")
    for sizes in options.sizes or ["0.1%,1%,10%", "0.3%,3%,30%"]:
        shares = [float(size.rstrip("%")) / 100 for size in sizes.split(",")]
        grid([round(share, 9) for share in shares], options.policies.split(","), range(options.salts), reference())


if __name__ == "__main__":
    main()
