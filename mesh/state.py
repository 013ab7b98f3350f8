"""What a node keeps on disk, and how: written in one step, private, set aside when damaged.

    <state dir>/
      schema.json            {"version": 1}
      mesh.json              the mesh secret, shared by this user's nodes
      gateway.json           where this user's gateway listens, while it runs
      nodes/<name>/          one folder per node: identity.key, node.json, peers.json, node.log, lock

A file is replaced by writing a sibling and renaming it, so that a reader or a kill -9 finds the old or
the new content, never half of one. A file that cannot be parsed is renamed to `….corrupt-<n>` and
treated as absent, except a key, which is never replaced (mesh.identity).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import platformdirs

from monai_node.registry.errors import SetupError

SCHEMA_VERSION = 1
_JSON_BYTES_MAX = 4 << 20
# Sequence numbers are taken from disk in blocks, so that a beacon costs no write: after a crash the
# next block begins above every number that was used.
_SEQ_BLOCK = 1 << 20


def default_state_dir() -> Path:
    return Path(platformdirs.user_state_dir("monai-node", appauthor=False))


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` in one step, readable by its owner only. OSError as the system gives it."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            partial.unlink()


def write_json(path: Path, value: object) -> None:
    write_atomically(path, json.dumps(value, indent=1, sort_keys=True).encode() + b"\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in `path`; None when there is none or it was damaged and has been set aside."""
    try:
        if path.stat().st_size > _JSON_BYTES_MAX:
            raise ValueError("too large")
        value: object = json.loads(path.read_bytes())
        if not isinstance(value, dict):
            raise TypeError("not an object")
        return cast("dict[str, Any]", value)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, RecursionError):
        set_aside(path)
        return None


def set_aside(path: Path) -> Path:
    """Rename a damaged file so that nothing of it is lost; says where it is."""
    for number in range(1, 1000):
        kept = path.with_name(f"{path.name}.corrupt-{number}")
        if not kept.exists():
            path.replace(kept)
            return kept
    raise SetupError(f"{path} is damaged and a thousand damaged copies lie beside it; remove them")


@dataclass(frozen=True, slots=True)
class StateDir:
    """One user's state. `open_state_dir` makes one."""

    path: Path

    @property
    def mesh_file(self) -> Path:
        return self.path / "mesh.json"

    @property
    def gateway_file(self) -> Path:
        return self.path / "gateway.json"

    def node(self, name: str) -> NodeDir:
        """The folder of the node called `name`, made when missing."""
        folder = self.path / "nodes" / name
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(folder, error) from None
        return NodeDir(folder)


@dataclass(frozen=True, slots=True)
class NodeDir:
    path: Path

    @property
    def identity_file(self) -> Path:
        return self.path / "identity.key"

    @property
    def peers_file(self) -> Path:
        return self.path / "peers.json"

    @property
    def log_file(self) -> Path:
        return self.path / "node.log"

    def read(self) -> dict[str, Any]:
        return read_json(self.path / "node.json") or {}

    def update(self, **values: object) -> None:
        """Merge values into node.json."""
        write_json(self.path / "node.json", {**self.read(), **values})

    def take_seq_block(self) -> int:
        """The first of a million beacon sequence numbers that were never used before."""
        known: object = self.read().get("next_seq", 1)
        start = known if isinstance(known, int) and 0 < known < 2**62 else 1
        self.update(next_seq=start + _SEQ_BLOCK)
        return start

    @contextlib.contextmanager
    def lock(self) -> Generator[None]:
        """Hold this folder for one process; SetupError when another one has it."""
        with (self.path / "lock").open("a+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise SetupError(
                    f"a node called {self.path.name!r} is already running on this state directory; "
                    "stop it, or give this one another --node-name or --state-dir"
                ) from None
            yield


def open_state_dir(path: Path | None) -> StateDir:
    """The state directory, made when missing; SetupError when it cannot be used, in one sentence."""
    folder = (path or default_state_dir()).expanduser()
    schema = folder / "schema.json"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = read_json(schema)
        if found is None:
            write_json(schema, {"version": SCHEMA_VERSION})
            return StateDir(folder)
    except OSError as error:
        raise _unwritable(folder, error) from None
    version: object = found.get("version")
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise SetupError(
            f"{folder} was written by a newer monai-node (schema {version}, this one knows "
            f"{SCHEMA_VERSION}); upgrade, or give another --state-dir"
        )
    return StateDir(folder)


def reset_state_dir(path: Path | None) -> Path:
    """Remove a state directory that is ours and that no running node holds. SetupError otherwise."""
    folder = (path or default_state_dir()).expanduser()
    if not folder.exists():
        return folder
    if not (folder / "schema.json").is_file():
        raise SetupError(f"{folder} is not a state directory of monai-node; nothing was removed")
    try:
        with contextlib.ExitStack() as held:
            for node in sorted((folder / "nodes").glob("*")):
                held.enter_context(NodeDir(node).lock())
            shutil.rmtree(folder)
    except OSError as error:
        raise _unwritable(folder, error) from None
    return folder


def _unwritable(path: Path, error: OSError) -> SetupError:
    return SetupError(
        f"the state directory {path} cannot be used ({error.strerror}); "
        "choose a writable one with --state-dir"
    )
