"""Not a test: a script that runs an experiment of many cells, to be interrupted.

    python tests/experiment.py RESULTS CELLS
"""
from __future__ import annotations

import signal
import sys

from adaptcache.simulate.experiments import Grid, run

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)     # a shell starts what is in the background without one
    file, cells = sys.argv[1], int(sys.argv[2])
    grid = Grid(["synthetic:pipeline?requests=5000"], policies=["cachetools:lfu"], sizes=list(range(10, 10 + cells)))
    run(grid, jobs=2, resume=file, progress=lambda task, done, total: print(task, flush=True))
