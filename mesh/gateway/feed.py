"""The events of one run on their way out of the gateway: read in one task, taken by another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from monai_node.agents.request import RunRequest
from monai_node.mesh.gateway.backend import Runs
from monai_node.mesh.gateway.caller import Caller
from monai_node.registry.errors import DeadlineExceeded, Internal, MonaiError, log_defect
from monai_node.registry.events import AnswerCompleted, RunEvent, RunFailed, run_failed

_EVENTS_WAITING_MAX = 64  # a client that reads slowly slows its own run down


class Watch(Protocol):
    """What counts and measures one run; neither method waits or raises."""

    def note(self, event: RunEvent) -> None:
        """Told of every event, the last one included, as it happens."""
        ...

    def close(self) -> None:
        """The run is over; without a last event when its client went away."""
        ...


class Watcher(Protocol):
    def watch(self, request: RunRequest, caller: Caller) -> Watch:
        """The watch of a run that begins now."""
        ...


@asynccontextmanager
async def _closing(events: AsyncIterator[RunEvent]) -> AsyncGenerator[AsyncIterator[RunEvent]]:
    try:
        yield events
    finally:
        if isinstance(events, AsyncGenerator):
            await events.aclose()


class Feed:
    """The events of one run, ended by exactly one `answer.completed` or `error`, come what may.

    `watches` are told of every event as it happens, and once of the end."""

    def __init__(
        self, backend: Runs, request: RunRequest, limit_seconds: float, watches: Sequence[Watch] = ()
    ) -> None:
        self._backend = backend
        self._request = request
        self._limit_seconds = limit_seconds
        self._watches = watches
        self._queue: asyncio.Queue[RunEvent] = asyncio.Queue(_EVENTS_WAITING_MAX)
        self._has_ended = False

    async def next(self, until: float | None = None) -> RunEvent | None:
        """The next event; None when the loop's clock reaches `until` first."""
        try:
            async with asyncio.timeout_at(until):
                return await self._queue.get()
        except TimeoutError:
            return None

    async def pump(self) -> None:
        """Runs the request. The backend's iterator is iterated and closed in this one task, because
        the run may own a task group, which cannot be left from another task."""
        try:
            error = await self._run()
            if not self._has_ended:
                await self._pass_on(run_failed(self._request.run, error))
        finally:
            for watch in self._watches:
                watch.close()

    async def _run(self) -> MonaiError:
        """Pass the events on; the error that stands when the run did not end by itself."""
        clock = asyncio.timeout(self._limit_seconds)
        try:
            async with clock, _closing(self._backend.run(self._request)) as events:
                async for event in events:
                    await self._pass_on(event)
            return Internal("the run ended without an answer")
        except MonaiError as error:
            return error
        except Exception as error:
            # An entry point: whatever a run raises must end this one request, and only it.
            if clock.expired():
                seconds = self._request.options.deadline_seconds
                return DeadlineExceeded(f"no answer within the {seconds:g} seconds of this request")
            log_defect(f"run {self._request.run}", error)
            return Internal("the run failed for a reason inside this node; its log says where")

    async def _pass_on(self, event: RunEvent) -> None:
        """The iterator is read to its end, beyond the last event, so that the run can finish."""
        if self._has_ended:
            return
        for watch in self._watches:
            watch.note(event)
        await self._queue.put(event)
        self._has_ended = isinstance(event, AnswerCompleted | RunFailed)
