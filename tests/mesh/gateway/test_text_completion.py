from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import pytest
from openai import APIStatusError, AsyncOpenAI

from monai_node.agents.request import RunRequest
from monai_node.mesh.gateway.app import create_app
from monai_node.mesh.gateway.http.server import open_server
from monai_node.mesh.gateway.openai.text_completion import TextCall, completion_call
from monai_node.mesh.gateway.testing import Script, ScriptedBackend, completed, provenance
from monai_node.registry.errors import CallerError, InvalidRequest, TaskFailed, Unsupported
from monai_node.registry.events import AnswerDelta, PlanTask, RunEvent
from monai_node.registry.ids import RunId
from monai_node.registry.wire import LikelyToken, TokenLogprob


def _call(**fields: Any) -> TextCall:
    body = {"model": "m", "prompt": "Once", **fields}
    return completion_call(json.dumps(body).encode(), RunId("run-1"))


# --- the body ---------------------------------------------------------------------------------------
def test_a_text_is_gone_on_with_for_16_tokens_unless_told_otherwise() -> None:
    call = _call()
    assert call.request.is_completion
    assert [turn.content for turn in call.request.messages] == ["Once"]
    assert call.request.parameters.max_tokens == 16
    echoed = _call(max_tokens=0, echo=True, logprobs=1).request.parameters
    assert (echoed.max_tokens, echoed.echo, echoed.logprobs) == (0, True, 1)


@pytest.mark.parametrize(
    ("prompt", "texts", "tokens"),
    [
        (["a", "b"], ["a", "b"], [(), ()]),
        ([1, 2], [""], [(1, 2)]),
        ([[1], [2, 3]], ["", ""], [(1,), (2, 3)]),
    ],
)
def test_prompts_are_texts_or_ids_one_or_several(
    prompt: Any, texts: list[str], tokens: list[tuple[int, ...]]
) -> None:
    call = _call(prompt=prompt)
    requests = [call.request, *call.others]
    assert [each.messages[0].content for each in requests] == texts
    assert [each.tokens for each in requests] == tokens
    assert len({each.run for each in requests}) == len(requests)


def test_each_prompt_has_n_answers_with_the_next_seeds() -> None:
    call = _call(prompt=["a", "b"], n=2, seed=5)
    requests = [call.request, *call.others]
    assert [(each.messages[0].content, each.parameters.seed) for each in requests] == [
        ("a", 5),
        ("a", 6),
        ("b", 5),
        ("b", 6),
    ]
    assert call.per_prompt == 2


@pytest.mark.parametrize(
    ("kind", "fields", "param"),
    [
        (Unsupported, {"suffix": "end"}, "suffix"),
        (Unsupported, {"best_of": 2}, "best_of"),
        (Unsupported, {"model": "mesh", "prompt": [1]}, "prompt"),
        (Unsupported, {"mesh": {"plan": [{"id": "a", "text": "b"}]}}, "mesh.plan"),
        (InvalidRequest, {"prompt": []}, "prompt"),
        (InvalidRequest, {"prompt": [[1], []]}, "prompt"),
        (InvalidRequest, {"prompt": ["a"] * 9, "n": 2}, "prompt"),
        (InvalidRequest, {"prompt": [-1]}, "prompt.0"),
        (InvalidRequest, {"logprobs": 6}, "logprobs"),
        (InvalidRequest, {"prompt": None}, "prompt"),
    ],
)
def test_what_cannot_be_done_is_said_by_name(
    kind: type[CallerError], fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(kind) as refused:
        _call(**fields)
    assert refused.value.param == param


# --- over a socket, to OpenAI's own client ----------------------------------------------------------
def _with_client(script: Script, use: Callable[[AsyncOpenAI], Awaitable[None]]) -> None:
    async def main() -> None:
        app = create_app(ScriptedBackend(script))
        async with asyncio.timeout(15), open_server(app, "127.0.0.1", 0) as address:
            client = AsyncOpenAI(base_url=f"{address.url}/v1", api_key="x", max_retries=0)
            async with client:
                await use(client)

    asyncio.run(main())


async def _goes_on(request: RunRequest) -> AsyncGenerator[RunEvent, None]:
    """The prompt again, and a word."""
    prompt = request.messages[0].content
    other = LikelyToken(token=" more", logprob=-0.1, bytes=None)
    yield PlanTask(run=request.run, task="t1", text=prompt, depends_on=[])
    yield AnswerDelta(
        run=request.run, text=prompt, logprobs=[TokenLogprob(token=prompt, logprob=None, bytes=None)]
    )
    yield AnswerDelta(
        run=request.run,
        text=" on",
        logprobs=[TokenLogprob(token=" on", logprob=-2.5, bytes=None, top=[other])],
    )
    yield completed(request.run, provenance())


def test_a_completion_with_its_chances() -> None:
    async def use(client: AsyncOpenAI) -> None:
        whole = await client.completions.create(model="m", prompt="Go", logprobs=1, echo=True)
        assert (whole.object, whole.choices[0].text, whole.choices[0].finish_reason) == (
            "text_completion",
            "Go on",
            "stop",
        )
        told = whole.choices[0].logprobs
        assert told is not None
        assert told.tokens == ["Go", " on"]
        assert told.token_logprobs == [None, -2.5]
        assert told.top_logprobs == [None, {" more": -0.1, " on": -2.5}]
        assert told.text_offset == [0, 2]
        assert whole.usage is not None
        assert whole.usage.total_tokens == 5
        assert whole.id.startswith("cmpl-")

    _with_client(_goes_on, use)


def test_several_prompts_streamed_each_under_its_index() -> None:
    async def use(client: AsyncOpenAI) -> None:
        stream = await client.completions.create(
            model="m", prompt=["a", "b"], n=2, stream=True, stream_options={"include_usage": True}
        )
        texts, ends, usage = dict.fromkeys(range(4), ""), list[int](), None
        async for chunk in stream:
            for choice in chunk.choices:
                texts[choice.index] += choice.text
                ends += [choice.index] if choice.finish_reason else []
            usage = chunk.usage
        assert list(texts.values()) == ["a on", "a on", "b on", "b on"]
        assert sorted(ends) == [0, 1, 2, 3]
        assert usage is not None
        # Two prompts are read, four answers written.
        assert (usage.prompt_tokens, usage.completion_tokens) == (6, 8)

    _with_client(_goes_on, use)


def test_a_completion_that_fails_is_an_error() -> None:
    async def script(request: RunRequest) -> AsyncGenerator[RunEvent, None]:
        yield PlanTask(run=request.run, task="t1", text="x", depends_on=[])
        raise TaskFailed("the engine failed")

    async def use(client: AsyncOpenAI) -> None:
        with pytest.raises(APIStatusError) as failed:
            await client.completions.create(model="m", prompt="Go")
        assert (failed.value.status_code, failed.value.code) == (502, "task_failed")

    _with_client(script, use)
