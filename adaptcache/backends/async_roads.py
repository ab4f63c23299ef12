"""The way of commands to a server or a cluster, for the tasks of one event loop: as in `roads`, with at most as many exchanges at a
time as there are slots.
"""
from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Any

import redis.exceptions as problems

from adaptcache.backends.steps import Command
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


class AsyncRoad:
    """To one server."""

    def __init__(self, client: Any, traffic: Traffic, slots: asyncio.Semaphore) -> None:
        self._client = client
        self._traffic = traffic
        self._slots = slots
        self._kept: list[tuple[Any, float]] = []        # connections, and until when they need not be looked at

    async def exchange(self, commands: Sequence[Command], again: bool) -> list[Any]:
        traffic = self._traffic
        async with self._slots:
            if not traffic.circuit("").allow():
                return refused(len(commands))
            traffic.trips += 1
            traffic.commands += len(commands)
            try:
                answers = await self._once(commands, again)
            except TROUBLES as error:
                answers = [error] * len(commands)
                if again and worth_another(error):
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
            groups = list(by_node(self._client, commands).items())
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
            return refused(len(commands))
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
            if isinstance(answer, ELSEWHERE) or (again and worth_another(answer)):
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
