"""Bytes from anyone: whatever they are, `loads` answers, raises nothing, runs nothing and takes no more memory than its limit allows."""
from __future__ import annotations

import hmac
import os
import pickle
import struct
import sys
import threading
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.msgpack import Ext, encode
from wire_values import EXAMPLES, TYPES, Colour, Point, User, values

from adaptcache.wire import Envelope, Serializer, Signed, Unreadable, header, plain
from adaptcache.wire.registry import Registry

KEY, OTHER = b"0123456789abcdef", b"another key, long enough"
PLAIN = Serializer(types=TYPES)
SMALL = Serializer(types=TYPES, compress_above=0)
PICKLED = Serializer(Signed(KEY))
ALL = [PLAIN, SMALL, PICKLED, Serializer(pickle)]
REGISTRY = Registry(TYPES)
WRITTEN = [serializer.dumps(value, birth=1.0, soft=2.0, hard=3.0, cost=0.5, digest=7)
           for serializer in (PLAIN, SMALL, Serializer(Signed(KEY), compress_above=10)) for value in (EXAMPLES, User("ann"), {"a": "x" * 2000}, np.arange(50), 5)]


def answered(read: Any) -> bool:
    return type(read) is Envelope or (type(read) is Unreadable and read.reason in Unreadable.REASONS)


def sealed(body: bytes, flags: int = 0, *, codec: int = 1, birth: float = 1.0, extras: bytes = b"", fields: bytes = b"", version: int = 1, length: int | None = None) -> bytes:
    """An envelope that is sound, made by hand as docs/wire.md says."""
    rest = struct.pack("<BHd", codec, len(extras), birth) + fields + extras + body
    rest = struct.pack("<I", 12 + len(rest) if length is None else length) + rest
    start = b"\xc1\xac" + bytes((version, flags))
    return start + struct.pack("<I", zlib.crc32(start + rest)) + rest


def test_the_format_is_what_the_page_says():
    assert sealed(encode({"a": 1})) == PLAIN.dumps({"a": 1}, birth=1.0)
    assert sealed(encode(5), 1 | 2 | 4 | 8, fields=struct.pack("<dddQ", 2.0, 3.0, 0.5, 7)) == PLAIN.dumps(5, birth=1.0, soft=2.0, hard=3.0, cost=0.5, digest=7)
    data = PICKLED.dumps([1], birth=1.0, context=b"key")
    body = pickle.dumps([1], 5)
    at = 23
    assert data[3] == 64 and data[12] == 2 and data[at + 32:] == body
    covered = data[:4] + data[8:at]
    message = b"adaptcache envelope\0" + struct.pack("<Q", 3) + b"key" + struct.pack("<Q", len(covered)) + covered + body
    assert data[at:at + 32] == hmac.digest(KEY, message, "sha256")


# -- fuzz


@given(data=st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_random_bytes_are_answered(data):
    for serializer in ALL[:3]:
        assert answered(serializer.loads(data))
        assert answered(serializer.loads(b"\xc1\xac" + data))
        assert answered(serializer.loads(b"\xc1\xac\x01" + data))


@given(data=st.binary(max_size=200), flags=st.integers(0, 255), codec=st.integers(0, 3), birth=st.floats(), extras=st.binary(max_size=20))
@settings(max_examples=200, deadline=None)
def test_random_bytes_in_a_sound_envelope_are_answered(data, flags, codec, birth, extras):
    for serializer in ALL[:3]:      # the codec of pickles unsigned is as unsafe as it says
        assert answered(serializer.loads(sealed(data, flags, codec=codec, birth=birth, extras=extras)))


@given(data=st.binary(max_size=100))
@settings(max_examples=400, deadline=None)
def test_random_bytes_as_a_document_are_answered(data):
    assert answered(PLAIN.loads(sealed(data)))


@given(code=st.integers(-128, 127), data=st.one_of(st.binary(max_size=40), values().map(plain.Plain(REGISTRY).dumps)), wrap=st.booleans())
@settings(max_examples=120, deadline=None)
def test_any_extension_with_any_payload_is_answered(code, data, wrap):
    document = encode(Ext(code, data))
    assert answered(PLAIN.loads(sealed(encode([1, Ext(2, b"\x91" + document)]) if wrap else document)))


@given(which=st.sampled_from(WRITTEN), at=st.floats(0, 1, exclude_max=True), byte=st.integers(1, 255))
@settings(max_examples=200, deadline=None)
def test_a_changed_byte_is_always_noticed(which, at, byte):
    data = bytearray(which)
    data[int(at * len(data))] ^= byte
    for serializer in ALL[:3]:
        assert type(serializer.loads(bytes(data))) is Unreadable


@given(which=st.sampled_from(WRITTEN), cuts=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.binary(max_size=8)), min_size=1, max_size=3))
@settings(max_examples=200, deadline=None)
def test_bytes_cut_out_and_put_in_are_answered(which, cuts):
    data = which
    for start, length, put in cuts:
        begin = int(start * len(data))
        data = data[:begin] + put + data[begin + int(length * 20):]
    for serializer in ALL[:3]:
        assert answered(serializer.loads(data))
        body = data[header.read(which, 1 << 20).body:]
        assert answered(serializer.loads(sealed(body, data[3] if len(data) > 3 else 0)))


@given(value=values(), at=st.floats(0, 1, exclude_max=True), byte=st.integers(1, 255))
@settings(max_examples=120, deadline=None)
def test_a_document_changed_under_a_good_checksum_is_answered(value, at, byte):
    body = bytearray(plain.Plain(REGISTRY).dumps(value))
    body[int(at * len(body))] ^= byte
    assert answered(PLAIN.loads(sealed(bytes(body))))


@pytest.mark.parametrize("data", WRITTEN[:10:3] + WRITTEN[-1:], ids=range(5))
def test_every_truncation_is_noticed(data):
    for length in range(len(data)):
        assert PLAIN.loads(data[:length]) == PICKLED.loads(data[:length]) == Unreadable("truncated")
    assert PLAIN.loads(data + b"x") == PICKLED.loads(data + b"x") == Unreadable("damaged")


@pytest.mark.parametrize("data", [b"hello", b"{}", pickle.dumps(1), encode([1]), zstandard.compress(b"x" * 99), b"\x1f\x8b\x08", b"\x00" * 100, b"\xc1\xad\x01"])
def test_what_others_wrote_is_foreign(data):
    for serializer in ALL:
        assert serializer.loads(data) == Unreadable("foreign")
    assert PLAIN.loads(b"") == PLAIN.loads(b"\xc1") == PLAIN.loads(b"\xc1\xac") == Unreadable("truncated")


# -- headers


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_times_that_are_none_are_damage(bad):
    assert PLAIN.loads(sealed(b"\x05", birth=bad)) == Unreadable("damaged")
    soft = PLAIN.loads(sealed(b"\x05", 1, fields=struct.pack("<d", bad)))
    hard = PLAIN.loads(sealed(b"\x05", 2, fields=struct.pack("<d", bad)))
    if bad == float("inf"):
        assert soft.soft == hard.hard == bad
    else:
        assert soft == hard == Unreadable("damaged")
    assert PLAIN.loads(sealed(b"\x05", 4, fields=struct.pack("<d", bad))) == PLAIN.loads(sealed(b"\x05", 4, fields=struct.pack("<d", -1))) == Unreadable("damaged")


@pytest.mark.parametrize("length", [0, 1, 22, 2**31, 2**32 - 1])
def test_a_wrong_length_is_noticed(length):
    assert PLAIN.loads(sealed(b"\x05", length=length)) == Unreadable("truncated" if length > 24 else "damaged")


def test_lengths_of_extras_are_checked():
    data = bytearray(sealed(b"\x05"))
    data[13:15] = b"\xff\xff"
    data[4:8] = struct.pack("<I", zlib.crc32(data[:4] + data[8:]))
    assert PLAIN.loads(bytes(data)) == Unreadable("damaged")
    for extras in (b"\x05", b"\x05\x01", b"\x05\x01\x00", b"\x05\x02\x00a", b"\x01\x01\x00\xff"):
        assert PLAIN.loads(sealed(b"\x05", extras=extras)) == Unreadable("damaged")
    assert PLAIN.loads(sealed(b"", 64)) == Unreadable("damaged")        # no room for the signature


# -- documents


@pytest.mark.parametrize("body", [
    b"\x91" * 1_000_000, b"\x81" * 1_000_000, b"\x81\xa1a" * 500_000, b"\xdd\xff\xff\xff\xff" * 1000, b"\xdf\xff\xff\xff\xff" * 1000,
    b"\xdd\x7f\xff\xff\xff", b"\xdf\x7f\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xc9\xff\xff\xff\xff\x02", b"\xc1", b"", b"\x05\x05",
], ids=lambda body: f"{body[:5].hex()}-{len(body)}")
def test_depth_and_length_fields_that_lie_cost_nothing(body):
    assert_cheap(sealed(body))
    for code in (1, 2, 3, 4, 5, 19, 20, 32):
        assert_cheap(sealed(encode(Ext(code, body))))


def assert_cheap(data: bytes, reason: str = "value", most: int = 64 << 20) -> None:
    tracemalloc.start()
    try:
        read = PLAIN.loads(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert type(read) is Unreadable and read.reason in (reason, "schema") and peak < most


@pytest.mark.parametrize("code", [1, 2, 4, 5, 32])
def test_extensions_nested_without_end_are_refused_in_any_thread(code):
    body = b"\x90"
    for level in range(20_000):
        if code == 32:
            body = encode(Ext(code, next(iter(REGISTRY._own.values())).mark + b"\x91" + body))
        else:
            body = encode(Ext(code, b"\x91" + body if level % 2 else b"\x91\x91" + body))
        if len(body) > 60_000:
            break
    assert in_a_small_thread(body) == Unreadable("value") == PLAIN.loads(sealed(body))


def test_more_than_was_ever_written_is_refused_long_before_the_stack_ends():
    for depth, readable in ((plain.DEPTH, True), (plain.DEPTH + 10, False)):
        for wrap in (lambda body: encode(Ext(2, b"\x91" + body)), lambda body: encode(Ext(1, b"\x81\xa1a" + body))):
            body = b"\xc0"
            for _ in range(depth):
                body = wrap(body)
            assert bool(PLAIN.loads(sealed(body))) is readable


def test_no_zone_is_looked_for_outside_of_the_database(monkeypatch):
    asked = []
    monkeypatch.setattr(plain.zoneinfo, "ZoneInfo", lambda key: asked.append(key))
    for key in (b"../../etc/passwd", b"/etc/passwd", b"a/../../b", b"tzdata.zi", b"os.path", b"a\\b", b"C:", b"a//b", b"a/", b"a\n", b"a" * 41, b"a/b/c/d/e"):
        assert PLAIN.loads(sealed(encode(Ext(16, key)))) == Unreadable("value")
    assert not asked and PLAIN.loads(sealed(encode(Ext(16, b"Europe/Berlin")))) and asked == ["Europe/Berlin"]


def in_a_small_thread(body: bytes) -> Any:
    """What is read where the stack has a sixteenth of its usual size: C code that recurses would end the process."""
    reads = []
    before = threading.stack_size(512 << 10)
    try:
        thread = threading.Thread(target=lambda: reads.append(PLAIN.loads(sealed(body))))
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    (read,) = reads
    return read


@pytest.mark.parametrize("one", [b"\x91", b"\x81\xa1a", b"\x92\xc0", b"\xdc\x00\x01", b"\xde\x00\x01\xa1a"])
def test_natives_nest_so_deep_and_no_deeper(one):
    assert PLAIN.loads(sealed(one * plain.RUN + b"\xc0"))
    for depth in (plain.RUN + 1, 5_000, 1_000_000):
        assert in_a_small_thread(one * depth + b"\xc0") == Unreadable("value")


def test_keys_that_collide_are_refused_before_they_are_compared():
    """A hundred thousand of them take minutes to put into a dict."""
    modulus = sys.hash_info.modulus
    keys = [Ext(6, (number * modulus).to_bytes(12, "little", signed=True)) for number in range(1, 100_001)]
    for body in (encode(Ext(5, encode([part for key in keys for part in (key, 0)]))), encode(Ext(3, encode(keys))), encode(Ext(4, encode(keys)))):
        assert PLAIN.loads(sealed(body)) == Unreadable("value")
    assert PLAIN.loads(sealed(encode(Ext(3, encode(keys[:1000]))))).value == {number * modulus for number in range(1, 1001)}
    honest = {number: None for number in range(-50_000, 50_000)}
    assert PLAIN.loads(PLAIN.dumps(honest, birth=0)).value == honest
    for native in (encode({1: 1}), encode({1.5: 1}), encode({None: 1}), encode({b"a": 1}), encode({(1, 2): 1}), b"\x81\xd4\x06\x01\x01"):
        assert PLAIN.loads(sealed(native)) == Unreadable("value")        # only strings, whose hashes nobody knows


def test_reading_near_the_end_of_the_stack_is_answered():
    data = PLAIN.dumps(((((1,),),),), birth=0)
    answers = set()

    def deeper() -> None:
        try:
            deeper()
        except RecursionError:
            pass
        try:
            answers.add(type(PLAIN.loads(data)))
        except RecursionError:
            answers.add(None)       # the call itself found no room: nothing of ours ran

    deeper()
    assert {Envelope, Unreadable} <= answers <= {Envelope, Unreadable, None}


@pytest.mark.parametrize("document", [
    Ext(3, b"\x91\x90"), Ext(5, encode([[], 1])), Ext(5, encode([1])), Ext(4, encode([{}])), Ext(2, encode("abc")), Ext(3, encode(5)),
    Ext(11, b""), Ext(11, b"\x00" * 12), Ext(11, struct.pack(">HBBBBBIB", 2024, 13, 1, 0, 0, 0, 0, 0)), Ext(11, struct.pack(">HBBBBBIB", 2024, 1, 1, 0, 0, 0, 0, 2)),
    Ext(11, struct.pack(">HBBBBBIB", 2024, 1, 1, 0, 0, 0, 0, 0) + encode("UTC")), Ext(12, b"\x00\x00\x01\x01"), Ext(12, b"\x07\xe8\x01\x01\x01"), Ext(13, b"\x18" + b"\x00" * 7),
    Ext(14, struct.pack(">iII", 2**31 - 1, 0, 0)), Ext(15, struct.pack(">iII", 2, 0, 0)), Ext(16, b"../../etc/passwd"), Ext(16, b"/etc/passwd"), Ext(16, b"os"), Ext(16, b"No/Where"),
    Ext(16, b""), Ext(16, "é".encode()), Ext(17, b"x"), Ext(17, b""), Ext(17, "١".encode()), Ext(18, b"\x00" * 15), Ext(10, b"\x00" * 15), Ext(7, b"\xff"), Ext(32, b""), Ext(19, b"\x00"),
], ids=lambda document: f"{document.code}-{bytes(document.data).hex()[:20]}")
def test_payloads_that_make_no_value_are_refused(document):
    assert PLAIN.loads(sealed(encode(document))).reason in ("value", "schema")
    assert PLAIN.loads(sealed(encode({"a": [document]}))).reason in ("value", "schema")


def test_a_code_of_a_later_release_is_of_another_version():
    for code in (0, 23, 31, 33, 127, -128, -2):
        assert PLAIN.loads(sealed(encode([Ext(code, b"x")]))) == Unreadable("version")


def test_an_object_of_a_registered_type_with_other_parts_is_refused():
    for cls, parts in ((User, []), (User, ["a"] * 5), (Point, [1.0]), (Point, [1, 2, 3]), (Colour, ["__class__"]), (Colour, ["mro"]), (Colour, [[]]), (Colour, []), (Colour, ["RED", "RED"])):
        assert PLAIN.loads(sealed(encode(Ext(32, REGISTRY._own[cls].mark + encode(parts))))).reason == "value"
    assert PLAIN.loads(sealed(encode(Ext(32, b"os.systm" + encode(["true"]))))) == Unreadable("schema")
    assert PLAIN.loads(sealed(encode(5), 16, fields=b"os.systm")) == Unreadable("schema")


def an_array(name: str, shape: Any, content: bytes, fortran: Any = False) -> bytes:
    head = encode([name, shape, fortran])
    return struct.pack(">H", len(head)) + head + content


@pytest.mark.parametrize("payload", [
    an_array("|O", [1], b"\x00" * 8), an_array("O", [1], b"\x00" * 8), an_array("<f8,<i4", [1], b"\x00" * 12), an_array("|V4", [1], b"\x00" * 4), an_array("<f16", [1], b"\x00" * 16),
    an_array("f8", [1], b"\x00" * 8), an_array("float64", [1], b"\x00" * 8), an_array("<U0", [10**9], b""), an_array("|S0", [10**9], b""), an_array("<M8[0s]", [1], b"\x00" * 8),
    an_array("<f8", [10**18], b""), an_array("<f8", [2**62, 4], b""), an_array("<f8", [-1], b"\x00" * 8), an_array("<f8", [-1, -1], b"\x00" * 8), an_array("<f8", [2], b"\x00" * 8),
    an_array("<f8", [1], b"\x00" * 9), an_array("<f8", [1] * 33, b"\x00" * 8), an_array("<f8", 1, b"\x00" * 8), an_array("<f8", [1.5], b"\x00" * 8), an_array("|b1", [2], b"\x01\x02"),
    an_array("<U1", [1], b"\xff\xff\xff\x7f"), an_array(">U1", [1], b"\x7f\xff\xff\xff"), an_array("|S999999999", [1], b"x"), an_array("<f8", [1], b"\x00" * 8, "x"), b"", b"\xff\xff",
    an_array("<M8[1000000000s]", [1], b"\x00" * 8), an_array("<f8\n", [1], b"\x00" * 8),
], ids=lambda payload: payload[2:24].decode("latin-1"))
def test_arrays_that_are_none_are_refused_before_anything_is_made(payload):
    for code in (19, 20):
        assert_cheap(sealed(encode(Ext(code, payload))), most=1 << 20)


def test_a_scalar_has_no_sides():
    assert PLAIN.loads(sealed(encode(Ext(20, an_array("<f8", [1], b"\x00" * 8))))) == Unreadable("value")


def test_empty_arrays_of_any_claimed_shape_take_no_memory():
    read = PLAIN.loads(sealed(encode(Ext(19, an_array("<f8", [0, 2**40], b"")))))
    assert answered(read)
    assert_cheap(sealed(encode(Ext(19, an_array("<f8", [0, 2**62, 2**62], b"")))), most=1 << 20)


@pytest.mark.parametrize("one", [b"\x90", b"\x80", b"\xd4\x03\x90"])
def test_a_byte_grows_to_so_many_and_no_more(one):
    """What the page says of memory: the smallest documents of the largest objects."""
    number = (1 << 16) // len(one)
    data = sealed(b"\xdd" + struct.pack(">I", number) + one * number)
    tracemalloc.start()
    try:
        read = PLAIN.loads(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(read.value) == number and peak < 80 * len(data)


# -- compression


def test_a_bomb_is_not_set_off():
    bomb = zstandard.ZstdCompressor(19).compress(b"\x00" * (64 << 20))
    assert len(bomb) < 10_000
    assert_cheap(sealed(bomb, 32), "too large", most=1 << 20)
    assert Serializer(limit=1000).loads(SMALL.dumps("x" * 1100, birth=0)) == Unreadable("too large")


def test_frames_that_lie_are_refused():
    honest = zstandard.compress(encode("x" * 1000))
    unknown = zstandard.ZstdCompressor(write_content_size=False).compress(encode("x" * 1000))
    assert PLAIN.loads(sealed(honest, 32)).value == "x" * 1000
    endless = zstandard.ZstdCompressor(write_content_size=False).compress(b"\x00" * (64 << 20))
    for body in (unknown, endless, honest + b"x", honest + honest, honest[:-3], b"", b"\x28\xb5\x2f\xfd", b"x" * 50):
        assert_cheap(sealed(body, 32), "damaged", most=2 << 20)
    # a frame that claims to hold 2**50 bytes; one that wants a window of 2**31 for five
    assert_cheap(sealed(b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 2**50) + b"\x01\x00\x00", 32), "too large", most=1 << 20)
    assert_cheap(sealed(b"\x28\xb5\x2f\xfd\xc0\xa8" + struct.pack("<Q", 5) + b"\x29\x00\x00hello", 32), "too large", most=1 << 20)


# -- signatures and pickles


class Planted:
    """A pickle that leaves a trace if it is ever loaded."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


@pytest.fixture
def planted(tmp_path):
    path = tmp_path / "ran"
    pickle.loads(pickle.dumps(Planted(str(path))))
    path.rmdir()                        # the trap works
    yield pickle.dumps(Planted(str(path)))
    assert not path.exists()


def test_a_planted_pickle_is_never_loaded(planted):
    forged = Serializer(Signed(OTHER)).dumps(1, birth=0)
    for data in (planted, sealed(planted, codec=2), sealed(planted, 64, codec=2), sealed(b"\x00" * 32 + planted, 64, codec=2), sealed(planted, codec=1), sealed(planted, codec=3),
                 sealed(forged[23:55] + planted, 64, codec=2), sealed(planted, codec=0, extras=b"\x01\x06\x00pickle"), sealed(encode(Ext(32, planted))), sealed(encode(planted)), sealed(encode(Ext(8, planted))),
                 sealed(hmac.digest(b"", planted, "sha256") + planted, 64, codec=2)):
        for serializer in (PLAIN, SMALL, PICKLED, Serializer(Signed([KEY, OTHER]))):
            assert answered(serializer.loads(data))


def test_whoever_knows_the_key_is_believed(tmp_path):
    data = PICKLED.dumps(Planted(str(tmp_path / "ran")), birth=0)
    assert PICKLED.loads(data).value is None and (tmp_path / "ran").exists()


def test_every_byte_is_covered_by_the_signature():
    data = Serializer(Signed(KEY), compress_above=100).dumps({"a": "x" * 300}, birth=1.0, soft=2.0, hard=3.0, cost=1.0, digest=5)
    for at in range(len(data)):
        for bit in (1, 128):
            changed = bytearray(data)
            changed[at] ^= bit
            changed[4:8] = struct.pack("<I", zlib.crc32(changed[:4] + changed[8:]))     # as who knows the format would
            if bytes(changed) != data:
                assert type(PICKLED.loads(bytes(changed))) is Unreadable


def test_a_stripped_signature_or_another_codec_is_refused():
    signed, bare = PICKLED.dumps([1], birth=0), PLAIN.dumps([1], birth=0)
    body = pickle.dumps([1])
    assert PICKLED.loads(sealed(body, codec=2)) == Unreadable("signature")
    assert PICKLED.loads(bare) == PLAIN.loads(signed) == Unreadable("codec")
    assert PICKLED.loads(sealed(b"\x00" * 32 + body, 64, codec=2)) == Unreadable("signature")


def test_keys_rotate():
    old, new = Serializer(Signed(KEY)), Serializer(Signed([OTHER, KEY]))
    assert new.loads(old.dumps(1, birth=0)).value == 1
    assert old.loads(new.dumps(1, birth=0)) == Unreadable("signature")
    assert Serializer(Signed(OTHER)).loads(new.dumps(1, birth=0)).value == 1


def test_a_value_is_not_read_in_the_place_of_another():
    data = PICKLED.dumps("admin", birth=0, context=b"role:1")
    assert PICKLED.loads(data, context=b"role:1").value == "admin"
    assert PICKLED.loads(data, context=b"role:2") == PICKLED.loads(data) == Unreadable("signature")


@pytest.mark.parametrize(("key", "error"), [(b"short", ValueError), ("a str of enough characters", TypeError), ([], ValueError), ([KEY, b"short"], ValueError), ([KEY, 5], TypeError), (b"", ValueError)])
def test_a_key_that_is_none_is_refused(key, error):
    with pytest.raises(error, match=r"^key: "):
        Signed(key)
    with pytest.raises(ValueError, match=r"^protocol: "):
        Signed(KEY, protocol=99)


def test_keys_stay_out_of_sight():
    signed = Signed([KEY, OTHER])
    assert repr(signed) == "Signed(2 keys)" and "Signed(2 keys)" in repr(Serializer(signed)) and repr(Signed(KEY)) == "Signed(1 key)"
    with pytest.raises(TypeError, match="secret"):
        pickle.dumps(signed)


def test_a_signed_value_that_cannot_be_unpickled_is_a_value_that_is_none(monkeypatch):
    cls = type("Gone", (), {"__module__": __name__})
    monkeypatch.setitem(globals(), "Gone", cls)
    data = PICKLED.dumps(cls(), birth=0)
    monkeypatch.delitem(globals(), "Gone")
    assert repr(PICKLED.loads(data)) == "Unreadable('value', 'AttributeError')"


@pytest.mark.slow
@pytest.mark.parametrize("serializer", [PLAIN, PICKLED], ids=["msgpack", "signed"])
def test_many_damaged_values_are_answered(serializer):
    random = np.random.default_rng(7)
    reasons = dict.fromkeys(Unreadable.REASONS, 0)
    for _ in range(50_000):
        data = bytearray(WRITTEN[random.integers(len(WRITTEN))])
        for _ in range(random.integers(1, 5)):
            data[random.integers(len(data))] = random.integers(256)
        if random.random() < 0.7:
            data[4:8] = struct.pack("<I", zlib.crc32(data[:4] + data[8:]))
        read = serializer.loads(bytes(data))
        assert answered(read)
        if not read:
            reasons[read.reason] += 1
    assert reasons["damaged"] and reasons["codec"] and sum(reasons.values()) > 10_000


