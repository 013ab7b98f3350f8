"""The line that each request leaves in the log, and what never stands there."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from monai_node.agents.request import RunRequest
from monai_node.mesh.gateway.access.access import Access
from monai_node.mesh.gateway.app import create_app
from monai_node.mesh.gateway.metrics import Metrics
from monai_node.mesh.gateway.testing import ScriptedBackend, says
from monai_node.mesh.keys import new_key
from monai_node.mesh.logs import open_log
from monai_node.registry.errors import TaskFailed
from monai_node.registry.events import AnswerDelta, RunCreated, RunEvent

CANARY = "a canary in a coal mine"
CHAT = {"model": "mesh", "messages": [{"role": "user", "content": CANARY}]}


@pytest.fixture(params=["json", "text"])
def log_file(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[Path]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    file = tmp_path / f"{request.param}.log"
    try:
        open_log(file, "debug", request.param)
        yield file
    finally:
        for handler in [each for each in root.handlers if each not in before]:
            root.removeHandler(handler)
            handler.close()
        root.setLevel(level)
        logging.getLogger("monai_node").setLevel(logging.NOTSET)


def _objects(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def _of_requests(file: Path) -> list[dict[str, Any]]:
    return [line for line in _objects(file) if line["logger"].endswith("access_log")]


def _ask(backend: ScriptedBackend, *requests: tuple[str, str, dict[str, Any]]) -> list[httpx.Response]:
    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(create_app(backend))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return [await client.request(method, path, **more) for method, path, more in requests]

    return asyncio.run(ask())


async def _breaks(request: RunRequest) -> AsyncGenerator[RunEvent]:
    yield RunCreated(run=request.run)
    yield AnswerDelta(run=request.run, text=CANARY)
    raise ValueError(CANARY)


@pytest.mark.parametrize("log_file", ["json"], indirect=True)
def test_a_request_is_one_object_that_names_its_run(log_file: Path) -> None:
    (answer,) = _ask(ScriptedBackend(), ("POST", "/v1/chat/completions", {"json": CHAT}))
    (line,) = _of_requests(log_file)
    assert line["seconds"] >= 0
    assert line["time"].endswith("Z")
    assert {name: line[name] for name in line if name not in ("seconds", "time", "message", "logger")} == {
        "level": "info",
        "method": "POST",
        "route": "/v1/chat/completions",
        "status": 200,
        "bytes": len(answer.content),
        "request_id": answer.headers["x-request-id"],
        "run": answer.headers["x-mesh-run"],
    }


@pytest.mark.parametrize("log_file", ["json"], indirect=True)
def test_paths_and_queries_are_told_by_their_templates_only(log_file: Path) -> None:
    _ask(
        ScriptedBackend(),
        ("GET", "/v1/route", {"params": {"text": CANARY}}),
        ("GET", f"/v1/models/{CANARY}", {}),
        ("GET", f"/{CANARY}", {}),
        ("CANARY", "/v1/models", {}),
        ("GET", "/v1/models", {"headers": {"host": "evil.example"}}),
    )
    assert [(line["method"], line["route"], line["status"]) for line in _of_requests(log_file)] == [
        ("GET", "/v1/route", 200),
        ("GET", "/v1/models/{model:path}", 404),
        ("GET", "-", 404),
        ("other", "/v1/models", 405),
        ("GET", "-", 403),
    ]
    assert "canary" not in log_file.read_text().lower()


@pytest.mark.parametrize("log_file", ["json"], indirect=True)
def test_what_goes_wrong_inside_a_run_is_told_with_its_run_and_request(log_file: Path) -> None:
    (answer,) = _ask(ScriptedBackend(_breaks), ("POST", "/v1/chat/completions", {"json": CHAT}))
    assert answer.status_code == 500
    defect, request = _objects(log_file)
    assert defect["level"] == "error"
    assert defect["run"] == request["run"] == answer.headers["x-mesh-run"]
    assert defect["request_id"] == request["request_id"]


@pytest.mark.parametrize("log_file", ["json"], indirect=True)
def test_a_caller_is_named_by_the_id_of_its_key_and_never_by_the_key(log_file: Path) -> None:
    key, secret = new_key(0.0)
    app = create_app(ScriptedBackend(), access=Access((key,), requires_key=True))

    async def ask() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            for shown in (secret, f"{secret}x"):
                await client.get("/v1/models", headers={"authorization": f"Bearer {shown}"})

    asyncio.run(ask())
    known, unknown = _of_requests(log_file)
    assert (known["key"], known["status"]) == (key.id, 200)
    assert ("key" in unknown, unknown["route"], unknown["status"]) == (False, "-", 401)
    assert secret not in log_file.read_text()


def test_nothing_that_a_user_or_a_model_wrote_is_in_the_log(log_file: Path) -> None:
    streamed = {**CHAT, "stream": True}
    wrong = {**CHAT, "temperature": CANARY, CANARY: CANARY}
    for backend in (
        ScriptedBackend(says(CANARY)),
        ScriptedBackend(says(CANARY, error=TaskFailed(CANARY))),
        ScriptedBackend(_breaks),
    ):
        _ask(
            backend,
            *(("POST", "/v1/chat/completions", {"json": body}) for body in (CHAT, streamed, wrong)),
            ("POST", "/v1/chat/completions", {"content": CANARY}),
            ("POST", "/v1/responses", {"json": {"model": "mesh", "input": CANARY}}),
            ("POST", "/v1/plan", {"json": {"text": CANARY}}),
            ("GET", f"/v1/models/{CANARY}", {"headers": {"authorization": f"Bearer {CANARY}"}}),
        )
    text = log_file.read_text()
    assert "ValueError" in text
    assert "access_log" in text
    assert CANARY not in text
    assert "canary" not in text


@pytest.mark.parametrize("log_file", ["json"], indirect=True)
def test_a_socket_is_told_of_when_it_ends(log_file: Path) -> None:
    client = TestClient(create_app(ScriptedBackend()), base_url="http://localhost")
    with client.websocket_connect("/v1/ws", headers={"host": "localhost"}):
        assert _of_requests(log_file) == []
    (line,) = _of_requests(log_file)
    assert (line["method"], line["route"], line["status"]) == ("WEBSOCKET", "/v1/ws", 101)


def test_whoever_only_looks_whether_we_live_is_told_of_quietly(log_file: Path) -> None:
    logging.getLogger("monai_node").setLevel(logging.INFO)
    _ask(ScriptedBackend(), ("GET", "/health", {}), ("GET", "/ready", {}), ("GET", "/metrics", {}))
    assert log_file.read_text() == ""


def test_requests_are_counted_by_route_and_status() -> None:
    async def ask() -> Metrics:
        metrics = Metrics()
        transport = httpx.ASGITransport(create_app(ScriptedBackend(), metrics=metrics))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            await client.get("/v1/models/one")
            await client.get("/v1/models/two")
        return metrics

    metrics = asyncio.run(ask())
    labels = {"method": "GET", "route": "/v1/models/{model:path}", "status": "404"}
    assert metrics.registry.get_sample_value("monai_http_requests_total", labels) == 2
