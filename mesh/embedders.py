"""Texts to vectors in a process of its own, so that the node's event loop never stands still."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import cast

import numpy as np

from monai_node.mesh.child import Child, ChildSpec, open_child
from monai_node.mesh.embed_child import WEIGHTS_SHA256
from monai_node.registry.errors import TaskFailed
from monai_node.router.embed import Embedder, Vectors

FINGERPRINT = f"sentence-transformers/all-MiniLM-L6-v2@sha256:{WEIGHTS_SHA256}"
BATCH_TEXTS_MAX = 64
# The model reads 256 tokens; what stands behind these characters cannot change a vector.
TEXT_CHARS_MAX = 2000
# One batch, a restart of the process included.
_BATCH_SECONDS = 30.0

# Everything is local and single-threaded: no look-up at a hub, no threads beside the engines'.
_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
}


class SentenceEmbedder:
    """all-MiniLM-L6-v2: 384 dimensions, English. Made by `open_sentence_embedder`."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._dimensions = int(child.info["dimensions"])

    @property
    def fingerprint(self) -> str:
        return FINGERPRINT

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, one row a text, of its first TEXT_CHARS_MAX characters. TaskFailed when the
        process dies or a batch takes longer than 30 s."""
        batches = [
            await self._batch([text[:TEXT_CHARS_MAX] for text in texts[start : start + BATCH_TEXTS_MAX]])
            for start in range(0, len(texts), BATCH_TEXTS_MAX)
        ]
        return np.concatenate([np.empty((0, self._dimensions), np.float32), *batches])

    async def _batch(self, texts: list[str]) -> Vectors:
        try:
            async with (
                asyncio.timeout(_BATCH_SECONDS),
                aclosing(self._child.call("embed", texts)) as chunks,
            ):
                data = b"".join([cast(bytes, chunk) async for chunk in chunks])
        except TimeoutError:
            raise TaskFailed(f"the embedder did not answer within {_BATCH_SECONDS:g} s") from None
        vectors = np.frombuffer(data, dtype="<f4")
        if len(vectors) != len(texts) * self._dimensions:
            raise TaskFailed("the embedder returned the wrong number of vectors")
        return vectors.reshape(len(texts), self._dimensions)


@asynccontextmanager
async def open_sentence_embedder(directory: Path | None = None) -> AsyncGenerator[Embedder]:
    """The embedder, ready; leaving ends its process. SetupError when the gateway's packages are
    missing or the weights are not the expected ones. `directory` replaces the packaged model's."""
    spec = ChildSpec(
        name="the embedder",
        entry="monai_node.mesh.embed_child.run",
        config={} if directory is None else {"directory": str(directory)},
        environment=_ENVIRONMENT,
        load_seconds=120.0,  # importing torch takes long on a busy machine
    )
    async with open_child(spec) as child:
        yield SentenceEmbedder(child)
