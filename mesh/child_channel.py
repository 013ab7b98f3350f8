"""The child's side of `mesh.child`: its end of the socket, and a server for asynchronous handlers.

A child with a loop of its own (an engine) takes commands from `Channel.listen` and answers with
`event`, `end` and `fail`; one that awaits (agents) hands an async generator to `serve`.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import traceback
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from monai_node.mesh.child_frames import (
    LENGTH,
    SETUP_CALL,
    Entry,
    failure,
    frame_length,
    pack,
    unpack,
)
from monai_node.registry.errors import MonaiError, ProtocolViolation
from monai_node.registry.tasks import TaskScope, task_scope
from monai_node.registry.wire import cbor, uncbor

Handler = Callable[[str, Any], AsyncGenerator[Any, None]]


@dataclass(frozen=True, slots=True)
class Command:
    """What the parent wants: a call opened, with its operation and payload, or one cancelled."""

    call: int
    kind: Literal["open", "cancel"]
    op: str = ""
    payload: Any = None


class Channel:
    """The child's end of the socket. Sending is safe from any thread."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._sending = threading.Lock()

    def listen(self, deliver: Callable[[Command], object]) -> None:
        """Start the reader thread, which calls `deliver` for every command and ends the process
        when the parent closes the stream or sends what is not a frame."""
        threading.Thread(target=self._read, args=(deliver,), daemon=True, name="commands").start()

    def ready(self, info: Any) -> None:
        self._send((SETUP_CALL, "ready", cbor(info)))

    def refuse(self, error: BaseException) -> None:
        """Say why this child cannot serve; the caller then leaves."""
        self._send((SETUP_CALL, "failed", cbor(failure(error))))

    def event(self, call: int, value: Any) -> None:
        self._send((call, "event", cbor(value)))

    def end(self, call: int) -> None:
        self._send((call, "end", cbor(None)))

    def fail(self, call: int, error: BaseException) -> None:
        self._send((call, "failed", cbor(failure(error))))

    def _send(self, entry: Entry) -> None:
        frame = pack(entry)
        with self._sending:
            try:
                self._connection.sendall(frame)
            except OSError:
                os._exit(0)  # the parent is gone, and with it the reason to live

    def _read(self, deliver: Callable[[Command], object]) -> NoReturn:
        try:
            with self._connection.makefile("rb") as stream:
                while header := stream.read(LENGTH.size):
                    for call, kind, body in unpack(stream.read(frame_length(header))):
                        self._accept(call, kind, body, deliver)
        except Exception:  # whatever breaks the stream ends the process, never only this thread
            traceback.print_exc()
        os._exit(0)

    def _accept(self, call: int, kind: str, body: bytes, deliver: Callable[[Command], object]) -> None:
        if kind == "cancel":
            deliver(Command(call, "cancel"))
            return
        try:
            match uncbor(body):
                case {"op": str(op), "payload": payload}:
                    deliver(Command(call, "open", op, payload))
                case _:
                    raise ProtocolViolation("a call without an operation was received")
        except ProtocolViolation as error:
            self.fail(call, error)


async def serve(channel: Channel, handler: Handler, info: Any = None) -> NoReturn:
    """Answer calls with an async generator `handler(op, payload)`, many at once, until the parent
    goes. A handler that raises fails its own call; a cancelled call cancels its handler."""
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[Command] = asyncio.Queue()
    running: dict[int, asyncio.Task[None]] = {}

    def deliver(command: Command) -> None:
        loop.call_soon_threadsafe(arrived.put_nowait, command)

    async with task_scope() as scope:
        channel.listen(deliver)
        channel.ready(info)
        while True:
            _obey(await arrived.get(), channel, handler, scope, running)


def _obey(
    command: Command,
    channel: Channel,
    handler: Handler,
    scope: TaskScope,
    running: dict[int, asyncio.Task[None]],
) -> None:
    if command.kind == "cancel":
        if command.call in running:
            running[command.call].cancel()
        return
    call = command.call

    def ended(task: asyncio.Task[None]) -> None:
        running.pop(call, None)
        if task.cancelled():  # also when it never took its first step
            channel.end(call)

    running[call] = scope.start(_answer(command, channel, handler), name=f"call-{call}")
    running[call].add_done_callback(ended)


async def _answer(command: Command, channel: Channel, handler: Handler) -> None:
    try:
        async with aclosing(handler(command.op, command.payload)) as events:
            async for value in events:
                channel.event(command.call, value)
                await asyncio.sleep(0)  # or a handler that never waits could not be cancelled
        channel.end(command.call)
    except Exception as error:  # entry point: a failing handler costs its call and nothing else
        if not isinstance(error, MonaiError):
            traceback.print_exc()
        channel.fail(command.call, error)
