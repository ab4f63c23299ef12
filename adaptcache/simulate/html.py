"""A self-contained HTML report: hit-ratio curves, regrets, cost bars, timelines, and every number behind them.

The plots are inline SVG and the page loads nothing, so it can be mailed or put beside a build. It is read on a phone and
in the dark too: plots are narrow and stand beside one another where there is room, what is written in them has the
page's own colour, and a table wider than the screen scrolls within itself.
"""
from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any, Final

from adaptcache.simulate.extras import needs
from adaptcache.simulate.run import OFFLINE, POLICIES, EvictionResult, ExpiryResult, Result

# Matplotlib knows no colour that follows the page: this one stands for it, and is replaced in the finished SVG.
INK: Final = "#010203"
BOUND: Final = "#8a8a8a"
HUES: Final = ("#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2", "#b279a2", "#d4a72c", "#9d755d", "#ff9da6", "#7f7fd5", "#1b9e77",
               "#a6761d", "#66a61e")
WORST: Final = 0.15  # hit ratio behind the best that has the heat map's deepest colour


def page(results: Sequence[Result], title: str = "adaptcache simulate") -> str:
    """The report as one HTML document."""
    with needs("the HTML report"):
        import jinja2
        import matplotlib
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((files(__package__) / "report.html").read_text("utf-8"))
    style: Any = {"svg.fonttype": "none", "svg.hashsalt": "adaptcache", "font.family": "sans-serif", "font.size": 9.5,
             "axes.spines.top": False, "axes.spines.right": False,
             **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color"), INK)}
    with matplotlib.rc_context(style):
        traces = [_section(name, [result for result in results if result.trace == name])
                  for name in dict.fromkeys(result.trace for result in results)]
    return template.render(title=title, traces=traces, heat=heat([r for r in results if isinstance(r, EvictionResult)]))


# The heat map

@dataclass(frozen=True)
class HeatRow:
    """One trace at one capacity: how far each policy lies behind the best live one."""

    trace: str
    capacity: int
    best: str
    best_ratio: float
    behind: tuple[float | None, ...]  # hit ratio, by policy; None: did not run


@dataclass(frozen=True)
class Heat:
    policies: tuple[str, ...]
    rows: tuple[HeatRow, ...]
    mean: tuple[float | None, ...]
    worst: tuple[float | None, ...]

    def share(self, behind: float | None) -> int:
        """Percent of the deepest colour."""
        return 0 if behind is None else round(100 * min(1.0, max(0.0, behind) / WORST))


def heat(results: Sequence[EvictionResult]) -> Heat | None:
    """Regrets over traces x capacities, policies by their mean; None with fewer than two. Repeated runs (seeds) are averaged."""
    live = [result for result in results if result.policy not in OFFLINE]
    names = tuple(dict.fromkeys(result.policy for result in live))
    if len(names) < 2:
        return None
    runs: dict[tuple[str, int], dict[str, list[float]]] = {}
    for result in live:
        runs.setdefault((result.trace, result.capacity), {}).setdefault(result.policy, []).append(result.hit_ratio)
    rows = []
    for (trace, capacity), by_policy in runs.items():
        ratios = {name: sum(values) / len(values) for name, values in by_policy.items()}
        best = max(ratios, key=lambda name: ratios[name])
        rows.append(HeatRow(trace, capacity, best, ratios[best],
                            tuple(ratios[best] - ratios[name] if name in ratios else None for name in names)))
    columns = [[value for value in column if value is not None] for column in zip(*(row.behind for row in rows), strict=True)]
    mean = [sum(column) / len(column) if column else math.inf for column in columns]
    # The best first: on a phone the others are reached by scrolling.
    order = sorted(range(len(names)), key=lambda at: round(mean[at], 9))
    return Heat(
        tuple(names[at] for at in order), tuple(replace(row, behind=tuple(row.behind[at] for at in order)) for row in rows),
        tuple(mean[at] if columns[at] else None for at in order), tuple(max(columns[at], default=None) for at in order))


# One trace

def _section(name: str, results: Sequence[Result]) -> dict[str, Any]:
    evictions = [result for result in results if isinstance(result, EvictionResult)]
    expiries = [result for result in results if isinstance(result, ExpiryResult)]
    prices = list(dict.fromkeys(result.memory_price for result in expiries))
    capacities = list(dict.fromkeys(result.capacity for result in evictions))
    plots = [_curve(evictions)] if len(capacities) > 1 else [_ranks(evictions)] if evictions else []
    plots += [_timeline(timed) for capacity in capacities
              if (timed := [result for result in evictions if result.capacity == capacity and result.timeline])]
    costs = [_bars([result for result in expiries if result.memory_price == price]) for price in prices]
    costs += [_weights(result) for result in expiries if result.timeline]
    return {"name": name, "ways": [result.policy for result in evictions if result.ways and result.timeline],
            "legend": {result.policy: _swatch(result.policy) for result in evictions} if len(capacities) > 1 or plots[1:] else {},
            "evictions": evictions, "expiries": expiries, "plots": plots, "costs": costs}


def _hue(policy: str) -> dict[str, Any]:
    """The look of a policy's line, the same in every plot."""
    if policy in OFFLINE:
        return {"color": BOUND, "linestyle": "--" if policy == "belady" else ":"}
    at = POLICIES.index(policy) if policy in POLICIES else sum(policy.encode())
    return {"color": HUES[at % len(HUES)], "linewidth": 2.4 if policy == "adaptive" else 1.1}


def _swatch(policy: str) -> str:
    """The same as a border, for the legend, which stands once for all plots of a trace."""
    look = _hue(policy)
    line = {"--": "dashed", ":": "dotted"}.get(look.get("linestyle", ""), "solid")
    return f"{3 if look.get('linewidth', 0) > 2 else 2}px {line} {look['color']}"


def _curve(results: Sequence[EvictionResult]) -> dict[str, str]:
    """Hit ratio over capacity, a line a policy; Belady is the ceiling."""
    figure, axes = _figure(4.2, 3.0)
    for policy in dict.fromkeys(result.policy for result in results):
        points = sorted((result.capacity, result.hit_ratio) for result in results if result.policy == policy)
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=policy, **_hue(policy))
    _within_ratios(axes)
    capacities = sorted({result.capacity for result in results})
    axes.set_xscale("log")
    axes.set_xticks(capacities, [f"{capacity:,}" for capacity in capacities], rotation=30 if len(capacities) > 5 else 0)
    axes.minorticks_off()
    return _plot(figure, axes, "capacity (entries)", "Hit ratio over capacity", 0)


def _ranks(results: Sequence[EvictionResult]) -> dict[str, str]:
    """Hit ratios at the one capacity there is, the best on top."""
    ordered = sorted(results, key=lambda result: result.hit_ratio)
    figure, axes = _figure(4.2, 0.9 + 0.24 * len(ordered))
    bars = axes.barh([result.policy for result in ordered], [result.hit_ratio for result in ordered],
                     color=[_hue(result.policy)["color"] for result in ordered])
    axes.bar_label(bars, [f"{result.hit_ratio:.4f}" for result in ordered], padding=3, fontsize="small", color=INK)
    axes.set_xmargin(0.15)
    axes.set_xlabel("hit ratio")
    return {"title": f"Hit ratio at {ordered[0].capacity:,} entries", "svg": _svg(figure)}


def _timeline(results: Sequence[EvictionResult]) -> dict[str, str]:
    """Hit ratio along the trace at one capacity; below it a strip for each policy that follows now one way, now another."""
    strips = [result for result in results if any(name.startswith("way:") for name in result.timeline or ())]
    figure, axes, *below = _figure(4.2, 3.0 + 0.5 * len(strips), *[0.14] * len(strips))
    for result in results:
        assert result.timeline is not None
        axes.plot(_middles(result), result.timeline["hit_ratio"], label=result.policy, **_hue(result.policy))
    _within_ratios(axes)
    for strip, result in zip(below, strips, strict=True):
        _ways(strip, result)
    (below or [axes])[-1].xaxis.set_major_formatter(_thousands)
    return _plot(figure, axes, "request", f"Hit ratio along the trace, {results[0].capacity:,} entries", 0)


def _ways(axes: Any, result: EvictionResult) -> None:
    """The share of each part for which another way than the first was followed."""
    assert result.timeline is not None
    first, *others = [name for name in result.timeline if name.startswith("way:")]
    edges = [part * result.requests / len(result.timeline[first]) for part in range(len(result.timeline[first]) + 1)]
    low = [0.0] * (len(edges) - 1)
    for name, dark in zip(others, (0.9, 0.6, 0.3), strict=False):
        high = [below + share for below, share in zip(low, result.timeline[name], strict=True)]
        axes.stairs(high, edges, baseline=low, fill=True, color=_hue(result.policy)["color"], alpha=dark, linewidth=0)
        low = high
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_ylabel(f"{result.policy}\n{', '.join(name.removeprefix('way:') for name in others)}", rotation=0, ha="right", va="center",
                    fontsize=8.5)


def _within_ratios(axes: Any) -> None:
    """Where every ratio is 0 or 1 the axis would go beyond, to what no ratio can be."""
    low, high = axes.get_ylim()
    axes.set_ylim(max(0, low), min(1, high))


def _middles(result: Result) -> list[float]:
    """Where the parts of a timeline have their middle, in requests."""
    assert result.timeline is not None
    parts = len(result.timeline["hit_ratio"])
    return [(part + 0.5) * result.requests / parts for part in range(parts)]


def _weights(result: ExpiryResult) -> dict[str, str]:
    """Who is believed, along the trace, and the hit ratio that came of it."""
    assert result.timeline is not None
    ratios = result.timeline["hit_ratio"]
    at = _middles(result)
    weights = {name.removeprefix("weight:"): values for name, values in result.timeline.items() if name.startswith("weight:")}
    leading = sorted(weights, key=lambda name: -sum(weights[name]))[:8]
    rest = [sum(values[part] for name, values in weights.items() if name not in leading) for part in range(len(ratios))]
    figure, axes = _figure(4.2, 3.8)
    axes.stackplot(at, *(weights[name] for name in leading), rest, labels=[*leading, "all others"],
                   colors=[*HUES[: len(leading)], BOUND], alpha=0.75)
    axes.plot(at, ratios, color=INK, linewidth=1.6, label="hit ratio")
    axes.set_ylim(0, 1)
    axes.xaxis.set_major_formatter(_thousands)
    return _plot(figure, axes, "request", f"{result.expiry}: weights of the experts, price {result.memory_price:.3g}", ncols=2)


def _thousands(value: float, place: int) -> str:
    return f"{value / 1e6:g}M" if value >= 1e6 else f"{value / 1e3:g}k" if value >= 1e3 else f"{value:g}"


def _bars(results: Sequence[ExpiryResult]) -> dict[str, str]:
    """Misses and rent stacked, a bar a rule, with the clairvoyant and the best static TTL as lines."""
    figure, axes = _figure(4.2, 1.5 + 0.3 * len(results))
    names = [result.expiry for result in results]
    misses = [result.miss_cost for result in results]
    axes.barh(names, misses, label="misses", color=HUES[0])
    axes.barh(names, [result.hold_cost for result in results], left=misses, label="memory", color="#f2b45c")
    axes.axvline(results[0].clairvoyant_cost, color=INK, linestyle="--", linewidth=1, label="clairvoyant")
    axes.axvline(results[0].best_static_cost, color=INK, linestyle=":", linewidth=1, label="best static TTL")
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(_thousands)
    axes.set_xlabel("cost")
    figure.legend(frameon=False, fontsize=8.5, loc="outside lower center", columnspacing=1.2, ncols=2)
    return {"title": f"What each rule costs, price {results[0].memory_price:.3g}", "svg": _svg(figure)}


def _plot(figure: Any, axes: Any, across: str, title: str, ncols: int) -> dict[str, str]:
    """ncols: of the plot's own legend; 0: it has none."""
    figure.axes[-1].set_xlabel(across)
    axes.grid(alpha=0.15)
    if ncols:
        figure.legend(frameon=False, fontsize=8.5, loc="outside lower center", columnspacing=1.2, ncols=ncols)
    return {"title": title, "svg": _svg(figure)}


def _figure(width: float, height: float, *strips: float) -> tuple[Any, ...]:
    """A figure and its axes; below them strips of these shares of their height, along the same x."""
    # A Figure of its own rather than pyplot: no global state, no display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1 + len(strips), 1, sharex=True, squeeze=False, height_ratios=[1, *strips])
    return figure, *axes[:, 0]


def _svg(figure: Any) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None}, transparent=True)
    text = out.getvalue()
    return text[text.index("<svg"):].replace(INK, "currentColor")
