"""The .lis traces of ARC's authors (OLTP, P1 to P14, DS1, S1 to S3, SPC1-like): four whole numbers a line,

    first block, number of blocks, ignored (0), request number

    60604 1 0 0

Each line is a request for that many blocks of 512 bytes in a row; each block is a row of the trace, of size
1. There are no times: the request number counts lines.
"""
from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from itertools import pairwise
from typing import Final

import numpy as np

from adaptcache.simulate.formats import integers, lines
from adaptcache.simulate.formats.block import Block, Faults
from adaptcache.simulate.formats.source import Source
from adaptcache.simulate.trace import Column

NAME: Final = "arc"
ALIASES: Final = ("lis", "spc")
SUFFIXES: Final = (".lis",)
DISORDERLY: Final = False

MOST: Final = 1 << 20  # blocks of one request: half a gibibyte
ROWS: Final = 1 << 20  # of a block of rows
RIGHT: Final = "four are wanted: first block, number of blocks, 0, request number"


def recognises(source: Source) -> bool:
    rows = integers.sample(source.lines, 4, 4) if source.is_text else None
    if rows is None:
        return False
    if source.name.endswith(".lis"):
        return True
    return all(row[2] == 0 for row in rows) and all(a[3] + 1 == b[3] for a, b in pairwise(rows))


def blocks(source: Source) -> Generator[Block, None, None]:
    for text in lines.texts(source):
        table, odd = lines.split(text, lines.SPACE, 4)
        faults = Faults(len(table))
        first = integers.column(faults, "first block", table.fields[0])
        number = integers.column(faults, "number of blocks", table.fields[1])
        faults.among((number < 1) | (number > MOST), lines.say("number of blocks", table.fields[1], f"from 1 to {MOST:,}"))
        known = faults.block(source, {"key": first}, table.where)
        yield from _expanded(first[:len(known)], number[:len(known)].astype(np.int64), table)
        error = known.error or lines.wrong_width(source, odd, RIGHT)
        if error:
            raise error


def _where(table: lines.Table, request: Column) -> Callable[[int], str]:
    return lambda row: table.where(int(request[row]))


def _expanded(first: Column, number: Column, table: lines.Table) -> Iterator[Block]:
    """Every block of every request, in blocks of rows whose length does not depend on what the lines say."""
    ends = np.cumsum(number)
    total = int(ends[-1]) if len(ends) else 0
    for start in range(0, total, ROWS):
        rows = np.arange(start, min(start + ROWS, total))
        request = np.searchsorted(ends, rows, "right")
        inside = rows - (ends[request] - number[request])
        key = first[request] + inside.astype(np.uint64)
        yield Block({"key": key}, _where(table, request))
