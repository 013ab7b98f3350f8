"""The command line: what it understands, what it says when something is wrong, and its exit status.

Commands that talk to a gateway talk to one of the test's own here, which answers as the test wants.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_node.agents.graph import Task, TaskGraph
from monai_node.agents.recipes import Recipe
from monai_node.mesh.cli import main
from monai_node.mesh.cli_config import node_config
from monai_node.mesh.cli_parser import build_parser
from monai_node.mesh.cli_text import one_line, printable
from monai_node.mesh.config import (
    AgentSource,
    GatewayOptions,
    ModelSource,
    NodeConfig,
    SkillWords,
    Tls,
    UrlSource,
)
from monai_node.mesh.identity import Identity
from monai_node.mesh.recipes import RecipeFile
from monai_node.mesh.state import open_state_dir, read_json, write_json
from monai_node.registry.errors import SetupError
from monai_node.registry.secret import JoinLine, Mesh

MESH = Mesh(bytes(range(16)))
JOIN = JoinLine(f"/ip4/192.0.2.1/tcp/4001/p2p/{Identity(bytes(32)).peer_id}", MESH)
EVIL = "\x1b[2J\x9b31m\u202eevil\r\x07"  # clears the screen, colours, turns direction, rings


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:  # pyright: ignore[reportUnusedFunction]
    for name in [name for name in os.environ if name.startswith("MONAI_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))


# --- the gateway of these tests -------------------------------------------------------------------
@dataclass
class Reply:
    """`is_cut` ends the connection in the middle of the body; `goes_on` follows it up with keep-alives
    for as long as somebody listens."""

    body: bytes
    status: int = 200
    kind: str = "application/json"
    is_cut: bool = False
    goes_on: bool = False


@dataclass
class FakeGateway:
    url: str = ""
    reply: Reply = field(default_factory=lambda: Reply(b"{}"))
    asked: list[tuple[str, str, Any]] = field(default_factory=list[tuple[str, str, Any]])

    def answers(self, value: object, status: int = 200) -> None:
        self.reply = Reply(json.dumps(value).encode(), status)

    def streams(self, *events: object, is_cut: bool = False) -> None:
        lines = [
            event if isinstance(event, str) else json.dumps(event, ensure_ascii=False) for event in events
        ]
        body = "".join(f": keep-alive\n\ndata: {line}\n\n" for line in lines)
        self.reply = Reply(body.encode(), kind="text/event-stream", is_cut=is_cut)


@contextmanager
def fake_gateway() -> Generator[FakeGateway]:
    gateway, is_over = FakeGateway(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            self._answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))

        def _answer(self, body: Any) -> None:
            gateway.asked.append((self.command, self.path, body))
            reply = gateway.reply
            self.send_response(reply.status)
            self.send_header("content-type", reply.kind)
            if not reply.goes_on:
                self.send_header("content-length", str(len(reply.body) + (100 if reply.is_cut else 0)))
            self.end_headers()
            self.wfile.write(reply.body)
            with suppress(OSError):
                while reply.goes_on and not is_over.wait(0.01):
                    self.wfile.write(b": keep-alive\n\n")

        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002 - its name there

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    gateway.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield gateway
    finally:
        is_over.set()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(name="gateway")
def _gateway() -> Generator[FakeGateway]:  # pyright: ignore[reportUnusedFunction]
    with fake_gateway() as gateway:
        yield gateway


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str


class Shell:
    """Runs commands in this process."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def __call__(self, *arguments: str) -> Outcome:
        try:
            status = main(arguments)
        except SystemExit as end:
            status = int(end.code or 0)
        captured = self._capture.readouterr()
        return Outcome(status, captured.out, captured.err)

    def fails(self, *arguments: str) -> str:
        """The one sentence of a command that failed."""
        outcome = self(*arguments)
        assert outcome.status == 1
        assert outcome.err.startswith("monai-node: ")
        assert outcome.err.endswith("\n")
        sentence = outcome.err[len("monai-node: ") : -1]
        assert sentence.isprintable(), "one line, and nothing that acts on a terminal"
        return sentence


@pytest.fixture(name="shell")
def _shell(capsys: pytest.CaptureFixture[str]) -> Shell:  # pyright: ignore[reportUnusedFunction]
    return Shell(capsys)


def joined(value: object) -> str:
    return " ".join(cast("list[str]", value)) if isinstance(value, list) else ""


def first_of(command: list[str]) -> str:
    return command[0]


def config_of(*arguments: str) -> NodeConfig:
    return node_config(build_parser().parse_args(arguments))


# --- usage ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "arguments",
    [
        ["fly"],
        ["serve", "--no-such-option"],
        ["serve", "a.gguf", "--n-ctx", "many"],
        ["gateway", "--port", "http"],
        ["up", "--log-level", "loud"],
        ["up", "--planner", "oracle"],
        ["gateway", "--embedder", "oracle"],
        ["ask"],
        ["ask", "a", "b"],
        ["ask", "a", "--privacy", "secret"],
        ["ask", "--plan", "p.json", "--no-plan"],
        ["plan"],
        ["recipes", "forget"],
        ["recipes", "clear", "all"],
        ["recipes", "burn"],
        ["feedback", "run-1"],
        ["feedback", "run-1", "sideways"],
        ["peers", "extra"],
        ["reset", "extra"],
    ],
    ids=" ".join,
)
def test_a_command_line_that_cannot_be_understood_exits_with_2(shell: Shell, arguments: list[str]) -> None:
    outcome = shell(*arguments)
    assert outcome.status == 2
    assert outcome.err.startswith("usage: monai-node")
    assert outcome.out == ""


def test_no_command_shows_the_help_and_exits_with_2(shell: Shell) -> None:
    outcome = shell()
    assert outcome.status == 2
    assert "COMMAND" in outcome.out


@pytest.mark.parametrize(
    "command",
    [
        *("up", "serve", "gateway", "ask", "plan", "route", "decisions", "feedback", "recipes", "peers"),
        *("ps", "diagnostics", "service", "reset"),
    ],
)
def test_every_command_explains_itself(shell: Shell, command: str) -> None:
    outcome = shell(command, "--help")
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out.startswith(f"usage: monai-node {command}")
    assert "--state-dir" in outcome.out
    assert "until-stdin" not in outcome.out, "that one is for our own use"


def test_the_version_is_that_of_the_package(shell: Shell) -> None:
    from importlib.metadata import version

    assert shell("--version").out == f"monai-node {version('monai-node')}\n"


# --- what cannot be meant, or cannot be used ------------------------------------------------------
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["serve"], "nothing to serve"),
        (["serve", "--url", "http://127.0.0.1:1/v1"], "--url needs --model"),
        (["serve", "a.gguf", "b.gguf", "--name", "c"], "describe one model"),
        (["serve", "a.gguf", "b.gguf", "--skill", "s"], "describe one model"),
        (["serve", "a.py", "--may-plan"], "is said of a model"),
        (
            ["serve", "--url", "u", "--model", "m", "--api-key-env", "NO_SUCH_KEY"],
            "NO_SUCH_KEY: that variable",
        ),
        (["serve", "½.gguf"], "give it a --name"),
        (["serve", "a.gguf", "--node-name", ".."], "give it a --node-name"),
        (["serve", "a.gguf", "--join", "nonsense"], "is not a join line"),
        (["serve", "a.gguf", "--join", JOIN.addr], "lacks the mesh secret"),
        (["serve", "a.gguf", "--join", str(JOIN), "--open"], "contradict each other"),
        (["serve", "a.gguf", "--listen", "localhost"], "--listen localhost is neither"),
        (["serve", "a.gguf", "--state-dir", "/proc/monai"], "/proc/monai cannot be used"),
        (["gateway", "--state-dir", "/dev/null/state"], "/dev/null/state cannot be used"),
        (["peers"], "no gateway is running here"),
        (["peers", "--url", "http://127.0.0.1:9"], "the gateway at http://127.0.0.1:9 did not answer"),
        (["peers", "--url", "nonsense"], "did not answer"),
        (["peers", "--url", "http://[::1"], "did not answer"),
        (["ask", "hello", "--url", "http://127.0.0.1:9"], "did not answer"),
        (["ask", " \n", "--url", "http://127.0.0.1:9"], "the request is empty"),
        (["plan", "", "--url", "http://127.0.0.1:9"], "the request is empty"),
        (["reset", "--state-dir", "/etc", "--yes"], "/etc is not a state directory"),
    ],
    ids=joined,
)
def test_what_its_person_can_mend_is_one_sentence_and_status_1(
    shell: Shell, arguments: list[str], sentence: str
) -> None:
    assert sentence in shell.fails(*arguments)


def test_a_log_level_from_the_environment_is_checked_too(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MONAI_LOG_LEVEL", "loud")
    assert "'loud' is not a log level" in shell.fails("gateway", "--state-dir", str(tmp_path))


def test_a_sentence_reaches_a_real_terminal_without_a_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "monai_node.mesh.cli", "serve", str(tmp_path / "none.gguf")]
    done = subprocess.run(
        [*command, "--state-dir", str(tmp_path / "state")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    *_, last = done.stderr.splitlines()
    assert last.startswith("monai-node: ")
    assert "none.gguf" in last
    assert "Traceback" not in done.stderr


def test_the_end_of_whoever_reads_the_output_is_no_error_to_speak_of(gateway: FakeGateway) -> None:
    gateway.answers({"data": [PEER | {"skills": ["x" * 100_000]}]})
    command = [sys.executable, "-m", "monai_node.mesh.cli", "peers", "--url", gateway.url]
    for stdout_bytes in (0, 10):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            if stdout_bytes:
                process.stdout.read(stdout_bytes)  # as `head` does
            process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait(timeout=60) == 1


def test_little_output_to_a_reader_that_has_gone_is_no_error_either(gateway: FakeGateway) -> None:
    gateway.answers({"data": [PEER]})
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "monai_node.mesh.cli", "peers", "--url", gateway.url]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    try:
        done = subprocess.run(
            command, stdout=write, stderr=subprocess.PIPE, env=buffered, timeout=60, check=False
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


# --- a node's configuration -----------------------------------------------------------------------
def test_each_kind_of_source_becomes_what_serves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "k3y")
    monkeypatch.setenv("HOME", "/home/alice")
    config = config_of(
        "serve", "~/Tiny Model.gguf", "agents/My_Agent.py", "--n-ctx", "2048", "--n-threads", "2"
    )
    assert config.sources == (
        ModelSource(Path("/home/alice/Tiny Model.gguf"), "tiny-model", (), 2048, 2),
        AgentSource(Path("agents/My_Agent.py")),
    )
    assert (config.name, config.role) == ("tiny-model", "provider")
    assert config_of("serve", "agents/My_Agent.py").name == "my_agent"
    config = config_of("serve", "--url", "http://h/v1", "--model", "org/Big-7B", "--api-key-env", "KEY")
    assert config.sources == (UrlSource("http://h/v1", "org/Big-7B", "big-7b", "k3y"),)
    assert config_of("serve", "a.gguf", "--name", "B").sources == (ModelSource(Path("a.gguf"), "b"),)
    assert config_of("serve", "a.gguf", "--may-plan").sources == (
        ModelSource(Path("a.gguf"), "a", may_plan=True),
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ()),
        (["--skill", "s1"], (SkillWords("s1"),)),
        (["--example", "e1"], (SkillWords("", ("e1",)),)),
        (["--example", "e1", "--example", "e2"], (SkillWords("", ("e1", "e2")),)),
        (
            [
                "--skill",
                "s1",
                "--example",
                "e1",
                "--example",
                "e2",
                "--skill",
                "s2",
                "--skill",
                "s3",
                "--example",
                "e3",
            ],
            (SkillWords("s1", ("e1", "e2")), SkillWords("s2"), SkillWords("s3", ("e3",))),
        ),
        (
            ["--example", "e0", "--skill", "s1", "--example", "e1"],
            (SkillWords("", ("e0",)), SkillWords("s1", ("e1",))),
        ),
    ],
    ids=joined,
)
def test_an_example_belongs_to_the_skill_before_it(
    arguments: list[str], words: tuple[SkillWords, ...]
) -> None:
    (source,) = config_of("serve", "a.gguf", *arguments).sources
    assert isinstance(source, ModelSource)
    assert source.words == words


def test_a_gateway_listens_where_it_is_told() -> None:
    assert config_of("gateway").gateway == GatewayOptions("127.0.0.1", None)
    assert config_of("up", "--host", "::1", "--port", "0").gateway == GatewayOptions("::1", 0)
    assert config_of("up", "--planner", "model").gateway == GatewayOptions(planner="model")
    assert config_of("gateway", "--embedder", "gguf").gateway == GatewayOptions(embedder="gguf")
    reach = ("--require-key", "--allow-host", "a.lan", "--allow-host", "b.lan")
    assert config_of("up", *reach).gateway == GatewayOptions(requires_key=True, hosts=("a.lan", "b.lan"))
    files = ("--tls-cert", "c.pem", "--tls-key", "k.pem")
    assert config_of("up", *files).gateway == GatewayOptions(tls=Tls(Path("c.pem"), Path("k.pem")))
    with pytest.raises(SetupError, match="belong together"):
        config_of("up", *files[:2])
    config = config_of("gateway", "--listen", "0.0.0.0:4001", "--listen", "/ip6/::1/tcp/0")
    assert config.listen == ("/ip4/0.0.0.0/tcp/4001", "/ip6/::1/tcp/0")
    assert config_of("gateway").listen is None
    assert config_of("gateway").name == "gateway"
    assert config_of("gateway", "--node-name", "My Node").name == "my-node"


def test_a_gateway_goes_by_recipes_unless_told_not_to() -> None:
    for arguments, has_recipes in ((["up"], True), (["gateway", "--no-recipes"], False)):
        gateway = config_of(*arguments).gateway
        assert gateway is not None
        assert gateway.has_recipes is has_recipes


# --- which mesh -----------------------------------------------------------------------------------
def test_a_join_line_comes_from_the_command_line_then_the_environment_then_the_local_gateway(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    other = JoinLine(JOIN.addr, Mesh(b"\x01" * 16))
    third = JoinLine(JOIN.addr, Mesh(b"\x02" * 16))
    arguments = ["serve", "a.gguf", "--state-dir", str(tmp_path)]
    assert config_of(*arguments).join == ()
    write_json(open_state_dir(tmp_path).gateway_file, {"join": str(third)})
    assert config_of(*arguments).join == (third,)
    assert config_of("gateway", "--state-dir", str(tmp_path)).join == (), "a gateway does not join itself"
    assert config_of(*arguments, "--open").join == ()
    monkeypatch.setenv("MONAI_JOIN", str(other))
    assert config_of(*arguments).join == (other,)
    assert config_of(*arguments, "--join", str(JOIN)).join == (JOIN,)
    assert config_of(*arguments, "--join", str(JOIN), "--join", str(other)).join == (JOIN, other)


def test_an_open_mesh_is_asked_for_in_words() -> None:
    assert config_of("gateway").mesh is None
    assert config_of("gateway", "--open").mesh == Mesh(None)
    line = str(JoinLine(JOIN.addr, Mesh(None)))
    assert config_of("serve", "a.gguf", "--open", "--join", line).join[0].mesh.is_open


def test_the_state_directory_comes_from_the_command_line_or_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert config_of("gateway").state_dir is None
    monkeypatch.setenv("MONAI_STATE_DIR", "/from/environment")
    assert config_of("gateway").state_dir == Path("/from/environment")
    assert config_of("gateway", "--state-dir", "/given").state_dir == Path("/given")


# --- ask ------------------------------------------------------------------------------------------
def delta(text: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}}]}


PART = {"model": "tiny", "peer_name": "alice", "peer": "12D3KooWabcdefgh", "seconds": 1.25, "text": "Say hi"}
USAGE = {"prompt_tokens": 1, "completion_tokens": 2}


def test_an_answer_is_shown_as_it_comes_with_who_made_it_on_stderr(
    shell: Shell, gateway: FakeGateway
) -> None:
    gateway.streams(delta("Hello,\n"), delta("world"), {"choices": [], "mesh": {"parts": [PART]}}, "[DONE]")
    outcome = shell("ask", "greet", "--url", gateway.url + "/v1/")
    assert outcome == Outcome(0, "Hello,\nworld\n", "  tiny on alice (abcdefgh), 1.2 s: Say hi\n")
    ((method, path, body),) = gateway.asked
    assert (method, path) == ("POST", "/v1/chat/completions")
    assert body["model"] == "mesh"
    assert body["messages"] == [{"role": "user", "content": "greet"}]
    assert body["mesh"]["deadline_seconds"] == 120.0
    assert set(body["mesh"]) == {"deadline_seconds", "timezone"}


def test_every_option_of_ask_reaches_the_gateway(shell: Shell, gateway: FakeGateway) -> None:
    gateway.streams("[DONE]")
    arguments = ["--model", "tiny@alice", "--system", "Be brief.", "--no-plan", "--max-tokens", "7"]
    arguments += ["--temperature", "0", "--deadline", "9", "--privacy", "local", "--url", gateway.url]
    assert shell("ask", "greet", *arguments).status == 0
    body = gateway.asked[0][2]
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("tiny@alice", 7, 0.0)
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert body["mesh"]["plan"] == "never"
    assert (body["mesh"]["deadline_seconds"], body["mesh"]["privacy"]) == (9.0, "local")


def test_a_dash_reads_the_request_from_standard_input(
    shell: Shell, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"first\nsecond \xff")))
    gateway.streams("[DONE]")
    shell("ask", "-", "--url", gateway.url)
    assert gateway.asked[0][2]["messages"][0]["content"] == "first\nsecond �"


def test_json_is_one_object_with_the_whole_answer(shell: Shell, gateway: FakeGateway) -> None:
    gateway.streams(
        delta("a"), delta("b"), {"choices": [], "usage": USAGE, "mesh": {"parts": [PART]}}, "[DONE]"
    )
    outcome = shell("ask", "greet", "--json", "--url", gateway.url)
    assert json.loads(outcome.out) == {"answer": "ab", "parts": [PART], "usage": USAGE}
    assert outcome.err == ""


def test_line_ends_of_other_alphabets_inside_an_answer_do_not_break_it(
    shell: Shell, gateway: FakeGateway
) -> None:
    gateway.streams(delta("one\u2028two\u0085three\u2029"), "[DONE]")
    assert json.loads(shell("ask", "x", "--json", "--url", gateway.url).out)["answer"] == (
        "one\u2028two\u0085three\u2029"
    )


def test_what_others_wrote_cannot_act_on_the_terminal(shell: Shell, gateway: FakeGateway) -> None:
    part = {key: value if key == "seconds" else EVIL for key, value in PART.items()}
    gateway.streams(delta(f"Hi{EVIL}"), {"choices": [], "mesh": {"parts": [part]}}, "[DONE]")
    outcome = shell("ask", "greet", "--url", gateway.url)
    assert outcome.out == "Hi[2J31mevil\n"
    assert outcome.err.removesuffix("\n").isprintable()


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        ({"error": {"message": "the peer was lost"}}, "the peer was lost"),
        ({"error": {"message": f"lost\n{EVIL}"}}, "lost [2J31mevil"),
        ({"error": {"message": None}}, "the gateway could not answer"),
        ({"error": "text"}, "the gateway could not answer"),
        ("no json", "is not an answer of a mesh"),
        ([1, 2], "is not an answer of a mesh"),
    ],
)
def test_an_error_within_the_stream_ends_with_status_1(
    shell: Shell, gateway: FakeGateway, error: object, sentence: str
) -> None:
    gateway.streams(delta("Half of"), error, "[DONE]")
    assert sentence in shell.fails("ask", "greet", "--url", gateway.url)
    gateway.streams(delta("Half of"), error, "[DONE]")
    assert shell("ask", "greet", "--url", gateway.url).out == "Half of\n"


@pytest.mark.parametrize("is_cut", [True, False], ids=["cut", "ended without [DONE]"])
def test_a_stream_that_was_cut_is_never_taken_for_an_answer(
    shell: Shell, gateway: FakeGateway, tmp_path: Path, is_cut: bool
) -> None:
    kept = tmp_path / "conversation.json"
    gateway.streams(delta("Half of"), is_cut=is_cut)
    said = shell.fails("ask", "greet", "--url", gateway.url, "--conversation", str(kept))
    assert said == "the gateway ended the answer before it was complete"
    assert not kept.exists()


def test_keep_alives_do_not_hold_a_command_beyond_its_deadline(
    shell: Shell, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monai_node.mesh.cli_client._GRACE_SECONDS", 0.0)
    gateway.reply = Reply(b": keep-alive\n\n", kind="text/event-stream", goes_on=True)
    said = shell.fails("ask", "greet", "--url", gateway.url, "--deadline", "0.5")
    assert said == "the gateway did not complete the answer within 0.5 s"


@pytest.mark.parametrize(
    "command",
    [["ask", "x"], ["plan", "x"], ["route", "x"], ["decisions"], ["feedback", "r", "up"], ["peers"]],
    ids=first_of,
)
@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        (Reply(b'{"error": {"message": "no peer is reachable"}}', 503), "no peer is reachable"),
        (Reply(b"<html>", 502, "text/html"), "the gateway answered with status 502"),
        (Reply(b'{"detail": []}', 404), "the gateway answered with status 404"),
        (Reply(b"[]", 500), "the gateway answered with status 500"),
        (Reply(b"<html>", 200, "text/html"), "the gateway"),
    ],
    ids=lambda value: value.body.decode()[:20] if isinstance(value, Reply) else "",
)
def test_an_error_status_is_the_sentence_in_its_body(
    shell: Shell, gateway: FakeGateway, command: list[str], reply: Reply, sentence: str
) -> None:
    gateway.reply = reply
    assert sentence in shell.fails(*command, "--url", gateway.url)


# --- ask --plan -----------------------------------------------------------------------------------
GRAPH = {"tasks": [{"id": "t1", "text": "Say hi"}]}
VIEW = {"object": "plan", "text": "greet", "graph": GRAPH, "shown": ["t1"], "tasks": [], "why": "It asks."}
RUN: list[dict[str, Any]] = [
    {"type": "run.created", "run": "run-1"},
    {"type": "plan.task", "run": "run-1", "task": "t1", "text": "Say hi", "depends_on": []},
    {"type": "task.delta", "task": "t1", "text": "not shown"},
    {"type": "answer.delta", "text": "Hello,"},
    {"type": "answer.delta", "text": " world"},
    {"type": "answer.completed", "run": "run-1", "parts": [PART], "usage": USAGE},
]


@pytest.fixture(name="plan_file")
def _plan_file(tmp_path: Path) -> Path:  # pyright: ignore[reportUnusedFunction]
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(VIEW))
    return path


def test_a_plan_from_a_file_is_carried_out_for_the_request_that_it_was_made_for(
    shell: Shell, gateway: FakeGateway, plan_file: Path
) -> None:
    gateway.streams(*RUN)
    outcome = shell("ask", "--plan", str(plan_file), "--max-tokens", "7", "--url", gateway.url)
    assert outcome == Outcome(
        0,
        "Hello, world\n",
        "  tiny on alice (abcdefgh), 1.2 s: Say hi\n  to rate it: monai-node feedback run-1 up\n",
    )
    ((method, path, body),) = gateway.asked
    assert (method, path, body["stream"]) == ("POST", "/v1/runs", True)
    assert (body["graph"], body["shown"], body["max_tokens"]) == (GRAPH, ["t1"], 7)
    assert body["messages"] == [{"role": "user", "content": "greet"}]
    assert not {"text", "tasks", "stream_options"} & set(body)


def test_the_json_of_a_run_is_that_of_any_answer(shell: Shell, gateway: FakeGateway, plan_file: Path) -> None:
    gateway.streams(*RUN)
    told = json.loads(shell("ask", "--plan", str(plan_file), "--json", "--url", gateway.url).out)
    tasks: list[dict[str, Any]] = [{"task": "t1", "text": "Say hi", "depends_on": []}]
    assert told == {
        "answer": "Hello, world",
        "run": "run-1",
        "tasks": tasks,
        "parts": [PART],
        "usage": USAGE,
    }


@pytest.mark.parametrize("last", [None, {"type": "error", "message": "the peer was lost"}])
def test_a_run_that_does_not_end_well_ends_with_status_1(
    shell: Shell, gateway: FakeGateway, plan_file: Path, last: dict[str, str] | None
) -> None:
    gateway.streams(*RUN[:4], *([last] if last else []))
    said = shell.fails("ask", "--plan", str(plan_file), "--url", gateway.url)
    assert said == (last["message"] if last else "the gateway ended the answer before it was complete")


@pytest.mark.parametrize(
    ("text", "messages"),
    [(None, None), ("greet", [{"role": "user", "content": "greet"}])],
)
def test_a_graph_alone_needs_no_request_and_may_be_given_one(
    shell: Shell, gateway: FakeGateway, plan_file: Path, text: str | None, messages: object
) -> None:
    plan_file.write_text(json.dumps(GRAPH))
    gateway.streams(*RUN)
    words = [text] if text else []
    assert shell("ask", *words, "--plan", str(plan_file), "--url", gateway.url).status == 0
    assert gateway.asked[0][2].get("messages") == messages
    assert gateway.asked[0][2]["graph"] == GRAPH


def test_a_plan_may_come_from_a_pipe(
    shell: Shell, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(json.dumps(VIEW).encode())))
    gateway.streams(*RUN)
    assert shell("ask", "--plan", "-", "--url", gateway.url).status == 0
    assert gateway.asked[0][2]["graph"] == GRAPH


def test_a_plan_for_another_request_is_refused(shell: Shell, gateway: FakeGateway, plan_file: Path) -> None:
    said = shell.fails("ask", "part", "--plan", str(plan_file), "--url", gateway.url)
    assert "was made for another request" in said
    plan_file.write_text(json.dumps(GRAPH))
    said = shell.fails("ask", "--plan", str(plan_file), "--system", "Be brief.", "--url", gateway.url)
    assert "does not say which request" in said
    assert gateway.asked == []


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is not JSON (Expecting property name"),
        ("\udcff", "is not JSON ("),
        ("[" * 100_000, "is not JSON ("),
        ("[]", "holds no plan"),
        ("{}", "holds no graph"),
        ('{"graph": {}, "colour": 1}', "has the key 'colour', which is no part of a plan"),
        ('{"tasks": [], "shown": []}', "holds no graph"),
        ('{"graph": {}, "text": 5}', "the text in"),
        (" " * (8 << 20) + "{}", "is larger than"),
    ],
    ids=lambda value: value[:20],
)
def test_a_file_that_is_no_plan_is_one_sentence(
    shell: Shell, gateway: FakeGateway, plan_file: Path, content: str, sentence: str
) -> None:
    plan_file.write_bytes(content.encode(errors="surrogateescape"))
    assert sentence in shell.fails("ask", "--plan", str(plan_file), "--url", gateway.url)
    assert gateway.asked == []


def test_a_plan_that_cannot_be_read_is_one_sentence(
    shell: Shell, gateway: FakeGateway, tmp_path: Path
) -> None:
    for path in (tmp_path, tmp_path / "none.json"):
        assert "cannot be read" in shell.fails("ask", "--plan", str(path), "--url", gateway.url)


# --- conversations --------------------------------------------------------------------------------
def test_a_conversation_is_kept_in_the_file_that_was_named_and_gone_on_with(
    shell: Shell, gateway: FakeGateway, tmp_path: Path
) -> None:
    kept = tmp_path / "conversation.json"
    gateway.streams(delta("Hello."), "[DONE]")
    options = ["--url", gateway.url, "--conversation", str(kept), "--system", "Be brief."]
    assert shell("ask", "greet", *options).status == 0
    assert shell("ask", "again", *options).status == 0
    contents = [message["content"] for message in gateway.asked[1][2]["messages"]]
    assert contents == ["Be brief.", "greet", "Hello.", "again"]
    found = read_json(kept)
    assert found is not None
    assert len(found["messages"]) == 5


@pytest.mark.parametrize("content", ["dear diary", "{}", '{"messages": 5}', "[]"])
def test_a_file_that_is_no_conversation_is_refused_and_left_alone(
    shell: Shell, gateway: FakeGateway, tmp_path: Path, content: str
) -> None:
    diary = tmp_path / "diary.txt"
    diary.write_text(content)
    said = shell.fails("ask", "x", "--url", gateway.url, "--conversation", str(diary))
    assert "is not a conversation kept by monai-node" in said
    assert [path.read_text() for path in tmp_path.iterdir() if path.is_file()] == [content]
    assert gateway.asked == []


@pytest.mark.parametrize("where", [".", "diary.txt/below"])
def test_a_conversation_that_cannot_be_written_is_one_sentence(
    shell: Shell, gateway: FakeGateway, tmp_path: Path, where: str
) -> None:
    (tmp_path / "diary.txt").write_text("")
    gateway.streams("[DONE]")
    said = shell.fails("ask", "x", "--url", gateway.url, "--conversation", str(tmp_path / where))
    assert "cannot be" in said


# --- plan, route, peers ---------------------------------------------------------------------------
PEER = {
    "id": "12D3KooWabcdefgh",
    "name": "alice",
    "state": "alive",
    "running": 1,
    "queued": 2,
    "last_heard_seconds": 0.25,
    "models": ["tiny"],
    "skills": ["chat", "arithmetic"],
}


def task_view(name: str, text: str, *needs: str, **more: Any) -> dict[str, Any]:
    best = {"peer": PEER["id"], "peer_name": f"al{EVIL}ice", "skill": "chat", "model": "", "score": 0.5}
    return {
        "id": name,
        "text": text,
        "depends_on": list(needs),
        "needs": [{"task": other, "why": f"it says “it”{EVIL}"} for other in needs],
        "candidates": [best, {**best, "skill": "not shown"}],
        **more,
    }


def test_a_plan_is_shown_as_a_tree_with_reasons_and_the_best_peer(shell: Shell, gateway: FakeGateway) -> None:
    tasks = [
        task_view("t1", f"Add{EVIL}\n1 and 2"),
        task_view("t2", "Name a tree", candidates=[]),
        task_view("t3", "Say it", "t1"),
        task_view("t4", "Compare them", "t2", "t3", each="t2"),
    ]
    gateway.answers({"tasks": tasks, "why": "It asks for several things."})
    outcome = shell("plan", "x", "--privacy", "local", "--url", gateway.url)
    assert outcome.out.splitlines() == [
        "t1  Add[2J31mevil 1 and 2",
        "    → chat on al[2J31mevilice (abcdefgh), 0.50",
        "└─ t3  Say it",
        "       needs t1: it says “it”[2J31mevil",
        "       → chat on al[2J31mevilice (abcdefgh), 0.50",
        "   └─ t4  Compare them",
        "          once for each item of t2",
        "          needs t2: it says “it”[2J31mevil",
        "          needs t3: it says “it”[2J31mevil",
        "          → chat on al[2J31mevilice (abcdefgh), 0.50",
        "t2  Name a tree",
        "It asks for several things.",
    ]
    assert gateway.asked[0][2]["mesh"] == {"privacy": "local"}


def test_a_plan_in_which_a_task_stands_below_itself_is_shown_once(shell: Shell, gateway: FakeGateway) -> None:
    tasks = [task_view("t1", "Add", candidates=[]), task_view("t1", "Say it", "t1", candidates=[])]
    gateway.answers({"tasks": tasks, "why": "so"})
    assert len(shell("plan", "x", "--url", gateway.url).out.splitlines()) == 4


@pytest.mark.parametrize(
    "command",
    [["plan", "x"], ["route", "x"], ["decisions"], ["feedback", "r", "up"], ["peers"]],
    ids=first_of,
)
@pytest.mark.parametrize("answer", ["{}", '{"tasks": [{}], "data": [{}]}', '{"tasks": [1], "data": 1}'])
def test_an_object_of_something_else_is_no_answer_of_a_mesh(
    shell: Shell, gateway: FakeGateway, command: list[str], answer: str
) -> None:
    gateway.reply = Reply(answer.encode())
    assert "is not an answer of a mesh" in shell.fails(*command, "--url", gateway.url)


def test_a_chunk_of_something_else_is_no_answer_of_a_mesh(shell: Shell, gateway: FakeGateway) -> None:
    gateway.streams({"choices": [1]}, "[DONE]")
    assert "is not an answer of a mesh" in shell.fails("ask", "greet", "--url", gateway.url)


@pytest.mark.parametrize(
    ("arguments", "body"),
    [
        (["run-1", "up"], {"run": "run-1", "rating": "up"}),
        (["chatcmpl-1", "down", "--task", "t2"], {"run": "chatcmpl-1", "rating": "down", "task": "t2"}),
    ],
)
def test_feedback_reaches_the_gateway(
    shell: Shell, gateway: FakeGateway, arguments: list[str], body: dict[str, str]
) -> None:
    gateway.answers({"object": "feedback", "run": "run-1", "rating": 1.0, "tasks": ["t1", "t2"]})
    outcome = shell("feedback", *arguments, "--url", gateway.url)
    assert outcome == Outcome(0, "noted for t1, t2\n", "")
    assert gateway.asked == [("POST", "/v1/feedback", body)]


def test_feedback_that_does_not_count_is_told(shell: Shell, gateway: FakeGateway) -> None:
    gateway.answers({"object": "feedback", "run": "run-1", "rating": 1.0, "tasks": []})
    assert shell("feedback", "run-1", "up", "--url", gateway.url).out.startswith("not counted")


def test_a_route_is_shown_with_its_reasons(shell: Shell, gateway: FakeGateway) -> None:
    row = {"peer": PEER["id"], "peer_name": f"al{EVIL}ice", "skill": "chat", "score": 0.5, "reasons": [EVIL]}
    row |= {"terms": {"fit": 0.5, EVIL: 2}}
    passed = {**row, "model": "m", "reason": f"too{EVIL} dear"}
    view = {"decision": "route", "reason": EVIL, "none": 0.25, "filtered": [passed] * 12}
    gateway.answers({**view, "data": [row | {"is_chosen": True}, row | {"is_chosen": False}]})
    lines = shell("route", "what is 1 & 2?", "--url", gateway.url).out.splitlines()
    assert [line[0] for line in lines[:7]] == ["r", "→", " ", " ", " ", " ", " "]
    assert lines[0].endswith("(chance that none fits: 0.25)")
    assert "al[2J31mevilice (abcdefgh)" in lines[1]
    assert lines[3].strip().startswith("fit 0.5, ")
    assert [line.startswith("- not asked: chat at al") for line in lines[7:]] == [True] * 10 + [False]
    assert lines[-1] == "- and 2 more that would not be asked"
    assert all(line.isprintable() for line in lines)
    assert gateway.asked[0][1] == "/v1/route?text=what+is+1+%26+2%3F"


def test_decisions_are_shown_a_line_each(shell: Shell, gateway: FakeGateway) -> None:
    who = {"peer": PEER["id"], "peer_name": f"al{EVIL}ice"}
    row = {"at": 1e9, "run": "run-1", "task": "t2", "model": "", "skill": "chat", "candidates": [who, who]}
    row |= {"peer": PEER["id"], "seconds": 1.25, "error": "", "verdict": "passed"}
    going_on = row | {"seconds": None, "verdict": None, "error": None, "candidates": [], "model": EVIL}
    gateway.answers({"data": [row, going_on]})
    first, second = shell("decisions", "--limit", "2", "--url", gateway.url).out.splitlines()
    assert "run-1 t2 chat on al[2J31mevilice (abcdefgh), 1.2 s passed (1 more could have been asked)" in first
    assert second.endswith("going on")
    assert (first + second).isprintable()
    assert gateway.asked[0][1] == "/v1/decisions?limit=2"


def test_peers_are_shown_with_what_they_serve(shell: Shell, gateway: FakeGateway) -> None:
    nameless = PEER | {"name": EVIL, "last_heard_seconds": None, "models": [], "skills": []}
    gateway.answers({"data": [PEER, nameless]})
    lines = shell("peers", "--url", gateway.url).out.splitlines()
    assert lines[0].split() == [
        "alive",
        "alice",
        "abcdefgh",
        "1",
        "running,",
        "2",
        "queued",
        "heard",
        "0.2",
        "s",
        "ago",
    ]
    assert [line.strip() for line in lines[1:3]] == ["models: tiny", "skills: chat, arithmetic"]
    assert len(lines) == 4
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize("command", [["plan", "x"], ["route", "x"], ["decisions"], ["peers"]], ids=first_of)
def test_json_is_what_the_gateway_said(shell: Shell, gateway: FakeGateway, command: Sequence[str]) -> None:
    gateway.answers({"data": [PEER], "more": "ü"})
    assert json.loads(shell(*command, "--json", "--url", gateway.url).out) == {"data": [PEER], "more": "ü"}


def test_the_gateway_is_the_one_named_or_this_users_running_one(
    shell: Shell, gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gateway.answers({"data": []})
    write_json(open_state_dir(tmp_path).gateway_file, {"url": gateway.url})
    assert shell("peers", "--state-dir", str(tmp_path)).status == 0
    monkeypatch.setenv("MONAI_URL", gateway.url)
    assert shell("peers").status == 0
    assert len(gateway.asked) == 2


# --- recipes --------------------------------------------------------------------------------------
def test_recipes_are_listed_forgotten_and_cleared_without_a_gateway(shell: Shell, tmp_path: Path) -> None:
    state = ["--state-dir", str(tmp_path)]
    assert shell("recipes", *state).out == "no plan was accepted yet\n"
    assert json.loads(shell("recipes", "--json", *state).out) == {"recipes": []}
    assert "there is no recipe 'ab'" in shell.fails("recipes", "forget", "ab", *state)
    graph = TaskGraph(tasks=(Task(id="t1", text=f"Say{EVIL}"), Task(id="t2", text="it", depends_on=["t1"])))
    first, second = (
        Recipe(key=f"text-{letter * 32}", title=f"{letter}{EVIL}", graph=graph, shown=("t2",))
        for letter in "ab"
    )
    file = RecipeFile(open_state_dir(tmp_path).recipes_file)
    for recipe in (first, second):
        file.keep(recipe, [recipe.key])
    assert shell("recipes", *state).out.splitlines()[:3] == [
        "bbbbbbbb  only: b[2J31mevil",
        "          t1  Say[2J31mevil",
        "          t2  it  (after t1)",
    ]
    listed = json.loads(shell("recipes", "forget", "bbbbbbbb", "--json", *state).out)["recipes"]
    assert [recipe["id"] for recipe in listed] == ["aaaaaaaa"]
    assert listed[0]["graph"] == graph.model_dump(mode="json")
    assert shell("recipes", "clear", *state).status == 0
    assert file.recipes() == ()


# --- reset ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(("answer", "status"), [("y\n", 0), ("n\n", 1), ("\n", 1)])
def test_reset_asks_a_person_before_it_removes_anything(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: str, status: Literal[0, 1]
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    path = open_state_dir(tmp_path / "state").path
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    assert shell("reset", "--state-dir", str(path)).status == status
    assert path.exists() == bool(status)


def test_reset_without_a_person_wants_a_yes(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = open_state_dir(tmp_path / "state").path
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert "repeat with --yes" in shell.fails("reset", "--state-dir", str(path))
    assert path.exists()
    assert shell("reset", "--state-dir", str(path), "--yes").out == f"removed {path}\n"
    assert not path.exists()


# --- text for a terminal --------------------------------------------------------------------------
def test_printable_keeps_what_people_write() -> None:
    for text in ("Grüße,\n\tWelt", "नमस्ते क्‍ष", "می‌خواهم", "👩‍👩‍👧", "日本語", "a\u00a0b"):
        assert printable(text) == text


@given(st.text())
def test_nothing_printable_acts_on_a_terminal(text: str) -> None:
    allowed = "\n\t\u200c\u200d"
    shown = printable(text + EVIL + "\ud800\U000e0041\u2066\x7f")
    shown.encode()
    assert not set(shown) & {"\x1b", "\x9b", "\r", "\x07", "\x7f", "\u202e", "\u2066", "\U000e0041"}
    assert all(c in allowed or c.isprintable() or c.isspace() or ord(c) > 0xA0 for c in shown)
    assert "\n" not in one_line(text)


def test_a_setup_error_of_a_configuration_is_the_same_without_a_shell() -> None:
    with pytest.raises(SetupError, match="nothing to serve"):
        config_of("serve")
