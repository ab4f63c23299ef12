"""Keys chosen to be slow: hashes that lie together, and keys that share a whole hash. docs/flooding.md states the bounds."""
from __future__ import annotations

import itertools
import random

import pytest
from budget import share_of

import adaptcache
from adaptcache import Cache, Cause, Fixed, Learned, _core
from adaptcache import _coretest as core

every_policy = pytest.mark.parametrize("policy", adaptcache.policies())
BOUND = _core.ALIKE
FLOOD = max(500, share_of(10_000))


class Alike:
    """A key that shares its hash with all of its kind, and counts the comparisons that this costs."""

    compared = 0

    def __init__(self, number):
        self.number = number

    def __hash__(self):
        return 42

    def __eq__(self, other):
        Alike.compared += 1
        return isinstance(other, Alike) and self.number == other.number


def cost(operation):
    """Comparisons that an operation makes; a KeyError is an answer too."""
    before = Alike.compared
    try:
        operation()
    except KeyError:
        pass
    return Alike.compared - before


EXPIRIES = {"none": lambda: None, "fixed": lambda: Fixed(1000), "learned": lambda: Learned(learner="manual", seed=1)}


@every_policy
@pytest.mark.parametrize("expiry", EXPIRIES)
def test_no_operation_compares_more_keys_than_the_bound(policy, expiry):
    cache = Cache(2 * FLOOD, policy=policy, expiry=EXPIRIES[expiry](), timer=lambda: 0.0)
    others = {f"key {i}": i for i in range(100)}
    cache.update(others)
    for i in range(FLOOD):
        assert cost(lambda i=i: cache.set(Alike(i), i)) <= BOUND
    for i in (0, 1, FLOOD // 2, FLOOD - BOUND, FLOOD - 1, FLOOD):
        for operation in (lambda key: cache.get(key), lambda key: cache[key], lambda key: key in cache,
                          lambda key: cache.expires_in(key), lambda key: cache.set(key, 0),
                          lambda key: cache.__delitem__(key), lambda key: cache._pop(key)):
            assert cost(lambda i=i, operation=operation: operation(Alike(i))) <= BOUND
    assert dict(cache.items()).items() >= others.items(), "what shares nothing with the flood is left alone"
    cache._check()


@every_policy
@pytest.mark.parametrize("hits", [False, True])
def test_the_oldest_of_too_many_leaves_and_is_told(policy, hits):
    told = []
    cache = Cache(1000, policy=policy, on_removal=lambda key, value, cause, at: told.append((key.number, value, cause)))
    for i in range(BOUND + 10):
        cache[Alike(i)] = i
        if hits:
            cache[Alike(i)] += 0
        assert len(cache) == min(i + 1, BOUND)
    evicted = [(number, value) for number, value, cause in told if cause is Cause.EVICTED]
    assert evicted == [(i, i) for i in range(10)]
    assert cache.stats().evictions == 10
    assert {key.number for key in cache} == set(range(10, BOUND + 10))
    cache._check()


def test_an_entry_that_is_overwritten_pushes_nobody_out():
    cache = Cache(1000)
    for i in range(BOUND):
        cache[Alike(i)] = i
    for i in range(BOUND):
        cache[Alike(i)] = -i
    assert {key.number: value for key, value in cache.items()} == {i: -i for i in range(BOUND)}


def test_what_is_too_large_or_over_at_once_pushes_nobody_out():
    cache = Cache(1000, expiry=Fixed(10), timer=lambda: 0.0)
    for i in range(BOUND):
        cache[Alike(i)] = i
    with pytest.raises(ValueError, match="value too large"):
        cache.set(Alike(BOUND), 0, size=1001)
    cache.set(Alike(BOUND), 0, ttl=0)
    assert {key.number for key in cache} == set(range(BOUND))


def test_those_that_expire_or_leave_make_room_for_others_of_their_hash():
    now = [0.0]
    cache = Cache(1000, expiry=Fixed(10), timer=lambda: now[0])
    for i in range(BOUND):
        cache[Alike(i)] = i
    now[0] = 20.0
    cache[Alike(BOUND)] = 0
    for i in range(BOUND - 1):
        cache[Alike(i)] = i
    assert cache.stats().evictions == 0 and len(cache) == BOUND
    del cache[Alike(5)]
    cache[Alike(-1)] = -1
    assert cache.stats().evictions == 0 and len(cache) == BOUND


def test_integers_that_share_a_hash_are_bounded_too():
    cache, modulus = Cache(1000), 2**61 - 1
    for i in range(500):
        cache[7 + i * modulus] = i
    assert sorted(cache.values()) == list(range(500 - BOUND, 500))


def test_open_windows_of_keys_that_share_a_hash_are_bounded():
    """Each such key is let go early and comes back too late, so that windows would gather without end."""
    now = [0.0]
    cache = Cache(10**6, timer=lambda: now[0], expiry=Learned(
        learner="manual", seed=1, premature=1, memory_price=1e-3, miss_cost=1.0, window=1e5))
    most = 0
    for i in range(1500):
        now[0] += 100.0
        bound = BOUND + 64 + 2 * cache.stats().in_flight    # keys compared in the table, and in the dict of windows
        assert cost(lambda i=i: cache.set(Alike(i), i)) <= bound
        assert cost(lambda i=i: cache.get(Alike(i - 50))) <= bound
        most = max(most, cache.stats().in_flight)
    assert most == BOUND, "windows are open at all, and not too many"
    cache._check()


# -- hashes that lie together


def signed(hash):
    return (hash + 2**63) % 2**64 - 2**63


GOLDEN = 0x9E3779B97F4A7C15
INVERSE = pow(GOLDEN, -1, 2**64)
N = max(4000, share_of(20_000))
THREE_BITS = [1 << a | 1 << b | 1 << c for a, b, c in itertools.islice(itertools.combinations(range(62), 3), N)]
FAMILIES = {
    "small": lambda i: i,
    "three bits of 62": lambda i: THREE_BITS[i],
    "a multiple of 2**32": lambda i: i << 32,
    "a multiple of 2**16": lambda i: i << 16,
    "a multiple of 2**47": lambda i: i << 47,
    "a multiple of a prime": lambda i: i * 1_000_003,
    "high and low halves alike": lambda i: i << 32 | i,
    "the golden ratio's multiples": lambda i: i * GOLDEN,
    "the golden ratio's inverse": lambda i: i * INVERSE,
    "made to share the low bits of an unsalted mix": lambda i: (m := (i << 48 | i) * INVERSE % 2**64) ^ m >> 32,
    "made to share the high bits of an unsalted mix": lambda i: i * pow(GOLDEN, -2, 2**64),
    "addresses": lambda i: 0x7F3A_0000_0000 + i * 48,
}


def probes(hashes, salt):
    """Mean and largest number of cells that a look-up of a held hash looks at."""
    table = core.Table(salt=salt)
    for slot, hash in enumerate(hashes, start=1):
        table.reserve()
        table.insert(hash, slot)
    mask = table.size - 1
    lengths = [((at - tag) & mask) + 1 for at, (slot, tag) in enumerate(table.cells()) if slot != core.NIL]
    assert len(lengths) == len(hashes)
    return sum(lengths) / len(lengths), max(lengths)


def salts():
    draw = random.Random(7)
    return [(draw.randrange(2**64), draw.randrange(2**64)) for _ in range(max(3, share_of(12)))]


@pytest.mark.parametrize("family", FAMILIES)
def test_keys_with_a_structure_are_found_as_fast_as_random_ones(family):
    hashes = [signed(FAMILIES[family](i)) for i in range(N)]
    assert len(set(hashes)) == N
    for salt in salts():
        draw = random.Random(salt[0])
        mean, longest = probes(hashes, salt)
        usual, long = probes([draw.randrange(-(2**63), 2**63) for _ in range(N)], salt)
        assert mean < 1.15 * usual
        assert longest < 4 * long


def test_hashes_that_lie_together_under_one_salt_do_not_under_another():
    """Whoever has seen one table's salt knows nothing of the next."""
    one, other = salts()[:2]
    draw, seen = random.Random(1), core.Table(salt=one)
    together = [h for h in (draw.randrange(2**62) for _ in range(400_000)) if seen.tag(h) & 1023 < 4][:1000]
    assert probes(together, one)[1] > 100
    assert probes(together, other)[1] < 40


def test_tables_draw_different_salts():
    tags = {core.Table().tag(1) for _ in range(50)}
    assert len(tags) > 45
