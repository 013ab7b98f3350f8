"""The gateway behind a real socket on loopback."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest

from monai_node.agents.request import RunRequest
from monai_node.mesh.gateway.app import create_app
from monai_node.mesh.gateway.http.server import Address, listen, open_server
from monai_node.mesh.gateway.testing import HeldRun, ScriptedBackend
from monai_node.registry.errors import SetupError
from monai_node.registry.events import AnswerDelta, RunEvent

_T = TypeVar("_T")


def _run(work: Coroutine[Any, Any, _T]) -> _T:
    async def within() -> _T:
        async with asyncio.timeout(15):
            return await work

    return asyncio.run(within())


@asynccontextmanager
async def _healthy(address: Address) -> AsyncGenerator[asyncio.StreamReader]:
    """A connection, kept open, over which the gateway said that it is alive."""
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
    await reader.readuntil(b'{"status":"ok"}')
    try:
        yield reader
    finally:
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def _asked(
    address: Address, *, stream: bool
) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection over which a completion was asked for, byte by byte what a client sends."""
    reader, writer = await asyncio.open_connection(address.host, address.port)
    body = json.dumps({"messages": [{"role": "user", "content": "hello"}], "stream": stream})
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}"
    writer.write(f"{head}\r\n\r\n{body}".encode())
    try:
        yield reader, writer
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "[::1]"])
def test_it_listens_where_it_says(host: str) -> None:
    async def main() -> None:
        async with open_server(create_app(ScriptedBackend()), host, 0) as address, _healthy(address):
            assert address.url.endswith(f":{address.port}")
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(address.host, address.port)

    _run(main())


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "example.org", "::"])
def test_it_does_not_listen_beyond_loopback_without_keys(host: str) -> None:
    async def main() -> None:
        with pytest.raises(SetupError, match=f"{host} .* `monai-node keys create`"):
            async with open_server(create_app(ScriptedBackend()), host, 0):
                pass

    _run(main())


@pytest.mark.parametrize("host", ["example.org", "", "0.0.0.0:80", "fe80::1%eth0x"])
def test_with_keys_it_listens_to_an_address_and_not_to_a_name(host: str) -> None:
    with pytest.raises(SetupError, match=r"is not an IP address|cannot listen"):
        listen(host, 0, asks_for_keys=True)


def test_a_port_in_use_or_out_of_range_is_one_sentence_about_it() -> None:
    async def listen(port: int) -> None:
        async with open_server(create_app(ScriptedBackend()), "127.0.0.1", port):
            pass

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SetupError) as refused:
            _run(listen(port))
    said = f"port {port} on 127.0.0.1 is in use; choose another with --port"
    assert refused.value.message == said
    with pytest.raises(SetupError, match="70000 is not a port"):
        _run(listen(70000))


def test_accepted_connections_send_at_once_and_give_up_readers_that_do_not_read() -> None:
    with listen("127.0.0.1", 0) as listener:
        with socket.create_connection(listener.getsockname()):
            accepted, _ = listener.accept()
        with accepted:
            assert accepted.proto == socket.IPPROTO_TCP  # asyncio's condition for TCP_NODELAY
            if sys.platform == "linux":
                unread_ms = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
                assert unread_ms == 60_000


def test_nobody_listens_any_more_when_it_is_left() -> None:
    async def main() -> None:
        async with open_server(create_app(ScriptedBackend()), "127.0.0.1", 0) as address, _healthy(address):
            pass
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(address.host, address.port)

    _run(main())


@pytest.mark.parametrize("stream", [True, False])
def test_a_run_ends_when_its_client_hangs_up(stream: bool) -> None:
    async def main() -> None:
        is_running = asyncio.Event()

        async def script(request: RunRequest) -> AsyncGenerator[RunEvent, None]:
            yield AnswerDelta(run=request.run, text="Hel")
            is_running.set()
            await asyncio.Event().wait()

        backend = ScriptedBackend(script)
        async with open_server(create_app(backend), "127.0.0.1", 0) as address:
            async with _asked(address, stream=stream) as (reader, _):
                await is_running.wait()
                if stream:
                    await reader.readuntil(b'"content":"Hel"')
                assert not backend.ended.is_set()
            async with asyncio.timeout(2):
                await backend.ended.wait()

    _run(main())


def test_stopping_lets_an_answer_under_way_finish() -> None:
    async def main() -> None:
        held, begun = HeldRun(), asyncio.Event()

        async def client(address: Address) -> bytes:
            async with _healthy(address) as idle, _asked(address, stream=True) as (reader, _):
                start = await reader.readuntil(b'"content":"Hel"')
                begun.set()
                # Stopping begins by closing the connections that wait for nothing.
                assert await idle.read() == b""
                held.release.set()
                return start + await reader.read()

        async with asyncio.TaskGroup() as tasks:
            app = create_app(ScriptedBackend(held.script))
            async with open_server(app, "127.0.0.1", 0) as address:
                reading = tasks.create_task(client(address))
                await begun.wait()
        answer = reading.result()
        assert b"data: [DONE]" in answer
        assert answer.endswith(b"0\r\n\r\n")

    _run(main())


def test_an_answer_cut_by_stopping_does_not_look_complete_and_its_run_has_ended() -> None:
    async def main() -> None:
        backend = ScriptedBackend(HeldRun().script)
        server = open_server(create_app(backend), "127.0.0.1", 0, drain_seconds=0)
        address = await server.__aenter__()
        async with _asked(address, stream=True) as (reader, _):
            await reader.readuntil(b'"content":"Hel"')
            await server.__aexit__(None, None, None)
            assert backend.ended.is_set()
            rest = await reader.read()
        assert b"[DONE]" not in rest
        assert not rest.endswith(b"0\r\n\r\n")

    _run(main())


def test_a_chunked_body_without_a_length_is_bounded_too() -> None:
    async def main() -> None:
        async with open_server(create_app(ScriptedBackend()), "127.0.0.1", 0) as address:
            reader, writer = await asyncio.open_connection(address.host, address.port)
            writer.write(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
            )
            piece = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
            for _ in range(17):
                writer.write(piece)
            assert b"413" in await reader.readline()
            writer.close()
            await writer.wait_closed()

    _run(main())
