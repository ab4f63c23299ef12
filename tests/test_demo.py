"""The demo: its accounts are right, its page stands alone, and what it says is what came out."""
import io
import itertools
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest

import adaptcache.demo
from adaptcache.demo import FIXED, HOLD, OLDEST, report, service
from adaptcache.demo.database import QUERIES, Database
from adaptcache.demo.ledger import OVERHEAD, Foresight, Held, Ledger
from adaptcache.demo.results import Results, collect, summary
from adaptcache.demo.service import Race, WorkClock, contestants, typical_price
from adaptcache.demo.view import View, moment
from adaptcache.simulate.pipeline import PipelineParameters, Request, workload
from adaptcache.simulate.pipeline.catalogue import FUNCTIONS

TINY = PipelineParameters(requests=1_000, tenants=2, days=2, entities=50)


@pytest.fixture(scope="module")
def database():
    made = Database(TINY.tenants, TINY.days, rows_per_day=20)
    yield made
    made.close()


@pytest.fixture(scope="module")
def requests() -> list[Request]:
    return list(workload(TINY, seed=1))


@pytest.fixture(scope="module", autouse=True)
def every_query_takes_a_millisecond():
    """Real queries, but not their real times, so that costs are exact and runs repeat."""
    ticks = itertools.count()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(service, "perf_counter", lambda: next(ticks) / 1_024)
        yield


def race_over(database: Database, requests: list[Request]) -> Race:
    clock = WorkClock()
    clock.now = requests[0].time
    price = typical_price(database, requests, HOLD)
    return Race(database, contestants(price, clock, fixed=FIXED, oldest=OLDEST, premature=0.01, seed=0), clock, price)


@pytest.fixture(scope="module")
def race(database, requests) -> Race:
    made = race_over(database, requests)
    for _ in made.run(requests, seconds=60):
        pass
    return made


@pytest.fixture(scope="module")
def results(race) -> Results:
    return collect(race, planned=TINY.requests, seconds=1.0, shift=TINY.shift, hold=HOLD, premature=0.01, seed=1)


# -- the accounts --


def test_rent_is_size_times_seconds_held_times_price():
    ledger = Ledger(price=0.5)
    short, long = Held(b"x" * 10, 1, since=100.0), Held(b"", 1, since=150.0)
    ledger.loaded(short, 2.0)
    ledger.loaded(long, 3.0)
    assert ledger.rent(200.0) == 0.5 * ((10 + OVERHEAD) * 100 + OVERHEAD * 50)
    ledger.removed(short, 180.0)
    assert ledger.rent(200.0) == 0.5 * ((10 + OVERHEAD) * 80 + OVERHEAD * 50)
    assert (ledger.held, ledger.query_seconds, ledger.misses) == (OVERHEAD, 5.0, 2)


def test_rent_does_not_depend_on_when_a_removal_is_reported():
    late, early = Ledger(1.0), Ledger(1.0)
    one, other = Held(b"abc", 1, since=0.0), Held(b"abc", 1, since=0.0)
    late.loaded(one, 1.0)
    late.removed(one, 5.0)
    late.removed(one, 7.0)  # said twice
    early.removed(other, 5.0)  # said before the load has returned
    early.loaded(other, 1.0)
    assert late.rent(99.0) == early.rent(99.0) == 5.0 * one.size
    assert late.held == early.held == 0


def test_hit_on_a_changed_source_is_counted_as_outdated():
    ledger = Ledger(1.0)
    value = Held(b"", 3, since=0.0)
    ledger.hit(value, 3, 10.0)
    ledger.hit(value, 4, 20.0)
    assert (ledger.hits, ledger.stale, ledger.oldest) == (2, 1, 20.0)


def test_foresight_holds_a_value_exactly_when_that_is_cheaper():
    foresight = Foresight(price=0.01)
    foresight.asked(1, 0.0, (2.0, 10))
    foresight.asked(1, 5.0, None)  # rent 0.5 < 2
    foresight.asked(1, 1_000.0, (3.0, 10))  # rent 99 > 2: let go, asked again for what it cost then
    foresight.asked(1, 1_001.0, None)
    assert foresight.cost == pytest.approx(2.0 + 0.5 + 2.0 + 0.1)
    with pytest.raises(ValueError, match="first request"):
        foresight.asked(2, 0.0, None)


# -- the database --


def test_every_function_of_the_workload_has_a_query():
    assert set(QUERIES) == {f.name for f in FUNCTIONS}


def test_answers_are_the_same_until_the_source_changes_and_then_others(database, requests):
    of_key: dict[int, dict[int, set[bytes]]] = {}
    for request in requests:
        of_key.setdefault(request.key, {}).setdefault(request.version, set()).add(database.answer(request))
    assert all(len(answers) == 1 for versions in of_key.values() for answers in versions.values())
    changed = [versions for versions in of_key.values() if len(versions) > 1]
    assert changed and all(len(set.union(*versions.values())) == len(versions) for versions in changed)


def test_most_queries_find_rows(database, requests):
    found = [b'"rows": []' not in database.answer(request) for request in requests]
    assert sum(found) > 0.8 * len(found)


# -- the race --


@pytest.mark.parametrize("place", range(1, 1 + len(FIXED)))
def test_fixed_caches_pay_what_a_plain_replay_says(place, race, requests, database):
    """Hits and rent of a fixed time to live, computed again from the requests alone."""
    ttl = list(FIXED.values())[place - 1]
    end, until, hits, rent = requests[-1].time, {}, 0, 0.0
    for request in requests:
        if request.time < until.get(request.key, 0.0):
            hits += 1
        else:
            until[request.key] = request.time + ttl
            rent += (len(database.answer(request)) + OVERHEAD) * min(ttl, end - request.time) * race.price
    ledger = race.contestants[place].ledger
    assert ledger.hits == hits
    # The core's clock is an integer: it may round a moment by a tick.
    assert ledger.rent(end) == pytest.approx(rent, rel=1e-4)


def test_accounts_agree_with_the_caches(race):
    for contestant in race.contestants:
        ledger, stats = contestant.ledger, contestant.cache.stats()
        assert (ledger.hits, ledger.misses) == (stats.hits, stats.misses)
        assert ledger.held == stats.currsize
        assert ledger.hits + ledger.misses == race.requests == TINY.requests


def test_no_cache_serves_an_answer_older_than_allowed(race):
    for contestant in race.contestants:
        assert 0 < contestant.ledger.oldest <= OLDEST + 0.1


def test_nobody_beats_foresight(results):
    assert 0 < results.foresight < min(row.cost for row in results.rows)
    assert results.gap_closed < 1 and results.saved < 1


def test_equal_query_times_make_equal_runs(database, requests, race):
    again = race_over(database, requests)
    for _ in again.run(requests, seconds=60):
        pass
    assert [sample.hits for sample in again.samples] == [sample.hits for sample in race.samples]
    assert again.samples[-1].costs == pytest.approx(race.samples[-1].costs, rel=1e-9)


def test_promise_is_kept_at_every_sample(results):
    assert results.promise.kept
    assert all(s.lost + s.in_flight <= s.bound + 1e-9 for s in results.samples)


def test_run_stops_when_time_is_up_and_says_so(database, requests):
    race = race_over(database, requests)
    ticks = itertools.count()
    done = [sample.requests for sample in race.run(requests, seconds=10.0, samples=100, timer=lambda: next(ticks))]
    assert 10 <= len(done) <= 11 and race.requests == done[-1] < len(requests)
    cut = collect(race, planned=len(requests), seconds=10.0, shift=TINY.shift, hold=HOLD, premature=0.01, seed=1)
    assert any("Time was up" in sentence for sentence in summary(cut))


# -- what it says --


def test_summary_says_what_came_out(results):
    text = " ".join(summary(results))
    learned, fixed = results.rows[0], results.rows[1:]
    best = min(fixed, key=lambda row: row.query_seconds + row.rent)
    cost, least = learned.query_seconds + learned.rent, best.query_seconds + best.rent
    assert f"paid {cost:.1f} s" in text and f"({best.name}, {least:.1f} s)" in text
    share = f"{abs(1 - cost / least):.0%}"
    assert (f"{share} less than" if cost <= least else f"{share} more than") in text
    assert ("learning lost" in text) == (cost > least)
    assert f"would have paid {results.foresight:.1f} s" in text
    assert f"{results.requests:,} requests" in text and f"{results.queries:,} were run" in text
    assert f"{results.promise.lost:,} did, {results.promise.in_flight:,} are still open" in text


def test_summary_admits_a_loss_and_a_broken_promise(results):
    dear = replace(results.rows[0], rent=results.best_fixed.cost * 2)
    text = " ".join(summary(replace(
        results, rows=(dear, *results.rows[1:]), promise=replace(results.promise, kept=False)
    )))
    assert "This time learning lost" in text and "BROKEN" in text and "of the way there" not in text


class Loads(HTMLParser):
    """Collects whatever a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in {"script", "link", "iframe", "object", "embed", "img"}:
            self.found.append(tag)
        self.found += [f"{tag} {name}={value}" for name, value in attrs
                       if name in {"src", "href", "xlink:href", "srcset", "data"} and not (value or "").startswith("#")]


def test_page_stands_alone(results):
    page = report.render(results)
    loads = Loads()
    loads.feed(page)
    assert loads.found == []
    assert not re.search(r"@import|url\((?!['\"]?#)", page)
    assert page.count("<svg") == 5 and "<!DOCTYPE svg" not in page


def test_page_shows_the_numbers(results):
    page = report.render(results)
    for row in results.rows:
        cells = (f"{100 * row.hit_ratio:.1f} %", f"{row.query_seconds:.2f} s", f"{row.rent:.2f} s", f"{row.cost:.2f} s", f"{row.stale:,}")
        assert f"<td>{row.name}</td>" + "".join(f"<td>{cell}</td>" for cell in cells) in page
    assert f"<td>{results.foresight:.2f} s</td>" in page
    for name, weight in results.weights.items():
        assert f"{100 * weight:.1f} %" in page and name.replace(">", "&gt;").replace("<", "&lt;") in page


@pytest.mark.parametrize("terminal", [True, False])
def test_view_is_live_on_a_terminal_and_plain_lines_elsewhere(terminal, race):
    from rich.console import Console

    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=120, legacy_windows=False)
    with View(console, race, TINY.requests, TINY.shift, HOLD, live=True) as view:
        for sample in race.samples:
            view.update(sample)
    text = out.getvalue()
    assert ("\x1b[" in text) == terminal
    last = race.samples[-1]
    for contestant, cost in zip(race.contestants, last.costs, strict=True):
        assert contestant.name in text and f"{cost:.2f} s" in text
    if not terminal:
        assert 10 <= len(text.splitlines()) <= 12


def test_moment_reads_as_weekday_and_hour():
    assert moment(0.0) == "Monday 00:00"
    assert moment(8 * 86_400 + 3_600 * 13 + 60 * 5) == "Tuesday 13:05"


# -- the whole --


def test_main_runs_and_writes_the_page(tmp_path, capsys):
    page = tmp_path / "demo.html"
    assert adaptcache.demo.main(seconds=2, html=str(page), seed=3, live=False) == 0
    said = capsys.readouterr().out
    assert str(page) in said and "The promise" in said
    numbers = re.search(r"The cache that learns paid ([\d.]+) s|learning lost: it paid ([\d.]+) s", said)
    assert numbers
    html = page.read_text(encoding="utf-8")
    assert next(filter(None, numbers.groups())) in html
    loads = Loads()
    loads.feed(html)
    assert loads.found == []


@pytest.mark.parametrize(("package", "ours"), [("jinja2", "report"), ("matplotlib", "report"), ("rich.live", "view")])
def test_missing_extra_is_named_before_anything_runs(package, ours, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"adaptcache.demo.{ours}")
    with pytest.raises(ModuleNotFoundError, match=rf"demo needs the package {package}.*\.\[simulate\]"):
        adaptcache.demo.main(seconds=1)
    assert capsys.readouterr().out == ""


def test_no_page_is_written_where_none_is_wanted(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert adaptcache.demo.main(seconds=1, html=None, live=False) == 0
    assert list(tmp_path.iterdir()) == []


def test_no_time_at_all_is_refused():
    with pytest.raises(ValueError, match="seconds=0"):
        adaptcache.demo.run(seconds=0)
