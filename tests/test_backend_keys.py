"""Keys as bytes: equal keys, and only those, give equal bytes, in every process."""
import datetime as dt
import enum
import fractions
import os
import subprocess
import sys
import uuid
from collections import namedtuple
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from adaptcache.backends import header
from adaptcache.backends.keys import LONGEST, encode
from adaptcache.backends.names import BUCKETS, Names
from adaptcache.keys import hashkey, typedkey

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-2, 2), st.floats(allow_nan=False), st.text(max_size=3), st.binary(max_size=3),
    st.text(min_size=LONGEST - 2, max_size=LONGEST + 2), st.decimals(allow_nan=False, places=1),
    st.builds(Decimal, st.sampled_from(["1e400", "-1e400", "2e400", "1e401", "1e-400"])), st.sampled_from([10**400, 10**401]), st.fractions(max_denominator=4),
    st.dates(), st.datetimes(), st.datetimes(timezones=st.just(dt.UTC)), st.uuids(),
)
KEYS = st.recursive(SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=3).map(tuple), st.frozensets(inner, max_size=3)), max_leaves=5)


@given(KEYS, KEYS)
@example(1, True)
@example(1, 1.0)
@example(1, "1")
@example("1", b"1")
@example(0.5, Decimal("0.5"))
@example(0.5, fractions.Fraction(1, 2))
@example(-0.0, 0)
@example(("a", "b"), ("ab",))
@example(("a", "b"), ("asb",))
@example((("a",), "b"), ("a", ("b",)))
@example(float("inf"), float("-inf"))
@example(10**400, 10**400 + 1)
@example(Decimal("1e400"), 10**400)
@example(Decimal("1e400"), Decimal("2e400"))
@example(Decimal("1e400"), float("inf"))
@example(Decimal("inf"), float("inf"))
def test_two_keys_are_one_exactly_if_python_says_so(one, other):
    assert (encode(one) == encode(other)) == (one == other)


@given(KEYS)
def test_no_key_is_longer_than_its_bound(key):
    assert len(encode(key)) <= LONGEST


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Number(enum.IntEnum):
    ONE = 1


Point = namedtuple("Point", "x y")


def test_what_equals_a_plain_key_is_that_key():
    class Name(str):
        pass

    assert encode(Number.ONE) == encode(1)
    assert encode(Name("a")) == encode("a")
    assert encode(Point(1, 2)) == encode((1, 2)) == encode(hashkey(1, 2))
    assert encode(Colour.RED) != encode(Colour.BLUE) != encode(2)
    assert encode(hashkey(1, a=2)) != encode(hashkey(1, "a", 2))
    assert encode(typedkey(1)) != encode(typedkey(1.0))


def test_a_subclass_that_equals_its_base_is_asked_nothing_else():
    class Int(int):
        def __int__(self):
            return 5

        __index__ = __int__

        def __format__(self, spec):
            return "5"

    class Bytes(bytes):
        def __bytes__(self):
            return b"5"

        def __iter__(self):
            return iter(b"5")

    class Str(str):
        def encode(self, *args):
            return b"5"

        def __str__(self):
            return "5"

    class Tuple(tuple):
        def __iter__(self):
            return iter((5,))

    for one, base in ((Int(7), 7), (Bytes(b"7"), b"7"), (Str("7"), "7"), (Tuple((7,)), (7,))):
        assert one == base and encode(one) == encode(base)


def test_bytes_are_the_same_in_another_process():
    program = "from adaptcache.backends.keys import encode; from adaptcache import typedkey; print(encode((1, 'é', frozenset('abc'), typedkey(1, b=2.5))))"
    outputs = {subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True,
                              env={**os.environ, "PYTHONHASHSEED": seed}).stdout for seed in ("1", "2")}
    assert len(outputs) == 1


class Own:
    def __eq__(self, other):
        return True

    def __hash__(self):
        return 1


class Odd(str):
    def __eq__(self, other):
        return True

    __hash__ = str.__hash__


@pytest.mark.parametrize("key", [object(), Own(), (1, Own()), float("nan"), 1j, lambda: 0, Odd("a"), [], {}, (1, []), Decimal("nan"),
                                 Decimal("1e999999999"), Decimal("-1e-999999999")],
                         ids=["object", "own", "nested", "nan", "complex", "function", "odd", "list", "dict", "in tuple", "decimal nan", "huge", "tiny"])
def test_a_key_without_bytes_of_its_own_is_refused(key):
    with pytest.raises(TypeError):
        encode(key)


def test_an_aware_time_is_the_instant_it_names():
    zone = dt.timezone(dt.timedelta(hours=2))
    noon = dt.datetime(2026, 1, 1, 12, tzinfo=dt.UTC)
    assert encode(noon) == encode(noon.astimezone(zone)) != encode(noon.replace(tzinfo=None))
    assert encode(uuid.UUID(int=1)) != encode(1)


def test_a_key_its_lease_and_its_generation_lie_in_one_slot():
    from redis.crc import key_slot

    names = Names("p", "s", cluster=True)
    seen = set()
    for at in range(2000):
        name = names.of(encode(f"}}{{{at}"))
        assert len({key_slot(place) for place in (name.value, name.lease, name.waiters, name.generation)}) == 1
        seen.add(name.generation)
    assert len(seen) > 0.9 * BUCKETS


@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda tail: header.MAGIC + tail))
def test_any_bytes_are_a_header_or_none(data):
    head = header.unpack(data)
    assert head is None or head.size <= len(data)


@given(st.lists(st.text(min_size=1, max_size=20), max_size=5, unique=True), st.binary(max_size=20))
def test_a_header_comes_back(tags, rest):
    generation = header.token()
    versions = tuple((tag, header.token()) for tag in tags)
    data = header.pack(generation, versions) + rest
    head = header.unpack(data)
    assert (head.generation, head.tags, data[head.size:]) == (generation, versions, rest)
    assert head.id == header.id_of(data)
    assert all(header.unpack(data[:cut]) is None for cut in range(len(data) - len(rest)))
