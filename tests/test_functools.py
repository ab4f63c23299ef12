"""`lru_cache` and `cache` in place of functools': CPython's own tests of it, and what they do not ask."""
import copy
import functools
import gc
import importlib.util
import inspect
import pickle
import random
import sys
import threading
import types
import weakref

import pytest
from calls import call_lists
from hypothesis import given, settings
from hypothesis import strategies as st

import adaptcache
from adaptcache import cache, lru_cache

# -- CPython's own tests


def cpythons():
    """The test class that this Python brings along for functools.lru_cache, with our names in place of functools'."""
    module = importlib.import_module("test.test_functools")
    unittest = importlib.import_module("unittest")
    ours = types.SimpleNamespace(**vars(functools))
    ours.lru_cache, ours.cache = lru_cache, cache

    class TestLRU(module.TestLRU, unittest.TestCase):
        cached_func = (pickled_function,)

        @lru_cache()
        def cached_meth(self, x, y):
            return 3 * x + y

        @staticmethod
        @lru_cache()
        def cached_staticmeth(x, y):
            return 3 * x + y

    TestLRU.module = ours
    TestLRU.__qualname__ = "TestLRU"        # found by this name where pickle looks for its methods
    TestLRU.__module__ = __name__
    for method in (TestLRU.cached_meth, TestLRU.cached_staticmeth):
        method.__qualname__ = f"TestLRU.{method.__name__}"
    return TestLRU


@lru_cache()
def pickled_function(x, y):
    return 3 * x + y


if importlib.util.find_spec("test") is not None and importlib.util.find_spec("test.test_functools") is not None:
    TestLRU = cpythons()
else:
    @pytest.mark.skip(reason="this Python was installed without its `test` package, which has test_functools")
    def test_cpythons_own_tests():
        raise AssertionError("never run")


# -- side by side with functools'

BOTH = (functools.lru_cache, lru_cache)


@given(maxsize=st.sampled_from([None, -1, 0, 1, 2, 3, 8]), typed=st.booleans(),
       calls=call_lists(pauses=True))
@settings(max_examples=300, deadline=None)
def test_every_call_finds_what_functools_finds(maxsize, typed, calls):
    """Same results, from the same call, and the same counts after each: so the same keys, and the same victims."""
    ran = {0: 0, 1: 0}

    def remembering(which):
        def function(*args, **kwargs):
            ran[which] += 1
            return ran[which]
        return BOTH[which](maxsize, typed)(function)

    def call(function, args, kwargs):
        try:
            return function(*args, **dict(kwargs))
        except TypeError as error:
            return str(error)

    theirs, ours = remembering(0), remembering(1)
    for step in calls:
        if step is None:
            theirs.cache_clear()
            ours.cache_clear()
        else:
            assert call(ours, *step) == call(theirs, *step)
        assert ours.cache_info() == theirs.cache_info()
    assert ours.cache_parameters() == theirs.cache_parameters()


@pytest.mark.parametrize("arguments", [(), ("x",), (1.5,), ((), None), ([],), (128, None), (2, 1), (True,), (len,), (3, [])], ids=repr)
def test_arguments_of_the_decorator_mean_the_same(arguments):
    def outcome(lru_cache):
        try:
            wrapper = lru_cache(*arguments)
            if not hasattr(wrapper, "cache_info"):
                wrapper = wrapper(lambda: None)
            return wrapper.cache_info(), wrapper.cache_parameters()
        except TypeError as error:
            return str(error)

    assert outcome(lru_cache) == outcome(functools.lru_cache)


@pytest.mark.parametrize("maxsize", [0, 128, None])
def test_what_cannot_be_called_is_refused_as_in_functools(maxsize):
    for decorate in BOTH:
        with pytest.raises(TypeError, match="the first argument must be callable"):
            decorate(maxsize)(1)


def test_a_maxsize_that_no_container_can_have_is_refused():
    for decorate in BOTH:
        with pytest.raises(OverflowError):
            decorate(2**70)(len)
        assert decorate(sys.maxsize)(len).cache_info().maxsize == sys.maxsize


def test_cache_is_a_decorator_and_without_bound():
    @adaptcache.cache
    def double(number):
        return 2 * number

    assert [double(number) for number in range(1_000)] == [double(number) for number in range(1_000)]
    assert double.cache_info() == (1_000, 1_000, None, 1_000)
    assert double.cache_parameters() == {"maxsize": None, "typed": False}


def test_more_names_than_one_call_site_has():
    function = lru_cache(lambda **kwargs: kwargs)
    many = {f"name{number}": number for number in range(40)}
    assert function(**many) is function(**many)
    assert function(**dict(reversed(many.items()))) is not function(**many)


# -- while something else happens


def test_calls_at_the_same_time_all_run_and_the_first_result_is_kept():
    """As functools: no call waits for another. (`cached` lets one run for all.)"""
    meet = threading.Barrier(2, timeout=20)
    results = []

    @lru_cache
    def function(number):
        result = object()
        meet.wait()
        return result

    threads = [threading.Thread(target=lambda: results.append(function(1))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results[0] is not results[1]
    assert function(1) in results
    assert function.cache_info() == (1, 2, 128, 1)


@pytest.mark.parametrize("maxsize", [128, None])
def test_a_function_that_calls_itself_with_the_same_arguments(maxsize):
    """Where there is a bound the inner result is kept, without one the outer: as functools."""

    def remembered(decorate):
        depth = iter(["outer", "inner"])

        @decorate(maxsize)
        def function(number):
            here = next(depth)
            if here == "outer":
                function(number)
            return here

        return function(1), function(1), function.cache_info()

    assert remembered(lru_cache) == remembered(functools.lru_cache)


def test_the_cache_may_be_cleared_by_a_hash_a_comparison_and_the_function():
    class Clearing:
        def __init__(self, when):
            self.when = when

        def __hash__(self):
            if self.when == "hash":
                function.cache_clear()
            return 7

        def __eq__(self, other):
            if self.when == "equal":
                function.cache_clear()
            return isinstance(other, Clearing)

    @lru_cache(4)
    def function(key, *others):
        if key.when == "function":
            function.cache_clear()
        return key.when

    for first in ("hash", "equal", "function", None):
        for second in ("hash", "equal", "function", None):
            function.cache_clear()
            function(Clearing(first), 1)
            assert function(Clearing(second), 1) in {first, second}
            assert function.cache_info().currsize <= 2
            function.cache_clear()
            assert function.cache_info() == (0, 0, 4, 0)


@pytest.mark.parametrize("where", ["__hash__", "__eq__"])
def test_what_a_key_raises_reaches_the_caller(where):
    class Broken:
        def __hash__(self):
            if where == "__hash__":
                raise LookupError("broken")
            return 7

        def __eq__(self, other):
            raise LookupError("broken")

    function = lru_cache(lambda *args, **kwargs: len(args))
    if where == "__eq__":
        assert function(Broken()) == 1
        assert function(1, key=Broken()) == 1
    for args, kwargs in [((Broken(),), {}), ((1,), {"key": Broken()})]:
        counts = function.cache_info()
        with pytest.raises(LookupError, match="broken"):
            function(*args, **kwargs)
        assert function.cache_info() == counts


def test_each_argument_is_hashed_once_a_call():
    class Hashed:
        times = 0

        def __hash__(self):
            Hashed.times += 1
            return 7

        def __eq__(self, other):
            return isinstance(other, Hashed)

    for typed in (False, True):
        function = lru_cache(1, typed)(lambda *args, **kwargs: None)
        for call in [lambda f: f(Hashed()), lambda f: f(1, Hashed()), lambda f: f(name=Hashed()), lambda f: f(Hashed())]:
            for _ in range(2):      # a miss, and a hit of an equal key that is another object
                Hashed.times = 0
                call(function)
                assert Hashed.times == 1
        assert function.cache_info().hits == 4


def test_a_result_that_is_pushed_out_may_call_back_in():
    called = []

    class Result:
        def __del__(self):
            called.append(function(0).number)

    @lru_cache(1)
    def function(number):
        result = Result() if number else types.SimpleNamespace()
        result.number = number
        return result

    for number in range(1, 5):
        function(number)
        gc.collect()
        assert function.cache_info().currsize == 1
    assert called == [0] * len(called) and called


def test_a_function_in_its_own_cache_is_collected():
    class Result:
        pass

    @lru_cache
    def function(number):
        result = Result()
        result.function = function  # noqa: F821 (deleted below)
        return result

    gone = [weakref.ref(function(1)), weakref.ref(function)]
    del function
    gc.collect()
    assert [ref() for ref in gone] == [None, None]


def test_references_are_neither_lost_nor_kept():
    """Of arguments, names' values and results, on hits, misses, evictions and errors."""

    @lru_cache(2)
    def function(*args, **kwargs):
        if "fail" in kwargs:
            raise LookupError
        return args

    things = [object() for _ in range(6)]
    before = [sys.getrefcount(thing) for thing in things]
    for _ in range(100):
        for thing in things:
            function(thing)
            function(thing)
            function(1, thing, name=thing)
            function(1, thing, name=thing)
            with pytest.raises(LookupError):
                function(thing, fail=thing)
            with pytest.raises(TypeError):
                function(thing, [])
    del thing
    function.cache_clear()
    assert [sys.getrefcount(thing) for thing in things] == before


def test_threads_see_one_cache():
    function = lru_cache(50)(lambda number: (number,))
    wrong = []

    def work(seed):
        numbers = random.Random(seed)
        for _ in range(5_000):
            number = numbers.randrange(100)
            if function(number) != (number,):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    info = function.cache_info()
    assert not wrong
    assert info.hits + info.misses == 20_000 and info.currsize == 50


# -- as an object


def test_bound_and_class_and_static_methods():
    class Service:
        @lru_cache
        def method(self, number):
            return self, number

        @classmethod
        @lru_cache
        def of_class(cls, number):
            return cls, number

        @staticmethod
        @lru_cache
        def static(number):
            return number

    one, other = Service(), Service()
    assert one.method(1) == (one, 1) and other.method(1) == (other, 1)
    assert one.method(1) is one.method(1)
    assert Service.method(one, 1) is one.method(1)
    assert Service.of_class(1) is one.of_class(1) == (Service, 1)
    assert Service.static(1) == one.static(1) == 1
    assert one.method.cache_info() == Service.method.cache_info() == (4, 2, 128, 2)


def test_the_face_of_the_function():
    def function(a, /, b: int = 1, *, c=2) -> int:
        """What it is for."""
        return a

    wrapper = lru_cache(function)
    assert inspect.signature(wrapper) == inspect.signature(function)
    assert (wrapper.__name__, wrapper.__module__, wrapper.__doc__) == ("function", __name__, "What it is for.")
    assert wrapper.__wrapped__ is function and wrapper.__annotations__ == function.__annotations__
    assert inspect.isroutine(wrapper) == inspect.isroutine(functools.lru_cache(function))
    assert not inspect.iscoroutinefunction(wrapper)
    wrapper.note = "his own"
    assert wrapper.note == "his own"
    assert pickle.loads(pickle.dumps(pickled_function)) is copy.copy(pickled_function) is pickled_function
