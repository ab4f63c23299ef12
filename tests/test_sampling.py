"""A sample of the keys is whole histories, evenly drawn, the same however the trace is cut, in bounded memory."""
from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptcache.advise import advise, sentences, study
from adaptcache.cli import adaptcache
from adaptcache.errors import TraceError
from adaptcache.simulate import curve, read, readers, sampling
from adaptcache.simulate.curves import FEW, GROUPS, curve_of
from adaptcache.simulate.formats import lines
from adaptcache.simulate.sampling import FEW_KEYS, HOT, Sampler, places
from adaptcache.simulate.trace import DTYPES, Trace, dense


def made(keys: Any, **columns: Any) -> Trace:
    key = dense(np.asarray(keys))
    return Trace("made", key, int(key.max()) + 1, **columns)


def zipf(rows: int, keys: int, seed: int = 0) -> Trace:
    rng = np.random.default_rng(seed)
    weight = 1 / np.arange(1, keys + 1) ** 0.5
    asked = rng.choice(keys, rows, p=weight / weight.sum())
    return made(asked, time=np.arange(rows) / 7, size=1.0 + asked)


def histories(trace: Trace) -> dict[tuple[float, ...], int]:
    """Requests by key, a key being told by its size, and when they came."""
    assert trace.time is not None and trace.size is not None
    out: dict[Any, Any] = {}
    for time, size in zip(trace.time.tolist(), trace.size.tolist(), strict=True):
        out.setdefault(size, []).append(time)
    return out


# What is kept

def test_whole_histories_are_kept_of_a_share_of_the_keys() -> None:
    trace = zipf(60_000, 12_000)
    got = sampling.of(trace, 20_000)
    assert got.rate < 1 and len(got.trace) <= 10_000 and got.hot == 0 and got.requests == got.looked_at == 60_000
    all_of_them = histories(trace)
    assert all(times == all_of_them[size] for size, times in histories(got.trace).items())
    assert got.trace.n_keys > FEW_KEYS
    assert got.keys == pytest.approx(trace.n_keys, rel=0.1)
    assert got.place.min() >= 0 and got.place.max() < got.rate
    counts = np.histogram(got.place, GROUPS, (0, got.rate))[0]
    assert counts.sum() == got.trace.n_keys and counts.min() > 0.7 * counts.mean()


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 12_000), max_size=12), seed=st.integers(0, 5))
def test_where_blocks_are_cut_decides_no_more_than_the_rate(cuts: list[int], seed: int) -> None:
    """The sample is that of its last threshold, had it stood from the start."""
    trace = zipf(12_000, 4_000)
    assert trace.time is not None and trace.size is not None
    sampler = Sampler(5_000, seed)
    for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), 12_000], strict=True):
        if start < stop:
            sampler.add({"key": trace.key[start:stop], "time": trace.time[start:stop], "size": trace.size[start:stop]})
    got = sampler.done("made", {})
    wanted = trace.size[places(sampling.mix(trace.key), seed)[np.arange(12_000)] < got.rate]
    assert got.trace.size is not None and got.trace.size.tolist() == wanted.tolist()


def test_what_fits_is_kept_whole() -> None:
    trace = zipf(5_000, 900)
    got = sampling.of(trace, 5_000)
    assert got.trace is trace and (got.rate, got.keys, got.requests, got.looked_at, got.hot) == (1, trace.n_keys, 5_000, 5_000, 0)


def test_a_key_with_many_requests_is_left_out_and_counted() -> None:
    rng = np.random.default_rng(1)
    keys = np.where(rng.random(40_000) < 0.5, 7, rng.integers(100, 9_000, 40_000))
    got = sampling.of(made(keys, size=keys), 20_000)
    assert got.hot == 1 and got.trace.size is not None and 7 not in got.trace.size
    assert np.bincount(got.trace.key).max() <= 20_000 / HOT
    assert got.keys == pytest.approx(len(np.unique(keys)), rel=0.1)
    assert got.trace.n_keys > 1_500     # of 20,000 requests for others, nearly a half


def test_of_few_keys_the_first_requests_are_kept_and_no_more() -> None:
    trace = made(np.random.default_rng(2).integers(0, 300, 100_000))
    sampler = Sampler(20_000)
    for start in range(0, 100_000, 8_000):
        sampler.add({"key": trace.key[start:start + 8_000]})
    got = sampler.done("made", {})
    assert (got.rate, got.hot, got.requests, got.keys, got.looked_at) == (1, 0, 100_000, 300, 24_000)
    assert np.array_equal(got.trace.key, trace.key[:24_000])


def test_places_are_spread_evenly_and_independent_of_the_seed_before() -> None:
    ids = np.arange(80_000)
    for seed in (0, 1, 2**63):
        counts = np.histogram(places(ids, seed), GROUPS, (0, 1))[0]
        assert np.all(np.abs(counts - 10_000) < 400)
    assert abs(np.corrcoef(places(ids, 0), places(ids, 1))[0, 1]) < 0.02
    assert abs(np.corrcoef(places(ids, 0)[1:], places(ids, 0)[:-1])[0, 1]) < 0.02


# What follows from it

def test_a_curve_of_a_sample_covers_the_exact_one() -> None:
    trace = zipf(60_000, 12_000)
    exact = {policy: curve(trace, policy, [400, 1_200, 4_000]) for policy in ("lru", "sieve")}
    inside = 0
    for seed in range(8):
        drawn = sampling.of(trace, 30_000, seed)
        for policy, wanted in exact.items():
            got = curve_of(drawn, policy, [400, 1_200, 4_000])
            assert got.requests == 60_000 and got.sampled == len(drawn.trace)
            inside += sum(low <= value <= high for low, value, high in zip(got.low, wanted.miss_ratios, got.high, strict=True))
            assert got.miss_ratios == pytest.approx(wanted.miss_ratios, abs=0.05)
    assert inside >= 0.85 * 8 * 6


def test_a_curve_of_all_keys_is_exact() -> None:
    trace = zipf(6_000, 900)
    assert curve_of(sampling.whole(trace), "lru", [10, 100]) == curve(trace, "lru", [10, 100])
    with pytest.raises(ValueError, match="lfu cannot be sampled"):
        curve_of(sampling.of(zipf(60_000, 12_000), 20_000), "lfu", [1_000])
    few = sampling.of(zipf(60_000, 12_000), 20_000)
    with pytest.raises(ValueError, match=f"from {int(np.ceil(FEW / few.rate))} entries upward"):
        curve_of(few, "lru", [FEW])


# Files

def write_csv(path: Path, rows: int, seed: int = 0, keys: int = 40_000) -> Path:
    rng = np.random.default_rng(seed)
    asked = (keys * rng.random(rows) ** 1.5).astype(int)
    path.write_text("key,time,size\n" + "".join(f"{key},{row},{key % 90 + 1}\n" for row, key in enumerate(asked.tolist())))
    return path


def same(a: Trace, b: Trace) -> bool:
    columns = [name for name in DTYPES if getattr(a, name) is not None]
    return (a.name, a.n_keys, sorted(a.features)) == (b.name, b.n_keys, sorted(b.features)) \
        and all(np.array_equal(getattr(a, name), getattr(b, name)) for name in columns) \
        and all(np.array_equal(a.features[name], b.features[name]) for name in a.features)


def test_a_file_that_fits_is_what_read_gives(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", 3_000)
    got = readers.sample(path, most=3_000)
    assert got.rate == 1 and same(got.trace, read(path))


def test_words_among_the_numbers_of_a_feature_are_met_late(tmp_path: Path) -> None:
    """As by `read`: what was taken for numbers is read again as words."""
    path = tmp_path / "t.csv"
    path.write_text("key,feat_x\n" + "".join(f"{row % 5000},{row if row < 299_000 else 'word'}\n" for row in range(300_000)))
    got = readers.sample(path, most=20_000)
    assert got.rate < 1 and got.trace.features["x"].dtype.kind in "iu"


def test_a_log_that_is_out_of_order_is_sorted(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    lines = [f'::1 - - [10/Oct/2000:{row // 3600:02}:{row // 60 % 60:02}:{row % 60:02} +0000] "{method} /i/{rng.integers(9_000)} HTTP/1.1" 200 5\n'
             for row, method in enumerate(["GET"] * 30_000)]
    lines[5], lines[29_000] = lines[29_000], lines[5].replace("GET", "POST")
    path = tmp_path / "access.log"
    path.write_text("".join(lines))
    got = readers.sample(path, most=12_000)
    assert got.rate < 1 and got.trace.time is not None and np.all(np.diff(got.trace.time) >= 0)
    assert got.trace.left_out == {"no GET or HEAD": 1} and got.requests == 29_999


def test_what_is_wrong_late_in_a_file_is_said(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "t.csv", 40_000)
    with path.open("a") as file:
        file.write("7,5,1\n")
    with pytest.raises(TraceError, match=r"line 40002.*time goes back"):
        readers.sample(path, most=5_000)


def peak(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "SIZE", 1 << 18)     # bytes that are read at a time: many times the file's
    short, long = (write_csv(tmp_path / f"{rows}.csv", rows, keys=100_000) for rows in (100_000, 400_000))
    assert len(readers.sample(long, most=20_000).trace) <= 10_000
    assert peak(lambda: readers.sample(long, most=20_000)) < 1.2 * peak(lambda: readers.sample(short, most=20_000))
    assert peak(lambda: read(long)) > 3 * peak(lambda: read(short))     # which this bound would not pass


def test_an_advice_on_a_long_file_is_near_that_on_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_csv(tmp_path / "t.csv", 60_000, keys=9_000)
    exact = advise(path, size=1_000, ttl=5_000.0)
    monkeypatch.setattr(study, "EXACT_ROWS", 30_000)
    monkeypatch.setattr(study, "LEARNED_ROWS", 3_000)
    got = advise(path, size=1_000, ttl=5_000.0)
    assert exact.sample is None and got.sample is not None and got.policy is not None and exact.policy is not None
    assert (got.requests, got.looked_at) == (60_000, 60_000) and got.sampled <= 15_000
    assert got.keys == pytest.approx(exact.keys, rel=0.05)
    for name, low in got.policy.low.items():
        assert low - 0.01 <= exact.policy.hit_ratios[name] <= got.policy.high[name] + 0.01
    assert got.expiry is not None and exact.expiry is not None
    assert got.expiry.memory_price == pytest.approx(exact.expiry.memory_price, rel=0.1)
    assert got.expiry.ttl_against_learned == pytest.approx(exact.expiry.ttl_against_learned, rel=0.25)
    told = " ".join(sentences(got))
    assert f"for about {got.keys:,} keys" in told and f"their {got.sampled:,} requests" in told
    spoken = CliRunner().invoke(adaptcache, ["advise", str(path), "--size", "1000"])
    assert spoken.exit_code == 0 and "of the keys, drawn by hash" in " ".join(spoken.stdout.split())


def test_an_advice_says_what_it_did_not_look_at(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    monkeypatch.setattr(study, "EXACT_ROWS", 20_000)
    hot = np.where(rng.random(40_000) < 0.5, 7, rng.integers(100, 9_000, 40_000))
    told = " ".join(sentences(advise(made(hot))))
    assert "1 of the hottest keys are not among those" in told and "were looked at: they are many" not in told
    monkeypatch.setattr(sampling, "PIECE", 8_000)
    told = " ".join(sentences(advise(made(rng.integers(0, 300, 100_000)))))
    assert "Only the first 24,000 requests were looked at" in told and "drawn by hash" not in told
