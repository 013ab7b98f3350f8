"""What a model's process is asked to write, packed by the parent and read by the child. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from monai_node.mesh.engine.json_schema import checked_schema
from monai_node.mesh.engine.prompt import messages_of
from monai_node.mesh.engine.tools import ToolUse, tool_use
from monai_node.registry.errors import InvalidRequest
from monai_node.registry.wire import ChatMessage, Parameters, TaskRequest

_MAX_TOKENS_DEFAULT = 1024


@dataclass(frozen=True, slots=True)
class Asked:
    """One result to be written. Either `messages` are answered, or, when `is_completion`, the prompt is gone
    on with: `tokens`, or without any of them `prompt`. `prefix` is text that was shown of the result. What
    is written has the shape of the JSON schema in `schema` unless that is empty."""

    messages: list[ChatMessage]
    prefix: str
    parameters: Parameters
    use: ToolUse | None
    schema: str
    is_completion: bool
    prompt: str
    tokens: list[int]

    @property
    def tokens_max(self) -> int:
        limit = self.parameters.max_tokens
        return _MAX_TOKENS_DEFAULT if limit is None else limit

    @property
    def is_cold(self) -> bool:
        """Whether nothing that was computed for others may be used: tokens decoded in other company differ
        in the last bits, and the same seed shall give the same text."""
        return self.parameters.seed is not None or self.tells_prompt

    @property
    def tells_prompt(self) -> bool:
        return self.parameters.echo and self.parameters.logprobs is not None


def payload_of(request: TaskRequest) -> dict[str, Any]:
    """What the child is sent; InvalidRequest for what cannot be asked of any model. Schema and tools travel
    as JSON: they may be deeper than a frame."""
    parameters, task = request.parameters, request.input
    try:
        tools = json.dumps(parameters.tools)
    except (TypeError, ValueError):
        raise InvalidRequest("the tools are not JSON") from None
    use = tool_use(parameters)
    schema = parameters.json_schema if use is None or use.schema is None else use.schema
    messages = [] if task.is_completion else [message.model_dump() for message in messages_of(request)]
    return {
        "messages": messages,
        "prefix": request.prefix,
        "parameters": parameters.model_dump(exclude={"tools", "json_schema"}),
        "tools": tools,
        "schema": "" if schema is None else checked_schema(schema),
        "is_completion": task.is_completion,
        "prompt": task.text if task.is_completion else "",
        "tokens": task.tokens,
    }


def asked_of(payload: dict[str, Any]) -> Asked:
    """What `payload_of` packed. A last message of the assistant is the beginning of the result."""
    messages = [ChatMessage.model_validate(message) for message in payload["messages"]]
    parameters = Parameters.model_validate(payload["parameters"])
    parameters = parameters.model_copy(update={"tools": json.loads(payload["tools"])})
    prefix = str(payload["prefix"])
    if messages and messages[-1].role == "assistant" and "tool_calls" not in messages[-1].extra:
        prefix = messages.pop().content + prefix
    return Asked(
        messages,
        prefix,
        parameters,
        tool_use(parameters),
        payload["schema"],
        payload["is_completion"],
        payload["prompt"],
        payload["tokens"],
    )
