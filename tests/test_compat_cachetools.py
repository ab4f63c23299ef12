"""cachetools' semantics on our core: its own tests, and ours beside it, operation by operation."""
from __future__ import annotations

import copy
import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
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
    if name in ("keys", "values", "items") and hasattr(cache, "ttu"):
        return sorted(result)       # in the order of a heap
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
@settings(max_examples=150, deadline=None)
@given(operations=OPERATIONS, maxsize=st.sampled_from([0, 1, 2, 3, 5, 5.5, 8]), sized=st.booleans())
def test_every_operation_comes_to_what_it_comes_to_there(make, operations, maxsize, sized):
    compare(make, operations, maxsize, sized)


HOOKS = ["popitem", "__getitem__", "__setitem__", "__delitem__", "__contains__", "__missing__", "get", "pop", "setdefault", "clear", "expire"]


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
@settings(max_examples=100, deadline=None)
@given(operations=OPERATIONS, maxsize=st.sampled_from([1, 2, 3, 5]), sized=st.booleans(),
       overridden=st.lists(st.sampled_from(HOOKS), unique=True, min_size=1))
def test_a_subclass_hears_what_it_would_hear_there(make, operations, maxsize, sized, overridden):
    operations = [operation for operation in operations if operation[0] != "copy"]
    compare(make, operations, maxsize, sized, [Heard(library, overridden) for library in (theirs, ours)])
