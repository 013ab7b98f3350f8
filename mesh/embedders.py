"""Texts to vectors, and segments to labels, in a process of their own: the node's event loop never
stands still."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
from pydantic import BaseModel, TypeAdapter

from monai_node.agents.label import Label, Reading, label_by_rules
from monai_node.agents.labellers.decode import checked
from monai_node.agents.labellers.features import SEGMENTS_MAX
from monai_node.agents.segment import Segment
from monai_node.mesh.child import Child, ChildSpec, open_child
from monai_node.mesh.config import EmbedderChoice
from monai_node.mesh.embeddings import EmbeddingModel
from monai_node.registry.errors import TaskFailed
from monai_node.router.embed import Vectors

ALIAS = "all-minilm-l6-v2"  # as `GET /v1/models` lists it
BATCH_TEXTS_MAX = 64
# The model reads 256 tokens; what stands behind these characters cannot change a vector.
TEXT_CHARS_MAX = 2000
# More words than this have no room in the labeller's 512 positions.
LABEL_CHARS_MAX = 8000
# One batch, a restart of the process included.
_BATCH_SECONDS = 30.0

# A reading takes 0.1 s on an idle core; whoever plans sets a shorter limit, this one ends a hung process.
_LABEL_SECONDS = 10.0

# Everything is local and single-threaded: no look-up at a hub, no threads beside the engines'.
_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
}


class SentenceEmbedder:
    """all-MiniLM-L6-v2: 384 dimensions, English. Made by `open_embedder`."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._dimensions = int(child.info["dimensions"])
        self._fingerprint = str(child.info["fingerprint"])

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    @property
    def model(self) -> EmbeddingModel:
        info = self._child.info
        return EmbeddingModel(ALIAS, self._dimensions, int(info["tokens_max"]), int(info["vocabulary"]))

    @property
    def has_labeller(self) -> bool:
        """Whether `label` is more than a TaskFailed: it needs torch."""
        return bool(self._child.info["has_labeller"])

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, one row a text, of its first TEXT_CHARS_MAX characters. TaskFailed when the
        process dies or a batch takes longer than 30 s."""
        batches = [
            await self._vectors(
                "embed", [text[:TEXT_CHARS_MAX] for text in texts[start : start + BATCH_TEXTS_MAX]]
            )
            for start in range(0, len(texts), BATCH_TEXTS_MAX)
        ]
        return np.concatenate([np.empty((0, self._dimensions), np.float32), *batches])

    async def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text, all of them. TaskFailed as of `embed`."""
        return [cast("list[int]", found) for found in await self._call("tokens", list(texts))]

    async def embed_tokens(self, texts: Sequence[Sequence[int]]) -> Vectors:
        """As `embed`, of texts of 1 to `model.tokens_max` tokens, BATCH_TEXTS_MAX of them at most. Texts that
        others embed in the meantime come between."""
        return await self._vectors("embed_tokens", [list(tokens) for tokens in texts])

    async def label(self, segments: Sequence[Segment]) -> Reading:
        """What the small labeller makes of the segments of one request. Of payloads it is told only that
        they are there; a request too long for it is read by the rules. TaskFailed when the process dies,
        takes longer than 10 s or answers with what is no reading of these segments."""
        if not 0 < len(segments) <= SEGMENTS_MAX or sum(map(_chars, segments)) > LABEL_CHARS_MAX:
            return await asyncio.to_thread(label_by_rules, segments)
        try:
            async with (
                asyncio.timeout(_LABEL_SECONDS),
                aclosing(self._child.call("label", [_told(piece) for piece in segments])) as answers,
            ):
                found = [answer async for answer in answers]
        except TimeoutError:
            raise TaskFailed(f"the labeller did not answer within {_LABEL_SECONDS:g} s") from None
        try:
            answer = _ANSWER.validate_python(found[0])
            return checked(segments, Reading(answer.labels, answer.needs))
        except (IndexError, ValueError) as error:
            raise TaskFailed("the labeller returned no reading of these segments") from error

    async def _vectors(self, op: str, texts: list[Any]) -> Vectors:
        data = b"".join([cast(bytes, chunk) for chunk in await self._call(op, texts)])
        vectors = np.frombuffer(data, dtype="<f4")
        if len(vectors) != len(texts) * self._dimensions:
            raise TaskFailed("the embedder returned the wrong number of vectors")
        return vectors.reshape(len(texts), self._dimensions)

    async def _call(self, op: str, texts: list[Any]) -> list[Any]:
        try:
            async with (
                asyncio.timeout(_BATCH_SECONDS),
                aclosing(self._child.call(op, texts)) as answers,
            ):
                found = [answer async for answer in answers]
        except TimeoutError:
            raise TaskFailed(f"the embedder did not answer within {_BATCH_SECONDS:g} s") from None
        if self._child.info["fingerprint"] != self._fingerprint:
            raise TaskFailed("the embedder came back as another one; restart the gateway")
        return found


class _Answer(BaseModel):
    labels: tuple[Label, ...]
    needs: tuple[tuple[int, ...] | None, ...]


_ANSWER = TypeAdapter(_Answer)


def _chars(piece: Segment) -> int:
    return 0 if piece.kind == "payload" else len(piece.text)


def _told(piece: Segment) -> list[int | str]:
    """The fields of a segment; of a payload not its text."""
    text, masked = ("", "") if piece.kind == "payload" else (piece.text, piece.masked)
    return [piece.start, piece.end, text, masked, piece.kind, piece.boundary]


@asynccontextmanager
async def open_embedder(
    choice: EmbedderChoice, folder: Path, directory: Path | None = None
) -> AsyncGenerator[SentenceEmbedder]:
    """The embedder, ready; leaving ends its process. Without torch it keeps a GGUF file of 90 MB in
    `folder`, and labels nothing; its vectors then agree with those of torch to a cosine of 0.9999, under
    another fingerprint. `directory` replaces the packaged model's.

    SetupError when packages are missing, the weights are not the expected ones, or nothing can be kept in
    `folder`.
    """
    spec = ChildSpec(
        name="the embedder",
        entry="monai_node.mesh.embed_child.run",
        config={
            "choice": choice,
            "folder": str(folder),
            "directory": None if directory is None else str(directory),
        },
        environment=_ENVIRONMENT,
        load_seconds=120.0,  # importing torch takes long on a busy machine
    )
    async with open_child(spec) as child:
        yield SentenceEmbedder(child)


def open_sentence_embedder(directory: Path | None = None) -> AbstractAsyncContextManager[SentenceEmbedder]:
    """The embedder in torch, with the small labeller, which keeps nothing on disk."""
    return open_embedder("torch", Path(), directory)
