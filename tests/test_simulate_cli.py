"""The command line and the library call behind it, through the compiled replay."""
from __future__ import annotations

import json
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from adaptcache import policies
from adaptcache.__main__ import main
from adaptcache.cli import adaptcache
from adaptcache.simulate import EvictionResult, ExpiryResult, Trace, simulate
from adaptcache.simulate.report import json_line
from adaptcache.simulate.trace import dense

EVICTION_FIELDS = ["trace", "policy", "capacity", "requests", "hits", "hit_ratio", "byte_hit_ratio", "seconds"]
EXPIRY_FIELDS = ["trace", "expiry", "memory_price", "requests", "misses", "miss_cost", "hold_cost", "total_cost",
                 "clairvoyant_cost", "best_static_cost", "protected", "lost", "bound", "in_flight", "stale_hits"]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """3,000 skewed requests for at most 200 keys, a second apart on average, with sizes and sets."""
    random = np.random.default_rng(1)
    key = dense(random.zipf(1.3, 3000) % 200)
    path = tmp_path / "small.npz"
    np.savez(path, key=key, time_s=np.cumsum(random.exponential(1, 3000)), size=1.0 + key % 7,
             op=(random.random(3000) < 0.1).astype(np.uint8))
    return path


def run(*words: object) -> Result:
    return CliRunner().invoke(adaptcache, ["simulate", *map(str, words)])


def lines(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


# What it prints

def test_json_is_one_object_a_line_with_the_promised_fields(small: Path) -> None:
    got = lines(run(small, "--policy", "fifo,lru,sieve,belady", "--size", "20,50", "--expiry",
                    "static:60,static-best,break-even,clairvoyant", "--memory-price", "1x,0.1x", "--json"))
    assert [line.get("policy") or line["expiry"] for line in got] == \
        ["fifo", "lru", "sieve", "belady"] * 2 + ["static:60", "static-best", "break-even", "clairvoyant"] * 2
    for line in got[:8]:
        assert list(line) == [*EVICTION_FIELDS, "gap_closed"]  # LRU and Belady ran beside it
        assert line["trace"] == "small" and line["hit_ratio"] == line["hits"] / line["requests"]
    for line in got[8:]:
        assert list(line)[:len(EXPIRY_FIELDS)] == EXPIRY_FIELDS
        assert line["total_cost"] == pytest.approx(line["miss_cost"] + line["hold_cost"])
        assert line["clairvoyant_cost"] <= line["best_static_cost"] and line["clairvoyant_cost"] <= line["total_cost"]
        assert line["bound"] == pytest.approx(0.01 * line["protected"] + 1)


def test_belady_is_never_beaten(small: Path) -> None:
    ratios = {line["policy"]: line["hit_ratio"]
              for line in lines(run(small, "--policy", "fifo,lru,sieve,belady", "--size", "20", "--json"))}
    assert ratios["belady"] == max(ratios.values()) > ratios["fifo"]


def test_the_table_shows_the_bound_and_the_dullest_rival(small: Path) -> None:
    result = run(small, "--policy", "sieve", "--expiry", "break-even")
    assert result.exit_code == 0, result.output
    for word in ("sieve", "lru", "belady", "break-even", "(clairvoyant)", "(static-best)", "bound"):
        assert word in result.stdout
    assert "…" not in result.stdout  # nothing is cut off in a pipe


def test_default_is_every_policy_and_the_expiries_where_there_are_times(small: Path, tmp_path: Path) -> None:
    got = lines(run(small, "--json"))
    assert [line.get("policy") or line["expiry"] for line in got] == [
        *policies(), "belady", "belady-bypass", "static-best", "break-even", "clairvoyant", "learned"]
    assert got[-1]["protected"] > 0 and "weights" in got[-1]
    assert got[-1]["lost"] + got[-1]["in_flight"] <= got[-1]["bound"]
    timeless = tmp_path / "timeless.csv"
    timeless.write_text("key\na\nb\na\n")
    assert [line["policy"] for line in lines(run(timeless, "--json"))] == [*policies(), "belady", "belady-bypass"]


def test_html_report_is_one_file_that_loads_nothing(small: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    result = run(small, "--policy", "lru,belady", "--size", "20,40,80", "--expiry", "static-best,clairvoyant", "--html", page)
    assert result.exit_code == 0, result.output
    text = page.read_text("utf-8")
    assert text.count("<svg") == 5 and "belady" in text and "static-best" in text
    assert "<script" not in text and "<link" not in text and 'src="' not in text


def test_html_escapes_the_name_of_the_trace(tmp_path: Path) -> None:
    path = tmp_path / "<b>&.csv"
    path.write_text("key\na\nb\na\n")
    page = tmp_path / "report.html"
    assert run(path, "--policy", "lru", "--html", page).exit_code == 0
    assert "<b>&" not in page.read_text("utf-8")


def test_several_traces_and_synthetic_ones(small: Path) -> None:
    got = lines(run(small, "synthetic:pipeline", "--policy", "lru", "--limit", "500", "--json"))
    assert [line["requests"] for line in got] == [500, 500]


def test_seed_makes_synthetic_traces_repeatable() -> None:
    words = ("synthetic:pipeline", "--policy", "lru", "--limit", 2000, "--json", "--seed")
    hits = [lines(run(*words, seed))[0]["hits"] for seed in (1, 1)]
    assert hits[0] == hits[1]


def test_ops_honours_sets_and_deletes_and_counts_gets_only(tmp_path: Path) -> None:
    path = tmp_path / "ops.csv"
    path.write_text("key,op\na,set\na,get\na,delete\na,get\nb,set\n")
    plain, = lines(run(path, "--policy", "lru", "--json"))
    assert (plain["requests"], plain["hits"]) == (5, 3)
    honoured, = lines(run(path, "--policy", "lru", "--ops", "--json"))
    assert (honoured["requests"], honoured["hits"]) == (2, 1)


def test_a_budget_of_stale_reads_is_reported_beside_those_who_know_more(tmp_path: Path) -> None:
    path = tmp_path / "versions.csv"
    rows = [f"{n},{n % 7},{n // 50 if n % 7 < 2 else 0}" for n in range(1500)]
    path.write_text("\n".join(["time,key,version", *rows, ""]))
    words = (path, "--expiry", "learned", "--memory-price", "1e-6")
    plain, = lines(run(*words, "--json"))
    assert "freshness" not in plain and plain["stale_hits"] > 300
    got, = lines(run(*words, "--stale", "0.05", "--json"))
    spent = got["freshness"]
    assert spent["budget"] == 0.05 and spent["stale_rate"] == got["stale_hits"] / 1500 < 0.1
    assert 0 < spent["clairvoyant"] <= spent["best_fixed"] <= spent["refreshes"] < spent["always"] == 1493
    assert "clairvoyant" in run(*words, "--stale", "0.05").stdout
    path.write_text("time,key\n0,a\n1,a\n")
    refused = run(path, "--expiry", "learned", "--memory-price", "1e-6", "--stale", "0.05")
    assert refused.exit_code == 1 and "no versions" in refused.stderr


# What it refuses

@pytest.mark.parametrize(("words", "says"), [
    (["--policy", "lru,clock"], ["--policy", "'clock'", ", ".join([*policies(), "belady", "belady-bypass"])]),
    (["--expiry", "forever"], ["--expiry", "'forever'", "static:SECONDS, static-best, break-even, clairvoyant, learned"]),
    (["--expiry", "static:-1"], ["--expiry", "'static:-1'", "0 or more"]),
    (["--expiry", "static:SECONDS"], ["--expiry", "must be a number"]),
    (["--policy", "lru", "--size", "0"], ["--size", "'0'", "1 or more"]),
    (["--policy", "lru", "--size", "10,200%"], ["--size", "'200%'", "at most 100%"]),
    (["--policy", "lru", "--size", "1.5"], ["--size", "'1.5'"]),
    (["--policy", "lru", "--size", ""], ["--size", "''"]),
    (["--expiry", "static-best", "--memory-price", "x"], ["--memory-price", "'x'", "0.1x"]),
    (["--expiry", "static-best", "--memory-price", "-1"], ["--memory-price", "'-1'", "above 0"]),
    (["--expiry", "static-best", "--memory-price", "nan"], ["--memory-price", "'nan'"]),
    (["--miss-cost", "0"], ["--miss-cost", "above 0"]),
    (["--miss-cost", "inf"], ["--miss-cost", "finite"]),
    (["--premature", "1.5"], ["--premature", "from 0 to 1"]),
    (["--premature", "nan"], ["--premature", "from 0 to 1"]),
    (["--stale", "0"], ["--stale", "above 0 and below 1"]),
    (["--stale", "1"], ["--stale", "above 0 and below 1"]),
    (["--limit", "0"], ["--limit"]),
    (["--seed", "-1"], ["--seed"]),
    (["--format", "xml"], ["--format", "npz"]),
    (["--expiry", "static-best", "--size", "1%"], ["--size goes with --policy"]),
    (["--policy", "lru", "--memory-price", "1x"], ["--memory-price goes with --expiry"]),
    (["--expiry", "break-even", "--stale", "0.01"], ["--stale goes with --expiry learned"]),
    (["--html", "/nowhere/report.html"], ["--html", "no directory"]),
])
def test_a_bad_argument_is_named_with_what_is_accepted(small: Path, words: list[str], says: list[str]) -> None:
    result = run(small, *words)
    assert result.exit_code == 2
    message = " ".join(result.stderr.split())  # click wraps long lines
    for word in says:
        assert word in message
    assert result.stdout == ""


def test_no_trace_is_a_usage_error() -> None:
    assert run().exit_code == 2


def test_a_bad_trace_ends_with_code_1_and_one_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("key,time\na,1\nb,soon\n")
    result = run(path, "--policy", "lru")
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    assert result.stderr == f"adaptcache: {path}: line 3, column time: 'soon' is not a number\n"


def test_an_unknown_synthetic_trace_ends_with_code_1(tmp_path: Path) -> None:
    result = run("synthetic:nothing", "--policy", "lru")
    assert result.exit_code == 1 and "nothing" in result.stderr


def test_expiry_of_a_trace_without_times_ends_with_code_1(tmp_path: Path) -> None:
    path = tmp_path / "timeless.csv"
    path.write_text("key\na\nb\n")
    result = run(path, "--expiry", "static-best")
    assert result.exit_code == 1 and "needs a column time" in result.stderr


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, small: Path) -> None:
    monkeypatch.setitem(sys.modules, "adaptcache.cli", None)
    monkeypatch.delitem(sys.modules, "adaptcache.cli")
    monkeypatch.setitem(sys.modules, "click", None)
    with pytest.raises(SystemExit, match=r"\.\[simulate\]"):
        main()


def test_a_missing_table_package_is_named(monkeypatch: pytest.MonkeyPatch, small: Path) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    result = run(small, "--policy", "lru")
    assert result.exit_code == 1 and ".[simulate]" in result.stderr


def test_demo_hands_its_options_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    got: dict[str, Any] = {}
    demo = ModuleType("adaptcache.demo")
    demo.main = got.update  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "adaptcache.demo", demo)
    page = tmp_path / "demo.html"
    result = CliRunner().invoke(adaptcache, ["demo", "--seconds", "2", "--seed", "7", "--no-live", "--html", str(page)])
    assert result.exit_code == 0, result.output
    assert got == {"seconds": 2.0, "seed": 7, "live": False, "html": page}


# The library call

def test_simulate_takes_a_trace_a_path_or_a_name(small: Path) -> None:
    by_path = simulate(small, "lru", 20)
    by_words = simulate(str(small), ["lru"], ["20"])
    assert isinstance(by_path[0], EvictionResult) and isinstance(by_words[0], EvictionResult)
    assert by_path[0].hits == by_words[0].hits
    assert simulate("synthetic:pipeline", ["fifo"], limit=100)[0].requests == 100


def test_percentage_sizes_are_never_below_10_entries() -> None:
    trace = Trace("many", np.arange(5000), 5000)
    got = simulate(trace, ["lru"], ["0.1%", "1%", "3"])
    assert [result.capacity for result in got if isinstance(result, EvictionResult)] == [10, 50, 3]


def test_byte_hit_ratio_weighs_hits_by_size() -> None:
    trace = Trace("bytes", np.array([0, 0, 1]), 2, size=np.array([1.0, 1.0, 6.0]))
    result, = simulate(trace, ["lru"], [2])
    assert isinstance(result, EvictionResult)
    assert (result.hit_ratio, result.byte_hit_ratio) == (pytest.approx(1 / 3), 1 / 8)


def test_lru_and_belady_agree_with_plain_python(small: Path) -> None:
    key = np.load(small)["key"].tolist()
    for capacity in (1, 7, 30):
        got = {result.policy: result.hits for result in simulate(small, ["lru", "belady"], [capacity])
               if isinstance(result, EvictionResult)}
        assert got == {"lru": lru_hits(key, capacity), "belady": belady_hits(key, capacity)}


def lru_hits(keys: list[int], capacity: int) -> int:
    held: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for key in keys:
        hits += key in held
        held[key] = None
        held.move_to_end(key)
        if len(held) > capacity:
            held.popitem(last=False)
    return hits


def belady_hits(keys: list[int], capacity: int) -> int:
    """Evicts what is asked for last; it must admit."""
    following: dict[int, float] = {}
    uses = [0.0] * len(keys)
    for i in range(len(keys) - 1, -1, -1):
        uses[i] = following.get(keys[i], float("inf"))
        following[keys[i]] = i
    held: dict[int, float] = {}
    hits = 0
    for key, use in zip(keys, uses, strict=True):
        hits += key in held
        if key not in held and len(held) >= capacity:
            del held[max(held, key=held.__getitem__)]
        held[key] = use
    return hits


def test_progress_is_told_and_ends_at_the_total(small: Path) -> None:
    told: list[tuple[str, int, int]] = []
    simulate(small, ["lru"], [10], ["break-even"], progress=lambda task, done, total: told.append((task, done, total)))
    assert ("small lru 10", 3000, 3000) in told
    assert told[-1][1] == told[-1][2] == 3000


def test_infinity_is_null_in_json(small: Path) -> None:
    # So cheap that keeping everything is best.
    result, = simulate(small, expiries=["static:inf"], memory_prices=[1e-12])
    assert isinstance(result, ExpiryResult) and result.ttl == float("inf")
    assert json.loads(json_line(result))["ttl"] is None


def test_memory_price_is_reported_absolute(small: Path) -> None:
    one, tenth, given = simulate(small, expiries=["break-even"], memory_prices=["1x", "0.1x", 0.25])
    assert isinstance(one, ExpiryResult) and isinstance(tenth, ExpiryResult) and isinstance(given, ExpiryResult)
    assert tenth.memory_price == pytest.approx(one.memory_price / 10)
    assert given.memory_price == 0.25


@pytest.mark.parametrize("options", [
    {}, {"policies": ["mru"]}, {"policies": ["lru"], "sizes": [0]}, {"policies": ["lru"], "limit": 0},
    {"expiries": ["static:x"]}, {"expiries": ["break-even"], "memory_prices": [0]},
    {"expiries": ["break-even"], "miss_cost": -1}, {"expiries": ["break-even"], "premature": 2},
])
def test_simulate_refuses_arguments_out_of_range(small: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must|nothing to|unknown|neither"):
        simulate(small, **options)


@pytest.mark.traces
@pytest.mark.parametrize(("name", "size", "fifo", "lru", "belady"), [
    ("cran_downloads", "1%", 0.335304, 0.343942, 0.495481), ("cran_downloads", "10%", 0.549551, 0.580481, 0.701538),
    ("lirs_multi3", "1%", 0.050064, 0.051685, 0.287127)])
def test_recorded_hit_ratios_are_those_of_the_reference(name: str, size: str, fifo: float, lru: float, belady: float,
                                                        trace_path: Callable[[str], Path]) -> None:
    got = simulate(trace_path(name), ["fifo", "lru", "belady"], [size])
    ratios = [result.hit_ratio for result in got if isinstance(result, EvictionResult)]
    assert ratios == pytest.approx([fifo, lru, belady], abs=5e-7)


def test_what_a_trace_left_out_is_said_beside_the_results(tmp_path: Path) -> None:
    path = tmp_path / "commands.monitor"
    path.write_text('OK\n1.5 [0 a:1] "ping"\n2.5 [0 a:1] "get" "x"\n3.5 [0 a:1] "GET" "x"\n4.5 [0 a:1] "ping"\n5.5 [0 a:1] "info"\n')
    result = run(path, "--policy", "lru", "--size", "1", "--json")
    assert [line["hits"] for line in lines(result)] == [1]
    assert result.stderr == "commands: left out 2 ping, 1 info\n"
