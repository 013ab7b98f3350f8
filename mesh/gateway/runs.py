"""What `POST /v1/runs` answers: a run as one object, or its events as they come."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from monai_node.agents.request import RunRequest
from monai_node.mesh.gateway.backend import Backend
from monai_node.mesh.gateway.http.sse import frame
from monai_node.mesh.gateway.openai.completion import usage_of
from monai_node.mesh.gateway.said import Said
from monai_node.registry.events import AnswerCompleted, PlanTask, RunEvent


def run_object(run: str, text: str, tasks: list[PlanTask], done: AnswerCompleted) -> dict[str, Any]:
    """A run that is over: its answer, what became of every task, and who made each part."""
    status = {part.task: part.status for part in done.parts}
    return {
        "object": "run",
        "run": run,
        "answer": text,
        "finish_reason": done.finish_reason,
        "tasks": [
            {
                "task": task.task,
                "text": task.text,
                "depends_on": task.depends_on,
                "status": status.get(task.task, "failed"),
            }
            for task in tasks
        ],
        "parts": done.parts,
        "usage": usage_of(done.usage),
    }


class EventFrames:
    """The events of one run as server-sent events, each named by its type. The last one is
    `answer.completed` or `error`; a stream that ends with another was cut."""

    has_events = True

    def opening(self) -> bytes:
        return b""

    def frames(self, event: RunEvent) -> bytes:
        return frame(event, name=event.type)

    def whole(self, said: Said, *others: Said) -> dict[str, Any]:
        return run_object(said.run, said.text, said.tasks, said.done)


class Accepting:
    """A backend that is told of every run that went well: its plan was its user's, and proved itself."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def run(self, request: RunRequest) -> AsyncGenerator[RunEvent]:
        """As the backend's. The plan is accepted before the last event is out, so that whoever saw
        that one finds the next request planned by it."""
        async with aclosing(self._backend.run(request)) as events:
            async for event in events:
                if isinstance(event, AnswerCompleted) and _went_well(event):
                    await self._backend.accept(request)
                yield event


def _went_well(done: AnswerCompleted) -> bool:
    return all(part.status == "completed" for part in done.parts)
