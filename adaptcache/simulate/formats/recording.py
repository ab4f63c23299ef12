"""Recordings of live caches (`adaptcache.record`); `tapefile` says how they look, and what each operation becomes.

A set belongs to the miss before it and a hit has the size of the set after it, so the rows of a recording are made all at
once: one takes memory in proportion to its length, which is bounded when it is written.
"""
from __future__ import annotations

from collections.abc import Generator
from typing import Final

from adaptcache import tapefile
from adaptcache.errors import TraceError
from adaptcache.simulate.formats.block import Block, rows_from
from adaptcache.simulate.formats.source import Source

NAME: Final = "recording"
ALIASES: Final = ()
SUFFIXES: Final = (".act",)
DISORDERLY: Final = False


def recognises(source: Source) -> bool:
    return tapefile.is_recording(source.head)


def blocks(source: Source) -> Generator[Block, None, None]:
    with source.open() as file:
        columns = tapefile.folded(tapefile.read(source.path, file).events)
    if len(columns["key"]) == 0:
        raise TraceError(f"{source}: holds no operation; a trace needs at least one request")
    yield Block(columns, rows_from(0))
