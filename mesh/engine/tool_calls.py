"""Calls of functions in what a model writes, found while it is written. Pure."""

from __future__ import annotations

import json
import re
import secrets
from typing import Any, cast

from monai_node.agents.formats import fits
from monai_node.mesh.engine.tools import CALL_CLOSES, CALL_OPENS, Tool, ToolUse, function_of, parsed

# With these a bare object or list may begin that is a call; with any other key it is a text like any other.
_KEYS = frozenset({"name", "arguments", "parameters", "function", "type", "id"})
_FIRST_KEY = re.compile(r'[\[{][\[{\s]{0,16}"([^"]{0,16})"')
_NO_KEY_YET = re.compile(r'[\[{][\[{\s]{0,16}("[^"]{0,16})?\Z')


class CallReader:
    """Takes the text of an answer as it comes, and gives back what is certain to be no call.

    A call is `<tool_call>{…}</tool_call>` anywhere, or an answer that is nothing but a JSON object, or a
    list of them, with the name of a function and arguments that fit its schema. What looked like one and is
    none is text. Where a call must come, all is held back until the end.
    """

    def __init__(self, use: ToolUse) -> None:
        self._tools = {tool.name: tool for tool in use.tools}
        self._use = use
        self._held = ""
        self._is_blank = True  # since the start, or the last call, there was no text
        self._is_bare = False  # from here to the end, it may be a call without marks
        self.calls: list[dict[str, Any]] = []

    @property
    def is_over(self) -> bool:
        """The one call that is wanted was made: nothing more need be written."""
        return bool(self.calls) and not self._use.is_parallel

    def feed(self, text: str) -> str:
        """The text that became certain with this."""
        self._held += text
        if self._use.choice != "auto" or self._is_bare:
            return ""
        shown = ""
        while not self.is_over:
            if self._is_blank and self._waits():
                return shown
            start = self._held.find(CALL_OPENS)
            if start < 0:
                return shown + self._show(len(self._held) - self._doubtful())
            if self._held[:start].strip() or not self._is_blank:
                shown += self._show(start)
            end = self._held.find(CALL_CLOSES)
            if end < 0:
                return shown
            shown += self._close(end)
        return shown

    def finish(self) -> str:
        """What was held back and is no call. A mark that was not closed counts as closed."""
        if self.is_over:
            return ""
        if self._use.choice == "named":
            called = self._called(self._use.tools[0].name, self._held)
        else:
            called = self._calls_in(self._held.strip().removeprefix(CALL_OPENS))
        self._take(called)
        return "" if called or (self.calls and not self._held.strip()) else self._show(len(self._held))

    def _waits(self) -> bool:
        """Whether all that is held may begin a call; the white space before one goes with it."""
        text = self._held.lstrip()
        found = _FIRST_KEY.match(text)
        self._is_bare = found is not None and found[1] in _KEYS and not self.calls
        return self._is_bare or not text or CALL_OPENS.startswith(text) or bool(_NO_KEY_YET.match(text))

    def _close(self, end: int) -> str:
        called = self._calls_in(self._held[:end].lstrip().removeprefix(CALL_OPENS))
        self._take(called)
        if not called:
            return self._show(end + len(CALL_CLOSES))
        self._held, self._is_blank = self._held[end + len(CALL_CLOSES) :], True
        return ""

    def _show(self, count: int) -> str:
        text, self._held = self._held[:count], self._held[count:]
        self._is_blank = self._is_blank and not text
        return text

    def _doubtful(self) -> int:
        """The length of the longest end of what is held that begins a mark."""
        lengths = range(min(len(CALL_OPENS) - 1, len(self._held)), 0, -1)
        return next((length for length in lengths if self._held.endswith(CALL_OPENS[:length])), 0)

    # --- reading ------------------------------------------------------------------------------------
    def _take(self, called: list[dict[str, Any]]) -> None:
        self.calls += called if self._use.is_parallel else called[:1]

    def _calls_in(self, text: str) -> list[dict[str, Any]]:
        """The calls that a text is; empty unless it is nothing else."""
        try:
            value: object = json.loads(text)
        except (ValueError, RecursionError):
            return []
        objects = cast("list[object]", value) if isinstance(value, list) else [value]
        found = [self._call_in(each) for each in objects]
        return [call for each in found for call in each] if all(found) else []

    def _call_in(self, value: object) -> list[dict[str, Any]]:
        if not isinstance(value, dict):
            return []
        function = function_of(cast("dict[str, Any]", value))
        name = function.get("name")
        arguments = function.get("arguments", function.get("parameters", {}))
        return self._called(name, arguments) if isinstance(name, str) else []

    def _called(self, name: str, arguments: object) -> list[dict[str, Any]]:
        tool, value = self._tools.get(name), parsed(arguments)
        if tool is None or not _is_fit(value, tool):
            return []
        function = {"name": name, "arguments": json.dumps(value, ensure_ascii=False)}
        return [{"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}]


def _is_fit(arguments: object, tool: Tool) -> bool:
    return isinstance(arguments, dict) and fits(cast("object", arguments), dict(tool.parameters))
