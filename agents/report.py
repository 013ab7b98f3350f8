"""What a run says of its tasks: events from what their dispatch yields, and who made what. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from monai_node.agents.graph import Task
from monai_node.agents.plan import Plan
from monai_node.registry.errors import DeadlineExceeded, MonaiError, NoProvider, TaskFailed
from monai_node.registry.events import (
    MadeItem,
    PlanTask,
    Provenance,
    TaskContinued,
    TaskDispatched,
    TaskText,
    TaskWasAccepted,
)
from monai_node.registry.ids import RunId
from monai_node.registry.wire import Label, Usage
from monai_node.router.dispatch import Accepted, Dispatched, Done, Lost, Text
from monai_node.router.rank import Candidate

_RETRY_AFTER_SECONDS = 2.0  # a peer that starts or comes back is known after a round of probes
_NAMED_CHARS_MAX = 80


@dataclass(slots=True)
class Tries:
    """How far one task came: who has it, how often it was sent, since when."""

    candidate: Candidate | None = None
    count: int = 0
    started: float = 0.0

    def note(self, event: Dispatched, now: float) -> None:
        self.started = self.started if self.count else now
        self.candidate, self.count = event.candidate, event.number


def planned(run: RunId, plan: Plan) -> list[PlanTask]:
    """The tasks in plan order, but each after those it depends on, as readers of events expect."""
    rest = list(plan.graph.tasks)
    told: dict[str, PlanTask] = {}
    while rest:
        task = next(task for task in rest if all(other in told for other in task.depends_on))
        rest.remove(task)
        told[task.id] = PlanTask(
            run=run,
            task=task.id,
            text=task.text,
            depends_on=task.depends_on,
            is_shown=task.id in plan.shown,
        )
    return list(told.values())


def progress(
    run: RunId, task: Task, event: Dispatched | Accepted | Text | Lost
) -> TaskDispatched | TaskWasAccepted | TaskText | TaskContinued:
    match event:
        case Dispatched(attempt=attempt, candidate=candidate):
            return TaskDispatched(
                run=run,
                task=task.id,
                attempt=attempt,
                skill=candidate.skill,
                peer=candidate.peer,
                peer_name=candidate.peer_name,
                model=candidate.model,
                score=candidate.score,
                reasons=list(candidate.reasons),
            )
        case Accepted(attempt=attempt, position=position):
            return TaskWasAccepted(run=run, task=task.id, attempt=attempt, position=position)
        case Text(text=text):
            return TaskText(run=run, task=task.id, text=text)
        case Lost(candidate=candidate, error=error):
            return TaskContinued(run=run, task=task.id, lost_peer=candidate.peer, error=error.message)


def made(task: Task, done: Done) -> Provenance:
    """Who made the result of a task."""
    candidate, completed = done.candidate, done.completed
    return Provenance(
        task=task.id,
        text=task.text,
        skill=candidate.skill,
        peer=candidate.peer,
        peer_name=candidate.peer_name,
        model=completed.model or candidate.model or candidate.skill,
        seconds=done.seconds,
        usage=completed.usage,
        finish_reason=completed.finish_reason,
        attempts=done.attempts,
        verdict=done.verdict.why if done.verdict and done.verdict.kind == "failed" else "",
    )


def not_made(task: Task, tries: Tries, error: MonaiError, now: float) -> Provenance:
    """Who tried last, if anybody did, and why there is no result."""
    candidate = tries.candidate
    return Provenance(
        task=task.id,
        text=task.text,
        skill=candidate.skill if candidate else task.skill or "",
        peer=candidate.peer if candidate else "",
        peer_name=candidate.peer_name if candidate else "",
        model=(candidate.model or candidate.skill) if candidate else "",
        seconds=now - tries.started if candidate else 0.0,
        usage=Usage(),
        finish_reason="error",
        attempts=tries.count,
        status="failed",
        error=error.message,
    )


def no_items(source: Task) -> TaskFailed:
    """Why a task was not done that is to be done for each item of a list: the list is empty."""
    return TaskFailed(f"the result of “{_named(source.text)}” holds no items", code="no_items")


def out_of_time(seconds: float) -> DeadlineExceeded:
    """Why a task was given up while the run goes on."""
    return DeadlineExceeded(f"not done within {seconds:.0f} s, which leave time for what needs it")


def no_provider(label: Label) -> NoProvider:
    if label == "local":
        # A peer that joins would not help: nobody else may see it.
        return NoProvider(
            "a 'local' request stays on the gateway's own node, which offers no skill for this; send it as"
            " 'trusted' to have a peer do it"
        )
    return NoProvider(
        f"no reachable peer that may see a {label!r} request offers a skill for this; start one with"
        " `monai-node serve model.gguf --join …`",
        retry_after_seconds=_RETRY_AFTER_SECONDS,
    )


def dependency_failed(task: Task) -> TaskFailed:
    """Why a task was never sent that needs the result of `task`."""
    said = f"it needs the result of “{_named(task.text)}”, and that part failed"
    return TaskFailed(said, code="dependency_failed")


def made_for_each(
    task: Task, made: Sequence[MadeItem], parts: Sequence[Provenance], seconds: float
) -> Provenance:
    """Who made the list: `made` has an entry per item, `parts` one per item that was done, at least one."""
    (peer, model), _ = Counter((part.peer, part.model) for part in parts).most_common(1)[0]
    most = next(part for part in parts if (part.peer, part.model) == (peer, model))
    return most.model_copy(
        update={
            "task": task.id,
            "text": task.text,
            "seconds": seconds,
            "usage": Usage(
                prompt_tokens=sum(part.usage.prompt_tokens for part in parts),
                completion_tokens=sum(part.usage.completion_tokens for part in parts),
            ),
            "finish_reason": "length" if any(part.finish_reason == "length" for part in parts) else "stop",
            "attempts": sum(part.attempts for part in parts),
            "verdict": next((part.verdict for part in parts if part.verdict), ""),
            "items": list(made),
        }
    )


def item_made(item: str, part: Provenance) -> MadeItem:
    return MadeItem(
        item=_named(item), peer=part.peer, peer_name=part.peer_name, model=part.model, seconds=part.seconds
    )


def item_failed(item: str, error: MonaiError, asked: Candidate | None) -> MadeItem:
    """`asked` is who had it last; None when it was sent to nobody."""
    if asked is None:
        return MadeItem(item=_named(item), error=error.message)
    return MadeItem(
        item=_named(item), peer=asked.peer, peer_name=asked.peer_name, model=asked.model, error=error.message
    )


def _named(text: str) -> str:
    """The beginning of a text, on one line."""
    words = " ".join(text[: 4 * _NAMED_CHARS_MAX].split())
    return words if len(words) <= _NAMED_CHARS_MAX else words[:_NAMED_CHARS_MAX].rstrip() + "…"
