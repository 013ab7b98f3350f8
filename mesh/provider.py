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
from monai_node.registry.advert import Admission, ModelInfo, Skill
from monai_node.registry.errors import (
    DeadlineExceeded,
    Internal,
    MonaiError,
    PeerBusy,
    PeerRefused,
    TaskFailed,
    Unsupported,
)
from monai_node.registry.ids import PeerId, short
from monai_node.registry.tasks import task_scope
from monai_node.registry.transport import Stream
from monai_node.registry.wire import (
    DELTA_SECONDS,
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
    """Serves the skills of some engines on task streams. `changed` is called when the load changes."""

    def __init__(self, engines: Sequence[Engine], may_serve: MaySee, changed: Callable[[], None]) -> None:
        self._seats = [Seat(engine) for engine in engines]
        self._by_skill = {
            (skill.id, skill.model): seat for seat in self._seats for skill in seat.engine.card.skills
        }
        self._per_peer: Counter[PeerId] = Counter()
        self._may_serve = may_serve
        self._changed = changed

    @property
    def skills(self) -> list[Skill]:
        return [skill for seat in self._seats for skill in seat.engine.card.skills]

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
        full = self._seats and all(seat.admitted >= TASKS_PER_ENGINE_MAX for seat in self._seats)
        return "busy" if full else "accepting"

    async def serve(self, stream: Stream) -> None:
        """Handle one task stream, from its request to its last frame."""
        async with asyncio.timeout(SEND_SECONDS):
            request = decode(await stream.receive(), TaskRequest)
        try:
            seat = self._admit(stream.peer, request)
        except MonaiError as error:
            await _send(stream, _failed(request, error))
            return
        try:
            await self._run(stream, request, seat)
        finally:
            self._release(stream.peer, seat)

    def _admit(self, caller: PeerId, request: TaskRequest) -> Seat:
        seat = self._by_skill.get((request.skill, request.model))
        if seat is None:
            raise Unsupported(f"this node offers no skill {request.skill!r}")
        if not self._may_serve(caller, request.label):
            raise PeerRefused(f"a {request.label} task of this caller is not served here")
        if seat.admitted >= TASKS_PER_ENGINE_MAX or self._per_peer[caller] >= TASKS_PER_PEER_MAX:
            raise PeerBusy(f"{seat.admitted} tasks wait here already")
        seat.admitted += 1
        self._per_peer[caller] += 1
        self._changed()
        return seat

    def _release(self, caller: PeerId, seat: Seat) -> None:
        seat.admitted -= 1
        self._per_peer[caller] -= 1
        if not self._per_peer[caller]:
            del self._per_peer[caller]
        self._changed()

    async def _run(self, stream: Stream, request: TaskRequest, seat: Seat) -> None:
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
            try:
                async with asyncio.timeout(request.remaining_ms / 1000):
                    last = await self._generate(stream, request, seat)
            except TimeoutError:
                last = _failed(request, DeadlineExceeded("the time given to this task is over"))
            except MonaiError as error:
                last = _failed(request, error)
            except asyncio.CancelledError:
                if watcher.done() and work is not None and work.uncancel() == 0:
                    _log.info("task %s of %s was cancelled by its caller", request.task, short(stream.peer))
                    stream.reset()
                    return
                raise
            except Exception:
                # An engine may fail in ways nobody listed; the caller gets a sentence, the log the rest.
                _log.exception("engine of skill %s failed", request.skill)
                last = _failed(request, TaskFailed("the engine failed; its log says why"))
            watcher.cancel()
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
        """Send deltas in batches of DELTA_SECONDS; the first one at once, since somebody waits for it."""
        pending: list[str] = []
        flushed_at = 0.0
        async for event in events:
            if isinstance(event, TaskCompleted):
                await _flush(stream, request, pending)
                timings = event.timings.model_copy(update={"queue_ms": queue_ms})
                return event.model_copy(update={"timings": timings, "attempt": request.attempt})
            pending.append(event.text)
            if time.monotonic() - flushed_at >= DELTA_SECONDS:
                await _flush(stream, request, pending)
                flushed_at = time.monotonic()
        raise Internal("the engine ended without completing")


async def _flush(stream: Stream, request: TaskRequest, pending: list[str]) -> None:
    text = "".join(pending)
    pending.clear()
    if text:
        await _send(stream, TaskDelta(attempt=request.attempt, text=text))


async def _send(stream: Stream, message: TaskAccepted | TaskDelta | TaskCompleted | FailedFrame) -> None:
    async with asyncio.timeout(SEND_SECONDS):
        await stream.send(encode(message))


def _failed(request: TaskRequest, error: MonaiError) -> FailedFrame:
    return FailedFrame(
        attempt=request.attempt,
        code=error.code,
        message=error.message[:500],
        retryable=error.is_retryable,
    )
