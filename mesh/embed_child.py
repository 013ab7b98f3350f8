# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
"""The child process of the embedder: all-MiniLM-L6-v2 on one thread, in torch or in llama.cpp.

The small labeller reads through the same weights in torch, so it lives here too, where torch is. The
weights come from an installed package and are checked by digest before anything reads them; the network
is never asked.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_node.agents.label import Reading
from monai_node.agents.segment import Segment
from monai_node.mesh.child_channel import Channel, serve
from monai_node.mesh.minilm import GGUF_SHA256, WEIGHTS_SHA256, check_weights, gguf_file, installed, required
from monai_node.registry.errors import SetupError, TaskFailed

# One event each: a call that is cancelled stops after the chunk it is in, and calls take turns.
_CHUNK_TEXTS = 16
# What the model was trained with (sentence_bert_config.json).
_TOKENS_MAX = 256
_NAME = "all-MiniLM-L6-v2@sha256:"

Encode = Callable[[Sequence[str]], NDArray[np.float32]]
Read = Callable[[Sequence[Segment]], Reading]


@dataclass(frozen=True, slots=True)
class _Loaded:
    fingerprint: str
    encode: Encode
    read: Read | None = None


def run(channel: Channel, config: dict[str, Any]) -> None:
    """The entry of the child. `choice` of the config is an EmbedderChoice, `directory` replaces the
    installed package's, and `folder` is where a GGUF file is kept."""
    directory = Path(config["directory"]) if config.get("directory") else installed()
    choice = config["choice"]
    if choice == "auto":
        choice = "torch" if _has_torch() else "gguf"
    model = _open_gguf(directory, Path(config["folder"])) if choice == "gguf" else _open_torch(directory)

    async def handle(op: str, payload: Any) -> AsyncGenerator[Any, None]:
        if op == "label":
            if model.read is None:
                raise TaskFailed("the embedder runs without torch, which the small labeller needs")
            found = model.read([Segment(*fields) for fields in payload])
            yield {"labels": found.labels, "needs": found.needs}
            return
        texts = [str(text) for text in payload]
        for start in range(0, len(texts), _CHUNK_TEXTS):
            yield model.encode(texts[start : start + _CHUNK_TEXTS]).astype("<f4").tobytes()

    info = {
        "fingerprint": model.fingerprint,
        "dimensions": model.encode(["ready"]).shape[1],
        "has_labeller": model.read is not None,
    }
    asyncio.run(serve(channel, handle, info))


def _has_torch() -> bool:
    """By importing it: that a package is installed does not say that it works."""
    try:
        importlib.import_module("torch")
    except (ImportError, OSError):  # OSError: of a library of its own
        return False
    return True


def _open_torch(directory: Path) -> _Loaded:
    path = check_weights(directory)
    required("torch").set_num_threads(1)
    engine = required("monai_node.mesh.engine.torch_encoder")
    weights = engine.open_weights(path)
    encode = _encode(directory, engine.Encoder(weights))
    return _Loaded(f"torch/{_NAME}{WEIGHTS_SHA256}", encode, _labeller(weights, directory))


def _open_gguf(directory: Path, folder: Path) -> _Loaded:
    engine = required("monai_node.mesh.engine.llama_encoder")
    encode = _encode(directory, engine.Encoder(gguf_file(folder, directory)))
    return _Loaded(f"llama.cpp/{_NAME}{GGUF_SHA256}", encode)


def _encode(directory: Path, encoder: Callable[[Sequence[Sequence[int]]], NDArray[np.float32]]) -> Encode:
    """With the model's own tokeniser before the encoder."""
    tokeniser = required("tokenizers").Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokeniser.enable_truncation(_TOKENS_MAX)
    tokeniser.no_padding()

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        return encoder([found.ids for found in tokeniser.encode_batch(list(texts))])

    return encode


def _labeller(weights: Any, directory: Path) -> Read:
    """The small labeller over the same weights. Without it the embedder works on: every call then says
    what is wrong, and the planner asks another."""
    try:
        small = required("monai_node.agents.labellers.small")
        store = required("monai_node.agents.labellers.store")
        return small.Reader(store.load(weights), small.open_tokenizer(directory))
    except SetupError as error:
        trouble = error

    def refuse(_: Sequence[Segment]) -> Reading:
        raise trouble

    return refuse
