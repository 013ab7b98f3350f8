from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from monai_node.mesh.gateway.openai.bodies import ChatBody
from monai_node.mesh.gateway.openai.reader import ChatCall, chat_call, plan_request
from monai_node.registry.errors import CallerError, InvalidRequest, Unsupported
from monai_node.registry.ids import RunId
from monai_node.registry.wire import PLAIN_VALUES_MAX, TOKENS_MAX, ChatMessage

RUN = RunId("run-1")
HELLO: list[dict[str, Any]] = [{"role": "user", "content": "hello"}]
NOTHING: dict[str, Any] = {}
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object"}, "strict": True},
}


def _call(**fields: Any) -> ChatCall:
    return chat_call(json.dumps({"model": "mesh", "messages": HELLO, **fields}).encode(), RUN)


def _refusal(kind: type[CallerError] = InvalidRequest, **fields: Any) -> CallerError:
    with pytest.raises(kind) as refused:
        _call(**fields)
    return refused.value


def test_the_smallest_request_asks_the_mesh_with_every_default() -> None:
    call = chat_call(b'{"messages": [{"role": "user", "content": "hello"}]}', RUN)
    assert call.request.messages == (ChatMessage(role="user", content="hello"),)
    assert (call.request.model, call.request.run) == ("mesh", RUN)
    assert call.request.options.plan == "auto"
    assert (call.stream, call.include_usage) == (False, False)


def test_every_sampling_field_reaches_the_parameters() -> None:
    parameters = _call(
        max_tokens=5,
        temperature=0,
        top_p=0.9,
        seed=-1,
        stop="END",
        presence_penalty=-2,
        frequency_penalty=2,
    ).request.parameters
    assert parameters.model_dump(exclude_defaults=True) == {
        "max_tokens": 5,
        "temperature": 0.0,
        "top_p": 0.9,
        "seed": -1,
        "stop": ["END"],
        "presence_penalty": -2.0,
        "frequency_penalty": 2.0,
    }


def test_null_is_the_same_as_absent_and_unknown_fields_are_ignored() -> None:
    names = "max_tokens stop seed stream stream_options tools tool_choice response_format n mesh"
    nulls = dict.fromkeys([*names.split(), "logprobs", "temperature", "top_p", "model"])
    ignored = {"user": "u", "metadata": {"a": "b"}, "logit_bias": {}, "of_the_future": [1]}
    assert _call(**nulls, **ignored) == _call()


def test_logprobs_biases_and_parallel_calls_reach_the_parameters() -> None:
    assert _call(logprobs=True).request.parameters.logprobs == 0
    assert _call(logprobs=True, top_logprobs=3).request.parameters.logprobs == 3
    assert _refusal(top_logprobs=3).param == "top_logprobs"
    assert _call(model="m", logit_bias={"50": -100}).request.parameters.logit_bias == {"50": -100.0}
    assert _refusal(model="m", logit_bias={"word": 1}).param == "logit_bias.word"
    assert _call(tools=[TOOL], parallel_tool_calls=False).request.parameters.parallel_tool_calls is False


def test_further_answers_are_runs_of_their_own_with_the_next_seeds() -> None:
    call = _call(n=3, seed=2**63 - 1)
    assert [each.run for each in call.others] == ["run-1-1", "run-1-2"]
    assert [each.parameters.seed for each in call.others] == [-(2**63), 1 - 2**63]
    assert [each.parameters.seed for each in _call(n=2).others] == [None]
    assert _refusal(n=9).param == "n"


def test_the_newer_token_limit_wins_and_a_limit_above_ours_is_met_by_ours() -> None:
    assert _call(max_tokens=5, max_completion_tokens=7).request.parameters.max_tokens == 7
    assert _call(max_tokens=10**9).request.parameters.max_tokens == TOKENS_MAX


def test_top_p_zero_means_the_likeliest_token() -> None:
    top_p = _call(top_p=0).request.parameters.top_p
    assert top_p is not None
    assert 0 < top_p < 0.001


def test_empty_stops_are_dropped() -> None:
    assert _call(stop="").request.parameters.stop == []
    assert _call(stop=["", "a"]).request.parameters.stop == ["a"]


def test_stream_and_its_usage_are_read() -> None:
    call = _call(stream=True, stream_options={"include_usage": True})
    assert (call.stream, call.include_usage) == (True, True)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages.0.content.0.type"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages.0.content.0.text",
        ),
        ({"messages": [{"role": "assistant"}]}, "messages.0.content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.tool_call_id"),
        ({"messages": HELLO * 1025}, "messages"),
        ({"model": 5}, "model"),
        ({"temperature": "0.5"}, "temperature"),
        ({"temperature": 2.5}, "temperature"),
        ({"top_p": -1}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"seed": 2**63}, "seed"),
        ({"stop": 5}, "stop"),
        ({"stop": [5]}, "stop.0"),
        ({"stop": ["x" * 300]}, "stop.0"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"n": 0}, "n"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a b"}}},
            "response_format.json_schema.name",
        ),
        ({"tools": [{"type": "function"}]}, "tools.0.function"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function"}}, "tool_choice"),
        ({"mesh": {"foo": 1}}, "mesh.foo"),
        ({"mesh": {"str": 1}}, "mesh.str"),
        ({"mesh": {"x" * 999: 1}}, f"mesh.{'x' * 123}"),
        ({"mesh": "local"}, "mesh"),
        ({"mesh": {"privacy": "private"}}, "mesh.privacy"),
        ({"mesh": {"deadline_seconds": 0}}, "mesh.deadline_seconds"),
        ({"mesh": {"plan": [{"id": "a", "text": "x", "foo": 1}]}}, "mesh.plan.0.foo"),
    ],
)
def test_a_wrong_field_is_refused_by_name_in_one_sentence(fields: dict[str, Any], param: str) -> None:
    refused = _refusal(CallerError, **fields)
    assert refused.param == param
    assert param in refused.message
    assert "\n" not in refused.message


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"mesh": [1]}, "mesh should be an object"),
        ({"messages": [5]}, "messages.0 should be an object"),
        ({"mesh": {"plan": "x"}}, "mesh.plan should be 'auto' or 'never' or a valid list"),
        ({"mesh": {"allow": ["x"]}}, "mesh.allow: 'x' names nobody: write peer:ID, model:ALIAS or skill:ID"),
    ],
)
def test_what_is_wrong_is_said_in_words_of_the_request(fields: dict[str, Any], sentence: str) -> None:
    assert _refusal(CallerError, **fields).message.startswith(sentence)


MANY_FAULTS: list[dict[str, Any]] = [
    {"mesh": {"plan": [{}] * 10_000}},
    {"mesh": {"plan": [{"id": "a", "text": "b"}] * 10_000}},
    {"modalities": [1] * 10_000},
    {"stop": [1] * 10_000},
    {"messages": [{"role": "user", "content": [1] * 10_000}]},
]


@pytest.mark.parametrize("fields", MANY_FAULTS)
def test_of_a_list_full_of_faults_only_the_first_is_looked_at(fields: dict[str, Any]) -> None:
    """A megabyte of them takes seconds to list, in which the node does nothing else."""
    with pytest.raises(ValidationError) as refused:
        ChatBody.model_validate({"messages": HELLO, **fields})
    assert refused.value.error_count() < 5


def test_of_a_body_with_thousands_of_faults_none_is_named() -> None:
    turn: dict[str, Any] = {"role": "assistant", "tool_calls": [NOTHING] * 100}
    refused = _refusal(messages=[turn] * 20)
    assert (refused.status, refused.param) == (400, None)
    assert refused.message.startswith("4000 parts of the body")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [{"role": "user", "content": [NOTHING] * 50}] * 100}, "messages"),
        ({"messages": [{"role": "assistant", "tool_calls": [NOTHING] * 100}] * 50}, "messages"),
        ({"mesh": {str(number): 1 for number in range(100)}}, "mesh"),
        ({"logit_bias": {str(number): 1 for number in range(2000)}}, "logit_bias"),
        ({"tools": [{**TOOL, "extra": [NOTHING] * PLAIN_VALUES_MAX}]}, "tools"),
        ({str(number): 1 for number in range(300)}, None),
    ],
)
def test_more_than_is_read_in_milliseconds_is_refused_before_it_is_read(
    fields: dict[str, Any], param: str | None
) -> None:
    refused = _refusal(**fields)
    assert (refused.status, refused.param) == (400, param)
    assert "at most" in refused.message or "more than" in refused.message


def test_an_unknown_mesh_option_is_answered_with_the_known_ones() -> None:
    assert "privacy, plan, budget_tokens" in _refusal(mesh={"privat": "local"}).message


@pytest.mark.parametrize(
    ("fields", "param", "word"),
    [
        ({"logit_bias": {"1": 2}}, "logit_bias", "name the model"),
        ({"logprobs": True, "mesh": {"plan": [{"id": "a", "text": "b"}]}}, "logprobs", "no plan"),
        ({"functions": [{"name": "f"}]}, "functions", "use tools"),
        ({"modalities": ["text", "audio"]}, "modalities", "text only"),
        ({"tools": [{"type": "custom"}]}, "tools.0", "function"),
        ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools"}}, "tool_choice", "function"),
    ],
)
def test_what_no_mesh_can_do_is_said_to_be_unsupported(fields: dict[str, Any], param: str, word: str) -> None:
    refused = _refusal(Unsupported, **fields)
    assert (refused.status, refused.param) == (422, param)
    assert word in refused.message


def test_text_parts_become_lines_and_other_parts_are_named() -> None:
    parts: list[dict[str, Any]] = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    call = _call(messages=[{"role": "user", "content": parts}])
    assert call.request.messages[0].content == "a\nb"
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    refused = _refusal(Unsupported, messages=[{"role": "user", "content": [*parts, image]}])
    assert refused.param == "messages.0.content.2"
    assert "an image" in refused.message
    assert "base64" not in refused.message


def test_tool_calls_of_earlier_turns_are_passed_through() -> None:
    called = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    turns = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [called], "annotations": []},
        {"role": "tool", "content": "rain", "tool_call_id": "c1"},
    ]
    _, assistant, tool = _call(messages=turns).request.messages
    assert (assistant.content, assistant.extra) == ("", {"tool_calls": [called]})
    assert tool.extra == {"tool_call_id": "c1"}


def test_tools_are_passed_as_they_were_written() -> None:
    named = {"type": "function", "function": {"name": "weather"}}
    parameters = _call(tools=[TOOL], tool_choice=named).request.parameters
    assert parameters.tools == [TOOL]
    assert parameters.tool_choice == named
    assert _call(tools=[TOOL], tool_choice="required").request.parameters.tool_choice == "required"


def test_a_choice_among_no_tools_is_no_choice() -> None:
    assert _call(tool_choice="auto").request.parameters.tool_choice is None


def test_response_formats_become_a_json_schema() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    strict = {"name": "answer", "schema": schema, "strict": True}
    wanted = {"type": "json_schema", "json_schema": strict}
    assert _call(response_format=wanted).request.parameters.json_schema == schema
    any_object = _call(response_format={"type": "json_object"}).request.parameters.json_schema
    assert any_object == {"type": "object"}
    assert _call(response_format={"type": "text"}).request.parameters.json_schema is None


def test_a_schema_too_large_for_an_engine_is_refused() -> None:
    schema = {"type": "object", "description": "x" * (32 << 10)}
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    assert _refusal(response_format=wanted).param == "response_format.json_schema.schema"


def test_the_mesh_object_becomes_the_options() -> None:
    tasks = [{"id": "a", "text": "say hello"}]
    options = _call(mesh={"privacy": "local", "deadline_seconds": 5, "plan": tasks}).request.options
    assert (options.privacy, options.deadline_seconds) == ("local", 5.0)
    assert isinstance(options.plan, list)
    assert options.plan[0].text == "say hello"


def test_only_a_wellformed_traceparent_is_handed_on() -> None:
    body = json.dumps({"messages": HELLO}).encode()
    good = f"00-{'a' * 32}-{'b' * 16}-01"
    assert chat_call(body, RUN, good).request.traceparent == good
    assert chat_call(body, RUN, f"{good}\n").request.traceparent is None
    assert chat_call(body, RUN, "garbage").request.traceparent is None


def test_a_plan_is_asked_for_with_a_text_or_a_conversation() -> None:
    by_text = plan_request(b'{"text": "hello"}', RUN)
    by_messages = plan_request(json.dumps({"messages": HELLO}).encode(), RUN)
    assert by_text == by_messages
    for body in (b"{}", json.dumps({"messages": HELLO, "text": "x"}).encode()):
        with pytest.raises(InvalidRequest, match="either messages or text"):
            plan_request(body, RUN)


_KEYS = st.sampled_from(
    [
        *("model", "messages", "role", "content", "type", "text", "name", "tool_calls", "function"),
        *("tool_call_id", "id", "arguments", "tools", "tool_choice", "stop", "seed", "max_tokens"),
        *("temperature", "top_p", "n", "stream", "stream_options", "include_usage", "mesh", "plan"),
        *("response_format", "json_schema", "schema", "privacy", "functions", "modalities"),
    ]
)
_Values = st.SearchStrategy[Any]
_SCALARS: _Values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)


def _containers(inner: _Values) -> _Values:
    return st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4)


_VALUES = st.recursive(_SCALARS, _containers, max_leaves=12)
_ROLES: _Values = st.sampled_from(["user", "assistant", "tool", "system", "function"])
_FIELDS: dict[str, _Values] = {"content": _VALUES, "tool_calls": _VALUES}
_MESSAGES = st.lists(st.fixed_dictionaries({"role": _ROLES}, optional=_FIELDS), min_size=1, max_size=3)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(_KEYS, _VALUES, max_size=6), st.none() | _MESSAGES)
def test_any_object_is_either_read_or_refused_as_the_callers_error(
    body: dict[str, Any], messages: list[Any] | None
) -> None:
    if messages is not None:
        body = {**body, "messages": messages}
    with contextlib.suppress(CallerError):
        assert chat_call(json.dumps(body).encode(), RUN).request.messages
