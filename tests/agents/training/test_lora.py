# pyright: reportUnknownMemberType=false
"""An adapter does in llama.cpp what it does in PyTorch, on the bundled model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from monai_node.agents.lora_labeller import Scores, prompt_of
from monai_node.agents.training.adapter import Adapted, Average, adapt, matrices_of
from monai_node.agents.training.corpus import Gold, GoldTask
from monai_node.agents.training.decoder import Decoder, DecoderShape
from monai_node.agents.training.gguf_base import GgufBase
from monai_node.agents.training.gguf_export import Card, write_adapter
from monai_node.agents.training.lora import bundled_base, loss_of, scores
from monai_node.agents.training.lora_samples import Encoder, Sample
from monai_node.mesh.engine.llama_labeller import LoraLabeller
from monai_node.registry.errors import SetupError

pytestmark = pytest.mark.model

CARD = Card("test", "1", "random")
SCALE = 2.0
TEXTS = (
    "Name three rivers, then rank them by length.",
    'My café needs a sign: translate "open" into French and tell me what 12 * 31 is.',
)
# llama.cpp computes products with Q4_1 in eight bits: a logit is off by about 0.2 in the mean.
MEAN_ERROR_MAX = 0.5
HEADS = {"attn_q": 9, "attn_k": 3}


def heads_of(tensor: str) -> int | None:
    return HEADS.get(tensor.split(".")[2])


class Both:
    """A random adapter that changes much, on the base in PyTorch and as a file for llama.cpp."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(1)
        base = GgufBase(bundled_base())
        self.encoder = Encoder(base)
        self.decoder = base.decoder()
        self.samples = [self._sample(text) for text in TEXTS]
        with torch.inference_mode():
            self.before = scores(self.decoder, self.samples, 0, self.encoder.answers)
        self.adapters = adapt(self.decoder, 20, 4, SCALE)
        for name, adapted in self.adapters.items():
            torch.nn.init.normal_(adapted.b, std=1.0 if heads_of(name) else 0.1)
        with torch.inference_mode():
            self.after = scores(self.decoder, self.samples, 0, self.encoder.answers)
        self.path = folder / "adapter.gguf"
        write_adapter(matrices_of(self.adapters), SCALE, self.path, CARD)

    def _sample(self, text: str) -> Sample:
        found = self.encoder.sample(Gold("x", text, (GoldTask((text,), ()),), frozenset(), "x"))
        assert found is not None
        return found

    def native(self, path: Path | None) -> list[Scores]:
        labeller = LoraLabeller(bundled_base(), path)
        return [labeller.score(sample.tokens, len(sample.labels)) for sample in self.samples]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Both:
    return Both(tmp_path_factory.mktemp("lora"))


def error(ours: list[Tensor], theirs: list[Scores]) -> float:
    pairs = zip(ours, theirs, strict=True)
    return float(np.mean(np.concatenate([np.abs(one.numpy() - other).ravel() for one, other in pairs])))


def test_prompts_are_the_same_tokens_in_llama_cpp(both: Both) -> None:
    labeller = LoraLabeller(bundled_base(), None)
    for sample in both.samples:
        prompt = prompt_of(sample.segments)
        assert prompt is not None
        assert labeller.tokens(prompt) == sample.tokens


def test_scores_are_the_same_in_llama_cpp_with_the_adapter_and_without(both: Both) -> None:
    assert error(both.before, both.native(None)) < MEAN_ERROR_MAX
    assert error(both.after, both.native(both.path)) < MEAN_ERROR_MAX
    assert error(both.after, both.native(None)) > 2 * MEAN_ERROR_MAX, "the adapter changes much"


def test_rows_in_another_order_would_be_noticed(both: Both, tmp_path: Path) -> None:
    """The permutation that adapters trained on "rotate half" decoders need: it loads without a word."""
    matrices = matrices_of(both.adapters)
    for name, (a, b) in matrices.items():
        heads = {"attn_q": 9, "attn_k": 3}.get(name.split(".")[2])
        if heads:
            matrices[name] = a, b.view(heads, 2, -1, b.shape[1]).transpose(1, 2).reshape(b.shape)
    path = tmp_path / "permuted.gguf"
    write_adapter(matrices, SCALE, path, CARD)
    assert error(both.after, both.native(path)) > 2 * MEAN_ERROR_MAX


def test_an_adapter_for_another_base_is_refused(tmp_path: Path) -> None:
    narrow = Decoder(DecoderShape(vocabulary=32, width=64, layers=1, feed_forward=96))
    path = tmp_path / "narrow.gguf"
    write_adapter(matrices_of(adapt(narrow, 0, 4, SCALE)), SCALE, path, CARD)
    with pytest.raises(SetupError, match="made for another model"):
        LoraLabeller(bundled_base(), path)


def test_a_step_down_the_gradient_lowers_the_loss(both: Both) -> None:
    learnt = [weight for adapted in both.adapters.values() for weight in (adapted.a, adapted.b)]
    for weight in learnt:
        torch.nn.init.normal_(weight, std=1e-3)
    optimiser = torch.optim.SGD(learnt, lr=1e-3)
    losses: list[float] = []
    for _ in range(3):
        loss = loss_of(scores(both.decoder, both.samples, 20, both.encoder.answers), both.samples)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learnt, 1.0)
        optimiser.step()
        losses.append(loss.item())
    assert losses[2] < losses[0]


def test_the_average_is_swapped_in_and_out() -> None:
    linear = torch.nn.Linear(2, 2, bias=False)
    adapted = Adapted(linear, 1, 1.0, 0.0)
    average = Average([adapted.a], 0.5)
    start = adapted.a.detach().clone()
    with torch.no_grad():
        adapted.a.add_(1)
    average.take()
    average.swap()
    assert torch.all(adapted.a > start)
    assert torch.all(adapted.a < start + 1)
    average.swap()
    assert torch.allclose(adapted.a, start + 1)
