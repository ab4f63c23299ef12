"""A published model: what was learned, whole and checked, or refused with the reason.

The body is a state as `adaptcache.state` writes it, compressed; one line before it says which model it is, and a SHA-256 is
over both, so a body that does not belong to its number is noticed too. Nothing in it is code. Reading one costs no more than
MOST_BYTES, whatever it says.
"""
from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import asdict, dataclass
from typing import Any

from adaptcache import state
from adaptcache.errors import StateError
from adaptcache.learn.knowledge import Knowledge
from adaptcache.learn.packing import a_number

try:        # the extra `traces` or `redis` may have brought it
    import zstandard
except ImportError:
    zstandard = None  # type: ignore[assignment]

MAGIC = b"adaptcache fleet model 1\n"
MOST_BYTES = 1 << 26        # of a model, packed or unpacked


@dataclass(frozen=True)
class About:
    """Which model it is. Models are ordered by (fence, version)."""

    fence: int
    version: int
    made: float         # Unix time, the server's
    events: int         # that it was learned from
    position: str       # id of the batch in the stream up to which all is in it
    index: int          # how many batches that were, since the stream began
    read: str           # id of the last batch of which anything is in it
    upto: float         # of batches between those two, all events up to this time are in it
    rules: str          # of the fleet: see `Configuration.rules`

    @property
    def order(self) -> tuple[int, int]:
        return self.fence, self.version


def dumps(known: Knowledge, about: About) -> bytes:
    """ValueError when it is larger than anybody would read."""
    body = state.packed(known, None)
    codec = "zlib" if zstandard is None else "zstd"
    packed = zlib.compress(body, 6) if zstandard is None else zstandard.ZstdCompressor(level=3).compress(body)
    if max(len(body), len(packed)) > MOST_BYTES:
        raise ValueError(f"the model has {len(body):,} bytes, and {MOST_BYTES:,} are the most that travel")
    rest = json.dumps({**asdict(about), "codec": codec, "size": len(body)}).encode() + b"\n" + packed
    return MAGIC + hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest


def loads(data: Any) -> tuple[Knowledge, About]:
    """StateError says what is wrong; nothing of a model is believed before all of it was checked."""
    if not isinstance(data, bytes) or not data.startswith(b"adaptcache fleet model "):
        raise StateError("model: not a model of adaptcache")
    if not data.startswith(MAGIC):
        found = data.split(b"\n", 1)[0][:40].decode("ascii", "replace")
        raise StateError(f"model: has format {found!r}, this version reads {MAGIC.decode().strip()!r}")
    digest, _, rest = data[len(MAGIC):].partition(b"\n")
    if len(data) > MOST_BYTES or hashlib.sha256(rest).hexdigest().encode() != digest:
        raise StateError(f"model: damaged, the checksum does not fit its {len(rest)} bytes")
    head, _, packed = rest.partition(b"\n")
    try:
        said = json.loads(head)
        codec, size = said.pop("codec"), int(a_number(said.pop("size"), 0, MOST_BYTES, "size"))
        about = About(**said)
        for name in ("fence", "version", "events", "index"):
            a_number(getattr(about, name), 0, 1e15, name)
        a_number(about.made, 0, 1e12, "made")
        a_number(about.upto, -1e12, 1e12, "upto")
        if not isinstance(about.rules, str):
            raise ValueError("rules: not a name")
        _position(about.position)
        _position(about.read)
        body = _inflated(codec, packed, size)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, zlib.error) as error:
        raise StateError(f"model: not one that this version can read: {error}") from error
    known, _ = state.unpacked(body, "model")
    if known is None:
        raise StateError("model: of a cache that does not learn")
    return known, about


def _inflated(codec: str, packed: bytes, size: int) -> bytes:
    if codec == "zlib":
        inflate = zlib.decompressobj()
        body = inflate.decompress(packed, size + 1)
        if not inflate.eof:
            raise ValueError("larger than it says")
    elif codec == "zstd":
        if zstandard is None:
            raise ValueError("compressed by zstd, and zstandard is not installed here")
        try:
            body = zstandard.ZstdDecompressor().decompress(packed, max_output_size=size)
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from error
    else:
        raise ValueError(f"codec {codec!r:.20}")
    if len(body) != size:
        raise ValueError("not of the size that it says")
    return body


def _position(said: Any) -> None:
    parts = said.split("-") if isinstance(said, str) else []
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() and len(part) <= 20 for part in parts):
        raise ValueError(f"position: {said!r:.40} is not an id of a stream")
