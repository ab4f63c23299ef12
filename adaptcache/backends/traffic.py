"""What the ways to one backend's servers share: the counts, the breaker of each node, and which trouble is whose.

Whatever the servers or the way to them do comes back as a `Trouble` in the place of the answer; only mistakes of ours
(redis-py's DataError) are raised.
"""
from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import redis.exceptions as problems

from adaptcache.backends.breaker import CLOSED, HALF_OPEN, OPEN, Breaker, Circuit
from adaptcache.backends.steps import Command, Trouble

TROUBLES = (problems.RedisError, problems.RedisClusterException, OSError, asyncio.IncompleteReadError)
# The server, or the way to it, is ill: the breaker counts these. Other answers ("out of memory", "read only") are for this
# command alone: reads may well go on.
ILL = (problems.ConnectionError, problems.TimeoutError, problems.ClusterDownError, problems.ClusterError, problems.MasterDownError,
       problems.RedisClusterException, problems.TryAgainError, OSError, asyncio.IncompleteReadError)
ELSEWHERE = (problems.AskError, problems.MovedError, problems.TryAgainError)    # was not done, and may be had by asking again
PAUSE = 0.02            # seconds before a command is sent again, jittered
KEEP = 0.5              # seconds for which a connection is not given back to its pool
REFRESH = 1.0           # seconds between two questions for a cluster's nodes because one of them is silent
UNKNOWN = "?"           # whoever answers for a slot that the client knows no node for: others are asked all the same


class Traffic:
    """What the roads of one backend share: the breakers of its nodes, and the counts."""

    def __init__(self, options: Breaker, tell: Callable[[str, object, BaseException | None], None]) -> None:
        self._options = options
        self._tell = tell
        self._circuits = {"": Circuit(options, tell)}
        self.trips = 0          # round trips
        self.commands = 0
        self.errors = 0
        self.retries = 0

    def circuit(self, node: str) -> Circuit:
        circuit = self._circuits.get(node)
        return circuit or self._circuits.setdefault(node, Circuit(self._options, self._tell))

    @property
    def state(self) -> str:
        """Of the node that is worst off."""
        states = {circuit.state for circuit in list(self._circuits.values())}
        return next(state for state in (OPEN, HALF_OPEN, CLOSED) if state in states)

    @property
    def opened(self) -> int:
        return sum(circuit.opened for circuit in list(self._circuits.values()))

    @property
    def refused(self) -> int:
        return sum(circuit.refused for circuit in list(self._circuits.values()))

    def judge(self, node: str, answers: list[Any]) -> list[Any]:
        """Exceptions among the answers of a node become Troubles, and its breaker hears how it went."""
        ill: BaseException | None = None
        for at, answer in enumerate(answers):
            if isinstance(answer, BaseException):
                if isinstance(answer, problems.DataError):
                    raise answer
                if not isinstance(answer, problems.NoScriptError):
                    self.errors += 1
                answers[at] = Trouble(answer)
                if isinstance(answer, ILL):
                    ill = answer
        if ill is None:
            self.circuit(node).succeeded()
        else:
            self.circuit(node).failed(ill)
        return answers

    def forked(self) -> None:
        for circuit in self._circuits.values():
            circuit.forked()


def refused(count: int) -> list[Any]:
    return [Trouble(None)] * count


def worth_another(error: object) -> bool:
    """A broken connection may have been broken for long. A time-out has cost its time already."""
    return isinstance(error, (problems.ConnectionError, OSError)) and not isinstance(
        error, (TimeoutError, problems.BusyLoadingError, problems.AuthenticationError))


def _key(command: Command) -> Any:
    return command[3] if command[0] in ("EVALSHA", "EVAL") else command[1]


def by_node(client: Any, commands: Sequence[Command]) -> dict[str, tuple[Any, list[int]]]:
    """Commands by the node that answers for their key; UNKNOWN where the client does not know one."""
    groups: dict[str, tuple[Any, list[int]]] = {}
    for at, command in enumerate(commands):
        try:
            node = client.get_node_from_key(_key(command))
        except (problems.RedisClusterException, problems.RedisError):
            node = None
        groups.setdefault(UNKNOWN if node is None else node.name, (node, []))[1].append(at)
    return groups
