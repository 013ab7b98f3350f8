"""Link chosen skills by what they take and make.

A link joins a skill to one that makes a type it takes. Which maker is meant, words say ("the coloured
photo" is what the colouring skill makes) and order: people tell steps in the order of work, but may put
the goal first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from monai_node.agents.skill_phrases import Span, Wording
from monai_node.agents.skill_steps import Chosen, Matrix, TypedSkill, Vector, is_given, shares, suits

# Places in the list of chosen skills: (maker, taker).
Edge = tuple[int, int]

# Logistic regression as in `skill_steps`, for the entries of `link_evidence`, on the links of the gold
# skills. Fitted on either half of the requests and scored on the other, edge-F1 is 48.1 (51.7 with the
# links that the gold lists); about 65 (69) where the skills are the gold's.
_WEIGHTS = (1.25, -1.4, 1.1, 0.95, -0.45, -0.6, 1.65, 1.0, 0.35)
_CONSTANT = -0.7
# A link too many costs time, one too few loses data; 0.15 to 0.30 are within half a point.
LINKED_MIN = 0.25


def link(
    wording: Wording, scores: Matrix, skills: Sequence[TypedSkill], chosen: Sequence[Chosen]
) -> list[Edge]:
    """The links between chosen skills, likeliest first: never a circle, and never more makers of a type
    than the taker takes of it."""
    likely = likely_links(wording, scores, skills, chosen)
    kept: list[Edge] = []
    taken: Counter[tuple[int, tuple[str, ...]]] = Counter()
    for edge in sorted(likely, key=lambda edge: (-likely[edge], edge)):
        maker, taker = edge
        port = taker, skills[chosen[maker].skill].makes
        room = ports(skills[chosen[maker].skill], skills[chosen[taker].skill])
        if likely[edge] >= LINKED_MIN and taken[port] < room and not reaches(kept, taker, maker):
            kept.append(edge)
            taken[port] += 1
    return kept


def likely_links(
    wording: Wording, scores: Matrix, skills: Sequence[TypedSkill], chosen: Sequence[Chosen]
) -> dict[Edge, float]:
    """How likely each pair of steps that types allow is linked, by (maker, taker) as places in `chosen`."""
    edges = possible_links(skills, chosen)
    if not edges:
        return {}
    weighed = link_evidence(wording, scores, skills, chosen, edges) @ np.array(_WEIGHTS) + _CONSTANT
    return dict(zip(edges, (1 / (1 + np.exp(-weighed))).tolist(), strict=True))


def possible_links(skills: Sequence[TypedSkill], chosen: Sequence[Chosen]) -> list[Edge]:
    """Every (maker, taker) that types allow, as places in `chosen`."""
    return [
        (maker, taker)
        for taker in range(len(chosen))
        for maker in range(len(chosen))
        if maker != taker and ports(skills[chosen[maker].skill], skills[chosen[taker].skill])
    ]


def link_evidence(
    wording: Wording,
    scores: Matrix,
    skills: Sequence[TypedSkill],
    chosen: Sequence[Chosen],
    edges: Sequence[Edge],
) -> Matrix:
    """What speaks for each link, one row each, every entry about 0 to 1:

    the maker is told first; how many such makers are told first (a third each); how plainly the words
    around the taker speak of a maker told before, and of one told later; the request brings such a thing
    along; the words around the taker name it; the taker needs several of them; there is no other maker;
    the two are told next to each other.
    """
    share = shares(scores)
    reaches = _around(wording, chosen)
    rows: list[tuple[float, ...]] = []
    for maker, taker in edges:
        makes, takes = skills[chosen[maker].skill], skills[chosen[taker].skill]
        others = [
            other
            for other, to in edges
            if to == taker and set(skills[chosen[other].skill].makes) & set(makes.makes)
        ]
        earlier = [other for other in others if other < taker]
        reach = reaches[taker]
        spoken = _spoken_of(wording, share[:, chosen[maker].skill], reach)
        has_named = any(
            any(suits(one.media_type, made) for made in makes.makes)
            for one in wording.given
            if reach[0] <= one.start < reach[1]
        )
        rows.append(
            (
                float(maker < taker),
                len(earlier) / 3,
                spoken if maker < taker else 0.0,
                spoken if maker > taker else 0.0,
                float(any(is_given(wording, made) for made in makes.makes)),
                float(has_named),
                float(ports(makes, takes) > 1),
                float(len(others) == 1),
                float(taker - maker == 1),
            )
        )
    return np.array(rows)


def _around(wording: Wording, chosen: Sequence[Chosen]) -> list[Span]:
    """The words that may speak of each skill: from the one told before it to the one told after."""
    spans: list[Span] = []
    for place, one in enumerate(chosen):
        start = chosen[place - 1].span[1] if place else 0
        end = chosen[place + 1].span[0] if place + 1 < len(chosen) else len(wording.text)
        spans.append((min(start, one.span[0]), max(end, one.span[1])))
    return spans


def _spoken_of(wording: Wording, share: Vector, reach: Span) -> float:
    """How plainly the words in reach speak of a skill."""
    inside = [
        float(share[row])
        for row, phrase in enumerate(wording.phrases[:-1])
        if reach[0] <= phrase.start and phrase.end <= reach[1]
    ]
    return max(inside, default=0.0)


def ports(maker: TypedSkill, taker: TypedSkill) -> int:
    """How many of the things that one takes the other can make."""
    return sum(any(suits(made, taken) for made in maker.makes) for taken in taker.takes)


def reaches(edges: Sequence[Edge], start: int, goal: int) -> bool:
    """Whether the results of `start` flow into `goal`, directly or through others."""
    seen: set[int] = set()
    stack = [start]
    while stack:
        at = stack.pop()
        if at == goal:
            return True
        if at not in seen:
            seen.add(at)
            stack.extend(taker for maker, taker in edges if maker == at)
    return False
