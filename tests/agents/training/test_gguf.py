# pyright: reportUnknownMemberType=false
"""What PyTorch computes and what llama.cpp computes with the file written from it are the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from monai_node.agents.training.bpe import train_byte_bpe
from monai_node.agents.training.decoder import Decoder, DecoderShape
from monai_node.agents.training.fit import FitOptions, answer, fit, prompt_ids
from monai_node.agents.training.gguf_base import GgufBase
from monai_node.agents.training.gguf_export import CONTROLS, Card, write_decoder
from monai_node.mesh.engine.llama import has_amx
from monai_node.mesh.engine.llama_binding import Context, Model

pytestmark = pytest.mark.model

CARD = Card("weekdays", "1", "the day after a day")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
PAIRS = [
    (f"{asked} {day}{end}", DAYS[(at + step) % 7])
    for at, day in enumerate(DAYS)
    for asked, step in (("the day after", 1), ("two days after", 2), ("the day before", 6))
    for end in ("", "?", " 1234", " — bitte, 日本 \t\n  “x”")
]


class Trained:
    """A decoder with grouped heads, trained for a few seconds, and its file in float32."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(1)
        texts = [text for pair in PAIRS for text in pair]
        self.tokeniser = train_byte_bpe(texts, 320, CONTROLS)
        shape = DecoderShape(vocabulary=320, width=64, layers=2, heads=4, kv_heads=2, feed_forward=96)
        self.decoder = Decoder(shape)
        self.loss = fit(self.decoder, self.tokeniser, PAIRS, FitOptions(steps=120, batch_tokens=1200))
        self.path = folder / "weekdays-F32.gguf"
        write_decoder(self.decoder, self.tokeniser, self.path, CARD, "F32")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(tmp_path_factory.mktemp("trained"))


class Native:
    """A file in llama.cpp, with keys and values kept exactly."""

    def __init__(self, path: Path) -> None:
        self._model = Model(str(path), 0, use_extra_bufts=not has_amx())
        self._context = Context(self._model, 256, 1, is_exact=True)

    def tokens(self, text: str) -> list[int]:
        return self._model.vocabulary.tokenise(text, with_controls=False)

    def logits(self, tokens: Sequence[int]) -> NDArray[np.float32]:
        self._context.keep(0)
        found = self._context.score(tokens, len(tokens))
        assert found is not None
        return found

    def answer(self, tokens: Sequence[int], most: int) -> list[int]:
        said: list[int] = []
        while len(said) < most:
            best = int(self.logits([*tokens, *said])[-1].argmax())
            if best == 0:
                break
            said.append(best)
        return said


def errors(trained: Trained, native: Native) -> list[float]:
    found: list[float] = []
    for request, _ in PAIRS[::7]:
        tokens = prompt_ids(trained.tokeniser, request)
        with torch.inference_mode():
            ours = trained.decoder(torch.tensor([tokens]))[0].numpy()
        found.append(float(np.abs(native.logits(tokens) - ours).max()))
    return found


def test_the_tokeniser_is_the_same_in_llama_cpp(trained: Trained) -> None:
    native = Native(trained.path)
    strange = ["", " ", "a  b\n\n\tc", "x=12345.6e-7", "naïve—Ω 😀", "<|in|>x<|out|><|end|>", "it's we'll"]
    for text in [*strange, *(request for request, _ in PAIRS)]:
        assert native.tokens(text) == trained.tokeniser.encode(text, add_special_tokens=False).ids, text


def test_the_logits_are_the_same_in_llama_cpp(trained: Trained) -> None:
    assert max(errors(trained, Native(trained.path))) <= 1e-3


def test_what_it_learnt_is_answered_alike_in_llama_cpp(trained: Trained) -> None:
    native = Native(trained.path)
    right = 0
    for request, result in PAIRS[::5]:
        ours = answer(trained.decoder, trained.tokeniser, request, 16)
        assert native.answer(prompt_ids(trained.tokeniser, request), 16) == ours
        right += trained.tokeniser.decode(ours) == result
    assert right > len(PAIRS[::5]) * 0.8


def test_a_file_in_eight_bits_answers_the_same(trained: Trained, tmp_path: Path) -> None:
    path = tmp_path / "weekdays-Q8_0.gguf"
    write_decoder(trained.decoder, trained.tokeniser, path, CARD, "Q8_0")
    assert path.stat().st_size < trained.path.stat().st_size * 0.5
    native = Native(path)
    for request, result in PAIRS[::9]:
        said = native.answer(prompt_ids(trained.tokeniser, request), 16)
        assert trained.tokeniser.decode(said) == result


def test_another_order_of_the_rotated_pairs_would_be_noticed(trained: Trained, tmp_path: Path) -> None:
    """The permutation that decoders of the "rotate half" kind need: llama.cpp loads it without a word."""
    decoder = Decoder(trained.decoder.shape)
    state = {name: weight.clone() for name, weight in trained.decoder.state_dict().items()}
    for name in state:
        for matrix, heads in (("q", 4), ("k", 2)):
            if name.endswith(f".{matrix}.weight"):
                weight = state[name]
                halves = weight.view(heads, 2, -1, weight.shape[1])
                state[name] = halves.transpose(1, 2).reshape(weight.shape)
    decoder.load_state_dict(state)
    path = tmp_path / "permuted.gguf"
    write_decoder(decoder, trained.tokeniser, path, CARD, "F32")
    assert max(errors(trained, Native(path))) > 0.1


def test_a_file_is_read_back_as_it_was_written(trained: Trained) -> None:
    base = GgufBase(trained.path)
    assert base.token("<|out|>") == CONTROLS.index("<|out|>")
    text = "Tuesday is — naïvely — 2nd"
    assert base.tokeniser().encode(text).ids == trained.tokeniser.encode(text).ids
    again = base.decoder()
    tokens = torch.tensor([prompt_ids(trained.tokeniser, PAIRS[0][0])])
    with torch.inference_mode():
        assert torch.equal(again(tokens), trained.decoder(tokens))
