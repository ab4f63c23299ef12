"""The log of decisions: every number in a line agrees with an accountant that knows none of the cache's code.

The accountant hears requests, stores and removals (`on_removal`), in whole nanoseconds, and writes down what each wait
came to from the words of docs/explain.md alone.
"""
from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adaptcache import Cache, Cause, Learned, _core, cached
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
    if books.unbounded:
        assert line["breakeven"] == about(books.breakeven(wait), rel=1e-6)
    else:                       # pressure raises the price that decides, and not the one that counts
        assert 0 < line["breakeven"] <= books.breakeven(wait) * (1 + 1e-6)
    assert line["window"] == about(books.width(wait) / 1e9, rel=1e-6, abs=2e-9)
    if wait.ceiling >= NEVER:
        assert line["ceiling"] is None
    else:
        assert line["ceiling"] == about((wait.ceiling - wait.last) / 1e9, abs=1e-8)
    if books.unbounded:         # else the policy may choose the very key that is written: its history begins anew
        assert line["accesses"] == wait.count or min(line["accesses"], wait.count) >= 15     # beyond, about
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
    # Before the floor nobody asks; `expire` with a time ahead ends a wait there.
    unasked = held == 0 or wait.last + held < wait.stored + books.floor
    assert verdict["hold"] or line["let_go"] is not None or unasked or line["bound"] == "floor"
    assert 0 <= verdict["comes_back"] <= 1 + 1e-6 and verdict["ratio"] >= 0
    assert all(0 <= share <= 1 and 0 <= holds <= 1 for share, holds in verdict["experts"].values())
    assert sum(share for share, _ in verdict["experts"].values()) <= 1 + 1e-3
    features = line["features"]
    assert features["log_breakeven"] == about(math.log2(line["breakeven"] * 1e9), abs=1e-3)
    assert features["seen_before"] == (features["gap1"] > 0)


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, 2)),
        st.tuples(st.just("ask"), st.integers(0, 2)),
        st.tuples(st.just("ask"), st.integers(0, 2)),
        st.tuples(st.just("put"), st.integers(0, 2), st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 8]),
                  st.sampled_from([math.inf, math.inf, 1.5, 0.0])),
        st.tuples(st.just("delete"), st.integers(0, 2)),
        st.tuples(st.just("clear")),
        st.tuples(st.just("ahead"), st.sampled_from([0.0, 2.0])),
        st.tuples(st.just("learn")),
        st.tuples(st.just("wait"), st.sampled_from([0, 1, 10, 40, 150, 300, 600, 9000])),
        st.tuples(st.just("wait"), st.sampled_from([0, 1, 10, 40, 150, 300, 600, 9000])),
    ), min_size=25, max_size=80)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ops=OPERATIONS, premature=st.sampled_from([0.0, 0.3, 1.0]), expert=st.sampled_from([-1, _core.SLOT_STATIC, _core.SLOT_MULTIPLE + 4]),
       window=st.sampled_from([None, 0.6, 100.0]), floor=st.sampled_from([0.0, 0.9]), ceiling=st.sampled_from([math.inf, 3.0]),
       maxsize=st.sampled_from([math.inf, 6]))
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
    name = {key: log._digest(key.to_bytes(8, "little")).hex() for key in range(3)}
    assert Counter({name[key]: len(waits) for key, waits in expected.items()}) == Counter({key: len(got) for key, got in by_hash.items()})
    for key, waits in expected.items():
        for line, wait in zip(by_hash[name[key]], waits, strict=True):
            check(line, wait, books)
    # The promise's own books, from the log alone.
    assert sum(line["premature"] for line in written) == stats.premature
    protected = [line for line in written if line["premature"] or (line["found"] and line["seen"] <= line["window"] + 1e-9)]
    assert len(protected) == stats.protected
    assert len(read(path)) == len(written) if written else True


# -- one wait of each kind ----------------------------------------------------------------------------------

def one(tmp_path: Path, **options: Any) -> tuple[Cache[Any, Any], Clock, Path]:
    """A cache that lets go at once where it may; every cost 8, every size 4: break-even 8 s, window 2 s."""
    clock = Clock()
    # (Under SIEVE the idle age of who is evicted tells the price of memory.)
    cache: Cache[Any, Any] = Cache(options.pop("maxsize", None), lambda value: 4, policy="sieve", timer=clock,
                                   expiry=learned(**{"premature": 1.0, **options}))
    assert cache.brain is not None
    cache.brain.only = _core.SLOT_STATIC
    cache.log_decisions(tmp_path / "log", sample=1)
    return cache, clock, tmp_path / "log"


def close(cache: Cache[Any, Any], path: Path) -> list[dict[str, Any]]:
    assert cache.decision_log is not None
    cache.decision_log.close()
    return lines(path)


def test_a_premature_removal_is_told_with_what_it_cost(tmp_path: Path) -> None:
    cache, clock, path = one(tmp_path)
    cache.set("a", 1, cost=8)
    clock.ticks = ns(1.5)
    assert cache.get("a") is None
    line, = close(cache, path)
    assert (line["outcome"], line["after"], line["found"], line["premature"], line["bound"]) == ("asked", 1.5, False, True, "mixture")
    assert (line["gone"], line["rent"], line["miss"], line["spared"], line["least"]) == (0, 0, 8, 1.5, 1.5)


def test_a_removal_after_which_nobody_came_is_told_at_the_horizon(tmp_path: Path) -> None:
    cache, clock, path = one(tmp_path)
    cache.set("a", 1, cost=8)
    log = cache.decision_log
    assert log is not None
    clock.ticks = ns(64.0) - 100
    log.flush()
    assert log.written == 0, "a request would still count"
    clock.ticks += 200
    log.flush()
    assert log.written == 1
    line, = close(cache, path)
    assert (line["outcome"], line["after"], line["least"]) == ("never", None, 0)
    assert line["seen"] == line["spared"] == pytest.approx(64)


def test_the_guard_is_named_where_it_held(tmp_path: Path) -> None:
    cache, clock, path = one(tmp_path, premature=0.0)
    for key in "ab":
        cache.set(key, 1, cost=8)
        clock.ticks += 1
    clock.ticks = ns(2.5)
    cache.get("a"), cache.get("b")
    got = {line["bound"]: line for line in close(cache, path)}
    # One loss is allowed, so the first may go at once; the other is held to the end of its window.
    assert set(got) == {"mixture", "guard"}
    assert (got["mixture"]["gone"], got["mixture"]["refused"]) == (0, None)
    assert got["guard"]["refused"] == 0 and got["guard"]["gone"] == pytest.approx(2.0, abs=1e-6)


@pytest.mark.parametrize(("options", "ttl", "bound", "gone"), [
    ({"floor": 1.0}, None, "floor", 1.0), ({"floor": 1.0}, 0.5, "ceiling", 0.5), ({"premature": 0.0, "window": 5.0, "ceiling": 3.0}, None, "ceiling", 3.0),
])
def test_floor_and_ceiling_are_named(tmp_path: Path, options: dict[str, Any], ttl: float | None, bound: str, gone: float) -> None:
    cache, clock, path = one(tmp_path, **options)
    if bound == "ceiling":
        assert cache.brain is not None
        cache.brain.only = _core.SLOT_MULTIPLE      # holds to break-even
    cache.set("a", 1, cost=8, ttl=ttl)
    clock.ticks = ns(4.0)
    cache.get("a")
    line, = close(cache, path)
    assert (line["bound"], line["gone"]) == (bound, pytest.approx(gone))


def test_capacity_is_named(tmp_path: Path) -> None:
    cache, clock, path = one(tmp_path, maxsize=4)
    assert cache.brain is not None
    cache.brain.only = _core.SLOT_MULTIPLE
    cache.set("a", 1, cost=8)
    clock.ticks = ns(7.0)
    cache.set("b", 1, cost=8)
    clock.ticks = ns(9.0)
    cache.get("a")
    first, second = close(cache, path)
    assert (first["bound"], first["gone"], first["after"], first["premature"]) == ("capacity", 7, 9, False)
    # The eviction raised the price in force: b breaks even after as long as a was held. What it costs is as stated.
    assert second["price"] == 0.25 and second["breakeven"] == pytest.approx(7.0)
    assert (second["outcome"], second["gone"], second["least"]) == ("open", None, None)


def test_free_memory_has_no_verdict(tmp_path: Path) -> None:
    clock = Clock()
    cache: Cache[str, int] = Cache(None, timer=clock, expiry=learned(memory_price=0.0))
    cache.log_decisions(tmp_path / "log", sample=1)
    cache["a"] = 1
    clock.ticks = ns(9.0)
    assert cache.get("a") == 1
    line = close(cache, tmp_path / "log")[0]
    assert (line["breakeven"], line["bound"], line["rent"], line["least"]) == (None, "nothing", 0, 0)
    assert "verdict" not in line and "features" not in line


# -- sampling, files ----------------------------------------------------------------------------------------

def busy(cache: Cache[Any, Any], clock: Clock, rounds: int = 400, keys: int = 40) -> None:
    for i in range(rounds):
        clock.ticks += STEP
        if cache.get(f"key {i % keys}") is None:
            cache.set(f"key {i % keys}", "value", cost=2, namespace="tenant secret")


def test_a_sample_keeps_whole_histories(tmp_path: Path) -> None:
    got = []
    for name, sample in (("all", 1.0), ("some", 0.3)):
        clock = Clock()
        cache: Cache[str, str] = Cache(None, timer=clock, expiry=learned())
        cache.log_decisions(tmp_path / name, sample=sample, salt="s")
        busy(cache, clock)
        rows = [{k: v for k, v in line.items() if k != "id"} for line in close(cache, tmp_path / name)]
        got.append(rows)
    everything, some = got
    keys = {line["key"] for line in some}
    assert 2 <= len(keys) <= 25 and len({line["key"] for line in everything}) == 40
    assert some == [line for line in everything if line["key"] in keys]


def test_salt_decides_which_keys_and_what_they_are_called(tmp_path: Path) -> None:
    names = []
    for number, salt in enumerate(("a", "b", "a", None)):
        clock = Clock()
        cache: Cache[str, str] = Cache(None, timer=clock, expiry=learned())
        cache.log_decisions(tmp_path / str(number), sample=0.5, salt=salt)
        busy(cache, clock)
        names.append(frozenset(line["key"] for line in close(cache, tmp_path / str(number))))
    assert names[0] == names[2] and len(set(names)) == 3


@pytest.mark.parametrize("namespaces", ["repr", "hash"])
def test_no_key_and_no_value_is_written(tmp_path: Path, namespaces: str) -> None:
    clock = Clock()
    cache: Cache[str, str] = Cache(None, timer=clock, expiry=learned())
    cache.log_decisions(tmp_path / "log", sample=1, namespaces=namespaces)
    for i in range(50):
        clock.ticks += STEP
        cache.set(f"customer {i % 5}", "the value", features={"plan": "gold", "rows": 3}, namespace="orders")
    rows = close(cache, tmp_path / "log")
    text = (tmp_path / "log").read_text()
    assert "customer" not in text and "the value" not in text and "gold" not in text
    assert ("orders" in text) == (namespaces == "repr")
    assert {line["namespace"] for line in rows} == {"'orders'"} or namespaces == "hash"
    assert all(line["features"]["rows"] == 3 and 0 <= line["features"]["plan"] <= 1 for line in rows)


def test_files_are_bounded_and_whole(tmp_path: Path) -> None:
    clock = Clock()
    cache: Cache[str, str] = Cache(None, timer=clock, expiry=learned())
    log = cache.log_decisions(tmp_path / "log", sample=1, max_bytes=1 << 14)
    for _ in range(8):
        busy(cache, clock, 100)
        cache.learn()
        sizes = [file.stat().st_size for file in tmp_path.iterdir()]
        assert sum(sizes) <= 1 << 14 and len(sizes) <= 2
    log.close()
    assert log.written >= 800 - 40
    files = read(tmp_path / "log")
    assert not files.notes and len(files.headers) == 2
    assert files.headers[1]["part"] == files.headers[0]["part"] + 1 > 5


def test_an_old_log_is_kept_and_a_foreign_file_is_refused(tmp_path: Path) -> None:
    clock = Clock()
    cache: Cache[str, str] = Cache(None, timer=clock, expiry=learned())
    for _ in range(2):
        cache.log_decisions(tmp_path / "log", sample=1)
        busy(cache, clock, 50)
    close(cache, tmp_path / "log")
    assert len(read(tmp_path / "log").headers) == 2
    (tmp_path / "mine").write_text("dear diary\n")
    (tmp_path / "folder").mkdir()
    running = cache.log_decisions(tmp_path / "other", sample=1)
    for name in ("mine", "folder"):
        with pytest.raises(ValueError, match="is no log of decisions"):
            cache.log_decisions(tmp_path / name)
    assert (tmp_path / "mine").read_text() == "dear diary\n"
    with pytest.raises(OSError):
        cache.log_decisions(tmp_path / "mine" / "log")
    for wrong in ({"sample": 0}, {"sample": 1.5}, {"sample": math.nan}, {"max_bytes": 100}, {"namespaces": "all"}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))}: "):
            cache.log_decisions(tmp_path / "new", **wrong)      # type: ignore[arg-type]
    with pytest.raises(TypeError, match="salt: "):
        cache.log_decisions(tmp_path / "new", salt=1.5)     # type: ignore[arg-type]
    assert running is cache.decision_log or not (tmp_path / "new").exists()
    with pytest.raises(ValueError, match="only a learned expiry decides"):
        Cache(4, expiry=5.0).log_decisions(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_refused_arguments_leave_the_running_log_alone(tmp_path: Path) -> None:
    cache, _, path = one(tmp_path)
    log = cache.decision_log
    for wrong in ({"sample": 0}, {"namespaces": "all"}):
        with pytest.raises(ValueError):
            cache.log_decisions(path, **wrong)      # type: ignore[arg-type]
    assert cache.decision_log is log and log is not None and log.running
    cache.set("a", 1)
    assert len(close(cache, path)) == 1
    log.close()
    assert not log.running and log.error is None


def test_a_full_disk_ends_the_log_and_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    clock = Clock()
    cache: Cache[str, str] = Cache(None, timer=clock, expiry=learned())
    log = cache.log_decisions(tmp_path / "log", sample=1)
    assert log._file is not None
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, log._file.fileno())
    os.close(full)
    caplog.set_level(logging.ERROR, "adaptcache")
    busy(cache, clock, 3000)
    cache.learn()
    log.flush()
    log.close()
    assert isinstance(log.error, OSError) and not log.running and log.written == 0
    assert [record.message for record in caplog.records if "log of decisions" in record.message] != []
    assert len([record for record in caplog.records if "log of decisions" in record.message]) == 1
    assert cache.get("key 1") is not None or cache.stats().misses
    cache._check()
    cache.log_decisions(tmp_path / "again", sample=1)       # and it can begin anew
    busy(cache, clock, 100)
    assert len(close(cache, tmp_path / "again")) >= 60


# -- who writes ---------------------------------------------------------------------------------------------

def test_an_operation_on_a_key_that_is_not_logged_never_writes(tmp_path: Path) -> None:
    clock = Clock()
    cache: Cache[int, int] = Cache(None, timer=clock, expiry=learned())
    log = cache.log_decisions(tmp_path / "log", sample=0.5, salt="x")
    cache.update({key: key for key in range(64)})
    log._lock.acquire()             # as though somebody were writing
    try:
        for _ in range(60):
            clock.ticks += STEP
            for key in range(64):
                cache.get(key)
        assert log.written == 0
        assert cache._log_state()["waiting"] > 1024
    finally:
        log._lock.release()
    writers = []
    for key in range(64):
        before = log.written
        cache.get(key)
        if log.written > before:
            writers.append(key)
    assert len(writers) == 1, "the first logged key wrote all that had gathered"
    log.close()
    logged = {line["key"] for line in lines(tmp_path / "log")}
    silent = [key for key in range(64) if log._digest(key.to_bytes(8, "little")).hex() not in logged]
    assert silent and writers[0] not in silent and writers[0] == min(set(range(64)) - set(silent))


def test_pending_decisions_are_bounded(tmp_path: Path) -> None:
    clock = Clock()
    cache: Cache[int, int] = Cache(None, timer=clock, expiry=learned())
    log = cache.log_decisions(tmp_path / "log", sample=1)
    for key in range(40_000):
        cache[key] = key
    state = cache._log_state()
    assert state["open"] + state["waiting"] <= _core.LOG_CAPACITY and state["sample"] < 0.6
    log.close()
    rows = lines(tmp_path / "log")
    assert {line["outcome"] for line in rows} == {"open"}
    # What is left is a fair half, not the first or the last that came.
    assert 8_000 < len(rows) < 30_000
    assert cache._log_state() == {}


@pytest.mark.parametrize("learner", ["manual", "thread"])
def test_threads_lose_no_line_and_tell_no_wait_twice(tmp_path: Path, learner: str) -> None:
    cache: Cache[int, int] = Cache(None, expiry=learned(learner=learner, memory_price=100.0))
    log = cache.log_decisions(tmp_path / "log", sample=1)
    asked = Counter[int]()

    def work(number: int) -> None:
        for i in range(1500):
            key = (i * 7 + number) % 50
            if cache.get(key) is None:
                cache.set(key, key, cost=2)
            if i % 100 == 0:
                log.flush()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    del asked
    stats = cache.stats()
    log.close()
    rows = lines(tmp_path / "log")
    assert len(rows) == len({line["id"] for line in rows}) == log.written
    assert log.dropped == 0 and log.error is None
    # Every request that found a value ended a wait.
    assert sum(line["found"] is True for line in rows) == stats.hits
    per_key: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for line in rows:
        per_key[line["key"]].append(line)
    for history in per_key.values():
        for before, after in pairwise(history):
            assert after["time"] >= before["time"] + before["seen"] - 1e-6


class Nosy:
    """A label whose repr calls in."""

    cache: Any = None

    def __repr__(self) -> str:
        self.cache.get("a")
        self.cache.decision_log.flush()
        self.cache.log_decisions  # noqa: B018
        self.cache.clear()
        return "nosy"


class Sour:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(("label", "called"), [(Nosy, "nosy"), (Sour, "<Sour 1>")])
def test_labels_may_call_in_or_raise(tmp_path: Path, label: type, called: str) -> None:
    cache, clock, path = one(tmp_path)
    name = label()
    Nosy.cache = cache
    for key in "abc":
        cache.set(key, 1, cost=8, namespace=name)
    clock.ticks = ns(1.0)
    for key in "abc":
        cache.get(key)
    rows = close(cache, path)
    assert len(rows) == 3 and {line["namespace"] for line in rows} == {called}
    cache._check()


def test_callbacks_and_timers_may_call_in(tmp_path: Path) -> None:
    path = tmp_path / "log"
    clock = Clock()
    logs = []

    def told(*what: Any) -> None:
        logs[-1].flush()
        if len(logs) == 1:
            logs.append(cache.log_decisions(tmp_path / "second", sample=1))

    class Looking(Clock):
        deep = 0

        def __call__(self) -> float:
            if logs and not self.deep:
                self.deep = 1
                logs[-1].flush()
                self.deep = 0
            return self.now

    clock = Looking()
    cache: Cache[str, int] = Cache(2, timer=clock, on_removal=told, expiry=learned())
    logs.append(cache.log_decisions(path, sample=1))
    for i in range(50):
        clock.ticks += STEP
        cache.set(f"{i % 7}", i, cost=3)
        cache.get(f"{i % 5}")
    for log in logs:
        log.close()
        assert log.error is None
    assert len(logs) == 2 and lines(path) and lines(tmp_path / "second")
    cache._check()


def test_a_decorated_function_is_logged(tmp_path: Path) -> None:
    clock = Clock()

    @cached(expiry=learned(miss_cost=2.0), timer=clock)
    def double(x: int) -> int:
        return 2 * x

    with double.cache.log_decisions(tmp_path / "log", sample=1) as log:
        for _ in range(3):
            assert double(4) == 8
    assert log.written == 3 and not log.running
    assert [line["outcome"] for line in lines(tmp_path / "log")] == ["asked", "asked", "open"]


def test_a_log_of_a_cache_that_is_gone_closes(tmp_path: Path) -> None:
    cache, *_ = one(tmp_path)
    log = cache.decision_log
    cache["a"] = 1
    assert log is not None
    del cache
    log.close()
    assert not log.running and log.error is None and log.dropped == 0


def test_the_log_changes_no_decision(tmp_path: Path) -> None:
    said = []
    for sample in (None, 1.0):
        clock = Clock()
        cache: Cache[str, str] = Cache(30, timer=clock, expiry=learned(predictors=("table", "river"), memory_price=1.0))
        if sample:
            cache.log_decisions(tmp_path / "log", sample=sample)
        busy(cache, clock, 2000)
        cache.learn()
        said.append(cache.stats())
    assert said[0] == said[1]


def test_a_replay_logs_what_the_live_cache_would(tmp_path: Path) -> None:
    from adaptcache.simulate import learned as replay
    from adaptcache.simulate.synthetic import generate

    trace = generate("pipeline", seed=1, requests=3000)
    plain = replay.replay(trace, 1e-8, seed=4)
    logged = replay.replay(trace, 1e-8, seed=4, log=tmp_path / "log")
    assert plain == logged
    rows = lines(tmp_path / "log")
    assert sum(line["found"] is True for line in rows) == logged["requests"] - logged["misses"]
    assert sum(line["premature"] for line in rows) == logged["lost"]
    assert sum(line["rent"] for line in rows) == pytest.approx(logged["hold_cost"], rel=1e-5)
    assert set(trace.features) <= set(rows[0]["features"])


FORKED = """
import os, sys
from adaptcache import Cache, Learned

cache = Cache(None, timer=lambda: 1.0, expiry=Learned(memory_price=0.1, learner="manual", seed=1))
log = cache.log_decisions(sys.argv[1], sample=1)
cache["a"] = 1
child = os.fork()
if not child:
    cache["child"] = 2
    log.close()
    os._exit(0 if not log.running and log.written == 0 and cache.get("child") == 2 else 1)
status = os.waitpid(child, 0)[1]
log.close()
sys.exit(status or log.written != 1)
"""


def test_a_forked_child_leaves_the_file_to_its_parent(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FORKED, str(tmp_path / "log")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(lines(tmp_path / "log")) == 1


def test_what_is_known_at_the_end_of_the_process_is_written(tmp_path: Path) -> None:
    script = FORKED[:FORKED.index("child =")]
    done = subprocess.run([sys.executable, "-W", "error", "-c", script, str(tmp_path / "log")], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line["outcome"] for line in lines(tmp_path / "log")] == ["open"]


@pytest.mark.parametrize("namespaces", ["repr", "hash"])
def test_shares_by_namespace_stand_in_the_header(tmp_path: Path, namespaces: str) -> None:
    clock, path = Clock(), tmp_path / "log"
    cache: Cache[Any, Any] = Cache(None, timer=clock, expiry=learned(premature={("t", 1): 0.5, "b": 0.2, None: 0.1}))
    log = cache.log_decisions(path, sample=1.0, namespaces=namespaces)
    for i in range(40):
        clock.ticks += STEP
        cache.set(i % 4, 1, cost=1.0, namespace="b" if i % 2 else ("t", 1))
        cache.get(i % 4)
    log.close()
    header, *rest = [json.loads(line) for line in path.read_text().splitlines()]
    named = {line["namespace"] for line in rest if "id" in line}
    assert header["premature"] == 0.1 and sorted(header["banks"].values()) == [0.2, 0.5]
    assert set(header["banks"]) == named and ("'b'" in named) == (namespaces == "repr")
    state = rest[-1]["state"]
    banks = cache.stats().banks.values()
    assert state["used"] == max((bank.premature + bank.in_flight) / bank.premature_budget for bank in banks)
    assert read(path).headers[0]["banks"] == header["banks"]
