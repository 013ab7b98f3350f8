"""What a GGUF file says of itself, read without loading it.

The parser reads the header and nothing else (format: ggml/docs/gguf.md), keeps no token tables, and
bounds every count, so that a broken or hostile file costs a sentence and at most some milliseconds.
It reads instead of mapping: a file that shrinks while it is mapped would kill the process. Whatever
is wrong with a file is a SetupError. Names, licence, languages and tags are their author's claims;
sizes are computed from the tensor table.
"""

from __future__ import annotations

import hashlib
import struct
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from monai_node.mesh.engine.ggml_types import GGML_TYPES
from monai_node.mesh.engine.gguf_cursor import U32, U64, Cursor
from monai_node.registry.errors import SetupError

_KEYS_MAX = 4096
_TENSORS_MAX = 65_536
_DIMENSIONS_MAX = 4
_ELEMENTS_MAX = 1 << 48
_LAYERS_MAX = 4096
_CONTEXT_MAX = 1 << 30

_READ_BYTES = 1 << 20
_SAMPLE_COUNT = 64
_SAMPLE_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """Metadata and computed sizes of one file. `quantisation` names the tensor type that most
    parameters have; `general_type` is "model", "adapter", "mmproj"…"""

    architecture: str
    name: str
    general_type: str
    parameter_count: int
    quantisation: str
    size_bytes: int
    context_length: int
    embedding_length: int
    block_count: int
    kv_bytes_per_token: int  # of a 16-bit cache: what one more token of context costs
    is_embedding: bool
    chat_template: str
    licence: str
    languages: tuple[str, ...]
    tags: tuple[str, ...]


def read_header(path: Path) -> GgufHeader:
    """Parse and check the header of a file; SetupError with one sentence when it cannot be served.

    Also checks that every tensor lies inside the file, so that a download that broke off is found
    before it is loaded.
    """
    try:
        if path.is_dir():
            raise SetupError(f"{path} is a directory, not a GGUF file")
        size = path.stat().st_size
        with path.open("rb") as file:
            return _parse(Cursor(file, path, size))
    except FileNotFoundError:
        raise SetupError(f"{path} does not exist") from None
    except OSError as error:
        raise SetupError(f"{path} cannot be read ({error.strerror})") from None
    except ValueError as error:  # an embedded NUL in the path
        raise SetupError(f"{str(path)!r} is not a file name ({error})") from None


@dataclass(frozen=True, slots=True)
class _Tensors:
    elements: Counter[int]  # by ggml type
    end: int  # of the furthest tensor, from the start of the data


def _parse(cursor: Cursor) -> GgufHeader:
    if cursor.size < 4 or cursor.number(struct.Struct("4s")) != b"GGUF":
        cursor.fail("is not a GGUF file")
    version: int = cursor.number(U32)
    if version not in (2, 3):
        cursor.fail(f"is a GGUF file of version {version}; versions 2 and 3 can be served")
    tensor_count = cursor.count(_TENSORS_MAX, "tensors")
    key_count = cursor.count(_KEYS_MAX, "metadata entries")
    values: dict[str, Any] = {}
    for _ in range(key_count):
        key = cursor.text()
        values[key] = cursor.value(cursor.number(U32))
    tensors = _read_tensors(cursor, tensor_count)
    metadata = _Metadata(values)
    _check_complete(cursor, tensors, metadata)
    return _header(cursor, metadata, tensors)


def _read_tensors(cursor: Cursor, tensor_count: int) -> _Tensors:
    elements: Counter[int] = Counter()
    end = 0
    for _ in range(tensor_count):
        cursor.skip_text()
        count = _elements(cursor)
        kind: int = cursor.number(U32)
        if kind not in GGML_TYPES:
            cursor.fail(f"has tensors of type {kind}, which this version cannot read")
        offset: int = cursor.number(U64)
        ggml = GGML_TYPES[kind]
        elements[kind] += count
        end = max(end, offset + -(-count // ggml.block) * ggml.bytes)
    return _Tensors(elements, end)


def _elements(cursor: Cursor) -> int:
    dimensions: int = cursor.number(U32)
    if dimensions > _DIMENSIONS_MAX:
        cursor.fail(f"is not a usable GGUF file: it has a tensor of {dimensions} dimensions")
    count = 1
    for _ in range(dimensions):
        count *= cursor.number(U64)
        if count > _ELEMENTS_MAX:
            cursor.fail("is not a usable GGUF file: it has a tensor of impossible size")
    return count


class _Metadata:
    """Typed access to values of unknown shape: the default stands for what is missing or odd."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self.architecture = self.text("general.architecture")

    def text(self, key: str, default: str = "") -> str:
        value = self._values.get(key)
        return value if isinstance(value, str) else default

    def number(self, key: str, default: int = 0) -> int:
        value = self._values.get(key)
        return value if type(value) is int else default

    def texts(self, key: str) -> tuple[str, ...]:
        value = self._values.get(key)
        items = cast(list[Any], value) if isinstance(value, list) else [value]
        return tuple(item for item in items if isinstance(item, str))

    def of_model(self, key: str, default: int = 0) -> int:
        """A number under the architecture's own prefix; the largest where layers differ."""
        return max(self.per_layer(key, 1, default), default=default)

    def per_layer(self, key: str, layers: int, default: int = 0) -> list[int]:
        """One number for each layer, whether the file gives one for all or a list."""
        value = self._values.get(f"{self.architecture}.{key}", default)
        if isinstance(value, list):
            return [item for item in cast(list[Any], value) if type(item) is int]
        return [value if type(value) is int else default] * layers


def _check_complete(cursor: Cursor, tensors: _Tensors, metadata: _Metadata) -> None:
    alignment = metadata.number("general.alignment", 32)
    if not 0 < alignment <= 1 << 20:
        cursor.fail(f"is not a usable GGUF file: its alignment is {alignment}")
    due = -(-cursor.position // alignment) * alignment + tensors.end
    if due > cursor.size:
        cursor.fail(f"is truncated: it has {cursor.size} of at least {due} bytes")


def _header(cursor: Cursor, metadata: _Metadata, tensors: _Tensors) -> GgufHeader:
    if not metadata.architecture:
        cursor.fail("does not say what architecture it has")
    parts = metadata.number("split.count")
    if parts > 1:
        number = metadata.number("split.no") + 1
        cursor.fail(f"is part {number} of {parts}: join the parts with llama-gguf-split --merge")
    general_type = metadata.text("general.type", "model")
    blocks, context = metadata.of_model("block_count"), metadata.of_model("context_length")
    if general_type == "model":
        # llama.cpp aborts on the first and misbehaves on the second instead of refusing the file.
        if not 0 < blocks <= _LAYERS_MAX:
            cursor.fail(f"is not a usable model: it claims {blocks} layers")
        if not 0 <= context <= _CONTEXT_MAX:
            cursor.fail(f"is not a usable model: it claims a context of {context} tokens")
        if not tensors.elements:
            cursor.fail("has no tensors: it is a vocabulary, not a model")
    dominant = tensors.elements.most_common(1)
    return GgufHeader(
        architecture=metadata.architecture,
        name=metadata.text("general.name") or cursor.path.stem,
        general_type=general_type,
        parameter_count=sum(tensors.elements.values()),
        quantisation=GGML_TYPES[dominant[0][0]].name if dominant else "",
        size_bytes=cursor.size,
        context_length=context,
        embedding_length=metadata.of_model("embedding_length"),
        block_count=blocks,
        kv_bytes_per_token=_kv_bytes_per_token(metadata, min(blocks, _LAYERS_MAX)),
        is_embedding=metadata.of_model("pooling_type") > 0 or "bert" in metadata.architecture,
        chat_template=metadata.text("tokenizer.chat_template"),
        licence=metadata.text("general.license"),
        languages=metadata.texts("general.languages"),
        tags=metadata.texts("general.tags"),
    )


def _kv_bytes_per_token(metadata: _Metadata, layers: int) -> int:
    heads = max(metadata.of_model("attention.head_count"), 1)
    width = metadata.of_model("embedding_length") // heads
    key = metadata.of_model("attention.key_length", width)
    value = metadata.of_model("attention.value_length", width)
    kv_heads = metadata.per_layer("attention.head_count_kv", layers, heads)
    return 2 * sum(kv_heads) * (key + value)


def quick_id(path: Path) -> str:
    """ "quick:…": a digest of the size and of samples spread over the file, some milliseconds of
    work.

    Good as a cache key; forgeable, because most of the file is not looked at.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(size.to_bytes(8, "big"))
    last = max(size - _SAMPLE_BYTES, 0)
    with path.open("rb") as file:
        for number in range(_SAMPLE_COUNT):
            file.seek(last * number // (_SAMPLE_COUNT - 1))
            digest.update(file.read(_SAMPLE_BYTES))
    return f"quick:{digest.hexdigest()}"


def sha256_of(path: Path, is_cancelled: Callable[[], bool] = lambda: False) -> str:
    """ "sha256:…" of the whole file: seconds per gigabyte, so call it in a thread.

    Ends early with InterruptedError once `is_cancelled` says so.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_READ_BYTES):
            if is_cancelled():
                raise InterruptedError
            digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"
