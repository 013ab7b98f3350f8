"""A backend that plays a script, for tests of whatever stands before a gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import numpy as np

from monai_node.agents.plan import plan as make_plan
from monai_node.agents.request import RunRequest
from monai_node.mesh.embeddings import Embedded, EmbeddingModel, Text
from monai_node.mesh.gateway.backend import ModelEntry, PassedOver, PeerView, Planned, RouteCandidate, Routed
from monai_node.mesh.store import Decision
from monai_node.registry.errors import MonaiError, NotFound
from monai_node.registry.events import (
    AnswerCompleted,
    AnswerDelta,
    PlanTask,
    Provenance,
    RunCreated,
    RunEvent,
)
from monai_node.registry.ids import RunId
from monai_node.registry.wire import Label, Usage

Script = Callable[[RunRequest], AsyncGenerator[RunEvent, None]]


def provenance(task: str = "t1", model: str = "smollm2", peer_name: str = "anna") -> Provenance:
    """One part of an answer, made in half a second with 3 + 2 tokens."""
    return Provenance(
        task=task,
        text="say hello",
        skill="chat",
        peer="12D3KooWpeer",
        peer_name=peer_name,
        model=model,
        seconds=0.5,
        usage=Usage(prompt_tokens=3, completion_tokens=2),
        finish_reason="stop",
    )


def completed(run: str, *parts: Provenance) -> AnswerCompleted:
    """The end of a run whose answer has these parts; their usage summed."""
    return AnswerCompleted(
        run=run,
        finish_reason="stop",
        usage=Usage(
            prompt_tokens=sum(part.usage.prompt_tokens for part in parts),
            completion_tokens=sum(part.usage.completion_tokens for part in parts),
        ),
        parts=list(parts),
    )


def says(*pieces: str, error: MonaiError | None = None) -> Script:
    """A run of one task that answers in these pieces, and then completes or raises `error`."""

    async def script(request: RunRequest) -> AsyncGenerator[RunEvent, None]:
        yield RunCreated(run=request.run)
        yield PlanTask(run=request.run, task="t1", text="say hello", depends_on=[])
        for piece in pieces:
            yield AnswerDelta(run=request.run, task="t1", text=piece)
        if error is not None:
            raise error
        yield completed(request.run, provenance())

    return script


class HeldRun:
    """`script` is a run that says "Hel", and when it is let go "lo"; `begun` tells of the first."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.release = asyncio.Event()

    async def script(self, request: RunRequest) -> AsyncGenerator[RunEvent, None]:
        yield RunCreated(run=request.run)
        yield AnswerDelta(run=request.run, text="Hel")
        self.begun.set()
        await self.release.wait()
        yield AnswerDelta(run=request.run, text="lo")
        yield completed(request.run, provenance())


@dataclass(slots=True)
class ScriptedBackend:
    """Plays `script` for every run, remembers the requests, and tells when a run has ended."""

    script: Script = field(default_factory=lambda: says("Hel", "lo"))
    entries: Sequence[ModelEntry] = ()
    embeds_with: EmbeddingModel | None = None
    reason: str = ""  # why it is not ready; empty when it is
    requests: list[RunRequest] = field(default_factory=list[RunRequest])
    accepted: list[RunRequest] = field(default_factory=list[RunRequest])
    ratings: list[tuple[str, str | None, float]] = field(default_factory=list[tuple[str, str | None, float]])
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, request: RunRequest) -> AsyncGenerator[RunEvent]:
        self.requests.append(request)
        try:
            async with aclosing(self.script(request)) as events:
                async for event in events:
                    yield event
        finally:
            self.ended.set()

    async def plan(self, request: RunRequest) -> Planned:
        self.requests.append(request)
        plan = make_plan(request)
        found = {task.id: (await self.route(task.text, "trusted")).candidates for task in plan.graph.tasks}
        return Planned(plan, found)

    async def accept(self, request: RunRequest) -> None:
        self.accepted.append(request)

    async def feedback(self, run: RunId, task: str | None, rating: float) -> Sequence[str]:
        if all(request.run != run for request in self.requests):
            raise NotFound("there is no such run", code="run_not_found", param="run")
        self.ratings.append((run, task, rating))
        return [task or "t1"]

    async def route(self, text: str, label: Label | None) -> Routed:
        reasons = [f"{label}: {text}"]
        found = RouteCandidate("12D3KooWpeer", "anna", "chat", "smollm2", 0.9, reasons, True)
        other = PassedOver("12D3KooWother", "bob", "chat", "llama", "costs too much")
        return Routed("fallback", 0.8, "no skill fits", [found], [other])

    async def decisions(self, limit: int) -> Sequence[Decision]:
        return [Decision(1.0, "run-1", "t1", "a", "12D3KooWpeer", "chat", "smollm2", [])][:limit]

    def embedding_model(self) -> EmbeddingModel | None:
        return self.embeds_with

    async def embed(self, texts: Sequence[Text]) -> Embedded:
        """Of a text its length, of tokens their number, in the first of three dimensions."""
        vectors = np.array([[len(text), 2, 1] for text in texts], np.float32)
        return Embedded(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), len(texts))

    def models(self) -> Sequence[ModelEntry]:
        return self.entries

    def peers(self) -> Sequence[PeerView]:
        return [PeerView("12D3KooWself", "me", "self")]

    def ejected_count(self) -> int:
        return 0

    def is_ready(self) -> tuple[bool, str]:
        return not self.reason, self.reason
