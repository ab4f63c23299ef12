"""Under which rules a fleet learns, as workers agree on it, and as a learner without a ledger reads it."""
from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from adaptcache.errors import StateError
from adaptcache.expiry import PREDICTORS, Learned
from adaptcache.ledger import Ledger

SALTED = b"adaptcache fleet"    # a key whose number stands for the salt, and does not tell it


@dataclass(frozen=True)
class Configuration:
    """What of `Learned` a model depends on. `models`: names of the user's predictors, which do not travel."""

    price: float | None
    window: float | None
    miss_cost: float
    predictors: tuple[str, ...]
    models: tuple[str, ...]
    salt: int
    max_keys: int
    even: float     # a key's break-even time over its own expiry; 0: it follows from cost, size and price

    @classmethod
    def of(cls, ledger: Ledger) -> Configuration:
        spec = ledger.expiry
        return cls(None if spec.memory_price is None else float(spec.memory_price), spec.window, float(spec.miss_cost),
                   tuple(name for name in spec.predictors if isinstance(name, str)), tuple(ledger.cache._configuration()["models"]),
                   ledger.number(SALTED) & 0xFFFFFFFF, spec.max_keys, ledger.break_even_ttl)

    @property
    def rules(self) -> str:
        """Stands for what a model's numbers, and its keys, depend on."""
        said = {name: value for name, value in asdict(self).items() if name != "max_keys"}
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]

    def dumps(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def loads(cls, data: bytes) -> Configuration | None:
        """None where it is none of this version."""
        try:
            said = json.loads(data)
            made = cls(**{**said, "predictors": tuple(said["predictors"]), "models": tuple(said["models"])})
            made.spec()
        except (ValueError, TypeError, KeyError, RecursionError, StateError):
            return None
        return made

    def spec(self) -> Learned:
        """For a learner of its own; ValueError and TypeError when the numbers are no good."""
        if not isinstance(self.salt, int) or not (isinstance(self.even, (int, float)) and 0 <= self.even <= 1e6) or not all(name in PREDICTORS for name in self.predictors):
            raise ValueError("configuration: not what this version writes")
        return Learned(memory_price=self.price, window=self.window, miss_cost=self.miss_cost, predictors=self.predictors, max_keys=self.max_keys)
