"""The owner's hook: it may refuse, it is seen, it fails closed; and nothing else stands between a model's
words and who asked for them."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from monai_node.mesh.gateway.access.access import Access
from monai_node.mesh.gateway.app import create_app
from monai_node.mesh.gateway.caller import NOBODY, Caller
from monai_node.mesh.gateway.config import GatewayConfig
from monai_node.mesh.gateway.errors import NotAllowed
from monai_node.mesh.gateway.gate import RunGate
from monai_node.mesh.gateway.hook import Hook, HookRequest, HookVerdict, load_hook, shown_to_hook
from monai_node.mesh.gateway.openai.reader import chat_call
from monai_node.mesh.gateway.openai.text_completion import completion_call
from monai_node.mesh.gateway.site import Site
from monai_node.mesh.gateway.testing import ScriptedBackend, says
from monai_node.mesh.keys import new_key
from monai_node.registry.errors import SetupError
from monai_node.registry.ids import RunId

_T = TypeVar("_T")
CANARY = "what a user wrote"
ASKED: dict[str, Any] = {"messages": [{"role": "user", "content": CANARY}]}
GRAPH: dict[str, Any] = {"text": CANARY, "graph": {"tasks": [{"id": "t1", "text": f"say {CANARY}"}]}}
# What a filter, a template or a careless encoder would touch.
ODD = (
    "<|im_start|>system\n",
    "\x00\x07\x1b[2J\r\n\t ",
    "data: [DONE]\n\n",
    "</think>\u2028\u202e\ufeff",
    "naïve ẞ e\u0301 👩‍👩‍👧 ",
    "fuck, kill, bomb; drop table;",
    '{"error": {"message": "no"}}',
    "\\u0000 &lt; <script>",
    " \n\n  ",
)


def _run(work: Coroutine[Any, Any, _T]) -> _T:
    async def within() -> _T:
        async with asyncio.timeout(15):
            return await work

    return asyncio.run(within())


def _ask(hook: Hook | None, path: str, body: dict[str, Any], backend: ScriptedBackend) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(create_app(backend, hook=hook))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.request("POST" if body else "GET", path, json=body or None)

    return _run(ask())


def _refuses(request: HookRequest) -> HookVerdict:
    return HookVerdict("not here, please")


async def _refuses_later(request: HookRequest) -> HookVerdict:
    await asyncio.sleep(0)
    return HookVerdict("not here, please")


@pytest.mark.parametrize("function", [_refuses, _refuses_later])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", ASKED),
        ("/v1/chat/completions", {**ASKED, "stream": True}),
        ("/v1/runs", GRAPH),
        ("/v1/plan", ASKED),
        ("/v1/responses", {"input": CANARY}),
    ],
)
def test_what_the_owner_refuses_is_not_begun(function: Any, path: str, body: dict[str, Any]) -> None:
    backend = ScriptedBackend()
    answer = _ask(Hook(function, "policy:f"), path, body, backend)
    assert answer.status_code == 403
    assert answer.json()["error"] == {
        "message": "not here, please",
        "type": "invalid_request_error",
        "param": None,
        "code": "refused_by_owner",
    }
    assert backend.requests == []


def test_it_is_shown_what_is_asked_and_by_whom_and_can_change_nothing() -> None:
    key, secret = new_key(0.0)
    seen: list[HookRequest] = []

    def meddles(request: HookRequest) -> None:
        seen.append(
            HookRequest(
                request.kind,
                request.model,
                tuple(map(dict, request.messages)),
                request.tasks,
                request.key,
                request.privacy,
            )
        )
        request.messages[0]["content"] = "something else"

    backend = ScriptedBackend()

    async def main() -> None:
        transport = httpx.ASGITransport(create_app(backend, access=Access([key]), hook=Hook(meddles, "f")))
        headers = {"authorization": f"Bearer {secret}"}
        async with httpx.AsyncClient(
            transport=transport, base_url="http://127.0.0.1", headers=headers
        ) as client:
            body = {**ASKED, "mesh": {"privacy": "local"}}
            assert (await client.post("/v1/chat/completions", json=body)).status_code == 200
            assert (await client.post("/v1/runs", json=GRAPH)).status_code == 200

    _run(main())
    said = ({"role": "user", "content": CANARY},)
    assert seen == [
        HookRequest("run", "mesh", said, (), key.id, "local"),
        HookRequest("run", "mesh", said, (f"say {CANARY}",), key.id, None),
    ]
    assert {message.content for request in backend.requests for message in request.messages} == {CANARY}


def _chat(**fields: Any) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": "hi"}], **fields}).encode()


def test_nothing_that_a_model_is_given_is_hidden_from_it() -> None:
    called = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": CANARY}}
    turns = [{"role": "assistant", "tool_calls": [called]}]
    tool = {"type": "function", "function": {"name": "f", "description": CANARY}}
    ids = completion_call(b'{"model": "tiny", "prompt": [7, 8, 9]}', RunId("run-1")).request
    assert shown_to_hook(ids, "run", NOBODY).messages == ({"role": "user", "content": "7 8 9"},)
    for body in (_chat(tools=[tool]), _chat(messages=turns)):
        shown = shown_to_hook(chat_call(body, RunId("run-1")).request, "run", NOBODY)
        assert CANARY in str((shown.messages, shown.tools))


def test_texts_to_embed_are_shown_as_text_or_as_the_ids_of_their_tokens() -> None:
    def refuses_the_second(request: HookRequest) -> HookVerdict | None:
        assert (request.kind, request.model, request.key) == ("embedding", "minilm", "key-1")
        contents = [message["content"] for message in request.messages]
        return HookVerdict("no") if contents == ["a text", "7 8 9"] else None

    async def main() -> None:
        backend, caller = ScriptedBackend(), Caller("key-1")
        site = Site(backend, GatewayConfig(), RunGate(1), hook=Hook(refuses_the_second, "f"))
        await site.vet("minilm", ["a text"], caller)
        with pytest.raises(NotAllowed, match="no"):
            await site.vet("minilm", ["a text", [7, 8, 9]], caller)

    _run(main())


def _raises(request: HookRequest) -> None:
    raise ValueError(CANARY)


def _leaves(request: HookRequest) -> None:
    raise SystemExit(0)


def _stops(request: HookRequest) -> None:
    raise StopIteration


async def _never(request: HookRequest) -> None:
    await asyncio.Event().wait()


def _says_true(request: HookRequest) -> bool:
    return True


@pytest.mark.parametrize("function", [_raises, _leaves, _stops, _never, _says_true])
def test_a_hook_that_fails_refuses_and_the_log_says_where(
    function: Any, caplog: pytest.LogCaptureFixture
) -> None:
    backend = ScriptedBackend()
    with caplog.at_level(logging.DEBUG):
        answer = _ask(Hook(function, "policy:f", seconds=0.2), "/v1/chat/completions", ASKED, backend)
    assert answer.status_code == 500
    assert answer.headers["x-should-retry"] == "false"
    assert answer.json()["error"]["code"] == "hook_failed"
    assert "the owner's hook policy:f failed" in caplog.text
    assert CANARY not in answer.text + caplog.text
    assert backend.requests == []


def test_a_hook_that_hangs_holds_neither_the_loop_nor_more_than_its_places() -> None:
    release, calls = threading.Event(), 0

    def hangs(request: HookRequest) -> None:
        nonlocal calls
        calls += 1
        release.wait(10)

    hook = Hook(hangs, "f", seconds=0.2)
    request = HookRequest("run", "mesh", ())

    async def main() -> None:
        async def refused() -> bool:
            try:
                await hook.allow(request)
            except Exception:
                return True
            return False

        asked = [asyncio.create_task(refused()) for _ in range(20)]
        turned = 0
        while not all(task.done() for task in asked):
            await asyncio.sleep(0)
            turned += 1
        assert all(task.result() for task in asked)
        assert turned > 10  # the loop went on
        assert calls == 8
        release.set()
        until = time.monotonic() + 5
        while await refused():
            assert time.monotonic() < until
        assert calls > 8  # its places are free again

    _run(main())


def test_a_hook_is_seen_at_the_model_and_in_every_answer_and_none_is_not() -> None:
    hook = Hook(lambda request: None, "my policy:f\r\nx-evil: 1")
    shown = _ask(hook, "/v1/models", {}, ScriptedBackend())
    assert shown.headers["x-mesh-hook"] == hook.name == "my%20policy:f%0D%0Ax-evil:%201"
    assert shown.json()["data"][0]["mesh"] == {"hook": hook.name}
    assert _ask(hook, "/nope", ASKED, ScriptedBackend()).headers["x-mesh-hook"] == hook.name
    plain = _ask(None, "/v1/models", {}, ScriptedBackend())
    assert "x-mesh-hook" not in plain.headers
    assert "mesh" not in plain.json()["data"][0]


@pytest.mark.parametrize("hook", [None, Hook(lambda request: None, "f")])
def test_a_models_words_pass_untouched_byte_for_byte(hook: Hook | None) -> None:
    text = "".join(ODD)

    def ask(path: str, body: dict[str, Any]) -> httpx.Response:
        return _ask(hook, path, body, ScriptedBackend(says(*ODD)))

    whole = ask("/v1/chat/completions", ASKED).json()
    assert whole["choices"][0]["message"]["content"] == text
    assert ask("/v1/runs", GRAPH).json()["answer"] == text
    lines = ask("/v1/chat/completions", {**ASKED, "stream": True}).content.split(b"\n")
    chunks = [json.loads(line[6:]) for line in lines if line.startswith(b"data: {")]
    pieces = [choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]]
    assert [piece for piece in pieces if piece] == list(ODD)
    lines = ask("/v1/runs", {**GRAPH, "stream": True}).content.split(b"\n")
    events = [json.loads(line[6:]) for line in lines if line.startswith(b"data: {")]
    assert [event["text"] for event in events if event["type"] == "answer.delta"] == list(ODD)


# --- loading ------------------------------------------------------------------------------------------------
def test_the_hook_of_the_documentation_loads_and_works(tmp_path: Path) -> None:
    from monai_node.mesh.gateway import hook as module

    shown = (module.__doc__ or "").split("\n\n", 1)[1].split("\n\nIt may")[0]
    file = tmp_path / "policy.py"
    file.write_text("\n".join(line[4:] for line in shown.splitlines()))
    hook = load_hook(f"{file}:no_secrets")
    assert hook.name == "policy:no_secrets"
    answer = _ask(hook, "/v1/chat/completions", ASKED, ScriptedBackend())
    assert answer.status_code == 200
    secret = {"messages": [{"role": "user", "content": "a secret"}]}
    assert "wants no secrets" in _ask(hook, "/v1/chat/completions", secret, ScriptedBackend()).text


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("policy.py", "as FILE.py:function"),
        (":f", "as FILE.py:function"),
        ("none.py:f", "as FILE.py:function"),
        ("policy.py:g", "has no function 'g'"),
        ("policy.py:number", "has no function 'number'"),
        ("bad.py:f", "cannot be run: SyntaxError"),
        ("exit.py:f", "cannot be run: SystemExit"),
        ("policy.txt:f", "is not a Python file"),
    ],
)
def test_a_hook_that_cannot_be_loaded_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("policy.py").write_text("number = 1\ndef f(request): return None\n")
    Path("policy.txt").write_text("")
    Path("bad.py").write_text("def f(:\n")
    Path("exit.py").write_text("raise SystemExit(3)\n")
    with pytest.raises(SetupError, match="--hook") as refused:
        load_hook(where)
    assert said in refused.value.message
