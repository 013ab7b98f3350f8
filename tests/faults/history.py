"""What a client saw and what was done to the mesh meanwhile: the evidence that `checker` judges.

One record per line of JSON, in the order in which things happened. `at` is in seconds since the
history began, by one monotonic clock. Text of an answer is only counted, never kept; run events are
kept as they were sent.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

GATEWAY = "gateway"  # `target` of a fault that may cost a client its connection

HowEnded = Literal[
    "done",  # [DONE], and no error before it
    "error_event",  # an error event, with or without [DONE] after it
    "clean_end_without_done",
    "reset",  # the connection broke, or was never made
    "http_error",
    "gave_up",  # the client waited past the deadline and its grace
    "cancelled",  # the test wanted to leave
]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    at: float


class RequestStarted(_Record):
    """`own_peer` is the gateway's node: the only one that may be asked under the label `local`."""

    kind: Literal["request"] = "request"
    request: str
    deadline_seconds: float
    label: str | None = None
    own_peer: str | None = None


class Answered(_Record):
    """Status and headers arrived; `code` is the OpenAI error code, when the body is an error."""

    kind: Literal["answered"] = "answered"
    request: str
    status: int
    code: str | None = None
    retry_after_seconds: float | None = None


class Chunk(_Record):
    """One `data:` of the stream, for one choice. `n` counts from 1; `bytes` is the size of the
    JSON, `chars` of the text or tool call in it. `error` is the code of an error event; a chunk
    that is not JSON has `is_malformed`."""

    kind: Literal["chunk"] = "chunk"
    request: str
    n: int
    bytes: int
    chars: int = 0
    choice: int = 0
    finish_reason: str | None = None
    error: str | None = None
    is_malformed: bool = False


class StreamDone(_Record):
    kind: Literal["done"] = "done"
    request: str


class MeshEvent(_Record):
    """One run event (`monai_node.registry.events`), as it stood in the stream."""

    kind: Literal["event"] = "event"
    request: str
    event: dict[str, Any]


class Ended(_Record):
    kind: Literal["ended"] = "ended"
    request: str
    how: HowEnded


class FaultInjected(_Record):
    """`target` is a peer id, a process's or link's name, or GATEWAY."""

    kind: Literal["fault"] = "fault"
    what: str
    target: str


class Candidates(_Record):
    """The test's own knowledge: which peers serve which skill, from here on."""

    kind: Literal["candidates"] = "candidates"
    peers: dict[str, list[str]]


Record = RequestStarted | Answered | Chunk | StreamDone | MeshEvent | Ended | FaultInjected | Candidates
_ADAPTER: TypeAdapter[Record] = TypeAdapter(Annotated[Record, Field(discriminator="kind")])


class History:
    """Collects records from any thread; with a path, each is on disk before the next is taken."""

    def __init__(self, path: Path | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._began = clock()
        self._lock = threading.Lock()
        self._records: list[Record] = []

    @property
    def records(self) -> tuple[Record, ...]:
        with self._lock:
            return tuple(self._records)

    def now(self) -> float:
        return self._clock() - self._began

    def add(self, record: Record) -> None:
        with self._lock:
            self._records.append(record)
            if self._path is not None:
                with self._path.open("a") as file:
                    file.write(record.model_dump_json() + "\n")

    def fault(self, what: str, target: str) -> None:
        """A fault is about to be injected; fits `on_fault` of processes and links."""
        self.add(FaultInjected(at=self.now(), what=what, target=target))

    def candidates(self, peers: Mapping[str, Sequence[str]]) -> None:
        """Which peers serve which skill, as the test set them up."""
        known = {skill: list(of_skill) for skill, of_skill in peers.items()}
        self.add(Candidates(at=self.now(), peers=known))


def load_history(path: Path) -> list[Record]:
    """The records of a history that was written to `path`."""
    return [_ADAPTER.validate_json(line) for line in path.read_text().splitlines()]
