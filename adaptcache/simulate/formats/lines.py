"""Text in blocks of whole lines, and such a block as a table of fields.

A line ends with a newline, before which a carriage return is left out; blank lines are passed over. This
file does not know what the fields mean.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from adaptcache.errors import TraceError
from adaptcache.simulate.formats.block import Block
from adaptcache.simulate.formats.fields import BEFORE, Fields, padded
from adaptcache.simulate.formats.source import Source
from adaptcache.simulate.trace import Column

SIZE: Final = 1 << 22  # bytes of a block
LONGEST: Final = 1 << 26  # bytes of a line that is still one

NEWLINE, RETURN, SPACE = b"\n\r "


class Text(NamedTuple):
    """Whole lines, and the number that the first of them has in the file."""

    content: bytes
    line: int


def texts(source: Source) -> Iterator[Text]:
    """A text in blocks of whole lines."""
    with source.open() as file:
        rest = file.read(3).removeprefix(b"\xef\xbb\xbf")
        line = 1
        while True:
            more = file.read(SIZE)
            cut = more.rfind(b"\n") + 1
            if more and not cut:
                rest += more
                if len(rest) > LONGEST:
                    raise TraceError(f"{source}: line {line}: is longer than {LONGEST:,} bytes; this is no text of one request a line")
                continue
            content = rest + more[:cut] if more else rest
            if content:
                yield Text(content, line)
            if not more:
                return
            line += content.count(b"\n")
            rest = more[cut:]


@dataclass
class Table:
    """Rows of equally many fields. `lines` has the line of each row."""

    fields: list[Fields]
    lines: Column

    def __len__(self) -> int:
        return len(self.lines)

    def where(self, row: int) -> str:
        return f"line {self.lines[row]}"

    def head(self, rows: int) -> Table:
        return Table([field[:rows] for field in self.fields], self.lines[:rows])


def of_rows(rows: list[list[str]], lines: list[int], width: int) -> Table:
    """The table of rows that were taken apart elsewhere."""
    whole = Fields.of([field.encode("utf-8", "surrogateescape") for row in rows for field in row])
    return Table([whole[column::width] for column in range(width)], np.array(lines, np.int64))


class Split(NamedTuple):
    """A block of text as a table; where a line has another number of fields, the table ends before it and
    `odd` has that line's number and its fields' number."""

    table: Table
    odd: tuple[int, int] | None


def split(text: Text, delimiter: int, width: int) -> Split:
    """The table of a block. Where fields are parted by spaces, any run of spaces and tabs parts them."""
    found = _split(text, delimiter, width)
    if found.odd is not None and delimiter == SPACE:
        plain = b"\n".join(re.sub(rb"[ \t\r]+", b" ", line).strip(b" ") for line in text.content.split(b"\n"))
        return _split(Text(plain, text.line), delimiter, width)
    return found


def _split(text: Text, delimiter: int, width: int) -> Split:
    content = text.content if text.content.endswith(b"\n") else text.content + b"\n"
    data = padded(content)
    is_end = data == NEWLINE
    ends = np.flatnonzero(is_end)
    lines = np.arange(text.line, text.line + len(ends))
    odd = None
    if width == 1:
        marks = ends
    else:
        is_end |= data == delimiter
        marks = np.flatnonzero(is_end)
    starts = np.concatenate(([BEFORE], marks[:-1] + 1))
    if len(marks) != width * len(ends) or not np.array_equal(marks[width - 1::width], ends):
        # Number of marks up to and with each line's end; blank lines have one mark and no bytes.
        number = np.diff(np.searchsorted(marks, ends, "right"), prepend=0)
        last = np.cumsum(number) - 1
        blank = (number == 1) & _is_blank(data, starts[last], ends)
        wrong = np.flatnonzero((number != width) & ~blank)
        if len(wrong):
            odd = int(lines[wrong[0]]), int(number[wrong[0]])
            number, blank, lines = number[:wrong[0]], blank[:wrong[0]], lines[:wrong[0]]
        keep = np.repeat(~blank, number)
        marks, starts, lines = marks[:len(keep)][keep], starts[:len(keep)][keep], lines[~blank]
    elif width == 1:
        kept = ~_is_blank(data, starts, ends)
        marks, starts, lines = marks[kept], starts[kept], lines[kept]
    fields = [Fields(data, starts[column::width], marks[column::width]) for column in range(width)]
    final = fields[-1]
    final.end = final.end - ((data[final.end - 1] == RETURN) & (final.end > final.start))
    return Split(Table(fields, lines), odd)


def _is_blank(data: Column, starts: Column, ends: Column) -> Column:
    blank: Column = (ends == starts) | ((ends == starts + 1) & (data[starts] == RETURN))
    return blank


def say(name: str, fields: Fields, right: str) -> Callable[[int], str]:
    """How to say that a field of a column is not what is right."""
    return lambda row: f", column {name}: {fields.text(row)!r} is not {right}"


def wrong_width(source: Source, odd: tuple[int, int] | None, right: str) -> TraceError | None:
    """What to say of a line with another number of fields."""
    if odd is None:
        return None
    line, number = odd
    return TraceError(f"{source}: line {line}: has {number} fields; {right}")


def ending(block: Block, error: TraceError | None) -> Block:
    """The block, followed by this error unless it already ends with an earlier one."""
    if block.error is None:
        block.error = error
    return block
