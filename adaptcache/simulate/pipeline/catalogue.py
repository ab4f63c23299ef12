"""The service: its functions, who calls them, and the habits of tenants and functions.

What is fixed about the service stands here as tables; what differs between seeds is drawn once
into `Habits`, one for the time before the shift and one for the time after. This file knows
nothing of single requests.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .parameters import PipelineParameters

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Function(NamedTuple):
    """One query function of the service."""

    name: str
    role: str  # dashboard, ad-hoc, scan, lookup or report: which stream calls it
    seconds: float  # of one call over 30 days, before scaling to the mean the user asked for
    refresh: float  # seconds between two changes of its source


FUNCTIONS = (
    Function("revenue_series", "dashboard", 0.060, 3_600.0),
    Function("orders_by_region", "dashboard", 0.040, 3_600.0),
    Function("conversion_funnel", "dashboard", 0.120, 21_600.0),
    Function("latency_percentiles", "dashboard", 0.090, 900.0),
    Function("stock_levels", "dashboard", 0.030, 1_800.0),
    Function("active_users", "dashboard", 0.050, 7_200.0),
    Function("cohort_retention", "ad-hoc", 0.250, 86_400.0),
    Function("basket_analysis", "ad-hoc", 0.200, 86_400.0),
    Function("event_search", "ad-hoc", 0.080, 900.0),
    Function("anomaly_probe", "ad-hoc", 0.110, 3_600.0),
    Function("feature_extract", "scan", 0.040, 86_400.0),
    Function("ledger_reconcile", "scan", 0.030, 21_600.0),
    Function("daily_export", "scan", 0.050, 86_400.0),
    Function("customer_profile", "lookup", 0.008, 43_200.0),
    Function("published_report", "report", 0.150, 86_400.0),
)
CALLERS = ("dashboard", "notebook", "batch", "app")
DASHBOARD, NOTEBOOK, BATCH, APP = range(4)
GRANULARITIES = ("minute", "hour", "day", "week")
MINUTE, HOUR, DAY, WEEK = range(4)
POINTS_PER_DAY = np.array([1_440.0, 24.0, 1.0, 1 / 7])
HORIZONS = np.array([1, 7, 30, 90, 365])  # days
# What is asked at each granularity: nobody charts a year by the minute.
SENSIBLE_HORIZONS = np.array([[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4]])  # indices into HORIZONS

# Polls of a dashboard in periods of an hourly one, by granularity; the shift turns them round.
BEATS = np.array([0.2, 1.0, 4.0, 12.0])
# A scan function keeps one of these habits a night; the shift passes them on to the next function.
SAME_EVERY_NIGHT, DATED_READ_TWICE, DATED_READ_ONCE = range(3)


def having(role: str) -> Ints:
    """The functions of a role, as indices into FUNCTIONS."""
    return np.array([i for i, f in enumerate(FUNCTIONS) if f.role == role])


@dataclass(frozen=True)
class Habits:
    """How tenants and functions behave during one regime. Keys inherit it; that is why siblings are alike."""

    pace: Floats  # by tenant: multiplies every period and every pause between two looks
    opens: Floats  # by tenant: second of the UTC day at which work begins
    beat: Floats  # by granularity: multiplies the period of a dashboard
    stride: Ints  # by dashboard function: the panel is asked for at every n-th poll only
    awake: NDArray[np.bool_]  # by dashboard function
    explored: NDArray[np.bool_]  # by function and granularity: is an ad-hoc query looked at again?
    nightly: Ints  # by scan function


def draw_habits(p: PipelineParameters, rng: np.random.Generator) -> tuple[Habits, Habits]:
    """The habits before the shift and after it."""
    pace = rng.permutation(np.geomspace(1 / p.contrast, p.contrast, p.tenants))
    opens: Floats = (3_600 * rng.integers(0, 24, p.tenants)).astype(np.float64)
    panels = len(having("dashboard"))
    stride = rng.permutation(np.resize([1, 1, 2, 3, 6, 6], panels))
    explored = rng.permuted(
        np.tile(np.arange(len(GRANULARITIES)) % 2 == 0, (len(FUNCTIONS), 1)), axis=1
    )
    order = rng.permutation(panels)
    asleep = round(p.cold * panels)
    nightly = rng.permutation(3)

    # The quickest tenant becomes the slowest and so on, and takes over the other's hours too.
    rank = np.argsort(pace)
    other = np.empty_like(rank)
    other[rank] = rank[::-1]

    before = Habits(
        pace=pace, opens=opens, beat=BEATS, stride=stride,
        awake=~np.isin(np.arange(panels), order[:asleep]), explored=explored, nightly=nightly,
    )
    after = Habits(
        pace=pace[other], opens=opens[other], beat=BEATS[::-1], stride=7 - stride,
        awake=~np.isin(np.arange(panels), order[panels - asleep:]), explored=~explored,
        nightly=np.roll(nightly, 1),
    )
    return before, after
