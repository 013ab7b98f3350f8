"""Which right a request needs, which key it shows, and whether that will do. Pure: time is passed in.

A key is shown as `Authorization: Bearer mk-…`. A web page cannot set headers of a socket: it offers the
subprotocols `monai.v1` and `monai-key.mk-…` instead, of which the first is chosen. Never in a URL, which
ends up in logs and histories.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from starlette.datastructures import Headers

from monai_node.mesh.gateway.errors import InvalidKey, NotAllowed
from monai_node.mesh.keys import KEY_PREFIX, AccessKey, Right, matching

SOCKET_PROTOCOL = "monai.v1"
_SOCKET_KEY_PREFIX = "monai-key."
_BEARER = re.compile(r"bearer +([^ ,]+)", re.IGNORECASE | re.ASCII)
_SECRET_CHARS_MAX = 256  # what is longer is no key of ours, and is not hashed
_WANTED = "send one as `Authorization: Bearer mk-…`; its owner makes it with `monai-node keys create`"

_NOBODYS: frozenset[tuple[str, str]] = frozenset({("GET", "/"), ("GET", "/health")})
_NOBODYS_BELOW = (("GET", "/page/"),)
_CHAT: frozenset[tuple[str, str]] = frozenset(
    {
        ("GET", "/asyncapi.json"),
        ("GET", "/openapi.json"),
        ("GET", "/ready"),
        ("GET", "/v1/events.schema.json"),
        ("GET", "/v1/models"),
        ("GET", "/v1/peers"),
        ("GET", "/v1/route"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/completions"),
        ("POST", "/v1/embeddings"),
        ("POST", "/v1/feedback"),
        ("POST", "/v1/plan"),
        ("POST", "/v1/responses"),
        ("POST", "/v1/runs"),
        ("WEBSOCKET", "/v1/ws"),
    }
)
_CHAT_BELOW = (
    ("GET", "/v1/models/"),
    *((method, "/v1/responses/") for method in ("DELETE", "GET", "POST")),  # the caller's own only
)


def right_needed(method: str, path: str) -> Right | Literal["none"]:
    """The right that this needs; "none" for what a page shows before it has a key. What nobody thought of,
    paths that do not exist among it, needs `admin`."""
    asked = ("GET" if method == "HEAD" else method, path)
    if asked in _NOBODYS or _is_below(asked, _NOBODYS_BELOW):
        return "none"
    if asked in _CHAT or _is_below(asked, _CHAT_BELOW):
        return "chat"
    return "admin"


def _is_below(asked: tuple[str, str], folders: Sequence[tuple[str, str]]) -> bool:
    return any(asked[0] == method and asked[1].startswith(folder) for method, folder in folders)


def shown_key(headers: Headers) -> str | None:
    """The key in these headers, whatever it is worth; None when there is none. Of two keys the layers
    around us might read different ones: InvalidKey."""
    shown = [_bearer(value) for value in headers.getlist("authorization")]
    shown += [name.removeprefix(_SOCKET_KEY_PREFIX) for name in offered(headers) if _is_key(name)]
    if len(shown) > 1:
        raise InvalidKey(f"more than one key was sent; {_WANTED}")
    return shown[0] if shown else None


def _bearer(value: str) -> str:
    """The token; what is not a bearer's is nobody's key."""
    found = _BEARER.fullmatch(value.strip(" \t"))
    return found[1] if found else ""


def offered(headers: Headers) -> list[str]:
    """The subprotocols that a socket's client offers."""
    names = ",".join(headers.getlist("sec-websocket-protocol")).split(",")
    return [name.strip(" \t") for name in names if name.strip(" \t")]


def _is_key(protocol: str) -> bool:
    return protocol.startswith(_SOCKET_KEY_PREFIX)


def without_keys(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """A request's headers as the layers behind may see and log them."""
    kept = [(name, value) for name, value in headers if name.lower() not in _KEY_HEADERS]
    protocols = [name for name in offered(Headers(raw=headers)) if not _is_key(name)]
    if protocols:
        kept.append((b"sec-websocket-protocol", ", ".join(protocols).encode("latin-1")))
    return kept


_KEY_HEADERS = (b"authorization", b"sec-websocket-protocol")


def key_for(
    keys: Sequence[AccessKey], shown: str | None, needed: Right, now: float, *, requires_key: bool
) -> AccessKey | None:
    """The key under which a request goes on; None when it needs none. InvalidKey, or NotAllowed for the
    lack of a right.

    Where no key is required, clients that know no gateway without one send a word of their own in its
    place: only what looks like a key of ours is taken for one, and then it must be good.
    """
    if not requires_key and not (shown or "").startswith(KEY_PREFIX):
        return None
    found = matching(keys, (shown or "")[:_SECRET_CHARS_MAX])
    if found is None:
        raise InvalidKey("this key is not known here" if shown else f"a key is needed here; {_WANTED}")
    if found.is_expired(now):
        raise InvalidKey("this key has expired")
    if needed not in found.rights:
        raise NotAllowed(f"this key lacks the right {needed!r}", code="missing_right")
    return found
