"""Find the conversions that a request leaves out: "transcribe talk.mp4" where only audio is transcribed.

Careful on purpose: a thing that the words speak of, that the request brings or that a step makes is not
lacking, and plain text never is, since the request itself is text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from monai_node.agents.graph import TASKS_MAX
from monai_node.agents.skill_phrases import TEXT_TYPE, Wording, noun_of
from monai_node.agents.skill_steps import TypedSkill, is_given, suits
from monai_node.agents.typed_link import Edge, reaches


@dataclass(frozen=True, slots=True)
class Conversion:
    """Skills, by index, of which each feeds the next and the last the steps `takers`, first step first.
    `makers` are the steps that feed the first; `makes` is the media type that was lacking."""

    takers: tuple[int, ...]
    row: tuple[int, ...]
    makers: tuple[int, ...]
    makes: str


def conversions(
    wording: Wording,
    fitness: Sequence[float],
    skills: Sequence[TypedSkill],
    steps: Sequence[int],
    edges: Sequence[Edge],
) -> list[Conversion]:
    """What has to be put before the steps, given as indices of skills, so that each has what it takes.

    Of several shortest ways the one whose skills suit the request best (`fitness`, one for each skill).
    A step whose lack nothing mends is left as it is. Steps and conversions are at most TASKS_MAX.
    """
    found: list[Conversion] = []
    flows = list(edges)  # a conversion passes results on as a link does
    room = TASKS_MAX - len(steps)
    for taker in range(len(steps)):
        for lacked in _lacking(wording, skills, steps, taker):
            # A step that needs this one cannot feed it.
            before = [at for at in range(len(steps)) if at != taker and not reaches(flows, taker, at)]
            shared = _shareable(found, flows, taker, lacked)
            if shared is not None:
                found[shared] = replace(found[shared], takers=(*found[shared].takers, taker))
                flows += [(maker, taker) for maker in found[shared].makers]
                continue
            row = _shortest(wording, fitness, skills, [steps[at] for at in before], set(steps), lacked)
            if row and len(row) <= room:
                makers = _makers(wording, skills, steps, before, row[0])
                found.append(Conversion((taker,), row, makers, lacked))
                flows += [(maker, taker) for maker in makers]
                room -= len(row)
    return found


def _lacking(
    wording: Wording, skills: Sequence[TypedSkill], steps: Sequence[int], taker: int
) -> Iterator[str]:
    said = wording.phrases[-1].text.lower()
    made = [product for at, step in enumerate(steps) if at != taker for product in skills[step].makes]
    for taken in dict.fromkeys(skills[steps[taker]].takes):
        is_at_hand = is_given(wording, taken) or any(suits(product, taken) for product in made)
        if taken != TEXT_TYPE and not is_at_hand and noun_of(taken) not in said:
            yield taken


def _shareable(found: Sequence[Conversion], flows: Sequence[Edge], taker: int, lacked: str) -> int | None:
    """A conversion found already that makes this too and waits for nothing that waits for this step."""
    for at, one in enumerate(found):
        if one.makes == lacked and not any(reaches(flows, taker, maker) for maker in one.makers):
            return at
    return None


def _shortest(
    wording: Wording,
    fitness: Sequence[float],
    skills: Sequence[TypedSkill],
    before: Sequence[int],
    used: set[int],
    lacked: str,
) -> tuple[int, ...] | None:
    """The shortest row of unused skills from what there is to what is lacking. Of two at most: a longer
    way is a guess."""
    at_hand = {one.media_type for one in wording.given} | {made for at in before for made in skills[at].makes}
    # Whoever begins a row is fed by what there is, and whoever ends it makes what is lacking: looking at
    # no others keeps the search small among hundreds of skills.
    free = [index for index in range(len(skills)) if index not in used]
    first = [index for index in free if _is_fed(skills[index], at_hand)]
    last = [index for index in free if any(suits(made, lacked) for made in skills[index].makes)]
    rows = [(index,) for index in first if index in last]
    if not rows:
        pairs = ((one, other) for one in first for other in last if one != other)
        rows = [(one, other) for one, other in pairs if _is_fed(skills[other], set(skills[one].makes))]
    return max(rows, key=lambda row: (sum(fitness[index] for index in row), row), default=None)


def _is_fed(skill: TypedSkill, at_hand: set[str]) -> bool:
    return bool(skill.takes) and all(any(suits(made, taken) for made in at_hand) for taken in skill.takes)


def _makers(
    wording: Wording,
    skills: Sequence[TypedSkill],
    steps: Sequence[int],
    before: Sequence[int],
    first: int,
) -> tuple[int, ...]:
    """The steps that feed the first skill of a row: for each thing that the request does not bring, the
    last that makes it."""
    makers: set[int] = set()
    for taken in skills[first].takes:
        able = [at for at in before if any(suits(made, taken) for made in skills[steps[at]].makes)]
        if able and not is_given(wording, taken):
            makers.add(able[-1])
    return tuple(sorted(makers))
