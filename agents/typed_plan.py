"""The plan of a request over typed skills, where it says at least as much as the plan in words. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from monai_node.agents.graph import DEPTH_MAX, Task, TaskGraph
from monai_node.agents.plan import Draft, Origin, Plan, shown_tasks
from monai_node.agents.typed_steps import TypedStep
from monai_node.registry.advert import Skill

_TAKES = "takes what that task makes"


def over_skills(draft: Draft, plan: Plan, steps: Sequence[TypedStep], skills: Mapping[str, Skill]) -> Plan:
    """A plan whose tasks each name their skill, made of these steps; else `plan`, unchanged.

    The steps replace it only when they leave nothing out: every task of the plan in words has a step
    that shares words with it, and the request brings no document, which steps do not carry. `skills` are
    those that the steps name, by id.
    """
    brings_document = any(piece.kind == "payload" for piece in draft.segments)
    if len(steps) < 2 or brings_document or not all(_is_told(origin, steps) for origin in plan.origins):
        return plan
    graph = TaskGraph.repair(
        Task(
            id=_name(place),
            text=_words(draft, step, skills),
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


def _words(draft: Draft, step: TypedStep, skills: Mapping[str, Skill]) -> str:
    """The user's words for a step; a conversion that goes unsaid is called by what its skill is called."""
    said = draft.text[slice(*step.span)].strip() if step.is_said else ""
    return said or skills[step.skill].name or step.skill


def _is_told(origin: Origin, steps: Sequence[TypedStep]) -> bool:
    return any(
        step.is_said and start < step.span[1] and step.span[0] < end
        for start, end in origin.spans
        for step in steps
    )
