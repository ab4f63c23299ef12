"""What several test files share: where the recorded traces are."""
from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from budget import SHARE, share_of
from hypothesis import is_hypothesis_test, settings

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
