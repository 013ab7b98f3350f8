"""Measure the planner of rules: how fast it is, how often it splits one request, how much it finds.

    python tests/bench/planner.py --json

Prints one JSON line. Data are read from $MONAI_BENCH_DATA (default ../shared/bench beside the
repository); without them the line says `skipped`. The competitor on the same requests is the whole
request as one task, which is what a single model is given.

- `split_share`: CLINC150's short requests for one thing that become more than one task.
- `plans`: own requests with gold plans (tests/agents/data), the half that was tuned on and the other.
  A task found is a gold task whose words it has (token F1 of at least 0.6, one to one); an edge is
  found between found tasks.
- `steps`: TaskBench's multimedia DAG requests. Their gold steps are partly never said, so only numbers
  of tasks are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_node.agents.graph import Task
from monai_node.agents.lexicon import words
from monai_node.agents.plan import plan
from monai_node.agents.request import MeshOptions, RunRequest
from monai_node.registry.ids import RunId
from monai_node.registry.wire import ChatMessage

ROOT = Path(__file__).resolve().parents[2]
OWN = ROOT / "tests" / "agents" / "data" / "plans-dev.jsonl"
SAME_TASK_F1 = 0.6

Planner = Callable[[str], Sequence[Task]]
Edge = tuple[object, object]


def by_rules(text: str) -> Sequence[Task]:
    return plan(_request(text, MeshOptions())).graph.tasks


def as_one_task(text: str) -> Sequence[Task]:
    return plan(_request(text, MeshOptions(plan="never"))).graph.tasks


def _request(text: str, options: MeshOptions) -> RunRequest:
    return RunRequest(run=RunId("bench"), messages=(ChatMessage(role="user", content=text),), options=options)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@dataclass(slots=True)
class Score:
    """Sums over requests, from which micro-averaged F1 follow."""

    requests: int = 0
    exact: int = 0
    tasks: tuple[int, int, int] = (0, 0, 0)  # found, predicted, gold
    edges: tuple[int, int, int] = (0, 0, 0)

    def add(self, gold: list[dict[str, Any]], tasks: Sequence[Task]) -> None:
        pairs = _pairs([row["text"] for row in gold], [task.text for task in tasks])
        gold_of = {theirs: ours for ours, theirs in pairs}
        place = {task.id: index for index, task in enumerate(tasks)}
        due: set[Edge] = {(other, index) for index, row in enumerate(gold) for other in row["depends_on"]}
        drawn: set[Edge] = {
            (gold_of.get(place[other], other), gold_of.get(index, task.id))
            for index, task in enumerate(tasks)
            for other in task.depends_on
        }
        self.requests += 1
        self.exact += len(pairs) == len(gold) == len(tasks) and due == drawn
        self.tasks = _plus(self.tasks, (len(pairs), len(tasks), len(gold)))
        self.edges = _plus(self.edges, (len(due & drawn), len(drawn), len(due)))

    def summary(self) -> dict[str, float]:
        return {
            "requests": self.requests,
            "exact": self.exact,
            "node_f1": _f1(*self.tasks),
            "edge_f1": _f1(*self.edges),
        }


def _plus(left: tuple[int, int, int], right: tuple[int, int, int]) -> tuple[int, int, int]:
    return left[0] + right[0], left[1] + right[1], left[2] + right[2]


def _f1(found: int, predicted: int, gold: int) -> float:
    return round(2 * found / (predicted + gold), 3) if predicted + gold else 1.0


def _token_f1(left: str, right: str) -> float:
    rest = words(right)
    total = len(words(left)) + len(rest)
    common = 0
    for word in words(left):
        if word in rest:
            rest.remove(word)
            common += 1
    return 2 * common / total if total else 0.0


def _pairs(gold: list[str], found: list[str]) -> list[tuple[int, int]]:
    """Gold and found tasks with the same words, best pairs first, each used once."""
    likely = sorted(
        ((_token_f1(one, other), i, j) for i, one in enumerate(gold) for j, other in enumerate(found)),
        reverse=True,
    )
    pairs: list[tuple[int, int]] = []
    for f1, i, j in likely:
        if f1 >= SAME_TASK_F1 and all(i != a and j != b for a, b in pairs):
            pairs.append((i, j))
    return pairs


def score(planner: Planner, half: str) -> dict[str, float]:
    total = Score()
    for row in read(OWN):
        if row["half"] == half:
            total.add(row["tasks"], planner(row["request"]))
    return total.summary()


def steps(planner: Planner, rows: list[dict[str, Any]]) -> dict[str, float]:
    counts = [(len(planner(row["user_request"])), len(row["task_steps"])) for row in rows]
    return {
        "requests": len(counts),
        "mean_tasks": round(statistics.mean(found for found, _ in counts), 2),
        "mean_gold_steps": round(statistics.mean(gold for _, gold in counts), 2),
        "same_number": round(statistics.mean(found == gold for found, gold in counts), 3),
        "within_one": round(statistics.mean(abs(found - gold) <= 1 for found, gold in counts), 3),
    }


def split_share(planner: Planner, requests: Iterable[str]) -> float:
    return round(statistics.mean(len(planner(text)) > 1 for text in requests), 4)


def milliseconds(planner: Planner, requests: Iterable[str]) -> dict[str, float]:
    taken: list[float] = []
    for text in requests:
        started = time.perf_counter()
        planner(text)
        taken.append((time.perf_counter() - started) * 1000)
    return {
        "p50": round(statistics.median(taken), 3),
        "p99": round(statistics.quantiles(taken, n=100)[98], 3),
    }


def measure(data: Path) -> dict[str, Any]:
    short = [row["text"] for row in read(data / "dispatch" / "clinc150-queries.jsonl")]
    rows = read(data / "planner" / "mm-dag-dev.jsonl")
    arms: dict[str, Planner] = {"rules": by_rules, "one_task": as_one_task}
    return {
        name: {
            "milliseconds_short": milliseconds(planner, short),
            "milliseconds_long": milliseconds(planner, [row["user_request"] for row in rows]),
            "split_share": split_share(planner, short),
            "plans": {half: score(planner, half) for half in ("dev", "held")},
            "steps": steps(planner, rows),
        }
        for name, planner in arms.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the planner of rules.")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON line (the default, and only, form)"
    )
    parser.parse_args()
    data = Path(os.environ.get("MONAI_BENCH_DATA", ROOT.parent / "shared" / "bench"))
    line: dict[str, Any] = {
        "bench": "planner",
        "host": platform.machine(),
        "python": platform.python_version(),
    }
    if (data / "planner").is_dir() and (data / "dispatch").is_dir():
        line["summary"] = measure(data)
    else:
        line["skipped"] = f"no data in {data}"
    print(json.dumps(line))


if __name__ == "__main__":
    main()
