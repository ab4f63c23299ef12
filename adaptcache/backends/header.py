"""What stands before each value's bytes: its generation, an id of this very write, and the versions of its tags.

    AC 01 | generation 8 | id 8 | number of tags 1 | for each: length 2, tag, version 8

`scripts` reads the generation and the id by position, so these never move. Generations and versions are random, not
counted: a counter that the server lost and began anew would come by the old numbers again, and values long invalid with
it. Parsing takes any bytes and raises nothing.
"""
from __future__ import annotations

import os
from collections.abc import Iterable

MAGIC = b"\xac\x01"
TOKEN = 8
TAGS = 255              # of one value, at most
LONGEST_TAG = 512       # bytes


class Header:
    """A header that was read: `size` bytes long."""

    __slots__ = ("generation", "id", "size", "tags")

    def __init__(self, generation: bytes, id_: bytes, tags: tuple[tuple[str, bytes], ...], size: int) -> None:
        self.generation = generation
        self.id = id_
        self.tags = tags
        self.size = size


def token() -> bytes:
    return os.urandom(TOKEN)


def pack(generation: bytes, tags: Iterable[tuple[str, bytes]] = ()) -> bytes:
    parts = [MAGIC, generation, token(), b""]
    count = 0
    for tag, version in tags:
        name = tag.encode()
        parts += (len(name).to_bytes(2, "big"), name, version)
        count += 1
    parts[3] = bytes((count,))
    return b"".join(parts)


def id_of(data: bytes) -> bytes:
    """The id where a header has it, whatever these bytes are: how a script is told which write was seen."""
    return data[10:18]


def unpack(data: bytes) -> Header | None:
    """The header before a value, or None where there is none that this version reads."""
    if data[:2] != MAGIC or len(data) < 19:
        return None
    at, tags = 19, []
    for _ in range(data[18]):
        end = at + 2 + int.from_bytes(data[at:at + 2], "big")
        version = data[end:end + TOKEN]
        if len(version) < TOKEN:
            return None
        try:
            tags.append((data[at + 2:end].decode(), version))
        except UnicodeDecodeError:
            return None
        at = end + TOKEN
    return Header(data[2:10], data[10:18], tuple(tags), at)
