"""Comma, semicolon or tab separated values, of our own columns and of libCacheSim's csv traces.

A header names the columns, in any order; columns that nobody knows are left out. Without a header rows are
`time,key` or `time,key,size`. Beside our own names those are known by which libCacheSim's csv files and
others call the same (`obj_id`, `obj_size`, `lbn`, ...); where the key is called `lbn`, operations are SCSI
codes (28 reads, 2a writes). Fields may be quoted as in RFC 4180.

A block is taken apart by `lines.split`, also where quotes surround whole fields and nothing else. From the
first quote on that means more (a delimiter, a newline or a quote inside) the standard library's csv module
does it, since then a newline need not end a row.
"""
from __future__ import annotations

import csv
import io
from collections.abc import Generator, Iterator
from typing import Final

import numpy as np

from adaptcache.errors import TraceError
from adaptcache.simulate.columns import column_names
from adaptcache.simulate.formats import lines
from adaptcache.simulate.formats.block import OPS, Block, Faults, Groups
from adaptcache.simulate.formats.fields import Fields, each_different
from adaptcache.simulate.formats.source import Source
from adaptcache.simulate.trace import Column

NAME: Final = "csv"
ALIASES: Final = ("tsv", "libcachesim-csv")
SUFFIXES: Final = (".csv", ".tsv")
DISORDERLY: Final = False

ROWS: Final = 1 << 16  # of a block that the csv module took apart

QUOTE: Final = ord('"')

# Operation codes of SCSI commands, in hexadecimal: those of 6, 10, 12 and 16 bytes that read and write.
SCSI: Final = {**dict.fromkeys(("8", "08", "28", "a8", "88"), 0), **dict.fromkeys(("a", "0a", "2a", "aa", "8a"), 1)}


class WordsNeeded(TraceError):
    """A feature that was all numbers so far turns out to hold words; reading anew with its name in
    `Source.words` makes it categories from the start."""

    feature = ""


def recognises(source: Source) -> bool:
    return source.is_text  # what is no other text is a csv, or gets its error there


def blocks(source: Source) -> Generator[Block, None, None]:
    blocks = lines.texts(source)
    first = next((text for text in blocks if text.content.strip(b"\r\n")), None)
    if first is None:
        raise TraceError(f"{source}: is empty; a trace needs at least one request")
    skipped = first.content[:len(first.content) - len(first.content.lstrip(b"\r\n"))]
    text = lines.Text(first.content.lstrip(b"\r\n"), first.line + skipped.count(b"\n"))
    line = text.content.partition(b"\n")[0]
    delimiter = max(",;\t", key=line.decode("utf-8", "surrogateescape").count)
    reader = _Reader(source, delimiter)
    rest = reader.header(text)
    good = False
    for block in _tables(reader, rest, blocks):
        good |= len(block) > 0
        yield block
    if not good:
        raise TraceError(f"{source}: has a header and no rows; a trace needs at least one request")
    reader.check_words()


def _tables(reader: _Reader, text: lines.Text, more: Iterator[lines.Text]) -> Iterator[Block]:
    """The blocks of the rows in `text` and of all `more`."""
    while True:
        if text.content:
            table, odd = lines.split(text, ord(reader.delimiter), len(reader.names))
            if b'"' in text.content and (odd is not None or not _unquoted(table, text.content.count(b'"'))):
                yield from reader.quoted(text, more)
                return
            block = reader.block(table)
            yield lines.ending(block, lines.wrong_width(reader.source, odd, reader.right))
        following = next(more, None)
        if following is None:
            return
        text = following


class _Reader:
    """Tables of fields to columns."""

    def __init__(self, source: Source, delimiter: str) -> None:
        self.source = source
        self.delimiter = delimiter
        self.names: list[str] = []
        self.origins: dict[str, int] = {}
        self.ops = OPS
        self.groups: dict[str, Groups] = {}
        self.left = source.limit
        self.rows = 0
        self.words = set(source.words)
        self.unknown: dict[str, str] = {}  # words of whom all so far are numbers or empty -> where the first is empty
        self.numeric = set(source.words)

    def header(self, text: lines.Text) -> lines.Text:
        """Reads the names of the columns; what remains is all rows."""
        line, newline, rest = text.content.partition(b"\n")
        try:
            fields = next(csv.reader([_decoded(line).rstrip("\r")], delimiter=self.delimiter), [])
        except csv.Error as error:
            raise TraceError(f"{self.source}: line {text.line}: {error}") from error
        names = [field.strip().lower() for field in fields]
        if "key" not in names and len(names) in (2, 3) and _is_number(names[0]):
            names = ["time", "key", "size"][:len(names)]
            rest, first = text.content, text.line
        else:
            first = text.line + len(newline)
        self.names = names
        self.origins = {name: names.index(origin) for name, origin in column_names(str(self.source), names).items()}
        if "key" not in self.origins:
            raise TraceError(f"{self.source}: line {text.line}: no column named key (found: {', '.join(names)}); a header "
                             "names the columns, or rows are time,key or time,key,size without a header")
        if names[self.origins["key"]] == "lbn":
            self.ops = SCSI
        return lines.Text(rest, first)

    @property
    def right(self) -> str:
        return f"the first line has {len(self.names)}, and every line must have as many"

    def quoted(self, text: lines.Text, more: Iterator[lines.Text]) -> Iterator[Block]:
        """The rows from here on, by the csv module."""
        rows: list[list[str]] = []
        numbers: list[int] = []
        width = len(self.names)
        reader = csv.reader(_each_line(text, more), delimiter=self.delimiter)
        error = None
        while error is None:
            try:
                row = next(reader, None)
            except csv.Error as wrong:
                error = TraceError(f"{self.source}: line {text.line - 1 + reader.line_num}: {wrong}")
                break
            if row is None:
                break
            if len(row) == width:
                rows.append(row)
                numbers.append(text.line - 1 + reader.line_num)
            elif row:
                error = lines.wrong_width(self.source, (text.line - 1 + reader.line_num, len(row)), self.right)
            if len(rows) == ROWS:
                yield self.block(lines.of_rows(rows, numbers, width))
                rows, numbers = [], []
        yield lines.ending(self.block(lines.of_rows(rows, numbers, width)), error)

    def block(self, table: lines.Table) -> Block:
        if self.left is not None:
            table = table.head(self.left)
            self.left -= len(table)
        self.table = table
        self.faults = Faults(len(table))
        columns = {name: self._column(name, table.fields[index]) for name, index in self.origins.items()}
        self.rows += len(table)
        return self.faults.block(self.source, columns, table.where)

    def _column(self, name: str, fields: Fields) -> Column:
        if name == "key":
            return fields.hashes()
        if name == "namespace":
            return self._ids(name, fields)
        if name == "op":
            ops = each_different(fields, lambda text: self.ops.get(text.strip().lower(), 255)).astype(np.uint8)
            self._refuse(name, fields, ops == 255, "0, 1, 2 or get, set, delete" if self.ops is OPS else "a SCSI read or write (28, 2a)")
            return ops
        if name.startswith("feat_"):
            return self._feature(name, fields)
        values, bad = fields.numbers()
        if name == "ttl":
            bad &= fields.end > fields.start
        self._refuse(name, fields, bad, "a number")
        if name == "version":
            whole = np.isfinite(values) & (values == np.floor(values)) & (np.abs(values) <= 2**53)
            self.faults.among(~whole, lambda row: f", column version: {values[row]} is not a whole number")
            return np.where(whole, values, 0).astype(np.int64)
        return values

    def _refuse(self, name: str, fields: Fields, bad: Column, right: str) -> None:
        self.faults.among(bad, lambda row: f", column {name}: {fields.text(row)!r} is not {right}")

    def _ids(self, name: str, fields: Fields) -> Column:
        return self.groups.setdefault(name, Groups()).ids(fields.hashes())

    def _feature(self, name: str, fields: Fields) -> Column:
        """Numbers if all are numbers; else words, which become categories."""
        values, bad = fields.numbers()
        empty = bad & (fields.end == fields.start)
        if name in self.words:
            if name in self.numeric:
                if (bad & ~empty).any():
                    self.numeric.discard(name)
                elif empty.any():
                    self.unknown.setdefault(name, self.table.where(int(empty.argmax())))
            return self._ids(name, fields)
        if not bad.any():
            return values
        row = int(bad.argmax())
        if self.rows == 0 and (bad & ~empty).any():
            self.words.add(name)
            return self._ids(name, fields)
        error = WordsNeeded(f"{self.source}: {self.table.where(row)}, column {name}: " + (
            EMPTY if empty[row] else f"{fields.text(row)!r} is not a number, as all before it are"))
        error.feature = name
        raise error

    def check_words(self) -> None:
        for name in sorted(self.numeric & self.unknown.keys()):
            raise TraceError(f"{self.source}: {self.unknown[name]}, column {name}: {EMPTY}")


EMPTY: Final = "is empty and the others are numbers; write -1 or another number of your own for 'unknown'"


def _unquoted(table: lines.Table, quotes: int) -> bool:
    """Takes the quotes off all fields that have one at either end; False if that are not all the quotes there are."""
    for fields in table.fields:
        long = fields.end - fields.start > 1
        quoted = long & (fields.data[fields.start] == QUOTE) & (fields.data[fields.end - 1] == QUOTE)
        quotes -= 2 * int(quoted.sum())
        fields.start, fields.end = fields.start + quoted, fields.end - quoted
    return quotes == 0


def _decoded(content: bytes) -> str:
    """Bytes that are not UTF-8 survive in keys."""
    return content.decode("utf-8", "surrogateescape")


def _each_line(text: lines.Text, more: Iterator[lines.Text]) -> Iterator[str]:
    while True:
        yield from io.StringIO(_decoded(text.content), newline="")
        following = next(more, None)
        if following is None:
            return
        text = following


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
