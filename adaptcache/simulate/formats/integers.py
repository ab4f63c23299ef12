"""What the formats of nothing but whole numbers share: rows of numbers, and how to say that one is none."""
from __future__ import annotations

from adaptcache.simulate.formats import lines
from adaptcache.simulate.formats.block import Faults
from adaptcache.simulate.formats.fields import Fields
from adaptcache.simulate.trace import Column


def column(faults: Faults, name: str, fields: Fields) -> Column:
    """A column of whole numbers from 0 to 2^64 - 1 (uint64)."""
    values, bad = fields.integers()
    faults.among(bad, lines.say(name, fields, "a whole number from 0 to 2^64 - 1"))
    return values


def sample(found: list[str], least: int, most: int | None = None) -> list[list[int]] | None:
    """The first lines as rows of whole numbers, if they are that, equally many in each line."""
    rows = [line.split() for line in found[:50]]
    width = len(rows[0]) if rows else 0
    if width < least or (most is not None and width > most):
        return None
    if not all(len(row) == width and all(word.isascii() and word.isdigit() for word in row) for row in rows):
        return None
    return [[int(word) for word in row] for row in rows]
