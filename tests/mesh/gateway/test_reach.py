"""A gateway beyond loopback: every request needs a key, the address it came to is its name, TLS is TLS."""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import json
import ssl
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import httpx
import pytest
from certificates import self_signed
from websockets.asyncio.client import connect

from monai_node.mesh.cli_http import Gateway, gateway_of, request, stream
from monai_node.mesh.gateway.access.access import Access
from monai_node.mesh.gateway.app import create_app
from monai_node.mesh.gateway.config import GatewayConfig
from monai_node.mesh.gateway.http.server import open_server
from monai_node.mesh.gateway.testing import ScriptedBackend
from monai_node.mesh.keys import new_key
from monai_node.registry.errors import SetupError

KEY, SECRET = new_key(0.0)
BEARER = {"authorization": f"Bearer {SECRET}"}
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}]}


def _run(work: Coroutine[Any, Any, None]) -> None:
    async def within() -> None:
        async with asyncio.timeout(15):
            await work

    asyncio.run(within())


def _access() -> Access:
    return Access([KEY], requires_key=True)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_bound_to_all_it_asks_this_machine_too_and_is_told_a_url_that_works(host: str) -> None:
    async def main() -> None:
        app = create_app(ScriptedBackend(), access=_access())
        async with (
            open_server(app, host, 0, asks_for_keys=True) as address,
            httpx.AsyncClient(base_url=address.url) as client,
        ):
            assert ipaddress.ip_address(client.base_url.host).is_loopback
            assert (await client.get("/health")).status_code == 200
            assert (await client.get("/v1/models")).status_code == 401
            assert (await client.get("/v1/models", headers=BEARER)).status_code == 200

    _run(main())


def test_beyond_loopback_the_address_that_was_reached_is_a_name_and_no_other_unless_allowed() -> None:
    async def status(config: GatewayConfig, host: str, local: str) -> int:
        transport = httpx.ASGITransport(_At(create_app(ScriptedBackend(), config, _access()), local))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return (await client.get("/v1/models", headers={**BEARER, "host": host})).status_code

    async def main() -> None:
        config = GatewayConfig(hosts=("mesh.lan",))
        for host, local, expected in [
            ("192.0.2.7:8642", "192.0.2.7", 200),
            ("192.0.2.7:8642", "::ffff:192.0.2.7", 200),
            ("[2001:db8::7]", "2001:db8:0::7", 200),
            ("mesh.lan:8642", "192.0.2.7", 200),
            ("192.0.2.8:8642", "192.0.2.7", 403),
            ("evil.example", "192.0.2.7", 403),
            ("192.0.2.7.evil.example", "192.0.2.7", 403),
            ("", "", 403),
        ]:
            assert await status(config, host, local) == expected, host

    _run(main())


class _At:
    """The app as it is reached at another address."""

    def __init__(self, app: Any, local: str) -> None:
        self._app, self._local = app, local

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._app({**scope, "server": (self._local, 8642)}, receive, send)


def test_with_a_certificate_it_speaks_tls_alone_and_our_commands_take_that_one_only(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    files, other = self_signed(tmp_path), self_signed(tmp_path / "other")

    def ask(url: str) -> None:
        known = Gateway(url, SECRET, str(files.certificate))
        assert request(known, "GET", "/v1/models")["object"] == "list"
        chunks = list(stream(known, "/v1/chat/completions", {**HELLO, "stream": True}, 5.0))
        assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
        for wrong in (Gateway(url, SECRET), Gateway(url, SECRET, str(other.certificate))):
            with pytest.raises(SetupError, match="did not answer"):
                request(wrong, "GET", "/v1/models")
        with pytest.raises(SetupError, match="a key is needed"):
            request(Gateway(url, None, str(files.certificate)), "GET", "/v1/models")
        with pytest.raises(SetupError, match="cannot be read"):
            request(Gateway(url, SECRET, str(tmp_path / "none.pem")), "GET", "/v1/models")

    async def main() -> None:
        app = create_app(ScriptedBackend(), access=_access())
        async with open_server(app, "127.0.0.1", 0, tls=files) as address:
            assert address.url.startswith("https://127.0.0.1:")
            await asyncio.to_thread(ask, address.url)
            socket = address.url.replace("https", "wss") + "/v1/ws"
            trusted = _trusting(files.certificate)
            async with connect(socket, ssl=trusted, additional_headers=BEARER) as link:
                assert link.transport.get_extra_info("ssl_object").version() in ("TLSv1.2", "TLSv1.3")
                await link.send('{"type": "ping", "id": "mine"}')
                assert json.loads(await link.recv()) == {"type": "pong", "id": "mine"}

    _run(main())


def _trusting(file: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(file))
    context.check_hostname = False
    return context


def test_this_users_own_commands_find_address_key_and_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MONAI_KEY", raising=False)
    told = {"url": "https://127.0.0.1:1", "key": "mk-owners", "certificate": "c.pem", "join": "x", "pid": 1}
    (tmp_path / "gateway.json").write_text(json.dumps(told))
    here = argparse.Namespace(url=None, state_dir=tmp_path)
    assert gateway_of(here) == Gateway("https://127.0.0.1:1", "mk-owners", "c.pem")
    assert "mk-owners" not in repr(gateway_of(here))
    # Its key is shown to no other gateway.
    elsewhere = argparse.Namespace(url="http://elsewhere/v1", state_dir=tmp_path)
    assert gateway_of(elsewhere) == Gateway("http://elsewhere")
    monkeypatch.setenv("MONAI_KEY", "mk-mine")
    assert gateway_of(elsewhere).key == gateway_of(here).key == "mk-mine"
