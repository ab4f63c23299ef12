"""tools/cycov.py: counts of lines of C come to the lines they were made from."""
import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("coverage")
TOOL = Path(__file__).resolve().parent.parent / "tools" / "cycov.py"

C = '''static int before;
/* "table.pxd":10
 *
 * cdef inline int f(int x) noexcept nogil:             # <<<<<<<<<<<<<<
 */
static int f(int x) {
  /* "table.pxd":11
 *     return x + 1             # <<<<<<<<<<<<<<
 */
  int r = x;
  return r + 1;
  /* function exit code */
  goto out;
}
/* "_ext/store.pxi":10
 */
  g();
'''


@pytest.fixture(scope="module")
def cycov():
    spec = importlib.util.spec_from_file_location("cycov", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_line_of_c_belongs_to_the_last_line_that_was_named_before_it(cycov, tmp_path):
    path = tmp_path / "core.c"
    path.write_text(C)
    named = {number: origin for number, origin in enumerate(cycov.origins(path), 1) if origin}
    assert named == {6: ("table.pxd", 10), 10: ("table.pxd", 11), 11: ("table.pxd", 11), 17: ("store.pxi", 10)}


def test_a_line_ran_as_often_as_the_busiest_of_its_lines_of_c(cycov, tmp_path):
    path = tmp_path / "core.c"
    path.write_text(C)
    counts = cycov.carried_over(path, [(1, 9), (6, 3), (10, 2), (11, 3), (13, 9), (17, 0)])
    assert counts == {"table.pxd": {10: 3, 11: 3}, "store.pxi": {10: 0}}


def test_the_report_names_what_did_not_run(cycov, capsys):
    lines = {"table.pxd": {1: 5, 2: 0, 3: 1, 4: 0}}
    session = cycov.measured(lines)
    assert session.report(show_missing=True) == 50.0
    session.get_data().close(force=True)    # a database in memory, which Python 3.13 wants closed
    assert "_ext/table.pxd" in (told := capsys.readouterr().out) and "2, 4" in told
