"""What the notes of a client's commands say about its keys: which are in scope, until when the application keeps them, and
when they would have been, or were, let go.

A key comes into scope when it is written with an expiry or found to have one, or when the user named it. It leaves when its
expiry is taken away; when it becomes a lock (SET NX) or a counter (INCR and its like), whose contents nobody could load
again; and when somebody unknown may have written it. Whatever is uncertain is let alone.

Two worlds are kept apart: one in which nothing is let go before its own expiry, and one in which it is. One of them is the server's; of the
other the books say what would be there. When a key is asked for that is not there in the other world, it is loaded there, with a
new expiry, which may then outlive the server's; so the figures are differences between two whole runs.

Everything here runs in one thread at a time. This file knows neither sockets nor clients: it is told what happened
(`note`), asks through `wanted` for what only the server knows, and is told the answer (`lives`).
"""
from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from heapq import heappop, heappush
from itertools import islice
from time import monotonic, time
from typing import Any

from adaptcache.redis import commands as c
from adaptcache.redis.books import Books, Tally
from adaptcache.redis.joining import Sample
from adaptcache.redis.options import Scope

MEMORY = 10_000         # keys remembered that are missed, strange or asked about: of each kind, at most
PATIENCE = 60.0         # seconds after a miss within which a write counts as its load
AGAIN = 60.0            # seconds until a key without expiry is asked about again


class Entry:
    """A key in scope."""

    __slots__ = ("born", "ends", "namespace", "nominal", "other", "released", "saved", "size", "tally", "weight")

    def __init__(self, born: float, ends: float, nominal: float, size: float, namespace: str, tally: Tally, weight: int) -> None:
        self.born = born                # since when its memory is counted
        self.ends = ends                # its own expiry: nothing of ours goes beyond it
        self.other = ends               # the expiry of its copy in the other world; in the past: it is not there
        self.nominal = nominal          # seconds that it was given when it was written
        self.size = size
        self.namespace = namespace
        self.tally = tally
        self.released: float | None = None      # when the server was to let it go, which it has not been seen to do
        self.saved = 0.0                # counted as saved since then
        self.weight = weight            # keys that it stands for


class Recent(OrderedDict[bytes, float]):
    """Keys and a number each, the latest MEMORY of them."""

    def put(self, key: bytes, value: float) -> None:
        self[key] = value
        self.move_to_end(key)
        if len(self) > MEMORY:
            self.popitem(last=False)


class Follower:
    """What is known of one server's keys. `ledger()` makes the learned side when it is first needed."""

    def __init__(self, scope: Scope, encode: Callable[[Any], bytes], ledger: Callable[[], Any], *, max_keys: int, ask: bool = True,
                 sample: Sample | None = None) -> None:
        self.scope = scope
        self.encode = encode
        self.books = Books()
        self.entries: dict[bytes, Entry] = {}
        self.shadows: dict[bytes, Entry] = {}   # keys that are there in the other world only
        self.wanted: OrderedDict[bytes, float] = OrderedDict()      # keys whose expiry only the server knows, and their sizes
        self.shift = 0                                              # one key in 2 ** shift is followed
        self.mask = 0
        self.max_keys = max_keys
        self.real = False                   # what is released is unlinked on the server
        self.on_miss: Callable[[bytes], object] | None = None
        self.on_sample: Callable[[int], object] | None = None   # before keys are left out
        self._ask = ask
        self._make = ledger
        self._sampled = sample or Sample()
        self._ledger: Any = None
        self._missed = Recent()             # key -> when it was missed
        self._strange = Recent()            # locks, counters -> when
        self._asked = Recent()              # keys without expiry -> when they were asked about
        self._grown = Recent()              # collections that are being built -> their size
        self._ends: list[tuple[float, bytes]] = []
        self._purge: Iterator[bytes] | None = None
        self._do: dict[int, Callable[[Any, float], None]] = {
            c.READ: self._read, c.READS: self._reads, c.WROTE: self._wrote, c.WROTES: self._wrote_all, c.SETEX: self._setex,
            c.EXPIRE: self._expire, c.PERSIST: self._persist, c.GONE: self._gone, c.BUILT: self._built, c.COUNTED: self._counted,
            c.UNKNOWN: self._unknown, c.RENAMED: self._renamed, c.COPIED: self._copied, c.FLUSHED: self._flushed,
            c.GETSET: self._getset, c.GETDEL: self._getdel, c.GETEX: self._getex, c.NEAR: self._near,
        }

    @property
    def ledger(self) -> Any:
        """The learned side, made by the first key in scope; None before."""
        return self._ledger

    # -- what happened

    def note(self, verb: int, matter: Any, at: float) -> None:
        if matter is not None:
            self._do[verb](matter, at)

    def released(self, keys: Iterable[bytes], at: float) -> None:
        """The learned side let these go; it is for the caller to make it true on the server, or not."""
        for key in keys:
            entry = self._known(key, at)
            if entry is None:
                entry = self._unshadow(key, at)
            elif self.real and entry.released is None:
                self._count(entry, at)
                entry.released, entry.saved = at, 0.0
            elif not self.real and entry.other > at:
                self._count(entry, at)
                entry.other = at
            else:
                continue
            if entry is not None:
                entry.tally.released += entry.weight

    def kept(self, keys: Iterable[bytes], at: float) -> None:
        """The server did not let these go, since somebody else had asked for them."""
        for key in keys:
            entry = self.entries.get(key)
            if entry is not None and entry.released is not None:
                self._take_back(entry, at)

    def _take_back(self, entry: Entry, at: float) -> None:
        self._count(entry, at)
        entry.tally.released -= entry.weight
        entry.tally.saved -= entry.saved
        entry.released = None

    def lives(self, key: bytes, milliseconds: int, at: float) -> None:
        """The server's answer to PTTL."""
        size = self.wanted.pop(key, 1.0)
        if key in self.entries or milliseconds == -2:
            return
        named, namespace = self.scope.of(key)
        if milliseconds >= 0 or named:
            # Nobody knows how long it was given when it was written: as long as the longest of its kind, to be on the safe side.
            left = milliseconds / 1000 if milliseconds >= 0 else math.inf
            # Somebody else's write: where it is there in the other world, nobody missed it there.
            self._enter(key, size, at + left, at, namespace, nominal=max(left, self.books.of(namespace).longest), other=self._there(key, at))
        else:
            self._asked.put(key, at)

    def settle(self, now: float, most: int = 256) -> None:
        """Close the books of what has expired by itself, `most` of it, and go on leaving out what the sample does without."""
        ends = self._ends
        while most and ends and ends[0][0] <= now:
            most -= 1
            _, key = heappop(ends)
            entry = self.entries.get(key)
            if entry is not None and entry.ends <= now:
                self._end(key, entry)
            shadow = self.shadows.get(key)
            if shadow is not None and shadow.other <= now:
                self._unshadow(key, now)
        self._thin(256, now)

    def _thin(self, most: int, now: float) -> None:
        """Leave out what a sparser sample does without, `most` of it."""
        if self._purge is None:
            return
        some = list(islice(self._purge, most))
        for key in some:
            held = self.entries.get(key) or self.shadows.get(key)
            if held is None:
                continue
            if self._outside(key):
                self._drop(key, now)
            else:
                self._count(held, now)
                held.weight = 1 << self.shift
        if len(some) < most:
            self._purge = None

    def sample(self, shift: int) -> None:
        """From now on one key in 2 ** shift stands for all."""
        denser = shift < self.shift
        self.shift = shift
        self.mask = self._sampled.mask(shift)
        if self.on_sample is not None:
            self.on_sample(shift)
        if not denser:
            self._purge = iter([*self.entries, *self.shadows])
        if len(self._ends) > 64 + 4 * len(self.entries):
            self._ends = sorted((entry.ends, key) for key, entry in self.entries.items() if entry.ends < math.inf)

    def totals(self, now: float) -> None:
        """Bring the books up to `now`, with what is still open."""
        self.settle(now, -1)
        for entry in (*self.entries.values(), *self.shadows.values()):
            self._count(entry, now)

    def clear(self, now: float) -> None:
        """Nothing is known any more; what was counted stays."""
        for key in [*self.entries, *self.shadows]:
            self._drop(key, now)
        for memory in (self.wanted, self._missed, self._strange, self._asked, self._grown):
            memory.clear()
        self._ends.clear()
        self._purge = None

    def close(self) -> None:
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None

    # -- entries

    def _outside(self, key: bytes) -> bool:
        return bool(self.shift and self._sampled.number(key) & self.mask)

    def _enter(self, key: bytes, size: float, ends: float, at: float, namespace: str, cost: float | None = None,
               nominal: float | None = None, other: float | None = None) -> None:
        """Follow `key` from its write, or from when it was found. `other`: until then it is there in the other world, if that differs."""
        self._unshadow(key, at)
        left = ends - at
        tally = self.books.of(namespace)
        if nominal is None:
            nominal = left
            if left < math.inf:
                tally.longest = max(tally.longest, left)
        if left <= 0 or self._outside(key):
            return
        if len(self.entries) >= self.max_keys:
            if self._purge is None:
                self.sample(self.shift + 1)
            self._thin(64, at)
            if self._outside(key) or len(self.entries) >= self.max_keys:
                self._ledger.gone(key)
                return
        if self._ledger is None:
            self._ledger = self._make()
        entry = self.entries[key] = Entry(at, ends, nominal, max(size, 1.0), namespace, tally, 1 << self.shift)
        if other is not None:
            entry.other = other
        self._strange.pop(key, None)
        if self.real or entry.other > at:
            self._tell(key, entry, at, cost)
        if ends < math.inf:
            heappush(self._ends, (ends, key))

    def _tell(self, key: bytes, entry: Entry, at: float, cost: float | None = None) -> None:
        # The learned side lives where keys are let go.
        ends = entry.ends if self.real else entry.other
        forever = ends == math.inf
        # Where it was not seen what a load takes, it is what others of its kind take: costs must be in one unit.
        mean = entry.tally.cost
        if cost is None:
            cost = mean
        else:
            entry.tally.cost = cost if mean is None else mean + (cost - mean) / 16
        self._ledger.put(key, size=entry.size, cost=cost, ttl=None if forever else max(0.0, ends - monotonic()),
                         nominal=None if forever else entry.nominal, namespace=entry.namespace)

    def _count(self, entry: Entry, now: float) -> None:
        """Charge an entry's memory in both worlds up to `now`."""
        since = entry.born
        if now <= since:
            return
        entry.born = now
        here, there = max(0.0, min(now, entry.ends) - since), max(0.0, min(now, entry.other) - since)
        if entry.released is not None:
            here = 0.0
        without, with_ = (there, here) if self.real else (here, there)
        worth = entry.size * entry.weight
        entry.tally.held += worth * without
        entry.tally.saved += worth * (without - with_)
        if entry.released is not None:
            entry.saved += worth * (without - with_)

    def _end(self, key: bytes, entry: Entry) -> None:
        """It has expired by itself."""
        self._leave(key, entry, entry.ends)
        self._shadow(key, entry, entry.ends)

    def _shadow(self, key: bytes, entry: Entry, at: float) -> None:
        """It is not here any more; is it there?"""
        if entry.other > at:
            entry.ends, entry.released = at, None
            self.shadows[key] = entry
            if entry.other < math.inf:
                heappush(self._ends, (entry.other, key))

    def _there(self, key: bytes, at: float) -> float | None:
        """Until when it is there in the other world; None where it is not, or not known."""
        held = self.entries.get(key) or self.shadows.get(key)
        return held.other if held is not None and held.other > at else None

    def _unshadow(self, key: bytes, at: float) -> Entry | None:
        """It is not there any more either, or here again."""
        shadow = self.shadows.pop(key, None)
        if shadow is not None:
            self._count(shadow, at)
        return shadow

    def _leave(self, key: bytes, entry: Entry, at: float) -> None:
        """No longer there: overwritten, deleted or expired by itself."""
        self._count(entry, at)
        del self.entries[key]

    def _forget(self, key: bytes, entry: Entry, at: float) -> None:
        self._leave(key, entry, at)
        self._ledger.gone(key)

    def _absent(self, key: bytes, entry: Entry, at: float) -> None:
        """The server does not have it."""
        self._leave(key, entry, at)
        if entry.released is not None:
            self._shadow(key, entry, at)

    def _known(self, key: bytes, at: float) -> Entry | None:
        entry = self.entries.get(key)
        if entry is not None and entry.ends <= at:
            self._end(key, entry)
            return None
        return entry

    def _drop(self, key: bytes, at: float) -> None:
        entry = self._known(key, at)
        if entry is not None:
            self._forget(key, entry, at)
        elif self._unshadow(key, at) is not None:
            self._ledger.gone(key)

    # -- verbs

    def _near(self, keys: Iterable[bytes], at: float) -> None:
        for key in keys:
            self._read((key, 0), at, near=True)

    def _read(self, matter: tuple[Any, int], at: float, near: bool = False) -> None:
        key, size = self.encode(matter[0]), matter[1]
        outside = self._outside(key)
        entry = None if outside else self._known(key, at)
        tally = entry.tally if entry is not None else self.books.of(self.scope.of(key)[1])
        if size == c.MISS:
            tally.misses += 1
        else:
            tally.hits += 1
        if outside:
            return
        if size == c.MISS:
            self._missed.put(key, at)
            if self.on_miss is not None and self.scope.of(key)[0] is not False:
                self.on_miss(key)
            if entry is not None:
                # Pushed out by the server, deleted by somebody else, or unlinked by us.
                self._ledger.got(key, False)
                self._absent(key, entry, at)
            shadow = self.shadows.get(key)
            if shadow is not None and at < shadow.other:
                # A hit there: a miss more with letting go, or one less.
                tally.extra += shadow.weight if self.real else -shadow.weight
                if not self.real:
                    self._ledger.got(key, True)
            return
        if entry is not None:
            followed = self._ledger.got(key, True, near=near)
            if entry.released is not None and (followed or not near):
                self._take_back(entry, at)      # it was still there, or is again
                if not followed:
                    self._tell(key, entry, at)
            elif entry.other <= at:
                # A miss there, which loads it.
                self._count(entry, at)
                tally.extra += -entry.weight if self.real else entry.weight
                entry.other = at + entry.nominal
                if not self.real:
                    self._tell(key, entry, at)
            if size and size != entry.size:
                self._count(entry, at)
                entry.size = float(size)
        elif self._ask and key not in self._strange and at - self._asked.get(key, -math.inf) > AGAIN \
                and self.scope.of(key)[0] is not False and len(self.wanted) < MEMORY:
            self.wanted[key] = max(self.wanted.get(key, 1.0), float(size))

    def _reads(self, matter: Iterable[tuple[Any, int]], at: float) -> None:
        for one in matter:
            self._read(one, at)

    def _write(self, given: Any, size: float, ends: float | None, at: float, lock: bool = False) -> None:
        """Written as a whole. ends None: as before."""
        key = self.encode(given)
        if self._outside(key):
            return
        entry = self._known(key, at)
        named, namespace = self.scope.of(key)
        other = None
        if ends is None and entry is not None:
            ends, other = entry.ends, self._there(key, at)
        if entry is not None:
            self._leave(key, entry, at)
        missed = self._missed.pop(key, None)
        if missed is not None and at - missed >= PATIENCE:
            missed = None
        shadow = self._unshadow(key, at)
        if shadow is not None and missed is not None and at < shadow.other:
            other = shadow.other        # a load that the miss caused: there it was a hit, and nothing was written
        self._grown.pop(key, None)
        self.wanted.pop(key, None)
        self._asked.pop(key, None)
        stays = ends is not None and (ends < math.inf or bool(named)) and named is not False and (named or not lock)
        if not stays:
            if entry is not None or shadow is not None:
                self._ledger.gone(key)
            if lock:
                self._strange.put(key, at)
            elif ends is None and self._ask and named is not False and key not in self._strange and len(self.wanted) < MEMORY:
                self.wanted[key] = float(size)
            return
        assert ends is not None
        cost = at - missed if missed is not None and at > missed else None
        self._enter(key, size, ends, at, namespace, cost, other=other)

    def _wrote(self, matter: tuple[Any, int, c.Args, bool], at: float) -> None:
        key, size, words, refused = matter
        if not words:
            self._write(key, size, math.inf, at)
            return
        options = c.Options(words)
        if refused and not options.get:
            return
        if refused and (options.only_new or b"XX" in words or "XX" in words):
            # With GET the answer does not tell whether it was written.
            self._drop(self.encode(key), at)
            return
        self._write(key, size, self._until(options, at), at, options.only_new)

    def _wrote_all(self, matter: tuple[list[tuple[Any, int]], c.Args, bool], at: float) -> None:
        pairs, words, only_new = matter
        options = c.Options(words)
        for key, size in pairs:
            self._write(key, size, self._until(options, at), at, only_new or options.only_new)

    @staticmethod
    def _until(options: c.Options, at: float) -> float | None:
        if options.keep:
            return None
        if options.milliseconds is None:
            return math.inf
        return _deadline(options.milliseconds, options.absolute, at)

    def _setex(self, matter: tuple[Any, int, Any, int], at: float) -> None:
        key, size, time_, unit = matter
        self._write(key, size, at + c.number(time_) * unit / 1000, at)

    def _expire(self, matter: tuple[Any, Any, int, bool, bool], at: float) -> None:
        given, time_, unit, absolute, done = matter
        key, ends = self.encode(given), _deadline(c.number(time_) * unit, absolute, at)
        if done:
            self._until_now(key, ends, at)
        else:
            self._until_there(key, ends, at)

    def _until_there(self, key: bytes, ends: float, at: float) -> None:
        """The key is not here; if it is there, it gets another expiry there."""
        entry = self._known(key, at)
        if entry is not None:
            self._absent(key, entry, at)
            self._ledger.gone(key)
        shadow = self.shadows.get(key)
        if shadow is None or shadow.other <= at:
            return
        if ends <= at or (ends == math.inf and not self.scope.of(key)[0]):
            self._drop(key, at)
            return
        self._count(shadow, at)
        shadow.other = ends
        if ends < math.inf:
            shadow.nominal = ends - at
            heappush(self._ends, (ends, key))
        if not self.real:
            self._tell(key, shadow, at)

    def _until_now(self, key: bytes, ends: float, at: float) -> None:
        """The key as it is gets another expiry."""
        entry = self._known(key, at)
        if entry is not None:
            if ends <= at:
                self._forget(key, entry, at)
                return
            if entry.released is not None:
                self._take_back(entry, at)      # it was still there
            there = ends if entry.other > at else entry.other
            self._leave(key, entry, at)
            # Who loads it again gives it what it was given before it was made to stay.
            self._enter(key, entry.size, ends, at, entry.namespace, nominal=entry.nominal if ends == math.inf else None, other=there)
            return
        named, namespace = self.scope.of(key)
        if named is False or (key in self._strange and not named):
            return
        self._enter(key, self._grown.pop(key, self.wanted.pop(key, 1.0)), ends, at, namespace)

    def _persist(self, matter: tuple[Any, bool], at: float) -> None:
        key = self.encode(matter[0])
        entry = self._known(key, at)
        if not matter[1]:
            self._until_there(key, math.inf, at)
            return
        if entry is None:
            return
        if self.scope.of(key)[0]:
            self._until_now(key, math.inf, at)
        else:
            self._forget(key, entry, at)

    def _gone(self, keys: Iterable[Any], at: float) -> None:
        for given in keys:
            for key in map(self.encode, given if isinstance(given, (list, tuple)) else (given,)):
                self._drop(key, at)
                for memory in (self._strange, self._grown, self._asked, self.wanted):
                    memory.pop(key, None)

    def _built(self, matter: tuple[Any, int], at: float) -> None:
        key = self.encode(matter[0])
        if self._known(key, at) is not None:
            # Grown after it was complete: what it holds comes from what it held.
            self._counted((matter[0],), at)
        elif not self._outside(key) and key not in self._strange:
            self._grown.put(key, self._grown.get(key, 0.0) + matter[1])

    def _counted(self, keys: Iterable[Any], at: float) -> None:
        for given in keys:
            key = self.encode(given)
            self._drop(key, at)
            self._strange.put(key, at)
            self.wanted.pop(key, None)

    def _unknown(self, keys: Iterable[Any], at: float) -> None:
        for given in keys:
            key = self.encode(given)
            self._drop(key, at)
            self.wanted.pop(key, None)

    def _renamed(self, matter: tuple[Any, Any], at: float) -> None:
        source, target = map(self.encode, matter)
        entry = self._known(source, at)
        strange = source in self._strange
        # Where it is not there, the target stays there what it was.
        other = self._there(source, at) or self._there(target, at) or at
        self._gone((source,), at)
        if source != target:
            self._gone((target,), at)
        if strange:
            self._strange.put(target, at)
        elif entry is not None:
            self._moved(target, entry, at, other)

    def _copied(self, matter: tuple[Any, Any, c.Args], at: float) -> None:
        source, target = map(self.encode, matter[:2])
        words = {(word.decode("latin-1") if isinstance(word, bytes) else str(word)).upper() for word in matter[2]}
        if "DB" in words:
            return
        entry = self._known(source, at)
        copied, before = self._there(source, at), self._there(target, at)
        other = (copied or before if "REPLACE" in words else before or copied) or at
        self._gone((target,), at)
        if source in self._strange:
            self._strange.put(target, at)
        elif entry is not None:
            self._moved(target, entry, at, other)

    def _moved(self, target: bytes, entry: Entry, at: float, other: float) -> None:
        named, namespace = self.scope.of(target)
        if named is not False and (named or entry.ends < math.inf):
            self._enter(target, entry.size, entry.ends, at, namespace, nominal=entry.nominal, other=other)

    def _flushed(self, matter: Any, at: float) -> None:
        self.clear(at)

    def _getset(self, matter: tuple[Any, int, int], at: float) -> None:
        self._read(matter[:2], at)
        self._missed.pop(self.encode(matter[0]), None)      # no load: it is written there too
        self._write(matter[0], matter[2], math.inf, at)

    def _getdel(self, matter: tuple[Any, int], at: float) -> None:
        self._read(matter, at)
        self._gone(matter[:1], at)

    def _getex(self, matter: tuple[Any, int, c.Args], at: float) -> None:
        self._read(matter[:2], at)
        options = c.Options(matter[2])
        here = matter[1] != c.MISS
        if options.persist:
            self._persist((matter[0], here), at)
        elif options.milliseconds is not None:
            ends = _deadline(options.milliseconds, options.absolute, at)
            (self._until_now if here else self._until_there)(self.encode(matter[0]), ends, at)


def _deadline(milliseconds: float, absolute: bool, at: float) -> float:
    """On the monotonic clock, of a time to live or a time since 1970. A relative one counts from when the command was sent."""
    return monotonic() + milliseconds / 1000 - time() if absolute else at + milliseconds / 1000
