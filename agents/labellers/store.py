# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false
"""The small labeller's weights as a file: half precision, without the encoder's, with a digest beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as write_tensors
from torch import Tensor

from monai_node.agents.labellers.net import SmallLabeller
from monai_node.registry.errors import SetupError

SMALL = Path(__file__).parent / "small.safetensors"


def digest_path(path: Path) -> Path:
    return path.with_suffix(".sha256")


def save(weights: Mapping[str, Tensor], path: Path) -> str:
    """Write the weights and their digest, in the form of `sha256sum`; the digest."""
    data = write_tensors({name: one.half().contiguous().cpu() for name, one in weights.items()})
    path.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    digest_path(path).write_text(f"{digest}  {path.name}\n", encoding="utf-8")
    return digest


def load(base: Mapping[str, Tensor], path: Path = SMALL) -> SmallLabeller:
    """The network over the encoder's weights `base`, ready to read. SetupError when the file is missing,
    is not the one whose digest stands beside it, or holds other weights than this version's."""
    try:
        data = path.read_bytes()
        expected = digest_path(path).read_text(encoding="utf-8").split()[:1]
    except OSError as error:
        raise SetupError(f"the small labeller cannot be read: {error.strerror}: {error.filename}") from error
    if [hashlib.sha256(data).hexdigest()] != expected:
        raise SetupError(f"{path} is damaged: its SHA-256 is not the one in {digest_path(path).name}")
    with torch.device("meta"):
        net = SmallLabeller(base)
    try:
        net.load_state_dict({name: one.float() for name, one in read_tensors(data).items()}, assign=True)
    except (RuntimeError, SafetensorError) as error:
        raise SetupError(f"{path} holds weights of another version; reinstall monai-node") from error
    return net.eval()
