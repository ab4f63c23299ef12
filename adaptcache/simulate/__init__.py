"""The harness: replay a trace against eviction policies and expiry rules, beside the best possible.

It uses the compiled policies of the live cache, so what is measured here is what is deployed.
"""
from adaptcache.simulate.curves import Curve, curve
from adaptcache.simulate.readers import read, stream
from adaptcache.simulate.run import EvictionResult, ExpiryResult, Result, simulate
from adaptcache.simulate.trace import Rows, Trace

__all__ = ["Curve", "EvictionResult", "ExpiryResult", "Result", "Rows", "Trace", "curve", "read", "simulate", "stream"]
