from __future__ import annotations

import itertools
import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from monai_node.mesh.state import (
    SCHEMA_VERSION,
    NodeDir,
    open_state_dir,
    parse_json,
    read_json,
    reset_state_dir,
    state_path,
    write_atomically,
    write_json,
)
from monai_node.registry.errors import SetupError


def one_sentence(error: SetupError) -> str:
    assert "\n" not in error.message
    assert "Traceback" not in error.message
    return error.message


@pytest.fixture
def node(tmp_path: Path) -> NodeDir:
    return open_state_dir(tmp_path / "state").node("alice")


# --- writing --------------------------------------------------------------------------------------
KILLED_WRITERS = """
import os, signal, sys, time
from pathlib import Path
from random import Random
from monai_node.mesh.state import parse_json, write_json

path, random = Path(sys.argv[1]), Random(1)
write_json(path, {"n": -1, "pad": ""})
for life in range(20):
    child = os.fork()
    if child == 0:
        n = 0
        while True:
            write_json(path, {"n": n, "life": life, "pad": "x" * (n % 7) * 5000})
            n += 1
    deadline = time.monotonic() + 20
    while parse_json(path).get("life") != life:
        assert time.monotonic() < deadline
    time.sleep(random.random() * 0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    found = parse_json(path)
    assert found == {"n": found["n"], "life": life, "pad": "x" * (found["n"] % 7) * 5000}, found
print("whole")
"""


def test_a_file_is_whole_whenever_its_writer_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    done = subprocess.run(
        [sys.executable, "-c", KILLED_WRITERS, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("whole\n", "")


def test_a_written_file_is_its_owners_alone_and_nothing_lies_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("old")
    path.chmod(0o644)
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_content_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "value"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


# --- reading --------------------------------------------------------------------------------------
def test_what_was_written_is_read_and_a_missing_file_is_none(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"key": ["ü", 1, None]})
    assert read_json(tmp_path / "a.json") == {"key": ["ü", 1, None]}
    assert read_json(tmp_path / "b.json") is None
    assert read_json(tmp_path / "a.json" / "below a file") is None


DAMAGED = [b"", b"{", b"\xff\xfe", b"[1]", b'"text"', b"null", b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}"]


@pytest.mark.parametrize("content", DAMAGED, ids=lambda content: repr(content[:12]))
def test_a_damaged_file_is_set_aside_and_never_overwritten(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "value.json"
    for number in (1, 2):
        path.write_bytes(content)
        assert read_json(path) is None
        assert not path.exists()
        assert (tmp_path / f"value.json.corrupt-{number}").read_bytes() == content


@pytest.mark.parametrize("content", DAMAGED, ids=lambda content: repr(content[:12]))
def test_parsing_alone_touches_nothing(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError):
        parse_json(path)
    assert path.read_bytes() == content


def test_a_file_of_absurd_size_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    assert read_json(path) is None
    assert (tmp_path / "value.json.corrupt-1").stat().st_size == 1 << 40


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "value.json").mkdir()
    with pytest.raises(SetupError, match="cannot be used") as refused:
        read_json(tmp_path / "value.json")
    one_sentence(refused.value)


# --- the directory --------------------------------------------------------------------------------
def test_a_state_directory_is_made_private_and_found_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "state"
    state = open_state_dir(path)
    assert state.path == path
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert json.loads((path / "schema.json").read_text()) == {"version": SCHEMA_VERSION}
    assert open_state_dir(path) == state
    assert stat.S_IMODE(state.node("a").path.stat().st_mode) == 0o700


def test_a_tilde_means_the_home_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert state_path(Path("~/mesh")) == tmp_path / "mesh"
    assert state_path(None).is_absolute()


@pytest.mark.parametrize("version", [SCHEMA_VERSION + 1, 10**9, "2", None])
def test_a_directory_of_a_newer_node_is_refused_and_left_as_it_is(tmp_path: Path, version: object) -> None:
    (tmp_path / "schema.json").write_text(json.dumps({"version": version}))
    with pytest.raises(SetupError, match="written by a newer monai-node") as refused:
        open_state_dir(tmp_path)
    one_sentence(refused.value)
    assert json.loads((tmp_path / "schema.json").read_text()) == {"version": version}


@pytest.mark.parametrize("where", ["below a file", "a file", "/proc/monai", "a name that is too long"])
def test_a_directory_that_cannot_be_written_is_one_sentence(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("")
    path = {
        "below a file": tmp_path / "file" / "state",
        "a file": tmp_path / "file",
        "/proc/monai": Path("/proc/monai"),
        "a name that is too long": tmp_path / ("x" * 300),
    }[where]
    with pytest.raises(SetupError, match="choose a writable directory with --state-dir") as refused:
        open_state_dir(path)
    assert str(path) in one_sentence(refused.value)


@pytest.mark.parametrize("name", ["lock", "node.json"])
def test_a_file_of_a_node_that_cannot_be_written_is_one_sentence(node: NodeDir, name: str) -> None:
    (node.path / name).mkdir()
    with pytest.raises(SetupError, match="cannot be used") as refused, node.lock():
        node.update(port=1)
    one_sentence(refused.value)


def test_a_node_folder_below_a_file_is_one_sentence(tmp_path: Path) -> None:
    state = open_state_dir(tmp_path)
    (tmp_path / "nodes").write_text("")
    with pytest.raises(SetupError, match="cannot be used"):
        state.node("alice")


# --- a node's own values --------------------------------------------------------------------------
def test_values_of_a_node_are_merged(node: NodeDir) -> None:
    assert node.read() == {}
    node.update(port=4001)
    node.update(next_seq=7)
    node.update(port=4002)
    assert node.read() == {"port": 4002, "next_seq": 7}


def test_blocks_of_sequence_numbers_never_overlap_and_outlast_years(node: NodeDir) -> None:
    starts = [node.take_seq_block() for _ in range(50)]
    gaps = [after - before for before, after in itertools.pairwise(starts)]
    beacons_per_year = 365 * 24 * 3600 * 20
    assert min(gaps) > 5 * beacons_per_year
    assert starts[0] >= 1
    assert starts[-1] + gaps[-1] < 2**63, "it still fits a beacon"


@pytest.mark.parametrize("known", [0, -5, 2**62, 1.5, "7", None, True])
def test_a_sequence_number_that_nobody_wrote_is_not_gone_on_from(node: NodeDir, known: object) -> None:
    node.update(next_seq=known)
    first = node.take_seq_block()
    assert first == 1
    assert node.take_seq_block() > first


# --- lock and secret ------------------------------------------------------------------------------
def test_one_process_at_a_time_runs_a_node(node: NodeDir) -> None:
    with node.lock():
        with (
            pytest.raises(SetupError, match="a node called 'alice' is already running") as refused,
            node.lock(),
        ):
            pass
        one_sentence(refused.value)
        with NodeDir(open_state_dir(node.path.parent.parent).node("bob").path).lock():
            pass
    with node.lock():
        pass


def test_a_lock_ends_with_its_process_however_that_ends(node: NodeDir) -> None:
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from pathlib import Path; from monai_node.mesh.state import NodeDir\n"
            "with NodeDir(Path(sys.argv[1])).lock(): print('held', flush=True); time.sleep(60)",
            str(node.path),
        ],
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(SetupError, match="already running"), node.lock():
            pass
        holder.kill()
        holder.wait()
    with node.lock():
        pass


def test_the_secret_is_made_once_and_kept(tmp_path: Path) -> None:
    state = open_state_dir(tmp_path)
    assert state.mesh_secret(lambda: "first") == "first"
    assert state.mesh_secret(lambda: "second") == "first"
    assert stat.S_IMODE(state.mesh_file.stat().st_mode) == 0o600


def test_nodes_that_start_at_once_agree_on_the_secret(tmp_path: Path) -> None:
    state = open_state_dir(tmp_path)
    start = threading.Barrier(8)
    found: list[str] = []

    def begin(number: int) -> None:
        start.wait()
        found.append(state.mesh_secret(lambda: f"secret {number}"))

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_a_damaged_secret_is_set_aside_before_a_new_one_is_made(tmp_path: Path) -> None:
    state = open_state_dir(tmp_path)
    state.mesh_file.write_text("{")
    assert state.mesh_secret(lambda: "new") == "new"
    assert (tmp_path / "mesh.json.corrupt-1").read_text() == "{"


# --- reset ----------------------------------------------------------------------------------------
def filled(path: Path) -> Path:
    state = open_state_dir(path)
    state.mesh_secret(lambda: "secret")
    write_json(state.gateway_file, {"url": "http://127.0.0.1:8642"})
    for name in ("gateway", "provider"):
        node = state.node(name)
        with node.lock():
            node.take_seq_block()
        node.identity_file.write_text("key")
        node.log_file.write_text("log")
    (path / "mesh.json.corrupt-1").write_text("{")
    (path / ".mesh.json.0123.partial").write_text("{")
    return path


def test_reset_leaves_nothing_of_ours(tmp_path: Path) -> None:
    path = filled(tmp_path / "state")
    assert reset_state_dir(path) == path
    assert not path.exists()
    assert reset_state_dir(path) == path


def test_reset_leaves_what_is_not_ours(tmp_path: Path) -> None:
    """Somebody once gave a folder with other things in it as --state-dir."""
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "one.txt").write_text("dear")
    (tmp_path / "notes.json").write_text("{}")
    filled(tmp_path)
    reset_state_dir(tmp_path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["letters", "notes.json"]
    assert (tmp_path / "letters" / "one.txt").read_text() == "dear"


def test_reset_does_not_follow_links_out_of_the_directory(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    path = open_state_dir(tmp_path / "state").path
    (path / "nodes").symlink_to(outside)
    reset_state_dir(path)
    assert (outside / "kept").read_text() == "kept"
    assert not path.exists()


def test_reset_refuses_a_directory_that_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "nodes").mkdir()
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(
        SetupError, match="not a state directory of monai-node; nothing was removed"
    ) as refused:
        reset_state_dir(tmp_path)
    one_sentence(refused.value)
    assert (tmp_path / "letter.txt").exists()
    assert (tmp_path / "nodes").exists()


def test_reset_refuses_while_a_node_runs_and_removes_nothing(tmp_path: Path) -> None:
    path = filled(tmp_path / "state")
    before = sorted(path.rglob("*"))
    with open_state_dir(path).node("provider").lock():
        with pytest.raises(SetupError, match="'provider' is already running") as refused:
            reset_state_dir(path)
        one_sentence(refused.value)
    assert sorted(path.rglob("*")) == before
    reset_state_dir(path)
    assert not path.exists()
