"""A ledger knows of keys on a server what a learned cache knows of its own entries, and keeps its promise."""
from __future__ import annotations

import gc
import math
import os
import random
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from time import monotonic, sleep
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import until
from test_promise import HOSTILE

from adaptcache import Learned, _core
from adaptcache.ledger import GONE, GOT, MISSED, PUT, Ledger, Release, Touched


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def manual(time: Time, **options: Any) -> Ledger:
    learned = {name: options.pop(name) for name in list(options) if name in ("memory_price", "premature", "window", "guarantee", "predictors")}
    return Ledger(Learned(learner="manual", seed=1, **learned), timer=time, **options)


def test_a_key_that_nobody_asks_for_is_released_and_its_deadline_is_not_within_its_window() -> None:
    time, released = Time(), []
    ledger = manual(time, memory_price=0.1, premature=0.0, on_release=released.extend)
    for at in range(50):
        ledger.put(b"%d" % at, cost=2.0, size=4)        # a break-even time of 5 s, a window of 1.25
    assert 1.25 <= ledger.hold(b"7") < math.inf
    for _ in range(400):
        time.now += 0.05
        ledger.step()
    assert sorted(one.key for one in released) == sorted(b"%d" % at for at in range(50))
    # One loss in all may be risked: of fifty, one may have left early.
    assert sum(one.window_left > 0 for one in released) <= 1
    assert all(one.age >= 1.25 for one in released if one.window_left <= 0)
    assert released[0].size == 4 and released[0].cost == 2.0 and released[0].ceiling_left == math.inf


def test_without_a_price_nothing_is_released_and_deadlines_are_the_keys_own() -> None:
    time, released = Time(), []
    ledger = manual(time, on_release=released.extend)
    ledger.put(b"a")
    ledger.put(b"b", ttl=50.0)
    assert ledger.hold(b"a") == math.inf
    assert ledger.hold(b"b") == pytest.approx(50.0)
    assert ledger.hold(b"never seen") == math.inf
    time.now = 1e6
    ledger.step()
    assert released == []       # the end of b's own expiry is no release
    assert not ledger.got(b"b", True) and ledger.got(b"a", True)


def test_a_hold_never_passes_the_keys_own_expiry() -> None:
    time = Time()
    ledger = manual(time, memory_price=0.001)
    ledger.put(b"a", ttl=3.0)
    time.now = 1.0
    assert ledger.hold(b"a") == pytest.approx(2.0)


def test_break_even_ttl_takes_the_expiry_for_the_break_even_time() -> None:
    time, released = Time(), []
    ledger = manual(time, break_even_ttl=1.0, premature=1.0, on_release=released.extend)
    ledger.put(b"a", ttl=100.0, size=7, cost=3.0)
    ledger.put(b"for ever", size=7)
    told = ledger.cache.explain(ledger.number(b"a"))
    assert told.breakeven == pytest.approx(100.0) and told.window == pytest.approx(25.0)
    assert ledger.hold(b"for ever") == math.inf
    with pytest.raises(ValueError, match="break_even_ttl"):
        manual(time, break_even_ttl=1.0, memory_price=1.0)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 1 << 30), alpha=st.sampled_from([0.0, 0.01, 0.1]), even=st.booleans(), churn=st.floats(0.0, 0.3),
       model=st.sampled_from([None, *HOSTILE]), jumps=st.sampled_from([0.0, 0.0, 0.05]), rest=st.sampled_from([0.0, 0.5, 3.0]))
def test_the_promise_holds_whatever_is_asked(
    seed: int, alpha: float, even: bool, churn: float, model: str | None, jumps: float, rest: float,
) -> None:
    """Against books of the test's own: a loss is a request within the window after the last one, for a key that was released and that
    the server did let go of, at once or after a `rest`.

    Whatever the model answers, and although the clock jumps back (it is taken to stand still then; the server's goes on).
    """
    rnd, time, server, last, out = random.Random(seed), Time(), {}, {}, []
    resting: list[tuple[float, Release]] = []
    ledger = manual(time, premature=alpha, window=5.0, on_release=out.extend, **({} if model is None else {"predictors": (HOSTILE[model](),)}),
                    **({"break_even_ttl": 1.0} if even else {"memory_price": 0.05}))
    ledger.asked = rest > 0
    lost = protected = 0
    real = seen = 0.0
    released: set[bytes] = set()

    def let_go() -> None:
        ledger.step()
        for one in out:
            assert jumps or one.key in server
            assert one.last == last[one.key] and one.window_left == pytest.approx(5.0 - one.age)
            resting.append((real + rest, one))
        out.clear()
        while resting and resting[0][0] <= real:
            one = resting.pop(0)[1]
            if (not rest or ledger.leave(one)) and server.pop(one.key, None) is not None:
                released.add(one.key)

    for _ in range(400):
        passed = rnd.expovariate(5.0)
        real += passed
        time.now += passed if rnd.random() >= jumps else -rnd.choice([0.0, 1.0, 30.0])
        seen = max(seen, time.now)
        key = b"%d" % int(rnd.paretovariate(0.7) % 40)
        let_go()
        for one in [held for held, end in server.items() if end <= real]:
            del server[one]
            released.discard(one)
        if rnd.random() < churn:
            server.pop(key, None)
            ledger.gone(key)
            released.discard(key)
            last.pop(key, None)
        elif key in server:
            assert ledger.got(key, True)
            protected += seen - last[key] <= 5.0
            last[key] = seen
        else:
            ledger.got(key, False)
            if key in released and seen - last[key] <= 5.0:
                lost += 1
                protected += 1
            released.discard(key)
            server[key] = real + 20.0
            ledger.put(key, ttl=20.0)
            last[key] = seen
        let_go()
        books = ledger.stats()
        assert lost <= books.premature <= books.premature_budget - books.in_flight + 1e-9
        assert books.protected <= protected


def test_a_kept_release_is_followed_again_and_charges_nobody() -> None:
    time, released = Time(), []
    ledger = manual(time, memory_price=1.0, premature=1.0, on_release=released.extend)
    ledger.put(b"a", cost=1.0, ttl=50.0)
    while not released:
        time.now += 0.01
        ledger.step()
    ledger.kept(released[0])
    assert ledger.got(b"a", True)
    assert ledger.stats().premature == 0
    assert ledger.cache.expires_in(ledger.number(b"a")) == pytest.approx(50.0 - time.now)


def early(ledger: Ledger, time: Time, released: list[Release], key: bytes = b"a") -> Release:
    """Have the ledger let go of a key within its window, as it was told to."""
    ledger.put(key, cost=1.0, ttl=1000.0)
    while not released:
        time.now += 0.25
        ledger.step()
        assert time.now < 1000.0
    return released.pop()


@pytest.mark.parametrize("near", [False, True])
def test_what_waits_to_be_let_go_of_is_still_there_and_a_request_for_it_loses_nothing(near: bool) -> None:
    time, released, heard, touched = Time(), [], [], []
    ledger = manual(time, memory_price=0.01, premature=1.0, window=200.0, on_release=released.extend, on_touch=touched.append)
    ledger.asked = True
    ledger.listener = lambda *event: heard.append(event[0])
    one = early(ledger, time, released)
    assert one.window_left > 0 and ledger.stats().in_flight == 1
    time.now += 1.0
    assert ledger.got(b"a", True, near=near) and ledger.got(b"a", True)
    ledger.step()
    assert touched == ([Touched((b"a",))] if near else [])      # the server must hear of it
    told = ledger.stats()
    assert told.premature == 0 and told.in_flight == 0 and heard == [PUT, GOT, GOT]
    assert (told.hits, told.misses) == (2, 0)
    assert not ledger.leave(one)
    again = early(ledger, time, released, b"b")
    assert again.key in (b"a", b"b") and again.ceiling_left < 1000.0
    assert ledger.leave(again) and not ledger.got(again.key, True)      # from here on it is a loss
    assert ledger.stats().premature == 1


def test_what_waits_to_be_let_go_of_and_is_missed_is_lost() -> None:
    time, released = Time(), []
    ledger = manual(time, memory_price=0.01, premature=1.0, window=200.0, on_release=released.extend)
    ledger.asked = True
    one = early(ledger, time, released)
    assert not ledger.got(b"a", False)      # an eviction, or somebody else's release
    assert ledger.stats().premature == 1 and not ledger.got(b"a", True)
    ledger.put(b"a", cost=1.0)
    assert not ledger.leave(one) and ledger.stats().premature == 1


def test_a_request_that_finds_a_key_due_finds_it_on_the_server() -> None:
    time, released = Time(), []
    ledger = manual(time, memory_price=0.01, premature=1.0, window=200.0, on_release=released.extend)
    ledger.asked = True
    ledger.put(b"a", cost=1.0)
    time.now += 190.0
    assert ledger.got(b"a", True)
    ledger.step()
    assert len(released) == 1 and released[0].window_left > 0       # the look for it found it due
    assert ledger.stats().premature == 0 and not ledger.leave(released[0])


def test_a_kept_release_that_was_written_again_meanwhile_changes_nothing() -> None:
    time, released = Time(), []
    ledger = manual(time, memory_price=1.0, premature=1.0, on_release=released.extend)
    ledger.put(b"a", cost=1.0, ttl=50.0)
    while not released:
        time.now += 0.01
        ledger.step()
    ledger.put(b"a", cost=1.0, ttl=500.0, size=0.5)
    ledger.kept(released[0])
    assert ledger.cache.expires_in(ledger.number(b"a")) == pytest.approx(500.0)


def test_a_clock_that_jumps_back_leaves_a_keys_window_open_as_long_as_the_bank_takes_it_for_open() -> None:
    time, released = Time(), []
    ledger = manual(time, memory_price=1.0, premature=1.0, window=10.0, on_release=released.extend)
    time.now = 100.0
    ledger.put(b"before", cost=1.0, ttl=50.0)
    time.now = 40.0
    ledger.put(b"after", cost=1.0, ttl=50.0)
    for _ in range(1200):
        time.now += 0.1
        ledger.step()
    assert [(one.key, one.last) for one in released] == [(b"before", 100.0), (b"after", 100.0)]
    assert all(0 < one.window_left < 10.0 and 40.0 < one.ceiling_left < 50.0 for one in released)


def test_an_on_release_that_raises_is_logged_and_later_releases_reach_it(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[bytes] = []

    def heard(some: list[Release]) -> None:
        seen.extend(one.key for one in some)
        if b"first" in seen[-len(some):]:
            raise RuntimeError("not today")

    ledger = Ledger(Learned(memory_price=10.0, seed=1), on_release=heard)
    ledger.put(b"first", cost=1.0)
    until(lambda: seen == [b"first"] and "not today" in caplog.text, "the first is released, and that is logged")
    ledger.put(b"second", cost=1.0)
    until(lambda: seen == [b"first", b"second"], "the second is released")
    ledger.close()


def test_a_key_that_is_over_the_bound_is_no_loss_and_the_promise_holds() -> None:
    time, released = Time(), []
    ledger = manual(time, memory_price=0.1, window=10.0, premature=0.0, maxsize=5, on_release=released.extend)
    for at in range(50):
        time.now += 0.01
        ledger.put(b"%d" % (at % 10), cost=1.0)
        ledger.got(b"%d" % (at * 7 % 10), True)
    assert len(ledger.cache) == 5 and ledger.stats().premature == 0 and released == []


def test_many_threads_on_one_key_leave_it_followed_with_its_last_use() -> None:
    ledger = Ledger(Learned(memory_price=1e-9, seed=1))
    ledger.put(b"a", ttl=1000.0)

    def work() -> None:
        for at in range(300):
            ledger.got(b"a", True, near=bool(at % 2))
            if at % 50 == 0:
                ledger.put(b"a", ttl=1000.0)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert ledger.got(b"a", True) and len(ledger.cache) == 1
    kept = ledger.cache.get(ledger.number(b"a"))
    assert 0.0 <= _core.monotonic() - kept.last < 60.0 and kept.ceiling - kept.last <= 1000.0


def test_a_loss_that_another_process_noticed_is_charged_to_the_bank_or_noted_when_late() -> None:
    time, released = Time(), []
    ledger = manual(time, memory_price=1.0, window=10.0, premature=0.5, on_release=released.extend)
    for at in range(200):       # credit, and the knowledge that keys like these are not asked for again
        time.now += 0.1
        ledger.put(b"%d" % at, cost=0.2)
        ledger.got(b"%d" % at, True)
        ledger.step()
    early = next(one for one in released if one.last + 10.0 > time.now)
    before = ledger.stats().premature
    assert ledger.lost(ledger.number(early.key))
    assert ledger.stats().premature == before + 1
    late = next(one for one in released if one.key != early.key and one.window_left > 0)
    time.now = late.last + 11.0
    ledger.step()
    assert not ledger.lost(ledger.number(late.key))
    assert ledger.stats().premature == before + 2


def test_what_the_bank_was_told_too_late_is_held_to_its_windows_end() -> None:
    time, released = Time(), []
    ledger = manual(time, memory_price=1.0, window=10.0, premature=0.0, on_release=released.extend)
    ledger.lost(ledger.number(b"somebody's"))       # a loss of a window that is over: nothing is left of a budget of one
    assert ledger.stats().premature == 1
    for at in range(5):
        ledger.put(b"%d" % at, cost=0.2)
    for _ in range(300):
        time.now += 0.05
        ledger.step()
    assert len(released) == 5
    assert all(one.wait == max(0.0, one.window_left) for one in released)
    assert all(one.age + one.wait >= 10.0 - 1e-6 for one in released)


def test_a_key_that_is_seen_late_keeps_its_nominal_expiry_for_a_break_even_time() -> None:
    time, released = Time(), []
    ledger = manual(time, break_even_ttl=1.0, on_release=released.extend)
    ledger.put(b"a", ttl=5.0, nominal=100.0)
    told = ledger.cache.explain(ledger.number(b"a"))
    assert told.breakeven == pytest.approx(100.0) and told.expires_in == pytest.approx(5.0)


def test_no_more_keys_are_followed_than_stated() -> None:
    time, released = Time(), []
    ledger = manual(time, memory_price=1e-6, maxsize=10, on_release=released.extend)
    for at in range(100):
        ledger.put(b"%d" % at)
    assert len(ledger.cache) == 10 and released == []


def test_a_listener_hears_of_everything_under_numbers_that_are_alike_in_every_process() -> None:
    time, heard = Time(), []
    ledger = manual(time, memory_price=1.0, salt=b"fleet")
    ledger.listener = lambda *event: heard.append(event)
    ledger.put(b"a", size=3, cost=2.0, ttl=9.0, namespace="n", features={"hour": 3})
    ledger.got(b"a", True)
    ledger.got(b"a", False)
    ledger.got(b"b", False)
    ledger.put(b"a")
    ledger.gone(b"a")
    number = ledger.number(b"a")
    assert [event[:2] for event in heard] == [(PUT, number), (GOT, number), (GONE, number), (MISSED, ledger.number(b"b")),
                                              (PUT, number), (GONE, number)]
    assert heard[0][2:] == (0.0, 3, 2.0, 9.0, "n", {"hour": 3})
    script = "from adaptcache import Learned; from adaptcache.ledger import Ledger; print(Ledger(Learned(learner='manual'), salt=b'fleet').number(b'a'))"
    other = subprocess.run([sys.executable, "-P", "-c", script], env={**os.environ, "PYTHONHASHSEED": "77"}, capture_output=True, text=True, check=True)
    assert int(other.stdout) == number == hash(number)
    assert manual(time, salt=b"another").number(b"a") != number


def test_near_answers_are_told_to_the_server_now_and_then() -> None:
    time, told = Time(), []
    ledger = manual(time, memory_price=0.01, on_touch=told.append)
    ledger.put(b"a", cost=1.0)
    for _ in range(100):
        time.now += 0.5
        assert ledger.got(b"a", True, near=True)
        ledger.step()
    # A window of 25 s: once in three seconds and an eighth.
    assert told and all(one == Touched((b"a",)) for one in told)
    assert 10 <= len(told) <= 16


def test_a_thread_hands_releases_on_by_itself() -> None:
    released: list[Release] = []
    threads: set[str] = set()

    def heard(some: list[Release]) -> None:
        threads.add(threading.current_thread().name)
        released.extend(some)

    ledger = Ledger(Learned(memory_price=10.0, seed=1), on_release=heard)
    for at in range(20):
        ledger.put(b"%d" % at, cost=1.0)
    until(lambda: len(released) == 20, "all keys are released")
    assert threading.current_thread().name not in threads
    ledger.close()
    ledger.put(b"more", cost=1.0)
    until(lambda: len(ledger.cache) == 0, "the last key is let go of")
    assert len(released) == 20


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_of_a_fork_waits_for_no_lock_of_its_parents() -> None:
    time, released = Time(), []
    ledger = manual(time, memory_price=0.01, premature=1.0, window=200.0, on_release=released.extend)
    ledger.asked = True
    ledger.put(b"a", cost=1.0)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with ledger._gate, ledger._busy:
            held.set()
            done.wait(30)

    other = threading.Thread(target=hold)
    other.start()
    assert held.wait(30)
    child = os.fork()
    if not child:
        time.now += 190.0
        ledger.step()
        os._exit(0 if len(released) == 1 and ledger.got(b"a", True) and not ledger.leave(released[0]) else 1)
    end = monotonic() + 20
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and monotonic() < end:
        sleep(0.01)
    if ended == (0, 0):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    done.set()
    other.join()
    assert ended[1] == 0 and ended[0] == child


def test_a_dropped_ledger_is_collected() -> None:
    def make() -> weakref.ref[Ledger]:
        ledger = Ledger(Learned(memory_price=1.0, seed=1), on_release=lambda some: None)
        ledger.put(b"a")
        return weakref.ref(ledger)

    dropped = make()

    def collected() -> bool:
        gc.collect()
        return dropped() is None

    until(collected, "the ledger is collected")


@pytest.mark.parametrize("wrong", [
    lambda: Ledger(3),  # type: ignore[arg-type]
    lambda: Ledger(Learned(), maxsize=0),
    lambda: Ledger(Learned(), maxsize=True),
    lambda: Ledger(Learned(), salt="text"),  # type: ignore[arg-type]
    lambda: Ledger(Learned(learner="manual")).put(b"a", ttl=math.nan),
    lambda: Ledger(Learned(learner="manual")).put(b"a", size=-1),
    lambda: Ledger(Learned(learner="manual")).put(b"a", cost=math.inf),
])
def test_bad_input_is_named_before_anything_changes(wrong: Callable[[], object]) -> None:
    with pytest.raises((ValueError, TypeError), match=r"expiry|maxsize|salt|ttl|size|cost"):
        wrong()


def test_with_break_even_ttl_costs_that_are_known_for_some_keys_change_nothing() -> None:
    """A load of a tenth of a millisecond beside misses of unknown cost: both count as one miss."""
    def seen(costs: bool) -> list[bytes]:
        time, released, rnd = Time(), [], random.Random(5)
        ledger = manual(time, break_even_ttl=2.0, on_release=released.extend)
        held: dict[bytes, float] = {}
        done: list[bytes] = []
        for at in range(3000):
            time.now += 0.02
            ledger.step()
            while len(released) > len(done):
                done.append(released[len(done)].key)
                held.pop(done[-1], None)
            key = b"%d" % int(rnd.paretovariate(0.6) % 60)
            hit = held.get(key, 0.0) > time.now
            ledger.got(key, hit)
            if not hit:
                held[key] = time.now + 5.0
                ledger.put(key, ttl=5.0, cost=1e-4 if costs and at % 2 else None)
        return done

    released = seen(True)
    assert released and released == seen(False)
