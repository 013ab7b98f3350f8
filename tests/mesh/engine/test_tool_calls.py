from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_node.mesh.engine.tool_calls import CallReader
from monai_node.mesh.engine.tools import tool_use
from monai_node.registry.wire import Parameters

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    },
    {"type": "function", "function": {"name": "now"}},
]
OSLO = '{"name": "weather", "arguments": {"city": "Oslo"}}'
NOW = '{"name": "now", "arguments": {}}'


def _reader(**fields: Any) -> CallReader:
    use = tool_use(Parameters.model_validate({"tools": TOOLS, **fields}))
    assert use is not None
    return CallReader(use)


def _read(text: str, piece_chars: int = 3, **fields: Any) -> tuple[str, list[tuple[str, Any]]]:
    """What is shown and what is called when a text comes in pieces."""
    reader = _reader(**fields)
    shown = "".join(reader.feed(text[at : at + piece_chars]) for at in range(0, len(text), piece_chars))
    shown += reader.finish()
    functions = [call["function"] for call in reader.calls]
    return shown, [(each["name"], json.loads(each["arguments"])) for each in functions]


WEATHER: tuple[str, Any] = ("weather", {"city": "Oslo"})
TIME: tuple[str, Any] = ("now", {})


@pytest.mark.parametrize(
    ("text", "shown", "calls"),
    [
        (f"<tool_call>\n{OSLO}\n</tool_call>", "", [WEATHER]),
        (f"I look.\n<tool_call>{OSLO}</tool_call>\n", "I look.\n", [WEATHER]),
        (f"<tool_call>{OSLO}</tool_call>\n<tool_call>{NOW}</tool_call>", "", [WEATHER, TIME]),
        (f"<tool_call>[{OSLO}, {NOW}]</tool_call>", "", [WEATHER, TIME]),
        (f"<tool_call>{OSLO}", "", [WEATHER]),
        (f"<tool_call>{OSLO}</tool_call> Done.", " Done.", [WEATHER]),
        (f"\n{OSLO}\n", "", [WEATHER]),
        (f"[{OSLO}]", "", [WEATHER]),
        ('{"type": "function", "name": "weather", "parameters": {"city": "Oslo"}}', "", [WEATHER]),
        ('{"name": "weather", "arguments": "{\\"city\\": \\"Oslo\\"}"}', "", [WEATHER]),
        ('{"type": "function", "function": ' + OSLO + "}", "", [WEATHER]),
    ],
)
def test_a_call_is_read_in_every_form(text: str, shown: str, calls: list[tuple[str, Any]]) -> None:
    for piece_chars in (1, 3, 1000):
        assert _read(text, piece_chars) == (shown, calls)


@pytest.mark.parametrize(
    "text",
    [
        "It is warm.",
        "  ",
        "a < b <tool_cal",
        '{"answer": 42}',
        "{}",
        "[1] and {so on}",
        '{"name": "rain", "arguments": {}}',
        '{"name": "weather", "arguments": {"city": 7}}',
        '{"name": "weather"}',
        f"{OSLO} is what I would call.",
        "<tool_call>weather(Oslo)</tool_call>",
        f"<tool_call>{OSLO} or so</tool_call> and more",
        '<tool_call>{"name": "weather", "argu',
    ],
)
def test_what_is_no_call_is_text(text: str) -> None:
    for piece_chars in (1, 3, 1000):
        assert _read(text, piece_chars) == (text, [])


def test_while_it_may_become_a_call_nothing_is_shown_and_other_text_is_at_once() -> None:
    assert [_reader().feed(text) for text in ("\n{", OSLO[:-1], "<tool_")] == ["", "", ""]
    reader = _reader()
    assert [reader.feed(text) for text in ("Sure", " {", " <to", "day")] == ["Sure", " {", " ", "<today"]
    other = _reader()
    assert [other.feed(text) for text in ('{"ans', 'wer"', ": 4")] == ["", '{"answer"', ": 4"]


def test_one_call_is_enough_where_several_are_not_wanted() -> None:
    reader = _reader(parallel_tool_calls=False)
    reader.feed(f"<tool_call>{OSLO}</tool_call>")
    assert reader.is_over
    assert reader.feed(f"<tool_call>{NOW}</tool_call>") + reader.finish() == ""
    assert len(reader.calls) == 1
    assert _read(f"[{OSLO}, {NOW}]", parallel_tool_calls=False) == ("", [WEATHER])


def test_a_call_that_must_come_is_held_back_whole() -> None:
    assert _read(OSLO, tool_choice="required") == ("", [WEATHER])
    named = {"type": "function", "function": {"name": "weather"}}
    assert _read('{"city": "Oslo"}', tool_choice=named) == ("", [WEATHER])
    # Cut at its length it is none: what was written is shown for what it is.
    assert _read('{"city": "Os', tool_choice=named) == ('{"city": "Os', [])


def test_every_call_has_an_id_of_its_own() -> None:
    reader = _reader()
    reader.feed(f"<tool_call>{NOW}</tool_call>" * 3)
    ids = {call["id"] for call in reader.calls}
    assert len(ids) == 3
    assert all(name.startswith("call_") for name in ids)


@given(st.lists(st.sampled_from(["<tool_call>", "</tool_call>", OSLO, "{", "[", '"', " ", "a", "\n"])))
def test_no_text_is_lost_and_none_is_made(parts: list[str]) -> None:
    text = "".join(parts)
    reader = _reader()
    shown = "".join(reader.feed(part) for part in parts) + reader.finish()
    if not reader.calls:
        assert shown == text
    else:
        assert len(shown) < len(text)
