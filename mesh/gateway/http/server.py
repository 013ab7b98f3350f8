"""uvicorn inside our own tasks: bound before it starts, ready when entered, drained when left."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp

from monai_node.mesh.config import Tls
from monai_node.mesh.gateway.access.guard import is_address, is_loopback
from monai_node.mesh.gateway.http.protocols import ConnectionLimits, LimitedConfig
from monai_node.registry.errors import SetupError
from monai_node.registry.tasks import task_scope
from monai_node.registry.wire import REQUEST_BODY_BYTES_MAX

_TICK_SECONDS = 1.0  # how often uvicorn renews its Date header
_DRAIN_SECONDS = 10  # for answers under way when the gateway stops; then they are cut
_CUT_SECONDS = 5  # for what was cut to clean up: closing a run tells its peers
_IDLE_SECONDS = 30  # longer than clients keep an idle connection, so that they close it, not we
# Of a WebSocket: a request body and what stands around it. A client that answers no ping is gone.
_MESSAGE_BYTES_MAX = REQUEST_BODY_BYTES_MAX + 4096
_PING_SECONDS = 20
# A client that takes nothing of what was sent for this long loses its connection, kernel buffers
# included (tcp(7), TCP_USER_TIMEOUT). Linux only; elsewhere the app's own time for a send must do.
_UNREAD_MS = 60_000


# What listens to all addresses is reached at this one from here.
_LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not listened to


@dataclass(frozen=True, slots=True)
class Address:
    """Where a gateway listens. `port` is the real one, also when 0 was asked for."""

    host: str
    port: int
    scheme: str = "http"

    @property
    def url(self) -> str:
        """For programs of this machine."""
        host = _LOOPBACK_OF.get(self.host, self.host)
        return f"{self.scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"


@asynccontextmanager
async def open_server(
    app: ASGIApp,
    host: str,
    port: int,
    *,
    drain_seconds: int = _DRAIN_SECONDS,
    asks_for_keys: bool = False,
    tls: Tls | None = None,
    limits: ConnectionLimits | None = None,
) -> AsyncGenerator[Address]:
    """Serves `app` for as long as it is entered; port 0 takes a free one. `asks_for_keys`: the app does, of
    everybody.

    Leaving stops listening, lets answers under way finish for `drain_seconds` and cuts the rest, so
    that no client takes a part for the whole. Leaves signals and logging to the process. SetupError when
    the address is beyond loopback without `asks_for_keys`, or cannot be had.
    """
    listener = listen(host, port, asks_for_keys=asks_for_keys)
    name, bound_port = listener.getsockname()[:2]
    server = _Server(
        LimitedConfig(
            app,
            limits or ConnectionLimits(),
            ws_max_size=_MESSAGE_BYTES_MAX,
            ws_ping_interval=_PING_SECONDS,
            ws_ping_timeout=_PING_SECONDS,
            ws_per_message_deflate=False,  # a small message could unfold into a large one
            lifespan="off",
            log_config=None,
            log_level=logging.CRITICAL,  # what fails behind it is logged where it arose, by us
            access_log=False,  # paths carry what users wrote (GET /v1/route?text=…)
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_IDLE_SECONDS,
            timeout_graceful_shutdown=drain_seconds,
            ssl_certfile=tls.certificate if tls else None,
            ssl_keyfile=tls.key if tls else None,
        )
    )
    async with task_scope() as tasks:
        serving = tasks.start(server.serve([listener]), name="gateway")
        try:
            await server.ready.wait()
            yield Address(name, bound_port, "https" if tls else "http")
        finally:
            server.stopping.set()
            await asyncio.wait({serving})


def listen(host: str, port: int, *, asks_for_keys: bool = False) -> socket.socket:
    """A listening TCP socket; SetupError when it cannot be had, or may not: whoever reaches it may use what
    does not ask for keys, so that this listens on loopback only."""
    if not is_loopback(host) and not asks_for_keys:
        raise SetupError(
            f"whoever reaches {host} could use this gateway, for there is no key to ask for; make one with"
            " `monai-node keys create`, or choose --host 127.0.0.1"
        )
    if not is_loopback(host) and not is_address(host):
        raise SetupError(f"--host {host} is not an IP address; give one of this machine, or 0.0.0.0 for all")
    name = "127.0.0.1" if host.lower() == "localhost" else host.strip("[]")
    # asyncio turns Nagle's algorithm off (40 ms per answer) only for sockets that say they are TCP.
    family = socket.AF_INET6 if ":" in name else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(AttributeError):
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNREAD_MS)
        listener.bind((name, port))
        listener.listen()
    except (OSError, OverflowError) as error:
        listener.close()
        raise _cannot_listen(error, host, port) from None
    return listener


def _cannot_listen(error: OSError | OverflowError, host: str, port: int) -> SetupError:
    if isinstance(error, OverflowError):
        return SetupError(f"{port} is not a port; choose one from 1 to 65535 with --port")
    if error.errno == errno.EADDRINUSE:
        return SetupError(f"port {port} on {host} is in use; choose another with --port")
    return SetupError(f"cannot listen on port {port} of {host}: {error.strerror}")


class _Server(uvicorn.Server):
    """uvicorn without its hands on the process: no signal handlers, events instead of polling."""

    def __init__(self, config: LimitedConfig) -> None:
        super().__init__(config)
        self._linger_seconds = config.limits.linger_seconds
        self.ready = asyncio.Event()
        self.stopping = asyncio.Event()
        self._closing: dict[asyncio.Transport, float] = {}

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    async def main_loop(self) -> None:
        self.ready.set()
        while not self.stopping.is_set():
            await self.on_tick(0)
            self._cut_lingering()
            with suppress(TimeoutError):
                async with asyncio.timeout(_TICK_SECONDS):
                    await self.stopping.wait()

    def _cut_lingering(self) -> None:
        """A connection that is closed waits for its client to take what was sent; not for long."""
        now = asyncio.get_running_loop().time()
        transports = (connection.transport for connection in self.server_state.connections)
        closing = [transport for transport in transports if transport.is_closing()]
        self._closing = {transport: self._closing.get(transport, now) for transport in closing}
        for transport, since in self._closing.items():
            if now - since > self._linger_seconds:
                transport.abort()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, but requests that it cancelled have ended when it returns."""
        await super().shutdown(sockets)
        cut = set(self.server_state.tasks)
        if cut:
            await asyncio.wait(cut, timeout=_CUT_SECONDS)
