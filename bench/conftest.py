"""How the benchmarks measure, and the table at their end.

A benchmark is one operation of ours and of its peers. Every round times ours (pytest-benchmark) and, in
the set-up before it, each peer on the same work, so that a machine that slows down slows all of them
alike; the table shows the medians over the rounds of the ratios ours / peer. A loop around the operation
is part of all times; its own costs about 5 ns. Nothing here asserts on a time.

What we aim at is stated beside what is measured (`aims`), and listed in a table of its own at the end; with
`--report FOLDER` that table and a plot of it are written there, as docs/performance.md shows them.

This file does not know what is measured.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
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
    aims: Mapping[str, float] = field(default_factory=dict)     # peer -> the ratio that we want to stay within

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
        prepare: Callable[[], Any] | None = None, rounds: int = ROUNDS, aims: Mapping[str, float] | None = None,
    ) -> Contest:
        times: dict[str, list[float]] = {peer: [] for peer in peers}

        def before() -> tuple[tuple[Any, ...], dict[str, Any]]:
            arguments = () if prepare is None else (prepare(),)
            if arguments and isinstance(arguments[0], list):
                set(arguments[0])   # whoever comes first must not be the one who fetches them from memory
            for peer, call in peers.items():
                began = perf_counter()
                call(*arguments)
                times[peer].append(perf_counter() - began)
            return arguments, {}

        benchmark.group = group
        benchmark.pedantic(ours, setup=before, rounds=rounds, warmup_rounds=2)
        got = benchmark.stats.stats.data if benchmark.stats else []
        peers_got = {peer: each[len(each) - len(got):] for peer, each in times.items()}
        row = Contest(group, name, operations, list(got), peers_got, aims=aims or {})
        if got:                     # nothing with --benchmark-disable
            request.config.stash[CONTESTS].append(row)
        return row

    return run


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--report", metavar="FOLDER", help="write the table of aims and a plot of it there")


def _aims(rows: list[Contest]) -> list[list[str]]:
    """Operation, peer, ours and the peer in ns, ratio, aim: a line for each aim."""
    lines = [["operation", "ours, ns", "peer", "peer, ns", "ours / peer", "at most"]]
    for row in rows:
        for peer, aim in row.aims.items():
            met = "" if row.ratio(peer) <= aim else " (missed)"
            lines.append([f"{row.group.removesuffix(' (hit ratio)')}, {row.name}", f"{median(row.ours) / row.operations * 1e9:,.0f}", peer,
                          f"{median(row.peers[peer]) / row.operations * 1e9:,.0f}", f"{row.ratio(peer):.2f}", f"{aim:.3g}{met}"])
    return lines


def _report(folder: Path, rows: list[Contest]) -> None:
    header, *lines = _aims(rows)
    folder.mkdir(parents=True, exist_ok=True)
    table = ["| " + " | ".join(header) + " |", "|---|---:|---|---:|---:|---:|", *("| " + " | ".join(line) + " |" for line in lines)]
    (folder / "performance-table.md").write_text("\n".join(table) + "\n")
    _plot(folder / "performance.svg", lines)


def _plot(path: Path, lines: list[list[str]]) -> None:
    import matplotlib
    matplotlib.use("svg")
    matplotlib.rcParams["svg.fonttype"] = "none"        # letters, not their outlines: a tenth of the size
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(10, 0.3 * len(lines) + 1.2))
    at = range(len(lines), 0, -1)
    axes.barh(at, [float(line[4]) for line in lines], color="#4477aa", height=0.6)
    axes.scatter([float(line[5].split()[0]) for line in lines], at, marker="|", s=200, color="#cc3311", label="at most", zorder=3)
    axes.set_yticks(at, [f"{line[0]} / {line[2]}" for line in lines], fontsize=7)
    axes.set_xlabel("time of ours / time of the peer; below 1 we are faster")
    axes.axvline(1, color="0.6", linewidth=0.8)
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _print(terminalreporter: Any, title: str, lines: list[list[str]]) -> None:
    terminalreporter.section(title)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        first, *rest = (cell.ljust(w) if at == 0 else cell.rjust(w) for at, (cell, w) in enumerate(zip(line, widths, strict=True)))
        terminalreporter.write_line("  ".join([first, *rest]).rstrip())


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
        _print(terminalreporter, f"{group}: time of ours / peer", lines)
    aimed = [row for row in config.stash[CONTESTS] if row.aims]
    if aimed:
        _print(terminalreporter, "what we aim at", _aims(aimed))
        if config.getoption("--report"):
            _report(Path(config.getoption("--report")), aimed)
