"""The events of one run on their way to whoever reads them: numbered, in order, bounded."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from monai_node.agents.merge import Piece
from monai_node.registry.events import (
    AnswerDelta,
    PlanTask,
    RunEvent,
    TaskWasCompleted,
    TaskWasFailed,
)
from monai_node.registry.ids import RunId

_EVENTS_WAITING_MAX = 64  # a reader this far behind slows its own run down


class Feed:
    """Many tasks put, one reader takes. `seq` counts the events from 0."""

    def __init__(self, run: RunId) -> None:
        self._run = run
        self._events: asyncio.Queue[RunEvent] = asyncio.Queue(_EVENTS_WAITING_MAX)
        self._seq = 0
        self._open: dict[str, None] = {}
        self._grown: deque[Piece] = deque()  # of the answer, not put yet
        self._speaking = asyncio.Lock()

    @property
    def open_tasks(self) -> tuple[str, ...]:
        """Tasks of which the reader was told that they are planned, and not yet how they ended."""
        return tuple(self._open)

    async def next(self) -> RunEvent:
        return await self._events.get()

    async def say(self, event: RunEvent, grow: Callable[[], Sequence[Piece]] | None = None) -> None:
        """Put an event, then each piece that the answer grows by.

        Returns when there was room for all. Under a lock: of tasks that wait for room, none may pass
        another between taking its pieces and putting them. Whoever is cancelled while it waits leaves
        pieces to the next, as they were counted.
        """
        async with self._speaking:
            await self._put_grown()
            await self._put(event)
            if grow is not None:
                self._grown += grow()
                await self._put_grown()

    async def _put_grown(self) -> None:
        while self._grown:
            task, text, logprobs = self._grown[0]
            await self._put(AnswerDelta(run=self._run, task=task, text=text, logprobs=list(logprobs)))
            self._grown.popleft()

    async def _put(self, event: RunEvent) -> None:
        await self._events.put(event.model_copy(update={"seq": self._seq}))
        self._seq += 1
        if isinstance(event, PlanTask):
            self._open[event.task] = None
        elif isinstance(event, TaskWasCompleted | TaskWasFailed):
            self._open.pop(event.task, None)
