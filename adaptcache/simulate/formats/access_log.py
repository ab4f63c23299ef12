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
from array import array
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Final, NamedTuple

import numpy as np

from adaptcache.errors import TraceError
from adaptcache.simulate.formats import lines
from adaptcache.simulate.formats.block import Block, Groups
from adaptcache.simulate.formats.fields import Fields
from adaptcache.simulate.formats.source import Source

NAME: Final = "access-log"
ALIASES: Final = ("log", "nginx", "apache")
SUFFIXES: Final = ()
DISORDERLY: Final = True

# Whatever stands before the time (host, client, user) is not looked at, so prefixed formats work too.
LINE: Final = re.compile(
    r'^\S+ [^\[\n]*\[([^\]\n]+)\] "([^"\\\n]*(?:\\.[^"\\\n]*)*)" (\d{3}|-) (\d+|-)(?: "([^"\\\n]*(?:\\.[^"\\\n]*)*)")?.*$',
    re.MULTILINE,
)
TIME: Final = re.compile(r"(\d\d)/([A-Z][a-z]{2})/(\d{4}):(\d\d):(\d\d):(\d\d)(\.\d+)? ([+-])(\d\d)(\d\d)$")
MONTHS: Final = {name: number for number, name in enumerate(
    ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), start=1)}
RIGHT: Final = 'common or combined format is wanted: client - user [10/Oct/2000:13:55:36 -0700] "GET /path HTTP/1.1" 200 2326'

NO_TARGET: Final = -1


class Target(NamedTuple):
    """What one request line says."""

    name: bytes  # method, path and query
    namespace: bytes
    ext: bytes
    depth: int
    params: int


def recognises(source: Source) -> bool:
    return source.is_text and bool(source.lines) and LINE.match(source.lines[0]) is not None


def blocks(source: Source) -> Iterator[Block]:
    reader = _Reader(source)
    good = False
    for text in lines.texts(source):
        block = reader.block(text)
        good |= len(block) > 0
        yield block
    if not good:
        raise TraceError(f"{source}: has no GET or HEAD request; a trace needs at least one")


class _Reader:
    """Lines to rows. What repeats (request lines, moments) is read once, and forgotten when it gets too much."""

    KNOWN: Final = 1 << 16

    def __init__(self, source: Source) -> None:
        self.source = source
        self.clock: dict[str, tuple[float, int]] = {}
        self.namespaces, self.exts = Groups(), Groups()
        self.forget()

    def forget(self) -> None:
        self.number: dict[str, int] = {}  # request line -> its target's, or NO_TARGET
        self.targets: list[Target] = []
        self.read = np.zeros((5, 0), np.uint64)  # of each target: key, namespace, ext, depth, params

    def block(self, text: lines.Text) -> Block:
        content = text.content.decode("utf-8", "surrogateescape")
        found = LINE.findall(content)
        error = None
        number_of: list[int] | None = None
        wanted = content.count("\n") + (not content.endswith("\n"))
        if len(found) != wanted:
            found, number_of, error = self._one_by_one(content, text.line)
        rows, kept = array("q"), array("q")
        times, sizes = array("d"), array("d")
        statuses, hours, referred = array("H"), array("B"), array("f")
        if len(self.number) > self.KNOWN or len(self.clock) > self.KNOWN:
            self.forget()
            self.clock.clear()
        number, clock = self.number, self.clock
        for row, (stamp, request, status, sent, referer) in enumerate(found):
            target = number.get(request)
            if target is None:
                target = self._target(request)
            if target == NO_TARGET:
                continue
            moment = clock.get(stamp)
            if moment is None:
                try:
                    moment = clock[stamp] = _seconds(stamp)
                except ValueError as wrong:
                    line = text.line + row if number_of is None else number_of[row]
                    error = TraceError(f"{self.source}: line {line}, column time: {wrong}")
                    break
            rows.append(target)
            kept.append(row)
            times.append(moment[0])
            hours.append(moment[1])
            sizes.append(0.0 if sent == "-" else float(sent))
            statuses.append(0 if status == "-" else int(status))
            referred.append(referer not in ("", "-"))
        self._read_targets()
        key, namespace, ext, depth, params = self.read[:, np.array(rows, np.int64)]
        columns = {
            "key": key, "time": np.array(times), "size": np.array(sizes), "namespace": namespace.astype(np.uint32),
            "feat_status": np.array(statuses), "feat_hour": np.array(hours), "feat_ext": ext.astype(np.uint16),
            "feat_depth": depth.astype(np.float32), "feat_params": params.astype(np.float32),
            "feat_referred": np.array(referred),
        }

        def where(row: int) -> str:
            return f"line {text.line + kept[row] if number_of is None else number_of[kept[row]]}"

        return Block(columns, where, error)

    def _one_by_one(self, content: str, first: int) -> tuple[list[tuple[str, ...]], list[int], TraceError | None]:
        """The lines of a block some of which are blank, up to one that is wrong; their numbers; what is wrong."""
        found: list[tuple[str, ...]] = []
        numbers: list[int] = []
        for number, line in enumerate(content.split("\n"), start=first):
            match = LINE.match(line)
            if match is not None:
                found.append(match.groups(""))
                numbers.append(number)
            elif line.strip():
                return found, numbers, TraceError(f"{self.source}: line {number}: not a line of an access log: {_short(line)}; {RIGHT}")
        return found, numbers, None

    def _target(self, request: str) -> int:
        target = _target(request)
        self.number[request] = number = NO_TARGET if target is None else len(self.targets)
        if target is not None:
            self.targets.append(target)
        return number

    def _read_targets(self) -> None:
        """Gives numbers to the targets that are new."""
        new = self.targets[self.read.shape[1]:]
        if new:
            self.read = np.concatenate((self.read, np.array([
                Fields.of([target.name for target in new]).hashes(),
                self.namespaces.ids(Fields.of([target.namespace for target in new]).hashes()),
                np.minimum(self.exts.ids(Fields.of([target.ext for target in new]).hashes()), 0xFFFF),
                [target.depth for target in new], [target.params for target in new],
            ], np.uint64)), axis=1)


def _target(request: str) -> Target | None:
    words = request.split(" ")
    if len(words) < 2 or words[0] not in ("GET", "HEAD"):
        return None
    # A path may hold spaces that the client did not escape; only the last word can be the protocol.
    url = " ".join(words[1:-1] if len(words) > 2 and words[-1].startswith("HTTP/") else words[1:])
    path, _, query = _without_host(url).partition("?")
    segments = [segment for segment in path.split("/") if segment]
    stem, dot, ext = (segments[-1] if segments else "").rpartition(".")
    return Target(
        name=_bytes(f"{words[0]} {path}?{query}"),
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


def _seconds(stamp: str) -> tuple[float, int]:
    """Seconds since 1970 UTC and the hour on the log's clock; ValueError says what is wrong."""
    found = TIME.match(stamp)
    if found is not None and found[2] in MONTHS:
        day, month, year, hour, minute, second, fraction, sign, zone_h, zone_m = found.groups()
        zone = timedelta(hours=int(zone_h), minutes=int(zone_m)) * (-1 if sign == "-" else 1)
        try:
            moment = datetime(int(year), MONTHS[month], int(day), int(hour), int(minute),
                              min(int(second), 59), tzinfo=timezone(zone))  # a leap second has no number
            return moment.astimezone(UTC).timestamp() + float(fraction or 0), int(hour)
        except (ValueError, OverflowError):
            pass
    raise ValueError(f"{stamp!r} is not a time; "
                     "day/month/year:hour:minute:second zone is wanted, as in 10/Oct/2000:13:55:36 -0700")


def _short(line: str) -> str:
    line = line.rstrip("\r\n")
    return ascii(line if len(line) <= 80 else line[:77] + "...")
