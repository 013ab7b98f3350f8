"""Texts of users to vectors: what stands behind `POST /v1/embeddings`. The model is the one that the gateway
routes by, and requests come first."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from monai_node.mesh.minilm import batched
from monai_node.registry.errors import ContextLengthExceeded, InvalidRequest
from monai_node.router.embed import Vectors

# Of one call of the embedder: about 1.1 s of one core in torch, twice that in llama.cpp.
_BATCH_TEXTS = 64
_BATCH_TOKENS = 4096
# Of one text. So many characters have more tokens than the model reads, unless words are hundreds of letters.
CHARS_MAX = 16_384
TOKENS_MAX = 300_000  # of one request: OpenAI's bound

Text = str | Sequence[int]  # or its tokens


@dataclass(frozen=True, slots=True)
class EmbeddingModel:
    """It reads `tokens_max` tokens of a text, each of them less than `vocabulary`."""

    alias: str
    dimensions: int
    tokens_max: int
    vocabulary: int


@dataclass(frozen=True, slots=True)
class Embedded:
    """`vectors` [texts, dimensions], float32, each of length 1; `token_count` of all texts together."""

    vectors: Vectors
    token_count: int


class TokenEmbedder(Protocol):
    @property
    def model(self) -> EmbeddingModel: ...

    async def tokens(self, texts: Sequence[str]) -> list[list[int]]: ...

    async def embed_tokens(self, texts: Sequence[Sequence[int]]) -> Vectors: ...


class Embeddings:
    """Embeds in batches, one at a time whoever asks."""

    def __init__(self, embedder: TokenEmbedder) -> None:
        self._embedder = embedder
        self._turn = asyncio.Lock()

    @property
    def model(self) -> EmbeddingModel:
        return self._embedder.model

    async def embed(self, texts: Sequence[Text]) -> Embedded:
        """InvalidRequest or ContextLengthExceeded, naming the text, for what the model cannot read;
        TaskFailed when the embedder fails."""
        tokens: list[Sequence[int]] = []
        for start in range(0, len(texts), _BATCH_TEXTS):
            found = await self._tokens(texts[start : start + _BATCH_TEXTS], start)
            for n, each in enumerate(found, start):
                self._check(each, f"input.{n}")
            tokens += found
        count = sum(map(len, tokens))
        if count > TOKENS_MAX:
            raise InvalidRequest(f"input has {count} tokens in all; send at most {TOKENS_MAX}", param="input")
        vectors = [np.empty((0, self.model.dimensions), np.float32)]
        for batch in batched(tokens, _BATCH_TOKENS, _BATCH_TEXTS):
            async with self._turn:
                vectors.append(await self._embedder.embed_tokens(batch))
        return Embedded(np.concatenate(vectors), count)

    async def _tokens(self, batch: Sequence[Text], start: int) -> list[Sequence[int]]:
        for n, text in enumerate(batch, start):
            if isinstance(text, str) and len(text) > CHARS_MAX:
                raise ContextLengthExceeded(
                    f"input.{n} has {len(text)} characters; send at most {CHARS_MAX}", param=f"input.{n}"
                )
        written = [text for text in batch if isinstance(text, str)]
        async with self._turn:
            read = iter(await self._embedder.tokens(written)) if written else iter(())
        return [next(read) if isinstance(text, str) else text for text in batch]

    def _check(self, tokens: Sequence[int], param: str) -> None:
        if not tokens:
            raise InvalidRequest(f"{param} is empty", param=param)
        if len(tokens) > self.model.tokens_max:
            raise ContextLengthExceeded(
                f"{param} has {len(tokens)} tokens; {self.model.alias} reads at most {self.model.tokens_max}",
                param=param,
            )
        if min(tokens) < 0 or max(tokens) >= self.model.vocabulary:
            raise InvalidRequest(f"{param} has a token that {self.model.alias} does not know", param=param)
