"""A fleet: workers whose ledgers learn together, over a stream on the server that they share (docs/fleet.md).

Nothing here is loaded by `import adaptcache`; it needs the extra `adaptcache[redis]`.
"""
from adaptcache.fleet.worker import EVENTS, Fleet, FleetStats

__all__ = ["EVENTS", "Fleet", "FleetStats"]
