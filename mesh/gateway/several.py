"""Runs side by side whose events are one stream: the answers to one request that wants several."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from monai_node.agents.request import RunRequest
from monai_node.mesh.gateway.backend import Runs
from monai_node.mesh.gateway.caller import Caller
from monai_node.mesh.gateway.feed import EVENTS_WAITING_MAX, Feed, next_event, pumped
from monai_node.mesh.gateway.site import Site
from monai_node.registry.errors import MonaiError, TaskFailed
from monai_node.registry.events import AnswerCompleted, RunEvent, RunFailed, run_failed


class Several:
    """What a `Feed` is of one run. Each run takes its own place in the gate when there is one, and gives it
    back at its end: none holds a place while it waits for others. The first that fails ends them all."""

    def __init__(self, site: Site, requests: Sequence[RunRequest], caller: Caller, runs: Runs | None) -> None:
        self._site = site
        self._requests = requests
        self._caller = caller
        self._runs = runs
        self._queue: asyncio.Queue[RunEvent] = asyncio.Queue(EVENTS_WAITING_MAX)
        self._feeds: list[Feed] = []
        self._has_failed = False

    async def next(self, until: float | None = None) -> RunEvent | None:
        """The next event of any of them; None when the loop's clock reaches `until` first."""
        return await next_event(self._queue, until)

    async def pump(self) -> None:
        """Runs all of them, and returns when each has ended."""
        async with asyncio.TaskGroup() as group:
            for request in self._requests:
                group.create_task(self._run(request), name=f"run {request.run}")

    async def _run(self, request: RunRequest) -> None:
        try:
            async with self._site.running(request, self._caller, self._runs) as feed:
                self._feeds.append(feed)
                if self._has_failed:
                    feed.stop(_another_failed())
                while not await self._pass_on(await feed.next()):
                    pass
        except MonaiError as error:  # the gate's
            await self._pass_on(run_failed(request.run, error))

    async def _pass_on(self, event: RunEvent | None) -> bool:
        """Whether it was the last one of its run. What follows a failure is heard by nobody."""
        if event is not None and not self._has_failed:
            await self._queue.put(event)
        if isinstance(event, RunFailed) and not self._has_failed:
            self._has_failed = True
            for feed in self._feeds:
                feed.stop(_another_failed())
        return isinstance(event, AnswerCompleted | RunFailed)


def _another_failed() -> TaskFailed:
    return TaskFailed("another answer to the same request failed")


@asynccontextmanager
async def running_beside(
    site: Site, requests: Sequence[RunRequest], caller: Caller, runs: Runs | None
) -> AsyncGenerator[Several]:
    """As `site.running`, of several runs: the events of all."""
    several = Several(site, requests, caller, runs)
    async with pumped(several.pump(), f"runs of {requests[0].run}"):
        yield several
