"""Which peers are connected, and the streams that each connection carries. On the trio thread."""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import trio
from libp2p.abc import INetConn, INetStream, INetwork, INotifee
from libp2p.network.connection.swarm_connection import SwarmConn
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from monai_node.mesh.libp2p import patches
from monai_node.mesh.libp2p.link import Link
from monai_node.registry.ids import PeerId

_LOST = "the connection to the peer was lost"
# Leaving takes at most these together: write what was closed, let the peers hang up, then hang up.
_FLUSH_SECONDS = 0.5
_PARTING_SECONDS = 0.5
_HANG_UP_SECONDS = 0.5


class Connections(INotifee):
    """Told by libp2p of each connection; tells `tell(peer, is_up)` when a peer's state changes.

    The state is looked up afresh at each event instead of counted: libp2p's events may come late, and
    out of step with what they report.
    """

    def __init__(self, swarm: Swarm, per_peer_max: int, tell: Callable[[PeerId, bool], object]) -> None:
        self._swarm = swarm
        self._per_peer_max = per_peer_max
        self._tell = tell
        self._up: set[ID] = set()
        self._links: dict[INetConn, set[Link]] = {}

    def of(self, peer: ID) -> list[SwarmConn]:
        """The live connections to a peer."""
        found = self._swarm.get_connections(peer)
        return [cast(SwarmConn, each) for each in found if not each.is_closed]

    def has(self, peer: ID) -> bool:
        return bool(self.of(peer))

    # --- streams ---
    def carry(self, link: Link, connection: INetConn | None) -> None:
        """Abort `link` when its connection ends: a stream that only waits would not notice."""
        if connection is None or connection.is_closed:
            link.abort(_LOST)
        else:
            self._links.setdefault(connection, set()).add(link)

    def release(self, link: Link, connection: INetConn | None) -> None:
        links = self._links.get(connection) if connection is not None else None
        if links is not None:
            links.discard(link)

    @property
    def stream_count(self) -> int:
        return sum(map(len, self._links.values()))

    def _abort_streams(self, connection: INetConn) -> None:
        for link in self._links.pop(connection, ()):
            link.abort(_LOST)

    # --- ending ---
    async def drop(self, peer: ID) -> None:
        """Hang up on a peer, also on a frozen one; its streams fail at once."""
        connections = self.of(peer)
        for connection in connections:
            self._abort_streams(connection)
            patches.hang_up(connection)
        with trio.move_on_after(_HANG_UP_SECONDS):
            for connection in connections:
                await connection.event_closed.wait()
        self._look(peer)

    async def leave(self) -> None:
        """Part from everybody, in bounded time: what was sent and closed still arrives."""
        with trio.move_on_after(_FLUSH_SECONDS):
            for link in [link for links in self._links.values() for link in links]:
                if link.outbox.is_closing:
                    await link.outbox.ended.wait()
        connections = cast(list[SwarmConn], self._swarm.get_connections())
        for connection in connections:
            patches.end_writing(connection)
        await _closed(connections, _PARTING_SECONDS)
        for connection in connections:
            patches.hang_up(connection)
        await _closed(connections, _HANG_UP_SECONDS)

    # --- what libp2p tells ---
    async def connected(self, network: INetwork, conn: INetConn) -> None:
        if conn.is_closed:
            # It ended while it was being added, and libp2p would keep it among the live ones.
            self._swarm.remove_conn(cast(SwarmConn, conn))
        peer = conn.muxed_conn.peer_id
        if len(self.of(peer)) > self._per_peer_max:
            patches.hang_up(conn)
        patches.allow_dial(self._swarm, peer)
        self._look(peer)

    async def disconnected(self, network: INetwork, conn: INetConn) -> None:
        self._abort_streams(conn)
        self._look(conn.muxed_conn.peer_id)

    async def opened_stream(self, network: INetwork, stream: INetStream) -> None: ...
    async def closed_stream(self, network: INetwork, stream: INetStream) -> None: ...
    async def listen(self, network: INetwork, multiaddr: Multiaddr) -> None: ...
    async def listen_close(self, network: INetwork, multiaddr: Multiaddr) -> None: ...

    def _look(self, peer: ID) -> None:
        is_up = self.has(peer)
        if is_up == (peer in self._up):
            return
        if is_up:
            self._up.add(peer)
        else:
            self._up.discard(peer)
        self._tell(PeerId(peer.to_base58()), is_up)


async def _closed(connections: list[SwarmConn], seconds: float) -> None:
    with trio.move_on_after(seconds):
        for connection in connections:
            await connection.event_closed.wait()
