"""Other libraries' caches in the simulator: theirs are the hits, ours is the counting."""
from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptcache import _core
from adaptcache.cli import adaptcache
from adaptcache.errors import TraceError
from adaptcache.simulate import Trace, rivals, simulate
from adaptcache.simulate.extras import MissingExtra
from adaptcache.simulate.rivals import RIVALS, RivalReplay
from adaptcache.simulate.trace import dense

# A rival whose policy is fully determined, and ours that is the same one.
SAME = {"cachetools:lru": "lru", "cachetools:fifo": "fifo", "cachebox:lru": "lru", "cachebox:fifo": "fifo", "functools": "lru"}
columns = st.lists(st.tuples(st.integers(0, 11), st.sampled_from([0, 0, 0, 1, 2]), st.integers(0, 9)), max_size=150)


def installed(policy: str) -> None:
    pytest.importorskip(RIVALS[policy][0])


@pytest.mark.parametrize("policy", SAME)
@settings(max_examples=100, deadline=None)
@given(rows=columns, capacity=st.integers(1, 8))
def test_rivals_of_a_policy_that_we_have_hit_where_ours_does(policy: str, rows: list[tuple[int, int, int]], capacity: int) -> None:
    """Row by row."""
    installed(policy)
    key = np.array([row[0] for row in rows], np.uint32)
    size = np.array([row[2] for row in rows], np.float64)
    rival, ours = RivalReplay(policy, capacity), _core.PolicyReplay(SAME[policy], capacity, 12)
    for row in range(len(rows)):
        for replay in (rival, ours):
            replay.run(key, size, None, None, row, row + 1, size)
        assert (rival.requests, rival.hits, rival.bytes_hit) == (ours.requests, ours.hits, ours.bytes_hit), f"row {row}"
    assert (rival.bytes_requested, rival.cost_requested, rival.cost_missed) == (ours.bytes_requested, ours.cost_requested, ours.cost_missed)


@pytest.mark.parametrize("policy", ["cachetools:lru", "cachebox:lru"])
@settings(max_examples=60, deadline=None)
@given(rows=columns, capacity=st.integers(1, 8))
def test_sets_and_deletes_are_passed_on(policy: str, rows: list[tuple[int, int, int]], capacity: int) -> None:
    installed(policy)
    key = np.array([row[0] for row in rows], np.uint32)
    op = np.array([row[1] for row in rows], np.uint8)
    rival, ours = RivalReplay(policy, capacity), _core.PolicyReplay("lru", capacity, 12)
    for replay in (rival, ours):
        replay.run(key, None, op, None, 0, len(rows))
    assert (rival.requests, rival.hits, rival.bytes_requested) == (ours.requests, ours.hits, ours.bytes_requested)


def skewed(rows: int = 6000) -> Trace:
    random = np.random.default_rng(3)
    key = dense((1000 * random.random(rows) ** 4).astype(np.int64))
    return Trace("skewed", key, int(key.max()) + 1)


@pytest.mark.parametrize("policy", RIVALS)
def test_every_rival_runs_and_is_a_cache(policy: str) -> None:
    """More room never hurts much; all the room there is leaves first requests alone to miss."""
    installed(policy)
    trace = skewed()
    small, large, whole = (result.hits for result in simulate(trace, policies=policy, sizes=[50, 300, 2000]))
    assert 0 < small < large <= whole == len(trace) - trace.n_keys


def test_random_replacement_repeats_under_its_seed() -> None:
    trace = skewed()
    hits = [simulate(trace, policies="cachetools:rr", sizes=50, seed=seed)[0].hits for seed in (1, 1, 2)]
    assert hits[0] == hits[1] != hits[2]


def test_rivals_that_are_not_by_chance_repeat() -> None:
    trace = skewed(3000)
    for policy in RIVALS.keys() - rivals.BY_CHANCE:
        installed(policy)
        assert len({simulate(trace, policies=policy, sizes=50, seed=seed)[0].hits for seed in (1, 2)}) == 1, policy


def test_functools_says_that_it_can_neither_be_set_nor_deleted_from() -> None:
    trace = Trace("sets", np.array([0, 0], np.uint32), 1, op=np.array([0, 1], np.uint8))
    with pytest.raises(TraceError, match="functools has no way to store one key; without --ops"):
        simulate(trace, policies="functools", ops=True)


def test_a_rival_that_is_not_installed_is_named_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(rivals, "import_module", missing)
    with pytest.raises(MissingExtra, match="not installed; pip install moka-py"):
        simulate(skewed(10), policies="moka")
    got = CliRunner().invoke(adaptcache, ["simulate", "synthetic:pipeline?requests=1000", "--policy", "theine"])
    assert got.exit_code == 1 and "pip install theine" in got.stderr


def test_what_a_rival_holds_open_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []

    def make(module: Any, capacity: int, seed: int) -> rivals.Rival:
        return rivals.Rival(lambda key: True, close=lambda: closed.append("closed"))

    monkeypatch.setitem(RIVALS, "theine", ("functools", make))
    assert simulate(skewed(10), policies="theine")[0].hits == 10
    assert closed == ["closed"]


def test_the_command_line_takes_rivals_beside_policies() -> None:
    got = CliRunner().invoke(adaptcache, ["simulate", "synthetic:pipeline?requests=2000", "--policy", "lru,cachetools:lru,functools",
                                          "--size", "20,100", "--json"])
    assert got.exit_code == 0, got.output
    rows = [json.loads(line) for line in got.stdout.splitlines()]
    assert [row["policy"] for row in rows] == ["lru", "cachetools:lru", "functools"] * 2
    for start in (0, 3):
        assert len({(row["hits"], row["capacity"]) for row in rows[start : start + 3]}) == 1
    unknown = CliRunner().invoke(adaptcache, ["simulate", "nowhere", "--policy", "cachetools:mru"])
    assert unknown.exit_code == 2 and "cachetools:lru" in unknown.stderr and "functools" in unknown.stderr


# -- the field's own simulator

THEIRS = {"fifo": "FIFO", "lru": "LRU", "sieve": "Sieve", "lfu": "LFU", "arc": "ARC"}    # those that are fully determined


@pytest.mark.parametrize("policy", THEIRS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), capacity=st.integers(1, 60), skew=st.integers(1, 5))
def test_libcachesim_counts_the_same_hits(policy: str, seed: int, capacity: int, skew: int) -> None:
    """On any trace and at any capacity, request by request."""
    libcachesim = pytest.importorskip("libcachesim")
    random = np.random.default_rng(seed)
    key = (100 * random.random(500) ** skew).astype(np.uint32)
    theirs = getattr(libcachesim, THEIRS[policy])(cache_size=capacity)
    ours = _core.PolicyReplay(policy, capacity, 100)
    request = libcachesim.Request()
    request.obj_size = 1
    hits = 0
    for row, asked in enumerate(key.tolist()):
        request.obj_id = asked + 1
        hits += bool(theirs.get(request))
        ours.run(key, None, None, None, row, row + 1)
        assert ours.hits == hits, f"row {row}"
