from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from textwrap import dedent

import pytest

from monai_node.agents.examples import arithmetic, calendar_dates
from monai_node.mesh.agent_child import after_prefix
from monai_node.mesh.child import ChildDied
from monai_node.mesh.engine.agent import AgentEngine, open_agent_engine
from monai_node.registry.errors import Abstained, InvalidRequest, PeerRefused, SetupError, TaskFailed
from monai_node.registry.wire import TaskCompleted, TaskDelta, TaskInput, TaskRequest

_SECONDS = 20.0

_AGENT = """
import asyncio, os, sys, time
from collections.abc import AsyncIterator
from pathlib import Path
from monai_node.agents import Abstain, Agent, Context

agent = Agent("tricks", "Tricks for tests.")
examples = ["do a trick"]

@agent.skill(examples=examples)
def shout(text: str) -> str:
    "Says it loudly."
    print("this must not disturb anybody")
    sys.stdout.write("nor this")
    os.write(1, b"nor that")
    return text.upper()

@agent.skill(examples=examples)
async def count(text: str) -> AsyncIterator[str]:
    "Counts."
    for number in range(int(text)):
        yield f"{number} "
        await asyncio.sleep(0)

@agent.skill(examples=examples)
async def where(ctx: Context) -> str:
    "Says where and when it is."
    return f"{ctx.now.isoformat()} {ctx.timezone} {ctx.locale} {ctx.remaining_seconds}"

@agent.skill(examples=examples)
def declines(text: str) -> str:
    "Never does anything."
    raise Abstain("I only do\\nnothing")

@agent.skill(examples=examples)
def breaks(text: str) -> str:
    "Breaks."
    raise {"value": ValueError, "exit": SystemExit, "stop": StopIteration}[text]("secret words")

@agent.skill(examples=examples)
def loops(text: str) -> str:
    "Never ends."
    Path(text).write_text(str(os.getpid()))
    while True:
        pass

@agent.skill(examples=examples)
async def waits(text: str) -> str:
    "Waits for ever, politely."
    Path(text).write_text(str(os.getpid()))
    try:
        await asyncio.sleep(3600)
    finally:
        Path(text + ".cancelled").write_text("yes")
    return ""

@agent.skill(examples=examples)
def odd(text: str) -> str:
    "Returns what it must not."
    return {"number": 5, "half": "\\ud800!", "long": "é" * 100_000}[text]

@agent.skill(examples=examples)
def pid(text: str) -> str:
    "Says its process."
    return str(os.getpid())
"""


@pytest.fixture(name="path")
def _path(tmp_path: Path) -> Path:
    return _file(tmp_path, _AGENT)


def _file(folder: Path, source: str) -> Path:
    path = folder / "tricks.py"
    path.write_text(dedent(source))
    return path


def _request(skill: str, text: str, prefix: str = "", **fields: str) -> TaskRequest:
    return TaskRequest(
        run="r",
        task="t",
        attempt="a",
        skill=skill,
        input=TaskInput(text=text),
        remaining_ms=5000,
        prefix=prefix,
        **fields,  # pyright: ignore[reportArgumentType]
    )


async def _result(engine: AgentEngine, skill: str, text: str, prefix: str = "", **fields: str) -> str:
    pieces: list[str] = []
    completed = False
    async with aclosing(engine.submit(_request(skill, text, prefix, **fields))) as events:
        async for event in events:
            assert not completed
            match event:
                case TaskDelta():
                    pieces.append(event.text)
                case TaskCompleted():
                    completed = True
                    assert event.model == skill
    assert completed
    return "".join(pieces)


def test_skills_of_a_file_run_in_a_child_and_prints_disturb_nothing(path: Path) -> None:
    async def main() -> None:
        async with asyncio.timeout(_SECONDS), open_agent_engine(path) as engine:
            ids = [skill.id for skill in engine.card.skills]
            assert ids[:3] == ["tricks.shout", "tricks.count", "tricks.where"]
            assert engine.card.skills[0].description == "Says it loudly."
            assert engine.card.model is None
            assert await _result(engine, "tricks.shout", "hello") == "HELLO"
            assert await _result(engine, "tricks.count", "4") == "0 1 2 3 "
            assert int(await _result(engine, "tricks.pid", "")) not in (os.getpid(), 0)
            told = {"now": "2026-05-04T09:30:00+02:00", "timezone": "Asia/Tokyo", "locale": "ja-JP"}
            said = await _result(engine, "tricks.where", "", **told)
            assert said == "2026-05-04T16:30:00+09:00 Asia/Tokyo ja-JP 5.0"

    asyncio.run(main())


def test_what_a_skill_raises_becomes_an_error_that_names_it_and_tells_nothing_else(path: Path) -> None:
    async def main() -> None:
        async with asyncio.timeout(_SECONDS), open_agent_engine(path) as engine:
            with pytest.raises(Abstained, match=r"^tricks.declines abstains: I only do nothing$"):
                await _result(engine, "tricks.declines", "")
            for kind, name in (("value", "ValueError"), ("exit", "RuntimeError"), ("stop", "RuntimeError")):
                with pytest.raises(TaskFailed) as raised:
                    await _result(engine, "tricks.breaks", kind)
                assert raised.value.message == f"skill tricks.breaks failed ({name})"
            assert any("secret words" in line for line in engine.child.stderr)
            with pytest.raises(TaskFailed, match=r"tricks.odd failed \(TypeError\)"):
                await _result(engine, "tricks.odd", "number")
            with pytest.raises(PeerRefused, match="not served here"):
                await _result(engine, "tricks.unknown", "")
            with pytest.raises(InvalidRequest, match="timezone"):
                await _result(engine, "tricks.where", "", timezone="Mars/Olympus")
            assert await _result(engine, "tricks.odd", "half") == "?!"
            assert await _result(engine, "tricks.odd", "long") == "é" * 100_000

    asyncio.run(main())


def test_a_continuation_goes_on_after_the_prefix_or_fails(path: Path) -> None:
    async def main() -> None:
        async with asyncio.timeout(_SECONDS), open_agent_engine(path) as engine:
            assert await _result(engine, "tricks.count", "4", prefix="0 1") == " 2 3 "
            with pytest.raises(TaskFailed, match="begins otherwise"):
                await _result(engine, "tricks.count", "4", prefix="0 2")

    asyncio.run(main())


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (4,), (2, 2), (3, 1)])
@pytest.mark.parametrize("shown", range(5))
def test_the_prefix_is_cut_wherever_the_pieces_end(sizes: tuple[int, ...], shown: int) -> None:
    async def pieces() -> AsyncIterator[str]:
        start = 0
        for size in sizes:
            yield "abcd"[start : start + size]
            start += size

    async def rest(prefix: str) -> str:
        return "".join([piece async for piece in after_prefix(pieces(), prefix)])

    assert asyncio.run(rest("abcd"[:shown])) == "abcd"[shown:]
    with pytest.raises(TaskFailed, match="shorter"):
        asyncio.run(rest("abcde"))


def test_a_cancelled_endless_loop_costs_its_process_and_the_next_call_gets_a_new_one(
    path: Path, tmp_path: Path
) -> None:
    async def main() -> None:
        async with asyncio.timeout(_SECONDS), open_agent_engine(path) as engine:
            marks = [tmp_path / "loops", tmp_path / "waits"]
            stuck = asyncio.create_task(_result(engine, "tricks.loops", str(marks[0])))
            other = asyncio.create_task(_result(engine, "tricks.waits", str(marks[1])))
            first, _ = await _written(marks[0]), await _written(marks[1])
            started = asyncio.get_running_loop().time()
            stuck.cancel()
            with pytest.raises(asyncio.CancelledError):
                await stuck
            assert asyncio.get_running_loop().time() - started < 0.5  # the caller does not wait
            with pytest.raises(ChildDied, match="did not stop when told to") as lost:
                await other
            assert lost.value.is_retryable
            assert await _result(engine, "tricks.pid", "") != first

    asyncio.run(main())


def test_a_cancelled_coroutine_stops_and_leaves_its_process_alone(path: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with asyncio.timeout(_SECONDS), open_agent_engine(path) as engine:
            mark = tmp_path / "mark"
            waiting = asyncio.create_task(_result(engine, "tricks.waits", str(mark)))
            pid = await _written(mark)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await _written(tmp_path / "mark.cancelled")
            assert await _result(engine, "tricks.pid", "") == pid

    asyncio.run(main())


def test_a_process_that_is_killed_is_started_again(path: Path) -> None:
    async def main() -> None:
        async with asyncio.timeout(_SECONDS), open_agent_engine(path) as engine:
            first = await _result(engine, "tricks.pid", "")
            os.kill(int(first), signal.SIGKILL)
            with pytest.raises(ChildDied):  # until the parent has seen it
                while True:
                    assert await _result(engine, "tricks.pid", "") == first
            assert await _result(engine, "tricks.pid", "") != first

    asyncio.run(main())


async def _written(mark: Path) -> str:
    async with asyncio.timeout(10):
        while not (mark.exists() and mark.read_text()):
            await asyncio.sleep(0.01)
    return mark.read_text()


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("x = 1\nimport no_such_module_at_all", "line 2: ModuleNotFoundError: No module named"),
        ("def f(:\n    pass", "line 1: SyntaxError: invalid syntax"),
        ("def f():\n    return 1 / 0\n\nf()\n", "line 2: ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "line 1: SystemExit: 3"),
        ("x = 1", "defines no skill"),
        (
            'from monai_node.agents import Agent\nagent = Agent("a")\n'
            '@agent.skill(examples=["x"])\ndef f(count: int) -> str:\n    "Does."\n    return ""',
            "tricks.py, line 3): parameter 'count' is int; only `str`",
        ),
    ],
)
def test_a_file_that_cannot_serve_is_refused_in_one_sentence_with_its_line(
    tmp_path: Path, source: str, sentence: str
) -> None:
    async def main() -> None:
        async with asyncio.timeout(_SECONDS), open_agent_engine(_file(tmp_path, source)):
            pytest.fail("it opened")

    with pytest.raises(SetupError) as raised:
        asyncio.run(main())
    assert sentence in raised.value.message
    assert "tricks.py" in raised.value.message
    assert "\n" not in raised.value.message


def test_a_missing_file_is_a_setup_error(tmp_path: Path) -> None:
    async def main() -> None:
        async with open_agent_engine(tmp_path / "nothing.py"):
            pytest.fail("it opened")

    with pytest.raises(SetupError, match="there is no file"):
        asyncio.run(main())


def test_the_example_agents_are_served_from_their_files() -> None:
    async def main() -> None:
        async with asyncio.timeout(_SECONDS):
            async with open_agent_engine(Path(arithmetic.__file__)) as engine:
                assert await _result(engine, "arithmetic", "What is 37 * 49?") == "1813"
                with pytest.raises(Abstained):
                    await _result(engine, "arithmetic", "Tell me a joke")
            async with open_agent_engine(Path(calendar_dates.__file__)) as engine:
                told = {"now": "2026-11-20T23:30:00+00:00", "timezone": "Asia/Tokyo"}
                day = await _result(engine, "calendar", "What day is it today?", **told)
                assert day == "Today is Saturday, 21 November 2026."

    asyncio.run(main())
