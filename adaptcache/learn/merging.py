"""Two states into one: what several workers learned apart, as if one had seen it all.

Every statistic is pooled so that learning from two streams and merging comes as near as can be to learning from
both: hazards and codes by their counts; what experts lost, added up in one unit of cost; AdaHedge's mixability gaps,
which grow with the root of what was seen, by the root of the sum of their squares; river's weights by the
labels behind them (parameter mixing: McDonald, Hall and Mann, NAACL 2010), its scaling by Chan, Golub and LeVeque's
rule; change rates by the reloads behind them. A merge adds and cuts nothing, so it is commutative and associative up to rounding, and a state that learned
nothing is its identity. How much of the sum is remembered is decided where it is installed.

States with a common past count it twice.
"""
from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np

from adaptcache import _core
from adaptcache.learn.changes import Freshness
from adaptcache.learn.knowledge import MIXED, Knowledge, Namespace, arranged
from adaptcache.learn.packing import ARRAYS, STATICS, Array


def merged(states: Sequence[Knowledge]) -> Knowledge:
    """All of them in one; ValueError when they were learned under configurations that do not fit together."""
    return reduce(_pair, states)


def _pair(a: Knowledge, b: Knowledge) -> Knowledge:
    if a.config != b.config:
        parts = [name for name in a.config if a.config[name] != b.config[name]]
        raise ValueError(f"learned under different configurations: {', '.join(parts)}")
    if b.empty:
        return a
    if a.empty:
        return b
    x, y = a.numbers, b.numbers
    cost = _mean(x["mean_cost"], x["waits"], y["mean_cost"], y["waits"])
    anchor = min(n for n in (x["anchor"], y["anchor"]) if n >= 0 or x["anchor"] == y["anchor"])
    numbers = {
        "anchor": anchor, "mean_cost": cost, "waits": x["waits"] + y["waits"],
        "mean_log": _mean(x["mean_log"], x["log_n"], y["mean_log"], y["log_n"]), "log_n": x["log_n"] + y["log_n"],
        "code_mean": _mean(x["code_mean"], x["code_n"], y["code_mean"], y["code_n"]), "code_n": x["code_n"] + y["code_n"],
    }
    # Losses are counted in average misses: in one unit of cost, and for fixed TTLs of one grid, they add up.
    ours, theirs = (_Scale(state["mean_cost"] / cost if cost > 0 else 1.0, int(anchor - state["anchor"])) for state in (x, y))
    features = a.features + [name for name in b.features if name not in a.features]
    features = features[:_core.APP_FEATURES]
    left, right = arranged(a, features), arranged(b, features)
    arrays = {}
    for name, (kind, _) in ARRAYS.items():
        if name == "leaves":
            continue
        mine, other = left.arrays[name], right.arrays[name]
        if kind == "hedge":
            mine, other = ours(mine), theirs(other)
        arrays[name] = MERGE[kind](mine, other)
    tree, arrays["leaves"] = _trees(left, right)
    namespaces = {
        label: _namespace(a.namespaces.get(label), b.namespaces.get(label), ours, theirs)
        for label in [*a.namespaces, *(label for label in b.namespaces if label not in a.namespaces)]
    }
    hashing = _hashing(a, b)
    keys = _pooled([_placed(state, state.keys, namespaces, hashing) for state in (a, b)], _same_key)
    fresh = _fresh(a.fresh, b.fresh)
    if fresh is not None:
        fresh.keys = _pooled([_placed(state, state.fresh.keys, namespaces, hashing)
                              for state in (a, b) if state.fresh is not None], _same_change)
    return Knowledge(a.config, numbers, arrays, namespaces, features, keys, hashing, _river(left.river, right.river), tree,
                     _stack(left.stack, right.stack), fresh)


def _mean(x: float, n: float, y: float, m: float) -> float:
    return (x * n + y * m) / (n + m) if n + m > 0 else 0.0


class _Scale:
    """Hedges of one state in the units and on the grid of the merged one."""

    def __init__(self, unit: float, shift: int) -> None:
        self.unit, self.shift = unit, shift

    def __call__(self, hedges: Array) -> Array:
        out = hedges.copy()
        for name in ("loss", "round", "gap", "lead", "lead_gap"):
            out[name] *= self.unit
        if self.shift:
            at = np.clip(np.arange(1, STATICS) + self.shift, 1, STATICS - 1)
            for name in ("loss", "round"):
                out[name][:, 1:STATICS] = out[name][:, at]
        out["weight"] = 0       # follows from the rest, where it is installed
        return out


def cells(a: Array, b: Array) -> Array:
    """Hazards pooled by the waits behind them."""
    out = a.copy()
    n = a["n"].astype(np.float64) + b["n"]
    for name in ("p", "q"):
        pooled = a[name].astype(np.float64) * a["n"] + b[name].astype(np.float64) * b["n"]
        out[name] = np.divide(pooled, n, out=np.zeros_like(n), where=n > 0)
    out["n"] = n
    return out


def codes(a: Array, b: Array) -> Array:
    out = a.copy()
    out["mean"], out["n"] = _average(a["mean"], a["n"], b["mean"], b["n"])
    return out


def hedges(a: Array, b: Array) -> Array:
    """Discounted losses added up; they are known up to a common constant, so that is all there is to it."""
    out = a.copy()
    for name in ("loss", "round", "lead", "labels", "pending"):
        out[name] = a[name] + b[name]
    for name in ("gap", "lead_gap"):
        out[name] = np.hypot(a[name], b[name])
    return out


def sides(a: Array, b: Array) -> Array:
    out = a.copy()
    out["p"], out["n"] = _average(a["p"], a["n"], b["p"], b["n"])
    return out


def priors(a: Array, b: Array) -> Array:
    """Of change rates: how keys are spread over the classes, by the keys behind it; what came of common changes, added up."""
    out = a.copy()
    n, m = a["n"][:, None], b["n"][:, None]
    out["share"] = np.divide(n * a["share"] + m * b["share"], n + m, out=np.zeros_like(a["share"]), where=n + m > 0)
    for name in ("n", "shaken", "moved", "unmoved"):
        out[name] = a[name] + b[name]
    return out


def risks(a: Array, b: Array) -> Array:
    out = a.copy()
    for name in ("found", "feared"):
        out[name] = a[name] + b[name]
    return out


def _average(x: Array, n: Array, y: Array, m: Array) -> tuple[Array, Array]:
    """By counts, element by element, and the counts of both; nought where there are none."""
    total = n.astype(np.float64) + m
    return np.divide(x.astype(np.float64) * n + y.astype(np.float64) * m, total, out=np.zeros_like(total), where=total > 0), total


MERGE: dict[str, Callable[[Array, Array], Array]] = {
    "cell": cells, "code": codes, "hedge": hedges, "side": sides, "prior": priors, "risk": risks,
}


def _namespace(a: Namespace | None, b: Namespace | None, ours: _Scale, theirs: _Scale) -> Namespace:
    if a is None or b is None:
        one, scale = (b, theirs) if a is None else (a, ours)
        assert one is not None
        return replace(one, hedges=None if one.hedges is None else scale(one.hedges))
    mean, n = _mean(a.code[0], a.code[1], b.code[0], b.code[1]), a.code[1] + b.code[1]
    first = None if a.hedges is None else ours(a.hedges)
    second = None if b.hedges is None else theirs(b.hedges)
    return Namespace(
        cells(a.cells, b.cells) if a.cells is not None and b.cells is not None else (b.cells if a.cells is None else a.cells),
        hedges(first, second) if first is not None and second is not None else (second if first is None else first),
        a.labels + b.labels, (mean, n),
        priors(a.prior, b.prior) if a.prior is not None and b.prior is not None else (b.prior if a.prior is None else a.prior))


def _trees(a: Knowledge, b: Knowledge) -> tuple[dict[str, Any] | None, Array]:
    """Trees cannot be added: the one that took more labels stays, with its leaves. Equal ones pool their leaves."""
    if a.tree is None or b.tree is None:
        one = a if b.tree is None else b
        return one.tree, one.arrays["leaves"] if one.tree is not None else cells(a.arrays["leaves"], b.arrays["leaves"])
    first, second = ((state.tree["learned"], state.tree["nodes"].tobytes()) for state in (a, b) if state.tree is not None)
    if first[1] == second[1]:
        return (a.tree if first >= second else b.tree), cells(a.arrays["leaves"], b.arrays["leaves"])
    one = a if first > second else b
    return one.tree, one.arrays["leaves"]


def _hashing(a: Knowledge, b: Knowledge) -> str | None:
    """Whose hashes the keys of both are; MIXED where the two do not hash alike, and then no key is known."""
    if a.hashing is None or b.hashing is None:
        return b.hashing if a.hashing is None else a.hashing
    return a.hashing if a.hashing == b.hashing else MIXED


def _placed(state: Knowledge, keys: Array, namespaces: dict[Hashable, Any], hashing: str | None) -> Array:
    """A copy of keys with the places of the merged namespaces; without any where hashes do not fit."""
    place = {label: 1 + at for at, label in enumerate(namespaces)}
    out = keys.copy() if hashing != MIXED else keys[:0]
    out["namespace"] = np.array([0, *(place[label] for label in state.namespaces)], np.uint32)[out["namespace"]]
    return out


def _pooled(parts: Sequence[Array], same: Callable[[Array, Array], Array]) -> Array:
    """The keys of one or two states; `same` makes one of two records of each key that both know."""
    if len(parts) == 1:
        return parts[0]
    x, y = parts
    _, i, j = np.intersect1d(x["hash"], y["hash"], assume_unique=True, return_indices=True)
    rest = np.concatenate([np.delete(x, i), np.delete(y, j), same(x[i], y[j])])
    return rest[np.argsort(rest["hash"], kind="stable")]


def _same_key(a: Array, b: Array) -> Array:
    """Histories: cells pooled, the rest from who saw the key last."""
    both, other = a.copy(), b
    older = np.array([(p["idle"], p.tobytes()) > (q["idle"], q.tobytes()) for p, q in zip(both, other, strict=True)], bool)
    both[older], other[older] = other[older], both[older].copy()
    _rebase(other, both["base"])
    pooled = cells(both, other)
    pooled["age"] = np.maximum(both["age"], other["age"])
    return pooled


def _same_change(a: Array, b: Array) -> Array:
    """Evidence of changes and counts of reads add up; the namespace is that of who was told of more reloads."""
    out = a.copy()
    other = np.array([(p["told"], p["reads"], *p["evidence"]) < (q["told"], q["reads"], *q["evidence"])
                      for p, q in zip(a, b, strict=True)], bool)
    for name in ("told", "reads", "seconds"):
        out[name] = a[name] + b[name]
    evidence = a["evidence"] + b["evidence"]
    out["evidence"] = evidence - evidence.max(axis=1, keepdims=True)
    out["namespace"] = np.where(other, b["namespace"], a["namespace"])
    return out


def _fresh(a: Freshness | None, b: Freshness | None) -> Freshness | None:
    """All but the keys. Price and audits belong to a budget: of two budgets there is neither."""
    known = [one for one in (a, b) if one is not None and one.numbers["outcomes"] > 0]
    if len(known) < 2:
        one = known[0] if known else (b if a is None else a)
        return None if one is None else replace(one)
    x, y = known
    n, m = x.numbers["outcomes"], y.numbers["outcomes"]
    alike = x.budget == y.budget
    numbers = {
        "outcomes": n + m, "found": x.numbers["found"] + y.numbers["found"] if alike else 0.0,
        "feared": x.numbers["feared"] + y.numbers["feared"] if alike else 0.0,
        **{name: _mean(x.numbers[name], n, y.numbers[name], m) if alike else 0.0 for name in ("log_theta", "pace")},
    }
    return Freshness(x.budget if alike else 0.0, numbers, priors(x.priors, y.priors), risks(x.risks, y.risks), x.keys)


def _rebase(keys: Array, base: Array) -> None:
    """Move each key's bins to begin at `base`; what falls outside is forgotten, as the core does."""
    for at in np.flatnonzero(keys["base"] != base):
        shift = int(base[at]) - int(keys["base"][at])
        for name in ("p", "q", "n"):
            old = keys[name][at].copy()
            keys[name][at] = 0
            width = len(old) - abs(shift)
            if width > 0:
                keys[name][at][max(0, -shift):max(0, -shift) + width] = old[max(0, shift):max(0, shift) + width]
        keys["base"][at] = base[at]


def _river(a: dict[str, Any] | None, b: dict[str, Any] | None) -> dict[str, Any] | None:
    if a is None or b is None:
        return a if b is None else b
    if not (a["n"] and b["n"]):
        return a if a["n"] else b
    n, m = a["n"], b["n"]
    one, two = ({name: np.array(s[name]) for name in ("mean", "m2", "low", "high")} for s in (a, b))
    mean = (one["mean"] * n + two["mean"] * m) / (n + m)
    m2 = one["m2"] + two["m2"] + (one["mean"] - two["mean"]) ** 2 * (n * m / (n + m))
    scale = np.where(np.sqrt(m2 / (n + m)) > 1e-9, np.sqrt(m2 / (n + m)), 1.0)
    groups = {}
    for group in sorted({*a["groups"], *b["groups"]}, key=int):
        raw = []
        for state in (a, b):
            if group in state["groups"]:
                trained, intercept, weights, squares = state["groups"][group]
                spread = np.sqrt(np.array(state["m2"]) / state["n"])
                slope = np.array(weights) / np.where(spread > 1e-9, spread, 1.0)
                raw.append((trained, intercept - float(slope @ np.array(state["mean"])), slope, np.array(squares)))
        total = sum(part[0] for part in raw)
        share = [part[0] / total if total else 1 / len(raw) for part in raw]
        slope = np.sum([k * part[2] for k, part in zip(share, raw, strict=True)], axis=0)
        level = sum(k * part[1] for k, part in zip(share, raw, strict=True))
        groups[group] = [total, float(level + slope @ mean), (slope * scale).tolist(), np.sum([part[3] for part in raw], axis=0).tolist()]
    return {"n": n + m, "learned": a["learned"] + b["learned"], "mean": mean.tolist(), "m2": m2.tolist(),
            "low": np.minimum(one["low"], two["low"]).tolist(), "high": np.maximum(one["high"], two["high"]).tolist(),
            "groups": groups}


def _stack(a: dict[str, Any] | None, b: dict[str, Any] | None) -> dict[str, Any] | None:
    """Each weight by the examples that had its term, so that who never saw a feature has no say in its weight."""
    if a is None or b is None:
        return a if b is None else b
    if not (a["examples"] and b["examples"]):
        return a if a["examples"] else b
    n, m = np.array(a["seen"]), np.array(b["seen"])
    mixed, total = _average(np.array(a["weights"]), n, np.array(b["weights"]), m)
    weights = np.where(total > 0, mixed, a["weights"])      # where nobody saw one, both are as they began
    return {"weights": weights.tolist(), "squares": np.add(a["squares"], b["squares"]).tolist(), "seen": total.tolist(),
            "examples": a["examples"] + b["examples"]}
