"""One request from start to end: plan, have peers do the tasks, answer; told in events as it happens.

The asynchronous shell of this package, with `execute`. What to do is decided in `plan`, when in
`schedule`, what is sent in `task_request`, what the user reads in `answer`, and who does it in `router`;
here is awaited.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from datetime import datetime

from monai_node.agents.answer import Answer
from monai_node.agents.execute import GRACE_SECONDS, Execution
from monai_node.agents.feed import Feed
from monai_node.agents.means import Means, Routes, Sender
from monai_node.agents.phases import Conduct, open_phases
from monai_node.agents.plan import Plan
from monai_node.agents.planner import Planner
from monai_node.agents.report import planned
from monai_node.agents.request import RunRequest
from monai_node.agents.telling import Telling
from monai_node.registry.errors import DeadlineExceeded, Internal, MonaiError, log_defect
from monai_node.registry.events import (
    AnswerCompleted,
    RunCreated,
    RunEvent,
    RunFailed,
    TaskWasFailed,
    run_failed,
)
from monai_node.registry.tasks import TaskScope, task_scope
from monai_node.registry.wire import Label

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Surroundings:
    means: Means
    default_label: Label
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
        means = Means(routes, dispatcher, clock, now)
        self._around = _Surroundings(means, default_label, planner, open_phases())

    async def plan(self, request: RunRequest) -> Plan:
        """What `run` would carry out; InvalidRequest when there can be no plan."""
        label = request.options.privacy or self._around.default_label
        return await self._around.planner.plan(request, label)

    async def run(self, request: RunRequest) -> AsyncGenerator[RunEvent]:
        """The events of the run, the last one `answer.completed` or `error`; raises no error itself.

        It ends within the deadline of the request. A slow reader slows the run down. Closing the
        generator cancels every task of the run, and returns when their streams are reset.
        """
        async with task_scope() as scope:
            run = _Run(request, self._around, scope)
            scope.start(run.carry_out(), name=f"run {request.run}")
            is_over = False
            while not is_over:
                event = await run.feed.next()
                is_over = isinstance(event, AnswerCompleted | RunFailed)
                yield event


class _Run:
    """One run while it goes."""

    def __init__(self, request: RunRequest, around: _Surroundings, scope: TaskScope) -> None:
        self._scope = scope
        self.feed = Feed(request.run)
        self._request = request
        self._run = request.run
        self._around = around
        self._deadline = around.means.clock() + request.options.deadline_seconds
        self._label: Label = request.options.privacy or around.default_label
        # Each is set by the phase before the one that reads it.
        self._plan: Plan
        self._answer: Answer
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
        limit = asyncio.timeout(self._deadline - self._around.means.clock() + GRACE_SECONDS)
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
        self._plan = await self._around.planner.plan(self._request, self._label, self._foresee)
        self._answer = Answer(self._plan)
        for event in planned(self._run, self._plan):
            await self.feed.say(event)

    async def execute(self) -> None:
        means = self._around.means
        telling = Telling(self._request, self.feed, self._answer, means.clock)
        tasks = Execution(self._request, self._plan, self._label, self._deadline, means, telling)
        await tasks.carry_out()

    async def merge(self) -> None:
        self._ending = self._answer.ending(self._run)

    def _foresee(self, text: str) -> None:
        """Whoever may do it is asked for after this: meanwhile the plan and the contract are made."""
        self._scope.start(self._around.means.routes.foresee(text), name=f"foresee {self._run}")

    def _task_failed(self, task: str, error: MonaiError) -> TaskWasFailed:
        return TaskWasFailed(run=self._run, task=task, code=error.code, message=error.message)
