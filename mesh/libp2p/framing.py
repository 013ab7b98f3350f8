"""Frames in a stream of bytes: a 4-byte big-endian length before each. No I/O."""

from __future__ import annotations

import struct

from monai_node.registry.errors import ProtocolViolation
from monai_node.registry.wire import FRAME_BYTES_MAX

_LENGTH = struct.Struct(">I")


def framed(frame: bytes) -> bytes:
    """The bytes that carry one frame; ProtocolViolation when it is larger than FRAME_BYTES_MAX."""
    if len(frame) > FRAME_BYTES_MAX:
        raise ProtocolViolation(f"a frame of {len(frame)} bytes exceeds {FRAME_BYTES_MAX}")
    return _LENGTH.pack(len(frame)) + frame


class FrameReader:
    """Cuts received bytes into frames.

    Holds at most one unfinished frame: its length is checked as soon as the four bytes are there,
    before any of it is kept.
    """

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that `data` completes; ProtocolViolation at an oversized length."""
        self._held += data
        frames: list[bytes] = []
        start = 0
        while len(self._held) - start >= _LENGTH.size:
            length: int = _LENGTH.unpack_from(self._held, start)[0]
            if length > FRAME_BYTES_MAX:
                raise ProtocolViolation(
                    f"a frame of {length} bytes was announced; {FRAME_BYTES_MAX} is the most"
                )
            end = start + _LENGTH.size + length
            if len(self._held) < end:
                break
            frames.append(bytes(self._held[start + _LENGTH.size : end]))
            start = end
        del self._held[:start]
        return frames

    @property
    def is_between_frames(self) -> bool:
        """Whether the bytes so far are whole frames: an end here cuts nothing."""
        return not self._held
