from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from monai_node.mesh.running import Process, found_nodes, processes, tree_rss_bytes
from monai_node.mesh.state import StateDir

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="there is no /proc")


@pytest.fixture(name="child")
def _child() -> Generator[subprocess.Popen[bytes]]:  # pyright: ignore[reportUnusedFunction]
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        yield child
        child.kill()


def say(state: Path, name: str, **said: Any) -> None:
    folder = state / "nodes" / name
    folder.mkdir(parents=True)
    (folder / "running.json").write_text(json.dumps(said))


def test_a_node_is_there_as_long_as_its_own_process_is(
    tmp_path: Path, child: subprocess.Popen[bytes]
) -> None:
    began = processes()[child.pid].began
    say(tmp_path, "alive", pid=child.pid, began=began)
    say(tmp_path, "reused", pid=child.pid, began=began - 1)
    say(tmp_path, "gone", pid=2**22 + 1, began=1)
    say(tmp_path, "nonsense", pid="many")
    (tmp_path / "nodes" / "damaged").mkdir()
    (tmp_path / "nodes" / "damaged" / "running.json").write_text("{")
    found = {node.name: node for node in found_nodes(StateDir(tmp_path))}
    assert {name: node.is_there for name, node in found.items()} == {
        "alive": True,
        "reused": False,
        "gone": False,
        "nonsense": False,
    }
    memory = found["alive"].rss_bytes
    assert memory is not None
    assert memory > 1 << 20
    child.kill()
    child.wait()
    assert not any(node.is_there for node in found_nodes(StateDir(tmp_path)))


def test_the_memory_of_what_it_started_counts() -> None:
    table = {
        each.pid: each
        for each in (Process(1, 0, 0, 1), Process(2, 1, 0, 10), Process(3, 2, 0, 100), Process(4, 9, 0, 1000))
    }
    assert tree_rss_bytes(1, table) == 111
    assert tree_rss_bytes(5, table) == 0


def test_this_process_is_among_those_of_the_machine() -> None:
    assert processes()[os.getpid()].parent == os.getppid()
