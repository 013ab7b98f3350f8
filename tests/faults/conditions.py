"""What a link does to the bytes on it: values and arithmetic, no sockets."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random
from typing import Literal

Direction = Literal["up", "down"]
"""`up`: from the dialer to the node it dialled; `down`: back."""

SLICE_SECONDS = 0.02  # a limited link hands over what passes in this time at once


@dataclass(frozen=True, slots=True)
class Corruption:
    """Bytes of one direction that arrive inverted: the one at `offset` of each connection's stream,
    and every byte with `probability`."""

    direction: Direction = "down"
    offset: int | None = None
    probability: float = 0.0


@dataclass(frozen=True, slots=True)
class Conditions:
    """The state of a link. Times are one way. A closed direction holds its bytes as TCP would, so
    that after it opened again the streams on it go on."""

    delay_ms: float = 0.0
    jitter_ms: float = 0.0  # up to this much more or less delay, without reordering
    bytes_per_second: float | None = None
    is_up_open: bool = True
    is_down_open: bool = True
    corruption: Corruption | None = None

    def is_open(self, direction: Direction) -> bool:
        return self.is_up_open if direction == "up" else self.is_down_open

    def delay_seconds(self, wobble: float) -> float:
        """The delay of a piece whose share of the jitter is `wobble`, from -1 to 1."""
        return max(0.0, self.delay_ms + wobble * self.jitter_ms) / 1000

    def slice_bytes(self, waiting: int) -> int:
        """How many of `waiting` bytes may be handed over at once."""
        if self.bytes_per_second is None:
            return waiting
        return min(waiting, max(1, int(self.bytes_per_second * SLICE_SECONDS)))


class Corrupter:
    """Corrupts one direction of one connection. Which bytes it hits depends on the seed alone, not
    on how TCP happened to cut the stream into pieces."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._position = 0
        self._next_hit = math.inf
        self._drawn_for: Corruption | None = None

    def apply(self, data: bytes, corruption: Corruption | None) -> bytes:
        """The next piece of the stream as it arrives; None for a clean direction."""
        start, self._position = self._position, self._position + len(data)
        if corruption != self._drawn_for:
            self._drawn_for = corruption
            self._next_hit = start + self._gap()
        if corruption is None:
            return data
        hits: list[int] = []
        if corruption.offset is not None and start <= corruption.offset < self._position:
            hits.append(corruption.offset - start)
        while self._next_hit < self._position:
            hits.append(int(self._next_hit) - start)
            self._next_hit += 1 + self._gap()
        damaged = bytearray(data)
        for hit in set(hits):
            damaged[hit] ^= 0xFF
        return bytes(damaged)

    def _gap(self) -> float:
        """How many bytes stay clean before the next hit: geometric, so one draw per hit."""
        probability = self._drawn_for.probability if self._drawn_for is not None else 0.0
        if probability <= 0:
            return math.inf
        if probability >= 1:
            return 0
        gap = math.log(1 - self._random.random()) / math.log1p(-probability)
        return gap if math.isinf(gap) else math.floor(gap)
