"""The plan of a request over typed skills, where it says at least as much as the plan in words. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from monai_node.agents.graph import DEPTH_MAX, Task, TaskGraph
from monai_node.agents.plan import Draft, Origin, Plan, shown_tasks
from monai_node.agents.typed_steps import TypedStep
from monai_node.registry.advert import Skill
from monai_node.registry.ids import PeerId
from monai_node.router.offer import Offer
from monai_node.router.policy import Policy, verdict

# Skills that a request is compared with; as many as one node may announce.
COMPARED_MAX = 128
# A skill with more types than these on one side says nothing by them, and costs their square.
MODES_MAX = 4
_TAKES = "takes what that task makes"


def comparable(offers: Iterable[Offer], policy: Policy) -> dict[str, Skill]:
    """The narrow skills, by id, that a request under this policy may be planned over.

    Of several offers of one id the first says what it is: what this node offers itself cannot be
    redefined by a peer. When there are more than COMPARED_MAX, every peer has some of its among them.
    """
    turns: Counter[PeerId] = Counter()
    waiting: list[tuple[int, Skill]] = []
    for offer in offers:
        skill = offer.skill
        is_plain = max(len(skill.input_modes), len(skill.output_modes)) <= MODES_MAX
        if not skill.is_general and is_plain and not verdict(offer, policy):
            waiting.append((turns[offer.peer], skill))
            turns[offer.peer] += 1
    found: dict[str, Skill] = {}
    for _, skill in sorted(waiting, key=lambda each: each[0]):
        if len(found) < COMPARED_MAX:
            found.setdefault(skill.id, skill)
    return found


def over_skills(draft: Draft, plan: Plan, steps: Sequence[TypedStep]) -> Plan:
    """A plan whose tasks each name their skill, made of these steps; else `plan`, unchanged.

    The steps replace it only when they leave nothing out: every task of the plan in words has a step
    that shares words with it, and the request brings no document, which steps do not carry.
    """
    brings_document = any(piece.kind == "payload" for piece in draft.segments)
    if len(steps) < 2 or brings_document or not all(_is_told(origin, steps) for origin in plan.origins):
        return plan
    graph = TaskGraph.repair(
        Task(
            id=_name(place),
            text=_words(draft, step),
            skill=step.skill,
            depends_on=[_name(other) for other in step.depends_on],
        )
        for place, step in enumerate(steps)
    )
    if graph.depth > DEPTH_MAX:
        return plan
    return Plan(
        graph=graph,
        reason="planned",
        shown=shown_tasks(graph),
        planner="types",
        origins=tuple(
            Origin(spans=(step.span,) if step.is_said else (), why=dict.fromkeys(task.depends_on, _TAKES))
            for step, task in zip(steps, graph.tasks, strict=True)
        ),
    )


def _name(place: int) -> str:
    return f"t{place + 1}"


def _words(draft: Draft, step: TypedStep) -> str:
    """The user's words for a step; a conversion that goes unsaid is called by the id of its skill: the
    name and the description are words of a peer, and no task is made of those."""
    said = draft.text[slice(*step.span)].strip() if step.is_said else ""
    return said or step.skill


def _is_told(origin: Origin, steps: Sequence[TypedStep]) -> bool:
    return any(
        step.is_said and start < step.span[1] and step.span[0] < end
        for start, end in origin.spans
        for step in steps
    )
