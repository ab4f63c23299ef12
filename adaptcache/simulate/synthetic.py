"""Synthetic workloads by name: `generate("pipeline", seed=1, requests=50_000)`.

A name may carry its parameters, `synthetic:pipeline?requests=50000&tenants=8`, so that one word on a
command line says everything. This file knows the generators' names and parameters, not what they make.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from urllib.parse import parse_qsl

from .pipeline import PipelineParameters, workload
from .trace import Trace

PREFIX = "synthetic:"


def names() -> tuple[str, ...]:
    """The generators there are."""
    return tuple(_GENERATORS)


def generate(name: str, *, seed: int = 0, **parameters: object) -> Trace:
    """The trace of a generator; `name` with or without `synthetic:`, with or without `?parameters`.

    The same name, seed and parameters give the same trace. A `seed` inside the name is the one that counts.
    """
    bare, _, query = name.removeprefix(PREFIX).partition("?")
    if bare not in _GENERATORS:
        raise ValueError(f"unknown synthetic workload {bare!r}; there is: {', '.join(names())}")
    given = _parsed(query)
    twice = given.keys() & parameters.keys()
    if twice:
        raise ValueError(f"{', '.join(sorted(twice))} is given twice, in the name and as a keyword")
    if "seed" in given:
        seed = _seed(given.pop("seed"))
    return _GENERATORS[bare](_seed(seed), {**given, **parameters})


def _parsed(query: str) -> dict[str, object]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise ValueError(f"cannot read the parameters {query!r}: write name=value&name=value") from None
    parsed: dict[str, object] = dict(pairs)
    if len(parsed) < len(pairs):
        raise ValueError(f"a parameter is given twice in {query!r}")
    return parsed


def _seed(value: object) -> int:
    try:
        seed = int(value)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        seed = -1
    if seed < 0:
        raise ValueError(f"seed={value!r} is out of range: accepted is a whole number from 0")
    return int(seed)


def _pipeline(seed: int, given: Mapping[str, object]) -> Trace:
    known = [f.name for f in fields(PipelineParameters)]
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ValueError(f"pipeline has no parameter {', '.join(unknown)}; it has: {', '.join(known)}")
    parameters = PipelineParameters(**given)  # type: ignore[arg-type]
    said = [f"{name}={value}" for name, value in parameters.changed().items()]
    if seed:
        said.append(f"seed={seed}")
    name = f"{PREFIX}pipeline" + ("?" + "&".join(said) if said else "")
    return workload(parameters, seed=seed, name=name).trace()


_GENERATORS: dict[str, Callable[[int, Mapping[str, object]], Trace]] = {"pipeline": _pipeline}
