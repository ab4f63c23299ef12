"""The simulator's loop beside libCacheSim's, the field's own simulator in C.

The same requests, the same policy, the same capacity, every object counting 1. Ours is `PolicyReplay.run` over the
trace's array of key numbers; theirs `process_trace`, their loop in C over a file that the operating system holds in
memory, with a hash table that fits the trace: their own default, of 2**24 places, is slower. Making a cache and opening
a file are not timed. Requests are drawn by Zipf's law, with newcomers that come once; and, where ADAPTCACHE_TRACES names
a folder, taken from two recorded traces.
"""
from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from adaptcache import _core, policies
from adaptcache.simulate.readers import read

libcachesim = pytest.importorskip("libcachesim", reason="libCacheSim (PyPI libcachesim) is not installed")

Keys = npt.NDArray[np.uint32]
THEIRS = {"fifo": "FIFO", "lru": "LRU", "sieve": "Sieve", "s3fifo": "S3FIFO", "lfu": "LFU", "slru": "SLRU", "lirs": "LIRS",
          "gdsf": "GDSF", "arc": "ARC", "wtinylfu": "WTinyLFU"}
AIMED = {"fifo", "lru", "sieve", "s3fifo", "arc", "wtinylfu"}
RECORDED = ("cloudphysics_w106", "scarab_recs")


def zipf() -> Keys:
    """500,000 requests, nine of ten for 50,000 keys by Zipf's law, the others for keys that never come again."""
    rng = np.random.default_rng(1)
    rank = np.arange(1, 50_001) ** -0.9
    key = rng.choice(len(rank), 500_000, p=rank / rank.sum())
    once = rng.random(len(key)) < 0.1
    key[once] = len(rank) + np.arange(once.sum())
    return key.astype(np.uint32)


def recorded(name: str) -> Keys:
    folder = os.environ.get("ADAPTCACHE_TRACES")
    if not folder:
        pytest.skip("no recorded traces: ADAPTCACHE_TRACES names no folder")
    return np.ascontiguousarray(read(Path(folder) / f"{name}.npz").key[:500_000], np.uint32)


def written(key: Keys, path: Path) -> Path:
    """The requests in their own format, oracleGeneral."""
    rows = np.zeros(len(key), np.dtype([("time", "<u4"), ("id", "<u8"), ("size", "<u4"), ("next", "<i8")]))
    rows["id"] = key.astype(np.uint64) + 1
    rows["size"] = 1
    rows["next"] = -1
    path.write_bytes(rows.tobytes())
    return path


@pytest.mark.parametrize("source", ["zipf", *RECORDED])
@pytest.mark.parametrize("policy", [policy for policy in THEIRS if policy in policies()])
def test_replay(contest: Callable[..., Any], tmp_path: Path, policy: str, source: str) -> None:
    key = zipf() if source == "zipf" else recorded(source)
    n_keys = int(key.max()) + 1
    capacity = len(np.unique(key)) // 20
    trace = str(written(key, tmp_path / "trace.oracleGeneral"))
    places = max(12, int(np.ceil(np.log2(2 * capacity))))
    ratio: dict[str, float] = {}

    def prepare() -> tuple[Any, Any, Any]:
        ours = _core.PolicyReplay(policy, capacity, n_keys)
        theirs = getattr(libcachesim, THEIRS[policy])(cache_size=capacity, hashpower=places)
        reader = libcachesim.TraceReader(trace, libcachesim.TraceType.ORACLE_GENERAL_TRACE)
        return ours, theirs, reader

    def run(made: tuple[Any, Any, Any]) -> None:
        made[0].run(key, None, None, None, 0, len(key))
        ratio[""] = made[0].hits / made[0].requests

    def run_theirs(made: tuple[Any, Any, Any]) -> None:
        ratio["libCacheSim"] = 1 - made[1].process_trace(made[2])[0]

    row = contest(f"replay of {source}, {capacity:,} entries (hit ratio)", policy, run, {"libCacheSim": run_theirs}, len(key),
                  prepare=prepare, rounds=7, aims={"libCacheSim": 1.0} if policy in AIMED else {})
    row.notes = {label: f"{each:.4f}" for label, each in ratio.items()}
    assert 0 < ratio["libCacheSim"] < 1
    assert abs(ratio[""] - ratio["libCacheSim"]) < 0.1, "this is not one policy on one trace"
