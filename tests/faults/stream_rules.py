"""The rules of one request's stream: its end (I1), its text (I2), its refusal (I7). Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeGuard

from faults.history import (
    GATEWAY,
    Answered,
    Chunk,
    Ended,
    FaultInjected,
    MeshEvent,
    Record,
    RequestStarted,
    StreamDone,
)
from faults.violations import Rule, Violation

LATE_SECONDS = 1.0  # the promise: within the deadline and this much


def check_stream(request: str, records: Sequence[Record]) -> Iterator[Violation]:
    """Violations of one request; `records` are its own and the faults, in their order."""
    for rule, message in (
        *_end(records),
        *_text(records),
        *_refusal(records),
    ):
        yield Violation(rule, request, message)


def _end(records: Sequence[Record]) -> Iterator[tuple[Rule, str]]:
    starts = [record for record in records if isinstance(record, RequestStarted)]
    ends = [record for record in records if isinstance(record, Ended)]
    if len(starts) != 1:
        yield Rule.ONE_END, f"it was started {len(starts)} times"
        return
    if len(ends) != 1:
        yield Rule.ONE_END, f"it ended {len(ends)} times"
    for end in ends:
        if end.how == "cancelled":
            continue
        took = end.at - starts[0].at
        if took > starts[0].deadline_seconds + LATE_SECONDS:
            yield (
                Rule.IN_TIME,
                f"it took {took:.2f} s, {starts[0].deadline_seconds:g} s were given",
            )
        if end.how == "gave_up":
            yield Rule.EXPLICIT_END, "it had not ended when the client gave up"
        elif end.how == "reset" and not _is_gateway_hurt(records, end.at):
            yield Rule.EXPLICIT_END, "its connection broke without a word"
    for answered in records:
        if isinstance(answered, Answered) and answered.status != 200 and not answered.code:
            yield Rule.EXPLICIT_END, f"status {answered.status} came without an OpenAI error body"


def _is_gateway_hurt(records: Sequence[Record], by: float) -> bool:
    return any(
        isinstance(record, FaultInjected) and record.target == GATEWAY and record.at <= by
        for record in records
    )


def _text(records: Sequence[Record]) -> Iterator[tuple[Rule, str]]:
    finished: set[int] = set()
    choices = {record.choice for record in records if _is_of_answer(record)} or {0}
    is_failed = is_done = is_over = False
    for record in records:
        match record:
            case Chunk():
                if record.is_malformed:
                    yield Rule.MALFORMED, f"message {record.n} is not JSON"
                if is_failed and (record.error or _is_of_answer(record)):
                    yield Rule.AFTER_ERROR, f"message {record.n} follows the error event"
                elif is_done or is_over:
                    yield Rule.AFTER_END, f"message {record.n} follows the end of the stream"
                elif record.choice in finished and _is_of_answer(record):
                    yield Rule.AFTER_END, f"message {record.n} follows its finish_reason"
                if record.finish_reason:
                    finished.add(record.choice)
                is_failed = is_failed or record.error is not None
            case MeshEvent() if is_failed and record.event.get("type") == "answer.delta":
                yield Rule.AFTER_ERROR, "text of the answer follows the error event"
            case StreamDone():
                if is_done:
                    yield Rule.AFTER_END, "[DONE] came twice"
                is_done = True
            case Ended():
                is_over = True
                is_cut = not is_failed and not (is_done and finished >= choices)
                if record.how in ("done", "clean_end_without_done") and is_cut:
                    yield (
                        Rule.SILENT_CUT,
                        f"it ended cleanly with{'' if is_done else 'out'} [DONE] and"
                        f" {'some' if finished else 'no'} finish_reason",
                    )
            case _:
                pass


def _is_of_answer(record: Record) -> TypeGuard[Chunk]:
    return isinstance(record, Chunk) and bool(record.chars or record.finish_reason)


def _refusal(records: Sequence[Record]) -> Iterator[tuple[Rule, str]]:
    for record in records:
        if isinstance(record, Answered) and record.status in (429, 503) and not record.retry_after_seconds:
            yield Rule.RETRY_AFTER, f"status {record.status} does not say when to try again"
