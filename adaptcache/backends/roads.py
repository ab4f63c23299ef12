"""The way of commands to a server or a cluster, for threads and for asyncio. Only here, and in `clients`, is redis-py met.

Commands are written to connections of the client's pools and their answers read, all of a batch at once and in a cluster to all nodes at
once; the client's own way (`execute_command`) is made for every command and every option, costs twice as much, and sends again what must not be done
twice. It is used where it knows more than we do: after a redirection, and where a node is not known or has gone.

A road asks the breaker first, one a node, and tells it how it went; it sends again, once and after a jittered pause, what may be
done twice. Whatever the servers or the way to them do comes back as a `Trouble` in the place of the answer; only
mistakes of ours (redis-py's DataError) are raised.
"""
from __future__ import annotations

import asyncio
import random
import threading
import time
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
UNKNOWN = "?"           # whoever answers for a slot that the client knows no node for: others are asked all the same
REFRESH = 1.0           # seconds between two questions for a cluster's nodes because one of them is silent


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


def _refused(count: int) -> list[Any]:
    return [Trouble(None)] * count


def _worth_another(error: object) -> bool:
    """A broken connection may have been broken for long. A time-out has cost its time already."""
    return isinstance(error, (problems.ConnectionError, OSError)) and not isinstance(
        error, (TimeoutError, problems.BusyLoadingError, problems.AuthenticationError))


def _key(command: Command) -> Any:
    return command[3] if command[0] in ("EVALSHA", "EVAL") else command[1]


def _by_node(client: Any, commands: Sequence[Command]) -> dict[str, tuple[Any, list[int]]]:
    """Commands by the node that answers for their key; UNKNOWN where the client does not know one."""
    groups: dict[str, tuple[Any, list[int]]] = {}
    for at, command in enumerate(commands):
        try:
            node = client.get_node_from_key(_key(command))
        except (problems.RedisClusterException, problems.RedisError):
            node = None
        groups.setdefault(UNKNOWN if node is None else node.name, (node, []))[1].append(at)
    return groups


# -- for threads


class Road:
    """To one server."""

    def __init__(self, client: Callable[[], Any], traffic: Traffic) -> None:
        self._client = client
        self._traffic = traffic
        self._kept: list[tuple[Any, Any, float]] = []       # connections, their pool, and until when they need not be looked at

    def exchange(self, commands: Sequence[Command], again: bool) -> list[Any]:
        """The answers of all commands, in their order. `again`: they may be done twice."""
        traffic = self._traffic
        if not traffic.circuit("").allow():
            return _refused(len(commands))
        traffic.trips += 1
        traffic.commands += len(commands)
        try:
            answers = self._once(commands, again)
        except TROUBLES as error:
            answers = [error] * len(commands)
            if again and _worth_another(error):
                traffic.retries += 1
                threading.Event().wait(PAUSE * random.uniform(0.5, 1.5))
                try:
                    answers = self._once(commands, again)
                except TROUBLES as last:
                    answers = [last] * len(commands)
        return traffic.judge("", answers)

    def _once(self, commands: Sequence[Command], again: bool) -> list[Any]:
        connection, pool, until = self._take(again)
        try:
            connection.send_packed_command(connection.pack_commands(commands))
            answers = [_read(connection) for _ in commands]
        except BaseException:
            connection.disconnect()
            pool.release(connection)
            self.let_go()       # the others are no better
            raise
        self._kept.append((connection, pool, until))
        return answers

    def _take(self, again: bool) -> tuple[Any, Any, float]:
        """A connection, its pool, and until when it need not be given back.

        The pool looks whether a connection is alive, and with a Sentinel whether it leads to the right server, each time that
        it gives one; that costs as much as a command. So it is asked once in KEEP seconds, and we look for ourselves before
        what must not be sent again.
        """
        now = time.monotonic()
        try:
            connection, pool, until = self._kept.pop()
        except IndexError:
            pass
        else:
            if now < until and (again or _alive(connection)):
                return connection, pool, until
            pool.release(connection)
        pool = self._client().connection_pool
        return pool.get_connection(), pool, now + KEEP

    def let_go(self) -> None:
        """Give connections back to their pool."""
        kept, self._kept = self._kept, []
        for connection, pool, _ in kept:
            pool.release(connection)

    def forked(self) -> None:
        """In a child: they are the parent's."""
        self._kept = []


def _alive(connection: Any) -> bool:
    """Nothing is to be read where nothing was asked: an end, or the rest of an answer."""
    try:
        return not connection.can_read(timeout=0)
    except TROUBLES:
        return False


def _read(connection: Any) -> Any:
    try:
        return connection.read_response()
    except problems.ResponseError as error:
        return error


class ClusterRoad:
    """To the nodes of a cluster: written to all, then read from all."""

    def __init__(self, client: Callable[[], Any], traffic: Traffic) -> None:
        self._client = client
        self._traffic = traffic
        self._refreshed = 0.0

    def exchange(self, commands: Sequence[Command], again: bool) -> list[Any]:
        traffic = self._traffic
        try:
            # Its nodes are asked for when it is made.
            client = self._client() if traffic.circuit("").allow() else None
        except TROUBLES as error:
            return traffic.judge("", [error] * len(commands))
        if client is None:
            return _refused(len(commands))
        traffic.circuit("").succeeded()
        answers: list[Any] = [None] * len(commands)
        traffic.trips += 1
        traffic.commands += len(commands)
        asked: list[tuple[str, list[int]]] = []
        lines: list[tuple[list[int], Any, Any]] = []
        try:
            for name, (node, group) in _by_node(client, commands).items():
                if not traffic.circuit(name).allow():
                    for at in group:
                        answers[at] = Trouble(None)
                    continue
                asked.append((name, group))
                if node is None:
                    for at in group:
                        answers[at] = self._single(client, commands[at])
                    continue
                try:
                    pool = client.get_redis_connection(node).connection_pool
                    connection = pool.get_connection()
                    lines.append((group, pool, connection))
                    connection.send_packed_command(connection.pack_commands([commands[at] for at in group]))
                except TROUBLES as error:
                    for at in group:
                        answers[at] = error
            for group, _, connection in lines:
                if answers[group[0]] is not None:
                    continue        # it could not be written to
                try:
                    for at in group:
                        answers[at] = _read(connection)
                except TROUBLES as error:
                    connection.disconnect()
                    for at in group:
                        answers[at] = error
        except BaseException:
            for _, _, connection in lines:
                connection.disconnect()
            raise
        finally:
            for _, pool, connection in lines:
                pool.release(connection)
        for name, group in asked:
            self._once_more(client, commands, answers, group, again)
            for at, answer in zip(group, traffic.judge(name, [answers[at] for at in group]), strict=True):
                answers[at] = answer
        return answers

    def let_go(self) -> None:
        """Nothing is kept."""

    def forked(self) -> None:
        """The client's pools see to it."""

    def _once_more(self, client: Any, commands: Sequence[Command], answers: list[Any], group: list[int], again: bool) -> None:
        """What was not done because it belongs elsewhere by now; and what may be done twice, where a connection broke."""
        for at in group:
            answer = answers[at]
            if isinstance(answer, ELSEWHERE) or (again and _worth_another(answer)):
                self._traffic.retries += 1
                answers[at] = self._single(client, commands[at])
                if isinstance(answers[at], ILL):
                    return          # so will be the others
            elif isinstance(answer, ILL) and time.monotonic() - self._refreshed >= REFRESH:
                self._refreshed = time.monotonic()
                try:
                    client.nodes_manager.initialize()       # another node may have taken its place
                except TROUBLES:
                    pass

    def _single(self, client: Any, command: Command) -> Any:
        try:
            return client.execute_command(*command)
        except TROUBLES as error:
            return error


# -- for asyncio


class AsyncRoad:
    """To one server, with at most as many exchanges at a time as `slots` has."""

    def __init__(self, client: Any, traffic: Traffic, slots: asyncio.Semaphore) -> None:
        self._client = client
        self._traffic = traffic
        self._slots = slots
        self._kept: list[tuple[Any, float]] = []        # connections, and until when they need not be looked at

    async def exchange(self, commands: Sequence[Command], again: bool) -> list[Any]:
        traffic = self._traffic
        async with self._slots:
            if not traffic.circuit("").allow():
                return _refused(len(commands))
            traffic.trips += 1
            traffic.commands += len(commands)
            try:
                answers = await self._once(commands, again)
            except TROUBLES as error:
                answers = [error] * len(commands)
                if again and _worth_another(error):
                    traffic.retries += 1
                    await asyncio.sleep(PAUSE * random.uniform(0.5, 1.5))
                    try:
                        answers = await self._once(commands, again)
                    except TROUBLES as last:
                        answers = [last] * len(commands)
            return traffic.judge("", answers)

    async def _once(self, commands: Sequence[Command], again: bool) -> list[Any]:
        # As `Road._take`; what must not be sent again takes a connection that the pool has looked at.
        pool = self._client.connection_pool
        now = time.monotonic()
        connection, until = self._kept.pop() if self._kept else (None, 0.0)
        if connection is not None and (not again or now >= until):
            await pool.release(connection)      # and mostly had again: no more are kept than were in use at once
            connection = None
        if connection is None:
            connection, until = await pool.get_connection(), now + KEEP
        try:
            answers = await _converse(connection, commands)
        except BaseException:
            await pool.release(connection)
            kept, self._kept = self._kept, []       # the others are no better
            for other, _ in kept:
                await other.disconnect(nowait=True)     # an end that the loop has not seen yet looks alive to the pool
                await pool.release(other)
            raise
        self._kept.append((connection, until))
        return answers


async def _converse(connection: Any, commands: Sequence[Command]) -> list[Any]:
    answers: list[Any] = []
    try:
        await connection.send_packed_command(connection.pack_commands(commands))
        for _ in commands:
            try:
                answers.append(await connection.read_response())
            except problems.ResponseError as error:
                answers.append(error)
    except BaseException:       # cancelled, too: answers are still to come
        await connection.disconnect(nowait=True)
        raise
    return answers


class AsyncClusterRoad:
    """To the nodes of a cluster, all at a time."""

    def __init__(self, client: Any, traffic: Traffic, slots: asyncio.Semaphore) -> None:
        self._client = client
        self._traffic = traffic
        self._slots = slots
        self._refreshed = 0.0

    async def exchange(self, commands: Sequence[Command], again: bool) -> list[Any]:
        traffic = self._traffic
        async with self._slots:
            groups = list(_by_node(self._client, commands).items())
            traffic.trips += 1
            traffic.commands += len(commands)
            work = [self._group(name, node, [commands[at] for at in group], again) for name, (node, group) in groups]
            parts = [await work[0]] if len(work) == 1 else await asyncio.gather(*work)
        answers: list[Any] = [None] * len(commands)
        for (_, (_, group)), part in zip(groups, parts, strict=True):
            for at, answer in zip(group, part, strict=True):
                answers[at] = answer
        return answers

    async def _group(self, name: str, node: Any, commands: list[Command], again: bool) -> list[Any]:
        traffic = self._traffic
        if not traffic.circuit(name).allow():
            return _refused(len(commands))
        if node is None:
            return traffic.judge(name, await self._singles(commands))
        connection = None
        try:
            connection = node.acquire_connection()
            answers = await _converse(connection, commands)
        except TROUBLES as error:
            answers = [error] * len(commands)
        finally:
            if connection is not None:
                node._free.append(connection) if not hasattr(node, "release") else node.release(connection)
        for at, answer in enumerate(answers):
            if isinstance(answer, ELSEWHERE) or (again and _worth_another(answer)):
                traffic.retries += 1
                answers[at] = await self._single(commands[at])
                if isinstance(answers[at], ILL):
                    break
            elif isinstance(answer, ILL) and time.monotonic() - self._refreshed >= REFRESH:
                self._refreshed = time.monotonic()
                try:
                    await self._client.nodes_manager.initialize()
                except TROUBLES:
                    pass
        return traffic.judge(name, answers)

    async def _singles(self, commands: list[Command]) -> list[Any]:
        answers: list[Any] = []
        for command in commands:
            answer = await self._single(command)
            answers.append(answer)
            if isinstance(answer, ILL):
                return answers + [answer] * (len(commands) - len(answers))
        return answers

    async def _single(self, command: Command) -> Any:
        try:
            return await self._client.execute_command(*command)
        except TROUBLES as error:
            return error
