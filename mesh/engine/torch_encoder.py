# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
"""torch's side of the embedding model: token ids of several texts in, one mean vector a text out.

All texts of a batch stand one behind the other, so that nothing is filled up; only attention looks at each
by itself. Beside sentence-transformers, whose vectors these are, a request took 10 to 12 ms instead of 16 to
20 (p50 of 300 of the router's benchmark, one thread; p95 22 to 26 instead of 28 to 36), batches of mixed
lengths a third.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

Vectors = NDArray[np.float32]

# The model's config.json.
_WIDTH = 384
_LAYERS = 6
_HEADS = 12
_EPSILON = 1e-12
_PRODUCTS = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)


def open_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file whose content is trusted, by their names there.

    Those that states are multiplied with lie in memory column by column: with the 6 to 15 tokens of most
    requests MKL then takes 6 to 8 ms for all of them instead of 7 to 12, and with more no longer.
    """
    weights = load_file(path)
    for layer in range(_LAYERS):
        for product in _PRODUCTS:
            name = f"encoder.layer.{layer}.{product}.weight"
            weights[name] = weights[name].t().contiguous().t()
    return weights


class Encoder:
    """all-MiniLM-L6-v2 over the tensors of `open_weights`. It computes in the thread that calls it."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        self._weights = weights
        places = weights["embeddings.position_embeddings.weight"]
        self._places = places + weights["embeddings.token_type_embeddings.weight"][0]

    @torch.inference_mode()
    def __call__(self, texts: Sequence[Sequence[int]]) -> Vectors:
        """Unit vectors [len(texts), 384]; each text has 1 to 512 tokens."""
        counts = [len(tokens) for tokens in texts]
        tokens = torch.tensor([token for tokens in texts for token in tokens])
        states = F.embedding(tokens, self._weights["embeddings.word_embeddings.weight"])
        states = states + torch.cat([self._places[:count] for count in counts])
        states = self._norm("embeddings.LayerNorm", states)
        for layer in range(_LAYERS):
            states = self._layer(f"encoder.layer.{layer}.", states, counts)
        means = torch.stack([mine.mean(0) for mine in torch.split(states, counts)])
        return F.normalize(means).numpy()

    def _layer(self, prefix: str, states: Tensor, counts: list[int]) -> Tensor:
        asked, keys, values = (
            torch.split(self._product(f"{prefix}attention.self.{name}", states), counts)
            for name in ("query", "key", "value")
        )
        mixed = torch.cat([_attended(*text) for text in zip(asked, keys, values, strict=True)])
        mixed = self._product(f"{prefix}attention.output.dense", mixed)
        states = self._norm(f"{prefix}attention.output.LayerNorm", states + mixed)
        wide = F.gelu(self._product(f"{prefix}intermediate.dense", states))
        return self._norm(f"{prefix}output.LayerNorm", states + self._product(f"{prefix}output.dense", wide))

    def _product(self, name: str, states: Tensor) -> Tensor:
        return F.linear(states, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

    def _norm(self, name: str, states: Tensor) -> Tensor:
        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        return F.layer_norm(states, (_WIDTH,), weight, bias, _EPSILON)


def _attended(asked: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Of one text, [tokens, _WIDTH] each, to the same shape."""
    mixed = F.scaled_dot_product_attention(_by_head(asked), _by_head(keys), _by_head(values))
    return mixed[0].transpose(0, 1).flatten(1)


def _by_head(states: Tensor) -> Tensor:
    return states.view(1, -1, _HEADS, _WIDTH // _HEADS).transpose(1, 2)
