"""Saved state: a file that is whole, ours and of this version, or refused.

A first line names the format and its version, a second one is the SHA-256 of the rest, which is JSON; tables of the
core travel as base64. Entries, if asked for, are pickled: load them only from files that you wrote yourself.
Files are written beside their name and moved into place, so a crash leaves the old one or the new one.
"""
from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import pickle
import tempfile
from pathlib import Path
from typing import Any

from adaptcache.errors import StateError

MAGIC = b"adaptcache state 1\n"


def write(path: str | os.PathLike[str], learned: dict[str, Any] | None, entries: list[Any] | None) -> None:
    """Write learned state (as `Brain.state` gives it) and entries; OSError when the disk says no."""
    document = {
        "learned": None if learned is None else {name: _plain(value) for name, value in learned.items()},
        "entries": None if entries is None else base64.b64encode(pickle.dumps(entries)).decode(),
    }
    body = json.dumps(document).encode()
    target = Path(path)
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise


def read(path: str | os.PathLike[str], *, entries: bool) -> tuple[dict[str, Any] | None, list[Any] | None]:
    """Learned state and, if asked for, entries. StateError names the file and what is wrong with it."""
    data = Path(path).read_bytes()
    if not data.startswith(b"adaptcache state "):
        raise StateError(f"{path}: not a state of adaptcache")
    if not data.startswith(MAGIC):
        found = data.split(b"\n", 1)[0][:40].decode("ascii", "replace")
        raise StateError(f"{path}: has format {found!r}, this version reads {MAGIC.decode().strip()!r}")
    digest, _, body = data[len(MAGIC):].partition(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise StateError(f"{path}: damaged, the checksum does not fit its {len(body)} bytes")
    try:
        document = json.loads(body)
        learned, stored = document["learned"], document["entries"]
        state = None if learned is None else {name: _rich(value) for name, value in learned.items()}
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error) as error:
        raise StateError(f"{path}: not a state that this version wrote ({error})") from error
    if not entries:
        return state, None
    if stored is None:
        raise StateError(f"{path}: was saved without entries; load it with entries=False")
    return state, pickle.loads(base64.b64decode(stored))


def _plain(value: Any) -> Any:
    return {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def _rich(value: Any) -> Any:
    return base64.b64decode(value["base64"], validate=True) if isinstance(value, dict) else value
