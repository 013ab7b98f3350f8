"""Measure planning: what is found, how often one request is split, how long it takes.

    python tests/bench/planner.py --json
    python tests/bench/planner.py --json --plans FILE... [--planner NAME...]
    python tests/bench/planner.py --json --data F --tools F [--graph F] [--planner NAME] [--limit N] [--out F]

Prints one JSON line. A planner is rules, small, lora, model or auto; one that is not here is named with
what it needs. Competitors see the same requests in the same run.

Without options the planner of rules is measured on the data in $MONAI_BENCH_DATA (default
../shared/bench beside the repository; without them the line says `skipped`), beside the whole request as
one task, which is what a single model is given:

- `split_share`: CLINC150's short requests for one thing that become more than one task.
- `plans`: own requests with gold plans (tests/agents/data), the half that was tuned on and the other.
  A task found is a gold task whose words it has (token F1 of at least 0.6, one to one); an edge is
  found between found tasks.
- `steps`: TaskBench's multimedia DAG requests. Their gold steps are partly never said, so only numbers
  of tasks are compared.

`--plans` measures planners on hand-made requests in the format of tests/agents/data/README.md.

`--data` measures planning over tools with types, on any file of TaskBench's schema: which tools are
chosen and how they are linked. `--out` writes each prediction as a JSON line. Competitors: the whole
request to its likest tool; each clause to its likest tool, linked to the nearest that types allow.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner_arms import NAMES, Arm, Files, Unavailable, open_arm
from planner_handmade import figures, not_planned
from planner_typed import Competitors, by_types, read_tools
from planner_typed import measure as measure_tools

from monai_node.agents.agreement import same_tasks
from monai_node.agents.graph import Task
from monai_node.agents.plan import plan
from monai_node.agents.request import MeshOptions, RunRequest
from monai_node.mesh.embedders import open_sentence_embedder
from monai_node.registry.ids import RunId
from monai_node.registry.wire import ChatMessage
from monai_node.router.embed import CachedEmbedder
from monai_node.router.likeness import PhraseScorer

ROOT = Path(__file__).resolve().parents[2]
OWN = ROOT / "tests" / "agents" / "data" / "plans-dev.jsonl"

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
        pairs = same_tasks([row["text"] for row in gold], [(task.text,) for task in tasks])
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


async def on_plans(paths: Sequence[Path], planners: Sequence[str], files: Files, limit: int | None) -> Any:
    found: dict[str, Any] = {}
    async with open_sentence_embedder() as embedder:
        for path in paths:
            found[path.name] = {"one_task": await figures(path, Arm("rules", not_planned), limit)}
            for name in planners:
                try:
                    async with open_arm(name, files, embedder) as arm:
                        found[path.name][name] = await figures(path, arm, limit)
                except Unavailable as missing:
                    found[path.name][name] = str(missing)
    return found


async def on_tools(options: argparse.Namespace, files: Files) -> dict[str, Any]:
    """Figures of the package and its competitors on requests over typed tools."""
    graph = json.loads(options.graph.read_text(encoding="utf-8")) if options.graph else None
    tools = read_tools(json.loads(options.tools.read_text(encoding="utf-8")), graph)
    rows = read(options.data)[: options.limit]
    name = (options.planner or ["rules"])[0]
    async with open_sentence_embedder() as embedder, open_arm(name, files, embedder) as arm:
        others = Competitors(tools, CachedEmbedder(embedder))
        found, predictions = await measure_tools(rows, tools, by_types(arm, tools, PhraseScorer(embedder)))
        competitors = {
            "one_task": (await measure_tools(rows, tools, others.one_task))[0],
            "clauses": (await measure_tools(rows, tools, others.clauses))[0],
        }
    if options.out:
        lines = (json.dumps(prediction, ensure_ascii=False) for prediction in predictions)
        options.out.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return {"planner": arm.name, "summary": found, "competitors": competitors}


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure planning; prints one JSON line.")
    parser.add_argument("--json", action="store_true", help="one JSON line (the default, and only, form)")
    parser.add_argument("--planner", action="append", choices=NAMES, help="several for --plans")
    parser.add_argument("--limit", type=int, help="only the first N requests")
    parser.add_argument("--plans", type=Path, nargs="+", metavar="FILE", help="hand-made requests with plans")
    parser.add_argument("--data", type=Path, metavar="FILE", help="requests in TaskBench's schema")
    parser.add_argument("--tools", type=Path, metavar="FILE", help="TaskBench's table of tools")
    parser.add_argument("--graph", type=Path, metavar="FILE", help="TaskBench's graph of tools")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where predictions go, one a line")
    parser.add_argument("--base", type=Path, metavar="GGUF", help="lora: the base model")
    parser.add_argument("--adapter", type=Path, metavar="GGUF", help="lora: its adapter")
    parser.add_argument("--url", help="model: a server with an OpenAI endpoint")
    parser.add_argument("--model", default="default", help="model: its name there")
    options = parser.parse_args()
    if (options.data is None) != (options.tools is None):
        parser.error("--data and --tools go together")
    return options


def main() -> None:
    options = parsed()
    files = Files(options.base, options.adapter, options.url, options.model)
    line: dict[str, Any] = {
        "bench": "planner",
        "host": platform.machine(),
        "python": platform.python_version(),
    }
    data = Path(os.environ.get("MONAI_BENCH_DATA", ROOT.parent / "shared" / "bench"))
    if options.data is not None:
        try:
            line |= asyncio.run(on_tools(options, files))
        except Unavailable as missing:
            line["skipped"] = str(missing)
    elif options.plans is not None:
        names = options.planner or ["rules", "small"]
        line["summary"] = asyncio.run(on_plans(options.plans, names, files, options.limit))
    elif (data / "planner").is_dir() and (data / "dispatch").is_dir():
        line["summary"] = measure(data)
    else:
        line["skipped"] = f"no data in {data}"
    print(json.dumps(line))


if __name__ == "__main__":
    main()
