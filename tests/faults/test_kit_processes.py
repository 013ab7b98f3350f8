"""The kit's processes: real ones, small and in Python."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from faults.history import FaultInjected, History
from faults.processes import NodeProcess, ProcessFailed, parse_ready
from faults.proctable import Proc, parse_stat, process_table, tree_of

FAMILY = """
import json, os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"],
                         start_new_session="apart" in sys.argv)
print("starting", flush=True)
print(json.dumps({"ready": True, "peer": "12D3", "pids": {"engine": child.pid}}), flush=True)
time.sleep(60)
"""


def python(program: str, *args: str) -> list[str]:
    return [sys.executable, "-S", "-c", program, *args]


def is_alive(pid: int) -> bool:
    proc = process_table().get(pid)
    return proc is not None and proc.state not in "ZX"


def wait_until(is_true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_the_ready_line_is_read_from_json_and_from_words() -> None:
    said = {"ready": True, "url": "http://h:1", "peer": "P", "addrs": ["/a"], "more": 1}
    ready = parse_ready(json.dumps(said))
    assert ready is not None
    assert (ready.url, ready.peer, ready.addrs) == ("http://h:1", "P", ["/a"])
    in_words = parse_ready("ready: http://127.0.0.1:8080, chat page and API")
    assert in_words is not None
    assert in_words.url == "http://127.0.0.1:8080"
    assert parse_ready('{"level": "info"}') is None
    assert parse_ready("already running") is None


def test_a_ready_line_of_the_wrong_form_is_an_error_and_not_overlooked() -> None:
    with pytest.raises(AssertionError, match="cannot be read"):
        parse_ready('{"ready": true, "pids": {"engine": "none"}}')


def test_a_process_name_with_brackets_does_not_confuse_the_table() -> None:
    rest = "S 7 8 9 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 4711 0 0"
    assert parse_stat(f"12 (a) b) (c) {rest}") == Proc(12, 7, 9, 4711, "S")


def test_a_tree_holds_descendants_the_session_and_orphans_but_no_stranger() -> None:
    node, child, grandchild = Proc(1, 0, 1, 5, "S"), Proc(2, 1, 1, 5, "S"), Proc(3, 2, 3, 5, "S")
    stranger, zombie = Proc(4, 0, 4, 5, "S"), Proc(5, 1, 1, 5, "Z")
    table = {proc.pid: proc for proc in (stranger, grandchild, zombie, child, node)}
    assert tree_of(1, table) == [node, child, grandchild]

    orphan = Proc(3, 0, 3, 5, "S")
    assert tree_of(1, {3: orphan}, is_running=False, known=[grandchild]) == [orphan]
    reused = Proc(3, 0, 3, 6, "S")
    assert tree_of(1, {3: reused}, is_running=False, known=[grandchild]) == []
    assert tree_of(1, {1: Proc(1, 0, 1, 9, "S")}, is_running=False) == []


def test_a_node_that_ends_before_it_is_ready_fails_with_the_end_of_its_output(
    tmp_path: Path,
) -> None:
    command = python("raise SystemExit('no such model')")
    with (
        NodeProcess(command, tmp_path, name="p") as node,
        pytest.raises(ProcessFailed, match=r"(?s)p ended with 1 .*no such model"),
    ):
        node.wait_ready(5)


def test_a_node_that_never_says_ready_fails_at_the_deadline(tmp_path: Path) -> None:
    with NodeProcess(python("import time; print('hm', flush=True); time.sleep(60)"), tmp_path) as n:
        assert n.wait_line("hm", 5) == "hm"
        with pytest.raises(ProcessFailed, match=r"(?s)did not print its ready line.*hm"):
            n.wait_ready(0.05)


def test_what_was_said_right_before_the_end_still_counts(tmp_path: Path) -> None:
    with NodeProcess(python("print('ready')"), tmp_path) as node:
        assert node.wait_exit(5) == 0
        assert node.wait_ready(0).line == "ready"


@pytest.mark.parametrize("session", ["same", "apart"])
def test_killing_a_node_kills_all_that_it_started(tmp_path: Path, session: str) -> None:
    with NodeProcess(python(FAMILY, session), tmp_path) as node:
        engine = node.wait_ready(5).pids["engine"]
        assert {proc.pid for proc in node.tree()} == {node.pid, engine}
        node.kill()
        assert node.returncode == -signal.SIGKILL
        wait_until(lambda: not is_alive(engine))


@pytest.mark.parametrize("session", ["same", "apart"])
def test_killing_the_node_alone_orphans_its_children_until_the_test_leaves(
    tmp_path: Path, session: str
) -> None:
    with NodeProcess(python(FAMILY, session), tmp_path) as node:
        engine = node.wait_ready(5).pids["engine"]
        node.kill(whole=False)
        assert node.returncode == -signal.SIGKILL
        assert is_alive(engine)
    assert not is_alive(engine)


def test_a_frozen_node_is_stopped_with_its_children_and_thaws(tmp_path: Path) -> None:
    with NodeProcess(python(FAMILY), tmp_path) as node:
        node.wait_ready(5)
        node.freeze()
        assert [proc.state for proc in node.tree()] == ["T", "T"]
        node.thaw()
        wait_until(lambda: all(proc.state != "T" for proc in node.tree()))
        node.freeze(whole=False)
        assert [proc.state == "T" for proc in node.tree()] == [True, False]


def test_leaving_ends_a_frozen_tree_without_zombies(tmp_path: Path) -> None:
    with NodeProcess(python(FAMILY), tmp_path) as node:
        engine = node.wait_ready(5).pids["engine"]
        node.freeze()
    assert node.pid not in process_table()
    assert not is_alive(engine)


def test_a_terminated_node_may_say_goodbye(tmp_path: Path) -> None:
    program = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    with NodeProcess(python(program), tmp_path) as node:
        node.wait_ready(5)
        assert node.terminate(5) == 3


def test_only_processes_of_the_node_are_signalled(tmp_path: Path) -> None:
    with NodeProcess(python(FAMILY), tmp_path) as node:
        engine = node.wait_ready(5).pids["engine"]
        with pytest.raises(ValueError, match="was not started by node"):
            node.signal_child(os.getpid(), signal.SIGTERM)
        node.signal_child(engine, signal.SIGKILL)
        wait_until(lambda: not is_alive(engine))
        assert node.returncode is None


def test_a_node_sees_nothing_of_the_mesh_of_the_person_who_runs_the_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MONAI_JOIN", "theirs")
    program = "import os; print('ready', *sorted(k for k in os.environ if k.startswith('MONAI')))"
    with NodeProcess(python(program), tmp_path, env={"MONAI_URL": "ours"}) as node:
        assert node.wait_ready(5).line == "ready MONAI_STATE_DIR MONAI_URL"


def test_a_killed_node_starts_again_on_its_state_and_tells_its_faults(tmp_path: Path) -> None:
    program = (
        "import os, pathlib, time\n"
        "runs = pathlib.Path(os.environ['XDG_STATE_HOME'], 'runs')\n"
        "runs.write_text(old := (runs.read_text() if runs.exists() else '') + 'x')\n"
        "print('ready', old, flush=True); time.sleep(60)"
    )
    history = History()
    with NodeProcess(python(program), tmp_path, name="p1", on_fault=history.fault) as node:
        assert node.wait_ready(5).line == "ready x"
        node.kill()
        assert node.start().wait_ready(5).line == "ready xx"
        with pytest.raises(RuntimeError, match="p1 runs already"):
            node.start()
    faults = [r for r in history.records if isinstance(r, FaultInjected)]
    assert [(fault.what, fault.target) for fault in faults] == [("kill", "p1")]
