"""What this process knows of keys whose values lie elsewhere: when each is worth holding, and when it is not.

A ledger is a learned cache without values. Its user tells it what was written (`put`), read (`got`) and removed (`gone`) on a
server, and it says how long a deadline written there should be (`hold`) and which keys the server need not hold any longer
(`on_release`), under the promise of `Learned`: a key that it lets go of within its protected window has been
allowed by the bank. Keys are followed under salted hashes that are the same in every process with the same salt, so that
what one process learned of a key another one can use.

This file knows no server, no client and no thread of its own; who unlinks keys is `release`, and who shares what is learned is
the fleet.
"""
from __future__ import annotations

import math
import os
import threading
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, Final, Protocol
from weakref import WeakSet, ref

from adaptcache import _core, checks
from adaptcache.background import POOL
from adaptcache.expiry import Learned
from adaptcache.mapping import Cache
from adaptcache.removal import Cause
from adaptcache.stats import Stats

__all__ = ("GONE", "GOT", "MISSED", "PUT", "Heard", "Ledger", "Release", "Touched")

PUT, GOT, MISSED, GONE = range(4)       # what a listener hears of

# Python's hash of an int below this is the int itself, in every process.
_BELOW: Final = (1 << 61) - 2


@dataclass(frozen=True, slots=True)
class Release:
    """A key that is not worth holding any longer.

    key             as it was told to the ledger
    last            when it was last asked for or written, as far as this process knows, seconds of the ledger's timer
    age             seconds since then
    window_left     seconds of its protected window that are left; above zero: the bank has been charged for it. Below: since its end
    ceiling_left    seconds until its own expiry would have ended it; inf without one
    wait            seconds that it must be held on for, since the bank has no credit left
    size, cost, nominal, namespace, features      as told
    """

    key: bytes
    last: float
    age: float
    window_left: float
    ceiling_left: float
    size: float
    cost: float | None
    wait: float = 0.0
    nominal: float | None = None
    namespace: Hashable = None
    features: Mapping[str, float | int | str] | None = None


class Followed:
    """A key that is followed: what the learner does not keep of it."""

    __slots__ = ("ceiling", "cost", "features", "key", "last", "namespace", "nominal", "size", "touched", "window")

    def __init__(self, key: bytes, now: float, ceiling: float, size: float, cost: float | None, window: float,
                 nominal: float | None, namespace: Hashable, features: Mapping[str, float | int | str] | None) -> None:
        self.key = key
        self.last = now
        self.touched = now      # when the server was last asked for it
        self.ceiling = ceiling
        self.size = size
        self.cost = cost
        self.window = window
        self.nominal = nominal
        self.namespace = namespace
        self.features = features


class Heard(Protocol):
    """A listener: hears of each event, in the thread in which it happened. `number` is the key's salted hash, `ttl` its
    expiry as it was written."""

    def __call__(self, kind: int, number: int, at: float, size: float, cost: float | None, ttl: float | None,
                 namespace: Hashable, features: Mapping[str, float | int | str] | None, /) -> object: ...


@dataclass(frozen=True, slots=True)
class Touched:
    """Keys that this process answered by itself for a while, so that the server takes them for idle."""

    keys: tuple[bytes, ...]


def _forward(timer: Callable[[], float]) -> Callable[[], float]:
    """`timer` as the learned cache sees it: standing still where it went back, so that both mean the same windows."""
    latest = -math.inf

    def now() -> float:
        nonlocal latest
        at = timer()
        if at > latest:
            latest = at
        return latest

    return now


class Ledger:
    """Follows keys on a server, at most `maxsize` of them, and learns how long each is worth holding.

    expiry          `Learned(...)`. Its price is per unit of `size` and second
    maxsize         keys followed at once; of those beyond it nothing is released, and their own deadlines hold
    salt            of the hashes of keys; the same in processes that learn together
    timer           as of `Cache`
    break_even_ttl  a key's break-even time is its own nominal expiry times this, whatever it costs and weighs (all misses count alike then): with 1, who gives an
                    entry ten minutes thinks that holding it for ten minutes is worth one miss. `memory_price` must be None then
    on_release      called with a list of `Release`, in a background thread, or in `step` with learner="manual"
    on_touch        called with `Touched` likewise

    With learner="manual" call `step()` now and then. Safe to use from several threads.
    """

    def __init__(
        self, expiry: Learned, *, maxsize: int = 1_000_000, salt: bytes = b"", timer: Callable[[], float] | None = None,
        break_even_ttl: float | None = None, on_release: Callable[[list[Release]], object] | None = None,
        on_touch: Callable[[Touched], object] | None = None,
    ) -> None:
        if not isinstance(expiry, Learned):
            raise TypeError(f"expiry: expected Learned(...), got {type(expiry).__name__}")
        if isinstance(maxsize, bool) or not isinstance(maxsize, int) or maxsize < 1:
            raise ValueError(f"maxsize: {maxsize!r} is not accepted; the accepted range is a whole number of keys, one or more")
        if not isinstance(salt, bytes) or len(salt) > 64:
            raise ValueError("salt: expected at most 64 bytes")
        if break_even_ttl is not None:
            checks.number("break_even_ttl", break_even_ttl, "a number above zero, or None", 0.0, 1e6, open_low=True)
            if expiry.memory_price is not None:
                raise ValueError("break_even_ttl: the price follows from each key's own expiry; give memory_price=None")
            expiry = replace(expiry, memory_price=1.0)
        self.maxsize = maxsize
        self.expiry = expiry
        self.listener: Heard | None = None
        self.break_even_ttl = 0.0 if break_even_ttl is None else float(break_even_ttl)
        self._salt = salt
        self._clock = _core.monotonic if timer is None else _forward(timer)
        self._on_release = on_release
        self._on_touch = on_touch
        self._manual = expiry.learner == "manual"
        # Whoever takes releases asks `leave` before it lets go of one: until then the key is still on the server.
        self.asked = False
        self._leaving: dict[int, Release] = {}
        self._waiting: deque[Release] = deque()
        self._untold: deque[bytes] = deque()
        self._unlocked()
        self._late = self._hits = self._misses = 0
        self._closed = False
        me = ref(self)

        def removed(number: Any, kept: Followed, cause: Cause, at: float) -> None:
            ledger = me()
            if ledger is not None and cause is Cause.EXPIRED:
                ledger._expired(number, kept, at)

        # Bounded here, by keys: a bound of the cache's own would count sizes. SIEVE, since an unbounded cache asks its policy little.
        self.cache: Cache[int, Followed] = Cache(None, policy="sieve", expiry=expiry, timer=None if timer is None else self._clock,
                                                 on_removal=removed)
        _ALL.add(self)

    def _unlocked(self) -> None:
        """New locks: at first, and in the child of a fork, where nobody gives the old ones back."""
        self._busy = threading.Lock()       # held by whoever hands releases on
        self._gate = threading.RLock()      # between letting go of a key and following it again

    def number(self, key: bytes) -> int:
        """The salted hash under which a key is followed: the same in every process with the same salt."""
        return int.from_bytes(blake2b(key, digest_size=8, key=self._salt).digest(), "little") % _BELOW

    # -- what happened

    def put(self, key: bytes, *, size: float = 1.0, cost: float | None = None, ttl: float | None = None,
            nominal: float | None = None, namespace: Hashable = None,
            features: Mapping[str, float | int | str] | None = None) -> None:
        """A value was written, or seen for the first time. `ttl`: seconds after which its own expiry ends it; `nominal`: the
        same when it was written, if that is longer ago; `cost` of a miss, `size` as for `Cache.set`.

        ValueError and TypeError name the argument, before anything has changed.
        """
        number, now = self._follow(key, size, cost, ttl, nominal, namespace, features)
        if self.listener is not None:
            self.listener(PUT, number, now, size, cost, ttl if nominal is None else nominal, namespace, features)

    def _follow(self, key: bytes, size: float, cost: float | None, ttl: float | None, nominal: float | None, namespace: Hashable,
                features: Mapping[str, float | int | str] | None) -> tuple[int, float]:
        if ttl is not None:
            checks.seconds("ttl", ttl)
        if nominal is None:
            nominal = ttl
        else:
            checks.seconds("nominal", nominal)
        number, now = self.number(key), self._clock()
        heavy = checks.number("size", size, "a finite number, zero or more", 0.0, 1e300)
        window = self._window(cost, heavy, nominal)
        kept = Followed(key, now, math.inf if ttl is None else now + ttl, heavy, cost, window, nominal, namespace, features)
        if self.break_even_ttl:
            # All misses count alike: a break-even time that does not depend on the cost tells nothing of it, and costs that are known for
            # some keys only would let these decide which expert is believed.
            cost = None
            heavy = self.expiry.miss_cost / (nominal * self.break_even_ttl) if nominal else 0.0
        self._leaving.pop(number, None)
        self.cache.set(number, kept, ttl=ttl, cost=cost, size=heavy, namespace=namespace, features=features)
        for _ in range(len(self.cache) - self.maxsize):
            try:
                self.cache.popitem()
            except KeyError:
                break       # others have removed some meanwhile
        return number, now

    def got(self, key: bytes, hit: bool, *, near: bool = False) -> bool:
        """A value was asked for, and the server had it or not; was it followed?

        `near`: it was answered from this process, and the server does not know that anybody asked.
        """
        number, now = self.number(key), self._clock()
        return self._hit(number, now, near) if hit else self._miss(number, now)

    def _miss(self, number: int, now: float) -> bool:
        self._misses += 1       # a count lost now and then, by threads that meet, is no harm
        self._leaving.pop(number, None)
        if number in self.cache:
            self.cache.pop(number, None)        # somebody else's doing: its expiry, an eviction, a removal
            self._tell(GONE, number, now)
            return True
        self.cache.get(number)
        self._tell(MISSED, number, now)
        return False

    def _hit(self, number: int, now: float, near: bool) -> bool:
        cache = self.cache
        if self.asked and number not in cache and self._stays(number, near):    # looked at first, so that what is due has left before
            self._tell(GOT, number, now)
            self._hits += 1
            return True
        kept = cache.get(number)
        self._tell(GOT, number, now)
        if kept is None:
            self._hits += not near      # else the server is asked, and tells us again
            return False
        self._hits += 1
        kept.last = now
        if not near:
            kept.touched = now
        elif now - kept.touched >= max(1.0, min(kept.window, 3600.0) / 8):
            kept.touched = now
            self._untold.append(kept.key)
            self._hand_on()
        return True

    def _stays(self, number: int, near: bool) -> bool:
        """Was it waiting to be let go of? Then it is followed again, and nobody has lost it."""
        with self._gate:
            leaving = self._leaving.get(number)
            if leaving is None:
                return False
            self.cache._excuse(number)
            self.cache.get(number)      # the learner hears how long it was not asked for
            self._return(leaving)
        if near:
            self._untold.append(leaving.key)
            self._hand_on()
        return True

    def _tell(self, kind: int, number: int, now: float) -> None:
        if self.listener is not None:
            self.listener(kind, number, now, 0.0, None, None, None, None)

    def leave(self, release: Release) -> bool:
        """The key is let go of on the server, now; from here on who asks for it has lost it. False: it must stay, since it was
        written or asked for here since it was released."""
        number = self.number(release.key)
        with self._gate:
            if self._leaving.get(number) is release:
                self._leaving.pop(number, None)
            return number not in self.cache

    def gone(self, key: bytes) -> None:
        """The value was removed or expired by itself; nobody is to blame if it is missed."""
        number = self.number(key)
        self._leaving.pop(number, None)
        if self.cache.pop(number, None) is not None:
            self._tell(GONE, number, self._clock())

    def clear(self) -> None:
        """Follow nothing any more; what was learned stays."""
        self._leaving.clear()
        self.cache.clear()

    def kept(self, release: Release) -> None:
        """The server did not let go of a released key, since somebody else had asked for it: follow it again."""
        if self.number(release.key) in self.cache:
            return      # it was written again meanwhile, and what is known of that is newer
        self._return(release)

    def _return(self, release: Release) -> None:
        left = release.ceiling_left - (self._clock() - release.last - release.age)
        if left > 0:
            # Nothing was written, so nobody hears of it.
            self._follow(release.key, release.size, release.cost, None if math.isinf(left) else left, release.nominal,
                         release.namespace, release.features)

    def lost(self, number: int) -> bool:
        """Another process asked, within its protected window, for a key that this one had released. False: it was told too
        late for the bank, and is subtracted from what may be released early from now on."""
        before = self.cache._counters()["premature"]
        if number in self.cache:
            return True         # it is back, and the loss was noticed with that
        self.cache.get(number)
        if self.cache._counters()["premature"] > before:
            return True
        self._late += 1
        return False

    # -- what to do

    def hold(self, key: bytes) -> float:
        """Seconds from now for which a deadline should be written: the horizon that is worth most, by what is learned, never
        within the protected window, and never past the key's own expiry. inf: nothing says that it should end."""
        try:
            told = self.cache._explain(self.number(key))
        except KeyError:
            return math.inf
        breakeven, left = told["breakeven"], float(told["expires_in"])
        if not breakeven:
            return left
        worth, best, before, came = 0.0, 0.0, told["idle"], 0.0
        held = 0.0      # expected seconds of holding, up to `until`
        for until, by in told["distribution"]:
            # Those that come within a bin do so in its middle, on average.
            held += (1 - came) * (until - before) - (by - came) * (until - before) / 2
            if by - held / breakeven > worth:
                worth, best = by - held / breakeven, until
            before, came = until, by
        return float(min(max(best - told["idle"], told["window"]), left))

    def step(self) -> int:
        """With learner="manual": learn, and hand on what is to be released; how many those were."""
        self.cache.expire()
        self.cache.learn()
        return self._flush()

    def stats(self) -> Stats:
        """Of the learned cache behind it, but `hits` and `misses` are requests that found the key on the server, or near, and that
        did not. `premature` includes losses that were told too late for the bank."""
        counted = self.cache.stats()
        return replace(counted, hits=self._hits, misses=self._misses, premature=counted.premature + self._late)

    def close(self) -> None:
        """Release nothing any more."""
        self._closed = True
        self._waiting.clear()
        self._leaving.clear()
        self._untold.clear()

    # -- behind it

    def _window(self, cost: float | None, size: float, nominal: float | None) -> float:
        if self.expiry.window is not None:
            return self.expiry.window
        if self.break_even_ttl:
            return nominal * self.break_even_ttl / 4 if nominal else math.inf
        rent = (self.expiry.memory_price or 0.0) * size
        return (self.expiry.miss_cost if cost is None else cost) / rent / 4 if rent > 0 else math.inf

    def _expired(self, number: int, kept: Followed, at: float) -> None:
        if at >= kept.ceiling - 1e-6 or self._closed or self._on_release is None:
            return
        left = kept.last + kept.window - at
        wait = 0.0
        if left > 0 and self._late:
            # The bank does not know of these losses. Where it has nothing to spare for them the key is held to its window's end.
            books = self.cache._counters()
            if books["premature"] + self._late + books["in_flight"] > books["premature_budget"]:
                wait = left
        release = Release(kept.key, kept.last, max(0.0, at - kept.last), left, kept.ceiling - at, kept.size, kept.cost, wait,
                          kept.nominal, kept.namespace, kept.features)
        if self.asked:
            self._leaving[number] = release
        self._waiting.append(release)
        self._hand_on()

    def _hand_on(self) -> None:
        if self._manual or self._busy.locked():
            return
        me = ref(self)

        def work() -> None:
            ledger = me()
            if ledger is not None:
                ledger._flush()

        POOL.submit(work)

    def _flush(self) -> int:
        done = 0
        while (self._waiting or self._untold) and self._busy.acquire(blocking=False):
            try:
                releases = [self._waiting.popleft() for _ in range(min(len(self._waiting), 1000))]
                if releases and self._on_release is not None:
                    self._on_release(releases)
                done += len(releases)
                keys = tuple(self._untold.popleft() for _ in range(min(len(self._untold), 1000)))
                if keys and self._on_touch is not None:
                    self._on_touch(Touched(keys))
            finally:
                self._busy.release()
        return done


_ALL: WeakSet[Ledger] = WeakSet()


def _forked() -> None:
    for ledger in list(_ALL):
        ledger._unlocked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
