"""The exact costs: by eye on tiny traces, against a plain simulation, and against the reference tables."""
from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptcache.errors import TraceError
from adaptcache.simulate import Trace, read
from adaptcache.simulate.oracle import NEVER, Oracle, next_use
from adaptcache.simulate.trace import dense


def trace(keys: str, times: Sequence[float], ops: str | None = None, **columns: Any) -> Trace:
    """A trace from letters: keys "aba", operations "gsd" (get, set, delete)."""
    key = dense(list(keys))
    op = None if ops is None else ["gsd".index(letter) for letter in ops]
    return Trace("tiny", key, int(key.max()) + 1, time=np.array(times, float), op=op, **columns)  # type: ignore[arg-type]


# By eye. Sizes are 1 and misses cost 1 unless said otherwise.

def test_static_ttl_by_eye() -> None:
    # a at 0, 4 and 10. TTL 5: miss at 0, hit at 4 (gap 4), miss at 10 (gap 6).
    # Rent: 4 s, then 5 s until the TTL ends, then 0 s since the trace ends: 9 s.
    outcome = Oracle(trace("aaa", [0, 4, 10])).static(5, price=0.1)
    assert (outcome.requests, outcome.misses) == (3, 2)
    assert outcome.hold_cost == pytest.approx(0.9)
    assert outcome.total_cost == pytest.approx(2.9)


def test_what_is_held_pays_until_the_end_of_the_trace() -> None:
    # a is held from 0 on; b at 7 ends the trace, after 7 s of rent for a.
    assert Oracle(trace("ab", [0, 7])).static(math.inf, price=1.0).hold_cost == 7


def test_a_gap_equal_to_the_ttl_is_a_hit() -> None:
    assert Oracle(trace("aa", [0, 5])).static(5, price=1.0).misses == 1


def test_ttl_zero_caches_nothing_even_for_a_gap_of_zero() -> None:
    outcome = Oracle(trace("aa", [3, 3])).static(0, price=1.0)
    assert (outcome.misses, outcome.hold_cost) == (2, 0)


def test_a_set_is_free_and_restarts_the_interval() -> None:
    # set at 0, get at 3: a hit. Set at 8: free, though TTL 4 had ended at 7. Rent 3 + 4 + 0.
    outcome = Oracle(trace("aaa", [0, 3, 8], "sgs")).static(4, price=1.0)
    assert (outcome.requests, outcome.misses, outcome.hold_cost) == (1, 0, 7)


def test_nothing_is_held_after_a_delete() -> None:
    # get 0 (miss), delete 2, get 3 (miss), end. Rent: the 2 s before the delete.
    outcome = Oracle(trace("aaa", [0, 2, 3], "gdg")).static(math.inf, price=1.0)
    assert (outcome.misses, outcome.hold_cost) == (2, 2)


def test_clairvoyant_by_eye() -> None:
    # Price 0.1: break-even is 10 s. Gap 4 is kept for 0.4, gap 20 is not kept, nothing after 24.
    outcome = Oracle(trace("aaa", [0, 4, 24])).clairvoyant(price=0.1)
    assert outcome.misses == 2
    assert outcome.hold_cost == pytest.approx(0.4)


def test_clairvoyant_never_holds_for_a_set() -> None:
    outcome = Oracle(trace("aa", [0, 1], "gs")).clairvoyant(price=0.1)
    assert (outcome.misses, outcome.hold_cost) == (1, 0)


def test_break_even_follows_the_size_of_the_key() -> None:
    # b is twice as large (its largest size counts), so its TTL is 5 s where a's is 10 s.
    oracle = Oracle(trace("abab", [0, 0, 8, 8], size=[1.0, 2.0, 1.0, 1.0]))
    assert oracle.break_even_ttl(0.1).tolist() == [10, 5, 10, 5]
    outcome = oracle.break_even(0.1)
    assert outcome.misses == 3  # a hits after 8 s, b does not
    assert outcome.hold_cost == pytest.approx(0.1 * (8 * 1 + 5 * 2))


def test_each_request_may_have_its_own_miss_cost() -> None:
    # The miss to be saved is the next row's: 5. Holding 10 s at 0.1 costs 1, so it is kept.
    kept = Oracle(trace("aa", [0, 10], cost=[0.5, 5.0])).clairvoyant(0.1)
    assert (kept.miss_cost, kept.hold_cost) == (0.5, pytest.approx(1.0))
    dropped = Oracle(trace("aa", [0, 10], cost=[5.0, 0.5])).clairvoyant(0.1)
    assert (dropped.miss_cost, dropped.hold_cost) == (5.5, 0)


def test_lost_counts_protected_requests_whose_copy_was_removed() -> None:
    # Break-even 40 s, window 10 s. Gaps 3 (kept by TTL 5), 8 (protected, lost), 30 (outside the window).
    outcome = Oracle(trace("aaaa", [0, 3, 11, 41])).static(5, price=1 / 40)
    assert (outcome.protected, outcome.lost) == (2, 1)


def test_in_flight_counts_early_removals_whose_window_is_open_at_the_end() -> None:
    # Window 10 s, TTL 5 s, end at 20. a was removed at 5, its window closed at 10; b was removed at 17
    # and its window is open until 22; c is still held.
    outcome = Oracle(trace("abc", [0, 12, 20])).static(5, price=1 / 40)
    assert outcome.in_flight == 1


def test_a_stale_hit_is_one_on_a_copy_of_another_version() -> None:
    # Fetched under version 1; the hit at 1 is fresh, those at 2 and 3 stale; a set brings version 2.
    versions = [1, 1, 2, 2, 2, 2]
    outcome = Oracle(trace("aaaaaa", range(6), "ggggsg", version=versions)).static(math.inf, price=1.0)
    assert (outcome.misses, outcome.stale_hits) == (1, 2)


def test_relative_price_makes_the_median_gap_of_the_median_object_cost_one_miss() -> None:
    # Sizes 2, 4, 6 (median 4); gaps 1, 3, 0, of which 0 does not count (median 2).
    oracle = Oracle(trace("aabbcc", [0, 1, 1, 4, 4, 4], size=[2, 2, 4, 4, 6, 6]))
    assert oracle.median_size == 4
    assert oracle.price(1) * oracle.median_size * oracle.median_gap == pytest.approx(1)
    assert oracle.price(0.1) == pytest.approx(oracle.price(1) / 10)


def test_relative_price_needs_a_key_that_comes_back() -> None:
    with pytest.raises(TraceError, match="give the price as a number"):
        Oracle(trace("abc", [0, 1, 2])).price(1)


def test_a_trace_without_times_is_refused() -> None:
    with pytest.raises(TraceError, match="column time"):
        Oracle(Trace("bare", dense([0, 1, 0]), 2))


def test_next_use_by_eye() -> None:
    assert next_use(dense(list("abaab"))).tolist() == [2, 4, 3, NEVER, NEVER]


def test_next_use_with_operations_looks_for_gets_only() -> None:
    op = np.array([0, 1, 0, 2], np.uint8)
    assert next_use(dense(list("aaaa")), op).tolist() == [NEVER, 2, NEVER, NEVER]


# Against a plain simulation, row by row.

def simulated(trace: Trace, ttls: Sequence[float], price: float) -> tuple[int, float, float]:
    """Misses, their cost and the rent when row i is held for ttls[i] at most."""
    assert trace.time is not None
    largest: dict[int, float] = {}
    for i, key in enumerate(trace.key.tolist()):
        largest[key] = max(largest.get(key, 0.0), 1.0 if trace.size is None else float(trace.size[i]))
    held: dict[int, tuple[float, float]] = {}  # key -> since, ttl
    misses, miss_cost, rent = 0, 0.0, 0.0
    for i, key in enumerate(trace.key.tolist()):
        now, op = float(trace.time[i]), 0 if trace.op is None else int(trace.op[i])
        since, ttl = held.pop(key, (0.0, 0.0))
        rent += min(now - since, ttl) * largest[key] * price
        if op == 0 and not (ttl > 0 and now - since <= ttl):
            misses += 1
            miss_cost += 1.0 if trace.cost is None else float(trace.cost[i])
        if op != 2:
            held[key] = (now, ttls[i])
    for key, (since, ttl) in held.items():
        rent += min(float(trace.time[-1]) - since, ttl) * largest[key] * price
    return misses, miss_cost, rent


@st.composite
def traces(draw: st.DrawFn, rows: int = 30, ops: bool = True, costs: bool = True) -> Trace:
    n = draw(st.integers(1, rows))
    column = lambda values: draw(st.lists(values, min_size=n, max_size=n))  # noqa: E731
    key = dense(column(st.integers(0, 3)))
    return Trace(
        "drawn", key, int(key.max()) + 1,
        time=np.cumsum(column(st.sampled_from([0, 0.5, 1, 2, 8]))),
        size=draw(st.none() | st.just(np.array(column(st.integers(0, 4)), float))),
        op=np.array(column(st.integers(0, 2)), np.uint8) if ops and draw(st.booleans()) else None,
        cost=np.array(column(st.integers(0, 3)), float) if costs and draw(st.booleans()) else None,
        version=np.array(column(st.integers(0, 2)), np.uint32),
    )


TTLS = st.sampled_from([0, 0.5, 1, 1.5, 2, 4, 8, math.inf])
PRICES = st.sampled_from([0.125, 0.25, 1.0])


@given(traces(), TTLS, PRICES)
def test_static_costs_what_a_plain_simulation_says(trace: Trace, ttl: float, price: float) -> None:
    outcome = Oracle(trace).static(ttl, price)
    misses, miss_cost, rent = simulated(trace, [ttl] * len(trace), price)
    assert (outcome.misses, outcome.miss_cost) == (misses, miss_cost)
    assert outcome.hold_cost == pytest.approx(rent)


@given(traces(), PRICES)
def test_break_even_costs_what_a_plain_simulation_says(trace: Trace, price: float) -> None:
    oracle = Oracle(trace)
    misses, miss_cost, rent = simulated(trace, oracle.break_even_ttl(price).tolist(), price)
    outcome = oracle.break_even(price)
    assert (outcome.misses, outcome.miss_cost) == (misses, miss_cost)
    assert outcome.hold_cost == pytest.approx(rent)


@given(traces(), TTLS, PRICES)
def test_no_rule_costs_less_than_the_clairvoyant(trace: Trace, ttl: float, price: float) -> None:
    oracle = Oracle(trace)
    least = oracle.clairvoyant(price).total_cost
    for rule in (oracle.static(ttl, price), oracle.static_best(price), oracle.break_even(price)):
        assert least <= rule.total_cost + 1e-9


@given(traces(rows=6), PRICES)
def test_no_choice_of_ttls_costs_less_than_the_clairvoyant(trace: Trace, price: float) -> None:
    assert trace.time is not None
    gaps = np.where(next_use(trace.key) == NEVER, 0, trace.time[np.minimum(next_use(trace.key), len(trace) - 1)] - trace.time)
    # A hair longer than a gap of 0, since a TTL of 0 caches nothing.
    choices = itertools.product(*((0.0, max(gap, 1e-12)) for gap in gaps.tolist()))
    least = min(sum(simulated(trace, ttls, price)[1:]) for ttls in choices)
    assert Oracle(trace).clairvoyant(price).total_cost == pytest.approx(least)


@given(traces(ops=False, costs=False), PRICES)
def test_break_even_costs_at_most_twice_the_clairvoyant(trace: Trace, price: float) -> None:
    oracle = Oracle(trace)
    assert oracle.break_even(price).total_cost <= 2 * oracle.clairvoyant(price).total_cost + 1e-9


@given(traces(), PRICES)
def test_the_best_static_ttl_is_the_cheapest_of_the_grid(trace: Trace, price: float) -> None:
    oracle = Oracle(trace)
    best = oracle.static_best(price)
    assert best.total_cost == pytest.approx(min(oracle.static(ttl, price).total_cost for ttl in oracle.grid()))
    assert best.ttl in list(oracle.grid())


@given(traces(), TTLS, PRICES)
def test_lost_is_part_of_protected_and_stale_part_of_the_hits(trace: Trace, ttl: float, price: float) -> None:
    outcome = Oracle(trace).static(ttl, price)
    assert 0 <= outcome.lost <= outcome.protected <= outcome.requests
    assert outcome.stale_hits <= outcome.requests - outcome.misses
    assert outcome.lost <= outcome.misses


# Against the reference tables of the recorded traces: price, clairvoyant, best TTL, its cost, break-even, TTL inf.

REFERENCE = """
cloudphysics_io        1    37801.0  0.0134277    46469.8 113258.5 2592499.0
cloudphysics_io        0.1  29008.6  78.1611      37072.9 83071.4  274967.5
cloudphysics_io        0.01 21400.0  78.1611      29840.6 43162.2  43214.3
mooncake_conversation  1    255457.0 0.0322266    277715.8 480765.0 2705406.9
mooncake_conversation  0.1  199052.4 178.866      253205.7 344457.2 435051.7
mooncake_conversation  0.01 184495.0 673.868      196816.4 208016.2 208016.2
cran_downloads         1    40647.1  8.17491      51071.2 77159.3  3159602.6
cran_downloads         0.1  28161.9  120.073      46492.2 49068.3  320014.8
cran_downloads         0.01 13731.8  8189.23      30434.3 20144.7  36056.0
mathoverflow_users     1    321786.8 1223.13      441159.2 586007.1 226255481.9
mathoverflow_users     0.1  194470.1 21893.5      280246.1 340637.9 22645330.2
mathoverflow_users     0.01 108858.6 242298       156654.1 187525.0 2284315.0
synth_shift            1    436287.4 1.90868      560348.2 818653.4 107396901.1
synth_shift            0.1  301321.8 47.8025      420010.6 540749.9 10888281.0
synth_shift            0.01 190604.4 535.166      254787.2 348276.2 1237419.0
synth_kv_ttl           1    161809.6 19.7015      229882.1 335757.1 14675232.8
synth_kv_ttl           0.1  109498.7 312.248      179140.3 214811.0 1499338.3
synth_kv_ttl           0.01 62817.2  7343.93      110690.4 104861.4 181748.8
dns_wrccdc_a           1    7271.9   0.00675951   8567.4   13950.9  8629883.7
dns_wrccdc_a           0.1  5702.3   0.0981287    7136.7   10902.2  864241.2
dns_wrccdc_a           0.01 4240.2   1.42455      5717.0   7785.7   87676.9
git_reads_pig          1    167964.4 0            200000.0 315352.0 23796554.7
git_reads_pig          0.1  97308.9  171487       172866.7 158944.0 2382998.1
git_reads_pig          0.01 34061.6  6.33987e+06  67007.2  48090.1  241642.4
"""
ROWS = [(fields[0], *map(float, fields[1:])) for fields in map(str.split, REFERENCE.strip().splitlines())]


@pytest.mark.traces
@pytest.mark.parametrize("name", dict.fromkeys(row[0] for row in ROWS))
def test_recorded_traces_cost_what_the_reference_says(name: str, trace_path: Callable[[str], Path]) -> None:
    oracle = Oracle(read(trace_path(name)))
    for _, times, *expected in (row for row in ROWS if row[0] == name):
        price = oracle.price(float(times))
        best = oracle.static_best(price)
        assert best.ttl is not None
        costs = [oracle.clairvoyant(price).total_cost, best.total_cost, oracle.break_even(price).total_cost,
                 oracle.static(math.inf, price).total_cost]
        assert [round(cost, 1) for cost in costs] == pytest.approx([expected[0], *expected[2:]], abs=0.051)
        assert best.ttl == pytest.approx(expected[1], rel=1e-5)


@pytest.mark.traces
@pytest.mark.parametrize(("name", "static_zero", "stale"), [
    ("git_reads_pig", 200_000, 46_070), ("synth_kv_ttl", 247_341, 31_587), ("dns_wrccdc_a", 11_968, 181)])
def test_recorded_stale_hits_are_those_of_the_reference(name: str, static_zero: int, stale: int,
                                                        trace_path: Callable[[str], Path]) -> None:
    oracle = Oracle(read(trace_path(name)))
    price = oracle.price(0.1)
    assert oracle.static(0, price).misses == static_zero
    assert oracle.break_even(price).stale_hits == stale
