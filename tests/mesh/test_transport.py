"""The contract of `registry.transport.Transport`, on both implementations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from monai_node.mesh.identity import Identity
from monai_node.mesh.libp2p.transport import open_libp2p_transport
from monai_node.registry.errors import MonaiError, PeerLost, PeerUnreachable, ProtocolViolation
from monai_node.registry.ids import PeerId
from monai_node.registry.transport import (
    MemoryNetwork,
    Stream,
    Transport,
    open_memory_transport,
)
from monai_node.registry.wire import FRAME_BYTES_MAX, STREAM_BUFFER_FRAMES

PROTOCOL = "/monai/test/1.0.0"
LOOPBACK = "/ip4/127.0.0.1/tcp/0"
SECONDS = 5.0  # for anything that takes milliseconds


@pytest.fixture(params=["memory", "libp2p"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@dataclass
class Events:
    """What a connection listener was told, and a way to wait for it."""

    seen: list[tuple[PeerId, bool]] = field(default_factory=list[tuple[PeerId, bool]])
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __call__(self, peer: PeerId, is_up: bool) -> None:
        self.seen.append((peer, is_up))
        self.changed.set()

    async def wait_for(self, peer: PeerId, is_up: bool) -> None:
        async with asyncio.timeout(SECONDS):
            while (peer, is_up) not in self.seen:
                self.changed.clear()
                await self.changed.wait()


@asynccontextmanager
async def open_nodes(kind: str, count: int = 2) -> AsyncGenerator[list[Transport], None]:
    """Transports that know nothing of each other yet."""
    network = MemoryNetwork()
    async with AsyncExitStack() as stack:
        nodes: list[Transport] = []
        for _ in range(count):
            identity = Identity.generate()
            if kind == "memory":
                opened = open_memory_transport(identity.peer_id, network)
                nodes.append(await stack.enter_async_context(opened))
            else:
                opened = open_libp2p_transport(identity, [LOOPBACK])
                nodes.append(await stack.enter_async_context(opened))
        yield nodes


@asynccontextmanager
async def open_pair(
    kind: str, handler: Callable[[Stream], Awaitable[None]] | None = None
) -> AsyncGenerator[tuple[Transport, Transport], None]:
    """A caller and a provider that serves PROTOCOL with `handler` (echo), connected."""
    async with open_nodes(kind) as (caller, provider):
        provider.handle(PROTOCOL, handler or echo)
        await caller.connect(provider.addrs[0], SECONDS)
        yield caller, provider


async def echo(stream: Stream) -> None:
    with suppress(EOFError):
        while True:
            await stream.send(await stream.receive())


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await test()

    asyncio.run(bounded())


async def soon(awaitable: Awaitable[Any]) -> Any:
    async with asyncio.timeout(SECONDS):
        return await awaitable


async def drained(stream: Stream) -> BaseException:
    """How a stream ended, after everything that was still in it."""
    async with asyncio.timeout(SECONDS):
        try:
            while True:
                await stream.receive()
        except (EOFError, MonaiError) as end:
            return end


def test_a_frame_comes_back_from_a_peer_that_echoes(kind: str) -> None:
    async def test() -> None:
        async with open_pair(kind) as (caller, provider):
            stream = await caller.open(provider.peer_id, PROTOCOL, SECONDS)
            assert stream.peer == provider.peer_id
            for frame in (b"hello", b"", b"\x00" * 100_000, b"x" * FRAME_BYTES_MAX):
                await stream.send(frame)
                assert await soon(stream.receive()) == frame

    run(test)


def test_the_handler_is_told_who_called(kind: str) -> None:
    callers: list[PeerId] = []

    async def note(stream: Stream) -> None:
        callers.append(stream.peer)
        await stream.send(b"noted")

    async def test() -> None:
        async with open_pair(kind, note) as (caller, provider):
            stream = await caller.open(provider.peer_id, PROTOCOL, SECONDS)
            assert await soon(stream.receive()) == b"noted"
            assert callers == [caller.peer_id]

    run(test)


def test_many_frames_arrive_in_order(kind: str) -> None:
    async def test() -> None:
        async with open_pair(kind) as (caller, provider):
            stream = await caller.open(provider.peer_id, PROTOCOL, SECONDS)
            frames = [b"%d" % n * (n % 7) for n in range(1000)]

            async def send() -> None:
                for frame in frames:
                    await stream.send(frame)
                await stream.close()

            async with asyncio.TaskGroup() as group:
                group.create_task(send())
                assert [await soon(stream.receive()) for _ in frames] == frames
            assert isinstance(await drained(stream), EOFError)

    run(test)


def test_a_stream_says_whether_a_frame_has_come(kind: str) -> None:
    async def test() -> None:
        async with open_pair(kind) as (caller, provider):
            stream = await caller.open(provider.peer_id, PROTOCOL, SECONDS)
            assert not stream.has_frame
            await stream.send(b"one")
            async with asyncio.timeout(SECONDS):
                while not stream.has_frame:
                    await asyncio.sleep(0.001)
            assert await soon(stream.receive()) == b"one"
            assert not stream.has_frame
            await stream.send(b"two")
            async with asyncio.timeout(SECONDS):
                while not stream.has_frame:
                    await asyncio.sleep(0.001)
            stream.reset()
            assert not stream.has_frame

    run(test)


def test_after_close_the_other_side_gets_what_was_sent_and_then_the_end(kind: str) -> None:
    received: list[bytes] = []

    async def answer_at_the_end(stream: Stream) -> None:
        with suppress(EOFError):
            while True:
                received.append(await stream.receive())
        await stream.send(b"answer")  # the caller's end does not end this side

    async def test() -> None:
        async with open_pair(kind, answer_at_the_end) as (caller, provider):
            stream = await caller.open(provider.peer_id, PROTOCOL, SECONDS)
            await stream.send(b"one")
            await stream.send(b"two")
            await stream.close()
            await stream.close()
            assert await soon(stream.receive()) == b"answer"
            assert received == [b"one", b"two"]
            assert isinstance(await drained(stream), EOFError)
            assert isinstance(await drained(stream), EOFError), "the end stays the end"
            with pytest.raises(PeerLost):
                await stream.send(b"late")

    run(test)


def test_a_reset_is_seen_by_the_other_side_at_once_as_a_lost_peer(kind: str) -> None:
    ends: asyncio.Queue[BaseException] = asyncio.Queue()

    async def watch(stream: Stream) -> None:
        await stream.send(b"ready")
        ends.put_nowait(await drained(stream))

    async def test() -> None:
        async with open_pair(kind, watch) as (caller, provider):
            stream = await caller.open(provider.peer_id, PROTOCOL, SECONDS)
            assert await soon(stream.receive()) == b"ready"
            stream.reset()
            stream.reset()
            async with asyncio.timeout(1):
                assert isinstance(await ends.get(), PeerLost)
            with pytest.raises(PeerLost):
                await stream.receive()
            with pytest.raises(PeerLost):
                await stream.send(b"late")
            await stream.close()

    run(test)


def test_a_reset_ends_the_wait_of_this_side_too(kind: str) -> None:
    async def wait(stream: Stream) -> None:
        await drained(stream)

    async def test() -> None:
        async with open_pair(kind, wait) as (caller, provider):
            stream = await caller.open(provider.peer_id, PROTOCOL, SECONDS)
            reader = asyncio.create_task(stream.receive())
            await asyncio.sleep(0)
            stream.reset()
            with pytest.raises(PeerLost):
                await soon(reader)

    run(test)


@pytest.mark.parametrize("error", [ProtocolViolation("no"), ValueError("a defect"), EOFError()])
def test_a_handler_that_fails_costs_only_its_stream(
    kind: str, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail_if_told(stream: Stream) -> None:
        with suppress(EOFError):
            while (frame := await stream.receive()) != b"fail":
                await stream.send(frame)
            raise error
        raise error

    async def test() -> None:
        async with open_pair(kind, fail_if_told) as (caller, provider):
            innocent = await caller.open(provider.peer_id, PROTOCOL, SECONDS)
            victim = await caller.open(provider.peer_id, PROTOCOL, SECONDS)
            await victim.send(b"fail")
            assert isinstance(await drained(victim), PeerLost)
            await innocent.send(b"still here")
            assert await soon(innocent.receive()) == b"still here"
            innocent.reset()

    run(test)
    assert ("a handler failed" in caplog.text) == isinstance(error, ValueError)


def test_a_handler_that_returns_closes_its_stream(kind: str) -> None:
    async def say(stream: Stream) -> None:
        await stream.send(b"last words")

    async def test() -> None:
        async with open_pair(kind, say) as (caller, provider):
            stream = await caller.open(provider.peer_id, PROTOCOL, SECONDS)
            assert await soon(stream.receive()) == b"last words"
            assert isinstance(await drained(stream), EOFError)

    run(test)


def test_a_protocol_that_is_not_served_is_refused_in_words(kind: str) -> None:
    async def test() -> None:
        async with open_pair(kind) as (caller, provider):
            with pytest.raises(PeerUnreachable, match="does not serve /monai/other"):
                await caller.open(provider.peer_id, "/monai/other/1.0.0", SECONDS)
            stream = await caller.open(provider.peer_id, PROTOCOL, SECONDS)
            await stream.send(b"the connection is still good")
            await soon(stream.receive())

    run(test)


def test_a_protocol_is_served_once(kind: str) -> None:
    async def test() -> None:
        async with open_pair(kind) as (_, provider):
            with pytest.raises(ValueError, match="served already"):
                provider.handle(PROTOCOL, echo)

    run(test)


def test_a_frame_that_is_too_large_is_refused_and_nothing_of_it_is_sent(kind: str) -> None:
    async def test() -> None:
        async with open_pair(kind) as (caller, provider):
            stream = await caller.open(provider.peer_id, PROTOCOL, SECONDS)
            with pytest.raises(ProtocolViolation):
                await stream.send(b"x" * (FRAME_BYTES_MAX + 1))
            await stream.send(b"small")
            assert await soon(stream.receive()) == b"small"

    run(test)


def test_a_reader_that_falls_too_far_behind_loses_its_stream_and_no_other(kind: str) -> None:
    ends: asyncio.Queue[BaseException] = asyncio.Queue()

    async def flood(stream: Stream) -> None:
        try:
            while True:
                await stream.send(b"x" * 1000)
        except PeerLost as end:
            ends.put_nowait(end)

    async def test() -> None:
        async with open_pair(kind, flood) as (caller, provider):
            provider.handle("/monai/echo/1.0.0", echo)
            stream = await caller.open(provider.peer_id, PROTOCOL, SECONDS)
            assert isinstance(await soon(ends.get()), PeerLost)
            count = 0
            with pytest.raises(PeerLost):
                while True:
                    await soon(stream.receive())
                    count += 1
            assert count <= STREAM_BUFFER_FRAMES
            other = await caller.open(provider.peer_id, "/monai/echo/1.0.0", SECONDS)
            await other.send(b"hello")
            assert await soon(other.receive()) == b"hello"

    run(test)


def test_a_reader_that_is_only_slow_loses_nothing(kind: str) -> None:
    count = STREAM_BUFFER_FRAMES * 3

    async def flood(stream: Stream) -> None:
        await stream.receive()
        for n in range(count):
            await stream.send(b"%d" % n)
            if kind == "memory":  # it has no room beyond the buffer
                await asyncio.sleep(0.001)

    async def test() -> None:
        async with open_pair(kind, flood) as (caller, provider):
            stream = await caller.open(provider.peer_id, PROTOCOL, SECONDS)
            await stream.send(b"go")
            for n in range(count):
                if n % STREAM_BUFFER_FRAMES == 0:
                    await asyncio.sleep(0.1)
                assert await soon(stream.receive()) == b"%d" % n

    run(test)


def test_cancelled_waits_lose_no_frame_and_leave_the_connection_usable(kind: str) -> None:
    async def test() -> None:
        async with open_pair(kind) as (caller, provider):
            stream = await caller.open(provider.peer_id, PROTOCOL, SECONDS)
            other = await caller.open(provider.peer_id, PROTOCOL, SECONDS)
            for n in range(50):
                with suppress(TimeoutError):
                    async with asyncio.timeout(0):
                        await stream.receive()
                sender = asyncio.create_task(other.send(b"%d" % n))
                reader = asyncio.create_task(other.receive())
                await asyncio.sleep(0)
                reader.cancel()
                await sender
                with suppress(asyncio.CancelledError):
                    await reader
                assert await soon(other.receive()) == b"%d" % n
            await stream.send(b"alive")
            assert await soon(stream.receive()) == b"alive"

    run(test)


def test_cancelled_opens_and_abandoned_streams_leave_the_connection_usable(kind: str) -> None:
    async def test() -> None:
        async with open_pair(kind) as (caller, provider):
            steady = await caller.open(provider.peer_id, PROTOCOL, SECONDS)
            for n in range(60):
                opening = asyncio.create_task(caller.open(provider.peer_id, PROTOCOL, SECONDS))
                await asyncio.sleep((n % 7) * 0.0007)
                opening.cancel()
                with suppress(asyncio.CancelledError):
                    stream = await opening
                    sending = asyncio.create_task(stream.send(b"x" * 50_000))
                    await asyncio.sleep(0)
                    sending.cancel()
                    stream.reset()
                    with suppress(asyncio.CancelledError, PeerLost):
                        await sending
                await steady.send(b"%d" % n)
                assert await soon(steady.receive()) == b"%d" % n

    run(test)


def test_both_sides_hear_of_a_connection_and_of_its_end(kind: str) -> None:
    async def test() -> None:
        async with open_nodes(kind) as (caller, provider):
            at_caller, at_provider = Events(), Events()
            caller.listen_connections(at_caller)
            provider.listen_connections(at_provider)
            assert not caller.is_connected(provider.peer_id)

            assert await caller.connect(provider.addrs[0], SECONDS) == provider.peer_id
            assert caller.is_connected(provider.peer_id)
            await at_provider.wait_for(caller.peer_id, True)
            await caller.connect(provider.addrs[0], SECONDS)  # nothing new

            await caller.disconnect(provider.peer_id)
            assert not caller.is_connected(provider.peer_id)
            await at_provider.wait_for(caller.peer_id, False)
            assert not provider.is_connected(caller.peer_id)
            await caller.disconnect(provider.peer_id)

            assert at_caller.seen == [(provider.peer_id, True), (provider.peer_id, False)]
            assert at_provider.seen == [(caller.peer_id, True), (caller.peer_id, False)]

    run(test)


def test_disconnecting_fails_every_stream_on_both_sides(kind: str) -> None:
    ends: asyncio.Queue[BaseException] = asyncio.Queue()

    async def watch(stream: Stream) -> None:
        await stream.send(b"ready")
        ends.put_nowait(await drained(stream))

    async def test() -> None:
        async with open_pair(kind, watch) as (caller, provider):
            streams = [await caller.open(provider.peer_id, PROTOCOL, SECONDS) for _ in range(3)]
            for stream in streams:
                assert await soon(stream.receive()) == b"ready"
            waiting = [asyncio.create_task(drained(stream)) for stream in streams]
            await caller.disconnect(provider.peer_id)
            for each in waiting:
                assert isinstance(await soon(each), PeerLost)
            for _ in streams:
                assert isinstance(await soon(ends.get()), EOFError | PeerLost)

    run(test)


def test_open_dials_again_by_itself_after_a_disconnect(kind: str) -> None:
    async def test() -> None:
        async with open_pair(kind) as (caller, provider):
            for _ in range(3):
                await caller.disconnect(provider.peer_id)
                stream = await caller.open(provider.peer_id, PROTOCOL, SECONDS)
                await stream.send(b"again")
                assert await soon(stream.receive()) == b"again"

    run(test)


def test_fifty_streams_at_once_do_not_mix(kind: str) -> None:
    async def test() -> None:
        async with open_pair(kind) as (caller, provider):

            async def talk(n: int) -> None:
                stream = await caller.open(provider.peer_id, PROTOCOL, 20)
                for k in range(20):
                    await stream.send(b"%d:%d" % (n, k))
                    assert await stream.receive() == b"%d:%d" % (n, k)
                await stream.close()
                assert isinstance(await drained(stream), EOFError)

            async with asyncio.TaskGroup() as group:
                for n in range(50):
                    group.create_task(talk(n))

    run(test)


def test_a_peer_that_nobody_knows_is_unreachable_within_the_deadline(kind: str) -> None:
    async def test() -> None:
        async with open_nodes(kind, 1) as (node,):
            with pytest.raises(PeerUnreachable):
                async with asyncio.timeout(2):
                    await node.open(Identity.generate().peer_id, PROTOCOL, 1)

    run(test)


def test_a_peer_that_has_left_is_unreachable_and_reported_down(kind: str) -> None:
    async def test() -> None:
        events = Events()
        network = MemoryNetwork()
        async with AsyncExitStack() as stack:
            first, second = Identity.generate(), Identity.generate()
            stay, leave = (
                (
                    open_memory_transport(first.peer_id, network),
                    open_memory_transport(second.peer_id, network),
                )
                if kind == "memory"
                else (open_libp2p_transport(first, [LOOPBACK]), open_libp2p_transport(second, [LOOPBACK]))
            )
            node: Transport = await stack.enter_async_context(stay)
            node.listen_connections(events)
            async with leave as gone:
                await node.connect(gone.addrs[0], SECONDS)
            await events.wait_for(second.peer_id, False)
            with pytest.raises(PeerUnreachable):
                await node.open(second.peer_id, PROTOCOL, SECONDS)

    run(test)


def test_leaving_cancels_handlers_and_parts_from_peers(kind: str) -> None:
    cancelled: list[PeerId] = []

    async def hold(stream: Stream) -> None:
        try:
            await stream.send(b"holding")
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(stream.peer)
            raise

    async def test() -> None:
        async with open_pair(kind, hold) as (caller, provider):
            stream = await caller.open(provider.peer_id, PROTOCOL, SECONDS)
            assert await soon(stream.receive()) == b"holding"
            caller_id = caller.peer_id
        assert cancelled == [caller_id]
        with pytest.raises(PeerLost):
            await stream.receive()

    run(test)
