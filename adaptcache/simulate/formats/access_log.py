"""Access logs of nginx and Apache, common and combined format, as traces.

Key: method, path and query of GET and HEAD requests; other methods, and connections that never sent a
request line, are no cache traffic and are left out. Time: the log's own, with its zone, as seconds since
1970 UTC. Size: bytes sent. Namespace: first segment of the path. A line is written when its request ends,
so lines can stand slightly out of order; they are sorted, equal times staying as they were.

Features: status (known with the answer only), hour (of the log's own clock) and ext (file extension) are
categories; depth (segments), params (of the query) and referred (1 with a Referer) are numbers.
"""
from __future__ import annotations

import re
from collections.abc import Generator
from datetime import UTC, datetime, timedelta, timezone
from typing import Final, NamedTuple

import numpy as np

from adaptcache.errors import TraceError
from adaptcache.simulate.formats import lines
from adaptcache.simulate.formats.block import Block, Faults, Groups
from adaptcache.simulate.formats.fields import Fields
from adaptcache.simulate.formats.source import Source
from adaptcache.simulate.trace import Column, numbered

NAME: Final = "access-log"
ALIASES: Final = ("log", "nginx", "apache")
SUFFIXES: Final = ()
DISORDERLY: Final = True

# Whatever stands before the time (host, client, user) is not looked at, so prefixed formats work too.
LINE: Final = re.compile(
    rb'\S+ [^\[\n]*\[([^\]\n]+)\] "([^"\\\n]*(?:\\.[^"\\\n]*)*)" (\d{3}|-) (\d+|-)(?: "([^"\\\n]*(?:\\.[^"\\\n]*)*)")?'
)
TIME: Final = re.compile(r"(\d\d/[A-Z][a-z]{2}/\d{4}):(\d\d):(\d\d):(\d\d)(\.\d+)? ([+-]\d{4})$")
RIGHT_TIME: Final = "day/month/year:hour:minute:second zone is wanted, as in 10/Oct/2000:13:55:36 -0700"
MONTHS: Final = {name: number for number, name in enumerate(
    ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), start=1)}
RIGHT: Final = 'common or combined format is wanted: client - user [10/Oct/2000:13:55:36 -0700] "GET /path HTTP/1.1" 200 2326'

class Target(NamedTuple):
    """What one request line says."""

    name: bytes  # method, path and query
    namespace: bytes
    ext: bytes
    depth: int
    params: int


def recognises(source: Source) -> bool:
    return source.is_text and bool(source.lines) and LINE.match(_bytes(source.lines[0])) is not None


def blocks(source: Source) -> Generator[Block, None, None]:
    reader = _Reader(source)
    good = False
    for text in lines.texts(source):
        block = reader.block(text)
        good |= len(block) > 0
        yield block
    if not good:
        raise TraceError(f"{source}: has no GET or HEAD request; a trace needs at least one")


class _Reader:
    """Lines to rows: those of the usual shape all at once, by the places of what parts them; others by LINE."""

    KNOWN: Final = 1 << 16

    def __init__(self, source: Source) -> None:
        self.source = source
        self.days: dict[str, float] = {}
        self.namespaces, self.exts = Groups(), Groups()

    def block(self, text: lines.Text) -> Block:
        table = lines.split(text, lines.NEWLINE, 1).table
        whole, numbers = table.fields[0], table.lines
        places, odd = _places(whole)
        error = None
        for row in np.flatnonzero(odd).tolist():
            found = LINE.match(whole.data[whole.start[row]:whole.end[row]].tobytes())
            if found is not None:
                places[:, row] = whole.start[row] + np.array([found.span(part) for part in range(1, 6)]).ravel()
                if found[5] is None:
                    places[8:, row] = places[7, row]
            elif not whole.text(row).strip():
                odd[row] = False  # a blank line: an empty request, which is left out
                places[:, row] = whole.start[row]
            else:
                error = TraceError(f"{self.source}: line {numbers[row]}: not a line of an access log: {_short(whole.text(row))}; {RIGHT}")
                places, numbers = places[:, :row], numbers[:row]
                break
        stamp, request, status, sent, referer = (Fields(whole.data, places[at], places[at + 1]) for at in (0, 2, 4, 6, 8))
        kept = np.flatnonzero(_starts(request, b"GET ") | _starts(request, b"HEAD "))
        if len(kept) < len(request):
            self.source.left_out["no GET or HEAD"] += int((request.end > request.start).sum()) - len(kept)
        stamp, request, status, sent, referer = stamp[kept], request[kept], status[kept], sent[kept], referer[kept]
        numbers = numbers[kept]

        times, hours, bad = self._times(stamp)
        faults = Faults(len(kept))
        faults.among(bad, lambda row: f", column time: {stamp.text(row)!r} is not a time; {RIGHT_TIME}")
        key, namespace, ext, depth, params = self._targets(request)
        columns = {
            "key": key, "time": times, "size": _number_or_dash(sent),
            "namespace": self.namespaces.ids(namespace), "feat_status": _number_or_dash(status).astype(np.uint16),
            "feat_hour": hours.astype(np.uint8), "feat_ext": np.minimum(self.exts.ids(ext), 0xFFFF).astype(np.uint16),
            "feat_depth": depth.astype(np.float32), "feat_params": params.astype(np.float32),
            "feat_referred": ((referer.end > referer.start) & ~_is(referer, b"-")).astype(np.float32),
        }
        return lines.ending(faults.block(self.source, columns, lambda row: f"line {numbers[row]}"), error)

    def _times(self, stamps: Fields) -> tuple[Column, Column, Column]:
        """Seconds since 1970, hours of the log's clock, and which stamps are no times; equal ones are read once."""
        ids, first = numbered(stamps.hashes())
        moments = np.array([self._moment(stamps.text(row)) or (0.0, 0, 1) for row in first.tolist()]).reshape(-1, 3)
        return moments[ids, 0], moments[ids, 1], moments[ids, 2] != 0

    def _moment(self, stamp: str) -> tuple[float, int, int] | None:
        """Seconds since 1970, hour, 0."""
        found = TIME.match(stamp)
        if found is None:
            return None
        day, hour, minute, second, fraction, zone = found.groups()
        if day + zone not in self.days:
            if len(self.days) >= self.KNOWN:
                self.days.clear()
            midnight = _midnight(day, zone)
            if midnight is None:
                return None
            self.days[day + zone] = midnight
        if int(hour) > 23 or int(minute) > 59 or int(second) > 60:
            return None
        # A leap second has no number of its own.
        into = int(hour) * 3600 + int(minute) * 60 + min(int(second), 59)
        return self.days[day + zone] + into + float(fraction or 0), int(hour), 0

    def _targets(self, requests: Fields) -> tuple[Column, ...]:
        """Of each request line: hashes of its key, namespace and extension, depth, parameters."""
        answers, odd = _usual_targets(requests)
        rows = np.flatnonzero(odd)
        if len(rows):
            targets = [_target(requests.text(row)) for row in rows.tolist()]
            for at, texts in enumerate(zip(*targets, strict=True)):
                answers[at][rows] = Fields.of(texts).hashes() if at < 3 else texts
        return answers


def _places(whole: Fields) -> tuple[Column, Column]:
    """Where the five parts of each line begin and end, and which lines are not of the shape that is usual:

        anything [time] "request" status bytes "referer" anything
    """
    data, start, end = whole.data, whole.start, whole.end
    last = len(data) - 1
    quotes, opening = _marks(data, b'"'), _marks(data, b"[")
    left = opening[np.searchsorted(opening, start)]
    closing = _marks(data, b"]")
    right = closing[np.searchsorted(closing, left)]
    quote = np.searchsorted(quotes, np.minimum(right + 2, last))
    first, second, third, fourth = (quotes[np.minimum(quote + ahead, len(quotes) - 1)] for ahead in range(4))
    escapes = _marks(data, b"\\")
    at = np.minimum(second + 2, last)
    status_end = np.where(data[at] == ord("-"), at + 1, np.minimum(at + 3, last))
    sent = np.minimum(status_end + 1, last)
    has_referer = third < end
    sent_end = np.where(has_referer, third - 1, end)
    sent_numbers = Fields(data, sent, np.maximum(sent_end, sent))
    no_status = Fields(data, at, status_end).digits()[1] & (data[at] != ord("-"))
    no_number = (sent_numbers.digits()[1]) & ~_is(sent_numbers, b"-")
    odd = (
        (second >= end) | (first != right + 2) | (left + 1 >= right) | (left <= start) | (data[np.maximum(left - 1, 0)] != lines.SPACE)
        | (data[start] == lines.SPACE) | (data[np.minimum(right + 1, last)] != lines.SPACE)
        | (data[np.minimum(second + 1, last)] != lines.SPACE) | (data[np.minimum(status_end, last)] != lines.SPACE)
        | no_status | no_number | (has_referer & ((fourth >= end) | (data[np.maximum(third - 1, 0)] != lines.SPACE)))
        | (escapes[np.searchsorted(escapes, start)] < end)
    )
    referer = np.where(has_referer, third + 1, end), np.where(has_referer, fourth, end)
    return np.array([left + 1, right, first + 1, second, at, status_end, sent, sent_end, *referer]), odd


def _usual_targets(requests: Fields) -> tuple[tuple[Column, ...], Column]:
    """What `_targets` answers, and for which requests that is wrong: those that are not of the usual shape

        GET /path?query HTTP/1.1
    """
    data, start, end = requests.data, requests.start, requests.end
    last = len(data) - 1
    url = start + np.where(_starts(requests, b"GET "), 4, 5)
    long, short = (_starts(Fields(data, np.maximum(end - back, 0), end), b" HTTP/") for back in (9, 7))
    url_end = end - np.where(long, 9, np.where(short, 7, 0))
    questions, slashes, points, ands = (_marks(data, mark) for mark in (b"?", b"/", b".", b"&"))
    question = np.minimum(questions[np.searchsorted(questions, url)], url_end)
    path_end = np.maximum(question, url)
    slash = np.searchsorted(slashes, url)
    doubles = np.flatnonzero((data[:-1] == ord("/")) & (data[1:] == ord("/")))
    double = np.searchsorted(doubles, path_end - 1) - np.searchsorted(doubles, url)
    ends_open = data[np.maximum(path_end - 1, 0)] == ord("/")
    depth = np.searchsorted(slashes, path_end) - slash - ends_open
    second = np.minimum(slashes[np.minimum(slash + 1, len(slashes) - 1)], path_end)
    namespace = Fields(data, np.minimum(url + 1, second), second)
    # The last segment, without a slash behind it.
    tail = path_end - ends_open
    segment = np.maximum(slashes[np.searchsorted(slashes, tail) - 1] + 1, url)
    point = points[np.searchsorted(points, tail) - 1]
    has_ext = (point > segment) & (point < tail)
    ext = Fields(LOWER[data], np.where(has_ext, point + 1, tail), tail)
    params = np.searchsorted(ands, url_end) - np.searchsorted(ands, question)
    has_query = question + 1 < url_end
    name = Fields(data, start, np.where(has_query, url_end, path_end))
    odd = ~(long | short) | (url_end <= url) | (data[np.minimum(url, last)] != ord("/")) | (double > 0)
    return (name.hashes(), namespace.hashes(), ext.hashes(), depth, np.where(has_query, params + 1, 0)), odd


LOWER: Final = np.array([byte | 0x20 if 0x41 <= byte <= 0x5A else byte for byte in range(256)], np.uint8)


def _marks(data: Column, mark: bytes) -> Column:
    """Where a byte stands, and a place past the end of everything, so that there is always a next one."""
    return np.append(np.flatnonzero(data == mark[0]), len(data))


def _number_or_dash(fields: Fields) -> Column:
    """What the pieces spell, 0 for a dash."""
    values = np.zeros(len(fields))
    rows = ~_is(fields, b"-")
    values[rows] = fields[rows].numbers()[0]
    return values


def _starts(fields: Fields, word: bytes) -> Column:
    """Which pieces start with these bytes."""
    good = fields.end - fields.start >= len(word)
    for at, byte in enumerate(word):
        good &= fields.data[np.minimum(fields.start + at, len(fields.data) - 1)] == byte
    return good


def _is(fields: Fields, word: bytes) -> Column:
    same: Column = _starts(fields, word) & (fields.end - fields.start == len(word))
    return same


def _target(request: str) -> Target:
    """What the request line of a GET or HEAD says."""
    words = request.split(" ")
    # A path may hold spaces that the client did not escape; only the last word can be the protocol.
    url = " ".join(words[1:-1] if len(words) > 2 and words[-1].startswith("HTTP/") else words[1:])
    path, _, query = _without_host(url).partition("?")
    segments = [segment for segment in path.split("/") if segment]
    stem, dot, ext = (segments[-1] if segments else "").rpartition(".")
    return Target(
        name=_bytes(f"{words[0]} {path}?{query}" if query else f"{words[0]} {path}"),
        namespace=_bytes(segments[0] if segments else ""),
        ext=_bytes(ext.lower() if stem and dot else ""),
        depth=len(segments),
        params=query.count("&") + 1 if query else 0,
    )


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _without_host(url: str) -> str:
    """Proxies log `GET http://host/path`; the path alone is the key there too."""
    scheme, separator, rest = url.partition("://")
    if separator and scheme.lower() in ("http", "https"):
        return "/" + rest.partition("/")[2]
    return url


def _midnight(date: str, zone: str) -> float | None:
    """Seconds from 1970 UTC to the beginning of a day in a zone."""
    day, month, year = date.split("/")
    shift = timedelta(hours=int(zone[1:3]), minutes=int(zone[3:])) * (-1 if zone[0] == "-" else 1)
    try:
        return datetime(int(year), MONTHS[month], int(day), tzinfo=timezone(shift)).astimezone(UTC).timestamp()
    except (KeyError, ValueError, OverflowError):
        return None


def _short(line: str) -> str:
    line = line.rstrip("\r\n")
    return ascii(line if len(line) <= 80 else line[:77] + "...")
