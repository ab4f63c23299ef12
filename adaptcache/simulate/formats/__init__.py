"""The formats of traces, one file each.

A format is a module with

    NAME, ALIASES    what `--format` calls it
    SUFFIXES         what is no part of a trace's name
    DISORDERLY       True: rows may be slightly out of order of time, and whoever reads sorts them
    recognises(source) -> bool            by the first bytes (`source.head`, `.lines`), not by the suffix alone
    blocks(source) -> Generator of Block     the rows, in bounded memory; whatever is wrong is a TraceError

ORDER is the order in which they are asked whether a file is theirs. A format added here is read, streamed,
listed and tested with the others.
"""
from __future__ import annotations

from collections.abc import Generator
from typing import Final, Protocol, cast

from adaptcache.errors import TraceError
from adaptcache.simulate.formats import (
    access_log,
    arc,
    arrow,
    csv,
    lirs,
    npz,
    oracle_general,
    parquet,
    recording,
    redis_monitor,
    twitter,
    txt,
    webcachesim,
)
from adaptcache.simulate.formats.block import Block
from adaptcache.simulate.formats.source import SUFFIXES, Source


class Format(Protocol):
    @property
    def NAME(self) -> str: ...
    @property
    def ALIASES(self) -> tuple[str, ...]: ...
    @property
    def SUFFIXES(self) -> tuple[str, ...]: ...
    @property
    def DISORDERLY(self) -> bool: ...
    def recognises(self, source: Source) -> bool: ...
    def blocks(self, source: Source) -> Generator[Block, None, None]: ...


ORDER: Final = cast("tuple[Format, ...]", (
    npz, parquet, arrow, recording, redis_monitor, access_log, twitter, arc, webcachesim, lirs, txt, csv, oracle_general,
))
BY_NAME: Final = {format.NAME: format for format in ORDER}
ALIASES: Final = {alias: format.NAME for format in ORDER for alias in format.ALIASES}


def recognise(source: Source) -> Format:
    """The format of a file, by its content."""
    if not source.head:
        raise TraceError(f"{source}: is empty; a trace needs at least one request")
    for format in ORDER:
        if format.recognises(source):
            return format
    raise TraceError(f"{source}: is neither text nor npz, and no other format that is known; readable are {', '.join(BY_NAME)} "
                     "(compressed or not)")


def stem(source: Source) -> str:
    """The name of a trace: that of its file without what says how it is written."""
    name = source.name
    for suffix in dict.fromkeys((*SUFFIXES, *(suffix for format in ORDER for suffix in format.SUFFIXES))):
        name = name.removesuffix(suffix) or name
    return name
