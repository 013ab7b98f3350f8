"""The tools that a chat body offers. Pure."""

from __future__ import annotations

from typing import Any, cast

from monai_node.mesh.gateway.bodies import ChatBody, Tool
from monai_node.mesh.gateway.json_io import check_plain
from monai_node.registry.errors import InvalidRequest, Unsupported


def tools_of(chat: ChatBody, raw: dict[str, Any]) -> list[dict[str, Any]]:
    """The tools as the client wrote them: what a schema may hold is the model's business."""
    for n, tool in enumerate(chat.tools):
        param = f"tools.{n}"
        if tool.type != "function":
            raise Unsupported(f"{param}: only tools of the type function are known", param=param)
        if tool.function is None:
            raise InvalidRequest(f"{param}.function is missing", param=f"{param}.function")
    tools = cast("list[dict[str, Any]]", raw.get("tools") or [])
    check_plain(tools, "tools")
    return tools


def tool_choice_of(chat: ChatBody) -> str | dict[str, Any] | None:
    """`none`, `auto`, `required` or one named function; None without tools."""
    choice, names = chat.tool_choice, {tool.function.name for tool in chat.tools if tool.function}
    if isinstance(choice, Tool):
        if choice.type != "function" or choice.function is None:
            raise Unsupported("tool_choice: only a function can be chosen", param="tool_choice")
        if choice.function.name not in names:
            raise _bad_choice("names a tool that is not in tools")
        return {"type": "function", "function": {"name": choice.function.name}}
    if choice not in (None, "none", "auto", "required"):
        raise _bad_choice("should be none, auto, required or a function")
    if choice == "required" and not names:
        raise _bad_choice("is required but there are no tools")
    return choice if names else None


def _bad_choice(why: str) -> InvalidRequest:
    return InvalidRequest(f"tool_choice {why}", param="tool_choice")
