"""What any version wrote is read by those that come after it, and what a later one writes is a miss or is read, never a fault."""
from __future__ import annotations

import random
import struct
import zlib
from typing import Any

import pytest
import wire_golden
from hypothesis import given
from hypothesis import strategies as st
from wire_golden import CASES, FOLDER, PLAIN
from wire_values import same

from adaptcache.wire import Envelope, Serializer, Unreadable, header
from adaptcache.wire.header import Header
from adaptcache.wire.refusal import Refused


def test_every_golden_file_has_its_case_and_every_case_its_file():
    assert {path.stem for path in FOLDER.glob("*.bin")} == set(CASES)
    assert {int(name.partition("-")[0]) for name in CASES} == set(header.READERS) == set(range(1, header.VERSION + 1))


@pytest.mark.parametrize("name", CASES)
def test_a_golden_file_reads_as_the_value_that_was_written(name):
    reader, value, fields, *_ = CASES[name]
    read = reader.loads((FOLDER / f"{name}.bin").read_bytes(), context=wire_golden.context(name))
    assert isinstance(read, Envelope), read
    assert same(read.value, value)
    expected = {"soft": None, "hard": None, "cost": 0.0, "digest": None, **fields, "version": int(name[0])}
    assert {field: getattr(read, field) for field in expected} == expected


@pytest.mark.parametrize("name", [name for name in CASES if "-set" not in name and "containers" not in name])
def test_what_is_written_today_is_what_was_written_then(name):
    """Byte for byte: nothing moved unnoticed. (zstd and pickle are free to pack otherwise in other releases.)"""
    if "compressed" in name or "signed" in name:
        return
    reader, value, fields, *_ = CASES[name]
    assert reader.dumps(value, **fields) == (FOLDER / f"{name}.bin").read_bytes()


@pytest.mark.parametrize("version", [0, 2, 3, 127, 255])
def test_another_version_is_a_miss_of_its_own_kind(version):
    data = PLAIN.dumps([1, 2], birth=0.0)
    for rest in (data[3:], b"", b"\x00" * 50):
        assert PLAIN.loads(data[:2] + bytes((version,)) + rest) == Unreadable("version")


def test_flags_that_version_1_does_not_have_are_of_another():
    data = bytearray(PLAIN.dumps([1, 2], birth=0.0))
    data[3] |= 128
    assert PLAIN.loads(bytes(data)) == Unreadable("version")


def with_extras(data: bytes, extras: bytes) -> bytes:
    """An envelope of version 1 as a later release might write it, with fields that this one has not heard of."""
    head = header.read(data, 1 << 20)
    rest = bytearray(data[8:head.body] + extras + data[head.body:])
    struct.pack_into("<I", rest, 0, 8 + len(rest))
    struct.pack_into("<H", rest, 5, struct.unpack_from("<H", rest, 5)[0] + len(extras))
    return data[:4] + struct.pack("<I", zlib.crc32(data[:4] + rest)) + bytes(rest)


@given(fields=st.lists(st.tuples(st.integers(2, 255), st.binary(max_size=30)), max_size=5))
def test_fields_that_are_not_known_are_skipped_unless_they_must_be_understood(fields):
    extras = b"".join(struct.pack("<BH", tag, len(value)) + value for tag, value in fields)
    for serializer, name in ((PLAIN, "1-fields"), (wire_golden.CUSTOM, "1-custom")):
        data = (FOLDER / f"{name}.bin").read_bytes()
        read = serializer.loads(with_extras(data, extras))
        if any(tag >= 128 for tag, _ in fields):
            assert read == Unreadable("version")
        else:
            assert read == serializer.loads(data) and read


def read_2(data: bytes) -> Header:
    """A version 2 as it may come: other places, a birth in milliseconds, another checksum."""
    if len(data) < 15 or zlib.adler32(data[7:]) != struct.unpack_from(">I", data, 3)[0]:
        raise Refused("damaged")
    return Header(2, 0, 1, "", struct.unpack_from(">Q", data, 7)[0] / 1000, None, None, 0.0, None, b"", b"", b"", 15)


def write_2(value: Any, birth: float) -> bytes:
    rest = struct.pack(">Q", int(birth * 1000)) + PLAIN._encode(value)
    return header.MAGIC + b"\x02" + struct.pack(">I", zlib.adler32(rest)) + rest


def test_a_release_that_adds_a_version_reads_all_before_it(monkeypatch):
    monkeypatch.setitem(header.READERS, 2, read_2)
    for name, (reader, value, *_) in CASES.items():
        read = reader.loads((FOLDER / f"{name}.bin").read_bytes(), context=wire_golden.context(name))
        assert read.version == 1 and same(read.value, value)
    assert PLAIN.loads(write_2((1, "a"), 5.5)) == Envelope((1, "a"), 5.5, None, None, 0.0, None, 2)
    assert PLAIN.loads(write_2((1, "a"), 5.5)[:-1]) == Unreadable("damaged")
    assert PLAIN.loads(header.MAGIC + b"\x03") == Unreadable("version")


def test_a_fleet_of_two_versions_reads_right_values_or_misses(monkeypatch):
    """Old and new workers on one store, with entries that come and go: each reads what it can and loads the rest."""
    store: dict[int, bytes] = {}
    draw = random.Random(1)
    unread = {"old": 0, "new": 0}
    read = dict(unread)
    for turn in range(2000):
        key, who = draw.randrange(20), "new" if draw.random() < turn / 2000 else "old"      # the new ones come in, one by one
        value = {"key": key, "parts": (key, str(key))}
        if draw.random() < 0.2:
            store.pop(key, None)
        with monkeypatch.context() as release:
            if who == "new":
                release.setitem(header.READERS, 2, read_2)
            found = PLAIN.loads(store.get(key, b""))
        if found:
            assert same(found.value, value)
            read[who] += 1
        else:
            assert found.reason == ("version" if key in store else "truncated")
            unread[who] += key in store
            store[key] = write_2(value, float(turn)) if who == "new" else PLAIN.dumps(value, birth=float(turn))
    assert unread["new"] == 0 < unread["old"] and min(read.values()) > 500


def test_a_serializer_of_today_reads_with_options_of_its_own():
    """Compression and limits are the writer's and the reader's own affair."""
    data = (FOLDER / "1-compressed.bin").read_bytes()
    assert Serializer(compress_above=None).loads(data) == Serializer(compress_above=0).loads(data) == PLAIN.loads(data)
    assert Serializer(limit=100).loads(data) == Unreadable("too large")
