"""openai-python as programs use it: keys, tries, conversations with tools, every surface."""

from __future__ import annotations

import struct
import time
from base64 import b64decode
from collections.abc import Generator
from typing import cast

import pytest
from openai import (
    APIError,
    AuthenticationError,
    DefaultHttpxClient,
    NotFoundError,
    OpenAI,
    PermissionDeniedError,
    RateLimitError,
)
from openai.types import CreateEmbeddingResponse
from openai.types.chat import (
    ChatCompletion,
    ChatCompletionMessageParam,
    ChatCompletionMessageToolCall,
    ChatCompletionToolParam,
)
from openai.types.responses import ResponseTextDeltaEvent
from pydantic import BaseModel

from clients.parrot import BREAKS, BUSY, SLOW, Gateway, open_gateway
from monai_node.mesh.gateway.access.access import Access
from monai_node.mesh.keys import new_key


def tool(name: str) -> ChatCompletionToolParam:
    schema: dict[str, object] = {"type": "object", "properties": {"city": {"type": "string"}}}
    return {"type": "function", "function": {"name": name, "parameters": schema}}


TOOLS = [tool("weather"), tool("population")]
HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello there"}]


def open_client(gateway: Gateway, key: str = "none") -> OpenAI:
    # Reading the certificates of the world takes longer than all the rest.
    plain = DefaultHttpxClient(verify=False)
    return OpenAI(base_url=gateway.base, api_key=key, max_retries=0, http_client=plain)


@pytest.fixture
def client(gateway: Gateway) -> Generator[OpenAI]:
    with open_client(gateway) as client:
        yield client


# --- chat -----------------------------------------------------------------------------------------
def calls_of(answer: ChatCompletion) -> list[ChatCompletionMessageToolCall]:
    (choice,) = answer.choices
    assert choice.finish_reason == "tool_calls"
    return cast("list[ChatCompletionMessageToolCall]", choice.message.tool_calls)


def test_a_conversation_with_two_calls_and_their_results(client: OpenAI) -> None:
    asked: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Oslo?"}]
    answer = client.chat.completions.create(model="mesh", messages=asked, tools=TOOLS)
    calls = calls_of(answer)
    assert [call.function.name for call in calls] == ["weather", "population"]
    asked.append(cast("ChatCompletionMessageParam", answer.choices[0].message.model_dump(exclude_none=True)))
    for call, result in zip(calls, ("rain", "717,710"), strict=True):
        asked.append({"role": "tool", "tool_call_id": call.id, "content": result})
    answer = client.chat.completions.create(model="mesh", messages=asked, tools=TOOLS)
    assert answer.choices[0].message.content == "It is rain and 717,710"


def test_the_tool_that_was_chosen_is_called(client: OpenAI, gateway: Gateway) -> None:
    chosen = client.chat.completions.create(
        model="mesh",
        messages=HELLO,
        tools=TOOLS,
        tool_choice={"type": "function", "function": {"name": "population"}},
        parallel_tool_calls=False,
    )
    assert [call.function.name for call in calls_of(chosen)] == ["population"]
    assert gateway.backend.requests[0].parameters.parallel_tool_calls is False
    with client.chat.completions.stream(
        model="mesh", messages=HELLO, tools=TOOLS, tool_choice="required"
    ) as stream:
        streamed = stream.get_final_completion()
    assert [call.function.arguments for call in calls_of(streamed)] == ['{"city":"Oslo"}'] * 2
    none = client.chat.completions.create(model="mesh", messages=HELLO, tools=TOOLS, tool_choice="none")
    assert none.choices[0].message.content == "hello there"


class _Street(BaseModel):
    name: str
    numbers: list[int]


class _Address(BaseModel):
    street: _Street
    is_home: bool


def test_an_answer_is_parsed_whole_and_streamed_into_the_type_that_was_asked_for(client: OpenAI) -> None:
    whole = client.chat.completions.parse(model="mesh", messages=HELLO, response_format=_Address)
    with client.chat.completions.stream(model="mesh", messages=HELLO, response_format=_Address) as stream:
        streamed = stream.get_final_completion()
    response = client.responses.parse(model="mesh", input="hello", text_format=_Address)
    expected = _Address(street=_Street(name="Oslo", numbers=[7]), is_home=True)
    assert whole.choices[0].message.parsed == streamed.choices[0].message.parsed == expected
    assert response.output_parsed == expected


def test_completions_with_chances_and_a_stream_of_them(client: OpenAI) -> None:
    whole = client.completions.create(model="parrot", prompt=["one two", "three"], logprobs=1)
    assert [choice.text for choice in whole.choices] == ["one two", "three"]
    told = whole.choices[0].logprobs
    assert told is not None
    assert (told.tokens, told.token_logprobs) == (["one", " two"], [-0.5, -0.5])
    stream = client.completions.create(model="parrot", prompt="one two", stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == "one two"


# --- embeddings and models --------------------------------------------------------------------------
def test_embeddings_are_the_same_however_they_are_sent(client: OpenAI) -> None:
    # The client itself asks for base64 and unpacks it.
    unpacked = client.embeddings.create(model="mesh", input=["one", "three"])
    asked = client.embeddings.create(model="mesh", input=["one", "three"], encoding_format="base64")
    plain = client.embeddings.create(model="mesh", input=["one", "three"], encoding_format="float")

    def rows(answer: CreateEmbeddingResponse) -> list[list[float]]:
        return [each.embedding for each in answer.data]

    packed = [b64decode(cast("str", each.embedding)) for each in asked.data]
    assert [list(struct.unpack("<3f", each)) for each in packed] == rows(unpacked)
    assert rows(plain) == [pytest.approx(row) for row in rows(unpacked)]
    assert unpacked.usage.total_tokens == 2


def test_models_are_listed_and_retrieved(client: OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert names == ["mesh", "parrot", "parrot@12D3KooWanna", "three-numbers"]
    assert [client.models.retrieve(name).id for name in names] == names


# --- responses --------------------------------------------------------------------------------------
def test_a_response_is_streamed_retrieved_and_gone_on_with(client: OpenAI, gateway: Gateway) -> None:
    deltas: list[str] = []
    with client.responses.stream(model="mesh", input="hello there") as stream:
        for event in stream:
            if isinstance(event, ResponseTextDeltaEvent):
                deltas.append(event.delta)
        first = stream.get_final_response()
    assert deltas == ["hello", " there"]
    assert client.responses.retrieve(first.id).output_text == first.output_text == "hello there"
    second = client.responses.create(model="mesh", input="again", previous_response_id=first.id)
    assert second.output_text == "again"
    said = [message.content for message in gateway.backend.requests[-1].messages]
    assert said == ["hello there", "hello there", "again"]
    client.responses.delete(first.id)
    with pytest.raises(NotFoundError) as gone:
        client.responses.retrieve(first.id)
    assert gone.value.code == "response_not_found"


def test_a_response_in_the_background_is_cancelled(client: OpenAI) -> None:
    begun = client.responses.create(model="mesh", input=SLOW, background=True)
    assert begun.status == "queued"
    client.responses.cancel(begun.id)
    deadline = time.monotonic() + 10
    while (status := client.responses.retrieve(begun.id).status) != "cancelled":
        assert time.monotonic() < deadline, status


# --- errors and tries ---------------------------------------------------------------------------------
def test_keys_and_what_they_allow_are_the_clients_own_errors() -> None:
    key, secret = new_key(time.time(), requests_per_minute=1)
    with open_gateway(Access([key], requires_key=True)) as gateway:
        for wrong in ("none", "mk-wrong"):
            with open_client(gateway, wrong) as client, pytest.raises(AuthenticationError) as refused:
                client.models.list()
            assert (refused.value.status_code, refused.value.code) == (401, "invalid_api_key")
        with open_client(gateway, secret) as client:
            assert client.chat.completions.create(model="mesh", messages=HELLO).choices
            with pytest.raises(RateLimitError) as limited:
                client.chat.completions.create(model="mesh", messages=HELLO)
            assert limited.value.code == "rate_limit_exceeded"
            assert 1 <= int(limited.value.response.headers["retry-after"]) <= 60
            with pytest.raises(PermissionDeniedError) as lacking:
                client.get("/decisions", cast_to=object)
            assert lacking.value.code == "missing_right"


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_or_a_stream_that_breaks_off_raises_with_the_reason(client: OpenAI, stream: bool) -> None:
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": BREAKS}]
    with pytest.raises(APIError, match="anna is gone") as failed:
        list(client.chat.completions.create(model="mesh", messages=messages, stream=stream))
    assert failed.value.code == "peer_lost"


def test_a_stream_of_a_response_that_breaks_off_ends_with_the_reason(client: OpenAI) -> None:
    with client.responses.stream(model="mesh", input=BREAKS) as stream:
        *_, last = stream
    assert last.type == "response.failed"
    assert last.response.error is not None
    assert last.response.error.message == "anna is gone"


def test_a_client_comes_back_when_it_was_told_to(client: OpenAI, gateway: Gateway) -> None:
    started = time.monotonic()
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": BUSY}]
    answer = client.with_options(max_retries=1).chat.completions.create(model="mesh", messages=messages)
    assert answer.choices[0].message.content == BUSY
    assert time.monotonic() - started >= 1  # retry-after; of its own accord it waits half of that
    assert len(gateway.backend.requests) == 2


def test_a_client_that_lost_patience_joins_the_run_that_it_began(client: OpenAI, gateway: Gateway) -> None:
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": SLOW}]
    answer = client.with_options(max_retries=20, timeout=0.3).chat.completions.create(
        model="mesh", messages=messages, extra_headers={"idempotency-key": "once"}
    )
    assert answer.choices[0].message.content == SLOW
    assert len(gateway.backend.requests) == 1
