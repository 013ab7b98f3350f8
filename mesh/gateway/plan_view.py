"""A plan as its owner sees it: what `POST /v1/plan` answers. Pure.

`graph` is the plan itself: it may be edited and sent to `POST /v1/runs`. All else explains it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from monai_node.agents.graph import Task, TaskGraph
from monai_node.agents.plan import Plan, PlannerName, Reason
from monai_node.mesh.gateway.backend import RouteCandidate

# A task may span a pasted document: its beginning says which one it is.
_SPAN_CHARS_SHOWN = 200


class _View(BaseModel):
    model_config = ConfigDict(frozen=True)


class SpanView(_View):
    """`[start, end)` of the request, counted in characters."""

    start: int
    end: int
    text: str = Field(description=f"the words there, at most {_SPAN_CHARS_SHOWN} characters of them")


class NeedView(_View):
    """A link of the graph."""

    task: str = Field(description="the id of the task whose result is needed")
    why: str = Field(description='one phrase; "" when the plan was written by hand')


class CandidateView(_View):
    """A peer that could do the task now."""

    peer: str
    peer_name: str
    skill: str
    model: str = Field(description='the model\'s alias; "" for an agent')
    score: float
    reasons: list[str]


class TaskView(Task):
    """One task of the graph with all its fields, explained."""

    spans: list[SpanView] = Field(description="where its words stand in the request, in their order")
    needs: list[NeedView]
    candidates: list[CandidateView] = Field(description="best first, at most three; empty: nobody is known")


class PlanView(_View):
    """The plan of a request. `graph`, `shown` and `text` are what `POST /v1/runs` takes."""

    object: Literal["plan"] = "plan"
    text: str = Field(description="the request that was planned: the last message's words")
    graph: TaskGraph = Field(description="the plan: edit it, and send it back")
    shown: list[str] = Field(description="the tasks whose results make up the answer")
    planner: PlannerName | None = Field(description="who read the request; null when nobody had to")
    reason: str = Field(description='"planned", or a word for why the request stays one task')
    why: str = Field(description="how the plan came about, in one sentence")
    is_passthrough: bool = Field(description="one task, which is given the whole conversation")
    tasks: list[TaskView] = Field(description="the graph's tasks, explained; edits here change nothing")


def plan_view(text: str, plan: Plan, candidates: Mapping[str, Sequence[RouteCandidate]]) -> PlanView:
    """The view of a plan for the request `text`; `candidates` by the ids of tasks."""
    return PlanView(
        text=text,
        graph=plan.graph,
        shown=list(plan.shown),
        planner=plan.planner,
        reason=plan.reason,
        why=sentence(plan),
        is_passthrough=plan.is_passthrough,
        tasks=[
            _task_view(text, plan, at, task, candidates.get(task.id, ()))
            for at, task in enumerate(plan.graph.tasks)
        ],
    )


def _task_view(text: str, plan: Plan, at: int, task: Task, candidates: Sequence[RouteCandidate]) -> TaskView:
    origin = plan.origins[at] if plan.origins else None
    spans = origin.spans if origin else ()
    why = origin.why if origin else {}
    return TaskView(
        **task.model_dump(),
        spans=[
            SpanView(start=start, end=end, text=text[start : min(end, start + _SPAN_CHARS_SHOWN)])
            for start, end in spans
        ],
        needs=[NeedView(task=name, why=why.get(name, "")) for name in task.depends_on],
        candidates=[CandidateView.model_validate(asdict(candidate)) for candidate in candidates],
    )


# --- why -----------------------------------------------------------------------------------------------
_READERS: dict[PlannerName, str] = {
    "rules": "by rules",
    "small": "by the small planning model",
    "lora": "by the bundled model with the planner's adapter",
    "types": "against the skills of the mesh and their types",
    "model": "by a large model of the mesh",
    "recipe": "by a recipe: you gave the plan for a request like this",
}
_REASONS: dict[Reason, str] = {
    "planned": "it asks for several things",
    "single": "it asks for one thing",
    "given": "the plan came with the request",
    "too_long": "it holds more instructions than can be divided well",
    "too_many_tasks": "it asks for more things than a plan may have tasks",
    "too_deep": "its tasks would wait for each other in too long a chain",
    "never": "the request says that it is not to be divided",
    "model": "it names the one model that is to answer",
    "tools": "it brings tools, which one model has to choose among",
    "completion": "it is a text that one model has to go on with",
    "logprobs": "it asks how likely the tokens of one model's answer are",
    "schema": "its answer has to match one schema",
    "prefill": "it asks one model to go on with an answer that was begun",
    "last_message": "its last message is no text of a user",
    "examples": "it gives examples, which one model has to follow",
    "system_prompt": "its system prompt describes an application, which one model has to be",
}


def sentence(plan: Plan) -> str:
    """How the plan came about: divided or not, why, and who read the request."""
    count = len(plan.graph.tasks)
    if plan.reason == "given":
        return f"The plan has {count} task{'s' * (count > 1)}: {_REASONS['given']}."
    done = f"The request was divided into {count} tasks" if count > 1 else "The request stays one task"
    reader = f" (read {_READERS[plan.planner]})" if plan.planner else ""
    return f"{done}: {_REASONS[plan.reason]}{reader}."
