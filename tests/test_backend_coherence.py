"""Processes that read hot keys while one writes: nothing older than the window, and without a part in the process nothing old at all."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

READER = Path(__file__).with_name("backend_readers.py")


def run(url, path, *, readers, seconds, window, maxsize, keys=10):
    path.write_bytes(bytes(8 * keys))
    common = {"url": url, "path": str(path), "keys": keys, "seconds": seconds, "window": window, "maxsize": maxsize}
    processes = [subprocess.Popen([sys.executable, "-W", "error", str(READER), json.dumps({**common, "role": role, "seed": at})], text=True,
                                  stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": ":".join(sys.path)})
                 for at, role in enumerate(["write"] + ["read"] * readers)]
    out = []
    for process in processes:
        text, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        out.append(json.loads(text.splitlines()[-1]))
    return out


def test_nothing_old_is_read(valkey, tmp_path):
    writer, *readers = run(valkey.url, tmp_path / "noted", readers=2, seconds=1.5, window=0.0, maxsize=0)
    assert writer["writes"] > 20 and all(reader["reads"] > 100 for reader in readers)
    assert [reader["stale"] for reader in readers] == [0, 0]
    assert [reader["events"].keys() - {"lease-lost", "took-over"} for reader in readers] == [set(), set()]


@pytest.mark.slow
@pytest.mark.parametrize("maxsize", [0, 100], ids=["server alone", "held here"])
def test_nothing_old_is_read_by_eight_processes(valkey, tmp_path, maxsize):
    writer, *readers = run(valkey.url, tmp_path / "noted", readers=8, seconds=20, window=2.0 if maxsize else 0.0, maxsize=maxsize)
    print(json.dumps({"writes": writer["writes"], "reads": sum(reader["reads"] for reader in readers),
                      "loads": sum(reader["loads"] for reader in readers), "oldest": max(reader["oldest"] for reader in readers)}))
    assert sum(reader["stale"] for reader in readers) == 0
