"""Histories of a gateway that keeps its promises, for tests of what judges histories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from faults.history import (
    Answered,
    Candidates,
    Chunk,
    Ended,
    FaultInjected,
    HowEnded,
    MeshEvent,
    Record,
    RequestStarted,
    StreamDone,
)
from monai_node.registry.events import (
    AnswerCompleted,
    AnswerDelta,
    PlanTask,
    Provenance,
    RunCreated,
    RunEvent,
    RunFailed,
    TaskContinued,
    TaskDispatched,
    TaskText,
    TaskWasAccepted,
    TaskWasCompleted,
)
from monai_node.registry.wire import Usage

REQUEST, RUN, SKILL = "request-1", "run-1", "chat"
PEERS = ("peer-a", "peer-b", "peer-c")


@dataclass
class Writer:
    """Writes a history as a good gateway would produce it: times, numbers and ids follow."""

    request: str = REQUEST
    records: list[Record] = field(default_factory=list[Record])
    parts: list[Provenance] = field(default_factory=list[Provenance])
    asked: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    @property
    def at(self) -> float:
        return len(self.records) / 1000

    def start(self, **fields: Any) -> None:
        self.records.append(RequestStarted(at=self.at, request=self.request, deadline_seconds=5, **fields))
        self.records.append(Answered(at=self.at, request=self.request, status=200))

    def event(self, event: RunEvent) -> None:
        seq = sum(isinstance(record, MeshEvent) for record in self.records)
        raw = event.model_copy(update={"seq": seq}).model_dump(mode="json")
        self.records.append(MeshEvent(at=self.at, request=self.request, event=raw))

    def chunk(self, **fields: Any) -> None:
        n = sum(isinstance(record, Chunk) for record in self.records) + 1
        self.records.append(Chunk(at=self.at, request=self.request, n=n, bytes=99, **fields))

    def dispatch(self, task: str, peer: str) -> None:
        attempt = f"{task}-{len(self.asked.setdefault(task, []))}"
        self.asked[task].append(peer)
        self.event(
            TaskDispatched(
                run=RUN,
                task=task,
                attempt=attempt,
                skill=SKILL,
                peer=peer,
                peer_name=f"name of {peer}",
                reasons=[],
            )
        )
        self.event(TaskWasAccepted(run=RUN, task=task, attempt=attempt, position=0))

    def text(self, task: str) -> None:
        self.event(TaskText(run=RUN, task=task, text="some"))
        self.event(AnswerDelta(run=RUN, text="some"))
        self.chunk(chars=4)

    def complete(self, task: str, peer: str | None = None) -> None:
        part = provenance(task, peer or self.asked[task][-1], attempts=len(self.asked[task]))
        self.parts.append(part)
        self.event(TaskWasCompleted(run=RUN, task=task, provenance=part))

    def finish(self, how: HowEnded = "done") -> None:
        if how == "error_event":
            self.event(RunFailed(run=RUN, status=502, kind="k", code="peer_lost", message="m"))
            self.chunk(error="peer_lost")
        else:
            self.event(AnswerCompleted(run=RUN, finish_reason="stop", usage=Usage(), parts=self.parts))
            self.chunk(finish_reason="stop")
        self.records.append(StreamDone(at=self.at, request=self.request))
        self.records.append(Ended(at=self.at, request=self.request, how=how))


def provenance(task: str, peer: str, **fields: Any) -> Provenance:
    return Provenance(
        task=task,
        text="do it",
        skill=SKILL,
        peer=peer,
        peer_name=peer,
        model="m",
        seconds=0.1,
        usage=Usage(),
        finish_reason="stop",
        **fields,
    )


def planned(tasks: int) -> Writer:
    """A history up to its plan: a chain of tasks, each of which depends on the one before."""
    writer = Writer()
    writer.records.append(Candidates(at=0, peers={SKILL: list(PEERS)}))
    writer.start()
    writer.event(RunCreated(run=RUN))
    for n in range(tasks):
        depends_on = [f"t{n - 1}"] if n else []
        writer.event(PlanTask(run=RUN, task=f"t{n}", text="do it", depends_on=depends_on))
    return writer


def good_history(tasks: int = 2, texts: int = 2, lost: Sequence[int] = ()) -> list[Record]:
    """A complete answer; the peers of the tasks in `lost` go away in the middle."""
    writer = planned(tasks)
    peers = list(PEERS)
    for n in range(tasks):
        task, peer = f"t{n}", peers[0]
        writer.dispatch(task, peer)
        writer.text(task)
        if n in lost and len(peers) > 1:
            peers.remove(peer)
            writer.records.append(FaultInjected(at=writer.at, what="kill", target=peer))
            writer.event(TaskContinued(run=RUN, task=task, lost_peer=peer, error="peer_lost"))
            writer.dispatch(task, peers[0])
        for _ in range(texts - 1):
            writer.text(task)
        writer.complete(task)
    writer.finish()
    return writer.records
