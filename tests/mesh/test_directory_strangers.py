"""Connections that prove nothing, and addresses that somebody made up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import pytest

from monai_node.mesh import redial
from monai_node.mesh.directory import STRANGER_SECONDS, Directory, DirectoryOptions, Pulse, open_directory
from monai_node.mesh.identity import Identity
from monai_node.mesh.redial import Redialler
from monai_node.registry.advert import Advert, Beacon, Signed, digest_of, seal
from monai_node.registry.errors import PeerUnreachable
from monai_node.registry.ids import PeerId
from monai_node.registry.secret import Mesh, new_mesh
from monai_node.registry.tasks import task_scope
from monai_node.registry.transport import MemoryNetwork, MemoryTransport, open_memory_transport

MESH = new_mesh()


class Clock:
    def __init__(self) -> None:
        self.now = time.monotonic()

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def opened(
    network: MemoryNetwork, clock: Callable[[], float], mesh: Mesh = MESH
) -> AsyncGenerator[tuple[MemoryTransport, Directory]]:
    identity = Identity.generate()
    advert = Advert(peer=identity.peer_id)
    envelope = seal(advert, identity.sign)
    signed = Signed(advert, envelope, digest_of(envelope))

    def beacon() -> bytes:
        return seal(Beacon(peer=identity.peer_id, seq=1, advert_digest=signed.digest), identity.sign)

    options = DirectoryOptions(probe_seconds=0.05, wants_peers=False)
    async with (
        open_memory_transport(identity.peer_id, network) as transport,
        open_directory(transport, mesh, Pulse(lambda: signed, beacon), options, clock) as directory,
    ):
        yield transport, directory


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not is_so():
            await asyncio.sleep(0.002)


def test_a_connection_without_a_hello_is_given_up_and_a_members_is_kept() -> None:
    async def test() -> None:
        network, clock = MemoryNetwork(), Clock()
        async with (
            opened(network, clock) as (node, directory),
            opened(network, clock) as (member, members_view),
            open_memory_transport(Identity.generate().peer_id, network) as stranger,
        ):
            await members_view.join(node.addrs[0])
            await stranger.connect(node.addrs[0], 1)
            assert node.is_connected(stranger.peer_id)
            clock.now += STRANGER_SECONDS / 2
            directory.heard(member.peer_id)
            directory.check()
            await asyncio.sleep(0)
            assert node.is_connected(stranger.peer_id)
            clock.now += STRANGER_SECONDS
            directory.heard(member.peer_id)
            directory.check()
            await until(lambda: not node.is_connected(stranger.peer_id))
            assert node.is_connected(member.peer_id)
            assert directory.is_member(member.peer_id)

    asyncio.run(test())


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redial, "_PAUSES", (0.0,))


def test_made_up_addresses_are_given_up_soon_and_one_of_a_peer_at_a_time(no_pauses: None) -> None:
    dialled: list[str] = []

    async def meet(addr: str) -> PeerId:
        dialled.append(addr)
        raise PeerUnreachable("nobody there")

    async def test() -> None:
        peer = Identity.generate().peer_id
        async with task_scope() as scope:
            redialler = Redialler(Identity.generate().peer_id, meet, lambda _: False, scope)
            for port in range(1, 60):
                redialler.visit(f"/ip4/192.0.2.1/tcp/{port}/p2p/{peer}")
            await asyncio.sleep(0.05)
            assert dialled == [f"/ip4/192.0.2.1/tcp/1/p2p/{peer}"] * 4
            redialler.visit(f"/ip4/192.0.2.1/tcp/2/p2p/{peer}")  # its place is free again
            await asyncio.sleep(0.05)
            assert len(dialled) == 8

    asyncio.run(test())
