"""RESP3 as it comes in pieces: bytes are fed, whole replies and pushes come out. No socket, no meaning.

What has been read of a message is kept in open frames, so a push of a million keys that arrives in a thousand pieces is
read once. Maps are dicts (lists where a key is not hashable), sets are lists, errors are `Failure`s; attributes are
dropped. A stream that is not RESP raises `Garbled`, and there is no going on after it.
"""
from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

DEEPEST = 32
LONGEST_LINE = 1 << 16
LONGEST = 512 << 20


class Garbled(ValueError):
    """Bytes that are not RESP."""


class Failure(str):
    """An error reply: code and message."""


class Push(list[Any]):
    """A message that nobody asked for; the first item is its kind."""


class _Frame:
    __slots__ = ("items", "kind", "left")

    def __init__(self, kind: int, left: int) -> None:
        self.kind = kind
        self.left = left
        self.items: list[Any] = []

    def whole(self) -> Any:
        if self.kind == PUSH:
            return Push(self.items)
        if self.kind == MAP:
            pairs = list(zip(self.items[::2], self.items[1::2], strict=True))
            try:
                return dict(pairs)
            except TypeError:
                return pairs
        return self.items


SIMPLE, ERROR, INTEGER, BIG, NULL, DOUBLE, BOOLEAN = b"+-:(_,#"
BULK, VERBATIM, LONG_ERROR = BODIED = b"$=!"
ARRAY, SET, MAP, PUSH, ATTRIBUTE = MANY = b"*~%>|"
# Nearly all that a tracking connection says, and read in a third of the time: one key is invalid.
USUAL = re.compile(rb">2\r\n\$10\r\ninvalidate\r\n\*1\r\n\$([0-9]{1,8})\r\n")
_INCOMPLETE: Any = object()


class Reader:
    """Iterating gives what is whole by now."""

    def __init__(self) -> None:
        self._buffer = b""
        self._at = 0
        self._frames: list[_Frame] = []

    def feed(self, data: bytes) -> None:
        self._buffer = self._buffer[self._at:] + data
        self._at = 0

    def __iter__(self) -> Iterator[Any]:
        frames = self._frames
        while True:
            if not frames and (usual := USUAL.match(self._buffer, self._at)):
                start = usual.end()
                end = start + int(usual[1])
                if len(self._buffer) < end + 2:
                    return
                self._at = end + 2
                yield Push((b"invalidate", [self._buffer[start:end]]))
                continue
            item = self._scalar()
            if item is _INCOMPLETE:
                return
            if item.__class__ is _Frame:
                frames.append(item)
                if item.left:
                    if len(frames) > DEEPEST:
                        raise Garbled(f"nested more than {DEEPEST} deep")
                    continue
                item = frames.pop()
                if item.kind == ATTRIBUTE:
                    continue
                item = item.whole()
            # Into the frame that is open, and what becomes whole by that into the next.
            while frames:
                frame = frames[-1]
                frame.items.append(item)
                frame.left -= 1
                if frame.left:
                    break
                frames.pop()
                if frame.kind == ATTRIBUTE:
                    break
                item = frame.whole()
            else:
                yield item

    def _scalar(self) -> Any:
        """The next line, with its body: a value, or a frame that opens."""
        buffer, at = self._buffer, self._at
        end = buffer.find(b"\r\n", at)
        if end < 0:
            if len(buffer) - at > LONGEST_LINE:
                raise Garbled("a line without an end")
            return _INCOMPLETE
        if end == at:
            raise Garbled("an empty line")
        kind, rest = buffer[at], buffer[at + 1:end]
        after = end + 2
        try:
            if kind in BODIED:
                length = int(rest)
                if not 0 <= length <= LONGEST:
                    if length != -1:
                        raise Garbled(f"a length of {length}")
                    self._at = after
                    return None
                if len(buffer) < after + length + 2:
                    return _INCOMPLETE
                body = buffer[after:after + length]
                self._at = after + length + 2
                if kind == LONG_ERROR:
                    return Failure(body.decode(errors="replace"))
                return body[4:] if kind == VERBATIM else body
            self._at = after
            if kind in MANY:
                count = int(rest)
                if count == -1:
                    return None
                if not 0 <= count <= LONGEST:
                    raise Garbled(f"a count of {count}")
                return _Frame(kind, 2 * count if kind in (MAP, ATTRIBUTE) else count)
            if kind == SIMPLE:
                return rest
            if kind == ERROR:
                return Failure(rest.decode(errors="replace"))
            if kind in (INTEGER, BIG):
                return int(rest)
            if kind == NULL:
                return None
            if kind == DOUBLE:
                return float(rest)
            if kind == BOOLEAN:
                return rest == b"t"
        except ValueError as error:
            raise Garbled(str(error)) from None
        raise Garbled(f"a message of kind {chr(kind)!r}")


def pack(*words: bytes) -> bytes:
    """A command."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
