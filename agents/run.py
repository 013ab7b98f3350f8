"""One request from start to end: plan, have peers do the tasks, answer; told in events as it happens.

The asynchronous shell of this package. What to do is decided in `plan`, when in `schedule`, what is
sent in `task_request`, what the user reads in `answer`, and who does it in `router`; here is awaited.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from monai_node.agents.answer import Answer
from monai_node.agents.feed import Feed
from monai_node.agents.graph import Task
from monai_node.agents.passthrough import MESH_MODEL
from monai_node.agents.phases import Conduct, open_phases
from monai_node.agents.plan import Plan
from monai_node.agents.planner import Planner
from monai_node.agents.report import (
    Tries,
    dependency_failed,
    made,
    no_provider,
    not_made,
    planned,
    progress,
)
from monai_node.agents.request import RunRequest
from monai_node.agents.schedule import Schedule, carry_out
from monai_node.agents.task_request import build_task_request, permitted_calls
from monai_node.registry.errors import DeadlineExceeded, Internal, MonaiError, log_defect
from monai_node.registry.events import (
    AnswerCompleted,
    RunCreated,
    RunEvent,
    RunFailed,
    TaskWasCompleted,
    TaskWasFailed,
    run_failed,
)
from monai_node.registry.ids import new_attempt_id
from monai_node.registry.tasks import task_scope
from monai_node.registry.wire import Label, TaskRequest
from monai_node.router.dispatch import Accepted, Dispatched, DispatchEvent, Done, Lost, Text
from monai_node.router.rank import Candidate

_log = logging.getLogger(__name__)


class Routes(Protocol):
    """Who may be asked, best first; empty when nobody reachable may. Every method may raise a
    MonaiError whose sentence says why nobody can be."""

    async def for_text(self, text: str, label: Label) -> Sequence[Candidate]:
        """By what the task says: its text is embedded, and the skills that peers announce ranked."""
        ...

    def for_model(self, model: str, label: Label) -> Sequence[Candidate]:
        """`alias` or `alias@peer`; NotFound with the code `model_not_found` when nobody serves it."""
        ...

    def for_passthrough(self, label: Label, *, needs_tools: bool) -> Sequence[Candidate]:
        """Who can take a whole conversation."""
        ...

    def for_skill(self, skill: str, label: Label) -> Sequence[Candidate]:
        """For a task whose skill is fixed; NotFound when nobody announces it."""
        ...


class Sender(Protocol):
    """`router.dispatch.Dispatcher`, as far as a run knows it."""

    def send(
        self, request: TaskRequest, candidates: Sequence[Candidate], deadline: float
    ) -> AsyncGenerator[DispatchEvent]: ...


@dataclass(frozen=True, slots=True)
class _Surroundings:
    routes: Routes
    dispatcher: Sender
    clock: Callable[[], float]
    default_label: Label
    now: Callable[[], datetime]
    planner: Planner
    conduct: Conduct


class Runner:
    """Runs requests, any number at once. Making one imports LangGraph, which takes seconds.

    `clock` is monotonic, in seconds, and also the dispatcher's; `now` is the wall clock, with its
    offset. Without a `planner`, requests are planned by rules.
    """

    def __init__(
        self,
        routes: Routes,
        dispatcher: Sender,
        clock: Callable[[], float],
        default_label: Label,
        now: Callable[[], datetime],
        planner: Planner | None = None,
    ) -> None:
        planner = planner or Planner()
        self._around = _Surroundings(routes, dispatcher, clock, default_label, now, planner, open_phases())

    async def plan(self, request: RunRequest) -> Plan:
        """What `run` would carry out; InvalidRequest when there can be no plan."""
        label = request.options.privacy or self._around.default_label
        return await self._around.planner.plan(request, label)

    async def run(self, request: RunRequest) -> AsyncGenerator[RunEvent]:
        """The events of the run, the last one `answer.completed` or `error`; raises no error itself.

        It ends within the deadline of the request. A slow reader slows the run down. Closing the
        generator cancels every task of the run, and returns when their streams are reset.
        """
        run = _Run(request, self._around)
        async with task_scope() as scope:
            scope.start(run.carry_out(), name=f"run {request.run}")
            is_over = False
            while not is_over:
                event = await run.feed.next()
                is_over = isinstance(event, AnswerCompleted | RunFailed)
                yield event


class _Run:
    """One run while it goes: its results are here and nowhere else."""

    def __init__(self, request: RunRequest, around: _Surroundings) -> None:
        self.feed = Feed(request.run)
        self._request = request
        self._run = request.run
        self._around = around
        self._deadline = around.clock() + request.options.deadline_seconds
        self._label: Label = request.options.privacy or around.default_label
        self._results: dict[str, str] = {}
        # Each is set by the phase before the one that reads it.
        self._plan: Plan
        self._answer: Answer
        self._schedule: Schedule
        self._ending: AnswerCompleted

    async def carry_out(self) -> None:
        """Take the run through its phases; whatever happens there, the last event says how it ended."""
        await self.feed.say(RunCreated(run=self._run))
        error = await self._conduct()
        if error is None:
            await self.feed.say(self._ending)
            return
        for task in self.feed.open_tasks:
            await self.feed.say(self._task_failed(task, error))
        await self.feed.say(run_failed(self._run, error))

    async def _conduct(self) -> MonaiError | None:
        """All phases, within the deadline: the error that ended them, None after the last one."""
        limit = asyncio.timeout(self._deadline - self._around.clock())
        try:
            async with limit:
                await self._around.conduct(self)
        except MonaiError as error:
            return error
        except Exception as error:
            # An entry point: a defect must end this one run with an error, and only it.
            if limit.expired():
                seconds = self._request.options.deadline_seconds
                return DeadlineExceeded(f"no answer within the {seconds:g} seconds of this request")
            log_defect(f"run {self._run}", error)
            return Internal("the run failed for a reason inside this node; its log says where")
        return None

    # --- phases ---------------------------------------------------------------------------------------
    async def plan(self) -> None:
        self._plan = await self._around.planner.plan(self._request, self._label)
        self._answer = Answer(self._plan)
        for event in planned(self._run, self._plan.graph):
            await self.feed.say(event)

    async def execute(self) -> None:
        self._schedule = Schedule(self._plan.graph)
        await carry_out(self._schedule, self._do)

    async def merge(self) -> None:
        self._ending = self._answer.ending(self._run)

    # --- one task -------------------------------------------------------------------------------------
    async def _do(self, name: str) -> None:
        task, tries = self._plan.graph.task(name), Tries()
        try:
            done = await self._send(task, tries)
        except DeadlineExceeded:
            raise  # of the run: a task has no other
        except MonaiError as error:
            await self._failed(task, tries, error)
            for lost in self._schedule.fail(name):
                await self._failed(self._plan.graph.task(lost), Tries(), dependency_failed(task))
        else:
            await self._completed(task, done)
            self._schedule.complete(name)

    async def _send(self, task: Task, tries: Tries) -> Done:
        candidates = await self._candidates(task)
        if not candidates:
            raise no_provider(self._label)
        request = build_task_request(
            self._request,
            self._plan,
            task,
            self._results,
            skill=candidates[0].skill,
            attempt=new_attempt_id(),
            label=self._label,
            now=self._around.now(),
            remaining_seconds=self._deadline - self._around.clock(),
        )
        sending = self._around.dispatcher.send(request, candidates, self._deadline)
        async with aclosing(sending) as events:
            async for event in events:
                if isinstance(event, Done):
                    return event
                await self._progressed(task, tries, event)
        raise Internal("the dispatch of a task ended without a result")

    async def _candidates(self, task: Task) -> Sequence[Candidate]:
        routes, request = self._around.routes, self._request
        if task.skill is not None:
            return routes.for_skill(task.skill, self._label)
        if request.model != MESH_MODEL:
            return routes.for_model(request.model, self._label)
        if self._plan.is_passthrough:
            needs_tools = bool(request.parameters.tools) or self._plan.reason == "tools"
            return routes.for_passthrough(self._label, needs_tools=needs_tools)
        return await routes.for_text(task.text, self._label)

    async def _progressed(self, task: Task, tries: Tries, event: Dispatched | Accepted | Text | Lost) -> None:
        said = progress(self._run, task, event)
        match event:
            case Dispatched():
                tries.note(event, self._around.clock())
                await self.feed.say(said)
            case Text(text=text):
                await self.feed.say(said, lambda: self._answer.delta(task.id, text))
            case _:
                await self.feed.say(said)

    async def _completed(self, task: Task, done: Done) -> None:
        self._results[task.id] = done.text
        part = made(task, done)
        calls = permitted_calls(done.completed.tool_calls, self._request.parameters)
        event = TaskWasCompleted(run=self._run, task=task.id, provenance=part)
        await self.feed.say(event, lambda: self._answer.completed(part, calls))

    async def _failed(self, task: Task, tries: Tries, error: MonaiError) -> None:
        part = not_made(task, tries, error, self._around.clock())
        await self.feed.say(self._task_failed(task.id, error), lambda: self._answer.failed(part, error))

    def _task_failed(self, task: str, error: MonaiError) -> TaskWasFailed:
        return TaskWasFailed(run=self._run, task=task, code=error.code, message=error.message)
