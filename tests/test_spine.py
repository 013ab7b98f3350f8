"""The whole system as a person uses it: `up`, then the command line, HTTP and OpenAI's client."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from openai import NotFoundError, OpenAI
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from faults.client import StreamClient
from faults.history import History, MeshEvent
from live import LiveMesh, run_cli, wait_until

pytestmark = [pytest.mark.processes, pytest.mark.model]

MODEL = "smollm2-135m-instruct.q4_1"
BOTH = "What is 37 * 49, and write a two-line poem about rivers"
START_SECONDS = 30.0
END_SECONDS = 10.0

# Skills that prove what happened by themselves: `knots` quotes the task, `meeting` ends only when two of
# its tasks run at the same time.
SAILOR = '''
import asyncio
from monai_node.agents import Agent

agent = Agent("sailor")
barrier = asyncio.Barrier(2)


@agent.skill(examples=["How do I tie a bowline knot?", "Show me the clove hitch", "Which knot ties a boat?"])
def knots(text: str) -> str:
    """Explains how sailors tie knots and hitches."""
    return f"As a sailor: {text}"


@agent.skill(examples=["Meet another task at the buoy"])
async def meeting(text: str) -> str:
    """Waits at the buoy until another task is there."""
    await asyncio.wait_for(barrier.wait(), 20)
    return f"met: {text}"
'''


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Generator[LiveMesh]:
    with LiveMesh(tmp_path_factory.mktemp("spine")) as mesh:
        mesh.open_gateway("up")
        yield mesh


@pytest.fixture(scope="module")
def sailor(mesh: LiveMesh) -> str:
    """The peer id of a node that serves an agent file and was given no join line."""
    path = mesh.folder / "sailor.py"
    path.write_text(SAILOR)
    peer = mesh.serve("sailor", str(path)).wait_ready().peer
    mesh.wait_state("sailor", "alive", 5)
    return peer


@pytest.fixture(scope="module")
def remote(mesh: LiveMesh) -> Generator[list[dict[str, Any]]]:
    """The bodies that a server behind a URL was sent, which a node puts into the mesh as echo-1."""
    with openai_server("Echo from afar.") as (url, bodies):
        mesh.serve("remote", "--url", url, "--model", "vendor/echo-1").wait_ready()
        mesh.wait_state("remote", "alive", 5)
        yield bodies


@pytest.fixture
def client(mesh: LiveMesh) -> Generator[OpenAI]:
    with OpenAI(base_url=f"{mesh.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def events_of(history: History, kind: str) -> list[dict[str, Any]]:
    found = [record.event for record in history.records if isinstance(record, MeshEvent)]
    return [event for event in found if event["type"] == kind]


# --- the command line -----------------------------------------------------------------------------
def test_one_question_becomes_two_tasks_done_by_an_agent_and_a_model_on_another_peer(
    mesh: LiveMesh,
) -> None:
    answer = mesh.cli("ask", BOTH, "--json", "--max-tokens", "40").json
    sum_part, poem_part = answer["parts"]
    assert answer["answer"].startswith("1813\n")
    assert len(answer["answer"]) > len("1813\n\n")
    assert (sum_part["model"], sum_part["skill"]) == ("arithmetic", "arithmetic")
    assert poem_part["model"] == MODEL
    assert {sum_part["peer_name"], poem_part["peer_name"]} == {"provider"}
    assert mesh.ready.peer not in (sum_part["peer"], poem_part["peer"])
    assert answer["usage"]["completion_tokens"] == poem_part["usage"]["completion_tokens"] > 0


def test_a_person_sees_the_answer_on_stdout_and_who_made_it_on_stderr(mesh: LiveMesh) -> None:
    asked = mesh.cli("ask", "What is 37 * 49?")
    assert asked.code == 0
    assert asked.stdout.strip() == "1813"
    assert "arithmetic on provider" in asked.stderr


def test_a_follow_up_is_answered_from_the_kept_conversation(mesh: LiveMesh, tmp_path: Path) -> None:
    kept = str(tmp_path / "conversation.json")
    first = mesh.cli("ask", "How much is 26 miles plus 5 miles?", "--conversation", kept, "--json").json
    assert first["answer"] == "31 miles"
    second = mesh.cli("ask", "and in kilometres?", "--conversation", kept, "--json").json
    assert "49.889664" in second["answer"]
    assert second["parts"][0]["model"] == "arithmetic"
    turns = json.loads(Path(kept).read_text())["messages"]
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user", "assistant"]


def test_plan_route_and_peers_are_shown_without_doing_anything(mesh: LiveMesh) -> None:
    tasks = mesh.cli("plan", BOTH, "--json").json["tasks"]
    assert [task["text"] for task in tasks] == ["What is 37 * 49", "write a two-line poem about rivers"]
    assert tasks[1]["depends_on"] == []
    best = mesh.cli("route", "What is 37 * 49?", "--json").json["data"][0]
    assert (best["skill"], best["is_chosen"]) == ("arithmetic", True)
    assert best["reasons"]
    peers = {peer["name"]: peer for peer in mesh.cli("peers", "--json").json["data"]}
    assert peers["gateway"]["state"] == "self"
    assert peers["provider"]["state"] == "alive"
    assert {"arithmetic", "calendar"} <= set(peers["provider"]["skills"])
    shown = mesh.cli("peers").stdout
    assert "alive    provider" in shown


def test_a_second_up_on_the_same_state_says_so_in_one_sentence(mesh: LiveMesh) -> None:
    second = mesh.cli("up", "--json")
    assert second.code == 1
    assert "is already running" in second.sentence
    assert mesh.get("/health").status_code == 200


# --- OpenAI's own client --------------------------------------------------------------------------
def test_openai_python_gets_a_whole_answer_with_usage_and_provenance(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="mesh", messages=[{"role": "user", "content": BOTH}], max_tokens=30
    )
    assert (answer.choices[0].message.content or "").startswith("1813")
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0
    assert answer.model_extra is not None
    assert [part["model"] for part in answer.model_extra["mesh"]["parts"]] == ["arithmetic", MODEL]


def test_openai_python_streams_the_answer_in_pieces_and_its_usage_last(client: OpenAI) -> None:
    with client.chat.completions.create(
        model="mesh",
        messages=[{"role": "user", "content": "Write a short story about a lighthouse."}],
        max_tokens=24,
        stream=True,
        stream_options={"include_usage": True},
    ) as stream:
        chunks = list(stream)
    pieces = [choice.delta.content for chunk in chunks for choice in chunk.choices if choice.delta.content]
    assert len(pieces) >= 3
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 24
    assert [c.finish_reason for chunk in chunks for c in chunk.choices if c.finish_reason] == ["length"]


@pytest.mark.parametrize("model", ["gpt-none", f"{MODEL}@nobody"])
def test_an_unknown_model_is_not_found(client: OpenAI, model: str) -> None:
    with pytest.raises(NotFoundError) as refused:
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": "Hi"}])
    assert refused.value.code == "model_not_found"
    assert refused.value.status_code == 404


def test_a_model_is_asked_by_its_alias_and_at_one_peer(mesh: LiveMesh, client: OpenAI) -> None:
    listed = [model.id for model in client.models.list()]
    provider = mesh.peers()["provider"]["id"]
    assert {"mesh", MODEL, f"{MODEL}@{provider}"} <= set(listed)
    for model in (MODEL, f"{MODEL}@{provider}", f"{MODEL}@provider"):
        answer = client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": BOTH}], max_tokens=4
        )
        assert answer.model == model
        parts = (answer.model_extra or {})["mesh"]["parts"]
        assert [(part["model"], part["peer"]) for part in parts] == [(MODEL, provider)]


# --- what is not planned --------------------------------------------------------------------------
LONG_SYSTEM_PROMPT = "You are the assistant of a shop that sells boats. " * 10
WORD: dict[str, object] = {
    "type": "object",
    "properties": {"word": {"type": "string", "maxLength": 12}},
    "required": ["word"],
}
TOOL: ChatCompletionToolParam = {"type": "function", "function": {"name": "look_up", "parameters": WORD}}


def test_a_long_system_prompt_is_passed_through_whole_to_one_model(mesh: LiveMesh, history: History) -> None:
    prompt = [{"role": "system", "content": LONG_SYSTEM_PROMPT}, {"role": "user", "content": BOTH}]
    result = StreamClient(mesh.url, history).chat(prompt, max_tokens=4)
    assert result.how == "done"
    assert len(events_of(history, "plan.task")) == 1
    (ended,) = events_of(history, "answer.completed")
    assert [part["model"] for part in ended["parts"]] == [MODEL]


def test_a_tool_that_must_be_called_is_called_by_a_small_model_and_its_result_read_by_the_same(
    client: OpenAI,
) -> None:
    asked: list[ChatCompletionMessageParam] = [{"role": "user", "content": BOTH}]
    called = client.chat.completions.create(
        model="mesh", messages=asked, tools=[TOOL], tool_choice="required", max_tokens=60, seed=1
    )
    assert called.choices[0].finish_reason == "tool_calls"
    (call,) = called.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "look_up"
    assert "word" in json.loads(call.function.arguments)
    turns: list[ChatCompletionMessageParam] = [
        *asked,
        {
            "role": "assistant",
            "tool_calls": [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.function.name, "arguments": call.function.arguments},
                }
            ],
        },
        {"role": "tool", "tool_call_id": call.id, "content": "Rivers run to the sea."},
    ]
    answered = client.chat.completions.create(model="mesh", messages=turns, tools=[TOOL], max_tokens=8)
    parts = [(answer.model_extra or {})["mesh"]["parts"] for answer in (called, answered)]
    assert [len(each) for each in parts] == [1, 1]
    assert parts[0][0]["peer"] == parts[1][0]["peer"]


def test_several_answers_with_the_chances_of_their_tokens(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="mesh",
        messages=[{"role": "user", "content": BOTH}],
        n=2,
        seed=1,
        temperature=1.5,
        logprobs=True,
        top_logprobs=2,
        max_tokens=6,
    )
    for choice in answer.choices:
        assert choice.logprobs is not None
        told = choice.logprobs.content or []
        assert len(told) == 6
        assert "".join(token.token for token in told) == choice.message.content
        assert all(len(token.top_logprobs) == 2 for token in told)
    assert len({choice.message.content for choice in answer.choices}) == 2


def test_how_likely_a_text_is_as_harnesses_ask_for_it(client: OpenAI) -> None:
    """lm-eval's loglikelihood: the prompt is echoed, and one token more is written."""
    told = client.completions.create(
        model=MODEL, prompt=[504, 3575, 282, 4649, 314], echo=True, logprobs=1, max_tokens=1, temperature=0
    )
    found = told.choices[0].logprobs
    assert found is not None
    assert found.tokens == ["The", " capital", " of", " France", " is", " Paris"]
    chances = found.token_logprobs or []
    assert chances[0] is None
    assert all(chance is not None and chance < 0 for chance in chances[1:])
    assert told.choices[0].text == "The capital of France is Paris"
    assert client.completions.create(model="mesh", prompt="The capital of France is").choices[0].text


def test_a_local_request_on_a_gateway_without_models_leaves_the_node_by_no_byte(
    mesh: LiveMesh, history: History
) -> None:
    refused = mesh.chat("Write a poem", mesh={"privacy": "local"})
    assert refused.status_code == 503
    error = refused.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "\n" not in error["message"]
    assert int(refused.headers["retry-after"]) >= 1
    told = StreamClient(mesh.url, history, own_peer=mesh.ready.peer).chat(
        "Write a poem", mesh={"privacy": "local"}
    )
    assert told.text == ""
    assert told.error == error["code"]
    assert not events_of(history, "task.dispatched")


# --- time and simultaneity ------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("zone", "tomorrow"), [("Europe/Berlin", "28 February 2026"), ("Asia/Tokyo", "1 March 2026")]
)
def test_the_calendar_goes_by_the_time_and_zone_of_the_request(
    mesh: LiveMesh, zone: str, tomorrow: str
) -> None:
    late_evening = "2026-02-27T23:30:00+01:00"
    answered = mesh.chat("What date is it tomorrow?", mesh={"now": late_evening, "timezone": zone}).json()
    assert answered["mesh"]["parts"][0]["model"] == "calendar"
    assert tomorrow in answered["choices"][0]["message"]["content"]


def test_without_a_time_of_its_own_a_request_has_the_gateway_s(mesh: LiveMesh) -> None:
    before = datetime.now().astimezone()
    said = mesh.chat("What year is it?").json()["choices"][0]["message"]["content"]
    assert str(before.year) in said or str(before.year + 1) in said


def test_independent_tasks_run_at_the_same_time(mesh: LiveMesh, sailor: str, history: History) -> None:
    names = ("first", "second")
    plan = [{"id": name, "text": f"the {name}", "skill": "sailor.meeting"} for name in names]
    result = StreamClient(mesh.url, history).chat("Meet", mesh={"plan": plan})
    assert result.how == "done"
    assert result.text == "met: the first\n\nmet: the second"
    order = [r.event["type"] for r in history.records if isinstance(r, MeshEvent)]
    last_dispatch = len(order) - 1 - order[::-1].index("task.dispatched")
    assert last_dispatch < order.index("task.completed")
    assert {event["peer"] for event in events_of(history, "task.dispatched")} == {sailor}


def test_a_task_is_given_the_results_that_it_depends_on(
    mesh: LiveMesh, sailor: str, history: History
) -> None:
    plan = [
        {"id": "sum", "text": "What is 6 * 7?", "skill": "arithmetic"},
        {"id": "knot", "text": "Tie it", "skill": "sailor.knots", "depends_on": ["sum"]},
    ]
    result = StreamClient(mesh.url, history).chat("Count and tie", mesh={"plan": plan})
    assert result.how == "done"
    kinds = [
        (r.event["type"], r.event["task"])
        for r in history.records
        if isinstance(r, MeshEvent) and r.event["type"] in ("task.dispatched", "task.completed")
    ]
    assert kinds.index(("task.completed", "sum")) < kinds.index(("task.dispatched", "knot"))


# --- more nodes -----------------------------------------------------------------------------------
def test_a_python_file_becomes_a_skill_that_the_router_finds(mesh: LiveMesh, sailor: str) -> None:
    asked = mesh.cli("ask", "How do I tie a sheet bend knot?", "--json").json
    assert asked["answer"] == "As a sailor: How do I tie a sheet bend knot?"
    assert [(part["peer"], part["skill"]) for part in asked["parts"]] == [(sailor, "sailor.knots")]


def test_a_server_behind_a_url_is_asked_by_its_alias(mesh: LiveMesh, remote: list[dict[str, Any]]) -> None:
    answered = mesh.chat("Anything", model="echo-1").json()
    assert answered["choices"][0]["message"]["content"] == "Echo from afar."
    assert answered["mesh"]["parts"][0]["peer_name"] == "remote"
    assert remote[-1]["model"] == "vendor/echo-1"
    assert remote[-1]["messages"][-1] == {"role": "user", "content": "Anything"}


def test_tools_go_whole_to_a_model_that_can_call_them(
    mesh: LiveMesh, remote: list[dict[str, Any]], history: History
) -> None:
    result = StreamClient(mesh.url, history).chat(BOTH, model="echo-1", tools=[TOOL])
    assert (result.how, result.text) == ("done", "Echo from afar.")
    assert len(events_of(history, "plan.task")) == 1
    (ended,) = events_of(history, "answer.completed")
    assert [part["model"] for part in ended["parts"]] == ["echo-1"]
    assert remote[-1]["messages"] == [{"role": "user", "content": BOTH}]
    assert remote[-1]["tools"] == [TOOL]


def test_health_and_readiness_are_told_apart(mesh: LiveMesh) -> None:
    assert mesh.get("/health").json() == {"status": "ok"}
    assert mesh.get("/ready").json() == {"status": "ready"}


def test_up_starts_its_provider_again_when_that_was_killed(mesh: LiveMesh) -> None:
    mesh.nodes["gateway"].signal_child(mesh.ready.pids["provider"], signal.SIGKILL)
    mesh.wait_state("provider", "gone", 3)
    mesh.wait_state("provider", "alive", START_SECONDS)
    assert mesh.cli("ask", "What is 37 * 49?", "--json").json["answer"] == "1813"


# --- the end (last: it ends the mesh of this module) ----------------------------------------------
def test_sigterm_ends_all_of_it_and_leaves_no_process(mesh: LiveMesh) -> None:
    gateway = mesh.nodes["gateway"]
    # The gateway, its embedder, the provider, its model and its two agents.
    assert len(gateway.tree()) >= 6
    assert gateway.terminate(END_SECONDS) == 0
    wait_until(lambda: not gateway.tree(), 2, "processes outlive the node that started them")
    refused = run_cli("peers", state_dir=mesh.state_dir)
    assert refused.code == 1
    assert "no gateway is running here" in refused.sentence


def test_a_gateway_that_is_killed_takes_all_that_it_started_along(mesh: LiveMesh) -> None:
    gateway, before = mesh.nodes["gateway"], mesh.ready
    mesh.ready = gateway.start().wait_ready()
    assert mesh.ready.join == before.join
    assert len(gateway.tree()) >= 6
    gateway.kill(whole=False)
    wait_until(lambda: not gateway.tree(), END_SECONDS, "processes outlive the node that started them")


# --- a server of the kind that people run already --------------------------------------------------
@contextmanager
def openai_server(answer: str) -> Generator[tuple[str, list[dict[str, Any]]]]:
    """A small OpenAI-compatible server on loopback: its base URL, and the bodies it was sent."""
    bodies: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send("application/json", json.dumps({"data": [{"id": "vendor/echo-1"}]}))

        def do_POST(self) -> None:
            bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            chunks: list[dict[str, Any]] = [
                {"choices": [{"index": 0, "delta": {"content": word}}]} for word in _words(answer)
            ]
            chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
            lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
            self._send("text/event-stream", "".join([*lines, "data: [DONE]\n\n"]))

        def _send(self, kind: str, text: str) -> None:
            self.send_response(200)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1", bodies
        finally:
            server.shutdown()
            thread.join()


def _words(text: str) -> list[str]:
    return text.replace(" ", "| ").split("|")
