from __future__ import annotations

import json
from typing import Any

import pytest

from monai_node.mesh.gateway.responses.body import ResponseCall, response_call
from monai_node.mesh.gateway.responses.items import ItemObject
from monai_node.mesh.gateway.responses.store import OwnResponses, ResponseStore
from monai_node.registry.errors import CallerError, InvalidRequest, NotFound, Unsupported
from monai_node.registry.ids import RunId
from monai_node.registry.wire import MESSAGES_MAX, TEXT_CHARS_MAX

RUN = RunId("run-abc")
CALL: ItemObject = {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"}
OUTPUT: ItemObject = {"type": "function_call_output", "call_id": "c1", "output": "cold"}
TOOL: ItemObject = {"type": "function", "name": "weather", "parameters": {"type": "object"}}


def _read(own: OwnResponses | None = None, **body: Any) -> ResponseCall:
    own = own or ResponseStore(lambda: 0.0).of("")
    return response_call(json.dumps(body).encode(), RUN, own)


def _refused(**body: Any) -> CallerError:
    with pytest.raises(CallerError) as caught:
        _read(**body)
    return caught.value


def _said(call: ResponseCall) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in call.request.messages]


# --- items ------------------------------------------------------------------------------------------
def test_messages_of_every_role_and_form_become_the_conversation() -> None:
    call = _read(
        input=[
            {"role": "developer", "content": "be brief"},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]},
            {
                "role": "assistant",
                "content": [{"type": "output_text", "text": "a"}, {"type": "refusal", "refusal": "b"}],
            },
            {"type": "reasoning", "id": "rs_1", "summary": []},
            {"role": "user", "content": "go on"},
        ],
        instructions="be kind",
    )
    assert _said(call) == [
        ("system", "be kind"),
        ("developer", "be brief"),
        ("user", "hi"),
        ("assistant", "a\nb"),
        ("user", "go on"),
    ]
    assert len({item["id"] for item in call.given}) == 4


def test_calls_stand_in_the_assistants_message_before_them_and_outputs_answer_them() -> None:
    second = {**CALL, "call_id": "c2"}
    answered = {**OUTPUT, "call_id": "c2", "output": [{"type": "input_text", "text": "warm"}]}
    call = _read(input=[{"role": "user", "content": "?"}, CALL, second, OUTPUT, answered])
    _, assistant, one, two = call.request.messages
    assert [each["id"] for each in assistant.extra["tool_calls"]] == ["c1", "c2"]
    assert [(one.content, one.extra), (two.content, two.extra)] == [
        ("cold", {"tool_call_id": "c1"}),
        ("warm", {"tool_call_id": "c2"}),
    ]


def test_an_output_without_its_call_is_refused() -> None:
    assert "'c1'" in _refused(input=[OUTPUT]).message


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({"role": "user"}, "input.0.content"),
        ({"type": "message", "content": "x"}, "input.0.role"),
        ({"role": "king", "content": "x"}, "input.0.role"),
        ({**CALL, "name": None}, "input.0.name"),
        ({"type": "function_call_output", "output": "x"}, "input.0.call_id"),
        ({"type": "item_reference", "id": "msg_0"}, "input.0.id"),
        ({"role": "user", "content": [{"type": "input_text"}]}, "input.0.content.0.text"),
    ],
)
def test_a_wrong_item_is_named(item: ItemObject, param: str) -> None:
    error = _refused(input=[item])
    assert isinstance(error, InvalidRequest)
    assert error.param == param


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input.0.content.0"),
        ({"input": [{"type": "computer_call", "id": "x"}]}, "input.0"),
        ({"input": "x", "tools": [{"type": "web_search"}]}, "tools.0"),
        ({"input": "x", "tool_choice": {"type": "web_search"}}, "tool_choice"),
        ({"input": "x", "conversation": "conv_1"}, "conversation"),
        ({"input": "x", "prompt": {"id": "pmpt_1"}}, "prompt"),
    ],
)
def test_what_nobody_here_can_do_is_unsupported_and_named(body: dict[str, Any], param: str) -> None:
    error = _refused(**body)
    assert isinstance(error, Unsupported)
    assert error.param == param


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": []}, "input"),
        ({"input": "x", "temperature": 3}, "temperature"),
        ({"input": "x", "max_output_tokens": 0}, "max_output_tokens"),
        ({"input": "x", "metadata": {"a": 1}}, "metadata.a"),
        ({"input": "x", "metadata": {f"k{n}": "v" for n in range(17)}}, "metadata"),
        ({"input": "x", "text": {"format": {"type": "json_schema", "name": "a"}}}, "text.format.schema"),
        ({"input": "x", "text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name"),
        ({"input": "x", "tools": [{"type": "function"}]}, "tools.0.name"),
        ({"input": "x", "tool_choice": "required"}, "tool_choice"),
        ({"input": "x", "tool_choice": "never"}, "tool_choice"),
        ({"input": "x", "tools": [TOOL], "tool_choice": {"type": "function", "name": "x"}}, "tool_choice"),
        ({"input": "x", "background": True, "store": False}, "background"),
        ({"input": "x", "mesh": {"privcay": "local"}}, "mesh.privcay"),
    ],
)
def test_a_wrong_field_is_named(body: dict[str, Any], param: str) -> None:
    error = _refused(**body)
    assert isinstance(error, InvalidRequest)
    assert error.param == param


# --- parameters and what is shown of them -----------------------------------------------------------
def test_tools_and_a_choice_become_those_of_chat() -> None:
    tool = {**TOOL, "strict": True}
    call = _read(input="x", tools=[tool], tool_choice={"type": "function", "name": "weather"})
    parameters = call.request.parameters
    function = {"name": "weather", "parameters": {"type": "object"}, "strict": True}
    assert parameters.tools == [{"type": "function", "function": function}]
    assert parameters.tool_choice == {"type": "function", "function": {"name": "weather"}}
    assert parameters.parallel_tool_calls is None
    assert call.shown["tools"] == [{**tool, "description": None}]
    assert call.shown["tool_choice"] == {"type": "function", "name": "weather"}
    one = _read(input="x", tools=[tool], parallel_tool_calls=False)
    assert one.request.parameters.parallel_tool_calls is False


def test_a_format_becomes_a_schema() -> None:
    schema = {"type": "object", "required": ["a"]}
    named = {"type": "json_schema", "name": "a", "schema": schema}
    assert _read(input="x", text={"format": named}).request.parameters.json_schema == schema
    free = _read(input="x", text={"format": {"type": "json_object"}})
    assert free.request.parameters.json_schema == {"type": "object"}
    assert _read(input="x").request.parameters.json_schema is None
    assert _read(input="x", text={"format": named}).shown["text"] == {"format": named}
    deep: list[Any] = []
    for _ in range(150):
        deep = [deep]
    assert _read(input="x", text={"verbosity": deep}).shown["text"] == {"format": {"type": "text"}}


def test_sampling_and_options_are_handed_on() -> None:
    call = _read(
        input="x", temperature=0.5, top_p=0.0, max_output_tokens=7, seed=3, mesh={"privacy": "local"}
    )
    parameters = call.request.parameters
    assert (parameters.temperature, parameters.max_tokens, parameters.seed) == (0.5, 7, 3)
    assert 0 < (parameters.top_p or 0) < 1e-5
    assert call.request.options.privacy == "local"
    assert call.shown["temperature"] == 0.5
    assert _read(input="x").shown["temperature"] is None


# --- conversations ------------------------------------------------------------------------------------
def _kept(
    own: OwnResponses, name: str, text: str, previous: str | None = None, status: str = "completed"
) -> None:
    said = [
        {
            "id": f"{name}_in",
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": text}],
        }
    ]
    response: ItemObject = {"id": name, "status": status, "output": [], "previous_response_id": previous}
    own.keep(response, said)


def test_a_conversation_is_that_of_the_whole_chain() -> None:
    own = ResponseStore(lambda: 0.0).of("")
    _kept(own, "r1", "one")
    _kept(own, "r2", "two", previous="r1")
    assert _said(_read(own, input="three", previous_response_id="r2")) == [
        ("user", "one"),
        ("user", "two"),
        ("user", "three"),
    ]


def test_a_chain_with_a_gap_or_an_end_that_is_none_is_refused() -> None:
    own = ResponseStore(lambda: 0.0).of("")
    _kept(own, "r2", "two", previous="r1")
    _kept(own, "r3", "three", status="in_progress")
    with pytest.raises(NotFound) as missing:
        _read(own, input="x", previous_response_id="r2")
    assert missing.value.code == "previous_response_not_found"
    with pytest.raises(InvalidRequest):
        _read(own, input="x", previous_response_id="r3")


def test_a_conversation_is_bounded() -> None:
    own = ResponseStore(lambda: 0.0).of("")
    _kept(own, "r1", "a" * TEXT_CHARS_MAX)
    with pytest.raises(InvalidRequest):
        _read(own, input="x", previous_response_id="r1")
    many = [{**CALL, "id": "fc"}] * (MESSAGES_MAX + 1)
    own.keep({"id": "r2", "status": "completed", "output": [], "previous_response_id": None}, many)
    with pytest.raises(InvalidRequest):
        _read(own, input="x", previous_response_id="r2")


def test_what_calls_carry_counts_as_well_and_as_often_as_it_is_named() -> None:
    own = ResponseStore(lambda: 0.0).of("")
    call = {**CALL, "id": "fc", "arguments": "a" * (TEXT_CHARS_MAX // 4)}
    own.keep({"id": "r1", "status": "completed", "output": [], "previous_response_id": None}, [call])
    reference = {"type": "item_reference", "id": "fc"}
    assert len(_read(own, input=[reference] * 3).given) == 3
    for body in ({"input": [reference] * 4}, {"input": [reference] * 3, "previous_response_id": "r1"}):
        with pytest.raises(InvalidRequest) as refused:
            _read(own, **body)
        assert refused.value.param == "input"
