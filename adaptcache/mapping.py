"""`Cache`: the store, its expiry, its learner and its loads, put together.

Every request is one call into the compiled store, without a Python frame; what lives here is construction,
the mapping's less travelled methods, loading, and looking at it all.
"""
from __future__ import annotations

import math
import os
import secrets
import sys
import threading
from collections.abc import (
    Awaitable,
    Callable,
    Hashable,
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    Mapping,
    MutableMapping,
    ValuesView,
)
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast, overload

from adaptcache import _core, checks, copying, decisionlog, state
from adaptcache import expiry as expiries
from adaptcache.decisionlog import DecisionLog
from adaptcache.errors import StateError
from adaptcache.expiry import Fixed, Idle, Learned, PerEntry
from adaptcache.explain import Explanation, explanation
from adaptcache.flights import MISSING, Flights
from adaptcache.learn import experts, knowledge
from adaptcache.learn.knowledge import Knowledge, gather
from adaptcache.learn.worker import WORKER
from adaptcache.recording import Recording, record, running
from adaptcache.refresh import Digest, Refresher
from adaptcache.removal import CAUSES, Cause
from adaptcache.stats import Bank, Stats

if TYPE_CHECKING:
    from adaptcache.backends.backend import RedisBackend
    from adaptcache.backends.tiered import TieredCache
    from adaptcache.learn.trainer import Trainer

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

# The core's numbers of the kinds of expiry.
_FIXED, _IDLE, _ENTRY, _LEARNED = 1, 2, 3, 4

_RAISE: Any = object()

Removal = Callable[[Any, Any, Cause, float], object]
Features = Mapping[str, "float | int | str"]


def policies() -> tuple[str, ...]:
    """The names that `Cache(policy=...)` takes."""
    return tuple(_core.POLICIES)


class _Local(_core.Store, MutableMapping[K, V], Generic[K, V]):
    """All of a `Cache` but which class its call gives."""

    def __init__(
        self,
        maxsize: float | None,
        getsizeof: Callable[[Any], float] | None = None,
        *,
        policy: str = "adaptive",
        expiry: Any = None,
        timer: Callable[[], float] | None = None,
        on_removal: Removal | None = None,
        backend: Any = None,
    ) -> None:
        if backend is not None:
            raise TypeError(f"backend: {type(self).__name__} keeps its entries in this process; call adaptcache.Cache(backend=...)")
        spec = expiries.parse(expiry)
        trainer: Trainer | None = None
        options: dict[str, Any] = {}
        if isinstance(spec, Fixed):
            options = {"kind": _FIXED, "ttl": float(spec.ttl)}
        elif isinstance(spec, Idle):
            options = {"kind": _IDLE, "ttl": float(spec.ttl)}
        elif isinstance(spec, PerEntry):
            options = {"kind": _ENTRY, "deadline_of": spec.fn}
        elif isinstance(spec, Learned):
            if timer is not None and not callable(timer):
                raise TypeError(f"timer: expected a callable or None, got {type(timer).__name__}")
            options, trainer = self._learner(spec, timer)
        super().__init__(maxsize, getsizeof, policy=policy, timer=timer, on_removal=on_removal, causes=CAUSES, **options)
        # Only now: a second call was refused above, and must not have changed anything.
        self._spec = spec
        self._flights = Flights(timer)
        self._trainer = trainer
        self._refresher: Refresher | None = None
        if isinstance(spec, Learned) and (spec.stale is not None or spec.fail_safe is not None):
            self._refresher = Refresher(self, self._flights, timer or _core.monotonic, manual=spec.learner == "manual",
                                        fail_safe=spec.fail_safe is not None, missing=_core.MISSING)
        self._decisions: DecisionLog | None = None
        if isinstance(spec, Learned) and spec.learner == "thread":
            WORKER.add(self)

    @staticmethod
    def _learner(spec: Learned, timer: Callable[[], float] | None) -> tuple[dict[str, Any], Trainer]:
        # River brings scipy along, a second or more: only who learns waits for it.
        from adaptcache.learn.trainer import Trainer

        models = expiries.models(spec)
        seed = (secrets.randbits(63) if spec.seed is None else spec.seed) & (1 << 64) - 1
        brain = _core.Brain(
            mask=experts.mask("table" in spec.predictors, "river" in spec.predictors, len(models)),
            price=spec.memory_price or 0.0, alpha=expiries.shares(spec)[None], window=spec.window, miss_cost=spec.miss_cost,
            seed=seed, capacity=spec.max_keys,
            now=_core.monotonic() if timer is None else float(timer()),
        )
        trainer = Trainer(brain, river="river" in spec.predictors, models=models)
        return {
            "kind": _LEARNED, "brain": brain, "alpha": expiries.shares(spec)[None], "expected": spec.guarantee == "expected",
            "floor": spec.floor, "ceiling": spec.ceiling, "threaded": spec.learner == "thread",
            "stale": spec.stale, "fail_safe": spec.fail_safe, "seed": seed, "max_keys": spec.max_keys,
            "digest": None if spec.stale is None else Digest(spec.digest, timer or _core.monotonic),
            "stated": spec.memory_price or 0.0,
            "banks": [(label, share) for label, share in expiries.shares(spec).items() if label is not None],
        }, trainer

    # -- the rest of the mapping

    def __repr__(self) -> str:
        return f"{type(self).__name__}({dict(self._pairs_held())!r}, maxsize={self.maxsize!r}, currsize={self.currsize!r})"

    def pop(self, key: Any, default: Any = _RAISE) -> Any:
        """Remove a key and return its value, or `default` if it is not held; KeyError without one."""
        value = self._pop(key)
        if value is not _core.MISSING:
            return value
        if default is _RAISE:
            raise KeyError(key)
        return default

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """The value of a key; `default` is stored first if it is not held."""
        value = self.get(key, MISSING)
        if value is MISSING:
            self[key] = value = default
        return value

    def keys(self) -> KeysView[K]:
        return _Keys(self)

    def values(self) -> ValuesView[V]:
        return _Values(self)

    def items(self) -> ItemsView[K, V]:
        return _Items(self)

    # -- loading

    def get_or_load(
        self,
        key: Any,
        loader: Callable[[Any], V],
        *,
        ttl: float | None = None,
        cost: float | None = None,
        size: float | None = None,
        namespace: Hashable = None,
        features: Features | None = None,
    ) -> V:
        """The value of `key`, from `loader(key)` if it is not held.

        One load a key at a time over all threads and tasks (see `flights`); its time, of `timer` if the cache
        has one, is the default cost. An exception reaches every waiter, and nothing is stored. A value that does not fit is returned all
        the same. The rest is as for `set`.

        With `Learned(stale=...)` a value that may soon be stale is returned and reloaded in the background; with
        `fail_safe` a load that fails is answered with the last good value where there is one.
        """
        _vet(loader, ttl, cost, size)
        refresher = self._refresher
        if refresher is not None:
            value, wanted = self._ask_loading(key, MISSING, size, cost, namespace, features)
            if wanted:
                refresher.start(key, partial(loader, key), partial(self._renewed, key, ttl, cost, size, namespace, features))
        else:
            value = self._ask(key, size, cost, namespace, features)
        if value is not MISSING:
            return cast(V, value)
        store = partial(self._loaded, key, ttl, cost, size, namespace, features)
        if refresher is not None:
            return cast(V, refresher.load(key, partial(loader, key), store, partial(self._recheck, key)))
        return cast(V, self._flights.load(key, partial(loader, key), store, partial(self._recheck, key)))

    async def aget_or_load(
        self,
        key: Any,
        loader: Callable[[Any], Awaitable[V]],
        *,
        ttl: float | None = None,
        cost: float | None = None,
        size: float | None = None,
        namespace: Hashable = None,
        features: Features | None = None,
    ) -> V:
        """`get_or_load` with a loader that is awaited."""
        _vet(loader, ttl, cost, size)
        refresher = self._refresher
        if refresher is not None:
            value, wanted = self._ask_loading(key, MISSING, size, cost, namespace, features)
            if wanted:
                refresher.astart(key, partial(loader, key), partial(self._renewed, key, ttl, cost, size, namespace, features))
        else:
            value = self._ask(key, size, cost, namespace, features)
        if value is not MISSING:
            return cast(V, value)
        store = partial(self._loaded, key, ttl, cost, size, namespace, features)
        if refresher is not None:
            return cast(V, await refresher.aload(key, partial(loader, key), store, partial(self._recheck, key)))
        return await self._flights.aload(key, partial(loader, key), store, partial(self._recheck, key))

    def _ask(self, key: Any, size: Any, cost: Any, namespace: Any, features: Any) -> Any:
        if namespace is None and features is None:
            return self.get(key, MISSING)
        return self._get_with(key, MISSING, size, cost, namespace, features)

    def _recheck(self, key: Any) -> Any:
        # `in` first: this caller's miss has been counted.
        return self.get(key, MISSING) if key in self else MISSING

    def _loaded(self, key: Any, ttl: Any, cost: Any, size: Any, namespace: Any, features: Any, value: Any,
                seconds: float) -> None:
        try:
            if cost is None:
                self._set_loaded(key, value, ttl, seconds, size, namespace, features)
            else:
                self.set(key, value, ttl=ttl, cost=cost, size=size, namespace=namespace, features=features)
        except ValueError as error:
            if str(error) != "value too large":
                raise

    def _renewed(self, key: Any, ttl: Any, cost: Any, size: Any, namespace: Any, features: Any, value: Any,
                 seconds: float) -> None:
        """Store what a reload behind the requests' back came to."""
        try:
            self._set_renewed(key, value, ttl, cost, seconds, size, namespace, features)
        except ValueError as error:
            if str(error) != "value too large":
                raise

    def refresh(self) -> int:
        """With `learner="manual"`: do the reloads that freshness has asked for; how many those were. `learn` does so too.

        With `learner="thread"` they run by themselves, and this does nothing.
        """
        return 0 if self._refresher is None else self._refresher.run_due()

    async def arefresh(self) -> int:
        """`refresh` for loaders that are awaited."""
        return 0 if self._refresher is None else await self._refresher.arun_due()

    # -- learning

    def learn(self) -> int:
        """One step of learning by hand, for `learner="manual"`; how many labels and questions it saw."""
        if self._trainer is None:
            return 0
        self.refresh()
        while self._learn(512):
            pass
        done = self._trainer.step(*self._books())
        if self._decisions is not None:
            self._decisions.drain()
        return done

    def _work(self) -> bool:
        """A bounded piece of learning from events, for the worker; True when there is more to do at once."""
        return self._learn(128)

    def _train(self) -> None:
        """One short step of training models, for the worker."""
        if self._trainer is not None:
            self._trainer.step(*self._books(), most=self._trainer.SHORT)

    def _forked(self) -> None:
        """In a forked child: whoever held the lock is not here."""
        if self._trainer is not None:
            self._trainer.lock = threading.RLock()

    def _report(self) -> None:
        """A bounded piece of writing decisions, for the worker."""
        if self._decisions is not None:
            self._decisions.step()

    # -- state that survives

    def save(self, path: str | os.PathLike[str], *, entries: bool = False) -> None:
        """Write what was learned to a file, atomically; the entries too with `entries=True` (they are pickled)."""
        learned = self._knowledge()
        held = None
        if entries:
            held = [(key, value, *self._lasting(key)) for key, value in self._pairs_held()]
        state.write(path, learned, held)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], maxsize: float | None = None, getsizeof: Callable[[Any], float] | None = None,
        *, entries: bool = False, **options: Any,
    ) -> Self:
        """A new cache with `maxsize`, `getsizeof` and the options of `Cache`, that knows what `save` wrote.

        `entries=True` also takes over the entries, each for the time it had left; they are pickled, so do this
        only with files of your own. With `Learned(stale=...)` these are the entries whose validity was declared: of the
        others nobody knows what has changed meanwhile. StateError for a file that is damaged, foreign, of another version or machine,
        or learned with other predictors. At another price of memory only what holds at every price is taken over.
        """
        if options.get("backend") is not None:
            raise TypeError("backend: make the cache on the server first, and give it what was learned with merge_state(path)")
        learned, held = state.read(path, entries=entries)
        cache = cls(maxsize, getsizeof, **options)
        if cache._trainer is not None and learned is not None:
            cache._fitting(path, learned).install(cache, cache._trainer)
        for key, value, left, declared in held or ():
            if left > 0 and (declared or not cache._watching):
                cache.set(key, value, ttl=None if left == math.inf and not cache._watching else left)
        return cache

    def merge_state(self, paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> None:
        """Add what other workers learned and saved to what this cache knows; entries stay as they are.

        StateError for a file that `load` would refuse, or that was learned under another price or window;
        nothing was changed then. ValueError when this cache does not learn. See `adaptcache.merge`.
        """
        if self._trainer is None:
            raise ValueError("merge_state: this cache does not learn; its expiry is not Learned")
        states = state.read_all(paths)
        with self._trainer.lock:
            mine = self._knowledge()
            assert mine is not None
            state.together([mine, *states], "merge_state").install(self, self._trainer)

    def _lasting(self, key: Any) -> tuple[float, bool]:
        """For how many seconds an entry may still be served, and whether the user said so."""
        left = self.expires_in(key) if key in self else 0.0
        return left, not self._watched(key) if self._watching else left < math.inf

    @property
    def _watching(self) -> bool:
        """Are validities learned, where the user declares none?"""
        return isinstance(self._spec, Learned) and self._spec.stale is not None

    def _knowledge(self) -> Knowledge | None:
        if self._trainer is None:
            return None
        return gather(self, self._trainer, self._configuration(), self._keys_held())

    def _configuration(self) -> dict[str, Any]:
        """What learned state depends on."""
        assert self._trainer is not None and isinstance(self._spec, Learned)
        price, window = self._spec.memory_price, self._spec.window
        return {"experts": self._trainer.brain.taking_part(), "models": self._trainer.names,
                "price": None if price is None else float(price),
                "window": None if window is None else min(float(window), 1e300)}

    def _fitting(self, path: str | os.PathLike[str], learned: Knowledge) -> Knowledge:
        try:
            return learned.fitted(self._configuration())
        except ValueError as error:
            raise StateError(f"{path}: {error}") from error

    # -- copies (copying.py)

    def __copy__(self) -> Any:
        """A cache of its own, with the same keys and values."""
        return copying.copied(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copying.deepcopied(self, memo)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return copying.reduced(self, protocol)

    def __getstate__(self) -> dict[str, Any]:
        """The attributes that a subclass or a user added."""
        return {name: value for name, value in self.__dict__.items() if name not in _OURS}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def _portrait(self, *, lasting: bool) -> dict[str, Any]:
        """Options, entries and what was learned, for `_revive`. lasting: for another time, when values may have changed."""
        learned = self._knowledge()
        entries = _core.entries_of(self)
        if lasting and self._watching:
            entries = _declared(entries)
        return {"maxsize": self.maxsize, "getsizeof": self._sizer, "policy": self.policy_name, "expiry": self._spec,
                "timer": self.timer, "on_removal": self._on_removal, "entries": entries,
                "learned": None if learned is None else learned.document()}

    def _revive(self, state: dict[str, Any]) -> None:
        """In place of `__init__`: be what `_portrait` showed."""
        _Local.__init__(self, state["maxsize"], state["getsizeof"],
                       **{name: state[name] for name in ("policy", "expiry", "timer", "on_removal")})
        if self._trainer is not None and state["learned"] is not None:
            try:
                knowledge.read(state["learned"]).fitted(self._configuration()).install(self, self._trainer)
            except (ValueError, KeyError, TypeError) as error:
                raise StateError(f"a pickled {type(self).__name__}: {error}") from error
        _core.put_entries(self, state["entries"])

    # -- looking at it

    def stats(self) -> Stats:
        """The counters at this moment."""
        currsize = self.currsize    # first: it lets go of what is due, and that is counted
        c = self._counters()
        loads = self._flights.loads
        weights: dict[str, float] = {}
        alarms: dict[str, int] = {}
        reasons, outside, calm = [], 0, 0
        if self._trainer is not None:
            weights = experts.shares(self._trainer.brain, self._trainer.names)
            alarms, outside, calm = dict(self._trainer.alarms), self._trainer.brain.outside, self._trainer.calm * self._trainer.ROUND
            if c["credit"] < 1:
                reasons.append("no credit")
            if self._trainer.recovering:
                reasons.append("drift")
        return Stats(
            hits=c["hits"], misses=c["misses"], loads=loads.done, load_failures=loads.failed, load_seconds=loads.seconds,
            inserts=c["inserts"], evictions=c["evictions"], expirations=c["expirations"], premature=c["premature"],
            protected=c["protected"], premature_budget=c["premature_budget"], in_flight=c["in_flight"],
            stale_served=c["stale_served"], refreshes=c["refreshes"],
            refresh_failures=0 if self._refresher is None else self._refresher.failures,
            currsize=currsize, maxsize=self.maxsize, weights=weights, drift_alarms=sum(alarms.values()),
            fallback=bool(reasons), fallback_reason=", ".join(reasons), alarms=alarms, calm=calm, out_of_scope=outside,
            banks={label: Bank(protected, lost, flying, share * protected + 1) for label, share, protected, lost, flying, _ in c["banks"]},
        )

    def explain(self, key: Any) -> Explanation:
        """Why this entry's deadline is what it is; KeyError when it is not held."""
        raw = self._explain(key)
        if self._trainer is None:
            return explanation(raw, [], [])
        return explanation(raw, self._trainer.names, self._trainer.brain.feature_names)

    def log_decisions(
        self, path: str | os.PathLike[str], *, sample: float = 0.01, max_bytes: int = 64 << 20,
        salt: str | bytes | int | None = None, namespaces: str = "repr",
    ) -> DecisionLog:
        """Write what the learned expiry decides about a sample of the keys, and what comes of it (docs/explain.md).

        path        of JSON lines. When it holds half of `max_bytes` it becomes `path.1`, in place of an older one
        sample      share of the keys, chosen by salted hash, so that whole histories of those are kept
        max_bytes   of both files together; at least 16 KiB
        salt        of the hashes that stand for keys; None draws one. Give one to compare keys between runs (whose
                    hashes must be equal then: Python salts those of str and bytes with PYTHONHASHSEED)
        namespaces  "repr": as they are; "hash": salted hashes

        A log that runs already is closed first. ValueError and TypeError name the argument, OSError the file; later
        trouble with the file ends the log and is never raised (`decision_log.error`).
        """
        spec = self._spec
        if not isinstance(spec, Learned) or self._trainer is None:
            raise ValueError("log_decisions: only a learned expiry decides; give the cache expiry=Learned(...)")
        shares = expiries.shares(spec)
        about = {
            "memory_price": spec.memory_price, "premature": shares[None], "window": spec.window, "floor": spec.floor,
            "ceiling": spec.ceiling, "guarantee": spec.guarantee, "learner": spec.learner, "sample": sample,
            "maxsize": self.maxsize, "policy": self.policy_name,
        }
        decisionlog.vet(path, sample, max_bytes, salt, namespaces)
        before = self._decisions
        if before is not None and before.running:
            before.close()
        self._decisions = DecisionLog(
            self, path, sample=sample, max_bytes=max_bytes, salt=salt, namespaces=namespaces, about=about,
            banks=[share for label, share in shares.items() if label is not None],
            users=self._trainer.names, app=self._trainer.brain.feature_names,
        )
        return self._decisions

    @property
    def decision_log(self) -> DecisionLog | None:
        """The log of `log_decisions`, also after it has stopped; None without one."""
        return self._decisions

    def record(
        self, path: str | os.PathLike[str], *, sample: float = 1.0, max_bytes: int = 64 << 20,
        salt: str | bytes | int | None = None, names: bool = False, thread: bool | None = None,
    ) -> Recording:
        """Write what this cache is asked from now on to a file that `adaptcache simulate` replays: `adaptcache.record` of it."""
        return record(path, self, sample=sample, max_bytes=max_bytes, salt=salt, names=names, thread=thread)

    @property
    def recording(self) -> Recording | None:
        """The recording that runs; None without one."""
        return running(self)

    def _log_about(self) -> dict[str, Any]:
        """The cache as a whole, for a line of the log."""
        c = self._counters()
        named = ("hits", "misses", "evictions", "expirations", "premature", "protected", "premature_budget", "in_flight", "refused")
        return {"time": _core.monotonic() if self.timer is None else float(self.timer()), **{name: c[name] for name in named},
                # Of the bank that has used most of what it may lose.
                "used": max((lost + flying) / (share * protected + 1) for _, share, protected, lost, flying, _ in c["banks"])}


class Cache(_Local[K, V]):
    """A mapping that holds at most `maxsize`, evicts by `policy` and lets go by `expiry`.

    maxsize     entries, or what `getsizeof` returns summed up; None or math.inf: unbounded; 0 holds nothing
    getsizeof   size of a value; the default counts every entry as 1. `adaptcache.sizeof` weighs keys and values in bytes; so
                does any weigher whose `with_key` is True: it is called with both
    policy      one of `adaptcache.policies()`; the default learns which entries promise the most hits (docs/policies.md)
    expiry      None, seconds (the same as Fixed), Fixed, Idle, PerEntry or Learned
    timer       callable giving seconds, never assumed to move forward only; None: a coarse monotonic clock
    on_removal  called as (key, value, cause, at) after an entry has left; an exception in it is logged
    backend     an `adaptcache.RedisBackend`: the entries lie on its server, which other processes share, and `space` names
                this cache there (docs/backend.md)

    Semantics of `cachetools.Cache`: a value larger than `maxsize` raises ValueError("value too large") and
    changes nothing. Safe to use from several threads. ValueError and TypeError name the argument.
    """

    @overload
    def __new__(
        cls, maxsize: float | None, getsizeof: Callable[[Any], float] | None = ..., *, policy: str = ..., expiry: Any = ...,
        timer: Callable[[], float] | None = ..., on_removal: Removal | None = ..., backend: None = ...,
    ) -> Self: ...
    @overload
    def __new__(
        cls, maxsize: float | None, getsizeof: Callable[[Any], float] | None = ..., *, backend: RedisBackend, policy: str = ...,
        expiry: Any = ..., space: str = ...,
    ) -> TieredCache[K, V]: ...
    def __new__(cls, *args: Any, backend: Any = None, **options: Any) -> Any:
        if backend is not None and cls is Cache:
            # A class of its own, so that a cache in one process has nothing to ask on its way to a hit.
            from adaptcache.backends.tiered import TieredCache

            return super().__new__(TieredCache)
        return super().__new__(cls)


# What `__init__` puts beside what subclasses do.
_OURS = frozenset({"_spec", "_flights", "_trainer", "_refresher", "_decisions"})


def _declared(entries: dict[str, Any]) -> dict[str, Any]:
    """Those whose validity the user stated: of the others nobody knows what has changed by then."""
    kept = [at for at, stated in enumerate(entries["declared"]) if stated]
    hand = entries["hand"]
    return {**{name: [column[at] for at in kept] if isinstance(column, list) else column for name, column in entries.items()},
            "hand": kept.index(hand) if hand in kept else None}


def _vet(loader: Any, ttl: Any, cost: Any, size: Any) -> None:
    """Before a load, not after it: work whose result cannot be stored is not begun."""
    if not callable(loader):
        raise TypeError(f"loader: expected a callable of the key, got {type(loader).__name__}")
    if ttl is not None:
        checks.seconds("ttl", ttl)
    if cost is not None:
        checks.number("cost", cost, "a finite number, zero or more", 0.0, sys.float_info.max)
    if size is not None:
        checks.number("size", size, "a finite number, zero or more", 0.0, sys.float_info.max)


class _Keys(KeysView[Any]):
    _mapping: Cache[Any, Any]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._mapping._keys_held())


class _Values(ValuesView[Any]):
    _mapping: Cache[Any, Any]

    def __iter__(self) -> Iterator[Any]:
        return iter([value for _, value in self._mapping._pairs_held()])


class _Items(ItemsView[Any, Any]):
    _mapping: Cache[Any, Any]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._mapping._pairs_held())
