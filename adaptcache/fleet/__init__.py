"""A fleet: workers whose ledgers learn together, over a stream on the server that they share (docs/fleet.md).

Nothing here is loaded by `import adaptcache`; it needs the package redis.
"""
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adaptcache.fleet.worker import EVENTS, Fleet, FleetStats

__all__ = ["EVENTS", "Fleet", "FleetStats"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from adaptcache.fleet import worker

        return getattr(worker, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
