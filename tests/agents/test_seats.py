"""Waiting for a peer: whatever becomes of those who wait, no slot is lost and nobody is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

import pytest

from monai_node.agents.seats import Seats
from monai_node.registry.ids import PeerId
from monai_node.router.rank import Candidate
from monai_node.router.seating import Need

FAR_SECONDS = 30.0  # a test that hangs fails after this long


def peer(name: str, seconds: float = 1.0, slots: int = 1) -> Candidate:
    return Candidate(PeerId(name), name, "chat", "m", True, 1.0, (), seconds=seconds, slots=slots)


def seats(width: int = 8, needs: dict[str, Need] | None = None) -> Seats:
    clock = asyncio.get_running_loop().time
    return Seats(clock, lambda: lambda key: (needs or {}).get(key, Need(1.0, 0.0)), width)


async def until_stuck() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize("seed", range(20))
def test_whoever_is_cancelled_wherever_it_stands_everybody_else_gets_a_seat_and_all_slots_are_left(
    seed: int,
) -> None:
    chance, at_once, most, seated = Random(seed), 0, 0, 0

    async def sit(waiting: Seats, key: str) -> None:
        nonlocal at_once, most, seated
        try:
            await waiting.take(key, peers, 1.0)
            at_once, seated = at_once + 1, seated + 1
            most = max(most, at_once)
            try:
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(0)
            finally:
                at_once -= 1
        finally:
            waiting.leave(key)
            waiting.settle()

    async def crowd() -> None:
        waiting = seats(width=3)
        tasks = [asyncio.create_task(sit(waiting, str(number))) for number in range(30)]
        victims = chance.sample(tasks, 10)
        for victim in victims:
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)
            victim.cancel()
        async with asyncio.timeout(FAR_SECONDS):
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert sum(isinstance(each, asyncio.CancelledError) for each in ended) <= len(victims)
        assert seated >= len(tasks) - len(victims)
        async with asyncio.timeout(FAR_SECONDS):
            await asyncio.gather(*(waiting.take(f"late {number}", peers, 1.0) for number in range(3)))

    peers = [peer("x"), peer("y", slots=2)]
    asyncio.run(crowd())
    assert most <= 3


def test_nobody_with_less_behind_it_passes_one_that_is_about_to_come() -> None:
    async def wait() -> list[str]:
        order: list[str] = []
        waiting = seats(needs={"first": Need(9.0, 0.0), "other": Need(1.0, 8.0)})

        async def sit(key: str) -> None:
            await waiting.take(key, [peer("x")], 1.0)
            order.append(key)
            waiting.leave(key)
            waiting.settle()

        waiting.announce(["first"])
        async with asyncio.timeout(FAR_SECONDS), asyncio.TaskGroup() as group:
            group.create_task(sit("other"))
            await until_stuck()
            group.create_task(sit("first"))
        return order

    assert asyncio.run(wait()) == ["first", "other"]


def test_one_that_waits_for_a_quick_peer_goes_to_an_idle_one_when_that_is_late_though_nothing_ends() -> None:
    async def wait() -> str:
        waiting = seats()
        quick, slow = peer("quick", 0.02), peer("slow", 0.05)
        await waiting.take("a", [quick, slow], 1.0)
        async with asyncio.timeout(FAR_SECONDS):
            (first, *_) = await waiting.take("b", [quick, slow], 1.0)
        waiting.leave("b")
        return first.peer

    assert asyncio.run(wait()) == "slow"


def test_when_the_last_has_left_nothing_is_thought_over_any_more() -> None:
    async def leave() -> None:
        thought = 0

        def needs() -> Callable[[str], Need]:
            nonlocal thought
            thought += 1
            return lambda _: Need(1.0, 0.0)

        waiting = Seats(asyncio.get_running_loop().time, needs)
        pair = [peer("quick", 0.01), peer("slow", 9.0)]
        await waiting.take("a", pair, 1.0)
        other = asyncio.create_task(waiting.take("b", pair, 1.0))
        await until_stuck()
        other.cancel()
        waiting.leave("a")
        waiting.leave("b")
        before = thought
        await asyncio.sleep(0.15)  # three times as long as until the next look
        assert thought == before

    asyncio.run(leave())
