"""What one task writes and any number of others read, each from where it likes: an answer that somebody
may ask for again, or come late for."""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import islice


class Recording:
    """Numbered pieces of bytes, from 0. Keeps the last ones, `bytes_max` of them in all (or a single larger
    one); whoever keeps up with the writer misses nothing."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._pieces: deque[bytes] = deque()
        self._changed = asyncio.Event()
        self.first = 0  # the number of the oldest piece that is kept
        self.byte_count = 0
        self.is_over = False

    @property
    def end(self) -> int:
        """The number that the next piece will have."""
        return self.first + len(self._pieces)

    def add(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self.byte_count += len(piece)
        while self.byte_count > self._bytes_max and len(self._pieces) > 1:
            self.byte_count -= len(self._pieces.popleft())
            self.first += 1
        self._tell()

    def finish(self) -> None:
        """Nothing more will be added."""
        self.is_over = True
        self._tell()

    async def pieces(self, start: int) -> list[bytes]:
        """The pieces from number `start` on, once there is one; none when the recording ends before.
        LookupError when that piece is not kept any more."""
        while start >= self.end and not self.is_over:
            await self._changed.wait()
        if start < self.first:
            raise LookupError(f"the pieces before {self.first} are not kept any more")
        return list(islice(self._pieces, start - self.first, None))

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
