"""Experiments: traces × policies × sizes, and traces × expiry rules × memory prices, over seeds, by many workers.

`run(Grid(...))` is what `simulate` would give, cell by cell, in the grid's order, whoever computed which cell
and when. Any `concurrent.futures.Executor` will do; by default there are as many processes as processors.
"""
from adaptcache.simulate.experiments.experiment import run
from adaptcache.simulate.experiments.grid import Grid
from adaptcache.simulate.experiments.intervals import Interval, Summary, interval, over_seeds

__all__ = ["Grid", "Interval", "Summary", "interval", "over_seeds", "run"]
