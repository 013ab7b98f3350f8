# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
"""The network of the small labeller, in PyTorch: for training it, and for the process that runs it.

The words are read by all-MiniLM-L6-v2, whose weights are given and never changed; low-rank additions
adapt its upper half. A segment is the mean of its token states and its first one, from the lower and from
the upper half, with its marks. Two layers of attention over the segments give label logits; one more over
those that start tasks gives edge logits, to which the rules' own links are one more hint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from monai_node.agents.labellers.features import (
    BOUNDARIES,
    KINDS,
    LABELS,
    SEGMENTS_MAX,
    SEPARATOR,
    TRAITS,
    Features,
)

WIDTH = 384
LAYERS = 6
HEADS = 12
_EPSILON = 1e-12
CLS, SEP = 101, SEPARATOR

# The layers below are used as they are, so that training computes their states once.
ADAPTED_FROM = 3
RANK = 32
HEAD_WIDTH = 192
_TASK_DISTANCE_MAX = 4
_TASKS_MAX = SEGMENTS_MAX
# The products that are adapted, and their [out, in].
_ADAPTED = {
    "attention.self.query": (WIDTH, WIDTH),
    "attention.self.key": (WIDTH, WIDTH),
    "attention.self.value": (WIDTH, WIDTH),
    "attention.output.dense": (WIDTH, WIDTH),
    "intermediate.dense": (4 * WIDTH, WIDTH),
    "output.dense": (WIDTH, 4 * WIDTH),
}


@dataclass(frozen=True, slots=True)
class Batch:
    """`tokens` [batch, length], 0 beyond the end; `owners` the segment of each token, -1 for none;
    `marks` [batch, segments, 3 + TRAITS], -1 beyond the last segment."""

    tokens: Tensor
    owners: Tensor
    marks: Tensor

    @property
    def exists(self) -> Tensor:
        return self.marks[..., 0] >= 0


def batch_of(rows: Sequence[Features], device: str = "cpu") -> Batch:
    length = max(len(row.tokens) for row in rows) + 2
    count = max(len(row.marks) for row in rows)
    tokens = torch.zeros(len(rows), length, dtype=torch.long)
    owners = torch.full((len(rows), length), -1, dtype=torch.long)
    marks = torch.full((len(rows), count, 3 + TRAITS), -1, dtype=torch.long)
    for at, row in enumerate(rows):
        end = len(row.tokens) + 1
        tokens[at, : end + 1] = torch.tensor([CLS, *row.tokens, SEP])
        owners[at, 1:end] = torch.tensor(row.owners, dtype=torch.long)
        marks[at, : len(row.marks)] = torch.tensor(row.marks)
    return Batch(tokens.to(device), owners.to(device), marks.to(device))


class Adapter(nn.Module):
    """A low-rank addition to one product; nothing until it is trained."""

    def __init__(self, outputs: int, inputs: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(RANK, inputs) / inputs**0.5)
        self.up = nn.Parameter(torch.zeros(outputs, RANK))

    def forward(self, states: Tensor) -> Tensor:
        return F.linear(F.linear(states, self.down), self.up)


class Encoder(nn.Module):
    """MiniLM with additions. `base` is held, not registered: it is neither trained nor saved."""

    def __init__(self, base: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.base = dict(base)
        self.adapters = nn.ModuleDict(
            {
                f"{layer}_{name.replace('.', '_')}": Adapter(*shape)
                for layer in range(ADAPTED_FROM, LAYERS)
                for name, shape in _ADAPTED.items()
            }
        )
        self.dropout = nn.Dropout(0.1)

    @torch.no_grad()
    def lower(self, tokens: Tensor) -> Tensor:
        """The states after the layers that are not adapted: [batch, length, WIDTH]."""
        states = self._embed(tokens)
        for layer in range(ADAPTED_FROM):
            states = self._layer(layer, states, _allowed(tokens))
        return states

    def upper(self, states: Tensor, tokens: Tensor) -> Tensor:
        """The last states, from those of `lower`."""
        states = self.dropout(states)
        for layer in range(ADAPTED_FROM, LAYERS):
            states = self._layer(layer, states, _allowed(tokens))
        return states

    def _embed(self, tokens: Tensor) -> Tensor:
        states = F.embedding(tokens, self.base["embeddings.word_embeddings.weight"])
        states = states + self.base["embeddings.position_embeddings.weight"][: tokens.shape[1]]
        states = states + self.base["embeddings.token_type_embeddings.weight"][0]
        return self._norm("embeddings.LayerNorm", states)

    def _layer(self, layer: int, states: Tensor, allowed: Tensor) -> Tensor:
        queries, keys, values = (
            _by_head(self._product(layer, f"attention.self.{name}", states))
            for name in ("query", "key", "value")
        )
        mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=allowed)
        mixed = self._product(layer, "attention.output.dense", mixed.transpose(1, 2).flatten(2))
        prefix = f"encoder.layer.{layer}."
        states = self._norm(prefix + "attention.output.LayerNorm", states + self._drop(layer, mixed))
        wide = F.gelu(self._product(layer, "intermediate.dense", states))
        narrow = self._product(layer, "output.dense", wide)
        return self._norm(prefix + "output.LayerNorm", states + self._drop(layer, narrow))

    def _product(self, layer: int, name: str, states: Tensor) -> Tensor:
        prefix = f"encoder.layer.{layer}.{name}"
        plain = F.linear(states, self.base[prefix + ".weight"], self.base[prefix + ".bias"])
        if layer < ADAPTED_FROM:
            return plain
        added: Tensor = self.adapters[f"{layer}_{name.replace('.', '_')}"](states)
        return plain + added

    def _drop(self, layer: int, states: Tensor) -> Tensor:
        return self.dropout(states) if layer >= ADAPTED_FROM else states

    def _norm(self, name: str, states: Tensor) -> Tensor:
        weight, bias = self.base[name + ".weight"], self.base[name + ".bias"]
        return F.layer_norm(states, (WIDTH,), weight, bias, _EPSILON)


def _by_head(states: Tensor) -> Tensor:
    rows, length, _ = states.shape
    return states.view(rows, length, HEADS, WIDTH // HEADS).transpose(1, 2)


def _allowed(tokens: Tensor) -> Tensor:
    return (tokens != 0)[:, None, None, :]


class SmallLabeller(nn.Module):
    """`read` gives the segments' states and label logits; `relate` the edge logits between some."""

    def __init__(self, base: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.encoder = Encoder(base)
        self.dropout = nn.Dropout(0.2)
        self.enter = nn.Linear(4 * WIDTH, HEAD_WIDTH)
        self.boundary = nn.Embedding(len(BOUNDARIES), HEAD_WIDTH)
        self.kind = nn.Embedding(len(KINDS), HEAD_WIDTH)
        self.rule = nn.Embedding(len(LABELS), HEAD_WIDTH)
        self.traits = nn.Linear(TRAITS, HEAD_WIDTH, bias=False)
        self.place = nn.Embedding(SEGMENTS_MAX, HEAD_WIDTH)
        self.layers = nn.ModuleList([_attention() for _ in range(2)])
        self.norm = nn.LayerNorm(HEAD_WIDTH)
        self.label = nn.Linear(HEAD_WIDTH, len(LABELS))
        self.order = nn.Embedding(_TASKS_MAX, HEAD_WIDTH)
        self.task_layer = _attention()
        self.task_norm = nn.LayerNorm(HEAD_WIDTH)
        self.query = nn.Linear(HEAD_WIDTH, HEAD_WIDTH)
        self.key = nn.Linear(HEAD_WIDTH, HEAD_WIDTH)
        self.distance = nn.Embedding(2 * _TASK_DISTANCE_MAX + 1, 1)
        self.hint = nn.Embedding(3, 1)
        for table in (self.boundary, self.kind, self.rule, self.place, self.order):
            nn.init.normal_(table.weight, std=0.02)
        nn.init.zeros_(self.distance.weight)
        # Where training starts: what the rules draw is likelier than not, what they do not draw is not.
        self.hint.weight.data = torch.tensor([[-2.0], [0.0], [1.5]])

    def read(self, batch: Batch, lower: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """States [batch, segments, HEAD_WIDTH] and logits [batch, segments, 3]. `lower` are the states of
        `Encoder.lower`, where they are known."""
        lower = self.encoder.lower(batch.tokens) if lower is None else lower
        upper = self.encoder.upper(lower, batch.tokens)
        pooled = _pool(torch.cat([upper, lower], dim=-1), batch)
        marks = batch.marks.clamp(min=0)
        states = self.enter(self.dropout(pooled)) + self.boundary(marks[..., 0]) + self.kind(marks[..., 1])
        states = states + self.rule(marks[..., 2]) + self.traits(marks[..., 3:].to(states.dtype))
        states = states + self.place.weight[: states.shape[1]]
        for layer in self.layers:
            states = layer(states, src_key_padding_mask=~batch.exists)
        states = self.norm(states)
        return states, self.label(states)

    def relate(self, states: Tensor, hints: Tensor) -> Tensor:
        """Edge logits [batch, tasks, tasks], row needs column, of the states of tasks in order.

        `hints` [batch, tasks, tasks] say what the rules draw: 0 nothing, 1 a link by default, 2 one that
        the words name; -1 in the rows and columns beyond the last task.
        """
        count = states.shape[1]
        exists = hints.diagonal(dim1=1, dim2=2) >= 0
        states = self.task_layer(states + self.order.weight[:count], src_key_padding_mask=~exists)
        states = self.task_norm(states)
        scores = self.query(states) @ self.key(states).transpose(1, 2) / HEAD_WIDTH**0.5
        places = torch.arange(count, device=states.device)
        apart = (places[:, None] - places[None, :]).clamp(-_TASK_DISTANCE_MAX, _TASK_DISTANCE_MAX)
        scores = scores + self.distance(apart + _TASK_DISTANCE_MAX)[..., 0]
        return scores + self.hint(hints.clamp(min=0))[..., 0]


def _attention() -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(
        HEAD_WIDTH, 4, 2 * HEAD_WIDTH, dropout=0.2, activation="gelu", batch_first=True, norm_first=True
    )


def _pool(states: Tensor, batch: Batch) -> Tensor:
    """Mean and first token state of every segment: [batch, segments, 2 * features]."""
    count = batch.marks.shape[1]
    is_own = batch.owners[:, None, :] == torch.arange(count, device=states.device)[None, :, None]
    weights = is_own.to(states.dtype)
    mean = weights @ states / weights.sum(-1, keepdim=True).clamp(min=1)
    first = is_own.to(torch.int8).argmax(-1)
    opening = states.gather(1, first[..., None].expand(-1, -1, states.shape[-1]))
    return torch.cat([mean, opening], dim=-1)
