from __future__ import annotations

from typing import Any

import pytest

from monai_node.mesh.engine.tools import in_words, tool_use
from monai_node.registry.errors import InvalidRequest
from monai_node.registry.wire import ChatMessage, Parameters

CITY: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"$ref": "#/$defs/city"}},
    "$defs": {"city": {"type": "string"}},
}
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {"name": "weather", "description": "The weather in a city", "parameters": CITY},
}
NOW: dict[str, Any] = {"type": "function", "function": {"name": "now"}}
NAMED: dict[str, Any] = {"type": "function", "function": {"name": "weather"}}


def _parameters(**fields: Any) -> Parameters:
    return Parameters.model_validate({"tools": [WEATHER, NOW], **fields})


def test_without_tools_or_with_the_choice_none_nothing_is_called() -> None:
    assert tool_use(Parameters()) is None
    assert tool_use(_parameters(tool_choice="none")) is None


def test_the_model_chooses_for_itself_unless_it_must_call() -> None:
    for choice in (None, "auto"):
        use = tool_use(_parameters(tool_choice=choice))
        assert use is not None
        assert [tool.name for tool in use.tools] == ["weather", "now"]
        assert use.schema is None


def test_a_call_that_must_come_is_one_of_the_functions_with_its_own_parameters() -> None:
    use = tool_use(_parameters(tool_choice="required"))
    assert use is not None
    schema = use.schema
    assert schema is not None
    names = [each["properties"]["name"]["const"] for each in schema["anyOf"]]
    assert names == ["weather", "now"]
    # A reference within the parameters still leads to where it led.
    assert schema["$defs"]["f0"]["properties"]["city"] == {"$ref": "#/$defs/f0/$defs/city"}
    assert schema["$defs"]["f1"]["additionalProperties"] is False


def test_a_named_function_s_answer_is_its_arguments_alone() -> None:
    use = tool_use(_parameters(tool_choice=NAMED))
    assert use is not None
    assert (use.choice, use.schema) == ("named", CITY)


@pytest.mark.parametrize("choice", ["sometimes", {"type": "function", "function": {"name": "rain"}}])
def test_a_choice_that_is_none_is_the_caller_s_error(choice: Any) -> None:
    with pytest.raises(InvalidRequest):
        tool_use(_parameters(tool_choice=choice))


def test_tools_in_words_stand_in_the_system_s_turn() -> None:
    use = tool_use(_parameters())
    asked = ChatMessage(role="user", content="Is it warm?")
    alone = in_words([asked], use)
    assert [turn.role for turn in alone] == ["system", "user"]
    assert '"name": "weather"' in alone[0].content
    beside = in_words([ChatMessage(role="developer", content="Be brief."), asked], use)
    assert beside[0].role == "developer"
    assert beside[0].content == f"Be brief.\n\n{alone[0].content}"


def test_a_call_and_its_result_in_words_are_turns_like_any_other() -> None:
    function = {"name": "weather", "arguments": '{"city": "Łódź"}'}
    call = {"id": "call_1", "type": "function", "function": function}
    called = ChatMessage(role="assistant", content="I look.", extra={"tool_calls": [call]})
    result = ChatMessage(role="tool", content="warm", extra={"tool_call_id": "call_1"})
    told = '{"name": "weather", "arguments": {"city": "Łódź"}}'
    assert in_words([called, result], None) == [
        ChatMessage(role="assistant", content=f"I look.\n<tool_call>\n{told}\n</tool_call>"),
        ChatMessage(role="user", content="<tool_response>\nwarm\n</tool_response>"),
    ]
