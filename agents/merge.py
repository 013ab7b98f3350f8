"""Assemble the answer from the results of tasks, in plan order, as they come.

Results are data: they are shown, cleaned, and nothing in them changes what is shown of the others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from monai_node.agents.plan import Plan
from monai_node.registry.wire import TokenLogprob

_GAP = "\n\n"
_SENTENCE_CHARS_MAX = 300
# An escape sequence that goes on for longer is no terminal's; its text is shown as text.
_ESCAPE_CHARS_MAX = 256

# A string ends where the next one begins. Searching on for its end from each of a million openers in a
# row would take hours.
_STRING_OPENERS = r"\x9d\x90\x98\x9e\x9f"
# ECMA-48: CSI (colours, cursor); OSC, DCS, SOS, PM, APC (titles, links, payloads); two-character escapes.
_ESCAPE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    rf"|(?:\x1b[\]PX^_]|[{_STRING_OPENERS}])[^\x07\x1b\x9c{_STRING_OPENERS}]*(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*[0-Z\\`-~]"
)
_UNFINISHED_ESCAPE = re.compile(
    r"(?:\x1b|(?:\x1b\[|\x9b)[0-?]*[ -/]*"
    rf"|(?:\x1b[\]PX^_]|[{_STRING_OPENERS}])[^\x07\x1b\x9c{_STRING_OPENERS}]*\x1b?"
    r"|\x1b[ -/]+)\Z"
)
# Unicode's Bidi_Control property: marks, embeddings, overrides, isolates. They can make text read as
# something else than it is (CVE-2021-42574).
_BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_CONTROLS_AND_SURROGATES = (*range(0x20), *range(0x7F, 0xA0), *range(0xD800, 0xE000))
_UNFIT: dict[int, None] = {
    code: None for code in (*_CONTROLS_AND_SURROGATES, *map(ord, _BIDI)) if chr(code) not in "\n\t"
}
_FENCE = re.compile(r"^[ ]{0,3}(`{3,}|~{3,})([^\n]*)$", re.M)


class DisplayText:
    """Makes streamed text fit to show: no terminal escapes, control, bidi or surrogate characters.

    Newlines and tabs stay. What may be the beginning of an escape sequence is held back until it is
    whole, so that no sequence survives by arriving in pieces.
    """

    def __init__(self) -> None:
        self._held = ""

    def feed(self, text: str) -> str:
        text = self._held + text
        found = _UNFINISHED_ESCAPE.search(text, max(0, len(text) - _ESCAPE_CHARS_MAX))
        self._held = text[found.start() :] if found else ""
        return _clean(text[: found.start()] if found else text)

    def finish(self) -> str:
        text, self._held = self._held, ""
        return _clean(text)


def display(text: str) -> str:
    """A whole text made fit to show; see `DisplayText`."""
    return _clean(text)


def _clean(text: str) -> str:
    return _ESCAPE.sub("", text).translate(_UNFIT)


class Piece(NamedTuple):
    """Text that the answer grows by: of one task's part, or "" for the gap between two; `logprobs` of its
    tokens where they are told."""

    task: str
    text: str
    logprobs: Sequence[TokenLogprob] = ()


@dataclass(slots=True)
class _PartText:
    """One part of the answer: what may still be shown of it, and what was."""

    cleaner: DisplayText
    ready: str = ""
    logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])  # of what is not shown yet
    shown: str = ""
    is_over: bool = False


class Assembler:
    """Says which text may be shown when; the pieces it returns, joined, are the answer.

    The parts are the plan's `shown` tasks, in plan order, separated by a blank line. The first part that
    is not over streams live; what comes for later ones waits. A failed part is one sentence in
    brackets in its place, after what was shown of it. A part that has no text leaves no gap, and a code
    block that a part leaves open is closed. A plan that shows one task changes nothing but unfit characters.

    Whatever comes for a task that is over, or is not shown, is dropped. KeyError for a task that is not
    in the plan.
    """

    def __init__(self, plan: Plan) -> None:
        self._parts = {name: _PartText(DisplayText()) for name in plan.shown}
        self._order = [task.id for task in plan.graph.tasks if task.id in self._parts]
        self._hidden = {task.id for task in plan.graph.tasks} - set(self._parts)
        self._is_single = len(self._order) == 1
        self._live = 0  # place of the first part that is not over
        self._has_text = False

    @property
    def is_complete(self) -> bool:
        return self._live == len(self._order)

    def delta(self, task: str, text: str, logprobs: Sequence[TokenLogprob] = ()) -> list[Piece]:
        """What to show now that a task's result grew by `text`."""
        part = self._open(task)
        if part is None:
            return []
        part.ready += part.cleaner.feed(text)
        part.logprobs += logprobs
        return self._show()

    def completed(self, task: str) -> list[Piece]:
        """What to show now that a task's result is whole."""
        part = self._open(task)
        if part is None:
            return []
        part.ready += part.cleaner.finish()
        part.is_over = True
        return self._show()

    def failed(self, task: str, sentence: str) -> list[Piece]:
        """What to show now that a task failed; `sentence` says so to a person."""
        part = self._open(task)
        if part is None:
            return []
        part.ready += part.cleaner.finish()
        part.ready = _with_closed_fence(part.shown, part.ready.rstrip())
        gap = _GAP if (part.shown + part.ready).strip() else ""
        said = " ".join(display(sentence).split())[:_SENTENCE_CHARS_MAX]
        part.ready += f"{gap}[{said}]"
        part.is_over = True
        return self._show()

    def _open(self, task: str) -> _PartText | None:
        if task in self._hidden:
            return None
        part = self._parts[task]
        return None if part.is_over else part

    def _show(self) -> list[Piece]:
        now: list[Piece] = []
        while self._live < len(self._order):
            task = self._order[self._live]
            now += self._take(task)
            if not self._parts[task].is_over:
                break
            self._live += 1
        return now

    def _take(self, task: str) -> Iterator[Piece]:
        part = self._parts[task]
        if self._is_single:
            text, part.ready = part.ready, ""
        else:
            text = _take_trimmed(part)
        if text and not part.shown:
            if self._has_text:
                yield Piece("", _GAP)
            self._has_text = True
        part.shown += text
        logprobs, part.logprobs = part.logprobs, []
        if text or logprobs:
            yield Piece(task, text, logprobs)


def _take_trimmed(part: _PartText) -> str:
    """The part's text without the space around it, which waits until it is known to be inside."""
    text = part.ready if part.shown else part.ready.lstrip("\n\t ")
    kept = text.rstrip()
    part.ready = "" if part.is_over else text[len(kept) :]
    return _with_closed_fence(part.shown, kept) if part.is_over else kept


def _with_closed_fence(shown: str, text: str) -> str:
    """`text`, which goes on after `shown`, with the code block closed that the two may leave open."""
    mark = ""
    for fence, info in _FENCE.findall(shown + text):
        if not mark:
            mark = "" if "`" in info else fence
        elif fence.startswith(mark) and not info.strip():
            mark = ""
    return f"{text}\n{mark}" if mark else text
