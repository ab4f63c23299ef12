"""The exceptions that are ours alone: each says which key or file, in what state, and the cure.

Where Python or cachetools has a convention (KeyError, ValueError "value too large", TypeError for
misuse) that is raised instead, so this tree stays small.
"""
from __future__ import annotations

import reprlib

__all__ = ("AdaptcacheError", "LogError", "RecursiveLoadError", "ResultsError", "StateError", "TraceError")


class AdaptcacheError(Exception):
    """Everything in this file."""


class RecursiveLoadError(AdaptcacheError, RuntimeError):
    """A load would wait for itself: directly, through other loads, or through another thread."""

    def __init__(self, key: object) -> None:
        super().__init__(key)
        self.key = key

    def __str__(self) -> str:
        # reprlib: a key's own repr may raise or run to megabytes.
        return (
            f"the load of key {reprlib.repr(self.key)} is under way and would wait for itself; "
            "let its loader compute that value without the cache or ask for another key, "
            "and await it where its own event loop would be blocked"
        )


class TraceError(AdaptcacheError, ValueError):
    """A trace that cannot be read or replayed: the file, the line or row and the column are named."""


class StateError(AdaptcacheError, ValueError):
    """A saved state that is damaged, foreign, or of another configuration. Nothing was changed."""


class LogError(AdaptcacheError, ValueError):
    """A log of decisions that is damaged or foreign: the file and the line are named."""


class ResultsError(AdaptcacheError, ValueError):
    """A file of an experiment's results that is damaged, foreign or in use: the file and the line are named."""
