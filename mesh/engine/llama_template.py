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
from typing import Any

from monai_node.mesh.engine.chat_template import ControlTokens, Piece, pieces_of
from monai_node.mesh.engine.llama_binding import Model
from monai_node.mesh.engine.prompt import plain_turns
from monai_node.registry.errors import MonaiError, TaskFailed
from monai_node.registry.wire import ChatMessage

FOREIGN_SECONDS = 2.0  # for template and schema: code of others in a sandbox that bounds no time


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
        if model.chat_template:
            eos, bos = vocabulary.text_of(vocabulary.eos), vocabulary.text_of(vocabulary.bos)
            self._formatter = Jinja2ChatFormatter(model.chat_template, eos, bos)

    def pieces(self, messages: list[ChatMessage], tools: list[dict[str, Any]]) -> list[Piece]:
        """The prompt up to where the model begins to write."""
        if self._formatter is None:
            text = "\n\n".join(message.content for message in messages)
            return [Piece(text, is_template=False)]
        try:
            return self._pieces(messages, tools)
        except MonaiError:
            raise
        except Exception:  # whatever the template raises: many know only users and assistants
            return self._retry(plain_turns(messages), tools)

    def _retry(self, messages: list[ChatMessage], tools: list[dict[str, Any]]) -> list[Piece]:
        try:
            return self._pieces(messages, tools)
        except MonaiError:
            raise
        except Exception as error:  # as above, and now nothing simpler is left to try
            raise TaskFailed(
                f"the model's chat template cannot show this conversation ({type(error).__name__})"
            ) from None

    def _pieces(self, messages: list[ChatMessage], tools: list[dict[str, Any]]) -> list[Piece]:
        formatter = self._formatter
        assert formatter is not None

        def render(turns: list[dict[str, Any]]) -> str:
            arguments: Any = {"messages": turns, "tools": tools or None}
            return formatter(**arguments).prompt

        with time_limit("the model's chat template"):
            return pieces_of(render, [_as_template_sees(m) for m in messages], self._controls)


def _as_template_sees(message: ChatMessage) -> dict[str, Any]:
    role = "system" if message.role == "developer" else message.role
    return {**message.extra, "role": role, "content": message.content}
