"""What a collector is told: spans of one trace from a client's to a peer's, without a word of anybody."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing
from dataclasses import dataclass, replace

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from monai_node.agents.request import RunRequest
from monai_node.mesh.engine.scripted import Breaks, ScriptedEngine
from monai_node.mesh.gateway.caller import NOBODY
from monai_node.mesh.gateway.testing import completed, provenance
from monai_node.mesh.identity import Identity
from monai_node.mesh.provider import Provider
from monai_node.mesh.traces import Traces, open_traces
from monai_node.registry.errors import MonaiError, TaskFailed
from monai_node.registry.events import PlanTask, RunCreated, TaskDispatched, run_failed
from monai_node.registry.ids import AttemptId, PeerId, RunId
from monai_node.registry.transport import MemoryNetwork, open_memory_transport
from monai_node.registry.wire import TASK_PROTOCOL, ChatMessage, TaskInput, TaskRequest, Usage
from monai_node.router.dispatch import Dispatcher
from monai_node.router.health import Health
from monai_node.router.rank import Candidate

CANARY = "a canary in a coal mine"
TRACE = "0af7651916cd43dd8448eb211c80319c"
CLIENT = f"00-{TRACE}-b7ad6b7169203331-01"


@dataclass
class Node:
    """The traces of one process, and what its collector was told."""

    def __post_init__(self) -> None:
        self._told = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._told))
        self.traces = Traces(provider)

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self._told.get_finished_spans()}


def run_request(traceparent: str | None = CLIENT) -> RunRequest:
    return RunRequest(RunId("r1"), (ChatMessage(role="user", content=CANARY),), traceparent=traceparent)


def task_request(traceparent: str | None = CLIENT) -> TaskRequest:
    return TaskRequest(
        run="r1",
        task="t1",
        attempt="a1",
        skill="chat",
        model="scripted",
        input=TaskInput(text=CANARY),
        remaining_ms=10_000,
        traceparent=traceparent,
    )


def ids(span: ReadableSpan) -> tuple[str, str, str | None]:
    """Of its trace, its own, and its parent's."""
    assert span.context is not None
    parent = f"{span.parent.span_id:016x}" if span.parent is not None else None
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}", parent


async def _send(gateway: Node, peer: Node, engine: ScriptedEngine, request: TaskRequest) -> None:
    network = MemoryNetwork()
    async with (
        asyncio.timeout(10),
        open_memory_transport(Identity.generate().peer_id, network) as there,
        open_memory_transport(Identity.generate().peer_id, network) as here,
    ):
        provider = Provider([engine], lambda _peer, _label: True, lambda: None, peer.traces)
        there.handle(TASK_PROTOCOL, provider.serve)
        clock = asyncio.get_running_loop().time
        traceparent_of = gateway.traces.traceparent_of
        dispatcher = Dispatcher(here, clock, Health(), ledger=gateway.traces, traceparent_of=traceparent_of)
        candidate = Candidate(there.peer_id, "anna", "chat", "scripted", True, 1.0, ())
        async with aclosing(dispatcher.send(request, [candidate], clock() + 10)) as events:
            async for _ in events:
                pass
        await provider.until_idle()


def _traced_run(engine: ScriptedEngine, traceparent: str | None = CLIENT) -> tuple[Node, Node]:
    gateway, peer = Node(), Node()
    request = run_request(traceparent)
    watch = gateway.traces.watch(request, NOBODY)
    watch.note(RunCreated(run="r1"))
    watch.note(PlanTask(run="r1", task="t1", text=CANARY, depends_on=[]))
    sent = TaskDispatched(
        run="r1", task="t1", attempt="a", skill="chat", peer="p", peer_name="p", reasons=[CANARY]
    )
    watch.note(sent)
    try:
        asyncio.run(_send(gateway, peer, engine, task_request(traceparent)))
    except MonaiError as error:
        watch.note(run_failed("r1", error))
    else:
        watch.note(completed("r1", provenance()))
    watch.close()
    return gateway, peer


def test_one_trace_goes_from_the_client_to_the_peer() -> None:
    gateway, peer = _traced_run(ScriptedEngine(CANARY))
    run, attempt = gateway.spans["invoke_workflow mesh"], gateway.spans["chat scripted"]
    task = peer.spans["chat scripted"]
    _, run_id, client_id = ids(run)
    assert client_id == "b7ad6b7169203331"
    assert ids(gateway.spans["plan"])[2] == run_id
    assert ids(attempt)[2] == run_id
    assert ids(task)[2] == ids(attempt)[1]
    assert {ids(span)[0] for span in (run, attempt, task)} == {TRACE}


def test_spans_say_how_long_what_took_and_how_much_but_no_words() -> None:
    gateway, peer = _traced_run(ScriptedEngine(CANARY))
    for span in (gateway.spans["chat scripted"], peer.spans["chat scripted"]):
        assert span.attributes is not None
        assert span.attributes["gen_ai.operation.name"] == "chat"
        assert span.attributes["gen_ai.request.model"] == "scripted"
        assert {"monai.queue_ms", "monai.prefill_ms", "monai.generate_ms"} <= set(span.attributes)
        assert span.status.status_code is StatusCode.UNSET
    run, plan = gateway.spans["invoke_workflow mesh"], gateway.spans["plan"]
    assert run.attributes is not None
    assert run.attributes["gen_ai.usage.input_tokens"] == 3
    assert plan.attributes is not None
    assert plan.attributes["monai.plan.tasks"] == 1
    told = "".join(span.to_json() for node in (gateway, peer) for span in node.spans.values())
    assert "canary" not in told


def test_a_failure_is_told_by_its_kind_on_both_sides() -> None:
    gateway, peer = _traced_run(ScriptedEngine(Breaks(TaskFailed(CANARY), "half of it")))
    for span in (*gateway.spans.values(), *peer.spans.values()):
        if span.name == "plan":
            continue
        assert span.attributes is not None
        assert span.attributes["error.type"] == "task_failed"
        assert span.status.status_code is StatusCode.ERROR
        assert "canary" not in span.to_json()


def test_what_a_client_does_not_want_sampled_is_not() -> None:
    gateway, peer = _traced_run(ScriptedEngine("x"), f"00-{TRACE}-b7ad6b7169203331-00")
    assert (gateway.spans, peer.spans) == ({}, {})


def test_a_run_without_a_client_trace_begins_one() -> None:
    gateway, peer = _traced_run(ScriptedEngine("x"), None)
    assert ids(gateway.spans["invoke_workflow mesh"])[2] is None
    assert ids(peer.spans["chat scripted"])[0] == ids(gateway.spans["invoke_workflow mesh"])[0] != TRACE


def test_a_run_that_its_client_left_is_told_as_cancelled() -> None:
    gateway = Node()
    gateway.traces.watch(run_request(), NOBODY).close()
    attributes = gateway.spans["invoke_workflow mesh"].attributes
    assert attributes is not None
    assert attributes["error.type"] == "cancelled"


def test_what_belongs_to_no_run_of_a_client_is_not_traced() -> None:
    gateway, peer = Node(), Node()
    asyncio.run(_send(gateway, peer, ScriptedEngine("x"), task_request(None)))
    assert (gateway.spans, peer.spans) == ({}, {})


def test_runs_that_never_began_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monai_node.mesh.traces._RUNS_MAX", 2)
    gateway = Node()
    candidate = Candidate(PeerId("12D3KooWpeer"), "anna", "chat", "scripted", True, 1.0, ())
    for number in range(3):
        gateway.traces.watch(replace(run_request(), run=RunId(f"r{number}")), NOBODY)
        gateway.traces.decided(f"r{number}", "t1", AttemptId(f"a{number}"), [candidate])
    gateway.traces.decided("r0", "t2", AttemptId("b0"), [candidate])
    assert gateway.traces.traceparent_of(AttemptId("b0")) is None
    assert gateway.traces.traceparent_of(AttemptId("a2")) is not None


def test_absurd_numbers_of_tokens_fail_nothing() -> None:
    gateway = Node()
    watch = gateway.traces.watch(run_request(), NOBODY)
    usage = Usage(prompt_tokens=10**400)
    watch.note(completed("r1", provenance().model_copy(update={"usage": usage})))
    watch.close()
    assert len(gateway.spans) == 1


# --- whether at all ---------------------------------------------------------------------------------
async def _opened() -> tuple[Traces | None, list[str]]:
    said: list[str] = []
    async with open_traces("monai-test", said.append) as traces:
        return traces, said


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)


def test_without_a_collector_there_is_nothing() -> None:
    assert asyncio.run(_opened()) == (None, [])


def test_without_the_package_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    traces, (line,) = asyncio.run(_opened())
    assert traces is None
    assert "pip install 'monai-node[otel]'" in line
