"""A run's events as OpenAI's answer objects: `chat.completion` and the chunks of a stream. Pure.

Both carry `mesh` beside OpenAI's fields: the run, its tasks, and of every part of the answer who
made it. `model` is the name that was asked for; the models that answered stand in `mesh.parts`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import quote

from monai_node.mesh.gateway.errors import error_body
from monai_node.mesh.gateway.json_io import encode_json
from monai_node.registry.events import (
    AnswerCompleted,
    AnswerDelta,
    PlanTask,
    Provenance,
    RunCreated,
    RunEvent,
    RunFailed,
)
from monai_node.registry.wire import Usage

KEEP_ALIVE = b": keep-alive\n\n"
_DONE = b"data: [DONE]\n\n"
_HEADER_CHARS_MAX = 1024  # many proxies give up on a head of 8 KiB


@dataclass(frozen=True, slots=True)
class Head:
    """What every object of one answer has in common. `created` in Unix seconds."""

    run: str
    model: str
    created: int

    @property
    def id(self) -> str:
        return f"chatcmpl-{self.run.removeprefix('run-')}"


def completion(head: Head, text: str, tasks: list[PlanTask], done: AnswerCompleted) -> dict[str, Any]:
    """The `chat.completion` object."""
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
    if done.tool_calls:
        message["content"] = text or None
        message["tool_calls"] = tool_calls_of(done)
    return {
        "id": head.id,
        "object": "chat.completion",
        "created": head.created,
        "model": head.model,
        "choices": [
            {
                "index": 0,
                "message": message,
                "logprobs": None,
                "finish_reason": done.finish_reason,
            }
        ],
        "usage": usage_of(done.usage),
        "mesh": mesh_of(head.run, tasks, done),
    }


def completion_headers(done: AnswerCompleted) -> dict[str, str]:
    """The provenance in short, for whoever sees only headers; plain ASCII."""
    makers = dict.fromkeys(_maker(part) for part in done.parts)
    return {
        "x-mesh-parts": str(len(done.parts)),
        "x-mesh-models": ",".join(makers)[:_HEADER_CHARS_MAX],
    }


class Chunks:
    """Turns the events of one run into the bytes of an SSE stream, or its end into one object.

    With `has_events`, what happens between the deltas is sent as named SSE events, and the events that
    are chunks already stand in `mesh.event` of those, so that `seq` has no gaps. Only on request:
    OpenAI's clients take every `data:` line for a chunk, whatever its event name.
    """

    def __init__(self, head: Head, *, include_usage: bool, has_events: bool) -> None:
        self._head = head
        self._include_usage = include_usage
        self._has_events = has_events
        self._tasks: list[PlanTask] = []

    def opening(self) -> bytes:
        """The first chunk, which carries the role."""
        return self._chunk({"role": "assistant", "content": "", "refusal": None})

    def is_first_sign(self, event: RunEvent) -> bool:
        """Whether this event decides if the answer is a stream or an error status."""
        if self._has_events:
            return not isinstance(event, RunCreated)
        return isinstance(event, AnswerDelta | AnswerCompleted | RunFailed)

    def frames(self, event: RunEvent) -> bytes:
        """What this event adds to the stream; after the last one, the stream is at its end."""
        match event:
            case AnswerDelta():
                if not event.text and not self._has_events:
                    return b""
                return self._chunk({"content": event.text}, **self._told(event))
            case AnswerCompleted():
                return self._ending(event)
            case RunFailed():
                # OpenAI's clients raise an error object before [DONE] as an exception with message
                # and code. A stream that merely ends they take for a whole answer.
                return frame({**error_body(event), **self._told(event)}) + _DONE
            case PlanTask():
                self._tasks.append(event)
            case _:
                pass
        return frame(event, name=event.type) if self._has_events else b""

    def whole(self, text: str, tasks: list[PlanTask], done: AnswerCompleted) -> dict[str, Any]:
        return completion(self._head, text, tasks, done)

    def _ending(self, done: AnswerCompleted) -> bytes:
        parts = [self._chunk(delta) for delta in _tool_call_deltas(done)]
        mesh = {**mesh_of(self._head.run, self._tasks, done), **self._told(done).get("mesh", {})}
        parts.append(self._chunk({}, finish_reason=done.finish_reason, mesh=mesh))
        if self._include_usage:
            parts.append(frame({**self._base(), "choices": [], "usage": usage_of(done.usage)}))
        return b"".join((*parts, _DONE))

    def _told(self, event: RunEvent) -> dict[str, Any]:
        return {"mesh": {"event": event}} if self._has_events else {}

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None, **more: object) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        usage = {"usage": None} if self._include_usage else {}
        return frame({**self._base(), "choices": [choice], **usage, **more})

    def _base(self) -> dict[str, Any]:
        return {
            "id": self._head.id,
            "object": "chat.completion.chunk",
            "created": self._head.created,
            "model": self._head.model,
        }


def frame(value: object, name: str | None = None) -> bytes:
    """One server-sent event."""
    # JSON has no raw line breaks, so one `data:` line holds any value.
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + encode_json(value) + b"\n\n"


def mesh_of(run: str, tasks: list[PlanTask], done: AnswerCompleted) -> dict[str, Any]:
    """The provenance of an answer, as every object of ours that holds one carries it in `mesh`."""
    return {
        "run": run,
        "tasks": [{"task": task.task, "text": task.text, "depends_on": task.depends_on} for task in tasks],
        "parts": done.parts,
    }


def usage_of(usage: Usage) -> dict[str, int]:
    """OpenAI's usage object."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def _maker(part: Provenance) -> str:
    # A peer chose these names: anything that could end a header or a list item is escaped.
    return quote(f"{part.model}@{part.peer_name or part.peer}"[:256], safe="@/:.+")


def tool_calls_of(done: AnswerCompleted) -> list[dict[str, Any]]:
    """OpenAI's `tool_calls`, whatever shape the engine gave them."""
    return [_tool_call(call, n) for n, call in enumerate(done.tool_calls)]


def _tool_call(call: dict[str, Any], n: int) -> dict[str, Any]:
    """OpenAI's shape, whatever the engine left out; the arguments as JSON in a string."""
    inner = call.get("function")
    function = cast("dict[str, Any]", inner) if isinstance(inner, dict) else call
    arguments = function.get("arguments", "{}")
    return {
        "id": str(call.get("id") or f"call_{n}"),
        "type": "function",
        "function": {
            "name": str(function.get("name", "")),
            "arguments": arguments if isinstance(arguments, str) else encode_json(arguments).decode(),
        },
    }


def _tool_call_deltas(done: AnswerCompleted) -> list[dict[str, Any]]:
    """Of each call first its id and name, then its arguments, as OpenAI streams them."""
    deltas: list[dict[str, Any]] = []
    for n, call in enumerate(tool_calls_of(done)):
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        opened = {**call, "index": n, "function": {"name": name, "arguments": ""}}
        deltas.append({"tool_calls": [opened]})
        deltas.append({"tool_calls": [{"index": n, "function": {"arguments": arguments}}]})
    return deltas
