"""`/v1/ws` over real sockets, as its clients see it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin

from monai_node.agents.graph import Task
from monai_node.agents.request import RunRequest
from monai_node.mesh.gateway.app import create_app
from monai_node.mesh.gateway.config import GatewayConfig
from monai_node.mesh.gateway.http.server import Address, open_server
from monai_node.mesh.gateway.socket.routes import RUNS_PER_SOCKET_MAX
from monai_node.mesh.gateway.testing import Script, ScriptedBackend, completed, provenance
from monai_node.registry.errors import PeerLost
from monai_node.registry.events import AnswerDelta, RunCreated, RunEvent

HELLO = {"messages": [{"role": "user", "content": "hello"}]}
GRAPH = {"tasks": [{"id": "t1", "text": "say hello"}]}

_Message = dict[str, Any]


def _run(work: Coroutine[Any, Any, None]) -> None:
    async def within() -> None:
        async with asyncio.timeout(15):
            await work

    asyncio.run(within())


def _waits(release: asyncio.Event, started: asyncio.Semaphore | None = None) -> Script:
    """Says one piece, then waits for `release` before it completes."""

    async def script(request: RunRequest) -> AsyncGenerator[RunEvent, None]:
        yield RunCreated(run=request.run)
        yield AnswerDelta(run=request.run, text="Hel", seq=1)
        if started is not None:
            started.release()
        await release.wait()
        yield completed(request.run, provenance()).model_copy(update={"seq": 2})

    return script


class _Socket:
    """A client's end."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def say(self, **message: Any) -> None:
        await self.connection.send(json.dumps(message))

    async def next(self) -> _Message:
        return json.loads(await self.connection.recv())

    async def until(self, is_it: Callable[[_Message], bool]) -> list[_Message]:
        found = [await self.next()]
        while not is_it(found[-1]):
            found.append(await self.next())
        return found

    async def closed(self) -> int:
        with pytest.raises(ConnectionClosed):
            while True:
                await self.connection.recv()
        return self.connection.close_code or 0


def _is_last(message: _Message) -> bool:
    return message["type"] in ("answer.completed", "error")


@asynccontextmanager
async def _open(
    backend: ScriptedBackend | None = None, config: GatewayConfig | None = None
) -> AsyncGenerator[Address]:
    app = create_app(backend or ScriptedBackend(), config)
    async with open_server(app, "127.0.0.1", 0, drain_seconds=0) as address:
        yield address


@asynccontextmanager
async def _connected(address: Address, **options: Any) -> AsyncGenerator[_Socket]:
    async with connect(_url(address), proxy=None, **options) as connection:
        yield _Socket(connection)


@asynccontextmanager
async def _socket(
    backend: ScriptedBackend | None = None, config: GatewayConfig | None = None
) -> AsyncGenerator[_Socket]:
    async with _open(backend, config) as address, _connected(address) as socket:
        yield socket


def _url(address: Address) -> str:
    return f"ws://{address.host}:{address.port}/v1/ws"


def test_a_run_is_told_by_the_same_events_as_over_http() -> None:
    async def main() -> None:
        async with _open() as address, _connected(address) as socket:
            await socket.say(type="run.start", id="mine", request=HELLO)
            told = await socket.until(_is_last)
            assert {event.pop("id") for event in told} == {"mine"}
            assert len({event.pop("run") for event in told}) == 1
            async with httpx.AsyncClient(base_url=address.url, trust_env=False) as client:
                answer = await client.post("/v1/runs", json={"graph": GRAPH, "stream": True})
        lines = [line for line in answer.text.splitlines() if line.startswith("data: ")]
        streamed = [json.loads(line.removeprefix("data: ")) for line in lines]
        assert [{k: v for k, v in event.items() if k != "run"} for event in streamed] == told

    _run(main())


def test_without_an_id_of_the_client_events_have_none() -> None:
    async def main() -> None:
        async with _socket() as socket:
            await socket.say(type="run.start", request=HELLO)
            for event in await socket.until(_is_last):
                assert "id" not in event
                assert event["run"].startswith("run-")

    _run(main())


def test_a_plan_is_carried_out_and_accepted() -> None:
    async def main() -> None:
        backend = ScriptedBackend()
        async with _socket(backend) as socket:
            await socket.say(type="run.start", request={"graph": GRAPH, "text": "say hello"})
            assert (await socket.until(_is_last))[-1]["type"] == "answer.completed"
        (request,) = backend.accepted
        assert request.options.plan == [Task(id="t1", text="say hello")]

    _run(main())


def test_many_runs_share_a_socket_each_with_its_own_events_and_end() -> None:
    async def main() -> None:
        names = [f"r{n}" for n in range(RUNS_PER_SOCKET_MAX)]
        release, started = asyncio.Event(), asyncio.Semaphore(0)
        async with _socket(ScriptedBackend(_waits(release, started))) as socket:
            for name in names:
                await socket.say(type="run.start", id=name, request=HELLO)
            for _ in names:
                await started.acquire()
            await socket.say(type="run.start", id="one more", request=HELLO)
            before = await socket.until(lambda message: message.get("id") == "one more")
            assert before[-1]["error"]["code"] == "too_many_runs"
            assert "run" not in before[-1]
            release.set()
            told: dict[str, list[_Message]] = {name: [] for name in names}
            for message in before[:-1]:
                told[message["id"]].append(message)
            while not all(events and _is_last(events[-1]) for events in told.values()):
                message = await socket.next()
                told[message["id"]].append(message)
        for events in told.values():
            assert [event["seq"] for event in events] == [0, 1, 2]
            assert [event["type"] for event in events] == ["run.created", "answer.delta", "answer.completed"]

    _run(main())


def test_a_failed_run_ends_with_its_error_and_the_next_number() -> None:
    async def main() -> None:
        async def script(request: RunRequest) -> AsyncGenerator[RunEvent, None]:
            yield RunCreated(run=request.run)
            raise PeerLost("anna is gone")

        async with _socket(ScriptedBackend(script)) as socket:
            await socket.say(type="run.start", request=HELLO)
            created, failed = await socket.until(_is_last)
        assert failed["run"] == created["run"]
        assert (failed["seq"], failed["status"], failed["code"]) == (1, 502, "peer_lost")

    _run(main())


def test_a_run_that_is_cancelled_ends_with_an_error_that_says_so() -> None:
    async def main() -> None:
        backend = ScriptedBackend(_waits(asyncio.Event()))
        async with _socket(backend) as socket:
            for by in ("run", "id"):
                backend.ended.clear()
                await socket.say(type="run.start", id="mine", request=HELLO)
                _, said = await socket.until(lambda message: message["type"] == "answer.delta")
                await socket.say(type="run.cancel", **{by: said[by]})
                (ended,) = await socket.until(_is_last)
                assert (ended["run"], ended["id"]) == (said["run"], "mine")
                assert (ended["seq"], ended["code"], ended["status"]) == (2, "cancelled", 499)
                assert backend.ended.is_set()
                await socket.say(type="run.cancel", **{by: said[by]})
                assert (await socket.next())["error"]["code"] == "run_not_found"

    _run(main())


def test_a_run_that_waits_for_its_place_can_be_cancelled_by_the_clients_id() -> None:
    async def main() -> None:
        release = asyncio.Event()
        backend = ScriptedBackend(_waits(release))
        async with _socket(backend, GatewayConfig(runs_max=1)) as socket:
            await socket.say(type="run.start", id="first", request=HELLO)
            await socket.until(lambda message: message["type"] == "answer.delta")
            await socket.say(type="run.start", id="second", request=HELLO)
            await socket.say(type="run.cancel", id="second")
            refused = await socket.next()
            assert (refused["id"], refused["error"]["code"]) == ("second", "cancelled")
            release.set()
            assert (await socket.next())["id"] == "first"
        assert len(backend.requests) == 1

    _run(main())


def test_who_finds_no_place_is_told_over_the_socket() -> None:
    async def main() -> None:
        async with _socket(config=GatewayConfig(runs_max=0, waiting_max=0)) as socket:
            await socket.say(type="run.start", id="mine", request=HELLO)
            refused = await socket.next()
            assert (refused["type"], refused["id"], refused["status"]) == ("error", "mine", 429)
            assert refused["retry_after_seconds"] >= 1

    _run(main())


WRONG: list[tuple[str, str | None]] = [
    ("no json", None),
    ("[]", None),
    ('{"type": "run.stop"}', "type"),
    ('{"type": ["run.start"]}', "type"),
    ('{"type": "run.start"}', "request"),
    ('{"type": "run.start", "request": []}', "request"),
    ('{"type": "run.start", "request": {}}', "messages"),
    ('{"type": "run.start", "request": {"graph": {}}}', "graph.tasks"),
    ('{"type": "run.start", "request": {}, "extra": 1}', "extra"),
    ('{"type": "run.start", "id": "", "request": {}}', "id"),
    ('{"type": "run.cancel"}', "run"),
    ('{"type": "run.cancel", "run": "a", "id": "b"}', "run"),
    ('{"type": "ping", "id": "\\ud800"}', None),
    ('{"type": "ping", "id": "\0"}', None),
]


def test_a_message_that_is_wrong_is_answered_and_the_socket_lives() -> None:
    async def main() -> None:
        async with _socket() as socket:
            for message, param in WRONG:
                await socket.connection.send(message)
                refused = await socket.next()
                assert (refused["type"], refused["status"], "run" in refused) == ("error", 400, False), (
                    message
                )
                assert set(refused["error"]) == {"message", "type", "param", "code"}
                assert refused["error"]["param"] == param
            await socket.say(type="ping", id="p1")
            assert await socket.next() == {"type": "pong", "id": "p1"}

    _run(main())


def test_several_answers_of_one_run_are_not_to_be_had() -> None:
    async def main() -> None:
        async with _socket() as socket:
            await socket.say(type="run.start", id="mine", request={**HELLO, "n": 2})
            refused = await socket.next()
            assert (refused["id"], refused["status"], refused["error"]["param"]) == ("mine", 422, "n")

    _run(main())


def test_an_id_in_use_and_a_wrong_message_of_that_id_are_told_with_it() -> None:
    async def main() -> None:
        async with _socket(ScriptedBackend(_waits(asyncio.Event()))) as socket:
            await socket.say(type="run.start", id="mine", request=HELLO)
            await socket.until(lambda message: message["type"] == "answer.delta")
            await socket.say(type="run.start", id="mine", request=HELLO)
            refused = await socket.next()
            assert (refused["id"], refused["error"]["param"]) == ("mine", "id")
            await socket.say(type="run.start", id="yours", request=3)
            assert (await socket.next())["id"] == "yours"

    _run(main())


def test_what_is_too_large_or_no_text_closes_the_socket_with_the_code_for_it() -> None:
    async def main() -> None:
        async with _open() as address:
            for message, code in ((" " * (1 << 21), 1009), (b"{}", 1003)):
                async with _connected(address) as socket:
                    await socket.connection.send(message)
                    assert await socket.closed() == code
            async with _connected(address) as socket:
                await socket.connection.send(b"\xff\xfe", text=True)
                assert await socket.closed() == 1007

    _run(main())


def test_runs_end_when_their_socket_does() -> None:
    async def main() -> None:
        backend = ScriptedBackend(_waits(asyncio.Event()))
        async with _open(backend) as address:
            async with _connected(address) as socket:
                await socket.say(type="run.start", request=HELLO)
                await socket.until(lambda message: message["type"] == "answer.delta")
            async with asyncio.timeout(2):
                await backend.ended.wait()

    _run(main())


def test_a_client_that_takes_nothing_slows_its_run_and_is_cut() -> None:
    async def main() -> None:
        said = 0

        async def script(request: RunRequest) -> AsyncGenerator[RunEvent, None]:
            nonlocal said
            while True:
                said += 1
                yield AnswerDelta(run=request.run, text="x" * 50_000)

        backend = ScriptedBackend(script)
        async with (
            _open(backend, GatewayConfig(stall_seconds=0.2)) as address,
            _connected(address, max_queue=1, close_timeout=0.1) as socket,
        ):
            await socket.say(type="run.start", request=HELLO)
            async with asyncio.timeout(5):
                await backend.ended.wait()
        assert said < 600  # 30 MB of the kernel's and our buffers, of which most are the kernel's

    _run(main())


def test_a_page_of_another_origin_gets_no_socket() -> None:
    async def main() -> None:
        async with _open() as address:
            evil_page = connect(_url(address), proxy=None, origin=Origin("http://evil.org"))
            evil_name = connect("ws://evil.org/v1/ws", proxy=None, host=address.host, port=address.port)
            for connecting in (evil_page, evil_name):
                with pytest.raises(InvalidStatus) as refused:
                    await connecting
                assert refused.value.response.status_code == 403

    _run(main())


def test_stopping_the_gateway_lets_the_runs_of_a_socket_end() -> None:
    async def main() -> None:
        release = asyncio.Event()

        async def client(address: Address, begun: asyncio.Event) -> tuple[list[_Message], int]:
            async with _connected(address) as socket, _connected(address) as idle:
                await socket.say(type="run.start", request=HELLO)
                await socket.until(lambda message: message["type"] == "answer.delta")
                begun.set()
                assert await idle.closed() == 1012
                release.set()
                return await socket.until(_is_last), await socket.closed()

        async with asyncio.TaskGroup() as tasks:
            begun = asyncio.Event()
            app = create_app(ScriptedBackend(_waits(release)))
            async with open_server(app, "127.0.0.1", 0) as address:
                reading = tasks.create_task(client(address, begun))
                await begun.wait()
        (last,), code = reading.result()
        assert (last["type"], code) == ("answer.completed", 1012)

    _run(main())


def test_runs_that_do_not_end_in_time_are_cut_and_their_socket_says_that_the_gateway_stopped() -> None:
    async def main() -> None:
        backend = ScriptedBackend(_waits(asyncio.Event()))
        server = open_server(create_app(backend), "127.0.0.1", 0, drain_seconds=0)
        address = await server.__aenter__()
        async with _connected(address) as socket:
            await socket.say(type="run.start", request=HELLO)
            await socket.until(lambda message: message["type"] == "answer.delta")
            await server.__aexit__(None, None, None)
            assert backend.ended.is_set()
            assert await socket.closed() == 1012

    _run(main())
