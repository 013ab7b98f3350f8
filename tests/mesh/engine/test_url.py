from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from monai_node.mesh.engine.sse import SseParser
from monai_node.mesh.engine.url import UrlEngine, open_url_engine
from monai_node.registry.errors import (
    ContextLengthExceeded,
    InvalidRequest,
    MonaiError,
    PeerBusy,
    PeerError,
    PeerLost,
    ProtocolViolation,
    SetupError,
    TaskFailed,
)
from monai_node.registry.wire import (
    ChatMessage,
    Parameters,
    TaskCompleted,
    TaskDelta,
    TaskInput,
    TaskRequest,
)

Chat = Callable[[dict[str, Any]], Response | AsyncIterator[bytes]]


class Server:
    """An OpenAI-compatible server whose chat completions a test writes itself."""

    def __init__(self) -> None:
        self.chat: Chat = lambda _: JSONResponse({}, 500)
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.models: Any = {"data": [{"id": "tiny", "max_model_len": 512}, {"id": "big"}]}
        self.url = ""

    async def list_models(self, request: Request) -> Response:
        self.keys.append(request.headers.get("authorization"))
        if isinstance(self.models, Response):
            return self.models
        return JSONResponse(self.models)

    async def complete(self, request: Request) -> Response:
        self.bodies.append(await request.json())
        answer = self.chat(self.bodies[-1])
        if isinstance(answer, Response):
            return answer
        return StreamingResponse(answer, media_type="text/event-stream")


@asynccontextmanager
async def serving() -> AsyncGenerator[Server, None]:
    server = Server()
    routes = [
        Route("/v1/models", server.list_models),
        Route("/v1/chat/completions", server.complete, methods=["POST"]),
    ]
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server.url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        config = uvicorn.Config(Starlette(routes=routes), log_level="critical", lifespan="off")
        http = uvicorn.Server(config)
        serve = asyncio.create_task(http._serve([listener]))  # pyright: ignore[reportPrivateUsage]
        try:
            while not http.started:
                await asyncio.sleep(0.01)
            yield server
        finally:
            http.should_exit = http.force_exit = True
            await serve


def run(work: Callable[[Server, UrlEngine], Awaitable[None]]) -> None:
    async def main() -> None:
        async with (
            asyncio.timeout(20),
            serving() as server,
            open_url_engine(server.url, "tiny", "my-tiny") as engine,
        ):
            await work(server, engine)

    asyncio.run(main())


def chunk(delta: Any = None, finish: str | None = None, **more: Any) -> bytes:
    choice: dict[str, Any] = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    return b"data: " + json.dumps({"choices": [choice], **more}).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


async def sending(*chunks: bytes) -> AsyncIterator[bytes]:
    for piece in chunks:
        yield piece
        await asyncio.sleep(0)


def request(**changes: Any) -> TaskRequest:
    fields: dict[str, Any] = {
        "run": "r",
        "task": "t",
        "attempt": "a",
        "skill": "chat",
        "input": TaskInput(text="Hello"),
        "remaining_ms": 5000,
        **changes,
    }
    return TaskRequest(**fields)


async def collect(engine: UrlEngine, asked: TaskRequest) -> tuple[str, TaskCompleted]:
    text = ""
    async with aclosing(engine.submit(asked)) as events:
        async for event in events:
            if isinstance(event, TaskCompleted):
                return text, event
            text += event.text
    raise AssertionError("the engine ended without completing")


def test_a_streamed_completion_becomes_deltas_and_one_completed() -> None:
    async def work(server: Server, engine: UrlEngine) -> None:
        usage = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
        server.chat = lambda _: sending(
            b": keep-alive\n\n",
            chunk({"role": "assistant", "content": None}),
            chunk({"content": "Hel"}),
            chunk({"content": "lo €"}),
            chunk({}, "stop"),
            b'data: {"choices": [], "usage": ' + json.dumps(usage).encode() + b"}\n\n",
            DONE,
        )
        text, completed = await collect(engine, request())
        assert text == "Hello €"
        assert completed.finish_reason == "stop"
        assert completed.model == "my-tiny"
        assert (completed.usage.prompt_tokens, completed.usage.completion_tokens) == (7, 2)

    run(work)


def test_parameters_are_translated_into_openai_s_words() -> None:
    async def work(server: Server, engine: UrlEngine) -> None:
        server.chat = lambda _: sending(chunk({"content": "x"}, "stop"), DONE)
        tool: dict[str, Any] = {"type": "function", "function": {"name": "f", "parameters": {}}}
        schema = {"type": "object"}
        await collect(
            engine,
            request(
                prefix="So far",
                input=TaskInput(text="Go on", turns=[ChatMessage(role="system", content="Be kind")]),
                parameters=Parameters(
                    max_tokens=5,
                    temperature=0.0,
                    stop=["END"],
                    seed=3,
                    json_schema=schema,
                    tools=[tool],
                    tool_choice="auto",
                ),
            ),
        )
        await collect(engine, request())
        full, plain = server.bodies
        assert full["messages"] == [
            {"role": "system", "content": "Be kind"},
            {"role": "user", "content": "Go on"},
            {"role": "assistant", "content": "So far"},
        ]
        assert full["model"] == "tiny"
        assert (full["max_tokens"], full["temperature"], full["seed"]) == (5, 0.0, 3)
        assert full["stop"] == ["END"]
        assert full["tools"] == [tool]
        assert full["tool_choice"] == "auto"
        assert full["response_format"]["json_schema"]["schema"] == schema
        assert set(plain) == {"model", "messages", "stream", "stream_options"}

    run(work)


def test_tool_calls_are_put_together_from_their_pieces() -> None:
    async def work(server: Server, engine: UrlEngine) -> None:
        def call(**fields: Any) -> bytes:
            return chunk({"tool_calls": [fields]})

        server.chat = lambda _: sending(
            call(index=0, id="c1", type="function", function={"name": "look", "arguments": ""}),
            call(index=0, function={"arguments": '{"q": '}),
            call(index=1, id="c2", function={"name": "go", "arguments": "{}"}),
            call(index=0, function={"arguments": "1}"}),
            chunk({}, "tool_calls"),
            DONE,
        )
        _, completed = await collect(engine, request())
        assert completed.finish_reason == "tool_calls"
        assert completed.tool_calls == [
            {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"q": 1}'}},
            {"id": "c2", "type": "function", "function": {"name": "go", "arguments": "{}"}},
        ]

    run(work)


@pytest.mark.parametrize(
    ("chunks", "sentence"),
    [
        ([chunk({"content": "Hel"})], "cut the result off"),
        ([chunk({"content": "Hel"}), DONE], "cut the result off"),
        ([], "cut the result off"),
        ([chunk({"content": "H"}), b'data: {"error": {"message": "no memory"}}\n\n'], "no memory"),
        ([b"data: nonsense\n\n"], "not a JSON object"),
        ([b"data: [1]\n\n"], "not a JSON object"),
        ([b"data: " + b"[" * 100_000 + b"\n\n"], "not a JSON object"),
        ([chunk({"content": "H"}, "content_filter"), DONE], "withheld"),
        ([chunk({"tool_calls": ["x"]})], "unknown shape"),
    ],
)
def test_a_result_that_is_not_whole_never_completes(chunks: list[bytes], sentence: str) -> None:
    async def work(server: Server, engine: UrlEngine) -> None:
        server.chat = lambda _: sending(*chunks)
        with pytest.raises(TaskFailed, match=sentence):
            await collect(engine, request())

    run(work)


@pytest.mark.parametrize(
    ("status", "error", "expected"),
    [
        (400, {"type": "invalid_request_error", "message": "bad stop"}, InvalidRequest),
        (400, {"code": "context_length_exceeded", "message": "long"}, ContextLengthExceeded),
        (400, {"type": "exceed_context_size_error", "message": "long"}, ContextLengthExceeded),
        (400, "I do not know this field", TaskFailed),
        (401, {"message": "key"}, TaskFailed),
        (429, {"message": "slow down"}, PeerBusy),
        (503, {"message": "loading"}, PeerBusy),
        (500, {"message": "x" * 9999}, TaskFailed),
    ],
)
def test_a_refusal_blames_the_request_only_in_openai_s_own_words(
    status: int, error: Any, expected: type[MonaiError]
) -> None:
    async def work(server: Server, engine: UrlEngine) -> None:
        server.chat = lambda _: JSONResponse({"error": error}, status)
        with pytest.raises(expected) as raised:
            await collect(engine, request())
        assert type(raised.value) is expected
        assert len(raised.value.message) < 400

    run(work)


def test_a_server_that_breaks_off_is_a_peer_that_was_lost() -> None:
    async def work(server: Server, engine: UrlEngine) -> None:
        async def dying() -> AsyncIterator[bytes]:
            yield chunk({"content": "Hel"})
            raise ConnectionResetError

        server.chat = lambda _: dying()
        with pytest.raises(PeerLost):
            await collect(engine, request())

    run(work)


def test_a_server_that_falls_silent_is_not_waited_for_beyond_the_deadline() -> None:
    async def work(server: Server, engine: UrlEngine) -> None:
        async def silent() -> AsyncIterator[bytes]:
            yield chunk({"content": "Hel"})
            await asyncio.sleep(3600)

        server.chat = lambda _: silent()
        with pytest.raises(TaskFailed, match="in time"):
            await collect(engine, request(remaining_ms=300))

    run(work)


def test_closing_the_iterator_closes_the_connection() -> None:
    async def work(server: Server, engine: UrlEngine) -> None:
        closed = asyncio.Event()

        async def endless() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield chunk({"content": "x"})
                    await asyncio.sleep(0.01)
            finally:
                closed.set()

        server.chat = lambda _: endless()
        async with aclosing(engine.submit(request())) as events:
            assert isinstance(await anext(events), TaskDelta)
        async with asyncio.timeout(5):
            await closed.wait()

    run(work)


def test_opening_checks_server_key_and_model() -> None:
    async def opened(url: str, model: str = "tiny", alias: str = "a", key: str | None = None) -> None:
        async with open_url_engine(url, model, alias, key) as engine:
            assert engine.card.model is not None
            assert engine.card.model.n_ctx == 512
            assert "tools" in engine.card.model.features

    async def main() -> None:
        async with asyncio.timeout(20), serving() as server:
            await opened(server.url + "/", key="secret")
            assert server.keys == ["Bearer secret"]
            with pytest.raises(SetupError, match="it serves big, tiny"):
                await opened(server.url, "huge")
            with pytest.raises(SetupError, match="alias"):
                await opened(server.url, alias="two words")
            for answer, sentence in (
                (Response(status_code=401), "refuses the API key"),
                (Response(status_code=404), "lists no models"),
                (Response("<html>"), "lists no models"),
                ({"data": ["x"]}, "does not serve 'tiny'"),
            ):
                server.models = answer
                with pytest.raises(SetupError, match=sentence):
                    await opened(server.url)
        with pytest.raises(SetupError, match="does not answer"):
            await opened(server.url)
        for url in ("127.0.0.1:80", "ftp://host/v1", ""):
            with pytest.raises(SetupError, match="not an http or https URL"):
                await opened(url)

    asyncio.run(main())


def test_events_follow_the_standard() -> None:
    stream = (
        b"\xef\xbb\xbfdata: one\r\n\r\n: comment\n\nevent: x\ndata:two\ndata: three\n\n"
        b"id: 4\n\ndata\n\ndata: cut"
    )
    assert SseParser().feed(stream) == ["one", "two\nthree", ""]


@given(cuts=st.lists(st.integers(0, 60), max_size=6), end=st.sampled_from(["\n", "\r", "\r\n"]))
def test_events_do_not_depend_on_where_the_bytes_are_cut(cuts: list[int], end: str) -> None:
    stream = f"data: é{end}data: b{end}{end}: c{end}{end}data: €{end}{end}data: x{end}{end}".encode()
    edges = sorted({0, len(stream), *(cut % len(stream) for cut in cuts)})
    parser = SseParser()
    events: list[str] = []
    for begin, stop in zip(edges, [*edges[1:], len(stream)], strict=True):
        events += parser.feed(stream[begin:stop])
    events += parser.feed(b"\n")  # a last carriage return waits for what follows
    assert events == ["é\nb", "€", "x"]


def test_an_event_without_an_end_is_refused() -> None:
    parser = SseParser()
    with pytest.raises(ProtocolViolation) as raised:
        for _ in range(100):
            parser.feed(b"data: " + b"x" * 65_536)
    assert isinstance(raised.value, PeerError)


def test_logprobs_are_asked_for_and_passed_on() -> None:
    other = {"token": "Ho", "logprob": -2, "bytes": [72, 111]}
    told = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": [other]}

    async def work(server: Server, engine: UrlEngine) -> None:
        first = chunk({"content": "Hi"}).replace(
            b'"finish_reason"', b'"logprobs": %s, "finish_reason"' % json.dumps({"content": [told]}).encode()
        )
        server.chat = lambda _: sending(first, chunk(finish="stop"), DONE)
        async with aclosing(engine.submit(request(parameters=Parameters(logprobs=1)))) as events:
            delta = await anext(events)
        assert isinstance(delta, TaskDelta)
        assert delta.logprobs[0].model_dump() == {
            "token": "Hi",
            "logprob": -0.5,
            "bytes": [72, 105],
            "top": [other],
        }
        body = server.bodies[-1]
        assert (body["logprobs"], body["top_logprobs"]) == (True, 1)
        assert not {"echo", "logit_bias"} & set(body)

    run(work)


def test_a_server_that_tells_no_logprobs_has_failed_whoever_asked_for_them() -> None:
    async def work(server: Server, engine: UrlEngine) -> None:
        server.chat = lambda _: sending(chunk({"content": "Hi"}), chunk(finish="stop"), DONE)
        with pytest.raises(TaskFailed, match="logprobs"):
            await collect(engine, request(parameters=Parameters(logprobs=0)))
        assert (await collect(engine, request()))[0] == "Hi"

    run(work)
