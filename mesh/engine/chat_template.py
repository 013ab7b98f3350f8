"""A conversation to prompt pieces in which what users wrote can never act as a control token. Pure.

A chat template writes control tokens (`<|im_end|>`) as text, so a user who types one would end
their own turn. The template is rendered twice: with the real contents, and with a random mark in
place of each. If both renderings show the same control tokens, none came from a user and the whole
prompt is tokenised as the model was trained. If not, the marks say where the contents stand, and
those pieces are tokenised as plain text. A template that moves or alters contents so that the marks
do not tell is rendered from contents in which every control token is broken by a space.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from monai_node.registry.errors import InvalidRequest

Render = Callable[[list[dict[str, Any]]], str]
_BREAKS_MAX = 8
_MARKS_TRIED_MAX = 64


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of the prompt; control tokens are recognised in it only when `is_template`."""

    text: str
    is_template: bool


class ControlTokens:
    """The control tokens of one vocabulary, as texts."""

    def __init__(self, texts: Sequence[str]) -> None:
        longest_first = sorted({text for text in texts if text}, key=lambda text: (-len(text), text))
        pattern = "|".join(map(re.escape, longest_first)) or r"(?!)"
        self._pattern = re.compile(pattern)
        self._any_case = re.compile(pattern, re.IGNORECASE)  # a template may change the case

    def found_in(self, text: str) -> list[str]:
        return self._pattern.findall(text)

    def broken(self, text: str) -> str:
        """The text with a space after the first character of every control token in it."""
        return self._any_case.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)


def pieces_of(render: Render, messages: list[dict[str, Any]], controls: ControlTokens) -> list[Piece]:
    """The prompt in order; InvalidRequest when the contents keep forming control tokens."""
    real = render(messages)
    # A message without words stays one: templates look whether a call is all that it holds.
    marks = [_mark(controls) if message["content"] else "" for message in messages]
    marked = render([{**m, "content": mark} for m, mark in zip(messages, marks, strict=True)])
    due = controls.found_in(marked)
    if controls.found_in(real) == due:
        return [Piece(real, is_template=True)]
    contents = [str(message["content"]) for message in messages]
    pieces = _split(marked, marks, contents)
    if pieces is not None and _same_words("".join(piece.text for piece in pieces), real):
        return pieces
    for _ in range(_BREAKS_MAX):
        contents = [controls.broken(content) for content in contents]
        real = render([{**m, "content": c} for m, c in zip(messages, contents, strict=True)])
        if controls.found_in(real) == due:
            return [Piece(real, is_template=True)]
    raise InvalidRequest("the messages contain control tokens of the model that cannot be removed")


def _mark(controls: ControlTokens) -> str:
    """Random, so that no user can write it, and without a control token of its own, if there is such a
    mark: one that held a token would count as the template's."""
    marks = (f"mark{secrets.token_hex(12)}" for _ in range(_MARKS_TRIED_MAX))
    return next((mark for mark in marks if controls.broken(mark) == mark), f"mark{secrets.token_hex(12)}")


def _split(marked: str, marks: list[str], contents: list[str]) -> list[Piece] | None:
    """Template and contents in turn; None unless every mark stands there once and in order."""
    pieces: list[Piece] = []
    rest = marked
    for mark, content in zip(marks, contents, strict=True):
        if not mark:
            continue
        before, found, rest = rest.partition(mark)
        if not found or mark in rest:
            return None
        pieces += [Piece(before, is_template=True), Piece(content, is_template=False)]
    pieces.append(Piece(rest, is_template=True))
    return [piece for piece in pieces if piece.text]


def _same_words(one: str, other: str) -> bool:
    """Equal but for white space, which templates trim from contents."""
    return one.split() == other.split() or "".join(one.split()) == "".join(other.split())
