from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from monai_node.agents.request import RunRequest
from monai_node.mesh.gateway.app import create_app, run_gate
from monai_node.mesh.gateway.backend import ModelEntry, Planned
from monai_node.mesh.gateway.config import GatewayConfig
from monai_node.mesh.gateway.metrics import Metrics
from monai_node.mesh.gateway.testing import ScriptedBackend, says
from monai_node.registry.errors import NoProvider

ANNA = ModelEntry("smollm2", "12D3KooWanna", "anna", digest="sha256:aa", n_ctx=2048)
BELA = ModelEntry("smollm2", "12D3KooWbela", "béla")
HELLO = {"messages": [{"role": "user", "content": "hello"}]}


def _ask(
    method: str,
    path: str,
    backend: ScriptedBackend | None = None,
    config: GatewayConfig | None = None,
    **more: Any,
) -> httpx.Response:
    async def ask() -> httpx.Response:
        app = create_app(backend or ScriptedBackend(entries=[ANNA, BELA]), config)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, **more)

    return asyncio.run(ask())


def test_a_completion_is_answered_by_the_backend_that_got_the_request() -> None:
    backend = ScriptedBackend(says("Hello"))
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    answer = _ask("POST", "/v1/chat/completions", backend, json=HELLO, headers={"traceparent": trace})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["choices"][0]["message"]["content"] == "Hello"
    assert answer.headers["x-mesh-run"] == backend.requests[0].run
    assert backend.requests[0].traceparent == trace


def test_a_stream_is_server_sent_events() -> None:
    answer = _ask("POST", "/v1/chat/completions", json={**HELLO, "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.endswith("data: [DONE]\n\n")


def test_each_call_is_a_run_of_its_own() -> None:
    backend = ScriptedBackend()
    for _ in range(2):
        _ask("POST", "/v1/chat/completions", backend, json=HELLO)
    first, second = backend.requests
    assert first.run != second.run


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/plan", "/v1/runs", "/v1/feedback"])
def test_garbage_is_a_400(path: str) -> None:
    answer = _ask("POST", path, content=b"\x00{")
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_json"


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v1/chat/completions"), ("POST", "/v1/plan"), ("GET", "/v1/route?text=hello")],
)
def test_more_work_than_allowed_is_asked_to_come_back(method: str, path: str) -> None:
    config = GatewayConfig(runs_max=0, waiting_max=0)
    answer = _ask(method, path, config=config, json=HELLO)
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.headers["x-queue-position"] == "1"
    assert answer.json()["error"]["type"] == "rate_limit_error"


def test_nobody_reachable_is_a_503_that_says_when_to_retry() -> None:
    backend = ScriptedBackend(says(error=NoProvider("nobody", retry_after_seconds=9)))
    answer = _ask("POST", "/v1/chat/completions", backend, json=HELLO)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "9")


def test_models_are_the_mesh_then_every_alias_then_every_alias_at_a_peer() -> None:
    listed = _ask("GET", "/v1/models").json()
    assert listed["object"] == "list"
    names = ["mesh", "smollm2", "smollm2@12D3KooWanna", "smollm2@12D3KooWbela"]
    assert [model["id"] for model in listed["data"]] == names
    assert {model["object"] for model in listed["data"]} == {"model"}
    assert all(isinstance(model["created"], int) for model in listed["data"])
    assert [model["owned_by"] for model in listed["data"]] == ["mesh", "mesh", "anna", "béla"]
    assert listed["data"][2]["mesh"]["n_ctx"] == 2048


def test_one_model_is_shown_by_its_name_whatever_characters_that_has() -> None:
    slashed = ScriptedBackend(entries=[ModelEntry("org/model:q4", "12D3KooWanna", "anna")])
    for name in ("mesh", "org/model:q4", "org/model:q4@12D3KooWanna"):
        assert _ask("GET", f"/v1/models/{name}", slashed).json()["id"] == name


@pytest.mark.parametrize("name", ["gpt-4", "org/model", ""])
def test_a_model_that_is_not_there_is_a_404(name: str) -> None:
    answer = _ask("GET", f"/v1/models/{name}")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"


def test_a_plan_that_takes_too_long_is_given_up() -> None:
    class Slow(ScriptedBackend):
        async def plan(self, request: RunRequest) -> Planned:
            await asyncio.Event().wait()
            raise AssertionError

    body = {"text": "x", "mesh": {"deadline_seconds": 0.01}}
    answer = _ask("POST", "/v1/plan", Slow(), json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")


@pytest.mark.parametrize(("said", "rating"), [("up", 1.0), ("down", 0.0), (0.25, 0.25), (1, 1.0)])
def test_a_run_is_rated_by_whichever_of_its_ids_a_client_has(said: object, rating: float) -> None:
    backend = ScriptedBackend()
    completion = _ask("POST", "/v1/chat/completions", backend, json=HELLO)
    run = completion.headers["x-mesh-run"]
    for name in (run, completion.json()["id"], run.removeprefix("run-")):
        answer = _ask("POST", "/v1/feedback", backend, json={"run": name, "rating": said})
        assert answer.status_code == 200
        assert answer.json() == {"object": "feedback", "run": run, "rating": rating, "tasks": ["t1"]}
    assert backend.ratings == [(run, None, rating)] * 3


def test_one_task_of_a_run_is_rated_alone() -> None:
    backend = ScriptedBackend()
    run = _ask("POST", "/v1/chat/completions", backend, json=HELLO).headers["x-mesh-run"]
    _ask("POST", "/v1/feedback", backend, json={"run": run, "task": "t2", "rating": "up"})
    assert backend.ratings == [(run, "t2", 1.0)]


def test_feedback_on_a_run_that_nobody_knows_is_a_404() -> None:
    answer = _ask("POST", "/v1/feedback", json={"run": "run-none", "rating": "up"})
    assert answer.status_code == 404
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("run_not_found", "run")
    assert set(error) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"rating": "up"}, "run"),
        ({"run": "a b", "rating": "up"}, "run"),
        ({"run": "r"}, "rating"),
        ({"run": "r", "rating": "fine"}, "rating"),
        ({"run": "r", "rating": 1.5}, "rating"),
        ({"run": "r", "rating": True}, "rating"),
        ({"run": "r", "rating": "up", "task": ""}, "task"),
        ({"run": "r", "rating": "up", "weight": 9}, "weight"),
    ],
)
def test_feedback_that_cannot_be_meant_is_refused_by_name(body: dict[str, Any], param: str) -> None:
    answer = _ask("POST", "/v1/feedback", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_the_last_decisions_are_told_and_no_more_than_asked_for() -> None:
    (row,) = _ask("GET", "/v1/decisions").json()["data"]
    assert (row["run"], row["skill"], row["seconds"]) == ("run-1", "chat", None)
    assert _ask("GET", "/v1/decisions", params={"limit": 0}).status_code == 400
    assert _ask("GET", "/v1/decisions", params={"limit": 501}).status_code == 400


def test_a_wrong_parameter_is_refused_in_a_sentence_about_it() -> None:
    refused = _ask("GET", "/v1/route", params={"text": "x" * 8193}).json()["error"]
    assert refused["message"] == "text should have at most 8192 characters"
    refused = _ask("POST", "/v1/feedback", json={"run": "r", "rating": 1.5}).json()["error"]
    assert refused["message"] == "rating should be 'up' or 'down' or less than or equal to 1"


def test_candidates_come_with_their_reasons() -> None:
    answer = _ask("GET", "/v1/route", params={"text": "say hello", "privacy": "local"})
    found = answer.json()
    assert found["data"] == [
        {
            "peer": "12D3KooWpeer",
            "peer_name": "anna",
            "skill": "chat",
            "model": "smollm2",
            "score": 0.9,
            "reasons": ["local: say hello"],
            "is_chosen": True,
            "tier": 0,
            "terms": {},
        }
    ]
    assert (found["decision"], found["none"], found["reason"]) == ("fallback", 0.8, "no skill fits")
    assert [passed["reason"] for passed in found["filtered"]] == ["costs too much"]
    plain = _ask("GET", "/v1/route", params={"text": "say hello"}).json()
    assert plain["data"][0]["reasons"] == ["None: say hello"], "whoever may see a request that says nothing"


@pytest.mark.parametrize(
    ("params", "param"),
    [({}, "text"), ({"text": ""}, "text"), ({"text": "x", "privacy": "private"}, "privacy")],
)
def test_a_wrong_query_is_refused_by_name(params: dict[str, str], param: str) -> None:
    answer = _ask("GET", "/v1/route", params=params)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_peers_are_listed() -> None:
    listed = _ask("GET", "/v1/peers").json()
    assert [peer["state"] for peer in listed["data"]] == ["self"]


def test_a_living_gateway_without_skills_is_healthy_but_not_ready() -> None:
    lonely = ScriptedBackend(reason="no peer offers any skill")
    assert _ask("GET", "/health", lonely).json() == {"status": "ok"}
    answer = _ask("GET", "/ready", lonely)
    assert (answer.status_code, answer.json()["reason"]) == (503, "no peer offers any skill")
    assert _ask("GET", "/ready").status_code == 200


def test_the_api_describes_itself_without_a_page_that_loads_from_elsewhere() -> None:
    described = _ask("GET", "/openapi.json").json()
    assert {"/v1/chat/completions", "/v1/plan", "/v1/runs", "/v1/feedback"} <= set(described["paths"])
    assert {"graph", "tasks", "why"} <= set(described["components"]["schemas"]["PlanView"]["properties"])
    bodies = json.dumps([path.get("post", {}).get("requestBody") for path in described["paths"].values()])
    assert "depends_on" in bodies
    assert "$ref" not in bodies, "bodies are read by us, so the framework keeps no schemas for them"
    assert {_ask("GET", path).status_code for path in ("/docs", "/redoc")} == {404}


def test_the_api_says_what_errors_look_like_and_which_answers_may_be_streams() -> None:
    described = _ask("GET", "/openapi.json").json()
    streamed: set[str] = set()
    for path, operations in described["paths"].items():
        for operation in operations.values():
            told = operation["responses"]
            assert {"4XX", "5XX"} <= set(told)
            assert "422" not in told, "the framework's own shape of an error is never sent"
            schema = told["4XX"]["content"]["application/json"]["schema"]["properties"]["error"]
            assert set(schema["required"]) == set(_ask("GET", "/nothing").json()["error"])
            if "text/event-stream" in told["200"].get("content", {}):
                streamed.add(path)
    assert streamed == {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/responses/{response_id}",
        "/v1/runs",
    }


def test_a_gateway_that_is_about_to_stop_is_healthy_but_not_ready_and_begins_nothing() -> None:
    config, metrics = GatewayConfig(), Metrics()
    gate = run_gate(config, metrics)
    gate.close()
    app = create_app(ScriptedBackend(), config, metrics=metrics, gate=gate)

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return [
                await client.get("/health"),
                await client.get("/ready"),
                await client.post("/v1/chat/completions", json=HELLO),
            ]

    health, ready, chat = asyncio.run(ask())
    assert [health.status_code, ready.status_code, chat.status_code] == [200, 503, 503]
    assert ready.json()["status"] == "draining"
    assert (chat.json()["error"]["code"], chat.headers["retry-after"]) == ("draining", "5")
