"""What becomes of tasks, told to the reader of a run: events, each with what the answer grows by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from monai_node.agents.answer import Answer
from monai_node.agents.feed import Feed
from monai_node.agents.graph import Task
from monai_node.agents.report import Tries, not_made, progress
from monai_node.agents.request import RunRequest
from monai_node.agents.task_request import permitted_calls
from monai_node.registry.errors import MonaiError
from monai_node.registry.events import Provenance, TaskText, TaskWasCompleted, TaskWasFailed
from monai_node.router.dispatch import Accepted, Dispatched, Lost, Text


class Telling:
    """Between the tasks of one run and its feed. Every method waits while the reader is far behind."""

    def __init__(self, request: RunRequest, feed: Feed, answer: Answer, clock: Callable[[], float]) -> None:
        self._request = request
        self._feed = feed
        self._answer = answer
        self._clock = clock

    async def progressed(self, task: Task, tries: Tries, event: Dispatched | Accepted | Text | Lost) -> None:
        said = progress(self._request.run, task, event)
        match event:
            case Dispatched():
                tries.note(event, self._clock())
                await self._feed.say(said)
            case Text(text=text, logprobs=logprobs):
                await self._feed.say(said, lambda: self._answer.delta(task.id, text, logprobs))
            case _:
                await self._feed.say(said)

    async def grew(self, task: Task, text: str) -> None:
        """The result of a task has this text more."""
        said = TaskText(run=self._request.run, task=task.id, text=text)
        await self._feed.say(said, lambda: self._answer.delta(task.id, text))

    async def completed(self, part: Provenance, tool_calls: Sequence[dict[str, Any]]) -> None:
        calls = permitted_calls(tool_calls, self._request.parameters)
        said = TaskWasCompleted(run=self._request.run, task=part.task, provenance=part)
        await self._feed.say(said, lambda: self._answer.completed(part, calls))

    async def failed(self, task: Task, tries: Tries, error: MonaiError) -> None:
        part = not_made(task, tries, error, self._clock())
        said = TaskWasFailed(run=self._request.run, task=task.id, code=error.code, message=error.message)
        await self._feed.say(said, lambda: self._answer.failed(part, error))
