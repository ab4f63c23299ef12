"""A trace: what a cache was asked, request by request, as columns of equal length.

This file knows neither formats nor policies; it holds the columns and says what each one means.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Column = NDArray[Any]


@dataclass(frozen=True)
class Trace:
    """One workload. A column that is None was not recorded."""

    name: str
    key: Column  # uint32, dense, numbered by first appearance
    n_keys: int
    time: Column  # float64 seconds, never falling, from 0
    size: Column  # float64 bytes
    op: Column | None = None  # uint8: 0 get, 1 set, 2 delete
    ttl: Column | None = None  # float64 seconds
    version: Column | None = None  # uint32, of the value at its source at that moment
    namespace: Column | None = None  # uint32, dense
    features: Mapping[str, Column] = field(default_factory=dict)  # integers: category; float32: number
    cost: Column | None = None  # float64 seconds that a miss of this request takes

    def __len__(self) -> int:
        return int(np.size(self.key))
