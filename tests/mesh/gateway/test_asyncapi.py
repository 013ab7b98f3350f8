from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any, cast, get_args

import httpx
import pytest
from jsonschema import Draft202012Validator

from monai_node.mesh.gateway.app import create_app
from monai_node.mesh.gateway.socket.asyncapi import asyncapi_document, schema_document
from monai_node.mesh.gateway.socket.messages import Pong, line, refusal_of
from monai_node.mesh.gateway.testing import ScriptedBackend, completed, provenance
from monai_node.registry.errors import InvalidRequest, PeerLost
from monai_node.registry.events import (
    AnswerDelta,
    MadeItem,
    PlanTask,
    RunCreated,
    RunEvent,
    TaskContinued,
    TaskDispatched,
    TaskText,
    TaskWasAccepted,
    TaskWasCompleted,
    TaskWasFailed,
    run_failed,
)

RUN, TASK = "run-1", "t1"
PART = provenance().model_copy(update={"items": [MadeItem(item="one")], "spans": [(0, 3)]})
EVENTS: list[RunEvent] = [
    RunCreated(run=RUN),
    PlanTask(run=RUN, task=TASK, text="say hello", depends_on=[]),
    TaskDispatched(
        run=RUN, task=TASK, attempt="a1", skill="chat", peer="p", peer_name="anna", reasons=["near"]
    ),
    TaskWasAccepted(run=RUN, task=TASK, attempt="a1", position=0),
    TaskText(run=RUN, task=TASK, text="Hel"),
    TaskContinued(run=RUN, task=TASK, lost_peer="p", error="gone"),
    TaskWasCompleted(run=RUN, task=TASK, provenance=PART),
    TaskWasFailed(run=RUN, task=TASK, code="peer_lost", message="gone"),
    AnswerDelta(run=RUN, task=TASK, text="Hel"),
    completed(RUN, PART),
    run_failed(RUN, PeerLost("gone")),
]


def _schema(name: str) -> Any:
    return _validator({"$ref": f"#/$defs/{name}", "$defs": schema_document()["$defs"]})


def _validator(schema: dict[str, Any]) -> Any:  # jsonschema's own types are partly unknown
    return Draft202012Validator(schema)


def test_the_events_are_all_that_a_run_can_say() -> None:
    assert {type(event) for event in EVENTS} == set(get_args(get_args(RunEvent)[0]))


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.type)
def test_every_event_is_what_the_schema_says_over_http_and_over_the_socket(event: RunEvent) -> None:
    for name, schema in ((None, "RunEvent"), ("mine", "RunEvent"), ("mine", "ServerMessage")):
        _schema(schema).validate(json.loads(line(event, name)))


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.type)
def test_an_event_that_lacks_a_field_or_has_another_is_not(event: RunEvent) -> None:
    told = json.loads(line(event))
    assert not _schema("RunEvent").is_valid({**told, "more": 1})
    for field in set(told) - {"id"}:
        assert not _schema("RunEvent").is_valid({key: told[key] for key in told if key != field}), field


def test_what_the_socket_says_besides_events_is_what_the_schema_says() -> None:
    for said in (Pong(id="p1"), refusal_of(InvalidRequest("no"), "mine"), refusal_of(PeerLost("gone"))):
        _schema("ServerMessage").validate(json.loads(line(said)))
        assert not _schema("RunEvent").is_valid(json.loads(line(said)))


@pytest.mark.parametrize(
    ("message", "is_one"),
    [
        ({"type": "ping"}, True),
        ({"type": "run.cancel", "run": "run-1"}, True),
        ({"type": "run.start", "id": "a", "request": {"messages": [{"role": "user", "content": "x"}]}}, True),
        ({"type": "run.start", "request": {"graph": {"tasks": [{"id": "t1", "text": "x"}]}}}, True),
        ({"type": "run.start", "request": {}}, False),
        ({"type": "run.start"}, False),
        ({"type": "run.stop"}, False),
    ],
)
def test_what_clients_say_is_what_the_schema_says(message: dict[str, Any], is_one: bool) -> None:
    assert _schema("ClientMessage").is_valid(message) is is_one
    assert _validator(schema_document()).is_valid(message) is is_one


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(schema_document())


# --- the document ---------------------------------------------------------------------------------------
def _references(value: Any) -> Iterator[str]:
    match value:
        case {"$ref": str(found)}:
            yield found
        case dict():
            for child in cast("dict[str, Any]", value).values():
                yield from _references(child)
        case list():
            for child in cast("list[Any]", value):
                yield from _references(child)
        case _:
            pass


def _resolved(document: dict[str, Any], reference: str) -> Any:
    found: Any = document
    for key in reference.removeprefix("#/").split("/"):
        found = found[key]
    return found


def test_the_document_is_asyncapi_and_all_it_refers_to_is_there() -> None:
    document = asyncapi_document("127.0.0.1:8642")
    assert document["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= set(document["info"])
    for server in document["servers"].values():
        assert {"host", "protocol"} <= set(server)
    for reference in _references(document):
        assert reference.startswith("#/")
        _resolved(document, reference)
    for operation in document["operations"].values():
        assert operation["action"] in ("send", "receive")
        channel = _resolved(document, operation["channel"]["$ref"])
        offered = {message["$ref"] for message in channel["messages"].values()}
        for message in operation["messages"]:
            assert message["$ref"].startswith(operation["channel"]["$ref"] + "/messages/")
            assert _resolved(document, message["$ref"])["$ref"] in offered
    for kind in ("messages", "schemas"):
        assert all(re.fullmatch(r"[\w.-]+", name, re.ASCII) for name in document["components"][kind])
    names = {message["name"] for message in document["components"]["messages"].values()}
    assert names == {event.type for event in EVENTS} | {"run.start", "run.cancel", "ping", "pong"}


def test_both_are_served() -> None:
    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(create_app(ScriptedBackend()))
        async with httpx.AsyncClient(transport=transport, base_url="https://localhost:1234") as client:
            return [await client.get(path) for path in ("/asyncapi.json", "/v1/events.schema.json")]

    document, schema = (answer.json() for answer in asyncio.run(ask()))
    assert document["servers"]["gateway"] == {"host": "localhost:1234", "protocol": "wss"}
    assert schema == schema_document()
