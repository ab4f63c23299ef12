"""The log of decisions: every number in a line agrees with an accountant that knows none of the cache's code.

The accountant hears requests, stores and removals (`on_removal`), in whole nanoseconds, and writes down what each wait
came to from the words of docs/explain.md alone.
"""
from __future__ import annotations

import json
import logging
import math
import os
import threading
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adaptcache import Cache, Cause, Fixed, Learned, _core, cached
from adaptcache.doctor import read

NEVER = 1 << 62
STEP = 7_000_001        # ns; no boundary used below is a multiple of it


def ns(seconds: float) -> int:
    return NEVER if seconds == math.inf else round(seconds * 1e9)


class Clock:
    def __init__(self) -> None:
        self.ticks = 0

    @property
    def now(self) -> float:
        return self.ticks / 1e9

    def __call__(self) -> float:
        return self.now


def learned(**options: Any) -> Learned:
    return Learned(**{"memory_price": 0.25, "predictors": ("table",), "learner": "manual", "seed": 3, **options})


def lines(path: Path) -> list[dict[str, Any]]:
    """The decisions in a log, in the order in which their waits began."""
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert found[0]["adaptcache"] == "decisions"
    return sorted((line for line in found if "id" in line), key=lambda line: line["id"])


# -- the accountant -----------------------------------------------------------------------------------------

@dataclass
class Wait:
    last: int
    size: float
    cost: float
    stored: int
    ceiling: int
    count: int
    gone: int | None = None
    why: str | None = None          # capacity, ceiling or reuse
    until: int = -1                 # end of the window of an early removal
    outcome: str = "open"
    ended: int = 0
    found: bool | None = None
    premature: bool = False


class Accountant:
    """Waits, from what can be seen from outside."""

    def __init__(self, price: float, window: float | None, floor: float, ceiling: float) -> None:
        self.price, self.window, self.floor, self.ceiling = price, window, ns(floor), ns(ceiling)
        self.open: dict[Any, Wait] = {}
        self.done: list[tuple[Any, Wait]] = []
        self.now = 0
        self.unbounded = True

    def breakeven(self, wait: Wait) -> float:
        return wait.cost / (wait.size * self.price)

    def width(self, wait: Wait) -> int:
        return int(self.breakeven(wait) / 4 * 1e9) if self.window is None else ns(self.window)

    def horizon(self, wait: Wait) -> int:
        return max(int(8 * self.breakeven(wait) * 1e9), self.width(wait))

    def end(self, key: Any, outcome: str, found: bool | None = None) -> Wait | None:
        wait = self.open.pop(key, None)
        if wait is None:
            return None
        wait.outcome, wait.ended, wait.found = outcome, self.now, found
        if wait.gone is not None and self.now - wait.last > self.horizon(wait):
            wait.outcome, wait.ended, wait.found = "never", max(wait.gone, wait.last + self.horizon(wait)), None
        elif outcome == "asked" and not found:
            wait.premature = self.now <= wait.until
        self.done.append((key, wait))
        return wait

    def removed(self, key: Any, cause: Cause, at: int) -> None:
        wait = self.open[key]
        wait.gone = min(at, self.now)
        if cause is Cause.EVICTED:
            wait.why = "capacity"
        elif at == wait.ceiling:
            wait.why = "ceiling"
        else:
            wait.why = "reuse"
            if at - wait.last <= self.width(wait):
                wait.until = min(wait.last + self.width(wait), wait.ceiling - 1)

    def asked(self, key: Any, found: bool) -> None:
        wait = self.end(key, "asked", found)
        if found:
            assert wait is not None and wait.gone is None
            self.open[key] = Wait(self.now, wait.size, wait.cost, wait.stored, wait.ceiling, wait.count + 1)

    def put(self, key: Any, size: float, cost: float, ttl: float) -> None:
        old = self.end(key, "overwritten")
        ceiling = min(self.now + ns(ttl), self.now + self.ceiling)
        if ceiling > self.now:
            again = old is not None and old.gone is None
            self.open[key] = Wait(self.now, size, cost, self.now, ceiling, old.count + 1 if again and old is not None else 1)

    def close(self) -> None:
        for key in list(self.open):
            self.end(key, "open")


def check(line: dict[str, Any], wait: Wait, books: Accountant, app: tuple[str, ...] = ()) -> None:
    """Every number of a line."""
    about = pytest.approx
    rate = wait.size * books.price
    held = (wait.ended if wait.gone is None else wait.gone) - wait.last
    seen = wait.ended - wait.last
    asked = wait.outcome == "asked"
    assert line["time"] == about(wait.last / 1e9, abs=1e-9)
    assert (line["size"], line["cost"], line["price"]) == (wait.size, wait.cost, books.price)
    assert line["breakeven"] == about(books.breakeven(wait), rel=1e-6)
    assert line["window"] == about(books.width(wait) / 1e9, rel=1e-6, abs=2e-9)
    if wait.ceiling >= NEVER:
        assert line["ceiling"] is None
    else:
        assert line["ceiling"] == about((wait.ceiling - wait.last) / 1e9, abs=1e-8)
    if books.unbounded:         # else the policy may choose the very key that is written: its history begins anew
        assert line["accesses"] == wait.count
    assert line["outcome"] == wait.outcome and line["found"] == wait.found and line["premature"] == wait.premature
    assert line["seen"] == about(seen / 1e9, abs=1e-8)
    assert line["after"] == (about(seen / 1e9, abs=1e-8) if asked else None)
    assert line["gone"] == (None if wait.gone is None else about((wait.gone - wait.last) / 1e9, abs=1e-8))
    assert line["rent"] == about(rate * held / 1e9, abs=1e-7)
    assert line["miss"] == (wait.cost if asked and not wait.found else 0)
    assert line["spared"] == about(0 if wait.gone is None else rate * (wait.ended - wait.gone) / 1e9, abs=1e-7)
    assert line["least"] == (None if wait.outcome == "open" else about(min(rate * seen / 1e9, wait.cost), abs=1e-7) if asked else 0)
    if wait.why in ("capacity", "ceiling"):
        assert line["bound"] == wait.why
    else:
        assert line["bound"] in ("mixture", "guard", "floor")
    if line["bound"] == "guard":
        assert line["refused"] is not None and line["let_go"] is not None
    if wait.why == "reuse" and line["bound"] == "mixture":
        assert line["refused"] is None and line["let_go"] == line["gone"]
    if wait.why == "reuse" and line["bound"] == "floor":
        assert wait.gone == wait.stored + books.floor
    if line["refused"] is not None:
        assert line["let_go"] is not None and 0 <= line["let_go"] <= line["refused"] <= line["window"] + 1e-9
        assert line["refused"] <= held / 1e9 + 1e-8
    verdict = line["verdict"]
    assert verdict["idle"] == (line["let_go"] or 0)
    assert verdict["hold"] or line["let_go"] is not None or held == 0 or line["bound"] == "floor"
    assert 0 <= verdict["comes_back"] <= 1 + 1e-6 and verdict["ratio"] >= 0
    assert all(0 <= share <= 1 and 0 <= holds <= 1 for share, holds in verdict["experts"].values())
    assert sum(share for share, _ in verdict["experts"].values()) <= 1 + 1e-3
    features = line["features"]
    assert features["log_breakeven"] == about(math.log2(books.breakeven(wait) * 1e9), abs=1e-3)
    assert features["seen_before"] == (features["gap1"] > 0)


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, 5)),
        st.tuples(st.just("ask"), st.integers(0, 5)),
        st.tuples(st.just("put"), st.integers(0, 5), st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 8]),
                  st.sampled_from([math.inf, math.inf, 1.5, 0.0])),
        st.tuples(st.just("delete"), st.integers(0, 5)),
        st.tuples(st.just("clear")),
        st.tuples(st.just("ahead"), st.sampled_from([0.0, 2.0])),
        st.tuples(st.just("learn")),
        st.tuples(st.just("wait"), st.sampled_from([0, 1, 10, 40, 150, 600, 9000])),
        st.tuples(st.just("wait"), st.sampled_from([0, 1, 10, 40, 150, 600, 9000])),
    ), max_size=60)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ops=OPERATIONS, premature=st.sampled_from([0.0, 0.3, 1.0]), expert=st.sampled_from([-1, _core.SLOT_STATIC, _core.SLOT_MULTIPLE + 4]),
       window=st.sampled_from([None, 0.6, 100.0]), floor=st.sampled_from([0.0, 0.9]), ceiling=st.sampled_from([math.inf, 3.0]),
       maxsize=st.sampled_from([math.inf, 8]))
def test_every_line_agrees_with_an_independent_accountant(
    tmp_path: Path, ops: list[tuple[Any, ...]], premature: float, expert: int, window: float | None, floor: float, ceiling: float,
    maxsize: float,
) -> None:
    path = tmp_path / "log"
    path.unlink(missing_ok=True)
    clock = Clock()
    books = Accountant(0.25, window, floor, ceiling)
    books.unbounded = maxsize == math.inf
    told: list[tuple[Any, Cause, int]] = []
    cache: Cache[int, int] = Cache(
        maxsize, lambda value: value, timer=clock, on_removal=lambda key, value, cause, at: told.append((key, cause, round(at * 1e9))),
        expiry=learned(premature=premature, window=window, floor=floor, ceiling=None if ceiling == math.inf else ceiling))
    assert cache.brain is not None
    cache.brain.only = expert
    log = cache.log_decisions(path, sample=1)

    def settle() -> None:
        for key, cause, at in told:
            if cause in (Cause.EXPIRED, Cause.EVICTED):
                books.removed(key, cause, at)
        told.clear()

    for op, *rest in ops:
        if op == "wait":
            clock.ticks += STEP * rest[0]
            books.now = clock.ticks
        elif op == "ask":
            value = cache.get(rest[0])
            settle()
            books.asked(rest[0], value is not None)
        elif op == "put":
            key, size, cost, ttl = rest
            cache.set(key, size, cost=cost, ttl=None if ttl == math.inf else ttl)
            settle()
            books.put(key, size, cost, ttl)
        elif op == "delete":
            cache.pop(rest[0], None)
            settle()
            books.end(rest[0], "deleted")
        elif op == "clear":
            cache.clear()
            settle()
            for key in list(books.open):
                books.end(key, "deleted")
        elif op == "ahead":
            cache.expire(clock.now + rest[0])
            settle()
        else:
            cache.learn()
            settle()
    cache.expire()
    settle()
    stats = cache.stats()
    cache._check()
    log.close()
    books.close()
    written = lines(path)
    by_hash: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in written:
        by_hash[line["key"]].append(line)
    expected: dict[Any, list[Wait]] = defaultdict(list)
    for key, wait in sorted(books.done, key=lambda item: item[1].last):
        expected[key].append(wait)
    name = {key: log._digest(key.to_bytes(8, "little")).hex() for key in range(6)}
    assert Counter({name[key]: len(waits) for key, waits in expected.items()}) == Counter({key: len(got) for key, got in by_hash.items()})
    for key, waits in expected.items():
        for line, wait in zip(by_hash[name[key]], waits, strict=True):
            check(line, wait, books)
    # The promise's own books, from the log alone.
    assert sum(line["premature"] for line in written) == stats.premature
    protected = [line for line in written if line["premature"] or (line["found"] and line["seen"] <= line["window"] + 1e-9)]
    assert len(protected) == stats.protected
    assert len(read(path)) == len(written) if written else True
