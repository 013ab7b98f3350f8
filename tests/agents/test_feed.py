"""Events of one run, from many tasks to one reader."""

from __future__ import annotations

import asyncio

from monai_node.agents.feed import Feed
from monai_node.registry.events import AnswerDelta, PlanTask, TaskText, TaskWasFailed
from monai_node.registry.ids import RunId

RUN = RunId("run-1")


def test_tasks_that_wait_for_a_slow_reader_never_overtake_each_other() -> None:
    async def crowd() -> list[str]:
        feed, taken = Feed(RUN), list[int]()

        def grow() -> str:
            taken.append(len(taken))
            return str(taken[-1])

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
