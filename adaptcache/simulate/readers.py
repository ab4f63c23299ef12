"""Files to traces: `read` gives a whole one, `stream` one of any length in chunks, `sample` a share of its keys.

The format is recognised by content, and so is what compresses it; `formats` has a module for each. Whatever
is wrong with a file becomes a TraceError that names the file, the line, row or byte, and what would be right;
the rows before it have been handed over by then. What is in no file comes by name, `synthetic:NAME`.
"""
from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import numpy as np

from adaptcache.errors import TraceError
from adaptcache.simulate import formats, sampling
from adaptcache.simulate.formats.block import Block
from adaptcache.simulate.formats.csv import WordsNeeded
from adaptcache.simulate.formats.source import Source, told
from adaptcache.simulate.sampling import Sample, Sampler
from adaptcache.simulate.trace import (
    DTYPES,
    Column,
    Problem,
    Rows,
    Trace,
    feature,
    mix,
    of_columns,
    problem,
)

FORMATS: Final = ("npz", "csv", "access-log", "synthetic", *(name for name in formats.BY_NAME if name not in ("npz", "csv", "access-log")))
ALIASES: Final = formats.ALIASES

WINDOW: Final = 1 << 16  # rows within which a stream that is slightly out of order is sorted


def read(source: str | os.PathLike[str], format: str | None = None, limit: int | None = None, *,
         seed: int = 0) -> Trace:
    """The trace in `source`: a path, or `synthetic:NAME` (the only one that `seed` changes).

    `format` is one of FORMATS or ALIASES and overrides what the content says. `limit` keeps the first rows only.
    Raises TraceError for a file that cannot be read, ValueError for a wrong argument, MissingExtra where a
    package is missing that the format needs.
    """
    format = _format(format)
    if limit is not None and limit < 1:
        raise ValueError(f"limit is {limit}; it must be at least 1")
    text = os.fspath(source)
    if _is_synthetic(text, format):
        trace = _synthetic(text, seed)
        return trace if limit is None else trace.head(limit)
    words: frozenset[str] = frozenset()
    while True:
        try:
            return _whole(Path(text), format, limit, words)
        except WordsNeeded as needed:
            words |= {needed.feature}


def stream(source: str | os.PathLike[str], format: str | None = None, rows: int = 1 << 20, *,
           seed: int = 0) -> Iterator[Rows]:
    """The trace in `source` in chunks of `rows` rows (the last may be shorter), in bounded memory.

    A feature of a csv that is all numbers in the first block of lines must stay so. Rows of a log that is
    out of order are sorted within WINDOW rows; one that comes later still gets the time of the row before it.
    Otherwise the rows are those of `read`, and so are the errors, once their row is reached.
    """
    format = _format(format)
    if rows < 1:
        raise ValueError(f"rows is {rows}; it must be at least 1")
    text = os.fspath(source)
    if _is_synthetic(text, format):
        return _chunks([_block(_synthetic(text, seed))], rows)
    return _streamed(Path(text), format, rows)


def sample(source: str | os.PathLike[str], format: str | None = None, most: int = 1 << 20, *, seed: int = 0) -> Sample:
    """What `read` gives, if that has at most `most` rows; else a sample of its keys, in memory for about so many.

    seed: also of the hash that draws the keys. Errors as of `read`.
    """
    format = _format(format)
    text = os.fspath(source)
    if _is_synthetic(text, format):
        return sampling.of(_synthetic(text, seed), most, seed)
    words: frozenset[str] = frozenset()
    while True:
        try:
            return _sample(Path(text), format, most, seed, words)
        except WordsNeeded as needed:
            words |= {needed.feature}


def _sample(path: Path, name: str | None, most: int, seed: int, words: frozenset[str]) -> Sample:
    with told(path):
        source = Source(path, None, words)
        format = formats.BY_NAME[name] if name else formats.recognise(source)
        sampler = Sampler(most, seed)
        with closing(_checked(source, format)) as blocks:
            for block in blocks:
                sampler.add(block.columns)
        return sampler.done(formats.stem(source), source.left_out, format.DISORDERLY)


def _format(name: str | None) -> str | None:
    name = name if name is None else ALIASES.get(name, name)
    if name is not None and name not in FORMATS:
        raise ValueError(f"unknown trace format {name!r}; known are {', '.join(FORMATS)}")
    return name


# Synthetic workloads

def _is_synthetic(text: str, format: str | None) -> bool:
    return format == "synthetic" or (format is None and text.startswith("synthetic:"))


def _synthetic(text: str, seed: int) -> Trace:
    # Imported here: the workloads pull in far more than a reader of files needs.
    from adaptcache.simulate.synthetic import generate

    name = text.removeprefix("synthetic:")
    try:
        return generate(name, seed=seed)
    except TraceError:
        raise
    except ValueError as error:
        raise TraceError(f"synthetic:{name}: {error}") from error


def _block(trace: Trace) -> Block:
    columns = {name: getattr(trace, name) for name in DTYPES if getattr(trace, name) is not None}
    columns |= {f"feat_{name}": values for name, values in trace.features.items()}
    return Block(columns, lambda row: f"row {row}")


# Files

def _whole(path: Path, name: str | None, limit: int | None, words: frozenset[str]) -> Trace:
    with told(path):
        source = Source(path, limit, words)
        format = formats.BY_NAME[name] if name else formats.recognise(source)
        taken: list[Block] = []
        left = np.inf if limit is None else limit
        with closing(_checked(source, format)) as blocks:
            for block in blocks:
                taken.append(block.head(int(left)) if len(block) > left else block)
                left -= len(taken[-1])
                if left == 0:
                    break
        columns = _joined(taken)
        taken.clear()
        if format.DISORDERLY:
            order = np.argsort(columns["time"], kind="stable")
            columns = {name: values[order] for name, values in columns.items()}
        return of_columns(formats.stem(source), columns, source.left_out)


def _streamed(path: Path, name: str | None, rows: int) -> Iterator[Rows]:
    with told(path):
        source = Source(path)
        format = formats.BY_NAME[name] if name else formats.recognise(source)
        with closing(_checked(source, format)) as blocks:
            yield from _chunks(_sorted(blocks) if format.DISORDERLY else blocks, rows)


def _checked(source: Source, format: formats.Format) -> Generator[Block, None, None]:
    """The blocks of a file, with rows, and none of them wrong; a TraceError after the last that is good."""
    last = -np.inf
    good = False
    with closing(format.blocks(source)) as blocks:
        for block in blocks:
            block = _sound(source, block, last, format.DISORDERLY)
            if len(block):
                good = True
                if "time" in block.columns:
                    last = block.columns["time"][-1]
                yield block
            if block.error is not None:
                raise block.error
    if not good:
        raise TraceError(f"{source}: has no rows; a trace needs at least one request")


def _sound(source: Source, block: Block, last: float, disorderly: bool) -> Block:
    """The block up to the first row of which a column says what it may not."""
    while len(block):
        columns = dict(block.columns)
        if columns["key"].dtype.kind in "iu":
            columns["key"] = np.zeros(len(block), np.uint32)  # any integer is a good key
        if disorderly:
            columns["time"] = np.where(np.isfinite(columns["time"]), 0.0, columns["time"])
        found = problem(columns)
        if "time" in columns and not disorderly and columns["time"][0] < last and (found is None or found.row is not None):
            found = Problem(0, "time", f"time goes back from {last} to {columns['time'][0]}; rows must be in order of time")
        if found is None:
            break
        at = "" if found.row is None else f"{block.where(found.row)}, "
        error = TraceError(f"{source}: {at}column {found.column}: {found.says}")
        block = block.head(found.row or 0, error)
    return block


def _sorted(blocks: Iterable[Block]) -> Iterator[Block]:
    """Blocks in order of time, where no row is more than WINDOW rows late; times of later ones are raised."""
    held: Block | None = None
    last = -np.inf
    for block in blocks:
        held = block if held is None else Block(_joined([held, block]), block.where)
        order = np.argsort(held.columns["time"], kind="stable")
        held = Block({name: values[order] for name, values in held.columns.items()}, block.where)
        ready = len(held) - WINDOW
        if ready > 0:
            out = held.head(ready)
            held = Block({name: values[ready:] for name, values in held.columns.items()}, block.where)
            out.columns["time"] = np.maximum(out.columns["time"], last)
            last = out.columns["time"][-1]
            yield out
    if held is not None:
        held.columns["time"] = np.maximum(held.columns["time"], last)
        yield held


def _chunks(blocks: Iterable[Block], rows: int) -> Iterator[Rows]:
    """Blocks of any length as chunks of one."""
    waiting: list[Block] = []
    number = first = 0
    for block in blocks:
        start = 0
        while number + len(block) - start >= rows:
            stop = start + rows - number
            waiting.append(_part(block, start, stop))
            yield _rows(waiting, first)
            first += rows
            number, waiting, start = 0, [], stop
        if start < len(block):
            waiting.append(_part(block, start, len(block)))
            number += len(block) - start
    if waiting:
        yield _rows(waiting, first)


def _part(block: Block, start: int, stop: int) -> Block:
    return Block({name: values[start:stop] for name, values in block.columns.items()}, block.where)


def _rows(blocks: list[Block], first: int) -> Rows:
    columns = _joined(blocks)
    key = mix(columns.pop("key"))
    features = {column.removeprefix("feat_"): feature(columns.pop(column)) for column in list(columns) if column.startswith("feat_")}
    rest: dict[str, Any] = {name: np.ascontiguousarray(values, dtype=DTYPES[name]) for name, values in columns.items()}
    return Rows(first, key, features=features, **rest)


def _joined(blocks: list[Block]) -> dict[str, Column]:
    if len(blocks) == 1:
        return dict(blocks[0].columns)
    return {name: np.concatenate([block.columns[name] for block in blocks]) for name in blocks[0].columns}
