"""The ready-set scheduler, without a run around it."""

from __future__ import annotations

import asyncio
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_node.agents.graph import Task, TaskGraph
from monai_node.agents.schedule import DEADLINE_SHARE_MIN, Schedule, carry_out, guessed_seconds
from monai_node.registry.ids import PeerId
from monai_node.router.rank import Candidate
from monai_node.router.seating import Seating


def graph(**depends_on: str) -> TaskGraph:
    """`graph(a="", b="a")`: b depends on a."""
    return TaskGraph(
        tasks=tuple(Task(id=name, text=name, depends_on=list(needs)) for name, needs in depends_on.items())
    )


def expecting(tasks: TaskGraph, **seconds: float) -> Schedule:
    schedule = Schedule(tasks)
    for task in tasks.tasks:
        schedule.expect(task.id, seconds.get(task.id, 1.0))
    return schedule


@st.composite
def graphs(draw: st.DrawFn) -> TaskGraph:
    names = [chr(ord("a") + n) for n in range(draw(st.integers(1, 12)))]
    needs = {
        name: "".join(sorted(draw(st.sets(st.sampled_from(names[:at]), max_size=3)))) if at else ""
        for at, name in enumerate(names)
    }
    return graph(**needs)


def test_a_task_starts_as_soon_as_the_last_task_it_depends_on_is_done() -> None:
    schedule = Schedule(graph(a="", b="", c="ab", d="a"))
    assert schedule.start() == ("a", "b")
    schedule.complete("a")
    assert schedule.start() == ("d",)
    schedule.complete("b")
    assert schedule.start() == ("c",)


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


def test_what_waits_is_named_after_what_it_depends_on_until_it_starts_or_cannot() -> None:
    schedule = Schedule(graph(c="b", b="a", a="", d=""))
    assert schedule.waiting == ("a", "d", "b", "c")
    schedule.start()
    assert schedule.waiting == ("b", "c")
    schedule.fail("a")
    assert schedule.waiting == ()


# --- what hangs on a task -------------------------------------------------------------------------------
def test_a_path_counts_the_seconds_of_the_longest_chain_and_slack_what_is_left_beside_it() -> None:
    schedule = expecting(graph(a="", b="", c="a", d="cb"), a=2.0, b=1.0, c=3.0, d=1.0)
    schedule.start()
    assert schedule.needs(0.0)["a"].path_seconds == 6.0
    assert schedule.needs(0.0)["a"].slack_seconds == 0.0
    assert (schedule.needs(0.0)["b"].path_seconds, schedule.needs(0.0)["b"].slack_seconds) == (2.0, 4.0)
    assert schedule.needs(0.0)["c"].slack_seconds == 0.0


def test_time_that_has_passed_is_taken_off_what_works_and_nothing_is_expected_below_zero() -> None:
    schedule = expecting(graph(a="", b="", c="a"), a=2.0, b=4.0, c=1.0)
    for name in schedule.start():
        schedule.begin(name, 0.0)
    assert schedule.needs(1.0)["a"].path_seconds == 2.0
    assert schedule.needs(5.0)["a"].path_seconds == 1.0
    assert schedule.needs(5.0)["b"].slack_seconds == 1.0


def test_a_task_that_waits_for_a_peer_keeps_what_hangs_on_it_however_long_it_waits() -> None:
    schedule = expecting(graph(a="", b="", c="a"), a=2.0, b=4.0, c=1.0)
    schedule.start()
    schedule.begin("b", 1.0)
    needs = schedule.needs(3.0)
    assert (needs["a"].path_seconds, needs["b"].path_seconds) == (3.0, 2.0)
    schedule.begin("b", 3.0)  # the second of its items
    assert schedule.needs(3.0) == needs


def test_long_texts_are_guessed_to_take_longer_until_something_is_expected() -> None:
    short, long = Task(id="a", text="x"), Task(id="b", text="x" * 100_000)
    assert guessed_seconds(short) < guessed_seconds(long)
    schedule = Schedule(TaskGraph(tasks=(short, long)))
    assert schedule.needs(0.0)["b"].path_seconds == guessed_seconds(long)


@settings(max_examples=50)
@given(graphs(), st.randoms(use_true_random=False))
def test_no_slack_is_negative_and_some_task_always_has_none(tasks: TaskGraph, chance: Random) -> None:
    schedule, now = Schedule(tasks), 0.0
    for task in tasks.tasks:
        schedule.expect(task.id, chance.uniform(0.0, 5.0))
    working: list[str] = []
    left = {task.id for task in tasks.tasks}
    while left:
        for name in schedule.start():
            schedule.begin(name, now)
            working.append(name)
        needs = schedule.needs(now)
        assert needs.keys() == left
        assert min(need.slack_seconds for need in needs.values()) == 0.0
        on_longest = max(working, key=lambda name: needs[name].path_seconds)
        assert needs[on_longest].slack_seconds < 1e-9
        now += chance.uniform(0.0, 3.0)
        schedule.complete(ended := working.pop(chance.randrange(len(working))))
        left.discard(ended)


# --- deadlines ------------------------------------------------------------------------------------------
def test_a_task_that_others_wait_for_must_be_done_while_there_is_time_for_them() -> None:
    schedule = expecting(graph(a="", b="a", c="b", d=""), b=2.0, c=3.0)
    assert schedule.deadline("a", 0.0, 20.0) == 15.0
    assert schedule.deadline("b", 0.0, 20.0) == 17.0
    assert schedule.deadline("c", 0.0, 20.0) == schedule.deadline("d", 0.0, 20.0) == 20.0


def test_however_much_is_expected_behind_it_a_task_has_its_share_of_the_time_left() -> None:
    schedule = expecting(graph(a="", b="a"), b=1000.0)
    assert schedule.deadline("a", 10.0, 20.0) == 10.0 + DEADLINE_SHARE_MIN * 10.0
    assert schedule.deadline("a", 20.0, 20.0) == 20.0


# --- carried out ----------------------------------------------------------------------------------------
def candidate(peer: str, seconds: float, slots: int) -> Candidate:
    return Candidate(PeerId(peer), peer, "chat", "m", True, 1.0, (), seconds=seconds, slots=slots)


@settings(max_examples=50)
@given(graphs(), st.integers(1, 4), st.lists(st.integers(1, 3), min_size=1, max_size=3), st.randoms())
def test_any_graph_ends_with_every_task_after_its_needs_and_within_all_widths(
    tasks: TaskGraph, width: int, slots: list[int], chance: Random
) -> None:
    peers = [candidate(f"p{at}", chance.uniform(0.1, 2.0), count) for at, count in enumerate(slots)]
    schedule, seating = Schedule(tasks), Seating(width)
    now, working, done = 0.0, dict[str, str](), set[str]()
    while not schedule.is_over:
        for name in schedule.start():
            seating.wait(name, peers, 1.0, now)
        for seated in seating.assign(now, schedule.needs(now).__getitem__):
            assert set(tasks.task(seated.key).depends_on) <= done
            working[seated.key] = seated.candidates[0].peer
            schedule.begin(seated.key, now)
        assert 0 < len(working) <= width
        for peer in peers:
            assert list(working.values()).count(peer.peer) <= peer.slots
        now += chance.uniform(0.0, 2.0)
        ended = chance.choice(sorted(working))
        del working[ended]
        seating.leave(ended, now)
        schedule.complete(ended)
        done.add(ended)
    assert done == {task.id for task in tasks.tasks}


def ignore(_: tuple[str, ...]) -> None: ...


async def carry_out_random_graph(tasks: TaskGraph, chance: Random) -> None:
    schedule = Schedule(tasks)
    ended: list[str] = []
    followed: list[tuple[str, ...]] = []

    async def work(name: str) -> None:
        assert set(tasks.task(name).depends_on) <= set(ended)
        for _ in range(chance.randint(0, 3)):
            await asyncio.sleep(0)
        ended.append(name)
        schedule.complete(name)

    await carry_out(schedule, work, followed.append)
    assert sorted(ended) == sorted(task.id for task in tasks.tasks)
    assert schedule.is_over
    assert len(followed) == 1 + len(ended)
    assert sorted(name for names in followed for name in names) == sorted(ended)


@settings(max_examples=50)
@given(graphs(), st.randoms())
def test_any_graph_is_carried_out_once_each_and_who_follows_is_told(tasks: TaskGraph, chance: Random) -> None:
    asyncio.run(carry_out_random_graph(tasks, chance))


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
        asyncio.run(carry_out(Schedule(graph(b="", a="")), work, ignore))
    assert ended == ["b"]
