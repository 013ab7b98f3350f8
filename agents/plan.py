"""Turn a request into a task graph, or say why not: segment → label → link → exact words of the user.

A task's text is made of spans of the request and nothing else: its own words, the sentences that set
its scene, and the document it is about in full. Whenever the rules are unsure, the request stays one
task, whose text is the whole message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from monai_node.agents.graph import DEPTH_MAX, TASK_TEXT_CHARS_MAX, TASKS_MAX, Task, TaskGraph
from monai_node.agents.label import Labeller, label_by_rules
from monai_node.agents.lexicon import CARRYING_ON_VERBS, WORKING_VERBS, words
from monai_node.agents.link import Link, Step, link
from monai_node.agents.parts import Part, share, step_of, take_apart, words_of
from monai_node.agents.request import RunRequest
from monai_node.agents.segment import segment
from monai_node.agents.turns import needed_turns
from monai_node.registry.errors import InvalidRequest
from monai_node.registry.wire import ChatMessage

MESH_MODEL = "mesh"
# Longer system prompts describe an application, which expects one model to obey all of it.
SYSTEM_PROMPT_CHARS_MAX = 400
# Instructions longer than this are prose; cutting them by rules does more harm than good.
INSTRUCTION_CHARS_MAX = 4_000
# A document shared by many tasks is sent to each: this bounds what one request may grow to.
GRAPH_CHARS_MAX = 4 * TASK_TEXT_CHARS_MAX

_EXAMPLE_PAIRS_MIN = 3
_EXAMPLE_CHARS_MAX = 300

Reason = Literal[
    "planned",  # several tasks
    "single",  # the planner looked and found one task
    "given",  # the caller sent the plan
    "never",  # options.plan == "never"
    "model",  # one model was asked for by name
    "tools",  # tools, or a conversation with tool calls
    "schema",  # the answer must match one JSON schema
    "prefill",  # the last message is the assistant's: its text is to be continued
    "last_message",  # the last message is neither the user's nor the assistant's
    "examples",  # few-shot turns
    "system_prompt",  # longer than SYSTEM_PROMPT_CHARS_MAX
    "too_long",  # more instructions than rules should cut
    "too_many_tasks",  # more than TASKS_MAX
    "too_deep",  # more than DEPTH_MAX
]


class Plan(BaseModel):
    """What will be done. `is_passthrough`: one task that is given the whole conversation unchanged.

    `reason` says how the graph came about. `shown` names the tasks whose results make up the answer, in
    plan order: see `shown_tasks`.
    """

    model_config = ConfigDict(frozen=True)

    graph: TaskGraph
    is_passthrough: bool = False
    reason: Reason
    shown: tuple[str, ...]


def plan(request: RunRequest, labeller: Labeller = label_by_rules) -> Plan:
    """The plan of a request; the same request and labeller give the same plan.

    InvalidRequest when the conversation has no text, or when a plan that the caller sent cannot be run.
    """
    given = request.options.plan
    if isinstance(given, list):
        return _given(given, request.messages)
    why_not = why_not_planned(request)
    if why_not is not None:
        return _one_task(_last_text(request.messages), [], why_not, is_passthrough=True)
    text, earlier = request.messages[-1].content, request.messages[:-1]
    if not text.strip():
        return _one_task(_last_text(request.messages), [], "last_message", is_passthrough=True)
    return _planned(text, earlier, labeller)


def why_not_planned(request: RunRequest) -> Reason | None:
    """Why this request is passed through as it is; None when it may be planned."""
    messages, parameters = request.messages, request.parameters
    system = sum(len(turn.content) for turn in messages if turn.role in {"system", "developer"})
    last = messages[-1].role if messages else None
    checks: tuple[tuple[bool, Reason], ...] = (
        (request.options.plan == "never", "never"),
        (request.model != MESH_MODEL, "model"),
        (bool(parameters.tools) or any(_is_tool_turn(turn) for turn in messages), "tools"),
        (parameters.json_schema is not None, "schema"),
        (last == "assistant", "prefill"),
        (last != "user", "last_message"),
        (system > SYSTEM_PROMPT_CHARS_MAX, "system_prompt"),
        (has_examples(messages), "examples"),
    )
    return next((reason for applies, reason in checks if applies), None)


def has_examples(messages: Sequence[ChatMessage]) -> bool:
    """Whether the turns before the last look like few-shot examples.

    Three or more pairs of user and assistant from the start; all turns short; the user's turns, the last
    one too, of similar length, and the assistant's likewise. A brisk chat may look the same: passing it
    through loses nothing, whereas an example that is dropped changes the answer.
    """
    turns = [turn for turn in messages if turn.role not in {"system", "developer"}]
    roles = [turn.role for turn in turns]
    pairs = len(turns) // 2
    if pairs < _EXAMPLE_PAIRS_MIN or roles != ["user", "assistant"] * pairs + ["user"]:
        return False
    asked = [len(turn.content) for turn in turns[::2]]
    answered = [len(turn.content) for turn in turns[1::2]]
    return all(
        max(sizes) <= _EXAMPLE_CHARS_MAX and max(sizes) <= 3 * min(sizes) + 20 for sizes in (asked, answered)
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


def _is_tool_turn(turn: ChatMessage) -> bool:
    return turn.role == "tool" or "tool_calls" in turn.extra


def _given(tasks: list[Task], messages: Sequence[ChatMessage]) -> Plan:
    graph = TaskGraph(tasks=tuple(tasks)).check()
    for task in tasks:
        for turn in task.turns:
            if not 0 <= turn < len(messages):
                raise InvalidRequest(
                    f"task {task.id!r} needs message {turn}, and the conversation has"
                    f" {len(messages)} messages counted from 0",
                    param="mesh.plan",
                )
    return Plan(graph=graph, reason="given", shown=shown_tasks(graph))


def _last_text(messages: Sequence[ChatMessage]) -> str:
    for roles in ({"user"}, {"assistant", "tool"}, {"system", "developer"}):
        for turn in reversed(messages):
            if turn.role in roles and turn.content.strip():
                return turn.content
    raise InvalidRequest("the conversation has no text", param="messages")


def _one_task(text: str, turns: list[int], reason: Reason, is_passthrough: bool = False) -> Plan:
    graph = TaskGraph(tasks=(Task(id="t1", text=text, turns=turns),))
    return Plan(graph=graph, is_passthrough=is_passthrough, reason=reason, shown=("t1",))


# --- several tasks ------------------------------------------------------------------------------------
def _planned(text: str, earlier: Sequence[ChatMessage], labeller: Labeller) -> Plan:
    segments = segment(text)
    spoken = "".join(piece.masked for piece in segments if piece.kind != "payload")

    def single(reason: Reason) -> Plan:
        return _one_task(text, needed_turns(spoken if spoken.strip() else text, earlier), reason)

    if len(spoken) > INSTRUCTION_CHARS_MAX:
        return single("too_long")
    request = take_apart(text, segments, labeller(segments))
    parts = request.parts
    if len(parts) < 2:
        return single("single")
    if len(parts) > TASKS_MAX:
        return single("too_many_tasks")
    steps = [step_of(request, part) for part in parts]
    links = link(steps)
    share(request, links, steps)
    texts = [words_of(request, part) for part in parts]
    if sum(map(len, texts)) > GRAPH_CHARS_MAX or max(map(len, texts)) > TASK_TEXT_CHARS_MAX:
        return single("too_long")
    graph = TaskGraph(
        tasks=tuple(
            Task(
                id=f"t{index + 1}",
                text=texts[index],
                depends_on=[f"t{other + 1}" for other in links[index].depends_on],
                turns=_turns(steps[index], parts[index], links[index], earlier),
            )
            for index in range(len(parts))
        )
    )
    if graph.depth > DEPTH_MAX:
        return single("too_deep")
    is_list = all(part.opening.kind == "item" for part in parts)
    return Plan(graph=graph, reason="planned", shown=shown_tasks(graph, links, is_list))


def _turns(step: Step, part: Part, found: Link, earlier: Sequence[ChatMessage]) -> list[int]:
    """A task that begins from a result or a document has its object; another may need earlier turns."""
    return [] if found.depends_on or part.documents else needed_turns(step.text, earlier)
