"""Several threads on one cache: whatever they do at the same time, every entry is accounted for and every structure whole.

Keys are compared and hashed in Python and give the interpreter away in the middle of it, so that threads meet inside operations.
"""
from __future__ import annotations

import random
import sys
import threading
import time
from collections import Counter

import pytest
from budget import share_of

import adaptcache
from adaptcache import Cache, Fixed, Idle, Learned

THREADS, STEPS, KEYS = 3, max(200, share_of(1200)), 40
EXPIRIES = {
    "none": lambda: None,
    "fixed": lambda: Fixed(0.002),
    "idle": lambda: Idle(0.002),
    "learned by hand": lambda: Learned(learner="manual", seed=1, memory_price=100.0, miss_cost=1.0, premature=0.5),
    "learned by a thread": lambda: Learned(seed=1, memory_price=100.0, miss_cost=1.0, premature=0.5),
    "learned validity": lambda: Learned(learner="manual", seed=1, stale=0.1, ceiling=0.5),
}


class Key:
    """One of few, in still fewer classes of equal hash."""

    __slots__ = ("number",)

    def __init__(self, number):
        self.number = number

    def __hash__(self):
        give_way()
        return self.number % 7

    def __eq__(self, other):
        give_way()
        return isinstance(other, Key) and self.number == other.number


TURN = threading.local()


def give_way():
    TURN.n = getattr(TURN, "n", 0) + 1
    if TURN.n % 5 == 0:
        time.sleep(0)


@pytest.fixture(autouse=True)
def restless():
    """Threads are switched as often as the interpreter can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class Worker:
    """Does everything that can be done to a cache, at random, and notices a value that belongs to another key."""

    def __init__(self, cache, seed):
        self.cache, self.draw, self.seed, self.stored = cache, random.Random(seed), seed, 0
        self.failure = None

    def value(self, key):
        self.stored += 1
        return key.number, self.seed, self.stored

    def own(self, key, value):
        assert value is None or value[0] == key.number, "the value of another key"
        return value

    def get(self, key):
        self.own(key, self.cache.get(key))

    def index(self, key):
        self.own(key, self.cache[key])

    def set(self, key):
        self.cache.set(key, self.value(key), size=self.draw.choice([0, 1, 1, 1, 2, 3]))

    def set_for_a_while(self, key):
        self.cache.set(key, self.value(key), ttl=self.draw.choice([0.0, 0.0005, 10.0]))

    def setdefault(self, key):
        self.own(key, self.cache.setdefault(key, self.value(key)))

    def update(self, key):
        self.cache.update({key: self.value(key)})

    def load(self, key):
        self.own(key, self.cache.get_or_load(key, self.value))

    def delete(self, key):
        del self.cache[key]

    def pop(self, key):
        self.own(key, self.cache.pop(key, None))

    def popitem(self, key):
        self.own(*self.cache.popitem())

    def contains(self, key):
        assert (key in self.cache) in (True, False)

    def walk(self, key):
        for held, value in self.cache.items():
            self.own(held, value)

    def expire(self, key):
        for held, value in self.cache.expire():
            self.own(held, value)

    def expires_in(self, key):
        assert self.cache.expires_in(key) > -1

    def explain(self, key):
        str(self.cache.explain(key))

    def resize(self, key):
        self.cache.resize(self.draw.choice([0, 3, 10, 20, 20]))

    def clear(self, key):
        self.cache.clear()

    def stats(self, key):
        assert self.cache.stats().currsize >= 0 and len(self.cache) >= 0

    def check(self, key):
        self.cache._check()

    OFTEN = (get, get, get, index, set, set, set, setdefault, update, load, delete, pop, popitem, contains)
    SELDOM = (set_for_a_while, walk, expire, expires_in, explain, resize, clear, stats, check)

    def run(self):
        try:
            for _ in range(STEPS):
                step = self.draw.choice(self.OFTEN if self.draw.random() < 0.9 else self.SELDOM)
                try:
                    step(self, Key(self.draw.randrange(KEYS)))
                except KeyError:
                    pass
                except ValueError as error:
                    assert str(error) == "value too large"
        except BaseException as failure:
            self.failure = failure


def hammer(cache):
    workers = [Worker(cache, seed) for seed in range(THREADS)]
    threads = [threading.Thread(target=worker.run, daemon=True) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
        assert not thread.is_alive(), "threads wait for each other"
    for worker in workers:
        if worker.failure is not None:
            raise worker.failure


@pytest.mark.parametrize("policy", adaptcache.policies())
@pytest.mark.parametrize("expiry", EXPIRIES)
def test_threads_on_one_cache_lose_nothing_and_damage_nothing(policy, expiry):
    left, stopped = [], []

    def on_removal(key, value, cause, at):
        assert value[0] == key.number
        left.append(value)

    cache = Cache(20, policy=policy, expiry=EXPIRIES[expiry](), timer=lambda: stopped[0] if stopped else time.monotonic(),
                  on_removal=on_removal)
    hammer(cache)
    stopped.append(time.monotonic())    # what is held now is not let go while it is counted
    held = [value for _, value in cache.items()]
    cache._check()
    end = time.monotonic() + 30
    while cache._counters()["inserts"] > len(left) + len(held) and time.monotonic() < end:
        time.sleep(0.01)                # the learner's thread may be just telling of one that it let go
    assert cache._counters()["inserts"] == len(left) + len(held)
    assert max(Counter(left + held).values()) == 1, "told twice, or told and still there"
    assert cache.currsize <= cache.maxsize
    cache.clear()
    assert len(cache) == cache.currsize == 0
    cache._check()


@pytest.mark.parametrize("policy", adaptcache.policies())
def test_threads_on_a_cache_without_callbacks_leave_it_whole(policy):
    cache = Cache(20, policy=policy)
    hammer(cache)
    cache._check()
    before, held = len(cache), sum(1 for _ in cache)
    assert before >= held >= len(cache)     # what was set for a while may expire meanwhile


def test_a_walk_shows_pairs_that_were_held_together():
    """Snapshots pair each key with its own value, whatever others do meanwhile."""
    cache, stop, seen = Cache(30), threading.Event(), 0

    def churn():
        turn = 0
        while not stop.is_set():
            turn += 1
            for number in range(40):
                cache[number] = (number, turn)

    for number in range(40):
        cache[number] = (number, 0)     # the walks may be over before the other thread gets its first turn
    thread = threading.Thread(target=churn, daemon=True)
    thread.start()
    try:
        for _ in range(300):
            for key, value in cache.items():
                assert value[0] == key
                seen += 1
    finally:
        stop.set()
        thread.join()
    assert seen
    cache._check()
