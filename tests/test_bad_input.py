"""Bad input of every kind: one sentence, the right status, and a gateway that goes on as before."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from live import CliResult, LiveMesh, run_cli
from monai_node.mesh.node import bundled_sources

pytestmark = pytest.mark.processes

ARITHMETIC = str(bundled_sources()[1])
TEN_MEGABYTES = 10 << 20
QUICK_SECONDS = 15.0


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Generator[LiveMesh]:
    with LiveMesh(tmp_path_factory.mktemp("bad-input")) as mesh:
        mesh.open_gateway()
        yield mesh


@pytest.fixture(scope="module")
def provider(mesh: LiveMesh) -> str:
    """Who answers what is well formed, so that nothing is refused for want of peers."""
    mesh.serve("provider", ARITHMETIC).wait_ready()
    mesh.wait_state("provider", "alive", 5)
    return "provider"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with every kind of file that is not what its name says."""
    whole = bundled_sources()[0].read_bytes()
    (tmp_path / "cut-header.gguf").write_bytes(whole[:300])
    (tmp_path / "cut-tensors.gguf").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "fake.gguf").write_bytes(b"not a model at all\n" * 1000)
    (tmp_path / "magic-only.gguf").write_bytes(b"GGUF" + bytes(range(256)) * 8)
    (tmp_path / "empty.gguf").touch()
    (tmp_path / "folder.gguf").mkdir()
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "broken.py").write_text("def broken(:\n")
    (tmp_path / "raises.py").write_text("raise RuntimeError('no')\n")
    (tmp_path / "idle.py").write_text("x = 1\n")
    return tmp_path


# --- nobody is there (first: before a provider is started) ----------------------------------------
def test_without_peers_the_gateway_says_so_and_when_to_try_again(mesh: LiveMesh) -> None:
    asked = mesh.cli("ask", "What is 2 + 2?")
    assert asked.code == 1
    assert "no peer is reachable" in asked.sentence or "no reachable peer" in asked.sentence
    refused = mesh.chat("What is 2 + 2?")
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1
    assert_error_body(refused.json())
    assert mesh.get("/health").status_code == 200
    ready = mesh.get("/ready")
    assert ready.status_code == 503
    assert ready.json()["reason"]


# --- the command line -----------------------------------------------------------------------------
SERVE: dict[str, tuple[list[str], str]] = {
    "missing model": (["serve", "missing.gguf"], "missing.gguf"),
    "cut in its header": (["serve", "cut-header.gguf"], "cut-header.gguf"),
    "cut in its tensors": (["serve", "cut-tensors.gguf"], "cut-tensors.gguf"),
    "not a GGUF file": (["serve", "fake.gguf"], "fake.gguf"),
    "garbage behind the magic": (["serve", "magic-only.gguf"], "magic-only.gguf"),
    "empty": (["serve", "empty.gguf"], "empty.gguf"),
    "a folder": (["serve", "folder.gguf"], "folder.gguf"),
    "of an unknown kind": (["serve", "notes.txt"], "notes.txt"),
    "missing agent": (["serve", "missing.py"], "missing.py"),
    "agent with a syntax error": (["serve", "broken.py"], "line 1"),
    "agent that raises": (["serve", "raises.py"], "RuntimeError"),
    "agent without a skill": (["serve", "idle.py"], "no skill"),
    "nothing": (["serve"], "nothing to serve"),
    "url without a model": (["serve", "--url", "http://127.0.0.1:1/v1"], "--model"),
    "url that nobody serves": (["serve", "--url", "http://127.0.0.1:1/v1", "--model", "m"], "127.0.0.1:1"),
    "unset key": (
        ["serve", "--url", "http://127.0.0.1:1/v1", "--model", "m", "--api-key-env", "NO_SUCH_KEY"],
        "NO_SUCH_KEY",
    ),
    "garbled join line": (["serve", "idle.py", "--join", "join me"], "join"),
    "garbled address": (["serve", "idle.py", "--listen", "here"], "here"),
    "port out of range": (["serve", "idle.py", "--listen", "127.0.0.1:99999"], "65535"),
    "gateway off loopback": (["gateway", "--host", "0.0.0.0", "--port", "0"], "monai-node keys create"),
    "up with a missing model": (["up", "missing.gguf", "--port", "0"], "missing.gguf"),
}


@pytest.mark.parametrize("what", SERVE)
def test_a_node_that_cannot_start_says_why_in_one_sentence(
    what: str, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, mentions = SERVE[what]
    monkeypatch.chdir(files)
    refused = run_cli(*arguments, state_dir=files / "state")
    assert_refused(refused, mentions)


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        http = run_cli("gateway", "--port", port, state_dir=tmp_path / "one")
        assert_refused(http, port)
        peers = run_cli("serve", ARITHMETIC, "--listen", f"127.0.0.1:{port}", state_dir=tmp_path / "two")
        assert_refused(peers, port)


@pytest.mark.parametrize("command", [["serve", ARITHMETIC], ["ask", "hello"], ["peers"]])
def test_a_state_directory_that_cannot_be_used_is_named(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "file").touch()
    refused = run_cli(*command, state_dir=tmp_path / "file" / "state")
    assert_refused(refused, "")


def test_a_foreign_directory_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "thesis.txt").write_text("years of work")
    refused = run_cli("reset", "--yes", state_dir=tmp_path / "theirs")
    assert_refused(refused, "nothing was removed")
    assert (tmp_path / "theirs" / "thesis.txt").exists()


ASK: dict[str, tuple[list[str], bytes, str]] = {
    "empty": (["ask", ""], b"", "empty"),
    "only spaces": (["ask", "-"], b"  \n", "empty"),
    "ten megabytes": (["ask", "-"], b"x" * TEN_MEGABYTES, "larger than"),
    "not text": (["ask", "-", "--model", "nobody"], bytes(range(256)), "nobody"),
    "unknown model": (["ask", "hello", "--model", "nobody"], b"", "nobody"),
    "local": (["ask", "hello", "--privacy", "local"], b"", "peer"),
    "deadline": (["ask", "hello", "--deadline", "-1"], b"", "deadline"),
    "tokens": (["ask", "hello", "--max-tokens", "0"], b"", "max_tokens"),
    "conversation": (["ask", "hello", "--conversation", "notes.txt"], b"", "notes.txt"),
    "a folder as conversation": (["ask", "hello", "--conversation", "folder.gguf"], b"", "folder.gguf"),
    "conversation of other things": (["ask", "hello", "--conversation", "odd.json"], b"", "messages"),
    "no gateway there": (["ask", "hello", "--url", "http://127.0.0.1:1"], b"", "did not answer"),
    "no url": (["ask", "hello", "--url", "nonsense"], b"", "nonsense"),
    "route": (["route", " "], b"", "empty"),
}


@pytest.mark.parametrize("what", ASK)
@pytest.mark.usefixtures("provider")
def test_a_request_that_cannot_be_done_is_refused_in_one_sentence(
    what: str, mesh: LiveMesh, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments, stdin, mentions = ASK[what]
    (files / "odd.json").write_text('{"messages": [1, 2]}')
    monkeypatch.chdir(files)
    assert_refused(mesh.cli(*arguments, stdin=stdin), mentions)


@pytest.mark.parametrize(
    "arguments", [["frobnicate"], ["ask"], ["serve", "--n-ctx", "many"], ["up", "--port", "x"]]
)
def test_wrong_usage_exits_with_two_and_shows_the_usage(arguments: list[str], tmp_path: Path) -> None:
    refused = run_cli(*arguments, state_dir=tmp_path / "state")
    assert refused.code == 2
    assert "usage: monai-node" in refused.stderr
    assert "Traceback" not in refused.stderr


# --- HTTP -----------------------------------------------------------------------------------------
HELLO: list[dict[str, Any]] = [{"role": "user", "content": "What is 2 + 2?"}]


def chat(**fields: Any) -> bytes:
    return json.dumps({"model": "mesh", "messages": HELLO, **fields}).encode()


def planned(*tasks: dict[str, Any]) -> bytes:
    return chat(mesh={"plan": list(tasks)})


CHAT: dict[str, tuple[bytes, int, str]] = {
    "nothing": (b"", 400, "invalid_json"),
    "half of a body": (chat()[:-9], 400, "invalid_json"),
    "a list": (b"[]", 400, "invalid_json"),
    "not UTF-8": (b'{"model": "\xff"}', 400, "invalid_json"),
    "a bomb of brackets": (b"[" * 100_000, 400, "invalid_json"),
    "no messages": (b'{"model": "mesh"}', 400, "invalid_request"),
    "empty messages": (chat(messages=[]), 400, "invalid_request"),
    "a picture": (
        chat(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]),
        422,
        "unsupported",
    ),
    "nine answers": (chat(n=9), 400, "invalid_request"),
    "spoken answers": (chat(modalities=["audio"]), 422, "unsupported"),
    "a misspelt option": (chat(mesh={"privcy": "local"}), 400, "invalid_request"),
    "an unknown label": (chat(mesh={"privacy": "secret"}), 400, "invalid_request"),
    "no time": (chat(mesh={"deadline_seconds": 0}), 400, "invalid_request"),
    "an unknown model": (chat(model="nobody"), 404, "model_not_found"),
    "an unknown skill": (planned({"id": "t", "text": "x", "skill": "alchemy"}), 404, "not_found"),
    "a circle": (
        planned({"id": "a", "text": "x", "depends_on": ["b"]}, {"id": "b", "text": "y", "depends_on": ["a"]}),
        400,
        "invalid_request",
    ),
    "a task twice": (planned({"id": "a", "text": "x"}, {"id": "a", "text": "y"}), 400, "invalid_request"),
    "no tasks": (planned(), 400, "invalid_request"),
    "ten megabytes": (
        chat(messages=[{"role": "user", "content": "x" * TEN_MEGABYTES}]),
        413,
        "request_too_large",
    ),
}


@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("what", CHAT)
@pytest.mark.usefixtures("provider")
def test_a_bad_chat_request_gets_an_error_body_and_the_right_status(
    what: str, is_streamed: bool, mesh: LiveMesh
) -> None:
    body, status, code = CHAT[what]
    if is_streamed:
        body = body.replace(b'"model"', b'"stream": true, "model"', 1)
    answered = mesh.post("/v1/chat/completions", body)
    assert (answered.status_code, answered.json()["error"]["code"]) == (status, code), answered.text
    assert_error_body(answered.json())


OTHERS: dict[str, tuple[Callable[[LiveMesh], Any], int]] = {
    "no such path": (lambda mesh: mesh.get("/v1/nothing"), 404),
    "no such model": (lambda mesh: mesh.get("/v1/models/nobody"), 404),
    "not a method": (lambda mesh: mesh.get("/v1/chat/completions"), 405),
    "route without a text": (lambda mesh: mesh.get("/v1/route"), 400),
    "plan of nothing": (lambda mesh: mesh.post("/v1/plan", {}), 400),
    "plan with another key": (lambda mesh: mesh.post("/v1/plan", {"text": "x", "mesh": {"x": 1}}), 400),
}


@pytest.mark.parametrize("what", OTHERS)
def test_other_routes_refuse_in_the_same_shape(what: str, mesh: LiveMesh) -> None:
    call, status = OTHERS[what]
    answered = call(mesh)
    assert answered.status_code == status
    assert_error_body(answered.json())


@pytest.mark.usefixtures("provider")
def test_after_all_of_it_the_gateway_answers_as_before(mesh: LiveMesh) -> None:
    answered = mesh.cli("ask", "What is 37 * 49?", "--json").json
    assert answered["answer"] == "1813"
    log = (mesh.state_dir / "nodes" / "gateway" / "node.log").read_text()
    assert "Traceback" not in log
    assert "xxxxxxxx" not in log


# --- damaged state --------------------------------------------------------------------------------
def test_damaged_state_is_set_aside_and_the_node_starts(tmp_path: Path) -> None:
    with LiveMesh(tmp_path) as mesh:
        folder = mesh.state_dir / "nodes" / "sole"
        folder.mkdir(parents=True)
        damaged = [
            mesh.state_dir / "mesh.json",
            mesh.state_dir / "gateway.json",
            mesh.state_dir / "schema.json",
            folder / "node.json",
            folder / "peers.json",
        ]
        for path in damaged:
            path.write_bytes(b'{"half": \x00')
        mesh.serve("sole", ARITHMETIC).wait_ready()
        for path in damaged:
            assert path.with_name(f"{path.name}.corrupt-1").read_bytes() == b'{"half": \x00'


def test_values_of_the_wrong_kind_in_sound_files_do_not_stop_a_node(tmp_path: Path) -> None:
    with LiveMesh(tmp_path) as mesh:
        folder = mesh.state_dir / "nodes" / "sole"
        folder.mkdir(parents=True)
        (mesh.state_dir / "mesh.json").write_text('{"secret": 7}')
        (mesh.state_dir / "gateway.json").write_text('{"url": 7, "join": 7}')
        (folder / "node.json").write_text('{"port": "many", "next_seq": -4}')
        (folder / "peers.json").write_text('{"addrs": [7, "nowhere", "/ip4/127.0.0.1/tcp/1"]}')
        mesh.serve("sole", ARITHMETIC).wait_ready()


def test_a_damaged_key_is_never_replaced(tmp_path: Path) -> None:
    key = tmp_path / "state" / "nodes" / "sole" / "identity.key"
    key.parent.mkdir(parents=True)
    key.write_bytes(b"ed25519:garbage\n")
    refused = run_cli("serve", ARITHMETIC, "--node-name", "sole", state_dir=tmp_path / "state")
    assert_refused(refused, "identity.key")
    assert key.read_bytes() == b"ed25519:garbage\n"


def test_what_a_killed_gateway_left_behind_is_no_running_gateway(tmp_path: Path) -> None:
    left = {"url": "http://127.0.0.1:1", "join": "", "pid": 1}
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "gateway.json").write_text(json.dumps(left))
    assert_refused(run_cli("ask", "hello", state_dir=tmp_path / "state"), "did not answer")


# --- helpers --------------------------------------------------------------------------------------
def assert_refused(result: CliResult, mentions: str) -> None:
    assert result.code == 1, result.stderr
    assert mentions in result.sentence
    assert result.stdout.strip() == ""
    assert result.seconds < QUICK_SECONDS


def assert_error_body(body: dict[str, Any]) -> None:
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    message = body["error"]["message"]
    assert message
    assert "\n" not in message
    assert len(message) < 500
