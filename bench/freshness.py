"""What a budget of stale reads costs in refreshes, beside those who know more than a cache can.

    make bench-freshness                    or: python bench/freshness.py --traces dns_wrccdc_a --budgets 0.05

Each trace with versions is replayed by the harness (`adaptcache.simulate.learned.replay`) at each budget p and seed, with
free memory and no capacity limit, so that nothing but freshness makes a cache reload. *stale* is the share of all gets
that were answered with another version than the source's; *of p* that share over p; *refreshes* and the three
comparisons (*clairvoyant*: knows when each value changes; *best fixed*: one validity a key, the best in hindsight, as a
lower bound; *informed*: knows each key's mean rates) are defined in `adaptcache/simulate/freshness.py`. The first load of
a key is no refresh. Ratios are the learner's refreshes over theirs; *always* reloads at every get.

The traces are `NAME.npz` in the folder that ADAPTCACHE_TRACES names, or `origin:LAW`, a made one whose values change by a
law (`adaptcache/simulate/origins.py`; the seed makes the trace, too). Prints markdown.
"""
from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from adaptcache import __version__
from adaptcache.simulate.freshness import Refreshes, knowing
from adaptcache.simulate.learned import replay
from adaptcache.simulate.origins import PREFIX, laws, origin
from adaptcache.simulate.readers import read

TRACES = ("synth_kv_ttl", "dns_wrccdc_a", "git_reads_pig")
BUDGETS = ("0.001", "0.01", "0.05")
HEAD = ("trace", "p", "seed", "allowed", "stale", "of p", "refreshes", "audits", "always", "clairvoyant", "best fixed",
        "informed", "/ clairvoyant", "/ best fixed", "/ informed")


def run(job: tuple[str, float, int]) -> tuple[tuple[str, float, int], Refreshes, dict[str, float]]:
    path, budget, seed = job
    trace = origin(path, seed=seed) if path.startswith(PREFIX) else read(path, None, None)
    got = replay(trace, 0.0, stale=budget, seed=seed, predictors=("table",))
    return job, knowing(trace, budget), {
        "stale": got["stale_hits"], "requests": got["requests"], "refreshes": got["refreshes"],
        "audits": got["freshness"]["audits"],
    }


def cells(job: tuple[str, float, int], known: Refreshes, got: dict[str, float]) -> list[str]:
    path, budget, seed = job
    rate = got["stale"] / got["requests"]
    least = (known.clairvoyant, known.best_fixed, known.informed)
    return [Path(path).stem, f"{budget:g}", str(seed), f"{known.budget:,}", f"{rate:.3%}", f"{rate / budget:.2f}",
            f"{got['refreshes']:,}", f"{got['audits']:,}", f"{known.always:,}", *(f"{one:,.0f}" for one in least),
            *(f"{got['refreshes'] / one:.2f}" if one else "" for one in least)]


def words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def table(rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(HEAD) + " |", "| " + " | ".join("---" for _ in HEAD) + " |"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--traces", type=words, default=list(TRACES), help="names, comma separated (default: %(default)s)")
    parser.add_argument("--budgets", type=words, default=list(BUDGETS), help="shares of the reads (default: %(default)s)")
    parser.add_argument("--seeds", type=words, default=["0", "1", "2"], help="default: 0,1,2")
    given = parser.parse_args()
    default = Path(__file__).resolve().parent.parent / ".." / "shared" / "traces"
    folder = Path(os.environ.get("ADAPTCACHE_TRACES") or default)
    paths = [name if name.startswith(PREFIX) else str(folder / f"{name}.npz") for name in given.traces]
    for path in paths:
        if path.startswith(PREFIX):
            if path.removeprefix(PREFIX) not in laws():
                parser.error(f"no law of change {path!r}; there is: {', '.join(PREFIX + law for law in laws())}")
        elif not Path(path).is_file():
            parser.error(f"no trace {path}; ADAPTCACHE_TRACES names the folder of the traces")
    jobs = [(path, float(budget), int(seed)) for path in paths for budget in given.budgets for seed in given.seeds]
    rows = []
    with ProcessPoolExecutor(2) as pool:
        for done in pool.map(run, jobs):
            rows.append(cells(*done))
            print(f"{len(rows)}/{len(jobs)}", file=sys.stderr)
    print(f"adaptcache {__version__}, free memory, no capacity limit\n")
    print(table(rows))


if __name__ == "__main__":
    main()
