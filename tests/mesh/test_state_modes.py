from __future__ import annotations

import os
import stat
from pathlib import Path

from monai_node.mesh.state import open_state_dir


def test_nothing_in_a_state_directory_can_be_read_or_locked_by_others(tmp_path: Path) -> None:
    mask = os.umask(0o022)
    try:
        state = open_state_dir(tmp_path)
        state.mesh_secret(lambda: "secret")
        folder = state.node("here")
        folder.take_seq_block()
        with folder.lock():
            modes = {path: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    finally:
        os.umask(mask)
    assert {path.name for path in modes} >= {"mesh.lock", "mesh.json", "nodes", "here", "lock", "node.json"}
    assert not {path for path, mode in modes.items() if mode & 0o077}
