"""What one task of a run is sent as: its words, the results and turns it needs, its share. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from monai_node.agents.graph import Task
from monai_node.agents.plan import Plan
from monai_node.agents.request import RunRequest
from monai_node.registry.ids import AttemptId
from monai_node.registry.wire import (
    FRAME_BYTES_MAX,
    REQUEST_BODY_BYTES_MAX,
    RUN_SECONDS_MAX,
    TOKENS_MAX,
    Artifact,
    ChatMessage,
    Label,
    Parameters,
    TaskInput,
    TaskRequest,
)

# The turns came in one request body. What a task is given besides them, its words and the results it
# needs, has the rest of the frame, less what the frame's other fields may take.
_ADDED_BYTES_MAX = FRAME_BYTES_MAX - REQUEST_BODY_BYTES_MAX - (64 << 10)
_SYSTEM_ROLES = frozenset({"system", "developer"})


def build_task_request(
    request: RunRequest,
    plan: Plan,
    task: Task,
    results: Mapping[str, str],
    *,
    skill: str,
    attempt: AttemptId,
    label: Label,
    now: datetime,
    remaining_seconds: float,
    item: str | None = None,
    item_count: int = 1,
) -> TaskRequest:
    """The request that opens the task's stream; `skill`, `attempt` and the time left are those of its
    first attempt. `results` holds at least what the task depends on, and reaches it as artifacts only, in
    the order in which the task names them. `item` stands in place of the list that the task is done for
    each of; the task's share of the budget is shared by its `item_count` items.
    """
    options = request.options
    given = dict(results) if item is None or task.each is None else {**results, task.each: item}
    return TaskRequest(
        run=request.run,
        task=task.id,
        attempt=attempt,
        skill=skill,
        input=_conversation(request, task) if plan.is_passthrough else _input(request, task, given),
        parameters=share_of(request.parameters, options.budget_tokens, len(plan.graph.tasks) * item_count),
        remaining_ms=min(max(1, int(remaining_seconds * 1000)), int(RUN_SECONDS_MAX * 1000)),
        label=label,
        now=options.now or now.isoformat(),
        timezone=options.timezone,
        locale=options.locale,
        traceparent=request.traceparent,
    )


def share_of(parameters: Parameters, budget_tokens: int | None, task_count: int) -> Parameters:
    """The parameters with `max_tokens` no larger than an equal share of the budget, at least 1."""
    if budget_tokens is None:
        return parameters
    limit = TOKENS_MAX if parameters.max_tokens is None else parameters.max_tokens
    share = min(max(1, budget_tokens // task_count), limit)
    return parameters.model_copy(update={"max_tokens": share})


def permitted_calls(calls: Sequence[dict[str, Any]], parameters: Parameters) -> list[dict[str, Any]]:
    """Those of a result's tool calls that the request allows: a client may carry out whatever call it
    is handed, so one of a tool that it did not name, or did not choose, is a peer's text in disguise."""
    choice = parameters.tool_choice
    if choice == "none":
        return []
    named = {_function_name(tool) for tool in parameters.tools} - {""}
    if isinstance(choice, dict):
        named &= {_function_name(choice)}
    allowed = [call for call in calls if _function_name(call) in named]
    return allowed[:1] if parameters.parallel_tool_calls is False else allowed


def _function_name(described: Mapping[str, object]) -> str:
    """Of a tool or a call in OpenAI's shape; engines may leave its outer object out."""
    inner = described.get("function", described)
    name = cast("dict[str, object]", inner).get("name") if isinstance(inner, dict) else None
    return name if isinstance(name, str) else ""


def _conversation(request: RunRequest, task: Task) -> TaskInput:
    if request.is_completion:
        text = request.messages[0].content
        return TaskInput(text=text, tokens=list(request.tokens), is_completion=True)
    # The text stands in the turns already; a second whole copy could exceed the frame.
    text = _cut(task.text, _ADDED_BYTES_MAX)
    return TaskInput(text=text, turns=list(request.messages), is_conversation=True)


def _input(request: RunRequest, task: Task, results: Mapping[str, str]) -> TaskInput:
    free = max(0, _ADDED_BYTES_MAX - len(_utf8(task.text)))
    share = free // max(1, len(task.depends_on))
    artifacts = [Artifact(task=name, text=_cut(results[name], share)) for name in task.depends_on]
    return TaskInput(text=task.text, artifacts=artifacts, turns=_turns(request.messages, task.turns))


def _turns(messages: Sequence[ChatMessage], needed: Sequence[int]) -> list[ChatMessage]:
    """The turns needed and the system's, in the order of the conversation: whichever candidate takes
    the task, it knows in what manner the whole conversation is to be held."""
    return [
        message for index, message in enumerate(messages) if message.role in _SYSTEM_ROLES or index in needed
    ]


def _cut(text: str, bytes_max: int) -> str:
    """The beginning of a text, at most so many bytes of UTF-8."""
    if len(text) * 4 <= bytes_max:
        return text
    return _utf8(text)[:bytes_max].decode(errors="ignore")


def _utf8(text: str) -> bytes:
    # JSON may smuggle in half a surrogate pair; that is for the encoder of the frame to refuse.
    return text.encode(errors="surrogatepass")
