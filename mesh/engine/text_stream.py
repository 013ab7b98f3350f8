"""Bytes of tokens to text that may be shown: no half characters, nothing of a stop string. Pure."""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class TextStream:
    """Takes the bytes of one token after another and gives back the text that is certain.

    Text that could still become a stop string is held back; once one is complete, `is_stopped`
    holds and everything from it on is dropped.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.is_stopped = False
        self.read_chars = 0  # of what was fed, stop strings and all
        self.shown_chars = 0

    @property
    def is_whole(self) -> bool:
        """Whether what was fed ends with a character and not within one."""
        return not self._decoder.getstate()[0]

    def feed(self, piece: bytes) -> str:
        """The text that became certain with these bytes."""
        if self.is_stopped:
            return ""
        text = self._decoder.decode(piece)
        self._held += text
        self.read_chars += len(text)
        found = [at for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.is_stopped = True
            return self._take(min(found))
        return self._take(len(self._held) - self._doubtful())

    def finish(self) -> str:
        """What was held back for a stop string that did not come. Bytes of an incomplete character
        are dropped: they say nothing."""
        return "" if self.is_stopped else self._take(len(self._held))

    def _take(self, count: int) -> str:
        text, self._held = self._held[:count], self._held[count:]
        self.shown_chars += len(text)
        return text

    def _doubtful(self) -> int:
        """The length of the longest end of the held text that begins a stop string."""
        most = 0
        for stop in self._stops:
            for length in range(min(len(stop) - 1, len(self._held)), most, -1):
                if self._held.endswith(stop[:length]):
                    most = length
                    break
        return most
