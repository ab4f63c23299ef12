"""The demo: a data service with a real database, and the cache that learns next to caches that do not.

`main` fills the database, drives the pipeline workload through all caches at once, shows it, and
writes an HTML page. What it takes beyond the library comes with the extra `adaptcache[simulate]`.
"""
from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from ..simulate.extras import needs

if TYPE_CHECKING:
    from .results import Results

REQUESTS_PER_SECOND = 250  # of driving time: what an ordinary machine serves, with room to spare
HOLD = 20 * 60.0  # workload seconds for which a typical answer is worth its memory
OLDEST = 3_600.0  # no cache may serve an answer older than this
PREMATURE = 0.01
FIXED = {"5 minutes": 300.0, "20 minutes": HOLD, "1 hour": OLDEST}


def main(seconds: float = 60, html: str | Path | None = "adaptcache-demo.html", seed: int = 0, live: bool = True) -> int:
    """Runs the demo for about `seconds` and writes the page, unless `html` is None. Returns the exit code, 0."""
    # Whatever is missing should be said now and not after a minute.
    with needs("the demo"):
        from .report import write

    results = run(seconds=seconds, seed=seed, live=live)
    if html is not None:
        write(results, html)
        print(f"\nThe same with plots: {html}")
    return 0


def run(*, seconds: float, seed: int = 0, live: bool = True, requests: int | None = None) -> Results:
    """Drives the workload and shows it; the number of requests follows from `seconds` if it is not given."""
    with needs("the demo"):
        from rich.console import Console

        from .view import View
    from ..simulate.pipeline import PipelineParameters, workload
    from .database import Database
    from .results import collect
    from .service import Race, WorkClock, contestants, typical_price

    if seconds <= 0:
        raise ValueError(f"seconds={seconds!r} is out of range: accepted is more than 0")
    console = Console()
    parameters = PipelineParameters(
        requests=requests or max(1_000, round(REQUESTS_PER_SECOND * seconds)), tenants=6, entities=500,
        sitting_minutes=60,
    )
    planned = list(workload(parameters, seed=seed))
    console.print(f"Filling a database for {parameters.tenants} tenants ...", highlight=False)
    database = Database(parameters.tenants, parameters.days, seed=seed)
    console.print(f"{database.rows:,} rows. Driving {len(planned):,} requests, at most {seconds:g} s.", highlight=False)
    try:
        clock = WorkClock()
        clock.now = planned[0].time
        price = typical_price(database, planned, HOLD)
        race = Race(
            database, contestants(price, clock, fixed=FIXED, oldest=OLDEST, premature=PREMATURE, seed=seed), clock, price
        )
        start = perf_counter()
        with View(console, race, len(planned), parameters.shift, HOLD, live=live) as view:
            for sample in race.run(planned, seconds=seconds):
                view.update(sample)
        results = collect(
            race, planned=len(planned), seconds=perf_counter() - start, shift=parameters.shift, hold=HOLD,
            premature=PREMATURE, seed=seed,
        )
    finally:
        database.close()
    view.finish(results)
    return results
