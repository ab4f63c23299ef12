"""What a caller may rely on when others ask for the same key at the same time.

Nothing here sleeps: `enrolled` hands out a ticket for every caller that has begun to wait.
"""
import asyncio
import contextlib
import gc
import math
import os
import pickle
import queue
import signal
import sys
import threading
import warnings
import weakref
from functools import partial

import pytest

import adaptcache
from adaptcache import flights as module
from adaptcache.errors import AdaptcacheError, RecursiveLoadError
from adaptcache.flights import MISSING, Flights

PATIENCE = 20  # seconds until a hang is called one


class Call:
    """A function that runs in a thread of its own."""

    def __init__(self, function):
        self.function = function
        self.value = self.error = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        try:
            self.value = self.function()
        except BaseException as error:
            self.error = error

    def join(self):
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive(), "hangs"
        return self

    def result(self):
        self.join()
        if self.error is not None:
            raise self.error
        return self.value


class Held:
    """A loader that says when it started, and goes on when it is let."""

    def __init__(self, outcome):
        self.outcome = outcome
        self.calls = 0
        self.started = threading.Event()
        self.go = threading.Event()

    def __call__(self):
        self.calls += 1
        self.started.set()
        assert self.go.wait(PATIENCE)
        return self.finish()

    async def awaited(self):
        self.calls += 1
        self.started.set()
        while not self.go.is_set():
            await asyncio.sleep(0)
        return self.finish()

    def finish(self):
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


class Stored(list):
    def __call__(self, value, seconds):
        assert seconds >= 0
        self.append(value)


def never():
    raise AssertionError("a waiter loaded")


async def anever():
    never()


@pytest.fixture
def flights():
    flights = Flights()
    yield flights
    assert not flights, "a flight is left in the air"
    assert len(flights) == 0
    assert not module._blocked
    assert module._current.get() is None


@pytest.fixture
def stored():
    return Stored()


@pytest.fixture
def enrolled(monkeypatch):
    """A queue with one item for every caller that waits from now on."""
    tickets = queue.Queue()
    enrol = module._enrol

    def enrol_and_tell(flight, *args, **kwargs):
        try:
            return enrol(flight, *args, **kwargs)
        finally:
            tickets.put(flight.key)

    monkeypatch.setattr(module, "_enrol", enrol_and_tell)

    def wait(number=1):
        for _ in range(number):
            tickets.get(timeout=PATIENCE)

    return wait


@pytest.fixture
def quick_patrol(monkeypatch):
    monkeypatch.setattr(module, "PATROL_SECONDS", 0.01)


@contextlib.contextmanager
def running_loop():
    """An event loop that runs in another thread."""
    loop = asyncio.new_event_loop()
    thread = Call(loop.run_forever)
    try:
        yield loop
    finally:
        if not loop.is_closed():
            if loop.is_running():
                loop.call_soon_threadsafe(loop.stop)
            thread.join()
            for task in (pending := asyncio.all_tasks(loop)):
                task.cancel()
            if pending:
                loop.run_until_complete(asyncio.wait(pending))
            loop.close()


def submit(loop, coroutine):
    return asyncio.run_coroutine_threadsafe(coroutine, loop)


# One loader call


def test_a_lone_load_returns_and_stores_the_value_once(flights, stored):
    assert flights.load("k", lambda: 1, stored) == 1
    assert stored == [1]


def test_a_lone_async_load_returns_and_stores_the_value_once(flights, stored):
    async def loader():
        return 1

    assert asyncio.run(flights.aload("k", loader, stored)) == 1
    assert stored == [1]


def test_seconds_are_the_time_of_the_loader(flights, monkeypatch):
    ticks = iter([10.0, 12.5])
    monkeypatch.setattr(module, "perf_counter", lambda: next(ticks))
    measured = []
    flights.load("k", lambda: None, lambda value, seconds: measured.append((value, seconds)))
    assert measured == [(None, 2.5)]


def test_threads_asking_for_one_key_share_one_loader_call(flights, stored, enrolled):
    loader = Held(object())
    leader = Call(lambda: flights.load("k", loader, stored))
    assert loader.started.wait(PATIENCE)
    waiters = [Call(lambda: flights.load("k", never, stored)) for _ in range(5)]
    enrolled(5)
    loader.go.set()
    assert {id(call.result()) for call in [leader, *waiters]} == {id(loader.outcome)}
    assert loader.calls == 1
    assert stored == [loader.outcome]


def test_tasks_asking_for_one_key_share_one_loader_call(flights, stored):
    loader = Held("v")
    loader.go.set()

    async def main():
        return await asyncio.gather(*(flights.aload("k", loader.awaited, stored) for _ in range(5)))

    assert asyncio.run(main()) == ["v"] * 5
    assert loader.calls == 1
    assert stored == ["v"]


def test_keys_load_side_by_side(flights, stored):
    meet = threading.Barrier(2)
    calls = [Call(partial(flights.load, key, lambda: meet.wait(PATIENCE), stored)) for key in "ab"]
    assert sorted(call.result() for call in calls) == [0, 1]


def test_keys_of_equal_hash_load_side_by_side(flights, stored):
    class Key:
        def __hash__(self):
            return 1

    meet = threading.Barrier(2)
    calls = [Call(partial(flights.load, Key(), lambda: meet.wait(PATIENCE), stored)) for _ in range(2)]
    assert sorted(call.result() for call in calls) == [0, 1]


def test_equal_keys_are_one_key(flights, stored, enrolled):
    loader = Held("v")
    leader = Call(lambda: flights.load(1, loader, stored))
    assert loader.started.wait(PATIENCE)
    waiter = Call(lambda: flights.load(1.0, never, stored))
    enrolled()
    loader.go.set()
    assert (leader.result(), waiter.result()) == ("v", "v")


def test_storing_comes_before_waking(flights, enrolled):
    loader, order = Held("v"), []
    leader = Call(lambda: flights.load("k", loader, lambda value, seconds: order.append("stored")))
    assert loader.started.wait(PATIENCE)
    waiter = Call(lambda: (flights.load("k", never, order.append), order.append("woke")))
    enrolled()
    loader.go.set()
    leader.join()
    waiter.join()
    assert order == ["stored", "woke"]


def test_a_value_that_landed_before_joining_is_not_loaded_again(flights, stored):
    assert flights.load("k", never, stored, recheck=lambda: "landed") == "landed"
    assert asyncio.run(flights.aload("k", anever, stored, recheck=lambda: None)) is None
    assert stored == []


def test_recheck_that_finds_nothing_loads(flights, stored):
    assert flights.load("k", lambda: 1, stored, recheck=lambda: MISSING) == 1
    assert stored == [1]


def test_many_threads_never_load_one_key_twice(flights):
    """The race between a miss and joining, closed by `recheck`."""
    cache, loads = {}, []
    start = threading.Barrier(8)

    def get_or_load(key):
        value = cache.get(key, MISSING)
        if value is not MISSING:
            return value
        return flights.load(
            key,
            lambda: loads.append(key) or -key,
            lambda value, seconds: cache.__setitem__(key, value),
            lambda: cache.get(key, MISSING),
        )

    def ask():
        for key in range(200):
            start.wait(PATIENCE)
            assert get_or_load(key) == -key

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        calls = [Call(ask) for _ in range(8)]
        for call in calls:
            call.result()
    finally:
        sys.setswitchinterval(interval)
    assert sorted(loads) == list(range(200))


# Threads and event loops together


def test_a_thread_waits_for_a_load_led_by_a_task(flights, stored, enrolled):
    loader = Held("v")
    with running_loop() as loop:
        leader = submit(loop, flights.aload("k", loader.awaited, stored))
        enrolled()  # the leading caller waits for its own task
        assert loader.started.wait(PATIENCE)
        waiter = Call(lambda: flights.load("k", never, stored))
        enrolled()
        loader.go.set()
        assert (leader.result(PATIENCE), waiter.result()) == ("v", "v")
    assert stored == ["v"]


def test_a_task_waits_for_a_load_led_by_a_thread_and_its_loop_goes_on(flights, stored):
    loader = Held("v")

    async def main():
        waiter = asyncio.create_task(flights.aload("k", anever, stored))
        await asyncio.sleep(0)
        assert not waiter.done()
        loader.go.set()  # reached only because the loop is not blocked
        return await waiter

    leader = Call(lambda: flights.load("k", loader, stored))
    assert loader.started.wait(PATIENCE)
    assert asyncio.run(main()) == "v"
    assert leader.result() == "v"


def test_tasks_of_different_loops_share_one_load(flights, stored, enrolled):
    loader = Held("v")
    with running_loop() as one, running_loop() as other:
        leader = submit(one, flights.aload("k", loader.awaited, stored))
        enrolled()
        assert loader.started.wait(PATIENCE)
        waiter = submit(other, flights.aload("k", anever, stored))
        enrolled()
        loader.go.set()
        assert (leader.result(PATIENCE), waiter.result(PATIENCE)) == ("v", "v")
    assert stored == ["v"]


def test_a_closed_loop_of_a_waiter_does_not_disturb_the_others(flights, stored, enrolled):
    loader = Held("v")
    leader = Call(lambda: flights.load("k", loader, stored))
    assert loader.started.wait(PATIENCE)
    doomed = asyncio.new_event_loop()
    task = doomed.create_task(flights.aload("k", anever, stored))
    doomed.run_until_complete(asyncio.sleep(0))
    enrolled()
    doomed.close()
    waiter = Call(lambda: flights.load("k", never, stored))
    enrolled()
    loader.go.set()
    assert (leader.result(), waiter.result()) == ("v", "v")
    task._log_destroy_pending = False


# Failure


def test_the_exception_of_a_loader_reaches_every_waiter_and_the_next_call_loads_again(flights, stored, enrolled):
    loader = Held(LookupError("gone"))
    leader = Call(lambda: flights.load("k", loader, stored))
    assert loader.started.wait(PATIENCE)
    waiters = [Call(lambda: flights.load("k", never, stored)) for _ in range(3)]
    enrolled(3)
    loader.go.set()
    assert all(call.join().error is loader.outcome for call in [leader, *waiters])
    assert stored == []
    assert flights.load("k", lambda: "v", stored) == "v"


def test_the_exception_of_an_async_loader_reaches_tasks_and_threads(flights, stored, enrolled):
    loader = Held(LookupError("gone"))
    with running_loop() as loop:
        calls = [submit(loop, flights.aload("k", loader.awaited, stored)) for _ in range(3)]
        enrolled(3)
        waiter = Call(lambda: flights.load("k", never, stored))
        enrolled()
        loader.go.set()
        assert all(call.exception(PATIENCE) is loader.outcome for call in calls)
        assert waiter.join().error is loader.outcome
    assert loader.calls == 1
    assert stored == []


def test_the_exception_of_store_reaches_every_waiter(flights, enrolled):
    loader, refusal = Held("v"), ValueError("no")

    def refuse(value, seconds):
        raise refusal

    leader = Call(lambda: flights.load("k", loader, refuse))
    assert loader.started.wait(PATIENCE)
    waiter = Call(lambda: flights.load("k", never, refuse))
    enrolled()
    loader.go.set()
    assert leader.join().error is waiter.join().error is refusal


def test_the_traceback_of_a_shared_exception_does_not_grow_with_its_waiters(flights, stored, enrolled):
    loader = Held(LookupError("gone"))
    calls = [Call(lambda: flights.load("k", loader, stored))]
    assert loader.started.wait(PATIENCE)
    for _ in range(20):
        calls.append(Call(lambda: flights.load("k", never, stored)))
    enrolled(20)
    loader.go.set()
    for call in calls:
        call.join()
    depth, traceback = 0, loader.outcome.__traceback__
    while traceback is not None:
        depth, traceback = depth + 1, traceback.tb_next
    assert depth < 12


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError])
def test_an_interrupted_leader_leaves_the_load_to_a_waiter(flights, stored, enrolled, kind):
    loader = Held(kind())
    leader = Call(lambda: flights.load("k", loader, stored))
    assert loader.started.wait(PATIENCE)
    waiters = [Call(lambda: flights.load("k", lambda: "mine", stored)) for _ in range(3)]
    enrolled(3)
    loader.go.set()
    assert leader.join().error is loader.outcome
    assert [call.result() for call in waiters] == ["mine"] * 3
    assert 1 <= len(stored) <= 3  # never at the same time, but a waiter may wake after a load has ended


@pytest.mark.parametrize("kind", [GeneratorExit, asyncio.CancelledError])
def test_an_async_loader_that_interrupts_itself_leaves_the_load_to_a_waiter(flights, stored, kind):
    async def main():
        async def interrupted():
            await asyncio.sleep(0)
            raise kind

        async def loader():
            return "mine"

        leader = asyncio.create_task(flights.aload("k", interrupted, stored))
        await asyncio.sleep(0)
        waiter = asyncio.create_task(flights.aload("k", loader, stored))
        assert await waiter == "mine"
        with pytest.raises(kind):
            await leader

    asyncio.run(main())
    assert stored == ["mine"]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_async_loader_that_ends_its_loop_leaves_the_load_to_other_threads(flights, stored, enrolled, kind):
    loader = Held(kind())
    leader = Call(lambda: asyncio.run(flights.aload("k", loader.awaited, stored)))
    enrolled()
    assert loader.started.wait(PATIENCE)
    waiter = Call(lambda: flights.load("k", lambda: "mine", stored))
    enrolled()
    loader.go.set()
    assert waiter.result() == "mine"
    assert isinstance(leader.join().error, kind)


def test_a_task_factory_that_fails_leaves_nothing_in_the_air(flights, stored):
    def refuse(loop, coroutine, **kwargs):
        raise OSError("no more tasks")

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_task_factory(refuse)
        try:
            with pytest.raises(OSError, match="no more tasks"):
                await flights.aload("k", anever, stored)
        finally:
            loop.set_task_factory(None)

    asyncio.run(main())


def test_eager_tasks_work(flights, stored):
    async def loader():
        return "v"

    async def fails():
        raise LookupError

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_task_factory(getattr(asyncio, "eager_task_factory", None))
        assert await asyncio.gather(*(flights.aload("k", loader, stored) for _ in range(3))) == ["v"] * 3
        with pytest.raises(LookupError):
            await flights.aload("k", fails, stored)

    asyncio.run(main())


# Cancellation and loops that go away


def test_cancelling_the_first_caller_does_not_disturb_the_others(flights, stored):
    loader = Held("v")

    async def main():
        first = asyncio.create_task(flights.aload("k", loader.awaited, stored))
        await asyncio.sleep(0)
        others = [asyncio.create_task(flights.aload("k", anever, stored)) for _ in range(2)]
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        loader.go.set()
        assert await asyncio.gather(*others) == ["v", "v"]

    asyncio.run(main())
    assert loader.calls == 1
    assert stored == ["v"]


def test_cancelling_a_waiter_cancels_only_that_waiter(flights, stored):
    loader = Held("v")

    async def main():
        first, second, third = (asyncio.create_task(flights.aload("k", loader.awaited, stored)) for _ in range(3))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        loader.go.set()
        assert await asyncio.gather(first, third) == ["v", "v"]

    asyncio.run(main())


def test_a_load_that_every_caller_left_is_let_finish_and_stored(flights):
    async def main():
        stored = asyncio.get_running_loop().create_future()
        answers = []

        async def loader():
            answer = asyncio.get_running_loop().create_future()
            answers.append(weakref.ref(answer))  # nothing but the load itself holds what it waits for
            return await answer

        calls = [
            asyncio.create_task(flights.aload("k", loader, lambda value, seconds: stored.set_result(value)))
            for _ in range(2)
        ]
        while not answers:
            await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        calls.clear()
        gc.collect()
        answers[0]().set_result("v")
        assert await stored == "v"

    asyncio.run(main())


def test_a_failure_that_no_caller_is_left_to_hear_is_reported_to_the_loop(flights, stored):
    loader, reports = Held(LookupError("gone")), []

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: reports.append(context["exception"]))
        call = asyncio.create_task(flights.aload("k", loader.awaited, stored))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])
        loader.go.set()
        while flights:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        gc.collect()

    asyncio.run(main())
    assert reports == [loader.outcome]


@pytest.mark.parametrize("from_thread", [True, False], ids=["thread", "loop"])
def test_a_load_cancelled_with_its_loop_is_taken_over(flights, stored, enrolled, from_thread):
    """`asyncio.run` that ends cancels the load with all other tasks."""
    loader = Held("never")

    async def mine():
        return "mine"

    def ask():
        if from_thread:
            return flights.load("k", lambda: "mine", stored)
        return asyncio.run(flights.aload("k", mine, stored))

    async def main():
        call = asyncio.create_task(flights.aload("k", loader.awaited, stored))
        while not waiting.is_set():
            await asyncio.sleep(0)
        assert not call.done()

    waiting = threading.Event()
    first = Call(lambda: asyncio.run(main()))
    enrolled()
    assert loader.started.wait(PATIENCE)
    waiter = Call(ask)
    enrolled()
    waiting.set()
    first.result()
    assert waiter.result() == "mine"
    assert stored == ["mine"]


def test_a_load_cancelled_before_its_first_step_does_not_hang(flights, stored):
    async def main():
        call = asyncio.create_task(flights.aload("k", anever, stored))
        await asyncio.sleep(0)
        (load,) = asyncio.all_tasks() - {asyncio.current_task(), call}
        load.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(main())


@pytest.mark.parametrize("from_thread", [True, False], ids=["thread", "loop"])
@pytest.mark.parametrize("closed", [True, False], ids=["closed", "stopped"])
def test_a_load_whose_loop_stops_without_a_word_is_taken_over(
    flights, stored, enrolled, quick_patrol, closed, from_thread
):
    loader = Held("never")

    async def mine():
        return "mine"

    with running_loop() as loop:
        submit(loop, flights.aload("k", loader.awaited, stored))
        enrolled()
        assert loader.started.wait(PATIENCE)
        waiters = [
            Call(lambda: flights.load("k", lambda: "mine", stored))
            if from_thread
            else Call(lambda: asyncio.run(flights.aload("k", mine, stored)))
            for _ in range(2)
        ]
        enrolled(2)
        tasks = asyncio.all_tasks(loop)
        loop.call_soon_threadsafe(loop.stop)
        while loop.is_running():
            pass
        if closed:
            for task in tasks:
                task._log_destroy_pending = False
            loop.close()
        assert [waiter.result() for waiter in waiters] == ["mine", "mine"]
    assert "never" not in stored


def test_a_load_whose_loop_stood_still_gives_way_to_the_one_that_took_over(flights, monkeypatch):
    """Who finds it so takes over at once. The old load goes on when its loop does, but is not stored."""
    monkeypatch.setattr(module, "PATROL_SECONDS", 1_000)
    loader, loop = Held("old"), asyncio.new_event_loop()
    cache = {}
    call = loop.create_task(
        flights.aload("k", loader.awaited, cache.__setitem__, lambda: cache.get("k", MISSING))
    )
    loop.run_until_complete(asyncio.sleep(0))
    loop.run_until_complete(asyncio.sleep(0))
    assert loader.started.is_set()
    assert flights.load("k", lambda: "new", lambda value, seconds: cache.__setitem__("k", value)) == "new"
    loader.go.set()
    assert loop.run_until_complete(call) in ("old", "new")
    while pending := asyncio.all_tasks(loop):
        loop.run_until_complete(asyncio.wait(pending))
    loop.close()
    assert cache == {"k": "new"}


# Loads that would wait for themselves


def test_a_loader_that_asks_for_its_own_key_is_told_so(flights, stored):
    with pytest.raises(RecursiveLoadError, match="'the key'") as caught:
        flights.load("the key", lambda: flights.load("the key", never, stored), stored)
    assert isinstance(caught.value, RuntimeError)
    assert isinstance(caught.value, AdaptcacheError)
    assert caught.value.key == "the key"
    assert stored == []


def test_the_error_survives_pickling_and_a_key_without_repr():
    class Key:
        def __repr__(self):
            raise LookupError

    assert "Key" in str(RecursiveLoadError(Key()))
    assert str(pickle.loads(pickle.dumps(RecursiveLoadError("k")))) == str(RecursiveLoadError("k"))


def test_a_loader_that_asks_for_its_own_key_through_others_is_told_so(flights, stored):
    def load(key):
        return flights.load(key, lambda: load((key + 1) % 3), stored)

    with pytest.raises(RecursiveLoadError):
        load(0)


def test_recursion_is_found_across_caches(flights, stored):
    other = Flights()
    with pytest.raises(RecursiveLoadError):
        flights.load("k", lambda: other.load("k", lambda: flights.load("k", never, stored), stored), stored)
    assert not other


def test_an_async_loader_that_asks_for_its_own_key_is_told_so(flights, stored):
    async def load(key):
        async def loader():
            return await load((key + 1) % 3)

        return await flights.aload(key, loader, stored)

    with pytest.raises(RecursiveLoadError):
        asyncio.run(load(0))


def test_recursion_through_a_task_or_a_thread_of_the_load_is_found(flights, stored):
    async def through_task():
        return await asyncio.create_task(flights.aload("k", anever, stored))

    async def through_thread():
        return await asyncio.to_thread(flights.load, "k", never, stored)

    for loader in (through_task, through_thread):
        with pytest.raises(RecursiveLoadError):
            asyncio.run(flights.aload("k", loader, stored))


def test_recursion_through_a_new_event_loop_is_found(flights, stored):
    with pytest.raises(RecursiveLoadError):
        flights.load("k", lambda: asyncio.run(flights.aload("k", anever, stored)), stored)


def test_recursion_is_found_without_the_context(flights, stored):
    """A signal handler or finalizer may run on the loading thread in any context."""
    import contextvars

    with pytest.raises(RecursiveLoadError):
        flights.load("k", lambda: contextvars.Context().run(flights.load, "k", never, stored), stored)


def test_other_keys_may_be_loaded_inside_a_load(flights, stored):
    def fib(n):
        return flights.load(n, lambda: n if n < 2 else fib(n - 1) + fib(n - 2), stored)

    assert fib(12) == 144


def test_a_caught_recursion_does_not_spoil_the_load(flights, stored):
    def loader():
        with pytest.raises(RecursiveLoadError):
            flights.load("k", never, stored)
        return "v"

    assert flights.load("k", loader, stored) == "v"


@pytest.mark.parametrize("length", [2, 3])
def test_threads_that_would_wait_for_each_other_are_told_so(flights, stored, length):
    meet = threading.Barrier(length)

    def ask(key):
        def loader():
            meet.wait(PATIENCE)
            return flights.load((key + 1) % length, never, stored)

        return flights.load(key, loader, stored)

    calls = [Call(partial(ask, key)) for key in range(length)]
    errors = [call.join().error for call in calls]
    assert all(isinstance(error, RecursiveLoadError) for error in errors)
    assert len({id(error) for error in errors}) == 1  # raised in one of them, handed to those that wait for it


def test_tasks_that_would_wait_for_each_other_are_told_so(flights, stored):
    async def main():
        meet = [asyncio.Event(), asyncio.Event()]

        async def ask(key):
            async def loader():
                meet[key].set()
                await meet[1 - key].wait()
                return await flights.aload(1 - key, anever, stored)

            return await flights.aload(key, loader, stored)

        return await asyncio.gather(ask(0), ask(1), return_exceptions=True)

    assert [type(error) for error in asyncio.run(main())] == [RecursiveLoadError] * 2


def test_a_thread_and_a_task_that_would_wait_for_each_other_are_told_so(flights, stored):
    both = threading.Barrier(2)

    def sync_loader():
        both.wait(PATIENCE)
        return flights.load("async", never, stored)

    async def async_loader():
        await asyncio.to_thread(both.wait, PATIENCE)
        return await flights.aload("sync", anever, stored)

    calls = [
        Call(lambda: flights.load("sync", sync_loader, stored)),
        Call(lambda: asyncio.run(flights.aload("async", async_loader, stored))),
    ]
    assert [type(call.join().error) for call in calls] == [RecursiveLoadError] * 2


def test_a_cycle_through_a_thread_of_an_async_load_is_told_so(flights, stored, enrolled):
    """a (a task) loads s in a worker thread, s waits for x in another thread, x waits for a."""
    started, ask = threading.Event(), threading.Event()

    def x():
        started.set()
        assert ask.wait(PATIENCE)
        with pytest.raises(RecursiveLoadError):
            flights.load("a", never, stored)
        return "x"

    async def a():
        return await asyncio.to_thread(flights.load, "s", lambda: flights.load("x", never, stored), stored)

    leader = Call(lambda: flights.load("x", x, stored))
    assert started.wait(PATIENCE)
    task = Call(lambda: asyncio.run(flights.aload("a", a, stored)))
    enrolled(2)  # the caller of a, and s
    ask.set()
    assert (leader.result(), task.result()) == ("x", "x")


def test_blocking_the_loop_that_runs_the_load_is_refused(flights, stored):
    loader = Held("v")

    async def main():
        leader = asyncio.create_task(flights.aload("k", loader.awaited, stored))
        await asyncio.sleep(0)
        with pytest.raises(RecursiveLoadError, match="event loop"):
            flights.load("k", never, stored)
        loader.go.set()
        assert await leader == "v"

    asyncio.run(main())


def test_blocking_the_loop_that_runs_the_load_is_refused_through_another_thread(flights, stored, enrolled):
    """The loop blocks on a load of a thread, which then asks for what that loop loads."""
    slow, ask = Held("v"), threading.Event()

    def loader():
        assert ask.wait(PATIENCE)
        with pytest.raises(RecursiveLoadError):
            flights.load("slow", never, stored)
        return "other"

    async def main():
        leader = asyncio.create_task(flights.aload("slow", slow.awaited, stored))
        await asyncio.sleep(0)
        enrolled()
        other = Call(lambda: flights.load("other", loader, stored))
        while len(flights) < 2:
            await asyncio.sleep(0)
        release = Call(lambda: (enrolled(), ask.set()))
        assert flights.load("other", never, stored) == "other"
        release.join()
        slow.go.set()
        assert (other.result(), await leader) == ("other", "v")

    asyncio.run(main())


def test_waiting_without_a_cycle_is_not_refused(flights, stored, enrolled):
    """Two loads that wait for the same third one."""
    third = Held("v")
    leader = Call(lambda: flights.load(3, third, stored))
    assert third.started.wait(PATIENCE)
    calls = [
        Call(partial(flights.load, key, lambda: flights.load(3, never, stored), stored)) for key in (1, 2)
    ]
    enrolled(2)
    third.go.set()
    assert [call.result() for call in [leader, *calls]] == ["v"] * 3


def test_a_task_started_by_a_load_is_free_once_the_load_has_landed(flights, stored):
    async def main():
        landed, tasks = asyncio.Event(), []

        async def later():
            await landed.wait()

            async def again():
                return "again"

            return await flights.aload("k", again, stored)

        async def loader():
            tasks.append(asyncio.create_task(later()))
            return "v"

        assert await flights.aload("k", loader, stored) == "v"
        landed.set()
        assert await tasks[0] == "again"

    asyncio.run(main())


def test_a_task_started_by_a_load_is_free_before_its_waiters_have_woken(flights):
    """The load of g waits for f; when f lands, a task that f started asks for g before g wakes."""

    async def main():
        landed, tasks = asyncio.Event(), []

        async def later():
            await landed.wait()
            return await flights.aload("g", anever, None)

        async def f():
            tasks.append(asyncio.create_task(later()))
            await asyncio.sleep(0)
            return "f"

        async def g():
            return await flights.aload("f", f, lambda value, seconds: landed.set())

        assert await flights.aload("g", g, lambda value, seconds: None) == "f"
        assert await tasks[0] == "f"

    asyncio.run(main())


# Hostile keys


def test_a_key_whose_hash_or_equality_raises_raises_for_its_caller_only(flights, stored):
    class Key:
        def __init__(self, broken=False):
            self.broken = broken

        def __hash__(self):
            return 1

        def __eq__(self, other):
            if self.broken or other.broken:
                raise LookupError("no equality")
            return self is other

    with pytest.raises(TypeError, match="unhashable"):
        flights.load([], never, stored)

    def loader():
        with pytest.raises(LookupError, match="no equality"):
            flights.load(Key(broken=True), never, stored)
        return "v"

    assert flights.load(Key(), loader, stored) == "v"


def test_a_key_may_break_while_its_load_is_in_the_air(flights, stored):
    class Key:
        broken = False

        def __hash__(self):
            if self.broken:
                raise LookupError
            return 1

        def __eq__(self, other):
            raise LookupError

    key = Key()

    def loader():
        key.broken = True
        return "v"

    assert flights.load(key, loader, stored) == "v"


def test_equality_may_load(flights, stored):
    class Key:
        def __hash__(self):
            return 1

        def __eq__(self, other):
            return flights.load("inner", lambda: False, stored)

    assert flights.load(Key(), lambda: flights.load(Key(), lambda: "v", stored), stored) == "v"
    assert stored == [False, "v", "v"]


def test_no_lock_is_held_while_equality_runs(flights, stored):
    """Another thread loads another key of the same hash, start to end, inside the comparison."""

    class Key:
        def __init__(self, meddle=False):
            self.meddle = meddle

        def __hash__(self):
            return 1

        def __eq__(self, other):
            if self.meddle or other.meddle:
                Call(lambda: flights.load(Key(), lambda: "meddled", stored)).result()
            return self is other

    assert flights.load(Key(), lambda: flights.load(Key(meddle=True), lambda: "v", stored), stored) == "v"
    assert stored == ["meddled", "v", "v"]


def test_a_flight_that_departs_during_a_comparison_is_seen(flights, stored, enrolled):
    """The same key is led by another thread while this one compares; then this one must wait."""
    loader = Held("v")

    leaders = []

    class Key:
        def __init__(self, name):
            self.name = name

        def __hash__(self):
            return 1

        def __eq__(self, other):
            if {self.name, other.name} == {"first", "late"} and not leaders:
                leaders.append(Call(lambda: flights.load(Key("same"), loader, stored)))
                assert loader.started.wait(PATIENCE)
            return {self.name, other.name} == {"same", "late"}

    def first():
        waiter = Call(lambda: flights.load(Key("late"), never, stored))
        enrolled()
        loader.go.set()
        return waiter.result()

    assert flights.load(Key("first"), first, stored) == "v"
    assert loader.calls == 1
    assert leaders[0].result() == "v"


def test_a_finalizer_that_interrupts_a_locked_section_loads_for_itself(flights, stored):
    loader = Held("v")
    leader = Call(lambda: flights.load("k", loader, stored))
    assert loader.started.wait(PATIENCE)
    with module._lock:  # what a finalizer would find that runs on a thread inside a section
        assert flights.load("k", lambda: "own", stored) == "own"
    loader.go.set()
    assert leader.result() == "v"


# Forgetting


def test_a_forgotten_load_serves_its_waiters_but_is_not_stored(flights, stored, enrolled):
    loader = Held("old")
    leader = Call(lambda: flights.load("k", loader, stored))
    assert loader.started.wait(PATIENCE)
    waiter = Call(lambda: flights.load("k", never, stored))
    enrolled()
    flights.forget("k")
    assert flights.load("k", lambda: "new", stored) == "new"
    loader.go.set()
    assert (leader.result(), waiter.result()) == ("old", "old")
    assert stored == ["new"]


def test_forgetting_all_covers_async_loads(flights, stored):
    loader = Held("old")

    async def main():
        call = asyncio.create_task(flights.aload("k", loader.awaited, stored))
        await asyncio.sleep(0)
        flights.forget_all()
        loader.go.set()
        assert await call == "old"

    asyncio.run(main())
    assert stored == []


def test_forgetting_what_is_not_in_the_air_does_nothing(flights, stored):
    flights.forget("k")
    flights.load("k", lambda: flights.forget("other"), stored)
    assert stored == [None]


# What is left behind


class Witness:
    """An object whose life shows how long the frame that made it is kept."""


@pytest.fixture
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def failing(seen):
    witness = Witness()
    seen.append(weakref.ref(witness))
    raise LookupError("gone")


def test_an_exception_keeps_no_frame_alive_once_it_is_dropped(flights, stored, no_collector):
    seen = []
    with contextlib.suppress(LookupError):
        flights.load("k", lambda: failing(seen), stored)
    with contextlib.suppress(LookupError):  # through a nested load
        flights.load("k", lambda: flights.load("other", lambda: failing(seen), stored), stored)
    assert [ref() for ref in seen] == [None, None]


def test_a_refused_recursion_keeps_no_frame_alive(flights, stored, no_collector):
    seen = []

    def recurse():
        witness = Witness()
        seen.append(weakref.ref(witness))
        return flights.load("k", never, stored)

    async def arecurse():
        witness = Witness()
        seen.append(weakref.ref(witness))
        return await flights.aload("k", anever, stored)

    async def main():
        with contextlib.suppress(RecursiveLoadError):
            await flights.aload("k", arecurse, stored)

    with contextlib.suppress(RecursiveLoadError):
        flights.load("k", recurse, stored)
    asyncio.run(main())
    assert [ref() for ref in seen] == [None, None]


def test_an_async_exception_keeps_no_frame_alive_once_it_is_dropped(flights, stored, no_collector):
    seen = []

    async def loader():
        failing(seen)

    async def nested():
        return await flights.aload("other", loader, stored)

    async def main():
        for load in (loader, nested):
            with contextlib.suppress(LookupError):
                await flights.aload("k", load, stored)

    asyncio.run(main())
    assert [ref() for ref in seen] == [None, None]


def test_a_waiter_keeps_no_frame_alive(flights, stored, enrolled, no_collector):
    seen, go = [], threading.Event()
    started = threading.Event()

    def loader():
        started.set()
        assert go.wait(PATIENCE)
        failing(seen)

    def ask(load):
        with contextlib.suppress(LookupError):
            flights.load("k", load, stored)

    calls = [Call(partial(ask, loader))]
    assert started.wait(PATIENCE)
    calls += [Call(partial(ask, never)) for _ in range(2)]
    enrolled(2)
    go.set()
    for call in calls:
        call.result()
    assert [ref() for ref in seen] == [None]


def test_a_task_started_by_a_load_does_not_keep_its_value(flights, stored):
    class Value:
        pass

    async def main():
        end, tasks, seen = asyncio.Event(), [], []

        async def loader():
            tasks.append(asyncio.create_task(end.wait()))
            value = Value()
            seen.append(weakref.ref(value))
            return value

        await flights.aload("k", loader, lambda value, seconds: None)
        await asyncio.sleep(0)
        gc.collect()
        assert seen[0]() is None
        end.set()
        await tasks[0]

    asyncio.run(main())


def test_dropped_flights_are_collected():
    flights = Flights()
    gone = weakref.ref(flights)
    flights.load("k", lambda: 1, lambda value, seconds: None)
    del flights
    gc.collect()
    assert gone() is None


def test_a_copy_has_nothing_in_the_air(flights, stored):
    copies = []
    flights.load("k", lambda: copies.append(pickle.loads(pickle.dumps(flights))), stored)
    assert isinstance(copies[0], Flights)
    assert not copies[0]


# Fork


def in_child(check):
    """The exit status of `check` in a forked process: 0 true, 1 false, 2 it raised, else it hung."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # "multi-threaded": that is the point
        pid = os.fork()
    if not pid:
        status = 2
        try:
            signal.alarm(PATIENCE)
            status = 0 if check() else 1
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1]


def test_a_child_does_not_wait_for_a_leader_that_stayed_behind(flights, stored):
    loader = Held("parent")
    leader = Call(lambda: flights.load("k", loader, stored))
    assert loader.started.wait(PATIENCE)
    assert in_child(lambda: flights.load("k", lambda: "child", stored) == "child" and not flights) == 0
    loader.go.set()
    assert leader.result() == "parent"


def test_a_child_forked_while_the_lock_is_held_is_not_stuck(flights, stored):
    held, go = threading.Event(), threading.Event()

    def hold():
        with module._lock:
            held.set()
            assert go.wait(PATIENCE)

    holder = Call(hold)
    assert held.wait(PATIENCE)
    status = in_child(lambda: flights.load("k", lambda: "child", stored) == "child")
    go.set()
    holder.result()
    assert status == 0


def test_a_load_that_forks_goes_on_in_both_processes(flights, stored):
    def loader():
        def recursive():
            with pytest.raises(RecursiveLoadError):  # its own flight came along
                flights.load("k", never, stored)
            return True

        assert in_child(recursive) == 0
        return "v"

    assert flights.load("k", loader, stored) == "v"


# The clock of a cache


@pytest.mark.parametrize("flavour", ["sync", "async"])
@pytest.mark.parametrize("took, cost", [(2.5, 2.5), (0.0, 7.0), (-3.0, 7.0), (math.inf, 7.0), (math.nan, 7.0)])
def test_a_load_is_timed_by_the_timer_of_its_cache(took, cost, flavour):
    """By wall time a manual learner would not be deterministic; a clock that says nothing leaves `miss_cost`."""
    now = [100.0]

    def load(key):
        now[0] += took
        return key

    async def aload(key):
        return load(key)

    cache = adaptcache.Cache(None, timer=lambda: now[0],
                             expiry=adaptcache.Learned(memory_price=0.01, miss_cost=7.0, learner="manual", seed=1))
    if flavour == "sync":
        cache.get_or_load("k", load)
    else:
        asyncio.run(cache.aget_or_load("k", aload))
    assert cache.stats().load_seconds == (took if took == 2.5 else 0.0)
    now[0] = 103.0
    assert cache.explain("k").cost == cost
