"""A self-contained HTML report: hit-ratio curves, cost bars, and every number behind them.

The plots are inline SVG and the page loads nothing, so it can be mailed or put beside a build.
"""
from __future__ import annotations

import io
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from adaptcache.simulate.extras import needs
from adaptcache.simulate.run import EvictionResult, ExpiryResult, Result


def page(results: Sequence[Result], title: str = "adaptcache simulate") -> str:
    """The report as one HTML document."""
    with needs("the HTML report"):
        import jinja2
        import matplotlib
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((files(__package__) / "report.html").read_text("utf-8"))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "adaptcache", "font.family": "sans-serif"}):
        traces = [_section(name, [result for result in results if result.trace == name])
                  for name in dict.fromkeys(result.trace for result in results)]
    return template.render(title=title, traces=traces)


def _section(name: str, results: Sequence[Result]) -> dict[str, Any]:
    evictions = [result for result in results if isinstance(result, EvictionResult)]
    expiries = [result for result in results if isinstance(result, ExpiryResult)]
    prices = list(dict.fromkeys(result.memory_price for result in expiries))
    return {
        "name": name,
        "evictions": evictions,
        "expiries": expiries,
        "curve": _curve(evictions) if evictions else None,
        "bars": [_bars([result for result in expiries if result.memory_price == price]) for price in prices],
    }


def _curve(results: Sequence[EvictionResult]) -> str:
    """Hit ratio over capacity, a line a policy; Belady is the ceiling."""
    figure, axes = _figure(6.4, 3.6)
    for policy in dict.fromkeys(result.policy for result in results):
        points = sorted((result.capacity, result.hit_ratio) for result in results if result.policy == policy)
        dull = {"color": "0.4", "linestyle": "--"} if policy == "belady" else {}
        axes.plot(*zip(*points, strict=True), marker="o", markersize=4, label=policy, **dull)
    capacities = sorted({result.capacity for result in results})
    axes.set_xscale("log")
    axes.set_xticks(capacities, [f"{capacity:,}" for capacity in capacities])
    axes.minorticks_off()
    axes.set_xlabel("capacity (entries)")
    axes.set_ylabel("hit ratio")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize="small")
    return _svg(figure)


def _bars(results: Sequence[ExpiryResult]) -> str:
    """Misses and rent stacked, a bar a rule, with the clairvoyant and the best static TTL as lines."""
    figure, axes = _figure(6.4, 1.4 + 0.35 * len(results))
    names = [result.expiry for result in results]
    misses = [result.miss_cost for result in results]
    axes.barh(names, misses, label="misses", color="#4c78a8")
    axes.barh(names, [result.hold_cost for result in results], left=misses, label="memory", color="#f2b45c")
    axes.axvline(results[0].clairvoyant_cost, color="0.2", linestyle="--", linewidth=1, label="clairvoyant")
    axes.axvline(results[0].best_static_cost, color="0.2", linestyle=":", linewidth=1, label="best static TTL")
    axes.invert_yaxis()
    axes.set_xlabel(f"cost at a memory price of {results[0].memory_price:.3g}")
    figure.legend(frameon=False, fontsize="small", loc="outside upper center", ncols=4)
    return _svg(figure)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    # A Figure of its own rather than pyplot: no global state, no display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _svg(figure: Any) -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg"):]
