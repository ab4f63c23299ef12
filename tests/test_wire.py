"""What is written comes back: every type, every field of the envelope, in every codec; and what cannot be written says so."""
from __future__ import annotations

import builtins
import collections
import copy
import enum
import json
import math
import pickle
import subprocess
import sys
import threading
import types
from dataclasses import dataclass, make_dataclass
from datetime import date, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, NamedTuple, Optional, TypeVar, Union

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_values import EXAMPLES, TYPES, Colour, Point, Row, User, same, values

from adaptcache.wire import Envelope, Handler, Serializer, Signed, Unreadable, registered
from adaptcache.wire import registry as registries

KEY = b"0123456789abcdef"
PLAIN = Serializer(types=TYPES)
SMALL = Serializer(types=TYPES, compress_above=0)
PICKLED = Serializer(Signed(KEY), types=TYPES)


def again(value: Any, serializer: Serializer = PLAIN) -> Any:
    read = serializer.loads(serializer.dumps(value, birth=1.0))
    assert isinstance(read, Envelope), read
    return read.value


@pytest.fixture(autouse=True)
def nothing_stays_registered():
    before = dict(registries._everywhere)
    yield
    registries._everywhere.clear()
    registries._everywhere.update(before)


# -- values


@pytest.mark.parametrize("value", EXAMPLES, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("serializer", [PLAIN, SMALL], ids=["msgpack", "compressed"])
def test_a_value_comes_back_as_it_was(value, serializer):
    assert same(again(value, serializer), value)


@pytest.mark.parametrize("value", [value for value in EXAMPLES if not isinstance(value, (np.ndarray, np.bytes_))],   # numpy pickles these otherwise
                         ids=lambda value: type(value).__name__)
def test_a_value_comes_back_as_it_was_signed(value):
    assert same(again(value, PICKLED), value)


@given(value=values())
@settings(max_examples=100, deadline=None)
def test_any_value_comes_back_as_it_was(value):
    assert same(again(value), value)
    assert same(again(value, SMALL), value)


@given(value=values())
@settings(max_examples=50, deadline=None)
def test_any_value_comes_back_signed(value):
    assert same(again(value, PICKLED), value)


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_any_array_comes_back_as_it_was(data):
    from hypothesis.extra import numpy as hnp
    dtype = data.draw(st.one_of(hnp.boolean_dtypes(), hnp.integer_dtypes(endianness="?"), hnp.floating_dtypes(endianness="?", sizes=(16, 32, 64)),
                                hnp.complex_number_dtypes(sizes=(64, 128)), hnp.datetime64_dtypes(), hnp.timedelta64_dtypes(),
                                hnp.byte_string_dtypes(min_len=1), hnp.unicode_string_dtypes(min_len=1)))
    array = data.draw(hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0, max_dims=4)))
    array = array.T if data.draw(st.booleans()) and isinstance(array, np.ndarray) else array
    assert same(again(array), array)


def test_an_array_is_writable_and_of_its_own_memory():
    read = again(np.arange(3))
    read[0] = 7
    assert read.flags.owndata and read[0] == 7


def test_what_is_compressed_is_smaller_and_what_does_not_shrink_is_left():
    text = "abc" * 1000
    assert len(Serializer().dumps(text, birth=0)) < 200 < len(Serializer(compress_above=None).dumps(text, birth=0))
    noise = np.random.default_rng(1).bytes(5000)
    assert Serializer().dumps(noise, birth=0) == Serializer(compress_above=None).dumps(noise, birth=0)
    edge = Serializer(compress_above=len(msgspec.msgpack.encode(text)))
    assert edge.dumps(text, birth=0) == Serializer(compress_above=None).dumps(text, birth=0)


def test_threads_may_share_a_serializer():
    faults = []

    def work(number):
        for turn in range(200):
            value = {"who": number, "what": ("x" * 3000, turn, {number, turn})}
            if again(value, shared) != value:
                faults.append(value)

    shared = Serializer(compress_above=100)
    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults


def test_concurrent_changes_of_a_value_never_write_half_of_it():
    """A dict that grows under its writer: an error that Python raises, or a dict that was."""
    value = {("k", 0): 0, ("k", 1): Evil(), ("k", 2): 1}
    with pytest.raises(RuntimeError, match="changed size"):
        Serializer(types=[Handler(Evil, "evil", lambda evil: value.update({len(value): 1}), Evil)]).dumps(value, birth=0)


class Evil:
    def __init__(self, *_: object) -> None:
        pass


# -- the envelope


finite = st.floats(allow_nan=False, allow_infinity=False)
deadline = st.one_of(st.none(), finite, st.just(math.inf))


@given(birth=finite, soft=deadline, hard=deadline, cost=st.floats(0, allow_infinity=False), digest=st.one_of(st.none(), st.integers(0, 2**64 - 1)),
       serializer=st.sampled_from([PLAIN, SMALL, PICKLED]))
def test_every_field_comes_back(birth, soft, hard, cost, digest, serializer):
    data = serializer.dumps(User("ann"), birth=birth, soft=soft, hard=hard, cost=cost, digest=digest)
    assert serializer.loads(data) == Envelope(User("ann"), birth, soft, hard, cost, digest, 1)


def test_an_envelope_is_true_and_frozen_and_an_unreadable_is_false():
    read = PLAIN.loads(PLAIN.dumps(None, birth=0))
    assert read and read.value is None
    with pytest.raises(AttributeError):
        read.value = 1
    refused = PLAIN.loads(b"no")
    assert not refused and refused == Unreadable("foreign") != Unreadable("version") and hash(refused) == hash(Unreadable("foreign"))
    assert refused.reason == "foreign" in Unreadable.REASONS and "not written by adaptcache" in str(refused)
    assert pickle.loads(pickle.dumps(refused)) == copy.deepcopy(refused) == refused
    with pytest.raises(AttributeError):
        refused.reason = "value"
    with pytest.raises(AttributeError):
        del refused.reason
    with pytest.raises(ValueError, match="reason"):
        Unreadable("whatever")


def test_a_bytearray_or_memoryview_is_read_as_bytes_and_anything_else_is_foreign():
    data = PLAIN.dumps((1, "a"), birth=0)
    for other in (bytearray(data), memoryview(data), memoryview(b"x" + data + b"x")[1:-1]):
        assert PLAIN.loads(other).value == (1, "a")
    for other in (None, "text", data.decode("latin-1"), 5, object()):
        assert PLAIN.loads(other) == Unreadable("foreign")


@pytest.mark.parametrize(("argument", "wrong", "error"), [
    ("birth", math.nan, ValueError), ("birth", math.inf, ValueError), ("birth", None, TypeError), ("birth", "now", TypeError),
    ("soft", math.nan, ValueError), ("soft", -math.inf, ValueError), ("soft", "1", TypeError), ("hard", math.nan, ValueError), ("hard", b"1", TypeError),
    ("cost", -1.0, ValueError), ("cost", math.nan, ValueError), ("cost", math.inf, ValueError), ("cost", None, TypeError),
    ("digest", -1, ValueError), ("digest", 2**64, ValueError), ("digest", "x", TypeError), ("digest", 1.5, TypeError),
])
def test_a_wrong_argument_is_named_with_its_range(argument, wrong, error):
    with pytest.raises(error, match=f"^{argument}: "):
        PLAIN.dumps(1, **{"birth": 0.0, argument: wrong})


@pytest.mark.parametrize(("arguments", "error"), [
    ({"codec": "pickle"}, TypeError), ({"codec": None}, TypeError), ({"codec": object()}, TypeError), ({"compress_above": -1}, ValueError), ({"compress_above": "1"}, TypeError),
    ({"types": (int,)}, TypeError), ({"types": (1,)}, TypeError), ({"types": (Point, Point)}, ValueError), ({"limit": 0}, ValueError), ({"limit": "1"}, TypeError),
    ({"types": (list[int],)}, TypeError),
])
def test_a_wrong_option_is_named(arguments, error):
    with pytest.raises(error, match=f"^{next(iter(arguments))}: "):
        Serializer(**arguments)


def test_a_value_beyond_the_limit_is_refused_when_written_and_when_read():
    data = Serializer().dumps("x" * 2000, birth=0)
    tight = Serializer(limit=1000)
    with pytest.raises(ValueError, match="value too large"):
        tight.dumps("x" * 2000, birth=0)
    assert tight.loads(data) == Unreadable("too large")
    assert tight.loads(Serializer(compress_above=None).dumps("x" * 9000, birth=0)) == Unreadable("too large")
    assert tight.loads(Serializer(compress_above=None).dumps("x" * 1001, birth=0)) == Unreadable("too large")
    assert again("x" * 990, tight) == "x" * 990


# -- types


class Plainly:
    pass


class Text(str):
    pass


class Zone(tzinfo):
    def utcoffset(self, when):
        return timedelta(0)

    dst = tzname = utcoffset


@pytest.mark.parametrize("value", [Plainly(), Text("a"), collections.OrderedDict(), collections.Counter(), object(), int, len, iter([]), range(3), ..., memoryview(b""),
                                   datetime(2020, 1, 1, tzinfo=Zone()), np.dtype("f8"), Exception()], ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("place", [lambda v: v, lambda v: [v], lambda v: {"a": (v,)}, lambda v: Row(key="", more=v)], ids=["bare", "list", "dict", "object"])
def test_a_type_that_nobody_registered_is_named_with_the_cure(value, place):
    with pytest.raises(TypeError, match=r"^value: .*(Handler|give the Serializer|numpy)"):
        PLAIN.dumps(place(value), birth=0)


def test_an_unregistered_dataclass_is_named_with_the_shorter_cure():
    with pytest.raises(TypeError, match=r"wire_values\.User .*types=\(User,\).*@adaptcache\.wire\.registered"):
        Serializer().dumps([User("ann")], birth=0)


@pytest.mark.parametrize("array", [np.array([object()]), np.zeros(1, "f4,i4"), np.ma.array([1]), np.zeros(1, "g"), np.zeros(1, "V4")])
def test_arrays_of_objects_structures_and_such_are_refused(array):
    with pytest.raises(TypeError, match=r"^value: .*(dtype|MaskedArray)"):
        PLAIN.dumps(array, birth=0)


def test_a_value_that_holds_itself_or_is_too_deep_is_refused():
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ValueError, match="nested more than 100 deep"):
        PLAIN.dumps(loop, birth=0)
    for wrap in (lambda v: [v], lambda v: (v,), lambda v: {"a": v}, lambda v: {(): v}, lambda v: frozenset([v]), lambda v: Row(key="", more=v)):
        value: Any = 2**70
        for _ in range(100):
            value = wrap(value)
        assert same(again(value), value)
        with pytest.raises(ValueError, match="nested more than 100 deep"):
            PLAIN.dumps(wrap(wrap(value)), birth=0)


def test_only_the_registered_class_itself_is_written_not_a_subclass():
    class Special(User):
        pass

    with pytest.raises(TypeError, match="Special"):
        PLAIN.dumps(Special("ann"), birth=0)


def test_what_is_written_by_itself_takes_no_handler():
    for cls in (int, bytes, list, datetime, np.ndarray, np.float64):
        with pytest.raises(ValueError, match=r"^types: .*without a Handler"):
            Serializer(types=[Handler(cls, "mine", str, str)])


def test_two_classes_of_one_name_are_refused():
    one, two = a_class(("x", int)), a_class(("x", int))
    with pytest.raises(ValueError, match=r"^types: two are named"):
        Serializer(types=[one, two])
    registered(name="thing")(a_class(("x", int), name="One"))
    with pytest.raises(ValueError, match=r"^name: 'thing' is the name of"):
        registered(name="thing")(a_class(("x", int), name="Two"))
    newer = registered(name="thing")(a_class(("x", int), name="One"))       # a module that is loaded again
    assert type(again(newer(1), Serializer())) is newer


def test_a_class_registered_again_in_another_version_is_known_by_that():
    cls = registered(version=1)(a_class(("x", int)))
    serializer = Serializer()
    before = serializer.dumps([cls(1)], birth=0)
    assert serializer.loads(before)
    registered(version=2)(cls)
    assert serializer.loads(serializer.dumps([cls(1)], birth=0)).value == [cls(1)]


def test_a_context_that_is_no_bytes_is_misuse():
    for call in (lambda: PICKLED.dumps(1, birth=0, context="key"), lambda: PICKLED.loads(b"", context="key")):
        with pytest.raises(TypeError, match=r"^context: expected bytes, got str"):
            call()


def test_a_dataclass_comes_back_without_its_constructor():
    @dataclass
    class Once:
        x: int
        calls = 0

        def __post_init__(self) -> None:
            type(self).calls += 1

    serializer = Serializer(types=[Once])
    read = again(Once(3), serializer)
    assert (read.x, Once.calls) == (3, 1)


def test_a_dataclass_that_is_more_than_its_fields_needs_a_handler():
    for base in (list, dict, Exception):
        with pytest.raises(TypeError, match=r"Handler"):
            Serializer(types=[make_dataclass("Both", ["x"], bases=(base,))])


def test_a_decorated_class_is_known_to_every_serializer_also_to_earlier_ones():
    early = Serializer()

    @registered
    @dataclass
    class Late:
        x: int

    @registered(name="shop.order", version=2)
    class Basket(NamedTuple):
        price: float

    for value in (Late(1), [Basket(2.0)]):
        assert again(value, early) == again(value, Serializer()) == value
    with pytest.raises(TypeError, match="dataclasses"):
        registered(int)
    with pytest.raises(TypeError, match=r"^name: "):
        registered(name="")
    with pytest.raises(TypeError, match=r"^version: "):
        registered(version="1")


def test_a_handler_says_what_is_wrong_with_it():
    good = {"type": Plainly, "name": "plainly", "encode": vars, "decode": dict}
    for argument, wrong in (("type", "Plainly"), ("name", ""), ("name", 5), ("encode", None), ("decode", 1)):
        with pytest.raises(TypeError, match=f"^{argument}: "):
            Handler(**{**good, argument: wrong})
    with pytest.raises(ValueError, match="two are named"):
        Serializer(types=[Handler(Plainly, "x", vars, dict), Handler(Evil, "x", vars, dict)])
    assert "plainly" in repr(Handler(**good))


def test_what_a_handler_raises_comes_through_writing_and_is_an_unreadable_in_reading():
    class Boom(Exception):
        def __str__(self):
            raise RuntimeError("not even this")

    def boom(_):
        raise Boom

    with pytest.raises(Boom):
        Serializer(types=[Handler(Plainly, "x", boom, boom)]).dumps([Plainly()], birth=0)
    for error in (Boom, OverflowError, UnicodeEncodeError, RecursionError, MemoryError, StopIteration):
        def fail(_, error=error):
            raise error("utf-8", "", 0, 1, "") if error is UnicodeEncodeError else error()
        data = Serializer(types=[Handler(Plainly, "x", lambda _: 1, fail)]).dumps([Plainly()], birth=0)
        read = Serializer(types=[Handler(Plainly, "x", lambda _: 1, fail)]).loads(data)
        assert read == Unreadable("value")
    for error in (KeyboardInterrupt, SystemExit, GeneratorExit):
        def stop(_, error=error):
            raise error
        data = Serializer(types=[Handler(Plainly, "x", lambda _: 1, stop)]).dumps([Plainly()], birth=0)
        with pytest.raises(error):
            Serializer(types=[Handler(Plainly, "x", lambda _: 1, stop)]).loads(data)


# -- schemas


def written_by(cls, value):
    return Serializer(types=[cls]).dumps(value, birth=0)


def a_class(*fields, name="Thing", **options):
    made = make_dataclass(name, fields, **options)
    made.__module__ = __name__
    return made


CHANGES = [
    (("x", int), ("y", str), ("z", int)), (("x", int),), (("y", str), ("x", int)), (("x", int), ("y", bytes)), (("x", int), ("w", str)),
    (("x", int), ("y", str | None)),
]


@pytest.mark.parametrize("after", CHANGES)
@pytest.mark.parametrize("place", [lambda v: v, lambda v: [v], lambda v: {"a": {"b": (v,)}}], ids=["bare", "list", "deep"])
def test_a_changed_class_reads_as_unreadable(after, place):
    before = a_class(("x", int), ("y", str))
    data = Serializer(types=[before]).dumps(place(before(1, "a")), birth=0)
    assert Serializer(types=[a_class(("x", int), ("y", str))]).loads(data)
    assert Serializer(types=[a_class(*after)]).loads(data) == Unreadable("schema")
    assert Serializer().loads(data) == Unreadable("schema")


def test_a_change_deep_inside_an_annotation_is_noticed():
    def holder(inner):
        return a_class(("x", dict[str, list[inner | None]]), name="Holder")

    one = holder(a_class(("a", int)))
    data = written_by(one, one({}))
    assert Serializer(types=[holder(a_class(("a", int)))]).loads(data)
    assert Serializer(types=[holder(a_class(("a", str)))]).loads(data) == Unreadable("schema")
    for member in ("RED = 2", "BLUE = 1"):
        one, two = (holder(enum.Enum("Hue", {name: int(number)}, module=__name__)) for name, number in (("RED", "1"), member.split(" = ")))
        assert Serializer(types=[two]).loads(written_by(one, one({}))) == Unreadable("schema")


def test_enums_namedtuples_and_structs_have_schemas_too():
    for one, two, value in [
        (enum.Enum("E", "A B", module="m"), enum.Enum("E", "A B C", module="m"), lambda c: c.A),
        (collections.namedtuple("N", "a b", module="m"), collections.namedtuple("N", "a c", module="m"), lambda c: c(1, 2)),
        (msgspec.defstruct("S", [("a", int)], module="m"), msgspec.defstruct("S", [("a", str)], module="m"), lambda c: c(1)),
    ]:
        data = written_by(one, value(one))
        assert Serializer(types=[one]).loads(data).value == value(one)
        assert Serializer(types=[two]).loads(data) == Unreadable("schema")


def test_a_version_that_is_raised_makes_what_was_written_unreadable():
    cls = registered(version=1)(a_class(("celsius", float)))
    data = Serializer().dumps(cls(20.0), birth=0)
    assert Serializer().loads(data)
    registered(version=2)(a_class(("celsius", float)))
    registries._everywhere.pop(cls)
    assert Serializer().loads(data) == Unreadable("schema")


def test_a_name_of_its_own_lets_a_class_move():
    one = registered(name="thing")(a_class(("x", int), name="Here"))
    data = Serializer().dumps([one(1)], birth=0)
    registries._everywhere.pop(one)
    two = registered(name="thing")(a_class(("x", int), name="There"))
    assert Serializer().loads(data).value == [two(1)]


T = TypeVar("T")


@pytest.mark.parametrize(("one", "two"), [
    (Optional[int], int | None), (Union[str, int], int | str), ("int | None", Optional[int]), ("list[str]", list["str"]),  # noqa: UP007, UP045
    (Annotated[int, object()], int),
])
def test_ways_to_write_one_annotation_are_one_schema(one, two):
    first, second = a_class(("x", one)), a_class(("x", two))
    assert Serializer(types=[second]).loads(written_by(first, first(1)))


@pytest.mark.parametrize(("one", "two"), [(list[int], list[str]), (Literal["a"], Literal["b"]), (int, bool), (dict[str, int], dict[int, str]), (Any, T), (Colour, Literal[Colour.RED])])
def test_other_annotations_are_other_schemas(one, two):
    first, second = a_class(("x", one)), a_class(("x", two))
    assert Serializer(types=[second]).loads(written_by(first, first(1))) == Unreadable("schema")


def test_a_class_may_hold_itself_or_a_name_that_only_type_checkers_know():
    @dataclass
    class Node(Generic[T]):
        next: Node[T] | None
        what: Missing  # noqa: F821

    node = Node(Node(None, 1), 2)
    assert again(node, Serializer(types=[Node])) == node


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from wire_values import *
from adaptcache.wire import Serializer
sys.stdout.buffer.write(Serializer(types=TYPES).dumps([User("ann", Colour.GREEN, [], Point(1.0)), Row(key="k"), Level.LOW, Fraction(1, 2)], birth=0.0))
"""


def test_schemas_are_the_same_in_every_process():
    import os
    from fractions import Fraction

    from wire_values import Level
    tests = os.path.dirname(__file__)
    value = [User("ann", Colour.GREEN, [], Point(1.0)), Row(key="k"), Level.LOW, Fraction(1, 2)]
    ran = subprocess.run([sys.executable, "-P", "-c", SCRIPT.format(tests=tests)], env={**os.environ, "PYTHONHASHSEED": "7"}, capture_output=True, check=True)
    assert PLAIN.loads(ran.stdout).value == value


# -- codecs


class Upper:
    name = "upper"

    def dumps(self, value):
        return value.upper().encode()

    def loads(self, data):
        return data.decode().lower()


def test_a_codec_of_the_users_own_is_named_in_the_envelope():
    serializer = Serializer(Upper())
    data = serializer.dumps("abc", birth=1.0, hard=2.0, context=b"ignored")
    assert b"upper" in data and serializer.loads(data) == Envelope("abc", 1.0, None, 2.0, 0.0, None, 1)
    assert PLAIN.loads(data) == PICKLED.loads(data) == Serializer(pickle).loads(data) == Unreadable("codec")
    assert serializer.loads(PLAIN.dumps("abc", birth=0)) == serializer.loads(PICKLED.dumps("abc", birth=0)) == Unreadable("codec")
    assert again([1], Serializer(pickle)) == [1]
    assert "upper" in repr(serializer) and "msgpack" in repr(PLAIN)


def test_a_codec_that_returns_no_bytes_or_has_no_name_is_refused():
    with pytest.raises(TypeError, match=r"^codec: json\.dumps returned str"):
        Serializer(json).dumps([1], birth=0)
    class Odd(Upper):
        name = 5
    with pytest.raises(TypeError, match=r"^codec: its name"):
        Serializer(Odd())
    Odd.name = "x" * 101
    with pytest.raises(ValueError, match=r"^codec: its name"):
        Serializer(Odd())
    Odd.name = "odd"
    Odd.dumps = lambda self, value: bytearray(b"abc")
    assert again("whatever", Serializer(Odd())) == "abc"


def test_a_codecs_exceptions_come_through_writing_and_are_an_unreadable_in_reading():
    serializer = Serializer(Upper())
    with pytest.raises(AttributeError):
        serializer.dumps(5, birth=0)
    class Bad(Upper):
        def dumps(self, value):
            return b"\xff"
    assert repr(serializer.loads(Serializer(Bad()).dumps("", birth=0))) == "Unreadable('value', 'UnicodeDecodeError')"


def test_a_changed_class_in_a_pickle_is_unreadable(monkeypatch):
    before, after = a_class(("x", int), name="Pickled"), a_class(("x", int), ("y", int), name="Pickled")
    monkeypatch.setitem(globals(), "Pickled", before)
    data = PICKLED.dumps(before(1), birth=0)
    assert PICKLED.loads(data).value == before(1)
    monkeypatch.setitem(globals(), "Pickled", after)
    assert PICKLED.loads(data) == Unreadable("schema")


def test_arguments_need_no_types_beyond_the_plain_ones():
    """numpy's numbers and ints are as good as floats."""
    data = PLAIN.dumps(1, birth=np.float64(1.5), soft=2, hard=np.int64(3), cost=1)
    assert PLAIN.loads(data) == Envelope(1, 1.5, 2.0, 3.0, 1.0, None, 1)


def test_reading_calls_no_import(monkeypatch):
    data = PLAIN.dumps([value for value in EXAMPLES if not isinstance(value, datetime)], birth=0)
    assert PLAIN.loads(data)        # once, so that codecs and the like are loaded
    def refuse(name, *_, **__):
        raise AssertionError(f"import of {name}")
    monkeypatch.setattr(builtins, "__import__", refuse)
    read = PLAIN.loads(data)
    monkeypatch.undo()
    assert read


def test_a_date_is_no_datetime():
    assert type(again(date(2020, 1, 1))) is date and type(again(datetime(2020, 1, 1))) is datetime


def test_the_examples_of_the_page_hold(monkeypatch):
    page = (Path(__file__).parent.parent / "docs" / "wire.md").read_text()
    blocks = [block.partition("```")[0] for block in page.split("```python\n")[1:]]
    assert blocks
    module = types.ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)
    for block in blocks:
        exec(compile(block, "docs/wire.md", "exec", dont_inherit=True), vars(module))
    assert all(f"| `{reason}` |" in page for reason in Unreadable.REASONS)
