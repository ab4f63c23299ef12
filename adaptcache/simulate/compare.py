"""Two runs of the harness side by side: what got better and what got worse.

A run is a file of JSON lines as `adaptcache simulate --json` writes it. Results meet where trace, policy and capacity are the
same, or trace, expiry rule and memory price; several of one kind (seeds) are averaged. Eviction is compared by hit
ratio, expiry by total cost.
"""
from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final

from adaptcache.errors import TraceError
from adaptcache.simulate.extras import needs

if TYPE_CHECKING:
    from rich.console import Console

WANTED: Final = "a result of `adaptcache simulate --json` is wanted, one object a line"

Cell = tuple[str, str, str, float]  # kind, trace, policy or rule, capacity or price


@dataclass(frozen=True)
class Change:
    """One cell in both runs. For eviction a and b are hit ratios and `change` is b - a; for expiry they are total costs and
    `change` is b / a - 1 (0 where both are 0, None where only a is)."""

    kind: str  # eviction, expiry
    trace: str
    name: str  # policy, or rule
    at: float  # capacity in entries, or memory price
    a: float
    b: float
    change: float | None


@dataclass(frozen=True)
class Comparison:
    changes: tuple[Change, ...]  # in the order of a
    only_a: tuple[Cell, ...]
    only_b: tuple[Cell, ...]

    def by_name(self) -> dict[tuple[str, str], list[float]]:
        """(kind, policy or rule) -> its changes."""
        out: dict[tuple[str, str], list[float]] = {}
        for change in self.changes:
            if change.change is not None:
                out.setdefault((change.kind, change.name), []).append(change.change)
        return out


def compare(a: str | os.PathLike[str], b: str | os.PathLike[str]) -> Comparison:
    """What changed from the run in file a to that in file b. TraceError names the line that is no result."""
    before, after = read_results(a), read_results(b)
    return Comparison(
        changes=tuple(_change(cell, before[cell], after[cell]) for cell in before if cell in after),
        only_a=tuple(cell for cell in before if cell not in after), only_b=tuple(cell for cell in after if cell not in before),
    )


def _change(cell: Cell, a: float, b: float) -> Change:
    kind, trace, name, at = cell
    change: float | None = b - a if kind == "eviction" else b / a - 1 if a else 0.0 if b == a else None
    return Change(kind, trace, name, at, a, b, change)


def read_results(path: str | os.PathLike[str]) -> dict[Cell, float]:
    """Cell -> hit ratio or total cost, the mean of its results."""
    cells: dict[Cell, list[float]] = {}
    try:
        text = Path(path).read_text("utf-8")
    except FileNotFoundError as error:
        raise TraceError(f"{path}: no such file") from error
    except UnicodeDecodeError as error:
        raise TraceError(f"{path}: byte {error.start}: is no text; {WANTED}") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            cell, value = _result(line, f"{path}: line {number}")
            cells.setdefault(cell, []).append(value)
    if not cells:
        raise TraceError(f"{path}: is empty; {WANTED}")
    return {cell: fmean(values) for cell, values in cells.items()}


def _result(line: str, where: str) -> tuple[Cell, float]:
    try:
        got: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise TraceError(f"{where}: is no JSON ({error}); {WANTED}") from error
    if isinstance(got, dict):
        for kind, name, at, value in (("eviction", "policy", "capacity", "hit_ratio"), ("expiry", "expiry", "memory_price", "total_cost")):
            if name in got:
                numbers = [got.get(at), got.get(value)]
                if not isinstance(got.get("trace"), str) or not all(_number(number) for number in numbers):
                    raise TraceError(f"{where}: lacks trace, {at} or {value}; {WANTED}")
                return (kind, got["trace"], str(got[name]), float(got[at])), float(got[value])
    raise TraceError(f"{where}: has neither policy nor expiry; {WANTED}")


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def json_lines(comparison: Comparison) -> list[str]:
    """A line a change, then one line of what stands in one run alone."""
    alone = {"only_a": comparison.only_a, "only_b": comparison.only_b}
    return [*(json.dumps(asdict(change)) for change in comparison.changes), json.dumps(alone)]


def show(comparison: Comparison, console: Console, names: Sequence[str] = ("A", "B")) -> None:
    """Tables: every cell, then each policy's or rule's mean and extremes."""
    with needs("the terminal table"):
        from rich import box
        from rich.table import Table
    for kind, at, unit in (("eviction", "entries", "points"), ("expiry", "price", "cost %")):
        changes = [change for change in comparison.changes if change.kind == kind]
        if not changes:
            continue
        table = Table(title=f"{kind}: {names[0]} → {names[1]}", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for name in ("trace", "policy" if kind == "eviction" else "expiry"):
            table.add_column(name, no_wrap=True)
        for name in (at, "A", "B", unit):
            table.add_column(name, justify="right", no_wrap=True)
        for change in changes:
            better = change.change is not None and (change.change > 0) == (kind == "eviction")
            style = None if change.change == 0 else "green" if better else "red"
            table.add_row(change.trace, change.name, f"{change.at:,.0f}" if kind == "eviction" else f"{change.at:.3g}",
                          *(f"{value:.4f}" if kind == "eviction" else f"{value:,.1f}" for value in (change.a, change.b)),
                          "" if change.change is None else f"{100 * change.change:+.2f}", style=style)
        console.print(table)
        total = Table(title=f"{kind}: {unit} over all cells", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        total.add_column("")
        for name in ("cells", "mean", "least", "most"):
            total.add_column(name, justify="right")
        for (what, name), values in comparison.by_name().items():
            if what == kind:
                total.add_row(name, str(len(values)), *(f"{100 * value:+.2f}" for value in (fmean(values), min(values), max(values))))
        console.print(total)
    for name, cells in zip(names, (comparison.only_a, comparison.only_b), strict=True):
        if cells:
            console.print(f"only in {name}: " + ", ".join(f"{cell[1]} {cell[2]} {cell[3]:g}" for cell in cells), style="dim",
                          highlight=False, markup=False)
