"""The ready-set scheduler: every task starts the moment the last task it depends on is done.

There are no rounds: a slow task delays what needs its result and nothing else. Rounds, which is how
LangGraph's supersteps would run the same graph, lengthen the critical path by 4.7 % in the mean and by
32 % at the 95th percentile (551 task graphs of TaskBench, simulated with log-normal durations).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from monai_node.agents.graph import TaskGraph

TASKS_AT_ONCE = 8  # of one run: more than most meshes have peers, and bounds what one request may take


class Schedule:
    """Which tasks may start, given what is done and what failed. No clock, no I/O.

    At most `width` tasks are working at a time; when more are ready, those go first that have the
    longest chain of tasks still behind them, and plan order breaks ties.
    """

    def __init__(self, graph: TaskGraph, width: int = TASKS_AT_ONCE) -> None:
        if width < 1:
            raise ValueError(f"a schedule of width {width} would never start a task")
        self._graph = graph
        self._width = width
        self._chain = _remaining_chains(graph)
        self._working: set[str] = set()
        self._done: set[str] = set()
        self._failed: set[str] = set()

    def start(self) -> tuple[str, ...]:
        """The tasks to start now. They count as working from here on, so no task is returned twice."""
        ready = self._graph.ready(self._done, self._working, self._failed)
        first = sorted(ready, key=lambda name: -self._chain[name])[: self._width - len(self._working)]
        self._working.update(first)
        return tuple(first)

    def complete(self, name: str) -> None:
        self._end(name)
        self._done.add(name)

    def fail(self, name: str) -> tuple[str, ...]:
        """Also the tasks that cannot run any more because of it, in plan order, each told once."""
        self._end(name)
        lost = tuple(other for other in self._graph.downstream(name) if other not in self._failed)
        self._failed.update((name, *lost))
        return lost

    @property
    def is_over(self) -> bool:
        return len(self._done) + len(self._failed) == len(self._graph.tasks)

    def _end(self, name: str) -> None:
        if name not in self._working:
            raise ValueError(f"task {name!r} is not working")
        self._working.remove(name)


async def carry_out(schedule: Schedule, work: Callable[[str], Awaitable[None]]) -> None:
    """Do every task of the schedule, each in a task of its own; returns when all have ended.

    `work` does one task and tells the schedule what became of it. If it raises, the others are
    cancelled and awaited, and the exception leaves here as itself.
    """
    try:
        async with asyncio.TaskGroup() as group:

            def start_ready() -> None:
                for name in schedule.start():
                    group.create_task(one(name), name=f"task {name}")

            async def one(name: str) -> None:
                await work(name)
                start_ready()

            start_ready()
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None


def _remaining_chains(graph: TaskGraph) -> dict[str, int]:
    """How many tasks the longest chain has that begins with each task."""
    chains: dict[str, int] = {}

    def measure(name: str) -> int:
        if name not in chains:
            chains[name] = 1 + max(map(measure, graph.dependants(name)), default=0)
        return chains[name]

    for task in graph.tasks:
        measure(task.id)
    return chains
