"""Who floods a cache does not evict what others keep asking for.

A hot set of half the capacity is asked for all the time, one key after the other. Between two of these requests an
attacker makes several of his own, so that an LRU of this size forgets every hot key before it is asked for again;
W-TinyLFU keeps nineteen of twenty. What it does not withstand: keys that really are asked for more often than the hot ones.

"adaptive" keeps as many under slow scans and crowds of any kind here, some that W-TinyLFU gives way to among them. Faster scans, and
keys that come back after most of a cache size, cost it part of the set; what it has to keep of those is held here too.
"""
from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice

import numpy as np
import pytest
from references import Sketch

from adaptcache import _core

CAPACITY = 400
HOT = CAPACITY // 2
ROUNDS = 40                 # how often each hot key is asked for
BLOCKS = 128                # of the sketch at this capacity
SALT = 0x1F123BB5159A55E5


def scan() -> Iterator[int]:
    """Keys that never come again."""
    return count(HOT)


def crowds(times: int, size: int = 20) -> Iterator[int]:
    """A few keys, each asked for so many times, and then never again."""
    for first in count(HOT, size):
        for _ in range(times):
            yield from range(first, first + size)


def returning(after: int) -> Iterator[int]:
    """Keys that come back when they have just been refused, so that the window seems to be too small."""
    for first in count(HOT, after):
        for _ in range(2):
            yield from range(first, first + after)


def colliding(salt: int) -> Iterator[int]:
    """Keys that never come again, all in one block of the sketch under that salt: each looks as hot as all of them."""
    key = np.arange(HOT, 20_000_000, dtype=np.uint64)
    h = key ^ np.uint64(salt)                                   # as in references.Sketch
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    h ^= h >> np.uint64(31)
    return iter(key[h % np.uint64(BLOCKS) == 0].tolist())


def kept(policy: str, attack: Iterator[int], share: int, salt: int = SALT) -> float:
    """Hit ratio of the hot set in the second half of the attack. share: the attacker's requests to each of the others'."""
    n = HOT * ROUNDS
    requests = np.empty((n, 1 + share), np.uint32)
    requests[:, 0] = np.arange(n) % HOT
    requests[:, 1:] = np.fromiter(islice(attack, n * share), np.uint32, n * share).reshape(n, share)
    key = requests.ravel()
    replay = _core.PolicyReplay(policy, CAPACITY, int(key.max()) + 1, salt)
    replay.run(np.tile(np.arange(HOT, dtype=np.uint32), 4), None, None, None, 0, 4 * HOT)     # it was there first
    hits = asked = 0
    for row in range(len(key)):
        before = replay.hits
        replay.run(key, None, None, None, row, row + 1)
        if row % (1 + share) == 0 and row >= len(key) // 2:
            asked += 1
            hits += replay.hits - before
    return hits / asked


ATTACKS = {
    "a scan": (scan, 4), "a fast scan": (scan, 16),
    "pairs": (lambda: crowds(2), 4), "threes": (lambda: crowds(3), 4), "fast threes": (lambda: crowds(3), 16),
    "crowds of five": (lambda: crowds(5), 16), "crowds of fifteen": (lambda: crowds(15), 16),
    "back at once": (lambda: returning(10), 4), "back soon": (lambda: returning(50), 4), "back later": (lambda: returning(300), 4),
    "collisions under another salt": (lambda: colliding(0), 16), "collisions under its salt": (lambda: colliding(SALT), 16),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_hot_set_outlives_an_attack_that_lru_loses_it_to(name: str) -> None:
    attack, share = ATTACKS[name]
    assert kept("lru", attack(), share) == 0
    assert kept("wtinylfu", attack(), share) >= 0.95


# Of which adaptive keeps less; to it, collisions are fast scans.
LESS = {"a fast scan", "back later", "collisions under another salt", "collisions under its salt"}


@pytest.mark.parametrize("name", sorted(ATTACKS.keys() - LESS))
def test_adaptive_keeps_a_hot_set_too(name: str) -> None:
    attack, share = ATTACKS[name]
    for salt in (SALT, 1):
        assert kept("adaptive", attack(), share, salt) >= 0.95


def test_adaptive_keeps_a_hot_set_from_crowds_that_push_it_out_of_wtinylfu() -> None:
    for times in (3, 10):
        assert kept("wtinylfu", crowds(times, 100), 16) < 0.5
        assert kept("adaptive", crowds(times, 100), 16) >= 0.95


@pytest.mark.parametrize(("name", "least"), [("a fast scan", 0.85), ("back later", 0.5)])
def test_adaptive_keeps_part_of_a_hot_set_from_others(name: str, least: float) -> None:
    """A mean over salts, since which keys are in the sample decides much."""
    attack, share = ATTACKS[name]
    assert np.mean([kept("adaptive", attack(), share, salt) for salt in (1, 2, 3)]) > least


def test_collisions_are_collisions() -> None:
    """Against the sketch of that salt every new key of the attacker's looks hot; against another it does not."""
    keys = list(islice(colliding(0), 4000))
    for salt, hot in ((0, True), (SALT, False)):
        sketch = Sketch(salt)
        sketch.fit(CAPACITY)
        assert len(sketch.blocks) == BLOCKS
        for key in keys[:2000]:
            sketch.add(key)
        looks = sum(sketch.count(key) for key in keys[2000:]) / 2000
        assert (looks > 10) == hot and (looks < 4) != hot


def test_newcomers_get_in_past_victims_that_look_as_hot_as_can_be() -> None:
    """All that is held has the highest count there is, and nobody ages: candidates that are warm are let in now and then."""
    replay = _core.PolicyReplay("wtinylfu", 10, 1000, SALT)
    held = np.repeat(np.arange(10, dtype=np.uint32), 20)
    replay.run(held, None, None, None, 0, len(held))
    warm = np.tile(np.arange(500, 508, dtype=np.uint32), 300)   # too many for the window and for the ghosts
    before = replay.hits
    replay.run(warm, None, None, None, 0, 40)
    assert replay.hits == before, "five requests are not warm yet"
    replay.run(warm, None, None, None, 40, len(warm))
    assert replay.hits > before
