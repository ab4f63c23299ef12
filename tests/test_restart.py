"""A restart in the middle: who saved and loaded goes on as who never stopped; river's stack and beliefs about change included."""
from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import adaptcache
from adaptcache import Cache, Learned, StateError, _core
from adaptcache.learn import migrating
from adaptcache.learn.knowledge import Knowledge
from adaptcache.learn.merging import merged
from adaptcache.learn.river_models import SPACE
from adaptcache.state import MAGIC, read, write

SPEC = Learned(memory_price=0.01, learner="manual", seed=3, premature=1.0)


class Clock:
    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def learner(clock: Clock, spec: Learned = SPEC, loaded: Path | None = None, told: Any = None) -> Cache:
    if loaded is None:
        return Cache(None, expiry=spec, timer=clock, on_removal=told)
    return Cache.load(loaded, None, expiry=spec, timer=clock, on_removal=told)


def requests(count: int, seed: int, start: float = 0.0):
    """(time, key, namespace, features): what comes back soon is told by the feature `kind`; passing keys never return."""
    dice, now = random.Random(seed), start
    for _ in range(count):
        now += dice.expovariate(1.0)
        kind = dice.choice(("often", "seldom"))
        key = dice.randrange(12) if kind == "often" else 100 + dice.randrange(60)
        yield now, key, f"tenant {key % 2}", {"kind": kind, "level": float(1 << key % 4)}


def serve(cache: Cache, rows: Any, learn: int = 128) -> None:
    for at, (now, key, namespace, features) in enumerate(rows):
        cache.timer.now = now
        cache.get_or_load(key, lambda key: (key, int(now / (30 + key))), cost=1.0, namespace=namespace, features=features)
        if at % learn == 0:
            cache.learn()


def rest(cache: Cache) -> None:
    """Until every wait is over, and all that was seen is learned and published."""
    cache.timer.now += 500
    cache.expire()
    cache.learn()
    cache._trainer.publish()
    cache._trainer.publish_stack()


def knows(cache: Cache) -> Knowledge:
    learned = cache._knowledge()
    assert learned is not None
    return learned


@pytest.fixture(scope="module")
def rested(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Cache, list[Any]]:
    """A file, the cache that wrote it, and the list that hears of its removals."""
    left: list[Any] = []
    cache = learner(Clock(), told=lambda key, value, cause, at: left.append((key, cause, at)))
    serve(cache, requests(7000, seed=5))
    rest(cache)
    path = tmp_path_factory.mktemp("state") / "state"
    cache.save(path)
    return path, cache, left


# -- going on ------------------------------------------------------------------------------------------------

def test_who_loads_decides_the_next_waits_as_who_went_on(rested) -> None:
    path, went_on, left = rested
    assert went_on._trainer.stacked > 20_000 and went_on.brain.tree() is not None
    again: list[Any] = []
    loaded = learner(Clock(went_on.timer.now), loaded=path, told=lambda key, value, cause, at: again.append((key, cause, at)))
    del left[:]
    for cache in (went_on, loaded):
        serve(cache, requests(400, seed=6, start=went_on.timer.now if cache is went_on else loaded.timer.now))
    print(len(left), len(again), sum(a == b for a, b in zip(left, again)))
    assert again == left
