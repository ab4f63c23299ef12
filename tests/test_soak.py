"""A soak in a bounded form; `make soak` runs the long one."""
import subprocess
import sys
from pathlib import Path

import pytest

import adaptcache

SOAK = Path(__file__).resolve().parent.parent / "bench" / "soak.py"


@pytest.mark.slow
@pytest.mark.parametrize("policy", adaptcache.policies())
def test_a_million_random_operations_leave_memory_flat_and_structures_sound(policy):
    run = subprocess.run([sys.executable, str(SOAK), "--policy", policy, "--operations", "1000000", "--size", "5000"],
                         capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count(" flat") == 2
