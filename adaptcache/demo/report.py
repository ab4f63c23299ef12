"""The run as one HTML page that needs nothing else: plots are SVG inside it, styles too."""
from __future__ import annotations

import io
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .results import Results, summary

COLOURS = ("#0b7285", "#e8590c", "#f2a33a", "#868e96", "#5f3dc4", "#2b8a3e", "#c2255c", "#1864ab")


def write(results: Results, path: str | Path) -> None:
    """Writes the page."""
    Path(path).write_text(render(results), encoding="utf-8")


def render(results: Results) -> str:
    """The page as text."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = files(__package__).joinpath("report.html").read_text(encoding="utf-8")
    return environment.from_string(page).render(
        r=results, sentences=summary(results), plots=[
            ("What each cache has paid so far, against perfect foresight", _costs(results)),
            ("What a request cost lately", _recent(results)),
            ("Hit ratio lately", _hits(results)),
            ("Dropped too early, and what was allowed", _promise(results)),
            ("Whom the cache listens to", _weights(results)),
        ],
    )


def _days(r: Results) -> Any:
    return np.array([sample.time for sample in r.samples]) / 86_400


def _costs(r: Results) -> Markup:
    figure, axes = _figure(r, "seconds")
    costs = np.array([sample.costs for sample in r.samples])
    for i, row in enumerate(r.rows):
        axes.plot(_days(r), costs[:, i], color=COLOURS[i], label=row.name, linewidth=2.2 if i == 0 else 1.4)
    axes.plot(_days(r), [sample.foresight for sample in r.samples], color="black", linestyle=":", label="knowing the future")
    return _svg(figure, axes)


def _window(r: Results, values: Any) -> tuple[Any, Any]:
    """Growth per request of a running total, over a tenth of the run: (days, growth per request)."""
    values = np.asarray(values, float)
    requests = np.array([sample.requests for sample in r.samples], float)
    width = max(1, len(requests) // 10)
    if len(requests) <= width:
        return _days(r), values / requests[:, None]
    grown = (values[width:] - values[:-width]) / (requests[width:] - requests[:-width])[:, None]
    return _days(r)[width:], grown


def _recent(r: Results) -> Markup:
    figure, axes = _figure(r, "milliseconds per request")
    days, grown = _window(r, [[*sample.costs, sample.foresight] for sample in r.samples])
    for i, row in enumerate(r.rows):
        axes.plot(days, 1e3 * grown[:, i], color=COLOURS[i], label=row.name, linewidth=2.2 if i == 0 else 1.4)
    axes.plot(days, 1e3 * grown[:, -1], color="black", linestyle=":", label="knowing the future")
    axes.set_ylim(bottom=0)
    return _svg(figure, axes)


def _hits(r: Results) -> Markup:
    figure, axes = _figure(r, "part of requests")
    days, grown = _window(r, [sample.hits for sample in r.samples])
    for i, row in enumerate(r.rows):
        axes.plot(days, grown[:, i], color=COLOURS[i], label=row.name, linewidth=2.2 if i == 0 else 1.4)
    axes.set_ylim(0, 1)
    return _svg(figure, axes)


def _promise(r: Results) -> Markup:
    figure, axes = _figure(r, "entries")
    lost = np.array([sample.lost for sample in r.samples])
    opened = np.array([sample.in_flight for sample in r.samples])
    axes.stackplot(_days(r), lost, opened, colors=(COLOURS[1], COLOURS[2]), labels=("lost", "still open"))
    axes.plot(_days(r), [sample.bound for sample in r.samples], color="black", label="allowed")
    return _svg(figure, axes)


def _weights(r: Results) -> Markup:
    figure, axes = _figure(r, "share")
    names = sorted({name for sample in r.samples for name in sample.weights})
    shares = np.array([[sample.weights.get(name, 0.0) for name in names] for sample in r.samples])
    if names:
        order = np.argsort(-shares.mean(axis=0))
        main, rest = order[:7], order[7:]
        bands = [shares[:, i] for i in main]
        labels = [names[i] for i in main]
        if len(rest):
            bands.append(shares[:, rest].sum(axis=1))
            labels.append(f"{len(rest)} others")
        axes.stackplot(_days(r), *bands, labels=labels, colors=COLOURS[:len(bands)])
        axes.set_ylim(0, 1)
    return _svg(figure, axes)


def _figure(r: Results, unit: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8.6, 3.2), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel("days of the service's time")
    axes.set_ylabel(unit)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    if r.shift is not None:
        axes.axvline(r.shift / 86_400, color="#868e96", linestyle="--", linewidth=1)
        axes.annotate("habits swap", (r.shift / 86_400, 1), xycoords=("data", "axes fraction"), xytext=(4, -10),
                      textcoords="offset points", fontsize=8, color="#868e96")
    return figure, axes


def _svg(figure: Figure, axes: Axes) -> Markup:
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)
    out = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    # Text stays text (small, readable by screen readers); each figure its own salt, as ids share one page.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": axes.get_ylabel() + str(len(axes.lines))}):
        figure.savefig(out, format="svg", metadata=nothing)
    text = out.getvalue()
    return Markup(text[text.index("<svg"):])
