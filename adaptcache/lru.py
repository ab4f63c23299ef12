"""`lru_cache` and `cache`: functools' own, on our core. Users change one import.

What lives here is the decorator's face; a call is `_core.LruCall`. Nothing is learned and nothing expires.
"""
from __future__ import annotations

from collections.abc import Callable
from functools import _lru_cache_wrapper, update_wrapper
from typing import Any, TypeVar, cast, overload

from adaptcache import _core

__all__ = ("cache", "lru_cache")

T = TypeVar("T")


@overload
def lru_cache(maxsize: int | None = 128, typed: bool = False) -> Callable[[Callable[..., T]], _lru_cache_wrapper[T]]: ...
@overload
def lru_cache(maxsize: Callable[..., T], typed: bool = False) -> _lru_cache_wrapper[T]: ...
def lru_cache(maxsize: Any = 128, typed: bool = False) -> Any:
    """Remember the results of the `maxsize` most recent different calls of a function, as functools.lru_cache does.

    `maxsize=None`: of all calls; 0, or below: of none. `typed`: 3 and 3.0 are different calls. Arguments must be
    hashable, and keyword arguments count in the order of the call. Attributes: `cache_info()` (hits, misses,
    maxsize, currsize), `cache_clear()`, `cache_parameters()`, `__wrapped__`. TypeError for another kind of `maxsize`,
    OverflowError for one that no container can have.
    """
    if isinstance(maxsize, int):
        maxsize = max(maxsize, 0)
    elif callable(maxsize) and isinstance(typed, bool):
        return _wrapped(maxsize, 128, typed)
    elif maxsize is not None:
        raise TypeError("Expected first argument to be an integer, a callable, or None")

    def decorate(function: Callable[..., T]) -> _lru_cache_wrapper[T]:
        return _wrapped(function, maxsize, typed)

    return decorate


def cache(user_function: Callable[..., T], /) -> _lru_cache_wrapper[T]:
    """Remember the results of all different calls of a function, as functools.cache does: `lru_cache(maxsize=None)`."""
    return lru_cache(maxsize=None)(user_function)


def _wrapped(function: Callable[..., T], maxsize: int | None, typed: bool) -> _lru_cache_wrapper[T]:
    call: Any = _core.LruCall(function, maxsize, typed)
    call.cache_parameters = lambda: {"maxsize": maxsize, "typed": typed}
    return cast("_lru_cache_wrapper[T]", update_wrapper(call, function))
