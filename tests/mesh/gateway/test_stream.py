from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message

from monai_node.agents.request import MeshOptions, RunRequest
from monai_node.mesh.gateway.caller import Caller
from monai_node.mesh.gateway.config import GatewayConfig
from monai_node.mesh.gateway.errors import TooManyRuns
from monai_node.mesh.gateway.feed import Feed
from monai_node.mesh.gateway.gate import RunGate
from monai_node.mesh.gateway.http.stream import RunResponse, is_first_sign
from monai_node.mesh.gateway.openai.completion import Chunks, Head
from monai_node.mesh.gateway.openai.reader import ChatCall
from monai_node.mesh.gateway.site import Site
from monai_node.mesh.gateway.testing import (
    Script,
    ScriptedBackend,
    completed,
    provenance,
    says,
)
from monai_node.registry.errors import NotFound, PeerLost
from monai_node.registry.events import AnswerDelta, PlanTask, RunCreated, RunEvent, RunFailed
from monai_node.registry.ids import RunId
from monai_node.registry.wire import ChatMessage

REQUEST = RunRequest(run=RunId("run-abc"), messages=(ChatMessage(role="user", content="hello"),))
WHOLE = ChatCall(REQUEST)
STREAM = ChatCall(REQUEST, stream=True)
CANARY = "what a user wrote"
QUICK = GatewayConfig(opening_seconds=0.02, keep_alive_seconds=0.02, stall_seconds=5)


@dataclass
class _Client:
    """The other side of one answer. `is_stuck`: it is there, but takes nothing."""

    received: list[Message] = field(default_factory=list[Message])
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    is_stuck: bool = False

    async def send(self, message: Message) -> None:
        if self.is_stuck:
            await asyncio.Event().wait()
        self.received.append(message)
        self.arrived.set()

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    @property
    def status(self) -> int:
        return self.received[0]["status"]

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.received[1:])

    @property
    def is_complete(self) -> bool:
        return self.received[-1].get("more_body") is False

    async def until(self, holds: Callable[[bytes], bool]) -> None:
        while not holds(self.body):
            self.arrived.clear()
            await self.arrived.wait()


def _response(site: Site, call: ChatCall) -> RunResponse:
    chunks = Chunks(Head(call.request.run, "mesh", 0), include_usage=False, has_events=False)
    return RunResponse(site, call.request, chunks, stream=call.stream)


async def _answer(
    backend: ScriptedBackend,
    call: ChatCall,
    config: GatewayConfig = QUICK,
    client: _Client | None = None,
    gate: RunGate | None = None,
) -> _Client:
    client = client or _Client()
    response = _response(Site(backend, config, gate or RunGate(8)), call)
    async with asyncio.timeout(5):
        await response({"type": "http"}, client.receive, client.send)
    return client


def _play(script: Script, call: ChatCall, config: GatewayConfig = QUICK) -> _Client:
    return asyncio.run(_answer(ScriptedBackend(script), call, config))


def _error(body: bytes) -> dict[str, Any]:
    return json.loads(body)["error"]


def _deadline(call: ChatCall, seconds: float) -> ChatCall:
    options = MeshOptions(deadline_seconds=seconds)
    return replace(call, request=replace(call.request, options=options))


def test_a_whole_answer_is_the_deltas_joined() -> None:
    client = _play(says("Hel", "lo"), WHOLE)
    assert json.loads(client.body)["choices"][0]["message"]["content"] == "Hello"
    headers = dict(client.received[0]["headers"])
    assert headers[b"x-mesh-run"] == b"run-abc"
    assert headers[b"x-mesh-parts"] == b"1"
    assert b"run;dur=" in headers[b"server-timing"]


def test_a_stream_ends_with_done() -> None:
    client = _play(says("Hel", "lo"), STREAM)
    assert client.status == 200
    assert client.body.endswith(b"data: [DONE]\n\n")
    assert client.is_complete


@pytest.mark.parametrize("call", [WHOLE, STREAM])
def test_a_run_that_fails_before_any_text_is_an_http_status(call: ChatCall) -> None:
    error = NotFound("no such model", code="model_not_found", param="model")
    client = _play(says(error=error), call)
    assert client.status == 404
    assert _error(client.body)["code"] == "model_not_found"


def test_a_run_that_fails_after_the_first_text_ends_its_stream_with_the_error() -> None:
    client = _play(says("Hel", error=PeerLost("anna is gone")), STREAM)
    assert client.status == 200
    *_, last, done, _ = client.body.split(b"\n\n")
    assert _error(last.removeprefix(b"data: "))["code"] == "peer_lost"
    assert done == b"data: [DONE]"


def test_a_run_that_ends_without_an_end_is_an_error() -> None:
    async def script(request: RunRequest) -> AsyncGenerator[RunEvent, None]:
        yield RunCreated(run=request.run)

    for call in (WHOLE, STREAM):
        client = _play(script, call)
        assert client.status == 500
        assert "without an answer" in _error(client.body)["message"]


def test_a_defect_of_a_run_is_an_internal_error_and_its_words_are_kept_from_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def script(request: RunRequest) -> AsyncGenerator[RunEvent, None]:
        yield RunCreated(run=request.run)
        raise ValueError(CANARY)

    with caplog.at_level(logging.DEBUG):
        client = _play(script, WHOLE)
    assert _error(client.body)["code"] == "internal_error"
    assert "run run-abc failed: ValueError" in caplog.text
    assert CANARY.encode() not in client.body
    assert CANARY not in caplog.text


def test_a_run_that_does_not_end_in_its_time_is_ended() -> None:
    async def script(request: RunRequest) -> AsyncGenerator[RunEvent, None]:
        yield RunCreated(run=request.run)
        await asyncio.Event().wait()

    config = replace(QUICK, grace_seconds=0.01)
    client = _play(script, _deadline(WHOLE, 0.01), config)
    assert client.status == 504
    assert _error(client.body)["code"] == "deadline_exceeded"


def test_a_stream_is_decided_by_text_by_its_end_or_where_all_is_told_by_any_event_but_the_first() -> None:
    task = PlanTask(run="run-abc", task="t1", text="say hello", depends_on=[])
    events = (RunCreated(run="run-abc"), task, AnswerDelta(run="run-abc", text="x"), completed("run-abc"))
    assert [is_first_sign(event, has_events=False) for event in events] == [False, False, True, True]
    assert [is_first_sign(event, has_events=True) for event in events] == [False, True, True, True]


def test_silence_opens_the_stream_and_is_filled_with_keep_alives() -> None:
    async def run() -> _Client:
        heard = asyncio.Event()

        async def script(request: RunRequest) -> AsyncGenerator[RunEvent, None]:
            yield RunCreated(run=request.run)
            await heard.wait()
            yield AnswerDelta(run=request.run, text="Hello")
            yield completed(request.run, provenance())

        client = _Client()
        answer = asyncio.create_task(_answer(ScriptedBackend(script), STREAM, client=client))
        await client.until(lambda body: body.count(b": keep-alive\n\n") >= 2)
        heard.set()
        return await answer

    client = asyncio.run(run())
    role, first_comment, *_ = client.body.split(b"\n\n")
    assert b'"role":"assistant"' in role
    assert first_comment == b": keep-alive"
    assert b'"content":"Hello"' in client.body


def test_nothing_is_sent_while_a_failure_could_still_be_a_status() -> None:
    async def run() -> _Client:
        about_to_fail = asyncio.Event()

        async def script(request: RunRequest) -> AsyncGenerator[RunEvent, None]:
            yield RunCreated(run=request.run)
            await about_to_fail.wait()
            raise NotFound("no such model")

        client = _Client()
        config = replace(QUICK, opening_seconds=60)
        answer = asyncio.create_task(_answer(ScriptedBackend(script), STREAM, config, client))
        done, _ = await asyncio.wait({answer}, timeout=0.05)
        assert not done
        assert client.received == []
        about_to_fail.set()
        return await answer

    assert asyncio.run(run()).status == 404


@pytest.mark.parametrize("call", [WHOLE, STREAM])
def test_a_client_that_leaves_ends_its_run(call: ChatCall) -> None:
    async def run() -> None:
        is_running = asyncio.Event()

        async def script(request: RunRequest) -> AsyncGenerator[RunEvent, None]:
            yield AnswerDelta(run=request.run, text="Hel")
            is_running.set()
            await asyncio.Event().wait()

        backend, client, gate = ScriptedBackend(script), _Client(), RunGate(8)
        answer = asyncio.create_task(_answer(backend, call, QUICK, client, gate))
        await is_running.wait()
        assert gate.running_count == 1
        client.gone.set()
        await answer
        assert backend.ended.is_set()
        assert gate.running_count == 0
        assert not client.received or not client.is_complete

    asyncio.run(run())


def test_a_client_that_takes_nothing_is_cut_and_its_run_ended() -> None:
    async def endless(request: RunRequest) -> AsyncGenerator[RunEvent, None]:
        while True:
            yield AnswerDelta(run=request.run, text="x")

    async def run() -> None:
        backend = ScriptedBackend(endless)
        with pytest.raises(ClientDisconnect):
            config = replace(QUICK, stall_seconds=0.02)
            await _answer(backend, STREAM, config, _Client(is_stuck=True))
        assert backend.ended.is_set()

    asyncio.run(run())


def test_a_run_may_finish_its_own_work_after_its_last_event() -> None:
    finished: list[str] = []

    async def script(request: RunRequest) -> AsyncGenerator[RunEvent, None]:
        yield completed(request.run, provenance())
        await asyncio.sleep(0)
        finished.append(request.run)
        yield AnswerDelta(run=request.run, text="after the end")

    assert b"after the end" not in _play(script, WHOLE).body
    assert finished == ["run-abc"]


def test_one_run_more_than_there_are_places_is_turned_away() -> None:
    async def run() -> None:
        gate = RunGate(1)
        async with gate.admit():
            with pytest.raises(TooManyRuns):
                await _answer(ScriptedBackend(), WHOLE, gate=gate)
            assert gate.running_count == 1
        assert (await _answer(ScriptedBackend(), WHOLE, gate=gate)).status == 200

    asyncio.run(run())


def test_a_watcher_sees_every_event_and_the_end() -> None:
    seen: list[str] = []

    class _Watcher:
        def watch(self, request: RunRequest, caller: Caller) -> _Watcher:
            seen.append(f"{request.run} of {caller.key or 'nobody'}")
            return self

        def note(self, event: RunEvent) -> None:
            seen.append(event.type)

        def close(self) -> None:
            seen.append("closed")

    site = Site(ScriptedBackend(says("Hi")), QUICK, RunGate(8), [_Watcher()])

    async def run() -> None:
        client = _Client()
        await _response(site, WHOLE)({"type": "http"}, client.receive, client.send)

    asyncio.run(run())
    expected = ["run.created", "plan.task", "answer.delta", "answer.completed", "closed"]
    assert seen == ["run-abc of nobody", *expected]


@pytest.mark.parametrize("call", [WHOLE, STREAM])
def test_a_request_waits_for_its_place_and_leaves_the_line_with_its_client(call: ChatCall) -> None:
    async def run() -> None:
        gate, client, backend = RunGate(1, 8, 60.0), _Client(), ScriptedBackend()
        async with gate.admit():
            waiting = asyncio.create_task(_answer(backend, call, gate=gate))
            leaving = asyncio.create_task(_answer(backend, call, client=client, gate=gate))
            while gate.waiting_count < 2:
                await asyncio.sleep(0)
            client.gone.set()
            await leaving
            assert gate.waiting_count == 1
            assert client.received == []
        assert (await waiting).status == 200
        assert len(backend.requests) == 1

    asyncio.run(run())


def test_a_run_that_is_stopped_ends_with_that_error_and_the_next_number() -> None:
    async def run() -> list[RunEvent]:
        async def script(request: RunRequest) -> AsyncGenerator[RunEvent, None]:
            yield RunCreated(run=request.run)
            for n in range(1, 200):  # more than a feed holds
                yield AnswerDelta(run=request.run, text="more", seq=n)
            await asyncio.Event().wait()

        feed = Feed(ScriptedBackend(script), REQUEST, 60.0)
        pump = asyncio.create_task(feed.pump())
        events: list[RunEvent] = []
        while not (events and isinstance(events[-1], RunFailed)):
            event = await feed.next()
            assert event is not None
            events.append(event)
            if len(events) == 10:
                await asyncio.sleep(0)  # the feed is full again
                feed.stop(PeerLost("enough"))
        await pump
        return events

    events = asyncio.run(run())
    assert [event.seq for event in events] == list(range(len(events)))
    assert len(events) < 100
    assert events[-1].type == "error"
    assert events[-1].code == "peer_lost"


def test_a_run_that_is_stopped_before_it_began_says_so() -> None:
    async def run() -> RunEvent | None:
        feed = Feed(ScriptedBackend(), REQUEST, 60.0)
        feed.stop(PeerLost("enough"))
        await feed.pump()
        return await feed.next()

    event = asyncio.run(run())
    assert isinstance(event, RunFailed)
    assert (event.seq, event.code) == (0, "peer_lost")
