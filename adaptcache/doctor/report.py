"""A diagnosis for people and programs: terminal tables and one JSON object. Nothing is computed here."""
from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from adaptcache.doctor.diagnose import Diagnosis

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def to_json(diagnosis: Diagnosis) -> str:
    """One object; its fields are those of `Diagnosis`."""
    return json.dumps(_sayable(asdict(diagnosis)))


def _sayable(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: _sayable(inner) for name, inner in value.items()}
    return [_sayable(inner) for inner in value] if isinstance(value, list) else value


def show(diagnosis: Diagnosis, console: Console) -> None:
    """What was paid and why, the worst decisions, and last what to change."""
    d = diagnosis
    for note in d.notes:
        console.print(f"note: {note}", style="yellow", markup=False)
    if not d.waits:
        console.print("The log holds no decision yet.", markup=False)
        return
    sample = "" if d.sample is None else f", a sample of {d.sample:.1%} of the keys"
    lines = [
        f"{d.waits:,} waits of {d.keys:,} keys over {span(d.seconds)}{sample}.",
        f"Paid {d.paid:.4g}: misses {d.misses:.4g} and rent {d.rent:.4g}"
        + (f"; that is {d.paid / d.least:.2f} times the least possible." if d.least > 0 else "."),
        f"{d.dead:.0%} of the rent was for waits after which nobody came. {d.premature:,} requests came too early for what was let go.",
    ]
    if d.dropped:
        lines.append(f"{d.dropped:,} waits are missing: they came faster than they could be written. Sample less.")
    console.print("\n".join(lines), markup=False, highlight=False)
    console.print(_bounds(d))
    console.print(_namespaces(d))
    if d.worst:
        console.print(_worst(d))
    console.print("What to change", style="bold")
    if not d.findings:
        console.print("  Nothing stands out.", markup=False)
    for number, finding in enumerate(d.findings, 1):
        console.print(f"  {number}. {finding.says}\n     {finding.change}", markup=False, highlight=False)


def _table(title: str, left: list[str], right: list[str]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in left:
        table.add_column(name, overflow="fold")
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _bounds(d: Diagnosis) -> Table:
    table = _table("What decided", ["bound"], ["waits", "let go", "share of what was paid"])
    for name, row in sorted(d.bounds.items(), key=lambda item: -item[1]["paid"]):
        table.add_row(name, f"{row['waits']:,.0f}", f"{row['gone']:,.0f}", f"{row['paid']:.1%}")
    return table


def _namespaces(d: Diagnosis) -> Table:
    table = _table("Namespaces, learning against the best fixed TTL in hindsight", ["namespace"],
                   ["keys", "waits", "asked", "paid", "x least", "dead rent", "fixed TTL", "saves", "interval", "verdict"])
    for space in sorted(d.namespaces, key=lambda space: -space.paid)[:20]:
        saves = space.saves
        table.add_row(
            _plain(space.name), f"{space.keys:,}", f"{space.waits:,}", f"{space.asked:.0%}", f"{space.paid:.4g}",
            f"{space.paid / space.least:.2f}" if space.least > 0 else "", f"{space.dead:.0%}", space.rule or "",
            "" if saves is None else f"{saves.value:+.0%}", "" if saves is None else f"{saves.low:+.0%} to {saves.high:+.0%}",
            space.verdict)
    return table


def _worst(d: Diagnosis) -> Table:
    table = _table("Worst decisions", ["what", "namespace"], ["key", "at", "held", "asked after", "paid", "too much by"])
    for worst in d.worst:
        table.add_row(worst.what, _plain(worst.namespace), worst.key, f"{worst.time:.6g}", span(worst.held),
                      "" if worst.after is None else span(worst.after), f"{worst.paid:.3g}", f"{worst.regret:.3g}")
    return table


def _plain(text: str) -> Any:
    from rich.text import Text

    return Text(text if len(text) <= 40 else text[:39] + "…")


def span(seconds: float) -> str:
    """A duration as people say it."""
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.0f} s" if seconds == 0 else f"{seconds * 1e6:.3g} µs"
