"""`registry.transport.Transport` over libp2p (TCP, Noise, yamux): the asyncio side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from weakref import WeakSet

from monai_node.mesh.identity import Identity
from monai_node.mesh.libp2p.addrs import parse_dial
from monai_node.mesh.libp2p.bridge import STOPPED, Bridge, open_bridge
from monai_node.mesh.libp2p.framing import framed
from monai_node.mesh.libp2p.host import Host
from monai_node.mesh.libp2p.link import Link
from monai_node.registry.errors import Internal, PeerLost, PeerUnreachable
from monai_node.registry.ids import PeerId, short
from monai_node.registry.tasks import TaskScope, task_scope
from monai_node.registry.transport import (
    ConnectionListener,
    Handler,
    Stream,
    Transport,
    serve_stream,
)
from monai_node.registry.wire import SEND_SECONDS

_RESET_HERE = "this node reset the stream"


class Libp2pStream:
    """One end of a libp2p stream; see `registry.transport.Stream`."""

    def __init__(self, link: Link, bridge: Bridge) -> None:
        self._link = link
        self._bridge = bridge

    @property
    def peer(self) -> PeerId:
        return self._link.peer

    async def send(self, frame: bytes) -> None:
        """Waits while the peer is slower than this side; after SEND_SECONDS the stream is reset.

        Cancelling sends the frame whole or not at all, and leaves the stream usable.
        """
        try:
            await self._link.outbox.put(framed(frame))
        except TimeoutError:
            self.reset()
            raise PeerLost(f"peer {short(self.peer)} took nothing for {SEND_SECONDS} s") from None

    async def receive(self) -> bytes:
        return await self._link.inbox.take()

    @property
    def has_frame(self) -> bool:
        return self._link.inbox.has_frame

    async def close(self) -> None:
        """Returns when what was sent is written, or after SEND_SECONDS; the peer may go on sending."""
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await self._link.outbox.close()
        except TimeoutError:
            self.reset()

    def reset(self) -> None:
        self._link.cut(_RESET_HERE)
        self._bridge.to_trio.post(partial(self._link.abort, _RESET_HERE))


class Libp2pTransport:
    """Made by `open_libp2p_transport`; see `registry.transport.Transport`.

    If the network thread fails, every waiter and every stream fails, all peers are reported as down,
    and what is asked of this transport afterwards fails: the node goes on with its own models.
    """

    def __init__(self, identity: Identity, listen: Sequence[str]) -> None:
        self._peer_id = identity.peer_id
        self._handlers: dict[str, Handler] = {}
        self._listeners: list[ConnectionListener] = []
        self._up: set[PeerId] = set()
        # To be cut if the network thread dies; weak, since streams end by themselves.
        self._links: WeakSet[Link] = WeakSet()
        self._host = Host(identity, listen, self._on_connection, self._on_stream)
        self._scope: TaskScope | None = None

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """Listening, for as long as the block lasts."""
        async with open_bridge(self._host.serve, self._on_end) as bridge:
            self._bridge = bridge
            async with task_scope() as scope:
                self._scope = scope
                try:
                    yield
                finally:
                    self._scope = None

    @property
    def peer_id(self) -> PeerId:
        return self._peer_id

    @property
    def addrs(self) -> list[str]:
        return self._host.addrs

    def handle(self, protocol: str, handler: Handler) -> None:
        if protocol in self._handlers:
            raise ValueError(f"{protocol} is served already")
        self._handlers[protocol] = handler
        self._host.handle(protocol)

    def listen_connections(self, listener: ConnectionListener) -> None:
        self._listeners.append(listener)

    def is_connected(self, peer: PeerId) -> bool:
        return peer in self._up

    async def connect(self, addr: str, timeout_seconds: float) -> PeerId:
        target = parse_dial(addr)
        self._refuse_self(target.peer)
        async with _reaching(addr, timeout_seconds):
            await self._bridge.call(self._host.connect, target)
        return target.peer

    async def open(self, peer: PeerId, protocol: str, timeout_seconds: float) -> Stream:
        self._refuse_self(peer)
        link = self._new_link(peer)
        try:
            async with _reaching(f"peer {short(peer)}", timeout_seconds):
                await self._bridge.call(self._host.open, link, protocol)
        except BaseException:
            # It may be opening at this moment: an aborted link resets whatever comes to it.
            self._bridge.to_trio.post(partial(link.abort, _RESET_HERE))
            raise
        return Libp2pStream(link, self._bridge)

    async def disconnect(self, peer: PeerId) -> None:
        with suppress(Internal, ValueError):  # no network, or no peer of that name: not connected
            await self._bridge.call(self._host.disconnect, peer)

    def _refuse_self(self, peer: PeerId) -> None:
        if peer == self._peer_id:
            raise PeerUnreachable("that is this node itself: its own models need no network")

    def _new_link(self, peer: PeerId) -> Link:
        link = Link(peer, self._bridge)
        self._links.add(link)
        return link

    # --- what the host tells, on the loop ---------------------------------------------------------
    def _on_connection(self, peer: PeerId, is_up: bool) -> None:
        if is_up:
            self._up.add(peer)
        else:
            self._up.discard(peer)
        for listener in list(self._listeners):
            listener(peer, is_up)

    def _on_stream(self, protocol: str, link: Link) -> None:
        stream = Libp2pStream(link, self._bridge)
        if self._scope is None:  # leaving
            stream.reset()
            return
        self._links.add(link)
        self._scope.start(serve_stream(self._handlers[protocol], stream), name=f"serve {protocol}")

    def _on_end(self) -> None:
        for link in list(self._links):
            link.cut(STOPPED)
        for peer in list(self._up):
            self._on_connection(peer, False)


@asynccontextmanager
async def _reaching(whom: str, timeout_seconds: float) -> AsyncGenerator[None, None]:
    """Put a deadline and a name on what may end in PeerUnreachable."""
    try:
        async with asyncio.timeout(timeout_seconds):
            yield
    except TimeoutError:
        raise PeerUnreachable(f"no answer from {whom} within {timeout_seconds:g} s") from None
    except Internal as error:
        raise PeerUnreachable(error.message) from None
    except ValueError as error:
        raise PeerUnreachable(f"cannot reach {whom}: {error}") from None


@asynccontextmanager
async def open_libp2p_transport(identity: Identity, listen: Sequence[str]) -> AsyncGenerator[Transport, None]:
    """A transport that listens on the multiaddrs `listen` (none: it only dials) inside the block.

    SetupError when an address is malformed or cannot be listened on. Leaving cancels all handlers,
    lets what was sent and closed arrive, parts from all peers and ends the network thread, all within
    about two seconds.
    """
    transport = Libp2pTransport(identity, listen)
    async with transport.running():
        yield transport
