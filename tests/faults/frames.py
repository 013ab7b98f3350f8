"""A provider that fails at a chosen frame: a transport that counts what it sends, then does harm.

A fault is written `<action>:<frame>:<n>` and strikes when the node is about to send its n-th frame
of that kind, counted from 1 over all its streams; with `+` at the end it strikes at every later one
too.

    kill:delta:5        SIGKILL itself: at most four deltas arrive
    freeze:accepted:1   SIGSTOP itself: the caller hears nothing, the connection stays up
    reset:delta:1+      cut every stream at its first words
    drop:completed:1    swallow the frame
    garbage:delta:2     send bytes that are no frame in its place
    repeat:completed:1  send the frame twice
    stale:completed:1   send it under an attempt nobody asked for
    delay:250:delta:3   wait 250 ms, then send
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Literal, cast, get_args

from monai_node.registry import wire
from monai_node.registry.errors import ProtocolViolation
from monai_node.registry.ids import PeerId
from monai_node.registry.transport import ConnectionListener, Handler, Stream, Transport

Action = Literal["kill", "freeze", "reset", "drop", "garbage", "repeat", "stale", "delay"]
STALE_ATTEMPT = "0000000000000000"
_FRAME_KINDS = frozenset(str(kind.model_fields["t"].default) for kind in get_args(wire.AnyMessage))
_FAULT = re.compile(r"(?P<action>[a-z]+)(:(?P<ms>\d+))?:(?P<kind>[a-z]+):(?P<n>\d+)(?P<on>\+?)")


@dataclass(frozen=True, slots=True)
class FrameFault:
    """What happens at the `nth` frame of `kind`, and at later ones when `is_lasting`."""

    action: Action
    kind: str
    nth: int
    is_lasting: bool = False
    delay_ms: int = 0

    def strikes(self, kind: str | None, count: int) -> bool:
        return kind == self.kind and (count == self.nth or (self.is_lasting and count > self.nth))


def parse_fault(text: str) -> FrameFault:
    """A fault as written on a command line; ValueError that says what is wrong with it."""
    found = _FAULT.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not <action>:<frame>:<n>")
    action, kind, nth = found["action"], found["kind"], int(found["n"])
    if action not in get_args(Action):
        raise ValueError(f"no action {action!r}; there are {', '.join(get_args(Action))}")
    if kind not in _FRAME_KINDS:
        raise ValueError(f"no frame {kind!r}; there are {', '.join(sorted(_FRAME_KINDS))}")
    if (found["ms"] is not None) != (action == "delay"):
        raise ValueError(f"milliseconds belong to delay, and to nothing else: {text!r}")
    if nth < 1:
        raise ValueError("frames are counted from 1")
    return FrameFault(cast(Action, action), kind, nth, bool(found["on"]), int(found["ms"] or 0))


def frame_kind(frame: bytes) -> str | None:
    """The `t` of a frame; None for one that the wire does not know."""
    try:
        return str(wire.decode(frame, wire.Message).model_dump(include={"t"})["t"])
    except ProtocolViolation:
        return None


def _signal_itself(number: int) -> None:
    os.kill(os.getpid(), number)


@dataclass(slots=True)
class FaultPlan:
    """The faults of one node and how many frames of each kind it has sent."""

    faults: Sequence[FrameFault]
    seed: int = 0
    signal_itself: Callable[[int], None] = _signal_itself
    sent: Counter[str | None] = field(default_factory=Counter[str | None])

    def due(self, frame: bytes) -> list[FrameFault]:
        """Count one frame that is about to be sent; what strikes it."""
        kind = frame_kind(frame)
        self.sent[kind] += 1
        return [fault for fault in self.faults if fault.strikes(kind, self.sent[kind])]

    def garbage(self, size: int) -> bytes:
        """Bytes that no CBOR decoder takes: they begin with a "break" outside anything."""
        return b"\xff" + Random(self.seed).randbytes(size)


def faulty_transport(faults: Sequence[FrameFault], *, seed: int = 0) -> Callable[[Transport], Transport]:
    """What `open_node` and `mesh.cli.main` take as `wrap_transport`."""
    plan = FaultPlan(faults, seed)
    return lambda transport: FaultyTransport(transport, plan)


class FaultyTransport:
    """A transport all of whose streams, opened and accepted, send under one FaultPlan."""

    def __init__(self, inner: Transport, plan: FaultPlan) -> None:
        self._inner = inner
        self._plan = plan

    @property
    def peer_id(self) -> PeerId:
        return self._inner.peer_id

    @property
    def addrs(self) -> list[str]:
        return self._inner.addrs

    def handle(self, protocol: str, handler: Handler) -> None:
        async def faulty(stream: Stream) -> None:
            await handler(FaultyStream(stream, self._plan))

        self._inner.handle(protocol, faulty)

    def listen_connections(self, listener: ConnectionListener) -> None:
        self._inner.listen_connections(listener)

    async def connect(self, addr: str, timeout_seconds: float) -> PeerId:
        return await self._inner.connect(addr, timeout_seconds)

    async def open(self, peer: PeerId, protocol: str, timeout_seconds: float) -> Stream:
        return FaultyStream(await self._inner.open(peer, protocol, timeout_seconds), self._plan)

    def is_connected(self, peer: PeerId) -> bool:
        return self._inner.is_connected(peer)

    async def disconnect(self, peer: PeerId) -> None:
        await self._inner.disconnect(peer)


class FaultyStream:
    """A stream whose sending side is struck by the plan; receiving is untouched."""

    def __init__(self, inner: Stream, plan: FaultPlan) -> None:
        self._inner = inner
        self._plan = plan

    @property
    def peer(self) -> PeerId:
        return self._inner.peer

    async def send(self, frame: bytes) -> None:
        frames = [frame]
        for fault in self._plan.due(frame):
            frames = await self._strike(fault, frames)
        for each in frames:
            await self._inner.send(each)  # raises PeerLost after a reset, as any stream does

    async def receive(self) -> bytes:
        return await self._inner.receive()

    @property
    def has_frame(self) -> bool:
        return self._inner.has_frame

    async def close(self) -> None:
        await self._inner.close()

    def reset(self) -> None:
        self._inner.reset()

    async def _strike(self, fault: FrameFault, frames: list[bytes]) -> list[bytes]:
        """Do what the fault does to this node; the frames to send instead of `frames`."""
        match fault.action:
            case "kill":
                self._plan.signal_itself(signal.SIGKILL)
            case "freeze":
                self._plan.signal_itself(signal.SIGSTOP)
            case "reset":
                self._inner.reset()
            case "drop":
                return []
            case "garbage":
                return [self._plan.garbage(len(frame)) for frame in frames]
            case "repeat":
                return frames * 2
            case "stale":
                return [_stale(frame) for frame in frames]
            case "delay":
                await asyncio.sleep(fault.delay_ms / 1000)
        return frames


def _stale(frame: bytes) -> bytes:
    message = wire.decode(frame, wire.Message)
    return wire.encode(message.model_copy(update={"attempt": STALE_ATTEMPT}))
