"""A log of decisions as columns. Whatever is wrong with a file becomes a LogError that names file and line.

A last line that was cut off (a full disk, a killed process) is left out and mentioned; anything else that is not
as this version writes it is refused.
"""
from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptcache.decisionlog import OUTCOMES, VERSION, is_header
from adaptcache.errors import LogError
from adaptcache.explain import BOUNDS
from adaptcache.learn.predictor import APP, NAMES

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

# field -> (needed, may be null)
NUMBERS = {
    "id": False, "time": False, "accesses": False, "size": False, "cost": False, "price": False, "breakeven": True,
    "window": True, "ceiling": True, "let_go": True, "refused": True, "gone": True, "seen": False, "rent": False,
    "miss": False, "spared": False, "least": True,
}
KNOWN_BOUNDS = (*BOUNDS, "capacity")


@dataclass
class Log:
    """Waits in the order of their time, one row each; NaN is null. Ages are seconds since the wait began."""

    files: list[str]
    headers: list[dict[str, Any]]
    states: list[dict[str, Any]]
    notes: list[str]
    key: NDArray[np.int64]          # numbers; `keys` has the hashes
    keys: list[str]
    namespace: NDArray[np.int64]    # numbers; `namespaces` has the labels
    namespaces: list[str]
    bound: NDArray[np.str_]
    outcome: NDArray[np.str_]
    found: Bools
    premature: Bools
    columns: dict[str, Floats]
    features: dict[str, Floats] = field(default_factory=dict)   # the application's

    def __len__(self) -> int:
        return len(self.key)

    def __getattr__(self, name: str) -> Floats:
        try:
            return self.__dict__["columns"][name]   # type: ignore[no-any-return]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def asked(self) -> Bools:
        return np.asarray(self.outcome == "asked", np.bool_)

    @property
    def rate(self) -> Floats:
        """Rent a second."""
        return np.asarray(self.size * self.price)

    @property
    def held(self) -> Floats:
        """Seconds for which the value was there."""
        return np.where(np.isnan(self.gone), self.seen, self.gone)


def read(path: str | Path) -> Log:
    """The log at `path`, and the older file beside it that it grew out of, if there is one."""
    path = Path(path)
    older = path.with_name(path.name + ".1")
    files = [older, path] if older.exists() and path.exists() else [path]
    headers: list[dict[str, Any]] = []
    states: list[dict[str, Any]] = []
    notes: list[str] = []
    rows: list[tuple[int, dict[str, Any]]] = []
    for file in files:
        for number, line in _lines(file, notes):
            if "adaptcache" in line:
                if line.get("version") != VERSION:
                    raise LogError(f"{file}:{number}: has version {line.get('version')!r}, this adaptcache reads {VERSION}")
                headers.append(line)
            elif "state" in line:
                if not isinstance(line["state"], dict):
                    raise LogError(f"{file}:{number}: field 'state' is no object")
                states.append(line["state"])
            else:
                _check(file, number, line)
                rows.append((len(headers), line))
    return _columns([str(file) for file in files], headers, states, notes, rows)


def _lines(path: Path, notes: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise LogError(f"{path}: cannot be read ({error.strerror or error})") from error
    with file:
        for number, line in enumerate(file, 1):
            try:
                fields = json.loads(line)
                if not isinstance(fields, dict):
                    raise ValueError("is no object")
            except ValueError as error:
                if number > 1 and not line.endswith(b"\n"):
                    notes.append(f"{path}:{number}: the last line was cut off; it is left out")
                    return
                if number == 1:
                    raise LogError(f"{path}:1: is no log of decisions (Cache.log_decisions and "
                                   "`adaptcache simulate --log` write one)") from error
                raise LogError(f"{path}:{number}: is damaged ({error})") from error
            if number == 1 and not is_header(line):
                raise LogError(f"{path}:1: is no log of decisions (Cache.log_decisions and `adaptcache simulate --log` write one)")
            yield number, fields
        if file.tell() == 0:
            raise LogError(f"{path}:1: is empty; a log of decisions begins with a line that says so")


def _check(file: Path, number: int, line: dict[str, Any]) -> None:
    for name, null in NUMBERS.items():
        if name not in line:
            raise LogError(f"{file}:{number}: field {name!r} is missing")
        value = line[name]
        if value is None and null:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) \
                or (value < 0 and name != "time"):
            raise LogError(f"{file}:{number}: field {name!r} is {value!r}; expected a number of 0 or more{' or null' if null else ''}")
    for name, known in (("outcome", OUTCOMES), ("bound", KNOWN_BOUNDS)):
        if line.get(name) not in known:
            raise LogError(f"{file}:{number}: field {name!r} is {line.get(name)!r}; known are {', '.join(known)}")
    if not isinstance(line.get("key"), str) or not isinstance(line.get("namespace"), (str, type(None))):
        raise LogError(f"{file}:{number}: fields 'key' and 'namespace' are to be text (a namespace may be null)")
    if not isinstance(line.get("premature"), bool) or not isinstance(line.get("found"), (bool, type(None))):
        raise LogError(f"{file}:{number}: fields 'premature' and 'found' are to be true or false")
    features = line.get("features", {})
    if not isinstance(features, dict) or not all(isinstance(value, (int, float)) for value in features.values()):
        raise LogError(f"{file}:{number}: field 'features' is to map names to numbers")


def _columns(files: list[str], headers: list[dict[str, Any]], states: list[dict[str, Any]], notes: list[str],
             rows: list[tuple[int, dict[str, Any]]]) -> Log:
    # Runs one after the other: each has a timer, and a salt, of its own.
    runs = [header.get("run") for header in headers]
    first = {run: at for at, run in reversed(list(enumerate(runs)))}
    rows.sort(key=lambda row: (first[runs[row[0] - 1]], row[1]["time"], row[1]["id"]))
    lines = [line for _, line in rows]
    numbers: dict[str, int] = {}
    labels: dict[str, int] = {}
    key = [numbers.setdefault(f"{first[runs[at - 1]]}:{line['key']}", len(numbers)) for at, line in rows]
    namespace = [labels.setdefault(line["namespace"] or "(none)", len(labels)) for line in lines]
    names = {name for line in lines for name in line.get("features", ())} - set(NAMES[APP:])
    return Log(
        files=files, headers=headers, states=states, notes=notes,
        key=np.array(key, np.int64), keys=[text.split(":", 1)[1] for text in numbers],
        namespace=np.array(namespace, np.int64), namespaces=list(labels),
        bound=np.array([line["bound"] for line in lines], np.str_),
        outcome=np.array([line["outcome"] for line in lines], np.str_),
        found=np.array([bool(line["found"]) for line in lines], np.bool_),
        premature=np.array([line["premature"] for line in lines], np.bool_),
        columns={name: np.array([math.nan if line[name] is None else line[name] for line in lines], np.float64)
                 for name in NUMBERS},
        features={name: np.array([line.get("features", {}).get(name, math.nan) for line in lines], np.float64)
                  for name in sorted(names)},
    )
