"""Where things lie on the server: names of values, leases, waiters, generations and tags.

    PREFIX:SPACE:{BUCKET}:v:KEY     a value (`header`, then the serializer's bytes)
    PREFIX:SPACE:{BUCKET}:l:KEY     the lease of who loads it
    PREFIX:SPACE:{BUCKET}:w:KEY     the set of those who wait for that load
    PREFIX:SPACE:{BUCKET}:g         the generation: values of another one are not there
    PREFIX::TAG                     the version of a tag: values that carry another one are not there

The braces are a Cluster's hash tag: a key, its lease and its generation lie in one slot, so that one command reads and
one script changes all of them. On one server there is one bucket; in a Cluster there are BUCKETS, each with a generation
of its own, so that keys spread over the nodes and clearing a space is still a fixed number of small writes.
"""
from __future__ import annotations

from zlib import crc32

BUCKETS = 256


class Name:
    """The names of one key."""

    __slots__ = ("_code", "_head", "generation", "value")

    def __init__(self, head: bytes, code: bytes) -> None:
        self._head = head
        self._code = code
        self.generation = head + b"g"
        self.value = head + b"v:" + code

    @property
    def lease(self) -> bytes:
        return self._head + b"l:" + self._code

    @property
    def waiters(self) -> bytes:
        return self._head + b"w:" + self._code


class Names:
    """The names of one space."""

    def __init__(self, prefix: str, space: str, cluster: bool) -> None:
        self.prefix = prefix.encode()
        self.space = space
        self.root = b"%s:%s:" % (self.prefix, space.encode())
        count = BUCKETS if cluster else 1
        self._heads = [b"%s{%x}:" % (self.root, bucket) for bucket in range(count)]
        self.generations = [head + b"g" for head in self._heads]
        self._values = [head + b"v:" for head in self._heads]
        self._count = count

    def of(self, code: bytes) -> Name:
        return Name(self._heads[crc32(code) % self._count if self._count > 1 else 0], code)

    def pair(self, code: bytes) -> tuple[bytes, bytes]:
        """`value` and `generation` of a key's names: all that a hit in this process needs."""
        at = crc32(code) % self._count if self._count > 1 else 0
        return self._values[at] + code, self.generations[at]

    @property
    def beginnings(self) -> tuple[bytes, bytes]:
        """What the names of this space, and those of tags, begin with; none of them begins another space's."""
        return self.root + b"{", self.prefix + b"::"

    def tag(self, tag: str) -> bytes:
        return b"%s::%s" % (self.prefix, tag.encode())


def route(key: bytes) -> bytes | None:
    """The root of the space that a name belongs to; None for a tag's, which concerns all spaces."""
    root, brace, _ = key.partition(b"{")
    return root if brace and b"::" not in root else None


def check(argument: str, text: str) -> str:
    """A prefix or a space's name: it must not hold what gives names their shape."""
    if not isinstance(text, str):
        raise TypeError(f"{argument}: expected a string, got {type(text).__name__}")
    if not text or (any(sign in text for sign in ":{}") and argument == "prefix") or any(sign in text for sign in "{}") or \
            (argument != "prefix" and text.startswith(":")):
        raise ValueError(f"{argument}: {text!r} is not accepted; the accepted range is one or more characters, none of them a brace"
                         + (" or a colon" if argument == "prefix" else ", the first no colon"))
    return text
