"""Where a fleet's things lie on the server, and which fleets can read one another. Knows no client.

All keys of a fleet carry its name in braces, so that a cluster keeps them on one node and scripts may touch several.
What depends on the format of learned state (the lock, the model, the configuration) carries the format's mark besides:
workers of two versions share the stream and elect a learner each.
"""
from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field

from adaptcache import state
from adaptcache.learn.packing import LAYOUT

NUMBERS = (1 << 61) - 1         # a ledger's numbers of keys are below this, so that each is its own hash


def mark() -> str:
    """Names the format of learned state: equal where one can read what the other wrote."""
    said = state.MAGIC + json.dumps(LAYOUT, sort_keys=True).encode()
    return hashlib.sha256(said).hexdigest()[:8]


def check_name(argument: str, name: object) -> None:
    """TypeError or ValueError unless a fleet may be called so."""
    if not isinstance(name, str):
        raise TypeError(f"{argument}: expected a str, got {type(name).__name__}")
    if not re.fullmatch(r"[\w.:-]{1,100}", name):
        raise ValueError(f"{argument}: {name!r:.120} is not accepted; the accepted range is 1 to 100 letters, digits, '_', '.', ':' or '-'")


@dataclass(frozen=True)
class Names:
    """The keys of one fleet."""

    name: str
    mark: str = field(default_factory=mark)

    def __post_init__(self) -> None:
        check_name("name", self.name)

    def _key(self, *parts: str) -> str:
        return ":".join((f"adaptcache:fleet:{{{self.name}}}", *parts))

    @property
    def stream(self) -> str:
        return self._key("events")

    @property
    def workers(self) -> str:
        """A sorted set: who has given a sign of life, and when."""
        return self._key("workers")

    def worker(self, who: str) -> str:
        return self._key("worker", who)

    @property
    def level(self) -> str:
        """How often the sample of keys is to be halved."""
        return self._key("level")

    @property
    def lock(self) -> str:
        return self._key(self.mark, "lock")

    @property
    def fence(self) -> str:
        return self._key(self.mark, "fence")

    @property
    def model(self) -> str:
        return self._key(self.mark, "model")

    @property
    def configuration(self) -> str:
        return self._key(self.mark, "configuration")
