"""How well a task was done, as this node found out: what the router learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from monai_node.registry.errors import Abstained, MonaiError, ProtocolViolation, TaskFailed
from monai_node.registry.ids import AttemptId, PeerId
from monai_node.registry.wire import Timings, Usage
from monai_node.router.embed import Vector
from monai_node.router.verdict import Verdict

if TYPE_CHECKING:  # the ranking reads what is learnt from outcomes
    from monai_node.router.rank import Candidate

# What an outcome rests on, from the surest to the least sure.
Source = Literal["canary", "contract", "feedback", "abstained", "error"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One task at one peer. `value` is 0 for badly done to 1 for well done; `at` is wall-clock seconds
    (outcomes outlive the process); `digest` is the model's ("" for an agent); `vector` is the embedding
    of the task's words, of length 1, None when it was not embedded. Holds no text."""

    peer: PeerId
    skill: str
    digest: str
    value: float
    source: Source
    at: float
    vector: Vector | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Ending:
    """How one attempt ended, seen from here. Holds no text of the task or of its result.

    `value` is 0 for badly done to 1 for well done and `source` what that rests on; both are None when
    the attempt says nothing of how well this peer does such tasks. `code` is the error's, "" when there
    was none, "cancelled" when nobody waits for the result any more. Seconds count from when the attempt
    began; `first_text_seconds` is None when no text came. `chars` is what this attempt sent, shown or
    not. `usage`, `timings` and `digest` (the model's) are the peer's word, empty unless it completed.
    `attempts` counts from 1, this one included.
    """

    value: float | None
    source: Source | None
    seconds: float
    attempts: int
    code: str = ""
    verdict: Verdict | None = None
    first_text_seconds: float | None = None
    chars: int = 0
    digest: str = ""
    usage: Usage = field(default_factory=Usage)
    timings: Timings = field(default_factory=Timings)


class Ledger(Protocol):
    """Is told of every attempt. Called on the event loop between frames: neither blocks nor raises."""

    def decided(self, run: str, task: str, attempt: AttemptId, candidates: Sequence[Candidate]) -> None:
        """An attempt begins: at the first of `candidates`; the others would be asked after it, in order."""
        ...

    def ended(self, run: str, task: str, attempt: AttemptId, candidate: Candidate, ending: Ending) -> None:
        """That attempt is over, in whatever way; once for every `decided`."""
        ...


class NoLedger:
    """Keeps nothing."""

    def decided(self, run: str, task: str, attempt: AttemptId, candidates: Sequence[Candidate]) -> None:
        pass

    def ended(self, run: str, task: str, attempt: AttemptId, candidate: Candidate, ending: Ending) -> None:
        pass


class Ledgers:
    """Tells each of them."""

    def __init__(self, *each: Ledger) -> None:
        self._each = each

    def decided(self, run: str, task: str, attempt: AttemptId, candidates: Sequence[Candidate]) -> None:
        for ledger in self._each:
            ledger.decided(run, task, attempt, candidates)

    def ended(self, run: str, task: str, attempt: AttemptId, candidate: Candidate, ending: Ending) -> None:
        for ledger in self._each:
            ledger.ended(run, task, attempt, candidate, ending)


def value_of(verdict: Verdict | None, error: MonaiError | None) -> tuple[float | None, Source | None]:
    """What an attempt says of how well its peer does such tasks, and what that rests on.

    A peer that is gone, slow or busy says nothing of it: that is health. Nor does an error of the caller
    or of this node, or a result in which nothing could be checked.
    """
    if verdict is not None and verdict.kind != "open":
        return (1.0 if verdict.kind == "passed" else 0.0), "contract"
    if isinstance(error, Abstained):
        return 0.0, "abstained"
    if isinstance(error, TaskFailed | ProtocolViolation):
        return 0.0, "error"
    return None, None
