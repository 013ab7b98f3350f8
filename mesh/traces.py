"""What OpenTelemetry is told of runs and tasks, where a collector was named: spans that tell how long what
took at whom, and never what was written.

A run's span continues the trace of its client; each attempt at a task is a child of it here, and of that one
another at the peer, to which the trace travels in `TaskRequest.traceparent`. Names are those of the GenAI
semantic conventions (v1.41, in development) as far as they fit.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING

from monai_node.registry.events import (
    AnswerCompleted,
    PlanTask,
    RunEvent,
    RunFailed,
    TaskDispatched,
)
from monai_node.registry.ids import AttemptId, PeerId, short
from monai_node.registry.wire import TaskCompleted, TaskFailed, TaskRequest, Timings, Usage

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, SpanKind, Tracer

    from monai_node.agents.request import RunRequest
    from monai_node.mesh.gateway.caller import Caller
    from monai_node.router.outcome import Ending
    from monai_node.router.rank import Candidate

# Either names the collector, as every OpenTelemetry SDK has it.
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_NAMES = ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES")
# What the last spans are given to arrive when a node ends.
_LAST_SECONDS = 3.0
_RUNS_MAX = 4096  # far more than a gateway lets run: one that never began is not closed
_TOKENS_MAX = (1 << 63) - 1  # an attribute's integer; the number is a peer's word

_Attributes = Mapping[str, str | int | float]


@asynccontextmanager
async def open_traces(service: str, say: Callable[[str], None]) -> AsyncGenerator[Traces | None]:
    """Traces of this process, sent to the collector that the environment names; None where it names none.
    `say` is told when it does and the package is missing."""
    named = next((name for name in _ENDPOINTS if os.environ.get(name)), None)
    if named is None:
        yield None
        return
    try:
        provider = await asyncio.to_thread(_exporting, service)
    except ModuleNotFoundError:
        say(f"{named} is set, but no traces are sent: pip install 'monai-node[otel]'")
        yield None
        return
    try:
        yield Traces(provider)
    finally:
        # In a thread that nobody waits for: a collector that does not answer must not hold a node up.
        ending = threading.Thread(target=provider.shutdown, daemon=True)
        ending.start()
        await asyncio.to_thread(ending.join, _LAST_SECONDS)


def _exporting(service: str) -> TracerProvider:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    told = {} if any(os.environ.get(name) for name in _NAMES) else {"service.name": service}
    resource = Resource.create({"service.version": version("monai-node"), **told})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class Traces:
    """Watches runs (`feed.Watcher`), is told of every attempt at a task (`router.outcome.Ledger`), and
    follows the tasks that are done here. What belongs to no run of a client, such as a canary, is not traced.
    """

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace import SpanKind

        self._tracer: Tracer = provider.get_tracer("monai_node", version("monai-node"))
        self._kinds: type[SpanKind] = SpanKind
        self._runs: dict[str, Span] = {}  # under way, the newest last
        self._attempts: dict[AttemptId, Span] = {}  # likewise

    # --- runs -----------------------------------------------------------------------------------------
    def watch(self, request: RunRequest, caller: Caller) -> RunSpan:
        about = {"gen_ai.operation.name": "invoke_workflow", "gen_ai.request.model": request.model}
        span = self._tracer.start_span(
            "invoke_workflow mesh",
            _after(request.traceparent),
            self._kinds.SERVER,
            {**about, "gen_ai.workflow.name": "mesh", "monai.run": request.run},
        )
        self._runs[request.run] = span
        if len(self._runs) > _RUNS_MAX:
            del self._runs[next(iter(self._runs))]
        return RunSpan(span, self._tracer, lambda: self._runs.pop(request.run, None))

    # --- attempts at tasks, elsewhere -------------------------------------------------------------------
    def decided(self, run: str, task: str, attempt: AttemptId, candidates: Sequence[Candidate]) -> None:
        above = self._runs.get(run)
        if above is None:
            return
        chosen = candidates[0]
        about = {"monai.run": run, "monai.task": task, "monai.attempt": attempt}
        self._attempts[attempt] = self._tracer.start_span(
            _name(chosen.skill, chosen.model),
            _below(above),
            self._kinds.CLIENT,
            {**about, "monai.peer": short(chosen.peer), **_what(chosen.skill, chosen.model)},
        )

    def ended(self, run: str, task: str, attempt: AttemptId, candidate: Candidate, ending: Ending) -> None:
        span = self._attempts.pop(attempt, None)
        if span is not None:
            span.set_attributes(_how(ending.usage, ending.timings))
            _end(span, ending.code)

    def traceparent_of(self, attempt: AttemptId) -> str | None:
        """What the peer is to continue; None when this attempt is not traced."""
        span = self._attempts.get(attempt)
        if span is None:
            return None
        context = span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"

    # --- tasks, here ------------------------------------------------------------------------------------
    def begin(self, request: TaskRequest, caller: PeerId) -> TaskSpan | None:
        """The span of a task of this caller; None when it is not traced there."""
        if request.traceparent is None:
            return None
        about = {"monai.run": request.run, "monai.task": request.task, "monai.attempt": request.attempt}
        return TaskSpan(
            self._tracer.start_span(
                _name(request.skill, request.model),
                _after(request.traceparent),
                self._kinds.SERVER,
                {**about, "monai.caller": short(caller), **_what(request.skill, request.model)},
            )
        )


class RunSpan:
    """The span of one run, and below it that of its plan. Times are the wall clock's, as spans have them."""

    def __init__(self, span: Span, tracer: Tracer, over: Callable[[], object]) -> None:
        self._span = span
        self._tracer = tracer
        self._over = over
        self._began = time.time_ns()
        self._planned = 0
        self._tasks = 0
        self._code = "cancelled"  # unless an event says otherwise

    def note(self, event: RunEvent) -> None:
        match event:
            case PlanTask():
                self._tasks += 1
                self._planned = self._planned or time.time_ns()
            case TaskDispatched():
                self._tell_plan()
            case AnswerCompleted(finish_reason=reason, usage=usage):
                self._code = ""
                self._span.set_attribute("gen_ai.response.finish_reasons", [reason])
                self._span.set_attributes(_how(usage))
            case RunFailed(code=code):
                self._code = code
            case _:
                pass

    def close(self) -> None:
        self._tell_plan()
        self._over()
        _end(self._span, self._code)

    def _tell_plan(self) -> None:
        if self._tasks:
            about = {"gen_ai.operation.name": "plan", "monai.plan.tasks": self._tasks}
            plan = self._tracer.start_span(
                "plan", _below(self._span), attributes=about, start_time=self._began
            )
            plan.end(self._planned)
            self._tasks = 0


class TaskSpan:
    """The span of one task that is done here."""

    def __init__(self, span: Span) -> None:
        self._span = span

    def end(self, last: TaskCompleted | TaskFailed | None) -> None:
        """`last` is the frame that it ended with; None when nobody waited for one any more. The first end
        counts."""
        if not self._span.is_recording():
            return
        match last:
            case TaskCompleted():
                self._span.set_attributes(_how(last.usage, last.timings))
                self._span.set_attribute("gen_ai.response.finish_reasons", [last.finish_reason])
                _end(self._span, "")
            case TaskFailed():
                _end(self._span, last.code)
            case None:
                _end(self._span, "cancelled")


def _name(skill: str, model: str) -> str:
    return f"chat {model}" if model else f"invoke_agent {skill}"


def _what(skill: str, model: str) -> _Attributes:
    if model:
        return {"gen_ai.operation.name": "chat", "gen_ai.request.model": model, "monai.skill": skill}
    return {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": skill, "monai.skill": skill}


def _how(usage: Usage, timings: Timings | None = None) -> _Attributes:
    found: dict[str, str | int | float] = {
        "gen_ai.usage.input_tokens": min(usage.prompt_tokens, _TOKENS_MAX),
        "gen_ai.usage.output_tokens": min(usage.completion_tokens, _TOKENS_MAX),
    }
    if timings is not None:
        for phase in ("queue", "prefill", "generate"):
            found[f"monai.{phase}_ms"] = getattr(timings, f"{phase}_ms")
    return found


def _end(span: Span, code: str) -> None:
    """Only the kind of an error is told: its message may quote what a user wrote."""
    from opentelemetry.trace import StatusCode

    if code:
        span.set_attribute("error.type", code)
        span.set_status(StatusCode.ERROR)
    span.end()


def _after(traceparent: str | None) -> Context:
    """Of what a client or a caller said, or a new trace."""
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    told = {"traceparent": traceparent} if traceparent else {}
    return TraceContextTextMapPropagator().extract(told, Context())


def _below(span: Span) -> Context:
    from opentelemetry.context import Context
    from opentelemetry.trace import set_span_in_context

    return set_span_in_context(span, Context())
