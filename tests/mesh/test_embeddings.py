from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from monai_node.mesh.embeddings import CHARS_MAX, TOKENS_MAX, Embedded, EmbeddingModel, Embeddings, Text
from monai_node.registry.errors import ContextLengthExceeded, InvalidRequest
from monai_node.router.embed import Vectors

NO_TOKENS: list[int] = []


class CountingEmbedder:
    """A token is a character; a vector says the first token and how many there are."""

    model = EmbeddingModel("letters", 2, 100, 1000)

    def __init__(self) -> None:
        self.batch_sizes: list[int] = []
        self.running_count = 0

    async def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        return [[ord(letter) for letter in text] for text in texts]

    async def embed_tokens(self, texts: Sequence[Sequence[int]]) -> Vectors:
        self.running_count += 1
        assert self.running_count == 1
        self.batch_sizes.append(len(texts))
        await asyncio.sleep(0)
        self.running_count -= 1
        return np.array([[tokens[0], len(tokens)] for tokens in texts], np.float32)


def _embed(*texts: Text) -> Embedded:
    return asyncio.run(Embeddings(CountingEmbedder()).embed(texts))


def test_texts_and_tokens_keep_their_order_and_are_counted() -> None:
    found = _embed("ab", [7, 8, 9], "c", [5])
    assert found.vectors.tolist() == [[97, 2], [7, 3], [99, 1], [5, 1]]
    assert found.token_count == 7


def test_many_texts_go_in_batches_one_at_a_time_whoever_asks() -> None:
    embedder = CountingEmbedder()

    async def main(texts: list[str]) -> None:
        embeddings = Embeddings(embedder)
        found = await asyncio.gather(*(embeddings.embed(texts) for _ in range(3)))
        assert [each.vectors.shape for each in found] == [(len(texts), 2)] * 3

    asyncio.run(main(["a"] * 130))
    assert sorted(embedder.batch_sizes) == [2] * 3 + [64] * 6
    asyncio.run(main(["a" * 100] * 41))
    assert sorted(embedder.batch_sizes[-6:]) == [1] * 3 + [40] * 3


@pytest.mark.parametrize(
    ("texts", "error", "param"),
    [
        (["a", ""], InvalidRequest, "input.1"),
        (["a", NO_TOKENS], InvalidRequest, "input.1"),
        ([[1000]], InvalidRequest, "input.0"),
        ([[-1]], InvalidRequest, "input.0"),
        (["a"] * 64 + ["b" * 101], ContextLengthExceeded, "input.64"),
        ([[1] * 101], ContextLengthExceeded, "input.0"),
        (["a" * (CHARS_MAX + 1)], ContextLengthExceeded, "input.0"),
        ([[1] * 100] * (TOKENS_MAX // 100 + 1), InvalidRequest, "input"),
    ],
)
def test_what_cannot_be_read_is_named(texts: list[Text], error: type[InvalidRequest], param: str) -> None:
    with pytest.raises(error) as caught:
        _embed(*texts)
    assert caught.value.param == param
