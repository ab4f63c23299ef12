"""RESP3 in pieces: what is fed in any pieces comes out whole, and what is no RESP ends in `Garbled`."""
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptcache.near.resp import Failure, Garbled, Push, Reader, pack


def written(value):
    """A value as a server writes it."""
    if isinstance(value, Failure):
        return b"-%s\r\n" % value.encode()
    if isinstance(value, bool):
        return b"#t\r\n" if value else b"#f\r\n"
    if value is None:
        return b"_\r\n"
    if isinstance(value, int):
        return b":%d\r\n" % value
    if isinstance(value, float):
        return b",%s\r\n" % repr(value).encode()
    if isinstance(value, bytes):
        return b"$%d\r\n%s\r\n" % (len(value), value)
    if isinstance(value, dict):
        return b"%%%d\r\n" % len(value) + b"".join(written(key) + written(item) for key, item in value.items())
    return (b">" if isinstance(value, Push) else b"*") + b"%d\r\n" % len(value) + b"".join(map(written, value))


scalars = st.one_of(st.none(), st.booleans(), st.integers(-10**20, 10**20), st.floats(allow_nan=False), st.binary(max_size=20),
                    st.text(st.characters(codec="ascii", exclude_categories=["C"]), max_size=9).map(Failure))
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.binary(max_size=5), inner, max_size=3),
                      max_leaves=12)
messages = values | st.lists(values, max_size=4).map(Push) | st.binary(max_size=20).map(lambda key: Push([b"invalidate", [key]]))


@settings(max_examples=60)
@given(st.lists(messages, max_size=6), st.data())
def test_messages_come_out_whole_whatever_pieces_they_come_in(sent, data):
    stream = b"".join(map(written, sent))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    reader, got = Reader(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        reader.feed(stream[start:end])
        got += reader
    assert got == sent
    assert [type(each) for each in got] == [type(each) for each in sent]


@given(st.binary(max_size=60) | st.lists(st.sampled_from([b"*", b"$", b">", b"%", b":", b"-1", b"3", b"\r\n", b"x", b"|", b"_"])).map(b"".join))
def test_anything_else_is_garbled_or_incomplete(noise):
    reader = Reader()
    reader.feed(noise)
    try:
        list(reader)
    except Garbled:
        pass


@pytest.mark.parametrize("stream", [b"*9999999999\r\n", b"$-2\r\n", b"?\r\n", b"\r\n", b"$x\r\n", b"*1\r\n" * 40, b"x" * 70_000])
def test_streams_that_cannot_be_right_are_refused(stream):
    reader = Reader()
    reader.feed(stream)
    with pytest.raises(Garbled):
        list(reader)


def test_other_kinds_are_read():
    reader = Reader()
    reader.feed(b"=7\r\ntxt:abc\r\n!5\r\nERR x\r\n(123\r\n,inf\r\n~1\r\n:1\r\n$-1\r\n*-1\r\n|1\r\n+a\r\n:1\r\n+OK\r\n*2\r\n|0\r\n:1\r\n:2\r\n%1\r\n*1\r\n:1\r\n:2\r\n")
    assert list(reader) == [b"abc", "ERR x", 123, math.inf, [1], None, None, b"OK", [1, 2], [([1], 2)]]


def test_a_command_is_written_as_an_array_of_strings():
    assert pack(b"GET", b"a b") == b"*2\r\n$3\r\nGET\r\n$3\r\na b\r\n"
