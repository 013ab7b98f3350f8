"""Server-sent events, as all streams of ours are written. Pure."""

from __future__ import annotations

from monai_node.mesh.gateway.http.json_io import encode_json

SSE_HEADERS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would hold small chunks back
)
KEEP_ALIVE = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"  # what OpenAI's chat and completions end with


def frame(value: object, name: str | None = None) -> bytes:
    """One event."""
    # JSON has no raw line breaks, so one `data:` line holds any value.
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + encode_json(value) + b"\n\n"
