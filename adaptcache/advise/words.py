"""An advice in plain words, as a curve on a terminal, and as JSON. Nothing is measured here."""
from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from adaptcache.advise.advice import Advice, Expiry, Policy, Size
from adaptcache.simulate.extras import needs

if TYPE_CHECKING:
    from rich.console import Console

BAR = 30  # characters of a hit ratio of 100 %


def to_json(advice: Advice) -> str:
    """One object: the fields of `Advice`, and `sentences`. What JSON cannot say (infinity) is null."""
    return json.dumps(_finite(asdict(advice)) | {"sentences": sentences(advice)})


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def sentences(advice: Advice) -> list[str]:
    """The advice, a paragraph an item: the trace, size, policy, expiry, and what to be wary of."""
    over = "" if advice.span is None else f" over {duration(advice.span)}"
    about = "" if advice.sample is None else "about "
    out = [f"{advice.trace}: {advice.requests:,} requests for {about}{advice.keys:,} keys{over}. {advice.first_requests:.1%} of the requests "
           "are the first for their key, which no cache can hit."]
    if advice.sample is not None:
        out.append(f"All of this is judged by {share(advice.sample)} of the keys, drawn by hash, and their {advice.sampled:,} requests; "
                   "± is the error of that sample, which the exact figure keeps within in 95 of 100 cases.")
    if advice.hot:
        out.append(f"{advice.hot:,} of the hottest keys are not among those: a cache of any of these sizes hits them nearly always.")
    if advice.looked_at < advice.requests:
        out.append(f"Only the first {advice.looked_at:,} requests were looked at: they are many, and for too few keys to draw some.")
    out.append(" ".join(_size(advice.size, advice.policy)))
    if advice.policy is not None:
        out.append(" ".join(_policy(advice.policy, advice.sample is not None)))
    if advice.expiry is not None:
        out.append(" ".join(_expiry(advice.expiry)))
    return [*out, *advice.warnings]


def _size(size: Size, policy: Policy | None) -> Iterator[str]:
    if size.recommended is None or policy is None:
        yield f"Size: none. {size.reason[0].upper()}{size.reason[1:]}."
        return
    yield f"Size: {size.recommended:,} entries. {size.reason[0].upper()}{size.reason[1:]}."
    name = "Your" if policy.capacity == size.current else "These" if policy.capacity == size.recommended else "Here"
    here = size.here or 0.0
    told = [f"{name} {policy.capacity:,} entries hit {here:.1%}"]
    if size.double is not None:
        told.append(f"2× memory gives {points(size.double - here)} points")
    if size.half is not None:
        told.append(f"half of it {points(size.half - here)}")
    yield f"{'; '.join(told)} ({policy.recommended})."


def _policy(policy: Policy, sampled: bool) -> Iterator[str]:
    yield f"Policy: {policy.recommended}, since {policy.reason}."
    ratio = policy.hit_ratios[policy.recommended]
    error = f" ± {100 * (policy.high[policy.recommended] - policy.low[policy.recommended]) / 2:.1f} points" if sampled else ""
    rivals = {name: value for name, value in policy.hit_ratios.items() if name in ("lru", policy.best) and name != policy.recommended}
    yield (f"At {policy.capacity:,} entries it hits {ratio:.1%}{error}"
           + "".join(f", {name} {value:.1%}" for name, value in rivals.items())
           + f"; whoever knew the future, {policy.best_possible:.1%}.")
    if len(policy.halves) > 1:
        yield "In the first half of the trace and in the second: " + ", ".join(
            f"{name} {first:.1%} and {second:.1%}" for name, (first, second) in policy.halves.items()) + "."


def _expiry(expiry: Expiry) -> Iterator[str]:
    call = {"learned": "expiry=Learned(...)", "none": "expiry=None", "fixed": f"expiry=Idle({expiry.best_ttl:.3g})",
            "nothing": "none, and no cache"}
    yield f"Expiry: {call[expiry.recommended]}, since {expiry.reason}."
    if expiry.ttl is not None and expiry.ttl_against_learned is not None:
        times = expiry.ttl_against_learned
        between = "" if expiry.samples < 2 else f" (from {expiry.low:.2f} to {expiry.high:.2f} in {expiry.samples} samples)"
        yield f"Your fixed TTL of {expiry.ttl:g} s costs {times:.2f}× what learning would{between}."
    least = expiry.costs["clairvoyant"]
    names = {"none": "keeping everything", "static-best": f"the best single TTL ({expiry.best_ttl:.3g} s)", "learned": "learning"}
    yield "As multiples of the least possible cost: " + ", ".join(
        f"{word} {expiry.costs[name] / least:.2f}" for name, word in names.items() if least > 0) + "."
    yield (f"Memory costs {expiry.memory_price:.3g} per unit of size and second, at which the median entry has cost a miss after "
           f"{duration(expiry.break_even)}.")
    how = "" if expiry.models else ", with the tables alone (river's models take longer: adaptcache simulate --expiry learned)"
    if expiry.samples:
        yield f"Costs are of {expiry.requests:,} requests in {expiry.samples} disjoint samples of the keys{how}."
        if expiry.hot:
            yield f"{expiry.hot:,} of the hottest keys are in none."
    elif how:
        yield f"Learning was tried on all {expiry.requests:,} requests{how}."


def share(rate: float) -> str:
    """A share in percent, with as many digits as tell something: 12.5%, 0.031%."""
    return f"{100 * rate:.3g}%"


def points(gain: float) -> str:
    """A difference of two hit ratios in points, with its sign: +4.1."""
    return f"{100 * gain:+.1f}"


def duration(seconds: float) -> str:
    """Seconds in the largest unit of which there is one."""
    for unit, length in (("years", 365.25 * 86400), ("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} seconds"


def show(advice: Advice, console: Console) -> None:
    """The sentences, then the curve."""
    with needs("the terminal table"):
        from rich import box
        from rich.table import Table
    for sentence in sentences(advice):
        console.print(sentence, highlight=False, markup=False, soft_wrap=False)
        console.print()
    if advice.policy is None:
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    beside = [] if advice.policy.recommended == "lru" else ["lru"]
    error = [] if advice.sample is None else ["±"]
    for name in ("entries", "of keys", advice.policy.recommended, *error, *beside, "best possible"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    for point in advice.size.curve:
        bar = "█" * round(BAR * point.hit_ratio) + "░" * (round(BAR * point.best_possible) - round(BAR * point.hit_ratio))
        marks = [word for word, capacity in (("yours", advice.size.current), ("recommended", advice.size.recommended))
                 if capacity == point.capacity]
        table.add_row(f"{point.capacity:,}", f"{point.capacity / advice.keys:.1%}", f"{point.hit_ratio:.1%}",
                      *(f"{50 * (point.high - point.low):.1f}" for _ in error), *(f"{point.lru:.1%}" for _ in beside),
                      f"{point.best_possible:.1%}", f"{bar} {', '.join(marks)}", style="bold" if marks else None)
    console.print(table)
