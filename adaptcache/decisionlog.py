"""A log of what the learned expiry decided, and what came of it: JSON lines, bounded, on disk.

One line a *wait* of a sampled key: from an access until it is known what came of it. Lines are written only then, so each
stands for itself, a file that is cut or rotated away takes nothing from the others, and what is pending is a
bounded table in the core (`_ext/journal.pxd`). The file holds neither keys nor values: keys appear as salted hashes.

Who writes: the learner's thread; with `learner="manual"` `cache.learn()`, and operations on logged keys when a
thousand decisions have gathered; `flush` and `close` at any time. Trouble with the file ends the log, is said once
in the "adaptcache" logger and stays in `error`; it never reaches the cache's caller.
"""
from __future__ import annotations

import atexit
import json
import logging
import math
import os
import secrets
import struct
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from hashlib import blake2b
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from adaptcache import checks
from adaptcache.explain import BOUNDS, accesses
from adaptcache.learn import experts
from adaptcache.learn.predictor import named

_log = logging.getLogger("adaptcache")

FORMAT = "decisions"
VERSION = 1
LEAST_BYTES = 1 << 14
ROUND = 64              # decisions that one step of the learner's thread writes at the most: about 1,300 a second
BATCH = 256             # decisions taken over at once
STATE_EVERY = 1024      # decisions between two lines about the cache as a whole
OUTCOMES = ("open", "asked", "never", "overwritten", "deleted")
CAPACITY = 15           # the core's number of the bound that is not the expiry's


class Row(NamedTuple):
    """What the core tells of one wait. Ages are seconds since the access; None has not come, or never does."""

    id: int
    hash: int
    ns: int
    time: float
    size: float
    cost: float
    price: float
    breakeven: float
    window: float | None
    ceiling: float | None
    counted: int
    x: list[float] | None
    experts: list[tuple[int, float, bool]] | None
    hold: bool
    back: float
    ratio: float
    followed: bool
    decided: float | None
    refused: float | None
    gone: float | None
    ended: float
    bound: int
    outcome: int
    found: bool
    premature: bool


class Source(Protocol):
    """What is logged: a cache, or a replay of the simulator."""

    def _log_start(self, sample: float, salt: int, write: Any) -> None: ...
    def _log_rows(self, most: int, closing: bool = False) -> list[tuple[Any, ...]]: ...
    def _log_stop(self) -> None: ...
    def _log_state(self) -> dict[str, Any]: ...
    def _log_about(self) -> dict[str, Any]: ...
    def _labels(self) -> Mapping[int, Any]: ...


class DecisionLog:
    """The log of one cache. `Cache.log_decisions` makes it; a context manager that closes."""

    def __init__(
        self, source: Source, path: str | os.PathLike[str], *, sample: float = 0.01, max_bytes: int = 64 << 20,
        salt: str | bytes | int | None = None, namespaces: str = "repr", about: Mapping[str, Any], users: list[str],
        app: list[str], banks: Sequence[float] = (),
    ) -> None:
        vet(path, sample, max_bytes, salt, namespaces)
        self.path = Path(path)
        self.previous = self.path.with_name(self.path.name + ".1")
        self.error: Exception | None = None
        self.written = 0            # decisions
        self._salt = blake2b(salt_bytes(salt)).digest()
        self._source = weakref.ref(source)
        self._hashed = namespaces == "hash"
        self._limit = max_bytes // 2
        self._about = dict(about)
        self._users, self._app = users, app
        self._labels: dict[int, str] = {}
        if banks:               # of namespaces 1, 2 ...
            self._about["banks"] = {self._label(1 + at, source): share for at, share in enumerate(banks)}
        self._told = 0
        self._pid = os.getpid()
        self._file: FileIO | None = None
        self._lock = threading.Lock()
        self._owner = 0
        self._size = 0
        self._part = 0
        self._run = secrets.token_hex(8)
        self._open()
        try:
            source._log_start(float(sample), int.from_bytes(self._digest(b"sample"), "big"), self.drain)
        except BaseException:
            self._shut()
            raise
        _LOGS.add(self)

    # -- for people

    @property
    def running(self) -> bool:
        """Are decisions still written? False once closed, or after trouble with the file (see `error`)."""
        return self._file is not None

    @property
    def dropped(self) -> int:
        """Decisions that were not kept, since whoever writes was too slow for this `sample`."""
        source = self._source()
        return int(source._log_state().get("dropped", 0)) if source is not None else 0

    def flush(self) -> None:
        """Write every decision whose outcome is known by now."""
        self._step(most=1 << 62, wait=True)

    def close(self) -> None:
        """Write the rest, decisions whose outcome is not known yet as "open", and stop. Again: nothing."""
        if self.running:
            self._step(most=1 << 62, wait=True, closing=True)

    def __enter__(self) -> DecisionLog:
        return self

    def __exit__(self, *what: object) -> None:
        self.close()

    def __del__(self) -> None:
        # The cache went without `close`: what is written stays, the rest went with the cache.
        if getattr(self, "_file", None) is not None:
            self._shut()

    def __repr__(self) -> str:
        state = "running" if self.running else f"stopped by {self.error!r}" if self.error else "closed"
        return f"<{type(self).__name__} {str(self.path)!r}: {self.written} decisions, {state}>"

    # -- for the learner's thread, and operations on logged keys

    def drain(self) -> None:
        """Write some of what has gathered, unless somebody is writing. Never raises."""
        self._step(most=1 << 62, wait=False)

    def step(self) -> None:
        """A bounded piece of the same."""
        self._step(most=ROUND, wait=False)

    # -- the writing

    def _step(self, *, most: int, wait: bool, closing: bool = False) -> None:
        me = threading.get_ident()
        if self._file is None or self._owner == me or not self._lock.acquire(blocking=wait):
            return              # called from within, by a finalizer or the like: there is nothing to wait for
        self._owner = me
        try:
            if self._file is not None:
                self._write(most, closing)
        except Exception as error:
            self._stop(error)
        finally:
            self._owner = 0
            self._lock.release()

    def _write(self, most: int, closing: bool) -> None:
        if os.getpid() != self._pid:
            self._stop(None)    # a forked child: the file is its parent's
            return
        source = self._source()
        if source is None:
            self._shut()
            return
        while most > 0:
            rows = source._log_rows(min(most, BATCH), closing)
            if rows:
                self._put([_line(self.decision(Row(*row), source)) for row in rows])
                self.written += len(rows)
            if self.written - self._told >= STATE_EVERY or (closing and not rows):
                self._told = self.written
                self._put([_line(self._state(source))])
            if not rows:
                break
            most -= len(rows)
        if closing:
            source._log_stop()
            self._shut()

    def _put(self, lines: list[bytes]) -> None:
        """Write lines, as few calls as the bound of a file allows."""
        part: list[bytes] = []
        size = self._size
        for line in lines:
            if size + len(line) > self._limit:
                self._bytes(b"".join(part))
                self._shut()
                self._open()
                part, size = [], self._size
                if size + len(line) > self._limit:
                    continue        # names without end: rather a line less than a file too long
            part.append(line)
            size += len(line)
        self._bytes(b"".join(part))

    def _bytes(self, data: bytes) -> None:
        assert self._file is not None
        view = memoryview(data)
        while view:
            wrote = self._file.write(view) or 0
            view = view[wrote:]
            self._size += wrote

    def _open(self) -> None:
        """Begin a file; what is there becomes the older one."""
        if self.path.exists():
            os.replace(self.path, self.previous)
        self._file = FileIO(self.path, "wb")
        self._size = 0
        self._bytes(_line({"adaptcache": FORMAT, "version": VERSION, "run": self._run, "part": self._part,
                           "opened": round(time.time(), 3), **self._about}))
        self._part += 1

    def _shut(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _stop(self, error: Exception | None) -> None:
        """Give up: said once, and never to the cache's caller."""
        self.error = error
        try:
            self._shut()
        except OSError:
            pass                # of closing a file that could not be written to: that has been said
        source = self._source()
        if source is not None:
            source._log_stop()
        if error is not None:
            _log.error("the log of decisions %s has stopped: %r; the cache goes on without it", self.path, error)

    # -- what stands in a line

    def decision(self, row: Row, source: Source) -> dict[str, Any]:
        """The line of one wait; docs/explain.md names its fields and the sums that they obey."""
        rent = row.size * row.price             # a second
        held = row.ended if row.gone is None else row.gone
        asked = OUTCOMES[row.outcome] == "asked"
        missed = asked and not row.found
        line: dict[str, Any] = {
            "id": row.id, "time": row.time, "key": self._digest(struct.pack("<q", row.hash)).hex(),
            "namespace": self._label(row.ns, source), "accesses": accesses(row.counted), "size": _short(row.size),
            "cost": _short(row.cost), "price": row.price, "breakeven": row.breakeven or None, "window": row.window,
            "ceiling": row.ceiling,
        }
        if row.x is not None and row.experts is not None:
            line["features"] = {name: _short(value) for name, value in named(row.x, self._app).items()}
            says = experts.verdicts(row.experts, self._users)
            strongest = sorted(says.items(), key=lambda item: -item[1][0])[:6]
            line["verdict"] = {
                "idle": 0.0 if row.decided is None else row.decided, "hold": row.hold, "comes_back": _short(row.back),
                "ratio": _short(row.ratio), "followed": row.followed,
                "experts": {name: [round(share, 4), round(holds, 4)] for name, (share, holds) in strongest},
            }
        line |= {
            "let_go": row.decided, "refused": row.refused, "gone": row.gone,
            "bound": "capacity" if row.bound == CAPACITY else BOUNDS[row.bound],
            "outcome": OUTCOMES[row.outcome], "after": row.ended if asked else None, "seen": row.ended,
            "found": row.found if asked else None, "premature": row.premature,
            "rent": rent * held, "miss": row.cost if missed else 0.0,
            "spared": 0.0 if row.gone is None else rent * (row.ended - row.gone),
            "least": min(rent * row.ended, row.cost) if asked else None if row.outcome == 0 else 0.0,
        }
        return line

    def _state(self, source: Source) -> dict[str, Any]:
        return {"state": {**source._log_about(), **source._log_state()}, "written": self.written}

    def _digest(self, data: bytes) -> bytes:
        return blake2b(data, digest_size=8, key=self._salt).digest()

    def _label(self, number: int, source: Source) -> str | None:
        if number == 0:
            return None
        if number not in self._labels:
            for known, label in source._labels().items():
                if known not in self._labels:
                    try:
                        text = repr(label)[:200]
                    except Exception:
                        text = f"<{type(label).__name__} {known}>"      # the user's code; a label must not end the log
                    self._labels[known] = self._digest(text.encode("utf-8", "surrogatepass")).hex() if self._hashed else text
        return self._labels.get(number)


def vet(path: str | os.PathLike[str], sample: float, max_bytes: int, salt: str | bytes | int | None, namespaces: str) -> None:
    """Refuse what a log cannot be made with, before anything is touched."""
    checks.number("sample", sample, "above 0, up to 1", 0.0, 1.0, open_low=True)
    if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < LEAST_BYTES:
        raise ValueError(f"max_bytes: {max_bytes!r} is not accepted; the accepted range is whole numbers from {LEAST_BYTES}")
    salt_bytes(salt)
    if namespaces not in ("repr", "hash"):
        raise ValueError(f"namespaces: {namespaces!r} is not accepted; the accepted values are 'repr' and 'hash'")
    path = Path(path)
    for file in (path, path.with_name(path.name + ".1")):
        if not file.exists():
            continue
        with file.open("rb") if file.is_file() else nullcontext() as old:
            first = b"" if old is None else old.readline(1 << 16)
        if not file.is_file() or (first and not is_header(first)):
            raise ValueError(f"path: {file} exists and is no log of decisions; the accepted values are a new file or such a log, "
                             "which is kept as the older one")


def is_header(line: bytes) -> bool:
    """Is this the first line of a log of decisions, of any version?"""
    try:
        header = json.loads(line)
    except ValueError:
        return False
    return isinstance(header, dict) and header.get("adaptcache") == FORMAT


def salt_bytes(salt: str | bytes | int | None) -> bytes:
    if salt is None:
        return secrets.token_bytes(16)
    if isinstance(salt, (str, int)) and not isinstance(salt, bool):
        return str(salt).encode()
    if isinstance(salt, bytes):
        return salt
    raise TypeError(f"salt: expected str, bytes, int or None, got {type(salt).__name__}")


def _short(x: float) -> float:
    """Single precision is all that the core keeps of these."""
    return float(f"{x:.7g}")


def _line(fields: Mapping[str, Any]) -> bytes:
    try:
        text = json.dumps(fields, separators=(",", ":"), allow_nan=False)
    except ValueError:
        text = json.dumps(_sayable(fields), separators=(",", ":"), allow_nan=False)
    return text.encode() + b"\n"


def _sayable(value: Any) -> Any:
    """JSON knows no infinity: null stands for it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _sayable(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_sayable(inner) for inner in value]
    return value


_LOGS: weakref.WeakSet[DecisionLog] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """The interpreter is going down: decisions whose outcome is known are worth keeping."""
    for log in list(_LOGS):
        log.close()
