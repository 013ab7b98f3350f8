"""Have a large model somewhere on the mesh plan: it is asked as for any task, and its answer is checked.

The asynchronous shell of `written`, which says what is asked and what is believed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from typing import Any

from monai_node.agents.means import Sender
from monai_node.agents.plan import Draft, Plan
from monai_node.agents.planner import Source
from monai_node.agents.written import ANSWER_TOKENS_MAX, SCHEMA, messages_for, plan_of
from monai_node.registry.errors import Internal, InvalidRequest, MonaiError
from monai_node.registry.ids import new_attempt_id, new_run_id
from monai_node.registry.wire import RUN_SECONDS_MAX, ChatMessage, Label, Parameters, TaskInput, TaskRequest
from monai_node.router.dispatch import Done
from monai_node.router.planners import Writer
from monai_node.router.policy import Policy
from monai_node.router.rank import Candidate

# Nobody waits longer for a first sign of work without turning away (Nielsen, Usability Engineering, 1993,
# ch. 5: ten seconds keep a person's attention). A plan that takes longer is made by somebody else.
WRITING_SECONDS_MAX = 10.0
# A model that was late or failed is left alone for so long, and twice as long each time after that: every
# request would else wait for it before somebody else plans.
_REST_SECONDS = 30.0
_REST_SECONDS_MAX = 600.0
_REMEMBERED_MAX = 256
_LATE_SHARE = 0.9
# Of the candidates: a second one is asked when the first fails, a third would come too late.
_ASKED_MAX = 2

Ask = Callable[[Sequence[ChatMessage], dict[str, Any]], Awaitable[str]]
Planners = Callable[[Policy], Sequence[Candidate]]


class Rests:
    """Which models are left alone, because they were late or failed. Pure: time is passed in."""

    def __init__(self) -> None:
        self._until: dict[Writer, tuple[int, float]] = {}  # how often it failed, and until when it rests

    def rested(self, candidates: Sequence[Candidate], now: float) -> list[Candidate]:
        """Those that may be asked now."""
        return [each for each in candidates if self._until.get(_writer(each), (0, now))[1] <= now]

    def failed(self, candidate: Candidate, now: float) -> None:
        times, _ = self._until.pop(_writer(candidate), (0, 0.0))
        seconds = min(_REST_SECONDS * 2.0 ** min(times, 10), _REST_SECONDS_MAX)
        self._until[_writer(candidate)] = (times + 1, now + seconds)
        while len(self._until) > _REMEMBERED_MAX:
            del self._until[next(iter(self._until))]

    def answered(self, candidate: Candidate) -> None:
        self._until.pop(_writer(candidate), None)


class Writers:
    """Asks models of the mesh for plans, as tasks of their own. `clock` is the dispatcher's, in seconds."""

    def __init__(self, dispatcher: Sender, clock: Callable[[], float]) -> None:
        self._dispatcher = dispatcher
        self._clock = clock
        self._rests = Rests()
        self._schemaless: set[Writer] = set()  # their servers refuse a schema

    async def plan_unless_late(
        self, draft: Draft, candidates: Sequence[Candidate], label: Label, seconds: float
    ) -> Plan | None:
        """As `plan`, and one that is late or fails is not asked again for a while."""
        started = self._clock()
        rested = self._rests.rested(candidates, started)
        if not rested:
            return None
        try:
            plan = await self.plan(draft, rested, label, seconds)
        except MonaiError:
            self._rests.failed(rested[0], self._clock())
            raise
        except asyncio.CancelledError:
            # A client that hangs up says nothing of the model.
            if self._clock() - started >= seconds * _LATE_SHARE:
                self._rests.failed(rested[0], self._clock())
            raise
        self._rests.answered(rested[0])
        return plan

    async def plan(
        self, draft: Draft, candidates: Sequence[Candidate], label: Label, seconds: float
    ) -> Plan | None:
        """The plan of the first of a few candidates that answers; None when its answer is no plan.

        Raises what the dispatcher raises. Cancelling resets the task's stream, which ends the model's work.
        A server that refuses the schema is asked without: it can be told in words what to write.
        """
        first, deadline = _writer(candidates[0]), self._clock() + seconds

        async def ask(messages: Sequence[ChatMessage], schema: dict[str, Any]) -> str:
            if first not in self._schemaless:
                request = _task(messages, schema, candidates[0], label, seconds)
                with suppress(InvalidRequest):
                    return await self._send(request, candidates[:_ASKED_MAX], deadline)
            request = _task(messages, None, candidates[0], label, seconds)
            text = await self._send(request, candidates[:1], deadline)
            if len(self._schemaless) < _REMEMBERED_MAX:
                self._schemaless.add(first)
            return text

        return await plan_with(ask, draft)

    async def _send(self, request: TaskRequest, candidates: Sequence[Candidate], deadline: float) -> str:
        sending = self._dispatcher.send(request, candidates, deadline)
        async with aclosing(sending) as events:
            async for event in events:
                if isinstance(event, Done):
                    return event.text
        raise Internal("the dispatch of a task ended without a result")


def writing(writers: Writers, planners: Planners, seconds: float = WRITING_SECONDS_MAX) -> Source:
    """The source that models on the mesh make: `planners` names those who may be shown a request under
    a policy, best first; while there is none it has no plan to offer."""

    async def planned(draft: Draft, policy: Policy) -> Plan | None:
        return await writers.plan_unless_late(draft, planners(policy), policy.label, seconds)

    return Source("model", seconds, planned)


async def plan_with(ask: Ask, draft: Draft) -> Plan | None:
    """The plan that a model writes: `ask` is given a conversation and the JSON schema of its answer, and
    returns the answer's text. None when that is no plan to rely on; raises what `ask` raises."""
    answer = await ask(await asyncio.to_thread(messages_for, draft), SCHEMA)
    return await asyncio.to_thread(plan_of, draft, answer)


def _writer(candidate: Candidate) -> Writer:
    return candidate.peer, candidate.model


def _task(
    messages: Sequence[ChatMessage],
    schema: dict[str, Any] | None,
    candidate: Candidate,
    label: Label,
    seconds: float,
) -> TaskRequest:
    return TaskRequest(
        run=new_run_id(),
        task="plan",
        attempt=new_attempt_id(),
        skill=candidate.skill,
        model=candidate.model,
        input=TaskInput(text=messages[-1].content, turns=list(messages), is_conversation=True),
        parameters=Parameters(json_schema=schema, temperature=0.0, seed=0, max_tokens=ANSWER_TOKENS_MAX),
        remaining_ms=min(max(1, int(seconds * 1000)), int(RUN_SECONDS_MAX * 1000)),
        label=label,
    )
