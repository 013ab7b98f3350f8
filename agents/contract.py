"""What a right result of a task must satisfy, as far as the task's words and parameters tell. Pure.

A contract is checked in code, by whoever sends the task, before its result is shown or as soon as it is
whole: no model judges. It is drawn where that can be told with high precision, and of every result it
says at least whether anything was done at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from monai_node.agents.clauses import (
    JUDGED_CHARS_MAX,
    OPEN,
    PASSED,
    SEARCHED_CHARS_MAX,
    AtMost,
    Clause,
    InLanguage,
    Quoting,
    SomethingDone,
)
from monai_node.agents.days import OnDate, OnWeekday
from monai_node.agents.formats import IsJson
from monai_node.agents.graph import Task
from monai_node.agents.known_answers import known_answer
from monai_node.agents.numbers import SomeNumber, TheNumber
from monai_node.agents.plan import Plan
from monai_node.agents.request import RunRequest
from monai_node.agents.wording import Wording, clauses_of
from monai_node.router.verdict import Verdict

# A result that is the task's own words is one only where these are so many that no answer is alike.
_ECHO_WORDS_MIN = 5
# What many clients say to every model. Any other system message may ask for whatever results: labels for
# the user's texts, texts corrected, another language.
_SAYS_NOTHING = re.compile(r"\W*you are (?:an? |the )?(?:[\w-]+ ){0,4}(?:assistant|chatbot|bot|ai)\W*", re.I)
_SYSTEM_ROLES = ("system", "developer")


@dataclass(frozen=True, slots=True)
class Contract:
    """Clauses, each of which a right result satisfies. A `router.verdict.Check`."""

    clauses: tuple[Clause, ...]

    @property
    def is_checkable(self) -> bool:
        """Whether a result is judged before it is shown, by more than that there must be one."""
        return any(
            not isinstance(clause, SomethingDone) and clause.held_chars != 0 for clause in self.clauses
        )

    @property
    def held_chars(self) -> int | None:
        held = [clause.held_chars for clause in self.clauses]
        chars = [each for each in held if each is not None]
        return max(chars, default=0) if len(chars) == len(held) else None

    def early(self, beginning: str) -> Verdict:
        found = [(clause, clause.early(_read(clause, beginning))) for clause in self.clauses]
        verdict = _together([each for _, each in found])
        is_waiting = any(each.kind == "open" and clause.held_chars != 0 for clause, each in found)
        return OPEN if is_waiting and verdict.kind == "passed" else verdict

    def whole(self, text: str) -> Verdict:
        return _together([_judged(clause, text) for clause in self.clauses])


def _judged(clause: Clause, text: str) -> Verdict:
    read = _read(clause, text)
    verdict = clause.whole(read)
    # What the beginning of a long text lacks may stand further on.
    is_final = len(read) == len(text) or isinstance(clause, AtMost | InLanguage)
    return verdict if is_final or verdict.kind != "failed" else OPEN


def _read(clause: Clause, text: str) -> str:
    """As much of a text as this clause is given."""
    if isinstance(clause, SomethingDone):
        return text
    return text[: SEARCHED_CHARS_MAX if isinstance(clause, IsJson | Quoting) else JUDGED_CHARS_MAX]


def _together(verdicts: list[Verdict]) -> Verdict:
    """The first that failed; else passed when anything could be checked."""
    failures = [verdict for verdict in verdicts if verdict.kind == "failed"]
    if failures:
        return failures[0]
    return PASSED if any(verdict.kind == "passed" for verdict in verdicts) else OPEN


def contract_of(task: Task, request: RunRequest, plan: Plan) -> Contract | None:
    """The contract of one task of a request. None where the caller said where a result stops: whatever
    stands before that is right; and for a raw text, of which the end may be all that is missing. Of a whole
    conversation only its parameters are read: what its last message asks for may hang on every turn before
    it; the same goes for a task under a system message."""
    if request.parameters.stop or request.is_completion:
        return None
    if plan.is_passthrough or not _is_alone(request):
        return Contract((SomethingDone(), *_of_parameters(request)))
    is_echo_plain = len(task.text) <= JUDGED_CHARS_MAX and len(task.text.split()) >= _ECHO_WORDS_MIN
    echo = task.text if is_echo_plain else ""
    return Contract((SomethingDone(echo), *_of_parameters(request), *_of_words(task, request)))


def _is_alone(request: RunRequest) -> bool:
    """Whether a task's words are all that says what its result is to be."""
    said = [turn.content for turn in request.messages if turn.role in _SYSTEM_ROLES]
    return all(not text.strip() or _SAYS_NOTHING.fullmatch(text[:200]) for text in said)


def _of_parameters(request: RunRequest) -> Iterator[Clause]:
    schema = request.parameters.json_schema
    if schema is not None:
        yield IsJson(is_strict=True, schema=schema)


def _of_words(task: Task, request: RunRequest) -> Iterator[Clause]:
    if request.parameters.json_schema is not None:
        return
    known = known_answer(task.text)
    wording = Wording.of(task.text)
    for clause in clauses_of(wording):
        if not _is_within(clause, known):
            yield clause
    if known is not None:
        yield known
    if not task.depends_on and not task.turns and (language := wording.language):
        yield InLanguage(language, is_asked=False)


def _is_within(clause: Clause, known: TheNumber | OnDate | OnWeekday | None) -> bool:
    """Whether the answer that is known satisfies the clause by itself."""
    if isinstance(known, TheNumber):
        return isinstance(clause, SomeNumber)
    return isinstance(known, OnWeekday) and isinstance(clause, OnWeekday)
