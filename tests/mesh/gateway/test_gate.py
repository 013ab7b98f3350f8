from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from monai_node.mesh.gateway.errors import Draining, TooManyRuns, error_headers
from monai_node.mesh.gateway.gate import RunGate

LONG = 60.0


class _Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class _Users:
    """Users of one gate, by name: each holds its place until it is told to leave."""

    def __init__(self, gate: RunGate) -> None:
        self._gate = gate
        self.entered: list[str] = []
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._leave: dict[str, asyncio.Event] = {}

    async def ask(self, name: str, key: str = "") -> asyncio.Task[None]:
        """Returns when the user has its place, waits for one, or was turned away."""
        self._leave[name] = asyncio.Event()
        self._tasks[name] = asyncio.create_task(self._use(name, key))
        await settle()
        return self._tasks[name]

    def release(self, name: str) -> None:
        self._leave[name].set()

    async def end(self, name: str) -> None:
        self.release(name)
        await self._tasks[name]
        await settle()

    async def go_away(self, name: str) -> None:
        self._tasks[name].cancel()
        await asyncio.wait({self._tasks[name]})
        await settle()

    async def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _use(self, name: str, key: str) -> None:
        async with self._gate.admit(key):
            self.entered.append(name)
            await self._leave[name].wait()


async def settle() -> None:
    """Everything that can happen by now has happened."""
    for _ in range(5):
        await asyncio.sleep(0)


@asynccontextmanager
async def _users(gate: RunGate) -> AsyncGenerator[_Users]:
    users = _Users(gate)
    try:
        yield users
    finally:
        await users.close()
        assert (gate.running_count, gate.waiting_count) == (0, 0)


def _run(work: Coroutine[Any, Any, None]) -> None:
    async def within() -> None:
        async with asyncio.timeout(10):
            await work

    asyncio.run(within())


def test_who_finds_no_place_waits_and_enters_in_order() -> None:
    async def main() -> None:
        gate = RunGate(1, 8, LONG)
        async with _users(gate) as users:
            for name in "abc":
                await users.ask(name)
            assert users.entered == ["a"]
            assert (gate.running_count, gate.waiting_count) == (1, 2)
            await users.end("a")
            await users.end("b")
            assert users.entered == ["a", "b", "c"]

    _run(main())


def test_a_free_place_goes_to_the_caller_who_has_the_fewest() -> None:
    async def main() -> None:
        async with _users(RunGate(2, 8, LONG)) as users:
            for name in ("a1", "a2", "a3", "a4"):
                await users.ask(name, key="a")
            for name in ("b1", "b2"):
                await users.ask(name, key="b")
            await users.end("a1")
            assert users.entered[2:] == ["b1"]  # before a3, who came first
            await users.end("a2")
            assert users.entered[3:] == ["a3"]  # a has none now, b one
            await users.end("a3")
            await users.end("a4")
            assert users.entered[4:] == ["a4", "b2"]

    _run(main())


def test_beyond_the_line_a_request_is_told_its_position_and_when_to_come_back() -> None:
    async def main() -> None:
        clock = _Clock()
        gate = RunGate(2, 1, LONG, clock)
        async with _users(gate) as users:
            for _ in range(60):  # until the average is theirs
                async with gate.admit():
                    clock.now += 8.0
            for name in "abc":
                await users.ask(name)
            with pytest.raises(TooManyRuns) as refused:
                await (await users.ask("d"))
        assert "2 requests are in flight here" in refused.value.message
        assert "number 2 of those that wait; try again in 8 s" in refused.value.message
        headers = error_headers(refused.value)
        assert headers["x-queue-position"] == "2"
        assert headers["retry-after"] == "8"

    _run(main())


def test_who_waited_long_enough_is_told_where_it_stood() -> None:
    async def main() -> None:
        gate = RunGate(1, 8, 0.02)
        async with _users(gate) as users:
            await users.ask("a")
            with pytest.raises(TooManyRuns) as refused:
                await (await users.ask("b"))
            assert refused.value.position == 1
            assert gate.waiting_count == 0

    _run(main())


def test_whose_time_is_over_just_as_a_place_is_free_is_turned_away_and_the_place_is_kept() -> None:
    async def main() -> None:
        gate = RunGate(1, 8, 0.02)
        async with _users(gate) as users:
            await users.ask("a")
            late = [await users.ask(name) for name in "bc"]
            asyncio.get_running_loop().call_later(0.01, users.release, "a")
            time.sleep(0.05)  # all of this is due in one turn of the loop
            for each in late:
                with pytest.raises(TooManyRuns) as refused:
                    await each
                assert refused.value.position == 1
            await users.ask("d")
            assert users.entered == ["a", "d"]

    _run(main())


def test_a_waiting_client_that_leaves_frees_its_place_at_once() -> None:
    async def main() -> None:
        gate = RunGate(1, 2, LONG)
        async with _users(gate) as users:
            for name in "abc":
                await users.ask(name)
            await users.go_away("b")
            assert gate.waiting_count == 1
            await users.ask("d")
            await users.end("a")
            await users.end("c")
            assert users.entered == ["a", "c", "d"]

    _run(main())


def test_who_leaves_as_its_place_is_given_passes_it_on() -> None:
    async def main() -> None:
        gate = RunGate(1, 8, LONG)
        async with _users(gate) as users:
            async with gate.admit():
                leaving = await users.ask("b")
                await users.ask("c")
            assert gate.waiting_count == 1  # the place is b's, who has not run since
            leaving.cancel()
            await settle()
            assert users.entered == ["c"]

    _run(main())


def test_in_a_full_line_whoever_has_many_makes_room_for_whoever_has_few() -> None:
    async def main() -> None:
        async with _users(RunGate(1, 3, LONG)) as users:
            greedy = [await users.ask(name, key="a") for name in ("a1", "a2", "a3", "a4")]
            await users.ask("b1", key="b")
            with pytest.raises(TooManyRuns):
                await greedy[-1]
            refused = await users.ask("b2", key="b")  # 2 and 1: nobody has many
            with pytest.raises(TooManyRuns):
                await refused
            await users.end("a1")
            await users.end("a2")
            assert users.entered == ["a1", "a2", "b1"]

    _run(main())


def test_without_a_line_nobody_waits() -> None:
    async def main() -> None:
        gate = RunGate(1)
        async with gate.admit():
            with pytest.raises(TooManyRuns, match="number 1 of those that wait"):
                async with gate.admit():
                    pass
        assert gate.running_count == 0

    _run(main())


# --- before the end ---------------------------------------------------------------------------------
def test_a_closed_gate_admits_nobody_new_and_is_idle_when_the_last_has_gone() -> None:
    async def main() -> None:
        gate = RunGate(1, 8, LONG)
        async with _users(gate) as users:
            await users.ask("a")
            await users.ask("b")
            gate.close()
            turned_away = await users.ask("c")
            error = turned_away.exception()
            assert isinstance(error, Draining)
            assert int(error_headers(error)["retry-after"]) > 0
            idle = asyncio.create_task(gate.until_idle())
            await users.end("a")
            assert users.entered == ["a", "b"], "who waited before keeps its place"
            assert not idle.done()
            await users.end("b")
            async with asyncio.timeout(5):
                await idle

    _run(main())


def test_how_long_each_waited_is_told() -> None:
    async def main() -> None:
        clock, waits = _Clock(), list[float]()
        gate = RunGate(1, 8, LONG, clock, waits.append)
        async with _users(gate) as users:
            await users.ask("a")
            await users.ask("b")
            clock.now += 3
            await users.end("a")
            assert waits == [0, 3]

    _run(main())
