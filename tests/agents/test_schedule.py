"""The ready-set scheduler, without a run around it."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from monai_node.agents.graph import Task, TaskGraph
from monai_node.agents.schedule import Schedule, carry_out


def graph(**depends_on: str) -> TaskGraph:
    """`graph(a="", b="a")`: b depends on a."""
    return TaskGraph(
        tasks=tuple(Task(id=name, text=name, depends_on=list(needs)) for name, needs in depends_on.items())
    )


def test_a_task_starts_as_soon_as_the_last_task_it_depends_on_is_done() -> None:
    schedule = Schedule(graph(a="", b="", c="ab", d="a"))
    assert schedule.start() == ("a", "b")
    schedule.complete("a")
    assert schedule.start() == ("d",)
    schedule.complete("b")
    assert schedule.start() == ("c",)


def test_when_the_width_binds_the_longest_remaining_chain_goes_first_then_plan_order() -> None:
    schedule = Schedule(graph(a="", b="", c="", d="c", e="d"), width=2)
    assert schedule.start() == ("c", "a")
    schedule.complete("c")
    assert schedule.start() == ("d",)
    schedule.complete("a")
    assert schedule.start() == ("b",)


def test_no_task_is_started_twice() -> None:
    schedule = Schedule(graph(a="", b=""))
    assert schedule.start() == ("a", "b")
    assert schedule.start() == ()
    with pytest.raises(ValueError, match="not working"):
        schedule.complete("c")


def test_a_failure_takes_all_that_depends_on_it_at_any_distance_and_tells_each_once() -> None:
    schedule = Schedule(graph(a="", b="", c="a", d="cb", e=""))
    schedule.start()
    assert schedule.fail("a") == ("c", "d")
    assert schedule.fail("b") == ()
    assert not schedule.is_over
    schedule.complete("e")
    assert schedule.is_over
    assert schedule.start() == ()


def test_a_schedule_without_width_is_refused() -> None:
    with pytest.raises(ValueError, match="width 0"):
        Schedule(graph(a=""), width=0)


def test_any_graph_is_done_once_each_in_order_and_within_the_width() -> None:
    for seed in range(40):
        asyncio.run(carry_out_random_graph(Random(seed)))


async def carry_out_random_graph(chance: Random) -> None:
    names = [chr(ord("a") + n) for n in range(chance.randint(1, 20))]
    needs = {
        name: "".join(chance.sample(names[:index], k=min(index, chance.randint(0, 3))))
        for index, name in enumerate(names)
    }
    width = chance.randint(1, 4)
    tasks = graph(**needs)
    schedule = Schedule(tasks, width)
    ended: list[str] = []
    working: set[str] = set()

    async def work(name: str) -> None:
        assert set(tasks.task(name).depends_on) <= set(ended)
        working.add(name)
        assert len(working) <= width
        for _ in range(chance.randint(0, 3)):
            await asyncio.sleep(0)
        working.remove(name)
        ended.append(name)
        schedule.complete(name)

    await carry_out(schedule, work)
    assert sorted(ended) == names
    assert schedule.is_over


def test_what_a_task_raises_ends_the_others_and_leaves_as_itself() -> None:
    ended: list[str] = []

    async def work(name: str) -> None:
        if name == "a":
            raise KeyError(name)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    with pytest.raises(KeyError):
        asyncio.run(carry_out(Schedule(graph(b="", a="")), work))
    assert ended == ["b"]
