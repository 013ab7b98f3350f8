"""One child process, from its start to its end, seen by its parent."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import cbor2

from monai_node.mesh.child_frames import LENGTH, SETUP_CALL, Entry, frame_length, pack, unpack
from monai_node.registry.errors import (
    InvalidRequest,
    MonaiError,
    ProtocolViolation,
    SetupError,
    TaskFailed,
    from_wire,
)
from monai_node.registry.tasks import task_scope
from monai_node.registry.wire import SEND_SECONDS, cbor, uncbor

_STDERR_BYTES_KEPT = 8 << 10
_UNREAD_BYTES_MAX = 4 << 20  # of one call; more than one frame, so that one always fits
_ENTRY_BYTES = 128  # what an entry costs beside its body
_EXIT_SECONDS = 2.0
_SECRET_VARIABLES = frozenset({"MONAI_JOIN"})
_LAST_WORDS_SECONDS = 0.2  # a grandchild may keep stderr open after the process has gone


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """Which Python function runs in the child, and what the process may use.

    `entry` is the dotted path of a module-level `entry(channel, config)`; `config` must be JSON.
    The address space is limited to `memory_bytes` when that is given.
    """

    name: str  # for people: "the model tiny", used in error sentences and logs
    entry: str
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    memory_bytes: int | None = None
    nice: int = 0
    load_seconds: float = 60.0  # from the start of the process to its `ready`
    cancel_seconds: float = 10.0  # a child that has not ended a cancelled call by then is stuck


class ChildDied(TaskFailed):
    """The process went away with the call open. `reason` is short ("killed by SIGKILL"); `stderr`
    is the end of what it wrote, for logs only: it may quote what a user wrote."""

    def __init__(self, name: str, reason: str, stderr: tuple[str, ...]) -> None:
        super().__init__(f"{name} stopped unexpectedly ({reason})")
        self.reason = reason
        self.stderr = stderr


class _Call:
    """What a call has received and not yet read. Events take room, so that a child cannot fill our
    memory; the entry that ends a call always fits."""

    def __init__(self) -> None:
        self._entries: asyncio.Queue[tuple[str, bytes] | MonaiError] = asyncio.Queue()
        self._held_bytes = 0
        self._has_room = asyncio.Event()
        self.is_open = True
        self.patience: asyncio.TimerHandle | None = None

    async def put(self, kind: str, body: bytes) -> None:
        """TimeoutError when nobody has read for SEND_SECONDS and the room is used up."""
        if kind == "event" and self._held_bytes > _UNREAD_BYTES_MAX:
            self._has_room.clear()
            async with asyncio.timeout(SEND_SECONDS):
                await self._has_room.wait()
        self._held_bytes += len(body) + _ENTRY_BYTES
        self._entries.put_nowait((kind, body))

    def fail(self, error: MonaiError) -> None:
        self._entries.put_nowait(error)

    async def get(self) -> tuple[str, bytes]:
        entry = await self._entries.get()
        if isinstance(entry, MonaiError):
            raise entry
        self._held_bytes -= len(entry[1]) + _ENTRY_BYTES
        self._has_room.set()
        return entry

    def close(self) -> None:
        """Nobody reads this call any more: let whoever waits for room go on."""
        self.is_open = False
        self._has_room.set()


class Life:
    """One process, from its start to its end."""

    def __init__(
        self,
        spec: ChildSpec,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._spec = spec
        self._process = process
        self._reader = reader
        self._writer = writer
        self._calls: dict[int, _Call] = {}
        self._numbers = count(SETUP_CALL + 1)
        self._stderr = b""
        self._stderr_ended = asyncio.Event()
        self._verdict = ""  # why we ended it, when we did
        self._death: ChildDied | None = None

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def stderr(self) -> tuple[str, ...]:
        return tuple(self._stderr.decode("utf-8", "replace").splitlines())

    async def until_ready(self) -> Any:
        """What the child says of itself; SetupError when it refuses, ends or takes too long."""
        try:
            async with asyncio.timeout(self._spec.load_seconds):
                call, kind, body = (await self._frame())[0]
                value = uncbor(body)
        except TimeoutError:
            seconds = f"{self._spec.load_seconds:g} s"
            raise SetupError(f"{self._spec.name} was not ready within {seconds}") from None
        except (EOFError, OSError, IndexError, ProtocolViolation):
            death = await self.bury()
            raise SetupError(f"{self._spec.name} could not start ({death.reason})") from death
        match call, kind, value:
            case 0, "ready", info:
                return info
            case 0, "failed", {"message": str(message)}:
                raise SetupError(f"{self._spec.name} could not start: {message}")
            case _:
                raise SetupError(f"{self._spec.name} could not start: it spoke out of turn")

    async def run(self) -> ChildDied:
        """Hand what the child says to its calls until it ends; says how it ended."""
        try:
            while True:
                for entry in await self._frame():
                    await self._deliver(entry)
        except ProtocolViolation as error:
            self._condemn(error.message)
        except (EOFError, OSError):
            pass
        return await self.bury()

    async def keep_stderr(self) -> None:
        stream = self._process.stderr
        assert stream is not None
        while chunk := await stream.read(4096):
            self._stderr = (self._stderr + chunk)[-_STDERR_BYTES_KEPT:]
        self._stderr_ended.set()

    async def call(self, op: str, payload: Any) -> AsyncGenerator[Any, None]:
        number = next(self._numbers)
        frame = self._opening(number, op, payload)
        if self._death is not None:
            raise self._death
        call = self._calls[number] = _Call()
        try:
            await self._write(frame)
            while True:
                kind, body = await call.get()
                if kind == "end":
                    return
                value = uncbor(body)
                if kind == "failed":
                    raise _failure(value)
                yield value
        finally:
            self._close(number, call)

    def _opening(self, number: int, op: str, payload: Any) -> bytes:
        try:
            return pack((number, "open", cbor({"op": op, "payload": payload})))
        except (cbor2.CBOREncodeError, ValueError, ProtocolViolation):
            raise InvalidRequest("the request holds text or values that cannot be sent") from None

    async def _write(self, frame: bytes) -> None:
        try:
            self._writer.write(frame)
            async with asyncio.timeout(SEND_SECONDS):
                await self._writer.drain()
        except TimeoutError:
            raise TaskFailed(f"{self._spec.name} does not take requests") from None
        except OSError:
            pass  # it is gone; `run` tells every call so

    async def _frame(self) -> list[Entry]:
        size = frame_length(await self._reader.readexactly(LENGTH.size))
        return unpack(await self._reader.readexactly(size))

    async def _deliver(self, entry: Entry) -> None:
        number, kind, body = entry
        call = self._calls.get(number)
        if call is None:
            return  # an event that crossed our cancel
        is_last = kind in ("end", "failed")
        if is_last:
            del self._calls[number]
            if call.patience is not None:
                call.patience.cancel()
        if not call.is_open:
            return
        if not is_last and kind != "event":
            raise ProtocolViolation(f"it sent an entry of kind {kind[:32]!r}")
        try:
            await call.put(kind, body)
        except TimeoutError:
            call.is_open = False
            call.fail(TaskFailed("its result was not read in time"))

    def _close(self, number: int, call: _Call) -> None:
        call.close()
        if number not in self._calls or self._writer.is_closing():
            return
        self._writer.write(pack((number, "cancel", b"")))
        loop = asyncio.get_running_loop()
        call.patience = loop.call_later(
            self._spec.cancel_seconds, self._condemn, "it did not stop when told to"
        )

    def _condemn(self, verdict: str) -> None:
        self._verdict = self._verdict or verdict
        self.kill()

    def kill(self) -> None:
        """End the process and whatever it started: it leads a process group of its own."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def bury(self) -> ChildDied:
        """Wait for the process to be gone and fail its open calls; says how it went."""
        try:
            async with asyncio.timeout(_EXIT_SECONDS):
                code = await self._process.wait()
        except TimeoutError:
            self.kill()
            code = await self._process.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                await self._stderr_ended.wait()
        self._writer.close()
        if self._death is None:
            self._death = ChildDied(self._spec.name, self._verdict or _reason(code), self.stderr)
        for call in self._calls.values():
            call.fail(self._death)
            if call.patience is not None:
                call.patience.cancel()
        self._calls.clear()
        return self._death


def _reason(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def _failure(value: Any) -> MonaiError:
    match value:
        case {"code": str(code), "message": str(message)}:
            return from_wire(code, message)
        case _:
            return TaskFailed("it failed without saying why")


def _inherited() -> dict[str, str]:
    """Our environment less the mesh secret: a child parses what others made."""
    return {name: value for name, value in os.environ.items() if name not in _SECRET_VARIABLES}


@asynccontextmanager
async def open_life(spec: ChildSpec) -> AsyncGenerator[Life, None]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        boot = {
            "fd": theirs.fileno(),
            "parent": os.getpid(),
            "memory_bytes": spec.memory_bytes,
            "nice": spec.nice,
            "config": dict(spec.config),
        }
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "monai_node.mesh.child_main"),
            *(spec.entry, json.dumps(boot)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=[theirs.fileno()],
            env={**_inherited(), **spec.environment},
            start_new_session=True,  # Ctrl-C is for the node, which ends its children in order
        )
        theirs.close()
        reader, writer = await asyncio.open_connection(sock=ours)
        life = Life(spec, process, reader, writer)
        async with task_scope() as scope:
            scope.start(life.keep_stderr(), name=f"stderr of {spec.name}")
            try:
                yield life
            finally:
                life.kill()
                await life.bury()
