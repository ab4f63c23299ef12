"""Miss-ratio curves: exact ones equal full replays, sampled ones lie as near as they say."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptcache import _core
from adaptcache.simulate import Curve, Trace, curve, read, simulate
from adaptcache.simulate.curves import FEW, lead
from adaptcache.simulate.sampling import places
from adaptcache.simulate.trace import dense

Trail = Callable[[str], Path]


def made(keys: object, name: str = "made") -> Trace:
    key = dense(np.asarray(keys))
    return Trace(name, key, int(key.max()) + 1)


def zipf(rows: int, keys: int, seed: int = 0, power: float = 0.9) -> Trace:
    """Popularity falls as a power of the rank, and what is popular moves on slowly."""
    rng = np.random.default_rng(seed)
    weight = np.arange(1, keys + 1) ** -power
    drawn = rng.choice(keys, rows, p=weight / weight.sum())
    return made((drawn + np.where(drawn > 20, np.arange(rows) // 100, 0)) % (2 * keys), f"zipf {seed}")


# Stack distances

@settings(max_examples=150, deadline=None)
@given(keys=st.lists(st.integers(0, 6), min_size=1, max_size=120))
def test_stack_distances_are_the_hits_of_lru_at_every_size(keys: list[int]) -> None:
    trace = made(keys)
    stack = _core.StackDistances(trace.n_keys)
    stack.run(trace.key, 0, len(trace))
    for capacity in range(1, trace.n_keys + 1):
        replay = _core.PolicyReplay("lru", capacity, trace.n_keys)
        replay.run(trace.key, None, None, None, 0, len(trace))
        assert stack.hits()[capacity] == replay.hits, capacity
    assert stack.hits()[0] == 0 and stack.requests == len(trace)


def test_stack_distances_survive_any_number_of_new_numberings_and_pieces() -> None:
    trace = zipf(20_000, 300)
    stack, whole = _core.StackDistances(trace.n_keys), _core.StackDistances(trace.n_keys)
    for start in range(0, len(trace), 777):
        stack.run(trace.key, start, min(start + 777, len(trace)))
    whole.run(trace.key, 0, len(trace))
    assert np.array_equal(stack.hits(), whole.hits())
    for capacity in (1, 2, 17, 100, trace.n_keys):
        replay = _core.PolicyReplay("lru", capacity, trace.n_keys)
        replay.run(trace.key, None, None, None, 0, len(trace))
        assert stack.hits()[capacity] == replay.hits


def test_stack_distances_refuse_what_is_outside() -> None:
    stack = _core.StackDistances(2)
    with pytest.raises(ValueError, match="row 1 has key 2"):
        stack.run(np.array([0, 2], np.uint32), 0, 2)
    with pytest.raises(ValueError, match="rows outside"):
        stack.run(np.array([0, 1], np.uint32), 0, 3)
    with pytest.raises(ValueError, match="n_keys"):
        _core.StackDistances(2**31)
    assert stack.requests == 0


# Exact curves

@pytest.mark.parametrize("policy", ["lru", "sieve", "wtinylfu", "belady", "belady-bypass"])
def test_an_exact_curve_is_a_replay_at_every_size(policy: str) -> None:
    trace = zipf(8_000, 500)
    got = curve(trace, policy, ["1%", 50, "20%"])
    for capacity, ratio, low, high in zip(got.capacities, got.miss_ratios, got.low, got.high, strict=True):
        (result,) = simulate(trace, policy, [capacity])
        assert ratio == low == high == pytest.approx(1 - result.hit_ratio, abs=1e-12)  # type: ignore[union-attr]
    assert (got.sample, got.sampled, got.requests) == (None, 8_000, 8_000)
    assert list(got.capacities) == sorted(got.capacities)


def test_a_curve_whose_sizes_nobody_named_ends_with_compulsory_misses_alone() -> None:
    trace = zipf(8_000, 500)
    got = curve(trace)
    assert got.capacities[0] == 1 and got.capacities[-1] == trace.n_keys
    assert got.miss_ratios[-1] == pytest.approx(trace.n_keys / len(trace))
    assert all(less >= more for less, more in zip(got.miss_ratios, got.miss_ratios[1:], strict=False))


def test_between_two_points_a_curve_is_straight_over_log_size_and_beyond_its_ends_flat() -> None:
    got = Curve("t", "lru", (10, 1000), (0.8, 0.4), (0.8, 0.4), (0.8, 0.4), 1, None, 1)
    assert [got.at(size) for size in (1, 10, 100, 1000, 5000)] == pytest.approx([0.8, 0.8, 0.6, 0.4, 0.4])
    with pytest.raises(FrozenInstanceError):
        got.policy = "arc"  # type: ignore[misc]


# Sampled curves

def covered(trace: Trace, policy: str, rate: float, seeds: int) -> tuple[float, float, float]:
    """Share of exact values inside the intervals, mean error with its sign, and mean half width."""
    exact: Curve | None = None
    inside, errors, widths = [], [], []
    for seed in range(seeds):
        got = curve(trace, policy, sample=rate, seed=seed)
        exact = exact or curve(trace, policy, got.capacities)
        truth, low, high = (np.array(values) for values in (exact.miss_ratios, got.low, got.high))
        inside.append((low - 1e-12 <= truth) & (truth <= high + 1e-12))
        errors.append(np.array(got.miss_ratios) - truth)
        widths.append((high - low) / 2)
    return float(np.mean(inside)), float(np.mean(errors)), float(np.mean(widths))


@pytest.mark.parametrize("policy", ["lru", "sieve", "s3fifo", "belady"])
def test_a_sampled_curve_covers_the_exact_one_as_often_as_it_says(policy: str) -> None:
    share, bias, width = covered(zipf(60_000, 8_000), policy, 0.2, 8)
    assert share > 0.9
    assert abs(bias) < 0.012 and width < 0.05


@pytest.mark.traces
@pytest.mark.parametrize("policy", ["lru", "sieve", "s3fifo", "arc", "belady"])
def test_on_recorded_traces_the_exact_value_is_inside_about_as_often_as_said(policy: str, trace_path: Trail) -> None:
    shares = [covered(read(trace_path(name)), policy, 0.1, 3)[0]
              for name in ("cloudphysics_io", "mathoverflow_users", "synth_kv_ttl", "lirs_2_pools")]
    assert np.mean(shares) > 0.88 and min(shares) > 0.7, shares


@pytest.mark.traces
@pytest.mark.parametrize("name", ["cpu_gcc", "lirs_multi3", "orm_busy"])
def test_the_exact_curve_of_lru_is_that_of_others(name: str, trace_path: Trail) -> None:
    import csv

    path = trace_path(name)
    with open(path.parent.parent / "reference" / "hitratios.csv", newline="") as file:
        wanted = {int(row["capacity"]): float(row["hit_ratio"]) for row in csv.DictReader(file)
                  if row["trace"] == name and row["policy"] == "LRU"}
    got = curve(path, "lru", sorted(wanted))
    assert dict(zip(got.capacities, got.miss_ratios, strict=True)) == \
        pytest.approx({capacity: 1 - ratio for capacity, ratio in wanted.items()}, abs=5.1e-7)


def test_a_hot_key_does_not_matter_to_a_sample_that_has_it_or_has_it_not() -> None:
    """Half of all requests are for one key. Divided by the requests that were drawn, no sample would come near."""
    rng = np.random.default_rng(3)
    keys = rng.integers(1, 4_000, 40_000)
    keys[rng.random(40_000) < 0.5] = 0
    trace = made(keys)
    exact = curve(trace, "lru", [2_000]).miss_ratios[0]
    hot = int(trace.key[int(np.flatnonzero(keys == 0)[0])])
    with_it = [seed for seed in range(40) if places(np.array([hot]), seed)[0] < 0.2][:3]
    without = [seed for seed in range(40) if places(np.array([hot]), seed)[0] >= 0.2][:3]
    for seed in with_it + without:
        got = curve(trace, "lru", [2_000], sample=0.2, seed=seed)
        assert got.miss_ratios[0] == pytest.approx(exact, abs=0.06)
    assert with_it


def test_a_sample_is_the_same_again_and_another_with_another_seed() -> None:
    trace = zipf(20_000, 3_000)
    assert curve(trace, sample=0.3, seed=1) == curve(trace, sample=0.3, seed=1)
    assert curve(trace, sample=0.3, seed=1).miss_ratios != curve(trace, sample=0.3, seed=2).miss_ratios
    got = curve(trace, sample=0.3, seed=1)
    assert got.sample == 0.3 and 0 < got.sampled < len(trace)
    assert all(low <= ratio <= high for low, ratio, high in zip(got.low, got.miss_ratios, got.high, strict=True))
    assert min(got.low) >= trace.n_keys / len(trace)    # the first request of a key misses


def test_a_lead_between_two_policies_is_told_more_closely_than_either_s_ratio() -> None:
    trace = zipf(60_000, 8_000)
    capacity = 400
    truth = curve(trace, "belady", [capacity]).miss_ratios[0] - curve(trace, "lru", [capacity]).miss_ratios[0]
    inside, closer = [], []
    for seed in range(8):
        best, lru = (curve(trace, policy, [capacity], 0.2, seed) for policy in ("belady", "lru"))
        difference, error = lead(best, lru)
        assert difference == pytest.approx(lru.miss_ratios[0] - best.miss_ratios[0])
        inside.append(abs(difference + truth) <= error)
        closer.append(error < (lru.high[0] - lru.low[0]) / 2)
        assert lru.low[0] <= np.mean([group[0] for group in lru.groups]) <= lru.high[0]
    assert sum(inside) >= 7 and sum(closer) >= 7
    assert lead(curve(trace, "belady", [400]), curve(trace, "lru", [400])) == (pytest.approx(-truth), 0.0)
    for other in (curve(trace, "lru", [500], 0.2, 7), curve(trace, "lru", [400]), curve(trace, "lru", [400], 0.2, 6)):
        with pytest.raises(ValueError, match="same sizes and the same sample"):
            lead(best, other)


# What it refuses

@pytest.mark.parametrize(("options", "says"), [
    ({"policy": "clock"}, "unknown policy 'clock'"),
    ({"sample": 0.0}, "above 0 and below 1"),
    ({"sample": 1.0}, "above 0 and below 1"),
    ({"sample": 0.5, "policy": "lfu"}, "lfu cannot be sampled"),
    ({"sample": 0.01}, "takes too few: at least 0.0"),
    ({"sample": 0.5, "sizes": [FEW]}, "from 64 entries upward"),
    ({"sizes": []}, "at least one"),
    ({"sizes": "200%"}, "at most 100%"),
])
def test_what_a_curve_cannot_tell_is_refused_with_what_would_be_right(options: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        curve(zipf(4_000, 600), **options)  # type: ignore[arg-type]
