"""Choose the skills that a request names, and where in its words it names each.

Every phrase shares itself out between the skills that match it and "none of them", so a phrase that
merely mentions a picture, and fits five skills equally, speaks for none. The evidence for a skill is
its best phrase, what is left of it when better skills have taken theirs, and what types say: whether
the request has what the skill takes, and whether it lacks what the skill makes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monai_node.agents.skill_phrases import Span, Wording, noun_of

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]

# Scores this far apart make one skill e times as likely as the other.
_TEMPERATURE = 0.06
# A phrase that matches nothing better than this is taken to name none of the skills.
_NONE_SCORE = 0.4
# What a skill loses in score when nothing of what it takes is mentioned, and again when nothing brings it.
_MISSING_COST = 0.1
# Phrases that overlap by more than this share of the shorter cannot name two skills.
_OVERLAP_MAX = 0.5
# How sure a skill must be of a phrase, and that it is about its best one, to keep others from it.
_TAKEN_MIN = 0.1
_TAKEN_RATIO = 0.6
# What a phrase counts for a skill when another is named by it already.
_TAKEN_WEIGHT = 0.3

# Logistic regression on TaskBench's multimedia requests (the 283 to develop on, 40 skills): a weight for
# each entry of `evidence`, then the constant. Fitted on either half and scored on the other, node-F1 is
# 81.6; the settings above move it by about a point when doubled or halved.
_WEIGHTS = (2.8, 1.8, 2.75, 1.4, -0.65, 0.25, 0.55)
_CONSTANT = -4.05
# Where node-F1 is highest; 0.30 to 0.45 are within a point.
CHOSEN_MIN = 0.42


@dataclass(frozen=True, slots=True)
class TypedSkill:
    """A skill and the media types of what one call of it takes and makes. A type that stands twice in
    `takes` is needed twice."""

    id: str
    takes: tuple[str, ...]
    makes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Chosen:
    """A skill the request names: its index, the span that names it, and how likely it is meant (0–1)."""

    skill: int
    span: Span
    probability: float


def suits(made: str, taken: str) -> bool:
    """Whether a thing of one media type may be given where the other is taken; "image/*" is any image."""
    if made == taken or "*/*" in (made, taken):
        return True
    ours, theirs = made.split("/")[0], taken.split("/")[0]
    return ours == theirs and (made.endswith("/*") or taken.endswith("/*"))


def feeds(maker: TypedSkill, taker: TypedSkill) -> bool:
    """Whether something that one skill makes can be given to the other."""
    return any(suits(made, taken) for made in maker.makes for taken in taker.takes)


def is_given(wording: Wording, media_type: str) -> bool:
    """Whether the request brings a thing of this media type along."""
    return any(suits(one.media_type, media_type) for one in wording.given)


def shares(scores: Matrix) -> Matrix:
    """Each phrase shared out between the skills (its row adds up to less than 1: the rest is "none")."""
    highest = np.maximum(scores.max(axis=1, keepdims=True), _NONE_SCORE)
    raised = np.exp((scores - highest) / _TEMPERATURE)
    none = np.exp((_NONE_SCORE - highest) / _TEMPERATURE)
    return raised / (raised.sum(axis=1, keepdims=True) + none)


def choose(wording: Wording, scores: Matrix, skills: Sequence[TypedSkill]) -> list[Chosen]:
    """The skills named, in the order of the text. `scores` has a row for each phrase of the wording and
    a column for each skill: 1 is a sure match, 0.4 none.

    Looked at twice: what a skill takes may be made by another, which is known after the first time.
    """
    likely = _likely(evidence(wording, scores, skills))
    likely = _likely(evidence(wording, scores, skills, likely))
    kept = [int(index) for index in np.flatnonzero(likely >= CHOSEN_MIN)]
    places = place(wording, scores, kept)
    chosen = [Chosen(index, places[index], float(likely[index])) for index in kept]
    return sorted(chosen, key=lambda one: (one.span, one.skill))


def evidence(
    wording: Wording, scores: Matrix, skills: Sequence[TypedSkill], likely: Vector | None = None
) -> Matrix:
    """What speaks for each skill, one row each, every entry about 0 to 1:

    the share of its best phrase; how well it matches a phrase that no stronger skill takes; the share of
    its best whole clause; its likeness to the whole request beside the likest skill's (0 or less); whether
    what it makes is given already; whether its phrase mentions what it makes; how likely a skill is
    meant that takes what it makes. `likely`: how likely each skill is meant, where that is known.
    """
    mentioned, brought = _mentioned(wording, skills), _brought(wording, skills, likely)
    scores = scores - _MISSING_COST * (1 - mentioned) - _MISSING_COST * (1 - brought)
    share = shares(scores)
    strength = share * scores
    if len(strength) > 1:
        strength[-1] = -1.0  # the whole request says little of any one skill
    clauses = np.array([phrase.is_clause for phrase in wording.phrases])
    columns = [
        share[:-1].max(axis=0) if len(share) > 1 else share[0],
        _own(wording, strength),
        share[clauses].max(axis=0) if clauses.any() else np.zeros(len(skills)),
        scores[-1] - scores[-1].max(),
        np.array([float(any(is_given(wording, made) for made in skill.makes)) for skill in skills]),
        _mentions_product(wording, strength.argmax(axis=0), skills),
        _wanted(skills, likely),
    ]
    return np.column_stack(columns)


def place(wording: Wording, scores: Matrix, skills: Sequence[int]) -> dict[int, Span]:
    """The span that names each of these skills, the surest first; the same words twice only for want of
    others."""
    strength = shares(scores) * scores
    strength[-1] = -1.0  # the whole request is no place
    free = np.ones(len(strength), bool)
    spans: dict[int, Span] = {}
    for skill in sorted(skills, key=lambda index: -strength[:, index].max()):
        at = int(np.where(free, strength[:, skill], strength[:, skill] * _TAKEN_WEIGHT).argmax())
        phrase = wording.phrases[at]
        spans[skill] = phrase.start, phrase.end
        free &= _overlaps(wording, at) <= _OVERLAP_MAX
    return spans


def _likely(weighed: Matrix) -> Vector:
    return 1 / (1 + np.exp(-(weighed @ np.array(_WEIGHTS) + _CONSTANT)))


def _own(wording: Wording, strength: Matrix) -> Vector:
    """The best phrase of each skill among those that stronger skills leave."""
    own = np.zeros(strength.shape[1])
    free = np.ones(len(strength), bool)
    for skill in np.argsort(-strength.max(axis=0)):
        left = np.where(free, strength[:, skill], -1.0)
        at = int(left.argmax())
        own[skill] = max(left[at], 0.0)
        highest = strength[:, skill].max()
        if highest > _TAKEN_MIN and own[skill] > _TAKEN_RATIO * highest:
            free &= _overlaps(wording, at) <= _OVERLAP_MAX
    return own


def _overlaps(wording: Wording, at: int) -> Vector:
    """How much each phrase and this one overlap, as a share of the shorter."""
    starts = np.array([phrase.start for phrase in wording.phrases], float)
    ends = np.array([phrase.end for phrase in wording.phrases], float)
    common = np.minimum(ends, ends[at]) - np.maximum(starts, starts[at])
    return np.clip(common, 0, None) / np.minimum(ends - starts, ends[at] - starts[at])


def _mentioned(wording: Wording, skills: Sequence[TypedSkill]) -> Vector:
    """How much of what each skill takes is given or spoken of."""
    said = wording.phrases[-1].text.lower()
    return _parts(skills, lambda _, taken: float(is_given(wording, taken) or noun_of(taken) in said))


def _brought(wording: Wording, skills: Sequence[TypedSkill], likely: Vector | None) -> Vector:
    """How much of what each skill takes is given, or made by another that is likely meant."""
    if likely is None:
        return _mentioned(wording, skills)

    def made(index: int, taken: str) -> float:
        if is_given(wording, taken):
            return 1.0
        makers = (
            float(likely[other])
            for other, skill in enumerate(skills)
            if other != index and any(suits(made, taken) for made in skill.makes)
        )
        return max(makers, default=0.0)

    return _parts(skills, made)


def _parts(skills: Sequence[TypedSkill], measure: Callable[[int, str], float]) -> Vector:
    """The mean over what each skill takes; 1 for a skill that takes nothing."""
    return np.array(
        [
            sum(measure(index, taken) for taken in skill.takes) / len(skill.takes) if skill.takes else 1.0
            for index, skill in enumerate(skills)
        ]
    )


def _wanted(skills: Sequence[TypedSkill], likely: Vector | None) -> Vector:
    """How likely a skill is meant that takes what each makes."""
    if likely is None:
        return np.zeros(len(skills))
    return np.array(
        [
            max(
                (
                    float(likely[other])
                    for other, taker in enumerate(skills)
                    if taker is not maker and feeds(maker, taker)
                ),
                default=0.0,
            )
            for maker in skills
        ]
    )


def _mentions_product(wording: Wording, best: NDArray[np.intp], skills: Sequence[TypedSkill]) -> Vector:
    return np.array(
        [
            float(any(noun_of(made) in wording.phrases[int(at)].text.lower() for made in skill.makes))
            for skill, at in zip(skills, best, strict=True)
        ]
    )
