"""From scores to a reading that makes sense, whatever the scores are.

A payload is context, nothing is continued before a task has started, and what needs what makes no
circle. Arrays are numpy float32: label logits [segments, 3] in the order of `LABELS`, edge logits
[tasks, tasks], row needs column.
"""

from __future__ import annotations

from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter

import numpy as np
from numpy.typing import NDArray

from monai_node.agents.label import Label, Reading
from monai_node.agents.labellers.features import LABELS
from monai_node.agents.lexicon import core_span
from monai_node.agents.link import Link, Step, link
from monai_node.agents.segment import Segment, mask

Scores = NDArray[np.float32]

# In logits, all chosen on the validation half of the corpus. How much better than any other label "task"
# must be, for one further task at least and for all of them.
DIVIDING = 2.0
RELUCTANCE = 1.0
# An edge is drawn from here on: one too many costs time, one too few loses data.
DRAWN = -1.5
# What comes through another task already is needed directly too only from here on: in gold plans it is so
# in 39 of 492 cases.
DIRECT = 1.0


def divided(segments: Sequence[Segment], logits: Scores) -> tuple[Label, ...]:
    """The labels of a request: several tasks only if one beside the first is sure by DIVIDING, and then
    all that are by RELUCTANCE; so requests for one thing stay whole, and the others lose no task."""
    labels = labels_of(segments, logits, DIVIDING)
    return labels if len(openings(labels)) < 2 else labels_of(segments, logits, RELUCTANCE)


def labels_of(segments: Sequence[Segment], logits: Scores, reluctance: float) -> tuple[Label, ...]:
    """The best label of each segment that may have it. A task beside the first must be `reluctance`
    better (in logits) than the next best label."""
    found: list[Label] = []
    spoken = [at for at, piece in enumerate(segments) if piece.kind != "payload"]
    first = max(spoken, key=lambda at: float(logits[at, LABELS.index("task")]), default=-1)
    has_task = False
    for at, piece in enumerate(segments):
        scores = dict(zip(LABELS, (float(score) for score in logits[at]), strict=True))
        if at != first:
            scores["task"] -= reluctance
        if piece.kind == "payload":
            found.append("context")
            continue
        if not has_task:
            del scores["continue"]
        found.append(max(scores, key=lambda label: scores[label]))
        has_task = has_task or found[-1] == "task"
    return tuple(found)


def openings(labels: Sequence[Label]) -> list[int]:
    return [at for at, label in enumerate(labels) if label == "task"]


def steps_of(segments: Sequence[Segment], labels: Sequence[Label]) -> list[Step]:
    """What the linker of the rules sees of each task."""
    runs: list[list[Segment]] = []
    for piece, label in zip(segments, labels, strict=True):
        if label == "task":
            runs.append([piece])
        elif label == "continue" and runs:
            runs[-1].append(piece)
    has_document = any(piece.kind == "payload" for piece in segments)
    return [_step(run, has_document) for run in runs]


def _step(clauses: Sequence[Segment], has_document: bool) -> Step:
    text = "".join(clause.text for clause in clauses)
    start, end = core_span(text, 0, len(text))
    return Step(mask(text[start:end]), text[:start], has_document)


def rule_links(segments: Sequence[Segment], labels: Sequence[Label]) -> list[Link]:
    """The dependencies that the rules draw between the tasks: indices of tasks."""
    return link(steps_of(segments, labels))


def reading(labels: Sequence[Label], edges: Scores) -> Reading:
    """The reading whose tasks need what scores above DRAWN, without the weakest edge of each circle, and
    without what is needed through another task already."""
    starts = openings(labels)
    needs: dict[int, set[int]] = {task: set() for task in range(len(starts))}
    for _, task, other in sorted(_drawn(edges, len(starts)), reverse=True):
        needs[task].add(other)
        if _has_circle(needs):
            needs[task].remove(other)
    said: list[tuple[int, ...] | None] = [None] * len(labels)
    for task, start in enumerate(starts):
        passed_on = {far for near in needs[task] for far in needs[near] if edges[task, far] < DIRECT}
        said[start] = tuple(sorted(starts[other] for other in needs[task] - passed_on))
    return Reading(tuple(labels), tuple(said))


def _drawn(edges: Scores, count: int) -> list[tuple[float, int, int]]:
    return [
        (float(edges[task, other]), task, other)
        for task in range(count)
        for other in range(count)
        if task != other and edges[task, other] > DRAWN
    ]


def checked(segments: Sequence[Segment], found: Reading) -> Reading:
    """The reading, when it is one of these segments; ValueError otherwise."""
    starts = set(openings(found.labels))
    needs = found.needs or (None,) * len(found.labels)
    is_sound = (
        len(found.labels) == len(segments)
        and all(
            label == "context"
            for piece, label in zip(segments, found.labels, strict=True)
            if piece.kind == "payload"
        )
        and all(said is None or (at in starts and starts.issuperset(said)) for at, said in enumerate(needs))
        and not _has_circle({at: set(said or ()) for at, said in enumerate(needs)})
    )
    if not is_sound:
        raise ValueError("no reading of these segments")
    return found


def _has_circle(needs: dict[int, set[int]]) -> bool:
    try:
        TopologicalSorter(needs).prepare()
    except CycleError:
        return True
    return False
