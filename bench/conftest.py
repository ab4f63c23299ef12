"""How the benchmarks measure, and the table at their end.

A benchmark is one operation of ours and of its peers. Every round times ours (pytest-benchmark) and, in
the set-up before it, each peer on the same work, so that a machine that slows down slows all of them
alike; the table shows the medians over the rounds of the ratios ours / peer. A loop around the operation
is part of all times; its own costs about 5 ns. Nothing here asserts on a time.

This file does not know what is measured.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter
from typing import Any

import pytest

ROUNDS = 51


@dataclass
class Contest:
    """One row of a table: ours against its peers."""

    group: str
    name: str
    operations: float               # in a round
    ours: list[float]
    peers: dict[str, list[float]]
    notes: dict[str, str] = field(default_factory=dict)   # "" is ours; e.g. a hit ratio

    def ratio(self, peer: str) -> float:
        return median(one / other for one, other in zip(self.ours, self.peers[peer], strict=True))

    def cell(self, peer: str) -> str:
        if peer not in self.peers:
            return ""
        note = self.notes.get(peer)
        return f"{self.ratio(peer):.2f}" + (f" ({note})" if note else "")


CONTESTS = pytest.StashKey[list[Contest]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[CONTESTS] = []


@pytest.fixture
def contest(benchmark: Any, request: pytest.FixtureRequest) -> Callable[..., Contest]:
    """contest(group, name, ours, peers, operations): time `ours()` against every `peer()`, round by round.

    `prepare()` runs before each round, untimed; its result is handed to ours and to the peers.
    """

    def run(
        group: str, name: str, ours: Callable[..., Any], peers: Mapping[str, Callable[..., Any]], operations: int,
        prepare: Callable[[], Any] | None = None, rounds: int = ROUNDS,
    ) -> Contest:
        times: dict[str, list[float]] = {peer: [] for peer in peers}

        def before() -> tuple[tuple[Any, ...], dict[str, Any]]:
            arguments = () if prepare is None else (prepare(),)
            for peer, call in peers.items():
                began = perf_counter()
                call(*arguments)
                times[peer].append(perf_counter() - began)
            return arguments, {}

        benchmark.group = group
        benchmark.pedantic(ours, setup=before, rounds=rounds, warmup_rounds=2)
        got = benchmark.stats.stats.data if benchmark.stats else []
        peers_got = {peer: each[len(each) - len(got):] for peer, each in times.items()}
        row = Contest(group, name, operations, list(got), peers_got)
        if got:                     # nothing with --benchmark-disable
            request.config.stash[CONTESTS].append(row)
        return row

    return run


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    groups: dict[str, list[Contest]] = {}
    for row in config.stash[CONTESTS]:
        groups.setdefault(row.group, []).append(row)
    for group, rows in groups.items():
        peers = list(dict.fromkeys(peer for row in rows for peer in row.peers))
        lines = [["ours", "ns/op", *(f"/ {peer}" for peer in peers)]]
        for row in rows:
            note = row.notes.get("")
            ns = f"{median(row.ours) / row.operations * 1e9:,.0f}"
            lines.append([row.name + (f" ({note})" if note else ""), ns, *map(row.cell, peers)])
        terminalreporter.section(f"{group}: time of ours / peer")
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            first, *rest = (cell.ljust(w) if at == 0 else cell.rjust(w) for at, (cell, w) in enumerate(zip(line, widths, strict=True)))
            terminalreporter.write_line("  ".join([first, *rest]).rstrip())
