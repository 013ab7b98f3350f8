"""The functions that a request offers to a model: which may be called, what a call that must come looks like,
and how a model is told of them whose chat template knows none. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from monai_node.registry.errors import InvalidRequest
from monai_node.registry.wire import ChatMessage, Parameters

# The form in which most models were trained to call (Hermes, Qwen, SmolLM2); others write the object alone.
CALL_OPENS, CALL_CLOSES = "<tool_call>", "</tool_call>"
_NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}


@dataclass(frozen=True, slots=True)
class Tool:
    """One function. `parameters` is the JSON schema of the object that it is called with."""

    name: str
    description: str
    parameters: Mapping[str, Any]

    @property
    def described(self) -> dict[str, Any]:
        """As OpenAI, and so chat templates, have it."""
        function = {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}
        return {"type": "function", "function": function}


@dataclass(frozen=True, slots=True)
class ToolUse:
    """The functions that may be called, and whether one must be: with "named", the only one in `tools`."""

    tools: tuple[Tool, ...]
    choice: Literal["auto", "required", "named"]
    is_parallel: bool = True  # several calls may be made in one answer

    @property
    def schema(self) -> dict[str, Any] | None:
        """What an answer must be: `{"name", "arguments"}`, of a named function the arguments alone. None
        where the model chooses for itself."""
        if self.choice == "auto":
            return None
        if self.choice == "named":
            return dict(self.tools[0].parameters)
        # References within the parameters of a function begin at their own root, which moves.
        moved = {f"f{n}": _moved(tool.parameters, f"#/$defs/f{n}") for n, tool in enumerate(self.tools)}
        calls = [_call_schema(tool.name, f"#/$defs/f{n}") for n, tool in enumerate(self.tools)]
        return {"anyOf": calls, "$defs": moved}


def tool_use(parameters: Parameters) -> ToolUse | None:
    """What a request says of tools; None when no call can come of it. InvalidRequest for what makes no
    sense."""
    choice = parameters.tool_choice
    if choice == "none" or not parameters.tools:
        return None
    tools = tuple(_tool(described) for described in parameters.tools)
    is_parallel = parameters.parallel_tool_calls is not False
    if choice in (None, "auto"):
        return ToolUse(tools, "auto", is_parallel)
    if choice == "required":
        return ToolUse(tools, "required", is_parallel=False)
    name = function_of(choice).get("name") if isinstance(choice, dict) else None
    named = tuple(tool for tool in tools if tool.name == name)[:1]
    if not named:
        raise InvalidRequest("tool_choice is none, auto, required or one of the tools", param="tool_choice")
    return ToolUse(named, "named", is_parallel=False)


def _tool(described: Mapping[str, Any]) -> Tool:
    function = function_of(described)
    name, parameters = function.get("name"), function.get("parameters")
    if not isinstance(name, str) or not name:
        raise InvalidRequest("a tool has no name", param="tools")
    schema = cast("dict[str, Any]", parameters) if isinstance(parameters, dict) else {}
    return Tool(name, str(function.get("description") or ""), schema or _NO_PARAMETERS)


def function_of(described: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a tool or a call says of its function, with or without the object that OpenAI puts around it."""
    inner = described.get("function")
    return cast("dict[str, Any]", inner) if isinstance(inner, dict) else described


def _call_schema(name: str, arguments: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"name": {"const": name}, "arguments": {"$ref": arguments}},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _moved(value: Any, root: str) -> Any:
    """A schema whose references to itself begin at `root`."""
    match value:
        case {"$ref": str(target), **rest} if target.startswith("#"):
            return {"$ref": root + target[1:], **{key: _moved(each, root) for key, each in rest.items()}}
        case dict():
            return {key: _moved(each, root) for key, each in cast("dict[str, Any]", value).items()}
        case list():
            return [_moved(each, root) for each in cast("list[Any]", value)]
        case _:
            return value


# --- in words ---------------------------------------------------------------------------------------
def in_words(messages: Sequence[ChatMessage], use: ToolUse | None) -> list[ChatMessage]:
    """The conversation for a template that knows no tools: calls and their results are text, and the system's
    turn says what may be called."""
    turns = [_in_words(message) for message in messages]
    if use is None:
        return turns
    said = _description(use)
    if turns and turns[0].role in ("system", "developer"):
        first = turns[0].model_copy(update={"content": f"{turns[0].content}\n\n{said}"})
        return [first, *turns[1:]]
    return [ChatMessage(role="system", content=said), *turns]


def _in_words(message: ChatMessage) -> ChatMessage:
    if message.role == "tool":
        return ChatMessage(role="user", content=f"<tool_response>\n{message.content}\n</tool_response>")
    calls = [f"{CALL_OPENS}\n{_json(call['function'])}\n{CALL_CLOSES}" for call in calls_of(message)]
    if not calls:
        return message
    return ChatMessage(role=message.role, content="\n".join(filter(None, [message.content, *calls])))


def calls_of(message: ChatMessage) -> list[dict[str, Any]]:
    """The calls that an earlier turn made, their arguments as objects; such as are no JSON stay text."""
    found: list[dict[str, Any]] = []
    for call in cast("list[Any]", message.extra.get("tool_calls") or []):
        match call:
            case {"function": {"name": str(name), **rest}}:
                function = {"name": name, "arguments": parsed(rest.get("arguments", {}))}
                found.append({"id": str(call.get("id", "")), "type": "function", "function": function})
            case _:
                pass
    return found


def parsed(arguments: Any) -> Any:
    """What arguments that came as JSON in a string say; anything else as it is."""
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments


def _description(use: ToolUse) -> str:
    listed = [_json(tool.described["function"]) for tool in use.tools]
    # Nothing to copy stands in it: small models copy whatever looks like an answer.
    how = 'its "name" and its "arguments" as one JSON object'
    ways = {
        "auto": f"To call one, answer with {how} between {CALL_OPENS} and {CALL_CLOSES}.",
        "required": f"Call one: answer with {how}.",
        "named": "Call it: answer with its arguments as one JSON object.",
    }
    return "\n".join(["You can call these functions:", *listed, ways[use.choice]])


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
