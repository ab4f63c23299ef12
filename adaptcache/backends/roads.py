"""The way of commands to a server or a cluster, for threads; `async_roads` has it for tasks. Only there, here, and in `clients`,
is redis-py met.

Commands are written to connections of the client's pools and their answers read, all of a batch at once and in a cluster to all nodes at
once; the client's own way (`execute_command`) is made for every command and every option, costs twice as much, and sends again what must not be done
twice. It is used where it knows more than we do: after a redirection, and where a node is not known or has gone.

A road asks the breaker first, one a node, and tells it how it went (`traffic`); it sends again, once and after a jittered pause,
what may be done twice.
"""
from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import redis.exceptions as problems

from adaptcache.backends.steps import Command, Trouble
from adaptcache.backends.traffic import (
    ELSEWHERE,
    ILL,
    KEEP,
    PAUSE,
    REFRESH,
    TROUBLES,
    Traffic,
    by_node,
    refused,
    worth_another,
)


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
            return refused(len(commands))
        traffic.trips += 1
        traffic.commands += len(commands)
        try:
            answers = self._once(commands, again)
        except TROUBLES as error:
            answers = [error] * len(commands)
            if again and worth_another(error):
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
            return refused(len(commands))
        traffic.circuit("").succeeded()
        answers: list[Any] = [None] * len(commands)
        traffic.trips += 1
        traffic.commands += len(commands)
        asked: list[tuple[str, list[int]]] = []
        lines: list[tuple[list[int], Any, Any]] = []
        try:
            for name, (node, group) in by_node(client, commands).items():
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
            if isinstance(answer, ELSEWHERE) or (again and worth_another(answer)):
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
