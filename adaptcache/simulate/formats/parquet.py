"""Apache Parquet, by pyarrow (extra `traces`): the columns of a csv under the same names, read in batches.

`arrow_columns` says of which types they may be. A Parquet file is read from its end, so it cannot be inside
a compressed file; it compresses its own columns.
"""
from __future__ import annotations

from collections.abc import Generator
from typing import Final

from adaptcache.simulate.formats import arrow_columns
from adaptcache.simulate.formats.block import Block
from adaptcache.simulate.formats.source import Source

NAME: Final = "parquet"
ALIASES: Final = ()
SUFFIXES: Final = (".parquet", ".pq")
DISORDERLY: Final = False


def recognises(source: Source) -> bool:
    return source.head.startswith(b"PAR1") or source.name.endswith(SUFFIXES)


def blocks(source: Source) -> Generator[Block, None, None]:
    source.must_be_plain("a Parquet file")
    with arrow_columns.told(source, "Parquet file") as pyarrow, pyarrow.parquet.ParquetFile(source.path) as file:
        columns = arrow_columns.Columns(source, pyarrow, file.schema_arrow)
        for batch in file.iter_batches(arrow_columns.ROWS, columns=list(columns.origins.values())):
            batch.validate(full=True)
            yield columns.block(batch)
