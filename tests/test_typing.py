"""The signatures that a type checker sees are those of the decorated functions."""
from pathlib import Path

from mypy import api


def test_typed_use_passes_mypy_strict(tmp_path):
    used = Path(__file__).parent / "typing" / "api.py"
    report, errors, status = api.run(
        ["--strict", "--follow-imports=silent", "--config-file=", f"--cache-dir={tmp_path}", str(used)]
    )
    assert status == 0, report + errors
