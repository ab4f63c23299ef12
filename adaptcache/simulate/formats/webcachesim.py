"""Traces of webcachesim and LRB (github.com/sunnyszy/lrb): `time id size [feature ...]`, parted by spaces.

    1 1 120
    4 3 14 2 7

Whole numbers all. The time is of any unit and never falls; the size is in bytes; further columns are
categories, `extra1`, `extra2` and so on. The first line says how many there are.
"""
from __future__ import annotations

from collections.abc import Generator
from itertools import pairwise
from typing import Final

import numpy as np

from adaptcache.errors import TraceError
from adaptcache.simulate.formats import arc, integers, lines
from adaptcache.simulate.formats.block import Block, Faults
from adaptcache.simulate.formats.source import Source

NAME: Final = "webcachesim"
ALIASES: Final = ("lrb",)
SUFFIXES: Final = (".tr", ".trace")
DISORDERLY: Final = False


def recognises(source: Source) -> bool:
    if not source.is_text or arc.recognises(source):
        return False
    rows = integers.sample(source.lines, 3)
    return rows is not None and all(a[0] <= b[0] for a, b in pairwise(rows))


def blocks(source: Source) -> Generator[Block, None, None]:
    width = len(source.lines[0].split()) if source.lines else 3
    if width < 3:
        raise TraceError(f"{source}: line 1: has {width} fields; time, id, size and perhaps features are wanted")
    for text in lines.texts(source):
        table, odd = lines.split(text, lines.SPACE, width)
        faults = Faults(len(table))
        time, key, size, *extra = table.fields
        columns = {"time": integers.column(faults, "time", time).astype(np.float64),
                   "key": integers.column(faults, "id", key),
                   "size": integers.column(faults, "size", size).astype(np.float64)}
        for number, fields in enumerate(extra, start=1):
            values = integers.column(faults, f"extra{number}", fields)
            faults.among(values > 0xFFFFFFFF, lines.say(f"extra{number}", fields, "a category of at most 32 bits"))
            columns[f"feat_extra{number}"] = values.astype(np.uint32)
        right = f"the first line has {width}, and every line must have as many"
        yield lines.ending(faults.block(source, columns, table.where), lines.wrong_width(source, odd, right))
