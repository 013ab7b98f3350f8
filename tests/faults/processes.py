"""Real node processes for tests: start one, wait for its words, kill, freeze, thaw, leave nothing.

Plain synchronous code. Output goes to files, never to a pipe, so that a node cannot stall on a test
that does not read. Only processes that descend from the one started here are ever signalled.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from faults.proctable import Proc, process_table, tree_of

TESTS_DIR = Path(__file__).resolve().parent.parent
READY_SECONDS = 60.0  # a node that loads a model on a busy two-core machine
EXIT_SECONDS = 30.0  # what a node is given to drain after SIGTERM
_POLL_SECONDS = 0.01
_SETTLE_SECONDS = 5.0  # for a signal that cannot be refused to take effect
_TAIL_LINES = 40
_T = TypeVar("_T")

FaultListener = Callable[[str, str], None]
"""Told (what, target) right before a fault is injected; `History.fault` is one."""


def node_command(*args: str) -> list[str]:
    """The command line of a real node with this interpreter."""
    return [sys.executable, "-m", "monai_node.mesh.cli", *args]


def faulty_node_command(faults: Sequence[str], *args: str) -> list[str]:
    """A real node that does `faults` (see `faults.frames.parse_fault`) to the frames it sends."""
    options = [option for fault in faults for option in ("--fault", fault)]
    return [sys.executable, "-m", "faults.provider_main", *options, "--", *args]


# --- what a node says -----------------------------------------------------------------------------
class Ready(BaseModel):
    """What a node printed when it began to serve; `pids` are its own child processes by role."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    ready: Literal[True] = True
    line: str = ""
    url: str = ""
    join: str = ""
    peer: str = ""
    pids: dict[str, int] = Field(default_factory=dict[str, int])
    addrs: list[str] = Field(default_factory=list[str])


def parse_ready(line: str) -> Ready | None:
    """The node's ready line, as JSON (`--json`) or in words (`ready …`); None for any other line.

    AssertionError when a JSON line says `ready` and the rest is not what tests rely on.
    """
    if line.startswith("ready"):
        url = re.search(r"https?://[^\s,;]+", line)
        return Ready(line=line, url=url.group().rstrip(".") if url else "")
    if not re.match(r'\{.*"ready":\s*true', line):
        return None
    try:
        return Ready.model_validate_json(line).model_copy(update={"line": line})
    except ValidationError as error:
        raise AssertionError(f"a ready line that cannot be read: {line}") from error


class ProcessFailed(AssertionError):
    """A node did not do what a test waited for; carries the end of its output."""


class NodeProcess:
    """One node process with its own session, directory and state; a context manager.

    Leaving kills the whole tree, frozen or not, reaps it and fails if anything of it is left. After
    `kill` or an exit it can be started again on the same state, as a machine that comes back.
    """

    def __init__(
        self,
        command: Sequence[str],
        directory: Path,
        *,
        name: str = "node",
        env: Mapping[str, str] | None = None,
        on_fault: FaultListener | None = None,
    ) -> None:
        self.command = list(command)
        self.name = name
        self.directory = directory
        self.state_dir = directory / "state"
        self._env = dict(env or {})
        self._on_fault = on_fault
        self._starts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._known: set[Proc] = set()

    # --- life -------------------------------------------------------------------------------------
    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> Self:
        """Start the command; also again, after it ended. MONAI_STATE_DIR and the environment's user
        directories are `state_dir`."""
        if self._process is not None and self._process.poll() is None:
            raise RuntimeError(f"{self.name} runs already")
        self.state_dir.mkdir(parents=True, exist_ok=True)
        self._starts += 1
        self._known.clear()
        with self.stdout_path.open("wb") as stdout, self.stderr_path.open("wb") as stderr:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                cwd=self.directory,
                env=self._environment(),
                start_new_session=True,
            )
        return self

    def stop(self) -> None:
        """Kill the whole tree and reap it; ProcessFailed when something of it survives."""
        process = self._process
        if process is None:
            return
        self._stop_tree()
        self._signal_tree(signal.SIGKILL)
        process.wait(_SETTLE_SECONDS)
        if not _until(lambda: not self.tree(), _SETTLE_SECONDS):
            raise ProcessFailed(f"{self.name} left processes behind: {self.tree()}")

    @property
    def pid(self) -> int:
        return self._running.pid

    @property
    def returncode(self) -> int | None:
        """The exit status; minus the signal's number when one ended it; None while it runs."""
        return self._running.poll()

    def tree(self) -> list[Proc]:
        """The node and what it started, as far as alive."""
        is_running = self._running.poll() is None
        tree = tree_of(self._running.pid, process_table(), is_running=is_running, known=self._known)
        self._known.update(tree)
        return tree

    # --- waiting ----------------------------------------------------------------------------------
    def wait_ready(self, timeout_seconds: float = READY_SECONDS) -> Ready:
        """Until the node says that it serves; ProcessFailed when it ends or the time is over."""
        return self._wait(parse_ready, "its ready line", timeout_seconds)

    def wait_line(self, pattern: str, timeout_seconds: float = READY_SECONDS) -> str:
        """Until a whole line on stdout or stderr matches somewhere; returns that line."""
        matcher = re.compile(pattern)
        return self._wait(lambda line: line if matcher.search(line) else None, repr(pattern), timeout_seconds)

    def wait_exit(self, timeout_seconds: float = EXIT_SECONDS) -> int:
        """Until the node itself ended; its exit status."""
        try:
            return self._running.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            raise self._failed(f"still runs after {timeout_seconds:g} s") from None

    def lines(self) -> list[str]:
        """Every whole line said by this start, stdout before stderr."""
        return [
            line
            for path in (self.stdout_path, self.stderr_path)
            for line in path.read_text(errors="replace").rpartition("\n")[0].splitlines()
        ]

    # --- faults -----------------------------------------------------------------------------------
    def kill(self, *, whole: bool = True) -> None:
        """SIGKILL. `whole`: with all it started, as a machine that loses power; otherwise the node
        alone, as by the OOM killer, and what it started must notice by itself."""
        self._tell("kill")
        if whole:
            self._stop_tree()
            self._signal_tree(signal.SIGKILL)
        else:
            self.tree()  # remembered before init adopts them
            self._signal(self._running.pid, signal.SIGKILL)
        self._running.wait(_SETTLE_SECONDS)

    def freeze(self, *, whole: bool = True) -> None:
        """SIGSTOP, and wait until it took effect: connections stay up, nothing answers."""
        self._tell("freeze")
        if whole:
            self._stop_tree()
        else:
            self._signal(self._running.pid, signal.SIGSTOP)
            _until(lambda: _states([self._running.pid]) <= {"T"}, _SETTLE_SECONDS)

    def thaw(self) -> None:
        """SIGCONT to all of it: a laptop that wakes up."""
        self._tell("thaw")
        self._signal_tree(signal.SIGCONT)

    def terminate(self, timeout_seconds: float = EXIT_SECONDS) -> int:
        """SIGTERM to the node alone, as a service manager does; its exit status."""
        self._tell("terminate")
        self._signal(self._running.pid, signal.SIGTERM)
        return self.wait_exit(timeout_seconds)

    def signal_child(self, pid: int, number: signal.Signals) -> None:
        """Signal one process of the tree, such as one of `Ready.pids`; ValueError for any other."""
        if pid not in {proc.pid for proc in self.tree()}:
            raise ValueError(f"process {pid} was not started by {self.name}")
        self._tell(f"{number.name} to a child")
        self._signal(pid, number)

    # --- inner ------------------------------------------------------------------------------------
    @property
    def stdout_path(self) -> Path:
        return self.directory / f"stdout-{self._starts}.log"

    @property
    def stderr_path(self) -> Path:
        return self.directory / f"stderr-{self._starts}.log"

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._process

    def _environment(self) -> dict[str, str]:
        # Nothing of the person who runs the tests, and nothing of the mesh that they may run.
        env = {key: value for key, value in os.environ.items() if not key.startswith("MONAI_")}
        kinds = ("CONFIG_HOME", "DATA_HOME", "STATE_HOME", "CACHE_HOME", "RUNTIME_DIR")
        env |= dict.fromkeys(
            ("HOME", "MONAI_STATE_DIR", *(f"XDG_{kind}" for kind in kinds)), str(self.state_dir)
        )
        if "faults.provider_main" in self.command:
            env["PYTHONPATH"] = str(TESTS_DIR)
        return env | self._env

    def _tell(self, what: str) -> None:
        if self._on_fault is not None:
            self._on_fault(what, self.name)

    def _signal(self, pid: int, number: signal.Signals) -> None:
        # A Popen that was reaped no longer owns its pid: somebody else may.
        if pid == self._running.pid and self._running.poll() is not None:
            return
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return

    def _signal_tree(self, number: signal.Signals) -> None:
        for proc in self.tree():
            self._signal(proc.pid, number)

    def _stop_tree(self) -> None:
        """Stop every member, until no running one is left that could start or outlive another."""

        def is_stopped() -> bool:
            running = [proc for proc in self.tree() if proc.state not in "tT"]
            for proc in running:
                self._signal(proc.pid, signal.SIGSTOP)
            return not running

        if not _until(is_stopped, _SETTLE_SECONDS):
            raise self._failed("could not be stopped")

    def _wait(self, accept: Callable[[str], _T | None], what: str, timeout_seconds: float) -> _T:
        deadline = time.monotonic() + timeout_seconds
        while True:
            # In this order: what a process said right before it ended still counts.
            has_ended, is_late = self.returncode is not None, time.monotonic() >= deadline
            for line in self.lines():
                if (found := accept(line)) is not None:
                    return found
            if has_ended:
                raise self._failed(f"ended with {self.returncode} before {what}")
            if is_late:
                raise self._failed(f"did not print {what} within {timeout_seconds:g} s")
            time.sleep(_POLL_SECONDS)

    def _failed(self, why: str) -> ProcessFailed:
        tails = (
            f"--- end of {path.name}\n" + "\n".join(_tail(path))
            for path in (self.stdout_path, self.stderr_path)
        )
        return ProcessFailed("\n".join((f"{self.name} {why}", *tails)))


class StartNode(Protocol):
    """The fixture `start_node`."""

    def __call__(
        self, command: Sequence[str], name: str = "node", env: Mapping[str, str] | None = None
    ) -> NodeProcess:
        """Start `command` under `name`, with a directory of its own that restarts keep."""
        ...


def _tail(path: Path) -> list[str]:
    return path.read_text(errors="replace").splitlines()[-_TAIL_LINES:]


def _until(is_true: Callable[[], bool], timeout_seconds: float) -> bool:
    deadline = time.monotonic() + timeout_seconds
    while not is_true():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _states(pids: Iterable[int]) -> set[str]:
    table = process_table()
    return {table[pid].state for pid in pids if pid in table}
