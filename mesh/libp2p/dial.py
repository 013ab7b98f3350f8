"""Dialling: every known address of a peer, one connection, or the reason in words."""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from typing import cast

import trio
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStoreError
from libp2p.security.noise.exceptions import PeerIDMismatchesPubkey
from multiaddr import Multiaddr

from monai_node.mesh.libp2p import patches
from monai_node.mesh.libp2p.addrs import DialAddr, dial_order
from monai_node.mesh.libp2p.connections import Connections
from monai_node.registry.errors import PeerUnreachable
from monai_node.registry.ids import PeerId, short

_PEERS_MAX = 4096  # of whom addresses are kept; the one dialled longest ago is forgotten first
_ADDRS_PER_PEER_MAX = 8
_NEXT_ADDR_SECONDS = 0.25  # head start of an address over the next one (RFC 8305, section 5)

_IN_WORDS = {
    errno.ECONNREFUSED: "connection refused: nothing listens there",
    errno.EHOSTUNREACH: "no route to that machine",
    errno.ENETUNREACH: "no route to that network",
    errno.ETIMEDOUT: "no answer",
    errno.ECONNRESET: "the connection was closed while it was being made",
}


class Dialler:
    """Connects to peers by address, and again later by peer id alone.

    libp2p's own `dial_peer` tries a single address of each kind, keeps addresses for two minutes
    and refuses a failed peer for one; here an address that has worked is kept for the process.
    """

    def __init__(self, swarm: Swarm, connections: Connections) -> None:
        self._swarm = swarm
        self._connections = connections
        self._known: dict[ID, list[Multiaddr]] = {}
        self._under_way: dict[ID, trio.Event] = {}

    async def connect(self, addr: DialAddr) -> None:
        """Be connected to the peer, by `addr` if it is not already. PeerUnreachable."""
        peer = ID.from_base58(addr.peer)
        patches.allow_dial(self._swarm, peer)
        await self._dial(peer, [addr.where])
        self._remember(peer, addr.where)

    async def ensure(self, peer: ID) -> None:
        """Be connected to the peer, by any address known of it. PeerUnreachable."""
        if not self._connections.has(peer):
            await self._dial(peer, self._addrs(peer))

    def _addrs(self, peer: ID) -> list[Multiaddr]:
        try:
            told = self._swarm.peerstore.addrs(peer)  # by the peer itself, through identify
        except PeerStoreError:
            told = []
        return dial_order(self._known.get(peer, []), told)[:_ADDRS_PER_PEER_MAX]

    async def _dial(self, peer: ID, addrs: Sequence[Multiaddr]) -> None:
        while (event := self._under_way.get(peer)) is not None:
            await event.wait()
        if self._connections.has(peer):
            return
        if not addrs:
            raise PeerUnreachable(f"no address of peer {_name(peer)} is known")
        done = self._under_way[peer] = trio.Event()
        try:
            await self._race(peer, addrs)
        finally:
            del self._under_way[peer]
            done.set()

    async def _race(self, peer: ID, addrs: Sequence[Multiaddr]) -> None:
        """Dial the addresses one after another, not waiting for the end of each; the first wins."""
        failures: list[str] = []

        async def attempt(addr: Multiaddr, failed: trio.Event) -> None:
            try:
                await self._swarm.dial_addr(addr, peer)
            except Exception as error:
                # Entry point: sockets, handshakes and libp2p's own errors, all of them unanswered.
                failures.append(f"{addr}: {why(error)}")
                failed.set()
            else:
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for addr in addrs:
                failed = trio.Event()
                nursery.start_soon(attempt, addr, failed)
                with trio.move_on_after(_NEXT_ADDR_SECONDS):
                    await failed.wait()
        if not self._connections.has(peer):
            reasons = "; ".join(failures) or "the connection was lost at once"
            raise PeerUnreachable(f"cannot reach peer {_name(peer)} at {reasons}")

    def _remember(self, peer: ID, addr: Multiaddr) -> None:
        known = [addr, *(each for each in self._known.pop(peer, []) if each != addr)]
        self._known[peer] = known[:_ADDRS_PER_PEER_MAX]
        if len(self._known) > _PEERS_MAX:
            del self._known[next(iter(self._known))]


def why(error: BaseException) -> str:
    """The reason of a failed dial, found in the chain of errors around it."""
    for each in _chain(error):
        if isinstance(each, PeerIDMismatchesPubkey) or "Peer ID mismatch" in str(each):
            return "another node answers there (wrong peer id)"
        if isinstance(each, OSError) and each.errno in _IN_WORDS:
            return _IN_WORDS[each.errno]
    last = list(_chain(error))[-1]
    return str(last) or type(last).__name__


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        for inner in cast(tuple[BaseException, ...], getattr(error, "exceptions", ())):
            yield from _chain(inner)
        error = error.__cause__ or error.__context__


def _name(peer: ID) -> str:
    return short(PeerId(peer.to_base58()))
