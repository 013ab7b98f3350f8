"""What the two threads share of one stream: frames coming in, frames going out, who waits for what.

Every attribute is written by one thread, and a side that is about to wait says so before it looks
again; under the GIL that makes locks unnecessary. Where one thread announces an end after the last
frame, the other reads the end before it looks for frames: it cannot miss one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial

import trio

from monai_node.mesh.libp2p.bridge import Bridge, Mailbox
from monai_node.mesh.libp2p.scopes import new_scope
from monai_node.registry.errors import PeerLost
from monai_node.registry.ids import PeerId
from monai_node.registry.wire import FRAME_BYTES_MAX, SEND_SECONDS, STREAM_BUFFER_FRAMES

# STREAM_BUFFER_FRAMES bounds small frames; of the largest ones, two are plenty.
_INBOX_BYTES_MAX = 2 * FRAME_BYTES_MAX
# A reader that takes nothing for this long from a full inbox has lost its stream. The peer's writer
# would give up after 5 s (py-libp2p): this side says it first, and to both.
READ_SECONDS = 2.0
# Not yet handed to libp2p: few, so that a sender feels a slow peer; not one, so that frames written
# together leave together.
_OUTBOX_FRAMES_MAX = 8
_OUTBOX_BYTES_MAX = 256 << 10
# One yamux frame with its header fits into one Noise message (65,535 bytes with the MAC).
_WRITE_BYTES = 60 << 10
_TAKES_PER_TURN = 32

EOF = ""  # the reason of a side that ended well


class Link:
    """One stream as both threads see it."""

    def __init__(self, peer: PeerId, bridge: Bridge) -> None:
        self.peer = peer
        self.inbox = Inbox(bridge.to_loop, bridge.to_trio)
        self.outbox = Outbox(bridge.to_loop, bridge.to_trio)
        self.scope = new_scope()  # entered by the pump
        self.reason = "this node reset the stream"  # for which the scope was cancelled

    def abort(self, reason: str) -> None:
        """Have the pump reset the stream and end. On the trio thread."""
        self.reason = reason
        self.scope.cancel()

    def cut(self, reason: str) -> None:
        """Fail both directions for the asyncio side, at once. On the loop's thread."""
        self.inbox.cut(reason)
        self.outbox.cut(reason)


class Inbox:
    """Frames from the peer: put by trio, taken by asyncio."""

    def __init__(self, to_loop: Mailbox, to_trio: Mailbox) -> None:
        self._to_loop = to_loop
        self._to_trio = to_trio
        self._frames: deque[bytes] = deque()
        self._bytes_in = 0  # trio's count
        self._bytes_out = 0  # asyncio's count
        self._end: str | None = None  # set by trio: what comes after the last frame
        self._cut: str | None = None  # set by asyncio: counts before any frame
        self._putter: trio.Event | None = None
        self._taker: asyncio.Future[None] | None = None
        self._takes = 0

    # --- trio ---
    async def put(self, frames: list[bytes]) -> None:
        """Add frames, waiting for room. trio.TooSlowError when READ_SECONDS bring none."""
        for frame in frames:
            if not self._has_room(len(frame)):
                self._wake()
                with trio.fail_after(READ_SECONDS):
                    await self._wait_for_room(len(frame))
            self._bytes_in += len(frame)
            self._frames.append(frame)
        self._wake()

    def end(self, reason: str) -> None:
        """Nothing comes after what was put: EOF, or the reason for which the stream was lost."""
        if self._end is None:
            self._end = reason
            self._wake()

    @property
    def is_awaited(self) -> bool:
        return self._taker is not None

    async def _wait_for_room(self, size: int) -> None:
        while not self._has_room(size):
            self._putter = trio.Event()
            if not self._has_room(size):
                await self._putter.wait()
            self._putter = None

    def _has_room(self, size: int) -> bool:
        held = self._bytes_in - self._bytes_out
        fits = not held or held + size <= _INBOX_BYTES_MAX
        return fits and len(self._frames) < STREAM_BUFFER_FRAMES

    def _wake(self) -> None:
        if self._taker is not None:
            self._to_loop.post(self._wake_taker)

    # --- asyncio ---
    async def take(self) -> bytes:
        """The next frame; EOFError or PeerLost after the last one. Cancelling loses no frame."""
        if self._taker is not None:
            raise RuntimeError("a stream has one reader at a time")
        self._takes += 1
        if self._takes % _TAKES_PER_TURN == 0:
            await asyncio.sleep(0)  # a peer that always has a next frame must not keep the loop
        while True:
            if self._cut is not None:
                raise PeerLost(self._cut)
            end = self._end
            if self._frames:
                return self._pop()
            if end is not None:
                raise PeerLost(end) if end else EOFError
            await self._wait()

    @property
    def has_frame(self) -> bool:
        """Whether `take` gives a frame at once."""
        return bool(self._frames) and self._cut is None

    def cut(self, reason: str) -> None:
        if self._cut is None:
            self._cut = reason
            self._frames.clear()
            self._wake_taker()

    def _pop(self) -> bytes:
        frame = self._frames.popleft()
        self._bytes_out += len(frame)
        putter = self._putter
        if putter is not None:
            self._to_trio.post(putter.set)
        return frame

    async def _wait(self) -> None:
        self._taker = asyncio.get_running_loop().create_future()
        try:
            if not self._frames and self._end is None:
                await self._taker
        finally:
            self._taker = None

    def _wake_taker(self) -> None:
        _wake(self._taker)


class Outbox:
    """Frames for the peer: put by asyncio, taken by trio."""

    def __init__(self, to_loop: Mailbox, to_trio: Mailbox) -> None:
        self._to_loop = to_loop
        self._to_trio = to_trio
        self._frames: deque[bytes] = deque()
        self._bytes_in = 0  # asyncio's count
        self._bytes_out = 0  # trio's count
        self._is_closing = False  # set by asyncio: nothing comes after what was put
        self._cut: str | None = None  # set on the loop's thread
        self._putter: asyncio.Future[None] | None = None
        self._closer: asyncio.Future[None] | None = None
        self._is_over = False  # written to the end, or cut; set on the loop's thread
        self._taker: trio.Event | None = None
        self.ended = trio.Event()  # set by trio: everything is written, or the stream lost

    # --- asyncio ---
    async def put(self, frame: bytes) -> None:
        """Queue a framed frame, waiting for room. TimeoutError after SEND_SECONDS without any, and
        PeerLost once the stream is cut or closed; in both cases nothing was queued."""
        if not self._has_room():
            async with asyncio.timeout(SEND_SECONDS):
                await self._wait_for_room()
        if self._cut is not None or self._is_closing:
            raise PeerLost(self._cut or "this node ended its side of the stream")
        self._bytes_in += len(frame)
        self._frames.append(frame)
        self._wake_taker()

    async def close(self) -> None:
        """Have what was put written, then the end; returns when that is done or the stream cut."""
        self._is_closing = True
        self._wake_taker()
        self._wake_putter()
        if self._is_over:
            return
        if self._closer is None:
            self._closer = asyncio.get_running_loop().create_future()
        await asyncio.wait({self._closer})

    def cut(self, reason: str) -> None:
        if self._cut is None:
            self._cut = reason
            self._wake_putter()
            self._finish()

    async def _wait_for_room(self) -> None:
        if self._putter is not None:
            raise RuntimeError("a stream has one writer at a time")
        while not self._has_room():
            self._putter = asyncio.get_running_loop().create_future()
            try:
                if not self._has_room():
                    await self._putter
            finally:
                self._putter = None

    def _has_room(self) -> bool:
        if self._cut is not None or self._is_closing:
            return True  # no need to wait for what cannot come
        held = self._bytes_in - self._bytes_out
        return len(self._frames) < _OUTBOX_FRAMES_MAX and held < _OUTBOX_BYTES_MAX

    def _wake_taker(self) -> None:
        taker = self._taker
        if taker is not None:
            self._to_trio.post(taker.set)

    def _wake_putter(self) -> None:
        _wake(self._putter)

    def _finish(self) -> None:
        self._is_over = True
        _wake(self._closer)

    # --- trio ---
    @property
    def is_closing(self) -> bool:
        return self._is_closing

    async def take(self) -> bytes | None:
        """Queued frames, joined up to about one write; None when nothing will come any more."""
        while True:
            is_closing = self._is_closing
            if self._frames:
                return self._joined()
            if is_closing:
                return None
            self._taker = trio.Event()
            if not self._frames and not self._is_closing:
                await self._taker.wait()
            self._taker = None

    def written(self) -> None:
        """Everything was written, and the end after it."""
        self.ended.set()
        self._to_loop.post(self._finish)

    def lose(self, reason: str) -> None:
        """Nothing that was put from here on can be written."""
        self.ended.set()
        self._to_loop.post(partial(self.cut, reason))

    def _joined(self) -> bytes:
        taken = [self._frames.popleft()]
        size = len(taken[0])
        while self._frames and size + len(self._frames[0]) <= _WRITE_BYTES:
            taken.append(self._frames.popleft())
            size += len(taken[-1])
        self._bytes_out += size
        if self._putter is not None:
            self._to_loop.post(self._wake_putter)
        return taken[0] if len(taken) == 1 else b"".join(taken)


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
