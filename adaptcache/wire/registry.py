"""Types whose objects may be written and read: how one is taken apart into plain data and put together again.

A dataclass, NamedTuple, msgspec Struct or Enum is known by its shape, any other type by a `Handler`. In bytes a type goes by
the mark of its schema, which is looked up among the registered ones and nowhere else: no class is ever found by a name. Putting
together runs no code of a dataclass or NamedTuple (as with pickle, neither `__init__` nor `__post_init__`), and the
constructor of a Struct. This file knows no bytes.
"""
from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cached_property
from itertools import count
from operator import attrgetter
from typing import Any, Final, TypeVar, final, overload

from adaptcache.wire import schema
from adaptcache.wire.refusal import Refused

T = TypeVar("T")
C = TypeVar("C", bound=type)


@final
class Handler:
    """How values of a type that has no shape of its own are written: as what `encode(value)` returns, anything that can be
    written itself; `decode(that)` makes the value anew.

    type     exactly this type, no subclasses
    name     what it is called in the bytes; another name (such as "point-2") is another type
    """

    __slots__ = ("decode", "encode", "name", "type")

    def __init__(self, type: type[T], name: str, encode: Callable[[T], Any], decode: Callable[[Any], T]) -> None:
        given: Any = type
        if not isinstance(given, _CLASS):
            raise TypeError(f"type: expected a class, got {given.__class__.__name__}")
        if not isinstance(name, str) or not name:
            raise TypeError(f"name: expected a str that is not empty, got {name!r:.60}")
        for argument, function in (("encode", encode), ("decode", decode)):
            if not callable(function):
                raise TypeError(f"{argument}: expected a callable, got {function.__class__.__name__}")
        self.type: Final = type
        self.name: Final = name
        self.encode: Final[Callable[[Any], Any]] = encode
        self.decode: Final[Callable[[Any], Any]] = decode

    def __repr__(self) -> str:
        return f"Handler({schema.full_name(self.type)}, {self.name!r})"


_CLASS: Final = type      # the name is an argument's above


class Kind:
    """One registered type."""

    def __init__(self, cls: type, name: str, version: int, apart: Callable[[Any], Any], together: Callable[[list[Any]], Any]) -> None:
        self.type = cls
        self.name = name
        self.version = version
        self.apart = apart          # -> a list or tuple of parts
        self.together = together    # the list of parts, in their order -> an object; ValueError or Refused if it does not fit

    @cached_property
    def mark(self) -> bytes:
        """Worked out at the first use, when classes that annotations name have come to be."""
        return schema.mark(self.type, self.version, self._named)

    def _named(self, cls: type) -> str:
        kind = self if cls is self.type else _everywhere.get(cls)
        return schema.full_name(cls) if kind is None else kind.name


class _HandledKind(Kind):
    @cached_property
    def mark(self) -> bytes:
        return schema.digest(f"handler\n{self.name}")


def kind_of(cls: Any, name: str | None = None, version: int = 0) -> Kind:
    """The kind of a class or Handler; TypeError where none can be."""
    if isinstance(cls, Handler):
        encode, decode = cls.encode, cls.decode

        def handled(parts: list[Any]) -> Any:
            (part,) = parts
            return decode(part)

        return _HandledKind(cls.type, cls.name, 0, lambda value: (encode(value),), handled)
    which = schema.kind(cls)
    if not which:
        what = schema.full_name(cls) if isinstance(cls, type) else type(cls).__name__
        raise TypeError(f"types: expected dataclasses, NamedTuples, msgspec Structs, Enums or Handlers, got {what}; "
                        f"for any other type give a Handler(type, name, encode, decode)")
    # An instance of such a class is more than its fields: with these alone another thing would come back.
    solid = next((base for base in cls.__mro__ if base.__module__ == "builtins" and base is not object), None)
    if which == "dataclass" and solid is not None:
        raise TypeError(f"types: {schema.full_name(cls)} is a dataclass and a {solid.__name__}; "
                        f"give a Handler(type, name, encode, decode) for it")
    apart, together = _SHAPES[which](cls)
    return Kind(cls, name or schema.full_name(cls), version, apart, together)


Shape = tuple[Callable[[Any], Any], Callable[[list[Any]], Any]]


def _taker(names: tuple[str, ...]) -> Callable[[Any], Any]:
    if len(names) > 1:
        return attrgetter(*names)
    return lambda value: [getattr(value, name) for name in names]


def _dataclass(cls: Any) -> Shape:
    names = schema.fields(cls)

    def together(parts: list[Any]) -> Any:
        made = cls.__new__(cls)
        for name, part in zip(names, parts, strict=True):
            object.__setattr__(made, name, part)
        return made

    def together_plainly(parts: list[Any]) -> Any:
        made = cls.__new__(cls)
        made.__dict__.update(zip(names, parts, strict=True))
        return made

    # Slots, properties and other descriptors want to be set; what lies in the instance's dict is put there at once.
    described = any(hasattr(inspect.getattr_static(cls, name, None), "__set__") for name in names)
    return _taker(names), together if described or not cls.__dictoffset__ else together_plainly


def _struct(cls: type) -> Shape:
    names = schema.fields(cls)
    return _taker(names), lambda parts: cls(**dict(zip(names, parts, strict=True)))


def _namedtuple(cls: Any) -> Shape:
    size = len(schema.fields(cls))

    def together(parts: list[Any]) -> Any:
        if len(parts) != size:
            raise Refused("value")
        return tuple.__new__(cls, parts)

    return tuple, together


def _enum(cls: Any) -> Shape:
    def together(parts: list[Any]) -> Any:
        (name,) = parts
        return cls.__members__[name]

    return lambda value: (value._name_,), together


def _flag(cls: Any) -> Shape:
    def together(parts: list[Any]) -> Any:
        (number,) = parts
        if type(number) is not int:
            raise Refused("value")
        return cls(number)

    return lambda value: (int(value._value_),), together


_SHAPES: Final[dict[str, Callable[[Any], Shape]]] = {
    "dataclass": _dataclass, "struct": _struct, "namedtuple": _namedtuple, "enum": _enum, "flag": _flag,
}

_everywhere: dict[type, Kind] = {}      # what `registered` names, for every Serializer
_changes = count(1)
_changed = 0                            # grows with every change of it


@overload
def registered(cls: C, /) -> C: ...
@overload
def registered(*, name: str | None = None, version: int = 0) -> Callable[[C], C]: ...


def registered(cls: Any = None, /, *, name: str | None = None, version: int = 0) -> Any:
    """A class decorator: every Serializer may write and read objects of this dataclass, NamedTuple, msgspec Struct or Enum.

    name     what the type is called in its fingerprint, so that it may move or be renamed; default module and qualified name
    version  raise it when the meaning of the fields changes and their names do not: what was written before is then unreadable
    """
    if name is not None and (not isinstance(name, str) or not name):
        raise TypeError(f"name: expected a str that is not empty or None, got {name!r:.60}")
    if isinstance(version, bool) or not isinstance(version, int):
        raise TypeError(f"version: expected an int, got {type(version).__name__}")

    def register(cls: C) -> C:
        global _changed
        kind = kind_of(cls, name, version)
        for other in list(_everywhere.values()):
            if other.name == kind.name and other.type.__qualname__ != cls.__qualname__:    # else the same module, loaded twice
                raise ValueError(f"name: {kind.name!r} is the name of {schema.full_name(other.type)} already; give each class its own")
        _everywhere[cls] = kind
        _changed = next(_changes)
        return cls

    return register if cls is None else register(cls)


class Registry:
    """The types of one Serializer: its own, and those registered everywhere."""

    def __init__(self, types: Iterable[Any]) -> None:
        self._own: dict[type, Kind] = {}
        for one in types:
            kind = kind_of(one)
            if kind.type in self._own:
                raise ValueError(f"types: {schema.full_name(kind.type)} is named twice")
            self._own[kind.type] = kind
        names = Counter((type(kind), kind.name) for kind in self._own.values())
        for (_, name), times in names.items():
            if times > 1:
                raise ValueError(f"types: two are named {name!r}; give each a name of its own")
        self._marks: dict[bytes, Kind] = {}
        self._marked = -1           # `_changed` when `_marks` was made

    def own(self) -> Iterable[type]:
        return self._own

    def of_type(self, cls: type) -> Kind | None:
        return self._own.get(cls) or _everywhere.get(cls)

    def of_mark(self, mark: bytes) -> Kind:
        """Refused if no registered type has this fingerprint today."""
        kind = self._marks.get(mark)
        if kind is None and self._marked != _changed:
            self._marked = _changed
            self._marks = {each.mark: each for each in (*_everywhere.values(), *self._own.values())}
            kind = self._marks.get(mark)
        if kind is None:
            raise Refused("schema")
        return kind
