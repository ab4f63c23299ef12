"""Values as every version of the format wrote them, in tests/data/wire: made once, read for ever.

`python tests/wire_golden.py` writes the files that are not there yet, with the code as it is; it never writes one anew. A
change of the format adds cases under the next version's number and leaves those before alone.
"""
from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import numpy as np

from adaptcache.wire import Handler, Serializer, Signed, registered

FOLDER = Path(__file__).parent / "data" / "wire"
KEYS = [b"the newer key, 0123456789", b"the older key, 0123456789"]


@registered(name="golden.Hue")
class Hue(enum.Enum):
    RED = 1
    BLUE = "blue"


@registered(name="golden.Rights")
class Rights(enum.IntFlag):
    READ = 1
    WRITE = 2


@registered(name="golden.Place")
class Place(NamedTuple):
    x: float
    y: float | None = None


@registered(name="golden.Order")
@dataclass
class Order:
    number: int
    hue: Hue
    places: list[Place]
    before: Order | None = None


@registered(name="golden.Row")
class Row(msgspec.Struct, frozen=True):
    key: str
    more: dict[str, Any]


class Reversed:
    """A codec of the user's own."""

    name = "reversed"

    def dumps(self, value: str) -> bytes:
        return value[::-1].encode()

    def loads(self, data: bytes) -> str:
        return data.decode()[::-1]


PLAIN = Serializer(types=[Handler(Fraction, "fraction", lambda f: (f.numerator, f.denominator), lambda pair: Fraction(*pair))])
SIGNED = Serializer(Signed(KEYS))
OLDER = Serializer(Signed(KEYS[1]))
CUSTOM = Serializer(Reversed())

FIELDS: dict[str, Any] = {"birth": 1_700_000_000.25, "soft": 1_700_000_060.5, "hard": 1_700_003_600.0, "cost": 0.125, "digest": 0xFEDCBA9876543210}
BARE: dict[str, Any] = {"birth": 1_700_000_000.25}

# name -> serializer that reads, value, fields[, serializer that wrote]
CASES: dict[str, tuple[Any, ...]] = {
    "1-none": (PLAIN, None, BARE),
    "1-fields": (PLAIN, "value", FIELDS),
    "1-never": (PLAIN, "value", {**BARE, "soft": float("inf"), "hard": float("inf")}),
    "1-soft-only": (PLAIN, True, {**BARE, "soft": 1_700_000_060.5}),
    "1-hard-and-digest": (PLAIN, False, {**BARE, "hard": -1.0, "digest": 0}),
    "1-numbers": (PLAIN, [0, -1, 127, 2**63 - 1, -(2**63), 2**64 - 1, 2**64, -(2**200), 1.5, -0.0, float("inf"), 1 + 2j, Decimal("1.10"), Fraction(-2, 3)], BARE),
    "1-texts": (PLAIN, ["", "grün", "\U0001f600", "\ud800", b"", b"\x00\xff", bytearray(b"abc")], BARE),
    "1-containers": (PLAIN, {"list": [1, [2]], "tuple": (1, (2,), ()), "set": {1}, "frozenset": frozenset({"a"}), "dict": {1: 2, (1, 2): 3, None: {}}}, BARE),
    "1-times": (PLAIN, [datetime(2024, 2, 29, 1, 2, 3, 4), datetime(2024, 2, 29, tzinfo=UTC), datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
                        date(1, 1, 1), time(23, 59, 59, 999_999), time(1, tzinfo=timezone(timedelta(hours=-3), "here")), timedelta(days=-1, microseconds=1), timezone(timedelta(minutes=30))], FIELDS),
    "1-uuid": (PLAIN, UUID("12345678-1234-5678-1234-567812345678"), BARE),
    "1-array": (PLAIN, np.arange(6, dtype="<f4").reshape(2, 3), BARE),
    "1-array-fortran": (PLAIN, np.asfortranarray(np.arange(6, dtype=">i2").reshape(2, 3)), BARE),
    "1-array-texts": (PLAIN, np.array(["a", "grün"], "<U4"), BARE),
    "1-array-times": (PLAIN, np.array(["2024-01-01", "NaT"], "<M8[D]"), BARE),
    "1-scalars": (PLAIN, [np.float32(1.5), np.bool_(True), np.int64(-5), np.str_("a\x00"), np.bytes_(b"b\x00")], BARE),
    "1-enum": (PLAIN, Hue.BLUE, FIELDS),
    "1-flag": (PLAIN, Rights.READ | Rights.WRITE, BARE),
    "1-namedtuple": (PLAIN, Place(1.0), BARE),
    "1-dataclass": (PLAIN, Order(2, Hue.RED, [Place(1.0, 2.0)], Order(1, Hue.BLUE, [])), FIELDS),
    "1-struct": (PLAIN, Row("k", {"a": (1, Place(0.0))}), BARE),
    "1-compressed": (PLAIN, ["text " * 100] * 20, FIELDS),
    "1-signed": (SIGNED, {"a": (1, {2}), "b": Order(1, Hue.RED, [])}, FIELDS),
    "1-signed-older-key": (SIGNED, (1, 2), BARE, OLDER),
    "1-signed-compressed": (SIGNED, ["text " * 100] * 20, BARE),
    "1-custom": (CUSTOM, "abc", BARE),
}


def context(name: str) -> bytes:
    return name.encode() if "signed" in name else b""


def make(say: Callable[[str], object] = print) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, (reader, value, fields, *writer) in CASES.items():
        path = FOLDER / f"{name}.bin"
        if not path.exists():
            path.write_bytes((writer or [reader])[0].dumps(value, context=context(name), **fields))
            say(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    import wire_golden  # under the name that the tests know it by

    wire_golden.make()
