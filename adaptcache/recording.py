"""A recording: what a live cache is asked, as a trace that the harness replays. Bounded, sampled by key, without keys or values.

The core notes operations on sampled keys in a fixed ring (`_ext/tape.pxd`); here they are taken out, packed
(`tapefile`) and written. Who does that: one daemon thread for all recordings, which an operation wakes when half of the ring is
full; without a thread, that operation itself. Where the thread does not come, an operation gives way to it, for 20 ms and no
longer; what nobody takes out then is let go of by whole keys.

The file holds neither keys nor values: keys appear as keyed hashes, whose key is drawn anew for each recording and stored nowhere.
Trouble with the file ends the recording, is said once in the "adaptcache" logger and stays in `error`; it never
reaches the cache's caller. A recording knows the core's Store, and nothing of what lies above.
"""
from __future__ import annotations

import atexit
import logging
import math
import os
import secrets
import threading
import time
import weakref
from contextlib import suppress
from hashlib import blake2b
from io import FileIO
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from adaptcache import _core, checks, tapefile
from adaptcache.decisionlog import salt_bytes
from adaptcache.expiry import Fixed, Idle, Learned
from adaptcache.tapefile import Recorded, read, rows

__all__ = ("Recorded", "Recording", "read", "record", "rows")

_log = logging.getLogger("adaptcache")

LEAST_BYTES = 1 << 14
RING = 1 << 17          # notes of 40 bytes, at a sample of 1
LEAST_RING = 1 << 14
BLOCK = 1 << 16         # notes in a block at the most
AWAIT = 5.0             # seconds after which few notes are worth a block
PAUSE = 0.5             # seconds between two looks of the thread
GIVEN = 20              # milliseconds that an operation gives way to the thread, once in a ring full of notes
ROOM = 512              # bytes kept for the end


def record(
    path: str | os.PathLike[str], cache: Any, *, sample: float = 1.0, max_bytes: int = 64 << 20,
    salt: str | bytes | int | None = None, names: bool = False, thread: bool | None = None,
) -> Recording:
    """Write what a cache is asked from now on to a file that `adaptcache simulate` replays (docs/cookbook.md).

    path        of the file. A recording that is there becomes `path.1`, in place of an older one
    cache       a Cache, a function decorated by `cached` or `lru_cache`, or a cache of `compat.cachetools`
    sample      share of the keys, chosen by salted hash: of those, every operation is kept. A replay wants this share of the
                capacity, too
    max_bytes   where the recording ends by itself; at least 16 KiB
    salt        of the hashes that stand for keys; None draws one, and nobody can tell then which key a hash is of. Give one to
                compare keys between recordings (whose Python hashes must be equal then: those of str and bytes are
                salted with PYTHONHASHSEED)
    names       write the names of namespaces too, as `repr` has them; else only their numbers
    thread      write in a thread; without one, an operation that finds the buffer half full writes. None: in a thread, unless the
                cache has learner="manual"

    What is kept of an operation: time, hash, get (hit or miss), set or delete, and size, cost, ttl and namespace where
    they are known. A context manager that closes. A recording of the same cache that runs already is closed first.
    ValueError and TypeError name the argument, OSError the file; later trouble with the file ends the recording and is never
    raised (`error`).
    """
    if isinstance(cache, (str, bytes, os.PathLike)):
        raise TypeError(f"cache: expected a cache or a decorated function, got {type(cache).__name__}; it is record(path, cache)")
    store = _store(cache)
    vet(path, sample, max_bytes, salt)
    before = running(store)
    if before is not None:
        before.close()
    spec = getattr(store, "_spec", None)
    if thread is None:
        thread = not (isinstance(spec, Learned) and spec.learner == "manual")
    return Recording(store, path, sample=float(sample), max_bytes=max_bytes, salt=salt, names=names, thread=thread, spec=spec)


def running(store: _core.Store) -> Recording | None:
    """The recording of this cache that runs, if one does."""
    return next((each for each in list(_RUNNING) if each._store() is store), None)


class Recording:
    """A recording of one cache. `record` makes it; a context manager that closes."""

    def __init__(
        self, store: _core.Store, path: str | os.PathLike[str], *, sample: float, max_bytes: int,
        salt: str | bytes | int | None, names: bool, thread: bool, spec: Any = None,
    ) -> None:
        self.path = Path(path)
        self.error: Exception | None = None
        self.reason: str | None = None
        self.events = 0
        self._whole = sample
        self._limit = max_bytes
        self._names = names
        self._named = 0
        self._thread = thread
        self._size = 0
        self._wrote = time.monotonic()
        self._lock = threading.Lock()
        self._owner = 0
        key = secrets.token_bytes(24) if salt is None else blake2b(salt_bytes(salt), digest_size=24, person=b"recording").digest()
        # An operation writes before the ring is full; a thread may have to wait for its turn.
        ring = max(LEAST_RING, min(RING if thread else RING // 8, 1 << math.ceil(math.log2(max(2.0, RING * sample)))))
        self._ring = ring
        self._tape = _core.Taper(sample, key, ring, self._called)
        self._store = weakref.ref(store, self._orphaned)
        self._file: FileIO | None = self._open(store, spec)
        counters = store._counters()
        self._before = counters["hits"], counters["misses"]
        WRITER.add(self)
        store._tape_start(self._tape)

    # -- for people

    @property
    def running(self) -> bool:
        """Is the cache still recorded? False once closed, full, or after trouble with the file; `reason` says which."""
        return self._file is not None

    @property
    def sample(self) -> float:
        """The share of the keys whose whole histories are in the file: as asked for, halved as often as nobody wrote in time."""
        return float(self._whole * 2.0 ** -self._tape.halved)

    @property
    def dropped(self) -> int:
        """Operations that were noted and let go of with their keys, since nobody wrote in time."""
        return self._tape.dropped

    @property
    def size(self) -> int:
        """Bytes written."""
        return self._size

    def flush(self) -> None:
        """Write everything that has been noted by now."""
        self._step(wait=True)

    def close(self) -> None:
        """Write the rest, and stop. Again: nothing."""
        self._step(wait=True, reason="closed")

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *what: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "running" if self.running else f"stopped by {self.error!r}" if self.error else self.reason
        return f"<{type(self).__name__} {str(self.path)!r}: {self.events} events of {self.sample:.3g} of the keys, {state}>"

    # -- for the thread, and for operations that find the ring half full

    def drain(self) -> None:
        """Write what has been noted, unless somebody is writing. Never raises."""
        self._step(wait=False)

    def _called(self, pressed: bool) -> None:
        """By an operation that finds half of the ring full, or (pressed) nearly all."""
        if not self._thread:
            self.drain()
        elif not pressed:
            WRITER.wake()
        elif threading.get_ident() != self._owner:
            for _ in range(GIVEN):
                time.sleep(0.001)       # gives up the interpreter lock, and stands in no lock of ours
                if self._tape.waiting * 2 < self._ring:
                    break

    def look(self) -> None:
        """Write, if there is enough to write or it has waited long enough."""
        waiting = self._tape.waiting
        if self._store() is None:
            self._step(wait=False, reason="the cache is gone")
        elif waiting >= min(BLOCK, self._ring // 2) or (waiting and time.monotonic() - self._wrote >= AWAIT):
            self.drain()

    # -- the writing

    def _step(self, *, wait: bool, reason: str | None = None) -> None:
        me = threading.get_ident()
        if self._file is None or self._owner == me or not self._lock.acquire(blocking=wait):
            return              # called from within, by a finalizer or the like: there is nothing to wait for
        self._owner = me
        try:
            if self._file is not None:
                self._write(reason)
        except Exception as error:
            self._fail(error)
        finally:
            self._owner = 0
            self._lock.release()

    def _write(self, reason: str | None) -> None:
        if reason is not None:
            self._unhook()          # first: what happens from here on is not in the file
        while True:
            notes = self._tape.take(BLOCK)
            if not notes:
                break
            block = tapefile.frame(tapefile.EVENTS, tapefile.pack(notes, self._tape.halved))
            named = self._namespaces() if self._names else b""
            if self._size + len(named) + len(block) + ROOM > self._limit:
                reason = "full"
                self._unhook()
                break
            self._put(named)
            self._put(block)
            self.events += len(notes) // tapefile.NOTE.itemsize
            self._wrote = time.monotonic()
        if reason is not None:
            self._put(tapefile.frame(tapefile.END, tapefile.document(self._end(reason))))
            self._shut(reason)

    def _put(self, data: bytes) -> None:
        """All of it or, when that fails, nothing."""
        assert self._file is not None
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) or 0:]
        except BaseException:
            with suppress(OSError):     # of a file that cannot be written to either
                self._file.truncate(self._size)
                self._file.seek(self._size)
            raise
        self._size += len(data)

    def _open(self, store: _core.Store, spec: Any) -> FileIO:
        if self.path.exists():
            os.replace(self.path, self.path.with_name(self.path.name + ".1"))
        file = self._file = FileIO(self.path, "wb")
        try:
            self._put(tapefile.head())
            self._put(tapefile.frame(tapefile.HEADER, tapefile.document({
                "adaptcache": "recording", "sample": self._whole, "policy": store.policy_name, "expiry": _told(spec),
                "maxsize": None if store.maxsize == math.inf else float(store.maxsize), "opened": round(time.time(), 3),
                "clock": store._moment() / 1e9,
            })))
        except BaseException:
            file.close()
            raise
        return file

    def _namespaces(self) -> bytes:
        store = self._store()
        labels = {} if store is None else store._labels()
        fresh = {number: label for number, label in labels.items() if number > self._named}
        if not fresh:
            return b""
        self._named = max(fresh)
        named = {}
        for number, label in fresh.items():
            try:
                named[str(number)] = repr(label)[:200]
            except Exception:       # the user's code; a label must not end the recording
                named[str(number)] = f"<{type(label).__name__} {number}>"
        return tapefile.frame(tapefile.NAMES, tapefile.document(named))

    def _end(self, reason: str) -> dict[str, Any]:
        store = self._store()
        counters = {} if store is None else store._counters()
        hits, misses = (counters.get(name, -1) - before for name, before in zip(("hits", "misses"), self._before, strict=True))
        known = hits >= 0 and misses >= 0       # `cache_clear` of functools begins to count anew
        return {"events": self.events, "dropped": self._tape.dropped, "halved": self._tape.halved, "reason": reason,
                "closed": round(time.time(), 3), "hits": hits if known else None, "misses": misses if known else None}

    # -- the end

    def _unhook(self) -> None:
        store = self._store()
        if store is not None:
            store._tape_stop(self._tape)

    def _shut(self, reason: str) -> None:
        file, self._file = self._file, None
        self.reason = reason
        self._tape.silence()
        WRITER.discard(self)
        if file is not None:
            file.close()

    def _fail(self, error: Exception) -> None:
        """Give up: said once, and never to the cache's caller."""
        self.error = error
        self._unhook()
        try:
            self._shut("error")
        except OSError:
            pass                # of closing a file that could not be written to: that has been said
        _log.error("the recording %s has stopped: %r; the cache goes on without it", self.path, error)

    def _orphaned(self, reference: object) -> None:
        """The cache is gone. The thread sees it, or there is none and nobody else will."""
        if self._thread:
            WRITER.wake()
        else:
            self._step(wait=False, reason="the cache is gone")

    def _forked(self) -> None:
        """In a forked child: the file is its parent's."""
        self._lock = threading.Lock()
        self._owner = 0
        self._unhook()
        self._shut("forked")


class Writer:
    """The thread, and the recordings that run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Its `put` may be called at any time, from within itself too, as `Event.set` may not.
        self._calls: SimpleQueue[None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def add(self, recording: Recording) -> None:
        with self._lock:
            _RUNNING.add(recording)
            if recording._thread and not self.alive:
                self._thread = threading.Thread(target=self._run, name="adaptcache-recorder", daemon=True)
                self._thread.start()

    def discard(self, recording: Recording) -> None:
        _RUNNING.discard(recording)
        self.wake()

    def wake(self) -> None:
        if self._thread is not None:
            self._calls.put(None)

    @property
    def alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _run(self) -> None:
        while True:
            try:
                self._calls.get(timeout=PAUSE)
            except Empty:
                pass
            with self._lock:
                if not any(each._thread for each in list(_RUNNING)):
                    self._thread = None
                    return
            for each in list(_RUNNING):
                if each._thread:
                    each.look()
                del each        # no reference may outlive the round

    def _after_fork(self) -> None:
        # The child has no thread, and the locks may have been held by one that is not there.
        self.__init__()     # type: ignore[misc]
        for each in list(_RUNNING):
            each._forked()


def vet(path: str | os.PathLike[str], sample: float, max_bytes: int, salt: str | bytes | int | None) -> None:
    """Refuse what a recording cannot be made with, before anything is touched."""
    checks.number("sample", sample, "above 0, up to 1", 0.0, 1.0, open_low=True)
    if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < LEAST_BYTES:
        raise ValueError(f"max_bytes: {max_bytes!r} is not accepted; the accepted range is whole numbers from {LEAST_BYTES}")
    if salt is not None:
        salt_bytes(salt)
    path = Path(path)
    for file in (path, path.with_name(path.name + ".1")):
        if not file.exists():
            continue
        first = b""
        if file.is_file():
            with file.open("rb") as old:
                first = old.read(len(tapefile.MAGIC))
        if not file.is_file() or (first and not tapefile.is_recording(first)):
            raise ValueError(f"path: {file} exists and is no recording; the accepted values are a new file or a recording, which is "
                             "kept as the older one")


def _store(cache: Any) -> _core.Store:
    """What is behind a cache or a decorated function."""
    cache = getattr(cache, "__func__", cache)
    if isinstance(cache, _core.LruCall):
        return cache._results()
    for found in (cache, getattr(cache, "cache", None)):
        if isinstance(found, _core.Store):
            return found
    raise TypeError(f"cache: expected an adaptcache cache or a function that adaptcache decorated, got {type(cache).__name__}")


def _told(spec: Any) -> dict[str, Any] | None:
    """The expiry, in numbers and words of ours alone."""
    if spec is None:
        return None
    fields: dict[str, Any] = {"kind": type(spec).__name__}
    if isinstance(spec, (Fixed, Idle)) and math.isfinite(spec.ttl):
        fields["ttl"] = float(spec.ttl)
    return fields


_RUNNING: set[Recording] = set()
WRITER = Writer()


@atexit.register
def _close_all() -> None:
    """The interpreter is going down: what was noted is worth keeping."""
    for each in list(_RUNNING):
        each.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=WRITER._after_fork)
