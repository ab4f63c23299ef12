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
    reference = POLICIES[policy].replayed(capacity)
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
    reference = POLICIES[policy].replayed(capacity)
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
    reference, replay, hits = POLICIES[policy].replayed(capacity), _core.PolicyReplay(policy, capacity, 64), 0
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


@settings(max_examples=200, deadline=None)
@given(requests=short, capacity=st.integers(1, 4))
@example(requests=[0, 1, 0, 2, 0, 1], capacity=1)
def test_belady_with_bypass_equals_the_best_of_all_choices_with_refusals(requests, capacity):
    future = np.array(next_uses(requests), np.int64)
    assert sum(replayed("belady-bypass", requests, capacity, future=future)) == optimum(requests, capacity, refusing=True)


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


# -- the others, by what their papers promise


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32), capacity=st.integers(1, 12))
def test_aged_counts_are_halved_and_keep_their_order(seed, capacity):
    rng = np.random.default_rng(seed)
    cache, reference = Cache(capacity, policy="lfu"), POLICIES["lfu"](capacity)
    for _ in range(200):
        key = int(20 * rng.random() ** 3)
        if rng.random() < 0.05:
            cache.age_counts()
            reference.age()
        elif reference.get(key):
            cache[key]
        else:
            cache[key] = key
            reference.set(key)
        assert list(cache) == reference.order
        cache._check()


def test_what_was_popular_long_ago_leaves_once_counts_are_aged():
    cache = Cache(2, policy="lfu")
    cache["old"] = cache["new"] = 1
    for _ in range(40):
        cache["old"]
    for _ in range(6):
        cache["new"]
    for _ in range(3):
        cache.age_counts()              # 41 uses and 7 become 6 and 1
    for _ in range(6):
        cache["new"]
    cache["newer"] = 1
    assert "old" not in cache and "new" in cache


@pytest.mark.parametrize("policy", [policy for policy in adaptcache.policies() if policy in ("fifo", "lru", "sieve", "slru")])
def test_policies_without_counts_refuse_to_age_them(policy):
    cache = Cache(3, policy=policy)
    cache["a"] = 1
    with pytest.raises(ValueError, match=f"age_counts: the policy '{policy}' keeps no counts"):
        cache.age_counts()
    assert list(cache) == ["a"]


def test_slru_keeps_what_was_hit_through_a_scan():
    cache = Cache(10, policy="slru")
    for key in range(8):
        cache[key] = cache[key] = key       # overwritten: hit once
    for key in range(100, 200):
        cache[key] = key
    assert [key for key in range(8) if key in cache] == list(range(8))


def test_s3fifo_lets_in_at_once_who_comes_back_soon():
    cache = Cache(20, policy="s3fifo")
    for key in range(40):
        cache[key] = key
    gone = [key for key in range(40) if key not in cache]
    back = gone[-1]
    cache[back] = back                      # it is remembered
    for key in range(100, 110):
        cache[key] = key
    assert back in cache, "ten newcomers went through the small queue, and it was not there"


def test_s3fifo_forgets_what_left_when_it_is_cleared():
    cache = Cache(20, policy="s3fifo")
    for key in range(40):
        cache[key] = key
    back = [key for key in range(40) if key not in cache][-1]
    cache.clear()
    for key in [*range(200, 220), back, *range(300, 305)]:
        cache[key] = key
    assert back not in cache, "it went through the small queue like anyone else"


def test_lirs_holds_most_of_a_loop_that_does_not_fit():
    """Where recency alone keeps nothing."""
    loop = np.tile(np.arange(120, dtype=np.uint32), 50)
    lirs, lru = (_core.PolicyReplay(policy, 100, 120) for policy in ("lirs", "lru"))
    for replay in (lirs, lru):
        replay.run(loop, None, None, None, 0, len(loop))
    assert lru.hits == 0
    assert lirs.hits == 49 * 99


def test_gdsf_keeps_what_is_dear_for_its_size():
    cache = Cache(10, policy="gdsf")
    cache.set("dear", 1, cost=50, size=5)
    cache.set("cheap", 1, cost=1, size=5)
    cache.set("other", 1, cost=2, size=5)
    assert set(cache) == {"dear", "other"}
    cache.set("dear", 1, cost=0.1, size=5)      # now it is known to be cheap, though used twice
    cache.set("last", 1, cost=1, size=5)
    assert set(cache) == {"other", "last"}


def test_gdsf_keeps_a_cost_that_nobody_takes_back():
    cache = Cache(2, policy="gdsf")
    cache.set("dear", 1, cost=50)
    cache["dear"] = 2                           # overwritten without a word of its cost
    cache.set("a", 1, cost=60)
    cache.set("b", 1, cost=70)
    assert set(cache) == {"dear", "b"}


def test_gdsf_overtakes_what_is_dear_and_not_used():
    cache = Cache(2, policy="gdsf")
    cache.set("dear", 1, cost=50)
    for key in range(60):
        cache[key] = 1
    assert "dear" not in cache


def test_gdsf_tells_small_differences_after_a_long_life():
    """A clock that was never set back would stand at 4e18 by then, and a quarter would be nothing beside it."""
    cache = Cache(2, policy="gdsf")
    for turn in range(4000):
        cache.set(turn, 1, cost=1e15)
    for key in list(cache):
        cache.set(key, 1, cost=0)
    cache.set("more", 1, cost=1.25)
    cache.set("less", 1, cost=1.0)
    cache.set("next", 1, cost=1.5)
    assert set(cache) == {"more", "next"}


def test_gdsf_holds_what_weighs_nothing():
    cache = Cache(2, policy="gdsf")
    cache.set("light", 1, size=0, cost=0)
    for key in range(50):
        cache.set(key, 1, cost=1e9)
    assert "light" in cache


@every_policy
def test_what_is_remembered_is_bounded_by_what_is_held(policy):
    """Thousands of keys go through a cache of ten: no structure grows beyond it."""
    cache = Cache(10, policy=policy)
    for key in range(100):
        cache[key] = key
    before = process_size()
    # (A sanitizer holds back what was freed, so that its use is seen: with many keys the process grows by that.)
    for key in range(10_000 if _core.CHECKED else 300_000):
        cache[key] = key
    cache._check()
    assert process_size() - before < 8 << 20


def process_size():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
