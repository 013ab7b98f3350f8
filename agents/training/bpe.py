"""Byte-level BPE as llama.cpp's pre-tokeniser `smollm` does it: digits stand one by one.

Any text has tokens, and no text has control tokens: those are put in by id.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

PRE_TOKENISER = "smollm"


def byte_bpe(vocabulary: Mapping[str, int], merges: Sequence[tuple[str, str]]) -> Tokenizer:
    """The tokeniser of a vocabulary, spelt in GPT-2's letters for bytes, and its merges in order."""
    return _dressed(Tokenizer(models.BPE(dict(vocabulary), list(merges))))


def train_byte_bpe(texts: Iterable[str], size: int, controls: Sequence[str]) -> Tokenizer:
    """A tokeniser of at most `size` tokens learnt from texts. `controls` take the first ids and stand for
    nothing that can be written."""
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(controls),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        min_frequency=2,
    )
    learnt = _dressed(Tokenizer(models.BPE()))
    learnt.train_from_iterator(texts, trainer)
    vocabulary, merges = parts_of(learnt)
    return byte_bpe(vocabulary, merges)


def parts_of(tokeniser: Tokenizer) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a tokeniser."""
    model = json.loads(tokeniser.to_str())["model"]
    return model["vocab"], [(left, right) for left, right in model["merges"]]


def _dressed(tokeniser: Tokenizer) -> Tokenizer:
    digits = pre_tokenizers.Digits(individual_digits=True)
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokeniser.pre_tokenizer = pre_tokenizers.Sequence([digits, letters])
    tokeniser.decoder = decoders.ByteLevel()
    return tokeniser
