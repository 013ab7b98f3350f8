"""The libp2p host of a node: dialling, opening and accepting streams. On the trio thread.

What it has to say is posted to the loop's thread through the bridge.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import cast

import trio
from libp2p import new_host
from libp2p.abc import INetStream
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.stream.exceptions import StreamError
from libp2p.network.stream.net_stream import NetStream
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.protocol_muxer.exceptions import ProtocolNotSupportedError
from libp2p.protocol_muxer.multiselect_client import MultiselectClient
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from multiaddr import Multiaddr

from monai_node.mesh.identity import Identity
from monai_node.mesh.libp2p import patches
from monai_node.mesh.libp2p.addrs import DialAddr, check_port_free, parse_listen, reachable
from monai_node.mesh.libp2p.bridge import Bridge
from monai_node.mesh.libp2p.connections import Connections
from monai_node.mesh.libp2p.dial import Dialler, why
from monai_node.mesh.libp2p.link import Link
from monai_node.mesh.libp2p.pump import pump
from monai_node.mesh.libp2p.scopes import shield
from monai_node.registry.errors import PeerUnreachable, SetupError
from monai_node.registry.ids import PeerId, short
from monai_node.registry.wire import DIAL_SECONDS

# For a node of two cores: a connection costs handshakes and pings, a stream a task or two.
_CONNECTIONS_MAX = 256
_CONNECTIONS_OUTBOUND = 64  # of these; those who dial us cannot take the last ones
_CONNECTIONS_PER_PEER_MAX = 4
_STREAMS_PER_CONNECTION_MAX = 256
_STREAMS_MAX = 4096
_NEGOTIATE_SECONDS = 10.0  # the caller's deadline is shorter; this bounds what it left behind
_LEAVE_SECONDS = 2.0

OnConnection = Callable[[PeerId, bool], object]
OnStream = Callable[[str, Link], object]


class Host:
    """One libp2p host. `on_connection` and `on_stream` are called on the loop's thread."""

    def __init__(
        self,
        identity: Identity,
        listen: Sequence[str],
        on_connection: OnConnection,
        on_stream: OnStream,
    ) -> None:
        self._identity = identity
        self._listen = [parse_listen(addr) for addr in listen]
        self._on_connection = on_connection
        self._on_stream = on_stream
        self._listening: list[Multiaddr] = []

    @property
    def addrs(self) -> list[str]:
        """Where others can dial, by the interfaces that this machine has at the moment."""
        return [str(addr) for addr in reachable(self._listening, self._identity.peer_id)]

    @asynccontextmanager
    async def serve(self, bridge: Bridge) -> AsyncGenerator[None, None]:
        """Listen and accept for as long as the block lasts. SetupError when it cannot listen."""
        patches.apply()
        for addr in self._listen:
            check_port_free(addr)
        host = self._new_host()
        self._bridge, self._host = bridge, host
        self._swarm = cast(Swarm, host.get_network())
        self._swarm.retry_config = RetryConfig(max_retries=0)  # who dials knows when to try again
        # Its books lose a place for good with each dial that is cancelled in its handshake; the
        # limits that follow here and in the connection config are counted from what is there.
        self._swarm.set_resource_manager(None)
        patches.guard_streams(host, _STREAMS_PER_CONNECTION_MAX)
        self._connections = Connections(self._swarm, _CONNECTIONS_PER_PEER_MAX, self._tell)
        self._swarm.register_notifee(self._connections)
        self._dialler = Dialler(self._swarm, self._connections)
        async with host.run(listen_addrs=self._listen), trio.open_nursery() as nursery:
            self._check_listening()
            self._nursery = nursery
            try:
                yield
            finally:
                with shield(_LEAVE_SECONDS):
                    await self._connections.leave()
                nursery.cancel_scope.cancel()

    def _new_host(self) -> BasicHost:
        keys = create_new_key_pair(self._identity.seed)
        host = new_host(
            key_pair=keys,
            sec_opt=patches.security_options(keys),
            muxer_opt=patches.muxer_options(),
            listen_addrs=self._listen or None,
            connection_config=_connection_config(),
            addrs_factory=reachable,
            # A stranger's word on where we are found: not to be repeated to others.
            disable_identify_address_discovery=True,
        )
        return cast(BasicHost, host)

    def _check_listening(self) -> None:
        """libp2p only logs that it could not listen."""
        for addr in self._listen:
            if str(addr) not in self._swarm.listeners:
                raise SetupError(f"cannot listen on {addr}: choose another with --listen")
        self._listening = list(self._host.get_transport_addrs())

    def _tell(self, peer: PeerId, is_up: bool) -> None:
        self._bridge.to_loop.post(partial(self._on_connection, peer, is_up))

    # --- what the transport asks for --------------------------------------------------------------
    def handle(self, protocol: str) -> None:
        """Accept streams of `protocol`. Any thread: it is one assignment to a dictionary."""
        self._host.set_stream_handler(TProtocol(protocol), partial(self._accept, protocol))

    async def connect(self, addr: DialAddr) -> None:
        await self._dialler.connect(addr)

    async def disconnect(self, peer: PeerId) -> None:
        await self._connections.drop(ID.from_base58(peer))

    async def open(self, link: Link, protocol: str) -> None:
        """Open a stream of `protocol` and join it to `link`. PeerUnreachable."""
        peer = ID.from_base58(link.peer)
        await self._dialler.ensure(peer)
        stream = await self._new_stream(peer)
        try:
            with trio.fail_after(_NEGOTIATE_SECONDS):
                await _negotiate(stream, TProtocol(protocol))
        except ProtocolNotSupportedError:
            await _reset(stream)
            raise PeerUnreachable(f"peer {short(link.peer)} does not serve {protocol}") from None
        except Exception as error:
            # Entry point: a peer may answer anything here.
            await _reset(stream)
            reason = "no answer" if isinstance(error, trio.TooSlowError) else type(error).__name__
            raise PeerUnreachable(
                f"peer {short(link.peer)} did not open a stream of {protocol}: {reason}"
            ) from error
        except BaseException:  # cancelled
            await _reset(stream)
            raise
        self._nursery.start_soon(self._carry, stream, link)

    async def _new_stream(self, peer: ID) -> NetStream:
        """A raw stream. Not cancellable: that would lose one of the connection's 256 places."""
        try:
            with shield(DIAL_SECONDS):
                return cast(NetStream, await self._swarm.new_stream(peer))
        except Exception as error:
            # Entry point: libp2p raises what the swarm, the muxer or the socket raised.
            raise PeerUnreachable(f"cannot open a stream to {_name(peer)}: {why(error)}") from error
        raise PeerUnreachable(f"peer {_name(peer)} takes no more streams at the moment")

    # --- streams ----------------------------------------------------------------------------------
    async def _accept(self, protocol: str, stream: INetStream) -> None:
        if self._connections.stream_count >= _STREAMS_MAX:
            raise StreamError("too many streams")
        peer = PeerId(stream.muxed_conn.peer_id.to_base58())
        link = Link(peer, self._bridge)
        self._bridge.to_loop.post(partial(self._on_stream, protocol, link))
        await self._carry(cast(NetStream, stream), link)

    async def _carry(self, stream: NetStream, link: Link) -> None:
        connection = stream.swarm_conn
        self._connections.carry(link, connection)
        try:
            await pump(stream, link)
        finally:
            self._connections.release(link, connection)


async def _negotiate(stream: NetStream, protocol: TProtocol) -> None:
    """multistream-select with a single choice; ProtocolNotSupportedError when the peer declines."""
    client, words = MultiselectClient(), MultiselectCommunicator(stream)
    await client.handshake(words)
    await client.try_select(words, protocol)
    stream.set_protocol(protocol)


async def _reset(stream: NetStream) -> None:
    with shield(1.0):
        await stream.reset()


def _connection_config() -> ConnectionConfig:
    return ConnectionConfig(
        max_connections=_CONNECTIONS_MAX,
        min_connections=_CONNECTIONS_OUTBOUND,  # libp2p's cap of inbound ones is the difference
        low_watermark=_CONNECTIONS_OUTBOUND,
        high_watermark=_CONNECTIONS_MAX,
        max_connections_per_peer=_CONNECTIONS_PER_PEER_MAX,
        inbound_upgrade_timeout=DIAL_SECONDS,
        outbound_upgrade_timeout=DIAL_SECONDS,
        inbound_stream_protocol_negotiation_timeout=_NEGOTIATE_SECONDS,
    )


def _name(peer: ID) -> str:
    return short(PeerId(peer.to_base58()))
