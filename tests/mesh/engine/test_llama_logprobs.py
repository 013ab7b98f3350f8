"""What a local model tells of its tokens, and raw prompts that it goes on with."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Generator
from typing import Any

import pytest
from small_model import Served, collect_deltas, request

from monai_node.mesh.engine.llama import LlamaOptions
from monai_node.registry.errors import InvalidRequest
from monai_node.registry.wire import TaskCompleted, TaskInput, TaskRequest, TokenLogprob

pytestmark = pytest.mark.model

CAPITAL = "The capital of France is"


@pytest.fixture(scope="module")
def served() -> Generator[Served]:
    with asyncio.Runner() as runner:
        served = Served(runner, LlamaOptions(n_ctx=256, n_threads=2))
        yield served
        served.close()


def completion(text: str, *tokens: int, **parameters: Any) -> TaskRequest:
    task = TaskInput(text=text, tokens=list(tokens), is_completion=True)
    return request(**parameters).model_copy(update={"input": task})


def told(served: Served, asked: TaskRequest) -> tuple[str, list[TokenLogprob], TaskCompleted]:
    deltas, completed = served.run(collect_deltas(served.engine, asked))
    text = "".join(delta.text for delta in deltas)
    return text, [token for delta in deltas for token in delta.logprobs], completed


def test_every_token_is_told_with_the_likeliest_in_its_place(served: Served) -> None:
    text, tokens, completed = told(served, request("Say hello.", logprobs=3, max_tokens=4))
    assert len(tokens) == completed.usage.completion_tokens
    assert b"".join(bytes(token.bytes or ()) for token in tokens).decode() == text
    for token in tokens:
        chances = [each.logprob for each in token.top]
        assert chances == sorted(chances, reverse=True)
        # Greedy: what was chosen is the likeliest.
        assert (token.token, token.logprob) == (token.top[0].token, token.top[0].logprob)
        assert sum(map(math.exp, chances)) <= 1.0
    assert told(served, request("Say hello.", max_tokens=4))[:2] == (text, [])


def test_chances_are_the_model_s_own_whatever_was_drawn(served: Served) -> None:
    calm = told(served, request("Say hello.", logprobs=0, max_tokens=1))[1][0]
    biased = told(served, request("Say hello.", logprobs=1, max_tokens=1, logit_bias={"28": 100.0}))[1][0]
    assert calm.top == []
    assert biased.token != calm.token
    assert biased.logprob is not None
    assert biased.logprob < (calm.logprob or 0.0) == biased.top[0].logprob


def test_a_raw_prompt_is_gone_on_with_as_it_is(served: Served) -> None:
    text, _, completed = told(served, completion(CAPITAL, max_tokens=1))
    assert (text, completed.usage.prompt_tokens) == (" Paris", 5)
    # Whoever writes a raw prompt writes its control tokens too.
    chat = "<|im_start|>user\nSay hello.<|im_end|>\n<|im_start|>assistant\n"
    assert told(served, completion(chat, max_tokens=1))[2].usage.prompt_tokens < 16


def test_an_echo_tells_how_likely_the_prompt_is(served: Served) -> None:
    text, tokens, completed = told(served, completion(CAPITAL, echo=True, logprobs=1, max_tokens=0))
    assert text == CAPITAL
    assert [token.token for token in tokens] == ["The", " capital", " of", " France", " is"]
    assert tokens[0].logprob is None
    assert all(token.logprob is not None and token.logprob < 0 for token in tokens[1:])
    assert (completed.finish_reason, completed.usage.completion_tokens) == ("length", 0)
    # As likely as they would be were they written.
    written = told(served, completion(CAPITAL, logprobs=0, max_tokens=1))[1][0]
    whole = told(served, completion(f"{CAPITAL} Paris", echo=True, logprobs=0, max_tokens=0))[1][-1]
    assert whole.token == written.token == " Paris"
    assert math.isclose(whole.logprob or 0.0, written.logprob or 1.0, abs_tol=0.02)


def test_a_prompt_in_ids_is_the_same_prompt(served: Served) -> None:
    ids = (504, 3575, 282, 4649, 314)
    assert told(served, completion("", *ids, echo=True, max_tokens=1))[0] == f"{CAPITAL} Paris"
    with pytest.raises(InvalidRequest, match="no token above"):
        told(served, completion("", 10**6))


def test_an_echo_that_was_shown_is_not_given_again(served: Served) -> None:
    asked = completion(CAPITAL, echo=True, max_tokens=2)
    whole = told(served, asked)[0]
    again = told(served, asked.model_copy(update={"prefix": f"{CAPITAL} Paris"}))[0]
    assert f"{CAPITAL} Paris{again}" == whole
