"""The five streams of requests: dashboards, ad-hoc queries, scans, flash crowds, look-ups.

Each stream is a function `(parameters, regimes, rng, count) -> Asked` that returns exactly `count`
requests in no particular order. It decides who asks what and when; costs, sizes and versions
follow from what was asked and are none of its business. Vectorised: no loop here runs per request.
"""
from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np

from .catalogue import (
    APP,
    BATCH,
    DASHBOARD,
    DATED_READ_TWICE,
    DAY,
    GRANULARITIES,
    NOTEBOOK,
    SAME_EVERY_NIGHT,
    SENSIBLE_HORIZONS,
    WEEK,
    Floats,
    Habits,
    Ints,
    having,
)
from .parameters import PipelineParameters

DAY_SECONDS = 86_400.0
WEEKEND = 0.15  # of the activity of a working day
REPORT_PAGES = 5  # keys behind the page that a flash crowd reads
LATEST = -10_000  # as_of of keys that name no day; far below any day that is asked for
ITEMS = 1 << 29  # items are below this: boards and entities in the lower half, ad-hoc questions in the upper


class Regime(NamedTuple):
    """Habits, and the time for which they hold."""

    start: float
    end: float
    habits: Habits


@dataclass(frozen=True)
class Asked:
    """Requests as columns: when, by whom, and the arguments that make the key."""

    time: Floats
    function: Ints
    tenant: Ints
    caller: Ints
    granularity: Ints
    horizon: Ints  # index into HORIZONS
    item: Ints  # what it is about: a board, a question, an entity
    as_of: Ints  # the day at whose end the data asked for ends

    def __getitem__(self, rows: slice | Ints) -> Asked:
        return Asked(*(getattr(self, f.name)[rows] for f in fields(self)))


def joined(parts: list[Asked]) -> Asked:
    """All parts, one after the other."""
    return Asked(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Asked)))


def dashboards(p: PipelineParameters, regimes: list[Regime], rng: np.random.Generator, count: int) -> Asked:
    """Boards that people open during work and that poll on a beat while open.

    A board is as quick as its tenant and its granularity, a panel as its function; the panels of a
    new board, and the keys that midnight makes out of an old one, therefore behave like those before.
    """
    parts: list[Asked] = []
    missing, boards, first = count, 16, 0
    while missing > 0:
        more = _polls_of_boards(p, regimes, rng, first, boards)
        first += boards
        kept = _whole_items(more, missing)
        parts.append(kept)
        missing -= len(kept.time)
        # Sized from what the last batch of boards gave, with room for its chance.
        boards = min(50_000, 1 + int(1.2 * boards * missing / max(len(more.time), 1)))
    return joined(parts) if parts else _nothing()


def _polls_of_boards(p: PipelineParameters, regimes: list[Regime], rng: np.random.Generator,
                     first: int, boards: int) -> Asked:
    functions = having("dashboard")
    tenant = rng.integers(0, p.tenants, boards)
    granularity = rng.integers(0, len(GRANULARITIES), boards)
    panels = np.argsort(rng.random((boards, len(functions))), axis=1)[:, :p.panels]
    horizons = SENSIBLE_HORIZONS[granularity[:, None], rng.integers(0, 3, panels.shape)]
    unlike = rng.random(boards) < p.unlike
    parts = []
    for regime in regimes:
        board, start, end = _sittings(p, regime, rng, tenant)
        common = regime.habits.pace[tenant] * regime.habits.beat[granularity]
        own = rng.permutation(common)
        period = p.period * np.where(unlike, own, common)[board]
        polls = 1 + ((end - start) / period).astype(np.int64)
        row = np.repeat(np.arange(len(board)), polls)
        nth = np.arange(len(row)) - np.repeat(np.cumsum(polls) - polls, polls)
        beat = start[row] + (nth + p.jitter * rng.uniform(-1, 1, len(row))) * period[row]

        # One row per panel: those whose function is awake and whose turn it is at this poll.
        panel = panels[board[row]]
        wanted = (nth[:, None] % regime.habits.stride[panel] == 0) & regime.habits.awake[panel]
        wanted &= ((beat >= regime.start) & (beat < regime.end - 1.0))[:, None]
        poll, place = np.nonzero(wanted)
        board = board[row[poll]]
        time = beat[poll] + 0.05 * place
        today = (time // DAY_SECONDS).astype(np.int64)
        grain = granularity[board]
        parts.append(Asked(
            time=time,
            function=functions[panels[board, place]],
            tenant=tenant[board],
            caller=np.full(len(time), DASHBOARD),
            granularity=grain,
            horizon=horizons[board, place],
            item=first + board,
            as_of=np.where(grain == WEEK, today - today % 7, today),
        ))
    return joined(parts)


def _sittings(p: PipelineParameters, regime: Regime, rng: np.random.Generator,
              tenant: Ints) -> tuple[Ints, Floats, Floats]:
    """(board, start, end) of every time that a board is open during the regime."""
    days = np.arange(int(regime.start // DAY_SECONDS), int(np.ceil(regime.end / DAY_SECONDS)))
    often = p.sittings * np.where(days % 7 >= 5, WEEKEND, 1.0)
    times = rng.poisson(np.broadcast_to(often, (len(tenant), len(days))))
    board, day = (np.repeat(index.ravel(), times.ravel()) for index in np.indices(times.shape))
    start = _moment(p, regime.habits, rng, tenant[board], days[day])
    end = start + rng.exponential(p.sitting_minutes * 60.0, len(start))
    inside = (start >= regime.start) & (start < regime.end)
    return board[inside], start[inside], np.minimum(end[inside], regime.end)


def _whole_items(asked: Asked, count: int) -> Asked:
    """At most `count` requests: items kept whole, but for the last, which loses its end."""
    if len(asked.time) <= count:
        return asked
    return asked[np.lexsort((asked.time, asked.item))[:count]]


def once(p: PipelineParameters, regimes: list[Regime], rng: np.random.Generator, count: int) -> Asked:
    """Ad-hoc queries that nobody asks again; mostly of the kinds that are not explored."""
    tenant = rng.integers(0, p.tenants, count)
    time = _working_times(p, regimes, rng, tenant)
    return replace(_ad_hoc(p, regimes, rng, time, tenant, explored=False), item=ITEMS // 2 + np.arange(count))


def explored(p: PipelineParameters, regimes: list[Regime], rng: np.random.Generator, count: int) -> Asked:
    """Ad-hoc queries that an analyst comes back to a few times within minutes."""
    pace = np.stack([regime.habits.pace for regime in regimes])
    parts: list[Asked] = []
    missing = count
    while missing > 0:
        questions = missing // 3 + 8
        tenant = rng.integers(0, p.tenants, questions)
        time = _working_times(p, regimes, rng, tenant)
        asked = _ad_hoc(p, regimes, rng, time, tenant, explored=True)
        looks = 1 + rng.geometric(0.4, questions)
        row = np.repeat(np.arange(questions), looks)
        wait = 240.0 * pace[_which(regimes, time), tenant][row] * rng.exponential(1.0, len(row))
        first = np.cumsum(looks) - looks
        wait[first] = 0.0
        waited = np.cumsum(wait)
        waited -= np.repeat(waited[first], looks)
        inside = time[row] + waited < p.seconds
        spread = asked[row[inside]]
        parts.append(_whole_items(replace(spread, time=spread.time + waited[inside]), missing))
        missing -= len(parts[-1].time)
    return joined(parts) if parts else _nothing()


def _ad_hoc(p: PipelineParameters, regimes: list[Regime], rng: np.random.Generator, time: Floats,
            tenant: Ints, *, explored: bool) -> Asked:
    """Questions nobody asked before; like ones are of the kinds for which `explored` holds, unlike ones of any."""
    questions = len(time)
    function = rng.choice(np.concatenate([having("ad-hoc"), having("dashboard")]), questions)
    # By regime and function, its granularities: first the half that is not explored, then the half that is.
    sorted_kinds = np.argsort(np.stack([regime.habits.explored for regime in regimes]), axis=2, kind="stable")
    half = len(GRANULARITIES) // 2
    wanted = (rng.random(questions) < 1 - p.unlike / 2) == explored
    place = half * wanted + rng.integers(0, half, questions)
    granularity = sorted_kinds[_which(regimes, time), function, place]
    back = np.where(rng.random(questions) < 0.5, 0, rng.geometric(0.1, questions))
    return Asked(
        time=time,
        function=function,
        tenant=tenant,
        caller=np.full(questions, NOTEBOOK),
        granularity=granularity,
        horizon=SENSIBLE_HORIZONS[granularity, rng.integers(0, 3, questions)],
        item=rng.integers(3 * (ITEMS // 4), ITEMS, questions),
        as_of=(time // DAY_SECONDS).astype(np.int64) - back,
    )


def scans(p: PipelineParameters, regimes: list[Regime], rng: np.random.Generator, count: int) -> Asked:
    """Every night, one pass over many keys per scan function: the same keys, or keys of that date."""
    functions = having("scan")
    items = -(-count // (p.days * (len(functions) + 1)))  # one function in three reads twice
    while True:
        items += 8 + items // 16  # which is not exact where items have habits of their own
        asked = _nights(p, regimes, rng, functions, items)
        if len(asked.time) >= count:
            return _whole_items(asked, count)


def _nights(p: PipelineParameters, regimes: list[Regime], rng: np.random.Generator, functions: Ints,
            items: int) -> Asked:
    unlike = rng.random((len(functions), items)) < p.unlike
    own = rng.integers(0, len(functions), unlike.shape)
    item = np.arange(items)
    parts = []
    for night in range(p.days):
        for place, function in enumerate(functions):
            begin = night * DAY_SECONDS + 3_600.0 * (1 + place)
            habits = next(r.habits for r in regimes if begin < r.end)
            habit = np.where(unlike[place], own[place], habits.nightly[place])
            time = begin + 3_000.0 * (item + rng.random(items)) / items
            once = Asked(
                time=time,
                function=np.full(items, function),
                tenant=item % p.tenants,
                caller=np.full(items, BATCH),
                granularity=np.full(items, DAY),
                horizon=np.full(items, 1 + place),
                item=item,
                # Where keys are not dated the pass reads "the latest", whatever that is.
                as_of=np.where(habit == SAME_EVERY_NIGHT, LATEST, night),
            )
            # A second stage picks some results up minutes later.
            again = replace(once, time=time + 300.0 + 60.0 * rng.random(items))
            parts += [once, again[np.flatnonzero(habit == DATED_READ_TWICE)]]
    return joined(parts)


def crowds(p: PipelineParameters, regimes: list[Regime], rng: np.random.Generator, count: int) -> Asked:
    """A link goes round: everybody asks for the same new report, then interest decays."""
    begin = rng.uniform(0, 0.95 * p.seconds, p.crowds)
    crowd = rng.integers(0, p.crowds, count)
    after = rng.exponential(p.crowd_minutes * 60.0, count)
    # What would fall behind the end is asked by the crowd's early part instead.
    time = begin[crowd] + after % (p.seconds - begin[crowd])
    page = np.minimum(rng.geometric(0.5, count) - 1, REPORT_PAGES - 1)
    return Asked(
        time=time,
        function=np.full(count, having("report")[0]),
        tenant=rng.integers(0, p.tenants, p.crowds)[crowd],
        caller=np.full(count, APP),
        granularity=np.full(count, DAY),
        horizon=np.full(count, 2),
        item=crowd * REPORT_PAGES + page,
        as_of=(begin[crowd] // DAY_SECONDS).astype(np.int64),
    )


def lookups(p: PipelineParameters, regimes: list[Regime], rng: np.random.Generator, count: int) -> Asked:
    """Single customers by popularity (Zipf); the shift makes others popular."""
    weight = np.arange(1, p.entities + 1) ** -p.skew
    rank = np.searchsorted(np.cumsum(weight) / weight.sum(), rng.random(count)).clip(max=p.entities - 1)
    popular = np.stack([rng.permutation(p.entities) for _ in regimes])
    # Who is asked for decides the tenant, hence the working hours, hence the time: drawn in that order.
    part = _which(regimes, rng.uniform(0, p.seconds, count))
    entity = popular[part, rank]
    tenant = entity % p.tenants
    time = np.empty(count)
    for i, regime in enumerate(regimes):
        rows = np.flatnonzero(part == i)
        time[rows] = _working_times(p, [regime], rng, tenant[rows])
    return Asked(
        time=time,
        function=np.full(count, having("lookup")[0]),
        tenant=tenant,
        caller=np.full(count, APP),
        granularity=np.full(count, DAY),
        horizon=np.zeros(count, np.int64),
        item=entity,
        as_of=np.full(count, LATEST),
    )


def _which(regimes: list[Regime], time: Floats) -> Ints:
    """The regime of each moment, as an index."""
    return np.searchsorted([regime.end for regime in regimes[:-1]], time, side="right")


def _moment(p: PipelineParameters, habits: Habits, rng: np.random.Generator, tenant: Ints, day: Ints) -> Floats:
    """A moment in the tenant's working hours of that day; hours past midnight UTC are its early ones."""
    second = habits.opens[tenant] + rng.uniform(0, p.work_hours * 3_600.0, len(tenant))
    return day * DAY_SECONDS + second % DAY_SECONDS


def _working_times(p: PipelineParameters, regimes: list[Regime], rng: np.random.Generator,
                   tenant: Ints) -> Floats:
    """One working moment per row, anywhere in the time that the regimes cover."""
    low, high = regimes[0].start, regimes[-1].end
    days = np.arange(int(low // DAY_SECONDS), int(np.ceil(high / DAY_SECONDS)))
    weight = np.where(days % 7 >= 5, WEEKEND, 1.0)
    weight /= weight.sum()
    # A tenant that sleeps through the whole of a short regime is nevertheless placed in it.
    time = rng.uniform(low, high, len(tenant))
    rows = np.arange(len(tenant))
    for _ in range(12):
        if not len(rows):
            break
        day = rng.choice(days, len(rows), p=weight)
        found = np.zeros(len(rows), bool)
        for regime in regimes:
            moment = _moment(p, regime.habits, rng, tenant[rows], day)
            fits = ~found & (moment >= regime.start) & (moment < regime.end)
            time[rows[fits]] = moment[fits]
            found |= fits
        rows = rows[~found]
    return time


def _nothing() -> Asked:
    none = np.zeros(0, np.int64)
    return Asked(none.astype(float), none, none, none, none, none, none, none)
