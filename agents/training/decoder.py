"""A small Llama decoder in PyTorch whose weights are llama.cpp's own, value by value.

ggml's `llama` architecture rotates neighbouring pairs of a head's values (0, 1), (2, 3), …; so does this
decoder. Weights therefore travel between the two without the permutation of q and k that decoders of
the "rotate half" kind need, and that nobody notices when it is wrong: such a file loads, and the model
is only a little worse. tests/agents/training hold both against each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

# The seven matrices of a block: their names here, and in llama.cpp's files.
MATRICES = {
    "q": "attn_q",
    "k": "attn_k",
    "v": "attn_v",
    "o": "attn_output",
    "gate": "ffn_gate",
    "up": "ffn_up",
    "down": "ffn_down",
}


@dataclass(frozen=True, slots=True)
class DecoderShape:
    """Sizes of a decoder. `heads` divides `width`, `kv_heads` divides `heads`; rows of matrices are
    multiples of 32 wherever a file in Q8_0 is to be written."""

    vocabulary: int
    width: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 4
    feed_forward: int = 384
    context: int = 512
    rope_base: float = 10_000.0
    norm_epsilon: float = 1e-5

    @property
    def head_width(self) -> int:
        return self.width // self.heads


class Norm(nn.Module):
    """Root-mean-square normalisation with a learnt scale per channel."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self._epsilon = epsilon

    def forward(self, states: Tensor) -> Tensor:
        return functional.rms_norm(states, self.weight.shape, self.weight, self._epsilon)


class Block(nn.Module):
    """Attention and a gated feed-forward layer, each behind a norm and added to its input."""

    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        self._heads, self._kv_heads = shape.heads, shape.kv_heads
        narrow = shape.kv_heads * shape.head_width
        self.attention_norm = Norm(shape.width, shape.norm_epsilon)
        self.feed_forward_norm = Norm(shape.width, shape.norm_epsilon)
        self.q: nn.Module = nn.Linear(shape.width, shape.width, bias=False)
        self.k: nn.Module = nn.Linear(shape.width, narrow, bias=False)
        self.v: nn.Module = nn.Linear(shape.width, narrow, bias=False)
        self.o: nn.Module = nn.Linear(shape.width, shape.width, bias=False)
        self.gate: nn.Module = nn.Linear(shape.width, shape.feed_forward, bias=False)
        self.up: nn.Module = nn.Linear(shape.width, shape.feed_forward, bias=False)
        self.down: nn.Module = nn.Linear(shape.feed_forward, shape.width, bias=False)

    def forward(self, states: Tensor, turns: Tensor) -> Tensor:
        """[batch, tokens, width] to the same; `turns` [tokens, head_width / 2] are complex numbers."""
        states = states + self._attend(self.attention_norm(states), turns)
        inner = self.feed_forward_norm(states)
        return states + self.down(functional.silu(self.gate(inner)) * self.up(inner))

    def _attend(self, states: Tensor, turns: Tensor) -> Tensor:
        batch, tokens, width = states.shape
        q = _rotate(self.q(states).view(batch, tokens, self._heads, -1), turns)
        k = _rotate(self.k(states).view(batch, tokens, self._kv_heads, -1), turns)
        v = self.v(states).view(batch, tokens, self._kv_heads, -1)
        shared = self._heads // self._kv_heads
        k, v = (part.repeat_interleave(shared, dim=2).transpose(1, 2) for part in (k, v))
        seen = functional.scaled_dot_product_attention(q.transpose(1, 2), k, v, is_causal=True)
        return self.o(seen.transpose(1, 2).reshape(batch, tokens, width))


def _rotate(heads: Tensor, turns: Tensor) -> Tensor:
    """Turn every pair of neighbouring values, seen as a complex number, by its position's angle."""
    pairs = torch.view_as_complex(heads.reshape(*heads.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turns[:, None, :]).flatten(-2)


class Decoder(nn.Module):
    """Token ids to logits; the matrix of the embedding reads the answer out as well.

    Padding belongs behind the tokens: attention looks back only, so no token ever sees it.
    """

    turns: Tensor

    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = Norm(shape.width, shape.norm_epsilon)
        self.register_buffer("turns", turns_of(shape), persistent=False)
        nn.init.normal_(self.embedding.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """[batch, tokens] to logits [batch, tokens, vocabulary]."""
        return self.read(self.through(self.embedding(tokens)))

    def through(self, states: Tensor, first: int = 0, end: int | None = None) -> Tensor:
        """States [batch, tokens, width] after the blocks from `first` to before `end`."""
        turns = self.turns[: states.shape[1]]
        for block in list(self.blocks)[first:end]:
            states = block(states, turns)
        return states

    def read(self, states: Tensor, vocabulary: Sequence[int] | None = None) -> Tensor:
        """Logits of the last block's states, for all tokens or for those named, in their order."""
        weight = self.embedding.weight
        if vocabulary is not None:
            weight = weight[torch.as_tensor(vocabulary, device=weight.device)]
        return functional.linear(self.norm(states), weight)


def turns_of(shape: DecoderShape) -> Tensor:
    """How far each pair of a head is turned at each position: complex [context, head_width / 2]."""
    pairs = torch.arange(0, shape.head_width, 2, dtype=torch.float64)
    speeds = shape.rope_base ** (-pairs / shape.head_width)
    angles = torch.outer(torch.arange(shape.context, dtype=torch.float64), speeds)
    return torch.polar(torch.ones_like(angles), angles).to(torch.complex64)


def tensor_names(shape: DecoderShape) -> list[tuple[str, str]]:
    """Every tensor of a decoder: its name in a GGUF file, and in the decoder's state."""
    names = [("token_embd.weight", "embedding.weight"), ("output_norm.weight", "norm.weight")]
    for index in range(shape.layers):
        theirs, ours = f"blk.{index}", f"blocks.{index}"
        names.append((f"{theirs}.attn_norm.weight", f"{ours}.attention_norm.weight"))
        names.append((f"{theirs}.ffn_norm.weight", f"{ours}.feed_forward_norm.weight"))
        names += [(f"{theirs}.{name}.weight", f"{ours}.{matrix}.weight") for matrix, name in MATRICES.items()]
    return names
