"""What a plan may ask of its driver, and what it may hear: the whole language between plans and `drivers`.

A plan is a generator that yields a step and receives its answer. It never learns whether a thread or a task runs it.
"""
from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
Command = Sequence[Any]     # name and arguments, as redis-py's execute_command takes them
CHUNK = 500                 # keys that one batch is about, at the most


class Trouble(Exception):
    """The server could not be asked, or could not do it. `error` is the client's; None: the breaker is open."""

    def __init__(self, error: BaseException | None) -> None:
        super().__init__(error)
        self.error = error


class Call:
    """One command; its answer, or a Trouble is raised. `again`: doing it twice is doing it once, so it may be sent again after an error."""

    __slots__ = ("again", "command")

    def __init__(self, command: Command, again: bool = True) -> None:
        self.command = command
        self.again = again


class Batch:
    """Commands that need not wait for one another; their answers, in which a Trouble stands for one that failed; nothing is raised."""

    __slots__ = ("again", "commands")

    def __init__(self, commands: Sequence[Command], again: bool = True) -> None:
        self.commands = commands
        self.again = again


class Run:
    """The user's code: called by a thread, awaited by a task. Its answer; its exceptions come through."""

    __slots__ = ("code",)

    def __init__(self, code: Callable[[], Any]) -> None:
        self.code = code


class Ticket(Protocol):
    """A place in the inbox of this process."""

    @property
    def channel(self) -> bytes: ...
    def close(self) -> None: ...


class Listen:
    """Be woken when something is published about `name`; a Ticket, or None where nothing can be heard now."""

    __slots__ = ("name",)

    def __init__(self, name: bytes) -> None:
        self.name = name


class Wait:
    """Wait until the ticket is called, or so many seconds; with no ticket just so many seconds."""

    __slots__ = ("seconds", "ticket")

    def __init__(self, ticket: Ticket | None, seconds: float) -> None:
        self.ticket = ticket
        self.seconds = seconds


Step = Call | Batch | Run | Listen | Wait
Plan = Generator[Step, Any, T]
