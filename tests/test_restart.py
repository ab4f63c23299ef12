"""A restart in the middle: who saved and loaded goes on as who never stopped; river's stack and beliefs about change included."""
from __future__ import annotations

import hashlib
import json
import math
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import adaptcache
from adaptcache import Cache, Learned, StateError, _core
from adaptcache.learn import experts, migrating
from adaptcache.learn.knowledge import Knowledge, fingerprint
from adaptcache.state import MAGIC, read, write

SPEC = Learned(memory_price=0.01, learner="manual", seed=3, premature=1.0)


class Clock:
    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def learner(clock: Clock, spec: Learned = SPEC, loaded: Path | None = None, told: Any = None) -> Cache:
    if loaded is None:
        return Cache(None, expiry=spec, timer=clock, on_removal=told)
    return Cache.load(loaded, None, expiry=spec, timer=clock, on_removal=told)


def requests(count: int, seed: int, start: float = 0.0):
    """(time, key, namespace, features): what comes back soon is told by the feature `kind`; passing keys never return."""
    dice, now = random.Random(seed), start
    for _ in range(count):
        now += dice.expovariate(1.0)
        kind = dice.choice(("often", "seldom"))
        key = dice.randrange(12) if kind == "often" else 100 + dice.randrange(60)
        yield now, key, f"tenant {key % 2}", {"kind": kind, "level": float(1 << key % 4)}


def serve(cache: Cache, rows: Any, learn: int = 128) -> None:
    for at, (now, key, namespace, features) in enumerate(rows):
        cache.timer.now = now
        value = (key, int(now / (30 + key)))
        cache.get_or_load(key, lambda _, value=value: value, cost=1.0, namespace=namespace, features=features)
        if at % learn == 0:
            cache.learn()


def rest(cache: Cache) -> None:
    """Until every wait is over, and all that was seen is learned and published."""
    cache.timer.now += 500
    cache.expire()
    cache.learn()
    cache._trainer.publish()
    cache._trainer.publish_stack()


def knows(cache: Cache) -> Knowledge:
    learned = cache._knowledge()
    assert learned is not None
    return learned


def taught(told: Any = None) -> Cache:
    cache = learner(Clock(), told=told)
    serve(cache, requests(7000, seed=5))
    rest(cache)
    return cache


@pytest.fixture(scope="module")
def rested(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Cache]:
    """A file, and the cache that wrote it."""
    cache = taught()
    path = tmp_path_factory.mktemp("state") / "state"
    cache.save(path)
    return path, cache


# -- going on ------------------------------------------------------------------------------------------------

def test_who_loads_decides_the_next_waits_as_who_went_on(tmp_path: Path) -> None:
    """Every entry leaves at the same nanosecond, also after both have learned and published anew."""
    left: list[list[Any]] = [[], []]
    went_on = taught(lambda key, value, cause, at: left[0].append((key, cause, at)))
    assert went_on._trainer.stacked > 20_000 and went_on.brain.tree() is not None
    went_on.save(tmp_path / "state")
    loaded = learner(Clock(went_on.timer.now), loaded=tmp_path / "state", told=lambda key, value, cause, at: left[1].append((key, cause, at)))
    del left[0][:]
    rows = list(requests(2500, seed=6, start=went_on.timer.now))
    published = went_on._trainer.stack_published
    for cache in (went_on, loaded):
        serve(cache, rows)
    assert len(left[0]) > 150 and left[1] == left[0]
    assert loaded._trainer.stack_published == went_on._trainer.stack_published > published


def test_the_stacks_weights_are_heard_at_once(rested: tuple[Path, Cache]) -> None:
    """Its first wait is judged by the weights that were learned; without them the stack would be the hazard chain."""
    path, cache = rested
    stack = _core.SLOT_HAZARD + experts.HAZARDS.index("river:stack")
    said = []
    for known in (read(path)[0], replace(knows(cache), stack=None)):
        known.arrays["everywhere"]["weight"] = known.arrays["counts"]["weight"] = 0     # all of the weight to the stack
        for name in ("everywhere", "counts"):
            known.arrays[name]["weight"][:, stack] = 1
        for one in known.namespaces.values():
            one.hedges = None
        again = Cache(None, expiry=SPEC, timer=Clock(cache.timer.now))
        known.install(again, again._trainer)
        assert again._trainer.stacked == (cache._trainer.stacked if known.stack else 0)
        serve(again, requests(1, seed=6, start=cache.timer.now))
        (key,) = again
        assert again.explain(key).expects == "river:stack"
        said.append(np.array(again.explain(key).distribution))
    assert np.abs(said[0][:, 1] - said[1][:, 1]).max() > 0.02


def test_river_goes_on_learning_the_stack_as_if_nothing_had_been(rested) -> None:
    path, went_on = rested
    stacks = [went_on._trainer.stack, Cache.load(path, None, expiry=SPEC, timer=Clock())._trainer.stack]
    assert stacks[1].state() == stacks[0].state()
    dice = np.random.default_rng(1)
    terms = dice.normal(0, 1, (500, _core.TERM_COUNT)).astype(np.float32)
    info = np.stack([dice.integers(0, top, 500) for top in (_core.BUCKET_COUNT, _core.STAGE_COUNT, 2)], axis=1).astype(np.uint8)
    frozen = []
    for stack in stacks:
        copy = type(stack)()
        copy.restore(stack.state())
        copy.learn(terms, info)
        frozen.append(copy.freeze()[0])
    np.testing.assert_array_equal(frozen[0], frozen[1])
    assert np.abs(frozen[0] - stacks[0].freeze()[0]).max() > 0.01


def side_cells(cache: Cache) -> Any:
    return knows(cache).arrays["sides"].reshape(_core.SIDE_ROWS, -1)


def test_side_contexts_are_found_by_names_and_labels_not_by_numbers() -> None:
    """Two processes that met features and namespaces in another order write the same cells."""
    rows = list(requests(600, seed=2))
    cells = []
    for turned in (False, True):
        cache = Cache(None, expiry=SPEC, timer=Clock())
        labels, names = ["tenant 0", "tenant 1", ("t", 1), 7, b"b"], ["kind", "level"]
        for label in reversed(labels) if turned else labels:
            cache.set(("first", label), 0, namespace=label, features={name: 1.0 for name in (reversed(names) if turned else names)})
        serve(cache, [(now, key, {0: ("t", 1), 1: 7.0, 2: b"b"}.get(key, namespace), features) for now, key, namespace, features in rows])
        cells.append(side_cells(cache))
    assert (cells[0]["n"] > 0).any(axis=1).sum() > 30
    # What keys have been through is the same, so all rows are.
    np.testing.assert_array_equal(cells[0]["n"] > 0, cells[1]["n"] > 0)
    np.testing.assert_allclose(cells[0]["p"], cells[1]["p"], atol=1e-6)


def test_side_contexts_of_an_object_as_label_are_left_out() -> None:
    cache = Cache(None, expiry=SPEC, timer=Clock())
    label = object()
    serve(cache, [(now, key, label, {}) for now, key, _, _ in requests(300, seed=2)])
    rows = cache.brain.side_rows(cache._names()[0][label])
    inside = np.frombuffer(cache.brain.arrays()["sides"], side_cells(cache).dtype).reshape(_core.SIDE_ROWS, -1)
    assert inside["n"][rows].sum() > 50
    assert side_cells(cache)["n"][rows].sum() == 0


LABELS = """
import sys
from adaptcache import Cache, Learned
cache = Cache(9, expiry=Learned(memory_price=0.01, learner="manual", seed=1), timer=lambda: 0.0)
labels = ["s", b"b", 7, 2.5, ("t", (1, b"x"))]
for label in labels if sys.argv[1] == "1" else labels[::-1]:
    cache.set("k", 1, namespace=label, features={"kind": "a"})
numbers = cache._names()[0]
print([cache.brain.side_rows(numbers[label]) for label in labels])
"""


def test_rows_of_a_label_are_the_same_in_every_process() -> None:
    root = str(Path(adaptcache.__file__).resolve().parent.parent)
    said = {subprocess.run([sys.executable, "-c", LABELS, seed], check=True, capture_output=True, text=True,
                           env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": root}).stdout for seed in ("1", "2")}
    assert len(said) == 1 and len({tuple(rows) for rows in json.loads(said.pop())}) == 5


def test_at_another_price_the_stack_is_learned_anew_and_rates_of_change_are_kept(tmp_path: Path) -> None:
    cache = learner(Clock(), replace(SPEC, stale=0.05))
    serve(cache, requests(1500, seed=5))
    cache.save(tmp_path / "state")
    other = learner(Clock(), replace(SPEC, stale=0.05, memory_price=0.05), tmp_path / "state")
    fresh = knows(Cache(None, expiry=SPEC, timer=Clock()))
    there, here = knows(other), knows(cache)
    assert there.stack == fresh.stack and not there.arrays["sides"]["n"].any() and not there.keys["decayed"].any()
    assert here.keys["decayed"].any() and here.arrays["sides"]["n"].any()
    assert there.fresh.document() == here.fresh.document()
    assert there.namespaces["tenant 1"].prior == here.namespaces["tenant 1"].prior


# -- freshness -----------------------------------------------------------------------------------------------

class Source:
    """Values of many keys that change at their own rates, read by popularity: what a cache may be asked, row by row."""

    def __init__(self, seed: int, keys: int = 200, pace: float = -6.0) -> None:
        self.dice = random.Random(seed)
        self.rates = [self.dice.lognormvariate(pace, 1.5) for _ in range(keys)]
        self.version, self.changed, self.now = [0] * keys, [0.0] * keys, 0.0

    def serve(self, caches: list[Cache], reads: int) -> list[tuple[int, int]]:
        """The same reads to each cache: (loads, stale reads) of each."""
        loads, stale = [0] * len(caches), [0] * len(caches)
        for _ in range(reads):
            self.now += self.dice.expovariate(20)
            key = min(int(self.dice.paretovariate(0.6)) - 1, len(self.rates) - 1)
            if self.dice.random() < -math.expm1(-self.rates[key] * (self.now - self.changed[key])):
                self.version[key] += 1
            self.changed[key] = self.now
            now = self.version[key]
            for at, cache in enumerate(caches):
                def load(_key: int, at: int = at, now: int = now) -> int:
                    loads[at] += 1
                    return now
                cache.timer.now = self.now
                stale[at] += cache.get_or_load(key, load, namespace=f"tenant {key % 3}") != now
                cache.refresh()
        return list(zip(loads, stale, strict=True))


WATCH = Learned(stale=0.05, memory_price=0, learner="manual", seed=1, predictors=("table",))


def restarted(path: Path, now: float, spec: Learned = WATCH) -> Cache:
    return Cache.load(path, None, expiry=spec, timer=Clock(now))


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Cache, Source]:
    """A file, the cache that wrote it, and the source that it served."""
    source, cache = Source(3), Cache(None, expiry=WATCH, timer=Clock())
    source.serve([cache], 12_000)
    path = tmp_path_factory.mktemp("state") / "state"
    cache.save(path)
    return path, cache, source


def test_beliefs_about_change_come_back_whole(watched) -> None:
    path, cache, source = watched
    again = restarted(path, source.now)
    mine, theirs = knows(cache), knows(again)
    assert theirs.document() == mine.document()
    assert len(mine.fresh.keys) > 100 and mine.fresh.numbers["outcomes"] > 500 and mine.fresh.priors["n"][0] > 100
    assert all(known.prior["n"][0] > 30 for known in mine.namespaces.values()) and len(mine.namespaces) == 3
    again._check()


def test_who_loads_believes_a_value_for_as_long_as_who_went_on(tmp_path: Path) -> None:
    """The same key, loaded at the same moment. What went on has a budget's credit too, and is the more lenient by it;
    a second restart, between which nothing was read, changes no bit."""
    source, cache = Source(4), Cache(None, expiry=WATCH, timer=Clock())
    source.serve([cache], 8000)
    cache.save(tmp_path / "state")
    again = restarted(tmp_path / "state", source.now)
    again.save(tmp_path / "twice")
    twice, cold = restarted(tmp_path / "twice", source.now), Cache(None, expiry=WATCH, timer=Clock(source.now))
    lasting = []
    for key in (*range(40), "never seen"):
        for one in (cache, again, twice, cold):
            one.timer.now = source.now
            one.pop(key, None)
            one.get_or_load(key, lambda _: 1, namespace="tenant 1")
        lasting.append([one.expires_in(key) for one in (cache, again, twice, cold)])
    went_on, loaded, second, first = np.array(lasting).T
    np.testing.assert_array_equal(loaded, second)
    assert (loaded <= went_on).all() and np.median(loaded / went_on) > 0.6 and first.max() < 1e-6
    assert loaded.max() > 5 * loaded.min() > 0      # keys differ, and the stranger has its namespace's rate


def test_a_restart_in_the_middle_of_changes_does_not_start_cold(tmp_path: Path) -> None:
    """Fewer loads than a cold start, and within the budget from the first read on."""
    cold = warm = on = stale = 0
    for seed in (3, 4, 5):
        source, cache = Source(seed), Cache(None, expiry=WATCH, timer=Clock())
        source.serve([cache], 8000)
        cache.save(tmp_path / "state")
        caches = [cache, restarted(tmp_path / "state", source.now), Cache(None, expiry=WATCH, timer=Clock(source.now))]
        (went, _), (loaded, wrong), (first, _) = source.serve(caches, 4000)
        assert loaded < 0.9 * first
        on, warm, cold, stale = on + went, warm + loaded, cold + first, stale + wrong
    assert warm < 0.8 * cold and warm < 1.5 * on
    assert stale < 1.1 * WATCH.stale * 3 * 4000


def books(cache: Cache) -> dict[str, float]:
    return {name: cache._freshness()[name] for name in ("reads", "believed", "audits", "audited", "refreshes", "stale")}


def test_what_was_spent_of_a_budget_stays_in_its_process(watched) -> None:
    path, cache, source = watched
    assert all(books(cache).values())
    again = restarted(path, source.now)
    assert not any(books(again).values()) and again.stats().refreshes == 0
    elsewhere = Source(9)
    elsewhere.now = source.now
    elsewhere.serve([again], 600)
    before, price = books(again), again._freshness()["theta"]
    again.merge_state(path)
    after = books(again)
    assert again._freshness()["theta"] == price         # who has books has a price
    assert after.pop("believed") > 0 and before.pop("believed") > 0       # the correction of risks was pooled
    assert after == before


def test_a_restart_makes_no_stale_read_cheaper(tmp_path: Path) -> None:
    """The price in force is carried where the budget was overdrawn; what was saved up is not. When everything changes faster
    at that very moment, who loaded is slower to notice by one load a key, which says nothing of change, and not by more.
    Overdrawn is who spent more than is aimed at (0.96 of the budget)."""
    on = warm = 0
    for seed in (3, 4, 5):
        source, cache = Source(seed), Cache(None, expiry=WATCH, timer=Clock())
        source.serve([cache], 20_000)
        cache.save(tmp_path / "calm")
        again = restarted(tmp_path / "calm", source.now)
        saved_up = cache._freshness()
        assert saved_up["believed"] < 0.9 * WATCH.stale * saved_up["reads"]
        assert again._freshness()["theta"] > 1.1 * saved_up["theta"]
        source.rates = [rate * 500 for rate in source.rates]
        (_, went), (_, loaded) = source.serve([cache, again], 2000)
        on, warm = on + went, warm + loaded
        overdrawn = cache._freshness()
        assert overdrawn["believed"] > 0.96 * WATCH.stale * overdrawn["reads"]
        cache.save(tmp_path / "shaken")
        assert restarted(tmp_path / "shaken", source.now)._freshness()["theta"] == pytest.approx(overdrawn["theta"], rel=1e-12)
    assert warm < 1.25 * on


def test_audits_go_on_at_the_pace_of_before(watched) -> None:
    """Their pace follows from reloads, of which a cache that trusts its values from the start has none: that of before counts too,
    beside the audits that are due as long as little was told."""
    _, cache, source = watched
    calm = knows(cache)
    never = np.eye(1, calm.fresh.priors["share"].shape[1])[0]
    calm.fresh.priors["share"] = never          # nothing ever changes
    for known in calm.namespaces.values():
        known.prior["share"] = never
    calm.fresh.keys = calm.fresh.keys[:0]
    audits = []
    for pace in (calm.fresh.numbers["pace"], 0.0):
        calm.fresh.numbers["pace"] = pace
        again = Cache(None, expiry=WATCH, timer=Clock(source.now))
        calm.install(again, again._trainer)
        for n in range(20_000):
            again.timer.now = source.now + 1 + n / 50
            again.get_or_load(n % 50, lambda key: key, namespace="tenant 0")
            again.refresh()
        audits.append(books(again)["audits"])
    assert audits[0] > audits[1] > 10


def test_under_another_budget_rates_are_kept_and_the_price_is_found_anew(watched) -> None:
    path, cache, source = watched
    other = restarted(path, source.now, replace(WATCH, stale=0.02))
    cold = Cache(None, expiry=replace(WATCH, stale=0.02), timer=Clock())
    mine, theirs = knows(cache), knows(other)
    for name in ("priors", "risks", "keys"):
        np.testing.assert_array_equal(getattr(theirs.fresh, name), getattr(mine.fresh, name))
    for name in ("theta", "bias"):
        assert other._freshness()[name] == cold._freshness()[name] != cache._freshness()[name]


def test_a_cache_without_a_budget_takes_nothing_of_it_and_does_the_rest(watched) -> None:
    path, _, source = watched
    other = restarted(path, source.now, replace(WATCH, stale=None))
    assert other._freshness() == {} and knows(other).fresh is None
    other.merge_state(path)
    assert knows(other).fresh is None


def test_a_key_whose_namespace_is_an_object_keeps_its_own_evidence(tmp_path: Path) -> None:
    cache = Cache(None, expiry=WATCH, timer=Clock())
    label = object()
    for n in range(600):
        cache.timer.now = float(n)
        cache.get_or_load(n % 5, lambda key, n=n: n // 40, namespace=label if n % 5 else "t")
    cache.save(tmp_path / "state")
    known, _ = read(tmp_path / "state")
    assert set(known.namespaces) == {"t"} and sorted(known.fresh.keys["namespace"]) == [0, 0, 0, 0, 1]
    assert (known.fresh.keys["told"] > 1).all()


def test_records_never_push_out_those_that_are_there(watched) -> None:
    path, _, source = watched
    again = restarted(path, source.now, replace(WATCH, max_keys=20))
    assert again._freshness()["keys"] == 20
    again._check()
    other = Cache(None, expiry=replace(WATCH, max_keys=20), timer=Clock(source.now))
    own = range(1000, 1015)
    for key in own:
        other.get_or_load(key, lambda _: 1)
        other.get(key)
    other.clear()       # so that nothing holds on to their records
    other.merge_state(path)
    assert set(knows(other).fresh.keys["hash"]) >= set(own) and other._freshness()["keys"] == 20
    other._check()


def test_first_load_after_a_restart_says_nothing_of_change(watched) -> None:
    """Nobody knows for how long nobody looked, so that a value is another one teaches nothing."""
    path, _, source = watched
    again = restarted(path, source.now)
    outcomes = again._freshness()["outcomes"]
    for key in range(30):
        again.get_or_load(key, lambda _: "another")
    assert again._freshness()["outcomes"] == outcomes and again.stats().refreshes == 0


def test_entries_of_learned_validity_stay_behind(tmp_path: Path) -> None:
    """What may have changed while nobody looked is not served as if it were new; what the user vouched for is."""
    clock = Clock()
    cache = Cache(None, expiry=WATCH, timer=clock)
    cache.set("declared", 1, ttl=50)
    cache.set("for ever", 2, ttl=math.inf)
    clock.now = 10
    cache.set("learned", 3)
    cache.save(tmp_path / "state", entries=True)
    again = Cache.load(tmp_path / "state", None, entries=True, expiry=WATCH, timer=clock)
    assert dict(again) == {"declared": 1, "for ever": 2}
    assert again.expires_in("declared") == pytest.approx(40) and again.expires_in("for ever") == math.inf
    plain = Cache(None, timer=clock)
    plain["undeclared"] = 1
    plain.set("declared", 2, ttl=5)
    plain.save(tmp_path / "plain", entries=True)
    assert dict(Cache.load(tmp_path / "plain", None, entries=True, expiry=WATCH, timer=clock)) == {"declared": 2}
    assert dict(Cache.load(tmp_path / "plain", None, entries=True, timer=clock)) == {"undeclared": 1, "declared": 2}


# -- what is refused -----------------------------------------------------------------------------------------

def put(array: str, field: str, value: float, at: int = -1) -> Any:
    def change(known: Knowledge) -> None:
        holder = known.arrays if array == "sides" else {name: getattr(known.fresh, name) for name in ("priors", "risks", "keys")}
        holder[array][field][at] = value
    return change


def figure(part: str, name: str, value: Any) -> Any:
    def change(known: Knowledge) -> None:
        holder = known.stack if part == "stack" else known.fresh.numbers
        if isinstance(holder[name], list):
            holder[name][-1] = value
        else:
            holder[name] = value
    return change


def label_prior(known: Knowledge) -> None:
    known.namespaces["tenant 1"].prior["share"] = math.nan


def weight_of_nobody(known: Knowledge) -> None:
    weight = known.arrays["counts"]["weight"]
    weight[0], weight[0, _core.SLOT_USER] = 0, 1


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Cache]:
    """A file with a stack, side contexts and beliefs about change; and the cache that wrote it."""
    cache = learner(Clock(), replace(SPEC, stale=0.05))
    serve(cache, requests(1200, seed=5))
    cache.timer.now += 1
    path = tmp_path_factory.mktemp("state") / "state"
    cache.save(path)
    return path, cache


@pytest.mark.parametrize(("change", "says"), [
    (put("sides", "p", math.nan), "sides"), (put("sides", "p", 1.5), "sides"), (put("sides", "n", -1), "sides"),
    (put("priors", "share", math.nan, 0), "priors"), (put("priors", "share", 0.5, 0), "priors"), (put("priors", "n", -1), "priors"),
    (put("priors", "shaken", -1, 0), "priors"), (put("priors", "moved", math.inf, 0), "priors"),
    (put("priors", "unmoved", math.nan, 0), "priors"), (put("risks", "found", -1), "risks"),
    (put("risks", "feared", math.nan, 0), "risks"), (put("keys", "evidence", math.nan), "keys"), (put("keys", "evidence", 0.1), "keys"),
    (put("keys", "reads", -1), "keys"), (put("keys", "told", math.inf), "keys"), (put("keys", "seconds", math.nan), "keys"),
    (put("keys", "namespace", 9), "namespace"), (label_prior, "tenant 1"), (weight_of_nobody, "weights"),
    (figure("fresh", "outcomes", -1.0), "outcomes"), (figure("fresh", "found", 1e300), "found"), (figure("fresh", "feared", "1"), "feared"),
    (figure("fresh", "log_theta", 15.0), "log_theta"), (figure("fresh", "pace", -0.1), "pace"),
    (figure("stack", "weights", 1e31), "stack: weights"), (figure("stack", "squares", -1.0), "stack: squares"),
    (figure("stack", "seen", None), "stack: seen"), (figure("stack", "examples", True), "stack: examples"),
    (lambda known: known.stack["weights"].append(0.0), "stack: weights"), (lambda known: known.stack.pop("seen"), "stack"),
    (lambda known: setattr(known.fresh, "budget", 2.0), "budget"),
    (lambda known: setattr(known.fresh, "keys", np.repeat(known.fresh.keys[:1], 2)), "twice"),
    (lambda known: setattr(known.fresh, "risks", known.fresh.risks[:-1]), "risk"),
    (lambda known: setattr(known.fresh, "priors", known.fresh.priors[:1]), "prior"),
])
def test_every_number_is_looked_at_and_nothing_is_changed(both: tuple[Path, Cache], tmp_path: Path, change: Any, says: str) -> None:
    path, cache = both
    learned, _ = read(path)
    change(learned)
    write(tmp_path / "state", learned, None)
    before = knows(cache).document()
    for take in (lambda: Cache.load(tmp_path / "state", None, expiry=replace(SPEC, stale=0.05), timer=Clock()),
                 lambda: cache.merge_state(tmp_path / "state")):
        with pytest.raises(StateError, match=says):
            take()
    assert knows(cache).document() == before


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("where", [("stack", "weights"), ("fresh", "numbers")])
def test_what_json_does_not_know_is_refused(both: tuple[Path, Cache], tmp_path: Path, where: tuple[str, str], value: float) -> None:
    learned, _ = read(both[0])
    document = {"learned": learned.document(), "entries": None}
    inside = document["learned"][where[0]][where[1]]
    inside[0 if isinstance(inside, list) else "outcomes"] = value
    body = json.dumps(document).encode()
    (tmp_path / "state").write_bytes(MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    with pytest.raises(StateError, match=r"weights|outcomes"):
        Cache.load(tmp_path / "state", None, expiry=replace(SPEC, stale=0.05), timer=Clock())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from([1e308, -1e308, 10**400, "eJw="]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=6)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_other_values_in_the_parts_are_refused_or_sound(both: tuple[Path, Cache], tmp_path: Path, data: Any) -> None:
    path, cache = both
    document = json.loads(path.read_bytes()[len(MAGIC) + 65:])
    inside, name = document["learned"], data.draw(st.sampled_from(["stack", "fresh", "namespaces"]))
    while isinstance(inside[name], (dict, list)) and inside[name] and data.draw(st.integers(0, 3)):
        inside = inside[name]
        name = data.draw(st.sampled_from(sorted(inside) if isinstance(inside, dict) else range(len(inside))))
    inside[name] = data.draw(JSON)
    body = json.dumps(document).encode()
    (tmp_path / "state").write_bytes(MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    before = knows(cache).document()
    try:
        again = Cache.load(tmp_path / "state", None, expiry=replace(SPEC, stale=0.05), timer=Clock())
    except StateError:
        with pytest.raises(StateError):
            cache.merge_state(tmp_path / "state")
        assert knows(cache).document() == before
    else:
        serve(again, requests(60, seed=1))
        again._check()
        knows(again).document()


# -- the format before ---------------------------------------------------------------------------------------

OLD = Path(__file__).parent / "data" / "state-2"        # written by the release before, with `Learned(**OLD_SPEC)`
OLD_SPEC = {"memory_price": 0.01, "learner": "manual", "seed": 3, "stale": 0.05}


def test_a_file_of_format_2_loads_without_the_parts_that_it_lacks() -> None:
    document = json.loads(OLD.read_bytes()[len(MAGIC) + 65:])["learned"]
    assert OLD.read_bytes().startswith(b"adaptcache state 2\n") and "stack" not in document
    cache = Cache.load(OLD, None, expiry=Learned(**OLD_SPEC), timer=Clock())
    learned = knows(cache)
    again = learned.document()
    for name in ("config", "numbers", "features", "river"):
        assert again[name] == document[name]
    alike = document["hashing"] == fingerprint()        # where PYTHONHASHSEED is another one, its keys mean nothing here
    assert again["hashing"] == (fingerprint() if alike else None)
    for name in ("everyone", "habit", "habit2", "leaves", "codes"):
        assert again["arrays"][name] == document["arrays"][name]
    assert [row[:2] + row[3:5] for row in again["namespaces"]] == [row[:2] + row[3:5] for row in document["namespaces"]]
    assert cache.brain.tree() is not None and len(learned.keys) == (20 if alike else 0) == cache.brain.tracked
    assert not alike or learned.keys["n"].max() > 20
    assert sum(cache.stats().weights.values()) == pytest.approx(1) and max(cache.stats().weights.values()) < 0.999
    cold = Cache(None, expiry=Learned(**OLD_SPEC), timer=Clock())
    assert learned.stack == knows(cold).stack and not learned.arrays["sides"]["n"].any() and cache._trainer.stacked == 0
    assert cache._freshness() == cold._freshness() and not learned.keys["decayed"].any()
    serve(cache, requests(300, seed=1))
    cache._check()


def test_files_of_both_formats_are_merged(tmp_path: Path) -> None:
    cache = Cache.load(OLD, None, expiry=Learned(**OLD_SPEC), timer=Clock())
    serve(cache, requests(1500, seed=1))
    before = knows(cache)
    cache.save(tmp_path / "new")
    adaptcache.merge([OLD, tmp_path / "new"], tmp_path / "both")
    both, _ = read(tmp_path / "both")
    old, _ = read(OLD)
    assert both.stack == before.stack and both.stack["examples"] > 1000
    assert both.fresh.numbers == before.fresh.numbers and both.numbers["waits"] == before.numbers["waits"] + old.numbers["waits"]
    np.testing.assert_array_equal(both.arrays["sides"], before.arrays["sides"])


def test_entries_of_format_2_come_back_where_validities_are_not_learned() -> None:
    """That format did not say whose word a validity was."""
    plain = Cache.load(OLD, None, expiry=Learned(**OLD_SPEC | {"stale": None}), timer=Clock(), entries=True)
    assert len(plain) > 3
    assert dict(Cache.load(OLD, None, expiry=Learned(**OLD_SPEC), timer=Clock(), entries=True)) == {}


THREE = OLD.with_name("state-3")       # 4,000 reads of ints: 0 to 5 "quick", a change in 3 s; the others "slow", in 40 s or never


def test_rates_of_change_of_format_3_are_taken_over() -> None:
    """What was a Gamma distribution is now chances of classes of rates, and says about the same of each key."""
    spec = Learned(**OLD_SPEC | {"memory_price": 0}, predictors=("table",))
    cache, cold = Cache.load(THREE, None, expiry=spec, timer=Clock()), Cache(None, expiry=spec, timer=Clock())
    known = knows(cache).fresh
    document = json.loads(THREE.read_bytes()[len(MAGIC) + 65:])["learned"]
    assert THREE.read_bytes().startswith(b"adaptcache state 3\n")
    assert {name: known.numbers[name] for name in ("outcomes", "log_theta", "pace")} == {
        name: document["fresh"]["numbers"][name] for name in ("outcomes", "log_theta", "pace")}
    assert known.numbers["found"] == known.numbers["feared"] == 0 and len(known.keys) == 20
    lasting = []
    for key in range(20):
        for one in (cache, cold):
            one.get_or_load(key, lambda _: 1, namespace="quick" if key < 6 else "slow")
        lasting.append((cache.expires_in(key), cold.expires_in(key)))
    warm, first = np.array(lasting).T
    assert warm.min() > 10 * first.max()
    assert warm[:6].max() < warm[6:13].min() < warm[6:13].max() < 0.5 * warm[13:].min()
    serve(cache, requests(300, seed=1))
    cache._check()


def test_a_file_of_format_3_is_merged_with_one_of_today(tmp_path: Path) -> None:
    spec = Learned(**OLD_SPEC, predictors=("table",))
    cache = Cache.load(THREE, None, expiry=spec, timer=Clock())
    cache.save(tmp_path / "new")
    adaptcache.merge([THREE, tmp_path / "new"], tmp_path / "both")
    both, _ = read(tmp_path / "both")
    assert both.fresh.numbers["outcomes"] == 2 * knows(cache).fresh.numbers["outcomes"] and len(both.fresh.keys) == 20


@pytest.mark.parametrize("part", migrating.LAYOUT_3)
def test_a_file_of_format_3_of_another_engine_is_refused(tmp_path: Path, part: str) -> None:
    document = json.loads(THREE.read_bytes()[len(MAGIC) + 65:])
    document["learned"]["layout"][part] = "other"
    body = json.dumps(document).encode()
    (tmp_path / "state").write_bytes(b"adaptcache state 3\n" + hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    with pytest.raises(StateError, match=part):
        Cache.load(tmp_path / "state", None, expiry=Learned(**OLD_SPEC), timer=Clock())


@pytest.mark.parametrize("part", migrating.LAYOUT_2)
def test_a_file_of_format_2_of_another_engine_is_refused(tmp_path: Path, part: str) -> None:
    document = json.loads(OLD.read_bytes()[len(MAGIC) + 65:])
    document["learned"]["layout"][part] = "other"
    body = json.dumps(document).encode()
    (tmp_path / "state").write_bytes(b"adaptcache state 2\n" + hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    with pytest.raises(StateError, match=part):
        Cache.load(tmp_path / "state", None, expiry=Learned(**OLD_SPEC), timer=Clock())


def test_a_damaged_file_of_format_2_is_refused(tmp_path: Path) -> None:
    data = OLD.read_bytes()
    for wrong in (data[:-1], data[:200] + bytes([data[200] ^ 1]) + data[201:], data.replace(b"state 2", b"state 3", 1)):
        (tmp_path / "state").write_bytes(wrong)
        with pytest.raises(StateError):
            Cache.load(tmp_path / "state", None, expiry=Learned(**OLD_SPEC), timer=Clock())
