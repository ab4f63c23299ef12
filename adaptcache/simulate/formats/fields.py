"""Many pieces of one buffer at once: their hashes, and the numbers that they spell.

Text formats find where their fields begin and end; what those say is worked out here, eight bytes of every
field at a time, without an object for each. This file knows neither lines nor columns.
"""
from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from adaptcache.simulate.trace import Column, mix, numbered

BEFORE: Final = 24  # bytes of padding: as many digits as are looked at before the end of a field
AFTER: Final = 8
LONG: Final = 4096  # bytes from which a field is hashed by itself

_U64 = np.uint64
_FIRST = _U64(0x9E3779B97F4A7C15)
_SECOND = _U64(0xD6E8FEB86659FD93)
# [n]: the lowest n bytes of a word, the highest n bytes.
_LOW = np.array([(1 << 8 * n) - 1 for n in range(9)], _U64)
_HIGH = np.array([(1 << 64) - (1 << 8 * (8 - n)) for n in range(9)], _U64)
_POWERS = 10.0 ** np.arange(23)
_WHOLE = 10 ** np.arange(20, dtype=_U64)


@dataclass
class Fields:
    """Pieces of `data`, a padded buffer of bytes: piece i is data[start[i]:end[i]]."""

    data: Column
    start: Column
    end: Column

    @classmethod
    def of(cls, texts: Sequence[bytes]) -> Fields:
        """One piece for each text."""
        ends = np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)))
        starts = np.concatenate((ends[:1] * 0, ends[:-1]))
        return cls(padded(b"".join(texts)), starts + BEFORE, ends + BEFORE)

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, rows: slice | Column) -> Fields:
        return Fields(self.data, self.start[rows], self.end[rows])

    def text(self, row: int) -> str:
        return self.data[self.start[row]:self.end[row]].tobytes().decode("utf-8", "surrogateescape")

    def hashes(self) -> Column:
        """64 bits for every piece, equal for equal bytes, the same in every process."""
        length = self.end - self.start
        hashed = length.astype(np.uint64) * _FIRST
        words = self._words()
        most = int(length.max(initial=0))
        for offset in range(0, min(most, LONG), 8):
            rows = np.flatnonzero(length > offset) if offset else slice(None)
            left = np.clip(length[rows] - offset, 0, 8)
            word = words[np.where(left > 0, self.start[rows] + offset, 0)] & _LOW[left]
            word *= _SECOND
            word ^= word >> _U64(32)
            word ^= hashed[rows]
            word *= _FIRST
            word ^= word >> _U64(29)
            hashed[rows] = word
        if most > LONG:
            for row in np.flatnonzero(length > LONG).tolist():
                whole = self.data[self.start[row]:self.end[row]].tobytes()
                hashed[row] = int.from_bytes(hashlib.blake2b(whole, digest_size=8).digest(), "little")
        return mix(hashed)

    def integers(self) -> tuple[Column, Column]:
        """The whole numbers from 0 to 2^64 - 1 that the pieces spell, and which pieces spell none."""
        values, bad = self.digits()
        # Nineteen digits fit; twenty may or may not, and others may be written unusually (+7, spaces).
        for row in np.flatnonzero(bad).tolist():
            try:
                value = int(self.text(row))
            except ValueError:
                continue
            if 0 <= value < 1 << 64:
                values[row], bad[row] = value, False
        return values, bad

    def numbers(self) -> tuple[Column, Column]:
        """The float64 nearest to what each piece spells, and which pieces spell no number."""
        mantissa, bad = self.digits()
        values = mantissa.astype(np.float64)
        odd = np.flatnonzero(bad)
        if len(odd):
            odd = self._points(odd, values, bad)
        for row in odd.tolist():
            try:
                values[row], bad[row] = float(self.text(row)), False
            except ValueError:
                values[row] = 0.0
        # A whole number beyond 2^53 was rounded once, as float() does; the rounding of uint64 is the same.
        return values, bad

    def _points(self, odd: Column, values: Column, bad: Column) -> Column:
        """Works out the pieces that are digits, a point and digits; the rows that are not so or are too long
        for a single rounding are handed back."""
        points = np.append(np.flatnonzero(self.data == ord(".")), len(self.data))
        pieces = self[odd]
        point = points[np.searchsorted(points, pieces.start)]
        has = point < pieces.end
        odd, pieces, point = odd[has], pieces[has], point[has]
        rest = np.flatnonzero(bad)
        whole, no_whole = Fields(self.data, pieces.start, point).digits()
        part, no_part = Fields(self.data, point + 1, pieces.end).digits()
        places = pieces.end - point - 1
        good = ~no_whole & ~no_part & (places <= 15) & (point - pieces.start + places <= 15 + 4)
        scaled = whole * _WHOLE[np.clip(places, 0, 19)] + part
        # Both exact below 2^53 and 10^22: then one division rounds as float() does.
        good &= (scaled < _U64(1 << 53)) & (whole < _U64(1 << 53))
        rows = odd[good]
        values[rows] = scaled[good] / _POWERS[places[good]]
        bad[rows] = False
        return rest[bad[rest]]

    def digits(self) -> tuple[Column, Column]:
        """The numbers of pieces of 1 to 19 decimal digits, and which pieces are not so."""
        length = self.end - self.start
        bad = (length < 1) | (length > 19)
        values = np.zeros(len(self), np.uint64)
        words = self._words()
        most = int(length.max(initial=0))
        scale = 1
        for taken in range(0, min(most, 24), 8):
            rows = np.flatnonzero(length > taken) if taken else slice(None)
            left = np.clip(length[rows] - taken, 0, 8)
            # The padding before the buffer makes room for a word that ends where a short piece ends.
            word = (words[self.end[rows] - taken - 8] ^ _U64(0x3030303030303030)) & _HIGH[left]
            not_digits = ((word | (word + _U64(0x0606060606060606))) & _U64(0xF0F0F0F0F0F0F0F0)) != 0
            bad[rows] |= not_digits
            word = word * _U64(10) + (word >> _U64(8))
            low = (word & _U64(0x000000FF000000FF)) * _U64(0x000F424000000064)
            high = ((word >> _U64(16)) & _U64(0x000000FF000000FF)) * _U64(0x0000271000000001)
            values[rows] += ((low + high) >> _U64(32)) * _U64(scale)
            scale = scale * 10**8 % 2**64
        return values, bad

    def _words(self) -> Column:
        """The eight bytes from each place of the buffer on, as little-endian words, without a copy."""
        return np.ndarray((len(self.data) - 7,), "<u8", self.data, strides=(1,))


def padded(content: bytes) -> Column:
    """The bytes of a buffer with room around them; its first byte is at BEFORE."""
    data = np.zeros(BEFORE + len(content) + AFTER, np.uint8)
    data[BEFORE:BEFORE + len(content)] = np.frombuffer(content, np.uint8)
    return data


def each_different(fields: Fields, meaning: Callable[[str], int]) -> Column:
    """`meaning` of every piece, asked once for equal ones."""
    ids, first = numbered(fields.hashes())
    return np.array([meaning(fields.text(row)) for row in first.tolist()], np.int64)[ids]
