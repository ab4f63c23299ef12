"""The file of finished cells: one JSON object a line, written as soon as its cell is finished, and never changed again.

A line is the result's fields after `cell`, a fingerprint of all that decides the result: the content of the trace, the
cell, the options, the version of this package and its compiled core. So a file may serve several grids, and a result
is found again only by who would compute the same. What JSON cannot say (infinity) is a string.
"""
from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from functools import cache
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np

import adaptcache
from adaptcache import _core
from adaptcache.errors import ResultsError
from adaptcache.simulate.run import EvictionResult, ExpiryResult, Result
from adaptcache.simulate.trace import DTYPES, Trace

BEGINS: Final = b'{"cell": "'
NAMES: Final = ("trace", "policy", "expiry")


class ResultsFile:
    """Opened for one run at a time. `found` holds what earlier runs finished, by fingerprint.

    ResultsError where the file is not one of these, or is in use. A last line that was cut short is taken away.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.found: dict[str, Result] = {}
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            self._lock()
            self._read()
        except BaseException:
            os.close(self._fd)
            raise

    def __enter__(self) -> ResultsFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self._fd)

    def add(self, cell: str, result: Result) -> None:
        """It is on the disk when this returns. Nothing is done for a cell that is in the file."""
        if cell in self.found:
            return
        line = (encode(cell, result) + "\n").encode()
        while line:
            line = line[os.write(self._fd, line):]
        self.found[cell] = result       # it may be interrupted in the next line, and then told once more
        os.fsync(self._fd)

    def _lock(self) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ResultsError(f"{self.path}: another run is writing to it; give each its own file") from error

    def _read(self) -> None:
        content = self.path.read_bytes()
        *lines, rest = content.split(b"\n")
        for number, line in enumerate(lines, 1):
            try:
                values = json.loads(line)
                cell = values.pop("cell")
            except (ValueError, AttributeError, KeyError, TypeError) as error:
                raise ResultsError(f"{self.path}: line {number} is no finished cell of an experiment; "
                                   "name a new file, or one that an experiment wrote") from error
            result = decode(values)
            if result is not None:
                self.found[cell] = result
        if rest:
            if not (rest.startswith(BEGINS) or BEGINS.startswith(rest)):
                raise ResultsError(f"{self.path}: line {len(lines) + 1} is no finished cell of an experiment; "
                                   "name a new file, or one that an experiment wrote")
            os.ftruncate(self._fd, len(content) - len(rest))


def encode(cell: str, result: Result) -> str:
    optional = {field.name for field in fields(result) if field.default is not MISSING}
    values = {name: value for name, value in asdict(result).items() if value is not None or name not in optional}
    return json.dumps({"cell": cell} | {
        name: str(value) if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
    })


def decode(values: dict[str, Any]) -> Result | None:
    """None where the fields are those of another version."""
    values = {name: float(value) if isinstance(value, str) and name not in NAMES else value for name, value in values.items()}
    if values.get("timeline") is not None:
        values["timeline"] = {name: tuple(parts) for name, parts in values["timeline"].items()}
    kind: type[EvictionResult] | type[ExpiryResult] = EvictionResult if "policy" in values else ExpiryResult
    if values.keys() - {field.name for field in fields(kind)}:
        return None
    try:
        return kind(**values)
    except TypeError:       # a field that every result has today is missing
        return None


# Fingerprints

def fingerprint(trace: str, call: Mapping[str, Any]) -> str:
    """Of one cell; `trace` is the digest of its trace, `call` what `simulate` is told besides."""
    said = json.dumps([trace, adaptcache.__version__, _core_digest(), dict(sorted(call.items()))])
    return blake2b(said.encode(), digest_size=16).hexdigest()


def digest_of_trace(trace: Trace) -> str:
    """Of the name and every column."""
    hasher = blake2b(trace.name.encode(errors="surrogateescape"), digest_size=16)
    columns = {name: getattr(trace, name) for name in DTYPES}
    columns |= {f"feat_{name}": values for name, values in trace.features.items()}
    for name, values in columns.items():
        if values is not None:
            hasher.update(f"\0{name}\0{values.dtype.str}\0{len(values)}\0".encode())
            hasher.update(np.ascontiguousarray(values).data)
    return hasher.hexdigest()


def digest_of_file(path: str | os.PathLike[str]) -> str:
    """Of the name, which results carry, and of every byte. OSError where it cannot be read."""
    hasher = blake2b(Path(path).name.encode(errors="surrogateescape"), digest_size=16)
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            hasher.update(piece)
    return hasher.hexdigest()


@cache
def _core_digest() -> str:
    return digest_of_file(_core.__file__)
