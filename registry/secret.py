"""The mesh secret: who belongs to a mesh, and the line that invites a node into it.

A private mesh is whoever knows 128 random bits. The secret itself never crosses the wire: both sides
of a hello prove that they know it with an HMAC over fresh nonces and both peer ids (which Noise has
authenticated), so a proof is worth nothing on any other connection. An open mesh has no secret.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from typing import Literal

from monai_node.registry.errors import SetupError
from monai_node.registry.ids import PeerId, public_key_of

_SECRET_BYTES = 16
_NONCE_BYTES = 16
OPEN_MESH = "open"
_SHOWN_CHARS_MAX = 120
_ADDR = re.compile(r"/(?:ip4|ip6|dns|dns4|dns6)/[^/\s]{1,253}/tcp/\d{1,5}/p2p/[^/\s]+")

Side = Literal["opener", "accepter"]


@dataclass(frozen=True, slots=True)
class Mesh:
    """Membership of one mesh. `secret` is None for an open mesh. repr never shows the secret."""

    secret: bytes | None

    def __repr__(self) -> str:
        return f"Mesh({self.id})"

    @property
    def id(self) -> str:
        """A public name: equal for members, tells nothing of the secret."""
        if self.secret is None:
            return OPEN_MESH
        return hashlib.sha256(b"monai/mesh-id/1\0" + self.secret).hexdigest()[:16]

    @property
    def is_open(self) -> bool:
        return self.secret is None

    @property
    def text(self) -> str:
        """The secret as it is written in a join line and in the state file."""
        if self.secret is None:
            return OPEN_MESH
        return base64.b32encode(self.secret).decode("ascii").rstrip("=").lower()

    def prove(self, side: Side, opener: PeerId, accepter: PeerId, nonces: tuple[bytes, bytes]) -> bytes:
        """What `side` sends to show that it knows the secret. `nonces` are opener's and accepter's."""
        key = b"monai/mesh-key/1\0" + (self.secret or b"")
        words = [side.encode(), opener.encode(), accepter.encode(), *nonces]
        message = b"".join(len(word).to_bytes(2, "big") + word for word in words)
        return hmac.new(key, message, hashlib.sha256).digest()

    def is_proof(
        self,
        proof: bytes,
        side: Side,
        opener: PeerId,
        accepter: PeerId,
        nonces: tuple[bytes, bytes],
    ) -> bool:
        return hmac.compare_digest(proof, self.prove(side, opener, accepter, nonces))


def new_mesh() -> Mesh:
    return Mesh(secrets.token_bytes(_SECRET_BYTES))


def new_nonce() -> bytes:
    return secrets.token_bytes(_NONCE_BYTES)


def mesh_from_text(text: str) -> Mesh:
    """The mesh of a written secret; SetupError when it cannot be one."""
    if text == OPEN_MESH:
        return Mesh(None)
    try:
        raw = base64.b32decode(text.upper() + "=" * (-len(text) % 8))
    except ValueError:
        raw = b""
    if len(raw) != _SECRET_BYTES:
        raise SetupError("the mesh secret is damaged; copy the whole join line again")
    return Mesh(raw)


@dataclass(frozen=True, slots=True)
class JoinLine:
    """`<multiaddr with /p2p/…>#<secret>`: everything a node needs to enter a mesh."""

    addr: str
    mesh: Mesh

    def __str__(self) -> str:
        return f"{self.addr}#{self.mesh.text}"

    @property
    def peer(self) -> PeerId:
        return PeerId(self.addr.rpartition("/p2p/")[2])


def parse_join_line(line: str) -> JoinLine:
    """The parts of a join line; SetupError with one sentence when it is not one."""
    addr, hash_sign, secret = line.strip().strip("'\"").partition("#")
    if not _is_addr(addr):
        raise SetupError(
            f"{addr[:_SHOWN_CHARS_MAX]!r} is not a join line; it looks like "
            "/ip4/…/tcp/…/p2p/12D3…#secret, and every node prints its own"
        )
    if not hash_sign:
        raise SetupError("the join line lacks the mesh secret after '#'; copy the whole line")
    return JoinLine(addr, mesh_from_text(secret))


def _is_addr(addr: str) -> bool:
    try:
        public_key_of(PeerId(addr.rpartition("/p2p/")[2]))
    except ValueError:
        return False
    return _ADDR.fullmatch(addr) is not None
