# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnusedImport=false
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

# First: importing libp2p makes a warning, which this package expects.
import monai_node.mesh.libp2p  # isort: skip  # noqa: F401
from libp2p.crypto.ed25519 import Ed25519PublicKey
from libp2p.peer.id import ID

from monai_node.mesh.identity import Identity
from monai_node.registry.ids import (
    PeerId,
    new_attempt_id,
    new_run_id,
    peer_id_of,
    public_key_of,
    short,
)

KNOWN = PeerId("12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN")


@pytest.mark.parametrize("seed", [bytes(32), bytes(range(32)), b"\xff" * 32])
def test_a_peer_id_is_the_one_libp2p_gives_the_same_key(seed: bytes) -> None:
    identity = Identity(seed)
    key = public_key_of(identity.peer_id)
    assert str(ID.from_pubkey(Ed25519PublicKey.from_bytes(key))) == identity.peer_id


@given(st.binary(min_size=32, max_size=32))
def test_the_key_can_be_read_back_out_of_a_peer_id(key: bytes) -> None:
    peer = peer_id_of(key)
    assert public_key_of(peer) == key
    assert peer.startswith("12D3KooW")


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_a_key_of_another_length_has_no_peer_id(size: int) -> None:
    with pytest.raises(ValueError, match=f"not {size}"):
        peer_id_of(bytes(size))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mesh",
        "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",  # SHA-256 of an RSA key
        KNOWN + "\n",
        KNOWN + " ",
        " " + KNOWN,
        "1" + KNOWN,
        KNOWN[:-1],
        KNOWN.replace("D", "0"),  # 0 is no letter of base58
        "1" * 65,
        "ü" * 52,
    ],
)
def test_whatever_is_not_one_ed25519_peer_id_in_its_one_spelling_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        public_key_of(PeerId(text))


@given(st.text(max_size=80))
def test_text_is_refused_or_is_the_spelling_of_its_key(text: str) -> None:
    try:
        key = public_key_of(PeerId(text))
    except ValueError:
        return
    assert peer_id_of(key) == text


def test_the_short_form_tells_peers_apart() -> None:
    assert short(KNOWN) == KNOWN[-8:]
    assert short(Identity.generate().peer_id) != short(Identity.generate().peer_id)


def test_run_and_attempt_ids_cannot_be_guessed() -> None:
    assert len({new_run_id() for _ in range(100)}) == 100
    assert len(new_run_id()) >= len("run-") + 32
    assert len({new_attempt_id() for _ in range(100)}) == 100
