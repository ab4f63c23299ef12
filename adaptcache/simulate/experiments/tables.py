"""Results of several seeds for people: mean ± half of the interval's width. Nothing is computed here."""
from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from adaptcache.simulate import report
from adaptcache.simulate.experiments.intervals import LEVEL, Summary, over_seeds
from adaptcache.simulate.run import EvictionResult, ExpiryResult, Result

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

LEGEND = f"±          half of the {LEVEL:.0%} interval of the mean over seeds (Student's t); without it: the seed decides nothing"


def print_over_seeds(results: Sequence[Result], console: Console, title: str) -> None:
    """One table of evictions and one of expiries, where there are any; `results` as an experiment lists them."""
    cells = over_seeds(results)
    for kind, table in ((EvictionResult, _evictions), (ExpiryResult, _expiries)):
        rows = [cell for cell in cells if isinstance(cell.results[0], kind)]
        if rows:
            console.print(table(rows, title))
    console.print(LEGEND, style="dim", highlight=False)


def _evictions(cells: Sequence[Summary], title: str) -> Table:
    table = report._table(f"{title}: eviction", ["policy"], ["entries", "hit ratio", "bytes", "gap closed", "seeds"])
    before = None
    for cell in cells:
        sizes = sorted({result.capacity for result in cell.results if isinstance(result, EvictionResult)})
        if before is not None and sizes != before:
            table.add_section()
        before = sizes
        first = cell.results[0]
        assert isinstance(first, EvictionResult)
        table.add_row(first.policy, _range(sizes), _shown(cell, "hit_ratio", ".4f"), _shown(cell, "byte_hit_ratio", ".4f"),
                      _shown(cell, "gap_closed", ".3f"), str(len(cell.results)))
    return table


def _expiries(cells: Sequence[Summary], title: str) -> Table:
    table = report._table(f"{title}: expiry", ["expiry"], ["price", "total", "G", "misses", "rent", "lost", "seeds"])
    for cell in cells:
        first = cell.results[0]
        assert isinstance(first, ExpiryResult)
        table.add_row(first.expiry, f"{first.memory_price:.3g}", _shown(cell, "total_cost", ",.1f"), _shown(cell, "gap_closed", ".3f"),
                      _shown(cell, "misses", ",.0f"), _shown(cell, "hold_cost", ",.1f"), _shown(cell, "lost", ",.1f"),
                      str(len(cell.results)))
    return table


def _shown(cell: Summary, name: str, spec: str) -> str:
    return format(cell.measures[name], spec) if name in cell.measures else ""


def _range(sizes: Sequence[int]) -> str:
    return f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
