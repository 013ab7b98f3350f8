"""The events of one run on their way out of the gateway: read in one task, taken by another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Protocol

from monai_node.agents.request import RunRequest
from monai_node.mesh.gateway.backend import Runs
from monai_node.mesh.gateway.caller import Caller
from monai_node.mesh.logs import add_to_log_context
from monai_node.registry.errors import DeadlineExceeded, Internal, MonaiError, log_defect
from monai_node.registry.events import AnswerCompleted, RunEvent, RunFailed, run_failed
from monai_node.registry.tasks import task_scope

FINISH_SECONDS = 5.0  # for what a run still does after its last event
EVENTS_WAITING_MAX = 64


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


class Feed:
    """The events of one run, ended by exactly one `answer.completed` or `error`, come what may.

    `watches` are told of every event as it happens, and once of the end. Bounded: a reader that is far
    behind slows its own run down."""

    def __init__(
        self, backend: Runs, request: RunRequest, limit_seconds: float, watches: Sequence[Watch] = ()
    ) -> None:
        self._backend = backend
        self._request = request
        self._limit_seconds = limit_seconds
        self._watches = watches
        self._queue: asyncio.Queue[RunEvent] = asyncio.Queue(EVENTS_WAITING_MAX)
        self._seq = 0  # of the next event
        self._has_ended = False
        self._clock: asyncio.Timeout | None = None  # while the run goes on
        self._stopped_by: MonaiError | None = None

    async def next(self, until: float | None = None) -> RunEvent | None:
        """The next event; None when the loop's clock reaches `until` first."""
        return await next_event(self._queue, until)

    def stop(self, error: MonaiError) -> None:
        """End the run; its last event says `error`, unless it has ended by itself."""
        if self._has_ended:
            return
        self._stopped_by = error
        if self._clock is not None and not self._clock.expired():
            self._clock.reschedule(0.0)  # long ago by any loop's clock

    async def pump(self) -> None:
        """Runs the request. The backend's events are iterated and closed in this one task, because
        the run may own a task group, which cannot be left from another task."""
        add_to_log_context(run=self._request.run)
        try:
            error = self._stopped_by or await self._run()
            if not self._has_ended:
                failed = run_failed(self._request.run, error)
                await self._pass_on(failed.model_copy(update={"seq": self._seq}))
        finally:
            for watch in self._watches:
                watch.close()

    async def _run(self) -> MonaiError:
        """Pass the events on; the error that stands when the run did not end by itself."""
        clock = asyncio.timeout(self._limit_seconds)
        try:
            async with clock, aclosing(self._backend.run(self._request)) as events:
                self._clock = clock
                async for event in events:
                    await self._pass_on(event)
            return Internal("the run ended without an answer")
        except MonaiError as error:
            return error
        except Exception as error:
            # An entry point: whatever a run raises must end this one request, and only it.
            if clock.expired():
                if self._stopped_by is not None:
                    return self._stopped_by
                seconds = self._request.options.deadline_seconds
                return DeadlineExceeded(f"no answer within the {seconds:g} seconds of this request")
            log_defect(f"run {self._request.run}", error)
            return Internal("the run failed for a reason inside this node; its log says where")
        finally:
            self._clock = None

    async def _pass_on(self, event: RunEvent) -> None:
        """The events are read to their end, beyond the last event, so that the run can finish."""
        if self._has_ended:
            return
        for watch in self._watches:
            watch.note(event)
        await self._queue.put(event)
        self._seq = event.seq + 1
        self._has_ended = isinstance(event, AnswerCompleted | RunFailed)


async def next_event(queue: asyncio.Queue[RunEvent], until: float | None) -> RunEvent | None:
    """The next event in line; None when the loop's clock reaches `until` first."""
    if not queue.empty():
        return queue.get_nowait()  # without a timer, which costs as much as the rest
    try:
        async with asyncio.timeout_at(until):
            return await queue.get()
    except TimeoutError:
        return None


@asynccontextmanager
async def pumped(pump: Coroutine[object, object, None], name: str) -> AsyncGenerator[None]:
    """Runs a feed's `pump` while it is entered. Left after the last event it lets the run finish, for
    FINISH_SECONDS; left by an error it ends it."""
    async with task_scope() as tasks:
        pumping = tasks.start(pump, name=name)
        yield
        await asyncio.wait({pumping}, timeout=FINISH_SECONDS)
