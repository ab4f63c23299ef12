"""The traces of LIRS's authors: a block number a line. A line with a `*` marks where their simulator prints
its stacks; it is no request.

    281
    9067
    *
"""
from __future__ import annotations

from collections.abc import Generator
from typing import Final

import numpy as np

from adaptcache.simulate.formats import integers, lines
from adaptcache.simulate.formats.block import Block, Faults
from adaptcache.simulate.formats.source import Source

NAME: Final = "lirs"
ALIASES: Final = ()
SUFFIXES: Final = (".trc", ".trace", ".txt")
DISORDERLY: Final = False


def recognises(source: Source) -> bool:
    return source.is_text and integers.sample([line for line in source.lines if line != "*"], 1, 1) is not None


def blocks(source: Source) -> Generator[Block, None, None]:
    for text in lines.texts(source):
        table, _ = lines.split(text, lines.NEWLINE, 1)
        fields, numbers = table.fields[0], table.lines
        marks = (fields.data[fields.start] == ord("*")) & (fields.end - fields.start == 1)
        if marks.any():
            table = lines.Table([fields[~marks]], numbers[~marks])
        faults = Faults(len(table))
        key = integers.column(faults, "block number", table.fields[0])
        yield faults.block(source, {"key": key.astype(np.uint64)}, table.where)
