"""README runs as printed: its Python blocks, and its commands exist under the names it uses."""
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_every_python_block_runs(capsys, valkey):
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 2
    for block in blocks:
        scope = {"expensive_query": lambda tenant, day: (tenant, day)}
        exec(compile(block.replace("redis://localhost:6379", valkey.url), "README.md", "exec"), scope)
        if "report" in scope:
            assert scope["report"]("acme", 3) == ("acme", 3)
        if "shared" in scope:
            with valkey.client() as client:
                assert client.dbsize() > 0
            scope["shared"].close()
    assert "<=" in capsys.readouterr().out


def test_the_commands_it_names_are_there():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"make ([a-z-]+)", README))
    assert {"demo", "test"} <= named <= targets


def test_the_files_it_links_are_there():
    for target in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (ROOT / target).exists(), target


def test_nobody_is_sent_to_the_package_of_that_name_on_pypi():
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "adaptcache").rglob("*.py")]:
        assert not re.search(r"pip install '?adaptcache", path.read_text()), path
