"""Values to bytes and back: our envelope in each codec, beside pickle and json alone.

The peers write no deadline, no checksum and no schema, and json no tuple; ours carries all three. A round writes and reads, or does one of both.
"""
from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from adaptcache.wire import Serializer, Signed


@dataclass
class User:
    id: int
    name: str
    mail: str
    score: float


SMALL = {"id": 17, "name": "ann", "score": 2.5}
VALUES: dict[str, tuple[Any, int]] = {      # and how many calls make a round
    "number": (42, 200), "small dict": (SMALL, 200), "tuple": ((1, "ann", 2.5), 200), "object": (User(17, "ann", "ann@example.org", 2.5), 200),
    "100 rows": ([{**SMALL, "id": n} for n in range(100)], 20), "1,000 numbers": (list(range(1000)), 20), "array of 1,000": (np.arange(1000.0), 50),
}
SERIALIZERS = {"msgpack": Serializer(types=[User]), "signed": Serializer(Signed(b"a key for benchmarks"))}


def writing(dumps: Callable[[Any], Any], value: Any, calls: int) -> Callable[[], None]:
    def run() -> None:
        for _ in range(calls):
            dumps(value)
    return run


def reading(loads: Callable[[Any], Any], data: Any, calls: int) -> Callable[[], None]:
    def run() -> None:
        for _ in range(calls):
            loads(data)
    return run


@pytest.mark.parametrize("codec", SERIALIZERS)
@pytest.mark.parametrize("name", VALUES)
def test_write(contest: Callable[..., Any], name: str, codec: str) -> None:
    value, calls = VALUES[name]
    serializer = SERIALIZERS[codec]
    peers = {"pickle": writing(lambda v: pickle.dumps(v, 5), value, calls)}
    if not isinstance(value, (User, np.ndarray)):
        peers["json"] = writing(json.dumps, value, calls)
    contest("wire, write", f"{name}, {codec}", writing(lambda v: serializer.dumps(v, birth=1.7e9, soft=1.8e9, hard=1.9e9, cost=0.1), value, calls), peers, calls)


@pytest.mark.parametrize("codec", SERIALIZERS)
@pytest.mark.parametrize("name", VALUES)
def test_read(contest: Callable[..., Any], name: str, codec: str) -> None:
    value, calls = VALUES[name]
    serializer = SERIALIZERS[codec]
    peers = {"pickle": reading(pickle.loads, pickle.dumps(value, 5), calls)}
    if not isinstance(value, (User, np.ndarray)):
        peers["json"] = reading(json.loads, json.dumps(value), calls)
    data = serializer.dumps(value, birth=1.7e9, soft=1.8e9, hard=1.9e9, cost=0.1)
    assert serializer.loads(data)
    contest("wire, read", f"{name}, {codec}", reading(serializer.loads, data, calls), peers, calls)


def test_refuse(contest: Callable[..., Any]) -> None:
    """What is foreign or damaged costs less than what is read."""
    serializer = SERIALIZERS["msgpack"]
    data = serializer.dumps(SMALL, birth=1.7e9)
    contest("wire, read", "refused: damaged", reading(serializer.loads, data[:-1] + b"?", 200), {"read whole": reading(serializer.loads, data, 200)}, 200)
