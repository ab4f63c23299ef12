"""The page, the csv and the comparison of two runs: every number in them is a result's."""
from __future__ import annotations

import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from adaptcache.cli import adaptcache
from adaptcache.errors import TraceError
from adaptcache.simulate import EvictionResult, Trace, simulate
from adaptcache.simulate.compare import compare, json_lines
from adaptcache.simulate.html import INK, heat, page
from adaptcache.simulate.report import json_line, to_csv
from adaptcache.simulate.run import Parts, Ways, closing
from adaptcache.simulate.trace import dense

WAYS_NOTE = "has several ways of deciding"


def made(name: str, rows: int = 1_500, seed: int = 0, **columns: Any) -> Trace:
    rng = np.random.default_rng(seed)
    key = dense(np.minimum(rng.pareto(0.7, rows) * 5, 800).astype(int))
    return Trace(name, key, int(key.max()) + 1, time=np.arange(rows) * 1.0, **columns)


def eviction(trace: str, policy: str, capacity: int, ratio: float) -> EvictionResult:
    return EvictionResult(trace, policy, capacity, 1000, round(1000 * ratio), ratio, ratio, 0.1)


@pytest.fixture(scope="module")
def results() -> list[Any]:
    out: list[Any] = []
    for name in ("one", "two"):
        out += simulate(made(name, seed=len(out)), ["lru", "sieve", "belady", "belady-bypass"], [20, 60, 180],
                        ["static-best", "clairvoyant", "learned"], ["0.1x"], timeline=10)
    return out


@pytest.fixture(scope="module")
def text(results: list[Any]) -> str:
    return page(results)


# Measures that a run adds

def test_the_share_of_the_gap_that_is_closed_and_of_the_costs_that_misses_have() -> None:
    got = list(closing([eviction("t", "lru", 5, 0.2), eviction("t", "arc", 5, 0.35), eviction("t", "belady", 5, 0.5)]))
    assert [result.gap_closed for result in got] == pytest.approx([0, 0.5, 1])
    assert [result.gap_closed for result in closing([eviction("t", "arc", 5, 0.3), eviction("t", "belady", 5, 0.5)])] == [None, None]
    assert [result.gap_closed for result in closing([eviction("t", "lru", 5, 0.5), eviction("t", "belady", 5, 0.5)])] == [None, None]


def test_cost_ratio_weighs_misses_by_what_they_cost() -> None:
    trace = Trace("t", np.array([0, 1, 0, 1, 0, 2]), 3, cost=np.array([5.0, 1, 5, 1, 5, 3]))
    for capacity, missed in ((3, 9), (1, 20)):      # misses 0, 1, 2; and everything
        (got,) = simulate(trace, "lru", [capacity])
        assert got.cost_ratio == pytest.approx(missed / 20)     # type: ignore[union-attr]
    (bare,) = simulate(made("t"), "lru", [5])
    assert bare.cost_ratio is None      # type: ignore[union-attr]
    assert "cost_ratio" not in json.loads(json_line(bare))
    sets = Trace("t", np.array([0, 0, 1]), 2, op=np.array([1, 0, 0]), cost=np.array([7.0, 2, 3]))
    (told,) = simulate(sets, "lru", [2], ops=True)
    assert told.cost_ratio == pytest.approx(3 / 5)      # type: ignore[union-attr]      # a set costs nothing


def test_a_timeline_adds_up_to_the_whole(results: list[Any]) -> None:
    for result in results:
        if isinstance(result, EvictionResult):
            assert result.timeline is not None
            parts = result.timeline["hit_ratio"]
            assert len(parts) == 10 and np.mean(parts) == pytest.approx(result.hit_ratio)
    learned = next(result for result in results if getattr(result, "expiry", "") == "learned")
    shares = [values for name, values in learned.timeline.items() if name.startswith("weight:")]
    assert np.sum(shares, axis=0) == pytest.approx(np.ones(10))
    assert {name.removeprefix("weight:"): values[-1] for name, values in learned.timeline.items() if name.startswith("weight:")} \
        == pytest.approx(dict(learned.weights), abs=0.05)


LOOP = Trace("loop", np.arange(6_000) % 130, 130)    # so much longer than the cache that nothing but refusals helps


def test_a_timeline_tells_which_way_was_followed() -> None:
    lru, adaptive = simulate(LOOP, ["lru", "adaptive"], [100], timeline=6)
    assert isinstance(lru, EvictionResult) and isinstance(adaptive, EvictionResult)
    assert adaptive.timeline is not None and adaptive.ways is not None and lru.timeline is not None
    assert set(adaptive.timeline) == {"hit_ratio", "way:open", "way:strict"}
    assert np.add(adaptive.timeline["way:open"], adaptive.timeline["way:strict"]) == pytest.approx(np.ones(6))
    assert dict(adaptive.ways) == pytest.approx({way: np.mean(adaptive.timeline[f"way:{way}"]) for way in ("open", "strict")})
    assert adaptive.timeline["way:strict"][0] < 1 and adaptive.timeline["way:strict"][-1] == 1
    assert json.loads(json_line(adaptive))["ways"] == dict(adaptive.ways)
    assert set(lru.timeline) == {"hit_ratio"} and lru.ways is None and "ways" not in json.loads(json_line(lru))
    (bare,) = simulate(LOOP, "adaptive", [100])
    assert isinstance(bare, EvictionResult) and bare.ways == adaptive.ways and bare.timeline is None


def test_ways_of_a_part_are_those_of_its_own_rows() -> None:
    ways = Ways()
    for spent in ({"a": 4, "b": 0}, {"a": 5, "b": 3}, {"a": 5, "b": 3}, {"a": 5, "b": 5}):
        ways.at(spent)
    assert ways.shares() == {"way:a": (1, 0.25, 0, 0), "way:b": (0, 0.75, 0, 1)}
    assert ways.whole() == {"a": 0.5, "b": 0.5}


def test_the_page_shows_which_way_was_followed() -> None:
    with_it = page(simulate(LOOP, ["lru", "adaptive"], [100], timeline=6))
    without = page(simulate(LOOP, ["lru", "arc"], [100], timeline=6))
    figure = with_it[with_it.index("Hit ratio along the trace"):]
    assert "strict</text>" in figure[:figure.index("</figure>")] and WAYS_NOTE in with_it
    assert "strict</text>" not in without and WAYS_NOTE not in without


def test_parts_without_requests_repeat_the_part_before() -> None:
    parts = Parts()
    for hits, requests in ((0, 0), (3, 4), (3, 4), (4, 8)):
        parts.at(hits, requests)
    assert parts.ratios() == (0.0, 0.75, 0.75, 0.25)


# csv

def test_csv_holds_every_number_of_every_result(results: list[Any]) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(results))))
    assert len(rows) == len(results)
    for row, result in zip(rows, results, strict=True):
        assert row["kind"] == ("eviction" if isinstance(result, EvictionResult) else "expiry")
        for name, value in json.loads(json_line(result)).items():
            if name in ("weights", "ways", "timeline"):
                assert name not in row
            elif isinstance(value, float):
                assert float(row[name]) == value
            else:
                assert row[name] == ("" if value is None else str(value))


# The page

class Outline(HTMLParser):
    """Tags that are open, what was written, and what would be loaded from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.count: dict[str, int] = {}
        self.loads: list[str] = []
        self.tables_outside: int = 0
        self.wide = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.count[tag] = self.count.get(tag, 0) + 1
        if tag in ("script", "link", "img", "iframe") or "src" in given or "://" in (given.get("href") or ""):
            self.loads.append(f"{tag} {given}")
        if tag == "table" and (self.open[-1] if self.open else "") != "div wide":
            self.tables_outside += 1
        if tag not in ("meta", "path", "use", "br", "wbr"):
            self.open.append(f"{tag} {given.get('class')}" if given.get("class") else tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("meta", "path", "use", "br", "wbr"):
            assert self.open and self.open.pop().split()[0] == tag, f"</{tag}>"


def test_the_page_is_whole_and_loads_nothing(text: str) -> None:
    outline = Outline()
    outline.feed(text)
    assert outline.open == [] and outline.loads == [] and "@import" not in text and not re.search(r"url\((?!#)", text)
    # Two traces: a curve, three timelines, bars, and the learned weights; each in a figure of its own.
    assert outline.count["svg"] == outline.count["figure"] == 2 * 6
    assert outline.count["section"] == 2


def test_the_page_reads_on_a_phone_and_in_the_dark(text: str) -> None:
    outline = Outline()
    outline.feed(text)
    assert outline.tables_outside == 0          # each scrolls within itself
    assert 'name="viewport" content="width=device-width' in text and "prefers-color-scheme: dark" in text
    assert INK not in text and "currentColor" in text       # what is written in plots follows the page
    assert "svg { width: 100%" in text


def test_the_heat_map_tells_how_far_each_policy_is_behind() -> None:
    got = heat([eviction("a", "lru", 5, 0.30), eviction("a", "arc", 5, 0.42), eviction("a", "belady", 5, 0.9),
                eviction("b", "lru", 5, 0.50), eviction("b", "arc", 5, 0.40), eviction("b", "arc", 5, 0.44),
                eviction("b", "lru", 9, 0.70)])
    assert got is not None and got.policies == ("lru", "arc")
    assert [(row.trace, row.capacity, row.best) for row in got.rows] == [("a", 5, "arc"), ("b", 5, "lru"), ("b", 9, "lru")]
    assert [value for row in got.rows for value in row.behind] == [pytest.approx(0.12), 0, 0, pytest.approx(0.08), 0, None]
    assert (got.mean, got.worst) == (pytest.approx((0.04, 0.04)), pytest.approx((0.12, 0.08)))
    assert [got.share(behind) for behind in (None, 0.0, 0.075, 0.5)] == [0, 0, 50, 100]
    assert heat([eviction("a", "lru", 5, 0.3), eviction("a", "belady", 5, 0.5)]) is None


def test_the_heat_map_has_the_best_policy_first() -> None:
    got = heat([eviction("a", "lru", 5, 0.30), eviction("a", "arc", 5, 0.42), eviction("a", "fifo", 5, 0.35),
                eviction("b", "lru", 5, 0.50), eviction("b", "arc", 5, 0.49)])
    assert got is not None and got.policies == ("arc", "lru", "fifo")
    assert got.mean == pytest.approx((0.005, 0.06, 0.07)) and got.worst == pytest.approx((0.01, 0.12, 0.07))
    assert [value for row in got.rows for value in row.behind] == [0, pytest.approx(0.12), pytest.approx(0.07), pytest.approx(0.01), 0, None]


def test_one_legend_tells_whose_line_is_whose_in_all_plots_of_a_trace(results: list[Any], text: str) -> None:
    legends = re.findall(r'<p class="legend">(.*?)</p>', text)
    assert len(legends) == 2
    for legend in legends:
        told = dict(re.findall(r'border-top: \d+px (.*?)"></i>(.*?)</span>', legend))
        assert list(told.values()) == ["lru", "sieve", "belady", "belady-bypass"]     # four looks
    (ranked,) = [page([result for result in results if getattr(result, "capacity", 0) == 20 and result.timeline and result.trace == "one"])]
    assert ranked.count('class="legend"') == 1
    bare = page(simulate(made("t"), ["lru", "sieve"], [20]))
    assert 'class="legend"' not in bare     # bars have their names beside them


def test_the_page_shows_the_heat_map_s_numbers(results: list[Any], text: str) -> None:
    got = heat([result for result in results if isinstance(result, EvictionResult)])
    assert got is not None
    cells = re.findall(r'<td class="cell[^>]*>([^<]*)</td>', text)
    assert cells == [f"{100 * value:.1f}" for row in (*(row.behind for row in got.rows), got.mean, got.worst)
                     for value in row if value is not None]


# Two runs

def write(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def test_two_runs_are_compared_cell_by_cell(tmp_path: Path, results: list[Any]) -> None:
    before = [json_line(result) for result in results]
    after = [json.loads(line) for line in before]
    after[1]["hit_ratio"] += 0.05
    after[-1]["total_cost"] *= 1.1
    gone, come = after.pop(0), dict(after[1], policy="new")
    a, b = write(tmp_path / "a.json", before), write(tmp_path / "b.json", [json.dumps(line) for line in [*after, come]])
    got = compare(a, b)
    changed = {(change.trace, change.name): change.change for change in got.changes if change.change}
    assert changed == {("one", "sieve"): pytest.approx(0.05), ("two", "learned"): pytest.approx(0.1)}
    assert [cell[1:3] for cell in got.only_a] == [(gone["trace"], gone["policy"])]
    assert [cell[2] for cell in got.only_b] == ["new"]
    assert len(got.changes) == len(results) - 1
    told = [json.loads(line) for line in json_lines(got)]
    assert len(told) == len(got.changes) + 1 and set(told[-1]) == {"only_a", "only_b"}


def test_several_results_of_one_cell_are_averaged(tmp_path: Path) -> None:
    a = write(tmp_path / "a.json", [json_line(eviction("t", "lru", 5, ratio)) for ratio in (0.2, 0.4)])
    b = write(tmp_path / "b.json", [json_line(eviction("t", "lru", 5, 0.35))])
    (change,) = compare(a, b).changes
    assert (change.a, change.b, change.change) == pytest.approx((0.3, 0.35, 0.05))


@pytest.mark.parametrize(("text", "says"), [
    ("", "is empty"), ("{}\n", "line 1: has neither policy nor expiry"), ('{"policy": "lru"', "line 1: is no JSON"),
    ("[1]", "neither policy nor expiry"), ('{"policy": "lru", "trace": "t", "capacity": "5", "hit_ratio": 0.1}', "lacks trace, capacity"),
    ('{"expiry": "learned", "trace": "t", "memory_price": 1, "total_cost": null}', "lacks trace, memory_price or total_cost"),
])
def test_a_file_that_is_no_run_is_refused_with_the_line(text: str, says: str, tmp_path: Path) -> None:
    good = write(tmp_path / "a.json", [json_line(eviction("t", "lru", 5, 0.2))])
    bad = tmp_path / "b.json"
    bad.write_text(text)
    with pytest.raises(TraceError, match=says):
        compare(good, bad)
    with pytest.raises(TraceError, match="no such file"):
        compare(good, tmp_path / "c.json")


# The command

def run(*words: Any) -> Result:
    return CliRunner().invoke(adaptcache, ["simulate", *map(str, words)])


def test_the_command_compares_and_says_who_won(tmp_path: Path) -> None:
    a = write(tmp_path / "a.json", [json_line(eviction("t", "lru", 5, 0.2)), json_line(eviction("t", "arc", 5, 0.3))])
    b = write(tmp_path / "b.json", [json_line(eviction("t", "lru", 5, 0.275)), json_line(eviction("u", "arc", 5, 0.3))])
    table = run("--compare", a, b)
    assert table.exit_code == 0, table.output
    for word in ("a.json", "b.json", "+7.50", "only in a.json: t arc 5", "only in b.json: u arc 5"):
        assert word in table.stdout
    assert json.loads(run("--compare", a, b, "--json").stdout.splitlines()[0])["change"] == pytest.approx(0.075)
    refused = run("--compare", a, tmp_path / "none.json")
    assert refused.exit_code == 1 and "no such file" in refused.stderr
    both = run("synthetic:pipeline", "--compare", a, b)
    assert both.exit_code == 2 and "without a TRACE" in both.stderr
    nothing = run("--policy", "lru")
    assert nothing.exit_code == 2 and "TRACE" in nothing.stderr


def test_csv_and_page_are_written_beside_what_is_printed(tmp_path: Path) -> None:
    trace = write(tmp_path / "t.csv", ["key", *"abcabcaab"])
    result = run(trace, "--policy", "lru,sieve", "--size", "1,2", "--csv", tmp_path / "o.csv", "--html", tmp_path / "o.html", "--json")
    assert result.exit_code == 0, result.output
    assert [row["policy"] for row in csv.DictReader(io.StringIO((tmp_path / "o.csv").read_text()))] == ["lru", "sieve"] * 2
    assert "timeline" not in json.loads(result.stdout.splitlines()[0])
    for more in ([], ["--jobs", 1]):
        asked = run(trace, "--policy", "lru", "--size", "2", "--json", "--timeline", 3, *more)
        assert json.loads(asked.stdout)["timeline"] == {"hit_ratio": [0.0, 0.0, pytest.approx(1 / 3)]}
    for words in (["--timeline", 3], ["--timeline", 3, "--json", "--stream"]):
        assert run(trace, "--policy", "lru", "--size", "2", *words).exit_code == 2
    assert "Hit ratio along the trace, 2 entries" in (tmp_path / "o.html").read_text()
    refused = run(trace, "--policy", "lru", "--csv", tmp_path / "none" / "o.csv")
    assert refused.exit_code == 2 and "no directory" in refused.stderr
