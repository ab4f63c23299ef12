"""`lru_cache` and `cache` in place of functools': CPython's own tests of it, and what they do not ask."""
import copy
import functools
import gc
import importlib.util
import inspect
import itertools
import pickle
import random
import sys
import threading
import types
import weakref

import pytest

import adaptcache
from adaptcache import cache, lru_cache

# -- CPython's own tests


def cpythons():
    """The test class that this Python brings along for functools.lru_cache, with our names in place of functools'."""
    module = importlib.import_module("test.test_functools")
    unittest = importlib.import_module("unittest")
    ours = types.SimpleNamespace(**vars(functools))
    ours.lru_cache, ours.cache = lru_cache, cache

    class TestLRU(module.TestLRU, unittest.TestCase):
        cached_func = (pickled_function,)

        @lru_cache()
        def cached_meth(self, x, y):
            return 3 * x + y

        @staticmethod
        @lru_cache()
        def cached_staticmeth(x, y):
            return 3 * x + y

    TestLRU.module = ours
    TestLRU.__qualname__ = "TestLRU"        # found by this name where pickle looks for its methods
    TestLRU.__module__ = __name__
    for method in (TestLRU.cached_meth, TestLRU.cached_staticmeth):
        method.__qualname__ = f"TestLRU.{method.__name__}"
    return TestLRU


@lru_cache()
def pickled_function(x, y):
    return 3 * x + y


if importlib.util.find_spec("test") is not None and importlib.util.find_spec("test.test_functools") is not None:
    TestLRU = cpythons()
else:
    @pytest.mark.skip(reason="this Python was installed without its `test` package, which has test_functools")
    def test_cpythons_own_tests():
        raise AssertionError("never run")
