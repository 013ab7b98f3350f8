"""What a run says while it runs: the events behind SSE, WebSocket, the chat page and the CLI.

`run.created` comes first; every `plan.task` before any `task.dispatched`; of each task exactly one of
`task.completed`, `task.failed`; and exactly one of `answer.completed`, `error` comes last. `seq` rises
by one within a run.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from monai_node.registry.errors import MonaiError
from monai_node.registry.wire import TokenLogprob, Usage

# What is sent has every field, so that its schema says so.
_SENT = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)


class Event(BaseModel):
    model_config = ConfigDict(_SENT, extra="forbid")

    run: str
    seq: int = 0


class MadeItem(BaseModel):
    """Who did a task for one item of a list, or had it last; `item` is the beginning of it. No peer:
    nobody was asked."""

    model_config = _SENT

    item: str
    peer: str = ""
    peer_name: str = ""
    model: str = ""
    seconds: float = 0.0
    error: str | None = None  # why this item could not be done


class Provenance(BaseModel):
    """Who made one part of the answer. `seconds` is from dispatch to completion, seen from here.

    A task that is done for each item of a list names every item's maker in `items`, in the order of the
    list, and as its own the peer that did most of them. `verdict` says what is wrong with a result that
    is given all the same: it is not what was asked for, as checked in code, and nobody had a better one.
    `spans` says where in the whole answer its text stands: [start, end) in characters (Unicode code points),
    and nothing before `answer.completed`.
    """

    model_config = _SENT

    task: str
    text: str  # the task in words
    skill: str
    peer: str
    peer_name: str
    model: str  # alias, or the agent's skill id
    seconds: float
    usage: Usage
    finish_reason: str
    attempts: int = 1
    status: Literal["completed", "failed"] = "completed"
    error: str | None = None
    verdict: str = ""
    items: list[MadeItem] = Field(default_factory=list[MadeItem])
    spans: list[tuple[int, int]] = Field(default_factory=list[tuple[int, int]])


class RunCreated(Event):
    type: Literal["run.created"] = "run.created"


class PlanTask(Event):
    """One task of the plan. `depends_on` names earlier tasks; `is_shown` says whether the answer holds its
    result."""

    type: Literal["plan.task"] = "plan.task"
    task: str
    text: str
    depends_on: list[str]
    is_shown: bool = True


class TaskDispatched(Event):
    """A task was sent to a peer; `reasons` says why to this one, in words, and `score` in one number: higher
    is better, comparable within one task only. `model` is an alias; "" for an agent."""

    type: Literal["task.dispatched"] = "task.dispatched"
    task: str
    attempt: str
    skill: str
    peer: str
    peer_name: str
    model: str = ""
    score: float = 0.0
    reasons: list[str]


class TaskWasAccepted(Event):
    type: Literal["task.accepted"] = "task.accepted"
    task: str
    attempt: str
    position: int


class TaskText(Event):
    type: Literal["task.delta"] = "task.delta"
    task: str
    text: str


class TaskContinued(Event):
    """A peer was lost, or its result is not what was asked for; another one goes on after what was already
    shown."""

    type: Literal["task.continued"] = "task.continued"
    task: str
    lost_peer: str
    error: str


class TaskWasCompleted(Event):
    type: Literal["task.completed"] = "task.completed"
    task: str
    provenance: Provenance


class TaskWasFailed(Event):
    type: Literal["task.failed"] = "task.failed"
    task: str
    code: str
    message: str


class AnswerDelta(Event):
    """The next piece of the merged answer, in the order in which a client should show it; `logprobs` of its
    tokens where they were asked for. `task` is the one whose part it belongs to, what is said of its failure
    included; "" for the gap between two parts."""

    type: Literal["answer.delta"] = "answer.delta"
    task: str = ""
    text: str
    logprobs: list[TokenLogprob] = Field(default_factory=list[TokenLogprob])


class AnswerCompleted(Event):
    type: Literal["answer.completed"] = "answer.completed"
    finish_reason: Literal["stop", "length", "tool_calls"]
    usage: Usage
    parts: list[Provenance]
    tool_calls: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])


class RunFailed(Event):
    """The run ended without an answer; the four fields of an OpenAI error body, and the HTTP status."""

    type: Literal["error"] = "error"
    status: int
    kind: str
    code: str
    message: str
    param: str | None = None
    retry_after_seconds: float | None = None


RunEvent = Annotated[
    RunCreated
    | PlanTask
    | TaskDispatched
    | TaskWasAccepted
    | TaskText
    | TaskContinued
    | TaskWasCompleted
    | TaskWasFailed
    | AnswerDelta
    | AnswerCompleted
    | RunFailed,
    Field(discriminator="type"),
]


def run_failed(run: str, error: MonaiError) -> RunFailed:
    """The event that ends a run with this error; `seq` is left to whoever numbers the events."""
    return RunFailed(
        run=run,
        status=error.status,
        kind=error.kind,
        code=error.code,
        message=error.message,
        param=error.param,
        retry_after_seconds=error.retry_after_seconds,
    )
