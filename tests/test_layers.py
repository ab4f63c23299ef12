"""Imports go one way; docs/architecture.md draws the map that this file enforces."""
import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import adaptcache

ROOT = Path(adaptcache.__file__).parent
LAYERS = [
    {"errors", "checks", "keys", "removal", "expiry", "stats", "digests", "sizes"},
    {"learn"},
    {"flights", "background", "wire"},
    {"mapping", "copying", "decisionlog", "recording", "tapefile", "explain", "refresh", "state", "decorators", "lru",
     "ledger", "release", "near", "backends"},
    {"redis", "fleet", "compat", "simulate", "demo", "doctor", "advise", "cli", "__main__", "__init__"},
]
# What is there only with an extra of its own, and imported when it is asked for.
EXTRAS = {"wire", "near", "backends", "redis", "fleet", "release.py", "simulate", "demo", "doctor", "advise", "cli.py"}
# Third parties that only these rooms, files or folders, may know.
ROOMS = {
    "river": {"learn/compiled.py", "learn/river_models.py"},
    "click": {"cli.py"},
    "redis": {"release.py", "near", "backends", "redis", "fleet", "demo/fleet.py"},
    "msgspec": {"wire"},
    "zstandard": {"wire", "simulate", "fleet"},
}


def modules():
    return sorted(path for path in ROOT.rglob("*.py"))


def imports(path):
    """Names of the modules that a file imports, ours as paths below the package."""
    package = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                base = ["adaptcache", *package[: len(package) - node.level + 1]]
                stem = ".".join([*base, *([node.module] if node.module else [])])
            else:
                stem = node.module or ""
            yield stem
            for alias in node.names:
                yield f"{stem}.{alias.name}"


def layer(room):
    return next((number for number, rooms in enumerate(LAYERS) if room in rooms), None)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_its_own_layer_and_those_below(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    here = layer(parts[0])
    assert here is not None, f"{parts[0]} has no place in the map: add it to docs/architecture.md and here"
    if parts[0] == "__init__":
        return
    for name in imports(path):
        ours = name.split(".")
        if ours[0] == "adaptcache" and len(ours) > 1 and (there := layer(ours[1])) is not None:
            assert there <= here, f"{path.name} reaches up to {name}"


def test_the_modules_of_backends_import_one_another_in_one_direction():
    """What a module imports when it is imported; what it asks for later, in a function, may look back."""
    graph = {}
    for path in sorted((ROOT / "backends").glob("*.py")):
        graph[path.stem] = {node.module.removeprefix("adaptcache.backends.") for node in ast.parse(path.read_text()).body
                            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("adaptcache.backends.")}
    TopologicalSorter(graph).prepare()      # CycleError names the circle


@pytest.mark.parametrize("library", ROOMS)
def test_a_library_is_known_only_in_its_room(library):
    knowing = {path.relative_to(ROOT) for path in modules() for name in imports(path) if name.split(".")[0] == library}
    assert not {str(path) for path in knowing if str(path) not in ROOMS[library] and path.parts[0] not in ROOMS[library]}


def test_the_plain_import_needs_no_extra():
    """What `import adaptcache` reaches must be there with the runtime dependencies alone."""
    extras = {"click", "rich", "matplotlib", "jinja2", "redis", "msgspec", "zstandard", "prometheus_client"}
    for path in modules():
        if path.relative_to(ROOT).parts[0] in EXTRAS:
            continue
        assert not {name.split(".")[0] for name in imports(path)} & extras, path


def test_who_does_not_need_them_does_not_wait_for_river_and_redis():
    """River brings scipy: a second or more, for every process that imports the library."""
    code = """
import sys
import adaptcache
cache = adaptcache.Cache(2, expiry=adaptcache.Fixed(60))
cache["a"] = adaptcache.cached(adaptcache.lru_cache(abs))(-1)
assert cache["a"] == 1 and not {"river", "scipy", "pandas", "redis", "msgspec"} & set(sys.modules), "plain"
adaptcache.Cache(2, expiry=adaptcache.Learned(learner="manual", seed=1)).learn()
assert "river" in sys.modules, "learned"
"""
    subprocess.run([sys.executable, "-P", "-c", code], check=True)
