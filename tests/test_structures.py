"""The structures of the core, one by one, against plain references."""
import math
import random
from collections import deque

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from references import Sketch, Slots, Timers

from adaptcache import _coretest as core

CENTURY = 100 * 365 * 86400 * 10**9
LAST = core.NEVER - 1
quick = settings(max_examples=200, deadline=None)


# -- arena and list


@quick
@given(st.lists(st.one_of(st.just("take"), st.just("grow"), st.integers(0, 30))), st.integers(0, 9))
def test_arena_never_hands_out_a_slot_twice(steps, cap):
    arena = core.Arena(cap)
    held = []
    for step in steps:
        if step == "take":
            slot = arena.take()
            if slot == core.NIL:
                assert len(held) == arena.cap - 1, "refused although a slot was free"
            else:
                assert slot not in held and 1 <= slot < arena.cap and arena.used(slot)
                held.append(slot)
        elif step == "grow":
            assert arena.reserve(arena.cap + 3) == 0
        elif held:
            slot = held.pop(step % len(held))
            arena.give(slot)
            assert not arena.used(slot)
        assert arena.n == len(held)
        assert all(arena.used(slot) for slot in held)


def test_arena_keeps_its_size_when_asked_for_less():
    arena = core.Arena(10)
    assert arena.reserve(3) == 0
    assert arena.cap == 10


@quick
@given(st.lists(st.one_of(st.just("push"), st.integers(0, 30))))
def test_list_keeps_order_under_removal_anywhere(steps):
    order = core.IList(64)
    newest_first = deque()
    for step in steps:
        if step == "push" and len(newest_first) < 60:
            newest_first.appendleft(order.push())
        elif step != "push" and newest_first:
            slot = newest_first[step % len(newest_first)]
            newest_first.remove(slot)
            order.remove(slot)
        assert order.sound()
        assert order.items() == list(newest_first)


# -- table

_INVERSE = pow(0x9E3779B97F4A7C15, -1, 2**64)


def hash_with(tag, low):
    """The hash whose tag is `tag`; `low` tells apart those that share it."""
    mixed = ((tag << 32 | low) * _INVERSE) % 2**64
    unsigned = mixed ^ mixed >> 32
    return unsigned - 2**64 if unsigned >= 2**63 else unsigned


# Few homes, some of them at the end of the smallest tables, so that probes run into one another and round.
tags = st.sampled_from([0, 1, 6, 7, 8, 14, 15, 16, 31, 63, 2**32 - 1, 0x80000007])
hashes = st.builds(hash_with, tags, st.integers(0, 2)) | st.integers(-(2**63), 2**63 - 1) | st.integers(0, 40)


@quick
@given(tags, st.integers(0, 2**32 - 1))
def test_hashes_can_be_made_to_collide(tag, low):
    assert core.tag_of(hash_with(tag, low)) == tag


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(hashes, st.booleans(), st.integers(0, 50)), max_size=60), st.sampled_from([0, 8, 40]))
def test_table_finds_what_a_dict_finds(steps, expected):
    table, reference, filed = core.Table(expected), Slots(), []
    for slot, (hash, removes, which) in enumerate(steps, start=1):
        before = table.version
        if removes and filed:
            gone = filed.pop(which % len(filed))
            table.remove(*gone)
            reference.remove(*gone)
        else:
            assert table.reserve() == 0
            table.insert(hash, slot)
            reference.insert(hash, slot)
            filed.append((hash, slot))
        assert table.version > before, "whoever ran user code would not see the change"
        assert table.n == len(reference) <= table.size * 2 / 3
        for looked_up in {hash} | set(reference.of):
            found = table.slots(looked_up)
            assert len(found) == len(set(found)), "a slot was found twice"
            alike = [other for other in reference.of if core.tag_of(other) == core.tag_of(looked_up)]
            assert set(found) == set().union(*(reference.of[other] for other in alike))


def test_table_holds_many_integers_of_any_stride():
    for stride in (1, 2**10, 2**32, 2**40):
        table = core.Table()
        for i in range(1, 3000):
            table.reserve()
            table.insert(i * stride, i)
        assert all(i in table.slots(i * stride) for i in range(1, 3000))
        assert sum(len(table.slots(i * stride)) for i in range(1, 3000)) < 3010, "tags pile up"


def test_reserving_alone_changes_nothing_that_is_found():
    table = core.Table()
    for i in range(1, 100):
        table.reserve()
        table.insert(i, i)
        table.reserve()
        assert all(table.slots(j) == [j] for j in range(1, i + 1))


# -- ghosts

ghostly = st.lists(
    st.tuples(st.sampled_from(["push", "push", "push", "remove", "pop", "grow", "clear"]), st.integers(-3, 12), st.sampled_from([0, 0, 0, 1, 3])),
    max_size=80,
)


@quick
@given(ghostly, st.integers(0, 2**64 - 1))
def test_ghosts_are_lists_of_hashes(steps, salt):
    ghosts, lists, room = core.Ghosts(salt), [[] for _ in range(core.GHOST_LISTS)], 3
    assert ghosts.reserve(room) == 0
    for turn, (verb, x, which) in enumerate(steps, start=1):
        known = [hash for each in lists for hash, _ in each]
        if verb == "push" and x not in known:
            if len(known) >= room:
                assert ghosts.full(), "no room for so many was asked for"
            else:
                ghost = ghosts.push(x, which, turn / 4)
                assert ghost == ghosts.find(x) != core.NIL
                lists[which].append((x, turn / 4))
        elif verb == "remove" and x in known:
            ghosts.remove(ghosts.find(x))
            lists = [[pair for pair in each if pair[0] != x] for each in lists]
        elif verb == "pop":
            ghosts.pop(which)
            del lists[which][:1]
        elif verb == "clear":
            ghosts.clear()
            lists = [[] for _ in lists]
        elif verb == "grow":
            assert ghosts.reserve(abs(x)) == 0
            room = max(room, abs(x))
        assert ghosts.sound()
        assert ghosts.n == sum(map(len, lists))
        for at, each in enumerate(lists):
            assert ghosts.total(at) == sum(weight for _, weight in each)
            assert ghosts.oldest(at) == (ghosts.find(each[0][0]) if each else core.NIL)
            for hash, weight in each:
                assert (ghosts.list(ghosts.find(hash)), ghosts.weight(ghosts.find(hash))) == (at, weight)
        held = {hash for each in lists for hash, _ in each}
        assert all(ghosts.find(hash) == core.NIL for hash in range(-3, 13) if hash not in held)


def test_ghosts_of_one_key_are_filed_elsewhere_under_another_salt():
    """Or whoever chooses keys could choose collisions."""
    filed = []
    for salt in (0, 1, 2**63):
        ghosts = core.Ghosts(salt)
        ghosts.reserve(1000)
        tags = [core.tag_of(ghosts.stored_hash(ghosts.push(hash << 32, 0, 1))) for hash in range(1000)]
        filed.append(tags)
        assert len({tag & 1023 for tag in tags}) > 500, "they pile up"
    assert all(one != other for pair in zip(*filed, strict=True) for one, other in [pair[:2], pair[1:]])



# -- sketch

seen = st.lists(st.one_of(st.integers(0, 40), st.integers(-(2**63), 2**63 - 1)), max_size=200)


@quick
@given(seen, st.integers(0, 2**64 - 1))
def test_sketch_never_says_too_little_before_it_ages(keys, salt):
    sketch = core.Sketch(salt)
    for n, key in enumerate(keys, 1):
        sketch.add(key)
        assert sketch.count(key) >= min(15, keys[:n].count(key))
    assert sketch.aligned


@quick
@given(st.integers(0, 2**32), st.integers(0, 2**64 - 1), st.integers(1, 500))
def test_sketch_counts_ages_and_grows_as_the_reference_does(seed, salt, most):
    """Thousands of skewed additions: several halvings, growth in their middle included."""
    rng = random.Random(seed)
    sketch, reference = core.Sketch(salt), Sketch(salt)
    assert sketch.reserve(most) == 0
    for _ in range(rng.randrange(6000)):
        key = int(most * rng.random() ** 3)
        sketch.add(key)
        reference.add(key)
        if rng.random() < 0.002:
            keys = rng.randint(1, most)
            sketch.fit(keys)
            reference.fit(keys)
    assert (sketch.blocks, sketch.additions) == (len(reference.blocks), reference.additions)
    assert [sketch.count(key) for key in range(most)] == [reference.count(key) for key in range(most)]


def test_sketch_halves_its_counts_and_no_addition_does_all_of_it():
    sketch = core.Sketch()
    keys = 4096
    assert sketch.reserve(keys) == 0
    sketch.fit(keys)
    for _ in range(12):
        sketch.add(7)
    n = 12
    while sketch.additions == n:        # others, until halving begins; while it walks additions are counted on
        n += 1
        assert n <= keys * 10 + keys // 32 + 1
        sketch.add(1000 + n)
    assert n > keys * 10
    assert sketch.count(7) in (6, 7)
    assert sketch.additions < n * 0.51


def test_sketch_that_grows_forgets_nothing():
    sketch = core.Sketch(3)
    assert sketch.reserve(2000) == 0
    for key in range(60):
        for _ in range(key % 7):
            sketch.add(key)
    before = [sketch.count(key) for key in range(60)]
    sketch.fit(2000)
    assert sketch.blocks == 512
    assert [sketch.count(key) for key in range(60)] == before
    sketch.clear()
    assert sketch.blocks == 16
    assert not any(sketch.count(key) for key in range(60))


def test_keys_that_collide_under_one_salt_do_not_under_another():
    victim = 12345
    mine, yours = core.Sketch(0), core.Sketch(1)
    bad = colliding(victim)
    for sketch in (mine, yours):
        for key in bad:
            for _ in range(12):
                sketch.add(key)
    assert mine.count(victim) >= 12
    assert yours.count(victim) == 0


def colliding(victim):
    """Four keys, each of which shares one counter with the victim under salt 0."""
    sketch, found = Sketch(), {}
    block, counters = sketch.counters(victim)
    key = 10**6
    while len(found) < 4:
        other, theirs = sketch.counters(key)
        if other is block:
            for counter in set(counters) & set(theirs):
                found.setdefault(counter, key)
        key += 1
    return list(found.values())


# -- wheel

moments = st.one_of(
    st.integers(-200, 200),
    st.integers(-(10**6), 10**6),
    st.integers(0, 40).map(lambda k: 2**k),
    st.integers(0, 62).flatmap(lambda k: st.integers(2**k - 2, 2**k + 2)),
    st.integers(-3 * CENTURY // 2, 3 * CENTURY // 2),
    st.integers(-(2**63) + 1, LAST),
)
wheel_steps = st.lists(
    st.one_of(
        st.tuples(st.just("schedule"), st.integers(1, 12), moments),
        st.tuples(st.just("cancel"), st.integers(1, 12), st.just(0)),
        st.tuples(st.just("advance"), st.just(0), moments),
        st.tuples(st.just("pop"), st.just(0), moments),
    ),
    max_size=40,
)


def clamp(when):
    return max(-(2**63) + 1, min(LAST, when))


@settings(max_examples=800, deadline=None)
@given(wheel_steps, st.one_of(st.just(0), moments), st.booleans())
@example([("schedule", 1, 0), ("advance", 0, CENTURY), ("schedule", 2, -5)], -CENTURY, True)
def test_wheel_fires_as_a_sorted_list_does(steps, base, relative):
    """Never early, in order of time, first come first served within a tick, whatever the jumps."""
    wheel, reference, when_of = core.Wheel(base, 13), Timers(base), {}
    clock = base
    for verb, timer, number in steps:
        moment = clamp(clock + number) if relative else number
        if verb == "schedule":
            wheel.schedule(timer, moment)
            reference.schedule(timer, moment)
            when_of[timer] = moment
        elif verb == "cancel":
            wheel.cancel(timer)
            reference.cancel(timer)
        else:
            clock = max(clock, moment)
            while True:
                fired, expected = wheel.pop(clock), reference.pop(clock)
                assert (fired or None) == expected
                assert wheel.sound()
                if expected is None:
                    break
                assert when_of[expected] <= clock, "fired early"
                if verb == "pop":
                    break
        assert wheel.sound()
        assert wheel.n == len(reference.scheduled)
        first = min((when for when, _ in reference.scheduled.values()), default=core.NEVER)
        assert wheel.next() <= first, "a look would come too late"
        assert (wheel.next() == core.NEVER) == (not reference.scheduled)


@pytest.mark.parametrize("base", [0, -7 * CENTURY // 10, 12345])
@pytest.mark.parametrize("delay", [0, 1, 63, 64, 1023, 1024, 1025, 10**9, CENTURY])
def test_timer_fires_at_its_nanosecond_and_not_before(base, delay):
    wheel = core.Wheel(base, 2)
    wheel.schedule(1, base + delay)
    if delay:
        assert wheel.pop(base + delay - 1) == core.NIL
    assert wheel.pop(base + delay) == 1


def test_timers_of_one_tick_keep_their_order_through_every_level():
    """Scheduled from afar and from near, so that they meet after different numbers of cascades."""
    wheel = core.Wheel(0, 100)
    target, order = 3 * 64**5 + 5 * 64**3 + 17, []
    for distance in (target, 64**5, 64**4, 64**3, 64**2, 64, 3):
        assert wheel.pop(target - distance) == core.NIL
        for _ in range(3):
            order.append(len(order) + 1)
            wheel.schedule(order[-1], target)
    assert [wheel.pop(target) for _ in order] == order
    assert wheel.pop(target) == core.NIL


@quick
@given(st.lists(st.tuples(st.integers(1, 12), st.sampled_from([70, 4_444, 70_000_017]),
                          st.sampled_from([0, 0, 0, 9, 68, 4_400, 4_440, 69_999_000, 70_000_000])), max_size=40))
def test_timers_of_few_ticks_keep_their_order_whenever_they_were_scheduled(steps):
    wheel, reference, clock = core.Wheel(0, 13), Timers(0), 0
    for timer, when, now in steps:
        clock = max(clock, now)
        while (fired := reference.pop(clock)) is not None:
            assert wheel.pop(clock) == fired
        assert wheel.pop(clock) == core.NIL
        wheel.schedule(timer, when)
        reference.schedule(timer, when)
    expected = [reference.pop(CENTURY) for _ in range(13)]
    assert [wheel.pop(CENTURY) or None for _ in range(13)] == expected


def test_rescheduled_timer_goes_behind_those_of_its_tick():
    wheel = core.Wheel(0, 4)
    for timer in (1, 2, 3):
        wheel.schedule(timer, 500_000)
    wheel.schedule(1, 500_000)
    assert [wheel.pop(10**6) for _ in range(4)] == [2, 3, 1, core.NIL]


def test_wheel_grows_without_losing_a_timer():
    wheel = core.Wheel(0, 2)
    wheel.schedule(1, 10)
    for timer in range(2, 200):
        assert wheel.reserve(timer + 1) == 0
        wheel.cancel(timer)         # a new place is not scheduled
        wheel.schedule(timer, timer * 10)
    assert [wheel.pop(10**6) for _ in range(199)] == list(range(1, 200))


# -- ring


@quick
@given(st.lists(st.booleans(), max_size=200), st.sampled_from([1, 2, 8, 16]))
def test_ring_overwrites_the_oldest_and_counts_losses(pushes, size):
    ring, unread, lost = core.Ring(size), deque(), 0
    for number, pushing in enumerate(pushes):
        if pushing:
            if len(unread) == size:
                unread.popleft()
                lost += 1
            ring.push(number)
            unread.append(number)
        else:
            assert ring.pop() == (unread.popleft() if unread else None)
        assert ring.lost == lost
    assert [ring.pop() for _ in range(len(unread) + 1)] == [*unread, None]


# -- bins and records


@quick
@given(moments | st.integers(1, 2**63 - 1))
def test_bin_and_edges_agree_for_every_age(age):
    j = core.bin_of(age)
    assert 0 <= j < core.NB
    assert age >= core.edge(j) or j == 0
    assert age < core.edge(j + 1) or age == core.NEVER


def test_each_edge_opens_its_bin():
    for j in range(core.NB):
        assert core.bin_of(core.edge(j)) == j
        assert core.edge(j) < core.edge(j + 1)
        if j:
            assert core.bin_of(core.edge(j) - 1) == j - 1
    assert core.bin_of(0) == core.bin_of(-(2**63)) == 0


@quick
@given(st.lists(st.integers(0, CENTURY // 20), min_size=1, max_size=40), st.integers(-CENTURY, 0))
def test_record_keeps_the_last_access_and_two_gaps(gaps, start):
    record, now, classes = core.Record(), start, (0, 0)
    record.start(now, 3.0, 5.0)
    for gap in gaps:
        now += gap
        record.touch(now)
        classes = (1 + core.bin_of(gap), classes[0])
        assert record.last == now
        assert record.gaps == classes
    assert record.count >= min(len(gaps) + 1, 15)
    assert record.count <= len(gaps) + 1


def test_count_is_exact_to_fifteen_and_then_grows_slower_on_average():
    assert [core.count_up(c, 0xFFFFFFFF) for c in range(15)] == list(range(1, 16))
    steps = {c: sum(core.count_up(c, noise) == c + 1 for noise in range(4096)) for c in (15, 31, 47)}
    assert steps == {15: 2048, 31: 1024, 47: 512}
    assert core.count_up(255, 0) == 255


def test_count_buckets_never_fall():
    buckets = [core.count_bucket(c) for c in range(256)]
    assert buckets == sorted(buckets)
    assert [buckets[c] for c in (1, 2, 3, 4, 5, 9, 10, 255)] == [0, 1, 2, 2, 3, 3, 4, 4]


@quick
@given(st.floats(2.0**-60, 2.0**62))
def test_octave_is_the_floor_of_the_logarithm(x):
    assert core.octave(x) == 64 + math.frexp(x)[1] - 1


@pytest.mark.parametrize("x", [0.0, -1.0, math.nan, 1e-300])
def test_octave_of_what_has_no_logarithm_is_the_least(x):
    assert core.octave(x) == 0


def test_octave_of_the_largest_is_clipped():
    assert core.octave(math.inf) == core.octave(1e300) == 127


# -- the heap of Belady


@quick
@given(st.lists(st.tuples(st.sampled_from(["insert", "hit", "remove", "victim"]), st.integers(0, 30), st.integers(1, 20)),
                max_size=60))
def test_heap_names_the_one_that_is_used_farthest_away(steps):
    heap, uses = core.Belady(32), {}
    for verb, which, more in steps:
        slots = sorted(uses)
        if verb == "insert" and len(uses) < 30:
            slot = next(s for s in range(1, 32) if s not in uses)
            uses[slot] = which
            heap.insert(slot, which)
        elif slots and verb == "hit":
            slot = slots[which % len(slots)]
            uses[slot] += more
            heap.hit(slot, uses[slot])
        elif slots and verb in ("remove", "victim"):
            slot = slots[which % len(slots)] if verb == "remove" else heap.victim()
            heap.remove(slot)
            del uses[slot]
        assert heap.n == len(uses)
        if uses:
            assert uses[heap.victim()] == max(uses.values())
