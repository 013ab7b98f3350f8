"""One line of the log for each HTTP request and socket: who asked for what and what came of it, in words of
ours. Never a path or a query as they were sent: users write texts there."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from monai_node.mesh.gateway.caller import caller_of
from monai_node.mesh.gateway.errors import Cancelled
from monai_node.mesh.gateway.metrics import known_method
from monai_node.mesh.logs import log_context

_log = logging.getLogger(__name__)

_UPGRADED, _REFUSED = 101, 403
# Asked for every few seconds by whatever watches a gateway.
_QUIET = frozenset(("/health", "/metrics", "/ready"))
_TOLD = {b"x-request-id": "request_id", b"x-mesh-run": "run"}


class AccessLog:
    """The outermost layer. `answered` is told method, route and status of every request, too."""

    def __init__(self, app: ASGIApp, answered: Callable[[str, str, int], None]) -> None:
        self._app = app
        self._answered = answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        seen, began = _Seen(), time.monotonic()

        async def noted(message: Message) -> None:
            await send(message)
            seen.note(message)

        try:
            with log_context():
                return await self._app(scope, receive, noted)
        finally:
            self._tell(scope, seen, time.monotonic() - began)

    def _tell(self, scope: Scope, seen: _Seen, seconds: float) -> None:
        method = known_method("WEBSOCKET" if scope["type"] == "websocket" else scope["method"])
        route: str = getattr(scope.get("route"), "path", "-")
        self._answered(method, route, seen.status)
        level = logging.DEBUG if route in _QUIET else logging.INFO
        if not _log.isEnabledFor(level):
            return
        facts: dict[str, object] = {
            "method": method,
            "route": route,
            "status": seen.status,
            "seconds": round(seconds, 4),
            "bytes": seen.size,
            **({} if seen.is_whole else {"is_cut": True}),
            **({"key": key} if (key := caller_of(scope).key) else {}),
            **seen.told,
        }
        cut = "" if seen.is_whole else " cut"
        who = " ".join(str(facts[name]) for name in ("request_id", "key", "run") if name in facts)
        line = f"{method} {route} {seen.status}{cut} {seen.size} B {seconds:.3f} s {who}"
        _log.log(level, "%s", line.rstrip(), extra={"facts": facts})


@dataclass(slots=True)
class _Seen:
    """What was sent so far. `is_whole` once an answer is complete; a socket is when it has ended."""

    status: int = Cancelled.status
    size: int = 0
    is_whole: bool = False
    told: dict[str, str] = field(default_factory=dict[str, str])

    def note(self, message: Message) -> None:
        match message["type"]:
            case "http.response.start" | "websocket.http.response.start":
                self._begin(message["status"], message)
            case "websocket.accept":
                self._begin(_UPGRADED, message)
                self.is_whole = True
            case "websocket.close" if self.status == Cancelled.status:
                self._begin(_REFUSED, message)
                self.is_whole = True
            case "http.response.body" | "websocket.http.response.body":
                self.size += len(message.get("body", b""))
                self.is_whole = not message.get("more_body", False)
            case "websocket.send":
                self.size += len(message.get("text") or message.get("bytes") or "")
            case _:
                pass

    def _begin(self, status: int, message: Message) -> None:
        self.status = status
        for name, value in message.get("headers", ()):
            if name in _TOLD:
                self.told[_TOLD[name]] = value.decode("latin-1")
