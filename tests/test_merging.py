"""States of several workers in one: as near as can be to one worker who had seen it all."""
from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from adaptcache import Cache, Learned, StateError, _core, merge
from adaptcache.learn.knowledge import MIXED, SAME_EVERYWHERE, Knowledge
from adaptcache.learn.merging import merged
from adaptcache.learn.packing import ARRAYS
from adaptcache.learn.river_models import SPACE
from adaptcache.state import read, write

SPEC = Learned(memory_price=0.02, learner="manual", seed=3, premature=1.0)
WHOLE = replace(SPEC, stale=0.05)       # validities too


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def stream(requests: int, seed: int = 1):
    """(time, key, namespace, cost): frequent keys, passing keys, bursts; three tenants of different manners."""
    dice, now = random.Random(seed), 0.0
    for _ in range(requests):
        now += dice.expovariate(2.0)
        tenant = dice.randrange(3)
        key = tenant * 1000 + (dice.randrange(30) if dice.random() < (0.3, 0.6, 0.9)[tenant] else dice.randrange(30, 900))
        yield now, key, f"tenant {tenant}", 1.0 + tenant


def worker(requests, *, share=lambda key: True, spec=SPEC, features=("a", "b"), loaded=None) -> Cache:
    clock = Clock()
    cache = Cache(None, expiry=spec, timer=clock) if loaded is None else Cache.load(loaded, None, expiry=spec, timer=clock)
    for at, (now, key, namespace, cost) in enumerate(requests):
        if not share(key):
            continue
        clock.now = now
        value = f"{key} {now // (50 + key % 90):.0f}"        # which changes now and then
        cache.get_or_load(key, lambda _, value=value: value, cost=cost, namespace=namespace,
                          features={name: ("x" if key % 7 else "y") if name == "a" else float(key % 5) for name in features})
        if at % 256 == 0:
            cache.learn()
    return cache


def knows(cache: Cache) -> Knowledge:
    learned = cache._knowledge()
    assert learned is not None
    return learned


@pytest.fixture(scope="module")
def parts() -> list[Knowledge]:
    """Three workers who saw different keys; the features came to them in different orders."""
    rows = list(stream(9000))
    caches = [worker(rows, share=lambda key, k=k: key % 3 == k, features=order, spec=WHOLE)
              for k, order in enumerate([("a", "b"), ("b", "a"), ("a", "b", "c")])]
    # Who holds nothing when he saves cannot tell that all keys are ints.
    return [replace(knows(cache), hashing=SAME_EVERYWHERE) for cache in caches]


def close(a: Knowledge, b: Knowledge) -> None:
    """Equal up to rounding, whatever the order of labels and names."""
    assert a.config == b.config and a.hashing == b.hashing
    assert a.numbers == pytest.approx(b.numbers)
    for name, (kind, _) in ARRAYS.items():
        x, y = a.arrays[name], b.arrays[name]
        if kind == "code":
            x, y = (rows(k.arrays[name], k.features) for k in (a, b))
        same(x, y)
    assert set(a.namespaces) == set(b.namespaces)
    for label, one in a.namespaces.items():
        other = b.namespaces[label]
        assert (one.labels, *one.code) == pytest.approx((other.labels, *other.code))
        assert (one.hedges is None) == (other.hedges is None)
        same(one.cells, other.cells)
        if one.hedges is not None:
            same(one.hedges, other.hedges)
        assert (one.prior is None) == (other.prior is None)
        if one.prior is not None:
            same(one.prior, other.prior)
    same_keys(a, a.keys, b, b.keys)
    assert (a.fresh is None) == (b.fresh is None)
    if a.fresh is not None and b.fresh is not None:
        assert a.fresh.budget == b.fresh.budget and a.fresh.numbers == pytest.approx(b.fresh.numbers)
        same(a.fresh.priors, b.fresh.priors)
        same(a.fresh.risks, b.fresh.risks)
        same_keys(a, a.fresh.keys, b, b.fresh.keys)
    assert (a.stack is None) == (b.stack is None)
    if a.stack is not None and b.stack is not None:
        assert a.stack["examples"] == b.stack["examples"]
        for name in ("weights", "squares", "seen"):
            np.testing.assert_allclose(terms(a, name), terms(b, name), rtol=1e-6, atol=1e-9)
    assert (a.river is None) == (b.river is None)
    if a.river is not None and b.river is not None:
        assert (a.river["n"], a.river["learned"]) == (b.river["n"], b.river["learned"])
        order = [b.features.index(name) for name in a.features] + list(range(8, 20))
        mine = list(range(len(a.features))) + list(range(8, 20))
        for name in ("mean", "m2", "low", "high"):
            np.testing.assert_allclose(np.array(a.river[name])[mine], np.array(b.river[name])[order], rtol=1e-6, atol=1e-9)
        assert set(a.river["groups"]) == set(b.river["groups"])
        for group, (trained, intercept, weights, _) in a.river["groups"].items():
            other_ = b.river["groups"][group]
            assert (trained, intercept) == (other_[0], pytest.approx(other_[1], rel=1e-4, abs=1e-6))
            np.testing.assert_allclose(np.array(weights)[mine], np.array(other_[2])[order], rtol=1e-3, atol=1e-6)


def same_keys(a: Knowledge, x, b: Knowledge, y) -> None:
    x, y = (keys[np.argsort(keys["hash"])].copy() for keys in (x, y))
    assert [list(a.namespaces)[i - 1] if i else None for i in x["namespace"]] == \
        [list(b.namespaces)[i - 1] if i else None for i in y["namespace"]]
    x["namespace"] = y["namespace"] = 0
    same(x, y)


def terms(known: Knowledge, name: str):
    """The stack's numbers, those of the features in the order of their names."""
    table = np.array(known.stack[name]).reshape(-1, SPACE)
    first = _core.CHAIN_TERM_COUNT
    at = [first + known.features.index(feature) for feature in sorted(known.features)]
    return table[:, [*range(first), *at, *range(first + _core.APP_FEATURES, SPACE)]]


def rows(codes, features):
    table = codes.reshape(8, -1)
    return np.concatenate([table[features.index(name)] for name in sorted(features)])


def same(x, y) -> None:
    for name in x.dtype.names:
        np.testing.assert_allclose(x[name], y[name], rtol=1e-4, atol=1e-6, err_msg=name)


def test_a_state_that_learned_nothing_is_the_identity(parts) -> None:
    for spec in (SPEC, WHOLE):
        empty = knows(Cache(None, expiry=spec, timer=Clock()))
        assert merged([parts[0], empty]).document() == parts[0].document()
        assert merged([empty, parts[0]]).document() == parts[0].document()
        assert merged([empty, empty]).document() == empty.document()


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_who_watched_no_changes_adds_none(parts, order) -> None:
    """Merging what is known of reuse leaves beliefs about change as they are, and the other way round."""
    a, plain = parts[0], replace(parts[1], fresh=None, namespaces={
        label: replace(known, prior=None) for label, known in parts[1].namespaces.items()})
    both = merged([(a, plain)[at] for at in order])
    assert both.fresh.numbers == a.fresh.numbers
    np.testing.assert_array_equal(both.fresh.risks, a.fresh.risks)
    assert all(both.namespaces[label].prior == known.prior for label, known in a.namespaces.items())
    same_keys(both, both.fresh.keys, a, a.fresh.keys)
    # Where memory costs nothing, no wait was followed, and yet something was learned.
    free = replace(WHOLE, memory_price=0)
    cache, other = (knows(worker(list(stream(3000, seed=seed)), spec=free)) for seed in (1, 2))
    assert cache.numbers["waits"] == 0 and not cache.empty
    assert merged([cache, other]).fresh.numbers["outcomes"] == cache.fresh.numbers["outcomes"] + other.fresh.numbers["outcomes"] > 100


def test_beliefs_about_change_are_pooled_by_the_reloads_behind_them(parts) -> None:
    a, b = parts[:2]
    n, m = a.fresh.numbers["outcomes"], b.fresh.numbers["outcomes"]
    assert n > 200 < m and n != m
    both = merged([a, b])
    assert both.fresh.numbers["outcomes"] == n + m
    for name in ("found", "feared"):
        assert both.fresh.numbers[name] == a.fresh.numbers[name] + b.fresh.numbers[name]
        np.testing.assert_allclose(both.fresh.risks[name], a.fresh.risks[name] + b.fresh.risks[name])
    for name in ("log_theta", "pace"):
        assert both.fresh.numbers[name] == pytest.approx((a.fresh.numbers[name] * n + b.fresh.numbers[name] * m) / (n + m))
    for x, y, z in [(k.fresh.priors[0] for k in (a, b, both)),
                    (k.namespaces["tenant 1"].prior[0] for k in (a, b, both))]:
        assert x["n"] > 20 < y["n"] and z["n"] == x["n"] + y["n"]
        assert (x["share"] != y["share"]).any()
        np.testing.assert_allclose(z["share"], (x["share"] * x["n"] + y["share"] * y["n"]) / z["n"])
        for name in ("shaken", "moved", "unmoved"):
            assert z[name] == x[name] + y[name]
    twice = merged([a, a])
    assert len(twice.fresh.keys) == len(a.fresh.keys) > 50
    x, y = (k.fresh.keys[np.argsort(k.fresh.keys["hash"])] for k in (a, twice))
    for name in ("evidence", "told", "reads", "seconds"):
        np.testing.assert_array_equal(y[name], 2 * x[name])


def test_price_and_audits_belong_to_one_budget(parts) -> None:
    a, b = parts[:2]
    other = replace(b, fresh=replace(b.fresh, budget=0.01))
    both = merged([a, other])
    assert both.fresh.budget == 0 and both.fresh.numbers["found"] == both.fresh.numbers["feared"] == both.fresh.numbers["pace"] == 0
    np.testing.assert_array_equal(both.fresh.priors, merged([a, b]).fresh.priors)
    close(both, merged([other, a]))
    close(merged([both, b]), merged([a, merged([other, b])]))
    cache, cold = (Cache(None, expiry=WHOLE, timer=Clock()) for _ in range(2))
    both.install(cache, cache._trainer)
    for name in ("theta", "bias"):
        assert cache._freshness()[name] == cold._freshness()[name]
    assert cache._freshness()["outcomes"] == both.fresh.numbers["outcomes"]


def test_each_weight_of_the_stack_is_averaged_by_the_examples_that_had_its_term(parts) -> None:
    """So a feature that one worker never saw keeps the weight that the other has learned."""
    a, b, c = parts
    assert a.features == ["a", "b"] and b.features == ["b", "a"] and c.features == ["a", "b", "c"]
    both = merged([a, c])
    only = 8 + both.features.index("c")
    mine, whole = (np.array(k.stack["weights"]).reshape(-1, SPACE) for k in (c, both))
    assert np.array(a.stack["seen"]).reshape(-1, SPACE)[:, only].sum() == 0 != mine[0, only]
    np.testing.assert_allclose(whole[:, only], mine[:, only], rtol=1e-12)
    both = merged([a, b])
    n, m = terms(a, "seen"), terms(b, "seen")
    assert (n > 0).mean() > 0.5 and not np.array_equal(n, m)
    np.testing.assert_allclose(terms(both, "weights") * (n + m), terms(a, "weights") * n + terms(b, "weights") * m, atol=1e-6)
    np.testing.assert_allclose(terms(both, "squares"), terms(a, "squares") + terms(b, "squares"))
    x, y, z = (k.arrays["sides"] for k in (a, b, both))
    assert ((x["n"] > 0) & (y["n"] > 0)).sum() > 100
    np.testing.assert_allclose(z["n"], x["n"] + y["n"])
    np.testing.assert_allclose(z["p"] * z["n"], x["p"] * x["n"] + y["p"] * y["n"], rtol=1e-4, atol=1e-4)


def test_merging_is_commutative(parts) -> None:
    for i, j in ((0, 1), (0, 2), (1, 2)):
        close(merged([parts[i], parts[j]]), merged([parts[j], parts[i]]))


def test_merging_is_associative(parts) -> None:
    a, b, c = parts
    close(merged([merged([a, b]), c]), merged([a, merged([b, c])]))


def test_several_at_once_are_as_one_after_the_other(parts) -> None:
    a, b, c = parts
    close(merged([a, b, c]), merged([merged([a, b]), c]))


def test_counts_add_up_and_hazards_are_pooled_by_them(parts) -> None:
    a, b = parts[:2]
    both = merged([a, b])
    for name in ("everyone", "habit", "habit2"):
        x, y, z = (k.arrays[name] for k in (a, b, both))
        np.testing.assert_allclose(z["n"], x["n"] + y["n"])
        np.testing.assert_allclose(z["p"] * z["n"], x["p"] * x["n"] + y["p"] * y["n"], rtol=1e-4, atol=1e-4)
    assert both.numbers["waits"] == a.numbers["waits"] + b.numbers["waits"]
    assert a.numbers["mean_cost"] != pytest.approx(b.numbers["mean_cost"], rel=1e-6)
    cost = lambda k: k.arrays["everywhere"]["round"][0] * k.numbers["mean_cost"]    # noqa: E731
    np.testing.assert_allclose(cost(both), cost(a) + cost(b))


@pytest.mark.parametrize("share", ["keys", "time"])
def test_two_halves_merged_come_close_to_the_whole(share: str) -> None:
    """Halves of the keys, or halves in time: hazards, and who is believed, are about those of one who saw it all."""
    spec = replace(SPEC, predictors=("table",))
    requests = list(stream(16_000, seed=4))
    whole = knows(worker(requests, spec=spec))
    if share == "keys":
        halves = [knows(worker(requests, spec=spec, share=lambda key, k=k: key % 2 == k)) for k in (0, 1)]
    else:
        start = requests[8000][0]
        halves = [knows(worker(requests[:8000], spec=spec)),
                  knows(worker([(now - start, *rest) for now, *rest in requests[8000:]], spec=spec))]
    both = merged(halves)
    for name in ("everyone", "habit"):
        x, y = whole.arrays[name], both.arrays[name]
        much = (x["n"] > 300) & (y["n"] > 300)
        assert much.sum() > 10
        apart = np.abs(x["p"] - y["p"])[much].max()
        assert apart < 0.06
        for half in halves:
            assert np.abs(half.arrays[name]["n"][much] - x["n"][much]).max() > 100      # a half alone has seen less
    weights = []
    for learned in (whole, both):
        cache = Cache(None, expiry=spec, timer=Clock())
        learned.install(cache, cache._trainer)
        weights.append(cache.stats().weights)
    for group in ("table", "static", "break-even"):
        share_of = [sum(share for name, share in one.items() if name.startswith(group)) for one in weights]
        assert share_of[0] == pytest.approx(share_of[1], abs=0.15)
    assert max(weights[0], key=weights[0].get) in sorted(weights[1], key=weights[1].get)[-2:]


def cost_of(cache: Cache, requests) -> float:
    clock, held, missed = cache.timer, 0.0, 0.0
    last = clock.now
    for now, key, namespace, cost in requests:
        held += len(cache) * (now - last)
        clock.now = last = now
        before = cache.stats().misses
        cache.get_or_load(key, str, cost=cost, namespace=namespace)
        missed += cost * (cache.stats().misses - before)
    return missed + 0.02 * held


def test_a_new_worker_with_what_two_others_learned_does_better_than_with_nothing(tmp_path) -> None:
    spec = replace(SPEC, predictors=("table",))
    requests = list(stream(12_000, seed=8))
    for k in (0, 1):
        worker(requests, spec=spec, share=lambda key, k=k: key % 2 == k).save(tmp_path / str(k))
    merge([tmp_path / "0", tmp_path / "1"], tmp_path / "both")
    fresh = list(stream(2000, seed=9))
    cold = cost_of(Cache(None, expiry=spec, timer=Clock()), fresh)
    warm = cost_of(Cache.load(tmp_path / "both", None, expiry=spec, timer=Clock()), fresh)
    assert warm < 0.97 * cold


def test_a_cache_that_merges_goes_on_as_it_was_but_wiser(tmp_path) -> None:
    requests = list(stream(4000))
    other = worker(requests, share=lambda key: key % 2 == 0)
    other.save(tmp_path / "other")
    mine = worker(requests, share=lambda key: key % 2 == 1)
    before, stats, held = knows(mine), mine.stats(), dict(mine.items())
    mine.merge_state([tmp_path / "other"])
    after = mine.stats()
    assert (after.protected, after.premature, after.hits, dict(mine.items())) == (stats.protected, stats.premature, stats.hits, held)
    limit = mine.brain.memory()["cell"]
    n = knows(mine).arrays["everyone"]["n"]
    np.testing.assert_allclose(n, np.minimum(limit, before.arrays["everyone"]["n"] + knows(other).arrays["everyone"]["n"]))
    assert len(knows(mine).keys) == len(before.keys) + len(knows(other).keys)
    for now, key, namespace, cost in stream(200, seed=3):
        mine.timer.now = requests[-1][0] + now
        mine.get_or_load(key, str, cost=cost, namespace=namespace)
    mine.learn()
    mine._check()


def test_what_is_remembered_is_cut_where_it_is_installed_only(parts) -> None:
    much = merged([parts[0]] * 400)
    watching = Cache(None, expiry=WHOLE, timer=Clock())
    much.install(watching, watching._trainer)
    watching._check()
    x, y = much.fresh, knows(watching).fresh
    for name, most in (("told", 34), ("reads", 10.1)):
        assert x.keys[name].max() > most >= y.keys[name].max()
    rates, told = ((k["evidence"] / k["told"][:, None]) for k in (x.keys, y.keys))
    seen = y.keys["evidence"] > -79         # what is all but impossible is cut to that
    assert seen.any(axis=1).all() and (seen.sum(axis=1) > 5).any()
    np.testing.assert_allclose(told[seen], rates[seen], rtol=1e-4)
    assert x.risks["feared"].max() > 2001 >= y.risks["feared"].max()
    assert much.arrays["everyone"]["n"].max() > 2000 and much.arrays["everywhere"]["labels"][0] > 30_000
    cache = Cache(None, expiry=SPEC, timer=Clock())
    much.install(cache, cache._trainer)
    back = knows(cache)
    assert back.arrays["everyone"]["n"].max() <= 2000
    assert back.arrays["everywhere"]["labels"][0] == pytest.approx(cache.brain.memory()["hedge"])
    assert back.keys["n"].max() <= 40
    assert much.arrays["sides"]["n"].max() > 500 >= back.arrays["sides"]["n"].max()
    assert sum(cache.stats().weights.values()) == pytest.approx(1)


def test_fixed_ttls_of_another_grid_are_moved_to_their_place(parts) -> None:
    moved = replace(parts[0], numbers={**parts[0].numbers, "anchor": parts[0].numbers["anchor"] + 3})
    loss = moved.arrays["counts"]["loss"]
    both = merged([moved, parts[0]]).arrays["counts"]["loss"]
    np.testing.assert_allclose(both[:, 4:22], loss[:, 1:19] + loss[:, 4:22])    # three bins further along
    np.testing.assert_allclose(both[:, 0], 2 * loss[:, 0])                      # nought is nought everywhere
    np.testing.assert_allclose(both[:, 22:], 2 * loss[:, 22:])


def test_keys_of_processes_that_hash_differently_are_left_out(parts) -> None:
    a, b = (replace(part, hashing=name) for part, name in zip(parts, ("one", "two"), strict=False))
    assert parts[0].hashing == SAME_EVERYWHERE and len(parts[0].keys) > 10
    both = merged([a, b])
    assert len(both.keys) == 0 and both.hashing == MIXED
    assert len(merged([both, a]).keys) == len(merged([a, both]).keys) == 0
    assert len(both.fresh.keys) == len(merged([a, both]).fresh.keys) == 0 and len(parts[0].fresh.keys) > 10
    close(replace(merged([a, b]), hashing=None), replace(merged([b, a]), hashing=None))
    assert len(merged([a, replace(b, hashing="one")]).keys) == len(a.keys) + len(b.keys)


def test_a_key_known_to_both_is_pooled(parts) -> None:
    a = parts[0]
    later = replace(a, keys=a.keys.copy())
    later.keys["idle"] += 100
    later.keys["base"] += 1
    both = merged([later, a])
    assert len(both.keys) == len(a.keys)
    x, y = a.keys[np.argsort(a.keys["hash"])], both.keys
    np.testing.assert_array_equal(y["idle"], x["idle"])         # as it was last seen
    np.testing.assert_array_equal(y["base"], x["base"])
    np.testing.assert_allclose(y["n"][:, 1:], x["n"][:, 1:] + x["n"][:, :-1])


def test_merge_writes_a_file_that_loads(parts, tmp_path) -> None:
    for name, part in zip("abc", parts, strict=True):
        write(tmp_path / name, part, None)
    merge([tmp_path / "a", str(tmp_path / "b"), tmp_path / "c"], tmp_path / "out")
    learned, _ = read(tmp_path / "out")
    assert learned is not None
    close(learned, merged(parts))
    brain = Cache.load(tmp_path / "out", None, expiry=SPEC, timer=Clock()).brain
    assert brain.tracked > 0 and brain.remembered > 0 and brain.tracked + brain.remembered == len(learned.keys)
    merge(tmp_path / "a", tmp_path / "same")
    (one, _), (other, _) = read(tmp_path / "same"), read(tmp_path / "a")
    assert one is not None and other is not None and one.document() == other.document()


@pytest.mark.parametrize(("change", "says"), [
    ({"memory_price": 0.03}, "price"), ({"window": 5.0}, "window"), ({"predictors": ("table",)}, "experts"),
])
def test_states_of_different_configurations_are_not_merged(parts, tmp_path, change, says) -> None:
    write(tmp_path / "a", parts[0], None)
    other = Cache(None, expiry=replace(SPEC, **change), timer=Clock())
    other.set("k", 1)
    other.save(tmp_path / "b")
    (tmp_path / "out").write_text("as it was")
    with pytest.raises(StateError, match=says):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert (tmp_path / "out").read_text() == "as it was"
    before = knows(other).document()
    with pytest.raises(StateError, match=says):
        other.merge_state(tmp_path / "a")
    assert knows(other).document() == before


def test_nothing_to_merge_is_said(tmp_path) -> None:
    with pytest.raises(ValueError, match="paths"):
        merge([], tmp_path / "out")
    Cache(3).save(tmp_path / "plain")
    with pytest.raises(StateError, match="does not learn"):
        merge([tmp_path / "plain"], tmp_path / "out")
