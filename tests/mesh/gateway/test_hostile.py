"""Clients that mean harm, over real sockets: what they get, and what it costs everybody else."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import connect

from monai_node.agents.request import RunRequest
from monai_node.mesh.gateway.app import create_app
from monai_node.mesh.gateway.config import GatewayConfig
from monai_node.mesh.gateway.http.protocols import ConnectionLimits
from monai_node.mesh.gateway.http.server import Address, open_server
from monai_node.mesh.gateway.testing import ScriptedBackend
from monai_node.registry.events import AnswerDelta, RunCreated, RunEvent

CHAT = {"messages": [{"role": "user", "content": "hello"}]}
QUICK = ConnectionLimits(head_seconds=0.3, linger_seconds=0.3)
WAIT_SECONDS = 5.0
_UNREAD_BYTES_MAX = 40_000_000  # more than the kernel and we hold for who reads nothing: about 10 MB


@pytest.fixture(autouse=True)
def _no_defect_is_logged(caplog: pytest.LogCaptureFixture) -> Generator[None]:
    yield
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def _run(work: Coroutine[Any, Any, None]) -> None:
    async def within() -> None:
        async with asyncio.timeout(60):
            await work

    asyncio.run(within())


@asynccontextmanager
async def _open(
    backend: ScriptedBackend | None = None,
    config: GatewayConfig | None = None,
    limits: ConnectionLimits = QUICK,
) -> AsyncGenerator[Address]:
    """A gateway, which has as many files open at its end as at its beginning."""
    app = create_app(backend or ScriptedBackend(), config)
    async with open_server(app, "127.0.0.1", 0, drain_seconds=0, limits=limits) as address:
        before = _open_files()
        yield address
        await _until(lambda: _open_files() <= before, "files stay open")


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def _until(holds: Callable[[], bool], complaint: str) -> None:
    """Polls: what is waited for happens in the gateway, which tells nobody."""
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            while not holds():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(complaint) from None


@asynccontextmanager
async def _connected(address: Address) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def _say(address: Address, *pieces: bytes) -> bytes:
    """All that comes back until the gateway closes the connection or is silent for long."""
    async with _connected(address) as (reader, writer):
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            return await asyncio.wait_for(reader.read(), WAIT_SECONDS)
        except (ConnectionResetError, BrokenPipeError):
            return b""


async def _is_served(address: Address) -> None:
    """Somebody else is, in time."""
    async with asyncio.timeout(WAIT_SECONDS):
        said = await _say(address, b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
    assert said.endswith(b'{"status":"ok"}')


def _head(length: int, connection: str = "close") -> bytes:
    lines = ["POST /v1/chat/completions HTTP/1.1", "host: localhost", f"content-length: {length}"]
    return "\r\n".join([*lines, f"connection: {connection}", "", ""]).encode()


def _request(body: object, connection: str = "close") -> bytes:
    content = json.dumps(body).encode()
    return _head(len(content), connection) + content


def _statuses(answers: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", answers)]


def _assert_error(answer: bytes, status: int) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode()), answer[:300]
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}


# --- what is no request ---------------------------------------------------------------------------------
GET = b"GET /health HTTP/1.1\r\nhost: localhost\r\n"
POST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"
MALFORMED: dict[str, tuple[bytes, int]] = {
    "noise": (bytes(range(256)) + b"\r\n\r\n", 400),
    "NUL": (b"\0" * 100 + b"\r\n\r\n", 400),
    "TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n\r\n", 400),
    "HTTP/0.9": (b"GET /health\r\n\r\n", 400),
    "no host": (b"GET /health HTTP/1.1\r\n\r\n", 400),
    "two hosts": (GET + b"host: evil.org\r\n\r\n", 400),
    "no colon": (GET + b"what is this\r\n\r\n", 400),
    "space before colon": (GET + b"a : b\r\n\r\n", 400),
    "NUL in a header": (GET + b"a: b\0c\r\n\r\n", 400),
    "folded first header": (b"GET /health HTTP/1.1\r\n host: localhost\r\n\r\n", 400),
    "100,000 headers": (GET + b"".join(b"a%d: b\r\n" % n for n in range(100_000)) + b"\r\n", 431),
    "huge header": (GET + b"a: " + b"b" * 1_000_000 + b"\r\n\r\n", 431),
    "huge path": (b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n", 431),
    "length is no number": (POST + b"content-length: ten\r\n\r\n", 400),
    "negative length": (POST + b"content-length: -1\r\n\r\n", 400),
    "two lengths": (POST + b"content-length: 1\r\ncontent-length: 2\r\n\r\n", 400),
    "length of a hundred digits": (POST + b"content-length: " + b"9" * 100 + b"\r\n\r\n", 400),
    "huge length": (_head(10**15), 413),
    "two encodings": (POST + b"transfer-encoding: chunked, x\r\n\r\n", 400),
    "unknown encoding": (POST + b"transfer-encoding: gzip\r\n\r\n", 400),
    "chunk size is no number": (CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n", 400),
    "negative chunk size": (CHUNKED + b"-1\r\n{}\r\n0\r\n\r\n", 400),
    "chunk longer than its size": (CHUNKED + b"1\r\n{}\r\n0\r\n\r\n", 400),
    "huge chunk size": (CHUNKED + b"f" * 100 + b"\r\n", 400),
    "body is no JSON": (_head(3) + b"{\0}", 400),
    "body is no UTF-8": (_head(3) + b'"\xff"', 400),
    "body is a number": (_head(1) + b"1", 400),
    "nested 100,000 deep": (_head(100_000) + b"[" * 100_000, 400),
    "upgrade to nothing": (GET + b"connection: upgrade, close\r\nupgrade: nonsense\r\n\r\n", 200),
    "socket without a key": (
        b"GET /v1/ws HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        400,
    ),
}
"""What is sent, and the status of what comes back; 200 where it is fine after all."""


def test_what_is_no_request_is_told_so_and_nobody_else_notices() -> None:
    async def main() -> None:
        async with _open() as address:
            for name, (data, status) in MALFORMED.items():
                answer = await _say(address, data)
                # A client that is still sending may not get to read it.
                assert _statuses(answer) == [status] or (not answer and len(data) > 100_000), (name, answer)
                if answer and status != 200 and name != "socket without a key":
                    _assert_error(answer, status)
            await _is_served(address)

    _run(main())


def test_a_socket_handshake_that_cannot_be_read_is_closed() -> None:
    async def main() -> None:
        head = b"GET /v1/ws HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        head += b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        for more in (b"a: b\r\n" * 300, b"a: " + b"b" * 10_000 + b"\r\n", b"content-length: 5\r\n"):
            async with _open() as address:
                assert not (await _say(address, head + more + b"\r\n")).startswith(b"HTTP/1.1 101")

    _run(main())


def test_requests_in_one_piece_are_answered_in_order() -> None:
    async def main() -> None:
        async with _open() as address:
            last = b"GET /nope HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
            answer = await _say(address, GET + b"\r\n" + _request(CHAT, "keep-alive") + last)
            assert _statuses(answer) == [200, 200, 404]
            garbage = await _say(address, _request(CHAT, "keep-alive") + b"\0\0\0\r\n\r\n")
            assert _statuses(garbage) == [200, 400]

    _run(main())


# --- slowness -------------------------------------------------------------------------------------------
def test_half_a_head_is_not_waited_for() -> None:
    async def main() -> None:
        async with _open() as address:
            _assert_error(await _say(address, GET), 408)
            _assert_error(await _say(address), 408)
            async with _connected(address) as (reader, writer):  # nor that of the next request
                writer.write(GET + b"\r\n")
                await reader.readuntil(b'{"status":"ok"}')
                writer.write(b"G")
                _assert_error(await asyncio.wait_for(reader.read(), WAIT_SECONDS), 408)

    _run(main())


async def _drip(address: Address, data: bytes) -> bytes:
    """What comes back to who sends a byte at a time; nothing to who was cut while it sent."""
    async with _connected(address) as (reader, writer):
        answer = asyncio.create_task(reader.read())
        for byte in data:
            writer.write(bytes([byte]))
            await asyncio.wait({answer}, timeout=0.02)
            if answer.done():
                break
        try:
            return await asyncio.wait_for(answer, WAIT_SECONDS)
        except ConnectionResetError:
            return b""


def test_a_head_or_a_body_a_byte_at_a_time_is_given_up() -> None:
    async def main() -> None:
        async with _open(config=GatewayConfig(body_seconds=0.3)) as address:
            for data in (GET * 100, _head(1000) + b" " * 999):
                if answer := await _drip(address, data):
                    _assert_error(answer, 408)

    _run(main())


def test_an_answer_may_take_longer_than_a_head() -> None:
    async def main() -> None:
        async def script(request: RunRequest) -> AsyncGenerator[RunEvent, None]:
            yield AnswerDelta(run=request.run, text="slow")
            await asyncio.sleep(3 * QUICK.head_seconds)
            yield AnswerDelta(run=request.run, text="ly")

        async with _open(ScriptedBackend(script)) as address:
            assert (await _say(address, _request(CHAT))).startswith(b"HTTP/1.1 500")

    _run(main())


@pytest.mark.parametrize("stream", [True, False])
def test_who_takes_nothing_of_its_answer_is_cut(stream: bool) -> None:
    async def main() -> None:
        async def script(request: RunRequest) -> AsyncGenerator[RunEvent, None]:
            yield RunCreated(run=request.run)
            for _ in range(1000):
                yield AnswerDelta(run=request.run, text="x" * 50_000)

        backend = ScriptedBackend(script)
        config = GatewayConfig(stall_seconds=0.2)
        async with _open(backend, config) as address, _connected(address) as (reader, writer):
            before = _open_files()  # nobody reads: the reader's buffer fills, then the kernel's
            writer.write(_request({**CHAT, "stream": stream}))
            await _until(backend.ended.is_set, "the run goes on")
            await _is_served(address)
            await _until(lambda: _open_files() < before, "the connection lingers")
            assert not reader.at_eof()

    _run(main())


@pytest.mark.full
def test_pings_that_nobody_reads_the_answers_to_are_not_answered_for_ever() -> None:
    async def main() -> None:
        frame = b"\x89\xfd\0\0\0\0" + b"p" * 125  # a masked ping as large as one may be
        async with (
            _open() as address,
            connect(f"ws://{address.host}:{address.port}/v1/ws", proxy=None) as client,
        ):
            client.transport.pause_reading()
            with pytest.raises(TimeoutError):
                for _ in range(_UNREAD_BYTES_MAX // len(frame) // 100):
                    client.transport.write(frame * 100)
                    async with asyncio.timeout(2):
                        while client.transport.get_write_buffer_size():
                            await asyncio.sleep(0.001)
            client.transport.abort()
            await _is_served(address)

    _run(main())


# --- number ---------------------------------------------------------------------------------------------
def test_a_connection_without_a_request_makes_room_when_there_are_too_many() -> None:
    async def main() -> None:
        limits = ConnectionLimits(head_seconds=30, connections_max=4)
        async with _open(limits=limits) as address, AsyncExitStack() as stack:
            half_open = [await stack.enter_async_context(_connected(address)) for _ in range(4)]
            for _, writer in half_open:
                writer.write(GET)
            await _is_served(address)
            oldest, _ = half_open[0]
            assert await asyncio.wait_for(oldest.read(), WAIT_SECONDS) == b""

    _run(main())


def test_who_comes_when_all_connections_are_in_use_is_told_so() -> None:
    async def main() -> None:
        async def script(request: RunRequest) -> AsyncGenerator[RunEvent, None]:
            yield AnswerDelta(run=request.run, text="Hel")
            await asyncio.Event().wait()

        limits = ConnectionLimits(connections_max=2)
        async with (
            _open(ScriptedBackend(script), limits=limits) as address,
            _connected(address) as one,
            _connected(address) as two,
        ):
            for reader, writer in (one, two):
                writer.write(_request({**CHAT, "stream": True}))
                await reader.readuntil(b"Hel")
            _assert_error(await _say(address), 503)

    _run(main())


@pytest.mark.full
def test_five_hundred_half_heads_keep_nobody_out() -> None:
    async def main() -> None:
        limits = ConnectionLimits(head_seconds=1.0)
        async with _open(limits=limits) as address, AsyncExitStack() as stack:
            half_open = [await stack.enter_async_context(_connected(address)) for _ in range(500)]
            for _, writer in half_open:
                writer.write(GET)
            await _is_served(address)
            for reader, _ in half_open:
                _assert_error(await asyncio.wait_for(reader.read(), WAIT_SECONDS), 408)

    _run(main())
