"""What OpenAI's own client makes of the Responses API, over a real socket."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openai import AsyncOpenAI, BadRequestError, DefaultAsyncHttpxClient, NotFoundError
from openai.types.responses import (
    FunctionToolParam,
    Response,
    ResponseStreamEvent,
    ResponseTextDeltaEvent,
)
from pydantic import BaseModel, TypeAdapter

from monai_node.agents.request import RunRequest
from monai_node.mesh.gateway.app import create_app
from monai_node.mesh.gateway.caller import NOBODY
from monai_node.mesh.gateway.config import GatewayConfig
from monai_node.mesh.gateway.gate import RunGate
from monai_node.mesh.gateway.http.server import open_server
from monai_node.mesh.gateway.responses.background import BackgroundRun
from monai_node.mesh.gateway.responses.body import response_call
from monai_node.mesh.gateway.responses.form import ResponseForm
from monai_node.mesh.gateway.responses.store import ResponseStore
from monai_node.mesh.gateway.site import Site
from monai_node.mesh.gateway.testing import HeldRun, Script, ScriptedBackend, completed, provenance, says
from monai_node.registry.errors import NotFound, PeerLost
from monai_node.registry.events import AnswerDelta, RunEvent
from monai_node.registry.ids import RunId

DATA = Path(os.environ.get("MONAI_BENCH_DATA", Path(__file__).parents[4] / "shared" / "bench"))
QUICK = GatewayConfig(opening_seconds=0.02, keep_alive_seconds=0.05, stall_seconds=5)
WEATHER: FunctionToolParam = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": None,
}
_EVENT: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)

Use = Callable[[AsyncOpenAI, ScriptedBackend], Awaitable[None]]


def _with_client(script: Script, use: Use) -> None:
    async def main() -> None:
        backend = ScriptedBackend(script)
        async with asyncio.timeout(15), open_server(create_app(backend, QUICK), "127.0.0.1", 0) as address:
            base = f"{address.url}/v1"
            # Reading the certificates of the world takes longer than all the rest.
            plain = DefaultAsyncHttpxClient(verify=False)
            async with AsyncOpenAI(base_url=base, api_key="x", max_retries=0, http_client=plain) as client:
                await use(client, backend)

    asyncio.run(main())


async def _calls_a_tool(request: RunRequest) -> AsyncGenerator[RunEvent, None]:
    if request.messages[-1].role == "tool":
        yield AnswerDelta(run=request.run, text=f"It is {request.messages[-1].content}.")
        yield completed(request.run, provenance())
        return
    function = {"name": "weather", "arguments": '{"city": "Oslo"}'}
    done = completed(request.run, provenance())
    calls = [{"id": "call_7", "type": "function", "function": function}]
    yield done.model_copy(update={"finish_reason": "tool_calls", "tool_calls": calls})


async def _is_cut(request: RunRequest) -> AsyncGenerator[RunEvent, None]:
    yield AnswerDelta(run=request.run, text="Hel")
    yield completed(request.run, provenance()).model_copy(update={"finish_reason": "length"})


async def _until(client: AsyncOpenAI, name: str, status: str) -> Response:
    while (response := await client.responses.retrieve(name)).status != status:
        await asyncio.sleep(0.01)
    return response


# --- one answer -------------------------------------------------------------------------------------
def test_an_answer_its_usage_and_who_made_it() -> None:
    async def use(client: AsyncOpenAI, backend: ScriptedBackend) -> None:
        answer = await client.responses.create(
            model="mesh", input="hello", instructions="be kind", max_output_tokens=20, metadata={"a": "b"}
        )
        assert answer.output_text == "Hello"
        assert answer.status == "completed"
        assert answer.usage is not None
        assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (3, 2, 5)
        assert answer.metadata == {"a": "b"}
        assert answer.model_extra is not None
        assert answer.model_extra["mesh"]["parts"][0]["peer_name"] == "anna"
        (request,) = backend.requests
        assert [(message.role, message.content) for message in request.messages] == [
            ("system", "be kind"),
            ("user", "hello"),
        ]
        assert request.parameters.max_tokens == 20

    _with_client(says("Hel", "lo"), use)


class _Colour(BaseModel):
    name: str


def test_a_parsed_answer_comes_of_a_schema() -> None:
    async def use(client: AsyncOpenAI, backend: ScriptedBackend) -> None:
        answer = await client.responses.parse(model="mesh", input="hello", text_format=_Colour)
        assert answer.output_parsed == _Colour(name="red")
        schema = backend.requests[0].parameters.json_schema
        assert schema is not None
        assert schema["required"] == ["name"]

    _with_client(says('{"name": ', '"red"}'), use)


def test_an_answer_that_was_cut_is_incomplete_whole_and_streamed() -> None:
    async def use(client: AsyncOpenAI, backend: ScriptedBackend) -> None:
        whole = await client.responses.create(model="mesh", input="hello")
        stream = await client.responses.create(model="mesh", input="hello", stream=True)
        *_, last = [event async for event in stream]
        assert last.type == "response.incomplete"
        for answer in (whole, last.response):
            assert answer.status == "incomplete"
            assert answer.incomplete_details is not None
            assert answer.incomplete_details.reason == "max_output_tokens"
            assert answer.output_text == "Hel"

    _with_client(_is_cut, use)


def test_a_stream_has_every_event_in_order_and_is_what_the_client_accumulates() -> None:
    async def use(client: AsyncOpenAI, backend: ScriptedBackend) -> None:
        async with client.responses.stream(model="mesh", input="hello") as stream:
            events = [event async for event in stream]
            final = await stream.get_final_response()
        assert [event.type for event in events] == [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
        assert [event.sequence_number for event in events] == list(range(10))
        assert final.output_text == "Hello"

    _with_client(says("Hel", "lo"), use)


def test_a_run_that_fails_is_a_status_before_the_first_text_and_an_event_after_it() -> None:
    async def early(client: AsyncOpenAI, backend: ScriptedBackend) -> None:
        for stream in (False, True):
            with pytest.raises(NotFoundError) as caught:
                await client.responses.create(model="llama", input="hello", stream=stream)
            assert caught.value.code == "model_not_found"

    async def late(client: AsyncOpenAI, backend: ScriptedBackend) -> None:
        stream = await client.responses.create(model="mesh", input="hello", stream=True)
        *_, last = [event async for event in stream]
        assert last.type == "response.failed"
        assert last.response.error is not None
        assert last.response.error.message == "anna is gone"
        assert last.response.output_text == "Hel"
        assert last.response.model_extra is not None
        assert last.response.model_extra["mesh"]["error"]["code"] == "peer_lost"

    _with_client(says(error=NotFound("no such model", code="model_not_found", param="model")), early)
    _with_client(says("Hel", error=PeerLost("anna is gone")), late)


def test_a_client_that_goes_away_ends_its_run() -> None:
    held = HeldRun()

    async def use(client: AsyncOpenAI, backend: ScriptedBackend) -> None:
        stream = await client.responses.create(model="mesh", input="hello", stream=True)
        await held.begun.wait()
        await stream.close()
        await backend.ended.wait()

    _with_client(held.script, use)


# --- tools and conversations --------------------------------------------------------------------------
def test_a_tool_is_called_and_its_output_answered_in_the_kept_conversation() -> None:
    async def use(client: AsyncOpenAI, backend: ScriptedBackend) -> None:
        asked = await client.responses.create(
            model="mesh", input="Oslo?", tools=[WEATHER], tool_choice="required"
        )
        async with client.responses.stream(model="mesh", input="Oslo?", tools=[WEATHER]) as stream:
            types = [event.type async for event in stream]
            streamed = await stream.get_final_response()
        assert types[2:] == [
            "response.output_item.added",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            "response.output_item.done",
            "response.completed",
        ]
        for answer in (asked, streamed):
            (call,) = answer.output
            assert call.type == "function_call"
            assert (call.call_id, call.name, call.arguments) == ("call_7", "weather", '{"city": "Oslo"}')
        answer = await client.responses.create(
            model="mesh",
            previous_response_id=asked.id,
            input=[{"type": "function_call_output", "call_id": "call_7", "output": "cold"}],
            tools=[WEATHER],
        )
        assert answer.output_text == "It is cold."
        user, assistant, tool = backend.requests[-1].messages
        assert (user.content, assistant.role, tool.role) == ("Oslo?", "assistant", "tool")
        assert assistant.extra["tool_calls"][0]["function"]["name"] == "weather"
        assert tool.extra == {"tool_call_id": "call_7"}
        assert backend.requests[0].parameters.tools[0]["function"]["name"] == "weather"
        assert backend.requests[0].parameters.tool_choice == "required"

    _with_client(_calls_a_tool, use)


def test_a_conversation_goes_on_without_the_instructions_of_before() -> None:
    async def use(client: AsyncOpenAI, backend: ScriptedBackend) -> None:
        first = await client.responses.create(model="mesh", input="one", instructions="be kind")
        second = await client.responses.create(model="mesh", input="two", previous_response_id=first.id)
        third = await client.responses.create(model="mesh", input="three", previous_response_id=second.id)
        assert third.previous_response_id == second.id
        said = [(message.role, message.content) for message in backend.requests[-1].messages]
        assert said == [
            ("user", "one"),
            ("assistant", "Hello"),
            ("user", "two"),
            ("assistant", "Hello"),
            ("user", "three"),
        ]
        reference = {"type": "item_reference", "id": first.output[0].id}
        await client.responses.create(model="mesh", input=[{"role": "user", "content": "say"}, reference])  # pyright: ignore[reportArgumentType]
        assert [message.content for message in backend.requests[-1].messages] == ["say", "Hello"]

    _with_client(says("Hel", "lo"), use)


# --- what is kept ---------------------------------------------------------------------------------------
def test_a_response_is_kept_listed_and_deleted() -> None:
    async def use(client: AsyncOpenAI, backend: ScriptedBackend) -> None:
        stream = await client.responses.create(
            model="mesh",
            input=[{"role": "user", "content": "one"}, {"role": "user", "content": "two"}],
            stream=True,
        )
        *_, last = [event async for event in stream]
        assert last.type == "response.completed"
        name = last.response.id
        assert (await client.responses.retrieve(name)).output_text == "Hello"
        listed = [item async for item in client.responses.input_items.list(name, limit=1, order="asc")]
        assert [item.content[0].text for item in listed if item.type == "message"] == ["one", "two"]  # pyright: ignore
        await client.responses.delete(name)
        with pytest.raises(NotFoundError):
            await client.responses.retrieve(name)
        with pytest.raises(NotFoundError) as caught:
            await client.responses.create(model="mesh", input="x", previous_response_id=name)
        assert caught.value.code == "previous_response_not_found"

    _with_client(says("Hel", "lo"), use)


def test_what_is_not_to_be_stored_is_not_kept() -> None:
    async def use(client: AsyncOpenAI, backend: ScriptedBackend) -> None:
        answer = await client.responses.create(model="mesh", input="hello", store=False)
        with pytest.raises(NotFoundError):
            await client.responses.retrieve(answer.id)
        with pytest.raises(BadRequestError):
            await client.responses.create(model="mesh", input="hello", store=False, background=True)

    _with_client(says("Hel", "lo"), use)


# --- in the background ------------------------------------------------------------------------------------
def test_a_background_response_goes_on_without_its_client_and_is_streamed_again() -> None:
    held = HeldRun()

    async def use(client: AsyncOpenAI, backend: ScriptedBackend) -> None:
        queued = await client.responses.create(model="mesh", input="hello", background=True)
        assert queued.status == "queued"
        await held.begun.wait()
        assert (await _until(client, queued.id, "in_progress")).output == []
        stream = await client.responses.retrieve(queued.id, stream=True)
        texts: list[str] = []
        seen: list[int] = []
        async for event in stream:
            seen.append(event.sequence_number)
            if isinstance(event, ResponseTextDeltaEvent):
                texts.append(event.delta)
                held.release.set()
        assert texts == ["Hel", "lo"]
        assert seen == list(range(len(seen)))
        assert (await _until(client, queued.id, "completed")).output_text == "Hello"
        later = await client.responses.retrieve(queued.id, stream=True, starting_after=seen[-2])
        assert [event.type async for event in later] == ["response.completed"]
        with pytest.raises(BadRequestError):
            await client.responses.retrieve(queued.id, stream=True, starting_after=seen[-1] + 1)

    _with_client(held.script, use)


def test_a_background_stream_outlives_its_client() -> None:
    held = HeldRun()

    async def use(client: AsyncOpenAI, backend: ScriptedBackend) -> None:
        stream = await client.responses.create(model="mesh", input="hello", background=True, stream=True)
        first = await anext(aiter(stream))
        assert first.type == "response.queued"
        await held.begun.wait()
        await stream.close()
        held.release.set()
        assert (await _until(client, first.response.id, "completed")).output_text == "Hello"

    _with_client(held.script, use)


def test_a_silent_background_stream_is_kept_alive() -> None:
    held = HeldRun()

    async def use(client: AsyncOpenAI, backend: ScriptedBackend) -> None:
        queued = await client.responses.create(model="mesh", input="hello", background=True)
        again = client.responses.with_streaming_response.retrieve(queued.id, stream=True)
        async with again as answer:
            async for line in answer.iter_lines():
                if line == ": keep-alive":
                    held.release.set()
        assert held.release.is_set()

    _with_client(held.script, use)


def test_a_background_response_is_cancelled_and_its_run_ends() -> None:
    held = HeldRun()

    async def use(client: AsyncOpenAI, backend: ScriptedBackend) -> None:
        queued = await client.responses.create(model="mesh", input="hello", background=True)
        await held.begun.wait()
        assert (await client.responses.cancel(queued.id)).status == "cancelled"
        await backend.ended.wait()
        assert (await client.responses.cancel(queued.id)).status == "cancelled"
        with pytest.raises(BadRequestError):
            await client.responses.create(model="mesh", input="x", previous_response_id=queued.id)
        answer = await client.responses.create(model="mesh", input="hello", background=True)
        held.release.set()
        await _until(client, answer.id, "completed")
        with pytest.raises(BadRequestError):
            await client.responses.cancel(answer.id)

    _with_client(held.script, use)


def test_a_background_run_that_fails_says_so_in_its_response() -> None:
    async def use(client: AsyncOpenAI, backend: ScriptedBackend) -> None:
        queued = await client.responses.create(model="llama", input="hello", background=True)
        failed = await _until(client, queued.id, "failed")
        assert failed.error is not None
        assert (failed.error.code, failed.error.message) == ("invalid_prompt", "no such model")

    _with_client(says(error=NotFound("no such model", code="model_not_found", param="model")), use)


def test_a_background_response_that_is_over_keeps_no_more_than_is_counted() -> None:
    """The conversation behind it may be a megabyte that earlier responses made."""

    async def main() -> None:
        own = ResponseStore(lambda: 0.0).of("")
        call = response_call(b'{"input": "hello", "background": true}', RunId("run-1"), own)
        site = Site(ScriptedBackend(), GatewayConfig(), RunGate(1))
        run = BackgroundRun(site, ResponseForm(call, lambda: 0.0), own)
        assert own.get("resp_1").cancel is not None
        await run.carry_out(NOBODY)
        assert (own.get("resp_1").response["status"], own.get("resp_1").cancel) == ("completed", None)
        assert site.gate.running_count == 0

    asyncio.run(main())


# --- OpenAI's own document --------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def components() -> dict[str, Any]:
    path = DATA / "openai" / "openapi-trimmed.json"
    if not path.exists():
        pytest.skip(f"no OpenAPI document at {path}")
    return json.loads(path.read_text())["components"]


@pytest.mark.parametrize(
    "script", [says("Hel", "lo"), _calls_a_tool, _is_cut, says("x", error=PeerLost("gone"))]
)
def test_every_event_and_object_is_as_openai_documents_them(
    script: Script, components: dict[str, Any]
) -> None:
    def check(value: Any, name: str) -> None:
        schema = {"$ref": f"#/components/schemas/{name}", "components": components}
        Draft202012Validator(schema).validate(value)  # pyright: ignore[reportUnknownMemberType]

    async def use(client: AsyncOpenAI, backend: ScriptedBackend) -> None:
        body: dict[str, Any] = {"model": "mesh", "input": "hello", "tools": [WEATHER]}
        async with client.responses.with_streaming_response.create(**body, stream=True) as answer:
            lines = [line async for line in answer.iter_lines()]
        events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
        names = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
        assert names == [event["type"] for event in events]
        for event in events:
            schema = components["schemas"]["ResponseStreamEvent"]["anyOf"]
            refs = [one["$ref"].rpartition("/")[2] for one in schema]
            (name,) = [ref for ref in refs if _type_of(components, ref) == event["type"]]
            check(event, name)
            assert _EVENT.validate_python(event).type == event["type"]
        last = events[-1]["response"]
        if last["status"] != "failed":
            kept = await client.responses.with_raw_response.retrieve(last["id"])
            check(json.loads(kept.content), "Response")

    _with_client(script, use)


def _type_of(components: dict[str, Any], name: str) -> str:
    return components["schemas"][name]["properties"]["type"]["enum"][0]
