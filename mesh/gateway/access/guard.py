"""What every request passes before anything of ours sees it, as one ASGI layer around the app.

Who may ask: a browser runs pages of strangers on this machine, and loopback does not stop them. A
page that resolves its own name to 127.0.0.1 (DNS rebinding) betrays itself by the Host header, one
that calls us directly by Origin or Sec-Fetch-Site. No CORS header is ever sent. Then the key: before
a byte of the body is read, and nothing behind this layer sees it.

How much: a body has a size and a time. Every answer carries `x-request-id`.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from monai_node.mesh.gateway.access.access import Access
from monai_node.mesh.gateway.access.rules import SOCKET_PROTOCOL, offered, right_needed, without_keys
from monai_node.mesh.gateway.caller import NOBODY, Caller, set_caller
from monai_node.mesh.gateway.config import GatewayConfig
from monai_node.mesh.gateway.errors import NotAllowed, RequestTooSlow, error_response
from monai_node.mesh.logs import add_to_log_context
from monai_node.registry.errors import Internal, MonaiError, RequestTooLarge, log_defect

_AUTHORITY = re.compile(r"(?P<host>\[[0-9a-f:.]+\]|[^:\[\]@/]+)(:\d{1,5})?", re.IGNORECASE)
_REQUEST_ID = re.compile(r"[\w.:-]{1,128}", re.ASCII)
_POLICY_VIOLATION = 1008  # WebSocket close code, RFC 6455 section 7.4.1


def is_loopback(host: str) -> bool:
    """Whether a host, in a URL's spelling, is this machine by definition and not by look-up."""
    if host.lower() == "localhost":
        return True
    address = _address(host)
    return address is not None and address.is_loopback


def is_address(host: str) -> bool:
    """Whether a host, in a URL's spelling, is an IP address."""
    return _address(host) is not None


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        found = ip_address(host.strip("[]"))
    except ValueError:
        return None
    # How a socket that listens to both names an IPv4 address.
    return found.ipv4_mapped or found if isinstance(found, IPv6Address) else found


def refusal(headers: Headers, config: GatewayConfig, local: str = "") -> MonaiError | None:
    """Why a request with these headers is not answered; None when it is. `local` is the address at which it
    came in: who names that one was not led here by another name."""
    host = headers.get("host", "")
    authority = _AUTHORITY.fullmatch(host)
    name = authority["host"].lower().rstrip(".") if authority else ""
    is_ours = is_loopback(name) or name in map(str.lower, config.hosts)
    if not is_ours and (_address(name) is None or _address(name) != _address(local)):
        return NotAllowed("this gateway does not answer to that host name", code="host_not_allowed")
    if _is_foreign_page(headers, host):
        return NotAllowed("a web page of another origin may not use this gateway", code="origin_not_allowed")
    if int(headers.get("content-length", "0")) > config.body_bytes_max:
        return _too_large(config)
    return None


def _is_foreign_page(headers: Headers, host: str) -> bool:
    origin = headers.get("origin")
    if origin is not None:
        return origin.lower() not in (f"http://{host.lower()}", f"https://{host.lower()}")
    # Browsers send no Origin with plain GETs (an <img>, a script), but they say where from.
    # Following a link is fine: the other page cannot read what is shown.
    is_foreign = headers.get("sec-fetch-site") in ("cross-site", "same-site")
    return is_foreign and headers.get("sec-fetch-mode") != "navigate"


def _too_large(config: GatewayConfig) -> RequestTooLarge:
    return RequestTooLarge(f"the body is larger than {config.body_bytes_max} bytes")


def request_id_of(headers: Headers) -> str:
    """The client's own id when it is a harmless one, else a new one."""
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else f"req-{secrets.token_hex(8)}"


class Guard:
    """The layer itself. Also the last resort for an exception that nobody handled."""

    def __init__(
        self,
        app: ASGIApp,
        config: GatewayConfig,
        access: Access | None = None,
        told: Mapping[str, str] | None = None,
    ) -> None:
        """`told` are headers that every answer has."""
        self._app = app
        self._config = config
        self._access = access or Access()
        self._told = {"x-content-type-options": "nosniff", **(told or {})}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._socket(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _enter(self, scope: Scope, method: str, answer: _Answer) -> MonaiError | None:
        """Why this request goes no further; None when it does, and then its caller is known."""
        headers = Headers(scope=scope)
        refused = refusal(headers, self._config, (scope.get("server") or ("",))[0])
        if refused is not None:
            return refused
        needed = right_needed(method, scope["path"])
        address = (scope.get("client") or ("",))[0]
        try:
            answer.caller = self._access.identify(headers, needed, address, answer.request_id)
            set_caller(scope, answer.caller)
            self._access.begin(answer.caller)
        except MonaiError as error:
            return error
        scope["headers"] = without_keys(scope["headers"])
        return None

    def _answer(self, scope: Scope, send: Send) -> _Answer:
        request_id = request_id_of(Headers(scope=scope))
        add_to_log_context(request_id=request_id)
        return _Answer(send, self._access, request_id, self._told)

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._answer(scope, send)
        has_protocol = SOCKET_PROTOCOL in offered(Headers(scope=scope))
        refused = self._enter(scope, "WEBSOCKET", answer)
        if refused is None:
            scope["subprotocols"] = [SOCKET_PROTOCOL] if has_protocol else []
            answer.subprotocol = SOCKET_PROTOCOL if has_protocol else None
            return await self._app(scope, receive, answer.send)
        if "websocket.http.response" in scope.get("extensions", {}):
            return await error_response(refused)(scope, receive, answer.send)
        return await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": ""})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._answer(scope, send)
        try:
            refused = self._enter(scope, scope["method"], answer)
            if refused is not None:
                return await error_response(refused)(scope, receive, answer.send)
            body = _Body(receive, self._config)
            await self._app(scope, body.receive, answer.send)
        except ClientDisconnect:
            return None
        except Exception as error:
            # The entry point of HTTP: nothing of ours stands above this to handle anything.
            log_defect(f"request {answer.request_id}", error)
            defect = Internal("the request failed for a reason inside this node; its log says where")
            if answer.is_started:
                # Raising is how an ASGI app has the connection cut, so that no client takes the
                # part it has for the whole.
                raise defect from None
            await error_response(defect)(scope, receive, answer.send)


class _Answer:
    """The sending side: adds the headers that every answer has, and chooses the subprotocol of a socket."""

    def __init__(self, send: Send, access: Access, request_id: str, told: Mapping[str, str]) -> None:
        self._send = send
        self._access = access
        self._told = told
        self.request_id = request_id
        self.caller: Caller = NOBODY
        self.subprotocol: str | None = None
        self.is_started = False

    async def send(self, message: Message) -> None:
        match message["type"]:
            case "http.response.start" | "websocket.http.response.start":
                self.is_started = True
                MutableHeaders(scope=message).update(self._headers())
            case "websocket.accept":
                message.setdefault("headers", [])
                MutableHeaders(scope=message).update(self._headers())
                message["subprotocol"] = self.subprotocol
            case _:
                pass
        await self._send(message)

    def _headers(self) -> Mapping[str, str]:
        return {"x-request-id": self.request_id, **self._told, **self._access.headers(self.caller)}


class _Body:
    """The receiving side: RequestTooLarge or RequestTooSlow out of `receive` while the body comes in.

    It counts what arrives, since a chunked body announces no length.
    """

    def __init__(self, receive: Receive, config: GatewayConfig) -> None:
        self._receive = receive
        self._config = config
        self._received_bytes = 0
        self._is_complete = False
        self._until = asyncio.get_running_loop().time() + config.body_seconds

    async def receive(self) -> Message:
        if self._is_complete:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError:
            seconds = self._config.body_seconds
            raise RequestTooSlow(f"the body did not arrive within {seconds:g} seconds") from None
        self._received_bytes += len(message.get("body", b""))
        self._is_complete = not message.get("more_body", False)
        if self._received_bytes > self._config.body_bytes_max:
            raise _too_large(self._config)
        return message
