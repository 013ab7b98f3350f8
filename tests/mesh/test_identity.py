import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from monai_node.mesh.identity import Identity, load_or_create_identity
from monai_node.registry.errors import SetupError
from monai_node.registry.ids import PeerId, public_key_of


def test_a_new_key_is_private_and_the_same_node_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "state" / "node.key"
    first = load_or_create_identity(path)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_or_create_identity(path).peer_id == first.peer_id
    assert list(path.parent.iterdir()) == [path], "no draft is left beside the key"


def test_the_umask_does_not_loosen_the_key(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        load_or_create_identity(tmp_path / "node.key")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "node.key").stat().st_mode) == 0o600


def test_a_copied_key_that_others_could_read_is_made_private(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    peer_id = load_or_create_identity(path).peer_id
    path.chmod(0o644)
    assert load_or_create_identity(path).peer_id == peer_id
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"ed25519:",
        b"ed25519:" + b"zz" * 32,
        b"ed25519:" + b"00" * 31,
        b"\xff" * 73,
        b"0" * 9999,
    ],
)
def test_a_damaged_key_file_is_reported_and_never_overwritten(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "node.key"
    path.write_bytes(content)
    with pytest.raises(SetupError, match="is not a node key"):
        load_or_create_identity(path)
    assert path.read_bytes() == content


def test_a_key_file_that_is_a_folder_is_a_setup_error(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="cannot read the key file"):
        load_or_create_identity(tmp_path)


def test_a_folder_that_cannot_be_made_is_a_setup_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SetupError, match="the key file"):
        load_or_create_identity(tmp_path / "file" / "node.key")


def test_nodes_that_start_at_once_on_one_path_agree_on_one_identity(tmp_path: Path) -> None:
    count = 16
    start = threading.Barrier(count)

    def open_it() -> PeerId:
        start.wait(timeout=10)
        return load_or_create_identity(tmp_path / "node.key").peer_id

    with ThreadPoolExecutor(count) as pool:
        opened = [pool.submit(open_it) for _ in range(count)]
    assert len({each.result() for each in opened}) == 1


def test_the_signature_verifies_with_nothing_but_the_peer_id() -> None:
    identity = Identity.generate()
    key = Ed25519PublicKey.from_public_bytes(public_key_of(identity.peer_id))
    key.verify(identity.sign(b"hello"), b"hello")
    with pytest.raises(InvalidSignature):
        key.verify(identity.sign(b"hello"), b"other")


def test_the_secret_does_not_show_in_its_representation() -> None:
    identity = Identity.generate()
    assert identity.seed.hex() not in repr(identity)
    assert identity.peer_id in repr(identity)


def test_a_seed_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Identity(b"short")
