"""Retries of one request over real sockets: how often it ran, and what every client was given."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import httpx
import pytest

from monai_node.mesh.gateway.access.access import Access
from monai_node.mesh.gateway.app import create_app
from monai_node.mesh.gateway.config import GatewayConfig
from monai_node.mesh.gateway.http.answers import (
    ANSWER_BYTES_MAX,
    ANSWERS_MAX,
    BYTES_MAX,
    SECONDS_MAX,
    Answers,
)
from monai_node.mesh.gateway.http.server import open_server
from monai_node.mesh.gateway.testing import HeldRun, Script, ScriptedBackend, says
from monai_node.mesh.keys import new_key
from monai_node.registry.errors import ContextLengthExceeded, NoProvider, NotFound, PeerLost

BODY: dict[str, Any] = {"model": "mesh", "messages": [{"role": "user", "content": "hello"}]}
STREAM: dict[str, Any] = {**BODY, "stream": True}
KEY = {"idempotency-key": "retry-1"}
CHAT = "/v1/chat/completions"
REPLAYED = "x-idempotent-replayed"
QUICK = GatewayConfig(opening_seconds=0.02, keep_alive_seconds=0.05, stall_seconds=5, return_seconds=0.05)
PATIENT = replace(QUICK, return_seconds=10)

Use = Callable[[httpx.AsyncClient, ScriptedBackend], Awaitable[None]]


def _with_client(
    script: Script, use: Use, access: Access | None = None, config: GatewayConfig = QUICK
) -> None:
    async def main() -> None:
        backend = ScriptedBackend(script)
        app = create_app(backend, config, access)
        async with (
            asyncio.timeout(15),
            open_server(app, "127.0.0.1", 0) as address,
            httpx.AsyncClient(base_url=address.url, verify=False, timeout=10) as client,
        ):
            await use(client, backend)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, BODY),
        (CHAT, STREAM),
        ("/v1/responses", {"model": "mesh", "input": "hello"}),
        ("/v1/responses", {"model": "mesh", "input": "hello", "stream": True}),
        ("/v1/runs", {"graph": {"tasks": [{"id": "t1", "text": "say hello"}]}}),
    ],
)
def test_a_retry_is_given_the_same_answer_without_another_run(path: str, body: dict[str, Any]) -> None:
    async def use(client: httpx.AsyncClient, backend: ScriptedBackend) -> None:
        first, second = [await client.post(path, json=body, headers=KEY) for _ in range(2)]
        assert first.status_code == second.status_code == 200
        assert first.content == second.content
        assert first.headers["x-mesh-run"] == second.headers["x-mesh-run"]
        assert first.headers["x-request-id"] != second.headers["x-request-id"]
        assert REPLAYED not in first.headers
        assert second.headers[REPLAYED] == "true"
        assert len(backend.requests) == 1
        await client.post(path, json=body)
        assert len(backend.requests) == 2

    _with_client(says("Hel", "lo"), use)


@pytest.mark.parametrize("body", [BODY, STREAM])
def test_a_retry_joins_the_run_under_way(body: dict[str, Any]) -> None:
    held = HeldRun()

    async def use(client: httpx.AsyncClient, backend: ScriptedBackend) -> None:
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(client.post(CHAT, json=body, headers=KEY)) for _ in range(3)]
            await held.begun.wait()
            held.release.set()
        answers = [task.result() for task in asked]
        assert len({answer.content for answer in answers}) == 1
        assert sorted(REPLAYED in answer.headers for answer in answers) == [False, True, True]
        assert len(backend.requests) == 1

    _with_client(held.script, use)


def test_a_run_goes_on_for_those_who_joined_when_its_first_client_leaves() -> None:
    held = HeldRun()

    async def use(client: httpx.AsyncClient, backend: ScriptedBackend) -> None:
        async with client.stream("POST", CHAT, json=STREAM, headers=KEY) as first:
            await anext(first.aiter_lines())
            joining = client.stream("POST", CHAT, json=STREAM, headers=KEY)
            second = await joining.__aenter__()
        held.release.set()
        text = (await second.aread()).decode()
        await joining.__aexit__(None, None, None)
        assert second.headers[REPLAYED] == "true"
        assert '"Hel"' in text
        assert '"lo"' in text
        assert text.endswith("data: [DONE]\n\n")
        assert len(backend.requests) == 1

    _with_client(held.script, use)


@pytest.mark.parametrize("body", [BODY, STREAM])
def test_a_client_that_lost_its_connection_finds_its_run_again(body: dict[str, Any]) -> None:
    held = HeldRun()

    async def use(client: httpx.AsyncClient, backend: ScriptedBackend) -> None:
        for _ in range(2):
            with suppress(TimeoutError):
                async with asyncio.timeout(0.2):  # a stream is kept alive
                    await client.post(CHAT, json=body, headers=KEY)
        assert not backend.ended.is_set()
        held.release.set()
        answer = await client.post(CHAT, json=body, headers=KEY)
        assert answer.headers[REPLAYED] == "true"
        assert "Hel" in answer.text
        assert len(backend.requests) == 1

    _with_client(held.script, use, config=PATIENT)


def test_a_retry_long_after_everybody_left_runs_again() -> None:
    held = HeldRun()

    async def use(client: httpx.AsyncClient, backend: ScriptedBackend) -> None:
        with suppress(httpx.ReadTimeout):
            await client.post(CHAT, json=BODY, headers=KEY, timeout=0.2)
        await backend.ended.wait()
        held.release.set()
        answer = await client.post(CHAT, json=BODY, headers=KEY)
        assert answer.status_code == 200
        assert REPLAYED not in answer.headers
        assert len(backend.requests) == 2

    _with_client(held.script, use)


def test_a_key_counts_for_one_request_only() -> None:
    async def use(client: httpx.AsyncClient, backend: ScriptedBackend) -> None:
        await client.post(CHAT, json=BODY, headers=KEY)
        for path, body in ((CHAT, STREAM), ("/v1/responses", {"model": "mesh", "input": "hello"})):
            answer = await client.post(path, json=body, headers=KEY)
            assert answer.status_code == 422
            error = answer.json()["error"]
            assert set(error) == {"message", "type", "param", "code"}
            assert error["code"] == "idempotency_key_reused"
        assert len(backend.requests) == 1

    _with_client(says("Hello"), use)


def test_a_key_counts_for_one_caller_only() -> None:
    anna, bela = (new_key(0.0, rights=("chat",)) for _ in range(2))

    async def use(client: httpx.AsyncClient, backend: ScriptedBackend) -> None:
        for _, secret in (anna, bela, anna):
            headers = {**KEY, "authorization": f"Bearer {secret}"}
            answer = await client.post(CHAT, json=BODY, headers=headers)
            assert answer.status_code == 200
        assert len(backend.requests) == 2
        assert answer.headers[REPLAYED] == "true"

    _with_client(says("Hello"), use, Access([anna[0], bela[0]], requires_key=True))


@pytest.mark.parametrize("key", ["", "a b", "ü", "x" * 256])
def test_a_key_that_is_none_is_refused(key: str) -> None:
    async def use(client: httpx.AsyncClient, backend: ScriptedBackend) -> None:
        answer = await client.post(CHAT, json=BODY, headers={"idempotency-key": key.encode()})  # pyright: ignore
        assert answer.status_code == 400
        assert backend.requests == []

    _with_client(says("Hello"), use)


@pytest.mark.parametrize(
    ("script", "body", "runs"),
    [
        (says(error=ContextLengthExceeded("too long")), BODY, 1),
        (says(error=NoProvider("nobody is there")), BODY, 2),
        (says(error=NotFound("no such model")), BODY, 2),
        (says("Hel", error=PeerLost("anna is gone")), BODY, 2),
        (says("Hel", error=PeerLost("anna is gone")), STREAM, 2),
    ],
)
def test_only_successes_and_final_errors_are_given_again(
    script: Script, body: dict[str, Any], runs: int
) -> None:
    async def use(client: httpx.AsyncClient, backend: ScriptedBackend) -> None:
        first, second = [await client.post(CHAT, json=body, headers=KEY) for _ in range(2)]
        assert first.status_code == second.status_code
        assert len(backend.requests) == runs

    _with_client(script, use)


def test_a_stream_that_is_too_long_to_be_given_again_says_so() -> None:
    piece = "x" * (ANSWER_BYTES_MAX // 4)

    async def use(client: httpx.AsyncClient, backend: ScriptedBackend) -> None:
        first = await client.post(CHAT, json=STREAM, headers=KEY)
        assert first.text.endswith("data: [DONE]\n\n")
        second = await client.post(CHAT, json=STREAM, headers=KEY)
        assert second.status_code == 409
        assert second.json()["error"]["code"] == "answer_not_kept"
        assert second.headers["x-should-retry"] == "false"
        assert len(backend.requests) == 1

    _with_client(says(*[piece] * 5), use)


# --- what is kept -----------------------------------------------------------------------------------
def _keep(answers: Answers, name: str, byte_count: int = 1) -> None:
    answer = answers.begin(("", name), b"print")
    answer.note({"type": "http.response.start", "status": 200, "headers": []})
    answer.note({"type": "http.response.body", "body": b"x" * byte_count})


def _is_kept(answers: Answers, name: str) -> bool:
    return answers.find(("", name), b"print") is not None


def test_old_answers_and_too_many_are_let_go_and_those_under_way_never() -> None:
    now = 0.0
    answers = Answers(lambda: now)
    answers.begin(("", "going"), b"print")
    _keep(answers, "old")
    now = SECONDS_MAX + 1
    assert not _is_kept(answers, "old")
    for n in range(ANSWERS_MAX):
        _keep(answers, f"a{n}")
    assert not _is_kept(answers, "a0")
    assert _is_kept(answers, f"a{ANSWERS_MAX - 1}")
    for n in range(3):
        _keep(answers, f"b{n}", BYTES_MAX // 2)
    assert [_is_kept(answers, f"b{n}") for n in range(3)] == [False, True, True]
    assert _is_kept(answers, "going")


def test_who_keeps_many_answers_pushes_out_none_of_others() -> None:
    answers = Answers(lambda: 0.0)
    for caller, name in [("anna", "a"), *(("bela", f"b{n}") for n in range(ANSWERS_MAX + 5))]:
        assert answers.find((caller, name), b"") is None
        answer = answers.begin((caller, name), b"")
        answer.note({"type": "http.response.start", "status": 200, "headers": []})
        answer.note({"type": "http.response.body", "body": b"x"})
    assert answers.find(("anna", "a"), b"") is not None
    assert answers.find(("bela", "b0"), b"") is None
