"""uvicorn's protocols, bounded against clients that mean harm: in time, in number, in memory.

uvicorn waits for ever for the rest of a head, takes any number of connections, answers what is not HTTP in
plain text, and queues a pong for every ping whether or not anybody reads it.
"""

from __future__ import annotations

import asyncio
import resource
import sys
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, cast

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState

from monai_node.mesh.gateway.errors import HeadTooLarge, RequestTooSlow, TooManyConnections, error_response
from monai_node.registry.errors import InvalidRequest, MonaiError

_CONNECTIONS_MAX = 1000
# Read at once: of empty frames, each of which takes 10 µs, no more than 15 ms hold the event loop.
_SOCKET_READ_BYTES_MAX = 8 << 10
# Close codes, RFC 6455 section 7.4.1 and its registry.
SERVICE_RESTART = 1012  # also how the app is told that the server stops
_INVALID_DATA = 1007
_HEAD_TOO_LARGE = 431
_ANSWERABLE = (h11.IDLE, h11.SEND_RESPONSE)  # nothing of an answer was sent


def _connections_max() -> int:
    """Half of what the process may have open: peers, files and children need the rest."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _CONNECTIONS_MAX if soft == resource.RLIM_INFINITY else min(_CONNECTIONS_MAX, soft // 2)


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """`head_seconds`: from a connection's or a head's first byte to the end of the head. `linger_seconds`:
    from the end of a connection until what its client has not taken is thrown away."""

    head_seconds: float = 10.0
    linger_seconds: float = 5.0
    connections_max: int = field(default_factory=_connections_max)


class LimitedConfig(Config):
    """uvicorn's configuration, and the limits that its protocols lack."""

    def __init__(self, app: Any, limits: ConnectionLimits, **options: Any) -> None:
        super().__init__(app, http=HttpProtocol, ws=SocketProtocol, **options)
        self.limits = limits


class HttpProtocol(H11Protocol):
    """One connection. When there are too many, one that has no request under way makes room."""

    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any], **more: Any
    ) -> None:
        super().__init__(config, server_state, app_state, **more)
        self._limits = cast("LimitedConfig", config).limits
        self._head_timer: asyncio.TimerHandle | None = None
        self._opened = self.loop.time()
        self._is_upgraded = False

    @property
    def has_request(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete  # pyright: ignore[reportUnnecessaryComparison]

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        if len(self.connections) > self._limits.connections_max and not self._make_room():
            return self._refuse(TooManyConnections("too many connections are open here; try again shortly"))
        return self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_head()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch_head()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._is_upgraded = True
        super().handle_websocket_upgrade(event)

    def send_400_response(self, msg: str) -> None:
        error = sys.exception()
        if isinstance(error, h11.RemoteProtocolError) and error.error_status_hint == _HEAD_TOO_LARGE:
            return self._refuse(HeadTooLarge("the head of the request is too large"))
        return self._refuse(InvalidRequest("that is no HTTP/1.1 request", code="invalid_http"))

    # --- the head's time ----------------------------------------------------------------------------------
    def _watch_head(self) -> None:
        """A head is awaited from its first byte on; before it, the time of an idle connection counts."""
        if self.has_request or self.transport.is_closing() or self._is_upgraded:
            self._stop_waiting()
        elif self.timeout_keep_alive_task is None and self._head_timer is None:
            self._await_head()

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self._limits.head_seconds, self._give_up)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        self._head_timer = None
        seconds = self._limits.head_seconds
        self._refuse(RequestTooSlow(f"the head of the request did not arrive within {seconds:g} seconds"))

    # --- ways to end --------------------------------------------------------------------------------------
    def _make_room(self) -> bool:
        """Close the oldest connection that has no request under way."""
        others = (
            other for other in self.connections if isinstance(other, HttpProtocol) and other is not self
        )
        idle = [other for other in others if not other.has_request and not other.transport.is_closing()]
        if idle:
            min(idle, key=lambda other: other._opened).transport.abort()
        return bool(idle)

    def _refuse(self, error: MonaiError) -> None:
        """Say why, unless an answer is under way, and close; the app takes its client for gone."""
        if self.conn.our_state in _ANSWERABLE:
            response = error_response(error)
            head = h11.Response(
                status_code=response.status_code,
                headers=[*response.raw_headers, (b"connection", b"close")],
                reason=HTTPStatus(response.status_code).phrase.encode(),
            )
            for event in (head, h11.Data(data=bytes(response.body)), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        if self.has_request:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()


class SocketProtocol(WebSocketsSansIOProtocol):
    """One WebSocket. Who does not read what it is sent is not read from either."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # asyncio's own way to say how much is read at once; a TLS transport lacks it.
        cast("Any", transport).max_size = _SOCKET_READ_BYTES_MAX

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self.handshake_initiated:  # the head is here already, but not one that it can read
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()

    def shutdown(self) -> None:
        """Leaves it to the app to end its work and to close: as an HTTP answer, it is given time."""
        if not self.handshake_complete or self.close_sent:
            return super().shutdown()
        return self.queue.put_nowait({"type": "websocket.disconnect", "code": SERVICE_RESTART})

    def pause_writing(self) -> None:
        super().pause_writing()
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    def send_receive_event_to_app(self) -> None:
        if self.curr_msg_data_type == "text" and not _is_utf8(b"".join(self.frames)):
            self.frames = []
            self.conn.fail(_INVALID_DATA)
            return self.handle_parser_exception()
        return super().send_receive_event_to_app()


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
