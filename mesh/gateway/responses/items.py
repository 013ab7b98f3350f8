"""The items of OpenAI's Responses API: what clients send, what is kept, and the conversation they make. Pure.

An item is kept as the plain object that the API shows: a message, a `function_call` or a
`function_call_output`, each with an id.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from monai_node.mesh.gateway.openai.bodies import Part, Tolerant
from monai_node.mesh.gateway.openai.reader import text_of
from monai_node.registry.errors import InvalidRequest, Unsupported
from monai_node.registry.wire import MESSAGES_MAX, TEXT_CHARS_MAX, ChatMessage

ItemObject = dict[str, Any]
FindItem = Callable[[str], ItemObject | None]

_NAME_CHARS_MAX = 256
_Parts = Annotated[list[Part], Field(fail_fast=True)]


class Item(Tolerant):
    """One item of `input`, of any kind; `type` may be absent for a message and a reference."""

    type: str | None = None
    id: str | None = Field(default=None, min_length=1, max_length=_NAME_CHARS_MAX)
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: str | _Parts | None = None
    call_id: str | None = Field(default=None, min_length=1, max_length=_NAME_CHARS_MAX)
    name: str | None = Field(default=None, min_length=1, max_length=_NAME_CHARS_MAX)
    arguments: str | None = None
    output: str | _Parts | None = None

    @property
    def kind(self) -> str:
        return self.type or ("message" if self.role else "item_reference")


def items_of(given: str | Sequence[Item], name: str, find: FindItem) -> list[ItemObject]:
    """The items of `input`, ready to be kept: references looked up by `find`, ids made from `name` where
    there are none. InvalidRequest or Unsupported, which name the item."""
    if isinstance(given, str):
        given = [Item(role="user", content=given)]
    found: list[ItemObject] = []
    for n, item in enumerate(given):
        if item.kind == "reasoning":
            continue  # another model's notes to itself
        found.append(_item(item, f"input.{n}", f"{name}_in{n}", find))
    return found


def _item(item: Item, param: str, new_id: str, find: FindItem) -> ItemObject:
    head: ItemObject = {"id": item.id or new_id, "type": item.kind}
    match item.kind:
        case "message":
            return {**head, **_message(item, param), "status": "completed"}
        case "function_call":
            call = {name: _needed(item, name, param) for name in ("call_id", "name", "arguments")}
            return {**head, **call, "status": "completed"}
        case "function_call_output":
            _needed(item, "output", param)
            output = text_of(item.output, f"{param}.output")
            return {
                **head,
                "call_id": _needed(item, "call_id", param),
                "output": output,
                "status": "completed",
            }
        case "item_reference":
            name = _needed(item, "id", param)
            if (kept := find(name)) is None:
                raise InvalidRequest(f"{param}: no item {name[:100]!r} is kept here", param=f"{param}.id")
            return kept
        case kind:
            raise Unsupported(f"{param} is of the type {kind!r:.40}, which is not known here", param=param)


def _message(item: Item, param: str) -> ItemObject:
    role = _needed(item, "role", param)
    _needed(item, "content", param)
    text = text_of(item.content, f"{param}.content")
    part = output_text(text) if role == "assistant" else {"type": "input_text", "text": text}
    return {"role": role, "content": [part]}


def _needed(item: Item, field: str, param: str) -> Any:
    value = getattr(item, field)
    if value is None:
        raise InvalidRequest(f"{param}.{field} is missing", param=f"{param}.{field}")
    return value


def output_text(text: str) -> ItemObject:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def messages_of(instructions: str | None, conversation: Sequence[ItemObject]) -> tuple[ChatMessage, ...]:
    """The conversation as a model is given it; InvalidRequest when it is empty, too long, or answers a call
    that is not in it. Calls stand in the assistant's message before them, as chat has it."""
    # Before anything is made of it: one item that is kept may be named a thousand times.
    if len(instructions or "") + sum(map(_chars, conversation)) > TEXT_CHARS_MAX:
        raise _too_long()
    messages = [ChatMessage(role="system", content=instructions)] if instructions else []
    called: set[str] = set()
    for item in conversation:
        match item["type"]:
            case "message":
                text = "\n".join(part["text"] for part in item["content"])
                messages.append(ChatMessage(role=item["role"], content=text))
            case "function_call":
                called.add(item["call_id"])
                _add_call(messages, item)
            case _:
                if item["call_id"] not in called:
                    raise InvalidRequest(
                        f"no call {item['call_id'][:100]!r} stands before its output", param="input"
                    )
                extra = {"tool_call_id": item["call_id"]}
                messages.append(ChatMessage(role="tool", content=item["output"], extra=extra))
    _check_size(messages)
    return tuple(messages)


def _add_call(messages: list[ChatMessage], item: ItemObject) -> None:
    function = {"name": item["name"], "arguments": item["arguments"]}
    call = {"id": item["call_id"], "type": "function", "function": function}
    if not messages or messages[-1].role != "assistant":
        messages.append(ChatMessage(role="assistant", content=""))
    last = messages[-1]
    calls = [*last.extra.get("tool_calls", []), call]
    messages[-1] = last.model_copy(update={"extra": {"tool_calls": calls}})


def _check_size(messages: Sequence[ChatMessage]) -> None:
    if not messages:
        raise InvalidRequest("input is empty", param="input")
    if len(messages) > MESSAGES_MAX:
        raise _too_long()


def _chars(item: ItemObject) -> int:
    """Of all that a model is given of it."""
    match item["type"]:
        case "message":
            return sum(len(part["text"]) for part in item["content"])
        case "function_call":
            return len(item["call_id"]) + len(item["name"]) + len(item["arguments"])
        case _:
            return len(item["call_id"]) + len(item["output"])


def _too_long() -> InvalidRequest:
    return InvalidRequest(
        f"the conversation is longer than {MESSAGES_MAX} messages or {TEXT_CHARS_MAX} characters;"
        " begin a new one without previous_response_id",
        param="input",
    )
