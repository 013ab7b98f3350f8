"""Plan over typed skills: which skills a request names, how they feed each other, and what goes unsaid.

For meshes whose skills take and make other things than text. Values in, values out: `word` cuts the
request, the caller scores its phrases against the skills (one call of an embedder), `typed_steps` makes
the steps. Where all skills are text to text, types say nothing, and the answer is None: the planner of
words is to be asked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from monai_node.agents.graph import TASKS_MAX
from monai_node.agents.skill_phrases import TEXT_TYPE, Span, Wording, noun_of
from monai_node.agents.skill_steps import Chosen, Matrix, TypedSkill, choose, shares
from monai_node.agents.typed_conversions import Conversion, conversions
from monai_node.agents.typed_link import Edge, link
from monai_node.registry.advert import Skill

# More skills than these are compared pairwise for too long; those that match no phrase well are left out.
SKILLS_MAX = 64
# How much of a clause must speak for a skill that another clause names already.
_AGAIN_MIN = 0.5
_WHY_CHARS_MAX = 60
_SENTENCE_END = re.compile(r"[.!?;](?=\s|\Z)|\n")


@dataclass(frozen=True, slots=True)
class TypedStep:
    """One call of a skill. `span` are the words of the request that are about it; `depends_on` are places
    in the list of steps, earlier or later. `is_said` is False for a conversion that the words leave out.
    `why` says in one phrase how it came into the plan."""

    skill: str
    span: Span
    depends_on: tuple[int, ...]
    is_said: bool
    why: str


def typed(skill: Skill) -> TypedSkill:
    """An announced skill with its types. Its input modes are read as what one call needs, all of them."""
    return TypedSkill(skill.id, tuple(skill.input_modes), tuple(skill.output_modes))


def is_typed(skills: Sequence[TypedSkill]) -> bool:
    """Whether any of the skills takes or makes something other than plain text."""
    return any({*skill.takes, *skill.makes} - {TEXT_TYPE} for skill in skills)


def typed_steps(
    wording: Wording, scores: Matrix, skills: Sequence[TypedSkill]
) -> tuple[TypedStep, ...] | None:
    """The steps of a request in the order of its words, a conversion before the step that needs it; no
    circle, and at most TASKS_MAX. None when types have nothing to say: all skills are text to text.

    `scores` has a row for each phrase of the wording and a column for each skill, 1 for a sure match and
    0.4 for none. Of many skills the SKILLS_MAX that match best are looked at. A request that names no
    skill has no steps.
    """
    if not is_typed(skills):
        return None
    if len(skills) > SKILLS_MAX:
        kept = np.sort(np.argsort(-scores.max(axis=0), kind="stable")[:SKILLS_MAX])
        skills, scores = [skills[int(at)] for at in kept], scores[:, kept]
    chosen = choose(wording, scores, skills)
    chosen = sorted([*chosen, *_again(wording, scores, chosen)], key=lambda one: (one.span, one.skill))
    if len(chosen) > TASKS_MAX:
        chosen = sorted(chosen, key=lambda one: -one.probability)[:TASKS_MAX]
        chosen.sort(key=lambda one: (one.span, one.skill))
    edges = link(wording, scores, skills, chosen)
    found = conversions(wording, scores[-1].tolist(), skills, [one.skill for one in chosen], edges)
    return _laid_out(skills, _said_steps(wording, skills, chosen, edges), found)


def _again(wording: Wording, scores: Matrix, chosen: Sequence[Chosen]) -> list[Chosen]:
    """A skill once more for each further clause that names it and brings a thing of its own: "crop
    a.png, then crop b.png"."""
    share = shares(scores)
    more: list[Chosen] = []
    for one in chosen:
        used = [_brought_in(wording, _clause_around(wording, one.span))]
        for row, phrase in enumerate(wording.phrases):
            span = phrase.start, phrase.end
            brought = _brought_in(wording, span)
            is_other = phrase.is_clause and not _overlap(span, one.span)
            if is_other and share[row, one.skill] >= _AGAIN_MIN and used[0] and brought - set().union(*used):
                used.append(brought)
                more.append(replace(one, span=span))
    return more


def _brought_in(wording: Wording, span: Span) -> set[str]:
    return {wording.text[one.start : one.end] for one in wording.given if span[0] <= one.start < span[1]}


def _clause_around(wording: Wording, span: Span) -> Span:
    """The clauses that a span touches."""
    touched = [clause for clause in wording.clauses if _overlap(clause, span)] or [span]
    return touched[0][0], touched[-1][1]


def _overlap(left: Span, right: Span) -> bool:
    return left[0] < right[1] and right[0] < left[1]


# --- steps that are said --------------------------------------------------------------------------------
def _said_steps(
    wording: Wording, skills: Sequence[TypedSkill], chosen: Sequence[Chosen], edges: Sequence[Edge]
) -> list[TypedStep]:
    return [
        TypedStep(
            skill=skills[one.skill].id,
            span=_words_about(wording, chosen, place),
            depends_on=tuple(sorted(maker for maker, taker in edges if taker == place)),
            is_said=True,
            why=f"named by {_shortened(wording.text[slice(*one.span)])!r}",
        )
        for place, one in enumerate(chosen)
    ]


def _words_about(wording: Wording, chosen: Sequence[Chosen], place: int) -> Span:
    """From the clause that names a skill to the next skill's words or the end of the sentence."""
    start, end = chosen[place].span
    begin = _clause_around(wording, (start, start + 1))[0]
    before = [other.span[1] for other in chosen if other.span[1] <= start]
    after = [other.span[0] for other in chosen if other.span[0] >= end]
    stop = _SENTENCE_END.search(wording.text, max(start, end - 1))
    close = min([stop.start() if stop else len(wording.text), *(_clause_start(wording, at) for at in after)])
    return max([begin, *before]), max(close, end)


def _clause_start(wording: Wording, at: int) -> int:
    return _clause_around(wording, (at, at + 1))[0]


def _shortened(words: str) -> str:
    flat = " ".join(words.split())
    return flat if len(flat) <= _WHY_CHARS_MAX else f"{flat[: _WHY_CHARS_MAX - 1]}…"


def _laid_out(
    skills: Sequence[TypedSkill], steps: Sequence[TypedStep], found: Sequence[Conversion]
) -> tuple[TypedStep, ...]:
    """The steps with each conversion before the step that needs it, and all places counted anew."""
    laid: list[TypedStep] = []
    place_of: dict[int, int] = {}
    row_of: list[tuple[Conversion, range]] = []
    for index, step in enumerate(steps):
        for one in (one for one in found if one.takers[0] == index):
            why = f"makes the {noun_of(one.makes)} that {step.skill} takes"
            row_of.append((one, range(len(laid), len(laid) + len(one.row))))
            laid += [TypedStep(skills[at].id, step.span, (), is_said=False, why=why) for at in one.row]
        place_of[index] = len(laid)
        laid.append(step)
    needs = {place_of[index]: {place_of[at] for at in step.depends_on} for index, step in enumerate(steps)}
    for one, row in row_of:
        needs |= {at: {at - 1} for at in row[1:]}
        needs[row[0]] = {place_of[maker] for maker in one.makers}
        for taker in one.takers:
            needs[place_of[taker]].add(row[-1])
    return tuple(replace(step, depends_on=tuple(sorted(needs[at]))) for at, step in enumerate(laid))
