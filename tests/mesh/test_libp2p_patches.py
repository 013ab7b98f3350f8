"""Each patch, against the library as it comes: a patch that is no longer needed shows here.

Patches are process-global, so the scenarios run once unpatched in a process of their own (this file,
as a program), and once patched in this one. A test compares the two results.
"""

from __future__ import annotations

# pyright: reportPrivateUsage=false, reportUnknownMemberType=false, reportMissingTypeStubs=false
# pyright: reportCallIssue=false
import json
import logging
import struct
import subprocess
import sys
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import pytest
import trio
import trio.testing

# First: importing libp2p makes a warning, which this package expects.
from monai_node.mesh.libp2p import patches  # isort: skip
from libp2p import generate_new_ed25519_identity, new_host
from libp2p.abc import INetStream
from libp2p.crypto.keys import KeyPair
from libp2p.custom_types import TProtocol
from libp2p.host.basic_host import BasicHost
from libp2p.io.exceptions import IOException
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.swarm import Swarm
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.rcmgr import ResourceLimits, ResourceManager
from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport
from libp2p.stream_muxer.yamux import yamux
from multiaddr import Multiaddr

from monai_node.mesh.libp2p.connections import Connections
from monai_node.registry.errors import SetupError

ECHO = TProtocol("/test/echo/1.0.0")
LOOPBACK = Multiaddr("/ip4/127.0.0.1/tcp/0")
NOWHERE = Multiaddr("/ip4/127.0.0.1/tcp/1")  # nobody listens on port 1


@asynccontextmanager
async def running(**options: Any) -> AsyncGenerator[BasicHost, None]:
    """A host that echoes; options are libp2p's own."""
    keys = cast(KeyPair, options.pop("key_pair", None) or generate_new_ed25519_identity())
    host = cast(BasicHost, new_host(key_pair=keys, listen_addrs=[LOOPBACK], **options))
    host.set_stream_handler(ECHO, _echo)
    swarm_of(host).retry_config = RetryConfig(max_retries=0)
    async with host.run(listen_addrs=[LOOPBACK]):
        yield host
        for connection in host.get_network().get_connections():
            patches.hang_up(connection)  # by itself it leaves open sockets behind


async def _echo(stream: INetStream) -> None:
    while data := await stream.read(65536):
        await stream.write(data)


async def connect(caller: BasicHost, called: BasicHost) -> None:
    await caller.connect(info_from_p2p_addr(called.get_addrs()[0]))


async def ping(stream: INetStream, data: bytes = b"ping") -> bytes:
    await stream.write(data)
    return await stream.read(len(data))


def swarm_of(host: BasicHost) -> Swarm:
    return cast(Swarm, host.get_network())


# --- scenarios: each returns something that a patch changes -------------------------------------------
async def cancelled_writes_until_an_innocent_stream_dies(_: bool) -> int:
    """How many of 300 cancelled writes a neighbouring stream survives."""
    survived = 0
    async with running() as called, running() as caller:
        await connect(caller, called)
        innocent = await caller.new_stream(called.get_id(), [ECHO])
        victim = await caller.new_stream(called.get_id(), [ECHO])

        async def drain() -> None:
            with suppress(Exception):
                while await victim.read(65536):
                    pass

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain)
            with suppress(Exception):
                for count in range(300):
                    with trio.move_on_after((count % 10) * 0.0002):
                        while True:
                            await victim.write(b"x" * 3000)
                    with trio.fail_after(2):
                        await ping(innocent)
                    survived += 1
            nursery.cancel_scope.cancel()
    return survived


async def seconds_of_the_fastest_dial(_: bool) -> float:
    async with running() as called, running() as caller:
        fastest = 9.9
        for _attempt in range(2):
            start = trio.current_time()
            await connect(caller, called)
            fastest = min(fastest, trio.current_time() - start)
            await caller.disconnect(called.get_id())
    return fastest


async def window_updates_of_a_hundred_reads(_: bool) -> int:
    updates: int = 0
    write_frame = yamux.Yamux._write_frame

    async def counting(self: yamux.Yamux, data: bytes) -> None:
        nonlocal updates
        _version, kind, flags, _stream, credit = struct.unpack(yamux.YAMUX_HEADER_FORMAT, data[:12])
        if kind == yamux.TYPE_WINDOW_UPDATE and not flags and credit > 0:
            updates += 1
        await write_frame(self, data)

    yamux.Yamux._write_frame = counting
    try:
        async with running() as called, running() as caller:
            await connect(caller, called)
            stream = await caller.new_stream(called.get_id(), [ECHO])
            await trio.testing.wait_all_tasks_blocked()
            updates = 0
            for _read in range(100):
                await ping(stream)
    finally:
        yamux.Yamux._write_frame = write_frame
    return updates


async def plaintext_callers_get_in(is_patched: bool) -> bool:
    """Whether somebody who offers no encryption can use a protocol of ours."""
    ours, theirs = generate_new_ed25519_identity(), generate_new_ed25519_identity()
    security = {"sec_opt": patches.security_options(ours)} if is_patched else {}
    plaintext = {TProtocol(PLAINTEXT_PROTOCOL_ID): InsecureTransport(theirs)}
    async with (
        running(key_pair=ours, **security) as called,
        running(key_pair=theirs, sec_opt=plaintext) as caller,
    ):
        with trio.move_on_after(2):
            try:
                await connect(caller, called)
                stream = await caller.new_stream(called.get_id(), [ECHO])
                return await ping(stream) == b"ping"
            except Exception:
                return False
    return False


async def dialling_a_peer_that_failed_and_then_called_us(is_patched: bool) -> str:
    """The reason why it fails, or nothing."""
    async with running() as node, running() as peer:
        swarm = swarm_of(node)
        if is_patched:
            swarm.register_notifee(Connections(swarm, 4, lambda _peer, _is_up: None))
        node.get_peerstore().add_addrs(peer.get_id(), [NOWHERE], 60)
        with pytest.raises(Exception, match="unable to connect"):
            await swarm.dial_peer(peer.get_id())

        await connect(peer, node)  # it is there after all
        await peer.disconnect(node.get_id())
        await until(lambda: not swarm.get_connections(peer.get_id()))
        node.get_peerstore().clear_addrs(peer.get_id())
        try:
            await connect(node, peer)
        except Exception as error:
            return str(error)
    return ""


async def dials_after_three_that_were_cancelled(is_patched: bool) -> str:
    """The reason why one fails, or nothing."""
    two = ResourceManager(limits=ResourceLimits(max_connections=2))
    silent = trio.socket.socket()
    await silent.bind(("127.0.0.1", 0))
    silent.listen()  # takes calls, and never says a word
    where = Multiaddr(f"/ip4/127.0.0.1/tcp/{silent.getsockname()[1]}")
    with silent:
        async with running() as peer, running(resource_manager=two) as node:
            if is_patched:
                swarm_of(node).set_resource_manager(None)
            try:
                for _ in range(3):
                    with trio.move_on_after(0.1):
                        await swarm_of(node).dial_addr(where, peer.get_id())
                await connect(node, peer)
            except Exception as error:
                return "".join(traceback.format_exception(error))
    return ""


async def connections_accepted_one_after_another_with_room_for_one(_: bool) -> int:
    """Of three, each ended before the next begins."""
    one = ConnectionConfig(max_connections=1, min_connections=0, low_watermark=0, high_watermark=1)
    accepted = 0
    async with running(connection_config=one) as called, running() as caller:
        swarm = swarm_of(caller)
        for _attempt in range(3):
            try:
                await swarm.dial_addr(called.get_transport_addrs()[0], called.get_id())
            except Exception:
                return accepted
            accepted += 1
            await caller.disconnect(called.get_id())
            await until(lambda: not swarm_of(called).get_connections())
    return accepted


async def what_a_protocol_name_that_is_no_text_ends(is_patched: bool) -> str:
    """The error that ended the host, or nothing."""
    with trio.move_on_after(5):
        try:
            async with running() as called:
                if is_patched:
                    patches.guard_streams(called, 256)
                async with running() as caller:
                    await connect(caller, called)
                    stream = await swarm_of(caller).new_stream(called.get_id())
                    await stream.write(b"\x13/multistream/1.0.0\n\x03\xff\xfe\n")
                    with trio.move_on_after(1), suppress(IOException):
                        while await stream.read(100):
                            pass  # until the answer to it: a reset, or the end of the host
                    other = await caller.new_stream(called.get_id(), [ECHO])
                    await ping(other)
        except Exception as error:
            return "".join(traceback.format_exception(error))
        return ""
    return "nobody answered"


async def known_peers_are_dialled_unasked(_: bool) -> bool:
    async with running() as stranger, running() as node:
        node.get_peerstore().add_addrs(stranger.get_id(), stranger.get_transport_addrs(), 60)
        await swarm_of(node).auto_connector.maybe_connect()
        with trio.move_on_after(0.5):
            await until(lambda: bool(swarm_of(node).get_connections()))
            return True
    return False


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(5):
        while not condition():
            await trio.sleep(0.01)


SCENARIOS: list[Callable[[bool], Awaitable[Any]]] = [
    cancelled_writes_until_an_innocent_stream_dies,
    seconds_of_the_fastest_dial,
    window_updates_of_a_hundred_reads,
    plaintext_callers_get_in,
    dialling_a_peer_that_failed_and_then_called_us,
    dials_after_three_that_were_cancelled,
    connections_accepted_one_after_another_with_room_for_one,
    what_a_protocol_name_that_is_no_text_ends,
    known_peers_are_dialled_unasked,
]


@pytest.fixture(scope="module")
def stock() -> dict[str, Any]:
    """What the unpatched library does in each scenario."""
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True, timeout=60, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def patched(scenario: Callable[[bool], Awaitable[Any]]) -> Any:
    patches.apply()
    return trio.run(scenario, True)


def test_a_cancelled_write_does_not_kill_the_streams_beside_it(stock: dict[str, Any]) -> None:
    assert stock["cancelled_writes_until_an_innocent_stream_dies"] < 300
    assert patched(cancelled_writes_until_an_innocent_stream_dies) == 300


def test_a_dial_that_succeeded_does_not_wait_for_a_failure(stock: dict[str, Any]) -> None:
    assert stock["seconds_of_the_fastest_dial"] >= 0.25
    assert patched(seconds_of_the_fastest_dial) < 0.2


def test_credit_is_not_handed_back_on_every_read(stock: dict[str, Any]) -> None:
    assert stock["window_updates_of_a_hundred_reads"] >= 100
    assert patched(window_updates_of_a_hundred_reads) == 0


def test_a_caller_without_encryption_is_refused(stock: dict[str, Any]) -> None:
    assert stock["plaintext_callers_get_in"] is True
    assert patched(plaintext_callers_get_in) is False


def test_a_peer_that_calls_is_no_longer_held_for_dead(stock: dict[str, Any]) -> None:
    assert "negative cache" in stock["dialling_a_peer_that_failed_and_then_called_us"]
    assert patched(dialling_a_peer_that_failed_and_then_called_us) == ""


def test_cancelled_dials_take_no_place_for_good(stock: dict[str, Any]) -> None:
    assert "denied by resource manager" in stock["dials_after_three_that_were_cancelled"]
    assert patched(dials_after_three_that_were_cancelled) == ""


def test_a_connection_that_ended_makes_room_for_another(stock: dict[str, Any]) -> None:
    assert stock["connections_accepted_one_after_another_with_room_for_one"] == 1
    assert patched(connections_accepted_one_after_another_with_room_for_one) == 3


def test_one_bad_stream_does_not_end_the_host(stock: dict[str, Any]) -> None:
    assert "UnicodeDecodeError" in stock["what_a_protocol_name_that_is_no_text_ends"]
    assert patched(what_a_protocol_name_that_is_no_text_ends) == ""


def test_nobody_is_dialled_unasked(stock: dict[str, Any]) -> None:
    assert stock["known_peers_are_dialled_unasked"] is True
    assert patched(known_peers_are_dialled_unasked) is False


def test_another_version_of_the_library_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patches, "LIBP2P_VERSION", "0.8.2")
    with pytest.raises(SetupError, match=r"pip install libp2p==0\.8\.2"):
        patches.apply()


def test_a_library_without_the_patched_part_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("libp2p.network.swarm._HAPPY_EYEBALLS_DELAY")
    with pytest.raises(SetupError, match="_HAPPY_EYEBALLS_DELAY"):
        patches.apply()


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    print(json.dumps({each.__name__: trio.run(each, False) for each in SCENARIOS}))
