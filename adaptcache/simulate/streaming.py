"""Eviction policies over a trace that is longer than memory: one pass, all policies and sizes side by side.

Nothing is known of the rows to come: neither Belady, nor expiry rules, whose yardsticks are the clairvoyant's, nor
percentages of the unique keys can be had. What there is is what `simulate` gives.
"""
from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from adaptcache import _core
from adaptcache.errors import TraceError
from adaptcache.simulate import readers
from adaptcache.simulate.formats import stem
from adaptcache.simulate.formats.source import Source, told
from adaptcache.simulate.run import EvictionResult, Progress, Ways
from adaptcache.simulate.synthetic import PREFIX

ROWS: Final = 1 << 19   # in memory at a time
MOST: Final = 1 << 29   # entries that a StreamReplay can hold


def simulate_stream(
    source: str | os.PathLike[str], policies: str | Iterable[str], sizes: int | str | Iterable[int | str], *, ops: bool = False,
    limit: int | None = None, seed: int = 0, trace_format: str | None = None, progress: Progress | None = None,
) -> list[EvictionResult]:
    """Every policy at every size, in the order of `simulate`, in memory that grows with the sizes and not with the trace.

    policies  those of the live cache
    sizes     entries
    progress  called after each chunk; of how many rows there are nothing is known, so `total` is `done`

    ValueError for an argument out of range, TraceError for a trace that cannot be read.
    """
    names = [word.strip() for word in policies.split(",")] if isinstance(policies, str) else list(policies)
    capacities = check(names, [sizes] if isinstance(sizes, int) else sizes.split(",") if isinstance(sizes, str) else sizes)
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}; it must be at least 1")
    text = os.fspath(source)
    trace = _name(text, trace_format)
    cells = [(capacity, name, _core.StreamReplay(name, capacity, seed * 0x9E3779B97F4A7C15 % 2**64))
             for capacity in capacities for name in names]
    seconds = [0.0] * len(cells)
    rows, sized = 0, False
    for chunk in readers.stream(source, trace_format, ROWS, seed=seed):
        n = len(chunk) if limit is None else min(len(chunk), limit - rows)
        size, op, cost = (column if column is None else column[:n] for column in (chunk.size, chunk.op, chunk.cost))
        sized = sized or size is not None
        for at, (_, _, replay) in enumerate(cells):
            begun = time.perf_counter()
            replay.run(chunk.key[:n], size, op if ops else None, cost)
            seconds[at] += time.perf_counter() - begun
        rows += n
        if progress is not None:
            progress(f"{trace} {rows:,} requests", rows, rows)
        if rows == limit:
            break
    if cells[0][2].requests == 0:
        raise TraceError(f"{trace}: no row is a get, so no policy can hit; without --ops every row counts as a get")
    return [_result(trace, name, capacity, replay, sized, spent)
            for (capacity, name, replay), spent in zip(cells, seconds, strict=True)]


def _name(text: str, trace_format: str | None) -> str:
    if text.startswith(PREFIX) or trace_format == "synthetic":
        return PREFIX + text.removeprefix(PREFIX)
    with told(Path(text)):
        return stem(Source(Path(text)))


def check(policies: Iterable[str], sizes: Iterable[int | str]) -> list[int]:
    """The sizes in entries. ValueError where `simulate_stream` would refuse one of them, or a policy."""
    policies, capacities = list(policies), [entries(size) for size in sizes]
    if not policies or not capacities:
        raise ValueError("nothing to simulate: name at least one policy and one size")
    for name in policies:
        if name not in _core.POLICIES:
            raise ValueError(f"policy {name!r} does not run on a stream; those that do are {', '.join(_core.POLICIES)}")
    return capacities


def entries(size: int | str) -> int:
    """A capacity. ValueError for a percentage: of how many keys, only the end of the stream tells."""
    text = str(size).strip()
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MOST:
        raise ValueError(f"size {size!r} is not a number of entries from 1 to {MOST}; a stream has no percentages, since only its end "
                         "tells how many keys there are")
    return int(text)


def _result(trace: str, name: str, capacity: int, replay: _core.StreamReplay, sized: bool, seconds: float) -> EvictionResult:
    ratio = replay.hits / replay.requests
    ways = Ways()
    ways.at(replay.ways)
    asked, spent = float(replay.bytes_requested), float(replay.cost_requested)
    return EvictionResult(
        trace, name, capacity, int(replay.requests), int(replay.hits), ratio,
        (float(replay.bytes_hit) / asked if asked > 0 else 0.0) if sized else ratio, seconds,
        cost_ratio=float(replay.cost_missed) / spent if spent > 0 else None, ways=ways.whole(),
    )
