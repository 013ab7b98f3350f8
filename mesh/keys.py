"""The keys with which others may use a gateway: one file of this user, which any gateway and the command
line read and change.

A key is `mk-` and 256 random bits; the file keeps its SHA-256 and nothing else of it. Salt and a slow hash
protect passwords, which can be guessed: of 2^256 keys none can, and a slow hash would only give strangers a
way to keep a gateway busy.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import secrets
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from monai_node.mesh.state import exclusive, explained, read_model, write_json
from monai_node.registry.errors import SetupError

# What a key opens. `chat`: to have work done and to see by whom. `admin`: what concerns all who use the
# gateway.
Right = Literal["chat", "admin"]

KEYS_MAX = 256  # every request is compared with each of them
NAME_CHARS_MAX = 64
LIMIT_MAX = 10**12
KEY_PREFIX = "mk-"
_KEY_BYTES = 32
_ID_BYTES = 4

_Limit = Annotated[int, Field(ge=1, le=LIMIT_MAX)]


class AccessKey(BaseModel):
    """What is known of one key: all but the key. Times are Unix seconds; no limit, no `expires`: None."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^key-[0-9a-f]{8}$")
    name: str = Field(default="", max_length=NAME_CHARS_MAX)
    digest: str = Field(pattern=r"^[0-9a-f]{64}$", repr=False)
    rights: tuple[Right, ...] = Field(default=("chat",), min_length=1)
    requests_per_minute: _Limit | None = None
    tokens_per_day: _Limit | None = None
    created: int = 0
    expires: int | None = None

    def is_expired(self, now: float) -> bool:
        return self.expires is not None and now >= self.expires


class _Kept(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: tuple[AccessKey, ...] = Field(max_length=KEYS_MAX)


def digest_of(secret: str) -> str:
    """The hash by which a key is known."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def new_key(now: float, **wanted: object) -> tuple[AccessKey, str]:
    """What is known of a new key with these fields, and the key itself, which is kept nowhere."""
    secret = KEY_PREFIX + secrets.token_urlsafe(_KEY_BYTES)
    made = {"id": f"key-{secrets.token_hex(_ID_BYTES)}", "digest": digest_of(secret), "created": int(now)}
    return AccessKey.model_validate({**wanted, **made}), secret


def matching(keys: Sequence[AccessKey], secret: str) -> AccessKey | None:
    """The key that `secret` is. Every key is compared, and each to its end, so that the time that it takes
    says nothing of which came near."""
    shown = digest_of(secret)
    found: AccessKey | None = None
    for key in keys:
        if hmac.compare_digest(key.digest, shown):
            found = key
    return found


class KeyFile:
    """The keys in one file. Every method looks at the disk, may be called from any thread, and raises
    SetupError when the file cannot be used; a damaged one is set aside and holds no key any more."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def keys(self) -> tuple[AccessKey, ...]:
        """All of them, the expired ones too, the oldest first."""
        with explained(self._path):
            kept = read_model(self._path, _Kept)
            return kept.keys if kept is not None else ()

    def add(self, key: AccessKey) -> None:
        with self._changing() as keys:
            if len(keys) >= KEYS_MAX:
                raise SetupError(f"there are {KEYS_MAX} keys; revoke one with `monai-node keys revoke ID`")
            keys.append(key)

    def revoke(self, name: str) -> AccessKey:
        """Remove the key whose id is `name`; SetupError when there is none."""
        with self._changing() as keys:
            found = next((key for key in keys if key.id == name), None)
            if found is None:
                raise SetupError(f"there is no key {name!r}; `monai-node keys list` shows them")
            keys.remove(found)
        return found

    @contextlib.contextmanager
    def _changing(self) -> Generator[list[AccessKey]]:
        """The keys to be changed, which are written unless an error is raised."""
        with explained(self._path), exclusive(self._path.with_suffix(".lock")):
            keys = list(self.keys())
            yield keys
            write_json(self._path, {"keys": [key.model_dump(mode="json") for key in keys]})
