"""Saved state: a file that is whole, ours and of this version, or refused.

A first line names the format and its version, a second one is the SHA-256 of the rest, which is JSON: what was
learned (learn/knowledge.py says what that is, and checks it) and the entries, if asked for. Entries are pickled: load
them only from files that you wrote yourself. Nothing else in the file is code.
Files are written beside their name and moved into place, so a crash leaves the old one or the new one.
"""
from __future__ import annotations

import base64
import hashlib
import json
import os
import pickle
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from adaptcache.errors import StateError
from adaptcache.learn import knowledge, merging, migrating
from adaptcache.learn.knowledge import Knowledge

Name = str | os.PathLike[str]

MAGIC = b"adaptcache state 4\n"
BEFORE = {b"adaptcache state 2\n": migrating.from_2, b"adaptcache state 3\n": migrating.from_3}        # also read

Entry = tuple[Any, Any, float, bool]    # key, value, seconds left, and whether the user said so


def packed(learned: Knowledge | None, entries: list[Entry] | None) -> bytes:
    """What was learned, and entries, as a file holds them."""
    document = {
        "learned": None if learned is None else learned.document(),
        "entries": None if entries is None else base64.b64encode(pickle.dumps(entries)).decode(),
    }
    body = json.dumps(document, allow_nan=False).encode()
    return MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def write(path: Name, learned: Knowledge | None, entries: list[Entry] | None) -> None:
    """Write what was learned, and entries; OSError when the disk says no."""
    data = packed(learned, entries)
    target = Path(path)
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def read(path: Name, *, entries: bool = False) -> tuple[Knowledge | None, list[Entry] | None]:
    """What was learned and, if asked for, entries. StateError names the file and what is wrong with it."""
    return unpacked(Path(path).read_bytes(), path, entries=entries)


def unpacked(data: bytes, path: Name, *, entries: bool = False) -> tuple[Knowledge | None, list[Entry] | None]:
    """`read` of what `packed` gave; `path`: what errors call it."""
    if not data.startswith(b"adaptcache state "):
        raise StateError(f"{path}: not a state of adaptcache")
    if not data.startswith((MAGIC, *BEFORE)):
        found = data.split(b"\n", 1)[0][:40].decode("ascii", "replace")
        raise StateError(f"{path}: has format {found!r}, this version reads {MAGIC.decode().strip()!r}; learn anew")
    digest, _, body = data[len(MAGIC):].partition(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise StateError(f"{path}: damaged, the checksum does not fit its {len(body)} bytes")
    try:
        document = json.loads(body)
        learned, stored = document["learned"], document["entries"]
        if learned is not None and data[:len(MAGIC)] in BEFORE:
            learned = BEFORE[data[:len(MAGIC)]](learned)
        state = None if learned is None else knowledge.read(learned)
        if not entries:
            return state, None
        if stored is None:
            raise StateError(f"{path}: was saved without entries; load it with entries=False")
        pickled = base64.b64decode(stored, validate=True)
    except StateError:
        raise
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise StateError(f"{path}: not a state that this version can read: {error}") from error
    try:
        held = pickle.loads(pickled)
        if data.startswith(b"adaptcache state 2\n"):     # which did not say who had set how long an entry lasts
            held = [(key, value, left, False) for key, value, left in held]
        held = [(key, value, float(left), bool(declared)) for key, value, left, declared in held]
    except Exception as error:      # a pickle may raise anything
        raise StateError(f"{path}: its entries cannot be read here: {error!r}") from error
    return state, held


def read_all(paths: Name | Iterable[Name]) -> list[Knowledge]:
    """What was learned in each of these files. StateError for the first that is no good, or has learned nothing."""
    given = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    states = []
    for path in given:
        learned, _ = read(path)
        if learned is None:
            raise StateError(f"{path}: of a cache that does not learn; there is nothing to merge")
        states.append(learned)
    return states


def merge(paths: Name | Iterable[Name], out: Name) -> None:
    """Merge the learned states of several workers into the file `out`, as if one had seen it all.

    The order does not matter. Entries are left out. StateError for a file that `Cache.load` would refuse, or when
    two were learned under different predictors, windows or prices; `out` is untouched then. A state that was
    merged already and is merged again counts twice. docs/state.md says what a merge means.
    """
    states = read_all(paths)
    if not states:
        raise ValueError("paths: none given; the accepted range is one file or more")
    write(out, together(states, str(out)), None)


def together(states: list[Knowledge], name: str) -> Knowledge:
    """`merging.merged`, with a StateError where they do not fit."""
    try:
        return merging.merged(states)
    except ValueError as error:
        raise StateError(f"{name}: the states were {error}") from error
