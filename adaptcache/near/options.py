"""`NearCache`: what a user says about an in-process tier in front of a server. A value, and the checks of its fields.

Nothing here opens a connection or holds an entry.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any

from adaptcache import checks
from adaptcache.mapping import policies

LEAST_HEARTBEAT = 0.01
LONGEST_WINDOW = 3600.0


@dataclass(frozen=True)
class NearCache:
    """Options of an in-process tier.

    maxsize     what it holds at most: entries, or what `getsizeof` returns summed up; None or math.inf: unbounded; 0: nothing
    getsizeof   size of a value, or of key and value for a weigher whose `with_key` is True (`adaptcache.sizeof`)
    policy      of eviction, one of `adaptcache.policies()`
    heartbeat   seconds between two questions to the server, at least 0.01
    window      seconds: no value is served that a write acknowledged longer ago than this has replaced. More than two
                heartbeats, at most an hour
    """

    maxsize: float | None
    _: KW_ONLY
    getsizeof: Callable[..., float] | None = None
    policy: str = "adaptive"
    heartbeat: float = 0.5
    window: float = 2.0

    def __post_init__(self) -> None:
        if self.maxsize is not None:
            checks.number("maxsize", self.maxsize, "zero or more, math.inf or None", 0.0, math.inf)
        if self.getsizeof is not None and not callable(self.getsizeof):
            raise TypeError(f"getsizeof: expected a callable or None, got {type(self.getsizeof).__name__}")
        if self.policy not in policies():
            raise ValueError(f"policy: {self.policy!r} is not known; there are {', '.join(policies())}")
        beat = checks.number("heartbeat", self.heartbeat, f"seconds from {LEAST_HEARTBEAT} to half of the window", LEAST_HEARTBEAT,
                             LONGEST_WINDOW)
        window = checks.number("window", self.window, f"seconds, more than two heartbeats and at most {LONGEST_WINDOW:g}", 0.0,
                               LONGEST_WINDOW)
        if not window > 2 * beat:
            raise ValueError(f"window: {window!r} is not accepted with a heartbeat of {beat!r}; it must be more than two heartbeats, "
                             "so that one answer may be lost or late")

    def weigh(self, key: Any, value: Any) -> float | None:
        """The size of an entry, or None where every entry counts as 1."""
        if self.getsizeof is None:
            return None
        return self.getsizeof(key, value) if getattr(self.getsizeof, "with_key", False) is True else self.getsizeof(value)
