"""How near a labeller's readings come to the gold plans.

A task is found when its own words and a gold task's have a token F1 of at least 0.6, one to one, best
pairs first; an edge when it is drawn between found tasks; a plan is exact when all of both are. Gold plans
leave out the sentences of constraints after a task, and a reading keeps them in it: so a task counts with
its first sentence alone where that is nearer. Documents and scenes are no words of a task here.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from monai_node.agents.agreement import same_tasks
from monai_node.agents.label import Reading
from monai_node.agents.lexicon import core_span
from monai_node.agents.link import Step, link
from monai_node.agents.segment import Segment, mask
from monai_node.agents.training.corpus import Gold

_DRAWS = 1000
Counts = tuple[int, int, int]  # found, predicted, gold


@dataclass(frozen=True, slots=True)
class Outline:
    """The tasks of a reading: their own words, those of the first sentence alone, the tasks they need."""

    texts: tuple[str, ...]
    heads: tuple[str, ...]
    needs: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Result:
    """The score of one request."""

    tasks: Counts
    edges: Counts
    is_exact: bool
    is_one: bool  # gold asks for at most one task
    is_whole: bool  # at most one came out


@dataclass(frozen=True, slots=True)
class Summary:
    """Micro-averaged F1 and shares, each with the ends of its 95 % bootstrap interval."""

    requests: int
    node_f1: tuple[float, float, float]
    edge_f1: tuple[float, float, float]
    exact: tuple[float, float, float]
    kept_whole: tuple[float, float, float]

    def __str__(self) -> str:
        shown = (("node F1", self.node_f1), ("edge F1", self.edge_f1), ("exact", self.exact))
        parts = [
            f"{name} {value:.3f} [{low:.3f}, {high:.3f}]"
            for name, (value, low, high) in (*shown, ("kept whole", self.kept_whole))
        ]
        return f"{self.requests} requests: " + ", ".join(parts)


def outline(text: str, segments: Sequence[Segment], reading: Reading) -> Outline:
    """The tasks that a reading makes of a request; edges that it leaves open are the linker's."""
    runs: list[list[int]] = []
    for index, label in enumerate(reading.labels):
        if label == "task":
            runs.append([index])
        elif label == "continue" and runs:
            runs[-1].append(index)
    has_document = any(piece.kind == "payload" for piece in segments)
    steps = [_step(text, [segments[at] for at in run], has_document) for run in runs]
    drawn = link([step for step, _ in steps])
    place = {run[0]: number for number, run in enumerate(runs)}
    needs: list[tuple[int, ...]] = []
    for number, run in enumerate(runs):
        said = reading.needs[run[0]] if reading.needs else None
        needs.append(drawn[number].depends_on if said is None else tuple(place[at] for at in said))
    heads = [_step(text, _sentence([segments[at] for at in run]), False)[1] for run in runs]
    return Outline(tuple(own for _, own in steps), tuple(heads), tuple(needs))


def _sentence(clauses: Sequence[Segment]) -> Sequence[Segment]:
    return [clauses[0], *takewhile(lambda clause: not clause.is_strong, clauses[1:])]


def _step(text: str, clauses: Sequence[Segment], has_document: bool) -> tuple[Step, str]:
    spans: list[tuple[int, int]] = []
    for clause in clauses:
        if spans and spans[-1][1] == clause.start:
            spans[-1] = spans[-1][0], clause.end
        else:
            spans.append((clause.start, clause.end))
    start, end = core_span(text, *spans[0])
    own = " ".join([text[start:end], *(text[slice(*span)] for span in spans[1:])])
    return Step(mask(text[start : spans[-1][1]]), text[clauses[0].start : start], has_document), own


def measure(gold: Gold, found: Outline) -> Result:
    """Compare the tasks and edges of one request with its gold plan."""
    pairs = same_tasks([task.text for task in gold.tasks], list(zip(found.texts, found.heads, strict=True)))
    gold_of = {theirs: ours for ours, theirs in pairs}
    due = {(other, index) for index, task in enumerate(gold.tasks) for other in task.depends_on}
    drawn = [(other, index) for index, needs in enumerate(found.needs) for other in needs]
    hits = sum((gold_of.get(left), gold_of.get(right)) in due for left, right in drawn)
    is_exact = len(pairs) == len(gold.tasks) == len(found.texts) and hits == len(drawn) == len(due)
    return Result(
        (len(pairs), len(found.texts), len(gold.tasks)),
        (hits, len(drawn), len(due)),
        is_exact,
        len(gold.tasks) < 2,
        len(found.texts) < 2,
    )


def summarise(results: Sequence[Result], seed: int = 1) -> Summary:
    """The figures of many requests."""
    draw = random.Random(seed)  # noqa: S311  (a bootstrap, no secret)
    samples = [draw.choices(results, k=len(results)) for _ in range(_DRAWS)]

    def spread(figure: Callable[[Sequence[Result]], float]) -> tuple[float, float, float]:
        values = sorted(figure(sample) for sample in samples)
        return figure(results), values[_DRAWS // 40], values[-1 - _DRAWS // 40]

    return Summary(
        len(results),
        spread(lambda rows: _f1([row.tasks for row in rows])),
        spread(lambda rows: _f1([row.edges for row in rows])),
        spread(lambda rows: _share([row.is_exact for row in rows])),
        spread(lambda rows: _share([row.is_whole for row in rows if row.is_one])),
    )


def _f1(counts: Sequence[Counts]) -> float:
    found = sum(count[0] for count in counts)
    total = sum(count[1] + count[2] for count in counts)
    return 2 * found / total if total else 1.0


def _share(hits: Sequence[bool]) -> float:
    return sum(hits) / len(hits) if hits else 1.0
