# LangGraph ships no stubs and leaves type arguments open.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
"""The ways of working a graph off that are compared."""

from __future__ import annotations

import operator
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Annotated, Any, TypedDict

from schedule_mesh import Mesh

from monai_node.agents.graph import Task, TaskGraph
from monai_node.agents.request import MeshOptions, RunRequest
from monai_node.agents.seats import Seats
from monai_node.registry.events import AnswerCompleted, RunEvent
from monai_node.registry.ids import RunId, new_attempt_id
from monai_node.registry.wire import ChatMessage, TaskInput, TaskRequest
from monai_node.router.dispatch import Dispatched, Done
from monai_node.router.seating import Need

Arm = Callable[[TaskGraph, RunId], Awaitable[object]]


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
