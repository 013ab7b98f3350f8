"""Requests over tools with types, in TaskBench's schema: which tools are chosen, and how they are linked.

Read strictly: a request without a plan counts as an empty plan, and a tool that does not exist as a wrong
one. Nodes and links are sets of tool names for each request, micro-averaged, as TaskBench defines them.
Its gold has links twice: as it lists them, and as `<node-j>` in the arguments, which its own code scores.
"""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from planner_arms import Arm
from planner_figures import Row, counts, summary

from monai_node.agents.plan import Plan, begin
from monai_node.agents.request import RunRequest
from monai_node.agents.segment import segment
from monai_node.agents.skill_phrases import URI_TYPE, Wording, word
from monai_node.agents.skill_steps import TypedSkill, feeds, suits
from monai_node.agents.typed_steps import TypedStep, is_typed, typed_steps
from monai_node.registry.advert import Skill
from monai_node.registry.errors import MonaiError
from monai_node.registry.ids import RunId
from monai_node.registry.wire import ChatMessage
from monai_node.router.embed import Embedder, Vectors
from monai_node.router.likeness import PhraseScorer

# The threshold of the published planner without a language model.
CLAUSE_MIN = 0.30
_REFERENCE = re.compile(r"<node-(\d+)>")
_MEDIA = {"text": "text/plain", "url": URI_TYPE}
_KINDS = {"image", "audio", "video"}

Steps = Sequence[TypedStep]


@dataclass(frozen=True, slots=True)
class Answer:
    """The steps of a request. `is_fallback`: types named none, or the planner had no plan."""

    steps: Steps
    is_fallback: bool = False


Planned = Callable[[str], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Tools:
    """A tool table: as skills to compare words with, and with their types."""

    skills: tuple[Skill, ...]
    typed: tuple[TypedSkill, ...]

    @property
    def names(self) -> set[str]:
        return {skill.id for skill in self.typed}


def read_tools(table: dict[str, Any], graph: dict[str, Any] | None = None) -> Tools:
    """The tools of TaskBench's `tool_desc.json`; those of a graph's `nodes` that the table lacks too."""
    rows: dict[str, dict[str, Any]] = {}
    for row in [*table["nodes"], *(graph or {}).get("nodes", [])]:
        rows.setdefault(row["id"], row)
    typed = [
        TypedSkill(name, _types(row, "input-type"), _types(row, "output-type")) for name, row in rows.items()
    ]
    # Names of tools have spaces, which ids may not have: skills are told apart by their place.
    skills = [
        Skill(id=f"tool-{place}", name=name, description=row.get("desc", ""))
        for place, (name, row) in enumerate(rows.items())
    ]
    return Tools(tuple(skills), tuple(typed))


def _types(row: dict[str, Any], key: str) -> tuple[str, ...]:
    said = [str(name).strip().lower() for name in row.get(key, ["text"])]
    return tuple(
        f"{name}/*" if name in _KINDS else _MEDIA.get(name, f"application/{name.replace(' ', '-')}")
        for name in said
    )


# --- planners -----------------------------------------------------------------------------------------
def by_types(arm: Arm, tools: Tools, scorer: PhraseScorer) -> Planned:
    """What the package does: types where there are any, else the arm's tasks, each to its likest tool."""

    async def planned(text: str) -> Answer:
        if is_typed(tools.typed):
            wording = word(text)
            scores = await scorer.compare([phrase.text for phrase in wording.phrases], tools.skills)
            steps = typed_steps(wording, scores.astype(float), tools.typed)
            if steps:
                return Answer(steps)
        steps = await _by_words(arm, tools, scorer, text)
        return Answer(steps, is_fallback=not steps or is_typed(tools.typed))

    return planned


async def _by_words(arm: Arm, tools: Tools, scorer: PhraseScorer, text: str) -> Steps:
    """The arm's tasks, each to its likest tool; none when the arm has no plan."""
    request = RunRequest(run=RunId("bench"), messages=(ChatMessage(role="user", content=text),))
    draft = begin(request)
    plan = draft if isinstance(draft, Plan) else await arm.plan(draft)
    if plan is None:
        return []
    scores = await scorer.compare([task.text for task in plan.graph.tasks], tools.skills)
    place = {task.id: index for index, task in enumerate(plan.graph.tasks)}
    return [
        TypedStep(
            tools.typed[int(row.argmax())].id,
            (0, len(text)),
            tuple(place[other] for other in task.depends_on),
            is_said=True,
            why="likest",
        )
        for task, row in zip(plan.graph.tasks, scores, strict=True)
    ]


class Competitors:
    """What a mesh without this planner would do, with the same embedder."""

    def __init__(self, tools: Tools, embedder: Embedder) -> None:
        self._tools = tools
        self._embedder = embedder

    async def one_task(self, text: str) -> Answer:
        """The whole request to its likest tool."""
        likeness = await self._likeness([text])
        return Answer([self._step(int(likeness[0].argmax()), ())])

    async def clauses(self, text: str) -> Answer:
        """Each clause to its likest tool, linked to the nearest earlier tool that types allow."""
        pieces = [piece.text for piece in segment(text) if piece.text.strip()]
        likeness = await self._likeness(pieces)
        best = [int(np.argmax(row)) for row in likeness]
        chosen = [tool for tool, row in zip(best, likeness, strict=True) if row[tool] >= CLAUSE_MIN]
        typed = self._tools.typed
        steps: list[TypedStep] = []
        for index, tool in enumerate(dict.fromkeys(chosen)):
            earlier = list(dict.fromkeys(chosen))[:index]
            fitting = [at for at, other in enumerate(earlier) if feeds(typed[other], typed[tool])]
            steps.append(self._step(tool, tuple(fitting[-1:])))
        return Answer(steps)

    async def _likeness(self, texts: Sequence[str]) -> Vectors:
        described = [f"{skill.name}: {skill.description}" for skill in self._tools.skills]
        return await self._embedder.embed(texts) @ (await self._embedder.embed(described)).T

    def _step(self, tool: int, needs: tuple[int, ...]) -> TypedStep:
        return TypedStep(self._tools.typed[tool].id, (0, 0), needs, is_said=True, why="likest")


# --- predictions and scores -------------------------------------------------------------------------------
def prediction(row: dict[str, Any], steps: Steps, tools: Tools) -> dict[str, Any]:
    """A plan in TaskBench's schema; without a plan, no nodes."""
    typed = {skill.id: skill for skill in tools.typed}
    wording = word(str(row["user_request"]))
    return {
        "id": row["id"],
        "task_nodes": [
            {
                "task": step.skill,
                "arguments": [*(f"<node-{at}>" for at in step.depends_on), *_brought(wording, step, typed)],
            }
            for step in steps
        ],
        "task_links": [
            {"source": steps[at].skill, "target": step.skill} for step in steps for at in step.depends_on
        ],
    }


def _brought(wording: Wording, step: TypedStep, typed: dict[str, TypedSkill]) -> Iterator[str]:
    takes = typed[step.skill].takes if step.skill in typed else ()
    for one in wording.given:
        if step.span[0] <= one.start < step.span[1] and any(suits(one.media_type, taken) for taken in takes):
            yield wording.text[one.start : one.end].strip("'\"‘’“”")


def score(
    gold: dict[str, Any], predicted: dict[str, Any], names: set[str], *, is_fallback: bool = False
) -> Row:
    """Compare a prediction with its gold row, both in TaskBench's schema."""
    nodes, links = _nodes(predicted), _links(predicted)
    due_nodes, due_links = _nodes(gold), _links(gold)
    return Row(
        nodes=counts(nodes, due_nodes),
        edges=counts(links, _argument_links(gold)),
        links=counts(links, due_links),
        is_exact=nodes == due_nodes and links == due_links,
        is_valid=bool(nodes) and nodes <= names and _is_acyclic(predicted),
        is_fallback=is_fallback,
    )


def _nodes(row: dict[str, Any]) -> set[str]:
    return {str(node["task"]) for node in row["task_nodes"]}


def _links(row: dict[str, Any]) -> set[tuple[str, str]]:
    return {(str(link["source"]), str(link["target"])) for link in row["task_links"]}


def _argument_links(row: dict[str, Any]) -> set[tuple[str, str]]:
    nodes = row["task_nodes"]
    return {
        (str(nodes[at]["task"]), str(node["task"]))
        for node in nodes
        for argument in node["arguments"]
        for at in map(int, _REFERENCE.findall(str(argument)))
        if at < len(nodes)
    }


def _is_acyclic(row: dict[str, Any]) -> bool:
    needs = [
        {int(at) for argument in node["arguments"] for at in _REFERENCE.findall(str(argument))}
        for node in row["task_nodes"]
    ]
    done: set[int] = set()
    while len(done) < len(needs):
        ready = {at for at, wanted in enumerate(needs) if at not in done and wanted <= done}
        if not ready:
            return False
        done |= ready
    return True


async def measure(
    rows: Sequence[dict[str, Any]], tools: Tools, planned: Planned
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Figures over all rows, and the predictions. The first request is planned twice, so that what is
    made once for a table of tools is not counted as planning."""
    if rows:
        await _answer(planned, str(rows[0]["user_request"]))
    scored: list[Row] = []
    predictions: list[dict[str, Any]] = []
    taken: list[float] = []
    for row in rows:
        started = time.perf_counter()
        answer = await _answer(planned, str(row["user_request"]))
        taken.append((time.perf_counter() - started) * 1000)
        predictions.append(prediction(row, answer.steps, tools))
        scored.append(score(row, predictions[-1], tools.names, is_fallback=answer.is_fallback))
    found: dict[str, Any] = summary(scored)
    found["p50_ms"] = round(statistics.median(taken), 1) if taken else None
    return found, predictions


async def _answer(planned: Planned, text: str) -> Answer:
    """A request that could not be planned counts as an empty plan."""
    try:
        return await planned(text)
    except MonaiError:
        return Answer((), is_fallback=True)
