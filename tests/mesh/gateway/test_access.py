"""Who may use a gateway: over HTTP, over sockets, while keys come and go."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
import websockets
from fastapi import FastAPI
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from monai_node.agents.request import RunRequest
from monai_node.mesh.gateway.access.access import Access
from monai_node.mesh.gateway.access.files import open_access
from monai_node.mesh.gateway.app import create_app
from monai_node.mesh.gateway.caller import Caller
from monai_node.mesh.gateway.errors import InvalidKey
from monai_node.mesh.gateway.http.server import open_server
from monai_node.mesh.gateway.testing import HeldRun, Script, ScriptedBackend, completed, provenance
from monai_node.mesh.keys import AccessKey, KeyFile, new_key
from monai_node.registry.errors import SetupError
from monai_node.registry.events import RunEvent, TaskDispatched, TaskText, TaskWasCompleted
from monai_node.registry.ids import RunId
from monai_node.registry.wire import Usage

_T = TypeVar("_T")
CHAT, SECRET = new_key(0.0)
ADMIN, ADMIN_SECRET = new_key(0.0, rights=("admin", "chat"))
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}]}
FOUR_KEYS = {"message", "type", "param", "code"}


def _run(work: Coroutine[Any, Any, _T]) -> _T:
    async def within() -> _T:
        async with asyncio.timeout(15):
            return await work

    return asyncio.run(within())


def _bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def _client(app: FastAPI, **headers: str) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app)
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers)


def _ask(access: Access, method: str, path: str, secret: str | None = None, **more: Any) -> httpx.Response:
    async def ask() -> httpx.Response:
        app = create_app(ScriptedBackend(), access=access)
        async with _client(app, **(_bearer(secret) if secret else {})) as client:
            return await client.request(method, path, **more)

    return _run(ask())


def _guarded(*keys: AccessKey) -> Access:
    return Access(keys or (CHAT, ADMIN), requires_key=True)


# --- who may do what ------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", ["/v1/models", "/v1/decisions", "/ready", "/nope", "/v1/chat/completions"])
def test_without_a_key_nothing_is_told_not_even_what_exists(path: str) -> None:
    for secret in (None, "wrong", "mk-" + "A" * 43):
        answer = _ask(_guarded(), "GET", path, secret)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        error = answer.json()["error"]
        assert set(error) == FOUR_KEYS
        assert error["code"] == "invalid_api_key"


def test_a_body_without_a_key_is_not_read() -> None:
    async def body() -> AsyncGenerator[bytes]:
        raise AssertionError("it was read")
        yield b""

    assert _ask(_guarded(), "POST", "/v1/chat/completions", content=body()).status_code == 401


def test_health_is_for_everybody() -> None:
    assert _ask(_guarded(), "GET", "/health").status_code == 200


def test_each_right_opens_its_own() -> None:
    assert _ask(_guarded(), "POST", "/v1/chat/completions", SECRET, json=HELLO).status_code == 200
    refused = _ask(_guarded(), "GET", "/v1/decisions", SECRET)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "missing_right")
    assert _ask(_guarded(), "GET", "/v1/decisions", ADMIN_SECRET).status_code == 200
    assert _ask(_guarded(), "GET", "/nope", ADMIN_SECRET).status_code == 404


def test_a_key_in_the_url_is_none() -> None:
    for name in ("key", "api_key", "access_token", "authorization"):
        assert _ask(_guarded(), "GET", f"/v1/models?{name}={SECRET}").status_code == 401


def test_on_loopback_all_is_open_but_a_key_that_is_shown_counts() -> None:
    access = Access((CHAT,))
    assert _ask(access, "GET", "/v1/decisions").status_code == 200
    assert (
        _ask(access, "GET", "/v1/decisions", "none").status_code == 200
    )  # what clients send for want of a key
    assert _ask(access, "GET", "/v1/decisions", SECRET).status_code == 403
    assert _ask(access, "GET", "/v1/models", "mk-wrong").status_code == 401


def test_guests_neither_see_addresses_nor_rate_the_runs_of_others_nor_teach_plans() -> None:
    backend = ScriptedBackend()
    graph = {"tasks": [{"id": "t1", "text": "hello"}]}

    async def main() -> None:
        other, other_secret = new_key(0.0)
        app = create_app(backend, access=_guarded(CHAT, ADMIN, other))
        async with _client(app) as client:

            async def rates(secret: str, run: str) -> int:
                said = {"run": run, "rating": "up"}
                answer = await client.post("/v1/feedback", json=said, headers=_bearer(secret))
                return answer.status_code

            body = {"graph": graph, "text": "hello"}
            answer = await client.post("/v1/runs", json=body, headers=_bearer(SECRET))
            run = answer.json()["run"]
            assert backend.accepted == []
            assert [await rates(s, run) for s in (SECRET, other_secret, ADMIN_SECRET)] == [200, 404, 200]
            assert await rates(SECRET, "run-unknown") == 404
            await client.post("/v1/runs", json=body, headers=_bearer(ADMIN_SECRET))
            assert len(backend.accepted) == 1

    _run(main())


# --- how much -------------------------------------------------------------------------------------------
def test_limits_are_told_with_every_answer_and_refusals_when_to_come_back() -> None:
    key, secret = new_key(0.0, requests_per_minute=2, tokens_per_day=1000)
    access = Access((key,), now=lambda: 1000.0)
    first = _ask(access, "POST", "/v1/chat/completions", secret, json=HELLO)
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert first.headers["x-ratelimit-limit-tokens"] == "1000"
    second = _ask(access, "GET", "/v1/models", secret)
    assert second.headers["x-ratelimit-remaining-tokens"] == "995"  # the scripted run used 3 + 2
    third = _ask(access, "GET", "/v1/models", secret)
    assert third.status_code == 429
    assert third.headers["retry-after"] == "30"
    assert third.headers["x-ratelimit-remaining-requests"] == "0"
    assert set(third.json()["error"]) == FOUR_KEYS
    assert not [name for name in _ask(access, "GET", "/v1/models").headers if "ratelimit" in name]


def test_an_address_with_many_wrong_keys_is_told_to_wait_but_a_good_key_behind_it_is_not() -> None:
    access = _guarded()
    answers = [_ask(access, "GET", "/v1/models", f"mk-{n}").status_code for n in range(12)]
    assert answers == [*[401] * 10, 429, 429]
    assert _ask(access, "GET", "/v1/models", SECRET).status_code == 200


def test_a_run_that_is_cut_counts_what_was_done_and_guesses_the_rest() -> None:
    key, _ = new_key(0.0, tokens_per_day=1000)
    access = Access((key,), now=lambda: 1000.0)
    request = RunRequest("run-1", ())  # type: ignore[arg-type]
    done = provenance()
    sent: dict[str, Any] = {
        "run": "run-1",
        "attempt": "a",
        "skill": "chat",
        "peer": "p",
        "peer_name": "p",
        "reasons": [],
    }
    events: list[RunEvent] = [
        TaskDispatched.model_validate({**sent, "task": "t1"}),
        TaskText(run="run-1", task="t1", text="x" * 400),
        TaskWasCompleted(run="run-1", task="t1", provenance=done),
        TaskDispatched.model_validate({**sent, "task": "t2"}),
        TaskText(run="run-1", task="t2", text="x" * 42),
    ]
    meter = access.watch(request, Caller(key.id))
    used: list[int] = []
    for event in events:
        meter.note(event)
        used.append(access.usage().tokens.get(key.id, 0))
    meter.close()
    assert used == [0, 100, 5, 5, 5 + 11]  # the part's usage, and 42 bytes at 4 a token
    meter = access.watch(request, Caller(key.id))
    for event in (*events, completed("run-1", done, done)):
        meter.note(event)
    meter.close()
    assert access.usage().tokens == {key.id: 16 + 10}


def test_a_key_pays_for_what_it_sent_in_any_form_and_not_for_what_a_peer_makes_up() -> None:
    key, _ = new_key(0.0, tokens_per_day=10**9)
    access = Access((key,), now=lambda: 1000.0)
    asked = RunRequest(RunId("run-1"), (), tokens=(1,) * 1000, is_completion=True)
    sent = TaskDispatched(
        run="run-1", task="t1", attempt="a", skill="chat", peer="p", peer_name="p", reasons=[]
    )
    meter = access.watch(asked, Caller(key.id))
    meter.note(sent)
    assert access.usage().tokens == {key.id: 1000}
    lie = provenance().model_copy(update={"usage": Usage(prompt_tokens=2**62, completion_tokens=2**62)})
    for event in (TaskWasCompleted(run="run-1", task="t1", provenance=lie), completed("run-1", lie)):
        meter.note(event)
    meter.close()
    assert access.usage().tokens[key.id] < 100_000


# --- keys that come and go ------------------------------------------------------------------------------
async def _until(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


def test_keys_are_taken_up_and_revoked_while_it_runs(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json")
    file.add(CHAT)
    new, new_secret = new_key(0.0)

    async def main() -> None:
        async with open_access(tmp_path / "keys.json", tmp_path / "usage.json", requires_key=True) as access:
            app = create_app(ScriptedBackend(), access=access)
            async with _client(app) as client:

                async def status(secret: str) -> int:
                    return (await client.get("/v1/models", headers=_bearer(secret))).status_code

                assert [await status(SECRET), await status(new_secret)] == [200, 401]
                file.add(new)
                await _until(lambda: access.knows(new.id))
                assert await status(new_secret) == 200
                file.revoke(CHAT.id)
                await _until(lambda: not access.knows(CHAT.id))
                assert [await status(SECRET), await status(new_secret)] == [401, 200]
                (tmp_path / "keys.json").write_text("damaged")
                await _until(lambda: not access.knows(new.id))
                assert await status(new_secret) == 401

    _run(main())


def test_a_file_that_cannot_be_read_revokes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    KeyFile(tmp_path / "keys.json").add(CHAT)

    async def main() -> None:
        async with open_access(tmp_path / "keys.json", tmp_path / "usage.json", requires_key=True) as access:
            (tmp_path / "keys.json").unlink()
            (tmp_path / "keys.json").mkdir()
            await _until(lambda: "keys are not followed" in caplog.text)
            assert access.knows(CHAT.id)

    _run(main())


def test_what_was_used_today_is_known_after_a_restart_and_damage_counts_as_nothing(tmp_path: Path) -> None:
    key, _ = new_key(0.0, tokens_per_day=10)
    KeyFile(tmp_path / "keys.json").add(key)
    usage = tmp_path / "usage.json"

    async def used(spent: int) -> dict[str, int]:
        async with open_access(tmp_path / "keys.json", usage, requires_key=True) as access:
            access.spend(Caller(key.id), spent)
            return access.usage().tokens

    assert _run(used(3)) == {key.id: 3}
    assert usage.stat().st_mode & 0o077 == 0
    assert _run(used(4)) == {key.id: 7}
    usage.write_text('{"day": 1, "tokens": {"x": -1}}')
    assert _run(used(1)) == {key.id: 1}
    assert usage.with_name("usage.json.corrupt-1").exists()


def test_without_any_key_a_gateway_that_requires_one_does_not_start(tmp_path: Path) -> None:
    async def main() -> None:
        async with open_access(tmp_path / "keys.json", tmp_path / "usage.json", requires_key=True):
            raise AssertionError

    with pytest.raises(SetupError, match="monai-node keys create"):
        _run(main())


def test_the_owners_own_key_opens_all_and_outlives_changes_of_the_file() -> None:
    access = _guarded(CHAT)
    secret = access.owners_key()
    access.take_up(())
    assert _ask(access, "GET", "/v1/decisions", secret).status_code == 200
    assert _ask(access, "GET", "/v1/models", SECRET).status_code == 401


# --- over real sockets ----------------------------------------------------------------------------------
@asynccontextmanager
async def _served(access: Access, script: Script | None = None) -> AsyncGenerator[str]:
    backend = ScriptedBackend(script) if script else ScriptedBackend()
    async with open_server(create_app(backend, access=access), "127.0.0.1", 0, drain_seconds=1) as address:
        yield address.url


async def _raw(url: str, *lines: str) -> int:
    """The status of a request whose head is made of these lines as they stand."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        "\r\n".join(["GET /v1/models HTTP/1.1", "host: localhost", *lines, "", ""]).encode("latin-1")
    )
    try:
        return int((await reader.readline()).split()[1])
    finally:
        writer.close()


def test_smuggled_and_oversized_heads_open_nothing() -> None:
    good, wrong = f"Authorization: Bearer {SECRET}", "Authorization: Bearer mk-wrong"

    async def main() -> None:
        async with _served(_guarded()) as url:
            assert await _raw(url, good) == 200
            assert await _raw(url, good.upper().replace(SECRET.upper(), SECRET)) == 200
            for lines in ((good, good), (good, wrong), (wrong, good.lower()), (good, "authorization:")):
                assert await _raw(url, *lines) == 401
            assert await _raw(url, good, "x-filler: " + "x" * (1 << 20)) in (400, 431)
            # Folded into the header before it, which no server may read in two ways: a wrong host.
            assert await _raw(url, f" {good}") == 403
            assert await _raw(url, f"Authorization : Bearer {SECRET}") == 400
            assert await _raw(url, f"Authorization: Bearer \xfc{SECRET}") == 401
            assert await _raw(url, f"x-forwarded-authorization: Bearer {SECRET}") == 401

    _run(main())


def test_a_key_revoked_in_the_middle_of_a_stream_ends_with_it() -> None:
    held = HeldRun()

    async def main() -> None:
        access = _guarded()
        async with _served(access, held.script) as url, httpx.AsyncClient(base_url=url) as client:
            body = {**HELLO, "stream": True}

            async def ask() -> httpx.Response:
                return await client.post("/v1/chat/completions", json=body, headers=_bearer(SECRET))

            asked = asyncio.create_task(ask())
            await held.begun.wait()
            access.take_up([ADMIN])
            assert (await ask()).status_code == 401
            held.release.set()
            text = (await asked).text
            assert text.endswith("data: [DONE]\n\n")
            assert re.findall(r'"content":"(\w+)"', text) == ["Hel", "lo"]

    _run(main())


def test_a_socket_needs_a_key_and_begins_no_run_after_it_was_revoked() -> None:
    page = [Subprotocol("monai.v1"), Subprotocol(f"monai-key.{SECRET}")]
    start = json.dumps({"type": "run.start", "id": "mine", "request": HELLO})

    async def main() -> None:
        access = _guarded()
        async with _served(access) as url:
            socket = url.replace("http", "ws") + "/v1/ws"
            for headers, protocols in (({}, None), (_bearer("mk-no"), None), (_bearer(SECRET), page)):
                with pytest.raises(websockets.InvalidStatus) as refused:
                    await connect(socket, additional_headers=headers, subprotocols=protocols).__aenter__()
                assert refused.value.response.status_code == 401
                assert json.loads(refused.value.response.body or b"")["error"]["code"] == "invalid_api_key"
            async with connect(socket, additional_headers=_bearer(SECRET)) as link:
                assert link.subprotocol is None
                await link.send(start)
                assert json.loads(await link.recv())["type"] == "run.created"
            async with connect(socket, subprotocols=page) as link:
                assert link.subprotocol == "monai.v1"
                access.take_up([ADMIN])
                await link.send(start)
                told = json.loads(await link.recv())
                assert (told["type"], told["status"], told["id"]) == ("error", 401, "mine")

    _run(main())


def test_each_run_of_a_socket_counts_as_a_request() -> None:
    key, secret = new_key(0.0, requests_per_minute=2)
    access = Access((key,))
    caller = Caller(key.id)
    access.begin(caller)
    access.begin(caller)
    with pytest.raises(Exception, match="2 requests a minute"):
        access.begin(caller)
    access.take_up(())
    with pytest.raises(InvalidKey, match="revoked"):
        access.begin(caller)
    assert secret


def test_a_task_scope_is_left_with_nothing_running(tmp_path: Path) -> None:
    async def main() -> set[str]:
        async with open_access(tmp_path / "keys.json", tmp_path / "usage.json", requires_key=False):
            pass
        return {task.get_name() for task in asyncio.all_tasks()} & {"keys", "usage of keys"}

    assert _run(main()) == set()
