"""Results for people and programs: terminal tables and JSON lines. `html` makes the page with plots.

Each table carries the bound (Belady, clairvoyant) and the dullest rival (LRU, best static TTL) beside
every result, so that a number can be judged where it stands. Nothing is computed here.
"""
from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING

from adaptcache.simulate.extras import needs
from adaptcache.simulate.run import OFFLINE, EvictionResult, ExpiryResult, Result

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def json_line(result: Result) -> str:
    """One result as one line of JSON. What JSON cannot say (infinity) is null."""
    eviction = isinstance(result, EvictionResult)
    told = {name: value for name, value in asdict(result).items() if not _untold(name, value, eviction)}
    return json.dumps({name: None if isinstance(value, float) and not math.isfinite(value) else value
                       for name, value in told.items()})


def to_csv(results: Sequence[Result]) -> str:
    """Results as csv: `kind` (eviction or expiry), then the fields of both; what a result has not is empty.

    Weights, freshness, ways and timelines have a shape of their own and are left to JSON.
    """
    kinds = {"eviction": EvictionResult, "expiry": ExpiryResult}
    names = list(dict.fromkeys(field.name for kind in kinds.values() for field in fields(kind) if field.name not in NESTED))
    out = io.StringIO()
    writer = csv.DictWriter(out, ["kind", *names], lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    for result in results:
        writer.writerow({"kind": "eviction" if isinstance(result, EvictionResult) else "expiry"} | asdict(result))
    return out.getvalue()


NESTED = ("weights", "freshness", "ways", "timeline")


def _untold(name: str, value: object, eviction: bool) -> bool:
    """Fields that not every trace, rule or run has are left out where there is nothing to tell."""
    return value is None and (
        name in ("weights", "worst_margin", "freshness", "ways", "timeline", "cost_ratio", "seed") or (name == "gap_closed" and eviction))


def print_tables(results: Sequence[Result], console: Console, title: str) -> None:
    """One table of evictions and one of expiries, where there are any."""
    evictions = [result for result in results if isinstance(result, EvictionResult)]
    expiries = [result for result in results if isinstance(result, ExpiryResult)]
    if evictions:
        console.print(_eviction_table(evictions, title))
    if expiries:
        console.print(_expiry_table(expiries, title))
        if any(result.freshness for result in expiries):
            console.print(_freshness_table(expiries, title))


def print_legend(results: Sequence[Result], console: Console) -> None:
    """What the columns of the expiry table mean, for below the last table."""
    if any(isinstance(result, ExpiryResult) for result in results):
        console.print(EXPIRY_LEGEND, style="dim", highlight=False)


EXPIRY_LEGEND = """\
total      cost of the misses + rent of the memory; x best: as a multiple of the clairvoyant's
G          share of the gap between the best static TTL (0) and the clairvoyant (1) that is closed
lost       protected re-requests (within a quarter of break-even) that found the copy removed
bound      the learned rule promises that lost + in flight never exceed it"""


def _table(title: str, left: Sequence[str], right: Sequence[str]) -> Table:
    with needs("the terminal table"):
        from rich import box
        from rich.table import Table
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in left:
        table.add_column(name, no_wrap=True)
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _eviction_table(results: Sequence[EvictionResult], title: str) -> Table:
    costs = ["cost"] if any(result.cost_ratio is not None for result in results) else []
    table = _table(f"{title}: eviction", ["policy"],
                   ["entries", "hit ratio", "bytes", *costs, "- lru", "G", "belady", "M req/s"])
    by_cell = {(result.capacity, result.policy): result.hit_ratio for result in results}
    for capacity in dict.fromkeys(result.capacity for result in results):
        for result in (result for result in results if result.capacity == capacity):
            lru, belady = by_cell.get((capacity, "lru")), by_cell.get((capacity, "belady"))
            table.add_row(
                result.policy, f"{capacity:,}", f"{result.hit_ratio:.4f}", f"{result.byte_hit_ratio:.4f}",
                *("" if result.cost_ratio is None else f"{result.cost_ratio:.4f}" for _ in costs),
                "" if lru is None else f"{100 * (result.hit_ratio - lru):+.2f}",
                "" if result.gap_closed is None else f"{result.gap_closed:.3f}",
                "" if belady is None else f"{belady:.4f}",
                f"{result.requests / result.seconds / 1e6:.1f}" if result.seconds else "",
                style="dim" if result.policy in ("lru", *OFFLINE) else None,
            )
        table.add_section()
    return table


def _expiry_table(results: Sequence[ExpiryResult], title: str) -> Table:
    table = _table(f"{title}: expiry", ["expiry"],
                   ["price", "total", "x best", "G", "misses", "rent", "lost", "protected", "in flight", "bound", "stale"])
    for price in dict.fromkeys(result.memory_price for result in results):
        rows = [result for result in results if result.memory_price == price]
        given = {result.expiry for result in rows}
        least = rows[0].clairvoyant_cost
        for name, cost in (("clairvoyant", least), ("static-best", rows[0].best_static_cost)):
            if name not in given:  # the yardsticks, as far as they are known without having been asked for
                table.add_row(f"({name})", f"{price:.3g}", _amount(cost), _times(cost, least), style="dim")
        for result in rows:
            table.add_row(
                result.expiry if result.expiry != "static-best" or result.ttl is None else f"static-best ({result.ttl:.3g} s)",
                f"{price:.3g}", _amount(result.total_cost), _times(result.total_cost, result.clairvoyant_cost),
                "" if result.gap_closed is None else f"{result.gap_closed:.3f}",
                f"{result.misses:,}", _amount(result.hold_cost), f"{result.lost:,}", f"{result.protected:,}",
                f"{result.in_flight:,}", f"{result.bound:,.1f}", f"{result.stale_hits:,}",
            )
        table.add_section()
    return table


def _freshness_table(results: Sequence[ExpiryResult], title: str) -> Table:
    """What the budget of stale reads bought, and how few refreshes those need who know more (`freshness.py`)."""
    names = ["refreshes", "audits", "clairvoyant", "best_fixed", "informed", "always"]
    table = _table(f"{title}: freshness", ["expiry"], ["price", "budget", "stale", *(name.replace("_", " ") for name in names)])
    for result in results:
        if result.freshness:
            table.add_row(result.expiry, f"{result.memory_price:.3g}", f"{result.freshness['budget']:.3%}",
                          f"{result.freshness['stale_rate']:.3%}", *(f"{result.freshness[name]:,.0f}" for name in names))
    return table


def _amount(cost: float) -> str:
    return f"{cost:,.1f}" if abs(cost) >= 10 else f"{cost:.4g}"


def _times(cost: float, least: float) -> str:
    return f"{cost / least:.3f}" if least > 0 else ""
