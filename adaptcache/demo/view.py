"""The run as seen in a terminal: live while it lasts, or plain lines where there is no terminal.

Only looks; what it shows is read from the race and its last sample.
"""
from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from .results import Results, summary
from .service import Race, Sample

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
SHOWN_EXPERTS = 6


class View:
    """Follows one race; `update` after every sample, `finish` with the results."""

    def __init__(self, console: Console, race: Race, planned: int, shift: float, hold: float, *, live: bool) -> None:
        self._console = console
        self._race = race
        self._planned = planned
        self._shift = shift
        self._hold = hold
        self._live = Live(console=console, auto_refresh=False) if live and console.is_terminal else None
        self._next = 0.0

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self._live:
            self._live.stop()

    def update(self, sample: Sample, timer: Callable[[], float] = perf_counter) -> None:
        """Shows the newest sample, at most five times a second (or one line per tenth of the way)."""
        done = sample.requests / self._planned
        if self._live:
            if timer() >= self._next or done >= 1:
                self._live.update(self._page(sample), refresh=True)
                self._next = timer() + 0.2
        elif done >= self._next:
            self._console.print(self._line(sample), highlight=False, markup=False, soft_wrap=True)
            self._next = (int(done * 10) + 1) / 10

    def _line(self, sample: Sample) -> str:
        parts = [
            f"{contestant.name}: {hits / sample.requests:.1%} hits, cost {cost:.2f} s"
            for contestant, hits, cost in zip(self._race.contestants, sample.hits, sample.costs, strict=True)
        ]
        return (f"[{sample.requests:>7,} of {self._planned:,}] {moment(sample.time)} | " + " | ".join(parts)
                + f" | lost {sample.lost} + open {sample.in_flight} <= {sample.bound:.1f}")

    def _page(self, sample: Sample) -> RenderableType:
        habits = "habits as they were" if sample.time < self._shift else "HABITS HAVE SWAPPED"
        head = Text.assemble(
            (f"{moment(sample.time)}", "bold"), f" of the service's week, {habits}; ",
            f"{sample.requests:,} of {self._planned:,} requests, {self._race.queries:,} queries run",
        )
        rent = Text(
            f"Rent: holding a typical answer for {self._hold / 60:.0f} minutes costs as much as computing it once. "
            "No answer may be older than an hour.", style="dim",
        )
        return Panel(Group(
            head, ProgressBar(total=self._planned, completed=sample.requests), rent, "", self._caches(sample), "",
            self._promise(sample), "", self._experts(sample),
        ), title="adaptcache: one workload, several caches", border_style="cyan")

    def _caches(self, sample: Sample) -> Table:
        table = Table(box=None, pad_edge=False, expand=True)
        table.add_column("cache")
        for name in ("hit ratio", "queries", "+ rent", "= cost", "outdated answers"):
            table.add_column(name, justify="right")
        cheapest = min(sample.costs)
        for contestant, hits, cost in zip(self._race.contestants, sample.hits, sample.costs, strict=True):
            ledger = contestant.ledger
            table.add_row(
                contestant.name, f"{hits / sample.requests:.1%}", f"{ledger.query_seconds:.2f} s",
                f"{ledger.rent(sample.time):.2f} s", f"{cost:.2f} s", f"{ledger.stale:,}",
                style="bold green" if cost == cheapest else "",
            )
        table.add_row("(knowing the future)", "", "", "", f"{sample.foresight:.2f} s", "", style="dim")
        return table

    def _promise(self, sample: Sample) -> Table:
        used = sample.lost + sample.in_flight
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(ratio=3)
        table.add_column(ratio=2)
        table.add_row(
            f"dropped too early: {sample.lost} lost + {sample.in_flight} open = {used}, allowed {sample.bound:.1f}",
            ProgressBar(total=max(sample.bound, 1.0), completed=used),
        )
        return table

    def _experts(self, sample: Sample) -> Table:
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(ratio=2)
        table.add_column(justify="right")
        table.add_column(ratio=3)
        for name, weight in sorted(sample.weights.items(), key=lambda item: -item[1])[:SHOWN_EXPERTS]:
            table.add_row(f"listens to {name}", f"{weight:.0%}", ProgressBar(total=1.0, completed=weight))
        return table

    def finish(self, results: Results) -> None:
        """The results in sentences."""
        self._console.print()
        for sentence in summary(results):
            self._console.print(f"- {sentence}", highlight=False, markup=False, soft_wrap=True)


def moment(time: float) -> str:
    """Workload seconds as weekday and hour."""
    day, second = divmod(time, 86_400)
    return f"{WEEKDAYS[int(day) % 7]} {int(second // 3600):02}:{int(second % 3600 // 60):02}"
