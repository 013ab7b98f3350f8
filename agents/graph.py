"""Tasks and the graph they form. Pure values; the plan's owner may read, edit and send them back."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

from monai_node.registry.errors import InvalidRequest

TASKS_MAX = 32
DEPTH_MAX = 16
TASK_TEXT_CHARS_MAX = 1 << 20
FAN_OUT_MAX = 16  # items that one task is done for
# Tasks that are read at all: beyond TASKS_MAX to be told how many there are, no further.
TASKS_READ_MAX = 1024

_TaskName = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[\w-]+$")]


class Task(BaseModel):
    """One thing to be done by one peer.

    `text` is the task in words, cut from the request. `depends_on` names the tasks whose results it is
    given. `turns` are indices of the earlier messages of the conversation that it needs. `skill` fixes
    the skill; None leaves the choice to the router. `each` names one of `depends_on` whose result is a
    list: the task is then done once for every item of it, at most FAN_OUT_MAX, and its own result is the
    list of what came of them. A task that depends on it is given that whole list (fan-out and reduce).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: _TaskName
    text: str = Field(min_length=1, max_length=TASK_TEXT_CHARS_MAX)
    depends_on: list[_TaskName] = Field(default_factory=list[str], max_length=TASKS_MAX)
    turns: list[int] = Field(default_factory=list[int], max_length=1024)
    skill: str | None = Field(default=None, max_length=128)
    each: _TaskName | None = None


class TaskGraph(BaseModel):
    """Tasks in plan order: the order in which their results are shown and ties are broken.

    Every method but `check` and `repair` supposes a graph that passes `check`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tasks: tuple[Task, ...] = Field(max_length=TASKS_READ_MAX, fail_fast=True)

    def check(self) -> Self:
        """This graph; InvalidRequest with one sentence when it cannot be run."""
        names = [task.id for task in self.tasks]
        if not names:
            raise _invalid("a plan needs at least one task")
        if len(names) > TASKS_MAX:
            raise _invalid(f"the plan has {len(names)} tasks; {TASKS_MAX} is the most")
        known: set[str] = set()
        for name in names:
            if name in known:
                raise _invalid(f"two tasks of the plan are called {name!r}")
            known.add(name)
        for task in self.tasks:
            for other in task.depends_on:
                if other == task.id:
                    raise _invalid(f"task {task.id!r} depends on itself")
                if other not in known:
                    raise _invalid(f"task {task.id!r} depends on {other!r}, which is not in the plan")
            if task.each is not None and task.each not in task.depends_on:
                raise _invalid(
                    f"task {task.id!r} is to be done for each of {task.each!r}, and does not depend on it"
                )
        depths = _depths(self.tasks)
        stuck = [name for name in names if name not in depths]
        if stuck:
            raise _invalid(f"the tasks {', '.join(map(repr, stuck))} wait for each other in a circle")
        if self.depth > DEPTH_MAX:
            raise _invalid(f"the plan is {self.depth} tasks deep; {DEPTH_MAX} is the most")
        return self

    @classmethod
    def repair(cls, tasks: Iterable[Task]) -> TaskGraph:
        """An acyclic graph of these tasks, the same for the same input.

        A second task of the same name is dropped, and so are references to nothing, to itself, repeated
        ones, and those that would close a circle. References to earlier tasks are kept before any
        reference to a later one is looked at: what was said first wins. A task to be done for each item
        of another depends on it; where it cannot, it is done once.
        """
        first: dict[str, Task] = {}
        for task in tasks:
            first.setdefault(task.id, task)
        ordered = tuple(first.values())
        place = {task.id: index for index, task in enumerate(ordered)}
        wanted = [
            (task.id, other)
            for task in ordered
            for other in _needed(task)
            if other in place and other != task.id
        ]
        kept: dict[str, set[str]] = {task.id: set() for task in ordered}
        for name, other in sorted(wanted, key=lambda edge: place[edge[1]] > place[edge[0]]):
            if not _reaches(kept, other, name):
                kept[name].add(other)
        return cls(tasks=tuple(_with_needs(task, kept[task.id]) for task in ordered))

    def task(self, name: str) -> Task:
        """The task of that name; KeyError when there is none."""
        for task in self.tasks:
            if task.id == name:
                return task
        raise KeyError(name)

    def ready(
        self, done: Collection[str], started: Collection[str] = (), failed: Collection[str] = ()
    ) -> tuple[str, ...]:
        """Tasks to start now: not yet started, done or failed, and all they depend on is done."""
        return tuple(
            task.id
            for task in self.tasks
            if task.id not in done
            and task.id not in started
            and task.id not in failed
            and all(other in done for other in task.depends_on)
        )

    def dependants(self, name: str) -> tuple[str, ...]:
        """Tasks that are given this task's result."""
        return tuple(task.id for task in self.tasks if name in task.depends_on)

    def downstream(self, name: str) -> tuple[str, ...]:
        """Tasks that cannot run without this one, at any distance."""
        reached = {name}
        while True:
            more = {
                task.id
                for task in self.tasks
                if task.id not in reached and any(other in reached for other in task.depends_on)
            }
            if not more:
                return tuple(task.id for task in self.tasks if task.id in reached - {name})
            reached |= more

    @property
    def depth(self) -> int:
        """How many tasks the longest chain has."""
        return max(_depths(self.tasks).values(), default=0)

    @property
    def sinks(self) -> tuple[str, ...]:
        """Tasks whose result no other task is given."""
        used = {other for task in self.tasks for other in task.depends_on}
        return tuple(task.id for task in self.tasks if task.id not in used)


def _invalid(sentence: str) -> InvalidRequest:
    return InvalidRequest(sentence, param="mesh.plan")


def _needed(task: Task) -> tuple[str, ...]:
    """What a task refers to, each once, in the order in which it says so."""
    return tuple(dict.fromkeys([*task.depends_on, *([] if task.each is None else [task.each])]))


def _with_needs(task: Task, kept: set[str]) -> Task:
    each = task.each if task.each in kept else None
    return task.model_copy(
        update={"depends_on": [other for other in _needed(task) if other in kept], "each": each}
    )


def _depths(tasks: tuple[Task, ...]) -> dict[str, int]:
    """Length of the longest chain that ends in each task; tasks on or behind a circle are left out."""
    depths: dict[str, int] = {}
    waiting = list(tasks)
    while waiting:
        rest: list[Task] = []
        for task in waiting:
            if all(other in depths for other in task.depends_on):
                depths[task.id] = 1 + max((depths[other] for other in task.depends_on), default=0)
            else:
                rest.append(task)
        if len(rest) == len(waiting):
            break
        waiting = rest
    return depths


def _reaches(edges: dict[str, set[str]], start: str, goal: str) -> bool:
    """Whether `start` depends on `goal`, directly or through others."""
    seen: set[str] = set()
    stack = [start]
    while stack:
        name = stack.pop()
        if name == goal:
            return True
        if name not in seen:
            seen.add(name)
            stack.extend(edges[name])
    return False
