"""Not a test: types and values for the tests of `adaptcache.wire`, and what it is to be the same value."""
from __future__ import annotations

import enum
import math
from collections import namedtuple
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
from hypothesis import strategies as st

from adaptcache.wire import Handler


class Colour(enum.Enum):
    RED = 1
    GREEN = "green"
    CRIMSON = 1     # an alias


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Rights(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()


class Point(NamedTuple):
    x: float
    y: float = 0.0


Pair = namedtuple("Pair", "left right")


@dataclass
class User:
    name: str
    colour: Colour = Colour.RED
    friends: list[User] = field(default_factory=list)
    where: Point | None = None


@dataclass(frozen=True, slots=True)
class Order:
    number: int
    price: Decimal
    total: Decimal = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "total", self.price * self.number)


@dataclass
class Empty:
    pass


class Row(msgspec.Struct, kw_only=True, frozen=True):
    key: str
    tags: frozenset[str] = frozenset()
    more: Any = None


TYPES = (Colour, Level, Rights, Point, Pair, User, Order, Empty, Row,
         Handler(Fraction, "fraction", lambda f: (f.numerator, f.denominator), lambda parts: Fraction(*parts)))


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types throughout; a NaN is itself, and 0.0 is not -0.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, (np.ndarray, np.generic)):
        return (one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
                and one.flags.fnc == other.flags.fnc)
    if isinstance(one, float):
        return (math.isnan(one) and math.isnan(other)) or (one == other and math.copysign(1, one) == math.copysign(1, other))
    if isinstance(one, complex):
        return same(one.real, other.real) and same(one.imag, other.imag)
    if isinstance(one, Decimal):
        return str(one) == str(other)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return len(one) == len(other) and all(same(a, b) and same(one[a], other[b]) for a, b in zip(one, other, strict=True))
    if isinstance(one, (set, frozenset)):
        by_repr = sorted(one, key=repr), sorted(other, key=repr)
        return same(*by_repr)
    if isinstance(one, (datetime, time)):
        return one == other and one.fold == other.fold and same(one.tzinfo, other.tzinfo)
    if isinstance(one, timezone):
        return one == other and one.tzname(None) == other.tzname(None)
    if isinstance(one, User):
        return same(vars(one), vars(other))
    if isinstance(one, Row):
        return same((one.key, one.tags, one.more), (other.key, other.tags, other.more))
    return bool(one == other)


# One of each, and what is special in it.
EXAMPLES: list[Any] = [
    None, True, False, 0, -1, 2**63 - 1, -(2**63), 2**63, 2**64 - 1, 2**64, -(2**63) - 1, 10**300, -(10**300), 0.0, -0.0, math.inf, math.nan, 5e-324,
    "", "grün", "\U0001f600", "half a pair: \ud83d", "\x00", b"", b"\x00\xff", bytearray(b"abc"), 1 + 2j, complex(math.nan, -0.0),
    [], [1, "a", None], [[[]]], (), (1,), ((1, 2), [3, (4,)]), [2**70, "\ud800", [-(2**80)]], (2**70, "\udfff"),
    set(), {1, "a", None}, {(1, 2), frozenset({3})}, frozenset(), frozenset({1.5, b"x"}),
    {}, {"a": 1}, {1: "int", 1.5: "float", None: "none", b"b": "bytes"}, {False: "bool"}, {(1, "a"): [2], frozenset({1}): {}}, {2**70: 1, "\ud800": "\ud801"},
    {"b": 1, "a": {"z": (), "y": {1, 2}}}, {date(2020, 1, 1): Decimal("1.10")}, {(2**70,): 1},
    datetime(2024, 2, 29, 12, 30, 1, 999_999), datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC),
    datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")), datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=-3, minutes=-30))),
    datetime(2024, 1, 1, tzinfo=timezone(timedelta(seconds=1, microseconds=1), "odd")), datetime(2024, 1, 1, tzinfo=timezone(timedelta(0), "GMT")),
    time(1, 2, 3, 4), time(23, 59, fold=1), time(12, tzinfo=UTC), time(12, tzinfo=timezone(timedelta(hours=5))), date(1, 1, 1), date.max,
    timedelta.min, timedelta.max, timedelta(microseconds=-1), UTC, timezone(timedelta(hours=1)), timezone.min, ZoneInfo("UTC"), ZoneInfo("America/Argentina/Ushuaia"),
    Decimal("0.10"), Decimal("-1E+400"), Decimal("NaN"), Decimal("-Infinity"), Decimal("sNaN123"), Decimal("-0"), UUID(int=0), UUID(int=2**128 - 1),
    Colour.RED, Colour.GREEN, Colour.CRIMSON, Level.HIGH, Rights.READ, Rights.READ | Rights.WRITE, Rights(0),
    Point(1.0), Pair([1], (2,)), Empty(), Order(3, Decimal("1.50")), User("ann"), Row(key="k"), Row(key="k", tags=frozenset({"a"}), more=User("bob")), Fraction(1, 3),
    User("ann", Colour.GREEN, [User("bob", where=Point(1.0, 2.0))], Point(0.5)), [Fraction(-5, 7), {Fraction(2): Fraction(3)}], {Colour.RED: Level.LOW, Point(1.0): 2},
    np.arange(6, dtype="<i4").reshape(2, 3), np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.arange(10, dtype=">u2")[::3], np.array(5.0), np.zeros((0, 3), "f4"), np.zeros(0),
    np.array([True, False]), np.array(["a", "grün"]), np.array([b"a", b"bcd"]), np.array(["2020-01-01", "NaT"], "M8[D]"), np.array([1, 2], "m8[25s]"), np.array([1j], "c8"),
    np.ones(3, "f2"), np.array([math.nan, -0.0]), np.float64(1.5), np.float32(1.5), np.int64(-1), np.uint8(255), np.bool_(True), np.datetime64("2020-01-01T00:00", "ns"),
    np.timedelta64(3, "h"), np.complex64(1j), np.str_("grün"), np.str_(""), np.str_("a\x00\ud800"), np.bytes_(b"ab"), np.bytes_(b"a\x00"), np.bytes_(b""), np.float16(0.1), [np.float64(1.0), 1.0], {"w": np.arange(3)}, {np.int64(1): 2},
]


def texts() -> st.SearchStrategy[str]:
    return st.text(st.characters(), max_size=20)       # half surrogate pairs too


ZONES = st.sampled_from([UTC, ZoneInfo("Europe/Berlin"), ZoneInfo("Asia/Kathmandu"), timezone(timedelta(hours=2), "two"), timezone(timedelta(minutes=-7))])
LEAVES: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-(2**65), 2**65), st.floats(), texts(), st.binary(max_size=20), st.complex_numbers(),
    st.datetimes(), st.datetimes(timezones=ZONES), st.dates(), st.times(), st.times(timezones=st.just(UTC)), st.timedeltas(), st.decimals(), st.uuids(),
    st.sampled_from(list(Colour)), st.sampled_from(list(Level)), st.integers(0, 3).map(Rights), st.fractions(), ZONES,
    st.builds(Point, st.floats(), st.floats()),
)
KEYS: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), texts(), st.binary(max_size=9), st.dates(), st.uuids(), st.fractions(),
              st.decimals(allow_nan=False), st.sampled_from(list(Colour))),
    lambda keys: st.one_of(st.tuples(keys), st.tuples(keys, keys), st.frozensets(keys, max_size=3)), max_leaves=4)


def values() -> st.SearchStrategy[Any]:
    """Anything that a Serializer with TYPES can write."""
    return st.recursive(LEAVES, lambda inner: st.one_of(
        st.lists(inner, max_size=5), st.lists(inner, max_size=4).map(tuple), st.dictionaries(KEYS, inner, max_size=4), st.sets(KEYS, max_size=4),
        st.frozensets(KEYS, max_size=4), st.builds(Pair, inner, inner), st.builds(User, texts(), st.sampled_from(list(Colour)), st.lists(inner, max_size=2)),
        st.builds(Row, key=texts(), tags=st.frozensets(texts(), max_size=2), more=inner),
    ), max_leaves=12)
