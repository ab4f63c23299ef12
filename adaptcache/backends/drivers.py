"""Who runs a plan: `Driver` in the calling thread, `AsyncDriver` in a task.

A driver does what a step asks for and sends the answer back into the plan; the way to the server is a road's (`roads`, `async_roads`). It knows
neither keys nor values.
"""
from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from adaptcache.backends.async_roads import AsyncClusterRoad, AsyncRoad
from adaptcache.backends.inbox import Inbox
from adaptcache.backends.roads import ClusterRoad, Road
from adaptcache.backends.steps import Batch, Call, Listen, Plan, Run, Step, Trouble, Wait

T = TypeVar("T")


class Driver:
    """Runs plans in the calling thread."""

    def __init__(self, road: Road | ClusterRoad, inbox: Inbox) -> None:
        self._road = road
        self._inbox = inbox

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

    def let_go(self) -> None:
        self._road.let_go()

    def forked(self) -> None:
        self._road.forked()

    def _do(self, step: Step) -> Any:
        if type(step) is Call:
            return _answer(self._road.exchange((step.command,), step.again))
        if type(step) is Batch:
            return self._road.exchange(step.commands, step.again) if step.commands else []
        if type(step) is Run:
            return step.code()
        if type(step) is Listen:
            called = threading.Event()
            return _Ticket(self._inbox.sit(step.name, called.set), called)
        assert type(step) is Wait
        if step.ticket is None:
            threading.Event().wait(step.seconds)
            return False
        assert isinstance(step.ticket, _Ticket)
        return step.ticket.wait(step.seconds)


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


class AsyncDriver:
    """Runs plans in tasks of one event loop."""

    def __init__(self, road: AsyncRoad | AsyncClusterRoad, inbox: Inbox) -> None:
        self._road = road
        self._inbox = inbox
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
            return _answer(await self._road.exchange((step.command,), step.again))
        if type(step) is Batch:
            return await self._road.exchange(step.commands, step.again) if step.commands else []
        if type(step) is Run:
            return await step.code()
        if type(step) is Listen:
            called = asyncio.Event()
            return _AsyncTicket(self._inbox.sit(step.name, self._waker(called)), called)
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


def _answer(answers: list[Any]) -> Any:
    if isinstance(answers[0], Trouble):
        raise answers[0]
    return answers[0]
