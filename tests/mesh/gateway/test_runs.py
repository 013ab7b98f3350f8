"""Plans over HTTP: shown by `POST /v1/plan`, edited, and carried out by `POST /v1/runs`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any, get_args

import httpx
import pytest
from pydantic import ValidationError

from monai_node.agents.graph import DEPTH_MAX, TASKS_MAX, Task, TaskGraph
from monai_node.agents.plan import Plan, PlannerName, Reason
from monai_node.agents.request import RunRequest
from monai_node.mesh.cli_plan import PLAN_KEYS
from monai_node.mesh.gateway.app import create_app
from monai_node.mesh.gateway.backend import Planned
from monai_node.mesh.gateway.config import GatewayConfig
from monai_node.mesh.gateway.openai.bodies import RunBody
from monai_node.mesh.gateway.plan_view import PlanView, sentence
from monai_node.mesh.gateway.testing import ScriptedBackend, completed, provenance, says
from monai_node.registry.errors import NoProvider, PeerLost
from monai_node.registry.events import PlanTask, RunCreated, RunEvent
from monai_node.registry.wire import REQUEST_BODY_BYTES_MAX, ChatMessage

BOTH = "Name a tree, then write a poem about it."
GRAPH: dict[str, Any] = {"tasks": [{"id": "t1", "text": "say hello"}]}


def _post(path: str, body: object, backend: ScriptedBackend | None = None) -> httpx.Response:
    async def post() -> httpx.Response:
        app = create_app(backend or ScriptedBackend())
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.post(path, json=body)

    return asyncio.run(post())


def _refused(**body: Any) -> dict[str, Any]:
    backend = ScriptedBackend()
    answer = _post("/v1/runs", {"graph": GRAPH, **body}, backend)
    assert 400 <= answer.status_code < 500
    assert backend.requests == []
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "\n" not in error["message"]
    return error


# --- POST /v1/plan ----------------------------------------------------------------------------------
def test_a_plan_says_of_every_task_where_its_words_stand_why_it_waits_and_who_could_do_it() -> None:
    backend = ScriptedBackend()
    view = _post("/v1/plan", {"text": BOTH}, backend).json()
    assert view["text"] == BOTH
    assert view["planner"] == "rules"
    assert view["why"] == "The request was divided into 2 tasks: it asks for several things (read by rules)."
    first, second = view["tasks"]
    assert [task["text"] for task in view["tasks"]] == ["Name a tree", "write a poem about it"]
    assert first["needs"] == []
    assert first["spans"] == [{"start": 0, "end": 11, "text": "Name a tree"}]
    (span,) = second["spans"]
    assert BOTH[span["start"] : span["end"]] == span["text"] == "write a poem about it"
    (need,) = second["needs"]
    assert need["task"] == "t1"
    assert need["why"]
    (best,) = second["candidates"]
    assert (best["peer_name"], best["skill"], best["score"]) == ("anna", "chat", 0.9)
    assert best["reasons"] == ["trusted: write a poem about it"]


def test_the_graph_of_a_plan_may_be_sent_back_as_it_is_and_shows_what_the_plan_showed() -> None:
    view = _post("/v1/plan", {"text": BOTH}).json()
    backend = ScriptedBackend()
    body = {key: view[key] for key in ("graph", "shown", "text")}
    assert _post("/v1/runs", body, backend).status_code == 200
    (request,) = backend.requests
    assert isinstance(request.options.plan, list)
    assert TaskGraph(tasks=tuple(request.options.plan)) == TaskGraph.model_validate(view["graph"])
    assert request.options.shown == ["t1", "t2"]
    assert request.messages == (ChatMessage(role="user", content=BOTH),)


def test_of_a_long_span_the_beginning_is_shown() -> None:
    text = f"Summarise this:\n\n{'word ' * 500}"
    (task,) = _post("/v1/plan", {"text": text}).json()["tasks"]
    assert [(span["end"] - span["start"] > 2000, len(span["text"])) for span in task["spans"]] == [
        (True, 200)
    ]


def test_a_request_that_is_not_divided_says_why() -> None:
    view = _post("/v1/plan", {"text": BOTH, "mesh": {"plan": "never"}}).json()
    assert view["reason"] == "never"
    assert view["is_passthrough"]
    assert view["why"] == "The request stays one task: the request says that it is not to be divided."


@pytest.mark.parametrize("reason", [name for part in get_args(Reason) for name in get_args(part) or (part,)])
@pytest.mark.parametrize("planner", [None, *get_args(PlannerName)])
def test_every_way_that_a_plan_comes_about_has_a_sentence(reason: Reason, planner: PlannerName) -> None:
    graph = TaskGraph(tasks=(Task(id="t1", text="x"),))
    said = sentence(Plan(graph=graph, reason=reason, shown=("t1",), planner=planner))
    assert said.endswith(".")
    assert said[0].isupper()


def test_the_command_line_knows_the_keys_of_a_plan() -> None:
    assert set(PLAN_KEYS) == set(PlanView.model_fields)


# --- POST /v1/runs: what is understood -----------------------------------------------------------------
def test_a_run_takes_parameters_and_mesh_options_as_a_chat_does() -> None:
    backend = ScriptedBackend()
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": BOTH}]
    wishes = {"temperature": 0, "max_tokens": 7, "mesh": {"privacy": "local", "deadline_seconds": 9}}
    _post("/v1/runs", {"graph": GRAPH, "messages": messages, "model": "tiny", **wishes}, backend)
    (request,) = backend.requests
    assert [message.role for message in request.messages] == ["system", "user"]
    assert (request.parameters.temperature, request.parameters.max_tokens) == (0, 7)
    assert (request.options.privacy, request.options.deadline_seconds, request.model) == ("local", 9, "tiny")


def test_a_plan_alone_is_enough() -> None:
    backend = ScriptedBackend()
    assert _post("/v1/runs", {"graph": GRAPH}, backend).status_code == 200
    assert backend.requests[0].messages == ()


CHAIN = [{"id": f"t{n}", "text": "x", "depends_on": [f"t{n - 1}"] if n else []} for n in range(DEPTH_MAX + 1)]


@pytest.mark.parametrize(
    ("tasks", "word"),
    [
        ([], "at least one task"),
        ([{"id": "a", "text": "x"}, {"id": "a", "text": "y"}], "called 'a'"),
        ([{"id": "a", "text": "x", "depends_on": ["b"]}], "'b', which is not in the plan"),
        ([{"id": "a", "text": "x", "depends_on": ["a"]}], "depends on itself"),
        (
            [{"id": "a", "text": "x", "depends_on": ["b"]}, {"id": "b", "text": "y", "depends_on": ["a"]}],
            "in a circle",
        ),
        ([{"id": f"t{n}", "text": "x"} for n in range(TASKS_MAX + 1)], f"{TASKS_MAX} is the most"),
        (CHAIN, f"{DEPTH_MAX} is the most"),
    ],
)
def test_a_graph_that_cannot_be_run_is_refused_before_anything_runs(
    tasks: list[dict[str, Any]], word: str
) -> None:
    error = _refused(graph={"tasks": tasks})
    assert word in error["message"]
    assert error["param"] == "graph"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"graph": None}, "graph"),
        ({"graph": {"tasks": [{"id": "a", "text": "x", "colour": 1}]}}, "graph.tasks.0.colour"),
        ({"graph": {"tasks": [{"id": "a b", "text": "x"}]}}, "graph.tasks.0.id"),
        ({"graph": {"tasks": [{"id": "a", "text": ""}]}}, "graph.tasks.0.text"),
        ({"graph": {**GRAPH, "colour": 1}}, "graph.colour"),
        ({"colour": 1}, "colour"),
        ({"shown": []}, "shown"),
        ({"text": ""}, "text"),
        ({"text": "x", "messages": [{"role": "user", "content": "x"}]}, "messages"),
        ({"temperature": 9}, "temperature"),
        ({"mesh": {"plan": "never"}}, "mesh"),
        ({"mesh": {"colour": 1}}, "mesh.colour"),
    ],
)
def test_a_wrong_field_of_a_run_is_refused_by_name(body: dict[str, Any], param: str) -> None:
    assert _refused(**body)["param"] == param


def test_options_of_mesh_are_listed_only_where_one_was_misspelt() -> None:
    assert "mesh takes privacy" in _refused(mesh={"privat": "local"})["message"]
    assert "mesh takes" not in _refused(graph={**GRAPH, "colour": 1})["message"]


def test_a_plan_larger_than_a_body_may_be_is_refused() -> None:
    text = "x" * REQUEST_BODY_BYTES_MAX
    assert _refused(graph={"tasks": [{"id": "a", "text": text}]})["code"] == "request_too_large"


# --- POST /v1/runs: what is answered ---------------------------------------------------------------------
def test_a_run_is_answered_with_what_became_of_every_task() -> None:
    backend = ScriptedBackend(says("Hel", "lo"))
    answer = _post("/v1/runs", {"graph": GRAPH}, backend)
    run = answer.json()
    assert answer.headers["x-mesh-run"] == run["run"] == backend.requests[0].run
    assert (run["object"], run["answer"], run["finish_reason"]) == ("run", "Hello", "stop")
    assert run["tasks"] == [{"task": "t1", "text": "say hello", "depends_on": [], "status": "completed"}]
    assert [part["peer_name"] for part in run["parts"]] == ["anna"]
    assert run["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def test_a_streamed_run_is_its_events_and_nothing_else() -> None:
    answer = _post("/v1/runs", {"graph": GRAPH, "stream": True}, ScriptedBackend(says("Hel", "lo")))
    assert answer.headers["content-type"].startswith("text/event-stream")
    blocks = [block.split("\n") for block in answer.text.strip().split("\n\n")]
    events = [json.loads(data.removeprefix("data: ")) for _, data in blocks]
    assert [name for name, _ in blocks] == [f"event: {event['type']}" for event in events]
    types = ["run.created", "plan.task", "answer.delta", "answer.delta", "answer.completed"]
    assert [event["type"] for event in events] == types


def test_a_run_that_fails_at_once_has_an_error_status_streamed_or_not() -> None:
    async def fails(request: RunRequest) -> AsyncGenerator[RunEvent, None]:
        yield RunCreated(run=request.run)
        raise NoProvider("nobody", retry_after_seconds=9)

    for stream in (False, True):
        answer = _post("/v1/runs", {"graph": GRAPH, "stream": stream}, ScriptedBackend(fails))
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "9")
        assert answer.json()["error"]["message"] == "nobody"


def test_a_run_that_fails_on_the_way_ends_its_stream_with_the_error() -> None:
    backend = ScriptedBackend(says("Half", error=PeerLost("the peer went away")))
    answer = _post("/v1/runs", {"graph": GRAPH, "stream": True}, backend)
    last = json.loads(answer.text.strip().rpartition("data: ")[2])
    assert (last["type"], last["code"], last["message"]) == ("error", "peer_lost", "the peer went away")


def test_more_runs_than_allowed_are_asked_to_come_back() -> None:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(
            create_app(ScriptedBackend(), GatewayConfig(runs_max=0, waiting_max=0))
        )
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.post("/v1/runs", json={"graph": GRAPH})

    assert asyncio.run(ask()).status_code == 429


# --- what is accepted ------------------------------------------------------------------------------------
@pytest.mark.parametrize("stream", [False, True])
def test_a_plan_is_accepted_when_its_run_went_well(stream: bool) -> None:
    backend = ScriptedBackend()
    _post("/v1/runs", {"graph": GRAPH, "text": BOTH, "stream": stream}, backend)
    assert backend.accepted == backend.requests


def test_a_plan_is_not_accepted_when_a_part_failed_or_it_came_with_a_chat() -> None:
    async def half(request: RunRequest) -> AsyncGenerator[RunEvent, None]:
        yield PlanTask(run=request.run, task="t1", text="say hello", depends_on=[])
        failed = provenance().model_copy(update={"status": "failed"})
        yield completed(request.run, provenance("t2"), failed)

    backend = ScriptedBackend(half)
    run = _post("/v1/runs", {"graph": GRAPH}, backend).json()
    assert [task["status"] for task in run["tasks"]] == ["failed"]
    _post("/v1/runs", {"graph": GRAPH}, ScriptedBackend(says("Half", error=PeerLost("gone"))))
    chat = {"messages": [{"role": "user", "content": BOTH}], "mesh": {"plan": GRAPH["tasks"]}}
    chatting = ScriptedBackend()
    assert _post("/v1/chat/completions", chat, chatting).status_code == 200
    assert backend.accepted == chatting.accepted == []


@pytest.mark.parametrize("task", [{}, {"id": "a", "text": "b"}], ids=["faulty", "wellformed"])
def test_of_a_plan_with_thousands_of_tasks_only_the_first_are_looked_at(task: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as refused:
        RunBody.model_validate({"graph": {"tasks": [task] * 10_000}})
    assert refused.value.error_count() < 5


def test_when_the_client_goes_nobody_plans_for_it_any_longer() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    class Slow(ScriptedBackend):
        async def plan(self, request: RunRequest) -> Planned:
            begun.set()
            try:
                await asyncio.Event().wait()
                raise AssertionError
            finally:
                ended.set()

    async def receive() -> dict[str, object]:
        if received:
            await begun.wait()
            return {"type": "http.disconnect"}
        received.append(True)
        return {"type": "http.request", "body": b'{"text": "hello"}', "more_body": False}

    async def send(message: object) -> None:
        raise AssertionError(f"{message} was sent to nobody")

    received: list[bool] = []
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": "/v1/plan",
        "raw_path": b"/v1/plan",
        "query_string": b"",
        "headers": headers,
        "scheme": "http",
        "server": ("localhost", 80),
    }

    async def post() -> None:
        async with asyncio.timeout(10):
            await create_app(Slow())(scope, receive, send)  # pyright: ignore[reportArgumentType]

    asyncio.run(post())
    assert ended.is_set()
