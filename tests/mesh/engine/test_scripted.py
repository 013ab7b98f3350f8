from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from monai_node.mesh.engine.base import Engine
from monai_node.mesh.engine.scripted import Breaks, ScriptedEngine
from monai_node.registry.errors import TaskFailed
from monai_node.registry.wire import TaskCompleted, TaskDelta, TaskInput, TaskRequest


def request(text: str = "Hello there", prefix: str = "") -> TaskRequest:
    return TaskRequest(
        run="r",
        task="t",
        attempt="a",
        skill="chat",
        input=TaskInput(text=text),
        remaining_ms=1000,
        prefix=prefix,
    )


async def collect(engine: Engine, asked: TaskRequest) -> tuple[list[str], TaskCompleted | None]:
    pieces: list[str] = []
    completed = None
    async for event in engine.submit(asked):
        if isinstance(event, TaskDelta):
            pieces.append(event.text)
        else:
            completed = event
    return pieces, completed


def test_a_reply_comes_in_pieces_and_is_counted() -> None:
    engine = ScriptedEngine("one two three", piece_chars=5)
    pieces, completed = asyncio.run(collect(engine, request()))
    assert pieces == ["one t", "wo th", "ree"]
    assert completed is not None
    assert (completed.usage.prompt_tokens, completed.usage.completion_tokens) == (2, 3)
    assert completed.model == "scripted"
    assert engine.completed == engine.requests == [request()]


def test_a_list_is_used_in_turn_and_its_last_reply_repeats() -> None:
    async def main() -> list[str]:
        engine = ScriptedEngine(["a", "b"])
        return ["".join((await collect(engine, request()))[0]) for _ in range(3)]

    assert asyncio.run(main()) == ["a", "b", "b"]


def test_a_function_sees_the_request() -> None:
    engine = ScriptedEngine(lambda asked: asked.input.text.upper())
    assert asyncio.run(collect(engine, request("hi")))[0] == ["HI"]


def test_a_reply_goes_on_after_what_was_already_shown() -> None:
    engine = ScriptedEngine("Bees are vital.", piece_chars=99)
    assert asyncio.run(collect(engine, request(prefix="Bees are")))[0] == [" vital."]


def test_a_broken_reply_shows_its_text_and_then_raises() -> None:
    async def main() -> None:
        engine = ScriptedEngine(Breaks(TaskFailed("out of luck"), "some"))
        shown: list[str] = []
        with pytest.raises(TaskFailed, match="out of luck"):
            async for event in engine.submit(request()):
                assert isinstance(event, TaskDelta)
                shown.append(event.text)
        assert shown == ["some"]
        assert engine.completed == engine.cancelled == []

    asyncio.run(main())


def test_a_gate_stops_it_and_closing_is_remembered() -> None:
    async def main() -> None:
        gate = asyncio.Semaphore(1)
        engine = ScriptedEngine("0123456789", piece_chars=4, pause=gate.acquire)
        async with aclosing(engine.submit(request())) as events:
            first = await anext(events)
            assert isinstance(first, TaskDelta)
            assert first.text == "0123"
            waiting = asyncio.ensure_future(anext(events))
            await asyncio.sleep(0)
            assert not waiting.done()
            waiting.cancel()
            await asyncio.wait([waiting])
        assert engine.cancelled == [request()]
        assert engine.completed == []

    asyncio.run(main())


def test_its_card_announces_a_chat_skill_or_what_it_is_given() -> None:
    (skill,) = ScriptedEngine(alias="tiny").card.skills
    assert (skill.id, skill.model) == ("chat", "tiny")
    assert ScriptedEngine(skills=[]).card.skills == ()
