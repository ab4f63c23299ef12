"""Commands that are held until they are looked at, and those of a pipeline that need no note (`_ext/held.pxi`), against plain Python."""
import enum
import gc
import weakref
from operator import itemgetter
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptcache._core import Held, outside

LARGE = 8


class Number(int):
    """May be changed: it has a dict."""


class Kind(enum.IntEnum):
    ONE = 1


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.binary(max_size=12), st.text(max_size=12), st.lists(st.integers(), max_size=2),
    st.just(bytearray(b"x")), st.just(memoryview(b"x")), st.just(Number(3)), st.just(Kind.ONE), st.just({}), st.just(ValueError("x")), st.just(()))


def stays(value):
    if type(value) in (bytes, str):
        return len(value) < LARGE
    return type(value) in (int, float, bool, type(None))


@given(most=st.integers(1, 5), at_once=st.booleans(),
       steps=st.lists(st.one_of(st.just(None), st.tuples(st.lists(VALUES, max_size=4).map(tuple), VALUES)), max_size=30))
def test_as_a_list_would(most, at_once, steps):
    held, plain = Held(most, LARGE), []
    held.at_once = at_once
    for at, step in enumerate(steps):
        if step is None:
            taken = held.take()
            assert len(taken) == len(plain) and all(a is c and b is d and when == then for (a, b, when), (c, d, then) in zip(taken, plain, strict=True))
            plain = []
        else:
            args, reply = step
            plain.append((args, reply, float(at)))
            now = at_once or len(plain) >= most or not stays(reply) or (len(args) > 2 and not stays(args[2]))
            assert held.keep(args, reply, float(at)) == (2 if now else 1 if len(plain) == 1 else 0)
        assert len(held) == len(plain) and [one[2] for one in held] == [one[2] for one in plain]


def test_only_a_command_is_kept():
    held = Held(4, LARGE)
    for wrong in (None, ["GET", "k"], "GET"):
        with pytest.raises(TypeError):
            held.keep(wrong, b"", 0.0)
    assert len(held) == 0 and held.take() == []


def test_a_cycle_through_an_answer_is_collected():
    class Answer:
        pass

    held, answer = Held(4, LARGE), Answer()
    answer.held = held
    gone = weakref.ref(answer)
    held.keep(("GET", "k"), answer, 0.0)
    del held, answer
    gc.collect()
    assert gone() is None


def test_a_finalizer_may_keep_and_take():
    held = Held(4, LARGE)

    class Answer:
        def __del__(self):
            held.keep(("GET", "late"), None, 1.0)
            seen.extend(held.take())

    seen = []
    held.keep(("GET", "k"), Answer(), 0.0)
    held.take()                 # dropped here, while nothing is held
    assert [one[0][1] for one in seen] == ["late"] and len(held) == 0


KINDS = {"SET": 0, "GET": 1, "LRANGE": 2, "HGET": 3}
KEYS = st.one_of(st.binary(max_size=3), st.text(max_size=3), st.integers(), st.just(bytearray(b"k")), st.just(None), st.just(("a", "b")))
COMMANDS = st.one_of(
    st.just(("PING",)), st.just(()),
    st.tuples(st.sampled_from(["SET", "GET", "LRANGE", "HGET", "GET", "get", "MGET", b"GET", bytearray(b"GET")]), KEYS),
    st.tuples(st.just("SET"), KEYS, st.just("value")))


@pytest.mark.parametrize("number", [hash, lambda key: crc32(key if type(key) is bytes else key.encode())])
@given(commands=st.lists(st.tuples(COMMANDS, VALUES), max_size=40), mask=st.sampled_from([1, 3, 7 << 29]), draw=st.integers(0, 5))
def test_only_reads_and_writes_outside_of_the_sample_leave_no_note(number, commands, mask, draw):
    held, replies = [(args, {}) for args, _ in commands], [reply for _, reply in commands]
    within, hits, misses = [], [], []
    for args, reply in commands:
        name, key = (*args, None, None)[:2]
        plain = type(key) is bytes or (type(key) is str and key.isascii())
        kind = KINDS.get(name) if type(name) is str else None
        if len(args) < 2 or not plain or kind is None or not number(key) & mask:
            within.append((args, reply))
        elif kind and reply is not None and (kind == 1 or reply):
            hits.append(key)
        elif kind in (1, 2):
            misses.append(key)
    got = outside(held, itemgetter(0), replies, mask, number, KINDS, draw)
    assert len(got[0]) == len(within) and all(one[0] is args and b is d for (one, b), (args, d) in zip(got[0], within, strict=True))
    assert got[1:3] == (len(hits), len(misses))
    assert got[3:] == tuple(keys[draw - 1] if 0 < draw <= len(keys) else None for keys in (hits, misses))


def test_whoever_raises_in_the_middle_leaves_no_half():
    def number(key):
        raise OSError("no number")

    with pytest.raises(OSError, match="no number"):
        outside([(("GET", "k"), {})], itemgetter(0), [b"v"], 1, number, KINDS, 0)
    with pytest.raises(TypeError):
        outside([("GET k", {})], itemgetter(0), [b"v"], 1, hash, KINDS, 0)
