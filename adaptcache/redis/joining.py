"""A watcher's part in a fleet: what its ledger, its sample of keys and its `Fleet` must have in common with those of other processes.

A fleet learns a key's history from what all workers tell of it, so all must leave out the same keys when there are too many. The sample is taken
beside each command of the application, where a ledger's salted hash would cost too much; so the ledger's numbers begin with the bits that
the sample goes by, and halving the one is halving the other.

This file does not know what a command is, nor what a fleet does with what it is told.
"""
from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import TYPE_CHECKING, Any
from zlib import crc32

from adaptcache.ledger import Ledger, Release
from adaptcache.redis.address import Address

if TYPE_CHECKING:
    from adaptcache.fleet import Fleet

OPTIONS: dict[str, Any] = {}        # of every Fleet that a watcher joins; for tests
_BITS = 32                          # of the number that a sample goes by
_REST = 29                          # and of a ledger's own, after these


class Told(Ledger):
    """A ledger that remembers what the server did not let go of."""

    stayed: deque[bytes]

    def kept(self, release: Release) -> None:
        super().kept(release)
        self.stayed.append(release.key)


class Sample:
    """Which keys stand for all: those whose number has none of the mask's bits."""

    def __init__(self) -> None:
        # Of a key as bytes, or as a str of ASCII; the same for both. The interpreter's own hash costs least.
        self.number: Callable[[Any], int] = hash

    def mask(self, shift: int) -> int:
        return (1 << shift) - 1


class Shared(Sample):
    """A sample that is the same in every process of a fleet."""

    def __init__(self, name: str) -> None:
        self.salt = blake2b(name.encode(), digest_size=32).digest()
        start = crc32(self.salt)
        # The remainder of a CRC alone would take some kinds of names more often than others (Knuth's multiplicative hashing).
        self.number = lambda key: crc32(key if type(key) is bytes else key.encode(), start) * 0x9E3779B1 & 0xFFFFFFFF

    def mask(self, shift: int) -> int:
        return ((1 << shift) - 1) << max(0, _BITS - shift)


class Joined(Told):
    """A ledger whose numbers begin with those that the sample goes by."""

    sample: Shared

    def number(self, key: bytes) -> int:
        return (self.sample.number(key) << _REST | super().number(key) & ((1 << _REST) - 1)) % ((1 << _BITS + _REST) - 1)


def join(address: Address, name: str, ledger: Ledger, *, near: Callable[[], Mapping[str, Any] | None], asked: Callable[[], tuple[int, int]]) -> Fleet:
    """A part of the fleet, begun. Raises what redis-py raises where a cluster does not answer."""
    from adaptcache.fleet import Fleet

    return Fleet(address.connect, name, ledger, near=near, asked=asked, **OPTIONS).start()
