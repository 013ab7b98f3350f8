"""One run, or several side by side, as one HTTP answer: their events are read in one task, written by
another, and they end when the client is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from monai_node.agents.request import RunRequest
from monai_node.mesh.gateway.backend import Runs
from monai_node.mesh.gateway.caller import Caller, caller_of
from monai_node.mesh.gateway.errors import error_response
from monai_node.mesh.gateway.feed import FINISH_SECONDS, Feed
from monai_node.mesh.gateway.http.answers import forget_answer
from monai_node.mesh.gateway.http.asgi import answer_body, answer_start, deliver, disconnected
from monai_node.mesh.gateway.http.json_io import JsonResponse
from monai_node.mesh.gateway.http.sse import KEEP_ALIVE, SSE_HEADERS
from monai_node.mesh.gateway.said import Said
from monai_node.mesh.gateway.several import Several, running_beside
from monai_node.mesh.gateway.site import Site
from monai_node.mesh.gateway.trail import Trail, maker_headers
from monai_node.registry.events import AnswerCompleted, AnswerDelta, RunCreated, RunEvent, RunFailed
from monai_node.registry.ids import RunId
from monai_node.registry.tasks import task_scope


class Form(Protocol):
    """How one run is written: event by event as a stream, or at its end as one object."""

    def opening(self) -> bytes:
        """What a stream begins with; asked for before any event is given."""
        ...

    @property
    def has_events(self) -> bool:
        """Whether a stream tells every event, and not the answer alone."""
        ...

    def frames(self, event: RunEvent) -> bytes:
        """What this event adds to the stream; every event is given once, in order."""
        ...

    def whole(self, said: Said, *others: Said) -> dict[str, Any]:
        """The answer as one object: what the run said, and those beside it, in their order."""
        ...


class RunResponse(Response):
    """Answers a request in a form, as a stream or whole; each run holds a place in the gate while it goes.
    `runs` stands before the backend. Where `others` run beside it, one that fails fails the answer."""

    def __init__(
        self,
        site: Site,
        request: RunRequest,
        form: Form,
        *,
        stream: bool,
        runs: Runs | None = None,
        others: Sequence[RunRequest] = (),
    ) -> None:
        super().__init__()
        self._site = site
        self._request = request
        self._requests = (request, *others)
        self._open = {each.run for each in self._requests}
        self._form = form
        self._is_stream = stream
        self._runs = runs
        self._config = site.config
        self._clock = asyncio.get_running_loop().time
        self._trail = Trail(self._clock())
        self._is_answered = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Whoever goes away while it waits for its place is noticed as well.
        async with task_scope() as tasks:
            answering = tasks.start(self._answer_in_turn(scope, send), name="answer")
            gone = tasks.start(disconnected(receive), name="disconnect")
            await asyncio.wait({answering, gone}, return_when=asyncio.FIRST_COMPLETED)
            if self._is_answered:
                await asyncio.wait({answering}, timeout=FINISH_SECONDS)

    async def _answer_in_turn(self, scope: Scope, send: Send) -> None:
        async with self._running(caller_of(scope)) as feed:
            await (self._stream(feed, scope, send) if self._is_stream else self._whole(feed, send))
            self._is_answered = True

    def _running(self, caller: Caller) -> AbstractAsyncContextManager[Feed | Several]:
        if len(self._requests) > 1:
            return running_beside(self._site, self._requests, caller, self._runs)
        return self._site.running(self._request, caller, self._runs)

    async def _whole(self, feed: Feed | Several, send: Send) -> None:
        said = {each.run: Said(each.run) for each in self._requests}
        event = None
        while not self._is_last(event):
            if (event := await self._next(feed)) is not None:
                said[RunId(event.run)].take(event)
        if isinstance(event, RunFailed):
            return await self._answer(error_response(event), send)
        headers = maker_headers([part for each in said.values() for part in each.parts])
        whole = JsonResponse(self._form.whole(*said.values()), headers=headers)
        return await self._answer(whole, send)

    def _is_last(self, event: RunEvent | None) -> bool:
        if isinstance(event, AnswerCompleted):
            self._open.discard(RunId(event.run))
        return isinstance(event, RunFailed) or not self._open

    async def _stream(self, feed: Feed | Several, scope: Scope, send: Send) -> None:
        frames, event = await self._first_sign(feed)
        if isinstance(event, RunFailed):
            return await self._answer(error_response(event), send)
        told = {"x-mesh-run": self._request.run, **self._trail.headers()}
        more = [(name.encode(), value.encode("ascii")) for name, value in told.items()]
        await self._send(send, answer_start(200, [*SSE_HEADERS, *more]))
        until = 0.0
        while True:
            is_last = self._is_last(event)
            if frames:
                await self._send(send, answer_body(frames, more=not is_last))
                until = self._clock() + self._config.keep_alive_seconds
            if is_last:
                return None
            event = await self._next(feed, until)
            frames = KEEP_ALIVE if event is None else self._form.frames(event)
            if isinstance(event, RunFailed):
                forget_answer(scope)

    async def _first_sign(self, feed: Feed | Several) -> tuple[bytes, RunEvent | None]:
        """Waits until the stream must begin, or until the run failed and need not: the frames so
        far, and the event that decided; None when it was the time."""
        until = self._clock() + self._config.opening_seconds
        frames = self._form.opening()
        while (event := await self._next(feed, until)) is not None:
            frames += self._form.frames(event)
            if is_first_sign(event, has_events=self._form.has_events):
                break
        return frames, event

    async def _next(self, feed: Feed | Several, until: float | None = None) -> RunEvent | None:
        event = await feed.next(until)
        if event is not None:
            self._trail.note(event, self._clock())
        return event

    async def _answer(self, response: Response, send: Send) -> None:
        response.headers["x-mesh-run"] = self._request.run
        response.headers.update(self._trail.headers(self._clock()))
        start = answer_start(response.status_code, response.raw_headers)
        for message in (start, answer_body(bytes(response.body), more=False)):
            await self._send(send, message)

    async def _send(self, send: Send, message: dict[str, object]) -> None:
        await deliver(send, message, self._config.stall_seconds)


def is_first_sign(event: RunEvent, *, has_events: bool) -> bool:
    """Whether this event decides if the answer is a stream or an error status: text or the end, or when
    every event is told, whatever comes after the first."""
    if has_events:
        return not isinstance(event, RunCreated)
    return isinstance(event, AnswerDelta | AnswerCompleted | RunFailed)
