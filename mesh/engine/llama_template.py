"""A model's chat template, rendered within bounds: in the child, in a sandbox, against the clock.

The template comes with the file and is its owner's risk, but the messages are anybody's. The
sandbox keeps a template from Python's objects; it bounds neither time nor memory, so the clock is
here and the memory limit is the process's own.
"""

from __future__ import annotations

import signal
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Literal, cast

from monai_node.mesh.engine.chat_template import ControlTokens, Piece, pieces_of
from monai_node.mesh.engine.llama_binding import Model
from monai_node.mesh.engine.prompt import plain_turns
from monai_node.mesh.engine.tools import ToolUse, calls_of, in_words
from monai_node.registry.errors import MonaiError, TaskFailed, Unsupported
from monai_node.registry.wire import ChatMessage

# How a template wants a call of an earlier turn: its arguments as an object (most) or as JSON in a string,
# or not at all: then tools are described in words.
CallForm = Literal["objects", "strings", "words"]
_Way = tuple[list[dict[str, Any]], list[dict[str, Any]]]  # turns and tools

FOREIGN_SECONDS = 2.0  # for template and schema: code of others in a sandbox that bounds no time

# A conversation with a call and its result; the id has the only form that Mistral's templates take.
_PROBE_MARKS = ("probe_purpose", "probe_value", "probe_result")
_PROBE_TOOL = {
    "type": "function",
    "function": {
        "name": "probe",
        "description": "probe_purpose",
        "parameters": {"type": "object", "properties": {"key": {"type": "string"}}},
    },
}
_PROBE_CALL = {
    "id": "probe0001",
    "type": "function",
    "function": {"name": "probe", "arguments": '{"key": "probe_value"}'},
}
_PROBE = (
    ChatMessage(role="user", content="probe_question"),
    ChatMessage(role="assistant", content="", extra={"tool_calls": [_PROBE_CALL]}),
    ChatMessage(role="tool", content="probe_result", extra={"tool_call_id": "probe0001", "name": "probe"}),
)


@contextmanager
def time_limit(what: str) -> Generator[None, None, None]:
    """TaskFailed when the body computes longer than template or schema may. Main thread only."""

    def expire(number: int, frame: FrameType | None) -> None:
        raise TaskFailed(f"{what} took longer than {FOREIGN_SECONDS:g} s")

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, FOREIGN_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Template:
    """The model's chat template, rendered in llama-cpp-python's sandbox."""

    def __init__(self, model: Model) -> None:
        from llama_cpp.llama_chat_format import Jinja2ChatFormatter

        vocabulary = model.vocabulary
        self._controls = ControlTokens(vocabulary.control_texts())
        self._formatter: Jinja2ChatFormatter | None = None
        self._call_form: CallForm | None = None  # None until somebody asked
        if model.chat_template:
            eos, bos = vocabulary.text_of(vocabulary.eos), vocabulary.text_of(vocabulary.bos)
            self._formatter = Jinja2ChatFormatter(model.chat_template, eos, bos)

    def pieces(self, messages: list[ChatMessage], use: ToolUse | None = None) -> list[Piece]:
        """The prompt up to where the model begins to write; `use` says which functions it may call."""
        if self._formatter is None:
            if use is not None:
                raise Unsupported("this model only continues text: it calls no tools", param="tools")
            text = "\n\n".join(message.content for message in messages)
            return [Piece(text, is_template=False)]
        error: Exception | None = None
        for turns, offered in self._ways(messages, use):
            try:
                return self._pieces(turns, offered)
            except MonaiError:
                raise
            except Exception as raised:  # whatever the template raises: the next form is simpler
                error = raised
        raise TaskFailed(
            f"the model's chat template cannot show this conversation ({type(error).__name__})"
        ) from None

    def _ways(self, messages: list[ChatMessage], use: ToolUse | None) -> list[_Way]:
        """The conversation in the forms in which the template may know it, the best first."""
        ways: list[_Way] = []
        has_tools = use is not None or any(message.is_tool_turn for message in messages)
        form = self._form_of_calls() if has_tools else "objects"
        if form != "words":
            offered = [tool.described for tool in use.tools] if use is not None else []
            ways.append(([_as_template_sees(m, form) for m in messages], offered))
        if has_tools:
            messages = in_words(messages, use)
            ways.append(([_as_template_sees(m, form) for m in messages], []))
        # Many templates know only users and assistants, in turn.
        ways.append(([_as_template_sees(m, form) for m in plain_turns(messages)], []))
        return ways

    def _form_of_calls(self) -> CallForm:
        """How the template shows tools, a call and its result, found out by having it show some."""
        if self._call_form is None:
            self._call_form = self._probed()
        return self._call_form

    def _probed(self) -> CallForm:
        if self._shows_calls("objects"):
            return "objects"
        return "strings" if self._shows_calls("strings") else "words"

    def _shows_calls(self, form: CallForm) -> bool:
        try:
            pieces = self._pieces([_as_template_sees(message, form) for message in _PROBE], [_PROBE_TOOL])
        except MonaiError:
            raise
        except Exception:  # as above
            return False
        shown = "".join(piece.text for piece in pieces)
        return all(mark in shown for mark in _PROBE_MARKS)

    def _pieces(self, turns: list[dict[str, Any]], tools: list[dict[str, Any]]) -> list[Piece]:
        formatter = self._formatter
        assert formatter is not None
        # What is no message's content is never taken apart: no control token may stand there.
        turns = [{**_unarmed(turn, self._controls), "content": turn["content"]} for turn in turns]
        offered = _unarmed(tools, self._controls) or None

        def render(turns: list[dict[str, Any]]) -> str:
            arguments: Any = {"messages": turns, "tools": offered}
            return formatter(**arguments).prompt

        with time_limit("the model's chat template"):
            return pieces_of(render, turns, self._controls)


def _as_template_sees(message: ChatMessage, form: CallForm) -> dict[str, Any]:
    role = "system" if message.role == "developer" else message.role
    seen: dict[str, Any] = {**message.extra, "role": role, "content": message.content}
    if form == "objects" and "tool_calls" in seen:
        seen["tool_calls"] = calls_of(message)
    return seen


def _unarmed(value: Any, controls: ControlTokens) -> Any:
    """Plain data in which no text holds a control token."""
    match value:
        case str():
            return controls.broken(value)
        case dict():
            fields = cast("dict[str, Any]", value)
            return {controls.broken(key): _unarmed(each, controls) for key, each in fields.items()}
        case list():
            return [_unarmed(each, controls) for each in cast("list[Any]", value)]
        case _:
            return value
