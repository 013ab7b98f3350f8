"""The events of one run as OpenAI's `response` object and the events of its stream.

The object carries `mesh` beside OpenAI's fields, as a chat completion does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from monai_node.mesh.gateway.errors import error_body
from monai_node.mesh.gateway.http.sse import frame
from monai_node.mesh.gateway.openai.completion import mesh_of, tool_calls_of, usage_of
from monai_node.mesh.gateway.responses.body import ResponseCall
from monai_node.mesh.gateway.responses.items import ItemObject, output_text
from monai_node.mesh.gateway.said import Said
from monai_node.registry.events import (
    AnswerCompleted,
    AnswerDelta,
    RunEvent,
    RunFailed,
)
from monai_node.registry.wire import Usage

Keep = Callable[[ItemObject, Sequence[ItemObject]], None]

_BUSY = frozenset({429, 503})


class ResponseForm:
    """Told of the events of one run in order; `clock` in Unix seconds. `response` is the object as it
    stands. `keep` is given it, and the items of the request, before the last event is out: whoever saw that
    one finds it kept."""

    def __init__(self, call: ResponseCall, clock: Callable[[], float], keep: Keep | None = None) -> None:
        self.call = call
        self._clock = clock
        self._keep = keep
        self._name = call.request.run.removeprefix("run-")
        self._taken = Said(call.request.run)
        self._is_message_open = False
        self._seq = 0
        self.response: dict[str, Any] = {
            **call.shown,
            "id": f"resp_{self._name}",
            "object": "response",
            "created_at": int(clock()),
            "completed_at": None,
            "status": "queued" if call.background else "in_progress",
            "error": None,
            "incomplete_details": None,
            "output": [],
            "mesh": {"run": call.request.run},
        }

    # --- Form -----------------------------------------------------------------------------------
    def opening(self) -> bytes:
        return b"".join(self.opened())

    @property
    def has_events(self) -> bool:
        return self.call.request.options.events

    def frames(self, event: RunEvent) -> bytes:
        return b"".join(self.told(event))

    def whole(self, said: Said, *others: Said) -> dict[str, Any]:
        self._taken = said
        self._complete(said.done)
        return self.response

    # --- the same, event by event ---------------------------------------------------------------
    def queued(self) -> list[bytes]:
        """For a response that may have to wait for its turn."""
        return [self._event("response.queued", response=self.response)]

    def opened(self) -> list[bytes]:
        self.response["status"] = "in_progress"
        names = ("response.created", "response.in_progress")
        return [self._event(name, response=self.response) for name in names]

    def told(self, event: RunEvent) -> list[bytes]:
        """What this event adds to the stream, each piece one event of it."""
        self._taken.take(event)
        match event:
            case AnswerDelta(text=text) if text:
                return self._said(text)
            case AnswerCompleted():
                return self._completed(event)
            case RunFailed():
                self._fail(event)
                return [self._event("response.failed", response=self.response)]
            case _:
                pass
        if not self.has_events:
            return []
        return [self._event(event.type, **event.model_dump(mode="json", exclude={"type"}))]

    def cancelled(self) -> list[bytes]:
        """Ended by whoever asked for it: OpenAI's stream has no event of its own for that."""
        self.response["status"] = "cancelled"
        return [self._event("error", code="cancelled", message="the response was cancelled", param=None)]

    # --- the object -----------------------------------------------------------------------------
    def _complete(self, done: AnswerCompleted) -> None:
        is_cut = done.finish_reason == "length"
        status = "incomplete" if is_cut else "completed"
        calls = [self._call(call, n) for n, call in enumerate(tool_calls_of(done))]
        text = self._taken.text
        said = [self._message(text, status)] if text or not calls else []
        self.response |= {
            "status": status,
            "completed_at": None if is_cut else int(self._clock()),
            "incomplete_details": {"reason": "max_output_tokens"} if is_cut else None,
            "output": [*said, *calls],
            "usage": _usage(done.usage),
            "mesh": mesh_of(self.call.request.run, self._taken.tasks, done),
        }
        self._end()

    def _fail(self, failed: RunFailed) -> None:
        text = self._taken.text
        self.response |= {
            "status": "failed",
            "error": {"code": _error_code(failed.status), "message": failed.message},
            "output": [self._message(text, "incomplete")] if text else [],
            # OpenAI lists the codes that may stand in a response; ours says more.
            "mesh": {"run": self.call.request.run, **error_body(failed)},
        }
        if text:  # else nobody was told the id: the answer is an error status
            self._end()

    def _end(self) -> None:
        if self._keep is not None:
            self._keep(self.response, self.call.given)

    def _message(self, text: str | None, status: str) -> ItemObject:
        content = [] if text is None else [output_text(text)]
        head = {"id": f"msg_{self._name}", "type": "message", "role": "assistant"}
        return {**head, "status": status, "content": content}

    def _call(self, call: dict[str, Any], n: int) -> ItemObject:
        head = {"id": f"fc_{self._name}_{n}", "type": "function_call", "call_id": call["id"]}
        return {**head, **call["function"], "status": "completed"}

    # --- the stream -----------------------------------------------------------------------------
    def _event(self, name: str, /, **fields: object) -> bytes:
        event = {"type": name, "sequence_number": self._seq, **fields}
        self._seq += 1
        return frame(event, name=name)

    def _part_event(self, name: str, /, **fields: object) -> bytes:
        where = {"item_id": f"msg_{self._name}", "output_index": 0, "content_index": 0}
        return self._event(f"response.{name}", **where, **fields)

    def _said(self, text: str) -> list[bytes]:
        opened = [] if self._is_message_open else self._message_opened()
        self._is_message_open = True
        return [*opened, self._part_event("output_text.delta", delta=text, logprobs=[])]

    def _message_opened(self) -> list[bytes]:
        message = self._message(None, "in_progress")
        return [
            self._event("response.output_item.added", output_index=0, item=message),
            self._part_event("content_part.added", part=output_text("")),
        ]

    def _completed(self, done: AnswerCompleted) -> list[bytes]:
        self._complete(done)
        events: list[bytes] = []
        for n, item in enumerate(self.response["output"]):
            if item["type"] == "message":
                events += [] if self._is_message_open else self._message_opened()
                events += self._message_closed(item)
            else:
                events += self._called(item, n)
        return [*events, self._event(f"response.{self.response['status']}", response=self.response)]

    def _message_closed(self, item: ItemObject) -> list[bytes]:
        (part,) = item["content"]
        return [
            self._part_event("output_text.done", text=part["text"], logprobs=[]),
            self._part_event("content_part.done", part=part),
            self._event("response.output_item.done", output_index=0, item=item),
        ]

    def _called(self, item: ItemObject, n: int) -> list[bytes]:
        where = {"item_id": item["id"], "output_index": n}
        arguments, prefix = item["arguments"], "response.function_call_arguments"
        begun = {**item, "arguments": "", "status": "in_progress"}
        return [
            self._event("response.output_item.added", output_index=n, item=begun),
            self._event(f"{prefix}.delta", **where, delta=arguments),
            self._event(f"{prefix}.done", **where, name=item["name"], arguments=arguments),
            self._event("response.output_item.done", output_index=n, item=item),
        ]


def _usage(usage: Usage) -> dict[str, Any]:
    """Peers tell nothing of caches, and no model here reasons apart from its answer."""
    counts = usage_of(usage)
    return {
        "input_tokens": counts["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": counts["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": counts["total_tokens"],
    }


def _error_code(status: int) -> str:
    if status in _BUSY:
        return "rate_limit_exceeded"
    return "invalid_prompt" if status < 500 else "server_error"
