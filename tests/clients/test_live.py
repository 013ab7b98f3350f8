"""OpenAI's clients before a real mesh of processes and the bundled model: what a scripted one cannot show."""

from __future__ import annotations

import time
from collections.abc import Generator

import pytest
from langchain_openai import OpenAIEmbeddings
from openai import DefaultHttpxClient, OpenAI
from openai.types.chat import ChatCompletionToolParam
from openai.types.responses import ResponseTextDeltaEvent
from pydantic import BaseModel, SecretStr

from live import LiveMesh

pytestmark = [pytest.mark.full, pytest.mark.processes, pytest.mark.model]


class Animal(BaseModel):
    name: str
    legs: int


WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "How the weather is in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 40}},
            "required": ["city"],
        },
    },
}


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Generator[LiveMesh]:
    with LiveMesh(tmp_path_factory.mktemp("clients")) as mesh:
        mesh.open_gateway("up")
        yield mesh


@pytest.fixture
def plain() -> Generator[DefaultHttpxClient]:
    # Reading the certificates of the world takes longer than all the rest.
    with DefaultHttpxClient(verify=False) as plain:
        yield plain


@pytest.fixture
def client(mesh: LiveMesh, plain: DefaultHttpxClient) -> Generator[OpenAI]:
    with OpenAI(base_url=f"{mesh.url}/v1", api_key="none", max_retries=0, http_client=plain) as client:
        yield client


def test_an_answer_is_parsed_into_the_type_that_was_asked_for(client: OpenAI) -> None:
    asked = "Name an animal and how many legs it has."
    whole = client.chat.completions.parse(
        model="mesh",
        messages=[{"role": "user", "content": asked}],
        response_format=Animal,
        temperature=0,
        max_tokens=80,
    )
    assert isinstance(whole.choices[0].message.parsed, Animal)
    response = client.responses.parse(
        model="mesh", input=asked, text_format=Animal, temperature=0, max_output_tokens=80
    )
    assert isinstance(response.output_parsed, Animal)


def test_the_named_tool_is_called_over_a_stream(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model="mesh",
        messages=[{"role": "user", "content": "How is the weather in Oslo?"}],
        tools=[WEATHER],
        tool_choice={"type": "function", "function": {"name": "weather"}},
        temperature=0,
        max_tokens=80,
    ) as stream:
        (choice,) = stream.get_final_completion().choices
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls or []
    assert call.function.name == "weather"
    assert '"city"' in call.function.arguments


def test_a_response_is_streamed_gone_on_with_and_cancelled(client: OpenAI) -> None:
    with client.responses.stream(model="mesh", input="How much is 26 miles plus 5 miles?") as stream:
        deltas = [event.delta for event in stream if isinstance(event, ResponseTextDeltaEvent)]
        first = stream.get_final_response()
    assert "".join(deltas) == first.output_text == "31 miles"
    second = client.responses.create(model="mesh", input="and in kilometres?", previous_response_id=first.id)
    assert "49.889664" in second.output_text
    long = client.responses.create(
        model="mesh", input="Write a story about a river.", background=True, max_output_tokens=400
    )
    client.responses.cancel(long.id)
    deadline = time.monotonic() + 20
    while (status := client.responses.retrieve(long.id).status) != "cancelled":
        assert status != "completed"
        assert time.monotonic() < deadline, status


def test_texts_that_mean_the_same_have_vectors_that_are_near(
    mesh: LiveMesh, client: OpenAI, plain: DefaultHttpxClient
) -> None:
    texts = ["A cat sleeps on the sofa", "The kitten naps on the couch", "Interest rates rose again"]
    rows = [each.embedding for each in client.embeddings.create(model="mesh", input=texts).data]
    near, far = (sum(x * y for x, y in zip(rows[0], row, strict=True)) for row in rows[1:])
    assert near > far + 0.2
    embeddings = OpenAIEmbeddings(
        model="all-minilm-l6-v2",
        base_url=f"{mesh.url}/v1",
        api_key=SecretStr("none"),
        http_client=plain,
        check_embedding_ctx_length=False,  # which would fetch the tokens of OpenAI's models
    )
    assert embeddings.embed_query(texts[0]) == pytest.approx(rows[0], abs=1e-3)
