"""An agent file as an Engine: the parent's side, which never imports the user's Python.

Python cannot stop a function that runs in a thread. A cancelled skill that has not returned within
CANCEL_SECONDS costs its process: other tasks on it fail as retryable, and it is started again.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from monai_node.mesh.child import Child, ChildSpec, RestartPolicy, open_child
from monai_node.mesh.engine.base import EngineCard
from monai_node.registry.advert import Skill
from monai_node.registry.errors import PeerRefused, SetupError, TaskFailed
from monai_node.registry.wire import SKILLS_PER_NODE_MAX, TaskCompleted, TaskDelta, TaskRequest, Timings

CANCEL_SECONDS = 2.0
_CONCURRENCY = 4
_MEMORY_BYTES = 8 << 30  # address space: room for large libraries, not for a runaway list
# Killing a process whose skill did not stop is no crash of the file, so it leads to pauses between
# starts (10 s at most) and not to quarantine: no more than 20 starts fit into the policy's minute.
_CRASHES_MAX = 21


class _Info(BaseModel):
    """What the child says of itself. It runs the user's code, so it is read like any stranger."""

    model_config = ConfigDict(strict=True)

    skills: list[Skill] = Field(min_length=1, max_length=SKILLS_PER_NODE_MAX)


class AgentEngine:
    """Serves the skills of one agent file. Made by `open_agent_engine`."""

    def __init__(self, child: Child, skills: tuple[Skill, ...]) -> None:
        self.child = child
        self._card = EngineCard(skills=skills, concurrency=_CONCURRENCY)
        self._ids = frozenset(skill.id for skill in skills)

    @property
    def card(self) -> EngineCard:
        return self._card

    async def submit(self, request: TaskRequest) -> AsyncGenerator[TaskDelta | TaskCompleted, None]:
        if request.skill not in self._ids:
            raise PeerRefused(f"skill {request.skill!r} is not served here")
        async with aclosing(self.child.call("run", _payload(request))) as events:
            async for event in events:
                match event:
                    case {"text": str(text)}:
                        yield TaskDelta(attempt=request.attempt, text=text)
                    case {"generate_ms": float(milliseconds)} if milliseconds >= 0:
                        yield TaskCompleted(
                            attempt=request.attempt,
                            model=request.skill,
                            timings=Timings(generate_ms=milliseconds),
                        )
                        return
                    case _:
                        raise TaskFailed("the agent's process sent an event of unknown shape")
        raise TaskFailed("the agent's process ended the result without saying so")


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise SetupError(f"there is no file {path}")
    return path.resolve()


def _payload(request: TaskRequest) -> dict[str, Any]:
    """What the child is asked: everything but sampling and tool calls, which no skill is shown."""
    return request.model_dump(
        exclude_none=True,
        exclude={"parameters": True, "input": {"turns": {"__all__": {"extra"}}}},
    )


@asynccontextmanager
async def open_agent_engine(path: Path) -> AsyncGenerator[AgentEngine, None]:
    """The agents of a Python file, running in a child process that is kept alive.

    SetupError in one sentence, with file and line, when the file cannot be imported or has no skill.
    """
    path = _existing(path)
    spec = ChildSpec(
        name=f"the agent {path.name}",
        entry="monai_node.mesh.agent_child.main",
        config={"path": str(path)},
        memory_bytes=_MEMORY_BYTES,
        cancel_seconds=CANCEL_SECONDS,
    )
    async with open_child(spec, RestartPolicy(crashes_max=_CRASHES_MAX)) as child:
        try:
            info = _Info.model_validate(child.info)
        except ValidationError as error:
            raise SetupError(f"{path.name} does not say which skills it has") from error
        yield AgentEngine(child, tuple(skill.model_copy(update={"model": ""}) for skill in info.skills))
