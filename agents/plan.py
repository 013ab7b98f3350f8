"""Turn a request into a task graph, or say why not: segment → label → link → exact words of the user.

`begin` cuts the request, a labeller reads the segments, `finish` makes the graph. A task's text is made
of spans of the request and nothing else: its own words, the sentences that set its scene, and the
document it is about in full. Whenever a plan would break a limit, the request stays one task, whose
text is the whole message.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from monai_node.agents.each import each_of
from monai_node.agents.graph import DEPTH_MAX, TASK_TEXT_CHARS_MAX, TASKS_MAX, Task, TaskGraph
from monai_node.agents.label import Labeller, Reading, label_by_rules
from monai_node.agents.lexicon import CARRYING_ON_VERBS, WORKING_VERBS, words
from monai_node.agents.link import Link, Step, link
from monai_node.agents.parts import Part, Span, share, spans_of, step_of, take_apart, words_of
from monai_node.agents.passthrough import WhyNot, why_not_planned
from monai_node.agents.request import RunRequest
from monai_node.agents.segment import Segment, segment
from monai_node.agents.turns import needed_turns
from monai_node.registry.errors import InvalidRequest
from monai_node.registry.wire import ChatMessage

# Instructions longer than this are prose; cutting them does more harm than good.
INSTRUCTION_CHARS_MAX = 4_000
# A document shared by many tasks is sent to each: this bounds what one request may grow to.
GRAPH_CHARS_MAX = 4 * TASK_TEXT_CHARS_MAX

Reason = (
    WhyNot
    | Literal[
        "planned",  # several tasks
        "single",  # the planner looked and found one task
        "given",  # the caller sent the plan
        "too_long",  # more instructions than a planner should cut
        "too_many_tasks",  # more than TASKS_MAX
        "too_deep",  # more than DEPTH_MAX
    ]
)
PlannerName = Literal["rules", "small", "lora", "model", "recipe", "types"]


class Origin(BaseModel):
    """Where a task comes from: `spans` of the last user message, [start, end) in characters, in the
    order of the task's words, and `why` it needs each task of its `depends_on`, in one phrase."""

    model_config = ConfigDict(frozen=True)

    spans: tuple[Span, ...] = ()
    why: dict[str, str] = {}


class Plan(BaseModel):
    """What will be done. `is_passthrough`: one task that is given the whole conversation unchanged.

    `reason` says how the graph came about, and `planner` who read the request; None when nobody had to.
    `shown` names the tasks whose results make up the answer, in plan order: see `shown_tasks`.
    `origins` has an entry per task, or none when the caller wrote the plan.
    """

    model_config = ConfigDict(frozen=True)

    graph: TaskGraph
    is_passthrough: bool = False
    reason: Reason
    shown: tuple[str, ...]
    planner: PlannerName | None = None
    origins: tuple[Origin, ...] = ()


@dataclass(frozen=True, slots=True)
class Draft:
    """A request that is to be planned: the last user message, cut, and the turns before it. `whole` says
    why nobody has to read it: it is one task."""

    text: str
    segments: tuple[Segment, ...]
    earlier: tuple[ChatMessage, ...]
    whole: Reason | None = None


def plan(request: RunRequest, labeller: Labeller = label_by_rules) -> Plan:
    """The plan of a request; the same request and labeller give the same plan.

    InvalidRequest when the conversation has no text, or when a plan that the caller sent cannot be run.
    """
    begun = begin(request)
    if isinstance(begun, Plan):
        return begun
    return finish(begun, Reading(()) if begun.whole else labeller(begun.segments))


def begin(request: RunRequest) -> Draft | Plan:
    """What is to be read, or the plan at once when it is no question of reading. Errors as in `plan`."""
    given = request.options.plan
    if isinstance(given, list):
        return _given(given, request)
    if request.options.shown is not None:
        raise InvalidRequest("shown is for a plan that is sent with the request", param="mesh.shown")
    why_not = why_not_planned(request)
    if why_not == "completion":
        text = request.messages[0].content or f"a prompt of {len(request.tokens)} tokens"
        return _one_task(text, [], why_not, is_passthrough=True)
    if why_not is not None:
        return _one_task(_last_text(request.messages), [], why_not, is_passthrough=True)
    text = request.messages[-1].content
    segments = tuple(segment(text))
    return Draft(text, segments, request.messages[:-1], _why_whole(segments))


def _why_whole(segments: Sequence[Segment]) -> Reason | None:
    if sum(len(piece.text) for piece in segments if piece.kind != "payload") > INSTRUCTION_CHARS_MAX:
        return "too_long"
    return "single" if sum(map(_may_start_a_task, segments)) < 2 else None


def single(draft: Draft, reason: Reason, planner: PlannerName | None = None) -> Plan:
    """The request as one task, given the turns it needs."""
    spoken = "".join(piece.masked for piece in draft.segments if piece.kind != "payload")
    turns = needed_turns(spoken if spoken.strip() else draft.text, draft.earlier)
    return _one_task(draft.text, turns, reason, planner=planner)


def finish(draft: Draft, reading: Reading, planner: PlannerName = "rules") -> Plan:
    """The plan that follows from a reading of the draft's segments; ValueError unless it has one label
    for each. Whatever the labels say, the graph can be run, and a payload is never a task. Of a draft
    that is one task, the reading is not looked at."""
    if draft.whole is not None:
        return single(draft, draft.whole)
    request = take_apart(draft.text, draft.segments, reading.labels)
    parts = request.parts
    if len(parts) < 2:
        return single(draft, "single", planner)
    if len(parts) > TASKS_MAX:
        return single(draft, "too_many_tasks", planner)
    steps = [step_of(request, part) for part in parts]
    links = link(steps, _needs(draft, reading, parts))
    share(request, links, steps)
    each = each_of(steps, links)
    texts = [words_of(request, part) for part in parts]
    if sum(map(len, texts)) > GRAPH_CHARS_MAX or max(map(len, texts)) > TASK_TEXT_CHARS_MAX:
        return single(draft, "too_long", planner)
    graph = TaskGraph.repair(
        Task(
            id=_name(index),
            text=texts[index],
            depends_on=[_name(other) for other in links[index].depends_on],
            each=None if (maker := each[index]) is None else _name(maker),
            turns=_turns(steps[index], parts[index], links[index], draft.earlier),
        )
        for index in range(len(parts))
    )
    if graph.depth > DEPTH_MAX:
        return single(draft, "too_deep", planner)
    is_list = all(part.opening.kind == "item" for part in parts)
    return Plan(
        graph=graph,
        reason="planned",
        shown=shown_tasks(graph, links, is_list),
        planner=planner,
        origins=tuple(
            Origin(spans=spans_of(request, part), why=dict.fromkeys(task.depends_on, found.why))
            for part, task, found in zip(parts, graph.tasks, links, strict=True)
        ),
    )


def shown_tasks(graph: TaskGraph, links: Sequence[Link] = (), is_list: bool = False) -> tuple[str, ...]:
    """The tasks whose results are part of the answer.

    Always every task that no other depends on. The others too, because a person who asks for something
    wants to see it, with one exception: a working step whose whole result the words of the next ones
    carry on ("extract the dates", then "put them in a table"; "translate it", then "shorten the
    translation"), unless the request is a list, where every item is a deliverable. Without `links`, as
    in a plan that the caller wrote, only the former are shown.
    """
    if not links:
        return graph.sinks
    named = {other for found in links if found.is_explicit for other in found.depends_on}
    hidden = {
        task.id
        for index, task in enumerate(graph.tasks)
        if index in named and not is_list and _is_used_up(task, graph)
    }
    return tuple(task.id for task in graph.tasks if task.id not in hidden)


def _is_used_up(task: Task, graph: TaskGraph) -> bool:
    next_verbs = {_verb(graph.task(name)) for name in graph.dependants(task.id)}
    return _verb(task) in WORKING_VERBS and next_verbs <= CARRYING_ON_VERBS


def _verb(task: Task) -> str:
    return next(iter(words(task.text[:200])), "")


def _given(tasks: list[Task], request: RunRequest) -> Plan:
    graph, messages = TaskGraph(tasks=tuple(tasks)).check(), request.messages
    for task in tasks:
        for turn in task.turns:
            if not 0 <= turn < len(messages):
                raise InvalidRequest(
                    f"task {task.id!r} needs message {turn}, and the conversation has"
                    f" {len(messages)} messages counted from 0",
                    param="mesh.plan",
                )
    wanted = request.options.shown or shown_tasks(graph)
    for name in wanted:
        if all(task.id != name for task in tasks):
            raise InvalidRequest(f"the task {name!r} to be shown is not in the plan", param="mesh.shown")
    shown = tuple(task.id for task in tasks if task.id in wanted)
    return Plan(graph=graph, reason="given", shown=shown)


def _last_text(messages: Sequence[ChatMessage]) -> str:
    for roles in ({"user"}, {"assistant", "tool"}, {"system", "developer"}):
        for turn in reversed(messages):
            if turn.role in roles and turn.content.strip():
                return turn.content
    raise InvalidRequest("the conversation has no text", param="messages")


def _may_start_a_task(piece: Segment) -> bool:
    return piece.kind != "payload" and any(map(str.isalnum, piece.masked))


def _one_task(
    text: str,
    turns: list[int],
    reason: Reason,
    is_passthrough: bool = False,
    planner: PlannerName | None = None,
) -> Plan:
    graph = TaskGraph(tasks=(Task(id="t1", text=text, turns=turns),))
    whole = Origin() if is_passthrough else Origin(spans=((0, len(text)),))
    return Plan(
        graph=graph,
        is_passthrough=is_passthrough,
        reason=reason,
        shown=("t1",),
        planner=planner,
        origins=(whole,),
    )


def _name(index: int) -> str:
    return f"t{index + 1}"


def _needs(draft: Draft, reading: Reading, parts: Sequence[Part]) -> list[tuple[int, ...] | None]:
    """What the labeller says each part needs, as indices of parts. A segment that ended up inside
    another task stands for that one."""
    owner = {clause.start: index for index, part in enumerate(parts) for clause in part.clauses}
    needs: list[tuple[int, ...] | None] = [None] * len(parts)
    for piece, wanted in zip(draft.segments, reading.needs, strict=False):
        index = owner.get(piece.start)
        if index is None or wanted is None or parts[index].opening is not piece:
            continue
        starts = [draft.segments[at].start for at in wanted if 0 <= at < len(draft.segments)]
        needs[index] = tuple(sorted({owner[at] for at in starts if at in owner} - {index}))
    return needs


def _turns(step: Step, part: Part, found: Link, earlier: Sequence[ChatMessage]) -> list[int]:
    """A task that begins from a result or a document has its object; another may need earlier turns."""
    return [] if found.depends_on or part.documents else needed_turns(step.text, earlier)
