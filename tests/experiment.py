"""Not a test: a script that runs an experiment of many cells, each as long as it is told, to be interrupted.

    python tests/experiment.py RESULTS CELLS REQUESTS
"""
from __future__ import annotations

import sys

from adaptcache.simulate.experiments import Grid, run

if __name__ == "__main__":
    file, cells, requests = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    grid = Grid([f"synthetic:pipeline?requests={requests}"], policies=["cachetools:lfu"], sizes=list(range(10, 10 + cells)))
    print(len(run(grid, jobs=2, resume=file)))
