"""Hostile and unlucky clients of a real gateway with a real model: what they hold is free again at once, and
nobody else notices."""

from __future__ import annotations

import json
import os
import resource
import socket
import struct
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from websockets.sync.client import connect

from live import LiveMesh, wait_until

pytestmark = [pytest.mark.processes, pytest.mark.model, pytest.mark.full]

LONG = {
    "model": "smollm2-135m-instruct.q4_1",
    "messages": [{"role": "user", "content": "Write a very long story about a river."}],
    "max_tokens": 1500,
    "temperature": 0,
    "seed": 1,
}
QUESTION = "What is 37 * 49?"
FREE_SECONDS = 3.0  # to notice, to cancel, and for the next beacon to say so
Client = Callable[[LiveMesh], None]


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Generator[LiveMesh]:
    with LiveMesh(tmp_path_factory.mktemp("hostile")) as mesh:
        mesh.open_gateway("up")
        assert mesh.chat(QUESTION).status_code == 200
        yield mesh


# --- clients --------------------------------------------------------------------------------------------
@contextmanager
def connected(mesh: LiveMesh) -> Generator[socket.socket]:
    host, port = mesh.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as client:
        yield client


def request(body: object) -> bytes:
    content = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(content)}\r\n\r\n"
    return head.encode() + content


def read_until(client: socket.socket, words: bytes) -> None:
    found = b""
    while words not in found:
        data = client.recv(1 << 16)
        assert data, found
        found += data


def is_busy(mesh: LiveMesh) -> bool:
    provider = mesh.peers()["provider"]
    return provider["running"] + provider["queued"] > 0


def wait_busy(mesh: LiveMesh) -> None:
    wait_until(lambda: is_busy(mesh), 10, "the provider has nothing to do")


def position_in_line(mesh: LiveMesh) -> int:
    """How many stand before a new request at the model."""
    with connect(mesh.url.replace("http", "ws", 1) + "/v1/ws", proxy=None) as client:
        client.send(json.dumps({"type": "run.start", "request": LONG}))
        while (event := json.loads(client.recv(timeout=30)))["type"] != "task.accepted":
            pass
        return event["position"]


def half_a_head(mesh: LiveMesh) -> None:
    with connected(mesh) as client:
        client.sendall(request(LONG)[:40])


def half_a_body(mesh: LiveMesh) -> None:
    with connected(mesh) as client:
        client.sendall(request(LONG)[:-20])


def gone_at_once(mesh: LiveMesh) -> None:
    with connected(mesh) as client:
        client.sendall(request({**LONG, "stream": True}))


def gone_while_the_whole_is_written(mesh: LiveMesh) -> None:
    with connected(mesh) as client:
        client.sendall(request(LONG))
        wait_busy(mesh)


def gone_in_the_stream(mesh: LiveMesh) -> None:
    with connected(mesh) as client:
        client.sendall(request({**LONG, "stream": True}))
        read_until(client, b'"content":" ')


def reset_in_the_stream(mesh: LiveMesh) -> None:
    with connected(mesh) as client:
        client.sendall(request({**LONG, "stream": True}))
        read_until(client, b'"content":" ')
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def half_closed(mesh: LiveMesh) -> None:
    with connected(mesh) as client:
        client.sendall(request({**LONG, "stream": True}))
        read_until(client, b'"content":" ')
        client.shutdown(socket.SHUT_WR)
        wait_until(lambda: not is_busy(mesh), FREE_SECONDS, "the engine is busy")


def socket_gone(mesh: LiveMesh) -> None:
    with connect(mesh.url.replace("http", "ws", 1) + "/v1/ws", proxy=None) as client:
        for name in ("a", "b", "c"):
            client.send(json.dumps({"type": "run.start", "id": name, "request": LONG}))
        while json.loads(client.recv(timeout=30))["type"] != "answer.delta":
            pass


def socket_cancels(mesh: LiveMesh) -> None:
    with connect(mesh.url.replace("http", "ws", 1) + "/v1/ws", proxy=None) as client:
        client.send(json.dumps({"type": "run.start", "id": "a", "request": LONG}))
        while json.loads(client.recv(timeout=30))["type"] != "answer.delta":
            pass
        client.send(json.dumps({"type": "run.cancel", "id": "a"}))
        while (last := json.loads(client.recv(timeout=30)))["type"] != "error":
            pass
        assert last["code"] == "cancelled"
        wait_until(lambda: not is_busy(mesh), FREE_SECONDS, "the engine is busy")


CLIENTS: list[Client] = [
    half_a_head,
    half_a_body,
    gone_at_once,
    gone_while_the_whole_is_written,
    gone_in_the_stream,
    reset_in_the_stream,
    half_closed,
    socket_gone,
    socket_cancels,
]


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__name__)
def test_whoever_leaves_frees_the_engine(client: Client, mesh: LiveMesh) -> None:
    client(mesh)
    wait_until(lambda: position_in_line(mesh) == 0, FREE_SECONDS, "the engine is busy")


def test_while_a_client_stays_others_wait_for_the_engine(mesh: LiveMesh) -> None:
    with connected(mesh) as client:
        client.sendall(request({**LONG, "stream": True}))
        read_until(client, b'"content":" ')
        assert position_in_line(mesh) == 1


def test_nobody_else_notices_and_nothing_is_kept(mesh: LiveMesh) -> None:
    pid = mesh.nodes["gateway"].pid
    assert mesh.chat(QUESTION).status_code == 200
    files, memory = open_files(pid), memory_bytes(pid)
    with ExitStack() as stack:
        for _ in range(500):
            client = stack.enter_context(connected(mesh))
            client.sendall(request(LONG)[:40])
        for _ in range(8):  # they take nothing of what they asked for
            client = stack.enter_context(connected(mesh))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.sendall(request({**LONG, "stream": True, "mesh": {"events": True}}))
        for noise in (os.urandom(1 << 20), b"\0" * (1 << 20), b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 100_000):
            with connected(mesh) as client:
                try:
                    client.sendall(noise)
                except (ConnectionResetError, BrokenPipeError):
                    continue
        answer = mesh.chat(QUESTION)
        assert answer.json()["choices"][0]["message"]["content"] == "1813"
    wait_until(lambda: open_files(pid) <= files + 2, 20, "files stay open")
    wait_until(lambda: not is_busy(mesh), FREE_SECONDS, "the engine is busy")
    assert memory_bytes(pid) - memory < 64 << 20
    assert log_errors(mesh) == []


def test_a_full_disk_is_logged_and_stops_no_run(mesh: LiveMesh) -> None:
    pid = mesh.nodes["gateway"].pid
    (log,) = mesh.state_dir.glob("nodes/gateway/node.log")
    was = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    # Every file but the log is at its end.
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (log.stat().st_size + 4096, was[1]))
    try:
        for n in range(4):
            answer = mesh.chat(f"What is {n} + 49?", stream=bool(n % 2))
            assert answer.status_code == 200
            assert str(n + 49) in answer.text
        wait_until(lambda: "disk" in log.read_text() or "large" in log.read_text(), 10, "the log is silent")
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, was)
    assert mesh.chat(QUESTION).status_code == 200


def test_of_two_gateways_on_one_state_directory_one_is_found_while_one_runs(mesh: LiveMesh) -> None:
    def announced() -> str:
        return json.loads((mesh.state_dir / "gateway.json").read_text())["url"]

    assert announced() == mesh.url
    same = mesh.cli("gateway", "--port", "0")
    assert same.code == 1
    assert "a node called 'gateway' is already running" in same.sentence
    second = mesh.spawn("second", "gateway", "--port", "0", "--no-canaries", "--node-name", "second")
    ready = second.wait_ready()
    assert announced() == ready.url
    second.terminate()
    assert announced() == mesh.url
    assert mesh.cli("ask", QUESTION).stdout.strip() == "1813"


# --- what is measured -----------------------------------------------------------------------------------
def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def memory_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def log_errors(mesh: LiveMesh) -> list[str]:
    (log,) = mesh.state_dir.glob("nodes/gateway/node.log")
    return [line for line in log.read_text().splitlines() if " ERROR " in line]
