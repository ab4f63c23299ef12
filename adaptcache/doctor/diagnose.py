"""What a log of decisions says: figures, the worst decisions, and findings with what to change.

A finding is made only where it matters (a share of everything that was paid) and where it is clear: the whole 95 %
interval, shared out over the namespaces that were looked at, lies beyond that share. With too few keys nothing is
said. So a cache that does well is told that nothing is to be changed.
"""
from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from adaptcache.doctor import hindsight
from adaptcache.doctor.hindsight import Interval, bootstrap, by_key
from adaptcache.doctor.read import Floats, Log

KEYS: Final = 30            # with fewer, nothing is said
WAITS: Final = 200
MATTERS: Final = 0.02       # share of all that was paid, below which nothing is worth a change
CLEAR: Final = 0.1          # how much cheaper, of what a namespace paid, a fixed TTL must be at the least
TAKEN: Final = 0.25         # share of waits that capacity or the ceiling ended, from which on they are what counts
LEVEL: Final = 0.95


@dataclass(frozen=True)
class Finding:
    """Something to change. `share`: of all that was paid, what it is about; `low`: its least, with confidence."""

    kind: str
    says: str
    change: str
    share: float
    low: float
    namespace: str | None = None


@dataclass(frozen=True)
class Namespace:
    """What one namespace paid, and what the best fixed TTL in hindsight would have; None: too few to say."""

    name: str
    keys: int
    waits: int
    asked: float                # share of the waits whose outcome is known that ended by a request
    paid: float
    least: float                # what it would have cost with the future known
    dead: float                 # share of its rent spent on waits after which nobody came
    rule: str | None = None
    saves: Interval | None = None       # by that rule, as a share of what was paid; below 0: learning is cheaper
    loses: float | None = None          # share of protected requests that the rule would lose
    verdict: str = "too few to say"


@dataclass(frozen=True)
class Decision:
    """One of the worst: `regret` is what it cost beyond what was possible."""

    id: int
    time: float
    key: str
    namespace: str
    what: str
    held: float
    after: float | None
    paid: float
    regret: float


@dataclass(frozen=True)
class Guard:
    """What the guard's refusals cost, net of the misses that they saved."""

    premature: float | None     # alpha
    window: float | None        # as given; None: a quarter of the break-even time
    refused: int                # waits that it would have ended earlier
    of: int                     # waits that the mixture wanted to end
    rent: float
    misses: float
    net: Interval               # as a share of all that was paid
    used: float | None          # the largest share of the budget that was lost or in flight when a state was written
    banks: int                  # namespaces with a bank of their own; `used` is of the fullest


@dataclass(frozen=True)
class Diagnosis:
    """All that is said of a log; `asdict` of it is what `--json` prints."""

    files: list[str]
    notes: list[str]
    keys: int
    waits: int
    seconds: float
    sample: float | None
    dropped: int
    paid: float
    rent: float
    misses: float
    least: float
    dead: float                 # share of the rent, of waits whose outcome is known, after which nobody came
    premature: int
    outcomes: dict[str, int]
    bounds: dict[str, dict[str, float]]
    guard: Guard
    namespaces: list[Namespace]
    worst: list[Decision]
    findings: list[Finding] = field(default_factory=list)


def diagnose(log: Log, *, worst: int = 10) -> Diagnosis:
    """Everything that can be said of a log. `worst`: how many decisions to list."""
    rows = np.flatnonzero(log.outcome != "")
    paid = log.rent + log.miss
    total = float(paid.sum())
    nobody = np.isin(log.outcome, ("never", "overwritten", "deleted"))
    namespaces = list(_namespaces(log, paid))
    guard = _guard(log, rows, paid)
    state = log.states[-1] if log.states else {}
    findings: list[Finding] = []
    if len(rows):
        findings = [
            *_free(log), *_worthless(log), *_namespace_findings(namespaces, total), *_guard_findings(guard, log),
            *_lost_to(log, rows, paid), *_constant(log),
        ]
    return Diagnosis(
        files=log.files, notes=log.notes, keys=len(np.unique(log.key)), waits=len(log),
        seconds=_span(log), sample=_number(state, "sample"), dropped=int(_number(state, "dropped") or 0),
        paid=total, rent=float(log.rent.sum()), misses=float(log.miss.sum()), least=float(np.nansum(log.least)),
        dead=_share(log.rent[nobody].sum(), log.rent[log.outcome != "open"].sum()), premature=int(log.premature.sum()),
        outcomes={name: int((log.outcome == name).sum()) for name in np.unique(log.outcome).tolist()},
        bounds={name: {"waits": int((log.bound == name).sum()), "gone": int(((log.bound == name) & ~np.isnan(log.gone)).sum()),
                       "paid": _share(paid[log.bound == name].sum(), total)} for name in np.unique(log.bound).tolist()},
        guard=guard, namespaces=namespaces, worst=_worst(log, paid, worst),
        findings=sorted(findings, key=lambda finding: -finding.share),
    )


def _span(log: Log) -> float:
    """Seconds from the first access to the last outcome, run by run."""
    return float((log.time + log.seen).max() - log.time.min()) if len(log) else 0.0


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else 0.0


def _number(state: dict[str, Any], name: str) -> float | None:
    value = state.get(name)
    return float(value) if isinstance(value, (int, float)) else None


# -- namespaces

def _namespaces(log: Log, paid: Floats) -> Iterator[Namespace]:
    of = [np.flatnonzero(log.namespace == number) for number in range(len(log.namespaces))]
    large = [(log.outcome[rows] != "open").sum() >= WAITS and len(np.unique(log.key[rows])) >= KEYS and paid[rows].sum() > 0 for rows in of]
    # One interval each, all of them right together with LEVEL (Bonferroni).
    level = 1 - (1 - LEVEL) / max(1, sum(large))
    for number, rows in enumerate(of):
        nobody = np.isin(log.outcome[rows], ("never", "overwritten", "deleted"))
        rent = log.rent[rows]
        known = rows[log.outcome[rows] != "open"]
        plain: dict[str, Any] = {
            "name": log.namespaces[number], "keys": len(np.unique(log.key[rows])), "waits": len(rows),
            "asked": float(log.asked[known].mean()) if len(known) else 0.0, "paid": float(paid[rows].sum()),
            "least": float(np.nansum(log.least[rows])), "dead": _share(rent[nobody].sum(), log.rent[known].sum()),
        }
        if not large[number]:
            yield Namespace(**plain)
            continue
        mine = by_key(log, rows, paid[rows])
        rules = hindsight.rules(log, rows)
        rule = hindsight.best(rules)
        saves = hindsight.against(mine, rules, level)
        taken = {bound: (log.bound[rows] == bound) & ~np.isnan(log.gone[rows]) for bound in ("capacity", "ceiling")}
        held_back = next((bound for bound, waits in taken.items() if waits.mean() > TAKEN), None)
        if _at_most(by_key(log, known, log.asked[known].astype(float)) > 0, level) < 0.02:
            verdict = "never asked again"
        elif held_back is not None:
            verdict = f"the {held_back} decides"        # no rule of expiry can be judged by what it did not decide
        elif saves.low > CLEAR:
            verdict = "fixed is cheaper"
        elif saves.high < -CLEAR:
            verdict = "learning is cheaper"
        else:
            verdict = "no clear difference"
        yield Namespace(**plain, rule=str(rule), saves=saves, loses=hindsight.losses(log, rows, rule), verdict=verdict)


def _at_most(seen: NDArray[np.bool_], level: float) -> float:
    """The upper end of Wilson's interval for a share."""
    n, p = len(seen), float(seen.mean())
    z = _normal(level)
    return (p + z * z / (2 * n) + z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))) / (1 + z * z / n)


def _normal(level: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf((1 + level) / 2)


def _namespace_findings(namespaces: list[Namespace], total: float) -> Iterator[Finding]:
    for space in namespaces:
        if space.saves is None:
            continue
        if space.verdict == "never asked again":
            share = _share(space.paid, total)
            if share >= MATTERS / 2:
                yield Finding(
                    "never asked again", f"{space.asked:.1%} of {space.waits:,} waits for {space.keys:,} keys of namespace {space.name} ended by "
                    f"a request; keeping them was {share:.0%} of all that was paid.", f"Do not store what belongs to {space.name}.",
                    share, share, space.name)
        elif space.verdict == "fixed is cheaper" and space.saves.low * space.paid >= MATTERS / 2 * total:
            share, low = (space.saves.value * space.paid / total, space.saves.low * space.paid / total)
            nothing = space.rule in ("Idle(0)", "Fixed(0)")
            loses = f" It would lose {space.loses:.1%} of the protected requests." if space.loses else ""
            yield Finding(
                "fixed is cheaper", f"Namespace {space.name} would have been {space.saves.value:.0%} cheaper ({space.saves.low:.0%} at the least) "
                f"{'if it had not been stored' if nothing else f'with {space.rule}'} than with learning.{loses}",
                f"Do not store what belongs to {space.name}." if nothing else
                f"Keep {space.name} in a cache of its own with expiry={space.rule}.",
                share, low, space.name)


# -- the guard

def _guard(log: Log, rows: NDArray[np.int64], paid: Floats) -> Guard:
    header = log.headers[-1] if log.headers else {}
    used = [state["used"] for state in log.states if isinstance(state.get("used"), (int, float))]
    banks = header.get("banks")
    refused = ~np.isnan(log.refused)
    # What capacity ended filled room that would have been full without it.
    extra = np.where(refused & (log.bound != "capacity"), log.rate * (log.held - log.refused), 0.0)
    saved = np.where(refused & log.asked & log.found, log.cost, 0.0)
    net = Interval(0.0, 0.0, 0.0)
    if len(rows):
        net = bootstrap(by_key(log, rows, extra - saved), by_key(log, rows, paid), LEVEL)
    return Guard(
        premature=_number(header, "premature"), window=_number(header, "window"), refused=int(refused.sum()),
        of=int((~np.isnan(log.let_go)).sum()), rent=float(extra.sum()), misses=float(saved.sum()), net=net,
        used=max(used, default=None), banks=len(banks) if isinstance(banks, dict) else 0,
    )


def _guard_findings(guard: Guard, log: Log) -> Iterator[Finding]:
    if guard.net.low < MATTERS or len(np.unique(log.key[~np.isnan(log.refused)])) < KEYS:
        return
    alpha = guard.premature if guard.premature is not None else 0.01
    more = min(1.0, max(2 * alpha, 0.01))
    window = f"{guard.window:g} s" if guard.window is not None else "a quarter of the break-even time"
    used = "" if guard.used is None else f" Its budget was used to {min(1.0, guard.used):.0%} at the most."
    says = (f"The guard held {guard.refused:,} of the {guard.of:,} values that the mixture would have let go. That cost "
            f"{guard.net.value:.0%} of all that was paid ({guard.net.low:.0%} at the least): {guard.rent:.4g} of rent, for misses "
            f"of {guard.misses:.4g}.{used}")
    if guard.used is not None and guard.used < 0.5:
        change = f"Losses are far from what is allowed; the window ({window}) is what holds. Give a shorter one: window=..."
    elif guard.banks:
        change = f"Raise premature of the namespaces whose values it held, or give a window shorter than {window}."
    else:
        change = f"Raise premature from {alpha:g} to {more:g}, or give a window shorter than {window}."
    yield Finding("guard", says, change, guard.net.value, guard.net.low)


# -- the rest

def _free(log: Log) -> Iterator[Finding]:
    free = log.price == 0
    if len(log) >= WAITS and free.mean() > 0.5:
        given = log.headers[-1].get("memory_price") if log.headers else None
        why = f"memory_price is {'0' if given == 0 else 'not given'}, and the cache was not full"
        yield Finding("memory is free", f"Memory cost nothing in {free.mean():.0%} of the waits ({why}): nothing can be let go on "
                      "grounds of reuse then.", "Give memory_price: adaptcache.price(gb_hour=..., cpu_hour=...) makes it out of "
                      "an invoice.", float(free.mean()), float(free.mean()))


def _worthless(log: Log) -> Iterator[Finding]:
    none = (log.cost == 0) & (log.rate > 0)
    rent = _share(log.rent[none].sum(), log.rent.sum() + log.miss.sum())
    if len(log) >= WAITS and rent >= MATTERS:
        yield Finding("costs nothing", f"{none.mean():.0%} of the values were stored with a cost of 0: a miss of theirs costs nothing, so "
                      f"there is nothing to weigh their rent against, which was {rent:.0%} of all that was paid.",
                      "Give their true cost: set(..., cost=...), or get_or_load, which times the load.", rent, rent)


def _lost_to(log: Log, rows: NDArray[np.int64], paid: Floats) -> Iterator[Finding]:
    """Requests that found nothing since capacity or the ceiling had come first, though holding on was worth it."""
    changes = {"capacity": "Raise maxsize.", "ceiling": "Raise the ceiling (or ttl), as far as the values stay true for longer."}
    for bound, change in changes.items():
        gone = (log.bound == bound) & ~np.isnan(log.gone)
        late = gone & log.asked & ~log.found
        worth = np.where(late, np.maximum(log.cost - log.spared, 0.0), 0.0)
        if len(np.unique(log.key[late])) < KEYS:
            continue
        share = bootstrap(by_key(log, rows, worth), by_key(log, rows, paid), LEVEL)
        if share.low >= CLEAR:
            who = "Capacity" if bound == "capacity" else "The ceiling"
            yield Finding(bound, f"{who} ended {int(gone.sum()):,} waits; {int(late.sum()):,} of those keys were asked for again. Holding on "
                          f"would have saved {share.value:.0%} of all that was paid ({share.low:.0%} at the least).",
                          change, share.value, share.low)


def _constant(log: Log) -> Iterator[Finding]:
    for name, values in log.features.items():
        given = values[~np.isnan(values)]
        if len(given) >= WAITS and np.ptp(given) == 0:
            yield Finding("constant feature", f"The feature {name!r} was {given[0]:g} in every one of {len(given):,} waits: a model can learn "
                          "nothing from it.", f"Drop {name!r} from features=; a cache uses the first eight names.", 0.0, 0.0)


def _worst(log: Log, paid: Floats, most: int) -> list[Decision]:
    regret = np.where(np.isnan(log.least), 0.0, paid - log.least)
    out = []
    for at in np.argsort(-regret, kind="stable")[:most].tolist():
        if not regret[at] > 0:
            break
        asked, found = bool(log.asked[at]), bool(log.found[at])
        if not asked:
            what = f"held for nothing ({log.outcome[at]})"
        elif not found and log.least[at] < log.cost[at]:
            what = "let go too early" if log.bound[at] != "capacity" else "pushed out by capacity"
        else:
            what = "held too long"
        out.append(Decision(
            id=int(log.id[at]), time=float(log.time[at]), key=log.keys[log.key[at]], namespace=log.namespaces[log.namespace[at]],
            what=what, held=float(log.held[at]), after=float(log.seen[at]) if asked else None, paid=float(paid[at]),
            regret=float(regret[at])))
    return out
