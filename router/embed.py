"""Texts to unit vectors: the protocol, and a cache by text."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Vector = NDArray[np.float32]

# About 30 MB of vectors with 384 dimensions.
CACHED_TEXTS_MAX = 20_000


class Embedder(Protocol):
    """Maps texts to unit vectors, off the event loop."""

    @property
    def fingerprint(self) -> str:
        """Names model and weights: vectors of different fingerprints are never compared."""
        ...

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Shape (len(texts), dimensions), float32, each row of length 1."""
        ...


def text_key(fingerprint: str, text: str) -> bytes:
    """What stands for a text where vectors are kept: a hash, so that the text is not."""
    return hashlib.sha256(f"{fingerprint}\0{text}".encode("utf-8", "surrogatepass")).digest()


class CachedEmbedder:
    """An embedder that computes each text once while it is remembered, also when several ask at once.

    Keeps hashes, never texts. Least recently used vectors are forgotten first. A caller that waits
    for a text another one is computing computes it itself when that one fails or is cancelled.
    """

    def __init__(self, embedder: Embedder, texts_max: int = CACHED_TEXTS_MAX) -> None:
        self._embedder = embedder
        self._texts_max = texts_max
        self._vectors: OrderedDict[bytes, Vector] = OrderedDict()
        self._in_flight: dict[bytes, asyncio.Event] = {}

    def __len__(self) -> int:
        return len(self._vectors)

    @property
    def fingerprint(self) -> str:
        return self._embedder.fingerprint

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """One row a text; raises what the embedder raises. No texts are passed on to the embedder,
        which knows the number of dimensions."""
        if not texts:
            return await self._embedder.embed(texts)
        keys = [text_key(self.fingerprint, text) for text in texts]
        missing = dict(zip(keys, texts, strict=True))
        found: dict[bytes, Vector] = {}
        while True:
            self._take(missing, found)
            if not missing:
                return np.stack([found[key] for key in keys])
            ours = {key: text for key, text in missing.items() if key not in self._in_flight}
            if ours:
                found.update(await self._compute(ours))
            else:
                await self._in_flight[next(iter(missing))].wait()

    def _take(self, missing: dict[bytes, str], found: dict[bytes, Vector]) -> None:
        for key in list(missing):
            if key in self._vectors:
                self._vectors.move_to_end(key)
                found[key] = self._vectors[key]
            if key in found:
                del missing[key]

    async def _compute(self, texts: dict[bytes, str]) -> dict[bytes, Vector]:
        computed = asyncio.Event()
        self._in_flight.update(dict.fromkeys(texts, computed))
        try:
            rows = await self._embedder.embed(list(texts.values()))
            # Copies: a row that is a view would keep the vectors of its whole batch.
            vectors = {key: row.copy() for key, row in zip(texts, rows, strict=True)}
        finally:
            for key in texts:
                del self._in_flight[key]
            computed.set()
        self._vectors.update(vectors)
        while len(self._vectors) > self._texts_max:
            self._vectors.popitem(last=False)
        return vectors
