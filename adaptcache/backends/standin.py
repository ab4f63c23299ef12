"""Stands in for adaptcache.wire until that lands."""
import pickle
from typing import Any, NamedTuple


class Env(NamedTuple):
    value: Any
    birth: float
    soft: Any
    hard: Any
    cost: float
    digest: Any


class Bad:
    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __bool__(self) -> bool:
        return False


class Standin:
    def dumps(self, value: Any, *, birth: float, soft: Any = None, hard: Any = None, cost: float = 0.0, digest: Any = None, context: bytes = b'') -> bytes:
        try:
            return b"P" + pickle.dumps((value, birth, soft, hard, cost, digest))
        except Exception as e:
            raise TypeError(str(e)) from e

    def loads(self, data: bytes, *, context: bytes = b'') -> Any:
        if data[:1] != b"P":
            return Bad("foreign")
        try:
            return Env(*pickle.loads(data[1:]))
        except Exception as e:
            return Bad(str(e))
