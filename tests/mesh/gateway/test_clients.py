"""What OpenAI's own client makes of the gateway, over a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

import pytest
from openai import (
    APIError,
    APIStatusError,
    AsyncOpenAI,
    BadRequestError,
    NotFoundError,
    RateLimitError,
)
from openai.types.chat import ChatCompletionMessageParam
from pydantic import BaseModel

from monai_node.agents.request import RunRequest
from monai_node.mesh.gateway.app import create_app
from monai_node.mesh.gateway.backend import ModelEntry
from monai_node.mesh.gateway.config import GatewayConfig
from monai_node.mesh.gateway.http.server import open_server
from monai_node.mesh.gateway.testing import Script, ScriptedBackend, completed, provenance, says
from monai_node.registry.errors import NotFound, PeerLost
from monai_node.registry.events import AnswerCompleted, AnswerDelta, RunEvent
from monai_node.registry.wire import LikelyToken, TokenLogprob

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]
MODELS = [ModelEntry("smollm2", "12D3KooWanna", "anna")]


def _with_client(
    script: Script,
    use: Callable[[AsyncOpenAI], Awaitable[None]],
    config: GatewayConfig | None = None,
) -> None:
    async def main() -> None:
        app = create_app(ScriptedBackend(script, MODELS), config)
        async with asyncio.timeout(15), open_server(app, "127.0.0.1", 0) as address:
            base = f"{address.url}/v1"
            async with AsyncOpenAI(base_url=base, api_key="x", max_retries=0) as client:
                await use(client)

    asyncio.run(main())


def test_an_answer_its_usage_and_the_models() -> None:
    async def use(client: AsyncOpenAI) -> None:
        answer = await client.chat.completions.create(model="mesh", messages=HELLO)
        assert answer.choices[0].message.content == "Hello"
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage is not None
        assert answer.usage.total_tokens == 5
        assert answer.model_extra is not None
        assert answer.model_extra["mesh"]["parts"][0]["peer_name"] == "anna"
        names = [model.id async for model in client.models.list()]
        assert names == ["mesh", "smollm2", "smollm2@12D3KooWanna"]
        assert (await client.models.retrieve("smollm2@12D3KooWanna")).owned_by == "anna"

    _with_client(says("Hel", "lo"), use)


def test_a_stream_with_usage() -> None:
    async def use(client: AsyncOpenAI) -> None:
        stream = await client.chat.completions.create(
            model="mesh", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        texts = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
        assert "".join(texts) == "Hello"
        *others, last = chunks
        assert last.choices == []
        assert last.usage is not None
        assert last.usage.completion_tokens == 2
        assert all(chunk.usage is None for chunk in others)
        assert others[-1].choices[0].finish_reason == "stop"

    _with_client(says("Hel", "lo"), use)


class _Colour(BaseModel):
    name: str


def test_a_parsed_answer() -> None:
    async def use(client: AsyncOpenAI) -> None:
        answer = await client.chat.completions.parse(model="mesh", messages=HELLO, response_format=_Colour)
        assert answer.choices[0].message.parsed == _Colour(name="red")

    _with_client(says('{"name": ', '"red"}'), use)


async def _calls_a_tool(request: RunRequest) -> AsyncGenerator[RunEvent, None]:
    done = completed(request.run, provenance())
    function = {"name": "weather", "arguments": '{"city": "Oslo"}'}
    yield AnswerCompleted(
        run=request.run,
        finish_reason="tool_calls",
        usage=done.usage,
        parts=done.parts,
        tool_calls=[{"id": "call_7", "type": "function", "function": function}],
    )


def test_tool_calls_whole_and_streamed() -> None:
    async def use(client: AsyncOpenAI) -> None:
        whole = await client.chat.completions.create(model="mesh", messages=HELLO)
        async with client.chat.completions.stream(model="mesh", messages=HELLO) as stream:
            streamed = await stream.get_final_completion()
        for answer in (whole, streamed):
            assert answer.choices[0].finish_reason == "tool_calls"
            assert answer.choices[0].message.tool_calls is not None
            call = answer.choices[0].message.tool_calls[0]
            assert call.type == "function"
            assert (call.id, call.function.name) == ("call_7", "weather")
            assert call.function.arguments == '{"city": "Oslo"}'

    _with_client(_calls_a_tool, use)


async def _says_its_seed(request: RunRequest) -> AsyncGenerator[RunEvent, None]:
    """What differs between several answers to one request."""
    yield AnswerDelta(run=request.run, text=f"seed {request.parameters.seed}")
    yield completed(request.run, provenance())


def test_several_answers_whole_and_streamed() -> None:
    async def use(client: AsyncOpenAI) -> None:
        whole = await client.chat.completions.create(model="mesh", messages=HELLO, n=3, seed=5)
        stream = await client.chat.completions.create(
            model="mesh", messages=HELLO, n=3, seed=5, stream=True, stream_options={"include_usage": True}
        )
        texts, usage = dict.fromkeys(range(3), ""), None
        ends: list[int] = []
        async for chunk in stream:
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
                ends += [choice.index] if choice.finish_reason else []
            usage = chunk.usage
        assert sorted(ends) == [0, 1, 2]
        assert usage is not None
        # The prompt is read once, as OpenAI counts it.
        assert (usage.prompt_tokens, usage.completion_tokens) == (3, 6)
        assert whole.usage == usage
        assert list(texts.values()) == [choice.message.content for choice in whole.choices]
        assert list(texts.values()) == ["seed 5", "seed 6", "seed 7"]
        runs = [mesh["run"] for mesh in (whole.model_extra or {})["mesh"]["others"]]
        assert len(set(runs)) == 2

    _with_client(_says_its_seed, use)


def test_one_of_several_answers_that_fails_fails_them_all() -> None:
    async def script(request: RunRequest) -> AsyncGenerator[RunEvent, None]:
        yield AnswerDelta(run=request.run, text="Hel")
        if request.parameters.seed == 6:
            raise PeerLost("anna is gone")
        await asyncio.Event().wait()

    async def use(client: AsyncOpenAI) -> None:
        with pytest.raises(APIStatusError) as refused:
            await client.chat.completions.create(model="mesh", messages=HELLO, n=2, seed=5)
        assert refused.value.status_code == 502
        stream = await client.chat.completions.create(model="mesh", messages=HELLO, n=2, seed=5, stream=True)
        with pytest.raises(APIError, match="anna is gone"):
            async for _ in stream:
                pass

    _with_client(script, use)


def test_several_answers_with_one_place_come_one_after_the_other() -> None:
    async def use(client: AsyncOpenAI) -> None:
        answer = await client.chat.completions.create(model="mesh", messages=HELLO, n=4, seed=1)
        assert [choice.message.content for choice in answer.choices] == [f"seed {n}" for n in range(1, 5)]

    _with_client(_says_its_seed, use, GatewayConfig(runs_max=1))


async def _tells_chances(request: RunRequest) -> AsyncGenerator[RunEvent, None]:
    other = LikelyToken(token="Ho", logprob=-2.0, bytes=[72, 111])
    for text in ("Hel", "lo"):
        told = TokenLogprob(token=text, logprob=-0.5, bytes=list(text.encode()), top=[other])
        yield AnswerDelta(run=request.run, text=text, logprobs=[told])
    yield completed(request.run, provenance())


def test_the_chances_of_tokens_whole_and_streamed() -> None:
    async def use(client: AsyncOpenAI) -> None:
        whole = await client.chat.completions.create(
            model="mesh", messages=HELLO, logprobs=True, top_logprobs=1
        )
        async with client.chat.completions.stream(
            model="mesh", messages=HELLO, logprobs=True, top_logprobs=1
        ) as stream:
            streamed = await stream.get_final_completion()
        for answer in (whole, streamed):
            told = answer.choices[0].logprobs
            assert told is not None
            assert told.content is not None
            assert [token.token for token in told.content] == ["Hel", "lo"]
            assert told.content[0].bytes == [72, 101, 108]
            assert told.content[0].top_logprobs[0].logprob == -2.0

    _with_client(_tells_chances, use)


@pytest.mark.parametrize("stream", [False, True])
def test_an_unknown_model_is_the_clients_not_found_error(stream: bool) -> None:
    async def use(client: AsyncOpenAI) -> None:
        with pytest.raises(NotFoundError) as refused:
            await client.chat.completions.create(model="gpt", messages=HELLO, stream=stream)
        assert (refused.value.code, refused.value.param) == ("model_not_found", "model")
        assert refused.value.request_id is not None

    _with_client(says(error=NotFound("no gpt here", code="model_not_found", param="model")), use)


def test_a_stream_that_fails_half_way_raises_with_the_code() -> None:
    async def use(client: AsyncOpenAI) -> None:
        stream = await client.chat.completions.create(model="mesh", messages=HELLO, stream=True)
        texts: list[str] = []
        with pytest.raises(APIError) as failed:
            async for chunk in stream:
                texts.append(chunk.choices[0].delta.content or "")
        assert "".join(texts) == "Hel"
        assert failed.value.code == "peer_lost"
        assert failed.value.message == "anna is gone"

    _with_client(says("Hel", error=PeerLost("anna is gone")), use)


def test_a_wrong_option_and_too_many_runs_are_the_clients_own_errors() -> None:
    async def use(client: AsyncOpenAI) -> None:
        with pytest.raises(BadRequestError) as refused:
            await client.chat.completions.create(
                model="mesh", messages=HELLO, extra_body={"mesh": {"foo": 1}}
            )
        assert refused.value.param == "mesh.foo"
        with pytest.raises(RateLimitError):
            await client.chat.completions.create(model="mesh", messages=HELLO)

    _with_client(says("Hello"), use, GatewayConfig(runs_max=0, waiting_max=0))


def test_mesh_events_do_not_break_the_client() -> None:
    async def use(client: AsyncOpenAI) -> None:
        stream = await client.chat.completions.create(
            model="mesh", messages=HELLO, stream=True, extra_body={"mesh": {"events": True}}
        )
        kinds = [chunk.object async for chunk in stream]
        assert kinds.count("chat.completion.chunk") == 4

    _with_client(says("Hel", "lo"), use)


def test_a_client_with_a_foreign_host_name_is_refused() -> None:
    async def use(client: AsyncOpenAI) -> None:
        with pytest.raises(APIStatusError) as refused:
            await client.with_options(default_headers={"host": "evil.org"}).models.list()
        assert (refused.value.status_code, refused.value.code) == (403, "host_not_allowed")

    _with_client(says("Hello"), use)
