"""Events of one run, from many tasks to one reader."""

from __future__ import annotations

import asyncio

from monai_node.agents.feed import Feed
from monai_node.agents.merge import Piece
from monai_node.registry.events import AnswerDelta, PlanTask, TaskText, TaskWasFailed
from monai_node.registry.ids import RunId

RUN = RunId("run-1")


def test_tasks_that_wait_for_a_slow_reader_never_overtake_each_other() -> None:
    async def crowd() -> list[str]:
        feed, taken = Feed(RUN), list[int]()

        def grow() -> list[Piece]:
            taken.append(len(taken))
            return [Piece("t", str(taken[-1]))]

        async def talk() -> None:
            for _ in range(40):
                await feed.say(TaskText(run=RUN, task="t", text="x"), grow)

        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(talk())
            events = [await feed.next()]
            while len(events) < 400:
                events.append(await feed.next())
                for _ in range(len(events) % 3):
                    await asyncio.sleep(0)
        assert [event.seq for event in events] == list(range(400))
        return [event.text for event in events if isinstance(event, AnswerDelta)]

    assert asyncio.run(crowd()) == [str(n) for n in range(200)]


def test_a_put_that_is_cancelled_while_it_waits_leaves_no_gap_and_no_end_untold() -> None:
    async def interrupt() -> None:
        feed = Feed(RUN)
        await feed.say(PlanTask(run=RUN, task="t", text="x", depends_on=[]))
        ended = TaskWasFailed(run=RUN, task="t", code="c", message="m")

        async def fill() -> None:
            while True:
                await feed.say(TaskText(run=RUN, task="t", text="x"))

        filling = asyncio.create_task(fill())
        ending = asyncio.create_task(feed.say(ended))
        done, _ = await asyncio.wait({filling, ending}, timeout=0.05)
        assert not done
        for task in (filling, ending):
            task.cancel()
        await asyncio.wait({filling, ending})
        assert feed.open_tasks == ("t",)
        seqs = [(await feed.next()).seq]
        telling = asyncio.create_task(feed.say(ended))
        while not telling.done():
            seqs.append((await feed.next()).seq)
            await asyncio.sleep(0)
        assert seqs == list(range(len(seqs)))
        assert feed.open_tasks == ()

    asyncio.run(interrupt())


def test_pieces_of_who_is_cancelled_before_there_was_room_for_all_come_before_the_next_event() -> None:
    async def interrupt() -> None:
        feed = Feed(RUN)
        said = TaskText(run=RUN, task="a", text="x")
        for _ in range(62):  # the place that is left is for the event and one piece
            await feed.say(said)
        pieces = [Piece("a", "1"), Piece("", "2"), Piece("b", "3")]
        begun = asyncio.create_task(feed.say(said, lambda: pieces))
        done, _ = await asyncio.wait({begun}, timeout=0.05)
        assert not done
        begun.cancel()
        await asyncio.wait({begun})
        telling = asyncio.create_task(feed.say(TaskWasFailed(run=RUN, task="a", code="c", message="m")))
        events = [await feed.next() for _ in range(67)]
        await telling
        grown = [(event.task, event.text) for event in events if isinstance(event, AnswerDelta)]
        assert grown == [("a", "1"), ("", "2"), ("b", "3")]
        assert isinstance(events[-1], TaskWasFailed)
        assert [event.seq for event in events] == list(range(67))

    asyncio.run(interrupt())
