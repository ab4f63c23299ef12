"""A stream of hashes is replayed as a trace of numbers is, whatever its length, in the memory of what is held."""
from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from adaptcache import _core, policies
from adaptcache.cli import adaptcache
from adaptcache.errors import TraceError
from adaptcache.simulate import EvictionResult, simulate, streaming
from adaptcache.simulate.run import SALTED
from adaptcache.simulate.streaming import simulate_stream

every_policy = pytest.mark.parametrize("policy", policies())


def mixed(key: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """Hashes as a reader makes them: no two keys share one (splitmix64 is one to one)."""
    with np.errstate(over="ignore"):
        h = key.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return h ^ (h >> np.uint64(31))


@every_policy
@settings(max_examples=100, deadline=None)
@given(rows=st.lists(st.tuples(st.integers(0, 15), st.sampled_from([0, 0, 0, 1, 2]), st.integers(0, 9)), max_size=120),
       capacity=st.integers(1, 20), salt=st.integers(0, 2**64 - 1), cut=st.integers(1, 40))
def test_a_stream_counts_what_a_trace_does(policy: str, rows: list[tuple[int, int, int]], capacity: int, salt: int, cut: int) -> None:
    """Under sets and deletes, in chunks of any length, and with numbers for hashes, so that sketches see the same ones."""
    key = np.array([row[0] for row in rows], np.uint32)
    op = np.array([row[1] for row in rows], np.uint8)
    size = np.array([row[2] for row in rows], np.float64)
    whole = _core.PolicyReplay(policy, capacity, 16, salt)
    whole.run(key, size, op, None, 0, len(key), size + 1)
    stream = _core.StreamReplay(policy, capacity, salt)
    for start in range(0, len(key), cut):
        stop = start + cut
        stream.run(key[start:stop].astype(np.uint64), size[start:stop], op[start:stop], size[start:stop] + 1)
        stream._check()
    assert (stream.requests, stream.hits) == (whole.requests, whole.hits)
    assert (stream.bytes_requested, stream.bytes_hit) == (whole.bytes_requested, whole.bytes_hit)
    assert (stream.cost_requested, stream.cost_missed) == (whole.cost_requested, whole.cost_missed)
    assert stream.ways == whole.ways
    assert whole.ways is None if policy != "adaptive" else sum(whole.ways.values()) == (op != 2).sum()  # type: ignore[union-attr]


@every_policy
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32), capacity=st.integers(1, 300))
def test_a_long_stream_of_real_hashes_counts_what_a_trace_does(policy: str, seed: int, capacity: int) -> None:
    rng = np.random.default_rng(seed)
    key = (1000 * rng.random(5000) ** rng.integers(1, 5)).astype(np.uint32)
    # The hashes are numbers to a policy's sketch either way, so a sketch's accidents must be the same ones.
    names = key.astype(np.uint64) if policy in ("wtinylfu", "adaptive") else mixed(key)
    whole = _core.PolicyReplay(policy, capacity, 1000)
    whole.run(key, None, None, None, 0, len(key))
    stream = _core.StreamReplay(policy, capacity)
    for start in range(0, len(key), 1024):
        stream.run(names[start : start + 1024])
    stream._check()
    assert (stream.requests, stream.hits) == (whole.requests, whole.hits)
    assert stream.bytes_hit == whole.hits
    assert stream.held == min(capacity, len(np.unique(key)))


def test_keys_that_share_half_a_hash_are_told_apart() -> None:
    """Under any salt some of these meet in the table's 32 bits, and what lies beyond them decides."""
    replay = _core.StreamReplay("lru", 400_000)
    hashes = np.arange(400_000, dtype=np.uint64) << np.uint64(40)
    replay.run(hashes)
    assert replay.hits == 0
    replay.run(hashes)
    assert replay.hits == 400_000
    replay._check()


@pytest.mark.parametrize(("policy", "capacity", "says"), [
    ("belady", 10, "future"), ("belady-bypass", 10, "future"), ("clock", 10, "unknown policy 'clock'"), ("lru", 0, "1 to 536870912"),
    ("lru", float("inf"), "1 to 536870912"), ("lru", float("nan"), "1 to 536870912"), ("lru", 2**30, "1 to 536870912"),
])
def test_what_a_stream_cannot_do_is_refused(policy: str, capacity: float, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        _core.StreamReplay(policy, capacity)


@pytest.mark.parametrize("columns", [{"size": np.ones(2)}, {"op": np.zeros(4, np.uint8)}, {"cost": np.ones(1)}])
def test_columns_of_unlike_lengths_are_refused_before_a_row_is_replayed(columns: dict[str, NDArray[np.generic]]) -> None:
    replay = _core.StreamReplay("lru", 2)
    with pytest.raises(ValueError, match="not as long"):
        replay.run(np.zeros(3, np.uint64), **columns)
    assert replay.requests == 0 and replay.held == 0


# -- files

@pytest.fixture
def file(tmp_path: Path) -> Path:
    rng = np.random.default_rng(1)
    rows = zip((1000 * rng.random(4000) ** 3).astype(int), rng.integers(1, 99, 4000), rng.choice(["get", "get", "set", "delete"], 4000),
               rng.random(4000), strict=True)
    path = tmp_path / "traffic.csv"
    path.write_text("key,size,op,cost\n" + "".join(f"user:{key},{size},{op},{cost}\n" for key, size, op, cost in rows))
    return path


@pytest.mark.parametrize("ops", [False, True])
def test_a_file_gives_what_it_gives_when_read_whole(ops: bool, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In chunks of any length: all that hashes decide is which collisions a sketch has."""
    chosen = [policy for policy in policies() if policy not in SALTED]
    wanted = [replace(result, seconds=0) for result in simulate(file, chosen, [10, 100], ops=ops, limit=3500) if isinstance(result, EvictionResult)]
    for rows in (37, 1000, 3500, 10_000):
        monkeypatch.setattr(streaming, "ROWS", rows)
        got = simulate_stream(file, chosen, [10, 100], ops=ops, limit=3500)
        assert [replace(result, seconds=0, cost_ratio=None) for result in got] == [replace(result, cost_ratio=None) for result in wanted]
        assert [result.cost_ratio for result in got] == pytest.approx([result.cost_ratio for result in wanted])
    close = simulate_stream(file, "wtinylfu", 100)[0].hit_ratio
    assert close == pytest.approx(simulate(file, "wtinylfu", 100)[0].hit_ratio, abs=0.02)  # type: ignore[union-attr]


def test_the_command_line_streams(file: Path) -> None:
    def lines(*words: object) -> list[dict[str, object]]:
        got = CliRunner().invoke(adaptcache, ["simulate", *map(str, words), "--policy", "lru,sieve", "--size", "10,50", "--json"])
        assert got.exit_code == 0, got.output
        return [json.loads(line) | {"seconds": 0} for line in got.stdout.splitlines()]

    for source in (file, "synthetic:pipeline?requests=1000"):
        assert lines(source, "--stream", "--limit", 900) == lines(source, "--limit", 900)
    shown = CliRunner().invoke(adaptcache, ["simulate", str(file), "--stream", "--policy", "lru", "--size", "10"])
    assert shown.exit_code == 0 and "traffic (4,000 requests): eviction" in shown.stdout


@pytest.mark.parametrize(("words", "says"), [
    (["--policy", "belady", "--size", "10"], "does not run on a stream"), (["--policy", "lru", "--size", "1%"], "no percentages"),
    (["--policy", "lru"], "--stream goes with"), (["--policy", "lru", "--size", "1", "--jobs", "2"], "--stream goes with"),
    (["--policy", "lru", "--size", "1", "--expiry", "learned"], "--stream goes with"),
])
def test_what_a_stream_cannot_be_asked_is_said_before_it_is_opened(words: list[str], says: str) -> None:
    got = CliRunner().invoke(adaptcache, ["simulate", "nowhere.csv", "--stream", *words])
    assert got.exit_code == 2 and says in got.stderr


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    got = CliRunner().invoke(adaptcache, ["simulate", str(tmp_path / "nowhere.csv"), "--stream", "--policy", "lru", "--size", "1"])
    assert got.exit_code == 1 and "nowhere.csv: no such file" in got.stderr


def test_a_stream_without_a_get_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "sets.csv"
    file.write_text("key,op\na,set\n")
    with pytest.raises(TraceError, match="no row is a get"):
        simulate_stream(file, "lru", 1, ops=True)
    assert simulate_stream(file, "lru", 1)[0].requests == 1
