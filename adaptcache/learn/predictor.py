"""The protocol of a predictor that a user hands in, and how its answers become time to live.

A river regressor that can be compiled (learn/compiled.py) is evaluated inside the core; anything else is asked off the hot
path, and until it has answered, its expert holds.

A predictor sees the feature vector of an access as a dict, the application's features under the names that it gave
them, and learns how long the wait for the next
request was. `predict` says how long it expects that wait to be, in seconds. Anything else than a
finite number of zero or more (NaN, infinite, negative, an exception) means "hold".
"""
from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

_log = logging.getLogger("adaptcache")

NAMES = (
    "app0", "app1", "app2", "app3", "app4", "app5", "app6", "app7", "namespace", "gap1", "gap2", "seen_before",
    "log_count", "log_size", "log_cost", "log_age", "log_breakeven", "day_sin", "day_cos", "missed",
)
APP = 8     # the first of them are the application's


def named(x: Sequence[float], app: Sequence[str]) -> dict[str, float]:
    """A feature vector by name; `app` are the application's names, in the order of their places.

    A name of ours that the application uses too gets an underscore: "namespace_".
    """
    out = dict(zip(app, x, strict=False))
    for name, value in zip(NAMES[APP:], x[APP:], strict=True):
        while name in out:
            name += "_"
        out[name] = value
    return out


@runtime_checkable
class Predictor(Protocol):
    """What a user's model has to offer."""

    def learn(self, x: dict[str, float], y: float) -> Any:
        """The wait after an access with features `x` lasted `y` seconds, or at least that long."""

    def predict(self, x: dict[str, float]) -> float:
        """Seconds until the next request."""


class Guest:
    """A user's model behind the protocol: river's estimators too, and never a raise."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.name = type(model).__name__
        self.failures = 0
        self.inline = False     # a compiled rule answers for the model; else it is asked
        self.fresh = 0          # labels since the rule was made
        self.ripe = 0           # and how many are worth a new one
        self._learn = model.learn if callable(getattr(model, "learn", None)) else model.learn_one
        self._predict = model.predict if callable(getattr(model, "predict", None)) else model.predict_one

    def learn(self, x: dict[str, float], y: float) -> None:
        self.fresh += 1
        try:
            self._learn(x, y)
        except Exception:
            self._failed("learn")

    def seconds(self, x: dict[str, float]) -> float:
        """What the model predicts; NaN when it has nothing usable to say, which means hold."""
        try:
            seconds = float(self._predict(x))
        except Exception:
            self._failed("predict")
            return math.nan
        return seconds if math.isfinite(seconds) and seconds >= 0 else math.nan

    def _failed(self, verb: str) -> None:
        # Once in full, then counted: a broken model is asked very often.
        self.failures += 1
        if self.failures == 1:
            _log.exception("predictor %s raised in %s; its experts hold from now on whenever it does", self.name, verb)
