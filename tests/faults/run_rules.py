"""The rules of one run's events: I3, I4, I5, I6 and the order of `registry.events`. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from faults.violations import Rule
from monai_node.registry.events import (
    AnswerCompleted,
    AnswerDelta,
    PlanTask,
    Provenance,
    RunCreated,
    RunEvent,
    RunFailed,
    TaskContinued,
    TaskDispatched,
    TaskText,
    TaskWasAccepted,
    TaskWasCompleted,
    TaskWasFailed,
)

Broken = Iterator[tuple[Rule, str]]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What else the history says about the moment: `candidates` serve the skill as far as known;
    `hurt` had a fault injected; under the label `local` only `own_peer` may be asked."""

    candidates: Mapping[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])
    hurt: frozenset[str] = frozenset()
    is_local: bool = False
    own_peer: str | None = None


@dataclass(slots=True)
class _TaskState:
    """One planned task. `live` are the attempts that may still deliver: several when hedged."""

    depends_on: list[str]
    asked: list[str] = field(default_factory=list[str])  # peers, one for each dispatch
    live: dict[str, str] = field(default_factory=dict[str, str])  # attempt → peer
    attempts: set[str] = field(default_factory=set[str])
    result: TaskWasCompleted | TaskWasFailed | None = None


class RunRules:
    """Walks the events of one run in their order."""

    def __init__(self) -> None:
        self._tasks: dict[str, _TaskState] = {}
        self._lost_peers: set[str] = set()
        self._last_seq: int | None = None
        self._is_dispatching = False
        self.terminals = 0

    def step(self, event: RunEvent, around: Surroundings) -> Broken:
        """What the next event breaks."""
        yield from self._order(event)
        match event:
            case PlanTask():
                yield from self._plan(event)
            case TaskDispatched():
                yield from self._dispatch(event, around)
            case TaskWasAccepted() | TaskText() | TaskContinued():
                yield from self._progress(event)
            case TaskWasCompleted() | TaskWasFailed():
                yield from self._result(event)
            case AnswerCompleted():
                yield from self._answer(event)
            case RunCreated() | AnswerDelta() | RunFailed():
                pass

    def _order(self, event: RunEvent) -> Broken:
        if self._last_seq is None and not isinstance(event, RunCreated):
            yield Rule.FIRST, f"{event.type} came before run.created"
        if self._last_seq is not None:
            if isinstance(event, RunCreated):
                yield Rule.FIRST, "run.created came again"
            if event.seq != self._last_seq + 1:
                yield Rule.SEQUENCE, f"seq {event.seq} followed {self._last_seq}"
        self._last_seq = event.seq
        if self.terminals:
            yield Rule.TERMINAL, f"{event.type} came after the run had ended"
        if isinstance(event, AnswerCompleted | RunFailed):
            self.terminals += 1

    def _plan(self, event: PlanTask) -> Broken:
        if self._is_dispatching:
            yield Rule.PLAN_FIXED, f"task {event.task} was planned after the first dispatch"
        if event.task in self._tasks:
            yield Rule.PLAN_FIXED, f"task {event.task} was planned twice"
            return
        unknown = [task for task in event.depends_on if task not in self._tasks]
        if unknown:
            yield Rule.DEPENDENCIES, f"task {event.task} depends on {unknown}, no earlier tasks"
        self._tasks[event.task] = _TaskState(event.depends_on)

    def _dispatch(self, event: TaskDispatched, around: Surroundings) -> Broken:
        self._is_dispatching = True
        if around.is_local and event.peer != around.own_peer:
            yield Rule.LOCAL, f"task {event.task} was sent to {event.peer} under the label local"
        state = self._tasks.get(event.task)
        if state is None:
            yield Rule.UNPLANNED, f"task {event.task} was dispatched and never planned"
            return
        if state.result is not None:
            yield Rule.DISPATCH_AFTER_END, f"task {event.task} was dispatched after it had ended"
        if event.attempt in state.attempts:
            yield Rule.CURRENT_ATTEMPT, f"attempt {event.attempt} was dispatched twice"
        waiting = [task for task in state.depends_on if not self._is_ended(task)]
        if waiting:
            yield Rule.DEPENDENCIES, f"task {event.task} was dispatched before {waiting} ended"
        yield from self._asked_again(event, state, around)
        state.attempts.add(event.attempt)
        state.live[event.attempt] = event.peer
        state.asked.append(event.peer)

    def _asked_again(self, event: TaskDispatched, state: _TaskState, around: Surroundings) -> Broken:
        if event.peer not in self._lost_peers and event.peer not in state.asked:
            return
        known = around.candidates.get(event.skill, frozenset())
        others = known - self._lost_peers - around.hurt - {event.peer, *state.asked}
        if others:
            yield (
                Rule.ASKED_AGAIN,
                f"task {event.task} went to {event.peer} again though {sorted(others)} were left",
            )

    def _progress(self, event: TaskWasAccepted | TaskText | TaskContinued) -> Broken:
        state = self._tasks.get(event.task)
        if state is None:
            yield Rule.UNPLANNED, f"{event.type} names task {event.task}, never planned"
            return
        if state.result is not None:
            yield Rule.TEXT_AFTER_END, f"{event.type} came after task {event.task} had ended"
        match event:
            case TaskWasAccepted():
                if event.attempt not in state.live:
                    yield Rule.CURRENT_ATTEMPT, f"attempt {event.attempt} is not a current one"
            case TaskText():
                if not state.live:
                    yield Rule.CURRENT_ATTEMPT, f"text of task {event.task}, which nobody does"
            case TaskContinued():
                if event.lost_peer not in state.asked:
                    yield Rule.CURRENT_ATTEMPT, f"{event.lost_peer} never had task {event.task}"
                self._lost_peers.add(event.lost_peer)
                state.live = {
                    attempt: peer for attempt, peer in state.live.items() if peer != event.lost_peer
                }

    def _result(self, event: TaskWasCompleted | TaskWasFailed) -> Broken:
        state = self._tasks.get(event.task)
        if state is None:
            yield Rule.UNPLANNED, f"{event.type} names task {event.task}, never planned"
            return
        if state.result is not None:
            yield Rule.ONE_RESULT, f"task {event.task} has a second result"
        if isinstance(event, TaskWasCompleted):
            made_by = event.provenance
            if made_by.task != event.task:
                yield Rule.ONE_RESULT, f"task {event.task} was given the result of {made_by.task}"
            # A result that broke its contract is kept while others are asked, and given when they fail.
            may_have_made = state.asked if made_by.verdict else state.live.values()
            if made_by.peer not in may_have_made:
                yield (
                    Rule.CURRENT_ATTEMPT,
                    f"task {event.task} was completed by {made_by.peer}, no current attempt",
                )
        state.result = state.result or event

    def _answer(self, event: AnswerCompleted) -> Broken:
        for task, state in self._tasks.items():
            if state.result is None:
                yield Rule.ONE_RESULT, f"the run was answered and task {task} has no result"
        used: set[str] = set()
        for part in event.parts:
            yield from self._part(part, used)
            used.add(part.task)

    def _part(self, part: Provenance, used: set[str]) -> Broken:
        state = self._tasks.get(part.task)
        if state is None:
            yield Rule.UNPLANNED, f"a part of the answer is of task {part.task}, never planned"
            return
        if part.task in used:
            yield Rule.ONE_RESULT, f"the result of task {part.task} is used twice"
        if isinstance(state.result, TaskWasCompleted) != (part.status == "completed"):
            yield Rule.ONE_RESULT, f"the part of task {part.task} is not what became of it"
        elif isinstance(state.result, TaskWasCompleted) and part.peer != state.result.provenance.peer:
            yield Rule.CURRENT_ATTEMPT, f"the part of task {part.task} is from another peer"

    def _is_ended(self, task: str) -> bool:
        state = self._tasks.get(task)
        return state is None or state.result is not None
