"""How long it will still take, from what has been done so far."""
from __future__ import annotations

import time
from collections.abc import Callable


class TimeLeft:
    """Work is counted in whatever unit; what was found finished at the start is none of it."""

    def __init__(self, total: float, timer: Callable[[], float] = time.monotonic) -> None:
        self.total, self.done = total, 0.0
        self._timer = timer
        self._begun = timer()

    def seconds(self) -> float | None:
        """None while nothing is done yet."""
        if self.done <= 0:
            return None
        return (self._timer() - self._begun) / self.done * max(0.0, self.total - self.done)

    def __str__(self) -> str:
        seconds = self.seconds()
        if seconds is None:
            return "time left unknown"
        if seconds < 60:
            return f"{seconds:.0f} s left"
        minutes = round(seconds / 60)
        return f"{minutes} min left" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min left"
