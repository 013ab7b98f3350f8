"""`POST /v1/embeddings` over real sockets, before a backend that makes simple vectors."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import numpy as np
import pytest
from openai import (
    AsyncOpenAI,
    BadRequestError,
    DefaultAsyncHttpxClient,
    NotFoundError,
    PermissionDeniedError,
    UnprocessableEntityError,
)

from monai_node.mesh.embeddings import EmbeddingModel
from monai_node.mesh.gateway.access.access import Access
from monai_node.mesh.gateway.app import create_app
from monai_node.mesh.gateway.backend import ModelEntry
from monai_node.mesh.gateway.hook import Hook, HookRequest, HookVerdict
from monai_node.mesh.gateway.http.server import open_server
from monai_node.mesh.gateway.openai.embeddings import INPUTS_MAX, embedding_body, fewer_dimensions
from monai_node.mesh.gateway.testing import ScriptedBackend
from monai_node.mesh.keys import new_key
from monai_node.registry.errors import InvalidRequest

MODEL = EmbeddingModel("all-minilm-l6-v2", 3, 254, 30_522)

Use = Callable[[AsyncOpenAI], Awaitable[None]]


def _with_client(
    use: Use, backend: ScriptedBackend | None = None, access: Access | None = None, hook: Hook | None = None
) -> None:
    async def main() -> None:
        app = create_app(
            backend
            or ScriptedBackend(entries=[ModelEntry("smollm2", "12D3KooWanna", "anna")], embeds_with=MODEL),
            access=access,
            hook=hook,
        )
        async with asyncio.timeout(15), open_server(app, "127.0.0.1", 0) as address:
            plain = DefaultAsyncHttpxClient(verify=False)
            base = f"{address.url}/v1"
            async with AsyncOpenAI(base_url=base, api_key="x", max_retries=0, http_client=plain) as client:
                await use(client)

    asyncio.run(main())


def test_every_form_of_input_in_both_encodings() -> None:
    async def use(client: AsyncOpenAI) -> None:
        for given, lengths in (
            ("four", [4]),
            (["four", "fives"], [4, 5]),
            ([101, 102, 103], [3]),
            ([[101], [102, 103]], [1, 2]),
        ):
            for encoding in ("float", "base64"):
                # As sent: the client itself asks for base64 and decodes it.
                answer = await client.embeddings.with_raw_response.create(
                    model="mesh", input=given, encoding_format=encoding
                )
                found = json.loads(answer.content)
                assert (found["object"], found["model"]) == ("list", "all-minilm-l6-v2")
                assert found["usage"] == {"prompt_tokens": len(lengths), "total_tokens": len(lengths)}
                for n, (row, length) in enumerate(zip(found["data"], lengths, strict=True)):
                    assert (row["object"], row["index"]) == ("embedding", n)
                    shown = row["embedding"]
                    if encoding == "base64":
                        shown = np.frombuffer(base64.b64decode(shown), "<f4")
                    wanted = np.array([length, 2, 1]) / np.linalg.norm([length, 2, 1])
                    assert np.allclose(shown, wanted, atol=1e-6)
        parsed = await client.embeddings.create(model="all-minilm-l6-v2", input="four", dimensions=2)
        assert np.allclose(parsed.data[0].embedding, np.array([4, 2]) / np.linalg.norm([4, 2]), atol=1e-6)

    _with_client(use)


def test_the_model_is_listed_and_others_are_refused() -> None:
    async def use(client: AsyncOpenAI) -> None:
        listed = await client.models.retrieve("all-minilm-l6-v2")
        assert listed.model_extra is not None
        assert listed.model_extra["mesh"]["features"] == ["embeddings"]
        for name in ("smollm2", "smollm2@12D3KooWanna"):
            with pytest.raises(UnprocessableEntityError) as caught:
                await client.embeddings.create(model=name, input="x")
            assert caught.value.param == "model"
        with pytest.raises(NotFoundError) as missing:
            await client.embeddings.create(model="text-embedding-3-small", input="x")
        assert missing.value.code == "model_not_found"
        with pytest.raises(BadRequestError) as wrong:
            await client.embeddings.create(model="mesh", input="x", dimensions=4)
        assert wrong.value.param == "dimensions"

    _with_client(use)


def test_a_gateway_without_a_model_says_so() -> None:
    async def use(client: AsyncOpenAI) -> None:
        with pytest.raises(UnprocessableEntityError):
            await client.embeddings.create(model="mesh", input="x")
        assert [model.id async for model in client.models.list()] == ["mesh"]

    _with_client(use, ScriptedBackend())


def test_embeddings_count_for_their_callers_budget() -> None:
    key, secret = new_key(0.0, rights=("chat",), tokens_per_day=1)

    async def use(client: AsyncOpenAI) -> None:
        async with httpx.AsyncClient(verify=False, headers={"authorization": f"Bearer {secret}"}) as mine:
            url = f"{client.base_url}embeddings"
            answers = [await mine.post(url, json={"input": ["a", "b"]}) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 429]

    _with_client(use, access=Access([key], requires_key=True))


def test_the_owners_hook_is_asked_before_anything_is_embedded() -> None:
    def refuse(request: HookRequest) -> HookVerdict:
        return HookVerdict("not here, please")

    async def use(client: AsyncOpenAI) -> None:
        with pytest.raises(PermissionDeniedError, match="not here, please"):
            await client.embeddings.create(model="mesh", input="x")

    _with_client(use, hook=Hook(refuse, "refuse"))


# --- the body -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": []}, "input"),
        ({"input": 3}, "input"),
        ({"input": ["a", 1]}, "input"),
        ({"input": ["a"] * (INPUTS_MAX + 1)}, "input"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
        ({"input": "a", "mesh": {"privcay": "local"}}, "mesh.privcay"),
    ],
)
def test_a_wrong_field_is_named(body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        embedding_body(json.dumps(body).encode())
    assert (caught.value.param or "").startswith(param)


def test_a_vector_of_zeros_in_the_first_dimensions_stays_one() -> None:
    vectors = np.array([[0, 0, 1]], np.float32)
    assert fewer_dimensions(vectors, 2, MODEL).tolist() == [[0, 0]]
