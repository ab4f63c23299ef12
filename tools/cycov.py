"""Line coverage of the core, told per line of the .pyx, .pxi and .pxd files.

    python tools/cycov.py BUILD [--html DIR] [--missing] [--at-least PERCENT]

BUILD is the directory of a build with ADAPTCACHE_COVERAGE=1 whose tests have run. gcov counts lines of C.
Before the C of each statement Cython writes a comment that names the line it came from: this file carries the counts
over, and hands them to coverage.py as a plugin, which writes the reports.

Why not Cython's own line tracing: it sees neither inline functions that hold no interpreter lock nor included
files, and the core is made of these.
"""
from __future__ import annotations

import argparse
import gzip
import json
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import coverage
from coverage.plugin import CoveragePlugin, FileReporter

SOURCES = Path(__file__).resolve().parent.parent / "_ext"
REPORTED = {".pyx", ".pxi", ".pxd"}
OURS = {"coretest.pyx", "learntest.pyx"}        # the tests' own wrappers
MARK = re.compile(r'\s*/\* "(?:.*/)?([^"/]+)":(\d+)$')
EXIT = "/* function exit code */"

Counts = dict[str, dict[int, int]]              # file -> line -> how often it ran


def origins(c_file: Path) -> Iterator[tuple[str, int] | None]:
    """For each line of C, in order: the file and line that it was made from, or None."""
    origin: tuple[str, int] | None = None
    comment = False
    for line in c_file.read_text().splitlines():
        if found := MARK.match(line):
            origin, comment = (found[1], int(found[2])), True
        elif EXIT in line:
            origin = None                       # clean-up that every way out of the function passes
        yield None if comment else origin
        comment = comment and "*/" not in line


def carried_over(c_file: Path, counted: Iterable[tuple[int, int]]) -> Counts:
    """Counts of lines of C as counts of the lines they were made from: the largest of each."""
    of = list(origins(c_file))
    counts: Counts = defaultdict(dict)
    for number, count in counted:
        origin = of[number - 1]
        if origin is not None:
            name, line = origin
            counts[name][line] = max(count, counts[name].get(line, 0))
    return counts


def gcov(data: Path) -> Iterator[tuple[Path, list[tuple[int, int]]]]:
    """The C files of one .gcda or .gcno file, each with (line, count) of what is executable."""
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(["gcov", "--json-format", str(data.resolve())], cwd=scratch, check=True, stdout=subprocess.DEVNULL)
        for report in Path(scratch).glob("*.gcov.json.gz"):
            told: dict[str, Any] = json.loads(gzip.decompress(report.read_bytes()))
            for file in told["files"]:
                if file["file"].endswith(".c"):
                    path = Path(told["current_working_directory"]) / file["file"]
                    yield path, [(line["line_number"], line["count"]) for line in file["lines"]]


def collect(build: Path) -> Counts:
    """The counts of all extensions of a build, added up: an inline function is compiled into several."""
    total: Counts = defaultdict(lambda: defaultdict(int))
    data = sorted(build.rglob("*.gcda"))
    if not data:
        sys.exit(f"{build}: no counts; build with ADAPTCACHE_COVERAGE=1 and run the tests first")
    for one in data:
        for c_file, counted in gcov(one):
            c_file = c_file if c_file.exists() else next(build.rglob(c_file.name))
            for name, lines in carried_over(c_file, counted).items():
                for line, count in lines.items():
                    total[name][line] += count
    return {name: dict(lines) for name, lines in total.items()
            if (SOURCES / name).exists() and (SOURCES / name).suffix in REPORTED and name not in OURS}


class Lines(FileReporter):
    """A file of the core, as coverage.py asks for it."""

    def __init__(self, filename: str, executable: set[int]) -> None:
        super().__init__(filename)
        self.executable = executable

    def lines(self) -> set[int]:
        return self.executable

    def relative_filename(self) -> str:
        return f"_ext/{Path(self.filename).name}"


class Plugin(CoveragePlugin):
    """Knows which lines of which file can run."""

    def __init__(self, counts: Counts) -> None:
        self.counts = counts

    def file_reporter(self, filename: str) -> FileReporter:
        return Lines(filename, set(self.counts[Path(filename).name]))


def measured(counts: Counts) -> coverage.Coverage:
    """A coverage.py session that has seen these counts."""
    module = ModuleType("cycov_counts")         # plugins come as modules that coverage.py imports by name
    module.coverage_init = lambda registry, options: registry.add_file_tracer(Plugin(counts))   # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    session = coverage.Coverage(data_file=None, config_file=False)
    session.set_option("run:plugins", [module.__name__])
    data = session.get_data()
    data.add_lines({str(SOURCES / name): [line for line, count in lines.items() if count] for name, lines in counts.items()})
    data.add_file_tracers({str(SOURCES / name): f"{module.__name__}.{Plugin.__name__}" for name in counts})
    return session


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path)
    parser.add_argument("--html", type=Path, metavar="DIR")
    parser.add_argument("--missing", action="store_true", help="list the lines that did not run")
    parser.add_argument("--at-least", type=float, default=0.0, metavar="PERCENT")
    options = parser.parse_args()
    session = measured(collect(options.build))
    share = session.report(show_missing=options.missing)
    if options.html:
        session.html_report(directory=str(options.html), title="adaptcache: line coverage of the core")
    if share < options.at_least:
        sys.exit(f"{share:.1f} % of the lines ran, fewer than {options.at_least:g} %")


if __name__ == "__main__":
    main()
