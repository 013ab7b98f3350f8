"""Real nodes that are asked to go while they work end what they began, and begin nothing else."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue

import httpx
import pytest

from live import LiveMesh, wait_until

pytestmark = [pytest.mark.processes, pytest.mark.full]

WORK_SECONDS = 4.0
SLOW = f"""
import time

from monai_node.agents import Agent

agent = Agent("slow")


@agent.skill(examples=["Take your time", "Do it slowly", "Wait for it"])
def slow(text: str) -> str:
    '''Does it slowly.'''
    time.sleep({WORK_SECONDS})
    return "done slowly"
"""
HELLO = {"model": "mesh", "messages": [{"role": "user", "content": "Take your time"}], "stream": True}


@pytest.fixture
def mesh(tmp_path: Path) -> Generator[LiveMesh]:
    (tmp_path / "slow.py").write_text(SLOW)
    with LiveMesh(tmp_path) as mesh:
        mesh.open_gateway("gateway", "--embedder", "gguf", "--planner", "rules")
        mesh.serve("slow", str(tmp_path / "slow.py")).wait_ready()
        mesh.wait_state("slow", "alive", 10)
        wait_until(lambda: mesh.get("/ready").status_code == 200, 10, "the gateway is not ready")
        yield mesh


@contextmanager
def streaming(mesh: LiveMesh) -> Generator[Iterator[str]]:
    """The lines of an answer under way; entered when its task is with the provider."""
    lines: Queue[str | None] = Queue()

    def read() -> None:
        body = {**HELLO, "mesh": {"events": True}}
        url = f"{mesh.url}/v1/chat/completions"
        try:
            with httpx.stream("POST", url, json=body, timeout=60, trust_env=False) as answer:
                for line in answer.iter_lines():
                    lines.put(line)
        except httpx.TransportError:
            pass  # cut: seen by what the lines lack
        finally:
            lines.put(None)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        wait_until(lambda: mesh.peers()["slow"]["running"] == 1, 15, "no task is under way")
        yield iter(lambda: lines.get(timeout=60), None)
    finally:
        thread.join(60)


def text_of(lines: Iterator[str]) -> str:
    """The whole answer; AssertionError when it is none, or not whole."""
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert data[-1] == "[DONE]", data[-1]
    chunks = [json.loads(each) for each in data[:-1]]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk.get("choices", [])]
    return "".join(delta.get("content") or "" for delta in deltas)


def test_a_gateway_that_is_asked_to_go_ends_its_streams_whole_and_begins_nothing(mesh: LiveMesh) -> None:
    gateway = mesh.nodes["gateway"]
    with streaming(mesh) as lines:
        gateway.signal_child(gateway.pid, signal.SIGTERM)
        wait_until(lambda: mesh.get("/ready").status_code == 503, 3, "the gateway does not say that it goes")
        assert mesh.get("/ready").json()["status"] == "draining"
        refused = mesh.chat("Take your time")
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "draining"
        assert int(refused.headers["retry-after"]) > 0
        assert gateway.returncode is None
        assert "done slowly" in text_of(lines)
    assert gateway.wait_exit(15) == 0
    assert not (mesh.state_dir / "gateway.json").exists()


def test_a_provider_that_is_asked_to_go_ends_its_task_and_is_given_no_other(mesh: LiveMesh) -> None:
    provider = mesh.nodes["slow"]
    with streaming(mesh) as lines:
        provider.signal_child(provider.pid, signal.SIGTERM)
        # Its beacon says so, and who takes no tasks has nothing to offer.
        wait_until(lambda: mesh.get("/ready").status_code == 503, 3, "the provider does not say that it goes")
        assert mesh.chat("Take your time").status_code == 503
        assert "done slowly" in text_of(lines)
    assert provider.wait_exit(15) == 0


def test_who_is_told_twice_goes_at_once(mesh: LiveMesh) -> None:
    gateway = mesh.nodes["gateway"]
    with streaming(mesh):
        gateway.signal_child(gateway.pid, signal.SIGTERM)
        wait_until(lambda: mesh.get("/ready").status_code == 503, 3, "the gateway does not say that it goes")
        started = time.monotonic()
        gateway.signal_child(gateway.pid, signal.SIGTERM)
        gateway.wait_exit(5)
        assert time.monotonic() - started < WORK_SECONDS / 2
