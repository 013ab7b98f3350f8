"""Judges a history: which of the promises that a client can see were broken. Pure.

Not seen from here: resources, the gateway's exit, and what logs contain (`faults.canary`). A retry
after a peer failed without having shown any text looks like a hedge in the events, so I6 is judged
on `task.continued` and on a task that goes to the same peer twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pydantic import TypeAdapter, ValidationError

from faults.history import (
    Candidates,
    Ended,
    FaultInjected,
    MeshEvent,
    Record,
    RequestStarted,
)
from faults.run_rules import RunRules, Surroundings
from faults.stream_rules import check_stream
from faults.violations import Rule, Violation
from monai_node.registry.events import RunEvent

_ANSWERED = ("done", "error_event")
_MENDING = ("thaw", "heal")
_EVENT: TypeAdapter[RunEvent] = TypeAdapter(RunEvent)


def check(records: Sequence[Record]) -> list[Violation]:
    """Every violation in a history, in the order of requests, then of runs."""
    requests = dict.fromkeys(
        record.request for record in records if not isinstance(record, FaultInjected | Candidates)
    )
    violations: list[Violation] = []
    for request in requests:
        own = [r for r in records if isinstance(r, FaultInjected) or _request_of(r) == request]
        violations += check_stream(request, own)
    return violations + list(_check_runs(records))


def assert_holds(records: Sequence[Record]) -> None:
    """AssertionError that lists every violation in a history."""
    violations = check(records)
    if violations:
        raise AssertionError("\n".join(["the history breaks promises:", *map(str, violations)]))


def _request_of(record: Record) -> str | None:
    return None if isinstance(record, FaultInjected | Candidates) else record.request


def check_events(events: Sequence[RunEvent]) -> list[Violation]:
    """The same for the events of runs alone, each of which must have ended."""
    records: list[Record] = [
        *(MeshEvent(at=0.0, request="-", event=event.model_dump(mode="json")) for event in events),
        Ended(at=0.0, request="-", how="done"),
    ]
    return list(_check_runs(records))


def _check_runs(records: Sequence[Record]) -> Iterator[Violation]:
    runs: dict[str, _Run] = {}
    around = _Around(records)
    for record in records:
        around.note(record)
        if not isinstance(record, MeshEvent):
            continue
        try:
            event = _EVENT.validate_python(record.event)
        except ValidationError as error:
            what = error.errors(include_url=False)[0]["msg"]
            yield Violation(Rule.VOCABULARY, record.request, f"an event of no known form: {what}")
            continue
        run = runs.setdefault(event.run, _Run())
        if run.is_new(event, record.request):
            for rule, message in run.rules.step(event, around.of(record.request)):
                yield Violation(rule, event.run, message)
    for name, run in runs.items():
        if run.rules.terminals == 0 and around.has_ended(run.last_request):
            yield Violation(Rule.TERMINAL, name, "its stream ended and the run did not")


class _Run:
    def __init__(self) -> None:
        self.rules = RunRules()
        self.last_request = ""
        self._seen: dict[int, tuple[str, RunEvent]] = {}

    def is_new(self, event: RunEvent, request: str) -> bool:
        """False for an event that an earlier stream of this run had, word for word: a client that
        came back is told again what it may have missed."""
        self.last_request = request
        seen_in, seen = self._seen.setdefault(event.seq, (request, event))
        return seen_in == request or seen != event


class _Around:
    """What stands beside the events: labels, candidates, faults, ends."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._starts: dict[str, RequestStarted] = {}
        self._candidates: dict[str, frozenset[str]] = {}
        self._hurt: set[str] = set()
        self._names: dict[str, set[str]] = {}  # of peers
        self._ended = {r.request for r in records if isinstance(r, Ended) and r.how in _ANSWERED}
        for record in records:
            if isinstance(record, MeshEvent) and record.event.get("type") == "task.dispatched":
                skill, peer, name = (record.event.get(key) for key in ("skill", "peer", "peer_name"))
                asked = self._candidates.get(str(skill), frozenset())
                self._candidates[str(skill)] = asked | {str(peer)}
                self._names.setdefault(str(peer), {str(peer)}).add(str(name))

    def note(self, record: Record) -> None:
        match record:
            case RequestStarted():
                self._starts[record.request] = record
            case Candidates():
                known = {skill: frozenset(peers) for skill, peers in record.peers.items()}
                self._candidates |= known
            case FaultInjected() if record.what in _MENDING:
                self._hurt.discard(record.target)
            case FaultInjected():
                self._hurt.add(record.target)
            case _:
                pass

    def of(self, request: str) -> Surroundings:
        start = self._starts.get(request)
        hurt = {peer for peer, names in self._names.items() if names & self._hurt} | self._hurt
        return Surroundings(
            candidates=self._candidates,
            hurt=frozenset(hurt),
            is_local=start is not None and start.label == "local",
            own_peer=start.own_peer if start is not None else None,
        )

    def has_ended(self, request: str) -> bool:
        return request in self._ended
