# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
"""The child process of the embedder: all-MiniLM-L6-v2 on one thread, in torch, in llama.cpp, or in
sentence-transformers, whose vectors are what the others must give.

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
from monai_node.mesh.minilm import (
    GGUF_SHA256,
    WEIGHTS_SHA256,
    batched,
    check_weights,
    gguf_file,
    installed,
    required,
)
from monai_node.registry.errors import SetupError, TaskFailed

# One event each: a call that is cancelled stops after the chunk it is in, and calls take turns.
_CHUNK_TEXTS = 16
# What the model was trained with (sentence_bert_config.json).
_TOKENS_MAX = 256
_NAME = "all-MiniLM-L6-v2@sha256:"

# Texts of users are computed in turns of so many tokens at most, one long text or a few short ones: what a
# request needs comes between two of them. A turn took torch 55 to 75 ms of one core.
_TURN_TOKENS = 256

Encode = Callable[[Sequence[Sequence[int]]], NDArray[np.float32]]
Read = Callable[[Sequence[Segment]], Reading]


@dataclass(frozen=True, slots=True)
class _Loaded:
    fingerprint: str
    tokeniser: _Tokeniser
    encode: Encode
    read: Read | None = None

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self.encode(self.tokeniser.cut(texts))


def run(channel: Channel, config: dict[str, Any]) -> None:
    """The entry of the child. `choice` of the config is an EmbedderChoice, `directory` replaces the
    installed package's, and `folder` is where a GGUF file is kept."""
    directory = Path(config["directory"]) if config.get("directory") else installed()
    choice = config["choice"]
    if choice == "auto":
        choice = "torch" if _has_torch() else "gguf"
    match choice:
        case "gguf":
            model = _open_gguf(directory, Path(config["folder"]))
        case "sentence-transformers":
            model = _open_sentence_transformers(directory)
        case _:
            model = _open_torch(directory)

    async def handle(op: str, payload: Any) -> AsyncGenerator[Any, None]:
        if op == "label":
            if model.read is None:
                raise TaskFailed("the embedder runs without torch, which the small labeller needs")
            found = model.read([Segment(*fields) for fields in payload])
            yield {"labels": found.labels, "needs": found.needs}
            return
        if op == "tokens":
            for text in payload:
                yield model.tokeniser.tokens(text)
            return
        if op == "embed_tokens":
            for turn in batched(payload, _TURN_TOKENS):
                yield _bytes(model.encode([model.tokeniser.framed(tokens) for tokens in turn]))
            return
        for start in range(0, len(payload), _CHUNK_TEXTS):
            yield _bytes(model.embed(payload[start : start + _CHUNK_TEXTS]))

    info = {
        "fingerprint": model.fingerprint,
        "dimensions": model.embed(["ready"]).shape[1],
        "tokens_max": _TOKENS_MAX - len(model.tokeniser.framed([])),
        "vocabulary": model.tokeniser.vocabulary,
        "has_labeller": model.read is not None,
    }
    asyncio.run(serve(channel, handle, info))


def _bytes(vectors: NDArray[np.float32]) -> bytes:
    return vectors.astype("<f4").tobytes()


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
    fingerprint = f"torch/{_NAME}{WEIGHTS_SHA256}"
    encoder = engine.Encoder(weights)
    return _Loaded(fingerprint, _Tokeniser(directory), encoder, _labeller(weights, directory))


def _open_sentence_transformers(directory: Path) -> _Loaded:
    """The reference: the library's own layers and pooling. Slower to load, by its imports, and to embed."""
    check_weights(directory)
    torch = required("torch")
    torch.set_num_threads(1)
    library = required("sentence_transformers")
    model = library.SentenceTransformer(str(directory), device="cpu", local_files_only=True)

    def encode(texts: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        ids = [torch.tensor(tokens) for tokens in texts]
        padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
        lengths = torch.tensor([len(tokens) for tokens in texts])
        mask = (torch.arange(padded.shape[1]) < lengths[:, None]).long()
        with torch.inference_mode():
            found = model({"input_ids": padded, "attention_mask": mask})["sentence_embedding"]
        return torch.nn.functional.normalize(found).numpy()

    fingerprint = f"sentence-transformers/{_NAME}{WEIGHTS_SHA256}"
    labeller = _labeller(model[0].auto_model.state_dict(), directory)
    return _Loaded(fingerprint, _Tokeniser(directory), encode, labeller)


def _open_gguf(directory: Path, folder: Path) -> _Loaded:
    engine = required("monai_node.mesh.engine.llama_encoder")
    encoder = engine.Encoder(gguf_file(folder, directory))
    return _Loaded(f"llama.cpp/{_NAME}{GGUF_SHA256}", _Tokeniser(directory), encoder)


class _Tokeniser:
    """The model's own, in the folder of its package."""

    def __init__(self, directory: Path) -> None:
        load = required("tokenizers").Tokenizer.from_file
        self._whole = load(str(directory / "tokenizer.json"))
        self._whole.no_truncation()
        self._cut = load(str(directory / "tokenizer.json"))
        self._cut.enable_truncation(_TOKENS_MAX)
        for tokeniser in (self._whole, self._cut):
            tokeniser.no_padding()
        self.vocabulary: int = self._whole.get_vocab_size()

    def cut(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text as the model reads them, which are not all of a long one."""
        return [found.ids for found in self._cut.encode_batch(list(texts))]

    def tokens(self, text: str) -> list[int]:
        """All tokens of a text, and nothing else."""
        return self._whole.encode(text, add_special_tokens=False).ids

    def framed(self, tokens: Sequence[int]) -> list[int]:
        """With the tokens that stand before and behind every text."""
        return [self._whole.token_to_id("[CLS]"), *tokens, self._whole.token_to_id("[SEP]")]


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
