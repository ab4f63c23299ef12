"""Run redis-py's own tests with our clients in place of its own, and compare test by test with a run without.

    python tests/redis_suite.py FOLDER [--modes off,observe,release] [--server valkey|redis] [--report FILE] [PYTEST ARGUMENT ...]

FOLDER holds redis-py's sdist of the installed version, unpacked (`pip download --no-deps --no-binary :all: redis==8.1.0`), and
stays as it is. The tests need pytest-asyncio and pytest-timeout. A fresh server is started for every run; a mode of "theirs" is
redis-py as it is. What is left out: tests of modules, of TLS and of set-ups with several servers, which need those servers; clusters
have runs of their own (`--cluster`).

This file is also the plugin of those runs: it puts `adaptcache.redis`'s classes where redis-py's tests look for its own, in
the mode that the environment names, before any test is collected.
"""
from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODE, OUTCOMES, CLUSTER = "ADAPTCACHE_SUITE_MODE", "ADAPTCACHE_SUITE_OUTCOMES", "ADAPTCACHE_SUITE_CLUSTER"
LEFT_OUT = "not redismod and not ssl and not cp_integration and not multidb_integration"
IGNORED = ("tests/test_scenario", "tests/test_multidb", "tests/test_asyncio/test_scenario", "tests/test_asyncio/test_multidb",
           "tests/test_ssl.py", "tests/test_asyncio/test_ssl.py")
CONFIG = """
[pytest]
asyncio_default_fixture_loop_scope = function
asyncio_mode = auto
timeout = 60
filterwarnings = always
markers =
    {markers}
"""


# -- the plugin

def _swap(mode: str) -> None:
    import redis.asyncio.client
    import redis.asyncio.cluster
    import redis.client
    import redis.cluster

    import adaptcache.redis.asyncio as ours_async
    from adaptcache import redis as ours

    adapt = ours.Adapt(mode)
    kinds = [ours.RedisCluster, ours_async.RedisCluster]
    if not os.environ.get(CLUSTER):
        # A cluster's client talks to its nodes through clients of redis-py's own, and that is what tests of clusters patch.
        kinds += [ours.Redis, ours_async.Redis]
    for kind in kinds:
        made = type(kind.__name__, (kind,), {"__module__": kind.__mro__[1].__module__})

        def init(self, *args, _kind=kind, **kwargs):
            pool = kwargs.get("connection_pool")
            joined = getattr(pool, "_adaptcache_watcher", None)
            _kind.__init__(self, *args, **{"adapt": None if joined else adapt, **kwargs})

        init.__signature__ = kind.__init__.__signature__
        made.__init__ = init
        theirs = kind.__mro__[1]
        for module in {theirs.__module__, "redis.asyncio" if "asyncio" in theirs.__module__ else "redis"}:
            setattr(sys.modules[module], kind.__name__, made)
    if os.environ.get(CLUSTER):
        return
    import redis.asyncio.sentinel
    import redis.sentinel
    for module, made in ((redis.sentinel, redis.Redis), (redis.asyncio.sentinel, redis.asyncio.Redis)):
        module.Redis = made
        for name in ("master_for", "slave_for"):
            method = getattr(module.Sentinel, name)
            method.__defaults__ = tuple(made if one is made.__mro__[2] else one for one in method.__defaults__)


_seen: dict[str, str] = {}


def pytest_configure(config) -> None:
    if os.environ.get(MODE, "theirs") != "theirs":
        _swap(os.environ[MODE])


def pytest_runtest_logreport(report) -> None:
    name = re.sub(r"0x[0-9a-f]+", "0x", report.nodeid)
    if report.outcome != "passed" or name not in _seen:
        _seen[name] = report.outcome if _seen.get(name, "passed") == "passed" else _seen[name]


def pytest_collectreport(report) -> None:
    if report.outcome != "passed":
        _seen[report.nodeid] = "not collected"


def pytest_sessionfinish(session) -> None:
    if OUTCOMES in os.environ:
        Path(os.environ[OUTCOMES]).write_text(json.dumps(_seen))


# -- the runner

def run(folder: Path, mode: str, server: str, cluster: bool, rest: list[str]) -> dict[str, str]:
    """Outcome by test of one run against a fresh server."""
    sys.path.insert(0, str(HERE))
    from servers import Cluster, Server, redis_binary, valkey_binary

    binary = valkey_binary() if server == "valkey" else redis_binary()
    with tempfile.TemporaryDirectory(prefix="adaptcache-suite-") as scratch:
        shutil.copytree(folder / "tests", Path(scratch, "tests"))
        for one in IGNORED:
            path = Path(scratch, one)
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        markers = re.findall(r'^    "(\w+: .*?)",$', (folder / "pyproject.toml").read_text(), re.M)
        Path(scratch, "pytest.ini").write_text(CONFIG.format(markers="\n    ".join(markers)))
        started = Cluster(3, 1, binary) if cluster else Server(binary)
        try:
            outcomes = Path(scratch, "outcomes.json")
            only = "not onlynoncluster" if cluster else "not onlycluster"
            command = [sys.executable, "-m", "pytest", "-q", "-p", "redis_suite", "-p", "no:cacheprovider", "-c", "pytest.ini",
                       "--rootdir", scratch, "--import-mode=prepend", "--tb=short", "--continue-on-collection-errors", "-m", f"{only} and {LEFT_OUT}",
                       "--redis-url", started.url, *(rest or ["tests"])]
            path = os.pathsep.join([str(HERE), str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
            environment = {**os.environ, MODE: mode, OUTCOMES: str(outcomes), CLUSTER: "1" if cluster else "", "PYTHONPATH": path}
            environment.pop("PYTHONSAFEPATH", None)
            log = Path(tempfile.gettempdir(), f"adaptcache-suite-{server}{'-cluster' if cluster else ''}-{mode}.log")
            with log.open("w") as out:
                subprocess.run(command, cwd=scratch, env=environment, stdout=out, stderr=subprocess.STDOUT, check=False)
            return json.loads(outcomes.read_text())
        finally:
            started.close()


def compare(theirs: dict[str, str], ours: dict[str, str]) -> dict[str, tuple[str, str]]:
    return {name: (theirs.get(name, "not run"), ours.get(name, "not run")) for name in sorted({*theirs, *ours})
            if theirs.get(name) != ours.get(name)}


def _tally(outcomes: dict[str, str]) -> str:
    values = list(outcomes.values())
    return ", ".join(f"{values.count(one):,} {one}" for one in dict.fromkeys(["passed", *sorted(values)]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--modes", default="off,observe,release")
    parser.add_argument("--server", choices=("valkey", "redis"), default="valkey")
    parser.add_argument("--cluster", action="store_true", help="the tests of clusters, on three primaries with a replica each")
    parser.add_argument("--report", type=Path, help="write outcomes and differences there, as JSON")
    given, rest = parser.parse_known_args()
    runs = {mode: run(given.folder, mode, given.server, given.cluster, rest) for mode in ["theirs", *given.modes.split(",")]}
    differ = {mode: compare(runs["theirs"], outcomes) for mode, outcomes in runs.items() if mode != "theirs"}
    for mode, outcomes in runs.items():
        print(f"{given.server}, {mode}: {_tally(outcomes)}")
    for mode, names in differ.items():
        for name, (before, after) in names.items():
            print(f"  {mode}: {name}: {before} -> {after}")
    if given.report:
        given.report.write_text(json.dumps({"runs": runs, "differ": differ}))
    return int(any(differ.values()))


if __name__ == "__main__":
    raise SystemExit(main())
