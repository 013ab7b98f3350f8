"""The tools that a body offers, and the one that is to be called: in chat, and in responses, which write them
flat. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast

from monai_node.mesh.gateway.http.json_io import check_plain
from monai_node.registry.errors import InvalidRequest, Unsupported


class NamedTool(Protocol):
    """What a tool must have here, whatever else it has."""

    @property
    def type(self) -> str: ...
    @property
    def name(self) -> str | None: ...


def tools_of(offered: Sequence[NamedTool], raw: dict[str, Any], name_field: str) -> list[dict[str, Any]]:
    """The tools as the client wrote them in `raw`: what a schema may hold is the model's business.
    `name_field` of each is where its name stands."""
    for n, tool in enumerate(offered):
        param = f"tools.{n}"
        if tool.type != "function":
            raise Unsupported(f"{param}: only tools of the type function are known", param=param)
        if tool.name is None:
            raise InvalidRequest(f"{param}.{name_field} is missing", param=f"{param}.{name_field}")
    tools = cast("list[dict[str, Any]]", raw.get("tools") or [])
    check_plain(tools, "tools")
    return tools


def tool_choice_of(
    choice: str | NamedTool | None, offered: Sequence[NamedTool]
) -> str | dict[str, Any] | None:
    """`none`, `auto`, `required` or one named function, as chat writes it; None without tools."""
    names = {tool.name for tool in offered}
    if choice is not None and not isinstance(choice, str):
        if choice.type != "function":
            raise Unsupported("tool_choice: only a function can be chosen", param="tool_choice")
        if choice.name is None or choice.name not in names:
            raise _bad_choice("names a tool that is not in tools")
        return {"type": "function", "function": {"name": choice.name}}
    if choice not in (None, "none", "auto", "required"):
        raise _bad_choice("should be none, auto, required or a function")
    if choice == "required" and not names:
        raise _bad_choice("is required but there are no tools")
    return choice if names else None


def _bad_choice(why: str) -> InvalidRequest:
    return InvalidRequest(f"tool_choice {why}", param="tool_choice")
