"""Texts to unit vectors: the protocol, and a cache by text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


class Embedder(Protocol):
    """Maps texts to unit vectors, off the event loop."""

    @property
    def fingerprint(self) -> str:
        """Names model and weights: vectors of different fingerprints are never compared."""
        ...

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Shape (len(texts), dimensions), float32, each row of length 1."""
        ...
