"""What a perfect labeller would make of the segments of a request, according to its gold plan.

Gold plans mark words, and segments are cut by code, so the two need not fit: a segment belongs to the
task with most of its words, and two tasks in one segment become one. What no gold task has is context,
except what stands behind a task in its own sentence or says how to do it ("Keep it short."): that
continues the task.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from monai_node.agents.label import Label, Reading
from monai_node.agents.lexicon import core_span, words
from monai_node.agents.segment import Segment
from monai_node.agents.training.corpus import Gold

Place = tuple[int, int]


def places(gold: Gold) -> list[list[Place]]:
    """Where the spans of each task stand in the request."""
    taken: list[Place] = []
    found: list[list[Place]] = []
    at = 0
    for task in gold.tasks:
        own: list[Place] = []
        for span in task.spans:
            start = _find(gold.text, span, at, taken)
            own.append((start, start + len(span)))
            taken.append(own[-1])
        at = own[0][1]
        found.append(own)
    return found


def _find(text: str, span: str, at: int, taken: Sequence[Place]) -> int:
    """The first place from `at` on that is nobody's and stands on word boundaries; else the first."""
    starts = [found.start() for found in re.finditer(re.escape(span), text)]

    def is_worse(start: int) -> tuple[bool, bool, bool]:
        end = start + len(span)
        is_taken = any(start < right and left < end for left, right in taken)
        is_inside = text[max(0, start - 1) : start].isalnum() or text[end : end + 1].isalnum()
        return is_taken, is_inside, start < at

    return min(starts, key=is_worse)


def owners(gold: Gold, segments: Sequence[Segment]) -> list[int | None]:
    """The gold task of each segment, None for what is no task's."""
    placed = places(gold)
    found: list[int | None] = []
    for piece in segments:
        if piece.kind == "payload":
            found.append(None)
            continue
        start, end = core_span(gold.text, piece.start, piece.end)
        own = len(words(gold.text[start:end]))
        shares = [
            sum(
                len(words(gold.text[max(left, start) : min(right, end)]))
                for left, right in spans
                if left < end and start < right
            )
            for spans in placed
        ]
        best = max(range(len(shares)), key=lambda task: shares[task], default=None)
        total = len(words(gold.tasks[best].text)) if best is not None else 0
        has_most = best is not None and shares[best] > 0 and (2 * shares[best] >= min(own, total))
        found.append(best if has_most else None)
    return found


def align(gold: Gold, segments: Sequence[Segment], rules: Sequence[Label]) -> Reading:
    """The reading of the gold plan. `rules` are the labels of the rules: they say what a segment outside
    every task is."""
    mine = owners(gold, segments)
    labels: list[Label] = []
    opening: dict[int, int] = {}  # task → its first segment
    current: int | None = None
    for index, owner in enumerate(mine):
        if owner is None:
            is_manner = current is not None and rules[index] != "context"
            labels.append("continue" if is_manner else "context")
        elif owner not in opening:
            opening[owner] = index
            labels.append("task")
            current = owner
        else:
            labels.append("continue" if owner == current else "context")
    return Reading(tuple(labels), _needs(gold, segments, mine, opening))


def _needs(
    gold: Gold, segments: Sequence[Segment], mine: Sequence[int | None], opening: dict[int, int]
) -> tuple[tuple[int, ...] | None, ...]:
    home = _homes(gold, segments, mine, opening)
    needs: list[tuple[int, ...] | None] = [None] * len(segments)
    for start in opening.values():
        needs[start] = ()
    for task, found in enumerate(gold.tasks):
        start = home[task]
        if start is not None:
            wanted = {home[other] for other in found.depends_on} - {None, start}
            needs[start] = tuple(sorted({*(needs[start] or ()), *(at for at in wanted if at is not None)}))
    return tuple(needs)


def _homes(
    gold: Gold, segments: Sequence[Segment], mine: Sequence[int | None], opening: dict[int, int]
) -> list[int | None]:
    """The segment at which each gold task, or the task that it was joined to, starts."""
    homes: list[int | None] = []
    for task, spans in enumerate(places(gold)):
        at = next((index for index, piece in enumerate(segments) if piece.end > spans[0][0]), None)
        owner = mine[at] if at is not None else None
        homes.append(opening.get(task, opening.get(owner) if owner is not None else None))
    return homes
