"""Who runs a plan: `Driver` in the calling thread, `AsyncDriver` in a task. Here, and only here, commands meet redis-py.

A driver sends, counts and times; it asks the breaker first and tells it how it went; it sends again, once and after a
jittered pause, what may be done twice. On one server it writes to a connection of the client's pool by itself, which halves
the cost of a command: the client's own way there is made for every command and every option. It knows neither keys nor values. Whatever the server or the road to it does
becomes `Trouble`; only mistakes of ours (redis-py's DataError) and the user's own exceptions come through as they are.
"""
from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import redis.exceptions as problems

from adaptcache.backends.breaker import Circuit
from adaptcache.backends.inbox import Inbox
from adaptcache.backends.steps import Batch, Call, Listen, Plan, Run, Step, Trouble, Wait

T = TypeVar("T")

TROUBLES = (problems.RedisError, problems.RedisClusterException, OSError, asyncio.IncompleteReadError)
# The server, or the way to it, is ill: the breaker counts these. Other answers ("out of memory", "read only") are for this
# command alone: reads may well go on.
ILL = (problems.ConnectionError, problems.TimeoutError, problems.ClusterDownError, problems.ClusterError, problems.MasterDownError,
       problems.RedisClusterException, problems.TryAgainError, OSError, asyncio.IncompleteReadError)
PAUSE = 0.02            # seconds before a command is sent again, jittered


class Counts:
    """What the drivers of one backend did."""

    __slots__ = ("commands", "errors", "retries", "trips")

    def __init__(self) -> None:
        self.trips = 0          # round trips
        self.commands = 0
        self.errors = 0
        self.retries = 0


class _Base:
    def __init__(self, circuit: Circuit, counts: Counts, inbox: Inbox) -> None:
        self._circuit = circuit
        self._counts = counts
        self._inbox = inbox

    def _ask_leave(self, commands: int) -> None:
        if not self._circuit.allow():
            raise Trouble(None, sent=False)
        self._counts.trips += 1
        self._counts.commands += commands

    def _went_wrong(self, error: BaseException) -> Trouble:
        if isinstance(error, problems.DataError):
            raise error
        if not isinstance(error, problems.NoScriptError):
            self._counts.errors += 1
        if isinstance(error, ILL):
            self._circuit.failed(error)
        else:
            self._circuit.succeeded()
        return Trouble(error)

    def _answers(self, answers: list[Any]) -> list[Any]:
        """Exceptions among the answers of a batch become Troubles."""
        ill: BaseException | None = None
        for at, answer in enumerate(answers):
            if isinstance(answer, BaseException):
                if isinstance(answer, problems.DataError):
                    raise answer
                if not isinstance(answer, problems.NoScriptError):
                    self._counts.errors += 1
                answers[at] = Trouble(answer)
                ill = answer if isinstance(answer, ILL) else ill
        if ill is not None:
            self._circuit.failed(ill)
        else:
            self._circuit.succeeded()
        return answers

    @staticmethod
    def _worth_another(error: BaseException) -> bool:
        """A broken connection may have been broken for long. A time-out has cost its time already."""
        return isinstance(error, (problems.ConnectionError, OSError)) and not isinstance(
            error, (TimeoutError, problems.BusyLoadingError, problems.AuthenticationError))


class Driver(_Base):
    """Runs plans in the calling thread."""

    def __init__(self, client: Callable[[], Any], cluster: bool, circuit: Circuit, counts: Counts, inbox: Inbox) -> None:
        super().__init__(circuit, counts, inbox)
        self._client = client
        self._cluster = cluster

    def run(self, plan: Plan[T]) -> T:
        try:
            step = plan.send(None)
            while True:
                try:
                    answer = self._do(step)
                except BaseException as error:
                    step = plan.throw(error)
                else:
                    step = plan.send(answer)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    def _do(self, step: Step) -> Any:
        if type(step) is Call:
            return self._send(self._call, step, 1, step.again)
        if type(step) is Batch:
            if not step.commands:
                return []
            return self._answers(self._send(self._batch, step, len(step.commands), step.again))
        if type(step) is Run:
            return step.code()
        if type(step) is Listen:
            called = threading.Event()
            seat = self._inbox.sit(step.name, called.set)
            return _Ticket(seat, called)
        assert type(step) is Wait
        if step.ticket is None:
            threading.Event().wait(step.seconds)
            return False
        assert isinstance(step.ticket, _Ticket)
        return step.ticket.wait(step.seconds)

    def _send(self, send: Callable[[Any], Any], step: Call | Batch, commands: int, again: bool) -> Any:
        self._ask_leave(commands)
        try:
            answer = send(step)
        except TROUBLES as error:
            if not (again and self._worth_another(error)):
                raise self._went_wrong(error) from error
            self._counts.retries += 1
            threading.Event().wait(PAUSE * random.uniform(0.5, 1.5))
            try:
                answer = send(step)
            except TROUBLES as last:
                raise self._went_wrong(last) from last
        if type(step) is Call:
            self._circuit.succeeded()
        return answer

    def _call(self, step: Call) -> Any:
        client = self._client()
        if self._cluster:
            return client.execute_command(*step.command)
        pool = client.connection_pool
        connection = pool.get_connection()
        try:
            connection.send_command(*step.command)
            return connection.read_response()
        except problems.ResponseError:
            raise
        except BaseException:
            connection.disconnect()
            raise
        finally:
            pool.release(connection)

    def _batch(self, step: Batch) -> list[Any]:
        client = self._client()
        if self._cluster:
            with client.pipeline() as pipe:
                for command in step.commands:
                    pipe.execute_command(*command)
                return list(pipe.execute(raise_on_error=False))
        pool = client.connection_pool
        connection = pool.get_connection()
        answers: list[Any] = []
        try:
            connection.send_packed_command(connection.pack_commands(step.commands))
            for _ in step.commands:
                try:
                    answers.append(connection.read_response())
                except problems.ResponseError as error:
                    answers.append(error)
        except BaseException:
            connection.disconnect()
            raise
        finally:
            pool.release(connection)
        return answers


class _Ticket:
    """A seat in the inbox, for a thread."""

    __slots__ = ("_called", "_seat", "channel")

    def __init__(self, seat: Any, called: threading.Event) -> None:
        self._seat = seat
        self._called = called
        self.channel: bytes = seat.channel

    def wait(self, seconds: float) -> bool:
        woken = self._called.wait(seconds)
        self._called.clear()
        return woken

    def close(self) -> None:
        self._seat.close()


class AsyncDriver(_Base):
    """Runs plans in tasks of one event loop, at most `connections` commands at a time."""

    def __init__(self, client: Any, cluster: bool, circuit: Circuit, counts: Counts, inbox: Inbox, connections: int) -> None:
        super().__init__(circuit, counts, inbox)
        self._client = client
        self._cluster = cluster
        self._slots = asyncio.Semaphore(connections)
        self._loop = asyncio.get_running_loop()

    async def run(self, plan: Plan[T]) -> T:
        try:
            step = plan.send(None)
            while True:
                try:
                    answer = await self._do(step)
                except BaseException as error:
                    step = plan.throw(error)
                else:
                    step = plan.send(answer)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    async def _do(self, step: Step) -> Any:
        if type(step) is Call:
            return await self._send(self._call, step, 1, step.again)
        if type(step) is Batch:
            if not step.commands:
                return []
            return self._answers(await self._send(self._batch, step, len(step.commands), step.again))
        if type(step) is Run:
            return await step.code()
        if type(step) is Listen:
            called = asyncio.Event()
            seat = self._inbox.sit(step.name, self._waker(called))
            return _AsyncTicket(seat, called)
        assert type(step) is Wait
        if step.ticket is None:
            await asyncio.sleep(step.seconds)
            return False
        assert isinstance(step.ticket, _AsyncTicket)
        return await step.ticket.wait(step.seconds)

    def _waker(self, called: asyncio.Event) -> Callable[[], object]:
        loop = self._loop

        def wake() -> None:
            try:
                loop.call_soon_threadsafe(called.set)
            except RuntimeError:
                pass    # that loop is closed, and the waiter gone with it

        return wake

    async def _send(self, send: Callable[[Any], Any], step: Call | Batch, commands: int, again: bool) -> Any:
        async with self._slots:
            self._ask_leave(commands)
            try:
                answer = await send(step)
            except TROUBLES as error:
                if not (again and self._worth_another(error)):
                    raise self._went_wrong(error) from error
                self._counts.retries += 1
                await asyncio.sleep(PAUSE * random.uniform(0.5, 1.5))
                try:
                    answer = await send(step)
                except TROUBLES as last:
                    raise self._went_wrong(last) from last
        if type(step) is Call:
            self._circuit.succeeded()
        return answer

    async def _call(self, step: Call) -> Any:
        if self._cluster:
            return await self._client.execute_command(*step.command)
        pool = self._client.connection_pool
        connection = await pool.get_connection()
        try:
            await connection.send_command(*step.command)
            return await connection.read_response()
        except problems.ResponseError:
            raise
        except BaseException:       # cancelled, too: the answer is still to come
            await connection.disconnect(nowait=True)
            raise
        finally:
            await pool.release(connection)

    async def _batch(self, step: Batch) -> list[Any]:
        if self._cluster:
            async with self._client.pipeline() as pipe:
                for command in step.commands:
                    pipe.execute_command(*command)
                return list(await pipe.execute(raise_on_error=False))
        pool = self._client.connection_pool
        connection = await pool.get_connection()
        answers: list[Any] = []
        try:
            await connection.send_packed_command(connection.pack_commands(step.commands))
            for _ in step.commands:
                try:
                    answers.append(await connection.read_response())
                except problems.ResponseError as error:
                    answers.append(error)
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        finally:
            await pool.release(connection)
        return answers


class _AsyncTicket:
    """A seat in the inbox, for a task."""

    __slots__ = ("_called", "_seat", "channel")

    def __init__(self, seat: Any, called: asyncio.Event) -> None:
        self._seat = seat
        self._called = called
        self.channel: bytes = seat.channel

    async def wait(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._called.wait(), seconds)
        except TimeoutError:
            return False
        self._called.clear()
        return True

    def close(self) -> None:
        self._seat.close()
