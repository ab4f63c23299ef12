"""A sample of the keys of a trace of any length, in bounded memory: whole histories of some keys, drawn by hash.

SHARDS with a fixed size (Waldspurger, Park, Garthwaite and Ahmad, FAST'15): every key has a place from 0 to 1, by its
hash, and the keys below a threshold are kept. When more requests are kept than there is room for, the threshold is
lowered, and those above it are let go with all that was kept of them. So at the end of the trace the sample is what it
would be, had the last threshold stood from the start.

Two things that a threshold cannot do well:

- A key that has many of the requests would take the room of all others, or push the threshold below itself. It is left
  out, and counted: a cache of any size that is worth a thought holds it, so its requests are hits nearly all
  (`curves` divides by the requests of all keys, and not of those drawn).
- Where there are few keys, a share of them says little. Then the first requests are kept, and no more is looked at.

This file knows neither files nor policies.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from adaptcache.simulate.trace import DTYPES, Column, Trace, mix, of_columns

FEW_KEYS: Final = 1_000  # of which no share is drawn any more
HOT: Final = 20  # a key with more than a HOTth of the room is left out
PIECE: Final = 1 << 18  # rows of a trace in memory that are looked at together


@dataclass(frozen=True, eq=False)
class Sample:
    """What was kept of a trace.

    trace      the requests of the keys that were drawn, or all
    place      of each key of `trace`: from 0 to `rate`, evenly
    rate       share of the keys; 1: all
    requests   of the whole trace
    looked_at  of the first so many the sample was drawn; all, unless the keys are too few for a sample
    hot        keys that were left out for having too many requests
    """

    trace: Trace
    place: Column
    rate: float
    requests: int
    looked_at: int
    hot: int

    @property
    def keys(self) -> int:
        """How many keys the requests that were looked at are for: exactly where all were kept, else by the share that was drawn."""
        return round(self.trace.n_keys / self.rate) + self.hot


def places(hashes: Column, seed: int) -> Column:
    """For every key a number from 0 to 1, by its id or hash and the seed (splitmix64)."""
    with np.errstate(over="ignore"):
        x = (hashes.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        x += np.uint64(seed % 2**64) * np.uint64(0xD1B54A32D192ED03)
    return np.asarray((mix(x) >> np.uint64(11)) * 2.0**-53)


class Sampler:
    """Takes the blocks of a trace, one by one, and keeps at most `most` requests, and those of the last block."""

    def __init__(self, most: int, seed: int = 0) -> None:
        self.most = most
        self.seed = seed
        self.rate = 1.0
        self.requests = self.looked_at = 0
        self.hot: Column = np.zeros(0, np.uint64)
        self._closed = False
        self._kept: list[dict[str, Column]] = []  # with keys as hashes

    def add(self, columns: Mapping[str, Column]) -> None:
        """The next rows. Columns as those of a block: features as `feat_NAME`, keys as any integers."""
        rows = len(columns["key"])
        self.requests += rows
        if self._closed:
            return
        self.looked_at += rows
        self._kept.append(self._drawn({**columns, "key": mix(columns["key"])}))
        if self._rows() > self.most:
            self._thin()

    def done(self, name: str, left_out: Mapping[str, int], sort: bool = False) -> Sample:
        """The sample; of a trace that did not fit, half of what there is room for, so that there is time to look at it twice.

        sort: the rows may be out of order of time.
        """
        if self.rate < 1 or len(self.hot):
            self._thin()
        columns = self._joined()
        if sort:
            order = np.argsort(columns["time"], kind="stable")
            columns = {name: values[order] for name, values in columns.items()}
        place = places(columns["key"], self.seed)
        trace = of_columns(name, columns, left_out)
        of_key = np.empty(trace.n_keys)
        of_key[trace.key] = place
        return Sample(trace, of_key, self.rate, self.requests, self.looked_at, len(self.hot))

    def _rows(self) -> int:
        return sum(len(columns["key"]) for columns in self._kept)

    def _joined(self) -> dict[str, Column]:
        columns = {name: np.concatenate([piece[name] for piece in self._kept]) for name in self._kept[0]}
        self._kept = [columns]
        return dict(columns)

    def _drawn(self, columns: dict[str, Column]) -> dict[str, Column]:
        """Those of the rows whose keys are in the sample."""
        if self.rate == 1 and not len(self.hot):
            return columns
        chosen = (places(columns["key"], self.seed) < self.rate) & ~np.isin(columns["key"], self.hot)
        return {name: values[chosen] for name, values in columns.items()}

    def _thin(self) -> None:
        """Fewer keys, until what is kept takes half of the room; or nothing more is looked at."""
        keys, counts = np.unique(np.concatenate([columns["key"] for columns in self._kept]), return_counts=True)
        if len(keys) <= FEW_KEYS:
            self._closed = True
            return
        hot = counts > self.most / HOT
        self.hot = np.concatenate([self.hot, keys[hot]])
        place = places(keys[~hot], self.seed)
        order = np.argsort(place)
        below = np.cumsum(counts[~hot][order])  # requests of the keys up to each place
        fit = max(int(np.searchsorted(below, self.most // 2, "right")), FEW_KEYS)
        if fit < len(order):
            self.rate = float(place[order[fit]])
        self._kept = [self._drawn(columns) for columns in self._kept]
        self._closed = self._rows() > 0.75 * self.most


def whole(trace: Trace) -> Sample:
    """All of a trace."""
    return Sample(trace, np.zeros(trace.n_keys), 1.0, len(trace), len(trace), 0)


def of(trace: Trace, most: int, seed: int = 0) -> Sample:
    """Of a trace in memory: all of it up to `most` requests, else a sample."""
    if len(trace) <= most:
        return whole(trace)
    sampler = Sampler(most, seed)
    columns = {name: getattr(trace, name) for name in DTYPES if getattr(trace, name) is not None}
    columns |= {f"feat_{name}": values for name, values in trace.features.items()}
    for start in range(0, len(trace), PIECE):
        sampler.add({name: values[start:start + PIECE] for name, values in columns.items()})
    return sampler.done(trace.name, trace.left_out)
