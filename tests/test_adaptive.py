"""The policy "adaptive", part by part: the value of entries, what the sample teaches, the choice of a way, and what comes of it.

That its victims are the reference's is in test_policies.py, with those of all the others.
"""
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from references import POLICIES

from adaptcache import Cache, _core
from adaptcache import _coretest as core

OPEN, STRICT = 0, 1
EDGES = [core.age_edge(b) for b in range(core.AGES)]
seeds = st.integers(0, 2**32)


# -- density


@settings(max_examples=40, deadline=None)
@given(entries=st.floats(1, 1e6), ages=st.lists(st.integers(0, 2**32 - 1), max_size=30))
def test_an_age_lies_between_the_edges_of_its_bin(entries, ages):
    trials = core.Trials(entries)
    for age in ages:
        b, parts = trials.bin(age), age * 256 / entries
        assert EDGES[b] <= parts * (1 + 1e-6)
        assert b == core.AGES - 1 or parts * (1 - 1e-6) < EDGES[b + 1]


def test_edges_rise_by_a_quarter_of_an_octave():
    assert EDGES[:10] == [0, 1, 1.25, 1.5, 1.75, 2, 2.5, 3, 3.5, 4]
    assert all(EDGES[b + 4] == 2 * EDGES[b] for b in range(1, core.AGES - 4))
    assert EDGES[-1] == 32 * 256, "32 times the cache's size"


def best_over_all_horizons(trials, kind):
    """By the definition: of those that are in bin b, how many hits come until the horizon, for the time held until then."""
    cells = [(trials.risk(k), trials.came(k)) for k in range(core.KINDS)]
    weight, law = trials.weight, trials.law(kind)
    left, hits, time = 1.0, [], []
    for b in range(core.AGES - 1):
        everyone = (0.01 * weight + sum(came[b] for _, came in cells)) / (weight + sum(risk[b] for risk, _ in cells))
        risk, came = cells[kind][0][b], cells[kind][1][b]
        share = (came + weight * (2 * everyone + 4 * law[b])) / (risk + 6 * weight)
        hits.append(left * share)
        time.append((left - left * share / 2) * (EDGES[b + 1] - EDGES[b]))
        left = max(left * (1 - share), 1e-9)
    hits, time = np.array(hits), np.array(time)
    return [max(np.cumsum(hits[b:]) / np.cumsum(time[b:])) for b in range(core.AGES - 1)] + [0]


@settings(max_examples=25, deadline=None)
@given(seed=seeds, many=st.sampled_from([0, 1, 30, 1000]), kind=st.integers(0, core.KINDS - 1))
def test_a_value_is_the_most_hits_per_time_of_all_horizons(seed, many, kind):
    rng = np.random.default_rng(seed)
    trials = core.Trials(100)
    for k in range(core.KINDS):
        for b in range(core.AGES - 1):
            risk = many * rng.random() ** 4
            trials.teach(k, b, risk, risk * rng.random() ** 6)
    trials.make()
    # (Hits that are a billionth of those before them are known to few digits.)
    assert trials.value(kind) == pytest.approx(best_over_all_horizons(trials, kind), rel=1e-4)


def test_a_kind_that_comes_back_at_a_known_time_is_worth_more_the_nearer_it_is():
    trials, kind = core.Trials(100), core.kind_of(5, 4)
    for b in range(core.AGES - 1):
        trials.teach(kind, b, 5000 if b <= 20 else 0, 5000 if b == 20 else 0)
    trials.make()
    value = trials.value(kind)
    assert all(a < b for a, b in itertools.pairwise(value[:21]))
    assert value[20] > 10 * value[21], "who is not back by then is like anyone"


# -- labels


@settings(max_examples=40, deadline=None)
@given(keys=st.lists(st.integers(0, 12), max_size=200))
def test_labels_are_the_waits_counted(keys):
    """Everything is in the sample; a wait counts where it ended, and in every bin that it got beyond."""
    trials, entries = core.Trials(8), 8
    trials.reserve(500)
    last, kinds = {}, {}
    risk, came = np.zeros((2, core.KINDS, core.AGES))
    labels = 0
    for now, key in enumerate(keys, 1):
        if key in last:
            b = max(b for b in range(core.AGES) if EDGES[b] <= (now - last[key]) * 256 / entries)
            risk[kinds[key], : b + 1] += 1
            came[kinds[key], b] += 1
            labels += 1
        kind = core.kind_of(1 + key % 3, key % 5)
        trials.hear(key, kind, 1, now)
        last[key], kinds[key] = now, kind
    assert 1 <= trials.weight <= 1 + labels / 10_000, "later labels weigh more, by very little"
    for kind in set(kinds.values()):
        assert trials.came(kind) == pytest.approx(came[kind], rel=0.03)
        # Who waits still has got somewhere, and the sweep may have seen it.
        most = risk[kind].copy()
        for key, k in kinds.items():
            if k == kind:
                most[: max(b for b in range(core.AGES) if EDGES[b] <= (len(keys) - last[key]) * 256 / entries)] += 1
        assert (np.array(trials.risk(kind)) >= risk[kind] - 1e-5).all()
        assert (np.array(trials.risk(kind)) <= most * 1.03 + 1e-5).all()


def test_who_does_not_come_back_is_counted_as_far_as_it_got_and_forgotten_at_the_end():
    trials = core.Trials(4)
    trials.reserve(1)                   # 32 cells, which the sweep passes every 8 requests
    kind, other = core.kind_of(1, 0), core.kind_of(2, 1)
    trials.hear(99, kind, 1, 0)
    for now in range(1, 200):
        trials.hear(1, other, 1, now)
    assert trials.n == 1, "99 waited for more than 32 times the size"
    assert trials.risk(kind) == pytest.approx([1] * (core.AGES - 1) + [0], rel=0.02)
    assert trials.came(kind) == [0] * core.AGES


def test_labels_fade():
    trials = core.Trials(8)
    trials.reserve(8)
    for now in range(20_001):
        trials.hear(1, 0, 1, now)
    assert trials.weight == pytest.approx(2, rel=1e-6), "a label of the beginning counts half"


# -- surprise


def steady(trials, kind, n, now=0, keys=50):
    """So many keys of one kind, each asked for in its turn."""
    for tick in range(now + 1, now + n + 1):
        trials.hear(tick % keys, kind, 1, tick)
    return now + n


def test_what_happens_as_was_said_is_not_forgotten():
    trials, kind = core.Trials(100), core.kind_of(3, 4)
    trials.reserve(100)
    steady(trials, kind, 10_000)
    assert sum(trials.came(kind)) > 9_900


@pytest.mark.parametrize("soon", [False, True], ids=["nobody comes back", "all come sooner"])
def test_of_a_kind_that_does_what_it_never_did_a_few_labels_count_on(soon):
    trials, kind = core.Trials(100), core.kind_of(3, 4)
    trials.reserve(100)
    now = steady(trials, kind, 5000, keys=400)
    before = sum(trials.came(kind))
    assert before > 4000
    if soon:
        steady(trials, kind, 300, now, 8)
    else:
        for key in range(1000, 3000):
            trials.hear(key, kind, 1, now + key)
    assert sum(trials.came(kind)) < 1000
    for cells in (trials.risk, trials.came):
        assert cells(core.KINDS) == pytest.approx(np.sum([cells(k) for k in range(core.KINDS)], axis=0), abs=0.1), "so of all together"


def test_the_law_believes_that_some_keys_were_asked_for_the_last_time():
    """So who is far beyond its gap is not expected any more; the more so, the less often it was asked for."""
    for kind in (core.kind_of(3, 2), core.kind_of(40, 2)):
        law = core.Trials(100).law(kind)
        assert law[20] > 0.05 > law[core.AGES - 2]
    assert core.Trials(100).law(core.kind_of(2, 2))[30] < core.Trials(100).law(core.kind_of(5, 2))[30]


# -- trials


@settings(max_examples=60, deadline=None)
@given(
    seed=seeds, entries=st.sampled_from([1, 2, 3.5, 20, 300, 5000, 1e6]), slots=st.sampled_from([0, 1, 3, 50]),
    steps=st.lists(st.tuples(st.sampled_from(["hear"] * 8 + ["thin", "scale", "clear", "reserve"]), st.integers(1, 150)), max_size=25),
)
def test_trials_are_sound_whatever_comes(seed, entries, slots, steps):
    rng, now = np.random.default_rng(seed), 0
    trials = core.Trials(entries, seed)
    trials.reserve(slots)
    for verb, n in steps:
        if verb == "hear":
            for key in (400 * rng.random(n) ** 2).astype(int):
                now += int(rng.integers(1, 4))
                trials.hear(key, core.kind_of(1 + key % 9, key % 11), 1 + key % 4, now)
        elif verb == "thin":
            trials.thin()
        elif verb == "scale":
            trials.scale(1 + n**2)
        elif verb == "clear":
            trials.clear()
        else:
            trials.reserve(n)
        assert trials.sound()
    assert all(0 <= value < np.inf for kind in range(core.KINDS) for value in trials.value(kind))


def test_a_sample_that_is_full_hears_half_as_many_keys():
    trials = core.Trials(1000)
    trials.reserve(4)
    for key in range(64):
        trials.hear(key, 0, 1, key)
    assert trials.n == 64
    trials.hear(64, 0, 1, 64)
    assert 16 <= trials.n <= 48
    assert trials.sound()


def test_what_was_learned_moves_with_the_size():
    trials = core.Trials(100)
    kind, wider = core.kind_of(3, 5), core.kind_of(3, 4)
    trials.teach(kind, 20, 7, 3)
    trials.scale(200)                   # the same ages are half as many parts of the size
    assert trials.risk(wider)[16] == 7 and trials.came(wider)[16] == 3
    assert sum(trials.risk(kind)) == 0
    trials.scale(210)                   # no octave
    assert trials.risk(wider)[16] == 7
    trials.scale(100)
    assert trials.risk(kind)[20] == 7


class Shelf:
    """The policy of the core, asked as a store asks; its hits."""

    def __init__(self, capacity, now=0):
        self.policy = core.Adaptive(capacity, capacity + 2, now)
        self.capacity = capacity
        self.slots = {}
        self.keys = {}

    def get(self, key):
        slot = self.slots.get(key)
        if slot is not None:
            self.policy.hit(slot)
            return True
        self.policy.coming(key)
        if len(self.slots) >= self.capacity:
            victim = self.policy.victim()
            self.policy.remove(victim, True)
            del self.slots[self.keys.pop(victim)]
        slot = self.slots[key] = self.policy.insert(key)
        self.keys[slot] = key
        return False

    def serve(self, keys):
        """The share of hits."""
        return sum(map(self.get, keys)) / len(keys)


def loop(n, around):
    return (np.arange(n) % around).tolist()


def loop_among_strangers(n, around):
    """A loop, and between its keys others that are asked for once."""
    i = np.arange(n // 2)
    return np.column_stack([i % around, 10**6 + i]).ravel().tolist()


def walk(n, reach, seed):
    """Keys near a point that moves on steadily: who was asked for lately is asked for again."""
    rng = np.random.default_rng(seed)
    return (np.arange(n) // 4 + (reach * rng.random(n) ** 2).astype(int)).tolist()


def test_the_better_way_is_found_and_left_again():
    shelf = Shelf(100)
    assert shelf.policy.way == OPEN
    shelf.serve(loop(20_000, 400))
    assert shelf.policy.way == STRICT
    shelf.serve([2 * 10**6 + key for key in walk(20_000, 120, 1)])
    assert shelf.policy.way == OPEN
    assert shelf.policy.check()


def test_the_books_of_the_ways_outlive_a_clear():
    shelf = Shelf(100)
    shelf.serve(loop(20_000, 400))
    spent, slots = shelf.policy.ways, list(shelf.slots.values())
    assert sum(spent) == 20_000 and spent[STRICT] > 10_000
    shelf.policy.hit(slots[0])
    for slot in slots:
        shelf.policy.remove(slot, False)
    shelf.policy.clear()
    assert shelf.policy.way == OPEN and shelf.policy.ways == [spent[OPEN], spent[STRICT] + 1]
    shelf.policy.insert(1)
    assert shelf.policy.ways == [spent[OPEN] + 1, spent[STRICT] + 1]


def test_a_newcomer_that_was_deleted_is_the_last_one_no_more():
    policy = core.Adaptive(3, 5)
    slot = policy.insert(1)
    policy.remove(slot, False)
    assert policy.check()


@settings(max_examples=10, deadline=None)
@given(seed=seeds, capacity=st.sampled_from([1, 5, 30]), now=st.sampled_from([0, 1000, 2**32 - 200, 2**32 - 1]))
def test_it_matters_to_nothing_when_a_cache_began(seed, capacity, now):
    """The counter of requests wraps; the reference's begins at nought."""
    rng = np.random.default_rng(seed)
    shelf, reference = Shelf(capacity, now), POLICIES["adaptive"].replayed(capacity)
    for key in (80 * rng.random(400) ** 2).astype(int).tolist():
        hit = reference.get(key)
        if not hit:
            reference.set(key)
        assert shelf.get(key) == hit
        assert shelf.policy.check()
    assert set(shelf.slots) == set(reference.sizes)


@settings(max_examples=4, deadline=None)
@given(seed=seeds)
def test_a_long_loop_is_answered_as_by_the_reference(seed):
    """Through changes of way, full samples and values made many times."""
    rng = np.random.default_rng(seed)
    capacity = int(rng.integers(10, 25))
    shelf, reference = Shelf(capacity), POLICIES["adaptive"].replayed(capacity)
    keys = loop(1600, 4 * capacity) + [3 * 10**6 + key for key in walk(800, capacity, seed)]
    ways = []
    for key in keys:
        ways.append(shelf.policy.way)
        hit = reference.get(key)
        if not hit:
            reference.set(key)
        assert shelf.get(key) == hit
        assert shelf.policy.way == reference.trials.way
    assert set(ways) == {OPEN, STRICT}
    replay = _core.StreamReplay("adaptive", capacity, 0)
    for start in range(0, len(keys), 700):
        replay.run(np.array(keys[start:start + 700], np.uint64))
        done = ways[:start + 700]
        assert replay.ways == {"open": done.count(OPEN), "strict": done.count(STRICT)}


# -- hit ratios


def hits(policy, keys, capacity, skip=0):
    """The share of hits once `skip` requests are over."""
    numbers = np.unique(keys, return_inverse=True)[1].astype(np.uint32)
    replay = _core.PolicyReplay(policy, capacity, int(numbers.max()) + 1)
    replay.run(numbers, None, None, None, 0, skip)
    before = replay.hits
    replay.run(numbers, None, None, None, skip, len(numbers))
    return (replay.hits - before) / (len(numbers) - skip)


@pytest.mark.parametrize("capacity", [50, 500, 3000])
def test_of_a_loop_of_twice_the_size_nearly_half_stays(capacity):
    keys = np.tile(np.arange(2 * capacity), 40)
    assert hits("lru", keys, capacity) == 0
    assert hits("adaptive", keys, capacity, len(keys) // 2) > 0.48


def shifting_zipf(n, seed):
    """Popularity by rank, and the ranks move on all the time."""
    rng = np.random.default_rng(seed)
    return np.minimum(rng.zipf(1.2, n), 10**6) + np.arange(n) // 20


@pytest.mark.parametrize("keys", [walk(60_000, 800, 3), walk(60_000, 2000, 4), shifting_zipf(60_000, 5)], ids=["near", "far", "zipf"])
@pytest.mark.parametrize("capacity", [100, 400])
def test_where_recency_is_right_it_is_no_worse_than_lru(keys, capacity):
    """By half a point once it has learned, and by one with what learning cost."""
    half = len(keys) // 2
    assert hits("adaptive", keys, capacity, half) > hits("lru", keys, capacity, half) - 0.005
    assert hits("adaptive", keys, capacity) > hits("lru", keys, capacity) - 0.01


def test_after_a_change_of_workload_it_unlearns():
    """What recency told for long, and then a loop of more than fits among keys that come once, of which LRU keeps nothing."""
    capacity = 200
    before, after = walk(60_000, 600, 6), loop_among_strangers(20 * capacity, 260)
    keys = np.array(before + [2 * 10**8 + key for key in after])
    late = len(before) + 10 * capacity
    assert hits("lru", keys, capacity, late) == 0
    assert hits("adaptive", keys, capacity, late) > 0.25


# -- a cache that lives


@pytest.mark.parametrize("capacity", [0, 0.5, 1, 2, 3, float("inf")])
def test_caches_of_any_size(capacity):
    cache = Cache(capacity, policy="adaptive")
    for key in (30 * np.random.default_rng(1).random(600) ** 2).astype(int).tolist():
        if capacity >= 1:
            cache[key] = key
            assert key in cache
        cache._check()
    assert len(cache) == (min(capacity, 30) if capacity >= 1 else 0)
    while cache:
        cache.popitem()
        cache._check()


# Sums of these are exact. What is small beside something huge is lost in `currsize`, as in any sum of floats, and a build that
# checks itself after every operation says so.
WEIGHTS = [[0], [0, 1], [5e-324, 1], [1e-300, 1e-320, 2], [2.0**996, 2.0**960], [2.0**996, 2.0**980, 0, 3 * 2.0**960]]
LOST = [[1e300, 1], [1e300, 1e-300, 0, 3]]


@pytest.mark.parametrize("sizes", WEIGHTS if _core.CHECKED else WEIGHTS + LOST)
@pytest.mark.parametrize("capacity", [0, 10, 1.5e300, float("inf")])
def test_weights_of_any_size(sizes, capacity):
    cache = Cache(capacity, policy="adaptive")
    rng = np.random.default_rng(2)
    for turn in range(400):
        key, size = int(40 * rng.random() ** 2), sizes[turn % len(sizes)]
        if size <= capacity:
            cache.set(key, turn, size=size)
        cache.get(int(40 * rng.random() ** 2))
    cache._check()
    assert cache.currsize <= capacity
    while cache:
        cache.popitem()
    cache._check()


def test_what_is_light_stays_and_what_is_heavy_leaves():
    cache = Cache(100, policy="adaptive")
    rng = np.random.default_rng(3)
    for _ in range(4000):
        key = int(rng.integers(0, 200))
        if cache.get(key) is None:
            cache.set(key, key, size=10 if key % 2 else 1)
    assert sum(key % 2 == 0 for key in cache) > 8 * sum(key % 2 for key in cache)


def test_a_resize_a_clear_and_many_entries():
    cache = Cache(10_000, policy="adaptive")
    keys = (30_000 * np.random.default_rng(4).random(20_000) ** 2).astype(int).tolist()

    def serve(keys):
        for key in keys:
            if cache.get(key) is None:
                cache[key] = key
        cache._check()

    serve(keys)
    cache.resize(10)
    cache._check()
    assert len(cache) == 10
    serve(keys[:3000])
    assert len(cache) == 10
    cache.resize(10_000)
    serve(keys)
    cache.clear()
    cache._check()
    assert len(cache) == 0
    cache.resize(70_000)
    serve(range(80_000))
    assert len(cache) == 70_000
    serve(range(79_000, 80_000))


def test_after_enough_labels_one_key_in_eight_is_heard_until_a_surprise():
    """The core and the reference go on alike."""
    _core.policy_salt(-1)
    cache, reference = Cache(20, policy="adaptive"), POLICIES["adaptive"](20)
    keys = np.random.default_rng(3).zipf(1.2, 45_000) % 60
    for n, key in enumerate(keys.tolist()):
        if cache.get(key) is None:
            cache[key] = True
        if not reference.get(key):
            reference.set(key)
        if n % 1000 == 0 or n > 40_000:
            assert set(cache) == set(reference.sizes)
    cache._check()
    assert reference.trials.labels > 30_000 and reference.trials.sample < 2**61
    # And when what was learned is true no more, as many as ever.
    for key in loop_among_strangers(4000, 26):
        if cache.get(-1 - key) is None:
            cache[-1 - key] = True
        if not reference.get(-1 - key):
            reference.set(-1 - key)
        assert set(cache) == set(reference.sizes)
    cache._check()
    assert reference.trials.labels < 30_000 and reference.trials.sample >= 2**61
