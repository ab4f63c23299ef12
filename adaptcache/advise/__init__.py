"""What a workload deserves: which size, which policy, which expiry, each with the numbers that say so.

`study` measures (with the simulator's own curves and replays) and decides; `words` says it. Neither knows a terminal.
"""
from adaptcache.advise.advice import Advice, Expiry, Point, Policy, Size
from adaptcache.advise.study import advise
from adaptcache.advise.words import sentences, to_json

__all__ = ["Advice", "Expiry", "Point", "Policy", "Size", "advise", "sentences", "to_json"]
