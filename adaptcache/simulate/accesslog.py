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
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone
from typing import Final, NamedTuple

import numpy as np

from adaptcache.errors import TraceError
from adaptcache.simulate.columns import Ids
from adaptcache.simulate.trace import Trace, dense

# Whatever stands before the time (host, client, user) is not looked at, so prefixed formats work too.
LINE: Final = re.compile(
    r'\S+ [^\[]*\[(?P<time>[^\]]+)\] "(?P<request>(?:[^"\\]|\\.)*)" (?P<status>\d{3}|-) (?P<bytes>\d+|-)'
    r'(?: "(?P<referer>(?:[^"\\]|\\.)*)")?'
)
TIME: Final = re.compile(r"(\d\d)/([A-Z][a-z]{2})/(\d{4}):(\d\d):(\d\d):(\d\d)(\.\d+)? ([+-])(\d\d)(\d\d)$")
MONTHS: Final = {name: number for number, name in enumerate(
    ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), start=1)}
RIGHT: Final = 'common or combined format is wanted: client - user [10/Oct/2000:13:55:36 -0700] "GET /path HTTP/1.1" 200 2326'

NO_TARGET: Final = -1


class Target(NamedTuple):
    """What one request line says."""

    key: int
    namespace: int
    ext: int
    depth: int
    params: int


def is_line(text: str) -> bool:
    return LINE.match(text) is not None


def parse(lines: Iterable[str], *, name: str, file: str, limit: int | None = None) -> Trace:
    """The trace of an access log; `limit` counts the requests that are kept."""
    times, sizes = array("d"), array("d")
    statuses, hours, referred = array("H"), array("B"), array("f")
    rows = array("q")  # of each request kept: which target
    clock: dict[str, tuple[float, int]] = {}  # thousands of lines share a second
    requests = _Requests()
    for number, line in enumerate(lines, start=1):
        found = LINE.match(line)
        if found is None:
            if line.strip() == "":
                continue
            raise TraceError(f"{file}: line {number}: not a line of an access log: {_short(line)}; {RIGHT}")
        stamp, request, status, sent, referer = found.groups()
        target = requests[request]
        if target == NO_TARGET:
            continue
        if stamp not in clock:
            clock[stamp] = _seconds(stamp, file, number)
        time, hour = clock[stamp]
        times.append(time)
        hours.append(hour)
        sizes.append(0.0 if sent == "-" else float(sent))
        statuses.append(0 if status == "-" else int(status))
        referred.append(referer is not None and referer not in ("", "-"))
        rows.append(target)
        if len(rows) == limit:
            break
    if not rows:
        raise TraceError(f"{file}: has no GET or HEAD request; a trace needs at least one")
    order = np.argsort(np.array(times), kind="stable")
    key, namespace, ext, depth, params = np.array(requests.targets).T[:, np.array(rows)[order]]
    key = dense(key)
    return Trace(
        name=name, key=key, n_keys=int(key.max()) + 1, time=np.array(times)[order], size=np.array(sizes)[order],
        namespace=dense(namespace),
        features={
            "status": np.array(statuses)[order], "hour": np.array(hours)[order], "ext": ext.astype(np.uint16),
            "depth": depth.astype(np.float32), "params": params.astype(np.float32),
            "referred": np.array(referred)[order],
        },
    )


class _Requests(dict[str, int]):
    """Request line -> number of its target, NO_TARGET for what is no cache traffic. Lines repeat, so each
    different one is read once."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[Target] = []
        self._keys, self._namespaces, self._exts = Ids(), Ids(), Ids()

    def __missing__(self, request: str) -> int:
        target = self._read(request)
        self[request] = number = NO_TARGET if target is None else len(self.targets)
        if target is not None:
            self.targets.append(target)
        return number

    def _read(self, request: str) -> Target | None:
        words = request.split(" ")
        if len(words) < 2 or words[0] not in ("GET", "HEAD"):
            return None
        # A path may hold spaces that the client did not escape; only the last word can be the protocol.
        url = " ".join(words[1:-1] if len(words) > 2 and words[-1].startswith("HTTP/") else words[1:])
        path, _, query = _without_host(url).partition("?")
        segments = [segment for segment in path.split("/") if segment]
        stem, dot, ext = (segments[-1] if segments else "").rpartition(".")
        return Target(
            key=self._keys[f"{words[0]} {path}?{query}"],
            namespace=self._namespaces[segments[0] if segments else ""],
            ext=min(self._exts[ext.lower() if stem and dot else ""], 0xFFFF),
            depth=len(segments),
            params=query.count("&") + 1 if query else 0,
        )


def _without_host(url: str) -> str:
    """Proxies log `GET http://host/path`; the path alone is the key there too."""
    scheme, separator, rest = url.partition("://")
    if separator and scheme.lower() in ("http", "https"):
        return "/" + rest.partition("/")[2]
    return url


def _seconds(stamp: str, file: str, number: int) -> tuple[float, int]:
    """Seconds since 1970 UTC and the hour on the log's clock."""
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
    raise TraceError(f"{file}: line {number}, column time: {stamp!r} is not a time; "
                     "day/month/year:hour:minute:second zone is wanted, as in 10/Oct/2000:13:55:36 -0700")


def _short(line: str) -> str:
    line = line.rstrip("\r\n")
    return ascii(line if len(line) <= 80 else line[:77] + "...")
