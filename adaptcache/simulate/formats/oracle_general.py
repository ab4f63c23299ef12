"""libCacheSim's oracleGeneral: binary records of 24 bytes, little-endian, without a header:

    uint32 time (s), uint64 object id, uint32 size (bytes), int64 next

`next` is the number of the object's next request, or -1 or 2^63 - 1 if there is none. We work the future out
ourselves and use it only to recognise the format.
"""
from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Final

import numpy as np

from adaptcache.errors import TraceError
from adaptcache.simulate.formats.block import Block
from adaptcache.simulate.formats.source import Source
from adaptcache.simulate.trace import Column

NAME: Final = "oracle-general"
ALIASES: Final = ("oracleGeneral", "oraclegeneral", "libcachesim")
SUFFIXES: Final = (".bin", ".oracleGeneral")
DISORDERLY: Final = False

RECORD: Final = np.dtype([("time", "<u4"), ("key", "<u8"), ("size", "<u4"), ("next", "<i8")])
ROWS: Final = 1 << 18  # of a block
NEVER: Final = 2**63 - 1
MOST: Final = 1 << 48  # requests of a trace whose length is not known


def recognises(source: Source) -> bool:
    if "oraclegeneral" in source.name.lower():
        return True
    if source.size is not None and source.size % RECORD.itemsize:
        return False
    head = source.head[:len(source.head) // RECORD.itemsize * RECORD.itemsize]
    if not head:
        return False
    records = np.frombuffer(head, RECORD)
    number = np.arange(len(records))
    most = MOST if source.size is None else source.size // RECORD.itemsize
    following = records["next"]
    sound = (following == -1) | (following == NEVER) | ((following > number) & (following <= most))
    return bool(sound.all() and (records["time"][1:] >= records["time"][:-1]).all())


def _where(first: int) -> Callable[[int], str]:
    return lambda row: f"record {first + row} (byte {(first + row) * RECORD.itemsize:,})"


def blocks(source: Source) -> Generator[Block, None, None]:
    with source.open() as file:
        first = 0
        while True:
            content = file.read(ROWS * RECORD.itemsize)
            whole, over = divmod(len(content), RECORD.itemsize)
            records = np.frombuffer(content[:len(content) - over] if over else content, RECORD)
            columns: dict[str, Column] = {
                "time": records["time"].astype(np.float64), "key": records["key"].copy(),
                "size": records["size"].astype(np.float64),
            }
            block = Block(columns, _where(first))
            if over:
                block.error = TraceError(f"{source}: byte {(first + whole) * RECORD.itemsize:,}: half a record, {over} bytes; "
                                         f"every record has {RECORD.itemsize}")
            yield block
            first += whole
            if len(content) < ROWS * RECORD.itemsize:
                return
