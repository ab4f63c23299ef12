"""Recorded traces: the policies hit as often as other people's implementations do, and learning pays.

data/hitratios.csv: every object counts 1, every row is a get that inserts on a miss, no warm-up is left out.
Its numbers come from libCacheSim 0.3.5 (must-admit for Belady), checked there against plain-Python LRU, FIFO and MIN.
"""
from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adaptcache import _core
from adaptcache.simulate import learned
from adaptcache.simulate.oracle import Oracle
from adaptcache.simulate.readers import read
from adaptcache.simulate.run import EvictionResult, simulate
from adaptcache.simulate.trace import Trace

pytestmark = pytest.mark.traces

SMALL = ("lirs_multi3", "cpu_gcc", "dns_wrccdc_a")
TIMED = ("cloudphysics_io", "mooncake_conversation", "cran_downloads", "mathoverflow_users", "synth_shift", "synth_kv_ttl",
         "dns_wrccdc_a", "git_reads_pig")
WITHIN = {"fifo": 5.1e-7, "lru": 5.1e-7, "belady": 5.1e-7, "sieve": 5.1e-7, "arc": 5.1e-7}

Trail = Callable[[str], Path]


def reference() -> dict[str, dict[tuple[int, str], float]]:
    """trace -> (capacity, policy) -> hit ratio."""
    out: dict[str, dict[tuple[int, str], float]] = {}
    with open(Path(__file__).parent / "data" / "hitratios.csv", newline="") as file:
        for row in csv.DictReader(file):
            out.setdefault(row["trace"], {})[int(row["capacity"]), row["policy"]] = float(row["hit_ratio"])
    return out


REFERENCE = reference()


def traces(small: tuple[str, ...], names: Iterable[str]) -> list[Any]:
    """Small ones always, the rest with the slow tests."""
    return [name if name in small else pytest.param(name, marks=pytest.mark.slow) for name in sorted(names)]


@pytest.mark.parametrize("name", traces(SMALL, REFERENCE))
def test_hit_ratios_equal_the_reference(name: str, trace_path: Trail) -> None:
    wanted = REFERENCE[name]
    results = simulate(trace_path(name), policies=WITHIN, sizes=sorted({capacity for capacity, _ in wanted}))
    assert len(results) == len(wanted)
    for result in results:
        assert isinstance(result, EvictionResult)
        assert result.hit_ratio == pytest.approx(wanted[result.capacity, result.policy], abs=WITHIN[result.policy], rel=0), result


def theine() -> dict[str, dict[int, float]]:
    """trace -> capacity -> the hit ratio of theine 2.0.0, asked once, each row a get that inserts on a miss."""
    out: dict[str, dict[int, float]] = {}
    with open(Path(__file__).parent / "data" / "theine.csv", newline="") as file:
        for row in csv.DictReader(file):
            out.setdefault(row["trace"], {})[int(row["capacity"])] = float(row["hit_ratio"])
    return out


@pytest.mark.parametrize("name", traces(SMALL, theine()))
def test_wtinylfu_is_not_half_a_point_behind_theine(name: str, trace_path: Trail) -> None:
    """On the mean of four salts: where frequencies tie, which collisions there are decides."""
    key = np.ascontiguousarray(read(trace_path(name)).key, np.uint32)
    for capacity, wanted in theine()[name].items():
        hits = 0
        for salt in range(4):
            replay = _core.PolicyReplay("wtinylfu", capacity, int(key.max()) + 1, salt)
            replay.run(key, None, None, None, 0, len(key))
            hits += replay.hits
        assert hits / (4 * len(key)) >= wanted - 0.005, capacity


@pytest.mark.parametrize("name", traces(SMALL, REFERENCE))
def test_nobody_beats_belady(name: str, trace_path: Trail) -> None:
    results = simulate(trace_path(name), policies=WITHIN, sizes=("0.1%", "1%", "10%"))
    best = {(r.capacity): r.hits for r in results if isinstance(r, EvictionResult) and r.policy == "belady"}
    assert all(r.hits <= best[r.capacity] for r in results if isinstance(r, EvictionResult))


def pays(trace: Trace, times: float, premature: float, predictors: tuple[str, ...]) -> None:
    """Learned expiry costs less than break-even, and keeps its promise at every moment."""
    oracle = Oracle(trace)
    price = oracle.price(times)
    out = learned.replay(trace, price, premature=premature, predictors=predictors)
    if premature < 1:       # 1 switches the guard off
        assert out["worst_margin"] >= 0
        assert out["lost"] + out["in_flight"] <= premature * out["protected"] + 1
    assert oracle.clairvoyant(price).total_cost <= out["total_cost"] < oracle.break_even(price).total_cost


@pytest.mark.parametrize("premature", [1.0, 0.01])
@pytest.mark.parametrize("times", [1.0, 0.1, 0.01])
@pytest.mark.parametrize("name", ["dns_wrccdc_a", pytest.param("cran_downloads", marks=pytest.mark.slow)])
def test_learned_expiry_pays_on_small_traces(name: str, times: float, premature: float, trace_path: Trail) -> None:
    pays(read(trace_path(name), limit=30_000), times, premature, ("table", "river"))


@pytest.mark.slow
@pytest.mark.parametrize("premature", [1.0, 0.01])
@pytest.mark.parametrize("times", [1.0, 0.1, 0.01])
@pytest.mark.parametrize("name", TIMED)
def test_learned_expiry_pays_on_long_traces(name: str, times: float, premature: float, trace_path: Trail) -> None:
    """The first 80,000 requests, without river, for time's sake.

    All of mooncake_conversation: at the lowest price a part of it is over before anything breaks even.
    """
    limit = None if name == "mooncake_conversation" else 80_000
    pays(read(trace_path(name), limit=limit), times, premature, ("table",))


@pytest.mark.slow
@pytest.mark.parametrize("name", TIMED)
def test_learned_expiry_pays_with_river(name: str, trace_path: Trail) -> None:
    pays(read(trace_path(name), limit=30_000), 0.1, 0.01, ("table", "river"))
