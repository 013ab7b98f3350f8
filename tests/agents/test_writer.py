from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import aclosing

import pytest

from monai_node.agents.plan import Draft, Plan, begin
from monai_node.agents.request import RunRequest
from monai_node.agents.writer import Rests, Writers, writing
from monai_node.registry.errors import InvalidRequest, PeerLost
from monai_node.registry.ids import AttemptId, PeerId, RunId
from monai_node.registry.wire import ChatMessage, TaskCompleted, TaskRequest
from monai_node.router.dispatch import Dispatched, DispatchEvent, Done
from monai_node.router.policy import Policy
from monai_node.router.rank import Candidate
from monai_node.router.verdict import Check

PLAN = '{"tasks": [{"text": "Name a tree", "needs": []}, {"text": "write a poem about rivers", "needs": []}]}'


def candidate(peer: str) -> Candidate:
    return Candidate(PeerId(peer), peer, "chat", "large", is_general=True, score=1.0, reasons=())


A, B, C = map(candidate, "abc")


def draft() -> Draft:
    text = "Name a tree. Then write a poem about rivers."
    begun = begin(RunRequest(RunId("r"), (ChatMessage(role="user", content=text),)))
    assert isinstance(begun, Draft)
    return begun


def run(planning: Awaitable[Plan | None]) -> Plan | None:
    async def awaited() -> Plan | None:
        async with asyncio.timeout(10):
            return await planning

    return asyncio.run(awaited())


class Sender:
    """Answers with `text` after `wait`, or fails with `error`; remembers what it was asked."""

    def __init__(self, text: str = PLAN, error: Exception | None = None) -> None:
        self.sent: list[tuple[TaskRequest, list[Candidate], float]] = []
        self.text = text
        self.error = error
        self.is_stuck = False
        self.was_closed = False

    async def send(
        self,
        request: TaskRequest,
        candidates: Sequence[Candidate],
        deadline: float,
        check: Check | None = None,
    ) -> AsyncGenerator[DispatchEvent]:
        self.sent.append((request, list(candidates), deadline))
        attempt = AttemptId(request.attempt)
        try:
            yield Dispatched(attempt, candidates[0], 1)
            if self.is_stuck:
                await asyncio.Event().wait()
            if self.error is not None:
                raise self.error
            completed = TaskCompleted(attempt=attempt)
            yield Done(attempt, candidates[0], completed, self.text, 0.1, 1)
        finally:
            self.was_closed = True


def test_a_plan_is_asked_for_as_a_task_under_label_schema_and_deadline() -> None:
    sender = Sender()
    source = writing(Writers(sender, lambda: 100.0), lambda policy: [A, B, C], seconds=8.0)
    found = run(source.plan(draft(), Policy("local")))
    assert found is not None
    assert found.planner == source.name == "model"
    ((request, candidates, deadline),) = sender.sent
    assert (request.label, request.skill, request.model) == ("local", "chat", "large")
    assert request.input.is_conversation
    assert request.parameters.json_schema is not None
    assert (request.parameters.temperature, request.remaining_ms) == (0.0, 8000)
    assert candidates == [A, B]
    assert deadline == 108.0
    assert sender.was_closed


def test_nobody_is_asked_when_nobody_may_be() -> None:
    sender = Sender()
    source = writing(Writers(sender, lambda: 0.0), lambda policy: [])
    assert run(source.plan(draft(), Policy("trusted"))) is None
    assert sender.sent == []


def test_a_server_that_refuses_the_schema_is_asked_without_from_then_on() -> None:
    class Refusing(Sender):
        async def send(
            self,
            request: TaskRequest,
            candidates: Sequence[Candidate],
            deadline: float,
            check: Check | None = None,
        ) -> AsyncGenerator[DispatchEvent]:
            self.error = InvalidRequest("maxItems?") if request.parameters.json_schema else None
            async with aclosing(super().send(request, candidates, deadline)) as events:
                async for event in events:
                    yield event

    sender = Refusing()
    writers = Writers(sender, lambda: 0.0)
    for _ in range(2):
        assert run(writers.plan(draft(), [A, B], "trusted", 8.0)) is not None
    has_schema = [request.parameters.json_schema is not None for request, _, _ in sender.sent]
    assert has_schema == [True, False, False]


def test_cancelling_closes_the_stream_and_a_late_model_rests() -> None:
    sender, now = Sender(), [0.0]
    sender.is_stuck = True
    writers = Writers(sender, lambda: now[0])

    async def cancelled_after(seconds: float) -> None:
        work = asyncio.create_task(writers.plan_unless_late(draft(), [A], "trusted", 8.0))
        while not sender.sent:
            await asyncio.sleep(0)
        now[0] += seconds
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work

    async def work() -> None:
        await cancelled_after(1.0)
        assert sender.was_closed
        sender.sent.clear()
        await cancelled_after(8.0)  # it was asked: a client that hung up early is not its fault
        sender.sent.clear()
        assert await writers.plan_unless_late(draft(), [A], "trusted", 8.0) is None
        assert sender.sent == []

    asyncio.run(work())


def test_who_failed_rests_longer_each_time_and_others_are_asked_instead() -> None:
    sender, now = Sender(error=PeerLost("gone")), [0.0]
    writers = Writers(sender, lambda: now[0])

    async def ask() -> None:
        await writers.plan_unless_late(draft(), [A, B], "trusted", 8.0)

    with pytest.raises(PeerLost):
        asyncio.run(ask())
    with pytest.raises(PeerLost):
        asyncio.run(ask())
    assert [candidates for _, candidates, _ in sender.sent] == [[A, B], [B]]


def test_rest_doubles_is_bounded_and_ends_with_an_answer() -> None:
    rests = Rests()
    ends: list[float] = []
    now = 0.0
    for _ in range(12):
        rests.failed(A, now)
        assert rests.rested([A, B], now) == [B]
        end = next(second for second in range(1, 1_000) if rests.rested([A], now + second))
        ends.append(end)
        now += end
    assert ends[:4] == [30, 60, 120, 240]
    assert max(ends) == 600
    rests.failed(A, now)
    rests.answered(A)
    assert rests.rested([A], now) == [A]


def test_no_more_models_are_remembered_than_fit() -> None:
    rests = Rests()
    many = [candidate(f"p{number}") for number in range(300)]
    for each in many:
        rests.failed(each, 0.0)
    assert len(rests.rested(many, 0.0)) == 300 - 256
