"""pydantic-ai before a gateway: agents with tools, typed results, streams. It takes seconds to import, which
is done in the tests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import pytest
from openai import AsyncOpenAI, DefaultAsyncHttpxClient
from pydantic import BaseModel

from clients.parrot import BREAKS, WAIT_SECONDS, Gateway

if TYPE_CHECKING:
    from pydantic_ai.models import Model

pytestmark = pytest.mark.full


class City(BaseModel):
    name: str
    people: int


OSLO = City(name="Oslo", people=7)
WithModel = Callable[[Callable[["Model"], Awaitable[None]]], None]


@pytest.fixture(params=["chat", "responses"])
def with_model(gateway: Gateway, request: pytest.FixtureRequest) -> WithModel:
    """Runs a coroutine function on the model of the gateway, over one of OpenAI's two surfaces."""
    from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
    from pydantic_ai.providers.openai import OpenAIProvider

    kind = OpenAIChatModel if request.param == "chat" else OpenAIResponsesModel

    def run(use: Callable[[Model], Awaitable[None]]) -> None:
        async def main() -> None:
            # Reading the certificates of the world takes longer than all the rest.
            plain = DefaultAsyncHttpxClient(verify=False)
            async with (
                asyncio.timeout(WAIT_SECONDS),
                AsyncOpenAI(
                    base_url=gateway.base, api_key="none", max_retries=0, http_client=plain
                ) as client,
            ):
                await use(kind("mesh", provider=OpenAIProvider(openai_client=client)))

        asyncio.run(main())

    return run


def test_an_agent_calls_its_tool_and_reads_the_result(with_model: WithModel) -> None:
    from pydantic_ai import Agent

    def weather(city: str) -> str:
        return f"rain in {city}"

    async def use(model: Model) -> None:
        result = await Agent(model, tools=[weather]).run("How is the weather?")
        assert result.output == "It is rain in Oslo"
        assert result.usage.requests == 2

    with_model(use)


def test_a_typed_result_by_schema_and_by_tool(with_model: WithModel) -> None:
    from pydantic_ai import Agent, NativeOutput, ToolOutput

    async def use(model: Model) -> None:
        for output in (NativeOutput(City), ToolOutput(City)):
            result = await Agent(model, output_type=output).run("Which city?")
            assert result.output == OSLO

    with_model(use)


def test_a_stream_of_text_and_one_of_a_typed_result(with_model: WithModel) -> None:
    from pydantic_ai import Agent

    async def use(model: Model) -> None:
        async with Agent(model).run_stream("hello there") as streamed:
            deltas = [text async for text in streamed.stream_text(delta=True, debounce_by=None)]
            assert deltas == ["hello", " there"]
            assert streamed.usage.output_tokens == 2
        async with Agent(model, output_type=City).run_stream("Which city?") as typed:
            assert await typed.get_output() == OSLO

    with_model(use)


def test_a_peer_that_was_lost_is_an_error_with_its_status(with_model: WithModel) -> None:
    from pydantic_ai import Agent, ModelHTTPError

    async def use(model: Model) -> None:
        with pytest.raises(ModelHTTPError, match="anna is gone") as failed:
            await Agent(model).run(BREAKS)
        assert failed.value.status_code == 502

    with_model(use)
