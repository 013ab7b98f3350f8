"""The only thing between the mesh and the network, and its in-memory form.

A `Transport` opens and accepts streams of frames to peers whose identity it has authenticated. Two
implementations exist: `mesh.libp2p` (TCP + Noise + yamux) and `MemoryTransport` here, which serves a
node's own models and tests; both pass the same contract tests (`tests/mesh/test_transport.py`).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol
from weakref import WeakSet

from monai_node.registry.errors import MonaiError, PeerLost, PeerUnreachable, ProtocolViolation
from monai_node.registry.ids import PeerId, short
from monai_node.registry.tasks import TaskScope, task_scope
from monai_node.registry.wire import FRAME_BYTES_MAX, STREAM_BUFFER_FRAMES

_log = logging.getLogger(__name__)


class Stream(Protocol):
    """One bidirectional stream of frames to an authenticated peer. One reader, one writer at a time."""

    @property
    def peer(self) -> PeerId: ...

    async def send(self, frame: bytes) -> None:
        """Hand one frame over. PeerLost once the stream is reset or the peer is gone."""
        ...

    async def receive(self) -> bytes:
        """The next frame. EOFError when the peer ended its side; PeerLost when the stream was cut,
        or when this side let `STREAM_BUFFER_FRAMES` frames pile up."""
        ...

    @property
    def has_frame(self) -> bool:
        """Whether a frame has come that `receive` gives without waiting."""
        ...

    async def close(self) -> None:
        """End this side well: frames already sent still arrive. Idempotent, never raises."""
        ...

    def reset(self) -> None:
        """Abort both directions at once. Idempotent, never raises, never waits."""
        ...


Handler = Callable[[Stream], Awaitable[None]]
ConnectionListener = Callable[[PeerId, bool], None]


class Transport(Protocol):
    """Opens streams to peers and hands incoming ones to handlers.

    A handler runs in a task owned by the transport; when it returns the stream is closed, when it
    raises the stream is reset and the error logged. Leaving `open_…` cancels all handlers.
    """

    @property
    def peer_id(self) -> PeerId: ...

    @property
    def addrs(self) -> list[str]:
        """Multiaddrs (with `/p2p/…`) under which others can dial this node."""
        ...

    def handle(self, protocol: str, handler: Handler) -> None:
        """Serve `protocol`; must be called before peers may use it. ValueError when served twice."""
        ...

    def listen_connections(self, listener: ConnectionListener) -> None:
        """Call `listener(peer, is_up)` on the event loop when a peer's (last) connection changes."""
        ...

    async def connect(self, addr: str, timeout_seconds: float) -> PeerId:
        """Dial a multiaddr with `/p2p/…`. PeerUnreachable, with the reason in words."""
        ...

    async def open(self, peer: PeerId, protocol: str, timeout_seconds: float) -> Stream:
        """A stream on the connection to `peer`, dialling known addresses if there is none.
        PeerUnreachable when there is no way, or the peer does not serve `protocol`."""
        ...

    def is_connected(self, peer: PeerId) -> bool: ...

    async def disconnect(self, peer: PeerId) -> None:
        """Drop the connection; every stream on it fails with PeerLost. Idempotent."""
        ...


# --- in memory ------------------------------------------------------------------------------------
class MemoryNetwork:
    """Joins the memory transports of one event loop."""

    def __init__(self) -> None:
        self._nodes: dict[PeerId, MemoryTransport] = {}

    def attach(self, node: MemoryTransport) -> None:
        self._nodes[node.peer_id] = node

    def detach(self, node: MemoryTransport) -> None:
        self._nodes.pop(node.peer_id, None)

    def find(self, peer: PeerId) -> MemoryTransport | None:
        return self._nodes.get(peer)


class MemoryStream:
    """One end of a stream between two memory transports."""

    def __init__(self, peer: PeerId) -> None:
        self._peer = peer
        self._frames: deque[bytes] = deque()
        self._arrived = asyncio.Event()
        self._is_ended = False  # the other side closed well
        self._is_reset = False
        self._is_closed = False  # this side closed
        self._other: MemoryStream | None = None

    @staticmethod
    def pair(opener: PeerId, accepter: PeerId) -> tuple[MemoryStream, MemoryStream]:
        """The opener's end and the accepter's end."""
        ours, theirs = MemoryStream(accepter), MemoryStream(opener)
        ours._other, theirs._other = theirs, ours
        return ours, theirs

    @property
    def peer(self) -> PeerId:
        return self._peer

    async def send(self, frame: bytes) -> None:
        if len(frame) > FRAME_BYTES_MAX:
            raise ProtocolViolation(f"a frame of {len(frame)} bytes exceeds {FRAME_BYTES_MAX}")
        if self._is_reset or self._is_closed or self._other is None:
            raise PeerLost("the stream to this peer was cut")
        if len(self._other._frames) >= STREAM_BUFFER_FRAMES:
            self.reset()
            raise PeerLost("the peer stopped reading and its stream was cut")
        self._other._frames.append(frame)
        self._other._arrived.set()
        await asyncio.sleep(0)  # a sender in a loop must not starve its reader

    async def receive(self) -> bytes:
        while not self._frames:
            if self._is_reset:
                raise PeerLost("the stream from this peer was cut")
            if self._is_ended:
                raise EOFError
            self._arrived.clear()
            await self._arrived.wait()
        if self._is_reset:
            raise PeerLost("the stream from this peer was cut")
        return self._frames.popleft()

    @property
    def has_frame(self) -> bool:
        return bool(self._frames) and not self._is_reset

    async def close(self) -> None:
        self._is_closed = True
        if self._other is not None:
            self._other._is_ended = True
            self._other._arrived.set()

    def reset(self) -> None:
        for end in (self, self._other):
            if end is not None and not end._is_reset:
                end._is_reset = True
                end._arrived.set()


class MemoryTransport:
    """A transport within one event loop; made by `open_memory_transport`.

    A node may open streams to itself: that is how its own models are served under the same contract
    as its peers' (a libp2p host cannot dial itself).
    """

    def __init__(self, peer_id: PeerId, network: MemoryNetwork, scope: TaskScope) -> None:
        self._peer_id = peer_id
        self._network = network
        self._scope = scope
        self._handlers: dict[str, Handler] = {}
        self._listeners: list[ConnectionListener] = []
        # Weak: a stream that both ends dropped is over, and must not be kept alive by this book.
        self._streams: dict[PeerId, WeakSet[MemoryStream]] = {}

    @property
    def peer_id(self) -> PeerId:
        return self._peer_id

    @property
    def addrs(self) -> list[str]:
        return [f"/memory/p2p/{self._peer_id}"]

    def handle(self, protocol: str, handler: Handler) -> None:
        if protocol in self._handlers:
            raise ValueError(f"{protocol} is served already")
        self._handlers[protocol] = handler

    def listen_connections(self, listener: ConnectionListener) -> None:
        self._listeners.append(listener)

    def is_connected(self, peer: PeerId) -> bool:
        return peer in self._streams

    async def connect(self, addr: str, timeout_seconds: float) -> PeerId:
        peer = PeerId(addr.rpartition("/p2p/")[2])
        other = self._network.find(peer)
        if other is None:
            raise PeerUnreachable(f"no node answers at {addr}")
        self._up(other)
        return peer

    async def open(self, peer: PeerId, protocol: str, timeout_seconds: float) -> MemoryStream:
        other = self._network.find(peer)
        if other is None:
            raise PeerUnreachable(f"peer {peer[-8:]} is not reachable")
        handler = other._handlers.get(protocol)
        if handler is None:
            raise PeerUnreachable(f"peer {peer[-8:]} does not serve {protocol}")
        self._up(other)
        ours, theirs = MemoryStream.pair(self._peer_id, peer)
        self._streams[peer].add(ours)
        other._streams[self._peer_id].add(theirs)
        other._scope.start(serve_stream(handler, theirs), name=f"serve {protocol}")
        return ours

    async def disconnect(self, peer: PeerId) -> None:
        streams = self._streams.pop(peer, None)
        if streams is None:
            return
        for stream in streams:
            stream.reset()
        other = self._network.find(peer)
        if other is not None and other is not self:
            other._streams.pop(self._peer_id, None)
            other._tell(self._peer_id, False)
        self._tell(peer, False)

    async def disconnect_all(self) -> None:
        for peer in list(self._streams):
            await self.disconnect(peer)

    def _up(self, other: MemoryTransport) -> None:
        if other.peer_id in self._streams:
            return
        self._streams[other.peer_id] = WeakSet()
        self._tell(other.peer_id, True)
        if other is not self:
            other._streams[self._peer_id] = WeakSet()
            other._tell(self._peer_id, True)

    def _tell(self, peer: PeerId, is_up: bool) -> None:
        for listener in self._listeners:
            listener(peer, is_up)


async def serve_stream(handler: Handler, stream: Stream) -> None:
    """Run one handler to its end: closed when it returned, reset when it raised or was cancelled.

    The one broad `except` of the accepting side: what a peer sends may fail in ways nobody listed, and
    must cost that stream alone.
    """
    try:
        await handler(stream)
    except (MonaiError, EOFError, TimeoutError) as error:
        _log.debug("stream of %s ended: %s", short(stream.peer), error)
        stream.reset()
    except Exception:
        _log.exception("a handler failed on a stream of %s", short(stream.peer))
        stream.reset()
    except BaseException:
        stream.reset()
        raise
    else:
        await stream.close()


@asynccontextmanager
async def open_memory_transport(
    peer_id: PeerId, network: MemoryNetwork | None = None
) -> AsyncGenerator[MemoryTransport]:
    """A memory transport on `network` (its own, when None); leaving resets streams, ends handlers."""
    network = network or MemoryNetwork()
    async with task_scope() as scope:
        transport = MemoryTransport(peer_id, network, scope)
        network.attach(transport)
        try:
            yield transport
        finally:
            network.detach(transport)
            await transport.disconnect_all()


class SelfServingTransport:
    """A transport that reaches this node itself in memory and everybody else over `outer`."""

    def __init__(self, outer: Transport, own: MemoryTransport) -> None:
        self._outer = outer
        self._own = own

    @property
    def peer_id(self) -> PeerId:
        return self._outer.peer_id

    @property
    def addrs(self) -> list[str]:
        return self._outer.addrs

    def handle(self, protocol: str, handler: Handler) -> None:
        self._outer.handle(protocol, handler)
        self._own.handle(protocol, handler)

    def listen_connections(self, listener: ConnectionListener) -> None:
        self._outer.listen_connections(listener)

    async def connect(self, addr: str, timeout_seconds: float) -> PeerId:
        return await self._outer.connect(addr, timeout_seconds)

    async def open(self, peer: PeerId, protocol: str, timeout_seconds: float) -> Stream:
        chosen: Transport = self._own if peer == self.peer_id else self._outer
        return await chosen.open(peer, protocol, timeout_seconds)

    def is_connected(self, peer: PeerId) -> bool:
        return peer == self.peer_id or self._outer.is_connected(peer)

    async def disconnect(self, peer: PeerId) -> None:
        await self._outer.disconnect(peer)
