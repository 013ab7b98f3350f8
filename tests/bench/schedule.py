"""How much longer a task graph takes than it must: `python tests/bench/schedule.py --json`, one JSON line.

Graphs are those of TaskBench's multimedia requests ($MONAI_BENCH_DATA, default ../shared/bench beside
the repository; without them the line says `skipped`). Each task is work whose seconds are log-normal;
a peer of speed v does it in work / v, in real time, and writes text in proportion to the work: the
project's dispatcher sends it over the memory transport to a provider. The same draws go to every arm:

ours        `Runner` with the graph as the caller's plan: everything a request with that plan goes through
superstep   a compiled LangGraph StateGraph, one node per task, which runs in rounds
sequential  one task after the other

All three choose peers by earliest expected finish, from what was observed of the peers in warm-up runs;
nobody knows the draws. Figures are time over a lower bound: the largest of the heaviest chain at the
fastest peer's speed, and all work over the summed speed of all slots. No schedule need attain it, so
`oracle_mean` tells how near the best of many list schedules comes that does know the draws.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from schedule_arms import Arm, compile_supersteps, ours, sequential, superstep
from schedule_bound import Draw, Peers, bound, oracle
from schedule_graphs import SIGMA, draw_work, read_graphs
from schedule_mesh import Mesh, open_mesh

from monai_node.agents.graph import TaskGraph
from monai_node.registry.ids import RunId

ROOT = Path(__file__).resolve().parents[2]
SPEEDS = (1.25, 1.0, 0.8)
WARM_UP_RUNS = 6


@dataclass(slots=True)
class Ratios:
    """Time over bound, one of each for every draw of every graph."""

    ours: list[float] = field(default_factory=list[float])
    superstep: list[float] = field(default_factory=list[float])
    sequential: list[float] = field(default_factory=list[float])
    oracle: list[float] = field(default_factory=list[float])

    def summary(self) -> dict[str, float]:
        return {
            "ours_mean": _mean(self.ours),
            "ours_p95": _p95(self.ours),
            "superstep_mean": _mean(self.superstep),
            "superstep_p95": _p95(self.superstep),
            "sequential_mean": _mean(self.sequential),
            "oracle_mean": _mean(self.oracle),
            "oracle_p95": _p95(self.oracle),
        }


def _mean(values: Sequence[float]) -> float:
    return round(statistics.mean(values), 3)


def _p95(values: Sequence[float]) -> float:
    return round(statistics.quantiles(values, n=20, method="inclusive")[18], 3)


class Bench:
    """Draws for graphs, worked off by several meshes at once: each waits for its own peers."""

    def __init__(self, peers: Peers, mean_seconds: float, seed: int) -> None:
        self._peers = peers
        self._mean_seconds = mean_seconds
        self._chance = Random(seed)
        self._count = 0
        self._drawn: list[tuple[TaskGraph, Draw]] = []
        self.ratios = Ratios()

    async def work_off(self, jobs: list[tuple[TaskGraph, Any]]) -> None:
        async with open_mesh(self._peers) as mesh:
            for graph, _ in jobs[:WARM_UP_RUNS]:
                await self._timed(mesh, graph, partial(ours, mesh), self._draw(graph))
            while jobs:
                await self._one(mesh, *jobs.pop())

    async def _one(self, mesh: Mesh, graph: TaskGraph, compiled: Any) -> None:
        draw, ratios = self._draw(graph), self.ratios
        least = bound(graph, draw, self._peers)
        arms: list[tuple[list[float], Arm]] = [
            (ratios.ours, partial(ours, mesh)),
            (ratios.superstep, partial(superstep, compiled, mesh)),
            (ratios.sequential, partial(sequential, mesh)),
        ]
        self._chance.shuffle(arms)
        for ratio, arm in arms:
            ratio.append(await self._timed(mesh, graph, arm, draw) / least)
        self._drawn.append((graph, draw))

    def find_oracle(self) -> None:
        """Afterwards, for it takes the processor from what is timed."""
        for graph, draw in self._drawn:
            best = oracle(graph, draw, self._peers, self._chance)
            self.ratios.oracle.append(best / bound(graph, draw, self._peers))

    def _draw(self, graph: TaskGraph) -> Draw:
        return draw_work(graph, self._mean_seconds, self._chance)

    async def _timed(self, mesh: Mesh, graph: TaskGraph, arm: Arm, draw: Draw) -> float:
        self._count += 1
        run = RunId(f"run-{self._count}")
        mesh.draws[run] = draw
        started = time.perf_counter()
        await arm(graph, run)
        return time.perf_counter() - started


async def measure(graphs: Sequence[TaskGraph], peers: Peers, options: argparse.Namespace) -> Ratios:
    bench = Bench(peers, options.mean_ms / 1000, options.seed)
    compiled = [compile_supersteps(graph) for graph in graphs]
    jobs = [job for _ in range(options.rounds) for job in zip(graphs, compiled, strict=True)]
    async with asyncio.TaskGroup() as group:
        for _ in range(options.meshes):
            group.create_task(bench.work_off(jobs))
    bench.find_oracle()
    return bench.ratios


def describe(options: argparse.Namespace, bench: Ratios, graphs: int, seconds: float) -> dict[str, Any]:
    return {
        "peers": "speeds 1.25, 1, 0.8; two slots each in `summary`, one in `one_slot`",
        "graphs": graphs,
        "draws": len(bench.ours),
        "mean_ms": options.mean_ms,
        "sigma": SIGMA,
        "meshes": options.meshes,
        "seed": options.seed,
        "seconds": round(seconds),
        "cpu_count": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }


def compare(path: Path, options: argparse.Namespace) -> dict[str, Any]:
    """What the line says of the graphs in a file."""
    found = read_graphs(path)
    graphs = Random(options.seed).sample(found, min(options.graphs, len(found)))
    started, load = time.monotonic(), round(os.getloadavg()[0], 1)
    two_slots = asyncio.run(measure(graphs, Peers(SPEEDS, 2), options))
    one_slot = asyncio.run(measure(graphs, Peers(SPEEDS, 1), options))
    conditions = describe(options, two_slots, len(graphs), time.monotonic() - started)
    return {
        "summary": two_slots.summary(),
        "one_slot": one_slot.summary(),
        "conditions": {**conditions, "load_average": load},
    }


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON line (the only form there is)")
    parser.add_argument("--graphs", type=int, default=60, help="graphs, sampled")
    parser.add_argument("--rounds", type=int, default=2, help="draws for each graph")
    parser.add_argument("--meshes", type=int, default=6, help="worked off side by side")
    parser.add_argument("--mean-ms", type=float, default=400.0, help="mean work of a task at speed 1")
    parser.add_argument("--seed", type=int, default=7)
    return parser.parse_args()


def main() -> None:
    options = read_options()
    data = Path(os.environ.get("MONAI_BENCH_DATA", ROOT.parent / "shared" / "bench"))
    path = data / "planner" / "mm-dag-dev.jsonl"
    told = compare(path, options) if path.is_file() else {"skipped": f"no data in {data}"}
    print(json.dumps({"bench": "schedule", **told}))


if __name__ == "__main__":
    main()
