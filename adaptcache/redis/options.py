"""What people say about watching: `Adapt`, and which keys it is about. Plain values, validated here.

This file knows neither clients nor servers.
"""
from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from adaptcache.expiry import Learned

MODES = ("off", "observe", "release")


@dataclass(frozen=True)
class Adapt:
    """How a client of `adaptcache.redis` watches, and what it may do.

    mode        "observe": changes nothing on the server and reports what letting go earlier would save and risk.
                "release": unlinks keys that are not worth their memory, under the promise of `expiry`.
                "off": a plain redis-py client. `client.adapt.mode` switches at any time
    keys        patterns as of the command KEYS (`page:*`), in addition to the keys that have an expiry; `!session:*`
                takes keys out. The last pattern that matches decides, so ("!*", "page:*") is about pages alone.
                None: keys that have an expiry, without locks and counters (docs/dropin.md)
    expiry      what to learn and promise; without a `memory_price` twice an entry's own expiry is its break-even time (docs/release.md)
    near        a `NearCache`: single-key reads are answered in this process where they can be. None: never
    max_keys    keys followed at a time, at most; beyond it a sample of the keys stands for the rest
    fleet       name of a fleet on the same server: processes whose clients name the same one learn together (docs/fleet.md), and leave the
                fleet's own keys there, also in "observe". None: each learns by itself
    """

    mode: str = "observe"
    _: KW_ONLY
    keys: Sequence[str | bytes] | None = None
    expiry: Learned = field(default_factory=Learned)
    near: Any = None
    max_keys: int = 1 << 17
    fleet: str | None = None

    def __post_init__(self) -> None:
        check_mode(self.mode)
        if self.keys is not None:
            if isinstance(self.keys, (str, bytes)) or not isinstance(self.keys, Sequence):
                raise TypeError(f"keys: expected a sequence of patterns or None, got {type(self.keys).__name__}")
            for pattern in self.keys:
                if not isinstance(pattern, (str, bytes)):
                    raise TypeError(f"keys: expected patterns of str or bytes, got {type(pattern).__name__}")
            object.__setattr__(self, "keys", tuple(self.keys))
        if not isinstance(self.expiry, Learned):
            raise TypeError(f"expiry: expected Learned(...), got {type(self.expiry).__name__}")
        if self.near is not None:
            from adaptcache.near import NearCache

            if not isinstance(self.near, NearCache):
                raise TypeError(f"near: expected NearCache(...) or None, got {type(self.near).__name__}")
        if not isinstance(self.max_keys, int) or isinstance(self.max_keys, bool) or not 1 <= self.max_keys < 1 << 31:
            raise ValueError(f"max_keys: {self.max_keys!r} is not accepted; the accepted range is 1 to 2**31 - 1")
        if self.fleet is not None:
            from adaptcache.fleet.names import check_name

            check_name("fleet", self.fleet)

    @classmethod
    def parse(cls, given: Adapt | str | None) -> Adapt | None:
        """The keyword `adapt` of a client: an Adapt, a mode, or nothing."""
        if given is None or isinstance(given, Adapt):
            return given
        if isinstance(given, str):
            return cls(given)
        raise TypeError(f"adapt: expected Adapt(...), a mode or None, got {type(given).__name__}")


def check_mode(mode: object) -> str:
    if mode not in MODES:
        raise ValueError(f"mode: {mode!r} is not accepted; the accepted values are 'off', 'observe' and 'release'")
    return str(mode)


DEFAULT = Adapt()


class Scope:
    """Which keys the user named, and to which namespace a key belongs."""

    def __init__(self, patterns: Sequence[str | bytes] | None) -> None:
        self._named: list[tuple[re.Pattern[bytes], bool, str]] = []
        for given in reversed(patterns or ()):
            pattern = given.encode() if isinstance(given, str) else given
            wanted = not pattern.startswith(b"!")
            glob = pattern if wanted else pattern[1:]
            self._named.append((re.compile(_regex(glob), re.DOTALL), wanted, glob.decode(errors="backslashreplace")))

    def of(self, key: bytes) -> tuple[bool | None, str]:
        """Named, taken out, or neither (None), and the key's namespace: that pattern, or what is before the first colon."""
        for regex, wanted, text in self._named:
            if regex.fullmatch(key):
                return wanted, text
        head, colon, _ = key.partition(b":")
        return None, head.decode(errors="backslashreplace") + ":*" if colon else "*"


def _regex(glob: bytes) -> bytes:
    """A pattern of the command KEYS as a regular expression: * ? [abc] [^a] [a-z] and backslash."""
    out = b""
    at = 0
    while at < len(glob):
        one = glob[at:at + 1]
        at += 1
        if one == b"*":
            out += b".*"
        elif one == b"?":
            out += b"."
        elif one == b"[":
            end = at + (glob[at:at + 1] == b"^")
            members = b""
            while end < len(glob) and glob[end:end + 1] != b"]":
                if glob[end:end + 1] == b"\\" and end + 1 < len(glob):
                    end += 1
                    members += re.escape(glob[end:end + 1])
                elif glob[end + 1:end + 2] == b"-" and end + 2 < len(glob) and glob[end + 2:end + 3] != b"]":
                    low, high = sorted((glob[end:end + 1], glob[end + 2:end + 3]))
                    members += re.escape(low) + b"-" + re.escape(high)
                    end += 2
                else:
                    members += re.escape(glob[end:end + 1])
                end += 1
            negated = glob[at:at + 1] == b"^"
            at = end + 1
            if members:
                out += b"[" + (b"^" if negated else b"") + members + b"]"
            else:
                out += b"." if negated else b"(?!)"
        elif one == b"\\" and at < len(glob):
            out += re.escape(glob[at:at + 1])
            at += 1
        else:
            out += re.escape(one)
    return out
