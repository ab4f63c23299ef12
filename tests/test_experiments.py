"""An experiment gives what `simulate` gives, whoever runs it, and forgets nothing that it has finished."""
from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from click.testing import Result as Outcome
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptcache import _core, policies
from adaptcache.cli import adaptcache
from adaptcache.errors import ResultsError, TraceError
from adaptcache.simulate import EvictionResult, ExpiryResult, Trace, simulate
from adaptcache.simulate import run as simulator
from adaptcache.simulate.experiments import Grid, interval, over_seeds, results, run
from adaptcache.simulate.experiments.intervals import cumulative, quantile
from adaptcache.simulate.experiments.timeleft import TimeLeft
from adaptcache.simulate.trace import dense

Result = EvictionResult | ExpiryResult
SYNTHETIC = "synthetic:pipeline?requests=1500"


def trace(seed: int = 1, rows: int = 2000, name: str = "made") -> Trace:
    random = np.random.default_rng(seed)
    key = dense(random.zipf(1.3, rows) % 200)
    return Trace(name, key, int(key.max()) + 1, time=np.cumsum(random.exponential(1, rows)), size=1.0 + key % 7,
                 op=(random.random(rows) < 0.1).astype(np.uint8))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = trace()
    file = tmp_path / "small.npz"
    np.savez(file, key=made.key, time_s=made.time, size=made.size, op=made.op)
    return file


def timeless(got: Sequence[Result]) -> list[Result]:
    return [replace(result, seconds=0.0) for result in got]


def one_by_one(grid: Grid) -> list[Result]:
    """What a loop over `simulate` would give, where there is one seed."""
    out: list[Result] = []
    for source in grid.traces:
        out += simulate(source, grid.policies, grid.sizes, grid.expiries, grid.memory_prices, grid.miss_cost, grid.premature,
                        grid.limit, grid.seeds[0], grid.ops, timeline=grid.timeline)
    return timeless(out)


class Backwards(Executor):
    """Runs nothing until all is submitted, and then the last first."""

    def __init__(self, most: int = 1 << 30) -> None:
        self.calls: list[tuple[Future[Any], Callable[..., Any], Any]] = []
        self.most = most        # that are run; the others stay where they are

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.calls.append((future, fn, args))
        return future

    def start(self) -> None:
        for future, fn, args in self.calls[:-self.most - 1:-1]:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(fn(*args))
                except BaseException as error:
                    future.set_exception(error)


@pytest.fixture
def backwards(monkeypatch: pytest.MonkeyPatch) -> Callable[[Backwards], Backwards]:
    """Starts an executor when `run` begins to wait for it."""
    from adaptcache.simulate.experiments import experiment as module

    def arrange(executor: Backwards) -> Backwards:
        wait = module.as_completed

        def starting(futures: list[Future[Any]]) -> Iterator[Future[Any]]:
            executor.start()
            return wait(futures)

        monkeypatch.setattr(module, "as_completed", starting)
        return executor

    return arrange


EVERYTHING = {"policies": [*simulator.POLICIES, "cachetools:lru"], "sizes": ["5%", 30],
              "expiries": ["static:60", "learned", "static-best", "break-even", "clairvoyant"], "memory_prices": ["0.1x"]}


# -- the same results

def test_every_executor_gives_what_simulate_gives(path: Path, backwards: Callable[[Backwards], Backwards]) -> None:
    grid = Grid([path, trace(2), SYNTHETIC], **EVERYTHING, limit=300, timeline=3)
    wanted = one_by_one(grid)
    assert len(wanted) == 3 * ((len(simulator.POLICIES) + 1) * 2 + 5) == len(grid.cells())
    assert any(result.gap_closed for result in wanted if isinstance(result, EvictionResult))
    assert timeless(run(grid, jobs=1)) == wanted
    with ThreadPoolExecutor(3) as threads:
        assert timeless(run(grid, executor=threads)) == wanted
    assert timeless(run(grid, executor=backwards(Backwards()))) == wanted


def test_processes_give_what_simulate_gives(path: Path) -> None:
    grid = Grid([path, trace(2)], policies=["lru", "belady", "wtinylfu"], sizes=[10, 30], ops=True)
    assert timeless(run(grid, jobs=2)) == one_by_one(grid)


def test_a_dask_client_runs_experiments(path: Path) -> None:
    distributed = pytest.importorskip("dask.distributed", reason="dask is not installed")
    grid = Grid([path, trace(2)], policies=["lru", "sieve"], sizes=[10, 30], expiries=["break-even"])
    with distributed.Client(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as client:
        assert timeless(run(grid, executor=client.get_executor())) == one_by_one(grid)


def test_traces_without_times_can_be_left_out_of_expiry() -> None:
    plain = replace(trace(), time=None)
    grid = Grid([plain, trace(2)], policies=["lru"], expiries=["break-even"], timed_only=True)
    assert [type(result) for result in run(grid, jobs=1)] == [EvictionResult, EvictionResult, ExpiryResult]
    with pytest.raises(TraceError, match="no times"):
        run(replace(grid, timed_only=False), jobs=1)


def test_a_file_that_is_replaced_is_read_anew_by_the_same_worker(tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    grid = Grid([file], policies=["lru"], sizes=[10])
    with ThreadPoolExecutor(1) as executor:
        for keys in ("a\na\n", "a\nb\nc\n"):
            file.write_text("key\n" + keys)
            got, = run(grid, executor=executor)
            assert got.requests == keys.count("\n")


@pytest.mark.parametrize(("options", "says"), [
    ({"policies": ["clock"]}, "clock"), ({"sizes": ["0%"]}, "0%"), ({"expiries": ["soon"]}, "soon"), ({"memory_prices": [-1]}, "-1"),
    ({"seeds": []}, "seeds"), ({"seeds": [-1]}, "seeds"), ({"seeds": [1, 1]}, "twice"), ({"traces": []}, "traces"),
    ({"policies": []}, "nothing to simulate"), ({"premature": 2}, "premature"), ({"limit": 0}, "limit"), ({"miss_cost": 0}, "miss_cost"),
])
def test_a_grid_that_makes_no_sense_is_refused_before_anything_runs(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Grid(**{"traces": ["nowhere.npz"], "policies": ["lru"]} | options)


def test_jobs_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="jobs"):
        run(Grid([trace()], policies=["lru"]), jobs=0)


# -- seeds

def test_seeds_stand_side_by_side_and_only_where_they_decide_something(path: Path) -> None:
    grid = Grid([path, SYNTHETIC], policies=["lru", "wtinylfu", "belady", "cachetools:rr"], sizes=[20], expiries=["break-even", "learned"],
                seeds=[3, 4], limit=300)
    got = run(grid, jobs=1)
    assert [(r.trace.partition("?")[0], r.policy if isinstance(r, EvictionResult) else r.expiry, r.seed) for r in got] == [
        ("small", "lru", None), ("small", "wtinylfu", 3), ("small", "wtinylfu", 4), ("small", "belady", None),
        ("small", "cachetools:rr", 3), ("small", "cachetools:rr", 4), ("small", "break-even", None), ("small", "learned", 3),
        ("small", "learned", 4),
        *(("synthetic:pipeline", word, seed) for word in ("lru", "wtinylfu", "belady", "cachetools:rr", "break-even", "learned")
          for seed in (3, 4))]
    for seed in (3, 4):
        alone = run(replace(grid, seeds=[seed]), jobs=1)
        beside = [result for result in got if result.seed in (seed, None)]
        assert timeless(alone) == [replace(result, seed=None) for result in timeless(beside)], "gaps are closed seed by seed"
        assert all(result.seed is None for result in alone)


def test_only_the_policies_that_say_so_draw_by_chance() -> None:
    random = np.random.default_rng(1)
    key = dense((3000 * random.random(20_000) ** 3).astype(np.int64))
    for policy in policies():
        if policy not in simulator.SALTED:
            hits = set()
            for salt in (0, 1, 2**63 + 12345):
                replay = _core.PolicyReplay(policy, 100, int(key.max()) + 1, salt)
                replay.run(key, None, None, None, 0, len(key))
                hits.add(replay.hits)
            assert len(hits) == 1, policy


def test_seeds_become_salts_that_differ() -> None:
    got = run(Grid([trace(rows=20_000)], policies=["wtinylfu"], sizes=[20], seeds=range(6)), jobs=1)
    assert len({result.hits for result in got if isinstance(result, EvictionResult)}) > 1


@settings(max_examples=60, deadline=None)
@given(p=st.floats(0.5, 0.9999), freedom=st.integers(1, 60))
def test_quantiles_are_students(p: float, freedom: int) -> None:
    special = pytest.importorskip("scipy.special")      # river brings it
    assert quantile(p, freedom) == pytest.approx(special.stdtrit(freedom, p), rel=1e-9, abs=1e-9)
    assert cumulative(quantile(p, freedom), freedom) == pytest.approx(p, rel=1e-12)


def test_an_interval_is_that_of_the_textbook() -> None:
    got = interval([2.0, 4.0, 6.0])     # t(0.975, 2) = 4.302653, s = 2
    assert got.mean == 4 and got.n == 3
    assert got.half == pytest.approx(4.302653 * 2 / math.sqrt(3), abs=1e-5)
    assert interval([1.0]).low == -math.inf and f"{interval([1.0]):.2f}" == "1.00"
    assert f"{interval([1.0, 1.0]):.2f}" == "1.00 ± 0.00"
    for wrong in (lambda: interval([]), lambda: interval([1.0], level=1.0)):
        with pytest.raises(ValueError):
            wrong()


def test_intervals_hold_the_mean_as_often_as_they_say() -> None:
    random = np.random.default_rng(1)
    held = [got.low <= 5 <= got.high for got in (interval(random.normal(5, 2, 4)) for _ in range(2000))]
    assert 0.93 < np.mean(held) < 0.97


def test_results_are_taken_together_over_their_seeds() -> None:
    grid = Grid([SYNTHETIC], policies=["lru"], sizes=["1%", "5%", "20%"], seeds=[1, 2, 3], expiries=["break-even"])
    got = run(grid, jobs=1)
    cells = over_seeds(got)
    assert [len(cell.results) for cell in cells] == [3, 3, 3, 3], "of one policy too, at sizes that differ from seed to seed"
    first = cells[0].measures["hit_ratio"]
    assert first.mean == pytest.approx(np.mean([result.hit_ratio for result in got[:3] if isinstance(result, EvictionResult)]))
    assert first.low < first.mean < first.high
    assert "total_cost" in cells[-1].measures


# -- what is finished stays finished

SMALL = {"policies": ["lru", "sieve", "wtinylfu"], "sizes": [10, "20%"], "expiries": ["static:inf", "break-even", "learned"], "seeds": (1, 2)}


class Told:
    """Progress, as a list of words."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.shares: list[float] = []

    def __call__(self, task: str, done: int, total: int) -> None:
        self.words.append(task)
        self.shares.append(done / total)


def test_what_was_finished_is_not_computed_again(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    grid = Grid([path], **SMALL, limit=500, timeline=2)
    first, told = run(grid, jobs=1, resume=file), Told()
    assert run(grid, jobs=1, resume=file, progress=told) == first, "seconds too: these are the ones of before"
    assert told.words[-1].startswith(f"{len(first)} of {len(first)} cells") and len(told.words) == 1
    lines = file.read_text().splitlines()
    assert len(lines) == len(first)
    for line in lines:
        json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    wider = run(replace(grid, sizes=[10, "20%", 40]), jobs=1, resume=file)
    assert [result for result in wider if not (isinstance(result, EvictionResult) and result.capacity == 40)] == first
    assert len(file.read_text().splitlines()) == len(first) + 4


def test_results_survive_the_file_whole() -> None:
    grid = Grid([trace()], policies=["belady"], expiries=["static:inf", "learned"], sizes=[10], limit=300, timeline=3)
    for result in run(grid, jobs=1):
        values = json.loads(results.encode("name", result))
        assert values.pop("cell") == "name"
        assert results.decode(values) == result
        assert all(type(getattr(results.decode(values), f.name)) is type(getattr(result, f.name)) for f in fields(result))


@pytest.mark.parametrize("change", [
    {"limit": 400}, {"ops": True}, {"premature": 0.5, "policies": ()}, {"miss_cost": 2.0, "policies": ()}, {"timeline": 4},
    {"seeds": (5,)}, {"traces": "other"}, {"traces": "renamed"},
])
def test_cells_of_another_grid_are_told_apart(change: dict[str, Any], tmp_path: Path, path: Path) -> None:
    file = tmp_path / "results.jsonl"
    grid = Grid([path], policies=["wtinylfu"], expiries=["learned"], sizes=[10], limit=300)
    run(grid, jobs=1, resume=file)
    if change.get("traces"):
        other = tmp_path / ("small.npz" if change["traces"] == "other" else "renamed.npz")
        made = trace(9) if change["traces"] == "other" else trace()
        np.savez(other, key=made.key, time_s=made.time, size=made.size, op=made.op)
        change = {"traces": [other]}
    grid = replace(grid, **change)
    had = len(file.read_text().splitlines())
    assert timeless(run(grid, jobs=1, resume=file)) == timeless(run(grid, jobs=1))
    # What an option does not touch is found again: the rule's cell knows nothing of --ops.
    kept = 1 if change.keys() == {"ops"} else 0
    assert len(file.read_text().splitlines()) == had + len(grid.cells()) - kept


def test_cells_of_another_version_are_told_apart(tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "results.jsonl"
    grid = Grid([path], policies=["lru"], sizes=[10])
    run(grid, jobs=1, resume=file)
    monkeypatch.setattr("adaptcache.__version__", "another")
    run(grid, jobs=1, resume=file)
    monkeypatch.setattr(results, "_core_digest", lambda: "another core")
    run(grid, jobs=1, resume=file)
    assert len(file.read_text().splitlines()) == 3


def test_a_trace_object_is_known_by_its_content(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    for made, lines in ((trace(), 1), (trace(), 1), (replace(trace(), size=trace().size * 2), 2), (trace(name="other"), 3)):
        run(Grid([made], policies=["lru"], sizes=[10]), jobs=1, resume=file)
        assert len(file.read_text().splitlines()) == lines


@pytest.mark.parametrize("cut", [1, 5, 9, 12, 40, -1])
def test_a_line_that_was_cut_short_is_taken_away(cut: int, tmp_path: Path, path: Path) -> None:
    file = tmp_path / "results.jsonl"
    grid = Grid([path], policies=["lru", "sieve"], sizes=[10])
    wanted = run(grid, jobs=1, resume=file)
    first, second = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(first + second[:cut])
    assert timeless(run(grid, jobs=1, resume=file)) == timeless(wanted)
    assert [len(json.loads(line)) > 5 for line in file.read_bytes().splitlines()] == [True, True]


@pytest.mark.parametrize("content", ["key,time\n1,2\n", "notes without an end of line", '{"policy": "lru"}\n', "[1]\n", "\n"])
def test_a_file_of_something_else_is_refused_and_left_alone(content: str, tmp_path: Path, path: Path) -> None:
    file = tmp_path / "results.jsonl"
    file.write_text(content)
    with pytest.raises(ResultsError, match=r"results\.jsonl: line 1 is no finished cell"):
        run(Grid([path], policies=["lru"]), jobs=1, resume=file)
    assert file.read_text() == content


def test_two_runs_do_not_write_to_one_file(tmp_path: Path, path: Path) -> None:
    file = tmp_path / "results.jsonl"
    with results.ResultsFile(file), pytest.raises(ResultsError, match="another run"):
        run(Grid([path], policies=["lru"]), jobs=1, resume=file)
    run(Grid([path], policies=["lru"]), jobs=1, resume=file)


def test_each_cell_is_on_the_disk_before_the_next_is_told(tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, synced = tmp_path / "results.jsonl", []
    sync = os.fsync
    monkeypatch.setattr(results.os, "fsync", lambda fd: (synced.append(file.read_bytes().count(b"\n")), sync(fd)))
    seen: list[int] = []
    run(Grid([path], policies=["lru", "sieve", "fifo"], sizes=[10]), jobs=1, resume=file,
        progress=lambda task, done, total: seen.append(file.read_bytes().count(b"\n")))
    assert seen == [0, 1, 2, 3] and synced == [1, 2, 3]


def test_a_fault_in_one_cell_loses_no_other(tmp_path: Path, path: Path, backwards: Callable[[Backwards], Backwards]) -> None:
    """The first cell to be submitted has a broken trace; by then all others are finished, and nobody has asked for them."""
    file, broken = tmp_path / "results.jsonl", tmp_path / "a.csv"
    broken.write_text("key\na\n")
    grid = Grid([broken, path], policies=["lru", "sieve"], sizes=[10])
    broken_later = backwards(Backwards())
    submit = broken_later.submit
    broken_later.submit = lambda *args: (broken.write_text("time,size\n1,2\n"), submit(*args))[1]  # type: ignore[method-assign]
    with pytest.raises(TraceError, match="key"):
        run(grid, executor=broken_later, resume=file)
    assert len(file.read_text().splitlines()) == 2
    assert all(json.loads(line)["trace"] == "small" for line in file.read_text().splitlines())


def test_an_interruption_keeps_what_is_finished(tmp_path: Path, path: Path, backwards: Callable[[Backwards], Backwards]) -> None:
    """Three of six cells are done when Ctrl-C comes, of which the first was just being told."""
    file = tmp_path / "results.jsonl"
    grid = Grid([path], policies=["lru", "sieve", "fifo"], sizes=[10, 20])
    executor = backwards(Backwards(most=3))

    pressed = []

    def interrupt(task: str, done: int, total: int) -> None:
        if done and not pressed:
            pressed.append(task)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(grid, executor=executor, resume=file, progress=interrupt)
    assert len({json.loads(line)["cell"] for line in file.read_text().splitlines()}) == 3
    assert sum(future.cancelled() for future, _, _ in executor.calls) == 3, "nothing is left to be begun"
    assert timeless(run(grid, jobs=1, resume=file)) == one_by_one(grid)


def test_neither_ctrl_c_nor_a_kill_loses_anything_that_is_finished(tmp_path: Path) -> None:
    """A real process with workers of its own is interrupted after its first results; another goes on, and is killed."""
    file = tmp_path / "results.jsonl"
    script = Path(__file__).with_name("experiment.py")

    def until(more: int) -> subprocess.Popen[str]:
        """An experiment that has just told of so many cells."""
        process = subprocess.Popen([sys.executable, str(script), str(file), "5000"], text=True, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, start_new_session=True)
        assert process.stdout is not None
        for _ in range(1 + more):       # the first is told before anything runs
            assert process.stdout.readline(), process.communicate()
        return process

    first = until(3)
    os.killpg(first.pid, signal.SIGINT)         # as a terminal does: to the workers too
    _, errors = first.communicate(timeout=300)   # returns when nobody holds the pipes any more: its workers have ended too
    assert first.returncode != 0 and "KeyboardInterrupt" in errors
    assert "Process Spawn" not in errors, "the workers have nothing to say"
    kept = file.read_bytes()
    assert kept.endswith(b"\n") and 3 <= kept.count(b"\n") < 4990
    second = until(3)
    second.kill()
    second.communicate(timeout=300)
    assert file.read_bytes().startswith(kept) and file.read_bytes().count(b"\n") >= kept.count(b"\n") + 3
    cells = [json.loads(line)["cell"] for line in file.read_bytes().splitlines()[:-1]]
    assert len(set(cells)) == len(cells), "what was finished was not computed again"


# -- time left

def test_time_left_is_what_the_rest_takes_at_the_pace_so_far() -> None:
    clock = iter([0.0, 10.0, 30.0, 4000.0, 9000.0])
    left = TimeLeft(100, timer=lambda: next(clock))
    assert left.seconds() is None and str(left) == "time left unknown"
    left.done = 20
    assert left.seconds() == 40.0
    assert str(left) == "2 min left"        # 30 s for a fifth
    left.done = 25
    assert str(left) == "3 h 20 min left"
    left.done = 100
    assert str(left) == "0 s left"


def test_progress_runs_from_nothing_to_all(path: Path) -> None:
    told = Told()
    run(Grid([path], policies=["lru", "sieve"], sizes=[10, 20], expiries=["break-even", "clairvoyant"]), jobs=1, progress=told)
    assert told.words[0].startswith("0 of 6 cells") and told.words[-1].startswith("6 of 6 cells")
    assert told.shares[0] == 0 and told.shares[-1] == 1 and told.shares == sorted(told.shares)


# -- the command line

def simulated(*words: object) -> Outcome:
    return CliRunner().invoke(adaptcache, ["simulate", *map(str, words)])


def rows(got: Outcome) -> list[dict[str, Any]]:
    assert got.exit_code == 0, got.output
    return [json.loads(line) | {"seconds": 0} for line in got.stdout.splitlines()]


def test_the_command_line_runs_experiments_and_goes_on_with_them(path: Path, tmp_path: Path) -> None:
    """With the same lines as without the options."""
    words = (path, SYNTHETIC, "--policy", "lru,sieve", "--size", "10,5%", "--expiry", "break-even", "--limit", 400, "--json")
    wanted = rows(simulated(*words))
    file = tmp_path / "results.jsonl"
    assert rows(simulated(*words, "--resume", file)) == wanted
    had = file.read_text()
    assert had.count("\n") == len(wanted) == 10
    assert rows(simulated(*words, "--resume", file, "--jobs", 2)) == wanted
    assert file.read_text() == had
    file.write_text("something else")
    refused = simulated(*words, "--resume", file)
    assert refused.exit_code == 1 and "results.jsonl: line 1" in refused.stderr


def test_the_command_line_shows_intervals_and_tells_single_results(path: Path, tmp_path: Path) -> None:
    words = (path, "--policy", "wtinylfu,sieve", "--size", 20, "--expiry", "break-even", "--seed", 5, "--seeds", 3)
    lines = rows(simulated(*words, "--json"))
    assert [(line.get("policy") or line["expiry"], line.get("seed")) for line in lines] == [
        ("wtinylfu", 5), ("wtinylfu", 6), ("wtinylfu", 7), ("sieve", None), ("break-even", None)]
    page = tmp_path / "report.html"
    shown = simulated(*words, "--html", page)
    assert shown.exit_code == 0, shown.output
    got = interval(line["hit_ratio"] for line in lines[:3])
    assert f"{got.mean:.4f} ± {got.half:.4f}" in shown.stdout
    assert "belady" in shown.stdout and "Student" in shown.stdout and "…" not in shown.stdout
    assert "sieve" in page.read_text()


def test_everything_is_run_where_nothing_is_named(tmp_path: Path) -> None:
    timeless = tmp_path / "timeless.csv"
    timeless.write_text("key\na\nb\na\n")
    assert [row.get("policy") for row in rows(simulated(timeless, "--json", "--jobs", 1))] == list(simulator.POLICIES)


@pytest.mark.parametrize("option", [("--seeds", 2), ("--jobs", 1), ("--resume", "results.jsonl")])
def test_a_log_is_of_one_run_in_this_process(option: tuple[object, ...], path: Path) -> None:
    got = simulated(path, "--expiry", "learned", "--log", "log.jsonl", *option)
    assert got.exit_code == 2 and "--log goes with one run" in got.stderr
