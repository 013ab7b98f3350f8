"""What py-libp2p 0.8.1 needs before a node can rely on it; each patch has a test that needs it.

The patches are process-global and name private parts of the library, so they apply to exactly one
version. Everything here was read in, and measured against, the sources of libp2p 0.8.1.
"""

from __future__ import annotations

import logging
from importlib import import_module
from importlib.metadata import version
from typing import Any, cast

import trio
from libp2p.abc import INetStream
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.custom_types import TMuxerOptions, TProtocol, TSecurityOptions
from libp2p.host.basic_host import BasicHost
from libp2p.io.abc import ReadWriteCloser
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.network.auto_connector import AutoConnector
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.stream.exceptions import StreamError
from libp2p.network.stream.net_stream import NetStream
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.stream_muxer.yamux.yamux import Yamux, YamuxStream
from multiaddr import Multiaddr

from monai_node.mesh.libp2p.scopes import shield
from monai_node.registry.errors import SetupError
from monai_node.registry.wire import GONE_AFTER_SECONDS

# pyright: reportPrivateUsage=false, reportMissingTypeStubs=false
# Reaching into private parts is what this module is for; nothing outside it may.

_log = logging.getLogger(__name__)

LIBP2P_VERSION = "0.8.1"

_SWARM = "libp2p.network.swarm"
_SWARM_CONNECTION = "libp2p.network.connection.swarm_connection"
_PATCHED = (  # where, what: refused at once when the library has moved on
    (_SWARM, "_HAPPY_EYEBALLS_DELAY"),
    (_SWARM, "Swarm._do_handle_inbound_connection"),
    ("libp2p.stream_muxer.yamux.yamux", "Yamux._write_frame"),
    ("libp2p.stream_muxer.yamux.yamux", "YamuxStream._auto_tune_and_send_window_update"),
    ("libp2p.network.auto_connector", "AutoConnector.maybe_connect"),
    (_SWARM_CONNECTION, "logging"),
    ("libp2p.host.basic_host", "BasicHost._swarm_stream_handler"),
)
# A dial that succeeded still waits this long for a failure (0.25 s: go-libp2p's delay before the
# next address, misapplied). Some delay is needed, or all addresses are dialled at once.
_HAPPY_EYEBALLS_SECONDS = 0.005
# Credit is handed back a quarter window at a time; per read, it was a third of the CPU per frame.
_WINDOW_PARTS = 4
# These report what any stranger can cause (a refused dial, a bad handshake) as errors of ours; the
# transport raises the same in words, to whoever asked.
_LOUD = (
    "libp2p.host.basic_host",
    "libp2p.transport.tcp",
    "libp2p.network.swarm",
    "libp2p.protocol_muxer.multiselect_client",
    "libp2p.stream_muxer.yamux",
)


def apply() -> None:
    """Patch libp2p for this process; idempotent. SetupError when it is another version."""
    _check()
    cast(Any, import_module(_SWARM))._HAPPY_EYEBALLS_DELAY = _HAPPY_EYEBALLS_SECONDS
    Yamux._write_frame = _write_frame
    YamuxStream._auto_tune_and_send_window_update = _release_window_lazily
    Swarm._do_handle_inbound_connection = _serve_inbound_connection
    AutoConnector.maybe_connect = _never_connect
    _quiet()


def security_options(keys: KeyPair) -> TSecurityOptions:
    """Noise and nothing else: the default set ends in plaintext, and so in any claimed identity."""
    return {NOISE: NoiseTransport(keys, noise_privkey=create_noise_key_pair().private_key)}


def muxer_options() -> TMuxerOptions:
    """Yamux and nothing else: mplex has no flow control."""
    return {TProtocol(YAMUX): Yamux}


def allow_dial(swarm: Swarm, peer: ID) -> None:
    """Lift the 60 s for which a peer that failed once is not dialled again.

    To be called when the peer is known to be back (it called us), and before a deliberate dial.
    """
    swarm.unblock_peer(peer)


def guard_streams(host: BasicHost, streams_max: int) -> None:
    """Let no incoming stream end the node.

    An exception in one stream's handler or negotiation (a protocol name that is not UTF-8 will do)
    ends the connection's task, and that ends the service manager: the whole host stops. Beyond
    `streams_max` on one connection, further streams of that peer are reset.
    """
    handle = host._swarm_stream_handler

    async def guarded(stream: INetStream) -> None:
        try:
            connection = cast(NetStream, stream).swarm_conn
            if connection is not None and len(connection.get_streams()) > streams_max:
                raise StreamError("too many streams")
            await handle(stream)
        except Exception as error:
            # Entry point: whatever a stranger can cause here costs that stream alone.
            _log.debug("an incoming stream failed: %r", error)
            with shield(1.0):
                await stream.reset()

    host.get_network().set_stream_handler(guarded)


def hang_up(connection: object) -> None:
    """Close the socket under a connection at once, writing nothing.

    Both directions fail on both sides, also when the peer is frozen and a write to it is stuck: the
    polite `close` waits behind that write.
    """
    tcp = _tcp_stream(connection)
    if tcp is not None:
        tcp.socket.close()


def end_writing(connection: object) -> None:
    """Tell the peer that nothing more will come, after all that was written has arrived."""
    tcp = _tcp_stream(connection)
    if tcp is None:
        return
    try:
        tcp.socket.shutdown(trio.socket.SHUT_WR)
    except OSError:
        tcp.socket.close()  # the peer was faster


def forget(stream: YamuxStream) -> None:
    """Drop what a reader that waited at a stream's end has put back into its connection's books.

    `read_stream` renews the event of a stream that was removed meanwhile: one entry per stream, for
    as long as the connection lives.
    """
    if stream.stream_id not in stream.conn.streams:
        stream.conn.stream_events.pop(stream.stream_id, None)


def _check() -> None:
    found = version("libp2p")
    if found != LIBP2P_VERSION:
        raise SetupError(
            f"libp2p {found} is installed but this program is made for {LIBP2P_VERSION}: "
            f"run `pip install libp2p=={LIBP2P_VERSION}`"
        )
    for module_name, path in _PATCHED:
        part: Any = import_module(module_name)
        for name in path.split("."):
            part = getattr(part, name, None)
        if part is None:
            raise SetupError(f"libp2p {found} has no {module_name}.{path}; reinstall it")


def _quiet() -> None:
    logging.getLogger("libp2p").setLevel(logging.ERROR)
    for name in _LOUD:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # SwarmConn calls `logging.warning(...)`: the root logger, to which that may add a handler.
    swarm_connection = import_module(_SWARM_CONNECTION)
    cast(Any, swarm_connection).logging = logging.getLogger(_SWARM_CONNECTION)


async def _write_frame(self: Yamux, data: bytes) -> None:
    """Write a frame whole, whatever becomes of the task that writes it.

    A task cancelled between encrypting a record and sending it leaves the two ciphers out of step,
    and the peer drops the connection with all streams on it: a cancelled stream killed its innocent
    neighbours within 2-32 cancellations. (`muxer_opt` cannot bring a subclass: the class is
    hard-coded in `muxer_multistream.py`.)

    A shielded write to a frozen peer would hold its task for ever; a peer that takes nothing for
    GONE_AFTER_SECONDS is gone, and so is the connection.
    """
    async with self._write_lock:
        with shield(GONE_AFTER_SECONDS):
            await self.secured_conn.write(data)
            return
        hang_up(self)
    raise ConnectionClosedError(f"connection closed: nothing was taken for {GONE_AFTER_SECONDS} s")


async def _release_window_lazily(self: YamuxStream, *, bytes_read: int = 0) -> None:
    """Hand credit back once a quarter of the window was read, not on every read."""
    self._pending_recv_release += bytes_read
    if self._pending_recv_release < self.target_recv_window // _WINDOW_PARTS:
        return
    released, self._pending_recv_release = self._pending_recv_release, 0
    self.recv_window += released
    with shield(2 * GONE_AFTER_SECONDS):  # credit that is counted must also be sent
        await self.send_window_update(released)


async def _serve_inbound_connection(
    self: Swarm, read_write_closer: ReadWriteCloser, maddr: Multiaddr, failure_event: object
) -> None:
    """Serve an accepted TCP connection for as long as it lives.

    The original waits for the end of the *swarm*: each connection ever accepted keeps its task and
    its slot of `max_connections`, and after some hundred reconnections a node accepts nobody.
    """
    raw = RawConnection(read_write_closer, False)
    try:
        remote = self._build_remote_multiaddr(read_write_closer)
        if remote is None or await self.connection_gate.is_allowed(remote):
            muxed = await self.upgrade_inbound_raw_conn(raw, maddr)
            await cast(Yamux, muxed).event_closed.wait()
    finally:
        with shield(GONE_AFTER_SECONDS):
            await raw.close()


async def _never_connect(self: AutoConnector) -> None:
    """Dial nobody unasked.

    The original keeps `low_watermark` connections by dialling whomever the peerstore knows: it
    brings back peers that this node dropped, or that left.
    """


def _tcp_stream(connection: object) -> trio.SocketStream | None:
    """The TCP stream below a SwarmConn or a Yamux: session, cipher, packets, raw, TCP."""
    layer: Any = getattr(connection, "muxed_conn", connection)
    for name in ("secured_conn", "conn", "read_writer", "read_write_closer", "stream", "stream"):
        layer = getattr(layer, name, None)
    return layer if isinstance(layer, trio.SocketStream) else None
