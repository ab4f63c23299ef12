"""`Serializer`: values to envelopes and back; the codec, compression and the header put together.

Writing raises what a programmer should hear of. Reading raises nothing that is an Exception: whatever the bytes are, the answer is
an `Envelope` or an `Unreadable`.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Final, final

import msgspec

from adaptcache import checks
from adaptcache.wire import compression, header, schema
from adaptcache.wire.header import Header
from adaptcache.wire.plain import NATIVE, Plain
from adaptcache.wire.refusal import ANSWERS, Refused, Unreadable
from adaptcache.wire.registry import Registry
from adaptcache.wire.signing import Signed

# Codec numbers of version 1; each keeps its meaning for ever.
CUSTOM, MSGPACK, PICKLE = range(3)

LIMIT: Final = 16 << 20
LONGEST_NAME: Final = 100       # bytes


@final
class Envelope(msgspec.Struct, frozen=True):
    """What was read: a value, and what its writer said of it. True, whatever the value.

    birth, soft, hard   Unix seconds: when it was loaded, from when on to load it anew, from when on not to serve it. None or math.inf: never
    cost                what a miss costs, in the user's unit; 0.0 if that was not said
    digest              64 bits that stand for the value, or None
    version             of the format
    """

    value: Any
    birth: float
    soft: float | None
    hard: float | None
    cost: float
    digest: int | None
    version: int


class Serializer:
    """Values to bytes that other processes can read, now and in later versions, and back.

    codec           "msgpack", safe on bytes from anyone; `Signed(key)`, pickle for who has the key; or an object with
                    `dumps(value) -> bytes` and `loads(bytes) -> value`, as safe as it is itself. Its `name` (or `__name__`, or its class's name) is
                    written with each value, and must be the same where it is read
    compress_above  zstd for bodies of more bytes than this, where it saves a tenth at least; None: never
    types           dataclasses, NamedTuples, msgspec Structs, Enums and `Handler`s whose objects "msgpack" may write and read
    limit           bytes of the largest body, compressed or not, that is written or read

    Safe to use from several threads. TypeError and ValueError name the argument.
    """

    def __init__(
        self, codec: Any = "msgpack", compress_above: int | None = 1024, types: Iterable[Any] = (), *, limit: int = LIMIT,
    ) -> None:
        if compress_above is not None:
            compress_above = int(checks.number("compress_above", compress_above, "a number of bytes, zero or more, or None", 0, 1 << 62))
        self._limit = int(checks.number("limit", limit, "a number of bytes from 1 to 2**32 - 1025", 1, (1 << 32) - 1025))
        self._above = math.inf if compress_above is None else compress_above
        self._types = Registry(types)
        self._signed = codec if isinstance(codec, Signed) else None
        self._name = ""
        self._encode: Callable[[Any], bytes]
        self._decode: Callable[[Any], Any]
        if codec == "msgpack":
            plain = Plain(self._types)      # ValueError for types that it writes by itself
            self._codec, self._encode, self._decode = MSGPACK, plain.dumps, plain.loads
        elif self._signed is not None:
            self._codec, self._encode, self._decode = PICKLE, self._signed.dumps, self._signed.loads
        elif callable(getattr(codec, "dumps", None)) and callable(getattr(codec, "loads", None)):
            self._codec, self._encode, self._decode = CUSTOM, codec.dumps, codec.loads
            self._name = _name(codec)
        else:
            raise TypeError(f'codec: expected "msgpack", Signed(key) or an object with dumps and loads, got {codec!r:.60}')
        self._marks: dict[type, bytes] = dict.fromkeys((*NATIVE, bytes, list, dict, tuple, set, frozenset), b"")

    def __repr__(self) -> str:
        return f"Serializer({self._signed or self._name or 'msgpack'!r})"

    def dumps(
        self, value: Any, *, birth: float, soft: float | None = None, hard: float | None = None, cost: float = 0.0,
        digest: int | None = None, context: bytes = b"",
    ) -> bytes:
        """The envelope of a value.

        birth, soft, hard, cost, digest   see `Envelope`
        context     with `Signed`: what the value is for, such as its key; who reads must say the same

        TypeError: an object of a type that nobody registered, or an argument of a wrong type. ValueError: an argument
        out of range; "value too large"; nested too deeply. What a codec or Handler of the user's raises comes through.
        """
        if type(context) is not bytes:
            raise TypeError(f"context: expected bytes, got {type(context).__name__}")
        try:
            sound = header.sound(birth, soft, hard, cost) and (digest is None or (isinstance(digest, int) and 0 <= digest < 1 << 64))
        except TypeError:
            sound = False
        if not sound:
            _refuse(birth, soft, hard, cost, digest)
        body = self._encode(value)
        if self._codec == CUSTOM and type(body) is not bytes:
            if not isinstance(body, (bytes, bytearray, memoryview)):
                raise TypeError(f"codec: {self._name}.dumps returned {type(body).__name__}, expected bytes")
            body = bytes(body)
        if len(body) > self._limit:
            raise ValueError("value too large")
        flags = 0
        if len(body) > self._above:
            small = compression.shrunk(body)
            if small is not None:
                body = small
                flags = header.ZSTD
        sign = None
        signed = self._signed
        if signed is not None:
            def sign(covered: bytes, body: bytes) -> bytes:
                return signed.sign(context, covered, body)
        return header.write(body, self._codec, self._name, birth, soft, hard, cost, digest, self._mark(type(value)), flags, sign)

    def loads(self, data: bytes, *, context: bytes = b"") -> Envelope | Unreadable:
        """What was written, or why it cannot be read. Whatever the bytes, it raises nothing but what is no Exception, such as KeyboardInterrupt."""
        if type(context) is not bytes:
            raise TypeError(f"context: expected bytes, got {type(context).__name__}")
        try:
            if type(data) is not bytes:
                if not isinstance(data, (bytearray, memoryview)):
                    return ANSWERS["foreign"]
                data = bytes(data)
            head = header.read(data, self._limit + 1024)
            value = self._open(head, data, context)
        except Refused as refusal:
            return ANSWERS[refusal.reason]
        except (RecursionError, MemoryError):
            return ANSWERS["value"]     # nothing is made where there may be no room
        except Exception as error:
            return Unreadable("value", type(error).__name__)
        return Envelope(value, head.birth, head.soft, head.hard, head.cost, head.digest, head.version)

    def _open(self, head: Header, data: bytes, context: bytes) -> Any:
        """The body's value. Nothing of a body is looked at before its codec, signature and size are known to be good."""
        if head.codec != self._codec or head.name != self._name:
            raise Refused("codec")
        body = data[head.body:]
        if self._signed is not None:
            self._signed.check(head.signature, context, head.covered, body)
        if self._codec == MSGPACK and head.schema:
            self._types.of_mark(head.schema)
        if head.flags & header.ZSTD:
            body = compression.grown(body, self._limit)
        elif len(body) > self._limit:
            raise Refused("too large")
        value = self._decode(body)
        # Other codecs find classes by themselves, and may have filled one that is not what it was.
        if head.schema and self._codec != MSGPACK and self._mark(type(value)) not in (b"", head.schema):
            raise Refused("schema")
        return value

    def _mark(self, cls: type) -> bytes:
        """The schema's fingerprint of a value's type, b"" where it has none."""
        mark = self._marks.get(cls)
        if mark is None:
            kind = self._types.of_type(cls)
            if kind is not None:
                mark = kind.mark
            elif self._codec != MSGPACK and schema.kind(cls):
                mark = schema.mark(cls)
            else:
                return b""
            self._marks[cls] = mark
        return mark


def _name(codec: Any) -> str:
    name = getattr(codec, "name", None) or getattr(codec, "__name__", None) or type(codec).__qualname__
    if not isinstance(name, str):
        raise TypeError(f"codec: its name is {type(name).__name__}, expected str")
    if len(name.encode()) > LONGEST_NAME:
        raise ValueError(f"codec: its name takes more than {LONGEST_NAME} bytes")
    return name


def _refuse(birth: Any, soft: Any, hard: Any, cost: Any, digest: Any) -> None:
    """The error for the first argument that is not in order."""
    most = math.nextafter(math.inf, 0)
    checks.number("birth", birth, "finite Unix seconds", -most, most)
    for name, deadline in (("soft", soft), ("hard", hard)):
        if deadline is not None:
            checks.number(name, deadline, "Unix seconds, math.inf or None", -most, math.inf)
    checks.number("cost", cost, "a finite number, zero or more", 0.0, most)
    if digest is not None and not isinstance(digest, int):
        raise TypeError(f"digest: expected an int from 0 to 2**64 - 1 or None, got {type(digest).__name__}")
    raise ValueError(f"digest: {digest!r} is not accepted; the accepted range is 0 to 2**64 - 1, or None")
