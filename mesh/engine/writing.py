"""A result while a model writes it: which of its text may be shown, what was called, what is told of its
tokens. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from monai_node.mesh.engine.text_stream import TextStream
from monai_node.mesh.engine.tool_calls import CallReader
from monai_node.mesh.engine.tools import ToolUse

Told = dict[str, Any]  # a `wire.TokenLogprob`, in plain data


class Writing:
    """Takes tokens and gives back events `{text, logprobs}`. What is told of a token comes with its text, and
    is dropped with it."""

    def __init__(self, stops: Sequence[str] = (), use: ToolUse | None = None) -> None:
        is_free = use is None or use.choice == "auto"
        self._stream = TextStream(stops if is_free else ())
        self._reader = CallReader(use) if use is not None else None
        self._told: list[tuple[int, int, Told]] = []  # start and end of its text, in characters
        self._ready: list[Told] = []

    @property
    def is_over(self) -> bool:
        """Whether nothing that follows would be shown."""
        return self._stream.is_stopped or (self._reader is not None and self._reader.is_over)

    @property
    def calls(self) -> list[dict[str, Any]]:
        return self._reader.calls if self._reader is not None else []

    def take(self, piece: bytes, told: Told | None = None) -> dict[str, Any] | None:
        """The next token's bytes, and what is told of it: the event that became certain, if any."""
        start = self._stream.read_chars
        text = self._stream.feed(piece)
        if told is not None:
            end = self._stream.read_chars + (0 if self._stream.is_whole else 1)
            self._told.append((start, end, told))
        return self._event(self._reader.feed(text) if self._reader is not None else text)

    def finish(self) -> dict[str, Any] | None:
        """What was held back for nothing."""
        text = self._stream.finish()
        if self._reader is not None:
            text = self._reader.feed(text) + self._reader.finish()
        shown = self._stream.shown_chars
        is_stopped = self._stream.is_stopped
        self._ready += [told for start, _, told in self._told if start < shown or not is_stopped]
        self._told = []
        if not text and (self.calls or not self._ready):
            return None
        return self._event(text, is_last=True)

    def _event(self, text: str, *, is_last: bool = False) -> dict[str, Any] | None:
        while self._told and self._told[0][1] <= self._stream.shown_chars:
            self._ready.append(self._told.pop(0)[2])
        if not text and not is_last:
            return None
        ready, self._ready = self._ready, []
        return {"text": text, "logprobs": ready} if ready else {"text": text}
