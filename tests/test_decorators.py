"""What a function gains, and what it keeps, when it is decorated with `cached`."""
import asyncio
import copy
import functools
import gc
import inspect
import math
import pickle
import re
import sys
import threading
import weakref
from collections import UserDict
from concurrent.futures import ThreadPoolExecutor

import cachetools
import pytest
from calls import call_lists
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptcache.decorators import cached
from adaptcache.errors import RecursiveLoadError
from adaptcache.expiry import Fixed, Idle, Learned
from adaptcache.keys import hashkey, methodkey, typedkey
from adaptcache.mapping import Cache

PATIENCE = 20


class Recording(Cache):
    """A Cache that remembers how it was told of each value."""

    def _set_loaded(self, key, value, ttl, seconds, size, namespace, features):
        told = {"ttl": ttl, "cost": seconds, "namespace": namespace, "features": features}
        vars(self).setdefault("told", []).append((key, value, told))
        super()._set_loaded(key, value, ttl, seconds, size, namespace, features)


MAPPINGS = {
    "Cache": lambda size: Cache(size),
    "cachetools": lambda size: cachetools.LRUCache(size),
    "dict": lambda size: {},
    "UserDict": lambda size: UserDict(),
}


@pytest.fixture(params=MAPPINGS)
def mapping(request):
    return MAPPINGS[request.param](8)


@pytest.fixture(params=["sync", "async"])
def flavour(request):
    """Makes the same function plain or a coroutine function, and calls it."""

    class Flavour:
        is_async = request.param == "async"

        def of(self, function):
            if not self.is_async:
                return function

            @functools.wraps(function)
            async def coroutine(*args, **kwargs):
                await asyncio.sleep(0)
                return function(*args, **kwargs)

            return coroutine

        def call(self, function, *args, **kwargs):
            result = function(*args, **kwargs)
            return asyncio.run(result) if self.is_async else result

    return Flavour()


@pytest.fixture
def counted(flavour):
    """A function of any arguments that counts its calls."""
    calls = []

    def counted(*args, **kwargs):
        calls.append((args, kwargs))
        return len(calls)

    function = flavour.of(counted)
    function.calls = calls
    return function


@cached
def at_module_level(number):
    return number


@cached
async def coroutine_at_module_level(number):
    return number


# Remembering


def test_a_second_call_does_not_run_the_function(counted, flavour):
    function = cached(counted)
    assert [flavour.call(function, 1) for _ in range(3)] == [1, 1, 1]
    assert len(counted.calls) == 1


@pytest.mark.parametrize("decorator", [cached, cached(), cached(8), cached(maxsize=None)], ids=["bare", "()", "8", "None"])
def test_the_decorator_is_used_bare_or_with_arguments(decorator, counted, flavour):
    function = decorator(counted)
    assert flavour.call(function, 1) == flavour.call(function, 1) == 1


def test_used_bare_it_still_heeds_its_other_arguments():
    function = cached(lambda number: [number], typed=True, cache={})
    assert function.cache == {}
    assert function(1) is not function(1.0)


def test_every_mapping_will_do(mapping, counted, flavour):
    function = cached(cache=mapping)(counted)
    assert function.cache is mapping
    assert [flavour.call(function, number) for number in (1, 2, 1)] == [1, 2, 1]
    assert function.cache_info()[:2] == (1, 2)
    assert function.cache_info().currsize == 2
    assert mapping[hashkey(1)] == 1
    assert function.invalidate(1) is True
    assert function.invalidate(1) is False
    function.cache_clear()
    assert function.cache_info()[:2] == (0, 0)
    assert len(mapping) == 0


@pytest.mark.parametrize("result", [None, False, NotImplemented, LookupError("a value"), ()], ids=repr)
def test_any_result_is_remembered(result, flavour, mapping):
    calls = []
    function = cached(cache=mapping)(flavour.of(lambda: calls.append(1) or result))
    assert flavour.call(function) is flavour.call(function) is result
    assert len(calls) == 1
    assert function.cache_info()[:2] == (1, 1)


def test_an_exception_is_not_remembered(flavour, mapping):
    calls = []

    def fails_once():
        calls.append(1)
        if len(calls) == 1:
            raise LookupError("once")
        return "v"

    function = cached(cache=mapping)(flavour.of(fails_once))
    with pytest.raises(LookupError, match="once"):
        flavour.call(function)
    assert flavour.call(function) == "v"


def test_a_result_that_does_not_fit_is_returned_not_stored(flavour):
    function = cached(maxsize=3, getsizeof=len)(flavour.of(lambda value: value))
    assert flavour.call(function, "long value") == "long value"
    assert len(function.cache) == 0
    assert flavour.call(function, "fit") == "fit"
    assert len(function.cache) == 1


@pytest.mark.parametrize("build", [Cache, cachetools.Cache])
def test_a_cache_of_size_0_stores_nothing(build, counted, flavour):
    function = cached(cache=build(0))(counted)
    assert [flavour.call(function, 1) for _ in range(2)] == [1, 2]
    assert function.cache_info().currsize == 0


def test_other_refusals_of_the_cache_are_not_hidden(flavour):
    class Refusing(dict):
        def __setitem__(self, key, value):
            raise ValueError("no such drawer")

    with pytest.raises(ValueError, match="no such drawer"):
        flavour.call(cached(cache=Refusing())(flavour.of(lambda: 1)))


def test_unhashable_arguments_raise_as_in_functools(counted, flavour):
    with pytest.raises(TypeError, match="unhashable"):
        flavour.call(cached(counted), [])


def test_each_function_has_its_own_cache():
    decorator = cached(maxsize=4)
    one, other = decorator(lambda x: "one"), decorator(lambda x: "other")
    assert (one(1), other(1)) == ("one", "other")
    assert one.cache is not other.cache


# Keys


def test_keyword_order_does_not_matter(counted, flavour):
    function = cached(counted)
    assert flavour.call(function, a=1, b=2) == flavour.call(function, b=2, a=1)


def test_positional_and_keyword_arguments_are_different_calls(counted, flavour):
    function = cached(counted)
    assert flavour.call(function, 1) != flavour.call(function, a=1)


@pytest.mark.parametrize("typed", [False, True])
def test_typed_keeps_equal_arguments_of_different_types_apart(counted, flavour, typed):
    function = cached(typed=typed)(counted)
    assert (flavour.call(function, 1) != flavour.call(function, 1.0)) is typed


def test_cache_key_is_the_key_in_the_cache(counted, flavour):
    function = cached(counted)
    flavour.call(function, 1, b=2)
    assert function.cache_key(1, b=2) == hashkey(1, b=2)
    assert function.cache_key(1, b=2) in function.cache
    assert cached(typed=True)(counted).cache_key(1) == typedkey(1)


def test_a_key_function_decides(counted, flavour):
    function = cached(key=lambda name, **ignored: name.lower())(counted)
    assert flavour.call(function, "A", debug=True) == flavour.call(function, "a")
    assert "a" in function.cache


def test_a_falsy_key_function_is_used():
    class Key:
        def __bool__(self):
            return False

        def __call__(self, *args):
            return "always"

    assert cached(key=Key())(lambda x: x).cache_key(1) == "always"


@pytest.mark.parametrize(
    "args, kwargs",
    [((), {}), ((1,), {}), ((1, "a", None), {}), ((), {"a": 1}), ((1,), {"b": 2, "a": len}), ((), {"a": 1, "A": 2, "b": 3})],
)
@pytest.mark.parametrize("key", [None, hashkey, typedkey, lambda *args, **kwargs: (args, frozenset(kwargs))], ids=["default", "hashkey", "typedkey", "own"])
def test_the_core_finds_what_the_key_function_names(args, kwargs, key):
    function = cached(key=key)(lambda *args, **kwargs: [])
    result = function(*args, **kwargs)
    assert list(function.cache) == [function.cache_key(*args, **kwargs)]
    assert function(*args, **dict(reversed(kwargs.items()))) is result
    assert function.cache_info()[:2] == (1, 1)


@given(calls=call_lists(), expiry=st.sampled_from([None, Fixed(60), Idle(60), "manual", "thread"]))
@settings(max_examples=200, deadline=None)
def test_every_call_finds_what_a_dict_of_hashkeys_holds(calls, expiry):
    """The core looks for the arguments themselves and makes no key: 1, 1.0 and True are still one call."""
    if isinstance(expiry, str):
        expiry = Learned(learner=expiry, seed=1, predictors=("table",))
    ran = 0

    @cached(None, expiry=expiry)
    def function(*args, **kwargs):
        nonlocal ran
        ran += 1
        return ran

    held = {}
    for args, pairs in calls:
        kwargs = dict(pairs)
        try:
            key = hashkey(*args, **kwargs)
            expected = held.setdefault(key, len(held) + 1)
        except TypeError as error:
            with pytest.raises(type(error), match=re.escape(str(error))):
                function(*args, **kwargs)
        else:
            assert function(*args, **kwargs) == expected
    assert list(function.cache.items()) == list(held.items())


def test_a_hit_under_a_removal_callback():
    told = []
    function = cached(1, on_removal=lambda key, value, cause, at: told.append(key))(lambda number: [number])
    assert function(1) is function(1)
    function(2)
    assert told == [hashkey(1)]


def test_a_hit_does_the_work_that_is_due_where_no_thread_does():
    now, told = 0.0, []
    function = cached(8, expiry=Learned(learner="manual", ceiling=10, memory_price=0, seed=1, predictors=("table",)),
                      timer=lambda: now, on_removal=lambda key, value, cause, at: told.append((key, at)))(lambda number: [number])
    function("old")
    now = 5.0
    result = function("new")
    now = 11.0
    assert function("new") is result
    assert told == [(hashkey("old"), 10.0)]


def test_more_names_than_one_call_site_has():
    function = cached(lambda **kwargs: [])
    many = {f"name{number}": number for number in range(40)}
    assert function(**many) is function(**dict(reversed(many.items())))
    assert function.cache_info()[:2] == (1, 1)


def test_keys_that_others_put_into_the_cache_are_found():
    """Equal to the key of the call, though not a tuple of the same shape."""

    class Key(tuple):
        pass

    function = cached(lambda *args, **kwargs: "computed")
    function.cache[Key((1, 2))] = "found"
    function.cache[Key(hashkey(1, name=2))] = "found too"
    assert function(1, 2) == "found"
    assert function(1, name=2) == "found too"


def test_an_argument_whose_comparison_clears_the_cache():
    class Clearing:
        def __hash__(self):
            return 7

        def __eq__(self, other):
            function.cache_clear()
            return isinstance(other, Clearing)

    for kwargs in ({}, {"name": 1}):
        function = cached(lambda *args, **kwargs: [])
        function(Clearing(), **kwargs)
        function(Clearing(), **kwargs)
        function.cache._check()


def test_a_cache_with_a_get_of_its_own_is_asked_by_it():
    class Counting(Cache):
        asked = 0

        def get(self, key, default=None):
            self.asked += 1
            return super().get(key, default)

    function = cached(cache=Counting(8))(lambda number: [number])
    assert function(1) is function(1)
    assert function.cache.asked >= 2

    patched = Cache(8)
    patched.get = lambda key, default=None: "patched"
    assert cached(cache=patched)(lambda number: number)(1) == "patched"


# Methods


class Service:
    def __init__(self):
        self.calls = 0

    @cached
    def method(self, number):
        self.calls += 1
        return number, self.calls

    @cached(key=methodkey)
    def shared(self, number):
        self.calls += 1
        return number

    @cached
    async def amethod(self, number):
        self.calls += 1
        return self, number

    @staticmethod
    @cached
    def static_outside(number):
        return [number]

    @cached
    @staticmethod
    def static_inside(number):
        return [number]

    @classmethod
    @cached
    def class_outside(cls, number):
        return [cls, number]

    @cached(16)
    @classmethod
    def class_inside(cls, number):
        return [cls, number]


def test_self_is_part_of_the_key():
    one, other = Service(), Service()
    assert one.method(1) is one.method(1)
    assert one.method(1) is not other.method(1)
    assert (one.calls, other.calls) == (1, 1)
    assert Service.method.cache_info().hits >= 2
    assert one.method.cache_info() == Service.method.cache_info()
    assert Service.method.invalidate(one, 1) is True
    assert one.method(1) == (1, 2)


def test_methodkey_leaves_self_out_of_the_key():
    one, other = Service(), Service()
    assert one.shared(1) == other.shared(1) == 1
    assert (one.calls, other.calls) == (1, 0)


def test_coroutine_methods_are_bound():
    service = Service()

    async def main():
        return [await service.amethod(1) for _ in range(2)]

    assert asyncio.run(main()) == [(service, 1)] * 2
    assert service.calls == 1


@pytest.mark.parametrize("name", ["static_outside", "static_inside", "class_outside", "class_inside"])
def test_static_and_class_methods_stack_in_either_order(name):
    class Derived(Service):
        pass

    first = getattr(Service, name)(1)
    assert getattr(Service, name)(1) is getattr(Service(), name)(1) is first
    assert first[-1] == 1
    derived = getattr(Derived, name)(1)
    assert (derived is first) is name.startswith("static")
    if name.startswith("class"):
        assert derived[0] is Derived
    assert getattr(Service, name).cache_info().currsize >= 1


def test_super_reaches_the_cached_method_of_the_base():
    class Derived(Service):
        def method(self, number):
            return "derived", super().method(number)

    assert Derived().method(1) == ("derived", (1, 1))


# What a function is


def test_metadata_and_the_wrapped_function_are_kept(flavour):
    def original(a: int, /, b: str = "x", *, c: float) -> bytes:
        """Says what it does."""

    original.marked = True
    original = flavour.of(original)
    function = cached(original)
    assert function.__wrapped__ is original
    assert function.__doc__ == "Says what it does."
    assert function.__qualname__ == original.__qualname__
    assert function.__module__ == original.__module__
    assert function.marked is True
    assert inspect.signature(function) == inspect.signature(original)


def test_coroutine_functions_stay_coroutine_functions(counted, flavour):
    function = cached(counted)
    assert inspect.iscoroutinefunction(function) is flavour.is_async
    assert inspect.iscoroutinefunction(cached(functools.partial(counted, 1))) is flavour.is_async


def test_objects_with_an_async_call_are_coroutine_functions():
    class Caller:
        async def __call__(self, number):
            return [number]

    function = cached(Caller())
    assert inspect.iscoroutinefunction(function)

    async def main():
        return await function(1) is await function(1)

    assert asyncio.run(main())
    assert not inspect.iscoroutinefunction(cached(Caller))


@pytest.mark.parametrize("function", [at_module_level, coroutine_at_module_level], ids=lambda f: f.__name__)
def test_pickles_by_name_and_is_its_own_copy(function, monkeypatch):
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or _this_module())
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(function, protocol)) is function
    assert copy.copy(function) is function
    assert copy.deepcopy(function) is function


def _this_module():
    module = type(sys)(__name__)
    vars(module).update(globals())
    return module


def test_a_callable_without_a_name_has_a_repr_and_is_its_own_copy():
    function = cached(functools.partial(int, base=2))
    assert function("101") == function.__call__("101") == 5
    assert repr(function).startswith("<cached ")
    assert copy.copy(function) is copy.deepcopy(function) is function


def test_can_be_referenced_weakly_and_is_collected():
    function = cached(lambda: 1)
    function()
    gone = weakref.ref(function)
    del function
    gc.collect()
    assert gone() is None


def test_decorators_stack(counted, flavour):
    inner = cached(maxsize=2)(counted)
    outer = cached(maxsize=3)(inner)
    assert flavour.call(outer, 1) == 1
    assert outer.__wrapped__ is inner
    assert (outer.cache_parameters()["maxsize"], inner.cache_parameters()["maxsize"]) == (3, 2)
    assert outer.cache is not inner.cache
    assert inner.invalidate(1) and outer.invalidate(1)


# Counting and forgetting


def test_cache_info_is_the_named_tuple_of_functools(counted, flavour):
    function = cached(maxsize=2)(counted)
    for number in (1, 1, 2, 3):
        flavour.call(function, number)
    info = function.cache_info()
    assert type(info) is functools._CacheInfo
    assert info == (1, 3, 2, 2)
    function.cache_clear()
    assert function.cache_info() == (0, 0, 2, 0)


@pytest.mark.parametrize("unbounded", [cached(None), cached(math.inf), cached(cache={})], ids=["None", "inf", "dict"])
def test_an_unbounded_maxsize_is_reported_as_none(unbounded):
    function = unbounded(lambda: 1)
    assert function.cache_info().maxsize is None
    assert function.cache_parameters() == {"maxsize": None, "typed": False}


def test_cache_parameters_are_a_new_dict_each_time():
    function = cached(maxsize=7, typed=True)(lambda: 1)
    assert function.cache_parameters() == {"maxsize": 7, "typed": True}
    function.cache_parameters().clear()
    assert function.cache_parameters() == {"maxsize": 7, "typed": True}
    assert cached(lambda: 1).cache_parameters() == {"maxsize": 128, "typed": False}
    assert type(cached(lambda: 1).cache_parameters()["maxsize"]) is int


def test_invalidate_forgets_one_call_and_says_whether_it_was_there(counted, flavour):
    function = cached(counted)
    flavour.call(function, 1)
    flavour.call(function, b=2)
    assert function.invalidate(1) is True
    assert function.invalidate(1) is False
    assert (flavour.call(function, 1), flavour.call(function, b=2)) == (3, 2)


def test_invalidate_knows_results_of_none():
    function = cached(lambda: None)
    function()
    assert function.invalidate() is True


@pytest.mark.parametrize("forget", ["invalidate", "cache_clear"])
def test_a_result_that_was_under_way_when_forgotten_does_not_come_back(forget, mapping):
    results = ["old", "new"]

    @cached(cache=mapping)
    def function():
        result = results.pop(0)
        if result == "old":
            getattr(function, forget)()  # in the middle of the load
        return result

    assert function() == "old"
    assert function() == "new"
    assert function() == "new"


# At the same time


def test_threads_that_miss_together_run_the_function_once(mapping):
    calls, start = [], threading.Barrier(6)

    @cached(cache=mapping)
    def function(number):
        calls.append(number)
        return [number]

    def ask():
        results = []
        for number in range(8):
            start.wait(PATIENCE)
            results.append(id(function(number)))
        return results

    with ThreadPoolExecutor(6) as pool:
        results = [future.result(PATIENCE) for future in [pool.submit(ask) for _ in range(6)]]
    assert sorted(calls) == list(range(8))
    assert all(result == results[0] for result in results)


def test_a_result_that_lands_between_a_miss_and_its_load_is_used(mapping, flavour):
    """Another thread makes the whole call just when this one, having missed, goes to load."""
    calls = []

    class Argument:
        def __init__(self, meddles):
            self.meddles = meddles

        def __eq__(self, other):
            return True

        def __hash__(self):
            if self.meddles and function.cache_info().misses:
                self.meddles = False
                with ThreadPoolExecutor(1) as pool:
                    pool.submit(flavour.call, function, Argument(False)).result(PATIENCE)
            return 1

    @cached(cache=mapping)
    @flavour.of
    def function(argument):
        calls.append(argument)
        return len(calls)

    assert flavour.call(function, Argument(True)) == 1
    assert len(calls) == 1


def test_tasks_that_miss_together_run_the_function_once(mapping):
    calls = []

    @cached(cache=mapping)
    async def function(number):
        calls.append(number)
        await asyncio.sleep(0)
        return [number]

    async def main():
        first, *rest = await asyncio.gather(*(function(1) for _ in range(10)))
        assert all(result is first for result in rest)

    asyncio.run(main())
    assert calls == [1]


def test_a_cancelled_call_does_not_take_the_others_with_it():
    calls = []

    async def main():
        go = asyncio.Event()

        @cached
        async def function():
            calls.append(1)
            await go.wait()
            return "v"

        first, second = asyncio.create_task(function()), asyncio.create_task(function())
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        go.set()
        assert await second == "v"

    asyncio.run(main())
    assert calls == [1]


def test_functions_that_share_a_cache_share_its_loads():
    """The same key in one Cache is one load, whoever asks."""
    shared, started, go = Cache(8), threading.Event(), threading.Event()

    @cached(cache=shared)
    def slow(number):
        started.set()
        assert go.wait(PATIENCE)
        return "slow"

    @cached(cache=shared)
    async def other(number):
        raise AssertionError("loaded twice")

    async def main():
        waiter = asyncio.create_task(other(1))
        await asyncio.sleep(0)
        go.set()
        return await waiter

    with ThreadPoolExecutor(1) as pool:
        leader = pool.submit(slow, 1)
        assert started.wait(PATIENCE)
        assert asyncio.run(main()) == "slow"
        assert leader.result(PATIENCE) == "slow"


def test_a_function_may_call_itself_with_other_arguments(mapping):
    @cached(cache=mapping)
    def fib(n):
        return n if n < 2 else fib(n - 1) + fib(n - 2)

    @cached(cache=type(mapping)() if isinstance(mapping, (dict, UserDict)) else type(mapping)(8))
    async def afib(n):
        return n if n < 2 else await afib(n - 1) + await afib(n - 2)

    assert fib(6) == asyncio.run(afib(6)) == 8


def test_recursion_may_go_deep():
    @cached(maxsize=None)
    def fib(n):
        return n if n < 2 else fib(n - 1) + fib(n - 2)

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        assert fib(600) == _fib(600)  # CPython 3.12 bounds recursion through C: functools ends at 480
    finally:
        sys.setrecursionlimit(limit)


def test_recursion_within_the_default_limit_goes_to_a_depth_of_200():
    @cached
    def depth(n):
        return n and 1 + depth(n - 1)

    assert depth(200) == 200


def _fib(n):
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a


def test_a_function_that_calls_itself_with_the_same_arguments_is_told_so(flavour, mapping):
    if flavour.is_async:

        @cached(cache=mapping)
        async def function(number):
            return await function(number)

    else:

        @cached(cache=mapping)
        def function(number):
            return function(number)

    with pytest.raises(RecursiveLoadError, match="41"):
        flavour.call(function, 41)


# What the learner is told


@pytest.fixture
def recording(monkeypatch):
    monkeypatch.setattr("adaptcache.decorators.Cache", Recording)


def test_the_cost_is_the_time_of_the_function(recording, monkeypatch, flavour):
    ticks = iter([1.0, 4.0])
    monkeypatch.setattr("adaptcache.flights.perf_counter", lambda: next(ticks))
    function = cached(flavour.of(lambda: "v"))
    flavour.call(function)
    ((_, value, told),) = function.cache.told
    assert (value, told["cost"]) == ("v", 3.0)


def test_calls_of_one_function_and_types_are_alike_by_default(recording, flavour):
    def function(*args, **kwargs):
        return 1

    function = cached(flavour.of(function))
    flavour.call(function, 1, "a", c=2.5, b=b"")
    flavour.call(function, 7, "z", b=b"x", c=0.5)
    flavour.call(function, "other")
    one, two, other = (told for _, _, told in function.cache.told)
    assert one["namespace"] == two["namespace"] == other["namespace"]
    assert one["namespace"].endswith(function.__qualname__)
    assert one["features"] == two["features"] == {"types": "int,str,b=bytes,c=float"}
    assert other["features"] == {"types": "str"}


@pytest.mark.parametrize("namespace", ["tenant", ("a", 1), lambda number: f"shard {number % 2}"], ids=["str", "tuple", "callable"])
def test_the_namespace_is_a_label_or_computed_from_the_arguments(recording, flavour, namespace):
    function = cached(namespace=namespace)(flavour.of(lambda number: number))
    flavour.call(function, 3)
    ((_, _, told),) = function.cache.told
    assert told["namespace"] == ("shard 1" if callable(namespace) else namespace)


def test_features_are_computed_from_the_arguments(recording, flavour):
    function = cached(features=lambda name, size: {"size": size, "suffix": name[-3:]})(
        flavour.of(lambda name, size: name)
    )
    flavour.call(function, "a.png", size=10)
    ((_, _, told),) = function.cache.told
    assert told["features"] == {"size": 10, "suffix": "png"}


def test_ttl_is_the_ceiling_of_each_result(recording, flavour):
    now = [0.0]
    function = cached(ttl=10, timer=lambda: now[0])(flavour.of(lambda: object()))
    first = flavour.call(function)
    now[0] = 9.0
    assert flavour.call(function) is first
    now[0] = 10.0
    assert flavour.call(function) is not first
    assert function.cache.told[0][2]["ttl"] == 10


def test_the_options_of_the_cache_reach_it(monkeypatch):
    made = []

    class Spy(Cache):
        def __init__(self, *args, **kwargs):
            made.append((args, kwargs))
            super().__init__(args[0])

    monkeypatch.setattr("adaptcache.decorators.Cache", Spy)
    getsizeof, timer, on_removal, expiry = len, lambda: 0.0, print, object()
    cached(9, expiry=expiry, policy="lru", getsizeof=getsizeof, timer=timer, on_removal=on_removal)(lambda: "")
    assert made == [((9, getsizeof), {"expiry": expiry, "policy": "lru", "timer": timer, "on_removal": on_removal})]
    made.clear()
    cached(lambda: "")
    assert made[0][0] == (128, None)
    assert "policy" not in made[0][1]  # the Cache knows its default


# Misuse


def generator():
    yield 1


async def async_generator():
    yield 1


@pytest.mark.parametrize("function", [generator, async_generator, functools.partial(generator)], ids=["sync", "async", "partial"])
def test_generator_functions_are_refused_by_name(function):
    with pytest.raises(TypeError, match=r"generator\b.*iterated only once"):
        cached(function)
    with pytest.raises(TypeError, match=r"generator\b.*iterated only once"):
        cached(maxsize=3)(function)


@pytest.mark.parametrize(
    "name, value, kind",
    [
        ("maxsize", -1, ValueError),
        ("maxsize", math.nan, ValueError),
        ("maxsize", "128", TypeError),
        ("maxsize", True, TypeError),
        ("typed", 1, TypeError),
        ("key", "name", TypeError),
        ("ttl", 0, ValueError),
        ("ttl", -1.5, ValueError),
        ("ttl", math.nan, ValueError),
        ("ttl", "10", TypeError),
        ("ttl", True, TypeError),
        ("policy", 5, TypeError),
        ("cache", [], TypeError),
        ("cache", 5, TypeError),
        ("namespace", [], TypeError),
        ("features", {"a": 1}, TypeError),
        ("getsizeof", 1, TypeError),
        ("timer", 1.0, TypeError),
        ("on_removal", "log", TypeError),
    ],
)
def test_a_wrong_argument_is_named(name, value, kind):
    with pytest.raises(kind, match=rf"^{name} must be .*\b|^{name} must be"):
        cached(**{name: value})


@pytest.mark.parametrize(
    "name, value",
    [
        ("maxsize", 128),
        ("maxsize", 5),
        ("ttl", 1.0),
        ("expiry", 1.0),
        ("policy", "lru"),
        ("getsizeof", len),
        ("timer", lambda: 0.0),
        ("on_removal", print),
    ],
)
def test_what_belongs_to_the_cache_conflicts_with_a_given_one(name, value, mapping):
    with pytest.raises(TypeError, match=f"conflicts with {name}"):
        cached(cache=mapping, **{name: value})


def test_all_conflicts_are_named_at_once():
    with pytest.raises(TypeError, match="maxsize, ttl, policy"):
        cached(None, cache={}, ttl=1, policy="lru")


def test_typed_conflicts_with_a_key_function():
    with pytest.raises(TypeError, match="typed conflicts with key"):
        cached(typed=True, key=hashkey)


def test_only_callables_are_decorated():
    with pytest.raises(TypeError, match="cached decorates callables, not 5"):
        cached(maxsize=1)(5)
