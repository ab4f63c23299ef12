"""User code that calls back into the cache, or raises, in the middle of every operation.

Keys hash and compare, values die, sizes and deadlines are computed, clocks are read, removals are told,
values are loaded and garbage is collected: each of these may do to the same cache whatever it likes.
"""
# ruff: noqa: B023  what is defined in a loop here runs in its own turn of it, or has its names bound
from __future__ import annotations

import contextlib
import gc
import logging
import sys
import weakref
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import adaptcache
from adaptcache import Cache, Cause, Fixed, Idle, Learned, PerEntry


class Clock:
    """Time, and a hook that runs whenever it is read."""

    def __init__(self):
        self.now, self.hook = 0.0, None

    def __call__(self):
        fire(self)
        return self.now


class Boom(Exception):
    pass


def fire(owner):
    """Run the hook of `owner` once; it is off while it runs, so it may call in."""
    hook, owner.hook = owner.hook, None
    if hook is not None:
        hook()


class Key:
    """Hashes and compares by name; each may run a hook. All keys collide, so `==` runs often."""

    hook = None
    equal_hook = None                   # runs only where the answer is True
    hash_hook = None

    def __init__(self, name):
        self.name = name

    def __hash__(self):
        hook, Key.hash_hook = Key.hash_hook, None
        if hook is not None:
            hook()
        return 7

    def __eq__(self, other):
        equal = isinstance(other, Key) and self.name == other.name
        hook, Key.hook = Key.hook, None
        if hook is not None:
            hook()
        hook = Key.equal_hook
        if equal and hook is not None:
            Key.equal_hook = None
            hook()
        return equal

    def __repr__(self):
        return f"Key({self.name!r})"


class Value:
    """Runs its hook when it dies."""

    def __init__(self, name, hook=None):
        self.name, self.hook = name, hook

    def __del__(self):
        # ValueError: "value too large", where an earlier action resized the cache to nothing.
        with contextlib.suppress(Boom, ValueError):
            fire(self)


@pytest.fixture(autouse=True)
def no_hooks_left():
    yield
    Key.hook = Key.equal_hook = Key.hash_hook = None


OPERATIONS = {
    "get": lambda c: c.get(Key("b")),
    "index": lambda c: c[Key("b")],
    "miss": lambda c: c.get(Key("z")),
    "in": lambda c: Key("b") in c,
    "set-held": lambda c: c.__setitem__(Key("b"), Value("new")),
    "set-new": lambda c: c.__setitem__(Key("n"), Value("new")),
    "set-ttl": lambda c: c.set(Key("n"), Value("new"), ttl=5.0),
    "grow": lambda c: c.set(Key("b"), Value("new"), size=4),
    "del": lambda c: c.__delitem__(Key("b")),
    "pop": lambda c: c.pop(Key("b"), None),
    "popitem": lambda c: c.popitem(),
    "setdefault": lambda c: c.setdefault(Key("n"), Value("new")),
    "load-held": lambda c: c.get_or_load(Key("b"), lambda key: Value("loaded")),
    "load-new": lambda c: c.get_or_load(Key("n"), lambda key: Value("loaded")),
    "expires_in": lambda c: c.expires_in(Key("b")),
    "explain": lambda c: c.explain(Key("b")),
    "len": len,
    "list": list,
    "items": lambda c: list(c.items()),
    "expire": lambda c: c.expire(),
    "expire-at": lambda c: c.expire(3.0),
    "resize": lambda c: c.resize(2),
    "clear": lambda c: c.clear(),
    "stats": lambda c: c.stats(),
    "update": lambda c: c.update({Key("b"): 1, Key("m"): 2}),
    "equals": lambda c: c == {},
}

ACTIONS = {
    "get": lambda c: c.get(Key("a")),
    "set-held": lambda c: c.__setitem__(Key("b"), "inner"),
    "set-many": lambda c: [c.set(Key(f"i{i}"), i) for i in range(20)],
    "pop": lambda c: c.pop(Key("b"), None),
    "pop-other": lambda c: c.pop(Key("a"), None),
    "clear": lambda c: c.clear(),
    "clear-and-set": lambda c: (c.clear(), c.set(Key("b"), "inner"), c.set(Key("y"), "inner")),
    "resize-0": lambda c: c.resize(0),
    "resize-up": lambda c: (c.resize(100), [c.set(Key(f"i{i}"), i) for i in range(40)]),
    "popitem": lambda c: c.popitem() if c else None,
    "ttl": lambda c: c.maxsize and c.set(Key("q"), "inner", ttl=1.0),
    "iterate": lambda c: (list(c.items()), len(c), repr(c)),
    "load": lambda c: c.get_or_load(Key("w"), lambda key: "inner"),
}

EXPIRIES = {
    "none": None,
    "fixed": Fixed(100.0),
    "idle": Idle(100.0),
    "per-entry": PerEntry(lambda key, value, now: now + 100.0),
    "learned": Learned(memory_price=0.01, learner="manual", seed=1, predictors=("table",)),
}


def filled(expiry="none", policy="sieve", **options):
    cache = Cache(4, expiry=EXPIRIES[expiry], policy=policy, **options)
    for name in "abcd":
        cache[Key(name)] = Value(name)
    return cache


def perform(operation, cache, *expected):
    """Run it; what it may raise of itself (a key is gone, the cache is empty or too small) is no matter."""
    with contextlib.suppress(KeyError, *expected):
        try:
            OPERATIONS[operation](cache)
        except ValueError as error:
            if str(error) != "value too large":
                raise


every_operation = pytest.mark.parametrize("operation", OPERATIONS)
every_expiry = pytest.mark.parametrize("expiry", EXPIRIES)
some_expiries = pytest.mark.parametrize("expiry", ["none", "fixed", "learned"])


def removed(cache):
    """How many entries have left: the calls to `on_removal` there should have been."""
    held = len(cache)
    return cache._counters()["inserts"] - held


# -- code that calls in


@every_operation
@some_expiries
def test_equality_and_hash_that_call_in_leave_the_cache_sound(operation, expiry):
    for action in ACTIONS:
        for hook in ("hook", "equal_hook", "hash_hook"):
            for nth in (1, 2, 4):
                cache = filled(expiry, timer=Clock())
                ran = []

                def inner(left=[nth], cache=cache, hook=hook, ran=ran):  # noqa: B006
                    left[0] -= 1
                    if left[0]:
                        setattr(Key, hook, inner)
                    else:
                        ran.append(ACTIONS[action](cache))

                setattr(Key, hook, inner)
                perform(operation, cache)
                Key.hook = Key.equal_hook = Key.hash_hook = None
                cache._check()
                assert len(cache) <= cache.maxsize


@every_operation
@pytest.mark.parametrize("policy", adaptcache.policies())
def test_callback_that_calls_in_leaves_the_cache_sound(operation, policy):
    for action in ACTIONS:
        told, deep = [], []

        def callback(key, value, cause, at):
            told.append((key.name, cause))
            if len(deep) < 3:
                deep.append(1)
                ACTIONS[action](cache)

        cache = filled(policy=policy, on_removal=callback)
        perform(operation, cache)
        cache._check()
        assert removed(cache) == len(told), "each removal is told once"


@every_operation
def test_value_that_calls_in_when_it_dies_leaves_the_cache_sound(operation):
    for action in ACTIONS:
        cache = filled()
        for value in list(cache.values()):
            value.hook = lambda cache=cache, action=action: ACTIONS[action](cache)
        del value
        perform(operation, cache)
        cache._check()


@every_operation
@some_expiries
def test_clock_that_calls_in_leaves_the_cache_sound(operation, expiry):
    for action in ACTIONS:
        clock = Clock()
        cache = filled(expiry, timer=clock)
        for step in (0.0, 99.0, 200.0):
            clock.now, clock.hook = step, lambda cache=cache, action=action: ACTIONS[action](cache)
            perform(operation, cache)
            clock.hook = None
            cache._check()


@pytest.mark.parametrize("operation", ["set-held", "set-new", "setdefault", "load-new", "update"])
def test_sizes_and_deadlines_that_call_in_leave_the_cache_sound(operation):
    for action in ACTIONS:
        class Hooked:
            hook = None

        def size(value):
            fire(Hooked)
            return 1

        def deadline(key, value, now):
            fire(Hooked)
            return now + 50

        for options in ({"getsizeof": size}, {"expiry": PerEntry(deadline), "timer": Clock()}):
            cache = Cache(4, **options)
            for name in "abcd":
                cache[Key(name)] = Value(name)
            Hooked.hook = lambda cache=cache, action=action: ACTIONS[action](cache)
            perform(operation, cache)
            assert Hooked.hook is None
            cache._check()


def test_loader_that_calls_in_leaves_the_cache_sound():
    for action in ACTIONS:
        cache = filled()
        try:
            assert cache.get_or_load(Key("n"), lambda key: (ACTIONS[action](cache), "loaded")[1]) == "loaded"
        finally:
            cache._check()
        if cache.maxsize:
            assert cache[Key("n")] == "loaded"


@pytest.mark.parametrize("argument", ["size", "ttl", "cost", "namespace", "features"])
def test_arguments_that_call_in_leave_the_cache_sound(argument):
    for action in ACTIONS:
        class Sly:
            def __float__(self):
                ACTIONS[action](cache)
                return 1.0

            def __hash__(self):
                ACTIONS[action](cache)
                return 3

            def items(self):
                ACTIONS[action](cache)
                return [("a", 1.0), ("b", self)]

        cache = filled("learned", timer=Clock())
        with contextlib.suppress(ValueError):
            cache.set(Key("n"), 1, **{argument: Sly()})
        cache._check()


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(list(OPERATIONS)), st.sampled_from(list(ACTIONS)),
                          st.sampled_from(["hook", "hash_hook", "death", "clock", "told", "nothing"])), max_size=12),
       st.sampled_from(list(EXPIRIES)), st.sampled_from(adaptcache.policies()))
def test_any_sequence_of_such_calls_leaves_the_cache_sound(steps, expiry, policy):
    clock, told, on_told = Clock(), [], Value("callback")

    def callback(key, value, cause, at):
        told.append(key)
        fire(on_told)

    cache = filled(expiry, policy, timer=clock, on_removal=callback)
    for operation, action, where in steps:
        def inner(action=action):
            ACTIONS[action](cache)

        clock.now += 30.0
        if where in ("hook", "hash_hook"):
            setattr(Key, where, inner)
        elif where == "clock":
            clock.hook = inner
        elif where == "told":
            on_told.hook = inner
        elif where == "death":
            for value in cache.values():
                if isinstance(value, Value):
                    value.hook = inner
                    break
            value = None
        perform(operation, cache)
        Key.hook = Key.hash_hook = clock.hook = on_told.hook = None
        cache._check()
        assert removed(cache) == len(told)
    for value in cache.values():
        if isinstance(value, Value):
            value.hook = None


# -- particular cases


def test_equality_that_clears_during_a_look_up_finds_nothing_afterwards():
    cache = filled()
    Key.equal_hook = cache.clear
    assert cache.get(Key("b")) is None
    assert len(cache) == 0
    cache._check()


def test_equality_that_replaces_the_entry_is_answered_with_the_new_value():
    """The look-up starts again once the table has moved."""
    cache = filled()

    def inner():
        cache.clear()
        cache[Key("x")] = "other"
        cache[Key("b")] = "inner"

    Key.equal_hook = inner
    assert cache[Key("b")] == "inner"
    Key.equal_hook = lambda: cache.pop(Key("b"))
    assert Key("b") not in cache


def test_equality_that_moves_the_slot_does_not_overwrite_another_entry():
    cache = filled()

    def inner():
        cache.pop(Key("d"))
        cache[Key("other")] = "keep"

    Key.equal_hook = inner
    cache[Key("d")] = "mine"
    assert cache[Key("other")] == "keep" and cache[Key("d")] == "mine"
    cache._check()


@pytest.mark.parametrize("operation", ["get", "in", "set-held", "pop", "del", "expires_in"])
def test_key_whose_equality_always_changes_the_cache_raises_instead_of_hanging(operation):
    class Restless(Key):
        def __eq__(self, other):
            cache.pop(0, None)
            cache[0] = 1
            return False

        __hash__ = Key.__hash__

    cache = Cache(None)
    cache[Restless("b")] = 1
    with pytest.raises(RuntimeError, match="__eq__ of a key of type Key"):
        OPERATIONS[operation](cache)
    cache._check()
    assert len(cache) == 2


def test_equality_that_resizes_cannot_make_too_large_a_value_fit():
    cache = Cache(10)
    cache.set(Key("a"), 1, size=5)
    Key.hook = lambda: cache.resize(3)
    with pytest.raises(ValueError, match="value too large"):
        cache.set(Key("b"), 2, size=4)
    cache._check()
    assert cache.currsize == 0


def test_callback_that_puts_back_what_was_evicted_comes_to_an_end(caplog):
    def callback(key, value, cause, at):
        if cause is Cause.EVICTED:
            cache[key] = value

    cache = Cache(2, policy="fifo", on_removal=callback)
    with caplog.at_level(logging.CRITICAL, "adaptcache"):
        for i in range(3):
            with contextlib.suppress(RecursionError):
                cache[i] = i
    cache._check()
    assert len(cache) == 2


# -- code that raises


def raising():
    raise Boom


@every_expiry
@pytest.mark.parametrize("operation", ["get", "index", "in", "set-held", "set-new", "set-ttl", "del", "pop", "setdefault",
                                       "load-held", "load-new", "expires_in", "explain", "update"])
@pytest.mark.parametrize("hook", ["hook", "hash_hook"])
def test_what_a_key_raises_reaches_the_caller_and_nothing_is_lost(operation, hook, expiry):
    told = []
    cache = filled(expiry, timer=Clock(), on_removal=lambda *what: told.append(what))
    before, stats = list(cache.items()), cache.stats()
    setattr(Key, hook, raising)
    with pytest.raises(Boom):
        OPERATIONS[operation](cache)
    cache._check()
    assert list(cache.items()) == before and not told
    after = cache.stats()
    assert (after.inserts, after.evictions, after.expirations) == (stats.inserts, stats.evictions, stats.expirations)


@every_operation
def test_what_a_clock_raises_reaches_the_caller_and_nothing_is_lost(operation):
    if operation == "stats":
        return                          # reads no clock unless the expiry is learned
    clock = Clock()
    cache = filled("fixed", timer=clock)
    before = list(cache.items())
    clock.hook = raising
    with pytest.raises(Boom):
        OPERATIONS[operation](cache)
    cache._check()
    assert list(cache.items()) == before


@pytest.mark.parametrize("operation", ["set-held", "set-new", "setdefault", "load-new"])
def test_what_sizes_deadlines_and_loaders_raise_reaches_the_caller_and_nothing_is_lost(operation):
    state = {"raises": False}

    def maybe(*_):
        if state["raises"]:
            raise Boom
        return 1

    for options in ({"getsizeof": maybe}, {"expiry": PerEntry(maybe), "timer": Clock()}):
        cache = Cache(4, **options)
        for name in "abcd":
            cache[Key(name)] = name
        before = list(cache.items())
        state["raises"] = True
        with pytest.raises(Boom):
            OPERATIONS[operation](cache)
        state["raises"] = False
        cache._check()
        assert list(cache.items()) == before


def test_what_a_loader_raises_reaches_the_caller_and_nothing_is_stored():
    cache = filled()
    before = list(cache.items())
    with pytest.raises(Boom):
        cache.get_or_load(Key("n"), lambda key: raising())
    assert list(cache.items()) == before
    assert cache.stats().load_failures == 1
    cache._check()


def test_what_expired_is_told_even_when_the_look_up_raises():
    """At once, not with the next operation."""
    clock, told = Clock(), []
    cache = Cache(9, expiry=Learned(ceiling=5.0, memory_price=0, learner="manual", seed=1), timer=clock,
                  on_removal=lambda key, value, cause, at: told.append((key.name, cause, at)))
    cache.set(Key("short"), 1, ttl=1.0)
    cache[Key("long")] = 1
    clock.now = 2.0
    Key.hook = raising
    with pytest.raises(Boom):
        cache.get(Key("long"))
    assert told == [("short", Cause.EXPIRED, 1.0)]


@every_operation
def test_callback_that_raises_is_logged_and_the_operation_goes_on(operation, caplog):
    def callback(*_):
        raise Boom

    cache, quiet = filled(on_removal=callback), filled()
    with caplog.at_level(logging.ERROR, "adaptcache"):
        perform(operation, cache)
    perform(operation, quiet)
    assert [key.name for key in cache] == [key.name for key in quiet]
    assert removed(cache) == len(caplog.records)
    assert all("on_removal raised" in record.message for record in caplog.records)
    cache._check()


# -- garbage that is collected in the middle of an operation


class Tied:
    """Garbage only the collector can free; runs its hook then."""

    def __init__(self, hook):
        self.hook, self.me = hook, self

    def __del__(self):
        self.hook()


@contextlib.contextmanager
def collected_after(allocations, hook):
    """Garbage that runs `hook` at that allocation of a container, counted from here.

    What CPython would take from its free lists does not count, so these are emptied; and all that is
    alive already is left out of the search, which makes it fast.
    """
    old = gc.get_threshold()
    gc.freeze()
    gc.collect()
    gc.disable()
    kept = [[(i, i) for i in range(2100)], [[] for _ in range(100)], [{i: i} for i in range(100)]]
    Tied(hook)
    # The count may run ahead by what was made just now.
    gc.set_threshold(gc.get_count()[0] + allocations, 1000, 1000)
    gc.enable()
    try:
        yield
    finally:
        gc.set_threshold(*old)
        gc.unfreeze()
        kept.clear()


@pytest.mark.parametrize("operation", ["popitem", "expire", "expire-at", "items", "list", "clear", "explain", "resize",
                                       "set-new", "pop", "equals"])
@pytest.mark.parametrize("expiry", ["none", "fixed", "learned"])
def test_finalizers_that_run_inside_an_operation_leave_the_cache_sound(operation, expiry):
    for action in ACTIONS:
        for allocations in range(5):
            clock, told = Clock(), []
            cache = filled(expiry, timer=clock, on_removal=lambda key, value, cause, at, told=told: told.append(value))
            for name in "ab":
                cache.set(Key(name), Value(name), ttl=3.0)
            clock.now = 4.0 if operation == "expire" else 2.0
            perform_now = OPERATIONS[operation]
            with collected_after(allocations, lambda cache=cache, action=action: ACTIONS[action](cache)):
                try:
                    perform_now(cache)
                except (KeyError, ValueError):
                    pass
            cache._check()
            ours = [id(value) for value in told if isinstance(value, Value)]
            assert len(ours) == len(set(ours)), "told twice"
            assert removed(cache) == len(told)


def test_iteration_pairs_each_key_with_its_own_value_whatever_is_collected_meanwhile():
    for allocations in range(12):
        cache = Cache(None)
        for i in range(50):
            cache[i] = i

        def shuffle(cache=cache):
            cache.clear()
            for i in range(1000, 1080):
                cache[i] = i

        with collected_after(allocations, shuffle):
            pairs = list(cache.items())
        assert all(key == value for key, value in pairs) and len(pairs) in (50, 80)


def test_finalizer_that_stores_the_key_while_room_is_made_for_it_makes_no_second_entry():
    """`==` uses up the last free place, so that room is made after the look-up; and that may collect garbage."""
    stored = []
    for places in range(3, 9):
        for allocations in range(12):
            cache = Cache(None)
            cache[Key("other")] = 0
            for i in range(places - 2):
                cache[i] = i

            def fill(cache=cache):
                cache["last"] = "last"

            def store(cache=cache):
                stored.append(allocations)
                cache[Key("new")] = "the finalizer's"

            Key.hook = fill
            with collected_after(allocations, store):
                cache[Key("new")] = "ours"
            Key.hook = None
            held = [key.name for key in cache if isinstance(key, Key)]
            assert sorted(held) == ["new", "other"]
            cache._check()
    assert stored


def test_timer_that_gives_the_first_ttl_while_the_first_ttl_is_given_loses_none():
    clock = Clock()
    cache = Cache(10, timer=clock)
    cache["before"] = 0

    def slow():
        cache.set("inner", 1, ttl=5)
        clock.now = 3.0

    clock.hook = slow
    cache.set("outer", 2, ttl=10)
    cache._check()
    clock.now = 4.0
    assert set(cache) == {"before", "inner", "outer"}
    clock.now = 5.0
    assert set(cache) == {"before", "outer"}
    clock.now = 13.0
    assert set(cache) == {"before"}
    cache._check()


@pytest.mark.parametrize("operation", ["get", "set", "pop"])
def test_what_is_cleared_while_a_key_that_left_early_is_hashed_is_not_written_to_afterwards(operation):
    """The dict that the key was on its way into is gone then, and its memory may be somebody else's dict."""
    clock = Clock()
    cache = Cache(10, timer=clock, expiry=Learned(learner="manual", seed=1, premature=1, memory_price=1.0, miss_cost=1.0,
                                                  window=1e5))
    cache[Key("early")] = 0
    for _ in range(100):
        clock.now += 10.0
        cache.expire()
    assert cache.stats().in_flight == 1
    others = []

    def clear():
        cache.clear()
        others.extend({} for _ in range(200))

    name = Key("another")
    Key.hash_hook = None
    Key.hook = None
    hash(name)
    hooks = [None, clear]               # first the key that is asked for, then the one that left early

    def each():
        hook = hooks.pop(0)
        Key.hash_hook = each if hooks else None
        if hook is not None:
            hook()

    Key.hash_hook = each
    {"get": lambda: cache.get(name), "set": lambda: cache.set(name, 1), "pop": lambda: cache.pop(name, None)}[operation]()
    assert others and not any(others), "somebody else's dict was written to"
    cache._check()


# -- references


def test_values_and_keys_die_when_they_leave():
    def leave(cache, how):
        cache[Key("k")] = value = Value("v")
        references = weakref.ref(value), weakref.ref(next(iter(cache)))
        del value
        assert all(reference() is not None for reference in references)
        how(cache)
        assert all(reference() is None for reference in references)

    clock = Clock()
    clock.now = 1.0
    for how in (Cache.clear, Cache.popitem, lambda c: c.pop(Key("k")), lambda c: c.__delitem__(Key("k")),
                lambda c: c.resize(0), lambda c: (setattr(clock, "now", clock.now + 100), c.expire()),
                lambda c: (setattr(clock, "now", clock.now + 100), c.get(Key("k"))),
                lambda c: [c.set(i, i) for i in range(9)]):
        cache = Cache(3, expiry=Fixed(60.0), timer=clock)
        leave(cache, how)


def test_references_are_dropped_only_after_the_entry_is_unlinked():
    """A value's last breath sees a cache without it."""
    seen = []
    for operation in (lambda c: c.pop("a"), lambda c: c.clear(), lambda c: c.set("a", "new"), lambda c: c.popitem(),
                      lambda c: c.resize(0), lambda c: c.expire()):
        clock = Clock()
        cache = Cache(3, expiry=Fixed(5.0), timer=clock)

        def last_breath(cache=cache):
            cache._check()
            seen.append((len(cache), cache.get("a")))

        cache["a"] = Value("a", last_breath)
        clock.now = 5.0 if operation.__code__.co_names == ("expire",) else 0.0
        operation(cache)
        cache._check()
    assert seen == [(0, None), (0, None), (1, "new"), (0, None), (0, None), (0, None)]


@every_expiry
def test_operations_leak_no_references(expiry):
    class Plain:
        pass

    clock, key, value = Clock(), Plain(), Plain()
    rule = EXPIRIES[expiry]
    if expiry == "learned":
        rule = replace(rule, floor=100.0)       # or it may let go of the key between two of the operations
    cache = Cache(3, expiry=rule, timer=clock, on_removal=lambda *what: None)

    def everything():
        cache[key] = value
        cache[key] = value
        cache.set(key, value, ttl=5, cost=1, size=1, namespace="n", features={"f": 1})
        cache.get(key), cache[key], key in cache, cache.get("absent")
        list(cache), list(cache.items()), len(cache), cache == {}, repr(cache)
        cache.expires_in(key), cache.explain(key), cache.stats()
        cache.pop(key)
        for i in range(6):
            cache[i] = value
        cache.popitem()
        cache.get_or_load(key, lambda k: value)
        with contextlib.suppress(ValueError):
            cache.set(key, value, size=9)
        with contextlib.suppress(ValueError):
            cache.set(key, value, ttl=-1)
        with contextlib.suppress(KeyError):
            del cache["absent"]
        cache.expire(), cache.resize(2), cache.resize(3)
        clock.now += 1000
        cache.expire(), cache.clear(), cache.learn()

    for _ in range(3):
        everything()
    gc.collect()
    before = sys.getrefcount(key), sys.getrefcount(value), sys.getrefcount(None), len(gc.get_objects())
    for _ in range(50):
        everything()
    gc.collect()
    after = sys.getrefcount(key), sys.getrefcount(value), sys.getrefcount(None), len(gc.get_objects())
    assert after[:2] == before[:2]
    assert abs(after[2] - before[2]) < 40 and abs(after[3] - before[3]) < 40


@every_expiry
def test_dropped_cache_in_a_cycle_is_collected(expiry):
    class Holder:
        pass

    def make():
        holder = Holder()
        cache = Cache(9, getsizeof=lambda value: 1 if holder else 2, expiry=EXPIRIES[expiry],
                      timer=lambda: 0.0 if holder else 1.0, on_removal=lambda *what: holder)
        holder.cache = cache
        cache["through a value"] = holder
        cache[Holder()] = cache
        return weakref.ref(cache), weakref.ref(holder)

    references = make()
    gc.collect()
    assert [reference() for reference in references] == [None, None]


def test_deadline_function_in_a_cycle_is_collected():
    def make():
        cache = Cache(9, expiry=PerEntry(lambda key, value, now: now + len(cache)))
        cache["a"] = 1
        return weakref.ref(cache)

    reference = make()
    gc.collect()
    assert reference() is None


def test_dropping_a_cache_drops_what_it_held():
    cache = filled()
    references = [weakref.ref(value) for value in cache.values()]
    del cache
    assert all(reference() is None for reference in references)


def test_values_that_call_in_while_their_cache_dies_do_no_harm():
    cache = filled()
    weak = weakref.ref(cache)
    seen = []
    for value in cache.values():
        value.hook = lambda: seen.append(weak())
    del value
    del cache
    assert seen == [None] * 4


# -- construction


def test_cache_without_init_crashes_nothing():
    for operation in OPERATIONS.values():
        cache = Cache.__new__(Cache)
        with contextlib.suppress(AttributeError, KeyError, ValueError):
            operation(cache)
        with contextlib.suppress(AttributeError, ValueError):
            cache.set("a", 1, ttl=1, cost=1, namespace=1, features={"a": 1})
        cache._check()
        assert cache.get("a") is None and len(cache) == 0
        cache.resize(3)
        cache["a"] = 1
        cache._check()


@every_expiry
def test_second_init_is_refused_and_changes_nothing(expiry):
    cache = filled(expiry, timer=Clock())
    before, inside = list(cache.items()), dict(vars(cache))
    with pytest.raises(TypeError, match="twice"):
        cache.__init__(99, expiry=Learned(learner="manual"), policy="lru")
    assert list(cache.items()) == before and vars(cache) == inside
    assert cache.maxsize == 4 and cache.policy_name == "sieve"
    cache._check()


def test_namespaces_that_are_named_inside_one_another_get_numbers_of_their_own():
    cache = Cache(None, expiry=adaptcache.Learned(learner="manual", seed=1), timer=lambda: 1.0)

    class Label:
        asked = 0

        def __hash__(self):
            Label.asked += 1
            if Label.asked > 1:             # after the check that it can be hashed: while it is being named
                cache.set("inner", 1, namespace=f"other {Label.asked}")
            return 7

    label = Label()
    cache.set("outer", 1, namespace=label)
    assert Label.asked >= 3
    numbers = list(cache._labels())
    assert len(numbers) == len(set(numbers)) == Label.asked, "one each"
    assert sorted(cache._names()[0].values()) == sorted(numbers)
