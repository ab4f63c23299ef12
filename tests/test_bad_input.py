"""Misuse raises at once: the error names the argument and what would be right, and nothing has changed."""
from __future__ import annotations

import math
from decimal import Decimal

import pytest

import adaptcache
from adaptcache import Cache, Fixed, Idle, Learned, PerEntry, price
from adaptcache.learn.predictor import NAMES

EXPIRIES = {
    "none": lambda: None,
    "fixed": lambda: Fixed(100.0),
    "idle": lambda: Idle(100.0),
    "per-entry": lambda: PerEntry(lambda key, value, now: now + 100.0),
    "learned": lambda: Learned(memory_price=0.01, learner="manual", floor=100.0, seed=1, predictors=("table",)),
}


class Clock:
    now = 5.0

    def __call__(self):
        return self.now


def state(cache):
    """All that can be seen of a cache."""
    return list(cache.items()), cache.stats(), cache._counters(), cache.currsize, cache.maxsize, [cache.expires_in(k) for k in cache], \
        [str(cache.explain(k)) for k in cache], [cache.explain(k).features for k in cache]


@pytest.fixture(params=EXPIRIES)
def cache(request):
    """Three of four places taken; whatever the test does, the cache must be as it was."""
    told = []
    cache = Cache(4, expiry=EXPIRIES[request.param](), timer=Clock(), on_removal=lambda *what: told.append(what))
    cache.update(a=1, b=2)
    cache.set("c", 3, ttl=50)
    cache.get("a"), cache.get("absent")
    before = state(cache)
    yield cache
    cache._check()
    assert not told, "something was lost"
    assert state(cache) == before


# what is wrong -> (value, exception, what its message says)
NUMBERS = {
    "negative": (-1, ValueError, r"-1 is not accepted; the accepted range is .*zero or more"),
    "a little negative": (-1e-9, ValueError, "is not accepted; the accepted range is"),
    "NaN": (math.nan, ValueError, r"nan is not accepted; the accepted range is"),
    "minus infinity": (-math.inf, ValueError, "is not accepted; the accepted range is"),
    "a Decimal": (Decimal("-2"), ValueError, "is not accepted; the accepted range is"),
    "text": ("7", TypeError, r"expected .*zero or more.*, got str"),
    "bytes": (b"7", TypeError, "got bytes"),
    "a list": ([7], TypeError, "got list"),
    "complex": (1j, TypeError, "got complex"),
}
HUGE = {"too long an int": (10**400, ValueError, "too large; the accepted range is")}
INFINITE = {"infinity": (math.inf, ValueError, r"inf is not accepted; the accepted range is a finite number")}


def refused(argument, call, wrong):
    value, exception, message = wrong
    with pytest.raises(exception, match=f"^{argument}.*{message}"):
        call(value)


@pytest.mark.parametrize("wrong", NUMBERS | HUGE)
def test_ttl_is_seconds_or_infinite(cache, wrong):
    for key in ("a", "new"):
        refused("ttl: ", lambda value, key=key: cache.set(key, 9, ttl=value), (NUMBERS | HUGE)[wrong])
        refused("ttl: ", lambda value, key=key: cache.get_or_load(key, pytest.fail, ttl=value), (NUMBERS | HUGE)[wrong])


@pytest.mark.parametrize("argument", ["size", "cost"])
@pytest.mark.parametrize("wrong", NUMBERS | HUGE | INFINITE)
def test_size_and_cost_are_finite_numbers(cache, argument, wrong):
    for key in ("a", "new"):
        for call in (lambda key, **options: cache.set(key, 9, **options),
                     lambda key, **options: cache.get_or_load(key, pytest.fail, **options)):
            refused(f"{argument}: ", lambda value, key=key, call=call: call(key, **{argument: value}),
                    (NUMBERS | HUGE | INFINITE)[wrong])


@pytest.mark.parametrize("wrong", NUMBERS | HUGE | INFINITE)
@pytest.mark.parametrize("expiry", EXPIRIES)
def test_getsizeof_gives_finite_numbers(wrong, expiry):
    cache = Cache(4, getsizeof=lambda value: 1 if value == "good" else value, expiry=EXPIRIES[expiry]())
    cache["a"] = "good"
    for key in ("a", "new"):
        refused("getsizeof: ", lambda value, key=key: cache.__setitem__(key, value), (NUMBERS | HUGE | INFINITE)[wrong])
    assert dict(cache.items()) == {"a": "good"} and cache.currsize == 1
    cache._check()


@pytest.mark.parametrize("wrong", NUMBERS | HUGE)
def test_maxsize_is_zero_or_more(cache, wrong):
    refused("maxsize: ", cache.resize, (NUMBERS | HUGE)[wrong])
    refused("maxsize: ", Cache, (NUMBERS | HUGE)[wrong])


@pytest.mark.parametrize("value, exception, message", [
    (math.nan, ValueError, "time: NaN is not accepted; the accepted range is any number of seconds"),
    ("now", TypeError, "time: expected seconds of the timer, got str"),
    ([], TypeError, "time: expected seconds of the timer, got list"),
])
def test_time_to_expire_at_is_a_number(cache, value, exception, message):
    with pytest.raises(exception, match=message):
        cache.expire(value)


UNHASHABLE = pytest.mark.parametrize("key", [[], {}, ([],), set()])


@UNHASHABLE
def test_key_must_be_hashable(cache, key):
    for call in (cache.get, cache.__getitem__, cache.__contains__, cache.pop, cache.__delitem__, cache.setdefault,
                 cache.expires_in, cache.explain, lambda k: cache.set(k, 1, ttl=9, namespace="n", features={"f": 1}),
                 lambda k: cache.get_or_load(k, str)):
        with pytest.raises(TypeError, match="unhashable"):
            call(key)


@UNHASHABLE
def test_namespace_must_be_hashable(cache, key):
    for name in ("a", "new"):
        with pytest.raises(TypeError, match=f"namespace: expected a hashable label, got {type(key).__name__}"):
            cache.set(name, 9, namespace=key)


@pytest.mark.parametrize("features, exception, message", [
    ({1: 2.0}, TypeError, "features: names must be str, got int"),
    ({"good": 1, b"bad": 2}, TypeError, "features: names must be str, got bytes"),
    ({"good": "x", "f": None}, TypeError, r"features\['f'\]: expected a str or a finite number, got NoneType"),
    ({"f": [1]}, TypeError, r"features\['f'\]: expected a str or a finite number, got list"),
    ({"f": b"x"}, TypeError, r"features\['f'\]: expected a str or a finite number, got bytes"),
    ({"f": math.nan}, ValueError, r"features\['f'\]: nan is not accepted; the accepted range is a str or a finite number"),
    ({"f": -math.inf}, ValueError, r"features\['f'\]: -inf is not accepted"),
    ({"f": 10**400}, ValueError, r"features\['f'\]: too large; the accepted range is a str or a finite number"),
    (5, TypeError, "features: expected a mapping from str to float, int or str, got int"),
    ("text", TypeError, "features: expected a mapping from str to float, int or str, got str"),
    ([("f", 1)], TypeError, "features: expected a mapping .*, got list"),
])
def test_features_are_named_numbers_or_words(cache, features, exception, message):
    for key in ("a", "new"):
        with pytest.raises(exception, match=message):
            cache.set(key, 9, features=features)
    with pytest.raises(exception, match=message):
        cache.get_or_load("new", pytest.fail, features=features)


def test_refused_features_take_none_of_the_places_for_names():
    cache = Cache(4, expiry=EXPIRIES["learned"](), timer=Clock())
    for i in range(20):
        with pytest.raises(ValueError):
            cache.set("a", 1, features={f"wrong{i}": 1.0, "last": math.nan})
        with pytest.raises(ValueError):
            cache.set("a", 1, features={f"more{i}": 1.0}, ttl=-1)
        with pytest.raises(TypeError):
            cache.set([], 1, features={f"most{i}": 1.0})
    cache.set("a", 1, features={"right": 4.0})
    assert list(cache.explain("a").features) == ["right", *NAMES[8:]]


def test_features_of_any_finite_size_are_taken():
    cache = Cache(4, expiry=EXPIRIES["learned"](), timer=Clock())
    cache.set("a", 1, features={"huge": 1e308, "tiny": -1e308, "bool": True, "": 0, "wörd": "\ud800"})
    assert all(math.isfinite(x) for x in cache.explain("a").features.values())
    cache._check()


def test_refused_ttl_does_not_arm_a_cache_without_expiry():
    cache = Cache(4)
    cache["a"] = 1
    with pytest.raises(ValueError):
        cache.set("a", 2, ttl=-1)
    assert cache.explain("a").expiry == "none"


@pytest.mark.parametrize("loader", [None, 5, "load", object()])
def test_loader_must_be_callable(cache, loader):
    for key in ("a", "new"):
        with pytest.raises(TypeError, match="loader: expected a callable of the key"):
            cache.get_or_load(key, loader)


def test_value_too_large_names_neither_key_nor_value_and_changes_nothing(cache):
    for key in ("a", "new"):
        with pytest.raises(ValueError, match=r"^value too large$"):
            cache.set(key, 9, size=5, ttl=1, cost=2)


def test_unknown_keywords_are_refused(cache):
    with pytest.raises(TypeError):
        cache.set("a", 9, expiry=5)
    with pytest.raises(TypeError):
        Cache(5, ttl=5)


# -- construction


@pytest.mark.parametrize("policy", ["", "LRU", "belady", "adaptive "])
def test_unknown_policy_is_refused_with_the_known_ones(policy):
    with pytest.raises(ValueError, match=f"policy: unknown policy '{policy}'; known are {', '.join(adaptcache.policies())}"):
        Cache(5, policy=policy)


@pytest.mark.parametrize("policy", [None, 5, b"lru", object])
def test_policy_that_is_no_name_is_refused(policy):
    with pytest.raises(TypeError, match=f"policy: expected one of fifo, .*, got {type(policy).__name__}"):
        Cache(5, policy=policy)


@pytest.mark.parametrize("expiry, exception, message", [
    (-1, ValueError, "expiry: -1 is not accepted; the accepted range is seconds, zero or more"),
    (math.nan, ValueError, "expiry: nan is not accepted"),
    ("fixed", TypeError, "expiry: expected None, seconds, Fixed, Idle, PerEntry or Learned, got str"),
    (True, TypeError, "expiry: expected .*, got bool"),
    (Fixed, TypeError, "expiry: expected .*, got type"),
    (lambda key, value, now: now, TypeError, "expiry: expected .*, got function"),
])
def test_expiry_is_one_of_the_known_kinds(expiry, exception, message):
    with pytest.raises(exception, match=message):
        Cache(5, expiry=expiry)


@pytest.mark.parametrize("argument", ["getsizeof", "timer", "on_removal"])
@pytest.mark.parametrize("expiry", EXPIRIES)
def test_hooks_must_be_callable(argument, expiry):
    with pytest.raises(TypeError, match=f"{argument}: expected a callable or None, got int"):
        Cache(5, expiry=EXPIRIES[expiry](), **{argument: 5})


def test_timer_that_gives_no_number_is_refused_when_it_is_read():
    with pytest.raises(TypeError):
        Cache(5, expiry=Fixed(1), timer=lambda: "noon")


@pytest.mark.parametrize("kind", [Fixed, Idle])
@pytest.mark.parametrize("wrong", NUMBERS | HUGE)
def test_ttl_of_an_expiry_is_seconds_or_infinite(kind, wrong):
    refused("ttl: ", kind, (NUMBERS | HUGE)[wrong])


@pytest.mark.parametrize("fn", [None, 5.0, "tomorrow"])
def test_deadline_function_must_be_callable(fn):
    with pytest.raises(TypeError, match=r"fn: expected a callable \(key, value, now\) -> deadline"):
        PerEntry(fn)


@pytest.mark.parametrize("argument", ["floor", "ceiling", "window"])
@pytest.mark.parametrize("wrong", NUMBERS | HUGE)
def test_durations_of_learned_are_seconds_or_infinite(argument, wrong):
    refused(f"{argument}: ", lambda value: Learned(**{argument: value}), (NUMBERS | HUGE)[wrong])


@pytest.mark.parametrize("argument", ["memory_price", "miss_cost"])
@pytest.mark.parametrize("wrong", NUMBERS | HUGE | INFINITE)
def test_prices_of_learned_are_finite(argument, wrong):
    refused(f"{argument}: ", lambda value: Learned(**{argument: value}), (NUMBERS | HUGE | INFINITE)[wrong])


@pytest.mark.parametrize("wrong", [-0.001, 1.001, math.nan, math.inf, -math.inf])
def test_premature_is_a_share(wrong):
    with pytest.raises(ValueError, match=r"premature: .* is not accepted; the accepted range is 0 to 1"):
        Learned(premature=wrong)
    with pytest.raises(TypeError, match="premature: expected 0 to 1, got str"):
        Learned(premature="1%")


@pytest.mark.parametrize("arguments, exception, message", [
    ({"floor": 5, "ceiling": 4}, ValueError, "floor: 5 is above ceiling 4; the accepted range is up to the ceiling"),
    ({"floor": math.inf, "ceiling": 4}, ValueError, "floor: inf is above ceiling 4"),
    ({"guarantee": "certain"}, ValueError, "guarantee: 'certain' is not accepted; the accepted values are 'absolute' and 'expected'"),
    ({"guarantee": None}, ValueError, "guarantee: None is not accepted"),
    ({"stale": 1.0}, ValueError, "stale: 1.0 is not accepted"),
    ({"learner": "process"}, ValueError, "learner: 'process' is not accepted; the accepted values are 'thread' and 'manual'"),
    ({"learner": True}, ValueError, "learner: True is not accepted"),
    ({"seed": 1.5}, TypeError, "seed: expected an int or None, got float"),
    ({"seed": "1"}, TypeError, "seed: expected an int or None, got str"),
    ({"predictors": "table"}, TypeError, "predictors: expected a sequence"),
    ({"predictors": None}, TypeError, "predictors: expected a sequence"),
    ({"predictors": {"table"}}, TypeError, "predictors: expected a sequence"),
    ({"predictors": ("oracle",)}, ValueError, "predictors: unknown predictor 'oracle'; known are table, river"),
    ({"predictors": (5,)}, TypeError, "predictors: int has neither learn"),
    ({"predictors": (type("Half", (), {"learn": print})(),)}, TypeError, "predictors: Half has neither"),
    ({"max_keys": 0}, ValueError, "max_keys: 0 is not accepted; the accepted range is 1 to"),
    ({"max_keys": 1 << 31}, ValueError, "max_keys: .* is not accepted"),
    ({"max_keys": 10.0}, ValueError, "max_keys: 10.0 is not accepted"),
])
def test_arguments_of_learned_out_of_range_are_refused(arguments, exception, message):
    with pytest.raises(exception, match=message):
        Learned(**arguments)


def test_more_models_than_there_are_places_for_are_refused():
    class Model:
        def learn(self, x, y): ...
        def predict(self, x): ...

    Learned(predictors=[Model() for _ in range(4)])
    with pytest.raises(ValueError, match="predictors: 5 models given; the accepted range is 0 to 4"):
        Learned(predictors=[Model() for _ in range(5)])


@pytest.mark.parametrize("argument", ["gb_hour", "cpu_hour"])
@pytest.mark.parametrize("wrong", NUMBERS | HUGE | INFINITE)
def test_invoice_figures_are_finite(argument, wrong):
    value, exception, _ = (NUMBERS | HUGE | INFINITE)[wrong]
    with pytest.raises(exception, match=f"^{argument}: "):
        price(**{"gb_hour": 0.01, "cpu_hour": 0.05, argument: value})
    with pytest.raises(ValueError, match=r"cpu_hour: .* above zero"):
        price(gb_hour=1, cpu_hour=0)


@pytest.mark.parametrize("nonsense", [math.nan, math.inf, -math.inf])
def test_a_clock_that_talks_nonsense_once_stands_still_meanwhile(nonsense):
    now = [5.0]
    cache = adaptcache.Cache(4, expiry=adaptcache.Fixed(10), timer=lambda: now[0])
    cache["a"] = 1
    now[0] = nonsense
    assert cache["a"] == 1
    cache["b"] = 2
    now[0] = 14.9
    assert dict(cache.items()) == {"a": 1, "b": 2}
    now[0] = 15.0
    assert len(cache) == 0
