"""The exam that a model takes before it plans for others. Pure.

A model plans only where it was measured to plan better than the labeller that every gateway has, and
quickly enough. Both are given the same requests, whose right plans are known; a plan that the model does
not deliver counts as the labeller's, because that is what a user would get.
"""

from __future__ import annotations

import hashlib
import statistics
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from monai_node.agents.agreement import same_tasks
from monai_node.agents.plan import Draft, Plan, begin
from monai_node.agents.request import RunRequest
from monai_node.registry.ids import RunId
from monai_node.registry.wire import ChatMessage

# Half of the ten seconds after which a waiting person turns away (agents.writer), so that the other half
# is left for the first words of an answer.
PLANNING_MEDIAN_SECONDS_MAX = 5.0
# How much better a model must be: about one of the exam's sixteen requests, because luck is worth as much.
MARGIN = 0.06
_FILE = Path(__file__).with_name("exam.toml")

Index = Annotated[int, Field(ge=0)]


class GoldTask(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    spans: tuple[str, ...] = Field(min_length=1)
    needs: tuple[Index, ...]


class Question(BaseModel):
    """A request and the tasks that should come of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: str
    tasks: tuple[GoldTask, ...] = Field(min_length=1)


@cache
def questions() -> tuple[Question, ...]:
    """The exam. Reads a file of this package, once."""
    read = tomllib.loads(_FILE.read_text(encoding="utf-8"))
    return tuple(Question.model_validate(entry) for entry in read["request"])


@cache
def draft_of(text: str) -> Draft:
    """A request of the exam as planners get it."""
    begun = begin(RunRequest(RunId("exam"), (ChatMessage(role="user", content=text),)))
    if not isinstance(begun, Draft):
        raise ValueError("a request of the exam is planned without being read")
    return begun


@cache
def edition() -> str:
    """Names the exam: marks of another edition cannot be compared."""
    return hashlib.sha256(_FILE.read_bytes()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Counts:
    """What was found, planned and right, summed over requests; F1 follows."""

    found: int = 0
    planned: int = 0
    gold: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.found + other.found, self.planned + other.planned, self.gold + other.gold)

    @property
    def f1(self) -> float:
        total = self.planned + self.gold
        return 2 * self.found / total if total else 1.0


@dataclass(frozen=True, slots=True)
class Points:
    """Of one or more answers: tasks and links."""

    tasks: Counts = Counts()
    links: Counts = Counts()

    def __add__(self, other: Points) -> Points:
        return Points(self.tasks + other.tasks, self.links + other.links)

    @property
    def score(self) -> float:
        """The mean of the F1 of tasks and that of links, from 0 to 1."""
        return (self.tasks.f1 + self.links.f1) / 2


def points(question: Question, plan: Plan) -> Points:
    """What a plan of this request is worth. Documents are left out of the comparison: they are long, and
    every planner copies them exactly."""
    texts = [_own_words(question, task.text) for task in plan.graph.tasks]
    gold = [" ".join(task.spans) for task in question.tasks]
    is_one = len(texts) == len(gold) == 1
    pairs = [(0, 0)] if is_one else same_tasks(gold, [(text,) for text in texts], is_last_first=False)
    gold_of = {theirs: ours for ours, theirs in pairs}
    place = {task.id: index for index, task in enumerate(plan.graph.tasks)}
    drawn = [(place[need], place[task.id]) for task in plan.graph.tasks for need in task.depends_on]
    due = {(need, index) for index, task in enumerate(question.tasks) for need in task.needs}
    right = sum((gold_of.get(first), gold_of.get(second)) in due for first, second in drawn)
    return Points(Counts(len(pairs), len(texts), len(gold)), Counts(right, len(drawn), len(due)))


def _perfect(question: Question) -> Points:
    tasks, links = len(question.tasks), sum(len(task.needs) for task in question.tasks)
    return Points(Counts(tasks, tasks, tasks), Counts(links, links, links))


def _own_words(question: Question, text: str) -> str:
    for piece in draft_of(question.text).segments:
        if piece.kind == "payload" and piece.text.strip():
            text = text.replace(piece.text.strip(), " ")
    return text


# --- taking it -------------------------------------------------------------------------------------------
@dataclass(slots=True)
class Exam:
    """One model taking the exam, answer by answer; `local` are the local labeller's plans of all of it."""

    local: Sequence[Plan]
    asked: Sequence[Question] = field(default_factory=questions)
    taken: Points = field(default_factory=Points)
    seconds: list[float] = field(default_factory=list[float])
    local_score: float = field(init=False)

    def __post_init__(self) -> None:
        self.local_score = sum(map(points, self.asked, self.local), Points()).score

    @property
    def next_question(self) -> Question | None:
        return self.asked[len(self.seconds)] if len(self.seconds) < len(self.asked) else None

    def answered(self, plan: Plan | None, seconds: float) -> None:
        """The plan of the next question, None for none, and the seconds it took."""
        at = len(self.seconds)
        self.taken += points(self.asked[at], plan or self.local[at])
        self.seconds.append(seconds)

    @property
    def is_hopeless(self) -> bool:
        """Whether it cannot come out ahead any more, even if all that follows were right and at once."""
        rest = self.asked[len(self.seconds) :]
        best = sum(map(_perfect, rest), self.taken)
        soonest = [*self.seconds, *(0.0 for _ in rest)]
        return not is_better(best.score, statistics.median(soonest), self.local_score)

    @property
    def score(self) -> float:
        return self.taken.score

    @property
    def median_seconds(self) -> float:
        return statistics.median(self.seconds) if self.seconds else 0.0


def is_better(score: float, median_seconds: float, local_score: float) -> bool:
    """Whether a model plans instead of the local labeller: by more than MARGIN better, and in time."""
    return score > local_score + MARGIN and median_seconds <= PLANNING_MEDIAN_SECONDS_MAX
