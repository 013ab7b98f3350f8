"""Responses that go on without their client, and the streams by which it comes back to them."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from monai_node.mesh.gateway.caller import Caller, caller_of
from monai_node.mesh.gateway.config import GatewayConfig
from monai_node.mesh.gateway.http.asgi import answer_body, answer_start, deliver, while_connected
from monai_node.mesh.gateway.http.json_io import JsonResponse
from monai_node.mesh.gateway.http.recording import Recording
from monai_node.mesh.gateway.http.sse import KEEP_ALIVE, SSE_HEADERS
from monai_node.mesh.gateway.responses.form import ResponseForm
from monai_node.mesh.gateway.responses.store import KeptResponse, OwnResponses
from monai_node.mesh.gateway.site import Site
from monai_node.registry.errors import Internal, MonaiError, log_defect
from monai_node.registry.events import AnswerCompleted, RunEvent, RunFailed, run_failed
from monai_node.registry.tasks import task_scope

# Of the events of one stream, for whoever comes back to it: those of about 8,000 deltas of a word each.
_RECORDED_BYTES_MAX = 2 << 20


class BackgroundRun:
    """A run whose response is kept from the start, and over when `carry_out` has returned."""

    def __init__(self, site: Site, form: ResponseForm, own: OwnResponses) -> None:
        self._site = site
        self._form = form
        self._own = own
        self._request = form.call.request
        self._cancelled = asyncio.Event()
        self.recording = Recording(_RECORDED_BYTES_MAX)
        self._record(form.queued())
        self._kept = KeptResponse(form.response, form.call.given, self.recording, self.cancel)
        own.add(self._kept)

    def cancel(self) -> None:
        """The response is cancelled at once; its run may still clean up."""
        if not self._kept.is_over:
            self._record(self._form.cancelled())
            self._finish()
            self._cancelled.set()

    async def carry_out(self, caller: Caller) -> None:
        """Waits for a place and runs the request, as if a client waited. Raises nothing of the run's."""
        try:
            async with task_scope() as tasks:
                running = tasks.start(self._run_in_turn(caller), name=f"response {self._kept.id}")
                cancelled = tasks.start(_wait(self._cancelled), name="cancel")
                await asyncio.wait({running, cancelled}, return_when=asyncio.FIRST_COMPLETED)
        except MonaiError as error:
            self._take(run_failed(self._request.run, error))
        except Exception as error:
            # An entry point: whoever asked has had an answer, and their connection serves others by now.
            log_defect(f"response {self._kept.id}", error)
        finally:
            stopped = Internal("this node stopped before the response was complete")
            self._take(run_failed(self._request.run, stopped))

    async def _run_in_turn(self, caller: Caller) -> None:
        async with self._site.running(self._request, caller) as feed:
            self._record(self._form.opened())
            while not self._kept.is_over:
                event = await feed.next()
                if event is not None:
                    self._take(event)

    def _take(self, event: RunEvent) -> None:
        if self._kept.is_over:
            return
        self._record(self._form.told(event))
        if isinstance(event, AnswerCompleted | RunFailed):
            self._finish()

    def _record(self, events: list[bytes]) -> None:
        for event in events:
            self.recording.add(event)

    def _finish(self) -> None:
        self.recording.finish()
        self._kept.cancel = None  # it would keep the conversation as long as the response
        self._own.update(self._kept)


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


class BackgroundResponse(Response):
    """Answers with the response as it is now, or with its stream, and carries it out: in the task of the
    HTTP request, which outlasts its client."""

    def __init__(self, site: Site, form: ResponseForm, own: OwnResponses) -> None:
        super().__init__()
        self._run = BackgroundRun(site, form, own)
        shown = StreamResponse(self._run.recording, 0, site.config)
        self._answer = shown if form.call.stream else JsonResponse(form.response)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with task_scope() as tasks:
            running = tasks.start(self._run.carry_out(caller_of(scope)), name="background")
            with suppress(ClientDisconnect):
                await self._answer(scope, receive, send)
            await asyncio.wait({running})


class StreamResponse(Response):
    """A recorded stream, from the event `start` on, as far as it goes; then as it goes on."""

    def __init__(self, recording: Recording, start: int, config: GatewayConfig) -> None:
        super().__init__()
        self._recording = recording
        self._start = start
        self._config = config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await while_connected(self._play(send), receive)

    async def _play(self, send: Send) -> None:
        await self._send(send, answer_start(200, list(SSE_HEADERS)))
        position, is_over = self._start, False
        while not is_over:
            try:
                async with asyncio.timeout(self._config.keep_alive_seconds):
                    pieces = await self._recording.pieces(position)
            except TimeoutError:
                await self._send(send, answer_body(KEEP_ALIVE, more=True))
                continue
            except LookupError:
                # The client reads too slowly. It sees a cut, and may come back.
                raise ClientDisconnect from None
            position += len(pieces)
            is_over = self._recording.is_over and position >= self._recording.end
            await self._send(send, answer_body(b"".join(pieces), more=not is_over))

    async def _send(self, send: Send, message: dict[str, object]) -> None:
        await deliver(send, message, self._config.stall_seconds)
