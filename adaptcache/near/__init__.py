"""An in-process tier in front of Redis or Valkey, kept coherent by the server (docs/near.md).

`options` says what a user may choose; `tier` what may be stored and served; `resp` reads the protocol; `watch` is what is said on a
connection; `source` makes connections as redis-py's clients do; `threads` and `tasks` drive it. Importing this imports
redis; `import adaptcache` does not import this.
"""
from adaptcache.near.options import NearCache
from adaptcache.near.tasks import AsyncNear
from adaptcache.near.threads import Near
from adaptcache.near.tier import NearStats, Ticket

__all__ = ("AsyncNear", "Near", "NearCache", "NearStats", "Ticket")
