"""An advice says nothing that a full simulation does not, and says when it cannot know."""
from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from adaptcache import policies
from adaptcache.advise import Advice, advise, sentences, study, to_json
from adaptcache.cli import adaptcache
from adaptcache.simulate import Trace, simulate
from adaptcache.simulate.oracle import Oracle
from adaptcache.simulate.trace import dense


def made(keys: Any, time: Any = None, **columns: Any) -> Trace:
    key = dense(np.asarray(keys))
    return Trace("made", key, int(key.max()) + 1, time=None if time is None else np.asarray(time, float), **columns)


def drawn(rows: int, keys: int, seed: int = 0) -> Trace:
    """Popularity by rank, a fifth of the requests for keys that never come back, a request a second or so."""
    rng = np.random.default_rng(seed)
    weight = 1 / np.arange(1, keys + 1)
    asked = rng.choice(keys, rows, p=weight / weight.sum())
    once = rng.random(rows) < 0.2
    asked[once] = keys + np.arange(int(once.sum()))
    return made(asked, np.cumsum(rng.exponential(1.0, rows)), size=rng.integers(1, 2000, asked.max() + 1)[asked])


@pytest.fixture(scope="module")
def trace() -> Trace:
    return drawn(12_000, 1_500)


@pytest.fixture(scope="module")
def advice(trace: Trace) -> Advice:
    return advise(trace, size=100, ttl=300.0)


# What it claims is what a full simulation says

def test_every_hit_ratio_is_that_of_a_full_simulation(trace: Trace, advice: Advice) -> None:
    policy = advice.policy
    assert policy is not None and policy.capacity == 100
    full: dict[str, Any] = {result.policy: result for result in simulate(trace, [*policies(), "belady-bypass"], [100])}  # type: ignore[union-attr]
    assert policy.hit_ratios == pytest.approx({name: full[name].hit_ratio for name in policies()})
    assert policy.best_possible == pytest.approx(full["belady-bypass"].hit_ratio)
    assert full[policy.best].hit_ratio == max(full[name].hit_ratio for name in policies())
    assert policy.low == policy.high == policy.hit_ratios


def test_the_curve_is_that_of_full_simulations(trace: Trace, advice: Advice) -> None:
    assert advice.policy is not None
    name = advice.policy.recommended
    assert 100 in [point.capacity for point in advice.size.curve]
    for point in advice.size.curve[::3]:
        full: dict[str, Any] = {result.policy: result.hit_ratio  # type: ignore[union-attr]
                                for result in simulate(trace, [name, "lru", "belady-bypass"], [point.capacity])}
        assert (point.hit_ratio, point.lru, point.best_possible) == \
            pytest.approx((full[name], full["lru"], full["belady-bypass"]))
    (half,), (double,) = simulate(trace, [name], [50]), simulate(trace, [name], [200])
    assert (advice.size.half, advice.size.double) == pytest.approx((half.hit_ratio, double.hit_ratio))  # type: ignore[union-attr]


def test_the_halves_are_those_of_one_run_over_the_whole_trace(trace: Trace, advice: Advice) -> None:
    assert advice.policy is not None
    for name, (first, second) in advice.policy.halves.items():
        assert (first + second) / 2 == pytest.approx(advice.policy.hit_ratios[name])
        (alone,) = simulate(trace, [name], [100], limit=6_000)
        assert first == pytest.approx(alone.hit_ratio)  # type: ignore[union-attr]
    assert "lru" in advice.policy.halves and advice.policy.recommended in advice.policy.halves


def test_every_cost_is_that_of_a_full_simulation(trace: Trace, advice: Advice) -> None:
    expiry = advice.expiry
    assert expiry is not None and expiry.samples == 0 and expiry.models
    full: dict[str, Any] = {result.expiry: result for result in simulate(  # type: ignore[union-attr]
        trace, expiries=["static:inf", "static-best", "break-even", "clairvoyant", "learned"], memory_prices=["0.1x"])}
    assert expiry.costs["none"] == pytest.approx(full["static:inf"].total_cost)
    for rule in ("static-best", "break-even", "clairvoyant", "learned"):
        assert expiry.costs[rule] == pytest.approx(full[rule].total_cost)
    assert expiry.best_ttl == full["static-best"].ttl
    assert expiry.memory_price == full["learned"].memory_price
    assert expiry.ttl_against_learned == pytest.approx(expiry.costs["fixed"] / full["learned"].total_cost)


def test_a_fixed_ttl_is_counted_from_the_store(trace: Trace, advice: Advice) -> None:
    """Beside a plain loop: a hit does not prolong it."""
    assert advice.expiry is not None and trace.time is not None
    oracle = Oracle(trace)
    price = oracle.price(0.1)
    stored: dict[int, float] = {}
    size = dict(zip(trace.key.tolist(), oracle.size.tolist(), strict=True))
    cost, end = 0.0, float(trace.time[-1])
    for key, now in zip(trace.key.tolist(), trace.time.tolist(), strict=True):
        if key not in stored or now >= stored[key] + 300:
            if key in stored:
                cost += 300 * size[key] * price
            stored[key] = now
            cost += 1
    cost += sum(min(300, end - since) * size[key] * price for key, since in stored.items())
    assert advice.expiry.costs["fixed"] == pytest.approx(cost, rel=1e-6)


# What it recommends

def test_the_size_is_where_the_last_doubling_pays() -> None:
    loop = advise(made(np.tile(np.arange(300), 20)))
    assert loop.size.recommended == 300
    assert loop.size.here == pytest.approx(0.95) and loop.size.half is not None and loop.size.half < 0.5
    rng = np.random.default_rng(1)
    few = advise(made(np.concatenate([rng.integers(0, 40, 8_000), 1_000 + np.arange(4_000)])[rng.permutation(12_000)]))
    assert few.size.recommended is not None and few.size.recommended < 200
    ratios = {point.capacity: point.hit_ratio for point in few.size.curve}
    beyond = [ratio for capacity, ratio in ratios.items() if capacity >= few.size.recommended]
    assert all(more - less < study.WORTH for less, more in pairwise(beyond))


def test_a_stated_price_of_memory_decides_the_size(trace: Trace) -> None:
    dear, cheap = (advise(trace.head(4_000), memory_price=price).size for price in ("100x", "0.0001x"))
    assert dear.recommended is not None and cheap.recommended is not None
    assert dear.recommended < cheap.recommended
    assert "cost" in dear.reason and "misses" in dear.reason


def test_a_scan_beside_a_hot_set_is_no_case_for_lru() -> None:
    rng = np.random.default_rng(2)
    keys = np.where(rng.random(20_000) < 0.5, rng.integers(0, 60, 20_000), 1_000 + np.arange(20_000) % 4_000)
    got = advise(made(keys), size=80).policy
    assert got is not None and got.recommended != "lru"
    assert got.hit_ratios[got.recommended] > got.hit_ratios["lru"] + 0.05
    assert got.hit_ratios[got.recommended] >= got.hit_ratios[got.best] - study.ADAPTIVE_LAG


def test_a_lead_that_says_nothing_leaves_the_plainer_policy() -> None:
    rng = np.random.default_rng(3)
    got = advise(made(rng.integers(0, 50, 6_000)), size=49).policy
    assert got is not None and got.recommended in ("lru", "adaptive")
    assert got.hit_ratios[got.best] - got.hit_ratios[got.recommended] < study.ADAPTIVE_LAG


def test_no_expiry_where_everything_earns_its_place_and_learning_where_much_does_not(advice: Advice) -> None:
    again = made(np.tile(np.arange(50), 100), np.arange(5_000.0))
    assert (kept := advise(again).expiry) is not None and kept.recommended == "none"
    assert advice.expiry is not None and advice.expiry.recommended in ("learned", "fixed")
    least = min(advice.expiry.costs[name] for name in ("none", "static-best", "learned"))
    chosen = {"learned": "learned", "fixed": "static-best"}[advice.expiry.recommended]
    assert advice.expiry.costs[chosen] <= least / (1 - study.CHEAPER)


# What it says of itself

def test_it_says_so_when_no_key_comes_back() -> None:
    got = advise(made(np.arange(100), np.arange(100.0)))
    assert got.size.recommended is None and got.policy is None and got.expiry is None
    text = " ".join(sentences(got))
    assert "no key is asked for twice" in text.lower() and "too short" in text


def test_it_says_so_when_the_trace_is_too_short_or_has_no_times(advice: Advice) -> None:
    assert not any("too short:" in warning for warning in advice.warnings)
    short = advise(made([0, 1, 0, 2, 0, 1] * 20))
    assert any("too short: 117 of its requests repeat" in warning for warning in short.warnings)
    assert any("no times" in warning for warning in short.warnings) and short.expiry is None


def test_it_says_so_when_the_trace_is_shorter_than_what_an_entry_waits(trace: Trace) -> None:
    got = advise(trace.head(4_000), memory_price="0.0001x")
    assert got.expiry is not None and got.span is not None and got.span < 4 * got.expiry.break_even
    assert any("too short for expiry" in warning for warning in got.warnings)


def test_it_says_that_it_does_not_know_when_values_change(trace: Trace, advice: Advice) -> None:
    assert any("ceiling" in warning for warning in advice.warnings)
    versions = Trace("v", trace.key, trace.n_keys, time=trace.time, version=np.zeros(len(trace), np.uint32))
    assert not any("ceiling" in warning for warning in advise(versions.head(3_000)).warnings)


def test_it_says_what_was_left_out_or_counted_as_something_else(tmp_path: Path) -> None:
    sets = made([0, 1, 0, 1] * 25, op=[0, 1, 0, 0] * 25)
    assert any("25.0% of the rows are sets or deletes" in warning for warning in advise(sets).warnings)
    path = log(tmp_path / "access.log", 50)
    path.write_text(path.read_text() + '::1 - - [10/Oct/2000:14:00:00 +0000] "POST /item/1 HTTP/1.1" 200 512\n')
    assert any("Left out" in warning and "1 " in warning for warning in advise(path).warnings)


def test_a_sampled_advice_states_its_error_and_keeps_it(trace: Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = drawn(40_000, 6_000, 5)
    exact = advise(whole, size=1_000, ttl=500.0)
    monkeypatch.setattr(study, "EXACT_ROWS", 20_000)
    monkeypatch.setattr(study, "LEARNED_ROWS", 2_500)
    got = advise(whole, size=1_000, ttl=500.0)
    assert 0.2 < got.sample < 0.4 and got.sampled <= 10_000 and got.policy is not None and exact.policy is not None
    inside = [got.policy.low[name] <= exact.policy.hit_ratios[name] <= got.policy.high[name] for name in got.policy.hit_ratios]
    assert sum(inside) >= 0.8 * len(inside)
    assert "lfu" not in got.policy.hit_ratios  # a miniature of it is another policy
    assert got.expiry is not None and exact.expiry is not None and got.expiry.samples == 3
    assert got.expiry.low is not None and got.expiry.ttl_against_learned is not None and got.expiry.high is not None
    assert got.expiry.low <= got.expiry.ttl_against_learned <= got.expiry.high
    assert exact.expiry.ttl_against_learned == pytest.approx(got.expiry.ttl_against_learned, rel=0.2)
    text = " ".join(sentences(got))
    assert f"{100 * got.sample:.3g}% of the keys" in text and "±" in text and "in 3 samples" in text


def test_keys_too_hot_for_a_sample_are_left_out_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    keys = np.where(rng.random(20_000) < 0.6, 0, rng.integers(1, 2_000, 20_000))
    monkeypatch.setattr(study, "LEARNED_ROWS", 2_000)
    got = advise(made(keys, np.arange(20_000.0))).expiry
    assert got is not None and got.hot == 1
    assert 4_500 < got.requests < 7_500     # of the other 8,000, three quarters


# Words

def test_the_words_hold_the_numbers(advice: Advice) -> None:
    text = " ".join(sentences(advice))
    assert advice.expiry is not None and advice.expiry.ttl_against_learned is not None
    assert f"Your fixed TTL of 300 s costs {advice.expiry.ttl_against_learned:.2f}× what learning would" in text
    assert advice.size.here is not None and advice.size.double is not None
    assert f"2× memory gives {100 * (advice.size.double - advice.size.here):+.1f} points" in text
    assert f"{advice.size.recommended:,} entries" in text and "None" not in text and "nan" not in text


def test_json_holds_all_of_it_and_no_infinity() -> None:
    got = json.loads(to_json(advise(made(np.tile(np.arange(50), 100), np.arange(5_000.0)))), parse_constant=pytest.fail)
    assert got["expiry"]["recommended"] == "none" and got["size"]["curve"][0]["capacity"] >= 1
    assert isinstance(got["sentences"], list)


# The command

def run(*words: Any) -> Result:
    return CliRunner().invoke(adaptcache, ["advise", *map(str, words)])


def log(path: Path, rows: int) -> Path:
    rng = np.random.default_rng(6)
    path.write_text("".join(
        f'::1 - - [10/Oct/2000:13:{row // 60 % 60:02}:{row % 60:02} +0000] "GET /item/{min(int(rng.pareto(0.8)), 500)} HTTP/1.1" 200 512\n'
        for row in range(rows)))
    return path


def test_an_access_log_is_advised_on_the_command_line(tmp_path: Path) -> None:
    path = log(tmp_path / "access.log", 1_200)
    result = run(path, "--ttl", 300, "--size", 20)
    assert result.exit_code == 0, result.output
    for words in ("access.log: 1,200 requests", "Size:", "Policy:", "Expiry:", "Your fixed TTL of 300 s costs", "2× memory gives", "yours"):
        assert words in " ".join(result.stdout.split())
    got = json.loads(run(path, "--ttl", 300, "--size", 20, "--json").stdout)
    assert got["requests"] == 1_200 and got["size"]["current"] == 20 and got["expiry"]["ttl"] == 300
    assert got == json.loads(run(path, "--ttl", 300, "--size", 20, "--json").stdout)   # the same again


@pytest.mark.parametrize(("words", "says"), [
    (["--ttl", "0"], "above 0"), (["--size", "0"], "1 or more"), (["--memory-price", "x"], "0.1x"), (["--miss-cost", "-1"], "above 0"),
])
def test_a_bad_option_is_named_with_what_is_accepted(words: list[str], says: str, tmp_path: Path) -> None:
    result = run(tmp_path / "never-opened", *words)
    assert result.exit_code == 2 and words[0] in result.output and says in result.output


def test_a_trace_that_cannot_be_read_ends_with_a_line(tmp_path: Path) -> None:
    result = run(tmp_path / "none.npz")
    assert result.exit_code == 1 and "no such file" in result.output


@pytest.mark.parametrize("options", [{"ttl": 0.0}, {"ttl": math.inf}, {"miss_cost": 0.0}, {"size": 0}, {"memory_price": "x"}])
def test_the_library_refuses_the_same(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        advise(made([0, 0]), **options)
