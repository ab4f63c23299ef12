"""The store: a dict with losses, on a clock."""
from __future__ import annotations

import inspect
import logging
import math
from collections import UserDict

import cachetools
import pytest
from budget import share_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import adaptcache
from adaptcache import Cache, Cause, Fixed, Idle, Learned, PerEntry

every_policy = pytest.mark.parametrize("policy", adaptcache.policies())


class Clock:
    """Time that a test sets, in seconds."""

    def __init__(self, now=0.0):
        self.now = now

    def __call__(self):
        return self.now


def ns(seconds):
    """Whole nanoseconds, as near as a float of seconds says them; 292 years and more are for ever."""
    if abs(seconds) >= 9.2e9:
        return math.copysign(math.inf, seconds)
    whole = int(seconds)
    return whole * 10**9 + round((seconds - whole) * 1e9)


def secs(t):
    if math.isinf(t):
        return t
    whole, rest = divmod(abs(t), 10**9)
    return math.copysign(whole + rest / 1e9, t)


def soon(key, value, now):
    """Deadlines by key and value, some of them passed and some that never come."""
    return now + (math.inf if value[1] % 7 == 6 else (value[1] % 7) * 0.5 - 0.5)


# name -> the expiry; what the deadline of an entry is follows in `Entry`.
EXPIRIES = {
    "none": lambda: None,
    "fixed": lambda: Fixed(2.0),
    "fixed-odd": lambda: Fixed(0.1),
    "idle": lambda: Idle(1.5),
    "per-entry": lambda: PerEntry(soon),
    "learned": lambda: Learned(floor=0.5, ceiling=20.0, memory_price=0.25, learner="manual", seed=7, max_keys=64,
                               predictors=("table",)),
    "learned-unguarded": lambda: Learned(floor=0.25, ceiling=30.0, memory_price=1.0, premature=1.0, learner="manual",
                                         seed=7, predictors=("table",)),
    "learned-shadow": lambda: Learned(learner="manual", seed=7, predictors=()),
}


class Entry:
    """What the model knows of a stored value: all times in ns of the cache's clock."""

    def __init__(self, value, size, stored, ttl, spec, key):
        self.value, self.size, self.stored, self.used = value, size, stored, stored
        self.idle = ns(spec.ttl) if isinstance(spec, Idle) else None
        deadlines = [math.inf]
        if ttl is not None:
            deadlines.append(stored + ns(ttl))
        if isinstance(spec, Fixed):
            deadlines.append(stored + ns(spec.ttl))
        if isinstance(spec, PerEntry):
            deadlines.append(ns(spec.fn(key, value, secs(stored))))
        if isinstance(spec, Learned) and spec.ceiling is not None:
            deadlines.append(stored + ns(spec.ceiling))
        self.ceiling = min(deadlines)
        self.floor = stored + ns(spec.floor) if isinstance(spec, Learned) else None

    @property
    def deadline(self):
        """The exact one for everything but a learned expiry, whose reuse may end it earlier."""
        return self.ceiling if self.idle is None else min(self.ceiling, self.used + self.idle)


class Machine(RuleBasedStateMachine):
    """Every operation against a dict of `Entry`, which entries leave by rules that can be read here.

    A removal is legal or it is not: `left` judges each by cause and time. What the cache still holds
    afterwards must be what the model still holds, so no entry leaves unnoticed.
    """

    policy = "sieve"
    expiry = "none"
    keys = st.integers(0, 5)

    @initialize(maxsize=st.sampled_from([0, 1, 3, 6, 10, None]), start=st.sampled_from([0.0, -1e9, 1.7e9, -0.25]))
    def begin(self, maxsize, start):
        self.clock = Clock(start)
        self.model: dict[int, Entry] = {}
        self.log: list[tuple] = []
        self.told = 0
        self.serial = 0
        self.latest = ns(start)
        self.stored = self.removed = 0
        self.spec = EXPIRIES[self.expiry]()
        self.limit = math.inf if maxsize is None else maxsize
        self.cache = Cache(maxsize, policy=self.policy, expiry=self.spec, timer=self.clock,
                           on_removal=lambda *what: self.log.append(what))
        self.learned = isinstance(self.spec, Learned)

    # -- what may leave, and what must have left

    @property
    def now(self):
        self.latest = max(self.latest, ns(self.clock.now))
        return self.latest

    def settle(self, *causes, needed=0.0, key=None, until=None):
        """Account for every removal since the last operation; only `causes` and expiry are legal."""
        limit = self.now if until is None else until
        for k, value, cause, at in self.log:
            entry = self.model.pop(k)               # KeyError: it left twice, or was never there
            self.removed += 1
            assert value == entry.value, "told of another value than the one stored last"
            if cause is Cause.EXPIRED:
                self.check_expired(entry, at, limit)
                continue
            assert cause in causes, f"{k} left as {cause}"
            assert at == secs(self.now)
            assert self.now < entry.deadline, "an expired entry left for another cause"
            if cause is Cause.EVICTED:
                held = sum(e.size for e in self.model.values()) + entry.size
                assert held + needed > self.limit, "evicted while there was room"
            else:
                assert key is None or k == key
        self.log.clear()

    def check_expired(self, entry, at, limit):
        assert at <= secs(limit), "expired in the future"
        if at == secs(entry.deadline):
            return
        assert self.learned and at < secs(entry.deadline), "not at its deadline"
        assert at >= secs(entry.floor), "left before its floor on grounds of reuse"
        assert self.cache.brain.price > 0 or self.expiry == "learned-shadow", "left although holding costs nothing"

    def alive(self, key):
        entry = self.model.get(key)
        return entry is not None and self.now < entry.deadline

    def compare(self):
        """After everything due was let go, the cache is the model."""
        pairs = dict(self.cache.items())
        self.settle()
        assert pairs == {k: e.value for k, e in self.model.items()}
        assert all(self.now < e.deadline for e in self.model.values()), "shown although expired"

    # -- operations

    @rule(key=keys)
    def get(self, key):
        self.request(key, self.cache.get(key, "nothing"))

    @rule(key=keys, pause=st.sampled_from([0.3, 0.9, 1.2]))
    def get_after_a_pause(self, key, pause):
        """Long enough to matter, short enough to find something."""
        self.clock.now = secs(self.latest) + pause
        self.get(key)

    @rule(key=keys)
    def index(self, key):
        try:
            found = self.cache[key]
        except KeyError:
            found = "nothing"
        self.request(key, found)

    def request(self, key, found):
        expected_alive = self.alive(key)
        self.settle()
        if found == "nothing":
            assert key not in self.model, "held, but not served"
            assert not expected_alive or self.learned
        else:
            assert expected_alive, "served after its end"
            assert found == self.model[key].value, "not what was stored last"
            self.model[key].used = self.now

    @rule(key=keys)
    def contains(self, key):
        found = key in self.cache
        alive = self.alive(key)
        self.settle()
        assert found == (key in self.model and alive)
        assert found or not alive or self.learned

    @rule(key=keys, size=st.sampled_from([None, 0, 1, 1, 2, 3, 7]), ttl=st.sampled_from([None, None, None, 0, 0.3, 1, 3.5, math.inf]),
          cost=st.sampled_from([None, 0.1, 1, 20]))
    def set(self, key, size, ttl, cost):
        self.serial += 1
        value = (key, self.serial)
        weight = 1 if size is None else size
        if weight > self.limit:
            before = dict(self.cache.items())
            self.settle()
            with pytest.raises(ValueError, match="value too large"):
                self.cache.set(key, value, size=size, ttl=ttl, cost=cost)
            self.settle()
            assert dict(self.cache.items()) == before
            return
        self.cache.set(key, value, size=size, ttl=ttl, cost=cost)
        self.was_set(key, value, weight, ttl)

    @rule(key=keys)
    def setitem(self, key):
        if self.limit >= 1:
            self.serial += 1
            self.cache[key] = (key, self.serial)
            self.was_set(key, (key, self.serial), 1, None)

    def was_set(self, key, value, weight, ttl):
        entry = Entry(value, weight, self.now, ttl, self.spec, key)
        # What is over from the start replaces and is not stored; Fixed and Idle of 0 do not occur here.
        stores = entry.ceiling > self.now
        self.settle(Cause.REPLACED, Cause.EVICTED, needed=weight if stores else -math.inf, key=None)
        assert key not in self.model, "the old value left without a word"
        if stores:
            self.model[key] = entry
            self.stored += 1

    @rule(key=keys)
    def delete(self, key):
        alive = self.alive(key)
        try:
            del self.cache[key]
            existed = True
        except KeyError:
            existed = False
        self.settle(Cause.DELETED, key=key)
        assert key not in self.model
        assert existed == alive or (self.learned and not existed)

    @rule(key=keys, default=st.sampled_from([None, 5]))
    def pop(self, key, default):
        entry, alive = self.model.get(key), self.alive(key)
        found = self.cache.pop(key, default)
        self.settle(Cause.DELETED, key=key)
        assert key not in self.model
        if found == default:
            assert not alive or self.learned
        else:
            assert alive and found == entry.value

    @rule()
    def popitem(self):
        before = dict(self.model)
        try:
            key, value = self.cache.popitem()
        except KeyError as error:
            assert "Cache is empty" in str(error)
            self.settle()
            assert not self.model
        else:
            assert value == before[key].value
            self.settle(Cause.DELETED, key=key)
            assert key not in self.model

    @rule()
    def clear(self):
        self.cache.clear()
        self.settle(Cause.CLEARED)
        assert not self.model and len(self.cache) == 0

    @rule(maxsize=st.sampled_from([0, 1, 3, 6, 10, None]))
    def resize(self, maxsize):
        self.limit = math.inf if maxsize is None else maxsize
        self.cache.resize(maxsize)
        self.settle(Cause.EVICTED)
        assert self.cache.maxsize == self.limit

    @rule()
    def expire(self):
        due = {k for k in self.model if not self.alive(k)}
        gone = dict(self.cache.expire())
        assert gone == {k: value for k, value, *_ in self.log}
        assert due <= set(gone)
        self.settle()

    @rule(ahead=st.sampled_from([-1.0, 0.0, 0.5, 2.0, 25.0, math.inf]))
    def expire_at(self, ahead):
        """Ahead of time nothing but what has its date by then leaves; behind it, nothing alive does."""
        time = secs(self.latest) + ahead
        until = ns(time)
        alive = {k for k in self.model if self.alive(k)}
        due = {k for k, e in self.model.items() if e.deadline <= until and e.deadline != math.inf}
        gone = dict(self.cache.expire(time))
        if ahead > 0:
            assert due <= set(gone)
            assert set(gone) - due <= alive if self.learned else set(gone) == due
        elif not self.learned:
            assert not set(gone) & alive
        self.settle(until=max(until, self.now))

    @rule(seconds=st.sampled_from([1e-9, 0.1, 0.5, 1.0, 1.5, 2.0, 7.0, 1e3, 3e9]))
    def advance(self, seconds):
        self.clock.now = min(secs(self.latest) + seconds, 9e9)     # time ends after 292 years

    @precondition(lambda self: any(e.deadline < math.inf for e in self.model.values()))
    @rule(nth=st.integers(0, 9), short=st.sampled_from([0, 1]))
    def advance_to_a_deadline(self, nth, short):
        """To the nanosecond of a deadline, or one before it, as far as floats of seconds can say it."""
        deadlines = sorted(e.deadline for e in self.model.values() if e.deadline < math.inf)
        self.clock.now = secs(max(self.latest, deadlines[nth % len(deadlines)] - short))

    @rule(back=st.sampled_from([1e-9, 0.5, 100.0, 1e10, math.inf]))
    def jump_back(self, back):
        """Nothing changes when the clock jumps back or stands still."""
        self.compare()
        before = dict(self.model)
        self.clock.now -= back
        self.compare()
        assert self.model == before

    @rule()
    def say_nothing(self):
        before = self.clock.now
        self.compare()
        self.clock.now = math.nan
        assert dict(self.cache.items()) == {k: e.value for k, e in self.model.items()}
        self.clock.now = before

    @rule()
    def stand_still(self):
        self.compare()
        before, size = list(self.cache), self.cache.currsize
        assert list(self.cache) == before and self.cache.currsize == size and not self.cache.expire()
        assert not self.log

    @rule(key=keys, fails=st.booleans(), ttl=st.sampled_from([None, 0.3, 5]))
    def get_or_load(self, key, fails, ttl):
        self.serial += 1
        value, calls = (key, self.serial), []

        def loader(asked):
            calls.append(asked)
            if fails:
                raise LookupError("no such thing")
            return value

        alive = self.alive(key)
        try:
            found = self.cache.get_or_load(key, loader, ttl=ttl)
        except LookupError:
            found = None
        self.judge_load(key, fails, ttl, value, calls, alive, found)

    def judge_load(self, key, fails, ttl, value, calls, alive, found):
        if not calls:
            assert alive
            self.settle()
            assert found == self.model[key].value
            self.model[key].used = self.now
            return
        assert calls == [key], "one load, of this key"
        assert not alive or self.learned
        if fails or self.limit < 1:
            assert found == (None if fails else value)
            self.settle()
            assert key not in self.model
        else:
            assert found == value
            self.was_set(key, value, 1, ttl)

    @rule()
    def learn(self):
        self.cache.learn()
        self.settle()

    @rule(key=keys)
    def ask_when(self, key):
        try:
            left = self.cache.expires_in(key)
        except KeyError:
            assert not self.alive(key) or self.learned
            self.settle()
        else:
            self.settle()
            entry = self.model[key]
            if entry.deadline == math.inf:
                assert left == math.inf
            else:
                assert left > 0 and round(left * 1e9) == pytest.approx(entry.deadline - self.now, rel=1e-12, abs=1)
            assert str(self.cache.explain(key))

    @rule()
    def look(self):
        self.compare()
        assert len(self.cache) == len(self.model)
        assert set(self.cache) == set(self.model) == set(self.cache.keys())
        assert sorted(self.cache.values()) == sorted(e.value for e in self.model.values())
        assert (self.cache == {k: e.value for k, e in self.model.items()}) is True
        assert repr(self.cache).startswith("Cache({")

    # -- always

    @invariant()
    def sound(self):
        if not hasattr(self, "cache"):
            return
        self.cache._check()
        assert not self.log, "an operation ended with removals it had not accounted for"
        # The least intrusive looks there are; what they let go is due. The first one makes the cache read its
        # clock when the model does: without an expiry it reads it only where a time is needed.
        assert "absent" not in self.cache
        size = self.cache.currsize
        self.settle()
        assert size == sum(e.size for e in self.model.values()) <= self.limit
        counters = self.cache._counters()
        assert counters["inserts"] == self.stored == self.removed + len(self.model)

    def teardown(self):
        if hasattr(self, "cache"):
            self.compare()


def machine(policy, expiry):
    return type(f"{policy}_{expiry}".replace("-", "_"), (Machine,), {"policy": policy, "expiry": expiry})


def run(policy, expiry, examples, steps):
    run_state_machine_as_test(machine(policy, expiry), settings=settings(
        max_examples=share_of(examples), stateful_step_count=steps, deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]))


@every_policy
@pytest.mark.parametrize("expiry", EXPIRIES)
def test_a_cache_is_a_dict_with_losses_on_a_clock(policy, expiry):
    run(policy, expiry, 40, 40)


@pytest.mark.slow
@every_policy
@pytest.mark.parametrize("expiry", EXPIRIES)
def test_a_cache_is_a_dict_with_losses_on_a_clock_for_long(policy, expiry):
    run(policy, expiry, 200, 80)


# -- the semantics of cachetools.Cache


@every_policy
def test_value_too_large_leaves_the_cache_unchanged(policy):
    cache = Cache(5, getsizeof=len, policy=policy)
    cache.update(a="xx", b="yyy")
    for key in ("a", "new"):
        with pytest.raises(ValueError, match=r"^value too large$"):
            cache[key] = "far too long"
    assert dict(cache.items()) == {"a": "xx", "b": "yyy"}
    assert cache.currsize == 5
    cache._check()


@every_policy
def test_item_that_grows_pushes_out_others_and_stays(policy):
    cache = Cache(6, getsizeof=lambda value: value, policy=policy)
    cache.update(a=2, b=2, c=2)
    cache["c"] = 5
    assert dict(cache.items()) == {"c": 5}
    cache["c"] = 1
    assert cache.currsize == 1
    cache._check()


@every_policy
def test_oldest_item_that_grows_stays_although_it_is_the_victim(policy):
    cache = Cache(6, getsizeof=lambda value: value, policy=policy)
    cache.update(a=2, b=2, c=2)
    cache["a"] = 6
    assert dict(cache.items()) == {"a": 6}
    cache._check()


def test_missing_is_called_by_brackets_only():
    class Doubling(Cache):
        def __missing__(self, key):
            self[key] = value = key * 2
            return value

    cache = Doubling(3)
    assert cache.get(1) is None
    assert cache.pop(1, "default") == "default"
    assert 1 not in cache
    assert cache.setdefault(5, "five") == "five"
    assert cache[1] == 2
    assert cache.get(1) == 2


def test_popitem_on_empty_says_which_class_is_empty():
    class Mine(Cache):
        pass

    with pytest.raises(KeyError, match="Mine is empty") as caught:
        Mine(3).popitem()
    assert caught.value.__suppress_context__ and caught.value.__cause__ is None


def test_equality_is_that_of_mappings():
    cache = Cache(3)
    cache.update(a=1, b=2)
    assert cache == {"a": 1, "b": 2} == cache
    assert cache == UserDict(a=1, b=2)
    assert cache != {"a": 1} and cache != [("a", 1)]
    with pytest.raises(TypeError):
        hash(cache)


def test_contains_and_iteration_are_no_requests():
    cache = Cache(2, policy="lru")
    cache.update(a=1, b=2)
    before = cache.stats()
    assert "a" in cache and list(cache) and len(cache) == 2 and cache.items()
    assert cache.stats() == before
    cache["c"] = 3
    assert "a" not in cache


def test_pop_setdefault_update_and_views_behave_as_a_dict():
    cache, plain = Cache(9), {}
    for mapping in (cache, plain):
        mapping.update({"a": 1, "b": 2}, c=3)
        assert mapping.setdefault("a", 9) == 1 and mapping.setdefault("d") is None
        assert mapping.pop("b") == 2 and mapping.pop("b", None) is None
        with pytest.raises(KeyError):
            mapping.pop("b")
    assert list(cache.items()) == list(plain.items())
    assert list(cache.keys()) == list(plain) and list(cache.values()) == list(plain.values())
    assert ("a", 1) in cache.items() and "a" in cache.keys() and 3 in cache.values()  # noqa: SIM118
    assert cache.keys() & {"a", "z"} == {"a"}


def test_iterating_while_changing_walks_over_a_snapshot():
    cache = Cache(9)
    cache.update(a=1, b=2, c=3)
    for key in cache:
        del cache[key]
        cache[key + "x"] = 1
    assert sorted(cache) == ["ax", "bx", "cx"]


def test_getsizeof_may_be_a_method_and_is_called_once_a_set():
    calls = []

    class Sized(Cache):
        def getsizeof(self, value):
            calls.append(value)
            return len(value)

    cache = Sized(5)
    cache["a"] = "xyz"
    assert calls == ["xyz"] and cache.currsize == 3
    cache.set("b", "four", size=1)
    assert calls == ["xyz"] and cache.currsize == 4
    assert Cache(3).getsizeof("anything") == 1


def test_sizes_of_floats_give_a_currsize_of_float():
    cache = Cache(5.5, getsizeof=lambda value: value)
    cache["a"] = 2
    assert cache.currsize == 2 and isinstance(cache.currsize, int)
    cache["b"] = 2.5
    assert cache.currsize == 4.5
    assert cache.maxsize == 5.5


@pytest.mark.parametrize("expiry", [None, 60.0])
def test_works_as_the_cache_of_cachetools_decorators(expiry):
    calls = []
    cache = Cache(2, expiry=expiry)

    @cachetools.cached(cache)
    def double(x):
        calls.append(x)
        return x * 2

    assert [double(x) for x in (1, 1, 2, 1, 3)] == [2, 2, 4, 2, 6]
    assert calls == [1, 2, 3] and len(cache) == 2

    @cachetools.cached(Cache(0))
    def never_held(x):
        calls.append(x)
        return x

    assert never_held(7) == never_held(7) == 7
    assert calls[-2:] == [7, 7]


def test_works_as_the_cache_of_cachedmethod():
    class Service:
        def __init__(self):
            self.cache, self.calls = Cache(8), 0

        @cachetools.cachedmethod(lambda self: self.cache)
        def double(self, x):
            self.calls += 1
            return x * 2

    service = Service()
    assert [service.double(x) for x in (1, 2, 1)] == [2, 4, 2]
    assert service.calls == 2 and len(service.cache) == 2


# -- bounds


@pytest.mark.parametrize("maxsize", [None, math.inf])
def test_unbounded_never_evicts(maxsize):
    cache = Cache(maxsize)
    for i in range(5000):
        cache[i] = i
    assert len(cache) == cache.currsize == 5000 and cache.maxsize == math.inf
    assert all(cache[i] == i for i in range(5000))
    assert cache.stats().evictions == 0
    cache._check()


@every_policy
def test_of_no_size_stores_nothing(policy):
    cache = Cache(0, policy=policy)
    with pytest.raises(ValueError, match="value too large"):
        cache["a"] = 1
    with pytest.raises(ValueError, match="value too large"):
        cache.setdefault("a", 1)
    assert cache.get_or_load("a", str.upper) == "A"
    assert len(cache) == 0 and list(cache) == [] and cache.get("a") is None
    cache.set("free", 1, size=0)
    assert cache["free"] == 1
    cache._check()


@every_policy
def test_of_size_one_holds_the_newest(policy):
    cache = Cache(1, policy=policy)
    for key in "abca":
        cache[key] = key
        assert list(cache) == [key]
        cache[key]
    cache._check()


@every_policy
def test_resize_lets_victims_go_until_the_rest_fits(policy):
    gone = []
    cache = Cache(10, policy=policy, on_removal=lambda key, value, cause, at: gone.append((key, cause)))
    for i in range(10):
        cache[i] = i
    cache.resize(4)
    assert len(cache) == 4
    assert {cause for _, cause in gone} == {Cause.EVICTED}
    assert sorted([key for key, _ in gone] + list(cache)) == list(range(10))
    cache.resize(None)
    for i in range(20, 50):
        cache[i] = i
    assert len(cache) == 34
    cache.resize(0)
    assert not cache
    cache._check()


# -- keys and values


@pytest.mark.parametrize("value", [None, False, 0, "", NotImplemented, Ellipsis, ValueError("kept"), StopIteration()])
def test_any_value_can_be_held(value):
    cache = Cache(3)
    cache["a"] = value
    assert cache["a"] is value and cache.get("a", "default") is value
    assert cache.setdefault("a", 5) is value
    assert cache.get_or_load("a", pytest.fail) is value
    assert cache.popitem() == ("a", value)


@pytest.mark.parametrize("key", [None, (), "x" * 10**6, 10**500, -1, -2, (("a",) * 1000, frozenset(range(99))), 1.5, type])
def test_any_hashable_key_can_be_held(key):
    cache = Cache(3)
    cache[key] = "found"
    cache["other"] = 1
    assert cache[key] == "found" and key in cache
    del cache[key]
    assert key not in cache
    cache._check()


def test_equal_keys_of_different_types_are_one_key_and_the_first_stays():
    cache = Cache(3)
    cache[1] = "int"
    cache[1.0] = "float"
    cache[True] = "bool"
    assert list(cache.items()) == [(1, "bool")] and type(next(iter(cache))) is int


def test_key_that_is_not_equal_to_itself_is_found_by_identity():
    cache = Cache(3)
    nan = math.nan
    cache[nan] = 1
    assert cache[nan] == 1 and float("nan") not in cache


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), max_size=40))
def test_keys_that_all_collide_are_told_apart(steps):
    class Colliding(int):
        def __hash__(self):
            return 5

    cache, plain = Cache(None), {}
    for stores, number in steps:
        key = Colliding(number)
        if stores:
            cache[key] = plain[number] = object()
        else:
            assert cache.pop(key, None) is plain.pop(number, None)
        assert {int(k): v for k, v in cache.items()} == plain
        cache._check()


# -- deadlines


@pytest.mark.parametrize("start", [0.0, 1.7e9, -3e9])
@pytest.mark.parametrize("ttl", [1.0, 0.1, 1e-6, 86400.0])
@pytest.mark.parametrize("make", [Fixed, Idle, lambda ttl: PerEntry(lambda key, value, now: now + ttl)])
def test_deadline_is_exact_to_the_nanosecond(make, ttl, start):
    for look in (lambda c: "a" in c, lambda c: len(c) == 1, lambda c: list(c) == ["a"], lambda c: c.currsize == 1,
                 lambda c: not c.expire(), lambda c: c.get("a") == 1, lambda c: c.pop("a", None) == 1):
        clock = Clock(start)
        cache = Cache(9, expiry=make(ttl), timer=clock)
        cache["a"] = 1
        step = max(1e-9, math.ulp(start + ttl))
        clock.now = start + ttl - step
        assert "a" in cache
        clock.now = start + ttl + (step if start else 0)    # a float near 1.7e9 says no nanoseconds
        assert not look(cache)
        cache._check()


def test_expired_entries_are_neither_counted_nor_shown():
    """Not even for the rest of a tick: the looks that do not name a key agree with those that do."""
    clock = Clock()
    cache = Cache(None, expiry=Fixed(1.0), timer=clock)
    for i in range(100):
        clock.now = i * 1e-8
        cache[i] = i
    for i in range(100):
        clock.now = 1 + i * 1e-8
        assert len(cache) == len(list(cache)) == 99 - i
        assert i not in cache and (i == 99 or i + 1 in cache)


def test_expired_entry_is_never_a_reason_to_evict():
    clock, gone = Clock(), []
    cache = Cache(2, policy="lru", expiry=Fixed(1.0), timer=clock,
                  on_removal=lambda key, value, cause, at: gone.append((key, cause, at)))
    cache["old"] = 1
    clock.now = 0.9
    cache["young"] = 2
    cache["old"]
    clock.now = 1.0
    cache["new"] = 3
    assert set(cache) == {"young", "new"}
    assert gone == [("old", Cause.EXPIRED, 1.0)]


@pytest.mark.parametrize("remove", [Cache.clear, lambda c: c.resize(0), Cache.popitem, lambda c: c.pop("a", None),
                                    lambda c: c.set("a", 2), lambda c: c.set("b", 2), Cache.expire])
def test_what_was_over_is_told_as_expired_whatever_finds_it(remove):
    clock, gone = Clock(), []
    cache = Cache(5, expiry=Fixed(1.0), timer=clock, on_removal=lambda key, value, cause, at: gone.append((key, cause, at)))
    cache["a"] = 1
    clock.now = 3.0
    try:
        remove(cache)
    except KeyError:
        pass
    assert gone == [("a", Cause.EXPIRED, 1.0)]


def test_deleting_an_expired_key_removes_it_and_raises():
    clock = Clock()
    cache = Cache(5, expiry=Fixed(1.0), timer=clock)
    cache["a"] = 1
    clock.now = 1.0
    with pytest.raises(KeyError):
        del cache["a"]
    assert cache.stats().expirations == 1


def test_overwriting_starts_a_new_life():
    clock = Clock()
    cache = Cache(5, expiry=Fixed(1.0), timer=clock)
    cache.set("a", 1, ttl=0.5)
    clock.now = 0.4
    cache["a"] = 2
    clock.now = 1.3
    assert cache["a"] == 2
    clock.now = 1.4
    assert "a" not in cache


def test_idle_time_runs_from_the_last_request_and_looking_is_none():
    clock, gone = Clock(), []
    cache = Cache(5, expiry=Idle(1.0), timer=clock, on_removal=lambda key, value, cause, at: gone.append((key, at)))
    cache.update(asked=1, looked_at=2)
    for now in (0.5, 0.75, 1.0, 1.75):
        clock.now = now
        assert cache["asked"] == 1
        assert ("looked_at" in cache) == ("looked_at" in list(cache)) == (now < 1.0)
    clock.now = 2.74
    assert list(cache) == ["asked"]
    clock.now = 2.75
    assert len(cache) == 0
    assert gone == [("looked_at", 1.0), ("asked", 2.75)]


def test_ttl_of_an_entry_is_a_ceiling_and_never_longer_than_the_expiry():
    clock = Clock()
    cache = Cache(5, expiry=Fixed(1.0), timer=clock)
    cache.set("short", 1, ttl=0.5)
    cache.set("long", 1, ttl=9.0)
    assert cache.expires_in("short") == 0.5 and cache.expires_in("long") == 1.0
    clock.now = 0.5
    assert list(cache) == ["long"]


def test_ttl_works_without_an_expiry_and_for_that_entry_alone():
    clock = Clock(1e6)
    cache = Cache(5, timer=clock)
    cache["stays"] = 1
    assert cache.expires_in("stays") == math.inf
    cache.set("goes", 2, ttl=3)
    assert cache.expires_in("goes") == 3 and cache.expires_in("stays") == math.inf
    clock.now += 3
    assert list(cache) == ["stays"] and cache.expire() == []
    clock.now += 1e9
    assert cache["stays"] == 1
    cache._check()


@every_policy
def test_value_that_is_over_from_the_start_is_not_stored_and_the_old_one_leaves(policy):
    gone = []
    cache = Cache(5, policy=policy, expiry=PerEntry(lambda key, value, now: value), timer=Clock(10.0),
                  on_removal=lambda key, value, cause, at: gone.append((key, value, cause, at)))
    cache["a"] = 11.0
    cache["a"] = 10.0
    assert "a" not in cache and gone == [("a", 11.0, Cause.REPLACED, 10.0)]
    cache["b"] = -math.inf
    assert not cache and len(gone) == 1
    cache["c"] = math.inf
    assert cache.expires_in("c") == math.inf
    cache._check()


def test_per_entry_deadline_of_nan_is_refused_and_changes_nothing():
    cache = Cache(5, expiry=PerEntry(lambda key, value, now: value))
    cache["a"] = math.inf
    with pytest.raises(ValueError, match="deadline is NaN"):
        cache["a"] = math.nan
    with pytest.raises(TypeError, match="deadline"):
        cache["a"] = "tomorrow"
    assert dict(cache.items()) == {"a": math.inf}


def test_per_entry_is_asked_once_with_key_value_and_now():
    calls = []

    def deadline(key, value, now):
        calls.append((key, value, now))
        return now + 5

    cache = Cache(5, expiry=PerEntry(deadline), timer=Clock(7.0))
    cache["a"] = 1
    assert cache["a"] == 1 and calls == [("a", 1, 7.0)] and cache.expires_in("a") == 5.0


@pytest.mark.parametrize("expiry", [Fixed(math.inf), Idle(math.inf), PerEntry(lambda key, value, now: math.inf),
                                    Learned(learner="manual")])
@pytest.mark.parametrize("start", [-9e9, -5.0, 0.0, 1.7e9])
def test_for_ever_is_for_ever_on_any_clock(expiry, start):
    clock = Clock(start)
    cache = Cache(5, expiry=expiry, timer=clock)
    cache.set("a", 1, ttl=math.inf)
    assert cache.expires_in("a") == math.inf
    assert cache.expire(math.inf) == []
    clock.now = 9.1e9
    assert cache["a"] == 1 and len(cache) == 1
    cache._check()


def test_deadlines_hold_over_the_whole_range_of_time():
    clock = Clock(-9.1e9)
    cache = Cache(5, expiry=PerEntry(lambda key, value, now: value), timer=clock)
    cache.update(a=-9.0e9, b=0.0, c=9.0e9)
    for now, held in ((-9.05e9, "abc"), (-9.0e9, "bc"), (-1.0, "bc"), (0.0, "c"), (8.9e9, "c"), (9.0e9, "")):
        clock.now = now
        assert len(cache) == len(held) and "".join(cache) == held
        cache._check()


def test_expire_returns_what_it_removed_in_the_order_of_deadlines():
    clock = Clock()
    cache = Cache(9, timer=clock)
    for key, ttl in (("c", 3), ("a", 1), ("d", 4), ("b", 2)):
        cache.set(key, key.upper(), ttl=ttl)
    clock.now = 2.5
    assert cache.expire(1.0) == [("a", "A")]
    assert cache.expire() == [("b", "B")]
    assert cache.expire() == []
    assert sorted(cache.expire(100.0)) == [("c", "C"), ("d", "D")]


@pytest.mark.parametrize("expiry", [Fixed(5.0), Idle(5.0), Learned(learner="manual", memory_price=1e-6, seed=1)])
def test_clock_that_says_nothing_at_first_stands_at_zero(expiry):
    clock = Clock(math.nan)
    cache = Cache(5, expiry=expiry, timer=clock)
    cache.set("a", 1, ttl=2)
    assert cache["a"] == 1
    clock.now = 1.9
    assert cache["a"] == 1
    clock.now = 2.0
    assert "a" not in cache and len(cache) == 0
    cache._check()


def test_window_without_end_protects_every_request():
    """So no more may be lost to early removal than one and the premature share."""
    clock = Clock()
    cache = Cache(None, timer=clock, expiry=Learned(learner="manual", memory_price=1.0, window=math.inf, seed=3,
                                                    predictors=("table",)))
    for i in range(400):
        clock.now += 3.0
        cache.get_or_load(i % 50, str, cost=1.0)
    stats = cache.stats()
    assert stats.protected > 0
    assert stats.premature + stats.in_flight <= stats.premature_budget
    cache._check()


# -- removals


def test_callback_that_raises_is_logged_and_stays(caplog):
    calls = []

    def callback(key, value, cause, at):
        calls.append(key)
        raise ZeroDivisionError

    cache = Cache(1, on_removal=callback)
    with caplog.at_level(logging.ERROR, "adaptcache"):
        for key in "abc":
            cache[key] = key
    assert calls == ["a", "b"] and len(caplog.records) == 2
    assert list(cache) == ["c"]


def test_interrupt_in_a_callback_leaves_the_other_removals_for_later():
    told = []

    def callback(key, value, cause, at):
        told.append(key)
        if key == 1:
            raise KeyboardInterrupt

    cache = Cache(None, on_removal=callback)
    cache.update({i: i for i in range(4)})
    with pytest.raises(KeyboardInterrupt):
        cache.clear()
    assert not cache and told == [0, 1]
    cache["x"] = 1
    del cache["x"]
    assert told == [0, 1, 2, 3, "x"]


def test_callback_sees_the_entry_gone():
    seen = []
    cache = Cache(3, on_removal=lambda key, value, cause, at: seen.append((key in cache, len(cache), cause)))
    cache.update(a=1, b=2)
    del cache["a"]
    cache["b"] = 3
    cache.clear()
    assert seen == [(False, 1, Cause.DELETED), (True, 1, Cause.REPLACED), (False, 0, Cause.CLEARED)]


# -- what the learner's promise costs nobody


def test_learned_entry_is_never_let_go_before_its_floor_nor_served_at_its_ceiling():
    clock, gone = Clock(), []
    cache = Cache(None, timer=clock, on_removal=lambda key, value, cause, at: gone.append((value, cause, at)),
                  expiry=Learned(floor=2.0, ceiling=30.0, memory_price=5.0, premature=1.0, learner="manual", seed=1,
                                 predictors=("table",)))
    for i in range(3000):
        clock.now += 0.05
        key = i * 7919 % 40
        value = cache.get(key)
        if value is None:
            cache[key] = clock.now
        else:
            assert value <= clock.now < value + 30.0
    cache._check()
    assert {cause for _, cause, _ in gone} == {Cause.EXPIRED}
    assert all(2.0 - 1e-9 <= at - stored <= 30.0 + 1e-9 for stored, _, at in gone)
    assert any(at - stored < 30.0 for stored, _, at in gone), "nothing was learned"


def test_nothing_is_let_go_early_where_memory_costs_nothing():
    clock = Clock()
    cache = Cache(None, timer=clock, expiry=Learned(memory_price=0, learner="manual", seed=1))
    for i in range(300):
        clock.now += 100.0
        cache[i] = i
    assert len(cache) == 300


def test_get_tells_its_signature():
    """It is bound without the wrapper that would tell it otherwise."""
    assert list(inspect.signature(Cache.get).parameters) == ["self", "key", "default"]
    assert inspect.signature(Cache(1).get).parameters["default"].default is None
    assert Cache(1).get(key="a", default=2) == 2


# -- a mapping -------------------------------------------------------------------------------------------------

SIZERS = {"entries": None, "weights": lambda value: value % 4, "fractions": lambda value: 0.5 + value % 3}


@pytest.mark.parametrize(("policy", "sizes"), [(None, sizes) for sizes in SIZERS] + [(policy, "weights") for policy in adaptcache.policies()])
@settings(max_examples=share_of(50), deadline=None)
@given(
    maxsize=st.sampled_from([1, 2, 5]), others=st.lists(st.integers(0, 9), max_size=300), key=st.integers(0, 9), value=st.integers(0, 11),
    between=st.lists(st.tuples(st.sampled_from(["get", "in", "delete", "pop", "walk", "expire"]), st.integers(0, 9)), max_size=8),
)
def test_what_was_just_stored_is_there_until_something_else_is_stored(policy, sizes, maxsize, others, key, value, between):
    """Whatever the policy thinks of a newcomer: it may be the next to leave, and not before."""
    cache = Cache(maxsize, SIZERS[sizes]) if policy is None else Cache(maxsize, SIZERS[sizes], policy=policy)
    assert cache.policy_name == (policy or "adaptive")
    for turn, other in enumerate(others):
        if cache.getsizeof(turn % 12) <= maxsize:
            cache[other] = turn % 12
            assert cache[other] == turn % 12
            assert other in cache
        else:
            cache.get(other)
    if cache.getsizeof(value) > maxsize:
        before = dict(cache)
        with pytest.raises(ValueError, match="value too large"):
            cache[key] = value
        assert dict(cache) == before
        return
    cache[key] = value
    for verb, other in between:
        if verb == "get":
            cache.get(other)
        elif verb == "in":
            assert (other in cache) == (other in list(cache))
        elif verb == "walk":
            assert (key, value) in cache.items()
        elif verb == "expire":
            cache.expire()
        elif verb == "pop" and other != key:
            cache.pop(other, None)
        elif other != key and other in cache:
            del cache[other]
    assert cache[key] == value
    assert cache.currsize <= maxsize
    assert cache.get_or_load(key, lambda _: "loaded") == value
