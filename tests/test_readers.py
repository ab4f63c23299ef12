"""Files become traces, or an error that names the file, the line and the column."""
from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adaptcache.errors import TraceError
from adaptcache.simulate import Trace, read
from adaptcache.simulate.trace import dense, is_dense


def npz(path: Path, **columns: Any) -> Path:
    np.savez(path, **columns)
    return path


def text(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


def refused(path: Path, *words: str, **options: Any) -> str:
    """The message with which a file is refused; it names the file and every one of `words`."""
    with pytest.raises(TraceError) as caught:
        read(path, **options)
    message = str(caught.value)
    for word in (str(path), *words):
        assert word in message
    return message


# npz

def test_npz_passes_every_column_on(tmp_path: Path) -> None:
    trace = read(npz(
        tmp_path / "full.npz", time_s=[0.0, 1.5, 1.5], key=np.array([0, 1, 0], np.uint32), size=np.array([5, 6, 7], np.uint32),
        op=np.array([0, 1, 2], np.uint8), ttl_s=np.array([0, 60, 0], np.uint32), version=np.array([0, 0, 1], np.uint32),
        namespace=np.array([0, 1, 0], np.uint16), feat_kind=np.array([3, 4, 3], np.uint16),
        feat_depth=np.array([0.5, 1, 2], np.float32), cost=[1.0, 2.0, 3.0], other=["not", "for", "us"],
    ))
    assert (trace.name, len(trace), trace.n_keys) == ("full", 3, 2)
    expected = {"key": np.uint32, "time": np.float64, "size": np.float64, "op": np.uint8, "ttl": np.float64,
                "version": np.uint32, "namespace": np.uint32, "cost": np.float64}
    for name, dtype in expected.items():
        column = getattr(trace, name)
        assert column.dtype == dtype and column.flags.c_contiguous and len(column) == 3
    assert trace.features["kind"].dtype == np.uint16  # a category
    assert trace.features["depth"].dtype == np.float32  # a number
    assert trace.ttl is not None and trace.ttl.tolist() == [0, 60, 0]


def test_npz_keys_may_be_any_integers_or_strings(tmp_path: Path) -> None:
    for keys in (np.array([2**63, 7, 2**63], np.uint64), np.array([0, 2**63 + 5, 0], np.uint64), ["x", "y", "x"], [-5, 4, -5]):
        trace = read(npz(tmp_path / "keys.npz", key=keys))
        assert trace.key.tolist() == [0, 1, 0]
        assert trace.time is None and trace.size is None


def test_limit_keeps_the_first_rows(tmp_path: Path) -> None:
    trace = read(npz(tmp_path / "a.npz", key=[0, 1, 0, 2], time=[0, 1, 2, 3]), limit=2)
    assert (len(trace), trace.n_keys) == (2, 2)
    assert len(read(text(tmp_path / "a.csv", "key\na\nb\nc\n"), limit=2)) == 2


@pytest.mark.parametrize(("columns", "words"), [
    ({"time_s": [0.0, 1.0]}, ["column key", "missing"]),
    ({"key": np.array([], np.uint32)}, ["column key", "at least one request"]),
    ({"key": [0.0, 1.0]}, ["column key", "float64", "integers are wanted"]),
    ({"key": [[0, 1]]}, ["column key", "shape"]),
    ({"key": 3}, ["column key", "shape"]),
    ({"key": [0, 1], "time_s": [0.0]}, ["column time", "1 rows", "2"]),
    ({"key": [0, 1], "time_s": ["a", "b"]}, ["column time", "numbers are wanted"]),
    ({"key": [0, 1, 0], "time_s": [0.0, 2.0, 1.0]}, ["row 2", "column time", "goes back"]),
    ({"key": [0, 1], "time_s": [0.0, np.nan]}, ["row 1", "column time", "nan", "finite"]),
    ({"key": [0, 1], "size": [1.0, -1.0]}, ["row 1", "column size", "negative"]),
    ({"key": [0, 1], "op": np.array([0, 3], np.uint8)}, ["row 1", "column op", "0 get, 1 set, 2 delete"]),
    ({"key": [0, 1], "version": [0.0, 1.0]}, ["column version", "integers"]),
    ({"key": [0, 1], "version": [0, 2**40]}, ["row 1", "column version", "too large"]),
    ({"key": [0, 1], "feat_x": [0.0, np.inf]}, ["row 1", "column feat_x", "unknown"]),
    ({"key": [0, 1], "feat_x": [0.0, 1e300]}, ["row 1", "column feat_x", "float32"]),
    ({"key": [0, 1], "cost": [0.0, -0.5]}, ["row 1", "column cost", "negative"]),
    ({"key": [0], "time": [0.0], "time_s": [0.0]}, ["time_s", "keep one"]),
    ({"key": np.array([{}, {}])}, ["column key", "never unpickled"]),
])
def test_npz_with_a_bad_column_is_refused(tmp_path: Path, columns: dict[str, Any], words: list[str]) -> None:
    refused(npz(tmp_path / "bad.npz", **columns), *words)


def test_a_truncated_npz_is_refused_wherever_it_was_cut(tmp_path: Path) -> None:
    whole = npz(tmp_path / "whole.npz", key=np.arange(500, dtype=np.uint32), time_s=np.arange(500.0)).read_bytes()
    cut = tmp_path / "cut.npz"
    for size in range(1, len(whole), 211):
        cut.write_bytes(whole[:size])
        refused(cut)


def test_a_damaged_npz_is_refused_or_still_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "damaged.npz"
    np.savez_compressed(path, key=np.arange(500, dtype=np.uint32), time_s=np.arange(500.0))
    whole = path.read_bytes()
    for at in range(0, len(whole), 37):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1:])
        try:
            assert isinstance(read(path), Trace)
        except TraceError as error:
            assert str(path) in str(error)


def test_what_is_not_a_file_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "absent.npz", "no such file")
    refused(tmp_path, "directory")
    refused(text(tmp_path / "empty.csv", ""), "empty")
    refused(text(tmp_path / "empty.npz", ""), "empty")
    refused(text(tmp_path / "words.npz", "no archive"), "npz")
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    refused(tmp_path / "binary", "neither text nor npz")


def test_an_unknown_format_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'xml'.*npz, csv, access-log, synthetic"):
        read(text(tmp_path / "a.csv", "key\n1\n"), format="xml")


# csv

def test_csv_header_names_the_columns_in_any_order(tmp_path: Path) -> None:
    trace = read(text(tmp_path / "a.csv", (
        "op,key,timestamp,size,ttl,version,namespace,cost,feat_n,feat_w,ignored\n"
        "get,x,1.5,10,,1,web,0.5,2,red,?\n"
        'SET,"y,z",2,20,60,2,api,1,3,blue,?\n'
        "2,x,2,30,0,2,web,2,4.5,red,?\n"
    )))
    assert (trace.name, trace.key.tolist()) == ("a", [0, 1, 0])
    assert trace.time is not None and trace.time.tolist() == [1.5, 2, 2]
    assert trace.op is not None and trace.op.tolist() == [0, 1, 2]
    assert trace.ttl is not None and trace.ttl.tolist() == [0, 60, 0]
    assert trace.version is not None and trace.version.tolist() == [1, 2, 2]
    assert trace.namespace is not None and trace.namespace.tolist() == [0, 1, 0]
    assert trace.cost is not None and trace.cost.tolist() == [0.5, 1, 2]
    assert trace.features["n"].tolist() == [2, 3, 4.5]  # numbers
    assert trace.features["w"].dtype.kind == "u" and trace.features["w"].tolist() == [0, 1, 0]  # categories


def test_csv_without_a_header_is_time_key_size(tmp_path: Path) -> None:
    trace = read(text(tmp_path / "two.csv", "0,a\n1,b\n3,a\n"))
    assert trace.time is not None and trace.time.tolist() == [0, 1, 3] and trace.size is None
    trace = read(text(tmp_path / "three.csv", "0.5,a,10\n1.5,b,20\n"))
    assert trace.size is not None and trace.size.tolist() == [10, 20] and len(trace) == 2


def test_csv_may_be_gzipped_blank_lined_marked_and_tabbed(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress("\ufeffkey\ttime\r\n\r\na\t1\r\nb\t2\r\n".encode()))
    trace = read(path)
    assert (trace.name, trace.key.tolist()) == ("a", [0, 1])


def test_a_gzip_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.csv.gz"
    rows = "".join(f"{i},k{i * 7919 % 997}\n" for i in range(5000))
    path.write_bytes(gzip.compress(rows.encode())[:-3000])
    refused(path, "cut short")


@pytest.mark.parametrize(("content", "words"), [
    ("time,size\n1,2\n", ["line 1", "no column named key", "time, size"]),
    ("a\nb\n", ["no column named key"]),
    ("key,time\n", ["no rows"]),
    ("key,time\na,1\nb\n", ["line 3", "1 fields", "2"]),
    ("key,time\na,1\nb,soon\n", ["line 3", "column time", "'soon'", "a number"]),
    ("key,time\na,5\n\nb,4\n", ["line 4", "column time", "goes back"]),
    ("key,time\na,5\nb,nan\n", ["line 3", "column time", "finite"]),
    ("0,a\n1,b\n0.5,a\n", ["line 3", "column time", "goes back"]),
    ("key,size\na,-1\n", ["line 2", "column size", "negative"]),
    ("key,size\na,\n", ["line 2", "column size", "''", "a number"]),
    ("key,op\na,get\na,peek\n", ["line 3", "column op", "'peek'", "get, set, delete"]),
    ("key,version\na,1\na,1.5\n", ["line 3", "column version", "whole number"]),
    ("key,feat_x\na,1\na,\n", ["line 3", "column feat_x", "unknown"]),
    ("key,time,time_s\na,1,1\n", ["time_s", "keep one"]),
    ("key,key\na,b\n", ["keep one"]),
])
def test_a_bad_csv_is_refused_with_its_line(tmp_path: Path, content: str, words: list[str]) -> None:
    refused(text(tmp_path / "bad.csv", content), *words)


@pytest.mark.parametrize(("bad", "words"), [
    ("7,k,oops", ["column size", "'oops'"]), ("7,k", ["2 fields"]), ("99997.5,k,-4", ["column size", "negative"]),
])
def test_a_bad_line_far_down_is_found(tmp_path: Path, bad: str, words: list[str]) -> None:
    lines = ["time,key,size", *(f"{i},k{i % 100},1" for i in range(100_000))]
    lines.insert(99_999, bad)  # and so it is line 100,000
    refused(text(tmp_path / "long.csv", "\n".join(lines)), "line 100000", *words)


@given(st.lists(st.text(max_size=3)))
def test_dense_numbers_by_first_appearance(values: list[str]) -> None:
    ids = dense(np.array(values, dtype=np.str_)).tolist()
    # numpy drops trailing NULs of strings, so those are the values it saw.
    seen = list(dict.fromkeys(value.rstrip("\0") for value in values))
    assert ids == [seen.index(value.rstrip("\0")) for value in values]
    assert is_dense(np.array(ids, np.uint32))


SHAPES = st.sampled_from([
    "{}", "key,time\n{},{}\n", "{},{}\n{},{}\n", "key,op,size\n{},{},{}\n", "key,feat_x,version\n{},{},{}\n",
    '{} - - [{}] "{}" {} {}\n', '1.1.1.1 - - [10/Oct/2000:13:55:36 -0700] "{}" {} {} "{}" "{}"\n',
])
WORDS = st.sampled_from(["1", "2.5", "-1", "nan", "inf", "1e400", "get", "", '"', "GET / HTTP/1.1", "GET", "GET //?&= x", "200",
                         "10/Oct/2000:13:55:36 -0700", "00/Jan/0000:99:99:99 +9999", "\r", "\n", "\0", "\ud800"]) | st.text(max_size=5)


@given(SHAPES, st.lists(WORDS, min_size=5, max_size=5), st.sampled_from([None, "csv", "access-log", "npz"]))
def test_any_text_is_a_trace_or_refused(tmp_path_factory: pytest.TempPathFactory, shape: str, words: list[str],
                                        format: str | None) -> None:
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_bytes(shape.format(*words).encode("utf-8", "surrogatepass"))
    try:
        assert len(read(path, format)) > 0
    except TraceError as error:
        assert str(path) in str(error)


# Access logs

COMBINED = '{ip} - {user} [{time}] "{request}" {status} {sent} "{referer}" "curl/8"\n'


def combined(time: str = "10/Oct/2000:13:55:36 -0700", request: str = "GET /a/b.png HTTP/1.1", status: int = 200,
             sent: str = "2326", referer: str = "-", ip: str = "127.0.0.1", user: str = "-") -> str:
    return COMBINED.format(ip=ip, user=user, time=time, request=request, status=status, sent=sent, referer=referer)


def test_access_log_line_by_eye(tmp_path: Path) -> None:
    trace = read(text(tmp_path / "access.log", "".join((
        combined(),
        combined(request="GET /a/b.png HTTP/2.0", status=304, sent="-", referer="https://example.org/"),
        combined(request="HEAD /a/b.png HTTP/1.1", sent="0"),
        combined(request="GET /c?x=1&y=2 HTTP/1.1", ip="::1", user="frank o'hara"),
        combined(request="GET http://example.org/c?x=1&y=2 HTTP/1.1"),
        combined(request="GET / HTTP/1.0"),
    ))))
    assert (trace.name, trace.key.tolist()) == ("access.log", [0, 0, 1, 2, 2, 3])
    assert trace.time is not None and trace.time[0] == 971211336  # 20:55:36 UTC
    assert trace.size is not None and trace.size.tolist() == [2326, 0, 0, 2326, 2326, 2326]
    assert trace.namespace is not None and trace.namespace.tolist() == [0, 0, 0, 1, 1, 2]
    assert trace.features["status"].tolist() == [200, 304, 200, 200, 200, 200]
    assert trace.features["hour"].tolist() == [13] * 6
    assert trace.features["ext"].tolist() == [0, 0, 0, 1, 1, 1]
    assert trace.features["depth"].tolist() == [2, 2, 2, 1, 1, 0]
    assert trace.features["params"].tolist() == [0, 0, 0, 2, 2, 0]
    assert trace.features["referred"].tolist() == [0, 1, 0, 0, 0, 0]


def test_common_format_and_gzip_are_recognised(tmp_path: Path) -> None:
    path = tmp_path / "log.gz"
    path.write_bytes(gzip.compress(b'h - - [01/Jan/2024:00:00:00 +0000] "GET /x HTTP/1.1" 200 5\n' * 2))
    trace = read(path)
    assert trace.key.tolist() == [0, 0]
    assert trace.time is not None and trace.time.tolist() == [1704067200] * 2


def test_other_methods_and_broken_connections_are_left_out(tmp_path: Path) -> None:
    lines = [combined(request=request) for request in
             ("POST /a HTTP/1.1", "-", "", r"\x16\x03\x01\x02", "GET /kept HTTP/1.1", 'GET /say\\"hi\\" HTTP/1.1')]
    assert len(read(text(tmp_path / "log", "".join(lines)))) == 2
    refused(text(tmp_path / "posts", lines[0]), "no GET or HEAD")


def test_a_log_slightly_out_of_order_is_sorted_stably(tmp_path: Path) -> None:
    order = [("13:00:02", "late"), ("13:00:00", "a"), ("13:00:01", "b"), ("13:00:01", "c"), ("13:00:00", "b")]
    trace = read(text(tmp_path / "log", "".join(
        combined(time=f"10/Oct/2000:{clock} +0000", request=f"GET /{name} HTTP/1.1") for clock, name in order)))
    assert trace.time is not None and np.diff(trace.time).tolist() == [0, 1, 0, 1]
    assert trace.key.tolist() == [0, 1, 1, 2, 3]  # a b | b c | late
    assert trace.namespace is not None and trace.namespace.tolist() == [0, 1, 1, 2, 3]


def test_zones_are_honoured(tmp_path: Path) -> None:
    trace = read(text(tmp_path / "log", combined(time="10/Oct/2000:13:00:00 +0530")
                      + combined(time="10/Oct/2000:07:30:01 +0000")))
    assert trace.time is not None and np.diff(trace.time).tolist() == [1]


@pytest.mark.parametrize(("line", "words"), [
    ("what is this\n", ["line 3", "access log", "common or combined"]),
    (combined(time="32/Oct/2000:13:55:36 -0700"), ["line 3", "column time", "32/Oct"]),
    (combined(time="10/Foo/2000:13:55:36 -0700"), ["line 3", "column time"]),
    (combined(time="2000-10-10T13:55:36Z"), ["line 3", "column time", "zone is wanted"]),
])
def test_a_bad_log_line_is_refused(tmp_path: Path, line: str, words: list[str]) -> None:
    refused(text(tmp_path / "log", combined() + "\n" + line), *words)


# The recorded traces

@pytest.mark.traces
@pytest.mark.parametrize(("name", "rows", "keys", "features"), [
    ("cran_downloads", 62_400, 4_505, 6), ("lirs_loop", 505_500, 1_011, 0), ("git_updates_pig", 27_019, 4_016, 6),
    ("synth_kv_ttl", 300_000, 42_794, 0), ("dns_wrccdc_a", 11_968, 1_392, 6),
])
def test_recorded_traces_are_read_whole(name: str, rows: int, keys: int, features: int,
                                        trace_path: Callable[[str], Path]) -> None:
    trace = read(trace_path(name))
    assert (trace.name, len(trace), trace.n_keys, len(trace.features)) == (name, rows, keys, features)
    if features:
        assert trace.namespace is not None


def test_a_trace_built_by_hand_is_checked() -> None:
    with pytest.raises(TraceError, match="dense"):
        Trace("hand", np.array([1, 0]), 2)
    with pytest.raises(TraceError, match="n_keys is 3"):
        Trace("hand", np.array([0, 1]), 3)
    with pytest.raises(TraceError, match="hand: row 1, column feat_x"):
        Trace("hand", np.array([0, 1]), 2, features={"x": np.array([0.0, np.nan])})
