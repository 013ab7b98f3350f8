"""The answer objects, also held against OpenAI's own OpenAPI document where it is at hand."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, cast

import pytest

from monai_node.mesh.gateway.http.json_io import encode_json
from monai_node.mesh.gateway.openai.completion import Chunks, Head, completion
from monai_node.mesh.gateway.said import Said
from monai_node.mesh.gateway.testing import completed, provenance
from monai_node.registry.events import (
    AnswerCompleted,
    AnswerDelta,
    PlanTask,
    RunEvent,
    RunFailed,
    TaskText,
)
from monai_node.registry.wire import LikelyToken, TokenLogprob

HEAD = Head(run="run-abc", model="mesh", created=1_700_000_000)
TASK = PlanTask(run="run-abc", task="t1", text="say hello", depends_on=[])
DONE = completed("run-abc", provenance("t1"), provenance("t2", peer_name="béla"))
TOOL_DONE = DONE.model_copy(
    update={
        "finish_reason": "tool_calls",
        "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Łódź"}}}],
    }
)
DATA = Path(os.environ.get("MONAI_BENCH_DATA", Path(__file__).parents[4] / "shared" / "bench"))


def _stream(*events: RunEvent, include_usage: bool = False, has_events: bool = False) -> bytes:
    chunks = Chunks(HEAD, include_usage=include_usage, has_events=has_events)
    return chunks.opening() + b"".join(chunks.frames(event) for event in events)


def _objects(stream: bytes) -> list[dict[str, Any]]:
    """The objects of an SSE stream, which must end with [DONE]."""
    frames = [frame.removeprefix("data: ") for frame in stream.decode().split("\n\n")]
    assert frames[-2:] == ["[DONE]", ""]
    return [json.loads(frame) for frame in frames[:-2]]


def _said(text: str) -> AnswerDelta:
    return AnswerDelta(run="run-abc", text=text)


def _completion(done: AnswerCompleted, text: str = "Hello") -> dict[str, Any]:
    said = Said("run-abc")
    for event in (TASK, _said(text), done):
        said.take(event)
    return json.loads(encode_json(completion(HEAD, [said])))


def test_a_whole_answer_names_who_made_each_part() -> None:
    answer = _completion(DONE)
    assert answer["id"] == "chatcmpl-abc"
    message = {"role": "assistant", "content": "Hello", "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    assert answer["choices"] == [choice]
    assert answer["usage"] == {"prompt_tokens": 6, "completion_tokens": 4, "total_tokens": 10}
    assert answer["mesh"]["run"] == "run-abc"
    assert answer["mesh"]["tasks"] == [{"task": "t1", "text": "say hello", "depends_on": []}]
    assert [part["peer_name"] for part in answer["mesh"]["parts"]] == ["anna", "béla"]


def test_tool_calls_have_no_content_and_arguments_in_a_string() -> None:
    choice = _completion(TOOL_DONE, text="")["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    function = {"name": "weather", "arguments": '{"city":"Łódź"}'}
    expected = {"id": "call_0", "type": "function", "function": function}
    assert choice["message"]["tool_calls"] == [expected]


def test_a_stream_has_one_id_a_role_the_text_and_the_provenance_at_the_end() -> None:
    first, *deltas, last = _objects(_stream(TASK, _said("Hel"), _said(""), _said("lo"), DONE))
    chunks = [first, *deltas, last]
    assert {(chunk["id"], chunk["created"]) for chunk in chunks} == {("chatcmpl-abc", HEAD.created)}
    assert first["choices"][0]["delta"]["role"] == "assistant"
    assert [chunk["choices"][0]["delta"] for chunk in deltas] == [
        {"content": "Hel"},
        {"content": "lo"},
    ]
    finishes = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert finishes == [None, None, None, "stop"]
    assert [part["task"] for part in last["mesh"]["parts"]] == ["t1", "t2"]
    assert all("usage" not in chunk for chunk in chunks)


def test_usage_is_null_on_every_chunk_and_then_has_a_chunk_of_its_own() -> None:
    *chunks, usage = _objects(_stream(_said("Hello"), DONE, include_usage=True))
    assert [chunk["usage"] for chunk in chunks] == [None, None, None]
    assert usage["choices"] == []
    assert usage["usage"]["total_tokens"] == 10


def test_streamed_tool_calls_come_as_name_then_arguments() -> None:
    _, named, arguments, last = _objects(_stream(TOOL_DONE))
    opened = named["choices"][0]["delta"]["tool_calls"][0]
    assert opened["function"] == {"name": "weather", "arguments": ""}
    assert (opened["index"], opened["id"], opened["type"]) == (0, "call_0", "function")
    piece = {"index": 0, "function": {"arguments": '{"city":"Łódź"}'}}
    assert arguments["choices"][0]["delta"]["tool_calls"] == [piece]
    assert last["choices"][0]["finish_reason"] == "tool_calls"


def test_a_failed_run_ends_its_stream_with_an_error_object() -> None:
    failed = RunFailed(
        run="run-abc", status=502, kind="server_error", code="peer_lost", message="Anna is gone"
    )
    *_, last = _objects(_stream(_said("Hel"), failed))
    message = {"message": "Anna is gone", "type": "server_error", "param": None}
    assert last == {"error": {**message, "code": "peer_lost"}}


def test_events_are_sent_by_name_on_request_only() -> None:
    events: list[RunEvent] = [
        TASK,
        TaskText(run="run-abc", task="t1", text="He"),
        _said("He"),
        DONE,
    ]
    assert b"event:" not in _stream(*events)
    lines = _stream(*events, has_events=True).decode().splitlines()
    names = [line for line in lines if line.startswith("event:")]
    assert names == ["event: plan.task", "event: task.delta"]


# --- OpenAI's own document ------------------------------------------------------------------------
@pytest.fixture(scope="module")
def schemas() -> dict[str, Any]:
    path = DATA / "openai" / "openapi-trimmed.json"
    if not path.exists():
        pytest.skip(f"no OpenAPI document at {path}")
    return json.loads(path.read_text())["components"]["schemas"]


_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def _problems(schema: dict[str, Any], value: Any, schemas: dict[str, Any], at: str) -> list[str]:
    """Why `value` is not what a JSON schema says: as much of JSON Schema as that document uses."""
    if value is None and schema.get("nullable"):
        return []
    if "$ref" in schema:
        return _problems(schemas[schema["$ref"].rpartition("/")[2]], value, schemas, at)
    members = cast("list[dict[str, Any]]", schema.get("anyOf") or schema.get("oneOf") or [])
    if members and all(_problems(member, value, schemas, at) for member in members):
        return [f"{at}: fits no alternative"]
    wanted = schema.get("type")
    if wanted and not isinstance(value, _TYPES[wanted]):
        return [f"{at}: {value!r} is not of the type {wanted}"]
    found: list[str] = []
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{at}: {value!r} is not one of {schema['enum']}")
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        found += [f"{at}.{name}: missing" for name in schema.get("required", []) if name not in fields]
        for name, part in cast("dict[str, Any]", schema.get("properties", {})).items():
            if name in fields:
                found += _problems(part, fields[name], schemas, f"{at}.{name}")
    if isinstance(value, list) and "items" in schema:
        for n, item in enumerate(cast("list[Any]", value)):
            found += _problems(schema["items"], item, schemas, f"{at}.{n}")
    return found


def test_the_schema_check_finds_what_is_wrong(schemas: dict[str, Any]) -> None:
    answer = _completion(DONE)
    del answer["choices"][0]["logprobs"]
    answer["choices"][0]["finish_reason"] = "done"
    found = _problems(schemas["CreateChatCompletionResponse"], answer, schemas, "$")
    assert len(found) == 2


@pytest.mark.parametrize("done", [DONE, TOOL_DONE])
def test_whole_answers_are_what_openai_documents(schemas: dict[str, Any], done: AnswerCompleted) -> None:
    schema = schemas["CreateChatCompletionResponse"]
    assert _problems(schema, _completion(done), schemas, "$") == []


@pytest.mark.parametrize("done", [DONE, TOOL_DONE])
@pytest.mark.parametrize("include_usage", [False, True])
def test_chunks_are_what_openai_documents(
    schemas: dict[str, Any], done: AnswerCompleted, include_usage: bool
) -> None:
    schema = schemas["CreateChatCompletionStreamResponse"]
    for chunk in _objects(_stream(TASK, _said("Hello"), done, include_usage=include_usage)):
        assert _problems(schema, chunk, schemas, "$") == []


def test_what_is_told_of_tokens_is_what_openai_documents(schemas: dict[str, Any]) -> None:
    other = LikelyToken(token="Ho", logprob=-2.0, bytes=[72, 111])
    told = TokenLogprob(token="Hi", logprob=-0.5, bytes=[72, 105], top=[other])
    delta = AnswerDelta(run="run-abc", text="Hi", logprobs=[told])
    said = Said("run-abc")
    for event in (TASK, delta, DONE):
        said.take(event)
    whole = json.loads(encode_json(completion(HEAD, [said, said])))
    assert _problems(schemas["CreateChatCompletionResponse"], whole, schemas, "$") == []
    assert [choice["index"] for choice in whole["choices"]] == [0, 1]
    for chunk in _objects(_stream(TASK, delta, DONE)):
        assert _problems(schemas["CreateChatCompletionStreamResponse"], chunk, schemas, "$") == []
