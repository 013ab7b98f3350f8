"""Server-sent events from bytes, as browsers read them (HTML standard, 9.2.6); what is in ours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeGuard

EVENT_BYTES_MAX = 4 << 20


@dataclass(frozen=True, slots=True)
class SseEvent:
    """`name` is "message" unless the stream says otherwise."""

    name: str
    data: str


class SseParser:
    """Feed it bytes as they come. Lines end in LF or CRLF only, never at U+2028 inside JSON."""

    def __init__(self) -> None:
        self._rest = b""
        self._name = ""
        self._data: list[str] = []

    def feed(self, data: bytes) -> Iterator[SseEvent]:
        """Events that these bytes complete, without comments. AssertionError for a huge line."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > EVENT_BYTES_MAX:
            raise AssertionError("a line of the event stream does not end")
        for line in lines:
            if event := self._line(line.removesuffix(b"\r").decode("utf-8", "replace")):
                yield event

    def _line(self, line: str) -> SseEvent | None:
        if not line:
            event = SseEvent(self._name or "message", "\n".join(self._data))
            is_event = bool(self._data)
            self._name, self._data = "", []
            return event if is_event else None
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._name = value
        return None


def is_map(value: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def is_list(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def parse_json_map(text: str) -> dict[str, Any] | None:
    """The JSON object in `text`; None for anything else."""
    try:
        value: object = json.loads(text)
    except ValueError:
        return None
    return value if is_map(value) else None


def run_events_in(payload: dict[str, Any]) -> list[dict[str, Any]]:
    """The run events in one message of a stream, wherever the gateway puts them: the message
    itself, its `mesh` object, or `event` or `events` in that."""
    mesh = payload.get("mesh")
    places: list[object] = [payload]
    if is_map(mesh):
        events = mesh.get("events")
        places += [mesh, mesh.get("event"), *(events if is_list(events) else [])]
    return [place for place in places if is_run_event(place)]


def is_run_event(value: object) -> TypeGuard[dict[str, Any]]:
    return is_map(value) and "run" in value and "type" in value
