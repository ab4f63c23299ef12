"""Learned state outlives a process, and nothing but a whole file of this version is ever believed."""
from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import adaptcache
from adaptcache import Cache, Cause, Fixed, Learned, StateError
from adaptcache.learn.packing import LAYOUT
from adaptcache.simulate.oracle import Oracle
from adaptcache.simulate.synthetic import generate
from adaptcache.state import MAGIC

SPEC = Learned(memory_price=0.01, learner="manual", seed=3)


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def trained(clock, spec=SPEC, requests=6_000, seed=5, shift=0):
    """Frequent keys and passing ones; two namespaces and features, met in an order that `shift` turns round."""
    cache = Cache(None, expiry=spec, timer=clock)
    rng = random.Random(seed)
    for at in range(requests):
        clock.now += rng.expovariate(1.0)
        key = rng.randrange(20) if rng.random() < 0.6 else rng.random()
        which = (at + shift) % 2
        said = {"kind": "often" if key in range(20) else "once", "n": 1.0}
        if which:
            said = dict(reversed(said.items()))
        cache.get_or_load(key, lambda _: 0, cost=1.0, namespace=("tenant", which), features=said)
        if at % 256 == 0:
            cache.learn()
    return cache


def known(cache):
    """Everything learned, as plain values: equal where two caches know the same."""
    return cache._knowledge().document()


def run_on(cache, clock):
    """What the next thousand requests cost in misses, and how long entries were held."""
    rng = random.Random(6)
    before = cache.stats()
    held = 0
    for _ in range(1_000):
        clock.now += rng.expovariate(1.0)
        key = rng.randrange(20) if rng.random() < 0.6 else rng.random()
        cache.get_or_load(key, lambda _: 0, cost=1.0)
        held += len(cache)
    return cache.stats().misses - before.misses + 0.01 * held


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A file, and the cache that wrote it."""
    cache = trained(Clock())
    path = tmp_path_factory.mktemp("state") / "state"
    cache.save(path)
    return path, cache


def rewritten(path: Path, change: Any) -> Path:
    """The file with its document changed and its checksum right."""
    document = json.loads(path.read_bytes()[len(MAGIC) + 65:])
    change(document)
    return sealed(path, json.dumps(document).encode())


def sealed(path: Path, body: bytes) -> Path:
    path.write_bytes(MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    return path


def copied(path: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "state"
    copy.write_bytes(path.read_bytes())
    return copy


# -- what comes back ---------------------------------------------------------------------------------------

def test_everything_learned_comes_back(saved):
    path, cache = saved
    again = Cache.load(path, None, expiry=SPEC, timer=Clock())
    assert known(again) == known(cache)
    document = known(cache)
    assert len(document["namespaces"]) == 2 and document["features"] == ["kind", "n"] and document["river"]["learned"] > 300
    assert len(cache._knowledge().keys) == 20
    assert again.brain.weights() == pytest.approx(cache.brain.weights(), abs=0.02)


def test_a_restart_does_not_start_cold(saved):
    path, _ = saved
    cold_clock, warm_clock = Clock(), Clock()
    cold = run_on(Cache(None, expiry=SPEC, timer=cold_clock), cold_clock)
    warm = run_on(Cache.load(path, None, expiry=SPEC, timer=warm_clock), warm_clock)
    assert warm < 0.95 * cold


def replayed(cache, clock, trace, price, rows):
    """Misses and rent of these rows of a trace, in misses."""
    since: dict[int, tuple[float, float]] = {}
    rent = misses = 0.0

    def gone(key: Any, _value: Any, _cause: Cause, at: float) -> None:
        nonlocal rent
        start, size = since.pop(key)
        rent += (at - start) * size * price

    cache._on_removal_of_test.append(gone)
    for at in rows:
        clock.now = float(trace.time[at])
        key, size = int(trace.key[at]), 1.0 if trace.size is None else float(trace.size[at])
        if cache.get(key) is None:
            misses += 1
            cache.set(key, 1, size=size, cost=1.0, namespace=None if trace.namespace is None else int(trace.namespace[at]))
            since[key] = (clock.now, size)
        if at % 256 == 0:
            cache.learn()
    cache.expire()
    return misses + rent + sum((clock.now - start) * size * price for start, size in since.values())


def listening(make):
    """A cache whose removals may be listened to later on."""
    ears: list[Any] = []
    cache = make(lambda *event: ears[-1](*event))
    cache._on_removal_of_test = ears
    return cache


@pytest.mark.parametrize(("name", "premature", "rows", "share"), [
    ("pipeline", 1.0, 1500, 0.97), pytest.param("dns_wrccdc_a", 0.01, 4000, 0.99, marks=pytest.mark.traces),
])
def test_a_restart_in_the_middle_of_a_workload_costs_less_than_a_cold_one(tmp_path, trace_path, name, premature, rows, share):
    trace = generate(name, seed=3, requests=12_000) if name == "pipeline" else adaptcache.simulate.readers.read(trace_path(name))
    price, half = Oracle(trace).price(0.3), len(trace) // 2
    spec = Learned(memory_price=price, learner="manual", seed=1, predictors=("table",), premature=premature)
    clock = Clock()
    clock.now = float(trace.time[0])
    first = listening(lambda ear: Cache(None, expiry=spec, timer=clock, on_removal=ear))
    replayed(first, clock, trace, price, range(half))
    first.save(tmp_path / "state")
    costs = []
    for make in (lambda ear: Cache(None, expiry=spec, timer=clock, on_removal=ear),
                 lambda ear: Cache.load(tmp_path / "state", None, expiry=spec, timer=clock, on_removal=ear)):
        clock.now = float(trace.time[half])
        costs.append(replayed(listening(make), clock, trace, price, range(half, half + rows)))
    assert costs[1] < share * costs[0]


def test_numbers_of_another_process_do_not_matter(tmp_path):
    """Namespaces and features were met in another order there; labels and names say which is which."""
    clock = Clock()
    cache = trained(clock)
    cache.save(tmp_path / "state")
    other = Cache(None, expiry=SPEC, timer=clock)
    for namespace, name in ((("tenant", 1), "n"), ("stranger", "kind"), (("tenant", 0), "kind")):
        other.set(name, 1, namespace=namespace, features={name: 1.0})
    labels, names = other._names()
    other.merge_state(tmp_path / "state")
    assert other._names() == (labels, names)
    mine, theirs = cache._knowledge(), other._knowledge()
    for label in mine.namespaces:
        np.testing.assert_allclose(theirs.namespaces[label].cells["p"], mine.namespaces[label].cells["p"], atol=0.02)
        assert theirs.namespaces[label].code == pytest.approx(mine.namespaces[label].code, abs=0.02)
    kind = mine.arrays["codes"].reshape(8, -1)[mine.features.index("kind")]
    assert kind["n"].max() > 500
    np.testing.assert_array_equal(theirs.arrays["codes"].reshape(8, -1)[theirs.features.index("kind")], kind)
    assert theirs.river["mean"][theirs.features.index("n")] == pytest.approx(1.0)


def test_a_label_that_is_an_object_is_left_out(tmp_path):
    clock = Clock()
    cache = Cache(None, expiry=SPEC, timer=clock)
    for label in (object(), "s", b"b", 1, 2.5, ("t", (1, b"x")), True):
        cache.set("k", 1, namespace=label)
    cache.save(tmp_path / "state")
    again = Cache.load(tmp_path / "state", None, expiry=SPEC, timer=clock)
    assert set(again._names()[0]) == {"s", b"b", 1, 2.5, ("t", (1, b"x"))}      # True is 1


def test_credit_of_another_process_is_none(tmp_path):
    """What was lost and protected there says nothing of what this cache may lose: N begins at nought."""
    clock = Clock()
    cache = trained(clock)
    assert cache.stats().premature_budget > 5
    cache.save(tmp_path / "state", entries=True)
    for again in (Cache.load(tmp_path / "state", None, expiry=SPEC, timer=clock, entries=True),
                  Cache(None, expiry=SPEC, timer=clock)):
        again.merge_state(tmp_path / "state")
        stats = again.stats()
        assert (stats.protected, stats.premature, stats.in_flight, stats.premature_budget) == (0, 0, 0, 1.0)


def test_a_key_is_remembered_with_its_history_and_no_wait_is_open(saved):
    path, _ = saved
    clock = Clock()
    again = Cache.load(path, None, expiry=SPEC, timer=clock)
    labels = again.brain.labels
    assert again.brain.tracked == 20 and again.get(3) is None
    again.set(3, 0, cost=1.0)
    assert again.brain.labels == labels         # the downtime is no wait
    assert again.explain(3).accesses <= 2       # of the entry, not of the key
    clock.now = 1e6
    again.get("nobody")
    again.learn()
    assert again.brain.tracked < 20             # and they are forgotten like any other


SCRIPT = """
import sys
from adaptcache import Cache, Learned
path, what, kind = sys.argv[1:]
class Clock:
    now = 0.0
    def __call__(self): return self.now
clock = Clock()
spec = Learned(memory_price=0.01, learner="manual", seed=1, predictors=("table",))
key = {"str": lambda i: f"key {i}", "int": lambda i: i, "tuple": lambda i: (i, 1.5)}[kind]
if what == "save":
    cache = Cache(None, expiry=spec, timer=clock)
    for at in range(300):
        clock.now += 1
        cache.get_or_load(key(at % 10), lambda _: 0, cost=1.0)
    cache.save(path)
else:
    print(Cache.load(path, None, expiry=spec, timer=clock).brain.tracked)
"""


@pytest.mark.parametrize(("kind", "seeds", "expected"), [
    ("int", ("1", "2"), 10), ("tuple", ("1", "2"), 10), ("str", ("7", "7"), 10), ("str", ("1", "2"), 0),
])
def test_keys_come_back_where_their_hashes_mean_the_same(tmp_path, kind, seeds, expected):
    out = ""
    for what, seed in zip(("save", "load"), seeds, strict=True):
        out = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path / "state"), what, kind], check=True,
                             capture_output=True, text=True, env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}).stdout
    assert int(out) == expected


ROOT = Path(adaptcache.__file__).resolve().parent.parent


def test_the_tree_serves_until_a_new_one_has_caught_up(tmp_path):
    clock = Clock()
    cache = trained(clock, requests=9_000)
    tree = cache.brain.tree()
    assert tree is not None, "the workload grows no tree; the test says nothing"
    cache.save(tmp_path / "state")
    again = Cache.load(tmp_path / "state", None, expiry=SPEC, timer=clock)
    assert again.brain.tree() == tree and again._trainer.leaves.size == 0
    again._trainer.publish()
    assert again.brain.tree() == tree
    again._trainer.patience = 0
    again._trainer.leaves = cache._trainer.leaves
    again._trainer.publish()
    assert again._trainer.kept == 0


# -- another configuration ---------------------------------------------------------------------------------

def test_a_state_of_other_predictors_is_refused(saved):
    path, _ = saved
    other = Learned(memory_price=0.01, learner="manual", predictors=("table",))
    with pytest.raises(StateError, match="predictors"):
        Cache.load(path, 3, expiry=other, timer=Clock())


def test_a_state_of_other_models_of_the_user_is_refused(tmp_path):
    class One:
        def learn(self, x, y): ...
        def predict(self, x): return 1.0

    class Two(One): ...

    Cache(3, expiry=Learned(memory_price=0.01, learner="manual", predictors=(One(),)), timer=Clock()).save(tmp_path / "state")
    with pytest.raises(StateError, match=r"One.*Two"):
        Cache.load(tmp_path / "state", 3, timer=Clock(),
                   expiry=Learned(memory_price=0.01, learner="manual", predictors=(Two(),)))


def test_at_another_price_only_what_holds_at_every_price_is_taken_over(saved, caplog):
    path, cache = saved
    other = Cache.load(path, None, expiry=Learned(memory_price=0.05, learner="manual", seed=3), timer=Clock())
    assert "0.01" in caplog.text and "0.05" in caplog.text
    mine, theirs = cache.brain, other.brain
    fresh = Cache(None, expiry=SPEC, timer=Clock()).brain
    for name in ("everyone", "habit", "habit2"):
        assert theirs.arrays()[name] == mine.arrays()[name]
    for name in ("codes", "leaves"):
        assert theirs.arrays()[name] == fresh.arrays()[name]
    assert not any(theirs.losses()) and theirs.weights() == pytest.approx(fresh.weights())
    assert theirs.numbers() == fresh.numbers() and theirs.tree() is None
    assert other._knowledge().namespaces[("tenant", 0)].cells is not None and theirs.tracked > 0


@pytest.mark.parametrize("part", LAYOUT)
def test_a_state_of_another_engine_or_machine_is_refused(saved, tmp_path, part):
    path = rewritten(copied(saved[0], tmp_path), lambda document: document["learned"]["layout"].update({part: "other"}))
    with pytest.raises(StateError, match=part):
        Cache.load(path, None, expiry=SPEC, timer=Clock())


def test_a_cache_that_does_not_learn_takes_nothing_and_merges_nothing(saved):
    path, _ = saved
    assert Cache.load(path, 3).stats().weights == {}
    with pytest.raises(ValueError, match="does not learn"):
        Cache(3).merge_state(path)


# -- damage ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("damage", [
    lambda data: data[:-1],
    lambda data: data[:40],
    lambda data: b"",
    lambda data: data.replace(b"state 4", b"state 1", 1),
    lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:],
    lambda data: b"PK" + data,
], ids=["cut", "cut short", "empty", "other version", "bit flip", "foreign"])
def test_a_damaged_or_foreign_file_is_refused(tmp_path, damage):
    path = tmp_path / "state"
    Cache(3, expiry=SPEC, timer=Clock()).save(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(StateError, match="state"):
        Cache.load(path, 3, expiry=SPEC, timer=Clock())


def refused_or_sound(path, cache, before):
    """A file is taken over whole and sound, or refused by StateError and nothing has changed."""
    try:
        again = Cache.load(path, None, expiry=SPEC, timer=Clock())
    except StateError:
        with pytest.raises(StateError):
            cache.merge_state(path)
        assert known(cache) == before
        return False
    clock = again.timer
    for at in range(60):
        clock.now += 30.0
        again.get_or_load(at % 7, lambda _: 0, cost=1.0, namespace=("tenant", 0))
    again.learn()
    again._check()
    assert sum(again.stats().weights.values()) == pytest.approx(1)
    return True


FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@FUZZ
@given(data=st.data())
def test_a_file_cut_or_flipped_with_a_checksum_that_fits_never_harms(saved, tmp_path, data):
    path, cache = saved
    body = bytearray(path.read_bytes()[len(MAGIC) + 65:])
    before = known(cache)
    if data.draw(st.booleans()):
        del body[data.draw(st.integers(0, len(body) - 1)):]
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, max(0, len(body) - 1)))
        body[at:at + 1] = bytes([data.draw(st.integers(0, 255))])
    copy = sealed(tmp_path / "state", bytes(body))
    refused_or_sound(copy, cache, before)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from([1e308, -1e308, 10**400, "eJw="]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4), max_leaves=8)


@FUZZ
@given(data=st.data())
def test_a_document_of_other_values_never_harms(saved, tmp_path, data):
    path, cache = saved
    before = known(cache)
    document = json.loads(path.read_bytes()[len(MAGIC) + 65:])
    if data.draw(st.integers(0, 9)) == 0:
        document = data.draw(JSON)
    else:
        inside, name = document, "learned"
        while isinstance(inside[name], (dict, list)) and inside[name] and data.draw(st.integers(0, 3)):
            inside = inside[name]
            name = data.draw(st.sampled_from(sorted(inside) if isinstance(inside, dict) else range(len(inside))))
        inside[name] = data.draw(JSON)
    refused_or_sound(sealed(tmp_path / "state", json.dumps(document).encode()), cache, before)


def corrupted(name, field, value):
    def change(array):
        array[field][-1] = value
        return array
    return name, change


@pytest.mark.parametrize(("name", "change"), [
    corrupted("everyone", "p", np.nan), corrupted("habit", "p", 1.5), corrupted("habit2", "q", -0.1),
    corrupted("leaves", "n", np.inf), corrupted("counts", "loss", np.nan), corrupted("counts", "gap", -1.0),
    corrupted("everywhere", "labels", np.inf), corrupted("everywhere", "lead", np.nan), corrupted("codes", "mean", 2.0),
])
def test_every_number_is_looked_at(saved, tmp_path, name, change):
    _, cache = saved
    learned = cache._knowledge()
    learned.arrays[name] = change(learned.arrays[name])
    adaptcache.state.write(tmp_path / "state", learned, None)
    before = known(cache)
    assert not refused_or_sound(tmp_path / "state", cache, before)
    with pytest.raises(StateError, match=name):
        Cache.load(tmp_path / "state", None, expiry=SPEC, timer=Clock())


@pytest.mark.parametrize(("field", "value"), [("idle", np.nan), ("base", 200), ("count", 0), ("gap1", 250), ("n", -1.0),
                                              ("p", np.nan), ("cost", np.inf), ("namespace", 9)])
def test_every_number_of_a_key_is_looked_at(saved, tmp_path, field, value):
    _, cache = saved
    learned = cache._knowledge()
    learned.keys[field][0] = value
    adaptcache.state.write(tmp_path / "state", learned, None)
    with pytest.raises(StateError, match="keys"):
        Cache.load(tmp_path / "state", None, expiry=SPEC, timer=Clock())


def test_a_bomb_is_refused_before_it_fills_the_memory(saved, tmp_path):
    import base64
    import zlib
    bomb = base64.b64encode(zlib.compress(bytes((1 << 28) + 999), 1)).decode()
    for change in (lambda document: document["learned"].update(keys=bomb),
                   lambda document: document["learned"]["arrays"].update(everyone=bomb)):
        with pytest.raises(StateError, match="do not fit"):
            Cache.load(rewritten(copied(saved[0], tmp_path), change), None, expiry=SPEC, timer=Clock())


# -- entries -----------------------------------------------------------------------------------------------

def test_entries_come_back_for_the_time_they_had_left(tmp_path):
    clock = Clock()
    cache = Cache(9, expiry=Fixed(10), timer=clock)
    cache["a"] = [1]
    clock.now = 4
    cache["b"] = None
    cache.save(tmp_path / "state", entries=True)
    later = Clock()
    again = Cache.load(tmp_path / "state", 9, entries=True, expiry=Fixed(10), timer=later)
    assert dict(again.items()) == {"a": [1], "b": None}
    assert again.expires_in("a") == pytest.approx(6)
    later.now = 6
    assert list(again) == ["b"]


def test_entries_that_were_not_saved_are_missed_aloud(tmp_path):
    Cache(3).save(tmp_path / "state")
    with pytest.raises(StateError, match="without entries"):
        Cache.load(tmp_path / "state", 3, entries=True)


@pytest.mark.parametrize("entries", ["AAAA", "gASVBgAAAAAAAABLAUsChpQu", "?", 7, []])
def test_entries_that_cannot_be_read_are_refused(tmp_path, entries):
    Cache(3).save(tmp_path / "state", entries=True)
    path = rewritten(tmp_path / "state", lambda document: document.update(entries=entries))
    with pytest.raises(StateError):
        Cache.load(path, 3, entries=True)


def test_a_failed_save_leaves_the_old_file(tmp_path):
    path = tmp_path / "state"
    Cache(3).save(path)
    before = path.read_bytes()
    cache = Cache(3)
    cache["x"] = lambda: 0      # cannot be pickled
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        cache.save(path, entries=True)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
