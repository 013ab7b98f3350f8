from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

import monai_node.agents
from monai_node.agents import Abstain, Agent, Context
from monai_node.agents.context import context_of
from monai_node.agents.testing import ask, context, turns
from monai_node.registry.errors import InvalidRequest, SetupError
from monai_node.registry.wire import Artifact, ChatMessage, TaskInput, TaskRequest


def test_a_typed_function_becomes_a_skill() -> None:
    agent = Agent("dice")

    @agent.skill(examples=["Roll  two dice"], tags=["game"])
    def roll(text: str, ctx: Context) -> str:
        """Rolls dice
        and says what they show."""
        return f"{text} at {ctx.now.hour}"

    [skill] = agent.skills
    assert skill.card.id == "dice.roll"
    assert skill.card.name == "roll"
    assert skill.card.description == "Rolls dice and says what they show."
    assert skill.card.examples == ["Roll two dice"]
    assert skill.card.tags == ["game"]
    assert roll("x", context("2026-01-01T05:00")) == "x at 5"  # the function is left as it was
    assert ask(agent, "six", context=context("2026-01-01T07:00")) == "six at 7"


def test_a_function_named_like_its_agent_has_the_agents_name_as_id() -> None:
    agent = Agent("dice", "Rolls dice.")

    @agent.skill(examples=["roll"], name="Dice", description="Rolls them.")
    def dice() -> str:
        return "six"

    assert (agent.skills[0].card.id, agent.skills[0].card.name) == ("dice", "Dice")
    assert agent.skills[0].card.description == "Rolls them."
    assert dice() == ask(agent, "") == "six"


def test_coroutines_and_streams_are_skills_too() -> None:
    agent = Agent("many", "Says things.")

    @agent.skill(examples=["a"])
    async def waits(text: str) -> str:
        await asyncio.sleep(0)
        return text

    @agent.skill(examples=["b"])
    async def streams(text: str, ctx: Context | None = None) -> AsyncIterator[str]:
        assert ctx is not None
        for character in text:
            yield character

    assert [skill.kind for skill in agent.skills] == ["async", "stream"]
    assert asyncio.run(waits("w")) == "w"
    assert streams.__name__ == "streams"
    assert ask(agent, "abc", skill="many.waits") == "abc"
    assert ask(agent, "abc", skill="many.streams") == "abc"
    with pytest.raises(LookupError, match=r"many.waits, many.streams"):
        ask(agent, "abc")


def test_a_sync_skill_runs_in_a_thread_and_closing_waits_for_it() -> None:
    agent = Agent("slow", "Is slow.")
    entered, leave, left = threading.Event(), threading.Event(), threading.Event()

    @agent.skill(examples=["x"])
    def slow(text: str) -> str:
        entered.set()
        leave.wait(10)
        left.set()
        return text

    async def main() -> None:
        pieces = agent.skills[0].run("x", context())
        waiting = asyncio.ensure_future(anext(pieces))
        await asyncio.to_thread(entered.wait, 10)
        waiting.cancel()
        await asyncio.sleep(0)
        assert not waiting.done()
        leave.set()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert left.is_set()

    asyncio.run(main())
    assert slow("y") == "y"


@pytest.mark.parametrize("error", [ValueError("no"), Abstain("not mine")])
def test_what_a_skill_raises_reaches_the_caller(error: Exception) -> None:
    agent = Agent("broken", "Breaks.")

    @agent.skill(examples=["x"])
    def broken(text: str) -> str:
        raise error

    with pytest.raises(type(error), match=str(error)):
        ask(agent, "x")
    assert broken.__name__ == "broken"


@pytest.mark.parametrize("error", [StopIteration, SystemExit, KeyboardInterrupt])
def test_what_no_future_can_carry_becomes_a_runtime_error(error: type[BaseException]) -> None:
    agent = Agent("broken", "Breaks.")

    @agent.skill(examples=["x"])
    def broken(text: str) -> str:
        raise error

    with pytest.raises(RuntimeError, match=error.__name__):
        ask(agent, "x")
    assert broken.__name__ == "broken"


def test_a_result_that_is_not_text_is_a_type_error() -> None:
    agent = Agent("odd", "Is odd.")

    @agent.skill(examples=["x"])
    def odd(text: str) -> str:
        return 5  # pyright: ignore[reportReturnType]

    with pytest.raises(TypeError, match="returned int where str was declared"):
        ask(agent, "x")
    assert odd.__name__ == "odd"


def _number(text: str, count: int) -> str:
    """Docs."""
    return text * count


def _untyped(text):  # pyright: ignore
    """Docs."""
    return text  # pyright: ignore


def _two_texts(text: str, other: str) -> str:
    """Docs."""
    return text + other


def _star(*texts: str) -> str:
    """Docs."""
    return "".join(texts)


def _no_return(text: str):  # pyright: ignore
    """Docs."""
    return text


def _returns_int(text: str) -> int:
    """Docs."""
    return len(text)


def _unknown(text: Missing) -> str:  # type: ignore  # noqa: F821  # pyright: ignore
    """Docs."""
    return ""


def _undocumented(text: str) -> str:
    return text


_REFUSED: list[tuple[Callable[..., Any], str]] = [
    (_number, "parameter 'count' is int; only `str` (the task's text) and `Context` are supported"),
    (_untyped, "parameter 'text' has no type; write `text: str`"),
    (_two_texts, "parameter 'other' is a second str"),
    (_star, "must be a plain parameter"),
    (_no_return, "must be declared to return `str`"),
    (_returns_int, "must be declared to return `str`"),
    (_unknown, "annotations cannot be read (name 'Missing' is not defined)"),
    (_undocumented, "say what it does in a docstring"),
]


@pytest.mark.parametrize(("function", "sentence"), _REFUSED)
def test_a_signature_that_cannot_be_served_is_refused_with_a_remedy(
    function: Callable[..., Any], sentence: str
) -> None:
    with pytest.raises(SetupError) as raised:
        Agent("a").skill(examples=["x"])(function)
    assert sentence in raised.value.message
    assert f"skill '{function.__name__}'" in raised.value.message
    assert f"line {function.__code__.co_firstlineno})" in raised.value.message


@pytest.mark.parametrize(
    ("examples", "sentence"),
    [
        ("one text", "must be a list of texts"),
        ([], "give examples"),
        (["  "], "none of them empty"),
        ([5], "none of them empty"),
        (["x"] * 17, "17 examples; keep the 16"),
        (["x" * 2001], "examples.0: String should have at most 2000 characters"),
    ],
)
def test_examples_are_checked_at_import(examples: list[str], sentence: str) -> None:
    with pytest.raises(SetupError) as raised:
        Agent("a", "Docs.").skill(examples=examples)(_undocumented)
    assert sentence in raised.value.message


def test_names_are_checked_at_import() -> None:
    for name in ("", "two words", "5th", "a" * 64, "a/b"):
        with pytest.raises(SetupError, match="agent name"):
            Agent(name)
    agent = Agent("a", "Docs.")
    agent.skill(examples=["x"])(_undocumented)
    with pytest.raises(SetupError, match=r"already; rename one"):
        agent.skill(examples=["x"])(_undocumented)


# --- context ----------------------------------------------------------------------------------------
_NODE = datetime(2026, 11, 20, 12, 0, tzinfo=ZoneInfo("America/New_York"))


def _context(given: TaskInput | None = None, **fields: str) -> Context:
    request = TaskRequest(
        run="r",
        task="t",
        attempt="a",
        skill="s",
        input=given or TaskInput(text="x"),
        remaining_ms=1500,
        **fields,  # pyright: ignore[reportArgumentType]
    )
    return context_of(request, lambda: _NODE)


def test_time_is_the_callers_and_else_the_nodes() -> None:
    ctx = _context()
    assert (ctx.now, ctx.timezone, ctx.remaining_seconds) == (_NODE, _NODE.tzinfo, 1.5)
    ctx = _context(now="2026-11-20T23:30:00Z", timezone="Asia/Tokyo", locale="ja-JP")
    assert ctx.now.isoformat() == "2026-11-21T08:30:00+09:00"
    assert ctx.timezone == ZoneInfo("Asia/Tokyo")
    assert ctx.locale == "ja-JP"
    ctx = _context(now="2026-11-20T23:30:00+05:30")  # the day of the caller, zone unnamed
    assert ctx.now.day == 20
    assert ctx.timezone.utcoffset(None) == timedelta(hours=5, minutes=30)
    assert _context(timezone="Asia/Tokyo").now == _NODE.astimezone(ZoneInfo("Asia/Tokyo"))


@pytest.mark.parametrize("now", ["yesterday", "2026-11-20T23:30:00", "2026-11-20", "9" * 40])
def test_a_now_without_meaning_is_refused(now: str) -> None:
    with pytest.raises(InvalidRequest, match="ISO 8601"):
        _context(now=now)


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../../etc/passwd", "America", "\0", "x" * 64])
def test_a_zone_without_meaning_is_refused(zone: str) -> None:
    with pytest.raises(InvalidRequest, match="timezone"):
        _context(timezone=zone)


def test_the_tasks_own_text_is_no_earlier_turn() -> None:
    said = list(turns("first", "answer", "second"))
    assert _context(TaskInput(text="second", turns=said, is_conversation=True)).turns == tuple(said[:2])
    assert _context(TaskInput(text="second", turns=said[:2])).turns == tuple(said[:2])
    lone = [ChatMessage(role="assistant", content="hello")]
    assert _context(TaskInput(text="", turns=lone, is_conversation=True)).turns == tuple(lone)
    artifact = Artifact(task="t1", text="1813")
    assert _context(TaskInput(text="x", artifacts=[artifact])).artifacts == (artifact,)


def test_the_testing_context_is_aware() -> None:
    assert context("2026-03-01T08:00", timezone="Europe/Paris").now.isoformat() == "2026-03-01T08:00:00+01:00"
    assert context("2026-03-01T08:00+00:00", timezone="Europe/Paris").now.hour == 9
    assert abs(context().now - datetime.now(UTC)) < timedelta(minutes=1)


# --- the public surface -----------------------------------------------------------------------------
def test_the_public_names_are_sorted_and_all_there() -> None:
    names = monai_node.agents.__all__
    assert names == sorted(names)
    assert all(getattr(monai_node.agents, name).__name__ == name for name in names)
    with pytest.raises(AttributeError, match="nothing_of_the_sort"):
        getattr(monai_node.agents, "nothing_of_the_sort")  # noqa: B009


def test_importing_the_sdk_loads_nothing_heavy() -> None:
    heavy = "fastapi langgraph torch libp2p httpx numpy llama_cpp trio sentence_transformers"
    code = (
        "import sys, monai_node.agents as a; light = 'pydantic' not in sys.modules; a.Agent, a.Context;"
        f"print(light, [m for m in {heavy!r}.split() if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "True []"
