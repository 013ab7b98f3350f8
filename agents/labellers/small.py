# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
"""The small labeller at work: segments in, a reading out, one request at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from monai_node.agents.label import Reading, label_by_rules
from monai_node.agents.labellers.decode import Scores, divided, openings, reading, rule_links
from monai_node.agents.labellers.features import Tokenize, features
from monai_node.agents.labellers.net import SmallLabeller, batch_of
from monai_node.agents.segment import Segment


def open_tokenizer(directory: Path) -> Tokenize:
    """The encoder's tokenizer, of the folder of its model."""
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()

    def tokenize(texts: Sequence[str]) -> list[list[int]]:
        return [found.ids for found in tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    return tokenize


class Reader:
    """A network with its tokenizer. Deterministic; a request that it cannot be shown is read by rules."""

    def __init__(self, net: SmallLabeller, tokenize: Tokenize) -> None:
        self._net = net.eval()
        self._tokenize = tokenize

    @torch.inference_mode()
    def __call__(self, segments: Sequence[Segment]) -> Reading:
        shown = features(segments, self._tokenize)
        if shown is None:
            return label_by_rules(segments)
        device = str(self._net.label.weight.device)
        states, logits = self._net.read(batch_of([shown], device))
        labels = divided(segments, logits[0].cpu().numpy())
        starts = openings(labels)
        if len(starts) < 2:
            return reading(labels, np.full((len(starts), len(starts)), -np.inf, np.float32))
        hints = torch.zeros(1, len(starts), len(starts), dtype=torch.long)
        for task, found in enumerate(rule_links(segments, labels)):
            for other in found.depends_on:
                hints[0, task, other] = 2 if found.is_explicit else 1
        scores: Scores = self._net.relate(states[:, starts], hints.to(device))[0].cpu().numpy()
        return reading(labels, scores)
