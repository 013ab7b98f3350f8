"""Write what was trained as GGUF files that llama.cpp loads: whole small decoders, and adapters.

No conversion tool: the decoder computes as llama.cpp does, so tensors are written as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import gguf
import numpy as np
from gguf import GGMLQuantizationType, LlamaFileType
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from monai_node.agents.training.bpe import PRE_TOKENISER, parts_of
from monai_node.agents.training.decoder import Decoder, DecoderShape, tensor_names

LICENCE = "Apache-2.0"
# The control tokens of a specialist, ids 0 to 2; a sample is <|in|>REQUEST<|out|>RESULT<|end|>.
CONTROLS = ("<|end|>", "<|in|>", "<|out|>")
CHAT_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'user' %}<|in|>{{ m['content'] }}<|out|>"
    "{% elif m['role'] == 'assistant' %}{{ m['content'] }}<|end|>{% endif %}{% endfor %}"
)

Precision = Literal["F32", "Q8_0"]


@dataclass(frozen=True, slots=True)
class Card:
    """What a file says of itself."""

    name: str
    version: str
    description: str


def write_decoder(
    decoder: Decoder, tokeniser: Tokenizer, path: Path, card: Card, precision: Precision = "Q8_0"
) -> None:
    """A file with the decoder and its tokeniser, whose first tokens are CONTROLS."""
    writer = _writer(path, "model", card)
    is_packed = precision == "Q8_0"
    writer.add_file_type(LlamaFileType.MOSTLY_Q8_0 if is_packed else LlamaFileType.ALL_F32)
    if is_packed:
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _add_shape(writer, decoder.shape)
    _add_tokeniser(writer, tokeniser, decoder.shape.vocabulary)
    state = decoder.state_dict()
    for theirs, ours in tensor_names(decoder.shape):
        weight = _array(state[ours])
        if is_packed and weight.ndim == 2:
            packed = gguf.quants.quantize(weight, GGMLQuantizationType.Q8_0)
            writer.add_tensor(theirs, packed, raw_dtype=GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(theirs, weight)
    _finish(writer)


def write_adapter(
    matrices: Mapping[str, tuple[Tensor, Tensor]], scale: float, path: Path, card: Card
) -> None:
    """An adapter in F16: for each tensor of the base, by its GGUF name, A [rank, in] and B [out, rank].

    llama.cpp adds alpha / rank · B A to the tensor, so alpha is `scale` times the rank.
    """
    rank = next(iter(matrices.values()))[0].shape[0]
    writer = _writer(path, "adapter", card)
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", scale * rank)
    writer.add_file_type(LlamaFileType.MOSTLY_F16)
    for name, (a, b) in matrices.items():
        writer.add_tensor(f"{name}.lora_a", _array(a).astype(np.float16))
        writer.add_tensor(f"{name}.lora_b", _array(b).astype(np.float16))
    _finish(writer)


def _writer(path: Path, kind: str, card: Card) -> gguf.GGUFWriter:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type(kind)
    writer.add_name(card.name)
    writer.add_version(card.version)
    writer.add_description(card.description)
    writer.add_license(LICENCE)
    return writer


def _add_shape(writer: gguf.GGUFWriter, shape: DecoderShape) -> None:
    writer.add_vocab_size(shape.vocabulary)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(shape.norm_epsilon)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_rope_freq_base(shape.rope_base)


def _add_tokeniser(writer: gguf.GGUFWriter, tokeniser: Tokenizer, size: int) -> None:
    vocabulary, merges = parts_of(tokeniser)
    spelt = {index: token for token, index in vocabulary.items()}
    kinds = [gguf.TokenType.CONTROL] * len(CONTROLS)
    kinds += [
        gguf.TokenType.NORMAL if index in spelt else gguf.TokenType.UNUSED
        for index in range(len(CONTROLS), size)
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(PRE_TOKENISER)
    writer.add_token_list([spelt.get(index, f"<|unused {index}|>") for index in range(size)])
    writer.add_token_types(kinds)
    # llama.cpp refuses a file without merges; this one merges nothing that byte-level BPE can meet.
    writer.add_token_merges([" ".join(pair) for pair in merges] or ["Ġ Ġ"])
    for add in (
        writer.add_bos_token_id,
        writer.add_eos_token_id,
        writer.add_eot_token_id,
        writer.add_pad_token_id,
    ):
        add(0)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def _array(weight: Tensor) -> NDArray[np.float32]:
    return np.ascontiguousarray(weight.detach().cpu().numpy(), dtype=np.float32)


def _finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
