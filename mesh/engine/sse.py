"""Server-sent events from bytes, as they arrive (WHATWG HTML, section 9.2). Pure."""

from __future__ import annotations

import codecs

from monai_node.registry.errors import ProtocolViolation

_EVENT_CHARS_MAX = 2 << 20


class SseParser:
    """Takes bytes cut anywhere and gives back the data of each event that is complete."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._line = ""
        self._data: list[str] = []
        self._size = 0
        self._is_first = True

    def feed(self, chunk: bytes) -> list[str]:
        """The events that ended within these bytes; ProtocolViolation for one without an end."""
        text = self._decoder.decode(chunk)
        if self._is_first and text:
            text, self._is_first = text.removeprefix("\ufeff"), False
        self._line += text
        *lines, self._line = self._lines()
        events = [event for line in lines if (event := self._take(line)) is not None]
        if self._size + len(self._line) > _EVENT_CHARS_MAX:
            raise ProtocolViolation("the server sent an event without an end")
        return events

    def _lines(self) -> list[str]:
        """Complete lines and the rest. A last carriage return may be half of a line end: it waits."""
        waits = "\r" if self._line.endswith("\r") else ""
        text = self._line.removesuffix("\r").replace("\r\n", "\n").replace("\r", "\n")
        *lines, rest = text.split("\n")
        return [*lines, rest + waits]

    def _take(self, line: str) -> str | None:
        """An event's data when this line, an empty one, ends it."""
        if line:
            name, _, value = line.partition(":")  # a comment has an empty name
            if name == "data":
                self._data.append(value.removeprefix(" "))
                self._size += len(line)
            return None
        data, self._data, self._size = self._data, [], 0
        return "\n".join(data) if data else None
