"""`cached`: a function, method or coroutine function that remembers its results.

What lives here is the way from a call to the cache and back: arguments become a key, a miss becomes
one load by `flights`, the result is stored with what the learner wants to know of the call. This file
does not know how anything is kept, evicted or expired; that is the business of the cache behind it.

A call that finds its value costs one key and one `get`, both compiled (`_core.Call`) unless the function
is a coroutine function. Calls of the same key at the same time, from
any threads and tasks, run the function once and share what came of it (see `flights`). A function may
call itself with other arguments; with the same ones it gets `RecursiveLoadError`.
"""
from __future__ import annotations

import functools
import inspect
import math
import threading
from collections.abc import Callable, Hashable, Mapping, MutableMapping, Sequence
from functools import _CacheInfo, partial
from typing import Any, Concatenate, Final, ParamSpec, Protocol, Self, TypeVar, overload

from adaptcache import _core
from adaptcache.flights import MISSING, Flights
from adaptcache.keys import MARK, hashkey, typedkey
from adaptcache.mapping import Cache
from adaptcache.refresh import Refresher

__all__ = ("cached",)

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R", covariant=True)


class _Attributes(Protocol):
    """What every cached function carries, bound to an instance or not."""

    @property
    def cache(self) -> MutableMapping[Any, Any]: ...
    def cache_info(self) -> _CacheInfo:
        """Hits, misses, maxsize, currsize; of the whole cache if it is shared (`cache=`)."""

    def cache_clear(self) -> None:
        """Forget all results and start counting from zero."""

    def cache_parameters(self) -> dict[str, Any]:
        """`maxsize` and `typed` in a new dict."""


class CachedAttribute(_Attributes, Protocol[P, R]):
    """A cached function read from a class or an instance. A type checker cannot tell there whether a
    method, a class method or a static method was meant, so it may be called with or without its first
    argument. `cache_key` and `invalidate` always take all of them."""

    @property
    def __wrapped__(self) -> Callable[Concatenate[Any, P], R]: ...
    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def __call__(self, first: Any, /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    def cache_key(self, first: Any, /, *args: P.args, **kwargs: P.kwargs) -> Hashable: ...
    def invalidate(self, first: Any, /, *args: P.args, **kwargs: P.kwargs) -> bool: ...


class Cached(_Attributes, Protocol[P, R]):
    """A cached function, as type checkers see it. Like a plain function it binds, pickles by name, is its
    own copy, and can be referenced weakly."""

    __name__: str
    __qualname__: str

    @property
    def __wrapped__(self) -> Callable[P, R]: ...
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...
    def cache_key(self, *args: P.args, **kwargs: P.kwargs) -> Hashable:
        """The key under which the result of this call is kept."""

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Forget the result of this call, and do not store that of a load under way; was there one?"""

    @overload
    def __get__(
        self: Cached[Concatenate[Any, Q], R], instance: object, owner: type | None = None, /
    ) -> CachedAttribute[Q, R]: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None, /) -> Self: ...


class _Decorator(Protocol):
    def __call__(self, function: Callable[P, R], /) -> Cached[P, R]: ...


class _Default(int):
    """A default that can be told from the same number given by the user."""


_MAXSIZE: Final = _Default(128)


@overload
def cached(maxsize: Callable[P, R], /) -> Cached[P, R]: ...
@overload
def cached(
    maxsize: float | None = ...,
    typed: bool = ...,
    *,
    key: Callable[..., Hashable] | None = ...,
    ttl: float | None = ...,
    expiry: Any = ...,
    policy: str | None = ...,
    cache: MutableMapping[Any, Any] | None = ...,
    namespace: Hashable | Callable[..., Hashable] = ...,
    features: Callable[..., Mapping[str, float | int | str]] | None = ...,
    cost: Callable[..., float] | float | None = ...,
    getsizeof: Callable[[Any], float] | None = ...,
    timer: Callable[[], float] | None = ...,
    on_removal: Callable[[Any, Any, Any, float], object] | None = ...,
    backend: Any = ...,
    tags: Sequence[str] | Callable[..., Sequence[str]] = ...,
) -> _Decorator: ...
def cached(
    maxsize: Any = _MAXSIZE,
    typed: bool = False,
    *,
    key: Callable[..., Hashable] | None = None,
    ttl: float | None = None,
    expiry: Any = None,
    policy: str | None = None,
    cache: MutableMapping[Any, Any] | None = None,
    namespace: Any = None,
    features: Callable[..., Mapping[str, float | int | str]] | None = None,
    cost: Callable[..., float] | float | None = None,
    getsizeof: Callable[[Any], float] | None = None,
    timer: Callable[[], float] | None = None,
    on_removal: Callable[[Any, Any, Any, float], object] | None = None,
    backend: Any = None,
    tags: Sequence[str] | Callable[..., Sequence[str]] = (),
) -> Any:
    """Remember the results of a function, a method or a coroutine function.

    `maxsize`, `policy`, `expiry`, `getsizeof`, `timer` and `on_removal` are those of `Cache`, of which
    each function gets its own. `cache` is used instead when given: a `Cache`, or any mutable mapping
    (guarded by a lock here); functions that share one must have keys that differ.

    `key(*args, **kwargs)` makes the key: by default `hashkey`, with `typed=True` `typedkey`; then
    1 and 1.0 are kept apart. `self` is part of a method's key unless `key=methodkey`.
    `ttl`: no result is used for more than so many seconds, whatever `expiry` says.

    For the learner only: `namespace` is a label for calls that behave alike, or computes one from the
    arguments; by default the function's qualified name. `features(*args, **kwargs)` describes a call
    by names and numbers or strings; by default the types of the arguments. `cost` is what a miss of a
    call costs, a number or `cost(*args, **kwargs)` asked after the load; by default the time of the load.

    `backend`: an `adaptcache.RedisBackend` (docs/backend.md). The results lie on its server, for every process in which this function
    has the same qualified name (or `namespace`, if that is a string), and are loaded once over all of them. `tags`, or
    `tags(*args, **kwargs)`, are names under which results are invalidated together (`.cache.invalidate_tag`). The function
    then also has `ainvalidate` and `acache_clear`, to be awaited.

    A result that does not fit (ValueError "value too large") is returned all the same.
    """
    bare = None
    if callable(maxsize) or isinstance(maxsize, classmethod):  # which is not callable
        bare, maxsize = maxsize, _MAXSIZE
    _check_callables(key=key, features=features, getsizeof=getsizeof, timer=timer, on_removal=on_removal)
    _check_size(maxsize)
    _check_ttl(ttl)
    if not isinstance(typed, bool):
        raise TypeError(f"typed must be True or False, not {typed!r}")
    if typed and key is not None:
        raise TypeError("typed conflicts with key: let the key function tell types apart, as typedkey does")
    if cache is not None:
        if not isinstance(cache, MutableMapping):
            raise TypeError(f"cache must be an adaptcache.Cache or a mutable mapping, not {cache!r}")
        own = {
            "maxsize": None if maxsize is _MAXSIZE else True,
            "ttl": ttl,
            "expiry": expiry,
            "policy": policy,
            "getsizeof": getsizeof,
            "timer": timer,
            "on_removal": on_removal,
            "backend": backend,
        }
        given = [name for name, value in own.items() if value is not None]
        if given:
            raise TypeError(f"cache conflicts with {', '.join(given)}: set these on the cache itself")
    elif policy is not None and not isinstance(policy, str):
        raise TypeError(f"policy must be one of the names in adaptcache.policies(), not {policy!r}")
    if not callable(namespace):
        try:
            hash(namespace)
        except TypeError:
            raise TypeError(f"namespace must be hashable, or a callable that returns a label, not {namespace!r}") from None

    make_key = (typedkey if typed else hashkey) if key is None else key
    size = int(maxsize) if maxsize is _MAXSIZE else maxsize

    def decorate(function: Any) -> Any:
        if isinstance(function, (staticmethod, classmethod)):
            return type(function)(decorate(function.__func__))
        _check_function(function)
        target: Any = cache
        if target is None:
            options: dict[str, Any] = {} if policy is None else {"policy": policy}
            if backend is not None:
                options |= {"backend": backend, "space": namespace if isinstance(namespace, str) else _qualified_name(function)}
            target = Cache(size, getsizeof, expiry=expiry, timer=timer, on_removal=on_removal, **options)
        store: Any
        if (decorated := getattr(target, "_decorated", None)) is not None:
            label = _qualified_name(function) if namespace is None else namespace
            store = decorated(ttl, label, _argument_types if features is None else features, cost, tags)
        elif tags != ():
            raise TypeError("tags: only a cache on a server has tags; give backend= too")
        elif isinstance(getattr(target, "_flights", None), Flights):
            label = _qualified_name(function) if namespace is None else namespace
            store = _CacheStore(target, ttl, label, _argument_types if features is None else features, cost)
        else:
            store = _MappingStore(target)
        return _wrap(function, make_key, store, {"maxsize": store.maxsize(), "typed": typed})

    return decorate if bare is None else decorate(bare)


def _wrap(
    function: Callable[..., Any],
    make_key: Callable[..., Hashable],
    store: Any,     # a _CacheStore, a _MappingStore or a TieredStore
    parameters: dict[str, Any],
) -> Any:
    get, put, recheck, flights, refresher = store.get, store.put, store.recheck, store.flights, store.refresher
    wrapper: Any

    in_core = make_key is hashkey and MARK is not None

    if _is_coroutine_function(function):
        # The value of a call or its key, without a Python frame. The wrapper asks when it is awaited: it stays a
        # real coroutine function.
        held = _core.Call(store.compiled(), get, None if in_core else make_key, MARK, _Absent, _key_alone)

        @functools.wraps(function)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            if refresher is None:
                value = held(*args, **kwargs)
                if type(value) is not _Absent:
                    return value
                key, value = value.key, MISSING
            else:
                key = make_key(*args, **kwargs)
                value, wanted = store.ask(key)
                if wanted:
                    refresher.astart(key, partial(function, *args, **kwargs), partial(store.renew, key, args, kwargs))
            if value is MISSING:
                value = await (flights if refresher is None else refresher).aload(
                    key, partial(function, *args, **kwargs), partial(put, key, args, kwargs), partial(recheck, key)
                )
            return value

    else:

        def load_of(key: Hashable, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
            return key, function, partial(put, key, args, kwargs), partial(recheck, key), args, kwargs

        def refresh(key: Hashable, function: Callable[..., Any], put: Any, recheck: Any, args: tuple[Any, ...],
                    kwargs: dict[str, Any]) -> None:
            assert refresher is not None
            refresher.start(key, partial(function, *args, **kwargs), partial(store.renew, key, args, kwargs))

        call = _core.Call(store.compiled(), get, None if in_core else make_key, MARK,
                          flights.load if refresher is None else refresher.load, load_of,
                          None if refresher is None else refresh)
        wrapper = functools.update_wrapper(call, function)

    def cache_clear() -> None:
        flights.forget_all()
        store.clear()

    def invalidate(*args: Any, **kwargs: Any) -> bool:
        key = make_key(*args, **kwargs)
        flights.forget(key)  # first, so that a load under way does not bring the old result back
        return store.remove(key)  # type: ignore[no-any-return]

    vars(wrapper).update(
        cache=store.cache,
        cache_info=store.info,
        cache_clear=cache_clear,
        cache_parameters=parameters.copy,
        cache_key=make_key,
        invalidate=invalidate,
    )
    if hasattr(store, "aremove"):

        async def acache_clear() -> None:
            flights.forget_all()
            await store.aclear()

        async def ainvalidate(*args: Any, **kwargs: Any) -> bool:
            key = make_key(*args, **kwargs)
            flights.forget(key)
            return await store.aremove(key)  # type: ignore[no-any-return]

        vars(wrapper).update(acache_clear=acache_clear, ainvalidate=ainvalidate)
    return wrapper


class _Absent:
    """The key of a call whose value is not held."""

    __slots__ = ("key",)

    def __init__(self, key: Hashable) -> None:
        self.key = key


def _key_alone(key: Hashable, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Hashable]:
    return (key,)


class _CacheStore:
    """Results in a `Cache`, which locks, counts and learns by itself."""

    def __init__(
        self, cache: Any, ttl: float | None, namespace: Any, features: Callable[..., Any], cost: Any
    ) -> None:
        self.cache = cache
        self.flights: Flights = cache._flights  # shared with everyone who loads into this cache
        self.refresher: Refresher | None = cache._refresher
        self.get: Callable[[Hashable, object], Any] = cache.get
        self.ttl = ttl
        self.namespace = namespace
        self.features = features
        self.cost = cost
        self.counted = (0, 0)  # hits and misses up to the last clear

    def compiled(self) -> _core.Store | None:
        """The store to ask without a Python frame; None when `get` is not the core's own."""
        core = isinstance(self.cache, _core.Store) and type(self.cache).get is _core.Store.get
        return self.cache if core and "get" not in vars(self.cache) else None

    def recheck(self, key: Hashable) -> Any:
        # `in` first, since it is not counted: the caller's miss has been.
        return self.cache.get(key, MISSING) if key in self.cache else MISSING

    def ask(self, key: Hashable) -> tuple[Any, bool]:
        """The value or MISSING, and whether it should be reloaded."""
        return self.cache._ask_loading(key, MISSING, None, None, None, None)  # type: ignore[no-any-return]

    def renew(self, key: Hashable, args: tuple[Any, ...], kwargs: dict[str, Any], value: object, seconds: float) -> None:
        """Store what a reload behind the calls' back came to."""
        namespace = self.namespace(*args, **kwargs) if callable(self.namespace) else self.namespace
        cost = self.cost(*args, **kwargs) if callable(self.cost) else self.cost
        with _Oversize():
            self.cache._set_renewed(key, value, self.ttl, cost, seconds, None, namespace, self.features(*args, **kwargs))

    def put(
        self, key: Hashable, args: tuple[Any, ...], kwargs: dict[str, Any], value: object, seconds: float
    ) -> None:
        namespace = self.namespace(*args, **kwargs) if callable(self.namespace) else self.namespace
        features = self.features(*args, **kwargs)
        with _Oversize():
            if self.cost is None:
                self.cache._set_loaded(key, value, self.ttl, seconds, None, namespace, features)
            else:
                cost = self.cost(*args, **kwargs) if callable(self.cost) else self.cost
                self.cache.set(key, value, ttl=self.ttl, cost=cost, namespace=namespace, features=features)

    def remove(self, key: Hashable) -> bool:
        return self.cache.pop(key, MISSING) is not MISSING

    def clear(self) -> None:
        self.cache.clear()
        stats = self.cache.stats()
        self.counted = stats.hits, stats.misses

    def info(self) -> _CacheInfo:
        stats = self.cache.stats()
        hits, misses = self.counted
        return _CacheInfo(stats.hits - hits, stats.misses - misses, self.maxsize(), stats.currsize)

    def maxsize(self) -> Any:
        return _bounded(self.cache.maxsize)


class _MappingStore:
    """Results in any other mapping: guarded and counted here, for it may do neither."""

    def __init__(self, cache: MutableMapping[Any, Any]) -> None:
        self.cache = cache
        self.flights = Flights()
        self.refresher = None
        self.lock = threading.RLock()  # a mapping runs code of its user, which may call the function again
        self.hits = self.misses = 0

    def get(self, key: Hashable, default: object) -> Any:
        with self.lock:
            value = self.cache.get(key, default)
            if value is default:
                self.misses += 1
            else:
                self.hits += 1
            return value

    def compiled(self) -> None:
        """A mapping's `get` needs its lock."""

    def ask(self, key: Hashable) -> tuple[Any, bool]:
        return self.get(key, MISSING), False

    def renew(self, key: Hashable, args: tuple[Any, ...], kwargs: dict[str, Any], value: object, seconds: float) -> None:
        raise AssertionError("a mapping has no validity to learn")

    def recheck(self, key: Hashable) -> Any:
        with self.lock:
            return self.cache.get(key, MISSING)

    def put(
        self, key: Hashable, args: tuple[Any, ...], kwargs: dict[str, Any], value: object, seconds: float
    ) -> None:
        with _Oversize(), self.lock:
            self.cache[key] = value

    def remove(self, key: Hashable) -> bool:
        with self.lock:
            return self.cache.pop(key, MISSING) is not MISSING

    def clear(self) -> None:
        with self.lock:
            self.cache.clear()
            self.hits = self.misses = 0

    def info(self) -> _CacheInfo:
        with self.lock:
            currsize = getattr(self.cache, "currsize", None)
            return _CacheInfo(
                self.hits, self.misses, self.maxsize(), len(self.cache) if currsize is None else currsize
            )

    def maxsize(self) -> Any:
        return _bounded(getattr(self.cache, "maxsize", None))


class _Oversize:
    """Passes over the refusal of a value that is larger than the cache, and over nothing else."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        return isinstance(error, ValueError) and "value too large" in str(error)


def _bounded(maxsize: Any) -> Any:
    """functools says None where there is no bound."""
    return None if maxsize == math.inf else maxsize


def _qualified_name(function: Any) -> str:
    while isinstance(function, partial):
        function = function.func
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def _argument_types(*args: Any, **kwargs: Any) -> dict[str, str]:
    names = [type(value).__qualname__ for value in args]
    names += [f"{name}={type(kwargs[name]).__qualname__}" for name in sorted(kwargs)]
    return {"types": ",".join(names)}


def _is_coroutine_function(function: Any) -> bool:
    return any(map(inspect.iscoroutinefunction, _called(function)))


def _called(function: Any) -> tuple[Any, Any]:
    """What runs when `function` is called: itself, or its type's `__call__`."""
    return function, getattr(type(function), "__call__", None)  # noqa: B004


def _check_function(function: Any) -> None:
    if not callable(function):
        raise TypeError(f"cached decorates callables, not {function!r}")
    if any(inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each) for each in _called(function)):
        raise TypeError(
            f"cached cannot decorate {_qualified_name(function)}: it is a generator function, whose result "
            "can be iterated only once; let it return a list"
        )


def _check_callables(**arguments: Any) -> None:
    for name, value in arguments.items():
        if value is not None and not callable(value):
            raise TypeError(f"{name} must be callable or None, not {value!r}")


def _check_size(maxsize: Any) -> None:
    if maxsize is None:
        return
    if isinstance(maxsize, bool) or not isinstance(maxsize, (int, float)):
        raise TypeError(f"maxsize must be a number of 0 or more, or None for no bound, not {maxsize!r}")
    if not maxsize >= 0:
        raise ValueError(f"maxsize must be 0 or more, or None for no bound, not {maxsize!r}")


def _check_ttl(ttl: Any) -> None:
    if ttl is None:
        return
    if isinstance(ttl, bool) or not isinstance(ttl, (int, float)):
        raise TypeError(f"ttl must be a number of seconds above 0, or None, not {ttl!r}")
    if not ttl > 0:
        raise ValueError(f"ttl must be above 0 seconds, not {ttl!r}")
