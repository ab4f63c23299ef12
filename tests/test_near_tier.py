"""What may be stored and served, without any server: leases, tickets, deadlines; and the options."""
import dataclasses
import math
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

import adaptcache
from adaptcache.near import NearCache, threads
from adaptcache.near.tier import OVER, STRIPES, Lease, Tier
from adaptcache.near.watch import Single, simplest


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def tier(clock):
    made = Tier(NearCache(100, heartbeat=0.5, window=2.0), clock=clock)
    listen(made)
    return made


def listen(tier, until=math.inf):
    """As if a server had answered."""
    lease = Lease(until)
    tier.lease_of = lambda key: lease
    tier.leases = lambda: (lease,)
    return lease


def held(tier, key, value=b"1", **options):
    assert tier.put(tier.begin(key), value, **options)


def test_a_value_is_served_once_it_is_stored(tier):
    assert tier.get(b"a") is None and tier.get(b"a", 7) == 7
    held(tier, b"a")
    assert tier.get(b"a") == b"1"


def test_none_is_a_value_like_any_other(tier):
    held(tier, b"a", None)
    assert tier.get(b"a", 7) is None


def test_both_are_served_or_none(tier, clock):
    first, second = listen(tier), Lease(math.inf)
    held(tier, b"a", 1)
    tier.lease_of = lambda key: second
    held(tier, b"b", None)
    assert tier.both(b"a", b"b") == (1, None) and tier.both(b"b", b"a") == (None, 1) and tier.both(b"a", b"a") == (1, 1)
    assert tier.both(b"a", b"c") is None and tier.both(b"c", b"a") is None
    second.until = clock.now + 1.0
    assert tier.both(b"a", b"b") == (1, None)
    clock.now += 1.0            # it may be served again, and is kept
    assert tier.both(b"a", b"b") is None and tier.both(b"b", b"a") is None and tier.stats().currsize == 2
    second.until = OVER
    assert tier.both(b"a", b"b") is None and tier.stats().currsize == 1     # it may not
    assert tier.get(b"a") == 1 and first.until == math.inf


def test_an_invalidation_drops_the_value(tier):
    held(tier, b"a")
    held(tier, b"b")
    tier.invalidate([b"a"])
    assert tier.get(b"a") is None and tier.get(b"b") == b"1"


@pytest.mark.parametrize("between", [lambda tier: tier.invalidate([b"a"]), lambda tier: tier.forget(b"a"), lambda tier: tier.clear()],
                         ids=["invalidation", "own write", "clear"])
def test_a_value_on_its_way_is_not_stored_after(tier, between):
    early, other = tier.begin(b"a"), tier.begin(b"b")
    between(tier)
    late = tier.begin(b"a")
    assert not tier.put(early, b"old") and tier.get(b"a") is None
    assert tier.put(late, b"new") and tier.get(b"a") == b"new"
    assert not tier.put(early, b"old") and tier.get(b"a") == b"new"
    assert tier.put(other, b"x") is (between.__code__.co_names[0] != "clear")


def test_reads_of_one_key_at_the_same_time_are_each_stored(tier):
    one, two = tier.begin(b"a"), tier.begin(b"a")
    assert tier.put(two, b"2") and tier.put(one, b"1")


def test_reads_that_never_end_leave_nothing_behind(tier):
    before = dict(vars(tier))
    for number in range(100_000):
        tier.begin(b"%d" % number)
    assert len(tier._stripes) == STRIPES and vars(tier) == before and len(tier._cache) == 0


def test_nothing_is_stored_or_served_without_a_lease(tier, clock):
    lease = listen(tier, until=clock.now + 2)
    ticket = tier.begin(b"a")
    held(tier, b"b")
    clock.now += 1.999
    assert tier.get(b"b") == b"1" and tier.ready
    clock.now += 0.001
    assert tier.get(b"b") is None and not tier.ready
    assert tier.begin(b"a") is None and not tier.put(ticket, b"1") and not tier.put(None, b"1")
    lease.until = math.inf
    assert tier.put(ticket, b"1")


def test_a_value_of_a_lease_that_ended_is_never_served_and_goes_when_it_is_met(tier):
    held(tier, b"a")
    ticket = tier.begin(b"b")
    tier.leases()[0].until = OVER
    listen(tier)
    assert not tier.put(ticket, b"1")
    assert tier.stats().currsize == 1
    assert tier.get(b"a") is None and tier.stats().currsize == 0
    held(tier, b"a", b"2")
    assert tier.get(b"a") == b"2"


def test_a_deadline_counts_from_the_begin(tier, clock):
    ticket = tier.begin(b"a")
    clock.now += 5
    assert not tier.put(ticket, b"1", ttl=5.0)
    assert tier.put(ticket, b"1", ttl=3600.0)
    assert not tier.put(tier.begin(b"a"), b"1", ttl=0.0)
    assert tier.put(tier.begin(b"a"), b"1", ttl=math.inf)
    assert not tier.put(tier.begin(b"a"), b"1", ttl=0.01)


def test_what_is_refused_was_there_before_or_is_gone(tier):
    small = Tier(NearCache(10, getsizeof=len), clock=tier.clock)
    listen(small)
    held(small, b"a", b"12345")
    assert not small.put(small.begin(b"a"), b"x" * 11)
    assert small.get(b"a") is None, "an older value is not what the server has"
    held(small, b"b", b"12345678")
    assert small.stats().currsize == 8


def test_weighers_may_look_at_the_key(tier):
    weighed = Tier(NearCache(1 << 20, getsizeof=adaptcache.sizeof), clock=tier.clock)
    listen(weighed)
    held(weighed, b"a" * 1000, b"")
    assert weighed.stats().currsize > 1000


def test_only_keys_with_a_prefix_that_is_listened_to_are_stored(clock):
    tier = Tier(NearCache(10), (b"user:", b"x"), clock=clock)
    listen(tier)
    assert tier.begin(b"user:1") and tier.begin(b"x") and tier.begin(b"use") is None and tier.begin(b"y") is None


def test_keys_are_bytes(tier):
    with pytest.raises(TypeError, match="key: expected bytes"):
        tier.begin("a")


@pytest.mark.parametrize("ttl, error", [(-1.0, ValueError), (math.nan, ValueError), ("1", TypeError)])
def test_a_bad_deadline_is_named(tier, ttl, error):
    with pytest.raises(error, match="ttl"):
        tier.put(tier.begin(b"a"), b"1", ttl=ttl)
    assert tier.get(b"a") is None


def test_an_error_of_the_weigher_reaches_who_stores(clock):
    def broken(value):
        raise RuntimeError("no size")

    tier = Tier(NearCache(10, getsizeof=broken), clock=clock)
    listen(tier)
    with pytest.raises(RuntimeError, match="no size"):
        tier.put(tier.begin(b"a"), b"1")
    tier.forget(b"a")       # and the lock is free


def test_counters_add_up(tier):
    held(tier, b"a")
    for _ in range(3):
        tier.get(b"a")
    tier.get(b"b")
    tier.clear()
    tier.get(b"a")
    tier.invalidate([b"a", b"b"])
    tier.put(None, b"1")
    stats = tier.stats()
    assert (stats.hits, stats.misses, stats.stores, stats.refused, stats.invalidations) == (3, 2, 1, 1, 2)
    assert stats.hit_ratio == 0.6 and stats.ready and stats.nodes == 1
    tier.leases()[0].until = OVER
    held_before = tier.stats()
    assert not held_before.ready and held_before.nodes == 0


def test_a_get_without_a_lease_counts_as_a_miss(tier, clock):
    lease = listen(tier, clock.now + 1)
    held(tier, b"a")
    clock.now += 2
    tier.get(b"a")
    lease.until = OVER
    tier.get(b"a")
    tier.get(b"a")
    assert (tier.stats().hits, tier.stats().misses) == (0, 3)


def test_threads_never_see_a_value_again_that_was_invalidated(tier):
    """A writer raises the version, invalidates, and then says so; readers fetch, store and serve all the time."""
    version = said = 0
    stop = threading.Event()
    wrong = []

    def read():
        while not stop.is_set():
            least = said
            got = tier.get(b"a")
            if got is not None and got < least:
                wrong.append((got, least))
            ticket = tier.begin(b"a")
            tier.put(ticket, version)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for _ in range(3000):
        version += 1
        tier.invalidate([b"a"])
        said = version
    stop.set()
    for reader in readers:
        reader.join()
    assert not wrong and tier.stats().hits > 0


@given(st.lists(st.binary(max_size=4), max_size=6), st.binary(max_size=6))
def test_fewer_prefixes_stand_for_the_same_keys(prefixes, key):
    fewer = simplest(prefixes)
    assert (not fewer and (b"" in prefixes or not prefixes)) or key.startswith(fewer) == any(map(key.startswith, prefixes))
    assert not any(one is not other and one.startswith(other) for one in fewer for other in fewer)


@pytest.mark.parametrize("options, error, said", [
    ({"maxsize": -1}, ValueError, "maxsize"), ({"maxsize": "1"}, TypeError, "maxsize"), ({"maxsize": math.nan}, ValueError, "maxsize"),
    ({"getsizeof": 3}, TypeError, "getsizeof"), ({"policy": "best"}, ValueError, "policy"), ({"policy": []}, ValueError, "policy"),
    ({"heartbeat": 0}, ValueError, "heartbeat"), ({"heartbeat": math.inf}, ValueError, "heartbeat"),
    ({"window": 1.0}, ValueError, "window.*more than two heartbeats"), ({"window": math.inf}, ValueError, "window"),
    ({"window": None}, TypeError, "window"),
])
def test_options_are_checked_and_named(options, error, said):
    with pytest.raises(error, match=said):
        NearCache(**{"maxsize": 10, **options})


def test_options_are_a_frozen_value():
    options = NearCache(10)
    assert options == NearCache(10, heartbeat=0.5, window=2.0, policy="adaptive") and hash(options)
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.window = 3.0
    with pytest.raises(TypeError):
        NearCache(10, None)


class Returning:
    """A value that, when it is dropped, asks for the tier that it was dropped by."""

    def __init__(self, tier, dropped):
        self.tier, self.dropped = tier, dropped

    def __del__(self):
        self.tier.forget(b"x")
        self.tier.put(self.tier.begin(b"y"), b"1")
        self.tier.stats()
        self.tier.clear()
        self.dropped.append(True)


@pytest.mark.parametrize("drop", [
    lambda tier: tier.invalidate([b"a", b"b"]), lambda tier: tier.forget(b"a"), lambda tier: tier.clear(), lambda tier: held(tier, b"a"),
    lambda tier: [tier.put(tier.begin(b"%d" % at), b"1") for at in range(200)],
    lambda tier: (setattr(tier.lease_of(b"a"), "until", OVER), tier.get(b"a")),
], ids=["invalidate", "forget", "clear", "put", "evict", "get"])
def test_a_value_that_comes_back_when_it_is_dropped_holds_up_nobody(clock, drop):
    tier, dropped = Tier(NearCache(100, policy="lru"), clock=clock), []
    listen(tier)
    held(tier, b"a", Returning(tier, dropped))
    thread = threading.Thread(target=drop, args=(tier,), daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive() and dropped


def test_a_crew_that_is_stopped_while_it_begins_to_listen_starts_no_thread(tier, monkeypatch):
    """The finalizer of a near cache runs wherever memory is collected."""
    crew = threads.Crew(tier)

    class Collecting(threads.Listener):
        def __init__(self, *given):
            super().__init__(*given)
            crew.stop()

    monkeypatch.setattr(threads, "Listener", Collecting)
    thread = threading.Thread(target=crew.listen, args=(Single(tier, lambda: None), None), daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert not any(each.name == "adaptcache-near" for each in threading.enumerate())
    crew.join()


@pytest.mark.parametrize("maxsize", [None, math.inf, 0])
def test_no_bound_and_no_room(maxsize, clock):
    tier = Tier(NearCache(maxsize), clock=clock)
    listen(tier)
    assert tier.put(tier.begin(b"a"), b"1") is (maxsize != 0)
