"""What a run has said, as far as an answer as one object holds it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from monai_node.registry.events import AnswerCompleted, AnswerDelta, PlanTask, Provenance, RunEvent
from monai_node.registry.wire import TokenLogprob


@dataclass(slots=True)
class Said:
    """What one run has said so far."""

    run: str
    tasks: list[PlanTask] = field(default_factory=list[PlanTask])
    logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])
    ending: AnswerCompleted | None = None
    _pieces: list[str] = field(default_factory=list[str])

    def take(self, event: RunEvent) -> None:
        match event:
            case PlanTask():
                self.tasks.append(event)
            case AnswerDelta():
                self._pieces.append(event.text)
                self.logprobs += event.logprobs
            case AnswerCompleted():
                self.ending = event
            case _:
                pass

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    @property
    def done(self) -> AnswerCompleted:
        """How it ended, once it has ended well."""
        assert self.ending is not None
        return self.ending

    @property
    def parts(self) -> Sequence[Provenance]:
        return self.ending.parts if self.ending is not None else ()
