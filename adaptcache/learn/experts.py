"""The experts of the mixture: their numbers in the core, and the names that people read.

`stats().weights` groups the many fixed TTLs and break-even multiples under one name each.
"""
from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from adaptcache import _core

HAZARDS = (
    "table:everyone", "table:namespace", "table:habit", "table:habit2", "table:key",
    "river:line", "river:tree", "river:line+key", "river:tree+key",
    "river:stack",
)
TABLE = range(_core.SLOT_HAZARD, _core.SLOT_HAZARD + 5)
RIVER = range(_core.SLOT_HAZARD + 5, _core.SLOT_USER)


def mask(table: bool, river: bool, users: int, without: Collection[int] = ()) -> int:
    """The bits of the experts that take part; the static ones always do. `without`: those left out of the others."""
    bits = 0
    for expert in TABLE if table else ():
        bits |= 1 << expert
    for expert in RIVER if river else ():
        bits |= 1 << expert
    for user in range(users):
        bits |= 1 << (_core.SLOT_USER + user)
    bits |= 1 << _core.SLOT_MAJORITY
    for expert in without:
        bits &= ~(1 << expert)
    return bits


def name(expert: int, users: Sequence[str] = ()) -> str:
    """What an expert is called; those that differ only in their TTL share a name."""
    if expert < _core.SLOT_MULTIPLE:
        return "static"
    if expert < _core.SLOT_HAZARD:
        return "break-even"
    if expert < _core.SLOT_USER:
        return HAZARDS[expert - _core.SLOT_HAZARD]
    if expert < _core.SLOT_USER + len(users):
        return users[expert - _core.SLOT_USER]
    return "majority" if expert == _core.SLOT_MAJORITY else f"expert {expert}"


def verdicts(experts: Iterable[tuple[int, float, bool]], users: Sequence[str] = ()) -> dict[str, tuple[float, float]]:
    """From (expert, weight, holds): name -> (its share of the weight, the part of that share that holds)."""
    # The majority votes with the others' weights; naming it would explain nothing.
    listed = [(expert, weight, holds) for expert, weight, holds in experts if expert != _core.SLOT_MAJORITY and weight > 0]
    total = sum(weight for _, weight, _ in listed)
    out: dict[str, tuple[float, float]] = {}
    for expert, weight, holds in listed:
        called = name(expert, users)
        share, held = out.get(called, (0.0, 0.0))
        out[called] = (share + weight / total, held + weight / total * holds)
    return {called: (share, held / share) for called, (share, held) in out.items()}


def shares(brain: _core.Brain, users: Sequence[str] = ()) -> dict[str, float]:
    """Expert -> its share of the global weight, largest first; sums to one.

    The weighted majority votes with these same weights, so it is not listed itself.
    """
    out: dict[str, float] = {}
    present = brain.taking_part()
    present[_core.SLOT_MAJORITY] = False
    weights = brain.weights()
    total = sum(weight for weight, here in zip(weights, present, strict=True) if here)
    for expert, weight in enumerate(weights):
        if present[expert]:
            called = name(expert, users)
            out[called] = out.get(called, 0.0) + weight / total
    return dict(sorted(out.items(), key=lambda item: -item[1]))
