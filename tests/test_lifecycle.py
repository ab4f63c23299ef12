"""The learner's thread: when it lives, when it ends, and that nobody notices it otherwise.

What concerns a whole process runs in a process of its own. Nothing here sleeps and hopes: every wait is for
something that must come, with a deadline.
"""
from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from adaptcache import Cache, Cause, Learned, _core
from adaptcache.learn.worker import EVENTS, SAVED, TRAINING, WORKER, Worker

PATIENCE = 30.0
FAST = 2000.0           # seconds of the cache's time in a second


def fast() -> float:
    return time.monotonic() * FAST


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline, pause = time.monotonic() + PATIENCE, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come within {PATIENCE:.0f} s"
        pause.wait(0.005)


def threaded(maxsize: float | None = None, **options: Any) -> Cache[Any, Any]:
    told = options.pop("on_removal", None)
    timer = options.pop("timer", fast)
    options = {"memory_price": 0.05, "premature": 1.0, "predictors": ("table", "river")} | options
    return Cache(maxsize, timer=timer, on_removal=told, expiry=Learned(**options))


def learners() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "adaptcache-learner"]


# -- it works by itself ------------------------------------------------------------------------------------

def test_thread_learns_and_lets_go_without_a_request() -> None:
    gone = threading.Event()
    cache = threaded(on_removal=lambda key, value, cause, at: cause is Cause.EXPIRED and gone.set())
    for key in range(200):
        cache.get(key)
        cache[key] = key
    assert gone.wait(PATIENCE)
    wait_for(lambda: cache.brain.labels >= 200, "a label for each wait")
    wait_for(lambda: cache._counters()["expirations"] == 200, "the end of every entry")
    cache._check()


def test_thread_trains_and_publishes_river_models() -> None:
    cache = threaded(premature=0.01)
    dice = random.Random(1)

    def ask() -> bool:
        for _ in range(200):
            key = dice.randrange(300)
            if cache.get(key) is None:
                cache.set(key, key, features={"kind": str(key % 3)})
        return cache._trainer.published > 0

    wait_for(ask, "a published model")
    stats = cache.stats()
    assert stats.premature + stats.in_flight <= stats.premature_budget
    assert sum(stats.weights.values()) == pytest.approx(1)
    cache._check()


def test_promise_holds_with_a_thread_and_a_model_that_means_harm() -> None:
    class Never:
        def learn(self, x: dict[str, float], y: float) -> None: ...

        def predict(self, x: dict[str, float]) -> float:
            return 0.0

    gone: list[int] = []
    cache = threaded(premature=0.05, predictors=(Never(),), on_removal=lambda key, *rest: gone.append(key))
    cache.brain.only = 42       # the user's first model alone
    dice = random.Random(2)
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        key = gone.pop() if gone else dice.randrange(50)
        if cache.get(key) is None:
            cache[key] = key
        counters = cache._counters()
        assert counters["premature"] + counters["in_flight"] <= counters["premature_budget"]
    assert cache._counters()["worst"] <= 0
    cache._check()


def test_clock_that_raises_is_logged_and_does_not_end_the_thread(caplog: pytest.LogCaptureFixture) -> None:
    broken = threading.Event()
    raised = threading.Event()

    def timer() -> float:
        if broken.is_set():
            raised.set()
            raise OSError("no clock")
        return fast()

    cache = threaded(timer=timer)
    cache[1] = 1
    broken.set()
    assert raised.wait(PATIENCE)
    wait_for(lambda: any(record.name == "adaptcache" and record.exc_info for record in list(caplog.records)), "a line in the log")
    broken.clear()
    wait_for(lambda: cache._counters()["expirations"] == 1, "the end of the entry")
    assert WORKER.alive


def test_callback_that_raises_in_the_thread_is_logged_and_stays(caplog: pytest.LogCaptureFixture) -> None:
    calls = []

    def told(key: int, value: int, cause: Cause, at: float) -> None:
        calls.append(key)
        raise ValueError("not my day")

    cache = threaded(on_removal=told)
    for key in range(3):
        cache[key] = key
    wait_for(lambda: len(calls) == 3, "three calls")
    wait_for(lambda: sum("on_removal raised" in record.getMessage() for record in list(caplog.records)) == 3, "three lines")


# -- one thread --------------------------------------------------------------------------------------------

def test_one_daemon_thread_serves_every_cache() -> None:
    caches = [threaded() for _ in range(5)]
    for cache in caches:
        cache[1] = 1
    assert len(learners()) == 1
    assert learners()[0].daemon
    wait_for(lambda: all(cache._counters()["expirations"] == 1 for cache in caches), "the end of all entries")


def test_no_thread_for_other_caches_and_manual_learners() -> None:
    run("""
import threading
from adaptcache import Cache, Learned, Idle
held = [Cache(10), Cache(10, expiry=5), Cache(10, expiry=Idle(5)), Cache(10, expiry=Learned(learner="manual"))]
for cache in held:
    cache[1] = 1
assert threading.active_count() == 1, threading.enumerate()
""")


class Counted:
    """What a worker serves, without a cache."""

    def __init__(self) -> None:
        self.steps = 0
        self.stepped = threading.Event()

    def _work(self) -> bool:
        self.steps += 1
        self.stepped.set()
        return False

    def _train(self) -> None:
        pass

    def _pace(self, slower: bool) -> None:
        pass

    def _forked(self) -> None:
        pass


def test_thread_stops_when_the_last_cache_is_collected_and_starts_again() -> None:
    worker = Worker()
    first, second = Counted(), Counted()
    worker.add(first)
    worker.add(second)
    assert first.stepped.wait(PATIENCE) and second.stepped.wait(PATIENCE)
    gone = weakref.ref(first)
    del first
    wait_for(lambda: gone() is None, "the end of the first")
    assert worker.alive
    del second
    wait_for(lambda: not worker.alive, "the end of the thread")
    third = Counted()
    worker.add(third)
    assert third.stepped.wait(PATIENCE)
    worker.discard(third)
    wait_for(lambda: not worker.alive, "the end of the thread")


def test_step_that_raises_stops_nobody_elses(caplog: pytest.LogCaptureFixture) -> None:
    class Raises(Counted):
        def _work(self) -> bool:
            super()._work()
            raise RuntimeError("step")

    worker = Worker()
    bad, good = Raises(), Counted()
    worker.add(bad)
    worker.add(good)
    wait_for(lambda: bad.steps >= 2 and good.steps >= 2, "two steps of each")
    assert any("learning step raised" in record.getMessage() for record in list(caplog.records))
    worker.close()
    wait_for(lambda: not worker.alive, "the end of the thread")


def test_closed_worker_starts_no_thread() -> None:
    worker = Worker()
    worker.close()
    served = Counted()
    worker.add(served)
    assert not worker.alive


# -- collection --------------------------------------------------------------------------------------------

def test_cache_is_collected_while_its_thread_lives() -> None:
    other = threaded()      # keeps the thread alive
    cache = threaded()
    cache[1] = 1
    gone = weakref.ref(cache)
    del cache
    wait_for(lambda: gc.collect() is not None and gone() is None, "the end of the cache")
    assert WORKER.alive
    del other


def test_cache_in_a_cycle_with_its_values_keys_and_callback_is_collected() -> None:
    class Node:
        def __init__(self, cache: Any) -> None:
            self.cache = cache

        def told(self, *what: object) -> None: ...

    cache = threaded()
    node = Node(cache)
    cache[node] = node
    cache["told"] = node.told
    watched = weakref.ref(cache), weakref.ref(node)
    del cache, node
    wait_for(lambda: gc.collect() is not None and not any(ref() for ref in watched), "the end of the cycle")


def test_callback_bound_to_the_caches_owner_is_collected_with_it() -> None:
    class Service:
        def __init__(self) -> None:
            self.cache = threaded(on_removal=self.told)
            self.cache[1] = self

        def told(self, *what: object) -> None: ...

    watched = weakref.ref(Service())
    wait_for(lambda: gc.collect() is not None and watched() is None, "the end of the service")


def test_cache_with_early_removals_is_collected() -> None:
    """Keys that left early are remembered until their window ends, and not beyond the cache."""
    class Key:
        pass

    now = 0.0
    cache = Cache(None, timer=lambda: now, expiry=Learned(learner="manual", memory_price=1.0, premature=1.0, predictors=()))
    key = Key()
    cache[key] = cache
    now = 0.2
    cache.expire()
    watched = weakref.ref(key), weakref.ref(cache)
    del key, cache
    gc.collect()
    assert [ref() for ref in watched] == [None, None]


# -- many threads and tasks --------------------------------------------------------------------------------

@pytest.mark.parametrize("maxsize", [40, None])
def test_eight_threads_at_once_keep_every_structure_sound(maxsize: float | None) -> None:
    cache = threaded(maxsize, premature=0.05, on_removal=lambda *what: None)
    failures: list[BaseException] = []
    start = threading.Barrier(8)

    def work(number: int) -> None:
        dice = random.Random(number)
        try:
            start.wait()
            for i in range(1500):
                key = dice.randrange(120)
                act = dice.randrange(12)
                if act < 4:
                    value = cache.get(key)
                    assert value is None or value == key
                elif act < 6:
                    cache.set(key, key, cost=dice.choice([1, 2]), namespace=key % 4, features={"kind": str(key % 3)})
                elif act < 8:
                    assert cache.get_or_load(key, lambda k: k) == key
                elif act == 8:
                    cache.pop(key, None)
                elif act == 9:
                    try:
                        del cache[key]
                    except KeyError:
                        pass
                elif act == 10:
                    assert all(k == v for k, v in cache.expire())
                elif i % 20 == 0:
                    assert all(k == v for k, v in cache.items())
                    cache.stats()
                else:
                    len(cache)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not failures and not any(thread.is_alive() for thread in threads)
    cache._check()
    stats = cache.stats()
    assert stats.premature + stats.in_flight <= stats.premature_budget


def test_tasks_share_loads_while_the_thread_learns() -> None:
    cache = threaded(100, premature=0.01)
    loads = 0

    async def load(key: int) -> int:
        nonlocal loads
        loads += 1
        await asyncio.sleep(0)
        return key

    async def client(number: int) -> None:
        dice = random.Random(number)
        for _ in range(100):
            key = dice.randrange(30)
            assert await cache.aget_or_load(key, load) == key

    async def main() -> None:
        await asyncio.gather(*(client(n) for n in range(20)))

    asyncio.run(main())
    stats = cache.stats()
    assert stats.loads == loads < 2000
    cache._check()


# -- whole processes ---------------------------------------------------------------------------------------

SERVE = """
import threading, time, sys, os, random
from adaptcache import Cache, Learned
from adaptcache.learn.worker import WORKER
def fast(): return time.monotonic() * 2000
def new(**more):
    options = dict(memory_price=0.05, premature=1.0, predictors=("table", "river")) | more
    return Cache(None, timer=fast, expiry=Learned(**options))
def ask(cache, n=300):
    for i in range(n):
        key = random.randrange(100)
        if cache.get(key) is None:
            cache[key] = key
def wait_for(condition, what, act=lambda: None):
    deadline, pause = time.monotonic() + 30, threading.Event()
    while not condition():
        act()
        if time.monotonic() > deadline:
            sys.exit(what + " did not come")
        pause.wait(0.005)
"""


def run(script: str, *, before: str = "") -> float:
    """Run a script to its end; how long that took. It must end well and say nothing."""
    began = time.monotonic()
    # Forking beside a thread is what is tested here; 3.12 and later warn about it.
    done = subprocess.run([sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c", before + SERVE + script],
                          capture_output=True, text=True, timeout=60, env=_env())
    assert (done.returncode, done.stderr) == (0, ""), done.stderr or done.returncode
    return time.monotonic() - began


def _env() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(part for part in sys.path if part)}


def test_interpreter_exits_cleanly_and_at_once_with_a_live_learner() -> None:
    run("""
cache = new()
ask(cache)
wait_for(lambda: cache.brain.labels > 100, "labels", lambda: ask(cache))
assert WORKER.alive and WORKER._thread.daemon
ended = time.monotonic()
""", before="""
import atexit
# Registered before all other handlers, so run after them.
@atexit.register
def late():
    assert not WORKER.alive
    assert time.monotonic() - ended < 10
""")


@pytest.mark.parametrize("attempt", range(2))
def test_interpreter_exits_cleanly_in_the_middle_of_learning(attempt: int) -> None:
    run(f"""
caches = [new() for _ in range(4)]
for cache in caches:
    ask(cache, 1500 + 500 * {attempt})
wait_for(lambda: caches[0]._trainer.learned > 30 * {attempt}, "learning", lambda: ask(caches[0]))
""")


def test_interpreter_does_not_wait_for_a_model_that_hangs() -> None:
    took = run("""
inside = threading.Event()
class Hangs:
    def learn(self, x, y): ...
    def predict(self, x):
        inside.set()
        threading.Event().wait()
cache = new(predictors=(Hangs(),))
for key in range(6_000):        # a question about a wait that is over is not asked any more
    cache[key] = key
    if inside.wait(0.005):
        break
assert inside.is_set()
""")
    assert took < 15


def test_interpreter_exits_cleanly_when_the_cache_is_a_global_in_a_cycle() -> None:
    run("""
cache = new()
cache[1] = cache
cache.itself = cache
ask(cache)
""")


def test_no_thread_is_left_when_every_cache_is_gone() -> None:
    run("""
cache = new()
ask(cache)
assert WORKER.alive
del cache
wait_for(lambda: not WORKER.alive, "the end of the thread")
assert threading.active_count() == 1
""")


def test_child_of_a_fork_learns_on() -> None:
    run("""
cache = new()
wait_for(lambda: cache.brain.labels > 50, "labels", lambda: ask(cache))
held = len(cache)
pid = os.fork()
if pid == 0:
    try:
        assert WORKER.alive and threading.active_count() == 2
        before = cache.brain.labels
        wait_for(lambda: cache.brain.labels > before + 500, "labels in the child", lambda: ask(cache))
        cache._check()
        os._exit(0)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)
_, status = os.waitpid(pid, 0)
assert os.waitstatus_to_exitcode(status) == 0
before = cache.brain.labels
wait_for(lambda: cache.brain.labels > before, "labels in the parent", lambda: ask(cache))
""")


def test_child_of_a_fork_is_not_stuck_on_a_lock_that_was_held() -> None:
    run("""
cache = new()
ask(cache)
with WORKER._lock:
    pid = os.fork()
    if pid == 0:
        done = threading.Event()
        def work():
            another = new()
            ask(another)
            done.set()
        threading.Thread(target=work, daemon=True).start()
        os._exit(0 if done.wait(10) else 1)
_, status = os.waitpid(pid, 0)
assert os.waitstatus_to_exitcode(status) == 0
""")


def test_child_of_a_fork_without_caches_has_no_thread() -> None:
    run("""
cache = new()
ask(cache)
del cache
pid = os.fork()
if pid == 0:
    os._exit(0 if threading.active_count() == 1 else 1)
_, status = os.waitpid(pid, 0)
assert os.waitstatus_to_exitcode(status) == 0
""")


def test_pool_of_forked_processes_serves_and_ends() -> None:
    run("""
import multiprocessing
cache = new()
ask(cache)
def job(number):
    ask(cache)
    wait_for(lambda: WORKER.alive, "the child's thread")
    return cache.stats().misses > 0
with multiprocessing.get_context("fork").Pool(2) as pool:
    assert all(pool.map(job, range(4)))
""")


def test_loggers_are_quiet_when_nothing_goes_wrong(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "adaptcache")
    cache = threaded()
    for key in range(300):
        cache[key % 50] = key
    wait_for(lambda: cache._counters()["expirations"] > 10, "removals")
    assert not [record for record in caplog.records if record.name == "adaptcache"]


def test_learner_that_falls_behind_follows_fewer_keys_and_loses_no_more_events() -> None:
    now = [0.0]
    cache = Cache(None, expiry=Learned(memory_price=0.01, seed=4), timer=lambda: now[0])
    WORKER.discard(cache)           # this test is the worker
    lost = []
    for _ in range(6):
        before = cache._counters()["events_lost"]
        for request in range(20_000):
            now[0] += 0.001
            cache.get_or_load(request % 1_000, lambda key: key, cost=1.0)
        lost.append(cache._counters()["events_lost"] - before)
        while cache._learn(512):
            pass
        cache._pace(False)
    assert lost[0] > 0 and lost[-1] == 0
    assert 0 < cache.brain.tracked < 700, "a fair sample of the keys is still followed"
    cache._check()
    now[0] += 1e5                   # a thousand break-even times
    while cache._learn(512):
        pass
    assert len(cache) == 0, "keys that nobody follows are let go all the same"


def told(**more: Any) -> tuple[Cache, list[float]]:
    """A cache whose worker is the test, and its clock; entries break even after 100 seconds."""
    now = [1000.0]
    cache = Cache(None, expiry=Learned(memory_price=0.01, seed=4, **more), timer=lambda: now[0])
    WORKER.discard(cache)
    return cache, now


def read(cache: Cache) -> None:
    while cache._learn(512):
        pass


def test_requests_of_a_hot_key_are_told_together_and_all_of_them_count() -> None:
    """The learner knows the same of a key, and has charged and credited the same, whether it heard of each request or not."""
    seen = []
    for apart in (0.01, 0.3):       # a slice is 0.13 seconds long: many in one, and each in its own
        cache, now = told(predictors=("table",))
        cache.set("hot", 1, cost=1.0, namespace="n")
        for _ in range(40):
            for _ in range(10):
                now[0] += apart
                assert cache.get("hot") == 1
            now[0] += 9 - 10 * apart
            read(cache)
        now[0] += 1
        cache.get("hot")
        read(cache)
        seen.append((cache._counters()["protected"], cache.brain.labels, cache.explain("hot").features["log_count"],
                     np.frombuffer(cache.brain.namespace(1)[0], np.dtype(_core.KINDS["cell"]))["n"].sum() > 0))
        cache._check()
    (hits, labels, count, _), (same_hits, same_labels, same_count, _) = seen
    assert hits == same_hits == 401 and abs(labels - same_labels) <= 2 and labels > 395
    assert count == pytest.approx(same_count, abs=0.6)


def test_few_events_tell_of_many_requests() -> None:
    cache, now = told()
    cache.set("hot", 1, cost=1.0)
    for _ in range(30_000):         # more than the ring holds
        now[0] += 0.001
        cache.get("hot")
    assert cache._counters()["events_lost"] == 0
    read(cache)
    assert cache.brain.labels > 29_000


def test_requests_that_were_not_told_yet_are_told_with_the_end_of_the_entry() -> None:
    cache, _ = told()
    cache.set("hot", 1, cost=1.0)
    for _ in range(100):
        cache.get("hot")
    read(cache)
    assert cache.brain.labels == 0
    del cache["hot"]
    read(cache)
    assert cache.brain.labels == 101


def test_a_key_that_is_asked_for_is_followed_also_when_its_first_event_was_lost() -> None:
    cache, now = told()
    for key in range(10_000):       # the ring holds 8192
        cache.set(key, key, cost=2.0)
    read(cache)
    assert cache.brain.tracked < 8_200
    now[0] += 1
    cache.get(0)
    read(cache)
    assert cache._explain(0)["followed"] and cache.explain(0).cost == 2.0


def test_entries_that_nobody_follows_are_let_go_by_a_thread_too() -> None:
    """Their verdicts are shared by context, and each still has its own threshold: that one is held holds no other."""
    cache, now = told(premature=1.0)
    for key in range(4000):
        cache.set(key, key, cost=1.0)
    read(cache)
    while cache.brain.tracked > 256:
        cache._pace(True)
    for key in range(4000, 7000):
        cache.set(key, key, cost=1.0)
    read(cache)
    assert cache.brain.tracked < 512
    left = []
    for _ in range(25):
        now[0] += 10
        read(cache)
        left.append(len(cache))
    assert left[0] > 6000
    assert left[10] < 500, "soon after the break-even time they are gone"
    assert left[-1] == 0
    cache._check()


class Greedy:
    """A cache that always has more to read."""

    def __init__(self) -> None:
        self.spent, self.slower = 0.0, False

    def _work(self) -> bool:
        began = time.thread_time()
        while time.thread_time() - began < 0.005:
            pass
        self.spent += time.thread_time() - began
        return True

    def _train(self) -> None:
        self._work()

    def _pace(self, slower: bool) -> None:
        self.slower = self.slower or slower

    def _forked(self) -> None: ...


def test_worker_keeps_to_its_allowances_however_much_there_is_to_do() -> None:
    worker, cache = Worker(), Greedy()
    worker.add(cache)
    began = time.monotonic()
    while not cache.slower and time.monotonic() < began + 60:
        time.sleep(0.05)
    worker.close()
    passed = time.monotonic() - began
    # Either may overdraw by the piece that it is in; time that passes more slowly only allows for more.
    allowed = (EVENTS + TRAINING) * passed + 2 * SAVED + 2 * 0.01
    assert cache.slower and 0 < cache.spent <= allowed


def test_worker_that_is_behind_looks_less_often_before_it_follows_next_to_nobody() -> None:
    cache, now = told()
    for key in range(4_000):
        cache.set(key, key, cost=1.0)
    read(cache)
    tracked = []
    for _ in range(10):
        cache._pace(True)
        tracked.append(cache.brain.tracked)
    assert tracked[0] < 4_000 and 100 < tracked[-1] <= 256 and tracked[-1] == tracked[-3]
    now[0] += 1000
    read(cache)
    assert len(cache) == 0, "and lets go of all of them in the end"


def test_learner_with_leisure_follows_all_keys_again() -> None:
    now = [0.0]
    cache = Cache(None, expiry=Learned(memory_price=0.01, seed=4), timer=lambda: now[0])
    WORKER.discard(cache)
    for slower in [True] * 3 + [False] * 100:
        cache._pace(slower)
    for key in range(1_000):
        cache[key] = key
    while cache._learn(512):
        pass
    assert cache.brain.tracked == 1_000


def test_request_is_served_what_the_thread_has_not_let_go_yet() -> None:
    now = [0.0]
    told: list[Any] = []
    cache = Cache(None, expiry=Learned(memory_price=0.01, ceiling=5e4, seed=4), timer=lambda: now[0],
                  on_removal=lambda key, value, cause, at: told.append((key, cause, at)))
    WORKER.discard(cache)           # this test is the worker
    cache.set("served", 1, cost=1.0)
    cache.set("let go", 2, cost=1.0)
    now[0] = 1e4                    # a hundred break-even times: either is overdue
    assert "served" in cache and cache.get("served") == 1 and not told
    while cache._learn(512):
        pass
    assert [key for key, _, _ in told] == ["let go"] and list(cache) == ["served"]
    cache.set("over", 3, cost=1.0, ttl=10)
    now[0] += 10                    # the ceiling waits for no thread
    assert cache.get("over") is None and told[-1] == ("over", Cause.EXPIRED, now[0])
    assert cache.stats().premature == 0
    cache._check()
