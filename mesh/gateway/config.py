"""What a gateway may be told, and its defaults. Read once, at the edge; seconds and bytes."""

from __future__ import annotations

from dataclasses import dataclass

from monai_node.registry.wire import REQUEST_BODY_BYTES_MAX


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """`hosts` are names under which the gateway may be called besides the loopback ones."""

    hosts: tuple[str, ...] = ()
    body_bytes_max: int = REQUEST_BODY_BYTES_MAX
    body_seconds: float = 30.0  # from the request's head to the last byte of its body
    # In flight; further ones wait. What costs processor time, opening streams, is bounded where it is done.
    runs_max: int = 512
    waiting_max: int = 512  # for a place; further ones are told to come back
    # Then told to come back; nothing is sent until then, so that it is a 429. Proxies give up after 60.
    waiting_seconds: float = 50.0
    # A stream's status line is held this long for a first sign of success or failure: while nothing
    # was sent, a failure can still be an HTTP status. After that, keep-alives need an open stream.
    opening_seconds: float = 2.0
    keep_alive_seconds: float = 5.0  # of silence; proxies and clients give up after 30 to 60
    # A client that reads nothing for this long is cut. The kernel's socket buffers come on top.
    stall_seconds: float = 30.0
    # A run with an Idempotency-Key goes on for so long without its client: OpenAI's come back within 8 s.
    return_seconds: float = 10.0
    # Over a run's own deadline: the backend ends a run in time, this is what holds if it does not.
    grace_seconds: float = 1.0
    route_seconds: float = 10.0  # GET /v1/route: one embedding and one ranking
