"""What several test files share: where the recorded traces are, and real servers."""
from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from budget import SHARE, share_of
from hypothesis import is_hypothesis_test, settings
from servers import Cluster, Sentinels, Server, Wire, redis_binary

# A run of the suite repeats exactly, so that what has passed once passes again; ADAPTCACHE_EXPLORE=1 looks for new examples.
settings.register_profile("repeat", derandomize=True)
settings.load_profile("default" if os.environ.get("ADAPTCACHE_EXPLORE") else "repeat")

# Scripts that tests run in processes of their own import the installed package, not the folder they start in.
os.environ["PYTHONSAFEPATH"] = "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A share of the examples, of tests that state their number too: a profile would not reach these."""
    if SHARE == 1:
        return
    functions = {item.obj for item in items if isinstance(item, pytest.Function) and is_hypothesis_test(item.obj)}
    for function in functions:
        stated = function._hypothesis_internal_use_settings
        function._hypothesis_internal_use_settings = settings(stated, max_examples=share_of(stated.max_examples))


@pytest.fixture(scope="session")
def trace_path() -> Callable[[str], Path]:
    """The file of a recorded trace by name; skips where this machine has none."""
    default = Path(__file__).resolve().parent.parent / ".." / "shared" / "traces"
    folder = Path(os.environ.get("ADAPTCACHE_TRACES") or default)

    def path(name: str) -> Path:
        if not folder.is_dir():
            pytest.skip(f"no recorded traces in {folder}; ADAPTCACHE_TRACES names another folder")
        return folder / f"{name}.npz"

    return path


# -- real servers (see `servers`): one of each a session, flushed before each test that asks for it


@pytest.fixture(scope="session")
def _valkey() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def valkey(_valkey: Server) -> Server:
    """A Valkey that other tests use too, empty. Not to be killed, stopped or configured."""
    with _valkey.client() as client:
        client.flushall()
        client.script_flush()
    return _valkey


@pytest.fixture(scope="session")
def _debian() -> Iterator[Server | None]:
    binary = redis_binary()
    if binary is None:
        yield None
        return
    with Server(binary) as server:
        yield server


@pytest.fixture(params=["valkey", "redis"])
def server(request: pytest.FixtureRequest) -> Server:
    """The shared Valkey, and Debian's redis-server where it is installed; empty. Not to be killed, stopped or configured."""
    shared: Server | None = request.getfixturevalue("_valkey" if request.param == "valkey" else "_debian")
    if shared is None:
        pytest.skip("redis-server is not installed (apt-get install redis-server)")
    with shared.client() as client:
        client.flushall()
        client.script_flush()
    return shared


@pytest.fixture
def valkey_server() -> Iterator[Callable[..., Server]]:
    """valkey_server(**options): a Valkey of the test's own, which it may kill, pause and limit."""
    with ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(Server(*args, **options))


@pytest.fixture(scope="session")
def _cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    yield cluster
    cluster.close()


@pytest.fixture
def cluster(_cluster: Cluster) -> Cluster:
    """Three primaries that other tests use too, empty. Not to be killed or stopped."""
    _cluster.flush()
    return _cluster


@pytest.fixture
def own_cluster() -> Iterator[Callable[..., Cluster]]:
    """own_cluster(primaries, replicas): a cluster of the test's own."""
    with ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(closing(Cluster(*args, **options)))


@pytest.fixture
def sentinels() -> Iterator[Sentinels]:
    """A primary, its replica and three sentinels, the test's own."""
    with closing(Sentinels()) as watched:
        yield watched


@pytest.fixture
def wire() -> Iterator[Callable[[int], Wire]]:
    """wire(port): a proxy to that port whose forwarding can be cut."""
    with ExitStack() as stack:
        yield lambda port: stack.enter_context(closing(Wire(port)))
