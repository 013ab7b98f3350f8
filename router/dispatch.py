"""Sends one task to the best candidate, and to the next one when that fails.

The asynchronous shell of the router: who is asked next is decided in `router.fallback`, one attempt
is `router.task_stream`. What was already shown is never shown again and never lost: the next attempt
is given it as `prefix` and sends only what follows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from monai_node.registry.errors import DeadlineExceeded, InvalidRequest, MonaiError, NoProvider, TaskFailed
from monai_node.registry.ids import AttemptId, PeerId, new_attempt_id
from monai_node.registry.transport import Transport
from monai_node.registry.wire import RUN_SECONDS_MAX, TaskAccepted, TaskCompleted, TaskDelta, TaskRequest
from monai_node.router.fallback import Fallback
from monai_node.router.health import Health
from monai_node.router.rank import Candidate
from monai_node.router.task_stream import Clock, Patience, TaskStream, Watch, deadline_exceeded

# Before the same candidate is asked again, doubled with every attempt.
_PAUSE_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Dispatched:
    """The task is about to be sent. `number` counts attempts from 1."""

    attempt: AttemptId
    candidate: Candidate
    number: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """The peer took the task; `position` others stand before it there."""

    attempt: AttemptId
    position: int


@dataclass(frozen=True, slots=True)
class Text:
    """Text of the result that was not given before; a continuation is already joined."""

    attempt: AttemptId
    text: str


@dataclass(frozen=True, slots=True)
class Lost:
    """An attempt failed and another one follows; `is_continuing` when it goes on after shown text."""

    attempt: AttemptId
    candidate: Candidate
    error: MonaiError
    is_continuing: bool


@dataclass(frozen=True, slots=True)
class Done:
    """The whole result. `seconds` is from the first dispatch to completion, seen from here."""

    attempt: AttemptId
    candidate: Candidate
    completed: TaskCompleted
    text: str
    seconds: float
    attempts: int


DispatchEvent = Dispatched | Accepted | Text | Lost | Done


@dataclass(slots=True)
class _Progress:
    """One task on its way: what it asks, who may do it, what was shown of its result."""

    request: TaskRequest
    fallback: Fallback
    deadline: float
    started: float
    shown: list[str] = field(default_factory=list[str])
    refusers: list[Candidate] = field(default_factory=list[Candidate])  # said that it is malformed

    @property
    def text(self) -> str:
        if len(self.shown) > 1:
            self.shown[:] = ["".join(self.shown)]
        return self.shown[0] if self.shown else ""


def _always(_: PeerId) -> bool:
    return True


def _ignore(_: PeerId) -> None:
    return None


class Dispatcher:
    """Sends tasks to peers. Holds nothing between tasks but what `health` remembers.

    `is_alive` is asked while a peer is waited for; `heard` is told of every frame a peer sends.
    """

    def __init__(
        self,
        transport: Transport,
        clock: Clock,
        health: Health,
        heard: Callable[[PeerId], None] = _ignore,
        is_alive: Callable[[PeerId], bool] = _always,
        patience: Patience | None = None,
    ) -> None:
        self._transport = transport
        self._clock = clock
        self._health = health
        self._watch = Watch(clock, is_alive, heard, patience or Patience())

    async def send(
        self, request: TaskRequest, candidates: Sequence[Candidate], deadline: float
    ) -> AsyncGenerator[DispatchEvent]:
        """The events of one task, ending with `Done`; `deadline` is a time of the injected clock.

        `attempt`, `skill`, `model`, `remaining_ms` and `prefix` of the request are filled in for each
        attempt; a `prefix` it has is taken as shown. Raises a CallerError when two peers say it, other
        errors when nobody is left to ask, NoProvider without candidates, DeadlineExceeded when time is over.
        Closing the generator cancels: the stream is reset, and the provider stops.
        """
        shown = [request.prefix] if request.prefix else []
        task = _Progress(request, Fallback(candidates), deadline, self._clock(), shown)
        candidate = task.fallback.first(self._watch.is_alive)
        if candidate is None:
            raise NoProvider("no reachable peer offers this")
        while True:
            self._seconds_left(task)
            attempt = new_attempt_id()
            yield Dispatched(attempt, candidate, task.fallback.attempts)
            stream = TaskStream(self._transport, candidate.peer, self._watch, deadline)
            try:
                async with aclosing(self._attempt(task, attempt, candidate, stream)) as events:
                    async for event in events:
                        yield event
                return
            except MonaiError as error:
                lost = Lost(attempt, candidate, error, bool(task.text))
            if isinstance(lost.error, InvalidRequest):
                task.refusers.append(candidate)
            following = task.fallback.after(
                candidate, lost.error, was_sent=stream.was_sent, is_alive=self._watch.is_alive
            )
            if following is None:
                raise lost.error
            yield lost
            if following is candidate:
                await self._pause(task)
            candidate = following

    async def _attempt(
        self, task: _Progress, attempt: AttemptId, candidate: Candidate, stream: TaskStream
    ) -> AsyncGenerator[Accepted | Text | Done]:
        started, has_text = self._clock(), False
        try:
            async with aclosing(stream.events(self._filled_in(task, attempt, candidate))) as frames:
                async for frame in frames:
                    match frame:
                        case TaskAccepted():
                            yield Accepted(attempt, frame.position)
                        case TaskDelta(text=text) if text:
                            has_text = True
                            task.shown.append(text)
                            task.fallback.showed_text(candidate)
                            yield Text(attempt, text)
                        case TaskDelta():
                            pass
                        case TaskCompleted():
                            now = self._clock()
                            chars = len(task.text) if candidate.model else None
                            self._health.succeeded(candidate.peer, candidate.skill, now - started, chars)
                            self._blame_refusers(task, now)
                            seconds, attempts = now - task.started, task.fallback.attempts
                            yield Done(attempt, candidate, frame, task.text, seconds, attempts)
        except DeadlineExceeded:
            self._ran_out(candidate, self._clock() - started, has_text=has_text)
            raise
        except MonaiError as error:
            self._health.failed(candidate.peer, candidate.skill, error, self._clock())
            raise

    def _ran_out(self, candidate: Candidate, seconds: float, *, has_text: bool) -> None:
        """Slow is no failure. Nothing at all for longer than an engine needs is one, whatever queue the
        peer spoke of: it would be asked first for ever."""
        self._health.took(candidate.peer, candidate.skill, seconds)
        if not has_text and seconds >= self._watch.patience.idle_seconds:
            error = TaskFailed(f"no text within {seconds:.0f} s")
            self._health.failed(candidate.peer, candidate.skill, error, self._clock())

    def _blame_refusers(self, task: _Progress, now: float) -> None:
        """Somebody did the task: those who called the request malformed were wrong."""
        for refuser in task.refusers:
            error = TaskFailed("it refused a request that another peer answered")
            self._health.failed(refuser.peer, refuser.skill, error, now)

    def _filled_in(self, task: _Progress, attempt: AttemptId, candidate: Candidate) -> TaskRequest:
        remaining_ms = min(self._seconds_left(task), RUN_SECONDS_MAX) * 1000
        return task.request.model_copy(
            update={
                "attempt": attempt,
                "skill": candidate.skill,
                "model": candidate.model,
                "remaining_ms": max(1, int(remaining_ms)),
                "prefix": task.text,
            }
        )

    def _seconds_left(self, task: _Progress) -> float:
        left = task.deadline - self._clock()
        if left <= 0:
            raise deadline_exceeded()
        return left

    async def _pause(self, task: _Progress) -> None:
        pause_seconds = _PAUSE_SECONDS * 2.0 ** (task.fallback.attempts - 2)
        await asyncio.sleep(min(pause_seconds, self._seconds_left(task)))
