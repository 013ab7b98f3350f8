"""The node's one secret: an Ed25519 key on disk, and the peer id that follows from it.

The file holds the 32-byte seed as one line of text, `ed25519:<64 hexadecimal digits>`, so that it
can be recognised, copied and backed up by hand. It is readable by its owner alone.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from monai_node.mesh.state import sync_folder
from monai_node.registry.errors import SetupError
from monai_node.registry.ids import PeerId, peer_id_of

_PREFIX = "ed25519:"
_SEED_BYTES = 32
_FILE_BYTES_MAX = 256  # a key file has 73 bytes; anything longer is some other file


class Identity:
    """An Ed25519 key that signs for one peer id. The seed never leaves through `repr` or a log."""

    def __init__(self, seed: bytes) -> None:
        if len(seed) != _SEED_BYTES:
            raise ValueError(f"an Ed25519 seed has {_SEED_BYTES} bytes, not {len(seed)}")
        self._seed = bytes(seed)
        self._key = Ed25519PrivateKey.from_private_bytes(self._seed)
        self._peer_id = peer_id_of(self._key.public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> Identity:
        """A new identity that is on no disk yet."""
        return cls(secrets.token_bytes(_SEED_BYTES))

    @property
    def peer_id(self) -> PeerId:
        return self._peer_id

    @property
    def seed(self) -> bytes:
        """The private key itself; for the transport that proves this identity to others."""
        return self._seed

    def sign(self, message: bytes) -> bytes:
        """The 64-byte Ed25519 signature that `registry.advert` verifies with the peer id alone."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        return f"Identity({self._peer_id})"


def load_or_create_identity(path: Path) -> Identity:
    """The identity in `path`, which is made (mode 0600, in one step) when it does not exist.

    Two nodes that start at once on one path end with the same identity. SetupError when the file
    cannot be read or is not a key: it is never overwritten, because other nodes trust its peer id.
    """
    try:
        return _load(path)
    except FileNotFoundError:
        pass
    try:
        _create(path, Identity.generate())
        return _load(path)
    except OSError as error:
        raise SetupError(f"cannot write the key file {path}: {_reason(error)}") from None


def _load(path: Path) -> Identity:
    try:
        with path.open("rb") as file:
            _keep_private(file.fileno())
            text = file.read(_FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise SetupError(f"cannot read the key file {path}: {_reason(error)}") from None
    try:
        return Identity(_parse(text))
    except ValueError:
        raise SetupError(
            f"{path} is not a node key. Restore it from a backup to keep this node's peer id, "
            "or move it away to start as a new node"
        ) from None


def _parse(text: bytes) -> bytes:
    prefix, digits = text[: len(_PREFIX)], text[len(_PREFIX) :].strip()
    if prefix != _PREFIX.encode() or len(digits) != 2 * _SEED_BYTES:
        raise ValueError("not a key file")
    return bytes.fromhex(digits.decode("ascii"))


def _keep_private(descriptor: int) -> None:
    """Take away what others may do with a key file that was copied with a loose mode."""
    mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
    if mode & 0o077:
        os.fchmod(descriptor, 0o600)


def _create(path: Path, identity: Identity) -> None:
    """Write a complete file beside `path` and link it into place: never half a key or over one."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(f"{_PREFIX}{identity.seed.hex()}\n".encode())
            file.flush()
            os.fsync(file.fileno())
        _publish(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path.parent)


def _publish(draft: Path, path: Path) -> None:
    try:
        os.link(draft, path)
    except FileExistsError:
        pass  # another node of this folder was first: its key counts
    except OSError as error:
        # Some file systems (FAT, a few network ones) have no hard links.
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
            raise
        if not path.exists():
            draft.replace(path)


def _reason(error: OSError) -> str:
    return error.strerror or type(error).__name__
