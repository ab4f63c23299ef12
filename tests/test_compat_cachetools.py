"""cachetools' semantics on our core: its own tests, and ours beside it, operation by operation."""
from __future__ import annotations

import contextlib
import copy
import gc
import hashlib
import json
import os
import pickle
import random
import re
import subprocess
import sys
import tarfile
import threading
import weakref
from fractions import Fraction
from pathlib import Path

import cachetools as theirs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import adaptcache.compat.cachetools as ours

HERE = Path(__file__).parent
PINNED = HERE / "cachetools-sdist.txt"
VERSION, DIGEST = re.search(r"==(\S+) --hash=sha256:(\w+)", PINNED.read_text()).groups()

# -- its own tests


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """The folder of the pinned release with its tests, which are not ours to copy: fetched once, kept in the environment."""
    kept = Path(os.environ.get("ADAPTCACHE_SDISTS") or Path(sys.prefix) / "sdists")
    archive = kept / f"cachetools-{VERSION}.tar.gz"
    if not archive.exists():
        if os.environ.get("ADAPTCACHE_OFFLINE"):
            pytest.skip(f"ADAPTCACHE_OFFLINE is set and {archive} is not there: cachetools' own tests cannot be run")
        fetched = subprocess.run(
            [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", "cachetools", "--require-hashes",
             "-r", str(PINNED), "--dest", str(kept)], capture_output=True, text=True,
        )
        if fetched.returncode:
            pytest.fail(f"cachetools {VERSION} with its tests could not be fetched; without a network, set ADAPTCACHE_OFFLINE=1\n"
                        f"{fetched.stdout}{fetched.stderr}", pytrace=False)
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == DIGEST
    folder = tmp_path_factory.mktemp("cachetools")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return folder / f"cachetools-{VERSION}"


def run_suite(whose, sdist, tmp_path):
    report = tmp_path / f"{whose}.json"
    run = subprocess.run([sys.executable, str(HERE / "cachetools_suite.py"), whose, str(report)], cwd=sdist,
                         capture_output=True, text=True)
    assert report.exists(), run.stdout + run.stderr
    return json.loads(report.read_text()), run.stdout


def test_its_own_tests_pass_with_our_names_swapped_in(sdist, tmp_path):
    theirs, _ = run_suite("theirs", sdist, tmp_path)
    ours, said = run_suite("ours", sdist, tmp_path)
    assert theirs["under_test"] == "cachetools" and ours["under_test"] == "adaptcache.compat.cachetools"
    assert len(theirs["outcomes"]) == 465 and set(theirs["outcomes"].values()) == {"passed"}
    assert ours["outcomes"] == theirs["outcomes"], said


# -- beside it, operation by operation

class Ticker:
    def __init__(self):
        self.now = 0

    def __call__(self):
        return self.now

    def tick(self, by):
        self.now += by


MADE = {
    "Cache": lambda of, size, sizer, timer: of.Cache(size, sizer),
    "FIFOCache": lambda of, size, sizer, timer: of.FIFOCache(size, sizer),
    "LFUCache": lambda of, size, sizer, timer: of.LFUCache(size, sizer),
    "LRUCache": lambda of, size, sizer, timer: of.LRUCache(size, sizer),
    "RRCache min": lambda of, size, sizer, timer: of.RRCache(size, min, sizer),
    "RRCache last": lambda of, size, sizer, timer: of.RRCache(size, lambda keys: keys[-1], sizer),
    "RRCache first": lambda of, size, sizer, timer: of.RRCache(size, lambda keys: keys[0], sizer),
    "TTLCache": lambda of, size, sizer, timer: of.TTLCache(size, 5, timer, sizer),
    "TTLCache 0": lambda of, size, sizer, timer: of.TTLCache(size, 0, timer, sizer),
    "TLRUCache": lambda of, size, sizer, timer: of.TLRUCache(size, lambda key, value, now: now + value, timer, sizer),
}

KEYS = st.integers(0, 7)
VALUES = st.integers(0, 6)
OPERATIONS = st.lists(st.one_of(
    st.tuples(st.just("set"), KEYS, VALUES),
    st.tuples(st.just("set"), KEYS, VALUES),
    st.tuples(st.sampled_from(["get", "[]", "in", "del", "pop", "pop or", "setdefault"]), KEYS, VALUES),
    st.tuples(st.sampled_from(["popitem", "expire", "clear", "keys", "values", "items", "repr", "len", "currsize", "copy", "pickle",
                               "deepcopy", "update"]),
              st.just(0), st.just(0)),
    st.tuples(st.just("tick"), st.integers(0, 4), st.just(0)),
), max_size=40)


def outcome(cache, name, key, value):
    """What an operation returns or raises."""
    do = {
        "set": lambda: cache.__setitem__(key, value), "get": lambda: cache.get(key), "[]": lambda: cache[key],
        "in": lambda: key in cache, "del": lambda: cache.__delitem__(key), "pop": lambda: cache.pop(key),
        "pop or": lambda: cache.pop(key, -1), "setdefault": lambda: cache.setdefault(key, value), "popitem": cache.popitem,
        "expire": lambda: sorted(cache.expire()) if hasattr(cache, "ttl") or hasattr(cache, "ttu") else None,
        "clear": cache.clear, "keys": lambda: list(cache), "values": lambda: list(cache.values()), "items": lambda: list(cache.items()),
        "repr": lambda: repr(cache).split("{")[1] if len(cache) < 2 else None, "len": lambda: len(cache),
        "currsize": lambda: cache.currsize, "update": lambda: cache.update({1: 1, 2: 2}),
    }[name]
    try:
        result = do()
    except (KeyError, ValueError) as error:
        return type(error)
    return result


class Heard:
    """A library whose classes are subclassed: the methods named are overridden, and say when they are called."""

    def __init__(self, library, overridden):
        self.library, self.overridden, self.calls = library, overridden, []

    def __getattr__(self, name):
        base, calls = getattr(self.library, name), self.calls

        class Listening(base):
            pass

        def listen(method):
            def override(cache, *args):
                calls.append((method, args))
                return getattr(base, method)(cache, *args)
            setattr(Listening, method, override)

        for method in self.overridden:
            if method == "__missing__":
                def missing(cache, key):
                    calls.append(("__missing__", key))
                    if key % 2:
                        cache[key] = key
                    return -key
                Listening.__missing__ = missing
            elif hasattr(base, method):
                listen(method)
        return Listening


def compare(make, operations, maxsize, sized, libraries=(theirs, ours)):
    sizer = (lambda value: value) if sized else None
    timer = Ticker()
    pair = [make(of, maxsize, sizer, timer) for of in libraries]
    for name, key, value in operations:
        if name == "tick":
            timer.now += key
        elif name == "copy":
            pair = [copy.copy(cache) for cache in pair]
        elif name in ("pickle", "deepcopy"):
            continue        # Below, where nothing is a lambda.
        else:
            results = [outcome(cache, name, key, value) for cache in pair]
            assert results[0] == results[1], (name, key, value)
        pair[1]._check()
    orders = []
    for cache in pair:
        order = []
        while len(cache):
            order.append(cache.popitem())
        orders.append(order)
    assert orders[0] == orders[1]
    assert getattr(libraries[0], "calls", None) == getattr(libraries[1], "calls", None)


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
@settings(max_examples=60, deadline=None)
@given(operations=OPERATIONS, maxsize=st.sampled_from([0, 1, 2, 3, 5, 5.5, 8]), sized=st.booleans())
def test_every_operation_comes_to_what_it_comes_to_there(make, operations, maxsize, sized):
    compare(make, operations, maxsize, sized)


HOOKS = ["popitem", "__getitem__", "__setitem__", "__delitem__", "__contains__", "__missing__", "get", "pop", "setdefault", "clear", "expire"]


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
@settings(max_examples=60, deadline=None)
@given(operations=OPERATIONS, maxsize=st.sampled_from([1, 2, 3, 5]), sized=st.booleans(),
       overridden=st.lists(st.sampled_from(HOOKS), unique=True, min_size=1))
def test_a_subclass_hears_what_it_would_hear_there(make, operations, maxsize, sized, overridden):
    operations = [operation for operation in operations if operation[0] != "copy"]
    compare(make, operations, maxsize, sized, [Heard(library, overridden) for library in (theirs, ours)])


# -- user code in the middle


class Moment:
    """A time whose comparison calls in, a few times."""

    calls = None

    def __init__(self, at):
        self.at = at

    def __add__(self, by):
        return Moment(self.at + by)

    def __lt__(self, other):
        calls, Moment.calls = Moment.calls, None
        if calls:
            calls.pop()()
            Moment.calls = calls
        return self.at < other.at


class Awkward:
    """A key that calls in when it is compared, and a value that does when it goes."""

    calls = None

    def __init__(self, number):
        self.number = number

    def __hash__(self):
        return self.number % 3

    def __eq__(self, other):
        self.call()
        return isinstance(other, Awkward) and self.number == other.number

    def __del__(self):
        self.call()

    @staticmethod
    def call():
        calls, Awkward.calls = Awkward.calls, None
        if calls:
            with contextlib.suppress(KeyError, ValueError, RuntimeError):
                calls.pop()()
            Awkward.calls = calls


def intrusions(cache, draws):
    """What user code may do to a cache while it works, one for each draw."""
    for number in draws:
        key = Awkward(number)
        yield [
            lambda key=key: cache.__setitem__(key, 1), lambda key=key: cache.pop(key, None), cache.clear, lambda: len(cache) and cache.popitem(),
            lambda: cache.expire(Moment(10**6)), lambda: list(cache), lambda number=number: cache.resize(1 + number % 5),
            lambda: copy.copy(cache),
        ][number % 8]


def boundless(cls):
    """With evictions that the subclass hears of."""
    class Listening(cls):
        def popitem(self):
            Awkward.call()
            return super().popitem()
    return Listening


AWKWARD = {
    "LRUCache": lambda timer: ours.LRUCache(4),
    "LFUCache": lambda timer: ours.LFUCache(4),
    "FIFOCache, sized": lambda timer: ours.FIFOCache(4, lambda value: 1 + isinstance(value, Awkward)),
    "RRCache": lambda timer: ours.RRCache(4, lambda keys: Awkward.call() or (keys[0] if keys else None)),
    "TTLCache": lambda timer: ours.TTLCache(4, 5, timer),
    "TLRUCache": lambda timer: ours.TLRUCache(4, lambda key, value, now: now + 5, timer),
    "LRUCache, overridden": lambda timer: boundless(ours.LRUCache)(4),
    "TTLCache, overridden": lambda timer: boundless(ours.TTLCache)(4, 5, timer),
}


@pytest.mark.parametrize("make", AWKWARD.values(), ids=AWKWARD)
@settings(max_examples=60, deadline=None)
@given(operations=OPERATIONS, draws=st.lists(st.integers(0, 40), min_size=1, max_size=30))
def test_user_code_that_calls_in_leaves_the_cache_sound(make, operations, draws):
    now = [0]
    cache = make(lambda: Moment(now[0]))
    Awkward.calls, Moment.calls = list(intrusions(cache, draws[::2])), list(intrusions(cache, draws[1::2]))
    try:
        for name, key, value in operations:
            if name == "tick":
                now[0] += key
            elif name not in ("update", "repr", "expire", "copy", "pickle", "deepcopy"):
                try:
                    outcome(cache, name, Awkward(key), Awkward(value))
                except RuntimeError:
                    pass        # a heap, or a dict, that was changed while it was looked at
            cache._check()
    finally:
        Awkward.calls = Moment.calls = None
    cache.clear()
    cache._check()
    assert len(cache) == 0 and cache.currsize == 0


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_a_cache_that_nobody_holds_is_collected(make):
    class Value(int):
        pass

    cache = make(ours, 5, lambda value: 1, Ticker())
    cache[1] = value = Value(3)
    value.cache = cache
    gone = weakref.ref(cache)
    del cache, value
    gc.collect()
    assert gone() is None


def test_nothing_is_lost_when_an_overridden_method_raises():
    class Refusing(ours.LRUCache):
        def popitem(self):
            raise RuntimeError("not now")

    cache = Refusing(2)
    cache.update({1: 1, 2: 2})
    with pytest.raises(RuntimeError, match="not now"):
        cache[3] = 3
    assert dict(cache.items()) == {1: 1, 2: 2}
    cache._check()


def test_the_default_choice_takes_the_keys_that_cachetools_would():
    taken = []
    for of in (theirs, ours):
        random.seed(7)
        cache = of.RRCache(8)
        taken.append([])
        for key in range(200):
            cache[key] = key
            if key % 5 == 0:
                cache.pop(key - 3, None)
            if key % 7 == 0:
                taken[-1].append(cache.popitem())
        taken[-1].append(sorted(cache))
    assert taken[0] == taken[1]


def test_nanoseconds_and_exact_fractions_are_times_too():
    now = [10**30]
    cache = ours.TTLCache(5, 1, timer=lambda: now[0])
    cache["a"] = 1
    assert "a" in cache and cache.expires_in("a") == 1
    now[0] += 1
    assert "a" not in cache and cache.expire() == [("a", 1)]
    third = ours.TLRUCache(5, lambda key, value, at: at + Fraction(1, 3), timer=lambda: Fraction(now[0], 3))
    third["a"] = 1
    assert "a" in third
    now[0] += 1
    assert "a" not in third


def test_a_timer_that_goes_back_brings_back_what_was_not_removed():
    timer = Ticker()
    cache = ours.TTLCache(5, 3, timer)
    cache["a"] = 1
    timer.now = 3
    assert "a" not in cache
    timer.now = 2
    assert cache["a"] == 1


@pytest.mark.parametrize("name", ["LRUCache", "LFUCache", "RRCache", "TTLCache", "TLRUCache"])
def test_single_operations_are_safe_from_several_threads(name):
    timer = Ticker()
    cache = {"TTLCache": lambda: ours.TTLCache(8, 50, timer), "TLRUCache": lambda: ours.TLRUCache(8, lambda k, v, now: now + 50, timer)} \
        .get(name, lambda: getattr(ours, name)(8))()
    failures = []

    def work(seed):
        draw = random.Random(seed)
        try:
            for step in range(3000):
                key = draw.randrange(12)
                draw.choice([
                    lambda key=key: cache.__setitem__(key, key), lambda key=key: cache.get(key), lambda key=key: cache.pop(key, None),
                    lambda key=key: cache.setdefault(key, key), lambda key=key: key in cache, lambda: list(cache), lambda: len(cache),
                ])()
                timer.now += step % 3 == 0
        except BaseException as error:
            failures.append(error)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert failures == []
    cache._check()


# -- copies


def grow(key, value, now):
    return now + value


def size_of(value):
    return value


KINDS = {
    "Cache": lambda of: of.Cache(9, size_of), "FIFOCache": lambda of: of.FIFOCache(4), "LFUCache": lambda of: of.LFUCache(4),
    "LRUCache": lambda of: of.LRUCache(9, size_of), "RRCache": lambda of: of.RRCache(4, min),
    "TTLCache": lambda of: of.TTLCache(4, 5, Ticker()), "TLRUCache": lambda of: of.TLRUCache(9, grow, Ticker(), size_of),
}


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
@settings(max_examples=30, deadline=None)
@given(before=OPERATIONS, after=OPERATIONS,
       way=st.sampled_from([copy.copy, copy.deepcopy, *(lambda cache, n=n: pickle.loads(pickle.dumps(cache, n)) for n in range(2, 6))]))
def test_a_copy_goes_on_as_a_copy_does_there(make, before, after, way):
    pair = [make(of) for of in (theirs, ours)]
    for operations in (before, after):
        for name, key, value in operations:
            if name == "tick":
                for cache in pair:
                    if hasattr(cache, "ttl") or hasattr(cache, "ttu"):
                        cache.timer.tick(key)
            elif name not in ("copy", "pickle", "deepcopy"):
                results = [outcome(cache, name, key, value) for cache in pair]
                assert results[0] == results[1], (name, key, value)
            pair[1]._check()
        pair = [way(cache) for cache in pair]
    orders = [[cache.popitem() for _ in range(len(cache))] for cache in pair]
    assert orders[0] == orders[1]


class Attributed(ours.TTLCache):
    def __init__(self):
        super().__init__(4, 5, Ticker())
        self.name, self.lock = "blue", threading.Lock()

    def __getstate__(self):
        return {"name": self.name}

    def __setstate__(self, state):
        self.__dict__.update(state)
        self.lock = threading.Lock()


def test_a_subclass_says_what_of_its_attributes_travels():
    source = Attributed()
    source[1] = [2]
    for way in (copy.deepcopy, lambda cache: pickle.loads(pickle.dumps(cache))):
        new = way(source)
        assert type(new) is Attributed and new.name == "blue" and dict(new.items()) == {1: [2]} and new.lock is not source.lock
    shallow = copy.copy(source)
    assert shallow.lock is source.lock and shallow[1] is source[1]


@pytest.mark.parametrize("way", [copy.deepcopy, lambda cache: pickle.loads(pickle.dumps(cache))], ids=["deepcopy", "pickle"])
def test_a_cache_that_holds_itself(way):
    cache = ours.LRUCache(3)
    cache["me"] = cache
    new = way(cache)
    assert new["me"] is new and new is not cache
    assert "..." in repr(cache)


@pytest.mark.parametrize("name", ["Cache", "FIFOCache", "LFUCache", "LRUCache", "RRCache", "TTLCache", "TLRUCache"])
def test_who_asks_takes_ours_for_theirs(name):
    assert issubclass(getattr(ours, name), getattr(theirs, name))
