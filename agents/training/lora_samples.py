# pyright: reportUnknownMemberType=false
"""Requests with gold plans as the adapter learns them: tokens, targets, and the states below it."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from monai_node.agents.label import Reading, label_by_rules
from monai_node.agents.lora_labeller import ANSWERS, LABELS, Prompt, prompt_of
from monai_node.agents.segment import Segment, segment
from monai_node.agents.training.align import align
from monai_node.agents.training.corpus import Gold
from monai_node.agents.training.decoder import Decoder
from monai_node.agents.training.gguf_base import GgufBase

IGNORED = -100
# More than 99 % of the corpus is shorter; one long request would widen a whole batch.
_TOKENS_MAX = 160
# Requests whose lengths differ by less than this may share a batch.
_LENGTH_JITTER = 6


@dataclass(slots=True)
class Sample:
    """A request. The last tokens are the letters; `labels` [letters] are indices of LABELS or IGNORED,
    `needs` [letters, letters] are 1, 0, or NaN where there is nothing to learn. `lower` [tokens, width]
    are the states below the adapted blocks in 16 bits, once they were computed."""

    gold: Gold
    segments: tuple[Segment, ...]
    tokens: list[int]
    labels: Tensor
    needs: Tensor
    lower: Tensor | None = None


class Encoder:
    """Prompts to token ids of a base."""

    def __init__(self, base: GgufBase) -> None:
        self._tokeniser = base.tokeniser()
        self._start, self._end = base.token("<|im_start|>"), base.token("<|im_end|>")
        self.answers = [self._token(answer) for answer in ANSWERS]

    def _token(self, text: str) -> int:
        (token,) = self._ids(text)
        return token

    def _ids(self, text: str) -> list[int]:
        return self._tokeniser.encode(text, add_special_tokens=False).ids

    def tokens(self, prompt: Prompt) -> list[int]:
        said = [token for piece in prompt.pieces for token in self._ids(piece)]
        return [self._start, *said, self._end, *(self._token(letter) for letter in prompt.letters)]

    def sample(self, gold: Gold) -> Sample | None:
        """None for a request without a prompt, or with one too long to train on."""
        segments = tuple(segment(gold.text))
        prompt = prompt_of(segments)
        tokens = self.tokens(prompt) if prompt else []
        if not 0 < len(tokens) <= _TOKENS_MAX:
            return None
        labels, needs = _targets(align(gold, segments, label_by_rules(segments).labels), segments)
        return Sample(gold, segments, tokens, labels, needs)


def _targets(reading: Reading, segments: Sequence[Segment]) -> tuple[Tensor, Tensor]:
    labels = [
        IGNORED if piece.kind == "payload" else LABELS.index(label)
        for label, piece in zip(reading.labels, segments, strict=True)
    ]
    starts = [index for index, label in enumerate(reading.labels) if label == "task"]
    needs = torch.full((len(labels), len(labels)), math.nan)
    for task in starts:
        for other in starts:
            if other != task:
                needs[task, other] = float(other in (reading.needs[task] or ()))
    return torch.tensor(labels), needs


def batches(rows: Sequence[Sample], size: int, draw: random.Random) -> Iterator[list[Sample]]:
    """All rows once, those of similar length together, in a drawn order."""
    ordered = sorted(rows, key=lambda row: len(row.tokens) + draw.uniform(0, _LENGTH_JITTER))
    starts = list(range(0, len(ordered), size))
    draw.shuffle(starts)
    for start in starts:
        yield ordered[start : start + size]


def lower_states(decoder: Decoder, rows: Sequence[Sample], first_block: int) -> Tensor:
    """States [requests, tokens, width] below `first_block`, computed when a request is first met."""
    new = [row for row in rows if row.lower is None]
    if new:
        tokens = pad_sequence([torch.tensor(row.tokens) for row in new], batch_first=True)
        with torch.no_grad():
            states = decoder.through(decoder.embedding(tokens), end=first_block)
        for row, found in zip(new, states, strict=True):
            row.lower = found[: len(row.tokens)].half().clone()
    return pad_sequence([row.lower for row in rows if row.lower is not None], batch_first=True).float()
