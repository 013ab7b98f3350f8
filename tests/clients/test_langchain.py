"""langchain-openai before a gateway."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import pytest
from langchain_core.messages import BaseMessage, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from openai import APIError, DefaultHttpxClient
from pydantic import BaseModel, SecretStr

from clients.parrot import BREAKS, Gateway

KEY = SecretStr("none")

# The types of langchain's methods are partly unknown.
OpenChat = Callable[..., Any]


class City(BaseModel):
    """A city and how many people live there."""

    name: str
    people: int


@pytest.fixture
def plain() -> Generator[DefaultHttpxClient]:
    # Reading the certificates of the world takes longer than all the rest.
    with DefaultHttpxClient(verify=False) as plain:
        yield plain


@pytest.fixture
def open_chat(gateway: Gateway, plain: DefaultHttpxClient) -> OpenChat:
    own = {"model": "mesh", "base_url": gateway.base, "api_key": KEY, "max_retries": 0, "http_client": plain}

    def open_(**options: Any) -> Any:
        return ChatOpenAI.model_validate({**own, **options})

    return open_


@pytest.mark.parametrize("uses_responses", [False, True])
def test_an_answer_whole_and_streamed_with_usage(open_chat: OpenChat, uses_responses: bool) -> None:
    model = open_chat(use_responses_api=uses_responses, stream_usage=True)
    whole = model.invoke("hello there")
    chunks = list(model.stream("hello there"))
    assert whole.text == "hello there"
    assert [chunk.text for chunk in chunks if chunk.text] == ["hello", " there"]
    streamed = next(chunk.usage_metadata for chunk in chunks if chunk.usage_metadata)
    for usage in (whole.usage_metadata, streamed):
        assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (3, 2, 5)


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output_by_schema_and_by_tool(open_chat: OpenChat, method: str) -> None:
    model = open_chat().with_structured_output(City, method=method)
    assert model.invoke("Which city?") == City(name="Oslo", people=7)


@pytest.mark.parametrize("uses_responses", [False, True])
def test_bound_tools_are_called_and_their_results_read(open_chat: OpenChat, uses_responses: bool) -> None:
    def weather(city: str) -> str:
        """How the weather is in a city."""
        return f"rain in {city}"

    model = open_chat(use_responses_api=uses_responses).bind_tools([weather])
    turns: list[BaseMessage] = [HumanMessage("How is the weather in Oslo?")]
    called = model.invoke(turns)
    (call,) = called.tool_calls
    assert (call["name"], call["args"]) == ("weather", {"city": "Oslo"})
    turns += [called, ToolMessage(weather(**call["args"]), tool_call_id=call["id"])]
    assert model.invoke(turns).text == "It is rain in Oslo"


def test_embeddings_of_texts(gateway: Gateway, plain: DefaultHttpxClient) -> None:
    embeddings = OpenAIEmbeddings(
        model="three-numbers",
        base_url=gateway.base,
        api_key=KEY,
        http_client=plain,
        check_embedding_ctx_length=False,  # which would fetch the tokens of OpenAI's models
    )
    assert len(embeddings.embed_documents(["one", "two"])) == 2
    assert len(embeddings.embed_query("one")) == 3


def test_a_stream_that_breaks_off_raises_with_the_reason(open_chat: OpenChat) -> None:
    with pytest.raises(APIError, match="anna is gone"):
        list(open_chat().stream(BREAKS))
