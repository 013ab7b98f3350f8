"""A bounded reader of the values in a GGUF header, in the order in which they stand."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from monai_node.registry.errors import SetupError

_HEADER_BYTES_MAX = 64 << 20  # a 256k-token vocabulary with merges takes about 15 MB
_TEXT_BYTES_MAX = 1 << 20
_ARRAY_ITEMS_MAX = 2_000_000
_ARRAY_ITEMS_KEPT = 512  # per-layer numbers are kept, token tables are stepped over
_READ_BYTES = 1 << 20

_TEXT, _ARRAY = 8, 9
_SCALAR_CODES = ("<B", "<b", "<H", "<h", "<I", "<i", "<f", "<?", "", "", "<Q", "<q", "<d")
_SCALARS = {kind: struct.Struct(code) for kind, code in enumerate(_SCALAR_CODES) if code}
U32, U64 = _SCALARS[4], _SCALARS[10]


class Cursor:
    """Reads numbers and texts in order, a piece of the file at a time."""

    def __init__(self, file: BinaryIO, path: Path, size: int) -> None:
        self._file = file
        self.path = path
        self.size = size
        self.position = 0
        self._data = bytearray()

    def fail(self, trouble: str) -> NoReturn:
        raise SetupError(f"{self.path} {trouble}")

    def step(self, count: int) -> int:
        """Move over `count` bytes that are there; returns where they begin."""
        end = self.position + count
        if end > len(self._data):
            self._load(end)
        begin, self.position = self.position, end
        return begin

    def _load(self, end: int) -> None:
        if end > self.size:
            self.fail(f"is truncated: its header goes on after the last of {self.size} bytes")
        if end > _HEADER_BYTES_MAX:
            self.fail(f"has a header larger than {_HEADER_BYTES_MAX >> 20} MiB")
        self._data += self._file.read(max(end - len(self._data), _READ_BYTES))
        if end > len(self._data):
            self.fail("changed while it was read")

    def number(self, kind: struct.Struct) -> Any:
        begin = self.step(kind.size)
        return kind.unpack_from(self._data, begin)[0]

    def count(self, most: int, what: str) -> int:
        value: int = self.number(U64)
        if value > most:
            self.fail(f"is not a usable GGUF file: it claims {value} {what}")
        return value

    def text(self) -> str:
        length = self.count(_TEXT_BYTES_MAX, "bytes in one text")
        begin = self.step(length)
        return self._data[begin : begin + length].decode("utf-8", "replace")

    def skip_text(self) -> None:
        self.step(self.count(_TEXT_BYTES_MAX, "bytes in one text"))

    def value(self, kind: int) -> Any:
        if kind == _TEXT:
            return self.text()
        if kind == _ARRAY:
            return self._array()
        if kind not in _SCALARS:
            self.fail(f"is not a usable GGUF file: it holds a value of unknown type {kind}")
        return self.number(_SCALARS[kind])

    def _array(self) -> list[Any] | None:
        """The items; None for an array too long to matter here."""
        kind: int = self.number(U32)
        count = self.count(_ARRAY_ITEMS_MAX, "items in one array")
        is_kept = count <= _ARRAY_ITEMS_KEPT
        if kind == _TEXT:
            return [self.text() for _ in range(count)] if is_kept else self._skip_texts(count)
        if kind not in _SCALARS:
            self.fail(f"is not a usable GGUF file: it holds an array of unknown type {kind}")
        if is_kept:
            return [self.number(_SCALARS[kind]) for _ in range(count)]
        self.step(count * _SCALARS[kind].size)
        return None

    def _skip_texts(self, count: int) -> None:
        for _ in range(count):
            self.skip_text()
