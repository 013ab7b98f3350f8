"""Identifiers: distinct types for distinct things, and the arithmetic of peer ids.

A node's identity is one Ed25519 key. Its peer id is libp2p's: the identity multihash of the
protobuf-encoded public key (libp2p/specs, peer-ids), so the key can be read back out of the id and a
signature needs nothing but the id to be verified.
"""

from __future__ import annotations

import secrets
from typing import NewType

import base58

PeerId = NewType("PeerId", str)
RunId = NewType("RunId", str)
TaskId = NewType("TaskId", str)
AttemptId = NewType("AttemptId", str)
SkillId = NewType("SkillId", str)
ModelAlias = NewType("ModelAlias", str)

# Identity multihash (0x00), 36 bytes long (0x24), of a protobuf {1: key type Ed25519, 2: 32 bytes}.
_ED25519_PREFIX = bytes.fromhex("002408011220")
_PUBLIC_KEY_BYTES = 32
_PEER_ID_CHARS_MAX = 64


def peer_id_of(public_key: bytes) -> PeerId:
    """The peer id of a raw 32-byte Ed25519 public key."""
    if len(public_key) != _PUBLIC_KEY_BYTES:
        raise ValueError(f"an Ed25519 public key has 32 bytes, not {len(public_key)}")
    return PeerId(base58.b58encode(_ED25519_PREFIX + public_key).decode("ascii"))


def public_key_of(peer: PeerId) -> bytes:
    """The raw 32-byte Ed25519 public key inside a peer id; ValueError for any other kind of id."""
    if len(peer) > _PEER_ID_CHARS_MAX:
        raise ValueError("peer id too long")
    raw = base58.b58decode(peer)
    if len(raw) != len(_ED25519_PREFIX) + _PUBLIC_KEY_BYTES or not raw.startswith(_ED25519_PREFIX):
        raise ValueError("not an Ed25519 peer id")
    key = raw[len(_ED25519_PREFIX) :]
    if peer_id_of(key) != peer:  # base58 drops trailing white space: one peer, one spelling
        raise ValueError("not a peer id as peers write it")
    return key


def short(peer: PeerId) -> str:
    """The last eight characters, for people: the first ones are equal for every Ed25519 peer."""
    return peer[-8:]


def new_run_id() -> RunId:
    """Unguessable, so that knowing a run id may serve as the right to read that run."""
    return RunId(f"run-{secrets.token_hex(16)}")


def new_attempt_id() -> AttemptId:
    """One dispatch of one task to one peer; results of any other attempt are ignored."""
    return AttemptId(secrets.token_hex(8))
