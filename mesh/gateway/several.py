"""Runs side by side whose events are one stream: the answers to one request that wants several."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from monai_node.agents.request import RunRequest
from monai_node.mesh.gateway.backend import Runs
from monai_node.mesh.gateway.caller import Caller
from monai_node.mesh.gateway.feed import Feed
from monai_node.mesh.gateway.site import Site
from monai_node.registry.errors import MonaiError, TaskFailed
from monai_node.registry.events import AnswerCompleted, RunEvent, RunFailed, run_failed
from monai_node.registry.tasks import task_scope

_EVENTS_WAITING_MAX = 64


class Several:
    """What a `Feed` is of one run. Each run takes its own place in the gate when there is one, and gives it
    back at its end: none holds a place while it waits for others. The first that fails ends them all."""

    def __init__(self, site: Site, requests: Sequence[RunRequest], caller: Caller, runs: Runs | None) -> None:
        self._site = site
        self._requests = requests
        self._caller = caller
        self._runs = runs
        self._queue: asyncio.Queue[RunEvent] = asyncio.Queue(_EVENTS_WAITING_MAX)
        self._feeds: list[Feed] = []
        self._has_failed = False

    async def next(self, until: float | None = None) -> RunEvent | None:
        """The next event of any of them; None when the loop's clock reaches `until` first."""
        try:
            async with asyncio.timeout_at(until):
                return await self._queue.get()
        except TimeoutError:
            return None

    async def pump(self) -> None:
        """Runs all of them, and returns when each has ended."""
        async with asyncio.TaskGroup() as group:
            for request in self._requests:
                group.create_task(self._run(request), name=f"run {request.run}")

    async def _run(self, request: RunRequest) -> None:
        try:
            async with self._site.gate.admit(self._caller.key), task_scope() as tasks:
                if self._has_failed:
                    return
                feed = self._site.feed(request, self._caller, self._runs)
                self._feeds.append(feed)
                pump = tasks.start(feed.pump(), name="events")
                while not await self._pass_on(await feed.next()):
                    pass
                await asyncio.wait({pump})
        except MonaiError as error:  # the gate's
            await self._pass_on(run_failed(request.run, error))

    async def _pass_on(self, event: RunEvent | None) -> bool:
        """Whether it was the last one of its run. What follows a failure is heard by nobody."""
        if event is not None and not self._has_failed:
            await self._queue.put(event)
        if isinstance(event, RunFailed) and not self._has_failed:
            self._has_failed = True
            for feed in self._feeds:
                feed.stop(TaskFailed("another answer to the same request failed"))
        return isinstance(event, AnswerCompleted | RunFailed)
