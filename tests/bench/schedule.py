# LangGraph ships no stubs and leaves type arguments open.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
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
import math
import operator
import os
import platform
import re
import statistics
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from random import Random
from typing import Annotated, Any, TypedDict

from monai_node.agents.graph import Task, TaskGraph
from monai_node.agents.request import MeshOptions, RunRequest
from monai_node.agents.run import Runner
from monai_node.agents.seats import Seats
from monai_node.mesh.engine.base import EngineCard
from monai_node.mesh.engine.describe import chat_skill
from monai_node.mesh.provider import Provider
from monai_node.registry.advert import ModelInfo
from monai_node.registry.errors import InvalidRequest
from monai_node.registry.events import AnswerCompleted, RunEvent
from monai_node.registry.ids import PeerId, RunId, new_attempt_id
from monai_node.registry.transport import MemoryNetwork, open_memory_transport
from monai_node.registry.wire import (
    TASK_PROTOCOL,
    ChatMessage,
    Label,
    TaskCompleted,
    TaskDelta,
    TaskInput,
    TaskRequest,
)
from monai_node.router.dispatch import Dispatched, Dispatcher, Done
from monai_node.router.health import Health
from monai_node.router.index import Offer
from monai_node.router.rank import Candidate, rank_general
from monai_node.router.seating import Need

ROOT = Path(__file__).resolve().parents[2]
SIGMA = 0.8  # of the logarithm, as in the simulation that the scheduler's docstring quotes
CHARS_PER_SECOND = 1000  # of work
ORACLE_TRIES = 60
WARM_UP_RUNS = 6
_NODE = re.compile(r"<node-(\d+)")

Draw = dict[str, float]  # seconds of work of each task
Arm = Callable[[TaskGraph, RunId], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Peers:
    """The conditions: how fast each peer is, and how many tasks it does at once."""

    speeds: tuple[float, ...]
    slots: int

    @property
    def machines(self) -> list[float]:
        return [speed for speed in self.speeds for _ in range(self.slots)]


# --- the mesh -------------------------------------------------------------------------------------------
class TimedEngine:
    """Does each task in the seconds that were drawn for it, at its own speed."""

    def __init__(self, speed: float, slots: int, draws: dict[str, Draw]) -> None:
        self._speed = speed
        self._draws = draws
        self._card = EngineCard((chat_skill("worker", "worker"),), ModelInfo(alias="worker"), slots)

    @property
    def card(self) -> EngineCard:
        return self._card

    async def submit(self, request: TaskRequest) -> AsyncGenerator[TaskDelta | TaskCompleted]:
        work = self._draws[request.run][request.task]
        await asyncio.sleep(work / self._speed)
        yield TaskDelta(attempt=request.attempt, text="x" * math.ceil(work * CHARS_PER_SECOND))
        yield TaskCompleted(attempt=request.attempt, model="worker")


def _anybody(_: PeerId, label: Label) -> bool:
    return True


@dataclass
class Mesh:
    """A gateway and some providers in one process. Also the run's `Routes`."""

    providers: dict[PeerId, Provider]
    dispatcher: Dispatcher
    health: Health
    draws: dict[str, Draw]
    runner: Runner = field(init=False)

    def __post_init__(self) -> None:
        self.runner = Runner(self, self.dispatcher, time.monotonic, "trusted", lambda: datetime.now(UTC))

    def candidates(self) -> Sequence[Candidate]:
        offers = [
            Offer(peer, peer, "trusted", skill, provider.models[0], provider.running, provider.queued)
            for peer, provider in self.providers.items()
            for skill in provider.skills
        ]
        now = time.monotonic()
        return rank_general(offers, False, label="trusted", health=self.health, now=now).candidates

    async def for_text(self, text: str, label: Label) -> Sequence[Candidate]:
        return self.candidates()

    def for_model(self, model: str, label: Label) -> Sequence[Candidate]:
        return self.candidates()

    def for_passthrough(self, label: Label, *, needs_tools: bool) -> Sequence[Candidate]:
        return self.candidates()

    def for_skill(self, skill: str, label: Label) -> Sequence[Candidate]:
        return self.candidates()


@asynccontextmanager
async def open_mesh(peers: Peers) -> AsyncGenerator[Mesh]:
    network, draws, health = MemoryNetwork(), dict[str, Draw](), Health()
    async with AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(open_memory_transport(PeerId("gateway"), network))
        providers: dict[PeerId, Provider] = {}
        for number, speed in enumerate(peers.speeds):
            peer = PeerId(f"peer-{number}")
            transport = await stack.enter_async_context(open_memory_transport(peer, network))
            engine = TimedEngine(speed, peers.slots, draws)
            providers[peer] = Provider([engine], _anybody, lambda: None)
            transport.handle(TASK_PROTOCOL, providers[peer].serve)
        yield Mesh(providers, Dispatcher(gateway, time.monotonic, health), health, draws)


# --- the arms -------------------------------------------------------------------------------------------
async def ours(mesh: Mesh, graph: TaskGraph, run: RunId) -> None:
    options = MeshOptions(plan=list(graph.tasks))
    request = RunRequest(run, (ChatMessage(role="user", content="work"),), options=options)
    last: RunEvent | None = None
    async with aclosing(mesh.runner.run(request)) as events:
        async for event in events:
            last = event
    assert isinstance(last, AnswerCompleted), last


class _State(TypedDict):
    results: Annotated[dict[str, str], operator.or_]


async def superstep(compiled: Any, mesh: Mesh, graph: TaskGraph, run: RunId) -> None:
    ended = await compiled.ainvoke({"results": {}}, context=_Run(mesh, run))
    assert set(ended["results"]) == {task.id for task in graph.tasks}


async def sequential(mesh: Mesh, graph: TaskGraph, run: RunId) -> None:
    alone, results = _Run(mesh, run), dict[str, str]()
    while len(results) < len(graph.tasks):
        name = graph.ready(results)[0]
        results[name] = await alone.do(graph.task(name), results)


@dataclass(slots=True)
class _Run:
    """One run of the arms that are not ours: peers by earliest finish, first come first served."""

    mesh: Mesh
    run: RunId
    seats: Seats = field(default_factory=lambda: Seats(time.monotonic, lambda: lambda _: Need(0.0, 0.0)))

    async def do(self, task: Task, results: dict[str, str]) -> str:
        request = TaskRequest(
            run=self.run,
            task=task.id,
            attempt=new_attempt_id(),
            skill="chat",
            input=TaskInput(text=" ".join([task.text, *(results[name] for name in task.depends_on)])),
            remaining_ms=60_000,
        )
        try:
            order = await self.seats.take(task.id, self.mesh.candidates(), 1.0)
            deadline = time.monotonic() + 60.0
            async with aclosing(self.mesh.dispatcher.send(request, order, deadline)) as events:
                async for event in events:
                    if isinstance(event, Dispatched):
                        self.seats.moved(task.id, event.candidate)
                    if isinstance(event, Done):
                        return event.text
        finally:
            self.seats.leave(task.id)
            self.seats.settle()
        raise AssertionError("a dispatch ended without a result")


def compile_supersteps(graph: TaskGraph) -> Any:
    """The graph in LangGraph: a node waits for all the nodes that it depends on."""
    from langgraph.graph import END, START, StateGraph
    from langgraph.runtime import Runtime

    def node_of(task: Task) -> Any:
        async def node(state: _State, runtime: Runtime[_Run]) -> _State:
            return {"results": {task.id: await runtime.context.do(task, state["results"])}}

        return node

    steps = StateGraph(_State, _Run)
    for task in graph.tasks:
        steps.add_node(task.id, node_of(task))
    for task in graph.tasks:
        if task.depends_on:
            steps.add_edge(list(task.depends_on), task.id)
        else:
            steps.add_edge(START, task.id)
    for name in graph.sinks:
        steps.add_edge(name, END)
    return steps.compile()


# --- what is possible -----------------------------------------------------------------------------------
def chains(graph: TaskGraph, draw: Draw) -> Draw:
    """The work of the heaviest chain that begins with each task."""
    found: Draw = {}

    def measure(name: str) -> float:
        if name not in found:
            found[name] = draw[name] + max(map(measure, graph.dependants(name)), default=0.0)
        return found[name]

    for task in graph.tasks:
        measure(task.id)
    return found


def bound(graph: TaskGraph, draw: Draw, peers: Peers) -> float:
    chain = max(chains(graph, draw).values()) / max(peers.speeds)
    return max(chain, sum(draw.values()) / sum(peers.machines))


def oracle(graph: TaskGraph, draw: Draw, peers: Peers, chance: Random) -> float:
    """The shortest of many list schedules that know the draws: priorities near the heaviest chain, the
    machine of the earliest finish, now and then the next one."""
    tails, best = chains(graph, draw), math.inf
    for number in range(ORACLE_TRIES):
        spread = 0.4 if number else 0.0
        first = {name: tail * math.exp(chance.gauss(0.0, spread)) for name, tail in tails.items()}
        stray_share = 0.15 if number % 2 else 0.0
        best = min(best, _list_schedule(graph, draw, peers, first, partial(_is_below, chance, stray_share)))
    return best


def _is_below(chance: Random, share: float) -> bool:
    return chance.random() < share


def _list_schedule(
    graph: TaskGraph, draw: Draw, peers: Peers, first: Draw, strays: Callable[[], bool]
) -> float:
    speeds, free, done = peers.machines, [0.0] * len(peers.machines), dict[str, float]()
    while len(done) < len(graph.tasks):
        name = max(graph.ready(done), key=lambda name: first[name])
        ready = max((done[other] for other in graph.task(name).depends_on), default=0.0)
        ends = sorted((max(at, ready) + draw[name] / speeds[n], n) for n, at in enumerate(free))
        done[name], machine = ends[1 if strays() and len(ends) > 1 else 0]
        free[machine] = done[name]
    return max(done.values())


# --- measuring ------------------------------------------------------------------------------------------
def read_graphs(path: Path) -> list[TaskGraph]:
    """The acyclic graphs with more than one task: a node depends on the nodes its arguments name."""
    graphs: list[TaskGraph] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        tasks: list[Task] = []
        for number, (node, text) in enumerate(zip(row["task_nodes"], _texts(row), strict=True)):
            needs = {int(found[1]) for value in node["arguments"] if (found := _NODE.match(str(value)))}
            needs = {need for need in needs if need < len(row["task_nodes"])}
            tasks.append(Task(id=f"t{number}", text=text, depends_on=[f"t{need}" for need in sorted(needs)]))
        try:
            graph = TaskGraph(tasks=tuple(tasks)).check()
        except InvalidRequest:
            continue
        if len(tasks) > 1:
            graphs.append(graph)
    return graphs


def _texts(row: dict[str, Any]) -> list[str]:
    return [str(node["task"]) for node in row["task_nodes"]]


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


def draw_work(graph: TaskGraph, mean_seconds: float, chance: Random) -> Draw:
    mu = math.log(mean_seconds) - SIGMA**2 / 2
    return {task.id: chance.lognormvariate(mu, SIGMA) for task in graph.tasks}


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


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON line (the only form there is)")
    parser.add_argument("--graphs", type=int, default=60, help="graphs, sampled")
    parser.add_argument("--rounds", type=int, default=2, help="draws for each graph")
    parser.add_argument("--meshes", type=int, default=6, help="worked off side by side")
    parser.add_argument("--mean-ms", type=float, default=400.0, help="mean work of a task at speed 1")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    data = Path(os.environ.get("MONAI_BENCH_DATA", ROOT.parent / "shared" / "bench"))
    path = data / "planner" / "mm-dag-dev.jsonl"
    line: dict[str, Any] = {"bench": "schedule"}
    if path.is_file():
        found = read_graphs(path)
        graphs = Random(options.seed).sample(found, min(options.graphs, len(found)))
        conditions = {"two_slots": Peers((1.25, 1.0, 0.8), 2), "one_slot": Peers((1.25, 1.0, 0.8), 1)}
        load = os.getloadavg()[0]
        started = time.monotonic()
        done = {name: asyncio.run(measure(graphs, peers, options)) for name, peers in conditions.items()}
        line["summary"] = done["two_slots"].summary()
        line["one_slot"] = done["one_slot"].summary()
        line["conditions"] = {
            "peers": "speeds 1.25, 1, 0.8; two slots each in `summary`, one in `one_slot`",
            "graphs": len(graphs),
            "draws": len(done["two_slots"].ours),
            "mean_ms": options.mean_ms,
            "sigma": SIGMA,
            "meshes": options.meshes,
            "seed": options.seed,
            "seconds": round(time.monotonic() - started),
            "load_average": round(load, 1),
            "cpu_count": os.cpu_count(),
            "machine": platform.machine(),
            "python": platform.python_version(),
        }
    else:
        line["skipped"] = f"no data in {data}"
    print(json.dumps(line))


if __name__ == "__main__":
    main()
