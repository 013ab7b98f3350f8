from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from monai_node.mesh.identity import Identity
from monai_node.mesh.redial import Redialler, peer_in
from monai_node.registry.errors import PeerRefused, PeerUnreachable
from monai_node.registry.ids import PeerId
from monai_node.registry.tasks import TaskScope, task_scope

ME = Identity.generate().peer_id


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    monkeypatch.setattr("monai_node.mesh.redial._PAUSES", (0.0, 0.0, 0.0))


class Network:
    """Peers that answer, or not, and how often they were dialled."""

    def __init__(self) -> None:
        self.dials: list[str] = []
        self.up: set[PeerId] = set()
        self.met: set[PeerId] = set()
        self.refuses = False

    def redialler(self, scope: TaskScope) -> Redialler:
        return Redialler(ME, self.meet, self.met.__contains__, scope)

    async def meet(self, addr: str) -> PeerId:
        self.dials.append(addr)
        peer = peer_in(addr)
        assert peer is not None
        if self.refuses:
            raise PeerRefused("wrong mesh")
        if peer not in self.up:
            raise PeerUnreachable("nobody")
        self.met.add(peer)
        return peer


def new_addr() -> str:
    return f"/ip4/192.0.2.1/tcp/4001/p2p/{Identity.generate().peer_id}"


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(10):
            await test()

    asyncio.run(bounded())


async def turns(count: int) -> None:
    """Let every task go on so many times: dialling waits for nothing here."""
    for _ in range(count):
        await asyncio.sleep(0)


def test_a_kept_address_is_dialled_until_it_answers_and_again_when_it_is_lost() -> None:
    async def test() -> None:
        async with task_scope() as scope:
            network, addr = Network(), new_addr()
            redialler = network.redialler(scope)
            redialler.keep(addr)
            await turns(500)
            assert len(network.dials) > 100, "it is never given up"
            peer = peer_in(addr)
            assert peer is not None
            network.up.add(peer)
            await turns(10)
            assert network.met == {peer}
            dials = len(network.dials)
            await turns(50)
            assert len(network.dials) == dials
            network.met.clear()
            await turns(10)
            assert network.met == {peer}

    run(test)


@pytest.mark.parametrize("refuses", [False, True], ids=["silent", "refusing"])
def test_a_visited_address_that_does_not_answer_is_given_up_and_makes_room(refuses: bool) -> None:
    async def test() -> None:
        async with task_scope() as scope:
            network, addr = Network(), new_addr()
            network.refuses = refuses
            redialler = network.redialler(scope)
            redialler.revisit(addr)
            await turns(500)
            dials = len(network.dials)
            assert 10 < dials < 100
            await turns(500)
            assert len(network.dials) == dials
            redialler.revisit(addr)
            await turns(5)
            assert len(network.dials) > dials

    run(test)


def test_an_address_that_was_visited_first_and_kept_later_is_never_given_up() -> None:
    async def test() -> None:
        async with task_scope() as scope:
            network, addr = Network(), new_addr()
            redialler = network.redialler(scope)
            redialler.revisit(addr)
            await turns(5)
            redialler.keep(addr)
            await turns(500)
            assert len(network.dials) > 100

    run(test)


def test_one_address_is_dialled_by_one_task_and_hearsay_is_bounded() -> None:
    async def test() -> None:
        async with task_scope() as scope:
            network = Network()
            redialler = network.redialler(scope)
            for addr in [new_addr() for _ in range(200)]:
                redialler.revisit(addr)
                redialler.revisit(addr)
            kept = new_addr()
            redialler.keep(kept)
            await turns(1)
            assert len(network.dials) == len(set(network.dials)) == 65
            assert kept in network.dials, "what we were told to join has room in any case"

    run(test)


@pytest.mark.parametrize(
    "addr",
    ["", "nonsense", "/p2p/", "/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.1/tcp/1/p2p/x", ME, f"/ip4/x/p2p/{ME}"],
)
def test_what_names_no_other_peer_is_not_dialled(addr: str) -> None:
    async def test() -> None:
        async with task_scope() as scope:
            network = Network()
            redialler = network.redialler(scope)
            redialler.keep(addr)
            redialler.revisit(addr)
            await turns(5)
            assert network.dials == []

    run(test)


def test_nothing_is_started_after_the_end() -> None:
    async def test() -> None:
        network = Network()
        async with task_scope() as scope:
            redialler = network.redialler(scope)
            redialler.leave()
        redialler.keep(new_addr())
        redialler.revisit(new_addr())
        await turns(5)
        assert network.dials == []

    run(test)


def test_a_multiaddr_names_its_last_peer() -> None:
    other = Identity.generate().peer_id
    assert peer_in(f"/ip4/192.0.2.1/tcp/1/p2p/{ME}/p2p-circuit/p2p/{other}") == other
