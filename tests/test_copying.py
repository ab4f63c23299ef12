"""Pickle, copy and deepcopy of caches: what a copy has, and that nothing else is shared."""
from __future__ import annotations

import copy
import functools
import math
import pickle
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import adaptcache
from adaptcache import Cache, Cause, Fixed, Idle, Learned, PerEntry
from adaptcache.mapping import _OURS


class Clock:
    def __init__(self, now=100.0):
        self.now = now

    def __call__(self):
        return self.now


def weigh(value):
    return value


def deadline(key, value, now):
    return now + value


def ignore(key, value, cause, at):
    pass


WAYS = {"copy": copy.copy, "deepcopy": copy.deepcopy,
        **{f"pickle {n}": functools.partial(lambda n, cache: pickle.loads(pickle.dumps(cache, n)), n)
           for n in range(pickle.HIGHEST_PROTOCOL + 1)}}

every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)

# Policies whose whole state is of entries that are held, and can be told.
TOLD = ["fifo", "lru", "lfu", "sieve"]


def test_these_attributes_are_the_caches_own():
    assert set(Cache(1).__dict__) <= _OURS


@every_way
@pytest.mark.parametrize("policy", adaptcache.policies())
def test_a_copy_holds_the_same_and_is_a_cache_of_its_own(way, policy):
    cache = Cache(10, weigh, policy=policy, on_removal=ignore)
    for key in range(4):
        cache[key] = key
    cache.set("sized", 0, size=2.5)
    new = way(cache)
    new._check()
    assert type(new) is Cache and new == cache and new is not cache
    assert (new.maxsize, new.currsize, new.policy_name) == (10, 8.5, policy)
    assert new.getsizeof(7) == 7 and new._on_removal is ignore
    new[9] = 1
    del new[1]
    cache[8] = 0
    assert dict(cache) == {0: 0, 1: 1, 2: 2, 3: 3, "sized": 0, 8: 0}
    assert dict(new) == {0: 0, 2: 2, 3: 3, "sized": 0, 9: 1}
    new._check()


OPERATIONS = st.lists(st.tuples(st.sampled_from(["get", "set", "del", "popitem"]), st.integers(0, 9), st.integers(0, 3)), max_size=40)


def do(cache, operations):
    for name, key, value in operations:
        if name == "get":
            cache.get(key)
        elif name == "set":
            cache[key] = value
        elif name == "del":
            cache.pop(key, None)
        elif len(cache):
            cache.popitem()


@pytest.mark.parametrize("policy", TOLD)
@settings(max_examples=150, deadline=None)
@given(before=OPERATIONS, after=OPERATIONS, sized=st.booleans(), way=st.sampled_from(["copy", "deepcopy", "pickle 5"]))
def test_a_copy_evicts_as_its_source_would(policy, before, after, sized, way):
    cache = Cache(6, weigh if sized else None, policy=policy)
    do(cache, before)
    new = WAYS[way](cache)
    new._check()
    do(cache, after)
    do(new, after)
    new._check()
    victims = [[one.popitem() for _ in range(len(one))] for one in (cache, new)]
    assert victims[0] == victims[1]


@every_way
def test_sieves_hand_stays_where_it_was(way):
    cache = Cache(4, policy="sieve")
    cache.update({key: key for key in range(4)})
    cache.get(0)
    cache.get(1)
    assert cache.popitem() == (2, 2)        # the hand has passed 0 and 1, and rests on 3
    new = way(cache)
    assert [new.popitem()[0] for _ in range(3)] == [cache.popitem()[0] for _ in range(3)] == [3, 0, 1]


@every_way
@pytest.mark.parametrize("expiry", [None, Fixed(10), Idle(10), PerEntry(deadline), 10.5])
def test_entries_keep_the_time_they_have_left(way, expiry):
    cache = Cache(None, expiry=expiry, timer=Clock())
    cache["a"] = 10
    cache.timer.now += 3
    cache.set("b", 20, ttl=5)
    cache["c"] = 4
    cache.timer.now += 1.25
    new = way(cache)
    left = {key: cache.expires_in(key) for key in cache}
    assert {key: new.expires_in(key) for key in new} == left
    new.timer.now += 3
    assert sorted(new) == sorted(key for key, seconds in left.items() if seconds > 3)
    new._check()


@every_way
def test_a_hit_extends_an_idle_entry_of_a_copy_as_it_would_have(way):
    cache = Cache(None, expiry=Idle(10), timer=Clock())
    cache["a"] = 1
    cache.timer.now += 6
    new = way(cache)
    assert new.expires_in("a") == 4
    new.get("a")
    assert new.expires_in("a") == 10


@every_way
def test_time_that_passes_between_is_not_counted_for_a_copy_with_a_clock_of_its_own(way):
    cache = Cache(None, expiry=10, timer=Clock())
    cache["a"] = 1
    new = way(cache)
    assert (new.timer is cache.timer) == (way is copy.copy)
    assert new.timer() == 100


def test_a_copy_shares_keys_and_values_and_a_deepcopy_does_not():
    key, value = (1, [].__class__), [1]
    cache = Cache(5)
    cache[key] = value
    assert copy.copy(cache)[key] is value
    deep = copy.deepcopy(cache)
    assert deep[key] == value and deep[key] is not value
    again = pickle.loads(pickle.dumps(cache))
    assert again[key] == value and again[key] is not value


@every_way
def test_a_cache_that_holds_itself(way):
    cache = Cache(5)
    cache["me"] = cache
    cache["twice"] = [cache, cache]
    new = way(cache)
    if way is copy.copy:
        assert new["me"] is cache
    else:
        assert new["me"] is new and new["twice"] == [new, new]
        assert len(new) == 2


class Listener:
    """Holds a cache that reports to it."""

    def __init__(self):
        self.heard = []
        self.cache = Cache(2, on_removal=self.hear)

    def hear(self, key, value, cause, at):
        self.heard.append((key, cause))


@pytest.mark.parametrize("way", [copy.deepcopy, WAYS["pickle 5"], WAYS["pickle 2"]])
def test_a_callback_that_leads_back_to_the_cache(way):
    source = Listener()
    source.cache[1] = source.cache[2] = 0
    new = way(source)
    assert new.heard == [] and new.cache is not source.cache
    new.cache[3] = 0
    assert [cause for _, cause in new.heard] == [Cause.EVICTED] and source.heard == []
    alone = way(source.cache)
    alone[3] = 0
    assert len(alone) == 2 and source.heard == []


@pytest.mark.parametrize(("name", "options"), [
    ("getsizeof", {"getsizeof": lambda value: 1}),
    ("timer", {"timer": lambda: 1.0}),
    ("on_removal", {"on_removal": lambda *told: None}),
    ("expiry", {"expiry": PerEntry(lambda key, value, now: now)}),
])
def test_what_cannot_be_pickled_is_named(name, options):
    cache = Cache(2, **options)
    with pytest.raises(TypeError, match=f"^{name}: .*cannot be pickled"):
        pickle.dumps(cache)
    assert copy.copy(cache) == cache == copy.deepcopy(cache)    # for which a function is as good as its name


class Tenant(Cache):
    def __init__(self, name):
        super().__init__(4, policy="lru")
        self.name = name
        self.lock = threading.Lock()

    def __getstate__(self):
        return {name: value for name, value in super().__getstate__().items() if name != "lock"}

    def __setstate__(self, state):
        super().__setstate__(state)
        self.lock = threading.Lock()


@every_way
def test_a_subclass_keeps_its_attributes_and_says_what_of_them_travels(way):
    cache = Tenant("blue")
    cache[1] = 2
    new = way(cache)
    assert type(new) is Tenant and new.name == "blue" and new == {1: 2}
    assert new.lock is not cache.lock and new.lock.acquire(blocking=False)


@every_way
def test_a_copy_has_counted_nothing(way):
    cache = Cache(4)
    cache[1] = 2
    cache.get(1)
    cache.get(2)
    stats = way(cache).stats()
    assert (stats.hits, stats.misses, stats.inserts, stats.evictions, stats.currsize) == (0, 0, 0, 0, 1)


@every_way
def test_a_load_in_the_air_stays_with_its_cache(way):
    cache = Cache(4)
    made = []

    def loader(key):
        made.append(way(cache))
        return key

    cache.get_or_load("k", loader)
    assert "k" not in made[0]
    assert made[0].get_or_load("k", lambda key: "its own") == "its own"


@every_way
@pytest.mark.parametrize("maxsize", [0, 2.5, None, math.inf])
def test_every_bound_travels(way, maxsize):
    cache = Cache(maxsize)
    assert way(cache).maxsize == cache.maxsize


def test_what_fitted_fits_though_floats_add_up_otherwise():
    sizes = [0.1, 0.2, 0.3, 0.7, 1e-17, 0.4] * 7
    cache = Cache(100, policy="lru")
    for key, size in enumerate(sizes):
        cache.set(key, key, size=size)
    for key in (40, 3, 17, 5):
        cache.get(key)
    cache.resize(cache.currsize)
    assert len(copy.copy(cache)) == len(cache)


# -- what was learned


def taught(**options):
    """A cache that has learned something: two kinds of keys, one asked for again soon, the other late."""
    cache = Cache(None, timer=Clock(0.0), expiry=Learned(memory_price=0.01, learner="manual", seed=3, **options))
    for step in range(600):
        cache.timer.now += 1.0
        for namespace, every in (("soon", 3), ("late", 170)):
            if step % every == 0 and cache._get_with((namespace, step % 7), None, None, None, namespace, None) is None:
                cache.set((namespace, step % 7), step, cost=1.0, namespace=namespace)
    cache.learn()
    return cache


@every_way
def test_what_was_learned_travels(way):
    cache = taught()
    weights = cache.stats().weights
    assert way(cache).stats().weights == pytest.approx(weights)
    cache.clear()           # what is held begins a wait when it comes in, and that is counted
    source, known = cache._knowledge().document(), way(cache)._knowledge().document()
    assert source["numbers"]["waits"] > 100 and source["keys"]
    assert known == source


@every_way
def test_entries_of_a_learning_cache_keep_namespace_and_cost(way):
    cache = taught()
    held = sorted(cache)
    assert held
    new = way(cache)
    mine, theirs = ({key: (one._explain(key)["cost"], one._names()[0]) for key in held} for one in (cache, new))
    assert {key: cost for key, (cost, _) in mine.items()} == {key: cost for key, (cost, _) in theirs.items()}
    assert set(new._names()[0]) == {"soon", "late"}


def test_the_guards_books_begin_anew():
    cache = taught()
    assert cache.stats().protected > 0 and copy.copy(cache).stats().protected == 0


class Mean:
    def __init__(self):
        self.seen = 0

    def learn(self, x, y):
        self.seen += 1

    def predict(self, x):
        return 1.0


@every_way
def test_two_learners_never_train_one_model(way):
    model = Mean()
    cache = taught(predictors=("table", model))
    new = way(cache)
    assert new._spec.predictors[1] is not model and new._spec.predictors[1].seen == model.seen


def test_values_that_may_have_changed_meanwhile_are_copied_and_not_pickled():
    cache = Cache(None, timer=Clock(), expiry=Learned(stale=0.01, learner="manual", seed=1))
    cache["learned"] = 1
    cache.set("declared", 2, ttl=50)
    assert copy.copy(cache) == copy.deepcopy(cache) == cache
    assert dict(pickle.loads(pickle.dumps(cache))) == {"declared": 2}
    assert copy.copy(cache)._watched("learned") and not copy.copy(cache)._watched("declared")


def test_a_pickle_of_another_version_is_refused():
    state = taught()._portrait(lasting=True)
    state["learned"]["layout"] = {}
    with pytest.raises(adaptcache.StateError, match="pickled"):
        Cache.__new__(Cache)._revive(state)
