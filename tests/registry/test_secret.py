from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_node.mesh.identity import Identity
from monai_node.registry.errors import SetupError
from monai_node.registry.ids import PeerId
from monai_node.registry.secret import (
    OPEN_MESH,
    JoinLine,
    Mesh,
    mesh_from_text,
    new_mesh,
    new_nonce,
    parse_join_line,
)

ALICE, BOB = Identity(bytes(32)).peer_id, Identity(b"\x01" * 32).peer_id
MESH = Mesh(bytes(range(16)))
ADDR = f"/ip4/192.0.2.1/tcp/4001/p2p/{ALICE}"
NONCES = (b"a" * 16, b"b" * 16)


# --- proofs ---------------------------------------------------------------------------------------
def test_a_member_accepts_the_proof_of_a_member() -> None:
    proof = MESH.prove("opener", ALICE, BOB, NONCES)
    assert Mesh(bytes(range(16))).is_proof(proof, "opener", ALICE, BOB, NONCES)


@pytest.mark.parametrize(
    ("side", "opener", "accepter", "nonces"),
    [
        ("accepter", ALICE, BOB, NONCES),
        ("opener", BOB, ALICE, NONCES),
        ("opener", ALICE, ALICE, NONCES),
        ("opener", PeerId(""), BOB, NONCES),
        ("opener", ALICE, BOB, (NONCES[1], NONCES[0])),
        ("opener", ALICE, BOB, (NONCES[0], b"c" * 16)),
        ("opener", ALICE, BOB, (b"c" * 16, NONCES[1])),
        ("opener", ALICE, BOB, (b"a" * 17, b"b" * 15)),
    ],
)
def test_a_proof_holds_for_one_side_of_one_conversation_only(
    side: str, opener: PeerId, accepter: PeerId, nonces: tuple[bytes, bytes]
) -> None:
    proof = MESH.prove("opener", ALICE, BOB, NONCES)
    assert not MESH.is_proof(proof, side, opener, accepter, nonces)  # pyright: ignore[reportArgumentType]


def test_moving_a_boundary_between_the_parts_changes_the_proof() -> None:
    """`ab`+`c` and `a`+`bc` are the same bytes when joined without their lengths."""
    cuts = [
        MESH.prove("opener", PeerId("ab"), PeerId("c"), NONCES),
        MESH.prove("opener", PeerId("a"), PeerId("bc"), NONCES),
        MESH.prove("opener", PeerId("ab"), PeerId("c"), (b"a" * 17, b"b" * 15)),
    ]
    assert len(set(cuts)) == 3


def test_another_secret_proves_nothing_and_no_secret_is_a_mesh_of_its_own() -> None:
    meshes = [MESH, new_mesh(), Mesh(None)]
    for mine, theirs in itertools.permutations(meshes, 2):
        assert not mine.is_proof(theirs.prove("opener", ALICE, BOB, NONCES), "opener", ALICE, BOB, NONCES)
        assert mine.id != theirs.id


def test_a_damaged_proof_is_refused() -> None:
    proof = MESH.prove("opener", ALICE, BOB, NONCES)
    for bit in range(256):
        damaged = bytearray(proof)
        damaged[bit // 8] ^= 1 << bit % 8
        assert not MESH.is_proof(bytes(damaged), "opener", ALICE, BOB, NONCES)


def test_nonces_and_meshes_are_new_each_time() -> None:
    assert len({new_nonce() for _ in range(100)}) == 100
    assert len({new_mesh().id for _ in range(100)}) == 100


def test_nothing_public_shows_the_secret() -> None:
    mesh = new_mesh()
    line = JoinLine(ADDR, mesh)
    for shown in (mesh.id, repr(mesh), repr(line), f"{mesh}"):
        assert mesh.text not in shown
        assert mesh.secret is not None
        assert mesh.secret.hex() not in shown
    assert Mesh(None).is_open
    assert not mesh.is_open


# --- text -----------------------------------------------------------------------------------------
@given(st.binary(min_size=16, max_size=16))
def test_a_secret_comes_back_from_its_text_in_either_case(secret: bytes) -> None:
    text = Mesh(secret).text
    assert mesh_from_text(text) == mesh_from_text(text.upper()) == Mesh(secret)
    assert text.isalnum()


def test_the_open_mesh_is_written_as_a_word() -> None:
    assert Mesh(None).text == OPEN_MESH
    assert mesh_from_text(OPEN_MESH) == Mesh(None)


@pytest.mark.parametrize(
    "text",
    ["", "Open", "a", MESH.text[:-2], MESH.text + "aa", MESH.text[:-1] + "!", "ü" * 26, "ß" * 13, " " * 26],
)
def test_a_damaged_secret_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(SetupError, match="the mesh secret is damaged") as refused:
        mesh_from_text(text)
    assert "\n" not in refused.value.message


# --- join lines -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "addr",
    [
        ADDR,
        f"/ip6/2001:db8::1/tcp/1/p2p/{ALICE}",
        f"/dns/mesh.example.org/tcp/65535/p2p/{ALICE}",
        f"/dns4/mesh.example.org/tcp/65535/p2p/{ALICE}",
    ],
)
@pytest.mark.parametrize("mesh", [MESH, Mesh(None)], ids=["private", "open"])
def test_a_join_line_comes_back_from_its_text(addr: str, mesh: Mesh) -> None:
    line = JoinLine(addr, mesh)
    assert parse_join_line(str(line)) == line
    assert parse_join_line(f"  '{line}'\n") == line
    assert line.peer == ALICE


@pytest.mark.parametrize(
    "text",
    [
        "",
        "#",
        f"#{MESH.text}",
        MESH.text,
        f"{ALICE}#{MESH.text}",
        f"/ip4/192.0.2.1/tcp/4001#{MESH.text}",
        f"/ip4/192.0.2.1/tcp/4001/p2p/{ALICE[:-1]}#{MESH.text}",
        f"/ip4/192.0.2.1/tcp/4001/p2p/#{MESH.text}",
        f"/p2p/{ALICE}#{MESH.text}",
        f"/ip4/192.0.2.1/udp/4001/p2p/{ALICE}#{MESH.text}",
        f"/ip4/192.0.2.1/tcp/port/p2p/{ALICE}#{MESH.text}",
        f"/ip4/192.0.\n2.1/tcp/4001/p2p/{ALICE}#{MESH.text}",
        f"http://192.0.2.1:4001/p2p/{ALICE}#{MESH.text}",
        "\x1b[2J" + "x" * 10_000,
    ],
    ids=repr,
)
def test_what_is_no_join_line_is_refused_in_one_short_sentence_that_says_how_one_looks(text: str) -> None:
    with pytest.raises(SetupError, match="it looks like /ip4/") as refused:
        parse_join_line(text)
    assert refused.value.message.isprintable()
    assert len(refused.value.message) < 300


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (ADDR, "lacks the mesh secret"),
        (f"{ADDR}#", "secret is damaged"),
        (f"{ADDR}#{MESH.text[:-3]}", "secret is damaged"),
        (f"{ADDR}#{MESH.text}#{MESH.text}", "secret is damaged"),
        (f"{ADDR}#{MESH.text} and more", "secret is damaged"),
    ],
)
def test_a_join_line_whose_secret_is_damaged_is_refused_without_showing_it(line: str, sentence: str) -> None:
    with pytest.raises(SetupError, match=sentence) as refused:
        parse_join_line(line)
    assert MESH.text[:8] not in refused.value.message


@given(st.text(max_size=200))
def test_no_text_raises_anything_but_a_setup_error(text: str) -> None:
    for line in (text, f"{ADDR}#{text}", f"{text}{ADDR}#{MESH.text}"):
        try:
            parse_join_line(line)
        except SetupError:
            continue
