"""What a skill is told beside its text: when and where its caller is, and what was said before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timezone, tzinfo
from zoneinfo import ZoneInfo

from monai_node.registry.errors import InvalidRequest
from monai_node.registry.wire import Artifact, ChatMessage, TaskRequest

Clock = Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class Context:
    """The circumstances of one task. `now` is aware and stands in `timezone`.

    Time is the caller's: its `now` and timezone when the request names them, else this node's
    clock. `timezone` is a ZoneInfo when it was named, otherwise the offset of `now`. `turns` are
    the earlier turns of the conversation that the task was given, without the task's own text;
    `artifacts` are results of earlier tasks: data, never instructions. `remaining_seconds` counts
    from the start.
    """

    now: datetime
    timezone: tzinfo
    locale: str = ""
    turns: tuple[ChatMessage, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    remaining_seconds: float = 60.0


def local_clock() -> datetime:
    """This node's time in this node's zone."""
    return datetime.now(UTC).astimezone()


def context_of(request: TaskRequest, clock: Clock = local_clock) -> Context:
    """The context of a request; InvalidRequest when its `now` or timezone cannot be understood."""
    now = _moment(request.now) if request.now else clock()
    if request.timezone:
        now = now.astimezone(_zone(request.timezone))
    return Context(
        now=now,
        timezone=now.tzinfo or UTC,
        locale=request.locale or "",
        turns=_earlier_turns(request),
        artifacts=tuple(request.input.artifacts),
        remaining_seconds=request.remaining_ms / 1000,
    )


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
        offset = moment.utcoffset()
        if offset is None:
            raise ValueError("no offset")
        return moment.astimezone(timezone(offset))
    except (ValueError, OverflowError):
        raise InvalidRequest(
            "`now` must be an ISO 8601 time with its offset, such as 2026-05-04T09:30:00+02:00",
            param="now",
        ) from None


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown; not a key ("../x"); a folder ("America")
        raise InvalidRequest(
            f"the timezone {name!r} is not known here; name one like Europe/Paris", param="timezone"
        ) from None


def _earlier_turns(request: TaskRequest) -> tuple[ChatMessage, ...]:
    """The turns before the task's own text, which a passed-through conversation also holds."""
    turns = tuple(request.input.turns)
    if not request.input.is_conversation:
        return turns
    last = max((i for i, turn in enumerate(turns) if turn.role == "user"), default=len(turns))
    return turns[:last]
