"""What columns are called in files. Readers share this."""
from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from adaptcache.errors import TraceError

ALIASES: Final = {"time_s": "time", "timestamp": "time", "ttl_s": "ttl", "cost_s": "cost"}
# Other people's names, which count where nothing has the name of ours: libCacheSim's csv files and the like.
FOREIGN: Final = {
    **dict.fromkeys(("obj_id", "obj-id", "objid", "object_id", "lbn", "id"), "key"),
    **dict.fromkeys(("obj_size", "obj-size", "objsize", "object_size"), "size"),
    **dict.fromkeys(("clock_time", "real_time"), "time"),
}
KNOWN: Final = frozenset({"key", "time", "size", "op", "ttl", "version", "namespace", "cost"})


def column_names(file: str, found: Iterable[str]) -> dict[str, str]:
    """Our name of each column that we know -> its name in the file. What we do not know is left out."""
    names: dict[str, str] = {}
    found = list(found)
    ours = {ALIASES.get(origin, origin) for origin in found}
    for origin in found:
        name = ALIASES.get(origin, origin)
        if FOREIGN.get(origin, name) not in ours:
            name = FOREIGN[origin]
        if name not in KNOWN and not (name.startswith("feat_") and name != "feat_"):
            continue
        if name in names:
            raise TraceError(f"{file}: the columns {names[name]} and {origin} both name the {name}; keep one")
        names[name] = origin
    return names
