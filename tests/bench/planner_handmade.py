"""What planners make of hand-made requests with gold plans (format: tests/agents/data/README.md)."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner_arms import Arm
from planner_figures import Counts, f1, share, spread

from monai_node.agents.label import label_by_rules
from monai_node.agents.plan import Draft, Plan, begin
from monai_node.agents.request import RunRequest
from monai_node.agents.training.corpus import Gold, read_file
from monai_node.agents.training.score import Outline, measure, outline
from monai_node.registry.errors import MonaiError
from monai_node.registry.ids import RunId
from monai_node.registry.wire import ChatMessage

CLOSE_CALL = "close-call"


@dataclass(frozen=True, slots=True)
class Row:
    tasks: Counts
    edges: Counts
    is_exact: bool
    is_one: bool
    is_whole: bool
    is_close: bool


async def figures(path: Path, arm: Arm, limit: int | None = None) -> dict[str, Any]:
    """F1 of tasks and edges, exact plans, and requests for one task kept whole, in percent; with and
    without the requests about which careful people may disagree. A task is found as in
    `monai_node.agents.training.score`."""
    rows: list[Row] = []
    taken: list[float] = []
    fallbacks = 0
    for gold in read_file(path)[:limit]:
        started = time.perf_counter()
        found = await _outline(arm, gold)
        taken.append((time.perf_counter() - started) * 1000)
        fallbacks += found is None
        result = measure(gold, found or Outline((gold.text,), (gold.text,), ((),)))
        rows.append(
            Row(
                result.tasks,
                result.edges,
                result.is_exact,
                result.is_one,
                result.is_whole,
                CLOSE_CALL in gold.tags,
            )
        )
    return {
        "all": _summary(rows),
        "without_close_calls": _summary([row for row in rows if not row.is_close]),
        "fallback": round(100 * fallbacks / len(rows), 1) if rows else 0.0,
        "p50_ms": round(statistics.median(taken), 2) if taken else None,
    }


async def not_planned(draft: Draft) -> Plan | None:
    """The competitor: no plan, and so the whole request as one task."""
    del draft
    return None


async def _outline(arm: Arm, gold: Gold) -> Outline | None:
    """The tasks that the planner sees; None where it has no plan, and the request stays whole."""
    message = ChatMessage(role="user", content=gold.text)
    begun = begin(RunRequest(run=RunId("bench"), messages=(message,)))
    if isinstance(begun, Plan):
        return _of_plan(begun)
    if begun.whole is not None:  # nobody is asked; the rules tell a question from a greeting
        return outline(gold.text, begun.segments, label_by_rules(begun.segments))
    try:
        if arm.read is not None:
            return outline(gold.text, begun.segments, await arm.read(begun.segments))
        plan = await arm.plan(begun)
    except MonaiError:
        return None
    return _of_plan(plan) if plan is not None else None


def _of_plan(plan: Plan) -> Outline:
    tasks = plan.graph.tasks
    place = {task.id: index for index, task in enumerate(tasks)}
    texts = tuple(task.text for task in tasks)
    return Outline(texts, texts, tuple(tuple(place[other] for other in task.depends_on) for task in tasks))


def _summary(rows: Sequence[Row]) -> dict[str, Any]:
    shown: dict[str, Callable[[Sequence[Row]], float]] = {
        "node_f1": lambda some: f1([row.tasks for row in some]),
        "edge_f1": lambda some: f1([row.edges for row in some]),
        "exact": lambda some: share([row.is_exact for row in some]),
        "one_kept_whole": lambda some: share([row.is_whole for row in some if row.is_one]),
    }
    found: dict[str, Any] = {"requests": len(rows)}
    for name, figure in shown.items():
        found[name] = round(figure(rows), 1)
        found[f"{name}_95"] = spread(rows, figure)
    return found
