"""A run's events as OpenAI's answer objects: `chat.completion` and the chunks of a stream. Pure.

Both carry `mesh` beside OpenAI's fields: the run, its tasks, and of every part of the answer who
made it. `model` is the name that was asked for; the models that answered stand in `mesh.parts`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from monai_node.mesh.gateway.errors import error_body
from monai_node.mesh.gateway.http.json_io import encode_json
from monai_node.mesh.gateway.http.sse import DONE, frame
from monai_node.mesh.gateway.said import Said
from monai_node.registry.events import (
    AnswerCompleted,
    AnswerDelta,
    PlanTask,
    RunEvent,
    RunFailed,
)
from monai_node.registry.wire import TokenLogprob, Usage


@dataclass(frozen=True, slots=True)
class Head:
    """What every object of one answer has in common: the run that it is of, and those beside it, in the
    order of their choices. `created` in Unix seconds."""

    run: str
    model: str
    created: int
    others: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        return f"chatcmpl-{self.run.removeprefix('run-')}"

    @property
    def runs(self) -> tuple[str, ...]:
        return (self.run, *self.others)


def completion(head: Head, said: Sequence[Said]) -> dict[str, Any]:
    """The `chat.completion` object."""
    return {
        "id": head.id,
        "object": "chat.completion",
        "created": head.created,
        "model": head.model,
        "choices": [_choice(each, index) for index, each in enumerate(said)],
        "usage": usage_of(usage_of_all([each.done.usage for each in said])),
        "mesh": mesh_of_all(said),
    }


def _choice(said: Said, index: int) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": said.text, "refusal": None}
    if said.done.tool_calls:
        message["content"] = said.text or None
        message["tool_calls"] = tool_calls_of(said.done)
    return {
        "index": index,
        "message": message,
        "logprobs": logprobs_of(said.logprobs),
        "finish_reason": said.done.finish_reason,
    }


class AnswerFrames(ABC):
    """Turns the events of one run into an SSE stream of OpenAI's objects; those of several into one stream
    whose objects say by `index` whose they are.

    With `has_events`, what happens between the deltas is sent as named SSE events, and the events that
    are objects already stand in `mesh.event` of those, so that `seq` has no gaps. Only on request:
    OpenAI's clients take every `data:` line for an object, whatever its event name.
    """

    def __init__(self, head: Head, *, include_usage: bool, has_events: bool) -> None:
        self.has_events = has_events
        self._head = head
        self._include_usage = include_usage
        self._index = {run: index for index, run in enumerate(head.runs)}
        self._said = {run: Said(run) for run in head.runs}  # without the text, which is on its way out

    def frames(self, event: RunEvent) -> bytes:
        """What this event adds to the stream; after the last one, the stream is at its end."""
        match event:
            case AnswerDelta():
                return self._delta(event)
            case AnswerCompleted():
                self._said[event.run].take(event)
                return self._ending(event)
            case RunFailed():
                # OpenAI's clients raise an error object before [DONE] as an exception with message
                # and code. A stream that merely ends they take for a whole answer.
                return frame({**error_body(event), **self._told(event)}) + DONE
            case PlanTask():
                self._said[event.run].take(event)
            case _:
                pass
        return frame(event, name=event.type) if self.has_events else b""

    def _ending(self, done: AnswerCompleted) -> bytes:
        mesh = {**mesh_of(done.run, self._said[done.run].tasks, done), **self._told(done).get("mesh", {})}
        ended = self._last(done, mesh)
        every = list(self._said.values())
        if any(each.ending is None for each in every):
            return ended
        if self._include_usage:
            ended += frame({**self._base(), "choices": [], "usage": usage_of(self._usage(every))})
        return ended + DONE

    def _told(self, event: RunEvent) -> dict[str, Any]:
        return {"mesh": {"event": event}} if self.has_events else {}

    @abstractmethod
    def _base(self) -> dict[str, Any]:
        """What every object of the stream has."""

    @abstractmethod
    def _delta(self, delta: AnswerDelta) -> bytes: ...

    @abstractmethod
    def _last(self, done: AnswerCompleted, mesh: dict[str, Any]) -> bytes:
        """The end of one choice."""

    @abstractmethod
    def _usage(self, said: Sequence[Said]) -> Usage:
        """Of all choices, which have ended."""


class Chunks(AnswerFrames):
    """The `chat.completion.chunk` objects of a stream, or one `chat.completion`."""

    def opening(self) -> bytes:
        """Of each choice the first chunk, which carries the role."""
        delta = {"role": "assistant", "content": "", "refusal": None}
        return b"".join(self._chunk(run, delta) for run in self._index)

    def whole(self, said: Said, *others: Said) -> dict[str, Any]:
        return completion(self._head, (said, *others))

    def _delta(self, delta: AnswerDelta) -> bytes:
        if not delta.text and not delta.logprobs and not self.has_events:
            return b""
        logprobs = logprobs_of(delta.logprobs)
        return self._chunk(delta.run, {"content": delta.text}, logprobs=logprobs, **self._told(delta))

    def _last(self, done: AnswerCompleted, mesh: dict[str, Any]) -> bytes:
        calls = [self._chunk(done.run, delta) for delta in _tool_call_deltas(done)]
        return b"".join((*calls, self._chunk(done.run, {}, finish_reason=done.finish_reason, mesh=mesh)))

    def _usage(self, said: Sequence[Said]) -> Usage:
        return usage_of_all([each.done.usage for each in said])

    def _chunk(
        self,
        run: str,
        delta: dict[str, Any],
        finish_reason: str | None = None,
        logprobs: dict[str, Any] | None = None,
        **more: object,
    ) -> bytes:
        choice = {
            "index": self._index[run],
            "delta": delta,
            "logprobs": logprobs,
            "finish_reason": finish_reason,
        }
        usage = {"usage": None} if self._include_usage else {}
        return frame({**self._base(), "choices": [choice], **usage, **more})

    def _base(self) -> dict[str, Any]:
        return {
            "id": self._head.id,
            "object": "chat.completion.chunk",
            "created": self._head.created,
            "model": self._head.model,
        }


def mesh_of(run: str, tasks: list[PlanTask], done: AnswerCompleted) -> dict[str, Any]:
    """The provenance of an answer, as every object of ours that holds one carries it in `mesh`."""
    return {
        "run": run,
        "tasks": [{"task": task.task, "text": task.text, "depends_on": task.depends_on} for task in tasks],
        "parts": done.parts,
    }


def mesh_of_all(said: Sequence[Said]) -> dict[str, Any]:
    """The provenance of the first answer, and in `others` that of those beside it."""
    first, *others = [mesh_of(each.run, each.tasks, each.done) for each in said]
    return {**first, "others": others} if others else first


def usage_of_all(usages: Sequence[Usage]) -> Usage:
    """Of several answers to one prompt, which is read once."""
    return Usage(
        prompt_tokens=max(usage.prompt_tokens for usage in usages),
        completion_tokens=sum(usage.completion_tokens for usage in usages),
    )


def logprobs_of(told: Sequence[TokenLogprob]) -> dict[str, Any] | None:
    """OpenAI's `logprobs` of a choice."""
    if not told:
        return None
    content = [
        {
            "token": each.token,
            "logprob": each.logprob,
            "bytes": each.bytes,
            "top_logprobs": [
                {"token": other.token, "logprob": other.logprob, "bytes": other.bytes} for other in each.top
            ],
        }
        for each in told
    ]
    return {"content": content, "refusal": None}


def usage_of(usage: Usage) -> dict[str, int]:
    """OpenAI's usage object."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


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
