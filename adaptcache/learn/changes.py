"""What a cache has learned of how values change at their origin: the part of `Knowledge` that speaks of freshness.

Beliefs only: change rates (of all keys, of namespaces, of keys), how far they are to be trusted, and the price at which
the budget was kept. What a process has spent of its budget is its own, and never here (docs/state.md).
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adaptcache.learn.packing import (
    DTYPES,
    LAYOUT,
    MOST,
    Array,
    a_number,
    as_bytes,
    checked,
    clipped,
    pack,
    require,
    unpack,
)

RISKS: int = LAYOUT["changes"][0] + 1
RANGES = {"outcomes": (0, MOST), "found": (0, MOST), "feared": (0, MOST), "log_theta": (-2, 14), "pace": (0, MOST)}


@dataclass
class Freshness:
    """Beliefs about change. `keys["namespace"]` is as in `Knowledge.keys`; priors of namespaces are with the namespaces.

    budget      the share of reads under which it was learned; 0: of several, and then there is no price, nor audits
    numbers     outcomes: reloads behind it; found, feared: stale reads by audits; log_theta: the price of a stale read,
                as a logarithm; pace: reloads over the stale reads allowed
    priors      of all keys, and of those that have no namespace
    risks       what came of reloads, by the risk that was believed
    """

    budget: float
    numbers: dict[str, float]
    priors: Array
    risks: Array
    keys: Array

    def parts(self, priors: dict[int, Array], places: Sequence[int] | None, memory: dict[str, float]) -> dict[str, Any]:
        """For `Store._fresh_restore`. priors: of namespaces, by number. places: their numbers; None leaves out all keys."""
        keys = clipped("change", self.keys if places is not None else self.keys[:0], memory)
        if places is not None:
            keys["namespace"] = np.array([0, *places], np.uint32)[keys["namespace"]]
        groups = {at: clipped("prior", prior, memory) for at, prior in {**priors, 0: self.priors[1:]}.items()}
        everyone = clipped("prior", self.priors[:1], {**memory, "shaken": memory["all_shaken"]})
        return {**self.numbers, "budget": self.budget, "all": as_bytes(everyone), "keys": as_bytes(keys),
                "risks": as_bytes(clipped("risk", self.risks, memory)),
                "groups": {at: as_bytes(prior) for at, prior in groups.items() if prior["n"][0] > 0}}

    def document(self) -> dict[str, Any]:
        return {"budget": self.budget, "numbers": self.numbers,
                **{name: pack(getattr(self, name)) for name in ("priors", "risks", "keys")}}


def gather(state: dict[str, Any], places: Array) -> Freshness:
    """From what `Store._fresh_state` gave; `places` turns a namespace's number into its place in `Knowledge`."""
    keys = np.frombuffer(state["keys"], DTYPES["change"]).copy()
    keys["namespace"] = places[np.minimum(keys["namespace"], len(places) - 1)]
    return Freshness(
        state["budget"], {name: state[name] for name in RANGES},
        np.concatenate([np.frombuffer(state["all"], DTYPES["prior"]), group(state, 0)]),
        np.frombuffer(state["risks"], DTYPES["risk"]).copy(), keys)


def group(state: dict[str, Any], number: int) -> Array:
    """The prior of a namespace; of nought reloads where nothing was learned."""
    known = state["groups"].get(number)
    return np.zeros(1, DTYPES["prior"]) if known is None else np.frombuffer(known, DTYPES["prior"]).copy()


def read(given: Any, namespaces: int) -> Freshness | None:
    """Checked from end to end, as everything in `knowledge.read`."""
    if given is None:
        return None
    require(set(given) == {"budget", "numbers", "priors", "risks", "keys"}, "freshness: not what this version writes")
    require(set(given["numbers"]) == set(RANGES), "freshness: not the numbers that this version writes")
    numbers = {name: a_number(given["numbers"][name], low, high, f"freshness: {name}") for name, (low, high) in RANGES.items()}
    keys = checked("change", unpack(given["keys"], "change", None), "freshness: keys")
    require(len(set(keys["hash"].tolist())) == len(keys), "freshness: a key comes twice")
    require(bool((keys["namespace"] <= namespaces).all()), "freshness: a key of no namespace")
    return Freshness(a_number(given["budget"], 0, 1, "freshness: budget"), numbers,
                     checked("prior", unpack(given["priors"], "prior", 2), "freshness: priors"),
                     checked("risk", unpack(given["risks"], "risk", RISKS), "freshness: risks"), keys)


def rated(given: Any, name: str) -> Array:
    """The prior of a namespace, out of a document."""
    return checked("prior", unpack(given, "prior", 1), name)


