"""What a class looked like when a value of it was written: eight bytes that change when its fields do.

A description spells the class's kind, its fields in order and their annotations, and so on into every dataclass, NamedTuple,
msgspec Struct and Enum that these name; it is the same text in every process and for every way to write one annotation
(`Optional[int]`, `int | None`, or a string of it). Defaults, methods and comments are no part of it. This file knows no bytes
of a value.
"""
from __future__ import annotations

import dataclasses
import inspect
import types
import typing
from enum import Enum, Flag
from hashlib import blake2b
from typing import Any, Final

import msgspec

MARK: Final = 8     # bytes


def mark(cls: type, name: str, version: int) -> bytes:
    """The fingerprint of `cls`, registered under a name, in a version of the user's counting."""
    return digest(f"{name}\n{version}\n{describe(cls, [])}")


def digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=MARK).digest()


def full_name(cls: Any) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


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


def describe(cls: Any, above: list[type]) -> str:
    """A class, spelled; `above` are the classes whose description this one is part of."""
    which = kind(cls)
    if which in ("enum", "flag"):
        return f"{which} {{{', '.join(f'{name}={_constant(member.value)}' for name, member in cls.__members__.items())}}}"
    below = [*above, cls]
    hints = _hints(cls)
    return f"{which} {{{', '.join(f'{name}: {_spell(hints.get(name), below)}' for name in fields(cls))}}}"


def _hints(cls: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls)
    except (NameError, AttributeError, TypeError, SyntaxError):
        # A name that only type checkers import: the text of the annotations must do.
        return {name: hint for base in reversed(cls.__mro__) for name, hint in inspect.get_annotations(base).items()}


def _spell(hint: Any, above: list[type]) -> str:
    if isinstance(hint, str):
        return hint
    if isinstance(hint, (list, tuple)):         # of a Callable's arguments
        return f"[{', '.join(_spell(one, above) for one in hint)}]"
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        return _spell(hint.__origin__, above)
    if origin is typing.Literal:
        return f"Literal[{', '.join(map(_constant, typing.get_args(hint)))}]"
    if origin is typing.Union or origin is types.UnionType:
        return " | ".join(sorted(_spell(one, above) for one in typing.get_args(hint)))
    if origin is not None:
        return f"{_spell(origin, above)}[{', '.join(_spell(one, above) for one in typing.get_args(hint))}]"
    if hint is None or hint is types.NoneType:
        return "None"
    if isinstance(hint, type):
        if kind(hint):
            return full_name(hint) if hint in above else f"{full_name(hint)} {describe(hint, above)}"
        return hint.__qualname__ if hint.__module__ == "builtins" else full_name(hint)
    # Any, a TypeVar, a ForwardRef ...: never their repr, which may hold an address.
    return str(getattr(hint, "__forward_arg__", None) or getattr(hint, "__name__", None) or type(hint).__name__)


def _constant(value: Any) -> str:
    if isinstance(value, Enum):
        return f"{full_name(type(value))}.{value.name}"
    if value is None or type(value) in (bool, int, float, str, bytes):
        return repr(value)
    if type(value) is tuple:
        return f"({', '.join(map(_constant, value))})"
    return full_name(type(value))
