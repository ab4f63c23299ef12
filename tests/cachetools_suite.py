"""Run cachetools' own tests, in a folder that holds its sdist, against our names or its own.

    python cachetools_suite.py ours|theirs REPORT

REPORT receives, as JSON, the outcome of each test and the module in which the classes under test are defined.
"""
import importlib
import json
import sys
from pathlib import Path

import pytest

SWAPPED = ("", ".keys", ".func")


class Outcomes:
    def __init__(self):
        self.of = {}

    def pytest_runtest_logreport(self, report):
        worst = self.of.get(report.nodeid, "passed")
        self.of[report.nodeid] = worst if worst != "passed" else report.outcome

    def pytest_collectreport(self, report):
        if report.outcome != "passed":
            self.of[report.nodeid] = "not collected"


def main(whose, path):
    if whose == "ours":
        for part in SWAPPED:
            ours = importlib.import_module(f"adaptcache.compat.cachetools{part}")
            sys.modules[f"cachetools{part}"] = ours
    else:
        sys.path.insert(0, str(Path("src").resolve()))
    outcomes = Outcomes()
    pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:randomly", "--import-mode=prepend", "tests"], plugins=[outcomes])
    under_test = sys.modules["tests.test_lru"].LRUCache.__module__
    Path(path).write_text(json.dumps({"outcomes": outcomes.of, "under_test": under_test}))


if __name__ == "__main__":
    main(*sys.argv[1:])
