"""What is counted and measured of a gateway, for Prometheus. Names follow vLLM's where it has them, with the
prefix `monai_`; times are taken from this node's monotonic clock.

Peers and skills become labels only once a task was sent to them, and only so many of them: what peers
announce costs no memory here.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter as Tally
from collections.abc import Callable, Sequence
from typing import cast

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import choose_encoder

from monai_node.agents.request import RunRequest
from monai_node.mesh.gateway.backend import PeerView
from monai_node.mesh.gateway.caller import Caller
from monai_node.registry.events import (
    AnswerCompleted,
    AnswerDelta,
    PlanTask,
    RunEvent,
    RunFailed,
    TaskContinued,
    TaskDispatched,
    TaskText,
    TaskWasCompleted,
)
from monai_node.registry.ids import AttemptId, short
from monai_node.router.outcome import Ending
from monai_node.router.rank import Candidate

Clock = Callable[[], float]

LABELS_MAX = 256  # pairs of peer and skill, kinds of error, routes: of each so many, then OTHER
OTHER = "other"
_TOKENS_MAX = 1 << 24  # of one task; the number is its peer's word
_LAG_PERIOD_SECONDS = 0.5
_OPENMETRICS = "application/openmetrics-text"
_PEER_STATES = ("alive", "suspect", "gone", "self")
_METHODS = frozenset(("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "WEBSOCKET"))

# vLLM's, thinned out (vllm/v1/metrics/loggers.py): alike for all that is measured from a client's side.
_REQUEST_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 640)
_TOKEN_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
_SHORT_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_TASKS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)


class Metrics:
    """Of one gateway, in a registry of its own. Watches runs (`feed.Watcher`) and is told of every attempt at
    a task (`router.outcome.Ledger`), canaries among them."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(f"monai_{name}", about, labels, registry=registry)

        def gauge(name: str, about: str, *labels: str) -> Gauge:
            return Gauge(f"monai_{name}", about, labels, registry=registry)

        def histogram(name: str, about: str, buckets: Sequence[float]) -> Histogram:
            return Histogram(f"monai_{name}", about, buckets=buckets, registry=registry)

        self._running = gauge("num_requests_running", "Runs under way.")
        self._waiting = gauge("num_requests_waiting", "Runs that wait for a place.")
        self._peers = gauge("peers", "Known nodes of the mesh by state.", "state")
        self._ejected = gauge("peers_ejected", "Peers at which something is not asked for a while.")
        self.prompt_tokens = counter("prompt_tokens", "Tokens read by models, as peers say.")
        self.generation_tokens = counter("generation_tokens", "Tokens written by models, as peers say.")
        self.succeeded = counter("request_success", "Runs that were answered.", "finished_reason")
        self.failed = counter("request_errors", "Runs that were not answered.", "code")
        self.cancelled = counter("request_cancelled", "Runs whose client went away.")
        self.continued = counter("continued", "Tasks that another peer went on with.")
        self._dispatched = counter(
            "dispatch", "Attempts at tasks by how they ended.", "peer", "skill", "outcome"
        )
        self._answered = counter("http_requests", "Answered requests.", "method", "route", "status")
        self.first_token = histogram(
            "time_to_first_token_seconds",
            "From a run's place in the gate to its first text.",
            _REQUEST_SECONDS,
        )
        self.output_token = histogram(
            "time_per_output_token_seconds", "Of a run's tokens after its first text.", _TOKEN_SECONDS
        )
        self.latency = histogram(
            "e2e_request_latency_seconds", "From a run's place in the gate to its end.", _REQUEST_SECONDS
        )
        self._queued = histogram("request_queue_time_seconds", "Waiting for that place.", _REQUEST_SECONDS)
        self.plan_tasks = histogram("plan_tasks", "Tasks of a plan.", _TASKS)
        self.planner = histogram("planner_seconds", "Reading a request.", _SHORT_SECONDS)
        self.route = histogram("route_seconds", "From a plan to its first task being sent.", _SHORT_SECONDS)
        self._lag = histogram(
            "event_loop_lag_seconds", "How late timers of this process are.", _SHORT_SECONDS
        )
        self._pairs, self._codes, self._routes = _Known(), _Known(), _Known()

    # --- told by others -----------------------------------------------------------------------------
    def watch(self, request: RunRequest, caller: Caller) -> RunWatch:
        return RunWatch(self, self._clock)

    def decided(self, run: str, task: str, attempt: AttemptId, candidates: Sequence[Candidate]) -> None:
        """Counted when it has ended."""

    def ended(self, run: str, task: str, attempt: AttemptId, candidate: Candidate, ending: Ending) -> None:
        pair = (short(candidate.peer), candidate.skill)
        peer, skill = pair if self._pairs.has(pair) else (OTHER, OTHER)
        self._dispatched.labels(peer, skill, self.code(ending.code or "completed")).inc()

    def queued(self, seconds: float) -> None:
        """A run has waited so long for its place."""
        self._queued.observe(seconds)

    def answered(self, method: str, route: str, status: int) -> None:
        """An HTTP request was answered; `route` is the template of its path, `status` as it was sent."""
        route = route if self._routes.has(route) else OTHER
        self._answered.labels(known_method(method), route, str(status)).inc()

    def code(self, code: str) -> str:
        """A kind of error as a label."""
        return code if self._codes.has(code) else OTHER

    async def keep_measuring_lag(self) -> None:
        """Look, for as long as nobody cancels it, by how much the event loop is behind."""
        while True:
            due = self._clock() + _LAG_PERIOD_SECONDS
            await asyncio.sleep(_LAG_PERIOD_SECONDS)
            self._lag.observe(max(0.0, self._clock() - due))

    # --- asked by Prometheus --------------------------------------------------------------------------
    async def exposition(
        self, accept: str, running: int, waiting: int, peers: Sequence[PeerView], ejected: int
    ) -> tuple[bytes, str]:
        """All figures and these, in the format that `accept` asks for (Prometheus' text, or OpenMetrics), and
        its content type."""
        self._running.set(running)
        self._waiting.set(waiting)
        self._ejected.set(ejected)
        states = Tally[str](peer.state for peer in peers)
        for state in _PEER_STATES:
            self._peers.labels(state).set(states[state])
        # What else stands in `accept` is left to no parser: not every version that it may name is one.
        encoder, content_type = choose_encoder(_OPENMETRICS if _OPENMETRICS in accept else "")
        encode = cast("Callable[[CollectorRegistry], bytes]", encoder)
        # Thousands of lines: not on the event loop.
        return await asyncio.to_thread(encode, self.registry), content_type


class RunWatch:
    """What one run adds."""

    def __init__(self, metrics: Metrics, clock: Clock) -> None:
        self._metrics = metrics
        self._clock = clock
        self._began = clock()
        self._planned: float | None = None
        self._first: float | None = None
        self._tasks = 0
        self._is_sent = False
        self._is_over = False

    def note(self, event: RunEvent) -> None:
        metrics = self._metrics
        match event:
            # What there are many of stands first.
            case AnswerDelta(text=text):
                if text and self._first is None:
                    self._first = self._clock()
                    metrics.first_token.observe(self._first - self._began)
            case TaskText():
                pass
            case PlanTask():
                self._tasks += 1
                self._planned = self._planned or self._clock()
            case TaskDispatched() if not self._is_sent:
                self._sent()
            case TaskContinued():
                metrics.continued.inc()
            case TaskWasCompleted(provenance=part):
                metrics.prompt_tokens.inc(min(part.usage.prompt_tokens, _TOKENS_MAX))
                metrics.generation_tokens.inc(min(part.usage.completion_tokens, _TOKENS_MAX))
            case AnswerCompleted():
                self._completed(event)
            case RunFailed(code=code):
                self._is_over = True
                metrics.failed.labels(metrics.code(code)).inc()
            case _:
                pass

    def close(self) -> None:
        if not self._is_over:
            self._metrics.cancelled.inc()

    def _sent(self) -> None:
        self._is_sent = True
        self._metrics.plan_tasks.observe(self._tasks)
        if self._planned is not None:
            self._metrics.planner.observe(self._planned - self._began)
            self._metrics.route.observe(self._clock() - self._planned)

    def _completed(self, event: AnswerCompleted) -> None:
        metrics, now = self._metrics, self._clock()
        self._is_over = True
        metrics.succeeded.labels(event.finish_reason).inc()
        metrics.latency.observe(now - self._began)
        rest = min(event.usage.completion_tokens, _TOKENS_MAX) - 1
        if self._first is not None and rest > 0:
            metrics.output_token.observe((now - self._first) / rest)


def known_method(method: str) -> str:
    """What clients may have made up is OTHER."""
    return method if method in _METHODS else OTHER


class _Known:
    """The first LABELS_MAX values that were used. None is given up for another: a counter never falls."""

    def __init__(self) -> None:
        self._values: set[object] = set()

    def has(self, value: object) -> bool:
        if value not in self._values and len(self._values) < LABELS_MAX:
            self._values.add(value)
        return value in self._values
