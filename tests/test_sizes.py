"""`sizeof`: what an entry takes, counted once, and nothing that everybody shares."""
import sys
from collections import deque

import numpy as np
import pytest

import adaptcache
from adaptcache import Cache, sizeof


class Plain:
    def __init__(self, **parts):
        self.__dict__.update(parts)


class Slotted:
    __slots__ = ("part",)

    def __init__(self, part):
        self.part = part


LONG = "x" * 10_000


@pytest.mark.parametrize("hold", [
    lambda part: [part], lambda part: (part,), lambda part: {"key": part}, lambda part: {part: 1}, lambda part: {part},
    lambda part: frozenset({part}), lambda part: deque([part]), lambda part: Plain(part=part), lambda part: Slotted(part),
    lambda part: [[[(part,)]]], lambda part: np.array([part], object), lambda part: iter([part]),
], ids=["list", "tuple", "dict value", "dict key", "set", "frozenset", "deque", "object", "slots", "deep", "array", "iterator"])
def test_what_is_held_is_counted_wherever_it_is(hold):
    part = "y" * 10_000
    assert sys.getsizeof(part) < sizeof(hold(part)) < sys.getsizeof(part) + 2000


def test_what_is_held_twice_is_counted_once():
    assert sizeof([LONG, LONG]) < 1.1 * sys.getsizeof(LONG)
    assert sizeof(LONG, LONG) == sys.getsizeof(LONG)
    assert sizeof(LONG, [LONG]) == sys.getsizeof(LONG) + sys.getsizeof([None])


def test_a_structure_that_holds_itself_has_a_size():
    itself = [LONG]
    itself.append(itself)
    assert sys.getsizeof(LONG) < sizeof(itself) < sys.getsizeof(LONG) + 500


def test_what_everybody_shares_is_not_counted():
    assert sizeof(None) == sizeof(True) == sizeof(int) == sizeof(sys) == sizeof(len) == sizeof(sizeof) == 0
    assert sizeof(Plain()) < 1000, "its class is not part of it"
    assert sizeof([None] * 100) == sys.getsizeof([None] * 100)


def test_the_memory_behind_an_array_is_counted_through_a_view_too():
    array = np.zeros(100_000)
    assert 800_000 <= sizeof(array) < 801_000
    assert 800_000 <= sizeof(array[10:20]) < 801_000


def test_a_deep_structure_takes_no_recursion():
    deep = None
    for _ in range(100_000):
        deep = [deep]
    assert sizeof(deep) >= 100_000 * sys.getsizeof([None])


def test_a_cache_weighs_keys_and_values():
    cache = Cache(100_000, getsizeof=sizeof)
    cache["k" * 20_000] = "v" * 30_000
    assert cache.currsize == sizeof("k" * 20_000, "v" * 30_000)
    cache["k" * 20_001] = "v" * 30_000
    assert cache.currsize <= 100_000 and len(cache) == 1, "two of them do not fit"
    with pytest.raises(ValueError, match="value too large"):
        cache["k" * 100_000] = ""
    assert len(cache) == 1
    cache._check()


def test_an_entry_that_grows_is_weighed_anew_with_its_key():
    cache = Cache(10**6, getsizeof=sizeof, policy="lru")
    cache["key"] = "a"
    small = cache.currsize
    cache["key"] = LONG
    assert cache.currsize == small + sizeof(LONG) - sizeof("a")
    del cache["key"]
    assert cache.currsize == 0


def test_any_weigher_may_ask_for_keys():
    def weigh(key, value):
        return len(key) + len(value)

    weigh.with_key = True
    cache = Cache(10, getsizeof=weigh)
    cache["abc"] = "de"
    cache.set("ab", "c")
    assert cache.currsize == 8
    assert cache.get_or_load("x", lambda key: "y") == "y"
    assert cache.currsize == 10


def test_a_weigher_that_is_not_marked_is_asked_for_the_value_alone():
    cache = Cache(10, getsizeof=len)
    cache["a long key"] = "abc"
    assert cache.currsize == 3


def test_the_weigher_that_is_given_has_the_say():
    """As with cachetools, where the argument takes the place of the method."""
    class Weighed(Cache):
        def getsizeof(self, value):
            return 7

    cache = Weighed(10**6, getsizeof=sizeof)
    cache["key"] = LONG
    assert cache.currsize == sizeof("key", LONG)
    cache = Weighed(10)
    cache["key"] = LONG
    assert cache.currsize == 7


def test_decorated_functions_take_it():
    @adaptcache.cached(maxsize=10**6, getsizeof=sizeof)
    def text(length):
        return "x" * length

    text(5000)
    assert text.cache.currsize == sizeof((5000,), "x" * 5000)


def test_a_size_that_cannot_be_had_stores_nothing():
    class Secret:
        def __sizeof__(self):
            raise RuntimeError("no")

    cache = Cache(1000, getsizeof=sizeof)
    cache["a"] = 1
    with pytest.raises(RuntimeError):
        cache["b"] = Secret()
    assert list(cache) == ["a"]
    cache._check()
