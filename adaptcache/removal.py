"""Why an entry left."""
from __future__ import annotations

from enum import Enum


class Cause(Enum):
    """What `on_removal` is told."""

    EXPIRED = "expired"    # its time was over, or nobody was expected to ask for it
    EVICTED = "evicted"    # capacity pushed it out
    REPLACED = "replaced"  # a new value took its place
    DELETED = "deleted"    # the user removed it
    CLEARED = "cleared"    # the whole cache was emptied


# In the core's order.
CAUSES = (Cause.EXPIRED, Cause.EVICTED, Cause.REPLACED, Cause.DELETED, Cause.CLEARED)
