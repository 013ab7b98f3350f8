"""What serves a skill: the one interface behind llama.cpp, a URL, an agent and a script."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Protocol

from monai_node.registry.advert import ModelInfo, Skill
from monai_node.registry.wire import TaskCompleted, TaskDelta, TaskRequest


@dataclass(frozen=True, slots=True)
class EngineCard:
    """What an engine announces once it is ready. `model` is None for agents."""

    skills: tuple[Skill, ...]
    model: ModelInfo | None = None
    concurrency: int = 1  # tasks it runs at once; further ones wait at the provider


class Engine(Protocol):
    """Runs tasks. `submit → events, cancel`: closing the iterator cancels, and frees the engine."""

    @property
    def card(self) -> EngineCard: ...

    def submit(self, request: TaskRequest) -> AsyncGenerator[TaskDelta | TaskCompleted]:
        """Deltas (one per engine step), then exactly one TaskCompleted.

        Raises a MonaiError instead of completing: a CallerError when the request cannot be served by
        any engine, TaskFailed when this one failed. The deadline is the caller's: cancel by closing.
        """
        ...
