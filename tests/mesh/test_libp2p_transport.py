"""What only the libp2p transport has: addresses, dead and frozen peers, its thread and its end."""

from __future__ import annotations

# pyright: reportPrivateUsage=false, reportUnknownMemberType=false
import asyncio
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from typing import Any

import pytest

from monai_node.mesh.identity import Identity
from monai_node.mesh.libp2p.addrs import parse_dial, parse_listen, reachable
from monai_node.mesh.libp2p.framing import FrameReader, framed
from monai_node.mesh.libp2p.transport import Libp2pStream, Libp2pTransport, open_libp2p_transport
from monai_node.registry.errors import (
    MonaiError,
    PeerLost,
    PeerUnreachable,
    ProtocolViolation,
    SetupError,
)
from monai_node.registry.ids import PeerId
from monai_node.registry.transport import Stream, Transport
from monai_node.registry.wire import FRAME_BYTES_MAX

PROTOCOL = "/monai/test/1.0.0"
LOOPBACK = "/ip4/127.0.0.1/tcp/0"
SECONDS = 5.0


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await test()

    asyncio.run(bounded())


async def echo(stream: Stream) -> None:
    with suppress(EOFError):
        while True:
            await stream.send(await stream.receive())


def open_node(*listen: str) -> AbstractAsyncContextManager[Transport]:
    return open_libp2p_transport(Identity.generate(), listen or (LOOPBACK,))


@contextmanager
def peer_process() -> Generator[tuple[subprocess.Popen[str], str], None, None]:
    """A node in a process of its own (this file, as a program) and its address."""
    process = subprocess.Popen(
        [sys.executable, __file__], stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


async def serve_until_killed() -> None:
    """Counts without end on `count`, sends nothing and reads nothing on `mute`, echoes on PROTOCOL."""

    async def count(stream: Stream) -> None:
        number = 0
        while True:
            await stream.send(b"%d" % number)
            number += 1
            await asyncio.sleep(0.002)

    async def mute(_: Stream) -> None:
        await asyncio.Event().wait()

    async with open_libp2p_transport(Identity.generate(), [LOOPBACK]) as node:
        node.handle("/monai/count/1.0.0", count)
        node.handle("/monai/mute/1.0.0", mute)
        node.handle(PROTOCOL, echo)
        print(node.addrs[0], flush=True)
        await asyncio.Event().wait()


class Watch:
    """Waits for a peer to be reported down."""

    def __init__(self, node: Transport) -> None:
        self.down: asyncio.Queue[PeerId] = asyncio.Queue()
        node.listen_connections(lambda peer, up: None if up else self.down.put_nowait(peer))


# --- other processes ------------------------------------------------------------------------------
def test_a_killed_process_ends_its_streams_and_is_reported_down_within_two_seconds() -> None:
    async def test(process: subprocess.Popen[str], addr: str) -> None:
        async with open_node() as node:
            watch = Watch(node)
            peer = await node.connect(addr, SECONDS)
            stream = await node.open(peer, "/monai/count/1.0.0", SECONDS)
            for _ in range(20):
                await stream.receive()
            process.kill()
            async with asyncio.timeout(2):
                with pytest.raises((EOFError, PeerLost)):
                    while True:
                        await stream.receive()
                assert await watch.down.get() == peer
            assert not node.is_connected(peer)
            with pytest.raises(PeerUnreachable, match="connection refused"):
                await node.open(peer, PROTOCOL, SECONDS)

    with peer_process() as (process, addr):
        run(lambda: test(process, addr))


def test_a_frozen_process_costs_deadlines_and_can_be_dropped_at_once() -> None:
    async def test(process: subprocess.Popen[str], addr: str) -> None:
        async with open_node() as node:
            watch = Watch(node)
            peer = await node.connect(addr, SECONDS)
            stream = await node.open(peer, PROTOCOL, SECONDS)
            process.send_signal(signal.SIGSTOP)

            start = time.monotonic()
            with pytest.raises(PeerUnreachable, match="no answer"):
                await node.open(peer, PROTOCOL, 0.3)
            assert time.monotonic() - start < 1
            waiting = asyncio.create_task(stream.receive())
            # More than the socket and the stream's window hold: the writer is stuck in its shield.
            for _ in range(4):
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.2):
                        while True:
                            await stream.send(b"x" * FRAME_BYTES_MAX)

            start = time.monotonic()
            await node.disconnect(peer)
            with pytest.raises(PeerLost):
                await waiting
            assert await watch.down.get() == peer
            assert time.monotonic() - start < 1

            process.send_signal(signal.SIGCONT)
            stream = await node.open(peer, PROTOCOL, SECONDS)
            await stream.send(b"back")
            assert await stream.receive() == b"back"

    with peer_process() as (process, addr):
        run(lambda: test(process, addr))


def test_leaving_beside_a_frozen_peer_takes_two_seconds_at_most() -> None:
    async def test(process: subprocess.Popen[str], addr: str) -> None:
        async with open_node() as node:
            peer = await node.connect(addr, SECONDS)
            stream = await node.open(peer, PROTOCOL, SECONDS)
            process.send_signal(signal.SIGSTOP)
            for _ in range(4):
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.1):
                        while True:
                            await stream.send(b"x" * FRAME_BYTES_MAX)
            start = time.monotonic()
        assert time.monotonic() - start < 2

    with peer_process() as (process, addr):
        run(lambda: test(process, addr))
    assert not [each for each in threading.enumerate() if each.name == "libp2p"]


def test_a_peer_that_reads_nothing_holds_its_sender_back_and_then_loses_it() -> None:
    async def test(addr: str) -> None:
        async with open_node() as node:
            peer = await node.connect(addr, SECONDS)
            stream = await node.open(peer, "/monai/mute/1.0.0", SECONDS)
            sent = 0
            with pytest.raises(PeerLost):
                while True:
                    await stream.send(b"x" * 100_000)
                    sent += 1
            assert sent * 100_000 < 8 * FRAME_BYTES_MAX, "what is under way is bounded"

    with peer_process() as (_, addr):
        run(lambda: test(addr))


# --- dialling and listening -----------------------------------------------------------------------
@pytest.mark.parametrize(
    ("addr", "reason"),
    [
        ("", "does not end in /p2p/"),
        ("http://example.org", "does not end in /p2p/"),
        ("/ip4/127.0.0.1/tcp/1", "does not end in /p2p/"),
        ("/ip4/127.0.0.1/tcp/1/p2p/QmNobody", "peer id of a node"),
        ("/ip4/127.0.0.1/udp/1/p2p/{peer}", "only TCP"),
        ("/ip4/300.0.0.1/tcp/1/p2p/{peer}", "not a multiaddr"),
        ("/ip4/127.0.0.1/tcp/1/p2p/{peer}", "connection refused"),
        ("/" * 2000 + "/p2p/{peer}", "too long"),
    ],
)
def test_a_failed_dial_says_why(addr: str, reason: str) -> None:
    async def test() -> None:
        async with open_node() as node:
            with pytest.raises(PeerUnreachable, match=reason):
                await node.connect(addr.format(peer=Identity.generate().peer_id), SECONDS)

    run(test)


def test_another_node_behind_an_address_is_not_taken_for_the_one_meant() -> None:
    async def test() -> None:
        async with open_node() as node, open_node() as other:
            addr = other.addrs[0].replace(other.peer_id, Identity.generate().peer_id)
            with pytest.raises(PeerUnreachable, match="wrong peer id"):
                await node.connect(addr, SECONDS)
            await node.connect(other.addrs[0], SECONDS)

    run(test)


def test_a_dial_into_silence_ends_at_its_deadline() -> None:
    async def test() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never says a word
            addr = f"/ip4/127.0.0.1/tcp/{silent.getsockname()[1]}/p2p/{Identity.generate().peer_id}"
            async with open_node() as node:
                start = time.monotonic()
                with pytest.raises(PeerUnreachable, match=r"no answer .* within 0\.3 s"):
                    await node.connect(addr, 0.3)
                assert time.monotonic() - start < 1

    run(test)


def test_dials_that_were_given_up_take_no_place_from_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("monai_node.mesh.libp2p.host._CONNECTIONS_MAX", 2)
    monkeypatch.setattr("monai_node.mesh.libp2p.host._CONNECTIONS_OUTBOUND", 1)

    async def test() -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            where = f"/ip4/127.0.0.1/tcp/{silent.getsockname()[1]}"
            async with open_node() as node, open_node() as peer:
                for _ in range(4):
                    with pytest.raises(PeerUnreachable, match="no answer"):
                        await node.connect(f"{where}/p2p/{Identity.generate().peer_id}", 0.1)
                await node.connect(peer.addrs[0], SECONDS)

    run(test)


def test_a_peer_that_comes_and_goes_is_always_let_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monai_node.mesh.libp2p.host._CONNECTIONS_MAX", 2)
    monkeypatch.setattr("monai_node.mesh.libp2p.host._CONNECTIONS_OUTBOUND", 1)

    async def test() -> None:
        async with open_node() as node:
            watch = Watch(node)
            for _ in range(4):
                async with open_node() as visitor:
                    await visitor.connect(node.addrs[0], SECONDS)
                assert await asyncio.wait_for(watch.down.get(), SECONDS) == visitor.peer_id

    run(test)


def test_what_a_handler_said_last_arrives_also_when_its_node_leaves_at_once() -> None:
    async def test() -> None:
        async with open_node() as caller:
            for _ in range(5):
                said = asyncio.Event()

                async def speak(stream: Stream, said: asyncio.Event = said) -> None:
                    for n in range(40):
                        await stream.send(b"%d" % n * 8000)
                    said.set()

                async with open_node() as node:
                    node.handle(PROTOCOL, speak)
                    await caller.connect(node.addrs[0], SECONDS)
                    stream = await caller.open(node.peer_id, PROTOCOL, SECONDS)
                    hearing = asyncio.create_task(_heard(stream))
                    await said.wait()
                assert await hearing == [b"%d" % n * 8000 for n in range(40)]

    run(test)


async def _heard(stream: Stream) -> list[bytes]:
    frames: list[bytes] = []
    with suppress(EOFError, PeerLost):
        while True:
            frames.append(await stream.receive())
    return frames


def test_a_peer_that_was_down_can_be_dialled_as_soon_as_it_is_up() -> None:
    async def test() -> None:
        identity, port = Identity.generate(), _free_port()
        where = f"/ip4/127.0.0.1/tcp/{port}"
        async with open_node() as node:
            with pytest.raises(PeerUnreachable, match="connection refused"):
                await node.connect(f"{where}/p2p/{identity.peer_id}", SECONDS)
            async with open_libp2p_transport(identity, [where]) as peer:
                await node.connect(peer.addrs[0], SECONDS)

    run(test)


def test_a_node_does_not_dial_itself() -> None:
    async def test() -> None:
        async with open_node() as node:
            with pytest.raises(PeerUnreachable, match="this node itself"):
                await node.connect(node.addrs[0], SECONDS)
            with pytest.raises(PeerUnreachable, match="this node itself"):
                await node.open(node.peer_id, PROTOCOL, SECONDS)

    run(test)


def test_a_peer_that_called_can_be_called_back_by_its_id_alone() -> None:
    async def test() -> None:
        async with open_node() as node, open_node() as peer:
            peer.handle(PROTOCOL, echo)
            up, down = asyncio.Event(), asyncio.Event()
            node.listen_connections(lambda _, is_up: (up if is_up else down).set())
            await peer.connect(node.addrs[0], SECONDS)
            await asyncio.wait_for(up.wait(), SECONDS)
            stream = await node.open(peer.peer_id, PROTOCOL, SECONDS)
            await stream.send(b"hello")
            assert await stream.receive() == b"hello"

    run(test)


def test_a_port_in_use_is_refused_with_a_way_out() -> None:
    async def test() -> None:
        async with open_node() as node:
            taken = node.addrs[0].partition("/p2p/")[0]
            with pytest.raises(SetupError, match=r"cannot listen on .*: port in use; .* --listen"):
                async with open_node(taken):
                    pass

    run(test)


@pytest.mark.parametrize(
    ("addr", "reason"),
    [
        ("4001", "not a multiaddr"),
        ("/ip4/127.0.0.1/udp/4001/quic-v1", "only TCP"),
        ("/dns4/localhost/tcp/4001", "IP address instead of a name"),
        ("/ip4/203.0.113.1/tcp/4001", "no interface of this machine"),
    ],
)
def test_an_address_that_cannot_be_listened_on_is_refused_in_words(addr: str, reason: str) -> None:
    async def test() -> None:
        with pytest.raises(SetupError, match=reason):
            async with open_node(addr):
                pass

    run(test)


def test_a_node_on_all_interfaces_hands_out_addresses_that_can_be_dialled() -> None:
    async def test() -> None:
        async with open_node("/ip4/0.0.0.0/tcp/0") as node, open_node() as other:
            assert node.addrs
            assert all(addr.endswith(f"/p2p/{node.peer_id}") for addr in node.addrs)
            assert not any("/0.0.0.0/" in addr or "/tcp/0/" in addr for addr in node.addrs)
            assert await other.connect(node.addrs[0], SECONDS) == node.peer_id

    run(test)


def test_a_node_that_does_not_listen_can_still_call() -> None:
    async def test() -> None:
        async with (
            open_libp2p_transport(Identity.generate(), []) as node,
            open_node() as peer,
        ):
            assert node.addrs == []
            peer.handle(PROTOCOL, echo)
            await node.connect(peer.addrs[0], SECONDS)
            stream = await node.open(peer.peer_id, PROTOCOL, SECONDS)
            await stream.send(b"hello")
            assert await stream.receive() == b"hello"

    run(test)


def test_wildcards_become_interface_addresses() -> None:
    peer = Identity.generate().peer_id
    for wildcard in ("/ip4/0.0.0.0/tcp/4001", "/ip6/::/tcp/4001"):
        found = [str(addr) for addr in reachable([parse_listen(wildcard)], peer)]
        assert found
        assert all(addr.endswith(f"/tcp/4001/p2p/{peer}") for addr in found)
        assert all(parse_dial(addr).peer == peer for addr in found)
        assert not any("/0.0.0.0/" in addr or "/ip6/::/" in addr for addr in found)


# --- streams --------------------------------------------------------------------------------------
def test_a_peer_that_announces_an_oversized_frame_loses_its_stream_only() -> None:
    ends: asyncio.Queue[BaseException] = asyncio.Queue()

    async def read(stream: Stream) -> None:
        try:
            await stream.receive()
        except (EOFError, MonaiError) as end:
            ends.put_nowait(end)

    async def test() -> None:
        async with open_node() as caller, open_node() as node:
            node.handle(PROTOCOL, read)
            node.handle("/monai/echo/1.0.0", echo)
            await caller.connect(node.addrs[0], SECONDS)
            stream = await caller.open(node.peer_id, PROTOCOL, SECONDS)
            await send_raw(stream, struct.pack(">I", FRAME_BYTES_MAX + 1) + b"x")
            end = await asyncio.wait_for(ends.get(), SECONDS)
            assert isinstance(end, PeerLost)
            assert "was announced" in str(end)
            with pytest.raises(PeerLost):
                await stream.receive()
            other = await caller.open(node.peer_id, "/monai/echo/1.0.0", SECONDS)
            await other.send(b"hello")
            assert await other.receive() == b"hello"

    run(test)


def test_a_stream_that_ends_within_a_frame_is_lost_not_ended() -> None:
    ends: asyncio.Queue[BaseException] = asyncio.Queue()

    async def read(stream: Stream) -> None:
        try:
            await stream.receive()
        except (EOFError, MonaiError) as end:
            ends.put_nowait(end)

    async def test() -> None:
        async with open_node() as caller, open_node() as node:
            node.handle(PROTOCOL, read)
            await caller.connect(node.addrs[0], SECONDS)
            stream = await caller.open(node.peer_id, PROTOCOL, SECONDS)
            await send_raw(stream, struct.pack(">I", 10) + b"half")
            await stream.close()
            assert isinstance(await asyncio.wait_for(ends.get(), SECONDS), PeerLost)

    run(test)


def test_a_stream_that_waits_for_nothing_is_lost_with_its_connection() -> None:
    async def say_and_end(stream: Stream) -> None:
        await stream.send(b"all there is")

    async def test() -> None:
        async with open_node() as caller:
            watch = Watch(caller)
            async with open_node() as node:
                node.handle(PROTOCOL, say_and_end)
                await caller.connect(node.addrs[0], SECONDS)
                stream = await caller.open(node.peer_id, PROTOCOL, SECONDS)
                assert await stream.receive() == b"all there is"
                with pytest.raises(EOFError):
                    await stream.receive()
            await asyncio.wait_for(watch.down.get(), SECONDS)
            assert isinstance(stream, Libp2pStream)
            async with asyncio.timeout(SECONDS):
                while not stream._link.outbox.ended.is_set():
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.01)
            with pytest.raises(PeerLost):
                await stream.send(b"into the void")

    run(test)


def test_a_hundred_streams_leave_nothing_behind() -> None:
    async def test() -> None:
        async with open_node() as caller, open_node() as node:
            node.handle(PROTOCOL, echo)
            await caller.connect(node.addrs[0], SECONDS)
            for n in range(100):
                stream = await caller.open(node.peer_id, PROTOCOL, SECONDS)
                await stream.send(b"hello")
                await stream.receive()
                if n % 3 == 0:
                    stream.reset()
                else:
                    await stream.close()
            await _settled(caller)
            await _settled(node)

    run(test)


async def send_raw(stream: Stream, data: bytes) -> None:
    """Bytes as they are, past the framing of this side."""
    assert isinstance(stream, Libp2pStream)
    await stream._link.outbox.put(data)


async def _settled(node: Transport) -> None:
    """Wait until a node's connections carry no stream any more; fails at the test's deadline."""
    assert isinstance(node, Libp2pTransport)
    host = node._host
    while True:
        muxed: list[Any] = [each.muxed_conn for each in host._swarm.get_connections()]
        left = sum(len(each.streams) + len(each.stream_events) for each in muxed)
        free = all(each.stream_backlog_semaphore.value == 256 for each in muxed)
        if muxed and free and not left + host._connections.stream_count:
            return
        await asyncio.sleep(0.02)


def test_frames_are_cut_wherever_the_bytes_fall() -> None:
    frames = [b"", b"a", b"bc" * 500, b"", b"d"]
    data = b"".join(map(framed, frames))
    for size in (1, 2, 3, 7, 1000, len(data)):
        reader = FrameReader()
        found = [
            frame for start in range(0, len(data), size) for frame in reader.feed(data[start : start + size])
        ]
        assert found == frames
        assert reader.is_between_frames


def test_an_oversized_length_is_refused_before_anything_of_it_is_kept() -> None:
    reader = FrameReader()
    with pytest.raises(ProtocolViolation, match="was announced"):
        reader.feed(struct.pack(">I", FRAME_BYTES_MAX + 1))


# --- the thread -----------------------------------------------------------------------------------
def test_the_peer_id_is_the_one_that_libp2p_derives_from_the_key() -> None:
    async def test() -> None:
        identity = Identity.generate()
        async with open_libp2p_transport(identity, [LOOPBACK]) as node:
            assert isinstance(node, Libp2pTransport)
            assert node._host._host.get_id().to_base58() == identity.peer_id == node.peer_id

    run(test)


def test_when_the_network_thread_dies_every_waiter_fails_and_nothing_hangs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test() -> None:
        async with open_node() as caller, open_node() as node:
            node.handle(PROTOCOL, echo)
            watch = Watch(caller)
            await caller.connect(node.addrs[0], SECONDS)
            stream = await caller.open(node.peer_id, PROTOCOL, SECONDS)
            receiving = asyncio.create_task(stream.receive())
            silent = socket.create_server(("127.0.0.1", 0))
            addr = f"/ip4/127.0.0.1/tcp/{silent.getsockname()[1]}/p2p/{Identity.generate().peer_id}"
            dialling = asyncio.create_task(caller.connect(addr, 20))
            await asyncio.sleep(0.05)

            kill_network(caller)
            async with asyncio.timeout(3):
                with pytest.raises(PeerLost):
                    await receiving
                with pytest.raises(PeerUnreachable, match="network has stopped"):
                    await dialling
                assert await watch.down.get() == node.peer_id
                with pytest.raises(PeerLost):
                    await stream.send(b"late")
                with pytest.raises(PeerUnreachable, match="network has stopped"):
                    await caller.open(node.peer_id, PROTOCOL, SECONDS)
                with pytest.raises(PeerUnreachable, match="network has stopped"):
                    await caller.connect(node.addrs[0], SECONDS)
                await caller.disconnect(node.peer_id)
                await stream.close()
            silent.close()

    run(test)
    assert "the network thread of this node failed" in caplog.text


def kill_network(node: Transport) -> None:
    """Have a task of the network thread fail."""
    assert isinstance(node, Libp2pTransport)
    host = node._host

    async def fail() -> None:
        raise RuntimeError("a defect in the network thread")

    node._bridge.to_trio.post(lambda: host._nursery.start_soon(fail))


def test_an_error_of_the_body_leaves_as_itself_and_the_thread_ends() -> None:
    async def test() -> None:
        async with open_node():
            raise PeerLost("the body's own error")

    with pytest.raises(PeerLost, match="the body's own error"):
        run(test)
    assert not [each for each in threading.enumerate() if each.name == "libp2p"]


def test_cancelling_while_open_ends_the_thread_too() -> None:
    async def test() -> None:
        async def hold() -> None:
            async with open_node() as node:
                ready.set_result(node.addrs[0])
                await asyncio.Event().wait()

        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        holder = asyncio.create_task(hold())
        await ready
        holder.cancel()
        await asyncio.sleep(0)
        holder.cancel()  # impatient
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(holder, SECONDS)
        assert not [each for each in threading.enumerate() if each.name == "libp2p"]

    run(test)


def test_opening_and_leaving_ten_times_leaks_no_descriptor() -> None:
    async def once() -> None:
        async with open_node() as caller, open_node() as node:
            node.handle(PROTOCOL, echo)
            await caller.connect(node.addrs[0], SECONDS)
            stream = await caller.open(node.peer_id, PROTOCOL, SECONDS)
            await stream.send(b"hello")
            await stream.receive()

    run(once)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        run(once)
    assert len(os.listdir("/proc/self/fd")) <= before


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(serve_until_killed())
