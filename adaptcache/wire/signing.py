"""`Signed`: pickle, on request only, and read only after its signature was found good.

HMAC-SHA256 (RFC 2104) over the header, the caller's context and the body, so that neither a deadline nor the value can be
changed, nor a value be moved under another key where the caller gives the key as the context. It does not stop who can
write to the store from putting back an older value that was signed for the same key: deadlines, which are signed, do.
"""
from __future__ import annotations

import hmac
import pickle
from collections.abc import Iterable
from hashlib import sha256
from typing import Any, Final

from adaptcache.wire.refusal import Refused

SHORTEST: Final = 16        # bytes of a key
_DOMAIN: Final = b"adaptcache envelope\0"


class Signed:
    """Values as pickles, signed with a secret key.

    key       at least 16 bytes (`secrets.token_bytes(32)`); or several: the first signs, any of them is good for reading
    protocol  pickle's

    Who has the key can run code in whoever reads; who has not is refused before anything of theirs is unpickled.
    TypeError or ValueError if a key is not bytes, or is too short.
    """

    __slots__ = ("_readers", "protocol")

    def __init__(self, key: bytes | Iterable[bytes], *, protocol: int = 5) -> None:
        keys: list[Any] = [key] if isinstance(key, (bytes, bytearray, memoryview, str)) else list(key)
        if not keys:
            raise ValueError("key: none given; expected bytes, or several, the first of which signs")
        for one in keys:
            if not isinstance(one, (bytes, bytearray, memoryview)):
                raise TypeError(f"key: expected bytes, got {type(one).__name__}")
            if memoryview(one).nbytes < SHORTEST:
                raise ValueError(f"key: {memoryview(one).nbytes} bytes are too few; the accepted range is {SHORTEST} bytes or more")
        if isinstance(protocol, bool) or not isinstance(protocol, int) or not 0 <= protocol <= pickle.HIGHEST_PROTOCOL:
            raise ValueError(f"protocol: {protocol!r} is not accepted; the accepted range is 0 to {pickle.HIGHEST_PROTOCOL}")
        self._readers: Final = tuple(hmac.new(bytes(one), _DOMAIN, sha256) for one in keys)
        self.protocol: Final = protocol

    def __repr__(self) -> str:
        return f"Signed({len(self._readers)} key{'s' * (len(self._readers) > 1)})"    # the keys stay out of logs

    def __reduce__(self) -> Any:
        raise TypeError("a Signed holds secret keys and is not pickled; make it anew where it is needed")

    def dumps(self, value: Any) -> bytes:
        return pickle.dumps(value, self.protocol)

    def sign(self, context: bytes, covered: bytes, body: bytes) -> bytes:
        """The signature by the first key."""
        return _signature(self._readers[0], context, covered, body)

    def check(self, signature: bytes, context: bytes, covered: bytes, body: bytes) -> None:
        """Refused unless one of the keys signed this."""
        good = False
        for reader in self._readers:
            good |= hmac.compare_digest(_signature(reader, context, covered, body), signature)
        if not good:
            raise Refused("signature")

    def loads(self, body: bytes) -> Any:
        """Only ever what `check` let pass."""
        return pickle.loads(body)


def _signature(begun: hmac.HMAC, context: bytes, covered: bytes, body: bytes) -> bytes:
    one = begun.copy()
    one.update(len(context).to_bytes(8, "little") + context + len(covered).to_bytes(8, "little") + covered)
    one.update(body)
    return one.digest()
