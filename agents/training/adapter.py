"""Low-rank adapters beside the matrices of a decoder's upper blocks."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from monai_node.agents.training.decoder import MATRICES, Decoder


class Adapted(nn.Module):
    """A frozen matrix and what is learnt beside it: x W' + scale · x A' B', B being zero at first."""

    def __init__(self, base: nn.Linear, rank: int, scale: float, dropout: float) -> None:
        super().__init__()
        self.base = base
        self.a = nn.Parameter(torch.empty(rank, base.in_features))
        self.b = nn.Parameter(torch.zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))
        self._scale, self._dropout = scale, dropout

    def forward(self, states: Tensor) -> Tensor:
        low = functional.linear(states, self.a) * self._scale
        return self.base(states) + functional.linear(
            functional.dropout(low, self._dropout, self.training), self.b
        )


def adapt(
    decoder: Decoder, first_block: int, rank: int, scale: float, dropout: float = 0.0
) -> dict[str, Adapted]:
    """Put an adapter beside every matrix of the blocks from `first_block` on; by GGUF tensor name."""
    found: dict[str, Adapted] = {}
    for index, block in enumerate(decoder.blocks):
        if index >= first_block:
            for matrix, name in MATRICES.items():
                adapted = Adapted(getattr(block, matrix), rank, scale, dropout)
                setattr(block, matrix, adapted)
                found[f"blk.{index}.{name}.weight"] = adapted
    return found


def matrices_of(adapters: dict[str, Adapted]) -> dict[str, tuple[Tensor, Tensor]]:
    """A and B of each adapter, as `gguf_export.write_adapter` takes them."""
    return {name: (adapted.a, adapted.b) for name, adapted in adapters.items()}


class Average:
    """A running mean of parameters, which generalises better than where training happens to stop."""

    def __init__(self, parameters: list[nn.Parameter], decay: float) -> None:
        self._parameters, self._decay, self._steps = parameters, decay, 0
        self._mean = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def take(self) -> None:
        """Count the parameters as they are now; the first steps count as much as later ones."""
        self._steps += 1
        kept = min(self._decay, self._steps / (self._steps + 10))
        for mean, parameter in zip(self._mean, self._parameters, strict=True):
            mean.mul_(kept).add_(parameter, alpha=1 - kept)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the parameters and their mean; a second call undoes it."""
        for index, parameter in enumerate(self._parameters):
            now = parameter.detach().clone()
            parameter.copy_(self._mean[index])
            self._mean[index] = now
