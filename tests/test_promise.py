"""The promise: lost + in flight <= alpha * N + 1 at every moment, whatever the model and whoever asks.

The accountant below knows none of the cache's code. It hears requests and removals, and keeps the books
from the words of the promise alone, in whole nanoseconds. Every test compares: the bound holds in the
accountant's own books after every operation, and the cache's books say the same.
"""
from __future__ import annotations

import itertools
import logging
import math
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adaptcache import Cache, Cause, Learned, _core
from adaptcache.simulate import learned
from adaptcache.simulate.oracle import Oracle
from adaptcache.simulate.readers import read
from adaptcache.simulate.synthetic import generate

STEP = 7_000_000        # ns; no quarter of a break-even time used below is a multiple of it
NEVER = 1 << 62
WINDOW = 7 * STEP


def ns(seconds: float) -> int:
    return NEVER if seconds == math.inf else round(seconds * 1e9)


@dataclass
class Life:
    last: int           # the last access
    window: int
    floor: int          # not to be let go before, on grounds of reuse
    ceiling: int        # not to be served from here on
    value: object
    bank: Any = None    # who answers for it: the namespace it was stored under, or None


class Accountant:
    """The books of the promise, from requests and removals alone."""

    def __init__(self, alpha: float | dict[Any, float], price: float, window: float | None, floor: float = 0.0,
                 ceiling: float = math.inf) -> None:
        self.shares = alpha if isinstance(alpha, dict) else {None: alpha}
        self.alpha, self.price, self.window = self.shares[None], price, window
        self.n_of, self.lost_of = Counter[Any](), Counter[Any]()
        self.answers: dict[Any, Any] = {}   # key -> the bank that permitted its early removal
        self.floor, self.ceiling = ns(floor), ns(ceiling)
        self.lives: dict[Any, Life] = {}
        self.early: dict[Any, int] = {}     # key -> the last moment of its window
        self.now = 0
        self.removals = 0
        self.by_ceiling = self.evicted = 0
        self.margin = math.inf
        self.dropped: list[Any] = []        # for adversaries: what was let go since they looked

    def width(self, size: float, cost: float) -> int:
        if self.window is not None:
            return ns(self.window)
        return NEVER if size * self.price == 0 else int(cost / (size * self.price) / 4 * 1e9)

    def removed(self, key: Any, value: object, cause: Cause, at: float) -> None:
        life = self.lives.pop(key)
        assert value is life.value
        moment = round(at * 1e9)
        assert life.last <= moment <= self.now
        if cause is Cause.EVICTED:
            self.evicted += 1
        if cause is not Cause.EXPIRED:
            return
        assert moment <= life.ceiling, "served after its ceiling"
        if moment == life.ceiling:
            self.by_ceiling += 1            # not on grounds of reuse
            return
        assert moment >= life.floor, "let go before its floor"
        self.dropped.append(key)
        if moment - life.last <= life.window:
            self.removals += 1
            self.early[key] = min(life.last + life.window, life.ceiling - 1)
            self.answers[key] = life.bank

    def asked(self, key: Any, found: bool, value: object) -> None:
        life = self.lives.get(key)
        assert found == (life is not None)
        until = self.early.pop(key, -1)
        if life is not None:
            assert until == -1 and value is life.value
            assert self.now < life.ceiling, "served at or after its ceiling"
            self.n_of[life.bank] += self.now - life.last <= life.window
            life.last = self.now
        elif self.now <= until:
            self.n_of[self.answers[key]] += 1
            self.lost_of[self.answers[key]] += 1

    def stored(self, key: Any, value: object, size: float, cost: float, ttl: float = math.inf, namespace: Any = None) -> None:
        self.early.pop(key, None)           # the user has put another value there
        ceiling = self.now + min(ns(ttl), self.ceiling)
        if ceiling > self.now:
            self.lives[key] = Life(self.now, self.width(size, cost), self.now + self.floor, ceiling, value,
                                   namespace if namespace in self.shares else None)

    def gone(self, key: Any) -> None:
        self.early.pop(key, None)           # the user has deleted it

    @property
    def n(self) -> int:
        return self.n_of.total()

    @property
    def lost(self) -> int:
        return self.lost_of.total()

    @property
    def in_flight(self) -> int:
        return sum(self.flying().values())

    def flying(self) -> Counter[Any]:
        for key in [key for key, until in self.early.items() if until < self.now]:
            del self.early[key]
        return Counter(self.answers[key] for key in self.early)

    def check(self) -> None:
        """Every bank by itself."""
        flying = self.flying()
        for bank, alpha in self.shares.items():
            if alpha < 1:       # 1 switches the guard off
                margin = alpha * self.n_of[bank] + 1 - self.lost_of[bank] - flying[bank]
                assert margin >= 0, f"the promise of {bank!r} is broken"
                self.margin = min(self.margin, margin)


class Desk:
    """A cache, its clock and its accountant; every operation ends in an audit."""

    def __init__(self, alpha: float | dict[Any, float], model: object | None, *, window: float | None = None, price: float = 1.0,
                 maxsize: float | None = None, floor: float = 0.0, ceiling: float | None = None, seed: int = 1,
                 audit: bool = True, namespace: Callable[[Any], Any] = lambda key: None) -> None:
        self.namespace = namespace
        self.books = Accountant(alpha, price, window, floor, math.inf if ceiling is None else ceiling)
        self.audit = audit
        expiry = Learned(memory_price=price, premature=alpha, window=window, floor=floor, ceiling=ceiling, seed=seed,
                         learner="manual", predictors=() if model is None else (model,))
        self.cache: Cache[Any, Any] = Cache(maxsize, expiry=expiry, timer=lambda: self.books.now / 1e9,
                                            on_removal=self.books.removed)
        if model is not None:
            # Nobody in the mixture may out-vote the hostile one.
            self.cache.brain.only = _core.SLOT_USER

    def wait(self, nanoseconds: int) -> None:
        self.books.now += nanoseconds

    def get(self, key: Any) -> bool:
        missing = object()
        value = self.cache.get(key, missing)
        self.books.asked(key, value is not missing, value)
        self._done()
        return value is not missing

    def set(self, key: Any, size: float = 1, cost: float = 1, ttl: float | None = None) -> None:
        value = object()
        namespace = self.namespace(key)
        self.cache.set(key, value, size=size, cost=cost, ttl=ttl, namespace=namespace)
        self.books.stored(key, value, size, cost, math.inf if ttl is None else ttl, namespace)
        self._done()

    def ask(self, key: Any, size: float = 1, cost: float = 1) -> bool:
        """A request whose miss is loaded."""
        found = self.get(key)
        if not found:
            self.set(key, size, cost)
        return found

    def delete(self, key: Any) -> None:
        self.cache.pop(key, None)
        self.books.gone(key)
        self._done()

    def clear(self) -> None:
        self.cache.clear()
        for key in list(self.books.early):
            self.books.gone(key)
        self._done()

    def _done(self) -> None:
        self.cache.learn()
        self.books.check()
        if self.audit:
            self.compare()

    def compare(self) -> None:
        stats, books = self.cache.stats(), self.books
        assert (stats.premature, stats.protected, stats.in_flight) == (books.lost, books.n, books.in_flight)
        assert stats.premature_budget == pytest.approx(sum(alpha * books.n_of[bank] + 1 for bank, alpha in books.shares.items()))
        flying = books.flying()
        assert {bank: (b.protected, b.premature, b.in_flight, b.premature_budget) for bank, b in stats.banks.items()} == {
            bank: (books.n_of[bank], books.lost_of[bank], flying[bank], alpha * books.n_of[bank] + 1)
            for bank, alpha in books.shares.items()}
        self.cache._check()


# -- models that mean harm ---------------------------------------------------------------------------------

class Says:
    """Always the same answer."""

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def learn(self, x: dict[str, float], y: float) -> None: ...

    def predict(self, x: dict[str, float]) -> Any:
        return self.answer


class Raises(Says):
    def predict(self, x: dict[str, float]) -> Any:
        raise RuntimeError("no answer today")


class Dices(Says):
    def __init__(self) -> None:
        self.dice = random.Random(5)

    def predict(self, x: dict[str, float]) -> Any:
        return self.dice.choice([0, 0.0, 1e-9, 0.01, 0.1, 1e9, math.nan, -1.0, "soon", None])


class Inverted(Says):
    """Learns, and says the opposite: what comes back soon goes at once, what does not is held."""

    def __init__(self) -> None:
        self.mean = 0.1

    def learn(self, x: dict[str, float], y: float) -> None:
        self.mean += 0.1 * (y - self.mean)

    def predict(self, x: dict[str, float]) -> Any:
        return 0.0 if self.mean < 0.5 else 1e6


DROPS: dict[str, Callable[[], Says]] = {
    "zero": lambda: Says(0.0), "minus zero": lambda: Says(-0.0), "tiny": lambda: Says(1e-300), "text zero": lambda: Says("0"),
    "dices": Dices, "inverted": Inverted,
}
HOLDS: dict[str, Callable[[], Says]] = {
    "nan": lambda: Says(math.nan), "inf": lambda: Says(math.inf), "minus inf": lambda: Says(-math.inf),
    "negative": lambda: Says(-1e-9), "text": lambda: Says("soon"), "None": lambda: Says(None),
    "complex": lambda: Says(1j), "huge": lambda: Says(10**400), "raises": lambda: Raises(0),
}
HOSTILE = DROPS | HOLDS
ALPHAS = [0.0, 0.001, 0.01, 0.05, 0.5]


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "adaptcache")    # broken models are logged; other tests look at that


# -- whoever asks ------------------------------------------------------------------------------------------

KEYS = st.integers(0, 5)
STEPS = st.one_of(st.sampled_from([0, 0, 1]), st.integers(0, 12), st.sampled_from([100, 2_000, 5_000_000]))
SIZES, COSTS = st.sampled_from([1, 2, 3]), st.sampled_from([1, 3, 10, 0.5])
# Off the grid too: a window that a ceiling cuts off is closed within a microsecond, not to the nanosecond.
TTLS = st.sampled_from([None, None, None, 0.0, 0.0211, 0.5001])
OPS = st.lists(st.one_of(
    st.tuples(st.just("ask"), KEYS, STEPS, SIZES, COSTS, st.none()),
    st.tuples(st.just("get"), KEYS, STEPS, SIZES, COSTS, st.none()),
    st.tuples(st.just("set"), KEYS, STEPS, SIZES, COSTS, TTLS),
    st.tuples(st.just("delete"), KEYS, STEPS, SIZES, COSTS, st.none()),
    st.tuples(st.just("clear"), st.just(0), STEPS, SIZES, COSTS, st.none()),
), max_size=70)


def play(desk: Desk, ops: list[Any]) -> None:
    for op, key, step, size, cost, ttl in ops:
        desk.wait(step * STEP)
        if op == "ask":
            desk.ask(key, size, cost)
        elif op == "get":
            desk.get(key)
        elif op == "set":
            desk.set(key, size, cost, ttl)
        elif op == "delete":
            desk.delete(key)
        else:
            desk.clear()


@pytest.mark.parametrize("name", HOSTILE)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ops=OPS, alpha=st.sampled_from(ALPHAS), window=st.sampled_from([None, 7 * STEP / 1e9]),
       maxsize=st.sampled_from([None, 4]))
def test_bound_holds_after_every_operation_whatever_is_asked(name: str, ops: list[Any], alpha: float,
                                                             window: float | None, maxsize: float | None) -> None:
    play(Desk(alpha, HOSTILE[name](), window=window, maxsize=maxsize), ops)


@settings(max_examples=40, deadline=None)
@given(ops=OPS, alpha=st.sampled_from(ALPHAS), window=st.sampled_from([None, 7 * STEP / 1e9]),
       floor=st.sampled_from([0.0, 0.0701, 3.0]), ceiling=st.sampled_from([None, 4.0001, 50.0001]))
def test_floor_and_ceiling_hold_whatever_is_asked(ops: list[Any], alpha: float, window: float | None,
                                                  floor: float, ceiling: float | None) -> None:
    """The accountant refuses a removal before the floor and an answer after the ceiling."""
    play(Desk(alpha, Says(0.0), window=window, floor=floor, ceiling=ceiling), ops)


# -- adversaries -------------------------------------------------------------------------------------------

def spiteful(desk: Desk, requests: int) -> None:
    """Watches what is let go, and asks for just that while its window is open."""
    dice = random.Random(1)
    for _ in range(requests):
        desk.wait(STEP * dice.choice([0, 1, 1, 2, 3]))
        desk.ask(desk.books.dropped.pop() if desk.books.dropped else dice.randrange(12))


def fickle(desk: Desk, requests: int) -> None:
    """Never asks again for what was let go, nor for much else."""
    for i in range(requests):
        desk.wait(STEP)
        desk.ask(i // 2)


def milker(desk: Desk, requests: int) -> None:
    """Earns credit with one key, brings in others until it is spent, asks for all of them at once."""
    dice = random.Random(2)
    fresh = 1
    left = requests
    while left > 0:
        for _ in range(dice.choice([1, 20, 200])):
            desk.wait(dice.choice([0, 0, 1, STEP // 7]))
            desk.ask(0)
            left -= 1
        for _ in range(12):
            desk.ask(fresh)
            fresh += 1
            left -= 1
        for _ in range(8):
            desk.wait(STEP)
            desk.ask(0)
            left -= 1
        while desk.books.dropped:
            desk.ask(desk.books.dropped.pop())
            left -= 1


ADVERSARIES = {"spiteful": spiteful, "fickle": fickle, "milker": milker}


@pytest.mark.parametrize("adversary", ADVERSARIES)
@pytest.mark.parametrize("alpha", [0.0, 0.01, 0.5])
def test_bound_holds_against_an_adversary_who_watches(adversary: str, alpha: float) -> None:
    desk = Desk(alpha, Says(0.0))
    ADVERSARIES[adversary](desk, 1500)
    assert desk.books.removals >= 1


def test_credit_is_spent_to_the_last_but_not_beyond() -> None:
    """The bound is no accident of a guard that allows nothing."""
    desk = Desk(0.01, Says(0.0))
    fickle(desk, 2000)
    assert desk.books.removals > 10
    assert desk.books.margin < 1


@pytest.mark.parametrize("alpha", [0.001, 0.01, 0.05])
@pytest.mark.parametrize("name", HOSTILE)
def test_bound_holds_over_thousands_of_requests(name: str, alpha: float) -> None:
    desk = Desk(alpha, HOSTILE[name](), audit=False)
    milker(desk, 400)
    spiteful(desk, 400)
    desk.compare()


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.001, 0.01, 0.05])
@pytest.mark.parametrize("name", HOSTILE)
def test_bound_holds_over_a_hundred_thousand_requests(name: str, alpha: float) -> None:
    desk = Desk(alpha, HOSTILE[name](), audit=False)
    for _ in range(10):
        spiteful(desk, 4000)
        desk.compare()
        milker(desk, 4000)
        desk.compare()
        fickle(desk, 2000)
        desk.compare()


@pytest.mark.parametrize("only", [_core.SLOT_STATIC, _core.SLOT_HAZARD + 3, _core.SLOT_MAJORITY, -1])
def test_bound_holds_whichever_expert_decides(only: int) -> None:
    trace = generate("pipeline", seed=4, requests=8000)
    price = Oracle(trace).price(0.3)
    out = learned.replay(trace, price, premature=0.01, only=only, predictors=("table",))
    assert out["worst_margin"] >= 0
    assert out["lost"] + out["in_flight"] <= 0.01 * out["protected"] + 1


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.001, 0.05])
@pytest.mark.parametrize("only", [*range(0, _core.SLOT_HAZARD, 4), *range(_core.SLOT_HAZARD, _core.SLOT_USER), _core.SLOT_MAJORITY])
def test_bound_holds_for_each_expert_alone_on_a_long_trace(only: int, alpha: float) -> None:
    trace = generate("pipeline", seed=5, requests=30_000)
    out = learned.replay(trace, Oracle(trace).price(0.3), premature=alpha, only=only, predictors=("table",))
    assert out["worst_margin"] >= 0


# -- a bank for each namespace ------------------------------------------------------------------------------

BANKS = {None: 0.05, "reports": 0.0, "pages": 0.5, ("t", 1): 0.01}
LABELS = [None, "reports", "pages", ("t", 1), "nobody's own"]


@pytest.mark.parametrize("name", HOSTILE)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ops=OPS, moves=st.lists(st.sampled_from(LABELS), min_size=1, max_size=7), maxsize=st.sampled_from([None, 4]))
def test_every_bank_keeps_its_promise_at_every_moment(name: str, ops: list[Any], moves: list[Any], maxsize: float | None) -> None:
    """Keys wander between namespaces too."""
    calls = itertools.count()
    play(Desk(BANKS, HOSTILE[name](), window=7 * STEP / 1e9, maxsize=maxsize,
              namespace=lambda key: moves[(key + next(calls) // 5) % len(moves)]), ops)


@pytest.mark.parametrize("adversary", ADVERSARIES)
def test_every_bank_holds_against_an_adversary_who_watches(adversary: str) -> None:
    desk = Desk(BANKS, Says(0.0), namespace=lambda key: LABELS[key % len(LABELS)])
    ADVERSARIES[adversary](desk, 1500)
    assert desk.books.removals >= 1
    assert desk.books.lost + desk.books.in_flight <= sum(alpha * desk.books.n_of[bank] for bank, alpha in BANKS.items()) + len(BANKS)


def test_a_bank_spends_its_own_credit_only() -> None:
    """Pages earn plenty; reports may not touch it."""
    desk = Desk(BANKS, Says(0.0), window=WINDOW / 1e9, namespace=lambda key: "pages" if key < 1000 else "reports")
    flying = Counter[str]()
    for at in range(200):
        desk.wait(STEP)
        for key in (0, 0, 0, 100 + at, 1000, 1000, 1000, 2000 + at):    # one of four is never asked for again
            desk.ask(key)
        for label, bank in desk.cache.stats().banks.items():
            flying[str(label)] = max(flying[str(label)], bank.in_flight)
    banks = desk.cache.stats().banks
    assert banks["pages"].protected > 100 and banks["reports"].protected > 100 and banks[None].protected == 0
    assert flying["pages"] > 3
    assert flying["reports"] <= 1 and banks["reports"].premature_budget == 1.0


@pytest.mark.parametrize(("namespace", "moved"), [("mine", False), ("other", True)])
def test_every_bank_has_a_ladder_of_its_own(namespace: str, moved: bool) -> None:
    """What the waits of one namespace offered says nothing of which removals of another deserve credit."""
    now = 0.0
    cache: Cache[Any, Any] = Cache(None, timer=lambda: now, expiry=Learned(
        memory_price=1.0, predictors=("table",), learner="manual", seed=1, premature={"mine": 0.01, None: 0.01}))
    assert cache.brain is not None
    cache.brain.only = _core.SLOT_STATIC        # lets go at once, and every key comes back: all would be lost
    for _ in range(100):
        now += 0.1
        for key in range(10):
            if cache.get(key) is None:
                cache.set(key, 1, cost=8, namespace=namespace)
    assert (cache._counters()["rung"] > 0) is moved     # of the bank of everybody else


def test_namespaces_without_a_share_of_their_own_bank_together() -> None:
    desk = Desk({None: 0.5, "pages": 0.0}, Says(0.0), window=WINDOW / 1e9, namespace=lambda key: f"other {key}")
    for at in range(100):
        desk.wait(STEP)
        desk.ask(at % 3)
    assert desk.cache.stats().banks[None].protected > 50
    assert set(desk.cache.stats().banks) == {None, "pages"}


@pytest.mark.parametrize(("given", "says"), [
    ({"a": 1.5}, r"premature\['a'\].*0 to 1"), ({None: -0.1}, "premature.*0 to 1"), ({"a": math.nan}, "premature.*0 to 1"),
    ({str(i): 0.01 for i in range(65)}, "premature: 65 namespaces"),
])
def test_a_share_that_is_none_is_refused(given: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Learned(premature=given)
    assert Cache(3, expiry=Learned(premature={"a": 0.0}, learner="manual")).stats().banks.keys() == {"a", None}


# -- the expected guarantee --------------------------------------------------------------------------------

@pytest.mark.parametrize("alpha", [0.01, 0.05])
def test_expected_guarantee_keeps_the_share_lost_on_the_synthetic_pipeline(alpha: float) -> None:
    trace = generate("pipeline", seed=6, requests=30_000)
    out = learned.replay(trace, Oracle(trace).price(0.3), premature=alpha, guarantee="expected", predictors=("table",))
    assert out["protected"] > 1000
    assert out["lost"] <= alpha * out["protected"] + 1


@pytest.mark.traces
@pytest.mark.parametrize("times", [1.0, 0.1])
def test_expected_guarantee_keeps_the_share_lost_on_a_real_trace(trace_path: Callable[[str], Path], times: float) -> None:
    trace = read(trace_path("dns_wrccdc_a"))
    out = learned.replay(trace, Oracle(trace).price(times), premature=0.01, guarantee="expected", predictors=("table",))
    assert out["lost"] <= 0.01 * out["protected"] + 1


# -- edges of the window -----------------------------------------------------------------------------------

def test_request_at_the_very_end_of_the_window_is_protected() -> None:
    desk = Desk(0.01, Says(math.inf), window=WINDOW / 1e9)
    desk.set("a")
    desk.wait(WINDOW)
    assert desk.get("a") and desk.books.n == 1
    desk.wait(WINDOW + 1)
    desk.get("a")
    assert desk.books.n == 1


def removed_early(**options: Any) -> Desk:
    """A desk whose key "a" was last asked for at time 0 and let go within its window."""
    desk = Desk(0.01, Says(0.0), window=WINDOW / 1e9, **options)
    desk.ask("a")
    desk.wait(3 * STEP)
    desk.get("other")
    assert desk.books.early and "a" not in desk.cache
    return desk


def test_request_at_the_very_end_of_the_window_of_a_removed_entry_is_a_loss() -> None:
    desk = removed_early()
    desk.wait(WINDOW - desk.books.now)
    desk.get("a")
    assert desk.books.lost == 1


def test_request_after_the_window_of_a_removed_entry_is_no_loss() -> None:
    desk = removed_early()
    desk.wait(WINDOW - desk.books.now + 2000)
    desk.get("a")
    assert desk.books.lost == 0 and desk.cache.stats().in_flight == 0


def test_in_flight_ends_with_the_window() -> None:
    desk = removed_early()
    desk.wait(WINDOW - desk.books.now)
    assert desk.cache.stats().in_flight == 1
    desk.wait(2000)
    assert desk.cache.stats().in_flight == 0


def test_a_second_request_for_the_same_loss_is_none() -> None:
    desk = removed_early()
    desk.get("a")
    desk.get("a")
    assert desk.books.lost == 1


def test_looking_is_no_request() -> None:
    desk = removed_early()
    assert "a" not in desk.cache
    assert desk.cache.pop("b", None) is None
    desk.compare()
    assert desk.books.lost == 0 and desk.books.in_flight == 1


def test_window_for_ever_protects_for_ever() -> None:
    desk = Desk(0.0, Says(0.0), window=math.inf)
    for key in range(50):
        desk.ask(key)
    desk.wait(ns(100.0))
    desk.get("other")
    assert desk.books.removals <= 1 and desk.books.in_flight <= 1


# -- what is no loss ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("forgive", ["set", "delete", "clear", "set that is over at once"])
def test_user_who_replaces_or_deletes_a_removed_entry_forgives(forgive: str) -> None:
    desk = removed_early()
    if forgive == "set":
        desk.set("a")
    elif forgive == "delete":
        desk.delete("a")
    elif forgive == "clear":
        desk.clear()
    else:
        desk.set("a", ttl=0.0)
    assert desk.cache.stats().in_flight == 0
    desk.get("a")
    assert desk.books.lost == 0


def test_refused_set_forgives_nothing() -> None:
    desk = removed_early(maxsize=4)
    with pytest.raises(ValueError, match="too large"):
        desk.cache.set("a", 1, size=5)
    with pytest.raises(ValueError, match="ttl"):
        desk.cache.set("a", 1, ttl=-1)
    assert desk.cache.stats().in_flight == 1
    desk.get("a")
    assert desk.books.lost == 1


def test_capacity_eviction_is_never_premature() -> None:
    desk = Desk(0.01, Says(math.inf), window=10.0, maxsize=2)
    for key in (1, 2, 3, 1, 2, 3, 1, 2, 3):
        desk.ask(key)
        desk.wait(STEP)
    assert desk.books.evicted > 3
    assert desk.cache.stats().premature == 0 and desk.cache.stats().in_flight == 0


@pytest.mark.parametrize("how", ["ceiling", "ttl"])
def test_expiry_by_the_ceiling_within_the_window_is_not_premature(how: str) -> None:
    desk = Desk(0.0, Says(math.inf), window=10.0, ceiling=0.5 if how == "ceiling" else None)
    desk.set("a", ttl=0.5 if how == "ttl" else None)
    desk.wait(ns(0.6))
    assert not desk.get("a")
    assert desk.books.by_ceiling == 1
    assert desk.cache.stats().premature == 0 and desk.cache.stats().in_flight == 0


def test_entry_is_not_served_at_its_very_ceiling() -> None:
    desk = Desk(0.01, Says(math.inf), price=0.0)
    desk.set("a", ttl=0.5)
    desk.wait(ns(0.5) - 1)
    assert desk.get("a")
    desk.wait(1)
    assert not desk.get("a") and desk.books.by_ceiling == 1


def test_loss_ends_at_the_ceiling_that_would_have_ended_the_entry_anyway() -> None:
    desk = Desk(0.01, Says(0.0), window=1.0)
    desk.set("a", ttl=0.5)
    desk.wait(3 * STEP)
    desk.get("other")
    assert desk.books.early
    desk.wait(ns(0.5))
    desk.get("a")
    assert desk.books.lost == 0


# -- what earns no credit ----------------------------------------------------------------------------------

def test_requests_beyond_the_window_earn_no_credit() -> None:
    desk = Desk(0.5, Says(math.inf), window=WINDOW / 1e9)
    desk.set("a")
    for _ in range(20):
        desk.wait(WINDOW + STEP)
        desk.ask("a")
    assert desk.cache.stats().protected == 0


@pytest.mark.parametrize("window", [None, WINDOW / 1e9])
def test_keys_that_cost_nothing_earn_no_credit_beyond_their_window(window: float | None) -> None:
    desk = Desk(0.5, Says(math.inf), window=window)
    desk.set("free", cost=0)
    for _ in range(20):
        desk.wait(WINDOW + STEP)
        desk.ask("free", cost=0)
    assert desk.cache.stats().protected == 0


def test_fixed_window_holds_also_while_memory_is_free() -> None:
    desk = Desk(0.5, Says(math.inf), window=WINDOW / 1e9, price=0.0)
    desk.set("a")
    for _ in range(20):
        desk.wait(WINDOW + STEP)
        desk.ask("a")
    assert desk.cache.stats().protected == 0


def test_writes_earn_no_credit() -> None:
    desk = Desk(0.5, Says(math.inf), window=1.0)
    for _ in range(20):
        desk.wait(STEP)
        desk.set("a")
    assert desk.cache.stats().protected == 0


# -- keys of one hash --------------------------------------------------------------------------------------

class Twin:
    """A key whose hash says nothing."""

    def __init__(self, name: int) -> None:
        self.name = name

    def __hash__(self) -> int:
        return 7

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Twin) and self.name == other.name


@pytest.mark.parametrize("keys", [[-1, -2], [5, 5 + 2**61 - 1], [Twin(i) for i in range(6)]],
                         ids=["-1 and -2", "modulo 2**61 - 1", "constant hash"])
@settings(max_examples=60, deadline=None)
@given(picks=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.booleans()), max_size=80),
       alpha=st.sampled_from([0.0, 0.05, 0.5]))
def test_keys_that_share_a_hash_never_break_the_bound(keys: list[Any], picks: list[Any], alpha: float) -> None:
    desk = Desk(alpha, Says(0.0), window=WINDOW / 1e9, audit=False)
    for which, steps, write in picks:
        desk.wait(steps * STEP)
        key = keys[which % len(keys)]
        if write:
            desk.set(key)
        else:
            desk.ask(key)


# -- who may not be believed -------------------------------------------------------------------------------

@pytest.mark.parametrize("name", HOLDS)
def test_answer_that_is_no_time_means_hold(name: str) -> None:
    desk = Desk(0.5, HOLDS[name](), window=WINDOW / 1e9)
    for key in range(10):
        desk.ask(key)
    desk.wait(WINDOW // 2)
    for key in range(10):
        assert desk.ask(key)
    assert desk.books.removals == 0


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -math.inf, -1.0, -0.5e-9])
def test_core_takes_an_answer_that_is_no_time_for_hold(seconds: float) -> None:
    """The core does not rely on anybody having looked at the answer before."""
    desk = Desk(0.5, Says(0.0), window=WINDOW / 1e9)
    trainer = desk.cache._trainer
    trainer.guests[0].seconds = lambda x: seconds
    for key in range(10):
        desk.ask(key)
    desk.wait(WINDOW // 2)
    for key in range(10):
        assert desk.ask(key)
    assert desk.books.removals == 0


def test_guard_that_is_off_counts_all_the_same() -> None:
    desk = Desk(1.0, Says(0.0), window=WINDOW / 1e9)
    for i in range(200):
        desk.wait(STEP)
        desk.ask(i % 5)
    assert desk.books.lost > 20
