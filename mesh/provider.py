"""Serves tasks: admission, one task stream per task, batched deltas, cancellation that reaches the engine.

The same provider answers remote peers over libp2p and this node's own gateway over the memory
transport; only where the stream comes from differs.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress

from monai_node.mesh.engine.base import Engine
from monai_node.mesh.logs import add_to_log_context
from monai_node.mesh.traces import TaskSpan, Traces
from monai_node.registry.advert import Admission, ModelInfo, Skill
from monai_node.registry.errors import (
    DeadlineExceeded,
    MonaiError,
    PeerBusy,
    PeerLost,
    PeerRefused,
    SetupError,
    TaskFailed,
)
from monai_node.registry.ids import PeerId, short
from monai_node.registry.tasks import task_scope
from monai_node.registry.transport import Stream
from monai_node.registry.wire import (
    DELTA_SECONDS,
    LOGPROBS_PER_DELTA_MAX,
    SEND_SECONDS,
    TASKS_PER_PEER_MAX,
    Label,
    TaskAccepted,
    TaskCompleted,
    TaskDelta,
    TaskRequest,
    decode,
    encode,
)
from monai_node.registry.wire import (
    TaskFailed as FailedFrame,
)

_log = logging.getLogger(__name__)

# Tasks admitted and not yet ended, for one engine: beyond it a caller is better served elsewhere.
TASKS_PER_ENGINE_MAX = 64

MaySee = Callable[[PeerId, Label], bool]


class Seat:
    """One engine, the tasks that run in it and those that wait their turn."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.turn = asyncio.Semaphore(engine.card.concurrency)
        self.admitted = 0

    @property
    def running(self) -> int:
        return min(self.admitted, self.engine.card.concurrency)

    @property
    def queued(self) -> int:
        return self.admitted - self.running


class Provider:
    """Serves the skills of some engines on task streams. `changed` is called when the load changes.

    SetupError when two engines offer the same skill under the same name: one of them would never be asked.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        may_serve: MaySee,
        changed: Callable[[], None],
        traces: Traces | None = None,
    ) -> None:
        self._seats = [Seat(engine) for engine in engines]
        self._by_skill = _by_skill(self._seats)
        self._per_peer: Counter[PeerId] = Counter()
        self._traces = traces
        self._is_leaving = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._may_serve = may_serve
        self._changed = changed

    @property
    def skills(self) -> list[Skill]:
        return [
            skill.model_copy(update={"slots": seat.engine.card.concurrency})
            for seat in self._seats
            for skill in seat.engine.card.skills
        ]

    @property
    def models(self) -> list[ModelInfo]:
        return [seat.engine.card.model for seat in self._seats if seat.engine.card.model is not None]

    @property
    def running(self) -> int:
        return sum(seat.running for seat in self._seats)

    @property
    def queued(self) -> int:
        return sum(seat.queued for seat in self._seats)

    @property
    def admission(self) -> Admission:
        if self._is_leaving:
            return "leaving"
        full = self._seats and all(seat.admitted >= TASKS_PER_ENGINE_MAX for seat in self._seats)
        return "busy" if full else "accepting"

    def leave(self) -> None:
        """Take no more tasks, and say so; those that are here go on."""
        self._is_leaving = True
        self._changed()

    async def until_idle(self) -> None:
        """Return when no task is here."""
        await self._idle.wait()

    async def serve(self, stream: Stream) -> None:
        """Handle one task stream, from its request to its last frame."""
        async with asyncio.timeout(SEND_SECONDS):
            request = decode(await stream.receive(), TaskRequest)
        add_to_log_context(run=request.run, task=request.task, peer=short(stream.peer))
        try:
            seat = self._admit(stream.peer, request)
        except MonaiError as error:
            await _send(stream, _failed(request, error))
            return
        span = self._traces.begin(request, stream.peer) if self._traces is not None else None
        try:
            await self._run(stream, request, seat, span)
        finally:
            self._release(stream.peer, seat)
            if span is not None:
                span.end(None)

    def _admit(self, caller: PeerId, request: TaskRequest) -> Seat:
        seat = self._by_skill.get((request.skill, request.model))
        if seat is None:
            # The caller's advert of us is out of date: another peer may still offer it.
            raise PeerRefused(f"this node offers no skill {request.skill!r}")
        if not self._may_serve(caller, request.label):
            raise PeerRefused(f"a {request.label} task of this caller is not served here")
        if self._is_leaving:
            raise PeerBusy("this node is about to stop")
        if seat.admitted >= TASKS_PER_ENGINE_MAX or self._per_peer[caller] >= TASKS_PER_PEER_MAX:
            raise PeerBusy(f"{seat.admitted} tasks wait here already")
        seat.admitted += 1
        self._per_peer[caller] += 1
        self._idle.clear()
        self._changed()
        return seat

    def _release(self, caller: PeerId, seat: Seat) -> None:
        seat.admitted -= 1
        self._per_peer[caller] -= 1
        if not self._per_peer[caller]:
            del self._per_peer[caller]
        if not self._per_peer:
            self._idle.set()
        self._changed()

    async def _run(self, stream: Stream, request: TaskRequest, seat: Seat, span: TaskSpan | None) -> None:
        """Run an admitted task. The caller's reset, its deadline and our own end all stop the engine."""
        accepted = TaskAccepted(attempt=request.attempt, position=seat.queued)
        work = asyncio.current_task()
        async with task_scope() as scope:
            await _send(stream, accepted)

            async def watch() -> None:
                """A caller that resets, or says anything more, wants no result."""
                with suppress(MonaiError, EOFError):
                    await stream.receive()
                if work is not None:
                    work.cancel("the caller cancelled")

            watcher = scope.start(watch(), name="watch caller")
            deadline = asyncio.timeout(request.remaining_ms / 1000)
            try:
                async with deadline:
                    last = await self._generate(stream, request, seat)
            except MonaiError as error:
                last = _failed(request, error)
            except asyncio.CancelledError:
                if watcher.done() and work is not None and work.uncancel() == 0:
                    _log.info("task %s of %s was cancelled by its caller", request.task, short(stream.peer))
                    stream.reset()
                    return
                raise
            except Exception:
                if deadline.expired():
                    last = _failed(request, DeadlineExceeded("the time given to this task is over"))
                else:
                    # An engine may fail in ways nobody listed; the caller gets a sentence, the log the rest.
                    _log.exception("engine of skill %s failed", request.skill)
                    last = _failed(request, TaskFailed("the engine failed; its log says why"))
            watcher.cancel()
            if span is not None:
                span.end(last)
            await _send(stream, last)

    async def _generate(self, stream: Stream, request: TaskRequest, seat: Seat) -> TaskCompleted:
        arrived = time.monotonic()
        async with seat.turn:
            queue_ms = (time.monotonic() - arrived) * 1000
            async with aclosing(seat.engine.submit(request)) as events:
                return await self._forward(stream, request, events, queue_ms)

    async def _forward(
        self,
        stream: Stream,
        request: TaskRequest,
        events: AsyncGenerator[TaskDelta | TaskCompleted],
        queue_ms: float,
    ) -> TaskCompleted:
        batch = _Batch(stream, request)
        async with task_scope() as scope:
            scope.start(batch.send_late(), name="late deltas")
            async for event in events:
                if isinstance(event, TaskDelta):
                    await batch.put(event)
                    continue
                await batch.flush()
                timings = event.timings.model_copy(update={"queue_ms": queue_ms})
                return event.model_copy(update={"timings": timings, "attempt": request.attempt})
            raise TaskFailed("the engine ended without completing")


class _Batch:
    """Sends text in frames that lie DELTA_SECONDS apart; the first one at once, since somebody waits
    for it, and none later than that because the engine paused."""

    def __init__(self, stream: Stream, request: TaskRequest) -> None:
        self._stream = stream
        self._attempt = request.attempt
        self._pending: list[TaskDelta] = []
        self._flushed_at = float("-inf")
        self._is_held = asyncio.Event()
        self._one_writer = asyncio.Lock()

    async def put(self, delta: TaskDelta) -> None:
        told = sum(len(pending.logprobs) for pending in self._pending)
        if told and told + len(delta.logprobs) > LOGPROBS_PER_DELTA_MAX:
            await self.flush()
        self._pending.append(delta)
        if time.monotonic() - self._flushed_at >= DELTA_SECONDS:
            await self.flush()
        else:
            self._is_held.set()

    async def flush(self) -> None:
        async with self._one_writer:
            text = "".join(delta.text for delta in self._pending)
            logprobs = [token for delta in self._pending for token in delta.logprobs]
            self._pending.clear()
            if text or logprobs:
                await _send(self._stream, TaskDelta(attempt=self._attempt, text=text, logprobs=logprobs))
                self._flushed_at = time.monotonic()

    async def send_late(self) -> None:
        """Flush what no later text pushed on, until cancelled."""
        while True:
            await self._is_held.wait()
            await asyncio.sleep(DELTA_SECONDS)
            self._is_held.clear()
            await self.flush()


def _by_skill(seats: Sequence[Seat]) -> dict[tuple[str, str], Seat]:
    found: dict[tuple[str, str], Seat] = {}
    for seat in seats:
        for skill in seat.engine.card.skills:
            if found.setdefault((skill.id, skill.model), seat) is not seat:
                owner = f" of {skill.model!r}" if skill.model else ""
                raise SetupError(f"two sources offer the skill {skill.id!r}{owner}; rename or leave out one")
    return found


async def _send(stream: Stream, message: TaskAccepted | TaskDelta | TaskCompleted | FailedFrame) -> None:
    try:
        async with asyncio.timeout(SEND_SECONDS):
            await stream.send(encode(message))
    except TimeoutError:
        raise PeerLost(f"the caller took nothing for {SEND_SECONDS:g} s") from None


def _failed(request: TaskRequest, error: MonaiError) -> FailedFrame:
    return FailedFrame(
        attempt=request.attempt,
        code=error.code,
        message=error.message[:500],
        retryable=error.is_retryable,
    )
