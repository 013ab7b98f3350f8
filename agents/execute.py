"""The tasks of a plan, done by peers: an asynchronous shell around `schedule`, `router.seating` and
the dispatcher. A task that fails takes with it those that need it, and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial

from monai_node.agents.contract import Contract, contract_of
from monai_node.agents.demand import demand_of
from monai_node.agents.fan_out import FanOut
from monai_node.agents.graph import Task
from monai_node.agents.items import split_items
from monai_node.agents.means import Means, candidates_for
from monai_node.agents.plan import Plan
from monai_node.agents.report import Tries, dependency_failed, made, no_items, no_provider, out_of_time
from monai_node.agents.request import RunRequest
from monai_node.agents.schedule import Schedule, carry_out, guessed_seconds
from monai_node.agents.seats import Seats
from monai_node.agents.task_request import build_task_request
from monai_node.agents.telling import Telling
from monai_node.registry.errors import DeadlineExceeded, Internal, MonaiError
from monai_node.registry.ids import new_attempt_id
from monai_node.registry.tasks import task_scope
from monai_node.registry.wire import SUSPECT_AFTER_SECONDS, Label
from monai_node.router.demand import Demand
from monai_node.router.dispatch import Accepted, Dispatched, Done, Lost, Text
from monai_node.router.rank import Candidate
from monai_node.router.seating import Need, seconds_for

# A deadline is the dispatcher's to keep, which then knows what it says of the peer that was asked. This
# much later whatever else a task may wait for is ended.
GRACE_SECONDS = 0.25
# Who waited for a peer this long asks again who there is: one that froze is suspected by then.
_STALE_SECONDS = SUSPECT_AFTER_SECONDS

_Tell = Callable[[Dispatched | Accepted | Text | Lost], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Way:
    """How one task is sent: `key` names it, or one item of it, among those that wait for a peer."""

    task: Task
    key: str
    until: float
    item: str | None = None
    item_count: int = 1


class Execution:
    """The tasks of one run while they are done: their results are here and nowhere else."""

    def __init__(
        self, request: RunRequest, plan: Plan, label: Label, deadline: float, means: Means, telling: Telling
    ) -> None:
        self._request = request
        self._plan = plan
        self._label: Label = label
        self._deadline = deadline
        self._means = means
        self._telling = telling
        self._schedule = Schedule(plan.graph)
        self._seats = Seats(means.clock, self._needs)
        self._is_under_way = asyncio.Event()  # a task was sent
        self._results: dict[str, str] = {}
        self._contracts: dict[str, Contract | None] = {}

    async def carry_out(self) -> None:
        """Return when every task is done or has failed; DeadlineExceeded when time is over before."""
        async with task_scope() as scope:
            if len(self._plan.graph.tasks) > 1:
                scope.start(self._foresee(), name=f"foresee {self._request.run}")
            await carry_out(self._schedule, self._do, self._follow)

    # --- when and where ---------------------------------------------------------------------------------
    async def _foresee(self) -> None:
        """Learn how long the tasks that must still wait are going to take, one after the other, once a
        first task was sent: no task waits for the embedder behind those that come later."""
        await self._is_under_way.wait()
        for name in self._schedule.waiting:
            if name in self._schedule.waiting:  # still: it took time to ask for those before it
                task = self._plan.graph.task(name)
                with suppress(MonaiError):  # said when it is its turn, if it is still true then
                    self._expect(task, await self._candidates(task))

    def _expect(self, task: Task, candidates: Sequence[Candidate], count: int = 1) -> None:
        if candidates:
            self._schedule.expect(task.id, seconds_for(candidates, guessed_seconds(task), count))

    def _needs(self) -> Callable[[str], Need]:
        needs = self._schedule.needs(self._means.clock())
        return lambda key: needs[key.partition("#")[0]]

    def _follow(self, started: tuple[str, ...]) -> None:
        self._seats.announce(started)
        self._seats.settle()

    @asynccontextmanager
    async def _within(self, until: float) -> AsyncGenerator[None]:
        """Within the deadline of a task; its own, when that is earlier than the run's, is told as such."""
        is_own = until < self._deadline
        seconds = until - self._means.clock()
        limit = asyncio.timeout(seconds + GRACE_SECONDS if is_own else None)
        try:
            async with limit:
                yield
        except (DeadlineExceeded, TimeoutError) as error:
            if is_own and (limit.expired() or isinstance(error, DeadlineExceeded)):
                raise out_of_time(seconds) from None
            raise

    def _raise_end_of_run(self, error: MonaiError, until: float) -> None:
        if isinstance(error, DeadlineExceeded) and until >= self._deadline:
            raise error

    # --- one task -------------------------------------------------------------------------------------
    async def _do(self, name: str) -> None:
        task, tries = self._plan.graph.task(name), Tries()
        until = self._schedule.deadline(name, self._means.clock(), self._deadline)
        try:
            if task.each is None:
                await self._make(task, tries, until)
            else:
                await self._make_each(task, task.each, tries, until)
        except MonaiError as error:
            self._raise_end_of_run(error, until)
            self._seats.leave(name)
            await self._telling.failed(task, tries, error)
            for lost in self._schedule.fail(name):
                await self._telling.failed(self._plan.graph.task(lost), Tries(), dependency_failed(task))
        else:
            self._schedule.complete(name)
        finally:
            self._seats.leave(name)

    async def _make(self, task: Task, tries: Tries, until: float) -> None:
        async with self._within(until):
            candidates = await self._able(task)
            self._expect(task, candidates)
            tell = partial(self._telling.progressed, task, tries)
            done = await self._send(_Way(task, task.id, until), candidates, tell)
        self._results[task.id] = done.text
        self._means.routes.served(self._demand(task), done.candidate)
        await self._telling.completed(made(task, done), done.completed.tool_calls)

    async def _able(self, task: Task) -> Sequence[Candidate]:
        candidates = await self._candidates(task)
        if not candidates:
            raise no_provider(self._label)
        return candidates

    async def _candidates(self, task: Task) -> Sequence[Candidate]:
        demand = self._demand(task)
        return await candidates_for(task, self._plan, self._request, demand, self._means.routes)

    def _demand(self, task: Task) -> Demand:
        contract = self._contract(task)
        has_contract = contract is not None and contract.is_checkable
        return demand_of(task, self._plan, self._request, self._label, has_contract=has_contract)

    def _contract(self, task: Task) -> Contract | None:
        if task.id not in self._contracts:
            self._contracts[task.id] = contract_of(task, self._request, self._plan)
        return self._contracts[task.id]

    async def _send(self, way: _Way, candidates: Sequence[Candidate], tell: _Tell) -> Done:
        """Have it done as soon as a peer is free for it. Its seat is the caller's to leave."""
        order = await self._take_seat(way, candidates)
        self._schedule.begin(way.task.id, self._means.clock())
        request = build_task_request(
            self._request,
            self._plan,
            way.task,
            self._results,
            skill=order[0].skill,
            attempt=new_attempt_id(),
            label=self._label,
            now=self._means.now(),
            remaining_seconds=way.until - self._means.clock(),
            item=way.item,
            item_count=way.item_count,
        )
        sending = self._means.dispatcher.send(request, order, way.until, self._contract(way.task))
        async with aclosing(sending) as events:
            async for event in events:
                if isinstance(event, Done):
                    return event
                if isinstance(event, Dispatched):
                    self._is_under_way.set()
                    self._seats.moved(way.key, event.candidate)
                await tell(event)
        raise Internal("the dispatch of a task ended without a result")

    async def _take_seat(self, way: _Way, candidates: Sequence[Candidate]) -> Sequence[Candidate]:
        """Whom to ask, in which order; the first has a slot for it, and was not gone after a long wait."""
        while True:
            began = self._means.clock()
            order = await self._seats.take(way.key, candidates, guessed_seconds(way.task))
            if self._means.clock() - began < _STALE_SECONDS:
                return order
            found: Sequence[Candidate] = ()
            with suppress(MonaiError):
                found = await self._candidates(way.task)
            # Where nobody is left, the first may yet be: a peer may announce for a moment that it is busy.
            if not found or any((it.peer, it.model) == (order[0].peer, order[0].model) for it in found):
                return order
            self._seats.leave(way.key)
            candidates = found

    # --- one task for each item of a list -----------------------------------------------------------------
    async def _make_each(self, task: Task, source: str, tries: Tries, until: float) -> None:
        # In a thread: a result may be a megabyte.
        fan_out = FanOut(task, await asyncio.to_thread(split_items, self._results[source]))
        if not fan_out.items:
            raise no_items(self._plan.graph.task(source))
        async with self._within(until):
            candidates = await self._able(task)
        count = len(fan_out.items)
        self._expect(task, candidates, count)
        self._seats.leave(task.id)  # its items come instead
        began = self._means.clock()
        try:
            async with asyncio.TaskGroup() as group:
                for at, item in enumerate(fan_out.items):
                    way = _Way(task, f"{task.id}#{at}", until, item, count)
                    group.create_task(self._make_item(fan_out, at, way, candidates, tries), name=way.key)
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        if fan_out.error is not None:
            raise fan_out.error
        self._results[task.id] = fan_out.result
        await self._telling.completed(fan_out.provenance(self._means.clock() - began), fan_out.tool_calls)

    async def _make_item(
        self, fan_out: FanOut, at: int, way: _Way, candidates: Sequence[Candidate], tries: Tries
    ) -> None:
        async def tell(event: Dispatched | Accepted | Text | Lost) -> None:
            if fan_out.note(at, event):
                await self._telling.progressed(way.task, tries, event)

        try:
            async with self._within(way.until):
                fan_out.done(at, await self._send(way, candidates, tell))
        except MonaiError as error:
            self._raise_end_of_run(error, way.until)
            fan_out.failed(at, error)
        finally:
            self._seats.leave(way.key)
            self._seats.settle()
        if text := fan_out.take():
            await self._telling.grew(way.task, text)
