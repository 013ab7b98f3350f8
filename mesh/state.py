"""What a node keeps on disk, and how: written in one step, private, set aside when damaged.

    <state dir>/
      schema.json            {"version": 1}
      mesh.json, mesh.lock   the mesh secret, shared by this user's nodes
      gateway.json           where this user's gateway listens, while it runs, and a key for its owner
      recipes.json, .lock    plans that this user accepted; they hold the user's words
      keys.json, .lock       hashes of the keys with which others may use this user's gateway
      nodes/<name>/          one folder per node: identity.key, node.json, peers.json, node.log, lock,
                             while it runs running.json;
                             a gateway's also store.sqlite (mesh.store), vectors.sqlite (mesh.vectors),
                             usage.json (what was used under each key today)
                             and, without torch, all-minilm-l6-v2-….gguf (mesh.minilm)

A file is replaced by writing a sibling and renaming it, so that a reader or a kill -9 finds the old or
the new content, never half of one. A file that cannot be parsed is renamed to `….corrupt-<n>` and
treated as absent, except a key, which is never replaced (mesh.identity).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

import platformdirs

from monai_node.registry.errors import SetupError

if TYPE_CHECKING:
    from pydantic import BaseModel

_M = TypeVar("_M", bound="BaseModel")

SCHEMA_VERSION = 1
_JSON_BYTES_MAX = 4 << 20
# Sequence numbers are taken from disk in blocks, so that a beacon costs no write: after a crash the
# next block begins above every number that was used. A block outlasts years of beacons.
_SEQ_BLOCK = 1 << 32
_SEQ_MAX = 1 << 62
# Whoever holds a lock writes one small file. A stopped process must not take a thread of ours with it.
_LOCK_SECONDS_MAX = 10.0
_LOCK_PAUSE_SECONDS = 0.01
# What is ours in a state directory, and all that `reset` removes from it.
_OURS = (
    *("schema.json*", "mesh.json*", "mesh.lock", "gateway.json*", "recipes.*", "keys.*"),
    *(".*.partial", "nodes"),
)


def state_path(path: Path | None) -> Path:
    """Where the state directory is: the one named, else this user's own."""
    if path is None:
        return Path(platformdirs.user_state_dir("monai-node", appauthor=False))
    return path.expanduser()


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` in one step, readable by its owner only. OSError as the system gives it."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """So that the renaming, too, outlives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _open_lock(path: Path) -> BinaryIO:
    """A file to lock, for its owner only: whoever may open it may also hold the lock."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")


@contextlib.contextmanager
def exclusive(path: Path) -> Generator[None]:
    """Hold the lock file `path`, waiting for whoever has it, but not for ever. OSError as the system
    gives it."""
    until = time.monotonic() + _LOCK_SECONDS_MAX
    with _open_lock(path) as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise TimeoutError(errno.ETIMEDOUT, "another process does not let go of it") from None
            time.sleep(_LOCK_PAUSE_SECONDS)
        yield


def write_json(path: Path, value: object) -> None:
    write_atomically(path, json.dumps(value, indent=1, sort_keys=True).encode() + b"\n")


def parse_json(path: Path) -> dict[str, Any]:
    """The object in `path`; ValueError when it holds something else, OSError as the system gives it."""
    if path.stat().st_size > _JSON_BYTES_MAX:
        raise ValueError(f"{path} is larger than {_JSON_BYTES_MAX} bytes")
    try:
        value: object = json.loads(path.read_bytes())
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds no JSON object")
    return cast("dict[str, Any]", value)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a file of ours; None when there is none or it was damaged and has been set aside.

    SetupError when it is there and cannot be read.
    """
    try:
        return parse_json(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:
        set_aside(path)
        return None
    except OSError as error:
        raise _unusable(path, error) from None


def read_model(path: Path, kind: type[_M]) -> _M | None:
    """The same as a `kind`: what does not fit one was damaged too."""
    from pydantic import ValidationError  # commands that read no more than JSON start without it

    content = read_json(path)
    if content is None:
        return None
    try:
        return kind.model_validate(content)
    except ValidationError:
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

    @property
    def recipes_file(self) -> Path:
        return self.path / "recipes.json"

    @property
    def keys_file(self) -> Path:
        return self.path / "keys.json"

    def node(self, name: str) -> NodeDir:
        """The folder of the node called `name`, made when missing."""
        folder = self.path / "nodes" / name
        with explained(folder):
            folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)
        return NodeDir(folder)

    def mesh_secret(self, make: Callable[[], str]) -> str:
        """The mesh secret kept here; what `make` gives when there is none. Nodes that are started at
        once agree on it."""
        with explained(self.path), exclusive(self.path / "mesh.lock"):
            kept: object = (read_json(self.mesh_file) or {}).get("secret")
            if isinstance(kept, str):
                return kept
            secret = make()
            write_json(self.mesh_file, {"secret": secret})
            return secret


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
    def store_file(self) -> Path:
        return self.path / "store.sqlite"

    @property
    def vectors_file(self) -> Path:
        return self.path / "vectors.sqlite"

    @property
    def usage_file(self) -> Path:
        return self.path / "usage.json"

    @property
    def log_file(self) -> Path:
        return self.path / "node.log"

    def read(self) -> dict[str, Any]:
        return read_json(self.path / "node.json") or {}

    def update(self, **values: object) -> None:
        """Merge values into node.json."""
        with explained(self.path):
            write_json(self.path / "node.json", {**self.read(), **values})

    def take_seq_block(self) -> int:
        """The first of 2**32 beacon sequence numbers that were never used before."""
        known: object = self.read().get("next_seq", 1)
        start = known if isinstance(known, int) and 0 < known < _SEQ_MAX else 1
        self.update(next_seq=start + _SEQ_BLOCK)
        return start

    @contextlib.contextmanager
    def lock(self) -> Generator[None]:
        """Hold this folder for one process; SetupError when another one has it."""
        with contextlib.ExitStack() as held:
            with explained(self.path):
                file = held.enter_context(_open_lock(self.path / "lock"))
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
    folder = state_path(path)
    schema = folder / "schema.json"
    with explained(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = read_json(schema)
        if found is None:
            write_json(schema, {"version": SCHEMA_VERSION})
            return StateDir(folder)
    version: object = found.get("version")
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise SetupError(
            f"{folder} was written by a newer monai-node (schema {version}, this one knows "
            f"{SCHEMA_VERSION}); upgrade, or give another --state-dir"
        )
    return StateDir(folder)


def reset_state_dir(path: Path | None) -> Path:
    """Remove what is ours in a state directory that no running node holds, and the directory when
    nothing else is in it. SetupError when it is not ours or in use."""
    folder = state_path(path)
    if not folder.exists():
        return folder
    if not (folder / "schema.json").is_file():
        raise SetupError(f"{folder} is not a state directory of monai-node; nothing was removed")
    with explained(folder), contextlib.ExitStack() as held:
        for node in sorted((folder / "nodes").glob("*/")):
            held.enter_context(NodeDir(node).lock())
        for entry in [found for pattern in _OURS for found in folder.glob(pattern)]:
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        if not any(folder.iterdir()) and not folder.is_symlink():
            folder.rmdir()
    return folder


@contextlib.contextmanager
def explained(path: Path) -> Generator[None]:
    """Turn what the system says of `path` into a sentence for the person who can mend it."""
    try:
        yield
    except OSError as error:
        raise _unusable(path, error) from None


def _unusable(path: Path, error: OSError) -> SetupError:
    reason = error.strerror or type(error).__name__
    return SetupError(f"{path} cannot be used ({reason}); choose a writable directory with --state-dir")
