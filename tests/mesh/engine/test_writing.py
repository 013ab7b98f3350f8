from __future__ import annotations

from typing import Any

from monai_node.mesh.engine.tools import tool_use
from monai_node.mesh.engine.writing import Writing
from monai_node.registry.wire import Parameters

TOOL: dict[str, Any] = {"type": "function", "function": {"name": "now"}}


def _written(pieces: list[bytes], writing: Writing) -> list[tuple[str, str]]:
    """Each event's text, and the names of the tokens that are told with it."""
    events = [writing.take(piece, {"token": str(n)}) for n, piece in enumerate(pieces)]
    told = [event for event in [*events, writing.finish()] if event]
    return [(event["text"], "".join(it["token"] for it in event.get("logprobs", []))) for event in told]


def test_tokens_come_with_their_text() -> None:
    assert _written([b"Hel", b"lo"], Writing()) == [("Hel", "0"), ("lo", "1")]


def test_a_token_within_a_character_waits_for_the_rest_of_it() -> None:
    euro = "€".encode()
    assert _written([b"a", euro[:1], euro[1:]], Writing()) == [("a", "0"), ("€", "12")]
    assert _written([b"a" + euro[:1], euro[1:] + b"b"], Writing()) == [("a", ""), ("€b", "01")]


def test_tokens_of_a_stop_string_are_dropped_with_it() -> None:
    assert _written([b"ab", b"E", b"ND", b"c"], Writing(["END"])) == [("ab", "0")]
    # One that is shown in part is told once that is known.
    assert _written([b"ab", b"cE", b"ND"], Writing(["END"])) == [("ab", "0"), ("c", ""), ("", "1")]
    assert _written([b"ab", b"E", b"x"], Writing(["END"])) == [("ab", "0"), ("Ex", "12")]


def test_the_last_token_is_told_though_its_character_never_came() -> None:
    assert _written([b"a", "€".encode()[:1]], Writing()) == [("a", "0"), ("", "1")]


def test_a_call_takes_its_tokens_along() -> None:
    use = tool_use(Parameters(tools=[TOOL]))
    call = b'<tool_call>{"name": "now"}</tool_call>'
    writing = Writing((), use)
    assert _written([b"Well.", b" ", call], writing) == [("Well.", "0"), (" ", "1")]
    assert len(writing.calls) == 1


def test_where_a_call_must_come_no_stop_string_cuts_it() -> None:
    use = tool_use(Parameters(tools=[TOOL], tool_choice="required"))
    writing = Writing(["name"], use)
    assert _written([b'{"name": "now", ', b'"arguments": {}}'], writing) == []
    assert writing.calls[0]["function"] == {"name": "now", "arguments": "{}"}
