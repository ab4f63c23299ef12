"""What several test files share: where the recorded traces are."""
from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# A run of the suite repeats exactly, so that what has passed once passes again; ADAPTCACHE_EXPLORE=1 looks for new examples.
settings.register_profile("repeat", derandomize=True)
settings.load_profile("default" if os.environ.get("ADAPTCACHE_EXPLORE") else "repeat")

# Scripts that tests run in processes of their own import the installed package, not the folder they start in.
os.environ["PYTHONSAFEPATH"] = "1"


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
