"""What was seen and what it would have saved, counted by namespace, and the report that people read.

The unit of memory is bytes of values as written or read (1 for a key whose value was never seen), times seconds. This file
does not know where the figures come from.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

NAMESPACES = 64         # counted apart, at most; the rest is "(others)"
OTHERS = "(others)"
_GOLDEN = 0x9E3779B9    # of 32 bits the golden section: Weyl's sequence


class Tally:
    """The counters of one namespace."""

    __slots__ = ("cost", "extra", "held", "hits", "longest", "misses", "released", "saved")

    def __init__(self) -> None:
        self.hits = 0           # reads that found their key, and were noted
        self.misses = 0
        self.released = 0.0     # keys let go early, or that would have been
        self.extra = 0.0        # misses with letting go, less those without
        self.held = 0.0         # byte-seconds that keys in scope took, or would have without us
        self.saved = 0.0        # byte-seconds without letting go, less those with
        self.cost: float | None = None      # seconds that a load takes, lately; None: none was seen
        self.longest = 0.0      # seconds: the longest expiry that a key was given


class Outside:
    """Reads of keys that are not followed, counted beside the application's command: how many there were, and of some of them the namespace.

    These are drawn by their number among the reads, so that no key that is asked for all the time counts for more than it is; each stands
    for as many as were not drawn.
    """

    __slots__ = ("drawn", "hits", "misses", "turn")

    def __init__(self) -> None:
        self.hits = 0
        self.misses = 0
        self.turn = 0           # that of the latest draw, in 32 bits
        self.drawn: dict[str, list[int]] = {}       # namespace -> misses, hits

    def draw(self, among: int) -> int:
        """The number of one among so many; evenly over time, whatever the rhythm in which keys are asked for."""
        self.turn = (self.turn + _GOLDEN) & 0xFFFFFFFF
        return self.turn * among >> 32

    def note(self, namespace: str, hit: bool, weight: int) -> None:
        counts = self.drawn.get(namespace)
        if counts is None:
            counts = self.drawn.setdefault(namespace if len(self.drawn) < NAMESPACES else OTHERS, [0, 0])
        counts[hit] += weight

    def shares(self) -> dict[str, tuple[float, float]]:
        """Hits and misses by namespace."""
        drawn = list(self.drawn.items())
        misses, hits = (max(1, sum(counts[which] for _, counts in drawn)) for which in (False, True))
        return {name: (self.hits * counts[True] / hits, self.misses * counts[False] / misses) for name, counts in drawn}


class Books:
    """Tallies by namespace, no more than NAMESPACES of them."""

    def __init__(self) -> None:
        self._of: dict[str, Tally] = {}
        self.outside = Outside()

    def of(self, namespace: str) -> Tally:
        tally = self._of.get(namespace)
        if tally is None:
            if len(self._of) >= NAMESPACES:
                namespace = OTHERS
            tally = self._of.setdefault(namespace, Tally())
        return tally

    def asked(self) -> tuple[int, int]:
        """Hits and misses of all namespaces."""
        every = list(self._of.values())
        return self.outside.hits + sum(one.hits for one in every), self.outside.misses + sum(one.misses for one in every)

    def lines(self) -> dict[str, Namespace]:
        shares = self.outside.shares()
        for name in shares:
            self.of(name)
        lines = {}
        for name, one in list(self._of.items()):
            hits, misses = shares.get(name, (0.0, 0.0))
            lines[name] = Namespace(one.hits + round(hits), one.misses + round(misses), round(one.released), round(one.extra), one.held, one.saved)
        return lines


@dataclass(frozen=True)
class Namespace:
    """One namespace of a report; what its fields mean is said at `Report`."""

    hits: int
    misses: int
    released: int
    extra_misses: int
    held: float
    saved: float

    @property
    def saved_share(self) -> float:
        return self.saved / self.held if self.held else 0.0


@dataclass(frozen=True)
class Report:
    """What one client saw, and what letting go earlier saved, or would have.

    mode, server        what the client does now, and where
    seconds             since watching began
    commands            of the application; `dropped` of them were not looked at for want of time
    keys                in scope now
    sampled             one key in so many is followed; all figures of memory and of what letting go costs are estimates for all keys then
    hits, misses        reads that found their key and that did not, counted one by one; by namespace an estimate where keys are sampled
    held                byte-seconds that keys in scope take when nothing lets go of them before their own expiry, overwriting or deletion
    released            keys let go early ("release"), or that would have been ("observe")
    saved               byte-seconds of `held`, less those with letting go
    extra_misses        misses with letting go, less those without: a key that was let go and is asked for again is loaded again, and has a
                        new expiry then, which may save a miss later
    unlinked            keys that were in fact unlinked on the server: 0 in "observe"
    protected, premature, premature_budget, in_flight     the promise's books (docs/promise.md)
    namespaces          the same by the pattern that names a key, or by what is before its first colon
    trouble             what keeps the client from watching or releasing, or ""
    """

    mode: str
    server: str
    seconds: float
    commands: int
    dropped: int
    keys: int
    sampled: int
    hits: int
    misses: int
    held: float
    released: int
    saved: float
    extra_misses: int
    unlinked: int
    protected: int
    premature: int
    premature_budget: float
    in_flight: int
    namespaces: Mapping[str, Namespace] = field(default_factory=dict)
    trouble: str = ""

    @property
    def saved_share(self) -> float:
        """saved / held, or 0 while nothing was held."""
        return self.saved / self.held if self.held else 0.0

    @property
    def extra_share(self) -> float:
        """Extra misses per miss that there was anyway, or 0."""
        before = self.misses - (self.extra_misses if self.unlinked else 0)
        return self.extra_misses / before if before > 0 else 0.0

    def __str__(self) -> str:
        verb = "saved" if self.mode == "release" else "would have saved"
        lines = [
            f"{self.server}, {self.mode}: {self.commands:,} commands in {self.seconds:,.0f} s, {self.hits:,} hits and {self.misses:,} misses; "
            f"{self.keys:,} keys in scope" + (f" (one in {self.sampled:,} followed)" if self.sampled > 1 else ""),
            f"letting go earlier {verb} {100 * self.saved_share:.1f} % of the memory that they take "
            f"({self.saved:,.0f} of {self.held:,.0f} byte-seconds) at {self.extra_misses:+,} misses ({100 * self.extra_share:+.1f} %)",
            f"the promise: {self.premature:,} of {self.protected:,} requests within their window were lost, {self.in_flight:,} more may be; "
            f"at most {self.premature_budget:,.1f} in all",
        ]
        for name, one in sorted(self.namespaces.items(), key=lambda item: -item[1].held)[:10]:
            lines.append(f"  {name}: {one.hits:,} hits, {one.misses:,} misses, {100 * one.saved_share:.1f} % of {one.held:,.0f} byte-seconds "
                         f"at {one.extra_misses:+,} misses")
        if self.dropped:
            lines.append(f"{self.dropped:,} commands came too fast to be looked at: these figures are too low")
        if self.trouble:
            lines.append(f"trouble: {self.trouble}")
        return "\n".join(lines)
