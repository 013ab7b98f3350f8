"""One attempt on the wire: a task stream to one peer, watched and bounded."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from typing import TypeVar

from monai_node.registry.errors import (
    DeadlineExceeded,
    InvalidRequest,
    MonaiError,
    PeerError,
    PeerLost,
    PeerUnreachable,
    ProtocolViolation,
    RequestTooLarge,
    TaskFailed,
    from_wire,
)
from monai_node.registry.ids import PeerId, short
from monai_node.registry.transport import Stream, Transport
from monai_node.registry.wire import (
    ACCEPT_SECONDS,
    DIAL_SECONDS,
    SEND_SECONDS,
    TASK_PROTOCOL,
    TEXT_CHARS_MAX,
    TaskAccepted,
    TaskCompleted,
    TaskDelta,
    TaskEvent,
    TaskRequest,
    decode,
    encode,
    one_line,
)
from monai_node.registry.wire import (
    TaskFailed as FailedFrame,
)
from monai_node.router.places import Openings

_log = logging.getLogger(__name__)

Clock = Callable[[], float]
_T = TypeVar("_T")

# A peer that says the deadline is over while we have more time than this left has misread it.
_DEADLINE_SLACK_SECONDS = 1.0
# Given as one, so many deltas are read in a few milliseconds.
_DELTAS_AT_ONCE_MAX = 64


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds that one peer is given for one step. Whether it is alive is asked all the while, so a
    peer that froze costs its liveness timeout and not these."""

    open_seconds: float = DIAL_SECONDS
    send_seconds: float = SEND_SECONDS
    accept_seconds: float = ACCEPT_SECONDS
    # Between frames, once for the task itself and once for each one queued before it: reading a long
    # prompt takes that long on a small machine.
    idle_seconds: float = 30.0
    poll_seconds: float = 0.25


@dataclass(frozen=True, slots=True)
class Watch:
    """What an attempt is measured against. `heard` is told of every frame that arrives; streams of one watch
    are opened in turn."""

    clock: Clock
    is_alive: Callable[[PeerId], bool]
    heard: Callable[[PeerId], None]
    patience: Patience
    openings: Openings = field(default_factory=Openings)


class _Alarm:
    """Ends a wait when its time is over, and looks now and then whether the peer that is waited for is alive.

    One timer for all waits of a stream, which lasts from one to the next: two of its own for every wait cost
    as much as reading the frame (3 µs more, and the heap of timers grows with them).
    """

    def __init__(self, watch: Watch, peer: PeerId) -> None:
        self._watch = watch
        self._peer = peer
        self._timer: asyncio.TimerHandle | None = None
        self._wait: tuple[asyncio.Timeout, float] | None = None  # with the loop's time at which it is over
        self.is_peer_gone = False

    def within(self, seconds: float) -> asyncio.Timeout:
        """To be entered at once: raises TimeoutError after `seconds`, or when the peer has gone."""
        loop = asyncio.get_running_loop()
        scope, now = asyncio.timeout(None), loop.time()
        self._wait = (scope, now + seconds)
        due = now + min(seconds, self._watch.patience.poll_seconds)
        if self._timer is not None and self._timer.when() > due:
            self._timer.cancel()
            self._timer = None
        self._timer = self._timer or loop.call_at(due, self._look)
        return scope

    def rest(self) -> None:
        """The wait has ended. When the timer is due it looks for another one, and ends without one."""
        self._wait = None

    def _look(self) -> None:
        self._timer = None
        if self._wait is None:
            return
        (scope, until), loop = self._wait, asyncio.get_running_loop()
        self.is_peer_gone = not self._watch.is_alive(self._peer)
        left = until - loop.time()
        if self.is_peer_gone or left <= 0:
            scope.reschedule(loop.time())
        else:
            due = loop.time() + min(left, self._watch.patience.poll_seconds)
            self._timer = loop.call_at(due, self._look)


class TaskStream:
    """One task stream to one peer. `was_sent` says whether the peer may have seen the request."""

    def __init__(self, transport: Transport, peer: PeerId, watch: Watch, deadline: float) -> None:
        self._transport = transport
        self._peer = peer
        self._watch = watch
        self._patience = watch.patience
        self._deadline = deadline
        self._alarm = _Alarm(watch, peer)
        self.was_sent = False

    async def events(self, request: TaskRequest) -> AsyncGenerator[TaskAccepted | TaskDelta | TaskCompleted]:
        """`TaskAccepted`, deltas, `TaskCompleted`; or a MonaiError. The stream is closed after
        `TaskCompleted` and reset on every other way out, closing this generator included."""
        stream, accepted = await self._begin(request, _encoded(request))
        is_complete = False
        try:
            yield accepted
            async with aclosing(self._answers(stream, request, accepted.position)) as answers:
                async for event in answers:
                    if isinstance(event, TaskCompleted):
                        await self._close(stream)
                        is_complete = True
                    yield event
        finally:
            if not is_complete:
                stream.reset()

    async def _answers(
        self, stream: Stream, request: TaskRequest, position: int
    ) -> AsyncGenerator[TaskDelta | TaskCompleted]:
        """What follows `accepted`, up to `TaskCompleted`. Deltas that have come already are given as one, so
        that a node that is behind catches up instead of losing streams."""
        idle_seconds = self._patience.idle_seconds * (1 + position)
        chars, quiet_since = len(request.prefix), self._watch.clock()
        deltas: list[TaskDelta] = []
        last: TaskCompleted | None = None
        while last is None:
            # Frames without text are no progress: a peer could fill all the time with them.
            quiet_seconds = self._watch.clock() - quiet_since
            try:
                event = await self._answer(stream, request, max(0.0, idle_seconds - quiet_seconds))
                if isinstance(event, TaskCompleted):
                    last = event
                else:
                    deltas.append(event)
                    chars += len(event.text)
                    quiet_since = self._watch.clock() if event.text else quiet_since
                if chars > TEXT_CHARS_MAX:
                    raise self._violation(f"more than {TEXT_CHARS_MAX} characters of text")
                is_full = len(deltas) >= _DELTAS_AT_ONCE_MAX or any(delta.logprobs for delta in deltas[-1:])
                is_more = last is None and stream.has_frame and not is_full
            except MonaiError:
                if deltas and chars <= TEXT_CHARS_MAX:
                    yield _joined(deltas)
                raise
            if deltas and not is_more:
                yield _joined(deltas)
                deltas.clear()
        yield last

    async def _begin(self, request: TaskRequest, frame: bytes) -> tuple[Stream, TaskAccepted]:
        """Patience begins with one's turn: what others take before is nothing that the peer does."""
        async with AsyncExitStack() as turn:
            waiting = self._watch.openings.turn(self._peer)
            gone = PeerUnreachable(f"{self._name} could not be reached")
            await self._within(lambda: turn.enter_async_context(waiting), math.inf, gone)
            stream = await self._open()
            try:
                return stream, await self._ask(stream, request, frame)
            except BaseException:
                stream.reset()
                raise

    async def _open(self) -> Stream:
        seconds = self._patience.open_seconds
        try:
            return await self._within(
                lambda: self._transport.open(self._peer, TASK_PROTOCOL, seconds),
                seconds,
                PeerUnreachable(f"{self._name} could not be reached within {seconds:g} s"),
            )
        except PeerUnreachable as error:
            # The transport's words name addresses, which are the mesh's and not the client's to know.
            _log.info("a task could not be sent: %s", error)
            raise PeerUnreachable(f"{self._name} could not be reached") from None

    async def _ask(self, stream: Stream, request: TaskRequest, frame: bytes) -> TaskAccepted:
        """Send the request; PeerUnreachable when no `accepted` comes in time."""
        silent = PeerUnreachable(f"{self._name} did not accept the task in time")
        try:
            self.was_sent = True
            await self._within(lambda: stream.send(frame), self._patience.send_seconds, silent)
            event = await self._frame(stream, request, self._patience.accept_seconds, silent)
        except (EOFError, PeerLost) as error:
            raise PeerUnreachable(f"{self._name} cut the stream before it accepted the task") from error
        if not isinstance(event, TaskAccepted):
            raise self._violation(f"{event.t!r} before 'accepted'")
        return event

    async def _answer(
        self, stream: Stream, request: TaskRequest, seconds: float
    ) -> TaskDelta | TaskCompleted:
        """The next frame of an accepted task; PeerLost when none comes."""
        silent = PeerLost(f"{self._name} sent no text for too long")
        try:
            event = await self._frame(stream, request, seconds, silent)
        except EOFError as error:
            raise PeerLost(f"{self._name} ended the stream in the middle of the task") from error
        if isinstance(event, TaskAccepted):
            raise self._violation("a second 'accepted'")
        return event

    async def _frame(
        self, stream: Stream, request: TaskRequest, seconds: float, silent: PeerError
    ) -> TaskAccepted | TaskDelta | TaskCompleted:
        frame = await self._within(stream.receive, seconds, silent)
        self._watch.heard(self._peer)
        event: TaskEvent = decode(frame, TaskAccepted, TaskDelta, TaskCompleted, FailedFrame)
        if event.attempt != request.attempt:
            raise self._violation("a frame of another attempt")
        if isinstance(event, FailedFrame):
            raise self._failure(event)
        return event

    def _failure(self, event: FailedFrame) -> MonaiError:
        error = from_wire(event.code, one_line(event.message))
        left = self._deadline - self._watch.clock()
        if isinstance(error, DeadlineExceeded) and left > _DEADLINE_SLACK_SECONDS:
            return TaskFailed(f"{self._name} gave up {left:.0f} s before the deadline")
        return error

    async def _close(self, stream: Stream) -> None:
        try:
            async with asyncio.timeout(self._patience.send_seconds):
                await stream.close()
        except TimeoutError:
            stream.reset()

    async def _within(self, work: Callable[[], Awaitable[_T]], seconds: float, late: PeerError) -> _T:
        """The result of `work`; `late` after `seconds`, one of its kind once the peer is not alive,
        DeadlineExceeded when the deadline comes first."""
        left = self._deadline - self._watch.clock()
        if left <= 0:
            raise deadline_exceeded()
        try:
            async with self._alarm.within(min(left, seconds)):
                return await work()
        except TimeoutError:
            if self._alarm.is_peer_gone:
                raise type(late)(f"{self._name} stopped answering") from None
            raise (deadline_exceeded() if left <= seconds else late) from None
        finally:
            self._alarm.rest()

    @property
    def _name(self) -> str:
        return f"peer {short(self._peer)}"

    def _violation(self, what: str) -> ProtocolViolation:
        return ProtocolViolation(f"{self._name} sent {what}")


def _joined(deltas: list[TaskDelta]) -> TaskDelta:
    """As one; only the last of them may tell of tokens, since a frame has room for few."""
    last = deltas[-1]
    text = "".join(delta.text for delta in deltas)
    return TaskDelta(attempt=last.attempt, text=text, logprobs=last.logprobs)


def deadline_exceeded() -> DeadlineExceeded:
    return DeadlineExceeded("the time given to the request is over")


def _encoded(request: TaskRequest) -> bytes:
    try:
        return encode(request)
    except ProtocolViolation as error:
        raise RequestTooLarge("the request is larger than a task stream carries") from error
    except ValueError as error:
        raise InvalidRequest("the request holds text that cannot be sent") from error
