"""What a worker does: it reads a trace, unless it has just done so, and runs some cells on it.

A worker is a thread, a process, or a process on another machine; what it is told and what it answers can be pickled.
"""
from __future__ import annotations

import os
import pickle
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from adaptcache.simulate.readers import read
from adaptcache.simulate.run import Result, simulate
from adaptcache.simulate.trace import Trace

KEPT: Final = 2     # traces in memory: where one ends and the next begins, threads are on both


@dataclass(frozen=True)
class Source:
    """Where a trace is: a file or a name for `read`, a Trace of ours that was written to a file, or the Trace itself."""

    text: str
    format: str | None = None
    limit: int | None = None
    seed: int = 0
    pickled: bool = False
    trace: Trace | None = None

    def load(self) -> Trace:
        if self.trace is None and not self.pickled:
            return read(self.text, self.format, self.limit, seed=self.seed)
        trace = self.trace
        if trace is None:
            with open(self.text, "rb") as file:     # written by this package, in a folder that only this user may enter
                trace = pickle.load(file)
        return trace if self.limit is None else trace.head(self.limit)

    def version(self) -> tuple[int, ...]:
        """Another one means that the file is no longer the one that was read."""
        try:
            stat = os.stat(self.text)
        except OSError:             # a synthetic one, or `load` will say what is wrong
            return ()
        return (stat.st_mtime_ns, stat.st_size, stat.st_ino)


@dataclass(frozen=True)
class Task:
    """Cells of one trace; `calls` are keywords for `simulate`, one set for each."""

    source: Source
    calls: Sequence[Mapping[str, Any]]
    timed_only: bool = False


def work(task: Task) -> list[Result | None]:
    """A result for each call, or None for a rule that was left out because the trace has no times."""
    trace = _traces.get(task.source)
    answers: list[Result | None] = []
    for call in task.calls:
        if task.timed_only and trace.time is None and call.get("expiries"):
            answers.append(None)
        else:
            answers += simulate(trace, **call)
    return answers


class _Traces:
    """The traces that were read last, for all threads of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: OrderedDict[tuple[Any, ...], Trace] = OrderedDict()

    def get(self, source: Source) -> Trace:
        if source.trace is not None:
            return source.load()
        name = (source, source.version())
        with self._lock:
            trace = self._held.pop(name, None)
            if trace is None:
                while len(self._held) >= KEPT:
                    self._held.popitem(last=False)
                trace = source.load()
            self._held[name] = trace
        return trace


_traces = _Traces()
