"""Which right a request needs, and what key its headers show."""

from __future__ import annotations

import itertools

import pytest
from starlette.datastructures import Headers

from monai_node.mesh.gateway.access.rules import key_for, offered, right_needed, shown_key, without_keys
from monai_node.mesh.gateway.app import create_app
from monai_node.mesh.gateway.errors import InvalidKey, NotAllowed
from monai_node.mesh.gateway.testing import ScriptedBackend
from monai_node.mesh.keys import Right, new_key

CHAT, SECRET = new_key(0.0, expires=100)
ADMIN, ADMIN_SECRET = new_key(0.0, rights=("admin",))
KEYS = (CHAT, ADMIN)
# Every route that a `chat` key does not open; a new one must be put here or into the rules.
ADMINS = {("GET", "/metrics"), ("GET", "/v1/decisions")}


def headers(*pairs: tuple[str, str]) -> Headers:
    return Headers(raw=[(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in pairs])


def test_every_route_was_thought_of() -> None:
    paths = create_app(ScriptedBackend()).openapi()["paths"]
    asked = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    assert len(asked) > 8
    assert {pair for pair in asked if right_needed(*pair) == "admin"} <= ADMINS
    assert right_needed("WEBSOCKET", "/v1/ws") == "chat"


@pytest.mark.parametrize(
    "path",
    [
        *("/v1/chat/completions/", "//v1/models", "/V1/models", "/v1/models/../decisions/", "/v1", ""),
        *("/metrics", "/admin", "/health/", "/page", "/pages/x", "/v1/ws", "/v1/chat/completions"),
    ],
)
def test_what_nobody_thought_of_needs_admin(path: str) -> None:
    assert right_needed("GET", path) in ("admin", "chat" if path.startswith("/v1/models/") else "admin")
    assert right_needed("OPTIONS", path) == "admin"


def test_a_page_loads_without_a_key() -> None:
    needs = [right_needed("GET", path) for path in ("/", "/health", "/page/inline.js", "/ready")]
    assert needs == ["none", "none", "none", "chat"]
    assert right_needed("HEAD", "/page/inline.js") == "none"
    assert right_needed("POST", "/page/inline.js") == "admin"


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER   ", " Bearer "])
def test_the_scheme_has_any_case_and_the_key_its_own(scheme: str) -> None:
    assert shown_key(headers(("Authorization", scheme + SECRET))) == SECRET
    shown = shown_key(headers(("authorization", scheme + SECRET.upper())))
    with pytest.raises(InvalidKey):
        key_for(KEYS, shown, "chat", 0.0, requires_key=True)


@pytest.mark.parametrize(
    "value",
    [
        *("", "Bearer", "Bearer ", f"Basic {SECRET}", SECRET, f"Bearer {SECRET}, Bearer {SECRET}"),
        *(f"Bearer {SECRET} x", f"Bearer\t{SECRET}", f"Bearer {SECRET}\xa0", f"Bearer \xff{SECRET}"),
        *(f"Bearer {SECRET[:-1]}", f"Bearer {SECRET}" + "A" * 10**6, f"Bearer  {CHAT.digest}", "Bearer \xb2"),
    ],
)
def test_anything_but_a_bearers_key_is_refused_where_one_is_needed(value: str) -> None:
    shown = shown_key(headers(("authorization", value)))
    with pytest.raises(InvalidKey) as refused:
        key_for(KEYS, shown, "chat", 0.0, requires_key=True)
    assert refused.value.status == 401
    assert SECRET not in refused.value.message


PROTOCOL = ("sec-websocket-protocol", f"monai.v1, monai-key.{SECRET}")
BEARER = ("authorization", f"Bearer {SECRET}")


def test_two_keys_are_refused_even_when_both_are_good() -> None:
    for pair in itertools.product((BEARER, PROTOCOL), repeat=2):
        with pytest.raises(InvalidKey, match="more than one key"):
            shown_key(headers(*pair))


def test_a_page_shows_its_key_as_a_subprotocol_and_nobody_behind_sees_it() -> None:
    assert shown_key(headers(PROTOCOL)) == SECRET
    assert shown_key(headers(("sec-websocket-protocol", "monai.v1, chat"))) is None
    left = without_keys(headers(PROTOCOL, BEARER, ("host", "here")).raw)
    assert left == [(b"host", b"here"), (b"sec-websocket-protocol", b"monai.v1")]
    assert offered(Headers(raw=left)) == ["monai.v1"]
    assert without_keys(headers(("sec-websocket-protocol", f"monai-key.{SECRET}")).raw) == []


def test_where_no_key_is_needed_only_what_looks_like_one_must_be_one() -> None:
    for shown in (None, "", "none", "sk-123"):
        assert key_for(KEYS, shown, "admin", 0.0, requires_key=False) is None
    assert key_for(KEYS, SECRET, "chat", 0.0, requires_key=False) is CHAT
    for keys, shown in ((KEYS, "mk-123"), ((), SECRET)):
        with pytest.raises(InvalidKey, match="not known here"):
            key_for(keys, shown, "chat", 0.0, requires_key=False)


def test_a_key_opens_what_it_has_a_right_to_until_it_expires() -> None:
    assert key_for(KEYS, SECRET, "chat", 99.9, requires_key=True) is CHAT
    assert key_for(KEYS, ADMIN_SECRET, "admin", 0.0, requires_key=True) is ADMIN
    lacking: list[tuple[str, Right]] = [(SECRET, "admin"), (ADMIN_SECRET, "chat")]
    for secret, needed in lacking:
        with pytest.raises(NotAllowed) as refused:
            key_for(KEYS, secret, needed, 0.0, requires_key=True)
        assert (refused.value.status, refused.value.code) == (403, "missing_right")
    with pytest.raises(InvalidKey, match="expired"):
        key_for(KEYS, SECRET, "chat", 100.0, requires_key=True)
