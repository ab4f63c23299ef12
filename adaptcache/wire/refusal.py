"""Why bytes were not read: a fixed, short vocabulary, so that refusals can be counted.

`Refused` carries a reason from where it was found to `Serializer.loads`, which answers with an `Unreadable` and lets
nothing out. This file knows no format.
"""
from __future__ import annotations

from typing import Final, Literal, final

REASONS: Final = {
    "foreign": "these bytes were not written by adaptcache",
    "version": "written by a later version, in a way that this one cannot read",
    "truncated": "the end is missing",
    "damaged": "not the bytes that were written: checksum, length or a field of the header is wrong",
    "codec": "written by another codec than the one that reads",
    "schema": "holds an object of a type that nobody registered here, or that has changed since",
    "signature": "not signed, or by none of the keys",
    "too large": "larger than the reader's limit, or would be when decompressed",
    "value": "the envelope is sound, but what is in it makes no value",
}


class Refused(Exception):
    """Stops reading. Not a ValueError, which a library on the way might take for its own."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@final
class Unreadable:
    """Bytes that are no value, and why: `reason` is one of `Unreadable.REASONS`. False, and equal to others of its reason.

    error: the name of the exception that the codec or a type's own code raised, for a log; "" where there was none.
    """

    __slots__ = ("error", "reason")

    REASONS: Final = tuple(REASONS)

    reason: str
    error: str

    def __init__(self, reason: str, error: str = "") -> None:
        if reason not in REASONS:
            raise ValueError(f"reason: {reason!r} is not accepted; it is one of {', '.join(REASONS)}")
        object.__setattr__(self, "reason", reason)
        object.__setattr__(self, "error", error)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name}: an Unreadable does not change")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{name}: an Unreadable does not change")

    def __reduce__(self) -> tuple[type[Unreadable], tuple[str, str]]:
        return Unreadable, (self.reason, self.error)

    def __bool__(self) -> Literal[False]:
        return False

    def __eq__(self, other: object) -> bool:
        return self.reason == other.reason if isinstance(other, Unreadable) else NotImplemented

    def __hash__(self) -> int:
        return hash((Unreadable, self.reason))

    def __repr__(self) -> str:
        return f"Unreadable({self.reason!r}, {self.error!r})" if self.error else f"Unreadable({self.reason!r})"

    def __str__(self) -> str:
        return REASONS[self.reason] + (f" ({self.error})" if self.error else "")


# Made beforehand: where the stack or the memory has run out, nothing more can be made.
ANSWERS: Final = {reason: Unreadable(reason) for reason in REASONS}
