"""What a cache costs: seconds of queries plus rent of memory, on one scale; and what it could have cost.

Rent is size x seconds held x price. It is read off the values themselves, which remember since
when they are held, so it needs no help from the cache beyond being told of removals. This file
knows neither caches nor databases.
"""
from __future__ import annotations

from dataclasses import dataclass, field

OVERHEAD = 100  # bytes an entry takes beside its value


@dataclass(eq=False)
class Held:
    """A value in a cache."""

    body: bytes
    version: int  # of the source when it was loaded
    since: float
    left: bool = False

    @property
    def size(self) -> int:
        """Bytes held."""
        return len(self.body) + OVERHEAD


@dataclass
class Ledger:
    """The account of one cache."""

    price: float  # seconds of query time per byte and second
    hits: int = 0
    misses: int = 0
    stale: int = 0  # hits on a value whose source had changed since
    oldest: float = 0.0  # greatest age of a value that was served
    query_seconds: float = 0.0
    _paid: float = 0.0  # rent of what has left
    held: int = 0  # bytes now
    _byte_starts: float = 0.0  # sum of size x since over what is held now

    def hit(self, value: Held, version: int, now: float) -> None:
        """An answer came out of the cache while the source was at `version`."""
        self.hits += 1
        self.oldest = max(self.oldest, now - value.since)
        self.stale += value.version != version

    def loaded(self, value: Held, seconds: float) -> None:
        """An answer was computed and is held from now on."""
        self.misses += 1
        self.query_seconds += seconds
        self.held += value.size
        self._byte_starts += value.size * value.since

    def removed(self, value: Held, at: float) -> None:
        """A value left; it was held until `at`. Said twice, the first counts."""
        if value.left:
            return
        value.left = True
        self._paid += value.size * (at - value.since) * self.price
        self.held -= value.size
        self._byte_starts -= value.size * value.since

    def rent(self, now: float) -> float:
        """Rent so far, of what has left and of what is still held."""
        return self._paid + (self.held * now - self._byte_starts) * self.price

    def cost(self, now: float) -> float:
        """Queries and rent so far."""
        return self.query_seconds + self.rent(now)


@dataclass
class Foresight:
    """What a cache that knew the future would pay: per gap between two requests of a key, rent or query.

    The cheaper of the two is exact, since without a limit on memory entries do not compete. A query's
    seconds are taken to be those last measured for the key.
    """

    price: float
    cost: float = 0.0
    _last: dict[int, tuple[float, float, int]] = field(default_factory=dict)

    def asked(self, key: int, now: float, measured: tuple[float, int] | None) -> None:
        """A request; `measured` is (seconds, size) where some cache had to run the query."""
        before = self._last.get(key)
        if before is None:
            if measured is None:
                raise ValueError("the first request of a key misses in every cache and so is measured")
            self.cost += measured[0]
            self._last[key] = (now, *measured)
            return
        last, seconds, size = before
        self.cost += min(seconds, size * (now - last) * self.price)
        self._last[key] = (now, *(measured or (seconds, size)))
