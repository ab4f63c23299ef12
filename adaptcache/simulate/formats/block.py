"""What a format's reader hands on: blocks of rows, each with a way to say where in the file a row stands."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from adaptcache.errors import TraceError
from adaptcache.simulate.trace import Column, numbered

OPS: Final[Mapping[str, int]] = {
    **dict.fromkeys(("0", "get", "gets", "read", "r"), 0),
    **dict.fromkeys(("1", "set", "put", "write", "w", "add", "replace", "cas", "append", "prepend",
                     "incr", "decr", "update"), 1),
    **dict.fromkeys(("2", "delete", "del", "remove"), 2),
}


@dataclass
class Block:
    """Some rows of a trace, in order, as columns of one length.

    columns  by the names of a Trace, features as `feat_NAME`. `key` holds integers: the keys themselves, or 64
             bits of hash where a key is text. All blocks of a file have the same columns.
    where    a row of the block -> its place in the file, in words ("line 7")
    error    what is wrong right after these rows, if anything; the rows themselves are good
    """

    columns: dict[str, Column]
    where: Callable[[int], str]
    error: TraceError | None = None

    def __len__(self) -> int:
        return len(self.columns["key"])

    def head(self, rows: int, error: TraceError | None = None) -> Block:
        return Block({name: values[:rows] for name, values in self.columns.items()}, self.where, error)


def rows_from(first: int) -> Callable[[int], str]:
    """Where the rows of a block stand that begins with this row, in files that have neither lines nor records."""
    return lambda row: f"row {first + row}"


class Groups(dict[int, int]):
    """Ids by first appearance for labels that are known by a hash: the first is 0, each new one the next.

    Bounded, so that a stream of any length is: labels that come when LIMIT are known share one id.
    """

    LIMIT: Final = 1 << 20

    def __missing__(self, label: int) -> int:
        if len(self) >= self.LIMIT:
            return self.LIMIT
        self[label] = number = len(self)
        return number

    def ids(self, labels: Column) -> Column:
        ids, first = numbered(labels)
        return np.array([self[label] for label in labels[first].tolist()], np.uint32)[ids]


class Faults:
    """The first row of a block with which something is wrong."""

    def __init__(self, rows: int) -> None:
        self.rows = rows  # that are good
        self.says = ""

    def at(self, row: int, says: str) -> None:
        if row < self.rows:
            self.rows, self.says = row, says

    def among(self, bad: Column, say: Callable[[int], str]) -> None:
        """Notes the first row for which `bad` is true."""
        bad = bad[:self.rows]
        if bad.any():
            row = int(bad.argmax())
            self.at(row, say(row))

    def block(self, source: object, columns: dict[str, Column], where: Callable[[int], str]) -> Block:
        if not self.says:
            return Block(columns, where)
        error = TraceError(f"{source}: {where(self.rows)}{self.says}")
        return Block(columns, where).head(self.rows, error)
