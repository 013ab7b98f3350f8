"""Task graphs of TaskBench, and how much work is drawn for their tasks."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from random import Random
from typing import Any

from schedule_bound import Draw

from monai_node.agents.graph import Task, TaskGraph
from monai_node.registry.errors import InvalidRequest

SIGMA = 0.8  # of the logarithm, as in the simulation that the scheduler's docstring quotes
_NODE = re.compile(r"<node-(\d+)")


def read_graphs(path: Path) -> list[TaskGraph]:
    """The acyclic graphs with more than one task: a node depends on the nodes its arguments name."""
    read = (_graph(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines())
    return [graph for graph in read if graph is not None and len(graph.tasks) > 1]


def _graph(row: dict[str, Any]) -> TaskGraph | None:
    nodes = row["task_nodes"]
    tasks: list[Task] = []
    for number, node in enumerate(nodes):
        named = (_NODE.match(str(value)) for value in node["arguments"])
        needs = sorted({int(found[1]) for found in named if found and int(found[1]) < len(nodes)})
        tasks.append(Task(id=f"t{number}", text=str(node["task"]), depends_on=[f"t{need}" for need in needs]))
    try:
        return TaskGraph(tasks=tuple(tasks)).check()
    except InvalidRequest:
        return None


def draw_work(graph: TaskGraph, mean_seconds: float, chance: Random) -> Draw:
    mu = math.log(mean_seconds) - SIGMA**2 / 2
    return {task.id: chance.lognormvariate(mu, SIGMA) for task in graph.tasks}
