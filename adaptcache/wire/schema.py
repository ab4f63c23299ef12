"""What a class looked like when a value of it was written: eight bytes that change when its fields do.

A description spells the class's kind, name, fields in order and their annotations, then every dataclass, NamedTuple, msgspec
Struct and Enum that these reach; it is the same text in every process and for every way to write one annotation
(`Optional[int]`, `int | None`, or a string of it). Defaults, methods and comments are no part of it. This file knows no bytes
of a value.
"""
from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable
from enum import Enum, Flag
from hashlib import blake2b
from typing import Any, Final

import msgspec

MARK: Final = 8     # bytes


def full_name(cls: Any) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def mark(cls: type, version: int = 0, named: Callable[[type], str] = full_name) -> bytes:
    """The fingerprint of `cls` in a version of the user's counting. `named(cls)` is what any class is called in it."""
    return digest(f"{version}\n{_Speller(named).all(cls)}")


def digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=MARK).digest()


def kind(cls: Any) -> str:
    """Which of the kinds with a shape that we know, or ""."""
    if not isinstance(cls, type) or isinstance(cls, types.GenericAlias):
        return ""
    if issubclass(cls, Enum):
        return "flag" if issubclass(cls, Flag) else "enum"
    if issubclass(cls, msgspec.Struct):
        return "struct"
    if dataclasses.is_dataclass(cls):
        return "dataclass"
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return "namedtuple"
    return ""


def fields(cls: Any) -> tuple[str, ...]:
    """The names of what an instance of a class (no Enum) consists of, in order."""
    which = kind(cls)
    if which == "struct":
        return tuple(cls.__struct_fields__)
    if which == "dataclass":
        return tuple(field.name for field in dataclasses.fields(cls))
    return tuple(cls._fields)


class _Speller:
    """Spells classes; those that annotations name are queued, and each is spelled once, however often it is named."""

    def __init__(self, named: Callable[[type], str]) -> None:
        self._named = named
        self._found: dict[type, None] = {}

    def all(self, cls: type) -> str:
        """The class first, then every one that it reaches, in the order of their text."""
        self._found[cls] = None
        spelled: list[str] = []
        while len(spelled) < len(self._found):
            spelled.append(self._describe(list(self._found)[len(spelled)]))
        return "\n".join([spelled[0], *sorted(spelled[1:])])

    def _describe(self, cls: Any) -> str:
        which = kind(cls)
        if which in ("enum", "flag"):
            parts = [f"{name}={self._constant(member.value)}" for name, member in cls.__members__.items()]
        else:
            hints = _hints(cls)
            parts = [f"{name}: {self._spell(hints.get(name))}" for name in fields(cls)]
        return f"{which} {self._named(cls)} {{{', '.join(parts)}}}"

    def _spell(self, hint: Any) -> str:
        if isinstance(hint, str):
            return hint
        if isinstance(hint, (list, tuple)):         # of a Callable's arguments
            return f"[{', '.join(self._spell(one) for one in hint)}]"
        origin = typing.get_origin(hint)
        if origin is typing.Annotated:
            return self._spell(hint.__origin__)
        if origin is typing.Literal:
            return f"Literal[{', '.join(map(self._constant, typing.get_args(hint)))}]"
        if origin is typing.Union or origin is types.UnionType:
            return " | ".join(sorted(self._spell(one) for one in typing.get_args(hint)))
        if origin is not None:
            return f"{self._spell(origin)}[{', '.join(self._spell(one) for one in typing.get_args(hint))}]"
        if hint is None or hint is types.NoneType:
            return "None"
        if isinstance(hint, type):
            if kind(hint):
                self._found[hint] = None
            return hint.__qualname__ if hint.__module__ == "builtins" else self._named(hint)
        # Any, a TypeVar, a ForwardRef ...: never their repr, which may hold an address.
        return str(getattr(hint, "__forward_arg__", None) or getattr(hint, "__name__", None) or type(hint).__name__)

    def _constant(self, value: Any) -> str:
        if isinstance(value, Enum):
            return f"{self._named(type(value))}.{value.name}"
        if value is None or type(value) in (bool, int, float, str, bytes):
            return repr(value)
        if type(value) is tuple:
            return f"({', '.join(map(self._constant, value))})"
        return self._named(type(value))


def _hints(cls: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls)
    except (NameError, AttributeError, TypeError, SyntaxError):
        # A name that only type checkers import: the text of the annotations must do.
        return {name: hint for base in reversed(cls.__mro__) for name, hint in inspect.get_annotations(base).items()}
