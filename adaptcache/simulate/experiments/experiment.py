"""The experiment itself: hands batches of cells to an executor, keeps what comes back, and puts it in the grid's order.

What is finished is kept at once, so an interruption, by Ctrl-C or by a fault in some other cell, loses nothing of it.
"""
from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from adaptcache.errors import TraceError
from adaptcache.simulate import run as simulator
from adaptcache.simulate.experiments import results
from adaptcache.simulate.experiments.grid import AnyTrace, Cell, Grid, batches, varies
from adaptcache.simulate.experiments.pool import processes, processors
from adaptcache.simulate.experiments.timeleft import TimeLeft
from adaptcache.simulate.experiments.worker import Source, Task, work
from adaptcache.simulate.run import EvictionResult, Progress, Result
from adaptcache.simulate.synthetic import PREFIX
from adaptcache.simulate.trace import Trace

Batch = Sequence[Cell]
Take = Callable[[Batch, list[Result | None]], None]


def run(grid: Grid, *, executor: Executor | None = None, jobs: int | None = None, resume: str | Path | None = None,
        progress: Progress | None = None) -> list[Result]:
    """The results of every cell of `grid`, in its order, whatever the order in which they were computed.

    They are what `simulate` gives for each trace and seed, apart from `seconds`; where there are several seeds,
    results that depend on one say which.

    executor   who computes: any `concurrent.futures.Executor`, a Dask client's too. It must be able to read the
               traces' files under the same paths; Traces that are given as objects are written once, to a temporary file.
    jobs       without an executor: so many processes. 1: this one. Default: one for each processor.
    resume     a file to which every finished cell is written at once, and whose cells are not computed again; see
               `results`. Lines of other grids, and of files whose content has changed since, are left alone.
    progress   called after each batch of cells with (words, done, total); done and total are in estimated work.

    Processes are started anew: a script that calls this must be importable (`if __name__ == "__main__":`).

    KeyboardInterrupt ends the processes at once; what others' executors have begun goes on until it is done.
    TraceError, and whatever else `simulate` raises, ends the experiment.
    """
    if jobs is not None and jobs < 1:
        raise ValueError(f"jobs is {jobs}; it must be at least 1")
    cells = grid.cells()
    with ExitStack() as stack:
        alone = executor is None and (jobs or processors()) == 1
        sources = stack.enter_context(_sources(grid, alone))
        found: dict[Cell, Result | None] = {}
        file, names = None, dict[Cell, str]()
        if resume is not None:
            file = stack.enter_context(results.ResultsFile(resume))
            names = _fingerprints(grid, cells)
            found = {cell: replace(file.found[name], seed=grid.told(cell)) for cell, name in names.items() if name in file.found}
        wanted = list(batches(cell for cell in cells if cell not in found))
        weights = _weights(grid)
        left = TimeLeft(sum(cell.cost * weights[cell.trace] for batch in wanted for cell in batch))

        def tell() -> None:
            if progress is not None:
                progress(f"{len(found)} of {len(cells)} cells, {left}", int(left.done), max(1, int(left.total)))

        def take(batch: Batch, answers: list[Result | None]) -> None:
            for cell, result in zip(batch, answers, strict=True):
                if result is not None:
                    result = replace(result, seed=grid.told(cell))
                    if file is not None:
                        file.add(names[cell], result)
                found[cell] = result
            left.done += sum(cell.cost * weights[cell.trace] for cell in batch)
            tell()

        tell()
        tasks = [(batch, Task(sources[batch[0].trace, batch[0].seed], [grid.keywords(cell) for cell in batch], grid.timed_only))
                 for batch in wanted]
        if alone:
            for batch, task in tasks:
                take(batch, work(task))
        elif tasks:
            if executor is None:
                executor = stack.enter_context(processes(min(jobs or processors(), len(tasks))))
            _spread(tasks, executor, take)
    return _in_order(grid, cells, found)


def _spread(tasks: Sequence[tuple[Batch, Task]], executor: Executor, take: Take) -> None:
    """`take` is called in this thread with each batch as it is finished; where this ends early, also with those that are."""
    waiting: dict[Future[list[Result | None]], Batch] = {}
    try:
        for batch, task in tasks:
            waiting[executor.submit(work, task)] = batch
        for future in as_completed(list(waiting)):
            take(waiting[future], future.result())
            del waiting[future]
    except BaseException:
        for future, batch in waiting.items():
            if not future.cancel() and future.done() and future.exception() is None:
                take(batch, future.result())
        raise


def _in_order(grid: Grid, cells: Sequence[Cell], found: Mapping[Cell, Result | None]) -> list[Result]:
    """With the share of the gap between LRU and Belady, which no cell knows alone."""
    done = {cell: result for cell in cells if (result := found[cell]) is not None}
    places: dict[tuple[int, str | int | float], list[Cell]] = {}
    for cell in cells:
        if cell.kind == "policy":
            places.setdefault((cell.trace, cell.at), []).append(cell)
    for place in places.values():
        for seed in grid.seeds:
            # Of a policy that does not vary there is one cell, which stands beside those of every seed.
            beside = {cell.word: cell for cell in place if cell.seed in (seed, grid.seeds[0])}
            group = [result for cell in beside.values() if isinstance(result := done[cell], EvictionResult)]
            for cell, result in zip(beside.values(), simulator.closing(group), strict=True):
                if cell.seed == seed:
                    done[cell] = result
    return list(done.values())


# Traces

@contextmanager
def _sources(grid: Grid, alone: bool) -> Iterator[dict[tuple[int, int], Source]]:
    """By trace and seed: what a worker reads. `alone`: the worker is this very process."""
    with TemporaryDirectory(prefix="adaptcache-") as folder:
        out: dict[tuple[int, int], Source] = {}
        for number, given in enumerate(grid.traces):
            if isinstance(given, Trace):
                path = Path(folder) / f"{number}.pickle"
                if not alone:
                    with path.open("wb") as file:
                        pickle.dump(given, file, protocol=pickle.HIGHEST_PROTOCOL)
                source = Source(str(path), limit=grid.limit, pickled=True, trace=given if alone else None)
                out |= {(number, seed): source for seed in grid.seeds}
            elif str(given).startswith(PREFIX):
                out |= {(number, seed): Source(str(given), None, grid.limit, seed) for seed in grid.seeds}
            else:
                source = Source(str(Path(given).absolute()), grid.trace_format, grid.limit)
                out |= {(number, seed): source for seed in grid.seeds}
        yield out


def _fingerprints(grid: Grid, cells: Sequence[Cell]) -> dict[Cell, str]:
    digests = [_digest(given) for given in grid.traces]
    out = {}
    for cell in cells:
        call = grid.keywords(cell) | {"limit": grid.limit, "format": grid.trace_format}
        if not varies(grid.traces[cell.trace], cell.kind, cell.word):
            del call["seed"]
        out[cell] = results.fingerprint(digests[cell.trace], call)
    return out


def _digest(given: AnyTrace) -> str:
    if isinstance(given, Trace):
        return results.digest_of_trace(given)
    if str(given).startswith(PREFIX):
        return str(given)
    try:
        return results.digest_of_file(str(given))
    except OSError as error:
        raise TraceError(f"{given}: cannot be read ({error.strerror or error})") from error


def _weights(grid: Grid) -> list[int]:
    """About how long each trace is, in bytes of a file."""
    out = []
    for given in grid.traces:
        if isinstance(given, Trace):
            out.append(16 * len(given))
        else:
            path = Path(given)
            out.append(path.stat().st_size if path.is_file() else 1 << 20)
    return [max(1, weight) for weight in out]
