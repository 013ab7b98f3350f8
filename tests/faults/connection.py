"""One connection through a bad link: two pipes that obey the link's conditions as they change."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from random import Random
from typing import NoReturn

from faults.conditions import Conditions, Corrupter, Direction

CHUNK_BYTES = 16 << 10
QUEUE_CHUNKS = 16  # 256 KiB in flight in each direction; then the sender feels it
_LINGER_NONE = struct.pack("ii", 1, 0)  # close sends RST instead of FIN


@dataclass(slots=True)
class LinkStats:
    """What a link has seen. Bytes are counted when they were handed over to the receiving side."""

    open: int = 0
    accepted: int = 0
    rejected: int = 0  # beyond the link's limit of connections
    bytes_up: int = 0
    bytes_down: int = 0

    def count(self, direction: Direction, size: int) -> None:
        if direction == "up":
            self.bytes_up += size
        else:
            self.bytes_down += size


class LinkState:
    """What all connections of a link share. Lives on the link's event loop."""

    def __init__(self, stats: LinkStats, cut_all: Callable[[], object]) -> None:
        self.conditions = Conditions()
        self.stats = stats
        self._cut_all = cut_all
        self._cut_after: dict[Direction, int] = {}
        self._changed = asyncio.Event()

    def change(self, conditions: Conditions) -> None:
        self.conditions = conditions
        self._changed.set()
        self._changed = asyncio.Event()

    def arm_cut(self, count: int, direction: Direction) -> None:
        """Cut all connections once `count` more bytes went in `direction`."""
        self._cut_after[direction] = count

    def disarm_cuts(self) -> None:
        self._cut_after.clear()

    async def allowance(self, direction: Direction, waiting: int) -> int:
        """How many of `waiting` bytes may go at once; when a cut is due, cuts and never returns."""
        if self._cut_after.get(direction) == 0:
            await self._cut()
        size = self.conditions.slice_bytes(waiting)
        return min(size, self._cut_after.get(direction, size))

    async def passed(self, direction: Direction, size: int) -> None:
        """Count what went, cut when that was the last, and wait as long as a limited link takes."""
        self.stats.count(direction, size)
        if direction in self._cut_after:
            self._cut_after[direction] -= size
            if self._cut_after[direction] == 0:
                await self._cut()
        if self.conditions.bytes_per_second is not None:
            await self._wait_change(size / self.conditions.bytes_per_second)

    async def passage(self, direction: Direction, arrived: float = 0.0, wobble: float = 0.0) -> None:
        """Until what `arrived` then has crossed: the link is open that way, the delay is over."""
        while True:
            if not self.conditions.is_open(direction):
                await self._wait_change(None)
                continue
            left = arrived + self.conditions.delay_seconds(wobble) - time.monotonic()
            if left <= 0:
                return
            await self._wait_change(left)

    async def _wait_change(self, at_most_seconds: float | None) -> None:
        changed = self._changed
        with suppress(TimeoutError):
            async with asyncio.timeout(at_most_seconds):
                await changed.wait()

    async def _cut(self) -> NoReturn:
        self._cut_after.clear()
        self._cut_all()
        await asyncio.get_running_loop().create_future()  # the cut cancels whoever waits here
        raise AssertionError("a cut connection went on")


@dataclass(frozen=True, slots=True)
class _Chunk:
    """`data` is empty at the end of the stream, None where it was reset."""

    data: bytes | None
    arrived: float
    wobble: float


class _Pipe:
    """One direction of one connection: `fill` reads, `pour` hands over what has crossed."""

    def __init__(
        self,
        direction: Direction,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        state: LinkState,
        random: Random,
    ) -> None:
        self._direction: Direction = direction
        self._reader = reader
        self._writer = writer
        self._state = state
        self._random = random
        self._corrupter = Corrupter(Random(random.random()))
        self._chunks: asyncio.Queue[_Chunk] = asyncio.Queue(QUEUE_CHUNKS)
        writer.transport.set_write_buffer_limits(high=0)  # `drain` waits until the kernel has it

    async def fill(self) -> None:
        is_ended = False
        while not is_ended:
            try:
                data = await self._reader.read(CHUNK_BYTES)
            except ConnectionError:
                data = None
            is_ended = not data
            await self._chunks.put(_Chunk(data, time.monotonic(), self._random.uniform(-1, 1)))

    async def pour(self) -> None:
        """Hand everything over; ConnectionResetError when either side's reset has crossed."""
        while True:
            chunk = await self._chunks.get()
            await self._state.passage(self._direction, chunk.arrived, chunk.wobble)
            if chunk.data is None:
                raise ConnectionResetError
            if not chunk.data:
                self._writer.write_eof()
                return
            try:
                await self._hand_over(chunk)
            except ConnectionError:
                # The receiver is gone: that news travels the other way, and waits like all there.
                await self._state.passage("down" if self._direction == "up" else "up")
                raise

    async def _hand_over(self, chunk: _Chunk) -> None:
        corruption = self._state.conditions.corruption
        if corruption is not None and corruption.direction != self._direction:
            corruption = None
        data = self._corrupter.apply(chunk.data or b"", corruption)
        while data:
            await self._state.passage(self._direction, chunk.arrived, chunk.wobble)
            size = await self._state.allowance(self._direction, len(data))
            self._writer.write(data[:size])
            await self._writer.drain()
            data = data[size:]
            await self._state.passed(self._direction, size)


async def carry(dialer: socket.socket, target: tuple[str, int], state: LinkState, seed: str) -> None:
    """One connection, from the dial to its end. Cancelling resets it at both ends.

    A side that ended well is ended well at the other; a reset, or a target that refuses, becomes a
    reset of the dialer.
    """
    near_reader, near = await asyncio.open_connection(sock=dialer)
    try:
        with _closed_or_reset(near):
            await state.passage("up")  # a handshake needs both directions
            await state.passage("down")
            far_reader, far = await asyncio.open_connection(*target)
            with _closed_or_reset(far):
                up = _Pipe("up", near_reader, far, state, Random(f"{seed}/up"))
                down = _Pipe("down", far_reader, near, state, Random(f"{seed}/down"))
                async with asyncio.TaskGroup() as group:
                    for pipe in (up, down):
                        group.create_task(pipe.fill())
                        group.create_task(pipe.pour())
    except* OSError:
        pass  # one side went: the other was told so


@contextmanager
def _closed_or_reset(writer: asyncio.StreamWriter) -> Generator[None]:
    try:
        yield
    except BaseException:
        make_abrupt(writer.get_extra_info("socket"))
        writer.transport.abort()
        raise
    writer.close()


def make_abrupt(connection: socket.socket) -> None:
    """Let closing this socket reset the connection."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
