# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
"""The child process of the embedder: all-MiniLM-L6-v2 on one thread, in sentence-transformers or in
llama.cpp.

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
        choice = "sentence-transformers" if _has_torch() else "gguf"
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
        importlib.import_module("sentence_transformers")
    except (ImportError, OSError):  # OSError: of a library of its own
        return False
    return True


def _open_torch(directory: Path) -> _Loaded:
    check_weights(directory)
    torch = required("torch")
    torch.set_num_threads(1)
    transformer = required("sentence_transformers").SentenceTransformer
    model = transformer(str(directory), device="cpu", local_files_only=True)

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = model.encode(
            list(texts), batch_size=_CHUNK_TEXTS, normalize_embeddings=True, show_progress_bar=False
        )
        return np.asarray(vectors, dtype=np.float32)

    fingerprint = f"sentence-transformers/{_NAME}{WEIGHTS_SHA256}"
    return _Loaded(fingerprint, encode, _labeller(model, directory))


def _open_gguf(directory: Path, folder: Path) -> _Loaded:
    """The same tokens as sentence-transformers, by its own tokeniser, through llama.cpp."""
    tokenizers = required("tokenizers")
    engine = required("monai_node.mesh.engine.llama_encoder")
    encoder = engine.Encoder(gguf_file(folder, directory))
    tokeniser = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    # What the model was trained with (sentence_bert_config.json), and all that one batch has room for.
    tokeniser.enable_truncation(engine.BATCH_TOKENS)
    tokeniser.no_padding()

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        return encoder([found.ids for found in tokeniser.encode_batch(list(texts))])

    return _Loaded(f"llama.cpp/{_NAME}{GGUF_SHA256}", encode)


def _labeller(model: Any, directory: Path) -> Read:
    """The small labeller over the same weights. Without it the embedder works on: every call then says
    what is wrong, and the planner asks another."""
    try:
        small = required("monai_node.agents.labellers.small")
        store = required("monai_node.agents.labellers.store")
        return small.Reader(store.load(model[0].auto_model.state_dict()), small.open_tokenizer(directory))
    except SetupError as error:
        trouble = error

    def refuse(_: Sequence[Segment]) -> Reading:
        raise trouble

    return refuse
