"""The answer of a run while its tasks end, in whatever order: text to show, provenance, usage. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from monai_node.agents.merge import Assembler, Piece
from monai_node.agents.plan import Plan
from monai_node.registry.errors import MonaiError
from monai_node.registry.events import AnswerCompleted, Provenance
from monai_node.registry.ids import RunId
from monai_node.registry.wire import TokenLogprob, Usage


class Answer:
    """Takes what becomes of each task, and returns the pieces that the answer grows by.

    A failed part is told in one sentence in its place, but only once some other part has something to
    show: if none ever has, the run fails with an error instead of an answer made of apologies.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._assembler = Assembler(plan)
        self._parts: dict[str, Provenance] = {}
        self._tool_calls: list[dict[str, Any]] = []
        self._errors: list[MonaiError] = []
        self._untold: dict[str, str] | None = {}  # sentences of failed parts; None once they are told
        self._chars = 0
        self._spans: dict[str, tuple[int, int]] = {}

    def delta(self, task: str, text: str, logprobs: Sequence[TokenLogprob] = ()) -> list[Piece]:
        return self._grown(self._tell_failures(task) + self._assembler.delta(task, text, logprobs))

    def completed(self, part: Provenance, tool_calls: list[dict[str, Any]]) -> list[Piece]:
        self._parts[part.task] = part
        self._tool_calls += tool_calls
        return self._grown(self._tell_failures(part.task) + self._assembler.completed(part.task))

    def failed(self, part: Provenance, error: MonaiError) -> list[Piece]:
        """`part` has the status failed; `error` is what the run fails with if this was the first."""
        self._parts[part.task] = part
        self._errors.append(error)
        if len(self._plan.shown) == 1:
            return []  # the run fails with this error: a client need not read it twice
        sentence = f"This part could not be done: {error.message}"
        if self._untold is None:
            return self._grown(self._assembler.failed(part.task, sentence))
        self._untold[part.task] = sentence
        return []

    def ending(self, run: RunId) -> AnswerCompleted:
        """The end of the answer, when every task has ended; the first error when no part was made."""
        parts = [self._parts[task.id] for task in self._plan.graph.tasks]
        made = [part for part in parts if part.status == "completed"]
        shown = [part for part in made if part.task in self._plan.shown]
        if not shown:
            raise self._errors[0]
        return AnswerCompleted(
            run=run,
            finish_reason=_finish_reason(shown, has_tool_calls=bool(self._tool_calls)),
            usage=_sum([part.usage for part in made]),
            parts=[part.model_copy(update={"spans": self._spans_of(part.task)}) for part in parts],
            tool_calls=self._tool_calls,
        )

    def _grown(self, pieces: list[Piece]) -> list[Piece]:
        for task, text, _ in pieces:
            start, _ = self._spans.get(task, (self._chars, 0))
            self._chars += len(text)
            self._spans[task] = (start, self._chars)
        return pieces

    def _spans_of(self, task: str) -> list[tuple[int, int]]:
        """One span, as parts are never mixed; none of a part without text."""
        start, end = self._spans.get(task, (0, 0))
        return [(start, end)] if start < end else []

    def _tell_failures(self, task: str) -> list[Piece]:
        """The sentences held back, when `task` is the first part that has something to show."""
        if self._untold is None or task not in self._plan.shown:
            return []
        untold, self._untold = self._untold, None
        return [
            piece for name, sentence in untold.items() for piece in self._assembler.failed(name, sentence)
        ]


def _finish_reason(
    shown: list[Provenance], *, has_tool_calls: bool
) -> Literal["stop", "length", "tool_calls"]:
    if any(part.finish_reason == "length" for part in shown):
        return "length"
    return "tool_calls" if has_tool_calls else "stop"


def _sum(usages: list[Usage]) -> Usage:
    return Usage(
        prompt_tokens=sum(usage.prompt_tokens for usage in usages),
        completion_tokens=sum(usage.completion_tokens for usage in usages),
    )
