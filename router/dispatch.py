"""Sends one task to the best candidate, and to the next one when that fails.

The asynchronous shell of the router: who is asked next is decided in `router.fallback`, what of a
result may be shown in `router.attempt`, one attempt on the wire is `router.task_stream`. What was
already shown is never shown again and never lost: the next attempt is given it as `prefix` and sends
only what follows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from monai_node.registry.errors import (
    ContractBroken,
    DeadlineExceeded,
    InvalidRequest,
    MonaiError,
    NoProvider,
    TaskFailed,
)
from monai_node.registry.ids import AttemptId, PeerId
from monai_node.registry.transport import Transport
from monai_node.registry.wire import (
    RUN_SECONDS_MAX,
    TaskAccepted,
    TaskCompleted,
    TaskDelta,
    TaskRequest,
    TokenLogprob,
)
from monai_node.router.attempt import Attempt, Progress
from monai_node.router.fallback import Fallback
from monai_node.router.health import Health
from monai_node.router.outcome import Ledger, NoLedger
from monai_node.router.places import Places
from monai_node.router.rank import Candidate
from monai_node.router.task_stream import Clock, Patience, TaskStream, Watch, deadline_exceeded
from monai_node.router.verdict import Check, Verdict

# Before somebody is asked who was asked before; doubled every time, up to the second.
_PAUSE_SECONDS = 0.25
_PAUSE_SECONDS_MAX = 2.0


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
    """Text of the result that was not given before; a continuation is already joined. `logprobs` are of its
    tokens, where the request asks for them."""

    attempt: AttemptId
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Lost:
    """An attempt failed and another one follows; `is_continuing` when it goes on after shown text."""

    attempt: AttemptId
    candidate: Candidate
    error: MonaiError
    is_continuing: bool


@dataclass(frozen=True, slots=True)
class Done:
    """The whole result. `seconds` is from the first dispatch to completion, seen from here. `verdict` is
    what its check came to: one that failed is given when nobody had a better one, or when text was shown
    before it could be judged."""

    attempt: AttemptId
    candidate: Candidate
    completed: TaskCompleted
    text: str
    seconds: float
    attempts: int
    verdict: Verdict | None = None


DispatchEvent = Dispatched | Accepted | Text | Lost | Done


def _always(_: PeerId) -> bool:
    return True


def _ignore(_: PeerId) -> None:
    return None


class Dispatcher:
    """Sends tasks to peers. Holds nothing between tasks but what `health` remembers and whose turn it is: no
    peer is given more tasks at once than it takes from one node, and further ones wait, until the deadline.

    `is_alive` is asked while a peer is waited for; `heard` is told of every frame a peer sends,
    `ledger` of every attempt. `traceparent_of` says, once `ledger` was told of an attempt, what the peer's
    trace of it continues; None: the request's own.
    """

    def __init__(
        self,
        transport: Transport,
        clock: Clock,
        health: Health,
        heard: Callable[[PeerId], None] = _ignore,
        is_alive: Callable[[PeerId], bool] = _always,
        patience: Patience | None = None,
        ledger: Ledger | None = None,
        traceparent_of: Callable[[AttemptId], str | None] | None = None,
    ) -> None:
        self._transport = transport
        self._clock = clock
        self._health = health
        self._ledger = ledger or NoLedger()
        self._places = Places()
        self._traceparent_of = traceparent_of
        self._watch = Watch(clock, is_alive, heard, patience or Patience())

    async def send(
        self,
        request: TaskRequest,
        candidates: Sequence[Candidate],
        deadline: float,
        check: Check | None = None,
    ) -> AsyncGenerator[DispatchEvent]:
        """The events of one task, ending with `Done`; `deadline` is a time of the injected clock.

        `attempt`, `skill`, `model`, `remaining_ms` and `prefix` of the request are filled in for each
        attempt; a `prefix` it has is taken as shown. Raises a CallerError when two peers say it, other
        errors when nobody is left to ask, NoProvider without candidates, DeadlineExceeded when time is over.
        Closing the generator cancels: the stream is reset, and the provider stops.

        A result that fails its `check` before any of it was shown is a lost attempt, as long as somebody
        else can be asked and a good part of the time is left. When nobody gives a better one it is given
        all the same, with the verdict in `Done`: an answer that is off is better than none.
        """
        shown = [request.prefix] if request.prefix else []
        task = Progress(request, Fallback(candidates), deadline, self._clock(), check, shown)
        try:
            async with aclosing(self._attempts(task)) as events:
                async for event in events:
                    yield event
            return
        except MonaiError:
            if task.kept is None or task.text:
                raise
        if text := task.kept.release():
            yield Text(task.kept.name, text, task.kept.release_logprobs())
        yield self._done(task, task.kept, text)

    async def _attempts(self, task: Progress) -> AsyncGenerator[DispatchEvent]:
        choice = task.fallback.first(self._watch.is_alive)
        if not choice:
            raise NoProvider("no reachable peer offers this")
        while True:
            candidate = await self._seated(choice, task)
            attempt = task.begin(candidate, self._clock())
            stream = TaskStream(self._transport, candidate.peer, self._watch, task.attempt_deadline)
            try:
                self._health.asked(candidate.peer, candidate.skill, self._clock())
                yield Dispatched(attempt.name, candidate, attempt.number)
                async with aclosing(self._attempt(task, attempt, stream)) as events:
                    async for event in events:
                        yield event
                yield self._done(task, attempt, task.text)
                return
            except MonaiError as error:
                lost = Lost(attempt.name, candidate, error, bool(task.text))
            finally:
                self._places.leave(candidate.peer)
            choice = self._following(task, attempt, lost.error, was_sent=stream.was_sent)
            if not choice:
                raise lost.error
            yield lost
            if choice[0] is not task.cut and choice[0] not in task.fallback.untried:
                await self._pause(task, lost.error)

    async def _seated(self, choice: Sequence[Candidate], task: Progress) -> Candidate:
        """The first that has a place for one task more of this node, which it holds then."""
        try:
            peer = await self._places.take([each.peer for each in choice], self._seconds_left(task))
        except TimeoutError:
            raise deadline_exceeded() from None
        candidate = next(each for each in choice if each.peer == peer)
        task.fallback.asked(candidate)
        return candidate

    def _following(
        self, task: Progress, attempt: Attempt, error: MonaiError, *, was_sent: bool
    ) -> Sequence[Candidate]:
        """Who is asked next. When that is nobody, and no whole result was kept, the peer whose result was
        given up at its beginning is asked once more, and what it then gives is shown as it comes."""
        candidate = attempt.candidate
        if isinstance(error, InvalidRequest):
            task.refusers.append(candidate)
        is_kept = isinstance(error, ContractBroken) and task.kept is not None
        if is_kept and not task.has_time_to_escalate(self._clock()):
            return ()
        following = task.fallback.after(candidate, error, was_sent=was_sent, is_alive=self._watch.is_alive)
        is_beginning = task.kept is None and not task.text
        if not following and is_beginning and task.cut is not None and task.cut is not candidate:
            return (task.cut,)
        return following

    async def _attempt(
        self, task: Progress, attempt: Attempt, stream: TaskStream
    ) -> AsyncGenerator[Accepted | Text]:
        run, name, candidate = task.request.run, task.request.task, attempt.candidate
        self._ledger.decided(run, name, attempt.name, (candidate, *task.fallback.untried))
        try:
            async with aclosing(stream.events(self._filled_in(task, attempt))) as frames:
                async for frame in frames:
                    match frame:
                        case TaskAccepted():
                            yield Accepted(attempt.name, frame.position)
                        case TaskDelta(text=text, logprobs=logprobs) if text or logprobs:
                            is_asked = task.request.parameters.logprobs is not None
                            attempt.take(text, self._clock(), logprobs if is_asked else ())
                            if attempt.judge_beginning() and task.can_replace(candidate, self._clock()):
                                task.cut = candidate
                                raise attempt.broken()
                            if showable := attempt.showable():
                                task.show(attempt, showable)
                                yield Text(attempt.name, showable, attempt.release_logprobs())
                        case TaskDelta():
                            pass
                        case TaskCompleted():
                            attempt.completed = frame
            self._completed(task, attempt)
            rest, logprobs = attempt.release(), attempt.release_logprobs()
            if rest or logprobs:
                task.show(attempt, rest)
                yield Text(attempt.name, rest, logprobs)
        except DeadlineExceeded as error:
            attempt.error = error
            if stream.was_sent:  # else the time went by here
                self._ran_out(candidate, self._clock() - attempt.started, has_text=attempt.has_text)
            raise
        except MonaiError as error:
            attempt.error = error
            if not isinstance(error, ContractBroken):
                self._health.failed(candidate.peer, candidate.skill, error, self._clock())
            raise
        finally:
            self._ledger.ended(run, name, attempt.name, candidate, attempt.ending(self._clock()))

    def _completed(self, task: Progress, attempt: Attempt) -> None:
        """Judge a whole result. ContractBroken when it fails and nothing of it was shown; it is kept then.

        A result that is not what was asked for says nothing of a peer's health, unless nothing was done
        at all: a peer that echoes, or gives nothing, again and again is ejected like one that fails."""
        candidate, now = attempt.candidate, self._clock()
        task.judge(attempt)
        if attempt.verdict is not None and attempt.verdict.is_hollow:
            self._health.failed(candidate.peer, candidate.skill, attempt.broken(), now)
        else:
            chars = len(task.text) + len(attempt.held) if candidate.model else None
            self._health.succeeded(candidate.peer, candidate.skill, now - attempt.started, chars)
        if attempt.is_broken:
            if not task.text:
                task.keep(attempt)
                raise attempt.broken()
        else:
            self._blame_refusers(task, now)

    def _done(self, task: Progress, attempt: Attempt, text: str) -> Done:
        assert attempt.completed is not None
        seconds, attempts = self._clock() - task.started, task.fallback.attempts
        return Done(
            attempt.name, attempt.candidate, attempt.completed, text, seconds, attempts, attempt.verdict
        )

    def _ran_out(self, candidate: Candidate, seconds: float, *, has_text: bool) -> None:
        """Slow is no failure. Nothing at all for longer than an engine needs is one, whatever queue the
        peer spoke of: it would be asked first for ever."""
        self._health.took(candidate.peer, candidate.skill, seconds)
        if not has_text and seconds >= self._watch.patience.idle_seconds:
            error = TaskFailed(f"no text within {seconds:.0f} s")
            self._health.failed(candidate.peer, candidate.skill, error, self._clock())

    def _blame_refusers(self, task: Progress, now: float) -> None:
        """Somebody did the task: those who called the request malformed were wrong."""
        for refuser in task.refusers:
            error = TaskFailed("it refused a request that another peer answered")
            self._health.failed(refuser.peer, refuser.skill, error, now)

    def _filled_in(self, task: Progress, attempt: Attempt) -> TaskRequest:
        remaining_ms = min(self._seconds_left(task), RUN_SECONDS_MAX) * 1000
        traceparent = self._traceparent_of(attempt.name) if self._traceparent_of is not None else None
        return task.request.model_copy(
            update={
                "attempt": attempt.name,
                "skill": attempt.candidate.skill,
                "model": attempt.candidate.model,
                "remaining_ms": max(1, int(remaining_ms)),
                "prefix": task.text,
                "traceparent": traceparent or task.request.traceparent,
            }
        )

    def _seconds_left(self, task: Progress) -> float:
        left = task.attempt_deadline - self._clock()
        if left <= 0:
            raise deadline_exceeded()
        return left

    async def _pause(self, task: Progress, error: MonaiError) -> None:
        """`error` when there is no time for another attempt."""
        seconds = min(_PAUSE_SECONDS * 2.0**task.fallback.repeats, _PAUSE_SECONDS_MAX)
        if seconds >= self._seconds_left(task):
            raise error
        await asyncio.sleep(seconds)
