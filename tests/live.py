"""A mesh of real processes for tests of the whole: one gateway, any providers, one state directory.

Plain synchronous code, like the fault kit that it is made of. Every node of a `LiveMesh` finds the
gateway by the state directory they share, as the nodes of one user do.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import httpx

from faults.history import History
from faults.processes import NodeProcess, Ready, faulty_node_command, node_command

POLL_SECONDS = 0.02
CLI_SECONDS = 60.0


class LiveMesh:
    """Starts and ends the processes of one mesh below `folder`; a context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state_dir = folder / "shared"
        self.history: History | None = None  # told of faults, while a test has set one
        self.nodes: dict[str, NodeProcess] = {}
        self.ready: Ready
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self.state_dir.mkdir(parents=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # --- processes --------------------------------------------------------------------------------
    def open_gateway(self, command: str = "gateway", *args: str) -> Ready:
        """Start `gateway` or `up` on a port of its own, and wait until it is ready. It sends no canaries:
        a peer is asked what the test asks of it."""
        node = self.spawn("gateway", command, "--port", "0", "--no-canaries", *args)
        self.ready = node.wait_ready()
        return self.ready

    def serve(self, name: str, *args: str, faults: Sequence[str] = ()) -> NodeProcess:
        """Start a provider called `name`; it joins by the shared state directory."""
        return self.spawn(name, "serve", *args, "--node-name", name, faults=faults)

    def spawn(self, name: str, *args: str, faults: Sequence[str] = ()) -> NodeProcess:
        """Start a node; a `name` used before gets a directory for this start's output beside it."""
        directory = self.folder / f"{name}-{len(self.nodes)}"
        directory.mkdir()
        command = [*args, "--json"]
        node = NodeProcess(
            faulty_node_command(faults, *command) if faults else node_command(*command),
            directory,
            name=name,
            env={"MONAI_STATE_DIR": str(self.state_dir)},
            on_fault=self._tell,
        )
        self.nodes[name] = self._stack.enter_context(node)
        return node

    def _tell(self, what: str, target: str) -> None:
        if self.history is not None:
            self.history.fault(what, target)

    # --- HTTP ---------------------------------------------------------------------------------------
    @property
    def url(self) -> str:
        return self.ready.url

    def get(self, path: str, **query: str) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", params=query, timeout=30, trust_env=False)

    def post(self, path: str, body: object) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        return httpx.post(f"{self.url}{path}", content=content, headers=headers, timeout=60, trust_env=False)

    def chat(self, text: str, mesh: dict[str, Any] | None = None, **fields: Any) -> httpx.Response:
        """One whole chat completion."""
        messages = fields.pop("messages", [{"role": "user", "content": text}])
        body = {"model": "mesh", "messages": messages, "mesh": mesh or {}, "temperature": 0, **fields}
        return self.post("/v1/chat/completions", body)

    def peers(self) -> dict[str, dict[str, Any]]:
        """What `/v1/peers` says, by name; a peer whose advert is not known yet has none."""
        return {peer["name"]: peer for peer in self.get("/v1/peers").json()["data"]}

    def state_of(self, name: str) -> str:
        return str(self.peers().get(name, {}).get("state", "unknown"))

    def wait_state(self, name: str, state: str, timeout_seconds: float) -> float:
        """Until the gateway has the peer in `state`; the seconds that took."""
        return wait_until(
            lambda: self.state_of(name) == state, timeout_seconds, f"{name} is not {state} to the gateway"
        )

    # --- command line -------------------------------------------------------------------------------
    def cli(self, *args: str, stdin: bytes = b"") -> CliResult:
        return run_cli(*args, state_dir=self.state_dir, stdin=stdin)


class CliResult:
    """What one command left: its exit status and both outputs as text."""

    def __init__(self, process: subprocess.CompletedProcess[bytes], seconds: float) -> None:
        self.code = process.returncode
        self.stdout = process.stdout.decode()
        self.stderr = process.stderr.decode()
        self.seconds = seconds

    @property
    def json(self) -> dict[str, Any]:
        """What a successful command with `--json` printed."""
        assert self.code == 0, self.stderr
        return json.loads(self.stdout)

    @property
    def sentence(self) -> str:
        """The one line in which the command said why it failed; nothing else may stand there but
        the progress of a start."""
        assert "Traceback" not in self.stderr, self.stderr
        lines = [line for line in self.stderr.splitlines() if line.strip() and not line.startswith("[")]
        assert len(lines) == 1, self.stderr
        assert lines[0].startswith("monai-node: "), self.stderr
        return lines[0].removeprefix("monai-node: ")


def run_cli(*args: str, state_dir: Path, stdin: bytes = b"") -> CliResult:
    """Run one command of this package to its end, with nothing of the caller's own mesh around it."""
    home = str(state_dir.parent)
    started = time.monotonic()
    process = subprocess.run(
        node_command(*args),
        input=stdin,
        capture_output=True,
        timeout=CLI_SECONDS,
        check=False,
        env={"MONAI_STATE_DIR": str(state_dir), "HOME": home, "PATH": "/usr/bin:/bin"},
    )
    return CliResult(process, time.monotonic() - started)


def wait_until(is_true: Callable[[], bool], timeout_seconds: float, complaint: str) -> float:
    """The seconds until something became true; AssertionError with `complaint` when it did not."""
    started = time.monotonic()
    while not is_true():
        assert time.monotonic() - started < timeout_seconds, f"{complaint} after {timeout_seconds:g} s"
        time.sleep(POLL_SECONDS)
    return time.monotonic() - started
