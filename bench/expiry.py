"""What learned expiry costs on the timed traces, beside the best possible and the dullest rivals.

    make bench-expiry                       or: python bench/expiry.py --traces cran_downloads --prices 0.1x

Each trace at each price of memory and seed is replayed by the harness (`adaptcache.simulate.simulate`)
twice: guarded (`--premature`, by default 0.01) and open (premature 1, no guard). Costs are in misses.
G is the share closed of the gap between the best static TTL in hindsight (0) and the clairvoyant (1).
*lost*, *in flight* and *bound* are the guarded run's; its worst margin is the least of
bound - lost - in flight over the whole run, and below 0 the promise would be broken.

The traces are `NAME.npz` in the folder that ADAPTCACHE_TRACES names. Prints markdown; writes a file only
where `--out` names one.
"""
from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

from adaptcache import __version__
from adaptcache.simulate import ExpiryResult, simulate

TRACES = (
    "cloudphysics_io", "mooncake_conversation", "cran_downloads", "mathoverflow_users",
    "synth_shift", "synth_kv_ttl", "dns_wrccdc_a", "git_reads_pig",
)
PRICES = ("1x", "0.1x", "0.01x")
GUARDED = 0.01
PROCESSES = 2

HEAD = ("price", "seed", "clairvoyant", "best static", "break-even", "learned", "G open", "G guarded",
        "protected", "lost", "in flight", "bound", "worst margin")


@dataclass(frozen=True)
class Job:
    """One row of a table."""

    path: str
    price: str
    seed: int
    premature: float


@dataclass(frozen=True)
class Row:
    job: Job
    trace: str
    break_even: float
    guarded: ExpiryResult
    open_gap: float | None
    seconds: float

    def cells(self) -> list[str]:
        r = self.guarded
        return [
            self.job.price, str(self.job.seed), f"{r.clairvoyant_cost:,.0f}", f"{r.best_static_cost:,.0f}",
            f"{self.break_even:,.0f}", f"{r.total_cost:,.0f}", gap(self.open_gap), gap(r.gap_closed),
            f"{r.protected:,}", f"{r.lost:,}", f"{r.in_flight:,}", f"{r.bound:,.1f}",
            "" if r.worst_margin is None else f"{r.worst_margin + 0.0:.2f}",
        ]


def run(job: Job) -> Row:
    began = perf_counter()
    rules = {
        result.expiry: result
        for result in simulate(job.path, expiries=["break-even", "learned"], memory_prices=[job.price],
                               premature=job.premature, seed=job.seed)
        if isinstance(result, ExpiryResult)
    }
    (free,) = simulate(job.path, expiries=["learned"], memory_prices=[job.price], premature=1.0, seed=job.seed)
    assert isinstance(free, ExpiryResult)
    return Row(job, Path(job.path).stem, rules["break-even"].total_cost, rules["learned"], free.gap_closed,
               perf_counter() - began)


def gap(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def page(rows: Sequence[Row], traces: Sequence[str], prices: Sequence[str], premature: float) -> str:
    parts = [
        f"Learned expiry, guard at {premature:g}, window break-even / 4. adaptcache {__version__}, "
        f"Python {platform.python_version()}, {platform.machine()}."
    ]
    for name in traces:
        parts += [f"### {name}", table(HEAD, [row.cells() for row in rows if row.trace == name])]
    parts.append("### Medians over the traces and seeds")
    medians = []
    for price in prices:
        these = [row for row in rows if row.job.price == price]
        opened = [row.open_gap for row in these if row.open_gap is not None]
        guarded = [row.guarded.gap_closed for row in these if row.guarded.gap_closed is not None]
        lost = [row.guarded.lost / row.guarded.protected for row in these if row.guarded.protected]
        margins = [row.guarded.worst_margin for row in these if row.guarded.worst_margin is not None]
        ratio = [row.guarded.total_cost / row.guarded.clairvoyant_cost for row in these if row.guarded.clairvoyant_cost > 0]
        best = [row.guarded.best_static_cost / row.guarded.clairvoyant_cost for row in these if row.guarded.clairvoyant_cost > 0]
        medians.append([
            price, gap(median(opened)) if opened else "", gap(median(guarded)) if guarded else "",
            f"{median(ratio):.3f}" if ratio else "", f"{median(best):.3f}" if best else "",
            f"{max(lost):.2%}" if lost else "", f"{min(margins) + 0.0:.2f}" if margins else "",
        ])
    parts.append(table(("price", "G open", "G guarded", "learned / clairvoyant", "best static / clairvoyant",
                        "most lost of protected", "worst margin of all"), medians))
    return "\n\n".join(parts) + "\n"


def words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def main() -> None:
    what = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--traces", type=words, default=list(TRACES), help="names, comma separated (default: %(default)s)")
    parser.add_argument("--prices", type=words, default=list(PRICES), help="as for `adaptcache simulate` (default: %(default)s)")
    parser.add_argument("--seeds", type=words, default=["0"], help="default: 0")
    parser.add_argument("--premature", type=float, default=GUARDED, help="the guarded run's promise (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="also write the page to this file")
    given = parser.parse_args()

    default = Path(__file__).resolve().parent.parent / ".." / "shared" / "traces"
    folder = Path(os.environ.get("ADAPTCACHE_TRACES") or default)
    paths = {name: folder / f"{name}.npz" for name in given.traces}
    absent = [str(path) for path in paths.values() if not path.is_file()]
    if absent:
        parser.error(f"no trace {absent[0]}; ADAPTCACHE_TRACES names the folder of the traces")

    jobs = [Job(str(paths[name]), price, int(seed), given.premature)
            for name in given.traces for price in given.prices for seed in given.seeds]
    # The largest first: two processes then end at about the same time.
    jobs.sort(key=lambda job: -os.path.getsize(job.path))
    rows = []
    with ProcessPoolExecutor(PROCESSES) as pool:
        for future in as_completed([pool.submit(run, job) for job in jobs]):
            row = future.result()
            rows.append(row)
            print(f"{len(rows)}/{len(jobs)} {row.trace} {row.job.price} {row.seconds:.0f} s", file=sys.stderr)
    place = {name: at for at, name in enumerate([*given.traces, *given.prices])}
    rows.sort(key=lambda row: (place[row.trace], place[row.job.price], row.job.seed))
    text = page(rows, given.traces, given.prices, given.premature)
    print(text, end="")
    if given.out is not None:
        given.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
