"""How much of a test's work is done: all of it, unless ADAPTCACHE_EXAMPLES names a share (a build with sanitizers is slow)."""
from __future__ import annotations

import os

SHARE = float(os.environ.get("ADAPTCACHE_EXAMPLES") or 1)


def share_of(examples: int) -> int:
    """That share of so many examples, one at least."""
    return max(1, round(examples * SHARE))
