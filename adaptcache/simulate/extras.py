"""Optional dependencies: what to say when one is not installed."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class MissingExtra(ModuleNotFoundError):
    """An optional package is not installed; the message says how to get it."""


@contextmanager
def needs(purpose: str, extra: str = "simulate") -> Iterator[None]:
    """Import optional packages inside this; a missing one names the extra that brings it."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtra(
            f"{purpose} needs the package {error.name}; pip install '.[{extra}]' in adaptcache's source folder brings it",
            name=error.name,
        ) from error
