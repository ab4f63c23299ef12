"""Every policy, every check: the live cache and the replay against a reference that can be read.

A new policy is checked in full by being listed in `references.POLICIES`.
"""
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from references import POLICIES, next_uses, optimum

import adaptcache
from adaptcache import Cache, _core

every_policy = pytest.mark.parametrize("policy", adaptcache.policies())
keys = st.integers(0, 7)
requests = st.lists(keys, max_size=60)
verbs = st.sampled_from(["get", "get", "get", "get", "set", "set", "set", "delete", "popitem", "in", "clear"])
operations = st.lists(st.tuples(verbs, keys, st.integers(0, 4)), max_size=60)


def test_every_policy_has_a_reference():
    assert set(POLICIES) == set(adaptcache.policies())


def unsalted(*args, **kwargs):
    """A cache whose policy has 0 for its salt, as the references and the replay have."""
    _core.policy_salt(-1)
    return Cache(*args, **kwargs)


def survivors(cache):
    return set(cache.keys())


@every_policy
@settings(max_examples=250, deadline=None)
@given(ops=operations, capacity=st.integers(0, 6))
def test_survivors_match_the_reference(policy, ops, capacity):
    """Of entries that count one each."""
    cache, reference = unsalted(capacity, policy=policy), POLICIES[policy](capacity)
    compare(cache, reference, [(verb, key, 1) for verb, key, _ in ops])


@every_policy
@settings(max_examples=250, deadline=None)
@given(ops=operations, capacity=st.integers(0, 6))
def test_survivors_match_the_reference_when_sizes_differ(policy, ops, capacity):
    """Sizes of 0 to 4, values too large and entries that grow included."""
    cache, reference = unsalted(capacity, getsizeof=lambda value: value, policy=policy), POLICIES[policy](capacity)
    compare(cache, reference, ops)


def compare(cache, reference, ops):
    for verb, key, size in ops:
        held = key in reference.sizes
        if verb == "get":
            assert (cache.get(key) is not None) == reference.get(key)
        elif verb == "in":
            assert (key in cache) == held
        elif verb == "delete":
            if held:
                del cache[key]
            else:
                with pytest.raises(KeyError):
                    del cache[key]
            reference.delete(key)
        elif verb == "popitem":
            if reference.sizes:
                assert cache.popitem()[0] == reference.popitem()
            else:
                with pytest.raises(KeyError):
                    cache.popitem()
        elif verb == "clear":
            cache.clear()
            reference.clear()
        elif size > reference.capacity:
            with pytest.raises(ValueError, match="value too large"):
                cache[key] = size
        else:
            cache[key] = size
            reference.set(key, size)
        assert survivors(cache) == set(reference.sizes)
        assert list(cache) == reference.order, "iteration runs from the oldest"
        assert cache.currsize == reference.total
        cache._check()
    while reference.sizes:
        assert cache.popitem()[0] == reference.popitem(), "the same ones leave in the same order"


@every_policy
@settings(max_examples=100, deadline=None)
@given(ops=operations, capacities=st.lists(st.integers(0, 6), min_size=1, max_size=4))
def test_survivors_match_the_reference_after_resizing(policy, ops, capacities):
    cache, reference = unsalted(6, policy=policy), POLICIES[policy](6)
    for i, capacity in enumerate(capacities):
        compare_some(cache, reference, ops[i :: len(capacities)])
        cache.resize(capacity)
        reference.resize(capacity)
        assert list(cache) == reference.order
        assert cache.maxsize == capacity
        cache._check()


def compare_some(cache, reference, ops):
    for _, key, _ in ops:
        if cache.get(key) is None and reference.capacity:
            cache[key] = 1
        if not reference.get(key) and reference.capacity:
            reference.set(key)


@every_policy
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), capacity=st.sampled_from([0, 0.5, 1, 3, 7.25, 12, 20, 40, float("inf")]), sized=st.booleans())
def test_survivors_match_the_reference_over_a_long_life(policy, seed, capacity, sized):
    """Hundreds of skewed requests for dozens of keys: sizes in quarters, zero included, costs, and another capacity now and then."""
    rng = np.random.default_rng(seed)
    cache, reference = unsalted(capacity, policy=policy), POLICIES[policy](capacity)
    for turn in range(300):
        key = int(48 * rng.random() ** 3)
        size = int(rng.integers(0, 9)) / 4 if sized else 1
        cost = None if rng.random() < 0.5 else float(rng.integers(0, 4))
        verb = rng.choice(["get", "set", "delete", "popitem", "resize", "clear"], p=[0.4, 0.54, 0.03, 0.01, 0.017, 0.003])
        if verb == "get" and reference.get(key):
            assert cache.get(key) is not None
        elif verb in ("get", "set") and size <= reference.capacity:
            cache.set(key, turn, size=size, cost=cost)
            reference.set(key, size, cost)
        elif verb == "delete":
            cache.pop(key, None)
            reference.delete(key)
        elif verb == "popitem" and reference.sizes:
            assert cache.popitem()[0] == reference.popitem()
        elif verb == "resize":
            capacity = float(rng.choice([1, 2.5, 5, 11, 24, 48]))
            cache.resize(capacity)
            reference.resize(capacity)
        elif verb == "clear":
            cache.clear()
            reference.clear()
        assert list(cache) == reference.order
        assert cache.currsize == reference.total
        cache._check()


@every_policy
@settings(max_examples=150, deadline=None)
@given(requests=requests, capacity=st.integers(1, 6))
def test_replay_hits_exactly_where_the_reference_does(policy, requests, capacity):
    reference = POLICIES[policy](capacity)
    expected = []
    for key in requests:
        expected.append(reference.get(key))
        if not expected[-1]:
            reference.set(key)
    assert replayed(policy, requests, capacity) == expected


@every_policy
@settings(max_examples=150, deadline=None)
@given(ops=st.lists(st.tuples(st.integers(0, 2), keys), max_size=60), capacity=st.integers(1, 6))
def test_replay_with_sets_and_deletes_hits_where_the_reference_does(policy, ops, capacity):
    reference = POLICIES[policy](capacity)
    expected = []
    for op, key in ops:
        if op == 2:
            reference.delete(key)
        elif op == 1:
            reference.set(key)
        else:
            expected.append(reference.get(key))
            if not expected[-1]:
                reference.set(key)
    assert replayed(policy, [key for _, key in ops], capacity, [op for op, _ in ops]) == expected


def replayed(policy, requests, capacity, ops=None, future=None):
    """Which gets hit, row by row, as the simulator's loop sees it."""
    replay = _core.PolicyReplay(policy, capacity, 8)
    key = np.array(requests, np.uint32)
    op = None if ops is None else np.array(ops, np.uint8)
    size = np.full(len(requests), 3.0)
    hits = []
    for row in range(len(requests)):
        before, asked = replay.hits, replay.requests
        replay.run(key, size, op, future, row, row + 1)
        if replay.requests > asked:
            hits.append(replay.hits > before)
    assert replay.bytes_hit == 3.0 * sum(hits)
    assert replay.bytes_requested == 3.0 * len(hits)
    return hits


@every_policy
@settings(max_examples=50, deadline=None)
@given(requests=requests, capacity=st.integers(1, 6))
def test_replay_in_one_go_counts_what_it_counts_row_by_row(policy, requests, capacity):
    replay = _core.PolicyReplay(policy, capacity, 8)
    replay.run(np.array(requests, np.uint32), None, None, None, 0, len(requests))
    assert replay.requests == len(requests)
    assert replay.hits == sum(replayed(policy, requests, capacity))


@every_policy
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), capacity=st.integers(1, 40))
def test_replay_of_many_keys_hits_as_often_as_the_reference(policy, seed, capacity):
    rng = np.random.default_rng(seed)
    key = (64 * rng.random(600) ** rng.integers(1, 5)).astype(np.uint32)
    reference, replay, hits = POLICIES[policy](capacity), _core.PolicyReplay(policy, capacity, 64), 0
    for row, asked in enumerate(key.tolist()):
        if reference.get(asked):
            hits += 1
        else:
            reference.set(asked)
        replay.run(key, None, None, None, row, row + 1)
        assert replay.hits == hits, f"row {row}"


# -- the bound

short = st.lists(st.integers(0, 4), max_size=11)


@settings(max_examples=200, deadline=None)
@given(requests=short, capacity=st.integers(1, 4))
@example(requests=[0, 1, 2, 3, 0, 1, 4, 0, 1, 2, 3], capacity=3)
def test_belady_equals_the_best_of_all_choices(requests, capacity):
    future = np.array(next_uses(requests), np.int64)
    assert sum(replayed("belady", requests, capacity, future=future)) == optimum(requests, capacity)


@every_policy
@settings(max_examples=50, deadline=None)
@given(requests=short, capacity=st.integers(1, 4))
def test_no_policy_beats_belady(policy, requests, capacity):
    future = np.array(next_uses(requests), np.int64)
    best = sum(replayed("belady", requests, capacity, future=future))
    assert sum(replayed(policy, requests, capacity)) <= best


# -- the sieve's hand, step by step


def test_sieve_spares_once_what_was_visited():
    cache = Cache(3, policy="sieve")
    cache.update(a=1, b=2, c=3)
    cache["a"]
    cache["d"] = 4                      # the hand passes a and takes b
    assert list(cache) == ["a", "c", "d"]
    cache["e"] = 5                      # it goes on at c
    assert list(cache) == ["a", "d", "e"]
    cache["d"], cache["e"]
    cache["f"] = 6                      # it spares d and e, and begins again at a, which was spared once
    assert list(cache) == ["d", "e", "f"]


def test_sieve_hand_moves_towards_the_newest_when_its_entry_is_deleted():
    cache, reference = unsalted(4, policy="sieve"), POLICIES["sieve"](4)
    for key in "abcd":
        cache[key] = key
        reference.set(key)
    for key in "ab":
        cache[key]
        reference.get(key)
    cache["e"] = 1                      # takes c; the hand rests behind it, on d
    reference.set("e")
    assert reference.hand == "d"
    del cache["d"]
    reference.delete("d")
    assert reference.hand == "e"
    cache["f"] = 1
    reference.set("f")
    cache["g"] = 1
    reference.set("g")
    assert list(cache) == reference.order
