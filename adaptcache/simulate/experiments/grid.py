"""What an experiment consists of: a grid, the cells that it is made of, and their order.

A cell is one call of `simulate` with one policy at one size, or one expiry rule at one memory price. Where the
seed decides nothing (a policy without chance on a recorded trace) a cell stands once, whatever the number of seeds.
This file runs nothing and opens nothing.
"""
from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

from adaptcache.simulate import run as simulator
from adaptcache.simulate.synthetic import PREFIX
from adaptcache.simulate.trace import Trace

AnyTrace = Trace | str | os.PathLike[str]

# What a cell costs beside one of a plain policy on the same trace, roughly: for the time that is left.
LEARNED_COST: Final = 100
RIVAL_COST: Final = 20
PLAIN_COST: Final = 2


@dataclass(frozen=True)
class Grid:
    """Every policy at every size and every expiry rule at every memory price, on every trace and for every seed.

    traces      Traces, files that `read` knows, or `synthetic:NAME`
    seeds       of synthetic traces, of policies that draw by chance, and of the learned rule
    timed_only  leave expiry rules out on traces without times, which are an error otherwise

    The others are those of `simulate`, whose ValueErrors are raised here.
    """

    traces: Sequence[AnyTrace]
    policies: Sequence[str] = ()
    sizes: Sequence[str | int] = (simulator.DEFAULT_SIZE,)
    expiries: Sequence[str] = ()
    memory_prices: Sequence[str | float] = ("1x",)
    seeds: Sequence[int] = (0,)
    miss_cost: float = 1.0
    premature: float = 0.01
    stale: float | None = None
    limit: int | None = None
    ops: bool = False
    trace_format: str | None = None
    timeline: int = 0
    timed_only: bool = False

    def __post_init__(self) -> None:
        traces = [self.traces] if isinstance(self.traces, Trace | str | os.PathLike) else list(self.traces)
        if self.trace_format == "synthetic":
            traces = [PREFIX + str(trace).removeprefix(PREFIX) for trace in traces]
            object.__setattr__(self, "trace_format", None)
        object.__setattr__(self, "traces", tuple(traces))
        for name in ("policies", "sizes", "expiries", "memory_prices", "seeds"):
            object.__setattr__(self, name, _listed(getattr(self, name)))
        if not self.traces:
            raise ValueError("traces: name at least one")
        if not self.seeds or any(not isinstance(seed, int) or seed < 0 for seed in self.seeds):
            raise ValueError(f"seeds are {self.seeds}; they must be whole numbers from 0, at least one")
        for name in ("policies", "sizes", "expiries", "memory_prices", "seeds"):
            words = getattr(self, name)
            if len(set(words)) < len(words):
                raise ValueError(f"{name}: {', '.join(map(str, words))} names one of them twice")
        simulator.check(self.policies, self.sizes, self.expiries, self.memory_prices, self.miss_cost, self.premature,
                        self.stale, self.limit, self.timeline)

    def cells(self) -> list[Cell]:
        """In the order of results: trace by trace as `simulate` would list them, the seeds of a cell side by side."""
        return [
            Cell(trace, kind, word, at, seed)
            for trace, source in enumerate(self.traces)
            for kind, places, words in (("policy", self.sizes, self.policies), ("expiry", self.memory_prices, self.expiries))
            for at in places
            for word in words
            for seed in (self.seeds if varies(source, kind, word) else self.seeds[:1])
        ]

    def keywords(self, cell: Cell) -> dict[str, Any]:
        """What `simulate` has to be told for this cell besides the trace."""
        if cell.kind == "policy":
            return {"policies": [cell.word], "sizes": [cell.at], "seed": cell.seed, "ops": self.ops, "timeline": self.timeline}
        return {"expiries": [cell.word], "memory_prices": [cell.at], "seed": cell.seed, "miss_cost": self.miss_cost,
                "premature": self.premature, "stale": self.stale, "timeline": self.timeline}

    def told(self, cell: Cell) -> int | None:
        """The seed that the cell's result is marked with: None where there is but one, or where it decides nothing."""
        return cell.seed if len(self.seeds) > 1 and varies(self.traces[cell.trace], cell.kind, cell.word) else None


def _listed(value: Any) -> tuple[Any, ...]:
    if isinstance(value, str):
        return tuple(word.strip() for word in value.split(","))
    return tuple(value) if isinstance(value, Iterable) else (value,)


@dataclass(frozen=True)
class Cell:
    """One result. `kind` is policy or expiry, `word` its name, `at` the size or the memory price, as the user wrote it."""

    trace: int      # which of the grid's
    kind: str
    word: str
    at: str | int | float
    seed: int

    @property
    def cost(self) -> int:
        if self.kind == "expiry":
            return LEARNED_COST if self.word == "learned" else PLAIN_COST
        return RIVAL_COST if simulator.is_rival(self.word) else PLAIN_COST


def varies(source: AnyTrace, kind: str, word: str) -> bool:
    """Does the seed decide anything?"""
    if isinstance(source, str) and source.startswith(PREFIX):
        return True
    return word == "learned" if kind == "expiry" else simulator.by_chance(word)


def batches(cells: Iterable[Cell]) -> Iterator[list[Cell]]:
    """Cells that one worker does best in one go: rules without a learner share their yardsticks; others stand alone.

    Trace by trace and seed by seed, so that few traces are in memory at a time; of those, the long ones first.
    """
    cells = list(cells)
    place = {at: number for number, at in enumerate(dict.fromkeys((cell.kind, cell.at) for cell in cells))}

    def together(cell: Cell) -> tuple[Any, ...]:
        alone = cell.kind == "policy" or cell.word == "learned"
        return (cell.trace, cell.seed, -cell.cost, cell.kind, place[cell.kind, cell.at], cell.word if alone else "")

    for _, group in groupby(sorted(cells, key=together), key=together):
        yield list(group)
