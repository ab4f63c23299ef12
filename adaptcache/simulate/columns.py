"""What columns are called in files, and ids for what they hold. Readers share this."""
from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from adaptcache.errors import TraceError

ALIASES: Final = {"time_s": "time", "timestamp": "time", "ttl_s": "ttl", "cost_s": "cost"}
KNOWN: Final = frozenset({"key", "time", "size", "op", "ttl", "version", "namespace", "cost"})


class Ids(dict[str, int]):
    """Numbers by first appearance: the first new name is 0, the next 1."""

    def __missing__(self, name: str) -> int:
        self[name] = number = len(self)
        return number


def column_names(file: str, found: Iterable[str]) -> dict[str, str]:
    """Our name of each column that we know -> its name in the file. What we do not know is left out."""
    names: dict[str, str] = {}
    for origin in found:
        name = ALIASES.get(origin, origin)
        if name not in KNOWN and not (name.startswith("feat_") and name != "feat_"):
            continue
        if name in names:
            raise TraceError(f"{file}: the columns {names[name]} and {origin} both name the {name}; keep one")
        names[name] = origin
    return names
