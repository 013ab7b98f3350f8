"""What only the memory transport does; the common contract is in tests/mesh/test_transport.py."""

import asyncio

import pytest

from monai_node.registry.errors import PeerLost
from monai_node.registry.ids import PeerId
from monai_node.registry.transport import Stream, open_memory_transport
from monai_node.registry.wire import STREAM_BUFFER_FRAMES

NODE = PeerId("12D3KooWThisNode")
PROTOCOL = "/monai/test/1.0.0"


def test_a_node_serves_itself_and_hears_once_of_each_change() -> None:
    told: list[tuple[PeerId, bool]] = []

    async def upper(stream: Stream) -> None:
        await stream.send((await stream.receive()).upper())

    async def test() -> None:
        async with open_memory_transport(NODE) as node:
            node.listen_connections(lambda peer, is_up: told.append((peer, is_up)))
            node.handle(PROTOCOL, upper)
            stream = await node.open(NODE, PROTOCOL, 1)
            await stream.send(b"to myself")
            assert await stream.receive() == b"TO MYSELF"
            await node.disconnect(NODE)
            with pytest.raises(PeerLost):
                await stream.receive()

    asyncio.run(test())
    assert told == [(NODE, True), (NODE, False)]


def test_a_sender_learns_at_once_that_its_reader_is_too_far_behind() -> None:
    async def idle(_: Stream) -> None:
        await asyncio.Event().wait()

    async def test() -> None:
        async with open_memory_transport(NODE) as node:
            node.handle(PROTOCOL, idle)
            stream = await node.open(NODE, PROTOCOL, 1)
            for _ in range(STREAM_BUFFER_FRAMES):
                await stream.send(b"x")
            with pytest.raises(PeerLost, match="stopped reading"):
                await stream.send(b"one too many")

    asyncio.run(test())
