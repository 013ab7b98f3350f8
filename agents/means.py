"""What the tasks of a run are done with: who may be asked, what sends them, and the clocks."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from monai_node.agents.graph import Task
from monai_node.agents.passthrough import MESH_MODEL
from monai_node.agents.plan import Plan
from monai_node.agents.request import RunRequest
from monai_node.registry.wire import TaskRequest
from monai_node.router.candidate import Candidate
from monai_node.router.demand import Demand
from monai_node.router.dispatch import DispatchEvent
from monai_node.router.verdict import Check


class Routes(Protocol):
    """Who may be asked, best first; empty when nobody reachable may. Every method may raise a
    MonaiError whose sentence says why nobody can be."""

    async def foresee(self, text: str) -> None:
        """Have ready what `for_text` needs of this text; raises nothing, and need not be waited for."""
        ...

    async def for_text(self, text: str, demand: Demand) -> Sequence[Candidate]:
        """By what the task says: its text is embedded, and the skills that peers announce ranked."""
        ...

    def for_model(self, model: str, demand: Demand) -> Sequence[Candidate]:
        """`alias` or `alias@peer`; NotFound with the code `model_not_found` when nobody serves it."""
        ...

    def for_passthrough(self, demand: Demand) -> Sequence[Candidate]:
        """Who can take a whole conversation."""
        ...

    def for_skill(self, skill: str, demand: Demand) -> Sequence[Candidate]:
        """For a task whose skill is fixed; NotFound when nobody announces it."""
        ...

    def served(self, demand: Demand, candidate: Candidate) -> None:
        """This candidate has done the task of this demand."""
        ...


class Sender(Protocol):
    """`router.dispatch.Dispatcher`, as far as a run knows it."""

    def send(
        self,
        request: TaskRequest,
        candidates: Sequence[Candidate],
        deadline: float,
        check: Check | None = None,
    ) -> AsyncGenerator[DispatchEvent]: ...


@dataclass(frozen=True, slots=True)
class Means:
    """`clock` is monotonic, and the dispatcher's too; `now` the wall clock."""

    routes: Routes
    dispatcher: Sender
    clock: Callable[[], float]
    now: Callable[[], datetime]


async def candidates_for(
    task: Task, plan: Plan, request: RunRequest, demand: Demand, routes: Routes
) -> Sequence[Candidate]:
    """Who may be asked for a task, by what fixes it: its skill, else the model that the request names,
    else that it is a whole conversation, else its words."""
    if task.skill is not None:
        return routes.for_skill(task.skill, demand)
    if request.model != MESH_MODEL:
        return routes.for_model(request.model, demand)
    if plan.is_passthrough:
        return routes.for_passthrough(demand)
    return await routes.for_text(task.text, demand)
