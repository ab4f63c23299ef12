"""What a cache has learned, as one value that outlives its process: gathered, checked, installed.

`Knowledge` is the only form in which learned state travels. It comes from a live cache (`gather`) or from a
document of plain values (`read`, which checks all of it before any of it is believed), and goes into a live cache
(`install`) or a document (`document`). Namespaces and features travel under their labels and names, for their
numbers differ from process to process. This file knows neither files nor how two of these are merged.

Counts in a `Knowledge` may exceed what the core remembers (a merge adds them up); `install` cuts them down.
"""
from __future__ import annotations

import base64
import logging
import math
import sys
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from adaptcache import _core
from adaptcache.learn import changes
from adaptcache.learn.changes import Freshness
from adaptcache.learn.packing import (
    ARRAYS,
    BINS,
    COUNTS,
    DTYPES,
    LAYOUT,
    MOST,
    STATICS,
    Array,
    a_number,
    as_bytes,
    checked,
    clipped,
    floats,
    pack,
    require,
    unpack,
)
from adaptcache.learn.terms import SPACE, WEIGHTS

if TYPE_CHECKING:
    from adaptcache.learn.trainer import Trainer

_log = logging.getLogger("adaptcache")

SAME_EVERYWHERE = "the same in every process"       # `Knowledge.hashing` where keys hash alike everywhere
MIXED = "of several processes"                      # where they were, and nothing is known of keys


@dataclass
class Namespace:
    """What is known of one namespace; `code` is (share of early requests, how many counted), `prior` of change rates."""

    cells: Array | None
    hedges: Array | None
    labels: float
    code: tuple[float, float]
    prior: Array | None = None


@dataclass
class Knowledge:
    """Everything learned. `keys["namespace"]` is 1 + the position of a label in `namespaces`, 0 for none."""

    config: dict[str, Any]
    numbers: dict[str, float]
    arrays: dict[str, Array]
    namespaces: dict[Hashable, Namespace] = field(default_factory=dict)
    features: list[str] = field(default_factory=list)
    keys: Array = field(default_factory=lambda: np.empty(0, DTYPES["key"]))
    hashing: str | None = None      # whose hashes `keys` and `fresh.keys` hold; None: there are none
    river: dict[str, Any] | None = None
    tree: dict[str, Any] | None = None      # nodes, low, high, learned: labels that its making took
    stack: dict[str, Any] | None = None     # river's too; its side contexts are among the arrays
    fresh: Freshness | None = None          # None: validities were not learned

    @property
    def empty(self) -> bool:
        """Nothing was ever learned."""
        return self.numbers["waits"] == 0 and (self.fresh is None or self.fresh.numbers["outcomes"] == 0)

    # -- out of a live cache, and into one

    def install(self, cache: _core.Store, trainer: Trainer) -> None:
        """Make it what a cache knows. Everything was checked before; nothing here refuses."""
        brain = trainer.brain
        memory = brain.memory()
        with trainer.lock:
            numbers = cache._adopt(list(self.namespaces), self.features)
            names = cache._names()[1]
            here = arranged(self, sorted(names, key=lambda name: names[name]))
            arrays = {name: clipped(ARRAYS[name][0], array, memory) for name, array in here.arrays.items()}
            if self.numbers:
                brain.put_numbers({
                    **{name: float(value) for name, value in self.numbers.items()},
                    "anchor": int(self.numbers["anchor"]), "waits": int(self.numbers["waits"]),
                    "log_n": min(self.numbers["log_n"], memory["mean_log"]),
                    "code_n": min(self.numbers["code_n"], memory["code_mean"]),
                })
            brain.put_arrays({name: as_bytes(array) for name, array in arrays.items()})
            for number, known in zip(numbers, self.namespaces.values(), strict=True):
                if number:
                    mean, n = known.code
                    brain.put_namespace(
                        number, None if known.cells is None else as_bytes(clipped("cell", known.cells, memory)),
                        None if known.hedges is None else as_bytes(clipped("hedge", known.hedges, memory)),
                        known.labels, mean, min(n, memory["code"]))
            known_hashes = self.hashing in (SAME_EVERYWHERE, fingerprint())
            if known_hashes:
                keys = clipped("key", self.keys, memory)
                keys["namespace"] = np.array([0, *numbers], np.uint32)[keys["namespace"]]
                brain.put_keys(as_bytes(keys), cache._moment())
                trainer.alike = self.hashing == SAME_EVERYWHERE
            if self.fresh is not None:
                priors = {number: known.prior for number, known in zip(numbers, self.namespaces.values(), strict=True)
                          if number and known.prior is not None}
                cache._fresh_restore(self.fresh.parts(priors, numbers if known_hashes else None, memory))
            trainer.restore(here.river, here.tree, here.stack)

    def fitted(self, config: dict[str, Any]) -> Knowledge:
        """As much of it as holds for a cache of this configuration; ValueError where experts mean other things.

        What hazard cells know is a matter of time, and holds at every price, and so do rates of change. What an expert
        lost, the place of the fixed TTLs, the codes of categories, river's models with the stack's side contexts, and
        counts that fade by break-even times were learned at one price, and are left out at another one.
        """
        mine, theirs = self.config, config
        if mine["experts"] != theirs["experts"] or mine["models"] != theirs["models"]:
            raise ValueError(f"learned with other predictors than this cache has: {', '.join(mine['models']) or 'none'} "
                             f"of the user's and experts {_said(mine['experts'])}, here "
                             f"{', '.join(theirs['models']) or 'none'} and {_said(theirs['experts'])}")
        if mine["price"] == theirs["price"]:
            return replace(self, config=config)
        _log.warning("the state was learned at a memory price of %s, this cache has %s: hazards are taken over, "
                     "weights and models are learned anew", mine["price"], theirs["price"])
        fresh = {name for name, (kind, _) in ARRAYS.items() if kind in ("hedge", "code", "side")} | {"leaves"}
        keys = self.keys.copy()
        keys["decayed"] = 0
        return replace(
            self, config=config, arrays={name: array for name, array in self.arrays.items() if name not in fresh},
            namespaces={label: Namespace(known.cells, None, 0.0, (0.0, 0.0), known.prior)
                        for label, known in self.namespaces.items()},
            numbers={}, features=[], keys=keys, river=None, tree=None, stack=None)

    # -- into a document, and out of one

    def document(self) -> dict[str, Any]:
        """Plain values, fit for JSON."""
        tree = None if self.tree is None else {**self.tree, "nodes": pack(self.tree["nodes"])}
        return {
            "layout": LAYOUT, "config": self.config, "numbers": self.numbers,
            "arrays": {name: pack(array) for name, array in self.arrays.items()},
            "namespaces": [
                [labelled(label), None if known.cells is None else pack(known.cells),
                 None if known.hedges is None else pack(known.hedges), known.labels, list(known.code),
                 None if known.prior is None else pack(known.prior)]
                for label, known in self.namespaces.items()],
            "features": self.features, "keys": pack(self.keys), "hashing": self.hashing,
            "river": self.river, "tree": tree, "stack": self.stack,
            "fresh": None if self.fresh is None else self.fresh.document(),
        }


def gather(cache: _core.Store, trainer: Trainer, config: dict[str, Any], held: Iterable[Any] = ()) -> Knowledge:
    """What a cache knows. `held`: keys of it, from which it is told whether their hashes mean anything elsewhere."""
    brain, alike = trainer.brain, everywhere(held, trainer.alike)
    with trainer.lock:
        labels, names = cache._names()
        arrays = {name: np.frombuffer(data, DTYPES[ARRAYS[name][0]]).copy() for name, data in brain.arrays().items()}
        sides = arrays["sides"].reshape(_core.SIDE_ROWS, -1)
        freshness = cache._fresh_state()
        namespaces: dict[Hashable, Namespace] = {}
        places = np.zeros(len(labels) + 2, np.uint32)
        for label, number in labels.items():
            if not plain(label):
                sides[brain.side_rows(number)] = 0
                continue            # an object's label has no meaning in another process
            cells, hedges, seen, mean, n = brain.namespace(number)
            namespaces[label] = Namespace(None if cells is None else np.frombuffer(cells, DTYPES["cell"]).copy(),
                                          None if hedges is None else np.frombuffer(hedges, DTYPES["hedge"]).copy(),
                                          seen, (mean, n), None if freshness is None else changes.group(freshness, number))
            places[number] = len(namespaces)
        keys = np.frombuffer(brain.keys(cache._moment()), DTYPES["key"]).copy()
        keys["namespace"] = places[np.minimum(keys["namespace"], len(places) - 1)]
        fresh = None if freshness is None else changes.gather(freshness, places)
        tree = brain.tree()
        return Knowledge(
            config=config, numbers=brain.numbers(), arrays=arrays, namespaces=namespaces,
            features=sorted(names, key=lambda name: names[name]), keys=keys,
            hashing=(SAME_EVERYWHERE if alike else fingerprint()) if len(keys) or (fresh is not None and len(fresh.keys)) else None,
            river=trainer.state(), stack=trainer.stack_state(), fresh=fresh,
            tree=None if tree is None else {"nodes": np.frombuffer(tree[0], DTYPES["node"]).copy(), "low": tree[1],
                                            "high": tree[2], "learned": trainer.learned})


def read(document: Any) -> Knowledge:
    """A document that was checked from end to end; ValueError, TypeError or KeyError say what is wrong with it."""
    theirs = document["layout"]
    for name, mine in LAYOUT.items():
        if theirs.get(name) != mine:
            raise ValueError(f"written by another version or on another kind of machine ({name} differs); learn anew")
    config = document["config"]
    if set(config) != {"experts", "models", "price", "window"}:
        raise ValueError("config: not what this version writes")
    require(isinstance(config["experts"], list) and len(config["experts"]) == _core.EXPERT_COUNT
             and all(isinstance(bit, bool) for bit in config["experts"]), "config: experts")
    require(isinstance(config["models"], list) and all(isinstance(name, str) for name in config["models"]), "config: models")
    for name in ("price", "window"):
        if config[name] is not None:
            a_number(config[name], 0, math.inf, f"config: {name}")
    given = document["numbers"]
    ranges = {"anchor": (-1, BINS - STATICS - 1), "mean_log": (-1e3, 1e3), "log_n": (0, MOST), "mean_cost": (0, 1e300),
              "code_mean": (0, 1), "code_n": (0, MOST), "waits": (0, MOST)}
    require(set(given) == set(ranges), "numbers: not what this version writes")
    numbers = {name: a_number(given[name], low, high, name) for name, (low, high) in ranges.items()}
    require(numbers["anchor"] == int(numbers["anchor"]), "anchor: not a whole number")
    require(set(document["arrays"]) == set(ARRAYS), "arrays: not what this version writes")
    arrays = {name: checked(kind, unpack(document["arrays"][name], kind, n), name) for name, (kind, n) in ARRAYS.items()}
    namespaces: dict[Hashable, Namespace] = {}
    for label, cells, hedges, labels, (mean, n), prior in document["namespaces"]:
        said = unlabelled(label)
        require(said not in namespaces, f"namespace {said!r} comes twice")
        namespaces[said] = Namespace(
            None if cells is None else checked("cell", unpack(cells, "cell", BINS), f"namespace {said!r}"),
            None if hedges is None else checked("hedge", unpack(hedges, "hedge", COUNTS), f"namespace {said!r}"),
            a_number(labels, 0, MOST, "labels"), (a_number(mean, 0, 1, "code"), a_number(n, 0, MOST, "code")),
            None if prior is None else changes.rated(prior, f"namespace {said!r}"))
    absent = ~np.array(config["experts"])
    for one in (*(arrays[name] for name, (kind, _) in ARRAYS.items() if kind == "hedge"),
                *(known.hedges for known in namespaces.values() if known.hedges is not None)):
        require(not one["weight"][:, absent].any(), "weights: of experts that take no part")
    features = document["features"]
    require(isinstance(features, list) and len(features) <= _core.APP_FEATURES and len(set(features)) == len(features)
             and all(isinstance(name, str) for name in features), "features: not a list of names")
    keys = checked("key", unpack(document["keys"], "key", None), "keys")
    require(len(set(keys["hash"].tolist())) == len(keys), "keys: one comes twice")
    require(bool((keys["namespace"] <= len(namespaces)).all()), "keys: of no namespace")
    hashing = document["hashing"]
    require(hashing is None or isinstance(hashing, str), "hashing: not a name")
    return Knowledge(config, numbers, arrays, namespaces, features, keys, hashing, _river(document["river"]),
                     _tree(document["tree"]), _stack(document["stack"]), changes.read(document["fresh"], len(namespaces)))


def _river(given: Any) -> dict[str, Any] | None:
    """River's numbers (see `river_models`), or None."""
    if given is None:
        return None
    width, top = _core.FEATURE_COUNT, 1e30
    require(set(given) == {"n", "mean", "m2", "low", "high", "groups", "learned"}, "river: not what this version writes")
    out: dict[str, Any] = {"n": int(a_number(given["n"], 0, MOST, "river: n")),
                           "learned": int(a_number(given["learned"], 0, MOST, "river: learned"))}
    for name in ("mean", "m2", "low", "high"):
        # Before the first row the range is empty, and JSON has no infinity.
        out[name] = floats(given[name], width, 0 if name == "m2" else -3.5e38, 1e80 if name == "m2" else 3.5e38, f"river: {name}")
    out["groups"] = {}
    for number, (trained, intercept, weights, squares) in given["groups"].items():
        group = int(number)
        require(0 <= group < _core.GROUP_COUNT, "river: groups")
        out["groups"][str(group)] = [
            int(a_number(trained, 0, MOST, "river: trained")), a_number(intercept, -top, top, "river: intercept"),
            floats(weights, width, -top, top, "river: weights"), floats(squares, width, 0, top, "river: squares")]
    return out


def _tree(given: Any) -> dict[str, Any] | None:
    if given is None:
        return None
    require(set(given) == {"nodes", "low", "high", "learned"}, "tree: not what this version writes")
    return {"nodes": checked("node", unpack(given["nodes"], "node", None), "tree"),
            "low": floats(given["low"], _core.FEATURE_COUNT, -3.5e38, 3.5e38, "tree: low"),
            "high": floats(given["high"], _core.FEATURE_COUNT, -3.5e38, 3.5e38, "tree: high"),
            "learned": int(a_number(given["learned"], 0, MOST, "tree: learned"))}


def _stack(given: Any) -> dict[str, Any] | None:
    """The stack's regression, or None."""
    if given is None:
        return None
    require(set(given) == {"weights", "squares", "seen", "examples"}, "stack: not what this version writes")
    return {"weights": floats(given["weights"], WEIGHTS, -1e30, 1e30, "stack: weights"),
            "squares": floats(given["squares"], WEIGHTS, 0, 1e30, "stack: squares"),
            "seen": floats(given["seen"], WEIGHTS, 0, MOST, "stack: seen"),
            "examples": int(a_number(given["examples"], 0, MOST, "stack: examples"))}


def arranged(state: Knowledge, features: list[str]) -> Knowledge:
    """The state with the columns of its features in this order; columns of no name keep what places are left."""
    if state.features == features[:len(state.features)]:
        return state
    order = [state.features.index(name) if name in state.features else -1 for name in features]
    order += [-1] * (_core.APP_FEATURES - len(order))
    spare = iter([at for at in range(_core.APP_FEATURES) if at not in order])
    order = [next(spare) if at < 0 else at for at in order]
    wide = order + list(range(_core.APP_FEATURES, _core.FEATURE_COUNT))
    arrays, river, tree = dict(state.arrays), state.river, state.tree
    if "codes" in arrays:
        arrays["codes"] = arrays["codes"].reshape(_core.APP_FEATURES, -1)[order].reshape(-1)
    if river is not None:
        river = {**river, **{name: [river[name][at] for at in wide] for name in ("mean", "m2", "low", "high")},
                 "groups": {group: [trained, intercept, [weights[at] for at in wide], [squares[at] for at in wide]]
                            for group, (trained, intercept, weights, squares) in river["groups"].items()}}
    if tree is not None:
        nodes = tree["nodes"].copy()
        inner = nodes["feature"] >= 0
        nodes["feature"][inner] = np.argsort(wide)[nodes["feature"][inner]]
        tree = {**tree, "nodes": nodes, "low": [tree["low"][at] for at in wide], "high": [tree["high"][at] for at in wide]}
    stack = state.stack
    if stack is not None:
        first = _core.CHAIN_TERM_COUNT
        terms = [*range(first), *(first + at for at in order), *range(first + _core.APP_FEATURES, SPACE)]
        stack = {**stack, **{name: np.array(stack[name]).reshape(-1, SPACE)[:, terms].reshape(-1).tolist()
                             for name in ("weights", "squares", "seen")}}
    return replace(state, features=list(features), arrays=arrays, river=river, tree=tree, stack=stack)


def _said(experts: list[bool]) -> str:
    return "".join("1" if bit else "0" for bit in experts)


# -- labels and hashes

def plain(label: Any) -> bool:
    """Is a namespace's label a value that means the same in every process?"""
    if type(label) is tuple:
        return all(plain(part) for part in label)
    return type(label) in (str, bytes, int, bool) or (type(label) is float and math.isfinite(label))


def labelled(label: Any) -> Any:
    """A plain label as a value fit for JSON."""
    if isinstance(label, tuple):
        return [labelled(part) for part in label]
    if isinstance(label, bytes):
        return {"bytes": base64.b64encode(label).decode()}
    if isinstance(label, (int, float)):
        # Equal numbers are one label, whatever their type.
        return {"number": str(int(label)) if label == int(label) else repr(label)}
    return label


def unlabelled(given: Any) -> Hashable:
    """What `labelled` was given; ValueError when it cannot have been."""
    if isinstance(given, str):
        return given
    if isinstance(given, list):
        return tuple(unlabelled(part) for part in given)
    if isinstance(given, dict) and set(given) == {"bytes"}:
        return base64.b64decode(given["bytes"], validate=True)
    if isinstance(given, dict) and set(given) == {"number"} and isinstance(given["number"], str):
        text = given["number"]
        if text.lstrip("-").isdigit():
            return int(text)
        value = float(text)
        require(math.isfinite(value), "namespace: not finite")
        return value
    raise ValueError(f"namespace: {given!r:.60} is no label")


def fingerprint() -> str:
    """Names this process's way of hashing: equal where str and bytes hash alike (a fixed PYTHONHASHSEED)."""
    info = sys.hash_info
    return f"{info.algorithm} {info.width} {hash('adaptcache') & 0xFFFFFFFF:08x}"


def everywhere(keys: Iterable[Any], none: bool = False) -> bool:
    """Do these keys hash alike in every process? `none`: the answer where there are no keys to tell it from."""
    for key in keys:
        if not _hashes_alike(key):
            return False
        none = True
    return none


def _hashes_alike(key: Any) -> bool:
    if isinstance(key, tuple):
        return hash(key) == hash(tuple(key)) and all(_hashes_alike(part) for part in key)
    return type(key) in (int, bool, float, complex) or (key is None and sys.version_info >= (3, 12))
