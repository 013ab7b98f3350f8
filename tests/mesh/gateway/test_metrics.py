"""What a gateway counts of itself, read back by Prometheus' own parsers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text
from prometheus_client.samples import Sample

from monai_node.agents.request import RunRequest
from monai_node.mesh.gateway.app import create_app
from monai_node.mesh.gateway.backend import PeerView
from monai_node.mesh.gateway.caller import NOBODY
from monai_node.mesh.gateway.metrics import LABELS_MAX, Metrics
from monai_node.mesh.gateway.testing import ScriptedBackend, completed, provenance, says
from monai_node.registry.errors import PeerLost
from monai_node.registry.events import (
    AnswerDelta,
    PlanTask,
    RunCreated,
    TaskContinued,
    TaskDispatched,
    TaskWasCompleted,
)
from monai_node.registry.ids import AttemptId, PeerId, RunId
from monai_node.registry.wire import ChatMessage, Usage
from monai_node.router.outcome import Ending
from monai_node.router.rank import Candidate

HELLO = {"model": "mesh", "messages": [{"role": "user", "content": "a canary in a coal mine"}]}
REQUEST = RunRequest(RunId("r1"), (ChatMessage(role="user", content="hi"),))

Samples = dict[str, float]
Reader = Callable[[str], Iterable[Metric]]


def read_openmetrics(text: str) -> Iterable[Metric]:
    read: Any = openmetrics
    return cast("Reader", read.text_string_to_metric_families)(text)


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def samples(families: Iterable[Metric]) -> Samples:
    """By name and labels, as Prometheus writes them."""
    return {_spelt(sample): sample.value for family in families for sample in family.samples}


def _spelt(sample: Sample) -> str:
    labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
    return sample.name + (f"{{{labels}}}" if labels else "")


def counted(metrics: Metrics, ejected: int = 0) -> Samples:
    peers = [PeerView("a", "a", "self"), PeerView("b", "b", "alive"), PeerView("c", "c", "alive")]
    body, _ = asyncio.run(metrics.exposition("", 3, 2, peers, ejected))
    return samples(read_text(body.decode()))


def attempt(metrics: Metrics, peer: str, skill: str, code: str = "") -> None:
    candidate = Candidate(PeerId(peer), peer, skill, "m", is_general=True, score=1.0, reasons=())
    metrics.ended("r1", "t1", AttemptId("a"), candidate, Ending(1.0, "contract", 0.5, 1, code))


def _after(*bodies: object, backend: ScriptedBackend | None = None, accept: str = "*/*") -> httpx.Response:
    """What /metrics answers after these chats."""

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(create_app(backend or ScriptedBackend()))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            for body in bodies:
                await client.post("/v1/chat/completions", json=body)
            return await client.get("/metrics", headers={"accept": accept})

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("accept", "content_type", "read"),
    [
        ("*/*", "text/plain; version=0.0.4; charset=utf-8", read_text),
        ("application/openmetrics-text;version=1.0.0", "application/openmetrics-text", read_openmetrics),
        ("application/openmetrics-text;version=none", "application/openmetrics-text", read_openmetrics),
    ],
)
def test_prometheus_can_read_it(accept: str, content_type: str, read: Reader) -> None:
    answer = _after(HELLO, HELLO, accept=accept)
    assert answer.headers["content-type"].startswith(content_type)
    found = samples(read(answer.text))
    assert found["monai_request_success_total{finished_reason=stop}"] == 2
    assert found["monai_time_to_first_token_seconds_count"] == 2
    assert found["monai_request_queue_time_seconds_count"] == 2
    assert found["monai_num_requests_running"] == 0
    assert found["monai_peers{state=self}"] == 1
    assert found["process_resident_memory_bytes"] > 0
    assert "canary" not in answer.text


def test_a_run_that_fails_counts_by_its_kind_of_error() -> None:
    backend = ScriptedBackend(says("half", error=PeerLost("it went away")))
    found = samples(read_text(_after(HELLO, backend=backend).text))
    assert found["monai_request_errors_total{code=peer_lost}"] == 1
    assert "monai_request_success_total{finished_reason=stop}" not in found
    assert found["monai_e2e_request_latency_seconds_count"] == 0


def test_times_and_tokens_of_a_run_are_those_of_its_events() -> None:
    clock = _Clock()
    metrics = Metrics(clock)
    watch = metrics.watch(REQUEST, NOBODY)
    part = provenance().model_copy(update={"usage": Usage(prompt_tokens=7, completion_tokens=5)})
    dispatched = TaskDispatched(
        run="r1", task="t1", attempt="a", skill="chat", peer="p", peer_name="p", reasons=[]
    )
    for seconds, event in [
        (0.0, RunCreated(run="r1")),
        (0.25, PlanTask(run="r1", task="t1", text="x", depends_on=[])),
        (0.0, PlanTask(run="r1", task="t2", text="y", depends_on=[])),
        (0.5, dispatched),
        (1.0, dispatched),
        (0.0, TaskContinued(run="r1", task="t1", lost_peer="p", error="gone")),
        (0.25, AnswerDelta(run="r1", text="Hel")),
        (2.0, AnswerDelta(run="r1", text="lo")),
        (0.0, TaskWasCompleted(run="r1", task="t1", provenance=part)),
        (0.0, completed("r1", part)),
    ]:
        clock.now += seconds
        watch.note(event)
    watch.close()
    found = counted(metrics, ejected=1)
    assert found["monai_plan_tasks_sum"] == 2
    assert found["monai_planner_seconds_sum"] == 0.25
    assert found["monai_route_seconds_sum"] == 0.5
    assert found["monai_time_to_first_token_seconds_sum"] == 2.0
    assert found["monai_e2e_request_latency_seconds_sum"] == 4.0
    assert found["monai_time_per_output_token_seconds_sum"] == 0.5
    assert (found["monai_prompt_tokens_total"], found["monai_generation_tokens_total"]) == (7, 5)
    assert found["monai_continued_total"] == 1
    assert found["monai_request_cancelled_total"] == 0
    assert (found["monai_num_requests_running"], found["monai_num_requests_waiting"]) == (3, 2)
    assert (found["monai_peers{state=alive}"], found["monai_peers_ejected"]) == (2, 1)


def test_a_client_that_goes_away_is_no_error() -> None:
    metrics = Metrics()
    metrics.watch(REQUEST, NOBODY).close()
    assert counted(metrics)["monai_request_cancelled_total"] == 1


def test_a_peer_that_says_absurd_numbers_of_tokens_fails_nothing() -> None:
    metrics = Metrics()
    watch = metrics.watch(REQUEST, NOBODY)
    usage = Usage(prompt_tokens=10**400, completion_tokens=10**400)
    part = provenance().model_copy(update={"usage": usage})
    watch.note(AnswerDelta(run="r1", text="x"))
    watch.note(TaskWasCompleted(run="r1", task="t1", provenance=part))
    watch.note(completed("r1", part))
    assert counted(metrics)["monai_prompt_tokens_total"] < 10**9


def test_attempts_are_told_by_peer_skill_and_how_they_ended() -> None:
    metrics = Metrics()
    peer = "12D3KooWAAAAAAAABBBBBBBB"
    attempt(metrics, peer, "chat")
    attempt(metrics, peer, "chat")
    attempt(metrics, peer, "chat", "peer_lost")
    found = counted(metrics)
    assert found["monai_dispatch_total{outcome=completed,peer=BBBBBBBB,skill=chat}"] == 2
    assert found["monai_dispatch_total{outcome=peer_lost,peer=BBBBBBBB,skill=chat}"] == 1


def test_a_flood_of_peers_and_paths_does_not_grow_what_is_kept() -> None:
    metrics = Metrics()
    for number in range(LABELS_MAX):
        attempt(metrics, f"peer{number:08}", "chat")
        metrics.answered("GET", f"/{number}", 200)
    before = len(counted(metrics))
    for number in range(LABELS_MAX, 20 * LABELS_MAX):
        attempt(metrics, f"peer{number:08}", f"skill-{number}")
        metrics.answered(f"METHOD{number}", f"/{number}", 200)
    found = counted(metrics)
    assert found["monai_dispatch_total{outcome=completed,peer=other,skill=other}"] == 19 * LABELS_MAX
    assert found["monai_dispatch_total{outcome=completed,peer=00000000,skill=chat}"] == 1
    assert len(found) <= before + 8


def test_the_lag_of_the_event_loop_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monai_node.mesh.gateway.metrics._LAG_PERIOD_SECONDS", 0.01)
    metrics = Metrics()

    async def measure() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await metrics.keep_measuring_lag()

    asyncio.run(measure())
    assert counted(metrics)["monai_event_loop_lag_seconds_count"] > 1


def test_the_readme_names_every_figure_and_none_that_is_not_told() -> None:
    readme = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
    table = readme.partition("| `monai_…` |")[2].partition("\n\n")[0]
    named = set(re.findall(r"^\|.*?\|", table, re.M))
    names = {f"monai_{name}" for row in named for name in re.findall(r"`([a-z0-9_]+)(?:\{[\w,]+\})?`", row)}
    told = {family.name for family in Metrics().registry.collect() if family.name.startswith("monai_")}
    assert {name.removesuffix("_total") for name in names} == told
