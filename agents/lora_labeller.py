"""Label segments with a language model that reads them once: no grammar, no text written.

The prompt lists the segments under letters and repeats the letters behind the list. At each repeated
letter the model has seen the whole request; what it would write there is read out: one of three words
for the label, and for the tasks that this one needs their letters, each against one word for "none".
An adapter teaches it to (agents/training/lora.py); without the adapter the readings mean nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monai_node.agents.label import Label, Reading
from monai_node.agents.segment import MASK, Segment

LABELS: tuple[Label, ...] = ("task", "continue", "context")
LETTERS = tuple(f" {letter}" for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
# What the logits are read for, in this order; each is one token of the base's vocabulary.
ANSWERS = (" task", " more", " none", " alone", *LETTERS)
_LABEL_COUNT = len(LABELS)
_ALONE = _LABEL_COUNT
_FIRST_LETTER = _ALONE + 1

# Segments are clauses: 99 % of the corpus's have 13 words or fewer. Of a longer one the head says what it is.
_HEAD_WORDS = 14
_TAIL_WORDS = 4
_WORD_CHARS = 40
_HIDDEN = '"..."'
_MASKED_RUN = re.compile(f"{MASK}+")

# Logits for ANSWERS at every repeated letter: [segments, answers].
Scores = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Prompt:
    """`pieces` are tokenised one by one, without control tokens, behind <|im_start|>; then comes
    <|im_end|> and `letters`, one token each, at which ANSWERS are scored."""

    pieces: tuple[str, ...]
    letters: tuple[str, ...]


def prompt_of(segments: Sequence[Segment]) -> Prompt | None:
    """The prompt for a request, or None for one with more segments than there are letters.

    Of payloads, quotes and code it holds a placeholder only.
    """
    if not 0 < len(segments) <= len(LETTERS):
        return None
    pieces = ["plan"]
    for letter, piece in zip(LETTERS, segments, strict=False):
        pieces += ["\n\n" if piece.boundary == "line" else "\n", letter, _shown(piece)]
    return Prompt(tuple(pieces), LETTERS[: len(segments)])


def _shown(piece: Segment) -> str:
    if piece.kind == "payload":
        return " [document]"
    said = [word[:_WORD_CHARS] for word in _MASKED_RUN.sub(_HIDDEN, piece.masked).split()]
    if len(said) > _HEAD_WORDS + _TAIL_WORDS:
        said = [*said[:_HEAD_WORDS], "...", *said[-_TAIL_WORDS:]]
    return " " + " ".join(said)


def reading_of(scores: Scores, segments: Sequence[Segment]) -> Reading:
    """The reading that the scores speak for. A payload is context, nothing continues before a task, and
    of needs in a circle the least certain is dropped."""
    labels: list[Label] = []
    for row, piece in zip(scores, segments, strict=True):
        label = LABELS[int(row[:_LABEL_COUNT].argmax())]
        if piece.kind == "payload" or (label == "continue" and "task" not in labels):
            label = "context"
        labels.append(label)
    starts = [index for index, label in enumerate(labels) if label == "task"]
    return Reading(tuple(labels), _needs(scores, starts))


def _needs(scores: Scores, starts: Sequence[int]) -> tuple[tuple[int, ...] | None, ...]:
    margins = scores[:, _FIRST_LETTER:] - scores[:, _ALONE : _ALONE + 1]
    wanted = [
        (float(margins[task, other]), task, other)
        for task in starts
        for other in starts
        if task != other and margins[task, other] > 0
    ]
    needs: dict[int, set[int]] = {task: set() for task in starts}
    for _, task, other in sorted(wanted, reverse=True):
        if not _reaches(needs, other, task):
            needs[task].add(other)
    return tuple(tuple(sorted(needs[at])) if at in needs else None for at in range(len(scores)))


def _reaches(needs: dict[int, set[int]], task: int, goal: int) -> bool:
    return task == goal or any(_reaches(needs, other, goal) for other in needs[task])
