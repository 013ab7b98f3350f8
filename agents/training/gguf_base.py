# pyright: reportUnknownMemberType=false
"""Read a Llama model from a GGUF file into the decoder, and its tokeniser beside it.

Quantised weights become the floats that llama.cpp computes with, so an adapter is trained on exactly
what it will be used with.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf.quants import dequantize
from numpy.typing import NDArray
from tokenizers import Tokenizer

from monai_node.agents.training.bpe import PRE_TOKENISER, byte_bpe
from monai_node.agents.training.decoder import Decoder, DecoderShape, tensor_names, turns_of


class GgufBase:
    """An open GGUF file. ValueError when it is no Llama with tied embeddings and a `smollm` tokeniser."""

    def __init__(self, path: Path) -> None:
        self._reader = gguf.GGUFReader(path)
        self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}
        if self._said("general.architecture") != "llama" or "output.weight" in self._tensors:
            raise ValueError(f"{path} is no Llama model with tied embeddings: choose another base")
        if self._said("tokenizer.ggml.pre") != PRE_TOKENISER:
            raise ValueError(f"{path} has another tokeniser than {PRE_TOKENISER}: choose another base")

    def _said(self, key: str) -> Any:
        return self._reader.fields[key].contents()

    @property
    def shape(self) -> DecoderShape:
        return DecoderShape(
            vocabulary=len(self._said("tokenizer.ggml.tokens")),
            width=self._said("llama.embedding_length"),
            layers=self._said("llama.block_count"),
            heads=self._said("llama.attention.head_count"),
            kv_heads=self._said("llama.attention.head_count_kv"),
            feed_forward=self._said("llama.feed_forward_length"),
            context=self._said("llama.context_length"),
            rope_base=self._said("llama.rope.freq_base"),
            norm_epsilon=self._said("llama.attention.layer_norm_rms_epsilon"),
        )

    def decoder(self) -> Decoder:
        """The decoder with the file's weights in float32, nothing of it to be trained."""
        shape = self.shape
        with torch.device("meta"):  # drawing weights that are replaced at once would take seconds
            decoder = Decoder(shape)
        state = {ours: torch.from_numpy(self._weight(theirs)) for theirs, ours in tensor_names(shape)}
        decoder.load_state_dict(state, assign=True)
        decoder.turns = turns_of(shape)
        return decoder.requires_grad_(False).eval()

    def _weight(self, name: str) -> NDArray[np.float32]:
        tensor = self._tensors[name]
        return np.array(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)

    def tokeniser(self) -> Tokenizer:
        """The file's tokeniser. Control tokens are not recognised in text: their ids are `token`'s."""
        tokens: list[str] = self._said("tokenizer.ggml.tokens")
        merges: list[str] = self._said("tokenizer.ggml.merges")
        pairs = [(left, right) for left, right in (merge.split(" ") for merge in merges)]
        return byte_bpe({token: index for index, token in enumerate(tokens)}, pairs)

    def token(self, text: str) -> int:
        """The id of a token, control tokens too, by its spelling in the file."""
        tokens: list[str] = self._said("tokenizer.ggml.tokens")
        return tokens.index(text)
