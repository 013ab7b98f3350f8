from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from monai_node.mesh.gateway.access.guard import Guard, is_loopback, refusal, request_id_of
from monai_node.mesh.gateway.config import GatewayConfig
from monai_node.mesh.gateway.errors import install_error_handlers

CONFIG = GatewayConfig(body_bytes_max=100, body_seconds=0.05)
CANARY = "what a user wrote"
HOST = {"host": "127.0.0.1:8080"}


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.8.8.8", "[::1]", "::1"])
def test_loopback_is_what_needs_no_look_up(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example.org", "localhost.evil.org", ""])
def test_anything_else_is_not_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize("host", ["localhost", "localhost:1", "127.0.0.1:8080", "[::1]:8080", "localhost."])
def test_loopback_names_are_answered(host: str) -> None:
    assert refusal(Headers({"host": host}), CONFIG) is None


@pytest.mark.parametrize(
    "host", ["evil.org", "127.0.0.1.evil.org", "evil.org@localhost", "localhost:80:80", "", "[::1"]
)
def test_any_other_host_name_is_refused_so_that_rebinding_fails(host: str) -> None:
    refused = refusal(Headers({"host": host}), CONFIG)
    assert refused is not None
    assert (refused.status, refused.code) == (403, "host_not_allowed")


def test_a_configured_host_name_is_answered() -> None:
    config = GatewayConfig(hosts=("mesh.lan",))
    assert refusal(Headers({"host": "Mesh.lan:8080"}), config) is None
    assert refusal(Headers({"host": "other.lan"}), config) is not None


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.org"},
        {"origin": "null"},
        {"origin": "http://localhost:3000"},
        {"origin": "http://127.0.0.1"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_a_page_of_another_origin_is_refused(headers: dict[str, str]) -> None:
    refused = refusal(Headers(HOST | headers), CONFIG)
    assert refused is not None
    assert (refused.status, refused.code) == (403, "origin_not_allowed")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://127.0.0.1:8080"},
        {"sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},
    ],
)
def test_our_own_page_a_program_and_a_followed_link_are_answered(headers: dict[str, str]) -> None:
    assert refusal(Headers(HOST | headers), CONFIG) is None


def test_a_sane_request_id_is_kept_and_any_other_is_replaced() -> None:
    assert request_id_of(Headers({"x-request-id": "req_1.a:b-c"})) == "req_1.a:b-c"
    for bad in ("", "a b", "x" * 129, "é"):
        assert request_id_of(Headers({"x-request-id": bad})).startswith("req-")


def _app(config: GatewayConfig = CONFIG) -> FastAPI:
    app = FastAPI()

    @app.post("/echo")
    async def echo(request: Request) -> Response:
        return JSONResponse({"length": len(await request.body())})

    @app.get("/defect")
    async def defect() -> Response:
        raise ValueError(CANARY)

    install_error_handlers(app)
    app.add_middleware(Guard, config=config)
    return app


def _ask(method: str, path: str, **more: Any) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(_app())
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.request(method, path, **more)

    return asyncio.run(ask())


async def _pieces(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"x" * 50


def test_a_body_within_the_limit_arrives_whole() -> None:
    assert _ask("POST", "/echo", content=_pieces(2)).json() == {"length": 100}


def test_a_larger_body_is_refused_with_and_without_an_announced_length() -> None:
    for content in (b"x" * 101, _pieces(3)):
        answer = _ask("POST", "/echo", content=content)
        assert answer.status_code == 413
        assert answer.json()["error"]["code"] == "request_too_large"


def test_every_answer_has_a_request_id_and_none_a_cors_header() -> None:
    for path, headers in (("/echo", {}), ("/nope", {}), ("/echo", {"origin": "http://evil.org"})):
        answer = _ask("POST", path, headers={"x-request-id": "mine", **headers})
        assert answer.headers["x-request-id"] == "mine"
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_the_frameworks_own_refusals_have_openais_shape() -> None:
    missing, method = _ask("GET", "/nope"), _ask("GET", "/echo")
    assert (missing.status_code, method.status_code) == (404, 405)
    assert method.headers["allow"] == "POST"
    for answer in (missing, method):
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_a_defect_is_a_500_that_tells_neither_client_nor_log_what_was_asked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.DEBUG):
        answer = _ask("GET", "/defect", headers={"x-request-id": "mine"})
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal_error"
    assert "request mine failed: ValueError" in caplog.text
    assert CANARY not in answer.text + caplog.text


# --- what httpx cannot do: a slow body, an answer that breaks off, a WebSocket ----------------------
@dataclass
class _Client:
    """The raw other side of an ASGI app: sends nothing by itself, keeps what it is sent."""

    received: list[Message] = field(default_factory=list[Message])

    async def send(self, message: Message) -> None:
        self.received.append(message)

    async def receive(self) -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def meet(self, app: ASGIApp, kind: str, **headers: str) -> None:
        pairs = [(name.encode(), value.encode()) for name, value in (HOST | headers).items()]
        scope = {"type": kind, "method": "POST", "path": "/echo", "headers": pairs}
        scope |= {"query_string": b"", "root_path": "", "http_version": "1.1"}
        async with asyncio.timeout(5):
            await app(scope, self.receive, self.send)


def test_a_body_that_does_not_arrive_is_given_up() -> None:
    client = _Client()
    asyncio.run(client.meet(_app(), "http"))
    assert client.received[0]["status"] == 408
    assert json.loads(client.received[1]["body"])["error"]["code"] == "request_timeout"


async def _breaks_off(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise ValueError(CANARY)


def test_an_answer_that_breaks_off_raises_so_that_the_connection_is_cut() -> None:
    client = _Client()
    with pytest.raises(Exception, match="inside this node") as cut:
        asyncio.run(client.meet(Guard(_breaks_off, CONFIG), "http"))
    assert len(client.received) == 1
    assert cut.value.__suppress_context__


async def _accepts(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "websocket.accept"})


def test_a_web_socket_of_another_origin_is_closed_before_it_is_accepted() -> None:
    client = _Client()
    asyncio.run(client.meet(Guard(_accepts, CONFIG), "websocket", origin="http://evil.org"))
    assert client.received == [{"type": "websocket.close", "code": 1008, "reason": ""}]
    asyncio.run(client.meet(Guard(_accepts, CONFIG), "websocket", origin="http://127.0.0.1:8080"))
    assert [message["type"] for message in client.received[1:]] == ["websocket.accept"]
