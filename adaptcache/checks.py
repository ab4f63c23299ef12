"""Checks of arguments. Every error names the argument, the value and the accepted range."""
from __future__ import annotations

import math
from typing import Any


def seconds(name: str, value: Any, *, zero: bool = True, none: bool = False) -> float | None:
    """A duration: finite or infinite, never NaN or negative."""
    if value is None and none:
        return None
    accepted = f"seconds, {'zero or more' if zero else 'above zero'}, math.inf{' or None' if none else ''}"
    return number(name, value, accepted, 0.0, math.inf, open_low=not zero)


def number(name: str, value: Any, accepted: str, low: float, high: float, *, open_low: bool = False) -> float:
    """A float within [low, high]; `accepted` says the range in words."""
    if isinstance(value, (str, bytes, bytearray)):
        raise TypeError(f"{name}: expected {accepted}, got {type(value).__name__}")
    try:
        x = float(value)
    except TypeError:
        raise TypeError(f"{name}: expected {accepted}, got {type(value).__name__}") from None
    except OverflowError:
        raise ValueError(f"{name}: too large; the accepted range is {accepted}") from None
    if not low <= x <= high or (open_low and x == low):
        raise ValueError(f"{name}: {value!r} is not accepted; the accepted range is {accepted}")
    return x
