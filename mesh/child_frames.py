"""What parent and child say to each other, over one stream socket.

A frame is a 4-byte big-endian length and a CBOR list of entries `[call, kind, body]`; the body is
CBOR by itself, so that a body nobody can read costs its call and not the connection. Parent to
child: `open` (body `{op, payload}`) and `cancel`. Child to parent, on call 0: one `ready` (what the
child says of itself) or `failed`; on other calls: `event`…, then exactly one of `end`, `failed`
(body `{code, message}`). A cancelled call is ended as well: so the parent knows it was obeyed.
"""

from __future__ import annotations

import struct
from typing import Any, cast

from monai_node.registry.errors import MonaiError, ProtocolViolation
from monai_node.registry.wire import FRAME_BYTES_MAX, cbor, uncbor

SETUP_CALL = 0
LENGTH = struct.Struct(">I")
_MESSAGE_CHARS_MAX = 500

Entry = tuple[int, str, bytes]


def pack(*entries: Entry) -> bytes:
    """One frame with its length; ProtocolViolation when it would exceed FRAME_BYTES_MAX."""
    data = cbor([list(entry) for entry in entries])
    if len(data) > FRAME_BYTES_MAX:
        raise ProtocolViolation(f"a frame of {len(data)} bytes exceeds {FRAME_BYTES_MAX}")
    return LENGTH.pack(len(data)) + data


def frame_length(header: bytes) -> int:
    """The length announced by the first four bytes; ProtocolViolation when it is too large."""
    size: int = LENGTH.unpack(header)[0]
    if size > FRAME_BYTES_MAX:
        raise ProtocolViolation(f"a frame of {size} bytes exceeds {FRAME_BYTES_MAX}")
    return size


def unpack(data: bytes) -> list[Entry]:
    """The entries of a frame; ProtocolViolation for anything else."""
    value = uncbor(data)
    if not isinstance(value, list):
        raise ProtocolViolation("a frame that is not a list was received")
    return [_entry(item) for item in cast(list[Any], value)]


def _entry(item: Any) -> Entry:
    match item:
        case [int(call), str(kind), bytes(body)]:
            return call, kind, body
        case _:
            raise ProtocolViolation("a frame with an entry of unknown shape was received")


def failure(error: BaseException) -> dict[str, str]:
    """What a `failed` entry says of an exception. Our own errors speak; of others only the name is
    told, because their text may carry what a user wrote: their traceback belongs on stderr."""
    if isinstance(error, MonaiError):
        return {"code": error.code, "message": error.message[:_MESSAGE_CHARS_MAX]}
    return {"code": "task_failed", "message": f"it raised {type(error).__name__}"}
