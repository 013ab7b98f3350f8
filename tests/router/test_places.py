from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from monai_node.registry.ids import PeerId
from monai_node.router.places import Openings, Places

A, B = PeerId("a"), PeerId("b")
LONG = 60.0


def run(work: Coroutine[Any, Any, None]) -> None:
    async def within() -> None:
        async with asyncio.timeout(10):
            await work

    asyncio.run(within())


async def settle() -> None:
    """Everything that can happen by now has happened."""
    for _ in range(5):
        await asyncio.sleep(0)


# --- places -------------------------------------------------------------------------------------------
def test_a_place_is_taken_at_the_first_peer_that_has_one() -> None:
    async def main() -> None:
        places = Places(per_peer_max=2)
        assert [await places.take([A, B], LONG) for _ in range(4)] == [A, A, B, B]

    run(main())


def test_who_finds_no_place_gets_the_first_that_is_free_in_the_order_of_coming() -> None:
    async def main() -> None:
        places = Places(per_peer_max=1)
        for peer in (A, B):
            await places.take([peer], LONG)
        first = asyncio.create_task(places.take([A], LONG))
        second = asyncio.create_task(places.take([A, B], LONG))
        await settle()
        places.leave(B)
        assert await second == B
        places.leave(A)
        with pytest.raises(TimeoutError):  # it is the first one's, who has not run since
            await places.take([A], 0.0)
        assert await first == A

    run(main())


def test_a_wait_is_over_in_time_and_leaves_nothing_behind() -> None:
    async def main() -> None:
        places = Places(per_peer_max=1)
        await places.take([A], LONG)
        with pytest.raises(TimeoutError):
            await places.take([A], 0.01)
        places.leave(A)
        assert await places.take([A], LONG) == A

    run(main())


def test_who_goes_as_its_place_is_given_passes_it_on() -> None:
    async def main() -> None:
        places = Places(per_peer_max=1)
        await places.take([A], LONG)
        going, staying = (asyncio.create_task(places.take([A], LONG)) for _ in range(2))
        await settle()
        places.leave(A)
        going.cancel()
        assert await staying == A
        places.leave(A)
        assert await places.take([A], LONG) == A

    run(main())


# --- openings -----------------------------------------------------------------------------------------
class _Openers:
    """Whoever has its turn, by name, until it is told to end."""

    def __init__(self, openings: Openings) -> None:
        self._openings = openings
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ends: dict[str, asyncio.Event] = {}
        self.open: set[str] = set()

    async def begin(self, name: str, peer: PeerId) -> None:
        self._ends[name] = asyncio.Event()
        self._tasks[name] = asyncio.create_task(self._open(name, peer))
        await settle()

    async def end(self, name: str) -> None:
        self._ends[name].set()
        await self._tasks[name]
        await settle()

    async def go_away(self, name: str) -> None:
        self._tasks[name].cancel()
        await asyncio.wait({self._tasks[name]})
        await settle()

    async def _open(self, name: str, peer: PeerId) -> None:
        async with self._openings.turn(peer):
            self.open.add(name)
            await self._ends[name].wait()
        self.open.discard(name)


def test_so_many_streams_are_opened_at_once_and_so_many_at_one_peer() -> None:
    async def main() -> None:
        openers = _Openers(Openings(at_once=3, per_peer=2))
        for name in ("a1", "a2", "a3", "b1", "b2"):
            await openers.begin(name, PeerId(name[0]))
        assert openers.open == {"a1", "a2", "b1"}, "one peer holds up nobody else"
        await openers.end("a1")
        assert len(openers.open) == 3
        await openers.go_away("a3")
        await openers.end("b1")
        assert openers.open == {"a2", "b2"}
        for name in ("a2", "b2"):
            await openers.end(name)

    run(main())
