"""`/v1/ws`: many runs over one socket, each told by the same events as over HTTP."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from fastapi import APIRouter, WebSocket
from starlette.requests import ClientDisconnect
from starlette.websockets import WebSocketDisconnect

from monai_node.mesh.gateway.caller import caller_of
from monai_node.mesh.gateway.errors import Cancelled, TooManyRuns
from monai_node.mesh.gateway.feed import Feed
from monai_node.mesh.gateway.http.json_io import parse_object
from monai_node.mesh.gateway.http.protocols import SERVICE_RESTART
from monai_node.mesh.gateway.runs import Accepting
from monai_node.mesh.gateway.site import Site
from monai_node.mesh.gateway.socket.messages import (
    Ping,
    Pong,
    RunCancel,
    RunStart,
    Wanted,
    line,
    name_in,
    read_message,
    refusal_of,
    wanted_of,
)
from monai_node.registry.errors import InvalidRequest, MonaiError, NotFound, log_defect
from monai_node.registry.events import AnswerCompleted, RunEvent, RunFailed
from monai_node.registry.ids import RunId, new_run_id
from monai_node.registry.tasks import TaskScope, task_scope

RUNS_PER_SOCKET_MAX = 16
# Close codes, RFC 6455 section 7.4.1. For what is too large (1009) or no UTF-8 (1007) the server closes.
_UNSUPPORTED_DATA = 1003
_INTERNAL_ERROR = 1011


def socket_routes(site: Site) -> APIRouter:
    router = APIRouter(prefix="/v1")

    @router.websocket("/ws")
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            async with task_scope() as tasks:
                await _Session(site, websocket, tasks).serve()
        except asyncio.CancelledError:
            await _close(websocket, SERVICE_RESTART)
            raise
        except Exception as error:
            # An entry point: nothing of ours stands above this to handle anything.
            log_defect("a socket", error)
            await _close(websocket, _INTERNAL_ERROR)

    return router


@dataclass(slots=True)
class _Run:
    """A run of one socket; without a feed while it waits for its place."""

    name: str | None  # the client's own
    task: asyncio.Task[None] | None = None
    feed: Feed | None = None


class _Session:
    """One socket. Reading waits while an answer cannot be sent, and a run while its events cannot: memory
    is bounded whatever the client does. Every run ends with the socket."""

    def __init__(self, site: Site, websocket: WebSocket, tasks: TaskScope) -> None:
        self._site = site
        self._websocket = websocket
        self._tasks = tasks
        self._caller = caller_of(websocket.scope)
        self._traceparent = websocket.headers.get("traceparent")
        self._runs: dict[RunId, _Run] = {}
        self._sending = asyncio.Lock()
        self._is_over = asyncio.Event()

    async def serve(self) -> None:
        """Returns when the client is gone, or takes nothing for too long."""
        self._tasks.start(self._read(), name="socket")
        await self._is_over.wait()

    async def _read(self) -> None:
        while not self._is_over.is_set():
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                if message["code"] == SERVICE_RESTART:
                    await self._drain()
                self._is_over.set()
            elif (text := message.get("text")) is not None:
                await self._take(text)
            else:
                await _close(self._websocket, _UNSUPPORTED_DATA)
                self._is_over.set()

    async def _drain(self) -> None:
        """The server stops: what goes on may end, in the time that it gives us."""
        if tasks := [run.task for run in self._runs.values() if run.task is not None]:
            await asyncio.wait(tasks)
        await _close(self._websocket, SERVICE_RESTART)

    async def _take(self, text: str) -> None:
        name: str | None = None
        try:
            raw = parse_object(text.encode())
            name = name_in(raw)
            match said := read_message(raw):
                case Ping():
                    await self._send(line(Pong(id=name)))
                case RunCancel():
                    await self._cancel(said)
                case RunStart():
                    self._start(said)
        except MonaiError as error:
            await self._refuse(error, name)

    # --- runs -----------------------------------------------------------------------------------------
    def _start(self, said: RunStart) -> None:
        if said.id is not None and any(run.name == said.id for run in self._runs.values()):
            raise InvalidRequest("a run of this socket has that id and goes on", param="id")
        if len(self._runs) >= RUNS_PER_SOCKET_MAX:
            raise TooManyRuns(f"{RUNS_PER_SOCKET_MAX} runs go on over this socket; wait until one has ended")
        wanted = wanted_of(said, new_run_id(), self._traceparent)
        self._site.access.begin(self._caller)  # its key may have been revoked since the socket was opened
        run = self._runs[wanted.request.run] = _Run(said.id)
        run.task = self._tasks.start(self._carry_out(wanted, run), name=f"socket's {wanted.request.run}")

    async def _carry_out(self, wanted: Wanted, run: _Run) -> None:
        request = wanted.request
        try:
            is_kept = wanted.is_plan and self._caller.is_admin
            runs = Accepting(self._site.backend) if is_kept else None
            async with self._site.running(request, self._caller, runs) as run.feed:
                await self._pass_on(run.feed, run)
                del self._runs[request.run]  # its client may use its id again
        except MonaiError as error:  # it could not begin
            await self._refuse(error, run.name)
        finally:
            self._runs.pop(request.run, None)

    async def _pass_on(self, feed: Feed, run: _Run) -> None:
        event: RunEvent | None = None
        while not isinstance(event, AnswerCompleted | RunFailed):
            event = await feed.next()
            if event is not None:
                await self._send(line(event, run.name))

    async def _cancel(self, said: RunCancel) -> None:
        run = self._find(said)
        cancelled = Cancelled("the run was cancelled by its client")
        if run.feed is not None:
            run.feed.stop(cancelled)
        elif run.task is not None and run.task.cancel():
            await self._refuse(cancelled, run.name)

    def _find(self, said: RunCancel) -> _Run:
        for run, held in self._runs.items():
            if run == said.run or (said.id is not None and held.name == said.id):
                return held
        raise NotFound("no such run goes on over this socket", code="run_not_found", param="run")

    # --- the way out ----------------------------------------------------------------------------------
    async def _refuse(self, error: MonaiError, name: str | None) -> None:
        await self._send(line(refusal_of(error, name)))

    async def _send(self, text: str) -> None:
        """Sends one message, or ends the socket when that cannot be done in time."""
        async with self._sending:
            if self._is_over.is_set():
                return
            try:
                async with asyncio.timeout(self._site.config.stall_seconds):
                    await self._websocket.send_text(text)
            except (TimeoutError, ClientDisconnect, WebSocketDisconnect, RuntimeError):
                # RuntimeError: the server has closed its side already, say for a message too large.
                self._is_over.set()


async def _close(websocket: WebSocket, code: int) -> None:
    try:
        async with asyncio.timeout(1.0):
            await websocket.close(code)
    except (TimeoutError, WebSocketDisconnect, RuntimeError):
        return
