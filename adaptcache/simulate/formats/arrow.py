"""Apache Arrow's files (also called Feather, version 2) and streams, by pyarrow (extra `traces`).

The columns of a csv under the same names, read batch by batch; `arrow_columns` says of which types they may
be. A stream may be inside a compressed file; a file may not, since it is read from its end.
"""
from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any, Final

from adaptcache.errors import TraceError
from adaptcache.simulate.formats import arrow_columns
from adaptcache.simulate.formats.block import Block
from adaptcache.simulate.formats.source import Source

NAME: Final = "arrow"
ALIASES: Final = ("feather", "ipc")
SUFFIXES: Final = (".arrow", ".feather", ".arrows", ".ipc")
DISORDERLY: Final = False

FILE: Final = b"ARROW1\0\0"
STREAM: Final = b"\xff\xff\xff\xff"
FEATHER_1: Final = b"FEA1"


def recognises(source: Source) -> bool:
    return source.head.startswith((FILE, STREAM, FEATHER_1)) or source.name.endswith(SUFFIXES)


def blocks(source: Source) -> Generator[Block, None, None]:
    if source.head.startswith(FEATHER_1):
        raise TraceError(f"{source}: is Feather of version 1, which is no Arrow; write it anew as version 2")
    with arrow_columns.told(source, "Arrow file or stream") as pyarrow:
        if source.head.startswith(FILE):
            source.must_be_plain("an Arrow file")
            with pyarrow.OSFile(str(source.path)) as file, pyarrow.ipc.open_file(file) as reader:
                columns = arrow_columns.Columns(source, pyarrow, reader.schema)
                for number in range(reader.num_record_batches):
                    yield from _blocks(columns, reader.get_batch(number))
        else:
            with source.open() as file, pyarrow.ipc.open_stream(pyarrow.PythonFile(file, "r")) as reader:
                columns = arrow_columns.Columns(source, pyarrow, reader.schema)
                for batch in reader:
                    yield from _blocks(columns, batch)


def _blocks(columns: arrow_columns.Columns, batch: Any) -> Iterator[Block]:
    # Offsets of a damaged file may point anywhere; this compares them with what they point into.
    batch.validate(full=True)
    for first in range(0, batch.num_rows, arrow_columns.ROWS):
        yield columns.block(batch.slice(first, arrow_columns.ROWS))
